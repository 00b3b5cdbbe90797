/*
 * Intel VT-d: tests of the root, context and PASID tables
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
        [0x41] = true, [0x42] = true, [0x45] = true, [0x46] = true,
        [0x48] = true, [0x50] = true, [0x51] = true, [0x52] = true,
        [0x58] = true, [0x59] = true, [0x5a] = true, [0x5b] = true,
        [0x5d] = true, [0x70] = true, [0x71] = true, [0x72] = true,
        [0x73] = true, [0x78] = true, [0x7a] = true, [0x7b] = true,
        [0x80] = true, [0x81] = true, [0x84] = true, [0x85] = true,
        [0x86] = true, [0x87] = true, [0x91] = true,
    };
    static const uint8_t defined[] = {
        0x31, 0x38, 0x39, 0x3a, 0x40, 0x41, 0x42, 0x45, 0x46, 0x48, 0x50,
        0x51, 0x52, 0x58, 0x59, 0x5a, 0x5b, 0x5d, 0x70, 0x71, 0x72, 0x73,
        0x78, 0x7a, 0x7b, 0x80, 0x81, 0x84, 0x85, 0x86, 0x87, 0x91,
        0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9, 0xa, 0xb, 0xc, 0xd, 0xe,
        0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(defined); i++) {
        g_assert_cmpint(vtd_fault_qualified(defined[i]), ==,
                        qualified[defined[i]]);
    }
    g_assert_false(vtd_fault_qualified(VTD_FR_NONE));
}

/* --- scalable mode --- */

#define SM_PASID 0x9a5b6u
#define PASIDE 0x8ULL
#define PDTS(n) ((uint64_t)(n) << 9)
#define RID_PRIV 0x100000ULL
#define PGTT(n) ((uint64_t)(n) << 6)
#define SM_AW(n) ((uint64_t)(n) << 2)
#define SRE 0x1ULL
#define NXE 0x20ULL
#define FIRST_PAGING 0x6123456000ULL

/* Which of the entries on the way */
typedef enum Which { ROOT, CONTEXT, DIRECTORY, ENTRY, WHICH_MAX } Which;

typedef struct Scalable {
    TestMemory *m;
    VTDCapDesc cap;
    uint64_t root_table;
    uint16_t sid;
    uint32_t pasid;
    uint64_t *at[WHICH_MAX];
    VTDConfig cfg;
} Scalable;

/*
 * Requester a5:0b.2 with 3 levels of second stage, domain 0x1234, for
 * requests with PASID SM_PASID, and for those without, by RID_PASID.
 */
static void scalable_init(Scalable *f)
{
    uint64_t context_table, directory, table, dir_entry;
    unsigned words;

    *f = (Scalable) {
        .m = test_memory_new(), .sid = 0xa55a, .pasid = SM_PASID,
        .cap = { .aw_bits = 48, .scalable = true, .pasid = true },
    };
    f->root_table = test_memory_frame(f->m);
    context_table = test_memory_frame(f->m);
    words = 1 << 14;
    directory = test_memory_frame(f->m);
    while (f->m->used * TEST_WORDS < directory / 8 + words) {
        test_memory_frame(f->m);
    }
    table = test_memory_frame(f->m);
    dir_entry = directory + (SM_PASID >> 6) * 8;
    f->at[ROOT] = test_memory_word(f->m, f->root_table + 0xa5 * 16);
    f->at[CONTEXT] = test_memory_word(f->m, context_table + 0x5a * 32);
    f->at[DIRECTORY] = test_memory_word(f->m, dir_entry);
    f->at[ENTRY] = test_memory_word(f->m, table + (SM_PASID & 63) * 64);
    f->at[ROOT][0] = context_table | P;
    f->at[CONTEXT][0] = directory | PDTS(7) | PASIDE | P;
    f->at[CONTEXT][1] = SM_PASID;
    f->at[DIRECTORY][0] = table | P;
    f->at[ENTRY][0] = PAGING | PGTT(2) | SM_AW(1) | P;
    f->at[ENTRY][1] = 0x1234;
}

/* The same with the first stage */
static void first_stage_init(Scalable *f)
{
    scalable_init(f);
    f->cap.first_stage = true;
    f->cap.first_stage_1g = true;
    f->at[ENTRY][0] = PGTT(1) | P;
    f->at[ENTRY][2] = FIRST_PAGING;
}

static void scalable_destroy(Scalable *f)
{
    g_free(f->m);
}

static VTDFaultReason scalable_lookup(Scalable *f)
{
    memset(&f->cfg, 0xaa, sizeof(f->cfg));
    return vtd_scalable_lookup(&f->m->dev, &f->cap, f->root_table, f->sid,
                               f->pasid, &f->cfg);
}

/* Sections 9.2, 9.4 to 9.6: with and without PASID, second stage */
static void test_scalable_second(void)
{
    Scalable f;

    scalable_init(&f);
    for (unsigned i = 0; i < 2; i++) {
        f.m->reads = 0;
        g_assert_cmphex(scalable_lookup(&f), ==, 0);
        g_assert_cmpint(f.cfg.stage, ==, VTD_STAGE_SECOND);
        g_assert_true(f.cfg.scalable);
        g_assert_cmphex(f.cfg.domain, ==, 0x1234);
        g_assert_cmphex(f.cfg.pasid, ==, SM_PASID);
        g_assert_cmphex(f.cfg.root, ==, PAGING);
        g_assert_cmphex(f.cfg.host_mask, ==, 0xffffffffffffULL);
        g_assert_cmphex(f.cfg.rsvd_leaf, ==, 0x4000000000000800ULL);
        g_assert_cmpuint(f.cfg.levels, ==, 3);
        g_assert_cmphex(f.cfg.address_limit, ==, 1ULL << 39);
        g_assert_false(f.cfg.fpd);
        g_assert_cmpuint(f.m->reads, ==, 2 + 4 + 1 + 8);
        f.pasid = VTD_PASID_NONE;
    }
    scalable_destroy(&f);
}

/* Section 9.6: first stage; NXE makes XD a bit that software may set */
static void test_scalable_first(void)
{
    for (unsigned i = 0; i < 4; i++) {
        Scalable f;

        first_stage_init(&f);
        f.at[ENTRY][2] |= i & 1 ? NXE : 0;
        f.cap.first_stage_1g = i & 2;
        g_assert_cmphex(scalable_lookup(&f), ==, 0);
        g_assert_cmpint(f.cfg.stage, ==, VTD_STAGE_FIRST);
        g_assert_cmphex(f.cfg.domain, ==, 0x1234);
        g_assert_cmphex(f.cfg.root, ==, FIRST_PAGING);
        g_assert_cmpuint(f.cfg.levels, ==, 4);
        g_assert_cmphex(f.cfg.host_mask, ==, 0xffffffffffffULL);
        g_assert_cmphex(f.cfg.rsvd_any, ==, i & 1 ? 0 : 1ULL << 63);
        g_assert_cmpint(f.cfg.no_huge, ==, !(i & 2));
        scalable_destroy(&f);
    }
}

/* Section 9.2: functions from 128 on are in the upper context table */
static void test_scalable_halves(void)
{
    static const uint8_t devfns[] = { 0, 0x7f, 0x80, 0xff };

    for (unsigned i = 0; i < ARRAY_SIZE(devfns); i++) {
        unsigned half = devfns[i] >> 7;
        uint64_t table, *context;
        Scalable f;

        scalable_init(&f);
        table = test_memory_frame(f.m);
        context = test_memory_word(f.m, table + (devfns[i] & 127) * 32);
        memcpy(context, f.at[CONTEXT], 32);
        memset(f.at[CONTEXT], 0, 32);
        f.sid = 0xa500 | devfns[i];
        f.at[ROOT][half] = table | P;
        g_assert_cmphex(scalable_lookup(&f), ==, 0);
        /* The other half is not looked at */
        f.at[ROOT][!half] = UINT64_MAX;
        g_assert_cmphex(scalable_lookup(&f), ==, 0);
        f.at[ROOT][!half] = table | P;
        f.at[ROOT][half] = ~P;
        g_assert_cmphex(scalable_lookup(&f), ==, 0x39);
        scalable_destroy(&f);
    }
}

/* SRT.1, SCT.1, SPD.1, SPT.1: each word of each entry cannot be read */
static void test_scalable_access(void)
{
    static const unsigned words[] = { 2, 4, 1, 8 };
    static const VTDFaultReason reason[] = { 0x38, 0x40, 0x50, 0x58 };
    Scalable f;

    scalable_init(&f);
    for (Which which = ROOT; which < WHICH_MAX; which++) {
        for (unsigned i = 0; i < words[which]; i++) {
            f.m->broken = (uintptr_t)(f.at[which] + i) - (uintptr_t)f.m->word;
            g_assert_cmphex(scalable_lookup(&f), ==, reason[which]);
        }
    }
    scalable_destroy(&f);
}

/* SRT.2, SCT.2, SPD.2, SPT.2: without P all other bits are ignored */
static void test_scalable_not_present(void)
{
    static const VTDFaultReason reason[] = { 0x39, 0x41, 0x51, 0x59 };
    Scalable f;

    scalable_init(&f);
    for (Which which = ROOT; which < WHICH_MAX; which++) {
        uint64_t good = f.at[which][0];

        f.at[which][0] = ~P;
        g_assert_cmphex(scalable_lookup(&f), ==, reason[which]);
        f.at[which][0] = 0;
        g_assert_cmphex(scalable_lookup(&f), ==, reason[which]);
        f.at[which][0] = good;
    }
    g_assert_cmphex(scalable_lookup(&f), ==, 0);
    scalable_destroy(&f);
}

/*
 * SRT.3, SCT.3, SPD.3, SPT.3: each reserved bit of each word.  A bit outside
 * @reserved may lead elsewhere, but is never told to be reserved.
 */
typedef struct ScalableReserved {
    const char *name;
    Which which;
    unsigned word;
    bool first;
    VTDCapDesc cap;
    uint64_t reserved;
    VTDFaultReason reason;
} ScalableReserved;

static const ScalableReserved scalable_reserved[] = {
    { "root-lower", ROOT, 0, false, { 48 }, 0xffff000000000ffeULL, 0x3a },
    { "root-lower/haw-39", ROOT, 0, false, { 39 }, 0xffffff8000000ffeULL,
      0x3a },
    { "root-upper-unused", ROOT, 1, false, { 48 }, 0, 0x3a },
    { "context-0", CONTEXT, 0, false, { 48 }, 0xffff0000000001f4ULL, 0x42 },
    { "context-0/haw-39", CONTEXT, 0, false, { 39 }, 0xffffff80000001f4ULL,
      0x42 },
    { "context-0/device-iotlb", CONTEXT, 0, false,
      { 48, .device_iotlb = true }, 0xffff0000000001f0ULL, 0x42 },
    { "context-1", CONTEXT, 1, false, { 48 }, 0xffffffffffe00000ULL, 0x42 },
    { "context-1/no-srs", CONTEXT, 1, true, { 48 }, 0xfffffffffff00000ULL,
      0x42 },
    { "context-2", CONTEXT, 2, false, { 48 }, UINT64_MAX, 0x42 },
    { "context-3", CONTEXT, 3, false, { 48 }, UINT64_MAX, 0x42 },
    { "directory", DIRECTORY, 0, false, { 48 }, 0xffff000000000ffcULL, 0x52 },
    { "directory/haw-39", DIRECTORY, 0, false, { 39 }, 0xffffff8000000ffcULL,
      0x52 },
    { "second-0", ENTRY, 0, false, { 48 }, 0xffff000000000e20ULL, 0x5a },
    { "second-0/haw-39", ENTRY, 0, false, { 39 }, 0xffffff8000000e20ULL,
      0x5a },
    { "second-1", ENTRY, 1, false, { 48 }, 0xffffffffffff0000ULL, 0x5a },
    { "second-1/snoop", ENTRY, 1, false, { 48, .snoop_control = true },
      0xfffffffffeff0000ULL, 0x5a },
    /* The pointer of the other stage is not looked at */
    { "second-2", ENTRY, 2, false, { 48 }, 0xfc2, 0x5a },
    { "first-0", ENTRY, 0, true, { 48 }, 0xe20, 0x5a },
    { "first-1", ENTRY, 1, true, { 48 }, 0xffffffffffff0000ULL, 0x5a },
    { "first-2", ENTRY, 2, true, { 48 }, 0xffff000000000fd3ULL, 0x5a },
    { "first-2/haw-39", ENTRY, 2, true, { 39 }, 0xffffff8000000fd3ULL, 0x5a },
    { "entry-3", ENTRY, 3, false, { 48 }, UINT64_MAX, 0x5a },
    { "entry-4", ENTRY, 4, true, { 48 }, UINT64_MAX, 0x5a },
    { "entry-5", ENTRY, 5, false, { 48 }, UINT64_MAX, 0x5a },
    { "entry-6", ENTRY, 6, true, { 48 }, UINT64_MAX, 0x5a },
    { "entry-7", ENTRY, 7, false, { 48 }, UINT64_MAX, 0x5a },
};

static void test_scalable_reserved(const void *opaque)
{
    const ScalableReserved *c = opaque;
    Scalable f;
    uint64_t *word;

    if (c->first) {
        first_stage_init(&f);
    } else {
        scalable_init(&f);
    }
    f.cap.aw_bits = c->cap.aw_bits;
    f.cap.device_iotlb = c->cap.device_iotlb;
    f.cap.snoop_control = c->cap.snoop_control;
    word = f.at[c->which] + c->word;
    for (unsigned i = 0; i < 64; i++) {
        uint64_t good = *word;

        *word |= 1ULL << i;
        if (c->reserved & (1ULL << i)) {
            g_assert_cmphex(scalable_lookup(&f), ==, c->reason);
        } else {
            g_assert_cmphex(scalable_lookup(&f), !=, c->reason);
        }
        *word = good;
    }
    g_assert_cmphex(scalable_lookup(&f), ==, 0);
    scalable_destroy(&f);
}

/* SCT.3, SCT.6: requests with PASID where the context or the unit has none */
static void test_scalable_paside(void)
{
    Scalable f;

    scalable_init(&f);
    f.at[CONTEXT][0] &= ~PASIDE;
    g_assert_cmphex(scalable_lookup(&f), ==, 0x45);
    f.pasid = VTD_PASID_NONE;
    g_assert_cmphex(scalable_lookup(&f), ==, 0);
    f.cap.pasid = false;
    g_assert_cmphex(scalable_lookup(&f), ==, 0);
    f.at[CONTEXT][0] |= PASIDE;
    g_assert_cmphex(scalable_lookup(&f), ==, 0x42);
    scalable_destroy(&f);
}

/* SCT.7, SCT.9: a PASID that has no entry in the directory, by each PDTS */
static void test_scalable_pdts(void)
{
    for (unsigned pdts = 0; pdts < 8; pdts++) {
        uint32_t end = 0x40u << (pdts + 7);
        Scalable f;

        scalable_init(&f);
        f.at[CONTEXT][0] &= ~PDTS(7);
        f.at[CONTEXT][0] |= PDTS(pdts);
        f.pasid = end - 1;
        g_assert_cmphex(scalable_lookup(&f), ==, 0x51);
        f.at[CONTEXT][1] = end - 1;
        f.pasid = VTD_PASID_NONE;
        g_assert_cmphex(scalable_lookup(&f), ==, 0x51);
        if (pdts < 7) {
            f.at[CONTEXT][1] = end;
            g_assert_cmphex(scalable_lookup(&f), ==, 0x48);
            f.pasid = end;
            g_assert_cmphex(scalable_lookup(&f), ==, 0x46);
            f.pasid = VTD_PASID_MAX;
            g_assert_cmphex(scalable_lookup(&f), ==, 0x46);
        }
        scalable_destroy(&f);
    }
}

/* Section 3.4.3: PASIDs have entries of their own */
static void test_scalable_pasids(void)
{
    Scalable f;

    scalable_init(&f);
    for (unsigned i = 0; i < 64; i++) {
        uint64_t *entry = f.at[ENTRY] - (SM_PASID & 63) * 8 + i * 8;

        memcpy(entry, f.at[ENTRY], 64);
        entry[1] = 0x100 + i;
    }
    for (unsigned i = 0; i < 64; i++) {
        f.pasid = (SM_PASID & ~63) | i;
        g_assert_cmphex(scalable_lookup(&f), ==, 0);
        g_assert_cmphex(f.cfg.domain, ==, 0x100 + i);
        g_assert_cmphex(f.cfg.pasid, ==, f.pasid);
    }
    f.pasid = (SM_PASID & ~63) - 1;
    g_assert_cmphex(scalable_lookup(&f), ==, 0x51);
    f.pasid = (SM_PASID | 63) + 1;
    g_assert_cmphex(scalable_lookup(&f), ==, 0x51);
    scalable_destroy(&f);
}

/* SPT.4: PGTT, AW and FSPM that the unit offers, or does not */
static void test_scalable_invalid(void)
{
    static const struct {
        unsigned pgtt, aw, fspm;
        bool first, pass_through;
        unsigned aw_bits;
        VTDFaultReason reason;
        unsigned levels;
    } cases[] = {
        { 0, 2, 0, false, true, 48, 0x5b }, { 0, 2, 0, true, true, 48, 0x5b },
        { 1, 2, 0, true, false, 48, 0, 4 }, { 1, 7, 0, true, false, 48, 0, 4 },
        { 1, 2, 1, true, true, 48, 0x5b }, { 1, 2, 2, true, true, 48, 0x5b },
        { 1, 2, 3, true, true, 48, 0x5b }, { 1, 2, 0, false, true, 48, 0x5b },
        { 2, 0, 0, false, true, 48, 0x5b }, { 2, 1, 0, false, true, 48, 0, 3 },
        { 2, 2, 0, false, true, 48, 0, 4 }, { 2, 3, 0, false, true, 48, 0x5b },
        { 2, 7, 0, false, true, 48, 0x5b }, { 2, 1, 0, false, true, 39, 0, 3 },
        { 2, 2, 0, false, true, 39, 0x5b }, { 2, 2, 0, true, true, 48, 0x5b },
        { 2, 2, 3, false, true, 48, 0, 4 },
        { 1, 2, 1, true, true, 57, 0, 5 }, { 1, 2, 0, true, true, 57, 0, 4 },
        { 1, 2, 2, true, true, 57, 0x5b }, { 1, 2, 1, false, true, 57, 0x5b },
        { 2, 3, 0, false, true, 57, 0, 5 }, { 2, 4, 0, false, true, 57, 0x5b },
        { 2, 2, 0, false, true, 57, 0, 4 }, { 2, 3, 0, true, true, 57, 0x5b },
        { 3, 2, 0, true, true, 48, 0x5b }, { 3, 2, 0, false, true, 48, 0x5b },
        { 4, 0, 0, false, true, 48, 0 }, { 4, 7, 3, true, true, 48, 0 },
        { 4, 2, 0, false, false, 48, 0x5b },
        { 5, 2, 0, true, true, 48, 0x5b }, { 6, 2, 0, true, true, 48, 0x5b },
        { 7, 2, 0, false, true, 48, 0x5b },
    };
    static const VTDStage stage_of[] = {
        [1] = VTD_STAGE_FIRST,
        [2] = VTD_STAGE_SECOND,
        [4] = VTD_STAGE_PASS_THROUGH,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Scalable f;

        scalable_init(&f);
        f.cap.aw_bits = cases[i].aw_bits;
        f.cap.first_stage = cases[i].first;
        f.cap.pass_through = cases[i].pass_through;
        f.at[ENTRY][0] = PAGING | PGTT(cases[i].pgtt) | SM_AW(cases[i].aw) | P;
        f.at[ENTRY][2] = FIRST_PAGING | cases[i].fspm << 2;
        g_assert_cmphex(scalable_lookup(&f), ==, cases[i].reason);
        if (!cases[i].reason) {
            g_assert_cmpuint(f.cfg.levels, ==, cases[i].levels);
            g_assert_cmpint(f.cfg.stage, ==, stage_of[cases[i].pgtt]);
            g_assert_cmphex(f.cfg.domain, ==, 0x1234);
        }
        scalable_destroy(&f);
    }
}

/* SPT.6: RID_PRIV makes requests without PASID privileged */
static void test_scalable_privileged(void)
{
    Scalable f;

    scalable_init(&f);
    f.at[CONTEXT][1] |= RID_PRIV;
    g_assert_cmphex(scalable_lookup(&f), ==, 0);
    f.pasid = VTD_PASID_NONE;
    g_assert_cmphex(scalable_lookup(&f), ==, 0x5d);
    f.at[ENTRY][2] |= SRE;
    g_assert_cmphex(scalable_lookup(&f), ==, 0);
    scalable_destroy(&f);
}

/* Sections 9.4 to 9.6: FPD of any of the three counts, also with a fault */
static void test_scalable_fpd(void)
{
    for (Which which = ROOT; which < WHICH_MAX; which++) {
        Scalable f;

        scalable_init(&f);
        if (which != ROOT) {
            f.at[which][0] |= FPD;
        }
        g_assert_cmphex(scalable_lookup(&f), ==, 0);
        g_assert_cmpint(f.cfg.fpd, ==, which != ROOT);
        f.at[ENTRY][1] |= 1ULL << 63;
        g_assert_cmphex(scalable_lookup(&f), ==, 0x5a);
        g_assert_cmpint(f.cfg.fpd, ==, which != ROOT);
        f.at[ENTRY][0] &= ~P;
        g_assert_cmphex(scalable_lookup(&f), ==, 0x59);
        g_assert_cmpint(f.cfg.fpd, ==, which != ROOT);
        f.at[DIRECTORY][0] &= ~P;
        g_assert_cmphex(scalable_lookup(&f), ==, 0x51);
        g_assert_cmpint(f.cfg.fpd, ==, which == CONTEXT || which == DIRECTORY);
        f.at[CONTEXT][0] &= ~P;
        g_assert_cmphex(scalable_lookup(&f), ==, 0x41);
        g_assert_cmpint(f.cfg.fpd, ==, which == CONTEXT);
        scalable_destroy(&f);
    }
}

/* What legacy mode says of these: it knows no PASIDs */
static void test_legacy_pasid(void)
{
    Fixture f;

    fixture_init(&f, 48);
    g_assert_cmphex(lookup(&f), ==, 0);
    g_assert_cmphex(f.cfg.pasid, ==, UINT32_MAX);
    g_assert_false(f.cfg.scalable);
    fixture_destroy(&f);
}

static void add_scalable_tests(void)
{
    g_test_add_func("/vtd/tables/scalable/second", test_scalable_second);
    g_test_add_func("/vtd/tables/scalable/first", test_scalable_first);
    g_test_add_func("/vtd/tables/scalable/halves", test_scalable_halves);
    g_test_add_func("/vtd/tables/scalable/access", test_scalable_access);
    g_test_add_func("/vtd/tables/scalable/not-present",
                    test_scalable_not_present);
    for (unsigned i = 0; i < ARRAY_SIZE(scalable_reserved); i++) {
        const ScalableReserved *c = &scalable_reserved[i];
        g_autofree char *path =
            g_strdup_printf("/vtd/tables/scalable/reserved/%s", c->name);

        g_test_add_data_func(path, c, test_scalable_reserved);
    }
    g_test_add_func("/vtd/tables/scalable/paside", test_scalable_paside);
    g_test_add_func("/vtd/tables/scalable/pdts", test_scalable_pdts);
    g_test_add_func("/vtd/tables/scalable/pasids", test_scalable_pasids);
    g_test_add_func("/vtd/tables/scalable/invalid", test_scalable_invalid);
    g_test_add_func("/vtd/tables/scalable/privileged",
                    test_scalable_privileged);
    g_test_add_func("/vtd/tables/scalable/fpd", test_scalable_fpd);
    g_test_add_func("/vtd/tables/legacy-pasid", test_legacy_pasid);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    add_scalable_tests();
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
