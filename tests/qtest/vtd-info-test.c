/*
 * VT-d: "info iommu" and x-query-vtd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "libqos/intel-iommu.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"

#define SID     QVTD_SID(0, 4, 0)
#define OTHER   QVTD_SID(0, 5, 0)
#define DEVICES QVTD_EDU ",addr=4 " QVTD_EDU ",addr=5"

/* The first unit, or NULL */
static QDict *query(QTestState *qts)
{
    QDict *reply = qtest_qmp(qts, "{ 'execute': 'x-query-vtd' }");
    QList *units = qdict_get_qlist(reply, "return");
    QDict *unit = NULL;

    g_assert_nonnull(units);
    if (!qlist_empty(units)) {
        unit = qobject_to(QDict, qlist_peek(units));
        qobject_ref(unit);
    }
    qobject_unref(reply);
    return unit;
}

/* What @unit says of the requester that is called @name */
static QDict *requester(QDict *unit, const char *name)
{
    const QListEntry *e;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(unit, "requesters"), e) {
        QDict *r = qobject_to(QDict, qlist_entry_obj(e));

        if (g_str_equal(qdict_get_str(r, "requester"), name)) {
            return r;
        }
    }
    g_assert_not_reached();
}

static void test_none(const void *machine)
{
    QTestState *qts = qtest_initf("-M %s -nodefaults", (const char *)machine);
    g_autofree char *text = qtest_hmp(qts, "info iommu");

    g_assert_null(query(qts));
    g_assert_cmpstr(text, ==, "There is no VT-d unit in this machine\r\n");
    qtest_quit(qts);
}

static void test_off(void)
{
    QVtd *v = qvtd_start(NULL, DEVICES);
    QDict *unit = query(v->qts);
    QDict *r = requester(unit, "00:04.0");

    g_assert_cmphex(qdict_get_int(unit, "cap"), ==, v->cap);
    g_assert_cmphex(qdict_get_int(unit, "ecap"), ==, v->ecap);
    g_assert_false(qdict_get_bool(unit, "dma-remapping"));
    g_assert_false(qdict_get_bool(unit, "interrupt-remapping"));
    g_assert_cmpint(qdict_get_int(unit, "queue-size"), ==, 0);
    g_assert_cmpstr(qdict_get_str(r, "translation"), ==, "off");
    g_assert_false(qdict_haskey(r, "domain"));
    g_assert_false(qdict_haskey(r, "hits"));
    qobject_unref(unit);
    qvtd_quit(v);
}

static void test_unit(void)
{
    QVtd *v = qvtd_start("intremap=on,eim=on", DEVICES);
    QDict *unit;

    qvtd_tables_init(v);
    qvtd_iq_init(v, 1);
    qvtd_ir_init(v, 7, true);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    qvtd_iq_submit(v, QVTD_DESC_WAIT, 0);
    unit = query(v->qts);
    g_assert_true(qdict_get_bool(unit, "dma-remapping"));
    g_assert_false(qdict_get_bool(unit, "scalable"));
    g_assert_cmphex(qdict_get_int(unit, "root-table"), ==, v->root);
    g_assert_true(qdict_get_bool(unit, "interrupt-remapping"));
    g_assert_true(qdict_get_bool(unit, "extended-interrupts"));
    g_assert_cmphex(qdict_get_int(unit, "interrupt-table"), ==, v->irt);
    g_assert_cmpint(qdict_get_int(unit, "interrupt-entries"), ==, 256);
    g_assert_cmphex(qdict_get_int(unit, "queue"), ==, v->iq);
    g_assert_cmpint(qdict_get_int(unit, "queue-size"), ==, 8192);
    g_assert_cmphex(qdict_get_int(unit, "queue-head"), ==,
                    qvtd_readq(v, QVTD_IQH));
    g_assert_cmphex(qdict_get_int(unit, "queue-tail"), ==,
                    qvtd_readq(v, QVTD_IQT));
    g_assert_cmphex(qdict_get_int(unit, "status"), ==,
                    qvtd_readl(v, QVTD_GSTS));
    qobject_unref(unit);
    qvtd_quit(v);
}

static void test_requester(void)
{
    QVtd *v = qvtd_start("x-count-hits=on", DEVICES);
    QVtdEdu *e = qvtd_edu(v, SID);
    QVtdDomain *d;
    QDict *unit, *r;

    qvtd_tables_init(v);
    d = qvtd_domain_new(v, 7, 3);
    qvtd_map(d, 0x10000, qvtd_alloc_pattern(v, 1), QVTD_PTE_RW);
    qvtd_map(d, 0x11000, qvtd_alloc_pattern(v, 2), QVTD_PTE_RW);
    qvtd_attach(d, SID);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    qvtd_dma_read(e, 0x10000);
    qvtd_dma_read(e, 0x11000);
    qvtd_dma_read(e, 0x10000);

    unit = query(v->qts);
    r = requester(unit, "00:04.0");
    g_assert_cmpstr(qdict_get_str(r, "translation"), ==, "second-stage");
    g_assert_cmpint(qdict_get_int(r, "domain"), ==, 7);
    g_assert_cmphex(qdict_get_int(r, "table"), ==, d->pgd);
    g_assert_cmpint(qdict_get_int(r, "levels"), ==, 3);
    g_assert_cmpint(qdict_get_int(r, "cached"), ==, 2);
    g_assert_cmpint(qdict_get_int(r, "cache-size"), ==, 256);
    g_assert_cmpint(qdict_get_int(r, "misses"), ==, 2);
    g_assert_cmpint(qdict_get_int(r, "hits"), ==, 1);
    g_assert_cmpint(qdict_get_int(r, "faults"), ==, 0);
    r = requester(unit, "00:05.0");
    g_assert_cmpstr(qdict_get_str(r, "translation"), ==, "blocked");
    g_assert_cmpint(qdict_get_int(r, "reason"), ==, QVTD_FR_CTX_NOT_PRESENT);
    g_assert_false(qdict_haskey(r, "table"));
    qobject_unref(unit);

    /* looking is no fault, and a flush empties the cache */
    qvtd_assert_no_fault(v);
    qvtd_edu_dma(e, 0x50000, 4, true);
    qvtd_flush_all(v);
    unit = query(v->qts);
    r = requester(unit, "00:04.0");
    g_assert_cmpint(qdict_get_int(r, "cached"), ==, 0);
    g_assert_cmpint(qdict_get_int(r, "faults"), ==, 1);
    qobject_unref(unit);
    qvtd_quit(v);
}

static void test_pass_through(void)
{
    QVtd *v = qvtd_start(NULL, DEVICES);
    QDict *unit, *r;

    qvtd_tables_init(v);
    qvtd_write_context(v, SID, QVTD_CTX_P | QVTD_CTX_TT(2),
                       QVTD_CTX_AW(4) | QVTD_CTX_DID(9));
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    unit = query(v->qts);
    r = requester(unit, "00:04.0");
    g_assert_cmpstr(qdict_get_str(r, "translation"), ==, "pass-through");
    g_assert_cmpint(qdict_get_int(r, "domain"), ==, 9);
    qobject_unref(unit);
    qvtd_quit(v);
}

/* The same for people */
static void test_text(void)
{
    QVtd *v = qvtd_start("intremap=on", DEVICES);
    QVtdDomain *d;
    g_autofree char *text = NULL;
    g_autofree char *line = NULL;

    qvtd_tables_init(v);
    d = qvtd_domain_new(v, 3, 4);
    qvtd_attach(d, SID);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
    text = qtest_hmp(v->qts, "info iommu");
    line = g_strdup_printf("00:04.0 second-stage, domain 3, 4 levels at "
                           "0x%" PRIx64 "; cached 0 of 0, misses 0, faults 0",
                           d->pgd);
    g_assert_nonnull(strstr(text, line));
    g_assert_nonnull(strstr(text, "00:05.0 blocked (fault reason 0x02)"));
    g_assert_nonnull(strstr(text, "DMA remapping on, legacy-mode"));
    qvtd_quit(v);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_data_func("/vtd/info/none/q35", "q35", test_none);
    qtest_add_data_func("/vtd/info/none/pc", "pc", test_none);
    qtest_add_func("/vtd/info/off", test_off);
    qtest_add_func("/vtd/info/unit", test_unit);
    qtest_add_func("/vtd/info/requester", test_requester);
    qtest_add_func("/vtd/info/pass-through", test_pass_through);
    qtest_add_func("/vtd/info/text", test_text);
    return g_test_run();
}
