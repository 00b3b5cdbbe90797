/*
 * Intel VT-d: address spaces of requesters, and the translate hook
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "hw/pci/pci_bridge.h"
#include "hw/pci/pci_bus.h"
#include "exec/address-spaces.h"
#include "intel_iommu_internal.h"
#include "intel_iommu_iotlb_lookup.h"
#include "trace.h"

/* Below the interrupt window, which nothing may hide */
#define VTD_PRIORITY_MEMORY            0
#define VTD_PRIORITY_INTERRUPTS        1

uint16_t vtd_sid(VTDAddressSpace *as)
{
    return PCI_BUILD_BDF(qatomic_read(as->bus_number), as->devfn);
}

/* Section 11.4.5: which kind of tables there are, and what they say */
static VTDFaultReason vtd_tables_config(VTDAddressSpace *as, uint16_t sid,
                                        VTDConfig *cfg)
{
    VTDUnit *unit = as->unit;
    uint64_t dmar = qatomic_read_u64(&unit->dmar);
    unsigned ttm = VTD_GET(dmar, VTD_RTADDR_TTM_FIELD);

    *cfg = (VTDConfig) {};
    if (ttm == VTD_TTM_SCALABLE && unit->cap.scalable) {
        return vtd_scalable_lookup(&unit->memory, &unit->cap,
                                   dmar & VTD_PAGE_MASK, sid, as->pasid, cfg);
    }
    if (ttm != VTD_TTM_LEGACY) {
        return VTD_FR_SM_TTM;
    }
    if (as->pasid != VTD_PASID_NONE) {
        return VTD_FR_SM_TTM_PASID;
    }
    return vtd_tables_lookup(&unit->memory, &unit->cap, dmar & VTD_PAGE_MASK,
                             PCI_BUS_NUM(sid), PCI_BDF_TO_DEVFN(sid), cfg);
}

VTDFaultReason vtd_requester_config(VTDAddressSpace *as, VTDConfig *cfg)
{
    VTDUnit *unit = as->unit;
    uint64_t began = vtd_epochs_now(&unit->epochs);
    VTDFaultReason reason;

    if (vtd_context_lookup(&as->iotlb, cfg)) {
        return VTD_FR_NONE;
    }
    reason = vtd_tables_config(as, vtd_sid(as), cfg);
    if (reason == VTD_FR_NONE) {
        vtd_context_fill(&as->iotlb, began, cfg);
    }
    return reason;
}

/*
 * Without caching mode software need not tell that an entry has become
 * present: the hook is the first to see pass-through.
 */
static void vtd_want_switch(VTDAddressSpace *as)
{
    if (as->pasid == VTD_PASID_NONE &&
        !qatomic_xchg(&as->switch_wanted, true)) {
        qemu_bh_schedule(as->unit->bh);
    }
}

/*
 * Section 3.15: an interrupt address in a request with PASID is no interrupt;
 * where it is not translated it is blocked.
 */
static VTDTranslation vtd_identity(VTDAddressSpace *as, uint64_t iova)
{
    bool blocked = as->pasid != VTD_PASID_NONE &&
                   iova - VTD_IR_ADDR_BASE < VTD_IR_RANGE_SIZE;

    return (VTDTranslation) {
        .iova = iova & VTD_PAGE_MASK,
        .addr = iova & VTD_PAGE_MASK,
        .mask = ~VTD_PAGE_MASK,
        .perm = blocked ? VTD_PERM_NONE : VTD_PERM_RW,
    };
}

/* Section 3.6, 3.7: what the paging entries say */
static VTDFaultReason vtd_walk(VTDUnit *unit, const VTDConfig *cfg,
                               uint64_t iova, VTDPerm want,
                               VTDTranslation *out)
{
    return cfg->stage == VTD_STAGE_FIRST ?
           vtd_walk_first_stage(&unit->memory, cfg, iova, want, out) :
           vtd_walk_second_stage(&unit->memory, cfg, iova, want, out);
}

/* The tables' answer, when the IOTLB has none */
static VTDFaultReason vtd_translate_miss(VTDAddressSpace *as, uint64_t iova,
                                         VTDPerm want, bool *fpd,
                                         VTDTranslation *out)
{
    VTDUnit *unit = as->unit;
    uint64_t began = vtd_epochs_now(&unit->epochs);
    VTDFaultReason reason;
    VTDConfig cfg;

    if (!(qatomic_read_u64(&unit->dmar) & VTD_DMAR_ENABLED)) {
        *out = vtd_identity(as, iova);
        return VTD_FR_NONE;
    }
    stat64_add(&as->misses, 1);
    reason = vtd_requester_config(as, &cfg);
    *fpd = cfg.fpd;
    if (reason != VTD_FR_NONE) {
        return reason;
    }
    if (cfg.stage == VTD_STAGE_PASS_THROUGH) {
        trace_vtd_translate_pt(vtd_sid(as), iova);
        vtd_want_switch(as);
        *out = vtd_identity(as, iova);
        return out->perm == VTD_PERM_NONE ? VTD_FR_SM_INTERRUPT_ADDRESS
                                          : VTD_FR_NONE;
    }
    reason = vtd_walk(unit, &cfg, iova, want, out);
    if (reason == VTD_FR_NONE) {
        vtd_iotlb_fill(&as->iotlb, began, out);
        trace_vtd_iotlb_page_update(vtd_sid(as), iova, out->addr, out->domain);
    }
    return reason;
}

/*
 * A hit that does not allow what is wanted goes to the tables as well: they
 * may allow it by now, and they know whether the fault is to be recorded.
 */
static bool vtd_translate_hit(VTDAddressSpace *as, uint64_t iova,
                              VTDPerm want, VTDTranslation *out)
{
    if (!vtd_iotlb_lookup(&as->iotlb, iova, out) || (want & ~out->perm)) {
        return false;
    }
    if (as->unit->count_hits) {
        /* Several threads do this, and may miss some: for people to look at */
        qatomic_set(&as->hits, qatomic_read(&as->hits) + 1);
    }
    return true;
}

static void vtd_translate_fault(VTDAddressSpace *as, VTDFaultReason reason,
                                uint64_t iova, VTDPerm want, bool fpd)
{
    VTDFault fault = {
        .reason = reason,
        .sid = vtd_sid(as),
        .write = want & VTD_PERM_W,
        .fpd = fpd,
        .has_pasid = as->pasid != VTD_PASID_NONE,
        .pasid = as->pasid,
        .info = iova & VTD_PAGE_MASK,
    };

    /* IOMMU_NONE is a probe by QEMU, not a request by the device */
    if (want != VTD_PERM_NONE) {
        stat64_add(&as->faults, 1);
        vtd_fault_record(as->unit, &fault);
    }
}

static inline IOMMUTLBEntry vtd_entry(uint64_t iova, uint64_t addr,
                                      uint64_t mask, VTDPerm perm)
{
    return (IOMMUTLBEntry) {
        .target_as = &address_space_memory,
        .iova = iova & ~mask,
        .translated_addr = addr,
        .addr_mask = mask,
        .perm = IOMMU_ACCESS_FLAG(perm & VTD_PERM_R, perm & VTD_PERM_W),
    };
}

/* Whatever vtd_translate() has no time for */
static IOMMUTLBEntry __attribute__((noinline))
vtd_translate_slowly(VTDAddressSpace *as, uint64_t iova, VTDPerm want)
{
    VTDFaultReason reason = VTD_FR_NONE;
    VTDTranslation t;
    bool fpd = false;

    if (!vtd_translate_hit(as, iova, want, &t)) {
        reason = vtd_translate_miss(as, iova, want, &fpd, &t);
    }
    if (reason != VTD_FR_NONE) {
        vtd_translate_fault(as, reason, iova, want, fpd);
        return vtd_entry(iova, 0, ~VTD_PAGE_MASK, VTD_PERM_NONE);
    }
    trace_vtd_dmar_translate(PCI_BUS_NUM(vtd_sid(as)), PCI_SLOT(as->devfn),
                             PCI_FUNC(as->devfn), iova, t.addr, t.mask);
    return vtd_entry(iova, t.addr, t.mask, t.perm);
}

/* Does anybody want to know of each translation? */
static inline bool vtd_translations_watched(VTDUnit *unit)
{
    return unit->count_hits ||
           trace_event_get_state_backends(TRACE_VTD_DMAR_TRANSLATE);
}

/*
 * The caller is in an RCU critical section or holds the big lock, without
 * which RCU reclaims nothing: there is no need for another section here.
 *
 * All that most translations need is inline here, and what is not is called
 * last: so the compiler has no registers to save.
 */
static IOMMUTLBEntry vtd_translate(IOMMUMemoryRegion *iommu, hwaddr iova,
                                   IOMMUAccessFlags flag, int iommu_idx)
{
    VTDAddressSpace *as = container_of(iommu, VTDAddressSpace, iommu);
    VTDPerm want = (flag & IOMMU_RO ? VTD_PERM_R : 0) |
                   (flag & IOMMU_WO ? VTD_PERM_W : 0);

    if (!vtd_translations_watched(as->unit)) {
        VTDHit hit = vtd_iotlb_lookup_4k(&as->iotlb, iova);

        if (hit.perm != VTD_PERM_NONE && !(want & ~hit.perm)) {
            return vtd_entry(iova, hit.addr, ~VTD_PAGE_MASK, hit.perm);
        }
    }
    return vtd_translate_slowly(as, iova, want);
}

static int vtd_notify_flag_changed(IOMMUMemoryRegion *iommu,
                                   IOMMUNotifierFlag old,
                                   IOMMUNotifierFlag new, Error **errp)
{
    return vtd_notify_flags(container_of(iommu, VTDAddressSpace, iommu),
                            old, new, errp);
}

static void vtd_replay(IOMMUMemoryRegion *iommu, IOMMUNotifier *n)
{
    vtd_notify_replay(container_of(iommu, VTDAddressSpace, iommu), n);
}

/* Should DMA of @as go through the hook? */
static bool vtd_space_translated(VTDAddressSpace *as)
{
    VTDConfig cfg;

    return (qatomic_read_u64(&as->unit->dmar) & VTD_DMAR_ENABLED) &&
           !(vtd_requester_config(as, &cfg) == VTD_FR_NONE &&
             cfg.stage == VTD_STAGE_PASS_THROUGH);
}

void vtd_space_update(VTDAddressSpace *as)
{
    bool dmar = qatomic_read_u64(&as->unit->dmar) & VTD_DMAR_ENABLED;
    bool ir = qatomic_read_u64(&as->unit->ir) & VTD_IR_ENABLED;
    bool translated = vtd_space_translated(as);

    assert(bql_locked());
    if (as->pasid != VTD_PASID_NONE) {
        return;
    }
    qatomic_set(&as->switch_wanted, false);
    if (as->private.enabled == (dmar || ir) &&
        MEMORY_REGION(&as->iommu)->enabled == translated) {
        return;
    }
    trace_vtd_switch_address_space(PCI_BUS_NUM(vtd_sid(as)),
                                   PCI_SLOT(as->devfn), PCI_FUNC(as->devfn),
                                   translated);
    memory_region_transaction_begin();
    memory_region_set_enabled(&as->shared_alias, !(dmar || ir));
    memory_region_set_enabled(&as->private, dmar || ir);
    memory_region_set_enabled(&as->system_alias, !translated);
    memory_region_set_enabled(MEMORY_REGION(&as->iommu), translated);
    memory_region_transaction_commit();
}

void vtd_spaces_update(VTDUnit *unit)
{
    VTDAddressSpace *as;

    memory_region_transaction_begin();
    QLIST_FOREACH(as, &unit->space_list, next) {
        vtd_space_update(as);
    }
    memory_region_transaction_commit();
}

void vtd_spaces_update_wanted(VTDUnit *unit)
{
    VTDAddressSpace *as;

    QLIST_FOREACH(as, &unit->space_list, next) {
        if (qatomic_read(&as->switch_wanted)) {
            vtd_space_update(as);
        }
    }
}

/* Spaces are found by the bus object, whose number may not be known yet */
typedef struct VTDSpaceKey {
    PCIBus *bus;
    uint32_t pasid;
    uint8_t devfn;
} VTDSpaceKey;

static guint vtd_space_hash(gconstpointer p)
{
    const VTDSpaceKey *key = p;

    return g_direct_hash(key->bus) ^ key->devfn ^ key->pasid << 8;
}

static gboolean vtd_space_equal(gconstpointer p, gconstpointer q)
{
    const VTDSpaceKey *a = p, *b = q;

    return a->bus == b->bus && a->devfn == b->devfn && a->pasid == b->pasid;
}

static void vtd_space_init_regions(VTDAddressSpace *as)
{
    VTDUnit *unit = as->unit;
    Object *owner = OBJECT(unit->owner);
    g_autofree char *name = g_strdup_printf("vtd-%02x.%x",
                                            PCI_SLOT(as->devfn),
                                            PCI_FUNC(as->devfn));

    memory_region_init(&as->root, owner, name, UINT64_MAX);
    memory_region_init_alias(&as->shared_alias, owner, "vtd-nodmar",
                             &unit->shared, 0, UINT64_MAX);
    memory_region_init(&as->private, owner, "vtd-private", UINT64_MAX);
    memory_region_init_alias(&as->system_alias, owner, "vtd-sys-alias",
                             get_system_memory(), 0,
                             memory_region_size(get_system_memory()));
    memory_region_init_iommu(&as->iommu, sizeof(as->iommu),
                             TYPE_INTEL_IOMMU_MEMORY_REGION, owner,
                             "vtd-dmar", UINT64_MAX);
    memory_region_init_io(&as->interrupts, owner, &vtd_interrupt_ops, as,
                          "vtd-ir", VTD_IR_RANGE_SIZE);
    memory_region_set_enabled(&as->private, false);
    memory_region_set_enabled(MEMORY_REGION(&as->iommu), false);
    memory_region_add_subregion(&as->root, 0, &as->shared_alias);
    memory_region_add_subregion(&as->root, 0, &as->private);
    memory_region_add_subregion(&as->private, 0, &as->system_alias);
    memory_region_add_subregion(&as->private, 0, MEMORY_REGION(&as->iommu));
    memory_region_add_subregion_overlap(&as->private, VTD_IR_ADDR_BASE,
                                        &as->interrupts,
                                        VTD_PRIORITY_INTERRUPTS);
    address_space_init(&as->as, &as->root, "vtd-root");
}

/* Requests with PASID go through the hook, whatever the tables ask for */
static void vtd_space_always_translated(VTDAddressSpace *as)
{
    memory_region_set_enabled(&as->shared_alias, false);
    memory_region_set_enabled(&as->interrupts, false);
    memory_region_set_enabled(&as->system_alias, false);
    memory_region_set_enabled(&as->private, true);
    memory_region_set_enabled(MEMORY_REGION(&as->iommu), true);
}

/* @number: of the bus, as long as it has none that software can change */
static VTDAddressSpace *vtd_space_new(VTDUnit *unit, const VTDSpaceKey *key,
                                      uint8_t number)
{
    VTDAddressSpace *as = g_new0(VTDAddressSpace, 1);

    as->unit = unit;
    as->bus = key->bus;
    as->devfn = key->devfn;
    as->pasid = key->pasid;
    as->root_bus_number = number;
    as->bus_number = &as->root_bus_number;
    if (as->bus && !pci_bus_is_root(as->bus)) {
        as->bus_number = as->bus->parent_dev->config + PCI_SECONDARY_BUS;
    }
    vtd_iotlb_init(&as->iotlb, &unit->epochs);
    memory_region_transaction_begin();
    vtd_space_init_regions(as);
    if (as->pasid != VTD_PASID_NONE) {
        unit->pasid_spaces++;
        vtd_space_always_translated(as);
    }
    vtd_space_update(as);
    memory_region_transaction_commit();
    QLIST_INSERT_HEAD(&unit->space_list, as, next);
    return as;
}

static VTDAddressSpace *vtd_space_find(VTDUnit *unit, const VTDSpaceKey *key,
                                       uint8_t number)
{
    VTDAddressSpace *as = g_hash_table_lookup(unit->spaces, key);

    if (as || (key->pasid != VTD_PASID_NONE &&
               unit->pasid_spaces >= VTD_PASID_SPACES)) {
        return as;
    }
    as = vtd_space_new(unit, key, number);
    g_hash_table_insert(unit->spaces, g_memdup2(key, sizeof(*key)), as);
    return as;
}

VTDAddressSpace *vtd_pasid_space(VTDUnit *unit, PCIBus *bus, int devfn,
                                 uint32_t pasid)
{
    VTDSpaceKey key = { .bus = bus, .devfn = devfn, .pasid = pasid };

    return vtd_space_find(unit, &key,
                          pci_bus_is_root(bus) ? pci_bus_num(bus) : 0);
}

VTDAddressSpace *vtd_address_space(VTDUnit *unit, PCIBus *bus, int devfn)
{
    return vtd_pasid_space(unit, bus, devfn, VTD_PASID_NONE);
}

VTDAddressSpace *vtd_platform_space(VTDUnit *unit, uint16_t sid)
{
    VTDSpaceKey key = {
        .devfn = PCI_BDF_TO_DEVFN(sid), .pasid = VTD_PASID_NONE,
    };

    return vtd_space_find(unit, &key, PCI_BUS_NUM(sid));
}

/* No flat view refers to the regions any more */
static void vtd_space_reclaim(VTDAddressSpace *as)
{
    MemoryRegion *regions[] = {
        &as->interrupts, MEMORY_REGION(&as->iommu), &as->system_alias,
        &as->private, &as->shared_alias, &as->root,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(regions); i++) {
        object_unparent(OBJECT(regions[i]));
    }
    vtd_iotlb_destroy(&as->iotlb);
    g_free(as);
}

/*
 * The address space was destroyed just before, in this grace period; what it
 * let go of (flat views, and the regions in them) goes in the next one.
 */
static void vtd_space_grace(VTDAddressSpace *as)
{
    call_rcu(as, vtd_space_reclaim, rcu);
}

static void vtd_space_free(gpointer p)
{
    VTDAddressSpace *as = p;

    QLIST_REMOVE(as, next);
    as->unit->pasid_spaces -= as->pasid != VTD_PASID_NONE;
    vtd_notify_destroy(as);
    if (as->host) {
        object_unref(OBJECT(as->host));
    }
    memory_region_transaction_begin();
    memory_region_del_subregion(&as->private, &as->interrupts);
    memory_region_del_subregion(&as->private, MEMORY_REGION(&as->iommu));
    memory_region_del_subregion(&as->private, &as->system_alias);
    memory_region_del_subregion(&as->root, &as->private);
    memory_region_del_subregion(&as->root, &as->shared_alias);
    memory_region_transaction_commit();
    address_space_destroy(&as->as);
    call_rcu(as, vtd_space_grace, rcu);
}

static gboolean vtd_space_on_bus(gpointer key, gpointer value, gpointer bus)
{
    return ((VTDAddressSpace *)value)->bus == bus;
}

/*
 * There is no hook by which a device gives its address space back.  When a
 * bridge goes, its devices have gone before it, and the bus object becomes
 * free memory that another bridge may be given: the spaces on it must go.
 */
static void vtd_device_unrealized(DeviceListener *listener, DeviceState *dev)
{
    VTDUnit *unit = container_of(listener, VTDUnit, unplug);

    if (object_dynamic_cast(OBJECT(dev), TYPE_PCI_BRIDGE)) {
        g_hash_table_foreach_remove(unit->spaces, vtd_space_on_bus,
                                    pci_bridge_get_sec_bus(PCI_BRIDGE(dev)));
    }
}

void vtd_spaces_init(VTDUnit *unit)
{
    Object *owner = OBJECT(unit->owner);

    QLIST_INIT(&unit->space_list);
    unit->spaces = g_hash_table_new_full(vtd_space_hash, vtd_space_equal,
                                         g_free, vtd_space_free);
    memory_region_init(&unit->shared, owner, "vtd-nodmar", UINT64_MAX);
    memory_region_init_alias(&unit->shared_system, owner, "vtd-sys-alias",
                             get_system_memory(), 0,
                             memory_region_size(get_system_memory()));
    memory_region_init_io(&unit->shared_interrupts, owner,
                          &vtd_interrupt_shared_ops, unit, "vtd-ir",
                          VTD_IR_RANGE_SIZE);
    memory_region_add_subregion(&unit->shared, 0, &unit->shared_system);
    memory_region_add_subregion_overlap(&unit->shared, VTD_IR_ADDR_BASE,
                                        &unit->shared_interrupts,
                                        VTD_PRIORITY_INTERRUPTS);
    unit->unplug.unrealize = vtd_device_unrealized;
    device_listener_register(&unit->unplug);
}

static void vtd_memory_region_class_init(ObjectClass *klass, void *data)
{
    IOMMUMemoryRegionClass *imrc = IOMMU_MEMORY_REGION_CLASS(klass);

    imrc->translate = vtd_translate;
    imrc->notify_flag_changed = vtd_notify_flag_changed;
    imrc->replay = vtd_replay;
}

static const TypeInfo vtd_memory_region_info = {
    .name = TYPE_INTEL_IOMMU_MEMORY_REGION,
    .parent = TYPE_IOMMU_MEMORY_REGION,
    .class_init = vtd_memory_region_class_init,
};

static void vtd_dma_register_types(void)
{
    type_register_static(&vtd_memory_region_info);
}

type_init(vtd_dma_register_types)
