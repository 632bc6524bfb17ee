; SPDX-License-Identifier: LGPL-2.1-or-later
; Protected mode: faults and error codes, segments, rings, call gates, task switches, virtual 8086
; mode, 32-bit paging and PAE. See guest.inc.
%include "guest.inc"

; Runs an instruction that may fault; the handler comes back behind it in ring 0, flat segments.
%macro TRY 1+
    mov [kernesp], esp
    mov dword [resume], %%behind
    %1
%%behind:
%endmacro

; SELECTOR number, low dword, high dword of a descriptor
%macro DESC 3
    mov dword [gdt + %1], %2
    mov dword [gdt + %1 + 4], %3
%endmacro

; A segment of base 0x8000 and limit 0xfff (bytes) of access byte %2
%macro SMALL 2
    DESC %1, 0x80000fff, 0x00400000 | %2 << 8
%endmacro

; Sets base (an address below 16 MiB) in a descriptor
%macro TSSDESC 2
    mov eax, %2
    mov edx, eax
    shl edx, 16
    or edx, 103
    mov [gdt + %1], edx
    shr eax, 16
    or eax, 0x8900
    mov [gdt + %1 + 4], eax
%endmacro

SEL_SMALL equ SEL_FREE          ; data, limit 0xfff
SEL_DOWN  equ SEL_FREE + 8      ; data, expands down: offsets above 0xfff
SEL_GONE  equ SEL_FREE + 16     ; not present
SEL_RO    equ SEL_FREE + 24     ; read only
SEL_XO    equ SEL_FREE + 32     ; execute only
SEL_GATE  equ SEL_FREE + 40     ; call gate, ring 3 may use it, two parameters
SEL_TSS1  equ SEL_FREE + 48
SEL_TSS2  equ SEL_FREE + 56
SEL_TGATE equ SEL_FREE + 64     ; task gate to the second
TABLES    equ 0x200000

section .text
bits 32
; Entry points of the vectors: error code, number.
%assign n 0
%rep 32
vector%[n]:
%if n == 8 || (n >= 10 && n <= 14) || n == 17
%else
    push dword 0
%endif
    push dword n
    jmp fault
%assign n n + 1
%endrep
vectors:
%assign n 0
%rep 32
    dd vector%[n]
%assign n n + 1
%endrep

; Records number, error code, EIP, CS and VM; goes on at `resume`.
fault:
    mov eax, SEL_DATA
    mov ds, ax
    mov es, ax
    mov ebp, esp
    mov eax, [ebp]
    RES eax
    mov eax, [ebp + 4]
    RES eax
    mov eax, [ebp + 8]
    RES eax
    movzx eax, word [ebp + 12]
    mov edx, [ebp + 16]
    and edx, 0x20000
    or eax, edx
    RES eax
    mov esp, [kernesp]
    jmp [resume]

; Vector 80h, from ring 3: the way back.
leave3:
    mov eax, SEL_DATA
    mov ds, ax
    mov es, ax
    mov eax, [esp + 4]
    RES eax                     ; CS
    mov esp, [kernesp]
    jmp [resume]

set_idt:
    mov edi, idt
    mov esi, vectors
    mov ecx, 32
.next:
    lodsd
    call idt_entry
    loop .next
    mov edi, idt + 0x80 * 8
    mov eax, leave3
    call idt_entry
    mov byte [idt + 0x80 * 8 + 5], 0xee
    mov byte [idt + 3 * 8 + 5], 0xee        ; INT3, INTO from ring 3
    mov byte [idt + 4 * 8 + 5], 0xee
    lidt [idtr]
    ret
idt_entry:                      ; a 32-bit interrupt gate to EAX at EDI
    stosw
    mov word [edi], SEL_CODE
    mov word [edi + 2], 0x8e00
    shr eax, 16
    mov [edi + 4], ax
    add edi, 6
    ret

main:
    call set_idt
    SMALL SEL_SMALL, 0x93
    DESC SEL_DOWN, 0x80000fff, 0x00409700
    SMALL SEL_GONE, 0x13
    SMALL SEL_RO, 0x91
    SMALL SEL_XO, 0x99
    mov eax, gate
    and eax, 0xffff
    or eax, SEL_CODE << 16
    mov [gdt + SEL_GATE], eax
    mov eax, gate
    mov ax, 0xec02
    mov [gdt + SEL_GATE + 4], eax
    TSSDESC SEL_TSS1, tss1
    TSSDESC SEL_TSS2, tss2
    DESC SEL_TGATE, SEL_TSS2 << 16, 0x8500
    mov ax, SEL_TSS1
    ltr ax
    mov eax, [gdt + SEL_TSS1 + 4]           ; busy now
    TEST 1
    RES eax

    TEST 2                      ; exceptions without an error code
    xor ecx, ecx
    mov eax, 5
    TRY div ecx
    TRY ud2
    TRY int3
    mov al, 0x7f
    add al, 1
    TRY into
    TRY bound eax, [limits]
    TEST UNCHECKED | 2
    TRY db 0xf1                 ; INT1
    TEST 2
    TRY int 0x81                ; beyond the IDT: #GP with its number
    TRY int 14                  ; a gate with DPL 0, from ring 0: no error code is pushed

    TEST 3                      ; segments
    mov ax, SEL_SMALL
    mov fs, ax
    mov al, [fs:0xfff]
    mov ax, SEL_DOWN
    mov fs, ax
    mov al, [fs:0x1000]
    mov ax, SEL_RO
    mov fs, ax
    mov al, [fs:0]
    TEST UNCHECKED | 3
    TRY mov [fs:0], al
    TEST 3
    xor ax, ax
    mov fs, ax
    TEST UNCHECKED | 3
    TRY mov al, [fs:0]
    TEST 3
    mov ax, 0x1230
    TRY mov fs, ax
    mov ax, SEL_GONE
    TRY mov fs, ax
    mov ax, SEL_GONE
    TRY mov ss, ax
    mov ax, SEL_XO
    TRY mov fs, ax
    mov ax, SEL_RO
    TRY mov ss, ax
    xor ax, ax
    TRY mov ss, ax
    TRY mov cs, ax
    TRY jmp SEL_DATA:0
    TRY jmp SEL_GONE:0
    TRY jmp 0:0
    TRY call SEL_UC:user

    TEST 4                      ; LAR, LSL, VERR, VERW
    mov ecx, SEL_SMALL
    lar eax, ecx
    RES eax
    lsl eax, ecx
    RES eax
    mov ecx, SEL_DATA
    lsl eax, ecx
    RES eax
    mov ecx, SEL_GATE
    lar eax, ecx
    RES eax
    lsl eax, ecx
    FLAGS 0x40
    mov ecx, SEL_RO
    verr cx
    FLAGS 0x40
    verw cx
    FLAGS 0x40
    mov ax, SEL_XO
    verr ax
    FLAGS 0x40
    mov ax, SEL_UD & ~3
    mov cx, 3
    arpl ax, cx
    movzx eax, ax
    RES eax

    TEST 5                      ; ring 3, a call gate, back by an interrupt
    mov [kernesp], esp
    mov dword [resume], .ring0
    push dword SEL_UD
    push dword user_stack_top
    push dword 0x202
    push dword SEL_UC
    push dword user
    mov eax, SEL_UD
    mov ds, ax
    mov es, ax
    iretd
.ring0:
    mov ax, ds
    movzx eax, ax
    RES eax
    mov edx, user_cli           ; one privileged instruction after the other
    call in_ring3
    mov edx, user_in
    call in_ring3
    mov edx, user_hlt
    call in_ring3
    mov edx, user_cr
    call in_ring3
    mov edx, user_int
    call in_ring3
    mov edx, user_ss
    call in_ring3
    mov edx, user_popf
    call in_ring3

    TEST 6                      ; tasks: by CALL and back by IRET, by JMP through a gate and back
    mov eax, cr0
    and al, ~8
    mov cr0, eax
    call SEL_TSS2:0
    mov eax, cr0
    RES eax
    clts
    FLAGS 0x4000
    mov eax, [gdt + SEL_TSS2 + 4]
    RES eax
    movzx eax, word [tss2]
    RES eax
    mov eax, [tss2_eip]
    RES eax
    jmp SEL_TGATE:0
    FLAGS 0x4000
    str ax
    movzx eax, ax
    RES eax
    TRY jmp SEL_TSS1:0          ; busy
    clts

    TEST 7                      ; virtual 8086 mode
    mov edx, v86_int
    call in_v86
    mov edx, v86_cli
    call in_v86
    mov edx, v86_hlt
    call in_v86
    mov edx, v86_lgdt
    call in_v86
    mov edx, v86_work
    call in_v86
    mov eax, [0x8010]
    RES eax
    mov eax, [0x8014]
    RES eax

    TEST UNCHECKED
    mov ax, SEL_SMALL
    mov fs, ax
    TRY mov al, [fs:0x1000]
    TRY mov eax, [fs:0xffd]
    TRY mov [fs:0xffffffff], al
    mov ax, SEL_DOWN
    mov fs, ax
    TRY mov al, [fs:0xfff]
    xor eax, eax
    mov fs, ax
    mov edx, v86_limit
    call in_v86

    TEST 8                      ; paging with 4 KiB pages: linear 4 MiB up is a table of its own
    mov edi, TABLES
    xor eax, eax
    mov ecx, 0x8000 / 4
    rep stosd
    mov dword [TABLES], 0x83                ; 4 MiB page
    mov dword [TABLES + 4], TABLES + 0x1000 + 7
    mov dword [TABLES + 0x1000], 0x300000 + 1           ; supervisor, read only
    mov dword [TABLES + 0x1008], 0x301000 + 3           ; writable
    mov dword [TABLES + 0x100c], 0x302000 + 7           ; user
    mov eax, cr4
    or al, 0x10
    mov cr4, eax
    mov eax, TABLES
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010000          ; PG, WP
    mov cr0, eax
    mov dword [0x402000], 0x12345678
    mov al, [0x403000]
    mov eax, [0x301000]
    RES eax
    TRY mov [0x400000], eax
    mov eax, cr2
    RES eax
    TRY mov eax, [0x400ffe]
    mov eax, cr2
    RES eax
    TRY mov [0x401004], eax
    mov esi, 0x405000
    TRY jmp esi
    mov eax, cr2
    RES eax
    mov eax, cr0
    and eax, ~0x10000           ; without WP
    mov cr0, eax
    mov [0x400010], eax
    mov eax, [TABLES]           ; accessed, dirty
    RES eax
    mov eax, [TABLES + 4]
    RES eax
    mov eax, [TABLES + 0x1000]
    RES eax
    mov eax, [TABLES + 0x1008]
    RES eax
    mov eax, [TABLES + 0x100c]
    RES eax
    mov edx, user_read          ; user code in a supervisor page
    mov dword [user_at], 0x402000
    call in_ring3
    mov dword [TABLES], 0x87    ; now a user page
    mov eax, cr3
    mov cr3, eax
    mov edx, user_read
    call in_ring3
    mov eax, cr2
    RES eax
    mov edx, user_read
    mov dword [user_at], 0x403000
    call in_ring3

    TEST 9                      ; PAE with NX
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov dword [TABLES + 0x2000], TABLES + 0x3000 + 1    ; first GiB
    mov dword [TABLES + 0x3000], 0x83                   ; 2 MiB pages
    mov dword [TABLES + 0x3008], 0x200083
    mov dword [TABLES + 0x3010], TABLES + 0x4000 + 3
    mov dword [TABLES + 0x4000], 0x300003
    mov dword [TABLES + 0x4004], 0x80000000             ; NX
    mov dword [TABLES + 0x4008], 0x301003
    mov dword [TABLES + 0x4010], 0x302003
    mov dword [TABLES + 0x4014], 0x00100000             ; a reserved bit
    mov byte [0x300000], 0xc3
    mov byte [0x301000], 0xc3
    mov eax, cr4
    or al, 0x20
    mov cr4, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x800
    wrmsr
    mov eax, TABLES + 0x2000
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    mov esi, 0x401000
    call esi
    mov esi, 0x400000
    TRY call esi
    mov eax, cr2
    RES eax
    TEST UNCHECKED | 9
    TRY mov al, [0x402000]
    TEST 9
    TRY mov al, [0x40000000]    ; no directory pointer
    mov eax, [TABLES + 0x3010]
    RES eax
    mov eax, [TABLES + 0x4000]
    RES eax
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    jmp report

; Runs the ring 3 code at EDX; comes back from its fault or from int 80h.
in_ring3:
    mov [kernesp], esp
    mov dword [resume], .back
    push dword SEL_UD
    push dword user_stack_top
    push dword 2
    push dword SEL_UC
    push edx
    mov eax, SEL_UD
    mov ds, ax
    mov es, ax
    iretd
.back:
    ret

; The same in virtual 8086 mode, CS = 100h (section .low), stack as in real mode.
in_v86:
    mov [kernesp], esp
    mov dword [resume], .back
    push dword 0x10             ; GS, FS, DS, ES
    push dword 0x20
    push dword 0x800
    push dword 0x800
    push dword 0
    push dword 0x4f00
    push dword 0x20002
    push dword 0x100
    sub edx, 0x1000
    push edx
    iretd
.back:
    ret

user:                           ; CPL 3, interrupts on
    mov ax, cs
    movzx eax, ax
    RES eax
    FLAGS 0x3200
    push dword 0x1111
    push dword 0x2222
    call SEL_GATE:0
    RES esp
    int 0x80
user_cli:
    cli
user_in:
    in al, 0x21
user_hlt:
    hlt
user_cr:
    mov eax, cr0
user_int:
    int 14                      ; #GP: the gate has DPL 0
user_ss:
    mov ax, SEL_DATA
    mov ss, ax
user_popf:                      ; IF and IOPL do not change
    push dword 0x3202
    popfd
    FLAGS 0x3200
    int 0x80
user_read:
    mov eax, [user_at]
    mov eax, [eax]
    int 0x80

; Behind the call gate: ring 0 with two parameters copied from the caller's stack.
gate:
    mov ax, cs
    movzx eax, ax
    RES eax
    mov ebp, esp
    mov eax, [ebp + 4]          ; the caller's CS
    RES eax
    mov eax, [ebp + 8]
    RES eax
    mov eax, [ebp + 12]
    RES eax
    mov eax, [ebp + 16]         ; its ESP
    RES eax
    mov eax, [ebp + 20]
    RES eax
    retf 8

task2:
    FLAGS 0x4000                ; NT: nested by CALL
    movzx eax, word [tss2]      ; the way back
    RES eax
    mov eax, [gdt + SEL_TSS1 + 4]
    RES eax
    mov eax, [gdt + SEL_TSS2 + 4]
    RES eax
    str ax
    movzx eax, ax
    RES eax
    mov eax, [tss1_esp]
    sub eax, stack_top
    RES eax
    clts
    iretd
    FLAGS 0x4000                ; here by the jump through the task gate
    clts
    jmp SEL_TSS1:0

align 16
tss1:
    dd 0, kernel_stack_top, SEL_DATA
    times 8 dd 0                ; SS1.. EFLAGS, EAX
    times 3 dd 0
tss1_esp: dd 0
    times 11 dd 0
    dd 103 << 16
tss2:
    dd 0, 0, 0, 0, 0, 0, 0, 0
tss2_eip: dd task2, 2
    dd 1, 2, 3, 4, task_stack_top, 6, 7, 8
    dd SEL_DATA, SEL_CODE, SEL_DATA, SEL_DATA, SEL_DATA, SEL_DATA, 0
    dd 103 << 16
limits: dd 6, 9
user_at: dd 0
idtr:
    dw 0x81 * 8 - 1
    dd idt
align 16
idt: times 0x81 dq 0
    times 1024 db 0
kernel_stack_top:
    times 1024 db 0
task_stack_top:

section .low
bits 16
v86_int:
    int 0x21
v86_cli:
    cli
v86_hlt:
    hlt
v86_limit:
    mov ax, [0xffff]
v86_lgdt:
    lgdt [0]
v86_work:                       ; DS = 800h
    mov word [0x10], 0x1234
    mov ax, fs
    mov [0x12], ax
    mov ax, cs
    mov [0x14], ax
    push ds
    pop ax
    mov [0x16], ax
    xor ax, ax
    mov ds, ax
    int 0x80                    ; IOPL 0: #GP
low_size equ $ - low_begin
