/*
 * Intel VT-d: translation cache (IOTLB) and context cache
 *
 * The idea, the bounds and the cost are told in intel_iommu_iotlb.h.
 *
 * intel_iommu_iotlb_lookup.h has the reader's half.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/lockable.h"
#include "qemu/memalign.h"
#include "qemu/rcu.h"
#include "intel_iommu_iotlb_lookup.h"

#define VTD_IOTLB_MIN_LINES 32U
#define VTD_IOTLB_MAX_LINES 65536U
#define VTD_IOTLB_GROWTH 4
#define VTD_DOMAIN_IDS 65536

#if HOST_LONG_BITS == 64
static inline void vtd_store(aligned_uint64_t *p, uint64_t v)
{
    qatomic_store_release(p, v);
}

static inline uint64_t vtd_advance(aligned_uint64_t *p)
{
    return qatomic_add_fetch(p, 1);
}
#else
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

static unsigned vtd_level_of(uint64_t mask)
{
    return 1 + (ctpop64(mask) - VTD_PAGE_SHIFT) / VTD_SS_LEVEL_BITS;
}

/* Large pages first: whoever looks for a small one asked elsewhere before */
bool vtd_iotlb_lookup(VTDIOTLB *iotlb, uint64_t iova, VTDTranslation *out)
{
    VTDIOTLBTable *table = qatomic_rcu_read(&iotlb->table);
    unsigned levels = table ? qatomic_read(&table->levels) : 0;

    for (unsigned level = VTD_IOTLB_LEVELS; level >= 1; level--) {
        VTDHit hit = {};

        if (levels & (1U << level)) {
            hit = vtd_lookup_level(iotlb, table, iova, level);
        }
        if (hit.perm != VTD_PERM_NONE) {
            out->mask = MAKE_64BIT_MASK(0, vtd_page_shift(level));
            out->iova = iova & ~out->mask;
            out->addr = hit.addr;
            out->perm = hit.perm;
            return true;
        }
    }
    return false;
}

/*
 * What follows runs under the lock, so it may read plainly.  Each change of a
 * line is between these two.
 */
static void vtd_line_begin(VTDIOTLBLine *line)
{
    qatomic_set(&line->sequence, line->sequence + 1);
}

static void vtd_line_end(VTDIOTLBLine *line)
{
    qatomic_store_release(&line->sequence, line->sequence + 1);
}

static bool vtd_line_live(VTDIOTLB *iotlb, const VTDIOTLBLine *line)
{
    return line->tag && vtd_iotlb_live(iotlb, line->domain, line->began);
}

/* Where to put a block that has no line: over something dead, or a victim */
static VTDIOTLBLine *vtd_choose_line(VTDIOTLB *iotlb, VTDIOTLBTable *table,
                                     unsigned home)
{
    for (unsigned i = 0; i < VTD_IOTLB_WAYS; i++) {
        if (!vtd_line_live(iotlb, &table->line[home ^ i])) {
            return &table->line[home ^ i];
        }
    }
    table->evicted++;
    return &table->line[home ^ table->victim++ % VTD_IOTLB_WAYS];
}

/* Make @line that of a block and a domain; empty unless it was that before */
static void vtd_line_claim(VTDIOTLB *iotlb, VTDIOTLBLine *line, uint64_t tag,
                           uint16_t domain, uint64_t began)
{
    if (line->tag == tag && line->domain == domain &&
        vtd_line_live(iotlb, line)) {
        vtd_store(&line->began, MIN(line->began, began));
        return;
    }
    vtd_store(&line->tag, tag);
    vtd_store(&line->began, began);
    qatomic_store_release(&line->domain, domain);
    qatomic_store_release(&line->perms, 0);
}

static void vtd_line_put(VTDIOTLBLine *line, unsigned page,
                         const VTDTranslation *t)
{
    uint64_t frame = t->addr >> VTD_PAGE_SHIFT;
    uint16_t others = line->perms & ~(VTD_PERM_RW << (2 * page));

    qatomic_store_release(&line->frame_low[page], (uint32_t)frame);
    qatomic_store_release(&line->frame_high[page], (uint8_t)(frame >> 32));
    qatomic_store_release(&line->perms, others | t->perm << (2 * page));
}

/* What allows nothing takes no line of its own, but its place in one */
static void vtd_insert(VTDIOTLB *iotlb, VTDIOTLBTable *table, uint64_t began,
                       const VTDTranslation *t)
{
    unsigned level = vtd_level_of(t->mask);
    VTDIOTLBPlace place = vtd_place(table, t->iova, level);
    VTDIOTLBLine *line;

    if (began < table->bound[place.home / VTD_IOTLB_WAYS] ||
        began < table->unseen[level] ||
        !vtd_iotlb_live(iotlb, t->domain, began)) {
        return;
    }
    line = vtd_find_line(table, &place);
    if (!line && t->perm == VTD_PERM_NONE) {
        return;
    }
    line = line ?: vtd_choose_line(iotlb, table, place.home);
    qatomic_set(&table->levels, table->levels | 1U << level);
    vtd_line_begin(line);
    vtd_line_claim(iotlb, line, place.tag, t->domain, began);
    vtd_line_put(line, place.page, t);
    vtd_line_end(line);
}

/* @bound: for all that will be put in */
static VTDIOTLBTable *vtd_table_new(unsigned lines, uint64_t bound)
{
    VTDIOTLBTable *table = g_new0(VTDIOTLBTable, 1);
    unsigned groups = lines / VTD_IOTLB_WAYS;

    table->lines_mask = lines - 1;
    table->line = qemu_memalign(sizeof(VTDIOTLBLine),
                                lines * sizeof(VTDIOTLBLine));
    memset(table->line, 0, lines * sizeof(VTDIOTLBLine));
    table->bound = g_new(uint64_t, groups);
    for (unsigned i = 0; i < groups; i++) {
        table->bound[i] = bound;
    }
    return table;
}

static void vtd_table_free(VTDIOTLBTable *table)
{
    qemu_vfree(table->line);
    g_free(table->bound);
    g_free(table);
}

/* The place of a line's first page in a table of another size */
static VTDIOTLBPlace vtd_place_of_line(const VTDIOTLBTable *table,
                                       const VTDIOTLBLine *line)
{
    unsigned level = line->tag & 3;
    unsigned shift = vtd_page_shift(level) + VTD_IOTLB_PAGES_BITS;

    return vtd_place(table, line->tag >> 2 << shift, level);
}

/*
 * The new table refuses every walk that is under way: the bounds of the old
 * one, which some of them may have to be held against, are not carried over.
 */
static VTDIOTLBTable *vtd_table_grow(VTDIOTLB *iotlb, VTDIOTLBTable *old)
{
    unsigned lines = (old->lines_mask + 1) * VTD_IOTLB_GROWTH;
    VTDIOTLBTable *table = vtd_table_new(MIN(lines, VTD_IOTLB_MAX_LINES),
                                         vtd_epochs_now(iotlb->epochs));

    for (unsigned i = 0; i <= old->lines_mask; i++) {
        VTDIOTLBLine *line = &old->line[i];

        if (vtd_line_live(iotlb, line)) {
            VTDIOTLBPlace place = vtd_place_of_line(table, line);

            *vtd_choose_line(iotlb, table, place.home) = *line;
        }
    }
    table->levels = old->levels;
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
        table = vtd_table_new(VTD_IOTLB_MIN_LINES,
                              vtd_epochs_now(iotlb->epochs));
        qatomic_rcu_set(&iotlb->table, table);
    } else if (table->evicted > (table->lines_mask + 1) / 2 &&
               table->lines_mask + 1 < VTD_IOTLB_MAX_LINES) {
        table = vtd_table_grow(iotlb, table);
    }
    return table;
}

void vtd_iotlb_fill(VTDIOTLB *iotlb, uint64_t began, const VTDTranslation *t)
{
    QEMU_LOCK_GUARD(&iotlb->lock);

    vtd_insert(iotlb, vtd_table_for_fill(iotlb), began, t);
}

void vtd_iotlb_flush(VTDIOTLB *iotlb)
{
    QEMU_LOCK_GUARD(&iotlb->lock);

    vtd_raise(iotlb->epochs, &iotlb->bound);
}

/* The pages of @perms in the block at @iova, if that is one of domain @did */
static void vtd_flush_block(VTDIOTLBTable *table, uint16_t did, uint64_t iova,
                            unsigned level, uint16_t perms, uint64_t now)
{
    VTDIOTLBPlace place = vtd_place(table, iova, level);
    VTDIOTLBLine *line = vtd_find_line(table, &place);

    table->bound[place.home / VTD_IOTLB_WAYS] = now;
    if (line && line->domain == did && (line->perms & perms)) {
        vtd_line_begin(line);
        qatomic_store_release(&line->perms, line->perms & ~perms);
        if (!line->perms) {
            vtd_store(&line->tag, 0);
        }
        vtd_line_end(line);
    }
}

/* @first, @last: numbers of pages of @level */
static void vtd_flush_level(VTDIOTLBTable *table, uint16_t did,
                            uint64_t first, uint64_t last, unsigned level,
                            uint64_t now)
{
    for (uint64_t page = first; page <= last; ) {
        unsigned in_block = page % VTD_IOTLB_PAGES;
        uint64_t n = MIN(VTD_IOTLB_PAGES - in_block, last - page + 1);

        vtd_flush_block(table, did, page << vtd_page_shift(level), level,
                        MAKE_64BIT_MASK(2 * in_block, 2 * n), now);
        page += n;
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
        return true;                /* its first lines will be bound by now */
    }
    for (unsigned level = 1; level <= VTD_IOTLB_LEVELS; level++) {
        unsigned shift = vtd_page_shift(level);

        if (table->levels & (1U << level)) {
            vtd_flush_level(table, did, (iova & ~mask) >> shift,
                            (iova | mask) >> shift, level, now);
        } else {
            table->unseen[level] = now;     /* the first may be on its way */
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
    *size = (table->lines_mask + 1) * VTD_IOTLB_PAGES;
    for (unsigned i = 0; i <= table->lines_mask; i++) {
        VTDIOTLBLine *line = &table->line[i];

        if (!vtd_line_live(iotlb, line)) {
            continue;
        }
        for (unsigned page = 0; page < VTD_IOTLB_PAGES; page++) {
            *live += vtd_perm_of(line->perms, page) != VTD_PERM_NONE;
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
