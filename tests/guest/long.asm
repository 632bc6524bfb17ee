; SPDX-License-Identifier: LGPL-2.1-or-later
; Long and compatibility mode: faults, canonical addresses, rings by SYSCALL and IRETQ, the IST,
; SWAPGS, paging with four levels, SSE state. See guest.inc.
%include "guest.inc"

%macro TRY 1+
    mov [kernesp], rsp
    mov dword [resume], %%behind
    %1
%%behind:
%endmacro

%macro RES64 1
    mov rax, %1
    RES eax
    shr rax, 32
    RES eax
%endmacro

SEL_TSS equ SEL_FREE            ; 16 bytes
TABLES  equ 0x200000
HIGH     equ 0xffff800000000000  ; a page mapped high up

section .text
bits 32
main:
    mov edi, TABLES
    xor eax, eax
    mov ecx, 0x8000 / 4
    rep stosd
    mov dword [TABLES], TABLES + 0x1007
    mov dword [TABLES + 256 * 8], TABLES + 0x4007
    mov dword [TABLES + 0x1000], TABLES + 0x2007
    mov dword [TABLES + 0x2000], 0x87       ; 2 MiB pages, user
    mov dword [TABLES + 0x2008], 0x200083
    mov dword [TABLES + 0x4000], TABLES + 0x5007
    mov dword [TABLES + 0x5000], TABLES + 0x6007
    mov dword [TABLES + 0x6000], 0x300007
    mov dword [TABLES + 0x6008], 0x300005
    mov dword [TABLES + 0x600c], 0x80000000 ; NX
    mov eax, cr4
    or eax, 0x620               ; PAE, OSFXSR, OSXMMEXCPT
    mov cr4, eax
    mov eax, TABLES
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x901               ; NXE, LME, SCE
    wrmsr
    mov eax, cr0
    and al, ~0xc                ; EM, TS
    or eax, 0x80010022          ; PG, WP, NE, MP
    mov cr0, eax
    mov ecx, 0xc0000080
    rdmsr
    TEST 1
    RES eax                     ; LMA
    jmp SEL_C64:long_mode

bits 64
%assign n 0
%rep 32
vector%[n]:
%if n == 8 || (n >= 10 && n <= 14) || n == 17
%else
    push qword 0
%endif
    push qword n
    jmp fault
%assign n n + 1
%endrep
vectors:
%assign n 0
%rep 32
    dd vector%[n]
%assign n n + 1
%endrep

; Records number, error code, RIP, CS; goes on at `resume`.
fault:
    mov rbp, rsp
    mov eax, [rbp]
    RES eax
    mov eax, [rbp + 8]
    RES eax
    mov rax, [rbp + 16]
    RES64 rax
    mov eax, [rbp + 24]
    RES eax
    mov rsp, [kernesp]
    mov eax, [resume]
    jmp rax

leave3:                         ; vector 80h, on its own stack by the IST
    mov eax, [rsp + 8]
    RES eax
    lea rax, [rsp + 40]
    sub rax, ist_top
    RES eax
    mov rsp, [kernesp]
    mov eax, [resume]
    jmp rax

long_mode:
    mov edi, idt
    mov esi, vectors
    mov ecx, 32
.next:
    lodsd
    call idt_entry
    loop .next
    mov edi, idt + 0x80 * 16
    mov eax, leave3
    call idt_entry
    mov word [idt + 0x80 * 16 + 4], 0xee01  ; DPL 3, IST 1
    lidt [idtr]
    mov eax, tss
    mov edx, eax
    shl edx, 16
    or edx, 103
    mov [gdt + SEL_TSS], edx
    shr eax, 16
    or eax, 0x8900
    mov [gdt + SEL_TSS + 4], eax
    mov eax, SEL_TSS
    ltr ax

    TEST 2                      ; faults
    xor ecx, ecx
    xor edx, edx
    mov eax, 5
    TRY div ecx
    TRY ud2
    TRY int3
    TRY db 0x06                 ; PUSH ES is not there
    TRY db 0xf0, 0x01, 0xc0     ; LOCK on a register
    mov rbx, 0x0000800000000000
    TRY mov al, [rbx]
    mov rbp, rbx
    TEST UNCHECKED | 2
    TRY mov al, [rbp]           ; through SS
    TEST 2
    mov rbx, -1
    shr rbx, 17
    TRY mov rax, [rbx]          ; runs out of the lower half
    mov rbx, 0x0000800000000000
    TEST UNCHECKED | 2
    TEST UNCHECKED | 2
    TRY jmp rbx
    TEST 2
    TEST 2
    TRY push rbx
    mov ax, 0x1230
    TRY mov ds, ax
    xor eax, eax
    mov ss, ax                  ; allowed in ring 0
    mov eax, SEL_DATA
    mov ss, ax
    mov ecx, 0xc0000080
    xor edx, edx
    mov eax, 0x80000000
    TRY wrmsr
    mov rax, 1
    shl rax, 63
    TRY mov cr0, rax
    xor eax, eax
    TRY mov cr8, rax
    mov rax, 16
    TEST UNCHECKED | 2
    TRY mov cr8, rax
    TEST 2

    TEST 3                      ; arithmetic: what is left of the upper halves
    mov rax, -1
    mov eax, eax
    RES64 rax
    mov rax, -1
    mov ax, 5
    RES64 rax
    mov rax, 0x8000000000000001
    imul rax, rax, -3
    RES64 rax
    mov rax, 0x123456789abcdef0
    mov rdx, 0x0fedcba987654321
    mov rcx, 0x1fffffffffffffff
    div rcx
    RES64 rax
    RES64 rdx
    mov rax, 0x123456789abcdef0
    bswap rax
    rol rax, 13
    RES64 rax
    mov rax, 0x8000
    bsf rcx, rax
    RES ecx
    movsx rax, ax
    RES64 rax
    mov ecx, 1
    mov rbx, -1
    xor eax, eax
    cmovc ebx, ecx              ; not done, yet the upper half is cleared
    RES64 rbx
    mov rax, 2
    mov rdx, 1
    mov rbx, 5
    mov rcx, 6
    mov [pair], rax
    mov [pair + 8], rdx
    lock cmpxchg16b [pair]
    RES64 qword [pair]
    FLAGS 0x40
    xor eax, eax
    lock cmpxchg16b [pair]
    FLAGS 0x40
    RES edx

    TEST 4                      ; compatibility mode
    mov r15, 0x1122334455667788
    push qword SEL_CODE
    push qword compat
    retfq
bits 32
compat:
    mov eax, 0x40               ; 40h is INC EAX here
    db 0x40
    RES eax
    push dword 1
    add esp, 4
    mov eax, esp
    sub eax, stack_top
    RES eax
    mov ebx, 0xfffffffc         ; addresses wrap at 4 GiB
    mov eax, [ebx + 4 + header]
    RES eax
    jmp SEL_C64:again
bits 64
again:
    RES64 r15

    TEST 5                      ; SWAPGS, FS base
    mov ecx, 0xc0000101
    mov eax, pair
    xor edx, edx
    wrmsr
    mov ecx, 0xc0000102
    mov eax, 0x100000
    wrmsr
    mov eax, [gs:0]
    RES eax
    swapgs
    mov eax, [gs:0]
    RES eax
    rdmsr
    sub eax, pair
    RES eax
    mov ecx, 0xc0000100
    mov eax, 0
    mov edx, 0x8000
    TEST UNCHECKED | 5
    TRY wrmsr                   ; not canonical
    TEST 5
    mov ecx, 0xc0000100
    mov eax, 0
    mov edx, 0xffff8000
    wrmsr
    mov dword [fs:0x10], 0x5a5a5a5a
    mov rbx, HIGH
    mov eax, [rbx + 0x10]
    RES eax

    TEST 6                      ; paging
    mov rbx, HIGH
    TRY mov [rbx + 0x1000], eax             ; read only, WP
    mov rax, cr2
    RES64 rax
    mov rbx, HIGH + 0x1000
    TRY jmp rbx                             ; NX
    TRY mov al, [rbx + 0x1000]              ; nothing there
    TRY mov rax, [rbx + 0xffc]              ; half of it there
    mov rax, cr2
    RES64 rax
    RES64 qword [TABLES + 0x6000]
    RES64 qword [TABLES + 0x6008]

    TEST 7                      ; rings
    mov ecx, 0xc0000081
    xor eax, eax
    mov edx, (SEL_UC - 0) << 16 | SEL_CODE  ; SYSRET: CS + 16, SS + 8
    wrmsr
    mov ecx, 0xc0000082
    mov eax, syscalled
    xor edx, edx
    wrmsr
    mov ecx, 0xc0000084
    mov eax, 0x200
    wrmsr
    mov [kernesp], rsp
    mov dword [resume], .ring0
    push qword SEL_UD
    push qword user_stack_top
    push qword 0x202
    push qword SEL_UC64
    push qword user
    iretq
.ring0:
    mov rdx, user_hlt
    call in_ring3
    mov rdx, user_wrmsr
    call in_ring3
    mov rdx, user_kernel
    call in_ring3
    mov rax, cr2
    RES64 rax

    TEST 8                      ; SSE, and FXSAVE of it
    mov eax, 0x1f80
    mov [pair], eax
    ldmxcsr [pair]
    mov eax, 7
    cvtsi2sd xmm0, eax
    mov eax, 3
    cvtsi2sd xmm1, eax
    divsd xmm0, xmm1
    movq rbx, xmm0
    RES64 rbx
    stmxcsr [pair]
    mov eax, [pair]
    RES eax                     ; inexact
    sqrtsd xmm2, xmm1
    movq rbx, xmm2
    RES64 rbx
    xorps xmm3, xmm3
    divss xmm1, xmm3
    stmxcsr [pair]
    mov eax, [pair]
    RES eax
    mov dword [pair], 0x1f80 & ~0x200       ; division by zero is not masked
    ldmxcsr [pair]
    mov eax, 1
    cvtsi2ss xmm4, eax
    TEST UNCHECKED | 8
    TRY divss xmm4, xmm3
    xorps xmm4, xmm4
    TEST 8
    pshufd xmm5, xmm0, 0x1b
    paddd xmm5, xmm2
    pmullw xmm5, xmm0
    fninit
    fldpi
    fld1
    fxsave64 [area]
    mov esi, area               ; control and status words, tags
    lodsd
    RES eax
    lodsd
    and eax, 0xff
    RES eax
    mov esi, area + 32          ; ST0 to ST7, XMM0 to XMM5
    mov ecx, (128 + 6 * 16) / 4
    xor edx, edx
.sum:
    lodsd
    rol edx, 3
    xor edx, eax
    loop .sum
    RES edx
    pxor xmm0, xmm0
    mov dword [area + 24], 0x10000
    TEST UNCHECKED | 8
    TRY fxrstor64 [area]        ; a reserved bit of MXCSR
    TEST 8
    mov rax, cr0
    or al, 8
    mov cr0, rax
    TRY movaps xmm0, xmm1       ; #NM
    clts
    TRY movaps xmm0, [area + 8] ; not aligned

    jmp dword far [.out]        ; compatibility mode, then paging off
.out:
    dd off
    dw SEL_CODE
bits 32
off:
    mov ax, SEL_DATA
    mov ss, ax
    mov ds, ax
    mov es, ax
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    jmp report

bits 64
in_ring3:
    mov [kernesp], rsp
    mov dword [resume], .back
    push qword SEL_UD
    push qword user_stack_top
    push qword 2
    push qword SEL_UC64
    push rdx
    iretq
.back:
    ret

user:
    mov ecx, cs
    RES ecx
    syscall
    mov ecx, cs                 ; back from it
    RES ecx
    mov ecx, ss
    RES ecx
    FLAGS 0x200
    int 0x80
user_hlt:
    hlt
user_wrmsr:
    wrmsr
user_kernel:
    mov eax, [TABLES]

syscalled:
    mov ebx, cs
    RES ebx
    mov ebx, ss
    RES ebx
    sub ecx, user
    RES ecx                     ; RIP
    add ecx, user
    mov rbx, r11
    RES ebx
    FLAGS 0x200
    o64 sysret

idt_entry:                      ; an interrupt gate to EAX at RDI
    stosw
    mov word [rdi], SEL_C64
    mov word [rdi + 2], 0x8e00
    shr eax, 16
    mov [rdi + 4], ax
    mov dword [rdi + 6], 0
    mov dword [rdi + 10], 0
    add rdi, 14
    ret

align 16
pair: dq 0, 0
tss:
    dd 0
    dq kernel_stack_top, 0, 0
    dq 0
    dq ist_top
    times 7 dq 0
    dd 104 << 16
idtr:
    dw 0x81 * 16 - 1
    dq idt
align 16
idt: times 0x81 * 2 dq 0
area: times 512 db 0
    times 1024 db 0
kernel_stack_top:
    times 1024 db 0
ist_top:

section .low
low_size equ $ - low_begin
