/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What changes the store's images and references. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "image/store_int.h"

bool store_in_use(const struct store *s, const char *id, char *who, size_t len)
{
    static const char *const folders[] = { "vms", "tmp" };
    char path[STORE_PATH_MAX];
    bool used = false;
    for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
        char **names = store_names(store_path(s, path, "%s", folders[i]));
        for (char **n = names; *n != NULL; n++) {
            struct err ignored = ERR_INIT;
            CLEANUP_FREE char *holds = NULL;
            if (store_read_text(store_path(s, path, "%s/%s/image", folders[i], *n), &holds,
                                &ignored) == 0 &&
                strcmp(holds, id) == 0) {
                (void)snprintf(who, len, i == 0 ? "VM '%s'" : "a VM that runs (%s)", *n);
                used = true;
            }
        }
        store_names_free(names);
    }
    return used;
}

/* ---- Adding ---- */

/* The ID is the digest of all that the image consists of. */
static int store_identify(const char *folder, struct store_image *image,
                          int (*step)(void *opaque, uint64_t bytes, struct err *err), void *opaque,
                          struct err *err)
{
    static const char *const files[] = { "vmlinuz", "initrd.img" };
    char path[STORE_PATH_MAX + 32];
    char hex[DIGEST_HEX + 1];
    struct blk *blk = NULL;
    struct digest *d = NULL;
    (void)snprintf(path, sizeof(path), "%s/disk.raw", folder);
    int rc =
        blk_open(&(struct blk_opts){ .path = path, .format = "raw", .read_only = true }, &blk, err);
    rc = rc < 0 ? rc : digest_new(&d, err);
    rc = rc < 0 ? rc : digest_disk(blk, step, opaque, hex, err);
    if (rc == 0) {
        image->size = blk_size(blk);
        digest_add_text(d, hex);
    }
    for (size_t i = 0; i < ARRAY_LEN(files) && rc == 0 && image->kernel; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", folder, files[i]);
        rc = digest_file(path, hex, err);
        if (rc == 0) {
            digest_add_text(d, hex);
        }
    }
    if (rc == 0) {
        uint8_t raw[DIGEST_BYTES];
        digest_add_text(d, image->append != NULL ? image->append : "");
        digest_end(d, raw);
        digest_hex(raw, image->id);
    }
    digest_free(d);
    blk_close(blk);
    return rc;
}

/* Nobody writes an image any more, and the disk is on the medium before it has a name. */
static int store_seal(const char *folder, struct store_image *image, struct err *err)
{
    static const char *const files[] = { "disk.raw", "vmlinuz", "initrd.img", "image.json" };
    char path[STORE_PATH_MAX + 32];
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        struct stat st;
        (void)snprintf(path, sizeof(path), "%s/%s", folder, files[i]);
        CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT && !image->kernel) {
            continue;
        }
        if (fd < 0 || fstat(fd, &st) < 0 || fchmod(fd, 0444) < 0 || fsync(fd) < 0) {
            return err_set_errno(err, -errno, "cannot finish '%s'", path);
        }
    }
    return 0;
}

static int store_measure(const char *folder, struct store_image *image, struct err *err)
{
    char path[STORE_PATH_MAX + 32];
    struct stat st;
    time_t now = time(NULL);
    struct tm tm;
    char text[32];
    (void)snprintf(path, sizeof(path), "%s/disk.raw", folder);
    if (stat(path, &st) < 0) {
        return err_set_errno(err, -errno, "cannot read '%s'", path);
    }
    image->used = (uint64_t)st.st_blocks * 512;
    if (image->created == NULL && gmtime_r(&now, &tm) != NULL &&
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) > 0) {
        image->created = strdup(text);
    }
    return 0;
}

int store_add(struct store *s, struct store_tmp *tmp, struct store_image *image, const char *ref,
              int (*step)(void *opaque, uint64_t bytes, struct err *err), void *opaque,
              struct err *err)
{
    char folder[STORE_PATH_MAX + 16];
    char path[STORE_PATH_MAX + 32];
    char final[STORE_PATH_MAX];
    (void)snprintf(folder, sizeof(folder), "%s/image", tmp->path);
    int rc = store_identify(folder, image, step, opaque, err);
    rc = rc < 0 ? rc : store_measure(folder, image, err);
    (void)snprintf(path, sizeof(path), "%s/image.json", folder);
    rc = rc < 0 ? rc : store_image_save(path, image, err);
    rc = rc < 0 ? rc : store_seal(folder, image, err);
    if (rc < 0) {
        return rc;
    }
    {
        CLEANUP_FD int lock = store_lock(s, err);
        if (lock < 0) {
            return lock;
        }
        if (rename(folder, store_path(s, final, "images/%s", image->id)) < 0 && errno != EEXIST &&
            errno != ENOTEMPTY) {
            return err_set_errno(err, -errno, "cannot move the image to '%s'", final);
        }
    }
    return ref != NULL ? store_tag(s, ref, image->id, err) : 0;
}

/* ---- References ---- */

int store_tag(struct store *s, const char *ref, const char *id, struct err *err)
{
    char name[STORE_NAME_MAX + 1];
    char tag[STORE_NAME_MAX + 1];
    char path[STORE_PATH_MAX];
    int rc = store_parse_ref(ref, name, tag, err);
    if (rc < 0) {
        return rc;
    }
    CLEANUP_FD int lock = store_lock(s, err);
    if (lock < 0) {
        return lock;
    }
    if (access(store_path(s, path, "images/%s/image.json", id), F_OK) < 0) {
        return err_set_errno(err, -errno, "image %.12s", id);
    }
    if (mkdir(store_path(s, path, "tags/%s", name), 0755) < 0 && errno != EEXIST) {
        return err_set_errno(err, -errno, "cannot make the folder '%s'", path);
    }
    return store_write_text(
        store_path(s, path, "tags/%s/%s", name, tag[0] != '\0' ? tag : "latest"), id, err);
}

struct store_rm {
    const struct store *s;
    const char *id;
    const char *name; /* NULL: every reference to `id` */
    const char *tag;
    unsigned left; /* references to `id` that stay */
    bool remove;
};

static int store_rm_ref(void *opaque, const char *name, const char *tag, const char *id)
{
    struct store_rm *rm = opaque;
    char path[STORE_PATH_MAX];
    if (strcmp(id, rm->id) != 0) {
        return 0;
    }
    if (rm->name != NULL && (strcmp(name, rm->name) != 0 || strcmp(tag, rm->tag) != 0)) {
        rm->left++;
    } else if (rm->remove) {
        (void)unlink(store_path(rm->s, path, "tags/%s/%s", name, tag));
        (void)rmdir(store_path(rm->s, path, "tags/%s", name)); /* stays while it has tags */
    }
    return 0;
}

/* The store's lock is held. */
static int store_rm_image(struct store *s, const char *id, struct err *err)
{
    char path[STORE_PATH_MAX];
    char gone[STORE_PATH_MAX];
    /* Out of sight in one step; what is left of a removal that was killed is swept later. */
    if (rename(store_path(s, path, "images/%s", id), store_path(s, gone, "tmp/%s", id)) < 0) {
        return err_set_errno(err, -errno, "cannot remove '%s'", path);
    }
    store_remove_tree(gone);
    return 0;
}

/* "debian" means "debian:12" when that is its only tag: nothing is removed by a guess. */
static int store_only_tag(const struct store *s, const char *name, char tag[STORE_NAME_MAX + 1],
                          struct err *err)
{
    char path[STORE_PATH_MAX];
    char **tags = store_names(store_path(s, path, "tags/%s", name));
    int rc = 0;
    if (tags[0] == NULL || tags[1] != NULL) {
        rc = err_set(err, -EINVAL, "'%s': which one? give NAME:TAG (see 'posada image ls')", name);
    } else {
        (void)snprintf(tag, STORE_NAME_MAX + 1, "%s", tags[0]);
    }
    store_names_free(tags);
    return rc;
}

int store_rm(struct store *s, const char *ref, struct err *err)
{
    struct store_image image = { 0 };
    char name[STORE_NAME_MAX + 1] = "";
    char tag[STORE_NAME_MAX + 1] = "";
    char who[STORE_NAME_MAX + 32];
    int rc = store_find(s, ref, &image, err);
    if (rc < 0) {
        return rc;
    }
    CLEANUP_FD int lock = store_lock(s, err);
    struct store_rm rm = { .s = s, .id = image.id };
    bool by_id = strncmp(image.id, ref, strlen(ref)) == 0;
    rc = lock < 0 ? lock : by_id ? 0 : store_parse_ref(ref, name, tag, err);
    if (rc == 0 && !by_id) {
        rm.name = name;
        rm.tag = tag;
        rc = tag[0] == '\0' ? store_only_tag(s, name, tag, err) : 0;
    }
    if (rc == 0) {
        (void)store_each_ref(s, store_rm_ref, &rm);
    }
    if (rc == 0 && rm.left == 0 && store_in_use(s, image.id, who, sizeof(who))) {
        rc = err_set(err, -EBUSY, "'%s' is in use by %s", ref, who);
    }
    if (rc == 0) {
        rm.remove = true;
        unsigned left = rm.left;
        (void)store_each_ref(s, store_rm_ref, &rm);
        rc = left == 0 ? store_rm_image(s, image.id, err) : 0;
    }
    store_image_done(&image);
    return rc;
}

/* ---- Pruning ---- */

static uint64_t store_usage(const char *path)
{
    uint64_t sum = 0;
    char **names = store_names(path);
    for (char **n = names; *n != NULL; n++) {
        char file[STORE_PATH_MAX + 300];
        struct stat st;
        (void)snprintf(file, sizeof(file), "%s/%s", path, *n);
        sum += lstat(file, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
    }
    store_names_free(names);
    return sum;
}

int store_prune(struct store *s, uint64_t *ret_bytes, struct err *err)
{
    char path[STORE_PATH_MAX];
    char who[STORE_NAME_MAX + 32];
    CLEANUP_FD int lock = store_lock(s, err);
    if (lock < 0) {
        return lock;
    }
    char **ids = store_names(store_path(s, path, "images"));
    int rc = 0;
    *ret_bytes = 0;
    for (char **id = ids; *id != NULL && rc == 0; id++) {
        struct store_rm rm = { .s = s, .id = *id, .name = "", .tag = "" };
        (void)store_each_ref(s, store_rm_ref, &rm);
        if (rm.left == 0 && !store_in_use(s, *id, who, sizeof(who))) {
            *ret_bytes += store_usage(store_path(s, path, "images/%s", *id));
            rc = store_rm_image(s, *id, err);
        }
    }
    store_names_free(ids);
    static const char *const kept[] = { "debs", "bases" };
    for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
        *ret_bytes += store_usage(store_path(s, path, "%s", kept[i]));
        store_remove_tree(path);
        (void)mkdir(path, 0755); /* made again by the next who opens the store, too */
    }
    return rc;
}
