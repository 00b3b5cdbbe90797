/*
 * A small driver for the Intel VT-d remapping unit of q35, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "hw/pci/pci_regs.h"
#include "intel-iommu.h"

/*
 * Guest memory of the machine and how it is used: tables and buffers are
 * taken from HEAP on and never given back; a machine lives for one test.
 */
#define RAM_MB          256
#define HEAP            0x01000000ULL
#define HEAP_END        (RAM_MB * 0x100000ULL)

/* PCI hole of q35 below the I/O APIC; the BARs of the devices go there. */
#define BAR_BASE        0xe0000000u
#define BAR_END         0xf0000000u

/* The edu device, docs/specs/edu.rst */
#define EDU_ID          0x11e81234
#define EDU_IRQ_RAISE   0x60
#define EDU_IRQ_ACK     0x64
#define EDU_DMA_SRC     0x80
#define EDU_DMA_DST     0x88
#define EDU_DMA_COUNT   0x90
#define EDU_DMA_CMD     0x98
#define EDU_DMA_RUN     0x1
#define EDU_DMA_WRITE   0x2
#define EDU_BUFFER      0x40000
#define EDU_DMA_NS      (100 * 1000 * 1000)

/* The test device, hw/misc/vtd-testdev.c */
#define TESTDEV_ID      0x11f01234
#define TESTDEV_ADDRESS 0x00
#define TESTDEV_LENGTH  0x08
#define TESTDEV_PASID   0x0c
#define TESTDEV_COMMAND 0x10
#define TESTDEV_STATUS  0x14
#define TESTDEV_RESULT  0x18
#define TESTDEV_BUFFER  0x1000
#define TESTDEV_READ    1
#define TESTDEV_WRITE   2
#define TESTDEV_PROBE   3

/* Rounds of 1 ms after which something that did not come will not come. */
#define PATIENCE        100

/* --- machine --- */

static QVtd *start(const char *env, const char *props, const char *args)
{
    QVtd *v = g_new0(QVtd, 1);
    g_autofree char *cmd = g_strdup_printf(
        "-M q35 -m %d -nodefaults -device intel-iommu%s%s %s", RAM_MB,
        props && *props ? "," : "", props ?: "", args ?: "");

    v->qts = qtest_init_with_env(env, cmd, true);
    v->cap = qvtd_readq(v, QVTD_CAP);
    v->ecap = qvtd_readq(v, QVTD_ECAP);
    v->frcd = QVTD_CAP_FRO(v->cap) * 16;
    v->nfr = QVTD_CAP_NFR(v->cap) + 1;
    v->iotlb = QVTD_ECAP_IRO(v->ecap) * 16;
    v->heap = HEAP;
    v->bar = BAR_BASE;
    v->iq_width = 16;
    return v;
}

QVtd *qvtd_start(const char *props, const char *args)
{
    return start(NULL, props, args);
}

QVtd *qvtd_start_env(const char *env, const char *props, const char *args)
{
    return start(env, props, args);
}

void qvtd_quit(QVtd *v)
{
    qtest_quit(v->qts);
    g_free(v);
}

void qvtd_system_reset(QVtd *v)
{
    qtest_system_reset(v->qts);
    v->root = 0;
    memset(v->ctx, 0, sizeof(v->ctx));
    v->iq = 0;
    v->irt = 0;
    v->gcmd = 0;
    v->bar = BAR_BASE;
}

/* --- registers --- */

uint32_t qvtd_readl(QVtd *v, uint32_t reg)
{
    return qtest_readl(v->qts, QVTD_BASE + reg);
}

uint64_t qvtd_readq(QVtd *v, uint32_t reg)
{
    return qtest_readq(v->qts, QVTD_BASE + reg);
}

void qvtd_writel(QVtd *v, uint32_t reg, uint32_t val)
{
    qtest_writel(v->qts, QVTD_BASE + reg, val);
}

void qvtd_writeq(QVtd *v, uint32_t reg, uint64_t val)
{
    qtest_writeq(v->qts, QVTD_BASE + reg, val);
}

static bool wait_bits32(QVtd *v, uint32_t reg, uint32_t mask, uint32_t val)
{
    for (int i = 0; i < PATIENCE; i++) {
        if ((qvtd_readl(v, reg) & mask) == val) {
            return true;
        }
        qtest_clock_step(v->qts, 1000 * 1000);
    }
    return false;
}

/*
 * Section 11.4.4.1: one bit at a time, the others as GSTS shows them, the
 * one-shot commands zero; then wait for GSTS to follow.
 */
void qvtd_gcmd_set(QVtd *v, uint32_t bit)
{
    qvtd_writel(v, QVTD_GCMD, v->gcmd | bit);
    g_assert_true(wait_bits32(v, QVTD_GSTS, bit, bit));
    v->gcmd |= bit & ~QVTD_GCMD_ONE_SHOT;
}

void qvtd_gcmd_clear(QVtd *v, uint32_t bit)
{
    v->gcmd &= ~bit;
    qvtd_writel(v, QVTD_GCMD, v->gcmd);
    g_assert_true(wait_bits32(v, QVTD_GSTS, bit, 0));
}

/* --- guest memory --- */

uint64_t qvtd_alloc(QVtd *v, unsigned pages)
{
    uint64_t addr = v->heap;

    v->heap += pages * QVTD_PAGE;
    g_assert_cmphex(v->heap, <=, HEAP_END);
    qtest_memset(v->qts, addr, 0, pages * QVTD_PAGE);
    return addr;
}

static void make_pattern(uint32_t *words, uint32_t seed)
{
    for (unsigned i = 0; i < QVTD_PAGE / 4; i++) {
        words[i] = cpu_to_le32(seed * 0x9e3779b1u + i);
    }
}

void qvtd_fill(QVtd *v, uint64_t addr, uint32_t seed)
{
    uint32_t words[QVTD_PAGE / 4];

    make_pattern(words, seed);
    qtest_bufwrite(v->qts, addr, words, sizeof(words));
}

uint64_t qvtd_alloc_pattern(QVtd *v, uint32_t seed)
{
    uint64_t addr = qvtd_alloc(v, 1);

    qvtd_fill(v, addr, seed);
    return addr;
}

bool qvtd_holds(QVtd *v, uint64_t addr, uint32_t seed)
{
    uint32_t want[QVTD_PAGE / 4], have[QVTD_PAGE / 4];

    make_pattern(want, seed);
    qtest_bufread(v->qts, addr, have, sizeof(have));
    return !memcmp(want, have, sizeof(want));
}

/* --- root, context and paging tables --- */

void qvtd_set_root(QVtd *v, uint64_t rtaddr)
{
    qvtd_writeq(v, QVTD_RTADDR, rtaddr);
    qvtd_gcmd_set(v, QVTD_GCMD_SRTP);
    /* Section 6.6: unless CAP.ESRTPS, software flushes what was cached. */
    qvtd_flush_all(v);
}

void qvtd_tables_init(QVtd *v)
{
    v->root = qvtd_alloc(v, 1);
    qvtd_set_root(v, v->root);
}

uint64_t qvtd_context_addr(QVtd *v, uint16_t sid)
{
    uint8_t bus = sid >> 8;

    if (!v->ctx[bus]) {
        v->ctx[bus] = qvtd_alloc(v, 1);
        qtest_writeq(v->qts, v->root + bus * 16, v->ctx[bus] | QVTD_ROOT_P);
    }
    return v->ctx[bus] + (sid & 0xff) * 16;
}

/* The half with the present bit last, section 6.8 */
void qvtd_write_context(QVtd *v, uint16_t sid, uint64_t lo, uint64_t hi)
{
    uint64_t addr = qvtd_context_addr(v, sid);

    qtest_writeq(v->qts, addr + 8, hi);
    qtest_writeq(v->qts, addr, lo);
}

void qvtd_attach(QVtdDomain *d, uint16_t sid)
{
    qvtd_write_context(d->v, sid, d->pgd | QVTD_CTX_P,
                       QVTD_CTX_DID(d->id) | QVTD_CTX_AW(d->levels));
}

QVtdDomain *qvtd_domain_new(QVtd *v, uint16_t id, int levels)
{
    QVtdDomain *d = g_new0(QVtdDomain, 1);

    d->v = v;
    d->id = id;
    d->levels = levels;
    d->pgd = qvtd_alloc(v, 1);
    d->bounce = qvtd_alloc(v, 1);
    qvtd_map(d, QVTD_BOUNCE_IOVA, d->bounce, QVTD_PTE_W);
    return d;
}

uint64_t qvtd_pte_addr(QVtdDomain *d, uint64_t iova, int level)
{
    uint64_t table = d->pgd;

    for (int l = d->levels; ; l--) {
        uint64_t addr = table + extract64(iova, 12 + 9 * (l - 1), 9) * 8;

        if (l == level) {
            return addr;
        }
        table = qtest_readq(d->v->qts, addr) & ~(QVTD_PAGE - 1);
        if (!table) {
            table = qvtd_alloc(d->v, 1);
            qtest_writeq(d->v->qts, addr, table | QVTD_PTE_RW);
        }
    }
}

uint64_t qvtd_map_level(QVtdDomain *d, uint64_t iova, uint64_t pa,
                        uint64_t perm, int level)
{
    uint64_t addr = qvtd_pte_addr(d, iova, level);

    qtest_writeq(d->v->qts, addr,
                 pa | perm | (level > 1 ? QVTD_PTE_PS : 0));
    return addr;
}

uint64_t qvtd_map(QVtdDomain *d, uint64_t iova, uint64_t pa, uint64_t perm)
{
    return qvtd_map_level(d, iova, pa, perm, 1);
}

/* --- invalidation --- */

static uint64_t wait_done(QVtd *v, uint32_t reg)
{
    for (int i = 0; i < PATIENCE; i++) {
        uint64_t val = qvtd_readq(v, reg);

        if (!(val >> 63)) {
            return val;
        }
        qtest_clock_step(v->qts, 1000 * 1000);
    }
    g_assert_not_reached();
}

uint64_t qvtd_ccmd(QVtd *v, uint64_t cmd)
{
    qvtd_writeq(v, QVTD_CCMD, QVTD_CCMD_ICC | cmd);
    return wait_done(v, QVTD_CCMD);
}

uint64_t qvtd_iotlb(QVtd *v, uint64_t cmd, uint64_t iva)
{
    qvtd_writeq(v, v->iotlb, iva);
    qvtd_writeq(v, v->iotlb + 8, QVTD_IOTLB_IVT | cmd);
    return wait_done(v, v->iotlb + 8);
}

void qvtd_flush_all(QVtd *v)
{
    if (v->gcmd & QVTD_GCMD_QIE) {
        qvtd_iq_submit(v, QVTD_DESC_CC | QVTD_DESC_GRAN(QVTD_GRAN_GLOBAL), 0);
        qvtd_iq_submit(v, QVTD_DESC_IOTLB | QVTD_DESC_GRAN(QVTD_GRAN_GLOBAL) |
                       QVTD_DESC_IOTLB_DW | QVTD_DESC_IOTLB_DR, 0);
        return;
    }
    qvtd_ccmd(v, QVTD_CCMD_CIRG(QVTD_GRAN_GLOBAL));
    qvtd_iotlb(v, QVTD_IOTLB_IIRG(QVTD_GRAN_GLOBAL) |
               QVTD_IOTLB_DW | QVTD_IOTLB_DR, 0);
}

static void iq_init(QVtd *v, unsigned qs, unsigned width)
{
    v->iq = qvtd_alloc(v, 1 << qs);
    v->iq_width = width;
    v->iq_slots = (QVTD_PAGE << qs) / width;
    v->iq_tail = 0;
    qvtd_writeq(v, QVTD_IQT, 0);
    qvtd_writeq(v, QVTD_IQA, v->iq | QVTD_IQA_QS(qs) |
                (width == 32 ? QVTD_IQA_DW : 0));
    qvtd_gcmd_set(v, QVTD_GCMD_QIE);
}

void qvtd_iq_init(QVtd *v, unsigned qs)
{
    iq_init(v, qs, 16);
}

void qvtd_iq_init_wide(QVtd *v, unsigned qs)
{
    iq_init(v, qs, 32);
}

void qvtd_iq_put(QVtd *v, uint64_t lo, uint64_t hi)
{
    uint64_t slot = v->iq + v->iq_tail * v->iq_width;

    qtest_writeq(v->qts, slot, lo);
    qtest_writeq(v->qts, slot + 8, hi);
    v->iq_tail = (v->iq_tail + 1) % v->iq_slots;
}

void qvtd_iq_kick(QVtd *v)
{
    qvtd_writeq(v, QVTD_IQT, v->iq_tail * v->iq_width);
}

bool qvtd_iq_idle(QVtd *v)
{
    for (int i = 0; i < PATIENCE; i++) {
        if (qvtd_readq(v, QVTD_IQH) == qvtd_readq(v, QVTD_IQT)) {
            return true;
        }
        qtest_clock_step(v->qts, 1000 * 1000);
    }
    return false;
}

void qvtd_iq_submit(QVtd *v, uint64_t lo, uint64_t hi)
{
    qvtd_iq_put(v, lo, hi);
    qvtd_iq_kick(v);
    g_assert_true(qvtd_iq_idle(v));
}

void qvtd_iq_wait(QVtd *v, uint64_t status_addr, uint32_t data)
{
    qvtd_iq_submit(v, QVTD_DESC_WAIT | QVTD_DESC_WAIT_SW | QVTD_DESC_WAIT_FN |
                   QVTD_DESC_WAIT_DATA(data), status_addr);
}

void qvtd_iq_disable(QVtd *v)
{
    uint64_t status = qvtd_alloc(v, 1);

    qvtd_iq_wait(v, status, 0x600d);
    g_assert_cmphex(qtest_readl(v->qts, status), ==, 0x600d);
    qvtd_gcmd_clear(v, QVTD_GCMD_QIE);
}

/* --- faults --- */

QVtdFault qvtd_fault(QVtd *v, unsigned n)
{
    uint64_t lo = qvtd_readq(v, v->frcd + n * 16);
    uint64_t hi = qvtd_readq(v, v->frcd + n * 16 + 8);

    return (QVtdFault) {
        .f = hi & QVTD_FRCD_F,
        .reason = QVTD_FRCD_FR(hi),
        .sid = QVTD_FRCD_SID(hi),
        .info = lo,
        .read = hi & QVTD_FRCD_T1,
        .pp = hi & QVTD_FRCD_PP,
        .pasid = extract64(hi, 40, 20),
    };
}

void qvtd_clear_faults(QVtd *v)
{
    for (unsigned n = 0; n < v->nfr; n++) {
        qvtd_writel(v, v->frcd + n * 16 + 12, QVTD_FRCD_F >> 32);
    }
    qvtd_writel(v, QVTD_FSTS, QVTD_FSTS_PFO | QVTD_FSTS_IQE | QVTD_FSTS_ICE |
                QVTD_FSTS_ITE);
}

QVtdFault qvtd_take_fault(QVtd *v)
{
    uint32_t fsts = qvtd_readl(v, QVTD_FSTS);
    QVtdFault fault = { .f = false };

    if (fsts & QVTD_FSTS_PPF) {
        fault = qvtd_fault(v, QVTD_FSTS_FRI(fsts));
        g_assert_true(fault.f);
    }
    qvtd_clear_faults(v);
    return fault;
}

void qvtd_assert_no_fault(QVtd *v)
{
    QVtdFault fault = qvtd_take_fault(v);

    g_assert_cmphex(fault.reason, ==, QVTD_FR_NONE);
    g_assert_false(fault.f);
}

void qvtd_assert_fault(QVtd *v, QVtdReason reason, uint16_t sid,
                       uint64_t info, bool read)
{
    QVtdFault fault = qvtd_take_fault(v);

    g_assert_cmphex(fault.reason, ==, reason);
    g_assert_true(fault.f);
    g_assert_cmphex(fault.sid, ==, sid);
    g_assert_cmphex(fault.info, ==, info);
    g_assert_cmpint(fault.read, ==, read);
}

/* --- PCI --- */

static void cfg_select(QVtd *v, uint16_t sid, uint8_t reg)
{
    qtest_outl(v->qts, 0xcf8, BIT(31) | sid << 8 | (reg & ~3));
}

uint32_t qvtd_cfg_readl(QVtd *v, uint16_t sid, uint8_t reg)
{
    cfg_select(v, sid, reg);
    return qtest_inl(v->qts, 0xcfc);
}

void qvtd_cfg_writel(QVtd *v, uint16_t sid, uint8_t reg, uint32_t val)
{
    cfg_select(v, sid, reg);
    qtest_outl(v->qts, 0xcfc, val);
}

void qvtd_cfg_writew(QVtd *v, uint16_t sid, uint8_t reg, uint16_t val)
{
    cfg_select(v, sid, reg);
    qtest_outw(v->qts, 0xcfc + (reg & 2), val);
}

void qvtd_cfg_writeb(QVtd *v, uint16_t sid, uint8_t reg, uint8_t val)
{
    cfg_select(v, sid, reg);
    qtest_outb(v->qts, 0xcfc + (reg & 3), val);
}

uint8_t qvtd_cfg_cap(QVtd *v, uint16_t sid, uint8_t id)
{
    uint8_t pos = qvtd_cfg_readl(v, sid, PCI_CAPABILITY_LIST);

    while (pos) {
        uint32_t head = qvtd_cfg_readl(v, sid, pos);

        if ((head & 0xff) == id) {
            return pos;
        }
        pos = extract32(head, 8, 8);
    }
    g_assert_not_reached();
}

static uint32_t bar_alloc(QVtd *v, uint32_t size)
{
    uint32_t addr = v->bar;

    v->bar += size;
    g_assert_cmphex(v->bar, <=, BAR_END);
    return addr;
}

/*
 * The bridge takes the next @mb MiB of the BAR space, and devices behind it
 * that are set up next are inside.
 */
void qvtd_bridge(QVtd *v, uint16_t sid, uint8_t secondary,
                 uint8_t subordinate, unsigned mb)
{
    uint32_t first = v->bar, last = v->bar + mb * 0x100000 - 1;

    g_assert_cmphex(last, <, BAR_END);
    qvtd_cfg_writeb(v, sid, PCI_PRIMARY_BUS, sid >> 8);
    qvtd_cfg_writeb(v, sid, PCI_SECONDARY_BUS, secondary);
    qvtd_cfg_writeb(v, sid, PCI_SUBORDINATE_BUS, subordinate);
    qvtd_cfg_writew(v, sid, PCI_MEMORY_BASE, first >> 16);
    qvtd_cfg_writew(v, sid, PCI_MEMORY_LIMIT, (last >> 16) & 0xfff0);
    qvtd_cfg_writew(v, sid, PCI_COMMAND,
                    PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

/* --- the edu device --- */

QVtdEdu *qvtd_edu(QVtd *v, uint16_t sid)
{
    QVtdEdu *e = g_new0(QVtdEdu, 1);

    g_assert_cmphex(qvtd_cfg_readl(v, sid, PCI_VENDOR_ID), ==, EDU_ID);
    e->v = v;
    e->sid = sid;
    e->bar = bar_alloc(v, 0x100000);
    qvtd_cfg_writel(v, sid, PCI_BASE_ADDRESS_0, e->bar);
    qvtd_cfg_writew(v, sid, PCI_COMMAND,
                    PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    return e;
}

void qvtd_edu_start(QVtdEdu *e, uint64_t iova, unsigned len, bool read)
{
    QTestState *qts = e->v->qts;

    qtest_writeq(qts, e->bar + EDU_DMA_SRC, read ? iova : EDU_BUFFER);
    qtest_writeq(qts, e->bar + EDU_DMA_DST, read ? EDU_BUFFER : iova);
    qtest_writeq(qts, e->bar + EDU_DMA_COUNT, len);
    qtest_writeq(qts, e->bar + EDU_DMA_CMD,
                 EDU_DMA_RUN | (read ? 0 : EDU_DMA_WRITE));
}

void qvtd_edu_dma(QVtdEdu *e, uint64_t iova, unsigned len, bool read)
{
    qvtd_edu_start(e, iova, len, read);
    qtest_clock_step(e->v->qts, EDU_DMA_NS);
    g_assert_false(qtest_readq(e->v->qts, e->bar + EDU_DMA_CMD) & EDU_DMA_RUN);
}

void qvtd_dma_read(QVtdEdu *e, uint64_t iova)
{
    qvtd_edu_dma(e, iova, QVTD_PAGE, true);
}

void qvtd_dma_write(QVtdEdu *e, uint64_t iova)
{
    qvtd_edu_dma(e, iova, QVTD_PAGE, false);
}

bool qvtd_dma_reads(QVtdDomain *d, QVtdEdu *e, uint64_t iova, uint32_t seed)
{
    qtest_memset(d->v->qts, d->bounce, 0, QVTD_PAGE);
    qvtd_dma_read(e, iova);
    qvtd_dma_write(e, QVTD_BOUNCE_IOVA);
    return qvtd_holds(d->v, d->bounce, seed);
}

/* --- tables of scalable mode --- */

void qvtd_sm_init(QVtd *v)
{
    v->root = qvtd_alloc(v, 1);
    qvtd_set_root(v, v->root | QVTD_RTADDR_TTM_SCALABLE);
}

/* The table that the entry at @addr points to, made with @bits if need be */
static uint64_t sm_table(QVtd *v, uint64_t addr, uint64_t bits)
{
    uint64_t entry = qtest_readq(v->qts, addr);

    if (!entry) {
        entry = qvtd_alloc(v, 1) | bits;
        qtest_writeq(v->qts, addr, entry);
    }
    return entry & 0xfffffffff000ULL;
}

uint64_t qvtd_sm_root_addr(QVtd *v, uint16_t sid)
{
    return v->root + (sid >> 8) * 16 + (sid & 0x80 ? 8 : 0);
}

uint64_t qvtd_sm_context_addr(QVtd *v, uint16_t sid)
{
    return sm_table(v, qvtd_sm_root_addr(v, sid), QVTD_SM_ROOT_P) +
           (sid & 0x7f) * 32;
}

uint64_t qvtd_sm_dir_addr(QVtd *v, uint16_t sid, uint32_t pasid)
{
    uint64_t paside = v->ecap & QVTD_ECAP_PASID ? QVTD_SM_CTX_PASIDE : 0;

    g_assert_cmphex(pasid, <, 0x8000);
    return sm_table(v, qvtd_sm_context_addr(v, sid),
                    QVTD_SM_CTX_P | paside | QVTD_SM_CTX_PDTS(2)) +
           (pasid >> 6) * 8;
}

uint64_t qvtd_sm_pasid_addr(QVtd *v, uint16_t sid, uint32_t pasid)
{
    return sm_table(v, qvtd_sm_dir_addr(v, sid, pasid), QVTD_SM_DIR_P) +
           (pasid & 63) * 64;
}

void qvtd_sm_write_pasid(QVtd *v, uint16_t sid, uint32_t pasid, uint64_t w0,
                         uint64_t w1, uint64_t w2)
{
    uint64_t addr = qvtd_sm_pasid_addr(v, sid, pasid);

    qtest_writeq(v->qts, addr + 16, w2);
    qtest_writeq(v->qts, addr + 8, w1);
    qtest_writeq(v->qts, addr, w0);
}

/* --- the test device (hw/misc/vtd-testdev.c) --- */

QVtdTestdev *qvtd_testdev(QVtd *v, uint16_t sid)
{
    QVtdTestdev *t = g_new0(QVtdTestdev, 1);

    g_assert_cmphex(qvtd_cfg_readl(v, sid, PCI_VENDOR_ID), ==, TESTDEV_ID);
    t->v = v;
    t->sid = sid;
    t->bar = bar_alloc(v, 0x2000);
    qvtd_cfg_writel(v, sid, PCI_BASE_ADDRESS_0, t->bar);
    qvtd_cfg_writew(v, sid, PCI_COMMAND,
                    PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    return t;
}

static uint32_t testdev_run(QVtdTestdev *t, uint32_t pasid, uint64_t iova,
                            unsigned command)
{
    QTestState *qts = t->v->qts;

    qtest_writeq(qts, t->bar + TESTDEV_ADDRESS, iova);
    qtest_writel(qts, t->bar + TESTDEV_LENGTH, 4);
    qtest_writel(qts, t->bar + TESTDEV_PASID,
                 pasid == QVTD_NO_PASID ? 0 : pasid | BIT(31));
    qtest_writel(qts, t->bar + TESTDEV_COMMAND, command);
    return qtest_readl(qts, t->bar + TESTDEV_STATUS);
}

bool qvtd_testdev_read(QVtdTestdev *t, uint32_t pasid, uint64_t iova,
                       uint32_t *value)
{
    uint32_t status = testdev_run(t, pasid, iova, TESTDEV_READ);

    *value = qtest_readl(t->v->qts, t->bar + TESTDEV_BUFFER);
    return status == 0;
}

bool qvtd_testdev_write(QVtdTestdev *t, uint32_t pasid, uint64_t iova,
                        uint32_t value)
{
    qtest_writel(t->v->qts, t->bar + TESTDEV_BUFFER, value);
    return testdev_run(t, pasid, iova, TESTDEV_WRITE) == 0;
}

uint32_t qvtd_testdev_probe(QVtdTestdev *t, uint32_t pasid, uint64_t iova,
                            uint64_t *addr)
{
    uint32_t status = testdev_run(t, pasid, iova, TESTDEV_PROBE);

    *addr = qtest_readq(t->v->qts, t->bar + TESTDEV_RESULT);
    return status;
}

/* --- interrupts --- */

void qvtd_edu_msi(QVtdEdu *e, uint32_t addr, uint32_t data)
{
    uint8_t pos = qvtd_cfg_cap(e->v, e->sid, PCI_CAP_ID_MSI);

    qvtd_cfg_writel(e->v, e->sid, pos + PCI_MSI_ADDRESS_LO, addr);
    qvtd_cfg_writel(e->v, e->sid, pos + PCI_MSI_ADDRESS_HI, 0);
    qvtd_cfg_writew(e->v, e->sid, pos + PCI_MSI_DATA_64, data);
    qvtd_cfg_writew(e->v, e->sid, pos + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE);
}

void qvtd_edu_fire(QVtdEdu *e)
{
    qtest_writel(e->v->qts, e->bar + EDU_IRQ_RAISE, 1);
    qtest_writel(e->v->qts, e->bar + EDU_IRQ_ACK, 1);
}

void qvtd_edu_send(QVtdEdu *e, uint32_t addr, uint32_t data)
{
    qvtd_edu_msi(e, addr, data);
    qvtd_edu_fire(e);
}

/* One line of "info lapic", as "IRR\t 48 49(level) " or "IRR\t (none)" */
static char *lapic_line(QVtd *v, unsigned cpu, const char *name)
{
    g_autofree char *text = qtest_hmp(v->qts, "info lapic %u", cpu);
    g_auto(GStrv) lines = g_strsplit(text, "\n", 0);

    for (char **l = lines; *l; l++) {
        if (g_str_has_prefix(*l, name)) {
            g_strdelimit(*l, "\t\r", ' ');
            return g_strdup(*l);
        }
    }
    g_assert_not_reached();
}

bool qvtd_lapic_irr(QVtd *v, unsigned cpu, uint8_t vector)
{
    g_autofree char *line = lapic_line(v, cpu, "IRR");
    g_autofree char *edge = g_strdup_printf(" %u ", vector);
    g_autofree char *level = g_strdup_printf(" %u(level) ", vector);

    return strstr(line, edge) || strstr(line, level);
}

bool qvtd_lapic_tmr(QVtd *v, unsigned cpu, uint8_t vector)
{
    g_autofree char *line = lapic_line(v, cpu, "IRR");
    g_autofree char *level = g_strdup_printf(" %u(level) ", vector);

    return strstr(line, level);
}

void qvtd_ir_init(QVtd *v, unsigned s, bool eime)
{
    unsigned bytes = 16 << (s + 1);

    v->irt = qvtd_alloc(v, DIV_ROUND_UP(bytes, QVTD_PAGE));
    qvtd_writeq(v, QVTD_IRTA, v->irt | QVTD_IRTA_S(s) |
                (eime ? QVTD_IRTA_EIME : 0));
    qvtd_gcmd_set(v, QVTD_GCMD_SIRTP);
    qvtd_gcmd_set(v, QVTD_GCMD_IRE);
}

/* The half with the present bit last */
void qvtd_write_irte(QVtd *v, unsigned index, uint64_t lo, uint64_t hi)
{
    qtest_writeq(v->qts, v->irt + index * 16 + 8, hi);
    qtest_writeq(v->qts, v->irt + index * 16, lo);
}

/* Figure of section 5.1.2.2: handle[14:0] in bits 19:5, handle[15] in bit 2 */
uint32_t qvtd_msi_addr(unsigned handle)
{
    return QVTD_MSI_BASE | QVTD_MSI_REMAPPABLE |
           (handle & 0x7fff) << 5 | (handle >> 15) << 2;
}
