/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The controller has one output byte. When it is free, the next one is loaded: replies of the
 * controller first, then keyboard, then mouse, as far as their clock is not disabled.
 *
 *     reply -----\
 *     keyboard ---+--> out byte (OBF) --> port 0x60     irq 1 or irq 12 while OBF is set
 *     mouse -----/
 *
 * Keyboard bytes are translated from scan code set 2 to set 1 when the command byte asks for it.
 */
#include "vmm/dev/i8042.h"

#include "vmm/acpi/aml.h"
#include "vmm/dev/ps2.h"
#include "vmm/layout.h"

/* Status, port 0x64 */
#define ST_OBF      0x01
#define ST_SYS      0x04
#define ST_COMMAND  0x08 /* the last write went to port 0x64 */
#define ST_UNLOCKED 0x10
#define ST_AUX      0x20

/* Command byte */
#define CB_KBD_INT     0x01
#define CB_AUX_INT     0x02
#define CB_SYS         0x04
#define CB_KBD_DISABLE 0x10
#define CB_AUX_DISABLE 0x20
#define CB_TRANSLATE   0x40

/* Commands, port 0x64 */
#define CMD_READ_RAM     0x20 /* 0x20 to 0x3f; 0x20 is the command byte */
#define CMD_WRITE_RAM    0x60 /* 0x60 to 0x7f */
#define CMD_AUX_DISABLE  0xa7
#define CMD_AUX_ENABLE   0xa8
#define CMD_AUX_TEST     0xa9
#define CMD_SELF_TEST    0xaa
#define CMD_KBD_TEST     0xab
#define CMD_KBD_DISABLE  0xad
#define CMD_KBD_ENABLE   0xae
#define CMD_READ_INPUT   0xc0
#define CMD_READ_OUTPUT  0xd0
#define CMD_WRITE_OUTPUT 0xd1
#define CMD_KBD_OUT      0xd2
#define CMD_AUX_OUT      0xd3
#define CMD_TO_AUX       0xd4
#define CMD_A20_OFF      0xdd
#define CMD_A20_ON       0xdf
#define CMD_PULSE        0xf0 /* 0xf0 to 0xff: pulses the low output lines whose bit is 0 */

#define OUT_NO_RESET 0x01
#define OUT_A20      0x02
#define INPUT_PORT   0x80 /* keyboard not locked */
#define RAM_SIZE     32

enum source {
    SRC_NONE,
    SRC_CTRL, /* a reply; raises no interrupt of its own line */
    SRC_KBD,
    SRC_AUX,
};

struct i8042 {
    struct dev *dev;
    struct bus_region data_region;
    struct bus_region cmd_region;
    struct ps2 kbd;
    struct ps2 mouse;
    uint8_t ram[RAM_SIZE]; /* [0] is the command byte */
    uint8_t output_port;
    uint8_t command; /* waits for its byte at port 0x60; 0 = none */
    bool last_was_command;
    bool key_break; /* translation: the break prefix was taken */
    uint8_t out;
    enum source out_source;
    bool out_aux; /* a reply that looks like the mouse's */
    uint8_t reply;
    bool has_reply;
    bool reply_aux;
    int kbd_level, aux_level;
};

/* Scan code set 2 to set 1, as keyboard controllers do it: index 0 to 0x7f; 0x83 and 0x84 besides.
 */
static const uint8_t to_set1[128] = {
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
};

static void set_line(struct i8042 *s, unsigned gsi, int *level, int value)
{
    if (*level != value) {
        *level = value;
        dev_irq(s->dev, gsi, value);
    }
}

static void update_irq(struct i8042 *s)
{
    bool full = s->out_source != SRC_NONE;
    set_line(s, LAYOUT_GSI_KBD, &s->kbd_level,
             full && !s->out_aux && (s->ram[0] & CB_KBD_INT) != 0);
    set_line(s, LAYOUT_GSI_MOUSE, &s->aux_level,
             full && s->out_aux && (s->ram[0] & CB_AUX_INT) != 0);
}

/* Next keyboard byte, translated. False when it was a break prefix, which has no byte in set 1. */
static bool take_key(struct i8042 *s, uint8_t *ret_byte)
{
    uint8_t byte = ps2_take(&s->kbd);
    if ((s->ram[0] & CB_TRANSLATE) == 0) {
        *ret_byte = byte;
        return true;
    }
    if (byte == 0xf0) {
        s->key_break = true;
        return false;
    }
    uint8_t code = byte < 0x80 ? to_set1[byte] : byte == 0x83 ? 0x41 : byte == 0x84 ? 0x54 : byte;
    *ret_byte = (uint8_t)(code | (s->key_break ? 0x80 : 0));
    s->key_break = false;
    return true;
}

/* Loads the output byte if it is free and something waits. */
static void fill_out(struct i8042 *s)
{
    while (s->out_source == SRC_NONE) {
        if (s->has_reply) {
            s->has_reply = false;
            s->out = s->reply;
            s->out_aux = s->reply_aux;
            s->out_source = SRC_CTRL;
        } else if (s->kbd.count > 0 && (s->ram[0] & CB_KBD_DISABLE) == 0) {
            s->out_aux = false;
            s->out_source = take_key(s, &s->out) ? SRC_KBD : SRC_NONE;
        } else if (s->mouse.count > 0 && (s->ram[0] & CB_AUX_DISABLE) == 0) {
            s->out = ps2_take(&s->mouse);
            s->out_aux = true;
            s->out_source = SRC_AUX;
        } else {
            break;
        }
    }
    update_irq(s);
}

/* A reply of the controller takes the place of one that was not fetched. */
static void put_reply(struct i8042 *s, uint8_t byte, bool aux)
{
    s->reply = byte;
    s->reply_aux = aux;
    s->has_reply = true;
}

static void pulse_reset(struct i8042 *s, const char *how)
{
    dev_event(s->dev, DEV_EVENT_RESET, 0, how);
}

static void write_output_port(struct i8042 *s, uint8_t value)
{
    s->output_port = value; /* the A20 bit is kept, but masks nothing: engines have no A20 gate */
    if ((value & OUT_NO_RESET) == 0) {
        pulse_reset(s, "keyboard controller output port");
    }
}

static void write_command(struct i8042 *s, uint8_t cmd)
{
    s->command = 0;
    switch (cmd) {
    case CMD_READ_RAM ... CMD_READ_RAM + RAM_SIZE - 1:
        put_reply(s, s->ram[cmd - CMD_READ_RAM], false);
        break;
    case CMD_WRITE_RAM ... CMD_WRITE_RAM + RAM_SIZE - 1:
    case CMD_WRITE_OUTPUT:
    case CMD_KBD_OUT:
    case CMD_AUX_OUT:
    case CMD_TO_AUX:
        s->command = cmd;
        break;
    case CMD_AUX_DISABLE:
        s->ram[0] |= CB_AUX_DISABLE;
        break;
    case CMD_AUX_ENABLE:
        s->ram[0] &= (uint8_t)~CB_AUX_DISABLE;
        break;
    case CMD_AUX_TEST:
    case CMD_KBD_TEST:
        put_reply(s, 0x00, false);
        break;
    case CMD_SELF_TEST:
        s->ram[0] |= CB_SYS;
        put_reply(s, 0x55, false);
        break;
    case CMD_KBD_DISABLE:
        s->ram[0] |= CB_KBD_DISABLE;
        break;
    case CMD_KBD_ENABLE:
        s->ram[0] &= (uint8_t)~CB_KBD_DISABLE;
        break;
    case CMD_READ_INPUT:
        put_reply(s, INPUT_PORT, false);
        break;
    case CMD_READ_OUTPUT:
        put_reply(s, s->output_port, false);
        break;
    case CMD_A20_OFF:
    case CMD_A20_ON:
        s->output_port =
            (uint8_t)(cmd == CMD_A20_ON ? s->output_port | OUT_A20 : s->output_port & ~OUT_A20);
        break;
    case CMD_PULSE ... CMD_PULSE + 0x0f:
        if ((cmd & OUT_NO_RESET) == 0) {
            pulse_reset(s, "keyboard controller");
        }
        break;
    default:
        break; /* chips ignore what they do not know */
    }
}

static void write_data(struct i8042 *s, uint8_t value)
{
    uint8_t cmd = s->command;
    s->command = 0;
    switch (cmd) {
    case 0:
        s->ram[0] &= (uint8_t)~CB_KBD_DISABLE; /* sending enables the keyboard's clock */
        ps2_kbd_write(&s->kbd, value);
        break;
    case CMD_WRITE_OUTPUT:
        write_output_port(s, value);
        break;
    case CMD_KBD_OUT:
        put_reply(s, value, false);
        break;
    case CMD_AUX_OUT:
        put_reply(s, value, true);
        break;
    case CMD_TO_AUX:
        s->ram[0] &= (uint8_t)~CB_AUX_DISABLE;
        ps2_mouse_write(&s->mouse, value);
        break;
    default:
        s->ram[cmd - CMD_WRITE_RAM] = value;
        break;
    }
}

static uint64_t data_read(void *opaque, uint64_t offset, unsigned size)
{
    struct i8042 *s = opaque;
    (void)offset, (void)size;
    uint8_t value = s->out; /* an empty buffer gives the last byte again */
    s->out_source = SRC_NONE;
    update_irq(s); /* down, so that the next byte makes a new edge */
    fill_out(s);
    return value;
}

static void data_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8042 *s = opaque;
    (void)offset, (void)size;
    s->last_was_command = false;
    write_data(s, (uint8_t)value);
    fill_out(s);
}

static uint64_t cmd_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct i8042 *s = opaque;
    (void)offset, (void)size;
    bool full = s->out_source != SRC_NONE;
    return (full ? ST_OBF : 0u) | (full && s->out_aux ? ST_AUX : 0u) |
           ((s->ram[0] & CB_SYS) != 0 ? ST_SYS : 0u) | (s->last_was_command ? ST_COMMAND : 0u) |
           ST_UNLOCKED;
}

static void cmd_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8042 *s = opaque;
    (void)offset, (void)size;
    s->last_was_command = true;
    write_command(s, (uint8_t)value);
    fill_out(s);
}

static const struct bus_ops data_ops = { .read = data_read, .write = data_write, .max_size = 1 };
static const struct bus_ops cmd_ops = { .read = cmd_read, .write = cmd_write, .max_size = 1 };

void i8042_key(struct dev *i8042, uint16_t code, bool down)
{
    struct i8042 *s = i8042->state;
    dev_lock(i8042);
    ps2_kbd_key(&s->kbd, code, down);
    fill_out(s);
    dev_unlock(i8042);
}

void i8042_mouse(struct dev *i8042, int dx, int dy, uint8_t buttons)
{
    struct i8042 *s = i8042->state;
    dev_lock(i8042);
    ps2_mouse_move(&s->mouse, dx, dy, buttons);
    fill_out(s);
    dev_unlock(i8042);
}

/* As after the power-on self test of the firmware: keyboard on and translated, interrupts on. */
static void i8042_reset(struct dev *dev)
{
    struct i8042 *s = dev->state;
    ps2_kbd_reset(&s->kbd);
    ps2_mouse_reset(&s->mouse);
    memset(s->ram, 0, sizeof(s->ram));
    s->ram[0] = CB_KBD_INT | CB_SYS | CB_AUX_DISABLE | CB_TRANSLATE;
    s->output_port = OUT_NO_RESET | OUT_A20 | 0xcc;
    s->command = 0;
    s->last_was_command = s->key_break = s->has_reply = s->out_aux = false;
    s->out_source = SRC_NONE;
    s->out = 0;
    update_irq(s);
}

static void i8042_done(struct dev *dev)
{
    struct i8042 *s = dev->state;
    bus_unmap(&s->data_region);
    bus_unmap(&s->cmd_region);
}

static int i8042_init(struct dev *dev, const void *params, struct err *err)
{
    struct i8042 *s = dev->state;
    (void)params;
    s->dev = dev;
    s->data_region = (struct bus_region){
        .name = "i8042 data", .size = 1, .ops = &data_ops, .opaque = s, .owner = dev
    };
    s->cmd_region = (struct bus_region){
        .name = "i8042 command", .size = 1, .ops = &cmd_ops, .opaque = s, .owner = dev
    };
    i8042_reset(dev);
    int rc = bus_map(dev->env->pio, &s->data_region, LAYOUT_PORT_KBD_DATA, err);
    if (rc == 0) {
        rc = bus_map(dev->env->pio, &s->cmd_region, LAYOUT_PORT_KBD_CMD, err);
    }
    if (rc < 0) {
        i8042_done(dev);
    }
    return rc;
}

static int i8042_acpi(struct dev *dev, struct aml *a, struct err *err)
{
    (void)dev, (void)err;
    aml_scope(a, "\\_SB.PCI0.ISA");
    aml_device(a, "KBD");
    aml_name(a, "_HID"), aml_eisaid(a, "PNP0303");
    aml_name(a, "_CRS"), aml_res_begin(a);
    aml_res_io(a, LAYOUT_PORT_KBD_DATA, LAYOUT_PORT_KBD_DATA, 1, 1);
    aml_res_io(a, LAYOUT_PORT_KBD_CMD, LAYOUT_PORT_KBD_CMD, 1, 1);
    aml_res_irq(a, LAYOUT_GSI_KBD);
    aml_res_end(a);
    aml_end(a);
    aml_device(a, "MOU");
    aml_name(a, "_HID"), aml_eisaid(a, "PNP0F13");
    aml_name(a, "_CRS"), aml_res_begin(a);
    aml_res_irq(a, LAYOUT_GSI_MOUSE);
    aml_res_end(a);
    aml_end(a), aml_end(a);
    return 0;
}

const struct dev_class i8042_class = {
    .name = "i8042",
    .help = "keyboard controller with PS/2 keyboard and mouse",
    .threading = DEV_SERIAL,
    .state_size = sizeof(struct i8042),
    .init = i8042_init,
    .done = i8042_done,
    .reset = i8042_reset,
    .acpi = i8042_acpi,
};
