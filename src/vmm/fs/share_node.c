/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Nodes: numbers for names that the guest has looked up, and the way from a number to the file. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/fs/share_int.h"

#define NO_SLOT UINT32_MAX

/* ---- The table ---- */

static size_t node_hash(const struct share_node *parent, const char *name)
{
    uint64_t h = UINT64_C(14695981039346656037) ^ parent->id; /* FNV-1a */
    for (; *name != '\0'; name++) {
        h = (h ^ (uint8_t)*name) * UINT64_C(1099511628211);
    }
    return (size_t)((h ^ h >> 32) % SHARE_BUCKETS);
}

struct share_node *share_node_get(struct share *s, uint64_t id)
{
    uint32_t slot = (uint32_t)id;
    if (id == FUSE_ROOT_ID) {
        return &s->root;
    }
    if (slot >= s->nslots || s->slot[slot].node == NULL || s->slot[slot].node->id != id) {
        return NULL;
    }
    return s->slot[slot].node;
}

struct share_node *share_node_find(struct share *s, const struct share_node *parent,
                                   const char *name)
{
    struct share_node *n = s->bucket[node_hash(parent, name)];
    while (n != NULL && (n->parent != parent || strcmp(n->name, name) != 0)) {
        n = n->next;
    }
    return n;
}

static void node_hang(struct share *s, struct share_node *node)
{
    struct share_node **bucket = &s->bucket[node_hash(node->parent, node->name)];
    node->next = *bucket;
    *bucket = node;
    node->named = true;
}

void share_node_unname(struct share *s, struct share_node *node)
{
    if (!node->named || node->parent == NULL) {
        return;
    }
    struct share_node **p = &s->bucket[node_hash(node->parent, node->name)];
    while (*p != node) {
        p = &(*p)->next;
    }
    *p = node->next;
    node->named = false;
}

/* A slot number that is free: 0 and 1 never are, the root is 1. */
static int node_slot(struct share *s, uint32_t *ret_slot)
{
    if (s->free_slot != NO_SLOT) {
        *ret_slot = s->free_slot;
        s->free_slot = s->slot[*ret_slot].next_free;
        return 0;
    }
    if (s->nslots == s->slots_room) {
        uint32_t room = MAX(s->slots_room * 2, 256U);
        struct share_slot *more = realloc(s->slot, room * sizeof(*more));
        if (more == NULL) {
            return -ENOMEM;
        }
        memset(more + s->slots_room, 0, (room - s->slots_room) * sizeof(*more));
        s->slot = more;
        s->slots_room = room;
    }
    s->nslots = MAX(s->nslots, 2U);
    *ret_slot = s->nslots++;
    return 0;
}

static int node_new(struct share *s, struct share_node *parent, const char *name,
                    const struct stat *st, struct share_node **ret_node)
{
    uint32_t slot;
    if (s->nnodes >= SHARE_MAX_NODES) {
        return -ENFILE;
    }
    CLEANUP_FREE struct share_node *node = calloc(1, sizeof(*node));
    CLEANUP_FREE char *copy = strdup(name);
    if (node == NULL || copy == NULL || node_slot(s, &slot) < 0) {
        return -ENOMEM;
    }
    node->id = (uint64_t)s->slot[slot].uses++ << 32 | slot;
    node->parent = parent;
    node->name = take_ptr(&copy);
    node->dev = st->st_dev;
    node->ino = st->st_ino;
    parent->children++;
    s->nnodes++;
    s->slot[slot].node = node;
    node_hang(s, node);
    *ret_node = take_ptr(&node);
    return 0;
}

/* Frees it, and the folders above that lived for it alone. */
static void node_drop(struct share *s, struct share_node *node)
{
    while (node->parent != NULL && node->lookups == 0 && node->children == 0) {
        struct share_node *parent = node->parent;
        uint32_t slot = (uint32_t)node->id;
        share_node_unname(s, node);
        s->slot[slot].node = NULL;
        s->slot[slot].next_free = s->free_slot;
        s->free_slot = slot;
        s->nnodes--;
        parent->children--;
        free(node->name);
        free(node);
        node = parent;
    }
}

int share_node_look(struct share *s, struct share_node *parent, const char *name,
                    const struct stat *st, struct share_node **ret_node)
{
    struct share_node *node = share_node_find(s, parent, name);
    if (node != NULL && (node->dev != st->st_dev || node->ino != st->st_ino)) {
        share_node_unname(s, node); /* another file has taken its place */
        node = NULL;
    }
    int rc = node != NULL ? 0 : node_new(s, parent, name, st, &node);
    if (rc == 0) {
        node->lookups++;
        *ret_node = node;
    }
    return rc;
}

void share_node_forget(struct share *s, struct share_node *node, uint64_t n)
{
    node->lookups -= MIN(n, node->lookups);
    node_drop(s, node);
}

void share_node_rename(struct share *s, struct share_node *node, struct share_node *parent,
                       char *take_name)
{
    struct share_node *old = node->parent;
    share_node_unname(s, node);
    free(node->name);
    node->name = take_name;
    node->parent = parent;
    parent->children++;
    node_hang(s, node);
    old->children--;
    node_drop(s, old);
}

void share_node_forget_all(struct share *s)
{
    for (uint32_t i = 0; i < s->nslots; i++) {
        struct share_node *node = s->slot[i].node;
        if (node != NULL) {
            free(node->name);
            free(node);
        }
    }
    /* How often a slot was used stays: no number of before means something of after. */
    s->free_slot = NO_SLOT;
    for (uint32_t i = s->nslots; i-- > 2;) {
        s->slot[i].node = NULL;
        s->slot[i].next_free = s->free_slot;
        s->free_slot = i;
    }
    memset(s->bucket, 0, sizeof(s->bucket));
    s->nnodes = 0;
    s->root = (struct share_node){ .id = FUSE_ROOT_ID, .named = true };
}

size_t share_nodes(const struct share *s)
{
    return s->nnodes;
}

/* ---- From a node to its file ---- */

int share_open(int dir_fd, const char *path, int flags, mode_t mode, int *ret_fd)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC | O_NOFOLLOW),
        .mode = mode,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
    };
    if ((flags & O_PATH) == 0) {
        how.flags |= O_NOCTTY | O_NONBLOCK;
    }
    long fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));
    if (fd < 0) {
        return -errno;
    }
    *ret_fd = (int)fd;
    return 0;
}

/* The path below the share, written from its end. */
static int node_path(const struct share_node *node, char buf[PATH_MAX], const char **ret_path)
{
    char *p = buf + PATH_MAX - 1;
    *p = '\0';
    for (; node->parent != NULL; node = node->parent) {
        size_t len = strlen(node->name);
        bool last = *p == '\0';
        if (!node->named) {
            return -ESTALE;
        }
        if ((size_t)(p - buf) < len + 1) { /* which ends a circle, too */
            return -ENAMETOOLONG;
        }
        if (!last) {
            *--p = '/';
        }
        p -= len;
        memcpy(p, node->name, len);
    }
    *ret_path = *p != '\0' ? p : ".";
    return 0;
}

int share_node_open(struct share *s, const struct share_node *node, int flags, int *ret_fd)
{
    char buf[PATH_MAX];
    const char *path;
    int rc = node_path(node, buf, &path);
    return rc < 0 ? rc : share_open(s->root_fd, path, flags, 0, ret_fd);
}

int share_node_dir(struct share *s, const struct share_node *node, int *ret_fd)
{
    return share_node_open(s, node, O_PATH | O_DIRECTORY, ret_fd);
}

int share_node_place(struct share *s, const struct share_node *node, int *ret_fd,
                     const char **ret_name)
{
    if (!node->named) {
        return -ESTALE;
    }
    *ret_name = node->parent != NULL ? node->name : ".";
    return share_node_dir(s, node->parent != NULL ? node->parent : node, ret_fd);
}

int share_open_file(struct share *s, const struct share_node *node, int flags, int *ret_fd)
{
    struct stat st;
    CLEANUP_FD int look = -1;
    CLEANUP_FD int fd = -1;
    /* Looked at before it is opened: opening alone makes some devices act. */
    int rc = share_node_open(s, node, O_PATH, &look);
    if (rc < 0) {
        return rc;
    }
    if (fstat(look, &st) < 0) {
        return -errno;
    }
    if (!S_ISREG(st.st_mode)) {
        return S_ISDIR(st.st_mode) ? -EISDIR : -EPERM;
    }
    rc = share_node_open(s, node, flags, &fd);
    if (rc < 0) {
        return rc;
    }
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        return -ESTALE; /* somebody has put another thing in its place this moment */
    }
    *ret_fd = take_fd(&fd);
    return 0;
}
