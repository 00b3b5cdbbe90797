/*
 * VT-d: the invalidation queue (VT-d specification, 6.5.2 and 11.4.9)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "libqos/intel-iommu.h"

#define VECTOR          0x61
#define FAULT_VECTOR    0x62

typedef struct Fix {
    QVtd *v;
    uint64_t status;
} Fix;

static Fix fix_new(const char *props, unsigned qs)
{
    Fix f;

    f.v = qvtd_start(props, NULL);
    qvtd_tables_init(f.v);
    f.status = qvtd_alloc(f.v, 1);
    qvtd_iq_init(f.v, qs);
    return f;
}

static uint32_t status(Fix *f)
{
    return qtest_readl(f->v->qts, f->status);
}

static uint64_t wait_lo(uint32_t data)
{
    return QVTD_DESC_WAIT | QVTD_DESC_WAIT_SW | QVTD_DESC_WAIT_DATA(data);
}

static void assert_no_error(Fix *f)
{
    qvtd_assert_reg32(f->v, QVTD_FSTS, 0);
}

static void fix_quit(Fix *f)
{
    qvtd_quit(f->v);
}

static void event_setup(Fix *f)
{
    qvtd_writel(f->v, QVTD_IEDATA, VECTOR);
    qvtd_writel(f->v, QVTD_IEADDR, QVTD_MSI_BASE);
    qvtd_writel(f->v, QVTD_IEUADDR, 0);
    qvtd_writel(f->v, QVTD_IECTL, 0);
    qvtd_assert_reg32(f->v, QVTD_IECTL, 0);
    qvtd_writel(f->v, QVTD_FEDATA, FAULT_VECTOR);
    qvtd_writel(f->v, QVTD_FEADDR, QVTD_MSI_BASE);
    qvtd_writel(f->v, QVTD_FECTL, 0);
}

/* --- the ring --- */

/* 6.5.2: enabled with the head at 0; disabled and enabled, again at 0 */
static void test_enable(void)
{
    Fix f = fix_new(NULL, 0);

    qvtd_assert_reg64(f.v, QVTD_IQH, 0);
    for (int i = 0; i < 3; i++) {
        qvtd_iq_wait(f.v, f.status, i);
    }
    qvtd_assert_reg64(f.v, QVTD_IQH, 3 << 4);
    qvtd_iq_disable(f.v);
    qvtd_iq_init(f.v, 1);
    qvtd_assert_reg64(f.v, QVTD_IQH, 0);
    qvtd_iq_wait(f.v, f.status, 77);
    g_assert_cmpint(status(&f), ==, 77);
    assert_no_error(&f);
    fix_quit(&f);
}

/* 6.5.2.8: status data is written to the status address, and only there. */
static void test_wait(void)
{
    Fix f = fix_new(NULL, 0);

    qtest_memset(f.v->qts, f.status, 0x5a, 16);
    qvtd_iq_submit(f.v, wait_lo(0xcafe1234), f.status + 4);
    g_assert_cmphex(qtest_readl(f.v->qts, f.status), ==, 0x5a5a5a5a);
    g_assert_cmphex(qtest_readl(f.v->qts, f.status + 4), ==, 0xcafe1234);
    g_assert_cmphex(qtest_readl(f.v->qts, f.status + 8), ==, 0x5a5a5a5a);
    assert_no_error(&f);
    fix_quit(&f);
}

/* 6.5.2.8: neither status write nor interrupt: nothing happens, no error. */
static void test_wait_bare(void)
{
    Fix f = fix_new(NULL, 0);

    event_setup(&f);
    qvtd_iq_submit(f.v, QVTD_DESC_WAIT | QVTD_DESC_WAIT_FN |
                   QVTD_DESC_WAIT_DATA(0x77), 0);
    qvtd_assert_reg32(f.v, QVTD_ICS, 0);
    g_assert_false(qvtd_lapic_irr(f.v, 0, VECTOR));
    assert_no_error(&f);
    fix_quit(&f);
}

/* 11.4.9.1 and 11.4.9.2: head and tail wrap at the size of the queue. */
static void test_wrap(const void *opaque)
{
    unsigned qs = GPOINTER_TO_UINT(opaque);
    Fix f = fix_new(NULL, qs);
    unsigned slots = 256 << qs;
    unsigned chunk = slots - 3;

    for (unsigned i = 1; i <= 5; i++) {
        for (unsigned j = 1; j < chunk; j++) {
            qvtd_iq_put(f.v, QVTD_DESC_IOTLB |
                        QVTD_DESC_GRAN(QVTD_GRAN_DOMAIN) | QVTD_DESC_DID(j),
                        0);
        }
        qvtd_iq_put(f.v, wait_lo(i), f.status);
        qvtd_iq_kick(f.v);
        g_assert_true(qvtd_iq_idle(f.v));
        g_assert_cmpint(status(&f), ==, i);
        qvtd_assert_reg64(f.v, QVTD_IQH, (i * chunk % slots) << 4);
    }
    assert_no_error(&f);
    fix_quit(&f);
}

/* One descriptor at a time, once around */
static void test_wrap_single(void)
{
    Fix f = fix_new(NULL, 0);

    for (unsigned i = 1; i <= 600; i++) {
        qvtd_iq_wait(f.v, f.status, i);
        g_assert_cmpint(status(&f), ==, i);
    }
    qvtd_assert_reg64(f.v, QVTD_IQH, (600 % 256) << 4);
    assert_no_error(&f);
    fix_quit(&f);
}

/* 6.5.2.8: everything before a wait is done before its status is written. */
static void test_order(void)
{
    Fix f = fix_new(NULL, 0);

    for (unsigned i = 0; i < 20; i++) {
        qvtd_iq_put(f.v, QVTD_DESC_CC | QVTD_DESC_GRAN(QVTD_GRAN_GLOBAL), 0);
        qvtd_iq_put(f.v, wait_lo(i + 1) | QVTD_DESC_WAIT_FN,
                    f.status + i * 4);
    }
    qvtd_iq_kick(f.v);
    g_assert_true(qvtd_iq_idle(f.v));
    for (unsigned i = 0; i < 20; i++) {
        g_assert_cmpint(qtest_readl(f.v->qts, f.status + i * 4), ==, i + 1);
    }
    fix_quit(&f);
}

/* Descriptors are read when the tail moves, not when the queue is enabled. */
static void test_not_beyond_tail(void)
{
    Fix f = fix_new(NULL, 0);

    qvtd_iq_put(f.v, wait_lo(1), f.status);
    qvtd_iq_kick(f.v);
    qvtd_iq_put(f.v, wait_lo(2), f.status);
    g_assert_cmpint(status(&f), ==, 1);
    qvtd_assert_reg64(f.v, QVTD_IQH, 1 << 4);
    qvtd_iq_kick(f.v);
    g_assert_true(qvtd_iq_idle(f.v));
    g_assert_cmpint(status(&f), ==, 2);
    fix_quit(&f);
}

/* --- the invalidation event --- */

/* 6.5.2.8 and 11.4.9.4: IF sets IWC and sends the event. */
static void test_event(void)
{
    Fix f = fix_new(NULL, 0);

    event_setup(&f);
    qvtd_iq_submit(f.v, QVTD_DESC_WAIT | QVTD_DESC_WAIT_IF, 0);
    qvtd_assert_reg32(f.v, QVTD_ICS, QVTD_ICS_IWC);
    g_assert_true(qvtd_lapic_irr(f.v, 0, VECTOR));
    qvtd_assert_reg32(f.v, QVTD_IECTL, 0);
    qvtd_writel(f.v, QVTD_ICS, 0);
    qvtd_assert_reg32(f.v, QVTD_ICS, QVTD_ICS_IWC);
    qvtd_writel(f.v, QVTD_ICS, QVTD_ICS_IWC);
    qvtd_assert_reg32(f.v, QVTD_ICS, 0);
    fix_quit(&f);
}

static void test_event_masked(void)
{
    Fix f = fix_new(NULL, 0);

    event_setup(&f);
    qvtd_writel(f.v, QVTD_IECTL, QVTD_ECTL_IM);
    qvtd_iq_submit(f.v, QVTD_DESC_WAIT | QVTD_DESC_WAIT_IF, 0);
    qvtd_assert_reg32(f.v, QVTD_ICS, QVTD_ICS_IWC);
    qvtd_assert_reg32(f.v, QVTD_IECTL, QVTD_ECTL_IM | QVTD_ECTL_IP);
    g_assert_false(qvtd_lapic_irr(f.v, 0, VECTOR));
    qvtd_writel(f.v, QVTD_IECTL, 0);
    qvtd_assert_reg32(f.v, QVTD_IECTL, 0);
    g_assert_true(qvtd_lapic_irr(f.v, 0, VECTOR));
    fix_quit(&f);
}

/* 11.4.9.6, IP: goes when IWC is cleared while masked */
static void test_event_serviced(void)
{
    Fix f = fix_new(NULL, 0);

    event_setup(&f);
    qvtd_writel(f.v, QVTD_IECTL, QVTD_ECTL_IM);
    qvtd_iq_submit(f.v, QVTD_DESC_WAIT | QVTD_DESC_WAIT_IF, 0);
    qvtd_writel(f.v, QVTD_ICS, QVTD_ICS_IWC);
    qvtd_assert_reg32(f.v, QVTD_ICS, 0);
    qvtd_assert_reg32(f.v, QVTD_IECTL, QVTD_ECTL_IM);
    qvtd_writel(f.v, QVTD_IECTL, 0);
    g_assert_false(qvtd_lapic_irr(f.v, 0, VECTOR));
    fix_quit(&f);
}

/* 11.4.9.4: while IWC is set another wait makes no second event. */
static void test_event_once(void)
{
    Fix f = fix_new(NULL, 0);

    event_setup(&f);
    qvtd_iq_submit(f.v, QVTD_DESC_WAIT | QVTD_DESC_WAIT_IF, 0);
    qvtd_writel(f.v, QVTD_IECTL, QVTD_ECTL_IM);
    qvtd_iq_submit(f.v, QVTD_DESC_WAIT | QVTD_DESC_WAIT_IF, 0);
    qvtd_assert_reg32(f.v, QVTD_IECTL, QVTD_ECTL_IM);
    qvtd_writel(f.v, QVTD_ICS, QVTD_ICS_IWC);
    qvtd_iq_submit(f.v, QVTD_DESC_WAIT | QVTD_DESC_WAIT_IF, 0);
    qvtd_assert_reg32(f.v, QVTD_IECTL, QVTD_ECTL_IM | QVTD_ECTL_IP);
    fix_quit(&f);
}

/* Status write and interrupt together */
static void test_event_and_status(void)
{
    Fix f = fix_new(NULL, 0);

    event_setup(&f);
    qvtd_iq_submit(f.v, wait_lo(9) | QVTD_DESC_WAIT_IF, f.status);
    g_assert_cmpint(status(&f), ==, 9);
    g_assert_true(qvtd_lapic_irr(f.v, 0, VECTOR));
    fix_quit(&f);
}

/* --- descriptors --- */

typedef struct Descriptor {
    const char *path;
    const char *props;
    uint64_t lo, hi;
} Descriptor;

#define CC(g)       (QVTD_DESC_CC | QVTD_DESC_GRAN(g))
#define IOTLB(g)    (QVTD_DESC_IOTLB | QVTD_DESC_GRAN(g))

static const Descriptor valid[] = {
    { "context-global", NULL, CC(1), 0 },
    { "context-domain", NULL, CC(2) | QVTD_DESC_DID(0xffff), 0 },
    { "context-device", NULL, CC(3) | QVTD_DESC_DID(1) |
      QVTD_DESC_CC_SID(0xffff) | QVTD_DESC_CC_FM(3), 0 },
    { "iotlb-global", NULL, IOTLB(1), 0 },
    { "iotlb-domain", NULL, IOTLB(2) | QVTD_DESC_DID(0xffff), 0 },
    { "iotlb-page", NULL, IOTLB(3) | QVTD_DESC_DID(1) | QVTD_DESC_IOTLB_DW |
      QVTD_DESC_IOTLB_DR, 0xffffffff000ULL | QVTD_IVA_IH },
    { "iotlb-page-mask", NULL, IOTLB(3), QVTD_IVA_AM(18) },
    { "iec-global", "intremap=on", QVTD_DESC_IEC, 0 },
    { "iec-index", "intremap=on", QVTD_DESC_IEC | QVTD_DESC_IEC_INDEX |
      QVTD_DESC_IEC_IM(15) | QVTD_DESC_IEC_IIDX(0xffff), 0 },
    { "device-iotlb", "device-iotlb=on", QVTD_DESC_DEV_IOTLB |
      QVTD_DESC_DEV_SID(0x20), 0x5000 },
    { "device-iotlb-size", "device-iotlb=on", QVTD_DESC_DEV_IOTLB |
      QVTD_DESC_DEV_SID(0x20) | 0x1f << 16, 0x7ffffffffffff001ULL },
    { "wait-bare", NULL, QVTD_DESC_WAIT, 0 },
    { "wait-fence", NULL, QVTD_DESC_WAIT | QVTD_DESC_WAIT_FN, 0 },
};

static void test_valid(const void *opaque)
{
    const Descriptor *d = opaque;
    Fix f = fix_new(d->props, 0);

    qvtd_iq_put(f.v, d->lo, d->hi);
    qvtd_iq_wait(f.v, f.status, 5);
    g_assert_cmpint(status(&f), ==, 5);
    assert_no_error(&f);
    fix_quit(&f);
}

/*
 * What is an error (6.5.2.10): types that legacy mode does not have,
 * granularities and bits that are reserved.
 */
static const Descriptor invalid[] = {
    { "type-0", NULL, 0, 0 },
    { "type-6", NULL, 0x6, 0 },
    { "type-7", NULL, 0x7, 0 },
    { "type-a", NULL, 0xa, 0 },
    { "type-f", NULL, 0xf, 0 },
    { "type-ones", NULL, UINT64_MAX, UINT64_MAX },
    { "context-granularity-0", NULL, CC(0), 0 },
    { "context-bit-6", NULL, CC(1) | BIT_ULL(6), 0 },
    { "context-bit-15", NULL, CC(1) | BIT_ULL(15), 0 },
    { "context-bit-50", NULL, CC(1) | BIT_ULL(50), 0 },
    { "context-bit-64", NULL, CC(1), BIT_ULL(0) },
    { "context-bit-127", NULL, CC(1), BIT_ULL(63) },
    { "iotlb-granularity-0", NULL, IOTLB(0), 0 },
    { "iotlb-bit-8", NULL, IOTLB(1) | BIT_ULL(8), 0 },
    { "iotlb-bit-15", NULL, IOTLB(1) | BIT_ULL(15), 0 },
    { "iotlb-bit-32", NULL, IOTLB(1) | BIT_ULL(32), 0 },
    { "iotlb-bit-63", NULL, IOTLB(1) | BIT_ULL(63), 0 },
    { "iotlb-bit-71", NULL, IOTLB(3), BIT_ULL(7) },
    { "iotlb-bit-75", NULL, IOTLB(3), BIT_ULL(11) },
    { "iec-bit-5", "intremap=on", QVTD_DESC_IEC | BIT_ULL(5), 0 },
    { "iec-bit-26", "intremap=on", QVTD_DESC_IEC | BIT_ULL(26), 0 },
    { "iec-bit-48", "intremap=on", QVTD_DESC_IEC | BIT_ULL(48), 0 },
    { "iec-bit-64", "intremap=on", QVTD_DESC_IEC, BIT_ULL(0) },
    { "wait-bit-8", NULL, QVTD_DESC_WAIT | BIT_ULL(8), 0 },
    { "wait-bit-31", NULL, QVTD_DESC_WAIT | BIT_ULL(31), 0 },
    { "wait-bit-64", NULL, QVTD_DESC_WAIT | QVTD_DESC_WAIT_SW, BIT_ULL(0) },
    { "wait-bit-65", NULL, QVTD_DESC_WAIT | QVTD_DESC_WAIT_SW, BIT_ULL(1) },
    { "device-iotlb-bit-4", "device-iotlb=on",
      QVTD_DESC_DEV_IOTLB | BIT_ULL(4), 0 },
    { "device-iotlb-bit-65", "device-iotlb=on", QVTD_DESC_DEV_IOTLB,
      BIT_ULL(1) },
};

/* Put something harmless in place of a bad descriptor, and clear the error. */
static void repair(Fix *f, uint64_t slot)
{
    qtest_writeq(f->v->qts, slot + 8, f->status + 0x100);
    qtest_writeq(f->v->qts, slot, wait_lo(0));
    qvtd_writel(f->v, QVTD_FSTS, QVTD_FSTS_IQE);
}

/*
 * 6.5.2.10: IQE; the head stays at the bad descriptor, and nothing behind it
 * is done, also when the tail moves, until IQE has been cleared.  With the
 * descriptor replaced the queue then goes on.
 */
static void test_invalid(const void *opaque)
{
    const Descriptor *d = opaque;
    Fix f = fix_new(d->props, 0);
    uint64_t slot;

    event_setup(&f);
    qvtd_iq_wait(f.v, f.status, 1);
    slot = f.v->iq + f.v->iq_tail * 16;
    qvtd_iq_put(f.v, d->lo, d->hi);
    qvtd_iq_put(f.v, wait_lo(2), f.status);
    qvtd_iq_kick(f.v);
    qvtd_assert_reg32(f.v, QVTD_FSTS, QVTD_FSTS_IQE);
    qvtd_assert_reg64(f.v, QVTD_IQH, 1 << 4);
    g_assert_cmpint(status(&f), ==, 1);
    g_assert_true(qvtd_lapic_irr(f.v, 0, FAULT_VECTOR));

    qvtd_iq_put(f.v, wait_lo(3), f.status + 4);
    qvtd_iq_kick(f.v);
    qvtd_assert_reg64(f.v, QVTD_IQH, 1 << 4);
    g_assert_cmpint(status(&f), ==, 1);

    repair(&f, slot);
    qvtd_iq_kick(f.v);
    g_assert_true(qvtd_iq_idle(f.v));
    g_assert_cmpint(status(&f), ==, 2);
    g_assert_cmpint(qtest_readl(f.v->qts, f.status + 4), ==, 3);
    assert_no_error(&f);
    fix_quit(&f);
}

/* 6.5.2.10: clearing IQE is enough to make the queue go on. */
static void test_resume(void)
{
    Fix f = fix_new(NULL, 0);
    uint64_t slot = f.v->iq;

    qvtd_iq_put(f.v, 0, 0);
    qvtd_iq_put(f.v, wait_lo(2), f.status);
    qvtd_iq_kick(f.v);
    qvtd_assert_reg32(f.v, QVTD_FSTS, QVTD_FSTS_IQE);
    repair(&f, slot);
    g_assert_true(qvtd_iq_idle(f.v));
    g_assert_cmpint(status(&f), ==, 2);
    assert_no_error(&f);
    fix_quit(&f);
}

/* The bad descriptor is still there: the error comes back. */
static void test_invalid_again(void)
{
    Fix f = fix_new(NULL, 0);

    qvtd_iq_put(f.v, 0, 0);
    qvtd_iq_put(f.v, wait_lo(2), f.status);
    qvtd_iq_kick(f.v);
    for (int i = 0; i < 3; i++) {
        qvtd_assert_reg32(f.v, QVTD_FSTS, QVTD_FSTS_IQE);
        qvtd_writel(f.v, QVTD_FSTS, QVTD_FSTS_IQE);
        qvtd_iq_kick(f.v);
    }
    qvtd_assert_reg32(f.v, QVTD_FSTS, QVTD_FSTS_IQE);
    qvtd_assert_reg64(f.v, QVTD_IQH, 0);
    g_assert_cmpint(status(&f), ==, 0);
    fix_quit(&f);
}

/* 11.4.7.1, IQE: cleared by writing 1, not by writing 0 or other bits */
static void test_iqe_w1c(void)
{
    Fix f = fix_new(NULL, 0);

    qvtd_iq_put(f.v, 0, 0);
    qvtd_iq_kick(f.v);
    qvtd_writel(f.v, QVTD_FSTS, 0);
    qvtd_writel(f.v, QVTD_FSTS, QVTD_FSTS_PFO | QVTD_FSTS_ICE |
                QVTD_FSTS_ITE);
    qvtd_assert_reg32(f.v, QVTD_FSTS, QVTD_FSTS_IQE);
    fix_quit(&f);
}

/* 11.4.7.2: masked, the event of IQE is pending, and IP goes with IQE. */
static void test_iqe_event_masked(void)
{
    Fix f = fix_new(NULL, 0);

    event_setup(&f);
    qvtd_writel(f.v, QVTD_FECTL, QVTD_ECTL_IM);
    qvtd_iq_put(f.v, 0, 0);
    qvtd_iq_kick(f.v);
    qvtd_assert_reg32(f.v, QVTD_FECTL, QVTD_ECTL_IM | QVTD_ECTL_IP);
    repair(&f, f.v->iq);
    qvtd_assert_reg32(f.v, QVTD_FECTL, QVTD_ECTL_IM);
    qvtd_writel(f.v, QVTD_FECTL, 0);
    g_assert_false(qvtd_lapic_irr(f.v, 0, FAULT_VECTOR));
    fix_quit(&f);
}

/* After an error the queue can be disabled and set up anew. */
static void test_restart_after_error(void)
{
    Fix f = fix_new(NULL, 0);

    qvtd_iq_put(f.v, 0, 0);
    qvtd_iq_kick(f.v);
    qvtd_assert_reg32(f.v, QVTD_FSTS, QVTD_FSTS_IQE);
    repair(&f, f.v->iq);
    qvtd_iq_disable(f.v);
    qvtd_iq_init(f.v, 2);
    qvtd_iq_wait(f.v, f.status, 8);
    g_assert_cmpint(status(&f), ==, 8);
    assert_no_error(&f);
    fix_quit(&f);
}

/* 11.4.9.2: a tail beyond the queue's size is an error. */
static void test_tail_beyond(void)
{
    Fix f = fix_new(NULL, 0);

    qvtd_writeq(f.v, QVTD_IQT, 256 << 4);
    g_assert_true(qvtd_readl(f.v, QVTD_FSTS) & QVTD_FSTS_IQE);
    g_assert_cmpint(qvtd_readq(f.v, QVTD_IQERCD) & 0xf, ==, 1);
    qvtd_assert_reg64(f.v, QVTD_IQH, 0);
    qvtd_writeq(f.v, QVTD_IQT, 0);
    qvtd_writel(f.v, QVTD_FSTS, QVTD_FSTS_IQE);
    assert_no_error(&f);
    qvtd_iq_wait(f.v, f.status, 8);
    g_assert_cmpint(status(&f), ==, 8);
    fix_quit(&f);
}

/* 6.5.2.10: descriptors that cannot be fetched */
static void test_unreachable(void)
{
    QVtd *v = qvtd_start(NULL, NULL);

    qvtd_writeq(v, QVTD_IQT, 0);
    qvtd_writeq(v, QVTD_IQA, QVTD_HOLE);
    qvtd_gcmd_set(v, QVTD_GCMD_QIE);
    qvtd_writeq(v, QVTD_IQT, 1 << 4);
    qvtd_assert_reg32(v, QVTD_FSTS, QVTD_FSTS_IQE);
    qvtd_assert_reg64(v, QVTD_IQH, 0);
    qvtd_quit(v);
}

/* --- beside the queue --- */

/*
 * 6.5.2: software must not mix the two interfaces.  Whatever the unit makes
 * of it, it ends, and the queue goes on.
 */
static void test_register_while_enabled(void)
{
    Fix f = fix_new(NULL, 0);

    qvtd_writeq(f.v, QVTD_CCMD, QVTD_CCMD_ICC | QVTD_CCMD_CIRG(1));
    qvtd_writeq(f.v, f.v->iotlb + 8, QVTD_IOTLB_IVT | QVTD_IOTLB_IIRG(1));
    qvtd_iq_wait(f.v, f.status, 4);
    g_assert_cmpint(status(&f), ==, 4);
    fix_quit(&f);
}

/*
 * Without ECAP.DT there are no device IOTLBs to invalidate: done or an
 * error, the queue can be used afterwards.
 */
static void test_device_iotlb_off(void)
{
    Fix f = fix_new("device-iotlb=off", 0);
    uint64_t slot = f.v->iq;

    qvtd_iq_put(f.v, QVTD_DESC_DEV_IOTLB | QVTD_DESC_DEV_SID(0x20), 0x5000);
    qvtd_iq_put(f.v, wait_lo(6), f.status);
    qvtd_iq_kick(f.v);
    if (qvtd_readl(f.v, QVTD_FSTS) & QVTD_FSTS_IQE) {
        repair(&f, slot);
        qvtd_iq_kick(f.v);
    }
    g_assert_true(qvtd_iq_idle(f.v));
    g_assert_cmpint(status(&f), ==, 6);
    assert_no_error(&f);
    fix_quit(&f);
}

/* A status address where nothing is: done or an error, not the end */
static void test_wait_nowhere(void)
{
    Fix f = fix_new(NULL, 0);
    uint64_t slot = f.v->iq;

    qvtd_iq_put(f.v, wait_lo(1), QVTD_HOLE);
    qvtd_iq_kick(f.v);
    if (qvtd_readl(f.v, QVTD_FSTS) & QVTD_FSTS_IQE) {
        repair(&f, slot);
    }
    qvtd_iq_wait(f.v, f.status, 2);
    g_assert_cmpint(status(&f), ==, 2);
    fix_quit(&f);
}

static void add_tables(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(valid); i++) {
        g_autofree char *path =
            g_strdup_printf("/vtd/queue/6.5.2/valid/%s", valid[i].path);

        qtest_add_data_func(path, &valid[i], test_valid);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(invalid); i++) {
        g_autofree char *path =
            g_strdup_printf("/vtd/queue/6.5.2.10/%s", invalid[i].path);

        qtest_add_data_func(path, &invalid[i], test_invalid);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/vtd/queue/6.5.2/enable", test_enable);
    qtest_add_func("/vtd/queue/6.5.2.8/status", test_wait);
    qtest_add_func("/vtd/queue/6.5.2.8/bare", test_wait_bare);
    qtest_add_func("/vtd/queue/6.5.2.8/order", test_order);
    qtest_add_func("/vtd/queue/6.5.2.8/nowhere", test_wait_nowhere);
    qtest_add_data_func("/vtd/queue/11.4.9/wrap-256", GUINT_TO_POINTER(0),
                        test_wrap);
    qtest_add_data_func("/vtd/queue/11.4.9/wrap-1024", GUINT_TO_POINTER(2),
                        test_wrap);
    qtest_add_func("/vtd/queue/11.4.9/wrap-single", test_wrap_single);
    qtest_add_func("/vtd/queue/11.4.9/not-beyond-tail",
                   test_not_beyond_tail);
    qtest_add_func("/vtd/queue/11.4.9.4/event", test_event);
    qtest_add_func("/vtd/queue/11.4.9.6/masked", test_event_masked);
    qtest_add_func("/vtd/queue/11.4.9.6/serviced", test_event_serviced);
    qtest_add_func("/vtd/queue/11.4.9.4/once", test_event_once);
    qtest_add_func("/vtd/queue/11.4.9.4/status-too", test_event_and_status);
    add_tables();
    qtest_add_func("/vtd/queue/6.5.2.10/resume", test_resume);
    qtest_add_func("/vtd/queue/6.5.2.10/again", test_invalid_again);
    qtest_add_func("/vtd/queue/11.4.7.1/iqe", test_iqe_w1c);
    qtest_add_func("/vtd/queue/11.4.7.2/iqe-masked", test_iqe_event_masked);
    qtest_add_func("/vtd/queue/6.5.2.10/restart", test_restart_after_error);
    qtest_add_func("/vtd/queue/11.4.9.2/tail-beyond", test_tail_beyond);
    qtest_add_func("/vtd/queue/6.5.2.10/unreachable", test_unreachable);
    qtest_add_func("/vtd/queue/6.5.2/register-too",
                   test_register_while_enabled);
    qtest_add_func("/vtd/queue/6.5.2.5/device-iotlb-off",
                   test_device_iotlb_off);
    return g_test_run();
}
