/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inside of a share: requests, nodes (share_node.c), names (share_name.c), open files and folders
 * (share_file.c, share_dir.c); share.c has the table of operations and the attributes.
 */
#ifndef FS_SHARE_INT_H
#define FS_SHARE_INT_H

#include <dirent.h>
#include <limits.h>
#include <linux/fuse.h>
#include <sys/stat.h>

#include "vmm/fs/share.h"

/* A name in a folder that the guest has looked up. Lives as long as the guest remembers it
 * (`lookups`) or something below it is remembered (`children`). One that is not `named` has lost
 * its name, by us or behind our back: it has no path any more, the guest gets ESTALE. */
struct share_node {
    uint64_t id; /* slot number, and in the high half how often the slot was used before */
    struct share_node *parent; /* NULL: the root */
    struct share_node *next;   /* with the same hash */
    uint64_t lookups;
    uint32_t children;
    bool named;
    dev_t dev;
    ino_t ino;
    char *name;
};

struct share_slot {
    struct share_node *node; /* NULL: free */
    uint32_t uses;
    uint32_t next_free;
};

#define SHARE_DIR_BUF 16384

struct share_handle {
    int fd; /* -1: free */
    uint32_t uses;
    bool dir;
    uint64_t node;
    /* Of a folder: entries read ahead. */
    uint8_t *buf;
    size_t pos, len;
    uint64_t offset; /* where the next entry is */
};

#define SHARE_BUCKETS 16384

struct share {
    int root_fd;
    bool writable;
    bool ready; /* INIT was answered */
    struct share_node root;
    struct share_slot *slot;
    uint32_t nslots, slots_room, free_slot;
    size_t nnodes;
    struct share_node *bucket[SHARE_BUCKETS];
    struct share_handle handle[SHARE_MAX_HANDLES];
    size_t nhandles;
};

/* One request. Handlers take their arguments from the front of `arg` and write to `out`. */
struct share_req {
    struct share *s;
    struct fuse_in_header in;
    const uint8_t *arg;
    size_t left;
    uint8_t *out;
    size_t room;
    size_t out_len;
};

/* The next `len` bytes of the arguments; -EINVAL: there are not so many. */
MUST_USE int share_take(struct share_req *r, void *buf, size_t len);
/* The next text, as it stands in the request; -EINVAL: no end, or longer than `max`. */
MUST_USE int share_take_text(struct share_req *r, size_t max, const char **ret_text);
/* A text that names something in a folder: not empty, ".", "..", with '/' or too long. */
MUST_USE int share_take_name(struct share_req *r, const char **ret_name);
/* Appends to the answer. -EINVAL: no room. */
MUST_USE int share_put(struct share_req *r, const void *buf, size_t len);

/* share_node.c */
struct share_node *share_node_get(struct share *s, uint64_t id); /* NULL: there is none */
struct share_node *share_node_find(struct share *s, const struct share_node *parent,
                                   const char *name);
/* The node of that name for the file `st`, remembered once more. -ENFILE, -ENOMEM. */
MUST_USE int share_node_look(struct share *s, struct share_node *parent, const char *name,
                             const struct stat *st, struct share_node **ret_node);
/* The guest forgets `n` look-ups; the node may be gone then. */
void share_node_forget(struct share *s, struct share_node *node, uint64_t n);
/* The name does not mean this node any more. */
void share_node_unname(struct share *s, struct share_node *node);
void share_node_rename(struct share *s, struct share_node *node, struct share_node *parent,
                       char *take_name);
void share_node_forget_all(struct share *s);
/* Opens it. `flags` as for open(2); no link is followed, nothing but the share is reached. */
MUST_USE int share_node_open(struct share *s, const struct share_node *node, int flags,
                             int *ret_fd);
/* The folder that the node is, or is in (the root: itself), as O_PATH; *ret_name: its name there.
 */
MUST_USE int share_node_dir(struct share *s, const struct share_node *node, int *ret_fd);
MUST_USE int share_node_place(struct share *s, const struct share_node *node, int *ret_fd,
                              const char **ret_name);
/* openat2() with the rules of a share. */
MUST_USE int share_open(int dir_fd, const char *path, int flags, mode_t mode, int *ret_fd);
/* Opens a regular file and nothing else. */
MUST_USE int share_open_file(struct share *s, const struct share_node *node, int flags,
                             int *ret_fd);

/* share_file.c */
MUST_USE int share_handle_new(struct share *s, int take_fd, bool dir, uint64_t node,
                              uint64_t *ret_fh);
struct share_handle *share_handle_get(struct share *s, uint64_t fh, bool dir); /* or NULL */
void share_handle_free(struct share *s, struct share_handle *h);
void share_handle_free_all(struct share *s);
/* What the guest may ask of open(2). */
int share_open_flags(uint32_t guest_flags);
int share_op_open(struct share_req *r);
int share_op_create(struct share_req *r);
int share_op_read(struct share_req *r);
int share_op_write(struct share_req *r);
int share_op_flush(struct share_req *r);
int share_op_fsync(struct share_req *r);
int share_op_release(struct share_req *r);

/* share_dir.c */
int share_op_opendir(struct share_req *r);
int share_op_readdir(struct share_req *r);
int share_op_readdirplus(struct share_req *r);
int share_op_releasedir(struct share_req *r);
int share_op_fsyncdir(struct share_req *r);

/* share_name.c */
/* Looks a name up and fills the answer's entry; the guest remembers the node then. */
MUST_USE int share_look(struct share *s, struct share_node *parent, const char *name,
                        struct fuse_entry_out *ret_entry);
int share_op_lookup(struct share_req *r);
int share_op_forget(struct share_req *r);
int share_op_batch_forget(struct share_req *r);
int share_op_mknod(struct share_req *r);
int share_op_mkdir(struct share_req *r);
int share_op_symlink(struct share_req *r);
int share_op_link(struct share_req *r);
int share_op_readlink(struct share_req *r);
int share_op_unlink(struct share_req *r);
int share_op_rmdir(struct share_req *r);
int share_op_rename(struct share_req *r);
int share_op_rename2(struct share_req *r);

/* share.c */
void share_fill_attr(struct fuse_attr *attr, const struct stat *st);

/* How long a guest may go by what it was told: a change by the host is seen this late. */
#define SHARE_VALID_S 1

/* Set-user-ID and set-group-ID would be ours. */
#define SHARE_MODE_FILE 0777
#define SHARE_MODE_DIR  01777

#endif
