; SPDX-License-Identifier: LGPL-2.1-or-later
; Several processors: INIT and SIPI, locked arithmetic on one counter, interrupts from processor to
; processor, a page changed by one and seen by the others. Wants 4 vCPUs. See guest.inc.
%include "guest.inc"

LAPIC  equ 0xfee00000
CPUS   equ 4
ROUNDS equ 20000

; Waits until dword %1 has the value %2.
%macro UNTIL 2
%%wait:
    pause
    cmp dword [%1], %2
    jne %%wait
%endmacro

section .text
bits 32
main:
    mov edi, idt + 0x50 * 8
    mov eax, called
    call idt_entry
    mov edi, idt + 0x51 * 8
    mov eax, tick
    call idt_entry
    lidt [idtr]
    or dword [LAPIC + 0xf0], 0x1ff          ; enabled, spurious vector ffh
    mov dword [LAPIC + 0x310], 0
    mov dword [LAPIC + 0x300], 0xc4500      ; INIT to all others
    mov ecx, 20000                          ; some time
.pause:
    pause
    loop .pause
    mov dword [LAPIC + 0x300], 0xc4600 | 0x1000 >> 12       ; SIPI
    mov dword [LAPIC + 0x300], 0xc4600 | 0x1000 >> 12       ; a second one does nothing

    TEST 1                      ; all are here, each with its number
    UNTIL here, CPUS - 1
    mov eax, [ids]
    RES eax
    mov eax, [here]
    RES eax

    TEST 2                      ; LOCK ADD, XADD, INC and XCHG as a lock
    mov dword [go], 1
    call work
    UNTIL done, CPUS
    mov eax, [counter]
    RES eax
    mov eax, [counter2]
    RES eax
    mov eax, [counter3]
    RES eax
    mov eax, [plain]
    RES eax

    TEST 3                      ; a fixed interrupt to all others, then to one, then to oneself
    mov dword [LAPIC + 0x300], 0xc4050
    UNTIL calls, CPUS - 1
    mov dword [LAPIC + 0x310], 2 << 24
    mov dword [LAPIC + 0x300], 0x4050
    UNTIL calls, CPUS
    mov eax, [called_ids]
    RES eax
    sti
    mov dword [LAPIC + 0x300], 0x44050
    UNTIL calls, CPUS + 1
    cli
    mov eax, [calls]
    RES eax
    mov eax, [called_ids]
    RES eax
    mov eax, [LAPIC + 0x120]    ; in service: nothing
    RES eax

    TEST 4                      ; LAPIC timer, one shot, and the task priority that holds it back
    mov dword [LAPIC + 0x3e0], 3
    mov dword [LAPIC + 0x320], 0x51
    mov dword [LAPIC + 0x80], 0x60
    sti
    mov dword [LAPIC + 0x380], 1000
.expired:
    cmp dword [LAPIC + 0x390], 0
    jne .expired
.raised:
    test dword [LAPIC + 0x220], 0x20000     ; requested: vector 51h
    jz .raised
    mov eax, [ticks]
    RES eax
    mov dword [LAPIC + 0x80], 0
    UNTIL ticks, 1
    cli
    mov eax, [LAPIC + 0x220]
    RES eax

    TEST 5                      ; NMI to all others: each counts its own
    mov dword [LAPIC + 0x300], 0xc4400
    UNTIL nmis, CPUS - 1
    mov eax, [nmis]
    RES eax

    TEST 6                      ; code changed by this processor, run by the others
    mov byte [patch + 1], 0x77
    mov dword [go], 2
    UNTIL patched, 0x77 * (CPUS - 1)
    mov eax, [patched]
    RES eax
    jmp report

work:
    mov ecx, ROUNDS
.next:
    lock add dword [counter], 3
    mov eax, 5
    lock xadd [counter2], eax
    lock inc dword [counter3]
.take:
    mov eax, 1
    xchg [spin], eax
    test eax, eax
    jz .taken
    pause
    jmp .take
.taken:
    inc dword [plain]
    mov dword [spin], 0
    loop .next
    lock inc dword [done]
    ret

ap32:
    mov ax, SEL_DATA
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov eax, 1
    lock xadd [stacks], eax
    inc eax
    shl eax, 12
    lea esp, [0x300000 + eax]
    lidt [idtr]
    mov word [idt + 2 * 8 + 2], SEL_CODE
    mov eax, nmi
    mov [idt + 2 * 8], ax
    mov word [idt + 2 * 8 + 4], 0x8e00
    shr eax, 16
    mov [idt + 2 * 8 + 6], ax
    or dword [LAPIC + 0xf0], 0x1ff
    mov ecx, [LAPIC + 0x20]
    shr ecx, 24
    mov eax, 1
    shl eax, cl
    lock or [ids], eax
    call patch                  ; so that it has been run before
    lock inc dword [here]
    UNTIL go, 1
    call work
    sti
    UNTIL go, 2
    xor eax, eax
    cpuid                       ; serialises: SDM 3A §8.1.3
    call patch
    lock add [patched], eax
.end:
    cli
    hlt
    jmp .end

patch:
    mov eax, 0x11
    ret

called:
    push eax
    push ecx
    mov ecx, [LAPIC + 0x20]
    shr ecx, 24
    mov eax, 1
    shl ecx, 2
    shl eax, cl
    lock add [called_ids], eax  ; a digit for each processor
    mov dword [LAPIC + 0xb0], 0
    lock inc dword [calls]
    pop ecx
    pop eax
    iretd

tick:
    inc dword [ticks]
    mov dword [LAPIC + 0xb0], 0
    iretd

nmi:
    lock inc dword [nmis]
    iretd

idt_entry:                      ; a 32-bit interrupt gate to EAX at EDI
    stosw
    mov word [edi], SEL_CODE
    mov word [edi + 2], 0x8e00
    shr eax, 16
    mov [edi + 4], ax
    ret

align 16
here:       dd 0
ids:        dd 0
go:         dd 0
done:       dd 0
stacks:     dd 0
counter:    dd 0
counter2:   dd 0
counter3:   dd 0
plain:      dd 0
spin:       dd 0
calls:      dd 0
called_ids: dd 0
ticks:      dd 0
nmis:       dd 0
patched:    dd 0
idtr:
    dw 0x52 * 8 - 1
    dd idt
align 8
idt: times 0x52 dq 0

section .low
bits 16
ap16:                           ; CS = 100h, IP = 0
    cli
    xor ax, ax
    mov ds, ax
    o32 lgdt [low_gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword SEL_CODE:ap32
low_gdtr: dw gdtr - gdt - 1
    dd gdt
low_size equ $ - low_begin
