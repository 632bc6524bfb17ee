/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a file's content looks like. This is for tools that a person hands a file of unknown make,
 * and for refusing; nothing is opened in a way that its content chose (blk.c, "refuse_magic").
 */
#include <errno.h>

#include "base/cleanup.h"
#include "block/blk_int.h"

#define SECTOR 512

static const struct {
    const char *format;
    uint32_t offset;
    uint32_t len;
    const char *bytes;
} magics[] = {
    {"qcow2",      0,    4,  "QFI\xfb"              },
    { "vmdk",      0,    4,  "KDMV"                 },
    { "vmdk",      0,    4,  "COWD"                 },
    { "vmdk",      0,    21, "# Disk DescriptorFile"},
    { "vhd",       0,    8,  "conectix"             },
    { "vhdx",      0,    8,  "vhdxfile"             },
    { "vdi",       0x40, 4,  "\x7f\x10\xda\xbe"     },
    { "qed",       0,    4,  "QED\0"                },
    { "luks",      0,    6,  "LUKS\xba\xbe"         },
    { "parallels", 0,    8,  "WithoutF"             },
};

/* A tar archive (POSIX ustar, or GNU's) whose first member is called NAME.ovf. */
static bool is_ova(const char *head)
{
    size_t len = strnlen(head, 100);
    return memcmp(head + 257, "ustar", 5) == 0 && len > 4 && memcmp(head + len - 4, ".ovf", 4) == 0;
}

int blk_probe_node(struct blk *file, const char **ret_format)
{
    char head[SECTOR];
    int rc = blk_pread(file, 0, head, sizeof(head)); /* growable: zeroes past the end */
    if (rc < 0) {
        return rc;
    }
    *ret_format = is_ova(head) ? "ova" : NULL;
    for (size_t i = 0; i < ARRAY_LEN(magics) && *ret_format == NULL; i++) {
        if (memcmp(head + magics[i].offset, magics[i].bytes, magics[i].len) == 0) {
            *ret_format = magics[i].format;
        }
    }
    if (*ret_format != NULL || file->size < 2 * SECTOR) {
        return 0;
    }
    /* Fixed VHD. */
    rc = blk_pread(file, bits_align_down(file->size, SECTOR) - SECTOR, head, sizeof(head));
    if (rc == 0 && memcmp(head, "conectix", 8) == 0) {
        *ret_format = "vhd";
    }
    return rc;
}

int blk_probe(const char *path, const char **ret_format, struct err *err)
{
    char printable[256];
    struct blk_opts opts = { .path = path, .read_only = true };
    struct blk *file = NULL;
    const char *format = NULL;
    int rc = blk_open_file(&opts, NULL, 0, &file, err);
    if (rc == 0) {
        rc = blk_probe_node(file, &format);
        blk_close(file);
        if (rc < 0) {
            (void)err_set_errno(err, rc, "cannot read the first sector");
        }
    }
    if (rc < 0) {
        return err_prefix(err, "image '%s': ", blk_printable(path, printable, sizeof(printable)));
    }
    *ret_format = format != NULL ? format : "raw";
    return 0;
}
