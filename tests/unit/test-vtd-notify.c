/*
 * Intel VT-d: tests of those who have to be told of mappings
 *
 * Each notifier keeps a map of its own from the events, under the rules of
 * vfio's type1 backend: what is mapped must not be mapped again, and an
 * unmapping must not cut a mapping in two.  What the tables say is found by
 * a recursion of the test's own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "exec/address-spaces.h"
#include "system/dma.h"
#include "hw/i386/intel_iommu_internal.h"
#include "test-vtd-memory.h"

#define R   0x1ULL
#define RW  0x3ULL
#define PS  0x80ULL
#define ADDR 0x000ffffffffff000ULL
#define WINDOW 0xfee00000ULL
#define WINDOW_END 0xfef00000ULL
#define KiB4 0x1000ULL
#define MiB2 0x200000ULL
#define GiB1 0x40000000ULL

typedef struct Piece {
    uint64_t first;
    uint64_t last;
    uint64_t addr;
    unsigned perm;
} Piece;

typedef struct Listener {
    IOMMUNotifier n;
    GTree *map;             /* NULL: only count */
    unsigned maps;
    unsigned unmaps;
    uint64_t unmapped;      /* bytes */
} Listener;

typedef struct Fixture {
    TestMemory *m;
    VTDUnit unit;
    unsigned runs;          /* of vtd_shadows_run(), for the last command */
    VTDAddressSpace as;
    VTDConfig cfg;
    VTDFaultReason reason;
    GArray *free;           /* frames */
} Fixture;

AddressSpace address_space_memory;

/* Events that a listener of all addresses has heard */
static unsigned heard;

VTDFaultReason vtd_requester_config(VTDAddressSpace *as, VTDConfig *cfg)
{
    Fixture *f = container_of(as, Fixture, as);

    *cfg = f->cfg;
    return f->reason;
}

/* vtd_shadows_run() wants to be called again, see settle() */
void qemu_bh_schedule(QEMUBH *bh)
{
}

uint16_t vtd_sid(VTDAddressSpace *as)
{
    return 0x0200 | as->devfn;
}

uint64_t dma_aligned_pow2_mask(uint64_t start, uint64_t end, int max_addr_bits)
{
    uint64_t mask = MAKE_64BIT_MASK(0, max_addr_bits);

    while ((start & mask) || mask > end - start) {
        mask >>= 1;
    }
    return mask;
}

/* What system/memory.c does, with its assertions */
void memory_region_notify_iommu_one(IOMMUNotifier *n,
                                    const IOMMUTLBEvent *event)
{
    IOMMUTLBEntry tmp = event->entry;
    hwaddr end = tmp.iova + tmp.addr_mask;

    g_assert(event->type != IOMMU_NOTIFIER_UNMAP || tmp.perm == IOMMU_NONE);
    g_assert(tmp.target_as == &address_space_memory);
    if (n->start > end || n->end < tmp.iova) {
        return;
    }
    if (n->notifier_flags & IOMMU_NOTIFIER_DEVIOTLB_UNMAP) {
        tmp.iova = MAX(tmp.iova, n->start);
        tmp.addr_mask = MIN(end, n->end) - tmp.iova;
    } else {
        g_assert(tmp.iova >= n->start && end <= n->end);
    }
    if (event->type & n->notifier_flags) {
        n->notify(n, &tmp);
    }
}

static int piece_compare(gconstpointer p, gconstpointer q, gpointer data)
{
    const Piece *a = p, *b = q;

    return a->last < b->first ? -1 : a->first > b->last;
}

static void listener_unmap(Listener *l, const Piece *p)
{
    const Piece *old;
    unsigned removed = 0;

    while ((old = g_tree_lookup(l->map, p))) {
        g_assert_cmphex(old->first, >=, p->first);
        g_assert_cmphex(old->last, <=, p->last);
        g_tree_remove(l->map, old);
        removed++;
    }
    g_assert_cmpuint(removed, >, 0);
}

static void listener_notify(IOMMUNotifier *n, IOMMUTLBEntry *e)
{
    Listener *l = container_of(n, Listener, n);
    Piece p = { e->iova, e->iova + e->addr_mask, e->translated_addr, e->perm };

    g_assert_cmphex(p.first, >=, n->start);
    g_assert_cmphex(p.last, <=, n->end);
    g_assert_cmphex(e->addr_mask & (e->addr_mask + 1), ==, 0);
    g_assert_cmphex(p.first & e->addr_mask, ==, 0);
    heard += n->start == 0 && n->end == UINT64_MAX;
    if (e->perm == IOMMU_NONE) {
        l->unmaps++;
        l->unmapped += e->addr_mask + 1;
        if (l->map) {
            listener_unmap(l, &p);
        }
        return;
    }
    l->maps++;
    if (l->map) {
        Piece *new = g_memdup2(&p, sizeof(p));

        g_assert_null(g_tree_lookup(l->map, &p));
        g_tree_insert(l->map, new, new);
    }
}

static void listener_forget(Listener *l)
{
    if (l->map) {
        g_tree_destroy(l->map);
    }
    l->map = g_tree_new_full(piece_compare, NULL, g_free, NULL);
}

static IOMMUNotifierFlag wanted_flags(Fixture *f)
{
    IOMMUNotifierFlag flags = IOMMU_NOTIFIER_NONE;
    IOMMUNotifier *n;

    IOMMU_NOTIFIER_FOREACH(n, &f->as.iommu) {
        flags |= n->notifier_flags;
    }
    return flags;
}

static void flags_changed(Fixture *f)
{
    IOMMUNotifierFlag old = f->as.iommu.iommu_notify_flags;
    IOMMUNotifierFlag new = wanted_flags(f);

    if (new != old) {
        g_assert_cmpint(vtd_notify_flags(&f->as, old, new, &error_abort), ==,
                        0);
        f->as.iommu.iommu_notify_flags = new;
    }
}

/* A command, or the bottom half, comes: as much as that may be done */
static void begin(Fixture *f)
{
    f->unit.left = f->unit.limits.go;
}

/* What the bottom half does: no step of it is long */
static void settle(Fixture *f)
{
    bool done;

    f->runs = 0;
    do {
        f->m->reads = 0;
        heard = 0;
        begin(f);
        done = vtd_shadows_run(&f->unit);
        g_assert_cmpuint(f->m->reads, <=, f->unit.limits.go.entries);
        g_assert_cmpuint(heard, <=, f->unit.limits.go.events);
        g_assert_cmpuint(++f->runs, <, 1 << 20);
    } while (!done);
}

static void listener_add(Fixture *f, Listener *l, IOMMUNotifierFlag flags,
                         uint64_t start, uint64_t end)
{
    l->n = (IOMMUNotifier) {
        .notify = listener_notify, .notifier_flags = flags,
        .start = start, .end = end,
    };
    if (flags & IOMMU_NOTIFIER_MAP) {
        listener_forget(l);
    }
    QLIST_INSERT_HEAD(&f->as.iommu.iommu_notify, &l->n, node);
    flags_changed(f);
    vtd_notify_replay(&f->as, &l->n);
    settle(f);
}

static void listener_remove(Fixture *f, Listener *l)
{
    QLIST_REMOVE(&l->n, node);
    flags_changed(f);
    if (l->map) {
        g_tree_destroy(l->map);
        l->map = NULL;
    }
}

static void fixture_init(Fixture *f, unsigned levels)
{
    memset(f, 0, sizeof(*f));
    f->m = test_memory_new();
    f->free = g_array_new(false, false, sizeof(uint64_t));
    f->unit.cap.aw_bits = levels == 3 ? 39 : 48;
    f->unit.cap.caching_mode = true;
    f->unit.cap.device_iotlb = true;
    f->unit.memory = f->m->dev;
    f->unit.dmar = VTD_DMAR_ENABLED;
    f->unit.limits = VTD_SHADOW_LIMITS;
    begin(f);
    QLIST_INSERT_HEAD(&f->unit.space_list, &f->as, next);
    f->as.unit = &f->unit;
    f->as.devfn = 0x18;
    f->cfg = (VTDConfig) {
        .stage = VTD_STAGE_SECOND, .domain = 7, .levels = levels,
        .root = test_memory_frame(f->m),
        .address_limit = 1ULL << f->unit.cap.aw_bits,
        .host_mask = vtd_host_mask(&f->unit.cap),
    };
}

static void fixture_destroy(Fixture *f)
{
    vtd_notify_destroy(&f->as);
    g_array_unref(f->free);
    g_free(f->m);
}

/* The guest's tables */

static uint64_t size_of(unsigned level)
{
    return 1ULL << (12 + 9 * (level - 1));
}

static uint64_t frame_new(Fixture *f)
{
    uint64_t frame;

    if (f->free->len == 0) {
        return test_memory_frame(f->m);
    }
    frame = g_array_index(f->free, uint64_t, f->free->len - 1);
    g_array_set_size(f->free, f->free->len - 1);
    memset(test_memory_word(f->m, frame), 0, KiB4);
    return frame;
}

static bool is_table(uint64_t entry, unsigned level)
{
    return level > 1 && (entry & RW) && !(entry & PS);
}

/* Give back the tables below @entry */
static void frames_free(Fixture *f, uint64_t entry, unsigned level)
{
    uint64_t frame = entry & ADDR;

    if (is_table(entry, level)) {
        for (unsigned i = 0; i < 512; i++) {
            frames_free(f, *test_memory_word(f->m, frame + 8 * i), level - 1);
        }
        g_array_append_val(f->free, frame);
    }
}

/* 512 entries that say what the leaf @entry says */
static uint64_t split(Fixture *f, uint64_t entry, unsigned level)
{
    uint64_t frame = frame_new(f);
    uint64_t leaf = level > 2 ? entry : entry & ~PS;

    for (unsigned i = 0; (entry & RW) && i < 512; i++) {
        *test_memory_word(f->m, frame + 8 * i) = leaf + i * size_of(level - 1);
    }
    return frame | RW;
}

/* The entry for @iova at @level; larger pages on the way are split */
static uint64_t *entry_at(Fixture *f, uint64_t iova, unsigned level)
{
    uint64_t table = f->cfg.root;

    for (unsigned l = f->cfg.levels; ; l--) {
        uint64_t index = iova >> (12 + 9 * (l - 1)) & 511;
        uint64_t *entry = test_memory_word(f->m, table + index * 8);

        if (l == level) {
            return entry;
        }
        if (!is_table(*entry, l)) {
            *entry = split(f, *entry, l);
        }
        table = *entry & ADDR;
    }
}

static void set_entry(Fixture *f, uint64_t iova, unsigned level,
                      uint64_t value)
{
    uint64_t *entry = entry_at(f, iova, level);

    frames_free(f, *entry, level);
    *entry = value;
}

static void map(Fixture *f, uint64_t iova, unsigned level, uint64_t addr,
                uint64_t bits)
{
    set_entry(f, iova, level, addr | bits | (level > 1 ? PS : 0));
}

/* What tables and listeners say, as lists of pieces that can be compared */

static void piece_add(GArray *list, const Piece *p)
{
    Piece *prev = list->len ? &g_array_index(list, Piece, list->len - 1) : NULL;

    if (prev && prev->last + 1 == p->first && prev->perm == p->perm &&
        prev->addr + (p->first - prev->first) == p->addr) {
        prev->last = p->last;
    } else {
        g_array_append_val(list, *p);
    }
}

static void piece_add_cropped(GArray *list, Piece p, uint64_t first,
                              uint64_t last)
{
    if (p.first > last || p.last < first) {
        return;
    }
    if (p.first < first) {
        p.addr += first - p.first;
        p.first = first;
    }
    p.last = MIN(p.last, last);
    piece_add(list, &p);
}

/* A leaf, without what would come out at the interrupt addresses */
static void say_leaf(GArray *list, const Piece *p, const IOMMUNotifier *n)
{
    uint64_t low = MAX(p->addr, WINDOW), size = p->last - p->first;
    uint64_t high = MIN(p->addr + size, WINDOW_END - 1);

    if (low > high) {
        piece_add_cropped(list, *p, n->start, n->end);
        return;
    }
    if (low > p->addr) {
        Piece a = *p;

        a.last = p->first + (low - p->addr) - 1;
        piece_add_cropped(list, a, n->start, n->end);
    }
    if (high < p->addr + size) {
        Piece b = *p;

        b.addr = high + 1;
        b.first = p->first + (b.addr - p->addr);
        piece_add_cropped(list, b, n->start, n->end);
    }
}

static void say_table(Fixture *f, GArray *list, uint64_t table, unsigned level,
                      uint64_t base, unsigned perm, const IOMMUNotifier *n)
{
    for (unsigned i = 0; i < 512; i++) {
        uint64_t entry = *test_memory_word(f->m, table + 8 * i);
        uint64_t iova = base + i * size_of(level);
        unsigned both = perm & entry & RW;

        if (!both) {
            continue;
        }
        if (is_table(entry, level)) {
            say_table(f, list, entry & ADDR, level - 1, iova, both, n);
        } else {
            Piece p = { iova, iova + size_of(level) - 1,
                        entry & ADDR & ~PS, both };

            say_leaf(list, &p, n);
        }
    }
}

static gboolean say_heard(gpointer key, gpointer value, gpointer list)
{
    piece_add(list, key);
    return false;
}

static void check(Fixture *f, Listener *l, bool translated)
{
    GArray *want = g_array_new(false, false, sizeof(Piece));
    GArray *have = g_array_new(false, false, sizeof(Piece));

    if (translated) {
        say_table(f, want, f->cfg.root, f->cfg.levels, 0, RW, &l->n);
    }
    g_tree_foreach(l->map, say_heard, have);
    g_assert_cmpuint(have->len, ==, want->len);
    for (unsigned i = 0; i < want->len; i++) {
        Piece *a = &g_array_index(have, Piece, i);
        Piece *b = &g_array_index(want, Piece, i);

        g_assert_cmphex(a->first, ==, b->first);
        g_assert_cmphex(a->last, ==, b->last);
        g_assert_cmphex(a->addr, ==, b->addr);
        g_assert_cmphex(a->perm, ==, b->perm);
    }
    g_array_unref(want);
    g_array_unref(have);
}

static void flush_all(Fixture *f)
{
    vtd_notify_range(&f->as, 0, vtd_host_mask(&f->unit.cap));
    settle(f);
}

/* A page-selective flush, with the least address mask that covers it all */
static void flush(Fixture *f, uint64_t iova, uint64_t size)
{
    vtd_notify_range(&f->as, iova & -size, iova | (size - 1));
    settle(f);
}

#define LISTENERS 4

static void listeners_add(Fixture *f, Listener *l)
{
    memset(l, 0, LISTENERS * sizeof(*l));
    listener_add(f, &l[0], IOMMU_NOTIFIER_IOTLB_EVENTS, 0, WINDOW - 1);
    listener_add(f, &l[1], IOMMU_NOTIFIER_IOTLB_EVENTS, WINDOW_END,
                 UINT64_MAX);
    listener_add(f, &l[2], IOMMU_NOTIFIER_IOTLB_EVENTS, 0, UINT64_MAX);
    /* Both ends lie inside of large pages */
    listener_add(f, &l[3], IOMMU_NOTIFIER_IOTLB_EVENTS, GiB1 + 0x3000,
                 GiB1 + MiB2 + 0x100fff);
}

static void listeners_remove(Fixture *f, Listener *l)
{
    for (unsigned i = 0; i < LISTENERS; i++) {
        listener_remove(f, &l[i]);
    }
}

static void check_all(Fixture *f, Listener *l, bool translated)
{
    for (unsigned i = 0; i < LISTENERS; i++) {
        check(f, &l[i], translated);
    }
}

static uint64_t random_iova(Fixture *f, GRand *r)
{
    static const unsigned mid[] = { 0, 1, 2, 503, 504, 511 };
    static const unsigned low[] = { 0, 1, 2, 3, 255, 256, 511 };
    uint64_t gig[] = { 0, 1, 3, (f->cfg.address_limit >> 30) - 1 };

    return gig[g_rand_int_range(r, 0, ARRAY_SIZE(gig))] * GiB1 +
           mid[g_rand_int_range(r, 0, ARRAY_SIZE(mid))] * MiB2 +
           low[g_rand_int_range(r, 0, ARRAY_SIZE(low))] * KiB4;
}

/* Few addresses, so that pages change in nothing but their permission, too */
static uint64_t random_addr(GRand *r, unsigned level)
{
    static const uint64_t addr[] = { 0, GiB1, 5 * GiB1, WINDOW - KiB4,
                                     WINDOW, WINDOW_END - KiB4, WINDOW_END };

    return addr[g_rand_int_range(r, 0, ARRAY_SIZE(addr))] & -size_of(level);
}

/* An entry that is present stays so, and what is below it stays */
static void random_perm(uint64_t *entry, uint64_t perm)
{
    if (*entry & RW) {
        *entry = (*entry & ~RW) | perm;
    }
}

static void random_step(Fixture *f, GRand *r)
{
    uint64_t iova = random_iova(f, r);
    unsigned level = g_rand_int_range(r, 1, 4);
    unsigned what = g_rand_int_range(r, 0, 8);

    if (f->m->used - f->free->len > TEST_FRAMES / 2) {
        level = 3;                      /* tables have to be given back */
        what = 0;
    }
    if (what < 2) {
        set_entry(f, iova, level, 0);
    } else if (what < 3) {
        random_perm(entry_at(f, iova, level), g_rand_int_range(r, 1, 4));
    } else {
        map(f, iova, level, random_addr(r, level),
            g_rand_int_range(r, 1, 4));
    }
    if (g_rand_int_range(r, 0, 16) == 0) {
        vtd_notify_range(&f->as, 0, vtd_host_mask(&f->unit.cap));
    } else {
        /* As wide as the change, or wider by a few bits */
        unsigned am = (level - 1) * 9 + g_rand_int_range(r, 0, 4);
        uint64_t size = KiB4 << MIN(am, VTD_MAMV);

        vtd_notify_range(&f->as, iova & -size, iova | (size - 1));
    }
}

/* Further commands come while the shadow is behind, and steps are short */
static void random_steps(Fixture *f, GRand *r)
{
    do {
        random_step(f, r);
        f->unit.limits.go = (VTDShadowWork) {
            .entries = g_rand_int_range(r, VTD_RANGE_BUDGET_MIN, 3000),
            .events = g_rand_int_range(r, 1, 20),
        };
        begin(f);
        if (g_rand_int_range(r, 0, 2)) {
            vtd_shadows_run(&f->unit);
        }
    } while (g_rand_int_range(r, 0, 3) == 0);
    settle(f);
}

static void random_model(unsigned levels, unsigned steps)
{
    GRand *r = g_rand_new_with_seed(20 + levels);
    unsigned runs = 0;
    Listener l[LISTENERS];
    Fixture f;

    fixture_init(&f, levels);
    listeners_add(&f, l);
    for (unsigned i = 0; i < steps; i++) {
        random_steps(&f, r);
        check_all(&f, l, true);
        runs = MAX(runs, f.runs);
    }
    g_assert_cmpuint(runs, >, 3);
    for (unsigned i = 0; i < LISTENERS; i++) {
        g_assert_cmpuint(l[i].maps, >, 100);
        g_assert_cmpuint(l[i].unmaps, >, 100);
    }
    listeners_remove(&f, l);
    g_rand_free(r);
    fixture_destroy(&f);
}

static void test_random_3_levels(void)
{
    random_model(3, 2000);
}

static void test_random_4_levels(void)
{
    random_model(4, 2000);
}

static void map_some(Fixture *f)
{
    map(f, 0x5000, 1, 0x7000, R);
    map(f, GiB1, 2, MiB2, RW);
    map(f, GiB1 + MiB2, 2, 7 * MiB2, RW);
    map(f, 3 * GiB1, 3, 5 * GiB1, RW);
}

static void test_replay(void)
{
    Listener l[LISTENERS];
    Fixture f;

    fixture_init(&f, 3);
    map_some(&f);
    memset(l, 0, sizeof(l));
    listener_add(&f, &l[2], IOMMU_NOTIFIER_IOTLB_EVENTS, 0, UINT64_MAX);
    check(&f, &l[2], true);
    g_assert_cmpuint(l[2].maps, ==, 4);
    listener_add(&f, &l[0], IOMMU_NOTIFIER_IOTLB_EVENTS, GiB1 + 0x1000,
                 GiB1 + MiB2);
    check(&f, &l[0], true);
    g_assert_cmpuint(l[2].maps, ==, 4);
    g_assert_cmpuint(l[0].unmaps + l[2].unmaps, ==, 0);
    listener_remove(&f, &l[0]);
    check(&f, &l[2], true);
    listener_remove(&f, &l[2]);
    g_assert_null(f.as.shadow.mappings);
    fixture_destroy(&f);
}

static void test_come_back(void)
{
    Listener l[LISTENERS];
    Fixture f;

    fixture_init(&f, 4);
    map_some(&f);
    listeners_add(&f, l);
    check_all(&f, l, true);
    listener_remove(&f, &l[1]);
    set_entry(&f, 0x5000, 1, 0);
    flush(&f, 0x5000, KiB4);
    listener_add(&f, &l[1], IOMMU_NOTIFIER_IOTLB_EVENTS, WINDOW_END,
                 UINT64_MAX);
    check_all(&f, l, true);
    listeners_remove(&f, l);
    g_assert_null(f.as.shadow.mappings);
    /* Nobody listens: changes are not followed, but found on return */
    set_entry(&f, GiB1, 2, 0);
    flush_all(&f);
    listeners_add(&f, l);
    check_all(&f, l, true);
    listeners_remove(&f, l);
    fixture_destroy(&f);
}

static void off_and_on(Fixture *f, Listener *l)
{
    flush_all(f);
    check_all(f, l, false);
}

static void test_not_translated(void)
{
    Listener l[LISTENERS];
    Fixture f;

    fixture_init(&f, 3);
    map_some(&f);
    listeners_add(&f, l);
    check_all(&f, l, true);
    f.cfg.stage = VTD_STAGE_PASS_THROUGH;
    off_and_on(&f, l);
    f.cfg.stage = VTD_STAGE_SECOND;
    flush_all(&f);
    check_all(&f, l, true);
    f.unit.dmar = 0;
    off_and_on(&f, l);
    f.unit.dmar = VTD_DMAR_ENABLED;
    flush_all(&f);
    check_all(&f, l, true);
    f.reason = VTD_FR_CONTEXT_INVALID;
    off_and_on(&f, l);
    listeners_remove(&f, l);
    fixture_destroy(&f);
}

/* Input and output address window: one page of 1 GiB, then one of 2 MiB */
static void test_interrupt_window(void)
{
    Listener l[LISTENERS];
    Fixture f;

    fixture_init(&f, 3);
    listeners_add(&f, l);
    map(&f, 3 * GiB1, 3, 3 * GiB1, RW);
    flush(&f, WINDOW_END, KiB4);
    flush(&f, WINDOW - KiB4, KiB4);
    flush(&f, 3 * GiB1, GiB1);
    check_all(&f, l, true);
    g_assert_cmpuint(l[0].maps, >, 0);
    g_assert_cmpuint(l[1].maps, >, 0);
    map(&f, WINDOW, 2, WINDOW, RW);
    flush(&f, WINDOW, MiB2);
    check_all(&f, l, true);
    set_entry(&f, 3 * GiB1, 3, 0);
    flush(&f, 3 * GiB1, GiB1);
    check_all(&f, l, true);
    listeners_remove(&f, l);
    fixture_destroy(&f);
}

/* The guest flushes the one page that it changed of a page that it split */
static void split_flush(unsigned level, uint64_t offset)
{
    uint64_t base = GiB1 & -size_of(level);
    Listener l[LISTENERS];
    Fixture f;

    fixture_init(&f, 4);
    map(&f, base, level, 5 * GiB1, RW);
    listeners_add(&f, l);
    set_entry(&f, base + offset, 1, 0);
    flush(&f, base + offset, KiB4);
    check_all(&f, l, true);
    map(&f, base + offset, 1, 0x8000, R);
    flush(&f, base + offset, KiB4);
    check_all(&f, l, true);
    listeners_remove(&f, l);
    fixture_destroy(&f);
}

static void test_split(void)
{
    for (unsigned level = 2; level <= 3; level++) {
        split_flush(level, 0);
        split_flush(level, 0x5000);
        split_flush(level, size_of(level) - KiB4);
    }
}

/* Nothing is beyond the width, even if a flush reaches there */
static void test_last_address(void)
{
    Listener l = { }, u = { };
    Fixture f;

    fixture_init(&f, 3);
    listener_add(&f, &u, IOMMU_NOTIFIER_UNMAP, 0, UINT64_MAX);
    vtd_notify_range(&f.as, (1ULL << 39) - MiB2, (1ULL << 39) + GiB1);
    g_assert_cmphex(u.unmapped, ==, MiB2);
    vtd_notify_range(&f.as, 1ULL << 39, UINT64_MAX);
    g_assert_cmphex(u.unmapped, ==, MiB2);
    vtd_notify_range(&f.as, 0, UINT64_MAX);
    g_assert_cmphex(u.unmapped, ==, MiB2 + (1ULL << 39));
    listener_remove(&f, &u);

    map(&f, (1ULL << 39) - KiB4, 1, 0x9000, RW);
    listener_add(&f, &l, IOMMU_NOTIFIER_IOTLB_EVENTS, 0, UINT64_MAX);
    check(&f, &l, true);
    g_assert_cmpuint(l.maps, ==, 1);
    listener_remove(&f, &l);
    fixture_destroy(&f);
}

static void test_unmap_only(void)
{
    Listener u = { };
    Fixture f;

    fixture_init(&f, 3);
    map_some(&f);
    listener_add(&f, &u, IOMMU_NOTIFIER_UNMAP, 0x3000, 0x8fff);
    g_assert_true(vtd_notify_wanted(&f.as));
    g_assert_null(f.as.shadow.mappings);
    g_assert_cmpuint(u.unmaps, ==, 0);
    flush(&f, 0x5000, KiB4);
    g_assert_cmphex(u.unmapped, ==, KiB4);
    flush(&f, 0, MiB2);
    g_assert_cmphex(u.unmapped, ==, KiB4 + 0x6000);
    flush(&f, MiB2, MiB2);
    vtd_notify_device_tlb(&f.as, 0, UINT64_MAX);
    g_assert_cmphex(u.unmapped, ==, KiB4 + 0x6000);
    g_assert_cmpuint(u.maps, ==, 0);
    listener_remove(&f, &u);
    fixture_destroy(&f);
}

static void test_device_tlb(void)
{
    Listener d = { };
    Fixture f;

    fixture_init(&f, 3);
    listener_add(&f, &d, IOMMU_NOTIFIER_DEVIOTLB_UNMAP, 0x3000, 0x8fff);
    g_assert_false(vtd_notify_wanted(&f.as));
    flush_all(&f);
    g_assert_cmpuint(d.unmaps, ==, 0);
    vtd_notify_device_tlb(&f.as, 0, UINT64_MAX);
    g_assert_cmphex(d.unmapped, ==, 0x6000);
    vtd_notify_device_tlb(&f.as, 0x8000, 0xffff);
    g_assert_cmphex(d.unmapped, ==, 0x7000);
    vtd_notify_device_tlb(&f.as, 0x9000, 0x9fff);
    g_assert_cmphex(d.unmapped, ==, 0x7000);
    listener_remove(&f, &d);
    fixture_destroy(&f);
}

static void refused(Fixture *f, IOMMUNotifierFlag flags, const char *text)
{
    Error *err = NULL;

    g_assert_cmpint(vtd_notify_flags(&f->as, IOMMU_NOTIFIER_NONE, flags,
                                     &err), ==, -ENOTSUP);
    g_assert_nonnull(err);
    g_assert_cmpstr(error_get_pretty(err), ==, text);
    g_assert_null(f->as.shadow.mappings);
    error_free(err);
}

static void test_refusals(void)
{
    static const IOMMUNotifierFlag any[] = {
        IOMMU_NOTIFIER_UNMAP, IOMMU_NOTIFIER_MAP,
        IOMMU_NOTIFIER_DEVIOTLB_UNMAP,
    };
    Fixture f;

    fixture_init(&f, 3);
    f.unit.cap.caching_mode = false;
    refused(&f, IOMMU_NOTIFIER_IOTLB_EVENTS, "device 02.03.0 requires "
            "caching mode: Operation not supported");
    f.unit.cap.device_iotlb = false;
    refused(&f, IOMMU_NOTIFIER_DEVIOTLB_UNMAP, "device 02.03.0 requires "
            "device IOTLB mode: Operation not supported");
    g_assert_cmpint(vtd_notify_flags(&f.as, IOMMU_NOTIFIER_NONE,
                                     IOMMU_NOTIFIER_UNMAP, &error_abort),
                    ==, 0);
    f.unit.cap.caching_mode = f.unit.cap.device_iotlb = true;
    f.unit.cap.snoop_control = true;
    for (unsigned i = 0; i < ARRAY_SIZE(any); i++) {
        refused(&f, any[i], "Snoop Control with vhost or VFIO is not "
                "supported: Operation not supported");
    }
    g_assert_cmpint(vtd_notify_flags(&f.as, IOMMU_NOTIFIER_UNMAP,
                                     IOMMU_NOTIFIER_NONE, &error_abort),
                    ==, 0);
    fixture_destroy(&f);
}

/* One table that is its own table at each level: 2^36 pages */
static void test_hostile(void)
{
    VTDShadowLimits *limits;
    Listener l = { };
    Fixture f;

    fixture_init(&f, 4);
    limits = &f.unit.limits;
    limits->budget = limits->mappings = 1 << 16;
    limits->go.entries = 1 << 12;
    limits->go.events = 1 << 10;
    begin(&f);
    for (unsigned i = 0; i < 512; i++) {
        *test_memory_word(f.m, f.cfg.root + 8 * i) = f.cfg.root | RW;
    }
    l.n = (IOMMUNotifier) {
        .notify = listener_notify,
        .notifier_flags = IOMMU_NOTIFIER_IOTLB_EVENTS,
        .start = 0, .end = UINT64_MAX,
    };
    QLIST_INSERT_HEAD(&f.as.iommu.iommu_notify, &l.n, node);
    flags_changed(&f);
    vtd_notify_replay(&f.as, &l.n);
    g_assert_cmpuint(l.maps, ==, limits->go.events);
    settle(&f);
    g_assert_cmpuint(f.runs, >, limits->budget / limits->go.entries);
    g_assert_cmpuint(l.maps, >, limits->budget / 2);
    g_assert_cmpuint(l.maps, <, limits->mappings);
    /* No series of flushes gets beyond the number of mappings */
    for (unsigned i = 0; i < 4; i++) {
        flush(&f, (1ULL << 40) + i * GiB1, GiB1);
    }
    g_assert_cmpuint(l.maps - l.unmaps, ==, limits->mappings);
    g_assert_cmpuint(g_tree_nnodes(f.as.shadow.mappings), ==,
                     limits->mappings);
    /* And there is a way back */
    memset(test_memory_word(f.m, f.cfg.root), 0, KiB4);
    flush_all(&f);
    g_assert_cmpuint(g_tree_nnodes(f.as.shadow.mappings), ==, 0);
    g_assert_cmpuint(l.maps, ==, l.unmaps);
    listener_remove(&f, &l);
    fixture_destroy(&f);
}

/* Nobody listens any more, in the middle of it: nothing is left to do */
static void test_gone_while_behind(void)
{
    Listener l = { };
    Fixture f;

    fixture_init(&f, 3);
    map_some(&f);
    f.unit.limits.go.events = 1;
    begin(&f);
    listener_add(&f, &l, IOMMU_NOTIFIER_IOTLB_EVENTS, 0, UINT64_MAX);
    set_entry(&f, 0x5000, 1, 0);
    set_entry(&f, GiB1, 2, 0);
    vtd_notify_range(&f.as, 0, 2 * GiB1);
    begin(&f);
    g_assert_false(vtd_shadows_run(&f.unit));
    listener_remove(&f, &l);
    begin(&f);
    g_assert_true(vtd_shadows_run(&f.unit));
    fixture_destroy(&f);
}

/* However many commands there are in one write: what is done is bounded */
static void test_commands_share(void)
{
    Listener l = { };
    Fixture f;

    fixture_init(&f, 3);
    map_some(&f);
    listener_add(&f, &l, IOMMU_NOTIFIER_IOTLB_EVENTS, 0, UINT64_MAX);
    f.unit.limits.go.entries = 4096;
    f.unit.limits.go.events = 2;
    set_entry(&f, 0x5000, 1, 0);
    set_entry(&f, GiB1, 2, 0);
    set_entry(&f, GiB1 + MiB2, 2, 0);
    begin(&f);
    f.m->reads = heard = 0;
    for (unsigned i = 0; i < 100; i++) {
        vtd_notify_range(&f.as, 0, vtd_host_mask(&f.unit.cap));
        g_assert_false(vtd_shadows_run(&f.unit));
    }
    g_assert_cmpuint(heard, ==, 2);
    g_assert_cmpuint(f.m->reads, <=, 4096);
    settle(&f);
    g_assert_cmpuint(l.maps - l.unmaps, ==, 1);
    listener_remove(&f, &l);
    fixture_destroy(&f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vtd/notify/random/3-levels", test_random_3_levels);
    g_test_add_func("/vtd/notify/random/4-levels", test_random_4_levels);
    g_test_add_func("/vtd/notify/replay", test_replay);
    g_test_add_func("/vtd/notify/come-back", test_come_back);
    g_test_add_func("/vtd/notify/not-translated", test_not_translated);
    g_test_add_func("/vtd/notify/interrupt-window", test_interrupt_window);
    g_test_add_func("/vtd/notify/split", test_split);
    g_test_add_func("/vtd/notify/last-address", test_last_address);
    g_test_add_func("/vtd/notify/unmap-only", test_unmap_only);
    g_test_add_func("/vtd/notify/device-tlb", test_device_tlb);
    g_test_add_func("/vtd/notify/refusals", test_refusals);
    g_test_add_func("/vtd/notify/hostile", test_hostile);
    g_test_add_func("/vtd/notify/commands-share", test_commands_share);
    g_test_add_func("/vtd/notify/gone-while-behind", test_gone_while_behind);
    return g_test_run();
}
