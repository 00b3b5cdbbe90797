/*
 * Intel VT-d: page walks
 *
 * Second-stage paging structures (section 3.7) are radix trees of 512-entry
 * tables.  An entry ends the walk when it is a leaf: at level 1 always, at
 * levels 2 and 3 if PS is set.  The permission of a page is the intersection
 * of all entries on the way to it (section 3.7.1).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "intel_iommu_walk.h"

/* 1 GiB is the largest page (CAP.SSLPS has no bit for 512 GiB) */
#define VTD_SS_MAX_LEAF_LEVEL 3

static unsigned vtd_level_index(uint64_t iova, unsigned level)
{
    return extract64(iova, vtd_page_shift(level), VTD_SS_LEVEL_BITS);
}

static bool vtd_entry_is_leaf(uint64_t entry, unsigned level)
{
    return level == 1 || (entry & VTD_SS_PS);
}

/* Section 9.8: which bits of a present entry must be zero */
static uint64_t vtd_entry_reserved(const VTDConfig *cfg, uint64_t entry,
                                   unsigned level)
{
    uint64_t rsvd = VTD_SS_ADDR_MASK & ~cfg->host_mask;

    if (!vtd_entry_is_leaf(entry, level)) {
        return rsvd;
    }
    if (level > VTD_SS_MAX_LEAF_LEVEL) {
        return rsvd | VTD_SS_PS;
    }
    /* Below a large page's size there are no address bits */
    return rsvd | cfg->rsvd_leaf |
           ((1ULL << vtd_page_shift(level)) - VTD_PAGE_SIZE);
}

static VTDPerm vtd_entry_perm(uint64_t entry)
{
    return (entry & VTD_SS_R ? VTD_PERM_R : 0) |
           (entry & VTD_SS_W ? VTD_PERM_W : 0);
}

/* What the leaf @entry says of @iova */
static VTDTranslation vtd_page(const VTDConfig *cfg, uint64_t entry,
                               unsigned level, uint64_t iova, VTDPerm perm)
{
    uint64_t mask = MAKE_64BIT_MASK(0, vtd_page_shift(level));

    return (VTDTranslation) {
        .iova = iova & ~mask,
        .addr = entry & VTD_SS_ADDR_MASK & ~mask,
        .mask = mask,
        .perm = perm,
        .domain = cfg->domain,
    };
}

static bool vtd_beside_interrupt_range(const VTDTranslation *t)
{
    return t->addr + t->mask < VTD_IR_ADDR_BASE ||
           t->addr >= VTD_IR_ADDR_BASE + VTD_IR_RANGE_SIZE;
}

/*
 * Section 3.15: software must not map anything to the interrupt address
 * range; a write that came out there would be an unremapped interrupt.  A
 * large page that covers the range is good for the addresses beside it: it
 * is cut down to the 4 KiB that were asked for, so that a cache of it does
 * not let the others through.
 */
static VTDFaultReason vtd_check_interrupt_range(VTDTranslation *t,
                                                uint64_t iova)
{
    if (vtd_beside_interrupt_range(t)) {
        return VTD_FR_NONE;
    }
    t->addr |= iova & t->mask & VTD_PAGE_MASK;
    t->iova = iova & VTD_PAGE_MASK;
    t->mask = ~VTD_PAGE_MASK;
    return t->addr - VTD_IR_ADDR_BASE < VTD_IR_RANGE_SIZE ?
           VTD_FR_INTERRUPT_ADDRESS : VTD_FR_NONE;
}

static VTDFaultReason vtd_denied(VTDPerm want)
{
    return want & VTD_PERM_W ? VTD_FR_WRITE : VTD_FR_READ;
}

VTDFaultReason vtd_walk_second_stage(const VTDMemory *mem,
                                     const VTDConfig *cfg, uint64_t iova,
                                     VTDPerm want, VTDTranslation *out)
{
    uint64_t table = cfg->root;
    VTDPerm perm = VTD_PERM_RW;

    if (iova >= cfg->address_limit) {
        return VTD_FR_ADDRESS_WIDTH;
    }
    for (unsigned level = cfg->levels; level > 0; level--) {
        uint64_t entry;

        if (!mem->read(mem->opaque, table + 8 * vtd_level_index(iova, level),
                       &entry, 1)) {
            /* Section 7.1.3: the context entry answers for the first table */
            return level == cfg->levels ? VTD_FR_CONTEXT_INVALID
                                        : VTD_FR_PAGING_ACCESS;
        }
        perm &= vtd_entry_perm(entry);
        if ((entry & VTD_SS_RW) == 0) {
            return vtd_denied(want);
        }
        if (entry & vtd_entry_reserved(cfg, entry, level)) {
            return VTD_FR_PAGING_RSVD;
        }
        if (want & ~perm) {
            return vtd_denied(want & ~perm);
        }
        if (vtd_entry_is_leaf(entry, level)) {
            *out = vtd_page(cfg, entry, level, iova, perm);
            return vtd_check_interrupt_range(out, iova);
        }
        table = entry & VTD_SS_ADDR_MASK;
    }
    g_assert_not_reached();         /* level 1 is always a leaf */
}

/* State of one vtd_walk_range(): the unmapped run that is being gathered */
typedef struct VTDRangeWalk {
    const VTDMemory *mem;
    const VTDConfig *cfg;
    uint64_t first;
    uint64_t last;
    uint64_t hole;                  /* start of the unmapped run */
    unsigned budget;                /* entries that may still be read */
    VTDWalkVisit *visit;
    void *opaque;
} VTDRangeWalk;

static void vtd_range_end_hole(VTDRangeWalk *w, uint64_t end)
{
    if (end > w->hole) {
        VTDTranslation t = { .iova = w->hole, .mask = end - w->hole - 1,
                             .domain = w->cfg->domain };

        w->visit(w->opaque, &t);
    }
}

/*
 * One page, or what is left of it beside the interrupt address range: it is
 * cut in halves until they are on one side or the other.
 */
static void vtd_range_page(VTDRangeWalk *w, VTDTranslation t)
{
    if (t.iova + t.mask < w->first || t.iova > w->last) {
        return;
    }
    if (vtd_beside_interrupt_range(&t)) {
        vtd_range_end_hole(w, t.iova);
        w->visit(w->opaque, &t);
        w->hole = t.iova + t.mask + 1;
    } else if (t.mask >= VTD_IR_RANGE_SIZE) {
        t.mask >>= 1;
        vtd_range_page(w, t);
        t.iova += t.mask + 1;
        t.addr += t.mask + 1;
        vtd_range_page(w, t);
    }
}

/* @base: the first address that @table maps; the recursion ends at level 1 */
static void vtd_range_table(VTDRangeWalk *w, uint64_t table, unsigned level,
                            uint64_t base, VTDPerm allowed)
{
    uint64_t step = 1ULL << vtd_page_shift(level);
    unsigned index = w->first > base ? vtd_level_index(w->first, level) : 0;

    for (; index < 1 << VTD_SS_LEVEL_BITS; index++) {
        uint64_t iova = base + index * step, entry;
        VTDPerm perm;

        if (iova > w->last || w->budget == 0) {
            return;
        }
        w->budget--;
        if (!w->mem->read(w->mem->opaque, table + 8 * index, &entry, 1)) {
            continue;
        }
        perm = allowed & vtd_entry_perm(entry);
        if (!perm || (entry & vtd_entry_reserved(w->cfg, entry, level))) {
            continue;
        }
        if (vtd_entry_is_leaf(entry, level)) {
            vtd_range_page(w, vtd_page(w->cfg, entry, level, iova, perm));
        } else {
            vtd_range_table(w, entry & VTD_SS_ADDR_MASK, level - 1, iova,
                            perm);
        }
    }
}

bool vtd_walk_range(const VTDMemory *mem, const VTDConfig *cfg,
                    uint64_t first, uint64_t last,
                    VTDWalkVisit *visit, void *opaque)
{
    VTDRangeWalk w = {
        .mem = mem, .cfg = cfg, .first = first, .hole = first,
        .last = MIN(last, cfg->address_limit - 1),
        .visit = visit, .opaque = opaque, .budget = VTD_WALK_BUDGET,
    };

    if (first < cfg->address_limit) {
        vtd_range_table(&w, cfg->root, cfg->levels, 0, VTD_PERM_RW);
    }
    /* Nothing is mapped beyond the limit */
    if (w.hole <= last) {
        VTDTranslation t = { .iova = w.hole, .mask = last - w.hole,
                             .domain = cfg->domain };

        visit(opaque, &t);
    }
    return w.budget > 0;
}
