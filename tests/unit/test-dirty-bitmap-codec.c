/*
 * Dirty bitmap file: tests of what its blocks look like
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/crc32c.h"
#include "../../block/dirty-bitmap-codec.h"

#define TiB (1ULL << 40)
#define FILE_LENGTH (1ULL << 30)

static DBFHeader some_header(void)
{
    return (DBFHeader) {
        .incompatible = 0x1122, .compatible = 0x3344, .autoclear = 0x5566,
        .generation = 77, .disk_size = TiB + 512,
        .uuid = { .data = { 1, 2, 3, [15] = 16 } },
        .flags = DBF_CLEAN, .mode = DBF_MODE_POWER,
        .boot_id = { .data = { 9, 8, 7, [15] = 5 } },
        .directory = 0x123000, .directory_length = 4321,
        .directory_crc = 0xabcdef01, .extent_bits = 22, .intent_pairs = 9,
        .intent = 0x2000, .disk_time_ns = -5,
    };
}

static bool decodes(const uint8_t *block, uint64_t offset)
{
    DBFHeader h;
    Error *err = NULL;
    bool ok = dbf_header_decode(block, offset, &h, &err);

    g_assert_true(ok == !err);
    error_free(err);
    return ok;
}

/* No bit of @n bytes at @b can change unnoticed by @valid */
static void assert_no_flip(uint8_t *b, size_t n, bool (*valid)(void *opaque),
                           void *opaque)
{
    for (size_t i = 0; i < 8 * n; i++) {
        b[i / 8] ^= 1 << (i % 8);
        g_assert_false(valid(opaque));
        b[i / 8] ^= 1 << (i % 8);
    }
    g_assert_true(valid(opaque));
}

/* The page of the format, byte by byte */
static void test_header_layout(void)
{
    static const uint8_t magic[] = { 0x51, 0x44, 0x42, 0x4d, 13, 10, 26, 10 };
    DBFHeader h = some_header();
    uint8_t b[DBF_BLOCK], check[8 + DBF_BLOCK - 4] = { 0, 0x10 };

    memset(b, 0xff, sizeof(b));
    dbf_header_encode(&h, 4096, b);
    g_assert_cmpmem(b, 8, magic, 8);
    g_assert_cmphex(ldl_le_p(b + 8), ==, 1);
    g_assert_cmphex(ldl_le_p(b + 12), ==, 136);
    g_assert_cmphex(ldq_le_p(b + 16), ==, 0x1122);
    g_assert_cmphex(ldq_le_p(b + 24), ==, 0x3344);
    g_assert_cmphex(ldq_le_p(b + 32), ==, 0x5566);
    g_assert_cmphex(ldq_le_p(b + 40), ==, 77);
    g_assert_cmphex(ldq_le_p(b + 48), ==, TiB + 512);
    g_assert_cmpmem(b + 56, 16, h.uuid.data, 16);
    g_assert_cmphex(ldl_le_p(b + 72), ==, 1);
    g_assert_cmphex(ldl_le_p(b + 76), ==, 2);
    g_assert_cmpmem(b + 80, 16, h.boot_id.data, 16);
    g_assert_cmphex(ldq_le_p(b + 96), ==, 0x123000);
    g_assert_cmphex(ldl_le_p(b + 104), ==, 4321);
    g_assert_cmphex((uint32_t)ldl_le_p(b + 108), ==, 0xabcdef01);
    g_assert_cmphex(ldq_le_p(b + 112), ==, 0x2000);
    g_assert_cmphex(ldl_le_p(b + 120), ==, 9);
    g_assert_cmphex(ldl_le_p(b + 124), ==, 22);
    g_assert_cmpint((int64_t)ldq_le_p(b + 128), ==, -5);
    g_assert_true(buffer_is_zero(b + 136, 4092 - 136));
    memcpy(check + 8, b, DBF_BLOCK - 4);
    g_assert_cmphex((uint32_t)ldl_le_p(b + 4092), ==,
                    crc32c(0xffffffff, check, sizeof(check)));
}

static void test_header_round_trip(void)
{
    DBFHeader h = some_header(), out;
    uint8_t a[DBF_BLOCK], b[DBF_BLOCK];

    dbf_header_encode(&h, 0, a);
    g_assert_true(dbf_header_decode(a, 0, &out, &error_abort));
    dbf_header_encode(&out, 0, b);
    g_assert_cmpmem(a, sizeof(a), b, sizeof(b));
    g_assert_cmphex(out.intent, ==, h.intent);
    g_assert_cmphex(out.extent_bits, ==, h.extent_bits);
    /* A copy in the place of the other one is none */
    g_assert_false(decodes(a, 4096));
}

static bool first_header_valid(void *block)
{
    return decodes(block, 0);
}

static void test_header_flips(void)
{
    DBFHeader h = some_header();
    uint8_t b[DBF_BLOCK];

    dbf_header_encode(&h, 0, b);
    assert_no_flip(b, sizeof(b), first_header_valid, b);
}

/* With the checksum right again: a bound is what refuses it */
static bool header_possible(DBFHeader h)
{
    uint8_t b[DBF_BLOCK];

    dbf_header_encode(&h, 0, b);
    return decodes(b, 0);
}

#define HEADER(...) ({                                                  \
        DBFHeader h = some_header();                                    \
        __VA_ARGS__;                                                    \
        header_possible(h);                                             \
    })

static void test_header_bounds(void)
{
    g_assert_true(HEADER(h.flags = 3));
    g_assert_false(HEADER(h.flags = 4));
    g_assert_false(HEADER(h.mode = 3));
    g_assert_false(HEADER(h.generation = 0));
    g_assert_true(HEADER(h.generation = INT64_MAX));
    g_assert_false(HEADER(h.generation = 1ULL << 63));
    g_assert_true(HEADER(h.disk_size = 0));
    g_assert_false(HEADER(h.disk_size = 511));
    g_assert_true(HEADER(h.disk_size = 512));
    g_assert_false(HEADER(h.disk_size = 1ULL << 63, h.intent_pairs = -1));
    /* 9 pairs of 31232 extents of 4 MiB */
    g_assert_true(HEADER(h.disk_size = 9 * 31232 * 0x400000ULL));
    g_assert_false(HEADER(h.disk_size = 9 * 31232 * 0x400000ULL + 512));
    /* 2^24 extents, whatever their size */
    g_assert_true(HEADER(h.disk_size = 64 * TiB, h.intent_pairs = 538,
                         h.intent = 0x200000));
    g_assert_false(HEADER(h.disk_size = 64 * TiB, h.intent_pairs = 539,
                          h.intent = 0x200000));
    g_assert_false(HEADER(h.disk_size = 64 * TiB + 512, h.intent_pairs = 538,
                          h.intent = 0x200000));
    g_assert_true(HEADER(h.disk_size = 128 * TiB, h.intent_pairs = 538,
                         h.extent_bits = 23, h.intent = 0x200000));
    g_assert_false(HEADER(h.intent_pairs = 0, h.disk_size = 0));
    g_assert_false(HEADER(h.extent_bits = 19));
    g_assert_true(HEADER(h.extent_bits = 40));
    g_assert_false(HEADER(h.extent_bits = 41));
    g_assert_false(HEADER(h.intent = 0x1000));
    g_assert_false(HEADER(h.intent = 0x2001));
    g_assert_true(HEADER(h.intent = 4096ULL * (1048576 - 18)));
    g_assert_false(HEADER(h.intent = 4096ULL * (1048576 - 17)));
    g_assert_false(HEADER(h.intent = INT64_MAX - 0xfff));
    g_assert_true(HEADER(h.directory = 0, h.directory_length = 0));
    g_assert_false(HEADER(h.directory = 0));
    g_assert_false(HEADER(h.directory_length = 0));
    g_assert_false(HEADER(h.directory_length = 7));
    g_assert_true(HEADER(h.directory_length = 8));
    g_assert_true(HEADER(h.directory_length = 1048576));
    g_assert_false(HEADER(h.directory_length = 1048577));
    g_assert_false(HEADER(h.directory = 0x1000));
    g_assert_false(HEADER(h.directory = 0x123800));
    g_assert_true(HEADER(h.directory = 0xffffe000));
    g_assert_false(HEADER(h.directory = 0xfffff000));
    g_assert_false(HEADER(h.directory = INT64_MAX - 0xfff));
    /* 18 blocks of intents, and 2 of the directory */
    g_assert_true(HEADER(h.intent = 0x100000, h.directory = 0xfe000));
    g_assert_false(HEADER(h.intent = 0x100000, h.directory = 0xff000));
    g_assert_false(HEADER(h.intent = 0x100000, h.directory = 0x100000));
    g_assert_false(HEADER(h.intent = 0x100000, h.directory = 0x111000));
    g_assert_true(HEADER(h.intent = 0x100000, h.directory = 0x112000));
}

/* The checksum of a block at offset 0, as the page of the format says */
static void seal_first(uint8_t *b)
{
    uint8_t all[8 + DBF_BLOCK - 4] = {};

    memcpy(all + 8, b, DBF_BLOCK - 4);
    stl_le_p(b + 4092, crc32c(0xffffffff, all, sizeof(all)));
}

static void test_header_version(void)
{
    DBFHeader h = some_header();
    Error *err = NULL;
    uint8_t b[DBF_BLOCK];

    dbf_header_encode(&h, 0, b);
    stl_le_p(b + 8, 2);
    seal_first(b);
    g_assert_false(dbf_header_decode(b, 0, &h, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "version 2: 1 is what is known");
    error_free(err);
    stl_le_p(b + 8, 1);
    for (unsigned length = 135; length <= 4093; length++) {
        stl_le_p(b + 12, length);
        seal_first(b);
        g_assert_cmpint(decodes(b, 0), ==, length >= 136 && length <= 4092);
    }
}

/* Of any kind, at 0x7000, and the one with index 5 */
static bool some_block_valid(void *block)
{
    uint64_t generation;

    return dbf_block_check(block, DBF_PAGE, 5, 0x7000, &generation) ||
           dbf_block_check(block, DBF_TABLE, 5, 0x7000, &generation);
}

static void test_blocks(void)
{
    static const char magic[][5] = { "QDBP", "QDBT" };
    uint8_t b[DBF_BLOCK];
    uint64_t generation;

    for (DBFKind kind = DBF_PAGE; kind <= DBF_TABLE; kind++) {
        memset(b, 0xa5, sizeof(b));
        dbf_block_seal(b, kind, 5, 1ULL << 40, 0x7000);
        g_assert_cmpmem(b, 4, magic[kind], 4);
        g_assert_cmphex(ldl_le_p(b + 4), ==, 5);
        g_assert_cmphex(ldq_le_p(b + 8), ==, 1ULL << 40);
        g_assert_cmphex(b[15], ==, 0);
        g_assert_true(dbf_payload(b) == b + 16);
        g_assert_cmphex(b[16], ==, 0xa5);
        g_assert_cmphex(b[4087], ==, 0xa5);
        g_assert_cmphex(ldl_le_p(b + 4088), ==, 0);
        g_assert_true(dbf_block_check(b, kind, 5, 0x7000, &generation));
        g_assert_cmphex(generation, ==, 1ULL << 40);
        g_assert_false(dbf_block_check(b, kind, 4, 0x7000, &generation));
        g_assert_false(dbf_block_check(b, kind, 5, 0x8000, &generation));
        g_assert_false(dbf_block_check(b, (kind + 1) % 2, 5, 0x7000,
                                       &generation));
        assert_no_flip(b, sizeof(b), some_block_valid, b);
    }
}

static void test_numbers(void)
{
    g_assert_cmpuint(DBF_BITS, ==, 32576);
    g_assert_cmpuint(DBF_REFS, ==, 254);
    g_assert_cmpuint(dbf_bits(TiB, 16), ==, 1 << 24);
    g_assert_cmpuint(dbf_bits(TiB + 512, 16), ==, (1 << 24) + 1);
    g_assert_cmpuint(dbf_bits(0, 16), ==, 0);
    g_assert_cmpuint(dbf_pages(32576 * 512, 9), ==, 1);
    g_assert_cmpuint(dbf_pages(32576 * 512 + 512, 9), ==, 2);
    g_assert_cmpuint(dbf_tables(254 * 32576 * 512ULL, 9), ==, 1);
    g_assert_cmpuint(dbf_tables(254 * 32576 * 512ULL + 512, 9), ==, 2);
    g_assert_cmpuint(dbf_intent_pairs(0, 22), ==, 1);
    g_assert_cmpuint(dbf_intent_pairs(31232ULL << 22, 22), ==, 1);
    g_assert_cmpuint(dbf_intent_pairs((31232ULL << 22) + 512, 22), ==, 2);
    g_assert_cmpuint(dbf_extents((1 << 22) + 512, 22), ==, 2);
    g_assert_cmpuint(DBF_MAX_PAIRS, ==, 538);
    /* 2 MiB for each TiB at 64 KiB for each bit, and little more */
    g_assert_cmpuint(dbf_pages(TiB, 16), ==, 512 + 4);
    g_assert_cmpuint(dbf_tables(TiB, 16), ==, 3);
}

/* What can be done with a header that nobody has open */
static void test_trust(void)
{
    static const struct {
        unsigned flags;
        DBFMode mode;
        uint8_t boot, host;
        DBFTrust trust;
    } cases[] = {
        { DBF_CLEAN, DBF_MODE_OFF, 1, 2, DBF_TRUST_CLEAN },
        { DBF_CLEAN, DBF_MODE_PROCESS, 1, 2, DBF_TRUST_CLEAN },
        { DBF_CLEAN, DBF_MODE_POWER, 1, 2, DBF_TRUST_CLEAN },
        { DBF_CLEAN | DBF_UNTRUSTED, DBF_MODE_POWER, 1, 1,
          DBF_TRUST_NONE_FLAG },
        { DBF_UNTRUSTED, DBF_MODE_POWER, 1, 1, DBF_TRUST_NONE_FLAG },
        { 0, DBF_MODE_OFF, 1, 1, DBF_TRUST_NONE_OFF },
        { 0, DBF_MODE_PROCESS, 1, 1, DBF_TRUST_INTENTS },
        { 0, DBF_MODE_PROCESS, 1, 2, DBF_TRUST_NONE_HOST },
        { 0, DBF_MODE_PROCESS, 0, 0, DBF_TRUST_NONE_HOST },
        { 0, DBF_MODE_POWER, 0, 2, DBF_TRUST_INTENTS },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        DBFHeader h = some_header();
        QemuUUID host = { .data = { [7] = cases[i].host } };

        h.flags = cases[i].flags;
        h.mode = cases[i].mode;
        h.boot_id = (QemuUUID) { .data = { [7] = cases[i].boot } };
        g_assert_cmpint(dbf_header_trust(&h, &host), ==, cases[i].trust);
    }
}

/* --- intents --- */

static void intent_bits(uint8_t *bits, unsigned salt)
{
    for (unsigned i = 0; i < DBF_INTENT_BYTES; i++) {
        bits[i] = i * 7 + salt;
    }
}

static void test_intent_layout(void)
{
    uint8_t bits[DBF_INTENT_BYTES], b[DBF_BLOCK], out[DBF_INTENT_BYTES];
    uint64_t sequence;

    g_assert_cmpuint(DBF_INTENT_BITS, ==, 31232);
    intent_bits(bits, 3);
    memset(b, 0xff, sizeof(b));
    dbf_intent_encode(bits, 9, 0x1122334455667788, 0x7000, b);
    for (unsigned i = 0; i < 8; i++) {
        uint8_t *s = b + 512 * i;
        uint8_t check[8 + 508] = { 0, 0x70 + 2 * i };

        memcpy(check + 8, s, 508);
        g_assert_cmpmem(s, 4, "QDBI", 4);
        g_assert_cmphex(ldl_le_p(s + 4), ==, 72 + i);
        g_assert_cmphex(ldq_le_p(s + 8), ==, 0x1122334455667788);
        g_assert_cmpmem(s + 16, 488, bits + 488 * i, 488);
        g_assert_cmphex(ldl_le_p(s + 504), ==, 0);
        g_assert_cmphex((uint32_t)ldl_le_p(s + 508), ==,
                        crc32c(0xffffffff, check, sizeof(check)));
    }
    g_assert_cmpint(dbf_intent_decode(b, 9, 0x7000, out, &sequence), ==,
                    DBF_SLOT_WHOLE);
    g_assert_cmphex(sequence, ==, 0x1122334455667788);
    g_assert_cmpmem(out, sizeof(out), bits, sizeof(bits));
    g_assert_cmpint(dbf_intent_decode(b, 8, 0x7000, out, &sequence), ==,
                    DBF_SLOT_DAMAGED);
    g_assert_cmpint(dbf_intent_decode(b, 9, 0x8000, out, &sequence), ==,
                    DBF_SLOT_DAMAGED);
    g_assert_cmphex(sequence, ==, 0);
}

static bool some_intent_not_damaged(void *block)
{
    uint8_t bits[DBF_INTENT_BYTES];
    uint64_t sequence;

    return dbf_intent_decode(block, 9, 0x7000, bits, &sequence) !=
           DBF_SLOT_DAMAGED;
}

static void test_intent_flips(void)
{
    uint8_t bits[DBF_INTENT_BYTES], b[DBF_BLOCK];

    intent_bits(bits, 1);
    dbf_intent_encode(bits, 9, 5, 0x7000, b);
    assert_no_flip(b, sizeof(b), some_intent_not_damaged, b);
}

/* Of any set of sectors the new writing is there, of the others the old one */
static void test_intent_tears(void)
{
    uint8_t bits[DBF_INTENT_BYTES], old[DBF_BLOCK], b[DBF_BLOCK];
    uint64_t sequence;

    intent_bits(bits, 1);
    dbf_intent_encode(bits, 9, 5, 0x7000, old);
    intent_bits(bits, 2);
    for (unsigned set = 0; set < 256; set++) {
        bool whole = set == 0 || set == 255;

        dbf_intent_encode(bits, 9, 7, 0x7000, b);
        for (unsigned i = 0; i < 8; i++) {
            if (!(set & (1 << i))) {
                memcpy(b + 512 * i, old + 512 * i, 512);
            }
        }
        g_assert_cmpint(dbf_intent_decode(b, 9, 0x7000, bits, &sequence), ==,
                        whole ? DBF_SLOT_WHOLE : DBF_SLOT_TORN);
        g_assert_cmpuint(sequence, ==, set == 0 ? 5 : 7);
        intent_bits(bits, 2);
        /* Damage is worse than a tear, wherever the tear is */
        for (unsigned i = 0; i < 8; i++) {
            b[512 * i + 100] ^= 1;
            g_assert_false(some_intent_not_damaged(b));
            b[512 * i + 100] ^= 1;
        }
    }
}

static int choose(DBFSlot a, uint64_t sequence_a, DBFSlot b,
                  uint64_t sequence_b)
{
    return dbf_intent_choose((DBFSlot[2]) { a, b },
                             (uint64_t[2]) { sequence_a, sequence_b });
}

static void test_intent_choice(void)
{
    DBFSlot whole = DBF_SLOT_WHOLE, torn = DBF_SLOT_TORN;
    DBFSlot damaged = DBF_SLOT_DAMAGED;

    g_assert_cmpint(choose(whole, 1, whole, 2), ==, 1);
    g_assert_cmpint(choose(whole, 2, whole, 1), ==, 0);
    g_assert_cmpint(choose(whole, 2, whole, 2), ==, -1);
    g_assert_cmpint(choose(whole, 1, torn, 2), ==, 0);
    g_assert_cmpint(choose(torn, 2, whole, 1), ==, 1);
    g_assert_cmpint(choose(torn, 1, torn, 2), ==, -1);
    for (DBFSlot other = whole; other <= damaged; other++) {
        g_assert_cmpint(choose(damaged, 1, other, 2), ==, -1);
        g_assert_cmpint(choose(other, 1, damaged, 0), ==, -1);
    }
}

static void test_references(void)
{
    uint8_t payload[DBF_PAYLOAD] = {};
    DBFRef ref = { 0x1122334455667000, 0x8877665544332211 };

    dbf_ref_put(payload, 253, ref);
    g_assert_cmphex(ldq_le_p(payload + 253 * 16), ==, ref.offset);
    g_assert_cmphex(ldq_le_p(payload + 253 * 16 + 8), ==, ref.generation);
    g_assert_true(buffer_is_zero(payload, 253 * 16));
    g_assert_cmphex(dbf_ref_get(payload, 253).offset, ==, ref.offset);
    g_assert_cmphex(dbf_ref_get(payload, 253).generation, ==, ref.generation);

    g_assert_true(dbf_ref_valid((DBFRef) { 0, 0 }, 0x9000));
    g_assert_true(dbf_ref_valid((DBFRef) { 1, 0 }, 0x9000));
    g_assert_false(dbf_ref_valid((DBFRef) { 0, 1 }, 0x9000));
    g_assert_false(dbf_ref_valid((DBFRef) { 1, 1 }, 0x9000));
    g_assert_false(dbf_ref_valid((DBFRef) { 2, 0 }, 0x9000));
    g_assert_false(dbf_ref_valid((DBFRef) { 0x1000, 1 }, 0x9000));
    g_assert_true(dbf_ref_valid((DBFRef) { 0x2000, 1 }, 0x9000));
    g_assert_false(dbf_ref_valid((DBFRef) { 0x2000, 0 }, 0x9000));
    g_assert_false(dbf_ref_valid((DBFRef) { 0x2001, 1 }, 0x9000));
    g_assert_true(dbf_ref_valid((DBFRef) { 0x8000, 1 }, 0x9000));
    g_assert_false(dbf_ref_valid((DBFRef) { 0x9000, 1 }, 0x9000));
    g_assert_false(dbf_ref_valid((DBFRef) { 0x8000, 1 }, 0x8fff));
    g_assert_true(dbf_ref_valid((DBFRef) { 0xfffff000, 1 }, UINT64_MAX));
    g_assert_false(dbf_ref_valid((DBFRef) { 0x100000000, 1 }, UINT64_MAX));
    g_assert_false(dbf_ref_valid((DBFRef) { ~0xfffULL, 1 }, UINT64_MAX));
}

/* --- the directory --- */

/* 1 TiB at 64 KiB for each bit takes 516 pages, so 3 tables */
static DBFRef some_tables[3] = { { 0x20000, 5 }, { 0, 0 }, { 1, 0 } };
static DBFEntry some_entries[2] = {
    {
        .name = (char *)"nightly", .granularity_bits = 16, .enabled = true,
        .n_tables = 3, .tables = some_tables,
    }, {
        .name = (char *)"ä", .granularity_bits = 31, .inconsistent = true,
        .n_tables = 1, .tables = some_tables,
    },
};

typedef struct Directory {
    DBFHeader h;
    uint8_t *buf;
} Directory;

static Directory directory_new(void)
{
    Directory d = { .h = some_header() };

    d.h.directory_length = dbf_directory_length(some_entries, 2);
    d.buf = g_malloc(d.h.directory_length);
    dbf_directory_encode(some_entries, 2, d.buf, &d.h.directory_crc);
    return d;
}

static bool directory_decodes(const Directory *d, Error **errp)
{
    DBFEntry *entries;
    unsigned n;
    bool ok = dbf_directory_decode(d->buf, &d->h, FILE_LENGTH, &entries, &n,
                                   errp);

    g_assert_true(ok || (!entries && n == 0));
    dbf_entries_free(entries, n);
    return ok;
}

/* Whatever is in it, with a checksum that is right */
static bool directory_possible(Directory *d)
{
    Error *err = NULL;
    bool ok;

    d->h.directory_crc = crc32c(0xffffffff, d->buf, d->h.directory_length);
    ok = directory_decodes(d, &err);
    g_assert_true(ok == !err);
    error_free(err);
    return ok;
}

static void test_directory_layout(void)
{
    Directory d = directory_new();
    uint8_t *e = d.buf + 8;

    g_assert_cmpmem(d.buf, 4, "QDBD", 4);
    g_assert_cmphex(ldl_le_p(d.buf + 4), ==, 2);
    g_assert_cmphex(ldl_le_p(e), ==, 16 + 3 * 16 + 8);
    g_assert_cmphex(lduw_le_p(e + 4), ==, 7);
    g_assert_cmphex(e[6], ==, 16);
    g_assert_cmphex(e[7], ==, 1);
    g_assert_cmphex(ldl_le_p(e + 8), ==, 3);
    g_assert_cmphex(ldl_le_p(e + 12), ==, 0);
    g_assert_cmphex(ldq_le_p(e + 16), ==, 0x20000);
    g_assert_cmphex(ldq_le_p(e + 24), ==, 5);
    g_assert_cmphex(ldq_le_p(e + 48), ==, 1);
    g_assert_cmpmem(e + 64, 8, "nightly\0", 8);
    e += 72;
    g_assert_cmphex(ldl_le_p(e), ==, 16 + 16 + 8);
    g_assert_cmphex(e[7], ==, 2);
    g_assert_cmphex(d.h.directory_length, ==, 8 + 72 + 40);
    g_free(d.buf);
}

static void test_directory_round_trip(void)
{
    Directory d = directory_new();
    DBFEntry *e;
    unsigned n;

    g_assert_true(dbf_directory_decode(d.buf, &d.h, FILE_LENGTH, &e, &n,
                                       &error_abort));
    g_assert_cmpuint(n, ==, 2);
    for (unsigned i = 0; i < n; i++) {
        const DBFEntry *want = &some_entries[i];

        g_assert_cmpstr(e[i].name, ==, want->name);
        g_assert_cmpuint(e[i].granularity_bits, ==, want->granularity_bits);
        g_assert_cmpint(e[i].enabled, ==, want->enabled);
        g_assert_cmpint(e[i].inconsistent, ==, want->inconsistent);
        g_assert_cmpuint(e[i].n_tables, ==, want->n_tables);
        g_assert_cmpmem(e[i].tables, e[i].n_tables * sizeof(DBFRef),
                        want->tables, want->n_tables * sizeof(DBFRef));
    }
    dbf_entries_free(e, n);
    g_free(d.buf);
}

static bool directory_valid(void *d)
{
    return directory_decodes(d, NULL);
}

static void test_directory_flips(void)
{
    Directory d = directory_new();

    assert_no_flip(d.buf, d.h.directory_length, directory_valid, &d);
    g_free(d.buf);
}

/* @n bytes at @at are @value: is it a directory still? */
static bool with(unsigned at, unsigned n, uint64_t value)
{
    Directory d = directory_new();
    bool ok;

    stn_le_p(d.buf + at, n, value);
    ok = directory_possible(&d);
    g_free(d.buf);
    return ok;
}

static void test_directory_bounds(void)
{
    enum { FIRST = 8, SECOND = 8 + 72 };

    g_assert_true(with(0, 4, 0x44424451));
    g_assert_false(with(0, 4, 0x44424452));
    g_assert_false(with(4, 4, 1));              /* something behind it */
    g_assert_false(with(4, 4, 3));              /* nothing there */
    g_assert_false(with(4, 4, 65));
    g_assert_false(with(4, 4, UINT32_MAX));
    g_assert_false(with(FIRST, 4, 80));
    g_assert_false(with(FIRST, 4, 64));
    g_assert_false(with(FIRST, 4, 0));
    g_assert_true(with(FIRST + 4, 2, 1));       /* "n" */
    g_assert_false(with(FIRST + 4, 2, 0));
    g_assert_false(with(FIRST + 4, 2, 9));
    g_assert_false(with(FIRST + 6, 1, 17));     /* other tables */
    g_assert_false(with(SECOND + 6, 1, 8));
    g_assert_true(with(SECOND + 6, 1, 30));
    g_assert_false(with(SECOND + 6, 1, 32));
    g_assert_true(with(FIRST + 7, 1, 3));
    g_assert_false(with(FIRST + 7, 1, 4));
    g_assert_false(with(FIRST + 8, 4, 2));
    g_assert_false(with(FIRST + 8, 4, UINT32_MAX));
    g_assert_true(with(FIRST + 12, 4, 1));      /* reserved */
    g_assert_true(with(FIRST + 16, 8, FILE_LENGTH - 4096));
    g_assert_false(with(FIRST + 16, 8, FILE_LENGTH));
    g_assert_false(with(FIRST + 24, 8, 0));
    g_assert_false(with(SECOND + 32, 1, 0xff)); /* no UTF-8 */
    g_assert_false(with(FIRST + 65, 1, 0));     /* ends before its end */
}

/* Names, lengths and numbers at their limits */
static void test_directory_limits(void)
{
    g_autofree char *name = g_strnfill(1024, 'x');
    DBFRef tables[1] = {};
    DBFEntry e[65];
    Directory d = { .h = some_header() };

    d.h.disk_size = 1 << 20;
    for (unsigned n = 0; n <= 65; n++) {
        if (n > 0) {
            e[n - 1] = (DBFEntry) {
                .name = g_strdup_printf("%u", n), .granularity_bits = 16,
                .n_tables = 1, .tables = tables,
            };
        }
        d.h.directory_length = dbf_directory_length(e, n);
        d.buf = g_malloc(d.h.directory_length);
        dbf_directory_encode(e, n, d.buf, &d.h.directory_crc);
        g_assert_cmpint(directory_decodes(&d, NULL), ==, n <= 64);
        g_free(d.buf);
    }
    for (unsigned i = 0; i < 65; i++) {
        g_free(e[i].name);
    }
    for (unsigned length = 1024; length >= 1023; length--) {
        name[length] = 0;
        e[0].name = e[1].name = name;
        for (unsigned n = 1; n <= 2; n++) {
            d.h.directory_length = dbf_directory_length(e, n);
            d.buf = g_malloc(d.h.directory_length);
            dbf_directory_encode(e, n, d.buf, &d.h.directory_crc);
            /* Too long, or a name that there is twice */
            g_assert_cmpint(directory_decodes(&d, NULL), ==,
                            length == 1023 && n == 1);
            g_free(d.buf);
        }
    }
}

static DBFEntry empty_entry(const char *name, uint64_t disk_size,
                            unsigned granularity_bits)
{
    unsigned n = dbf_tables(disk_size, granularity_bits);

    return (DBFEntry) {
        .name = (char *)name, .granularity_bits = granularity_bits,
        .n_tables = n, .tables = g_new0(DBFRef, n),
    };
}

/* What is too large for memory is refused, whatever it says it is */
static void test_directory_huge(void)
{
    Directory d = { .h = some_header() };

    for (uint64_t size = 4 * TiB; size <= 4 * TiB + 512; size += 512) {
        DBFEntry e = empty_entry("huge", size, 9);
        Error *err = NULL;

        d.h.disk_size = size;
        d.h.directory_length = dbf_directory_length(&e, 1);
        d.buf = g_malloc(d.h.directory_length);
        dbf_directory_encode(&e, 1, d.buf, &d.h.directory_crc);
        g_assert_cmpint(directory_decodes(&d, &err), ==, size == 4 * TiB);
        if (err) {
            g_assert_cmpstr(error_get_pretty(err), ==, "bitmap 'huge' has "
                            "8589934593 bits: at most 8589934592 are possible");
            error_free(err);
        }
        g_free(d.buf);
        g_free(e.tables);
    }
}

static void test_directory_huge_together(void)
{
    Directory d = { .h = some_header() };
    uint64_t size = 2 * TiB;

    d.h.disk_size = size;
    for (unsigned n = 2; n <= 3; n++) {
        DBFEntry e[3] = {
            empty_entry("a", size, 9), empty_entry("b", size, 9),
            empty_entry("c", size, 31),
        };
        Error *err = NULL;

        d.h.directory_length = dbf_directory_length(e, n);
        d.buf = g_malloc(d.h.directory_length);
        dbf_directory_encode(e, n, d.buf, &d.h.directory_crc);
        g_assert_cmpint(directory_decodes(&d, &err), ==, n == 2);
        if (err) {
            g_assert_cmpstr(error_get_pretty(err), ==, "the bitmaps have more "
                            "than 8589934592 bits together");
            error_free(err);
        }
        g_free(d.buf);
        for (unsigned i = 0; i < 3; i++) {
            g_free(e[i].tables);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/dirty-bitmap/codec/header/layout", test_header_layout);
    g_test_add_func("/dirty-bitmap/codec/header/round-trip",
                    test_header_round_trip);
    g_test_add_func("/dirty-bitmap/codec/header/flips", test_header_flips);
    g_test_add_func("/dirty-bitmap/codec/header/bounds", test_header_bounds);
    g_test_add_func("/dirty-bitmap/codec/header/version", test_header_version);
    g_test_add_func("/dirty-bitmap/codec/trust", test_trust);
    g_test_add_func("/dirty-bitmap/codec/intent/layout", test_intent_layout);
    g_test_add_func("/dirty-bitmap/codec/intent/flips", test_intent_flips);
    g_test_add_func("/dirty-bitmap/codec/intent/tears", test_intent_tears);
    g_test_add_func("/dirty-bitmap/codec/intent/choice", test_intent_choice);
    g_test_add_func("/dirty-bitmap/codec/blocks", test_blocks);
    g_test_add_func("/dirty-bitmap/codec/numbers", test_numbers);
    g_test_add_func("/dirty-bitmap/codec/references", test_references);
    g_test_add_func("/dirty-bitmap/codec/directory/layout",
                    test_directory_layout);
    g_test_add_func("/dirty-bitmap/codec/directory/round-trip",
                    test_directory_round_trip);
    g_test_add_func("/dirty-bitmap/codec/directory/flips",
                    test_directory_flips);
    g_test_add_func("/dirty-bitmap/codec/directory/bounds",
                    test_directory_bounds);
    g_test_add_func("/dirty-bitmap/codec/directory/limits",
                    test_directory_limits);
    g_test_add_func("/dirty-bitmap/codec/directory/huge", test_directory_huge);
    g_test_add_func("/dirty-bitmap/codec/directory/huge-together",
                    test_directory_huge_together);
    return g_test_run();
}
