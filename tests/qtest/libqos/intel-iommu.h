/*
 * A small driver for the Intel VT-d remapping unit of q35, for tests
 *
 * The first half lists what the tests need of the VT-d architecture
 * specification (revision 4.1), written down from the specification alone and
 * on purpose not shared with the model: a wrong bit in one of the two lists
 * shows as a red test.  Section numbers are those of that revision.
 *
 * The second half is the driver: start a machine with a unit, build tables in
 * guest memory, queue invalidations, let an "edu" device do DMA or send an
 * MSI, and look at what was recorded.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_LIBQOS_INTEL_IOMMU_H
#define TESTS_LIBQOS_INTEL_IOMMU_H

#include "qemu/bitops.h"
#include "../libqtest.h"

/* Where q35 has its unit (reported in the DMAR table's DRHD, section 8.3) */
#define QVTD_BASE               0xfed90000ULL

/* Registers, section 11.4 (table of section 11.3) */
#define QVTD_VER                0x000
#define QVTD_CAP                0x008
#define QVTD_ECAP               0x010
#define QVTD_GCMD               0x018
#define QVTD_GSTS               0x01c
#define QVTD_RTADDR             0x020
#define QVTD_CCMD               0x028
#define QVTD_FSTS               0x034
#define QVTD_FECTL              0x038
#define QVTD_FEDATA             0x03c
#define QVTD_FEADDR             0x040
#define QVTD_FEUADDR            0x044
#define QVTD_AFLOG              0x058
#define QVTD_PMEN               0x064
#define QVTD_PLMBASE            0x068
#define QVTD_PLMLIMIT           0x06c
#define QVTD_PHMBASE            0x070
#define QVTD_PHMLIMIT           0x078
#define QVTD_IQH                0x080
#define QVTD_IQT                0x088
#define QVTD_IQA                0x090
#define QVTD_ICS                0x09c
#define QVTD_IECTL              0x0a0
#define QVTD_IEDATA             0x0a4
#define QVTD_IEADDR             0x0a8
#define QVTD_IEUADDR            0x0ac
#define QVTD_IQERCD             0x0b0
#define QVTD_IRTA               0x0b8
#define QVTD_PQH                0x0c0
#define QVTD_PQT                0x0c8
#define QVTD_PQA                0x0d0
#define QVTD_PRS                0x0dc
#define QVTD_PECTL              0x0e0
#define QVTD_PEDATA             0x0e4
#define QVTD_PEADDR             0x0e8
#define QVTD_PEUADDR            0x0ec

/* Capability Register, section 11.4.2 */
#define QVTD_CAP_ND(c)          extract64(c, 0, 3)
#define QVTD_CAP_AFL            BIT_ULL(3)
#define QVTD_CAP_RWBF           BIT_ULL(4)
#define QVTD_CAP_PLMR           BIT_ULL(5)
#define QVTD_CAP_PHMR           BIT_ULL(6)
#define QVTD_CAP_CM             BIT_ULL(7)
#define QVTD_CAP_SAGAW(c)       extract64(c, 8, 5)
#define QVTD_CAP_SAGAW_39       BIT_ULL(9)
#define QVTD_CAP_SAGAW_48       BIT_ULL(10)
#define QVTD_CAP_SAGAW_57       BIT_ULL(11)
#define QVTD_CAP_MGAW(c)        extract64(c, 16, 6)
#define QVTD_CAP_ZLR            BIT_ULL(22)
#define QVTD_CAP_FRO(c)         extract64(c, 24, 10)
#define QVTD_CAP_SLLPS(c)       extract64(c, 34, 4)
#define QVTD_CAP_PSI            BIT_ULL(39)
#define QVTD_CAP_NFR(c)         extract64(c, 40, 8)
#define QVTD_CAP_MAMV(c)        extract64(c, 48, 6)
#define QVTD_CAP_DWD            BIT_ULL(54)
#define QVTD_CAP_DRD            BIT_ULL(55)
#define QVTD_CAP_FS1GP          BIT_ULL(56)
#define QVTD_CAP_FS5LP          BIT_ULL(60)
#define QVTD_CAP_PI             BIT_ULL(59)
#define QVTD_CAP_ESIRTPS        BIT_ULL(62)
#define QVTD_CAP_ESRTPS         BIT_ULL(63)

/* Extended Capability Register, section 11.4.3 */
#define QVTD_ECAP_C             BIT_ULL(0)
#define QVTD_ECAP_QI            BIT_ULL(1)
#define QVTD_ECAP_DT            BIT_ULL(2)
#define QVTD_ECAP_IR            BIT_ULL(3)
#define QVTD_ECAP_EIM           BIT_ULL(4)
#define QVTD_ECAP_PT            BIT_ULL(6)
#define QVTD_ECAP_SC            BIT_ULL(7)
#define QVTD_ECAP_IRO(e)        extract64(e, 8, 10)
#define QVTD_ECAP_MHMV(e)       extract64(e, 20, 4)
#define QVTD_ECAP_SRS           BIT_ULL(31)
#define QVTD_ECAP_PASID         BIT_ULL(40)
#define QVTD_ECAP_SMTS          BIT_ULL(43)
#define QVTD_ECAP_SSTS          BIT_ULL(46)
#define QVTD_ECAP_FSTS          BIT_ULL(47)

/* Global Command and Status, sections 11.4.4.1 and 11.4.4.2: same positions */
#define QVTD_GCMD_CFI           BIT(23)
#define QVTD_GCMD_SIRTP         BIT(24)
#define QVTD_GCMD_IRE           BIT(25)
#define QVTD_GCMD_QIE           BIT(26)
#define QVTD_GCMD_WBF           BIT(27)
#define QVTD_GCMD_EAFL          BIT(28)
#define QVTD_GCMD_SFL           BIT(29)
#define QVTD_GCMD_SRTP          BIT(30)
#define QVTD_GCMD_TE            BIT(31)

/* What software must not carry over from GSTS into GCMD, section 11.4.4.1 */
#define QVTD_GCMD_ONE_SHOT      (QVTD_GCMD_SRTP | QVTD_GCMD_SFL | \
                                 QVTD_GCMD_WBF | QVTD_GCMD_SIRTP)

/* Root Table Address, section 11.4.5: translation table mode */
#define QVTD_RTADDR_TTM_LEGACY  0x000ULL
#define QVTD_RTADDR_TTM_SCALABLE 0x400ULL
#define QVTD_RTADDR_TTM_ABORT   0xc00ULL
#define QVTD_RTADDR_TTM_MASK    0xc00ULL

/* Context Command, section 11.4.6.1 */
#define QVTD_CCMD_ICC           BIT_ULL(63)
#define QVTD_CCMD_CIRG(g)       ((uint64_t)(g) << 61)
#define QVTD_CCMD_CAIG(r)       extract64(r, 59, 2)
#define QVTD_CCMD_FM(m)         ((uint64_t)(m) << 32)
#define QVTD_CCMD_SID(s)        ((uint64_t)(s) << 16)
#define QVTD_CCMD_DID(d)        ((uint64_t)(d))

/* IOTLB registers, section 11.4.6.2, at the offset that ECAP.IRO tells */
#define QVTD_IVA_AM(m)          ((uint64_t)(m))
#define QVTD_IVA_IH             BIT_ULL(6)
#define QVTD_IOTLB_IVT          BIT_ULL(63)
#define QVTD_IOTLB_IIRG(g)      ((uint64_t)(g) << 60)
#define QVTD_IOTLB_IAIG(r)      extract64(r, 57, 2)
#define QVTD_IOTLB_DR           BIT_ULL(49)
#define QVTD_IOTLB_DW           BIT_ULL(48)
#define QVTD_IOTLB_DID(d)       ((uint64_t)(d) << 32)

/* Granularity of an invalidation, by register and in descriptors */
#define QVTD_GRAN_GLOBAL        1
#define QVTD_GRAN_DOMAIN        2
#define QVTD_GRAN_DEVICE        3       /* context cache */
#define QVTD_GRAN_PAGE          3       /* IOTLB */

/* Fault Status, section 11.4.7.1 */
#define QVTD_FSTS_PFO           BIT(0)
#define QVTD_FSTS_PPF           BIT(1)
#define QVTD_FSTS_IQE           BIT(4)
#define QVTD_FSTS_ICE           BIT(5)
#define QVTD_FSTS_ITE           BIT(6)
#define QVTD_FSTS_FRI(s)        extract32(s, 8, 8)

/* Event control registers, sections 11.4.7.2 and 11.4.9.6 */
#define QVTD_ECTL_IP            BIT(30)
#define QVTD_ECTL_IM            BIT(31)

/* Invalidation queue registers, section 11.4.9 */
#define QVTD_IQA_QS(s)          ((uint64_t)(s))
#define QVTD_IQA_DW             BIT_ULL(11)
#define QVTD_ICS_IWC            BIT(0)

/* Interrupt Remapping Table Address, section 11.4.10 */
#define QVTD_IRTA_EIME          BIT_ULL(11)
#define QVTD_IRTA_S(s)          ((uint64_t)(s))

/* Fault Recording registers, section 11.4.7.6, upper half */
#define QVTD_FRCD_SID(h)        extract64(h, 0, 16)
#define QVTD_FRCD_T2            BIT_ULL(28)
#define QVTD_FRCD_PP            BIT_ULL(31)
#define QVTD_FRCD_FR(h)         extract64(h, 32, 8)
#define QVTD_FRCD_T1            BIT_ULL(62)
#define QVTD_FRCD_F             BIT_ULL(63)

/* Fault reasons of legacy mode, section 7.1.3 */
typedef enum QVtdReason {
    QVTD_FR_NONE                = 0x00, /* no fault was recorded */
    QVTD_FR_ROOT_NOT_PRESENT    = 0x01,
    QVTD_FR_CTX_NOT_PRESENT     = 0x02,
    QVTD_FR_CTX_INVALID         = 0x03,
    QVTD_FR_ADDR_BEYOND         = 0x04,
    QVTD_FR_WRITE               = 0x05,
    QVTD_FR_READ                = 0x06,
    QVTD_FR_TABLE_ADDR          = 0x07,
    QVTD_FR_ROOT_ADDR           = 0x08,
    QVTD_FR_CTX_ADDR            = 0x09,
    QVTD_FR_ROOT_RSVD           = 0x0a,
    QVTD_FR_CTX_RSVD            = 0x0b,
    QVTD_FR_PTE_RSVD            = 0x0c,
    QVTD_FR_REQ_BLOCKED         = 0x0d,
    QVTD_FR_INTR_RANGE          = 0x0e,
    /* Interrupt remapping, section 7.1.3 (table of section 5.1.4.1) */
    QVTD_FR_IR_REQ_RSVD         = 0x20,
    QVTD_FR_IR_INDEX            = 0x21,
    QVTD_FR_IR_NOT_PRESENT      = 0x22,
    QVTD_FR_IR_TABLE_ADDR       = 0x23,
    QVTD_FR_IR_IRTE_RSVD        = 0x24,
    QVTD_FR_IR_COMPAT           = 0x25,
    QVTD_FR_IR_SID              = 0x26,
    /* Scalable mode: the conditions of table 7.1.3 by their names there */
    QVTD_SRTA_1                 = 0x30,
    QVTD_SRTA_2                 = 0x31,
    QVTD_SRT_1                  = 0x38,
    QVTD_SRT_2                  = 0x39,
    QVTD_SRT_3                  = 0x3a,
    QVTD_SCT_1                  = 0x40,
    QVTD_SCT_2                  = 0x41,
    QVTD_SCT_3                  = 0x42,
    QVTD_SCT_6                  = 0x45,
    QVTD_SCT_7                  = 0x46,
    QVTD_SCT_9                  = 0x48,
    QVTD_SPD_1                  = 0x50,
    QVTD_SPD_2                  = 0x51,
    QVTD_SPD_3                  = 0x52,
    QVTD_SPT_1                  = 0x58,
    QVTD_SPT_2                  = 0x59,
    QVTD_SPT_3                  = 0x5a,
    QVTD_SPT_4                  = 0x5b,
    QVTD_SPT_6                  = 0x5d,
    QVTD_SFS_1                  = 0x70,
    QVTD_SFS_2                  = 0x71,
    QVTD_SFS_3                  = 0x72,
    QVTD_SFS_4                  = 0x73,
    QVTD_SSS_1                  = 0x78,
    QVTD_SSS_3                  = 0x7a,
    QVTD_SSS_4                  = 0x7b,
    QVTD_SGN_1                  = 0x80,
    QVTD_SGN_2                  = 0x81,
    QVTD_SGN_5                  = 0x84,
    QVTD_SGN_6                  = 0x85,
    QVTD_SGN_7                  = 0x86,
    QVTD_SGN_8                  = 0x87,
    QVTD_SFS_11                 = 0x91,
} QVtdReason;

/* Root entry, section 9.1, and context entry of legacy mode, section 9.3 */
#define QVTD_ROOT_P             BIT_ULL(0)
#define QVTD_CTX_P              BIT_ULL(0)
#define QVTD_CTX_FPD            BIT_ULL(1)
#define QVTD_CTX_TT(t)          ((uint64_t)(t) << 2)
#define QVTD_CTX_AW(levels)     ((uint64_t)((levels) - 2))      /* upper half */
#define QVTD_CTX_DID(d)         ((uint64_t)(d) << 8)            /* upper half */
#define QVTD_TT_UNTRANSLATED    0
#define QVTD_TT_ALL             1
#define QVTD_TT_PASS_THROUGH    2
#define QVTD_TT_RESERVED        3

/* Scalable mode: root entry, context entry (4 words), sections 9.2 and 9.4 */
#define QVTD_SM_ROOT_P          BIT_ULL(0)
#define QVTD_SM_CTX_P           BIT_ULL(0)
#define QVTD_SM_CTX_FPD         BIT_ULL(1)
#define QVTD_SM_CTX_PASIDE      BIT_ULL(3)
#define QVTD_SM_CTX_PDTS(n)     ((uint64_t)(n) << 9)
/* PASID directory entry and PASID table entry (8 words), 9.5 and 9.6 */
#define QVTD_SM_DIR_P           BIT_ULL(0)
#define QVTD_SM_DIR_FPD         BIT_ULL(1)
#define QVTD_SM_PE_P            BIT_ULL(0)
#define QVTD_SM_PE_FPD          BIT_ULL(1)
#define QVTD_SM_PE_AW(levels)   ((uint64_t)((levels) - 2) << 2)
#define QVTD_SM_PE_PGTT(t)      ((uint64_t)(t) << 6)
#define QVTD_SM_PE2_FSPM(levels) ((uint64_t)((levels) - 4) << 2)
#define QVTD_PGTT_FIRST         1
#define QVTD_PGTT_SECOND        2
#define QVTD_PGTT_NESTED        3
#define QVTD_PGTT_PASS          4

/* First-stage paging entries, section 9.7 */
#define QVTD_FS_P               BIT_ULL(0)
#define QVTD_FS_RW              BIT_ULL(1)
#define QVTD_FS_US              BIT_ULL(2)
#define QVTD_FS_A               BIT_ULL(5)
#define QVTD_FS_D               BIT_ULL(6)
#define QVTD_FS_PS              BIT_ULL(7)
#define QVTD_FS_ALL             (QVTD_FS_P | QVTD_FS_RW | QVTD_FS_US)

/* Second-stage paging entries, section 9.8 */
#define QVTD_PTE_R              BIT_ULL(0)
#define QVTD_PTE_W              BIT_ULL(1)
#define QVTD_PTE_RW             (QVTD_PTE_R | QVTD_PTE_W)
#define QVTD_PTE_PS             BIT_ULL(7)
#define QVTD_PTE_SNP            BIT_ULL(11)

/* Invalidation descriptors, section 6.5.2: type in bits 3:0 (and 11:9) */
#define QVTD_DESC_CC            0x1
#define QVTD_DESC_IOTLB         0x2
#define QVTD_DESC_DEV_IOTLB     0x3
#define QVTD_DESC_IEC           0x4
#define QVTD_DESC_WAIT          0x5
#define QVTD_DESC_PIOTLB        0x6
#define QVTD_DESC_PC            0x7
#define QVTD_DESC_PDEV_IOTLB    0x8
#define QVTD_DESC_PASID(p)      ((uint64_t)(p) << 32)
#define QVTD_PC_DOMAIN          0
#define QVTD_PC_PASID           1
#define QVTD_PC_GLOBAL          3
#define QVTD_PIOTLB_PASID       2
#define QVTD_PIOTLB_PAGE        3
#define QVTD_DESC_GRAN(g)       ((uint64_t)(g) << 4)
#define QVTD_DESC_DID(d)        ((uint64_t)(d) << 16)
#define QVTD_DESC_CC_SID(s)     ((uint64_t)(s) << 32)
#define QVTD_DESC_CC_FM(m)      ((uint64_t)(m) << 48)
#define QVTD_DESC_IOTLB_DW      BIT_ULL(6)
#define QVTD_DESC_IOTLB_DR      BIT_ULL(7)
#define QVTD_DESC_IEC_INDEX     BIT_ULL(4)
#define QVTD_DESC_IEC_IM(m)     ((uint64_t)(m) << 27)
#define QVTD_DESC_IEC_IIDX(i)   ((uint64_t)(i) << 32)
#define QVTD_DESC_WAIT_IF       BIT_ULL(4)
#define QVTD_DESC_WAIT_SW       BIT_ULL(5)
#define QVTD_DESC_WAIT_FN       BIT_ULL(6)
#define QVTD_DESC_WAIT_DATA(d)  ((uint64_t)(d) << 32)
#define QVTD_DESC_DEV_SID(s)    ((uint64_t)(s) << 32)

/* Interrupt requests in remappable format, section 5.1.2.2 */
#define QVTD_MSI_BASE           0xfee00000u
#define QVTD_MSI_SHV            BIT(3)
#define QVTD_MSI_REMAPPABLE     BIT(4)

/* Interrupt Remapping Table Entry, section 9.10, lower half */
#define QVTD_IRTE_P             BIT_ULL(0)
#define QVTD_IRTE_FPD           BIT_ULL(1)
#define QVTD_IRTE_DM_LOGICAL    BIT_ULL(2)
#define QVTD_IRTE_RH            BIT_ULL(3)
#define QVTD_IRTE_TM_LEVEL      BIT_ULL(4)
#define QVTD_IRTE_DLM(d)        ((uint64_t)(d) << 5)
#define QVTD_IRTE_IM            BIT_ULL(15)
#define QVTD_IRTE_VECTOR(v)     ((uint64_t)(v) << 16)
#define QVTD_IRTE_XAPIC(id)     ((uint64_t)(id) << 40)
#define QVTD_IRTE_X2APIC(id)    ((uint64_t)(id) << 32)
/* ... and upper half */
#define QVTD_IRTE_SID(s)        ((uint64_t)(s))
#define QVTD_IRTE_SQ(q)         ((uint64_t)(q) << 16)
#define QVTD_IRTE_SVT(t)        ((uint64_t)(t) << 18)
#define QVTD_SVT_NONE           0
#define QVTD_SVT_SID            1
#define QVTD_SVT_BUS            2

#define QVTD_PAGE               0x1000ULL

/* An address below 2^39 behind which q35 with little memory has nothing */
#define QVTD_HOLE               0x4000000000ULL

/*
 * In every domain made by qvtd_domain_new() this page is writable and leads
 * to QVtdDomain.bounce: the way by which the tests see what a device has read.
 */
#define QVTD_BOUNCE_IOVA        0x6000000000ULL

/* An edu device that masks no address bits (docs/specs/edu.rst) */
#define QVTD_EDU                "-device edu,dma_mask=0xffffffffffffffff"

#define QVTD_SID(bus, dev, fn)  (((bus) << 8) | ((dev) << 3) | (fn))

/**
 * QVtd: one machine with one remapping unit
 * @cap, @ecap: as read at the start
 * @frcd, @nfr: offset of the first fault recording register, and how many
 * @iotlb: offset of IVA_REG; IOTLB_REG is 8 further
 * @heap: next free guest page
 * @bar: next free address for a device's BAR
 * @root: root table; 0 before qvtd_tables_init()
 * @ctx: context table of each bus, or 0
 * @iq, @iq_slots, @iq_tail: invalidation queue, number of its descriptors,
 *                           where the next one goes
 * @iq_width: bytes of a descriptor, 16 or 32
 * @irt: interrupt remapping table
 * @gcmd: what of GCMD is on, so that one bit can change alone (11.4.4.1)
 */
typedef struct QVtd {
    QTestState *qts;
    uint64_t cap;
    uint64_t ecap;
    uint32_t frcd;
    unsigned nfr;
    uint32_t iotlb;
    uint64_t heap;
    uint32_t bar;
    uint64_t root;
    uint64_t ctx[256];
    uint64_t iq;
    unsigned iq_slots;
    unsigned iq_tail;
    unsigned iq_width;
    uint64_t irt;
    uint32_t gcmd;
} QVtd;

/**
 * QVtdDomain: second-stage page tables under a domain id
 */
typedef struct QVtdDomain {
    QVtd *v;
    uint64_t pgd;
    int levels;
    uint16_t id;
    uint64_t bounce;
} QVtdDomain;

/**
 * QVtdEdu: an "edu" device, enabled, with its BAR mapped
 */
typedef struct QVtdEdu {
    QVtd *v;
    uint16_t sid;
    uint32_t bar;
} QVtdEdu;

/**
 * QVtdFault: one fault recording register, taken apart
 */
typedef struct QVtdFault {
    bool f;
    QVtdReason reason;
    uint16_t sid;
    uint64_t info;
    bool read;
    bool pp;
    uint32_t pasid;
} QVtdFault;

/* Requests without PASID */
#define QVTD_NO_PASID           UINT32_MAX

/**
 * QVtdTestdev: a "vtd-testdev" device, enabled, with its BAR mapped
 */
typedef struct QVtdTestdev {
    QVtd *v;
    uint16_t sid;
    uint32_t bar;
} QVtdTestdev;

/* What a probe says, and that there is no such address space */
#define QVTD_PROBE_R            BIT(0)
#define QVTD_PROBE_W            BIT(1)
#define QVTD_NO_SPACE           BIT(31)

/*
 * Start q35 with "-device intel-iommu,@props" and the command line @args.
 * @props and @args may be NULL.
 */
QVtd *qvtd_start(const char *props, const char *args);
/* The same with the binary named by the environment variable @env. */
QVtd *qvtd_start_env(const char *env, const char *props, const char *args);
void qvtd_quit(QVtd *v);
/* Reset the machine, and forget what the driver knew about the unit. */
void qvtd_system_reset(QVtd *v);

uint32_t qvtd_readl(QVtd *v, uint32_t reg);
uint64_t qvtd_readq(QVtd *v, uint32_t reg);
void qvtd_writel(QVtd *v, uint32_t reg, uint32_t val);
void qvtd_writeq(QVtd *v, uint32_t reg, uint64_t val);
#define qvtd_assert_reg32(v, reg, val) \
    g_assert_cmphex(qvtd_readl(v, reg), ==, val)
#define qvtd_assert_reg64(v, reg, val) \
    g_assert_cmphex(qvtd_readq(v, reg), ==, val)

/* Zeroed guest pages. */
uint64_t qvtd_alloc(QVtd *v, unsigned pages);
/* A guest page full of words made from @seed, and the test for it. */
uint64_t qvtd_alloc_pattern(QVtd *v, uint32_t seed);
void qvtd_fill(QVtd *v, uint64_t addr, uint32_t seed);
bool qvtd_holds(QVtd *v, uint64_t addr, uint32_t seed);

/* Turn a GCMD bit on or off, or give a one-shot command; wait for GSTS. */
void qvtd_gcmd_set(QVtd *v, uint32_t bit);
void qvtd_gcmd_clear(QVtd *v, uint32_t bit);

/* An empty root table, and RTADDR/SRTP that point to it (section 6.6). */
void qvtd_tables_init(QVtd *v);
void qvtd_set_root(QVtd *v, uint64_t rtaddr);
/* Context entry of @sid; the root entry and context table are made. */
uint64_t qvtd_context_addr(QVtd *v, uint16_t sid);
void qvtd_write_context(QVtd *v, uint16_t sid, uint64_t lo, uint64_t hi);
void qvtd_attach(QVtdDomain *d, uint16_t sid);

QVtdDomain *qvtd_domain_new(QVtd *v, uint16_t id, int levels);
/*
 * Map one page of @level (1: 4 KiB, 2: 2 MiB, 3: 1 GiB).  Tables on the way
 * are made.  Returns the address of the entry.
 */
uint64_t qvtd_map_level(QVtdDomain *d, uint64_t iova, uint64_t pa,
                        uint64_t perm, int level);
uint64_t qvtd_map(QVtdDomain *d, uint64_t iova, uint64_t pa, uint64_t perm);
/* Address of the entry of @level on the way to @iova; tables are made. */
uint64_t qvtd_pte_addr(QVtdDomain *d, uint64_t iova, int level);

/* Register based invalidation; returns the register when it is done. */
uint64_t qvtd_ccmd(QVtd *v, uint64_t cmd);
uint64_t qvtd_iotlb(QVtd *v, uint64_t cmd, uint64_t iva);
/* Everything, by register, or by queue once that is on. */
void qvtd_flush_all(QVtd *v);

/* Queue of 2^(@qs + 8) descriptors, enabled (section 6.5.2). */
void qvtd_iq_init(QVtd *v, unsigned qs);
/* The same with descriptors of 256 bits (section 11.4.9.3, IQA.DW). */
void qvtd_iq_init_wide(QVtd *v, unsigned qs);
/* Write a descriptor without telling the unit; then tell it. */
void qvtd_iq_put(QVtd *v, uint64_t lo, uint64_t hi);
void qvtd_iq_kick(QVtd *v);
/* Put, kick, and see that the unit has taken it. */
void qvtd_iq_submit(QVtd *v, uint64_t lo, uint64_t hi);
/*
 * Disable the queue when it is empty, after a wait descriptor as software
 * has to (section 6.5.2).
 */
void qvtd_iq_disable(QVtd *v);
/* A page for status writes, and a wait descriptor that writes there. */
void qvtd_iq_wait(QVtd *v, uint64_t status_addr, uint32_t data);
/* Steps the clock until head == tail; false if that does not come. */
bool qvtd_iq_idle(QVtd *v);

/* Fault record @n; qvtd_take_fault() also clears record and status. */
QVtdFault qvtd_fault(QVtd *v, unsigned n);
QVtdFault qvtd_take_fault(QVtd *v);
void qvtd_clear_faults(QVtd *v);
void qvtd_assert_no_fault(QVtd *v);
void qvtd_assert_fault(QVtd *v, QVtdReason reason, uint16_t sid,
                       uint64_t info, bool read);

/* PCI configuration space by the 0xcf8 mechanism. */
uint32_t qvtd_cfg_readl(QVtd *v, uint16_t sid, uint8_t reg);
void qvtd_cfg_writel(QVtd *v, uint16_t sid, uint8_t reg, uint32_t val);
void qvtd_cfg_writew(QVtd *v, uint16_t sid, uint8_t reg, uint16_t val);
void qvtd_cfg_writeb(QVtd *v, uint16_t sid, uint8_t reg, uint8_t val);
uint8_t qvtd_cfg_cap(QVtd *v, uint16_t sid, uint8_t id);
/* Bus numbers and a memory window of @mb MiB for a bridge. */
void qvtd_bridge(QVtd *v, uint16_t sid, uint8_t secondary,
                 uint8_t subordinate, unsigned mb);

QVtdEdu *qvtd_edu(QVtd *v, uint16_t sid);
/* One DMA of @len bytes between the device's buffer and @iova. */
void qvtd_edu_start(QVtdEdu *e, uint64_t iova, unsigned len, bool read);
void qvtd_edu_dma(QVtdEdu *e, uint64_t iova, unsigned len, bool read);
void qvtd_dma_read(QVtdEdu *e, uint64_t iova);
void qvtd_dma_write(QVtdEdu *e, uint64_t iova);
/* A page is read at @iova and found in the domain's bounce page. */
bool qvtd_dma_reads(QVtdDomain *d, QVtdEdu *e, uint64_t iova, uint32_t seed);

/*
 * Tables of scalable mode.  A root table, and RTADDR/SRTP that point to it;
 * then the entries of a requester, with a directory of one page, and of one
 * of its PASIDs, which has to be below 0x8000.  What is missing on the way is
 * made: the addresses returned are of entries that can be written.
 */
void qvtd_sm_init(QVtd *v);
uint64_t qvtd_sm_root_addr(QVtd *v, uint16_t sid);
uint64_t qvtd_sm_context_addr(QVtd *v, uint16_t sid);
uint64_t qvtd_sm_dir_addr(QVtd *v, uint16_t sid, uint32_t pasid);
uint64_t qvtd_sm_pasid_addr(QVtd *v, uint16_t sid, uint32_t pasid);
/* The first three words of a PASID entry, the one with P last. */
void qvtd_sm_write_pasid(QVtd *v, uint16_t sid, uint32_t pasid, uint64_t w0,
                         uint64_t w1, uint64_t w2);

QVtdTestdev *qvtd_testdev(QVtd *v, uint16_t sid);
/* One access of 4 bytes, false if it was refused; and the same to probe. */
bool qvtd_testdev_read(QVtdTestdev *t, uint32_t pasid, uint64_t iova,
                       uint32_t *value);
bool qvtd_testdev_write(QVtdTestdev *t, uint32_t pasid, uint64_t iova,
                        uint32_t value);
uint32_t qvtd_testdev_probe(QVtdTestdev *t, uint32_t pasid, uint64_t iova,
                            uint64_t *addr);

/* Interrupts: the device's MSI, and what the local APICs have received. */
void qvtd_edu_msi(QVtdEdu *e, uint32_t addr, uint32_t data);
void qvtd_edu_fire(QVtdEdu *e);
void qvtd_edu_send(QVtdEdu *e, uint32_t addr, uint32_t data);
bool qvtd_lapic_irr(QVtd *v, unsigned cpu, uint8_t vector);
bool qvtd_lapic_tmr(QVtd *v, unsigned cpu, uint8_t vector);

/* A remapping table of 2^(@s + 1) entries, enabled (section 5.1). */
void qvtd_ir_init(QVtd *v, unsigned s, bool eime);
void qvtd_write_irte(QVtd *v, unsigned index, uint64_t lo, uint64_t hi);
/* Address of a remappable MSI with @handle, without subhandle. */
uint32_t qvtd_msi_addr(unsigned handle);

#endif
