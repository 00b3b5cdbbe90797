/*
 * Intel VT-d: migration
 *
 * Section "iommu-intel" has the layout that QEMU's streams have always had.
 * Nothing of it is live state: it is put together from the unit before it is
 * saved, and taken apart after it was loaded.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "migration/vmstate.h"
#include "intel_iommu_internal.h"

/* VTDStream.ttm while no subsection has been loaded */
#define VTD_TTM_AS_RTADDR       UINT8_MAX

static uint64_t vtd_stream_rtaddr_ttm(const VTDStream *s)
{
    return VTD_GET(ldq_le_p(s->csr + DMAR_RTADDR_REG), VTD_RTADDR_TTM_FIELD);
}

/*
 * What shadows of the tables still have to catch up with is work for the
 * destination, whose own shadows begin with nothing; software sees the
 * commands done by the time it runs there.
 */
static void vtd_save_registers(VTDUnit *unit, uint8_t *csr)
{
    memcpy(csr, unit->csr, sizeof(unit->csr));
    stq_le_p(csr + DMAR_IQH_REG, vtd_reg_get(unit, DMAR_IQH_REG));
    stl_le_p(csr + DMAR_GSTS_REG,
             vtd_reg_get(unit, DMAR_GSTS_REG) | unit->late_status);
    stq_le_p(csr + DMAR_CCMD_REG,
             vtd_reg_get(unit, DMAR_CCMD_REG) & ~VTD_CCMD_ICC);
    stq_le_p(csr + DMAR_IOTLB_REG,
             vtd_reg_get(unit, DMAR_IOTLB_REG) & ~VTD_IOTLB_IVT);
}

/*
 * Memory has been migrated already, so nothing is finished here that would
 * write to it: see vtd_unit_bh().
 */
static int vtd_pre_save(void *opaque)
{
    IntelIOMMUState *iommu = opaque;
    VTDUnit *unit = iommu->unit;
    VTDStream *s = &iommu->stream;
    uint64_t dmar, ir;

    dmar = qatomic_read_u64(&unit->dmar);
    ir = qatomic_read_u64(&unit->ir);
    *s = (VTDStream) {
        .root = dmar & VTD_PAGE_MASK,
        .intr_root = ir & VTD_PAGE_MASK,
        .iq = unit->queue.base,
        .intr_size = ir ? 2U << VTD_GET(ir, VTD_IRTA_S_FIELD) : 0,
        .iq_head = unit->queue.head / unit->queue.width,
        .iq_tail = vtd_reg_get(unit, DMAR_IQT_REG) / unit->queue.width,
        .iq_size = unit->queue.size / unit->queue.width,
        .iq_last_desc_type = unit->queue.last_type,
        .dmar_enabled = dmar & VTD_DMAR_ENABLED,
        .qi_enabled = vtd_reg_get(unit, DMAR_GSTS_REG) & VTD_GSTS_QIES,
        .intr_enabled = ir & VTD_IR_ENABLED,
        .intr_eime = ir & VTD_IRTA_EIME,
        .ttm = VTD_GET(dmar, VTD_RTADDR_TTM_FIELD),
        .frcd_words = s->frcd_words,
        .frcd = s->frcd,
    };
    vtd_save_registers(unit, s->csr);
    vtd_fault_save(&unit->fault, s);
    return 0;
}

static int vtd_pre_load(void *opaque)
{
    IntelIOMMUState *iommu = opaque;

    iommu->stream.ttm = VTD_TTM_AS_RTADDR;
    memset(iommu->stream.frcd, 0, iommu->stream.frcd_words * sizeof(uint64_t));
    return 0;
}

/* What the unit offers is decided here, not by the machine it came from */
static void vtd_load_capabilities(VTDUnit *unit)
{
    uint64_t cap = vtd_cap_value(&unit->cap);
    uint64_t ecap = vtd_ecap_value(&unit->cap);

    if (vtd_reg_get(unit, DMAR_CAP_REG) != cap ||
        vtd_reg_get(unit, DMAR_ECAP_REG) != ecap) {
        warn_report("intel-iommu: the source has capabilities 0x%" PRIx64
                    "/0x%" PRIx64 ", this unit has 0x%" PRIx64 "/0x%" PRIx64,
                    vtd_reg_get(unit, DMAR_CAP_REG),
                    vtd_reg_get(unit, DMAR_ECAP_REG), cap, ecap);
    }
    vtd_reg_set(unit, DMAR_CAP_REG, cap);
    vtd_reg_set(unit, DMAR_ECAP_REG, ecap);
}

static void vtd_load_queue(VTDUnit *unit, const VTDStream *s)
{
    uint64_t iqa = vtd_reg_get(unit, DMAR_IQA_REG);
    VTDQueue *q = &unit->queue;

    q->width = iqa & VTD_IQA_DW ? 32 : 16;
    q->base = s->iq & VTD_PAGE_MASK;
    q->size = VTD_PAGE_SIZE << VTD_GET(iqa, VTD_IQA_QS_FIELD);
    q->head = (s->iq_head * q->width) & (q->size - 1);
    q->last_type = s->iq_last_desc_type;
    q->waits = s->qi_enabled && q->head != vtd_reg_get(unit, DMAR_IQT_REG);
}

/* The number of entries is 2^(S+1): find S again */
static uint64_t vtd_load_irta(const VTDStream *s)
{
    return (s->intr_root & VTD_PAGE_MASK) |
           VTD_PUT(VTD_IRTA_S_FIELD,
                   s->intr_size > 2 ? ctz32(s->intr_size) - 1 : 0) |
           (s->intr_eime ? VTD_IRTA_EIME : 0);
}

/* What SRTP latched of RTADDR */
static uint64_t vtd_load_rtaddr(const VTDStream *s)
{
    uint64_t ttm = s->ttm == VTD_TTM_AS_RTADDR ? vtd_stream_rtaddr_ttm(s)
                                               : s->ttm;

    return (s->root & VTD_PAGE_MASK) | VTD_PUT(VTD_RTADDR_TTM_FIELD, ttm);
}

static int vtd_post_load(void *opaque, int version_id)
{
    IntelIOMMUState *iommu = opaque;
    VTDUnit *unit = iommu->unit;
    const VTDStream *s = &iommu->stream;
    uint32_t status = ldl_le_p(s->csr + DMAR_GSTS_REG);

    memcpy(unit->csr, s->csr, sizeof(unit->csr));
    vtd_load_capabilities(unit);
    vtd_fault_load(&unit->fault, s);
    vtd_load_queue(unit, s);
    qatomic_set_u64(&unit->ir, vtd_load_irta(s) |
                    (s->intr_enabled ? VTD_IR_ENABLED : 0) |
                    (status & VTD_GSTS_CFIS ? VTD_IR_COMPAT : 0));
    qatomic_set_u64(&unit->dmar, vtd_load_rtaddr(s) |
                    (s->dmar_enabled ? VTD_DMAR_ENABLED : 0));
    vtd_flush_everything(unit);
    vtd_iec_flush_global(unit);
    vtd_spaces_update(unit);
    return 0;       /* what was pending goes on when the machine runs */
}

/* Named as in every stream before, although they live one level deeper */
#define VTD_STREAM(_field, _info, _type) {                              \
    .name = stringify(_field),                                          \
    .info = &(_info),                                                   \
    .size = sizeof(_type),                                              \
    .flags = VMS_SINGLE,                                                \
    .offset = vmstate_offset_value(IntelIOMMUState, stream._field, _type), \
}

static bool vtd_ttm_needed(void *opaque)
{
    IntelIOMMUState *iommu = opaque;

    return iommu->stream.ttm != vtd_stream_rtaddr_ttm(&iommu->stream);
}

static const VMStateDescription vtd_vmstate_ttm = {
    .name = "iommu-intel/translation-table-mode",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = vtd_ttm_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(stream.ttm, IntelIOMMUState),
        VMSTATE_END_OF_LIST()
    }
};

static bool vtd_fault_records_needed(void *opaque)
{
    IntelIOMMUState *iommu = opaque;

    return iommu->fault_records > 1;
}

static const VMStateDescription vtd_vmstate_fault_records = {
    .name = "iommu-intel/fault-records",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = vtd_fault_records_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32_EQUAL(stream.frcd_words, IntelIOMMUState,
                             "fault-records of source and destination differ"),
        VMSTATE_VARRAY_UINT32(stream.frcd, IntelIOMMUState, stream.frcd_words,
                              0, vmstate_info_uint64, uint64_t),
        VMSTATE_END_OF_LIST()
    }
};

const VMStateDescription vtd_vmstate = {
    .name = "iommu-intel",
    .version_id = 1,
    .minimum_version_id = 1,
    .priority = MIG_PRI_IOMMU,
    .pre_save = vtd_pre_save,
    .pre_load = vtd_pre_load,
    .post_load = vtd_post_load,
    .fields = (const VMStateField[]) {
        VTD_STREAM(root, vmstate_info_uint64, uint64_t),
        VTD_STREAM(intr_root, vmstate_info_uint64, uint64_t),
        VTD_STREAM(iq, vmstate_info_uint64, uint64_t),
        VTD_STREAM(intr_size, vmstate_info_uint32, uint32_t),
        VTD_STREAM(iq_head, vmstate_info_uint16, uint16_t),
        VTD_STREAM(iq_tail, vmstate_info_uint16, uint16_t),
        VTD_STREAM(iq_size, vmstate_info_uint16, uint16_t),
        VTD_STREAM(next_frcd_reg, vmstate_info_uint16, uint16_t),
        {
            .name = "csr",
            .info = &vmstate_info_uint8,
            .size = sizeof(uint8_t),
            .num = DMAR_REG_SIZE,
            .flags = VMS_ARRAY,
            .offset = vmstate_offset_array(IntelIOMMUState, stream.csr,
                                           uint8_t, DMAR_REG_SIZE),
        },
        VTD_STREAM(iq_last_desc_type, vmstate_info_uint8, uint8_t),
        VMSTATE_UNUSED(1),
        VTD_STREAM(dmar_enabled, vmstate_info_bool, bool),
        VTD_STREAM(qi_enabled, vmstate_info_bool, bool),
        VTD_STREAM(intr_enabled, vmstate_info_bool, bool),
        VTD_STREAM(intr_eime, vmstate_info_bool, bool),
        VMSTATE_END_OF_LIST()
    },
    .subsections = (const VMStateDescription * const []) {
        &vtd_vmstate_ttm,
        &vtd_vmstate_fault_records,
        NULL
    }
};
