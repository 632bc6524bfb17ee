/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/ova/ova.h"

#include <errno.h>

#include "base/cleanup.h"
#include "block/blk_test.h"
#include "block/ova/ova_int.h"

#define DISK (5 * MIB + 512)

static const struct blk_convert_opts quiet;

/* A disk with some data. */
static struct blk *make_disk(void **state)
{
    const char *path = scratch_file(state, "disk.raw", "hello", DISK);
    struct blk *blk = open_ok(&(struct blk_opts){ .path = path, .format = "raw" });
    uint8_t noise[9000];
    for (size_t i = 0; i < sizeof(noise); i++) {
        noise[i] = (uint8_t)(i * i >> 3);
    }
    assert_int_equal(blk_pwrite(blk, 3 * MIB + 1024, noise, sizeof(noise)), 0);
    return blk;
}

static void do_export(void **state, const char *path, struct blk *disk)
{
    struct err err = ERR_INIT;
    struct blk *disks[] = { disk, disk };
    struct ova_export_opts opts = {
        .path = path,
        .name = "web-1",
        .cpus = 3,
        .memory = 512 * MIB,
        .ndisks = 2,
        .disks = disks,
    };
    (void)state;
    if (ova_export(&opts, &quiet, &err) < 0) {
        fail_msg("%s", err.msg);
    }
}

static void assert_same(struct blk *a, struct blk *b)
{
    static uint8_t x[64 * KIB];
    static uint8_t y[64 * KIB];
    assert_int_equal(blk_size(a), blk_size(b));
    for (uint64_t at = 0; at < blk_size(a); at += sizeof(x)) {
        size_t n = MIN(sizeof(x), blk_size(a) - at);
        assert_int_equal(blk_pread(a, at, x, n), 0);
        assert_int_equal(blk_pread(b, at, y, n), 0);
        assert_memory_equal(x, y, n);
    }
}

static void test_round_trip(void **state)
{
    struct err err = ERR_INIT;
    const char *path = scratch_path(state, "a.ova");
    struct blk *disk = make_disk(state);
    struct ova *ova = NULL;
    struct blk *back = NULL;
    unsigned checked = 0;
    const char *format;
    do_export(state, path, disk);
    assert_int_equal(blk_probe(path, &format, &err), 0);
    assert_string_equal(format, "ova");
    if (ova_open(path, &ova, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    const struct ova_info *info = ova_info(ova);
    assert_string_equal(info->name, "web-1");
    assert_int_equal(info->cpus, 3);
    assert_int_equal(info->memory, 512 * MIB);
    assert_int_equal(info->ndisks, 2);
    assert_int_equal(info->disks[1].capacity, DISK);
    assert_string_equal(info->disks[1].file, "web-1-disk2.vmdk");
    assert_int_equal(ova_verify(ova, &quiet, &checked, &err), 0);
    assert_int_equal(checked, 3);
    if (ova_disk_open(ova, 1, &back, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    assert_same(disk, back);
    blk_close(back);
    ova_close(ova);
    struct blk_create_opts dst = { .path = scratch_path(state, "x.qcow2"), .format = "qcow2" };
    assert_int_equal(ova_import(path, 0, &dst, &quiet, &err), 0);
    back = open_ok(&(struct blk_opts){ .path = dst.path });
    assert_same(disk, back);
    blk_close(back);
    assert_int_equal(ova_import(path, 2, &dst, &quiet, &err), -ENOENT);
    blk_close(disk);
}

static void test_same_bytes(void **state)
{
    const char *a = scratch_path(state, "1.ova");
    const char *b = scratch_path(state, "2.ova");
    struct blk *disk = make_disk(state);
    do_export(state, a, disk);
    do_export(state, b, disk);
    blk_close(disk);
    struct blk *x = open_ok(&(struct blk_opts){ .path = a, .format = "raw" });
    struct blk *y = open_ok(&(struct blk_opts){ .path = b, .format = "raw" });
    assert_same(x, y);
    blk_close(x);
    blk_close(y);
}

static void test_damage(void **state)
{
    struct err err = ERR_INIT;
    const char *path = scratch_path(state, "a.ova");
    struct blk *disk = make_disk(state);
    do_export(state, path, disk);
    blk_close(disk);
    struct blk *file = open_ok(&(struct blk_opts){ .path = path, .format = "raw" });
    uint64_t size = blk_size(file);
    assert_int_equal(blk_pwrite(file, size / 2, "x", 1), 0);
    blk_close(file);
    struct blk_create_opts dst = { .path = scratch_path(state, "x.raw"), .format = "raw" };
    assert_int_equal(ova_import(path, 0, &dst, &quiet, &err), -EILSEQ);
    assert_non_null(strstr(err.msg, "damaged"));
    assert_int_equal(access(dst.path, F_OK), -1);
    assert_int_equal(truncate(path, (off_t)(size / 2)), 0);
    assert_int_equal(ova_import(path, 0, &dst, &quiet, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "cut short"));
}

static bool stop(void *opaque, uint64_t done, uint64_t total)
{
    (void)opaque;
    (void)total;
    return done == 0;
}

static void test_interrupted(void **state)
{
    struct err err = ERR_INIT;
    struct blk *disk = make_disk(state);
    struct ova_export_opts opts = {
        .path = scratch_path(state, "a.ova"),
        .name = "a",
        .cpus = 1,
        .memory = MIB,
        .ndisks = 1,
        .disks = &disk,
    };
    assert_int_equal(ova_export(&opts, &(struct blk_convert_opts){ .progress = stop }, &err),
                     -EINTR);
    assert_int_equal(access(opts.path, F_OK), -1);
    opts.name = "a/b";
    assert_int_equal(ova_export(&opts, &quiet, &err), -EINVAL);
    blk_close(disk);
}

/* Archives by hand. */

struct archive {
    FILE *f;
    const char *path;
};

static void add(struct archive *a, const char *name, char type, const char *data, size_t len)
{
    uint8_t h[OVA_BLOCK];
    static const char zeroes[OVA_BLOCK];
    ova_tar_header(h, name, len);
    if (type != '0') {
        h[156] = (uint8_t)type;
        unsigned sum = 0;
        memset(h + 148, ' ', 8);
        for (size_t i = 0; i < sizeof(h); i++) {
            sum += h[i];
        }
        (void)snprintf((char *)h + 148, 8, "%06o", sum);
    }
    assert_int_equal(fwrite(h, 1, sizeof(h), a->f), sizeof(h));
    assert_int_equal(fwrite(data, 1, len, a->f), len);
    size_t pad = (OVA_BLOCK - len % OVA_BLOCK) % OVA_BLOCK;
    assert_int_equal(fwrite(zeroes, 1, pad, a->f), pad);
}

static struct archive begin(void **state)
{
    struct archive a = { .path = scratch_path(state, "evil.ova") };
    a.f = fopen(a.path, "we");
    assert_non_null(a.f);
    return a;
}

static void refused(struct archive *a, int code, const char *text)
{
    struct err err = ERR_INIT;
    struct ova *ova = NULL;
    assert_int_equal(fclose(a->f), 0);
    int rc = ova_open(a->path, &ova, &err);
    if (rc != code || strstr(err.msg, text) == NULL) {
        fail_msg("got %d '%s', expected %d '%s'", rc, err.msg, code, text);
    }
}

static void test_evil_archives(void **state)
{
    struct archive a = begin(state);
    refused(&a, -EINVAL, "no descriptor");
    a = begin(state);
    add(&a, "a.ovf", '2', "", 0);
    refused(&a, -EINVAL, "no plain file");
    a = begin(state);
    add(&a, "a.ovf", '0', "<x/>", 4);
    add(&a, "a.ovf", '0', "<x/>", 4);
    refused(&a, -EINVAL, "twice");
    a = begin(state);
    add(&a, "a.ovf", '0', "<x/>", 4);
    add(&a, "b.ovf", '0', "<x/>", 4);
    refused(&a, -EINVAL, "more than one");
    a = begin(state);
    for (unsigned i = 0; i < 300; i++) {
        add(&a, "pax", 'g', "", 0);
    }
    refused(&a, -EFBIG, "256");
    a = begin(state);
    add(&a, "pax", 'x', "16 size=9999999\n", 16);
    add(&a, "a.ovf", '0', "", 0);
    refused(&a, -EINVAL, "cut short");
    a = begin(state);
    add(&a, "pax", 'x', "99 path=a\n", 10);
    refused(&a, -EINVAL, "damaged");
    a = begin(state);
    assert_int_equal(fseek(a.f, 2 * MIB, SEEK_SET), 0);
    assert_int_equal(fputc('x', a.f), 'x');
    rewind(a.f);
    uint8_t h[OVA_BLOCK];
    ova_tar_header(h, "a.ovf", 2 * MIB - 511);
    assert_int_equal(fwrite(h, 1, sizeof(h), a.f), sizeof(h));
    refused(&a, -EFBIG, "limit is 1048576");
}

static void evil_xml(void **state, const char *xml, int code, const char *text)
{
    struct archive a = begin(state);
    add(&a, "a.ovf", '0', xml, strlen(xml));
    refused(&a, code, text);
}

static void test_evil_descriptors(void **state)
{
    CLEANUP_FREE char *deep = calloc(1, 1000);
    for (unsigned i = 0; i < 100; i++) {
        strcat(deep, "<a>");
    }
    evil_xml(state, "", -EINVAL, "no element found");
    evil_xml(state, "<a>", -EINVAL, "line 1");
    evil_xml(state, "<a/>", -EINVAL, "no machine");
    evil_xml(state, deep, -EFBIG, "64");
    evil_xml(state, "<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>", -EINVAL, "document type");
    evil_xml(state, "<!DOCTYPE a SYSTEM \"/etc/passwd\"><a/>", -EINVAL, "document type");
    evil_xml(state, "<a><VirtualSystem/><VirtualSystem/></a>", -ENOTSUP, "more than one machine");
    evil_xml(state, "<a><File id='1' href='x' compression='gzip'/></a>", -ENOTSUP, "compressed");
    evil_xml(state, "<a><File id='1' href='../x'/><Disk fileRef='1'/><VirtualSystem/></a>", -EINVAL,
             "'../x' is not in the archive");
    evil_xml(state, "<a><Disk fileRef='2'/><VirtualSystem/></a>", -EINVAL, "names no file");
    evil_xml(state, "<a><Disk capacity='1' capacityAllocationUnits='byte * 2^99'/></a>", -EINVAL,
             "units");
    evil_xml(state, "<a><Disk capacity='99999999999' capacityAllocationUnits='GB'/></a>", -EINVAL,
             "limit");
    evil_xml(state, "<a><Disk parentRef='x'/></a>", -ENOTSUP, "difference");
}

/* A disk that is a descriptor naming files outside of the archive. */
static void test_disk_is_no_sparse_file(void **state)
{
    static const char xml[] =
        "<a><File id='1' href='d'/><Disk fileRef='1'/><Disk/><VirtualSystem><Name> A&amp;B\n"
        "</Name><Item><AllocationUnits>byte * 2^20</AllocationUnits><ResourceType>4</ResourceType>"
        "<VirtualQuantity>64</VirtualQuantity></Item></VirtualSystem></a>";
    static const char text[] = "# Disk DescriptorFile\nRW 8 FLAT \"disk.raw\" 0\n";
    struct err err = ERR_INIT;
    struct ova *ova = NULL;
    struct blk *blk = NULL;
    blk_close(make_disk(state));
    struct archive a = begin(state);
    add(&a, "a.ovf", '0', xml, sizeof(xml) - 1);
    add(&a, "d", '0', text, sizeof(text) - 1);
    assert_int_equal(fclose(a.f), 0);
    if (ova_open(a.path, &ova, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    assert_string_equal(ova_info(ova)->name, "A&B ");
    assert_int_equal(ova_info(ova)->memory, 64 * MIB);
    assert_int_equal(ova_disk_open(ova, 0, &blk, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "no VMDK"));
    assert_int_equal(ova_disk_open(ova, 1, &blk, &err), -ENOENT);
    ova_close(ova);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_same_bytes, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_damage, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_interrupted, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_evil_archives, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_evil_descriptors, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_disk_is_no_sparse_file, scratch_setup,
                                        scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
