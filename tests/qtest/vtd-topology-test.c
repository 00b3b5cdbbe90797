/*
 * VT-d: whom a DMA and an interrupt are attributed to, and whether the unit
 * has a say in them at all (VT-d specification, 3.4.1 and 5.1.2)
 *
 * Bridges give requests a requester-id by the rules of the PCI Express to PCI
 * bridge specification, 2.3; buses may be told to bypass the unit; virtual
 * functions are requesters of their own.  Plain ports, bus numbers and reset
 * are in vtd-plug-test.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "qobject/qdict.h"
#include "hw/net/igb_regs.h"
#include "hw/pci/pci_regs.h"
#include "libqos/intel-iommu.h"

#define IOVA        0x12345000ULL
#define UNMAPPED    0x7000ULL
#define NO_EIM      "intremap=on,eim=off"

/* Domain of the requester that a test looks at */
#define DOMAIN      3

#define PORT(id, slot) \
    "-device pcie-root-port,id=" id ",addr=" slot ",chassis=" slot " "
#define PXB         "-device pxb-pcie,id=px,bus_nr=64,addr=5"

/* --- one requester in one place --- */

typedef struct Bridge {
    uint16_t sid;           /* 0 ends the list */
    uint8_t secondary;
    uint8_t subordinate;
} Bridge;

/**
 * Place: where a device is, and what the unit must see of it
 * @machine: options of -machine, may be NULL
 * @args: the devices
 * @bridges: in the order in which software finds them
 * @device: bus, device and function of the edu device
 * @source: requester-id of its requests
 * @bypass: the unit sees none of them
 */
typedef struct Place {
    const char *name;
    const char *machine;
    const char *args;
    Bridge bridges[5];
    uint16_t device;
    uint16_t source;
    bool bypass;
} Place;

static const Place places[] = {
    { "3.4.1/root-bus", NULL, QVTD_EDU ",bus=pcie.0,addr=3", { { 0 } },
      QVTD_SID(0, 3, 0), QVTD_SID(0, 3, 0) },
    { "3.4.1/function-of-many", NULL,
      PORT("rp", "3") QVTD_EDU ",bus=rp,addr=0.0,multifunction=on "
      QVTD_EDU ",bus=rp,addr=0.5",
      { { QVTD_SID(0, 3, 0), 5, 5 } },
      QVTD_SID(5, 0, 5), QVTD_SID(5, 0, 5) },
    { "3.4.1/switch", NULL,
      PORT("rp", "3") "-device x3130-upstream,id=up,bus=rp "
      "-device xio3130-downstream,id=d1,bus=up,addr=1,chassis=11 "
      "-device xio3130-downstream,id=d2,bus=up,addr=2,chassis=12 "
      QVTD_EDU ",bus=d2,addr=0",
      { { QVTD_SID(0, 3, 0), 5, 8 }, { QVTD_SID(5, 0, 0), 6, 8 },
        { QVTD_SID(6, 2, 0), 8, 8 } },
      QVTD_SID(8, 0, 0), QVTD_SID(8, 0, 0) },
    /* All that is behind is its secondary bus, device 0, function 0 */
    { "3.4.1/express-to-pci-bridge", NULL,
      PORT("rp", "3") "-device pcie-pci-bridge,id=pb,bus=rp "
      QVTD_EDU ",bus=pb,addr=7",
      { { QVTD_SID(0, 3, 0), 5, 9 }, { QVTD_SID(5, 0, 0), 9, 9 } },
      QVTD_SID(9, 7, 0), QVTD_SID(9, 0, 0) },
    { "3.4.1/pci-bridge-behind-it", NULL,
      PORT("rp", "3") "-device pcie-pci-bridge,id=pb,bus=rp "
      "-device pci-bridge,id=pci,bus=pb,addr=4,chassis_nr=21 "
      QVTD_EDU ",bus=pci,addr=7",
      { { QVTD_SID(0, 3, 0), 5, 10 }, { QVTD_SID(5, 0, 0), 9, 10 },
        { QVTD_SID(9, 4, 0), 10, 10 } },
      QVTD_SID(10, 7, 0), QVTD_SID(9, 0, 0) },
    /* A bridge without an Express capability is itself the requester */
    { "3.4.1/dmi-to-pci-bridge", NULL,
      "-device i82801b11-bridge,id=dmi,addr=3 "
      QVTD_EDU ",bus=dmi,addr=7",
      { { QVTD_SID(0, 3, 0), 5, 5 } },
      QVTD_SID(5, 7, 0), QVTD_SID(0, 3, 0) },
    { "3.4.1/pci-bridge", NULL,
      "-device i82801b11-bridge,id=dmi,addr=3 "
      "-device pci-bridge,id=pci,bus=dmi,addr=1,chassis_nr=21 "
      QVTD_EDU ",bus=pci,addr=7",
      { { QVTD_SID(0, 3, 0), 5, 6 }, { QVTD_SID(5, 1, 0), 6, 6 } },
      QVTD_SID(6, 7, 0), QVTD_SID(0, 3, 0) },
    { "3.4.1/bridge-on-expander", NULL,
      PXB " -device i82801b11-bridge,id=dmi,bus=px,addr=2 "
      QVTD_EDU ",bus=dmi,addr=7",
      { { QVTD_SID(64, 2, 0), 65, 65 } },
      QVTD_SID(65, 7, 0), QVTD_SID(64, 2, 0) },
    { "3.4.1/port-of-expander", NULL,
      PXB " -device pcie-root-port,id=rp,bus=px,addr=1,chassis=1 "
      QVTD_EDU ",bus=rp,addr=0",
      { { QVTD_SID(64, 1, 0), 65, 65 } },
      QVTD_SID(65, 0, 0), QVTD_SID(65, 0, 0) },
    { "3.4.1/bridge-of-expander", NULL,
      PXB " -device pcie-root-port,id=rp,bus=px,addr=1,chassis=1 "
      "-device pcie-pci-bridge,id=pb,bus=rp " QVTD_EDU ",bus=pb,addr=3",
      { { QVTD_SID(64, 1, 0), 65, 66 }, { QVTD_SID(65, 0, 0), 66, 66 } },
      QVTD_SID(66, 3, 0), QVTD_SID(66, 0, 0) },
    { "bypass/bridge-on-expander", NULL,
      PXB ",bypass_iommu=on -device i82801b11-bridge,id=dmi,bus=px,addr=2 "
      QVTD_EDU ",bus=dmi,addr=7",
      { { QVTD_SID(64, 2, 0), 65, 65 } },
      QVTD_SID(65, 7, 0), 0, true },
    { "bypass/port-of-expander", NULL,
      PXB ",bypass_iommu=on "
      "-device pcie-root-port,id=rp,bus=px,addr=1,chassis=1 "
      QVTD_EDU ",bus=rp,addr=0",
      { { QVTD_SID(64, 1, 0), 65, 65 } },
      QVTD_SID(65, 0, 0), 0, true },
    { "bypass/not-the-root-bus", NULL,
      PXB ",bypass_iommu=on " QVTD_EDU ",bus=pcie.0,addr=3", { { 0 } },
      QVTD_SID(0, 3, 0), QVTD_SID(0, 3, 0) },
    { "bypass/root-bus", "default-bus-bypass-iommu=on",
      QVTD_EDU ",bus=pcie.0,addr=3", { { 0 } }, QVTD_SID(0, 3, 0), 0, true },
    { "bypass/root-port", "default-bus-bypass-iommu=on",
      PORT("rp", "3") QVTD_EDU ",bus=rp,addr=0",
      { { QVTD_SID(0, 3, 0), 5, 5 } }, QVTD_SID(5, 0, 0), 0, true },
    { "bypass/not-the-expander", "default-bus-bypass-iommu=on",
      PXB " -device pcie-root-port,id=rp,bus=px,addr=1,chassis=1 "
      QVTD_EDU ",bus=rp,addr=0",
      { { QVTD_SID(64, 1, 0), 65, 65 } },
      QVTD_SID(65, 0, 0), QVTD_SID(65, 0, 0) },
};

static QVtd *start_place(const Place *p, const char *env)
{
    g_autofree char *args = g_strdup_printf(
        "%s%s %s", p->machine ? "-machine " : "", p->machine ?: "", p->args);

    return qvtd_start_env(env, NO_EIM, args);
}

/* The same machine, but for the unit that is now named last */
static void restart_unit_last(QVtd *v, const Place *p)
{
    qtest_quit(v->qts);
    v->qts = qtest_initf("-M q35,%s -m 256 -nodefaults %s -device intel-iommu,"
                         NO_EIM, p->machine ?: "sata=on", p->args);
}

/* A domain with one page of pattern @seed, attached to @sid */
static QVtdDomain *domain_for(QVtd *v, uint16_t sid, uint16_t id,
                              uint32_t seed)
{
    QVtdDomain *d = qvtd_domain_new(v, id, 4);

    qvtd_map(d, IOVA, qvtd_alloc_pattern(v, seed), QVTD_PTE_RW);
    qvtd_attach(d, sid);
    return d;
}

static QVtdEdu *find_device(QVtd *v, const Place *p)
{
    for (const Bridge *b = p->bridges; b->sid; b++) {
        qvtd_bridge(v, b->sid, b->secondary, b->subordinate, 8);
    }
    return qvtd_edu(v, p->device);
}

/* Only the requester's own context entry, and its own faults */
static void check_dma(QVtd *v, QVtdEdu *e, uint16_t source)
{
    QVtdDomain *d;

    qvtd_tables_init(v);
    d = domain_for(v, source, DOMAIN, 9);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    g_assert_true(qvtd_dma_reads(d, e, IOVA, 9));
    qvtd_assert_no_fault(v);
    qvtd_dma_read(e, UNMAPPED);
    qvtd_assert_fault(v, QVTD_FR_READ, source, UNMAPPED, true);
    qvtd_dma_write(e, UNMAPPED);
    qvtd_assert_fault(v, QVTD_FR_WRITE, source, UNMAPPED, false);
}

static void irte_from(QVtd *v, unsigned index, uint16_t sid)
{
    qvtd_write_irte(v, index, QVTD_IRTE_P | QVTD_IRTE_VECTOR(0x40 + index),
                    QVTD_IRTE_SVT(QVTD_SVT_SID) | QVTD_IRTE_SID(sid));
}

/* One entry that its source may use, and one that is another function's */
static void check_interrupt(QVtd *v, QVtdEdu *e, uint16_t source)
{
    qvtd_ir_init(v, 7, false);
    irte_from(v, 1, source);
    irte_from(v, 2, source ^ 1);
    qvtd_edu_send(e, qvtd_msi_addr(1), 0);
    qvtd_assert_no_fault(v);
    g_assert_true(qvtd_lapic_irr(v, 0, 0x41));
    qvtd_edu_send(e, qvtd_msi_addr(2), 0);
    g_assert_false(qvtd_lapic_irr(v, 0, 0x42));
    qvtd_assert_fault(v, QVTD_FR_IR_SID, source, 2ULL << 48, false);
}

/* Translation and remapping are on, nothing is allowed, and all arrives */
static void check_bypass(QVtd *v, QVtdEdu *e)
{
    uint64_t from = qvtd_alloc_pattern(v, 9), to = qvtd_alloc(v, 1);

    qvtd_tables_init(v);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    qvtd_dma_read(e, from);
    qvtd_dma_write(e, to);
    g_assert_true(qvtd_holds(v, to, 9));
    qvtd_ir_init(v, 7, false);
    qvtd_edu_send(e, QVTD_MSI_BASE, 0x51);
    g_assert_true(qvtd_lapic_irr(v, 0, 0x51));
    qvtd_assert_no_fault(v);
}

static void check_place(QVtd *v, const Place *p)
{
    g_autofree QVtdEdu *e = find_device(v, p);

    if (p->bypass) {
        check_bypass(v, e);
    } else {
        check_dma(v, e, p->source);
        check_interrupt(v, e, p->source);
    }
    qvtd_quit(v);
}

static void test_place(const void *data)
{
    check_place(start_place(data, NULL), data);
}

/* It must not matter that the devices are there before the unit */
static void test_place_unit_last(const void *data)
{
    const Place *p = data;
    QVtd *v = start_place(p, NULL);

    restart_unit_last(v, p);
    check_place(v, p);
}

/* These attributions are those of QEMU's own model */
static void test_place_stock(const void *data)
{
    check_place(start_place(data, "QTEST_STOCK_QEMU_BINARY"), data);
}

static void add_places(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
        const Place *p = &places[i];
        g_autofree char *path = g_strdup_printf("/vtd/topology/%s", p->name);
        g_autofree char *last = g_strdup_printf("%s/unit-last", path);
        g_autofree char *stock = g_strdup_printf("%s/stock", path);

        qtest_add_data_func(path, p, test_place);
        qtest_add_data_func(last, p, test_place_unit_last);
        if (getenv("QTEST_STOCK_QEMU_BINARY")) {
            qtest_add_data_func(stock, p, test_place_stock);
        }
    }
}

/* --- several requesters --- */

/* Two ports of one switch, and the switch's own numbers in between */
static void test_switch_isolates(void)
{
    QVtd *v = qvtd_start(NULL, PORT("rp", "3")
                         "-device x3130-upstream,id=up,bus=rp "
                         "-device xio3130-downstream,id=d1,bus=up,addr=1,"
                         "chassis=11 "
                         "-device xio3130-downstream,id=d2,bus=up,addr=2,"
                         "chassis=12 "
                         QVTD_EDU ",bus=d1,addr=0 " QVTD_EDU ",bus=d2,addr=0");
    uint16_t sids[2] = { QVTD_SID(7, 0, 0), QVTD_SID(8, 0, 0) };
    QVtdEdu *e[2];
    QVtdDomain *d[2];

    qvtd_bridge(v, QVTD_SID(0, 3, 0), 5, 8, 8);
    qvtd_bridge(v, QVTD_SID(5, 0, 0), 6, 8, 8);
    for (int i = 0; i < 2; i++) {
        qvtd_bridge(v, QVTD_SID(6, 1 + i, 0), sids[i] >> 8, sids[i] >> 8, 1);
        e[i] = qvtd_edu(v, sids[i]);
    }
    qvtd_tables_init(v);
    for (int i = 0; i < 2; i++) {
        d[i] = domain_for(v, sids[i], DOMAIN + i, 9 + i);
    }
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    for (int i = 0; i < 4; i++) {
        g_assert_true(qvtd_dma_reads(d[i % 2], e[i % 2], IOVA, 9 + i % 2));
    }
    qvtd_assert_no_fault(v);
    qvtd_write_context(v, sids[1], 0, 0);
    qvtd_flush_all(v);
    g_assert_true(qvtd_dma_reads(d[0], e[0], IOVA, 9));
    qvtd_assert_no_fault(v);
    qvtd_dma_read(e[1], IOVA);
    qvtd_assert_fault(v, QVTD_FR_CTX_NOT_PRESENT, sids[1], IOVA, true);
    qvtd_quit(v);
}

/* Software renumbers the bus whose number all devices on it go by */
static void test_alias_renumbered(void)
{
    QVtd *v = qvtd_start(NO_EIM, PORT("rp", "3")
                         "-device pcie-pci-bridge,id=pb,bus=rp "
                         QVTD_EDU ",bus=pb,addr=7");
    uint16_t bridge = QVTD_SID(5, 0, 0);
    uint16_t sids[2] = { QVTD_SID(6, 0, 0), QVTD_SID(9, 0, 0) };
    QVtdDomain *d[2];
    QVtdEdu *e;

    qvtd_bridge(v, QVTD_SID(0, 3, 0), 5, 9, 8);
    qvtd_bridge(v, bridge, 6, 9, 8);
    e = qvtd_edu(v, QVTD_SID(6, 7, 0));
    qvtd_tables_init(v);
    d[0] = domain_for(v, sids[0], DOMAIN, 9);
    d[1] = domain_for(v, sids[1], DOMAIN + 1, 10);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    qvtd_ir_init(v, 7, false);
    for (int i = 0; i < 4; i++) {
        e->sid = QVTD_SID(sids[i % 2] >> 8, 7, 0);
        qvtd_cfg_writeb(v, bridge, PCI_SECONDARY_BUS, e->sid >> 8);
        g_assert_true(qvtd_dma_reads(d[i % 2], e, IOVA, 9 + i % 2));
        irte_from(v, i, sids[i % 2]);
        qvtd_edu_send(e, qvtd_msi_addr(i), 0);
        g_assert_true(qvtd_lapic_irr(v, 0, 0x40 + i));
        qvtd_assert_no_fault(v);
        qvtd_dma_read(e, UNMAPPED);
        qvtd_assert_fault(v, QVTD_FR_READ, sids[i % 2], UNMAPPED, true);
    }
    qvtd_quit(v);
}

/* Two root buses, one of which bypasses the unit: the other one does not */
static void test_bypass_beside(void)
{
    QVtd *v = qvtd_start(NULL, PXB ",bypass_iommu=on "
                         "-device pxb-pcie,id=py,bus=pcie.0,bus_nr=96,addr=6 "
                         "-device pcie-root-port,id=rpx,bus=px,chassis=1 "
                         "-device pcie-root-port,id=rpy,bus=py,chassis=2 "
                         QVTD_EDU ",bus=rpx " QVTD_EDU ",bus=rpy");
    uint16_t sid = QVTD_SID(97, 0, 0);
    uint64_t page = qvtd_alloc_pattern(v, 11);
    QVtdEdu *e, *free;
    QVtdDomain *d;

    qvtd_bridge(v, QVTD_SID(64, 0, 0), 65, 65, 1);
    free = qvtd_edu(v, QVTD_SID(65, 0, 0));
    qvtd_bridge(v, QVTD_SID(96, 0, 0), 97, 97, 1);
    e = qvtd_edu(v, sid);
    qvtd_tables_init(v);
    d = domain_for(v, sid, DOMAIN, 9);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    for (int i = 0; i < 2; i++) {
        g_assert_true(qvtd_dma_reads(d, e, IOVA, 9));
        qvtd_dma_read(free, page);
        qvtd_dma_write(free, page + i);
        qvtd_assert_no_fault(v);
        qvtd_dma_read(e, page);
        qvtd_assert_fault(v, QVTD_FR_READ, sid, page, true);
    }
    qvtd_quit(v);
}

/* The IOAPIC is no device of the root bus: it does not bypass with it */
static void test_ioapic_does_not_bypass(void)
{
    QVtd *v = qvtd_start(NO_EIM, "-machine default-bus-bypass-iommu=on");
    const uint64_t ioapic = 0xfec00000;
    const uint16_t sid = QVTD_SID(0xff, 0, 0);
    static const struct {
        uint8_t reg;
        uint32_t val;
    } route[] = {
        /* pin 10, remappable format, index 1 (section 5.1.5.1) */
        { 0x11 + 2 * 10, 1 << 17 | 1 << 16 }, { 0x10 + 2 * 10, 0 },
        /* pin 11, index 2 */
        { 0x11 + 2 * 11, 2 << 17 | 1 << 16 }, { 0x10 + 2 * 11, 0 },
    };

    qvtd_ir_init(v, 7, false);
    irte_from(v, 1, sid);
    irte_from(v, 2, sid ^ 1);
    for (unsigned i = 0; i < ARRAY_SIZE(route); i++) {
        qtest_writel(v->qts, ioapic, route[i].reg);
        qtest_writel(v->qts, ioapic + 0x10, route[i].val);
    }
    qtest_set_irq_in(v->qts, "/machine/q35/ioapic", NULL, 10, 1);
    qvtd_assert_no_fault(v);
    g_assert_true(qvtd_lapic_irr(v, 0, 0x41));
    qtest_set_irq_in(v->qts, "/machine/q35/ioapic", NULL, 11, 1);
    qvtd_assert_fault(v, QVTD_FR_IR_SID, sid, 2ULL << 48, false);
    g_assert_false(qvtd_lapic_irr(v, 0, 0x42));
    qvtd_quit(v);
}

/* --- virtual functions --- */

#define PF          QVTD_SID(0, 4, 0)
#define VFS         3

/* Extended configuration space is where q35's PCIEXBAR (0x60) puts it */
#define ECAM        0xb0000000ULL
#define PCIEXBAR    0x60

#define RING        0x40000000ULL
#define DATA        0x40001000ULL

static uint64_t ecam(uint16_t sid, unsigned offset)
{
    return ECAM + ((uint64_t)sid << 12) + offset;
}

/**
 * Functions: the virtual functions of the device at PF
 * @cap: address of its SR-IOV capability
 * @bar: BARs 0 of the physical and of the first virtual function, and that
 *       one's BAR 3
 */
typedef struct Functions {
    QVtd *v;
    uint64_t cap;
    uint32_t pf_bar;
    uint32_t vf_bar;
    uint32_t vf_bar3;
} Functions;

static uint64_t find_sriov(QVtd *v)
{
    unsigned offset = PCI_CFG_SPACE_SIZE;

    while (offset) {
        uint32_t head = qtest_readl(v->qts, ecam(PF, offset));

        if (PCI_EXT_CAP_ID(head) == PCI_EXT_CAP_ID_SRIOV) {
            return ecam(PF, offset);
        }
        offset = PCI_EXT_CAP_NEXT(head);
    }
    g_assert_not_reached();
}

static uint32_t take_bar(QVtd *v)
{
    uint32_t bar = v->bar;

    v->bar += 0x100000;
    return bar;
}

static uint16_t vf_sid(Functions *f, unsigned i)
{
    QTestState *qts = f->v->qts;

    return PF + qtest_readw(qts, f->cap + PCI_SRIOV_VF_OFFSET) +
           i * qtest_readw(qts, f->cap + PCI_SRIOV_VF_STRIDE);
}

static void functions_off(Functions *f)
{
    qtest_writew(f->v->qts, f->cap + PCI_SRIOV_CTRL, 0);
}

static void functions_on(Functions *f)
{
    QTestState *qts = f->v->qts;

    qtest_writew(qts, f->cap + PCI_SRIOV_NUM_VF, VFS);
    qtest_writeq(qts, f->cap + PCI_SRIOV_BAR, f->vf_bar);
    qtest_writeq(qts, f->cap + PCI_SRIOV_BAR + 3 * 4, f->vf_bar3);
    qtest_writew(qts, f->cap + PCI_SRIOV_CTRL,
                 PCI_SRIOV_CTRL_VFE | PCI_SRIOV_CTRL_MSE);
    for (int i = 0; i < VFS; i++) {
        qvtd_cfg_writew(f->v, vf_sid(f, i), PCI_COMMAND,
                        PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    }
}

static Functions *functions_start(const char *device)
{
    Functions *f = g_new0(Functions, 1);
    QVtd *v = qvtd_start(NO_EIM, device);

    f->v = v;
    f->pf_bar = take_bar(v);
    f->vf_bar = take_bar(v);
    f->vf_bar3 = take_bar(v);
    qvtd_cfg_writel(v, 0, PCIEXBAR + 4, 0);
    qvtd_cfg_writel(v, 0, PCIEXBAR, ECAM | 1);
    f->cap = find_sriov(v);
    qvtd_cfg_writel(v, PF, PCI_BASE_ADDRESS_0, f->pf_bar);
    qvtd_cfg_writew(v, PF, PCI_COMMAND,
                    PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    functions_on(f);
    return f;
}

static void functions_quit(Functions *f)
{
    qvtd_quit(f->v);
    g_free(f);
}

/* --- igb: each virtual function has a transmit queue of its own --- */

#define IGB_VF_BAR_SIZE     0x4000

static void igb_write(Functions *f, uint32_t reg, uint32_t val)
{
    qtest_writel(f->v->qts, f->pf_bar + reg, val);
}

static void igbvf_write(Functions *f, unsigned i, uint32_t reg, uint32_t val)
{
    qtest_writel(f->v->qts, f->vf_bar + i * IGB_VF_BAR_SIZE + reg, val);
}

static void igb_setup(Functions *f)
{
    igb_write(f, E1000_MRQC, E1000_MRQC_ENABLE_VMDQ);
    igb_write(f, E1000_VFTE, 0xff);
    igb_write(f, E1000_TCTL, E1000_TCTL_EN);
    igb_write(f, E1000_GPIE, E1000_GPIE_MSIX_MODE);
}

static void igbvf_ring(Functions *f, unsigned i, uint64_t ring)
{
    igbvf_write(f, i, E1000_TXDCTL_A(0), 0);
    igbvf_write(f, i, E1000_TDBAL_A(0), ring);
    igbvf_write(f, i, E1000_TDBAH_A(0), ring >> 32);
    igbvf_write(f, i, E1000_TDLEN_A(0), 128);
    igbvf_write(f, i, E1000_TDH_A(0), 0);
    igbvf_write(f, i, E1000_TDT_A(0), 0);
    igbvf_write(f, i, E1000_TXDCTL_A(0), E1000_TXDCTL_QUEUE_ENABLE);
}

/* One frame of 64 bytes at @data, described at @ring in guest memory */
static void igb_describe(QVtd *v, uint64_t ring, uint64_t data)
{
    qtest_writeq(v->qts, ring, data);
    qtest_writel(v->qts, ring + 8, 64 | E1000_ADVTXD_DTYP_DATA |
                 E1000_ADVTXD_DCMD_DEXT | E1000_TXD_CMD_EOP |
                 E1000_TXD_CMD_RS);
    qtest_writel(v->qts, ring + 12, 64 << 14);
}

static bool igb_done(QVtd *v, uint64_t ring)
{
    return qtest_readl(v->qts, ring + 12) & E1000_TXD_STAT_DD;
}

/* Returns where the function's ring is in guest memory */
static uint64_t igbvf_domain(Functions *f, unsigned i)
{
    QVtdDomain *d = qvtd_domain_new(f->v, DOMAIN + i, 4);
    uint64_t ring = qvtd_alloc(f->v, 1);

    qvtd_map(d, RING, ring, QVTD_PTE_RW);
    qvtd_map(d, DATA, qvtd_alloc(f->v, 1), QVTD_PTE_R);
    qvtd_attach(d, vf_sid(f, i));
    g_free(d);
    return ring;
}

/* All have their rings at the same address, each in its own domain */
static void igbvf_transmit_all(Functions *f)
{
    uint64_t ring[VFS];

    for (int i = 0; i < VFS; i++) {
        ring[i] = igbvf_domain(f, i);
        igb_describe(f->v, ring[i], DATA);
    }
    qvtd_flush_all(f->v);
    for (int i = 0; i < VFS; i++) {
        igbvf_ring(f, i, RING);
        g_assert_false(igb_done(f->v, ring[i]));
        igbvf_write(f, i, E1000_TDT_A(0), 1);
        qvtd_assert_no_fault(f->v);
        g_assert_true(igb_done(f->v, ring[i]));
    }
}

static void igbvf_fault_all(Functions *f)
{
    for (int i = 0; i < VFS; i++) {
        igbvf_ring(f, i, UNMAPPED);
        igbvf_write(f, i, E1000_TDT_A(0), 1);
        qvtd_assert_fault(f->v, QVTD_FR_READ, vf_sid(f, i), UNMAPPED, true);
    }
}

/* Queue 3 belongs to no virtual function here: the physical one is asked */
static void igb_fault(Functions *f)
{
    igb_write(f, E1000_TDBAL(3), UNMAPPED);
    igb_write(f, E1000_TDLEN(3), 128);
    igb_write(f, E1000_TDH(3), 0);
    igb_write(f, E1000_TXDCTL(3), E1000_TXDCTL_QUEUE_ENABLE);
    igb_write(f, E1000_TDT(3), 1);
    qvtd_assert_fault(f->v, QVTD_FR_CTX_NOT_PRESENT, PF, UNMAPPED, true);
}

/* 3.4.1: DMA of virtual functions, also after they were gone for a while */
static void test_igb_dma(void)
{
    Functions *f = functions_start("-device igb,addr=4");

    qvtd_tables_init(f->v);
    qvtd_gcmd_set(f->v, QVTD_GCMD_TE);
    for (int round = 0; round < 3; round++) {
        igb_setup(f);
        igbvf_transmit_all(f);
        igbvf_fault_all(f);
        igb_fault(f);
        functions_off(f);
        functions_on(f);
    }
    functions_quit(f);
}

/* Vector 0 of the function, by remapping table entry @index */
static void igbvf_vector(Functions *f, unsigned i, unsigned index)
{
    uint64_t entry = f->vf_bar3 + i * IGB_VF_BAR_SIZE;
    uint8_t cap = qvtd_cfg_cap(f->v, vf_sid(f, i), PCI_CAP_ID_MSIX);

    qtest_writel(f->v->qts, entry, qvtd_msi_addr(index));
    qtest_writel(f->v->qts, entry + 4, 0);
    qtest_writel(f->v->qts, entry + 8, 0);
    qtest_writel(f->v->qts, entry + 12, 0);
    qvtd_cfg_writew(f->v, vf_sid(f, i), cap + PCI_MSIX_FLAGS,
                    PCI_MSIX_FLAGS_ENABLE);
}

static void igbvf_fire(Functions *f, unsigned i)
{
    igbvf_write(f, i, E1000_EIMS, 1);
    igbvf_write(f, i, E1000_EICS, 1);
    igbvf_write(f, i, E1000_EICR, 1);
}

/* 5.1.2: an interrupt comes from the virtual function, not from its parent */
static void test_igb_interrupt(void)
{
    Functions *f = functions_start("-device igb,addr=4");
    QVtd *v = f->v;

    igb_setup(f);
    qvtd_ir_init(v, 7, false);
    for (unsigned i = 0; i < VFS; i++) {
        irte_from(v, i, vf_sid(f, i));
        igbvf_vector(f, i, i);
        igbvf_fire(f, i);
        qvtd_assert_no_fault(v);
        g_assert_true(qvtd_lapic_irr(v, 0, 0x40 + i));
    }
    for (unsigned i = 0; i < VFS; i++) {
        irte_from(v, 8 + i, PF);
        igbvf_vector(f, i, 8 + i);
        igbvf_fire(f, i);
        qvtd_assert_fault(v, QVTD_FR_IR_SID, vf_sid(f, i),
                          (uint64_t)(8 + i) << 48, false);
        g_assert_false(qvtd_lapic_irr(v, 0, 0x48 + i));
    }
    functions_quit(f);
}

/* --- nvme: the physical function gives the virtual ones their queues --- */

#define NVME        "-device nvme-subsys,id=sub -device nvme,addr=4,serial=x," \
                    "subsys=sub,max_ioqpairs=16,msix_qsize=16," \
                    "sriov_max_vfs=3,sriov_vq_flexible=6,sriov_vi_flexible=3"

/* Controller registers and commands, NVM Express specification */
#define NVME_CC             0x14
#define NVME_CSTS           0x1c
#define NVME_AQA            0x24
#define NVME_ASQ            0x28
#define NVME_ACQ            0x30
#define NVME_DOORBELL       0x1000
#define NVME_CC_ON          (6 << 16 | 4 << 20 | 1)
#define NVME_GET_FEATURES   0x0a
#define NVME_VIRTUALIZATION 0x1c
#define NVME_ASSIGN         8
#define NVME_ONLINE         9

/**
 * Controller: one NVMe controller, with its admin queues
 * @bar: its registers
 * @sq, @cq: the queues in guest memory
 * @tail: of the submission queue, from which on its phase does not change
 */
typedef struct Controller {
    QVtd *v;
    uint32_t bar;
    uint64_t sq;
    uint64_t cq;
    unsigned tail;
} Controller;

static Controller nvme_start(QVtd *v, uint32_t bar, uint64_t iova,
                             uint64_t sq)
{
    Controller c = { .v = v, .bar = bar, .sq = sq, .cq = sq + QVTD_PAGE };

    qtest_writel(v->qts, bar + NVME_CC, 0);
    qtest_writel(v->qts, bar + NVME_AQA, 31 << 16 | 31);
    qtest_writeq(v->qts, bar + NVME_ASQ, iova);
    qtest_writeq(v->qts, bar + NVME_ACQ, iova + QVTD_PAGE);
    qtest_writel(v->qts, bar + NVME_CC, NVME_CC_ON);
    g_assert_cmphex(qtest_readl(v->qts, bar + NVME_CSTS), ==, 1);
    return c;
}

static void nvme_submit(Controller *c, uint8_t opcode, uint32_t dw10,
                        uint32_t dw11)
{
    QTestState *qts = c->v->qts;
    uint64_t entry = c->sq + c->tail * 64;

    qtest_memset(qts, entry, 0, 64);
    qtest_writel(qts, entry, opcode);
    qtest_writel(qts, entry + 40, dw10);
    qtest_writel(qts, entry + 44, dw11);
    qtest_writel(qts, c->bar + NVME_DOORBELL, ++c->tail);
}

/* The last command has been completed, without an error */
static bool nvme_completed(Controller *c)
{
    for (int i = 0; i < 100; i++) {
        uint32_t dw3 = qtest_readl(c->v->qts,
                                   c->cq + (c->tail - 1) * 16 + 12);

        if (dw3 & 1 << 16) {
            return !(dw3 >> 17);
        }
        qtest_clock_step(c->v->qts, 1000 * 1000);
    }
    return false;
}

static void nvme_command(Controller *c, uint8_t opcode, uint32_t dw10,
                         uint32_t dw11)
{
    nvme_submit(c, opcode, dw10, dw11);
    g_assert_true(nvme_completed(c));
}

/* A domain where the queues of a controller are mapped at RING */
static uint64_t nvme_domain(QVtd *v, uint16_t sid, unsigned id)
{
    QVtdDomain *d = qvtd_domain_new(v, id, 4);
    uint64_t queues = qvtd_alloc(v, 2);

    qvtd_map(d, RING, queues, QVTD_PTE_R);
    qvtd_map(d, RING + QVTD_PAGE, queues + QVTD_PAGE, QVTD_PTE_RW);
    qvtd_attach(d, sid);
    g_free(d);
    return queues;
}

/* Secondary controllers are numbered behind the primary one */
static void nvme_online(Controller *pf, unsigned i)
{
    uint32_t id = (i + 1) << 16;

    nvme_command(pf, NVME_VIRTUALIZATION, id | 0 << 8 | NVME_ASSIGN, 2);
    nvme_command(pf, NVME_VIRTUALIZATION, id | 1 << 8 | NVME_ASSIGN, 1);
    nvme_command(pf, NVME_VIRTUALIZATION, id | NVME_ONLINE, 0);
}

static uint32_t nvme_vf_bar_size(Functions *f)
{
    QTestState *qts = f->v->qts;
    uint64_t bar = f->cap + PCI_SRIOV_BAR;
    uint32_t mask;

    qtest_writel(qts, bar, 0xffffffff);
    mask = qtest_readl(qts, bar) & PCI_BASE_ADDRESS_MEM_MASK;
    qtest_writel(qts, bar, f->vf_bar);
    return -mask;
}

static void test_nvme(void)
{
    Functions *f = functions_start(NVME);
    uint32_t size = nvme_vf_bar_size(f);
    QVtd *v = f->v;
    Controller pf;

    qvtd_tables_init(v);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    pf = nvme_start(v, f->pf_bar, RING, nvme_domain(v, PF, DOMAIN));
    for (unsigned i = 0; i < VFS; i++) {
        uint16_t sid = vf_sid(f, i);
        Controller c;

        nvme_online(&pf, i);
        c = nvme_start(v, f->vf_bar + i * size, RING,
                       nvme_domain(v, sid, DOMAIN + 1 + i));
        nvme_command(&c, NVME_GET_FEATURES, 0x7, 0);
        qvtd_assert_no_fault(v);
        qvtd_write_context(v, sid, 0, 0);
        qvtd_flush_all(v);
        nvme_submit(&c, NVME_GET_FEATURES, 0x7, 0);
        g_assert_false(nvme_completed(&c));
        qvtd_assert_fault(v, QVTD_FR_CTX_NOT_PRESENT, sid, RING, true);
    }
    functions_quit(f);
}

/* --- what comes and goes --- */

/* Native PCI Express hot-plug instead of ACPI's */
#define NATIVE      "-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off "

static void slot_control(QVtd *v, uint16_t port, uint16_t val)
{
    uint8_t pos = qvtd_cfg_cap(v, port, PCI_CAP_ID_EXP);

    qvtd_cfg_writew(v, port, pos + PCI_EXP_SLTCTL, val);
}

static void unplug(QVtd *v, uint16_t port, const char *id)
{
    qtest_qmp_device_del_send(v->qts, id);
    slot_control(v, port, PCI_EXP_SLTCTL_PWR_IND_OFF |
                 PCI_EXP_SLTCTL_PWR_OFF);
    qtest_qmp_eventwait(v->qts, "DEVICE_DELETED");
}

static unsigned count_spaces(QVtd *v)
{
    g_autofree char *text = qtest_hmp(v->qts, "info mtree");
    g_auto(GStrv) parts = g_strsplit(text, "vtd-root\n", 0);
    g_auto(GStrv) crlf = g_strsplit(text, "vtd-root\r\n", 0);

    return g_strv_length(parts) + g_strv_length(crlf) - 2;
}

/*
 * A bridge comes with a device behind it and goes again; the next one may get
 * the same memory for its bus, but has another number and another domain.
 */
static void test_bridge_comes_and_goes(void)
{
    QVtd *v = qvtd_start(NO_EIM, NATIVE PORT("rp", "3"));
    uint16_t port = QVTD_SID(0, 3, 0);
    unsigned spaces = 0;
    uint32_t bar = v->bar;

    qvtd_tables_init(v);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    for (uint32_t i = 0; i < 6; i++) {
        uint8_t bus = 6 + i / 2;
        uint16_t source = QVTD_SID(bus, 0, 0);
        QVtdDomain *d = domain_for(v, source, DOMAIN + i, 10 + i);
        g_autofree QVtdEdu *e = NULL;

        qvtd_flush_all(v);
        qtest_qmp_device_add(v->qts, "pcie-pci-bridge", "pb", "{'bus': 'rp'}");
        slot_control(v, port, PCI_EXP_SLTCTL_PWR_IND_ON);
        qtest_qmp_device_add(v->qts, "edu", "hot", "{'bus': 'pb', 'addr': '3',"
                             "'dma_mask': %" PRIu64 "}", UINT64_MAX);
        v->bar = bar;
        qvtd_bridge(v, port, 5, bus, 8);
        qvtd_bridge(v, QVTD_SID(5, 0, 0), bus, bus, 8);
        e = qvtd_edu(v, QVTD_SID(bus, 3, 0));
        g_assert_true(qvtd_dma_reads(d, e, IOVA, 10 + i));
        qvtd_assert_no_fault(v);
        qvtd_dma_read(e, UNMAPPED);
        qvtd_assert_fault(v, QVTD_FR_READ, source, UNMAPPED, true);
        unplug(v, port, "pb");
        qvtd_write_context(v, source, 0, 0);
        if (i == 1) {
            spaces = count_spaces(v);
        }
    }
    g_assert_cmpuint(spaces, >, 0);
    g_assert_cmpuint(count_spaces(v), ==, spaces);
    qvtd_quit(v);
}

/* Another kind of device in the same slot: nothing is left of the first one */
static void test_slot_taken_over(void)
{
    QVtd *v = qvtd_start(NO_EIM, NATIVE PORT("rp", "3"));
    uint16_t port = QVTD_SID(0, 3, 0), sid = QVTD_SID(5, 0, 0);
    uint32_t bar;
    Controller c;

    qvtd_bridge(v, port, 5, 5, 8);
    bar = v->bar;
    qvtd_tables_init(v);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    for (uint32_t i = 0; i < 3; i++) {
        QVtdDomain *d = domain_for(v, sid, DOMAIN, 10 + i);
        g_autofree QVtdEdu *e = NULL;

        qvtd_flush_all(v);
        qtest_qmp_device_add(v->qts, "edu", "hot", "{'bus': 'rp',"
                             "'dma_mask': %" PRIu64 "}", UINT64_MAX);
        slot_control(v, port, PCI_EXP_SLTCTL_PWR_IND_ON);
        v->bar = bar;
        e = qvtd_edu(v, sid);
        g_assert_true(qvtd_dma_reads(d, e, IOVA, 10 + i));
        unplug(v, port, "hot");
        qvtd_write_context(v, sid, 0, 0);
        qvtd_flush_all(v);

        qtest_qmp_device_add(v->qts, "nvme", "hot",
                             "{'bus': 'rp', 'serial': 'x'}");
        slot_control(v, port, PCI_EXP_SLTCTL_PWR_IND_ON);
        qvtd_cfg_writel(v, sid, PCI_BASE_ADDRESS_0, bar);
        qvtd_cfg_writew(v, sid, PCI_COMMAND,
                        PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
        c = nvme_start(v, bar, IOVA, qvtd_alloc(v, 2));
        nvme_submit(&c, NVME_GET_FEATURES, 0x7, 0);
        g_assert_false(nvme_completed(&c));
        qvtd_assert_fault(v, QVTD_FR_CTX_NOT_PRESENT, sid, IOVA, true);
        c = nvme_start(v, bar, RING, nvme_domain(v, sid, DOMAIN + 1));
        nvme_command(&c, NVME_GET_FEATURES, 0x7, 0);
        qvtd_assert_no_fault(v);
        unplug(v, port, "hot");
        qvtd_write_context(v, sid, 0, 0);
    }
    qvtd_quit(v);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add_places();
    qtest_add_func("/vtd/topology/switch-isolates", test_switch_isolates);
    qtest_add_func("/vtd/topology/alias-renumbered", test_alias_renumbered);
    qtest_add_func("/vtd/topology/bypass/beside", test_bypass_beside);
    qtest_add_func("/vtd/topology/bypass/not-the-ioapic",
                   test_ioapic_does_not_bypass);
    qtest_add_func("/vtd/topology/functions/igb-dma", test_igb_dma);
    qtest_add_func("/vtd/topology/functions/igb-interrupt",
                   test_igb_interrupt);
    qtest_add_func("/vtd/topology/functions/nvme", test_nvme);
    qtest_add_func("/vtd/topology/bridge-comes-and-goes",
                   test_bridge_comes_and_goes);
    qtest_add_func("/vtd/topology/slot-taken-over", test_slot_taken_over);
    return g_test_run();
}
