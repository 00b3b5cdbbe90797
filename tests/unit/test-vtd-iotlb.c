/*
 * Intel VT-d: tests of the translation cache and the context cache
 *
 * What section 6.5 of the specification ("Invalidation of translation
 * caches") asks for, and the central promise: an invalidation is never lost
 * to a walk that is under way.  First each order of events in turn, then
 * threads against a model of a guest's tables.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bitops.h"
#include "qemu/cutils.h"
#include "qemu/lockable.h"
#include "qemu/rcu.h"
#include "qemu/thread.h"
#include "hw/i386/intel_iommu_iotlb_lookup.h"

#define KiB4 0x1000ULL
#define MiB2 0x200000ULL
#define GiB1 0x40000000ULL

static uint64_t page_size(unsigned level)
{
    return level == 1 ? KiB4 : level == 2 ? MiB2 : GiB1;
}

static VTDTranslation page(uint64_t iova, unsigned level, uint64_t addr,
                           uint16_t domain)
{
    uint64_t mask = page_size(level) - 1;

    return (VTDTranslation) {
        .iova = iova & ~mask, .addr = addr & ~mask, .mask = mask,
        .perm = VTD_PERM_RW, .domain = domain,
    };
}

/* As the translate hook does it */
static bool lookup(VTDIOTLB *iotlb, uint64_t iova, VTDTranslation *t)
{
    VTDHit hit;

    RCU_READ_LOCK_GUARD();
    hit = vtd_iotlb_lookup_4k(iotlb, iova);
    memset(t, 0xaa, sizeof(*t));
    if (hit.perm != VTD_PERM_NONE) {
        *t = page(iova, 1, hit.addr, 0);
        t->perm = hit.perm;
        return true;
    }
    return vtd_iotlb_lookup(iotlb, iova, t);
}

/* As it does it when somebody watches.  No other thread changes anything. */
static bool cached(VTDIOTLB *iotlb, uint64_t iova)
{
    VTDTranslation t;
    bool found = lookup(iotlb, iova, &t);

    RCU_READ_LOCK_GUARD();
    g_assert_cmpint(vtd_iotlb_lookup(iotlb, iova, &t), ==, found);
    return found;
}

static void fill(VTDIOTLB *iotlb, VTDTranslation t)
{
    vtd_iotlb_fill(iotlb, vtd_epochs_now(iotlb->epochs), &t);
}

/* Fill other pages: more than a new table holds, then more than that one */
static void make_grow(VTDIOTLB *iotlb, unsigned pages)
{
    for (uint64_t i = 0; i < pages; i++) {
        fill(iotlb, page((1ULL << 46) + i * KiB4, 1, i * KiB4, 0xfff0));
    }
}

#define GROW 512
#define GROW_AGAIN 4096

static void check_page(VTDIOTLB *iotlb, uint64_t iova,
                       const VTDTranslation *expected)
{
    RCU_READ_LOCK_GUARD();
    for (unsigned watched = 0; watched < 2; watched++) {
        VTDTranslation t;

        g_assert_true(watched ? vtd_iotlb_lookup(iotlb, iova, &t)
                              : lookup(iotlb, iova, &t));
        g_assert_cmphex(t.iova, ==, expected->iova);
        g_assert_cmphex(t.addr, ==, expected->addr);
        g_assert_cmphex(t.mask, ==, expected->mask);
        g_assert_cmphex(t.perm, ==, expected->perm);
    }
}

/* A page of each size is found by its addresses and by no others */
static void test_page_sizes(void)
{
    for (unsigned level = 1; level <= 3; level++) {
        uint64_t size = page_size(level), iova = 0x7f5540000000ULL;
        VTDTranslation t = page(iova, level, 0xffd2480000000ULL, 7);
        VTDEpochs epochs;
        VTDIOTLB iotlb;

        vtd_epochs_init(&epochs);
        vtd_iotlb_init(&iotlb, &epochs);
        g_assert_false(cached(&iotlb, iova));
        fill(&iotlb, t);
        check_page(&iotlb, iova, &t);
        check_page(&iotlb, iova + 0xfff, &t);
        check_page(&iotlb, iova + size / 2, &t);
        check_page(&iotlb, iova + size - 1, &t);
        g_assert_false(cached(&iotlb, iova - 1));
        g_assert_false(cached(&iotlb, iova + size));
        g_assert_false(cached(&iotlb, 0));
        /* Addresses that no table could translate are not another page */
        for (unsigned bit = 48; bit < 64; bit++) {
            g_assert_false(cached(&iotlb, iova | 1ULL << bit));
        }
        g_assert_false(cached(&iotlb, UINT64_MAX));
        vtd_iotlb_destroy(&iotlb);
        vtd_epochs_destroy(&epochs);
    }
}

/* Every bit of an entry's fields comes back */
static void test_fields(void)
{
    static const uint16_t domains[] = { 0, 1, 0x5555, 0xaaaa, 0xffff };
    VTDEpochs epochs;
    VTDIOTLB iotlb;

    vtd_epochs_init(&epochs);
    vtd_iotlb_init(&iotlb, &epochs);
    for (unsigned bit = 12; bit < 52; bit++) {
        for (VTDPerm perm = VTD_PERM_R; perm <= VTD_PERM_RW; perm++) {
            VTDTranslation t = page(0, 1, 1ULL << bit, domains[bit % 5]);

            t.perm = perm;
            fill(&iotlb, t);        /* it replaces the one before */
            check_page(&iotlb, 0, &t);
        }
    }
    for (unsigned bit = 12; bit < 64; bit++) {
        VTDTranslation t = page(1ULL << bit, 1, 0x1000, 1);

        fill(&iotlb, t);
        check_page(&iotlb, (1ULL << bit) + 5, &t);
    }
    vtd_iotlb_destroy(&iotlb);
    vtd_epochs_destroy(&epochs);
}

/*
 * Section 6.5.1: what each invalidation must take away.  Two requesters hold
 * pages of two domains; a flush's row tells which of the pages go.
 */
enum { A_4K, A_4K_NEXT, A_2M, A_1G, A_OTHER_DOMAIN, B_4K, B_OTHER_DOMAIN,
       HELD };

static const struct {
    unsigned requester;
    uint64_t iova;
    unsigned level;
    uint16_t domain;
} held[HELD] = {
    [A_4K] = { 0, 0x10000, 1, 1 },
    [A_4K_NEXT] = { 0, 0x11000, 1, 1 },
    [A_2M] = { 0, 0x200000, 2, 1 },
    [A_1G] = { 0, 0x80000000, 3, 1 },
    [A_OTHER_DOMAIN] = { 0, 0x1a000, 1, 2 },
    [B_4K] = { 1, 0x10000, 1, 1 },
    [B_OTHER_DOMAIN] = { 1, 0x1b000, 1, 2 },
};

typedef enum FlushKind {
    FLUSH_NONE, FLUSH_GLOBAL, FLUSH_DOMAIN, FLUSH_PAGES, FLUSH_REQUESTER,
    FLUSH_CONTEXT, FLUSH_KINDS,
} FlushKind;

typedef struct Flush {
    const char *name;
    FlushKind kind;
    uint16_t domain;
    uint64_t iova;
    unsigned am;
    unsigned gone;              /* bit mask of the pages in held[] */
    bool too_large;
} Flush;

#define GONE(page) (1U << (page))

static const Flush flushes[] = {
    { "none", FLUSH_NONE },
    { "global", FLUSH_GLOBAL, .gone = GONE(HELD) - 1 },
    { "domain", FLUSH_DOMAIN, .domain = 1,
      .gone = GONE(A_4K) | GONE(A_4K_NEXT) | GONE(A_2M) | GONE(A_1G) |
              GONE(B_4K) },
    { "other-domain", FLUSH_DOMAIN, .domain = 2,
      .gone = GONE(A_OTHER_DOMAIN) | GONE(B_OTHER_DOMAIN) },
    { "unused-domain", FLUSH_DOMAIN, .domain = 0xffff },
    { "requester", FLUSH_REQUESTER,
      .gone = GONE(B_4K) - 1 },
    { "context", FLUSH_CONTEXT,
      .gone = GONE(B_4K) - 1 },
    { "page", FLUSH_PAGES, .domain = 1, .iova = 0x10000,
      .gone = GONE(A_4K) },
    { "page-offset", FLUSH_PAGES, .domain = 1, .iova = 0x11fff,
      .gone = GONE(A_4K_NEXT) },
    { "page-of-other-domain", FLUSH_PAGES, .domain = 2, .iova = 0x10000 },
    { "page-not-cached", FLUSH_PAGES, .domain = 1, .iova = 0x14000 },
    { "two-pages", FLUSH_PAGES, .domain = 1, .iova = 0x10000, .am = 1,
      .gone = GONE(A_4K) | GONE(A_4K_NEXT) },
    /* The range is naturally aligned around the address */
    { "two-pages-from-second", FLUSH_PAGES, .domain = 1, .iova = 0x11000,
      .am = 1, .gone = GONE(A_4K) | GONE(A_4K_NEXT) },
    { "four-pages", FLUSH_PAGES, .domain = 1, .iova = 0x13000, .am = 2,
      .gone = GONE(A_4K) | GONE(A_4K_NEXT) },
    { "four-pages-of-other-domain", FLUSH_PAGES, .domain = 2,
      .iova = 0x18000, .am = 2, .gone = GONE(A_OTHER_DOMAIN) },
    { "two-blocks", FLUSH_PAGES, .domain = 1, .iova = 0x18000, .am = 4,
      .gone = GONE(A_4K) | GONE(A_4K_NEXT) },
    { "two-blocks-of-other-domain", FLUSH_PAGES, .domain = 2,
      .iova = 0x10000, .am = 4, .gone = GONE(A_OTHER_DOMAIN) },
    { "pages-beside", FLUSH_PAGES, .domain = 1, .iova = 0x14000, .am = 2 },
    { "largest-mask", FLUSH_PAGES, .domain = 1, .iova = 0x3f000,
      .am = VTD_IOTLB_MAX_FLUSH_AM, .gone = GONE(A_4K) | GONE(A_4K_NEXT) },
    { "within-2m", FLUSH_PAGES, .domain = 1, .iova = 0x3ff000,
      .gone = GONE(A_2M) },
    { "within-2m-masked", FLUSH_PAGES, .domain = 1, .iova = 0x2c0000,
      .am = 6, .gone = GONE(A_2M) },
    { "beside-2m", FLUSH_PAGES, .domain = 1, .iova = 0x400000, .am = 6 },
    { "within-1g", FLUSH_PAGES, .domain = 1, .iova = 0xbffff000,
      .gone = GONE(A_1G) },
    { "beside-1g", FLUSH_PAGES, .domain = 1, .iova = 0xc0000000 },
    { "high-bits", FLUSH_PAGES, .domain = 1,
      .iova = 0xffff000000010000ULL },
    { "last-address", FLUSH_PAGES, .domain = 1, .iova = UINT64_MAX,
      .am = 6 },
    { "mask-too-large", FLUSH_PAGES, .domain = 1, .iova = 0x10000,
      .am = VTD_IOTLB_MAX_FLUSH_AM + 1, .too_large = true },
    { "mask-52", FLUSH_PAGES, .domain = 1, .iova = 0x10000, .am = 52,
      .too_large = true },
    { "mask-63", FLUSH_PAGES, .domain = 1, .iova = 0x10000, .am = 63,
      .too_large = true },
};

static void do_flush(VTDIOTLB *iotlb, const Flush *f)
{
    switch (f->kind) {
    case FLUSH_GLOBAL:
        vtd_epochs_flush_global(iotlb->epochs);
        break;
    case FLUSH_DOMAIN:
        vtd_epochs_flush_domain(iotlb->epochs, f->domain);
        break;
    case FLUSH_PAGES:
        g_assert_cmpint(vtd_iotlb_flush_pages(iotlb, f->domain, f->iova,
                                              f->am), ==, !f->too_large);
        break;
    case FLUSH_REQUESTER:
        vtd_iotlb_flush(iotlb);
        break;
    case FLUSH_CONTEXT:
        vtd_context_flush(iotlb);
        break;
    default:
        break;
    }
}

static VTDTranslation held_page(unsigned i)
{
    return page(held[i].iova, held[i].level, 0x700000000000 + i * GiB1,
                held[i].domain);
}

static void test_flush(const void *opaque)
{
    const Flush *f = opaque;
    VTDIOTLB iotlb[2];
    VTDEpochs epochs;

    vtd_epochs_init(&epochs);
    vtd_iotlb_init(&iotlb[0], &epochs);
    vtd_iotlb_init(&iotlb[1], &epochs);
    do_flush(&iotlb[0], f);         /* nothing is cached, nothing happens */
    for (unsigned i = 0; i < HELD; i++) {
        fill(&iotlb[held[i].requester], held_page(i));
    }
    do_flush(&iotlb[0], f);
    for (unsigned i = 0; i < HELD; i++) {
        VTDTranslation t = held_page(i);

        if (f->gone & GONE(i)) {
            g_assert_false(cached(&iotlb[held[i].requester], t.iova));
            g_assert_false(cached(&iotlb[held[i].requester],
                                  t.iova + t.mask));
        } else {
            check_page(&iotlb[held[i].requester], t.iova, &t);
        }
        /* It may be cached again, once the tables were read again */
        fill(&iotlb[held[i].requester], t);
        check_page(&iotlb[held[i].requester], t.iova, &t);
    }
    vtd_iotlb_destroy(&iotlb[0]);
    vtd_iotlb_destroy(&iotlb[1]);
    vtd_epochs_destroy(&epochs);
}

/* A page that became part of a large one: both go, whichever was found */
static void test_flush_overlap(void)
{
    VTDEpochs epochs;
    VTDIOTLB iotlb;

    vtd_epochs_init(&epochs);
    vtd_iotlb_init(&iotlb, &epochs);
    for (unsigned level = 1; level <= 3; level++) {
        fill(&iotlb, page(0x40201000, level, 0x40000000 * level, 1));
    }
    g_assert_true(vtd_iotlb_flush_pages(&iotlb, 1, 0x40201000, 0));
    g_assert_false(cached(&iotlb, 0x40201000));
    g_assert_false(cached(&iotlb, 0x40202000));
    g_assert_false(cached(&iotlb, 0x40000000));
    vtd_iotlb_destroy(&iotlb);
    vtd_epochs_destroy(&epochs);
}

/* Neighbours share a line, and nothing else */
static void test_neighbours(void)
{
    VTDEpochs epochs;
    VTDIOTLB iotlb;

    vtd_epochs_init(&epochs);
    vtd_iotlb_init(&iotlb, &epochs);
    for (unsigned flushed = 0; flushed < 8; flushed++) {
        for (unsigned i = 0; i < 8; i++) {
            fill(&iotlb, page(i * KiB4, 1, (i * 5 + 1) * KiB4, 1));
        }
        g_assert_true(vtd_iotlb_flush_pages(&iotlb, 1, flushed * KiB4, 0));
        for (unsigned i = 0; i < 8; i++) {
            VTDTranslation t = page(i * KiB4, 1, (i * 5 + 1) * KiB4, 1);

            if (i == flushed) {
                g_assert_false(cached(&iotlb, t.iova));
            } else {
                check_page(&iotlb, t.iova, &t);
            }
        }
    }
    vtd_iotlb_destroy(&iotlb);
    vtd_epochs_destroy(&epochs);
}

/* A translation of another domain takes no neighbour with it into that */
static void test_neighbours_domain(void)
{
    VTDTranslation t = page(0x1000, 1, 0x2000, 2);
    VTDEpochs epochs;
    VTDIOTLB iotlb;

    vtd_epochs_init(&epochs);
    vtd_iotlb_init(&iotlb, &epochs);
    fill(&iotlb, page(0, 1, 0x1000, 1));
    fill(&iotlb, t);
    g_assert_false(cached(&iotlb, 0));
    check_page(&iotlb, 0x1000, &t);
    vtd_epochs_flush_domain(&epochs, 1);
    check_page(&iotlb, 0x1000, &t);
    vtd_epochs_flush_domain(&epochs, 2);
    g_assert_false(cached(&iotlb, 0x1000));
    vtd_iotlb_destroy(&iotlb);
    vtd_epochs_destroy(&epochs);
}

/* What allows nothing is no translation; it leaves nothing behind either */
static void test_no_permission(void)
{
    VTDTranslation t = page(0x1000, 1, 0x2000, 1);
    VTDEpochs epochs;
    VTDIOTLB iotlb;

    vtd_epochs_init(&epochs);
    vtd_iotlb_init(&iotlb, &epochs);
    fill(&iotlb, t);
    t.perm = VTD_PERM_NONE;
    fill(&iotlb, t);
    g_assert_false(cached(&iotlb, 0x1000));
    g_assert_false(cached(&iotlb, 0));
    vtd_iotlb_destroy(&iotlb);
    vtd_epochs_destroy(&epochs);
}

/* A walk that was overtaken by a flush takes no fresh neighbour with it */
static void test_late_neighbour(void)
{
    VTDTranslation fresh = page(0x1000, 1, 0x2000, 1);
    VTDTranslation late = page(0x2000, 1, 0x3000, 1);
    VTDEpochs epochs;
    VTDIOTLB iotlb;
    uint64_t began;

    vtd_epochs_init(&epochs);
    vtd_iotlb_init(&iotlb, &epochs);
    fill(&iotlb, late);             /* a new table refuses all older walks */
    began = vtd_epochs_now(&epochs);
    vtd_epochs_flush_domain(&epochs, 1);
    fill(&iotlb, fresh);
    vtd_iotlb_fill(&iotlb, began, &late);
    check_page(&iotlb, fresh.iova, &fresh);
    g_assert_false(cached(&iotlb, late.iova));
    vtd_iotlb_destroy(&iotlb);
    vtd_epochs_destroy(&epochs);
}

/*
 * A flush that another thread is in the middle of: time has been advanced,
 * the bound is not raised yet.  A walk that began before and one that began
 * after put neighbours into the cache; when the bound comes, it must find
 * the older one.
 */
static void test_flush_half_way(void)
{
    VTDTranslation old = page(0x1000, 1, 0x1000, 1);
    VTDTranslation new = page(0x2000, 1, 0x2000, 1);

    for (unsigned old_first = 0; old_first < 2; old_first++) {
        VTDEpochs epochs;
        VTDIOTLB iotlb;
        uint64_t began;

        vtd_epochs_init(&epochs);
        vtd_iotlb_init(&iotlb, &epochs);
        fill(&iotlb, page(0x999000, 1, 0, 3));
        began = vtd_epochs_now(&epochs);
        epochs.now++;
        for (unsigned i = 0; i < 2; i++) {
            if (i == old_first) {
                fill(&iotlb, new);
            } else {
                vtd_iotlb_fill(&iotlb, began, &old);
            }
        }
        check_page(&iotlb, old.iova, &old);
        check_page(&iotlb, new.iova, &new);
        epochs.domain[1] = epochs.now;
        g_assert_false(cached(&iotlb, old.iova));
        fill(&iotlb, new);
        check_page(&iotlb, new.iova, &new);
        g_assert_false(cached(&iotlb, old.iova));
        vtd_iotlb_destroy(&iotlb);
        vtd_epochs_destroy(&epochs);
    }
}

/*
 * All orders of {the walk begins; its result is filled in}, {a flush} and
 * {the table grows}, with and without a table at the start.
 */
typedef enum When {
    BEFORE_WALK, IN_WALK, AFTER_FLUSH, AFTER_FILL, NEVER,
} When;

static void check_order(const Flush *f, unsigned i, When flush_at,
                        When grow_at, bool first_fill)
{
    VTDTranslation t = held_page(i);
    VTDEpochs epochs;
    uint64_t began = 0;
    VTDIOTLB iotlb;

    vtd_epochs_init(&epochs);
    vtd_iotlb_init(&iotlb, &epochs);
    if (!first_fill) {
        fill(&iotlb, page(0x999000, 1, 0, 3));
    }
    for (When now = BEFORE_WALK; now <= AFTER_FILL; now++) {
        /* AFTER_FLUSH is within the walk too */
        if (now == IN_WALK) {
            began = vtd_epochs_now(&epochs);
        } else if (now == AFTER_FILL) {
            vtd_iotlb_fill(&iotlb, began, &t);
        }
        if (now == grow_at) {
            make_grow(&iotlb, GROW);
        }
        if (now == flush_at) {
            do_flush(&iotlb, f);
        }
    }
    if (flush_at != BEFORE_WALK && flush_at != NEVER &&
        (f->gone & GONE(i))) {
        g_assert_false(cached(&iotlb, t.iova));
        make_grow(&iotlb, GROW_AGAIN);  /* nor does growth bring it back */
        g_assert_false(cached(&iotlb, t.iova));
    } else if (flush_at == BEFORE_WALK || flush_at == NEVER) {
        /* Growth makes room by giving up entries: it may be among them */
        if (grow_at != AFTER_FILL) {
            check_page(&iotlb, t.iova, &t);
        }
    }
    vtd_iotlb_destroy(&iotlb);
    vtd_epochs_destroy(&epochs);
}

static void test_order(const void *opaque)
{
    const Flush *f = opaque;

    for (unsigned i = A_4K; i <= A_OTHER_DOMAIN; i++) {
        for (When flush_at = BEFORE_WALK; flush_at <= NEVER; flush_at++) {
            for (When grow_at = BEFORE_WALK; grow_at <= NEVER; grow_at++) {
                check_order(f, i, flush_at, grow_at, false);
                check_order(f, i, flush_at, grow_at, true);
            }
        }
    }
}

/* Flushes of others in between keep nobody's walk from being cached */
static void test_order_unconcerned(void)
{
    VTDTranslation t = page(0x5000, 1, 0x5000, 1);
    VTDIOTLB iotlb, other;
    VTDEpochs epochs;
    uint64_t began;

    vtd_epochs_init(&epochs);
    vtd_iotlb_init(&iotlb, &epochs);
    vtd_iotlb_init(&other, &epochs);
    fill(&iotlb, page(0x999000, 1, 0, 3));
    began = vtd_epochs_now(&epochs);
    vtd_epochs_flush_domain(&epochs, 2);
    vtd_iotlb_flush(&other);
    vtd_context_flush(&other);
    g_assert_true(vtd_iotlb_flush_pages(&other, 1, 0x5000, 0));
    vtd_iotlb_fill(&iotlb, began, &t);
    check_page(&iotlb, 0x5000, &t);
    vtd_iotlb_destroy(&iotlb);
    vtd_iotlb_destroy(&other);
    vtd_epochs_destroy(&epochs);
}

/* A cache that is set up anew takes nothing that began for the old one */
static void test_reinit(void)
{
    VTDTranslation t = page(0x5000, 1, 0x5000, 1);
    VTDConfig cfg = { .domain = 1 };
    VTDEpochs epochs;
    uint64_t began;
    VTDIOTLB iotlb;

    vtd_epochs_init(&epochs);
    vtd_iotlb_init(&iotlb, &epochs);
    fill(&iotlb, page(0x1000, 1, 0, 1));
    began = vtd_epochs_now(&epochs);
    vtd_iotlb_destroy(&iotlb);
    vtd_iotlb_init(&iotlb, &epochs);
    g_assert_false(cached(&iotlb, 0x1000));
    vtd_iotlb_fill(&iotlb, began, &t);
    g_assert_false(cached(&iotlb, 0x5000));
    vtd_context_fill(&iotlb, began, &cfg);
    g_assert_false(vtd_context_lookup(&iotlb, &cfg));
    vtd_iotlb_destroy(&iotlb);
    vtd_epochs_destroy(&epochs);
}

/* What was filled last is there, however full its lines are */
static void test_replacement(void)
{
    VTDEpochs epochs;
    VTDIOTLB iotlb;

    vtd_epochs_init(&epochs);
    vtd_iotlb_init(&iotlb, &epochs);
    for (uint64_t i = 0; i < 100000; i++) {
        VTDTranslation t = page(i << 45, 1, i * KiB4, i);

        fill(&iotlb, t);
        check_page(&iotlb, t.iova, &t);
    }
    vtd_iotlb_destroy(&iotlb);
    vtd_epochs_destroy(&epochs);
}

/* Those that share their lines give way in turn: the newest four stay */
static void test_victims(void)
{
    VTDEpochs epochs;
    VTDIOTLB iotlb;

    vtd_epochs_init(&epochs);
    vtd_iotlb_init(&iotlb, &epochs);
    for (uint64_t i = 0; i < 8; i++) {
        fill(&iotlb, page(i << 45, 1, i * KiB4, 1));
    }
    for (uint64_t i = 0; i < 8; i++) {
        g_assert_cmpint(cached(&iotlb, i << 45), ==, i >= 4);
    }
    vtd_iotlb_destroy(&iotlb);
    vtd_epochs_destroy(&epochs);
}

/* What allows nothing is not cached, and nothing is given up for it */
static void test_nothing_takes_no_place(void)
{
    VTDEpochs epochs;
    VTDIOTLB iotlb;

    vtd_epochs_init(&epochs);
    vtd_iotlb_init(&iotlb, &epochs);
    for (uint64_t i = 0; i < 8; i++) {
        VTDTranslation t = page(i << 45, 1, i * KiB4, 1);

        t.perm = i < 4 ? VTD_PERM_RW : VTD_PERM_NONE;
        fill(&iotlb, t);
    }
    for (uint64_t i = 0; i < 8; i++) {
        g_assert_cmpint(cached(&iotlb, i << 45), ==, i < 4);
    }
    vtd_iotlb_destroy(&iotlb);
    vtd_epochs_destroy(&epochs);
}

/* Large pages move to a larger table with the others */
static void test_grow_large(void)
{
    VTDTranslation large = page(0x7fULL << 30, 2, 0x5ULL << 21, 1);
    uint64_t live, size, old_size;
    VTDEpochs epochs;
    VTDIOTLB iotlb;
    bool found;

    vtd_epochs_init(&epochs);
    vtd_iotlb_init(&iotlb, &epochs);
    fill(&iotlb, large);
    vtd_iotlb_usage(&iotlb, &live, &old_size);
    for (uint64_t i = 0; ; i++) {
        found = cached(&iotlb, large.iova);
        fill(&iotlb, page((1ULL << 46) + i * 8 * KiB4, 1, i * KiB4, 1));
        vtd_iotlb_usage(&iotlb, &live, &size);
        if (size > old_size) {
            break;
        }
        if (!found) {
            fill(&iotlb, large);
        }
    }
    g_assert_true(found);
    check_page(&iotlb, large.iova, &large);
    vtd_iotlb_destroy(&iotlb);
    vtd_epochs_destroy(&epochs);
}

/* The design's bound: this many pages are all found once they were seen */
static void test_working_set(const void *opaque)
{
    uint64_t distance = *(const uint64_t *)opaque;
    const unsigned pages = 65536;
    unsigned misses = 0, passes = 0;
    VTDEpochs epochs;
    VTDIOTLB iotlb;

    vtd_epochs_init(&epochs);
    vtd_iotlb_init(&iotlb, &epochs);
    do {
        misses = 0;
        for (uint64_t i = 0; i < pages; i++) {
            VTDTranslation t = page(i * distance, 1, i * KiB4, 1);

            if (!cached(&iotlb, t.iova)) {
                misses++;
                fill(&iotlb, t);
            }
        }
        passes++;
    } while (misses && passes < 6);
    g_assert_cmpuint(misses, ==, 0);
    for (uint64_t i = 0; i < pages; i++) {
        VTDTranslation t = page(i * distance, 1, i * KiB4, 1);

        check_page(&iotlb, t.iova + 1, &t);
    }
    vtd_iotlb_destroy(&iotlb);
    vtd_epochs_destroy(&epochs);
}

/* Section 6.2: the context cache, and its invalidation (6.5.1.1) */
static void test_context(void)
{
    VTDConfig cfg = {
        .stage = VTD_STAGE_SECOND, .domain = 0x1234, .levels = 4,
        .fpd = true, .root = 0x123456000, .address_limit = 1ULL << 48,
        .rsvd_leaf = VTD_SS_TM, .host_mask = (1ULL << 48) - 1,
    }, found;
    VTDIOTLB iotlb, other;
    VTDEpochs epochs;
    uint64_t began;

    vtd_epochs_init(&epochs);
    vtd_iotlb_init(&iotlb, &epochs);
    vtd_iotlb_init(&other, &epochs);
    g_assert_false(vtd_context_lookup(&iotlb, &found));
    began = vtd_epochs_now(&epochs);
    vtd_context_fill(&iotlb, began, &cfg);
    vtd_context_fill(&other, began, &cfg);
    g_assert_true(vtd_context_lookup(&iotlb, &found));
    g_assert_cmpint(found.stage, ==, cfg.stage);
    g_assert_cmphex(found.domain, ==, cfg.domain);
    g_assert_cmpuint(found.levels, ==, cfg.levels);
    g_assert_true(found.fpd);
    g_assert_cmphex(found.root, ==, cfg.root);
    g_assert_cmphex(found.address_limit, ==, cfg.address_limit);
    g_assert_cmphex(found.rsvd_leaf, ==, cfg.rsvd_leaf);
    g_assert_cmphex(found.host_mask, ==, cfg.host_mask);

    /* A flush of translations leaves it */
    vtd_epochs_flush_global(&epochs);
    vtd_epochs_flush_domain(&epochs, cfg.domain);
    g_assert_true(vtd_context_lookup(&iotlb, &found));

    /* Its own flush takes it, and refuses what was on its way */
    began = vtd_epochs_now(&epochs);
    vtd_context_flush(&iotlb);
    g_assert_false(vtd_context_lookup(&iotlb, &found));
    g_assert_true(vtd_context_lookup(&other, &found));
    vtd_context_fill(&iotlb, began, &cfg);
    g_assert_false(vtd_context_lookup(&iotlb, &found));
    cfg.domain = 0x4321;
    vtd_context_fill(&iotlb, vtd_epochs_now(&epochs), &cfg);
    g_assert_true(vtd_context_lookup(&iotlb, &found));
    g_assert_cmphex(found.domain, ==, 0x4321);
    vtd_iotlb_destroy(&iotlb);
    vtd_iotlb_destroy(&other);
    vtd_epochs_destroy(&epochs);
}

/*
 * Threads.  The model is a guest whose table entries are version numbers.
 *
 * A writer changes some entries, flushes, and only then publishes the new
 * version as the oldest that may still be seen.  A reader notes the oldest
 * version, translates as the unit does (cache, else walk and fill), and must
 * not see an older one.  An address encodes what it was made from: page
 * index, version of the page's entry and of the requester's context entry.
 */
#define REQUESTERS 3
#define DOMAINS 2
#define WRITERS 2
#define READERS 2
#define PAGES 1024
#define SMALL_PAGES 960         /* the others are large, or change their size */
#define HOT_PAGES 16
#define GROUP_AM 3
#define ROUNDS 40
#define WRITES 400
#define READS 20000

static unsigned rounds = ROUNDS;

typedef struct Model {
    VTDEpochs epochs;
    VTDIOTLB iotlb[REQUESTERS];
    QemuMutex commands;         /* as the big lock: one flush at a time */
    /* All atomic */
    unsigned version[DOMAINS][PAGES];
    unsigned oldest[DOMAINS][PAGES];
    unsigned context[REQUESTERS];
    unsigned oldest_context[REQUESTERS];
    unsigned hits;
    bool done;
} Model;

typedef struct ModelThread {
    Model *m;
    QemuThread thread;
    GRand *rand;
} ModelThread;

static unsigned model_domain(unsigned requester)
{
    return requester % DOMAINS;
}

static unsigned model_random_page(GRand *rand)
{
    switch (g_rand_int_range(rand, 0, 4)) {
    case 0:
        return g_rand_int_range(rand, 0, PAGES);
    case 1:
        return g_rand_int_range(rand, PAGES - HOT_PAGES, PAGES);
    default:
        return g_rand_int_range(rand, 0, HOT_PAGES);
    }
}

/* Large pages lie apart; a third of them are 4 KiB, 2 MiB, 1 GiB in turn */
static uint64_t model_iova(unsigned index)
{
    return index < SMALL_PAGES ? index * KiB4 : index * GiB1;
}

static unsigned model_level(unsigned index, unsigned version)
{
    if (index < SMALL_PAGES) {
        return 1;
    }
    return 1 + (index % 2 ? index + version / 4 : index) % 3;
}

/* A page's output address: 10 bits of index, 18 of version, 12 of context */
static uint64_t model_addr(unsigned index, unsigned version, unsigned context)
{
    return deposit64(deposit64(index, 10, 18, version), 28, 12, context) << 12;
}

static unsigned model_addr_index(uint64_t addr)
{
    return extract64(addr, 12, 10);
}

static unsigned model_addr_version(uint64_t addr)
{
    return extract64(addr, 22, 18);
}

static unsigned model_addr_context(uint64_t addr)
{
    return extract64(addr, 40, 12);
}

/* Now and then, let the other threads run at a bad moment */
static void model_pause(GRand *rand)
{
    unsigned n = g_rand_int_range(rand, 0, 256);

    if (n == 0) {
        g_usleep(30);
    } else if (n < 8) {
        g_thread_yield();
    }
}

static unsigned model_walk_context(Model *m, unsigned requester, GRand *rand)
{
    uint64_t began = vtd_epochs_now(&m->epochs);
    VTDConfig cfg;

    if (!vtd_context_lookup(&m->iotlb[requester], &cfg)) {
        model_pause(rand);
        cfg = (VTDConfig) {
            .root = qatomic_load_acquire(&m->context[requester]),
        };
        model_pause(rand);
        vtd_context_fill(&m->iotlb[requester], began, &cfg);
    }
    return cfg.root;
}

static void model_walk(Model *m, unsigned requester, unsigned index,
                       GRand *rand, VTDTranslation *t)
{
    unsigned domain = model_domain(requester), version, context;
    uint64_t began = vtd_epochs_now(&m->epochs);

    context = model_walk_context(m, requester, rand);
    model_pause(rand);
    version = qatomic_load_acquire(&m->version[domain][index]);
    model_pause(rand);
    *t = page(model_iova(index), model_level(index, version), 0, domain);
    t->addr = model_addr(index, version, context);
    vtd_iotlb_fill(&m->iotlb[requester], began, t);
}

static void model_check(Model *m, unsigned requester, unsigned index,
                        GRand *rand)
{
    unsigned domain = model_domain(requester);
    unsigned oldest = qatomic_load_acquire(&m->oldest[domain][index]);
    unsigned context = qatomic_load_acquire(&m->oldest_context[requester]);
    unsigned version;
    VTDTranslation t;

    if (lookup(&m->iotlb[requester], model_iova(index), &t)) {
        qatomic_inc(&m->hits);
    } else {
        model_walk(m, requester, index, rand, &t);
    }
    g_assert_cmphex(t.iova, ==, model_iova(index));
    g_assert_cmpuint(model_addr_index(t.addr), ==, index);
    version = model_addr_version(t.addr);
    g_assert_cmpuint(version, >=, oldest);
    g_assert_cmpuint(model_addr_context(t.addr), >=, context);
    g_assert_cmphex(t.mask + 1, ==, page_size(model_level(index, version)));
}

static void *model_reader(void *opaque)
{
    ModelThread *self = opaque;
    GRand *rand = self->rand;

    rcu_register_thread();
    for (unsigned i = 0; i < READS; i++) {
        model_check(self->m, g_rand_int_range(rand, 0, REQUESTERS),
                    model_random_page(rand), rand);
    }
    rcu_unregister_thread();
    return NULL;
}

static void model_flush(Model *m, unsigned domain, const Flush *f)
{
    if (f->kind == FLUSH_GLOBAL || f->kind == FLUSH_DOMAIN) {
        do_flush(&m->iotlb[0], f);
        return;
    }
    for (unsigned r = 0; r < REQUESTERS; r++) {
        if (model_domain(r) == domain) {
            do_flush(&m->iotlb[r], f);
        }
    }
}

/* A write of one entry, or of a group of neighbours, and its flush */
static void model_write(Model *m, unsigned index, GRand *rand)
{
    static const FlushKind kinds[] = {
        FLUSH_PAGES, FLUSH_PAGES, FLUSH_PAGES, FLUSH_PAGES, FLUSH_PAGES,
        FLUSH_DOMAIN, FLUSH_GLOBAL, FLUSH_REQUESTER, FLUSH_CONTEXT,
    };
    unsigned domain = g_rand_int_range(rand, 0, DOMAINS), count = 1;
    Flush f = {
        .kind = kinds[g_rand_int_range(rand, 0, ARRAY_SIZE(kinds))],
        .domain = domain,
    };

    if (index < SMALL_PAGES && g_rand_boolean(rand)) {
        f.am = GROUP_AM;
        count = 1 << f.am;
        index = QEMU_ALIGN_DOWN(index, count);
    }
    f.iova = model_iova(index);
    for (unsigned i = 0; i < count; i++) {
        qatomic_inc(&m->version[domain][index + i]);
    }
    model_pause(rand);
    model_flush(m, domain, &f);
    for (unsigned i = 0; i < count; i++) {
        qatomic_store_release(&m->oldest[domain][index + i],
                              qatomic_read(&m->version[domain][index + i]));
    }
}

static void model_write_context(Model *m, GRand *rand)
{
    unsigned requester = g_rand_int_range(rand, 0, REQUESTERS);

    qatomic_inc(&m->context[requester]);
    model_pause(rand);
    vtd_context_flush(&m->iotlb[requester]);
    qatomic_store_release(&m->oldest_context[requester],
                          qatomic_read(&m->context[requester]));
}

static void *model_writer(void *opaque)
{
    ModelThread *self = opaque;
    GRand *rand = self->rand;

    rcu_register_thread();
    for (unsigned i = 0; i < WRITES; i++) {
        WITH_QEMU_LOCK_GUARD(&self->m->commands) {
            if (g_rand_int_range(rand, 0, 10)) {
                model_write(self->m, model_random_page(rand), rand);
            } else {
                model_write_context(self->m, rand);
            }
        }
        model_pause(rand);
    }
    rcu_unregister_thread();
    return NULL;
}

static Model *model_new(void)
{
    Model *m = g_new0(Model, 1);

    qemu_mutex_init(&m->commands);
    vtd_epochs_init(&m->epochs);
    for (unsigned r = 0; r < REQUESTERS; r++) {
        vtd_iotlb_init(&m->iotlb[r], &m->epochs);
    }
    return m;
}

static void model_free(Model *m)
{
    for (unsigned r = 0; r < REQUESTERS; r++) {
        vtd_iotlb_destroy(&m->iotlb[r]);
    }
    vtd_epochs_destroy(&m->epochs);
    qemu_mutex_destroy(&m->commands);
    g_free(m);
}

static void run_threads(Model *m, unsigned writers, unsigned readers,
                        void *(*writer)(void *), void *(*reader)(void *))
{
    g_autofree ModelThread *threads = g_new0(ModelThread, writers + readers);

    for (unsigned i = 0; i < writers + readers; i++) {
        threads[i].m = m;
        threads[i].rand = g_rand_new_with_seed(g_test_rand_int());
        qemu_thread_create(&threads[i].thread, "vtd-iotlb",
                           i < writers ? writer : reader, &threads[i],
                           QEMU_THREAD_JOINABLE);
    }
    for (unsigned i = 0; i < writers + readers; i++) {
        qemu_thread_join(&threads[i].thread);
        g_rand_free(threads[i].rand);
    }
}

/* VTD_IOTLB_ROUNDS=10000, say, runs for minutes */
static void set_rounds(void)
{
    const char *s = g_getenv("VTD_IOTLB_ROUNDS");

    if (s && (qemu_strtoui(s, NULL, 0, &rounds) || !rounds)) {
        fprintf(stderr, "VTD_IOTLB_ROUNDS=%s: give a number of rounds, "
                "1 or more (default: %d)\n", s, ROUNDS);
        exit(1);
    }
}

/* Each round begins with empty caches: first fills and growth are raced too */
static void test_threads(void)
{
    uint64_t hits = 0;

    for (unsigned i = 0; i < rounds; i++) {
        Model *m = model_new();

        run_threads(m, WRITERS, READERS, model_writer, model_reader);
        hits += m->hits;
        model_free(m);
    }
    /* A cache that never hits would pass all of the above */
    g_assert_cmpuint(hits, >, (uint64_t)rounds * READERS * READS / 10);
}

/*
 * Lines that are overwritten all the time: more blocks than there are lines
 * for them, as only the highest address bits differ.  What a
 * reader finds must belong together.  One thread more than there are CPUs,
 * so that the writer is now and then preempted within a write.
 */
#define TORN_PAGES 8
#define TORN_FILLS_PER_ROUND 50000ULL

static void *torn_writer(void *opaque)
{
    ModelThread *self = opaque;

    rcu_register_thread();
    for (uint64_t i = 0; i < rounds * TORN_FILLS_PER_ROUND; i++) {
        uint64_t n = i * 5 % TORN_PAGES;

        fill(&self->m->iotlb[0], page(n << 58, 1, n << 12, n));
    }
    qatomic_set(&self->m->done, true);
    rcu_unregister_thread();
    return NULL;
}

static void *torn_reader(void *opaque)
{
    ModelThread *self = opaque;
    unsigned hits = 0;

    rcu_register_thread();
    for (uint64_t i = 0; !qatomic_read(&self->m->done); i++) {
        uint64_t n = i % TORN_PAGES;
        VTDTranslation t;

        if (lookup(&self->m->iotlb[0], n << 58, &t)) {
            hits++;
            g_assert_cmphex(t.iova, ==, n << 58);
            g_assert_cmphex(t.addr, ==, n << 12);
        }
    }
    qatomic_add(&self->m->hits, hits);
    rcu_unregister_thread();
    return NULL;
}

static void test_torn_entries(void)
{
    Model *m = model_new();

    run_threads(m, 1, MIN(g_get_num_processors(), 16), torn_writer,
                torn_reader);
    g_assert_cmpuint(m->hits, >, 0);
    model_free(m);
}

static void add_flush_tests(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(flushes); i++) {
        g_autofree char *flush = g_strdup_printf("/vtd/iotlb/flush/%s",
                                                 flushes[i].name);
        g_autofree char *order = g_strdup_printf("/vtd/iotlb/order/%s",
                                                 flushes[i].name);

        g_test_add_data_func(flush, &flushes[i], test_flush);
        g_test_add_data_func(order, &flushes[i], test_order);
    }
}

#ifdef QEMU_SANITIZE_THREAD
/*
 * RCU tells by fences, which TSan does not follow, that readers are gone:
 * what is freed after a grace period looks like a race to it.
 */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "race:vtd_table_free";
}
#endif

int main(int argc, char **argv)
{
    static const uint64_t distances[] = {
        KiB4, 4 * KiB4, 0x10000, MiB2, GiB1, 1ULL << 40,
    };

    g_test_init(&argc, &argv, NULL);
    set_rounds();

    g_test_add_func("/vtd/iotlb/page-sizes", test_page_sizes);
    g_test_add_func("/vtd/iotlb/fields", test_fields);
    g_test_add_func("/vtd/iotlb/replacement", test_replacement);
    add_flush_tests();
    g_test_add_func("/vtd/iotlb/flush/overlap", test_flush_overlap);
    g_test_add_func("/vtd/iotlb/order/unconcerned", test_order_unconcerned);
    g_test_add_func("/vtd/iotlb/neighbours", test_neighbours);
    g_test_add_func("/vtd/iotlb/neighbours-domain", test_neighbours_domain);
    g_test_add_func("/vtd/iotlb/no-permission", test_no_permission);
    g_test_add_func("/vtd/iotlb/late-neighbour", test_late_neighbour);
    g_test_add_func("/vtd/iotlb/victims", test_victims);
    g_test_add_func("/vtd/iotlb/nothing-takes-no-place",
                    test_nothing_takes_no_place);
    g_test_add_func("/vtd/iotlb/grow-large", test_grow_large);
    g_test_add_func("/vtd/iotlb/flush-half-way", test_flush_half_way);
    g_test_add_func("/vtd/iotlb/reinit", test_reinit);
    for (unsigned i = 0; i < ARRAY_SIZE(distances); i++) {
        g_autofree char *path = g_strdup_printf(
            "/vtd/iotlb/working-set/%" PRIu64 "k", distances[i] / 1024);

        g_test_add_data_func(path, &distances[i], test_working_set);
    }
    g_test_add_func("/vtd/iotlb/context", test_context);
    g_test_add_func("/vtd/iotlb/threads/model", test_threads);
    g_test_add_func("/vtd/iotlb/threads/torn-entries", test_torn_entries);
    return g_test_run();
}
