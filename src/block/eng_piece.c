/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>

#include "block/eng_int.h"

void eng_piece_conclude(struct eng_piece *p, int64_t res)
{
    if (res == -EINTR || res == -EAGAIN) {
        p->rc = ENG_REROUTE;
    } else if (res < 0) {
        p->rc = (int)res;
    } else if ((uint64_t)res == p->len) {
        p->rc = 0;
    } else {
        blk_iov_advance(&p->iov, &p->niov, (size_t)res);
        p->offset += (uint64_t)res;
        p->len -= (uint64_t)res;
        p->rc = ENG_REROUTE;
    }
}
