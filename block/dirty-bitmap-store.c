/*
 * Dirty bitmap file: the store
 *
 * The file is a tree: header, directory, tables, pages.  The store has the
 * references of all of it in memory, 16 bytes for a page of 32576 bits, and no
 * bits: those are the owner's.
 *
 * What is here reads the file and changes what is in memory.  How that gets
 * into the file is in dirty-bitmap-commit.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/memalign.h"
#include "qemu/units.h"
#include "dirty-bitmap-store-int.h"

/* 4 MiB: 2 KiB of intents for 64 GiB of disk */
#define DBF_USUAL_EXTENT        22U

/* --- a new file --- */

static void dbf_header_init(DBFHeader *h, uint64_t disk_size,
                            unsigned extent_bits)
{
    *h = (DBFHeader) {
        .generation = 1,
        .disk_size = disk_size,
        .flags = DBF_CLEAN,
        .extent_bits = extent_bits,
        .intent = DBF_FIRST_BLOCK,
        .intent_pairs = dbf_intent_pairs(disk_size, extent_bits),
    };
    qemu_uuid_generate(&h->uuid);
}

static unsigned dbf_choose_extent(uint64_t disk_size)
{
    unsigned bits = DBF_USUAL_EXTENT;

    while (dbf_extents(disk_size, bits) > DBF_MAX_EXTENTS) {
        bits++;
    }
    return bits;
}

/* No intents: the second slot of each pair counts */
static int coroutine_mixed_fn dbf_create_intents(const DBFIO *io,
                                                 const DBFHeader *h)
{
    static const uint8_t none[DBF_INTENT_BYTES];
    QEMU_AUTO_VFREE uint8_t *blocks = qemu_memalign(DBF_BLOCK, 2 * DBF_BLOCK);

    for (unsigned i = 0; i < h->intent_pairs; i++) {
        uint64_t offset = h->intent + 2ULL * i * DBF_BLOCK;
        int ret;

        for (unsigned slot = 0; slot < 2; slot++) {
            dbf_intent_encode(none, i, 1 + slot, offset + slot * DBF_BLOCK,
                              blocks + slot * DBF_BLOCK);
        }
        ret = io->pwrite(io->opaque, offset, blocks, 2 * DBF_BLOCK);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/*
 * The intents come first, where no header leads to yet: a file that was not
 * finished is none.
 */
static int coroutine_mixed_fn dbf_create_blocks(const DBFIO *io,
                                                const DBFHeader *h)
{
    QEMU_AUTO_VFREE uint8_t *headers = qemu_memalign(DBF_BLOCK,
                                                     DBF_FIRST_BLOCK);
    int ret;

    memset(headers, 0, DBF_FIRST_BLOCK);
    ret = io->pwrite(io->opaque, 0, headers, DBF_FIRST_BLOCK);
    if (ret == 0) {
        ret = io->truncate(io->opaque, DBF_FIRST_BLOCK);
    }
    if (ret == 0) {
        ret = dbf_create_intents(io, h);
    }
    if (ret == 0) {
        ret = io->flush(io->opaque);
    }
    if (ret == 0) {
        for (unsigned i = 0; i < DBF_HEADERS; i++) {
            dbf_header_encode(h, i * DBF_BLOCK, headers + i * DBF_BLOCK);
        }
        ret = io->pwrite(io->opaque, 0, headers, DBF_FIRST_BLOCK);
    }
    return ret < 0 ? ret : io->flush(io->opaque);
}

bool coroutine_mixed_fn dbf_store_create(const DBFIO *io, uint64_t disk_size,
                                         unsigned extent_bits, Error **errp)
{
    DBFHeader h;
    int ret;

    if (disk_size <= DBF_MAX_DISK && extent_bits == 0) {
        extent_bits = dbf_choose_extent(disk_size);
    }
    if (!dbf_disk_check(disk_size, extent_bits, errp)) {
        return false;
    }
    dbf_header_init(&h, disk_size, extent_bits);
    ret = dbf_create_blocks(io, &h);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "could not write the bitmap file");
    }
    return ret == 0;
}

/* --- bitmaps in memory --- */

static void dbf_bitmap_free(DBFBitmap *b)
{
    g_free(b->name);
    g_free(b->pages);
    g_free(b->changed);
    g_free(b->tables);
    g_free(b->changed_tables);
    g_free(b);
}

/*
 * Make @b fit a disk of @disk_size.  What it had stays, pages and tables that
 * are new have no bits.
 */
static void dbf_bitmap_fit(DBFBitmap *b, uint64_t disk_size)
{
    uint64_t pages = dbf_pages(disk_size, b->granularity_bits);
    unsigned tables = dbf_tables(disk_size, b->granularity_bits);
    uint64_t old_pages = b->n_pages;

    b->bits = dbf_bits(disk_size, b->granularity_bits);
    b->pages = g_renew(DBFRef, b->pages, pages);
    b->tables = g_renew(DBFRef, b->tables, tables);
    b->changed = bitmap_zero_extend(b->changed, MIN(old_pages, pages), pages);
    b->changed_tables = bitmap_zero_extend(b->changed_tables,
                                           MIN(b->n_tables, tables), tables);
    for (uint64_t i = old_pages; i < pages; i++) {
        b->pages[i] = (DBFRef) {};
    }
    for (unsigned i = b->n_tables; i < tables; i++) {
        b->tables[i] = (DBFRef) {};
    }
    b->n_pages = pages;
    b->n_tables = tables;
}

static DBFBitmap *dbf_bitmap_new(DBFStore *s, const char *name,
                                 unsigned granularity_bits)
{
    DBFBitmap *b = g_new0(DBFBitmap, 1);

    b->name = g_strdup(name);
    b->enabled = true;
    b->granularity_bits = granularity_bits;
    dbf_bitmap_fit(b, s->want.disk_size);
    QTAILQ_INSERT_TAIL(&s->bitmaps, b, next);
    s->n_bitmaps++;
    return b;
}

DBFBitmap *dbf_store_next(const DBFStore *s, const DBFBitmap *b)
{
    return b ? QTAILQ_NEXT(b, next) : QTAILQ_FIRST(&s->bitmaps);
}

DBFBitmap *dbf_store_find(const DBFStore *s, const char *name)
{
    DBFBitmap *b;

    QTAILQ_FOREACH(b, &s->bitmaps, next) {
        if (strcmp(b->name, name) == 0) {
            break;
        }
    }
    return b;
}

DBFEntry *dbf_store_entries(const DBFStore *s)
{
    DBFEntry *entries = g_new(DBFEntry, s->n_bitmaps);
    DBFBitmap *b;
    unsigned i = 0;

    QTAILQ_FOREACH(b, &s->bitmaps, next) {
        entries[i++] = (DBFEntry) {
            .name = b->name, .granularity_bits = b->granularity_bits,
            .enabled = b->enabled, .inconsistent = b->inconsistent,
            .n_tables = b->n_tables, .tables = b->tables,
        };
    }
    return entries;
}

/* Could the bitmaps be those of a disk of @disk_size, with @more bits? */
static bool dbf_store_check_bits(const DBFStore *s, uint64_t disk_size,
                                 uint64_t more, Error **errp)
{
    uint64_t bits = more;
    DBFBitmap *b;

    QTAILQ_FOREACH(b, &s->bitmaps, next) {
        bits += dbf_bits(disk_size, b->granularity_bits);
    }
    if (bits > DBF_MAX_BITS) {
        error_setg(errp, "the bitmaps would have %" PRIu64 " bits together: "
                   "%llu are possible, use a greater granularity", bits,
                   DBF_MAX_BITS);
        return false;
    }
    return true;
}

bool dbf_store_can_add(const DBFStore *s, const char *name,
                       unsigned granularity_bits, Error **errp)
{
    uint64_t disk_size = s->want.disk_size;

    if (!dbf_bitmap_check(name, strlen(name), granularity_bits, disk_size,
                          errp)) {
        return false;
    }
    if (dbf_store_find(s, name)) {
        error_setg(errp, "there is a bitmap '%s' already", name);
        return false;
    }
    if (s->n_bitmaps == DBF_MAX_BITMAPS) {
        error_setg(errp, "at most %u bitmaps are possible", DBF_MAX_BITMAPS);
        return false;
    }
    return dbf_store_check_bits(s, disk_size,
                                dbf_bits(disk_size, granularity_bits), errp);
}

DBFBitmap *dbf_store_add(DBFStore *s, const char *name,
                         unsigned granularity_bits, Error **errp)
{
    DBFBitmap *b;

    if (!dbf_store_can_add(s, name, granularity_bits, errp)) {
        return NULL;
    }
    b = dbf_bitmap_new(s, name, granularity_bits);
    dbf_bitmap_changed(b, 0, s->want.disk_size);
    return b;
}

void dbf_store_remove(DBFStore *s, DBFBitmap *b)
{
    QTAILQ_REMOVE(&s->bitmaps, b, next);
    s->n_bitmaps--;
    dbf_bitmap_free(b);
}

void dbf_bitmap_changed(DBFBitmap *b, uint64_t offset, uint64_t bytes)
{
    unsigned shift = b->granularity_bits;
    uint64_t first, last;

    if (bytes == 0 || offset >> shift >= b->bits) {
        return;
    }
    first = (offset >> shift) / DBF_BITS;
    last = MIN((offset + bytes - 1) >> shift, b->bits - 1) / DBF_BITS;
    bitmap_set(b->changed, first, last - first + 1);
}

/* The page where @b had its end, and what was or is behind it */
static void dbf_bitmap_resize(DBFBitmap *b, uint64_t disk_size)
{
    uint64_t old_pages = b->n_pages;
    uint64_t last;

    dbf_bitmap_fit(b, disk_size);
    if (b->n_pages == 0) {
        return;
    }
    last = MIN(MAX(old_pages, 1), b->n_pages) - 1;
    bitmap_set(b->changed, last, b->n_pages - last);
}

bool dbf_store_resize(DBFStore *s, uint64_t disk_size, Error **errp)
{
    DBFHeader *want = &s->want;
    unsigned pairs;
    DBFBitmap *b;

    if (!dbf_disk_check(disk_size, want->extent_bits, errp) ||
        !dbf_store_check_bits(s, disk_size, 0, errp)) {
        return false;
    }
    pairs = dbf_intent_pairs(disk_size, want->extent_bits);
    if (pairs > want->intent_pairs) {
        g_autofree unsigned long *used = dbf_store_used(s);
        unsigned long from = DBF_HEADERS;
        uint64_t area = dbf_alloc(used, 2 * pairs, &from);

        if (area == 0) {
            error_setg(errp, "no room for intents in the bitmap file, which "
                       "ends at %llu bytes", DBF_MAX_FILE);
            return false;
        }
        want->intent = area;
        want->intent_pairs = pairs;
    }
    want->disk_size = disk_size;
    QTAILQ_FOREACH(b, &s->bitmaps, next) {
        dbf_bitmap_resize(b, disk_size);
    }
    return true;
}

/* --- which blocks are in use --- */

static void dbf_map_ref(unsigned long *map, DBFRef ref, uint64_t *shared)
{
    if (dbf_ref_stored(ref)) {
        *shared += test_and_set_bit(ref.offset / DBF_BLOCK, map);
    }
}

uint64_t dbf_map_bitmaps(const DBFStore *s, unsigned long *map)
{
    uint64_t shared = 0;
    DBFBitmap *b;

    QTAILQ_FOREACH(b, &s->bitmaps, next) {
        for (unsigned i = 0; i < b->n_tables; i++) {
            dbf_map_ref(map, b->tables[i], &shared);
        }
        for (uint64_t i = 0; i < b->n_pages; i++) {
            dbf_map_ref(map, b->pages[i], &shared);
        }
    }
    return shared;
}

void dbf_map_header(unsigned long *map, const DBFHeader *h)
{
    dbf_map_area(map, 0, DBF_FIRST_BLOCK);
    dbf_map_area(map, h->intent, 2ULL * h->intent_pairs * DBF_BLOCK);
    dbf_map_area(map, h->directory, h->directory_length);
}

unsigned long *dbf_store_used(const DBFStore *s)
{
    unsigned long *used = bitmap_new(DBF_MAX_BLOCKS);

    dbf_map_header(used, &s->want);
    dbf_map_bitmaps(s, used);
    bitmap_or(used, used, s->committed, DBF_MAX_BLOCKS);
    return used;
}

uint64_t dbf_alloc(unsigned long *used, unsigned n, unsigned long *from)
{
    unsigned long at = bitmap_find_next_zero_area(used, DBF_MAX_BLOCKS, *from,
                                                  n, 0);

    if (at + n > DBF_MAX_BLOCKS) {
        return 0;
    }
    bitmap_set(used, at, n);
    *from = at + n;
    return (uint64_t)at * DBF_BLOCK;
}

void dbf_store_blocks(const DBFStore *s, uint64_t *used, uint64_t *end,
                      uint64_t *all)
{
    int64_t length = s->io->length(s->io->opaque);

    *used = bitmap_count_one(s->committed, DBF_MAX_BLOCKS);
    *end = find_last_bit(s->committed, DBF_MAX_BLOCKS) + 1;
    *all = length < 0 ? *end : DIV_ROUND_UP(length, DBF_BLOCK);
}

/* --- opening --- */

static bool coroutine_mixed_fn dbf_open_header(DBFStore *s, Error **errp)
{
    QEMU_AUTO_VFREE uint8_t *blocks = qemu_memalign(DBF_BLOCK,
                                                    DBF_FIRST_BLOCK);
    int64_t length = s->io->length(s->io->opaque);
    int ret = length < DBF_FIRST_BLOCK ? MIN(length, 0) :
        s->io->pread(s->io->opaque, 0, blocks, DBF_FIRST_BLOCK);
    Error *why = NULL;

    if (ret < 0) {
        error_setg_errno(errp, -ret, "could not read the header");
        return false;
    }
    if (length < DBF_FIRST_BLOCK) {
        error_setg(errp, "a file of %" PRId64 " bytes is no dirty bitmap file",
                   length);
        return false;
    }
    for (unsigned i = 0; i < DBF_HEADERS; i++) {
        DBFHeader h;

        if (!dbf_header_decode(blocks + i * DBF_BLOCK, i * DBF_BLOCK, &h,
                               why ? NULL : &why)) {
            s->damage.headers++;
            continue;
        }
        s->half |= i > 0 && h.generation != s->header.generation;
        if (h.generation > s->header.generation) {
            s->header = h;
            s->newest = i;
        }
    }
    s->half |= s->damage.headers > 0;
    if (s->damage.headers == DBF_HEADERS) {
        error_propagate(errp, why);
        return false;
    }
    error_free(why);
    return true;
}

static bool dbf_header_usable(const DBFHeader *h, int64_t length,
                              Error **errp)
{
    if (h->incompatible) {
        error_setg(errp, "features that are not known: 0x%" PRIx64,
                   h->incompatible);
        return false;
    }
    if (h->intent + 2ULL * h->intent_pairs * DBF_BLOCK > length) {
        error_setg(errp, "the file ends at %" PRId64 ", before its intents do",
                   length);
        return false;
    }
    return true;
}

/* Returns the entries of the directory, or NULL with @errp set */
static DBFEntry *coroutine_mixed_fn dbf_open_directory(DBFStore *s,
                                                       int64_t length,
                                                       unsigned *n,
                                                       Error **errp)
{
    const DBFHeader *h = &s->header;
    uint64_t bytes = ROUND_UP(h->directory_length, DBF_BLOCK);
    QEMU_AUTO_VFREE uint8_t *buf = qemu_memalign(DBF_BLOCK, bytes);
    DBFEntry *entries;
    int ret;

    if (h->directory + bytes > length) {
        error_setg(errp, "the file ends at %" PRId64 ", before its directory "
                   "does", length);
        return NULL;
    }
    ret = s->io->pread(s->io->opaque, h->directory, buf, bytes);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "could not read the directory");
        return NULL;
    }
    if (!dbf_directory_decode(buf, h, length, &entries, n, errp)) {
        return NULL;
    }
    s->directory = g_memdup2(buf, h->directory_length);
    return entries;
}

static void dbf_bitmap_take_entry(DBFStore *s, const DBFEntry *e)
{
    DBFBitmap *b = dbf_bitmap_new(s, e->name, e->granularity_bits);

    b->enabled = e->enabled;
    b->inconsistent = e->inconsistent;
    if (e->n_tables) {
        memcpy(b->tables, e->tables, e->n_tables * sizeof(DBFRef));
    }
}

/* The references in table @i of @b, which is in @block; false: damaged */
static bool dbf_table_take(DBFBitmap *b, unsigned i, uint8_t *block,
                           int64_t length)
{
    uint64_t first = (uint64_t)i * DBF_REFS;
    uint64_t generation;

    if (!dbf_block_check(block, DBF_TABLE, i, b->tables[i].offset,
                         &generation) ||
        generation != b->tables[i].generation) {
        return false;
    }
    for (unsigned n = 0; n < dbf_table_pages(b, i); n++) {
        DBFRef ref = dbf_ref_get(dbf_payload(block), n);

        if (!dbf_ref_valid(ref, length)) {
            return false;
        }
        b->pages[first + n] = ref;
    }
    return true;
}

/* What cannot be read may be anything: all of it is dirty, and wrong */
static void dbf_table_lose(DBFStore *s, DBFBitmap *b, unsigned i)
{
    uint64_t first = (uint64_t)i * DBF_REFS;

    for (unsigned n = 0; n < dbf_table_pages(b, i); n++) {
        b->pages[first + n] = (DBFRef) { .offset = DBF_REF_ONES };
    }
    set_bit(i, b->changed_tables);
    b->inconsistent |= !s->repair;
    b->damaged += dbf_table_pages(b, i);
    s->damage.tables++;
}

static int coroutine_mixed_fn dbf_open_tables(DBFStore *s, DBFBitmap *b,
                                              int64_t length)
{
    QEMU_AUTO_VFREE uint8_t *block = qemu_memalign(DBF_BLOCK, DBF_BLOCK);

    for (unsigned i = 0; i < b->n_tables; i++) {
        DBFRef ref = b->tables[i];

        if (dbf_ref_stored(ref)) {
            int ret = s->io->pread(s->io->opaque, ref.offset, block, DBF_BLOCK);

            if (ret < 0) {
                return ret;
            }
            if (!dbf_table_take(b, i, block, length)) {
                dbf_table_lose(s, b, i);
            }
            continue;
        }
        for (unsigned n = 0; n < dbf_table_pages(b, i); n++) {
            b->pages[(uint64_t)i * DBF_REFS + n] = ref;
        }
    }
    return 0;
}

/* The bitmaps of the file; what is damaged is noted, and no error */
static bool coroutine_mixed_fn dbf_open_bitmaps(DBFStore *s, int64_t length,
                                                Error **errp)
{
    Error *why = NULL;
    unsigned n = 0;
    DBFEntry *entries;
    DBFBitmap *b;
    int ret = 0;

    if (s->header.directory == 0) {
        return true;
    }
    entries = dbf_open_directory(s, length, &n, &why);
    if (!entries && why) {
        s->damage.directory = g_strdup(error_get_pretty(why));
        error_free(why);
        return true;
    }
    for (unsigned i = 0; i < n; i++) {
        dbf_bitmap_take_entry(s, &entries[i]);
    }
    dbf_entries_free(entries, n);
    QTAILQ_FOREACH(b, &s->bitmaps, next) {
        ret = ret < 0 ? ret : dbf_open_tables(s, b, length);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "could not read the tables");
    }
    return ret == 0;
}

/* A block has one place in the tree, else it is nobody's */
static void dbf_open_map(DBFStore *s)
{
    DBFBitmap *b;

    dbf_map_header(s->committed, &s->header);
    s->damage.shared = dbf_map_bitmaps(s, s->committed);
    QTAILQ_FOREACH(b, &s->bitmaps, next) {
        b->inconsistent |= s->damage.shared > 0;
    }
}

DBFStore *coroutine_mixed_fn dbf_store_open(const DBFIO *io, bool repair,
                                            Error **errp)
{
    DBFStore *s = g_new0(DBFStore, 1);
    int64_t length = io->length(io->opaque);

    s->io = io;
    s->repair = repair;
    s->committed = bitmap_new(DBF_MAX_BLOCKS);
    QTAILQ_INIT(&s->bitmaps);
    if (!dbf_open_header(s, errp) ||
        !dbf_header_usable(&s->header, length, errp)) {
        goto fail;
    }
    s->want = s->header;
    s->generation = s->header.generation;
    s->want.autoclear = 0;
    if (!dbf_open_bitmaps(s, length, errp)) {
        goto fail;
    }
    dbf_open_map(s);
    return s;

fail:
    dbf_store_free(s);
    return NULL;
}

void dbf_store_free(DBFStore *s)
{
    DBFBitmap *b, *next;

    if (!s) {
        return;
    }
    QTAILQ_FOREACH_SAFE(b, &s->bitmaps, next, next) {
        dbf_store_remove(s, b);
    }
    g_free(s->damage.directory);
    g_free(s->directory);
    g_free(s->committed);
    g_free(s);
}

const DBFHeader *dbf_store_header(const DBFStore *s)
{
    return &s->header;
}

const DBFHeader *dbf_store_wanted(const DBFStore *s)
{
    return &s->want;
}

const DBFDamage *dbf_store_damage(const DBFStore *s)
{
    return &s->damage;
}

/* --- loading --- */

typedef struct DBFLoad {
    DBFStore *s;
    DBFBitmap *b;
    DBFSink *sink;
    void *opaque;
} DBFLoad;

/* Clear what @payload has behind @n bits */
static void dbf_payload_cut(uint8_t *payload, unsigned n)
{
    if (n % 8) {
        payload[n / 8] &= (1U << (n % 8)) - 1;
    }
    memset(payload + DIV_ROUND_UP(n, 8), 0, DBF_PAYLOAD - DIV_ROUND_UP(n, 8));
}

static void dbf_load_page(DBFLoad *l, uint64_t page, uint8_t *payload)
{
    unsigned n = dbf_page_bits(l->b, page);

    dbf_payload_cut(payload, n);
    l->sink(l->opaque, page * DBF_BITS, n, payload);
}

static void dbf_load_ones(DBFLoad *l, uint64_t page)
{
    uint8_t payload[DBF_PAYLOAD];

    memset(payload, 0xff, sizeof(payload));
    dbf_load_page(l, page, payload);
}

static void dbf_load_block(DBFLoad *l, uint64_t page, uint8_t *block)
{
    DBFBitmap *b = l->b;
    uint64_t generation;

    if (dbf_block_check(block, DBF_PAGE, page, b->pages[page].offset,
                        &generation) &&
        generation == b->pages[page].generation) {
        dbf_load_page(l, page, dbf_payload(block));
        return;
    }
    b->damaged++;
    b->inconsistent |= !l->s->repair;
    set_bit(page, b->changed);
    dbf_load_ones(l, page);
}

/* How many pages from @page on are neighbours in the file */
static unsigned dbf_load_run(const DBFBitmap *b, uint64_t page)
{
    unsigned n = 1;

    while (n < DBF_BATCH && page + n < b->n_pages &&
           b->pages[page + n].offset == b->pages[page].offset + n * DBF_BLOCK) {
        n++;
    }
    return n;
}

int coroutine_mixed_fn dbf_store_load(DBFStore *s, DBFBitmap *b,
                                      DBFSink *sink, void *opaque)
{
    QEMU_AUTO_VFREE uint8_t *blocks = qemu_memalign(DBF_BLOCK,
                                                    DBF_BATCH * DBF_BLOCK);
    DBFLoad l = { s, b, sink, opaque };
    uint64_t page = 0;

    while (page < b->n_pages) {
        DBFRef ref = b->pages[page];
        unsigned n;
        int ret;

        if (!dbf_ref_stored(ref)) {
            if (ref.offset == DBF_REF_ONES) {
                dbf_load_ones(&l, page);
            }
            page++;
            continue;
        }
        n = dbf_load_run(b, page);
        ret = s->io->pread(s->io->opaque, ref.offset, blocks, n * DBF_BLOCK);
        if (ret < 0) {
            return ret;
        }
        for (unsigned i = 0; i < n; i++) {
            dbf_load_block(&l, page + i, blocks + i * DBF_BLOCK);
        }
        page += n;
    }
    return 0;
}
