/*
 * Dirty bitmap file: tests of the store
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "../../block/dirty-bitmap-intent.h"
#include "../../block/dirty-bitmap-store.h"
#include "dirty-bitmap-disk.h"

#define MAX_BITMAPS     4
#define PAGE_BYTES      (DBF_BITS * 512ULL)

static const QemuUUID boot_id = { .data = { 1, 2, 3 } };

/* --- bitmaps in memory --- */

typedef struct Bits {
    unsigned long *map;
    uint64_t n;
} Bits;

static Bits *bits_new(uint64_t n)
{
    Bits *bits = g_new(Bits, 1);

    *bits = (Bits) { bitmap_new(n), n };
    return bits;
}

static void bits_free(Bits *bits)
{
    g_free(bits->map);
    g_free(bits);
}

static void bits_sink(void *opaque, uint64_t first, uint64_t n,
                      const uint8_t *payload)
{
    Bits *bits = opaque;

    g_assert_cmpuint(first % DBF_BITS, ==, 0);
    g_assert_cmpuint(first + n, <=, bits->n);
    for (uint64_t i = 0; i < DBF_BITS; i++) {
        if (payload[i / 8] & (1 << (i % 8))) {
            g_assert_cmpuint(i, <, n);
            set_bit(first + i, bits->map);
        }
    }
}

static void bits_source(void *opaque, uint64_t first, uint64_t n,
                        uint8_t *payload)
{
    Bits *bits = opaque;

    g_assert_cmpuint(first + n, <=, bits->n);
    for (uint64_t i = find_next_bit(bits->map, bits->n, first);
         i < first + n; i = find_next_bit(bits->map, bits->n, i + 1)) {
        payload[(i - first) / 8] |= 1 << ((i - first) % 8);
    }
}

/* All that @s and the bits of its owner are, as text */
static char *store_state(const DBFStore *s)
{
    GString *text = g_string_new(NULL);

    g_string_printf(text, "disk %" PRIu64 "\n",
                    dbf_store_wanted(s)->disk_size);
    for (DBFBitmap *b = dbf_store_next(s, NULL); b; b = dbf_store_next(s, b)) {
        Bits *bits = b->opaque;
        g_autofree char *sum = b->inconsistent ? NULL :
            g_compute_checksum_for_data(G_CHECKSUM_SHA1, (guchar *)bits->map,
                                        BITS_TO_LONGS(bits->n) * sizeof(long));

        g_string_append_printf(text, "%s %u %" PRIu64 " %d %s\n", b->name,
                               b->granularity_bits, b->bits, b->enabled,
                               sum ?: "inconsistent");
    }
    return g_string_free(text, false);
}

/* Open the file on @d and read all of it */
static DBFStore *store_load(Disk *d, bool repair)
{
    DBFStore *s = dbf_store_open(&d->io, repair, &error_abort);

    for (DBFBitmap *b = dbf_store_next(s, NULL); b; b = dbf_store_next(s, b)) {
        b->opaque = bits_new(b->bits);
        g_assert_cmpint(dbf_store_load(s, b, bits_sink, b->opaque), ==, 0);
    }
    return s;
}

static void store_drop(DBFStore *s)
{
    for (DBFBitmap *b = dbf_store_next(s, NULL); b; b = dbf_store_next(s, b)) {
        bits_free(b->opaque);
    }
    dbf_store_free(s);
}

static DBFBitmap *store_add(DBFStore *s, const char *name, unsigned shift)
{
    DBFBitmap *b = dbf_store_add(s, name, shift, &error_abort);

    b->opaque = bits_new(b->bits);
    return b;
}

static void store_set(DBFBitmap *b, uint64_t first, uint64_t n)
{
    Bits *bits = b->opaque;

    bitmap_set(bits->map, first, n);
    dbf_bitmap_changed(b, first << b->granularity_bits,
                       n << b->granularity_bits);
}

static void assert_same(const DBFStore *s, Disk *d)
{
    DBFStore *file = store_load(d, false);
    g_autofree char *want = store_state(s);
    g_autofree char *have = store_state(file);

    g_assert_cmpstr(have, ==, want);
    store_drop(file);
}

static Disk *disk_with_file(uint64_t disk_size)
{
    Disk *d = disk_new(1);

    dbf_store_create(&d->io, disk_size, 20, &error_abort);
    return d;
}

/* --- one thing at a time --- */

static void test_life(void)
{
    Disk *d = disk_with_file(3 * PAGE_BYTES + 512);
    DBFStore *s = store_load(d, false);
    DBFBitmap *b;
    uint64_t used, end, all;

    g_assert_cmpint(dbf_header_trust(dbf_store_header(s), &boot_id), ==,
                    DBF_TRUST_CLEAN);
    g_assert_null(dbf_store_next(s, NULL));
    g_assert_cmpint(dbf_store_begin(s, bits_source, DBF_MODE_PROCESS,
                                    &boot_id), ==, 0);
    g_assert_cmpint(dbf_header_trust(dbf_store_header(s), &boot_id), ==,
                    DBF_TRUST_INTENTS);

    b = store_add(s, "a", 9);
    g_assert_cmpuint(b->bits, ==, 3 * DBF_BITS + 1);
    g_assert_true(b->enabled);
    store_set(b, 7, 1);
    store_set(b, DBF_BITS, DBF_BITS);
    store_set(b, 3 * DBF_BITS, 1);
    /* An extent may go beyond the end of the disk */
    dbf_bitmap_changed(b, 512, 1ULL << 40);
    dbf_bitmap_changed(b, 1ULL << 40, 512);
    g_assert_cmpint(dbf_store_commit(s, bits_source), ==, 0);
    assert_same(s, d);
    /* One page is stored: the others are zeroes and ones */
    dbf_store_blocks(s, &used, &end, &all);
    g_assert_cmpuint(used, ==, 2 + 2 + 1 + 1 + 1);
    g_assert_cmpuint(all, >=, used);

    /* Nothing has changed: nothing is written */
    d->requests = 0;
    g_assert_cmpint(dbf_store_commit(s, bits_source), ==, 0);
    g_assert_cmpuint(d->requests, ==, 0);

    b->enabled = false;
    g_free(b->name);
    b->name = g_strdup("b");
    g_assert_cmpint(dbf_store_commit(s, bits_source), ==, 0);
    assert_same(s, d);
    g_assert_null(dbf_store_find(s, "a"));
    g_assert_true(dbf_store_find(s, "b") == b);

    store_drop(s);
    disk_free(d);
}

static void store_remove(DBFStore *s, DBFBitmap *b)
{
    bits_free(b->opaque);
    dbf_store_remove(s, b);
}

/* What the file has stays until it is not frozen any more */
static void test_frozen(void)
{
    Disk *d = disk_with_file(3 * PAGE_BYTES + 512);
    DBFStore *s = store_load(d, false);
    DBFBitmap *b = store_add(s, "a", 9);
    DBFStore *there;

    g_assert_cmpint(dbf_store_commit(s, bits_source), ==, 0);
    store_set(b, 7, 1);
    b->frozen = true;
    store_add(s, "b", 9);
    g_assert_cmpint(dbf_store_commit(s, bits_source), ==, 0);
    there = store_load(d, false);
    g_assert_false(test_bit(7, ((Bits *)dbf_store_find(there, "a")->opaque)
                               ->map));
    g_assert_nonnull(dbf_store_find(there, "b"));
    store_drop(there);

    b->frozen = false;
    g_assert_cmpint(dbf_store_commit(s, bits_source), ==, 0);
    assert_same(s, d);
    store_drop(s);
    disk_free(d);
}

static void test_finish(void)
{
    Disk *d = disk_with_file(3 * PAGE_BYTES + 512);
    DBFStore *s = store_load(d, false);
    QemuUUID uuid = dbf_store_header(s)->uuid;
    DBFBitmap *b;
    uint64_t used, end, all;

    g_assert_false(qemu_uuid_is_null(&uuid));
    g_assert_cmpint(dbf_store_begin(s, bits_source, DBF_MODE_PROCESS,
                                    &boot_id), ==, 0);
    b = store_add(s, "a", 9);
    store_set(b, 7, 1);
    g_assert_cmpint(dbf_store_commit(s, bits_source), ==, 0);

    store_remove(s, b);
    g_assert_cmpint(dbf_store_finish(s, bits_source, 77), ==, 0);
    assert_same(s, d);
    dbf_store_blocks(s, &used, &end, &all);
    g_assert_cmpuint(used, ==, 2 + 2 + 1);
    /* The directory may be anywhere, nothing is behind what is used */
    g_assert_cmpuint(all, ==, end);
    g_assert_cmpuint(all, ==, MAX(dbf_store_header(s)->directory / DBF_BLOCK,
                                  3) + 1);
    /* Not clean again without being asked */
    b = store_add(s, "c", 9);
    g_assert_cmpint(dbf_store_commit(s, bits_source), ==, 0);
    g_assert_cmpint(dbf_header_trust(dbf_store_header(s), &boot_id), ==,
                    DBF_TRUST_INTENTS);
    store_remove(s, b);
    g_assert_cmpint(dbf_store_finish(s, bits_source, 77), ==, 0);
    store_drop(s);

    s = store_load(d, false);
    g_assert_true(qemu_uuid_is_equal(&uuid, &dbf_store_header(s)->uuid));
    g_assert_cmpint(dbf_store_header(s)->disk_time_ns, ==, 77);
    g_assert_cmpint(dbf_header_trust(dbf_store_header(s), &boot_id), ==,
                    DBF_TRUST_CLEAN);
    store_drop(s);
    disk_free(d);
}

static void assert_add_fails(DBFStore *s, const char *name, unsigned shift,
                             const char *why)
{
    Error *err = NULL;

    g_assert_null(dbf_store_add(s, name, shift, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), why));
    error_free(err);
}

static void test_bounds(void)
{
    Disk *d = disk_with_file(1 << 20);
    DBFStore *s = store_load(d, false);
    g_autofree char *long_name = g_strnfill(DBF_MAX_NAME + 1, 'x');
    Error *err = NULL;

    assert_add_fails(s, "", 16, "1 to 1023 bytes");
    assert_add_fails(s, long_name, 16, "1 to 1023 bytes");
    assert_add_fails(s, "\xff", 16, "UTF-8");
    assert_add_fails(s, "a", 8, "2^9 to 2^31");
    assert_add_fails(s, "a", 32, "2^9 to 2^31");
    store_add(s, long_name + 1, 31);
    assert_add_fails(s, long_name + 1, 16, "already");
    for (unsigned i = 1; i < DBF_MAX_BITMAPS; i++) {
        g_autofree char *name = g_strdup_printf("%u", i);

        store_add(s, name, 9);
    }
    assert_add_fails(s, "a", 16, "at most 64");
    g_assert_false(dbf_store_resize(s, 1ULL << 37, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "bits together"));
    error_free(err);
    err = NULL;
    g_assert_false(dbf_store_resize(s, 513, &err));
    error_free(err);
    err = NULL;
    g_assert_false(dbf_store_resize(s, 1ULL << 45, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "extents"));
    error_free(err);
    g_assert_cmpuint(dbf_store_wanted(s)->disk_size, ==, 1 << 20);
    store_drop(s);
    disk_free(d);
}

static void test_create_bounds(void)
{
    static const struct {
        uint64_t size;
        unsigned extent_bits, chosen;
    } cases[] = {
        { 0, 0, 22 }, { 1ULL << 46, 0, 22 }, { (1ULL << 46) + 512, 0, 23 },
        { DBF_MAX_DISK, 0, 39 }, { 1ULL << 40, 40, 40 },
        { 1, 0, 0 }, { DBF_MAX_DISK + 512, 0, 0 }, { 512, 19, 0 },
        { 512, 41, 0 }, { 1ULL << 45, 20, 0 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Disk *d = disk_new(1);
        Error *err = NULL;

        /* The area of the greatest disk is 1076 blocks and does not fit here */
        if (cases[i].chosen) {
            d->fail_in = 4;
        }
        dbf_store_create(&d->io, cases[i].size, cases[i].extent_bits, &err);
        if (cases[i].chosen == 0) {
            g_assert_nonnull(err);
        }
        error_free(err);
        g_assert_cmpint(d->fail_in, <, 4 + !cases[i].chosen);
        disk_free(d);
    }
}

/* --- the tree --- */

/* Two tables, and as many kinds of pages as there are */
static void test_tables(void)
{
    unsigned pages = DBF_REFS + 20;
    Disk *d = disk_with_file(pages * PAGE_BYTES - 512);
    DBFStore *s = store_load(d, false);
    DBFBitmap *b = store_add(s, "a", 9);
    uint64_t used, end, all;

    g_assert_cmpuint(b->n_tables, ==, 2);
    g_assert_cmpint(dbf_store_commit(s, bits_source), ==, 0);
    assert_same(s, d);
    dbf_store_blocks(s, &used, &end, &all);
    /* No table, no page */
    g_assert_cmpuint(used, ==, 2 + 2 + 1);

    /* All of a table is ones */
    store_set(b, 0, (uint64_t)DBF_REFS * DBF_BITS);
    g_assert_cmpint(dbf_store_commit(s, bits_source), ==, 0);
    assert_same(s, d);
    dbf_store_blocks(s, &used, &end, &all);
    g_assert_cmpuint(used, ==, 2 + 2 + 1);

    /* Pages that are stored, far apart and neighbours; the last page is full */
    bitmap_clear(((Bits *)b->opaque)->map, 5, 1);
    dbf_bitmap_changed(b, 5 * 512, 512);
    for (unsigned i = 100; i < 100 + 80; i++) {
        bitmap_clear(((Bits *)b->opaque)->map, i * DBF_BITS + i, 1);
        dbf_bitmap_changed(b, i * PAGE_BYTES, 512);
    }
    store_set(b, (uint64_t)(pages - 1) * DBF_BITS, DBF_BITS - 1);
    g_assert_cmpint(dbf_store_commit(s, bits_source), ==, 0);
    assert_same(s, d);
    dbf_store_blocks(s, &used, &end, &all);
    g_assert_cmpuint(used, ==, 2 + 2 + 1 + 2 + 81);

    /* An inconsistent one gives all of it back */
    b->inconsistent = true;
    g_assert_cmpint(dbf_store_finish(s, bits_source, 0), ==, 0);
    assert_same(s, d);
    dbf_store_blocks(s, &used, &end, &all);
    g_assert_cmpuint(used, ==, 2 + 2 + 1);
    g_assert_cmpuint(all, <, 100);
    store_drop(s);
    disk_free(d);
}

static void resize_bits(DBFStore *s, uint64_t disk_size)
{
    dbf_store_resize(s, disk_size, &error_abort);
    for (DBFBitmap *b = dbf_store_next(s, NULL); b; b = dbf_store_next(s, b)) {
        Bits *bits = b->opaque;
        uint64_t old = MIN(bits->n, b->bits);

        bits->map = bitmap_zero_extend(bits->map, old, b->bits);
        bits->n = b->bits;
        /* What is behind the end must not be compared */
        bitmap_clear(bits->map, old, ROUND_UP(b->bits, BITS_PER_LONG) - old);
    }
}

static void test_resize(void)
{
    static const uint64_t sizes[] = {
        2 * PAGE_BYTES + 512, 2 * PAGE_BYTES, 2 * PAGE_BYTES - 512, 512, 0,
        512, PAGE_BYTES, (DBF_REFS + 3) * PAGE_BYTES, 4 * PAGE_BYTES,
        70000ULL << 20, 1 << 20,
    };
    Disk *d = disk_with_file(0);
    DBFStore *s = store_load(d, false);

    store_add(s, "a", 9);
    store_add(s, "b", 16);
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        uint64_t intent = dbf_store_header(s)->intent;

        resize_bits(s, sizes[i]);
        for (DBFBitmap *b = dbf_store_next(s, NULL); b;
             b = dbf_store_next(s, b)) {
            if (b->bits) {
                store_set(b, b->bits - 1, 1);
            }
        }
        g_assert_cmpint(dbf_store_commit(s, bits_source), ==, 0);
        assert_same(s, d);
        /* More pairs are elsewhere, and stay */
        g_assert_true((dbf_store_header(s)->intent == intent) ==
                      (sizes[i] < 70000ULL << 20));
        g_assert_cmpuint(dbf_store_header(s)->intent_pairs, ==,
                         sizes[i] >= 70000ULL << 20 ||
                         i > ARRAY_SIZE(sizes) - 2 ? 3 : 1);
    }
    store_drop(s);
    disk_free(d);
}

/* --- damage --- */

static Disk *small_file(void)
{
    Disk *d = disk_with_file(2 * PAGE_BYTES);
    DBFStore *s = store_load(d, false);

    g_assert_cmpint(dbf_store_begin(s, bits_source, DBF_MODE_PROCESS,
                                    &boot_id), ==, 0);
    store_set(store_add(s, "a", 9), 5, 3);
    store_set(store_add(s, "b", 10), 100, 1);
    g_assert_cmpint(dbf_store_finish(s, bits_source, 0), ==, 0);
    store_drop(s);
    return d;
}

/*
 * Whatever byte is another one, what is read is what was there, or is said to
 * be damaged.
 */
static void test_damage(void)
{
    Disk *d = small_file();
    DBFStore *s = store_load(d, false);
    g_autofree char *right = store_state(s);
    unsigned repaired = 0, refused = 0;

    store_drop(s);
    for (uint64_t at = 0; at < d->length; at += g_test_slow() ? 1 : 5) {
        Disk *copy = disk_copy(d, d->now);
        Error *err = NULL;
        g_autofree char *state = NULL;
        const DBFDamage *damage;
        bool any = false;

        copy->now[at] ^= 1 << disk_draw(d, 8);
        s = dbf_store_open(&copy->io, false, &err);
        if (!s) {
            g_assert_nonnull(err);
            error_free(err);
            refused++;
            disk_free(copy);
            continue;
        }
        dbf_store_free(s);
        s = store_load(copy, false);
        state = store_state(s);
        damage = dbf_store_damage(s);
        for (DBFBitmap *b = dbf_store_next(s, NULL); b;
             b = dbf_store_next(s, b)) {
            g_assert_true(b->inconsistent == (b->damaged > 0));
            any |= b->inconsistent;
        }
        g_assert_true(strcmp(state, right) == 0 || damage->directory || any);
        repaired += any;
        store_drop(s);
        disk_free(copy);
    }
    /* One header is enough */
    g_assert_cmpuint(refused, ==, 0);
    g_assert_cmpuint(repaired, >, 0);
    disk_free(d);
}

/* Repairing a bitmap makes dirty what could not be read */
static void test_repair(void)
{
    for (unsigned table = 0; table < 2; table++) {
        Disk *d = small_file();
        DBFStore *s = store_load(d, false);
        DBFBitmap *b = dbf_store_find(s, "a");
        uint64_t at = table ? b->tables[0].offset : b->pages[0].offset;
        Bits *bits;

        store_drop(s);
        d->now[at + 100] ^= 1;
        s = store_load(d, true);
        b = dbf_store_find(s, "a");
        bits = b->opaque;
        g_assert_cmpuint(b->damaged, ==, table ? 2 : 1);
        g_assert_false(b->inconsistent);
        g_assert_cmpuint(dbf_store_damage(s)->tables, ==, table);
        g_assert_cmpuint(bitmap_count_one(bits->map, bits->n), ==,
                         b->damaged * DBF_BITS);
        g_assert_cmpint(dbf_store_commit(s, bits_source), ==, 0);
        assert_same(s, d);
        store_drop(s);

        s = store_load(d, false);
        b = dbf_store_find(s, "a");
        g_assert_false(b->inconsistent);
        g_assert_cmpuint(b->damaged, ==, 0);
        store_drop(s);
        disk_free(d);
    }
}

/* A file whose blocks are valid, but that lies */
static void test_shared(void)
{
    Disk *d = small_file();
    DBFStore *s = store_load(d, false);
    DBFBitmap *a = dbf_store_find(s, "a"), *b = dbf_store_find(s, "b");

    /* The same page index, so that it would pass for either one's */
    b->pages[0] = a->pages[0];
    set_bit(0, b->changed_tables);
    g_assert_cmpint(dbf_store_commit(s, bits_source), ==, 0);
    store_drop(s);

    s = store_load(d, true);
    g_assert_cmpuint(dbf_store_damage(s)->shared, ==, 1);
    g_assert_true(dbf_store_find(s, "a")->inconsistent);
    g_assert_true(dbf_store_find(s, "b")->inconsistent);
    store_drop(s);
    disk_free(d);
}

typedef struct Lie {
    const char *path;
    bool table;
    uint32_t index;
    int generation;         /* what is added to the right one */
    bool reserved;          /* bits behind the end, which say nothing */
    bool believed;
} Lie;

/* Blocks with a good checksum that are not what is looked for */
static void test_lie(const void *opaque)
{
    const Lie *lie = opaque;
    Disk *d = disk_with_file(PAGE_BYTES / 2 + 512);
    DBFStore *s = store_load(d, false);
    DBFBitmap *b = store_add(s, "a", 9);
    g_autofree char *state = NULL, *lied = NULL;
    uint8_t *block;
    DBFRef ref;

    store_set(b, 5, 3);
    g_assert_cmpint(dbf_store_commit(s, bits_source), ==, 0);
    state = store_state(s);
    ref = lie->table ? b->tables[0] : b->pages[0];
    block = d->now + ref.offset;
    if (lie->reserved) {
        memset(dbf_payload(block) + b->bits / 8 + 1, 0xff,
               DBF_PAYLOAD - b->bits / 8 - 1);
        dbf_payload(block)[b->bits / 8] |= 0xfe;
    }
    dbf_block_seal(block, lie->table ? DBF_TABLE : DBF_PAGE, lie->index,
                   ref.generation + lie->generation, ref.offset);
    store_drop(s);

    s = store_load(d, false);
    lied = store_state(s);
    g_assert_true((strcmp(state, lied) == 0) == lie->believed);
    g_assert_true(dbf_store_next(s, NULL)->inconsistent == !lie->believed);
    store_drop(s);
    disk_free(d);
}

/* A table with a good checksum that leads to where no page can be */
static void test_bad_references(void)
{
    Disk *d = small_file();
    const uint64_t offsets[] = {
        DBF_BLOCK, DBF_FIRST_BLOCK + 512, d->length, 1ULL << 40,
        UINT64_MAX - DBF_BLOCK + 1,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(offsets); i++) {
        Disk *copy = disk_copy(d, d->now);
        DBFStore *s = store_load(copy, false);
        DBFRef table = dbf_store_find(s, "a")->tables[0];
        uint8_t *block = copy->now + table.offset;

        store_drop(s);
        dbf_ref_put(dbf_payload(block), 0, (DBFRef) { offsets[i], 1 });
        dbf_block_seal(block, DBF_TABLE, 0, table.generation, table.offset);
        s = store_load(copy, false);
        g_assert_cmpuint(dbf_store_damage(s)->tables, ==, 1);
        g_assert_true(dbf_store_find(s, "a")->inconsistent);
        g_assert_false(dbf_store_find(s, "b")->inconsistent);
        store_drop(s);
        disk_free(copy);
    }
    disk_free(d);
}

static void assert_no_open(Disk *d, DBFHeader h, const char *why)
{
    Error *err = NULL;

    for (unsigned i = 0; i < DBF_HEADERS; i++) {
        dbf_header_encode(&h, i * DBF_BLOCK, d->now + i * DBF_BLOCK);
    }
    g_assert_null(dbf_store_open(&d->io, false, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), why));
    error_free(err);
}

static void test_features(void)
{
    Disk *d = small_file();
    DBFStore *s = store_load(d, false);
    DBFHeader h = *dbf_store_header(s);

    h.compatible = h.autoclear = 7;
    store_drop(s);
    for (unsigned i = 0; i < DBF_HEADERS; i++) {
        dbf_header_encode(&h, i * DBF_BLOCK, d->now + i * DBF_BLOCK);
    }
    s = store_load(d, false);
    g_assert_cmpint(dbf_store_commit(s, bits_source), ==, 0);
    h = *dbf_store_header(s);
    g_assert_cmphex(h.compatible, ==, 7);
    g_assert_cmphex(h.autoclear, ==, 0);
    store_drop(s);

    h.incompatible = 1;
    assert_no_open(d, h, "not known: 0x1");
    h.incompatible = 0;
    h.intent = d->length;
    assert_no_open(d, h, "before its intents");
    memset(d->now, 0, DBF_FIRST_BLOCK);
    h.disk_size = 1;
    assert_no_open(d, h, "disk size 1 ");
    disk_free(d);
}

static bool header_read(Disk *d, unsigned slot, DBFHeader *h)
{
    return dbf_header_decode(d->now + slot * DBF_BLOCK, slot * DBF_BLOCK, h,
                             NULL);
}

/*
 * A crash between the copies of a header: as long as the older one is there,
 * which a power cut may bring back, so is what it leads to.
 */
static void test_older_header(void)
{
    for (unsigned n = 0; n < 8; n++) {
        Disk *d = small_file();
        DBFStore *s = store_load(d, false);
        uint8_t older[DBF_BLOCK];

        memcpy(older, d->now, DBF_BLOCK);
        store_set(dbf_store_find(s, "a"), 100, 1);
        g_assert_cmpint(dbf_store_commit(s, bits_source), ==, 0);
        store_drop(s);
        memcpy(d->now, older, DBF_BLOCK);

        s = store_load(d, false);
        g_assert_true(test_bit(100, ((Bits *)dbf_store_find(s, "a")->opaque)
                               ->map));
        store_set(dbf_store_find(s, "a"), 200, 1);
        d->fail_in = n;
        dbf_store_begin(s, bits_source, DBF_MODE_PROCESS, &boot_id);
        store_drop(s);

        if (memcmp(d->now, older, DBF_BLOCK) == 0) {
            memset(d->now + DBF_BLOCK, 0, DBF_BLOCK);
            d->fail_in = -1;
            s = store_load(d, false);
            g_assert_false(dbf_store_find(s, "a")->inconsistent);
            store_drop(s);
        }
        disk_free(d);
    }
}

/* A copy of the header that is damaged is written by the next commit */
static void test_one_header(void)
{
    for (unsigned slot = 0; slot < DBF_HEADERS; slot++) {
        Disk *d = small_file();
        DBFStore *s;
        DBFHeader h[DBF_HEADERS];

        memset(d->now + slot * DBF_BLOCK, 0, DBF_BLOCK);
        s = store_load(d, false);
        g_assert_cmpuint(dbf_store_damage(s)->headers, ==, 1);
        g_assert_cmpint(dbf_store_commit(s, bits_source), ==, 0);
        g_assert_true(header_read(d, 0, &h[0]) && header_read(d, 1, &h[1]));
        g_assert_cmpmem(&h[0], sizeof(h[0]), &h[1], sizeof(h[1]));
        store_drop(s);
        disk_free(d);
    }
}

static void test_truncated(void)
{
    Disk *d = small_file();
    uint64_t length = d->length;

    for (uint64_t at = 0; at < length; at += 512) {
        Error *err = NULL;
        DBFStore *s;

        d->length = at;
        s = dbf_store_open(&d->io, false, &err);
        /* Headers and intents must be there, all else is damage */
        g_assert_true((s == NULL) == (at < DBF_FIRST_BLOCK + 2 * DBF_BLOCK));
        g_assert_true((s == NULL) == (err != NULL));
        error_free(err);
        if (s) {
            const DBFDamage *damage = dbf_store_damage(s);

            g_assert_true(damage->directory || damage->tables ||
                          dbf_store_find(s, "a")->inconsistent);
            if (damage->directory) {
                g_assert_nonnull(strstr(damage->directory, "the file ends at"));
            }
        }
        dbf_store_free(s);
    }
    disk_free(d);
}

/* --- errors --- */

static int run_all(Disk *d, bool *created)
{
    DBFStore *s;
    int ret = 0;

    if (!*created) {
        *created = dbf_store_create(&d->io, PAGE_BYTES, 20, NULL);
        if (!*created) {
            return -EIO;
        }
    }
    s = dbf_store_open(&d->io, false, NULL);
    if (!s) {
        return -EIO;
    }
    for (DBFBitmap *b = dbf_store_next(s, NULL); b; b = dbf_store_next(s, b)) {
        b->opaque = bits_new(b->bits);
        ret = ret ?: dbf_store_load(s, b, bits_sink, b->opaque);
    }
    ret = ret ?: dbf_store_begin(s, bits_source, DBF_MODE_POWER, &boot_id);
    if (!dbf_store_find(s, "a")) {
        store_set(store_add(s, "a", 9), 1, 1);
    }
    ret = ret ?: dbf_store_commit(s, bits_source);
    ret = ret ?: dbf_store_finish(s, bits_source, 0);
    store_drop(s);
    return ret;
}

/* Each request fails in turn, until a run has none left */
static void test_every_error(void)
{
    unsigned n;

    for (n = 0; n < 1000; n++) {
        Disk *d = disk_new(n + 1);
        bool created = false;
        DBFStore *s;
        int ret;

        d->fail_in = n;
        ret = run_all(d, &created);
        if (d->fail_in >= 0) {
            g_assert_cmpint(ret, ==, 0);
            disk_free(d);
            break;
        }
        /* But for the end of the file and its length, all of them count */
        d->fail_in = -1;
        d->lost = false;
        g_assert_cmpint(run_all(d, &created), ==, 0);
        s = store_load(d, false);
        g_assert_true(test_bit(1, ((Bits *)dbf_store_find(s, "a")->opaque)
                               ->map));
        g_assert_cmpint(dbf_header_trust(dbf_store_header(s), &boot_id), ==,
                        DBF_TRUST_CLEAN);
        store_drop(s);
        disk_free(d);
    }
    g_assert_cmpuint(n, >, 20);
    g_assert_cmpuint(n, <, 1000);
}

static void test_untrust(void)
{
    /* A copy of the header, a flush, the other one, a flush: which one fails */
    static const struct {
        int fail_in, ret, later;
    } cases[] = {
        { -1, 0, 0 }, { 0, 0, 0 }, { 1, -EIO, -EIO }, { 2, 0, 0 },
        { 3, 0, -EIO },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Disk *d = small_file();
        DBFStore *s = store_load(d, false), *after;

        g_assert_cmpint(dbf_store_begin(s, bits_source, DBF_MODE_POWER,
                                        &boot_id), ==, 0);
        d->fail_in = cases[i].fail_in;
        g_assert_cmpint(dbf_store_untrust(s), ==, cases[i].ret);
        d->fail_in = -1;
        after = store_load(d, false);
        g_assert_cmpint(dbf_header_trust(dbf_store_header(after), &boot_id), ==,
                        DBF_TRUST_NONE_FLAG);
        store_drop(after);

        /* So do commits, until it is taken back; not on a disk that lost */
        g_assert_cmpint(dbf_store_commit(s, bits_source), ==,
                        cases[i].later);
        after = store_load(d, false);
        g_assert_cmpint(dbf_header_trust(dbf_store_header(after), &boot_id), ==,
                        DBF_TRUST_NONE_FLAG);
        store_drop(after);
        dbf_store_trust(s);
        g_assert_cmpint(dbf_store_commit(s, bits_source), ==,
                        cases[i].later);
        after = store_load(d, false);
        g_assert_cmpint(dbf_header_trust(dbf_store_header(after), &boot_id), ==,
                        cases[i].later ? DBF_TRUST_NONE_FLAG
                                       : DBF_TRUST_INTENTS);
        store_drop(after);
        store_drop(s);
        disk_free(d);
    }
}

/* What the file says is durable where that was promised, in each mode */
static void test_durable(void)
{
    Disk *d = small_file(), *cut;
    DBFStore *s = store_load(d, false), *after;

    g_assert_cmpint(dbf_store_begin(s, bits_source, DBF_MODE_PROCESS,
                                    &boot_id), ==, 0);
    for (unsigned i = 0; i < 20; i++) {
        cut = disk_power_cut(d);
        after = store_load(cut, false);
        g_assert_cmpint(dbf_header_trust(dbf_store_header(after), &boot_id),
                        ==, DBF_TRUST_INTENTS);
        store_drop(after);
        disk_free(cut);
    }
    g_assert_cmpint(dbf_store_finish(s, bits_source, 0), ==, 0);
    for (unsigned i = 0; i < 20; i++) {
        cut = disk_power_cut(d);
        assert_same(s, cut);
        after = store_load(cut, false);
        g_assert_cmpint(dbf_header_trust(dbf_store_header(after), &boot_id),
                        ==, DBF_TRUST_CLEAN);
        store_drop(after);
        disk_free(cut);
    }
    store_drop(s);
    disk_free(d);
}

/* Nothing that depends on a flush succeeds after one has failed */
static void test_flush_fails(void)
{
    Disk *d = small_file();
    DBFStore *s = store_load(d, false);
    DBFBitmap *b = dbf_store_next(s, NULL);

    g_assert_cmpint(dbf_store_begin(s, bits_source, DBF_MODE_POWER,
                                    &boot_id), ==, 0);
    b->enabled = !b->enabled;
    d->fail_in = 1;
    g_assert_cmpint(dbf_store_commit(s, bits_source), ==, -EIO);
    g_assert_true(d->lost);
    /* A host may say so once, and forget */
    d->lost = false;
    g_assert_cmpint(dbf_store_commit(s, bits_source), ==, -EIO);
    g_assert_cmpint(dbf_store_finish(s, bits_source, 0), ==, -EIO);
    store_drop(s);
    disk_free(d);
}

/* Two headers that differ have not the same generation */
static void test_generations(void)
{
    unsigned different = 0;

    for (unsigned seed = 0; seed < 20; seed++) {
        Disk *d = small_file();
        DBFStore *s = store_load(d, false);
        DBFHeader h[DBF_HEADERS];

        g_rand_set_seed(d->random, seed);
        g_assert_cmpint(dbf_store_begin(s, bits_source, DBF_MODE_PROCESS,
                                        &boot_id), ==, 0);
        for (unsigned i = 0; i < 2; i++) {
            dbf_store_find(s, i ? "b" : "a")->enabled ^= true;
            /* The directory, a copy of the header; not all of the other one */
            d->fail_in = 2;
            g_assert_cmpint(dbf_store_commit(s, bits_source), ==, -EIO);
        }
        if (header_read(d, 0, &h[0]) && header_read(d, 1, &h[1]) &&
            h[0].directory != h[1].directory) {
            g_assert_cmpuint(h[0].generation, !=, h[1].generation);
            different++;
        }
        store_drop(s);
        disk_free(d);
    }
    g_assert_cmpuint(different, >, 0);
}

/* A change whose commit failed may be there: so it has to be taken back */
static void test_taken_back(void)
{
    Disk *d = small_file();
    DBFStore *s = store_load(d, false);
    DBFBitmap *b = dbf_store_next(s, NULL);

    g_assert_cmpint(dbf_store_begin(s, bits_source, DBF_MODE_PROCESS,
                                    &boot_id), ==, 0);
    b->enabled ^= true;
    d->fail_in = 2;
    g_assert_cmpint(dbf_store_commit(s, bits_source), ==, -EIO);
    b->enabled ^= true;
    g_assert_cmpint(dbf_store_commit(s, bits_source), ==, 0);
    assert_same(s, d);
    store_drop(s);
    disk_free(d);
}

/* What is behind the references of a table is 0, not what memory had */
static void test_padding(void)
{
    Disk *d = disk_with_file(3 * PAGE_BYTES);
    DBFStore *s = store_load(d, false);
    DBFBitmap *b;

    g_assert_cmpint(dbf_store_begin(s, bits_source, DBF_MODE_PROCESS,
                                    &boot_id), ==, 0);
    b = store_add(s, "a", 9);
    for (unsigned i = 0; i < 3; i++) {
        store_set(b, i * DBF_BITS, DBF_BITS - 1);
    }
    g_assert_cmpint(dbf_store_commit(s, bits_source), ==, 0);
    for (unsigned i = 3 * 16; i < DBF_PAYLOAD; i++) {
        g_assert_cmpuint(dbf_payload(d->now + b->tables[0].offset)[i], ==, 0);
    }
    store_drop(s);
    disk_free(d);
}

/* Only a page whose bits are all ones counts as such: each bit matters */
static void test_almost_ones(void)
{
    uint64_t n = DBF_BITS + 13;

    for (unsigned i = 0; i < 20; i++) {
        Disk *d = disk_with_file(n * 512);
        DBFStore *s = store_load(d, false);
        DBFBitmap *b = store_add(s, "a", 9);

        store_set(b, 0, n);
        bitmap_clear(((Bits *)b->opaque)->map, n - 1 - i, 1);
        g_assert_cmpint(dbf_store_commit(s, bits_source), ==, 0);
        assert_same(s, d);
        store_drop(s);
        disk_free(d);
    }
}

/* --- anything in any order, and a crash at any step --- */

typedef struct Model {
    Disk *d;
    DBFMode mode;
    DBFStore *s;
    /* What the file may have: what was committed, and attempts since */
    GPtrArray *allowed;
    /* Between begin and finish, both of them done */
    bool open;
    bool untrusted;
    /* An error came while both copies of the header were written */
    bool headless;
    bool done;
    int ret;
    unsigned names;
} Model;

static DBFBitmap *model_pick(Model *m)
{
    DBFBitmap *b = dbf_store_next(m->s, NULL);

    for (unsigned i = disk_draw(m->d, MAX_BITMAPS); b && i > 0; i--) {
        b = dbf_store_next(m->s, b) ?: b;
    }
    return b;
}

static void model_change_bits(Model *m, DBFBitmap *b)
{
    Bits *bits = b->opaque;
    bool set = disk_draw(m->d, 2);
    uint64_t first, n;

    if (b->bits == 0) {
        return;
    }
    first = disk_draw(m->d, 3) ? disk_draw(m->d, b->bits) : 0;
    n = disk_draw(m->d, 3) ? 1 + disk_draw(m->d, MIN(b->bits - first, 999))
                           : b->bits - first;
    (set ? bitmap_set : bitmap_clear)(bits->map, first, n);
    dbf_bitmap_changed(b, first << b->granularity_bits,
                       n << b->granularity_bits);
}

static uint64_t model_size(Model *m)
{
    return 512ULL * disk_draw(m->d, 4 * DBF_BITS);
}

static void model_change(Model *m)
{
    unsigned what = disk_draw(m->d, 20);
    DBFBitmap *b = model_pick(m);

    if (!b || (what == 0 && m->names % MAX_BITMAPS)) {
        g_autofree char *name = g_strdup_printf("bitmap %u", m->names++);

        store_add(m->s, name, 9 + disk_draw(m->d, 3));
    } else if (what == 1) {
        bits_free(b->opaque);
        dbf_store_remove(m->s, b);
    } else if (what == 2) {
        b->enabled = !b->enabled;
    } else if (what == 3) {
        g_free(b->name);
        b->name = g_strdup_printf("bitmap %u", m->names++);
    } else if (what == 4) {
        b->inconsistent = true;
    } else if (what == 5) {
        resize_bits(m->s, model_size(m));
    } else {
        model_change_bits(m, b);
    }
}

static void coroutine_fn model_commit(void *opaque)
{
    Model *m = opaque;

    m->ret = dbf_store_commit(m->s, bits_source);
    m->done = true;
}

static void coroutine_fn model_begin(void *opaque)
{
    Model *m = opaque;

    m->ret = dbf_store_begin(m->s, bits_source, m->mode, &boot_id);
    m->done = true;
}

static void coroutine_fn model_finish(void *opaque)
{
    Model *m = opaque;

    m->ret = dbf_store_finish(m->s, bits_source, 0);
    m->done = true;
}

static void coroutine_fn model_untrust(void *opaque)
{
    Model *m = opaque;

    m->ret = dbf_store_untrust(m->s);
    m->done = true;
}

static bool model_allows(Model *m, const char *state)
{
    for (unsigned i = 0; i < m->allowed->len; i++) {
        if (strcmp(g_ptr_array_index(m->allowed, i), state) == 0) {
            return true;
        }
    }
    return false;
}

/* The disk as a crash leaves it: a state that is allowed, whole */
static Disk *model_crash(Model *m)
{
    Disk *d = m->mode == DBF_MODE_POWER ? disk_power_cut(m->d)
                                        : disk_kill(m->d);
    DBFStore *s = dbf_store_open(&d->io, false,
                                 m->headless ? NULL : &error_abort);
    g_autofree char *state = NULL;
    DBFTrust trust;

    if (!s) {
        return d;
    }
    dbf_store_free(s);
    s = store_load(d, false);
    state = store_state(s);
    trust = dbf_header_trust(dbf_store_header(s), &boot_id);
    g_assert_true(model_allows(m, state));
    g_assert_null(dbf_store_damage(s)->directory);
    g_assert_cmpuint(dbf_store_damage(s)->shared, ==, 0);
    if (m->open) {
        g_assert_cmpint(trust, !=, DBF_TRUST_CLEAN);
    }
    if (m->untrusted) {
        g_assert_cmpint(trust, ==, DBF_TRUST_NONE_FLAG);
    }
    store_drop(s);
    return d;
}

/* Do it to the end, with crashes in between */
static void model_do(Model *m, CoroutineEntry *entry)
{
    m->done = false;
    qemu_coroutine_enter(qemu_coroutine_create(entry, m));
    while (!m->done) {
        if (disk_draw(m->d, 4) == 0) {
            disk_free(model_crash(m));
        }
        g_assert_true(disk_step(m->d));
    }
    disk_free(model_crash(m));
}

static void model_forget(Model *m)
{
    g_ptr_array_set_size(m->allowed, 0);
    g_ptr_array_add(m->allowed, store_state(m->s));
}

/* A commit of some kind; after it, only this is there */
static bool model_try(Model *m, CoroutineEntry *entry)
{
    g_ptr_array_add(m->allowed, store_state(m->s));
    model_do(m, entry);
    if (m->ret == 0) {
        model_forget(m);
    }
    disk_free(model_crash(m));
    return m->ret == 0;
}

static void model_commit_or_untrust(Model *m)
{
    unsigned what = disk_draw(m->d, 12);

    if (what == 0) {
        m->headless |= m->d->fail_in >= 0;
        model_do(m, model_untrust);
        m->untrusted = m->ret == 0;
    } else if (what == 1) {
        m->untrusted = false;
        dbf_store_trust(m->s);
    } else if (what == 2) {
        m->open = false;
        model_try(m, model_finish);
        m->open = model_try(m, model_begin);
    } else {
        model_try(m, model_commit);
    }
}

/* From opening the file to a crash, or an error that ends it */
static void model_life(Model *m, bool failures)
{
    unsigned steps = 12;
    Disk *after;

    m->s = store_load(m->d, false);
    model_forget(m);
    m->untrusted = false;
    m->open = model_try(m, model_begin);
    while (m->open && !m->d->lost && steps-- > 0) {
        if (failures && m->d->fail_in < 0 && disk_draw(m->d, 3) == 0) {
            m->d->fail_in = disk_draw(m->d, 20);
        }
        for (unsigned i = disk_draw(m->d, 4); i > 0; i--) {
            model_change(m);
        }
        model_commit_or_untrust(m);
    }
    m->d->fail_in = -1;
    /* Not without a header, on a disk that has lost its power */
    after = m->headless ? disk_kill(m->d) : model_crash(m);
    m->open = false;
    m->headless = false;
    store_drop(m->s);
    disk_free(m->d);
    m->d = after;
}

static void model_run(DBFMode mode, uint32_t seed, bool failures)
{
    Model m = {
        .d = disk_new(seed), .mode = mode,
        .allowed = g_ptr_array_new_with_free_func(g_free),
    };

    dbf_store_create(&m.d->io, model_size(&m), 20, &error_abort);
    for (unsigned life = 0; life < 3; life++) {
        model_life(&m, failures);
    }
    disk_free(m.d);
    g_ptr_array_unref(m.allowed);
}

#define PATH "/dirty-bitmap/store/"

int main(int argc, char **argv)
{
    static const Lie lies[] = {
        { PATH "right-page", false, 0, 0, false, true },
        { PATH "right-table", true, 0, 0, false, true },
        { PATH "reserved-bits", false, 0, 0, true, true },
        { PATH "other-page", false, 1, 0, false, false },
        { PATH "other-table", true, 1, 0, false, false },
        { PATH "old-page", false, 0, -1, false, false },
        { PATH "old-table", true, 0, -1, false, false },
        { PATH "new-page", false, 0, 1, false, false },
    };

    g_test_init(&argc, &argv, NULL);
    g_test_add_func(PATH "life", test_life);
    g_test_add_func(PATH "frozen", test_frozen);
    g_test_add_func(PATH "finish", test_finish);
    g_test_add_func(PATH "durable", test_durable);
    g_test_add_func(PATH "flush-fails", test_flush_fails);
    g_test_add_func(PATH "generations", test_generations);
    g_test_add_func(PATH "taken-back", test_taken_back);
    g_test_add_func(PATH "padding", test_padding);
    g_test_add_func(PATH "almost-ones", test_almost_ones);
    g_test_add_func(PATH "bounds", test_bounds);
    g_test_add_func(PATH "create-bounds", test_create_bounds);
    g_test_add_func(PATH "tables", test_tables);
    g_test_add_func(PATH "resize", test_resize);
    g_test_add_func(PATH "damage", test_damage);
    g_test_add_func(PATH "repair", test_repair);
    g_test_add_func(PATH "shared", test_shared);
    for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
        g_test_add_data_func(lies[i].path, &lies[i], test_lie);
    }
    g_test_add_func(PATH "bad-references", test_bad_references);
    g_test_add_func(PATH "features", test_features);
    g_test_add_func(PATH "older-header", test_older_header);
    g_test_add_func(PATH "one-header", test_one_header);
    g_test_add_func(PATH "truncated", test_truncated);
    g_test_add_func(PATH "every-error", test_every_error);
    g_test_add_func(PATH "untrust", test_untrust);
    disk_add_models(PATH, model_run, g_test_slow() ? 1000 : 12);
    return g_test_run();
}
