/*
 * Intel VT-d: translation cache (IOTLB) and context cache
 *
 * The idea, the bounds and the cost are told in intel_iommu_iotlb.h.
 *
 * Memory order: a reader loads a set's fields with acquire between two loads
 * of its sequence number; a writer stores them with release between two
 * stores.  So a reader that saw any new field sees the odd sequence number.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/lockable.h"
#include "qemu/memalign.h"
#include "qemu/rcu.h"
#include "intel_iommu_iotlb.h"

#define VTD_IOTLB_WAYS 4
#define VTD_IOTLB_MIN_SETS 16U
#define VTD_IOTLB_MAX_SETS 32768U
#define VTD_IOTLB_GROWTH 4
/* Page sizes: levels 1 to 3 */
#define VTD_IOTLB_LEVELS 3
#define VTD_DOMAIN_IDS 65536

/*
 * @tag: first address of the page, its level (1 to 3) in the low bits; 0 is
 *       an empty entry
 * @data: page frame (40 bits), domain-id (16), permissions (2)
 * @began: when the walk began
 */
typedef struct VTDIOTLBEntry {
    aligned_uint64_t tag;
    aligned_uint64_t data;
    aligned_uint64_t began;
} VTDIOTLBEntry;

#define VTD_DATA_FRAME                 MAKE_64BIT_MASK(0, 40)
#define VTD_DATA_DOMAIN                MAKE_64BIT_MASK(40, 16)
#define VTD_DATA_PERM                  MAKE_64BIT_MASK(56, 2)

/* Two cache lines */
typedef struct VTDIOTLBSet {
    unsigned sequence;          /* atomic; odd while being written */
    unsigned victim;            /* next way to give up; under the lock */
    uint64_t bound;             /* under the lock */
    VTDIOTLBEntry way[VTD_IOTLB_WAYS];
} QEMU_ALIGNED(128) VTDIOTLBSet;

struct VTDIOTLBTable {
    struct rcu_head rcu;
    unsigned sets_mask;         /* number of sets - 1 */
    unsigned levels;            /* atomic; bit n: pages of level n were seen */
    unsigned evicted;           /* live entries given up; under the lock */
    VTDIOTLBSet *set;
};

#if HOST_LONG_BITS == 64
static inline uint64_t vtd_load(const aligned_uint64_t *p)
{
    return qatomic_load_acquire(p);
}

static inline void vtd_store(aligned_uint64_t *p, uint64_t v)
{
    qatomic_store_release(p, v);
}

static inline uint64_t vtd_advance(aligned_uint64_t *p)
{
    return qatomic_add_fetch(p, 1);
}
#else
/* qatomic_* takes no 64-bit fields here; slower, and right */
static inline uint64_t vtd_load(const aligned_uint64_t *p)
{
    uint64_t v = qatomic_read_u64(p);

    /* Acquire: what the caller reads next is no older than @p */
    smp_mb();
    return v;
}

static inline void vtd_store(aligned_uint64_t *p, uint64_t v)
{
    /* Release: what the caller wrote before is seen with @p */
    smp_mb();
    qatomic_set_u64(p, v);
}

static inline uint64_t vtd_advance(aligned_uint64_t *p)
{
    static QemuMutex lock;
    static gsize once;

    if (g_once_init_enter(&once)) {
        qemu_mutex_init(&lock);
        g_once_init_leave(&once, 1);
    }
    QEMU_LOCK_GUARD(&lock);
    vtd_store(p, vtd_load(p) + 1);
    return vtd_load(p);
}
#endif

void vtd_epochs_init(VTDEpochs *epochs)
{
    *epochs = (VTDEpochs) { .domain = g_new0(uint64_t, VTD_DOMAIN_IDS) };
}

void vtd_epochs_destroy(VTDEpochs *epochs)
{
    g_free(epochs->domain);
    epochs->domain = NULL;
}

uint64_t vtd_epochs_now(VTDEpochs *epochs)
{
    return vtd_load(&epochs->now);
}

/*
 * Bounds only grow: two flushes at once must not let the older one win.
 * All flushes are commands of one unit and run under the big lock.
 */
static void vtd_raise(VTDEpochs *epochs, aligned_uint64_t *bound)
{
    vtd_store(bound, vtd_advance(&epochs->now));
}

void vtd_epochs_flush_global(VTDEpochs *epochs)
{
    vtd_raise(epochs, &epochs->global);
}

void vtd_epochs_flush_domain(VTDEpochs *epochs, uint16_t did)
{
    vtd_raise(epochs, &epochs->domain[did]);
}

static bool vtd_iotlb_live(VTDIOTLB *iotlb, uint64_t data, uint64_t began)
{
    VTDEpochs *epochs = iotlb->epochs;

    return began >= vtd_load(&epochs->global) &&
           began >= vtd_load(&iotlb->bound) &&
           began >= vtd_load(&epochs->domain[VTD_GET(data, VTD_DATA_DOMAIN)]);
}

static uint64_t vtd_tag(uint64_t iova, unsigned level)
{
    return (iova & MAKE_64BIT_MASK(vtd_page_shift(level),
                                   64 - vtd_page_shift(level))) | level;
}

/*
 * Neighbouring pages go to neighbouring sets, as many to each; the higher
 * bits are folded in so that buffers at a large power-of-two distance do not
 * share a set: 65536 of them at any distance up to 1 GiB use at least a
 * quarter of the 32768 sets.
 */
static VTDIOTLBSet *vtd_set(VTDIOTLBTable *table, uint64_t iova,
                            unsigned level)
{
    uint64_t page = iova >> vtd_page_shift(level);

    return &table->set[(page ^ page >> 9 ^ page >> 16) & table->sets_mask];
}

static unsigned vtd_level_of(uint64_t mask)
{
    return 1 + (ctpop64(mask) - VTD_PAGE_SHIFT) / VTD_SS_LEVEL_BITS;
}

/* The way of @set that holds @tag, or VTD_IOTLB_WAYS */
static unsigned vtd_find_way(VTDIOTLBSet *set, uint64_t tag)
{
    unsigned i;

    for (i = 0; i < VTD_IOTLB_WAYS; i++) {
        if (vtd_load(&set->way[i].tag) == tag) {
            break;
        }
    }
    return i;
}

static bool vtd_lookup_level(VTDIOTLB *iotlb, VTDIOTLBTable *table,
                             uint64_t iova, unsigned level,
                             VTDTranslation *out)
{
    VTDIOTLBSet *set = vtd_set(table, iova, level);
    unsigned sequence = qatomic_load_acquire(&set->sequence);
    unsigned i = vtd_find_way(set, vtd_tag(iova, level));
    uint64_t data, began, mask;

    if (i == VTD_IOTLB_WAYS) {
        return false;
    }
    data = vtd_load(&set->way[i].data);
    began = vtd_load(&set->way[i].began);
    if ((sequence & 1) || qatomic_read(&set->sequence) != sequence ||
        !vtd_iotlb_live(iotlb, data, began)) {
        return false;
    }
    mask = MAKE_64BIT_MASK(0, vtd_page_shift(level));
    *out = (VTDTranslation) {
        .iova = iova & ~mask,
        .addr = VTD_GET(data, VTD_DATA_FRAME) << VTD_PAGE_SHIFT,
        .mask = mask,
        .perm = VTD_GET(data, VTD_DATA_PERM),
        .domain = VTD_GET(data, VTD_DATA_DOMAIN),
    };
    return true;
}

bool vtd_iotlb_lookup(VTDIOTLB *iotlb, uint64_t iova, VTDTranslation *out)
{
    VTDIOTLBTable *table = qatomic_rcu_read(&iotlb->table);
    unsigned levels;

    if (!table) {
        return false;
    }
    levels = qatomic_read(&table->levels);
    for (unsigned level = 1; level <= VTD_IOTLB_LEVELS; level++) {
        if ((levels & (1U << level)) &&
            vtd_lookup_level(iotlb, table, iova, level, out)) {
            return true;
        }
    }
    return false;
}

static void vtd_write_entry(VTDIOTLBSet *set, unsigned i, VTDIOTLBEntry e)
{
    unsigned sequence = set->sequence;

    qatomic_set(&set->sequence, sequence + 1);
    vtd_store(&set->way[i].tag, e.tag);
    vtd_store(&set->way[i].data, e.data);
    vtd_store(&set->way[i].began, e.began);
    qatomic_store_release(&set->sequence, sequence + 2);
}

static bool vtd_way_live(VTDIOTLB *iotlb, const VTDIOTLBEntry *e)
{
    return e->tag && vtd_iotlb_live(iotlb, e->data, e->began);
}

/* Where to put @tag: over itself, over something dead, else over the victim */
static unsigned vtd_choose_way(VTDIOTLB *iotlb, VTDIOTLBTable *table,
                               VTDIOTLBSet *set, uint64_t tag)
{
    unsigned i = vtd_find_way(set, tag);

    if (i < VTD_IOTLB_WAYS) {
        return i;
    }
    for (i = 0; i < VTD_IOTLB_WAYS; i++) {
        if (!vtd_way_live(iotlb, &set->way[i])) {
            return i;
        }
    }
    table->evicted++;
    return set->victim++ % VTD_IOTLB_WAYS;
}

static void vtd_insert(VTDIOTLB *iotlb, VTDIOTLBTable *table, VTDIOTLBEntry e)
{
    unsigned level = e.tag & ~VTD_PAGE_MASK;
    VTDIOTLBSet *set = vtd_set(table, e.tag, level);

    if (e.began < set->bound) {
        return;
    }
    qatomic_set(&table->levels, table->levels | 1U << level);
    vtd_write_entry(set, vtd_choose_way(iotlb, table, set, e.tag), e);
}

static VTDIOTLBTable *vtd_table_new(unsigned sets, uint64_t bound)
{
    VTDIOTLBTable *table = g_new0(VTDIOTLBTable, 1);
    size_t size = sets * sizeof(VTDIOTLBSet);

    table->sets_mask = sets - 1;
    table->set = qemu_memalign(sizeof(VTDIOTLBSet), size);
    memset(table->set, 0, size);
    for (unsigned i = 0; i < sets; i++) {
        table->set[i].bound = bound;
    }
    return table;
}

static void vtd_table_free(VTDIOTLBTable *table)
{
    qemu_vfree(table->set);
    g_free(table);
}

/*
 * The new table refuses every walk that is under way: the bounds of the old
 * sets, which some of them may have to be held against, are not carried over.
 */
static VTDIOTLBTable *vtd_table_grow(VTDIOTLB *iotlb, VTDIOTLBTable *old)
{
    unsigned sets = (old->sets_mask + 1) * VTD_IOTLB_GROWTH;
    VTDIOTLBTable *table = vtd_table_new(MIN(sets, VTD_IOTLB_MAX_SETS), 0);
    uint64_t now = vtd_epochs_now(iotlb->epochs);

    for (unsigned i = 0; i <= old->sets_mask; i++) {
        for (unsigned j = 0; j < VTD_IOTLB_WAYS; j++) {
            if (vtd_way_live(iotlb, &old->set[i].way[j])) {
                vtd_insert(iotlb, table, old->set[i].way[j]);
            }
        }
    }
    for (unsigned i = 0; i <= table->sets_mask; i++) {
        table->set[i].bound = now;
    }
    table->evicted = 0;
    qatomic_rcu_set(&iotlb->table, table);
    call_rcu(old, vtd_table_free, rcu);
    return table;
}

/* The table to fill, larger if the last one gave up half of what it held */
static VTDIOTLBTable *vtd_table_for_fill(VTDIOTLB *iotlb)
{
    VTDIOTLBTable *table = iotlb->table;

    if (!table) {
        table = vtd_table_new(VTD_IOTLB_MIN_SETS,
                              vtd_epochs_now(iotlb->epochs));
        qatomic_rcu_set(&iotlb->table, table);
    } else if (table->evicted > (table->sets_mask + 1) * VTD_IOTLB_WAYS / 2 &&
               table->sets_mask + 1 < VTD_IOTLB_MAX_SETS) {
        table = vtd_table_grow(iotlb, table);
    }
    return table;
}

void vtd_iotlb_fill(VTDIOTLB *iotlb, uint64_t began, const VTDTranslation *t)
{
    QEMU_LOCK_GUARD(&iotlb->lock);

    vtd_insert(iotlb, vtd_table_for_fill(iotlb), (VTDIOTLBEntry) {
        .tag = vtd_tag(t->iova, vtd_level_of(t->mask)),
        .data = VTD_PUT(VTD_DATA_FRAME, t->addr >> VTD_PAGE_SHIFT) |
                VTD_PUT(VTD_DATA_DOMAIN, t->domain) |
                VTD_PUT(VTD_DATA_PERM, t->perm),
        .began = began,
    });
}

void vtd_iotlb_flush(VTDIOTLB *iotlb)
{
    QEMU_LOCK_GUARD(&iotlb->lock);

    vtd_raise(iotlb->epochs, &iotlb->bound);
}

static void vtd_flush_one_page(VTDIOTLBTable *table, uint16_t did,
                               uint64_t iova, unsigned level, uint64_t now)
{
    VTDIOTLBSet *set = vtd_set(table, iova, level);
    unsigned i = vtd_find_way(set, vtd_tag(iova, level));

    set->bound = now;
    if (i < VTD_IOTLB_WAYS &&
        VTD_GET(set->way[i].data, VTD_DATA_DOMAIN) == did) {
        vtd_write_entry(set, i, (VTDIOTLBEntry) {});
    }
}

bool vtd_iotlb_flush_pages(VTDIOTLB *iotlb, uint16_t did, uint64_t iova,
                           unsigned am)
{
    uint64_t mask, now;
    VTDIOTLBTable *table;

    if (am > VTD_IOTLB_MAX_FLUSH_AM) {
        return false;
    }
    mask = MAKE_64BIT_MASK(0, VTD_PAGE_SHIFT + am);
    QEMU_LOCK_GUARD(&iotlb->lock);
    now = vtd_advance(&iotlb->epochs->now);
    table = iotlb->table;
    if (!table) {
        return true;                /* its first sets will be bound by now */
    }
    /* A size not seen yet may be on its way: its sets are bound as well */
    for (unsigned level = 1; level <= VTD_IOTLB_LEVELS; level++) {
        unsigned shift = vtd_page_shift(level);
        uint64_t first = (iova & ~mask) >> shift;
        uint64_t last = (iova | mask) >> shift;

        for (uint64_t page = first; page <= last; page++) {
            vtd_flush_one_page(table, did, page << shift, level, now);
        }
    }
    return true;
}

void vtd_iotlb_usage(VTDIOTLB *iotlb, uint64_t *live, uint64_t *size)
{
    QEMU_LOCK_GUARD(&iotlb->lock);
    VTDIOTLBTable *table = iotlb->table;

    *live = *size = 0;
    if (!table) {
        return;
    }
    *size = (table->sets_mask + 1) * VTD_IOTLB_WAYS;
    for (unsigned i = 0; i <= table->sets_mask; i++) {
        for (unsigned j = 0; j < VTD_IOTLB_WAYS; j++) {
            *live += vtd_way_live(iotlb, &table->set[i].way[j]);
        }
    }
}

bool vtd_context_lookup(VTDIOTLB *iotlb, VTDConfig *cfg)
{
    QEMU_LOCK_GUARD(&iotlb->lock);

    *cfg = iotlb->context;
    return iotlb->context_valid;
}

void vtd_context_fill(VTDIOTLB *iotlb, uint64_t began, const VTDConfig *cfg)
{
    QEMU_LOCK_GUARD(&iotlb->lock);

    if (began >= iotlb->context_bound) {
        iotlb->context = *cfg;
        iotlb->context_valid = true;
    }
}

void vtd_context_flush(VTDIOTLB *iotlb)
{
    QEMU_LOCK_GUARD(&iotlb->lock);

    iotlb->context_valid = false;
    vtd_raise(iotlb->epochs, &iotlb->bound);
    iotlb->context_bound = vtd_epochs_now(iotlb->epochs);
}

void vtd_iotlb_init(VTDIOTLB *iotlb, VTDEpochs *epochs)
{
    *iotlb = (VTDIOTLB) { .epochs = epochs };
    qemu_mutex_init(&iotlb->lock);
    /* Walks for a former user of this memory are none of ours */
    vtd_raise(epochs, &iotlb->bound);
    iotlb->context_bound = iotlb->bound;
}

void vtd_iotlb_destroy(VTDIOTLB *iotlb)
{
    if (iotlb->table) {
        call_rcu(iotlb->table, vtd_table_free, rcu);
        iotlb->table = NULL;
    }
    qemu_mutex_destroy(&iotlb->lock);
}
