/*
 * Intel VT-d: registers, tables, descriptors and fault reasons
 *
 * Nothing but the bits of the "Intel Virtualization Technology for Directed
 * I/O" architecture specification, revision 4.1.  Section numbers below are
 * that document's.  Fields, of one bit or more, are given as masks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_I386_INTEL_IOMMU_SPEC_H
#define HW_I386_INTEL_IOMMU_SPEC_H

#include "qemu/bitops.h"
#include "qemu/host-utils.h"

/* Fields are masks: take one out of a value, or put a value into place */
#define VTD_GET(v, field)              (((v) & (field)) >> ctz64(field))
#define VTD_PUT(field, x)              (((uint64_t)(x) << ctz64(field)) & \
                                        (field))

/* All structures that hardware walks are found by 4 KiB frame */
#define VTD_PAGE_SHIFT                 12
#define VTD_PAGE_SIZE                  (1ULL << VTD_PAGE_SHIFT)
#define VTD_PAGE_MASK                  (~(VTD_PAGE_SIZE - 1))

/* Section 11.4: register offsets */
#define DMAR_VER_REG                   0x00
#define DMAR_CAP_REG                   0x08
#define DMAR_ECAP_REG                  0x10
#define DMAR_GCMD_REG                  0x18
#define DMAR_GSTS_REG                  0x1c
#define DMAR_RTADDR_REG                0x20
#define DMAR_CCMD_REG                  0x28
#define DMAR_FSTS_REG                  0x34
#define DMAR_FECTL_REG                 0x38
#define DMAR_FEDATA_REG                0x3c
#define DMAR_FEADDR_REG                0x40
#define DMAR_FEUADDR_REG               0x44
#define DMAR_IQH_REG                   0x80
#define DMAR_IQT_REG                   0x88
#define DMAR_IQA_REG                   0x90
#define DMAR_ICS_REG                   0x9c
#define DMAR_IECTL_REG                 0xa0
#define DMAR_IEDATA_REG                0xa4
#define DMAR_IEADDR_REG                0xa8
#define DMAR_IEUADDR_REG               0xac
#define DMAR_IQERCD_REG                0xb0
#define DMAR_IRTA_REG                  0xb8
/* These two groups stand where CAP.FRO and ECAP.IRO say */
#define DMAR_IVA_REG                   0xf0
#define DMAR_IOTLB_REG                 0xf8
#define DMAR_FRCD_REG                  0x220

/* Section 11.4.1: version 1.0 */
#define VTD_VER_1_0                    0x10

/* Section 11.4.2: Capability Register */
#define VTD_CAP_ND_16BIT               6ULL
#define VTD_CAP_CM                     (1ULL << 7)
#define VTD_CAP_SAGAW_39bit            (1ULL << 9)
#define VTD_CAP_SAGAW_48bit            (1ULL << 10)
#define VTD_CAP_SAGAW_57bit            (1ULL << 11)
#define VTD_CAP_SAGAW_SHIFT            8
#define VTD_CAP_SAGAW_MASK             (0x1fULL << VTD_CAP_SAGAW_SHIFT)
#define VTD_CAP_MGAW_FIELD             MAKE_64BIT_MASK(16, 6)
#define VTD_CAP_FRO_FIELD              MAKE_64BIT_MASK(24, 10)
#define VTD_CAP_SLLPS_2M               (1ULL << 34)
#define VTD_CAP_SLLPS_1G               (1ULL << 35)
#define VTD_CAP_PSI                    (1ULL << 39)
#define VTD_CAP_NFR_FIELD              MAKE_64BIT_MASK(40, 8)
#define VTD_CAP_MAMV_FIELD             MAKE_64BIT_MASK(48, 6)
#define VTD_CAP_DWD                    (1ULL << 54)
#define VTD_CAP_DRD                    (1ULL << 55)
#define VTD_CAP_FS1GP                  (1ULL << 56)
#define VTD_CAP_FS5LP                  (1ULL << 60)

/* What the unit always offers, under the names that QEMU's test uses */
#define VTD_CAP_ND                     VTD_CAP_ND_16BIT
#define VTD_CAP_FRO                    VTD_PUT(VTD_CAP_FRO_FIELD, \
                                               DMAR_FRCD_REG >> 4)
#define VTD_CAP_NFR                    VTD_PUT(VTD_CAP_NFR_FIELD, 0)
#define VTD_MAMV                       18
#define VTD_CAP_MAMV                   VTD_PUT(VTD_CAP_MAMV_FIELD, VTD_MAMV)
#define VTD_CAP_SLLPS                  (VTD_CAP_SLLPS_2M | VTD_CAP_SLLPS_1G)
#define VTD_MGAW_FROM_CAP(cap)         VTD_GET(cap, VTD_CAP_MGAW_FIELD)

/* Section 11.4.3: Extended Capability Register */
#define VTD_ECAP_QI                    (1ULL << 1)
#define VTD_ECAP_DT                    (1ULL << 2)
#define VTD_ECAP_IR                    (1ULL << 3)
#define VTD_ECAP_EIM                   (1ULL << 4)
#define VTD_ECAP_PT                    (1ULL << 6)
#define VTD_ECAP_SC                    (1ULL << 7)
#define VTD_ECAP_IRO_FIELD             MAKE_64BIT_MASK(8, 10)
#define VTD_ECAP_IRO                   VTD_PUT(VTD_ECAP_IRO_FIELD, \
                                               DMAR_IVA_REG >> 4)
#define VTD_MHMV                       15
#define VTD_ECAP_MHMV                  (15ULL << 20)
#define VTD_ECAP_SRS                   (1ULL << 31)
#define VTD_ECAP_PASID                 (1ULL << 40)
#define VTD_ECAP_SMTS                  (1ULL << 43)
#define VTD_ECAP_SSTS                  (1ULL << 46)
#define VTD_ECAP_FLTS                  (1ULL << 47)

/* Sections 11.4.4.1 and 11.4.4.2: Global Command and Global Status */
#define VTD_GCMD_TE                    (1U << 31)
#define VTD_GCMD_SRTP                  (1U << 30)
#define VTD_GCMD_WBF                   (1U << 27)
#define VTD_GCMD_QIE                   (1U << 26)
#define VTD_GCMD_IRE                   (1U << 25)
#define VTD_GCMD_SIRTP                 (1U << 24)
#define VTD_GCMD_CFI                   (1U << 23)
#define VTD_GSTS_TES                   (1U << 31)
#define VTD_GSTS_RTPS                  (1U << 30)
#define VTD_GSTS_QIES                  (1U << 26)
#define VTD_GSTS_IRES                  (1U << 25)
#define VTD_GSTS_IRTPS                 (1U << 24)
#define VTD_GSTS_CFIS                  (1U << 23)

/* Section 11.4.5: Root Table Address Register */
#define VTD_RTADDR_TTM_FIELD           MAKE_64BIT_MASK(10, 2)
#define VTD_TTM_LEGACY                 0
#define VTD_TTM_SCALABLE               1
#define VTD_TTM_ABORT                  3

/* Section 11.4.6.1: Context Command Register */
#define VTD_CCMD_ICC                   (1ULL << 63)
#define VTD_CCMD_CIRG_FIELD            MAKE_64BIT_MASK(61, 2)
#define VTD_CCMD_CAIG_FIELD            MAKE_64BIT_MASK(59, 2)
#define VTD_CCMD_FM_FIELD              MAKE_64BIT_MASK(32, 2)
#define VTD_CCMD_SID_FIELD             MAKE_64BIT_MASK(16, 16)
#define VTD_CCMD_DID_FIELD             MAKE_64BIT_MASK(0, 16)

/* Sections 11.4.6.2 and 6.5.2.1: granularities of context invalidation */
#define VTD_CC_GLOBAL                  1
#define VTD_CC_DOMAIN                  2
#define VTD_CC_DEVICE                  3

/* Section 11.4.6.2: IOTLB Invalidate Register, Invalidate Address Register */
#define VTD_IOTLB_IVT                  (1ULL << 63)
#define VTD_IOTLB_IIRG_FIELD           MAKE_64BIT_MASK(60, 2)
#define VTD_IOTLB_IAIG_FIELD           MAKE_64BIT_MASK(57, 2)
#define VTD_IOTLB_DID_FIELD            MAKE_64BIT_MASK(32, 16)
#define VTD_IOTLB_WMASK                0xb003ffff00000000ULL
#define VTD_IVA_ADDR_MASK              VTD_PAGE_MASK
#define VTD_IVA_AM_FIELD               MAKE_64BIT_MASK(0, 6)

/* Sections 11.4.6.2 and 6.5.2.3: granularities of IOTLB invalidation */
#define VTD_IOTLB_GLOBAL               1
#define VTD_IOTLB_DOMAIN               2
#define VTD_IOTLB_PAGE                 3

/* Sections 11.4.7.1 and 11.4.7.2: Fault Status and Fault Event Control */
#define VTD_FSTS_PFO                   (1U << 0)
#define VTD_FSTS_PPF                   (1U << 1)
#define VTD_FSTS_IQE                   (1U << 4)
#define VTD_FSTS_ICE                   (1U << 5)
#define VTD_FSTS_ITE                   (1U << 6)
#define VTD_FSTS_FRI_FIELD             MAKE_64BIT_MASK(8, 8)
#define VTD_FECTL_IM                   (1U << 31)
#define VTD_FECTL_IP                   (1U << 30)

/* Section 11.4.7.7: Fault Recording Registers, high quadword */
#define VTD_FRCD_F                     (1ULL << 63)
#define VTD_FRCD_T1_READ               (1ULL << 62)
#define VTD_FRCD_AT_FIELD              MAKE_64BIT_MASK(60, 2)
#define VTD_FRCD_PV_FIELD              MAKE_64BIT_MASK(40, 20)
#define VTD_FRCD_FR_FIELD              MAKE_64BIT_MASK(32, 8)
#define VTD_FRCD_PP                    (1ULL << 31)
#define VTD_FRCD_SID_FIELD             MAKE_64BIT_MASK(0, 16)
/* Section 7.2.1: the low quadword of an interrupt remapping fault */
#define VTD_FRCD_INDEX_FIELD           MAKE_64BIT_MASK(48, 16)

/* Section 11.4.8: Invalidation Queue registers */
#define VTD_IQ_OFFSET_MASK             0x7fff0ULL
#define VTD_IQA_DW                     (1ULL << 11)
#define VTD_IQA_QS_FIELD               MAKE_64BIT_MASK(0, 3)
#define VTD_ICS_IWC                    (1U << 0)
#define VTD_IECTL_IM                   VTD_FECTL_IM
#define VTD_IECTL_IP                   VTD_FECTL_IP

/* Section 11.4.8.9: why the queue stopped */
typedef enum VTDQueueError {
    VTD_IQEI_NONE = 0,
    VTD_IQEI_TAIL = 1,              /* tail outside the queue */
    VTD_IQEI_FETCH = 2,             /* descriptor could not be read */
    VTD_IQEI_TYPE = 3,              /* unknown descriptor type */
    VTD_IQEI_RESERVED = 4,          /* reserved field is not zero */
    VTD_IQEI_WIDTH = 5,             /* descriptor width not valid now */
    VTD_IQEI_TAIL_ALIGN = 6,        /* tail not a multiple of the width */
} VTDQueueError;

/* Section 11.4.9: Interrupt Remapping Table Address Register */
#define VTD_IRTA_EIME                  (1ULL << 11)
#define VTD_IRTA_S_FIELD               MAKE_64BIT_MASK(0, 4)

/* Section 9.1: root entry, low quadword (the high one is reserved) */
#define VTD_ROOT_P                     (1ULL << 0)
#define VTD_ROOT_RSVD_LOW              0xffeULL

/* Section 9.3: context entry, legacy mode */
#define VTD_CTX_P                      (1ULL << 0)
#define VTD_CTX_FPD                    (1ULL << 1)
#define VTD_CTX_TT_FIELD               MAKE_64BIT_MASK(2, 2)
#define VTD_CTX_RSVD_LOW               0xff0ULL
#define VTD_CTX_HI_AW_FIELD            MAKE_64BIT_MASK(0, 3)
#define VTD_CTX_HI_DID_FIELD           MAKE_64BIT_MASK(8, 16)
#define VTD_CTX_HI_RSVD                0xffffffffff000080ULL
#define VTD_TT_UNTRANSLATED            0
#define VTD_TT_DEVICE_TLB              1
#define VTD_TT_PASS_THROUGH            2

/* Section 9.2: root entry of scalable mode, either quadword */
#define VTD_SM_ROOT_P                  (1ULL << 0)
#define VTD_SM_ROOT_RSVD               0xffeULL
/* The lower context table has the functions below this one */
#define VTD_SM_UPPER_DEVFN             128

/* Section 9.4: context entry of scalable mode, the first two of 4 words */
#define VTD_SM_CTX_P                   (1ULL << 0)
#define VTD_SM_CTX_FPD                 (1ULL << 1)
#define VTD_SM_CTX_DTE                 (1ULL << 2)
#define VTD_SM_CTX_PASIDE              (1ULL << 3)
#define VTD_SM_CTX_RSVD                0x1f0ULL
#define VTD_SM_CTX_PDTS_FIELD          MAKE_64BIT_MASK(9, 3)
#define VTD_SM_CTX_1_RID_PASID_FIELD   MAKE_64BIT_MASK(0, 20)
#define VTD_SM_CTX_1_RID_PRIV          (1ULL << 20)
#define VTD_SM_CTX_1_RSVD              0xffffffffffe00000ULL

/* Section 9.5: PASID directory entry */
#define VTD_PASID_DIR_P                (1ULL << 0)
#define VTD_PASID_DIR_FPD              (1ULL << 1)
#define VTD_PASID_DIR_RSVD             0xffcULL

/* Section 9.6: PASID table entry, the first three of 8 words */
#define VTD_PASID_P                    (1ULL << 0)
#define VTD_PASID_FPD                  (1ULL << 1)
#define VTD_PASID_AW_FIELD             MAKE_64BIT_MASK(2, 3)
#define VTD_PASID_SSEE                 (1ULL << 5)
#define VTD_PASID_PGTT_FIELD           MAKE_64BIT_MASK(6, 3)
#define VTD_PASID_SSADE                (1ULL << 9)
#define VTD_PASID_RSVD                 0xc00ULL
#define VTD_PASID_1_DID_FIELD          MAKE_64BIT_MASK(0, 16)
#define VTD_PASID_1_PGSNP              (1ULL << 24)
/* PWSNP, and the memory types: neither ECAP.SMPWC nor ECAP.MTS is offered */
#define VTD_PASID_1_RSVD               0xfffffffffeff0000ULL
#define VTD_PASID_2_SRE                (1ULL << 0)
#define VTD_PASID_2_ERE                (1ULL << 1)
#define VTD_PASID_2_FSPM_FIELD         MAKE_64BIT_MASK(2, 2)
#define VTD_PASID_2_WPE                (1ULL << 4)
#define VTD_PASID_2_NXE                (1ULL << 5)
#define VTD_PASID_2_SMEP               (1ULL << 6)
#define VTD_PASID_2_EAFE               (1ULL << 7)
#define VTD_PASID_2_RSVD               0xf00ULL
#define VTD_PGTT_FIRST                 1
#define VTD_PGTT_SECOND                2
#define VTD_PGTT_NESTED                3
#define VTD_PGTT_PASS_THROUGH          4

/* Section 3.4.3: a PASID has 20 bits, of which the upper 14 choose a table */
#define VTD_PASID_MAX                  0xfffffU
#define VTD_PASID_TABLE_FIELD          MAKE_64BIT_MASK(0, 6)
#define VTD_PASID_DIR_FIELD            MAKE_64BIT_MASK(6, 14)
/* What stands for the PASID of a request that has none */
#define VTD_PASID_NONE                 UINT32_MAX

/* Section 9.7: first-stage paging entries */
#define VTD_FS_P                       (1ULL << 0)
#define VTD_FS_RW                      (1ULL << 1)
#define VTD_FS_US                      (1ULL << 2)
#define VTD_FS_A                       (1ULL << 5)
#define VTD_FS_D                       (1ULL << 6)
#define VTD_FS_PS                      (1ULL << 7)
#define VTD_FS_PAT_LARGE               (1ULL << 12)
#define VTD_FS_XD                      (1ULL << 63)

/* Section 9.8: second-stage paging entries */
#define VTD_SS_R                       (1ULL << 0)
#define VTD_SS_W                       (1ULL << 1)
#define VTD_SS_RW                      (VTD_SS_R | VTD_SS_W)
#define VTD_SS_PS                      (1ULL << 7)
#define VTD_SS_SNP                     (1ULL << 11)
#define VTD_SS_TM                      (1ULL << 62)
#define VTD_SS_ADDR_MASK               0x000ffffffffff000ULL
#define VTD_SS_LEVEL_BITS              9

/* Section 9.9: Interrupt Remapping Table Entry, low and high quadword */
#define VTD_IRTE_P                     (1ULL << 0)
#define VTD_IRTE_FPD                   (1ULL << 1)
#define VTD_IRTE_DM                    (1ULL << 2)
#define VTD_IRTE_RH                    (1ULL << 3)
#define VTD_IRTE_TM                    (1ULL << 4)
#define VTD_IRTE_DLM_FIELD             MAKE_64BIT_MASK(5, 3)
#define VTD_IRTE_IM                    (1ULL << 15)
#define VTD_IRTE_V_FIELD               MAKE_64BIT_MASK(16, 8)
#define VTD_IRTE_DST_FIELD             MAKE_64BIT_MASK(32, 32)
#define VTD_IRTE_DST_XAPIC_FIELD       MAKE_64BIT_MASK(40, 8)
#define VTD_IRTE_RSVD                  0xff00f000ULL
#define VTD_IRTE_RSVD_XAPIC            0xffff00ffff00f000ULL
#define VTD_IRTE_HI_SID_FIELD          MAKE_64BIT_MASK(0, 16)
#define VTD_IRTE_HI_SQ_FIELD           MAKE_64BIT_MASK(16, 2)
#define VTD_IRTE_HI_SVT_FIELD          MAKE_64BIT_MASK(18, 2)
#define VTD_IRTE_HI_RSVD               0xfffffffffff00000ULL
#define VTD_SVT_NONE                   0
#define VTD_SVT_SID                    1
#define VTD_SVT_BUS                    2

/* Section 5.1.2.2: remappable interrupt request, address and data */
#define VTD_IR_ADDR_BASE               0xfee00000ULL
#define VTD_IR_RANGE_SIZE              0x100000ULL
#define VTD_IR_ADDR_FORMAT             (1ULL << 4)
#define VTD_IR_ADDR_SHV                (1ULL << 3)
#define VTD_IR_ADDR_HANDLE_FIELD       MAKE_64BIT_MASK(5, 15)
#define VTD_IR_ADDR_HANDLE15_FIELD     MAKE_64BIT_MASK(2, 1)
#define VTD_IR_DATA_SUBHANDLE_FIELD    MAKE_64BIT_MASK(0, 16)
#define VTD_IR_DATA_RSVD               0xffff0000U

/* Section 6.5.2: descriptor types of the invalidation queue */
#define VTD_INV_TYPE_FIELD             MAKE_64BIT_MASK(0, 4)
#define VTD_INV_TYPE_HIGH_FIELD        MAKE_64BIT_MASK(9, 3)
#define VTD_INV_CC                     1
#define VTD_INV_IOTLB                  2
#define VTD_INV_DEVTLB                 3
#define VTD_INV_IEC                    4
#define VTD_INV_WAIT                   5
#define VTD_INV_PASID_IOTLB            6
#define VTD_INV_PASID_CACHE            7

/* Section 6.5.2.1: context-cache invalidate */
#define VTD_INV_CC_G_FIELD             MAKE_64BIT_MASK(4, 2)
#define VTD_INV_CC_DID_FIELD           MAKE_64BIT_MASK(16, 16)
#define VTD_INV_CC_SID_FIELD           MAKE_64BIT_MASK(32, 16)
#define VTD_INV_CC_FM_FIELD            MAKE_64BIT_MASK(48, 2)
#define VTD_INV_CC_RSVD                0xfffc00000000ffc0ULL
/* Section 6.5.2.3: IOTLB invalidate */
#define VTD_INV_IOTLB_G_FIELD          MAKE_64BIT_MASK(4, 2)
#define VTD_INV_IOTLB_DID_FIELD        MAKE_64BIT_MASK(16, 16)
#define VTD_INV_IOTLB_RSVD             0xffffffff0000ff00ULL
#define VTD_INV_IOTLB_HI_AM_FIELD      MAKE_64BIT_MASK(0, 6)
#define VTD_INV_IOTLB_HI_RSVD          0xf80ULL
/* Section 6.5.2.5: device-TLB invalidate */
#define VTD_INV_DEVTLB_SID_FIELD       MAKE_64BIT_MASK(32, 16)
#define VTD_INV_DEVTLB_RSVD            0x000f0000ffe00ff0ULL
#define VTD_INV_DEVTLB_HI_S            (1ULL << 0)
#define VTD_INV_DEVTLB_HI_RSVD         0xffeULL
/* Section 6.5.2.7: interrupt entry cache invalidate */
#define VTD_INV_IEC_INDEX              (1ULL << 4)
#define VTD_INV_IEC_IM_FIELD           MAKE_64BIT_MASK(27, 5)
#define VTD_INV_IEC_IIDX_FIELD         MAKE_64BIT_MASK(32, 16)
#define VTD_INV_IEC_RSVD               0xffff000007ffffe0ULL
/* Section 6.5.2.8: invalidation wait */
#define VTD_INV_WAIT_IF                (1ULL << 4)
#define VTD_INV_WAIT_SW                (1ULL << 5)
#define VTD_INV_WAIT_RSVD              0xffffff80ULL
#define VTD_INV_WAIT_DATA_FIELD        MAKE_64BIT_MASK(32, 32)
#define VTD_INV_WAIT_HI_ADDR_MASK      (~3ULL)
#define VTD_INV_WAIT_HI_RSVD           3ULL
/* Sections 6.5.2.2 and 6.5.2.4: what names a PASID */
#define VTD_INV_PASID_G_FIELD          MAKE_64BIT_MASK(4, 2)
#define VTD_INV_PASID_DID_FIELD        MAKE_64BIT_MASK(16, 16)
#define VTD_INV_PASID_PASID_FIELD      MAKE_64BIT_MASK(32, 20)
#define VTD_INV_PASID_RSVD             0xfff000000000f1c0ULL
/* Section 6.5.2.2: PASID cache invalidate, granularities */
#define VTD_PC_DOMAIN                  0
#define VTD_PC_PASID                   1
#define VTD_PC_GLOBAL                  3
/* Section 6.5.2.4: PASID-based IOTLB invalidate, granularities and address */
#define VTD_PASID_IOTLB_PASID          2
#define VTD_PASID_IOTLB_PAGE           3
#define VTD_INV_PASID_IOTLB_HI_AM_FIELD MAKE_64BIT_MASK(0, 6)
#define VTD_INV_PASID_IOTLB_HI_RSVD    0xf80ULL

/*
 * Section 7.1.3 and appendix A: fault reasons.  The conditions that FPD can
 * keep from being recorded ("qualified") are told by vtd_fault_qualified().
 */
typedef enum VTDFaultReason {
    VTD_FR_NONE = 0,
    VTD_FR_ROOT_NOT_PRESENT = 0x1,          /* LRT.2 */
    VTD_FR_CONTEXT_NOT_PRESENT = 0x2,       /* LCT.2 */
    VTD_FR_CONTEXT_INVALID = 0x3,           /* LCT.4: its table, too */
    VTD_FR_ADDRESS_WIDTH = 0x4,             /* LGN.1: beyond MGAW or AW */
    VTD_FR_WRITE = 0x5,                     /* LGN.2 */
    VTD_FR_READ = 0x6,                      /* LGN.3 */
    VTD_FR_PAGING_ACCESS = 0x7,             /* LSS.1 */
    VTD_FR_ROOT_ACCESS = 0x8,               /* LRT.1 */
    VTD_FR_CONTEXT_ACCESS = 0x9,            /* LCT.1 */
    VTD_FR_ROOT_RSVD = 0xa,                 /* LRT.3 */
    VTD_FR_CONTEXT_RSVD = 0xb,              /* LCT.3 */
    VTD_FR_PAGING_RSVD = 0xc,               /* LSS.2 */
    VTD_FR_TRANSLATED_BLOCKED = 0xd,        /* LCT.5 */
    VTD_FR_INTERRUPT_ADDRESS = 0xe,         /* LGN.4 */
    VTD_FR_IR_REQUEST_RSVD = 0x20,
    VTD_FR_IR_INDEX = 0x21,
    VTD_FR_IR_NOT_PRESENT = 0x22,
    VTD_FR_IR_ACCESS = 0x23,
    VTD_FR_IR_RSVD = 0x24,
    VTD_FR_IR_COMPAT_BLOCKED = 0x25,
    VTD_FR_IR_SOURCE = 0x26,
    VTD_FR_SM_TTM = 0x30,                   /* SRTA.1: not offered */
    VTD_FR_SM_TTM_PASID = 0x31,             /* SRTA.2: PASID, legacy mode */
    VTD_FR_SM_ROOT_ACCESS = 0x38,           /* SRT.1 */
    VTD_FR_SM_ROOT_NOT_PRESENT = 0x39,      /* SRT.2 */
    VTD_FR_SM_ROOT_RSVD = 0x3a,             /* SRT.3 */
    VTD_FR_SM_CONTEXT_ACCESS = 0x40,        /* SCT.1 */
    VTD_FR_SM_CONTEXT_NOT_PRESENT = 0x41,   /* SCT.2 */
    VTD_FR_SM_CONTEXT_RSVD = 0x42,          /* SCT.3 */
    VTD_FR_SM_CONTEXT_PASIDE = 0x45,        /* SCT.6 */
    VTD_FR_SM_CONTEXT_PDTS = 0x46,          /* SCT.7 */
    VTD_FR_SM_CONTEXT_RID_PASID = 0x48,     /* SCT.9 */
    VTD_FR_SM_DIR_ACCESS = 0x50,            /* SPD.1 */
    VTD_FR_SM_DIR_NOT_PRESENT = 0x51,       /* SPD.2 */
    VTD_FR_SM_DIR_RSVD = 0x52,              /* SPD.3 */
    VTD_FR_SM_PASID_ACCESS = 0x58,          /* SPT.1 */
    VTD_FR_SM_PASID_NOT_PRESENT = 0x59,     /* SPT.2 */
    VTD_FR_SM_PASID_RSVD = 0x5a,            /* SPT.3 */
    VTD_FR_SM_PASID_INVALID = 0x5b,         /* SPT.4 */
    VTD_FR_SM_PASID_SRE = 0x5d,             /* SPT.6 */
    VTD_FR_FS_ACCESS = 0x70,                /* SFS.1 */
    VTD_FR_FS_NOT_PRESENT = 0x71,           /* SFS.2 */
    VTD_FR_FS_RSVD = 0x72,                  /* SFS.3 */
    VTD_FR_FS_ROOT_ACCESS = 0x73,           /* SFS.4 */
    VTD_FR_SS_ACCESS = 0x78,                /* SSS.1 */
    VTD_FR_SS_RSVD = 0x7a,                  /* SSS.3 */
    VTD_FR_SS_ROOT_ACCESS = 0x7b,           /* SSS.4 */
    VTD_FR_SM_CANONICAL = 0x80,             /* SGN.1 */
    VTD_FR_SM_USER = 0x81,                  /* SGN.2 */
    VTD_FR_SM_ADDRESS_WIDTH = 0x84,         /* SGN.5 */
    VTD_FR_SM_WRITE = 0x85,                 /* SGN.6 */
    VTD_FR_SM_READ = 0x86,                  /* SGN.7 */
    VTD_FR_SM_INTERRUPT_ADDRESS = 0x87,     /* SGN.8 */
    VTD_FR_FS_UPDATE = 0x91,                /* SFS.11: A or D not written */
} VTDFaultReason;

#endif
