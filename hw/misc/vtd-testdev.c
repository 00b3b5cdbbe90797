/*
 * A test device that accesses memory, with or without a PASID, and listens
 *
 * No other device issues requests with PASID.  This one is for the tests of
 * intel-iommu; it is of no use to a guest.  BAR 0 has, little-endian:
 *
 *   0x0000  8 bytes  address of the request
 *   0x0008  4 bytes  its length, up to 4096
 *   0x000c  4 bytes  bits 19:0 PASID, bit 31 set: the request has one
 *   0x0010  4 bytes  written: 1 read into the buffer, 2 write from it,
 *                    3 probe (a question by QEMU: what is allowed there?);
 *                    and of a listener, see below: 4 what is mapped from the
 *                    address on, 5 the latest events
 *   0x0014  4 bytes  what came of it: bit 31 set: there is no address space
 *                    for that PASID; after a probe bit 0 reads, bit 1 writes
 *                    are allowed; after 4 and 5 how many are in the buffer;
 *                    else 0 success, 1 failure
 *   0x0018  8 bytes  after a probe: where the address leads
 *   0x1000  4096 bytes of buffer
 *
 * It also listens to what is mapped for it, as hw/vfio and vhost do, whose
 * kernels' rules it keeps: what is mapped must not be mapped again, and an
 * unmapping must not cut a mapping in two.  Of its listeners
 *
 *   0x0020  8 bytes  first address that it listens for
 *   0x0028  8 bytes  the last one
 *   0x0030  4 bytes  which listener 0x34 to 0x4c are about, and commands 4, 5
 *   0x0034  4 bytes  written: the IOMMU_NOTIFIER flags to listen with in the
 *                    address space of PASID, 0 to end; it has forgotten all
 *                    then.  Read: the same, and bit 31: the unit has refused;
 *                    its words were in the buffer then
 *   0x0038  4 bytes  events that map
 *   0x003c  4 bytes  events that unmap
 *   0x0040  4 bytes  mappings that there are
 *   0x0044  4 bytes  errors: 1 mapped twice, 2 cut in two, 4 no power of two
 *                    or not aligned, 8 out of range, 16 more than vfio stores
 *   0x0048  4 bytes  IOMMU memory regions that it listens to
 *
 * Commands 4 and 5 fill the buffer with four times 8 bytes for each mapping
 * or event: first and last address, where it leads, permission as above.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/interval-tree.h"
#include "qapi/error.h"
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
#define TESTDEV_FIRST                  0x20
#define TESTDEV_LAST                   0x28
#define TESTDEV_LISTENER               0x30
#define TESTDEV_FLAGS                  0x34
#define TESTDEV_FLAGS_REFUSED          (1U << 31)
#define TESTDEV_MAPS                   0x38
#define TESTDEV_UNMAPS                 0x3c
#define TESTDEV_MAPPINGS               0x40
#define TESTDEV_ERRORS                 0x44
#define TESTDEV_REGIONS                0x48
#define TESTDEV_BUFFER                 0x1000
#define TESTDEV_BUFFER_SIZE            0x1000

/* Of 8 bytes: first, last, address, permission */
#define TESTDEV_RECORD_WORDS           4
#define TESTDEV_RECORDS                (TESTDEV_BUFFER_SIZE / 8 / \
                                        TESTDEV_RECORD_WORDS)

#define TESTDEV_LISTENERS              2
/* One below and one above the interrupt addresses; one more for a surprise */
#define TESTDEV_NOTIFIERS              3
/* As many as a container of vfio takes (dma_entry_limit) */
#define TESTDEV_MAPPINGS_MAX           65535

enum {
    TESTDEV_READ = 1, TESTDEV_WRITE = 2, TESTDEV_PROBE = 3,
    TESTDEV_LIST = 4, TESTDEV_EVENTS = 5,
};

enum {
    TESTDEV_ERROR_TWICE = 1, TESTDEV_ERROR_CUT = 2, TESTDEV_ERROR_SHAPE = 4,
    TESTDEV_ERROR_RANGE = 8, TESTDEV_ERROR_FULL = 16,
};

typedef struct TestdevListener TestdevListener;

/** TestdevNotifier: for one section of an address space that is an IOMMU */
typedef struct TestdevNotifier {
    IOMMUNotifier n;
    IOMMUMemoryRegion *iommu;           /* NULL: not in use */
    TestdevListener *l;
} TestdevNotifier;

/** TestdevPiece: one mapping */
typedef struct TestdevPiece {
    IntervalTreeNode node;
    uint64_t addr;
    uint64_t perm;
} TestdevPiece;

/**
 * TestdevListener: what in the real world is a container of vfio, or vhost
 * @flags: 0 unless it listens, or TESTDEV_FLAGS_REFUSED
 * @pieces: what is mapped now
 * @log: the latest events, @log_next of them since they were asked for
 */
struct TestdevListener {
    VTDTestDev *d;
    MemoryListener listener;
    TestdevNotifier notifiers[TESTDEV_NOTIFIERS];
    uint64_t first;
    uint64_t last;
    uint32_t flags;
    uint32_t maps;
    uint32_t unmaps;
    uint32_t mappings;
    uint32_t errors;
    IntervalTreeRoot pieces;
    uint64_t log[TESTDEV_RECORDS][TESTDEV_RECORD_WORDS];
    unsigned log_next;
};

struct VTDTestDev {
    PCIDevice parent_obj;

    MemoryRegion bar;
    uint64_t address;
    uint32_t length;
    uint32_t pasid;
    uint32_t status;
    uint64_t result;
    uint64_t first;
    uint64_t last;
    uint32_t chosen;
    uint8_t buffer[TESTDEV_BUFFER_SIZE];
    TestdevListener listeners[TESTDEV_LISTENERS];
};

/* --- listeners --- */

static TestdevPiece *piece_find(TestdevListener *l, uint64_t first,
                                uint64_t last)
{
    IntervalTreeNode *node = interval_tree_iter_first(&l->pieces, first, last);

    return node ? container_of(node, TestdevPiece, node) : NULL;
}

static void listener_unmap(TestdevListener *l, uint64_t first, uint64_t last)
{
    TestdevPiece *piece;

    while ((piece = piece_find(l, first, last))) {
        if (piece->node.start < first || piece->node.last > last) {
            l->errors |= TESTDEV_ERROR_CUT;
        }
        interval_tree_remove(&piece->node, &l->pieces);
        g_free(piece);
        l->mappings--;
    }
}

static void listener_map(TestdevListener *l, uint64_t first, uint64_t last,
                         uint64_t addr, uint64_t perm)
{
    TestdevPiece *piece;

    if (piece_find(l, first, last)) {
        l->errors |= TESTDEV_ERROR_TWICE;
        return;
    }
    if (l->mappings == TESTDEV_MAPPINGS_MAX) {
        l->errors |= TESTDEV_ERROR_FULL;
        return;
    }
    piece = g_new0(TestdevPiece, 1);
    piece->node.start = first;
    piece->node.last = last;
    piece->addr = addr;
    piece->perm = perm;
    interval_tree_insert(&piece->node, &l->pieces);
    l->mappings++;
}

/* The memory API promises neither form nor fit to those of device-TLBs */
static void listener_check(TestdevListener *l, IOMMUNotifier *n,
                           const IOMMUTLBEntry *e)
{
    if (!(l->flags & IOMMU_NOTIFIER_DEVIOTLB_UNMAP) &&
        ((e->addr_mask & (e->addr_mask + 1)) || (e->iova & e->addr_mask))) {
        l->errors |= TESTDEV_ERROR_SHAPE;
    }
    if (e->iova < n->start || e->iova + e->addr_mask > n->end ||
        e->iova + e->addr_mask < e->iova ||
        e->target_as != &address_space_memory) {
        l->errors |= TESTDEV_ERROR_RANGE;
    }
}

static uint64_t perm_bits(IOMMUAccessFlags perm)
{
    return (perm & IOMMU_RO ? 1 : 0) | (perm & IOMMU_WO ? 2 : 0);
}

static void listener_event(IOMMUNotifier *n, IOMMUTLBEntry *e)
{
    TestdevListener *l = container_of(n, TestdevNotifier, n)->l;
    uint64_t *log = l->log[l->log_next++ % TESTDEV_RECORDS];
    uint64_t last = e->iova + e->addr_mask;

    listener_check(l, n, e);
    log[0] = e->iova;
    log[1] = last;
    log[2] = e->translated_addr;
    log[3] = perm_bits(e->perm);
    if (e->perm == IOMMU_NONE) {
        l->unmaps++;
        listener_unmap(l, e->iova, last);
    } else {
        l->maps++;
        listener_map(l, e->iova, last, e->translated_addr, log[3]);
    }
}

static void listener_refused(TestdevListener *l, Error *err)
{
    l->flags |= TESTDEV_FLAGS_REFUSED;
    pstrcpy((char *)l->d->buffer, TESTDEV_BUFFER_SIZE, error_get_pretty(err));
    error_free(err);
}

/* As vfio_listener_region_add() */
static void listener_add_iommu(TestdevListener *l, MemoryRegion *mr,
                               uint64_t first, uint64_t last)
{
    TestdevNotifier *free = NULL;
    Error *err = NULL;

    for (unsigned i = 0; i < TESTDEV_NOTIFIERS; i++) {
        if (!l->notifiers[i].iommu) {
            free = &l->notifiers[i];
        }
    }
    if (!free) {
        l->errors |= TESTDEV_ERROR_FULL;
        return;
    }
    free->l = l;
    iommu_notifier_init(&free->n, listener_event,
                        l->flags & IOMMU_NOTIFIER_ALL, first, last, 0);
    if (memory_region_register_iommu_notifier(mr, &free->n, &err)) {
        listener_refused(l, err);
        return;
    }
    free->iommu = IOMMU_MEMORY_REGION(mr);
    memory_region_iommu_replay(free->iommu, &free->n);
}

/* Of a section, the addresses that @l listens for; returns if there are any */
static bool listener_clip(TestdevListener *l, MemoryRegionSection *section,
                          uint64_t *first, uint64_t *last)
{
    uint64_t start = section->offset_within_address_space;

    *first = MAX(start, l->first);
    *last = MIN(start + int128_getlo(int128_sub(section->size, int128_one())),
                l->last);
    return *first <= *last;
}

static void listener_region_add(MemoryListener *listener,
                                MemoryRegionSection *section)
{
    TestdevListener *l = container_of(listener, TestdevListener, listener);
    uint64_t first, last;

    if (!listener_clip(l, section, &first, &last)) {
        return;
    }
    if (memory_region_is_iommu(section->mr)) {
        listener_add_iommu(l, section->mr, first, last);
    } else if (memory_region_is_ram(section->mr) &&
               (l->flags & IOMMU_NOTIFIER_MAP)) {
        listener_map(l, first, last, first, section->readonly ? 1 : 3);
    }
}

static void listener_region_del(MemoryListener *listener,
                                MemoryRegionSection *section)
{
    TestdevListener *l = container_of(listener, TestdevListener, listener);
    uint64_t first, last;

    if (!listener_clip(l, section, &first, &last)) {
        return;
    }
    for (unsigned i = 0; i < TESTDEV_NOTIFIERS; i++) {
        TestdevNotifier *n = &l->notifiers[i];

        if (n->iommu && MEMORY_REGION(n->iommu) == section->mr &&
            n->n.start == first) {
            memory_region_unregister_iommu_notifier(section->mr, &n->n);
            n->iommu = NULL;
        }
    }
    listener_unmap(l, first, last);
}

static void listener_end(TestdevListener *l)
{
    if (l->flags) {
        memory_listener_unregister(&l->listener);
        listener_unmap(l, 0, UINT64_MAX);
        l->flags = 0;
    }
}

static void listener_begin(VTDTestDev *d, TestdevListener *l, uint32_t flags,
                           AddressSpace *as)
{
    listener_end(l);
    *l = (TestdevListener) {
        .d = d, .first = d->first, .last = d->last,
        .flags = flags & IOMMU_NOTIFIER_ALL,
    };
    if (l->flags && as) {
        l->listener = (MemoryListener) {
            .name = "vtd-testdev",
            .region_add = listener_region_add,
            .region_del = listener_region_del,
        };
        memory_listener_register(&l->listener, as);
    } else {
        l->flags = 0;
    }
}

static void record_put(VTDTestDev *d, unsigned n, const uint64_t *words)
{
    uint8_t *p = d->buffer + n * TESTDEV_RECORD_WORDS * 8;

    for (unsigned i = 0; i < TESTDEV_RECORD_WORDS; i++) {
        stq_le_p(p + i * 8, words[i]);
    }
}

static uint32_t listener_list(VTDTestDev *d, TestdevListener *l)
{
    TestdevPiece *piece = piece_find(l, d->address, UINT64_MAX);
    uint32_t n = 0;

    while (piece && n < TESTDEV_RECORDS) {
        uint64_t words[] = {
            piece->node.start, piece->node.last, piece->addr, piece->perm,
        };
        IntervalTreeNode *next = interval_tree_iter_next(
            &piece->node, d->address, UINT64_MAX);

        record_put(d, n++, words);
        piece = next ? container_of(next, TestdevPiece, node) : NULL;
    }
    return n;
}

/* Those that do not fit any more are the oldest ones */
static uint32_t listener_events(VTDTestDev *d, TestdevListener *l)
{
    uint32_t n = MIN(l->log_next, TESTDEV_RECORDS);

    for (uint32_t i = 0; i < n; i++) {
        record_put(d, i, l->log[(l->log_next - n + i) % TESTDEV_RECORDS]);
    }
    l->log_next = 0;
    return n;
}

static uint32_t listener_regions(TestdevListener *l)
{
    uint32_t regions = 0;

    for (unsigned i = 0; i < TESTDEV_NOTIFIERS; i++) {
        regions += l->notifiers[i].iommu != NULL;
    }
    return regions;
}

static uint64_t listener_read(TestdevListener *l, hwaddr addr)
{
    switch (addr) {
    case TESTDEV_FLAGS:
        return l->flags;
    case TESTDEV_MAPS:
        return l->maps;
    case TESTDEV_UNMAPS:
        return l->unmaps;
    case TESTDEV_MAPPINGS:
        return l->mappings;
    case TESTDEV_ERRORS:
        return l->errors;
    case TESTDEV_REGIONS:
        return listener_regions(l);
    default:
        return 0;
    }
}

/* --- accesses --- */

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
    return perm_bits(entry.perm);
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
    case TESTDEV_LIST:
        return listener_list(d, &d->listeners[d->chosen]);
    case TESTDEV_EVENTS:
        return listener_events(d, &d->listeners[d->chosen]);
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
    case TESTDEV_FIRST:
        return d->first;
    case TESTDEV_LAST:
        return d->last;
    case TESTDEV_LISTENER:
        return d->chosen;
    default:
        return listener_read(&d->listeners[d->chosen], addr);
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
    case TESTDEV_FIRST:
        d->first = value;
        break;
    case TESTDEV_LAST:
        d->last = value;
        break;
    case TESTDEV_LISTENER:
        d->chosen = value % TESTDEV_LISTENERS;
        break;
    case TESTDEV_FLAGS:
        listener_begin(d, &d->listeners[d->chosen], value, testdev_space(d));
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
    VTDTestDev *d = VTD_TESTDEV(dev);

    for (unsigned i = 0; i < TESTDEV_LISTENERS; i++) {
        listener_end(&d->listeners[i]);
    }
    pcie_cap_exit(dev);
}

/* Listeners are of the host: where the device goes, others may be */
static const VMStateDescription testdev_vmstate = {
    .name = "vtd-testdev",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_PCI_DEVICE(parent_obj, VTDTestDev),
        VMSTATE_UINT64(address, VTDTestDev),
        VMSTATE_UINT32(length, VTDTestDev),
        VMSTATE_UINT32(pasid, VTDTestDev),
        VMSTATE_UINT32(status, VTDTestDev),
        VMSTATE_UINT64(result, VTDTestDev),
        VMSTATE_UINT64(first, VTDTestDev),
        VMSTATE_UINT64(last, VTDTestDev),
        VMSTATE_UINT32(chosen, VTDTestDev),
        VMSTATE_UINT8_ARRAY(buffer, VTDTestDev, TESTDEV_BUFFER_SIZE),
        VMSTATE_END_OF_LIST()
    },
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
