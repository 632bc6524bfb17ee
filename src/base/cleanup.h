/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Resources that free themselves when their variable leaves scope. One variable a resource;
 * hand the resource on with take_ptr() / take_fd(), which empty the variable.
 *
 *     CLEANUP_FD int fd = open(...);
 *     CLEANUP_FREE char *buf = malloc(n);
 *     ...
 *     obj->fd = take_fd(&fd);
 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free(void *p)
{
    free(*(void **)p);
}

static inline void cleanup_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
}

#define CLEANUP_FREE __attribute__((cleanup(cleanup_free)))
#define CLEANUP_FD   __attribute__((cleanup(cleanup_fd)))
#define CLEANUP(fn)  __attribute__((cleanup(fn)))

#define take_ptr(p)                                                                                \
    ({                                                                                             \
        __typeof__(*(p)) take_tmp_ = *(p);                                                         \
        *(p) = NULL;                                                                               \
        take_tmp_;                                                                                 \
    })

static inline int take_fd(int *fd)
{
    int tmp = *fd;
    *fd = -1;
    return tmp;
}

#endif
