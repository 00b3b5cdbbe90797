/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A boot sector that loads Linux through the firmware's disk services, by the
 * protocol of Documentation/arch/x86/boot.rst.  What is on the disk behind it,
 * each padded to chunks of 32 KiB: two chunks with the real mode code, its
 * fields already filled in, and the command line; the kernel; the initramfs.
 * image.py, boot_disk(), writes all that.
 */

#define CHUNK_SECTORS   64
#define REAL_MODE       0x1000          /* segments */
#define BUFFER          0x2000
#define HEAP_END        0xe000
#define KERNEL          0x00100000
#define INITRAMFS       0x08000000

        .code16
        .globl _start
_start:
        ljmp    $0, $1f
1:      xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $0x7c00, %sp
        cld
        movb    %dl, drive

        movw    $REAL_MODE, segment
        call    read
        movw    $REAL_MODE + 0x800, segment
        call    read
        movw    $BUFFER, segment
        movl    $KERNEL, %edi
        movw    kernel_chunks, %bp
        call    load
        movl    $INITRAMFS, %edi
        movw    initramfs_chunks, %bp
        call    load

        cli
        movw    $REAL_MODE, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %fs
        movw    %ax, %gs
        movw    %ax, %ss
        movw    $HEAP_END, %sp
        ljmp    $REAL_MODE + 0x20, $0

/* The next chunk, to segment:0 (INT 13h, AH 42h) */
read:
        movb    $0x42, %ah
        movb    drive, %dl
        movw    $packet, %si
        int     $0x13
        jc      failed
        addl    $CHUNK_SECTORS, lba
        ret

/* The next bp chunks, to physical memory from edi on (INT 15h, AH 87h) */
load:
        call    read
        movl    %edi, %eax
        movw    %ax, target + 2
        shrl    $16, %eax
        movb    %al, target + 4
        movb    %ah, target + 7
        movb    $0x87, %ah
        movw    $CHUNK_SECTORS * 256, %cx
        movw    $descriptors, %si
        int     $0x15
        jc      failed
        addl    $CHUNK_SECTORS * 512, %edi
        decw    %bp
        jnz     load
        ret

/* Say so on the first serial port, and stay */
failed:
        movw    $0x3f8, %dx
        movb    $'!', %al
        outb    %al, %dx
1:      hlt
        jmp     1b

        .balign 4
packet: .byte   16, 0
        .word   CHUNK_SECTORS
        .word   0
segment:
        .word   0
lba:    .long   1, 0

descriptors:
        .quad   0, 0
        .word   0xffff, BUFFER << 4 & 0xffff
        .byte   BUFFER >> 12, 0x93, 0, 0
target: .word   0xffff, 0
        .byte   0, 0x93, 0, 0
        .quad   0, 0

drive:  .byte   0

        .org    0x1f8
kernel_chunks:
        .word   0
initramfs_chunks:
        .word   0
        .word   0
        .word   0xaa55
