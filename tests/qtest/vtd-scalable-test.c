/*
 * VT-d: scalable mode (VT-d specification, sections 3.4.3, 3.6, 6.5.2, 7.1.3
 * and 9.2 to 9.7)
 *
 * Requests with PASID come from "vtd-testdev".
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "libqos/intel-iommu.h"

#define SID     QVTD_SID(0, 4, 0)
#define NONE    QVTD_NO_PASID
#define IOVA    0x0000000012345000ULL
#define DID     0x17

#define SECOND  "x-scalable-mode=on,x-pasid-mode=on"
#define FIRST   SECOND ",x-flts=on"

#define FULL    (QVTD_FS_ALL | QVTD_FS_A | QVTD_FS_D)

/* One test device, whose PASID 5 has a page mapped at IOVA */
typedef struct Fix {
    QVtd *v;
    QVtdTestdev *t;
    bool first;
    int levels;
    uint64_t pgd;
    uint64_t page;
} Fix;

/* The entry for @iova at @level below @pgd; tables on the way are made */
static uint64_t pte_addr(Fix *f, uint64_t pgd, uint64_t iova, int level)
{
    for (int l = f->levels; ; l--) {
        uint64_t addr = pgd + extract64(iova, 12 + 9 * (l - 1), 9) * 8;

        if (l == level) {
            return addr;
        }
        pgd = qtest_readq(f->v->qts, addr) & 0xfffffffff000ULL;
        if (!pgd) {
            pgd = qvtd_alloc(f->v, 1);
            qtest_writeq(f->v->qts, addr, pgd |
                         (f->first ? QVTD_FS_ALL : QVTD_PTE_RW));
        }
    }
}

static uint64_t map(Fix *f, uint64_t pgd, uint64_t iova, uint64_t pa,
                    uint64_t bits)
{
    uint64_t addr = pte_addr(f, pgd, iova, 1);

    qtest_writeq(f->v->qts, addr, pa | bits);
    return addr;
}

static uint64_t all_bits(Fix *f)
{
    return f->first ? QVTD_FS_ALL : QVTD_PTE_RW;
}

/* PASID entries that lead to the tables at @pgd, with domain @did */
static void attach(Fix *f, uint32_t pasid, uint64_t pgd, uint16_t did)
{
    if (f->first) {
        qvtd_sm_write_pasid(f->v, SID, pasid, QVTD_SM_PE_P |
                            QVTD_SM_PE_PGTT(QVTD_PGTT_FIRST), did,
                            pgd | QVTD_SM_PE2_FSPM(f->levels));
    } else {
        qvtd_sm_write_pasid(f->v, SID, pasid, pgd | QVTD_SM_PE_P |
                            QVTD_SM_PE_PGTT(QVTD_PGTT_SECOND) |
                            QVTD_SM_PE_AW(f->levels), did, 0);
    }
}

static uint64_t new_page(Fix *f, uint32_t value)
{
    uint64_t page = qvtd_alloc(f->v, 1);

    qtest_writel(f->v->qts, page, value);
    return page;
}

static Fix fix_new(const char *props)
{
    Fix f = { .first = strstr(props, "flts"),
              .levels = strstr(props, "aw-bits=57") ? 5 : 4 };

    f.v = qvtd_start(props, "-device vtd-testdev,addr=4");
    f.t = qvtd_testdev(f.v, SID);
    qvtd_sm_init(f.v);
    qvtd_iq_init_wide(f.v, 0);
    f.pgd = qvtd_alloc(f.v, 1);
    f.page = new_page(&f, 0x600d);
    map(&f, f.pgd, IOVA, f.page, all_bits(&f));
    attach(&f, 0, f.pgd, DID);
    attach(&f, 5, f.pgd, DID);
    qvtd_gcmd_set(f.v, QVTD_GCMD_TE);
    return f;
}

static void fix_quit(Fix *f)
{
    qvtd_quit(f->v);
    g_free(f->t);
}

static void flush_all(Fix *f)
{
    qvtd_iq_submit(f->v, QVTD_DESC_PC | QVTD_DESC_GRAN(QVTD_PC_GLOBAL), 0);
    qvtd_flush_all(f->v);
}

static void assert_reads(Fix *f, uint32_t pasid, uint64_t iova, uint32_t value)
{
    uint32_t have;

    g_assert_true(qvtd_testdev_read(f->t, pasid, iova, &have));
    g_assert_cmphex(have, ==, value);
}

/* A record with PASID and PP as section 11.4.7.7 wants them */
static void assert_fault(Fix *f, QVtdReason reason, uint32_t pasid,
                         uint64_t iova, bool read)
{
    QVtdFault fault = qvtd_take_fault(f->v);

    g_assert_cmphex(fault.reason, ==, reason);
    g_assert_cmphex(fault.sid, ==, SID);
    g_assert_cmphex(fault.info, ==, iova & -QVTD_PAGE);
    g_assert_cmpint(fault.read, ==, read);
    g_assert_cmpint(fault.pp, ==, pasid != NONE);
    g_assert_cmphex(fault.pasid, ==, pasid == NONE ? 0 : pasid);
}

static void assert_read_fault(Fix *f, QVtdReason reason, uint32_t pasid,
                              uint64_t iova)
{
    uint32_t value;

    g_assert_false(qvtd_testdev_read(f->t, pasid, iova, &value));
    assert_fault(f, reason, pasid, iova, true);
}

static void assert_write_fault(Fix *f, QVtdReason reason, uint32_t pasid,
                               uint64_t iova)
{
    g_assert_false(qvtd_testdev_write(f->t, pasid, iova, 0xbad));
    assert_fault(f, reason, pasid, iova, false);
}

/* --- translation --- */

/* 3.4.3, 9.4: with a PASID, and without one by RID_PASID */
static void test_translation(const void *props)
{
    Fix f = fix_new(props);
    uint64_t page = new_page(&f, 0);

    assert_reads(&f, 5, IOVA, 0x600d);
    assert_reads(&f, NONE, IOVA, 0x600d);
    map(&f, f.pgd, IOVA + QVTD_PAGE, page, all_bits(&f));
    g_assert_true(qvtd_testdev_write(f.t, 5, IOVA + QVTD_PAGE, 0xfeed));
    g_assert_cmphex(qtest_readl(f.v->qts, page), ==, 0xfeed);
    g_assert_true(qvtd_testdev_write(f.t, NONE, IOVA + QVTD_PAGE, 0xcafe));
    g_assert_cmphex(qtest_readl(f.v->qts, page), ==, 0xcafe);
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* 9.4: RID_PASID chooses the entry for requests without PASID */
static void test_rid_pasid(const void *props)
{
    Fix f = fix_new(props);
    uint64_t pgd = qvtd_alloc(f.v, 1);

    map(&f, pgd, IOVA, new_page(&f, 0x71d), all_bits(&f));
    attach(&f, 0x1234, pgd, DID + 1);
    qtest_writeq(f.v->qts, qvtd_sm_context_addr(f.v, SID) + 8, 0x1234);
    flush_all(&f);
    assert_reads(&f, NONE, IOVA, 0x71d);
    assert_reads(&f, 5, IOVA, 0x600d);
    assert_reads(&f, 0x1234, IOVA, 0x71d);
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* 3.4.3: each PASID has tables of its own */
static void test_pasids(const void *props)
{
    static const uint32_t pasids[] = { 0, 1, 5, 63, 64, 0x7fff };
    Fix f = fix_new(props);

    for (unsigned i = 0; i < ARRAY_SIZE(pasids); i++) {
        uint64_t pgd = qvtd_alloc(f.v, 1);

        map(&f, pgd, IOVA, new_page(&f, 0x100 + i), all_bits(&f));
        attach(&f, pasids[i], pgd, DID + i);
    }
    flush_all(&f);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < ARRAY_SIZE(pasids); i++) {
            assert_reads(&f, pasids[i], IOVA, 0x100 + i);
        }
    }
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* 9.2: functions from 10.0 on are in the upper context table */
static void test_upper_context(void)
{
    uint16_t sid = QVTD_SID(0, 0x1d, 0);
    QVtd *v = qvtd_start(SECOND, "-device vtd-testdev,addr=1d");
    QVtdTestdev *t = qvtd_testdev(v, sid);
    uint32_t value;

    qvtd_sm_init(v);
    qvtd_sm_write_pasid(v, sid, 0, QVTD_SM_PE_P |
                        QVTD_SM_PE_PGTT(QVTD_PGTT_PASS), DID, 0);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    g_assert_true(qvtd_testdev_read(t, NONE, v->heap - 8, &value));
    qtest_writeq(v->qts, v->root + 8, 0);
    qvtd_iq_init_wide(v, 0);
    qvtd_flush_all(v);
    g_assert_false(qvtd_testdev_read(t, NONE, v->heap - 8, &value));
    g_assert_cmphex(qvtd_take_fault(v).reason, ==, QVTD_SRT_2);
    qvtd_quit(v);
    g_free(t);
}

/* 3.6: page sizes of the first stage, in the lower and in the upper half */
static void test_first_page_sizes(void)
{
    static const uint64_t halves[] = { 0, 0xffff800000000000ULL };
    Fix f = fix_new(FIRST);

    for (unsigned i = 0; i < 6; i++) {
        int level = 1 + i % 3;
        uint64_t size = 1ULL << (12 + 9 * (level - 1));
        uint64_t iova = halves[i / 3] + 0x5a5a5a5a5000ULL;
        uint64_t pa = f.page & -size;

        iova &= -size;
        qtest_writeq(f.v->qts, pte_addr(&f, f.pgd, iova, level),
                     pa | QVTD_FS_ALL | (level > 1 ? QVTD_FS_PS : 0));
        assert_reads(&f, 5, iova + (f.page - pa), 0x600d);
    }
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* 3.6, 3.7: addresses that only 5 levels translate, and 4 levels beside them */
static void test_5_levels(const void *props)
{
    Fix f = fix_new(props);
    uint64_t high = f.first ? 0xff5a5a5a5a5a5000ULL : 0x15a5a5a5a5a5000ULL;
    uint64_t beyond = 1ULL << (f.first ? 56 : 57);

    map(&f, f.pgd, high, new_page(&f, 0x571), all_bits(&f));
    map(&f, f.pgd, high & 0xffffffffffffULL, new_page(&f, 0x481),
        all_bits(&f));
    assert_reads(&f, 5, high, 0x571);
    assert_reads(&f, 5, high & 0xffffffffffffULL, 0x481);
    qvtd_assert_no_fault(f.v);
    assert_read_fault(&f, f.first ? QVTD_SGN_1 : QVTD_SGN_5, 5, beyond);

    f.levels = 4;
    f.pgd = qvtd_alloc(f.v, 1);
    map(&f, f.pgd, IOVA, new_page(&f, 0x482), all_bits(&f));
    attach(&f, 5, f.pgd, DID);
    flush_all(&f);
    assert_reads(&f, 5, IOVA, 0x482);
    assert_read_fault(&f, f.first ? QVTD_SGN_1 : QVTD_SGN_5, 5, 1ULL << 48);
    fix_quit(&f);
}

/* 11.4.2: without FS1GP a 1 GiB page is a reserved bit */
static void test_first_no_1g(void)
{
    Fix f = fix_new(FIRST ",fs1gp=off");
    uint64_t iova = 1ULL << 30;

    qtest_writeq(f.v->qts, pte_addr(&f, f.pgd, iova, 3),
                 QVTD_FS_ALL | QVTD_FS_PS);
    assert_read_fault(&f, QVTD_SFS_3, 5, iova);
    fix_quit(&f);
}

/* 3.6.3: A with the first access, D with the first write, nothing by probes */
static void test_first_flags(void)
{
    Fix f = fix_new(FIRST);
    uint64_t addr[5], result, value = f.page | QVTD_FS_ALL;

    for (int level = 1; level <= 4; level++) {
        addr[level] = pte_addr(&f, f.pgd, IOVA, level);
    }
    g_assert_cmphex(qvtd_testdev_probe(f.t, 5, IOVA, &result), ==, 0);
    g_assert_cmphex(result, ==, f.page);
    g_assert_cmphex(qtest_readq(f.v->qts, addr[1]), ==, value);
    assert_reads(&f, 5, IOVA, 0x600d);
    value |= QVTD_FS_A;
    g_assert_cmphex(qtest_readq(f.v->qts, addr[1]), ==, value);
    for (int level = 2; level <= 4; level++) {
        uint64_t entry = qtest_readq(f.v->qts, addr[level]);

        g_assert_cmphex(entry & 0xfff, ==, QVTD_FS_ALL | QVTD_FS_A);
    }
    g_assert_cmphex(qvtd_testdev_probe(f.t, 5, IOVA, &result), ==,
                    QVTD_PROBE_R);
    assert_reads(&f, 5, IOVA, 0x600d);
    g_assert_cmphex(qtest_readq(f.v->qts, addr[1]), ==, value);
    /* What is cached by now is for reading */
    g_assert_true(qvtd_testdev_write(f.t, 5, IOVA, 0xd1));
    value |= QVTD_FS_D;
    g_assert_cmphex(qtest_readq(f.v->qts, addr[1]), ==, value);
    g_assert_cmphex(qvtd_testdev_probe(f.t, 5, IOVA, &result), ==,
                    QVTD_PROBE_R | QVTD_PROBE_W);
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* 3.4.3 and 9.6: PGTT 100b, with and without PASID */
static void test_pass_through(void)
{
    Fix f = fix_new(SECOND);
    static const uint32_t pasids[] = { 5, NONE };

    for (unsigned i = 0; i < 2; i++) {
        qvtd_sm_write_pasid(f.v, SID, i ? 0 : 5, QVTD_SM_PE_P |
                            QVTD_SM_PE_PGTT(QVTD_PGTT_PASS), DID, 0);
        flush_all(&f);
        assert_reads(&f, pasids[i], f.page, 0x600d);
        g_assert_true(qvtd_testdev_write(f.t, pasids[i], f.page + 4, i));
        g_assert_cmphex(qtest_readl(f.v->qts, f.page + 4), ==, i);
        qvtd_assert_no_fault(f.v);
    }
    /* And back: the regions follow the PASID cache's invalidation */
    attach(&f, 0, f.pgd, DID);
    flush_all(&f);
    assert_reads(&f, NONE, IOVA, 0x600d);
    assert_read_fault(&f, QVTD_SGN_7, NONE, f.page);
    fix_quit(&f);
}

/* 3.15: a request with PASID to 0xfeexxxxx is no interrupt */
static void test_interrupt_range(void)
{
    Fix f = fix_new(FIRST);
    uint64_t iova = 0xfee00000;

    map(&f, f.pgd, iova, f.page, FULL);
    assert_reads(&f, 5, iova, 0x600d);
    map(&f, f.pgd, IOVA + QVTD_PAGE, 0xfee01000, FULL);
    assert_write_fault(&f, QVTD_SGN_8, 5, IOVA + QVTD_PAGE);
    qvtd_sm_write_pasid(f.v, SID, 5, QVTD_SM_PE_P |
                        QVTD_SM_PE_PGTT(QVTD_PGTT_PASS), DID, 0);
    flush_all(&f);
    assert_write_fault(&f, QVTD_SGN_8, 5, 0xfee0000cULL);
    assert_write_fault(&f, QVTD_SGN_8, 5, 0xfeeffffcULL);
    assert_reads(&f, 5, f.page, 0x600d);
    /* Translation off: not even then, but there is nobody to tell */
    qvtd_gcmd_clear(f.v, QVTD_GCMD_TE);
    g_assert_false(qvtd_testdev_write(f.t, 5, 0xfee0000cULL, 0));
    assert_reads(&f, 5, f.page, 0x600d);
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* 11.4.4.1: RTADDR counts when SRTP says so; and back to legacy mode */
static void test_root_latch(void)
{
    Fix f = fix_new(SECOND);
    uint64_t root = f.v->root;

    qvtd_writeq(f.v, QVTD_RTADDR, qvtd_alloc(f.v, 1));
    flush_all(&f);
    assert_reads(&f, 5, IOVA, 0x600d);
    qvtd_set_root(f.v, qvtd_alloc(f.v, 1));
    assert_read_fault(&f, QVTD_SRTA_2, 5, IOVA);
    assert_read_fault(&f, QVTD_FR_ROOT_NOT_PRESENT, NONE, IOVA);
    qvtd_set_root(f.v, root | QVTD_RTADDR_TTM_ABORT);
    assert_read_fault(&f, QVTD_SRTA_1, NONE, IOVA);
    qvtd_set_root(f.v, root | QVTD_RTADDR_TTM_SCALABLE);
    assert_reads(&f, 5, IOVA, 0x600d);
    assert_reads(&f, NONE, IOVA, 0x600d);
    fix_quit(&f);
}

/* 11.4.3: no PASID capability, no address space; and not without end */
static void test_pasid_spaces(void)
{
    Fix f = fix_new("x-scalable-mode=on");
    QVtd *v;
    QVtdTestdev *t;
    uint64_t addr;
    uint32_t n = 0;

    g_assert_cmphex(qvtd_testdev_probe(f.t, 5, IOVA, &addr), ==,
                    QVTD_NO_SPACE);
    assert_reads(&f, NONE, IOVA, 0x600d);
    fix_quit(&f);

    v = qvtd_start(SECOND, "-device vtd-testdev,addr=4");
    t = qvtd_testdev(v, SID);
    while (n < 5000 && qvtd_testdev_probe(t, n, 0, &addr) != QVTD_NO_SPACE) {
        n++;
    }
    g_assert_cmpuint(n, ==, 1024);
    g_assert_cmphex(qvtd_testdev_probe(t, n - 1, 0, &addr), ==,
                    QVTD_PROBE_R | QVTD_PROBE_W);
    qvtd_quit(v);
    g_free(t);
}

/* --- faults --- */

typedef enum Which {
    AT_ROOT, AT_CONTEXT, AT_DIR, AT_PASID, PTE4, PTE1
} Which;

typedef struct FaultCase {
    const char *name;
    bool first;
    Which which;
    unsigned word;
    uint64_t clear, set;
    QVtdReason with, without;   /* PASID in the request */
    bool always;                /* FPD does not matter */
} FaultCase;

#define FRAME 0xfffffffff000ULL

/* 7.1.3: one wrong bit, and the reason with and without PASID */
static const FaultCase fault_cases[] = {
    { "SRT.2", 0, AT_ROOT, 0, 1, 0, QVTD_SRT_2, QVTD_SRT_2, true },
    { "SRT.3", 0, AT_ROOT, 0, 0, 2, QVTD_SRT_3, QVTD_SRT_3, true },
    { "SCT.1", 0, AT_ROOT, 0, FRAME, QVTD_HOLE, QVTD_SCT_1, QVTD_SCT_1, true },
    { "SCT.2", 0, AT_CONTEXT, 0, 1, 0, QVTD_SCT_2, QVTD_SCT_2 },
    { "SCT.3", 0, AT_CONTEXT, 0, 0, 0x10, QVTD_SCT_3, QVTD_SCT_3 },
    { "SCT.3-word-3", 0, AT_CONTEXT, 3, 0, 1, QVTD_SCT_3, QVTD_SCT_3 },
    { "SCT.6", 0, AT_CONTEXT, 0, 8, 0, QVTD_SCT_6, 0 },
    { "SCT.9", 0, AT_CONTEXT, 1, 0, 0xfffff, 0, QVTD_SCT_9 },
    { "SPD.1", 0, AT_CONTEXT, 0, FRAME, QVTD_HOLE, QVTD_SPD_1, QVTD_SPD_1 },
    { "SPD.2", 0, AT_DIR, 0, 1, 0, QVTD_SPD_2, QVTD_SPD_2 },
    { "SPD.3", 0, AT_DIR, 0, 0, 4, QVTD_SPD_3, QVTD_SPD_3 },
    { "SPT.1", 0, AT_DIR, 0, FRAME, QVTD_HOLE, QVTD_SPT_1, QVTD_SPT_1 },
    { "SPT.2", 0, AT_PASID, 0, 1, 0, QVTD_SPT_2, QVTD_SPT_2 },
    { "SPT.3", 0, AT_PASID, 1, 0, 1ULL << 23, QVTD_SPT_3, QVTD_SPT_3 },
    { "SPT.4", 0, AT_PASID, 0, 0x1c0, 0x40, QVTD_SPT_4, QVTD_SPT_4 },
    { "SPT.4-nested", 1, AT_PASID, 0, 0x1c0, 0xc0, QVTD_SPT_4, QVTD_SPT_4 },
    { "SPT.4-5-level", 1, AT_PASID, 2, 0, 4, QVTD_SPT_4, QVTD_SPT_4 },
    { "SPT.6", 0, AT_CONTEXT, 1, 0, 0x100000, 0, QVTD_SPT_6 },
    { "SSS.1", 0, PTE4, 0, FRAME, QVTD_HOLE, QVTD_SSS_1, QVTD_SSS_1 },
    { "SSS.3", 0, PTE1, 0, 0, 1ULL << 50, QVTD_SSS_3, QVTD_SSS_3 },
    { "SSS.4", 0, AT_PASID, 0, FRAME, QVTD_HOLE, QVTD_SSS_4, QVTD_SSS_4 },
    { "SGN.7", 0, PTE1, 0, 1, 0, QVTD_SGN_7, QVTD_SGN_7 },
    { "SGN.8", 0, PTE1, 0, FRAME, 0xfee00000, QVTD_SGN_8, QVTD_SGN_8 },
    { "SFS.1", 1, PTE4, 0, FRAME, QVTD_HOLE, QVTD_SFS_1, QVTD_SFS_1 },
    { "SFS.2", 1, PTE4, 0, 1, 0, QVTD_SFS_2, QVTD_SFS_2 },
    { "SFS.2-leaf", 1, PTE1, 0, 1, 0, QVTD_SFS_2, QVTD_SFS_2 },
    { "SFS.3", 1, PTE4, 0, 0, 0x80, QVTD_SFS_3, QVTD_SFS_3 },
    { "SFS.3-xd", 1, PTE1, 0, 0, 1ULL << 63, QVTD_SFS_3, QVTD_SFS_3 },
    { "SFS.4", 1, AT_PASID, 2, FRAME, QVTD_HOLE, QVTD_SFS_4, QVTD_SFS_4 },
    { "SGN.2", 1, PTE1, 0, 4, 0, QVTD_SGN_2, QVTD_SGN_2 },
};

static uint64_t entry_of(Fix *f, Which which, uint32_t pasid)
{
    switch (which) {
    case AT_ROOT:
        return qvtd_sm_root_addr(f->v, SID);
    case AT_CONTEXT:
        return qvtd_sm_context_addr(f->v, SID);
    case AT_DIR:
        return qvtd_sm_dir_addr(f->v, SID, pasid);
    case AT_PASID:
        return qvtd_sm_pasid_addr(f->v, SID, pasid);
    default:
        return pte_addr(f, f->pgd, IOVA, which == PTE4 ? 4 : 1);
    }
}

/* One request, which faults for @reason, or is good if that is 0 */
static void check_reason(Fix *f, QVtdReason reason, uint32_t pasid)
{
    if (reason) {
        assert_read_fault(f, reason, pasid, IOVA);
    } else {
        assert_reads(f, pasid, IOVA, 0x600d);
        qvtd_assert_no_fault(f->v);
    }
}

/* The same with FPD in the entry at @addr: it is not recorded */
static void check_fpd(Fix *f, const FaultCase *c, uint64_t addr,
                      uint32_t pasid)
{
    QVtdReason reason = pasid == NONE ? c->without : c->with;
    uint64_t good = qtest_readq(f->v->qts, addr);
    uint32_t value;

    qtest_writeq(f->v->qts, addr, good | 2);
    flush_all(f);
    if (reason) {
        g_assert_false(qvtd_testdev_read(f->t, pasid, IOVA, &value));
        if (c->always) {
            assert_fault(f, reason, pasid, IOVA, true);
        }
    }
    qvtd_assert_no_fault(f->v);
    qtest_writeq(f->v->qts, addr, good);
    flush_all(f);
}

static void test_fault(const void *opaque)
{
    const FaultCase *c = opaque;
    Fix f = fix_new(c->first ? FIRST : SECOND);
    static const uint32_t pasids[] = { 5, NONE };

    for (unsigned i = 0; i < 2; i++) {
        uint32_t index = i ? 0 : 5;
        uint64_t context = entry_of(&f, AT_CONTEXT, index);
        uint64_t dir = entry_of(&f, AT_DIR, index);
        uint64_t pe = entry_of(&f, AT_PASID, index);
        uint64_t addr = entry_of(&f, c->which, index) + c->word * 8;
        uint64_t good = qtest_readq(f.v->qts, addr);

        check_reason(&f, 0, pasids[i]);
        qtest_writeq(f.v->qts, addr, (good & ~c->clear) | c->set);
        flush_all(&f);
        check_reason(&f, i ? c->without : c->with, pasids[i]);
        check_fpd(&f, c, context, pasids[i]);
        if (c->which >= AT_DIR) {
            check_fpd(&f, c, dir, pasids[i]);
        }
        if (c->which >= AT_PASID) {
            check_fpd(&f, c, pe, pasids[i]);
        }
        qtest_writeq(f.v->qts, addr, good);
        flush_all(&f);
        check_reason(&f, 0, pasids[i]);
    }
    fix_quit(&f);
}

/* SRT.1: the root table is nowhere */
static void test_root_access(void)
{
    Fix f = fix_new(SECOND);

    qvtd_set_root(f.v, QVTD_HOLE | QVTD_RTADDR_TTM_SCALABLE);
    assert_read_fault(&f, QVTD_SRT_1, 5, IOVA);
    assert_read_fault(&f, QVTD_SRT_1, NONE, IOVA);
    fix_quit(&f);
}

/* SCT.7, SGN.5, SGN.6 and SGN.1: what the request itself has wrong */
static void test_request_faults(void)
{
    Fix f = fix_new(SECOND);

    assert_read_fault(&f, QVTD_SCT_7, 0x8000, IOVA);
    assert_read_fault(&f, QVTD_SCT_7, 0xfffff, IOVA);
    assert_read_fault(&f, QVTD_SGN_5, 5, 1ULL << 48);
    map(&f, f.pgd, IOVA, f.page, QVTD_PTE_R);
    flush_all(&f);
    assert_write_fault(&f, QVTD_SGN_6, 5, IOVA);
    assert_reads(&f, 5, IOVA, 0x600d);
    assert_write_fault(&f, QVTD_SGN_6, 5, IOVA);
    fix_quit(&f);

    f = fix_new(FIRST);
    assert_read_fault(&f, QVTD_SGN_1, 5, 1ULL << 47);
    assert_read_fault(&f, QVTD_SGN_1, 5, 0xffff7ffffffff000ULL);
    assert_read_fault(&f, QVTD_SFS_2, 5, 0xfffffffffffff000ULL);
    map(&f, f.pgd, IOVA, f.page, QVTD_FS_P | QVTD_FS_US);
    flush_all(&f);
    assert_write_fault(&f, QVTD_SGN_6, 5, IOVA);
    assert_reads(&f, 5, IOVA, 0x600d);
    assert_write_fault(&f, QVTD_SGN_6, 5, IOVA);
    fix_quit(&f);
}

/* SFS.11: a table in ROM has flags that cannot be set */
static void test_update_fault(void)
{
    Fix f = fix_new(FIRST);
    uint64_t pgd = qvtd_alloc(f.v, 1), rom = 0, entry, index, pd;
    uint32_t value;

    /* Among the firmware's words there is one that could be an entry */
    for (uint64_t at = 0xfffc0000ULL; !rom && at < 0x100000000ULL; at += 8) {
        entry = qtest_readq(f.v->qts, at);
        if ((entry & 0x800fffff000000a5ULL) == 5) {
            rom = at;
        }
    }
    g_assert_cmphex(rom, !=, 0);
    index = (rom & 0xfff) / 8;
    pd = pte_addr(&f, pgd, index << 12, 2);
    qtest_writeq(f.v->qts, pd, (rom & FRAME) | QVTD_FS_ALL);
    attach(&f, 6, pgd, DID);
    g_assert_false(qvtd_testdev_read(f.t, 6, index << 12, &value));
    assert_fault(&f, QVTD_SFS_11, 6, index << 12, true);
    fix_quit(&f);
}

/* 7.2.1: a record stands for one requester and one of its PASIDs */
static void test_collapse(void)
{
    Fix f = fix_new(SECOND);
    uint64_t iova = IOVA + QVTD_PAGE;
    uint32_t value;

    g_assert_false(qvtd_testdev_read(f.t, 5, iova, &value));
    g_assert_false(qvtd_testdev_read(f.t, 5, iova + QVTD_PAGE, &value));
    g_assert_cmphex(qvtd_readl(f.v, QVTD_FSTS) & QVTD_FSTS_PFO, ==, 0);
    assert_fault(&f, QVTD_SGN_7, 5, iova, true);
    g_assert_false(qvtd_testdev_read(f.t, 5, iova, &value));
    g_assert_false(qvtd_testdev_read(f.t, 0, iova, &value));
    g_assert_cmphex(qvtd_readl(f.v, QVTD_FSTS) & QVTD_FSTS_PFO, ==,
                    QVTD_FSTS_PFO);
    assert_fault(&f, QVTD_SGN_7, 5, iova, true);
    g_assert_false(qvtd_testdev_read(f.t, 0, iova, &value));
    g_assert_false(qvtd_testdev_read(f.t, NONE, iova, &value));
    g_assert_cmphex(qvtd_readl(f.v, QVTD_FSTS) & QVTD_FSTS_PFO, ==,
                    QVTD_FSTS_PFO);
    assert_fault(&f, QVTD_SGN_7, 0, iova, true);
    fix_quit(&f);
}

/* IOMMU_NONE: a probe records nothing */
static void test_probe_fault(void)
{
    Fix f = fix_new(FIRST);
    uint64_t addr;

    g_assert_cmphex(qvtd_testdev_probe(f.t, 5, IOVA + QVTD_PAGE, &addr), ==,
                    0);
    g_assert_cmphex(qvtd_testdev_probe(f.t, 6, IOVA, &addr), ==, 0);
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* --- invalidation --- */

typedef struct FlushCase {
    const char *name;
    uint64_t lo, hi;
    bool with, without;         /* is PASID 5, is RID_PASID flushed? */
} FlushCase;

#define PIOTLB(g, did, pasid) (QVTD_DESC_PIOTLB | QVTD_DESC_GRAN(g) | \
                               QVTD_DESC_DID(did) | QVTD_DESC_PASID(pasid))
#define PC(g, did, pasid) (QVTD_DESC_PC | QVTD_DESC_GRAN(g) | \
                           QVTD_DESC_DID(did) | QVTD_DESC_PASID(pasid))

/* 6.5.2: what each descriptor takes out of the IOTLB */
static const FlushCase flush_cases[] = {
    { "piotlb-pasid", PIOTLB(2, DID, 5), 0, true, false },
    { "piotlb-rid-pasid", PIOTLB(2, DID, 0), 0, false, true },
    { "piotlb-other-domain", PIOTLB(2, DID + 1, 5), 0, false, false },
    { "piotlb-other-pasid", PIOTLB(2, DID, 6), 0, false, false },
    { "piotlb-page", PIOTLB(3, DID, 5), IOVA, true, false },
    { "piotlb-page-hint", PIOTLB(3, DID, 5), IOVA | 0x40, true, false },
    { "piotlb-page-other", PIOTLB(3, DID, 5), IOVA + QVTD_PAGE, false,
      false },
    { "piotlb-page-other-domain", PIOTLB(3, DID + 1, 5), IOVA, false, false },
    { "piotlb-page-am", PIOTLB(3, DID, 5), (IOVA ^ QVTD_PAGE) | 1, true,
      false },
    { "piotlb-page-am-6", PIOTLB(3, DID, 5), (IOVA ^ 0x20000) | 6, true,
      false },
    { "piotlb-page-am-18", PIOTLB(3, DID, 0), (IOVA ^ 0x2000000) | 18, false,
      true },
    { "piotlb-page-am-63", PIOTLB(3, DID, 5), 63, true, false },
    { "iotlb-page", QVTD_DESC_IOTLB | QVTD_DESC_GRAN(3) | QVTD_DESC_DID(DID),
      IOVA, true, true },
    { "iotlb-domain", QVTD_DESC_IOTLB | QVTD_DESC_GRAN(2) |
      QVTD_DESC_DID(DID), 0, true, true },
    { "iotlb-other-domain", QVTD_DESC_IOTLB | QVTD_DESC_GRAN(2) |
      QVTD_DESC_DID(DID + 1), 0, false, false },
    { "iotlb-global", QVTD_DESC_IOTLB | QVTD_DESC_GRAN(1), 0, true, true },
};

static void check_flushed(Fix *f, uint32_t pasid, bool flushed)
{
    assert_reads(f, pasid, IOVA, flushed ? 0x111 : 0x600d);
}

static void run_flush_case(const FlushCase *c, const char *props)
{
    Fix f = fix_new(props);

    check_flushed(&f, 5, false);
    check_flushed(&f, NONE, false);
    map(&f, f.pgd, IOVA, new_page(&f, 0x111), all_bits(&f));
    check_flushed(&f, 5, false);
    check_flushed(&f, NONE, false);
    qvtd_iq_submit(f.v, c->lo, c->hi);
    check_flushed(&f, 5, c->with);
    check_flushed(&f, NONE, c->without);
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

static void test_flush(const void *opaque)
{
    run_flush_case(opaque, FIRST);
    run_flush_case(opaque, SECOND);
}

/* 6.5.2.1, 6.5.2.2: what each descriptor takes out of the other caches */
static const FlushCase cache_cases[] = {
    { "pc-pasid", PC(1, DID, 5), 0, true, false },
    { "pc-rid-pasid", PC(1, DID, 0), 0, false, true },
    { "pc-other-pasid", PC(1, DID, 6), 0, false, false },
    { "pc-other-domain", PC(1, DID + 1, 5), 0, false, false },
    { "pc-domain", PC(0, DID, 0), 0, true, true },
    { "pc-domain-other", PC(0, DID + 1, 0), 0, false, false },
    { "pc-global", PC(3, 0, 0), 0, true, true },
    { "context-global", QVTD_DESC_CC | QVTD_DESC_GRAN(1), 0, true, true },
    { "context-domain", QVTD_DESC_CC | QVTD_DESC_GRAN(2) |
      QVTD_DESC_DID(DID), 0, true, true },
    { "context-device", QVTD_DESC_CC | QVTD_DESC_GRAN(3) |
      QVTD_DESC_CC_SID(SID), 0, true, true },
    { "context-other-device", QVTD_DESC_CC | QVTD_DESC_GRAN(3) |
      QVTD_DESC_CC_SID(SID + 8), 0, false, false },
    { "piotlb-pasid", PIOTLB(2, DID, 5), 0, false, false },
};

static void test_cache_flush(const void *opaque)
{
    const FlushCase *c = opaque;
    Fix f = fix_new(SECOND);
    uint64_t pgd = qvtd_alloc(f.v, 1);

    check_flushed(&f, 5, false);
    check_flushed(&f, NONE, false);
    map(&f, pgd, IOVA, new_page(&f, 0x111), QVTD_PTE_RW);
    attach(&f, 5, pgd, DID);
    attach(&f, 0, pgd, DID);
    /* The IOTLB is out of the way */
    qvtd_iq_submit(f.v, QVTD_DESC_IOTLB | QVTD_DESC_GRAN(1), 0);
    check_flushed(&f, 5, false);
    check_flushed(&f, NONE, false);
    qvtd_iq_submit(f.v, c->lo, c->hi);
    qvtd_iq_submit(f.v, QVTD_DESC_IOTLB | QVTD_DESC_GRAN(1), 0);
    check_flushed(&f, 5, c->with);
    check_flushed(&f, NONE, c->without);
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/*
 * 6.5.2.2: an entry that was not present is not cached, so its first use
 * needs no flush; and a pass-through entry switches in both directions.
 */
static void test_not_present(void)
{
    Fix f = fix_new(SECOND);

    assert_read_fault(&f, QVTD_SPT_2, 7, IOVA);
    attach(&f, 7, f.pgd, DID);
    assert_reads(&f, 7, IOVA, 0x600d);
    fix_quit(&f);
}

typedef struct DescCase {
    const char *name;
    const char *props;
    bool wide;
    uint64_t d[4];
    unsigned error;             /* IQERCD.IQEI, 0: none */
} DescCase;

/* 6.5.2 and 11.4.9.9: descriptors that stop the queue */
static const DescCase desc_cases[] = {
    { "pc-gran-2", SECOND, true, { PC(2, 1, 1) }, 4 },
    { "pc-rsvd-6", SECOND, true, { PC(3, 1, 1) | 0x40 }, 4 },
    { "pc-rsvd-12", SECOND, true, { PC(3, 1, 1) | 0x1000 }, 4 },
    { "pc-rsvd-52", SECOND, true, { PC(3, 1, 1) | 1ULL << 52 }, 4 },
    { "pc-rsvd-63", SECOND, true, { PC(3, 1, 1) | 1ULL << 63 }, 4 },
    { "pc-word-1", SECOND, true, { PC(3, 1, 1), 1 }, 4 },
    { "pc-word-2", SECOND, true, { PC(3, 1, 1), 0, 1 }, 4 },
    { "pc-word-3", SECOND, true, { PC(3, 1, 1), 0, 0, 1ULL << 63 }, 4 },
    { "pc-narrow", SECOND, false, { PC(3, 1, 1) }, 5 },
    { "pc-good", SECOND, true, { PC(1, 0xffff, 0xfffff) }, 0 },
    { "piotlb-gran-0", FIRST, true, { PIOTLB(0, 1, 1) }, 4 },
    { "piotlb-gran-1", FIRST, true, { PIOTLB(1, 1, 1) }, 4 },
    { "piotlb-rsvd-6", FIRST, true, { PIOTLB(2, 1, 1) | 0x40 }, 4 },
    { "piotlb-rsvd-8", FIRST, true, { PIOTLB(2, 1, 1) | 0x100 }, 4 },
    { "piotlb-rsvd-15", FIRST, true, { PIOTLB(2, 1, 1) | 0x8000 }, 4 },
    { "piotlb-rsvd-52", FIRST, true, { PIOTLB(2, 1, 1) | 1ULL << 52 }, 4 },
    { "piotlb-addr-7", FIRST, true, { PIOTLB(3, 1, 1), 0x80 }, 4 },
    { "piotlb-addr-11", FIRST, true, { PIOTLB(3, 1, 1), 0x800 }, 4 },
    { "piotlb-word-2", FIRST, true, { PIOTLB(2, 1, 1), 0, 1 }, 4 },
    { "piotlb-narrow", FIRST, false, { PIOTLB(2, 1, 1) }, 5 },
    { "piotlb-good", FIRST, true, { PIOTLB(3, 0xffff, 0xfffff),
                                    ~0xfffULL | 0x7f }, 0 },
    { "device-tlb-of-pasid", SECOND, true, { QVTD_DESC_PDEV_IOTLB }, 3 },
    { "page-group", SECOND, true, { 9 }, 3 },
    { "pc-legacy", "", false, { PC(3, 1, 1) }, 3 },
    { "piotlb-legacy", "", false, { PIOTLB(2, 1, 1) }, 3 },
    { "cc-word-2", SECOND, true, { QVTD_DESC_CC | QVTD_DESC_GRAN(1), 0, 1 },
      4 },
    { "iotlb-word-3", SECOND, true,
      { QVTD_DESC_IOTLB | QVTD_DESC_GRAN(1), 0, 0, 1 }, 4 },
    { "wait-word-2", SECOND, true, { QVTD_DESC_WAIT, 0, 1 }, 4 },
    { "cc-narrow", SECOND, false, { QVTD_DESC_CC | QVTD_DESC_GRAN(1) }, 0 },
    { "iotlb-wide", SECOND, true, { QVTD_DESC_IOTLB | QVTD_DESC_GRAN(1) },
      0 },
};

static void test_desc(const void *opaque)
{
    const DescCase *c = opaque;
    QVtd *v = qvtd_start(c->props, NULL);

    if (c->wide) {
        qvtd_iq_init_wide(v, 0);
    } else {
        qvtd_iq_init(v, 0);
    }
    for (unsigned i = 0; i < v->iq_width / 8; i++) {
        qtest_writeq(v->qts, v->iq + i * 8, c->d[i]);
    }
    v->iq_tail = 1;
    qvtd_iq_kick(v);
    g_assert_cmpint(qvtd_iq_idle(v), ==, !c->error);
    g_assert_cmphex(qvtd_readl(v, QVTD_FSTS), ==,
                    c->error ? QVTD_FSTS_IQE : 0);
    g_assert_cmphex(qvtd_readq(v, QVTD_IQERCD) & 0xf, ==, c->error);
    qvtd_quit(v);
}

/* 11.4.9.2: with IQA.DW the tail is a multiple of 32, and the queue wraps */
static void test_wide_queue(void)
{
    QVtd *v = qvtd_start(SECOND, NULL);
    uint64_t status = qvtd_alloc(v, 1);

    qvtd_iq_init_wide(v, 0);
    for (uint32_t i = 0; i < 300; i++) {
        qvtd_iq_wait(v, status, i);
        g_assert_cmphex(qtest_readl(v->qts, status), ==, i);
    }
    g_assert_cmphex(qvtd_readq(v, QVTD_IQH), ==, 300 % 128 * 32);
    qvtd_writeq(v, QVTD_IQT, 0x10);
    g_assert_cmphex(qvtd_readl(v, QVTD_FSTS), ==, QVTD_FSTS_IQE);
    g_assert_cmphex(qvtd_readq(v, QVTD_IQERCD) & 0xf, ==, 6);
    qvtd_quit(v);
}

/* --- */

static void add(const char *group, const char *name, const void *data,
                void (*test)(const void *))
{
    g_autofree char *path = g_strdup_printf("/vtd/scalable/%s/%s", group,
                                            name);

    qtest_add_data_func(path, data, test);
}

static void add_stage(const char *stage, const char *props)
{
    add("3.4.3/translation", stage, props, test_translation);
    add("9.4/rid-pasid", stage, props, test_rid_pasid);
    add("3.4.3/pasids", stage, props, test_pasids);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    add_stage("second", SECOND);
    add_stage("first", FIRST);
    add_stage("second-57", SECOND ",aw-bits=57");
    add_stage("first-57", FIRST ",aw-bits=57");
    add("3.6", "5-levels", FIRST ",aw-bits=57", test_5_levels);
    add("3.7", "5-levels", SECOND ",aw-bits=57", test_5_levels);
    qtest_add_func("/vtd/scalable/9.2/upper", test_upper_context);
    qtest_add_func("/vtd/scalable/3.6/page-sizes", test_first_page_sizes);
    qtest_add_func("/vtd/scalable/3.6/no-1g", test_first_no_1g);
    qtest_add_func("/vtd/scalable/3.6.3/flags", test_first_flags);
    qtest_add_func("/vtd/scalable/3.4.3/pass-through", test_pass_through);
    qtest_add_func("/vtd/scalable/3.15/interrupt-range",
                   test_interrupt_range);
    qtest_add_func("/vtd/scalable/11.4.4.1/root-latch", test_root_latch);
    qtest_add_func("/vtd/scalable/11.4.3/pasid-spaces", test_pasid_spaces);
    for (unsigned i = 0; i < ARRAY_SIZE(fault_cases); i++) {
        add("7.1.3", fault_cases[i].name, &fault_cases[i], test_fault);
    }
    qtest_add_func("/vtd/scalable/7.1.3/SRT.1", test_root_access);
    qtest_add_func("/vtd/scalable/7.1.3/request", test_request_faults);
    qtest_add_func("/vtd/scalable/7.1.3/SFS.11", test_update_fault);
    qtest_add_func("/vtd/scalable/7.1.3/probe", test_probe_fault);
    qtest_add_func("/vtd/scalable/7.2.1/collapse", test_collapse);
    for (unsigned i = 0; i < ARRAY_SIZE(flush_cases); i++) {
        add("6.5.2/iotlb", flush_cases[i].name, &flush_cases[i], test_flush);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(cache_cases); i++) {
        add("6.5.2/cache", cache_cases[i].name, &cache_cases[i],
            test_cache_flush);
    }
    qtest_add_func("/vtd/scalable/6.5.2/not-present", test_not_present);
    for (unsigned i = 0; i < ARRAY_SIZE(desc_cases); i++) {
        add("6.5.2/descriptor", desc_cases[i].name, &desc_cases[i],
            test_desc);
    }
    qtest_add_func("/vtd/scalable/11.4.9/wide-queue", test_wide_queue);
    return g_test_run();
}
