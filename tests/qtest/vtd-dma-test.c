/*
 * VT-d: legacy mode DMA translation and its fault conditions (VT-d
 * specification, sections 3.4, 3.6, 3.7, 7.1.3 and chapter 9)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "libqos/intel-iommu.h"

#define SID_A   QVTD_SID(0, 4, 0)
#define SID_B   QVTD_SID(0, 5, 0)
#define SID_C   QVTD_SID(0, 5, 1)
#define IOVA    0x0000000012345000ULL

/* One device behind one domain, with one page mapped at IOVA */
typedef struct Fix {
    QVtd *v;
    QVtdEdu *e;
    QVtdDomain *d;
    uint64_t page;
} Fix;

static Fix fix_new(const char *props, int levels)
{
    Fix f;

    f.v = qvtd_start(props, QVTD_EDU ",addr=4");
    f.e = qvtd_edu(f.v, SID_A);
    qvtd_tables_init(f.v);
    f.d = qvtd_domain_new(f.v, 5, levels);
    f.page = qvtd_alloc_pattern(f.v, 1);
    qvtd_map(f.d, IOVA, f.page, QVTD_PTE_RW);
    qvtd_attach(f.d, SID_A);
    return f;
}

static void fix_quit(Fix *f)
{
    qvtd_quit(f->v);
    g_free(f->e);
    g_free(f->d);
}

static void enable(Fix *f)
{
    qvtd_gcmd_set(f->v, QVTD_GCMD_TE);
}

/* --- translation works --- */

typedef struct Shape {
    const char *path;
    const char *props;
    int levels;
    int page_level;
    uint64_t iova;
} Shape;

/* 3.7: page-table depth and page size.  iova: bits from every level */
static const Shape shapes[] = {
    { "/vtd/dma/3.7/39-bit/4k", "aw-bits=39", 3, 1, 0x5a5a5a5000ULL },
    { "/vtd/dma/3.7/39-bit/2m", "aw-bits=39", 3, 2, 0x5a5a400000ULL },
    { "/vtd/dma/3.7/39-bit/1g", "aw-bits=39", 3, 3, 0x5a40000000ULL },
    { "/vtd/dma/3.7/39-of-48-bit/4k", "aw-bits=48", 3, 1, 0x5a5a5a5000ULL },
    { "/vtd/dma/3.7/48-bit/4k", "aw-bits=48", 4, 1, 0xa5a5a5a5a000ULL },
    { "/vtd/dma/3.7/48-bit/2m", "aw-bits=48", 4, 2, 0xa5a5a5a00000ULL },
    { "/vtd/dma/3.7/48-bit/1g", "aw-bits=48", 4, 3, 0xa5a580000000ULL },
    { "/vtd/dma/3.7/57-bit/4k", "aw-bits=57", 5, 1, 0x15a5a5a5a5a5000ULL },
    { "/vtd/dma/3.7/57-bit/2m", "aw-bits=57", 5, 2, 0x0a5a5a5a5a00000ULL },
    { "/vtd/dma/3.7/57-bit/1g", "aw-bits=57", 5, 3, 0x15a5a5a40000000ULL },
    { "/vtd/dma/3.7/57-bit/last-page", "aw-bits=57", 5, 1,
      0x1fffffffffff000ULL },
    { "/vtd/dma/3.7/48-of-57-bit/4k", "aw-bits=57", 4, 1,
      0xa5a5a5a5a000ULL },
    { "/vtd/dma/3.7/39-of-57-bit/4k", "aw-bits=57", 3, 1, 0x5a5a5a5000ULL },
    { "/vtd/dma/3.7/48-bit/last-page", "aw-bits=48", 4, 1,
      0xfffffffff000ULL },
    { "/vtd/dma/3.7/39-bit/last-page", "aw-bits=39", 3, 1, 0x7ffffff000ULL },
    { "/vtd/dma/3.7/48-bit/first-page", "aw-bits=48", 4, 1, 0 },
};

static void test_shape(const void *opaque)
{
    const Shape *s = opaque;
    Fix f = fix_new(s->props, s->levels);
    uint64_t offset_mask = (1ULL << (12 + 9 * (s->page_level - 1))) - 1;
    uint64_t target = qvtd_alloc_pattern(f.v, 42);
    uint64_t iova = s->iova | (target & offset_mask);

    qvtd_map_level(f.d, s->iova, target & ~offset_mask, QVTD_PTE_RW,
                   s->page_level);
    enable(&f);
    g_assert_true(qvtd_dma_reads(f.d, f.e, iova, 42));

    /* what the device has from IOVA arrives where the page leads */
    qvtd_dma_read(f.e, IOVA);
    qvtd_dma_write(f.e, iova);
    g_assert_true(qvtd_holds(f.v, target, 1));
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* 3.4.3 and 9.3: TT 10b, requests are passed through. */
static void test_pass_through(void)
{
    Fix f = fix_new("pt=on", 4);
    uint64_t to = qvtd_alloc(f.v, 1);

    qvtd_write_context(f.v, SID_A,
                       QVTD_CTX_TT(QVTD_TT_PASS_THROUGH) | QVTD_CTX_P,
                       QVTD_CTX_AW(4) | QVTD_CTX_DID(5));
    enable(&f);
    qvtd_dma_read(f.e, f.page);
    qvtd_dma_write(f.e, to);
    g_assert_true(qvtd_holds(f.v, to, 1));
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* 9.3: with TT 10b the page-table pointer is not looked at. */
static void test_pass_through_pointer(void)
{
    Fix f = fix_new("pt=on", 4);
    uint64_t to = qvtd_alloc(f.v, 1);

    qvtd_write_context(f.v, SID_A, QVTD_HOLE |
                       QVTD_CTX_TT(QVTD_TT_PASS_THROUGH) | QVTD_CTX_P,
                       QVTD_CTX_AW(4) | QVTD_CTX_DID(5));
    enable(&f);
    qvtd_dma_read(f.e, f.page);
    qvtd_dma_write(f.e, to);
    g_assert_true(qvtd_holds(f.v, to, 1));
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* 9.3: TT 01b is as 00b for untranslated requests, with device IOTLBs. */
static void test_tt_all(void)
{
    Fix f = fix_new("device-iotlb=on", 3);

    qvtd_write_context(f.v, SID_A,
                       f.d->pgd | QVTD_CTX_TT(QVTD_TT_ALL) | QVTD_CTX_P,
                       QVTD_CTX_AW(3) | QVTD_CTX_DID(5));
    enable(&f);
    g_assert_true(qvtd_dma_reads(f.d, f.e, IOVA, 1));
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* 3.4: the entries are chosen by the requester's bus, device and function. */
static void test_by_requester(void)
{
    static const uint16_t sids[] = { SID_A, SID_B, SID_C };
    QVtd *v = qvtd_start(NULL, QVTD_EDU ",addr=4 "
                         QVTD_EDU ",addr=5.0,multifunction=on "
                         QVTD_EDU ",addr=5.1");
    QVtdDomain *d[3];
    QVtdEdu *e[3];

    qvtd_tables_init(v);
    for (int i = 0; i < 3; i++) {
        e[i] = qvtd_edu(v, sids[i]);
        d[i] = qvtd_domain_new(v, 7 + i, i == 1 ? 4 : 3);
        qvtd_map(d[i], IOVA, qvtd_alloc_pattern(v, 100 + i), QVTD_PTE_R);
        qvtd_attach(d[i], sids[i]);
    }
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 3; i++) {
            g_assert_true(qvtd_dma_reads(d[i], e[i], IOVA, 100 + i));
        }
    }
    qvtd_assert_no_fault(v);
    qvtd_quit(v);
}

/* 6.2.1: two requesters of one domain see the same pages. */
static void test_shared_domain(void)
{
    QVtd *v = qvtd_start(NULL, QVTD_EDU ",addr=4 " QVTD_EDU ",addr=5");
    QVtdEdu *a = qvtd_edu(v, SID_A), *b = qvtd_edu(v, SID_B);
    QVtdDomain *d;

    qvtd_tables_init(v);
    d = qvtd_domain_new(v, 5, 3);
    qvtd_map(d, IOVA, qvtd_alloc_pattern(v, 3), QVTD_PTE_R);
    qvtd_attach(d, SID_A);
    qvtd_attach(d, SID_B);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    g_assert_true(qvtd_dma_reads(d, a, IOVA, 3));
    g_assert_true(qvtd_dma_reads(d, b, IOVA, 3));
    qvtd_assert_no_fault(v);
    qvtd_quit(v);
}

/* A request across a page boundary is translated page by page. */
static void test_across_pages(void)
{
    Fix f = fix_new(NULL, 3);
    uint64_t first = qvtd_alloc(f.v, 1);
    uint64_t second;

    qvtd_alloc(f.v, 1);
    second = qvtd_alloc(f.v, 1);
    qtest_memset(f.v->qts, first, 0x11, QVTD_PAGE);
    qtest_memset(f.v->qts, second, 0x22, QVTD_PAGE);
    qvtd_map(f.d, 0x8000, first, QVTD_PTE_R);
    qvtd_map(f.d, 0x9000, second, QVTD_PTE_R);
    enable(&f);
    qvtd_edu_dma(f.e, 0x8ffc, 8, true);
    qvtd_edu_dma(f.e, QVTD_BOUNCE_IOVA, 8, false);
    g_assert_cmphex(qtest_readq(f.v->qts, f.d->bounce), ==,
                    0x2222222211111111ULL);
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* The same with nothing behind: the first part arrives, the rest faults. */
static void test_across_pages_fault(void)
{
    Fix f = fix_new(NULL, 3);

    enable(&f);
    qvtd_edu_dma(f.e, IOVA, QVTD_PAGE, true);
    qtest_memset(f.v->qts, f.page, 0, QVTD_PAGE);
    qvtd_edu_dma(f.e, IOVA + 0xff8, 16, false);
    g_assert_cmphex(qtest_readl(f.v->qts, f.page + 0xff8), !=, 0);
    qvtd_assert_fault(f.v, QVTD_FR_WRITE, SID_A, IOVA + QVTD_PAGE, false);
    fix_quit(&f);
}

/* 11.4.4.1, TE: off, on, off; the tables stay where they are. */
static void test_enable_disable(void)
{
    Fix f = fix_new(NULL, 3);
    uint64_t to = qvtd_alloc(f.v, 1);

    for (int i = 0; i < 3; i++) {
        qvtd_dma_read(f.e, f.page);
        qvtd_dma_write(f.e, to);
        g_assert_true(qvtd_holds(f.v, to, 1));
        qtest_memset(f.v->qts, to, 0, QVTD_PAGE);

        qvtd_gcmd_set(f.v, QVTD_GCMD_TE);
        g_assert_true(qvtd_dma_reads(f.d, f.e, IOVA, 1));
        qvtd_gcmd_clear(f.v, QVTD_GCMD_TE);
    }
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/*
 * 11.4.5: a write to RTADDR alone changes nothing; SRTP does, after a
 * global invalidation (6.6), also while translation is on.
 */
static void test_new_root(void)
{
    Fix f = fix_new(NULL, 3);
    uint64_t old = f.v->root;
    QVtdDomain *d;

    enable(&f);
    g_assert_true(qvtd_dma_reads(f.d, f.e, IOVA, 1));

    f.v->root = qvtd_alloc(f.v, 1);
    memset(f.v->ctx, 0, sizeof(f.v->ctx));
    d = qvtd_domain_new(f.v, 6, 4);
    qvtd_map(d, IOVA, qvtd_alloc_pattern(f.v, 2), QVTD_PTE_R);
    qvtd_attach(d, SID_A);
    qvtd_writeq(f.v, QVTD_RTADDR, f.v->root);
    qvtd_flush_all(f.v);
    g_assert_true(qvtd_dma_reads(f.d, f.e, IOVA, 1));

    qvtd_set_root(f.v, f.v->root);
    g_assert_true(qvtd_dma_reads(d, f.e, IOVA, 2));
    qvtd_set_root(f.v, old);
    g_assert_true(qvtd_dma_reads(f.d, f.e, IOVA, 1));
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* --- fault conditions --- */

enum { WR = 1, RD = 2, BOTH = 3 };

typedef enum Qualified { NO, YES, UNSAID } Qualified;

/*
 * One condition of the table of section 7.1.3.  FPD suppresses the record of
 * qualified conditions; those of the root table and of reaching the context
 * table are not qualified, since no FPD is known yet.  Whether reserved bits
 * in a context entry count differs between revisions.
 */
typedef struct Condition {
    const char *path;
    const char *props;
    int levels;
    void (*prepare)(Fix *f);
    QVtdReason reason;
    Qualified qualified;
    int directions;
    uint64_t iova;
} Condition;

static uint64_t root_entry(Fix *f)
{
    return f->v->root;
}

static void set_bits(Fix *f, uint64_t addr, uint64_t bits)
{
    qtest_writeq(f->v->qts, addr, qtest_readq(f->v->qts, addr) | bits);
}

static void clear_bits(Fix *f, uint64_t addr, uint64_t bits)
{
    qtest_writeq(f->v->qts, addr, qtest_readq(f->v->qts, addr) & ~bits);
}

static void set_context_low(Fix *f, uint64_t bits)
{
    set_bits(f, qvtd_context_addr(f->v, SID_A), bits);
}

static void set_context_high(Fix *f, uint64_t bits)
{
    set_bits(f, qvtd_context_addr(f->v, SID_A) + 8, bits);
}

static void set_pte(Fix *f, int level, uint64_t bits)
{
    set_bits(f, qvtd_pte_addr(f->d, IOVA, level), bits);
}

static void point_pte(Fix *f, int level, uint64_t addr)
{
    qtest_writeq(f->v->qts, qvtd_pte_addr(f->d, IOVA, level), addr);
}

static void limit_pte(Fix *f, int level, uint64_t bits)
{
    clear_bits(f, qvtd_pte_addr(f->d, IOVA, level), bits);
}

/* LRT: root table */
static void lrt_not_present(Fix *f)
{
    clear_bits(f, root_entry(f), QVTD_ROOT_P);
}

static void lrt_address(Fix *f)
{
    qvtd_set_root(f->v, QVTD_HOLE);
}

/* 11.4.5: modes that this unit does not offer */
static void ttm_scalable(Fix *f)
{
    qvtd_set_root(f->v, f->v->root | QVTD_RTADDR_TTM_SCALABLE);
}

static void ttm_abort(Fix *f)
{
    qvtd_set_root(f->v, f->v->root | QVTD_RTADDR_TTM_ABORT);
}

static void lrt_reserved_low(Fix *f)
{
    set_bits(f, root_entry(f), BIT_ULL(11));
}

static void lrt_reserved_bit1(Fix *f)
{
    set_bits(f, root_entry(f), BIT_ULL(1));
}

static void lrt_reserved_high(Fix *f)
{
    set_bits(f, root_entry(f) + 8, BIT_ULL(0));
}

static void lrt_reserved_top(Fix *f)
{
    set_bits(f, root_entry(f) + 8, BIT_ULL(63));
}

static void lrt_reserved_haw(Fix *f)
{
    set_bits(f, root_entry(f), BIT_ULL(63));
}

/* LCT: context table */
static void lct_address(Fix *f)
{
    qtest_writeq(f->v->qts, root_entry(f), QVTD_HOLE | QVTD_ROOT_P);
}

static void lct_not_present(Fix *f)
{
    clear_bits(f, qvtd_context_addr(f->v, SID_A), QVTD_CTX_P);
}

static void lct_reserved_bit4(Fix *f)
{
    set_context_low(f, BIT_ULL(4));
}

static void lct_reserved_bit11(Fix *f)
{
    set_context_low(f, BIT_ULL(11));
}

static void lct_reserved_bit71(Fix *f)
{
    set_context_high(f, BIT_ULL(71 - 64));
}

static void lct_reserved_bit88(Fix *f)
{
    set_context_high(f, BIT_ULL(88 - 64));
}

static void lct_reserved_bit127(Fix *f)
{
    set_context_high(f, BIT_ULL(127 - 64));
}

static void lct_reserved_haw(Fix *f)
{
    set_context_low(f, BIT_ULL(63));
}

static void set_aw(Fix *f, unsigned aw)
{
    clear_bits(f, qvtd_context_addr(f->v, SID_A) + 8, 7);
    set_context_high(f, aw);
}

static void lct_aw0(Fix *f)
{
    set_aw(f, 0);
}

static void lct_aw2(Fix *f)
{
    set_aw(f, 2);
}

static void lct_aw3(Fix *f)
{
    set_aw(f, 3);
}

static void lct_aw7(Fix *f)
{
    set_aw(f, 7);
}

static void lct_tt1(Fix *f)
{
    set_context_low(f, QVTD_CTX_TT(QVTD_TT_ALL));
}

static void lct_tt2(Fix *f)
{
    set_context_low(f, QVTD_CTX_TT(QVTD_TT_PASS_THROUGH));
}

static void lct_tt3(Fix *f)
{
    set_context_low(f, QVTD_CTX_TT(QVTD_TT_RESERVED));
}

/* Reason 3 has the page-table pointer, 7 only the tables below (7.1.3). */
static void lct_table_address(Fix *f)
{
    qvtd_write_context(f->v, SID_A, QVTD_HOLE | QVTD_CTX_P,
                       QVTD_CTX_DID(5) | QVTD_CTX_AW(f->d->levels));
}

/* LSS: second-stage tables */
static void lss_next3(Fix *f)
{
    point_pte(f, 3, QVTD_HOLE | QVTD_PTE_RW);
}

static void lss_next2(Fix *f)
{
    point_pte(f, 2, QVTD_HOLE | QVTD_PTE_RW);
}

static void lss_next4(Fix *f)
{
    point_pte(f, 4, QVTD_HOLE | QVTD_PTE_RW);
}

static void lss_reserved_ps4(Fix *f)
{
    set_pte(f, 4, QVTD_PTE_PS);
}

static void lss_reserved_ps5(Fix *f)
{
    set_pte(f, 5, QVTD_PTE_PS);
}

static void lss_reserved_2m(Fix *f)
{
    point_pte(f, 2, 0x1000 | QVTD_PTE_PS | QVTD_PTE_RW);
}

static void lss_reserved_2m_top(Fix *f)
{
    point_pte(f, 2, BIT_ULL(20) | QVTD_PTE_PS | QVTD_PTE_RW);
}

static void lss_reserved_1g(Fix *f)
{
    point_pte(f, 3, BIT_ULL(29) | QVTD_PTE_PS | QVTD_PTE_RW);
}

static void lss_reserved_1g_low(Fix *f)
{
    point_pte(f, 3, BIT_ULL(12) | QVTD_PTE_PS | QVTD_PTE_RW);
}

static void lss_reserved_51(Fix *f)
{
    set_pte(f, 1, BIT_ULL(51));
}

static void lss_reserved_51_table(Fix *f)
{
    set_pte(f, 2, BIT_ULL(51));
}

static void lss_reserved_45(Fix *f)
{
    set_pte(f, 1, BIT_ULL(45));
}

static void lss_reserved_snp(Fix *f)
{
    set_pte(f, 1, QVTD_PTE_SNP);
}

static void lss_reserved_tm(Fix *f)
{
    set_pte(f, 1, BIT_ULL(62));
}

/* LGN: permissions and addresses */
static void lgn_read_only(Fix *f)
{
    limit_pte(f, 1, QVTD_PTE_W);
}

static void lgn_write_only(Fix *f)
{
    limit_pte(f, 1, QVTD_PTE_R);
}

static void lgn_read_only2(Fix *f)
{
    limit_pte(f, 2, QVTD_PTE_W);
}

static void lgn_write_only3(Fix *f)
{
    limit_pte(f, 3, QVTD_PTE_R);
}

static void lgn_not_present(Fix *f)
{
    point_pte(f, 1, 0);
}

static void lgn_not_present3(Fix *f)
{
    point_pte(f, 3, 0);
}

/* Without R and W nothing else in the entry is looked at. */
static void lgn_not_present_garbage(Fix *f)
{
    point_pte(f, 1, 0xfffffffffffffff8ULL & ~QVTD_PTE_RW);
}

static void lgn_interrupt_range(Fix *f)
{
    point_pte(f, 1, QVTD_MSI_BASE | QVTD_PTE_RW);
}

static void lgn_interrupt_range_last(Fix *f)
{
    point_pte(f, 1, 0xfeeff000 | QVTD_PTE_RW);
}

static void nothing(Fix *f)
{
}

#define ALIAS(bit)      (IOVA | BIT_ULL(bit))

static const Condition conditions[] = {
    { "01/root-not-present", NULL, 3, lrt_not_present,
      QVTD_FR_ROOT_NOT_PRESENT, NO, BOTH, IOVA },
    { "02/context-not-present", NULL, 3, lct_not_present,
      QVTD_FR_CTX_NOT_PRESENT, YES, BOTH, IOVA },
    { "03/width-30", NULL, 3, lct_aw0, QVTD_FR_CTX_INVALID, YES, BOTH,
      IOVA },
    { "03/width-48-of-39", "aw-bits=39", 3, lct_aw2, QVTD_FR_CTX_INVALID,
      YES, BOTH, IOVA },
    { "03/width-57", NULL, 4, lct_aw3, QVTD_FR_CTX_INVALID, YES, BOTH,
      IOVA },
    { "03/width-reserved", NULL, 4, lct_aw7, QVTD_FR_CTX_INVALID, YES, BOTH,
      IOVA },
    { "03/type-reserved", NULL, 3, lct_tt3, QVTD_FR_CTX_INVALID, YES, BOTH,
      IOVA },
    { "03/type-device-iotlb-off", "device-iotlb=off", 3, lct_tt1,
      QVTD_FR_CTX_INVALID, YES, BOTH, IOVA },
    { "03/type-pt-off", "pt=off", 3, lct_tt2, QVTD_FR_CTX_INVALID, YES,
      BOTH, IOVA },
    { "03/table-address", NULL, 3, lct_table_address, QVTD_FR_CTX_INVALID,
      YES, BOTH, IOVA },
    { "04/beyond-39", NULL, 3, nothing, QVTD_FR_ADDR_BEYOND, YES, BOTH,
      ALIAS(39) },
    { "04/beyond-39-of-39", "aw-bits=39", 3, nothing, QVTD_FR_ADDR_BEYOND,
      YES, BOTH, ALIAS(39) },
    { "04/beyond-48", NULL, 4, nothing, QVTD_FR_ADDR_BEYOND, YES, BOTH,
      ALIAS(48) },
    { "04/beyond-48-of-57", "aw-bits=57", 4, nothing, QVTD_FR_ADDR_BEYOND,
      YES, BOTH, ALIAS(48) },
    { "04/beyond-57", "aw-bits=57", 5, nothing, QVTD_FR_ADDR_BEYOND, YES,
      BOTH, ALIAS(57) },
    { "04/beyond-63", NULL, 4, nothing, QVTD_FR_ADDR_BEYOND, YES, BOTH,
      ALIAS(63) },
    { "05/read-only", NULL, 3, lgn_read_only, QVTD_FR_WRITE, YES, WR, IOVA },
    { "05/read-only-above", NULL, 3, lgn_read_only2, QVTD_FR_WRITE, YES, WR,
      IOVA },
    { "05/not-present", NULL, 3, lgn_not_present, QVTD_FR_WRITE, YES, WR,
      IOVA },
    { "05/not-present-above", NULL, 3, lgn_not_present3, QVTD_FR_WRITE, YES,
      WR, IOVA },
    { "05/not-present-garbage", NULL, 3, lgn_not_present_garbage,
      QVTD_FR_WRITE, YES, WR, IOVA },
    { "06/write-only", NULL, 3, lgn_write_only, QVTD_FR_READ, YES, RD,
      IOVA },
    { "06/write-only-above", NULL, 4, lgn_write_only3, QVTD_FR_READ, YES,
      RD, IOVA },
    { "06/not-present", NULL, 3, lgn_not_present, QVTD_FR_READ, YES, RD,
      IOVA },
    { "06/not-present-above", NULL, 4, lgn_not_present3, QVTD_FR_READ, YES,
      RD, IOVA },
    { "06/not-present-garbage", NULL, 4, lgn_not_present_garbage,
      QVTD_FR_READ, YES, RD, IOVA },
    { "07/level-4", NULL, 4, lss_next4, QVTD_FR_TABLE_ADDR, YES, BOTH,
      IOVA },
    { "07/level-3", NULL, 3, lss_next3, QVTD_FR_TABLE_ADDR, YES, BOTH,
      IOVA },
    { "07/level-2", NULL, 3, lss_next2, QVTD_FR_TABLE_ADDR, YES, BOTH,
      IOVA },
    { "08/root-table", NULL, 3, lrt_address, QVTD_FR_ROOT_ADDR, NO, BOTH,
      IOVA },
    { "09/context-table", NULL, 3, lct_address, QVTD_FR_CTX_ADDR, NO,
      BOTH, IOVA },
    { "0a/bit-1", NULL, 3, lrt_reserved_bit1, QVTD_FR_ROOT_RSVD, NO, BOTH,
      IOVA },
    { "0a/bit-11", NULL, 3, lrt_reserved_low, QVTD_FR_ROOT_RSVD, NO, BOTH,
      IOVA },
    { "0a/bit-63", NULL, 3, lrt_reserved_haw, QVTD_FR_ROOT_RSVD, NO, BOTH,
      IOVA },
    { "0a/bit-64", NULL, 3, lrt_reserved_high, QVTD_FR_ROOT_RSVD, NO,
      BOTH, IOVA },
    { "0a/bit-127", NULL, 3, lrt_reserved_top, QVTD_FR_ROOT_RSVD, NO,
      BOTH, IOVA },
    { "30/scalable", NULL, 3, ttm_scalable, QVTD_SRTA_1, NO, BOTH, IOVA },
    { "30/abort", NULL, 3, ttm_abort, QVTD_SRTA_1, NO, BOTH, IOVA },
    { "0b/bit-4", NULL, 3, lct_reserved_bit4, QVTD_FR_CTX_RSVD, UNSAID, BOTH,
      IOVA },
    { "0b/bit-11", NULL, 3, lct_reserved_bit11, QVTD_FR_CTX_RSVD, UNSAID, BOTH,
      IOVA },
    { "0b/bit-63", NULL, 3, lct_reserved_haw, QVTD_FR_CTX_RSVD, UNSAID, BOTH,
      IOVA },
    { "0b/bit-71", NULL, 3, lct_reserved_bit71, QVTD_FR_CTX_RSVD, UNSAID, BOTH,
      IOVA },
    { "0b/bit-88", NULL, 3, lct_reserved_bit88, QVTD_FR_CTX_RSVD, UNSAID, BOTH,
      IOVA },
    { "0b/bit-127", NULL, 3, lct_reserved_bit127, QVTD_FR_CTX_RSVD, UNSAID,
      BOTH, IOVA },
    { "0c/level-4-page-size", NULL, 4, lss_reserved_ps4, QVTD_FR_PTE_RSVD,
      YES, BOTH, IOVA },
    { "0c/level-5-page-size", "aw-bits=57", 5, lss_reserved_ps5,
      QVTD_FR_PTE_RSVD, YES, BOTH, IOVA },
    { "0c/2m-bit-12", NULL, 3, lss_reserved_2m, QVTD_FR_PTE_RSVD, YES, BOTH,
      IOVA },
    { "0c/2m-bit-20", NULL, 3, lss_reserved_2m_top, QVTD_FR_PTE_RSVD, YES,
      BOTH, IOVA },
    { "0c/1g-bit-29", NULL, 3, lss_reserved_1g, QVTD_FR_PTE_RSVD, YES, BOTH,
      IOVA },
    { "0c/1g-bit-12", NULL, 3, lss_reserved_1g_low, QVTD_FR_PTE_RSVD, YES,
      BOTH, IOVA },
    { "0c/bit-51", NULL, 3, lss_reserved_51, QVTD_FR_PTE_RSVD, YES, BOTH,
      IOVA },
    { "0c/bit-51-above", NULL, 4, lss_reserved_51_table, QVTD_FR_PTE_RSVD,
      YES, BOTH, IOVA },
    /* The host address width in the DMAR table is aw-bits. */
    { "0c/bit-45-of-39", "aw-bits=39", 3, lss_reserved_45, QVTD_FR_PTE_RSVD,
      YES, BOTH, IOVA },
    { "0c/snoop-control-off", "snoop-control=off", 3, lss_reserved_snp,
      QVTD_FR_PTE_RSVD, YES, BOTH, IOVA },
    { "0c/bit-62", "stale-tm=off", 3, lss_reserved_tm, QVTD_FR_PTE_RSVD, YES,
      BOTH, IOVA },
    { "0c/bit-62-device-iotlb", "stale-tm=off,device-iotlb=on", 3,
      lss_reserved_tm, QVTD_FR_PTE_RSVD, YES, BOTH, IOVA },
    /* Older revisions: transient mappings, for device IOTLBs only */
    { "0c/stale-tm", "stale-tm=on", 3, lss_reserved_tm, QVTD_FR_PTE_RSVD,
      YES, BOTH, IOVA },
    { "0e/interrupt-range", NULL, 3, lgn_interrupt_range, QVTD_FR_INTR_RANGE,
      YES, BOTH, IOVA },
    { "0e/interrupt-range-last", NULL, 4, lgn_interrupt_range_last,
      QVTD_FR_INTR_RANGE, YES, BOTH, IOVA },
};

/* 11.4.7.6: of the address as many bits as MGAW tells are recorded. */
static void assert_condition(Fix *f, const Condition *c, bool read)
{
    QVtdFault fault = qvtd_take_fault(f->v);
    uint64_t mask = (1ULL << (QVTD_CAP_MGAW(f->v->cap) + 1)) - 1;

    g_assert_cmphex(fault.reason, ==, c->reason);
    g_assert_true(fault.f);
    g_assert_cmphex(fault.sid, ==, SID_A);
    g_assert_cmphex(fault.info & mask, ==, c->iova & mask);
    g_assert_cmpint(fault.read, ==, read);
}

/* Each direction that faults: nothing goes through, and one record */
static void test_condition(const void *opaque)
{
    const Condition *c = opaque;
    Fix f = fix_new(c->props, c->levels);

    qvtd_dma_read(f.e, qvtd_alloc_pattern(f.v, 99));
    c->prepare(&f);
    enable(&f);
    if (c->directions & WR) {
        qvtd_dma_write(f.e, c->iova);
        g_assert_true(qvtd_holds(f.v, f.page, 1));
        assert_condition(&f, c, false);
    }
    if (c->directions & RD) {
        qvtd_dma_read(f.e, c->iova);
        assert_condition(&f, c, true);
        qvtd_gcmd_clear(f.v, QVTD_GCMD_TE);
        qvtd_dma_write(f.e, f.d->bounce);
        g_assert_false(qvtd_holds(f.v, f.d->bounce, 1));
    }
    fix_quit(&f);
}

/* 7.1.3 and 9.3, FPD: a qualified fault blocks, and leaves no record. */
static void test_condition_fpd(const void *opaque)
{
    const Condition *c = opaque;
    Fix f = fix_new(c->props, c->levels);

    qvtd_dma_read(f.e, qvtd_alloc_pattern(f.v, 99));
    c->prepare(&f);
    set_context_low(&f, QVTD_CTX_FPD);
    enable(&f);
    if (c->directions & WR) {
        qvtd_dma_write(f.e, c->iova);
        g_assert_true(qvtd_holds(f.v, f.page, 1));
    }
    if (c->directions & RD) {
        qvtd_dma_read(f.e, c->iova);
    }
    qvtd_assert_reg32(f.v, QVTD_FSTS, 0);
    g_assert_false(qvtd_fault(f.v, 0).f);
    fix_quit(&f);
}

/* 7.1.3: what is not qualified is recorded whatever a context entry says. */
static void test_condition_not_qualified(const void *opaque)
{
    const Condition *c = opaque;
    Fix f = fix_new(c->props, c->levels);

    set_context_low(&f, QVTD_CTX_FPD);
    c->prepare(&f);
    enable(&f);
    qvtd_dma_write(f.e, c->iova);
    assert_condition(&f, c, false);
    fix_quit(&f);
}

static void add_condition_tests(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(conditions); i++) {
        const Condition *c = &conditions[i];
        g_autofree char *path =
            g_strdup_printf("/vtd/dma/7.1.3/%s", c->path);
        g_autofree char *fpd =
            g_strdup_printf("/vtd/dma/7.1.3-fpd/%s", c->path);

        qtest_add_data_func(path, c, test_condition);
        if (c->qualified != UNSAID) {
            qtest_add_data_func(fpd, c, c->qualified ? test_condition_fpd
                                : test_condition_not_qualified);
        }
    }
}

/*
 * A large page that covers the interrupt range: what comes out there is
 * refused, and what comes out beside it is not, in whatever order.
 */
static void test_large_page_interrupt_range(void)
{
    const uint64_t gib = 0x40000000ULL, base = 0xc0000000ULL;
    Fix f = fix_new(NULL, 4);

    qvtd_map_level(f.d, gib, base, QVTD_PTE_RW, 3);
    enable(&f);
    for (int i = 0; i < 2; i++) {
        uint64_t inside = gib + QVTD_MSI_BASE - base;
        uint64_t beside = gib + QVTD_BASE + QVTD_CAP - base;

        qvtd_edu_dma(f.e, beside, 8, true);
        qvtd_edu_dma(f.e, QVTD_BOUNCE_IOVA, 8, false);
        g_assert_cmphex(qtest_readq(f.v->qts, f.d->bounce), ==, f.v->cap);
        qvtd_assert_no_fault(f.v);
        qvtd_edu_dma(f.e, inside, 4, i);
        qvtd_assert_fault(f.v, QVTD_FR_INTR_RANGE, SID_A, inside, i);
    }
    fix_quit(&f);
}

/* --- bits that must not fault --- */

typedef struct Ignored {
    const char *path;
    const char *props;
    int levels;
    int level;
    uint64_t bits;
} Ignored;

/* 9.8: bits of the entries that hardware ignores */
static const Ignored ignored[] = {
    { "leaf-52-61", NULL, 3, 1, MAKE_64BIT_MASK(52, 10) },
    { "leaf-63", NULL, 3, 1, BIT_ULL(63) },
    { "leaf-62-device-iotlb", "device-iotlb=on,stale-tm=on", 3, 1,
      BIT_ULL(62) },
    { "leaf-10", NULL, 3, 1, BIT_ULL(10) },
    { "leaf-snoop", "snoop-control=on", 3, 1, QVTD_PTE_SNP },
    { "table-52-61", NULL, 4, 2, MAKE_64BIT_MASK(52, 10) },
    { "table-8-10", NULL, 4, 3, MAKE_64BIT_MASK(8, 3) },
    { "table-3-6", NULL, 4, 4, MAKE_64BIT_MASK(3, 4) },
};

static void test_ignored(const void *opaque)
{
    const Ignored *i = opaque;
    Fix f = fix_new(i->props, i->levels);

    set_pte(&f, i->level, i->bits);
    enable(&f);
    g_assert_true(qvtd_dma_reads(f.d, f.e, IOVA, 1));
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* 9.3: bits 70:67 of the context entry are ignored. */
static void test_ignored_context(void)
{
    Fix f = fix_new(NULL, 3);

    set_context_high(&f, MAKE_64BIT_MASK(3, 4));
    enable(&f);
    g_assert_true(qvtd_dma_reads(f.d, f.e, IOVA, 1));
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

static void add_ignored_tests(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(ignored); i++) {
        g_autofree char *path =
            g_strdup_printf("/vtd/dma/9.8/ignored/%s", ignored[i].path);

        qtest_add_data_func(path, &ignored[i], test_ignored);
    }
    qtest_add_func("/vtd/dma/9.3/ignored", test_ignored_context);
}

/* --- permission is that of every access, cached or not --- */

static void test_permission_on_hit(void)
{
    Fix f = fix_new(NULL, 3);
    uint64_t ro = qvtd_alloc_pattern(f.v, 7);
    uint64_t wo = qvtd_alloc_pattern(f.v, 8);

    qvtd_map(f.d, 0x8000, ro, QVTD_PTE_R);
    qvtd_map(f.d, 0x9000, wo, QVTD_PTE_W);
    enable(&f);
    for (int i = 0; i < 2; i++) {
        g_assert_true(qvtd_dma_reads(f.d, f.e, 0x8000, 7));
        qvtd_assert_no_fault(f.v);
        qvtd_dma_read(f.e, IOVA);
        qvtd_dma_write(f.e, 0x8000);
        g_assert_true(qvtd_holds(f.v, ro, 7));
        qvtd_assert_fault(f.v, QVTD_FR_WRITE, SID_A, 0x8000, false);

        qvtd_dma_write(f.e, 0x9000);
        g_assert_true(qvtd_holds(f.v, wo, 1));
        qvtd_assert_no_fault(f.v);
        qvtd_dma_read(f.e, 0x9000);
        qvtd_assert_fault(f.v, QVTD_FR_READ, SID_A, 0x9000, true);
    }
    fix_quit(&f);
}

/* --- the interrupt address range --- */

/*
 * 3.15: requests to 0xfeexxxxx are interrupts, not DMA, and their address is
 * not translated, whatever the tables say.
 */
static void test_interrupt_range_write(void)
{
    Fix f = fix_new("intremap=off", 3);
    uint64_t data = qvtd_alloc(f.v, 1);
    uint64_t decoy = qvtd_alloc_pattern(f.v, 3);

    qtest_writel(f.v->qts, data, 0x47);
    qvtd_map(f.d, 0x8000, data, QVTD_PTE_R);
    qvtd_map(f.d, QVTD_MSI_BASE, decoy, QVTD_PTE_RW);
    enable(&f);
    qvtd_edu_dma(f.e, 0x8000, 4, true);
    qvtd_edu_dma(f.e, QVTD_MSI_BASE, 4, false);
    g_assert_true(qvtd_lapic_irr(f.v, 0, 0x47));
    g_assert_true(qvtd_holds(f.v, decoy, 3));
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

static void test_interrupt_range_read(void)
{
    Fix f = fix_new("intremap=off", 3);
    uint64_t decoy = qvtd_alloc_pattern(f.v, 3);

    qvtd_map(f.d, QVTD_MSI_BASE, decoy, QVTD_PTE_RW);
    enable(&f);
    g_assert_false(qvtd_dma_reads(f.d, f.e, QVTD_MSI_BASE, 3));
    fix_quit(&f);
}

/* The pages on both sides are ordinary addresses. */
static void test_interrupt_range_borders(void)
{
    Fix f = fix_new("intremap=off", 3);

    qvtd_map(f.d, 0xfedff000, f.page, QVTD_PTE_RW);
    qvtd_map(f.d, 0xfef00000, f.page, QVTD_PTE_RW);
    enable(&f);
    g_assert_true(qvtd_dma_reads(f.d, f.e, 0xfedff000, 1));
    g_assert_true(qvtd_dma_reads(f.d, f.e, 0xfef00000, 1));
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* --- not-present entries --- */

/*
 * 6.1: without caching mode nothing that faulted is cached, so that making
 * an entry present needs no invalidation.
 */
static void test_not_present_root(void)
{
    Fix f = fix_new("caching-mode=off", 3);

    lrt_not_present(&f);
    enable(&f);
    qvtd_dma_read(f.e, IOVA);
    qvtd_assert_fault(f.v, QVTD_FR_ROOT_NOT_PRESENT, SID_A, IOVA, true);
    set_bits(&f, root_entry(&f), QVTD_ROOT_P);
    g_assert_true(qvtd_dma_reads(f.d, f.e, IOVA, 1));
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

static void test_not_present_context(void)
{
    Fix f = fix_new("caching-mode=off", 3);

    lct_not_present(&f);
    enable(&f);
    qvtd_dma_read(f.e, IOVA);
    qvtd_assert_fault(f.v, QVTD_FR_CTX_NOT_PRESENT, SID_A, IOVA, true);
    qvtd_attach(f.d, SID_A);
    g_assert_true(qvtd_dma_reads(f.d, f.e, IOVA, 1));
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

static void test_not_present_page(void)
{
    Fix f = fix_new("caching-mode=off", 4);

    lgn_not_present(&f);
    enable(&f);
    qvtd_dma_read(f.e, IOVA);
    qvtd_assert_fault(f.v, QVTD_FR_READ, SID_A, IOVA, true);
    qvtd_map(f.d, IOVA, f.page, QVTD_PTE_RW);
    g_assert_true(qvtd_dma_reads(f.d, f.e, IOVA, 1));
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* 6.1: not present to pass-through, the same */
static void test_not_present_pass_through(void)
{
    Fix f = fix_new("caching-mode=off", 4);
    uint64_t to = qvtd_alloc(f.v, 1);

    lct_not_present(&f);
    enable(&f);
    qvtd_dma_read(f.e, f.page);
    qvtd_assert_fault(f.v, QVTD_FR_CTX_NOT_PRESENT, SID_A, f.page, true);
    qvtd_write_context(f.v, SID_A,
                       QVTD_CTX_TT(QVTD_TT_PASS_THROUGH) | QVTD_CTX_P,
                       QVTD_CTX_AW(4) | QVTD_CTX_DID(5));
    qvtd_dma_read(f.e, f.page);
    qvtd_dma_write(f.e, to);
    g_assert_true(qvtd_holds(f.v, to, 1));
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* 6.1: with caching mode software invalidates after that, too. */
static void test_caching_mode(void)
{
    Fix f = fix_new("caching-mode=on", 3);

    lct_not_present(&f);
    enable(&f);
    qvtd_dma_read(f.e, IOVA);
    qvtd_assert_fault(f.v, QVTD_FR_CTX_NOT_PRESENT, SID_A, IOVA, true);
    lgn_not_present(&f);
    qvtd_attach(f.d, SID_A);
    qvtd_ccmd(f.v, QVTD_CCMD_CIRG(QVTD_GRAN_DEVICE) | QVTD_CCMD_SID(SID_A) |
              QVTD_CCMD_DID(0));
    qvtd_dma_read(f.e, IOVA);
    qvtd_assert_fault(f.v, QVTD_FR_READ, SID_A, IOVA, true);
    qvtd_map(f.d, IOVA, f.page, QVTD_PTE_RW);
    qvtd_iotlb(f.v, QVTD_IOTLB_IIRG(QVTD_GRAN_PAGE) | QVTD_IOTLB_DID(5),
               IOVA);
    g_assert_true(qvtd_dma_reads(f.d, f.e, IOVA, 1));
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(shapes); i++) {
        qtest_add_data_func(shapes[i].path, &shapes[i], test_shape);
    }
    qtest_add_func("/vtd/dma/9.3/pass-through", test_pass_through);
    qtest_add_func("/vtd/dma/9.3/pass-through-pointer",
                   test_pass_through_pointer);
    qtest_add_func("/vtd/dma/9.3/type-all", test_tt_all);
    qtest_add_func("/vtd/dma/3.4/by-requester", test_by_requester);
    qtest_add_func("/vtd/dma/6.2.1/shared-domain", test_shared_domain);
    qtest_add_func("/vtd/dma/3.7/across-pages", test_across_pages);
    qtest_add_func("/vtd/dma/3.7/across-pages-fault",
                   test_across_pages_fault);
    qtest_add_func("/vtd/dma/11.4.4/enable-disable", test_enable_disable);
    qtest_add_func("/vtd/dma/11.4.5/new-root", test_new_root);
    add_condition_tests();
    qtest_add_func("/vtd/dma/7.1.3/0e/large-page",
                   test_large_page_interrupt_range);
    add_ignored_tests();
    qtest_add_func("/vtd/dma/3.7/permission-on-hit", test_permission_on_hit);
    qtest_add_func("/vtd/dma/3.15/write", test_interrupt_range_write);
    qtest_add_func("/vtd/dma/3.15/read", test_interrupt_range_read);
    qtest_add_func("/vtd/dma/3.15/borders", test_interrupt_range_borders);
    qtest_add_func("/vtd/dma/6.1/root", test_not_present_root);
    qtest_add_func("/vtd/dma/6.1/context", test_not_present_context);
    qtest_add_func("/vtd/dma/6.1/page", test_not_present_page);
    qtest_add_func("/vtd/dma/6.1/pass-through",
                   test_not_present_pass_through);
    qtest_add_func("/vtd/dma/6.1/caching-mode", test_caching_mode);
    return g_test_run();
}
