/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/net/netbe_int.h"

/* A NIC whose cable is plugged in nowhere. */
static int netbe_none_open(struct netbe *be, struct err *err)
{
    (void)err;
    be->nqueues = 1;
    return 0;
}

const struct netbe_class netbe_none_class = {
    .name = "none",
    .help = "no network: frames go nowhere",
    .open = netbe_none_open,
};
