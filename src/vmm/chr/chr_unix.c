/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A listening Unix stream socket of mode 0600 that serves one peer at a time; a second one is
 * turned away at once. Output while nobody is connected is dropped.
 *
 * A socket left behind by a process that died is removed at the start: it must be a socket, nobody
 * may listen on it, and it must belong to our user. The one we made is removed at the end, if the
 * path still leads to it.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/chr/chr_int.h"
#include "vmm/net/unixsock.h"

struct chr_unix {
    struct unixsock listen;
    struct loop_fd *w;
};

static void chr_unix_on_accept(void *opaque, uint32_t events)
{
    struct chr *chr = opaque;
    struct chr_unix *s = chr->state;
    (void)events;
    CLEANUP_FD int fd = accept4(s->listen.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 || chr->in_w != NULL) {
        return; /* the peer gave up, or there is one already: closing turns it away */
    }
    chr_drop_fds(chr); /* one that left while the guest read nothing */
    struct err err = ERR_INIT;
    int peer = take_fd(&fd);
    if (chr_set_fds(chr, peer, peer, &err) < 0) {
        log_warn("chr", "peer refused", "why='%s'", err.msg);
    }
}

static void chr_unix_close(struct chr *chr)
{
    struct chr_unix *s = chr->state;
    loop_fd_del(s->w);
    unixsock_close(&s->listen);
    free(s);
}

static int chr_unix_open(struct chr *chr, const char *arg, struct err *err)
{
    struct chr_unix *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return err_set(err, -ENOMEM, "console 'unix:%s': out of memory", arg);
    }
    int rc = unixsock_listen(&s->listen, arg, err);
    if (rc < 0) {
        free(s);
        return err_prefix(err, "console 'unix:%s': ", arg);
    }
    chr->state = s;
    chr->sock = true;
    s->w = loop_fd_add(chr->loop, s->listen.fd, EPOLLIN, chr_unix_on_accept, chr);
    if (s->w == NULL) {
        rc = err_set_errno(err, -errno, "console 'unix:%s'", arg);
        unixsock_close(&s->listen);
        free(s);
        return rc;
    }
    return 0;
}

const struct chr_class chr_unix_class = {
    .name = "unix",
    .arg = "PATH",
    .help = "a Unix socket that serves one peer at a time",
    .open = chr_unix_open,
    .close = chr_unix_close,
};
