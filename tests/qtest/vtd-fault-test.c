/*
 * VT-d: recording of faults and the fault event (VT-d specification, 7.2 to
 * 7.4 and 11.4.7)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "libqos/intel-iommu.h"

#define SID_A   QVTD_SID(0, 4, 0)
#define SID_B   QVTD_SID(0, 5, 0)
#define SID_C   QVTD_SID(0, 5, 1)
#define VECTOR  0x51

/* Three devices, none of which may reach anything */
typedef struct Fix {
    QVtd *v;
    QVtdEdu *a, *b, *c;
    QVtdDomain *d;
} Fix;

static Fix fix_new(const char *props, const char *args)
{
    g_autofree char *all = g_strdup_printf(
        QVTD_EDU ",addr=4 " QVTD_EDU ",addr=5.0,multifunction=on "
        QVTD_EDU ",addr=5.1 %s", args);
    Fix f;

    f.v = qvtd_start(props, all);
    f.a = qvtd_edu(f.v, SID_A);
    f.b = qvtd_edu(f.v, SID_B);
    f.c = qvtd_edu(f.v, SID_C);
    qvtd_tables_init(f.v);
    f.d = qvtd_domain_new(f.v, 1, 4);
    qvtd_attach(f.d, SID_A);
    qvtd_attach(f.d, SID_B);
    qvtd_attach(f.d, SID_C);
    qvtd_gcmd_set(f.v, QVTD_GCMD_TE);
    return f;
}

static void fix_quit(Fix *f)
{
    qvtd_quit(f->v);
    g_free(f->a);
    g_free(f->b);
    g_free(f->c);
    g_free(f->d);
}

static void event_setup(Fix *f, unsigned cpu)
{
    qvtd_writel(f->v, QVTD_FEDATA, VECTOR);
    qvtd_writel(f->v, QVTD_FEADDR, QVTD_MSI_BASE | cpu << 12);
    qvtd_writel(f->v, QVTD_FEUADDR, 0);
    qvtd_writel(f->v, QVTD_FECTL, 0);
    qvtd_assert_reg32(f->v, QVTD_FECTL, 0);
}

/* PV (59:40) means something only together with PP. */
#define NOT_PV  (~MAKE_64BIT_MASK(40, 20))

/* 11.4.7.6: every field of a record */
static void test_record(void)
{
    Fix f = fix_new(NULL, "");
    uint64_t lo, hi;

    qvtd_edu_dma(f.c, 0x123456789abcULL, 4, true);
    lo = qvtd_readq(f.v, f.v->frcd);
    hi = qvtd_readq(f.v, f.v->frcd + 8);
    g_assert_cmphex(lo, ==, 0x123456789000ULL);
    g_assert_cmphex(hi & NOT_PV, ==, QVTD_FRCD_F | QVTD_FRCD_T1 |
                    (uint64_t)QVTD_FR_READ << 32 | SID_C);
    qvtd_assert_reg32(f.v, QVTD_FSTS, QVTD_FSTS_PPF);
    qvtd_clear_faults(f.v);

    qvtd_edu_dma(f.b, 0x7654, 4, false);
    lo = qvtd_readq(f.v, f.v->frcd);
    hi = qvtd_readq(f.v, f.v->frcd + 8);
    g_assert_cmphex(lo, ==, 0x7000);
    g_assert_cmphex(hi & NOT_PV, ==,
                    QVTD_FRCD_F | (uint64_t)QVTD_FR_WRITE << 32 | SID_B);
    fix_quit(&f);
}

/* 11.4.7.6: a record reads the same in halves and quarters. */
static void test_record_access(void)
{
    Fix f = fix_new(NULL, "");

    qvtd_dma_read(f.a, 0x123456789000ULL);
    qvtd_assert_reg32(f.v, f.v->frcd, 0x56789000);
    qvtd_assert_reg32(f.v, f.v->frcd + 4, 0x1234);
    qvtd_assert_reg32(f.v, f.v->frcd + 8, SID_A);
    g_assert_cmphex(qvtd_readl(f.v, f.v->frcd + 12) & (NOT_PV >> 32), ==,
                    (QVTD_FRCD_F | QVTD_FRCD_T1) >> 32 | QVTD_FR_READ);
    fix_quit(&f);
}

/* 11.4.7.6, F: cleared by writing 1 and by nothing else */
static void test_clear(const void *opaque)
{
    bool wide = opaque;
    Fix f = fix_new(NULL, "");
    uint64_t hi;

    qvtd_dma_read(f.a, 0x5000);
    hi = qvtd_readq(f.v, f.v->frcd + 8);
    qvtd_writeq(f.v, f.v->frcd + 8, 0);
    qvtd_writeq(f.v, f.v->frcd, UINT64_MAX);
    qvtd_writel(f.v, f.v->frcd + 8, UINT32_MAX);
    qvtd_writel(f.v, f.v->frcd + 12, 0x7fffffff);
    qvtd_assert_reg64(f.v, f.v->frcd, 0x5000);
    qvtd_assert_reg64(f.v, f.v->frcd + 8, hi);
    qvtd_assert_reg32(f.v, QVTD_FSTS, QVTD_FSTS_PPF);
    if (wide) {
        qvtd_writeq(f.v, f.v->frcd + 8, hi);
    } else {
        qvtd_writel(f.v, f.v->frcd + 12, hi >> 32);
    }
    g_assert_false(qvtd_readq(f.v, f.v->frcd + 8) & QVTD_FRCD_F);
    g_assert_false(qvtd_readl(f.v, QVTD_FSTS) & QVTD_FSTS_PPF);
    fix_quit(&f);
}

/* 11.4.7.1, PPF: the OR of all F bits; writing it does nothing. */
static void test_ppf_read_only(void)
{
    Fix f = fix_new(NULL, "");

    qvtd_dma_read(f.a, 0x5000);
    qvtd_writel(f.v, QVTD_FSTS, QVTD_FSTS_PPF);
    qvtd_assert_reg32(f.v, QVTD_FSTS, QVTD_FSTS_PPF);
    g_assert_true(qvtd_fault(f.v, 0).f);
    fix_quit(&f);
}

/* 7.2.1: no free record: PFO, and the record that is there stays. */
static void test_overflow(void)
{
    Fix f = fix_new(NULL, "");
    QVtdEdu *e[] = { f.a, f.b };
    uint64_t hi;

    for (unsigned i = 0; i < f.v->nfr; i++) {
        qvtd_assert_reg32(f.v, QVTD_FSTS, i ? QVTD_FSTS_PPF : 0);
        qvtd_dma_read(e[i % 2], 0x5000);
    }
    qvtd_assert_reg32(f.v, QVTD_FSTS, QVTD_FSTS_PPF);
    hi = qvtd_readq(f.v, f.v->frcd + 8);
    qvtd_dma_write(f.c, 0x8000);
    qvtd_assert_reg32(f.v, QVTD_FSTS, QVTD_FSTS_PPF | QVTD_FSTS_PFO);
    qvtd_assert_reg64(f.v, f.v->frcd, 0x5000);
    qvtd_assert_reg64(f.v, f.v->frcd + 8, hi);
    fix_quit(&f);
}

/* 11.4.7.1, PFO: cleared by writing 1, not by clearing the records */
static void test_overflow_clear(void)
{
    Fix f = fix_new(NULL, "");

    qvtd_dma_read(f.a, 0x5000);
    qvtd_dma_read(f.b, 0x6000);
    qvtd_writel(f.v, QVTD_FSTS, 0);
    qvtd_assert_reg32(f.v, QVTD_FSTS, QVTD_FSTS_PPF | QVTD_FSTS_PFO);
    qvtd_writel(f.v, f.v->frcd + 12, QVTD_FRCD_F >> 32);
    g_assert_cmphex(qvtd_readl(f.v, QVTD_FSTS) & 3, ==, QVTD_FSTS_PFO);
    qvtd_writel(f.v, QVTD_FSTS, QVTD_FSTS_PFO);
    g_assert_cmphex(qvtd_readl(f.v, QVTD_FSTS) & 3, ==, 0);

    /* and recording goes on */
    qvtd_dma_read(f.c, 0x7000);
    qvtd_assert_fault(f.v, QVTD_FR_READ, SID_C, 0x7000, true);
    fix_quit(&f);
}

/* 7.2.1: with PFO set faults are not recorded, even if there is room. */
static void test_overflow_stops_recording(void)
{
    Fix f = fix_new(NULL, "");

    qvtd_dma_read(f.a, 0x5000);
    qvtd_dma_read(f.b, 0x6000);
    qvtd_writel(f.v, f.v->frcd + 12, QVTD_FRCD_F >> 32);
    qvtd_dma_read(f.c, 0x7000);
    g_assert_false(qvtd_fault(f.v, 0).f);
    g_assert_cmphex(qvtd_readl(f.v, QVTD_FSTS) & 3, ==, QVTD_FSTS_PFO);
    fix_quit(&f);
}

/* 7.2.1: more faults of a recorded requester may or may not be counted. */
static void test_collapse(void)
{
    Fix f = fix_new(NULL, "");
    uint64_t hi;

    qvtd_dma_read(f.a, 0x5000);
    hi = qvtd_readq(f.v, f.v->frcd + 8);
    for (int i = 0; i < 4; i++) {
        qvtd_dma_write(f.a, 0x8000 + i * QVTD_PAGE);
    }
    qvtd_assert_reg64(f.v, f.v->frcd, 0x5000);
    qvtd_assert_reg64(f.v, f.v->frcd + 8, hi);
    g_assert_cmphex(qvtd_readl(f.v, QVTD_FSTS) & ~QVTD_FSTS_PFO, ==,
                    QVTD_FSTS_PPF);
    fix_quit(&f);
}

/* 11.4.7.6: several registers, used in turn; FRI tells the first */
static void test_records(void)
{
    Fix f = fix_new("fault-records=2", "");
    uint32_t second = f.v->frcd + 16;

    g_assert_cmpint(f.v->nfr, ==, 2);
    qvtd_dma_read(f.b, 0x5000);
    qvtd_dma_read(f.a, 0x6000);
    qvtd_assert_reg32(f.v, QVTD_FSTS, QVTD_FSTS_PPF);
    g_assert_cmphex(qvtd_fault(f.v, 0).sid, ==, SID_B);
    g_assert_cmphex(qvtd_fault(f.v, 1).sid, ==, SID_A);
    g_assert_cmphex(qvtd_fault(f.v, 1).info, ==, 0x6000);
    /* the next one to use is the first again, and is not free */
    qvtd_dma_read(f.c, 0x7000);
    qvtd_assert_reg32(f.v, QVTD_FSTS, QVTD_FSTS_PPF | QVTD_FSTS_PFO);

    qvtd_writel(f.v, f.v->frcd + 12, QVTD_FRCD_F >> 32);
    qvtd_assert_reg32(f.v, QVTD_FSTS, QVTD_FSTS_PPF | QVTD_FSTS_PFO);
    qvtd_writel(f.v, second + 12, QVTD_FRCD_F >> 32);
    qvtd_assert_reg32(f.v, QVTD_FSTS, QVTD_FSTS_PFO);
    qvtd_writel(f.v, QVTD_FSTS, QVTD_FSTS_PFO);
    qvtd_assert_reg32(f.v, QVTD_FSTS, 0);

    qvtd_dma_read(f.c, 0x8000);
    g_assert_cmphex(qvtd_fault(f.v, 0).sid, ==, SID_C);
    qvtd_clear_faults(f.v);
    /* this one starts with the second register */
    qvtd_dma_read(f.b, 0x9000);
    qvtd_assert_reg32(f.v, QVTD_FSTS, QVTD_FSTS_PPF | 1 << 8);
    qvtd_assert_fault(f.v, QVTD_FR_READ, SID_B, 0x9000, true);
    fix_quit(&f);
}

/* As many as fit into the page; what follows the last is no register */
static void test_records_most(void)
{
    Fix f = fix_new("fault-records=222", "");
    uint32_t last = f.v->frcd + 221 * 16;

    g_assert_cmpint(f.v->nfr, ==, 222);
    for (unsigned i = 0; i < 222; i++) {
        qvtd_dma_read(f.a, 0x5000);
        g_assert_cmphex(qvtd_fault(f.v, i).sid, ==, SID_A);
        qvtd_clear_faults(f.v);
    }
    g_assert_cmphex(qvtd_readq(f.v, last) & ~0xfffULL, ==, 0x5000);
    g_assert_cmphex(qvtd_readq(f.v, last + 12) >> 32, ==, 0);
    fix_quit(&f);
}

/* One record after another, each read and cleared: none is lost. */
static void test_sequence(void)
{
    Fix f = fix_new(NULL, "");
    QVtdEdu *e[] = { f.a, f.b, f.c };

    for (unsigned i = 0; i < 30; i++) {
        uint64_t iova = 0x1000000 + i * QVTD_PAGE;

        qvtd_edu_dma(e[i % 3], iova, 4, i & 1);
        qvtd_assert_fault(f.v, i & 1 ? QVTD_FR_READ : QVTD_FR_WRITE,
                          e[i % 3]->sid, iova, i & 1);
    }
    fix_quit(&f);
}

/* With translation off there is nothing to fault. */
static void test_disabled(void)
{
    Fix f = fix_new(NULL, "");

    qvtd_gcmd_clear(f.v, QVTD_GCMD_TE);
    qvtd_dma_read(f.a, 0x123456789000ULL);
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* 7.3: the event of a fault is sent to the processor it names. */
static void test_event(const void *opaque)
{
    unsigned cpu = GPOINTER_TO_UINT(opaque);
    Fix f = fix_new(NULL, "-smp 2");

    event_setup(&f, cpu);
    g_assert_false(qvtd_lapic_irr(f.v, cpu, VECTOR));
    qvtd_dma_read(f.a, 0x5000);
    g_assert_true(qvtd_lapic_irr(f.v, cpu, VECTOR));
    g_assert_false(qvtd_lapic_irr(f.v, !cpu, VECTOR));
    qvtd_assert_reg32(f.v, QVTD_FECTL, 0);
    fix_quit(&f);
}

/* 11.4.7.2: masked, the event is held pending; unmasking sends it. */
static void test_event_masked(void)
{
    Fix f = fix_new(NULL, "");

    event_setup(&f, 0);
    qvtd_writel(f.v, QVTD_FECTL, QVTD_ECTL_IM);
    qvtd_dma_read(f.a, 0x5000);
    qvtd_assert_reg32(f.v, QVTD_FECTL, QVTD_ECTL_IM | QVTD_ECTL_IP);
    g_assert_false(qvtd_lapic_irr(f.v, 0, VECTOR));
    qvtd_writel(f.v, QVTD_FECTL, 0);
    qvtd_assert_reg32(f.v, QVTD_FECTL, 0);
    g_assert_true(qvtd_lapic_irr(f.v, 0, VECTOR));
    fix_quit(&f);
}

/* 11.4.7.2, IP: read-only for software */
static void test_event_pending_read_only(void)
{
    Fix f = fix_new(NULL, "");

    event_setup(&f, 0);
    qvtd_writel(f.v, QVTD_FECTL, QVTD_ECTL_IM | QVTD_ECTL_IP);
    qvtd_assert_reg32(f.v, QVTD_FECTL, QVTD_ECTL_IM);
    qvtd_dma_read(f.a, 0x5000);
    qvtd_writel(f.v, QVTD_FECTL, QVTD_ECTL_IM);
    qvtd_assert_reg32(f.v, QVTD_FECTL, QVTD_ECTL_IM | QVTD_ECTL_IP);
    g_assert_false(qvtd_lapic_irr(f.v, 0, VECTOR));
    fix_quit(&f);
}

/* 11.4.7.2: IP goes when software has serviced the cause while masked. */
static void test_event_serviced(void)
{
    Fix f = fix_new(NULL, "");

    event_setup(&f, 0);
    qvtd_writel(f.v, QVTD_FECTL, QVTD_ECTL_IM);
    qvtd_dma_read(f.a, 0x5000);
    qvtd_dma_read(f.b, 0x5000);
    g_assert_true(qvtd_readl(f.v, QVTD_FECTL) & QVTD_ECTL_IP);
    /* PFO is left: still something to service */
    qvtd_writel(f.v, f.v->frcd + 12, QVTD_FRCD_F >> 32);
    g_assert_true(qvtd_readl(f.v, QVTD_FECTL) & QVTD_ECTL_IP);
    qvtd_writel(f.v, QVTD_FSTS, QVTD_FSTS_PFO);
    qvtd_assert_reg32(f.v, QVTD_FECTL, QVTD_ECTL_IM);
    qvtd_writel(f.v, QVTD_FECTL, 0);
    g_assert_false(qvtd_lapic_irr(f.v, 0, VECTOR));
    fix_quit(&f);
}

/* The other order: PFO first, then the record */
static void test_event_serviced_record_last(void)
{
    Fix f = fix_new(NULL, "");

    event_setup(&f, 0);
    qvtd_writel(f.v, QVTD_FECTL, QVTD_ECTL_IM);
    qvtd_dma_read(f.a, 0x5000);
    qvtd_dma_read(f.b, 0x5000);
    qvtd_writel(f.v, QVTD_FSTS, QVTD_FSTS_PFO);
    g_assert_true(qvtd_readl(f.v, QVTD_FECTL) & QVTD_ECTL_IP);
    qvtd_writel(f.v, f.v->frcd + 12, QVTD_FRCD_F >> 32);
    qvtd_assert_reg32(f.v, QVTD_FECTL, QVTD_ECTL_IM);
    qvtd_writel(f.v, QVTD_FECTL, 0);
    g_assert_false(qvtd_lapic_irr(f.v, 0, VECTOR));
    fix_quit(&f);
}

/* 7.3: while a status is pending another one makes no second event. */
static void test_event_once(void)
{
    Fix f = fix_new(NULL, "");

    event_setup(&f, 0);
    qvtd_dma_read(f.a, 0x5000);
    g_assert_true(qvtd_lapic_irr(f.v, 0, VECTOR));
    qvtd_writel(f.v, QVTD_FECTL, QVTD_ECTL_IM);
    qvtd_dma_read(f.b, 0x5000);
    qvtd_assert_reg32(f.v, QVTD_FSTS, QVTD_FSTS_PPF | QVTD_FSTS_PFO);
    qvtd_assert_reg32(f.v, QVTD_FECTL, QVTD_ECTL_IM);
    fix_quit(&f);
}

/* 7.3: after everything was cleared the next fault is a new event. */
static void test_event_again(void)
{
    Fix f = fix_new(NULL, "");

    event_setup(&f, 0);
    qvtd_dma_read(f.a, 0x5000);
    qvtd_clear_faults(f.v);
    qvtd_writel(f.v, QVTD_FEDATA, VECTOR + 1);
    g_assert_false(qvtd_lapic_irr(f.v, 0, VECTOR + 1));
    qvtd_dma_read(f.a, 0x5000);
    g_assert_true(qvtd_lapic_irr(f.v, 0, VECTOR + 1));
    fix_quit(&f);
}

/* 5.1: interrupts of the unit itself are not subject to remapping. */
static void test_event_not_remapped(void)
{
    Fix f = fix_new("intremap=on,eim=off", "");

    qvtd_ir_init(f.v, 7, false);
    event_setup(&f, 0);
    qvtd_dma_read(f.a, 0x5000);
    g_assert_true(qvtd_lapic_irr(f.v, 0, VECTOR));
    qvtd_assert_fault(f.v, QVTD_FR_READ, SID_A, 0x5000, true);
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/vtd/fault/11.4.7.6/record", test_record);
    qtest_add_func("/vtd/fault/11.4.7.6/access", test_record_access);
    qtest_add_data_func("/vtd/fault/11.4.7.6/clear", NULL, test_clear);
    qtest_add_data_func("/vtd/fault/11.4.7.6/clear-wide", "wide", test_clear);
    qtest_add_func("/vtd/fault/11.4.7.1/ppf", test_ppf_read_only);
    qtest_add_func("/vtd/fault/7.2.1/overflow", test_overflow);
    qtest_add_func("/vtd/fault/7.2.1/overflow-clear", test_overflow_clear);
    qtest_add_func("/vtd/fault/7.2.1/overflow-stops-recording",
                   test_overflow_stops_recording);
    qtest_add_func("/vtd/fault/7.2.1/collapse", test_collapse);
    qtest_add_func("/vtd/fault/7.2.1/records", test_records);
    qtest_add_func("/vtd/fault/7.2.1/records-most", test_records_most);
    qtest_add_func("/vtd/fault/7.2.1/sequence", test_sequence);
    qtest_add_func("/vtd/fault/7.2.1/disabled", test_disabled);
    qtest_add_data_func("/vtd/fault/7.3/event", GUINT_TO_POINTER(0),
                        test_event);
    qtest_add_data_func("/vtd/fault/7.3/event-cpu-1", GUINT_TO_POINTER(1),
                        test_event);
    qtest_add_func("/vtd/fault/11.4.7.2/masked", test_event_masked);
    qtest_add_func("/vtd/fault/11.4.7.2/pending-read-only",
                   test_event_pending_read_only);
    qtest_add_func("/vtd/fault/11.4.7.2/serviced", test_event_serviced);
    qtest_add_func("/vtd/fault/11.4.7.2/serviced-record-last",
                   test_event_serviced_record_last);
    qtest_add_func("/vtd/fault/7.3/once", test_event_once);
    qtest_add_func("/vtd/fault/7.3/again", test_event_again);
    qtest_add_func("/vtd/fault/5.1/not-remapped", test_event_not_remapped);
    return g_test_run();
}
