/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fw_cfg: selector, data and DMA registers.
 *
 *     0x510 u16  selector (little-endian by port); resets the offset
 *     0x511 u8   data: next byte of the item, 0 behind its end
 *     0x514 u64  DMA address, big-endian, written as two halves; the low half starts the transfer
 *
 * A DMA descriptor in guest RAM (big-endian): u32 control, u32 length, u64 address. The control
 * field is cleared when the transfer is done, or becomes 1 on an error. All transfers go through
 * gmem, so DMA never reaches a register. Reads behind an item's end give zeros, as the data port
 * does, but at most FWCFG_MAX_PAD of them: a guest cannot make us fill gigabytes.
 */
#include "vmm/dev/fwcfg.h"

#include <errno.h>
#include <stdlib.h>

#include "vmm/acpi/aml.h"
#include "vmm/layout.h"

#define REG_SELECTOR 0
#define REG_DATA     1
#define REG_DMA      4

#define KEY_SIGNATURE  0x00
#define KEY_ID         0x01
#define KEY_FILE_DIR   0x19
#define KEY_FIRST_FILE 0x20
#define NUM_KEYS       (KEY_FIRST_FILE + FWCFG_MAX_FILES)

#define ID_TRADITIONAL 1u
#define ID_DMA         2u

#define DMA_ERROR  0x01u
#define DMA_READ   0x02u
#define DMA_SKIP   0x04u
#define DMA_SELECT 0x08u
#define DMA_WRITE  0x10u
#define DMA_DESC   16

#define DIR_ENTRY     64 /* u32 size, u16 key, u16 reserved, name; big-endian */
#define FWCFG_MAX_PAD MIB
#define SIGNATURE_DMA UINT64_C(0x51454d5520434647) /* "QEMU CFG" */

struct item {
    uint8_t *data;
    size_t len;
    fwcfg_written_fn *written; /* NULL = read-only */
    void *opaque;
};

struct fwcfg {
    struct dev *dev;
    struct bus_region region;
    struct item item[NUM_KEYS];
    unsigned nfiles;
    uint16_t key;
    uint32_t offset; /* at most the item's length */
    uint32_t dma_high;
};

/* The selected item; an empty one for keys that do not exist. */
static const struct item *fwcfg_item(const struct fwcfg *fw)
{
    static const struct item none;
    return fw->key < NUM_KEYS ? &fw->item[fw->key] : &none;
}

static void fwcfg_select(struct fwcfg *fw, uint16_t key)
{
    fw->key = key;
    fw->offset = 0;
}

static uint8_t fwcfg_next(struct fwcfg *fw)
{
    const struct item *it = fwcfg_item(fw);
    return fw->offset < it->len ? it->data[fw->offset++] : 0;
}

/* The data bytes of one DMA read. false = error. */
static bool dma_read(struct fwcfg *fw, uint64_t addr, uint32_t len)
{
    const struct item *it = fwcfg_item(fw);
    uint32_t have = (uint32_t)MIN((uint64_t)len, it->len - fw->offset);
    uint64_t end;
    if (len - have > FWCFG_MAX_PAD || ckd_add(&end, addr, (uint64_t)len)) {
        return false;
    }
    bool ok = gmem_write(fw->dev->env->mem, GPA(addr), it->data + fw->offset, have) == 0 &&
              gmem_fill(fw->dev->env->mem, GPA(addr + have), 0, len - have) == 0;
    fw->offset += have;
    return ok;
}

static bool dma_write(struct fwcfg *fw, uint64_t addr, uint32_t len)
{
    const struct item *it = fwcfg_item(fw);
    if (it->written == NULL || len > it->len - fw->offset ||
        gmem_read(fw->dev->env->mem, GPA(addr), it->data + fw->offset, len) < 0) {
        return false;
    }
    fw->offset += len;
    it->written(it->opaque, it->data, it->len);
    return true;
}

static void fwcfg_dma(struct fwcfg *fw, uint64_t desc_addr)
{
    struct gmem *mem = fw->dev->env->mem;
    uint8_t desc[DMA_DESC];
    if (gmem_read(mem, GPA(desc_addr), desc, sizeof(desc)) < 0) {
        dev_guest_bug(fw->dev, "DMA descriptor outside of RAM");
        return; /* there is nowhere to report it */
    }
    uint32_t control = be32_get(desc);
    uint32_t len = be32_get(desc + 4);
    uint64_t addr = be64_get(desc + 8);
    bool ok = true;
    if ((control & DMA_SELECT) != 0) {
        fwcfg_select(fw, (uint16_t)(control >> 16));
    }
    if ((control & DMA_READ) != 0) {
        ok = dma_read(fw, addr, len);
    } else if ((control & DMA_WRITE) != 0) {
        ok = dma_write(fw, addr, len);
    } else if ((control & DMA_SKIP) != 0) {
        fw->offset += (uint32_t)MIN((uint64_t)len, fwcfg_item(fw)->len - fw->offset);
    }
    if (!ok) {
        dev_guest_bug(fw->dev, "DMA of %u bytes on key %#x refused", len, fw->key);
    }
    uint8_t result[4];
    be32_put(result, ok ? 0 : DMA_ERROR);
    if (gmem_write(mem, GPA(desc_addr), result, sizeof(result)) < 0) {
        dev_guest_bug(fw->dev, "DMA descriptor in read-only memory");
    }
}

static uint64_t fwcfg_read(void *opaque, uint64_t offset, unsigned size)
{
    struct fwcfg *fw = opaque;
    if (offset == REG_DATA && size == 1) {
        return fwcfg_next(fw);
    }
    if (offset >= REG_DMA) {
        /* Byte i of the big-endian register is at REG_DMA + i. */
        uint64_t value = 0;
        for (unsigned i = 0; i < size; i++) {
            unsigned byte = (unsigned)offset - REG_DMA + i;
            value |= (byte < 8 ? SIGNATURE_DMA >> (56 - 8 * byte) & 0xff : 0) << (8 * i);
        }
        return value;
    }
    return 0;
}

static void fwcfg_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct fwcfg *fw = opaque;
    if (offset == REG_SELECTOR && size == 2) {
        fwcfg_select(fw, (uint16_t)value);
    } else if (offset == REG_DMA && size == 4) {
        fw->dma_high = be32toh((uint32_t)value);
    } else if (offset == REG_DMA + 4 && size == 4) {
        uint64_t addr = (uint64_t)fw->dma_high << 32 | be32toh((uint32_t)value);
        fw->dma_high = 0;
        fwcfg_dma(fw, addr);
    }
    /* Writes to the data port were removed from the interface long ago; other sizes do nothing. */
}

static const struct bus_ops fwcfg_ops = { .read = fwcfg_read, .write = fwcfg_write, .max_size = 4 };

static int set_item(struct item *it, const void *data, size_t len, struct err *err)
{
    if (len > FWCFG_ITEM_MAX) {
        return err_set(err, -EINVAL, "fw_cfg item of %zu bytes; at most 64 MiB", len);
    }
    it->data = malloc(MAX(len, (size_t)1));
    if (it->data == NULL) {
        return err_set(err, -ENOMEM, "no memory for a fw_cfg item of %zu bytes", len);
    }
    if (len > 0) {
        memcpy(it->data, data, len);
    }
    it->len = len;
    return 0;
}

int fwcfg_add_key(struct fwcfg *fw, uint16_t key, const void *data, size_t len, struct err *err)
{
    if (key >= KEY_FIRST_FILE || fw->item[key].data != NULL) {
        return err_set(err, -EINVAL, "fw_cfg key %#x is in use, or not below %#x", key,
                       KEY_FIRST_FILE);
    }
    return set_item(&fw->item[key], data, len, err);
}

int fwcfg_add_writable(struct fwcfg *fw, const char *name, const void *data, size_t len,
                       fwcfg_written_fn *written, void *opaque, struct err *err)
{
    struct item *dir = &fw->item[KEY_FILE_DIR];
    size_t name_len = strlen(name);
    if (name_len == 0 || name_len > FWCFG_NAME_MAX) {
        return err_set(err, -EINVAL, "fw_cfg file name '%s' has %zu characters; 1 to %d", name,
                       name_len, FWCFG_NAME_MAX);
    }
    if (fw->nfiles == FWCFG_MAX_FILES) {
        return err_set(err, -ENOSPC, "no room for fw_cfg file '%s': there are %d", name,
                       FWCFG_MAX_FILES);
    }
    for (unsigned i = 0; i < fw->nfiles; i++) {
        if (strcmp((const char *)dir->data + 4 + i * DIR_ENTRY + 8, name) == 0) {
            return err_set(err, -EEXIST, "fw_cfg file '%s' exists already", name);
        }
    }
    uint16_t key = (uint16_t)(KEY_FIRST_FILE + fw->nfiles);
    int rc = set_item(&fw->item[key], data, len, err);
    if (rc < 0) {
        return rc;
    }
    fw->item[key].written = written;
    fw->item[key].opaque = opaque;
    uint8_t *e = dir->data + 4 + fw->nfiles * DIR_ENTRY;
    be32_put(e, (uint32_t)len);
    be16_put(e + 4, key);
    memcpy(e + 8, name, name_len + 1);
    fw->nfiles++;
    be32_put(dir->data, fw->nfiles);
    dir->len = 4 + fw->nfiles * DIR_ENTRY;
    return 0;
}

int fwcfg_add_file(struct fwcfg *fw, const char *name, const void *data, size_t len,
                   struct err *err)
{
    return fwcfg_add_writable(fw, name, data, len, NULL, NULL, err);
}

static void fwcfg_reset(struct dev *dev)
{
    struct fwcfg *fw = dev->state;
    fwcfg_select(fw, 0);
    fw->dma_high = 0;
}

static void fwcfg_done(struct dev *dev)
{
    struct fwcfg *fw = dev->state;
    bus_unmap(&fw->region);
    for (unsigned i = 0; i < NUM_KEYS; i++) {
        free(fw->item[i].data);
    }
    dev->env->fwcfg = NULL;
}

static int fwcfg_init(struct dev *dev, const void *params, struct err *err)
{
    struct fwcfg *fw = dev->state;
    static const uint8_t dir[4 + FWCFG_MAX_FILES * DIR_ENTRY];
    uint8_t id[4];
    (void)params;
    fw->dev = dev;
    fw->region = (struct bus_region){ .name = "fwcfg",
                                      .size = LAYOUT_PORT_FWCFG_SIZE,
                                      .ops = &fwcfg_ops,
                                      .opaque = fw,
                                      .owner = dev };
    le32_put(id, ID_TRADITIONAL | ID_DMA);
    int rc = fwcfg_add_key(fw, KEY_SIGNATURE, "QEMU", 4, err);
    if (rc == 0) {
        rc = fwcfg_add_key(fw, KEY_ID, id, sizeof(id), err);
    }
    if (rc == 0) {
        rc = fwcfg_add_key(fw, KEY_FILE_DIR, dir, sizeof(dir), err);
        fw->item[KEY_FILE_DIR].len = 4;
    }
    if (rc == 0) {
        rc = bus_map(dev->env->pio, &fw->region, LAYOUT_PORT_FWCFG, err);
    }
    if (rc < 0) {
        fwcfg_done(dev);
        return rc;
    }
    dev->env->fwcfg = fw;
    return 0;
}

static int fwcfg_acpi(struct dev *dev, struct aml *a, struct err *err)
{
    (void)dev, (void)err;
    aml_scope(a, "\\_SB.PCI0"), aml_device(a, "FWCF");
    aml_name(a, "_HID"), aml_str(a, "QEMU0002");
    aml_name(a, "_STA"), aml_int(a, 0x0b); /* present, working, not shown to the user */
    aml_name(a, "_CRS"), aml_res_begin(a);
    aml_res_io(a, LAYOUT_PORT_FWCFG, LAYOUT_PORT_FWCFG, 1, LAYOUT_PORT_FWCFG_SIZE);
    aml_res_end(a);
    aml_end(a), aml_end(a);
    return 0;
}

const struct dev_class fwcfg_class = {
    .name = "fwcfg",
    .help = "firmware configuration device (fw_cfg) with DMA",
    .threading = DEV_SERIAL,
    .state_size = sizeof(struct fwcfg),
    .init = fwcfg_init,
    .done = fwcfg_done,
    .reset = fwcfg_reset,
    .acpi = fwcfg_acpi,
};
