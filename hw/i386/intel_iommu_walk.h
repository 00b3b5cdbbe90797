/*
 * Intel VT-d: page walks
 *
 * A leaf: it reads guest memory through the caller's function and returns a
 * translation or the reason why there is none.  It knows no registers, no
 * caches and no events, so a unit test links it alone.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_I386_INTEL_IOMMU_WALK_H
#define HW_I386_INTEL_IOMMU_WALK_H

#include "hw/i386/intel_iommu_spec.h"

/** VTDUpdate: what became of a compare-and-exchange */
typedef enum VTDUpdate {
    VTD_UPDATE_DONE,
    VTD_UPDATE_CHANGED,         /* the word was not the expected one */
    VTD_UPDATE_FAILED,          /* there is no memory that can be written */
} VTDUpdate;

/**
 * VTDMemory: how tables are read, and the flags of their entries set
 * @read: read @n consecutive 64-bit little-endian words at guest-physical
 *        @addr into @words in host order; false if that is not memory.
 *        Called from any thread; must not take the big lock.
 * @update: put @new in place of @old at @addr, atomically towards vCPUs and
 *          other threads; words in host order.  Only first-stage walks need
 *          it.  Called as @read is.
 * @opaque: passed to @read and @update
 */
typedef struct VTDMemory {
    bool (*read)(void *opaque, uint64_t addr, uint64_t *words, unsigned n);
    VTDUpdate (*update)(void *opaque, uint64_t addr, uint64_t old,
                        uint64_t new);
    void *opaque;
} VTDMemory;

/** VTDPerm: what a request wants, or a translation allows (a bit mask) */
typedef enum VTDPerm {
    VTD_PERM_NONE = 0,
    VTD_PERM_R = 1,
    VTD_PERM_W = 2,
    VTD_PERM_RW = VTD_PERM_R | VTD_PERM_W,
} VTDPerm;

/** VTDStage: how a requester's addresses are translated */
typedef enum VTDStage {
    VTD_STAGE_PASS_THROUGH,
    VTD_STAGE_SECOND,
    VTD_STAGE_FIRST,
} VTDStage;

/* Of the deepest tables, which translate 57 bits */
#define VTD_MAX_LEVELS                 5

/**
 * VTDConfig: what one requester may do, from its root, context and PASID
 *            entries
 * @stage: how its requests are translated
 * @domain: domain-id, the tag of everything cached for it
 * @pasid: what invalidations know it by: the PASID of its requests, or the
 *         one that scalable mode has for those without; VTD_PASID_NONE in
 *         legacy mode
 * @levels: 3 to VTD_MAX_LEVELS levels of paging entries
 * @scalable: from tables of scalable mode, which has fault reasons of its own
 * @root: guest-physical address of the topmost paging structure
 * @address_limit: the first input address that is out of bounds; 0 for the
 *                 first stage, where addresses must be canonical instead
 * @rsvd_leaf: reserved bits of a present leaf entry, address bits aside
 * @rsvd_any: the same, of any present entry
 * @no_huge: PS at level 3 is reserved
 * @host_mask: the address bits that exist (HAW); others are reserved
 * @fpd: fault processing disabled (section 9.3; 9.4 to 9.6: in any of the
 *       entries); meaningful even when the lookup of the configuration failed
 */
typedef struct VTDConfig {
    VTDStage stage;
    uint16_t domain;
    uint8_t levels;
    bool fpd;
    bool scalable;
    bool no_huge;
    uint32_t pasid;
    uint64_t root;
    uint64_t address_limit;
    uint64_t rsvd_leaf;
    uint64_t rsvd_any;
    uint64_t host_mask;
} VTDConfig;

/**
 * VTDTranslation: one page
 * @iova: first input address of the page
 * @addr: first output address
 * @mask: page size - 1
 * @perm: accesses that every level allows
 * @domain: domain-id it belongs to
 */
typedef struct VTDTranslation {
    uint64_t iova;
    uint64_t addr;
    uint64_t mask;
    VTDPerm perm;
    uint16_t domain;
} VTDTranslation;

/** vtd_page_shift: log2 of the page size of a leaf at @level (1, 2 or 3) */
static inline unsigned vtd_page_shift(unsigned level)
{
    return VTD_PAGE_SHIFT + VTD_SS_LEVEL_BITS * (level - 1);
}

/**
 * vtd_walk_second_stage: translate one address (section 3.7)
 * @mem: how tables are read
 * @cfg: of the requester; @cfg->stage is VTD_STAGE_SECOND
 * @iova: input address
 * @want: the accesses that must be allowed; VTD_PERM_NONE probes
 * @out: filled when a leaf was reached, with whatever it allows
 *
 * Returns VTD_FR_NONE, or the reason for the fault.
 */
VTDFaultReason vtd_walk_second_stage(const VTDMemory *mem,
                                     const VTDConfig *cfg, uint64_t iova,
                                     VTDPerm want, VTDTranslation *out);

/**
 * vtd_walk_first_stage: translate one address (section 3.6)
 * @mem: how tables are read, and accessed and dirty flags set
 * @cfg: of the requester; @cfg->stage is VTD_STAGE_FIRST
 * @iova: input address
 * @want: the accesses that must be allowed; VTD_PERM_NONE probes
 * @out: filled when a leaf was reached
 *
 * A walk that succeeds has set the accessed flag of all entries on the way,
 * and for a write the dirty flag of the leaf.  What it allows is no more than
 * the flags tell: a page whose dirty flag is clear is read-only, so that the
 * first write to it comes here.  A probe sets nothing.
 *
 * Returns VTD_FR_NONE, or the reason for the fault.
 */
VTDFaultReason vtd_walk_first_stage(const VTDMemory *mem,
                                    const VTDConfig *cfg, uint64_t iova,
                                    VTDPerm want, VTDTranslation *out);

/*
 * How often a first-stage walk begins again because an entry changed while
 * its flags were being set.  Other devices set each flag once only: what goes
 * on for longer is software that changes entries in use, against section
 * 6.2.
 */
#define VTD_WALK_RETRIES               64

/**
 * VTDRange: addresses that vtd_walk_range() has still to visit
 * @first: first address; a page that it lies in is visited whole
 * @last: last address, inclusive
 * @budget: entries that may still be read.  Tables that point to themselves
 *          describe 2^36 pages in one frame.
 */
typedef struct VTDRange {
    uint64_t first;
    uint64_t last;
    unsigned budget;
} VTDRange;

/* A walk with less than this budget may get nowhere: its way to a page */
#define VTD_RANGE_BUDGET_MIN           8

/**
 * VTDWalkVisit: told of each run of addresses in turn, lowest first
 * @opaque: of the caller
 * @t: a mapped page (its perm is not VTD_PERM_NONE) or a naturally aligned
 *     part of one, or an unmapped run: perm is VTD_PERM_NONE, @t->iova its
 *     start and @t->mask its length - 1 (not a power of two then)
 *
 * Returns whether to go on.  If not, the walk ends, to be resumed at @t->iova.
 */
typedef bool VTDWalkVisit(void *opaque, const VTDTranslation *t);

/**
 * vtd_walk_range: visit what the second-stage tables say of a range
 * @mem: how tables are read
 * @cfg: of the requester; @cfg->stage is VTD_STAGE_SECOND
 * @range: what to visit, and how much may be done for that
 * @visit: called for each mapped page and each unmapped run
 * @opaque: for @visit
 *
 * What would fault in vtd_walk_second_stage() counts as unmapped, the part
 * of a large page that is interrupt addresses too.  The cost is the number of
 * entries present in the range, plus 512 for each table that they live in.
 *
 * Returns whether the whole range was visited.  If not, @range->first is where
 * to go on: the budget ran out there, or @visit wanted no more.
 */
bool vtd_walk_range(const VTDMemory *mem, const VTDConfig *cfg,
                    VTDRange *range, VTDWalkVisit *visit, void *opaque);

#endif
