/*
 * VT-d: the register file (VT-d specification, chapter 11)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "libqos/intel-iommu.h"

/* --- values after power-on, and what can be written --- */

typedef struct Register {
    const char *name;
    uint32_t offset;
    unsigned size;
    uint64_t reset;
    uint64_t writable;      /* keeps what is written */
    uint64_t read_only;     /* never changes by a write, and reserved bits */
} Register;

/*
 * Of each register of 11.4: its value after reset, bits that software can
 * set and clear, bits that it cannot.  Bits in neither mask are commands,
 * optional, or not specified; other tests look at them.
 *
 * Address fields are tried up to bit 38, which every unit has.
 */
#define ADDR_39_12      MAKE_64BIT_MASK(12, 27)
#define ALL32           MAKE_64BIT_MASK(0, 32)
#define ALL64           UINT64_MAX

static const Register registers[] = {
    { "GSTS", QVTD_GSTS, 4, 0, 0, ALL32 },
    { "RTADDR", QVTD_RTADDR, 8, 0, ADDR_39_12, MAKE_64BIT_MASK(0, 10) },
    { "CCMD", QVTD_CCMD, 8, 0, QVTD_CCMD_DID(0xffff) | QVTD_CCMD_CIRG(3),
      MAKE_64BIT_MASK(59, 2) | MAKE_64BIT_MASK(34, 25) },
    { "FSTS", QVTD_FSTS, 4, 0, 0, ALL32 },
    { "FECTL", QVTD_FECTL, 4, QVTD_ECTL_IM, QVTD_ECTL_IM,
      MAKE_64BIT_MASK(0, 31) },
    { "FEDATA", QVTD_FEDATA, 4, 0, MAKE_64BIT_MASK(0, 16), 0 },
    { "FEADDR", QVTD_FEADDR, 4, 0, MAKE_64BIT_MASK(2, 30), 3 },
    { "FEUADDR", QVTD_FEUADDR, 4, 0, 0, 0 },
    /* CAP.AFL, PLMR and PHMR are 0: the registers are reserved. */
    { "AFLOG", QVTD_AFLOG, 8, 0, 0, ALL64 },
    { "PMEN", QVTD_PMEN, 4, 0, 0, ALL32 },
    { "PLMBASE", QVTD_PLMBASE, 4, 0, 0, ALL32 },
    { "PLMLIMIT", QVTD_PLMLIMIT, 4, 0, 0, ALL32 },
    { "PHMBASE", QVTD_PHMBASE, 8, 0, 0, ALL64 },
    { "PHMLIMIT", QVTD_PHMLIMIT, 8, 0, 0, ALL64 },
    { "IQH", QVTD_IQH, 8, 0, 0, ALL64 },
    { "IQT", QVTD_IQT, 8, 0, MAKE_64BIT_MASK(4, 15),
      ~MAKE_64BIT_MASK(4, 15) },
    { "IQA", QVTD_IQA, 8, 0, ADDR_39_12 | 7, MAKE_64BIT_MASK(3, 9) },
    { "ICS", QVTD_ICS, 4, 0, 0, ALL32 },
    { "IECTL", QVTD_IECTL, 4, QVTD_ECTL_IM, QVTD_ECTL_IM,
      MAKE_64BIT_MASK(0, 31) },
    { "IEDATA", QVTD_IEDATA, 4, 0, MAKE_64BIT_MASK(0, 16), 0 },
    { "IEADDR", QVTD_IEADDR, 4, 0, MAKE_64BIT_MASK(2, 30), 3 },
    { "IEUADDR", QVTD_IEUADDR, 4, 0, 0, 0 },
    { "IQERCD", QVTD_IQERCD, 8, 0, 0, ALL64 },
    { "IRTA", QVTD_IRTA, 8, 0, ADDR_39_12 | 0xf, MAKE_64BIT_MASK(4, 8) },
    /* ECAP.PRS is 0: the queue of page requests does not exist. */
    { "PQH", QVTD_PQH, 8, 0, 0, 0 },
    { "PRS", QVTD_PRS, 4, 0, 0, ALL32 },
    { "FRCD-low", 0x220, 8, 0, 0, ALL64 },
    { "FRCD-high", 0x228, 8, 0, 0, ALL64 },
    { "VER", QVTD_VER, 4, 0x10, 0, ALL32 },
};

static uint64_t reg_read(QVtd *v, const Register *r)
{
    return r->size == 8 ? qvtd_readq(v, r->offset) : qvtd_readl(v, r->offset);
}

static void reg_write(QVtd *v, const Register *r, uint64_t val)
{
    if (r->size == 8) {
        qvtd_writeq(v, r->offset, val);
    } else {
        qvtd_writel(v, r->offset, val);
    }
}

/* CCMD and GCMD start something when all bits are written. */
static uint64_t harmless(const Register *r, uint64_t val)
{
    return r->offset == QVTD_CCMD ? val & ~QVTD_CCMD_ICC : val;
}

static void check_reset_values(QVtd *v)
{
    for (unsigned i = 0; i < ARRAY_SIZE(registers); i++) {
        g_test_message("%s", registers[i].name);
        g_assert_cmphex(reg_read(v, &registers[i]), ==, registers[i].reset);
    }
}

static void test_reset_values(void)
{
    QVtd *v = qvtd_start(NULL, NULL);

    check_reset_values(v);
    qvtd_quit(v);
}

static void write_and_check(QVtd *v, const Register *r, uint64_t val)
{
    uint64_t got;

    reg_write(v, r, harmless(r, val));
    got = reg_read(v, r);
    g_assert_cmphex(got & r->writable, ==, val & r->writable);
    g_assert_cmphex(got & r->read_only, ==, r->reset & r->read_only);
}

static void test_write_mask(const void *opaque)
{
    static const uint64_t values[] = {
        UINT64_MAX, 0, 0x5555555555555555ULL, 0xaaaaaaaaaaaaaaaaULL,
        0x0123456789abcdefULL, 0
    };
    QVtd *v = qvtd_start(NULL, NULL);

    for (unsigned i = 0; i < ARRAY_SIZE(values); i++) {
        write_and_check(v, opaque, values[i]);
    }
    qvtd_quit(v);
}

static void add_write_mask_tests(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(registers); i++) {
        g_autofree char *path = g_strdup_printf(
            "/vtd/registers/11.4/write-mask/%s", registers[i].name);

        qtest_add_data_func(path, &registers[i], test_write_mask);
    }
}

/* 11.4.1 to 11.4.3: nothing that software writes changes these. */
static void test_capabilities_read_only(void)
{
    QVtd *v = qvtd_start(NULL, NULL);

    for (uint32_t reg = QVTD_VER; reg < QVTD_GCMD; reg += 4) {
        uint32_t was = qvtd_readl(v, reg);

        qvtd_writel(v, reg, UINT32_MAX);
        qvtd_assert_reg32(v, reg, was);
        qvtd_writel(v, reg, 0);
        qvtd_assert_reg32(v, reg, was);
    }
    qvtd_writeq(v, QVTD_CAP, ~v->cap);
    qvtd_writeq(v, QVTD_ECAP, ~v->ecap);
    qvtd_assert_reg64(v, QVTD_CAP, v->cap);
    qvtd_assert_reg64(v, QVTD_ECAP, v->ecap);
    qvtd_quit(v);
}

/* 11.3: offsets that the table does not name are reserved. */
static void test_reserved_offsets(void)
{
    static const uint32_t offsets[] = {
        0x004, 0x030, 0x048, 0x04c, 0x050, 0x054, 0x060, 0x098,
    };
    QVtd *v = qvtd_start(NULL, NULL);

    for (unsigned i = 0; i < ARRAY_SIZE(offsets); i++) {
        qvtd_assert_reg32(v, offsets[i], 0);
        qvtd_writel(v, offsets[i], UINT32_MAX);
        qvtd_assert_reg32(v, offsets[i], 0);
    }
    qvtd_quit(v);
}

/* --- how registers are accessed --- */

/* 11.2: 64-bit registers may be written and read as two doublewords. */
static void test_halves(void)
{
    static const Register rows[] = {
        { "RTADDR", QVTD_RTADDR, 8, 0, 0x123456f000ULL, 0 },
        { "IQA", QVTD_IQA, 8, 0, 0x123456f003ULL, 0 },
        { "IRTA", QVTD_IRTA, 8, 0, 0x123456f00fULL, 0 },
        { "IQT", QVTD_IQT, 8, 0, 0x00000130ULL, 0 },
    };
    QVtd *v = qvtd_start("aw-bits=48", NULL);

    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        const Register *r = &rows[i];

        g_test_message("%s", r->name);
        qvtd_writel(v, r->offset, r->writable);
        qvtd_writel(v, r->offset + 4, r->writable >> 32);
        qvtd_assert_reg64(v, r->offset, r->writable);
        qvtd_assert_reg32(v, r->offset, (uint32_t)r->writable);
        qvtd_assert_reg32(v, r->offset + 4, r->writable >> 32);

        /* one half leaves the other alone */
        qvtd_writel(v, r->offset + 4, 0);
        qvtd_assert_reg64(v, r->offset, (uint32_t)r->writable);
        qvtd_writel(v, r->offset, 0);
        qvtd_assert_reg64(v, r->offset, 0);
    }
    qvtd_quit(v);
}

/* 11.4.6.2: written in halves, the one with IVT starts the command. */
static void test_halves_command(void)
{
    QVtd *v = qvtd_start(NULL, NULL);

    qvtd_writel(v, v->iotlb + 8, 0);
    qvtd_writel(v, v->iotlb + 12, (QVTD_IOTLB_IVT |
                QVTD_IOTLB_IIRG(QVTD_GRAN_GLOBAL)) >> 32);
    g_assert_cmphex(QVTD_IOTLB_IAIG(qvtd_readq(v, v->iotlb + 8)), ==,
                    QVTD_GRAN_GLOBAL);
    g_assert_false(qvtd_readq(v, v->iotlb + 8) & QVTD_IOTLB_IVT);

    qvtd_writel(v, QVTD_CCMD, 0);
    qvtd_writel(v, QVTD_CCMD + 4, (QVTD_CCMD_ICC |
                QVTD_CCMD_CIRG(QVTD_GRAN_GLOBAL)) >> 32);
    g_assert_cmphex(QVTD_CCMD_CAIG(qvtd_readq(v, QVTD_CCMD)), ==,
                    QVTD_GRAN_GLOBAL);
    g_assert_false(qvtd_readq(v, QVTD_CCMD) & QVTD_CCMD_ICC);
    qvtd_quit(v);
}

/* Bytes and words of a register read as the slices of it that they are. */
static void test_narrow_reads(void)
{
    QVtd *v = qvtd_start(NULL, NULL);

    qvtd_writel(v, QVTD_FEDATA, 0xab51);
    qvtd_writel(v, QVTD_FEADDR, 0xfee04320);
    for (unsigned i = 0; i < 8; i++) {
        g_assert_cmphex(qtest_readb(v->qts, QVTD_BASE + QVTD_CAP + i), ==,
                        extract64(v->cap, i * 8, 8));
    }
    for (unsigned i = 0; i < 8; i += 2) {
        g_assert_cmphex(qtest_readw(v->qts, QVTD_BASE + QVTD_ECAP + i), ==,
                        extract64(v->ecap, i * 8, 16));
    }
    g_assert_cmphex(qtest_readb(v->qts, QVTD_BASE + QVTD_FEDATA + 1), ==,
                    0xab);
    g_assert_cmphex(qtest_readw(v->qts, QVTD_BASE + QVTD_FEADDR + 2), ==,
                    0xfee0);
    qvtd_quit(v);
}

/*
 * 11.2 does not allow narrow writes.  They may merge into the register or be
 * dropped, but touch nothing beside the bytes written.
 */
static void test_narrow_writes(void)
{
    QVtd *v = qvtd_start(NULL, NULL);
    uint32_t got;

    for (unsigned i = 0; i < 4; i++) {
        qvtd_writel(v, QVTD_FEADDR, 0xfee01000);
        qvtd_writel(v, QVTD_FEDATA, 0x1234);
        qtest_writeb(v->qts, QVTD_BASE + QVTD_FEADDR + i, 0x54);
        got = qvtd_readl(v, QVTD_FEADDR);
        if (got != 0xfee01000) {
            g_assert_cmphex(got, ==, deposit32(0xfee01000, i * 8, 8, 0x54));
        }
        qvtd_assert_reg32(v, QVTD_FEDATA, 0x1234);
        qvtd_assert_reg32(v, QVTD_FECTL, QVTD_ECTL_IM);
    }
    qvtd_writel(v, QVTD_FEADDR, 0xfee01000);
    qtest_writew(v->qts, QVTD_BASE + QVTD_FEADDR, 0x2000);
    got = qvtd_readl(v, QVTD_FEADDR);
    if (got != 0xfee01000) {
        g_assert_cmphex(got, ==, 0xfee02000);
    }
    qvtd_quit(v);
}

/* A quadword that covers two 32-bit registers reads and writes both. */
static void test_wide_access(void)
{
    QVtd *v = qvtd_start(NULL, NULL);

    qvtd_writel(v, QVTD_FEDATA, 0x4321);
    qvtd_assert_reg64(v, QVTD_FECTL, QVTD_ECTL_IM | 0x4321ULL << 32);
    qvtd_writel(v, QVTD_FEADDR, 0xfee03000);
    g_assert_cmphex(qvtd_readq(v, QVTD_FEADDR) & UINT32_MAX, ==, 0xfee03000);
    /* unaligned: GSTS in the upper half, RTADDR's low half and so on */
    qvtd_writeq(v, QVTD_RTADDR, 0x12345000);
    g_assert_cmphex(qvtd_readq(v, QVTD_GSTS), ==, 0x12345000ULL << 32);
    qvtd_quit(v);
}

/* Whatever the width and alignment, reading changes nothing. */
static void test_reads_have_no_effect(void)
{
    QVtd *v = qvtd_start(NULL, NULL);
    g_autofree uint8_t *before = g_malloc(0x230);
    g_autofree uint8_t *after = g_malloc(0x230);

    qtest_memread(v->qts, QVTD_BASE, before, 0x230);
    for (uint32_t off = 0; off < 0x230; off++) {
        qtest_readb(v->qts, QVTD_BASE + off);
        qtest_readw(v->qts, QVTD_BASE + off);
        qtest_readl(v->qts, QVTD_BASE + off);
        qtest_readq(v->qts, QVTD_BASE + off);
    }
    qtest_memread(v->qts, QVTD_BASE, after, 0x230);
    g_assert_cmpmem(before, 0x230, after, 0x230);
    check_reset_values(v);
    qvtd_quit(v);
}

/* Every width at every offset, with ones: nothing breaks, reset cleans up. */
static void test_any_width(const void *opaque)
{
    unsigned size = GPOINTER_TO_UINT(opaque);
    QVtd *v = qvtd_start(NULL, NULL);

    for (uint32_t off = 0; off < 0x240; off++) {
        uint64_t addr = QVTD_BASE + off;

        switch (size) {
        case 1:
            qtest_writeb(v->qts, addr, UINT8_MAX);
            break;
        case 2:
            qtest_writew(v->qts, addr, UINT16_MAX);
            break;
        case 4:
            qtest_writel(v->qts, addr, UINT32_MAX);
            break;
        default:
            qtest_writeq(v->qts, addr, UINT64_MAX);
            break;
        }
    }
    qvtd_assert_reg64(v, QVTD_CAP, v->cap);
    qvtd_assert_reg64(v, QVTD_ECAP, v->ecap);
    qvtd_system_reset(v);
    check_reset_values(v);
    qvtd_quit(v);
}

static void add_any_width_tests(void)
{
    for (unsigned size = 1; size <= 8; size *= 2) {
        g_autofree char *path =
            g_strdup_printf("/vtd/registers/11.2/any-width/%u", size);

        qtest_add_data_func(path, GUINT_TO_POINTER(size), test_any_width);
    }
}

/* The end of the register page: accesses beyond the last register. */
static void test_beyond_the_end(void)
{
    QVtd *v = qvtd_start(NULL, NULL);

    for (uint32_t off = 0x228; off < 0x240; off++) {
        g_assert_cmphex(qtest_readq(v->qts, QVTD_BASE + off), ==, 0);
        qtest_writeq(v->qts, QVTD_BASE + off, 0);
    }
    qtest_writeq(v->qts, QVTD_BASE + 0xff8, UINT64_MAX);
    qtest_writeq(v->qts, QVTD_BASE + 0xffc, UINT64_MAX);
    qtest_readq(v->qts, QVTD_BASE + 0xffc);
    check_reset_values(v);
    qvtd_quit(v);
}

/* --- commands --- */

/* 11.4.4.1: a bit of GCMD shows in GSTS, and only that one. */
static void test_gcmd_bits(void)
{
    static const uint32_t bits[] = {
        QVTD_GCMD_TE, QVTD_GCMD_IRE,
    };
    QVtd *v = qvtd_start("intremap=on", NULL);
    uint32_t rtps = QVTD_GCMD_SRTP | QVTD_GCMD_SIRTP;

    qvtd_tables_init(v);
    qvtd_writeq(v, QVTD_IRTA, qvtd_alloc(v, 1) | QVTD_IRTA_S(7));
    qvtd_gcmd_set(v, QVTD_GCMD_SIRTP);
    qvtd_assert_reg32(v, QVTD_GSTS, rtps);
    for (unsigned i = 0; i < ARRAY_SIZE(bits); i++) {
        qvtd_gcmd_set(v, bits[i]);
        qvtd_assert_reg32(v, QVTD_GSTS, rtps | bits[i]);
        /* once more: no change */
        qvtd_gcmd_set(v, bits[i]);
        qvtd_assert_reg32(v, QVTD_GSTS, rtps | bits[i]);
        qvtd_gcmd_clear(v, bits[i]);
        qvtd_assert_reg32(v, QVTD_GSTS, rtps);
    }
    qvtd_iq_init(v, 0);
    qvtd_assert_reg32(v, QVTD_GSTS, rtps | QVTD_GCMD_QIE);
    qvtd_iq_disable(v);
    qvtd_assert_reg32(v, QVTD_GSTS, rtps);
    qvtd_quit(v);
}

/* 11.4.4.1: two modes on together, each switched without the other */
static void test_gcmd_independent(void)
{
    QVtd *v = qvtd_start("intremap=on", NULL);
    uint32_t rtps = QVTD_GCMD_SRTP | QVTD_GCMD_SIRTP;

    qvtd_tables_init(v);
    qvtd_iq_init(v, 0);
    qvtd_ir_init(v, 7, false);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    qvtd_assert_reg32(v, QVTD_GSTS, rtps | QVTD_GCMD_TE | QVTD_GCMD_QIE |
                      QVTD_GCMD_IRE);
    qvtd_gcmd_clear(v, QVTD_GCMD_IRE);
    qvtd_assert_reg32(v, QVTD_GSTS, rtps | QVTD_GCMD_TE | QVTD_GCMD_QIE);
    qvtd_gcmd_clear(v, QVTD_GCMD_TE);
    qvtd_assert_reg32(v, QVTD_GSTS, rtps | QVTD_GCMD_QIE);
    qvtd_iq_disable(v);
    qvtd_assert_reg32(v, QVTD_GSTS, rtps);
    qvtd_quit(v);
}

/*
 * 11.4.4.1: what the capabilities do not offer is ignored: write buffer
 * flush (RWBF 0), fault log (AFL 0); the rest of the register is reserved.
 */
static void test_gcmd_not_offered(void)
{
    QVtd *v = qvtd_start(NULL, NULL);
    static const uint32_t bits[] = {
        QVTD_GCMD_WBF, QVTD_GCMD_SFL, QVTD_GCMD_EAFL, 0x007fffff,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(bits); i++) {
        qvtd_writel(v, QVTD_GCMD, bits[i]);
        qvtd_assert_reg32(v, QVTD_GSTS, 0);
    }
    qvtd_quit(v);
}

/* The same for interrupt remapping when ECAP.IR is 0 */
static void test_gcmd_intremap_off(void)
{
    QVtd *v = qvtd_start("intremap=off", NULL);
    static const uint32_t bits[] = {
        QVTD_GCMD_SIRTP, QVTD_GCMD_IRE, QVTD_GCMD_CFI,
    };

    g_assert_false(v->ecap & QVTD_ECAP_IR);
    for (unsigned i = 0; i < ARRAY_SIZE(bits); i++) {
        qvtd_writel(v, QVTD_GCMD, bits[i]);
        qvtd_assert_reg32(v, QVTD_GSTS, 0);
    }
    qvtd_quit(v);
}

/* Without any width in CAP.SAGAW there is no translation to enable. */
static void test_gcmd_dma_translation_off(void)
{
    QVtd *v = qvtd_start("dma-translation=off", QVTD_EDU ",addr=4");
    QVtdEdu *e = qvtd_edu(v, QVTD_SID(0, 4, 0));
    uint64_t from = qvtd_alloc_pattern(v, 5), to = qvtd_alloc(v, 1);

    g_assert_cmphex(QVTD_CAP_SAGAW(v->cap), ==, 0);
    qvtd_tables_init(v);
    qvtd_writel(v, QVTD_GCMD, QVTD_GCMD_TE);
    g_assert_false(qvtd_readl(v, QVTD_GSTS) & QVTD_GCMD_TE);
    qvtd_dma_read(e, from);
    qvtd_dma_write(e, to);
    g_assert_true(qvtd_holds(v, to, 5));
    qvtd_assert_no_fault(v);
    qvtd_quit(v);
}

/* 11.4.4.2: compatibility format interrupts, on and off */
static void test_gcmd_cfi(void)
{
    QVtd *v = qvtd_start("intremap=on,eim=off", NULL);

    qvtd_ir_init(v, 7, false);
    qvtd_gcmd_set(v, QVTD_GCMD_CFI);
    qvtd_assert_reg32(v, QVTD_GSTS, QVTD_GCMD_SIRTP | QVTD_GCMD_IRE |
                      QVTD_GCMD_CFI);
    qvtd_gcmd_clear(v, QVTD_GCMD_CFI);
    qvtd_assert_reg32(v, QVTD_GSTS, QVTD_GCMD_SIRTP | QVTD_GCMD_IRE);
    qvtd_quit(v);
}

/* 11.4.6.1: the granularity done is the one asked for, or a coarser one. */
static void test_ccmd(void)
{
    QVtd *v = qvtd_start(NULL, NULL);

    for (unsigned g = QVTD_GRAN_GLOBAL; g <= QVTD_GRAN_DEVICE; g++) {
        uint64_t r = qvtd_ccmd(v, QVTD_CCMD_CIRG(g) | QVTD_CCMD_DID(3) |
                               QVTD_CCMD_SID(0x18) | QVTD_CCMD_FM(2));

        g_assert_cmpint(QVTD_CCMD_CAIG(r), >=, 1);
        g_assert_cmpint(QVTD_CCMD_CAIG(r), <=, g);
    }
    /* not a granularity: it ends, and the next one works */
    qvtd_ccmd(v, QVTD_CCMD_CIRG(0));
    g_assert_cmpint(QVTD_CCMD_CAIG(qvtd_ccmd(v, QVTD_CCMD_CIRG(1))), ==, 1);
    qvtd_quit(v);
}

/* 11.4.6.2, field IAIG */
static void test_iotlb_granularity(void)
{
    QVtd *v = qvtd_start(NULL, NULL);

    for (unsigned g = QVTD_GRAN_GLOBAL; g <= QVTD_GRAN_PAGE; g++) {
        uint64_t r = qvtd_iotlb(v, QVTD_IOTLB_IIRG(g) | QVTD_IOTLB_DID(3) |
                                QVTD_IOTLB_DR | QVTD_IOTLB_DW,
                                0x5000 | QVTD_IVA_IH);

        g_assert_cmpint(QVTD_IOTLB_IAIG(r), >=, 1);
        g_assert_cmpint(QVTD_IOTLB_IAIG(r), <=, g);
    }
    qvtd_quit(v);
}

/*
 * 11.4.6.2: an incorrect request, as one with an address mask above
 * CAP.MAMV or without a granularity, is ignored and reported by IAIG 0.
 */
static void test_iotlb_incorrect(void)
{
    QVtd *v = qvtd_start(NULL, NULL);
    uint64_t page = QVTD_IOTLB_IIRG(QVTD_GRAN_PAGE) | QVTD_IOTLB_DID(3);
    unsigned mamv = QVTD_CAP_MAMV(v->cap);

    g_assert_cmpint(QVTD_IOTLB_IAIG(qvtd_iotlb(v, page, mamv)), !=, 0);
    g_assert_cmpint(QVTD_IOTLB_IAIG(qvtd_iotlb(v, page, mamv + 1)), ==, 0);
    g_assert_cmpint(QVTD_IOTLB_IAIG(qvtd_iotlb(v, page, 0x3f)), ==, 0);
    g_assert_cmpint(QVTD_IOTLB_IAIG(qvtd_iotlb(v, 0, 0)), ==, 0);
    g_assert_cmpint(QVTD_IOTLB_IAIG(qvtd_iotlb(v, page, 0)), !=, 0);
    qvtd_quit(v);
}

/*
 * 6.5.1: while the queue is enabled, invalidation by register is an incorrect
 * request, also with values that are right at other times.
 */
static void test_by_register_and_queue(void)
{
    QVtd *v = qvtd_start(NULL, NULL);
    uint64_t context = QVTD_CCMD_CIRG(QVTD_GRAN_GLOBAL);
    uint64_t iotlb = QVTD_IOTLB_IIRG(QVTD_GRAN_GLOBAL);

    qvtd_iq_init(v, 0);
    g_assert_cmpint(QVTD_CCMD_CAIG(qvtd_ccmd(v, context)), ==, 0);
    g_assert_cmpint(QVTD_IOTLB_IAIG(qvtd_iotlb(v, iotlb, 0)), ==, 0);
    qvtd_iq_disable(v);
    g_assert_cmpint(QVTD_CCMD_CAIG(qvtd_ccmd(v, context)), ==, 1);
    g_assert_cmpint(QVTD_IOTLB_IAIG(qvtd_iotlb(v, iotlb, 0)), ==, 1);
    qvtd_quit(v);
}

/* 11.4.10.1, 11.4.7.6: registers of what the unit does not offer */
static void test_reserved_without_capability(void)
{
    QVtd *v = qvtd_start("intremap=on,eim=off", NULL);

    qvtd_writel(v, QVTD_FEUADDR, UINT32_MAX);
    qvtd_assert_reg32(v, QVTD_FEUADDR, 0);
    qvtd_writel(v, QVTD_IEUADDR, UINT32_MAX);
    qvtd_assert_reg32(v, QVTD_IEUADDR, 0);
    qvtd_quit(v);

    v = qvtd_start("intremap=off", NULL);
    qvtd_writeq(v, QVTD_IRTA, UINT64_MAX);
    qvtd_assert_reg64(v, QVTD_IRTA, 0);
    qvtd_quit(v);
}

/*
 * 11.4.5: a translation table mode that is not offered.  Legacy mode is the
 * only one of a unit without ECAP.SMTS; scalable mode is not there yet.  The
 * unit must stay usable.
 */
static void test_root_table_mode(const void *opaque)
{
    QVtd *v = qvtd_start(opaque, QVTD_EDU ",addr=4");
    uint16_t sid = QVTD_SID(0, 4, 0);
    QVtdEdu *e = qvtd_edu(v, sid);
    QVtdDomain *d;

    qvtd_writeq(v, QVTD_RTADDR, qvtd_alloc(v, 1) | QVTD_RTADDR_TTM_SCALABLE);
    qvtd_writel(v, QVTD_GCMD, QVTD_GCMD_SRTP);
    qvtd_tables_init(v);
    d = qvtd_domain_new(v, 1, 3);
    qvtd_attach(d, sid);
    qvtd_map(d, 0x5000, qvtd_alloc_pattern(v, 9), QVTD_PTE_R);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    g_assert_true(qvtd_dma_reads(d, e, 0x5000, 9));
    qvtd_assert_no_fault(v);
    qvtd_quit(v);
}

/* --- reset --- */

static void scribble(QVtd *v)
{
    for (uint32_t reg = QVTD_RTADDR; reg < 0x100; reg += 4) {
        if (reg != QVTD_CCMD + 4) {
            qvtd_writel(v, reg, 0x13579bdf);
        }
    }
}

/* 11.4: every field goes back to its default at reset. */
static void test_reset_after_writes(void)
{
    QVtd *v = qvtd_start(NULL, NULL);

    scribble(v);
    qvtd_system_reset(v);
    check_reset_values(v);
    qvtd_quit(v);
}

/* All modes on, a fault recorded, a DMA under way: all gone after reset. */
static void test_reset_while_active(void)
{
    QVtd *v = qvtd_start("intremap=on,eim=off",
                         QVTD_EDU ",addr=4 " QVTD_EDU ",addr=5");
    uint16_t sid = QVTD_SID(0, 4, 0);
    QVtdEdu *e = qvtd_edu(v, sid);
    QVtdEdu *other = qvtd_edu(v, QVTD_SID(0, 5, 0));
    QVtdDomain *d;
    uint64_t page;

    qvtd_tables_init(v);
    qvtd_iq_init(v, 0);
    qvtd_ir_init(v, 7, false);
    d = qvtd_domain_new(v, 1, 3);
    qvtd_attach(d, sid);
    page = qvtd_alloc_pattern(v, 1);
    qvtd_map(d, 0x5000, page, QVTD_PTE_RW);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    qvtd_dma_read(e, 0x5000);
    qvtd_dma_read(other, 0x5000);
    g_assert_true(qvtd_readl(v, QVTD_FSTS) & QVTD_FSTS_PPF);
    qvtd_edu_start(e, 0x5000, QVTD_PAGE, true);

    qvtd_system_reset(v);
    check_reset_values(v);

    /* translation is off: the page is found where it lies in memory */
    qtest_clock_step(v->qts, 200 * 1000 * 1000);
    e = qvtd_edu(v, sid);
    qvtd_fill(v, page, 77);
    qvtd_dma_read(e, page);
    qvtd_dma_write(e, d->bounce);
    g_assert_true(qvtd_holds(v, d->bounce, 77));
    qvtd_assert_no_fault(v);
    qvtd_quit(v);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/vtd/registers/11.4/reset-values", test_reset_values);
    add_write_mask_tests();
    qtest_add_func("/vtd/registers/11.4/capabilities-read-only",
                   test_capabilities_read_only);
    qtest_add_func("/vtd/registers/11.3/reserved-offsets",
                   test_reserved_offsets);
    qtest_add_func("/vtd/registers/11.2/halves", test_halves);
    qtest_add_func("/vtd/registers/11.2/halves-command", test_halves_command);
    qtest_add_func("/vtd/registers/11.2/narrow-reads", test_narrow_reads);
    qtest_add_func("/vtd/registers/11.2/narrow-writes", test_narrow_writes);
    qtest_add_func("/vtd/registers/11.2/wide-access", test_wide_access);
    qtest_add_func("/vtd/registers/11.2/reads-have-no-effect",
                   test_reads_have_no_effect);
    add_any_width_tests();
    qtest_add_func("/vtd/registers/11.2/beyond-the-end", test_beyond_the_end);
    qtest_add_func("/vtd/registers/11.4.4/bits", test_gcmd_bits);
    qtest_add_func("/vtd/registers/11.4.4/independent",
                   test_gcmd_independent);
    qtest_add_func("/vtd/registers/11.4.4/not-offered",
                   test_gcmd_not_offered);
    qtest_add_func("/vtd/registers/11.4.4/intremap-off",
                   test_gcmd_intremap_off);
    qtest_add_func("/vtd/registers/11.4.4/dma-translation-off",
                   test_gcmd_dma_translation_off);
    qtest_add_func("/vtd/registers/11.4.4/cfi", test_gcmd_cfi);
    qtest_add_func("/vtd/registers/11.4.6.1/granularity", test_ccmd);
    qtest_add_func("/vtd/registers/11.4.6.2/granularity",
                   test_iotlb_granularity);
    qtest_add_func("/vtd/registers/11.4.6.2/incorrect", test_iotlb_incorrect);
    qtest_add_func("/vtd/registers/6.5.1/register-and-queue",
                   test_by_register_and_queue);
    qtest_add_func("/vtd/registers/11.4/reserved-without-capability",
                   test_reserved_without_capability);
    qtest_add_data_func("/vtd/registers/11.4.5/mode", "",
                        test_root_table_mode);
    qtest_add_data_func("/vtd/registers/11.4.5/mode-scalable",
                        "x-scalable-mode=on", test_root_table_mode);
    qtest_add_func("/vtd/registers/reset/after-writes",
                   test_reset_after_writes);
    qtest_add_func("/vtd/registers/reset/while-active",
                   test_reset_while_active);
    return g_test_run();
}
