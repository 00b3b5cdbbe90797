/*
 * Dirty bitmap file: intents
 *
 * Each extent of the disk has a word in memory: how many writes are on their
 * way there, and two flags.
 *
 *   begin --> count + 1 --> DURABLE? --yes--> the write goes on
 *                               | no
 *                               v
 *        want bit, pair's lock, write of the pair, (flush,) DURABLE
 *
 *   end   --> TOUCHED, count - 1                       one atomic step
 *
 *   snapshot --> TOUCHED goes away, and is reported
 *   (the bits of what was reported are stored)
 *   retire --> a word that is DURABLE and nothing else becomes 0;
 *              then its want bit goes away, and the pair is written
 *
 * So a write to an extent that has its intent costs two atomic operations, and
 * only the first one after a retirement waits for the file.  What waits for
 * the same pair is written together: the want bit is set before the lock is
 * taken, and who has it writes all of them.
 *
 * What keeps the promise:
 * - DURABLE is set under the pair's lock, after the want bit that belongs to
 *   it was in what has been written; it goes away under that lock, before the
 *   want bit does.
 * - A word is made 0 only if nothing is on its way there and nothing was since
 *   the snapshot.  Who comes after that finds no DURABLE, and waits for the
 *   lock.
 * - Of the two slots of a pair, the one that is not written to is whole and
 *   has all intents that were promised.  Only when the other one is there (in
 *   mode power: on stable storage) do they change their roles.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bitmap.h"
#include "qemu/memalign.h"
#include "dirty-bitmap-intent.h"

/* A word: the count is in the other bits */
#define TOUCHED         (1U << 30)
#define DURABLE         (1U << 31)

#define PAIR_LONGS      BITS_TO_LONGS(DBF_INTENT_BITS)
QEMU_BUILD_BUG_ON(DBF_INTENT_BITS % 64);

typedef struct DBFPair {
    /* Guards what follows but @want, and the change of DURABLE */
    CoMutex lock;
    /* The slot to write to; its content counts for nothing */
    unsigned slot;
    /* No writing of this pair had a greater one */
    uint64_t sequence;
    /* Slots that must be written before what they hold means something */
    unsigned unhealed;
    /* The file does not say what @durable does */
    bool stale;
    /* Intents that shall be in the file: set by anybody, atomically */
    unsigned long want[PAIR_LONGS];
    /* Those that are: their extents are DURABLE */
    unsigned long durable[PAIR_LONGS];
    /* The word of each extent; atomic */
    uint32_t words[DBF_INTENT_BITS];
} DBFPair;

struct DBFIntent {
    const DBFIO *io;
    DBFMode mode;
    /* Extents are 2^this bytes */
    unsigned extent_bits;

    /*
     * Held for reading while pairs are written, for writing while they move.
     * Guards what follows.
     */
    CoRwlock area_lock;
    uint64_t area;
    uint64_t extents;
    unsigned n_pairs;
    /* Once there, a pair stays until the end: writers need no lock for it */
    DBFPair *pairs[DBF_MAX_PAIRS];

    /* DURABLE words; atomic */
    uint64_t count;
    /* Nothing is written to the file; atomic */
    bool suspended;
    /* A flush has failed in mode power; atomic */
    bool lost;

    /* Flushes asked for; atomic */
    uint64_t flush_asked;
    CoMutex flush_lock;
    /* Of those, the ones that were served; guarded by flush_lock */
    uint64_t flush_served;
};

static DBFPair *dbf_pair_new(void)
{
    DBFPair *p = g_new0(DBFPair, 1);

    qemu_co_mutex_init(&p->lock);
    return p;
}

static void dbf_intent_add_pairs(DBFIntent *t, unsigned n_pairs)
{
    for (unsigned i = t->n_pairs; i < n_pairs; i++) {
        /* There may be one left from a move that has failed */
        t->pairs[i] = t->pairs[i] ?: dbf_pair_new();
    }
    t->n_pairs = n_pairs;
}

DBFIntent *dbf_intent_new(const DBFIO *io, const DBFHeader *header,
                          DBFMode mode)
{
    DBFIntent *t = g_new0(DBFIntent, 1);

    t->io = io;
    t->mode = mode;
    t->suspended = mode == DBF_MODE_OFF;
    t->extent_bits = header->extent_bits;
    qemu_co_rwlock_init(&t->area_lock);
    qemu_co_mutex_init(&t->flush_lock);
    t->area = header->intent;
    t->extents = dbf_extents(header->disk_size, header->extent_bits);
    dbf_intent_add_pairs(t, header->intent_pairs);
    return t;
}

void dbf_intent_free(DBFIntent *t)
{
    if (t) {
        for (unsigned i = 0; i < DBF_MAX_PAIRS; i++) {
            g_free(t->pairs[i]);
        }
        g_free(t);
    }
}

uint64_t dbf_intent_count(const DBFIntent *t)
{
    return qatomic_read(&t->count);
}

/* The word of bit @bit in pair @i */
static uint32_t *dbf_word(DBFIntent *t, unsigned i, unsigned bit)
{
    return &t->pairs[i]->words[bit];
}

static uint32_t *dbf_extent_word(DBFIntent *t, uint64_t extent)
{
    return dbf_word(t, extent / DBF_INTENT_BITS, extent % DBF_INTENT_BITS);
}

static uint64_t dbf_slot_offset(uint64_t area, unsigned i, unsigned slot)
{
    return area + (2ULL * i + slot) * DBF_BLOCK;
}

/* --- what is in the file --- */

/*
 * Returns when all that was written before the call is on stable storage.
 * Who waits while a flush is on its way shares the next one.
 */
static int coroutine_fn dbf_intent_flush(DBFIntent *t)
{
    uint64_t mine = qatomic_inc_fetch(&t->flush_asked);
    int ret = 0;

    qemu_co_mutex_lock(&t->flush_lock);
    if (qatomic_read(&t->lost)) {
        ret = -EIO;
    } else if (t->flush_served < mine) {
        uint64_t asked = qatomic_read(&t->flush_asked);

        ret = t->io->flush(t->io->opaque);
        if (ret < 0) {
            qatomic_set(&t->lost, true);
        } else {
            t->flush_served = asked;
        }
    }
    qemu_co_mutex_unlock(&t->flush_lock);
    return ret;
}

static int coroutine_mixed_fn dbf_slot_write(DBFIntent *t, uint64_t area,
                                             unsigned i, unsigned slot,
                                             const unsigned long *longs)
{
    QEMU_AUTO_VFREE uint8_t *block = qemu_memalign(DBF_BLOCK, DBF_BLOCK);
    unsigned long bits[PAIR_LONGS];
    uint64_t offset = dbf_slot_offset(area, i, slot);

    /*
     * Each attempt has a sequence of its own: sectors of one that has failed
     * must not pass for those of the next.
     */
    t->pairs[i]->sequence++;
    bitmap_to_le(bits, longs, DBF_INTENT_BITS);
    dbf_intent_encode((uint8_t *)bits, i, t->pairs[i]->sequence, offset, block);
    return t->io->pwrite(t->io->opaque, offset, block, DBF_BLOCK);
}

/* @longs are in the file, or need not be: so their extents are DURABLE */
static void dbf_pair_promise(DBFIntent *t, unsigned i,
                             const unsigned long *longs)
{
    DBFPair *p = t->pairs[i];

    for (unsigned n = 0; n < PAIR_LONGS; n++) {
        unsigned long new = longs[n] & ~p->durable[n];

        p->durable[n] = longs[n];
        while (new) {
            uint32_t *word = dbf_word(t, i, n * BITS_PER_LONG + ctzl(new));

            if (!(qatomic_fetch_or(word, DURABLE) & DURABLE)) {
                qatomic_inc(&t->count);
            }
            new &= new - 1;
        }
    }
}

/*
 * Write what is wanted of pair @i, whose lock is held.  When it has failed,
 * the slot that counts is still the one that did.
 */
static int coroutine_fn dbf_pair_write(DBFIntent *t, unsigned i)
{
    DBFPair *p = t->pairs[i];
    unsigned long longs[PAIR_LONGS];
    int ret;

    for (unsigned n = 0; n < PAIR_LONGS; n++) {
        longs[n] = qatomic_read(&p->want[n]);
    }
    if (qatomic_read(&t->suspended)) {
        p->stale = true;
        dbf_pair_promise(t, i, longs);
        return 0;
    }
    ret = dbf_slot_write(t, t->area, i, p->slot, longs);
    if (ret == 0 && t->mode == DBF_MODE_POWER) {
        ret = dbf_intent_flush(t);
    }
    if (ret < 0) {
        return ret;
    }
    p->slot ^= 1;
    p->stale = false;
    dbf_pair_promise(t, i, longs);
    return 0;
}

/* --- after opening --- */

/* Extents of pair @i that the disk has */
static unsigned dbf_pair_extents(const DBFIntent *t, unsigned i)
{
    uint64_t first = (uint64_t)i * DBF_INTENT_BITS;

    return t->extents <= first ? 0 : MIN(t->extents - first, DBF_INTENT_BITS);
}

/* The intents of pair @i, whose slots are in @blocks */
static void dbf_pair_take(DBFIntent *t, unsigned i, const uint8_t *blocks)
{
    DBFPair *p = t->pairs[i];
    unsigned extents = dbf_pair_extents(t, i);
    unsigned long bits[2][PAIR_LONGS];
    uint64_t sequence[2];
    DBFSlot slot[2];
    int choice;

    for (unsigned n = 0; n < 2; n++) {
        slot[n] = dbf_intent_decode(blocks + n * DBF_BLOCK, i,
                                    dbf_slot_offset(t->area, i, n),
                                    (uint8_t *)bits[n], &sequence[n]);
    }
    choice = dbf_intent_choose(slot, sequence);
    p->sequence = MAX(sequence[0], sequence[1]);
    if (choice < 0) {
        /*
         * Neither counts while one is damaged.  What is damaged comes last:
         * torn, it would leave it to the other one, which may be old.
         */
        p->unhealed = 2;
        p->slot = slot[1] != DBF_SLOT_DAMAGED;
        bitmap_set(p->want, 0, extents);
    } else {
        p->slot = !choice;
        bitmap_from_le(p->want, bits[choice], DBF_INTENT_BITS);
        bitmap_clear(p->want, extents, DBF_INTENT_BITS - extents);
    }
}

int coroutine_mixed_fn dbf_intent_load(DBFIntent *t, bool keep)
{
    QEMU_AUTO_VFREE uint8_t *blocks = qemu_memalign(DBF_BLOCK, 2 * DBF_BLOCK);

    for (unsigned i = 0; i < t->n_pairs; i++) {
        DBFPair *p = t->pairs[i];
        int ret = t->io->pread(t->io->opaque, dbf_slot_offset(t->area, i, 0),
                               blocks, 2 * DBF_BLOCK);

        if (ret < 0) {
            return ret;
        }
        dbf_pair_take(t, i, blocks);
        if (!keep) {
            bool any = !bitmap_empty(p->want, DBF_INTENT_BITS);

            p->unhealed = MAX(p->unhealed, any);
            bitmap_zero(p->want, DBF_INTENT_BITS);
        }
        dbf_pair_promise(t, i, p->want);
        for (unsigned bit = find_first_bit(p->want, DBF_INTENT_BITS);
             bit < DBF_INTENT_BITS;
             bit = find_next_bit(p->want, DBF_INTENT_BITS, bit + 1)) {
            *dbf_word(t, i, bit) |= TOUCHED;
        }
    }
    return 0;
}

/* Write a slot of each pair that has @unhealed of them to be written */
static int coroutine_mixed_fn dbf_intent_heal_slots(DBFIntent *t,
                                                    unsigned unhealed)
{
    bool any = false;

    for (unsigned i = 0; i < t->n_pairs; i++) {
        DBFPair *p = t->pairs[i];
        int ret;

        if (p->unhealed != unhealed) {
            continue;
        }
        ret = dbf_slot_write(t, t->area, i, p->slot, p->want);
        if (ret < 0) {
            return ret;
        }
        p->slot ^= 1;
        p->unhealed--;
        any = true;
    }
    return any ? t->io->flush(t->io->opaque) : 0;
}

int coroutine_mixed_fn dbf_intent_heal(DBFIntent *t)
{
    int ret = 0;

    for (unsigned unhealed = 2; unhealed > 0 && ret == 0; unhealed--) {
        ret = t->suspended ? 0 : dbf_intent_heal_slots(t, unhealed);
    }
    return ret;
}

/* --- writes --- */

/* Set the want bit of each extent from @first to @last that needs it */
static bool dbf_pair_want(DBFIntent *t, unsigned i, unsigned first,
                          unsigned last)
{
    bool any = false;

    for (unsigned bit = first; bit <= last; bit++) {
        if (!(qatomic_read(dbf_word(t, i, bit)) & DURABLE)) {
            set_bit_atomic(bit, t->pairs[i]->want);
            any = true;
        }
    }
    return any;
}

static int coroutine_fn dbf_pair_mark(DBFIntent *t, unsigned i,
                                      unsigned first, unsigned last)
{
    DBFPair *p = t->pairs[i];
    int ret = 0;

    /* Who has the lock takes these along; */
    dbf_pair_want(t, i, first, last);
    qemu_co_mutex_lock(&p->lock);
    /* or has taken them away: only this is certain */
    if (dbf_pair_want(t, i, first, last)) {
        ret = dbf_pair_write(t, i);
    }
    qemu_co_mutex_unlock(&p->lock);
    return ret;
}

/* Wait for the intents of extents @first to @last, which are counted */
static int coroutine_fn dbf_intent_mark(DBFIntent *t, uint64_t first,
                                        uint64_t last)
{
    int ret = 0;

    qemu_co_rwlock_rdlock(&t->area_lock);
    for (uint64_t i = first / DBF_INTENT_BITS;
         i <= last / DBF_INTENT_BITS && ret == 0; i++) {
        uint64_t base = i * DBF_INTENT_BITS;

        ret = dbf_pair_mark(t, i, MAX(first, base) - base,
                            MIN(last - base, DBF_INTENT_BITS - 1));
    }
    qemu_co_rwlock_unlock(&t->area_lock);
    return ret;
}

int coroutine_fn dbf_intent_begin(DBFIntent *t, uint64_t offset,
                                  uint64_t bytes)
{
    uint64_t first, last;
    bool cold = false;
    int ret;

    if (bytes == 0) {
        return 0;
    }
    first = offset >> t->extent_bits;
    last = (offset + bytes - 1) >> t->extent_bits;
    assert(last < DBF_MAX_EXTENTS);
    for (uint64_t e = first; e <= last; e++) {
        cold |= !(qatomic_fetch_inc(dbf_extent_word(t, e)) & DURABLE);
    }
    if (!cold) {
        return 0;
    }
    ret = dbf_intent_mark(t, first, last);
    if (ret < 0) {
        for (uint64_t e = first; e <= last; e++) {
            qatomic_dec(dbf_extent_word(t, e));
        }
    }
    return ret;
}

void dbf_intent_end(DBFIntent *t, uint64_t offset, uint64_t bytes)
{
    uint64_t first = offset >> t->extent_bits;
    uint64_t last = (offset + bytes - 1) >> t->extent_bits;

    for (uint64_t e = first; bytes > 0 && e <= last; e++) {
        uint32_t *at = dbf_extent_word(t, e);
        uint32_t word = qatomic_read(at), seen;

        /* In one step: a snapshot must not come between flag and count */
        while ((seen = qatomic_cmpxchg(at, word,
                                       (word | TOUCHED) - 1)) != word) {
            word = seen;
        }
    }
}

/* --- checkpoints --- */

/* The first want bit of @p from @bit on; DBF_INTENT_BITS if there is none */
static unsigned dbf_pair_next(const DBFPair *p, unsigned bit)
{
    unsigned n = bit / BITS_PER_LONG;
    unsigned long longs;

    if (bit >= DBF_INTENT_BITS) {
        return DBF_INTENT_BITS;
    }
    longs = qatomic_read(&p->want[n]) & (~0UL << (bit % BITS_PER_LONG));
    while (longs == 0) {
        if (++n == PAIR_LONGS) {
            return DBF_INTENT_BITS;
        }
        longs = qatomic_read(&p->want[n]);
    }
    return n * BITS_PER_LONG + ctzl(longs);
}

void dbf_intent_snapshot(DBFIntent *t, DBFTouched *touched, void *opaque)
{
    for (unsigned i = 0; i < t->n_pairs; i++) {
        DBFPair *p = t->pairs[i];

        for (unsigned bit = dbf_pair_next(p, 0); bit < DBF_INTENT_BITS;
             bit = dbf_pair_next(p, bit + 1)) {
            uint64_t e = (uint64_t)i * DBF_INTENT_BITS + bit;

            if (qatomic_fetch_and(dbf_word(t, i, bit), ~TOUCHED) & TOUCHED) {
                touched(opaque, e << t->extent_bits, 1ULL << t->extent_bits);
            }
        }
    }
}

static int coroutine_fn dbf_pair_retire(DBFIntent *t, unsigned i)
{
    DBFPair *p = t->pairs[i];

    for (unsigned bit = dbf_pair_next(p, 0); bit < DBF_INTENT_BITS;
         bit = dbf_pair_next(p, bit + 1)) {
        if (qatomic_cmpxchg(dbf_word(t, i, bit), DURABLE, 0) == DURABLE) {
            clear_bit_atomic(bit, p->want);
            clear_bit(bit, p->durable);
            qatomic_dec(&t->count);
            /*
             * Whatever becomes of the writing: one that has failed may be
             * there all the same, so the intent is not promised any more.
             */
            p->stale = true;
        }
    }
    return p->stale ? dbf_pair_write(t, i) : 0;
}

int coroutine_fn dbf_intent_retire(DBFIntent *t)
{
    int ret = 0;

    qemu_co_rwlock_rdlock(&t->area_lock);
    for (unsigned i = 0; i < t->n_pairs && ret == 0; i++) {
        qemu_co_mutex_lock(&t->pairs[i]->lock);
        ret = dbf_pair_retire(t, i);
        qemu_co_mutex_unlock(&t->pairs[i]->lock);
    }
    qemu_co_rwlock_unlock(&t->area_lock);
    return ret;
}

/* --- trouble, and change --- */

void dbf_intent_suspend(DBFIntent *t)
{
    qatomic_set(&t->suspended, true);
}

int coroutine_fn dbf_intent_resume(DBFIntent *t)
{
    int ret = qatomic_read(&t->lost) ? -EIO : 0;

    if (t->mode == DBF_MODE_OFF) {
        return 0;
    }
    qemu_co_rwlock_rdlock(&t->area_lock);
    qatomic_set(&t->suspended, false);
    for (unsigned i = 0; i < t->n_pairs && ret == 0; i++) {
        qemu_co_mutex_lock(&t->pairs[i]->lock);
        if (t->pairs[i]->stale) {
            ret = dbf_pair_write(t, i);
        }
        qemu_co_mutex_unlock(&t->pairs[i]->lock);
    }
    if (ret < 0) {
        qatomic_set(&t->suspended, true);
    }
    qemu_co_rwlock_unlock(&t->area_lock);
    return ret;
}

/* All pairs into the area at @area, which nothing refers to yet */
static int coroutine_fn dbf_intent_fill(DBFIntent *t, uint64_t area)
{
    for (unsigned i = 0; i < t->n_pairs; i++) {
        for (unsigned slot = 0; slot < 2; slot++) {
            int ret = dbf_slot_write(t, area, i, slot, t->pairs[i]->want);

            if (ret < 0) {
                return ret;
            }
        }
    }
    return t->mode == DBF_MODE_POWER ? dbf_intent_flush(t) : 0;
}

/* The file refers to the area that dbf_intent_fill() has written */
static void dbf_intent_set_area(DBFIntent *t, uint64_t area)
{
    t->area = area;
    for (unsigned i = 0; i < t->n_pairs; i++) {
        t->pairs[i]->slot = 0;
        t->pairs[i]->stale = false;
    }
}

int coroutine_fn dbf_intent_move(DBFIntent *t, const DBFHeader *header,
                                 DBFCommit *commit, void *opaque)
{
    bool moves = header->intent != t->area;
    unsigned n_pairs = t->n_pairs;
    int ret = 0;

    qemu_co_rwlock_wrlock(&t->area_lock);
    if (moves) {
        dbf_intent_add_pairs(t, header->intent_pairs);
        ret = dbf_intent_fill(t, header->intent);
    }
    if (ret == 0) {
        ret = commit(opaque);
        if (ret < 0) {
            dbf_intent_suspend(t);
        }
    }
    if (ret < 0) {
        t->n_pairs = n_pairs;
    } else {
        t->extents = dbf_extents(header->disk_size, header->extent_bits);
        if (moves) {
            dbf_intent_set_area(t, header->intent);
        }
    }
    qemu_co_rwlock_unlock(&t->area_lock);
    return ret;
}
