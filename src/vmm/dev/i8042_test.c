/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/dev/i8042.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vmm/dev/dev_harness.h"

struct fixture {
    struct dev_harness h;
    struct dev *dev;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    dev_harness_init(&f->h, MIB);
    f->dev = dev_harness_add(&f->h, &i8042_class, NULL);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    dev_harness_done(&f->h);
    free(f);
    return 0;
}

static void command(struct fixture *f, uint8_t cmd)
{
    dev_harness_outb(&f->h, 0x64, cmd);
}

static void data(struct fixture *f, uint8_t byte)
{
    dev_harness_outb(&f->h, 0x60, byte);
}

static uint8_t status(struct fixture *f)
{
    return dev_harness_inb(&f->h, 0x64);
}

/* The bytes that wait, in order; 0x100 is added to those of the mouse. */
static void expect(struct fixture *f, const uint16_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t st = status(f);
        assert_int_equal(st & 1, 1);
        assert_int_equal((st & 0x20) != 0, bytes[i] >> 8);
        assert_int_equal(dev_harness_inb(&f->h, 0x60), bytes[i] & 0xff);
    }
    assert_int_equal(status(f) & 1, 0);
}
#define EXPECT(f, ...)                                                                             \
    do {                                                                                           \
        static const uint16_t bytes_[] = { __VA_ARGS__ };                                          \
        expect(f, bytes_, ARRAY_LEN(bytes_));                                                      \
    } while (0)

static void mouse(struct fixture *f, uint8_t byte)
{
    command(f, 0xd4);
    data(f, byte);
}

static void set_command_byte(struct fixture *f, uint8_t value)
{
    command(f, 0x60);
    data(f, value);
}

static void controller_commands(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(status(f) & 0x14, 0x14);
    command(f, 0xaa);
    EXPECT(f, 0x55);
    command(f, 0xab);
    EXPECT(f, 0x00);
    command(f, 0xa9);
    EXPECT(f, 0x00);
    set_command_byte(f, 0x47);
    command(f, 0x20);
    EXPECT(f, 0x47);
    command(f, 0xa7);
    command(f, 0xad);
    command(f, 0x20);
    EXPECT(f, 0x77);
    command(f, 0xd2);
    data(f, 0x5a);
    EXPECT(f, 0x5a);
    command(f, 0xd3);
    data(f, 0xa5);
    EXPECT(f, 0x1a5);
    command(f, 0xc0);
    EXPECT(f, 0x80);
    assert_int_equal(status(f) & 0x08, 0x08);
    data(f, 0xee);
    assert_int_equal(status(f) & 0x08, 0);
}

static void resets(void **state)
{
    struct fixture *f = *state;
    command(f, 0xff); /* pulses no line */
    assert_int_equal(f->h.events, 0);
    command(f, 0xfe);
    assert_int_equal(f->h.events, 1);
    assert_int_equal(f->h.last_event, DEV_EVENT_RESET);
    command(f, 0xd1);
    data(f, 0xdf); /* the usual A20 write */
    assert_int_equal(f->h.events, 1);
    command(f, 0xd0);
    EXPECT(f, 0xdf);
    command(f, 0xdd);
    command(f, 0xd0);
    EXPECT(f, 0xdd);
    command(f, 0xd1);
    data(f, 0xde);
    assert_int_equal(f->h.events, 2);
}

static void keyboard_commands(void **state)
{
    struct fixture *f = *state;
    set_command_byte(f, 0x01); /* no translation */
    data(f, 0xff);
    EXPECT(f, 0xfa, 0xaa);
    data(f, 0xf2);
    EXPECT(f, 0xfa, 0xab, 0x83);
    data(f, 0xed);
    EXPECT(f, 0xfa);
    data(f, 0x07);
    EXPECT(f, 0xfa);
    data(f, 0xf0);
    data(f, 0x00);
    EXPECT(f, 0xfa, 0xfa, 0x02);
    data(f, 0xf0);
    data(f, 0x03);
    EXPECT(f, 0xfa, 0xfe);
    data(f, 0xee);
    EXPECT(f, 0xee);
    data(f, 0x12);
    EXPECT(f, 0xfe);
    data(f, 0xf3);
    data(f, 0xf4); /* a command where an argument was due */
    EXPECT(f, 0xfa, 0xfa);
}

static void keys_are_translated_to_set_1(void **state)
{
    struct fixture *f = *state;
    i8042_key(f->dev, 0x1c, true); /* A */
    assert_int_equal(f->h.gsi_level[1], 1);
    EXPECT(f, 0x1e);
    assert_int_equal(f->h.gsi_level[1], 0);
    i8042_key(f->dev, 0x1c, false);
    EXPECT(f, 0x9e);
    i8042_key(f->dev, 0xe071, true); /* Delete */
    i8042_key(f->dev, 0xe071, false);
    EXPECT(f, 0xe0, 0x53, 0xe0, 0xd3);
    i8042_key(f->dev, 0x83, true); /* F7 */
    EXPECT(f, 0x41);
    set_command_byte(f, 0x01);
    i8042_key(f->dev, 0xe071, false);
    EXPECT(f, 0xe0, 0xf0, 0x71);
}

static void each_byte_makes_an_edge(void **state)
{
    struct fixture *f = *state;
    unsigned rises = f->h.gsi_rises[1];
    i8042_key(f->dev, 0xe071, true);
    assert_int_equal(f->h.gsi_rises[1], rises + 1);
    (void)dev_harness_inb(&f->h, 0x60);
    assert_int_equal(f->h.gsi_rises[1], rises + 2);
    (void)dev_harness_inb(&f->h, 0x60);
    assert_int_equal(f->h.gsi_level[1], 0);
}

static void a_disabled_keyboard_keeps_its_bytes(void **state)
{
    struct fixture *f = *state;
    command(f, 0xad);
    i8042_key(f->dev, 0x1c, true);
    assert_int_equal(status(f) & 1, 0);
    command(f, 0xae);
    EXPECT(f, 0x1e);
    data(f, 0xf5); /* scanning off: keys are lost */
    EXPECT(f, 0xfa);
    i8042_key(f->dev, 0x1c, true);
    assert_int_equal(status(f) & 1, 0);
}

static void keys_that_nobody_reads_are_dropped_whole(void **state)
{
    struct fixture *f = *state;
    set_command_byte(f, 0x01);
    for (unsigned i = 0; i < 100; i++) {
        i8042_key(f->dev, 0xe071, false);
    }
    unsigned n = 0;
    for (; (status(f) & 1) != 0; n++) {
        static const uint8_t code[] = { 0xe0, 0xf0, 0x71 };
        assert_int_equal(dev_harness_inb(&f->h, 0x60), code[n % 3]);
    }
    assert_in_range(n, 48, 64);
    assert_int_equal(n % 3, 0);
}

static void mouse_commands_and_packets(void **state)
{
    struct fixture *f = *state;
    set_command_byte(f, 0x47);
    mouse(f, 0xff);
    EXPECT(f, 0x1fa, 0x1aa, 0x100);
    mouse(f, 0xf2);
    EXPECT(f, 0x1fa, 0x100);
    mouse(f, 0xf3);
    mouse(f, 200);
    mouse(f, 0xe8);
    mouse(f, 3);
    EXPECT(f, 0x1fa, 0x1fa, 0x1fa, 0x1fa);
    mouse(f, 0xe9);
    EXPECT(f, 0x1fa, 0x100, 0x103, 0x1c8);
    i8042_mouse(f->dev, 5, 5, 1); /* reporting is off */
    assert_int_equal(status(f) & 1, 0);
    mouse(f, 0xf4);
    EXPECT(f, 0x1fa);
    i8042_mouse(f->dev, -10, -5, 2);
    assert_int_equal(f->h.gsi_level[12], 1);
    EXPECT(f, 0x13a, 0x1f6, 0x1fb); /* what moved while it was off is gone */
    i8042_mouse(f->dev, 300, 0, 0);
    EXPECT(f, 0x108, 0x1ff, 0x100, 0x108, 0x12d, 0x100);
    mouse(f, 0xe1);
    EXPECT(f, 0x1fe);
    mouse(f, 0xee); /* wrap mode */
    EXPECT(f, 0x1fa);
    mouse(f, 0x55);
    EXPECT(f, 0x155);
    mouse(f, 0xec);
    EXPECT(f, 0x1fa);
}

static void reset_state(void **state)
{
    struct fixture *f = *state;
    i8042_key(f->dev, 0x1c, true);
    command(f, 0x60); /* waits for its byte */
    dev_reset(f->dev);
    assert_int_equal(f->h.gsi_level[1], 0);
    assert_int_equal(status(f) & 1, 0);
    data(f, 0xee); /* goes to the keyboard */
    EXPECT(f, 0xee);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(controller_commands),
        T(resets),
        T(keyboard_commands),
        T(keys_are_translated_to_set_1),
        T(each_byte_makes_an_edge),
        T(a_disabled_keyboard_keeps_its_bytes),
        T(keys_that_nobody_reads_are_dropped_whole),
        T(mouse_commands_and_packets),
        T(reset_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
