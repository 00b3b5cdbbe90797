/*
 * A test device that accesses memory, with or without a PASID
 *
 * No other device issues requests with PASID.  This one is for the tests of
 * intel-iommu; it is of no use to a guest.  BAR 0 has, little-endian:
 *
 *   0x0000  8 bytes  address of the request
 *   0x0008  4 bytes  its length, up to 4096
 *   0x000c  4 bytes  bits 19:0 PASID, bit 31 set: the request has one
 *   0x0010  4 bytes  written: 1 read into the buffer, 2 write from it,
 *                    3 probe (a question by QEMU: what is allowed there?)
 *   0x0014  4 bytes  what came of it: bit 31 set: there is no address space
 *                    for that PASID; after a probe bit 0 reads, bit 1 writes
 *                    are allowed; else 0 success, 1 failure
 *   0x0018  8 bytes  after a probe: where the address leads
 *   0x1000  4096 bytes of buffer
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/i386/intel_iommu.h"
#include "hw/pci/pci_device.h"
#include "migration/vmstate.h"
#include "qom/object.h"

#define TYPE_VTD_TESTDEV "vtd-testdev"
OBJECT_DECLARE_SIMPLE_TYPE(VTDTestDev, VTD_TESTDEV)

#define TESTDEV_ADDRESS                0x00
#define TESTDEV_LENGTH                 0x08
#define TESTDEV_PASID                  0x0c
#define TESTDEV_PASID_PRESENT          (1U << 31)
#define TESTDEV_COMMAND                0x10
#define TESTDEV_STATUS                 0x14
#define TESTDEV_STATUS_FAILED          1
#define TESTDEV_STATUS_NO_SPACE        (1U << 31)
#define TESTDEV_RESULT                 0x18
#define TESTDEV_BUFFER                 0x1000
#define TESTDEV_BUFFER_SIZE            0x1000

enum { TESTDEV_READ = 1, TESTDEV_WRITE = 2, TESTDEV_PROBE = 3 };

struct VTDTestDev {
    PCIDevice parent_obj;

    MemoryRegion bar;
    uint64_t address;
    uint32_t length;
    uint32_t pasid;
    uint32_t status;
    uint64_t result;
    uint8_t buffer[TESTDEV_BUFFER_SIZE];
};

static AddressSpace *testdev_space(VTDTestDev *d)
{
    return d->pasid & TESTDEV_PASID_PRESENT ?
           intel_iommu_pasid_address_space(&d->parent_obj,
                                           d->pasid & 0xfffff) :
           pci_get_address_space(&d->parent_obj);
}

static uint32_t testdev_dma(VTDTestDev *d, AddressSpace *as, bool write)
{
    MemTxResult result = address_space_rw(as, d->address,
                                          MEMTXATTRS_UNSPECIFIED, d->buffer,
                                          MIN(d->length, sizeof(d->buffer)),
                                          write);

    return result == MEMTX_OK ? 0 : TESTDEV_STATUS_FAILED;
}

/* IOMMU_NONE asks without making a request */
static uint32_t testdev_probe(VTDTestDev *d, AddressSpace *as)
{
    MemoryRegionSection section = memory_region_find(as->root, d->address, 1);
    IOMMUMemoryRegion *iommu = section.mr ?
                               memory_region_get_iommu(section.mr) : NULL;
    IOMMUTLBEntry entry = { .translated_addr = d->address, .perm = IOMMU_RW };

    if (iommu) {
        entry = memory_region_get_iommu_class_nocheck(iommu)->translate(
            iommu, d->address, IOMMU_NONE, 0);
    }
    d->result = (entry.translated_addr & ~entry.addr_mask) |
                (d->address & entry.addr_mask);
    if (section.mr) {
        memory_region_unref(section.mr);
    }
    return (entry.perm & IOMMU_RO ? 1 : 0) | (entry.perm & IOMMU_WO ? 2 : 0);
}

static uint32_t testdev_command(VTDTestDev *d, uint32_t command)
{
    AddressSpace *as = testdev_space(d);

    if (!as) {
        return TESTDEV_STATUS_NO_SPACE;
    }
    switch (command) {
    case TESTDEV_READ:
    case TESTDEV_WRITE:
        return testdev_dma(d, as, command == TESTDEV_WRITE);
    case TESTDEV_PROBE:
        return testdev_probe(d, as);
    default:
        return TESTDEV_STATUS_FAILED;
    }
}

static uint64_t testdev_read(void *opaque, hwaddr addr, unsigned size)
{
    VTDTestDev *d = opaque;

    if (addr >= TESTDEV_BUFFER) {
        return ldn_le_p(d->buffer + addr - TESTDEV_BUFFER, size);
    }
    switch (addr) {
    case TESTDEV_ADDRESS:
        return d->address;
    case TESTDEV_LENGTH:
        return d->length;
    case TESTDEV_PASID:
        return d->pasid;
    case TESTDEV_STATUS:
        return d->status;
    case TESTDEV_RESULT:
        return d->result;
    default:
        return 0;
    }
}

static void testdev_write(void *opaque, hwaddr addr, uint64_t value,
                          unsigned size)
{
    VTDTestDev *d = opaque;

    if (addr >= TESTDEV_BUFFER) {
        stn_le_p(d->buffer + addr - TESTDEV_BUFFER, size, value);
        return;
    }
    switch (addr) {
    case TESTDEV_ADDRESS:
        d->address = value;
        break;
    case TESTDEV_LENGTH:
        d->length = value;
        break;
    case TESTDEV_PASID:
        d->pasid = value;
        break;
    case TESTDEV_COMMAND:
        d->status = testdev_command(d, value);
        break;
    }
}

static const MemoryRegionOps testdev_ops = {
    .read = testdev_read,
    .write = testdev_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 4, .max_access_size = 8 },
    .impl = { .min_access_size = 4, .max_access_size = 8 },
};

static void testdev_realize(PCIDevice *dev, Error **errp)
{
    VTDTestDev *d = VTD_TESTDEV(dev);

    memory_region_init_io(&d->bar, OBJECT(d), &testdev_ops, d, "vtd-testdev",
                          TESTDEV_BUFFER + TESTDEV_BUFFER_SIZE);
    pci_register_bar(dev, 0, PCI_BASE_ADDRESS_SPACE_MEMORY, &d->bar);
    pcie_endpoint_cap_init(dev, 0x80);
}

static void testdev_exit(PCIDevice *dev)
{
    pcie_cap_exit(dev);
}

static const VMStateDescription testdev_vmstate = {
    .name = "vtd-testdev",
    .unmigratable = 1,
};

static void testdev_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *k = PCI_DEVICE_CLASS(klass);

    k->realize = testdev_realize;
    k->exit = testdev_exit;
    k->vendor_id = PCI_VENDOR_ID_QEMU;
    k->device_id = 0x11f0;
    k->class_id = PCI_CLASS_OTHERS;
    dc->desc = "Memory accesses with PASID, for tests of intel-iommu";
    dc->vmsd = &testdev_vmstate;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
}

static const TypeInfo testdev_info = {
    .name = TYPE_VTD_TESTDEV,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(VTDTestDev),
    .class_init = testdev_class_init,
    .interfaces = (InterfaceInfo[]) {
        { INTERFACE_PCIE_DEVICE },
        { },
    },
};

static void testdev_register_types(void)
{
    type_register_static(&testdev_info);
}

type_init(testdev_register_types)
