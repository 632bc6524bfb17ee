/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Open folders. A handle reads entries ahead with getdents64(2); their d_off is the guest's offset,
 * so one that goes on where it was costs no seek.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/fs/share_int.h"

int share_op_opendir(struct share_req *r)
{
    struct fuse_open_out out = { 0 };
    int fd = -1;
    const struct share_node *node = share_node_get(r->s, r->in.nodeid);
    int rc = node == NULL ? -ESTALE : r->room - r->out_len < sizeof(out) ? -EINVAL : 0;
    rc = rc < 0 ? rc : share_node_open(r->s, node, O_RDONLY | O_DIRECTORY, &fd);
    rc = rc < 0 ? rc : share_handle_new(r->s, fd, true, node->id, &out.fh);
    return rc < 0 ? rc : share_put(r, &out, sizeof(out));
}

/* Makes the entry at `offset` the next one. */
static int dir_seek(struct share_handle *h, uint64_t offset)
{
    if (h->buf == NULL) {
        h->buf = malloc(SHARE_DIR_BUF);
        if (h->buf == NULL) {
            return -ENOMEM;
        }
    }
    if (offset != h->offset) {
        if (lseek(h->fd, (off_t)offset, SEEK_SET) < 0) {
            return -errno;
        }
        h->offset = offset;
        h->pos = h->len = 0;
    }
    return 0;
}

/* 1: *ret is the next entry (in the handle's buffer), 0: the end. */
static int dir_peek(struct share_handle *h, const struct dirent64 **ret)
{
    if (h->pos == h->len) {
        long n = syscall(SYS_getdents64, h->fd, h->buf, (unsigned)SHARE_DIR_BUF);
        if (n <= 0) {
            h->pos = h->len = 0;
            return n < 0 ? -errno : 0;
        }
        h->pos = 0;
        h->len = (size_t)n;
    }
    *ret = (const void *)(h->buf + h->pos);
    return 1;
}

static void dir_advance(struct share_handle *h, const struct dirent64 *d)
{
    h->offset = (uint64_t)d->d_off;
    h->pos += d->d_reclen;
}

static bool dir_is_dot(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Appends one entry; the caller has looked that there is room. */
static int dir_put(struct share_req *r, const struct dirent64 *d, struct share_node *parent)
{
    static const uint8_t zeroes[8];
    size_t len = strlen(d->d_name);
    struct fuse_dirent ent = {
        /* ".." of the root is outside: it is nobody's business which it is. */
        .ino = strcmp(d->d_name, "..") == 0 ? 1 : d->d_ino,
        .off = (uint64_t)d->d_off,
        .namelen = (uint32_t)len,
        .type = d->d_type,
    };
    int rc = 0;
    if (parent != NULL) {
        struct fuse_entry_out entry = { 0 };
        /* An entry that cannot be looked up now (another mount, gone) is listed all the same. */
        if (!dir_is_dot(d->d_name) && share_look(r->s, parent, d->d_name, &entry) < 0) {
            entry = (struct fuse_entry_out){ 0 };
        }
        rc = share_put(r, &entry, sizeof(entry));
    }
    rc = rc < 0 ? rc : share_put(r, &ent, FUSE_NAME_OFFSET);
    rc = rc < 0 ? rc : share_put(r, d->d_name, len);
    size_t pad = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + len) - FUSE_NAME_OFFSET - len;
    return rc < 0 ? rc : share_put(r, zeroes, pad);
}

static int dir_read(struct share_req *r, bool plus)
{
    struct fuse_read_in in;
    const struct dirent64 *d = NULL;
    int rc = share_take(r, &in, sizeof(in));
    struct share_handle *h = rc < 0 ? NULL : share_handle_get(r->s, in.fh, true);
    if (h == NULL) {
        return rc < 0 ? rc : -EBADF;
    }
    struct share_node *parent = plus ? share_node_get(r->s, r->in.nodeid) : NULL;
    if (plus && parent == NULL) {
        return -ESTALE;
    }
    size_t end = r->out_len + MIN((size_t)in.size, r->room - r->out_len);
    rc = dir_seek(h, in.offset);
    while (rc == 0 && (rc = dir_peek(h, &d)) > 0) {
        size_t need = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + strlen(d->d_name)) +
                      (plus ? sizeof(struct fuse_entry_out) : 0);
        if (end - r->out_len < need) {
            rc = r->out_len == 0 ? -EINVAL : 0;
            break;
        }
        rc = dir_put(r, d, parent);
        if (rc == 0) {
            dir_advance(h, d);
        }
    }
    return rc < 0 && r->out_len == 0 ? rc : 0; /* an error behind entries comes with the next */
}

int share_op_readdir(struct share_req *r)
{
    return dir_read(r, false);
}

int share_op_readdirplus(struct share_req *r)
{
    return dir_read(r, true);
}

int share_op_releasedir(struct share_req *r)
{
    struct fuse_release_in in;
    int rc = share_take(r, &in, sizeof(in));
    struct share_handle *h = rc < 0 ? NULL : share_handle_get(r->s, in.fh, true);
    if (h == NULL) {
        return rc < 0 ? rc : -EBADF;
    }
    share_handle_free(r->s, h);
    return 0;
}

int share_op_fsyncdir(struct share_req *r)
{
    struct fuse_fsync_in in;
    int rc = share_take(r, &in, sizeof(in));
    const struct share_handle *h = rc < 0 ? NULL : share_handle_get(r->s, in.fh, true);
    if (h == NULL) {
        return rc < 0 ? rc : -EBADF;
    }
    return fsync(h->fd) < 0 ? -errno : 0;
}
