/*
 * Intel VT-d: the register file
 *
 * One table says what software can do to each register (section 11.4).  An
 * access of any size from 1 to 8 bytes, aligned or not, is taken apart into
 * the bytes of the registers that it touches: bytes that are not written
 * keep their value, write-one-to-clear and command bits act only where a 1
 * was written.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/log.h"
#include "intel_iommu_internal.h"
#include "trace.h"

typedef struct VTDReg VTDReg;

/**
 * VTDReg: one register
 * @offset, @size: where it is; 4 or 8 bytes
 * @wmask: bits that software can write and read back
 * @needs: if not NULL, @wmask holds only if the unit offers this
 * @read: in place of the stored value
 * @written: after the store; @value has the bits that were written, 0
 *           elsewhere, and @bytes tells which were
 */
struct VTDReg {
    uint16_t offset;
    uint8_t size;
    uint64_t wmask;
    bool (*needs)(const VTDCapDesc *cap);
    uint64_t (*read)(VTDUnit *unit, unsigned offset);
    void (*written)(VTDUnit *unit, unsigned offset, uint64_t value,
                    uint64_t bytes);
};

uint64_t vtd_cap_value(const VTDCapDesc *cap)
{
    uint64_t sagaw = VTD_CAP_SAGAW_39bit;

    if (cap->aw_bits >= VTD_HOST_AW_48BIT) {
        sagaw |= VTD_CAP_SAGAW_48bit;
    }
    if (cap->aw_bits >= VTD_HOST_AW_57BIT) {
        sagaw |= VTD_CAP_SAGAW_57bit |
                 (cap->first_stage ? VTD_CAP_FS5LP : 0);
    }
    return VTD_CAP_ND | VTD_CAP_FRO | VTD_CAP_SLLPS | VTD_CAP_PSI |
           VTD_CAP_MAMV |
           VTD_PUT(VTD_CAP_NFR_FIELD, cap->fault_records - 1) |
           VTD_PUT(VTD_CAP_MGAW_FIELD, cap->aw_bits - 1) |
           (cap->dma_translation ? sagaw : 0) |
           (cap->dma_drain ? VTD_CAP_DWD | VTD_CAP_DRD : 0) |
           (cap->caching_mode ? VTD_CAP_CM : 0) |
           (cap->first_stage && cap->first_stage_1g ? VTD_CAP_FS1GP : 0);
}

uint64_t vtd_ecap_value(const VTDCapDesc *cap)
{
    uint64_t scalable = VTD_ECAP_SMTS |
        (cap->first_stage ? VTD_ECAP_FLTS : VTD_ECAP_SSTS | VTD_ECAP_SRS) |
        (cap->pasid ? VTD_ECAP_PASID : 0);

    return VTD_ECAP_QI | VTD_ECAP_IRO |
           (cap->device_iotlb ? VTD_ECAP_DT : 0) |
           (cap->interrupt_remapping ? VTD_ECAP_IR | VTD_ECAP_MHMV : 0) |
           (cap->eim ? VTD_ECAP_EIM : 0) |
           (cap->pass_through ? VTD_ECAP_PT : 0) |
           (cap->snoop_control ? VTD_ECAP_SC : 0) |
           (cap->scalable ? scalable : 0);
}

void vtd_status_update(VTDUnit *unit, uint32_t clear, uint32_t set)
{
    uint32_t status = vtd_reg_get(unit, DMAR_GSTS_REG);

    vtd_reg_set(unit, DMAR_GSTS_REG, (status & ~clear) | set);
}

/*
 * Section 11.4.4.2: the status tells that the command has been carried out,
 * for those who shadow the tables as well.
 */
static void vtd_command_done(VTDUnit *unit, uint32_t status)
{
    if (vtd_shadows_run(unit)) {
        vtd_status_update(unit, 0, status);
    } else {
        vtd_status_update(unit, status, 0);
        unit->late_status |= status;
    }
}

/* Section 11.4.4.1: SRTP latches RTADDR for the translations to come */
static void vtd_set_root_table(VTDUnit *unit)
{
    uint64_t root = vtd_reg_get(unit, DMAR_RTADDR_REG);
    uint64_t enabled = qatomic_read_u64(&unit->dmar) & VTD_DMAR_ENABLED;
    unsigned ttm = VTD_GET(root, VTD_RTADDR_TTM_FIELD);

    trace_vtd_reg_dmar_root(root, ttm == VTD_TTM_SCALABLE);
    if (ttm != VTD_TTM_LEGACY &&
        !(ttm == VTD_TTM_SCALABLE && unit->cap.scalable)) {
        qemu_log_mask(LOG_GUEST_ERROR, "intel-iommu: tables of mode %u are "
                      "not offered, DMA will be blocked\n", ttm);
    }
    qatomic_set_u64(&unit->dmar, root | enabled);
    vtd_flush_everything(unit);
    if (enabled) {
        vtd_spaces_update(unit);
    }
    vtd_command_done(unit, VTD_GSTS_RTPS);
}

/* Section 11.4.4.1: SIRTP latches IRTA for the interrupts to come */
static void vtd_set_interrupt_table(VTDUnit *unit)
{
    uint64_t irta = vtd_reg_get(unit, DMAR_IRTA_REG);
    uint64_t keep = qatomic_read_u64(&unit->ir) &
                    (VTD_IR_ENABLED | VTD_IR_COMPAT);

    trace_vtd_reg_ir_root(irta & VTD_PAGE_MASK,
                          2U << VTD_GET(irta, VTD_IRTA_S_FIELD));
    qatomic_set_u64(&unit->ir, irta | keep);
    vtd_status_update(unit, 0, VTD_GSTS_IRTPS);
    vtd_iec_flush_global(unit);
}

static void vtd_set_translation(VTDUnit *unit, bool enable)
{
    uint64_t dmar = qatomic_read_u64(&unit->dmar) & ~VTD_DMAR_ENABLED;

    trace_vtd_dmar_enable(enable);
    if (enable && !unit->cap.dma_translation) {
        qemu_log_mask(LOG_GUEST_ERROR, "intel-iommu: DMA remapping cannot be "
                      "enabled: the unit does not offer it\n");
        return;
    }
    qatomic_set_u64(&unit->dmar, dmar | (enable ? VTD_DMAR_ENABLED : 0));
    vtd_flush_everything(unit);
    vtd_spaces_update(unit);
    if (enable) {
        vtd_command_done(unit, VTD_GSTS_TES);
    } else {
        unit->late_status &= ~VTD_GSTS_TES;
        vtd_shadows_run(unit);
        vtd_status_update(unit, VTD_GSTS_TES, 0);
    }
}

static void vtd_set_ir_flag(VTDUnit *unit, uint64_t flag, uint32_t status,
                            bool on)
{
    uint64_t ir = qatomic_read_u64(&unit->ir) & ~flag;

    qatomic_set_u64(&unit->ir, ir | (on ? flag : 0));
    vtd_status_update(unit, status, on ? status : 0);
    vtd_iec_flush_global(unit);
}

static void vtd_set_interrupt_remapping(VTDUnit *unit, bool enable)
{
    trace_vtd_ir_enable(enable);
    vtd_set_ir_flag(unit, VTD_IR_ENABLED, VTD_GSTS_IRES, enable);
    vtd_spaces_update(unit);
}

/*
 * Section 11.4.4.1: TE, QIE, IRE and CFI are states, whose present value
 * software has to write back, once they were asked for even if the status
 * is late; SRTP, SIRTP and WBF are done once for each 1.
 * Writes are never posted here, so WBF has nothing to flush.
 */
static void vtd_gcmd_written(VTDUnit *unit, unsigned offset, uint64_t value,
                             uint64_t bytes)
{
    uint32_t status = vtd_reg_get(unit, DMAR_GSTS_REG);
    uint32_t change = ((status | unit->late_status) ^ value) & bytes;
    bool ir = unit->cap.interrupt_remapping;

    trace_vtd_reg_write_gcmd(status, value);
    if (value & VTD_GCMD_SRTP) {
        vtd_set_root_table(unit);
    }
    if (ir && (value & VTD_GCMD_SIRTP)) {
        vtd_set_interrupt_table(unit);
    }
    if (change & VTD_GCMD_QIE) {
        vtd_queue_enable(unit, value & VTD_GCMD_QIE);
    }
    if (change & VTD_GCMD_TE) {
        vtd_set_translation(unit, value & VTD_GCMD_TE);
    }
    if (ir && (change & VTD_GCMD_CFI)) {
        vtd_set_ir_flag(unit, VTD_IR_COMPAT, VTD_GSTS_CFIS,
                        value & VTD_GCMD_CFI);
    }
    if (ir && (change & VTD_GCMD_IRE)) {
        vtd_set_interrupt_remapping(unit, value & VTD_GCMD_IRE);
    }
}

static void vtd_ccmd_written(VTDUnit *unit, unsigned offset, uint64_t value,
                             uint64_t bytes)
{
    if (value & VTD_CCMD_ICC) {
        vtd_command_context(unit);
    }
}

static void vtd_iotlb_written(VTDUnit *unit, unsigned offset, uint64_t value,
                              uint64_t bytes)
{
    if (value & VTD_IOTLB_IVT) {
        vtd_command_iotlb(unit);
    }
}

/* Clearing IQE lets the queue go on; unmasking sends what is pending */
static void vtd_fault_written(VTDUnit *unit, unsigned offset, uint64_t value,
                              uint64_t bytes)
{
    vtd_fault_write(unit, offset, value, bytes);
    vtd_fault_deliver(unit);
    if (offset == DMAR_FSTS_REG && (value & VTD_FSTS_IQE)) {
        vtd_reg_set(unit, DMAR_IQERCD_REG, VTD_IQEI_NONE);
        vtd_queue_run(unit);
    }
}

static uint64_t vtd_iqh_read(VTDUnit *unit, unsigned offset)
{
    return unit->queue.head;
}

static void vtd_iqt_written(VTDUnit *unit, unsigned offset, uint64_t value,
                            uint64_t bytes)
{
    vtd_queue_run(unit);
}

static void vtd_ics_written(VTDUnit *unit, unsigned offset, uint64_t value,
                            uint64_t bytes)
{
    if (value & VTD_ICS_IWC) {
        vtd_completion_clear(unit);
    }
}

static void vtd_iectl_written(VTDUnit *unit, unsigned offset, uint64_t value,
                              uint64_t bytes)
{
    trace_vtd_reg_write_iectl(value);
    vtd_completion_control(unit);
}

/* Write-only registers read as zero */
static uint64_t vtd_read_zero(VTDUnit *unit, unsigned offset)
{
    return 0;
}

static bool vtd_has_eim(const VTDCapDesc *cap)
{
    return cap->eim;
}

static bool vtd_has_ir(const VTDCapDesc *cap)
{
    return cap->interrupt_remapping;
}

static const VTDReg vtd_regs[] = {
    { DMAR_VER_REG, 4 },
    { DMAR_CAP_REG, 8 },
    { DMAR_ECAP_REG, 8 },
    { DMAR_GCMD_REG, 4, 0, NULL, vtd_read_zero, vtd_gcmd_written },
    { DMAR_GSTS_REG, 4 },
    { DMAR_RTADDR_REG, 8, ~0x3ffULL },
    { DMAR_CCMD_REG, 8, 0x60000003ffffffffULL, .written = vtd_ccmd_written },
    { DMAR_FSTS_REG, 4, 0, NULL, vtd_fault_read, vtd_fault_written },
    { DMAR_FECTL_REG, 4, 0, NULL, vtd_fault_read, vtd_fault_written },
    { DMAR_FEDATA_REG, 4, 0xffff },
    { DMAR_FEADDR_REG, 4, ~3U },
    { DMAR_FEUADDR_REG, 4, ~0U, vtd_has_eim },
    { DMAR_IQH_REG, 8, 0, NULL, vtd_iqh_read },
    { DMAR_IQT_REG, 8, VTD_IQ_OFFSET_MASK, .written = vtd_iqt_written },
    { DMAR_IQA_REG, 8, VTD_PAGE_MASK | VTD_IQA_DW | 7 },
    { DMAR_ICS_REG, 4, .written = vtd_ics_written },
    { DMAR_IECTL_REG, 4, VTD_IECTL_IM, .written = vtd_iectl_written },
    { DMAR_IEDATA_REG, 4, ~0U },
    { DMAR_IEADDR_REG, 4, ~3U },
    { DMAR_IEUADDR_REG, 4, ~0U, vtd_has_eim },
    { DMAR_IQERCD_REG, 8 },
    { DMAR_IRTA_REG, 8, VTD_PAGE_MASK | VTD_IRTA_EIME | 15, vtd_has_ir },
    { DMAR_IVA_REG, 8, VTD_PAGE_MASK | 0x7f, NULL, vtd_read_zero },
    { DMAR_IOTLB_REG, 8, VTD_IOTLB_WMASK & ~VTD_IOTLB_IVT,
      .written = vtd_iotlb_written },
};

/* The registers of section 11.4.7.7, two quadwords each, follow the table */
static const VTDReg vtd_frcd_reg = {
    DMAR_FRCD_REG, 8, 0, NULL, vtd_fault_read, vtd_fault_written
};

/* The register that has a byte at @offset; its place is put into @at */
static const VTDReg *vtd_reg_find(VTDUnit *unit, unsigned offset,
                                  unsigned *at)
{
    if (offset >= DMAR_FRCD_REG) {
        /* An unaligned access may reach beyond the last register */
        *at = offset & ~7U;
        return offset < DMAR_FRCD_REG + 16 * unit->cap.fault_records ?
               &vtd_frcd_reg : NULL;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(vtd_regs); i++) {
        const VTDReg *reg = &vtd_regs[i];

        if (offset - reg->offset < reg->size) {
            *at = reg->offset;
            return reg;
        }
    }
    return NULL;
}

/* Bits that depend on what the unit offers are reserved where it does not */
static uint64_t vtd_reg_wmask(VTDUnit *unit, const VTDReg *reg)
{
    uint64_t wmask = reg->wmask;

    if (reg->needs && !reg->needs(&unit->cap)) {
        return 0;
    }
    if (reg->offset == DMAR_IRTA_REG && !unit->cap.eim) {
        wmask &= ~VTD_IRTA_EIME;
    }
    if (reg->offset == DMAR_IQA_REG && !unit->cap.scalable) {
        wmask &= ~VTD_IQA_DW;
    }
    return wmask;
}

uint64_t vtd_reg_get(VTDUnit *unit, unsigned offset)
{
    unsigned at;
    const VTDReg *reg = vtd_reg_find(unit, offset, &at);

    if (reg->read) {
        return reg->read(unit, at);
    }
    return ldn_le_p(unit->csr + at, reg->size);
}

void vtd_reg_set(VTDUnit *unit, unsigned offset, uint64_t value)
{
    unsigned at;
    const VTDReg *reg = vtd_reg_find(unit, offset, &at);

    stn_le_p(unit->csr + at, reg->size, value);
}

static void vtd_reg_write(VTDUnit *unit, const VTDReg *reg, unsigned at,
                          uint64_t value, uint64_t bytes)
{
    uint64_t wmask = vtd_reg_wmask(unit, reg) & bytes;

    if (wmask) {
        uint64_t old = ldn_le_p(unit->csr + at, reg->size);

        stn_le_p(unit->csr + at, reg->size, (old & ~wmask) | (value & wmask));
    }
    if (reg->written) {
        reg->written(unit, at, value & bytes, bytes);
    }
}

static uint64_t vtd_mmio_read(void *opaque, hwaddr addr, unsigned size)
{
    VTDUnit *unit = opaque;
    uint64_t value = 0;
    unsigned done = 0;

    trace_vtd_reg_read(addr, size);
    vtd_unit_settle(unit);
    while (done < size) {
        unsigned at, shift, n = 1;
        const VTDReg *reg = vtd_reg_find(unit, addr + done, &at);

        if (reg) {
            shift = addr + done - at;
            n = MIN(reg->size - shift, size - done);
            value = deposit64(value, 8 * done, 8 * n,
                              vtd_reg_get(unit, at) >> (8 * shift));
        }
        done += n;
    }
    return value;
}

static void vtd_mmio_write(void *opaque, hwaddr addr, uint64_t value,
                           unsigned size)
{
    VTDUnit *unit = opaque;
    unsigned done = 0;

    trace_vtd_reg_write(addr, size, value);
    unit->left = unit->limits.go;
    while (done < size) {
        unsigned at, shift, n = 1;
        const VTDReg *reg = vtd_reg_find(unit, addr + done, &at);

        if (reg) {
            shift = addr + done - at;
            n = MIN(reg->size - shift, size - done);
            vtd_reg_write(unit, reg, at,
                          extract64(value, 8 * done, 8 * n) << (8 * shift),
                          MAKE_64BIT_MASK(8 * shift, 8 * n));
        }
        done += n;
    }
    vtd_unit_settle(unit);
}

static const MemoryRegionOps vtd_mmio_ops = {
    .read = vtd_mmio_read,
    .write = vtd_mmio_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 1, .max_access_size = 8, .unaligned = true },
    .impl = { .min_access_size = 1, .max_access_size = 8, .unaligned = true },
};

void vtd_regs_init(VTDUnit *unit)
{
    memory_region_init_io(&unit->mmio, OBJECT(unit->owner), &vtd_mmio_ops,
                          unit, "intel_iommu",
                          DMAR_FRCD_REG + 16 * unit->cap.fault_records);
}

void vtd_regs_reset(VTDUnit *unit)
{
    memset(unit->csr, 0, sizeof(unit->csr));
    vtd_reg_set(unit, DMAR_VER_REG, VTD_VER_1_0);
    vtd_reg_set(unit, DMAR_CAP_REG, vtd_cap_value(&unit->cap));
    vtd_reg_set(unit, DMAR_ECAP_REG, vtd_ecap_value(&unit->cap));
    vtd_reg_set(unit, DMAR_IECTL_REG, VTD_IECTL_IM);
}
