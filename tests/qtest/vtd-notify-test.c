/*
 * VT-d: those who shadow the tables, or cache what they were told (VT-d
 * specification, sections 4.1, 6.1 and 6.5)
 *
 * "vtd-testdev" listens as hw/vfio and vhost do and keeps what it was told of.
 * After every step that is compared with the guest's tables, which this file
 * walks for itself.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "hw/pci/pci_regs.h"
#include "libqtest.h"
#include "libqos/intel-iommu.h"
#include "qobject/qdict.h"

#define SID         QVTD_SID(0, 4, 0)
#define OTHER       QVTD_SID(0, 5, 0)
#define DEVICES     "-device vtd-testdev,addr=4 -device vtd-testdev,addr=5"
#define CACHING     "caching-mode=on,device-iotlb=on"
#define DID         7

#define KiB4        0x1000ULL
#define MiB2        0x200000ULL
#define GiB1        0x40000000ULL
/* Section 3.15: interrupt requests, neither translated nor mapped */
#define WINDOW      0xfee00000ULL
#define WINDOW_LAST 0xfeefffffULL
#define IOVA        0x40200000ULL       /* begins a page of 2 MiB */
#define RW          QVTD_PTE_RW
#define R           QVTD_PTE_R

/* The listeners of hw/misc/vtd-testdev.c */
#define T_ADDRESS   0x00
#define T_PASID     0x0c
#define T_COMMAND   0x10
#define T_LIST      4
#define T_EVENTS    5
#define T_STATUS    0x14
#define T_FIRST     0x20
#define T_LAST      0x28
#define T_LISTENER  0x30
#define T_FLAGS     0x34
#define T_UNMAP     1
#define T_MAP       2
#define T_DEVTLB    4
#define T_REFUSED   BIT(31)
#define T_MAPS      0x38
#define T_UNMAPS    0x3c
#define T_MAPPINGS  0x40
#define T_ERRORS    0x44
#define T_FULL      16
#define T_REGIONS   0x48
#define T_BUFFER    0x1000
#define T_RECORDS   128
#define T_SHADOW    (T_MAP | T_UNMAP)

/* Addresses @first to @last lead to @addr and what follows it */
typedef struct Piece {
    uint64_t first;
    uint64_t last;
    uint64_t addr;
    uint64_t perm;
} Piece;

typedef struct Fix {
    QVtd *v;
    QVtdTestdev *t[2];
    QVtdDomain *d;
    bool queue;
    bool scalable;
    uint64_t status;
    uint32_t stamp;
    unsigned polls;
} Fix;

static bool sleeps;     /* see flush_wait() */

/* --- what the device was told --- */

static uint32_t get(QVtdTestdev *t, unsigned reg)
{
    return qtest_readl(t->v->qts, t->bar + reg);
}

/* Returns the flags that it listens with, or T_REFUSED among them */
static uint32_t listen_range(QVtdTestdev *t, uint32_t flags, uint64_t first,
                             uint64_t last)
{
    qtest_writeq(t->v->qts, t->bar + T_FIRST, first);
    qtest_writeq(t->v->qts, t->bar + T_LAST, last);
    qtest_writel(t->v->qts, t->bar + T_FLAGS, flags);
    return get(t, T_FLAGS);
}

static uint32_t listen_all(QVtdTestdev *t, uint32_t flags)
{
    return listen_range(t, flags, 0, UINT64_MAX);
}

static void choose(QVtdTestdev *t, unsigned listener)
{
    qtest_writel(t->v->qts, t->bar + T_LISTENER, listener);
}

/* Neighbours that go on as one are one: sizes are not what is compared */
static void pieces_push(GArray *pieces, Piece p)
{
    Piece *end = pieces->len ? &g_array_index(pieces, Piece, pieces->len - 1)
                             : NULL;

    if (end && end->last + 1 == p.first && end->perm == p.perm &&
        (p.perm == 0 || end->addr + (p.first - end->first) == p.addr)) {
        end->last = p.last;
        return;
    }
    g_array_append_val(pieces, p);
}

static unsigned fetch(QVtdTestdev *t, unsigned command, uint64_t from,
                      Piece *pieces)
{
    QTestState *qts = t->v->qts;
    unsigned n;

    qtest_writeq(qts, t->bar + T_ADDRESS, from);
    qtest_writel(qts, t->bar + T_COMMAND, command);
    n = get(t, T_STATUS);
    g_assert_cmpuint(n, <=, T_RECORDS);
    qtest_memread(qts, t->bar + T_BUFFER, pieces, n * sizeof(*pieces));
    for (uint64_t *w = (uint64_t *)pieces; w < (uint64_t *)(pieces + n); w++) {
        *w = le64_to_cpu(*w);
    }
    return n;
}

/* All that is mapped for @t */
static GArray *shadow(QVtdTestdev *t)
{
    GArray *pieces = g_array_new(false, false, sizeof(Piece));
    Piece buffer[T_RECORDS];
    uint64_t from = 0;
    unsigned n;

    do {
        n = fetch(t, T_LIST, from, buffer);
        for (unsigned i = 0; i < n; i++) {
            pieces_push(pieces, buffer[i]);
            from = buffer[i].last + 1;
        }
    } while (n == T_RECORDS && from);
    return pieces;
}

static gint piece_compare(gconstpointer a, gconstpointer b)
{
    const Piece *p = a, *q = b;

    return p->first < q->first ? -1 : p->first > q->first;
}

/* What @t has heard since it was last asked; two notifiers, any order */
static GArray *heard(QVtdTestdev *t)
{
    GArray *pieces = g_array_new(false, false, sizeof(Piece));
    Piece buffer[T_RECORDS];
    unsigned n = fetch(t, T_EVENTS, 0, buffer);

    g_assert_cmpuint(n, <, T_RECORDS);
    qsort(buffer, n, sizeof(*buffer), piece_compare);
    for (unsigned i = 0; i < n; i++) {
        buffer[i].addr = buffer[i].perm ? buffer[i].addr : 0;
        pieces_push(pieces, buffer[i]);
    }
    return pieces;
}

/* --- what the tables say --- */

/* What comes from interrupt addresses or would get there is not mapped */
static void pieces_add(GArray *pieces, Piece p)
{
    uint64_t end = p.addr + (p.last - p.first);
    uint64_t hole[2][2] = {
        { MAX(p.first, WINDOW), MIN(p.last, WINDOW_LAST) },
        { p.first + (MAX(p.addr, WINDOW) - p.addr),
          p.first + (MIN(end, WINDOW_LAST) - p.addr) },
    };
    bool is[2] = {
        p.first <= WINDOW_LAST && p.last >= WINDOW,
        p.addr <= WINDOW_LAST && end >= WINDOW,
    };

    for (unsigned i = 0; i < 2; i++) {
        Piece left = p, right = p;

        if (!is[i]) {
            continue;
        }
        left.last = hole[i][0] - 1;
        right.first = hole[i][1] + 1;
        right.addr += right.first - p.first;
        if (p.first < hole[i][0]) {
            pieces_add(pieces, left);
        }
        if (p.last > hole[i][1]) {
            pieces_add(pieces, right);
        }
        return;
    }
    pieces_push(pieces, p);
}

static void walk_table(QVtdDomain *d, GArray *pieces, uint64_t table,
                       int level, uint64_t iova, uint64_t perm)
{
    unsigned shift = 12 + 9 * (level - 1);
    uint64_t words[512];

    qtest_bufread(d->v->qts, table, words, sizeof(words));
    for (uint64_t i = 0; i < 512; i++) {
        uint64_t entry = le64_to_cpu(words[i]), rest = perm & entry;
        uint64_t first = iova + (i << shift);

        if (!(rest & RW)) {
            continue;
        }
        if (level > 1 && !(entry & QVTD_PTE_PS)) {
            walk_table(d, pieces, entry & 0xffffffffff000ULL, level - 1, first,
                       rest);
            continue;
        }
        pieces_add(pieces, (Piece) {
            .first = first, .last = first + (1ULL << shift) - 1,
            .addr = entry & (0x1000000000000ULL - (1ULL << shift)),
            .perm = rest & RW,
        });
    }
}

static GArray *walk(QVtdDomain *d)
{
    GArray *pieces = g_array_new(false, false, sizeof(Piece));

    if (d) {
        walk_table(d, pieces, d->pgd, d->levels, 0, RW);
    }
    return pieces;
}

static void assert_same(GArray *want, GArray *have)
{
    for (unsigned i = 0; i < MIN(want->len, have->len); i++) {
        Piece *p = &g_array_index(want, Piece, i);
        Piece *q = &g_array_index(have, Piece, i);

        g_assert_cmphex(p->first, ==, q->first);
        g_assert_cmphex(p->last, ==, q->last);
        g_assert_cmphex(p->addr, ==, q->addr);
        g_assert_cmphex(p->perm, ==, q->perm);
    }
    g_assert_cmpuint(want->len, ==, have->len);
    g_array_unref(want);
    g_array_unref(have);
}

/* @t was told of what @d maps; of nothing, if that is NULL */
static void assert_follows(QVtdTestdev *t, QVtdDomain *d)
{
    assert_same(walk(d), shadow(t));
    g_assert_cmphex(get(t, T_ERRORS), ==, 0);
    g_assert_cmphex(get(t, T_REGIONS), ==, 2);
}

/* @t sees the machine's memory, and nothing else */
static void assert_passes(QVtdTestdev *t)
{
    GArray *have = shadow(t);
    uint64_t ram = t->v->heap & -MiB2;
    bool found = false;

    for (unsigned i = 0; i < have->len; i++) {
        Piece *p = &g_array_index(have, Piece, i);

        g_assert_cmphex(p->first, ==, p->addr);
        g_assert_cmphex(p->last, <, 1ULL << 32);
        found |= p->first <= ram && p->last >= ram && p->perm == RW;
    }
    g_assert_true(found);
    g_assert_cmphex(get(t, T_REGIONS), ==, 0);
    g_assert_cmphex(get(t, T_ERRORS), ==, 0);
    g_array_unref(have);
}

/* --- commands --- */

/* What is in the queue, and then a status with the next stamp */
static void flush_begin(Fix *f)
{
    f->stamp++;
    qvtd_iq_put(f->v, QVTD_DESC_WAIT | QVTD_DESC_WAIT_SW |
                QVTD_DESC_WAIT_DATA(f->stamp), f->status);
    qvtd_iq_kick(f->v);
}

/*
 * A wait descriptor, answered when all before it has been done.  That may
 * take a while: the unit goes on in a bottom half, and is asked meanwhile.
 */
static void flush_wait(Fix *f)
{
    uint64_t end = g_get_monotonic_time() + 300 * G_USEC_PER_SEC;

    f->polls = 0;
    flush_begin(f);
    while (qtest_readl(f->v->qts, f->status) != f->stamp) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        f->polls++;
        if (sleeps) {
            g_usleep(1000);
        }
    }
}

static void flush_iotlb(Fix *f, unsigned granularity, uint16_t did,
                        uint64_t iova, unsigned am)
{
    if (f->queue) {
        qvtd_iq_put(f->v, QVTD_DESC_IOTLB | QVTD_DESC_GRAN(granularity) |
                    QVTD_DESC_DID(did) | QVTD_DESC_IOTLB_DW |
                    QVTD_DESC_IOTLB_DR,
                    granularity == QVTD_GRAN_PAGE ? iova | am : 0);
        flush_wait(f);
        return;
    }
    g_assert_cmpuint(QVTD_IOTLB_IAIG(
        qvtd_iotlb(f->v, QVTD_IOTLB_IIRG(granularity) | QVTD_IOTLB_DID(did) |
                   QVTD_IOTLB_DW | QVTD_IOTLB_DR, iova | QVTD_IVA_AM(am))),
        ==, granularity);
}

static void flush_context(Fix *f, unsigned granularity, uint16_t did,
                          uint16_t sid)
{
    if (f->queue) {
        qvtd_iq_put(f->v, QVTD_DESC_CC | QVTD_DESC_GRAN(granularity) |
                    QVTD_DESC_DID(did) | QVTD_DESC_CC_SID(sid), 0);
        flush_wait(f);
        return;
    }
    g_assert_cmpuint(QVTD_CCMD_CAIG(
        qvtd_ccmd(f->v, QVTD_CCMD_CIRG(granularity) | QVTD_CCMD_DID(did) |
                  QVTD_CCMD_SID(sid))), ==, granularity);
}

/* Section 6.5.2.2: in scalable mode what a requester does is cached by PASID */
static void flush_pasid_cache(Fix *f, unsigned granularity, uint16_t did)
{
    qvtd_iq_put(f->v, QVTD_DESC_PC | QVTD_DESC_GRAN(granularity) |
                QVTD_DESC_DID(did), 0);
    flush_wait(f);
}

static void attach(Fix *f, QVtdDomain *d, uint16_t sid)
{
    if (f->scalable) {
        qvtd_sm_write_pasid(f->v, sid, 0, d->pgd | QVTD_SM_PE_P |
                            QVTD_SM_PE_PGTT(QVTD_PGTT_SECOND) |
                            QVTD_SM_PE_AW(d->levels), d->id, 0);
    } else {
        qvtd_attach(d, sid);
    }
}

static void flush_all(Fix *f)
{
    if (f->scalable) {
        flush_pasid_cache(f, QVTD_PC_GLOBAL, 0);
    }
    flush_context(f, QVTD_GRAN_GLOBAL, 0, 0);
    flush_iotlb(f, QVTD_GRAN_GLOBAL, 0, 0, 0);
}

/* Tables, queue and translation as a guest sets them up, domain attached */
static void fix_setup(Fix *f)
{
    if (f->scalable) {
        qvtd_sm_init(f->v);
    } else {
        qvtd_tables_init(f->v);
    }
    f->status = qvtd_alloc(f->v, 1);
    if (f->queue) {
        (f->scalable ? qvtd_iq_init_wide : qvtd_iq_init)(f->v, 0);
    }
    attach(f, f->d, SID);
    qvtd_gcmd_set(f->v, QVTD_GCMD_TE);
}

static Fix fix_start(const char *props, const char *how)
{
    Fix f = {
        .queue = !strstr(how, "register"),
        .scalable = strstr(props, "scalable"),
    };

    f.v = qvtd_start(props, DEVICES);
    f.t[0] = qvtd_testdev(f.v, SID);
    f.t[1] = qvtd_testdev(f.v, OTHER);
    f.d = qvtd_domain_new(f.v, DID, strstr(props, "aw-bits=39") ? 3 : 4);
    return f;
}

/* The first device listens from the start, as one of vfio does */
static Fix fix_new(const char *props, const char *how)
{
    Fix f = fix_start(props, how);

    g_assert_cmphex(listen_all(f.t[0], T_SHADOW), ==, T_SHADOW);
    assert_passes(f.t[0]);
    fix_setup(&f);
    assert_follows(f.t[0], f.d);
    return f;
}

static void fix_quit(Fix *f)
{
    qvtd_quit(f->v);
    g_free(f->t[0]);
    g_free(f->t[1]);
    g_free(f->d);
}

/* --- pages --- */

static unsigned granularity_of(const char *how)
{
    return strstr(how, "global") ? QVTD_GRAN_GLOBAL :
           strstr(how, "domain") ? QVTD_GRAN_DOMAIN : QVTD_GRAN_PAGE;
}

/* An entry is changed, flushed as @how says, and the device was told */
static void change(Fix *f, const char *how, uint64_t iova, int level,
                   uint64_t entry)
{
    if (level > 1 && (entry & RW)) {
        entry |= QVTD_PTE_PS;
    }
    qtest_writeq(f->v->qts, qvtd_pte_addr(f->d, iova, level), entry);
    flush_iotlb(f, granularity_of(how), DID, iova, 9 * (level - 1));
    assert_follows(f->t[0], f->d);
}

/* 6.1: with caching mode all changes are flushed, new mappings too */
static void test_pages(const void *how)
{
    Fix f = fix_new(CACHING, how);

    for (int level = 1; level <= 3; level++) {
        uint64_t size = 1ULL << (12 + 9 * (level - 1));
        uint64_t iova = 0x80000000ULL * level, pa = 16 * size;
        uint32_t maps;

        maps = get(f.t[0], T_MAPS);
        change(&f, how, iova, level, pa | RW);
        g_assert_cmpuint(get(f.t[0], T_MAPS) - maps, ==, 1);
        change(&f, how, iova + size, level, (pa + size) | RW);
        /* nothing new */
        maps = get(f.t[0], T_MAPS);
        change(&f, how, iova, level, pa | RW);
        g_assert_cmpuint(get(f.t[0], T_MAPS), ==, maps);
        /* remapped, less permission, the other one, more */
        change(&f, how, iova, level, (pa + 5 * size) | RW);
        change(&f, how, iova, level, (pa + 5 * size) | R);
        change(&f, how, iova, level, (pa + 5 * size) | QVTD_PTE_W);
        change(&f, how, iova, level, (pa + 5 * size) | RW);
        change(&f, how, iova, level, 0);
        change(&f, how, iova + size, level, 0);
    }
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* What is not flushed has not happened; what is flushed has, all of it */
static void test_range(const void *how)
{
    Fix f = fix_new(CACHING, how);

    for (unsigned i = 0; i < 64; i++) {
        qvtd_map(f.d, IOVA + i * KiB4, 0x10000000 + 3 * i * KiB4, RW);
    }
    g_assert_cmpuint(get(f.t[0], T_MAPPINGS), ==, 1);   /* the bounce page */
    for (unsigned am = 0; am < 6; am++) {
        flush_iotlb(&f, QVTD_GRAN_PAGE, DID, IOVA, am);
        g_assert_cmpuint(get(f.t[0], T_MAPPINGS), ==, 1 + (1 << am));
    }
    /* 6.5.2.3: low bits of the address that the mask covers are ignored */
    flush_iotlb(&f, QVTD_GRAN_PAGE, DID, IOVA + 63 * KiB4, 5);
    assert_follows(f.t[0], f.d);
    /* Nobody else's flush */
    for (unsigned i = 0; i < 64; i++) {
        qvtd_map(f.d, IOVA + i * KiB4, 0, 0);
    }
    flush_iotlb(&f, QVTD_GRAN_PAGE, DID + 1, IOVA, 6);
    flush_iotlb(&f, QVTD_GRAN_DOMAIN, DID + 1, 0, 0);
    g_assert_cmpuint(get(f.t[0], T_MAPPINGS), ==, 65);
    flush_iotlb(&f, QVTD_GRAN_PAGE, DID, IOVA, 6);
    assert_follows(f.t[0], f.d);
    fix_quit(&f);
}

/* The table below a new entry of @level: what it mapped, in smaller pages */
static uint64_t split(Fix *f, uint64_t iova, int level)
{
    uint64_t addr = qvtd_pte_addr(f->d, iova, level);
    uint64_t entry = qtest_readq(f->v->qts, addr);
    uint64_t table = qvtd_alloc(f->v, 1), words[512];
    uint64_t step = 1ULL << (12 + 9 * (level - 2));

    if (level == 2) {
        entry &= ~QVTD_PTE_PS;
    }
    for (unsigned i = 0; i < 512; i++) {
        words[i] = cpu_to_le64(entry + i * step);
    }
    qtest_bufwrite(f->v->qts, table, words, sizeof(words));
    qtest_writeq(f->v->qts, addr, table | RW);
    return entry;
}

/*
 * A large page becomes small ones and large again.  Software may flush no more
 * than what it has changed in the end.
 */
static void test_split(const void *how)
{
    Fix f = fix_new(CACHING, how);

    for (int level = 2; level <= 3; level++) {
        uint64_t size = 1ULL << (12 + 9 * (level - 1));
        uint64_t iova = 0x80000000ULL * level + size;
        uint64_t part = iova + (size >> 9) * 77;
        uint64_t whole;

        change(&f, how, iova, level, 16 * size | RW);
        whole = split(&f, iova, level);
        /* the same, in other sizes, then a hole, a read-only part, a swap */
        flush_iotlb(&f, granularity_of(how), DID, part, 9 * (level - 2));
        assert_follows(f.t[0], f.d);
        change(&f, how, part, level - 1, 0);
        change(&f, how, part, level - 1, (whole & ~0xfffULL) | R);
        change(&f, how, iova, level - 1, (whole & ~0xfffULL) | RW);
        change(&f, how, iova + (size >> 9) * 511, level - 1, 0);
        /* large again, though only a part is flushed: all of it is new */
        qtest_writeq(f.v->qts, qvtd_pte_addr(f.d, iova, level),
                     16 * size | RW | QVTD_PTE_PS);
        flush_iotlb(&f, granularity_of(how), DID, iova, 9 * (level - 1));
        assert_follows(f.t[0], f.d);
    }
    fix_quit(&f);
}

/* A flush of less than the large page that changed: it changed as a whole */
static void test_partial(const void *how)
{
    Fix f = fix_new(CACHING, how);
    uint64_t part = IOVA + 0x55000;

    change(&f, "page", IOVA, 2, 0x8000000 | RW);
    qvtd_map_level(f.d, IOVA, 0xa000000, RW, 2);
    flush_iotlb(&f, QVTD_GRAN_PAGE, DID, part, 0);
    assert_follows(f.t[0], f.d);
    qvtd_map_level(f.d, IOVA, 0xa000000, R, 2);
    flush_iotlb(&f, QVTD_GRAN_PAGE, DID, part, 3);
    assert_follows(f.t[0], f.d);
    qtest_writeq(f.v->qts, qvtd_pte_addr(f.d, IOVA, 2), 0);
    flush_iotlb(&f, QVTD_GRAN_PAGE, DID, part, 0);
    assert_follows(f.t[0], f.d);
    /* A table goes, and the guest flushes all that was below it */
    for (unsigned i = 0; i < 20; i++) {
        change(&f, "page", IOVA + i * 3 * KiB4, 1, 0x8000000 | RW);
    }
    qtest_writeq(f.v->qts, qvtd_pte_addr(f.d, IOVA, 2), 0);
    flush_iotlb(&f, QVTD_GRAN_PAGE, DID, IOVA, 9);
    assert_follows(f.t[0], f.d);
    fix_quit(&f);
}

/* 3.15: large pages from, and to, the addresses of interrupts */
static void test_window(const void *how)
{
    Fix f = fix_new(CACHING, how);
    uint64_t gib = WINDOW & -GiB1, mib = WINDOW & -MiB2;

    change(&f, how, gib, 3, 0x200000000ULL | RW);
    change(&f, how, gib, 3, 0x240000000ULL | RW);
    change(&f, how, 0x500000000ULL, 3, gib | RW);
    change(&f, how, gib, 3, gib | RW);
    change(&f, how, gib, 3, 0);
    change(&f, how, 0x500000000ULL, 3, 0);
    change(&f, how, mib, 2, mib | RW);
    change(&f, how, mib, 2, (mib + MiB2) | RW);
    change(&f, how, WINDOW - KiB4, 1, WINDOW | RW);
    change(&f, how, WINDOW - KiB4, 1, (WINDOW - KiB4) | RW);
    fix_quit(&f);
}

/* --- what a requester does --- */

/* 6.2.2.1, and 6.1 for entries that were not present before */
static void test_context(const void *how)
{
    static const unsigned granularities[] = {
        QVTD_GRAN_GLOBAL, QVTD_GRAN_DOMAIN, QVTD_GRAN_DEVICE,
    };
    Fix f = fix_new(CACHING, how);
    QVtdDomain *other = qvtd_domain_new(f.v, DID + 1, 3);

    qvtd_map(f.d, IOVA, 0x8000000, RW);
    qvtd_map_level(other, IOVA, 0x4000000, R, 2);
    flush_all(&f);
    assert_follows(f.t[0], f.d);
    for (unsigned i = 0; i < ARRAY_SIZE(granularities); i++) {
        unsigned g = granularities[i];

        attach(&f, other, SID);
        flush_context(&f, g, DID, SID);
        flush_iotlb(&f, QVTD_GRAN_DOMAIN, DID, 0, 0);
        assert_follows(f.t[0], other);
        qvtd_write_context(f.v, SID, 0, 0);
        flush_context(&f, g, DID + 1, SID);
        flush_iotlb(&f, QVTD_GRAN_DOMAIN, DID + 1, 0, 0);
        assert_follows(f.t[0], NULL);
        /* without a domain nothing is followed */
        qvtd_map(f.d, IOVA + KiB4 * (1 + i), 0x9000000, RW);
        flush_iotlb(&f, QVTD_GRAN_PAGE, DID, IOVA, 3);
        assert_follows(f.t[0], NULL);
        attach(&f, f.d, SID);
        /* 6.2.2.1: not-present entries are cached under domain 0 */
        flush_context(&f, g, g == QVTD_GRAN_DOMAIN ? 0 : DID, SID);
        flush_iotlb(&f, QVTD_GRAN_DOMAIN, DID, 0, 0);
        assert_follows(f.t[0], f.d);
    }
    g_free(other);
    fix_quit(&f);
}

/* Pass-through, and back: vfio maps the machine's memory, and unmaps it */
static void test_pass_through(const void *how)
{
    Fix f = fix_new(CACHING, how);

    for (unsigned i = 0; i < 3; i++) {
        qvtd_write_context(f.v, SID, QVTD_CTX_P |
                           QVTD_CTX_TT(QVTD_TT_PASS_THROUGH),
                           QVTD_CTX_DID(DID + 1) | QVTD_CTX_AW(4));
        flush_context(&f, QVTD_GRAN_DEVICE, DID, SID);
        flush_iotlb(&f, QVTD_GRAN_DOMAIN, DID, 0, 0);
        assert_passes(f.t[0]);
        qvtd_map(f.d, IOVA + i * KiB4, 0x8000000, RW);
        flush_iotlb(&f, QVTD_GRAN_PAGE, DID, IOVA, 2);
        assert_passes(f.t[0]);
        attach(&f, f.d, SID);
        flush_context(&f, QVTD_GRAN_DEVICE, DID + 1, SID);
        flush_iotlb(&f, QVTD_GRAN_DOMAIN, DID + 1, 0, 0);
        assert_follows(f.t[0], f.d);
    }
    fix_quit(&f);
}

/* 11.4.4.1: another root table, and one without any entry */
static void test_root(const void *how)
{
    Fix f = fix_new(CACHING, how);
    uint64_t root = f.v->root, ctx = f.v->ctx[0];
    QVtdDomain *other = qvtd_domain_new(f.v, DID, 4);

    qvtd_map(other, IOVA, 0x7000000, RW);
    for (unsigned i = 0; i < 2; i++) {
        f.v->root = qvtd_alloc(f.v, 1);
        f.v->ctx[0] = 0;
        qvtd_set_root(f.v, f.v->root);
        flush_all(&f);
        assert_follows(f.t[0], NULL);
        qvtd_attach(other, SID);
        flush_all(&f);
        assert_follows(f.t[0], other);
        f.v->root = root;
        f.v->ctx[0] = ctx;
        qvtd_set_root(f.v, root);
        flush_all(&f);
        assert_follows(f.t[0], f.d);
    }
    g_free(other);
    fix_quit(&f);
}

/* Translation off and on; what changed meanwhile is found without a flush */
static void test_enable(const void *how)
{
    Fix f = fix_new(CACHING, how);

    for (unsigned i = 0; i < 3; i++) {
        qvtd_gcmd_clear(f.v, QVTD_GCMD_TE);
        assert_passes(f.t[0]);
        qvtd_map(f.d, IOVA + i * KiB4, 0x8000000 + i * MiB2, RW);
        flush_iotlb(&f, QVTD_GRAN_GLOBAL, 0, 0, 0);
        assert_passes(f.t[0]);
        qvtd_gcmd_set(f.v, QVTD_GCMD_TE);
        assert_follows(f.t[0], f.d);
    }
    fix_quit(&f);
}

/* The machine is reset and set up again, its devices go on to listen */
static void test_reset(const void *how)
{
    Fix f = fix_new(CACHING, how);

    for (unsigned i = 0; i < 3; i++) {
        change(&f, how, IOVA + i * KiB4, 1, 0x8000000 | RW);
        qvtd_system_reset(f.v);
        g_free(f.t[0]);
        g_free(f.t[1]);
        f.t[0] = qvtd_testdev(f.v, SID);
        f.t[1] = qvtd_testdev(f.v, OTHER);
        assert_passes(f.t[0]);
        g_free(f.d);
        f.d = qvtd_domain_new(f.v, DID, 4);
        fix_setup(&f);
        assert_follows(f.t[0], f.d);
    }
    fix_quit(&f);
}

/* --- several who listen --- */

static void test_two_devices(const void *how)
{
    Fix f = fix_new(CACHING, how);
    QVtdDomain *other = qvtd_domain_new(f.v, DID + 1, 4);
    uint32_t maps;

    change(&f, how, IOVA, 1, 0x8000000 | RW);
    qvtd_map(other, IOVA, 0x5000000, RW);
    g_assert_cmphex(listen_all(f.t[1], T_SHADOW), ==, T_SHADOW);
    assert_follows(f.t[1], NULL);
    /* Into the domain of the first one, to another domain, and back */
    for (unsigned i = 0; i < 3; i++) {
        QVtdDomain *d = i == 1 ? other : f.d;

        attach(&f, d, OTHER);
        flush_context(&f, QVTD_GRAN_DEVICE, i ? DID + !d : DID, OTHER);
        flush_iotlb(&f, QVTD_GRAN_DOMAIN, d->id, 0, 0);
        assert_follows(f.t[1], d);
        maps = get(f.t[1], T_MAPS);
        change(&f, how, IOVA + (1 + i) * KiB4, 1, 0x8000000 | RW);
        assert_follows(f.t[1], d);
        g_assert_cmpuint(get(f.t[1], T_MAPS), ==, maps + (d == f.d));
    }
    g_free(other);
    fix_quit(&f);
}

/* One comes later and is told all there is; one has gone, and hears nothing */
static void test_replay(const void *how)
{
    Fix f = fix_new(CACHING, how);
    QVtdTestdev *t = f.t[0];

    change(&f, how, IOVA, 1, 0x8000000 | RW);
    change(&f, how, 2 * GiB1, 3, GiB1 | R);
    choose(t, 1);
    g_assert_cmphex(listen_all(t, T_SHADOW), ==, T_SHADOW);
    assert_follows(t, f.d);
    change(&f, how, IOVA, 1, 0);
    choose(t, 0);
    assert_follows(t, f.d);
    /* The first one goes; the other one goes on */
    g_assert_cmphex(listen_all(t, 0), ==, 0);
    g_assert_cmphex(get(t, T_REGIONS), ==, 0);
    choose(t, 1);
    change(&f, how, IOVA, 1, 0x9000000 | RW);
    g_assert_cmphex(listen_all(t, 0), ==, 0);
    /* Nobody is there, then one is: it finds what nobody was told */
    qvtd_map(f.d, IOVA + KiB4, 0xa000000, RW);
    flush_iotlb(&f, QVTD_GRAN_GLOBAL, 0, 0, 0);
    g_assert_cmphex(listen_all(t, T_SHADOW), ==, T_SHADOW);
    assert_follows(t, f.d);
    change(&f, how, IOVA + KiB4, 1, 0);
    fix_quit(&f);
}

/* A notifier hears of its addresses alone, in pieces that fit there */
static void test_sub_range(const void *how)
{
    Fix f = fix_new(CACHING, how);
    QVtdTestdev *t = f.t[0];
    uint64_t first = IOVA + 3 * KiB4, last = IOVA + MiB2 + 5 * KiB4 - 1;

    choose(t, 1);
    listen_range(t, T_SHADOW, first, last);
    choose(t, 0);
    for (unsigned step = 0; step < 8; step++) {
        uint64_t iova = IOVA + (step & 1 ? MiB2 : 0);
        GArray *have, *all, *want = g_array_new(false, false, sizeof(Piece));

        change(&f, how, iova, 2,
               step < 4 ? 0x8000000 + step * 4 * MiB2 + RW : 0);
        all = walk(f.d);
        for (unsigned i = 0; i < all->len; i++) {
            Piece p = g_array_index(all, Piece, i);

            if (p.first <= last && p.last >= first) {
                p.addr += MAX(p.first, first) - p.first;
                p.first = MAX(p.first, first);
                p.last = MIN(p.last, last);
                pieces_push(want, p);
            }
        }
        choose(t, 1);
        have = shadow(t);
        assert_same(want, have);
        g_assert_cmphex(get(t, T_ERRORS), ==, 0);
        choose(t, 0);
        g_array_unref(all);
    }
    fix_quit(&f);
}

/* --- devices that come and go --- */

#define PORT    QVTD_SID(0, 3, 0)
#define BEHIND  QVTD_SID(5, 0, 0)

static void slot_control(QVtd *v, uint16_t val)
{
    uint8_t pos = qvtd_cfg_cap(v, PORT, PCI_CAP_ID_EXP);

    qvtd_cfg_writew(v, PORT, pos + PCI_EXP_SLTCTL, val);
}

/* A device is plugged into a populated domain, changes, and leaves */
static void test_hotplug(void)
{
    Fix f = { .queue = true };
    uint32_t bar;

    f.v = qvtd_start(CACHING, "-device pcie-root-port,id=rp,addr=3,chassis=1 "
                     "-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support="
                     "off");
    qvtd_bridge(f.v, PORT, 5, 5, 8);
    bar = f.v->bar;
    qvtd_tables_init(f.v);
    f.status = qvtd_alloc(f.v, 1);
    qvtd_iq_init(f.v, 0);
    f.d = qvtd_domain_new(f.v, DID, 4);
    attach(&f, f.d, BEHIND);
    qvtd_gcmd_set(f.v, QVTD_GCMD_TE);
    for (unsigned i = 0; i < 3; i++) {
        qvtd_map(f.d, IOVA + i * KiB4, 0x8000000, RW);
        flush_all(&f);
        qtest_qmp_device_add(f.v->qts, "vtd-testdev", "hot",
                             "{'bus': 'rp', 'addr': '0'}");
        slot_control(f.v, PCI_EXP_SLTCTL_PWR_IND_ON);
        f.v->bar = bar;
        f.t[0] = qvtd_testdev(f.v, BEHIND);
        g_assert_cmphex(listen_all(f.t[0], T_SHADOW), ==, T_SHADOW);
        assert_follows(f.t[0], f.d);
        change(&f, "page", IOVA + GiB1, 1, 0x9000000 + i * KiB4 + RW);
        /* It listens still when it leaves */
        qtest_qmp_device_del_send(f.v->qts, "hot");
        slot_control(f.v, PCI_EXP_SLTCTL_PWR_IND_OFF |
                     PCI_EXP_SLTCTL_PWR_OFF);
        qtest_qmp_eventwait(f.v->qts, "DEVICE_DELETED");
        g_free(f.t[0]);
    }
    f.t[0] = NULL;
    fix_quit(&f);
}

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

/* The destination's devices listen before the guest's tables have come */
static void test_migrate(const void *how)
{
    Fix f = fix_new(CACHING, how);
    g_autofree char *dir = g_dir_make_tmp("vtd-notify-XXXXXX", NULL);
    g_autofree char *file = g_build_filename(dir, "stream", NULL);
    g_autofree char *uri = g_strdup_printf("file:%s", file);
    QTestState *qts;
    QVtd *w;

    change(&f, how, IOVA, 1, 0x8000000 | RW);
    change(&f, how, 2 * GiB1, 3, GiB1 | R);
    qtest_qmp_assert_success(f.v->qts, "{ 'execute': 'migrate', 'arguments': "
                             "{ 'uri': %s } }", uri);
    wait_migration(f.v->qts);
    qtest_quit(f.v->qts);

    w = qvtd_start(CACHING, DEVICES " -incoming defer");
    g_free(f.t[0]);
    f.t[0] = qvtd_testdev(w, SID);
    g_assert_cmphex(listen_all(f.t[0], T_SHADOW), ==, T_SHADOW);
    assert_passes(f.t[0]);
    qtest_qmp_assert_success(w->qts, "{ 'execute': 'migrate-incoming', "
                             "'arguments': { 'uri': %s } }", uri);
    wait_migration(w->qts);
    qts = w->qts;
    g_free(w);
    f.v->qts = qts;
    f.t[0]->v = f.v;
    assert_follows(f.t[0], f.d);
    change(&f, how, IOVA, 1, 0);
    g_assert_cmpint(unlink(file), ==, 0);
    g_assert_cmpint(rmdir(dir), ==, 0);
    fix_quit(&f);
}

static void hmp(QTestState *qts, const char *cmd)
{
    g_autofree char *out = qtest_hmp(qts, "%s", cmd);

    g_assert_cmpstr(out, ==, "");
}

/* The machine goes back to what it was: the device is told of that */
static void test_loadvm(const void *how)
{
    const char *img = getenv("QTEST_QEMU_IMG");
    g_autofree char *dir = g_dir_make_tmp("vtd-notify-XXXXXX", NULL);
    g_autofree char *file = g_build_filename(dir, "disk.qcow2", NULL);
    g_autofree char *cmd = g_strdup_printf("%s create -q -f qcow2 %s 1M", img,
                                           file);
    g_autofree char *args = g_strdup_printf(
        DEVICES " -drive if=none,id=d,format=qcow2,file=%s", file);
    Fix f = { .queue = true };

    g_assert_nonnull(img);
    g_assert_true(g_spawn_command_line_sync(cmd, NULL, NULL, NULL, NULL));
    f.v = qvtd_start(CACHING, args);
    f.t[0] = qvtd_testdev(f.v, SID);
    f.d = qvtd_domain_new(f.v, DID, 4);
    listen_all(f.t[0], T_SHADOW);
    fix_setup(&f);
    change(&f, how, IOVA, 1, 0x8000000 | RW);
    hmp(f.v->qts, "savevm one");
    change(&f, how, IOVA, 1, 0x9000000 | RW);
    change(&f, how, IOVA + KiB4, 1, 0x9000000 | RW);
    hmp(f.v->qts, "loadvm one");
    assert_follows(f.t[0], f.d);
    f.v->iq_tail = qvtd_readq(f.v, QVTD_IQT) / 16;
    change(&f, how, IOVA, 1, 0xa000000 | RW);
    /* Loaded while nothing is translated */
    qvtd_gcmd_clear(f.v, QVTD_GCMD_TE);
    assert_passes(f.t[0]);
    hmp(f.v->qts, "loadvm one");
    assert_follows(f.t[0], f.d);
    g_assert_cmpint(unlink(file), ==, 0);
    g_assert_cmpint(rmdir(dir), ==, 0);
    fix_quit(&f);
}

/* --- random changes --- */

typedef struct Random {
    Fix f;
    QVtdDomain *d[2];
    QVtdDomain *at[2];          /* of each device, NULL: not present */
    bool on;
} Random;

static uint32_t below(uint32_t n)
{
    return g_test_rand_int_range(0, n);
}

/*
 * The entry for @iova at @level, at most @top levels above it one that a
 * larger page was split for: then all of that page is to be flushed.
 */
static uint64_t random_entry(Random *r, QVtdDomain *d, uint64_t iova,
                             int level, int *top)
{
    QTestState *qts = r->f.v->qts;
    uint64_t table = d->pgd;

    *top = level;
    for (int l = d->levels; ; l--) {
        uint64_t addr = table + extract64(iova, 12 + 9 * (l - 1), 9) * 8;
        uint64_t entry;

        if (l == level) {
            return addr;
        }
        entry = qtest_readq(qts, addr);
        if (!(entry & RW) || (entry & QVTD_PTE_PS)) {
            if (entry & RW) {
                *top = MAX(*top, l);
            }
            entry = qvtd_alloc(r->f.v, 1) | RW;
            qtest_writeq(qts, addr, entry);
        }
        table = entry & ~0xfffULL & 0xffffffffffffULL;
    }
}

static uint64_t random_bits(void)
{
    static const uint64_t bits[] = { RW, RW, R, QVTD_PTE_W };

    return bits[below(4)];
}

/* One entry, a page or a table that goes, in a small part of a domain */
static void random_page(Random *r)
{
    QVtdDomain *d = r->d[below(2)];
    int level = below(8) ? 1 + !below(4) : 3, top;
    uint64_t size = 1ULL << (12 + 9 * (level - 1));
    uint64_t iova = (3 + below(2)) * GiB1 + below(3) * MiB2 + below(6) * KiB4;
    uint64_t addr, entry, value = 0;

    iova &= -size;
    addr = random_entry(r, d, iova, level, &top);
    entry = qtest_readq(r->f.v->qts, addr);
    if (below(3)) {
        value = (below(32) + (level == 3 ? 1 : 64)) * size | random_bits() |
                (level > 1 ? QVTD_PTE_PS : 0);
    } else if ((entry & RW) && below(2)) {
        value = (entry & ~(uint64_t)RW) | random_bits();
    }
    qtest_writeq(r->f.v->qts, addr, value);
    if (below(3) == 0) {
        flush_iotlb(&r->f, below(2) ? QVTD_GRAN_GLOBAL : QVTD_GRAN_DOMAIN,
                    d->id, 0, 0);
    } else {
        flush_iotlb(&r->f, QVTD_GRAN_PAGE, d->id, iova & -KiB4,
                    MIN(18, 9 * (top - 1) + below(3)));
    }
}

static void random_context(Random *r)
{
    unsigned i = below(2);
    uint16_t sid = i ? OTHER : SID, old = r->at[i] ? r->at[i]->id : 0;

    r->at[i] = below(4) ? r->d[below(2)] : NULL;
    if (r->at[i]) {
        attach(&r->f, r->at[i], sid);
    } else {
        qvtd_write_context(r->f.v, sid, 0, 0);
    }
    flush_context(&r->f, 1 + below(3), old, sid);
    flush_iotlb(&r->f, QVTD_GRAN_DOMAIN, old, 0, 0);
}

static void random_enable(Random *r)
{
    r->on = !r->on;
    if (r->on) {
        qvtd_gcmd_set(r->f.v, QVTD_GCMD_TE);
    } else {
        qvtd_gcmd_clear(r->f.v, QVTD_GCMD_TE);
    }
}

/* Seeded: --seed repeats what was seen */
static void test_random(const void *how)
{
    Random r = { .f = fix_new(CACHING, how), .on = true };

    listen_all(r.f.t[1], T_SHADOW);
    r.d[0] = r.at[0] = r.f.d;
    r.d[1] = qvtd_domain_new(r.f.v, DID + 1, 4);
    for (unsigned step = 0; step < 400; step++) {
        unsigned what = below(24);

        if (what == 0) {
            random_enable(&r);
        } else if (what < 4) {
            random_context(&r);
        } else {
            random_page(&r);
        }
        for (unsigned i = 0; i < 2; i++) {
            if (r.on) {
                assert_follows(r.f.t[i], r.at[i]);
            } else {
                assert_passes(r.f.t[i]);
            }
        }
    }
    qvtd_assert_no_fault(r.f.v);
    g_free(r.d[1]);
    fix_quit(&r.f);
}

/* --- scalable mode --- */

#define SCALABLE CACHING ",x-scalable-mode=on"

/* 9.6: the second stage of a PASID entry; first stage and pass-through */
static void test_scalable(const void *how)
{
    Fix f = fix_new(SCALABLE, how);
    QVtdDomain *other = qvtd_domain_new(f.v, DID + 1, 4);

    qvtd_map(other, IOVA, 0x5000000, R);
    change(&f, "page", IOVA, 1, 0x8000000 | RW);
    change(&f, "domain", IOVA, 1, 0x9000000 | RW);
    change(&f, "global", IOVA + MiB2, 2, 0x6000000 | R);
    for (unsigned i = 0; i < 3; i++) {
        static const unsigned granularities[] = {
            QVTD_PC_DOMAIN, QVTD_PC_PASID, QVTD_PC_GLOBAL,
        };
        unsigned g = granularities[i];

        attach(&f, other, SID);
        flush_pasid_cache(&f, g, DID);
        assert_follows(f.t[0], other);
        qvtd_sm_write_pasid(f.v, SID, 0, QVTD_SM_PE_P |
                            QVTD_SM_PE_PGTT(QVTD_PGTT_PASS), DID + 2, 0);
        flush_pasid_cache(&f, g, DID + 1);
        assert_passes(f.t[0]);
        qvtd_sm_write_pasid(f.v, SID, 0, 0, 0, 0);
        flush_pasid_cache(&f, g, DID + 2);
        assert_follows(f.t[0], NULL);
        attach(&f, f.d, SID);
        flush_pasid_cache(&f, g, DID);
        assert_follows(f.t[0], f.d);
    }
    g_free(other);
    fix_quit(&f);
}

/* 3.6: first-stage tables are not shadowed; nothing is announced of them */
static void test_first_stage(void)
{
    Fix f = fix_start(SCALABLE ",x-flts=on", "queue");
    uint32_t value;

    g_assert_cmphex(listen_all(f.t[0], T_SHADOW), ==, T_SHADOW);
    qvtd_sm_init(f.v);
    f.status = qvtd_alloc(f.v, 1);
    qvtd_iq_init_wide(f.v, 0);
    qtest_writeq(f.v->qts, qvtd_pte_addr(f.d, IOVA, 1),
                 0x8000000 | QVTD_FS_ALL);
    for (int level = 4; level > 1; level--) {
        uint64_t addr = qvtd_pte_addr(f.d, IOVA, level);

        qtest_writeq(f.v->qts, addr, qtest_readq(f.v->qts, addr) |
                     QVTD_FS_ALL);
    }
    qvtd_sm_write_pasid(f.v, SID, 0, QVTD_SM_PE_P |
                        QVTD_SM_PE_PGTT(QVTD_PGTT_FIRST), DID,
                        f.d->pgd | QVTD_SM_PE2_FSPM(4));
    qvtd_gcmd_set(f.v, QVTD_GCMD_TE);
    flush_all(&f);
    assert_follows(f.t[0], NULL);
    qtest_writel(f.v->qts, 0x8000000, 0x600d);
    g_assert_true(qvtd_testdev_read(f.t[0], QVTD_NO_PASID, IOVA, &value));
    g_assert_cmphex(value, ==, 0x600d);
    qvtd_assert_no_fault(f.v);
    fix_quit(&f);
}

/* Requests with PASID have a shadow of their own */
static void test_pasid(const void *how)
{
    Fix f = fix_new("caching-mode=on,x-scalable-mode=on,x-pasid-mode=on", how);
    QVtdDomain *other = qvtd_domain_new(f.v, DID + 1, 4);

    qvtd_map(other, IOVA, 0x5000000, RW);
    qvtd_sm_write_pasid(f.v, SID, 9, other->pgd | QVTD_SM_PE_P |
                        QVTD_SM_PE_PGTT(QVTD_PGTT_SECOND) | QVTD_SM_PE_AW(4),
                        other->id, 0);
    flush_all(&f);
    choose(f.t[0], 1);
    qtest_writel(f.v->qts, f.t[0]->bar + T_PASID, BIT(31) | 9);
    g_assert_cmphex(listen_all(f.t[0], T_SHADOW), ==, T_SHADOW);
    /* 3.15: interrupt addresses are not special to them */
    assert_same(walk(other), shadow(f.t[0]));
    qvtd_map(other, IOVA, 0x6000000, R);
    flush_iotlb(&f, QVTD_GRAN_PAGE, DID + 1, IOVA, 0);
    assert_same(walk(other), shadow(f.t[0]));
    g_assert_cmphex(get(f.t[0], T_ERRORS), ==, 0);
    choose(f.t[0], 0);
    assert_follows(f.t[0], f.d);
    g_free(other);
    fix_quit(&f);
}

/* --- too much --- */

/*
 * A table that is its own table, at each level, maps 2^36 pages.  So much is
 * announced as the bound allows, the machine answers meanwhile, and what
 * comes later works as ever.
 */
static void test_hostile(const void *how)
{
    Fix f = fix_new(CACHING, how);
    QVtdDomain *endless = qvtd_domain_new(f.v, DID + 1, 4);
    uint64_t words[512];
    uint32_t maps = get(f.t[0], T_MAPS);

    for (unsigned i = 0; i < 512; i++) {
        words[i] = cpu_to_le64(endless->pgd | RW);
    }
    qtest_bufwrite(f.v->qts, endless->pgd, words, sizeof(words));
    attach(&f, endless, SID);
    sleeps = true;
    qvtd_iq_put(f.v, QVTD_DESC_CC | QVTD_DESC_GRAN(QVTD_GRAN_GLOBAL), 0);
    flush_iotlb(&f, QVTD_GRAN_GLOBAL, 0, 0, 0);
    g_assert_cmpuint(f.polls, >, 10);
    maps = get(f.t[0], T_MAPS) - maps;
    g_assert_cmpuint(maps, >, 65535);           /* as many as vfio takes */
    g_assert_cmpuint(maps, <=, 1 << 22);
    g_assert_cmphex(get(f.t[0], T_ERRORS), ==, T_FULL);
    g_assert_cmpuint(get(f.t[0], T_MAPPINGS), ==, 65535);

    attach(&f, f.d, SID);
    qvtd_iq_put(f.v, QVTD_DESC_CC | QVTD_DESC_GRAN(QVTD_GRAN_DEVICE) |
                QVTD_DESC_CC_SID(SID), 0);
    flush_iotlb(&f, QVTD_GRAN_GLOBAL, 0, 0, 0);
    sleeps = false;
    assert_same(walk(f.d), shadow(f.t[0]));
    g_free(endless);
    fix_quit(&f);
}

/* 40 tables full of pages from @iova on: more than is told in one go */
static void map_many(Fix *f, uint64_t iova)
{
    uint64_t words[512];

    for (unsigned i = 0; i < 40; i++) {
        uint64_t table = qvtd_alloc(f->v, 1);

        /* Every page the same, lest they be compared as one */
        for (unsigned j = 0; j < 512; j++) {
            words[j] = cpu_to_le64(f->status | RW);
        }
        qtest_bufwrite(f->v->qts, table, words, sizeof(words));
        qtest_writeq(f->v->qts, qvtd_pte_addr(f->d, iova + i * MiB2, 2),
                     table | RW);
    }
}

/*
 * By register, a command may come while another one is being carried out:
 * neither is lost, whichever has the lower addresses.
 */
static void test_two_commands(const void *how)
{
    Fix f = fix_new(CACHING, how);

    for (unsigned i = 0; i < 2; i++) {
        uint64_t iova = i ? 16 * GiB1 : 4 * GiB1;
        uint64_t page = 12 * GiB1;

        map_many(&f, iova);
        qvtd_map(f.d, page, 0x8000000 + i * KiB4, RW);
        qvtd_writeq(f.v, QVTD_CCMD, QVTD_CCMD_ICC |
                    QVTD_CCMD_CIRG(QVTD_GRAN_GLOBAL));
        flush_iotlb(&f, QVTD_GRAN_PAGE, DID, page, 0);
        g_assert_false(qvtd_readq(f.v, QVTD_CCMD) & QVTD_CCMD_ICC);
        assert_follows(f.t[0], f.d);
    }
    fix_quit(&f);
}

/* Tables that cannot be read, or lead back to where they began */
static void test_broken(const void *how)
{
    Fix f = fix_new(CACHING, how);
    uint64_t addr = qvtd_pte_addr(f.d, 5 * GiB1, 3);

    change(&f, how, IOVA, 1, 0x8000000 | RW);
    qtest_writeq(f.v->qts, addr, 0xfed90000ULL | RW);   /* the unit itself */
    flush_iotlb(&f, QVTD_GRAN_GLOBAL, 0, 0, 0);
    qtest_writeq(f.v->qts, addr, 0);
    assert_follows(f.t[0], f.d);
    /* A reserved bit: what would fault is not mapped */
    qvtd_map(f.d, IOVA, 1ULL << 50 | RW, 0);
    flush_iotlb(&f, QVTD_GRAN_PAGE, DID, IOVA, 0);
    qvtd_map(f.d, IOVA, 0, 0);
    assert_follows(f.t[0], f.d);
    /* A context entry of a reserved kind */
    qvtd_write_context(f.v, SID, f.d->pgd | QVTD_CTX_P |
                       QVTD_CTX_TT(QVTD_TT_RESERVED), QVTD_CTX_DID(DID));
    flush_all(&f);
    assert_follows(f.t[0], NULL);
    fix_quit(&f);
}

/* Was all of the queue carried out, as the head and the status have it? */
static void assert_answered(Fix *f, bool all)
{
    g_assert_cmpint(qvtd_readq(f->v, QVTD_IQH) / 16 == f->v->iq_tail, ==, all);
    g_assert_cmpint(qtest_readl(f->v->qts, f->status) == f->stamp, ==, all);
}

static bool status(Fix *f, uint32_t bits)
{
    return (qvtd_readl(f->v, QVTD_GSTS) & bits) == bits;
}

/*
 * The machine's stream is loaded by another process, where it stays stopped
 * and nobody listens yet
 */
static void move(Fix *f)
{
    g_autofree char *dir = g_dir_make_tmp("vtd-notify-XXXXXX", NULL);
    g_autofree char *file = g_build_filename(dir, "stream", NULL);
    g_autofree char *uri = g_strdup_printf("file:%s", file);
    g_autofree char *args = g_strdup_printf(DEVICES " -S -incoming %s", uri);
    QVtd *w;

    qtest_qmp_assert_success(f->v->qts, "{ 'execute': 'migrate', 'arguments': "
                             "{ 'uri': %s } }", uri);
    wait_migration(f->v->qts);
    qtest_quit(f->v->qts);
    w = qvtd_start(CACHING, args);
    wait_migration(w->qts);
    f->v->qts = w->qts;
    g_free(w);
    g_assert_cmpint(unlink(file), ==, 0);
    g_assert_cmpint(rmdir(dir), ==, 0);
}

/* A domain of which one table is its own at each level */
static QVtdDomain *make_endless(Fix *f)
{
    QVtdDomain *endless = qvtd_domain_new(f->v, DID + 1, 4);
    uint64_t words[512];

    for (unsigned i = 0; i < 512; i++) {
        words[i] = cpu_to_le64(endless->pgd | RW);
    }
    qtest_bufwrite(f->v->qts, endless->pgd, words, sizeof(words));
    attach(f, endless, SID);
    return endless;
}

/*
 * A machine is stopped and migrated while a command takes long.  The command
 * is answered on the other side: here memory may have been sent already.
 */
static void test_migrate_behind(void)
{
    Fix f = fix_new(CACHING, "queue");
    QVtdDomain *endless = make_endless(&f);

    qvtd_iq_put(f.v, QVTD_DESC_CC | QVTD_DESC_GRAN(QVTD_GRAN_GLOBAL), 0);
    flush_begin(&f);
    qtest_qmp_assert_success(f.v->qts, "{ 'execute': 'stop' }");
    /* Its shadow is brought up to date meanwhile, but that is all */
    for (unsigned i = 0; i < 256; i++) {
        assert_answered(&f, false);
    }
    move(&f);
    assert_answered(&f, false);
    qtest_qmp_assert_success(f.v->qts, "{ 'execute': 'cont' }");
    g_assert_true(qvtd_iq_idle(f.v));
    g_assert_cmphex(qtest_readl(f.v->qts, f.status), ==, f.stamp);
    g_free(endless);
    fix_quit(&f);
}

/* Commands by register: the status of none is lost on the way */
static void test_migrate_late(void)
{
    Fix f = fix_new(CACHING, "register");
    QVtdDomain *endless;

    qvtd_gcmd_clear(f.v, QVTD_GCMD_TE);
    endless = make_endless(&f);
    qvtd_writel(f.v, QVTD_GCMD, f.v->gcmd | QVTD_GCMD_TE);
    qvtd_writeq(f.v, QVTD_CCMD, QVTD_CCMD_ICC |
                QVTD_CCMD_CIRG(QVTD_GRAN_GLOBAL));
    qvtd_writeq(f.v, f.v->iotlb + 8, QVTD_IOTLB_IVT |
                QVTD_IOTLB_IIRG(QVTD_GRAN_GLOBAL));
    qtest_qmp_assert_success(f.v->qts, "{ 'execute': 'stop' }");
    g_assert_false(status(&f, QVTD_GCMD_TE));
    move(&f);
    g_assert_true(status(&f, QVTD_GCMD_TE));
    g_assert_false(qvtd_readq(f.v, QVTD_CCMD) & QVTD_CCMD_ICC);
    g_assert_false(qvtd_readq(f.v, f.v->iotlb + 8) & QVTD_IOTLB_IVT);
    g_free(endless);
    fix_quit(&f);
}

/* What takes a moment only is finished before the machine stands still */
static void test_stop_behind(void)
{
    Fix f = fix_new(CACHING, "queue");

    for (unsigned i = 4; i < 8; i++) {
        map_many(&f, i * GiB1);
    }
    qvtd_iq_put(f.v, QVTD_DESC_IOTLB | QVTD_DESC_GRAN(QVTD_GRAN_GLOBAL), 0);
    flush_begin(&f);
    qtest_qmp_assert_success(f.v->qts, "{ 'execute': 'stop' }");
    assert_answered(&f, true);
    fix_quit(&f);
}

/*
 * 11.4.4.1: a status that is late does not come after software has changed
 * its mind, and one that it asked for again goes away until it is true.
 */
static void test_late_status(void)
{
    Fix f = fix_new(CACHING, "queue");

    qvtd_gcmd_clear(f.v, QVTD_GCMD_TE);
    for (unsigned i = 4; i < 7; i++) {
        map_many(&f, i * GiB1);
    }
    qvtd_writel(f.v, QVTD_GCMD, f.v->gcmd | QVTD_GCMD_TE);
    g_assert_false(status(&f, QVTD_GCMD_TE));
    qvtd_writel(f.v, QVTD_GCMD, f.v->gcmd);
    flush_wait(&f);
    g_assert_false(status(&f, QVTD_GCMD_TE));
    assert_passes(f.t[0]);

    qvtd_writel(f.v, QVTD_GCMD, f.v->gcmd | QVTD_GCMD_TE);
    g_assert_true(status(&f, QVTD_GCMD_SRTP));
    qvtd_writel(f.v, QVTD_GCMD, f.v->gcmd | QVTD_GCMD_TE | QVTD_GCMD_SRTP);
    g_assert_false(status(&f, QVTD_GCMD_SRTP));
    flush_wait(&f);
    g_assert_true(status(&f, QVTD_GCMD_TE | QVTD_GCMD_SRTP));
    assert_follows(f.t[0], f.d);
    fix_quit(&f);
}

/*
 * A reset while a command waits: its status never comes, and who listens for a
 * PASID, as nobody stops it, hears that nothing is mapped any more.
 */
static void test_reset_behind(void)
{
    Fix f = fix_new("caching-mode=on,x-scalable-mode=on,x-pasid-mode=on",
                    "queue");

    qvtd_sm_write_pasid(f.v, SID, 9, f.d->pgd | QVTD_SM_PE_P |
                        QVTD_SM_PE_PGTT(QVTD_PGTT_SECOND) | QVTD_SM_PE_AW(4),
                        f.d->id, 0);
    qvtd_map(f.d, IOVA, 0x5000000, RW);
    choose(f.t[0], 1);
    qtest_writel(f.v->qts, f.t[0]->bar + T_PASID, BIT(31) | 9);
    g_assert_cmphex(listen_all(f.t[0], T_SHADOW), ==, T_SHADOW);
    flush_all(&f);
    assert_same(walk(f.d), shadow(f.t[0]));

    qvtd_gcmd_clear(f.v, QVTD_GCMD_TE);
    assert_same(walk(NULL), shadow(f.t[0]));
    for (unsigned i = 4; i < 7; i++) {
        map_many(&f, i * GiB1);
    }
    qvtd_writel(f.v, QVTD_GCMD, f.v->gcmd | QVTD_GCMD_TE);
    g_assert_false(status(&f, QVTD_GCMD_TE));
    qvtd_system_reset(f.v);
    for (unsigned i = 0; i < 256; i++) {
        g_assert_cmphex(qvtd_readl(f.v, QVTD_GSTS), ==, 0);
    }
    g_free(f.t[0]);
    f.t[0] = qvtd_testdev(f.v, SID);
    choose(f.t[0], 0);
    assert_passes(f.t[0]);
    choose(f.t[0], 1);
    assert_same(walk(NULL), shadow(f.t[0]));
    fix_quit(&f);
}

/* However many commands one write gives: the machine answers meanwhile */
static void test_many_commands(void)
{
    Fix f = fix_new(CACHING, "queue");

    map_many(&f, 4 * GiB1);
    map_many(&f, 8 * GiB1);
    for (unsigned i = 0; i < 200; i++) {
        qvtd_iq_put(f.v, QVTD_DESC_IOTLB | QVTD_DESC_GRAN(QVTD_GRAN_GLOBAL),
                    0);
    }
    flush_wait(&f);
    g_assert_cmpuint(f.polls, >, 20);
    g_assert_cmpuint(get(f.t[0], T_MAPS), >=, 2 * 40 * 512);
    assert_follows(f.t[0], f.d);
    fix_quit(&f);
}

/* --- who caches what it asked for --- */

/* All of [@first, @last] but the interrupt addresses was heard, and no more */
static void assert_heard(QVtdTestdev *t, uint64_t first, uint64_t last)
{
    GArray *want = g_array_new(false, false, sizeof(Piece));

    if (first <= MIN(last, WINDOW - 1)) {
        pieces_push(want, (Piece) { first, MIN(last, WINDOW - 1), 0, 0 });
    }
    if (MAX(first, WINDOW_LAST + 1) <= last) {
        pieces_push(want, (Piece) { MAX(first, WINDOW_LAST + 1), last, 0, 0 });
    }
    assert_same(want, heard(t));
    g_assert_cmphex(get(t, T_ERRORS), ==, 0);
}

static void assert_silence(QVtdTestdev *t)
{
    assert_same(g_array_new(false, false, sizeof(Piece)), heard(t));
}

static void flush_device(Fix *f, uint16_t sid, uint64_t hi)
{
    qvtd_iq_put(f->v, QVTD_DESC_DEV_IOTLB | QVTD_DESC_DEV_SID(sid), hi);
    flush_wait(f);
}

/* 6.5.2.5: one page, or with S as many as the ones from bit 12 on tell */
static void test_device_tlb(const void *props)
{
    Fix f = fix_start(props, "queue");
    static const uint64_t bases[] = { 0, 0x123456789abcd000ULL };

    g_assert_cmphex(listen_all(f.t[0], T_DEVTLB), ==, T_DEVTLB);
    g_assert_cmphex(listen_all(f.t[1], T_DEVTLB), ==, T_DEVTLB);
    fix_setup(&f);
    flush_device(&f, SID, IOVA);
    assert_heard(f.t[0], IOVA, IOVA + KiB4 - 1);
    for (unsigned order = 1; order <= 52; order++) {
        uint64_t size = order < 52 ? KiB4 << order : 0;

        for (unsigned i = 0; i < ARRAY_SIZE(bases); i++) {
            uint64_t first = size ? bases[i] & -size : 0;
            uint64_t ones = size ? (size >> 1) - KiB4 : INT64_MAX & -KiB4;

            flush_device(&f, SID, first | ones | 1);
            assert_heard(f.t[0], first, first + size - 1);
            assert_silence(f.t[1]);
        }
    }
    /* Only the device itself is told, and only of what is meant for it */
    flush_device(&f, OTHER, IOVA);
    assert_silence(f.t[0]);
    assert_heard(f.t[1], IOVA, IOVA + KiB4 - 1);
    flush_device(&f, SID + 1, IOVA);
    flush_iotlb(&f, QVTD_GRAN_GLOBAL, 0, 0, 0);
    flush_iotlb(&f, QVTD_GRAN_PAGE, DID, IOVA, 0);
    flush_context(&f, QVTD_GRAN_GLOBAL, 0, 0);
    assert_silence(f.t[0]);
    assert_silence(f.t[1]);
    fix_quit(&f);
}

/* vhost without a device-TLB: it is told of every flush of its domain */
static void test_unmap_only(const void *how)
{
    Fix f = fix_start("", how);
    uint64_t last = MAKE_64BIT_MASK(0, 48);

    g_assert_cmphex(listen_all(f.t[0], T_UNMAP), ==, T_UNMAP);
    fix_setup(&f);
    qvtd_map(f.d, IOVA, 0x8000000, RW);
    heard(f.t[0]);
    flush_iotlb(&f, QVTD_GRAN_PAGE, DID, IOVA, 0);
    assert_heard(f.t[0], IOVA, IOVA + KiB4 - 1);
    flush_iotlb(&f, QVTD_GRAN_PAGE, DID, IOVA + 5 * KiB4, 4);
    assert_heard(f.t[0], IOVA, IOVA + 16 * KiB4 - 1);
    flush_iotlb(&f, QVTD_GRAN_DOMAIN, DID, 0, 0);
    assert_heard(f.t[0], 0, last);
    flush_iotlb(&f, QVTD_GRAN_GLOBAL, 0, 0, 0);
    assert_heard(f.t[0], 0, last);
    flush_iotlb(&f, QVTD_GRAN_PAGE, DID + 1, IOVA, 0);
    flush_iotlb(&f, QVTD_GRAN_DOMAIN, DID + 1, 0, 0);
    assert_silence(f.t[0]);
    flush_context(&f, QVTD_GRAN_DEVICE, DID, SID);
    assert_heard(f.t[0], 0, last);
    flush_context(&f, QVTD_GRAN_DEVICE, DID, OTHER);
    assert_silence(f.t[0]);
    g_assert_cmpuint(get(f.t[0], T_MAPS), ==, 0);
    fix_quit(&f);
}

/* --- who is refused --- */

typedef struct Refusal {
    const char *props;
    uint32_t flags;
    const char *words;
} Refusal;

static const Refusal refusals[] = {
    { "", T_SHADOW, "device 00.04.0 requires caching mode" },
    { "device-iotlb=on", T_SHADOW, "device 00.04.0 requires caching mode" },
    { "caching-mode=on", T_DEVTLB,
      "device 00.04.0 requires device IOTLB mode" },
    { "", T_DEVTLB, "device 00.04.0 requires device IOTLB mode" },
    { CACHING ",snoop-control=on", T_SHADOW,
      "Snoop Control with vhost or VFIO is not supported" },
    { "snoop-control=on", T_UNMAP,
      "Snoop Control with vhost or VFIO is not supported" },
};

/* What the unit cannot do for one is said, and the machine goes on */
static void test_refused(const void *opaque)
{
    const Refusal *r = opaque;
    Fix f = fix_start(r->props, "queue");
    char words[100];

    listen_all(f.t[0], r->flags);
    fix_setup(&f);
    flush_all(&f);
    g_assert_cmphex(get(f.t[0], T_FLAGS), ==, r->flags | T_REFUSED);
    g_assert_cmphex(get(f.t[0], T_REGIONS), ==, 0);
    qtest_memread(f.v->qts, f.t[0]->bar + T_BUFFER, words, sizeof(words));
    words[sizeof(words) - 1] = 0;
    g_assert_true(g_str_has_prefix(words, r->words));
    fix_quit(&f);
}

/* --- */

static void add(const char *name, void (*func)(const void *))
{
    static const char *const ways[] = { "queue", "register" };

    for (unsigned i = 0; i < ARRAY_SIZE(ways); i++) {
        g_autofree char *path = g_strdup_printf("/vtd/notify/%s/%s", name,
                                                ways[i]);

        qtest_add_data_func(path, ways[i], func);
    }
}

static void add_granularities(const char *name, void (*func)(const void *))
{
    static const char *const ways[] = {
        "queue/global", "queue/domain", "queue/page",
        "register/global", "register/domain", "register/page",
    };

    for (unsigned i = 0; i < ARRAY_SIZE(ways); i++) {
        g_autofree char *path = g_strdup_printf("/vtd/notify/%s/%s", name,
                                                ways[i]);

        qtest_add_data_func(path, ways[i], func);
    }
}

static void add_refusals(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(refusals); i++) {
        g_autofree char *path = g_strdup_printf("/vtd/notify/refused/%u", i);

        qtest_add_data_func(path, &refusals[i], test_refused);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add_granularities("pages", test_pages);
    add_granularities("split", test_split);
    add("range", test_range);
    add("partial", test_partial);
    add("window", test_window);
    add("context", test_context);
    add("pass-through", test_pass_through);
    add("root", test_root);
    add("enable", test_enable);
    add("reset", test_reset);
    add("two-devices", test_two_devices);
    add("replay", test_replay);
    add("sub-range", test_sub_range);
    qtest_add_func("/vtd/notify/hotplug", test_hotplug);
    qtest_add_data_func("/vtd/notify/migrate", "queue", test_migrate);
    qtest_add_data_func("/vtd/notify/loadvm", "queue", test_loadvm);
    add("random", test_random);
    qtest_add_data_func("/vtd/notify/scalable", "queue", test_scalable);
    qtest_add_func("/vtd/notify/first-stage", test_first_stage);
    qtest_add_data_func("/vtd/notify/pasid", "queue", test_pasid);
    qtest_add_data_func("/vtd/notify/hostile", "queue", test_hostile);
    qtest_add_data_func("/vtd/notify/two-commands", "register",
                        test_two_commands);
    add("broken", test_broken);
    qtest_add_func("/vtd/notify/migrate-behind", test_migrate_behind);
    qtest_add_func("/vtd/notify/migrate-late", test_migrate_late);
    qtest_add_func("/vtd/notify/stop-behind", test_stop_behind);
    qtest_add_func("/vtd/notify/late-status", test_late_status);
    qtest_add_func("/vtd/notify/reset-behind", test_reset_behind);
    qtest_add_func("/vtd/notify/many-commands", test_many_commands);
    qtest_add_data_func("/vtd/notify/device-tlb/caching", CACHING,
                        test_device_tlb);
    qtest_add_data_func("/vtd/notify/device-tlb/alone", "device-iotlb=on",
                        test_device_tlb);
    add("unmap-only", test_unmap_only);
    add_refusals();
    return g_test_run();
}
