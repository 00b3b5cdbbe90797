/*
 * An ideal translation cache, for benchmarks alone
 *
 * Its translate hook looks one page up in an array: it checks nothing, is
 * never invalidated and never misses.  What remains is what QEMU's memory API
 * costs, so no IOMMU model can be faster.  IOVA = address + "shift".
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "exec/address-spaces.h"
#include "hw/i386/pc.h"
#include "hw/pci/pci_bus.h"
#include "hw/qdev-properties.h"

#define PAGE_BITS 12
#define PAGES (1u << 18)        /* 1 GiB */
#define TYPE_IDEAL_IOMMU "ideal-iommu"
#define TYPE_IDEAL_REGION "ideal-iommu-memory-region"

OBJECT_DECLARE_SIMPLE_TYPE(IdealIOMMU, IDEAL_IOMMU)

typedef struct IdealSpace {
    IdealIOMMU *unit;
    IOMMUMemoryRegion region;
    AddressSpace as;
} IdealSpace;

struct IdealIOMMU {
    DeviceState parent_obj;
    uint64_t shift;
    uint64_t *frame;
    IdealSpace *space[PCI_DEVFN_MAX];
};

static IOMMUTLBEntry ideal_translate(IOMMUMemoryRegion *region, hwaddr iova,
                                     IOMMUAccessFlags flag, int index)
{
    IdealIOMMU *s = container_of(region, IdealSpace, region)->unit;
    uint64_t page = (iova - s->shift) >> PAGE_BITS;

    return (IOMMUTLBEntry) {
        .target_as = &address_space_memory,
        .iova = iova & ~MAKE_64BIT_MASK(0, PAGE_BITS),
        .translated_addr = s->frame[page & (PAGES - 1)],
        .addr_mask = MAKE_64BIT_MASK(0, PAGE_BITS),
        .perm = IOMMU_RW,
    };
}

static AddressSpace *ideal_get_address_space(PCIBus *bus, void *opaque,
                                             int devfn)
{
    IdealIOMMU *s = opaque;
    IdealSpace *space = s->space[devfn];

    if (!space) {
        space = s->space[devfn] = g_new0(IdealSpace, 1);
        space->unit = s;
        memory_region_init_iommu(&space->region, sizeof(space->region),
                                 TYPE_IDEAL_REGION, OBJECT(s), "ideal",
                                 UINT64_MAX);
        address_space_init(&space->as, MEMORY_REGION(&space->region),
                           "ideal");
    }
    return &space->as;
}

static const PCIIOMMUOps ideal_ops = {
    .get_address_space = ideal_get_address_space,
};

static void ideal_realize(DeviceState *dev, Error **errp)
{
    IdealIOMMU *s = IDEAL_IOMMU(dev);

    s->frame = g_new(uint64_t, PAGES);
    for (uint64_t i = 0; i < PAGES; i++) {
        s->frame[i] = i << PAGE_BITS;
    }
    pci_setup_iommu(PC_MACHINE(qdev_get_machine())->pcibus, &ideal_ops, s);
}

static const Property ideal_properties[] = {
    DEFINE_PROP_UINT64("shift", IdealIOMMU, shift, 0),
};

static void ideal_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);

    dc->realize = ideal_realize;
    dc->user_creatable = true;
    dc->hotpluggable = false;
    device_class_set_props(dc, ideal_properties);
}

static void ideal_region_class_init(ObjectClass *klass, void *data)
{
    IOMMU_MEMORY_REGION_CLASS(klass)->translate = ideal_translate;
}

static const TypeInfo ideal_types[] = {
    {
        .name = TYPE_IDEAL_IOMMU,
        .parent = TYPE_DEVICE,
        .instance_size = sizeof(IdealIOMMU),
        .class_init = ideal_class_init,
    },
    {
        .name = TYPE_IDEAL_REGION,
        .parent = TYPE_IOMMU_MEMORY_REGION,
        .class_init = ideal_region_class_init,
    },
};

DEFINE_TYPES(ideal_types)
