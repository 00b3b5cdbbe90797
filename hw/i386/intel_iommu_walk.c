/*
 * Intel VT-d: page walks
 *
 * Second-stage paging structures (section 3.7) are radix trees of 512-entry
 * tables.  An entry ends the walk when it is a leaf: at level 1 always, at
 * levels 2 and 3 if PS is set.  The permission of a page is the intersection
 * of all entries on the way to it (section 3.7.1).
 *
 * First-stage paging structures (section 3.6) are those of the processor in
 * 4-level mode.  Their entries have flags that the walk sets.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "intel_iommu_walk.h"

/* 1 GiB is the largest page (CAP.SSLPS has no bit for 512 GiB) */
#define VTD_SS_MAX_LEAF_LEVEL 3

/* The same conditions have other names in scalable mode (section 7.1.3) */
typedef struct VTDWalkReasons {
    VTDFaultReason width;
    VTDFaultReason root_access;
    VTDFaultReason access;
    VTDFaultReason rsvd;
    VTDFaultReason read;
    VTDFaultReason write;
    VTDFaultReason interrupt;
} VTDWalkReasons;

static const VTDWalkReasons vtd_legacy_reasons = {
    .width = VTD_FR_ADDRESS_WIDTH,
    /* Section 7.1.3: the context entry answers for the first table */
    .root_access = VTD_FR_CONTEXT_INVALID,
    .access = VTD_FR_PAGING_ACCESS,
    .rsvd = VTD_FR_PAGING_RSVD,
    .read = VTD_FR_READ,
    .write = VTD_FR_WRITE,
    .interrupt = VTD_FR_INTERRUPT_ADDRESS,
};

static const VTDWalkReasons vtd_second_stage_reasons = {
    .width = VTD_FR_SM_ADDRESS_WIDTH,
    .root_access = VTD_FR_SS_ROOT_ACCESS,
    .access = VTD_FR_SS_ACCESS,
    .rsvd = VTD_FR_SS_RSVD,
    .read = VTD_FR_SM_READ,
    .write = VTD_FR_SM_WRITE,
    .interrupt = VTD_FR_SM_INTERRUPT_ADDRESS,
};

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
static bool vtd_hits_interrupt_range(VTDTranslation *t, uint64_t iova)
{
    if (vtd_beside_interrupt_range(t)) {
        return false;
    }
    t->addr |= iova & t->mask & VTD_PAGE_MASK;
    t->iova = iova & VTD_PAGE_MASK;
    t->mask = ~VTD_PAGE_MASK;
    return t->addr - VTD_IR_ADDR_BASE < VTD_IR_RANGE_SIZE;
}

static VTDFaultReason vtd_denied(const VTDWalkReasons *reasons, VTDPerm want)
{
    return want & VTD_PERM_W ? reasons->write : reasons->read;
}

VTDFaultReason vtd_walk_second_stage(const VTDMemory *mem,
                                     const VTDConfig *cfg, uint64_t iova,
                                     VTDPerm want, VTDTranslation *out)
{
    const VTDWalkReasons *reasons = cfg->scalable ? &vtd_second_stage_reasons
                                                  : &vtd_legacy_reasons;
    uint64_t table = cfg->root;
    VTDPerm perm = VTD_PERM_RW;

    if (iova >= cfg->address_limit) {
        return reasons->width;
    }
    for (unsigned level = cfg->levels; level > 0; level--) {
        uint64_t entry;

        if (!mem->read(mem->opaque, table + 8 * vtd_level_index(iova, level),
                       &entry, 1)) {
            return level == cfg->levels ? reasons->root_access
                                        : reasons->access;
        }
        perm &= vtd_entry_perm(entry);
        if ((entry & VTD_SS_RW) == 0) {
            return vtd_denied(reasons, want);
        }
        if (entry & vtd_entry_reserved(cfg, entry, level)) {
            return reasons->rsvd;
        }
        if (want & ~perm) {
            return vtd_denied(reasons, want & ~perm);
        }
        if (vtd_entry_is_leaf(entry, level)) {
            *out = vtd_page(cfg, entry, level, iova, perm);
            return vtd_hits_interrupt_range(out, iova) ? reasons->interrupt
                                                       : VTD_FR_NONE;
        }
        table = entry & VTD_SS_ADDR_MASK;
    }
    g_assert_not_reached();         /* level 1 is always a leaf */
}

/* The entries of one first-stage walk, topmost first */
typedef struct VTDFirstWalk {
    unsigned used;
    uint64_t addr[VTD_MAX_LEVELS];
    uint64_t entry[VTD_MAX_LEVELS];
} VTDFirstWalk;

/* Section 3.6: what is not translated repeats the highest bit that is */
static bool vtd_canonical(const VTDConfig *cfg, uint64_t iova)
{
    unsigned width = vtd_page_shift(cfg->levels + 1);

    return sextract64(iova, 0, width) == (int64_t)iova;
}

/*
 * Section 9.7: which bits of a present entry must be zero.  At level 1 PS is
 * PAT, and there is nothing below the page's size; a large page has PAT where
 * its address could have begun.
 */
static uint64_t vtd_first_reserved(const VTDConfig *cfg, uint64_t entry,
                                   unsigned level)
{
    uint64_t rsvd = (VTD_SS_ADDR_MASK & ~cfg->host_mask) | cfg->rsvd_any;

    if (!(entry & VTD_FS_PS)) {
        return rsvd;
    }
    if (level > VTD_SS_MAX_LEAF_LEVEL || (level == 3 && cfg->no_huge)) {
        return rsvd | VTD_FS_PS;
    }
    return rsvd | (((1ULL << vtd_page_shift(level)) - VTD_PAGE_SIZE) &
                   ~VTD_FS_PAT_LARGE);
}

/* Go down to the leaf, whatever it allows; its level is put into @leaf */
static VTDFaultReason vtd_first_descend(const VTDMemory *mem,
                                        const VTDConfig *cfg, uint64_t iova,
                                        VTDFirstWalk *w, unsigned *leaf)
{
    uint64_t table = cfg->root;

    w->used = 0;
    for (unsigned level = cfg->levels; level > 0; level--) {
        uint64_t addr = table + 8 * vtd_level_index(iova, level), entry;

        if (!mem->read(mem->opaque, addr, &entry, 1)) {
            return level == cfg->levels ? VTD_FR_FS_ROOT_ACCESS
                                        : VTD_FR_FS_ACCESS;
        }
        if (!(entry & VTD_FS_P)) {
            return VTD_FR_FS_NOT_PRESENT;
        }
        if (entry & vtd_first_reserved(cfg, entry, level)) {
            return VTD_FR_FS_RSVD;
        }
        w->addr[w->used] = addr;
        w->entry[w->used++] = entry;
        if (vtd_entry_is_leaf(entry, level)) {
            *leaf = level;
            return VTD_FR_NONE;
        }
        table = entry & VTD_SS_ADDR_MASK;
    }
    g_assert_not_reached();         /* level 1 is always a leaf */
}

/* Section 3.6.2: the accesses are the intersection of all levels */
static uint64_t vtd_first_common(const VTDFirstWalk *w)
{
    uint64_t common = UINT64_MAX;

    for (unsigned i = 0; i < w->used; i++) {
        common &= w->entry[i];
    }
    return common;
}

/*
 * Section 3.6.3: A in every entry that was used, D in the leaf of a write.
 * Nothing is set beforehand for a request that faults.
 */
static VTDUpdate vtd_first_mark(const VTDMemory *mem, VTDFirstWalk *w,
                                VTDPerm want)
{
    for (unsigned i = 0; i < w->used; i++) {
        bool leaf = i == w->used - 1;
        uint64_t marked = w->entry[i] | VTD_FS_A |
                          (leaf && (want & VTD_PERM_W) ? VTD_FS_D : 0);

        if (marked != w->entry[i]) {
            VTDUpdate update = mem->update(mem->opaque, w->addr[i],
                                           w->entry[i], marked);

            if (update != VTD_UPDATE_DONE) {
                return update;
            }
            w->entry[i] = marked;
        }
    }
    return VTD_UPDATE_DONE;
}

/* What may be cached: no access that is yet to be told by a flag */
static VTDPerm vtd_first_perm(const VTDFirstWalk *w)
{
    uint64_t common = vtd_first_common(w);

    if (!(common & VTD_FS_A)) {
        return VTD_PERM_NONE;
    }
    return (common & VTD_FS_RW) && (w->entry[w->used - 1] & VTD_FS_D) ?
           VTD_PERM_RW : VTD_PERM_R;
}

/* One attempt; @update tells whether the flags were set */
static VTDFaultReason vtd_first_attempt(const VTDMemory *mem,
                                        const VTDConfig *cfg, uint64_t iova,
                                        VTDPerm want, VTDTranslation *out,
                                        VTDUpdate *update)
{
    VTDFirstWalk w;
    unsigned level;
    VTDFaultReason reason = vtd_first_descend(mem, cfg, iova, &w, &level);

    *update = VTD_UPDATE_DONE;
    if (reason != VTD_FR_NONE) {
        return reason;
    }
    if (!(vtd_first_common(&w) & VTD_FS_US)) {
        return VTD_FR_SM_USER;
    }
    if ((want & VTD_PERM_W) && !(vtd_first_common(&w) & VTD_FS_RW)) {
        return VTD_FR_SM_WRITE;
    }
    *out = vtd_page(cfg, w.entry[w.used - 1], level, iova, VTD_PERM_NONE);
    if (vtd_hits_interrupt_range(out, iova)) {
        return VTD_FR_SM_INTERRUPT_ADDRESS;
    }
    if (want != VTD_PERM_NONE) {
        *update = vtd_first_mark(mem, &w, want);
    }
    out->perm = vtd_first_perm(&w);
    return VTD_FR_NONE;
}

VTDFaultReason vtd_walk_first_stage(const VTDMemory *mem,
                                    const VTDConfig *cfg, uint64_t iova,
                                    VTDPerm want, VTDTranslation *out)
{
    VTDUpdate update = VTD_UPDATE_CHANGED;
    VTDFaultReason reason;

    if (!vtd_canonical(cfg, iova)) {
        return VTD_FR_SM_CANONICAL;
    }
    for (unsigned i = 0; i < VTD_WALK_RETRIES; i++) {
        reason = vtd_first_attempt(mem, cfg, iova, want, out, &update);
        if (update != VTD_UPDATE_CHANGED) {
            break;
        }
    }
    return update == VTD_UPDATE_DONE ? reason : VTD_FR_FS_UPDATE;
}

/* State of one vtd_walk_range() */
typedef struct VTDRangeWalk {
    const VTDMemory *mem;
    const VTDConfig *cfg;
    VTDRange *range;
    uint64_t last;
    uint64_t hole;                  /* start of the unmapped run so far */
    bool stopped;
    uint64_t next;                  /* where to go on, if it was stopped */
    VTDWalkVisit *visit;
    void *opaque;
} VTDRangeWalk;

static void vtd_range_stop(VTDRangeWalk *w, uint64_t next)
{
    w->stopped = true;
    w->next = next;
}

static void vtd_range_visit(VTDRangeWalk *w, const VTDTranslation *t)
{
    if (!w->visit(w->opaque, t)) {
        vtd_range_stop(w, t->iova);
    }
}

/* The unmapped run ends with @last */
static void vtd_range_hole(VTDRangeWalk *w, uint64_t last)
{
    VTDTranslation t = { .iova = w->hole, .mask = last - w->hole,
                         .domain = w->cfg->domain };

    vtd_range_visit(w, &t);
    w->hole = last + 1;
}

/*
 * One page, or what is left of it beside the interrupt address range: it is
 * cut in halves until they are on one side or the other.
 */
static void vtd_range_page(VTDRangeWalk *w, VTDTranslation t)
{
    if (t.iova + t.mask < w->range->first || t.iova > w->last) {
        return;
    }
    if (vtd_beside_interrupt_range(&t)) {
        if (!w->stopped && t.iova > w->hole) {
            vtd_range_hole(w, t.iova - 1);
        }
        if (!w->stopped) {
            vtd_range_visit(w, &t);
            w->hole = t.iova + t.mask + 1;
        }
    } else if (t.mask >= VTD_IR_RANGE_SIZE) {
        t.mask >>= 1;
        vtd_range_page(w, t);
        t.iova += t.mask + 1;
        t.addr += t.mask + 1;
        vtd_range_page(w, t);
    }
}

/* Read the entry for @iova, unless there have been enough of them */
static bool vtd_range_read(VTDRangeWalk *w, uint64_t addr, uint64_t iova,
                           uint64_t *entry)
{
    if (w->range->budget == 0) {
        if (iova > w->hole) {
            vtd_range_hole(w, iova - 1);
        }
        if (!w->stopped) {
            vtd_range_stop(w, w->hole);
        }
        return false;
    }
    w->range->budget--;
    return w->mem->read(w->mem->opaque, addr, entry, 1);
}

/* @base: the first address that @table maps; the recursion ends at level 1 */
static void vtd_range_table(VTDRangeWalk *w, uint64_t table, unsigned level,
                            uint64_t base, VTDPerm allowed)
{
    uint64_t step = 1ULL << vtd_page_shift(level), first = w->range->first;
    unsigned index = first > base ? vtd_level_index(first, level) : 0;

    for (; index < 1 << VTD_SS_LEVEL_BITS && !w->stopped; index++) {
        uint64_t iova = base + index * step, entry;
        VTDPerm perm;

        if (iova > w->last) {
            return;
        }
        if (!vtd_range_read(w, table + 8 * index, iova, &entry)) {
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
                    VTDRange *range, VTDWalkVisit *visit, void *opaque)
{
    VTDRangeWalk w = {
        .mem = mem, .cfg = cfg, .range = range, .hole = range->first,
        .last = MIN(range->last, cfg->address_limit - 1),
        .visit = visit, .opaque = opaque,
    };

    if (range->first < cfg->address_limit) {
        vtd_range_table(&w, cfg->root, cfg->levels, 0, VTD_PERM_RW);
    }
    /* Nothing is mapped beyond the limit */
    if (!w.stopped && w.hole <= range->last) {
        vtd_range_hole(&w, range->last);
    }
    if (w.stopped) {
        range->first = w.next;
    }
    return !w.stopped;
}
