/*
 * VT-d: nonsense in registers, tables and descriptors, mixed with DMA and
 * interrupts.  Nothing but faults may come of it: no abort, no hang, and with
 * sanitizers no finding.  Afterwards the machine is reset, and the unit must
 * work as if nothing had happened.
 *
 * Now and then a program is set up that a driver could have written: tables,
 * a queue, interrupt remapping, in legacy or in scalable mode, with a bit
 * wrong here and there.  What follows then goes deeper than noise would.
 *
 * VTD_STORM_SEED and VTD_STORM_STEPS in the environment replace the fixed
 * seed and the number of steps.  With VTD_STORM_SECONDS each test starts
 * further machines with the next seeds until the time is over.  The seed of
 * each machine is reported, and it repeats a failure.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "libqtest.h"
#include "libqos/intel-iommu.h"

#define SEED        20250101
#define STEPS       6000

#define SID_A       QVTD_SID(0, 4, 0)
#define SID_B       QVTD_SID(0, 5, 0)
#define ARENA_PAGES 32

/* A program: pages of the arena in a row, some of them used for one thing */
enum {
    PAGE_ROOT, PAGE_CONTEXT, PAGE_TABLES, PAGE_QUEUE = PAGE_TABLES + 4,
    PAGE_IRT, PAGE_PASID_DIR, PAGE_PASID, PROGRAM_PAGES,
};
#define PROGRAM_ENTRIES     64
/* One word in this many is not what a driver would write */
#define PROGRAM_ERRORS      64

/*
 * All tables, the queue and the DMA buffers lie in a small arena, so that
 * random pointers into it meet things of some other kind, and each other.
 */
typedef struct Storm {
    QVtd *v;
    QVtdEdu *e[2];
    uint64_t arena;
    uint64_t state;
    unsigned first;             /* page of the arena where a program begins */
} Storm;

/* xorshift64*: the same sequence on every host */
static uint64_t draw(Storm *s)
{
    s->state ^= s->state >> 12;
    s->state ^= s->state << 25;
    s->state ^= s->state >> 27;
    return s->state * 0x2545f4914f6cdd1dULL;
}

static uint32_t below(Storm *s, uint32_t n)
{
    return (draw(s) >> 32) % n;
}

static uint64_t arena_page(Storm *s)
{
    return s->arena + below(s, ARENA_PAGES) * QVTD_PAGE;
}

/* Values at which a decoder may stumble */
static uint64_t value(Storm *s)
{
    switch (below(s, 8)) {
    case 0:
        return 0;
    case 1:
        return UINT64_MAX;
    case 2:
        return 1ULL << below(s, 64);
    case 3:
        return ~(1ULL << below(s, 64));
    case 4:
        return arena_page(s) | below(s, 16);
    case 5:
        return arena_page(s) | below(s, 0x1000);
    case 6:
        return below(s, 0x10000) << 4;
    default:
        return draw(s);
    }
}

/* What looks like an entry or descriptor of some kind */
static uint64_t plausible(Storm *s)
{
    switch (below(s, 6)) {
    case 0:                                             /* root, context */
        return arena_page(s) | QVTD_CTX_P | QVTD_CTX_TT(below(s, 4)) |
               (below(s, 4) ? 0 : QVTD_CTX_FPD);
    case 1:                                             /* upper half */
        return below(s, 4) | QVTD_CTX_DID(below(s, 4));
    case 2:                                             /* paging entry */
        return arena_page(s) | below(s, 4) | (below(s, 4) ? 0 : QVTD_PTE_PS);
    case 3:                                             /* descriptor */
        return below(s, 10) | QVTD_DESC_GRAN(below(s, 4)) |
               QVTD_DESC_DID(below(s, 4));
    case 4:
        return QVTD_DESC_WAIT | (uint64_t)below(s, 16) << 4 |
               QVTD_DESC_WAIT_DATA(below(s, 0x10000));
    default:                                            /* IRTE */
        return QVTD_IRTE_P | QVTD_IRTE_VECTOR(16 + below(s, 240)) |
               (uint64_t)(below(s, 4) ? 0 : below(s, 0x10000));
    }
}

static uint32_t any_register(Storm *s)
{
    return below(s, 16) ? below(s, 0x100 / 4) * 4 : below(s, 0x240);
}

static void write_register(Storm *s)
{
    uint64_t addr = QVTD_BASE + any_register(s);
    uint64_t val = value(s);

    switch (below(s, 8)) {
    case 0:
        qtest_writeb(s->v->qts, addr, val);
        break;
    case 1:
        qtest_writew(s->v->qts, addr, val);
        break;
    case 2:
    case 3:
        qtest_writeq(s->v->qts, addr, val);
        break;
    default:
        qtest_writel(s->v->qts, addr, val);
        break;
    }
}

static void read_register(Storm *s)
{
    uint64_t addr = QVTD_BASE + any_register(s);

    switch (below(s, 4)) {
    case 0:
        qtest_readb(s->v->qts, addr);
        break;
    case 1:
        qtest_readw(s->v->qts, addr);
        break;
    case 2:
        qtest_readl(s->v->qts, addr);
        break;
    default:
        qtest_readq(s->v->qts, addr);
        break;
    }
}

static void write_table(Storm *s)
{
    for (int i = 0; i < 4; i++) {
        uint64_t addr = arena_page(s) +
                        (below(s, 2) ? below(s, 512) : below(s, 66)) * 8;

        qtest_writeq(s->v->qts, addr, below(s, 4) ? plausible(s) : value(s));
    }
}

/* Bring the modes on, so that the tables are looked at. */
static void write_command(Storm *s)
{
    static const uint32_t bits[] = {
        QVTD_GCMD_TE, QVTD_GCMD_QIE, QVTD_GCMD_IRE, QVTD_GCMD_SRTP,
        QVTD_GCMD_SIRTP, QVTD_GCMD_CFI, QVTD_GCMD_TE | QVTD_GCMD_QIE,
    };
    uint32_t gsts = qvtd_readl(s->v, QVTD_GSTS) & ~QVTD_GCMD_ONE_SHOT;

    qvtd_writel(s->v, QVTD_GCMD, below(s, 8) ?
                gsts | bits[below(s, ARRAY_SIZE(bits))] :
                gsts & ~bits[below(s, ARRAY_SIZE(bits))]);
}

static void write_pointer(Storm *s)
{
    static const uint32_t regs[] = { QVTD_RTADDR, QVTD_IQA, QVTD_IRTA };

    qvtd_writeq(s->v, regs[below(s, ARRAY_SIZE(regs))],
                arena_page(s) | (below(s, 4) ? 0 : below(s, 0x1000)));
}

static void move_tail(Storm *s)
{
    qvtd_writeq(s->v, QVTD_IQT, below(s, 300) << 4);
    qvtd_writel(s->v, QVTD_FSTS, below(s, 2) ? UINT32_MAX : 0);
}

static void invalidate(Storm *s)
{
    if (below(s, 2)) {
        qvtd_writeq(s->v, QVTD_CCMD, QVTD_CCMD_ICC | value(s));
    } else {
        qvtd_writeq(s->v, s->v->iotlb, value(s));
        qvtd_writeq(s->v, s->v->iotlb + 8, QVTD_IOTLB_IVT | value(s));
    }
}

static uint64_t dma_address(Storm *s)
{
    switch (below(s, 6)) {
    case 0:
        return QVTD_MSI_BASE + below(s, 0x100000);
    case 1:
        return draw(s) >> below(s, 64);
    case 2:
        return QVTD_BASE + below(s, 0x100);
    default:
        return below(s, 0x400) * QVTD_PAGE + below(s, 2) * below(s, 0x1000);
    }
}

static void dma(Storm *s)
{
    QVtdEdu *e = s->e[below(s, 2)];

    qvtd_edu_start(e, dma_address(s), 1 + below(s, QVTD_PAGE), below(s, 2));
    qtest_clock_step(s->v->qts, 100 * 1000 * 1000);
}

static void interrupt(Storm *s)
{
    QVtdEdu *e = s->e[below(s, 2)];

    qvtd_edu_send(e, QVTD_MSI_BASE | below(s, 0x100000), below(s, 0x10000));
}

static void clear_status(Storm *s)
{
    qvtd_clear_faults(s->v);
}

/* --- programs --- */

static uint64_t place(Storm *s, unsigned n)
{
    return s->arena + (s->first + n) % ARENA_PAGES * QVTD_PAGE;
}

static void put(Storm *s, uint64_t addr, uint64_t val)
{
    if (!below(s, PROGRAM_ERRORS)) {
        val = below(s, 2) ? val ^ 1ULL << below(s, 64) : value(s);
    }
    qtest_writeq(s->v->qts, addr, val);
}

/* Tables of @levels levels that map the first pages, some of them large */
static void put_paging(Storm *s, unsigned levels)
{
    for (unsigned level = levels; level > 1; level--) {
        uint64_t table = place(s, PAGE_TABLES + level - 1);

        put(s, table, place(s, PAGE_TABLES + level - 2) | QVTD_PTE_RW);
        if (level < 4) {
            put(s, table + 8, QVTD_PTE_PS | QVTD_PTE_RW);
        }
    }
    for (unsigned i = 0; i < PROGRAM_ENTRIES; i++) {
        put(s, place(s, PAGE_TABLES) + i * 8,
            arena_page(s) | (below(s, 4) ? QVTD_PTE_RW : below(s, 4)));
    }
}

static void put_context(Storm *s, uint16_t sid, unsigned levels)
{
    uint64_t entry = place(s, PAGE_CONTEXT) + (sid & 0xff) * 16;
    unsigned tt = below(s, 4) ? QVTD_TT_UNTRANSLATED : below(s, 3);

    put(s, entry, place(s, PAGE_TABLES + levels - 1) | QVTD_CTX_P |
        QVTD_CTX_TT(tt));
    put(s, entry + 8, QVTD_CTX_DID(1 + below(s, 2)) | QVTD_CTX_AW(levels));
}

/* RID_PASID is 0 here, the first entry of the first PASID table */
static void put_pasid(Storm *s, uint16_t sid, unsigned levels)
{
    uint64_t context = place(s, PAGE_CONTEXT) + (sid & 0x7f) * 32;
    uint64_t entry = place(s, PAGE_PASID);
    unsigned pgtt = 1 + below(s, 4);

    put(s, context, place(s, PAGE_PASID_DIR) | QVTD_SM_CTX_P |
        (below(s, 2) ? QVTD_SM_CTX_PASIDE : 0));
    put(s, place(s, PAGE_PASID_DIR), place(s, PAGE_PASID) | QVTD_SM_DIR_P);
    put(s, entry, place(s, PAGE_TABLES + levels - 1) | QVTD_SM_PE_P |
        QVTD_SM_PE_PGTT(pgtt) | QVTD_SM_PE_AW(levels));
    put(s, entry + 8, 1 + below(s, 2));
    put(s, entry + 16, place(s, PAGE_TABLES + levels - 1));
}

static void put_tables(Storm *s)
{
    unsigned levels = 3 + below(s, 2);
    bool scalable = below(s, 2);

    put(s, place(s, PAGE_ROOT), place(s, PAGE_CONTEXT) | QVTD_ROOT_P);
    for (int i = 0; i < 2; i++) {
        if (scalable) {
            put_pasid(s, s->e[i]->sid, levels);
        } else {
            put_context(s, s->e[i]->sid, levels);
        }
    }
    put_paging(s, levels);
    qvtd_writeq(s->v, QVTD_RTADDR, place(s, PAGE_ROOT) |
                (scalable ? QVTD_RTADDR_TTM_SCALABLE : 0));
}

static void put_descriptor(Storm *s, uint64_t slot)
{
    uint64_t did = QVTD_DESC_DID(1 + below(s, 2));
    uint64_t gran = QVTD_DESC_GRAN(1 + below(s, 3));
    uint64_t page = below(s, PROGRAM_ENTRIES) * QVTD_PAGE;
    uint64_t sid = s->e[below(s, 2)]->sid;
    const uint64_t forms[][2] = {
        { QVTD_DESC_CC | gran | did | QVTD_DESC_CC_SID(sid), 0 },
        { QVTD_DESC_IOTLB | gran | did, page | below(s, 8) },
        { QVTD_DESC_IEC | (below(s, 2) ? QVTD_DESC_IEC_INDEX : 0) |
          QVTD_DESC_IEC_IIDX(below(s, PROGRAM_ENTRIES)), 0 },
        { QVTD_DESC_DEV_IOTLB | QVTD_DESC_DEV_SID(sid), page | below(s, 2) },
        { QVTD_DESC_WAIT | QVTD_DESC_WAIT_SW | QVTD_DESC_WAIT_DATA(page),
          arena_page(s) },
        { QVTD_DESC_WAIT | QVTD_DESC_WAIT_IF, 0 },
        { QVTD_DESC_PIOTLB | gran | did, page | below(s, 8) },
        { QVTD_DESC_PC | gran | did, 0 },
        { QVTD_DESC_PDEV_IOTLB | sid << 16, page },
    };
    unsigned i = below(s, ARRAY_SIZE(forms));

    put(s, slot, forms[i][0]);
    put(s, slot + 8, forms[i][1]);
}

static void put_queue(Storm *s)
{
    unsigned shift = below(s, 2) ? 4 : 5;
    uint32_t count = 1 + below(s, 32);

    qvtd_writel(s->v, QVTD_GCMD, s->v->gcmd & ~QVTD_GCMD_QIE);
    for (unsigned i = 0; i < count; i++) {
        put_descriptor(s, place(s, PAGE_QUEUE) + (i << shift));
    }
    qvtd_writeq(s->v, QVTD_IQT, 0);
    qvtd_writeq(s->v, QVTD_IQA, place(s, PAGE_QUEUE) |
                (shift == 5 ? QVTD_IQA_DW : 0));
    qvtd_writel(s->v, QVTD_FSTS, UINT32_MAX);
    qvtd_writel(s->v, QVTD_GCMD, s->v->gcmd | QVTD_GCMD_QIE);
    qvtd_writeq(s->v, QVTD_IQT, count << shift);
}

static void put_interrupts(Storm *s)
{
    for (unsigned i = 0; i < PROGRAM_ENTRIES; i++) {
        uint64_t entry = place(s, PAGE_IRT) + i * 16;
        uint64_t sid = s->e[below(s, 2)]->sid;

        put(s, entry, QVTD_IRTE_P | QVTD_IRTE_VECTOR(16 + below(s, 240)) |
            QVTD_IRTE_DLM(below(s, 2)) | QVTD_IRTE_XAPIC(below(s, 2)));
        put(s, entry + 8, QVTD_IRTE_SID(sid) |
            QVTD_IRTE_SVT(below(s, 3)) | QVTD_IRTE_SQ(below(s, 4)));
    }
    qvtd_writeq(s->v, QVTD_IRTA, place(s, PAGE_IRT) | QVTD_IRTA_S(5) |
                (below(s, 2) ? QVTD_IRTA_EIME : 0));
}

/* As a driver would: point, latch, flush, enable; and use what was set up */
static void program(Storm *s)
{
    QVtd *v = s->v;

    s->first = below(s, ARENA_PAGES);
    for (unsigned i = 0; i < PROGRAM_PAGES; i++) {
        qtest_memset(v->qts, place(s, i), 0, QVTD_PAGE);
    }
    v->gcmd = 0;
    put_tables(s);
    put_interrupts(s);
    qvtd_writel(v, QVTD_GCMD, QVTD_GCMD_SRTP);
    qvtd_writel(v, QVTD_GCMD, QVTD_GCMD_SIRTP);
    put_queue(s);
    v->gcmd = QVTD_GCMD_QIE;
    qvtd_writel(v, QVTD_GCMD, v->gcmd | QVTD_GCMD_TE);
    qvtd_writel(v, QVTD_GCMD, v->gcmd | QVTD_GCMD_TE | QVTD_GCMD_IRE);
    qvtd_clear_faults(v);
    for (int i = 0; i < 8; i++) {
        dma(s);
        qvtd_edu_send(s->e[below(s, 2)],
                      qvtd_msi_addr(below(s, PROGRAM_ENTRIES)), 0);
        put_descriptor(s, place(s, PAGE_QUEUE) + below(s, 256) * 16);
        move_tail(s);
    }
}

static void step(Storm *s)
{
    static void (*const actions[])(Storm *s) = {
        write_register, write_register, read_register, write_table,
        write_table, write_table, write_command, write_command,
        write_pointer, move_tail, move_tail, invalidate, dma, dma, dma,
        interrupt, interrupt, clear_status,
    };

    if (below(s, 128)) {
        actions[below(s, ARRAY_SIZE(actions))](s);
    } else {
        program(s);
    }
}

static uint64_t from_env(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    uint64_t val;

    if (!text) {
        return otherwise;
    }
    if (qemu_strtou64(text, NULL, 0, &val) || !val) {
        g_error("%s=%s: give a number above 0", name, text);
    }
    return val;
}

/* A domain, the queue and remapping, all in order */
static void check_works(Storm *s)
{
    QVtd *v = s->v;
    uint64_t status = qvtd_alloc(v, 1);
    g_autofree QVtdDomain *d = NULL;

    g_free(s->e[0]);
    s->e[0] = qvtd_edu(v, SID_A);
    qvtd_assert_no_fault(v);
    qvtd_tables_init(v);
    qvtd_iq_init(v, 0);
    qvtd_ir_init(v, 7, false);
    d = qvtd_domain_new(v, 3, 3);
    qvtd_attach(d, SID_A);
    qvtd_map(d, 0x5000, qvtd_alloc_pattern(v, 8), QVTD_PTE_R);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    g_assert_true(qvtd_dma_reads(d, s->e[0], 0x5000, 8));
    qvtd_iq_wait(v, status, 0x1111);
    g_assert_cmphex(qtest_readl(v->qts, status), ==, 0x1111);
    qvtd_assert_no_fault(v);
    qvtd_write_irte(v, 3, QVTD_IRTE_P | QVTD_IRTE_VECTOR(0x73), 0);
    qvtd_edu_send(s->e[0], qvtd_msi_addr(3), 0);
    g_assert_true(qvtd_lapic_irr(v, 0, 0x73));
    qvtd_dma_read(s->e[0], 0x8000);
    qvtd_assert_fault(v, QVTD_FR_READ, SID_A, 0x8000, true);
}

static void storm(const char *props, uint64_t seed, uint64_t steps)
{
    Storm s = { .state = seed };

    g_test_message("VTD_STORM_SEED=%" PRIu64, seed);
    s.v = qvtd_start(props, "-smp 2 " QVTD_EDU ",addr=4 " QVTD_EDU ",addr=5");
    s.e[0] = qvtd_edu(s.v, SID_A);
    s.e[1] = qvtd_edu(s.v, SID_B);
    s.arena = qvtd_alloc(s.v, ARENA_PAGES);
    for (uint64_t i = 0; i < steps; i++) {
        step(&s);
    }
    qvtd_system_reset(s.v);
    qtest_clock_step(s.v->qts, 1000 * 1000 * 1000);
    check_works(&s);
    g_free(s.e[0]);
    g_free(s.e[1]);
    qvtd_quit(s.v);
}

static void test_storm(const void *opaque)
{
    uint64_t seed = from_env("VTD_STORM_SEED", SEED);
    uint64_t steps = from_env("VTD_STORM_STEPS", STEPS);
    int64_t end = g_get_monotonic_time();

    if (getenv("VTD_STORM_SECONDS")) {
        end += from_env("VTD_STORM_SECONDS", 1) * G_USEC_PER_SEC;
    }
    do {
        storm(opaque, seed++, steps);
    } while (g_get_monotonic_time() < end);
}

/*
 * A wait descriptor whose status write moves the tail of its own queue: it
 * may not hang the machine.
 */
static void test_queue_feeds_itself(void)
{
    Storm s = { .v = qvtd_start("intremap=on,eim=off",
                                "-smp 2 " QVTD_EDU ",addr=4") };

    qvtd_tables_init(s.v);
    qvtd_iq_init(s.v, 0);
    for (int i = 0; i < 256; i++) {
        qvtd_iq_put(s.v, QVTD_DESC_WAIT | QVTD_DESC_WAIT_SW |
                    QVTD_DESC_WAIT_DATA((i + 128) % 256 << 4),
                    QVTD_BASE + QVTD_IQT);
    }
    s.v->iq_tail = 1;
    qvtd_iq_kick(s.v);
    for (int i = 0; i < 20; i++) {
        qtest_clock_step(s.v->qts, 1000 * 1000);
        qvtd_readl(s.v, QVTD_FSTS);
    }
    qvtd_system_reset(s.v);
    check_works(&s);
    g_free(s.e[0]);
    qvtd_quit(s.v);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_data_func("/vtd/storm/plain", "intremap=on,eim=off",
                        test_storm);
    qtest_add_data_func("/vtd/storm/everything",
                        "intremap=on,eim=on,device-iotlb=on,caching-mode=on,"
                        "snoop-control=on", test_storm);
    qtest_add_data_func("/vtd/storm/narrow",
                        "intremap=on,eim=off,aw-bits=39,pt=off,dma-drain=off",
                        test_storm);
    qtest_add_data_func("/vtd/storm/scalable",
                        "intremap=on,eim=on,x-scalable-mode=on,"
                        "x-pasid-mode=on", test_storm);
    qtest_add_data_func("/vtd/storm/first-stage",
                        "intremap=on,eim=on,x-scalable-mode=on,x-flts=on",
                        test_storm);
    qtest_add_func("/vtd/storm/queue-feeds-itself", test_queue_feeds_itself);
    return g_test_run();
}
