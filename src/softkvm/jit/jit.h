/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The template JIT of a vCPU, as the rest of the engine sees it: docs/softkvm-jit.md.
 *
 * All calls on the vCPU's thread.
 */
#ifndef SOFTKVM_JIT_JIT_H
#define SOFTKVM_JIT_JIT_H

#include "softkvm/x86/cpu.h"

/* Executions after which the interpreter hands a block over, if nobody says otherwise. */
#define SK_JIT_HOT 16

/* Chooses for vCPUs created from now on; `hot`: executions before translation, 0 for the usual.
 * Before any call the environment variable SOFTKVM_JIT chooses: off, t1, or t1:HOT. */
void sk_jit_choose(bool on, unsigned hot);

/* The same from such a text. False: it is none. */
bool sk_jit_choose_text(const char *text);

/* Makes the JIT of a vCPU if it is chosen and the host can do it (FSGSBASE); else the interpreter
 * runs alone, which is never an error. */
void sk_jit_init(struct sk_vcpu *c);
void sk_jit_done(struct sk_vcpu *c);

/* Around the part of sk_run() that may execute guest code: the gs base is the vCPU's between them.
 * Returns what to give back. */
uint64_t sk_jit_enter(struct sk_vcpu *c);
void sk_jit_leave(struct sk_vcpu *c, uint64_t old);

/* Gives the thread's gs base back where sk_jit_leave() does not, because there it costs a system
 * call: for who uses it himself. */
void sk_jit_detach(void);

/* Runs translated code from CS:RIP on. True: something may need the loop's attention; false: at
 * CS:RIP there is nothing translated, the interpreter must do a block. May leave by longjmp as
 * instruction bodies do. */
bool sk_jit_run(struct sk_vcpu *c);

/* Translates the code at CS:RIP. False if it cannot be. */
bool sk_jit_translate(struct sk_vcpu *c);

/* `size` bytes within a page are about to be written: drops translations made of them. True if the
 * page still holds translated code. */
bool sk_jit_written(struct sk_vcpu *c, uint64_t gpa, unsigned size);

/* Drops all translations of a page. */
void sk_jit_drop(struct sk_vcpu *c, uint64_t gpa);

/* Drops everything. */
void sk_jit_flush(struct sk_vcpu *c);

/* Mode word of sk_jit_state.mode, from the interpreter's mode bits and the TLB set. */
uint32_t sk_jit_mode(const struct sk_vcpu *c, unsigned mode, unsigned set);

/* No token counts any more. */
static inline void sk_jit_forget(struct sk_vcpu *c)
{
    uint32_t *token = &c->jit.token[0][0];
    struct sk_jit_log *log = &c->jit.log;

    if (UNLIKELY(log->n > SK_JIT_LOG)) {
        memset(c->jit.token, 0, sizeof(c->jit.token));
    } else {
        for (unsigned i = 0; i < log->n; i++) {
            token[log->e[i]] = 0;
        }
    }
    log->n = 0;
}

/* Others may have written code: no token counts any more, the next entry to each page goes through
 * C and compares. */
static inline void sk_jit_epoch(struct sk_vcpu *c)
{
    c->jit.epoch++;
    sk_jit_forget(c);
}

/* While c->jit.replaying: `size` bytes at `at` are about to be stored; something comes that cannot
 * be taken back (does not return). */
void sk_jit_logged(struct sk_vcpu *c, uint8_t *at, unsigned size);
_Noreturn void sk_jit_unlogged(struct sk_vcpu *c);

/* Adds to a counter, of which the vCPU's thread is the only writer. */
static inline void sk_jit_count(_Atomic uint64_t *n, uint64_t by)
{
    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + by,
                          memory_order_relaxed);
}

#endif
