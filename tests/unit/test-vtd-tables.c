/*
 * Intel VT-d: tests of the root and context tables
 *
 * Section numbers are those of the "Intel Virtualization Technology for
 * Directed I/O" architecture specification, revision 4.1.  Bit masks are
 * written out, not taken from intel_iommu_spec.h: they are the second look.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "test-vtd-memory.h"
#include "hw/i386/intel_iommu_tables.h"

#define P   0x1ULL
#define FPD 0x2ULL
#define TT(n) ((uint64_t)(n) << 2)
#define AW(n) ((uint64_t)(n))
#define DID(n) ((uint64_t)(n) << 8)

#define BUS 0xa5
#define DEVFN 0x5a
#define PAGING 0x7fedcba000ULL

typedef struct Fixture {
    TestMemory *m;
    VTDCapDesc cap;
    uint64_t root_table;
    uint64_t *root;             /* two words each */
    uint64_t *context;
    VTDConfig cfg;
} Fixture;

/* A requester with second-stage translation by 3 levels, domain 0x1234 */
static void fixture_init(Fixture *f, unsigned aw_bits)
{
    uint64_t context_table;

    *f = (Fixture) { .m = test_memory_new(), .cap.aw_bits = aw_bits };
    f->root_table = test_memory_frame(f->m);
    context_table = test_memory_frame(f->m);
    f->root = test_memory_word(f->m, f->root_table + BUS * 16);
    f->context = test_memory_word(f->m, context_table + DEVFN * 16);
    f->root[0] = context_table | P;
    f->context[0] = PAGING | P;
    f->context[1] = DID(0x1234) | AW(1);
}

static void fixture_destroy(Fixture *f)
{
    g_free(f->m);
}

static VTDFaultReason lookup(Fixture *f)
{
    memset(&f->cfg, 0xaa, sizeof(f->cfg));
    return vtd_tables_lookup(&f->m->dev, &f->cap, f->root_table, BUS, DEVFN,
                             &f->cfg);
}

static uint64_t address_of(Fixture *f, const uint64_t *word)
{
    return (uintptr_t)word - (uintptr_t)f->m->word;
}

/* Sections 3.4.3, 9.1, 9.3: what a good entry says */
static void test_good(void)
{
    Fixture f;

    fixture_init(&f, 48);
    g_assert_cmphex(lookup(&f), ==, VTD_FR_NONE);
    g_assert_cmpint(f.cfg.stage, ==, VTD_STAGE_SECOND);
    g_assert_cmphex(f.cfg.domain, ==, 0x1234);
    g_assert_cmphex(f.cfg.root, ==, PAGING);
    g_assert_cmphex(f.cfg.host_mask, ==, 0xffffffffffffULL);
    g_assert_cmpuint(f.cfg.levels, ==, 3);
    g_assert_cmphex(f.cfg.address_limit, ==, 1ULL << 39);
    g_assert_false(f.cfg.fpd);
    g_assert_cmpuint(f.m->reads, ==, 4);
    fixture_destroy(&f);
}

/* Section 3.4.2: each requester has entries of its own */
static void test_requesters(void)
{
    static const uint8_t numbers[] = { 0, 1, 0x7f, 0x80, 0xff };
    Fixture f;

    fixture_init(&f, 48);
    for (unsigned b = 0; b < ARRAY_SIZE(numbers); b++) {
        uint64_t context_table = test_memory_frame(f.m);

        *test_memory_word(f.m, f.root_table + numbers[b] * 16) =
            context_table | P;
        for (unsigned d = 0; d < ARRAY_SIZE(numbers); d++) {
            uint64_t *context = test_memory_word(f.m, context_table +
                                                 numbers[d] * 16);

            context[0] = PAGING | P;
            context[1] = DID(numbers[b] << 8 | numbers[d]) | AW(2);
        }
    }
    for (unsigned b = 0; b < ARRAY_SIZE(numbers); b++) {
        for (unsigned d = 0; d < ARRAY_SIZE(numbers); d++) {
            VTDConfig cfg;

            g_assert_cmphex(vtd_tables_lookup(&f.m->dev, &f.cap, f.root_table,
                                              numbers[b], numbers[d], &cfg),
                            ==, VTD_FR_NONE);
            g_assert_cmphex(cfg.domain, ==, numbers[b] << 8 | numbers[d]);
        }
    }
    fixture_destroy(&f);
}

/* Section 9.3: all domain-ids */
static void test_domains(void)
{
    Fixture f;

    fixture_init(&f, 48);
    for (unsigned i = 0; i < 0x10000; i++) {
        f.context[1] = DID(i) | AW(1);
        g_assert_cmphex(lookup(&f), ==, VTD_FR_NONE);
        g_assert_cmphex(f.cfg.domain, ==, i);
    }
    fixture_destroy(&f);
}

/* LRT.1, LCT.1: tables that cannot be read, word by word */
static void test_access(void)
{
    Fixture f;

    fixture_init(&f, 48);
    for (unsigned i = 0; i < 2; i++) {
        f.context[0] |= FPD;
        f.m->broken = address_of(&f, &f.root[i]);
        g_assert_cmphex(lookup(&f), ==, 0x8);
        g_assert_false(f.cfg.fpd);
        f.m->broken = address_of(&f, &f.context[i]);
        g_assert_cmphex(lookup(&f), ==, 0x9);
        g_assert_false(f.cfg.fpd);
    }
    f.m->broken = 0;
    f.root[0] = (TEST_FRAMES * VTD_PAGE_SIZE) | P;
    g_assert_cmphex(lookup(&f), ==, 0x9);
    f.root_table = TEST_FRAMES * VTD_PAGE_SIZE;
    g_assert_cmphex(lookup(&f), ==, 0x8);
    f.root_table = 0x7ffffffff000ULL;
    g_assert_cmphex(lookup(&f), ==, 0x8);
    fixture_destroy(&f);
}

/* LRT.2, LCT.2: without P all other bits are ignored, but for FPD */
static void test_not_present(void)
{
    Fixture f;

    fixture_init(&f, 48);
    f.context[0] = FPD;
    g_assert_cmphex(lookup(&f), ==, 0x2);
    g_assert_true(f.cfg.fpd);
    f.context[0] = ~P;
    f.context[1] = UINT64_MAX;
    g_assert_cmphex(lookup(&f), ==, 0x2);
    g_assert_true(f.cfg.fpd);
    f.context[0] = ~(P | FPD);
    g_assert_cmphex(lookup(&f), ==, 0x2);
    g_assert_false(f.cfg.fpd);
    f.context[0] = FPD;
    f.root[0] = 0;
    g_assert_cmphex(lookup(&f), ==, 0x1);
    g_assert_false(f.cfg.fpd);
    f.root[0] = ~P;
    f.root[1] = UINT64_MAX;
    g_assert_cmphex(lookup(&f), ==, 0x1);
    g_assert_false(f.cfg.fpd);
    fixture_destroy(&f);
}

/* LRT.3, LCT.3: each reserved bit of the four words */
typedef struct Reserved {
    const char *name;
    bool context;
    unsigned word;
    unsigned aw_bits;
    uint64_t reserved;
    VTDFaultReason reason;
} Reserved;

static const Reserved reserved_cases[] = {
    { "root-low", false, 0, 48, 0xffff000000000ffeULL, 0xa },
    { "root-low/haw-39", false, 0, 39, 0xffffff8000000ffeULL, 0xa },
    { "root-high", false, 1, 48, UINT64_MAX, 0xa },
    { "context-low", true, 0, 48, 0xffff000000000ff0ULL, 0xb },
    { "context-low/haw-39", true, 0, 39, 0xffffff8000000ff0ULL, 0xb },
    { "context-high", true, 1, 48, 0xffffffffff000080ULL, 0xb },
};

static void test_reserved(const void *opaque)
{
    const Reserved *c = opaque;
    Fixture f;
    uint64_t *word;

    fixture_init(&f, c->aw_bits);
    word = (c->context ? f.context : f.root) + c->word;
    for (unsigned i = 0; i < 64; i++) {
        uint64_t good = *word;

        *word |= 1ULL << i;
        if (c->reserved & (1ULL << i)) {
            /* Before the fields that might be invalid are looked at */
            f.context[1] |= AW(7);
            g_assert_cmphex(lookup(&f), ==, c->reason);
            /* Section 9.3: FPD counts for this fault of the entry */
            f.context[0] |= FPD;
            g_assert_cmphex(lookup(&f), ==, c->reason);
            g_assert_cmpint(f.cfg.fpd, ==, c->context);
            f.context[0] &= ~FPD;
            f.context[1] &= ~AW(6);
        } else {
            g_assert_cmphex(lookup(&f), !=, c->reason);
        }
        *word = good;
    }
    g_assert_cmphex(lookup(&f), ==, VTD_FR_NONE);
    fixture_destroy(&f);
}

/* Section 9.3: bits 6:3 of the high word are software's */
static void test_available(void)
{
    Fixture f;

    fixture_init(&f, 48);
    f.context[1] |= 0x78;
    g_assert_cmphex(lookup(&f), ==, VTD_FR_NONE);
    g_assert_cmphex(f.cfg.domain, ==, 0x1234);
    g_assert_cmpuint(f.cfg.levels, ==, 3);
    fixture_destroy(&f);
}

/* LCT.4: each address width, with units of 39 and of 48 bits */
static void test_address_width(void)
{
    static const struct {
        unsigned aw_bits, aw, levels, bits;
    } cases[] = {
        { 39, 0 }, { 39, 1, 3, 39 }, { 39, 2 }, { 39, 3 },
        { 39, 4 }, { 39, 5 }, { 39, 6 }, { 39, 7 },
        { 48, 0 }, { 48, 1, 3, 39 }, { 48, 2, 4, 48 }, { 48, 3 },
        { 48, 4 }, { 48, 5 }, { 48, 6 }, { 48, 7 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Fixture f;

        fixture_init(&f, cases[i].aw_bits);
        f.context[0] |= FPD;
        f.context[1] = DID(1) | AW(cases[i].aw);
        if (cases[i].levels) {
            g_assert_cmphex(lookup(&f), ==, VTD_FR_NONE);
            g_assert_cmpuint(f.cfg.levels, ==, cases[i].levels);
            g_assert_cmphex(f.cfg.address_limit, ==, 1ULL << cases[i].bits);
            g_assert_cmphex(f.cfg.host_mask, ==,
                            (1ULL << cases[i].aw_bits) - 1);
        } else {
            g_assert_cmphex(lookup(&f), ==, 0x3);
        }
        g_assert_true(f.cfg.fpd);
        fixture_destroy(&f);
    }
}

/* LCT.4, section 9.3: translation types that the unit offers, or does not */
static void test_translation_type(void)
{
    static const struct {
        unsigned tt;
        bool device_iotlb, pass_through;
        VTDFaultReason reason;
        VTDStage stage;
    } cases[] = {
        { 0, false, false, 0, VTD_STAGE_SECOND },
        { 0, true, true, 0, VTD_STAGE_SECOND },
        { 1, false, true, 0x3 },
        { 1, true, false, 0, VTD_STAGE_SECOND },
        { 2, true, false, 0x3 },
        { 2, false, true, 0, VTD_STAGE_PASS_THROUGH },
        { 3, true, true, 0x3 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Fixture f;

        fixture_init(&f, 48);
        f.cap.device_iotlb = cases[i].device_iotlb;
        f.cap.pass_through = cases[i].pass_through;
        f.context[0] |= TT(cases[i].tt);
        g_assert_cmphex(lookup(&f), ==, cases[i].reason);
        if (!cases[i].reason) {
            g_assert_cmpint(f.cfg.stage, ==, cases[i].stage);
            g_assert_cmphex(f.cfg.domain, ==, 0x1234);
        }
        fixture_destroy(&f);
    }
}

/*
 * Section 9.8: SNP is reserved where the unit lacks it.  TM is reserved but
 * for old machines' device-TLBs: revision 2.4 of the specification had it.
 */
static void test_reserved_leaf(void)
{
    for (unsigned i = 0; i < 8; i++) {
        bool snoop_control = i & 1, device_iotlb = i & 2, stale_tm = i & 4;
        uint64_t reserved = 0;
        Fixture f;

        fixture_init(&f, 48);
        f.cap.snoop_control = snoop_control;
        f.cap.device_iotlb = device_iotlb;
        f.cap.stale_tm = stale_tm;
        if (!snoop_control) {
            reserved |= 0x800;
        }
        if (!device_iotlb || !stale_tm) {
            reserved |= 0x4000000000000000ULL;
        }
        g_assert_cmphex(lookup(&f), ==, VTD_FR_NONE);
        g_assert_cmphex(f.cfg.rsvd_leaf, ==, reserved);
        fixture_destroy(&f);
    }
}

/* Section 9.3: FPD belongs to the entry, whatever else it says */
static void test_fpd(void)
{
    Fixture f;

    fixture_init(&f, 48);
    f.context[0] |= FPD;
    g_assert_cmphex(lookup(&f), ==, VTD_FR_NONE);
    g_assert_true(f.cfg.fpd);
    f.context[0] |= TT(3);
    g_assert_cmphex(lookup(&f), ==, 0x3);
    g_assert_true(f.cfg.fpd);
    f.context[0] &= ~FPD;
    g_assert_cmphex(lookup(&f), ==, 0x3);
    g_assert_false(f.cfg.fpd);
    fixture_destroy(&f);
}

/*
 * Section 7.1.3 and appendix A: the faults that FPD keeps from being
 * recorded; reasons 0x20 to 0x26 are interrupt remapping's (section 5.1.4.1).
 */
static void test_qualified(void)
{
    static const bool qualified[0x100] = {
        [0x2] = true, [0x3] = true, [0x4] = true, [0x5] = true, [0x6] = true,
        [0x7] = true, [0xb] = true, [0xc] = true, [0xd] = true, [0xe] = true,
        [0x22] = true, [0x24] = true, [0x26] = true,
    };
    static const uint8_t defined[] = {
        0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9, 0xa, 0xb, 0xc, 0xd, 0xe,
        0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(defined); i++) {
        g_assert_cmpint(vtd_fault_qualified(defined[i]), ==,
                        qualified[defined[i]]);
    }
    g_assert_false(vtd_fault_qualified(VTD_FR_NONE));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/vtd/tables/good", test_good);
    g_test_add_func("/vtd/tables/requesters", test_requesters);
    g_test_add_func("/vtd/tables/domains", test_domains);
    g_test_add_func("/vtd/tables/access", test_access);
    g_test_add_func("/vtd/tables/not-present", test_not_present);
    for (unsigned i = 0; i < ARRAY_SIZE(reserved_cases); i++) {
        g_autofree char *path = g_strdup_printf("/vtd/tables/reserved/%s",
                                                reserved_cases[i].name);

        g_test_add_data_func(path, &reserved_cases[i], test_reserved);
    }
    g_test_add_func("/vtd/tables/available", test_available);
    g_test_add_func("/vtd/tables/address-width", test_address_width);
    g_test_add_func("/vtd/tables/translation-type", test_translation_type);
    g_test_add_func("/vtd/tables/reserved-leaf", test_reserved_leaf);
    g_test_add_func("/vtd/tables/fpd", test_fpd);
    g_test_add_func("/vtd/tables/qualified", test_qualified);
    return g_test_run();
}
