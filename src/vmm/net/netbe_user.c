/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * User networking: the program posada-net, one process a NIC (helper.h), holds the TCP/IP stack; a
 * frame is a packet of the socket to it.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "vmm/helper.h"
#include "vmm/net/hostfwd.h"
#include "vmm/net/netbe_int.h"

#define NETBE_USER_SNDBUF (1024 * 1024) /* some 600 full frames */

static_assert(2 * HOSTFWD_MAX <= HELPER_MAX_ARGS, "an option and its value for each forward");

/* The helper's arguments: room for HOSTFWD_MAX forwards and the NULL behind. */
static int netbe_user_args(const struct netbe_opts *opts, const char **args, struct err *err)
{
    size_t n = 0;
    for (; opts->hostfwd != NULL && opts->hostfwd[n] != NULL; n++) {
        struct hostfwd fwd;
        int rc = hostfwd_parse(opts->hostfwd[n], &fwd, err);
        if (rc < 0) {
            return rc;
        }
        if (n < HOSTFWD_MAX) {
            args[2 * n] = "--hostfwd";
            args[2 * n + 1] = opts->hostfwd[n];
        }
    }
    if (n > HOSTFWD_MAX) {
        return err_set(err, -EINVAL, "network 'user': %zu host forwards; at most %d are allowed", n,
                       HOSTFWD_MAX);
    }
    return 0;
}

static void netbe_user_close(struct netbe *be)
{
    helper_end(be->state);
    be->fd[0] = -1;
    free(be->state);
}

static int netbe_user_open(struct netbe *be, struct err *err)
{
    const char *args[2 * HOSTFWD_MAX + 1] = { NULL };
    const struct helper_opts o = {
        .name = "posada-net",
        .path = be->opts.helper,
        .args = args,
        .send_buffer = NETBE_USER_SNDBUF,
    };
    int rc = netbe_user_args(&be->opts, args, err);
    if (rc < 0) {
        return rc;
    }
    CLEANUP_FREE struct helper *h = calloc(1, sizeof(*h));
    if (h == NULL) {
        return err_set(err, -ENOMEM, "network 'user': out of memory");
    }
    rc = helper_start(&o, h, err);
    if (rc < 0) {
        return err_prefix(err, "network 'user': ");
    }
    be->nqueues = 1;
    be->sock = true;
    be->fd[0] = h->fd;
    be->state = take_ptr(&h);
    return 0;
}

const struct netbe_class netbe_user_class = {
    .name = "user",
    .help = "the host's network through a helper process; needs no right",
    .open = netbe_user_open,
    .close = netbe_user_close,
};
