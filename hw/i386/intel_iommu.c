/*
 * Intel VT-d (intel-iommu): the q35 front end
 *
 * ``-device intel-iommu`` describes to a remapping unit what q35 offers, and
 * wires it up: registers at 0xfed90000, the address spaces of the PCI bus
 * and of the IOAPIC, interrupt routes of the host's kernel.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "hw/i386/pc.h"
#include "hw/pci-host/q35.h"
#include "hw/qdev-properties.h"
#include "exec/address-spaces.h"
#include "system/kvm.h"
#include "system/system.h"
#include "intel_iommu_internal.h"
#include "kvm/kvm_i386.h"

static AddressSpace *vtd_get_address_space(PCIBus *bus, void *opaque,
                                           int devfn)
{
    IntelIOMMUState *s = opaque;

    return &vtd_address_space(s->unit, bus, devfn)->as;
}

AddressSpace *intel_iommu_pasid_address_space(PCIDevice *dev, uint32_t pasid)
{
    Object *unit = OBJECT(x86_iommu_get_default());
    IntelIOMMUState *s = (IntelIOMMUState *)
        object_dynamic_cast(unit, TYPE_INTEL_IOMMU_DEVICE);
    PCIBus *bus = pci_get_bus(dev);
    VTDAddressSpace *as;

    if (!s || !s->pasid || pasid > VTD_PASID_MAX) {
        return NULL;
    }
    if (pci_bus_bypass_iommu(bus)) {
        return &address_space_memory;
    }
    as = vtd_pasid_space(s->unit, bus, dev->devfn, pasid);
    return as ? &as->as : NULL;
}

/* The host must be able to map whatever the guest's tables say */
static bool vtd_check_host_device(IntelIOMMUState *s, HostIOMMUDevice *host,
                                  Error **errp)
{
    HostIOMMUDeviceClass *hc = HOST_IOMMU_DEVICE_GET_CLASS(host);
    int aw_bits;

    if (!hc->get_cap) {
        error_setg(errp, ".get_cap() not implemented");
        return false;
    }
    aw_bits = hc->get_cap(host, HOST_IOMMU_DEVICE_CAP_AW_BITS, errp);
    if (aw_bits < 0) {
        return false;
    }
    if (s->aw_bits > aw_bits) {
        error_setg(errp, "aw-bits %d > host aw-bits %d", s->aw_bits, aw_bits);
        return false;
    }
    if (s->flts) {
        error_setg(errp,
                   "host device is uncompatible with stage-1 translation");
        return false;
    }
    return true;
}

static bool vtd_set_iommu_device(PCIBus *bus, void *opaque, int devfn,
                                 HostIOMMUDevice *host, Error **errp)
{
    IntelIOMMUState *s = opaque;
    VTDAddressSpace *as = vtd_address_space(s->unit, bus, devfn);

    if (as->host) {
        error_setg(errp, "Host IOMMU device already exist");
        return false;
    }
    if (!vtd_check_host_device(s, host, errp)) {
        return false;
    }
    as->host = host;
    object_ref(OBJECT(host));
    return true;
}

static void vtd_unset_iommu_device(PCIBus *bus, void *opaque, int devfn)
{
    IntelIOMMUState *s = opaque;
    VTDAddressSpace *as = vtd_address_space(s->unit, bus, devfn);

    if (as->host) {
        object_unref(OBJECT(as->host));
        as->host = NULL;
    }
}

static void vtd_renumbered(PCIBus *bus, void *opaque)
{
    IntelIOMMUState *s = opaque;

    vtd_bus_renumbered(s->unit, bus);
}

static const PCIIOMMUOps vtd_iommu_ops = {
    .get_address_space = vtd_get_address_space,
    .set_iommu_device = vtd_set_iommu_device,
    .unset_iommu_device = vtd_unset_iommu_device,
    .bus_renumbered = vtd_renumbered,
};

/*
 * For routes of interrupts that the host's kernel delivers.  Asking is not
 * an interrupt: no fault is recorded.
 */
static int vtd_int_remap(X86IOMMUState *x86, MSIMessage *src, MSIMessage *dst,
                         uint16_t sid)
{
    IntelIOMMUState *s = INTEL_IOMMU_DEVICE(x86);
    VTDFault fault;

    return vtd_interrupt_remap(s->unit, src,
                               sid == X86_IOMMU_SID_INVALID ?
                               VTD_SID_UNKNOWN : sid,
                               dst, &fault) == VTD_FR_NONE ? 0 : -EINVAL;
}

static void vtd_iec_changed(DeviceState *owner, bool global, uint32_t index,
                            uint32_t mask)
{
    x86_iommu_iec_notify_all(X86_IOMMU_DEVICE(owner), global, index, mask);
}

/* AUTO means on where guests expect it and it can work: under KVM */
static bool vtd_decide_eim(IntelIOMMUState *s, Error **errp)
{
    bool ir = x86_iommu_ir_supported(X86_IOMMU_DEVICE(s));

    if (s->intr_eim == ON_OFF_AUTO_ON && !ir) {
        error_setg(errp, "eim=on cannot be selected without intremap=on");
        return false;
    }
    if (s->intr_eim == ON_OFF_AUTO_AUTO) {
        s->intr_eim = ir && (kvm_irqchip_in_kernel() || s->buggy_eim) ?
                      ON_OFF_AUTO_ON : ON_OFF_AUTO_OFF;
    }
    if (s->intr_eim == ON_OFF_AUTO_ON && !s->buggy_eim &&
        kvm_irqchip_is_split() && !kvm_enable_x2apic()) {
        error_setg(errp, "eim=on requires support on the KVM side"
                   "(X2APIC_API, first shipped in v4.7)");
        return false;
    }
    return true;
}

/* With first-stage translation there is no 3-level paging */
static bool vtd_check_width(IntelIOMMUState *s, Error **errp)
{
    const char *mode = s->scalable_mode ? "Scalable mode(flts=off)"
                                        : "Legacy mode";

    if (s->aw_bits == VTD_HOST_AW_48BIT || s->aw_bits == VTD_HOST_AW_57BIT ||
        (s->aw_bits == VTD_HOST_AW_39BIT && !s->flts)) {
        return true;
    }
    if (s->flts) {
        error_setg(errp, "Scalable mode(flts=on): supported values for "
                   "aw-bits are: %d, %d", VTD_HOST_AW_48BIT,
                   VTD_HOST_AW_57BIT);
    } else {
        error_setg(errp, "%s: supported values for aw-bits are: %d, %d, %d",
                   mode, VTD_HOST_AW_39BIT, VTD_HOST_AW_48BIT,
                   VTD_HOST_AW_57BIT);
    }
    return false;
}

/* The order decides which of several mistakes is told */
static bool vtd_check_properties(IntelIOMMUState *s, Error **errp)
{
    if (s->pasid && X86_IOMMU_DEVICE(s)->dt_supported) {
        error_setg(errp, "PASID based device IOTLB is not supported");
        return false;
    }
    if (!vtd_decide_eim(s, errp)) {
        return false;
    }
    if (s->flts && !s->scalable_mode) {
        error_setg(errp, "x-flts is only available in scalable mode");
        return false;
    }
    if (!vtd_check_width(s, errp)) {
        return false;
    }
    if (s->scalable_mode && !s->dma_drain) {
        error_setg(errp, "Need to set dma_drain for scalable mode");
        return false;
    }
    if (s->pasid && !s->scalable_mode) {
        error_setg(errp, "Need to set scalable mode for PASID");
        return false;
    }
    if (s->fault_records < 1 || s->fault_records > VTD_MAX_FAULT_RECORDS) {
        error_setg(errp, "fault-records must be 1 to %u, not %u",
                   VTD_MAX_FAULT_RECORDS, s->fault_records);
        return false;
    }
    return true;
}

static VTDCapDesc vtd_describe(IntelIOMMUState *s)
{
    X86IOMMUState *x86 = X86_IOMMU_DEVICE(s);

    return (VTDCapDesc) {
        .aw_bits = s->aw_bits,
        .fault_records = s->fault_records,
        .caching_mode = s->caching_mode,
        .dma_translation = s->dma_translation,
        .dma_drain = s->dma_drain,
        .device_iotlb = x86->dt_supported,
        .interrupt_remapping = x86_iommu_ir_supported(x86),
        .eim = s->intr_eim == ON_OFF_AUTO_ON,
        .pass_through = x86->pt_supported,
        .snoop_control = s->snoop_control,
        .stale_tm = s->stale_tm,
        .scalable = s->scalable_mode,
        .first_stage = s->flts,
        .first_stage_1g = s->fs1gp,
        .pasid = s->pasid,
    };
}

static int vtd_check_assigned(Object *child, void *opaque)
{
    IntelIOMMUState *s = opaque;

    if (object_dynamic_cast(child, "vfio-pci") && !s->caching_mode) {
        error_report("We need to set caching-mode=on for intel-iommu to "
                     "enable device assignment with IOMMU protection.");
        exit(1);
    }
    return 0;
}

/* Devices named before this one on the command line are there only now */
static void vtd_machine_done(Notifier *notifier, void *data)
{
    X86IOMMUState *x86 = x86_iommu_get_default();

    object_child_foreach_recursive(object_get_root(), vtd_check_assigned,
                                   INTEL_IOMMU_DEVICE(x86));
}

static Notifier vtd_machine_done_notifier = { .notify = vtd_machine_done };

static void vtd_realize(DeviceState *dev, Error **errp)
{
    IntelIOMMUState *s = INTEL_IOMMU_DEVICE(dev);
    MachineState *ms = MACHINE(qdev_get_machine());
    PCIBus *bus = PC_MACHINE(ms)->pcibus;
    uint16_t ioapic = PCI_BUILD_BDF(Q35_PSEUDO_BUS_PLATFORM,
                                    Q35_PSEUDO_DEVFN_IOAPIC);
    VTDCapDesc cap;

    if (!vtd_check_properties(s, errp)) {
        return;
    }
    cap = vtd_describe(s);
    s->unit = vtd_unit_new(dev, &cap);
    s->unit->iec_changed = vtd_iec_changed;
    s->unit->count_hits = s->count_hits;
    s->stream.frcd_words = 2 * cap.fault_records;
    s->stream.frcd = g_new0(uint64_t, s->stream.frcd_words);
    sysbus_init_mmio(SYS_BUS_DEVICE(s), &s->unit->mmio);
    sysbus_mmio_map(SYS_BUS_DEVICE(s), 0, Q35_HOST_BRIDGE_IOMMU_ADDR);
    pci_setup_iommu(bus, &vtd_iommu_ops, s);
    X86_MACHINE(ms)->ioapic_as = &vtd_platform_space(s->unit, ioapic)->as;
    qemu_add_machine_init_done_notifier(&vtd_machine_done_notifier);
}

static void vtd_reset_exit(Object *obj, ResetType type)
{
    vtd_unit_reset(INTEL_IOMMU_DEVICE(obj)->unit);
}

static const Property vtd_properties[] = {
    DEFINE_PROP_UINT32("version", IntelIOMMUState, version, 0),
    DEFINE_PROP_UINT8("aw-bits", IntelIOMMUState, aw_bits, VTD_HOST_AW_48BIT),
    DEFINE_PROP_BOOL("caching-mode", IntelIOMMUState, caching_mode, false),
    DEFINE_PROP_BOOL("dma-drain", IntelIOMMUState, dma_drain, true),
    DEFINE_PROP_BOOL("dma-translation", IntelIOMMUState, dma_translation,
                     true),
    DEFINE_PROP_ON_OFF_AUTO("eim", IntelIOMMUState, intr_eim,
                            ON_OFF_AUTO_AUTO),
    DEFINE_PROP_UINT16("fault-records", IntelIOMMUState, fault_records, 1),
    DEFINE_PROP_BOOL("fs1gp", IntelIOMMUState, fs1gp, true),
    DEFINE_PROP_BOOL("snoop-control", IntelIOMMUState, snoop_control, false),
    DEFINE_PROP_BOOL("stale-tm", IntelIOMMUState, stale_tm, false),
    DEFINE_PROP_BOOL("x-buggy-eim", IntelIOMMUState, buggy_eim, false),
    DEFINE_PROP_BOOL("x-count-hits", IntelIOMMUState, count_hits, false),
    DEFINE_PROP_BOOL("x-flts", IntelIOMMUState, flts, false),
    DEFINE_PROP_BOOL("x-pasid-mode", IntelIOMMUState, pasid, false),
    DEFINE_PROP_BOOL("x-scalable-mode", IntelIOMMUState, scalable_mode,
                     false),
};

static void vtd_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    X86IOMMUClass *xc = X86_IOMMU_DEVICE_CLASS(klass);

    dc->desc = "Intel IOMMU (VT-d) DMA Remapping device";
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    dc->user_creatable = true;
    dc->hotpluggable = false;
    device_class_set_props(dc, vtd_properties);
    dc->vmsd = &vtd_vmstate;
    /*
     * In the last phase: by then devices have been quietened, and no DMA of
     * theirs meets a unit that has just stopped to translate.
     */
    RESETTABLE_CLASS(klass)->phases.exit = vtd_reset_exit;
    xc->realize = vtd_realize;
    xc->int_remap = vtd_int_remap;
}

static const TypeInfo vtd_info = {
    .name = TYPE_INTEL_IOMMU_DEVICE,
    .parent = TYPE_X86_IOMMU_DEVICE,
    .instance_size = sizeof(IntelIOMMUState),
    .class_init = vtd_class_init,
};

static void vtd_register_types(void)
{
    type_register_static(&vtd_info);
}

type_init(vtd_register_types)
