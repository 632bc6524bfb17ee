/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ELF kernels with a PVH entry point (Xen docs/misc/pvh, start_info version 1): 32-bit protected
 * mode, paging off, EBX points to the start info. A Linux vmlinux with CONFIG_PVH is one.
 *
 *     LAYOUT_PVH_INFO: | start_info | module (initrd) | memory map |
 */
#include <errno.h>
#include <inttypes.h>

#include "spec/boot_defs.h"
#include "vmm/boot/boot_int.h"

#define INFO_MODULE (LAYOUT_PVH_INFO + 64)
#define INFO_MAP    (LAYOUT_PVH_INFO + 128)
_Static_assert(sizeof(struct boot_pvh_info) <= 64, "start_info lies before the module");
_Static_assert(128 + BOOT_MAX_MAP * sizeof(struct boot_pvh_mem) <= 4096, "one page");

static bool probe(const struct boot_req *req, const uint8_t *head, size_t len)
{
    uint64_t entry;
    struct err ignored = ERR_INIT; /* a broken ELF gets the general message of boot_load() */
    return boot_elf_magic(head, len) && boot_elf_pvh_entry(req->kernel, &entry, &ignored) > 0;
}

static int put_info(const struct boot_req *req, uint64_t initrd, struct err *err)
{
    struct boot_pvh_info info = {
        .magic = BOOT_PVH_MAGIC,
        .version = BOOT_PVH_VERSION,
        .cmdline_paddr = LAYOUT_CMDLINE,
        .rsdp_paddr = req->rsdp,
        .memmap_paddr = INFO_MAP,
    };
    int rc = 0;
    if (req->initrd != NULL) {
        struct boot_pvh_module module = { .paddr = initrd, .size = req->initrd->size };
        info.nr_modules = 1;
        info.modlist_paddr = INFO_MODULE;
        rc = boot_put(req, INFO_MODULE, &module, sizeof(module), err);
    }
    struct boot_range map[BOOT_MAX_MAP];
    info.memmap_entries = boot_map(req, map);
    for (unsigned i = 0; i < info.memmap_entries && rc == 0; i++) {
        struct boot_pvh_mem m = { .addr = map[i].base, .size = map[i].size, .type = map[i].type };
        rc = boot_put(req, INFO_MAP + i * sizeof(m), &m, sizeof(m), err);
    }
    if (rc == 0) {
        rc = boot_put(req, LAYOUT_PVH_INFO, &info, sizeof(info), err);
    }
    return rc;
}

static int load(const struct boot_req *req, struct boot_state *state, struct err *err)
{
    struct boot_elf elf;
    uint64_t entry = 0, end = 0, initrd = 0;

    int rc = boot_elf_open(req->kernel, &elf, err);
    if (rc == 0) {
        rc = boot_elf_pvh_entry(req->kernel, &entry, err);
    }
    if (rc >= 0) {
        rc = boot_elf_load(req, &elf, &end, err);
    }
    if (rc == 0) {
        rc = boot_check_range(req, entry, 1, "the PVH entry point", err);
    }
    if (rc == 0) {
        rc = boot_put_cmdline(req, LAYOUT_CMDLINE_MAX - 1, err);
    }
    if (rc == 0 && req->initrd != NULL) {
        rc = boot_put_initrd(req, end, 4 * GIB, &initrd, err);
    }
    if (rc == 0) {
        rc = put_info(req, initrd, err);
    }
    if (rc < 0) {
        return rc;
    }
    state->mode = BOOT_MODE_PROT32;
    state->entry = entry;
    state->rbx = LAYOUT_PVH_INFO;
    state->rsp = LAYOUT_BOOT_STACK;
    return boot_put_gdt(req, state->mode, err);
}

const struct boot_loader boot_pvh_loader = {
    .name = "pvh",
    .help = "ELF kernel with a PVH entry note",
    .probe = probe,
    .load = load,
};
