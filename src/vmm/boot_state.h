/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a boot loader tells the vCPUs: in which state the first of them begins. The others wait for
 * INIT/SIPI in the engine's LAPIC. Loaders (boot/) fill it, vcpu.c turns it into registers.
 */
#ifndef VMM_BOOT_STATE_H
#define VMM_BOOT_STATE_H

#include "base/bits.h"

enum boot_mode {
    /* The power-on state: real mode at f000:fff0, base 0xffff0000 (SDM 3A §9.1.4). `entry` and the
     * registers are not used. */
    BOOT_MODE_RESET,
    /* Real mode at entry = segment << 16 | offset; flat segments otherwise 0. */
    BOOT_MODE_REAL16,
    /* Protected mode, flat 4 GiB segments, no paging, interrupts off: PVH, multiboot 1 and
     * Linux's 32-bit entry. The
     * selectors are LAYOUT_BOOT_CS/DS; the loader has put a GDT with these at LAYOUT_BOOT_GDT. */
    BOOT_MODE_PROT32,
    /* Long mode with the loader's page tables at LAYOUT_BOOT_PML4 (4 GiB identity), else as
     * PROT32: Linux's 64-bit entry. */
    BOOT_MODE_LONG64,
};

struct boot_state {
    enum boot_mode mode;
    uint64_t entry; /* guest physical address of the first instruction */
    uint64_t rax;   /* multiboot 1: 0x2badb002 */
    uint64_t rbx;   /* PVH, multiboot 1: address of the information */
    uint64_t rsi;   /* bzImage: the zero page */
    uint64_t rsp;   /* 0 = LAYOUT_BOOT_STACK in modes with a stack */
};

#endif
