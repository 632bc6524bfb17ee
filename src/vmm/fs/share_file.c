/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Open files: the table of handles, which folders share, and what is done with a file's. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/fs/share_int.h"

/* ---- Handles ---- */

int share_handle_new(struct share *s, int take_fd, bool dir, uint64_t node, uint64_t *ret_fh)
{
    for (uint32_t i = 0; s->nhandles < SHARE_MAX_HANDLES && i < SHARE_MAX_HANDLES; i++) {
        struct share_handle *h = &s->handle[i];
        if (h->fd < 0) {
            *h = (struct share_handle){ .fd = take_fd, .uses = h->uses + 1, .dir = dir };
            h->node = node;
            s->nhandles++;
            *ret_fh = (uint64_t)h->uses << 32 | i;
            return 0;
        }
    }
    close(take_fd);
    return -ENFILE;
}

struct share_handle *share_handle_get(struct share *s, uint64_t fh, bool dir)
{
    struct share_handle *h = &s->handle[MIN((uint32_t)fh, (uint32_t)SHARE_MAX_HANDLES - 1)];
    bool right =
        h->fd >= 0 && h->dir == dir && fh == ((uint64_t)h->uses << 32 | (uint64_t)(h - s->handle));
    return right ? h : NULL;
}

void share_handle_free(struct share *s, struct share_handle *h)
{
    close(h->fd);
    free(h->buf);
    h->buf = NULL;
    h->fd = -1;
    s->nhandles--;
}

void share_handle_free_all(struct share *s)
{
    for (uint32_t i = 0; i < SHARE_MAX_HANDLES; i++) {
        if (s->handle[i].fd >= 0) {
            share_handle_free(s, &s->handle[i]);
        }
    }
}

size_t share_handles(const struct share *s)
{
    return s->nhandles;
}

/* ---- Opening ---- */

/* Not O_APPEND: the guest's kernel says where each write goes. */
int share_open_flags(uint32_t guest_flags)
{
    return (int)(guest_flags & (O_ACCMODE | O_TRUNC | O_SYNC | O_DSYNC));
}

static bool file_writes(uint32_t flags)
{
    return (flags & O_ACCMODE) != O_RDONLY || (flags & (O_TRUNC | O_CREAT)) != 0;
}

int share_op_open(struct share_req *r)
{
    struct fuse_open_in in;
    struct fuse_open_out out = { 0 };
    int fd = -1;
    const struct share_node *node = share_node_get(r->s, r->in.nodeid);
    int rc = node == NULL ? -ESTALE : share_take(r, &in, sizeof(in));
    if (rc == 0 && file_writes(in.flags) && !r->s->writable) {
        rc = -EROFS;
    }
    if (rc == 0 && r->room - r->out_len < sizeof(out)) {
        rc = -EINVAL;
    }
    rc = rc < 0 ? rc : share_open_file(r->s, node, share_open_flags(in.flags), &fd);
    rc = rc < 0 ? rc : share_handle_new(r->s, fd, false, node->id, &out.fh);
    return rc < 0 ? rc : share_put(r, &out, sizeof(out));
}

/* The new file, or the one that is there already. */
static int file_make(int dir, const char *name, const struct fuse_create_in *in, int *ret_fd)
{
    int flags = share_open_flags(in->flags) | (int)(in->flags & O_EXCL);
    struct stat st;
    CLEANUP_FD int fd = -1;
    int rc = share_open(dir, name, flags | O_CREAT | O_EXCL, in->mode & SHARE_MODE_FILE, &fd);
    if (rc == -EEXIST && (flags & O_EXCL) == 0) {
        CLEANUP_FD int look = -1;
        rc = share_open(dir, name, O_PATH, 0, &look);
        if (rc == 0 && (fstat(look, &st) < 0 || !S_ISREG(st.st_mode))) {
            rc = -EPERM;
        }
        rc = rc < 0 ? rc : share_open(dir, name, flags, 0, &fd);
    }
    if (rc == 0 && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))) {
        rc = -ESTALE;
    }
    if (rc == 0) {
        *ret_fd = take_fd(&fd);
    }
    return rc;
}

int share_op_create(struct share_req *r)
{
    struct fuse_create_in in;
    struct fuse_entry_out entry;
    struct fuse_open_out out = { 0 };
    const char *name;
    CLEANUP_FD int dir = -1;
    int fd = -1;
    struct share_node *parent = share_node_get(r->s, r->in.nodeid);
    int rc = parent == NULL ? -ESTALE : share_take(r, &in, sizeof(in));
    rc = rc < 0 ? rc : share_take_name(r, &name);
    if (rc == 0 && r->room - r->out_len < sizeof(entry) + sizeof(out)) {
        rc = -EINVAL;
    }
    rc = rc < 0 ? rc : share_node_dir(r->s, parent, &dir);
    rc = rc < 0 ? rc : file_make(dir, name, &in, &fd);
    if (rc < 0) {
        return rc;
    }
    rc = share_look(r->s, parent, name, &entry);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    rc = share_handle_new(r->s, fd, false, entry.nodeid, &out.fh);
    if (rc < 0) {
        share_node_forget(r->s, share_node_get(r->s, entry.nodeid), 1);
        return rc;
    }
    rc = share_put(r, &entry, sizeof(entry));
    return rc < 0 ? rc : share_put(r, &out, sizeof(out));
}

/* ---- Using ---- */

int share_op_read(struct share_req *r)
{
    struct fuse_read_in in;
    int rc = share_take(r, &in, sizeof(in));
    const struct share_handle *h = rc < 0 ? NULL : share_handle_get(r->s, in.fh, false);
    if (h == NULL) {
        return rc < 0 ? rc : -EBADF;
    }
    size_t want = MIN((size_t)in.size, r->room - r->out_len);
    ssize_t n =
        pread(h->fd, r->out + r->out_len, MIN(want, (size_t)SHARE_MAX_IO), (off_t)in.offset);
    if (n < 0) {
        return -errno;
    }
    r->out_len += (size_t)n;
    return 0;
}

int share_op_write(struct share_req *r)
{
    struct fuse_write_in in;
    struct fuse_write_out out = { 0 };
    int rc = share_take(r, &in, sizeof(in));
    const struct share_handle *h = rc < 0 ? NULL : share_handle_get(r->s, in.fh, false);
    if (h == NULL) {
        return rc < 0 ? rc : -EBADF;
    }
    if (in.size > r->left) {
        return -EINVAL;
    }
    ssize_t n = pwrite(h->fd, r->arg, in.size, (off_t)in.offset);
    if (n < 0) {
        return -errno;
    }
    out.size = (uint32_t)n;
    return share_put(r, &out, sizeof(out));
}

/* Sent at each close(2) of the guest. Nothing is held back here, so there is nothing to do. */
int share_op_flush(struct share_req *r)
{
    struct fuse_flush_in in;
    int rc = share_take(r, &in, sizeof(in));
    return rc < 0 ? rc : share_handle_get(r->s, in.fh, false) == NULL ? -EBADF : 0;
}

int share_op_fsync(struct share_req *r)
{
    struct fuse_fsync_in in;
    int rc = share_take(r, &in, sizeof(in));
    const struct share_handle *h = rc < 0 ? NULL : share_handle_get(r->s, in.fh, false);
    if (h == NULL) {
        return rc < 0 ? rc : -EBADF;
    }
    bool data = (in.fsync_flags & FUSE_FSYNC_FDATASYNC) != 0;
    return (data ? fdatasync(h->fd) : fsync(h->fd)) < 0 ? -errno : 0;
}

int share_op_release(struct share_req *r)
{
    struct fuse_release_in in;
    int rc = share_take(r, &in, sizeof(in));
    struct share_handle *h = rc < 0 ? NULL : share_handle_get(r->s, in.fh, false);
    if (h == NULL) {
        return rc < 0 ? rc : -EBADF;
    }
    share_handle_free(r->s, h);
    return 0;
}
