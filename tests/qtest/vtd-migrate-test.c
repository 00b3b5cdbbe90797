/*
 * VT-d: the unit's state in a migration stream
 *
 * A machine is saved while the unit has something of everything, and loaded
 * into another one, which must go on where the first stopped.  With
 * QTEST_STOCK_QEMU_BINARY set to another QEMU, streams come from it and go
 * to it as well.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "libqos/intel-iommu.h"
#include "qobject/qdict.h"

#define STOCK_ENV       "QTEST_STOCK_QEMU_BINARY"
#define FAULT_VECTOR    0x62
#define EVENT_VECTOR    0x63
#define SID             QVTD_SID(0, 4, 0)
#define OTHER           QVTD_SID(0, 5, 0)
#define SCALABLE        "x-scalable-mode=on"
#define DEVICES         QVTD_EDU ",addr=4 " QVTD_EDU ",addr=5"

typedef struct Route {
    const char *from;           /* environment variable, NULL for ours */
    const char *to;
} Route;

typedef struct Fix {
    QVtd *v;
    QVtdDomain *d;
    QVtdEdu *e;
    uint64_t status;
} Fix;

/* Wait for the good end of the migration to or from @qts */
static void wait_migration(QTestState *qts)
{
    for (int i = 0; i < 2000; i++) {
        QDict *r = qtest_qmp_assert_success_ref(
            qts, "{ 'execute': 'query-migrate' }");
        g_autofree char *now = g_strdup(qdict_get_try_str(r, "status"));

        qobject_unref(r);
        g_assert_cmpstr(now, !=, "failed");
        if (g_strcmp0(now, "completed") == 0) {
            return;
        }
        g_usleep(5000);
    }
    g_error("no end of the migration");
}

/* The machine @v goes on in another process; what the driver knows does too */
static QVtd *migrate(QVtd *v, const char *env, const char *props,
                     const char *devices)
{
    g_autofree char *dir = g_dir_make_tmp("vtd-migrate-XXXXXX", NULL);
    g_autofree char *file = g_build_filename(dir, "stream", NULL);
    g_autofree char *args = g_strdup_printf("%s -incoming file:%s", devices,
                                            file);
    g_autofree char *uri = g_strdup_printf("file:%s", file);
    QTestState *qts;
    QVtd *w;

    qtest_qmp_assert_success(v->qts, "{ 'execute': 'migrate', 'arguments': "
                             "{ 'uri': %s } }", uri);
    wait_migration(v->qts);
    qtest_quit(v->qts);
    w = qvtd_start_env(env, props, args);
    wait_migration(w->qts);
    qts = w->qts;
    *w = *v;
    w->qts = qts;
    g_free(v);
    g_assert_cmpint(unlink(file), ==, 0);
    g_assert_cmpint(rmdir(dir), ==, 0);
    return w;
}

static Fix fix_new(const char *env, const char *props)
{
    Fix f = { .v = qvtd_start_env(env, props, DEVICES) };

    qvtd_tables_init(f.v);
    f.status = qvtd_alloc(f.v, 1);
    f.e = qvtd_edu(f.v, SID);
    f.d = qvtd_domain_new(f.v, 7, 4);
    qvtd_map(f.d, 0x10000, qvtd_alloc_pattern(f.v, 0x1234), QVTD_PTE_RW);
    qvtd_attach(f.d, SID);
    return f;
}

/* The driver's other parts learn of the new process */
static void fix_migrate(Fix *f, const char *env, const char *props)
{
    f->v = migrate(f->v, env, props, DEVICES);
    f->d->v = f->v;
    f->e = qvtd_edu(f->v, SID);
}

static void test_registers(const void *opaque)
{
    const Route *r = opaque;
    Fix f = fix_new(r->from, "intremap=on,eim=off");
    uint8_t before[0x230], after[0x230];

    qvtd_iq_init(f.v, 2);
    qvtd_ir_init(f.v, 7, false);
    qvtd_gcmd_set(f.v, QVTD_GCMD_TE);
    qvtd_writel(f.v, QVTD_IEDATA, EVENT_VECTOR);
    qvtd_writel(f.v, QVTD_IEADDR, QVTD_MSI_BASE | 1 << 12);
    for (int i = 0; i < 5; i++) {
        qvtd_iq_wait(f.v, f.status, i);
    }
    /* a completion event is pending, and a fault */
    qvtd_iq_submit(f.v, QVTD_DESC_WAIT | QVTD_DESC_WAIT_IF, 0);
    qvtd_dma_read(qvtd_edu(f.v, OTHER), 0x5000);
    qtest_memread(f.v->qts, QVTD_BASE, before, sizeof(before));
    g_assert_true(qvtd_fault(f.v, 0).f);

    fix_migrate(&f, r->to, "intremap=on,eim=off");
    qtest_memread(f.v->qts, QVTD_BASE, after, sizeof(after));
    g_assert_cmpmem(before, sizeof(before), after, sizeof(after));
    qvtd_quit(f.v);
}

/* Translation, the queue's place, and what it left pending */
static void test_goes_on(const void *opaque)
{
    const Route *r = opaque;
    Fix f = fix_new(r->from, NULL);

    qvtd_iq_init(f.v, 0);
    qvtd_gcmd_set(f.v, QVTD_GCMD_TE);
    qvtd_writel(f.v, QVTD_FEDATA, FAULT_VECTOR);
    qvtd_writel(f.v, QVTD_FEADDR, QVTD_MSI_BASE);
    for (int i = 0; i < 5; i++) {
        qvtd_iq_wait(f.v, f.status, i);
    }
    g_assert_true(qvtd_dma_reads(f.d, f.e, 0x10000, 0x1234));
    qvtd_dma_read(qvtd_edu(f.v, OTHER), 0x5000);

    fix_migrate(&f, r->to, NULL);
    /* only what comes now is carried out: the status of old ones stays */
    qtest_writel(f.v->qts, f.status, 0x55);
    qvtd_assert_reg64(f.v, QVTD_IQH, 5 << 4);
    qvtd_iq_submit(f.v, QVTD_DESC_CC | QVTD_DESC_GRAN(1), 0);
    g_assert_cmphex(qtest_readl(f.v->qts, f.status), ==, 0x55);
    g_assert_true(qvtd_dma_reads(f.d, f.e, 0x10000, 0x1234));
    g_assert_false(qvtd_lapic_irr(f.v, 0, FAULT_VECTOR));
    qvtd_writel(f.v, QVTD_FECTL, 0);
    g_assert_true(qvtd_lapic_irr(f.v, 0, FAULT_VECTOR));
    qvtd_assert_fault(f.v, QVTD_FR_CTX_NOT_PRESENT, OTHER, 0x5000, true);
    qvtd_quit(f.v);
}

/* The table and its size */
static void test_interrupts(const void *opaque)
{
    const Route *r = opaque;
    Fix f = fix_new(r->from, "intremap=on,eim=off");

    qvtd_ir_init(f.v, 3, false);
    qvtd_write_irte(f.v, 15, QVTD_IRTE_P | QVTD_IRTE_VECTOR(0x51), 0);

    fix_migrate(&f, r->to, "intremap=on,eim=off");
    qvtd_edu_send(f.e, qvtd_msi_addr(15), 0);
    g_assert_true(qvtd_lapic_irr(f.v, 0, 0x51));
    qvtd_assert_no_fault(f.v);
    qvtd_edu_send(f.e, qvtd_msi_addr(16), 0);
    qvtd_assert_fault(f.v, QVTD_FR_IR_INDEX, SID, 16ULL << 48, false);
    qvtd_quit(f.v);
}

/* EIME decides how wide a destination is, and blocks compatibility format */
static void test_eime(const void *opaque)
{
    const Route *r = opaque;
    Fix f = fix_new(r->from, "intremap=on,eim=on");

    qvtd_ir_init(f.v, 3, true);
    qvtd_write_irte(f.v, 2, QVTD_IRTE_P | QVTD_IRTE_VECTOR(0x51) |
                    QVTD_IRTE_X2APIC(0), 0);

    fix_migrate(&f, r->to, "intremap=on,eim=on");
    qvtd_edu_send(f.e, qvtd_msi_addr(2), 0);
    g_assert_true(qvtd_lapic_irr(f.v, 0, 0x51));
    qvtd_edu_send(f.e, QVTD_MSI_BASE, 0x52);
    g_assert_false(qvtd_lapic_irr(f.v, 0, 0x52));
    qvtd_assert_fault(f.v, QVTD_FR_IR_COMPAT, SID, 0, false);
    qvtd_quit(f.v);
}

/* CFI, which not every model has */
static void test_compat(const void *opaque)
{
    const Route *r = opaque;
    Fix f = fix_new(r->from, "intremap=on,eim=off");

    qvtd_ir_init(f.v, 3, false);
    qvtd_gcmd_set(f.v, QVTD_GCMD_CFI);

    fix_migrate(&f, r->to, "intremap=on,eim=off");
    qvtd_edu_send(f.e, QVTD_MSI_BASE, 0x52);
    g_assert_true(qvtd_lapic_irr(f.v, 0, 0x52));
    qvtd_assert_no_fault(f.v);
    qvtd_gcmd_clear(f.v, QVTD_GCMD_CFI);
    qvtd_edu_send(f.e, QVTD_MSI_BASE, 0x53);
    g_assert_false(qvtd_lapic_irr(f.v, 0, 0x53));
    qvtd_assert_fault(f.v, QVTD_FR_IR_COMPAT, SID, 0, false);
    qvtd_quit(f.v);
}

/* More fault records than the section had room for at first */
static void test_records(const void *opaque)
{
    const Route *r = opaque;
    Fix f = fix_new(r->from, "fault-records=2");

    qvtd_gcmd_set(f.v, QVTD_GCMD_TE);
    qvtd_dma_read(f.e, 0x6000);
    qvtd_dma_read(qvtd_edu(f.v, OTHER), 0x7000);

    fix_migrate(&f, r->to, "fault-records=2");
    g_assert_cmphex(qvtd_fault(f.v, 0).sid, ==, SID);
    g_assert_cmphex(qvtd_fault(f.v, 0).info, ==, 0x6000);
    g_assert_cmphex(qvtd_fault(f.v, 1).sid, ==, OTHER);
    g_assert_cmphex(qvtd_fault(f.v, 1).info, ==, 0x7000);
    qvtd_clear_faults(f.v);
    qvtd_dma_read(f.e, 0x8000);
    g_assert_cmphex(qvtd_fault(f.v, 0).info, ==, 0x8000);
    qvtd_quit(f.v);
}

/* The mode of the tables, of which a stream once knew only RTADDR's */
static Fix fix_new_scalable(const char *env)
{
    Fix f = fix_new(env, SCALABLE);

    qvtd_sm_init(f.v);
    qvtd_sm_write_pasid(f.v, SID, 0, f.d->pgd | QVTD_SM_PE_P |
                        QVTD_SM_PE_PGTT(QVTD_PGTT_SECOND) |
                        QVTD_SM_PE_AW(4), 7, 0);
    qvtd_gcmd_set(f.v, QVTD_GCMD_TE);
    return f;
}

static void test_scalable(const void *opaque)
{
    const Route *r = opaque;
    Fix f = fix_new_scalable(r->from);

    g_assert_true(qvtd_dma_reads(f.d, f.e, 0x10000, 0x1234));
    fix_migrate(&f, r->to, SCALABLE);
    g_assert_true(qvtd_dma_reads(f.d, f.e, 0x10000, 0x1234));
    qvtd_assert_no_fault(f.v);
    qvtd_quit(f.v);
}

/* RTADDR is written, and SRTP is still to come */
static void test_scalable_not_latched(const void *opaque)
{
    const Route *r = opaque;
    Fix f = fix_new_scalable(r->from);

    qvtd_writeq(f.v, QVTD_RTADDR, QVTD_PAGE | QVTD_RTADDR_TTM_LEGACY);
    fix_migrate(&f, r->to, SCALABLE);
    qvtd_assert_reg64(f.v, QVTD_RTADDR, QVTD_PAGE | QVTD_RTADDR_TTM_LEGACY);
    g_assert_true(qvtd_dma_reads(f.d, f.e, 0x10000, 0x1234));
    qvtd_assert_no_fault(f.v);
    qvtd_quit(f.v);
}

/*
 * The unit has to be loaded after the bridges.  Before, their devices are on
 * bus 0; where what bus 0 has there passes through, they must not.
 */
static void test_bus_numbers(const void *opaque)
{
    const Route *r = opaque;
    const char *devices = "-device pcie-root-port,id=rp,addr=3,chassis=1 "
                          QVTD_EDU ",bus=rp,addr=0";
    QVtd *v = qvtd_start_env(r->from, NULL, devices);
    QVtdEdu *e;

    qvtd_bridge(v, QVTD_SID(0, 3, 0), 5, 5, 8);
    qvtd_tables_init(v);
    qvtd_write_context(v, QVTD_SID(0, 0, 0),
                       QVTD_CTX_TT(QVTD_TT_PASS_THROUGH) | QVTD_CTX_P,
                       QVTD_CTX_AW(4) | QVTD_CTX_DID(5));
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    v = migrate(v, r->to, NULL, devices);
    e = qvtd_edu(v, QVTD_SID(5, 0, 0));
    qvtd_dma_read(e, 0x7000);
    qvtd_assert_fault(v, QVTD_FR_ROOT_NOT_PRESENT, QVTD_SID(5, 0, 0), 0x7000,
                      true);
    qvtd_quit(v);
}

static void add(const char *name, const Route *route)
{
    static const struct {
        const char *name;
        void (*test)(const void *opaque);
        bool to_ours;           /* checks what other models do not do */
    } tests[] = {
        { "registers", test_registers },
        { "goes-on", test_goes_on },
        { "interrupts", test_interrupts },
        { "eime", test_eime, true },
        { "scalable", test_scalable },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strdup_printf("/vtd/migrate/%s/%s",
                                                tests[i].name, name);

        if (!route->to || !tests[i].to_ours) {
            qtest_add_data_func(path, route, tests[i].test);
        }
    }
}

int main(int argc, char **argv)
{
    static const Route self, from_stock = { .from = STOCK_ENV },
                       to_stock = { .to = STOCK_ENV };

    g_test_init(&argc, &argv, NULL);
    add("self", &self);
    qtest_add_data_func("/vtd/migrate/compat/self", &self, test_compat);
    qtest_add_data_func("/vtd/migrate/records/self", &self, test_records);
    qtest_add_data_func("/vtd/migrate/bus-numbers/self", &self,
                        test_bus_numbers);
    qtest_add_data_func("/vtd/migrate/scalable-not-latched/self", &self,
                        test_scalable_not_latched);
    if (getenv(STOCK_ENV)) {
        add("from-stock", &from_stock);
        add("to-stock", &to_stock);
    }
    return g_test_run();
}
