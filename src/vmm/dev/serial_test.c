/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The back end is one end of a unix socket, so that a slow reader can be had at will.
 */
#include "vmm/dev/serial.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/dev/dev_harness.h"
#include "vmm/layout.h"

#define PORT LAYOUT_PORT_SERIAL0
#define IRQ  LAYOUT_GSI_SERIAL0

enum { DATA = PORT, IER, IIR, LCR, MCR, LSR, MSR, SCR };

struct fixture {
    struct dev_harness h;
    struct dev *serial;
    struct chr *chr;
    char path[64];
    int peer;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct err err = ERR_INIT;
    char spec[80];
    dev_harness_init(&f->h, MIB);
    (void)snprintf(f->path, sizeof(f->path), "/tmp/serial_test.%d", getpid());
    (void)snprintf(spec, sizeof(spec), "unix:%s", f->path);
    assert_int_equal(chr_open(spec, f->h.env.loop, NULL, NULL, &f->chr, &err), 0);
    struct serial_params p = { .port = PORT, .irq = IRQ, .chr = f->chr };
    f->serial = dev_harness_add(&f->h, &serial_class, &p);
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    memcpy(addr.sun_path, f->path, strlen(f->path) + 1);
    f->peer = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(connect(f->peer, (struct sockaddr *)&addr, sizeof(addr)), 0);
    dev_harness_poll(&f->h);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    dev_free(f->serial);
    chr_close(f->chr);
    close(f->peer);
    unlink(f->path);
    dev_harness_done(&f->h);
    free(f);
    return 0;
}

static uint8_t in(struct fixture *f, uint16_t port)
{
    return dev_harness_inb(&f->h, port);
}

static void out(struct fixture *f, uint16_t port, uint8_t value)
{
    dev_harness_outb(&f->h, port, value);
}

static void send_text(struct fixture *f, const char *s)
{
    assert_int_equal(write(f->peer, s, strlen(s)), strlen(s));
    dev_harness_poll(&f->h);
}

static void power_on_values(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(in(f, IER), 0);
    assert_int_equal(in(f, IIR), 0x01);
    assert_int_equal(in(f, LCR), 0);
    assert_int_equal(in(f, MCR), 0);
    assert_int_equal(in(f, LSR), 0x60);
    assert_int_equal(in(f, MSR), 0xb0);
    out(f, SCR, 0x5a);
    assert_int_equal(in(f, SCR), 0x5a);
    out(f, LCR, 0x80);
    out(f, DATA, 0x34);
    out(f, IER, 0x12);
    assert_int_equal(in(f, DATA), 0x34);
    assert_int_equal(in(f, IER), 0x12);
    out(f, LCR, 0x03);
    assert_int_equal(in(f, IER), 0); /* the divisor is no longer in the way */
}

static void output_reaches_the_back_end(void **state)
{
    struct fixture *f = *state;
    char buf[16] = { 0 };
    for (const char *s = "hello"; *s != '\0'; s++) {
        assert_int_equal(in(f, LSR) & 0x60, 0x60);
        out(f, DATA, (uint8_t)*s);
    }
    dev_harness_poll(&f->h);
    assert_int_equal(read(f->peer, buf, sizeof(buf)), 5);
    assert_string_equal(buf, "hello");
}

static void transmitter_interrupt(void **state)
{
    struct fixture *f = *state;
    out(f, IER, 0x02); /* turning it on while empty raises it */
    assert_int_equal(f->h.gsi_level[IRQ], 1);
    assert_int_equal(in(f, IIR), 0x02);
    assert_int_equal(f->h.gsi_level[IRQ], 0); /* reading IIR acknowledges */
    assert_int_equal(in(f, IIR), 0x01);
    out(f, DATA, 'x');
    assert_int_equal(f->h.gsi_level[IRQ], 1);
    assert_int_equal(in(f, IIR), 0x02);
    out(f, IER, 0);
    assert_int_equal(f->h.gsi_level[IRQ], 0);
}

static void input_below_the_trigger_is_a_timeout(void **state)
{
    struct fixture *f = *state;
    out(f, IIR, 0x81); /* FIFOs on, trigger 8 */
    out(f, IER, 0x01);
    dev_harness_poll(&f->h);
    send_text(f, "abc");
    assert_int_equal(f->h.gsi_level[IRQ], 1);
    assert_int_equal(in(f, IIR), 0xcc);
    assert_int_equal(in(f, LSR) & 1, 1);
    assert_int_equal(in(f, DATA), 'a');
    send_text(f, "0123456789"); /* waits for room: the FIFO was not empty yet */
    assert_int_equal(in(f, DATA), 'b');
    assert_int_equal(in(f, DATA), 'c');
    dev_harness_poll(&f->h);
    assert_int_equal(in(f, IIR), 0xc4);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(in(f, DATA), '0' + i);
    }
    assert_int_equal(in(f, LSR) & 1, 0);
    assert_int_equal(f->h.gsi_level[IRQ], 0);
}

static void input_waits_while_the_fifo_is_full(void **state)
{
    struct fixture *f = *state;
    char text[100];
    out(f, IIR, 0x01);
    dev_harness_poll(&f->h);
    for (unsigned i = 0; i < sizeof(text); i++) {
        text[i] = (char)('!' + i % 90);
    }
    assert_int_equal(write(f->peer, text, sizeof(text)), sizeof(text));
    for (unsigned i = 0; i < sizeof(text);) {
        dev_harness_poll(&f->h);
        unsigned burst = 0;
        for (; (in(f, LSR) & 1) != 0; burst++) {
            assert_int_equal(in(f, DATA), (uint8_t)text[i++]);
        }
        assert_in_range(burst, 1, 16);
        assert_int_equal(in(f, LSR) & 0x02, 0); /* never an overrun */
    }
}

static void a_slow_reader_holds_the_guest_back(void **state)
{
    struct fixture *f = *state;
    /* Nobody reads: socket buffer, back end and ring fill up, and THRE goes off. */
    unsigned sent = 0;
    out(f, IER, 0x02);
    while ((in(f, LSR) & 0x20) != 0) {
        out(f, DATA, (uint8_t)(sent++ % 251));
        if (sent % 1000 == 0) {
            dev_harness_poll(&f->h);
        }
        assert_in_range(sent, 0, 10000000);
    }
    (void)in(f, IIR);
    assert_int_equal(f->h.gsi_level[IRQ], 0);
    unsigned got = 0, idle = 0;
    while (got < sent && idle < 10) {
        uint8_t buf[4096];
        ssize_t n = read(f->peer, buf, sizeof(buf));
        for (ssize_t i = 0; i < n; i++) {
            assert_int_equal(buf[i], got++ % 251);
        }
        idle = n > 0 ? 0 : idle + 1;
        dev_harness_poll(&f->h);
    }
    assert_int_equal(got, sent); /* nothing lost */
    assert_int_equal(in(f, LSR) & 0x20, 0x20);
    assert_int_equal(f->h.gsi_level[IRQ], 1);
}

static void loopback(void **state)
{
    struct fixture *f = *state;
    out(f, MCR, 0x1a); /* loop, RTS, OUT2: the probe of Linux's driver */
    assert_int_equal(in(f, MSR) & 0xf0, 0x90);
    assert_int_equal(in(f, MSR) & 0x0f, 0); /* the deltas were read */
    out(f, DATA, 0x42);
    assert_int_equal(in(f, LSR) & 1, 1);
    assert_int_equal(in(f, DATA), 0x42);
    dev_harness_poll(&f->h);
    uint8_t byte;
    assert_int_equal(read(f->peer, &byte, 1), -1); /* it did not leave */
    /* Without FIFOs a second byte overruns the first. */
    out(f, IER, 0x04);
    out(f, DATA, 1);
    out(f, DATA, 2);
    assert_int_equal(in(f, IIR), 0x06);
    assert_int_equal(in(f, LSR) & 0x02, 0x02);
    assert_int_equal(in(f, LSR) & 0x02, 0);
    assert_int_equal(f->h.gsi_level[IRQ], 0);
    assert_int_equal(in(f, DATA), 2);
}

static void modem_interrupt(void **state)
{
    struct fixture *f = *state;
    out(f, IER, 0x08);
    out(f, MCR, 0x10); /* CTS, DSR and DCD go away */
    assert_int_equal(f->h.gsi_level[IRQ], 1);
    assert_int_equal(in(f, IIR), 0x00);
    assert_int_equal(in(f, MSR), 0x0b);
    assert_int_equal(f->h.gsi_level[IRQ], 0);
}

static void a_break_comes_in_order(void **state)
{
    struct fixture *f = *state;
    out(f, IIR, 0x01);
    out(f, IER, 0x05);
    dev_harness_poll(&f->h);
    send_text(f, "a");
    serial_break(f->serial);
    assert_int_equal(in(f, LSR), 0xe1); /* an error is in the FIFO, not at its top */
    assert_int_equal(in(f, DATA), 'a');
    assert_int_equal(in(f, IIR), 0xc6);
    assert_int_equal(in(f, LSR), 0xf1);
    assert_int_equal(in(f, LSR), 0x61); /* reading cleared it */
    assert_int_equal(in(f, DATA), 0);
    assert_int_equal(in(f, LSR), 0x60);
}

static void changing_the_fifo_mode_empties_it(void **state)
{
    struct fixture *f = *state;
    out(f, IIR, 0x01);
    dev_harness_poll(&f->h);
    send_text(f, "abc");
    assert_int_equal(in(f, IIR) & 0xc0, 0xc0);
    out(f, IIR, 0x00);
    assert_int_equal(in(f, IIR) & 0xc0, 0);
    assert_int_equal(in(f, LSR) & 1, 0);
}

static void reset_and_pause(void **state)
{
    struct fixture *f = *state;
    out(f, IIR, 0x01);
    out(f, IER, 0x03);
    out(f, LCR, 0x83);
    dev_harness_poll(&f->h);
    send_text(f, "abc");
    dev_reset(f->serial);
    assert_int_equal(f->h.gsi_level[IRQ], 0);
    assert_int_equal(in(f, LCR), 0);
    assert_int_equal(in(f, LSR), 0x60);

    dev_stop(f->serial);
    dev_harness_poll(&f->h);
    out(f, DATA, 'z');
    send_text(f, "q");
    uint8_t byte = 0;
    assert_int_equal(read(f->peer, &byte, 1), -1);
    assert_int_equal(in(f, LSR) & 1, 0);
    dev_start(f->serial);
    dev_harness_poll(&f->h);
    assert_int_equal(read(f->peer, &byte, 1), 1);
    assert_int_equal(byte, 'z');
    assert_int_equal(in(f, DATA), 'q');
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(power_on_values),
        T(output_reaches_the_back_end),
        T(transmitter_interrupt),
        T(input_below_the_trigger_is_a_timeout),
        T(input_waits_while_the_fifo_is_full),
        T(a_slow_reader_holds_the_guest_back),
        T(loopback),
        T(modem_interrupt),
        T(a_break_comes_in_order),
        T(changing_the_fifo_mode_empties_it),
        T(reset_and_pause),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
