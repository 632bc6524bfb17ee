/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/build.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "image/build_int.h"
#include "image/grub.h"
#include "image/initrd.h"

#define BUILD_MAX_KERNEL  (64 * MIB)
#define BUILD_MAX_MODULE  (64 * MIB)
#define BUILD_MAX_RELEASE (64 * KIB)

void build_phase(const struct build *b, const char *name)
{
    if (b->opts->watch.phase != NULL) {
        b->opts->watch.phase(b->opts->watch.opaque, name);
    }
}

static void build_progress(const struct build *b, uint64_t done, uint64_t total)
{
    if (b->opts->watch.progress != NULL) {
        b->opts->watch.progress(b->opts->watch.opaque, done, total);
    }
}

/* ---- The root file system ---- */

static void build_filled(void *opaque, uint64_t bytes)
{
    build_progress(opaque, bytes, 0);
}

/* Kernel file systems, and the initrd of the package that ours replaces. */
static bool build_skip(void *opaque, const char *path)
{
    (void)opaque;
    return strncmp(path, "dev/", 4) == 0 || strncmp(path, "boot/initrd.img-", 16) == 0;
}

int build_fill(struct build *b, struct child *child, const char *tar, struct rootfs *fs,
               struct err *err)
{
    struct tarball_source src = {
        .child = child,
        .tar = tar,
        .epoch = b->opts->epoch,
        .stop = b->opts->stop,
        .skip = build_skip,
        .step = build_filled,
        .opaque = b,
    };
    return tarball_fill(&src, fs, err);
}

int build_child_end(struct child *take_child, int rc, struct err *err)
{
    bool ours = rc == -EINTR || rc == -ENOSPC;
    struct err end = ERR_INIT;
    /* Another stream that broke off has its cause in the program, which has ended then. */
    int finish = child_finish(take_child, ours, &end);
    if (finish < 0 && !ours) {
        *err = end;
        rc = finish;
    }
    return rc;
}

/* A folder is read through tar, which sorts. */
static int build_from_dir(struct build *b, struct rootfs *fs, struct err *err)
{
    const char *argv[] = { "tar",         "--create",
                           "--sort=name", "--numeric-owner",
                           "--xattrs",    "--one-file-system",
                           "-C",          b->opts->from_dir,
                           ".",           NULL };
    struct child *child = NULL;
    build_phase(b, "writing the file system");
    int rc = child_start(
        &(struct child_opts){ .argv = argv, .package = "tar", .stop = b->opts->stop }, &child, err);
    if (rc < 0) {
        return rc;
    }
    return build_child_end(child, build_fill(b, child, NULL, fs, err), err);
}

static int build_fill_root(struct build *b, struct rootfs *fs, struct err *err)
{
    struct tarball_files early = { 0 };
    struct tarball_files late = { 0 };
    int rc = build_files(b, &early, &late, err);
    rc = rc < 0 ? rc : tarball_files_fill(&late, b->opts->epoch, fs, err);
    if (rc == 0 && (b->opts->from_dir != NULL || b->opts->from_tar != NULL)) {
        rc = tarball_files_fill(&early, b->opts->epoch, fs, err);
        if (rc == 0 && b->opts->from_dir != NULL) {
            rc = build_from_dir(b, fs, err);
        } else if (rc == 0) {
            build_phase(b, "writing the file system");
            rc = build_fill(b, NULL, b->opts->from_tar, fs, err);
        }
    } else if (rc == 0) {
        rc = build_debian(b, &early, fs, err);
    }
    tarball_files_done(&early);
    tarball_files_done(&late);
    return rc;
}

/* ---- Kernel and initrd ---- */

static int build_find_kernel(void *opaque, const char *name)
{
    struct build *b = opaque;
    /* The one with the greatest name, should there be several. */
    if (strncmp(name, "vmlinuz-", 8) == 0 && strcmp(name + 8, b->version) > 0) {
        (void)snprintf(b->version, sizeof(b->version), "%s", name + 8);
    }
    return 0;
}

static int build_read_root(void *opaque, const char *path, char **ret_data, size_t *ret_len,
                           struct err *err)
{
    return rootfs_read_file(opaque, path, BUILD_MAX_MODULE, ret_data, ret_len, err);
}

struct build_mem {
    const char *data;
    size_t left;
};

static ssize_t build_mem_read(void *opaque, void *buf, size_t len, struct err *err)
{
    struct build_mem *m = opaque;
    size_t n = MIN(len, m->left);
    (void)err;
    memcpy(buf, m->data, n);
    m->data += n;
    m->left -= n;
    return (ssize_t)n;
}

static int build_save(const struct build *b, const char *name, const void *data, size_t len,
                      struct err *err)
{
    char path[STORE_PATH_MAX + 64];
    (void)snprintf(path, sizeof(path), "%s/image/%s", b->tmp.path, name);
    CLEANUP_FD int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, data, len) != (ssize_t)len) {
        return err_set_errno(err, errno != 0 ? -errno : -ENOSPC, "cannot write '%s'", path);
    }
    return 0;
}

/* The links that grub.cfg names, where the system came without them. */
static int build_link(struct build *b, struct rootfs *fs, const char *name, const char *target,
                      struct err *err)
{
    struct rootfs_entry e = {
        .path = name, .mode = S_IFLNK | 0777, .mtime = b->opts->epoch, .target = target
    };
    return rootfs_exists(fs, name) ? 0 : rootfs_add(fs, &e, NULL, NULL, err);
}

static int build_kernel(struct build *b, struct rootfs *fs, struct err *err)
{
    char path[256];
    CLEANUP_FREE char *kernel = NULL;
    CLEANUP_FREE void *initrd = NULL;
    size_t kernel_len = 0;
    size_t initrd_len = 0;
    struct initrd_params params = { .version = b->version,
                                    .init = b->agent,
                                    .init_len = b->agent_len,
                                    .read = build_read_root,
                                    .opaque = fs };
    int rc = rootfs_list(fs, "boot", build_find_kernel, b, err);
    if (rc == 0 && b->version[0] == '\0') {
        rc = err_set(err, -ENOENT, "the system has no kernel: there is no /boot/vmlinuz-VERSION");
    }
    (void)snprintf(path, sizeof(path), "boot/vmlinuz-%s", b->version);
    rc = rc < 0 ? rc : rootfs_read_file(fs, path, BUILD_MAX_KERNEL, &kernel, &kernel_len, err);
    rc = rc < 0 ? rc : initrd_make(&params, &initrd, &initrd_len, err);
    rc = rc < 0 ? rc : build_save(b, "vmlinuz", kernel, kernel_len, err);
    rc = rc < 0 ? rc : build_save(b, "initrd.img", initrd, initrd_len, err);
    if (rc == 0) {
        struct build_mem mem = { initrd, initrd_len };
        (void)snprintf(path, sizeof(path), "boot/initrd.img-%s", b->version);
        struct rootfs_entry e = { .path = path, .mode = S_IFREG | 0644, .mtime = b->opts->epoch };
        rc = rootfs_add(fs, &e, build_mem_read, &mem, err);
        rc = rc < 0 ? rc : build_link(b, fs, "initrd.img", path, err);
        (void)snprintf(path, sizeof(path), "boot/vmlinuz-%s", b->version);
        rc = rc < 0 ? rc : build_link(b, fs, "vmlinuz", path, err);
    }
    return rc;
}

/* The line PRETTY_NAME="..." of os-release(5). */
static char *build_os_name(struct rootfs *fs)
{
    struct err ignored = ERR_INIT;
    CLEANUP_FREE char *text = NULL;
    size_t len = 0;
    if (rootfs_read_file(fs, "usr/lib/os-release", BUILD_MAX_RELEASE, &text, &len, &ignored) < 0) {
        return NULL;
    }
    const char *at = strstr(text, "PRETTY_NAME=\"");
    return at != NULL ? strndup(at + 13, strcspn(at + 13, "\"\n")) : NULL;
}

static void build_describe(const struct build *b, struct rootfs *fs, struct store_image *image)
{
    const struct recipe_user *users = b->recipe->users.items;
    image->arch = strdup(b->recipe->arch);
    image->recipe = strdup(b->opts->recipe_name);
    image->os = build_os_name(fs);
    image->memory = b->recipe->memory;
    image->kernel = true;
    image->agent = true;
    int n = asprintf(&image->append, "root=/dev/vda%d ro console=ttyS0", GPT_ROOT_PART);
    if (n < 0 || image->arch == NULL || image->recipe == NULL) {
        abort();
    }
    if (b->opts->from_dir != NULL || b->opts->from_tar != NULL) {
        return;
    }
    if (b->recipe->users.count == 0) {
        image->login = strdup("root, without a password (console only)");
    } else if (asprintf(&image->login, "%s", users[0].name) < 0) {
        abort();
    }
}

/* ---- The whole ---- */

static int build_disk(struct build *b, struct err *err)
{
    char folder[STORE_PATH_MAX + 16];
    (void)snprintf(folder, sizeof(folder), "%s/image", b->tmp.path);
    (void)snprintf(b->disk, sizeof(b->disk), "%s/disk.raw", folder);
    if (mkdir(folder, 0755) < 0) {
        return err_set_errno(err, -errno, "cannot make the folder '%s'", folder);
    }
    CLEANUP_FD int fd = open(b->disk, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 || ftruncate(fd, (off_t)b->size) < 0) {
        return err_set_errno(err, -errno, "cannot make '%s'", b->disk);
    }
    return gpt_write(fd, b->size, &b->uuids, err);
}

static int build_bootable(struct build *b, struct err *err)
{
    CLEANUP_FD int fd = open(b->disk, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return err_set_errno(err, -errno, "cannot open '%s'", b->disk);
    }
    build_phase(b, "making it bootable");
    struct grub_params params = {
        .fd = fd,
        .disk = b->disk,
        .dir = b->tmp.path,
        .root_uuid = b->root_uuid,
        .fat_id = b->fat_id,
        .epoch = b->opts->epoch,
        .stop = b->opts->stop,
    };
    return grub_install(&params, err);
}

static int build_root(struct build *b, struct store_image *image, struct err *err)
{
    struct rootfs *fs = NULL;
    struct rootfs_params params = {
        .path = b->disk,
        .offset = GPT_ROOT_START,
        .size = gpt_root_size(b->size),
        .uuid = b->root_uuid,
        .label = "root",
        .epoch = b->opts->epoch,
        .stop = b->opts->stop,
    };
    int rc = rootfs_make(&params, err);
    rc = rc < 0 ? rc : rootfs_open(b->disk, GPT_ROOT_START, true, b->opts->epoch, &fs, err);
    rc = rc < 0 ? rc : build_fill_root(b, fs, err);
    rc = rc < 0 ? rc : build_kernel(b, fs, err);
    if (rc == 0) {
        build_describe(b, fs, image);
    }
    struct err closing = ERR_INIT;
    int closed = rootfs_close(fs, &closing);
    if (rc == 0 && closed < 0) {
        *err = closing;
        rc = closed;
    }
    return rc;
}

static int build_hashed(void *opaque, uint64_t bytes, struct err *err)
{
    const struct build *b = opaque;
    build_progress(b, bytes, 0);
    return child_stop_check(b->opts->stop, err);
}

int build_run(struct store *s, const struct build_opts *opts, struct store_image *ret_image,
              struct err *err)
{
    struct build b = { .store = s, .opts = opts, .recipe = opts->recipe, .tmp = { .fd = -1 } };
    struct store_image image = { 0 };
    int rc = build_plan(&b, err);
    rc = rc < 0 ? rc : store_tmp_new(s, &b.tmp, err);
    rc = rc < 0 ? rc : build_disk(&b, err);
    rc = rc < 0 ? rc : build_root(&b, &image, err);
    rc = rc < 0 ? rc : build_bootable(&b, err);
    if (rc == 0) {
        build_phase(&b, "working out the hash");
        rc = store_add(s, &b.tmp, &image, opts->ref, build_hashed, &b, err);
    }
    store_tmp_free(&b.tmp);
    free(b.base_packages);
    free(b.packages);
    free(b.agent);
    if (rc < 0) {
        store_image_done(&image);
        return rc;
    }
    *ret_image = image;
    return 0;
}
