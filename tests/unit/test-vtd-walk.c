/*
 * Intel VT-d: tests of the page walks
 *
 * Section numbers are those of the "Intel Virtualization Technology for
 * Directed I/O" architecture specification, revision 4.1.  Bit masks are
 * written out, not taken from intel_iommu_spec.h: they are the second look.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "test-vtd-memory.h"

#define KiB4 0x1000ULL
#define MiB2 0x200000ULL
#define GiB1 0x40000000ULL

#define R   0x1ULL
#define W   0x2ULL
#define RW  0x3ULL
#define PS  0x80ULL
#define SNP 0x800ULL
#define TM  0x4000000000000000ULL

/* An address that uses the index of every level, none of them equal */
#define IOVA 0x0000123456789000ULL

typedef struct Fixture {
    TestMemory *m;
    VTDConfig cfg;
} Fixture;

static void fixture_init(Fixture *f, unsigned levels)
{
    f->m = test_memory_new();
    f->cfg = (VTDConfig) {
        .stage = VTD_STAGE_SECOND,
        .domain = 0xbeef,
        .levels = levels,
        .root = test_memory_frame(f->m),
        .address_limit = 1ULL << (12 + 9 * levels),
        .host_mask = (1ULL << 48) - 1,
    };
}

static void fixture_destroy(Fixture *f)
{
    g_free(f->m);
}

static uint64_t page_size(unsigned level)
{
    return level == 1 ? KiB4 : level == 2 ? MiB2 : GiB1;
}

/* The entry for @iova at @level; tables on the way are made with @perm */
static uint64_t *entry_at(Fixture *f, uint64_t iova, unsigned level)
{
    uint64_t table = f->cfg.root;

    for (unsigned l = f->cfg.levels; ; l--) {
        uint64_t addr = table + (iova >> (12 + 9 * (l - 1)) & 511) * 8;
        uint64_t *entry = test_memory_word(f->m, addr);

        if (l == level) {
            return entry;
        }
        if (!*entry) {
            *entry = test_memory_frame(f->m) | RW;
        }
        table = *entry & 0xfffffffff000ULL;
    }
}

static uint64_t address_of(Fixture *f, const uint64_t *entry)
{
    return (uintptr_t)entry - (uintptr_t)f->m->word;
}

static void map(Fixture *f, uint64_t iova, unsigned level, uint64_t addr,
                uint64_t bits)
{
    *entry_at(f, iova, level) = addr | bits | (level > 1 ? PS : 0);
}

static VTDFaultReason walk(Fixture *f, uint64_t iova, VTDPerm want,
                           VTDTranslation *t)
{
    memset(t, 0xaa, sizeof(*t));
    return vtd_walk_second_stage(&f->m->dev, &f->cfg, iova, want, t);
}

static VTDFaultReason walk_reason(Fixture *f, uint64_t iova, VTDPerm want)
{
    VTDTranslation t;

    return walk(f, iova, want, &t);
}

/* Section 3.7: 4 KiB, 2 MiB and 1 GiB pages in trees of 3 to 5 levels */
static void test_page_sizes(void)
{
    for (unsigned levels = 3; levels <= 5; levels++) {
        for (unsigned leaf = 1; leaf <= 3; leaf++) {
            uint64_t size = page_size(leaf), addr = 0x7d2480000000ULL;
            uint64_t offsets[] = { 0, 1, 0xfff, size / 2, size - 1 };
            VTDTranslation t;
            uint64_t iova;
            Fixture f;

            fixture_init(&f, levels);
            iova = IOVA & (f.cfg.address_limit - 1) & -size;
            map(&f, iova, leaf, addr, RW);
            for (unsigned i = 0; i < ARRAY_SIZE(offsets); i++) {
                f.m->reads = 0;
                g_assert_cmphex(walk(&f, iova + offsets[i], VTD_PERM_RW, &t),
                                ==, VTD_FR_NONE);
                g_assert_cmphex(t.iova, ==, iova);
                g_assert_cmphex(t.addr, ==, addr);
                g_assert_cmphex(t.mask, ==, size - 1);
                g_assert_cmphex(t.perm, ==, VTD_PERM_RW);
                g_assert_cmphex(t.domain, ==, 0xbeef);
                g_assert_cmpuint(f.m->reads, ==, levels - leaf + 1);
            }
            /* Its neighbours are not mapped */
            g_assert_cmphex(walk_reason(&f, iova - 1, VTD_PERM_R), ==, 0x6);
            g_assert_cmphex(walk_reason(&f, iova + size, VTD_PERM_R), ==, 0x6);
            fixture_destroy(&f);
        }
    }
}

/* Every index of every level is used: the first and last page of a table */
static void test_indices(void)
{
    static const uint64_t pages[] = {
        0, 0x1000, 0x1ff000, 0x200000, 0x3fe00000, 0x3ffff000, 0x40000000,
        0x7fffff000ULL, 0x7fc0000000ULL, 0x7fffffe000ULL, 0x7ffffff000ULL,
        0x8000000000ULL, 0xff8000000000ULL, 0xfffffffff000ULL,
    };
    VTDTranslation t;
    Fixture f;

    fixture_init(&f, 4);
    for (unsigned i = 0; i < ARRAY_SIZE(pages); i++) {
        map(&f, pages[i], 1, 0x100000 + i * KiB4, RW);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(pages); i++) {
        g_assert_cmphex(walk(&f, pages[i] + 8, VTD_PERM_R, &t), ==, 0);
        g_assert_cmphex(t.iova, ==, pages[i]);
        g_assert_cmphex(t.addr, ==, 0x100000 + i * KiB4);
    }
    fixture_destroy(&f);
}

/*
 * Sections 3.7.1, 7.1.3 (LGN.2, LGN.3): the permission is what all levels
 * allow; an entry that allows nothing is not present.  All 256 combinations.
 */
static void check_permissions(Fixture *f, const uint64_t perm[5],
                              VTDPerm want)
{
    VTDFaultReason expected = VTD_FR_NONE, reason;
    uint64_t allowed = RW;
    VTDTranslation t;

    for (unsigned level = 4; level > 0 && !expected; level--) {
        allowed &= perm[level];
        if (!perm[level]) {
            expected = want & W ? 0x5 : 0x6;
        } else if (want & W & ~allowed) {
            expected = 0x5;
        } else if (want & R & ~allowed) {
            expected = 0x6;
        }
    }
    reason = walk(f, IOVA, want, &t);
    g_assert_cmphex(reason, ==, expected);
    if (!reason) {
        g_assert_cmphex(t.perm, ==, allowed);
    }
}

static void test_permissions(void)
{
    Fixture f;

    fixture_init(&f, 4);
    map(&f, IOVA, 1, 0x5000, RW);
    for (unsigned i = 0; i < 256; i++) {
        uint64_t perm[5];

        for (unsigned level = 1; level <= 4; level++) {
            uint64_t *entry = entry_at(&f, IOVA, level);

            perm[level] = i >> 2 * (level - 1) & 3;
            *entry = (*entry & ~RW) | perm[level];
        }
        for (VTDPerm want = VTD_PERM_NONE; want <= VTD_PERM_RW; want++) {
            check_permissions(&f, perm, want);
        }
        /* entry_at() must find its way again */
        for (unsigned level = 4; level > 0; level--) {
            *entry_at(&f, IOVA, level) |= RW;
        }
    }
    fixture_destroy(&f);
}

/* Section 9.8 and LSS.2: which bits of an entry are reserved */
typedef struct Reserved {
    const char *name;
    unsigned level;
    bool leaf;
    unsigned haw;
    uint64_t rsvd_leaf;
    uint64_t reserved;
} Reserved;

static const Reserved reserved_cases[] = {
    { "pml4e", 4, false, 48, SNP | TM, 0x000f000000000080ULL },
    { "pml5e", 5, false, 48, SNP | TM, 0x000f000000000080ULL },
    { "pdpe", 3, false, 48, SNP | TM, 0x000f000000000000ULL },
    { "pde", 2, false, 48, SNP | TM, 0x000f000000000000ULL },
    { "pml4e/haw-39", 4, false, 39, 0, 0x000fff8000000080ULL },
    { "pdpe/haw-39", 3, false, 39, 0, 0x000fff8000000000ULL },
    { "pde/haw-39", 2, false, 39, 0, 0x000fff8000000000ULL },
    { "page-1g", 3, true, 48, 0, 0x000f00003ffff000ULL },
    { "page-2m", 2, true, 48, 0, 0x000f0000001ff000ULL },
    { "page-4k", 1, true, 48, 0, 0x000f000000000000ULL },
    { "page-1g/haw-39", 3, true, 39, 0, 0x000fff803ffff000ULL },
    { "page-2m/haw-39", 2, true, 39, 0, 0x000fff80001ff000ULL },
    { "page-4k/haw-39", 1, true, 39, 0, 0x000fff8000000000ULL },
    { "page-1g/no-snp", 3, true, 48, SNP, 0x000f00003ffff800ULL },
    { "page-2m/no-snp", 2, true, 48, SNP, 0x000f0000001ff800ULL },
    { "page-4k/no-snp", 1, true, 48, SNP, 0x000f000000000800ULL },
    { "page-1g/no-tm", 3, true, 48, TM, 0x400f00003ffff000ULL },
    { "page-2m/no-tm", 2, true, 48, TM, 0x400f0000001ff000ULL },
    { "page-4k/no-tm", 1, true, 48, TM, 0x400f000000000000ULL },
    { "page-4k/neither", 1, true, 48, SNP | TM, 0x400f000000000800ULL },
};

/* Not a reserved bit, and yet one that makes another entry of it */
static bool changes_meaning(const Reserved *c, uint64_t bit)
{
    uint64_t frame = 0x000ffffffffff000ULL;

    return (bit & RW) || (bit == PS && c->level > 1) ||
           (!c->leaf && (bit & frame));
}

static void test_reserved(const void *opaque)
{
    const Reserved *c = opaque;
    uint64_t *entry, good, iova = IOVA & -page_size(MIN(c->level, 3));
    unsigned accepted = 0;
    VTDTranslation t;
    Fixture f;

    fixture_init(&f, MAX(c->level, 4));
    f.cfg.host_mask = (1ULL << c->haw) - 1;
    f.cfg.rsvd_leaf = c->rsvd_leaf;
    if (c->leaf) {
        map(&f, iova, c->level, 0, RW);
    } else {
        map(&f, iova, 1, 0, RW);
    }
    entry = entry_at(&f, iova, c->level);
    good = *entry;
    for (unsigned i = 0; i < 64; i++) {
        uint64_t bit = 1ULL << i;

        *entry = good | bit;
        if (c->reserved & bit) {
            g_assert_cmphex(walk(&f, iova, VTD_PERM_R, &t), ==, 0xc);
            /* Not present: its other bits are ignored */
            *entry &= ~RW;
            g_assert_cmphex(walk(&f, iova, VTD_PERM_R, &t), ==, 0x6);
        } else if (!changes_meaning(c, bit)) {
            g_assert_cmphex(walk(&f, iova, VTD_PERM_R, &t), ==, 0);
            g_assert_cmphex(t.addr, ==,
                            c->leaf ? bit & 0x000ffffffffff000ULL : 0);
            accepted++;
        }
    }
    g_assert_cmpuint(accepted, >, 14);
    fixture_destroy(&f);
}

/* Section 9.8: reserved bits are found before permissions are judged */
static void test_reserved_first(void)
{
    Fixture f;

    fixture_init(&f, 3);
    map(&f, 0, 1, 1ULL << 50, R);
    g_assert_cmphex(walk_reason(&f, 0, VTD_PERM_W), ==, 0xc);
    /* But an upper level ends the walk before the lower one is read */
    *entry_at(&f, 0, 2) &= ~W;
    g_assert_cmphex(walk_reason(&f, 0, VTD_PERM_W), ==, 0x5);
    g_assert_cmphex(walk_reason(&f, 0, VTD_PERM_R), ==, 0xc);
    fixture_destroy(&f);
}

/* LGN.1: addresses from the limit on */
static void test_address_limit(void)
{
    for (unsigned levels = 3; levels <= 5; levels++) {
        uint64_t limit;
        Fixture f;

        fixture_init(&f, levels);
        limit = f.cfg.address_limit;
        map(&f, limit - KiB4, 1, 0x8000, RW);
        map(&f, 0, 1, 0x9000, RW);
        g_assert_cmphex(walk_reason(&f, limit - 1, VTD_PERM_RW), ==, 0);
        f.m->reads = 0;
        g_assert_cmphex(walk_reason(&f, limit, VTD_PERM_R), ==, 0x4);
        g_assert_cmphex(walk_reason(&f, limit, VTD_PERM_NONE), ==, 0x4);
        g_assert_cmphex(walk_reason(&f, limit * 2, VTD_PERM_R), ==, 0x4);
        g_assert_cmphex(walk_reason(&f, 1ULL << 63, VTD_PERM_W), ==, 0x4);
        g_assert_cmphex(walk_reason(&f, UINT64_MAX, VTD_PERM_W), ==, 0x4);
        g_assert_cmpuint(f.m->reads, ==, 0);
        fixture_destroy(&f);
    }
}

/* LSS.1: the table of each level in turn cannot be read; LCT.4: the first */
static void test_table_access(void)
{
    Fixture f;

    fixture_init(&f, 4);
    map(&f, IOVA, 1, 0x8000, RW);
    for (unsigned level = 4; level > 0; level--) {
        VTDFaultReason want = level == 4 ? 0x3 : 0x7;

        f.m->broken = address_of(&f, entry_at(&f, IOVA, level));
        g_assert_cmphex(walk_reason(&f, IOVA, VTD_PERM_R), ==, want);
        g_assert_cmphex(walk_reason(&f, IOVA, VTD_PERM_NONE), ==, want);
    }
    f.m->broken = 0;
    g_assert_cmphex(walk_reason(&f, IOVA, VTD_PERM_R), ==, 0);
    /* A table beyond the end of memory */
    *entry_at(&f, IOVA, 2) = (TEST_FRAMES * KiB4) | RW;
    g_assert_cmphex(walk_reason(&f, IOVA, VTD_PERM_R), ==, 0x7);
    fixture_destroy(&f);
}

/*
 * Section 3.15 and LGN.4: output addresses 0xfee00000 to 0xfeefffff fault;
 * a large page around them is cut to what may be cached.
 */
typedef struct InterruptRange {
    unsigned leaf;
    uint64_t addr;
    uint64_t offset;
    VTDFaultReason reason;
    uint64_t size;
} InterruptRange;

static const InterruptRange interrupt_range_cases[] = {
    { 1, 0xfedff000, 0xfff, 0, KiB4 },
    { 1, 0xfee00000, 0, 0xe },
    { 1, 0xfee80000, 0x800, 0xe },
    { 1, 0xfeeff000, 0xfff, 0xe },
    { 1, 0xfef00000, 0, 0, KiB4 },
    { 2, 0xfec00000, 0x1fffff, 0, MiB2 },
    { 2, 0xfee00000, 0, 0xe },
    { 2, 0xfee00000, 0xfffff, 0xe },
    { 2, 0xfee00000, 0x100000, 0, KiB4 },
    { 2, 0xfee00000, 0x1fffff, 0, KiB4 },
    { 2, 0xff000000, 0, 0, MiB2 },
    { 3, 0x80000000, 0x3fffffff, 0, GiB1 },
    { 3, 0xc0000000, 0, 0, KiB4 },
    { 3, 0xc0000000, 0x3edfffff, 0, KiB4 },
    { 3, 0xc0000000, 0x3ee00000, 0xe },
    { 3, 0xc0000000, 0x3eefffff, 0xe },
    { 3, 0xc0000000, 0x3ef00000, 0, KiB4 },
    { 3, 0xc0000000, 0x3fffffff, 0, KiB4 },
    { 3, 0x100000000ULL, 0, 0, GiB1 },
    { 3, 0x1c0000000ULL, 0x3ee00000, 0, GiB1 },
};

static void test_interrupt_range(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(interrupt_range_cases); i++) {
        const InterruptRange *c = &interrupt_range_cases[i];
        uint64_t iova = 0x5540000000ULL + c->offset;
        VTDTranslation t;
        Fixture f;

        fixture_init(&f, 3);
        map(&f, 0x5540000000ULL, c->leaf, c->addr, RW);
        for (VTDPerm want = VTD_PERM_NONE; want <= VTD_PERM_RW; want++) {
            g_assert_cmphex(walk(&f, iova, want, &t), ==, c->reason);
        }
        if (!c->reason) {
            g_assert_cmphex(t.mask, ==, c->size - 1);
            g_assert_cmphex(t.iova, ==, iova & -c->size);
            g_assert_cmphex(t.addr, ==, (c->addr + c->offset) & -c->size);
        }
        fixture_destroy(&f);
    }
}

/* What vtd_walk_range() visited */
typedef struct Visits {
    GArray *runs;
    uint64_t count;
} Visits;

static bool visit(void *opaque, const VTDTranslation *t)
{
    Visits *v = opaque;

    v->count++;
    g_assert_cmphex(t->domain, ==, 0xbeef);
    g_array_append_val(v->runs, *t);
    return true;
}

static VTDTranslation *run_at(Visits *v, unsigned i)
{
    g_assert_cmpuint(i, <, v->runs->len);
    return &g_array_index(v->runs, VTDTranslation, i);
}

/* The promises of vtd_walk_range(): nothing left out, nothing told twice */
static void check_runs(Visits *v, uint64_t first, uint64_t last)
{
    for (unsigned i = 0; i < v->runs->len; i++) {
        VTDTranslation *t = run_at(v, i);

        if (t->perm) {
            g_assert_true(is_power_of_2(t->mask + 1));
            g_assert_cmphex((t->iova | t->addr) & t->mask, ==, 0);
        } else if (i > 0) {
            g_assert_cmphex(run_at(v, i - 1)->perm, !=, VTD_PERM_NONE);
        }
        if (i == 0) {
            g_assert_cmphex(t->iova, <=, first);
            g_assert_cmphex(t->iova + t->mask, >=, first);
        } else {
            VTDTranslation *previous = run_at(v, i - 1);

            g_assert_cmphex(t->iova, ==, previous->iova + previous->mask + 1);
            g_assert_cmphex(t->iova, <=, last);
        }
    }
    g_assert_cmpuint(v->runs->len, >, 0);
    {
        VTDTranslation *t = run_at(v, v->runs->len - 1);

        g_assert_cmphex(t->iova + t->mask, >=, last);
        if (!t->perm) {
            g_assert_cmphex(t->iova + t->mask, ==, last);
        }
    }
}

static Visits walk_range(Fixture *f, uint64_t first, uint64_t last)
{
    Visits v = { .runs = g_array_new(false, false, sizeof(VTDTranslation)) };
    VTDRange range = { .first = first, .last = last, .budget = UINT_MAX };

    f->m->reads = 0;
    g_assert_true(vtd_walk_range(&f->m->dev, &f->cfg, &range, visit, &v));
    g_assert_cmpuint(UINT_MAX - range.budget, ==, f->m->reads);
    check_runs(&v, first, last);
    return v;
}

static void visits_free(Visits *v)
{
    g_array_free(v->runs, true);
}

static void check_run(Visits *v, unsigned i, uint64_t iova, uint64_t size,
                      uint64_t addr, VTDPerm perm)
{
    VTDTranslation *t = run_at(v, i);

    g_assert_cmphex(t->iova, ==, iova);
    g_assert_cmphex(t->mask, ==, size - 1);
    g_assert_cmphex(t->perm, ==, perm);
    if (perm) {
        g_assert_cmphex(t->addr, ==, addr);
    }
}

/* 4 KiB at 0x1000 (R) and 0x2000 (RW), 2 MiB at 0x400000, 1 GiB at 4 GiB */
static void fixture_some_pages(Fixture *f)
{
    fixture_init(f, 3);
    map(f, 0x1000, 1, 0x10000, R);
    map(f, 0x2000, 1, 0x20000, RW);
    map(f, 0x400000, 2, 0x40000000, RW);
    map(f, 0x100000000ULL, 3, 0x80000000, W);
}

static void test_range_whole(void)
{
    Fixture f;
    Visits v;

    fixture_some_pages(&f);
    v = walk_range(&f, 0, UINT64_MAX);
    g_assert_cmpuint(v.runs->len, ==, 8);
    check_run(&v, 0, 0, 0x1000, 0, VTD_PERM_NONE);
    check_run(&v, 1, 0x1000, KiB4, 0x10000, VTD_PERM_R);
    check_run(&v, 2, 0x2000, KiB4, 0x20000, VTD_PERM_RW);
    check_run(&v, 3, 0x3000, 0x3fd000, 0, VTD_PERM_NONE);
    check_run(&v, 4, 0x400000, MiB2, 0x40000000, VTD_PERM_RW);
    check_run(&v, 5, 0x600000, 0xffa00000, 0, VTD_PERM_NONE);
    check_run(&v, 6, 0x100000000ULL, GiB1, 0x80000000, VTD_PERM_W);
    check_run(&v, 7, 0x140000000ULL, 0 - 0x140000000ULL, 0, VTD_PERM_NONE);
    /* Root, one directory, one table: 512 entries each */
    g_assert_cmpuint(f.m->reads, ==, 3 * 512);
    visits_free(&v);
    fixture_destroy(&f);
}

static void test_range_partial(void)
{
    static const struct {
        uint64_t first, last;
        unsigned runs;          /* expected number */
        uint64_t iova, size;    /* of the first one */
        VTDPerm perm;
        unsigned reads;         /* at most */
    } cases[] = {
        /* One page, a part of one, the holes beside it */
        { 0x1000, 0x1fff, 1, 0x1000, KiB4, VTD_PERM_R, 3 },
        { 0x1234, 0x1235, 1, 0x1000, KiB4, VTD_PERM_R, 3 },
        { 0, 0xfff, 1, 0, 0x1000, VTD_PERM_NONE, 3 },
        { 0x123, 0x456, 1, 0x123, 0x334, VTD_PERM_NONE, 3 },
        { 0x1fff, 0x2000, 2, 0x1000, KiB4, VTD_PERM_R, 4 },
        { 0x2000, 0x3000, 2, 0x2000, KiB4, VTD_PERM_RW, 4 },
        /* Large pages are visited whole, wherever the range begins */
        { 0x5ff000, 0x5fffff, 1, 0x400000, MiB2, VTD_PERM_RW, 2 },
        { 0x400000, 0x400000, 1, 0x400000, MiB2, VTD_PERM_RW, 2 },
        { 0x3fffff, 0x400000, 2, 0x3fffff, 1, VTD_PERM_NONE, 3 },
        { 0x123456789ULL, 0x123456789ULL, 1, 0x100000000ULL, GiB1,
          VTD_PERM_W, 1 },
        { 0x13fffffffULL, 0x140000000ULL, 2, 0x100000000ULL, GiB1,
          VTD_PERM_W, 2 },
        /* At and beyond the limit */
        { 0x7ffffff000ULL, 0x7fffffffffULL, 1, 0x7ffffff000ULL, KiB4,
          VTD_PERM_NONE, 1 },
        { 0x7ffffff000ULL, 0x8000000fffULL, 1, 0x7ffffff000ULL, 2 * KiB4,
          VTD_PERM_NONE, 1 },
        { 0x8000001000ULL, 0x8000001fffULL, 1, 0x8000001000ULL, KiB4,
          VTD_PERM_NONE, 0 },
        { UINT64_MAX, UINT64_MAX, 1, UINT64_MAX, 1, VTD_PERM_NONE, 0 },
    };
    Fixture f;

    fixture_some_pages(&f);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Visits v = walk_range(&f, cases[i].first, cases[i].last);

        g_assert_cmpuint(v.runs->len, ==, cases[i].runs);
        g_assert_cmphex(run_at(&v, 0)->iova, ==, cases[i].iova);
        g_assert_cmphex(run_at(&v, 0)->mask, ==, cases[i].size - 1);
        g_assert_cmphex(run_at(&v, 0)->perm, ==, cases[i].perm);
        g_assert_cmpuint(f.m->reads, <=, cases[i].reads);
        visits_free(&v);
    }
    fixture_destroy(&f);
}

/* What would fault is unmapped: by the permissions of upper levels too */
static void test_range_faults(void)
{
    Fixture f;
    Visits v;

    fixture_init(&f, 4);
    map(&f, 0x1000, 1, 0x10000, R);
    map(&f, 0x2000, 1, 0x20000, W);
    map(&f, 0x3000, 1, 0x30000 | 1ULL << 50, RW);
    map(&f, 0x4000, 1, 0x40000, RW);
    *entry_at(&f, 0, 3) &= ~W;
    v = walk_range(&f, 0, 0xffff);
    g_assert_cmpuint(v.runs->len, ==, 5);
    check_run(&v, 1, 0x1000, KiB4, 0x10000, VTD_PERM_R);
    check_run(&v, 2, 0x2000, 0x2000, 0, VTD_PERM_NONE);
    check_run(&v, 3, 0x4000, KiB4, 0x40000, VTD_PERM_R);
    visits_free(&v);
    *entry_at(&f, 0, 4) |= PS;
    v = walk_range(&f, 0, 0xffff);
    g_assert_cmpuint(v.runs->len, ==, 1);
    visits_free(&v);
    fixture_destroy(&f);
}

/* A word that cannot be read hides what it maps, and no more */
static void test_range_read_failure(void)
{
    Fixture f;
    Visits v;

    fixture_init(&f, 3);
    for (unsigned i = 0; i < 4; i++) {
        map(&f, i * KiB4, 1, 0x10000 + i * KiB4, RW);
        map(&f, MiB2 + i * KiB4, 1, 0x20000 + i * KiB4, RW);
    }
    f.m->broken = address_of(&f, entry_at(&f, KiB4, 1));
    v = walk_range(&f, 0, MiB2 + 0x3fff);
    g_assert_cmpuint(v.runs->len, ==, 9);
    check_run(&v, 0, 0, KiB4, 0x10000, VTD_PERM_RW);
    check_run(&v, 1, KiB4, KiB4, 0, VTD_PERM_NONE);
    check_run(&v, 2, 2 * KiB4, KiB4, 0x12000, VTD_PERM_RW);
    check_run(&v, 8, MiB2 + 0x3000, KiB4, 0x23000, VTD_PERM_RW);
    visits_free(&v);
    f.m->broken = address_of(&f, entry_at(&f, 0, 2));
    v = walk_range(&f, 0, MiB2 + 0x3fff);
    g_assert_cmpuint(v.runs->len, ==, 5);
    check_run(&v, 0, 0, MiB2, 0, VTD_PERM_NONE);
    check_run(&v, 1, MiB2, KiB4, 0x20000, VTD_PERM_RW);
    visits_free(&v);
    fixture_destroy(&f);
}

/* Section 3.15: the part of a page that is interrupts is unmapped */
static void test_range_interrupt(void)
{
    uint64_t mapped = 0;
    Fixture f;
    Visits v;

    fixture_init(&f, 3);
    map(&f, 0x0000, 1, 0xfedff000, RW);
    map(&f, 0x1000, 1, 0xfee00000, RW);
    map(&f, 0x2000, 1, 0xfef00000, RW);
    map(&f, MiB2, 2, 0xfee00000, RW);
    map(&f, GiB1, 3, 0xc0000000, RW);
    v = walk_range(&f, 0, 2 * MiB2 - 1);
    g_assert_cmpuint(v.runs->len, ==, 5);
    check_run(&v, 0, 0, KiB4, 0xfedff000, VTD_PERM_RW);
    check_run(&v, 1, 0x1000, 0x1000, 0, VTD_PERM_NONE);
    check_run(&v, 2, 0x2000, KiB4, 0xfef00000, VTD_PERM_RW);
    check_run(&v, 3, 0x3000, MiB2 - 0x3000 + 0x100000, 0, VTD_PERM_NONE);
    check_run(&v, 4, MiB2 + 0x100000, 0x100000, 0xfef00000, VTD_PERM_RW);
    visits_free(&v);

    v = walk_range(&f, GiB1, 2 * GiB1 - 1);
    for (unsigned i = 0; i < v.runs->len; i++) {
        VTDTranslation *t = run_at(&v, i);

        if (t->perm) {
            g_assert_cmphex(t->addr, ==, t->iova - GiB1 + 0xc0000000);
            mapped += t->mask + 1;
        } else {
            check_run(&v, i, GiB1 + 0x3ee00000, 0x100000, 0, VTD_PERM_NONE);
        }
    }
    g_assert_cmphex(mapped, ==, GiB1 - 0x100000);
    g_assert_cmpuint(v.runs->len, <=, 32);
    visits_free(&v);
    fixture_destroy(&f);
}

static bool count(void *opaque, const VTDTranslation *t)
{
    Visits *v = opaque;
    uint64_t last = *(uint64_t *)v->runs;

    /* In order, without a gap */
    g_assert_true(t->iova == last + 1);
    *(uint64_t *)v->runs = t->iova + t->mask;
    v->count++;
    return true;
}

#define BUDGET  100000

/* A walk that ends in the middle: no more reads, and all before was told */
static void walk_out_of_budget(Fixture *f, Visits *v, uint64_t *last)
{
    VTDRange range = { .last = UINT64_MAX, .budget = BUDGET };

    for (unsigned i = 0; i < 3; i++) {
        uint64_t first = range.first;

        f->m->reads = 0;
        range.budget = BUDGET;
        g_assert_false(vtd_walk_range(&f->m->dev, &f->cfg, &range, count, v));
        g_assert_cmpuint(f->m->reads, ==, BUDGET);
        g_assert_cmpuint(range.budget, ==, 0);
        g_assert_cmphex(range.first, >, first);
        g_assert_cmphex(range.first, ==, *last + 1);
        g_assert_cmphex(range.last, ==, UINT64_MAX);
    }
}

/* Tables that point to themselves */
static void test_range_budget(void)
{
    for (unsigned levels = 3; levels <= 5; levels++) {
        uint64_t last = UINT64_MAX;
        Visits v = { .runs = (void *)&last };
        Fixture f;

        fixture_init(&f, levels);
        for (unsigned i = 0; i < TEST_WORDS; i++) {
            f.m->word[f.cfg.root / KiB4][i] = f.cfg.root | RW;
        }
        walk_out_of_budget(&f, &v, &last);
        g_assert_cmpuint(v.count, >, BUDGET);
        g_assert_cmpuint(v.count, <=, 3 * BUDGET);
        fixture_destroy(&f);
    }
}

/* The same with tables outside memory: failures are paid for as well */
static void test_range_budget_failures(void)
{
    uint64_t last = UINT64_MAX;
    Visits v = { .runs = (void *)&last };
    Fixture f;

    fixture_init(&f, 4);
    for (unsigned i = 0; i < TEST_WORDS; i++) {
        f.m->word[1][i] = (2 * KiB4) | RW;
        f.m->word[2][i] = (TEST_FRAMES * KiB4) | RW;
    }
    walk_out_of_budget(&f, &v, &last);
    g_assert_cmpuint(v.count, ==, 3);
    fixture_destroy(&f);
}

/* A random entry: often good, sometimes any of the ways to be bad */
static uint64_t random_entry(TestMemory *m, unsigned level)
{
    static const uint64_t frames[] = {
        0xfec00000, 0xfee00000, 0xff000000, 0xc0000000, 0x80000000, 0,
    };
    uint64_t perm = g_test_rand_bit() ? RW : g_test_rand_int_range(0, 4);
    uint64_t bad = g_test_rand_int_range(0, 16) ? 0 :
                   1ULL << g_test_rand_int_range(0, 64);

    if (level > 1 && g_test_rand_int_range(0, 4)) {
        /* Frame TEST_FRAMES is outside memory */
        unsigned n = g_test_rand_int_range(1, TEST_FRAMES + 1);

        return n * KiB4 | perm | (bad & ~PS);
    }
    return frames[g_test_rand_int_range(0, ARRAY_SIZE(frames))] |
           (level > 1 ? PS : g_test_rand_int_range(0, 512) * KiB4) |
           perm | bad;
}

/*
 * Tables of a level have frames of their own, so that there are no cycles;
 * few entries of each are used, so that a random range finds something.
 */
static void fixture_random(Fixture *f)
{
    static const unsigned used[] = { 0, 1, 2, 255, 511 };

    fixture_init(f, g_test_rand_int_range(3, 5));
    f->cfg.address_limit >>= g_test_rand_int_range(0, 3);
    f->cfg.rsvd_leaf = (g_test_rand_bit() ? SNP : 0) |
                       (g_test_rand_bit() ? TM : 0);
    for (unsigned frame = 1; frame < TEST_FRAMES; frame++) {
        for (unsigned i = 0; i < ARRAY_SIZE(used); i++) {
            unsigned level = frame == 1 ? f->cfg.levels :
                             1 + g_test_rand_int_range(0, 3);

            f->m->word[frame][used[i]] = random_entry(f->m, level);
        }
    }
    f->m->broken = g_test_rand_int_range(2, TEST_FRAMES) * KiB4 +
                   used[g_test_rand_int_range(0, 5)] * 8;
}

static uint64_t random_iova(void)
{
    static const unsigned used[] = { 0, 1, 2, 255, 511 };
    uint64_t iova = g_test_rand_int_range(0, 0x1000);

    for (unsigned level = 1; level <= 4; level++) {
        uint64_t i = used[g_test_rand_int_range(0, ARRAY_SIZE(used))];

        iova |= i << (12 + 9 * (level - 1));
    }
    return iova;
}

/* The two walks must say the same about @iova */
static void check_same(Fixture *f, const VTDTranslation *run, uint64_t iova)
{
    VTDTranslation t;
    VTDFaultReason reason = walk(f, iova, VTD_PERM_NONE, &t);

    if (reason || !t.perm) {
        g_assert_cmphex(run->perm, ==, VTD_PERM_NONE);
    } else {
        g_assert_cmphex(run->perm, ==, t.perm);
        g_assert_cmphex(run->addr + (iova - run->iova), ==,
                        t.addr + (iova - t.iova));
    }
}

/* Pieces of an unmapped run are one again; a page may be told twice */
static void add_piece(GArray *runs, const VTDTranslation *t)
{
    VTDTranslation *old = runs->len ? &g_array_index(runs, VTDTranslation,
                                                     runs->len - 1) : NULL;

    if (old && !old->perm && !t->perm &&
        old->iova + old->mask + 1 == t->iova) {
        old->mask += t->mask + 1;
    } else {
        g_array_append_val(runs, *t);
    }
}

static bool visit_piece(void *opaque, const VTDTranslation *t)
{
    if (g_test_rand_int_range(0, 4) == 0) {
        return false;
    }
    add_piece(((Visits *)opaque)->runs, t);
    return true;
}

/* The same in many small steps, each of which gets somewhere or is refused */
static void check_in_pieces(Fixture *f, const Visits *whole, uint64_t first,
                            uint64_t last)
{
    Visits v = { .runs = g_array_new(false, false, sizeof(VTDTranslation)) };
    VTDRange range = { .first = first, .last = last };
    bool done;

    do {
        unsigned told = v.runs->len;
        unsigned budget = VTD_RANGE_BUDGET_MIN + g_test_rand_int_range(0, 600);
        uint64_t before = range.first;

        range.budget = budget;
        f->m->reads = 0;
        done = vtd_walk_range(&f->m->dev, &f->cfg, &range, visit_piece, &v);
        g_assert_cmpuint(f->m->reads, ==, budget - range.budget);
        g_assert_cmphex(range.last, ==, last);
        if (!done && range.budget == 0 && v.runs->len > told) {
            g_assert_cmphex(range.first, >, before);
        }
    } while (!done);
    g_assert_cmpuint(v.runs->len, ==, whole->runs->len);
    for (unsigned i = 0; i < v.runs->len; i++) {
        VTDTranslation *a = run_at(&v, i);
        VTDTranslation *b = &g_array_index(whole->runs, VTDTranslation, i);

        g_assert_cmphex(a->iova, ==, b->iova);
        g_assert_cmphex(a->mask, ==, b->mask);
        g_assert_cmphex(a->addr, ==, b->addr);
        g_assert_cmphex(a->perm, ==, b->perm);
    }
    visits_free(&v);
}

static void check_random_range(Fixture *f)
{
    uint64_t a = random_iova();
    uint64_t b = g_test_rand_bit() ? random_iova() :
                 a + g_test_rand_int_range(0, 0x800000);
    Visits v = walk_range(f, MIN(a, b), MAX(a, b));

    check_in_pieces(f, &v, MIN(a, b), MAX(a, b));
    for (unsigned i = 0; i < v.runs->len; i++) {
        VTDTranslation *t = run_at(&v, i);
        uint64_t within = g_test_rand_int() * 0x100000001ULL & t->mask;

        check_same(f, t, t->iova);
        check_same(f, t, t->iova + t->mask);
        check_same(f, t, t->iova + (t->mask >> 1));
        check_same(f, t, t->iova + MIN(within, t->mask));
    }
    for (unsigned i = 0; i < 64; i++) {
        uint64_t iova = random_iova();

        for (unsigned j = 0; j < v.runs->len; j++) {
            VTDTranslation *t = run_at(&v, j);

            if (iova >= t->iova && iova - t->iova <= t->mask) {
                check_same(f, t, iova);
            }
        }
    }
    visits_free(&v);
}

static void test_range_random(void)
{
    unsigned trees = g_test_slow() ? 2000 : 200;

    for (unsigned i = 0; i < trees; i++) {
        Fixture f;

        fixture_random(&f);
        for (unsigned j = 0; j < 10; j++) {
            check_random_range(&f);
        }
        fixture_destroy(&f);
    }
}

/* --- first stage --- */

#define FP  0x1ULL
#define FW  0x2ULL
#define FU  0x4ULL
#define FA  0x20ULL
#define FD  0x40ULL
#define XD  0x8000000000000000ULL

/* A 4-level tree that maps nothing yet */
static void first_init(Fixture *f)
{
    fixture_init(f, 4);
    f->cfg.stage = VTD_STAGE_FIRST;
    f->cfg.scalable = true;
    f->cfg.address_limit = 0;
}

/* entry_at(), with entries on the way that allow everything */
static uint64_t *first_entry_at(Fixture *f, uint64_t iova, unsigned level)
{
    uint64_t *entry = entry_at(f, iova, level);

    for (unsigned l = f->cfg.levels; l > level; l--) {
        *entry_at(f, iova, l) |= FP | FW | FU;
    }
    return entry;
}

static void first_map(Fixture *f, uint64_t iova, unsigned level,
                      uint64_t addr, uint64_t bits)
{
    *first_entry_at(f, iova, level) = addr | bits | (level > 1 ? PS : 0);
}

static VTDFaultReason first_walk(Fixture *f, uint64_t iova, VTDPerm want,
                                 VTDTranslation *t)
{
    memset(t, 0xaa, sizeof(*t));
    return vtd_walk_first_stage(&f->m->dev, &f->cfg, iova, want, t);
}

static VTDFaultReason first_reason(Fixture *f, uint64_t iova, VTDPerm want)
{
    VTDTranslation t;

    return first_walk(f, iova, want, &t);
}

/* Section 3.6: 4 KiB, 2 MiB and 1 GiB pages, in both halves */
static void test_first_page_sizes(void)
{
    static const uint64_t bases[] = { IOVA, 0xffff923456789000ULL };

    for (unsigned i = 0; i < 6; i++) {
        unsigned leaf = 1 + i % 3;
        uint64_t size = page_size(leaf), iova = bases[i / 3] & -size;
        uint64_t offsets[] = { 0, 1, 0xfff, size / 2, size - 1 };
        VTDTranslation t;
        Fixture f;

        first_init(&f);
        first_map(&f, iova, leaf, 0x7d2480000000ULL, FP | FW | FU);
        for (unsigned o = 0; o < ARRAY_SIZE(offsets); o++) {
            f.m->reads = 0;
            g_assert_cmphex(first_walk(&f, iova + offsets[o], VTD_PERM_W, &t),
                            ==, 0);
            g_assert_cmphex(t.iova, ==, iova);
            g_assert_cmphex(t.addr, ==, 0x7d2480000000ULL);
            g_assert_cmphex(t.mask, ==, size - 1);
            g_assert_cmphex(t.perm, ==, VTD_PERM_RW);
            g_assert_cmphex(t.domain, ==, 0xbeef);
            g_assert_cmpuint(f.m->reads, ==, 5 - leaf);
        }
        g_assert_cmphex(first_reason(&f, iova - 1, VTD_PERM_R), ==, 0x71);
        g_assert_cmphex(first_reason(&f, iova + size, VTD_PERM_R), ==, 0x71);
        fixture_destroy(&f);
    }
}

/* SGN.1: the bits that are not translated are copies of the next lower one */
static void check_first_canonical(unsigned levels)
{
    uint64_t low_end = 1ULL << (12 + 9 * levels - 1), high = -low_end;
    Fixture f;

    first_init(&f);
    f.cfg.levels = levels;
    first_map(&f, low_end - KiB4, 1, 0x5000, FP | FU);
    first_map(&f, high, 1, 0x6000, FP | FU);
    g_assert_cmphex(first_reason(&f, low_end - 1, VTD_PERM_R), ==, 0);
    g_assert_cmphex(first_reason(&f, high, VTD_PERM_R), ==, 0);
    f.m->reads = 0;
    for (uint64_t wrong = 2 * low_end; wrong; wrong <<= 1) {
        g_assert_cmphex(first_reason(&f, (low_end - KiB4) ^ wrong,
                                     VTD_PERM_R), ==, 0x80);
        g_assert_cmphex(first_reason(&f, high ^ wrong, VTD_PERM_W), ==, 0x80);
    }
    g_assert_cmphex(first_reason(&f, low_end, VTD_PERM_NONE), ==, 0x80);
    g_assert_cmphex(first_reason(&f, high - 1, VTD_PERM_R), ==, 0x80);
    g_assert_cmpuint(f.m->reads, ==, 0);
    fixture_destroy(&f);
}

static void test_first_canonical(void)
{
    check_first_canonical(4);
    check_first_canonical(5);
}

/*
 * SFS.2, SGN.2, SGN.6: what each of the four entries allows, all 4096
 * combinations of P, R/W and U/S with each kind of access.
 */
static void check_first_rights(Fixture *f, unsigned rights, VTDPerm want)
{
    uint64_t all = FP | FW | FU;
    VTDFaultReason expected;
    VTDTranslation t;

    for (unsigned level = 1; level <= 4; level++) {
        all &= rights >> 3 * (level - 1);
    }
    expected = !(all & FP) ? 0x71 : !(all & FU) ? 0x81 :
               (want & W) && !(all & FW) ? 0x85 : 0;
    g_assert_cmphex(first_walk(f, IOVA, want, &t), ==, expected);
    if (!expected && want) {
        g_assert_cmphex(t.perm, ==, want & W ? VTD_PERM_RW : VTD_PERM_R);
    } else {
        /* Section 3.6.3: what did not happen leaves no trace */
        g_assert_cmpuint(f->m->writes, ==, 0);
    }
}

static void test_first_rights(void)
{
    uint64_t *entry[5], good[5];
    Fixture f;

    first_init(&f);
    first_map(&f, IOVA, 1, 0x5000, FP | FW | FU);
    for (unsigned level = 1; level <= 4; level++) {
        entry[level] = first_entry_at(&f, IOVA, level);
        good[level] = *entry[level] & ~7ULL;
    }
    for (unsigned rights = 0; rights < 4096; rights++) {
        for (VTDPerm want = VTD_PERM_NONE; want <= VTD_PERM_RW; want++) {
            for (unsigned level = 1; level <= 4; level++) {
                *entry[level] = good[level] |
                                (rights >> 3 * (level - 1) & 7);
            }
            f.m->writes = 0;
            check_first_rights(&f, rights, want);
        }
    }
    fixture_destroy(&f);
}

/* Section 9.7 and SFS.3: which bits of an entry are reserved */
typedef struct FirstReserved {
    const char *name;
    unsigned level;
    bool leaf;
    unsigned haw;
    uint64_t rsvd_any;
    bool no_huge;
    uint64_t reserved;
} FirstReserved;

static const FirstReserved first_reserved_cases[] = {
    { "pml4e", 4, false, 48, 0, false, 0x000f000000000080ULL },
    { "pml5e", 5, false, 48, 0, false, 0x000f000000000080ULL },
    { "pdpe", 3, false, 48, 0, false, 0x000f000000000000ULL },
    { "pde", 2, false, 48, 0, false, 0x000f000000000000ULL },
    { "page-1g", 3, true, 48, 0, false, 0x000f00003fffe000ULL },
    { "page-2m", 2, true, 48, 0, false, 0x000f0000001fe000ULL },
    { "page-4k", 1, true, 48, 0, false, 0x000f000000000000ULL },
    { "pml4e/haw-39", 4, false, 39, 0, false, 0x000fff8000000080ULL },
    { "page-4k/haw-39", 1, true, 39, 0, false, 0x000fff8000000000ULL },
    { "pml4e/no-nxe", 4, false, 48, XD, false, 0x800f000000000080ULL },
    { "pdpe/no-nxe", 3, false, 48, XD, false, 0x800f000000000000ULL },
    { "pde/no-nxe", 2, false, 48, XD, false, 0x800f000000000000ULL },
    { "page-1g/no-nxe", 3, true, 48, XD, false, 0x800f00003fffe000ULL },
    { "page-4k/no-nxe", 1, true, 48, XD, false, 0x800f000000000000ULL },
    { "pdpe/no-1g", 3, false, 48, 0, true, 0x000f000000000080ULL },
    { "page-2m/no-1g", 2, true, 48, 0, true, 0x000f0000001fe000ULL },
};

static void test_first_reserved(const void *opaque)
{
    const FirstReserved *c = opaque;
    uint64_t *entry, good, iova = IOVA & -page_size(MIN(c->level, 3));
    unsigned accepted = 0;
    VTDTranslation t;
    Fixture f;

    first_init(&f);
    f.cfg.levels = MAX(c->level, 4);
    f.cfg.host_mask = (1ULL << c->haw) - 1;
    f.cfg.rsvd_any = c->rsvd_any;
    f.cfg.no_huge = c->no_huge;
    first_map(&f, iova, c->leaf ? c->level : 1, 0, FP | FW | FU);
    entry = first_entry_at(&f, iova, c->level);
    good = *entry;
    for (unsigned i = 0; i < 64; i++) {
        uint64_t bit = 1ULL << i;

        *entry = good | bit;
        if (c->reserved & bit) {
            g_assert_cmphex(first_walk(&f, iova, VTD_PERM_R, &t), ==, 0x72);
            *entry &= ~FP;
            g_assert_cmphex(first_walk(&f, iova, VTD_PERM_R, &t), ==, 0x71);
        } else if (c->leaf || !(bit & 0x000ffffffffff080ULL)) {
            g_assert_cmphex(first_walk(&f, iova, VTD_PERM_R, &t), ==, 0);
            g_assert_cmphex(t.addr, ==, c->leaf && i >= 12 && i < 52 &&
                            !(i == 12 && c->level > 1) ? bit : 0);
            accepted++;
        }
    }
    g_assert_cmpuint(accepted, >, 14);
    fixture_destroy(&f);
}

/* SFS.3: page sizes that there are not, with no other bit that is wrong */
static void test_first_too_large(void)
{
    Fixture f;

    first_init(&f);
    first_map(&f, 0, 3, 0, FP | FU);
    g_assert_cmphex(first_reason(&f, 0, VTD_PERM_R), ==, 0);
    f.cfg.no_huge = true;
    g_assert_cmphex(first_reason(&f, 0, VTD_PERM_R), ==, 0x72);
    first_map(&f, 1ULL << 39, 4, 0, FP | FU);
    g_assert_cmphex(first_reason(&f, 1ULL << 39, VTD_PERM_R), ==, 0x72);
    f.cfg.no_huge = false;
    g_assert_cmphex(first_reason(&f, 1ULL << 39, VTD_PERM_R), ==, 0x72);
    fixture_destroy(&f);
}

/* Section 3.6.3: the flags that are set, and what may be cached with them */
typedef struct FlagCase {
    const char *name;
    VTDPerm want;
    uint64_t upper, leaf;       /* flags before the walk */
    uint64_t upper_after, leaf_after;
    VTDPerm perm;
} FlagCase;

static const FlagCase flag_cases[] = {
    { "read", VTD_PERM_R, FW, FW, FW | FA, FW | FA, VTD_PERM_R },
    { "write", VTD_PERM_W, FW, FW, FW | FA, FW | FA | FD, VTD_PERM_RW },
    { "read-write", VTD_PERM_RW, FW, FW, FW | FA, FW | FA | FD, VTD_PERM_RW },
    { "read-accessed", VTD_PERM_R, FW | FA, FW | FA, FW | FA, FW | FA,
      VTD_PERM_R },
    { "read-dirty", VTD_PERM_R, FW | FA, FW | FA | FD, FW | FA, FW | FA | FD,
      VTD_PERM_RW },
    { "write-accessed", VTD_PERM_W, FW | FA, FW | FA, FW | FA, FW | FA | FD,
      VTD_PERM_RW },
    { "read-leaf-only", VTD_PERM_R, FW | FA, FW, FW | FA, FW | FA,
      VTD_PERM_R },
    { "read-upper-only", VTD_PERM_R, FW, FW | FA, FW | FA, FW | FA,
      VTD_PERM_R },
    /* D does not make a page writable that is not */
    { "read-only", VTD_PERM_R, FW, FD, FW | FA, FD | FA, VTD_PERM_R },
    { "read-only-above", VTD_PERM_R, 0, FW | FD, FA, FW | FD | FA,
      VTD_PERM_R },
    /* Nor does D of an upper entry, which has none */
    { "upper-dirty", VTD_PERM_R, FW | FD, FW, FW | FD | FA, FW | FA,
      VTD_PERM_R },
    { "probe", VTD_PERM_NONE, FW, FW, FW, FW, VTD_PERM_NONE },
    { "probe-leaf-accessed", VTD_PERM_NONE, FW, FW | FA, FW, FW | FA,
      VTD_PERM_NONE },
    { "probe-upper-accessed", VTD_PERM_NONE, FW | FA, FW, FW | FA, FW,
      VTD_PERM_NONE },
    { "probe-accessed", VTD_PERM_NONE, FW | FA, FW | FA, FW | FA, FW | FA,
      VTD_PERM_R },
    { "probe-dirty", VTD_PERM_NONE, FW | FA, FW | FA | FD, FW | FA,
      FW | FA | FD, VTD_PERM_RW },
};

static void test_first_flags(const void *opaque)
{
    const FlagCase *c = opaque;

    for (unsigned leaf = 1; leaf <= 3; leaf++) {
        uint64_t iova = IOVA & -page_size(leaf), *entry[5], good[5];
        unsigned changed = 0;
        VTDTranslation t;
        Fixture f;

        first_init(&f);
        first_map(&f, iova, leaf, 0x40000000, FP | FU);
        for (unsigned level = leaf; level <= 4; level++) {
            bool upper = level > leaf;

            entry[level] = first_entry_at(&f, iova, level);
            good[level] = *entry[level] & ~(FW | FA | FD);
            changed += upper ? c->upper != c->upper_after
                             : c->leaf != c->leaf_after;
        }
        for (unsigned level = leaf; level <= 4; level++) {
            *entry[level] = good[level] | (level > leaf ? c->upper : c->leaf);
        }
        g_assert_cmphex(first_walk(&f, iova, c->want, &t), ==, 0);
        g_assert_cmphex(t.perm, ==, c->perm);
        g_assert_cmpuint(f.m->writes, ==, changed);
        for (unsigned level = leaf; level <= 4; level++) {
            g_assert_cmphex(*entry[level], ==, good[level] |
                            (level > leaf ? c->upper_after : c->leaf_after));
        }
        /* Once told, it is not told again */
        g_assert_cmphex(first_walk(&f, iova, c->want, &t), ==, 0);
        g_assert_cmpuint(f.m->writes, ==, changed);
        fixture_destroy(&f);
    }
}

/* SFS.11: the flag of each level in turn cannot be written */
static void test_first_update_failed(void)
{
    for (unsigned level = 1; level <= 4; level++) {
        uint64_t *entry;
        Fixture f;

        first_init(&f);
        first_map(&f, IOVA, 1, 0x5000, FP | FW | FU);
        entry = first_entry_at(&f, IOVA, level);
        f.m->read_only = address_of(&f, entry);
        g_assert_cmphex(first_reason(&f, IOVA, VTD_PERM_NONE), ==, 0);
        g_assert_cmphex(first_reason(&f, IOVA, VTD_PERM_R), ==, 0x91);
        *entry |= FA;
        g_assert_cmphex(first_reason(&f, IOVA, VTD_PERM_R), ==, 0);
        g_assert_cmphex(first_reason(&f, IOVA, VTD_PERM_W), ==,
                        level == 1 ? 0x91 : 0);
        fixture_destroy(&f);
    }
}

/* Another device sets A and D at the same moment */
static void meddle_flags(uint64_t *word)
{
    *word |= FA | FD;
}

/* Software moves the page */
static void meddle_address(uint64_t *word)
{
    if ((*word & 0xfffffffff000ULL) == 0x5000) {
        *word = (*word & 0xfff) | 0x7000;
    }
}

/* Software takes the page away */
static void meddle_present(uint64_t *word)
{
    *word &= ~FP;
}

/* Software never stops to change the entry */
static void meddle_forever(uint64_t *word)
{
    *word = (*word ^ 0x200) & ~FA;
}

/* Section 3.6.3: flags are never set in an entry that is another by now */
static void test_first_update_raced(void)
{
    static const struct {
        void (*meddle)(uint64_t *word);
        VTDFaultReason reason;
        uint64_t addr;
    } cases[] = {
        { meddle_flags, 0, 0x5000 },
        { meddle_address, 0, 0x7000 },
        { meddle_present, 0x71 },
        { meddle_forever, 0x91 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        VTDTranslation t;
        Fixture f;

        first_init(&f);
        first_map(&f, IOVA, 1, 0x5000, FP | FW | FU);
        f.m->meddle = cases[i].meddle;
        g_assert_cmphex(first_walk(&f, IOVA, VTD_PERM_W, &t), ==,
                        cases[i].reason);
        if (!cases[i].reason) {
            g_assert_cmphex(t.addr, ==, cases[i].addr);
            g_assert_cmphex(t.perm, ==, VTD_PERM_RW);
            g_assert_cmphex(*first_entry_at(&f, IOVA, 1) & (FA | FD), ==,
                            FA | FD);
        }
        fixture_destroy(&f);
    }
}

/* SFS.1, SFS.4: the table of each level in turn cannot be read */
static void test_first_table_access(void)
{
    Fixture f;

    first_init(&f);
    first_map(&f, IOVA, 1, 0x5000, FP | FW | FU);
    for (unsigned level = 1; level <= 4; level++) {
        f.m->broken = address_of(&f, first_entry_at(&f, IOVA, level));
        g_assert_cmphex(first_reason(&f, IOVA, VTD_PERM_R), ==,
                        level == 4 ? 0x73 : 0x70);
    }
    g_assert_cmpuint(f.m->writes, ==, 0);
    fixture_destroy(&f);
}

/* SGN.8, section 3.15: pages that come out among interrupt addresses */
static void test_first_interrupt_range(void)
{
    VTDTranslation t;
    Fixture f;

    first_init(&f);
    first_map(&f, 0x1000, 1, 0xfee00000, FP | FW | FU);
    first_map(&f, 0x2000, 1, 0xfeeff000, FP | FW | FU);
    first_map(&f, 0x3000, 1, 0xfedff000, FP | FW | FU);
    first_map(&f, 0x4000, 1, 0xfef00000, FP | FW | FU);
    first_map(&f, 0x40000000, 3, 0xc0000000, FP | FW | FU);
    g_assert_cmphex(first_reason(&f, 0x1000, VTD_PERM_W), ==, 0x87);
    g_assert_cmphex(first_reason(&f, 0x2fff, VTD_PERM_R), ==, 0x87);
    g_assert_cmphex(first_reason(&f, 0x40000000 + 0x3ee00000, VTD_PERM_R),
                    ==, 0x87);
    g_assert_cmpuint(f.m->writes, ==, 0);
    g_assert_cmphex(first_reason(&f, 0x3000, VTD_PERM_W), ==, 0);
    g_assert_cmphex(first_reason(&f, 0x4000, VTD_PERM_W), ==, 0);
    g_assert_cmphex(first_walk(&f, 0x40000000 + 0x3ef00000, VTD_PERM_W, &t),
                    ==, 0);
    g_assert_cmphex(t.iova, ==, 0x7ef00000);
    g_assert_cmphex(t.addr, ==, 0xfef00000);
    g_assert_cmphex(t.mask, ==, 0xfff);
    g_assert_cmphex(t.perm, ==, VTD_PERM_RW);
    fixture_destroy(&f);
}

/* Section 7.1.3: the second stage's reasons in scalable mode */
static void test_scalable_reasons(void)
{
    Fixture f;

    fixture_init(&f, 3);
    f.cfg.scalable = true;
    f.cfg.rsvd_leaf = SNP;
    map(&f, 0x1000, 1, 0x5000, R);
    map(&f, 0x2000, 1, 0x5000, W);
    map(&f, 0x3000, 1, 0x5000, RW | SNP);
    map(&f, 0x4000, 1, 0xfee00000, RW);
    g_assert_cmphex(walk_reason(&f, 0x1000, VTD_PERM_R), ==, 0);
    g_assert_cmphex(walk_reason(&f, 0x1000, VTD_PERM_W), ==, 0x85);
    g_assert_cmphex(walk_reason(&f, 0x2000, VTD_PERM_R), ==, 0x86);
    g_assert_cmphex(walk_reason(&f, 0x3000, VTD_PERM_R), ==, 0x7a);
    g_assert_cmphex(walk_reason(&f, 0x4000, VTD_PERM_R), ==, 0x87);
    g_assert_cmphex(walk_reason(&f, 0x5000, VTD_PERM_R), ==, 0x86);
    g_assert_cmphex(walk_reason(&f, 0x5000, VTD_PERM_W), ==, 0x85);
    g_assert_cmphex(walk_reason(&f, 1ULL << 39, VTD_PERM_R), ==, 0x84);
    f.m->broken = address_of(&f, entry_at(&f, 0x1000, 1));
    g_assert_cmphex(walk_reason(&f, 0x1000, VTD_PERM_R), ==, 0x78);
    f.m->broken = address_of(&f, entry_at(&f, 0x1000, 3));
    g_assert_cmphex(walk_reason(&f, 0x1000, VTD_PERM_R), ==, 0x7b);
    fixture_destroy(&f);
}

static void add_first_stage_tests(void)
{
    g_test_add_func("/vtd/walk/first/page-sizes", test_first_page_sizes);
    g_test_add_func("/vtd/walk/first/canonical", test_first_canonical);
    g_test_add_func("/vtd/walk/first/rights", test_first_rights);
    g_test_add_func("/vtd/walk/first/too-large", test_first_too_large);
    g_test_add_func("/vtd/walk/first/table-access", test_first_table_access);
    g_test_add_func("/vtd/walk/first/update-failed",
                    test_first_update_failed);
    g_test_add_func("/vtd/walk/first/update-raced", test_first_update_raced);
    g_test_add_func("/vtd/walk/first/interrupt-range",
                    test_first_interrupt_range);
    for (unsigned i = 0; i < ARRAY_SIZE(first_reserved_cases); i++) {
        const FirstReserved *c = &first_reserved_cases[i];
        g_autofree char *path = g_strdup_printf("/vtd/walk/first/reserved/%s",
                                                c->name);

        g_test_add_data_func(path, c, test_first_reserved);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(flag_cases); i++) {
        const FlagCase *c = &flag_cases[i];
        g_autofree char *path = g_strdup_printf("/vtd/walk/first/flags/%s",
                                                c->name);

        g_test_add_data_func(path, c, test_first_flags);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    add_first_stage_tests();
    g_test_add_func("/vtd/walk/scalable-reasons", test_scalable_reasons);
    g_test_add_func("/vtd/walk/page-sizes", test_page_sizes);
    g_test_add_func("/vtd/walk/indices", test_indices);
    g_test_add_func("/vtd/walk/permissions", test_permissions);
    for (unsigned i = 0; i < ARRAY_SIZE(reserved_cases); i++) {
        g_autofree char *path = g_strdup_printf("/vtd/walk/reserved/%s",
                                                reserved_cases[i].name);

        g_test_add_data_func(path, &reserved_cases[i], test_reserved);
    }
    g_test_add_func("/vtd/walk/reserved-first", test_reserved_first);
    g_test_add_func("/vtd/walk/address-limit", test_address_limit);
    g_test_add_func("/vtd/walk/table-access", test_table_access);
    g_test_add_func("/vtd/walk/interrupt-range", test_interrupt_range);
    g_test_add_func("/vtd/walk/range/whole", test_range_whole);
    g_test_add_func("/vtd/walk/range/partial", test_range_partial);
    g_test_add_func("/vtd/walk/range/faults", test_range_faults);
    g_test_add_func("/vtd/walk/range/read-failure", test_range_read_failure);
    g_test_add_func("/vtd/walk/range/interrupt", test_range_interrupt);
    g_test_add_func("/vtd/walk/range/budget", test_range_budget);
    g_test_add_func("/vtd/walk/range/budget-failures",
                    test_range_budget_failures);
    g_test_add_func("/vtd/walk/range/random", test_range_random);
    return g_test_run();
}
