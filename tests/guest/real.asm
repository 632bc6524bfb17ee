; SPDX-License-Identifier: LGPL-2.1-or-later
; Real mode: interrupts, faults, unreal mode, strings, decimal arithmetic, code that changes itself,
; the timer through the PIC, single step, x87. See guest.inc.
%include "guest.inc"

; Runs an instruction that may fault; a handler goes on behind it.
%macro TRY 1+
    mov word [resume], %%behind
    %1
%%behind:
%endmacro

section .text
bits 32
main:
    lidt [real_idtr]
    jmp SEL_C16:pm16
real_idtr:
    dw 0x3ff
    dd 0

section .low
bits 16
pm16:
    mov ax, SEL_D16
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov ax, SEL_DATA            ; GS keeps its 4 GiB limit: unreal mode
    mov gs, ax
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    jmp 0:real

; A handler that records its number and where it was called from, and goes on at `resume`.
%macro HANDLER 1
handler%1:
    push bp
    mov bp, sp
    push eax
    RES %1
    mov eax, [bp + 2]           ; IP, CS
    RES eax
    mov ax, [resume]
    mov [bp + 2], ax
    pop eax
    pop bp
    iret
%endmacro
HANDLER 0
HANDLER 4
HANDLER 5
HANDLER 6
HANDLER 12
HANDLER 13

%macro VECTOR 2
    mov dword [%1 * 4], %2
%endmacro

step:                           ; vector 1: counts
    inc word [steps]
    iret

gate:                           ; vector 40h: records its frame
    push bp
    mov bp, sp
    mov eax, [bp + 2]
    RES eax
    movzx eax, word [bp + 6]
    RES eax
    pushf
    pop ax
    and eax, 0x300              ; TF and IF are clear in here
    RES eax
    pop bp
    iret

tick:                           ; IRQ 0
    push ax
    inc word [ticks]
    cmp word [ticks], 20
    jb .more
    mov al, 0xff                ; enough: no more of them
    out 0x21, al
.more:
    mov al, 0x20
    out 0x20, al
    pop ax
    iret

; EAX = a checksum of CX bytes at SI
checksum:
    xor eax, eax
    cld
.next:
    rol eax, 5
    xor al, [si]
    inc si
    loop .next
    ret

fill:                           ; 256 bytes at 8000h: 0, 7, 14...
    mov di, 0x8000
    xor ax, ax
.next:
    mov [di], al
    add al, 7
    inc di
    cmp di, 0x8100
    jne .next
    ret

real:
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov sp, 0x4f00
    VECTOR 0, handler0
    VECTOR 1, step
    VECTOR 4, handler4
    VECTOR 5, handler5
    VECTOR 6, handler6
    VECTOR 12, handler12
    VECTOR 13, handler13
    VECTOR 0x40, gate

    TEST 1                      ; INT n
    stc
    sti
    int 0x40
    cli
    FLAGS 0x201

    TEST 2                      ; faults and traps: the IP of each
    xor bx, bx
    mov ax, 1000
    TRY div bl
    mov ax, -32768
    mov cx, -1
    cwd
    TRY idiv cx
    mov ax, 9
    TRY bound ax, [limits]
    TRY ud2
    mov al, 0x7f
    add al, 1
    TRY into
    TRY db 0xf0, 0x90           ; LOCK NOP
    TRY sldt ax                 ; not recognised in real mode

    TEST 3                      ; unreal mode
    mov ebx, header
    mov eax, [gs:ebx]
    RES eax
    xor ax, ax
    mov gs, ax                  ; the limit stays
    mov eax, [gs:ebx + 4]
    RES eax

    TEST UNCHECKED              ; segment limits
    TRY mov eax, [0xfffd]
    TRY mov ax, [0xffff]
    mov bp, 0xffff
    TRY mov ax, [bp]
    mov ebx, header
    TRY mov eax, [fs:ebx]
    mov ebx, 0x10000
    TRY mov al, [ebx]
    mov al, [0xffff]            ; allowed

    TEST 5                      ; strings
    xor eax, eax
    call fill
    mov si, 0x8000
    mov di, 0x8003
    mov cx, 100
    rep movsb                   ; overlapping, upwards: repeats three bytes
    RES ecx
    mov ax, si
    RES eax
    mov si, 0x8000
    mov cx, 256
    call checksum
    RES eax
    call fill
    mov si, 0x80f0
    mov di, 0x80f8
    mov cx, 60
    std
    rep movsw
    cld
    mov si, 0x8000
    mov cx, 256
    call checksum
    RES eax
    call fill
    mov di, 0x8000
    mov cx, 300
    mov al, 70
    repne scasb
    movzx eax, di
    RES eax
    movzx eax, cx
    RES eax
    FLAGS 0x8d5
    mov si, 0x8000
    mov di, 0x8001
    mov cx, 10
    repe cmpsb
    FLAGS 0x8d5
    movzx eax, cx
    RES eax
    mov ax, 0x1000              ; SI wraps within its segment
    mov es, ax
    mov ds, ax
    mov word [0xfffe], 0x2211
    mov word [0], 0x4433
    mov si, 0xfffe
    mov di, 0x100
    mov cx, 4
    rep movsb
    mov eax, [0x100]
    mov bx, si
    xor cx, cx
    mov ds, cx
    mov es, cx
    RES eax
    movzx eax, bx
    RES eax
    mov cx, 0                   ; nothing is done
    rep stosb
    movzx eax, di
    RES eax

    TEST 6                      ; decimal arithmetic: results and the defined flags
    mov ax, 0x0f
    aaa
    RES eax
    FLAGS 0x11
    mov ax, 0x0203
    sub al, 9
    aas
    RES eax
    FLAGS 0x11
    mov ax, 79
    aam
    RES eax
    FLAGS 0xc4
    mov ax, 0x0709
    aad
    RES eax
    FLAGS 0xc4
    mov al, 0x79
    add al, 0x35
    daa
    movzx eax, al
    RES eax
    mov al, 0x35
    sub al, 0x79
    das
    pushf
    movzx eax, al
    RES eax
    popf
    FLAGS 0xd5
    mov al, 0xff
    stc
    salc_byte: db 0xd6
    movzx eax, al
    RES eax

    TEST 7                      ; code that changes itself
    mov cx, 5
    xor ebx, ebx
.again:
    mov word [.patched + 1], cx
.patched:
    mov ax, 0
    shl ebx, 4
    or bl, al
    loop .again
    RES ebx
    mov dx, 1
    mov byte [.next], 0x4a      ; inc dx becomes dec dx: the next instruction
    jmp .next
.next:
    inc dx
    movzx eax, dx
    RES eax

    TEST 8                      ; PIT through the PIC
    VECTOR 0x20, tick
    mov al, 0x11
    out 0x20, al
    mov al, 0x20
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0xfe
    out 0x21, al
    mov al, 0x34                ; channel 0, rate generator
    out 0x43, al
    mov al, 2386 & 255          ; 500 Hz
    out 0x40, al
    mov al, 2386 >> 8
    out 0x40, al
.wait:
    sti
    hlt
    cli
    cmp word [ticks], 20
    jb .wait
    movzx eax, word [ticks]
    RES eax
    mov al, 0x0b                ; in service: nothing after the EOI
    out 0x20, al
    in al, 0x20
    movzx eax, al
    RES eax
    in al, 0x21
    movzx eax, al
    RES eax

    TEST 9                      ; flags
    mov ax, 0xfcff
    push ax
    popf
    pushf
    pop ax
    movzx eax, ax
    RES eax
    push dword 0x00040202       ; AC
    popfd
    FLAGS 0x00040202
    push dword 2
    popfd
    FLAGS 0x00040202

    TEST 10                     ; single step
    push word 0x102
    popf
    nop
    mov ax, ss
    mov ss, ax                  ; no trap behind this one
    nop
    push word 2
    popf
    movzx eax, word [steps]
    RES eax

    TEST 11                     ; x87
    fninit
    fnstcw [scratch]
    movzx eax, word [scratch]
    RES eax
    fild word [seven]
    fild word [three]
    fdivp
    fstp tword [scratch]
    mov eax, [scratch]
    RES eax
    mov eax, [scratch + 4]
    RES eax
    movzx eax, word [scratch + 8]
    RES eax
    fldz
    fld1
    fdivrp                      ; 0 / 1, then 1 / 0
    fld1
    fxch
    fdivp
    fstp dword [scratch]
    mov eax, [scratch]
    RES eax
    fnstsw ax
    movzx eax, ax
    RES eax

    TEST 12                     ; shifts, and results of 8 and 16 bits keep the rest of a register
    mov eax, 0x12345678
    mov al, 0x99
    rol al, 3
    RES eax
    mov ax, 0x8001
    rcr ax, 1
    RES eax
    mov bx, 0x1234
    shld ax, bx, 4
    RES eax
    push word 0x1122
    push dword 0x33445566
    mov bp, sp
    mov eax, [bp]
    RES eax
    enter 8, 2
    mov ax, sp
    RES eax
    leave
    mov ax, sp
    RES eax

    cli
    o32 lgdt [low_gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword SEL_CODE:back
limits:  dw 1, 8
seven:   dw 7
three:   dw 3
low_gdtr: dw gdtr - gdt - 1
    dd gdt
scratch: times 16 db 0
ticks:   dw 0
steps:   dw 0
low_size equ $ - low_begin

section .text
bits 32
back:
    mov ax, SEL_DATA
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, stack_top
    jmp report
