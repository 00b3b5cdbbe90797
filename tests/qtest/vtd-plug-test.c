/*
 * VT-d: devices behind bridges, bus numbers, hot-plug and reset (VT-d
 * specification, 3.4.1 and 3.4.3)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "qobject/qdict.h"
#include "hw/pci/pci_regs.h"
#include "libqos/intel-iommu.h"

#define PORT        QVTD_SID(0, 3, 0)
#define PORT_2      QVTD_SID(0, 6, 0)
#define IOVA        0x12345000ULL

/* Native PCI Express hot-plug instead of ACPI's */
#define NATIVE      "-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off "

#define ROOT_PORT   "-device pcie-root-port,id=rp,addr=3,chassis=1 "
#define ROOT_PORT_2 "-device pcie-root-port,id=rp2,addr=6,chassis=2 "
#define BEHIND      QVTD_EDU ",bus=rp,addr=0 "
#define BEHIND_2    QVTD_EDU ",bus=rp2,addr=0 "

/* A domain with one page of pattern @seed, attached to @sid */
static QVtdDomain *domain_for(QVtd *v, uint16_t sid, uint16_t id,
                              uint32_t seed)
{
    QVtdDomain *d = qvtd_domain_new(v, id, 4);

    qvtd_map(d, IOVA, qvtd_alloc_pattern(v, seed), QVTD_PTE_RW);
    qvtd_attach(d, sid);
    return d;
}

/* 3.4.1: behind a root port the device's own bus number is the source. */
static void test_root_port(void)
{
    QVtd *v = qvtd_start(NULL, ROOT_PORT BEHIND);
    uint16_t sid = QVTD_SID(5, 0, 0);
    QVtdDomain *d;
    QVtdEdu *e;

    qvtd_bridge(v, PORT, 5, 5, 8);
    e = qvtd_edu(v, sid);
    qvtd_tables_init(v);
    d = domain_for(v, sid, 3, 9);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    g_assert_true(qvtd_dma_reads(d, e, IOVA, 9));
    qvtd_assert_no_fault(v);
    qvtd_dma_read(e, 0x7000);
    qvtd_assert_fault(v, QVTD_FR_READ, sid, 0x7000, true);
    qvtd_quit(v);
}

/*
 * 3.4.1: behind a PCI Express to PCI bridge all devices share the source id
 * of the bridge's secondary bus, device 0, function 0.
 */
static void test_pci_bridge(void)
{
    QVtd *v = qvtd_start(NULL, ROOT_PORT
                         "-device pcie-pci-bridge,id=pb,bus=rp,addr=0 "
                         QVTD_EDU ",bus=pb,addr=1 " QVTD_EDU ",bus=pb,addr=2");
    uint16_t shared = QVTD_SID(6, 0, 0);
    QVtdEdu *a, *b;
    QVtdDomain *d;

    qvtd_bridge(v, PORT, 5, 6, 8);
    qvtd_bridge(v, QVTD_SID(5, 0, 0), 6, 6, 8);
    a = qvtd_edu(v, QVTD_SID(6, 1, 0));
    b = qvtd_edu(v, QVTD_SID(6, 2, 0));
    qvtd_tables_init(v);
    d = domain_for(v, shared, 3, 9);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    g_assert_true(qvtd_dma_reads(d, a, IOVA, 9));
    g_assert_true(qvtd_dma_reads(d, b, IOVA, 9));
    qvtd_assert_no_fault(v);
    qvtd_dma_read(b, 0x7000);
    qvtd_assert_fault(v, QVTD_FR_READ, shared, 0x7000, true);
    qvtd_quit(v);
}

/* Two buses: the same device number on each, two domains */
static void test_two_ports(void)
{
    QVtd *v = qvtd_start(NULL, ROOT_PORT BEHIND ROOT_PORT_2 BEHIND_2);
    uint16_t sids[2] = { QVTD_SID(9, 0, 0), QVTD_SID(200, 0, 0) };
    QVtdEdu *e[2];
    QVtdDomain *d[2];

    qvtd_bridge(v, PORT, 9, 9, 8);
    e[0] = qvtd_edu(v, sids[0]);
    v->bar = ROUND_UP(v->bar, 0x800000);
    qvtd_bridge(v, PORT_2, 200, 200, 8);
    e[1] = qvtd_edu(v, sids[1]);
    qvtd_tables_init(v);
    d[0] = domain_for(v, sids[0], 3, 9);
    d[1] = domain_for(v, sids[1], 4, 10);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    for (int i = 0; i < 4; i++) {
        g_assert_true(qvtd_dma_reads(d[i % 2], e[i % 2], IOVA, 9 + i % 2));
    }
    qvtd_assert_no_fault(v);
    qvtd_quit(v);
}

static void set_bus(QVtd *v, uint16_t port, uint8_t bus)
{
    qvtd_cfg_writeb(v, port, PCI_SECONDARY_BUS, bus);
    qvtd_cfg_writeb(v, port, PCI_SUBORDINATE_BUS, bus);
}

/* Software gives a bus another number: requests carry the new one. */
static void test_renumber(void)
{
    QVtd *v = qvtd_start(NULL, ROOT_PORT BEHIND);
    uint16_t sids[2] = { QVTD_SID(5, 0, 0), QVTD_SID(77, 0, 0) };
    QVtdDomain *d[2];
    QVtdEdu *e;

    qvtd_bridge(v, PORT, 5, 5, 8);
    e = qvtd_edu(v, sids[0]);
    qvtd_tables_init(v);
    d[0] = domain_for(v, sids[0], 3, 9);
    d[1] = domain_for(v, sids[1], 4, 10);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    for (int i = 0; i < 4; i++) {
        set_bus(v, PORT, sids[i % 2] >> 8);
        g_assert_true(qvtd_dma_reads(d[i % 2], e, IOVA, 9 + i % 2));
        qvtd_assert_no_fault(v);
        qvtd_dma_read(e, 0x7000);
        qvtd_assert_fault(v, QVTD_FR_READ, sids[i % 2], 0x7000, true);
    }
    qvtd_quit(v);
}

static void pass_through(QVtd *v, uint16_t sid)
{
    qvtd_write_context(v, sid, QVTD_CTX_TT(QVTD_TT_PASS_THROUGH) | QVTD_CTX_P,
                       QVTD_CTX_AW(4) | QVTD_CTX_DID(5));
}

static bool dma_passes(QVtd *v, QVtdEdu *e, uint64_t from, uint64_t to)
{
    qtest_memset(v->qts, to, 0, QVTD_PAGE);
    qvtd_dma_read(e, from);
    qvtd_dma_write(e, to);
    return qvtd_holds(v, to, 4);
}

/*
 * What passed through under one number is translated under another, from
 * the first request on, and the other way round.
 */
static void test_renumber_pass_through(void)
{
    QVtd *v = qvtd_start(NULL, ROOT_PORT BEHIND);
    uint16_t sids[2] = { QVTD_SID(5, 0, 0), QVTD_SID(77, 0, 0) };
    uint64_t from, to;
    QVtdDomain *d;
    QVtdEdu *e;

    qvtd_bridge(v, PORT, 5, 5, 8);
    e = qvtd_edu(v, sids[0]);
    qvtd_tables_init(v);
    from = qvtd_alloc_pattern(v, 4);
    to = qvtd_alloc(v, 1);
    pass_through(v, sids[0]);
    d = domain_for(v, sids[1], 4, 10);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    for (int i = 0; i < 3; i++) {
        set_bus(v, PORT, 5);
        g_assert_true(dma_passes(v, e, from, to));
        set_bus(v, PORT, 77);
        qvtd_dma_write(e, to);
        qvtd_assert_fault(v, QVTD_FR_WRITE, sids[1], to, false);
        g_assert_true(qvtd_dma_reads(d, e, IOVA, 10));
    }
    qvtd_assert_no_fault(v);
    qvtd_quit(v);
}

/*
 * As it is at boot: translation is on before the bridge has a number, and
 * what its devices would be with number 0 passes through.
 */
static void test_number_after_enable(void)
{
    QVtd *v = qvtd_start(NULL, ROOT_PORT BEHIND);
    uint16_t sid = QVTD_SID(5, 0, 0);
    QVtdEdu *e;

    qvtd_tables_init(v);
    pass_through(v, QVTD_SID(0, 0, 0));
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    qvtd_bridge(v, PORT, 5, 5, 8);
    e = qvtd_edu(v, sid);
    qvtd_dma_read(e, 0x7000);
    qvtd_assert_fault(v, QVTD_FR_ROOT_NOT_PRESENT, sid, 0x7000, true);
    qvtd_quit(v);
}

/* Two buses exchange their numbers. */
static void test_swap_numbers(void)
{
    QVtd *v = qvtd_start(NULL, ROOT_PORT BEHIND ROOT_PORT_2 BEHIND_2);
    uint16_t sids[2] = { QVTD_SID(5, 0, 0), QVTD_SID(6, 0, 0) };
    QVtdDomain *d[2];
    QVtdEdu *a, *b;

    qvtd_bridge(v, PORT, 5, 5, 8);
    a = qvtd_edu(v, sids[0]);
    v->bar = ROUND_UP(v->bar, 0x800000);
    qvtd_bridge(v, PORT_2, 6, 6, 8);
    b = qvtd_edu(v, sids[1]);
    qvtd_tables_init(v);
    d[0] = domain_for(v, sids[0], 3, 9);
    d[1] = domain_for(v, sids[1], 4, 10);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    g_assert_true(qvtd_dma_reads(d[0], a, IOVA, 9));
    g_assert_true(qvtd_dma_reads(d[1], b, IOVA, 10));
    set_bus(v, PORT, 6);
    set_bus(v, PORT_2, 5);
    g_assert_true(qvtd_dma_reads(d[1], a, IOVA, 10));
    g_assert_true(qvtd_dma_reads(d[0], b, IOVA, 9));
    qvtd_assert_no_fault(v);
    qvtd_quit(v);
}

/* 9.10, SVT 10b: interrupts from a range of buses */
static void test_interrupt_bus_range(void)
{
    QVtd *v = qvtd_start("intremap=on,eim=off", ROOT_PORT BEHIND);
    uint16_t sid = QVTD_SID(5, 0, 0);
    static const struct {
        uint16_t range;
        bool allowed;
    } rows[] = {
        { 0x0505, true }, { 0x0409, true }, { 0x0609, false },
        { 0x0204, false }, { 0x00ff, true }, { 0x0500, false },
    };
    QVtdEdu *e;

    qvtd_bridge(v, PORT, 5, 5, 8);
    e = qvtd_edu(v, sid);
    qvtd_ir_init(v, 7, false);
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        qvtd_write_irte(v, i, QVTD_IRTE_P | QVTD_IRTE_VECTOR(0x40 + i),
                        QVTD_IRTE_SVT(QVTD_SVT_BUS) |
                        QVTD_IRTE_SID(rows[i].range));
        qvtd_edu_send(e, qvtd_msi_addr(i), 0);
        g_assert_cmpint(qvtd_lapic_irr(v, 0, 0x40 + i), ==, rows[i].allowed);
        g_assert_cmphex(qvtd_take_fault(v).reason, ==,
                        rows[i].allowed ? QVTD_FR_NONE : QVTD_FR_IR_SID);
    }
    qvtd_quit(v);
}

/* --- hot-plug --- */

static void slot_control(QVtd *v, uint16_t val)
{
    uint8_t pos = qvtd_cfg_cap(v, PORT, PCI_CAP_ID_EXP);

    qvtd_cfg_writew(v, PORT, pos + PCI_EXP_SLTCTL, val);
}

/* Software powers the slot on when a device has come ... */
static void plug(QVtd *v)
{
    qtest_qmp_device_add(v->qts, "edu", "hot", "{'bus': 'rp', 'addr': '0',"
                         "'dma_mask': %" PRIu64 "}", UINT64_MAX);
    slot_control(v, PCI_EXP_SLTCTL_PWR_IND_ON);
}

/* ... and off when the attention button was pressed for it to leave. */
static void unplug(QVtd *v)
{
    qtest_qmp_device_del_send(v->qts, "hot");
    slot_control(v, PCI_EXP_SLTCTL_PWR_IND_OFF | PCI_EXP_SLTCTL_PWR_OFF);
    qtest_qmp_eventwait(v->qts, "DEVICE_DELETED");
}

/*
 * A device that comes while translation is on is translated from its first
 * request, and what was cached for one that left is gone with it, once
 * software has invalidated.
 */
static void test_hotplug(void)
{
    QVtd *v = qvtd_start(NULL, NATIVE ROOT_PORT);
    uint16_t sid = QVTD_SID(5, 0, 0);
    uint32_t bar;

    qvtd_bridge(v, PORT, 5, 5, 8);
    bar = v->bar;
    qvtd_tables_init(v);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    for (uint32_t i = 0; i < 5; i++) {
        QVtdDomain *d = domain_for(v, sid, 3, 10 + i);
        g_autofree QVtdEdu *e = NULL;

        qvtd_flush_all(v);
        plug(v);
        v->bar = bar;
        e = qvtd_edu(v, sid);
        g_assert_true(qvtd_dma_reads(d, e, IOVA, 10 + i));
        qvtd_dma_read(e, 0x7000);
        qvtd_assert_fault(v, QVTD_FR_READ, sid, 0x7000, true);
        unplug(v);
        qvtd_write_context(v, sid, 0, 0);
    }
    qvtd_assert_no_fault(v);
    qvtd_quit(v);
}

/* A device leaves with a DMA under way. */
static void test_unplug_active(void)
{
    QVtd *v = qvtd_start(NULL, NATIVE ROOT_PORT);
    uint16_t sid = QVTD_SID(5, 0, 0);
    g_autofree QVtdEdu *e = NULL;
    QVtdDomain *d;

    qvtd_bridge(v, PORT, 5, 5, 8);
    plug(v);
    e = qvtd_edu(v, sid);
    qvtd_tables_init(v);
    d = domain_for(v, sid, 3, 9);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    g_assert_true(qvtd_dma_reads(d, e, IOVA, 9));
    qvtd_edu_start(e, IOVA, QVTD_PAGE, false);
    unplug(v);
    qvtd_flush_all(v);
    qtest_clock_step(v->qts, 1000 * 1000 * 1000);
    qvtd_assert_no_fault(v);
    qvtd_quit(v);
}

/*
 * The machine is reset and set up in another way, several times: the bus
 * number changes every other time, the tables always.
 */
static void test_reset(void)
{
    QVtd *v = qvtd_start(NULL, ROOT_PORT BEHIND);

    for (uint32_t i = 0; i < 6; i++) {
        uint8_t bus = 5 + i / 2;
        uint16_t sid = QVTD_SID(bus, 0, 0);
        g_autofree QVtdEdu *e = NULL;
        QVtdDomain *d;

        qvtd_bridge(v, PORT, bus, bus, 8);
        e = qvtd_edu(v, sid);
        qvtd_tables_init(v);
        d = domain_for(v, sid, 3, 10 + i);
        qvtd_gcmd_set(v, QVTD_GCMD_TE);
        g_assert_true(qvtd_dma_reads(d, e, IOVA, 10 + i));
        qvtd_assert_no_fault(v);
        qvtd_edu_start(e, IOVA, QVTD_PAGE, i & 1);
        qvtd_system_reset(v);
        /* the device goes on, and nothing translates */
        qtest_clock_step(v->qts, 1000 * 1000 * 1000);
        qvtd_assert_no_fault(v);
    }
    qvtd_quit(v);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/vtd/plug/3.4.1/root-port", test_root_port);
    qtest_add_func("/vtd/plug/3.4.1/pci-bridge", test_pci_bridge);
    qtest_add_func("/vtd/plug/3.4.1/two-ports", test_two_ports);
    qtest_add_func("/vtd/plug/3.4.1/renumber", test_renumber);
    qtest_add_func("/vtd/plug/3.4.1/renumber-pass-through",
                   test_renumber_pass_through);
    qtest_add_func("/vtd/plug/3.4.1/number-after-enable",
                   test_number_after_enable);
    qtest_add_func("/vtd/plug/3.4.1/swap-numbers", test_swap_numbers);
    qtest_add_func("/vtd/plug/9.10/bus-range", test_interrupt_bus_range);
    qtest_add_func("/vtd/plug/hotplug", test_hotplug);
    qtest_add_func("/vtd/plug/unplug-active", test_unplug_active);
    qtest_add_func("/vtd/plug/reset", test_reset);
    return g_test_run();
}
