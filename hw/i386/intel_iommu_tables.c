/*
 * Intel VT-d: root, context and PASID tables
 *
 * Fields whose capability the unit does not offer are reserved, as the
 * specification has it: what a guest sets by mistake is told by a fault
 * rather than ignored.
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
    case VTD_FR_SM_TTM:
    case VTD_FR_SM_TTM_PASID:
    case VTD_FR_SM_ROOT_ACCESS:
    case VTD_FR_SM_ROOT_NOT_PRESENT:
    case VTD_FR_SM_ROOT_RSVD:
    case VTD_FR_SM_CONTEXT_ACCESS:
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

/* Sections 9.3, 9.6: AW 1 is 39 bits and 3 levels, 2 is 48 and 4, 3 57 and 5 */
static bool vtd_second_stage_width(const VTDCapDesc *cap, unsigned aw,
                                   VTDConfig *cfg)
{
    unsigned bits = 30 + 9 * aw;

    if (aw < 1 || aw > 3 || bits > cap->aw_bits) {
        return false;
    }
    cfg->levels = aw + 2;
    cfg->address_limit = 1ULL << bits;
    return true;
}

/*
 * Section 9.8: SNP is reserved where the unit lacks it.  TM was a hint for
 * device-TLBs up to revision 2.4, and has been reserved since.
 */
static uint64_t vtd_second_stage_reserved(const VTDCapDesc *cap)
{
    return (cap->snoop_control ? 0 : VTD_SS_SNP) |
           (cap->device_iotlb && cap->stale_tm ? 0 : VTD_SS_TM);
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
        !vtd_second_stage_width(cap, VTD_GET(entry[1], VTD_CTX_HI_AW_FIELD),
                                cfg)) {
        return VTD_FR_CONTEXT_INVALID;
    }
    cfg->domain = VTD_GET(entry[1], VTD_CTX_HI_DID_FIELD);
    cfg->root = entry[0] & VTD_PAGE_MASK;
    cfg->host_mask = host;
    cfg->rsvd_leaf = vtd_second_stage_reserved(cap);
    return VTD_FR_NONE;
}

VTDFaultReason vtd_tables_lookup(const VTDMemory *mem, const VTDCapDesc *cap,
                                 uint64_t root, uint8_t bus, uint8_t devfn,
                                 VTDConfig *cfg)
{
    uint64_t context_table, entry[2];
    VTDFaultReason reason;

    *cfg = (VTDConfig) { .pasid = VTD_PASID_NONE };
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

/* Section 9.2: the lower half of a bus has a context table of its own */
static VTDFaultReason vtd_scalable_root(const VTDMemory *mem,
                                        const VTDCapDesc *cap, uint64_t root,
                                        uint16_t sid, uint64_t *context_table)
{
    unsigned half = (sid & 0xff) / VTD_SM_UPPER_DEVFN;
    uint64_t entry[2];

    if (!mem->read(mem->opaque, root + (sid >> 8) * sizeof(entry), entry, 2)) {
        return VTD_FR_SM_ROOT_ACCESS;
    }
    if (!(entry[half] & VTD_SM_ROOT_P)) {
        return VTD_FR_SM_ROOT_NOT_PRESENT;
    }
    if (entry[half] & (VTD_SM_ROOT_RSVD | ~vtd_host_mask(cap))) {
        return VTD_FR_SM_ROOT_RSVD;
    }
    *context_table = entry[half] & VTD_PAGE_MASK;
    return VTD_FR_NONE;
}

/* ECAP.SRS is offered with the second stage alone */
static bool vtd_supervisor_requests(const VTDCapDesc *cap)
{
    return !cap->first_stage;
}

/* Section 9.4; page requests are never offered, so PRE is reserved */
static bool vtd_scalable_context_valid(const VTDCapDesc *cap,
                                       const uint64_t e[4])
{
    uint64_t rsvd = VTD_SM_CTX_RSVD | ~vtd_host_mask(cap) |
                    (cap->device_iotlb ? 0 : VTD_SM_CTX_DTE) |
                    (cap->pasid ? 0 : VTD_SM_CTX_PASIDE);
    uint64_t rsvd_1 = VTD_SM_CTX_1_RSVD |
                      (vtd_supervisor_requests(cap) ? 0
                                                    : VTD_SM_CTX_1_RID_PRIV);

    return !(e[0] & rsvd) && !(e[1] & rsvd_1) && !e[2] && !e[3];
}

/*
 * Section 9.4: what the context entry says of requests with @cfg->pasid, or
 * without one, when it puts RID_PASID there.
 */
static VTDFaultReason vtd_scalable_context(const VTDCapDesc *cap,
                                           const uint64_t e[4],
                                           VTDConfig *cfg)
{
    uint64_t tables = 1ULL << (VTD_GET(e[0], VTD_SM_CTX_PDTS_FIELD) + 7);
    bool with_pasid = cfg->pasid != VTD_PASID_NONE;

    cfg->fpd = e[0] & VTD_SM_CTX_FPD;
    if (!(e[0] & VTD_SM_CTX_P)) {
        return VTD_FR_SM_CONTEXT_NOT_PRESENT;
    }
    if (!vtd_scalable_context_valid(cap, e)) {
        return VTD_FR_SM_CONTEXT_RSVD;
    }
    if (!with_pasid) {
        cfg->pasid = VTD_GET(e[1], VTD_SM_CTX_1_RID_PASID_FIELD);
    } else if (!(e[0] & VTD_SM_CTX_PASIDE)) {
        return VTD_FR_SM_CONTEXT_PASIDE;
    }
    if (VTD_GET(cfg->pasid, VTD_PASID_DIR_FIELD) >= tables) {
        return with_pasid ? VTD_FR_SM_CONTEXT_PDTS
                          : VTD_FR_SM_CONTEXT_RID_PASID;
    }
    return VTD_FR_NONE;
}

/* Section 9.5: the table with the entry for @cfg->pasid */
static VTDFaultReason vtd_pasid_directory(const VTDMemory *mem,
                                          const VTDCapDesc *cap,
                                          uint64_t directory, VTDConfig *cfg,
                                          uint64_t *table)
{
    uint64_t index = VTD_GET(cfg->pasid, VTD_PASID_DIR_FIELD), entry;

    if (!mem->read(mem->opaque, directory + index * sizeof(entry), &entry,
                   1)) {
        return VTD_FR_SM_DIR_ACCESS;
    }
    cfg->fpd |= entry & VTD_PASID_DIR_FPD;
    if (!(entry & VTD_PASID_DIR_P)) {
        return VTD_FR_SM_DIR_NOT_PRESENT;
    }
    if (entry & (VTD_PASID_DIR_RSVD | ~vtd_host_mask(cap))) {
        return VTD_FR_SM_DIR_RSVD;
    }
    *table = entry & VTD_PAGE_MASK;
    return VTD_FR_NONE;
}

/*
 * Section 9.6: the bits that no type of translation leaves to software.  No
 * execute requests, accessed flags of the second stage or extended accessed
 * flags are offered.
 */
static bool vtd_pasid_entry_reserved(const VTDCapDesc *cap,
                                     const uint64_t e[8])
{
    uint64_t rsvd_1 = VTD_PASID_1_RSVD |
                      (cap->snoop_control ? 0 : VTD_PASID_1_PGSNP);
    uint64_t rsvd_2 = VTD_PASID_2_RSVD | VTD_PASID_2_ERE | VTD_PASID_2_SMEP |
                      VTD_PASID_2_EAFE |
                      (vtd_supervisor_requests(cap) ? 0 : VTD_PASID_2_SRE |
                                                          VTD_PASID_2_WPE);

    return (e[0] & (VTD_PASID_RSVD | VTD_PASID_SSEE | VTD_PASID_SSADE)) ||
           (e[1] & rsvd_1) || (e[2] & rsvd_2) ||
           e[3] || e[4] || e[5] || e[6] || e[7];
}

/* Section 9.6: FSPTPTR, and FSPM: 0 is 4 levels, 1 is 5 (CAP.FS5LP) */
static VTDFaultReason vtd_pasid_first_stage(const VTDCapDesc *cap,
                                            const uint64_t e[8],
                                            VTDConfig *cfg)
{
    unsigned levels = 4 + VTD_GET(e[2], VTD_PASID_2_FSPM_FIELD);

    if (e[2] & ~cfg->host_mask) {
        return VTD_FR_SM_PASID_RSVD;
    }
    if (!cap->first_stage ||
        (levels > 4 && vtd_page_shift(levels + 1) > cap->aw_bits)) {
        return VTD_FR_SM_PASID_INVALID;
    }
    cfg->stage = VTD_STAGE_FIRST;
    cfg->levels = levels;
    cfg->root = e[2] & VTD_PAGE_MASK;
    cfg->rsvd_any = e[2] & VTD_PASID_2_NXE ? 0 : VTD_FS_XD;
    cfg->no_huge = !cap->first_stage_1g;
    return VTD_FR_NONE;
}

/* Section 9.6: AW and SSPTPTR */
static VTDFaultReason vtd_pasid_second_stage(const VTDCapDesc *cap,
                                             const uint64_t e[8],
                                             VTDConfig *cfg)
{
    if (e[0] & ~cfg->host_mask) {
        return VTD_FR_SM_PASID_RSVD;
    }
    if (cap->first_stage ||
        !vtd_second_stage_width(cap, VTD_GET(e[0], VTD_PASID_AW_FIELD),
                                cfg)) {
        return VTD_FR_SM_PASID_INVALID;
    }
    cfg->stage = VTD_STAGE_SECOND;
    cfg->root = e[0] & VTD_PAGE_MASK;
    cfg->rsvd_leaf = vtd_second_stage_reserved(cap);
    return VTD_FR_NONE;
}

/* Section 9.6; @privileged: what the request asks for */
static VTDFaultReason vtd_pasid_parse(const VTDCapDesc *cap,
                                      const uint64_t e[8], bool privileged,
                                      VTDConfig *cfg)
{
    cfg->fpd |= e[0] & VTD_PASID_FPD;
    if (!(e[0] & VTD_PASID_P)) {
        return VTD_FR_SM_PASID_NOT_PRESENT;
    }
    if (vtd_pasid_entry_reserved(cap, e)) {
        return VTD_FR_SM_PASID_RSVD;
    }
    if (privileged && !(e[2] & VTD_PASID_2_SRE)) {
        return VTD_FR_SM_PASID_SRE;
    }
    cfg->scalable = true;
    cfg->domain = VTD_GET(e[1], VTD_PASID_1_DID_FIELD);
    cfg->host_mask = vtd_host_mask(cap);
    switch (VTD_GET(e[0], VTD_PASID_PGTT_FIELD)) {
    case VTD_PGTT_FIRST:
        return vtd_pasid_first_stage(cap, e, cfg);
    case VTD_PGTT_SECOND:
        return vtd_pasid_second_stage(cap, e, cfg);
    case VTD_PGTT_PASS_THROUGH:
        cfg->stage = VTD_STAGE_PASS_THROUGH;
        return cap->pass_through ? VTD_FR_NONE : VTD_FR_SM_PASID_INVALID;
    default:
        return VTD_FR_SM_PASID_INVALID;
    }
}

/* The PASID entry that a context entry leads to */
static VTDFaultReason vtd_scalable_pasid(const VTDMemory *mem,
                                         const VTDCapDesc *cap,
                                         const uint64_t context[4],
                                         bool privileged, VTDConfig *cfg)
{
    uint64_t table, e[8];
    VTDFaultReason reason = vtd_pasid_directory(mem, cap,
                                                context[0] & VTD_PAGE_MASK,
                                                cfg, &table);

    if (reason != VTD_FR_NONE) {
        return reason;
    }
    table += VTD_GET(cfg->pasid, VTD_PASID_TABLE_FIELD) * sizeof(e);
    if (!mem->read(mem->opaque, table, e, ARRAY_SIZE(e))) {
        return VTD_FR_SM_PASID_ACCESS;
    }
    return vtd_pasid_parse(cap, e, privileged, cfg);
}

VTDFaultReason vtd_scalable_lookup(const VTDMemory *mem,
                                   const VTDCapDesc *cap, uint64_t root,
                                   uint16_t sid, uint32_t pasid,
                                   VTDConfig *cfg)
{
    uint64_t context_table, context[4];
    VTDFaultReason reason;
    bool privileged;

    *cfg = (VTDConfig) { .pasid = pasid };
    reason = vtd_scalable_root(mem, cap, root, sid, &context_table);
    if (reason != VTD_FR_NONE) {
        return reason;
    }
    if (!mem->read(mem->opaque, context_table + sid % VTD_SM_UPPER_DEVFN *
                   sizeof(context), context, ARRAY_SIZE(context))) {
        return VTD_FR_SM_CONTEXT_ACCESS;
    }
    reason = vtd_scalable_context(cap, context, cfg);
    if (reason != VTD_FR_NONE) {
        return reason;
    }
    /* Section 9.4: RID_PRIV is for requests without PASID */
    privileged = pasid == VTD_PASID_NONE &&
                 (context[1] & VTD_SM_CTX_1_RID_PRIV);
    return vtd_scalable_pasid(mem, cap, context, privileged, cfg);
}
