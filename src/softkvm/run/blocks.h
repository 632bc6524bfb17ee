/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The cache of decoded blocks of a vCPU.
 *
 * A block is a run of instructions on one physical page, ended by a branch, by anything that
 * changes how later bytes decode, or by SK_BLOCK_MAX. It is keyed by physical address and mode and
 * knows nothing of the linear address, so it survives CR3 loads and serves all mappings.
 *
 *   jump cache: linear address of the next instruction -> block, valid for one epoch
 *   hash:       physical address, mode -> block
 *   pages:      physical page -> its blocks, and which 64-byte lines hold code
 *
 * Kept true to memory by:
 *  1. own stores: a page with code has no write entry in this vCPU's TLB (tlb.c), so the store
 * comes to sk_blocks_written(), which drops the page's blocks if it hits a line with code;
 *  2. stores by others (vCPUs, devices): a new epoch begins whenever the processor would have to be
 *     serialised for it to be seen (interrupts, CR writes, IRET, CPUID, ...) and on each sk_run();
 * the first use of a block in a new epoch compares its bytes with memory. Where the client counts
 * what it writes and there is one vCPU, an instruction need not begin one if nothing was written.
 */
#ifndef SOFTKVM_RUN_BLOCKS_H
#define SOFTKVM_RUN_BLOCKS_H

#include "softkvm/x86/decode.h"

#define SK_BLOCK_MAX 32
#define SK_JC_SIZE   4096
#define SK_HASH_SIZE 16384
/* Of decoded code a vCPU, half of it where the JIT has the hot part: of a Linux boot some 75 k
 * instructions of 40 bytes. */
#define SK_ARENA_SIZE (8 * MIB)

struct sk_block {
    uint64_t key;     /* physical address << 8 | mode */
    uint64_t checked; /* epoch in which the bytes were last compared */
    struct sk_block *hash_next;
    struct sk_block *page_next;
    const uint8_t *host; /* of the bytes in guest memory */
    uint16_t len;        /* in bytes */
    uint8_t n;           /* instructions */
    bool dead;
    uint16_t heat;  /* executions, up to the JIT's threshold */
    uint8_t *bytes; /* copy of the code */
    struct sk_insn insn[];
};

/* Mode bits of a key, as kept in the low byte of c->jkey. */
enum { SK_MODE_16 = 0, SK_MODE_32 = 1, SK_MODE_64 = 2, SK_MODE_USER = 4, SK_MODE_REAL = 8 };

MUST_USE int sk_blocks_init(struct sk_vcpu *c);
void sk_blocks_done(struct sk_vcpu *c);

/* Begins a new epoch, here and in the JIT: memory may have been written by others, vCPUs or
 * devices. At every event from outside. */
void sk_blocks_epoch(struct sk_vcpu *c);

/* The same in every instruction that serialises a processor (SDM 3A §8.3), unless it is known that
 * nobody has written. The row of such an instruction has A_END. */
void sk_blocks_serialise(struct sk_vcpu *c);

/* As sk_blocks_serialise(), and linear addresses mean something else than before. */
void sk_blocks_unmap(struct sk_vcpu *c);

/* A new epoch here alone: nothing in the jump cache counts, every block is compared before use. */
void sk_blocks_forget(struct sk_vcpu *c);

/* Drops everything (CPUID changed, arena full). */
void sk_blocks_flush(struct sk_vcpu *c);

/* The block at the current CS:RIP. Faults as the fetch does (#PF, #GP), #UD for what does not
 * decode. With `single`, one instruction that is valid only until the next call. */
struct sk_block *sk_blocks_get(struct sk_vcpu *c, bool single);

/* `size` bytes of physical memory, within one page, are about to be written. Drops blocks made of
 * them; sets c->leave if the running one is hit. True if the page still holds code. */
bool sk_blocks_written(struct sk_vcpu *c, uint64_t gpa, unsigned size);

/* The same for memory written behind the vCPU's back; on the vCPU's thread. */
void sk_blocks_invalidate(struct sk_vcpu *c, uint64_t gpa, uint64_t size);

#endif
