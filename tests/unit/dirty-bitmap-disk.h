/*
 * A simulated disk for tests of the dirty bitmap file
 *
 * Requests of coroutines wait until the test lets one of them happen, in any
 * order.  What a crash leaves behind is drawn from what may be there: after a
 * power cut each sector that was not flushed is as any writing since then has
 * left it; after the end of the process alone, what had been done is there.
 * Requests outside of coroutines happen at once.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_DIRTY_BITMAP_DISK_H
#define TESTS_DIRTY_BITMAP_DISK_H

#include "qemu/queue.h"
#include "../../block/dirty-bitmap-codec.h"
#include "../../block/dirty-bitmap-io.h"

#define DISK_SECTOR 512U
#define DISK_MAX    (2U << 20)

typedef struct DiskRequest {
    Coroutine *co;
    bool flush;
    uint64_t offset;
    size_t bytes;
    uint8_t *data;
    /* When it began and was done, in steps of the disk */
    uint64_t begun, done;
    /* Where its coroutine waits for what it returns */
    int *ret;
    QTAILQ_ENTRY(DiskRequest) next;
} DiskRequest;

typedef QTAILQ_HEAD(DiskRequests, DiskRequest) DiskRequests;

typedef struct Disk {
    DBFIO io;
    GRand *random;
    uint64_t step;
    uint64_t length;
    /* What has been flushed, and what a reader sees now */
    uint8_t *stable;
    uint8_t *now;
    DiskRequests waiting;       /* begun */
    DiskRequests unflushed;     /* writings that are done, oldest first */
    unsigned n_waiting;
    /* This many requests from now, one fails; -1: none */
    int fail_in;
    /* A flush has failed: nothing becomes stable any more */
    bool lost;
    unsigned requests, flushes;
} Disk;

static inline uint32_t disk_draw(Disk *d, uint32_t below)
{
    return g_rand_int_range(d->random, 0, below);
}

/* Some of the sectors of @r, or all of them */
static inline void disk_apply(Disk *d, const DiskRequest *r, uint8_t *to,
                              bool all)
{
    for (size_t i = 0; i < r->bytes; i += DISK_SECTOR) {
        if (all || disk_draw(d, 2)) {
            memcpy(to + r->offset + i, r->data + i, DISK_SECTOR);
        }
    }
}

static inline void disk_request_free(DiskRequest *r)
{
    g_free(r->data);
    g_free(r);
}

static inline bool disk_fails(Disk *d)
{
    d->requests++;
    return d->fail_in >= 0 && d->fail_in-- == 0;
}

static inline void disk_do_flush(Disk *d, uint64_t begun)
{
    DiskRequest *r, *next;

    d->flushes++;
    QTAILQ_FOREACH_SAFE(r, &d->unflushed, next, next) {
        if (r->done <= begun) {
            disk_apply(d, r, d->stable, true);
            QTAILQ_REMOVE(&d->unflushed, r, next);
            disk_request_free(r);
        }
    }
}

/* Takes @r, which is not in a list */
static inline int disk_do(Disk *d, DiskRequest *r)
{
    bool fails = disk_fails(d);
    uint64_t end = r->offset + r->bytes;

    r->done = ++d->step;
    if (r->flush) {
        d->lost |= fails;
        if (!d->lost) {
            disk_do_flush(d, r->begun);
        }
        disk_request_free(r);
        return d->lost ? -EIO : 0;
    }
    d->length = MAX(d->length, end);
    /* Of one that fails, some sectors may be there */
    disk_apply(d, r, d->now, !fails);
    memcpy(r->data, d->now + r->offset, r->bytes);
    QTAILQ_INSERT_TAIL(&d->unflushed, r, next);
    return fails ? -EIO : 0;
}

/* Let one of the requests that wait happen; false if there is none */
static inline bool disk_step(Disk *d)
{
    DiskRequest *r;
    Coroutine *co;
    unsigned n;
    int *ret;

    if (d->n_waiting == 0) {
        return false;
    }
    n = disk_draw(d, d->n_waiting--);
    r = QTAILQ_FIRST(&d->waiting);
    while (n--) {
        r = QTAILQ_NEXT(r, next);
    }
    QTAILQ_REMOVE(&d->waiting, r, next);
    co = r->co;
    ret = r->ret;
    *ret = disk_do(d, r);
    qemu_coroutine_enter(co);
    return true;
}

static inline int coroutine_mixed_fn disk_submit(Disk *d, DiskRequest *r)
{
    int ret = 0;

    r->begun = ++d->step;
    if (!qemu_in_coroutine()) {
        return disk_do(d, r);
    }
    r->co = qemu_coroutine_self();
    r->ret = &ret;
    QTAILQ_INSERT_TAIL(&d->waiting, r, next);
    d->n_waiting++;
    qemu_coroutine_yield();
    return ret;
}

static inline int coroutine_mixed_fn disk_pwrite(void *opaque, uint64_t offset,
                                                 const void *buf, size_t bytes)
{
    DiskRequest *r = g_new0(DiskRequest, 1);

    g_assert_true(offset % 4096 == 0 && bytes % 4096 == 0 &&
                  offset + bytes <= DISK_MAX);
    r->offset = offset;
    r->bytes = bytes;
    r->data = g_memdup2(buf, bytes);
    return disk_submit(opaque, r);
}

static inline int coroutine_mixed_fn disk_flush(void *opaque)
{
    DiskRequest *r = g_new0(DiskRequest, 1);

    r->flush = true;
    return disk_submit(opaque, r);
}

static inline int coroutine_mixed_fn disk_pread(void *opaque, uint64_t offset,
                                                void *buf, size_t bytes)
{
    Disk *d = opaque;

    g_assert_true(offset % 4096 == 0 && bytes % 4096 == 0);
    if (disk_fails(d) || offset + bytes > d->length) {
        return -EIO;
    }
    memcpy(buf, d->now + offset, bytes);
    return 0;
}

static inline int64_t coroutine_mixed_fn disk_length(void *opaque)
{
    Disk *d = opaque;

    return disk_fails(d) ? -EIO : d->length;
}

static inline int coroutine_mixed_fn disk_truncate(void *opaque,
                                                   uint64_t length)
{
    Disk *d = opaque;

    if (disk_fails(d)) {
        return -EIO;
    }
    g_assert_cmpuint(length, <=, DISK_MAX);
    if (length < d->length) {
        memset(d->now + length, 0, d->length - length);
    }
    d->length = length;
    return 0;
}

static inline Disk *disk_new(uint32_t seed)
{
    Disk *d = g_new0(Disk, 1);

    d->io = (DBFIO) {
        .pread = disk_pread, .pwrite = disk_pwrite, .flush = disk_flush,
        .length = disk_length, .truncate = disk_truncate, .opaque = d,
    };
    d->random = g_rand_new_with_seed(seed);
    d->fail_in = -1;
    d->stable = g_malloc0(DISK_MAX);
    d->now = g_malloc0(DISK_MAX);
    QTAILQ_INIT(&d->waiting);
    QTAILQ_INIT(&d->unflushed);
    return d;
}

/* The coroutines that wait are never entered again: they must be done */
static inline void disk_free(Disk *d)
{
    DiskRequest *r, *next;

    g_assert_true(QTAILQ_EMPTY(&d->waiting));
    QTAILQ_FOREACH_SAFE(r, &d->unflushed, next, next) {
        disk_request_free(r);
    }
    g_rand_free(d->random);
    g_free(d->stable);
    g_free(d->now);
    g_free(d);
}

static inline Disk *disk_copy(Disk *d, const uint8_t *content)
{
    Disk *copy = disk_new(g_rand_int(d->random));

    copy->length = d->length;
    memcpy(copy->now, content, d->length);
    memcpy(copy->stable, content, d->length);
    return copy;
}

/* What is there if the host goes now; @d goes on */
static inline Disk *disk_power_cut(Disk *d)
{
    Disk *copy = disk_copy(d, d->stable);
    DiskRequest *r;

    QTAILQ_FOREACH(r, &d->unflushed, next) {
        disk_apply(d, r, copy->now, false);
    }
    QTAILQ_FOREACH(r, &d->waiting, next) {
        if (!r->flush) {
            disk_apply(d, r, copy->now, false);
        }
    }
    memcpy(copy->stable, copy->now, d->length);
    return copy;
}

/* What is there if the process is killed now; @d goes on */
static inline Disk *disk_kill(Disk *d)
{
    Disk *copy = disk_copy(d, d->now);
    DiskRequest *r;

    QTAILQ_FOREACH(r, &d->waiting, next) {
        if (!r->flush && disk_draw(d, 2)) {
            disk_apply(d, r, copy->now, true);
        }
    }
    memcpy(copy->stable, copy->now, d->length);
    return copy;
}

/* --- models: anything in any order --- */

typedef void DiskModel(DBFMode mode, uint32_t seed, bool failures);

typedef struct DiskModelCase {
    DiskModel *run;
    unsigned rounds;
    DBFMode mode;
    bool failures;
} DiskModelCase;

static inline void disk_test_model(const void *opaque)
{
    const DiskModelCase *c = opaque;

    for (unsigned seed = 1; seed <= c->rounds; seed++) {
        c->run(c->mode, seed, c->failures);
    }
}

/* In each mode, with requests that fail and without, @rounds times each */
static inline void disk_add_models(const char *path, DiskModel *run,
                                   unsigned rounds)
{
    static const char *const crashes[] = {
        [DBF_MODE_PROCESS] = "kill", [DBF_MODE_POWER] = "power-cut",
    };

    for (unsigned i = 0; i < 4; i++) {
        DBFMode mode = i / 2 ? DBF_MODE_POWER : DBF_MODE_PROCESS;
        DiskModelCase c = { run, rounds, mode, i % 2 };
        g_autofree char *name = g_strdup_printf("%s%s%s", path, crashes[mode],
                                                c.failures ? "-with-errors"
                                                           : "");

        g_test_add_data_func_full(name, g_memdup2(&c, sizeof(c)),
                                  disk_test_model, g_free);
    }
}

#endif
