/*
 * Intel VT-d: the remapping unit
 *
 * One DMA: a device accesses its address space (VTDAddressSpace.as).  While
 * the requester is translated that is an IOMMUMemoryRegion, and the memory
 * core calls
 *
 *   vtd_translate()              _dma.c     any thread, no big lock, RCU held
 *     vtd_iotlb_lookup()         _iotlb.c   hit: done, nothing was locked
 *     vtd_requester_config()     _dma.c     context cache, else
 *       vtd_tables_lookup()      _tables.c    root and context entry, or
 *       vtd_scalable_lookup()    _tables.c    those and the PASID entry
 *     vtd_walk_*_stage()         _walk.c    paging entries -> VTDTranslation
 *     vtd_iotlb_fill()           _iotlb.c
 *     vtd_fault_record()         _fault.c   what went wrong, if anything did
 *
 * One interrupt: the window 0xfeexxxxx of each address space, and
 *
 *   vtd_interrupt_write()        _irq.c     big lock held
 *     vtd_interrupt_remap()      _irq.c     interrupt entry cache, else IRTE
 *     vtd_fault_record() or the local APIC
 *
 * One command: a vCPU writes a register, with the big lock held
 *
 *   vtd_mmio_write()             _regs.c    the table of registers
 *     vtd_queue_run()            _inval.c   one function per descriptor type
 *       vtd_epochs_flush_*()     _iotlb.c   first the caches,
 *       vtd_shadows_run()        _notify.c  then whoever shadows the tables;
 *                                           what takes long goes on in a
 *     vtd_commands_resume()    _inval.c     bottom half, and the queue waits
 *
 * Who may touch what: registers, the queue and the list of address spaces
 * belong to the big lock.  Translations and faults come from any thread;
 * what they read is atomic (VTDUnit.dmar, .ir) or has a lock of its own
 * (VTDFaultLog, VTDIOTLB, VTDInterruptCache), under which nothing is called
 * that could come back.  What they would have to change under the big lock
 * - switching memory regions, the fault event - is left to VTDUnit.bh.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_I386_INTEL_IOMMU_INTERNAL_H
#define HW_I386_INTEL_IOMMU_INTERNAL_H

#include "exec/memory.h"
#include "hw/i386/intel_iommu.h"
#include "hw/i386/intel_iommu_iotlb.h"
#include "hw/i386/intel_iommu_spec.h"
#include "hw/i386/intel_iommu_tables.h"
#include "hw/pci/pci.h"
#include "qemu/queue.h"
#include "qemu/stats64.h"
#include "qemu/thread.h"
#include "system/host_iommu_device.h"

#define TYPE_INTEL_IOMMU_MEMORY_REGION "intel-iommu-iommu-memory-region"

/* The requester of an interrupt is not known: its source is not verified */
#define VTD_SID_UNKNOWN                (-1)

/*
 * Address spaces with PASID that one unit has at most: a guest may choose the
 * PASIDs that its devices use, and each space costs some kilobytes, and up to
 * 4 MiB of IOTLB if it is used a lot, until the device's bus is gone.
 */
#define VTD_PASID_SPACES               1024

/**
 * VTDShadowWork: how much is done for shadows
 * @entries: of the tables that are read
 * @events: mappings that are announced or withdrawn
 */
typedef struct VTDShadowWork {
    unsigned entries;
    unsigned events;
} VTDShadowWork;

/**
 * VTDShadowLimits: what a guest can make the unit do for those who shadow its
 *                  tables
 * @budget: entries of the tables that are read for a requester after one
 *          command
 * @mappings: mappings that the shadow of a requester holds, whatever the
 *            number of commands; each takes about 100 bytes
 * @go: what is done in one go, with the big lock held: after one write to a
 *      register, whatever the number of commands, or in a bottom half
 */
typedef struct VTDShadowLimits {
    unsigned budget;
    unsigned mappings;
    VTDShadowWork go;
} VTDShadowLimits;

/*
 * With 4 KiB pages these are 16 GiB, far more than one vfio container takes
 * (65535 mappings by default)
 */
#define VTD_SHADOW_LIMITS ((VTDShadowLimits) { \
    .budget = 1U << 22, .mappings = 1U << 22, \
    .go = { .entries = 1U << 16, .events = 1U << 12 }, \
})

/*
 * In so many goes, of VTD_SHADOW_LIMITS.go each, the unit tries to finish the
 * commands that were given when the machine is stopped
 */
#define VTD_SHADOW_GOES_AT_STOP        64

/* How many IRTEs are cached, a power of two */
#define VTD_IEC_SIZE                   256

/* As many as fit into the page of registers that the DMAR table declares */
#define VTD_MAX_FAULT_RECORDS          ((4096U - DMAR_FRCD_REG) / 16)

/* The unit's own accesses are to memory: they reach no device */
#define VTD_MEMORY_ONLY                ((MemTxAttrs) { .memory = true })

/** VTDFault: one fault, as a value */
typedef struct VTDFault {
    VTDFaultReason reason;
    uint16_t sid;
    bool write;
    bool fpd;           /* of the entry that was read, if one was */
    bool has_pasid;
    uint32_t pasid;
    uint64_t info;      /* address, or the interrupt's index in its field */
} VTDFault;

/**
 * VTDFaultLog: FSTS, FECTL and the fault recording registers (section 7.2)
 * @lock: guards all of it; a leaf, taken in any thread
 * @fsts: status bits that are set until software clears them, and FRI
 * @fectl: IM and IP
 * @next: fault recording register to use next
 * @records: number of @frcd
 * @frcd: low and high quadword of each
 */
typedef struct VTDFaultLog {
    QemuMutex lock;
    uint32_t fsts;
    uint32_t fectl;
    uint16_t next;
    uint16_t records;
    uint64_t (*frcd)[2];
} VTDFaultLog;

/** VTDIRTE: an interrupt remapping table entry */
typedef struct VTDIRTE {
    uint64_t lo;
    uint64_t hi;
} VTDIRTE;

/**
 * VTDInterruptCache: direct-mapped by index (section 5.1.6)
 * @lock: guards all of it; a leaf
 * @generation: raised by every invalidation; a fill that began before one is
 *              dropped
 * @index: index of the entry cached in that place, -1 if none is
 */
typedef struct VTDInterruptCache {
    QemuMutex lock;
    unsigned generation;
    int32_t index[VTD_IEC_SIZE];
    VTDIRTE entry[VTD_IEC_SIZE];
} VTDInterruptCache;

/**
 * VTDQueue: the invalidation queue (section 6.5.1), big lock
 * @base: guest-physical address, latched when the queue was enabled
 * @size: in bytes, a power of two
 * @head: offset of the next descriptor
 * @width: of a descriptor in bytes, 16 or 32
 * @last_type: type of the last descriptor that was carried out
 * @waits: for shadows, before it goes on
 */
typedef struct VTDQueue {
    uint64_t base;
    uint32_t size;
    uint32_t head;
    uint8_t width;
    uint8_t last_type;
    bool waits;
} VTDQueue;

/**
 * VTDShadow: what notifiers with IOMMU_NOTIFIER_MAP were told, big lock
 * @mappings: NULL unless there is such a notifier
 * @replayed: the first such notifier was told of what was mapped before it
 * @behind: the tables of @range may say something else by now
 */
typedef struct VTDShadow {
    GTree *mappings;
    bool replayed;
    bool behind;
    VTDRange range;
} VTDShadow;

/**
 * VTDAddressSpace: what one requester sees as memory
 *
 *   root +- shared_alias    of VTDUnit.shared: nothing is remapped; all
 *        |                  requesters then have one flat view
 *        +- private +- system_alias   DMA not translated
 *                   +- iommu          DMA translated
 *                   +- interrupts     0xfeexxxxx, whose source is known
 *
 * One of shared_alias and private is enabled, and in private one of
 * system_alias and iommu.  Requests with PASID always go through iommu, and
 * interrupts is disabled for them: section 3.15 has them translated like any
 * other address, and blocked where that does not happen.
 *
 * @pasid: of its requests, or VTD_PASID_NONE
 * @bus_number: where the guest programs the bus number; of a root bus,
 *              @root_bus_number
 * @switch_wanted: the hook found out that the regions are not right (atomic)
 * @misses: translations that needed the tables
 * @faults: requests, interrupts among them, that were not let through
 * @hits: translations from the IOTLB; approximate, if VTDUnit.count_hits
 */
typedef struct VTDAddressSpace {
    struct rcu_head rcu;
    VTDUnit *unit;
    PCIBus *bus;
    const uint8_t *bus_number;
    uint8_t root_bus_number;
    uint8_t devfn;
    uint32_t pasid;
    bool switch_wanted;
    AddressSpace as;
    MemoryRegion root;
    MemoryRegion shared_alias;
    MemoryRegion private;
    MemoryRegion system_alias;
    MemoryRegion interrupts;
    IOMMUMemoryRegion iommu;
    VTDIOTLB iotlb;
    Stat64 misses;
    Stat64 faults;
    unsigned long hits;
    VTDShadow shadow;
    HostIOMMUDevice *host;
    QLIST_ENTRY(VTDAddressSpace) next;
} VTDAddressSpace;

/* VTDUnit.dmar: RTADDR as latched (4 KiB aligned, TTM in bits 11:10), and */
#define VTD_DMAR_ENABLED               (1ULL << 0)
/* VTDUnit.ir: IRTA as latched, and */
#define VTD_IR_ENABLED                 (1ULL << 4)
#define VTD_IR_COMPAT                  (1ULL << 5)

/**
 * VTDUnit: one remapping unit; knows nothing of the machine it is in
 * @owner: the device, for QOM and for tracing
 * @iec_changed: told after IRTEs were invalidated; @global or @index, @mask
 * @cap: what the unit offers
 * @csr: registers that are plain storage, little-endian, big lock
 * @dmar: see above, atomic: a translation sees one state or the other
 * @ir: see above, atomic
 * @memory: how tables are read, and flags in them set
 * @count_hits: keep VTDAddressSpace.hits, which several threads write to
 * @pasid_spaces: how many of @spaces are for requests with PASID
 * @behind: the shadow of one of @spaces is
 * @limits: of the work for shadows
 * @left: of the present go's
 * @late_status: bits of GSTS to be set when no shadow is behind
 */
struct VTDUnit {
    DeviceState *owner;
    void (*iec_changed)(DeviceState *owner, bool global, uint32_t index,
                        uint32_t mask);
    VTDCapDesc cap;
    MemoryRegion mmio;
    uint8_t csr[DMAR_REG_SIZE];
    aligned_uint64_t dmar;
    aligned_uint64_t ir;
    VTDMemory memory;
    bool count_hits;
    VTDQueue queue;
    bool behind;
    VTDShadowLimits limits;
    VTDShadowWork left;
    uint32_t late_status;
    VTDFaultLog fault;
    VTDInterruptCache iec;
    VTDEpochs epochs;
    QEMUBH *bh;
    MemoryRegion shared;
    MemoryRegion shared_system;
    MemoryRegion shared_interrupts;
    GHashTable *spaces;
    unsigned pasid_spaces;
    QLIST_HEAD(, VTDAddressSpace) space_list;
    DeviceListener unplug;
};

/* intel_iommu_unit.c: the unit as a whole; big lock */

/**
 * vtd_unit_new: make a unit
 * @owner: the device that it is part of
 * @cap: what it offers
 *
 * Units are part of the machine: there is no way to take one out.
 */
VTDUnit *vtd_unit_new(DeviceState *owner, const VTDCapDesc *cap);
/** vtd_unit_reset: power-on state; devices are quiet */
void vtd_unit_reset(VTDUnit *unit);
/** vtd_unit_settle: do now what was left to the bottom half */
void vtd_unit_settle(VTDUnit *unit);
/** vtd_send_interrupt: an interrupt of the unit itself (section 5.1.1) */
void vtd_send_interrupt(VTDUnit *unit, uint64_t address, uint32_t data);

/* intel_iommu_regs.c: big lock */

/** vtd_regs_init: make the register file's memory region */
void vtd_regs_init(VTDUnit *unit);
/** vtd_regs_reset: registers at their power-on values */
void vtd_regs_reset(VTDUnit *unit);
/** vtd_reg_get: a register of 4 or 8 bytes, as software would read it */
uint64_t vtd_reg_get(VTDUnit *unit, unsigned offset);
/** vtd_reg_set: change what plain storage holds */
void vtd_reg_set(VTDUnit *unit, unsigned offset, uint64_t value);
/** vtd_status_update: set and clear bits of GSTS */
void vtd_status_update(VTDUnit *unit, uint32_t clear, uint32_t set);
/** vtd_cap_value: CAP, ECAP as the description says */
uint64_t vtd_cap_value(const VTDCapDesc *cap);
uint64_t vtd_ecap_value(const VTDCapDesc *cap);

/* intel_iommu_inval.c: big lock */

/** vtd_queue_enable: GCMD.QIE was written */
void vtd_queue_enable(VTDUnit *unit, bool enable);
/**
 * vtd_queue_run: carry out descriptors until the tail, an error, or a shadow
 * that is behind
 */
void vtd_queue_run(VTDUnit *unit);
/** vtd_command_context: CCMD.ICC was set */
void vtd_command_context(VTDUnit *unit);
/** vtd_command_iotlb: IOTLB.IVT was set */
void vtd_command_iotlb(VTDUnit *unit);
/**
 * vtd_commands_resume: go on with commands that had to wait for shadows
 *
 * Returns whether all are done; if not, the bottom half goes on.
 */
bool vtd_commands_resume(VTDUnit *unit);
/**
 * vtd_bus_renumbered: @bus has another number, so its devices have other
 * entries in the tables
 */
void vtd_bus_renumbered(VTDUnit *unit, PCIBus *bus);
/**
 * vtd_flush_everything: no cached translation or configuration survives
 *
 * Those who listen for mappings are behind until vtd_shadows_run().
 */
void vtd_flush_everything(VTDUnit *unit);
/** vtd_completion_control: IECTL.IM was written */
void vtd_completion_control(VTDUnit *unit);
/** vtd_completion_clear: ICS.IWC was cleared by software */
void vtd_completion_clear(VTDUnit *unit);

/* intel_iommu_fault.c: any thread, unless it says otherwise */

void vtd_fault_init(VTDFaultLog *log, unsigned records);
void vtd_fault_reset(VTDFaultLog *log);
/** vtd_fault_record: record @fault, unless FPD or an overflow forbid it */
void vtd_fault_record(VTDUnit *unit, const VTDFault *fault);
/** vtd_fault_status: set FSTS.IQE, ICE or ITE */
void vtd_fault_status(VTDUnit *unit, uint32_t bit);
/** vtd_fault_deliver: send the fault event if one is due; big lock */
void vtd_fault_deliver(VTDUnit *unit);
/** vtd_fault_read: FSTS, FECTL or a quadword of FRCD at @offset */
uint64_t vtd_fault_read(VTDUnit *unit, unsigned offset);
/** vtd_fault_write: software writes @value to the bits @bytes at @offset */
void vtd_fault_write(VTDUnit *unit, unsigned offset, uint64_t value,
                     uint64_t bytes);
/** vtd_fault_save, vtd_fault_load: to and from a migration stream; big lock */
void vtd_fault_save(VTDFaultLog *log, VTDStream *s);
void vtd_fault_load(VTDFaultLog *log, const VTDStream *s);

/* intel_iommu_irq.c */

void vtd_interrupts_init(VTDUnit *unit);
extern const MemoryRegionOps vtd_interrupt_ops;         /* of a requester */
extern const MemoryRegionOps vtd_interrupt_shared_ops;  /* of the unit */

/**
 * vtd_interrupt_remap: what the unit makes of an interrupt request
 * @unit: any thread
 * @msg: address and data as the device sent them
 * @sid: requester-id, or VTD_SID_UNKNOWN
 * @out: filled on success
 * @fault: filled on failure; it is not recorded here
 *
 * Returns VTD_FR_NONE, or the reason for the fault.
 */
VTDFaultReason vtd_interrupt_remap(VTDUnit *unit, const MSIMessage *msg,
                                   int sid, MSIMessage *out, VTDFault *fault);
/** vtd_iec_flush_global, vtd_iec_flush: forget IRTEs; big lock */
void vtd_iec_flush_global(VTDUnit *unit);
void vtd_iec_flush(VTDUnit *unit, uint16_t index, unsigned mask);

/* intel_iommu_dma.c: big lock, but for vtd_translate() itself */

void vtd_spaces_init(VTDUnit *unit);
/** vtd_address_space: the address space of a requester, made when needed */
VTDAddressSpace *vtd_address_space(VTDUnit *unit, PCIBus *bus, int devfn);
/**
 * vtd_pasid_space: the same for its requests with @pasid; NULL if the unit
 * has VTD_PASID_SPACES of them already
 */
VTDAddressSpace *vtd_pasid_space(VTDUnit *unit, PCIBus *bus, int devfn,
                                 uint32_t pasid);
/** vtd_platform_space: the space of a requester that is no PCI device */
VTDAddressSpace *vtd_platform_space(VTDUnit *unit, uint16_t sid);
/** vtd_sid: requester-id under which @as accesses memory now.  Any thread. */
uint16_t vtd_sid(VTDAddressSpace *as);
/** vtd_requester_config: configuration of @as now.  Any thread. */
VTDFaultReason vtd_requester_config(VTDAddressSpace *as, VTDConfig *cfg);
/** vtd_space_update: enable the memory regions that the tables ask for */
void vtd_space_update(VTDAddressSpace *as);
/** vtd_spaces_update: the same for all; in one memory transaction */
void vtd_spaces_update(VTDUnit *unit);
/** vtd_spaces_update_wanted: those that the hook found to be wrong */
void vtd_spaces_update_wanted(VTDUnit *unit);

/* intel_iommu_notify.c: big lock */

/** vtd_notify_flags: check and take note of what @as is to be notified of */
int vtd_notify_flags(VTDAddressSpace *as, IOMMUNotifierFlag old,
                     IOMMUNotifierFlag new, Error **errp);
/** vtd_notify_replay: tell one notifier all mappings that there are */
void vtd_notify_replay(VTDAddressSpace *as, IOMMUNotifier *n);
/**
 * vtd_notify_range: the guest flushed [@first, @last] for @as
 *
 * Those who shadow the tables are told by vtd_shadows_run().
 */
void vtd_notify_range(VTDAddressSpace *as, uint64_t first, uint64_t last);
/**
 * vtd_shadows_run: bring shadows in line with the tables
 *
 * Returns whether all are.  If not, VTDUnit.left is used up, and the unit's
 * bottom half has been scheduled.
 */
bool vtd_shadows_run(VTDUnit *unit);
/** vtd_notify_device_tlb: the guest flushed [@first, @last] of a device-TLB */
void vtd_notify_device_tlb(VTDAddressSpace *as, uint64_t first,
                           uint64_t last);
/** vtd_notify_wanted: does anybody listen on @as? */
bool vtd_notify_wanted(VTDAddressSpace *as);
/** vtd_notify_destroy: forget the shadow of @as */
void vtd_notify_destroy(VTDAddressSpace *as);

/* intel_iommu_vmstate.c */

extern const VMStateDescription vtd_vmstate;

#endif
