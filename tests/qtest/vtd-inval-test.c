/*
 * VT-d: after an invalidation of any granularity, by register and by queue,
 * nothing that it covers is used any more (VT-d specification, 6.2, 6.5)
 *
 * What is cached, and for how long without an invalidation, is the unit's own
 * business, and so is invalidating more than was asked for: neither is tested.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "libqos/intel-iommu.h"

#define SID_A   QVTD_SID(0, 4, 0)
#define SID_B   QVTD_SID(0, 5, 0)
#define IOVA    0x0000000012345000ULL

/* Two devices in one domain */
typedef struct Fix {
    QVtd *v;
    QVtdEdu *a, *b;
    QVtdDomain *d;
} Fix;

static Fix fix_new(const char *props, bool queue)
{
    Fix f;

    f.v = qvtd_start(props, QVTD_EDU ",addr=4 " QVTD_EDU ",addr=5");
    f.a = qvtd_edu(f.v, SID_A);
    f.b = qvtd_edu(f.v, SID_B);
    qvtd_tables_init(f.v);
    if (queue) {
        qvtd_iq_init(f.v, 0);
    }
    f.d = qvtd_domain_new(f.v, 0x1234, 4);
    qvtd_attach(f.d, SID_A);
    qvtd_attach(f.d, SID_B);
    qvtd_gcmd_set(f.v, QVTD_GCMD_TE);
    return f;
}

static void fix_quit(Fix *f)
{
    qvtd_assert_no_fault(f->v);
    qvtd_quit(f->v);
    g_free(f->a);
    g_free(f->b);
    g_free(f->d);
}

/* --- IOTLB --- */

typedef struct Flush {
    const char *path;
    bool queue;
    unsigned granularity;
    unsigned mask;      /* address mask: 2^mask pages */
} Flush;

static const Flush flushes[] = {
    { "register/global", false, QVTD_GRAN_GLOBAL, 0 },
    { "register/domain", false, QVTD_GRAN_DOMAIN, 0 },
    { "register/page", false, QVTD_GRAN_PAGE, 0 },
    { "register/pages-4", false, QVTD_GRAN_PAGE, 2 },
    { "register/pages-512", false, QVTD_GRAN_PAGE, 9 },
    { "register/pages-maximum", false, QVTD_GRAN_PAGE, 18 },
    { "queue/global", true, QVTD_GRAN_GLOBAL, 0 },
    { "queue/domain", true, QVTD_GRAN_DOMAIN, 0 },
    { "queue/page", true, QVTD_GRAN_PAGE, 0 },
    { "queue/pages-4", true, QVTD_GRAN_PAGE, 2 },
    { "queue/pages-512", true, QVTD_GRAN_PAGE, 9 },
    { "queue/pages-maximum", true, QVTD_GRAN_PAGE, 18 },
};

/* 6.5.1.2 and 6.5.2.3; @hint: only leaf entries changed (IH) */
static void flush(QVtd *v, const Flush *how, uint16_t did, uint64_t iova,
                  bool hint)
{
    uint64_t iva = 0;

    if (how->granularity == QVTD_GRAN_PAGE) {
        iva = (iova & ~((QVTD_PAGE << how->mask) - 1)) |
              QVTD_IVA_AM(how->mask) | (hint ? QVTD_IVA_IH : 0);
    }
    if (how->queue) {
        qvtd_iq_submit(v, QVTD_DESC_IOTLB | QVTD_DESC_GRAN(how->granularity) |
                       QVTD_DESC_DID(did) | QVTD_DESC_IOTLB_DR |
                       QVTD_DESC_IOTLB_DW, iva);
    } else {
        uint64_t r = qvtd_iotlb(v, QVTD_IOTLB_IIRG(how->granularity) |
                                QVTD_IOTLB_DID(did) | QVTD_IOTLB_DR |
                                QVTD_IOTLB_DW, iva);

        g_assert_cmpint(QVTD_IOTLB_IAIG(r), >, 0);
        g_assert_cmpint(QVTD_IOTLB_IAIG(r), <=, how->granularity);
    }
}

/* The pages that a flush around IOVA covers, at most eight of them tried */
static unsigned covered(const Flush *how, uint64_t *iova)
{
    unsigned mask = how->granularity == QVTD_GRAN_PAGE ? how->mask : 18;
    uint64_t base = IOVA & ~((QVTD_PAGE << mask) - 1);
    unsigned n = MIN(1 << mask, 8);

    for (unsigned i = 0; i < n; i++) {
        iova[i] = base + (((1ULL << mask) / n) * i + (i == n - 1 ?
                  (1ULL << mask) / n - 1 : 0)) * QVTD_PAGE;
    }
    return n;
}

/* Mappings are changed to other pages; both devices must see that. */
static void test_remap(const void *opaque)
{
    const Flush *how = opaque;
    Fix f = fix_new(NULL, how->queue);
    uint64_t iova[8];
    unsigned n = covered(how, iova);

    for (unsigned i = 0; i < n; i++) {
        qvtd_map(f.d, iova[i], qvtd_alloc_pattern(f.v, 10 + i), QVTD_PTE_RW);
        g_assert_true(qvtd_dma_reads(f.d, f.a, iova[i], 10 + i));
        g_assert_true(qvtd_dma_reads(f.d, f.b, iova[i], 10 + i));
    }
    for (unsigned i = 0; i < n; i++) {
        qvtd_map(f.d, iova[i], qvtd_alloc_pattern(f.v, 50 + i), QVTD_PTE_RW);
    }
    flush(f.v, how, f.d->id, IOVA, true);
    for (unsigned i = 0; i < n; i++) {
        g_assert_true(qvtd_dma_reads(f.d, f.a, iova[i], 50 + i));
        g_assert_true(qvtd_dma_reads(f.d, f.b, iova[i], 50 + i));
    }
    fix_quit(&f);
}

/* A mapping is taken away: reads and writes fault, nothing arrives. */
static void test_unmap(const void *opaque)
{
    const Flush *how = opaque;
    Fix f = fix_new(NULL, how->queue);
    uint64_t page = qvtd_alloc_pattern(f.v, 3);
    uint64_t pte = qvtd_map(f.d, IOVA, page, QVTD_PTE_RW);

    g_assert_true(qvtd_dma_reads(f.d, f.a, IOVA, 3));
    qvtd_dma_write(f.a, IOVA);
    qtest_writeq(f.v->qts, pte, 0);
    flush(f.v, how, f.d->id, IOVA, true);
    qvtd_fill(f.v, page, 4);
    qvtd_dma_write(f.a, IOVA);
    g_assert_true(qvtd_holds(f.v, page, 4));
    qvtd_assert_fault(f.v, QVTD_FR_WRITE, SID_A, IOVA, false);
    qvtd_dma_read(f.b, IOVA);
    qvtd_assert_fault(f.v, QVTD_FR_READ, SID_B, IOVA, true);
    fix_quit(&f);
}

/* Rights are taken away, and given. */
static void test_rights(const void *opaque)
{
    const Flush *how = opaque;
    Fix f = fix_new(NULL, how->queue);
    uint64_t page = qvtd_alloc_pattern(f.v, 3);

    qvtd_map(f.d, IOVA, page, QVTD_PTE_RW);
    g_assert_true(qvtd_dma_reads(f.d, f.a, IOVA, 3));
    qvtd_dma_write(f.a, IOVA);
    qvtd_map(f.d, IOVA, page, QVTD_PTE_R);
    flush(f.v, how, f.d->id, IOVA, true);
    qvtd_fill(f.v, page, 4);
    qvtd_dma_write(f.a, IOVA);
    g_assert_true(qvtd_holds(f.v, page, 4));
    qvtd_assert_fault(f.v, QVTD_FR_WRITE, SID_A, IOVA, false);
    g_assert_true(qvtd_dma_reads(f.d, f.a, IOVA, 4));

    qvtd_map(f.d, IOVA, page, QVTD_PTE_RW);
    flush(f.v, how, f.d->id, IOVA, true);
    qvtd_fill(f.v, page, 5);
    qvtd_dma_write(f.a, IOVA);
    g_assert_true(qvtd_holds(f.v, page, 4));
    fix_quit(&f);
}

/* A table on the way is changed: IH is clear (6.2.4, 6.5.1.2). */
static void test_table(const void *opaque)
{
    const Flush *how = opaque;
    Fix f = fix_new(NULL, how->queue);
    uint64_t pde = qvtd_pte_addr(f.d, IOVA, 2);
    uint64_t table = qvtd_alloc(f.v, 1);

    qvtd_map(f.d, IOVA, qvtd_alloc_pattern(f.v, 3), QVTD_PTE_RW);
    g_assert_true(qvtd_dma_reads(f.d, f.a, IOVA, 3));
    qtest_writeq(f.v->qts, pde, table | QVTD_PTE_RW);
    qvtd_map(f.d, IOVA, qvtd_alloc_pattern(f.v, 4), QVTD_PTE_RW);
    flush(f.v, how, f.d->id, IOVA, false);
    g_assert_true(qvtd_dma_reads(f.d, f.a, IOVA, 4));
    fix_quit(&f);
}

/* A page flush anywhere inside a large page takes the large page (6.5.1.2). */
static void test_large_page(const void *opaque)
{
    const Flush *how = opaque;
    Fix f = fix_new(NULL, how->queue);
    uint64_t old = qvtd_alloc_pattern(f.v, 3);
    uint64_t large = IOVA & ~0x1fffffULL;
    uint64_t iova = large | (old & 0x1fffff);
    uint64_t new = qvtd_alloc_pattern(f.v, 4);

    qvtd_map_level(f.d, large, old & ~0x1fffffULL, QVTD_PTE_RW, 2);
    g_assert_true(qvtd_dma_reads(f.d, f.a, iova, 3));
    g_assert_cmphex(new & ~0x1fffffULL, ==, old & ~0x1fffffULL);
    qtest_writeq(f.v->qts, qvtd_pte_addr(f.d, large, 2), 0);
    qvtd_map(f.d, iova, new, QVTD_PTE_RW);
    flush(f.v, how, f.d->id, IOVA, false);
    g_assert_true(qvtd_dma_reads(f.d, f.a, iova, 4));
    fix_quit(&f);
}

/*
 * 6.2.1: domains are apart: with the same page cached under two ids a flush
 * of one and a change of the other; what is flushed must be new.
 */
static void test_two_domains(const void *opaque)
{
    const Flush *how = opaque;
    Fix f = fix_new(NULL, how->queue);
    QVtdDomain *other = qvtd_domain_new(f.v, 0x4321, 4);
    uint64_t kept = qvtd_alloc_pattern(f.v, 8);

    qvtd_attach(other, SID_B);
    qvtd_flush_all(f.v);
    qvtd_map(f.d, IOVA, qvtd_alloc_pattern(f.v, 3), QVTD_PTE_RW);
    qvtd_map(other, IOVA, kept, QVTD_PTE_RW);
    g_assert_true(qvtd_dma_reads(f.d, f.a, IOVA, 3));
    g_assert_true(qvtd_dma_reads(other, f.b, IOVA, 8));
    qvtd_map(f.d, IOVA, qvtd_alloc_pattern(f.v, 4), QVTD_PTE_RW);
    flush(f.v, how, f.d->id, IOVA, true);
    g_assert_true(qvtd_dma_reads(f.d, f.a, IOVA, 4));
    g_assert_true(qvtd_dma_reads(other, f.b, IOVA, 8));
    qvtd_map(other, IOVA, qvtd_alloc_pattern(f.v, 9), QVTD_PTE_RW);
    flush(f.v, how, other->id, IOVA, true);
    g_assert_true(qvtd_dma_reads(other, f.b, IOVA, 9));
    fix_quit(&f);
}

/* More pages than any cache holds, then all of them changed */
static void test_many_pages(const void *opaque)
{
    const Flush *how = opaque;
    Fix f = fix_new(NULL, how->queue);
    uint64_t first = qvtd_alloc(f.v, 600), second = qvtd_alloc(f.v, 600);

    for (unsigned i = 0; i < 600; i++) {
        qtest_writel(f.v->qts, first + i * QVTD_PAGE, i);
        qtest_writel(f.v->qts, second + i * QVTD_PAGE, i + 10000);
        qvtd_map(f.d, i * QVTD_PAGE, first + i * QVTD_PAGE, QVTD_PTE_R);
    }
    for (unsigned i = 0; i < 600; i++) {
        qvtd_edu_dma(f.a, i * QVTD_PAGE, 4, true);
    }
    for (unsigned i = 0; i < 600; i++) {
        qvtd_map(f.d, i * QVTD_PAGE, second + i * QVTD_PAGE, QVTD_PTE_R);
    }
    flush(f.v, how, f.d->id, 0, true);
    for (unsigned i = 0; i < 600; i += 7) {
        qvtd_edu_dma(f.a, i * QVTD_PAGE, 4, true);
        qvtd_edu_dma(f.a, QVTD_BOUNCE_IOVA, 4, false);
        g_assert_cmpint(qtest_readl(f.v->qts, f.d->bounce), ==, i + 10000);
    }
    fix_quit(&f);
}

static void add_flush_tests(void)
{
    static const struct {
        const char *name;
        void (*test)(const void *opaque);
    } tests[] = {
        { "remap", test_remap }, { "unmap", test_unmap },
        { "rights", test_rights }, { "table", test_table },
        { "large-page", test_large_page },
        { "two-domains", test_two_domains },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(flushes); i++) {
        for (unsigned j = 0; j < ARRAY_SIZE(tests); j++) {
            g_autofree char *path = g_strdup_printf(
                "/vtd/inval/6.5/iotlb/%s/%s", flushes[i].path, tests[j].name);

            qtest_add_data_func(path, &flushes[i], tests[j].test);
        }
    }
}

/* --- context cache --- */

typedef struct CtxFlush {
    const char *path;
    bool queue;
    unsigned granularity;
    unsigned fm;        /* function mask: 0, 1, 2, 3 low bits ignored */
    unsigned fn;        /* function named in the command */
} CtxFlush;

static const CtxFlush ctx_flushes[] = {
    { "register/global", false, QVTD_GRAN_GLOBAL, 0, 0 },
    { "register/domain", false, QVTD_GRAN_DOMAIN, 0, 0 },
    { "register/device", false, QVTD_GRAN_DEVICE, 0, 0 },
    { "register/device-mask-1", false, QVTD_GRAN_DEVICE, 1, 4 },
    { "register/device-mask-2", false, QVTD_GRAN_DEVICE, 2, 6 },
    { "register/device-mask-3", false, QVTD_GRAN_DEVICE, 3, 7 },
    { "queue/global", true, QVTD_GRAN_GLOBAL, 0, 0 },
    { "queue/domain", true, QVTD_GRAN_DOMAIN, 0, 0 },
    { "queue/device", true, QVTD_GRAN_DEVICE, 0, 0 },
    { "queue/device-mask-1", true, QVTD_GRAN_DEVICE, 1, 4 },
    { "queue/device-mask-2", true, QVTD_GRAN_DEVICE, 2, 6 },
    { "queue/device-mask-3", true, QVTD_GRAN_DEVICE, 3, 7 },
};

/* 6.5.1.1 and 6.5.2.1 */
static void ctx_flush(QVtd *v, const CtxFlush *how, uint16_t did,
                      uint16_t sid)
{
    uint16_t named = (sid & ~7) | (how->fm ? how->fn : sid & 7);

    if (how->queue) {
        qvtd_iq_submit(v, QVTD_DESC_CC | QVTD_DESC_GRAN(how->granularity) |
                       QVTD_DESC_DID(did) | QVTD_DESC_CC_SID(named) |
                       QVTD_DESC_CC_FM(how->fm), 0);
    } else {
        uint64_t r = qvtd_ccmd(v, QVTD_CCMD_CIRG(how->granularity) |
                               QVTD_CCMD_DID(did) | QVTD_CCMD_SID(named) |
                               QVTD_CCMD_FM(how->fm));

        g_assert_cmpint(QVTD_CCMD_CAIG(r), >, 0);
        g_assert_cmpint(QVTD_CCMD_CAIG(r), <=, how->granularity);
    }
}

/*
 * A device moves to another domain.  The function mask of 1, 2, 3 with
 * function 4, 6, 7 covers function 0 of a device only together with bit 2:
 * so device functions 4 and up are used for those.
 */
static void test_context(const void *opaque)
{
    const CtxFlush *how = opaque;
    unsigned fn = how->fm ? 4 : 0;
    g_autofree char *args = g_strdup_printf(
        QVTD_EDU ",addr=4.0,multifunction=on %s%s",
        fn ? QVTD_EDU : "", fn ? ",addr=4.4" : "");
    QVtd *v = qvtd_start(NULL, args);
    uint16_t sid = QVTD_SID(0, 4, fn);
    QVtdEdu *e = qvtd_edu(v, sid);
    QVtdDomain *old, *new;

    qvtd_tables_init(v);
    if (how->queue) {
        qvtd_iq_init(v, 0);
    }
    old = qvtd_domain_new(v, 3, 4);
    new = qvtd_domain_new(v, 4, 3);
    qvtd_map(old, IOVA, qvtd_alloc_pattern(v, 3), QVTD_PTE_RW);
    qvtd_map(new, IOVA, qvtd_alloc_pattern(v, 4), QVTD_PTE_RW);
    qvtd_attach(old, sid);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    g_assert_true(qvtd_dma_reads(old, e, IOVA, 3));

    qvtd_attach(new, sid);
    ctx_flush(v, how, old->id, sid);
    flush(v, &flushes[how->queue ? 7 : 1], old->id, IOVA, false);
    g_assert_true(qvtd_dma_reads(new, e, IOVA, 4));

    /* and away */
    qvtd_write_context(v, sid, 0, 0);
    ctx_flush(v, how, new->id, sid);
    flush(v, &flushes[how->queue ? 7 : 1], new->id, IOVA, false);
    qvtd_dma_read(e, IOVA);
    qvtd_assert_fault(v, QVTD_FR_CTX_NOT_PRESENT, sid, IOVA, true);
    qvtd_quit(v);
}

/* From tables to pass-through and back (9.3) */
static void test_context_type(const void *opaque)
{
    const CtxFlush *how = opaque;
    QVtd *v = qvtd_start(NULL, QVTD_EDU ",addr=4");
    QVtdEdu *e = qvtd_edu(v, SID_A);
    uint64_t page = qvtd_alloc_pattern(v, 3), to = qvtd_alloc(v, 1);
    CtxFlush own = *how;
    QVtdDomain *d;

    own.fm = 0;
    qvtd_tables_init(v);
    if (how->queue) {
        qvtd_iq_init(v, 0);
    }
    d = qvtd_domain_new(v, 3, 4);
    qvtd_map(d, page, qvtd_alloc_pattern(v, 5), QVTD_PTE_RW);
    qvtd_attach(d, SID_A);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    for (int i = 0; i < 2; i++) {
        g_assert_true(qvtd_dma_reads(d, e, page, 5));
        qvtd_write_context(v, SID_A,
                           QVTD_CTX_TT(QVTD_TT_PASS_THROUGH) | QVTD_CTX_P,
                           QVTD_CTX_AW(4) | QVTD_CTX_DID(4));
        ctx_flush(v, &own, 3, SID_A);
        flush(v, &flushes[how->queue ? 7 : 1], 3, 0, false);
        qvtd_dma_read(e, page);
        qvtd_dma_write(e, to);
        g_assert_true(qvtd_holds(v, to, 3));
        qtest_memset(v->qts, to, 0, QVTD_PAGE);
        qvtd_attach(d, SID_A);
        ctx_flush(v, &own, 4, SID_A);
        flush(v, &flushes[how->queue ? 7 : 1], 4, 0, false);
    }
    qvtd_assert_no_fault(v);
    qvtd_quit(v);
}

static void add_context_tests(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(ctx_flushes); i++) {
        g_autofree char *move = g_strdup_printf(
            "/vtd/inval/6.5/context/%s/move", ctx_flushes[i].path);
        g_autofree char *type = g_strdup_printf(
            "/vtd/inval/6.5/context/%s/type", ctx_flushes[i].path);

        qtest_add_data_func(move, &ctx_flushes[i], test_context);
        if (!ctx_flushes[i].fm) {
            qtest_add_data_func(type, &ctx_flushes[i], test_context_type);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add_flush_tests();
    qtest_add_data_func("/vtd/inval/6.5/iotlb/register/global/many",
                        &flushes[0], test_many_pages);
    qtest_add_data_func("/vtd/inval/6.5/iotlb/queue/domain/many",
                        &flushes[7], test_many_pages);
    qtest_add_data_func("/vtd/inval/6.5/iotlb/queue/pages-maximum/many",
                        &flushes[11], test_many_pages);
    add_context_tests();
    return g_test_run();
}
