/*
 * Intel VT-d: a hit in the translation cache
 *
 * Apart from intel_iommu_iotlb.h because it is inlined into the translate
 * hook: calls and the registers they save are a quarter of what a hit costs.
 *
 * Memory order: a reader loads a line's fields with acquire between two loads
 * of its sequence number; a writer stores them with release between two
 * stores.  So a reader that saw any new field sees the odd sequence number.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_I386_INTEL_IOMMU_IOTLB_LOOKUP_H
#define HW_I386_INTEL_IOMMU_IOTLB_LOOKUP_H

#include "qemu/atomic.h"
#include "qemu/rcu.h"
#include "intel_iommu_iotlb.h"

/* Lines where a block may be, and pages of a block */
#define VTD_IOTLB_WAYS 4
#define VTD_IOTLB_PAGES_BITS 3
#define VTD_IOTLB_PAGES (1U << VTD_IOTLB_PAGES_BITS)
/* Page sizes: levels 1 to 3 */
#define VTD_IOTLB_LEVELS 3

/*
 * Eight neighbouring pages, in one cache line of the host.  All fields are
 * atomic, and between two changes of @sequence.
 *
 * @sequence: odd while the line is being written
 * @domain: of all its pages
 * @perms: two bits for each page; none: the page is not cached
 * @tag: the block's number, and the level of its pages (1 to 3) in the two
 *       low bits; 0: the line is empty
 * @began: when the oldest of its walks began
 * @frame_low, @frame_high: page frames, 40 bits each
 */
typedef struct VTDIOTLBLine {
    unsigned sequence;
    uint16_t domain;
    uint16_t perms;
    aligned_uint64_t tag;
    aligned_uint64_t began;
    uint32_t frame_low[VTD_IOTLB_PAGES];
    uint8_t frame_high[VTD_IOTLB_PAGES];
} QEMU_ALIGNED(64) VTDIOTLBLine;

QEMU_BUILD_BUG_ON(sizeof(VTDIOTLBLine) != 64);

/*
 * @lines_mask: number of lines - 1
 * @levels: atomic; bit n: pages of level n have been put in
 * @evicted: live lines given up
 * @victim: which way to give up next
 * @unseen: bounds of the levels of which there was nothing to flush
 * @bound: one for each group of VTD_IOTLB_WAYS lines
 *
 * But for @lines_mask, @levels and @line: under the lock.
 */
struct VTDIOTLBTable {
    struct rcu_head rcu;
    unsigned lines_mask;
    unsigned levels;
    VTDIOTLBLine *line;
    unsigned evicted;
    unsigned victim;
    uint64_t unseen[VTD_IOTLB_LEVELS + 1];
    uint64_t *bound;
};

/* Where the page of an address is: which block, which of its pages */
typedef struct VTDIOTLBPlace {
    uint64_t tag;
    unsigned home;
    unsigned page;
} VTDIOTLBPlace;

/**
 * VTDHit: a translation in two registers, for a hit that is in a hurry
 * @addr: of the page's first byte
 * @perm: for the caller to check; VTD_PERM_NONE: nothing was found
 */
typedef struct VTDHit {
    uint64_t addr;
    VTDPerm perm;
} VTDHit;

#if HOST_LONG_BITS == 64
static inline uint64_t vtd_load(const aligned_uint64_t *p)
{
    return qatomic_load_acquire(p);
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

#endif

static inline bool vtd_iotlb_live(VTDIOTLB *iotlb, uint16_t domain,
                                  uint64_t began)
{
    VTDEpochs *epochs = iotlb->epochs;

    return began >= vtd_load(&epochs->global) &&
           began >= vtd_load(&iotlb->bound) &&
           began >= vtd_load(&epochs->domain[domain]);
}

/*
 * Neighbouring blocks go to neighbouring lines; the higher bits are folded in
 * so that buffers at a large power-of-two distance do not share a few: as many
 * as there are lines, at any one up to 1 TiB, find room.
 */
static inline VTDIOTLBPlace vtd_place(const VTDIOTLBTable *table,
                                      uint64_t iova, unsigned level)
{
    uint64_t page = iova >> vtd_page_shift(level);
    uint64_t block = page >> VTD_IOTLB_PAGES_BITS;

    return (VTDIOTLBPlace) {
        .tag = block << 2 | level,
        .home = (block ^ block >> 8 ^ block >> 23) & table->lines_mask,
        .page = page % VTD_IOTLB_PAGES,
    };
}

static inline VTDPerm vtd_perm_of(uint16_t perms, unsigned page)
{
    return perms >> (2 * page) & VTD_PERM_RW;
}

/* The line that holds @place's block, or NULL */
static inline VTDIOTLBLine *vtd_find_line(VTDIOTLBTable *table,
                                          const VTDIOTLBPlace *place)
{
    for (unsigned i = 0; i < VTD_IOTLB_WAYS; i++) {
        VTDIOTLBLine *line = &table->line[place->home ^ i];

        if (vtd_load(&line->tag) == place->tag) {
            return line;
        }
    }
    return NULL;
}

/* If the line changes under our eyes it is not what we look for: no retry */
static inline bool vtd_read_line(VTDIOTLB *iotlb, const VTDIOTLBLine *line,
                                 const VTDIOTLBPlace *place, VTDHit *hit)
{
    unsigned sequence = qatomic_load_acquire(&line->sequence);
    uint64_t tag = vtd_load(&line->tag);
    uint64_t began = vtd_load(&line->began);
    uint16_t domain = qatomic_load_acquire(&line->domain);
    uint16_t perms = qatomic_load_acquire(&line->perms);
    uint64_t high = qatomic_load_acquire(&line->frame_high[place->page]);
    uint64_t low = qatomic_load_acquire(&line->frame_low[place->page]);

    hit->addr = (high << 32 | low) << VTD_PAGE_SHIFT;
    hit->perm = vtd_perm_of(perms, place->page);
    return qatomic_read(&line->sequence) == sequence && !(sequence & 1) &&
           tag == place->tag && vtd_iotlb_live(iotlb, domain, began);
}

static inline VTDHit vtd_lookup_level(VTDIOTLB *iotlb, VTDIOTLBTable *table,
                                      uint64_t iova, unsigned level)
{
    VTDIOTLBPlace place = vtd_place(table, iova, level);
    VTDIOTLBLine *line = vtd_find_line(table, &place);
    VTDHit hit;

    if (!line || !vtd_read_line(iotlb, line, &place, &hit)) {
        hit = (VTDHit) {};
    }
    return hit;
}

/**
 * vtd_iotlb_lookup_4k: as vtd_iotlb_lookup(), but for pages of 4 KiB alone
 */
static inline VTDHit vtd_iotlb_lookup_4k(VTDIOTLB *iotlb, uint64_t iova)
{
    VTDIOTLBTable *table = qatomic_rcu_read(&iotlb->table);

    return table ? vtd_lookup_level(iotlb, table, iova, 1) : (VTDHit) {};
}

#endif
