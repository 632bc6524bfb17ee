/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Numbers and wire structures of the boot protocols: Linux/x86 boot protocol 2.15
 * (Documentation/x86/boot.rst, zero-page.rst, Linux 6.1), PVH (Xen hvm/start_info.h, version 1),
 * Multiboot specification 0.6.96.
 *
 * Linux structures are given as offsets into the "zero page", which is 4 KiB.
 */
#ifndef SPEC_BOOT_DEFS_H
#define SPEC_BOOT_DEFS_H

#include <stdint.h>

/* E820 types; PVH and multiboot use the same numbers. */
#define BOOT_E820_RAM      1
#define BOOT_E820_RESERVED 2
#define BOOT_E820_ACPI     3

/* Zero page (struct boot_params) */
#define BOOT_ZP_SIZE         4096
#define BOOT_ZP_RSDP         0x070 /* u64 acpi_rsdp_addr */
#define BOOT_ZP_EXT_RD_IMAGE 0x0c0 /* u32 */
#define BOOT_ZP_EXT_RD_SIZE  0x0c4 /* u32 */
#define BOOT_ZP_EXT_CMDLINE  0x0c8 /* u32 */
#define BOOT_ZP_E820_COUNT   0x1e8 /* u8 */
#define BOOT_ZP_SENTINEL     0x1ef /* u8, 0 when the loader cleared the page */
#define BOOT_ZP_E820         0x2d0 /* 20 bytes each: u64 base, u64 size, u32 type */
#define BOOT_ZP_E820_MAX     128
#define BOOT_ZP_E820_SIZE    20
#define BOOT_ZP_HDR_END      0x290 /* the setup header never reaches this (edd_mbr_sig_buffer) */

/* Setup header: offsets in the file and in the zero page alike */
#define BOOT_HDR_START        0x1f1
#define BOOT_HDR_SETUP_SECTS  0x1f1 /* u8 */
#define BOOT_HDR_SYSSIZE      0x1f4 /* u32, 16-byte units */
#define BOOT_HDR_VID_MODE     0x1fa /* u16 */
#define BOOT_HDR_BOOT_FLAG    0x1fe /* u16 */
#define BOOT_HDR_JUMP_LEN     0x201 /* u8: the header ends at 0x202 + this */
#define BOOT_HDR_MAGIC        0x202 /* u32 */
#define BOOT_HDR_VERSION      0x206 /* u16 */
#define BOOT_HDR_LOADER       0x210 /* u8 type_of_loader */
#define BOOT_HDR_LOADFLAGS    0x211 /* u8 */
#define BOOT_HDR_RD_IMAGE     0x218 /* u32 */
#define BOOT_HDR_RD_SIZE      0x21c /* u32 */
#define BOOT_HDR_CMDLINE      0x228 /* u32 */
#define BOOT_HDR_RD_MAX       0x22c /* u32 initrd_addr_max: highest byte's address */
#define BOOT_HDR_ALIGN        0x230 /* u32 kernel_alignment */
#define BOOT_HDR_RELOCATABLE  0x234 /* u8 */
#define BOOT_HDR_XLOADFLAGS   0x236 /* u16 */
#define BOOT_HDR_CMDLINE_SIZE 0x238 /* u32, without the terminator */
#define BOOT_HDR_SETUP_DATA   0x250 /* u64 */
#define BOOT_HDR_PREF_ADDRESS 0x258 /* u64 */
#define BOOT_HDR_INIT_SIZE    0x260 /* u32 */
#define BOOT_HDR_READ_END     0x268 /* what we need of the header */

#define BOOT_FLAG_VALUE        0xaa55
#define BOOT_MAGIC_HDRS        0x53726448 /* "HdrS" */
#define BOOT_VERSION_MIN       0x020c     /* 2.12: xloadflags, 64-bit entry */
#define BOOT_LOADED_HIGH       0x01
#define BOOT_XLF_KERNEL_64     0x0001
#define BOOT_LOADER_UNDEFINED  0xff
#define BOOT_VID_MODE_NORMAL   0xffff
#define BOOT_ENTRY64_OFFSET    0x200
#define BOOT_SETUP_RNG_SEED    9
#define BOOT_SETUP_DATA_HEADER 16 /* u64 next, u32 type, u32 len */

/* PVH */
#define BOOT_XEN_NOTE_PHYS32_ENTRY 18
#define BOOT_PVH_MAGIC             0x336ec578u
#define BOOT_PVH_VERSION           1

struct boot_pvh_info {
    uint32_t magic;
    uint32_t version;
    uint32_t flags;
    uint32_t nr_modules;
    uint64_t modlist_paddr;
    uint64_t cmdline_paddr;
    uint64_t rsdp_paddr;
    uint64_t memmap_paddr;
    uint32_t memmap_entries;
    uint32_t reserved;
};
_Static_assert(sizeof(struct boot_pvh_info) == 56, "start_info version 1");

struct boot_pvh_module {
    uint64_t paddr;
    uint64_t size;
    uint64_t cmdline_paddr;
    uint64_t reserved;
};
_Static_assert(sizeof(struct boot_pvh_module) == 32, "hvm_modlist_entry");

struct boot_pvh_mem {
    uint64_t addr;
    uint64_t size;
    uint32_t type;
    uint32_t reserved;
};
_Static_assert(sizeof(struct boot_pvh_mem) == 24, "hvm_memmap_table_entry");

/* Multiboot 1 */
#define BOOT_MB_SEARCH        8192 /* the header lies whole within the first 8 KiB */
#define BOOT_MB_HEADER_MAGIC  0x1badb002u
#define BOOT_MB_LOADER_MAGIC  0x2badb002u
#define BOOT_MB_F_PAGE_ALIGN  0x00000001u
#define BOOT_MB_F_MEMORY      0x00000002u
#define BOOT_MB_F_REQUIRED    0x0000ffffu /* unknown ones of these must be refused */
#define BOOT_MB_F_ADDRESSES   0x00010000u
#define BOOT_MB_I_MEMORY      0x00000001u
#define BOOT_MB_I_CMDLINE     0x00000004u
#define BOOT_MB_I_MODS        0x00000008u
#define BOOT_MB_I_MMAP        0x00000040u
#define BOOT_MB_I_LOADER_NAME 0x00000200u

struct boot_mb_header {
    uint32_t magic;
    uint32_t flags;
    uint32_t checksum;
    uint32_t header_addr;
    uint32_t load_addr;
    uint32_t load_end_addr;
    uint32_t bss_end_addr;
    uint32_t entry_addr;
};
_Static_assert(sizeof(struct boot_mb_header) == 32, "without the video fields");

struct boot_mb_info {
    uint32_t flags;
    uint32_t mem_lower; /* KiB */
    uint32_t mem_upper; /* KiB above 1 MiB */
    uint32_t boot_device;
    uint32_t cmdline;
    uint32_t mods_count;
    uint32_t mods_addr;
    uint32_t syms[4];
    uint32_t mmap_length;
    uint32_t mmap_addr;
    uint32_t drives_length;
    uint32_t drives_addr;
    uint32_t config_table;
    uint32_t boot_loader_name;
    uint32_t apm_table;
    uint32_t vbe[4];
};
_Static_assert(sizeof(struct boot_mb_info) == 88, "through the VBE fields");

struct boot_mb_module {
    uint32_t start;
    uint32_t end;
    uint32_t string;
    uint32_t reserved;
};

#define BOOT_MB_MMAP_ENTRY 24 /* u32 size (20), u64 base, u64 length, u32 type */

#endif
