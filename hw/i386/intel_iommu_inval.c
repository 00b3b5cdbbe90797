/*
 * Intel VT-d: invalidation, by queue and by register (section 6.5)
 *
 * Commands come from software, under the big lock.  Each is carried out in
 * whole before the next one is looked at, so a wait descriptor needs no
 * fence: what was asked for before it is done.  Shadows of the tables may take
 * longer: the queue stops behind the command then, and a register shows that
 * its command is under way, until vtd_commands_resume() finds them done.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "qemu/log.h"
#include "exec/address-spaces.h"
#include "intel_iommu_internal.h"
#include "trace.h"

/* A descriptor: four quadwords if IQA.DW is set, else two (the rest is 0) */
#define VTD_DESC_WORDS 4

static bool vtd_space_has_domain(VTDAddressSpace *as, uint16_t did)
{
    VTDConfig cfg;

    return vtd_requester_config(as, &cfg) == VTD_FR_NONE &&
           cfg.domain == did;
}

static void vtd_notify_all_of(VTDAddressSpace *as)
{
    vtd_notify_range(as, 0, UINT64_MAX);
}

static void vtd_flush_iotlb_global(VTDUnit *unit)
{
    VTDAddressSpace *as;

    trace_vtd_inv_desc_iotlb_global();
    vtd_epochs_flush_global(&unit->epochs);
    QLIST_FOREACH(as, &unit->space_list, next) {
        if (vtd_notify_wanted(as)) {
            vtd_notify_all_of(as);
        }
    }
}

static void vtd_flush_iotlb_domain(VTDUnit *unit, uint16_t did)
{
    VTDAddressSpace *as;

    trace_vtd_inv_desc_iotlb_domain(did);
    vtd_epochs_flush_domain(&unit->epochs, did);
    QLIST_FOREACH(as, &unit->space_list, next) {
        if (vtd_notify_wanted(as) && vtd_space_has_domain(as, did)) {
            vtd_notify_all_of(as);
        }
    }
}

static void vtd_flush_iotlb_pages(VTDUnit *unit, uint16_t did, uint64_t addr,
                                  unsigned am)
{
    uint64_t mask = MAKE_64BIT_MASK(0, VTD_PAGE_SHIFT + am);
    VTDAddressSpace *as;

    trace_vtd_inv_desc_iotlb_pages(did, addr, am);
    QLIST_FOREACH(as, &unit->space_list, next) {
        if (!vtd_iotlb_flush_pages(&as->iotlb, did, addr, am)) {
            vtd_epochs_flush_domain(&unit->epochs, did);
            break;
        }
    }
    QLIST_FOREACH(as, &unit->space_list, next) {
        if (vtd_notify_wanted(as) && vtd_space_has_domain(as, did)) {
            vtd_notify_range(as, addr & ~mask, addr | mask);
        }
    }
}

/*
 * Spaces whose regions are switched begin anew with those who listen; those of
 * a PASID are always translated, and have to be told.
 */
void vtd_flush_everything(VTDUnit *unit)
{
    VTDAddressSpace *as;

    vtd_epochs_flush_global(&unit->epochs);
    QLIST_FOREACH(as, &unit->space_list, next) {
        vtd_context_flush(&as->iotlb);
        if (vtd_notify_wanted(as)) {
            vtd_notify_all_of(as);
        }
    }
}

/* What was cached of @as is gone; the new entry may ask for other regions */
static void vtd_flush_context_of(VTDAddressSpace *as)
{
    vtd_context_flush(&as->iotlb);
    vtd_space_update(as);
    if (vtd_notify_wanted(as)) {
        vtd_notify_all_of(as);
    }
}

void vtd_bus_renumbered(VTDUnit *unit, PCIBus *bus)
{
    VTDAddressSpace *as;

    QLIST_FOREACH(as, &unit->space_list, next) {
        if (as->bus == bus) {
            vtd_flush_context_of(as);
        }
    }
    vtd_shadows_run(unit);
}

static void vtd_flush_context_global(VTDUnit *unit)
{
    VTDAddressSpace *as;

    trace_vtd_inv_desc_cc_global();
    QLIST_FOREACH(as, &unit->space_list, next) {
        vtd_flush_context_of(as);
    }
}

/*
 * A requester whose entry was not cached has nothing to forget, but its
 * entry may be new: then its domain is what the table says now.
 */
static void vtd_flush_context_domain(VTDUnit *unit, uint16_t did)
{
    VTDAddressSpace *as;
    VTDConfig cfg;

    trace_vtd_inv_desc_cc_domain(did);
    QLIST_FOREACH(as, &unit->space_list, next) {
        if (!vtd_context_lookup(&as->iotlb, &cfg) || cfg.domain == did) {
            vtd_flush_context_of(as);
        }
    }
}

/* Section 6.5.2.1: FM tells how many low bits of the function are ignored */
static void vtd_flush_context_device(VTDUnit *unit, uint16_t sid, unsigned fm)
{
    static const uint16_t ignored[] = { 0, 4, 6, 7 };
    VTDAddressSpace *as;

    trace_vtd_inv_desc_cc_devices(sid, fm);
    QLIST_FOREACH(as, &unit->space_list, next) {
        if (((vtd_sid(as) ^ sid) & ~ignored[fm]) == 0) {
            vtd_flush_context_of(as);
        }
    }
}

/*
 * May @as have cached anything with this PASID of this domain?  What is not
 * known may: a walk that began before this command may find it out later.
 * A configuration that is cached is that of all walks since, see
 * vtd_context_flush().
 */
static bool vtd_space_may_have(VTDAddressSpace *as, uint16_t did,
                               uint32_t pasid)
{
    VTDConfig cfg;

    if (as->pasid != VTD_PASID_NONE && as->pasid != pasid) {
        return false;
    }
    return !vtd_context_lookup(&as->iotlb, &cfg) ||
           (cfg.domain == did && cfg.pasid == pasid);
}

/* Section 6.5.2.2; returns whether @granularity is one that exists */
static bool vtd_flush_pasid_cache(VTDUnit *unit, unsigned granularity,
                                  uint16_t did, uint32_t pasid)
{
    VTDAddressSpace *as;

    trace_vtd_inv_desc_pasid_cache(granularity, did, pasid);
    switch (granularity) {
    case VTD_PC_DOMAIN:
        vtd_flush_context_domain(unit, did);
        return true;
    case VTD_PC_PASID:
        QLIST_FOREACH(as, &unit->space_list, next) {
            if (vtd_space_may_have(as, did, pasid)) {
                vtd_flush_context_of(as);
            }
        }
        return true;
    case VTD_PC_GLOBAL:
        vtd_flush_context_global(unit);
        return true;
    default:
        return false;
    }
}

static void vtd_flush_pasid(VTDUnit *unit, uint16_t did, uint32_t pasid)
{
    VTDAddressSpace *as;

    trace_vtd_inv_desc_iotlb_pasid(did, pasid);
    QLIST_FOREACH(as, &unit->space_list, next) {
        if (vtd_space_may_have(as, did, pasid)) {
            vtd_iotlb_flush(&as->iotlb);
            if (vtd_notify_wanted(as)) {
                vtd_notify_all_of(as);
            }
        }
    }
}

/* Too many pages for a selective flush are the whole of the PASID */
static void vtd_flush_pasid_pages(VTDUnit *unit, uint16_t did, uint32_t pasid,
                                  uint64_t addr, unsigned am)
{
    uint64_t mask = MAKE_64BIT_MASK(0, MIN(64, VTD_PAGE_SHIFT + am));
    VTDAddressSpace *as;

    trace_vtd_inv_desc_iotlb_pasid_pages(did, addr, am, pasid);
    QLIST_FOREACH(as, &unit->space_list, next) {
        if (!vtd_space_may_have(as, did, pasid)) {
            continue;
        }
        if (!vtd_iotlb_flush_pages(&as->iotlb, did, addr, am)) {
            vtd_iotlb_flush(&as->iotlb);
        }
        if (vtd_notify_wanted(as)) {
            vtd_notify_range(as, addr & ~mask, addr | mask);
        }
    }
}

/* Returns whether @granularity is one that exists */
static bool vtd_flush_context(VTDUnit *unit, unsigned granularity,
                              uint16_t did, uint16_t sid, unsigned fm)
{
    switch (granularity) {
    case VTD_CC_GLOBAL:
        vtd_flush_context_global(unit);
        return true;
    case VTD_CC_DOMAIN:
        vtd_flush_context_domain(unit, did);
        return true;
    case VTD_CC_DEVICE:
        vtd_flush_context_device(unit, sid, fm);
        return true;
    default:
        return false;
    }
}

static bool vtd_flush_iotlb(VTDUnit *unit, unsigned granularity, uint16_t did,
                            uint64_t addr, unsigned am)
{
    switch (granularity) {
    case VTD_IOTLB_GLOBAL:
        vtd_flush_iotlb_global(unit);
        return true;
    case VTD_IOTLB_DOMAIN:
        vtd_flush_iotlb_domain(unit, did);
        return true;
    case VTD_IOTLB_PAGE:
        if (am > VTD_MAMV) {
            return false;
        }
        vtd_flush_iotlb_pages(unit, did, addr, am);
        return true;
    default:
        return false;
    }
}

static bool vtd_command_by_queue(VTDUnit *unit, const char *name)
{
    if (vtd_reg_get(unit, DMAR_GSTS_REG) & VTD_GSTS_QIES) {
        qemu_log_mask(LOG_GUEST_ERROR, "intel-iommu: %s written while the "
                      "invalidation queue is enabled\n", name);
        return true;
    }
    return false;
}

/*
 * Sections 11.4.6.1, 11.4.6.2: granularity 0 reports that nothing was done,
 * and the bit that gave the command stays set until it has been.
 */
static void vtd_command_end(VTDUnit *unit, unsigned offset, uint64_t command,
                            uint64_t start, uint64_t granularity)
{
    bool done = vtd_shadows_run(unit);

    vtd_reg_set(unit, offset, command | granularity | (done ? 0 : start));
}

void vtd_command_context(VTDUnit *unit)
{
    uint64_t ccmd = vtd_reg_get(unit, DMAR_CCMD_REG);
    unsigned granularity = VTD_GET(ccmd, VTD_CCMD_CIRG_FIELD);

    if (vtd_command_by_queue(unit, "CCMD_REG") ||
        !vtd_flush_context(unit, granularity,
                           VTD_GET(ccmd, VTD_CCMD_DID_FIELD),
                           VTD_GET(ccmd, VTD_CCMD_SID_FIELD),
                           VTD_GET(ccmd, VTD_CCMD_FM_FIELD))) {
        granularity = 0;
    }
    vtd_command_end(unit, DMAR_CCMD_REG,
                    ccmd & ~(VTD_CCMD_CAIG_FIELD | VTD_CCMD_ICC),
                    VTD_CCMD_ICC,
                    VTD_PUT(VTD_CCMD_CAIG_FIELD, granularity));
}

/* The address is in the register before it */
void vtd_command_iotlb(VTDUnit *unit)
{
    uint64_t cmd = vtd_reg_get(unit, DMAR_IOTLB_REG);
    uint64_t iva = ldq_le_p(unit->csr + DMAR_IVA_REG);
    unsigned granularity = VTD_GET(cmd, VTD_IOTLB_IIRG_FIELD);

    if (vtd_command_by_queue(unit, "IOTLB_REG") ||
        !vtd_flush_iotlb(unit, granularity, VTD_GET(cmd, VTD_IOTLB_DID_FIELD),
                         iva & VTD_IVA_ADDR_MASK,
                         VTD_GET(iva, VTD_IVA_AM_FIELD))) {
        granularity = 0;
    }
    vtd_command_end(unit, DMAR_IOTLB_REG,
                    cmd & ~(VTD_IOTLB_IAIG_FIELD | VTD_IOTLB_IVT),
                    VTD_IOTLB_IVT,
                    VTD_PUT(VTD_IOTLB_IAIG_FIELD, granularity));
}

static VTDQueueError vtd_desc_context(VTDUnit *unit, const uint64_t *d)
{
    if ((d[0] & VTD_INV_CC_RSVD) || d[1] ||
        !vtd_flush_context(unit, VTD_GET(d[0], VTD_INV_CC_G_FIELD),
                           VTD_GET(d[0], VTD_INV_CC_DID_FIELD),
                           VTD_GET(d[0], VTD_INV_CC_SID_FIELD),
                           VTD_GET(d[0], VTD_INV_CC_FM_FIELD))) {
        return VTD_IQEI_RESERVED;
    }
    return VTD_IQEI_NONE;
}

static VTDQueueError vtd_desc_iotlb(VTDUnit *unit, const uint64_t *d)
{
    if ((d[0] & VTD_INV_IOTLB_RSVD) || (d[1] & VTD_INV_IOTLB_HI_RSVD) ||
        !vtd_flush_iotlb(unit, VTD_GET(d[0], VTD_INV_IOTLB_G_FIELD),
                         VTD_GET(d[0], VTD_INV_IOTLB_DID_FIELD),
                         d[1] & VTD_PAGE_MASK,
                         VTD_GET(d[1], VTD_INV_IOTLB_HI_AM_FIELD))) {
        return VTD_IQEI_RESERVED;
    }
    return VTD_IQEI_NONE;
}

/*
 * Section 6.5.2.5: with S, the lowest clear bit of the address tells the
 * size: 2 pages if it is the lowest bit, twice as many for each one before.
 */
static VTDQueueError vtd_desc_device_tlb(VTDUnit *unit, const uint64_t *d)
{
    uint64_t addr = d[1] & VTD_PAGE_MASK, mask = ~VTD_PAGE_MASK;
    uint16_t sid = VTD_GET(d[0], VTD_INV_DEVTLB_SID_FIELD);
    VTDAddressSpace *as;

    if (!unit->cap.device_iotlb) {
        return VTD_IQEI_TYPE;
    }
    if ((d[0] & VTD_INV_DEVTLB_RSVD) || (d[1] & VTD_INV_DEVTLB_HI_RSVD)) {
        return VTD_IQEI_RESERVED;
    }
    if (d[1] & VTD_INV_DEVTLB_HI_S) {
        mask = MAKE_64BIT_MASK(0, MIN(64, VTD_PAGE_SHIFT + 1 +
                                      cto64(addr >> VTD_PAGE_SHIFT)));
    }
    /* Of requests without PASID: others are not offered a device-TLB */
    QLIST_FOREACH(as, &unit->space_list, next) {
        if (vtd_sid(as) == sid && as->pasid == VTD_PASID_NONE) {
            vtd_notify_device_tlb(as, addr & ~mask, addr | mask);
        }
    }
    return VTD_IQEI_NONE;
}

static VTDQueueError vtd_desc_iec(VTDUnit *unit, const uint64_t *d)
{
    uint16_t index = VTD_GET(d[0], VTD_INV_IEC_IIDX_FIELD);
    unsigned mask = VTD_GET(d[0], VTD_INV_IEC_IM_FIELD);

    if (!unit->cap.interrupt_remapping) {
        return VTD_IQEI_TYPE;
    }
    if ((d[0] & VTD_INV_IEC_RSVD) || d[1]) {
        return VTD_IQEI_RESERVED;
    }
    if (!(d[0] & VTD_INV_IEC_INDEX)) {
        vtd_iec_flush_global(unit);
        return VTD_IQEI_NONE;
    }
    if (mask > VTD_MHMV) {
        return VTD_IQEI_RESERVED;
    }
    trace_vtd_inv_desc_iec(1, index, mask);
    vtd_iec_flush(unit, index, mask);
    return VTD_IQEI_NONE;
}

/* Section 11.4.8.4: an event that is pending already is not a new one */
static void vtd_completion_raise(VTDUnit *unit)
{
    uint32_t iectl = vtd_reg_get(unit, DMAR_IECTL_REG);

    if (vtd_reg_get(unit, DMAR_ICS_REG) & VTD_ICS_IWC) {
        trace_vtd_inv_desc_wait_irq("one pending, skip current");
        return;
    }
    vtd_reg_set(unit, DMAR_ICS_REG, VTD_ICS_IWC);
    vtd_reg_set(unit, DMAR_IECTL_REG, iectl | VTD_IECTL_IP);
    vtd_completion_control(unit);
}

void vtd_completion_control(VTDUnit *unit)
{
    uint32_t iectl = vtd_reg_get(unit, DMAR_IECTL_REG);

    if ((iectl & (VTD_IECTL_IP | VTD_IECTL_IM)) != VTD_IECTL_IP) {
        return;
    }
    vtd_reg_set(unit, DMAR_IECTL_REG, 0);
    vtd_send_interrupt(unit, vtd_reg_get(unit, DMAR_IEADDR_REG) |
                       vtd_reg_get(unit, DMAR_IEUADDR_REG) << 32,
                       vtd_reg_get(unit, DMAR_IEDATA_REG));
}

void vtd_completion_clear(VTDUnit *unit)
{
    uint32_t iectl = vtd_reg_get(unit, DMAR_IECTL_REG);

    vtd_reg_set(unit, DMAR_ICS_REG, 0);
    vtd_reg_set(unit, DMAR_IECTL_REG, iectl & ~VTD_IECTL_IP);
    trace_vtd_reg_ics_clear_ip();
}

/*
 * Section 6.5.2.8.  Status goes to memory only: it is no way to reach the
 * registers of a device, this one's among them.
 */
static VTDQueueError vtd_desc_wait(VTDUnit *unit, const uint64_t *d)
{
    uint64_t addr = d[1] & VTD_INV_WAIT_HI_ADDR_MASK;
    uint32_t data = cpu_to_le32(VTD_GET(d[0], VTD_INV_WAIT_DATA_FIELD));

    if ((d[0] & VTD_INV_WAIT_RSVD) || (d[1] & VTD_INV_WAIT_HI_RSVD)) {
        return VTD_IQEI_RESERVED;
    }
    if (d[0] & VTD_INV_WAIT_SW) {
        trace_vtd_inv_desc_wait_sw(addr, le32_to_cpu(data));
        if (address_space_write(&address_space_memory, addr,
                                VTD_MEMORY_ONLY,
                                &data, sizeof(data)) != MEMTX_OK) {
            trace_vtd_inv_desc_wait_write_fail(d[1], d[0]);
            qemu_log_mask(LOG_GUEST_ERROR, "intel-iommu: status address 0x%"
                          PRIx64 " of a wait descriptor is not memory\n",
                          addr);
        }
    }
    if (d[0] & VTD_INV_WAIT_IF) {
        vtd_completion_raise(unit);
    }
    return VTD_IQEI_NONE;
}

/* Section 6.5.2: what names a PASID is a command of scalable mode, 256 bits */
static VTDQueueError vtd_desc_check_pasid(VTDUnit *unit, const uint64_t *d)
{
    if (!unit->cap.scalable) {
        return VTD_IQEI_TYPE;
    }
    if (unit->queue.width < 32) {
        return VTD_IQEI_WIDTH;
    }
    return d[0] & VTD_INV_PASID_RSVD ? VTD_IQEI_RESERVED : VTD_IQEI_NONE;
}

static VTDQueueError vtd_desc_pasid_cache(VTDUnit *unit, const uint64_t *d)
{
    VTDQueueError error = vtd_desc_check_pasid(unit, d);

    if (error != VTD_IQEI_NONE) {
        return error;
    }
    if (d[1] || !vtd_flush_pasid_cache(unit,
                                       VTD_GET(d[0], VTD_INV_PASID_G_FIELD),
                                       VTD_GET(d[0], VTD_INV_PASID_DID_FIELD),
                                       VTD_GET(d[0],
                                               VTD_INV_PASID_PASID_FIELD))) {
        return VTD_IQEI_RESERVED;
    }
    return VTD_IQEI_NONE;
}

/*
 * Section 6.5.2.4.  AM has no bound here: Linux 6.1 does not look at
 * CAP.MAMV, and what it asks for would stop the queue.  IH is a hint about
 * entries of upper levels, which are not cached.
 */
static VTDQueueError vtd_desc_pasid_iotlb(VTDUnit *unit, const uint64_t *d)
{
    uint16_t did = VTD_GET(d[0], VTD_INV_PASID_DID_FIELD);
    uint32_t pasid = VTD_GET(d[0], VTD_INV_PASID_PASID_FIELD);
    VTDQueueError error = vtd_desc_check_pasid(unit, d);

    if (error != VTD_IQEI_NONE) {
        return error;
    }
    if (d[1] & VTD_INV_PASID_IOTLB_HI_RSVD) {
        return VTD_IQEI_RESERVED;
    }
    switch (VTD_GET(d[0], VTD_INV_PASID_G_FIELD)) {
    case VTD_PASID_IOTLB_PASID:
        vtd_flush_pasid(unit, did, pasid);
        return VTD_IQEI_NONE;
    case VTD_PASID_IOTLB_PAGE:
        vtd_flush_pasid_pages(unit, did, pasid, d[1] & VTD_PAGE_MASK,
                              VTD_GET(d[1], VTD_INV_PASID_IOTLB_HI_AM_FIELD));
        return VTD_IQEI_NONE;
    default:
        return VTD_IQEI_RESERVED;
    }
}

static VTDQueueError (*const vtd_desc_handlers[])(VTDUnit *unit,
                                                  const uint64_t *d) = {
    [VTD_INV_CC] = vtd_desc_context,
    [VTD_INV_IOTLB] = vtd_desc_iotlb,
    [VTD_INV_DEVTLB] = vtd_desc_device_tlb,
    [VTD_INV_IEC] = vtd_desc_iec,
    [VTD_INV_WAIT] = vtd_desc_wait,
    [VTD_INV_PASID_IOTLB] = vtd_desc_pasid_iotlb,
    [VTD_INV_PASID_CACHE] = vtd_desc_pasid_cache,
};

static VTDQueueError vtd_desc_run(VTDUnit *unit, const uint64_t *d)
{
    unsigned type = VTD_GET(d[0], VTD_INV_TYPE_FIELD) |
                    VTD_GET(d[0], VTD_INV_TYPE_HIGH_FIELD) << 4;

    if (type >= ARRAY_SIZE(vtd_desc_handlers) || !vtd_desc_handlers[type]) {
        return VTD_IQEI_TYPE;
    }
    if (d[2] || d[3]) {
        return VTD_IQEI_RESERVED;
    }
    unit->queue.last_type = type;
    return vtd_desc_handlers[type](unit, d);
}

/* Fetch and carry out the descriptor at the head */
static VTDQueueError vtd_queue_step(VTDUnit *unit)
{
    VTDQueue *q = &unit->queue;
    uint64_t d[VTD_DESC_WORDS] = {};
    VTDQueueError error;

    trace_vtd_inv_qi_fetch();
    if (!unit->memory.read(unit->memory.opaque, q->base + q->head, d,
                           q->width / 8)) {
        return VTD_IQEI_FETCH;
    }
    error = vtd_desc_run(unit, d);
    if (error != VTD_IQEI_NONE) {
        qemu_log_mask(LOG_GUEST_ERROR, "intel-iommu: descriptor 0x%" PRIx64
                      " 0x%" PRIx64 " at offset 0x%x of the queue: error %d\n",
                      d[0], d[1], q->head, error);
    }
    return error;
}

/* Section 6.5.1: the tail is inside the queue, and on a descriptor */
static VTDQueueError vtd_queue_check_tail(VTDQueue *q, uint32_t tail)
{
    if (tail >= q->size) {
        trace_vtd_warn_invalid_qi_tail(tail / q->width);
        return VTD_IQEI_TAIL;
    }
    return tail % q->width ? VTD_IQEI_TAIL_ALIGN : VTD_IQEI_NONE;
}

/* Section 6.5.1: the queue stops at an error until software clears IQE */
void vtd_queue_run(VTDUnit *unit)
{
    VTDQueue *q = &unit->queue;
    uint32_t tail = vtd_reg_get(unit, DMAR_IQT_REG);
    VTDQueueError error;

    if (!(vtd_reg_get(unit, DMAR_GSTS_REG) & VTD_GSTS_QIES) ||
        (vtd_reg_get(unit, DMAR_FSTS_REG) & VTD_FSTS_IQE)) {
        return;
    }
    trace_vtd_inv_qi_tail(tail / q->width);
    error = vtd_queue_check_tail(q, tail);
    q->waits = !vtd_shadows_run(unit);
    while (error == VTD_IQEI_NONE && !q->waits && q->head != tail) {
        error = vtd_queue_step(unit);
        if (error == VTD_IQEI_NONE) {
            q->head = (q->head + q->width) & (q->size - 1);
        }
        q->waits = !vtd_shadows_run(unit);
    }
    if (error != VTD_IQEI_NONE) {
        vtd_reg_set(unit, DMAR_IQERCD_REG, error);
        vtd_fault_status(unit, VTD_FSTS_IQE);
    }
}

/* Section 11.4.8.3: the queue has 2^QS pages, whatever the width */
static void vtd_queue_start(VTDUnit *unit)
{
    uint64_t iqa = vtd_reg_get(unit, DMAR_IQA_REG);
    VTDQueue *q = &unit->queue;

    q->width = iqa & VTD_IQA_DW ? 32 : 16;
    q->base = iqa & VTD_PAGE_MASK;
    q->size = VTD_PAGE_SIZE << VTD_GET(iqa, VTD_IQA_QS_FIELD);
    q->head = 0;
    trace_vtd_inv_qi_setup(q->base, q->size);
    vtd_status_update(unit, 0, VTD_GSTS_QIES);
    vtd_queue_run(unit);
}

/* Section 11.4.8.1: the head is 0 while the queue is disabled */
void vtd_queue_enable(VTDUnit *unit, bool enable)
{
    trace_vtd_inv_qi_enable(enable);
    if (enable) {
        vtd_queue_start(unit);
    } else {
        unit->queue.head = 0;
        unit->queue.waits = false;
        vtd_status_update(unit, VTD_GSTS_QIES, 0);
    }
}

bool vtd_commands_resume(VTDUnit *unit)
{
    if (!vtd_shadows_run(unit)) {
        return false;
    }
    vtd_status_update(unit, 0, unit->late_status);
    unit->late_status = 0;
    vtd_reg_set(unit, DMAR_CCMD_REG,
                vtd_reg_get(unit, DMAR_CCMD_REG) & ~VTD_CCMD_ICC);
    vtd_reg_set(unit, DMAR_IOTLB_REG,
                vtd_reg_get(unit, DMAR_IOTLB_REG) & ~VTD_IOTLB_IVT);
    if (unit->queue.waits) {
        vtd_queue_run(unit);
    }
    return !unit->behind;
}
