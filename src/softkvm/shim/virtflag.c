/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "softkvm/shim/virtflag.h"

#include <cpuid.h>
#include <link.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "softkvm/x86/decode.h"

#define MAX_PLACES 256 /* CPUID instructions in one program; a few dozen at most are seen */
#define PAGE       UINT64_C(4096)

static const uint8_t op_cpuid[2] = { 0x0f, 0xa2 };
static const uint8_t op_ud2[2] = { 0x0f, 0x0b };

/* Where they were. Written before main(), read in signal handlers. */
static uintptr_t places[MAX_PLACES];
static unsigned nplaces;

static void replace(uint8_t *at)
{
    uintptr_t page = (uintptr_t)at & ~(PAGE - 1);
    uintptr_t end = ((uintptr_t)at + sizeof(op_ud2) + PAGE - 1) & ~(PAGE - 1);
    if (nplaces == MAX_PLACES ||
        mprotect((void *)page, end - page, PROT_READ | PROT_WRITE | PROT_EXEC) < 0) {
        return;
    }
    places[nplaces++] = (uintptr_t)at;
    memcpy(at, op_ud2, sizeof(op_ud2));
    (void)mprotect((void *)page, end - page, PROT_READ | PROT_EXEC);
}

/* Decodes from the start, so that the two bytes inside another instruction are left alone. What
 * cannot be decoded (padding, data) is stepped over a byte at a time: the sweep is in step again
 * after a few instructions. */
static void sweep(uint8_t *code, size_t size)
{
    const struct sk_decode_env env = { .code_size = 8 };
    for (size_t at = 0; at < size;) {
        struct sk_insn in;
        unsigned left = (unsigned)(size - at < 15 ? size - at : 15);
        int len = sk_decode(&in, code + at, left, &env);
        if (len == (int)sizeof(op_cpuid) && memcmp(code + at, op_cpuid, sizeof(op_cpuid)) == 0) {
            replace(code + at);
        }
        at += len > 0 ? (size_t)len : 1;
    }
}

/* The first object is the program itself; libraries ask CPUID for other reasons. */
static int each_object(struct dl_phdr_info *info, size_t size, void *opaque)
{
    (void)size;
    (void)opaque;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type == PT_LOAD && (p->p_flags & PF_X) != 0) {
            sweep((uint8_t *)(info->dlpi_addr + p->p_vaddr), p->p_memsz);
        }
    }
    return 1;
}

unsigned virtflag_start(void)
{
    (void)dl_iterate_phdr(each_object, NULL);
    return nplaces;
}

bool virtflag_caught(void *context)
{
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    unsigned i = 0;
    while (i < nplaces && places[i] != (uintptr_t)r[REG_RIP]) {
        i++;
    }
    if (i == nplaces) {
        return false;
    }
    uint32_t leaf = (uint32_t)r[REG_RAX];
    uint32_t a;
    uint32_t b;
    uint32_t c;
    uint32_t d;
    __cpuid(0, a, b, c, d);
    bool amd = b == signature_AMD_ebx;
    __cpuid_count(leaf, (uint32_t)r[REG_RCX], a, b, c, d);
    if (leaf == 1 && !amd) {
        c |= 1u << 5; /* VMX */
    } else if (leaf == 0x80000001 && amd) {
        c |= 1u << 2; /* SVM */
    }
    r[REG_RAX] = a;
    r[REG_RBX] = b;
    r[REG_RCX] = c;
    r[REG_RDX] = d;
    r[REG_RIP] += (greg_t)sizeof(op_cpuid);
    return true;
}
