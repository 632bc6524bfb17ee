/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: the ISA devices together. The input is a program of operations:
 *
 *     op u8, then its operands (little-endian; missing ones are 0)
 *     0 out     port index u8, size code u8, value u32
 *     1 in      port index u8, size code u8
 *     2 time    milliseconds u16
 *     3 input   length u8, bytes: to the serial port from outside
 *     4 device  which u8, what u8: reset, stop, start
 *     5 event   power button, key, mouse, generation, break
 *     6 hpet    register u16, value u64: written, or read (size code 2 and 3)
 *     7 memory  offset u16, value u8: the guest prepares DMA descriptors
 *
 * Besides crashes it looks for interrupt lines that contradict the registers (see check()).
 */
#include <stdlib.h>

#include "vmm/bus/pci.h"
#include "vmm/dev/debugexit.h"
#include "vmm/dev/dev_harness.h"
#include "vmm/dev/fwcfg.h"
#include "vmm/dev/hpet.h"
#include "vmm/dev/i8042.h"
#include "vmm/dev/lpc.h"
#include "vmm/dev/pm.h"
#include "vmm/dev/pvpanic.h"
#include "vmm/dev/rtc.h"
#include "vmm/dev/serial.h"
#include "vmm/dev/sysctl.h"
#include "vmm/dev/vmgenid.h"
#include "vmm/layout.h"

#define RAM_SIZE (128 * KIB)
#define MAX_OPS  4096 /* an input that grows beyond finds nothing new */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Ports with something behind them; a random port would nearly always miss. */
static const struct {
    uint16_t base, count;
} ports[] = {
    {LAYOUT_PORT_SERIAL0,     8   },
    { LAYOUT_PORT_RTC,        2   },
    { LAYOUT_PORT_KBD_DATA,   1   },
    { LAYOUT_PORT_KBD_CMD,    1   },
    { LAYOUT_PORT_PM,         0x80},
    { LAYOUT_PORT_FWCFG,      12  },
    { LAYOUT_PORT_A20_92,     1   },
    { LAYOUT_PORT_RESET,      1   },
    { LAYOUT_PORT_APM_CMD,    2   },
    { LAYOUT_PORT_PVPANIC,    1   },
    { LAYOUT_PORT_DEBUG_EXIT, 4   },
    { LAYOUT_PORT_PCI_ADDR,   8   },
};

/* A back end under the fuzzer's control, in place of chr.c. */
struct chr {
    struct chr_front front;
    size_t room;
    size_t takes; /* bytes of output that it still accepts */
};

void chr_attach(struct chr *chr, const struct chr_front *front)
{
    chr->front = front != NULL ? *front : (struct chr_front){ 0 };
    chr->room = 0;
}

size_t chr_write(struct chr *chr, const uint8_t *buf, size_t len)
{
    (void)buf;
    size_t n = MIN(len, chr->takes);
    chr->takes -= n;
    return n;
}

void chr_set_ready(struct chr *chr, size_t room)
{
    chr->room = room;
}

struct fuzz {
    struct dev_harness h;
    struct dev *dev[9];
    struct dev *pm, *serial, *i8042, *genid;
    struct chr chr;
    const uint8_t *data;
    size_t len;
};

static uint32_t take(struct fuzz *f, unsigned bytes)
{
    uint8_t le[4] = { 0 };
    size_t n = MIN((size_t)bytes, f->len);
    memcpy(le, f->data, n);
    f->data += n;
    f->len -= n;
    return le32_get(le);
}

static uint16_t take_port(struct fuzz *f)
{
    unsigned which = take(f, 1), offset = take(f, 1);
    return (uint16_t)(ports[which % ARRAY_LEN(ports)].base +
                      offset % ports[which % ARRAY_LEN(ports)].count);
}

static void on_written(void *opaque, const void *data, size_t len)
{
    (void)opaque, (void)data, (void)len;
}

static void build(struct fuzz *f)
{
    static const struct rtc_params rtc = { .low_ram = RAM_SIZE, .ncpus = 1 };
    struct err err = ERR_INIT;
    struct dev_harness *h = &f->h;
    dev_harness_init(h, RAM_SIZE);
    if (pci_bus_new(&h->env, LAYOUT_ECAM_BASE, &h->env.pci, &err) < 0) {
        abort();
    }
    struct serial_params serial = { .port = LAYOUT_PORT_SERIAL0, .irq = 4, .chr = &f->chr };
    f->pm = dev_harness_add(h, &pm_class, NULL);
    struct lpc_params lpc = { .pm = f->pm };
    struct vmgenid_params genid = { .pm = f->pm };
    f->genid = dev_harness_add(h, &vmgenid_class, &genid);
    f->serial = dev_harness_add(h, &serial_class, &serial);
    f->i8042 = dev_harness_add(h, &i8042_class, NULL);
    struct dev *all[] = {
        f->pm,
        f->genid,
        f->serial,
        f->i8042,
        dev_harness_add(h, &rtc_class, &rtc),
        dev_harness_add(h, &lpc_class, &lpc),
        dev_harness_add(h, &sysctl_class, NULL),
        dev_harness_add(h, &fwcfg_class, NULL),
        dev_harness_add(h, &hpet_class, NULL),
    };
    memcpy(f->dev, all, sizeof(all));
    dev_harness_add(h, &pvpanic_class, NULL);
    dev_harness_add(h, &debugexit_class, NULL);
    uint8_t writable[16] = { 0 };
    if (fwcfg_add_file(h->env.fwcfg, "r", "read-only", 9, &err) < 0 ||
        fwcfg_add_writable(h->env.fwcfg, "w", writable, 16, on_written, NULL, &err) < 0) {
        abort();
    }
}

static void op_device(struct fuzz *f)
{
    struct dev *dev = f->dev[take(f, 1) % ARRAY_LEN(f->dev)];
    switch (take(f, 1) % 3) {
    case 0:
        dev_reset(dev);
        break;
    case 1:
        dev_stop(dev);
        break;
    default:
        dev_start(dev);
        break;
    }
}

static void op_event(struct fuzz *f)
{
    switch (take(f, 1) % 5) {
    case 0:
        (void)pm_power_button(f->pm);
        break;
    case 1:
        i8042_key(f->i8042, (uint16_t)take(f, 2), take(f, 1) % 2 != 0);
        break;
    case 2:
        i8042_mouse(f->i8042, (int)take(f, 4), (int)take(f, 4), (uint8_t)take(f, 1));
        break;
    case 3:
        vmgenid_renew(f->genid);
        break;
    default:
        serial_break(f->serial);
        break;
    }
}

/* Input from outside, at most what the front end has room for; and room for its output. */
static void op_input(struct fuzz *f)
{
    uint8_t buf[16];
    size_t n = take(f, 1);
    f->chr.takes = n;
    f->chr.front.writable(f->chr.front.opaque);
    n = MIN(n, f->len);
    n = MIN(n, f->chr.room);
    n = MIN(n, sizeof(buf));
    memcpy(buf, f->data, n);
    f->data += n;
    f->len -= n;
    f->chr.room -= n;
    f->chr.front.input(f->chr.front.opaque, buf, n);
}

static void op_hpet(struct fuzz *f, unsigned code)
{
    uint64_t addr = LAYOUT_HPET_BASE + take(f, 2) % LAYOUT_HPET_SIZE;
    if (code >= 2) {
        (void)dev_harness_mmio_read(&f->h, addr, code == 2 ? 4 : 8);
        return;
    }
    uint64_t value = take(f, 4);
    value |= code == 1 ? (uint64_t)take(f, 4) << 32 : 0;
    dev_harness_mmio_write(&f->h, addr, code == 0 ? 4 : 8, value);
}

/* A line that is up has a reason in the registers. */
static void check(struct fuzz *f)
{
    struct dev_harness *h = &f->h;
    if ((h->gsi_level[1] != 0 || h->gsi_level[12] != 0) &&
        (dev_harness_inb(h, LAYOUT_PORT_KBD_CMD) & 1) == 0) {
        abort();
    }
    uint64_t sts = dev_harness_in(h, LAYOUT_PORT_PM1_EVT, 2);
    uint64_t en = dev_harness_in(h, LAYOUT_PORT_PM1_EVT + 2, 2);
    uint64_t gpe = 0;
    for (unsigned i = 0; i < 8; i++) {
        gpe |= dev_harness_in(h, LAYOUT_PORT_GPE0 + i, 1) &
               dev_harness_in(h, LAYOUT_PORT_GPE0 + 8 + i, 1);
    }
    /* 0xffff: firmware moved the block. The timer's carry reaches the line a moment later. */
    if (en != 0xffff && (en & 1) == 0 && (h->gsi_level[9] != 0) != ((sts & en) != 0 || gpe != 0)) {
        abort();
    }
}

static void op(struct fuzz *f)
{
    static const unsigned sizes[] = { 1, 2, 4, 1 };
    uint8_t what = (uint8_t)take(f, 1);
    uint16_t port;
    switch (what % 8) {
    case 0:
        port = take_port(f);
        dev_harness_out(&f->h, port, sizes[what >> 6], take(f, 4));
        break;
    case 1:
        port = take_port(f);
        (void)dev_harness_in(&f->h, port, sizes[what >> 6]);
        break;
    case 2:
        f->h.now_ns += (uint64_t)take(f, 2) * 1000000;
        f->h.wall_ns += (uint64_t)what * 1000000000;
        (void)loop_run_once(f->h.env.loop, 0);
        break;
    case 3:
        op_input(f);
        break;
    case 4:
        op_device(f);
        break;
    case 5:
        op_event(f);
        break;
    case 6:
        op_hpet(f, what >> 6);
        break;
    default:
        f->h.ram[take(f, 2)] = (uint8_t)take(f, 1);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct fuzz *f = calloc(1, sizeof(*f));
    if (f == NULL) {
        abort();
    }
    log_set_level(LOG_ERROR);
    f->data = data;
    f->len = len;
    build(f);
    for (unsigned i = 0; i < MAX_OPS && f->len > 0; i++) {
        op(f);
        check(f);
    }
    struct dev *dev;
    while ((dev = TAILQ_LAST(&f->h.env.devs, dev_list)) != NULL) {
        dev_free(dev);
    }
    pci_bus_free(f->h.env.pci);
    dev_harness_done(&f->h);
    free(f);
    return 0;
}
