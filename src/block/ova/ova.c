/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/ova/ova.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "base/cleanup.h"
#include "block/blk_window.h"
#include "block/ova/ova_int.h"

struct ova {
    struct blk *file;
    struct ova_tar tar;
    struct ova_info info;
    char *manifest; /* NULL: there is none */
};

static bool ends_with(const char *name, const char *suffix)
{
    size_t len = strlen(name);
    size_t n = strlen(suffix);
    return len > n && strcasecmp(name + len - n, suffix) == 0;
}

/* The one member with that ending, or NULL. */
static int find_one(const struct ova_tar *tar, const char *suffix, const struct ova_member **ret,
                    struct err *err)
{
    *ret = NULL;
    for (unsigned i = 0; i < tar->count; i++) {
        if (ends_with(tar->members[i].name, suffix)) {
            if (*ret != NULL) {
                return err_set(err, -EINVAL, "archive: there is more than one '*%s' in it", suffix);
            }
            *ret = &tar->members[i];
        }
    }
    return 0;
}

/* A text member, NUL-terminated; allocated. */
static int read_text(const struct ova *ova, const struct ova_member *m, char **ret_text,
                     struct err *err)
{
    char printable[OVA_NAME_MAX];
    if (m->size > OVA_TEXT_MAX) {
        return err_set(err, -EFBIG, "archive: '%s' has %" PRIu64 " bytes, the limit is %" PRIu64,
                       blk_printable(m->name, printable, sizeof(printable)), m->size,
                       (uint64_t)OVA_TEXT_MAX);
    }
    CLEANUP_FREE char *text = calloc(1, m->size + 1);
    if (text == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    int rc = blk_pread(ova->file, m->offset, text, m->size);
    if (rc < 0) {
        return err_set_errno(err, rc, "archive: reading at offset %" PRIu64, m->offset);
    }
    *ret_text = take_ptr(&text);
    return 0;
}

/* Each file that the descriptor names is a member. */
static int check_files(const struct ova *ova, struct err *err)
{
    char printable[OVA_NAME_MAX];
    for (unsigned i = 0; i < ova->info.ndisks; i++) {
        const char *name = ova->info.disks[i].file;
        if (name[0] != '\0' && ova_tar_find(&ova->tar, name) == NULL) {
            return err_set(err, -EINVAL,
                           "descriptor: file '%s' is not in the archive; nothing outside of it is "
                           "opened",
                           blk_printable(name, printable, sizeof(printable)));
        }
    }
    return 0;
}

static int load(struct ova *ova, struct err *err)
{
    CLEANUP_FREE char *text = NULL;
    const struct ova_member *ovf = NULL;
    const struct ova_member *mf = NULL;
    int rc = ova_tar_read(ova->file, &ova->tar, err);
    if (rc == 0) {
        rc = find_one(&ova->tar, ".ovf", &ovf, err);
    }
    if (rc == 0 && ovf == NULL) {
        rc = err_set(err, -EINVAL, "archive: there is no descriptor (*.ovf) in it");
    }
    if (rc == 0) {
        rc = read_text(ova, ovf, &text, err);
    }
    if (rc == 0) {
        rc = ova_ovf_parse(text, ovf->size, &ova->info, err);
    }
    if (rc == 0) {
        rc = check_files(ova, err);
    }
    if (rc == 0) {
        rc = find_one(&ova->tar, ".mf", &mf, err);
    }
    return rc == 0 && mf != NULL ? read_text(ova, mf, &ova->manifest, err) : rc;
}

int ova_open(const char *path, struct ova **ret_ova, struct err *err)
{
    char printable[256];
    struct blk_opts opts = { .path = path, .read_only = true };
    struct ova *ova = calloc(1, sizeof(*ova));
    if (ova == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    int rc = blk_open_file(&opts, NULL, 0, &ova->file, err);
    if (rc == 0) {
        rc = load(ova, err);
    }
    if (rc < 0) {
        ova_close(ova);
        return err_prefix(err, "image '%s': ", blk_printable(path, printable, sizeof(printable)));
    }
    *ret_ova = ova;
    return 0;
}

void ova_close(struct ova *ova)
{
    if (ova != NULL) {
        blk_close(ova->file);
        ova_ovf_done(&ova->info);
        free(ova->manifest);
        free(ova);
    }
}

const struct ova_info *ova_info(const struct ova *ova)
{
    return &ova->info;
}

/* The manifest: lines "SHA256(NAME)= HEX". */

struct claim {
    char algorithm[16];
    char name[OVA_NAME_MAX];
    char hex[OVA_DIGEST_MAX];
};

/* False: an empty line. */
static int parse_claim(const char *line, struct claim *c, bool *ret_some, struct err *err)
{
    char printable[128];
    line += strspn(line, " \t\r");
    *ret_some = line[0] != '\0';
    if (!*ret_some) {
        return 0;
    }
    const char *open = strchr(line, '(');
    const char *close = open == NULL ? NULL : strrchr(open, ')');
    size_t algorithm = strcspn(line, " (");
    if (close == NULL || algorithm >= sizeof(c->algorithm) ||
        (size_t)(close - open) > sizeof(c->name) ||
        sscanf(close, ") = %128[0-9a-fA-F]", c->hex) != 1) {
        return err_set(err, -EINVAL, "manifest: the line '%s' is not understood",
                       blk_printable(line, printable, sizeof(printable)));
    }
    memcpy(c->algorithm, line, algorithm);
    c->algorithm[algorithm] = '\0';
    memcpy(c->name, open + 1, (size_t)(close - open - 1));
    c->name[close - open - 1] = '\0';
    return 0;
}

/* `seen` has a bit for each member: none is hashed twice. */
static int check_claim(struct ova *ova, const struct claim *c, const struct blk_convert_opts *opts,
                       uint64_t *seen, uint64_t *done, struct err *err)
{
    char printable[OVA_NAME_MAX];
    char hex[OVA_DIGEST_MAX];
    const struct ova_member *m = ova_tar_find(&ova->tar, c->name);
    blk_printable(c->name, printable, sizeof(printable));
    if (m == NULL) {
        return err_set(err, -EINVAL, "manifest: file '%s' is not in the archive", printable);
    }
    uint64_t bit = BIT64(m - ova->tar.members);
    if ((*seen & bit) != 0) {
        return err_set(err, -EINVAL, "manifest: file '%s' is there twice", printable);
    }
    *seen |= bit;
    int rc = ova_digest(ova->file, m->offset, m->size, c->algorithm, hex, opts, done,
                        ova->file->size, err);
    if (rc == 0 && strcasecmp(hex, c->hex) != 0) {
        rc = err_set(err, -EILSEQ, "file '%s' is damaged: its %s is %s, the manifest says %s",
                     printable, c->algorithm, hex, c->hex);
    }
    return rc;
}

int ova_verify(struct ova *ova, const struct blk_convert_opts *opts, unsigned *ret_checked,
               struct err *err)
{
    static_assert(OVA_MAX_MEMBERS <= 64, "a bit each");
    uint64_t seen = 0;
    uint64_t done = 0;
    unsigned checked = 0;
    CLEANUP_FREE char *copy = ova->manifest == NULL ? NULL : strdup(ova->manifest);
    char *rest = copy;
    char *line;
    int rc = 0;
    if (ova->manifest != NULL && copy == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    while (rc == 0 && (line = strsep(&rest, "\n")) != NULL) {
        struct claim c;
        bool some = false;
        rc = parse_claim(line, &c, &some, err);
        if (rc == 0 && some) {
            checked++;
            rc = check_claim(ova, &c, opts, &seen, &done, err);
        }
    }
    *ret_checked = checked;
    return rc < 0 ? err_prefix(err, "image '%s': ", ova->file->path) : 0;
}

/* Disks. */

static int open_disk(struct ova *ova, const struct ova_member *m, struct blk **ret_blk,
                     struct err *err)
{
    struct blk *window = NULL;
    CLEANUP_FREE char *path = NULL;
    if (asprintf(&path, "%s(%s)", ova->file->path, m->name) < 0) {
        path = NULL;
        return err_set(err, -ENOMEM, "out of memory");
    }
    if (m->size == 0) {
        return err_set(err, -EINVAL,
                       "the file is empty; a disk has at least one sector of 512 "
                       "bytes");
    }
    struct blk_opts opts = { .path = path, .format = "vmdk", .read_only = true };
    int rc = blk_window_new(ova->file, path, m->offset, m->size, &window, err);
    return rc < 0 ? rc
                  : blk_node_new(&fmt_vmdk_class, &opts, "sparse", window, NULL, 0, ret_blk, err);
}

int ova_disk_open(struct ova *ova, unsigned index, struct blk **ret_blk, struct err *err)
{
    char printable[OVA_NAME_MAX];
    const struct ova_disk *disk = &ova->info.disks[index];
    if (disk->file[0] == '\0') {
        return err_set(err, -ENOENT, "image '%s': disk %u has no file, it is empty",
                       ova->file->path, index + 1);
    }
    int rc = open_disk(ova, ova_tar_find(&ova->tar, disk->file), ret_blk, err);
    return rc < 0 ? err_prefix(err, "image '%s': file '%s': ", ova->file->path,
                               blk_printable(disk->file, printable, sizeof(printable)))
                  : 0;
}

static int import_disk(struct ova *ova, unsigned disk, const struct blk_create_opts *dst,
                       const struct blk_convert_opts *opts, struct err *err)
{
    struct blk *blk = NULL;
    unsigned checked;
    if (disk >= ova->info.ndisks) {
        return err_set(err, -ENOENT, "image '%s': there is no disk %u, the archive has %u",
                       ova->file->path, disk + 1, ova->info.ndisks);
    }
    int rc = ova_verify(ova, opts, &checked, err);
    if (rc == 0) {
        rc = ova_disk_open(ova, disk, &blk, err);
    }
    if (rc == 0) {
        rc = blk_convert_from(blk, dst, opts, err);
        blk_close(blk);
    }
    return rc;
}

int ova_import(const char *path, unsigned disk, const struct blk_create_opts *dst,
               const struct blk_convert_opts *opts, struct err *err)
{
    struct ova *ova = NULL;
    int rc = ova_open(path, &ova, err);
    if (rc == 0) {
        rc = import_disk(ova, disk, dst, opts, err);
        ova_close(ova);
    }
    return rc;
}
