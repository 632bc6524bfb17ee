/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/import.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "block/ova/ova.h"
#include "image/gpt.h"
#include "image/rootfs.h"

#define IMPORT_HEAD     4096
#define IMPORT_FOOTER   512
#define IMPORT_MAX_FILE (64 * MIB)

/* Where each format has its magic (docs/block). */
static const struct {
    const char *format;
    size_t offset;
    const char *magic;
    size_t len;
} import_magics[] = {
    {"qcow2", 0,   "QFI\xfb",               4 },
    { "vmdk", 0,   "KDMV",                  4 },
    { "vmdk", 0,   "# Disk DescriptorFile", 21},
    { "vhdx", 0,   "vhdxfile",              8 },
    { "vdi",  64,  "\x7f\x10\xda\xbe",      4 },
    { "vhd",  0,   "conectix",              8 },
    { "ova",  257, "ustar",                 5 },
};

int import_probe(const char *path, const char **ret_format, struct err *err)
{
    uint8_t head[IMPORT_HEAD] = { 0 };
    uint8_t foot[IMPORT_FOOTER] = { 0 };
    struct stat st;
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) < 0 || pread(fd, head, sizeof(head), 0) < 0) {
        return err_set_errno(err, -errno, "cannot open '%s'", path);
    }
    *ret_format = NULL;
    for (size_t i = 0; i < ARRAY_LEN(import_magics) && *ret_format == NULL; i++) {
        if (memcmp(head + import_magics[i].offset, import_magics[i].magic, import_magics[i].len) ==
            0) {
            *ret_format = import_magics[i].format;
        }
    }
    /* A fixed VHD is a raw disk with a footer. */
    if (*ret_format == NULL && st.st_size > IMPORT_FOOTER &&
        pread(fd, foot, sizeof(foot), st.st_size - IMPORT_FOOTER) == sizeof(foot) &&
        memcmp(foot, "conectix", 8) == 0) {
        *ret_format = "vhd";
    }
    return 0;
}

static int import_hash(const struct import_opts *o, struct err *err)
{
    char hex[DIGEST_HEX + 1];
    if (o->sha256 == NULL) {
        return 0;
    }
    int rc = digest_file(o->path, hex, err);
    if (rc == 0 && strcasecmp(hex, o->sha256) != 0) {
        rc = err_set(err, -EILSEQ, "'%s' has the wrong hash: %s, not %s", o->path, hex, o->sha256);
    }
    return rc;
}

static int import_save(struct rootfs *fs, const char *from, const char *to, struct err *err)
{
    CLEANUP_FREE char *data = NULL;
    size_t len = 0;
    int rc = rootfs_read_file(fs, from, IMPORT_MAX_FILE, &data, &len, err);
    if (rc < 0) {
        return rc;
    }
    CLEANUP_FD int fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, data, len) != (ssize_t)len) {
        return err_set_errno(err, errno != 0 ? -errno : -ENOSPC, "cannot write '%s'", to);
    }
    return 0;
}

/* An appliance of ours has the agent, and its initrd is the one that direct boot wants. Any other
 * disk is kept as it is. */
static void import_kernel(const char *folder, const char *disk, struct store_image *image)
{
    char kernel[STORE_PATH_MAX + 64];
    char initrd[STORE_PATH_MAX + 64];
    struct err ignored = ERR_INIT;
    struct rootfs *fs = NULL;
    uint64_t offset = 0;
    CLEANUP_FD int fd = open(disk, O_RDONLY | O_CLOEXEC);
    (void)snprintf(kernel, sizeof(kernel), "%s/vmlinuz", folder);
    (void)snprintf(initrd, sizeof(initrd), "%s/initrd.img", folder);
    if (fd < 0 || gpt_find_linux(fd, &offset, &ignored) < 0 || offset != GPT_ROOT_START ||
        rootfs_open(disk, offset, false, 0, &fs, &ignored) < 0) {
        return;
    }
    if (rootfs_exists(fs, "usr/lib/posada/posada-agent") &&
        import_save(fs, "vmlinuz", kernel, &ignored) == 0 &&
        import_save(fs, "initrd.img", initrd, &ignored) == 0 &&
        asprintf(&image->append, "root=/dev/vda%d ro console=ttyS0", GPT_ROOT_PART) > 0) {
        image->kernel = true;
        image->agent = true;
    } else {
        (void)unlink(kernel);
        (void)unlink(initrd);
    }
    (void)rootfs_close(fs, &ignored); /* opened for reading */
}

static int import_copy(const struct import_opts *o, const char *format, const char *disk,
                       struct err *err)
{
    struct blk_opts src = { .path = o->path, .format = format, .read_only = true };
    struct blk_create_opts dst = { .path = disk, .format = "raw" };
    return strcmp(format, "ova") == 0 ? ova_import(o->path, 0, &dst, &o->convert, err)
                                      : blk_convert(&src, &dst, &o->convert, err);
}

int import_run(struct store *s, const struct import_opts *o, struct store_image *ret_image,
               struct err *err)
{
    struct store_tmp tmp = { .fd = -1 };
    struct store_image image = { 0 };
    char folder[STORE_PATH_MAX + 16];
    char disk[STORE_PATH_MAX + 32];
    const char *format = o->format;
    int rc = format == NULL ? import_probe(o->path, &format, err) : 0;
    if (rc == 0 && format == NULL) {
        rc =
            err_set(err, -EINVAL,
                    "'%s' begins like no format known here: if it is a raw disk, give --format raw",
                    o->path);
    }
    rc = rc < 0 ? rc : import_hash(o, err);
    rc = rc < 0 ? rc : store_tmp_new(s, &tmp, err);
    if (rc < 0) {
        return rc;
    }
    (void)snprintf(folder, sizeof(folder), "%s/image", tmp.path);
    (void)snprintf(disk, sizeof(disk), "%s/disk.raw", folder);
    rc = mkdir(folder, 0755) < 0 ? err_set_errno(err, -errno, "cannot make the folder '%s'", folder)
                                 : import_copy(o, format, disk, err);
    if (rc == 0) {
        import_kernel(folder, disk, &image);
        rc = store_add(s, &tmp, &image, o->ref, NULL, NULL, err);
    }
    store_tmp_free(&tmp);
    if (rc < 0) {
        store_image_done(&image);
    } else {
        *ret_image = image;
    }
    return rc;
}
