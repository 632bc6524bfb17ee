/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * 16550A.
 *
 *     guest write -> tx ring --(loop thread)--> chr_write()      ring full: THRE goes off
 *     chr input --(loop thread)--> rx FIFO -> guest read         FIFO full: chr_set_ready(0)
 *
 * A byte leaves at once, so THRE and TEMT are set whenever the ring has room for a full FIFO, and
 * the "four character times" of the receive timeout are none. Handlers run on vCPU threads and only
 * fill the ring; the kick timer gets the loop thread to hand it on, many bytes with one system
 * call. All state is under the device's lock.
 *
 * The chip's interrupt pin is wired straight to the interrupt controller: MCR OUT2 does not gate
 * it, as on boards with a super I/O chip in ACPI mode.
 */
#include "vmm/dev/serial.h"

#include <errno.h>
#include <stdio.h>

#include "vmm/acpi/aml.h"

enum {
    REG_DATA = 0, /* RBR, THR; divisor low */
    REG_IER = 1,  /* divisor high */
    REG_IIR = 2,  /* FCR */
    REG_LCR = 3,
    REG_MCR = 4,
    REG_LSR = 5,
    REG_MSR = 6,
    REG_SCR = 7,
    NUM_REGS = 8,
};

#define IER_RX    0x01
#define IER_TX    0x02
#define IER_LINE  0x04
#define IER_MODEM 0x08

#define IIR_NONE    0x01
#define IIR_MODEM   0x00
#define IIR_TX      0x02
#define IIR_RX      0x04
#define IIR_LINE    0x06
#define IIR_TIMEOUT 0x0c
#define IIR_FIFO    0xc0

#define FCR_ENABLE   0x01
#define FCR_CLEAR_RX 0x02
#define FCR_KEPT     0xc9 /* enable, DMA mode, trigger */

#define LCR_DLAB 0x80

#define MCR_LOOP 0x10
#define MCR_MASK 0x1f

#define LSR_DR   0x01
#define LSR_OE   0x02
#define LSR_BI   0x10
#define LSR_THRE 0x20
#define LSR_TEMT 0x40
#define LSR_ERR  0x80 /* an error is somewhere in the FIFO */

#define MSR_DELTAS 0x0f
#define MSR_CTS    0x10
#define MSR_DSR    0x20
#define MSR_RI     0x40
#define MSR_DCD    0x80

#define FIFO_LEN 16
#define TX_RING  4096  /* power of two */
#define RX_BREAK 0x100 /* mark on a FIFO entry */

struct serial {
    struct dev *dev;
    struct bus_region region;
    struct chr *chr;
    unsigned irq;
    int level;

    uint8_t ier, lcr, mcr, msr, scr, fcr;
    uint16_t divisor;
    bool overrun;
    bool tx_pending; /* the THRE interrupt is due */
    bool tx_full;    /* THRE is off: waits for the back end */

    uint16_t rx[FIFO_LEN];
    unsigned rx_count;

    uint8_t tx[TX_RING];
    unsigned tx_head, tx_count;
    bool stopped;
    struct loop_timer kick;
};

static unsigned rx_capacity(const struct serial *s)
{
    return (s->fcr & FCR_ENABLE) != 0 ? FIFO_LEN : 1;
}

static unsigned rx_trigger(const struct serial *s)
{
    static const uint8_t level[4] = { 1, 4, 8, 14 };
    return (s->fcr & FCR_ENABLE) != 0 ? level[s->fcr >> 6] : 1;
}

static uint8_t serial_lsr(const struct serial *s)
{
    unsigned lsr = s->tx_full ? 0 : LSR_THRE | LSR_TEMT;
    lsr |= s->overrun ? LSR_OE : 0;
    if (s->rx_count > 0) {
        lsr |= LSR_DR | ((s->rx[0] & RX_BREAK) != 0 ? LSR_BI : 0);
    }
    for (unsigned i = 0; i < s->rx_count && (s->fcr & FCR_ENABLE) != 0; i++) {
        lsr |= (s->rx[i] & RX_BREAK) != 0 ? LSR_ERR : 0;
    }
    return (uint8_t)lsr;
}

/* The highest pending interrupt, by priority (datasheet table 4). */
static uint8_t serial_iir(const struct serial *s)
{
    if ((s->ier & IER_LINE) != 0 && (serial_lsr(s) & (LSR_OE | LSR_BI)) != 0) {
        return IIR_LINE;
    }
    if ((s->ier & IER_RX) != 0 && s->rx_count > 0) {
        return s->rx_count >= rx_trigger(s) ? IIR_RX : IIR_TIMEOUT;
    }
    if ((s->ier & IER_TX) != 0 && s->tx_pending) {
        return IIR_TX;
    }
    if ((s->ier & IER_MODEM) != 0 && (s->msr & MSR_DELTAS) != 0) {
        return IIR_MODEM;
    }
    return IIR_NONE;
}

static void serial_update_irq(struct serial *s)
{
    int level = serial_iir(s) != IIR_NONE;
    if (level != s->level) {
        s->level = level;
        dev_irq(s->dev, s->irq, level);
    }
}

/* Gets the loop thread to look at the back end. */
static void serial_kick(struct serial *s)
{
    if (s->chr != NULL && !s->stopped) {
        loop_timer_set(&s->kick, 0);
    }
}

static void rx_push(struct serial *s, uint16_t entry)
{
    if (s->rx_count == rx_capacity(s)) {
        s->overrun = true;
        if ((s->fcr & FCR_ENABLE) == 0) {
            s->rx[0] = entry; /* 16450 mode: the new byte replaces the old one */
        }
        return;
    }
    s->rx[s->rx_count++] = entry;
}

static uint8_t rx_pop(struct serial *s)
{
    if (s->rx_count == 0) {
        return 0;
    }
    uint8_t byte = (uint8_t)s->rx[0];
    s->rx_count--;
    memmove(s->rx, s->rx + 1, s->rx_count * sizeof(s->rx[0]));
    if (s->rx_count == 0) {
        serial_kick(s);
    }
    return byte;
}

static void tx_push(struct serial *s, uint8_t byte)
{
    if ((s->mcr & MCR_LOOP) != 0) {
        rx_push(s, byte);
        s->tx_pending = true;
        return;
    }
    if (s->chr != NULL && s->tx_count < TX_RING) { /* a guest that ignores THRE loses bytes */
        s->tx[(s->tx_head + s->tx_count) % TX_RING] = byte;
        s->tx_count++;
        if (s->tx_count == 1) {
            serial_kick(s);
        }
    }
    s->tx_full = s->tx_count > TX_RING - FIFO_LEN;
    s->tx_pending = !s->tx_full;
}

/* Sets the upper half of MSR and notes what changed in its lower half. */
static void set_modem_lines(struct serial *s, uint8_t lines)
{
    uint8_t changed = (s->msr ^ lines) & (MSR_CTS | MSR_DSR | MSR_DCD);
    uint8_t deltas = (uint8_t)(changed >> 4);
    if ((s->msr & MSR_RI) != 0 && (lines & MSR_RI) == 0) {
        deltas |= MSR_RI >> 4; /* only the trailing edge counts */
    }
    s->msr = (uint8_t)(lines | (s->msr & MSR_DELTAS) | deltas);
}

static void write_mcr(struct serial *s, uint8_t value)
{
    if (((s->mcr ^ value) & MCR_LOOP) != 0) {
        serial_kick(s); /* no input from outside while looped back */
    }
    s->mcr = value & MCR_MASK;
    uint8_t lines = MSR_CTS | MSR_DSR | MSR_DCD;
    if ((value & MCR_LOOP) != 0) { /* DTR RTS OUT1 OUT2 come back as DSR CTS RI DCD */
        lines = (uint8_t)((value & 0x01) << 5 | (value & 0x02) << 3 | (value & 0x0c) << 4);
    }
    set_modem_lines(s, lines);
}

static void write_fcr(struct serial *s, uint8_t value)
{
    bool toggled = ((s->fcr ^ value) & FCR_ENABLE) != 0;
    if (toggled || (value & FCR_CLEAR_RX) != 0) {
        s->rx_count = 0;
        serial_kick(s);
    }
    /* Clearing the transmitter's FIFO has nothing to clear: its bytes are on the wire. */
    s->fcr = (value & FCR_ENABLE) != 0 ? value & FCR_KEPT : 0;
}

static void write_ier(struct serial *s, uint8_t value)
{
    bool tx_on = (s->ier & IER_TX) == 0 && (value & IER_TX) != 0;
    s->ier = value & 0x0f;
    if (tx_on && !s->tx_full) {
        s->tx_pending = true;
    }
}

static uint64_t serial_read(void *opaque, uint64_t offset, unsigned size)
{
    struct serial *s = opaque;
    bool dlab = (s->lcr & LCR_DLAB) != 0;
    uint8_t value = 0;
    (void)size;
    switch (offset) {
    case REG_DATA:
        value = dlab ? (uint8_t)s->divisor : rx_pop(s);
        break;
    case REG_IER:
        value = dlab ? (uint8_t)(s->divisor >> 8) : s->ier;
        break;
    case REG_IIR:
        value = serial_iir(s);
        if (value == IIR_TX) {
            s->tx_pending = false; /* reading it is the acknowledgement */
        }
        value |= (s->fcr & FCR_ENABLE) != 0 ? IIR_FIFO : 0;
        break;
    case REG_LCR:
        value = s->lcr;
        break;
    case REG_MCR:
        value = s->mcr;
        break;
    case REG_LSR:
        value = serial_lsr(s);
        s->overrun = false;
        if (s->rx_count > 0) {
            s->rx[0] &= 0xff;
        }
        break;
    case REG_MSR:
        value = s->msr;
        s->msr &= (uint8_t)~MSR_DELTAS;
        break;
    default:
        value = s->scr;
        break;
    }
    serial_update_irq(s);
    return value;
}

static void serial_write(void *opaque, uint64_t offset, unsigned size, uint64_t value64)
{
    struct serial *s = opaque;
    uint8_t value = (uint8_t)value64;
    bool dlab = (s->lcr & LCR_DLAB) != 0;
    (void)size;
    switch (offset) {
    case REG_DATA:
        if (dlab) {
            s->divisor = (uint16_t)((s->divisor & 0xff00) | value);
        } else {
            tx_push(s, value);
        }
        break;
    case REG_IER:
        if (dlab) {
            s->divisor = (uint16_t)((s->divisor & 0xff) | value << 8);
        } else {
            write_ier(s, value);
        }
        break;
    case REG_IIR:
        write_fcr(s, value);
        break;
    case REG_LCR:
        s->lcr = value;
        break;
    case REG_MCR:
        write_mcr(s, value);
        break;
    case REG_SCR:
        s->scr = value;
        break;
    default:
        break; /* LSR and MSR are read-only (factory test on the chip) */
    }
    serial_update_irq(s);
}

static const struct bus_ops serial_ops = { .read = serial_read,
                                           .write = serial_write,
                                           .max_size = 1 };

/* Loop thread: gives the back end what waits. The lock is not held while it runs; only this thread
 * takes from the ring, and writers only append behind. */
static void serial_flush(struct serial *s)
{
    uint8_t buf[256];
    for (;;) {
        dev_lock(s->dev);
        size_t len = s->stopped ? 0 : MIN((size_t)s->tx_count, sizeof(buf));
        for (size_t i = 0; i < len; i++) {
            buf[i] = s->tx[(s->tx_head + i) % TX_RING];
        }
        dev_unlock(s->dev);
        if (len == 0) {
            return;
        }
        size_t taken = chr_write(s->chr, buf, len);
        dev_lock(s->dev);
        s->tx_head = (unsigned)(s->tx_head + taken) % TX_RING;
        s->tx_count -= (unsigned)taken;
        if (s->tx_full && s->tx_count <= TX_RING - FIFO_LEN) {
            s->tx_full = false;
            s->tx_pending = true;
            serial_update_irq(s);
        }
        dev_unlock(s->dev);
        if (taken < len) {
            return; /* `writable` calls again */
        }
    }
}

static void serial_on_kick(void *opaque)
{
    struct serial *s = opaque;
    serial_flush(s);
    dev_lock(s->dev);
    unsigned room = s->stopped || (s->mcr & MCR_LOOP) != 0 ? 0 : rx_capacity(s) - s->rx_count;
    dev_unlock(s->dev);
    chr_set_ready(s->chr, room);
}

static void serial_on_input(void *opaque, const uint8_t *buf, size_t len)
{
    struct serial *s = opaque;
    dev_lock(s->dev);
    for (size_t i = 0; i < len; i++) {
        rx_push(s, buf[i]);
    }
    serial_update_irq(s);
    dev_unlock(s->dev);
}

void serial_break(struct dev *serial)
{
    struct serial *s = serial->state;
    dev_lock(serial);
    rx_push(s, RX_BREAK);
    serial_update_irq(s);
    dev_unlock(serial);
}

static void serial_on_break(void *opaque)
{
    struct serial *s = opaque;
    serial_break(s->dev);
}

/* Power-on values (datasheet table 2). What is in the ring was sent and still goes out. */
static void serial_reset(struct dev *dev)
{
    struct serial *s = dev->state;
    s->ier = s->lcr = s->mcr = s->scr = s->fcr = 0;
    s->msr = MSR_CTS | MSR_DSR | MSR_DCD;
    s->divisor = 12; /* 9600 baud */
    s->overrun = s->tx_pending = false;
    s->rx_count = 0;
    serial_update_irq(s);
    serial_kick(s);
}

static int serial_init(struct dev *dev, const void *params, struct err *err)
{
    struct serial *s = dev->state;
    const struct serial_params *p = params;
    s->dev = dev;
    s->chr = p->chr;
    s->irq = p->irq;
    loop_timer_init(&s->kick, dev->env->loop, serial_on_kick, s);
    s->region = (struct bus_region){
        .name = "serial", .size = NUM_REGS, .ops = &serial_ops, .opaque = s, .owner = dev
    };
    int rc = bus_map(dev->env->pio, &s->region, p->port, err);
    if (rc < 0) {
        return rc;
    }
    if (s->chr != NULL) {
        struct chr_front front = { .input = serial_on_input,
                                   .writable = serial_on_kick,
                                   .brk = serial_on_break,
                                   .opaque = s };
        chr_attach(s->chr, &front);
    }
    serial_reset(dev);
    return 0;
}

static void serial_done(struct dev *dev)
{
    struct serial *s = dev->state;
    bus_unmap(&s->region);
    loop_timer_cancel(&s->kick);
    if (s->chr != NULL) {
        chr_attach(s->chr, NULL);
    }
}

static void serial_stop(struct dev *dev)
{
    struct serial *s = dev->state;
    s->stopped = true;
    if (s->chr != NULL) {
        loop_timer_set(&s->kick, 0); /* asks for no more input */
    }
}

static void serial_start(struct dev *dev)
{
    struct serial *s = dev->state;
    s->stopped = false;
    serial_kick(s);
}

static int serial_acpi(struct dev *dev, struct aml *a, struct err *err)
{
    const struct serial *s = dev->state;
    uint16_t port = (uint16_t)s->region.base;
    static const uint16_t com_ports[] = { 0x3f8, 0x2f8, 0x3e8, 0x2e8 };
    char name[5] = "COM1";
    (void)err;
    for (unsigned i = 0; i < ARRAY_LEN(com_ports); i++) {
        if (com_ports[i] == port) {
            name[3] = (char)('1' + i);
        }
    }
    aml_scope(a, "\\_SB.PCI0.ISA"), aml_device(a, name);
    aml_name(a, "_HID"), aml_eisaid(a, "PNP0501");
    aml_name(a, "_UID"), aml_int(a, (uint64_t)(name[3] - '0'));
    aml_name(a, "_CRS"), aml_res_begin(a);
    aml_res_io(a, port, port, 1, NUM_REGS);
    aml_res_irq(a, s->irq);
    aml_res_end(a);
    aml_end(a), aml_end(a);
    return 0;
}

const struct dev_class serial_class = {
    .name = "serial",
    .help = "16550A serial port",
    .threading = DEV_SERIAL,
    .state_size = sizeof(struct serial),
    .init = serial_init,
    .done = serial_done,
    .reset = serial_reset,
    .stop = serial_stop,
    .start = serial_start,
    .acpi = serial_acpi,
};
