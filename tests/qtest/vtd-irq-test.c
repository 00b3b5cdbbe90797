/*
 * VT-d: interrupt remapping (VT-d specification, chapter 5, sections 7.1.3
 * and 9.10)
 *
 * Interrupts are looked for in the local APICs, where they stay pending
 * because no processor runs: every interrupt has a vector of its own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "libqos/intel-iommu.h"

#define SID_A       QVTD_SID(0, 4, 0)
#define ENTRIES     256
#define TABLE_S     7               /* 2^(S+1) entries */

/* Where the DMAR table says that the I/O APIC of q35 is */
#define SID_IOAPIC  QVTD_SID(0xff, 0, 0)
#define IOAPIC      0xfec00000u

typedef struct Fix {
    QVtd *v;
    QVtdEdu *e;
} Fix;

static Fix fix_new(const char *props, bool eime)
{
    Fix f;

    f.v = qvtd_start(props, "-smp 2 " QVTD_EDU ",addr=4");
    f.e = qvtd_edu(f.v, SID_A);
    qvtd_ir_init(f.v, TABLE_S, eime);
    return f;
}

static void fix_quit(Fix *f)
{
    qvtd_quit(f->v);
    g_free(f->e);
}

static uint64_t irte(uint8_t vector)
{
    return QVTD_IRTE_P | QVTD_IRTE_VECTOR(vector);
}

static void raise_msi(Fix *f, unsigned handle)
{
    qvtd_edu_send(f->e, qvtd_msi_addr(handle), 0);
}

/* Interrupt faults carry the index in 63:48, and no direction (11.4.7.6). */
static void assert_fault(QVtd *v, QVtdReason reason, uint16_t sid,
                         unsigned index)
{
    QVtdFault fault = qvtd_take_fault(v);

    g_assert_cmphex(fault.reason, ==, reason);
    g_assert_true(fault.f);
    g_assert_cmphex(fault.sid, ==, sid);
    if (reason != QVTD_FR_IR_COMPAT) {
        g_assert_cmphex(fault.info, ==, (uint64_t)index << 48);
    }
}

static bool anywhere(QVtd *v, uint8_t vector)
{
    return qvtd_lapic_irr(v, 0, vector) || qvtd_lapic_irr(v, 1, vector);
}

/* --- what an entry says is what arrives --- */

/* 5.1.3: handle to entry, vector and destination from there */
static void test_basic(void)
{
    Fix f = fix_new("intremap=on,eim=off", false);

    qvtd_write_irte(f.v, 0, irte(0x40), 0);
    qvtd_write_irte(f.v, 17, irte(0x41) | QVTD_IRTE_XAPIC(1), 0);
    qvtd_write_irte(f.v, ENTRIES - 1, irte(0x42), 0);
    raise_msi(&f, 0);
    g_assert_true(qvtd_lapic_irr(f.v, 0, 0x40));
    g_assert_false(qvtd_lapic_irr(f.v, 1, 0x40));
    raise_msi(&f, 17);
    g_assert_true(qvtd_lapic_irr(f.v, 1, 0x41));
    g_assert_false(qvtd_lapic_irr(f.v, 0, 0x41));
    raise_msi(&f, ENTRIES - 1);
    g_assert_true(qvtd_lapic_irr(f.v, 0, 0x42));
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* 5.1.2.2: with SHV the index is handle plus subhandle. */
static void test_subhandle(void)
{
    Fix f = fix_new("intremap=on,eim=off", false);

    for (unsigned i = 0; i < 8; i++) {
        qvtd_write_irte(f.v, 32 + i, irte(0x40 + i), 0);
    }
    for (unsigned i = 0; i < 8; i++) {
        qvtd_edu_send(f.e, qvtd_msi_addr(32) | QVTD_MSI_SHV, i);
        for (unsigned j = 0; j < 8; j++) {
            g_assert_cmpint(qvtd_lapic_irr(f.v, 0, 0x40 + j), ==, j <= i);
        }
    }
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* 5.1.2.2: handle bit 15 travels in address bit 2. */
static void test_handle_15(void)
{
    QVtd *v = qvtd_start("intremap=on,eim=off", "-smp 2 " QVTD_EDU ",addr=4");
    Fix f = { v, qvtd_edu(v, SID_A) };

    qvtd_ir_init(v, 15, false);
    qvtd_write_irte(v, 0x8001, irte(0x48), 0);
    qvtd_write_irte(v, 0x7fff, irte(0x49), 0);
    qvtd_write_irte(v, 0xffff, irte(0x4a), 0);
    raise_msi(&f, 0x8001);
    g_assert_true(qvtd_lapic_irr(v, 0, 0x48));
    raise_msi(&f, 0x7fff);
    g_assert_true(qvtd_lapic_irr(v, 0, 0x49));
    qvtd_edu_send(f.e, qvtd_msi_addr(0xfff0) | QVTD_MSI_SHV, 0xf);
    g_assert_true(qvtd_lapic_irr(v, 0, 0x4a));
    qvtd_assert_no_fault(v);
    fix_quit(&f);
}

/* 9.10, TM: the trigger mode is the entry's. */
static void test_trigger_mode(void)
{
    Fix f = fix_new("intremap=on,eim=off", false);

    qvtd_write_irte(f.v, 1, irte(0x41) | QVTD_IRTE_TM_LEVEL, 0);
    qvtd_write_irte(f.v, 2, irte(0x42), 0);
    raise_msi(&f, 1);
    raise_msi(&f, 2);
    g_assert_true(qvtd_lapic_tmr(f.v, 0, 0x41));
    g_assert_true(qvtd_lapic_irr(f.v, 0, 0x42));
    g_assert_false(qvtd_lapic_tmr(f.v, 0, 0x42));
    fix_quit(&f);
}

/*
 * 9.10, DM: a logical destination is compared with the LDR, which is 0 after
 * reset: the APIC whose physical id is 1 does not answer.
 */
static void test_destination_mode(void)
{
    Fix f = fix_new("intremap=on,eim=off", false);

    qvtd_write_irte(f.v, 1, irte(0x41) | QVTD_IRTE_DM_LOGICAL |
                    QVTD_IRTE_XAPIC(1), 0);
    raise_msi(&f, 1);
    g_assert_false(anywhere(f.v, 0x41));
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* 9.10, DLM and RH: lowest priority goes to the one processor named. */
static void test_delivery_mode(void)
{
    Fix f = fix_new("intremap=on,eim=off", false);

    qvtd_write_irte(f.v, 1, irte(0x41) | QVTD_IRTE_DLM(1) | QVTD_IRTE_RH |
                    QVTD_IRTE_XAPIC(1), 0);
    raise_msi(&f, 1);
    g_assert_true(qvtd_lapic_irr(f.v, 1, 0x41));
    g_assert_false(qvtd_lapic_irr(f.v, 0, 0x41));
    fix_quit(&f);
}

/* 9.10, bits 11:8: for software */
static void test_available_bits(void)
{
    Fix f = fix_new("intremap=on,eim=off", false);

    qvtd_write_irte(f.v, 1, irte(0x41) | MAKE_64BIT_MASK(8, 4), 0);
    raise_msi(&f, 1);
    g_assert_true(qvtd_lapic_irr(f.v, 0, 0x41));
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* 9.10, DST: with EIME all 32 bits are the destination. */
static void test_x2apic_destination(void)
{
    Fix f = fix_new("intremap=on,eim=on", true);

    g_assert_true(qvtd_readq(f.v, QVTD_IRTA) & QVTD_IRTA_EIME);
    qvtd_write_irte(f.v, 1, irte(0x41) | QVTD_IRTE_X2APIC(1), 0);
    qvtd_write_irte(f.v, 2, irte(0x42) | QVTD_IRTE_X2APIC(0), 0);
    raise_msi(&f, 1);
    g_assert_true(qvtd_lapic_irr(f.v, 1, 0x41));
    g_assert_false(qvtd_lapic_irr(f.v, 0, 0x41));
    raise_msi(&f, 2);
    g_assert_true(qvtd_lapic_irr(f.v, 0, 0x42));
    g_assert_false(qvtd_lapic_irr(f.v, 1, 0x42));
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* 11.4.10: a unit with EIM that is used without EIME has 8-bit ids. */
static void test_eim_not_enabled(void)
{
    Fix f = fix_new("intremap=on,eim=on", false);

    qvtd_write_irte(f.v, 1, irte(0x41) | QVTD_IRTE_XAPIC(1), 0);
    raise_msi(&f, 1);
    g_assert_true(qvtd_lapic_irr(f.v, 1, 0x41));
    fix_quit(&f);
}

/* Remapping is independent of DMA translation. */
static void test_with_translation(void)
{
    Fix f = fix_new("intremap=on,eim=off", false);
    QVtdDomain *d;

    qvtd_tables_init(f.v);
    d = qvtd_domain_new(f.v, 1, 3);
    qvtd_attach(d, SID_A);
    qvtd_write_irte(f.v, 3, irte(0x43), 0);
    qvtd_write_irte(f.v, 4, irte(0x44), 0);
    qvtd_gcmd_set(f.v, QVTD_GCMD_TE);
    raise_msi(&f, 3);
    g_assert_true(qvtd_lapic_irr(f.v, 0, 0x43));
    qvtd_assert_no_fault(f.v);
    qvtd_dma_read(f.e, 0x5000);
    qvtd_assert_fault(f.v, QVTD_FR_READ, SID_A, 0x5000, true);
    qvtd_gcmd_clear(f.v, QVTD_GCMD_TE);
    raise_msi(&f, 4);
    g_assert_true(qvtd_lapic_irr(f.v, 0, 0x44));
    fix_quit(&f);
}

/* --- source validation, 9.10: SVT, SQ, SID --- */

typedef struct Validation {
    const char *path;
    unsigned svt, sq;
    uint16_t sid;
    uint8_t allowed;        /* functions of device 4 that may pass */
} Validation;

static const Validation validations[] = {
    { "none", QVTD_SVT_NONE, 0, 0xffff, 0xff },
    { "exact-0", QVTD_SVT_SID, 0, QVTD_SID(0, 4, 0), 0x01 },
    { "exact-7", QVTD_SVT_SID, 0, QVTD_SID(0, 4, 7), 0x80 },
    { "exact-bus", QVTD_SVT_SID, 0, QVTD_SID(1, 4, 0), 0x00 },
    { "exact-device", QVTD_SVT_SID, 0, QVTD_SID(0, 5, 0), 0x00 },
    { "ignore-bit-2", QVTD_SVT_SID, 1, QVTD_SID(0, 4, 1), 0x22 },
    { "ignore-bits-2-1", QVTD_SVT_SID, 2, QVTD_SID(0, 4, 1), 0xaa },
    { "ignore-bits-2-1-even", QVTD_SVT_SID, 2, QVTD_SID(0, 4, 6), 0x55 },
    { "ignore-all", QVTD_SVT_SID, 3, QVTD_SID(0, 4, 5), 0xff },
    { "ignore-all-device", QVTD_SVT_SID, 3, QVTD_SID(0, 5, 0), 0x00 },
    { "bus-range", QVTD_SVT_BUS, 0, 0x0000, 0xff },
    { "bus-range-wide", QVTD_SVT_BUS, 0, 0x00ff, 0xff },
    { "bus-range-above", QVTD_SVT_BUS, 0, 0x01ff, 0x00 },
    { "bus-range-one-above", QVTD_SVT_BUS, 0, 0x0101, 0x00 },
};

static void test_validation(const void *opaque)
{
    const Validation *w = opaque;
    GString *args = g_string_new(NULL);
    QVtd *v;

    for (int fn = 0; fn < 8; fn++) {
        g_string_append_printf(args, QVTD_EDU ",addr=4.%d,multifunction=on ",
                               fn);
    }
    v = qvtd_start("intremap=on,eim=off", args->str);
    qvtd_ir_init(v, TABLE_S, false);
    for (unsigned fn = 0; fn < 8; fn++) {
        g_autofree QVtdEdu *e = qvtd_edu(v, QVTD_SID(0, 4, fn));
        bool allowed = w->allowed >> fn & 1;

        qvtd_write_irte(v, fn, irte(0x40 + fn), QVTD_IRTE_SVT(w->svt) |
                        QVTD_IRTE_SQ(w->sq) | QVTD_IRTE_SID(w->sid));
        qvtd_edu_send(e, qvtd_msi_addr(fn), 0);
        g_assert_cmpint(qvtd_lapic_irr(v, 0, 0x40 + fn), ==, allowed);
        if (allowed) {
            qvtd_assert_no_fault(v);
        } else {
            assert_fault(v, QVTD_FR_IR_SID, QVTD_SID(0, 4, fn), fn);
        }
    }
    g_string_free(args, true);
    qvtd_quit(v);
}

/* --- faults, 7.1.3 and the table of 5.1.4.1 --- */

typedef struct BadEntry {
    const char *path;
    const char *props;
    uint64_t lo, hi;
    QVtdReason reason;
} BadEntry;

static const BadEntry bad_entries[] = {
    { "22/not-present", "eim=off", 0, 0, QVTD_FR_IR_NOT_PRESENT },
    { "22/not-present-garbage", "eim=off", ~3ULL, UINT64_MAX,
      QVTD_FR_IR_NOT_PRESENT },
    { "24/bit-12", "eim=off", QVTD_IRTE_P | BIT_ULL(12), 0,
      QVTD_FR_IR_IRTE_RSVD },
    { "24/bit-14", "eim=off", QVTD_IRTE_P | BIT_ULL(14), 0,
      QVTD_FR_IR_IRTE_RSVD },
    { "24/bit-24", "eim=off", QVTD_IRTE_P | BIT_ULL(24), 0,
      QVTD_FR_IR_IRTE_RSVD },
    { "24/bit-31", "eim=off", QVTD_IRTE_P | BIT_ULL(31), 0,
      QVTD_FR_IR_IRTE_RSVD },
    { "24/bit-84", "eim=off", QVTD_IRTE_P, BIT_ULL(84 - 64),
      QVTD_FR_IR_IRTE_RSVD },
    { "24/bit-127", "eim=off", QVTD_IRTE_P, BIT_ULL(127 - 64),
      QVTD_FR_IR_IRTE_RSVD },
    { "24/xapic-bit-32", "eim=off", QVTD_IRTE_P | BIT_ULL(32), 0,
      QVTD_FR_IR_IRTE_RSVD },
    { "24/xapic-bit-48", "eim=off", QVTD_IRTE_P | BIT_ULL(48), 0,
      QVTD_FR_IR_IRTE_RSVD },
    /* CAP.PI is 0 */
    { "24/posted", "eim=off", QVTD_IRTE_P | QVTD_IRTE_IM, 0,
      QVTD_FR_IR_IRTE_RSVD },
    { "26/source", "eim=off", QVTD_IRTE_P,
      QVTD_IRTE_SVT(QVTD_SVT_SID) | QVTD_IRTE_SID(0x1234),
      QVTD_FR_IR_SID },
};

static void test_bad_entry(const void *opaque)
{
    const BadEntry *b = opaque;
    g_autofree char *props = g_strdup_printf("intremap=on,%s", b->props);
    Fix f = fix_new(props, false);

    qvtd_write_irte(f.v, 9, b->lo | (b->lo & QVTD_IRTE_P ?
                    QVTD_IRTE_VECTOR(0x49) : 0), b->hi);
    raise_msi(&f, 9);
    g_assert_false(anywhere(f.v, 0x49));
    assert_fault(f.v, b->reason, SID_A, 9);

    /*
     * As soon as it is right, it works: an erroneous entry is not cached
     * without caching mode (6.1, 11.4.2).  One that only refuses this
     * requester may be.
     */
    qvtd_write_irte(f.v, 9, irte(0x4a), 0);
    if (b->reason == QVTD_FR_IR_SID) {
        qvtd_iq_init(f.v, 0);
        qvtd_iq_submit(f.v, QVTD_DESC_IEC, 0);
    }
    raise_msi(&f, 9);
    g_assert_true(qvtd_lapic_irr(f.v, 0, 0x4a));
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* 9.10, FPD: these faults are qualified: blocked without a record. */
static void test_bad_entry_fpd(const void *opaque)
{
    const BadEntry *b = opaque;
    g_autofree char *props = g_strdup_printf("intremap=on,%s", b->props);
    Fix f = fix_new(props, false);

    qvtd_write_irte(f.v, 9, b->lo | QVTD_IRTE_FPD | (b->lo & QVTD_IRTE_P ?
                    QVTD_IRTE_VECTOR(0x49) : 0), b->hi);
    raise_msi(&f, 9);
    g_assert_false(anywhere(f.v, 0x49));
    qvtd_assert_reg32(f.v, QVTD_FSTS, 0);
    fix_quit(&f);
}

static void add_bad_entry_tests(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(bad_entries); i++) {
        g_autofree char *path =
            g_strdup_printf("/vtd/irq/7.1.3/%s", bad_entries[i].path);
        g_autofree char *fpd =
            g_strdup_printf("/vtd/irq/7.1.3-fpd/%s", bad_entries[i].path);

        qtest_add_data_func(path, &bad_entries[i], test_bad_entry);
        qtest_add_data_func(fpd, &bad_entries[i], test_bad_entry_fpd);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(validations); i++) {
        g_autofree char *path =
            g_strdup_printf("/vtd/irq/9.10/source/%s", validations[i].path);

        qtest_add_data_func(path, &validations[i], test_validation);
    }
}

/* Reason 20h: with SHV the upper half of the data is reserved (5.1.2.2). */
static void test_request_reserved(void)
{
    Fix f = fix_new("intremap=on,eim=off", false);
    uint64_t data = qvtd_alloc(f.v, 1);

    qvtd_write_irte(f.v, 0, irte(0x40), 0);
    qtest_writel(f.v->qts, data, 0x00010000);
    qvtd_edu_dma(f.e, data, 4, true);
    qvtd_edu_dma(f.e, qvtd_msi_addr(0) | QVTD_MSI_SHV, 4, false);
    g_assert_false(anywhere(f.v, 0x40));
    g_assert_cmphex(qvtd_take_fault(f.v).reason, ==, QVTD_FR_IR_REQ_RSVD);
    fix_quit(&f);
}

/* Reason 21h: an index beyond the table */
static void test_index(void)
{
    Fix f = fix_new("intremap=on,eim=off", false);

    qvtd_write_irte(f.v, 0, irte(0x40), 0);
    raise_msi(&f, ENTRIES);
    assert_fault(f.v, QVTD_FR_IR_INDEX, SID_A, ENTRIES);
    raise_msi(&f, 0xffff);
    assert_fault(f.v, QVTD_FR_IR_INDEX, SID_A, 0xffff);
    qvtd_edu_send(f.e, qvtd_msi_addr(ENTRIES - 1) | QVTD_MSI_SHV, 1);
    assert_fault(f.v, QVTD_FR_IR_INDEX, SID_A, ENTRIES);
    g_assert_false(anywhere(f.v, 0x40));
    fix_quit(&f);
}

/* The sum of handle and subhandle does not wrap around at 64 Ki. */
static void test_index_no_wrap(void)
{
    Fix f = fix_new("intremap=on,eim=off", false);

    qvtd_write_irte(f.v, 0, irte(0x40), 0);
    qvtd_edu_send(f.e, qvtd_msi_addr(0xffff) | QVTD_MSI_SHV, 1);
    g_assert_false(anywhere(f.v, 0x40));
    g_assert_cmphex(qvtd_take_fault(f.v).reason, ==, QVTD_FR_IR_INDEX);
    fix_quit(&f);
}

/* 11.4.10, S: the smallest table has two entries. */
static void test_table_size(void)
{
    QVtd *v = qvtd_start("intremap=on,eim=off", "-smp 2 " QVTD_EDU ",addr=4");
    Fix f = { v, qvtd_edu(v, SID_A) };

    qvtd_ir_init(v, 0, false);
    qvtd_write_irte(v, 1, irte(0x41), 0);
    qvtd_write_irte(v, 2, irte(0x42), 0);
    raise_msi(&f, 1);
    g_assert_true(qvtd_lapic_irr(v, 0, 0x41));
    raise_msi(&f, 2);
    g_assert_false(anywhere(v, 0x42));
    assert_fault(v, QVTD_FR_IR_INDEX, SID_A, 2);
    fix_quit(&f);
}

/* Reason 23h: a table that cannot be read */
static void test_table_unreachable(void)
{
    Fix f = fix_new("intremap=on,eim=off", false);

    qvtd_writeq(f.v, QVTD_IRTA, QVTD_HOLE | QVTD_IRTA_S(TABLE_S));
    qvtd_gcmd_set(f.v, QVTD_GCMD_SIRTP);
    raise_msi(&f, 3);
    assert_fault(f.v, QVTD_FR_IR_TABLE_ADDR, SID_A, 3);
    fix_quit(&f);
}

/* --- compatibility format, 5.1.2.1 and the figure of 5.1.4 --- */

/* Reason 25h: blocked while CFIS is clear */
static void test_compat_blocked(void)
{
    Fix f = fix_new("intremap=on,eim=off", false);

    qvtd_edu_send(f.e, QVTD_MSI_BASE, 0x45);
    g_assert_false(anywhere(f.v, 0x45));
    assert_fault(f.v, QVTD_FR_IR_COMPAT, SID_A, 0);
    fix_quit(&f);
}

/* Passed through unchanged while CFIS is set */
static void test_compat_passed(void)
{
    Fix f = fix_new("intremap=on,eim=off", false);

    qvtd_write_irte(f.v, 1, irte(0x46), 0);
    qvtd_gcmd_set(f.v, QVTD_GCMD_CFI);
    qvtd_edu_send(f.e, QVTD_MSI_BASE | 1 << 12, 0x45);
    g_assert_true(qvtd_lapic_irr(f.v, 1, 0x45));
    qvtd_assert_no_fault(f.v);
    /* and remappable ones are remapped */
    raise_msi(&f, 1);
    g_assert_true(qvtd_lapic_irr(f.v, 0, 0x46));
    qvtd_gcmd_clear(f.v, QVTD_GCMD_CFI);
    qvtd_edu_send(f.e, QVTD_MSI_BASE, 0x47);
    g_assert_false(anywhere(f.v, 0x47));
    assert_fault(f.v, QVTD_FR_IR_COMPAT, SID_A, 0);
    fix_quit(&f);
}

/* Blocked in any case with EIME */
static void test_compat_eime(void)
{
    Fix f = fix_new("intremap=on,eim=on", true);

    qvtd_edu_send(f.e, QVTD_MSI_BASE, 0x45);
    g_assert_false(anywhere(f.v, 0x45));
    assert_fault(f.v, QVTD_FR_IR_COMPAT, SID_A, 0);

    qvtd_writel(f.v, QVTD_GCMD, f.v->gcmd | QVTD_GCMD_CFI);
    qvtd_edu_send(f.e, QVTD_MSI_BASE, 0x46);
    g_assert_false(anywhere(f.v, 0x46));
    assert_fault(f.v, QVTD_FR_IR_COMPAT, SID_A, 0);
    fix_quit(&f);
}

/* Before IRE nothing is remapped, and after it was cleared again. */
static void test_disabled(void)
{
    QVtd *v = qvtd_start("intremap=on,eim=off", "-smp 2 " QVTD_EDU ",addr=4");
    Fix f = { v, qvtd_edu(v, SID_A) };

    qvtd_edu_send(f.e, QVTD_MSI_BASE, 0x45);
    g_assert_true(qvtd_lapic_irr(v, 0, 0x45));
    qvtd_ir_init(v, TABLE_S, false);
    qvtd_edu_send(f.e, QVTD_MSI_BASE, 0x46);
    g_assert_false(anywhere(v, 0x46));
    qvtd_gcmd_clear(v, QVTD_GCMD_IRE);
    qvtd_edu_send(f.e, QVTD_MSI_BASE | 1 << 12, 0x47);
    g_assert_true(qvtd_lapic_irr(v, 1, 0x47));
    fix_quit(&f);
}

/* --- the entry cache, 6.5.2.7 --- */

typedef struct Iec {
    const char *path;
    uint64_t desc;
} Iec;

static const Iec iecs[] = {
    { "global", QVTD_DESC_IEC },
    { "index", QVTD_DESC_IEC | QVTD_DESC_IEC_INDEX |
      QVTD_DESC_IEC_IIDX(10) },
    { "index-mask", QVTD_DESC_IEC | QVTD_DESC_IEC_INDEX |
      QVTD_DESC_IEC_IM(2) | QVTD_DESC_IEC_IIDX(8) },
    { "index-mask-all", QVTD_DESC_IEC | QVTD_DESC_IEC_INDEX |
      QVTD_DESC_IEC_IM(15) | QVTD_DESC_IEC_IIDX(0) },
};

static void test_iec(const void *opaque)
{
    const Iec *iec = opaque;
    Fix f = fix_new("intremap=on,eim=off", false);

    qvtd_iq_init(f.v, 0);
    qvtd_write_irte(f.v, 10, irte(0x40), 0);
    raise_msi(&f, 10);
    g_assert_true(qvtd_lapic_irr(f.v, 0, 0x40));

    qvtd_write_irte(f.v, 10, irte(0x41) | QVTD_IRTE_XAPIC(1), 0);
    qvtd_iq_submit(f.v, iec->desc, 0);
    raise_msi(&f, 10);
    g_assert_true(qvtd_lapic_irr(f.v, 1, 0x41));

    qvtd_write_irte(f.v, 10, 0, 0);
    qvtd_iq_submit(f.v, iec->desc, 0);
    raise_msi(&f, 10);
    assert_fault(f.v, QVTD_FR_IR_NOT_PRESENT, SID_A, 10);
    fix_quit(&f);
}

/* 11.4.4.1, SIRTP: another table, after a global invalidation */
static void test_new_table(void)
{
    Fix f = fix_new("intremap=on,eim=off", false);

    qvtd_iq_init(f.v, 0);
    qvtd_write_irte(f.v, 5, irte(0x40), 0);
    raise_msi(&f, 5);
    g_assert_true(qvtd_lapic_irr(f.v, 0, 0x40));
    f.v->irt = qvtd_alloc(f.v, 1);
    qvtd_write_irte(f.v, 5, irte(0x41), 0);
    qvtd_writeq(f.v, QVTD_IRTA, f.v->irt | QVTD_IRTA_S(TABLE_S));
    qvtd_gcmd_set(f.v, QVTD_GCMD_SIRTP);
    qvtd_iq_submit(f.v, QVTD_DESC_IEC, 0);
    raise_msi(&f, 5);
    g_assert_true(qvtd_lapic_irr(f.v, 0, 0x41));
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* Nothing is left of the entries after a reset. */
static void test_reset(void)
{
    Fix f = fix_new("intremap=on,eim=off", false);

    for (unsigned i = 0; i < 3; i++) {
        qvtd_write_irte(f.v, 5, irte(0x40 + i), 0);
        raise_msi(&f, 5);
        g_assert_true(qvtd_lapic_irr(f.v, 0, 0x40 + i));
        qvtd_system_reset(f.v);
        g_free(f.e);
        f.e = qvtd_edu(f.v, SID_A);
        qvtd_edu_send(f.e, QVTD_MSI_BASE, 0x50);
        g_assert_true(qvtd_lapic_irr(f.v, 0, 0x50));
        qvtd_ir_init(f.v, TABLE_S, false);
    }
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/*
 * 3.15: only DWORD writes are interrupt requests.  What becomes of others is
 * not said: they must not hurt.
 */
static void test_odd_sizes(void)
{
    Fix f = fix_new("intremap=on,eim=off", false);

    qvtd_write_irte(f.v, 0, irte(0x40), 0);
    for (unsigned len = 1; len <= 64; len++) {
        for (unsigned offset = 0; offset < 4; offset++) {
            qvtd_edu_dma(f.e, qvtd_msi_addr(0) + offset, len, len & 1);
        }
    }
    qvtd_clear_faults(f.v);
    qvtd_write_irte(f.v, 1, irte(0x41), 0);
    raise_msi(&f, 1);
    g_assert_true(qvtd_lapic_irr(f.v, 0, 0x41));
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* --- the I/O APIC, 5.1.5.1 --- */

static void ioapic_write(QVtd *v, uint8_t reg, uint32_t val)
{
    qtest_writel(v->qts, IOAPIC, reg);
    qtest_writel(v->qts, IOAPIC + 0x10, val);
}

/* Redirection entry in remappable format: index in 63:49 and 11, bit 48 */
static void ioapic_route(QVtd *v, unsigned pin, unsigned index, bool level)
{
    ioapic_write(v, 0x11 + 2 * pin, (index & 0x7fff) << 17 | 1 << 16);
    ioapic_write(v, 0x10 + 2 * pin,
                 (index >> 15) << 11 | (level ? 1 << 15 : 0));
}

static void ioapic_pin(QVtd *v, unsigned pin, int level)
{
    qtest_set_irq_in(v->qts, "/machine/q35/ioapic", NULL, pin, level);
}

static void test_ioapic(void)
{
    Fix f = fix_new("intremap=on,eim=off", false);

    qvtd_write_irte(f.v, 20, irte(0x50) | QVTD_IRTE_XAPIC(1),
                    QVTD_IRTE_SVT(QVTD_SVT_SID) | QVTD_IRTE_SID(SID_IOAPIC));
    qvtd_write_irte(f.v, 21, irte(0x51) | QVTD_IRTE_TM_LEVEL, 0);
    ioapic_route(f.v, 10, 20, false);
    ioapic_route(f.v, 11, 21, true);
    ioapic_pin(f.v, 10, 1);
    ioapic_pin(f.v, 10, 0);
    g_assert_true(qvtd_lapic_irr(f.v, 1, 0x50));
    g_assert_false(qvtd_lapic_irr(f.v, 0, 0x50));
    ioapic_pin(f.v, 11, 1);
    g_assert_true(qvtd_lapic_irr(f.v, 0, 0x51));
    g_assert_true(qvtd_lapic_tmr(f.v, 0, 0x51));
    ioapic_pin(f.v, 11, 0);
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

static void test_ioapic_faults(void)
{
    Fix f = fix_new("intremap=on,eim=off", false);

    qvtd_write_irte(f.v, 20, irte(0x50),
                    QVTD_IRTE_SVT(QVTD_SVT_SID) | QVTD_IRTE_SID(SID_A));
    ioapic_route(f.v, 10, 20, false);
    ioapic_pin(f.v, 10, 1);
    ioapic_pin(f.v, 10, 0);
    g_assert_false(anywhere(f.v, 0x50));
    assert_fault(f.v, QVTD_FR_IR_SID, SID_IOAPIC, 20);

    ioapic_route(f.v, 11, 300, false);
    ioapic_pin(f.v, 11, 1);
    assert_fault(f.v, QVTD_FR_IR_INDEX, SID_IOAPIC, 300);

    /* compatibility format: vector 0x52 to processor 0 */
    ioapic_write(f.v, 0x11 + 2 * 12, 0);
    ioapic_write(f.v, 0x10 + 2 * 12, 0x52);
    ioapic_pin(f.v, 12, 1);
    g_assert_false(anywhere(f.v, 0x52));
    assert_fault(f.v, QVTD_FR_IR_COMPAT, SID_IOAPIC, 0);
    fix_quit(&f);
}

/* 5.1.5.1: an entry changed and invalidated, with the pin's route the same */
static void test_ioapic_iec(void)
{
    Fix f = fix_new("intremap=on,eim=off", false);

    qvtd_iq_init(f.v, 0);
    qvtd_write_irte(f.v, 20, irte(0x50), 0);
    ioapic_route(f.v, 10, 20, false);
    ioapic_pin(f.v, 10, 1);
    ioapic_pin(f.v, 10, 0);
    g_assert_true(qvtd_lapic_irr(f.v, 0, 0x50));
    qvtd_write_irte(f.v, 20, irte(0x51), 0);
    qvtd_iq_submit(f.v, QVTD_DESC_IEC | QVTD_DESC_IEC_INDEX |
                   QVTD_DESC_IEC_IIDX(20), 0);
    ioapic_pin(f.v, 10, 1);
    ioapic_pin(f.v, 10, 0);
    g_assert_true(qvtd_lapic_irr(f.v, 0, 0x51));
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/vtd/irq/5.1.3/basic", test_basic);
    qtest_add_func("/vtd/irq/5.1.2.2/subhandle", test_subhandle);
    qtest_add_func("/vtd/irq/5.1.2.2/handle-15", test_handle_15);
    qtest_add_func("/vtd/irq/9.10/trigger-mode", test_trigger_mode);
    qtest_add_func("/vtd/irq/9.10/destination-mode", test_destination_mode);
    qtest_add_func("/vtd/irq/9.10/delivery-mode", test_delivery_mode);
    qtest_add_func("/vtd/irq/9.10/available-bits", test_available_bits);
    qtest_add_func("/vtd/irq/9.10/x2apic", test_x2apic_destination);
    qtest_add_func("/vtd/irq/11.4.10/eim-not-enabled", test_eim_not_enabled);
    qtest_add_func("/vtd/irq/5.1/with-translation", test_with_translation);
    add_bad_entry_tests();
    qtest_add_func("/vtd/irq/7.1.3/20/data", test_request_reserved);
    qtest_add_func("/vtd/irq/7.1.3/21/index", test_index);
    qtest_add_func("/vtd/irq/7.1.3/21/no-wrap", test_index_no_wrap);
    qtest_add_func("/vtd/irq/7.1.3/21/smallest", test_table_size);
    qtest_add_func("/vtd/irq/7.1.3/23/table", test_table_unreachable);
    qtest_add_func("/vtd/irq/5.1.4/compat-blocked", test_compat_blocked);
    qtest_add_func("/vtd/irq/5.1.4/compat-passed", test_compat_passed);
    qtest_add_func("/vtd/irq/5.1.4/compat-eime", test_compat_eime);
    qtest_add_func("/vtd/irq/5.1.4/disabled", test_disabled);
    for (unsigned i = 0; i < ARRAY_SIZE(iecs); i++) {
        g_autofree char *path =
            g_strdup_printf("/vtd/irq/6.5.2.7/%s", iecs[i].path);

        qtest_add_data_func(path, &iecs[i], test_iec);
    }
    qtest_add_func("/vtd/irq/11.4.4/new-table", test_new_table);
    qtest_add_func("/vtd/irq/reset", test_reset);
    qtest_add_func("/vtd/irq/3.15/odd-sizes", test_odd_sizes);
    qtest_add_func("/vtd/irq/5.1.5.1/ioapic", test_ioapic);
    qtest_add_func("/vtd/irq/5.1.5.1/ioapic-faults", test_ioapic_faults);
    qtest_add_func("/vtd/irq/5.1.5.1/ioapic-iec", test_ioapic_iec);
    return g_test_run();
}
