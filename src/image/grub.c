/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/grub.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "image/gpt.h"
#include "image/store.h"

/* Facts about GRUB 2's boot sector and the head of its second stage (its boot.S, diskboot.S). */
#define GRUB_MBR_CODE       440  /* bytes of the boot sector that are code */
#define GRUB_MBR_SECTOR     0x5c /* 8 bytes: LBA of the second stage */
#define GRUB_CORE_BLOCKLIST 500  /* in the second stage's first sector: LBA of what follows */

#define GRUB_MODULES                                                                               \
    "part_gpt", "ext2", "fat", "search", "search_fs_uuid", "normal", "configfile", "linux",        \
        "serial", "terminal", "echo", "test", "minicmd", "boot", "sleep", "reboot", "halt"

/* A whole file of at most `max` bytes. */
static int grub_read(const char *path, size_t max, uint8_t **ret_data, size_t *ret_len,
                     struct err *err)
{
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    CLEANUP_FREE uint8_t *data = malloc(max + 1);
    if (data == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    size_t have = 0;
    ssize_t n = fd < 0 ? -1 : 1;
    while (n > 0 && have <= max && (n = read(fd, data + have, max + 1 - have)) > 0) {
        have += (size_t)n;
    }
    if (n < 0) {
        return err_set_errno(err, -errno, "cannot read '%s'", path);
    }
    if (have > max) {
        return err_set(err, -EFBIG, "'%s' has more than %zu bytes", path, max);
    }
    *ret_len = have;
    *ret_data = take_ptr(&data);
    return 0;
}

static int grub_write(int fd, uint64_t offset, const void *data, size_t len, struct err *err)
{
    ssize_t n = pwrite(fd, data, len, (off_t)offset);
    return n == (ssize_t)len
               ? 0
               : err_set_errno(err, n < 0 ? -errno : -ENOSPC, "writing the boot loader");
}

/* What both images do first. */
static int grub_config(const struct grub_params *p, const char *path, struct err *err)
{
    FILE *f = fopen(path, "we");
    bool ok = f != NULL && fprintf(f,
                                   "search.fs_uuid %s root\n"
                                   "set prefix=($root)/boot/grub\n"
                                   "configfile ($root)/boot/grub/grub.cfg\n",
                                   p->root_uuid) > 0;
    if (f != NULL && fclose(f) != 0) {
        ok = false;
    }
    return ok ? 0 : err_set_errno(err, -errno, "cannot write '%s'", path);
}

static int grub_mkimage(const struct grub_params *p, const char *format, const char *config,
                        const char *out, const char *disk_module, struct err *err)
{
    const char *package = strcmp(format, "i386-pc") == 0 ? "grub-pc-bin" : "grub-efi-amd64-bin";
    char dir[64];
    char epoch[64];
    (void)snprintf(dir, sizeof(dir), "/usr/lib/grub/%s", format);
    (void)snprintf(epoch, sizeof(epoch), "SOURCE_DATE_EPOCH=%" PRId64, p->epoch);
    if (access(dir, F_OK) < 0) {
        return err_set(err, -ENOENT, "GRUB's modules '%s' are missing: install the package %s", dir,
                       package);
    }
    const char *argv[] = { "grub-mkimage", "-O", format, "-o",         out,         "-p",
                           "/boot/grub",   "-c", config, GRUB_MODULES, disk_module, NULL };
    const char *env[] = { epoch, NULL };
    return child_run(
        &(struct child_opts){ .argv = argv, .env = env, .package = "grub-common", .stop = p->stop },
        err);
}

/* Boot sector and second stage, each told where the next part is. */
static int grub_bios(const struct grub_params *p, const char *config, struct err *err)
{
    char path[STORE_PATH_MAX + 32];
    CLEANUP_FREE uint8_t *boot = NULL;
    CLEANUP_FREE uint8_t *core = NULL;
    size_t boot_len = 0;
    size_t core_len = 0;
    uint64_t lba = GPT_BIOS_START / GPT_SECTOR;
    (void)snprintf(path, sizeof(path), "%s/core.img", p->dir);
    int rc = grub_mkimage(p, "i386-pc", config, path, "biosdisk", err);
    rc = rc < 0 ? rc : grub_read(path, GPT_BIOS_SIZE, &core, &core_len, err);
    rc = rc < 0 ? rc
                : grub_read("/usr/lib/grub/i386-pc/boot.img", GPT_SECTOR, &boot, &boot_len, err);
    if (rc < 0) {
        return rc;
    }
    if (boot_len != GPT_SECTOR || core_len < GPT_SECTOR) {
        return err_set(err, -EINVAL, "GRUB's images have an unexpected size");
    }
    le64_put(boot + GRUB_MBR_SECTOR, lba);
    le64_put(core + GRUB_CORE_BLOCKLIST, lba + 1);
    rc = grub_write(p->fd, 0, boot, GRUB_MBR_CODE, err);
    return rc < 0 ? rc : grub_write(p->fd, GPT_BIOS_START, core, core_len, err);
}

static int grub_tool(const struct grub_params *p, const char *package, const char *const *argv,
                     struct err *err)
{
    char epoch[64];
    (void)snprintf(epoch, sizeof(epoch), "SOURCE_DATE_EPOCH=%" PRId64, p->epoch);
    const char *env[] = { epoch, "MTOOLS_SKIP_CHECK=1", NULL };
    return child_run(
        &(struct child_opts){ .argv = argv, .env = env, .package = package, .stop = p->stop }, err);
}

/* The EFI system partition: a FAT with the one program that firmware looks for (UEFI 2.10
 * §3.5.1.1). It is made beside the disk, whose other parts the tools need not see. */
static int grub_efi(const struct grub_params *p, const char *config, struct err *err)
{
    char efi[STORE_PATH_MAX + 32];
    char fat[STORE_PATH_MAX + 32];
    char id[16];
    char kib[16];
    CLEANUP_FREE uint8_t *data = NULL;
    size_t len = 0;
    struct timespec times[2] = { { .tv_sec = p->epoch }, { .tv_sec = p->epoch } };
    (void)snprintf(efi, sizeof(efi), "%s/bootx64.efi", p->dir);
    (void)snprintf(fat, sizeof(fat), "%s/esp.img", p->dir);
    (void)snprintf(id, sizeof(id), "%08" PRIx32, p->fat_id);
    (void)snprintf(kib, sizeof(kib), "%" PRIu64, GPT_ESP_SIZE / KIB);
    const char *mkfs[] = { "mkfs.fat", "--invariant", "-F", "16", "-i", id,
                           "-n",       "ESP",         "-C", fat,  kib,  NULL };
    const char *mmd[] = { "mmd", "-i", fat, "::EFI", "::EFI/BOOT", NULL };
    const char *mcopy[] = { "mcopy", "-m", "-i", fat, efi, "::EFI/BOOT/BOOTX64.EFI", NULL };
    (void)unlink(fat);
    int rc = grub_mkimage(p, "x86_64-efi", config, efi, "all_video", err);
    if (rc == 0 && utimensat(AT_FDCWD, efi, times, 0) < 0) {
        rc = err_set_errno(err, -errno, "cannot set the time of '%s'", efi);
    }
    rc = rc < 0 ? rc : grub_tool(p, "dosfstools", mkfs, err);
    rc = rc < 0 ? rc : grub_tool(p, "mtools", mmd, err);
    rc = rc < 0 ? rc : grub_tool(p, "mtools", mcopy, err);
    rc = rc < 0 ? rc : grub_read(fat, GPT_ESP_SIZE, &data, &len, err);
    for (size_t at = 0; at < len && rc == 0; at += 4096) {
        size_t n = MIN(len - at, (size_t)4096);
        if (data[at] != 0 || memcmp(data + at, data + at + 1, n - 1) != 0) {
            rc = grub_write(p->fd, GPT_ESP_START + at, data + at, n, err);
        }
    }
    return rc;
}

int grub_install(const struct grub_params *p, struct err *err)
{
    char config[STORE_PATH_MAX + 32];
    (void)snprintf(config, sizeof(config), "%s/grub-early.cfg", p->dir);
    int rc = grub_config(p, config, err);
    rc = rc < 0 ? rc : grub_bios(p, config, err);
    return rc < 0 ? rc : grub_efi(p, config, err);
}
