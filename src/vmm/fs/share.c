/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of operations, the start of a session, attributes. */
#include "vmm/fs/share.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/fs/share_int.h"

#define SHARE_MINOR 31 /* of FUSE 7: the first that virtio-fs has, and the one we answer with */

/* ---- Requests ---- */

int share_take(struct share_req *r, void *buf, size_t len)
{
    if (r->left < len) {
        return -EINVAL;
    }
    memcpy(buf, r->arg, len);
    r->arg += len;
    r->left -= len;
    return 0;
}

int share_take_text(struct share_req *r, size_t max, const char **ret_text)
{
    const char *text = (const char *)r->arg;
    const char *end = r->left > 0 ? memchr(text, '\0', r->left) : NULL;
    if (end == NULL) {
        return -EINVAL;
    }
    if ((size_t)(end - text) > max) {
        return -ENAMETOOLONG;
    }
    *ret_text = text;
    r->left -= (size_t)(end - text) + 1;
    r->arg += end - text + 1;
    return 0;
}

int share_take_name(struct share_req *r, const char **ret_name)
{
    const char *name;
    int rc = share_take_text(r, NAME_MAX, &name);
    if (rc < 0) {
        return rc;
    }
    if (name[0] == '\0' || strchr(name, '/') != NULL || strcmp(name, ".") == 0 ||
        strcmp(name, "..") == 0) {
        return -EINVAL;
    }
    *ret_name = name;
    return 0;
}

int share_put(struct share_req *r, const void *buf, size_t len)
{
    if (r->room - r->out_len < len) {
        return -EINVAL;
    }
    memcpy(r->out + r->out_len, buf, len);
    r->out_len += len;
    return 0;
}

/* ---- Attributes ---- */

/* Our user is the guest's root: who runs the VM decides what the guest may do as whom. */
static uint32_t share_owner(uint32_t id, uint32_t ours)
{
    return id == ours ? 0 : id == 0 ? 65534 : id;
}

void share_fill_attr(struct fuse_attr *attr, const struct stat *st)
{
    *attr = (struct fuse_attr){
        .ino = st->st_ino,
        .size = (uint64_t)st->st_size,
        .blocks = (uint64_t)st->st_blocks,
        .atime = (uint64_t)st->st_atim.tv_sec,
        .mtime = (uint64_t)st->st_mtim.tv_sec,
        .ctime = (uint64_t)st->st_ctim.tv_sec,
        .atimensec = (uint32_t)st->st_atim.tv_nsec,
        .mtimensec = (uint32_t)st->st_mtim.tv_nsec,
        .ctimensec = (uint32_t)st->st_ctim.tv_nsec,
        .mode = st->st_mode,
        .nlink = (uint32_t)st->st_nlink,
        .uid = share_owner(st->st_uid, geteuid()),
        .gid = share_owner(st->st_gid, getegid()),
        .rdev = (uint32_t)st->st_rdev,
        .blksize = (uint32_t)st->st_blksize,
    };
}

/* Of a node that has lost its name, through a handle that is open still. */
static int share_stat(struct share *s, const struct share_node *node, struct stat *st)
{
    CLEANUP_FD int fd = -1;
    int rc = share_node_open(s, node, O_PATH, &fd);
    for (uint32_t i = 0; rc == -ESTALE && s->nhandles > 0 && i < SHARE_MAX_HANDLES; i++) {
        if (s->handle[i].fd >= 0 && s->handle[i].node == node->id) {
            return fstat(s->handle[i].fd, st) < 0 ? -errno : 0;
        }
    }
    return rc < 0 ? rc : fstat(fd, st) < 0 ? -errno : 0;
}

static int share_answer_attr(struct share_req *r, const struct stat *st)
{
    struct fuse_attr_out out = { .attr_valid = SHARE_VALID_S };
    share_fill_attr(&out.attr, st);
    return share_put(r, &out, sizeof(out));
}

static int share_op_getattr(struct share_req *r)
{
    struct fuse_getattr_in in;
    struct stat st;
    const struct share_node *node = share_node_get(r->s, r->in.nodeid);
    int rc = node == NULL ? -ESTALE : share_take(r, &in, sizeof(in));
    if (rc < 0) {
        return rc;
    }
    const struct share_handle *h =
        (in.getattr_flags & FUSE_GETATTR_FH) != 0 ? share_handle_get(r->s, in.fh, false) : NULL;
    rc = h == NULL ? share_stat(r->s, node, &st) : fstat(h->fd, &st) < 0 ? -errno : 0;
    return rc < 0 ? rc : share_answer_attr(r, &st);
}

/* Owners stay: a guest that sets what it sees (cp -a, tar as root) is not told off for it. */
static int share_set_owner(const struct fuse_setattr_in *in)
{
    bool foreign = ((in->valid & FATTR_UID) != 0 && in->uid != 0) ||
                   ((in->valid & FATTR_GID) != 0 && in->gid != 0);
    return foreign ? -EPERM : 0;
}

static int share_set_mode(struct share *s, const struct share_node *node, uint32_t mode)
{
    struct stat st;
    CLEANUP_FD int fd = -1;
    int rc = share_stat(s, node, &st);
    if (rc == 0 && S_ISDIR(st.st_mode)) {
        rc = share_node_open(s, node, O_RDONLY | O_DIRECTORY, &fd);
    } else if (rc == 0) {
        rc = share_open_file(s, node, O_RDONLY, &fd);
        rc = rc != -EACCES ? rc : share_open_file(s, node, O_WRONLY, &fd);
    }
    uint32_t allowed = S_ISDIR(st.st_mode) ? SHARE_MODE_DIR : SHARE_MODE_FILE;
    return rc < 0 ? rc : fchmod(fd, mode & allowed) < 0 ? -errno : 0;
}

static int share_set_size(struct share *s, const struct share_node *node,
                          const struct fuse_setattr_in *in)
{
    CLEANUP_FD int fd = -1;
    const struct share_handle *h =
        (in->valid & FATTR_FH) != 0 ? share_handle_get(s, in->fh, false) : NULL;
    int rc = h != NULL ? 0 : share_open_file(s, node, O_WRONLY, &fd);
    return rc < 0 ? rc : ftruncate(h != NULL ? h->fd : fd, (off_t)in->size) < 0 ? -errno : 0;
}

static int share_set_times(struct share *s, const struct share_node *node,
                           const struct fuse_setattr_in *in)
{
    const char *name;
    CLEANUP_FD int dir = -1;
    struct timespec times[2] = {
        {.tv_sec = (time_t)in->atime,  .tv_nsec = in->atimensec},
        { .tv_sec = (time_t)in->mtime, .tv_nsec = in->mtimensec},
    };
    const uint32_t set[2] = { FATTR_ATIME, FATTR_MTIME };
    const uint32_t now[2] = { FATTR_ATIME_NOW, FATTR_MTIME_NOW };
    for (unsigned i = 0; i < 2; i++) {
        if ((in->valid & set[i]) == 0) {
            times[i].tv_nsec = UTIME_OMIT;
        } else if ((in->valid & now[i]) != 0) {
            times[i].tv_nsec = UTIME_NOW;
        }
    }
    int rc = share_node_place(s, node, &dir, &name);
    return rc < 0 ? rc : utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int share_op_setattr(struct share_req *r)
{
    struct fuse_setattr_in in;
    struct stat st;
    const struct share_node *node = share_node_get(r->s, r->in.nodeid);
    int rc = node == NULL ? -ESTALE : share_take(r, &in, sizeof(in));
    rc = rc < 0 ? rc : share_set_owner(&in);
    if (rc == 0 && (in.valid & FATTR_MODE) != 0) {
        rc = share_set_mode(r->s, node, in.mode);
    }
    if (rc == 0 && (in.valid & FATTR_SIZE) != 0) {
        rc = share_set_size(r->s, node, &in);
    }
    if (rc == 0 && (in.valid & (FATTR_ATIME | FATTR_MTIME)) != 0) {
        rc = share_set_times(r->s, node, &in);
    }
    rc = rc < 0 ? rc : share_stat(r->s, node, &st);
    return rc < 0 ? rc : share_answer_attr(r, &st);
}

static int share_op_statfs(struct share_req *r)
{
    struct statfs st;
    if (fstatfs(r->s->root_fd, &st) < 0) {
        return -errno;
    }
    struct fuse_statfs_out out = {
        .st = {.blocks = st.f_blocks,
               .bfree = st.f_bfree,
               .bavail = st.f_bavail,
               .files = st.f_files,
               .ffree = st.f_ffree,
               .bsize = (uint32_t)st.f_bsize,
               .namelen = (uint32_t)st.f_namelen,
               .frsize = (uint32_t)st.f_frsize},
    };
    return share_put(r, &out, sizeof(out));
}

/* ---- The session ---- */

static void share_forget(struct share *s)
{
    share_handle_free_all(s);
    share_node_forget_all(s);
    s->ready = false;
}

/* A guest that starts anew begins with nothing. */
static int share_op_init(struct share_req *r)
{
    struct fuse_init_in in;
    struct fuse_init_out out = {
        .major = FUSE_KERNEL_VERSION,
        .minor = SHARE_MINOR,
        .max_background = 64,
        .congestion_threshold = 48,
        .max_write = SHARE_MAX_IO,
        .time_gran = 1,
        .max_pages = SHARE_MAX_IO / 4096,
    };
    /* Fields behind these came later and are not needed. */
    int rc = share_take(r, &in, offsetof(struct fuse_init_in, flags2));
    if (rc < 0) {
        return rc;
    }
    if (in.major < FUSE_KERNEL_VERSION ||
        (in.major == FUSE_KERNEL_VERSION && in.minor < SHARE_MINOR)) {
        return -EPROTO;
    }
    share_forget(r->s);
    out.max_readahead = MIN(in.max_readahead, (uint32_t)SHARE_MAX_IO * 2);
    out.flags =
        in.flags & (FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS |
                    FUSE_READDIRPLUS_AUTO | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES);
    r->s->ready = true;
    return share_put(r, &out, sizeof(out));
}

static int share_op_destroy(struct share_req *r)
{
    share_forget(r->s);
    return 0;
}

#define WRITES BIT(0) /* refused where the share is read-only */
#define SILENT BIT(1) /* has no answer */
#define EARLY  BIT(2) /* does without INIT */

static const struct {
    int (*fn)(struct share_req *r);
    unsigned flags;
} share_ops[] = {
    [FUSE_LOOKUP] = {share_op_lookup,        0     },
    [FUSE_FORGET] = { share_op_forget,       SILENT},
    [FUSE_GETATTR] = { share_op_getattr,      0     },
    [FUSE_SETATTR] = { share_op_setattr,      WRITES},
    [FUSE_READLINK] = { share_op_readlink,     0     },
    [FUSE_SYMLINK] = { share_op_symlink,      WRITES},
    [FUSE_MKNOD] = { share_op_mknod,        WRITES},
    [FUSE_MKDIR] = { share_op_mkdir,        WRITES},
    [FUSE_UNLINK] = { share_op_unlink,       WRITES},
    [FUSE_RMDIR] = { share_op_rmdir,        WRITES},
    [FUSE_RENAME] = { share_op_rename,       WRITES},
    [FUSE_LINK] = { share_op_link,         WRITES},
    [FUSE_OPEN] = { share_op_open,         0     },
    [FUSE_READ] = { share_op_read,         0     },
    [FUSE_WRITE] = { share_op_write,        WRITES},
    [FUSE_STATFS] = { share_op_statfs,       0     },
    [FUSE_RELEASE] = { share_op_release,      0     },
    [FUSE_FSYNC] = { share_op_fsync,        0     },
    [FUSE_FLUSH] = { share_op_flush,        0     },
    [FUSE_INIT] = { share_op_init,         EARLY },
    [FUSE_OPENDIR] = { share_op_opendir,      0     },
    [FUSE_READDIR] = { share_op_readdir,      0     },
    [FUSE_RELEASEDIR] = { share_op_releasedir,   0     },
    [FUSE_FSYNCDIR] = { share_op_fsyncdir,     0     },
    [FUSE_CREATE] = { share_op_create,       WRITES},
    [FUSE_INTERRUPT] = { NULL,                  SILENT},
    [FUSE_DESTROY] = { share_op_destroy,      EARLY },
    [FUSE_BATCH_FORGET] = { share_op_batch_forget, SILENT},
    [FUSE_READDIRPLUS] = { share_op_readdirplus,  0     },
    [FUSE_RENAME2] = { share_op_rename2,      WRITES},
};

static int share_do(struct share_req *r, unsigned *ret_flags)
{
    bool known = r->in.opcode < ARRAY_LEN(share_ops);
    unsigned flags = known ? share_ops[r->in.opcode].flags : 0;
    *ret_flags = flags;
    if (!known || share_ops[r->in.opcode].fn == NULL) {
        return -ENOSYS; /* the guest's kernel asks once and does without */
    }
    if (!r->s->ready && (flags & EARLY) == 0) {
        return -EIO;
    }
    if (!r->s->writable && (flags & WRITES) != 0) {
        return -EROFS;
    }
    return share_ops[r->in.opcode].fn(r);
}

size_t share_handle(struct share *s, const void *request, size_t len, void *reply, size_t room)
{
    struct share_req r = { .s = s };
    struct fuse_out_header out;
    unsigned flags = 0;
    if (len < sizeof(r.in)) {
        return 0;
    }
    memcpy(&r.in, request, sizeof(r.in));
    r.arg = (const uint8_t *)request + sizeof(r.in);
    r.left = len - sizeof(r.in);
    r.out = (uint8_t *)reply + sizeof(out);
    r.room = room < sizeof(out) ? 0 : room - sizeof(out);
    int rc = share_do(&r, &flags);
    if (room < sizeof(out) || (flags & SILENT) != 0) {
        return 0;
    }
    out = (struct fuse_out_header){ .len = (uint32_t)(sizeof(out) + (rc < 0 ? 0 : r.out_len)),
                                    .error = rc,
                                    .unique = r.in.unique };
    memcpy(reply, &out, sizeof(out));
    return out.len;
}

int share_new(int dir_fd, bool writable, struct share **ret_share, struct err *err)
{
    struct share *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    s->root_fd = dir_fd;
    s->writable = writable;
    for (unsigned i = 0; i < SHARE_MAX_HANDLES; i++) {
        s->handle[i].fd = -1;
    }
    share_node_forget_all(s);
    *ret_share = s;
    return 0;
}

void share_free(struct share *s)
{
    if (s == NULL) {
        return;
    }
    share_forget(s);
    free(s->slot);
    free(s);
}
