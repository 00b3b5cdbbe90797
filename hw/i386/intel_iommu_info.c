/*
 * Intel VT-d: what a unit is doing, for people and tools
 *
 * x-query-vtd gives the state as data; "info iommu" prints the same.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "monitor/hmp-target.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-misc-target.h"
#include "intel_iommu_internal.h"

static void vtd_info_tables(VTDAddressSpace *as, VTDRequesterInfo *info)
{
    VTDConfig cfg;
    VTDFaultReason reason = vtd_requester_config(as, &cfg);

    if (reason != VTD_FR_NONE) {
        info->translation = VTD_REQUESTER_TRANSLATION_BLOCKED;
        info->has_reason = true;
        info->reason = reason;
        return;
    }
    info->has_domain = true;
    info->domain = cfg.domain;
    if (cfg.stage == VTD_STAGE_PASS_THROUGH) {
        info->translation = VTD_REQUESTER_TRANSLATION_PASS_THROUGH;
        return;
    }
    info->translation = cfg.stage == VTD_STAGE_FIRST ?
                        VTD_REQUESTER_TRANSLATION_FIRST_STAGE :
                        VTD_REQUESTER_TRANSLATION_SECOND_STAGE;
    info->has_table = info->has_levels = true;
    info->table = cfg.root;
    info->levels = cfg.levels;
}

static VTDRequesterInfo *vtd_info_requester(VTDAddressSpace *as)
{
    VTDRequesterInfo *info = g_new0(VTDRequesterInfo, 1);
    uint16_t sid = vtd_sid(as);

    info->requester = g_strdup_printf("%02x:%02x.%x", PCI_BUS_NUM(sid),
                                      PCI_SLOT(sid), PCI_FUNC(sid));
    info->has_pasid = as->pasid != VTD_PASID_NONE;
    info->pasid = as->pasid;
    info->translation = VTD_REQUESTER_TRANSLATION_OFF;
    if (qatomic_read_u64(&as->unit->dmar) & VTD_DMAR_ENABLED) {
        vtd_info_tables(as, info);
    }
    vtd_iotlb_usage(&as->iotlb, &info->cached, &info->cache_size);
    info->misses = stat64_get(&as->misses);
    info->faults = stat64_get(&as->faults);
    if (as->unit->count_hits) {
        info->has_hits = true;
        info->hits = qatomic_read(&as->hits);
    }
    if (as->shadow.mappings) {
        info->has_shadowed = true;
        info->shadowed = g_tree_nnodes(as->shadow.mappings);
    }
    return info;
}

static VTDRequesterInfoList *vtd_info_requesters(VTDUnit *unit)
{
    VTDRequesterInfoList *list = NULL;
    VTDAddressSpace *as;

    QLIST_FOREACH(as, &unit->space_list, next) {
        QAPI_LIST_PREPEND(list, vtd_info_requester(as));
    }
    return list;
}

/* Settled first, so that what is shown is what the guest would read */
static VTDUnitInfo *vtd_info_unit(VTDUnit *unit)
{
    VTDUnitInfo *info = g_new0(VTDUnitInfo, 1);
    uint64_t dmar, ir;

    vtd_unit_settle(unit);
    dmar = qatomic_read_u64(&unit->dmar);
    ir = qatomic_read_u64(&unit->ir);
    info->cap = vtd_cap_value(&unit->cap);
    info->ecap = vtd_ecap_value(&unit->cap);
    info->status = vtd_reg_get(unit, DMAR_GSTS_REG);
    info->dma_remapping = dmar & VTD_DMAR_ENABLED;
    info->root_table = dmar & VTD_PAGE_MASK;
    info->scalable = VTD_GET(dmar, VTD_RTADDR_TTM_FIELD) == VTD_TTM_SCALABLE;
    info->interrupt_remapping = ir & VTD_IR_ENABLED;
    info->interrupt_table = ir & VTD_PAGE_MASK;
    info->interrupt_entries = ir ? 2U << VTD_GET(ir, VTD_IRTA_S_FIELD) : 0;
    info->extended_interrupts = ir & VTD_IRTA_EIME;
    info->queue = unit->queue.base;
    info->queue_size = unit->queue.size;
    info->queue_head = unit->queue.head;
    info->queue_tail = vtd_reg_get(unit, DMAR_IQT_REG);
    info->fault_status = vtd_fault_read(unit, DMAR_FSTS_REG);
    info->requesters = vtd_info_requesters(unit);
    return info;
}

VTDUnitInfoList *qmp_x_query_vtd(Error **errp)
{
    X86IOMMUState *x86 = x86_iommu_get_default();
    VTDUnitInfoList *list = NULL;

    if (x86 && object_dynamic_cast(OBJECT(x86), TYPE_INTEL_IOMMU_DEVICE)) {
        QAPI_LIST_PREPEND(list, vtd_info_unit(INTEL_IOMMU_DEVICE(x86)->unit));
    }
    return list;
}

static void vtd_print_requester(Monitor *mon, const VTDRequesterInfo *r)
{
    monitor_printf(mon, "  %s", r->requester);
    if (r->has_pasid) {
        monitor_printf(mon, " PASID %u", r->pasid);
    }
    monitor_printf(mon, " %s", VTDRequesterTranslation_str(r->translation));
    if (r->has_reason) {
        monitor_printf(mon, " (fault reason 0x%02x)", r->reason);
    }
    if (r->has_domain) {
        monitor_printf(mon, ", domain %u", r->domain);
    }
    if (r->has_table) {
        monitor_printf(mon, ", %u levels at 0x%" PRIx64, r->levels, r->table);
    }
    monitor_printf(mon, "; cached %" PRIu64 " of %" PRIu64 ", misses %" PRIu64,
                   r->cached, r->cache_size, r->misses);
    if (r->has_hits) {
        monitor_printf(mon, ", hits about %" PRIu64, r->hits);
    }
    monitor_printf(mon, ", faults %" PRIu64, r->faults);
    if (r->has_shadowed) {
        monitor_printf(mon, ", shadowed %" PRIu64, r->shadowed);
    }
    monitor_printf(mon, "\n");
}

static void vtd_print_unit(Monitor *mon, const VTDUnitInfo *u)
{
    monitor_printf(mon, "VT-d unit: CAP 0x%" PRIx64 ", ECAP 0x%" PRIx64
                   ", GSTS 0x%08x, FSTS 0x%08x\n",
                   u->cap, u->ecap, u->status, u->fault_status);
    monitor_printf(mon, " DMA remapping %s, %s root table at 0x%" PRIx64 "\n",
                   u->dma_remapping ? "on" : "off",
                   u->scalable ? "scalable-mode" : "legacy-mode",
                   u->root_table);
    monitor_printf(mon, " interrupt remapping %s%s, %u entries at 0x%" PRIx64
                   "\n", u->interrupt_remapping ? "on" : "off",
                   u->extended_interrupts ? " (extended)" : "",
                   u->interrupt_entries, u->interrupt_table);
    monitor_printf(mon, " queue at 0x%" PRIx64 ", %u bytes, head 0x%x, tail "
                   "0x%x\n requesters:\n", u->queue, u->queue_size,
                   u->queue_head, u->queue_tail);
    for (VTDRequesterInfoList *r = u->requesters; r; r = r->next) {
        vtd_print_requester(mon, r->value);
    }
}

void hmp_info_iommu(Monitor *mon, const QDict *qdict)
{
    g_autoptr(VTDUnitInfoList) list = qmp_x_query_vtd(&error_abort);

    if (!list) {
        monitor_printf(mon, "There is no VT-d unit in this machine\n");
    }
    for (VTDUnitInfoList *u = list; u; u = u->next) {
        vtd_print_unit(mon, u->value);
    }
}
