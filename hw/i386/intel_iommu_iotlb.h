/*
 * Intel VT-d: translation cache (IOTLB) and context cache
 *
 * Time, here, is counted in invalidations.  VTDEpochs.now is the number of
 * those that have begun; an entry carries the time at which its walk began,
 * read before the first table was.  An invalidation first advances the time
 * and then raises a bound: everything that began earlier is dead.
 *
 *      global flush     epochs->global       \
 *      domain flush     epochs->domain[did]   > compared at each lookup: O(1)
 *      requester flush  iotlb->bound         /
 *      page flush       table->bound[], compared when an entry is put into
 *                       a line, after the pages were removed from theirs
 *
 * So an invalidation is never lost to a walk that was under way: what it
 * puts into the cache is either dead already or refused.
 *
 * Each requester has a table of its own.  Software maps buffers side by side,
 * so a line holds a block of eight neighbouring pages of one size and domain,
 * in one cache line of the host.  A lookup takes no lock and writes nothing:
 * it reads a line between two reads of the line's sequence number, which is
 * odd while somebody writes.  Fills and page flushes of one requester take
 * its lock; they are misses or commands anyway.  Tables grow with use, from
 * 32 lines (2 KiB) to 65536 (4 MiB), and are replaced under RCU.
 *
 * What a line looks like is in intel_iommu_iotlb_lookup.h.
 *
 * A leaf: it knows neither registers nor guest tables.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_I386_INTEL_IOMMU_IOTLB_H
#define HW_I386_INTEL_IOMMU_IOTLB_H

#include "qemu/thread.h"
#include "hw/i386/intel_iommu_walk.h"

/** VTDEpochs: the time of one unit, and the bounds that all caches share */
typedef struct VTDEpochs {
    aligned_uint64_t now;       /* atomic */
    aligned_uint64_t global;    /* atomic */
    aligned_uint64_t *domain;   /* one per domain-id, atomic */
} VTDEpochs;

typedef struct VTDIOTLBTable VTDIOTLBTable;

/** VTDIOTLB: what is cached for one requester */
typedef struct VTDIOTLB {
    VTDEpochs *epochs;
    VTDIOTLBTable *table;       /* RCU; NULL until the first fill */
    aligned_uint64_t bound;     /* atomic */
    QemuMutex lock;             /* serialises writers; guards what follows */
    bool context_valid;
    VTDConfig context;
    uint64_t context_bound;
} VTDIOTLB;

/*
 * A page flush touches one line for eight pages.  One of more than 2^9 pages
 * (2 MiB) is carried out as a domain flush: cheaper for both sides.
 */
#define VTD_IOTLB_MAX_FLUSH_AM 9

/** vtd_epochs_init: begin time for one unit; to be paired with destroy */
void vtd_epochs_init(VTDEpochs *epochs);
/** vtd_epochs_destroy: all VTDIOTLBs of @epochs are gone already */
void vtd_epochs_destroy(VTDEpochs *epochs);
/**
 * vtd_epochs_now: the time for vtd_iotlb_fill() and vtd_context_fill()
 *
 * To be called before anything that the result depends on is read: tables,
 * registers, the cached configuration, the bus number.  Any thread.
 */
uint64_t vtd_epochs_now(VTDEpochs *epochs);
/** vtd_epochs_flush_global: no translation of any requester survives */
void vtd_epochs_flush_global(VTDEpochs *epochs);
/** vtd_epochs_flush_domain: no translation of domain @did survives */
void vtd_epochs_flush_domain(VTDEpochs *epochs, uint16_t did);

/** vtd_iotlb_init: an empty cache; to be paired with destroy */
void vtd_iotlb_init(VTDIOTLB *iotlb, VTDEpochs *epochs);
/** vtd_iotlb_destroy: no other thread uses @iotlb any more */
void vtd_iotlb_destroy(VTDIOTLB *iotlb);

/**
 * vtd_iotlb_lookup: find a live translation
 * @iotlb: of the requester
 * @iova: any address
 * @out: filled on success; its perm is for the caller to check
 *
 * Any thread, inside an RCU read-side critical section or with the big lock
 * held, under which RCU's callbacks run.  Takes no lock.
 */
bool vtd_iotlb_lookup(VTDIOTLB *iotlb, uint64_t iova, VTDTranslation *out);

/**
 * vtd_iotlb_fill: remember a translation
 * @iotlb: of the requester
 * @began: vtd_epochs_now() from before the walk
 * @t: what was found
 *
 * Any thread.  Takes the lock of @iotlb.  Nothing happens if an invalidation
 * that may concern @t has come since @began, or if @t allows nothing.  A
 * neighbour of another domain may be forgotten.
 */
void vtd_iotlb_fill(VTDIOTLB *iotlb, uint64_t began, const VTDTranslation *t);

/** vtd_iotlb_flush: no translation of this requester survives.  O(1). */
void vtd_iotlb_flush(VTDIOTLB *iotlb);

/**
 * vtd_iotlb_flush_pages: drop the pages of a range
 * @iotlb: of the requester
 * @did: domain that the flush is for
 * @iova: any address in the range
 * @am: address mask: the range is the 2^@am naturally aligned 4 KiB pages
 *      around @iova
 *
 * Returns false, with nothing done, if @am is larger than
 * VTD_IOTLB_MAX_FLUSH_AM: flush the domain then.
 */
bool vtd_iotlb_flush_pages(VTDIOTLB *iotlb, uint16_t did, uint64_t iova,
                           unsigned am);

/**
 * vtd_iotlb_usage: how much is cached, for people to look at
 * @iotlb: of the requester
 * @live: translations that a lookup would find
 * @size: translations that the table has room for
 *
 * Any thread.  Takes the lock of @iotlb, and as long as the table is large.
 */
void vtd_iotlb_usage(VTDIOTLB *iotlb, uint64_t *live, uint64_t *size);

/** vtd_context_lookup: the cached configuration of this requester, if any */
bool vtd_context_lookup(VTDIOTLB *iotlb, VTDConfig *cfg);
/** vtd_context_fill: as vtd_iotlb_fill(), for the configuration */
void vtd_context_fill(VTDIOTLB *iotlb, uint64_t began, const VTDConfig *cfg);

/**
 * vtd_context_flush: forget the configuration and, as the specification lets
 * hardware do at any time, the translations that were found with it
 */
void vtd_context_flush(VTDIOTLB *iotlb);

#endif
