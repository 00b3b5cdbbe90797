/*
 * Intel VT-d: faults
 *
 * The only writer of FSTS, FECTL and the fault recording registers, and the
 * only sender of the fault event (sections 7.2 and 7.3).  Faults arise in
 * any thread; the interrupt needs the big lock, so it is left to the unit's
 * bottom half, with FECTL.IP set in the meantime as on a busy bus.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "intel_iommu_internal.h"
#include "trace.h"

/* Bits of FSTS that software clears by writing 1 to them */
#define VTD_FSTS_W1C (VTD_FSTS_PFO | VTD_FSTS_IQE | VTD_FSTS_ICE | VTD_FSTS_ITE)
/* Bits of FSTS whose setting is an interrupt condition (section 7.3) */
#define VTD_FSTS_EVENTS (VTD_FSTS_W1C | VTD_FSTS_PPF)

void vtd_fault_init(VTDFaultLog *log, unsigned records)
{
    qemu_mutex_init(&log->lock);
    log->records = records;
    log->frcd = g_malloc0_n(records, sizeof(*log->frcd));
    vtd_fault_reset(log);
}

void vtd_fault_reset(VTDFaultLog *log)
{
    QEMU_LOCK_GUARD(&log->lock);

    log->fsts = 0;
    log->fectl = VTD_FECTL_IM;
    log->next = 0;
    memset(log->frcd, 0, log->records * sizeof(*log->frcd));
}

/*
 * Section 7.3: a status bit that is set while another one is already pending
 * is not a new interrupt condition.
 */
static void vtd_raise_locked(VTDUnit *unit, uint32_t bit)
{
    VTDFaultLog *log = &unit->fault;

    if (!(log->fsts & VTD_FSTS_EVENTS)) {
        log->fectl |= VTD_FECTL_IP;
        if (!(log->fectl & VTD_FECTL_IM)) {
            qemu_bh_schedule(unit->bh);
        }
    }
    log->fsts |= bit;
}

/* Section 7.3: IP is cleared once all conditions have been serviced */
static void vtd_lower_locked(VTDFaultLog *log, uint32_t bits)
{
    log->fsts &= ~bits;
    if (!(log->fsts & VTD_FSTS_EVENTS) && (log->fectl & VTD_FECTL_IP)) {
        log->fectl &= ~VTD_FECTL_IP;
        trace_vtd_fsts_clear_ip();
    }
}

void vtd_fault_status(VTDUnit *unit, uint32_t bit)
{
    QEMU_LOCK_GUARD(&unit->fault.lock);

    vtd_raise_locked(unit, bit);
}

/* Section 11.4.7.7: who made the faulted request */
static uint64_t vtd_fault_requester(const VTDFault *fault)
{
    return VTD_PUT(VTD_FRCD_SID_FIELD, fault->sid) |
           (fault->has_pasid ? VTD_FRCD_PP |
                               VTD_PUT(VTD_FRCD_PV_FIELD, fault->pasid) : 0);
}

/*
 * Section 7.2.1: hardware may collapse faults of a requester, here one with
 * each of its PASIDs, that has one pending.  With few records this keeps one
 * broken device from hiding the others behind an overflow.
 */
static bool vtd_fault_collapses(VTDFaultLog *log, const VTDFault *fault)
{
    uint64_t requester = VTD_FRCD_SID_FIELD | VTD_FRCD_PP | VTD_FRCD_PV_FIELD;

    for (unsigned i = 0; i < log->records; i++) {
        if ((log->frcd[i][1] & VTD_FRCD_F) &&
            (log->frcd[i][1] & requester) == vtd_fault_requester(fault)) {
            return true;
        }
    }
    return false;
}

static void vtd_fault_store(VTDFaultLog *log, const VTDFault *fault)
{
    uint64_t *frcd = log->frcd[log->next];

    frcd[0] = fault->info;
    /* T2, EXE and PRIV stay 0: no such requests are ever made */
    frcd[1] = VTD_FRCD_F | (fault->write ? 0 : VTD_FRCD_T1_READ) |
              VTD_PUT(VTD_FRCD_FR_FIELD, fault->reason) |
              vtd_fault_requester(fault);
    trace_vtd_frr_new(log->next, frcd[1], frcd[0]);
}

void vtd_fault_record(VTDUnit *unit, const VTDFault *fault)
{
    VTDFaultLog *log = &unit->fault;

    trace_vtd_dmar_fault(fault->sid, fault->reason, fault->info,
                         fault->write);
    if (fault->fpd && vtd_fault_qualified(fault->reason)) {
        trace_vtd_fault_disabled();
        return;
    }
    QEMU_LOCK_GUARD(&log->lock);
    if ((log->fsts & VTD_FSTS_PFO) || vtd_fault_collapses(log, fault)) {
        return;
    }
    if (log->frcd[log->next][1] & VTD_FRCD_F) {
        vtd_raise_locked(unit, VTD_FSTS_PFO);
        return;
    }
    vtd_fault_store(log, fault);
    if (!(log->fsts & VTD_FSTS_PPF)) {
        log->fsts &= ~VTD_PUT(VTD_FSTS_FRI_FIELD, 0xff);
        log->fsts |= VTD_PUT(VTD_FSTS_FRI_FIELD, log->next);
        trace_vtd_fsts_ppf(true);
    }
    vtd_raise_locked(unit, VTD_FSTS_PPF);
    log->next = (log->next + 1) % log->records;
}

void vtd_fault_deliver(VTDUnit *unit)
{
    VTDFaultLog *log = &unit->fault;

    WITH_QEMU_LOCK_GUARD(&log->lock) {
        if ((log->fectl & (VTD_FECTL_IP | VTD_FECTL_IM)) != VTD_FECTL_IP) {
            return;
        }
        log->fectl &= ~VTD_FECTL_IP;
    }
    vtd_send_interrupt(unit, vtd_reg_get(unit, DMAR_FEADDR_REG) |
                       vtd_reg_get(unit, DMAR_FEUADDR_REG) << 32,
                       vtd_reg_get(unit, DMAR_FEDATA_REG));
}

/* The quadword of the recording registers at @offset */
static uint64_t *vtd_frcd(VTDFaultLog *log, unsigned offset)
{
    unsigned i = (offset - DMAR_FRCD_REG) / 8;

    return &log->frcd[i / 2][i % 2];
}

uint64_t vtd_fault_read(VTDUnit *unit, unsigned offset)
{
    VTDFaultLog *log = &unit->fault;

    QEMU_LOCK_GUARD(&log->lock);
    switch (offset) {
    case DMAR_FSTS_REG:
        return log->fsts;
    case DMAR_FECTL_REG:
        return log->fectl;
    default:
        return *vtd_frcd(log, offset);
    }
}

/* Section 11.4.7.7: F is cleared by writing 1; the rest is read-only */
static void vtd_frcd_write(VTDFaultLog *log, unsigned offset, uint64_t value)
{
    bool pending = false;

    if (offset % 16 == 8 && (value & VTD_FRCD_F)) {
        *vtd_frcd(log, offset) &= ~VTD_FRCD_F;
    }
    for (unsigned i = 0; i < log->records; i++) {
        pending |= log->frcd[i][1] & VTD_FRCD_F;
    }
    if (!pending && (log->fsts & VTD_FSTS_PPF)) {
        trace_vtd_fsts_ppf(false);
        vtd_lower_locked(log, VTD_FSTS_PPF);
    }
}

void vtd_fault_write(VTDUnit *unit, unsigned offset, uint64_t value,
                     uint64_t bytes)
{
    VTDFaultLog *log = &unit->fault;

    QEMU_LOCK_GUARD(&log->lock);
    switch (offset) {
    case DMAR_FSTS_REG:
        vtd_lower_locked(log, value & VTD_FSTS_W1C);
        break;
    case DMAR_FECTL_REG:
        trace_vtd_reg_write_fectl(value);
        log->fectl &= ~(VTD_FECTL_IM & bytes);
        log->fectl |= value & VTD_FECTL_IM;
        break;
    default:
        vtd_frcd_write(log, offset, value);
        break;
    }
}

void vtd_fault_save(VTDFaultLog *log, VTDStream *s)
{
    QEMU_LOCK_GUARD(&log->lock);

    stl_le_p(s->csr + DMAR_FSTS_REG, log->fsts);
    stl_le_p(s->csr + DMAR_FECTL_REG, log->fectl);
    stq_le_p(s->csr + DMAR_FRCD_REG, log->frcd[0][0]);
    stq_le_p(s->csr + DMAR_FRCD_REG + 8, log->frcd[0][1]);
    s->next_frcd_reg = log->next;
    memcpy(s->frcd, log->frcd, log->records * sizeof(*log->frcd));
}

/* A stream with one register has nothing for the others: they are empty */
void vtd_fault_load(VTDFaultLog *log, const VTDStream *s)
{
    QEMU_LOCK_GUARD(&log->lock);

    log->fsts = ldl_le_p(s->csr + DMAR_FSTS_REG);
    log->fectl = ldl_le_p(s->csr + DMAR_FECTL_REG);
    log->next = s->next_frcd_reg % log->records;
    memcpy(log->frcd, s->frcd, log->records * sizeof(*log->frcd));
    log->frcd[0][0] = ldq_le_p(s->csr + DMAR_FRCD_REG);
    log->frcd[0][1] = ldq_le_p(s->csr + DMAR_FRCD_REG + 8);
}
