/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random reads of 4 KiB past the page cache: random-read DEVICE SECONDS DEPTH
 *
 * Keeps DEPTH requests in flight and prints how many came back and how long
 * that took: "reads=N ns=N".
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096
#define MAX_DEPTH 256

static int device;
static uint64_t blocks;
static struct iocb request[MAX_DEPTH];

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void submit(aio_context_t context, struct iocb *cb)
{
    cb->aio_offset = random() % blocks * BLOCK;
    if (syscall(SYS_io_submit, context, 1, &cb) != 1) {
        fail("io_submit");
    }
}

/* Submit anew whatever comes back; returns how many came back */
static uint64_t reap(aio_context_t context, unsigned depth)
{
    struct io_event event[MAX_DEPTH];
    long n = syscall(SYS_io_getevents, context, 1, depth, event, NULL);

    if (n < 1) {
        fail("io_getevents");
    }
    for (long i = 0; i < n; i++) {
        if (event[i].res != BLOCK) {
            fail("read");
        }
        submit(context, (struct iocb *)(uintptr_t)event[i].obj);
    }
    return n;
}

int main(int argc, char **argv)
{
    unsigned depth = argc == 4 ? atoi(argv[3]) : 0;
    aio_context_t context = 0;
    uint64_t start, end, reads = 0;
    uint8_t *buffer;

    if (!depth || depth > MAX_DEPTH) {
        return 2;
    }
    device = open(argv[1], O_RDONLY | O_DIRECT);
    blocks = device < 0 ? 0 : lseek(device, 0, SEEK_END) / BLOCK;
    buffer = mmap(NULL, depth * BLOCK, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (!blocks || buffer == MAP_FAILED ||
        syscall(SYS_io_setup, depth, &context)) {
        fail(argv[1]);
    }
    start = now();
    end = start + atoi(argv[2]) * 1000000000ull;
    for (unsigned i = 0; i < depth; i++) {
        request[i] = (struct iocb) {
            .aio_fildes = device,
            .aio_lio_opcode = IOCB_CMD_PREAD,
            .aio_buf = (uintptr_t)(buffer + i * BLOCK),
            .aio_nbytes = BLOCK,
        };
        submit(context, &request[i]);
    }
    while (now() < end) {
        reads += reap(context, depth);
    }
    printf("reads=%llu ns=%llu\n", (unsigned long long)reads,
           (unsigned long long)(now() - start));
    return 0;
}
