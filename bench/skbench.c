/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Speed of the engine: guest instructions per second on small loops, by the interpreter and by the
 * JIT.
 *
 *     skbench [MILLIONS [NAME]]
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "softkvm/jit/jit.h"
#include "softkvm/x86/bare.h"

struct loop {
    const char *name;
    const char *code;
    size_t len;
};

#define LOOP(name, code)                                                                           \
    {                                                                                              \
        name, code, sizeof(code) - 1                                                               \
    }
/* Each program does its work once and is begun again R15 times; then HLT. */
static const struct loop loops[] = {
    /* l: add rax,rcx; xor rdx,rax; lea rbx,[rax+rdx*2]; sub rcx,1; jnz l */
    LOOP("alu", "\x48\xc7\xc1\x00\x00\x01\x00"
                "\x48\x01\xc8\x48\x31\xc2\x48\x8d\x1c\x50\x48\x83\xe9\x01\x75\xf0"),
    /* l: mov rax,[rsi+rcx*8]; add [rdi+rcx*8],rax; cmp rax,rdx; je x; x: dec ecx; jnz l */
    LOOP("memory", "\xbe\x00\x00\x01\x00\xbf\x00\x00\x02\x00\xb9\x00\x10\x00\x00"
                   "\x48\x8b\x04\xce\x48\x01\x04\xcf\x48\x39\xd0\x74\x00\xff\xc9\x75\xf0"),
    /* mov edi,20; call fib; jmp end; fib: recursive; end: */
    LOOP("fib", "\xbf\x14\x00\x00\x00\xe8\x02\x00\x00\x00\xeb\x21"
                "\x83\xff\x02\x7d\x03\x89\xf8\xc3\x53\x57\x83\xef\x01\xe8\xee\xff\xff\xff\x89\xc3"
                "\x5f\x83\xef\x02\xe8\xe3\xff\xff\xff\x01\xd8\x5b\xc3"),
    /* mov esi,10000h; mov ecx,1000h; l: mulsd xmm0,[rsi]; addsd xmm0,xmm1; movsd [rsi+8],xmm0;
     * dec ecx; jnz l */
    LOOP("sse", "\xbe\x00\x00\x01\x00\xb9\x00\x10\x00\x00\xf2\x0f\x59\x06\xf2\x0f\x58\xc1"
                "\xf2\x0f\x11\x46\x08\xff\xc9\x75\xef"),
    /* mov esi,10000h; mov ecx,1000h; fninit; l: fld qword [rsi]; fadd st0,st0; fstp qword [rsi+8];
     * dec ecx; jnz l */
    LOOP("x87",
         "\xdb\xe3\xbe\x00\x00\x01\x00\xb9\x00\x10\x00\x00\xdd\x06\xd8\xc0\xdd\x5e\x08\xff\xc9\x75"
         "\xf5"),
};

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void load(struct bare *b, const struct loop *l, uint64_t rounds)
{
    uint8_t code[256];
    int32_t back = -(int32_t)(l->len + 9);

    memcpy(code, l->code, l->len);
    memcpy(code + l->len, "\x49\xff\xcf\x0f\x85", 5); /* dec r15; jnz start; hlt */
    memcpy(code + l->len + 5, &back, 4);
    code[l->len + 9] = 0xf4;
    bare_long(b);
    bare_code(b, 0x1000, code, l->len + 10);
    b->c->r[SK_R15] = rounds;
    b->c->cr4 |= 0x600;
}

/* Instructions of one round. */
static uint64_t count(const struct loop *l)
{
    static struct bare b;
    uint64_t n;

    sk_jit_choose(false, 0);
    bare_init(&b, 4 * MIB);
    load(&b, l, 1);
    sk_run(b.c, 0);
    n = b.c->insn_count;
    bare_done(&b);
    return n;
}

static double measure(const struct loop *l, bool jit, uint64_t rounds)
{
    static struct bare b;
    double t;

    sk_jit_choose(jit, 0);
    bare_init(&b, 4 * MIB);
    load(&b, l, rounds);
    t = seconds();
    sk_run(b.c, 0);
    t = seconds() - t;
    if (b.c->exit.kind != SK_EXIT_HLT) {
        printf("%s: exit %d\n", l->name, (int)b.c->exit.kind);
    }
    if (jit && getenv("SKBENCH_STATS")) {
        const struct sk_jit_stats *st = &b.c->jit.st;

        printf("\n  translations %" PRIu64 " instructions %" PRIu64 " bytes %" PRIu64
               " fallbacks %" PRIu64 " enters %" PRIu64 " tokens %" PRIu64 " links %" PRIu64
               " drops %" PRIu64 "\n",
               st->translations, st->instructions, st->bytes, st->bodies, st->enters, st->tokens,
               st->links, st->drops);
    }
    bare_done(&b);
    return t;
}

int main(int argc, char **argv)
{
    uint64_t millions = argc > 1 ? strtoull(argv[1], NULL, 0) : 200;

    printf("%-8s %12s %12s\n", "MIPS", "interpreter", "t1");
    for (unsigned i = 0; i < ARRAY_LEN(loops); i++) {
        uint64_t n, rounds;

        if (argc > 2 && strcmp(argv[2], loops[i].name) != 0) {
            continue;
        }
        n = count(&loops[i]);
        rounds = millions * 1000000 / n + 1;
        printf("%-8s %12.1f", loops[i].name,
               (double)(n * (rounds / 8 + 1)) / measure(&loops[i], false, rounds / 8 + 1) / 1e6);
        fflush(stdout);
        printf(" %12.1f\n", (double)(n * rounds) / measure(&loops[i], true, rounds) / 1e6);
    }
    return 0;
}
