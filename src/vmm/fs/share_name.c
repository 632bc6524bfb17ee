/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Operations on names: looking up, making, removing, renaming, links. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/fs/share_int.h"

#define NAME_FORGETS 65536 /* of one BATCH_FORGET: more do not fit in a message */

int share_look(struct share *s, struct share_node *parent, const char *name,
               struct fuse_entry_out *ret_entry)
{
    struct share_node *node = NULL;
    struct stat st;
    CLEANUP_FD int dir = -1;
    CLEANUP_FD int fd = -1;
    int rc = share_node_dir(s, parent, &dir);
    rc = rc < 0 ? rc : share_open(dir, name, O_PATH, 0, &fd);
    if (rc == -ENOENT) {
        struct share_node *gone = share_node_find(s, parent, name);
        if (gone != NULL) {
            share_node_unname(s, gone);
        }
    }
    if (rc == 0 && fstat(fd, &st) < 0) {
        rc = -errno;
    }
    rc = rc < 0 ? rc : share_node_look(s, parent, name, &st, &node);
    if (rc < 0) {
        return rc;
    }
    *ret_entry = (struct fuse_entry_out){ .nodeid = node->id,
                                          .entry_valid = SHARE_VALID_S,
                                          .attr_valid = SHARE_VALID_S };
    share_fill_attr(&ret_entry->attr, &st);
    return 0;
}

/* What an operation that made `name` answers. */
static int name_answer(struct share_req *r, struct share_node *parent, const char *name)
{
    struct fuse_entry_out entry;
    int rc = share_look(r->s, parent, name, &entry);
    if (rc == 0 && share_put(r, &entry, sizeof(entry)) < 0) {
        share_node_forget(r->s, share_node_get(r->s, entry.nodeid), 1); /* it never learns of it */
        rc = -EINVAL;
    }
    return rc;
}

/* The folder that the request is about, open. */
static int name_parent(struct share_req *r, uint64_t id, struct share_node **ret_node, int *ret_fd)
{
    struct share_node *node = share_node_get(r->s, id);
    if (node == NULL) {
        return -ESTALE;
    }
    *ret_node = node;
    return share_node_dir(r->s, node, ret_fd);
}

int share_op_lookup(struct share_req *r)
{
    const char *name;
    struct share_node *parent = share_node_get(r->s, r->in.nodeid);
    int rc = parent == NULL ? -ESTALE : share_take_name(r, &name);
    return rc < 0 ? rc : name_answer(r, parent, name);
}

static void name_forget(struct share *s, uint64_t id, uint64_t n)
{
    struct share_node *node = share_node_get(s, id);
    if (node != NULL) {
        share_node_forget(s, node, n);
    }
}

int share_op_forget(struct share_req *r)
{
    struct fuse_forget_in in;
    int rc = share_take(r, &in, sizeof(in));
    if (rc == 0) {
        name_forget(r->s, r->in.nodeid, in.nlookup);
    }
    return rc;
}

int share_op_batch_forget(struct share_req *r)
{
    struct fuse_batch_forget_in in;
    struct fuse_forget_one one;
    int rc = share_take(r, &in, sizeof(in));
    for (uint32_t i = 0; rc == 0 && i < in.count && i < NAME_FORGETS; i++) {
        rc = share_take(r, &one, sizeof(one));
        if (rc == 0) {
            name_forget(r->s, one.nodeid, one.nlookup);
        }
    }
    return rc;
}

/* ---- Making ---- */

int share_op_mknod(struct share_req *r)
{
    struct fuse_mknod_in in;
    struct share_node *parent;
    const char *name;
    CLEANUP_FD int dir = -1;
    CLEANUP_FD int fd = -1;
    int rc = share_take(r, &in, sizeof(in));
    rc = rc < 0 ? rc : share_take_name(r, &name);
    rc = rc < 0 ? rc : name_parent(r, r->in.nodeid, &parent, &dir);
    if (rc == 0 && !S_ISREG(in.mode)) {
        rc = -EPERM;
    }
    rc = rc < 0
             ? rc
             : share_open(dir, name, O_WRONLY | O_CREAT | O_EXCL, in.mode & SHARE_MODE_FILE, &fd);
    return rc < 0 ? rc : name_answer(r, parent, name);
}

int share_op_mkdir(struct share_req *r)
{
    struct fuse_mkdir_in in;
    struct share_node *parent;
    const char *name;
    CLEANUP_FD int dir = -1;
    int rc = share_take(r, &in, sizeof(in));
    rc = rc < 0 ? rc : share_take_name(r, &name);
    rc = rc < 0 ? rc : name_parent(r, r->in.nodeid, &parent, &dir);
    if (rc == 0 && mkdirat(dir, name, in.mode & SHARE_MODE_DIR) < 0) {
        rc = -errno;
    }
    return rc < 0 ? rc : name_answer(r, parent, name);
}

/* The target is any text: only the guest ever follows it. */
int share_op_symlink(struct share_req *r)
{
    struct share_node *parent;
    const char *name;
    const char *target;
    CLEANUP_FD int dir = -1;
    int rc = share_take_name(r, &name);
    rc = rc < 0 ? rc : share_take_text(r, PATH_MAX - 1, &target);
    rc = rc < 0 ? rc : name_parent(r, r->in.nodeid, &parent, &dir);
    if (rc == 0 && symlinkat(target, dir, name) < 0) {
        rc = -errno;
    }
    return rc < 0 ? rc : name_answer(r, parent, name);
}

int share_op_link(struct share_req *r)
{
    struct fuse_link_in in;
    struct share_node *parent;
    const char *name;
    const char *old_name;
    CLEANUP_FD int dir = -1;
    CLEANUP_FD int old_dir = -1;
    int rc = share_take(r, &in, sizeof(in));
    rc = rc < 0 ? rc : share_take_name(r, &name);
    rc = rc < 0 ? rc : name_parent(r, r->in.nodeid, &parent, &dir);
    const struct share_node *old = rc < 0 ? NULL : share_node_get(r->s, in.oldnodeid);
    rc = rc < 0 ? rc : old == NULL ? -ESTALE : share_node_place(r->s, old, &old_dir, &old_name);
    if (rc == 0 && linkat(old_dir, old_name, dir, name, 0) < 0) { /* 0: a link to a link */
        rc = -errno;
    }
    return rc < 0 ? rc : name_answer(r, parent, name);
}

int share_op_readlink(struct share_req *r)
{
    char target[PATH_MAX];
    const char *name;
    CLEANUP_FD int dir = -1;
    const struct share_node *node = share_node_get(r->s, r->in.nodeid);
    int rc = node == NULL ? -ESTALE : share_node_place(r->s, node, &dir, &name);
    if (rc < 0) {
        return rc;
    }
    ssize_t n = readlinkat(dir, name, target, sizeof(target));
    return n < 0 ? -errno : share_put(r, target, (size_t)n);
}

/* ---- Removing and renaming ---- */

static int name_remove(struct share_req *r, int flags)
{
    struct share_node *parent;
    const char *name;
    CLEANUP_FD int dir = -1;
    int rc = share_take_name(r, &name);
    rc = rc < 0 ? rc : name_parent(r, r->in.nodeid, &parent, &dir);
    if (rc == 0 && unlinkat(dir, name, flags) < 0) {
        rc = -errno;
    }
    struct share_node *node = rc == 0 ? share_node_find(r->s, parent, name) : NULL;
    if (node != NULL) {
        share_node_unname(r->s, node);
    }
    return rc;
}

int share_op_unlink(struct share_req *r)
{
    return name_remove(r, 0);
}

int share_op_rmdir(struct share_req *r)
{
    return name_remove(r, AT_REMOVEDIR);
}

static bool name_below(const struct share_node *node, const struct share_node *top)
{
    while (node != NULL && node != top) {
        node = node->parent;
    }
    return node != NULL;
}

static int name_rename(struct share_req *r, uint64_t new_parent, uint32_t flags)
{
    struct share_node *from;
    struct share_node *to;
    const char *old_name;
    const char *new_name;
    CLEANUP_FD int from_dir = -1;
    CLEANUP_FD int to_dir = -1;
    int rc = share_take_name(r, &old_name);
    rc = rc < 0 ? rc : share_take_name(r, &new_name);
    rc = rc < 0 ? rc : name_parent(r, r->in.nodeid, &from, &from_dir);
    rc = rc < 0 ? rc : name_parent(r, new_parent, &to, &to_dir);
    if (rc < 0) {
        return rc;
    }
    struct share_node *node = share_node_find(r->s, from, old_name);
    CLEANUP_FREE char *copy = strdup(new_name);
    if ((node != NULL && name_below(to, node)) || (flags & ~(uint32_t)RENAME_NOREPLACE) != 0) {
        return -EINVAL;
    }
    if (copy == NULL) {
        return -ENOMEM;
    }
    if (renameat2(from_dir, old_name, to_dir, new_name, flags) < 0) {
        return -errno;
    }
    struct share_node *replaced = share_node_find(r->s, to, new_name);
    if (replaced != NULL && replaced != node) {
        share_node_unname(r->s, replaced);
    }
    if (node != NULL) {
        share_node_rename(r->s, node, to, take_ptr(&copy));
    }
    return 0;
}

int share_op_rename(struct share_req *r)
{
    struct fuse_rename_in in;
    int rc = share_take(r, &in, sizeof(in));
    return rc < 0 ? rc : name_rename(r, in.newdir, 0);
}

int share_op_rename2(struct share_req *r)
{
    struct fuse_rename2_in in;
    int rc = share_take(r, &in, sizeof(in));
    return rc < 0 ? rc : name_rename(r, in.newdir, in.flags);
}
