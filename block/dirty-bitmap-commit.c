/*
 * Dirty bitmap file: how the store gets into the file
 *
 *   pages --> tables --> directory --> (flush) --> header, header
 *
 * Each goes to free blocks, and only if it differs from what is there, so the
 * file has either what it had before or what it shall have.  Free is what
 * neither a header in the file nor the store's memory leads to.  That is found
 * anew from all references at each commit: 64 references for each 2 MiB of
 * bits, and nothing has to be undone when a commit fails at any point.
 *
 * A commit that fails leaves in memory what it has written already; the next
 * one goes on from there.  What a header was written for counts as being in
 * the file from before its first copy is written, for who can tell after an
 * error; and what was there before it, until both copies are written.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/memalign.h"
#include "dirty-bitmap-store-int.h"

/* A block of a batch: when it is written, @ref is where it is */
typedef struct DBFPut {
    DBFBitmap *b;
    DBFKind kind;
    uint64_t index;
    DBFRef ref;
} DBFPut;

/* The blocks of one commit; they are written in batches of neighbours */
typedef struct DBFWriter {
    DBFStore *s;
    DBFSource *source;
    uint64_t generation;
    unsigned long *used;
    unsigned long from;
    uint8_t *blocks;
    DBFPut puts[DBF_BATCH];
    unsigned n;
} DBFWriter;

/* Nothing is on stable storage after a flush has failed */
static int coroutine_mixed_fn dbf_stable(DBFStore *s, bool stable)
{
    int ret;

    if (!stable) {
        return 0;
    }
    ret = s->lost ? -EIO : s->io->flush(s->io->opaque);
    s->lost |= ret < 0;
    return ret;
}

/* --- pages and tables --- */

/* What was put is in the file at @ref, or needs no place there */
static void dbf_put_done(const DBFPut *put)
{
    DBFBitmap *b = put->b;

    if (put->kind == DBF_TABLE) {
        b->tables[put->index] = put->ref;
        clear_bit(put->index, b->changed_tables);
    } else {
        b->pages[put->index] = put->ref;
        clear_bit(put->index, b->changed);
        set_bit(put->index / DBF_REFS, b->changed_tables);
    }
}

static int coroutine_mixed_fn dbf_writer_flush(DBFWriter *w)
{
    unsigned n = w->n;
    int ret;

    if (n == 0) {
        return 0;
    }
    w->n = 0;
    ret = w->s->io->pwrite(w->s->io->opaque, w->puts[0].ref.offset, w->blocks,
                           n * DBF_BLOCK);
    for (unsigned i = 0; i < n && ret == 0; i++) {
        dbf_put_done(&w->puts[i]);
    }
    return ret;
}

/* Room for one more block; NULL after an error, which is in @ret */
static uint8_t *coroutine_mixed_fn dbf_writer_room(DBFWriter *w, int *ret)
{
    *ret = w->n == DBF_BATCH ? dbf_writer_flush(w) : 0;
    return *ret < 0 ? NULL : w->blocks + w->n * DBF_BLOCK;
}

/* Put the block that dbf_writer_room() made room for */
static int coroutine_mixed_fn dbf_writer_put(DBFWriter *w, DBFPut put)
{
    uint8_t *block = w->blocks + w->n * DBF_BLOCK;

    put.ref.offset = dbf_alloc(w->used, 1, &w->from);
    put.ref.generation = w->generation;
    if (put.ref.offset == 0) {
        return -ENOSPC;
    }
    if (w->n > 0 && put.ref.offset !=
        w->puts[0].ref.offset + w->n * DBF_BLOCK) {
        int ret = dbf_writer_flush(w);

        if (ret < 0) {
            return ret;
        }
        memcpy(w->blocks, block, DBF_BLOCK);
        block = w->blocks;
    }
    dbf_block_seal(block, put.kind, put.index, put.ref.generation,
                   put.ref.offset);
    w->puts[w->n++] = put;
    return 0;
}

/* Put the block if it has to be stored: @same is what it would be else */
static int coroutine_mixed_fn dbf_writer_put_unless(DBFWriter *w, DBFPut put,
                                                    bool stored,
                                                    uint64_t same)
{
    if (stored) {
        return dbf_writer_put(w, put);
    }
    put.ref = (DBFRef) { .offset = same };
    dbf_put_done(&put);
    return 0;
}

static bool dbf_payload_is_ones(const uint8_t *payload, unsigned n)
{
    unsigned bytes = n / 8;
    uint8_t rest = (1U << (n % 8)) - 1;

    for (unsigned i = 0; i < bytes; i++) {
        if (payload[i] != 0xff) {
            return false;
        }
    }
    return rest == 0 || payload[bytes] == rest;
}

static int coroutine_mixed_fn dbf_put_page(DBFWriter *w, DBFBitmap *b,
                                           uint64_t page)
{
    DBFPut put = { .b = b, .kind = DBF_PAGE, .index = page };
    unsigned n = dbf_page_bits(b, page);
    uint8_t *block, *payload;
    bool zeroes, ones;
    int ret;

    block = dbf_writer_room(w, &ret);
    if (!block) {
        return ret;
    }
    payload = dbf_payload(block);
    memset(payload, 0, DBF_PAYLOAD);
    w->source(b->opaque, page * DBF_BITS, n, payload);
    zeroes = buffer_is_zero(payload, DBF_PAYLOAD);
    ones = !zeroes && dbf_payload_is_ones(payload, n);
    return dbf_writer_put_unless(w, put, !zeroes && !ones,
                                 ones ? DBF_REF_ONES : DBF_REF_ZEROES);
}

static int coroutine_mixed_fn dbf_put_table(DBFWriter *w, DBFBitmap *b,
                                            unsigned table)
{
    const DBFRef *refs = b->pages + (uint64_t)table * DBF_REFS;
    DBFPut put = { .b = b, .kind = DBF_TABLE, .index = table };
    unsigned n = dbf_table_pages(b, table);
    bool stored = dbf_ref_stored(refs[0]);
    uint8_t *block;
    int ret;

    block = dbf_writer_room(w, &ret);
    if (!block) {
        return ret;
    }
    memset(dbf_payload(block), 0, DBF_PAYLOAD);
    for (unsigned i = 0; i < n; i++) {
        dbf_ref_put(dbf_payload(block), i, refs[i]);
        stored |= refs[i].offset != refs[0].offset;
    }
    return dbf_writer_put_unless(w, put, stored, refs[0].offset);
}

/* An inconsistent bitmap has nothing to be stored */
static void dbf_bitmap_drop(DBFBitmap *b)
{
    memset(b->pages, 0, b->n_pages * sizeof(DBFRef));
    memset(b->tables, 0, b->n_tables * sizeof(DBFRef));
}

static int coroutine_mixed_fn dbf_put_bitmap(DBFWriter *w, DBFBitmap *b)
{
    int ret = 0;

    if (b->frozen) {
        return 0;
    }
    if (b->inconsistent) {
        dbf_bitmap_drop(b);
        return 0;
    }
    for (uint64_t i = find_first_bit(b->changed, b->n_pages);
         i < b->n_pages && ret == 0;
         i = find_next_bit(b->changed, b->n_pages, i + 1)) {
        ret = dbf_put_page(w, b, i);
    }
    ret = ret < 0 ? ret : dbf_writer_flush(w);
    for (unsigned i = find_first_bit(b->changed_tables, b->n_tables);
         i < b->n_tables && ret == 0;
         i = find_next_bit(b->changed_tables, b->n_tables, i + 1)) {
        ret = dbf_put_table(w, b, i);
    }
    return ret < 0 ? ret : dbf_writer_flush(w);
}

static int coroutine_mixed_fn dbf_put_bitmaps(DBFWriter *w)
{
    DBFBitmap *b;
    int ret = 0;

    w->blocks = qemu_memalign(DBF_BLOCK, DBF_BATCH * DBF_BLOCK);
    QTAILQ_FOREACH(b, &w->s->bitmaps, next) {
        ret = ret < 0 ? ret : dbf_put_bitmap(w, b);
    }
    qemu_vfree(w->blocks);
    return ret;
}

/* --- the directory --- */

/* What it can be at most is within what the format has for it */
QEMU_BUILD_BUG_ON(DBF_MAX_BITMAPS * (16 + DBF_MAX_NAME + 8) +
                  16 * (DBF_MAX_BITS / DBF_BITS / DBF_REFS +
                        2 * DBF_MAX_BITMAPS) > DBF_MAX_DIRECTORY);

/* The directory of @s in whole blocks; @h says how much of it is used */
static uint8_t *dbf_directory_make(DBFStore *s, DBFHeader *h)
{
    g_autofree DBFEntry *entries = dbf_store_entries(s);
    uint64_t length = dbf_directory_length(entries, s->n_bitmaps);
    uint64_t bytes = ROUND_UP(length, DBF_BLOCK);
    uint8_t *buf = qemu_memalign(DBF_BLOCK, bytes);

    memset(buf, 0, bytes);
    dbf_directory_encode(entries, s->n_bitmaps, buf, &h->directory_crc);
    h->directory_length = length;
    return buf;
}

/* Write the directory, if it is another one, and make @h lead to it */
static int coroutine_mixed_fn dbf_put_directory(DBFWriter *w, DBFHeader *h,
                                                const uint8_t *directory)
{
    DBFStore *s = w->s;
    unsigned n = DIV_ROUND_UP(h->directory_length, DBF_BLOCK);
    unsigned long from = DBF_HEADERS;

    if (s->directory && h->directory_length == s->header.directory_length &&
        memcmp(directory, s->directory, h->directory_length) == 0) {
        h->directory = s->header.directory;
        return 0;
    }
    h->directory = dbf_alloc(w->used, n, &from);
    if (h->directory == 0) {
        return -ENOSPC;
    }
    return s->io->pwrite(s->io->opaque, h->directory, directory,
                         n * DBF_BLOCK);
}

/* --- the header --- */

/* Write @h to copy @slot of the header */
static int coroutine_mixed_fn dbf_write_header(DBFStore *s, const DBFHeader *h,
                                               unsigned slot, bool stable)
{
    QEMU_AUTO_VFREE uint8_t *block = qemu_memalign(DBF_BLOCK, DBF_BLOCK);
    uint64_t offset = slot * DBF_BLOCK;
    int ret;

    dbf_header_encode(h, offset, block);
    ret = s->io->pwrite(s->io->opaque, offset, block, DBF_BLOCK);
    ret = ret < 0 ? ret : dbf_stable(s, stable);
    if (ret == 0) {
        s->newest = slot;
    }
    return ret;
}

/* To both places, first to where it does not count */
static int coroutine_mixed_fn dbf_write_headers(DBFStore *s,
                                                const DBFHeader *h,
                                                bool stable)
{
    int ret = 0;

    for (unsigned i = 0; i < DBF_HEADERS && ret == 0; i++) {
        ret = dbf_write_header(s, h, s->newest ^ 1, stable);
    }
    return ret;
}

/* Make @h, which leads to what is in memory, the one that counts */
static int coroutine_mixed_fn dbf_commit_header(DBFStore *s,
                                                const DBFHeader *h,
                                                bool stable)
{
    unsigned long *leads_to = bitmap_new(DBF_MAX_BLOCKS);
    int ret;

    dbf_map_header(leads_to, h);
    dbf_map_bitmaps(s, leads_to);
    bitmap_or(s->committed, s->committed, leads_to, DBF_MAX_BLOCKS);
    s->half = true;
    ret = dbf_write_headers(s, h, stable);
    if (ret == 0) {
        bitmap_copy(s->committed, leads_to, DBF_MAX_BLOCKS);
        s->header = *h;
        s->half = false;
    }
    g_free(leads_to);
    return ret;
}

/* There is no padding, so that headers can be compared */
QEMU_BUILD_BUG_ON(sizeof(DBFHeader) != 120);

/* But for the generation, is it what the file has? */
static bool dbf_header_is_there(const DBFStore *s, const DBFHeader *h)
{
    DBFHeader there = s->header;

    there.generation = h->generation;
    return !s->half && memcmp(&there, h, sizeof(there)) == 0;
}

/* --- commits --- */

/* @forced: the header goes to stable storage in any case */
static int coroutine_mixed_fn dbf_commit(DBFStore *s, DBFSource *source,
                                         bool forced)
{
    bool stable = forced || s->want.mode == DBF_MODE_POWER;
    g_autofree unsigned long *used = dbf_store_used(s);
    DBFWriter w = {
        .s = s, .source = source, .generation = ++s->generation,
        .used = used, .from = DBF_HEADERS,
    };
    QEMU_AUTO_VFREE uint8_t *directory = NULL;
    DBFHeader h = s->want;
    int ret = dbf_put_bitmaps(&w);

    if (ret < 0) {
        return ret;
    }
    h.generation = w.generation;
    h.flags |= s->untrusted ? DBF_UNTRUSTED : 0;
    directory = dbf_directory_make(s, &h);
    ret = dbf_put_directory(&w, &h, directory);
    if (ret < 0 || (!forced && dbf_header_is_there(s, &h))) {
        return ret;
    }
    ret = dbf_stable(s, stable);
    ret = ret < 0 ? ret : dbf_commit_header(s, &h, stable);
    if (ret == 0) {
        g_free(s->directory);
        s->directory = g_memdup2(directory, h.directory_length);
    }
    return ret;
}

int coroutine_mixed_fn dbf_store_commit(DBFStore *s, DBFSource *source)
{
    return dbf_commit(s, source, false);
}

/*
 * After a crash between the two copies the older one still leads to blocks
 * that count as free: it goes before they are used.
 */
static int coroutine_mixed_fn dbf_heal_header(DBFStore *s)
{
    int ret;

    if (!s->half) {
        return 0;
    }
    s->header.generation = ++s->generation;
    ret = dbf_write_headers(s, &s->header, true);
    s->half = ret < 0;
    return ret;
}

int coroutine_mixed_fn dbf_store_begin(DBFStore *s, DBFSource *source,
                                       DBFMode mode, const QemuUUID *boot_id)
{
    int ret = dbf_heal_header(s);

    if (ret < 0) {
        return ret;
    }
    s->want.flags &= ~DBF_CLEAN;
    s->want.mode = mode;
    s->want.boot_id = *boot_id;
    return dbf_commit(s, source, true);
}

/* Free blocks at the end of a file that is closed are of no use */
static void coroutine_mixed_fn dbf_store_shrink(DBFStore *s)
{
    uint64_t used, end, all;

    dbf_store_blocks(s, &used, &end, &all);
    if (all > end) {
        s->io->truncate(s->io->opaque, end * DBF_BLOCK);
    }
}

int coroutine_mixed_fn dbf_store_finish(DBFStore *s, DBFSource *source,
                                        int64_t disk_time_ns)
{
    int ret = dbf_heal_header(s);

    if (ret < 0) {
        return ret;
    }
    s->want.flags |= DBF_CLEAN;
    s->want.disk_time_ns = disk_time_ns;
    ret = dbf_commit(s, source, true);
    if (ret == 0) {
        dbf_store_shrink(s);
    }
    s->want.flags &= ~DBF_CLEAN;
    return ret;
}

/*
 * One copy that is there is enough, even if a crash tears the other one then:
 * a file without a header is not trusted, either.
 */
int coroutine_mixed_fn dbf_store_untrust(DBFStore *s)
{
    bool stable = s->want.mode == DBF_MODE_POWER;
    DBFHeader h = s->header;
    unsigned older = s->newest ^ 1;
    int ret[DBF_HEADERS];

    s->untrusted = true;
    h.generation = ++s->generation;
    h.flags = DBF_UNTRUSTED;
    for (unsigned i = 0; i < DBF_HEADERS; i++) {
        ret[i] = dbf_write_header(s, &h, older ^ i, stable);
    }
    s->half = ret[0] < 0 || ret[1] < 0;
    if (ret[0] < 0 && ret[1] < 0) {
        return ret[1];
    }
    s->header = h;
    return 0;
}

void dbf_store_trust(DBFStore *s)
{
    s->untrusted = false;
    s->want.flags &= ~DBF_UNTRUSTED;
}
