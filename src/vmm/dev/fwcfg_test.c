/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/dev/fwcfg.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vmm/dev/dev_harness.h"
#include "vmm/layout.h"

#define SEL  LAYOUT_PORT_FWCFG
#define DATA (LAYOUT_PORT_FWCFG + 1)
#define DMA  (LAYOUT_PORT_FWCFG + 4)
#define DESC 0x1000
#define BUF  0x2000

#define READ   2u
#define SKIP   4u
#define SELECT 8u
#define WRITE  16u

struct fixture {
    struct dev_harness h;
    struct dev *dev;
    struct fwcfg *fw;
    struct err err;
    unsigned writes;
    uint8_t written[8];
};

static void on_written(void *opaque, const void *data, size_t len)
{
    struct fixture *f = opaque;
    f->writes++;
    memcpy(f->written, data, MIN(len, sizeof(f->written)));
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    dev_harness_init(&f->h, MIB);
    f->dev = dev_harness_add(&f->h, &fwcfg_class, NULL);
    f->fw = f->h.env.fwcfg;
    assert_int_equal(fwcfg_add_file(f->fw, "etc/one", "first", 5, &f->err), 0);
    assert_int_equal(fwcfg_add_writable(f->fw, "etc/two", "12345678", 8, on_written, f, &f->err),
                     0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    dev_harness_done(&f->h);
    assert_null(f->h.env.fwcfg);
    free(f);
    return 0;
}

static void read_item(struct fixture *f, uint16_t key, uint8_t *buf, size_t len)
{
    dev_harness_out(&f->h, SEL, 2, key);
    for (size_t i = 0; i < len; i++) {
        buf[i] = dev_harness_inb(&f->h, DATA);
    }
}

/* Runs a DMA operation and returns the control field afterwards. */
static uint32_t dma(struct fixture *f, uint32_t control, uint32_t len, uint64_t addr)
{
    uint8_t *d = f->h.ram + DESC;
    be32_put(d, control);
    be32_put(d + 4, len);
    be64_put(d + 8, addr);
    dev_harness_out(&f->h, DMA, 4, 0);
    dev_harness_out(&f->h, DMA + 4, 4, htobe32(DESC));
    return be32_get(d);
}

static void signature_and_id(void **state)
{
    struct fixture *f = *state;
    uint8_t buf[8];
    read_item(f, 0, buf, 6);
    assert_memory_equal(buf, "QEMU\0\0", 6); /* zeros behind the end */
    read_item(f, 1, buf, 4);
    assert_int_equal(le32_get(buf), 3);
    assert_int_equal(dev_harness_in(&f->h, DMA, 4), htobe32(0x51454d55));
    assert_int_equal(dev_harness_in(&f->h, DMA + 4, 4), htobe32(0x20434647));
    read_item(f, 0x7777, buf, 2);
    assert_memory_equal(buf, "\0\0", 2);
}

static void directory_lists_the_files(void **state)
{
    struct fixture *f = *state;
    uint8_t buf[4 + 3 * 64];
    read_item(f, 0x19, buf, sizeof(buf));
    assert_int_equal(be32_get(buf), 2);
    assert_int_equal(be32_get(buf + 4), 5);
    assert_int_equal(be16_get(buf + 8), 0x20);
    assert_string_equal(buf + 12, "etc/one");
    assert_int_equal(be32_get(buf + 68), 8);
    assert_string_equal(buf + 76, "etc/two");
    assert_int_equal(buf[132], 0);
    read_item(f, 0x20, buf, 5);
    assert_memory_equal(buf, "first", 5);
}

static void adding_checks_its_arguments(void **state)
{
    struct fixture *f = *state;
    char name[80];
    memset(name, 'n', sizeof(name));
    name[56] = '\0';
    assert_int_equal(fwcfg_add_file(f->fw, name, "", 0, &f->err), -EINVAL);
    name[55] = '\0';
    assert_int_equal(fwcfg_add_file(f->fw, name, "", 0, &f->err), 0);
    assert_int_equal(fwcfg_add_file(f->fw, "", "", 0, &f->err), -EINVAL);
    assert_int_equal(fwcfg_add_file(f->fw, "etc/one", "", 0, &f->err), -EEXIST);
    assert_int_equal(fwcfg_add_key(f->fw, 0, "", 0, &f->err), -EINVAL);
    assert_int_equal(fwcfg_add_key(f->fw, 0x20, "", 0, &f->err), -EINVAL);
    int rc = 0;
    for (unsigned i = 0; i < FWCFG_MAX_FILES && rc == 0; i++) {
        (void)snprintf(name, sizeof(name), "f%u", i);
        rc = fwcfg_add_file(f->fw, name, "x", 1, &f->err);
    }
    assert_int_equal(rc, -ENOSPC);
}

static void dma_reads_and_skips(void **state)
{
    struct fixture *f = *state;
    memset(f->h.ram + BUF, 0xee, 32);
    assert_int_equal(dma(f, 0x20 << 16 | SELECT | READ, 3, BUF), 0);
    assert_memory_equal(f->h.ram + BUF, "fir\xee", 4);
    assert_int_equal(dma(f, READ, 4, BUF), 0); /* goes on, zeros behind the end */
    assert_memory_equal(f->h.ram + BUF, "st\0\0\xee", 5);
    assert_int_equal(dma(f, 0x21 << 16 | SELECT | SKIP, 6, 0), 0);
    assert_int_equal(dma(f, READ, 2, BUF), 0);
    assert_memory_equal(f->h.ram + BUF, "78", 2);
    assert_int_equal(dma(f, SKIP, 0xffffffff, 0), 0); /* stops at the end */
    assert_int_equal(dma(f, READ, 1, BUF), 0);
    assert_int_equal(f->h.ram[BUF], 0);
}

static void dma_writes_where_allowed(void **state)
{
    struct fixture *f = *state;
    memcpy(f->h.ram + BUF, "abcdefgh", 8);
    assert_int_equal(dma(f, 0x21 << 16 | SELECT | WRITE, 8, BUF), 0);
    assert_int_equal(f->writes, 1);
    assert_memory_equal(f->written, "abcdefgh", 8);
    assert_int_equal(dma(f, 0x21 << 16 | SELECT | WRITE, 9, BUF), 1);
    assert_int_equal(dma(f, 0x20 << 16 | SELECT | WRITE, 1, BUF), 1); /* read-only file */
    assert_int_equal(f->writes, 1);
}

static void dma_errors_are_reported_and_bounded(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(dma(f, 0x20 << 16 | SELECT | READ, 5, 0x10000000), 1);
    assert_int_equal(dma(f, 0x20 << 16 | SELECT | READ, 5, UINT64_MAX - 1), 1);
    assert_int_equal(dma(f, 0x20 << 16 | SELECT | READ, 0xffffffff, BUF), 1);
    assert_int_equal(dma(f, 0x7777u << 16 | SELECT | READ, 4, BUF), 0); /* no such item: zeros */
    uint64_t bugs = f->dev->guest_bugs;
    dev_harness_out(&f->h, DMA, 4, htobe32(0xffffffff)); /* a descriptor nowhere */
    dev_harness_out(&f->h, DMA + 4, 4, htobe32(0xfffffff8));
    assert_int_equal(f->dev->guest_bugs, bugs + 1);
    /* A descriptor that overwrites itself: only the copy counts. */
    assert_int_equal(dma(f, 0x20 << 16 | SELECT | READ, 5, DESC), 0);
}

static void reset_forgets_the_selection(void **state)
{
    struct fixture *f = *state;
    uint8_t buf[2];
    read_item(f, 0x20, buf, 2);
    dev_reset(f->dev);
    assert_int_equal(dev_harness_inb(&f->h, DATA), 'Q');
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(signature_and_id),
        T(directory_lists_the_files),
        T(adding_checks_its_arguments),
        T(dma_reads_and_skips),
        T(dma_writes_where_allowed),
        T(dma_errors_are_reported_and_bounded),
        T(reset_forgets_the_selection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
