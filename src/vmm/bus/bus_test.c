/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/bus/bus.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

struct record {
    unsigned calls;
    uint64_t offset;
    unsigned size;
    uint64_t value;
    uint64_t answer;
};

static uint64_t on_read(void *opaque, uint64_t offset, unsigned size)
{
    struct record *r = opaque;
    r->calls++;
    r->offset = offset;
    r->size = size;
    return r->answer + offset;
}

static void on_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct record *r = opaque;
    r->calls++;
    r->offset = offset;
    r->size = size;
    r->value = value;
}

static const struct bus_ops byte_ops = { .read = on_read, .write = on_write, .max_size = 1 };
static const struct bus_ops dword_ops = { on_read, on_write, .min_size = 4, .max_size = 4 };

static void accesses_are_split_and_widened(void **state)
{
    (void)state;
    struct bus *bus = bus_new("ports", 65536);
    struct err err = ERR_INIT;
    struct record b = { .answer = 0x10 };
    struct record d = { .answer = 0x44332211 };
    struct bus_region rb = { .name = "b", .size = 4, .ops = &byte_ops, .opaque = &b };
    struct bus_region rd = { .name = "d", .size = 8, .ops = &dword_ops, .opaque = &d };
    uint64_t v;
    assert_int_equal(bus_map(bus, &rb, 0x100, &err), 0);
    assert_int_equal(bus_map(bus, &rd, 0x200, &err), 0);

    assert_true(bus_read(bus, 0x100, 4, &v));
    assert_int_equal(v, 0x13121110);
    assert_int_equal(b.calls, 4);
    /* Two of the four bytes lie behind the region's end. */
    assert_true(bus_read(bus, 0x102, 4, &v));
    assert_int_equal(v, 0xffff1312);

    assert_true(bus_read(bus, 0x202, 1, &v));
    assert_int_equal(v, 0x33);
    assert_int_equal(d.size, 4);
    d.calls = 0;
    assert_true(bus_write(bus, 0x200, 2, 0xffff)); /* too small: refused */
    assert_int_equal(d.calls, 0);
    assert_true(bus_write(bus, 0x200, 8, UINT64_C(0x1122334455667788)));
    assert_int_equal(d.calls, 2);
    assert_int_equal(d.value, 0x11223344);

    assert_false(bus_read(bus, 0x300, 2, &v));
    assert_int_equal(v, 0xffff);
    assert_false(bus_write(bus, 0x300, 2, 0));
    bus_unmap(&rb);
    assert_false(bus_read(bus, 0x100, 1, &v));
    bus_free(bus);
}

static void overlaps_are_refused_unless_priorities_differ(void **state)
{
    (void)state;
    struct bus *bus = bus_new("mmio", UINT64_C(1) << 40);
    struct err err = ERR_INIT;
    struct record low = { .answer = 1 };
    struct record high = { .answer = 2 };
    struct bus_region a = { .name = "a", .size = 0x1000, .ops = &byte_ops, .opaque = &low };
    struct bus_region c = { .name = "c", .size = 0x1000, .ops = &byte_ops, .opaque = &high };
    uint64_t v;
    assert_int_equal(bus_map(bus, &a, 0x10000, &err), 0);
    assert_int_equal(bus_map(bus, &c, 0x10fff, &err), -EEXIST);
    assert_non_null(strstr(err.msg, "'a'"));
    assert_int_equal(bus_map(bus, &c, UINT64_MAX - 5, &err), -EINVAL);
    assert_int_equal(bus_map(bus, &c, (UINT64_C(1) << 40) - 1, &err), -EINVAL);
    c.priority = 1;
    assert_int_equal(bus_map(bus, &c, 0x10800, &err), 0);
    assert_true(bus_read(bus, 0x10800, 1, &v));
    assert_int_equal(v, 2);
    assert_true(bus_read(bus, 0x107ff, 1, &v));
    assert_int_equal(low.offset, 0x7ff);
    bus_free(bus);
}

static void doorbells_match_size_and_value(void **state)
{
    (void)state;
    struct bus *bus = bus_new("mmio", 65536);
    struct bus_eventfd e = { .addr = 0x40, .size = 2, .match = true, .value = 7 };
    uint64_t count;
    e.fd = eventfd(0, EFD_NONBLOCK);
    assert_int_equal(bus_eventfd_add(bus, &e), 0);
    assert_false(bus_write(bus, 0x40, 2, 6));
    assert_false(bus_write(bus, 0x40, 4, 7));
    assert_int_equal(read(e.fd, &count, sizeof(count)), -1);
    assert_true(bus_write(bus, 0x40, 2, 7));
    assert_true(bus_write(bus, 0x40, 2, 7));
    assert_int_equal(read(e.fd, &count, sizeof(count)), sizeof(count));
    assert_int_equal(count, 2);
    bus_eventfd_del(&e);
    assert_false(bus_write(bus, 0x40, 2, 7));
    close(e.fd);
    bus_free(bus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accesses_are_split_and_widened),
        cmocka_unit_test(overlaps_are_refused_unless_priorities_differ),
        cmocka_unit_test(doorbells_match_size_and_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
