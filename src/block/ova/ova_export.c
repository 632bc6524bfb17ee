/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing an archive in one pass over the disks. Their sizes in the file are known only afterwards,
 * so the headers, and the descriptor, are written last, into room that was left for them:
 *
 *      | header | descriptor, spaces | header | disk | ... | header | manifest | 2 empty blocks |
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "block/blk_window.h"
#include "block/ova/ova_int.h"

#define MEMBER_MAX 96 /* of a member's name, below the 100 that ustar has room for */

struct export
{
    const struct ova_export_opts *opts;
    const struct blk_convert_opts *progress;
    struct blk *file;
    uint64_t at;      /* end of what is complete */
    uint64_t ovf_len; /* with the spaces */
    uint64_t sizes[OVA_MAX_DISKS];
    uint64_t done, total; /* of the disks, for the progress */
};

static int check_opts(const struct ova_export_opts *o, struct err *err)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "-_.";
    size_t len = strlen(o->name);
    if (len == 0 || len > MEMBER_MAX - 16 || strspn(o->name, allowed) != len) {
        return err_set(err, -EINVAL,
                       "name '%s': 1 to %d letters, digits, '-', '_' and '.' are allowed", o->name,
                       MEMBER_MAX - 16);
    }
    if (o->ndisks < 1 || o->ndisks > OVA_MAX_DISKS) {
        return err_set(err, -EINVAL, "%u disks: 1 to %d are allowed", o->ndisks, OVA_MAX_DISKS);
    }
    if (o->cpus < 1 || o->memory < MIB || o->memory % MIB != 0) {
        return err_set(err, -EINVAL,
                       "%" PRIu64 " processors, %" PRIu64
                       " bytes of memory: at least 1, and a multiple of 1 MiB, are needed",
                       o->cpus, o->memory);
    }
    return 0;
}

static void disk_name(const struct export *e, unsigned i, char name[static MEMBER_MAX])
{
    (void)snprintf(name, MEMBER_MAX, "%s-disk%u.vmdk", e->opts->name, i + 1);
}

/* The descriptor. */

static void put_item(FILE *f, unsigned id, unsigned type, const char *name, const char *rest)
{
    fprintf(f,
            "      <Item>\n%s"
            "        <rasd:ElementName>%s</rasd:ElementName>\n"
            "        <rasd:InstanceID>%u</rasd:InstanceID>\n"
            "        <rasd:ResourceType>%u</rasd:ResourceType>\n",
            type == 4 ? "        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>\n" : "",
            name, id, type);
    fprintf(f, "%s      </Item>\n", rest);
}

static void put_hardware(FILE *f, const struct export *e)
{
    const struct ova_export_opts *o = e->opts;
    char rest[256];
    (void)snprintf(rest, sizeof(rest),
                   "        <rasd:VirtualQuantity>%" PRIu64 "</rasd:VirtualQuantity>\n", o->cpus);
    put_item(f, 1, 3, "CPU", rest);
    (void)snprintf(rest, sizeof(rest),
                   "        <rasd:VirtualQuantity>%" PRIu64 "</rasd:VirtualQuantity>\n",
                   o->memory / MIB);
    put_item(f, 2, 4, "Memory", rest);
    fputs("      <Item>\n"
          "        <rasd:Address>0</rasd:Address>\n"
          "        <rasd:ElementName>SATA controller</rasd:ElementName>\n"
          "        <rasd:InstanceID>3</rasd:InstanceID>\n"
          "        <rasd:ResourceSubType>AHCI</rasd:ResourceSubType>\n"
          "        <rasd:ResourceType>20</rasd:ResourceType>\n"
          "      </Item>\n",
          f);
    for (unsigned i = 0; i < o->ndisks; i++) {
        /* The elements stand in the order of their names, as the schema wants them. */
        fprintf(f,
                "      <Item>\n"
                "        <rasd:AddressOnParent>%u</rasd:AddressOnParent>\n"
                "        <rasd:ElementName>Disk %u</rasd:ElementName>\n"
                "        <rasd:HostResource>ovf:/disk/vmdisk%u</rasd:HostResource>\n"
                "        <rasd:InstanceID>%u</rasd:InstanceID>\n"
                "        <rasd:Parent>3</rasd:Parent>\n"
                "        <rasd:ResourceType>17</rasd:ResourceType>\n"
                "      </Item>\n",
                i, i + 1, i + 1, 4 + i);
    }
    if (o->efi) {
        fputs("      <vmw:Config ovf:required=\"false\" vmw:key=\"firmware\" vmw:value=\"efi\"/>\n",
              f);
    }
}

static void put_disks(FILE *f, const struct export *e)
{
    char name[MEMBER_MAX];
    fputs("  <References>\n", f);
    for (unsigned i = 0; i < e->opts->ndisks; i++) {
        disk_name(e, i, name);
        fprintf(f, "    <File ovf:href=\"%s\" ovf:id=\"file%u\" ovf:size=\"%" PRIu64 "\"/>\n", name,
                i + 1, e->sizes[i]);
    }
    fputs("  </References>\n"
          "  <DiskSection>\n"
          "    <Info>Disks of the machine</Info>\n",
          f);
    for (unsigned i = 0; i < e->opts->ndisks; i++) {
        fprintf(f,
                "    <Disk ovf:capacity=\"%" PRIu64 "\" ovf:diskId=\"vmdisk%u\" "
                "ovf:fileRef=\"file%u\" ovf:format=\"http://www.vmware.com/interfaces/"
                "specifications/vmdk.html#streamOptimized\"/>\n",
                blk_size(e->opts->disks[i]), i + 1, i + 1);
    }
    fputs("  </DiskSection>\n", f);
}

static void put_descriptor(FILE *f, const struct export *e)
{
    fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
          "<Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\"\n"
          "  xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\"\n"
          "  xmlns:rasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
          "CIM_ResourceAllocationSettingData\"\n"
          "  xmlns:vmw=\"http://www.vmware.com/schema/ovf\"\n"
          "  xmlns:vssd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
          "CIM_VirtualSystemSettingData\">\n",
          f);
    put_disks(f, e);
    fprintf(f,
            "  <VirtualSystem ovf:id=\"%s\">\n"
            "    <Info>A virtual machine</Info>\n"
            "    <Name>%s</Name>\n"
            "    <OperatingSystemSection ovf:id=\"102\">\n" /* CIM: other, 64-bit */
            "      <Info>The operating system</Info>\n"
            "    </OperatingSystemSection>\n"
            "    <VirtualHardwareSection>\n"
            "      <Info>The machine's hardware</Info>\n"
            "      <System>\n"
            "        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>\n"
            "        <vssd:InstanceID>0</vssd:InstanceID>\n"
            "        <vssd:VirtualSystemIdentifier>%s</vssd:VirtualSystemIdentifier>\n"
            "        <vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType>\n"
            "      </System>\n",
            e->opts->name, e->opts->name, e->opts->name);
    put_hardware(f, e);
    fputs("    </VirtualHardwareSection>\n"
          "  </VirtualSystem>\n"
          "</Envelope>\n",
          f);
}

/* The descriptor, allocated, filled up with spaces to e->ovf_len if that is set. */
static char *make_descriptor(struct export *e)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    if (f == NULL) {
        return NULL;
    }
    put_descriptor(f, e);
    for (uint64_t n = (uint64_t)ftello(f); n < e->ovf_len; n++) {
        (void)fputc(n + 1 == e->ovf_len ? '\n' : ' ', f);
    }
    if (fclose(f) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

/* Members. */

/* Header and padding of a member whose content, `size` bytes, is at e->at + 512 already. */
static int end_member(struct export *e, const char *name, uint64_t size)
{
    static const uint8_t zeroes[OVA_BLOCK];
    uint8_t header[OVA_BLOCK];
    ova_tar_header(header, name, size);
    int rc = blk_pwrite(e->file, e->at, header, sizeof(header));
    e->at += OVA_BLOCK + size;
    uint64_t end = bits_align_up(e->at, OVA_BLOCK);
    if (rc == 0 && end != e->at) {
        rc = blk_pwrite(e->file, e->at, zeroes, end - e->at);
    }
    e->at = end;
    return rc;
}

static bool on_progress(void *opaque, uint64_t done, uint64_t total)
{
    struct export *e = opaque;
    (void)total;
    return e->progress->progress == NULL ||
           e->progress->progress(e->progress->opaque, e->done + done, e->total);
}

/* Fills the window with the disk. */
static int fill(struct export *e, struct blk *window, struct blk *src, struct err *err)
{
    /* Nothing random, and nobody makes differences to an archived disk. */
    static const char *const params[] = { "subformat=streamOptimized", "adapter_type=lsilogic",
                                          "cid=00000001", NULL };
    struct blk_create_opts create = {
        .path = window->path, .format = "vmdk", .size = blk_size(src), .params = params
    };
    struct blk_opts opts = { .path = window->path, .format = "vmdk" };
    struct blk_convert_opts convert = { .progress = on_progress, .opaque = e };
    struct blk *dst = NULL;
    int rc = fmt_vmdk_class.create(window, &create, err);
    if (rc < 0) {
        blk_close(window);
        return rc;
    }
    rc = blk_node_new(&fmt_vmdk_class, &opts, NULL, window, NULL, BLK_OPEN_CREATE, &dst, err);
    if (rc < 0) {
        return rc;
    }
    rc = blk_convert_copy(src, dst, &convert, err);
    if (rc == 0) {
        rc = blk_flush(dst);
        rc = rc < 0 ? err_set_errno(err, rc, "cannot complete the new image") : 0;
    }
    blk_close(dst);
    return rc;
}

static int put_disk(struct export *e, unsigned i, struct err *err)
{
    char name[MEMBER_MAX];
    struct blk *window = NULL;
    disk_name(e, i, name);
    int rc = blk_window_new(e->file, name, e->at + OVA_BLOCK, 0, &window, err);
    if (rc == 0) {
        rc = fill(e, window, e->opts->disks[i], err);
    }
    if (rc < 0) {
        return rc;
    }
    e->sizes[i] = e->file->size - e->at - OVA_BLOCK;
    e->done += blk_size(e->opts->disks[i]);
    rc = end_member(e, name, e->sizes[i]);
    return rc < 0 ? err_set_errno(err, rc, "cannot complete the new image") : 0;
}

/* The manifest. */

static int put_claim(struct export *e, FILE *f, const char *name, uint64_t offset, uint64_t len,
                     struct err *err)
{
    char hex[OVA_DIGEST_MAX];
    uint64_t done = 0;
    struct blk_convert_opts quiet = { 0 };
    int rc = ova_digest(e->file, offset, len, "SHA256", hex, &quiet, &done, len, err);
    if (rc == 0) {
        fprintf(f, "SHA256(%s)= %s\n", name, hex);
    }
    return rc;
}

static int make_manifest(struct export *e, FILE *f, struct err *err)
{
    char name[MEMBER_MAX];
    uint64_t at = OVA_BLOCK;
    (void)snprintf(name, sizeof(name), "%s.ovf", e->opts->name);
    int rc = put_claim(e, f, name, at, e->ovf_len, err);
    at = bits_align_up(at + e->ovf_len, OVA_BLOCK) + OVA_BLOCK;
    for (unsigned i = 0; i < e->opts->ndisks && rc == 0; i++) {
        disk_name(e, i, name);
        rc = put_claim(e, f, name, at, e->sizes[i], err);
        at = bits_align_up(at + e->sizes[i], OVA_BLOCK) + OVA_BLOCK;
    }
    return rc;
}

static int put_manifest(struct export *e, struct err *err)
{
    static const uint8_t end[2 * OVA_BLOCK];
    char name[MEMBER_MAX];
    CLEANUP_FREE char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    if (f == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    int rc = make_manifest(e, f, err);
    if (fclose(f) != 0 && rc == 0) {
        rc = err_set(err, -ENOMEM, "out of memory");
    }
    if (rc < 0) {
        return rc;
    }
    (void)snprintf(name, sizeof(name), "%s.mf", e->opts->name);
    rc = blk_pwrite(e->file, e->at + OVA_BLOCK, text, len);
    if (rc == 0) {
        rc = end_member(e, name, len);
    }
    if (rc == 0) {
        rc = blk_pwrite(e->file, e->at, end, sizeof(end));
    }
    return rc < 0 ? err_set_errno(err, rc, "cannot complete the new image") : 0;
}

/* Room for the descriptor with the longest numbers, then, with the true ones, the descriptor. */
static int put_ovf(struct export *e, bool reserve, struct err *err)
{
    char name[MEMBER_MAX];
    uint64_t at = e->at;
    for (unsigned i = 0; i < e->opts->ndisks && reserve; i++) {
        e->sizes[i] = UINT64_MAX;
    }
    CLEANUP_FREE char *text = make_descriptor(e);
    if (text == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    e->ovf_len = strlen(text);
    (void)snprintf(name, sizeof(name), "%s.ovf", e->opts->name);
    e->at = 0;
    int rc = blk_pwrite(e->file, OVA_BLOCK, text, e->ovf_len);
    if (rc == 0) {
        rc = end_member(e, name, e->ovf_len);
    }
    e->at = reserve ? e->at : at;
    return rc < 0 ? err_set_errno(err, rc, "cannot complete the new image") : 0;
}

static int write_all(struct export *e, struct err *err)
{
    int rc = put_ovf(e, true, err);
    for (unsigned i = 0; i < e->opts->ndisks && rc == 0; i++) {
        rc = put_disk(e, i, err);
    }
    if (rc == 0) {
        rc = put_ovf(e, false, err);
    }
    return rc == 0 ? put_manifest(e, err) : rc;
}

int ova_export(const struct ova_export_opts *export, const struct blk_convert_opts *opts,
               struct err *err)
{
    struct blk_create_opts create = { .path = export->path, .force = export->force };
    struct export e = { .opts = export, .progress = opts };
    int rc = check_opts(export, err);
    if (rc < 0) {
        return rc;
    }
    for (unsigned i = 0; i < export->ndisks; i++) {
        e.total += blk_size(export->disks[i]);
    }
    rc = blk_create_begin_file(&create, &e.file, err);
    if (rc < 0) {
        return rc;
    }
    rc = write_all(&e, err);
    if (rc < 0) {
        blk_create_abort(&create, e.file);
        return err_prefix(err, "image '%s': ", export->path);
    }
    return blk_create_commit(&create, e.file, err);
}
