/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/net/netbe.h"

#include <errno.h>
#include <stdlib.h>

#include "vmm/net/netbe_int.h"

static const struct netbe_class *const netbe_classes[] = {
#define NETBE(n) &netbe_##n##_class,
#include "vmm/net/netbes.def"
#undef NETBE
};

int netbe_open(const struct netbe_opts *opts, struct netbe **ret_be, struct err *err)
{
    const struct netbe_class *cls = NULL;
    for (size_t i = 0; i < ARRAY_LEN(netbe_classes); i++) {
        if (strcmp(netbe_classes[i]->name, opts->kind) == 0) {
            cls = netbe_classes[i];
        }
    }
    if (cls == NULL) {
        return err_set(err, -EINVAL, "network '%s': unknown kind; use user, tap=NAME or none",
                       opts->kind);
    }
    struct netbe *be = calloc(1, sizeof(*be));
    if (be == NULL) {
        return err_set(err, -ENOMEM, "network '%s': out of memory", opts->kind);
    }
    be->cls = cls;
    be->opts = *opts;
    for (unsigned i = 0; i < NETBE_MAX_QUEUES; i++) {
        be->fd[i] = -1;
    }
    int rc = cls->open(be, err);
    be->opts = (struct netbe_opts){ .kind = cls->name, .queues = be->nqueues };
    if (rc < 0) {
        free(be);
        return rc;
    }
    *ret_be = be;
    return 0;
}

void netbe_close(struct netbe *be)
{
    if (be == NULL) {
        return;
    }
    if (be->cls->close != NULL) {
        be->cls->close(be);
    }
    free(be);
}
