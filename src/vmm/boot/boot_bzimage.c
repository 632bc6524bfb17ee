/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Linux bzImage through its 64-bit entry point, or its 32-bit one when it has no other (i386
 * kernels): boot protocol 2.12 and later (Documentation/x86/boot.rst "64-bit Boot Protocol",
 * "32-bit Boot Protocol", Linux 6.1).
 *
 *     file: | boot sector + setup, (setup_sects + 1) * 512 | protected-mode kernel, syssize * 16 |
 *     RAM:  load ........ load + init_size = what the kernel needs until it reads the memory map
 *
 * We load at the kernel's preferred address when RAM reaches that far, else (relocatable kernels)
 * at the lowest aligned address. For the 64-bit entry the first 4 GiB are mapped one to one with
 * 2 MiB pages; the 32-bit entry has paging off.
 */
#include <errno.h>
#include <inttypes.h>

#include "spec/boot_defs.h"
#include "vmm/boot/boot_int.h"

#define PTE_TABLE UINT64_C(0x03) /* present, writable */
#define PTE_LARGE UINT64_C(0x83) /* and page size: 2 MiB */
#define MAX_ALIGN GIB            /* of a sane kernel_alignment */
#define SECTOR    UINT64_C(512)

struct bz {
    uint8_t zp[BOOT_ZP_SIZE]; /* the zero page being built; holds the file's header */
    uint64_t code_offset;
    uint64_t code_size;
    uint64_t load;
    uint64_t init_size;
    bool entry64;
};

static bool probe(const struct boot_req *req, const uint8_t *head, size_t len)
{
    (void)req;
    return len >= BOOT_HDR_MAGIC + 4 && le16_get(head + BOOT_HDR_BOOT_FLAG) == BOOT_FLAG_VALUE &&
           le32_get(head + BOOT_HDR_MAGIC) == BOOT_MAGIC_HDRS;
}

/* Reads and checks the header; fills bz->zp and where the kernel proper lies in the file. */
static int read_header(const struct boot_req *req, struct bz *bz, struct err *err)
{
    const struct boot_file *k = req->kernel;
    uint8_t hdr[BOOT_ZP_HDR_END] = { 0 };
    int rc = boot_read(k, 0, hdr, BOOT_HDR_READ_END, err);
    if (rc < 0) {
        return rc;
    }
    unsigned version = le16_get(hdr + BOOT_HDR_VERSION);
    if (version < BOOT_VERSION_MIN) {
        return err_set(err, -EINVAL,
                       "'%s' speaks boot protocol %u.%02u; 2.12 or later is needed (Linux 3.8)",
                       k->name, version >> 8, version & 0xff);
    }
    bz->entry64 = (le16_get(hdr + BOOT_HDR_XLOADFLAGS) & BOOT_XLF_KERNEL_64) != 0;
    if ((hdr[BOOT_HDR_LOADFLAGS] & BOOT_LOADED_HIGH) == 0) {
        return err_set(err, -EINVAL, "'%s' is a zImage; only bzImage kernels can be booted",
                       k->name);
    }
    /* boot.rst: setup_sects 0 means 4. */
    uint64_t sects = hdr[BOOT_HDR_SETUP_SECTS] != 0 ? hdr[BOOT_HDR_SETUP_SECTS] : 4;
    bz->code_offset = (sects + 1) * SECTOR;
    bz->code_size = (uint64_t)le32_get(hdr + BOOT_HDR_SYSSIZE) * 16;
    /* The size is rounded up to 16 bytes, and the file need not be padded. */
    if (bz->code_size < (bz->entry64 ? BOOT_ENTRY64_OFFSET : 0) + 16 ||
        bz->code_offset + bz->code_size - 15 > k->size) {
        return err_set(err, -EINVAL,
                       "'%s' is truncated: its header announces %" PRIu64 " bytes, it has %" PRIu64,
                       k->name, bz->code_offset + bz->code_size, k->size);
    }
    bz->code_size = MIN(bz->code_size, k->size - bz->code_offset);

    size_t end = BOOT_HDR_MAGIC + (size_t)hdr[BOOT_HDR_JUMP_LEN];
    end = MIN(end, (size_t)BOOT_ZP_HDR_END);
    if (end < BOOT_HDR_READ_END) {
        return err_set(err, -EINVAL,
                       "'%s' has a setup header of %zu bytes, too short for protocol"
                       " %u.%02u",
                       k->name, end - BOOT_HDR_START, version >> 8, version & 0xff);
    }
    rc = boot_read(k, BOOT_HDR_START, bz->zp + BOOT_HDR_START, end - BOOT_HDR_START, err);
    return rc;
}

/* Chooses bz->load so that init_size bytes fit in RAM. */
static int place(const struct boot_req *req, struct bz *bz, struct err *err)
{
    const uint8_t *zp = bz->zp;
    uint64_t pref = le64_get(zp + BOOT_HDR_PREF_ADDRESS);
    uint64_t align = le32_get(zp + BOOT_HDR_ALIGN);
    uint64_t end;

    bz->init_size = MAX((uint64_t)le32_get(zp + BOOT_HDR_INIT_SIZE), bz->code_size);
    bz->load = pref;
    bool fits = pref >= LAYOUT_KERNEL_MIN && !ckd_add(&end, pref, bz->init_size) &&
                end <= req->layout->low_ram.end;
    if (!fits && zp[BOOT_HDR_RELOCATABLE] != 0) {
        if (!bits_is_pow2(align) || align > MAX_ALIGN) {
            return err_set(err, -EINVAL,
                           "'%s' asks for an alignment of %#" PRIx64
                           " bytes, which is no power of two up to 1 GiB",
                           req->kernel->name, align);
        }
        bz->load = bits_align_up(LAYOUT_KERNEL_MIN, align);
    }
    return boot_check_range(req, bz->load, bz->init_size, "the kernel", err);
}

static int put_page_tables(const struct boot_req *req, struct err *err)
{
    uint8_t page[4096] = { 0 };

    le64_put(page, LAYOUT_BOOT_PDPT | PTE_TABLE);
    int rc = boot_put(req, LAYOUT_BOOT_PML4, page, sizeof(page), err);
    for (unsigned i = 0; i < LAYOUT_BOOT_PD_COUNT; i++) {
        le64_put(page + i * 8, (LAYOUT_BOOT_PD + i * 4096) | PTE_TABLE);
    }
    if (rc == 0) {
        rc = boot_put(req, LAYOUT_BOOT_PDPT, page, sizeof(page), err);
    }
    for (unsigned i = 0; i < LAYOUT_BOOT_PD_COUNT && rc == 0; i++) {
        for (unsigned j = 0; j < 512; j++) {
            le64_put(page + j * 8, (i * GIB + j * 2 * MIB) | PTE_LARGE);
        }
        rc = boot_put(req, LAYOUT_BOOT_PD + i * 4096, page, sizeof(page), err);
    }
    return rc;
}

/* boot.rst "SETUP_RNG_SEED": the guest's random generator starts seeded. */
static int put_seed(const struct boot_req *req, uint8_t *zp, struct err *err)
{
    uint8_t node[BOOT_SETUP_DATA_HEADER + BOOT_SEED_LEN] = { 0 };
    le32_put(node + 8, BOOT_SETUP_RNG_SEED);
    le32_put(node + 12, BOOT_SEED_LEN);
    memcpy(node + BOOT_SETUP_DATA_HEADER, req->seed, BOOT_SEED_LEN);
    le64_put(zp + BOOT_HDR_SETUP_DATA, LAYOUT_SETUP_DATA);
    return boot_put(req, LAYOUT_SETUP_DATA, node, sizeof(node), err);
}

static void put_e820(const struct boot_req *req, uint8_t *zp)
{
    struct boot_range map[BOOT_MAX_MAP];
    unsigned n = boot_map(req, map);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *e = zp + BOOT_ZP_E820 + i * BOOT_ZP_E820_SIZE;
        le64_put(e, map[i].base);
        le64_put(e + 8, map[i].size);
        le32_put(e + 16, map[i].type);
    }
    zp[BOOT_ZP_E820_COUNT] = (uint8_t)n;
}
_Static_assert(BOOT_MAX_MAP <= BOOT_ZP_E820_MAX, "the zero page's table holds our map");

static int put_initrd(const struct boot_req *req, struct bz *bz, struct err *err)
{
    uint64_t base;
    uint64_t limit = (uint64_t)le32_get(bz->zp + BOOT_HDR_RD_MAX) + 1;
    int rc = boot_put_initrd(req, bz->load + bz->init_size, limit, &base, err);
    if (rc < 0) {
        return rc;
    }
    le32_put(bz->zp + BOOT_HDR_RD_IMAGE, (uint32_t)base);
    le32_put(bz->zp + BOOT_HDR_RD_SIZE, (uint32_t)req->initrd->size);
    return 0;
}

static int load(const struct boot_req *req, struct boot_state *state, struct err *err)
{
    struct bz bz = { 0 };
    int rc = read_header(req, &bz, err);
    if (rc == 0) {
        rc = place(req, &bz, err);
    }
    if (rc == 0) {
        rc = boot_copy(req, req->kernel, bz.code_offset, GPA(bz.load), bz.code_size, err);
    }
    if (rc == 0) {
        rc = boot_put_cmdline(req, le32_get(bz.zp + BOOT_HDR_CMDLINE_SIZE), err);
    }
    if (rc == 0 && req->initrd != NULL) {
        rc = put_initrd(req, &bz, err);
    }
    if (rc == 0) {
        rc = put_seed(req, bz.zp, err);
    }
    if (rc < 0) {
        return rc;
    }
    bz.zp[BOOT_HDR_LOADER] = BOOT_LOADER_UNDEFINED;
    le16_put(bz.zp + BOOT_HDR_VID_MODE, BOOT_VID_MODE_NORMAL);
    le32_put(bz.zp + BOOT_HDR_CMDLINE, (uint32_t)LAYOUT_CMDLINE);
    le64_put(bz.zp + BOOT_ZP_RSDP, req->rsdp);
    put_e820(req, bz.zp);

    state->mode = bz.entry64 ? BOOT_MODE_LONG64 : BOOT_MODE_PROT32;
    state->entry = bz.load + (bz.entry64 ? BOOT_ENTRY64_OFFSET : 0);
    state->rsi = LAYOUT_ZERO_PAGE;
    state->rsp = LAYOUT_BOOT_STACK;
    rc = boot_put(req, LAYOUT_ZERO_PAGE, bz.zp, sizeof(bz.zp), err);
    if (rc == 0 && bz.entry64) {
        rc = put_page_tables(req, err);
    }
    if (rc == 0) {
        rc = boot_put_gdt(req, state->mode, err);
    }
    return rc;
}

const struct boot_loader boot_bzimage_loader = {
    .name = "bzimage",
    .help = "Linux bzImage, x86-64 or i386 (boot protocol 2.12 or later)",
    .probe = probe,
    .load = load,
};
