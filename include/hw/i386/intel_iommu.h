/*
 * Intel VT-d (intel-iommu): the q35 front end
 *
 * What the rest of QEMU may know of the device.  The remapping unit itself
 * is private to hw/i386/intel_iommu*.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_I386_INTEL_IOMMU_H
#define HW_I386_INTEL_IOMMU_H

#include "hw/i386/x86-iommu.h"
#include "qom/object.h"

#define TYPE_INTEL_IOMMU_DEVICE "intel-iommu"
OBJECT_DECLARE_SIMPLE_TYPE(IntelIOMMUState, INTEL_IOMMU_DEVICE)

/* Where q35 has its remapping unit; the DMAR table says so to the guest */
#define Q35_HOST_BRIDGE_IOMMU_ADDR  0xfed90000ULL

/* Size of the register file with one fault recording register, in bytes */
#define DMAR_REG_SIZE               0x230

/* Host address widths that the unit can have, in bits */
#define VTD_HOST_AW_39BIT           39
#define VTD_HOST_AW_48BIT           48
#define VTD_HOST_AW_57BIT           57
/* Host addresses are never wider than x86 allows, input addresses can be */
#define VTD_HOST_AW_MAX             52

/* An MSI address is two registers wide in kvm_irq_routing_entry */
#define VTD_MSI_ADDR_HI_SHIFT       32
#define VTD_MSI_ADDR_LO_MASK        0xffffffffULL

typedef struct VTDUnit VTDUnit;

/**
 * VTDStream: section "iommu-intel" of the migration stream
 *
 * Filled before saving and read after loading only; the live state is in the
 * unit.  Names, widths and order are fixed by the streams that exist.
 *
 * @root: root table address latched by SRTP
 * @intr_root: interrupt remapping table address latched by SIRTP
 * @iq: base of the invalidation queue latched by QIE
 * @intr_size: number of IRTEs
 * @iq_head: index of the next descriptor
 * @iq_tail: index behind the last descriptor
 * @iq_size: number of descriptors that the queue has
 * @next_frcd_reg: index of the next fault recording register to use
 * @csr: the register file as the guest reads it, little-endian
 * @iq_last_desc_type: type of the last descriptor that was carried out
 * @dmar_enabled: GSTS.TES
 * @qi_enabled: GSTS.QIES
 * @intr_enabled: GSTS.IRES
 * @intr_eime: IRTA.EIME latched by SIRTP
 * @ttm: translation table mode latched by SRTP (subsection
 *       "translation-table-mode", which is there if RTADDR in @csr has
 *       another one: a guest is about to change it)
 * @frcd_words: number of quadwords in @frcd
 * @frcd: all fault recording registers (subsection "fault-records", which is
 *        there if they are several; the first one is in @csr as well)
 */
typedef struct VTDStream {
    uint64_t root;
    uint64_t intr_root;
    uint64_t iq;
    uint32_t intr_size;
    uint16_t iq_head;
    uint16_t iq_tail;
    uint16_t iq_size;
    uint16_t next_frcd_reg;
    uint8_t csr[DMAR_REG_SIZE];
    uint8_t iq_last_desc_type;
    bool dmar_enabled;
    bool qi_enabled;
    bool intr_enabled;
    bool intr_eime;
    uint8_t ttm;
    uint32_t frcd_words;
    uint64_t *frcd;
} VTDStream;

/**
 * IntelIOMMUState: properties of ``-device intel-iommu``, and its unit
 *
 * The properties are constant once the device is realized.
 *
 * @version: accepted and ignored, as it always was
 * @aw_bits: width of input addresses, 39, 48 or 57 bits, and of the host's,
 *           which is VTD_HOST_AW_MAX at most
 * @caching_mode: the guest flushes when it maps, too (needed for vfio-pci)
 * @dma_drain: CAP.DWD and CAP.DRD
 * @dma_translation: DMA remapping is offered
 * @snoop_control: ECAP.SC
 * @stale_tm: with device-iotlb, TM in paging entries is no reserved bit
 * @scalable_mode: scalable mode is offered
 * @flts: first-stage in place of second-stage translation, in scalable mode
 * @count_hits: count translations that the IOTLB answers ("info iommu")
 * @fault_records: number of fault recording registers, 1 to 222
 * @fs1gp: 1 GiB first-stage pages
 * @pasid: requests with PASID, in scalable mode
 * @buggy_eim: offer EIM even where it does not work (old machine types)
 * @intr_eim: remapped interrupts may go to 32-bit APIC IDs
 */
struct IntelIOMMUState {
    X86IOMMUState parent_obj;

    uint32_t version;
    uint8_t aw_bits;
    bool caching_mode;
    bool dma_drain;
    bool dma_translation;
    bool snoop_control;
    bool stale_tm;
    bool scalable_mode;
    bool flts;
    bool count_hits;
    uint16_t fault_records;
    bool fs1gp;
    bool pasid;
    bool buggy_eim;
    OnOffAuto intr_eim;

    VTDUnit *unit;
    VTDStream stream;
};

/**
 * intel_iommu_pasid_address_space: memory as requests with a PASID see it
 * @dev: that makes the requests, a PCI Express device
 * @pasid: of the requests, 20 bits
 *
 * The address space stays for as long as the bus of @dev does.  Returns NULL
 * if there is no intel-iommu with ``x-pasid-mode=on``, or if it has as many
 * such address spaces as it will make.  Big lock.
 */
AddressSpace *intel_iommu_pasid_address_space(PCIDevice *dev, uint32_t pasid);

#endif
