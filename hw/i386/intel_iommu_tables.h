/*
 * Intel VT-d: root, context and PASID tables
 *
 * A leaf: it turns a requester-id into what that requester may do, or into
 * the reason for a fault.  It knows no registers and no caches.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_I386_INTEL_IOMMU_TABLES_H
#define HW_I386_INTEL_IOMMU_TABLES_H

#include "hw/i386/intel_iommu_walk.h"

/**
 * VTDCapDesc: what a chipset's remapping unit offers
 *
 * The front end fills it in once, before the unit is used; everything else,
 * the capability registers too, follows from it.
 *
 * @aw_bits: width of input addresses: 39, 48 or 57; host addresses have as
 *           many bits, but no more than 52
 * @fault_records: fault recording registers, 1 to 256
 * @caching_mode: not-present entries may be cached; software flushes them
 * @dma_translation: DMA remapping is offered at all
 * @dma_drain: invalidations wait for reads and writes in flight
 * @device_iotlb: device-TLBs and their invalidation
 * @interrupt_remapping: interrupt remapping
 * @eim: remapped interrupts may go to 32-bit APIC IDs
 * @pass_through: context entries may select pass-through
 * @snoop_control: paging entries may force snooping
 * @stale_tm: with @device_iotlb, TM in paging entries is no reserved bit (old
 *            machines)
 * @scalable: scalable mode is offered
 * @first_stage: first-stage translation in place of second-stage
 * @first_stage_1g: 1 GiB pages in first-stage tables
 * @pasid: requests with PASID
 */
typedef struct VTDCapDesc {
    uint8_t aw_bits;
    uint16_t fault_records;
    bool caching_mode;
    bool dma_translation;
    bool dma_drain;
    bool device_iotlb;
    bool interrupt_remapping;
    bool eim;
    bool pass_through;
    bool snoop_control;
    bool stale_tm;
    bool scalable;
    bool first_stage;
    bool first_stage_1g;
    bool pasid;
} VTDCapDesc;

/**
 * vtd_host_mask: the bits that a guest-physical address may have (HAW); there
 * are never more than entries have room for
 */
static inline uint64_t vtd_host_mask(const VTDCapDesc *cap)
{
    return MAKE_64BIT_MASK(0, cap->aw_bits) &
           (VTD_SS_ADDR_MASK | ~VTD_PAGE_MASK);
}

/**
 * vtd_tables_lookup: what may a requester do? (sections 3.4.2, 9.1 and 9.3)
 * @mem: how tables are read
 * @cap: what the unit offers
 * @root: guest-physical address of the root table, legacy mode
 * @bus: bus number of the requester
 * @devfn: its device and function number
 * @cfg: filled on success; on failure only @cfg->fpd is meaningful
 *
 * Returns VTD_FR_NONE, or the reason for the fault.
 */
VTDFaultReason vtd_tables_lookup(const VTDMemory *mem, const VTDCapDesc *cap,
                                 uint64_t root, uint8_t bus, uint8_t devfn,
                                 VTDConfig *cfg);

/**
 * vtd_scalable_lookup: the same in scalable mode (sections 3.4.3, 9.2 and
 *                      9.4 to 9.6)
 * @mem: how tables are read
 * @cap: what the unit offers
 * @root: guest-physical address of the root table
 * @sid: requester-id
 * @pasid: of the request, up to VTD_PASID_MAX; VTD_PASID_NONE if it has none,
 *         then RID_PASID of the context entry takes its place
 * @cfg: filled on success; on failure only @cfg->fpd is meaningful
 *
 * Returns VTD_FR_NONE, or the reason for the fault.
 */
VTDFaultReason vtd_scalable_lookup(const VTDMemory *mem,
                                   const VTDCapDesc *cap, uint64_t root,
                                   uint16_t sid, uint32_t pasid,
                                   VTDConfig *cfg);

/**
 * vtd_fault_qualified: can FPD keep this fault from being recorded?
 * @reason: any fault reason
 *
 * Section 7.1.3: faults found before an entry with an FPD field was read are
 * always recorded.
 */
bool vtd_fault_qualified(VTDFaultReason reason);

#endif
