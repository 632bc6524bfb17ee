/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One instruction on the host. A stub, assembled by hand into the code page, loads the vector
 * state, flags and general registers from the state page, jumps to the instruction, and stores
 * everything back. Faults come as signals on an alternate stack: the handler takes the registers
 * from its context and continues at the end of the stub.
 */
#include <asm/prctl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "oracle.h"

/* The state page. */
struct native_page {
    uint64_t r[16];
    uint64_t rflags;
    uint64_t host_rsp;
    uint8_t pad[0x100 - 18 * 8];
    alignas(64) struct sk_xsave xs;
    alignas(64) struct sk_xsave host_xs;
};

static struct native_page *page;
static uint8_t *code;
static uint64_t exit_at, fault_at;
static volatile int fault_vec;
static volatile uint64_t fault_rip, fault_err, fault_cr2;
static const struct or_case *running;

struct emit {
    uint8_t *p;
};

static void emit(struct emit *e, const char *bytes, size_t n)
{
    memcpy(e->p, bytes, n);
    e->p += n;
}
#define EMIT(e, s) emit(e, s, sizeof(s) - 1)

static void emit_abs(struct emit *e, uint64_t addr)
{
    uint32_t v = (uint32_t)addr;

    memcpy(e->p, &v, 4);
    e->p += 4;
}

/* mov reg,[addr] (8b) or mov [addr],reg (89) */
static void emit_mov(struct emit *e, uint8_t op, unsigned reg, uint64_t addr)
{
    uint8_t b[4] = { (uint8_t)(0x48 | (reg >> 3) << 2), op, (uint8_t)((reg & 7) << 3 | 4), 0x25 };

    memcpy(e->p, b, 4);
    e->p += 4;
    emit_abs(e, addr);
}

#define AT(f) (OR_STATE + offsetof(struct native_page, f))

static void emit_entry(struct emit *e)
{
    EMIT(e, "\x53\x55\x41\x54\x41\x55\x41\x56\x41\x57"); /* push rbx rbp r12-r15 */
    emit_mov(e, 0x89, 4, AT(host_rsp));
    EMIT(e, "\x31\xd2\x8e\xda\x8e\xc2"); /* xor edx,edx; mov ds,edx; mov es,edx */
    EMIT(e, "\xb8\x07\x00\x00\x00");     /* mov eax,7 */
    EMIT(e, "\x48\x0f\xae\x2c\x25");     /* xrstor64 [xs] */
    emit_abs(e, AT(xs));
    EMIT(e, "\x48\xc7\xc4"); /* mov rsp,&rflags */
    emit_abs(e, AT(rflags));
    EMIT(e, "\x9d"); /* popfq */
    for (unsigned i = 0; i < 16; i++) {
        emit_mov(e, 0x8b, i, AT(r) + 8 * i);
    }
    EMIT(e, "\xe9"); /* jmp to the instruction */
    emit_abs(e, OR_INSN - (OR_CODE + (uint64_t)(e->p - code) + 4));
}

/* After the instruction; and where a fault goes on, with registers already taken. */
static void emit_exit(struct emit *e)
{
    exit_at = OR_CODE + (uint64_t)(e->p - code);
    for (unsigned i = 0; i < 16; i++) {
        emit_mov(e, 0x89, i, AT(r) + 8 * i);
    }
    EMIT(e, "\x48\xc7\xc4"); /* mov rsp,&rflags + 8 */
    emit_abs(e, AT(rflags) + 8);
    EMIT(e, "\x9c"); /* pushfq */
    fault_at = OR_CODE + (uint64_t)(e->p - code);
    EMIT(e, "\xb8\x07\x00\x00\x00\x31\xd2\x48\x0f\xae\x24\x25"); /* xsave64 [xs] */
    emit_abs(e, AT(xs));
    EMIT(e, "\x48\x0f\xae\x2c\x25"); /* xrstor64 [host_xs] */
    emit_abs(e, AT(host_xs));
    emit_mov(e, 0x8b, 4, AT(host_rsp));
    EMIT(e, "\x6a\x02\x9d"); /* push 2; popfq: no DF, no AC */
    EMIT(e, "\x41\x5f\x41\x5e\x41\x5d\x41\x5c\x5d\x5b\xc3");
}

static void native_signal(int sig, siginfo_t *si, void *ctx)
{
    ucontext_t *uc = ctx;
    greg_t *g = uc->uc_mcontext.gregs;
    static const uint8_t order[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                       REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                       REG_R12, REG_R13, REG_R14, REG_R15 };

    (void)si;
    /* EFLAGS.AC of the case is still set here, and C code need not be aligned. */
    __asm__ volatile("pushfq; andq $~0x40000,(%%rsp); popfq" ::: "memory", "cc");
    if ((uint64_t)g[REG_RIP] < OR_CODE || (uint64_t)g[REG_RIP] >= OR_CODE + 4096) {
        if (running) {
            fprintf(stderr, "%s:", running->row->name);
            for (unsigned i = 0; i < running->len; i++) {
                fprintf(stderr, " %02x", running->insn[i]);
            }
            fprintf(stderr, ": signal %d outside of the code page, at %llx\n", sig,
                    (unsigned long long)g[REG_RIP]);
        }
        signal(sig, SIG_DFL);
        return;
    }
    for (unsigned i = 0; i < 16; i++) {
        page->r[i] = (uint64_t)g[order[i]];
    }
    page->rflags = (uint64_t)g[REG_EFL];
    fault_vec = (int)g[REG_TRAPNO];
    fault_rip = (uint64_t)g[REG_RIP];
    fault_err = (uint64_t)g[REG_ERR];
    fault_cr2 = (uint64_t)g[REG_CR2];
    g[REG_EFL] = 0x202;
    g[REG_RIP] = (greg_t)fault_at;
    g[REG_RSP] = (greg_t)page->host_rsp; /* a non-canonical one could not be returned to */
}

static void *native_map(uint64_t at, size_t size, int prot)
{
    void *p =
        mmap((void *)at, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    if (p == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return p;
}

void or_native_init(void)
{
    static const int sigs[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP };
    static uint8_t stack[65536];
    stack_t ss = { .ss_sp = stack, .ss_size = sizeof(stack) };
    struct sigaction sa = { .sa_sigaction = native_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    struct emit e;
    uint8_t *ro;

    page = native_map(OR_STATE, sizeof(*page), PROT_READ | PROT_WRITE);
    code = native_map(OR_CODE, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
    ro = native_map(OR_WIN, OR_WIN_SIZE + 4096, PROT_READ | PROT_WRITE);
    ro += OR_WIN_SIZE;
    for (unsigned i = 0; i < 4096; i++) {
        ro[i] = or_ro_byte(i);
    }
    if (mprotect(ro, 4096, PROT_READ) || syscall(SYS_arch_prctl, ARCH_SET_GS, OR_GS_BASE)) {
        perror("or_native_init");
        exit(2);
    }
    memset(code, 0xcc, 4096);
    e.p = code;
    emit_entry(&e);
    emit_exit(&e);
    sigaltstack(&ss, NULL);
    for (unsigned i = 0; i < ARRAY_LEN(sigs); i++) {
        sigaction(sigs[i], &sa, NULL);
    }
    __asm__ volatile("xsave64 %0" : "+m"(page->host_xs) : "a"(7), "d"(0) : "memory");
}

void or_native_run(const struct or_case *k, struct or_state *ret)
{
    uint8_t *p = code + (OR_INSN - OR_CODE);
    uint32_t rel = (uint32_t)(exit_at - (OR_INSN + k->len + 5));

    memcpy(p, k->insn, k->len);
    if (!k->branch) {
        p[k->len] = 0xe9;
        memcpy(p + k->len + 1, &rel, 4);
    }
    memcpy(page->r, k->init.r, sizeof(page->r));
    page->rflags = k->init.rflags;
    page->xs = k->init.xs;
    memcpy((void *)OR_WIN, k->init.win, OR_WIN_SIZE);
    fault_vec = -1;
    running = k;
    ((void (*)(void))(uintptr_t)OR_CODE)();
    memcpy(ret->r, page->r, sizeof(ret->r));
    ret->rflags = page->rflags;
    ret->xs = page->xs;
    ret->vec = fault_vec;
    ret->rip = fault_vec < 0 ? OR_INSN + k->len : fault_rip;
    ret->err = fault_vec < 0 ? 0 : fault_err;
    ret->cr2 = fault_vec == 14 ? fault_cr2 : 0;
    if (fault_vec == 3) {
        ret->vec = -1;
        ret->err = 0;
        ret->rip--; /* where the INT3 stands */
    }
    memcpy(ret->win, (void *)OR_WIN, OR_WIN_SIZE);
    memset(p, 0xcc, sizeof(k->insn) + 5);
}
