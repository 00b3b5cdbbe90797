/*
 * Dirty bitmap file: tests of the intents
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "../../block/dirty-bitmap-intent.h"
#include "dirty-bitmap-disk.h"

#define EXTENT      (1ULL << 20)
#define AREA        0x4000
/* Of the random test: three pairs, of which a few extents are used */
#define EXTENTS     (2 * DBF_INTENT_BITS + 100)
#define WRITERS     6
/* Of any test */
#define MAX_EXTENTS (4 * DBF_INTENT_BITS)

static DBFHeader some_header(uint64_t extents)
{
    return (DBFHeader) {
        .disk_size = extents * EXTENT, .extent_bits = 20, .intent = AREA,
        .intent_pairs = dbf_intent_pairs(extents * EXTENT, 20),
    };
}

/* An area as a file that was made just now has it */
static void area_init(Disk *d, const DBFHeader *h)
{
    uint8_t bits[DBF_INTENT_BYTES] = {}, block[DBF_BLOCK];

    for (unsigned i = 0; i < 2 * h->intent_pairs; i++) {
        dbf_intent_encode(bits, i / 2, 1 + i % 2, h->intent + i * DBF_BLOCK,
                          block);
        d->io.pwrite(d, h->intent + i * DBF_BLOCK, block, DBF_BLOCK);
    }
    d->io.flush(d);
}

static void collect(void *opaque, uint64_t offset, uint64_t bytes)
{
    g_assert_cmphex(bytes, ==, EXTENT);
    g_assert_cmphex(offset % EXTENT, ==, 0);
    set_bit(offset / EXTENT, opaque);
}

/* What a reader finds in the file, as a bitmap of extents */
static unsigned long *intents_of(Disk *d, const DBFHeader *h)
{
    unsigned long *found = bitmap_new(MAX_EXTENTS);
    DBFIntent *t = dbf_intent_new(&d->io, h, DBF_MODE_OFF);

    g_assert_cmpint(dbf_intent_load(t, true), ==, 0);
    dbf_intent_snapshot(t, collect, found);
    g_assert_cmpuint(dbf_intent_count(t), ==,
                     bitmap_count_one(found, MAX_EXTENTS));
    dbf_intent_free(t);
    return found;
}

static uint64_t count_intents(Disk *d, const DBFHeader *h)
{
    g_autofree unsigned long *found = intents_of(d, h);

    return bitmap_count_one(found, MAX_EXTENTS);
}

/* --- one coroutine, one disk --- */

typedef struct Simple {
    Disk *d;
    DBFHeader h;
    DBFIntent *t;
    bool done;
} Simple;

typedef struct SimpleCase {
    const char *path;
    CoroutineEntry *entry;
    DBFMode mode;
} SimpleCase;

static void test_simple(const void *opaque)
{
    const SimpleCase *c = opaque;
    Simple s = { .d = disk_new(1), .h = some_header(EXTENTS) };
    Coroutine *co;

    area_init(s.d, &s.h);
    s.t = dbf_intent_new(&s.d->io, &s.h, c->mode);
    g_assert_cmpint(dbf_intent_load(s.t, true), ==, 0);
    g_assert_cmpint(dbf_intent_heal(s.t), ==, 0);
    co = qemu_coroutine_create(c->entry, &s);
    qemu_coroutine_enter(co);
    while (disk_step(s.d)) {
        /* on and on */
    }
    g_assert_true(s.done);
    dbf_intent_free(s.t);
    disk_free(s.d);
}

static void coroutine_fn life(void *opaque)
{
    Simple *s = opaque;
    g_autofree unsigned long *touched = bitmap_new(MAX_EXTENTS);
    unsigned requests = s->d->requests;

    /* In the file when begin returns; no request for what is there */
    g_assert_cmpint(dbf_intent_begin(s->t, 3 * EXTENT + 7, EXTENT), ==, 0);
    g_assert_cmpuint(s->d->requests, ==, requests + 1);
    g_assert_cmpuint(count_intents(s->d, &s->h), ==, 2);
    requests = s->d->requests;
    g_assert_cmpint(dbf_intent_begin(s->t, 4 * EXTENT, EXTENT), ==, 0);
    g_assert_cmpint(dbf_intent_begin(s->t, 4 * EXTENT, 0), ==, 0);
    g_assert_cmpuint(s->d->requests, ==, requests);

    /* Nothing has ended: nothing is reported, nothing goes away */
    dbf_intent_snapshot(s->t, collect, touched);
    g_assert_true(bitmap_empty(touched, EXTENTS));
    dbf_intent_retire(s->t);
    g_assert_cmpuint(dbf_intent_count(s->t), ==, 2);

    /* One has ended: reported once; the other write is on its way still */
    dbf_intent_end(s->t, 3 * EXTENT + 7, EXTENT);
    dbf_intent_end(s->t, 3 * EXTENT + 7, 0);
    dbf_intent_snapshot(s->t, collect, touched);
    g_assert_cmpuint(bitmap_count_one(touched, EXTENTS), ==, 2);
    g_assert_true(test_bit(3, touched) && test_bit(4, touched));
    g_assert_cmpint(dbf_intent_retire(s->t), ==, 0);
    g_assert_cmpuint(dbf_intent_count(s->t), ==, 1);
    g_assert_cmpuint(count_intents(s->d, &s->h), ==, 1);

    /* It ends behind the snapshot: not before the next one */
    dbf_intent_snapshot(s->t, collect, touched);
    dbf_intent_end(s->t, 4 * EXTENT, EXTENT);
    g_assert_cmpint(dbf_intent_retire(s->t), ==, 0);
    g_assert_cmpuint(count_intents(s->d, &s->h), ==, 1);
    bitmap_zero(touched, EXTENTS);
    dbf_intent_snapshot(s->t, collect, touched);
    g_assert_true(test_bit(4, touched));
    g_assert_cmpint(dbf_intent_retire(s->t), ==, 0);
    g_assert_cmpuint(count_intents(s->d, &s->h), ==, 0);
    g_assert_cmpuint(dbf_intent_count(s->t), ==, 0);
    s->done = true;
}

/* Off: the same, but nothing is written */
static void coroutine_fn off(void *opaque)
{
    Simple *s = opaque;
    g_autofree unsigned long *touched = bitmap_new(MAX_EXTENTS);
    unsigned requests = s->d->requests;

    g_assert_cmpint(dbf_intent_begin(s->t, 0, 1), ==, 0);
    g_assert_cmpint(dbf_intent_resume(s->t), ==, 0);
    g_assert_cmpint(dbf_intent_begin(s->t, EXTENT, 1), ==, 0);
    dbf_intent_end(s->t, 0, 1);
    dbf_intent_end(s->t, EXTENT, 1);
    dbf_intent_snapshot(s->t, collect, touched);
    g_assert_cmpuint(bitmap_count_one(touched, EXTENTS), ==, 2);
    g_assert_cmpint(dbf_intent_retire(s->t), ==, 0);
    g_assert_cmpuint(dbf_intent_count(s->t), ==, 0);
    g_assert_cmpuint(s->d->requests, ==, requests);
    s->done = true;
}

/* A write that crosses pairs, and the last extent that can be */
static void coroutine_fn pairs(void *opaque)
{
    Simple *s = opaque;
    uint64_t border = 2 * DBF_INTENT_BITS * EXTENT;

    g_assert_cmpint(dbf_intent_begin(s->t, border - EXTENT - 1, 2 * EXTENT),
                    ==, 0);
    g_assert_cmpuint(count_intents(s->d, &s->h), ==, 3);
    g_assert_cmpint(dbf_intent_begin(s->t, 0, s->h.disk_size), ==, 0);
    g_assert_cmpuint(count_intents(s->d, &s->h), ==, EXTENTS);
    dbf_intent_end(s->t, 0, s->h.disk_size);
    dbf_intent_end(s->t, border - EXTENT - 1, 2 * EXTENT);
    s->done = true;
}

/* A write to the file that fails: so does begin, and the next one may not */
static void coroutine_fn failure(void *opaque)
{
    Simple *s = opaque;
    g_autofree unsigned long *touched = bitmap_new(MAX_EXTENTS);
    unsigned requests;

    s->d->fail_in = 0;
    g_assert_cmpint(dbf_intent_begin(s->t, 0, 1), ==, -EIO);
    g_assert_cmpint(dbf_intent_begin(s->t, 0, 1), ==, 0);
    g_assert_cmpuint(count_intents(s->d, &s->h), ==, 1);
    dbf_intent_end(s->t, 0, 1);
    dbf_intent_snapshot(s->t, collect, touched);

    /*
     * What could not be taken away may be there or not: it is written anew
     * when it is needed, and taken away the next time if it is not.
     */
    s->d->fail_in = 0;
    g_assert_cmpint(dbf_intent_retire(s->t), ==, -EIO);
    g_assert_cmpuint(dbf_intent_count(s->t), ==, 0);
    g_assert_cmpuint(count_intents(s->d, &s->h), ==, 1);
    requests = s->d->requests;
    g_assert_cmpint(dbf_intent_begin(s->t, 0, 1), ==, 0);
    g_assert_cmpuint(s->d->requests, ==, requests + 1);
    dbf_intent_end(s->t, 0, 1);
    dbf_intent_snapshot(s->t, collect, touched);
    s->d->fail_in = 0;
    g_assert_cmpint(dbf_intent_retire(s->t), ==, -EIO);
    g_assert_cmpuint(count_intents(s->d, &s->h), ==, 1);
    g_assert_cmpint(dbf_intent_retire(s->t), ==, 0);
    g_assert_cmpuint(count_intents(s->d, &s->h), ==, 0);
    s->done = true;
}

/* A flush that fails: no promise holds any more, now or later */
static void coroutine_fn failed_flush(void *opaque)
{
    Simple *s = opaque;

    s->d->fail_in = 1;
    g_assert_cmpint(dbf_intent_begin(s->t, 0, 1), ==, -EIO);
    s->d->lost = false;
    g_assert_cmpint(dbf_intent_begin(s->t, 0, 1), ==, -EIO);
    dbf_intent_suspend(s->t);
    g_assert_cmpint(dbf_intent_begin(s->t, 0, 1), ==, 0);
    g_assert_cmpint(dbf_intent_resume(s->t), ==, -EIO);
    g_assert_cmpint(dbf_intent_begin(s->t, EXTENT, 1), ==, 0);
    dbf_intent_end(s->t, 0, 1);
    dbf_intent_end(s->t, EXTENT, 1);
    s->done = true;
}

/* What was not recorded is recorded afterwards, what has gone is not */
static void coroutine_fn suspend(void *opaque)
{
    Simple *s = opaque;
    g_autofree unsigned long *touched = bitmap_new(MAX_EXTENTS);
    g_autofree unsigned long *found = NULL;
    unsigned requests;

    g_assert_cmpint(dbf_intent_begin(s->t, 7 * EXTENT, 1), ==, 0);
    dbf_intent_end(s->t, 7 * EXTENT, 1);
    dbf_intent_suspend(s->t);
    requests = s->d->requests;
    g_assert_cmpint(dbf_intent_begin(s->t, 5 * EXTENT, 1), ==, 0);
    g_assert_cmpint(dbf_intent_begin(s->t, (EXTENTS - 1) * EXTENT, 1), ==, 0);
    dbf_intent_snapshot(s->t, collect, touched);
    g_assert_cmpint(dbf_intent_retire(s->t), ==, 0);
    g_assert_cmpuint(s->d->requests, ==, requests);
    g_assert_cmpuint(count_intents(s->d, &s->h), ==, 1);
    s->d->fail_in = 1;
    g_assert_cmpint(dbf_intent_resume(s->t), ==, -EIO);
    g_assert_cmpint(dbf_intent_begin(s->t, 6 * EXTENT, 1), ==, 0);
    g_assert_cmpint(dbf_intent_resume(s->t), ==, 0);
    found = intents_of(s->d, &s->h);
    g_assert_cmpuint(bitmap_count_one(found, EXTENTS), ==, 3);
    g_assert_true(test_bit(5, found) && test_bit(6, found) &&
                  test_bit(EXTENTS - 1, found));
    dbf_intent_end(s->t, 5 * EXTENT, 1);
    dbf_intent_end(s->t, 6 * EXTENT, 1);
    dbf_intent_end(s->t, (EXTENTS - 1) * EXTENT, 1);
    s->done = true;
}

/* --- another size, another area --- */

typedef struct Move {
    Simple *s;
    int ret;
    bool committed;
} Move;

static int coroutine_fn move_commit(void *opaque)
{
    Move *m = opaque;

    m->committed = true;
    return m->ret;
}

static void coroutine_fn move(void *opaque)
{
    Simple *s = opaque;
    Move m = { .s = s };
    DBFHeader larger = some_header(4 * DBF_INTENT_BITS);
    unsigned requests;

    g_assert_cmpint(dbf_intent_begin(s->t, 5 * EXTENT, 1), ==, 0);
    /* Larger, in the same area */
    s->h.disk_size += EXTENT;
    requests = s->d->requests;
    g_assert_cmpint(dbf_intent_move(s->t, &s->h, move_commit, &m), ==, 0);
    g_assert_cmpuint(s->d->requests, ==, requests);

    /* Another one, but the header cannot be written: either may count */
    larger.intent = 0x100000;
    m.ret = -EIO;
    g_assert_cmpint(dbf_intent_move(s->t, &larger, move_commit, &m), ==, -EIO);
    g_assert_cmpuint(count_intents(s->d, &larger), ==, 1);
    requests = s->d->requests;
    g_assert_cmpint(dbf_intent_begin(s->t, 6 * EXTENT, 1), ==, 0);
    g_assert_cmpuint(s->d->requests, ==, requests);
    g_assert_cmpint(dbf_intent_resume(s->t), ==, 0);
    g_assert_cmpuint(count_intents(s->d, &s->h), ==, 2);

    /* The area cannot be written: nothing has happened */
    m.committed = false;
    s->d->fail_in = 5;
    g_assert_cmpint(dbf_intent_move(s->t, &larger, move_commit, &m), ==, -EIO);
    g_assert_false(m.committed);
    g_assert_cmpint(dbf_intent_begin(s->t, 7 * EXTENT, 1), ==, 0);
    g_assert_cmpuint(count_intents(s->d, &s->h), ==, 3);

    m.ret = 0;
    g_assert_cmpint(dbf_intent_move(s->t, &larger, move_commit, &m), ==, 0);
    g_assert_cmpuint(count_intents(s->d, &larger), ==, 3);
    g_assert_cmpint(dbf_intent_begin(s->t, larger.disk_size - 1, 1), ==, 0);
    g_assert_cmpint(dbf_intent_begin(s->t, 8 * EXTENT, 1), ==, 0);
    g_assert_cmpuint(count_intents(s->d, &larger), ==, 5);
    for (unsigned e = 5; e <= 8; e++) {
        dbf_intent_end(s->t, e * EXTENT, 1);
    }
    dbf_intent_end(s->t, larger.disk_size - 1, 1);
    s->done = true;
}

/* --- what is in the file at opening --- */

static void put_slot(Disk *d, unsigned slot, unsigned extent,
                     uint64_t sequence)
{
    unsigned long bits[BITS_TO_LONGS(DBF_INTENT_BITS)] = {};
    uint8_t block[DBF_BLOCK];

    ((uint8_t *)bits)[extent / 8] = 1 << (extent % 8);
    dbf_intent_encode((uint8_t *)bits, 0, sequence, AREA + slot * DBF_BLOCK,
                      block);
    d->io.pwrite(d, AREA + slot * DBF_BLOCK, block, DBF_BLOCK);
}

static void test_old_intents(void)
{
    Disk *d = disk_new(1);
    DBFHeader h = some_header(500);

    area_init(d, &h);
    put_slot(d, 0, 10, 7);
    g_assert_cmpuint(count_intents(d, &h), ==, 1);
    /* Not of this disk */
    put_slot(d, 0, 500, 7);
    g_assert_cmpuint(count_intents(d, &h), ==, 0);

    /* Intents that do not count any more are taken out of the file */
    for (unsigned n = 0; n < 2; n++) {
        DBFIntent *t = dbf_intent_new(&d->io, &h, DBF_MODE_PROCESS);

        put_slot(d, n, 3, 1000 + n);
        g_assert_cmpint(dbf_intent_load(t, false), ==, 0);
        g_assert_cmpuint(dbf_intent_count(t), ==, 0);
        g_assert_cmpint(dbf_intent_heal(t), ==, 0);
        g_assert_cmpuint(count_intents(d, &h), ==, 0);
        dbf_intent_free(t);
    }
    disk_free(d);
}

static int load_and_heal(Disk *d, const DBFHeader *h, bool keep)
{
    DBFIntent *t = dbf_intent_new(&d->io, h, DBF_MODE_POWER);
    int ret;

    g_assert_cmpint(dbf_intent_load(t, keep), ==, 0);
    g_assert_cmpuint(dbf_intent_count(t), ==, keep ? 500 : 0);
    ret = dbf_intent_heal(t);
    dbf_intent_free(t);
    return ret;
}

/*
 * Whichever slots are damaged, all extents have intents, until they do not
 * count any more: also after a power cut at each step of the healing.
 */
static void test_heal(void)
{
    /* Reading, then both slots are written, with a flush behind each */
    enum { REQUESTS = 5 };
    DBFHeader h = some_header(500);

    for (unsigned damage = 1; damage < 4; damage++) {
        for (unsigned keep = 0; keep < 2; keep++) {
            for (unsigned n = 1; n < 200; n++) {
                unsigned at = 1 + n % REQUESTS;
                Disk *d = disk_new(n), *after;
                uint64_t count;

                area_init(d, &h);
                for (unsigned slot = 0; slot < 2; slot++) {
                    unsigned byte = disk_draw(d, DBF_BLOCK);

                    if (damage & (1 << slot)) {
                        d->now[AREA + slot * DBF_BLOCK + byte] ^= 4;
                    }
                }
                memcpy(d->stable, d->now, d->length);
                g_assert_cmpuint(count_intents(d, &h), ==, 500);
                d->fail_in = at;
                g_assert_cmpint(load_and_heal(d, &h, keep), ==,
                                at < REQUESTS ? -EIO : 0);
                d->fail_in = -1;
                after = disk_power_cut(d);
                count = count_intents(after, &h);
                if (at < REQUESTS) {
                    g_assert_true(count == 500 || (!keep && count == 0));
                } else {
                    g_assert_cmpuint(count, ==, keep ? 500 : 0);
                }
                disk_free(after);
                disk_free(d);
            }
        }
    }
}

static void test_read_error(void)
{
    Disk *d = disk_new(1);
    DBFHeader h = some_header(EXTENTS);
    DBFIntent *t = dbf_intent_new(&d->io, &h, DBF_MODE_PROCESS);

    area_init(d, &h);
    for (unsigned i = 0; i < 3; i++) {
        d->fail_in = i;
        g_assert_cmpint(dbf_intent_load(t, true), ==, -EIO);
    }
    dbf_intent_free(t);
    disk_free(d);
}

/* --- many writers, any order, a crash at any step --- */

/*
 * Writes are counted for each extent: those that were let go to the disk,
 * those whose bits are in memory, in the snapshot, and in the file.
 */
typedef struct Model {
    Disk *d;
    DBFHeader h;
    DBFMode mode;
    DBFIntent *t;
    unsigned issued[EXTENTS], ended[EXTENTS], stored[EXTENTS];
    unsigned writers;
    bool checkpointing;
    unsigned left;              /* writes that are still to be made */
    /* Of who is between begin and end */
    uint64_t offset[WRITERS], bytes[WRITERS];
    bool writing[WRITERS];
} Model;

static uint64_t model_extent(Model *m)
{
    /* A few that meet often, at the borders of pairs */
    unsigned e = disk_draw(m->d, 6);

    return disk_draw(m->d, 2) * DBF_INTENT_BITS + DBF_INTENT_BITS - 3 + e;
}

static void model_count(Model *m, unsigned *count, unsigned i)
{
    for (uint64_t e = m->offset[i] / EXTENT;
         e <= (m->offset[i] + m->bytes[i] - 1) / EXTENT; e++) {
        count[e]++;
    }
}

typedef struct Writer {
    Model *m;
    unsigned i;
} Writer;

static void coroutine_fn model_writer(void *opaque)
{
    Writer *w = opaque;
    Model *m = w->m;
    unsigned i = w->i;
    int ret;

    m->offset[i] = model_extent(m) * EXTENT + disk_draw(m->d, EXTENT);
    m->bytes[i] = 1 + disk_draw(m->d, 3 * EXTENT);
    ret = dbf_intent_begin(m->t, m->offset[i], m->bytes[i]);
    if (ret == 0) {
        m->writing[i] = true;
        model_count(m, m->issued, i);
    } else {
        m->writers &= ~(1U << i);
    }
    g_free(w);
}

static void model_touched(void *opaque, uint64_t offset, uint64_t bytes)
{
    Model *m = opaque;

    m->stored[offset / EXTENT] = m->ended[offset / EXTENT];
}

static void coroutine_fn model_checkpoint(void *opaque)
{
    Model *m = opaque;

    /* That the bitmaps are stored takes no time here */
    dbf_intent_snapshot(m->t, model_touched, m);
    dbf_intent_retire(m->t);
    m->checkpointing = false;
}

/* After a crash, what is not stored has an intent */
static void model_check(Model *m)
{
    Disk *d = m->mode == DBF_MODE_POWER ? disk_power_cut(m->d)
                                        : disk_kill(m->d);
    g_autofree unsigned long *found = intents_of(d, &m->h);

    for (unsigned e = 0; e < EXTENTS; e++) {
        g_assert_true(m->issued[e] == m->stored[e] || test_bit(e, found));
    }
    disk_free(d);
}

static void model_step(Model *m)
{
    unsigned i = disk_draw(m->d, WRITERS + 2);

    if (i < WRITERS && !(m->writers & (1U << i)) && m->left > 0) {
        Writer *w = g_new(Writer, 1);

        *w = (Writer) { m, i };
        m->writers |= 1U << i;
        m->left--;
        qemu_coroutine_enter(qemu_coroutine_create(model_writer, w));
    } else if (i < WRITERS && m->writing[i]) {
        model_count(m, m->ended, i);
        m->writing[i] = false;
        m->writers &= ~(1U << i);
        dbf_intent_end(m->t, m->offset[i], m->bytes[i]);
    } else if (i == WRITERS && !m->checkpointing) {
        m->checkpointing = true;
        qemu_coroutine_enter(qemu_coroutine_create(model_checkpoint, m));
    } else {
        disk_step(m->d);
    }
}

static void model_run(DBFMode mode, uint32_t seed, bool failures)
{
    Model *m = g_new0(Model, 1);

    m->d = disk_new(seed);
    m->h = some_header(EXTENTS);
    m->mode = mode;
    area_init(m->d, &m->h);
    m->t = dbf_intent_new(&m->d->io, &m->h, mode);
    g_assert_cmpint(dbf_intent_load(m->t, true), ==, 0);
    m->left = 60;
    while (m->left > 0 || m->writers || m->checkpointing) {
        if (failures && m->d->fail_in < 0 && disk_draw(m->d, 20) == 0) {
            m->d->fail_in = disk_draw(m->d, 10);
        }
        model_step(m);
        if (disk_draw(m->d, 8) == 0) {
            model_check(m);
        }
    }
    m->d->fail_in = -1;
    if (!failures) {
        /* At rest, nothing stays behind */
        m->checkpointing = true;
        qemu_coroutine_enter(qemu_coroutine_create(model_checkpoint, m));
        while (disk_step(m->d)) {
            /* on and on */
        }
        g_assert_false(m->checkpointing);
        g_assert_cmpuint(dbf_intent_count(m->t), ==, 0);
        g_assert_cmpuint(count_intents(m->d, &m->h), ==, 0);
    }
    dbf_intent_free(m->t);
    disk_free(m->d);
    g_free(m);
}

#define PATH "/dirty-bitmap/intent/"

int main(int argc, char **argv)
{
    static const SimpleCase simple[] = {
        { PATH "life", life, DBF_MODE_PROCESS },
        { PATH "off", off, DBF_MODE_OFF },
        { PATH "pairs", pairs, DBF_MODE_POWER },
        { PATH "failure", failure, DBF_MODE_PROCESS },
        { PATH "failed-flush", failed_flush, DBF_MODE_POWER },
        { PATH "suspend", suspend, DBF_MODE_PROCESS },
        { PATH "move", move, DBF_MODE_PROCESS },
    };

    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(simple); i++) {
        g_test_add_data_func(simple[i].path, &simple[i], test_simple);
    }
    g_test_add_func(PATH "old-intents", test_old_intents);
    g_test_add_func(PATH "heal", test_heal);
    g_test_add_func(PATH "read-error", test_read_error);
    disk_add_models(PATH, model_run, g_test_slow() ? 2000 : 40);
    return g_test_run();
}
