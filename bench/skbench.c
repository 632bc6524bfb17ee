/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Speed of the interpreter: guest instructions per second on small loops.
 *
 *     skbench [MILLIONS]
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

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

static const struct loop loops[] = {
    /* l: add rax,rcx; xor rdx,rax; lea rbx,[rax+rdx*2]; sub rcx,1; jnz l; jmp start */
    LOOP("alu", "\x48\xc7\xc1\x00\x00\x01\x00"
                "\x48\x01\xc8\x48\x31\xc2\x48\x8d\x1c\x50\x48\x83\xe9\x01\x75\xf0\xeb\xe7"),
    /* l: mov rax,[rsi+rcx*8]; add [rdi+rcx*8],rax; cmp rax,rdx; je x; dec ecx; jnz l */
    LOOP("memory", "\xbe\x00\x00\x01\x00\xbf\x00\x00\x02\x00\xb9\x00\x10\x00\x00"
                   "\x48\x8b\x04\xce\x48\x01\x04\xcf\x48\x39\xd0\x74\x00\xff\xc9\x75\xf0\xeb\xdf"),
    /* fib(20), recursive, over and over */
    LOOP("fib", "\xbf\x14\x00\x00\x00\xe8\x02\x00\x00\x00\xeb\xf4"
                "\x83\xff\x02\x7d\x03\x89\xf8\xc3\x53\x57\x83\xef\x01\xe8\xee\xff\xff\xff\x89\xc3"
                "\x5f\x83\xef\x02\xe8\xe3\xff\xff\xff\x01\xd8\x5b\xc3"),
};

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    uint64_t millions = argc > 1 ? strtoull(argv[1], NULL, 0) : 200;
    static struct bare b;

    bare_init(&b, 4 * MIB);
    for (unsigned i = 0; i < ARRAY_LEN(loops); i++) {
        double t;
        uint64_t n;

        bare_long(&b);
        bare_code(&b, 0x1000, loops[i].code, loops[i].len);
        n = b.c->insn_count;
        t = seconds();
        sk_run(b.c, millions * 1000000);
        t = seconds() - t;
        n = b.c->insn_count - n;
        printf("%-8s %8.1f MIPS (exit %d after %" PRIu64 " instructions)\n", loops[i].name,
               (double)n / t / 1e6, (int)b.c->exit.kind, n);
    }
    bare_done(&b);
    return 0;
}
