; SPDX-License-Identifier: LGPL-2.1-or-later
; A guest of a few instructions: prints its command line on the first serial port, then does what
; the last letter of the command line says:
;
;   e  exit: 0x21 to isa-debug-exit (port 0xf4)     t  triple fault: int3 with an empty IDT
;   r  reset by port 0xcf9                          k  reset by the keyboard controller (0x64)
;   p  power off: S5 by the PM1a control block (port 0x604)
;   h  hlt for ever, interrupts off                 l  loop for ever
;
; Built as a multiboot 1 kernel or, with -DPVH, as a PVH one (Multiboot Specification 0.6.96 §3.1;
; Xen docs/misc/pvh: note type 18). Both start in 32-bit protected mode with flat segments.
bits 32

%ifdef PVH
section .note.Xen note alloc noexec nowrite align=4
    dd 4, 4, 18
    db "Xen", 0
    dd start
%else
section .multiboot progbits alloc noexec nowrite align=4
    dd 0x1badb002, 0, -0x1badb002
%endif

section .text
global start
start:
    mov esp, stack_top
%ifdef PVH
    mov esi, [ebx + 24]         ; hvm_start_info.cmdline_paddr
%else
    mov esi, [ebx + 16]         ; multiboot_info.cmdline
%endif
    mov edi, esi
print:
    mov bl, [edi]
    test bl, bl
    jz printed
    call put
    inc edi
    jmp print
printed:
    movzx ecx, byte [edi - 1]
    mov bl, 10
    call put
    cmp cl, 'e'
    je act_exit
    cmp cl, 't'
    je act_triple
    cmp cl, 'r'
    je act_reset
    cmp cl, 'k'
    je act_keyboard
    cmp cl, 'l'
    je act_loop
    cmp cl, 'p'
    je act_poweroff
act_halt:
    cli
    hlt
    jmp act_halt
act_exit:
    mov al, 0x21
    out 0xf4, al
    jmp act_halt
act_triple:
    lidt [empty]
    int3
act_reset:
    mov dx, 0xcf9
    mov al, 6
    out dx, al
    jmp act_halt
act_keyboard:
    mov al, 0xfe
    out 0x64, al
    jmp act_halt
act_loop:
    jmp act_loop
act_poweroff:
    mov dx, 0x604
    mov ax, 0x3c00              ; SLP_EN, SLP_TYP 7 (ACPI 6.5 §4.8.3.2.1)
    out dx, ax
    jmp act_halt

; BL to the serial port once it is empty.
put:
    mov dx, 0x3fd
.wait:
    in al, dx
    test al, 0x20
    jz .wait
    mov dx, 0x3f8
    mov al, bl
    out dx, al
    ret

section .data
empty:
    dw 0
    dd 0

section .bss
    resb 4096
stack_top:
