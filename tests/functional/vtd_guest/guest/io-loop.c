/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Endless checked disk I/O: io-loop DEVICE STATUS-FILE MILLISECONDS [AREA]
 *
 * Each round writes one block with a pattern made of its place and the
 * round's number, past the page cache, reads it back, reads one block of an
 * earlier round, and waits.  The status file says "ROUNDS ok" or what went
 * wrong.  Several loops on one device use areas 0, 1, ...
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BLOCK   (64 * 1024)
#define BLOCKS  64
#define START   (8 * 1024 * 1024)

static uint64_t written[BLOCKS];        /* the round that wrote it, or 0 */
static int status_fd;
static off_t start = START;

static void status(uint64_t round, const char *what)
{
    char line[128];
    int len = snprintf(line, sizeof(line), "%-12llu %-80s\n",
                       (unsigned long long)round, what);

    if (pwrite(status_fd, line, len, 0) != len) {
        perror("status file");
        exit(1);
    }
}

static void fill(uint64_t *data, unsigned block, uint64_t round)
{
    uint64_t place = start / BLOCK + block;

    for (unsigned i = 0; i < BLOCK / sizeof(*data); i++) {
        data[i] = (round << 32 | place << 16 | i) * 0x9e3779b97f4a7c15ull;
    }
}

static void fail(uint64_t round, const char *what, unsigned block)
{
    char text[80];

    snprintf(text, sizeof(text), "FAILED %s block %u: %m", what, block);
    status(round, text);
    exit(1);
}

static void check(int fd, void *got, void *want, unsigned block,
                  uint64_t round)
{
    memset(got, 0xee, BLOCK);
    if (pread(fd, got, BLOCK, start + block * BLOCK) != BLOCK) {
        fail(round, "read of", block);
    }
    fill(want, block, written[block]);
    if (memcmp(got, want, BLOCK)) {
        fail(round, "compare of", block);
    }
}

int main(int argc, char **argv)
{
    uint8_t *buffer = mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd;

    if (argc < 4 || buffer == MAP_FAILED) {
        return 2;
    }
    if (argc > 4) {
        start += (off_t)atoi(argv[4]) * BLOCKS * BLOCK;
    }
    fd = open(argv[1], O_RDWR | O_DIRECT);
    status_fd = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || status_fd < 0) {
        perror(argv[1]);
        return 1;
    }
    srandom(1);
    for (uint64_t round = 1; ; round++) {
        unsigned block = random() % BLOCKS;
        unsigned older = random() % BLOCKS;

        fill((uint64_t *)buffer, block, round);
        if (pwrite(fd, buffer, BLOCK, start + block * BLOCK) != BLOCK) {
            fail(round, "write of", block);
        }
        written[block] = round;
        check(fd, buffer, buffer + BLOCK, block, round);
        if (written[older]) {
            check(fd, buffer, buffer + BLOCK, older, round);
        }
        status(round, "ok");
        usleep(atoi(argv[3]) * 1000);
    }
}
