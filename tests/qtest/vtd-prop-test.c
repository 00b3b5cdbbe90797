/*
 * VT-d: what the properties of "intel-iommu" do to the capability registers,
 * which of their combinations are refused and with which words, and what the
 * versioned machine types change (VT-d specification 11.4.1 to 11.4.3)
 *
 * VER, CAP and ECAP travel in the migration stream, so they must not change
 * for a command line that worked before.  expect() below was compared with
 * the model of QEMU 10.0 for 59,000 of the 73,728 combinations, drawn at
 * random.  With QTEST_STOCK_QEMU_BINARY set to another QEMU, what a run tries
 * is compared with that one as well.  QTEST_VTD_COMBINATIONS is how many it
 * tries: all of them take hours.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "libqtest.h"
#include "qobject/qdict.h"
#include "libqos/intel-iommu.h"

#define STOCK_ENV "QTEST_STOCK_QEMU_BINARY"

#define COUNT_ENV "QTEST_VTD_COMBINATIONS"

/* Combinations that one run tries */
#define SAMPLE    160
#define SLOW_SAMPLE 640

enum {
    AW, CM, DEVICE_IOTLB, DRAIN, DMA_TRANSLATION, EIM, FS1GP, INTREMAP, PT,
    SNOOP, STALE_TM, BUGGY_EIM, FLTS, PASID, SCALABLE, NPROPS
};

enum { OFF, ON, AUTO };

typedef struct Property {
    const char *name;
    const char *values[3];
    int initial;
} Property;

#define ON_OFF { "off", "on" }

/* In the order of "-device intel-iommu,help"; "version" is tested apart. */
static const Property props[NPROPS] = {
    [AW] = { "aw-bits", { "39", "48" }, 1 },
    [CM] = { "caching-mode", ON_OFF, OFF },
    [DEVICE_IOTLB] = { "device-iotlb", ON_OFF, OFF },
    [DRAIN] = { "dma-drain", ON_OFF, ON },
    [DMA_TRANSLATION] = { "dma-translation", ON_OFF, ON },
    [EIM] = { "eim", { "off", "on", "auto" }, AUTO },
    [FS1GP] = { "fs1gp", ON_OFF, ON },
    [INTREMAP] = { "intremap", { "off", "on", "auto" }, AUTO },
    [PT] = { "pt", ON_OFF, ON },
    [SNOOP] = { "snoop-control", ON_OFF, OFF },
    [STALE_TM] = { "stale-tm", ON_OFF, OFF },
    [BUGGY_EIM] = { "x-buggy-eim", ON_OFF, OFF },
    [FLTS] = { "x-flts", ON_OFF, OFF },
    [PASID] = { "x-pasid-mode", ON_OFF, OFF },
    [SCALABLE] = { "x-scalable-mode", ON_OFF, OFF },
};

typedef struct Combination {
    int v[NPROPS];
} Combination;

/* What one combination gives: the registers, or the words of the refusal */
typedef struct Outcome {
    const char *refusal;
    uint32_t ver;
    uint64_t cap;
    uint64_t ecap;
} Outcome;

/* @stock: QEMU's own model, which has no 5-level paging */
static const char *refusal(const int *v, bool stock)
{
    if (v[PASID] && v[DEVICE_IOTLB]) {
        return "PASID based device IOTLB is not supported";
    }
    if (v[INTREMAP] == OFF && v[EIM] == ON) {
        return "eim=on cannot be selected without intremap=on";
    }
    if (v[FLTS] && !v[SCALABLE]) {
        return "x-flts is only available in scalable mode";
    }
    if (v[FLTS] && !v[AW]) {
        return stock ?
            "Scalable mode(flts=on): supported value for aw-bits is: 48" :
            "Scalable mode(flts=on): supported values for aw-bits are: 48, 57";
    }
    if (v[SCALABLE] && !v[DRAIN]) {
        return "Need to set dma_drain for scalable mode";
    }
    if (v[PASID] && !v[SCALABLE]) {
        return "Need to set scalable mode for PASID";
    }
    return NULL;
}

/* 11.4.2 */
static uint64_t expect_cap(const int *v)
{
    uint64_t cap = 6 |                  /* ND: 64 Ki domains */
        0x22ULL << 24 |                 /* FRO: records at 0x220 */
        3ULL << 34 |                    /* SLLPS: 2 MiB and 1 GiB */
        QVTD_CAP_PSI | 18ULL << 48;     /* page invalidation, MAMV */

    cap |= (v[AW] ? 47ULL : 38ULL) << 16;
    cap |= v[CM] ? QVTD_CAP_CM : 0;
    cap |= v[DRAIN] ? QVTD_CAP_DWD | QVTD_CAP_DRD : 0;
    cap |= v[FLTS] && v[FS1GP] ? QVTD_CAP_FS1GP : 0;
    if (v[DMA_TRANSLATION]) {
        cap |= QVTD_CAP_SAGAW_39 | (v[AW] ? QVTD_CAP_SAGAW_48 : 0);
    }
    return cap;
}

/* 11.4.3 */
static uint64_t expect_ecap(const int *v)
{
    uint64_t ecap = QVTD_ECAP_QI | 0xfULL << 8;     /* IRO: 0xf0 */

    ecap |= v[DEVICE_IOTLB] ? QVTD_ECAP_DT : 0;
    ecap |= v[PT] ? QVTD_ECAP_PT : 0;
    ecap |= v[SNOOP] ? QVTD_ECAP_SC : 0;
    if (v[INTREMAP] != OFF) {
        ecap |= QVTD_ECAP_IR | 0xfULL << 20;        /* MHMV */
        if (v[EIM] == ON || (v[EIM] == AUTO && v[BUGGY_EIM])) {
            ecap |= QVTD_ECAP_EIM;
        }
    }
    if (v[SCALABLE]) {
        ecap |= QVTD_ECAP_SMTS;
        ecap |= v[FLTS] ? QVTD_ECAP_FSTS : QVTD_ECAP_SSTS | QVTD_ECAP_SRS;
        ecap |= v[PASID] ? QVTD_ECAP_PASID : 0;
    }
    return ecap;
}

static Outcome expect(const int *v, bool stock)
{
    return (Outcome) {
        .refusal = refusal(v, stock),
        .ver = 0x10,
        .cap = expect_cap(v),
        .ecap = expect_ecap(v),
    };
}

static char *to_string(const int *v)
{
    GString *s = g_string_new(NULL);

    for (int i = 0; i < NPROPS; i++) {
        g_string_append_printf(s, "%s%s=%s", i ? "," : "", props[i].name,
                               props[i].values[v[i]]);
    }
    return g_string_free(s, false);
}

/*
 * Start a machine that is bound to be refused - if nothing else is wrong
 * with it, by its last device - and return the first error line.
 */
static char *first_error(const char *env, const char *machine,
                         const char *prop)
{
    g_autofree char *device = g_strdup_printf("intel-iommu,%s", prop);
    g_autofree char *err = NULL;
    const char *argv[] = {
        getenv(env), "-M", machine, "-nodefaults", "-accel", "qtest",
        "-display", "none", "-device", device, "-device", "no-such-device",
        NULL
    };
    g_auto(GStrv) lines = NULL;
    int status;

    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, 0, NULL, NULL, NULL,
                               &err, &status, NULL));
    lines = g_strsplit(err, "\n", 0);
    for (char **l = lines; *l; l++) {
        char *words = strstr(*l, ": -device ");

        if (words) {
            g_assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
            words = strstr(words + strlen(": -device "), ": ");
            return g_strdup(words ? words + 2 : *l);
        }
    }
    g_assert_not_reached();
}

static void check_registers(const char *env, const char *prop,
                            const Outcome *want)
{
    QVtd *v = qvtd_start_env(env, prop, NULL);

    qvtd_assert_reg32(v, QVTD_VER, want->ver);
    g_assert_cmphex(v->cap, ==, want->cap);
    g_assert_cmphex(v->ecap, ==, want->ecap);
    qvtd_quit(v);
}

static void check_one(const char *env, const int *v)
{
    Outcome want = expect(v, g_str_equal(env, STOCK_ENV));
    g_autofree char *prop = to_string(v);

    g_test_message("%s", prop);
    if (want.refusal) {
        g_autofree char *got = first_error(env, "q35", prop);

        g_assert_cmpstr(got, ==, want.refusal);
    } else {
        check_registers(env, prop, &want);
    }
}

static void check_both(const int *v)
{
    check_one("QTEST_QEMU_BINARY", v);
    if (getenv(STOCK_ENV)) {
        check_one(STOCK_ENV, v);
    }
}

static void initial_values(int *v)
{
    for (int i = 0; i < NPROPS; i++) {
        v[i] = props[i].initial;
    }
}

/* Every value of every property, the others at their defaults */
static void test_single(void)
{
    int v[NPROPS];

    initial_values(v);
    check_both(v);
    for (int i = 0; i < NPROPS; i++) {
        initial_values(v);
        for (v[i] = 0; v[i] < 3 && props[i].values[v[i]]; v[i]++) {
            check_both(v);
        }
    }
}

static unsigned combinations(void)
{
    unsigned n = 1;

    for (int i = 0; i < NPROPS; i++) {
        n *= props[i].values[2] ? 3 : 2;
    }
    return n;
}

static void combination(unsigned n, int *v)
{
    for (int i = 0; i < NPROPS; i++) {
        unsigned values = props[i].values[2] ? 3 : 2;

        v[i] = n % values;
        n /= values;
    }
}

static unsigned sample_size(unsigned total)
{
    const char *count = getenv(COUNT_ENV);
    unsigned n = g_test_slow() ? SLOW_SAMPLE : SAMPLE;

    if (count) {
        g_assert_cmpint(qemu_strtoui(count, NULL, 0, &n), ==, 0);
    }
    return MIN(MAX(n, 1), total);
}

/* All combinations, or an even sample of them that moves with the seed */
static void test_combinations(void)
{
    unsigned total = combinations();
    unsigned count = sample_size(total);
    unsigned step = total / count;
    int v[NPROPS];

    for (unsigned i = 0; i < count; i++) {
        unsigned shift = step > 1 ? g_test_rand_int_range(0, step) : 0;

        combination(i * step + shift, v);
        check_both(v);
    }
}

typedef struct Refused {
    const char *prop;
    const char *words;
} Refused;

static const Refused refused[] = {
    { "aw-bits=0",
      "Legacy mode: supported values for aw-bits are: 39, 48, 57" },
    { "aw-bits=38",
      "Legacy mode: supported values for aw-bits are: 39, 48, 57" },
    { "aw-bits=58",
      "Legacy mode: supported values for aw-bits are: 39, 48, 57" },
    { "x-scalable-mode=on,aw-bits=52", "Scalable mode(flts=off): "
      "supported values for aw-bits are: 39, 48, 57" },
    { "intremap=off,eim=on",
      "eim=on cannot be selected without intremap=on" },
    { "x-flts=on", "x-flts is only available in scalable mode" },
    { "x-pasid-mode=on", "Need to set scalable mode for PASID" },
    { "x-scalable-mode=on,dma-drain=off",
      "Need to set dma_drain for scalable mode" },
    { "x-scalable-mode=on,x-pasid-mode=on,device-iotlb=on",
      "PASID based device IOTLB is not supported" },
    { "fault-records=0", "fault-records must be 1 to 222, not 0" },
    { "fault-records=223", "fault-records must be 1 to 222, not 223" },
    { "bogus=1", "Property 'intel-iommu.bogus' not found" },
    /* Nothing is wrong here: the sentinel itself is what is refused. */
    { "aw-bits=39", "'no-such-device' is not a valid device model name" },
};

static void test_refused(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(refused); i++) {
        g_autofree char *got =
            first_error("QTEST_QEMU_BINARY", "q35", refused[i].prop);

        g_test_message("%s", refused[i].prop);
        g_assert_cmpstr(got, ==, refused[i].words);
    }
}

/* 11.4.2: SAGAW, MGAW; FS5LP with first-stage tables */
static void test_5_levels(void)
{
    static const struct {
        const char *more;
        int index;
    } modes[] = { { "" , -1 }, { ",x-scalable-mode=on", SCALABLE },
                  { ",x-scalable-mode=on,x-flts=on", FLTS } };

    for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
        g_autofree char *prop = g_strdup_printf("aw-bits=57%s",
                                                modes[i].more);
        int v[NPROPS];
        Outcome want;

        initial_values(v);
        v[SCALABLE] = modes[i].index != -1;
        v[FLTS] = modes[i].index == FLTS;
        want = expect(v, false);
        want.cap &= ~(0x3fULL << 16);
        want.cap |= 56ULL << 16 | QVTD_CAP_SAGAW_57 |
                    (v[FLTS] ? QVTD_CAP_FS5LP : 0);
        check_registers("QTEST_QEMU_BINARY", prop, &want);
    }
}

/* "version" is a leftover that no register shows. */
static void test_version(void)
{
    static const char *const values[] = { "0", "1", "0x10", "0xffffffff" };
    Outcome want;
    int v[NPROPS];

    initial_values(v);
    want = expect(v, false);
    for (unsigned i = 0; i < ARRAY_SIZE(values); i++) {
        g_autofree char *prop = g_strdup_printf("version=%s", values[i]);

        check_registers("QTEST_QEMU_BINARY", prop, &want);
    }
}

typedef struct Compat {
    const char *machine;
    bool aw48, drain, pt, buggy_eim;
} Compat;

/* The last machine type before, and the first one after, each change */
static const Compat compat[] = {
    { "pc-q35-2.4", false, false, false, true },
    { "pc-q35-2.7", false, false, false, true },
    { "pc-q35-2.8", false, false, false, false },
    { "pc-q35-2.9", false, false, false, false },
    { "pc-q35-2.10", false, false, true, false },
    { "pc-q35-3.1", false, false, true, false },
    { "pc-q35-4.0", false, true, true, false },
    { "pc-q35-9.1", false, true, true, false },
    { "pc-q35-9.2", true, true, true, false },
    { "pc-q35-10.0", true, true, true, false },
};

static void test_compat(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(compat); i++) {
        g_autofree char *args = g_strdup_printf("-M %s", compat[i].machine);
        int p[NPROPS];
        QVtd *v;

        g_assert_true(qtest_has_machine(compat[i].machine));
        initial_values(p);
        p[AW] = compat[i].aw48;
        p[DRAIN] = compat[i].drain;
        p[PT] = compat[i].pt;
        p[BUGGY_EIM] = compat[i].buggy_eim;
        g_test_message("%s", compat[i].machine);
        v = qvtd_start(NULL, args);
        g_assert_cmphex(v->cap, ==, expect_cap(p));
        g_assert_cmphex(v->ecap, ==, expect_ecap(p));
        qvtd_quit(v);
    }
}

/* stale-tm has no register: ask the object what the machine type set. */
static void test_compat_stale_tm(void)
{
    static const struct {
        const char *machine;
        bool on;
    } rows[] = {
        { "pc-q35-2.12", true },
        { "pc-q35-9.0", true },
        { "pc-q35-9.1", true },
        { "pc-q35-9.2", false },
        { "pc-q35-10.0", false },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        g_autofree char *args = g_strdup_printf("-M %s", rows[i].machine);
        QVtd *v = qvtd_start("id=vtd", args);
        QDict *r = qtest_qmp(v->qts, "{ 'execute': 'qom-get', 'arguments': "
                             "{ 'path': '/machine/peripheral/vtd',"
                             "  'property': 'stale-tm' } }");

        g_assert_cmpint(qdict_get_bool(r, "return"), ==, rows[i].on);
        qobject_unref(r);
        qvtd_quit(v);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/vtd/properties/single", test_single);
    qtest_add_func("/vtd/properties/combinations", test_combinations);
    qtest_add_func("/vtd/properties/refused", test_refused);
    qtest_add_func("/vtd/properties/5-levels", test_5_levels);
    qtest_add_func("/vtd/properties/version", test_version);
    qtest_add_func("/vtd/properties/compat", test_compat);
    qtest_add_func("/vtd/properties/compat/stale-tm", test_compat_stale_tm);
    return g_test_run();
}
