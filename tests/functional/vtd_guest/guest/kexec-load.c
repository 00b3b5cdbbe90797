/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * kexec-load [-p] KERNEL INITRD COMMAND-LINE
 *
 * Load a kernel and start it at once; with -p load it as the one to be started
 * after a crash.
 */

#include <fcntl.h>
#include <linux/kexec.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    unsigned long flags = 0;
    int kernel, initrd;

    if (argc == 5 && !strcmp(argv[1], "-p")) {
        flags = KEXEC_FILE_ON_CRASH;
        argv++;
        argc--;
    }
    if (argc != 4) {
        return 2;
    }
    kernel = open(argv[1], O_RDONLY);
    initrd = open(argv[2], O_RDONLY);
    if (kernel < 0 || initrd < 0) {
        perror("open");
        return 1;
    }
    if (syscall(SYS_kexec_file_load, kernel, initrd, strlen(argv[3]) + 1,
                argv[3], flags)) {
        perror("kexec_file_load");
        return 1;
    }
    if (flags) {
        return 0;
    }
    syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2,
            LINUX_REBOOT_CMD_KEXEC, NULL);
    perror("reboot");
    return 1;
}
