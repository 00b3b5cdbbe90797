/*
 * Intel VT-d: interrupt remapping (section 5)
 *
 * An interrupt request is a doubleword written to 0xfeexxxxx.  In the
 * remappable format it names an entry of the interrupt remapping table,
 * which says what the request becomes.  The IOAPIC's requests come the same
 * way, from the address space of its own source-id.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/log.h"
#include "hw/i386/apic_internal.h"
#include "intel_iommu_internal.h"
#include "trace.h"

void vtd_interrupts_init(VTDUnit *unit)
{
    qemu_mutex_init(&unit->iec.lock);
    memset(unit->iec.index, -1, sizeof(unit->iec.index));
}

void vtd_iec_flush_global(VTDUnit *unit)
{
    WITH_QEMU_LOCK_GUARD(&unit->iec.lock) {
        unit->iec.generation++;
        memset(unit->iec.index, -1, sizeof(unit->iec.index));
    }
    unit->iec_changed(unit->owner, true, 0, 0);
}

/* Section 6.5.2.7: @mask low bits of @index are ignored */
void vtd_iec_flush(VTDUnit *unit, uint16_t index, unsigned mask)
{
    uint16_t ignore = (1U << mask) - 1;

    WITH_QEMU_LOCK_GUARD(&unit->iec.lock) {
        unit->iec.generation++;
        for (unsigned i = 0; i < VTD_IEC_SIZE; i++) {
            int32_t cached = unit->iec.index[i];

            if (cached >= 0 && ((cached ^ index) & ~ignore & 0xffff) == 0) {
                unit->iec.index[i] = -1;
            }
        }
    }
    unit->iec_changed(unit->owner, false, index, mask);
}

static unsigned vtd_iec_generation(VTDInterruptCache *iec)
{
    QEMU_LOCK_GUARD(&iec->lock);
    return iec->generation;
}

static bool vtd_iec_lookup(VTDInterruptCache *iec, uint16_t index,
                           VTDIRTE *irte)
{
    unsigned place = index % VTD_IEC_SIZE;

    QEMU_LOCK_GUARD(&iec->lock);
    *irte = iec->entry[place];
    return iec->index[place] == index;
}

static void vtd_iec_fill(VTDInterruptCache *iec, uint16_t index,
                         const VTDIRTE *irte, unsigned generation)
{
    unsigned place = index % VTD_IEC_SIZE;

    QEMU_LOCK_GUARD(&iec->lock);
    if (iec->generation == generation) {
        iec->index[place] = index;
        iec->entry[place] = *irte;
    }
}

/**
 * VTDInterruptState: what a request is judged by
 * @generation: of the cache, read before @ir: what is found in a table that
 *              has been replaced since is not cached
 * @ir: VTDUnit.ir
 * @sid: who sent it, or VTD_SID_UNKNOWN
 */
typedef struct VTDInterruptState {
    unsigned generation;
    uint64_t ir;
    int sid;
} VTDInterruptState;

/*
 * Section 9.9, SVT 01b: SQ chooses which of the function number's bits are
 * ignored, for devices that send with several of their functions' ids.
 */
static bool vtd_sid_matches(uint16_t sid, const VTDIRTE *irte)
{
    static const uint16_t ignored[] = { 0, 4, 6, 7 };
    uint16_t want = VTD_GET(irte->hi, VTD_IRTE_HI_SID_FIELD);
    unsigned sq = VTD_GET(irte->hi, VTD_IRTE_HI_SQ_FIELD);

    return ((sid ^ want) & ~ignored[sq]) == 0;
}

static bool vtd_source_valid(int sid, const VTDIRTE *irte)
{
    uint16_t want = VTD_GET(irte->hi, VTD_IRTE_HI_SID_FIELD);
    uint8_t bus = sid >> 8;

    if (sid == VTD_SID_UNKNOWN) {
        return true;
    }
    switch (VTD_GET(irte->hi, VTD_IRTE_HI_SVT_FIELD)) {
    case VTD_SVT_SID:
        return vtd_sid_matches(sid, irte);
    case VTD_SVT_BUS:
        return bus >= want >> 8 && bus <= (want & 0xff);
    default:
        return true;
    }
}

/*
 * Section 9.9: reserved fields; those of the destination depend on EIME.
 * Posted interrupts are not offered, so IM is reserved too.
 */
static bool vtd_irte_reserved(const VTDIRTE *irte, bool eime)
{
    return (irte->lo & (eime ? VTD_IRTE_RSVD : VTD_IRTE_RSVD_XAPIC)) ||
           (irte->hi & VTD_IRTE_HI_RSVD) ||
           VTD_GET(irte->hi, VTD_IRTE_HI_SVT_FIELD) > VTD_SVT_BUS;
}

/* Section 5.1.4, with the conditions in the order of section 5.1.4.1 */
static VTDFaultReason vtd_irte_check(const VTDIRTE *irte, bool eime, int sid)
{
    if (!(irte->lo & VTD_IRTE_P)) {
        return VTD_FR_IR_NOT_PRESENT;
    }
    if (vtd_irte_reserved(irte, eime)) {
        return VTD_FR_IR_RSVD;
    }
    if (!vtd_source_valid(sid, irte)) {
        return VTD_FR_IR_SOURCE;
    }
    return VTD_FR_NONE;
}

/*
 * The entry at @index, if @sid may use it.  Section 6.1: entries that cause
 * a fault are not cached, so that software can mend them without a flush.
 */
static VTDFaultReason vtd_irte_get(VTDUnit *unit, const VTDInterruptState *s,
                                   uint16_t index, VTDIRTE *irte)
{
    bool eime = s->ir & VTD_IRTA_EIME;
    VTDFaultReason reason;

    if (vtd_iec_lookup(&unit->iec, index, irte)) {
        return vtd_irte_check(irte, eime, s->sid);
    }
    *irte = (VTDIRTE) {};
    if (!unit->memory.read(unit->memory.opaque,
                           (s->ir & VTD_PAGE_MASK) + sizeof(*irte) * index,
                           &irte->lo, 2)) {
        return VTD_FR_IR_ACCESS;
    }
    trace_vtd_ir_irte_get(index, irte->lo, irte->hi);
    reason = vtd_irte_check(irte, eime, s->sid);
    if (reason == VTD_FR_NONE) {
        vtd_iec_fill(&unit->iec, index, irte, s->generation);
    }
    return reason;
}

/* Section 5.1.5.2: the request that the IRTE asks for */
static void vtd_irte_message(const VTDIRTE *irte, bool eime, uint64_t address,
                             MSIMessage *out)
{
    X86IOMMUIrq irq = {
        .trigger_mode = !!(irte->lo & VTD_IRTE_TM),
        .vector = VTD_GET(irte->lo, VTD_IRTE_V_FIELD),
        .delivery_mode = VTD_GET(irte->lo, VTD_IRTE_DLM_FIELD),
        .dest_mode = !!(irte->lo & VTD_IRTE_DM),
        .redir_hint = !!(irte->lo & VTD_IRTE_RH),
        .dest = eime ? VTD_GET(irte->lo, VTD_IRTE_DST_FIELD)
                     : VTD_GET(irte->lo, VTD_IRTE_DST_XAPIC_FIELD),
        .msi_addr_last_bits = address & 3,
    };

    x86_iommu_irq_to_msi_message(&irq, out);
}

/* Section 5.1.3: the handle, and the subhandle if SHV asks for it */
static VTDFaultReason vtd_interrupt_index(const MSIMessage *msg,
                                          uint32_t *index)
{
    *index = VTD_GET(msg->address, VTD_IR_ADDR_HANDLE_FIELD) |
             VTD_GET(msg->address, VTD_IR_ADDR_HANDLE15_FIELD) << 15;
    if (msg->address & VTD_IR_ADDR_SHV) {
        if (msg->data & VTD_IR_DATA_RSVD) {
            return VTD_FR_IR_REQUEST_RSVD;
        }
        *index += VTD_GET(msg->data, VTD_IR_DATA_SUBHANDLE_FIELD);
    }
    return VTD_FR_NONE;
}

/*
 * Sections 5.1.4 and 5.1.2.1: with EIME, requests in compatibility format
 * are blocked whatever CFIS says.
 */
static VTDFaultReason vtd_interrupt_compat(uint64_t ir, const MSIMessage *msg,
                                           MSIMessage *out)
{
    if ((ir & VTD_IRTA_EIME) || !(ir & VTD_IR_COMPAT)) {
        return VTD_FR_IR_COMPAT_BLOCKED;
    }
    *out = *msg;
    return VTD_FR_NONE;
}

static VTDFaultReason vtd_interrupt_lookup(VTDUnit *unit,
                                           const VTDInterruptState *s,
                                           const MSIMessage *msg,
                                           MSIMessage *out, VTDFault *fault)
{
    VTDFaultReason reason;
    uint32_t index;
    VTDIRTE irte;

    reason = vtd_interrupt_index(msg, &index);
    fault->info = VTD_PUT(VTD_FRCD_INDEX_FIELD, index);
    if (reason != VTD_FR_NONE) {
        return reason;
    }
    if (index >= 2U << VTD_GET(s->ir, VTD_IRTA_S_FIELD)) {
        return VTD_FR_IR_INDEX;
    }
    reason = vtd_irte_get(unit, s, index, &irte);
    fault->fpd = irte.lo & VTD_IRTE_FPD;
    if (reason == VTD_FR_NONE) {
        vtd_irte_message(&irte, s->ir & VTD_IRTA_EIME, msg->address, out);
    }
    return reason;
}

VTDFaultReason vtd_interrupt_remap(VTDUnit *unit, const MSIMessage *msg,
                                   int sid, MSIMessage *out, VTDFault *fault)
{
    VTDInterruptState s = { .sid = sid };

    s.generation = vtd_iec_generation(&unit->iec);
    s.ir = qatomic_read_u64(&unit->ir);
    *fault = (VTDFault) { .sid = sid, .write = true };
    if (!(s.ir & VTD_IR_ENABLED)) {
        *out = *msg;
        return VTD_FR_NONE;
    }
    if (msg->address & VTD_IR_ADDR_FORMAT) {
        fault->reason = vtd_interrupt_lookup(unit, &s, msg, out, fault);
    } else {
        fault->reason = vtd_interrupt_compat(s.ir, msg, out);
    }
    if (fault->reason == VTD_FR_NONE) {
        trace_vtd_ir_remap_msi(msg->address, msg->data, out->address,
                               out->data);
    }
    return fault->reason;
}

static MemTxResult vtd_interrupt_deliver(VTDUnit *unit, hwaddr addr,
                                         uint64_t data, int sid)
{
    MSIMessage from = { .address = VTD_IR_ADDR_BASE + addr, .data = data };
    MSIMessage to;
    VTDFault fault;

    trace_vtd_ir_remap_msi_req(from.address, from.data);
    if (vtd_interrupt_remap(unit, &from, sid, &to, &fault) != VTD_FR_NONE) {
        vtd_fault_record(unit, &fault);
        return MEMTX_ERROR;
    }
    apic_get_class(NULL)->send_msi(&to);
    return MEMTX_OK;
}

/*
 * The source-id is that of the requester whose address space this is.  What
 * a device says of itself (MemTxAttrs) is not asked: plain DMA to this range
 * is an interrupt request too, and says nothing.
 */
static MemTxResult vtd_interrupt_write(void *opaque, hwaddr addr,
                                       uint64_t data, unsigned size,
                                       MemTxAttrs attrs)
{
    VTDAddressSpace *as = opaque;
    MemTxResult result = vtd_interrupt_deliver(as->unit, addr, data,
                                               vtd_sid(as));

    if (result != MEMTX_OK) {
        stat64_add(&as->faults, 1);
    }
    return result;
}

/* While remapping is off, which is when this region is used, nobody asks */
static MemTxResult vtd_interrupt_shared_write(void *opaque, hwaddr addr,
                                              uint64_t data, unsigned size,
                                              MemTxAttrs attrs)
{
    return vtd_interrupt_deliver(opaque, addr, data, VTD_SID_UNKNOWN);
}

/* Section 3.15: only doubleword writes are interrupt requests */
static MemTxResult vtd_interrupt_read(void *opaque, hwaddr addr,
                                      uint64_t *data, unsigned size,
                                      MemTxAttrs attrs)
{
    qemu_log_mask(LOG_GUEST_ERROR, "intel-iommu: DMA read of the interrupt "
                  "address range at 0x%" HWADDR_PRIx "\n",
                  (hwaddr)VTD_IR_ADDR_BASE + addr);
    *data = 0;
    return MEMTX_ERROR;
}

const MemoryRegionOps vtd_interrupt_ops = {
    .read_with_attrs = vtd_interrupt_read,
    .write_with_attrs = vtd_interrupt_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 4, .max_access_size = 4 },
    .impl = { .min_access_size = 4, .max_access_size = 4 },
};

const MemoryRegionOps vtd_interrupt_shared_ops = {
    .read_with_attrs = vtd_interrupt_read,
    .write_with_attrs = vtd_interrupt_shared_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 4, .max_access_size = 4 },
    .impl = { .min_access_size = 4, .max_access_size = 4 },
};
