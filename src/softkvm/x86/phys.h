/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guest physical memory: the list of slots as the engine sees it. The ioctl layer builds a new
 * struct sk_memmap at each change, publishes it in vm->memmap (release), sets SK_POLL_TLB on all
 * vCPUs, waits until the bit is gone or the vCPU is outside sk_run(), and only then frees
 * the old one.
 *
 * There are two of them, as KVM has two address spaces: a vCPU in SMM sees vm->memmap_smm.
 *
 * An address in no slot is device memory; so is a write to a read-only slot (KVM api.rst 4.35).
 */
#ifndef SOFTKVM_X86_PHYS_H
#define SOFTKVM_X86_PHYS_H

#include "softkvm/x86/cpu.h"

enum { SK_SLOT_READONLY = 1, SK_SLOT_LOG = 2 };

struct sk_slot {
    uint64_t gpa;  /* page aligned */
    uint64_t size; /* page aligned, > 0 */
    uint8_t *host;
    uint32_t flags;
    uint32_t id;
    /* Dirty log: one bit a page, set with relaxed atomics before the page gets a write entry. */
    _Atomic uint64_t *dirty;
    /* Pages whose host memory has been found there, for reads and for writes: a bit each; NULL if
     * the client vouches for it. */
    _Atomic uint64_t *seen[2];
    /* Dirty ring or other listener: called when a bit goes from 0 to 1. May be NULL. */
    void (*on_dirty)(struct sk_vcpu *c, struct sk_slot *s, uint64_t page);
};

struct sk_memmap {
    unsigned n;
    struct sk_slot slot[]; /* sorted by gpa, not overlapping */
};

/* True if the kernel can tell whether memory is there (Linux 5.14): else no slot gets `seen`. */
bool sk_phys_can_look(void);

/* The slot that holds `gpa`, or NULL. Valid until the next poll of this vCPU. */
struct sk_slot *sk_phys_slot(struct sk_vcpu *c, uint64_t gpa);

/* Host pointer of RAM at gpa (`write`: writable, marked dirty), or NULL if not RAM. Good up to the
 * end of its page. Where the client has mapped nothing, the instruction is left with
 * SK_EXIT_BAD_MEMORY; NULL outside of sk_run(). */
uint8_t *sk_phys_ptr(struct sk_vcpu *c, uint64_t gpa, bool write);

/* The same for what the machine itself writes (clocks, EOI word): of the normal address space even
 * in SMM, and NULL where there is no memory. */
uint8_t *sk_phys_ptr_normal(struct sk_vcpu *c, uint64_t gpa, bool write);

/* Copies; what is not RAM reads as ones and ignores writes. For page tables, INIT tables, debugger:
 * not for instruction operands. */
void sk_phys_read(struct sk_vcpu *c, uint64_t gpa, void *buf, size_t len);
void sk_phys_write(struct sk_vcpu *c, uint64_t gpa, const void *buf, size_t len);

/* Device access of an instruction: in place, from the log of reads done, or leaves the instruction
 * (fault.h) with SK_EXIT_MMIO; writes are queued and exit after the instruction. len 1 to 8, within
 * one page. Larger or odd sizes are cut into pieces of 8, 4, 2, 1. */
void sk_mmio_read(struct sk_vcpu *c, uint64_t gpa, void *buf, unsigned len);
void sk_mmio_write(struct sk_vcpu *c, uint64_t gpa, const void *buf, unsigned len);

#endif
