/*
 * Intel VT-d: root and context tables
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "intel_iommu_tables.h"

bool vtd_fault_qualified(VTDFaultReason reason)
{
    switch (reason) {
    case VTD_FR_NONE:
    case VTD_FR_ROOT_NOT_PRESENT:
    case VTD_FR_ROOT_ACCESS:
    case VTD_FR_ROOT_RSVD:
    case VTD_FR_CONTEXT_ACCESS:
    case VTD_FR_IR_REQUEST_RSVD:
    case VTD_FR_IR_INDEX:
    case VTD_FR_IR_ACCESS:
    case VTD_FR_IR_COMPAT_BLOCKED:
        return false;
    default:
        return true;
    }
}

/* Section 9.1: the context table of a bus */
static VTDFaultReason vtd_root_entry(const VTDMemory *mem,
                                     const VTDCapDesc *cap, uint64_t root,
                                     uint8_t bus, uint64_t *context_table)
{
    uint64_t host = vtd_host_mask(cap);
    uint64_t entry[2];

    if (!mem->read(mem->opaque, root + bus * sizeof(entry), entry, 2)) {
        return VTD_FR_ROOT_ACCESS;
    }
    if (!(entry[0] & VTD_ROOT_P)) {
        return VTD_FR_ROOT_NOT_PRESENT;
    }
    if ((entry[0] & (VTD_ROOT_RSVD_LOW | ~host)) || entry[1]) {
        return VTD_FR_ROOT_RSVD;
    }
    *context_table = entry[0] & VTD_PAGE_MASK;
    return VTD_FR_NONE;
}

/* Section 9.3: is @tt one that the unit offers?  11b is reserved. */
static bool vtd_context_stage(const VTDCapDesc *cap, unsigned tt,
                              VTDStage *stage)
{
    *stage = VTD_STAGE_SECOND;
    switch (tt) {
    case VTD_TT_UNTRANSLATED:
        return true;
    case VTD_TT_DEVICE_TLB:
        return cap->device_iotlb;
    case VTD_TT_PASS_THROUGH:
        *stage = VTD_STAGE_PASS_THROUGH;
        return cap->pass_through;
    default:
        return false;
    }
}

/* Section 9.3: AW 1 is 39 bits and 3 levels, AW 2 is 48 bits and 4 levels */
static bool vtd_context_width(const VTDCapDesc *cap, unsigned aw,
                              VTDConfig *cfg)
{
    unsigned bits = 30 + 9 * aw;

    if (aw < 1 || aw > 2 || bits > cap->aw_bits) {
        return false;
    }
    cfg->levels = aw + 2;
    cfg->address_limit = 1ULL << bits;
    return true;
}

static VTDFaultReason vtd_context_parse(const VTDCapDesc *cap,
                                        const uint64_t entry[2],
                                        VTDConfig *cfg)
{
    uint64_t host = vtd_host_mask(cap);

    cfg->fpd = entry[0] & VTD_CTX_FPD;
    if (!(entry[0] & VTD_CTX_P)) {
        return VTD_FR_CONTEXT_NOT_PRESENT;
    }
    if ((entry[0] & (VTD_CTX_RSVD_LOW | ~host)) ||
        (entry[1] & VTD_CTX_HI_RSVD)) {
        return VTD_FR_CONTEXT_RSVD;
    }
    if (!vtd_context_stage(cap, VTD_GET(entry[0], VTD_CTX_TT_FIELD),
                           &cfg->stage) ||
        !vtd_context_width(cap, VTD_GET(entry[1], VTD_CTX_HI_AW_FIELD), cfg)) {
        return VTD_FR_CONTEXT_INVALID;
    }
    cfg->domain = VTD_GET(entry[1], VTD_CTX_HI_DID_FIELD);
    cfg->root = entry[0] & VTD_PAGE_MASK;
    cfg->host_mask = host;
    /*
     * Section 9.8: SNP is reserved where the unit lacks it.  TM was a hint
     * for device-TLBs up to revision 2.4, and has been reserved since.
     */
    cfg->rsvd_leaf = (cap->snoop_control ? 0 : VTD_SS_SNP) |
                     (cap->device_iotlb && cap->stale_tm ? 0 : VTD_SS_TM);
    return VTD_FR_NONE;
}

VTDFaultReason vtd_tables_lookup(const VTDMemory *mem, const VTDCapDesc *cap,
                                 uint64_t root, uint8_t bus, uint8_t devfn,
                                 VTDConfig *cfg)
{
    uint64_t context_table, entry[2];
    VTDFaultReason reason;

    *cfg = (VTDConfig) {};
    reason = vtd_root_entry(mem, cap, root, bus, &context_table);
    if (reason != VTD_FR_NONE) {
        return reason;
    }
    if (!mem->read(mem->opaque, context_table + devfn * sizeof(entry),
                   entry, 2)) {
        return VTD_FR_CONTEXT_ACCESS;
    }
    return vtd_context_parse(cap, entry, cfg);
}
