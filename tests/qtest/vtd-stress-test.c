/*
 * VT-d: DMA from iothreads while the unit is reprogrammed
 *
 * Two virtio disks, each in an iothread of its own, move sectors between a
 * file and pages that the guest maps.  Guest memory is shared with the test,
 * which therefore drives rings and tables at the speed of a CPU.
 *
 * A round: requests are sent ("early"), and while they are under way the
 * pages behind their addresses change, by one of the ways in moves[].  As
 * soon as the unit has answered, more are sent ("late").  When all have
 * completed, every byte is looked at:
 *
 *   - an early segment went to the old or to the new page, and nowhere else;
 *   - a late one went to the new page: nothing that was invalidated is used;
 *   - all the rest of the pages is as it was.
 *
 * A third disk is sent to addresses that are not mapped.  Its faults are read
 * and cleared meanwhile; there is one, and none that is not its own.
 *
 * VTD_STRESS_SECONDS in the environment replaces the time of each test, and
 * VTD_STRESS_SEED the seed, which is reported.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/processor.h"
#include "hw/pci/pci_regs.h"
#include "libqtest.h"
#include "libqos/intel-iommu.h"
#include "standard-headers/linux/virtio_blk.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_pci.h"
#include "standard-headers/linux/virtio_ring.h"

#define SECONDS         3
#define PATIENCE        (120 * G_USEC_PER_SEC)

#define DISKS           2                   /* that are checked */
#define VICTIM          DISKS               /* ... and that which faults */
#define BAR(n)          (0xe8000000u + (n) * 0x100000)

/*
 * Data: PAGES pages of input addresses.  Behind each are pages of one of
 * three sets; set 0 has the pages of the same address, which is what a device
 * reaches with translation off.
 */
#define SETS            3
#define PAGES           32
#define SECTOR          512

/* What the first sectors of each page are for */
typedef enum Slot {
    READ_EARLY, READ_LATE, WRITE_EARLY, WRITE_LATE, SLOTS,
} Slot;

/* A request takes one slot of CHUNK pages, a segment for each */
#define CHUNK           32
#define CHUNKS          (PAGES / CHUNK)
#define CHAIN           (CHUNK + 2)
#define REQUESTS        (SLOTS * CHUNKS)
#define QUEUE           1024

/* Then there are requests that meet the same few pages over and over */
#define HAMMER          SLOTS               /* their slot */
#define HAMMERS         14
#define HOT             4

/* How often a page goes to and fro, at most */
#define RACES           100

#define VICTIM_SEGMENTS 4
#define SENTINEL        0xa5

typedef struct Disk {
    uint16_t sid;
    unsigned index;
    int fd;
    uint64_t common;            /* configuration structures in the BAR */
    uint64_t notify;
    uint64_t desc;              /* ring, same input as guest address */
    uint64_t avail;
    uint64_t used;
    uint64_t header;
    uint64_t status;
    uint16_t sent;
    uint64_t data[SETS];
    QVtdDomain *domain[2];      /* two trees of tables */
    uint64_t pte[2];            /* of the first page of data in each */
    unsigned tree;              /* which one is in use */
    unsigned set;               /* where it leads to */
    bool pass_through;
    unsigned before, after;     /* sets in use, this round */
} Disk;

typedef struct Stress {
    QVtd *v;
    uint8_t *mem;
    char *dir;
    Disk disk[DISKS + 1];
    GRand *rand;
    uint64_t root[2];
    uint64_t context[2];
    unsigned in_use;            /* which root table */
    bool off;
    bool ats;
    uint64_t answer;            /* where wait descriptors write to */
    uint32_t answers;
    unsigned faults;            /* this round */
    unsigned between;           /* bit of a set that was in use for a while */
    unsigned rounds;
    unsigned moves;
    unsigned early[2];          /* segments to the old, to the new page */
    uint8_t blank[QVTD_PAGE];
} Stress;

static unsigned below(Stress *s, unsigned n)
{
    return g_rand_int_range(s->rand, 0, n);
}

static uint64_t *word(Stress *s, uint64_t addr)
{
    return (uint64_t *)(s->mem + addr);
}

static void set_word(Stress *s, uint64_t addr, uint64_t val)
{
    qatomic_set(word(s, addr), cpu_to_le64(val));
}

/* Hit the device at other moments of its work each time */
static void dawdle(Stress *s)
{
    int64_t end = g_get_monotonic_time() + below(s, 200);

    while (below(s, 4) && g_get_monotonic_time() < end) {
        cpu_relax();
    }
}

/* --- what sectors hold --- */

static void make_sector(uint8_t *buf, uint64_t seed)
{
    for (unsigned i = 0; i < SECTOR / 8; i++) {
        stq_le_p(buf + i * 8, seed * 0x9e3779b97f4a7c15ULL + i);
    }
}

static uint64_t disk_seed(const Disk *d, unsigned page, Slot slot)
{
    return 1 + d->index + 16 * (slot * PAGES + page);
}

/* Memory that is written to the disk differs by set and by round */
static uint64_t memory_seed(Stress *s, const Disk *d, unsigned set,
                            unsigned page, Slot slot)
{
    return disk_seed(d, page, slot) + 4 * (set + 1) +
           ((uint64_t)s->rounds << 32);
}

static uint64_t disk_offset(unsigned page, Slot slot)
{
    return (slot * PAGES + page) * SECTOR;
}

static uint8_t *memory_sector(Stress *s, const Disk *d, unsigned set,
                              unsigned page, Slot slot)
{
    return s->mem + d->data[set] + page * QVTD_PAGE + slot * SECTOR;
}

static bool is_write(Slot slot)
{
    return slot == WRITE_EARLY || slot == WRITE_LATE;
}

static bool is_late(Slot slot)
{
    return slot == READ_LATE || slot == WRITE_LATE;
}

static void prepare(Stress *s, Disk *d)
{
    for (unsigned set = 0; set < SETS; set++) {
        memset(s->mem + d->data[set], SENTINEL, PAGES * QVTD_PAGE);
        for (unsigned page = 0; page < PAGES; page++) {
            for (Slot slot = WRITE_EARLY; slot <= WRITE_LATE; slot++) {
                make_sector(memory_sector(s, d, set, page, slot),
                            memory_seed(s, d, set, page, slot));
            }
        }
    }
    memset(s->mem + d->status, 0xff, REQUESTS + HAMMERS);
}

/* Does @page of @set hold what was read into it? */
static bool was_read_into(Stress *s, Disk *d, unsigned set, unsigned page,
                          Slot slot)
{
    const uint8_t *have = memory_sector(s, d, set, page, slot);
    uint8_t want[SECTOR];

    make_sector(want, disk_seed(d, page, slot));
    if (!memcmp(have, want, SECTOR)) {
        return true;
    }
    /* All of it or nothing */
    g_assert_cmpint(memcmp(have, s->blank, SECTOR), ==, 0);
    return false;
}

static bool was_written_from(Stress *s, Disk *d, unsigned set, unsigned page,
                             Slot slot)
{
    uint8_t have[SECTOR], want[SECTOR];

    make_sector(want, memory_seed(s, d, set, page, slot));
    g_assert_cmpint(memcmp(memory_sector(s, d, set, page, slot), want,
                           SECTOR), ==, 0);
    g_assert_cmpint(pread(d->fd, have, SECTOR, disk_offset(page, slot)), ==,
                    SECTOR);
    return !memcmp(have, want, SECTOR);
}

static void check_segment(Stress *s, Disk *d, unsigned page, Slot slot)
{
    unsigned seen = 0;

    for (unsigned set = 0; set < SETS; set++) {
        if (is_write(slot) ? was_written_from(s, d, set, page, slot)
                           : was_read_into(s, d, set, page, slot)) {
            seen |= 1 << set;
        }
    }
    if (seen != 1 << d->after &&
        (is_late(slot) || (seen != 1 << d->before && seen != s->between))) {
        g_error("round %u (move %u), disk %u, page %u, slot %u: sets 0x%x, "
                "not 0x%x or, before the answer, 0x%x", s->rounds,
                s->rounds % s->moves, d->index, page, slot, seen,
                1 << d->after, 1 << d->before | s->between);
    }
    if (!is_late(slot)) {
        s->early[seen == 1 << d->after]++;
    }
}

/* Hammered pages were hit many times, at both places */
static void check_rest(Stress *s, Disk *d, unsigned page, unsigned set)
{
    if (page >= HOT || (set != d->before && set != d->after &&
                        !(s->between & 1 << set))) {
        g_assert_cmpint(memcmp(memory_sector(s, d, set, page, HAMMER),
                               s->blank, SECTOR), ==, 0);
    } else {
        was_read_into(s, d, set, page, HAMMER);
    }
    g_assert_cmpint(memcmp(memory_sector(s, d, set, page, HAMMER + 1),
                           s->blank, QVTD_PAGE - (SLOTS + 1) * SECTOR),
                    ==, 0);
}

static void check(Stress *s, Disk *d)
{
    for (unsigned page = 0; page < PAGES; page++) {
        for (Slot slot = 0; slot < SLOTS; slot++) {
            check_segment(s, d, page, slot);
        }
        for (unsigned set = 0; set < SETS; set++) {
            check_rest(s, d, page, set);
        }
    }
}

/* --- the disks --- */

/* Address of a structure of the modern interface (virtio 1.2, 4.1.4) */
static uint64_t find_structure(Stress *s, Disk *d, uint8_t type)
{
    QVtd *v = s->v;
    uint8_t at = qvtd_cfg_readl(v, d->sid, PCI_CAPABILITY_LIST);

    while (at) {
        uint32_t head = qvtd_cfg_readl(v, d->sid, at);

        if ((head & 0xff) == PCI_CAP_ID_VNDR && head >> 24 == type) {
            g_assert_cmphex(qvtd_cfg_readl(v, d->sid, at + 4) & 0xff, ==, 4);
            return BAR(d->index) + qvtd_cfg_readl(v, d->sid, at + 8);
        }
        at = head >> 8;
    }
    g_assert_not_reached();
}

static void put_desc(Stress *s, Disk *d, unsigned i, uint64_t addr,
                     uint32_t len, uint16_t flags)
{
    struct vring_desc *desc = (void *)(s->mem + d->desc);

    desc[i] = (struct vring_desc) {
        .addr = cpu_to_le64(addr), .len = cpu_to_le32(len),
        .flags = cpu_to_le16(flags), .next = cpu_to_le16(i + 1),
    };
}

/* Request @r: @n segments at @iova and the pages after it, @pages in turn */
static void put_request(Stress *s, Disk *d, unsigned r, bool write,
                        uint64_t sector, uint64_t iova, unsigned n,
                        unsigned pages)
{
    struct virtio_blk_outhdr *head = (void *)(s->mem + d->header);
    uint16_t flags = VRING_DESC_F_NEXT | (write ? 0 : VRING_DESC_F_WRITE);
    unsigned i = r * CHAIN;

    head[r] = (struct virtio_blk_outhdr) {
        .type = cpu_to_le32(write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN),
        .sector = cpu_to_le64(sector),
    };
    put_desc(s, d, i++, d->header + r * sizeof(*head), sizeof(*head),
             VRING_DESC_F_NEXT);
    for (unsigned k = 0; k < n; k++) {
        put_desc(s, d, i++, iova + k % pages * QVTD_PAGE, SECTOR, flags);
    }
    put_desc(s, d, i, d->status + r, 1, VRING_DESC_F_WRITE);
}

/* The requests are the same in each round: they are written once */
static void put_requests(Stress *s, Disk *d)
{
    if (d->index == VICTIM) {
        put_request(s, d, 0, false, 0, QVTD_HOLE, VICTIM_SEGMENTS,
                    VICTIM_SEGMENTS);
        return;
    }
    for (Slot slot = 0; slot < SLOTS; slot++) {
        for (unsigned c = 0; c < CHUNKS; c++) {
            put_request(s, d, slot * CHUNKS + c, is_write(slot),
                        slot * PAGES + c * CHUNK,
                        d->data[0] + c * CHUNK * QVTD_PAGE + slot * SECTOR,
                        CHUNK, CHUNK);
        }
    }
    for (unsigned h = 0; h < HAMMERS; h++) {
        put_request(s, d, REQUESTS + h, false, SLOTS * PAGES,
                    d->data[0] + HAMMER * SECTOR, CHUNK, HOT);
    }
}

static void start_disk(Stress *s, Disk *d)
{
    QTestState *qts = s->v->qts;
    uint64_t c = d->common;
    uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

    qtest_writeb(qts, c + VIRTIO_PCI_COMMON_STATUS, 0);
    qtest_writeb(qts, c + VIRTIO_PCI_COMMON_STATUS, status);
    qtest_writel(qts, c + VIRTIO_PCI_COMMON_GFSELECT, 1);
    qtest_writel(qts, c + VIRTIO_PCI_COMMON_GF,
                 1 << (VIRTIO_F_VERSION_1 - 32) |
                 1 << (VIRTIO_F_ACCESS_PLATFORM - 32));
    status |= VIRTIO_CONFIG_S_FEATURES_OK;
    qtest_writeb(qts, c + VIRTIO_PCI_COMMON_STATUS, status);
    g_assert_cmphex(qtest_readb(qts, c + VIRTIO_PCI_COMMON_STATUS), ==,
                    status);
    qtest_writew(qts, c + VIRTIO_PCI_COMMON_Q_SELECT, 0);
    g_assert_cmpuint(qtest_readw(qts, c + VIRTIO_PCI_COMMON_Q_SIZE), ==,
                     QUEUE);
    qtest_writel(qts, c + VIRTIO_PCI_COMMON_Q_DESCLO, d->desc);
    qtest_writel(qts, c + VIRTIO_PCI_COMMON_Q_AVAILLO, d->avail);
    qtest_writel(qts, c + VIRTIO_PCI_COMMON_Q_USEDLO, d->used);
    qtest_writew(qts, c + VIRTIO_PCI_COMMON_Q_ENABLE, 1);
    qtest_writeb(qts, c + VIRTIO_PCI_COMMON_STATUS,
                 status | VIRTIO_CONFIG_S_DRIVER_OK);
}

static void find_disk(Stress *s, Disk *d)
{
    QVtd *v = s->v;

    qvtd_cfg_writel(v, d->sid, PCI_BASE_ADDRESS_4, BAR(d->index));
    qvtd_cfg_writel(v, d->sid, PCI_BASE_ADDRESS_5, 0);
    qvtd_cfg_writew(v, d->sid, PCI_COMMAND,
                    PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    d->common = find_structure(s, d, VIRTIO_PCI_CAP_COMMON_CFG);
    d->notify = find_structure(s, d, VIRTIO_PCI_CAP_NOTIFY_CFG);
}

/* Requests @first and @count - 1 after it */
static void submit(Stress *s, Disk *d, unsigned first, unsigned count)
{
    struct vring_avail *avail = (void *)(s->mem + d->avail);

    for (unsigned r = first; r < first + count; r++) {
        avail->ring[d->sent++ % QUEUE] = cpu_to_le16(r * CHAIN);
    }
    qatomic_store_release(&avail->idx, cpu_to_le16(d->sent));
}

static void kick(Stress *s, Disk *d)
{
    qtest_writew(s->v->qts, d->notify, 0);
}

static bool completed(Stress *s, Disk *d)
{
    struct vring_used *used = (void *)(s->mem + d->used);

    return le16_to_cpu(qatomic_load_acquire(&used->idx)) == d->sent;
}

/* --- the unit --- */

/* Memory that is mapped wherever the disk's data may be */
static uint64_t alloc_plain(Stress *s, Disk *d, unsigned pages)
{
    uint64_t addr = qvtd_alloc(s->v, pages);

    for (unsigned i = 0; i < pages; i++) {
        for (unsigned tree = 0; tree < 2; tree++) {
            qvtd_map(d->domain[tree], addr + i * QVTD_PAGE,
                     addr + i * QVTD_PAGE, QVTD_PTE_RW);
        }
    }
    return addr;
}

/* All pages of @tree are in one table, the addresses being aligned */
static void point_tree(Stress *s, Disk *d, unsigned tree, unsigned first,
                       unsigned set)
{
    for (unsigned i = first; i < PAGES; i++) {
        set_word(s, d->pte[tree] + i * 8,
                 (d->data[set] + i * QVTD_PAGE) | QVTD_PTE_RW);
    }
}

static void alloc_disk(Stress *s, Disk *d)
{
    QVtd *v = s->v;

    for (unsigned tree = 0; tree < 2; tree++) {
        d->domain[tree] = qvtd_domain_new(v, 0, 3);
    }
    d->desc = alloc_plain(s, d, QUEUE * sizeof(struct vring_desc) / QVTD_PAGE);
    d->avail = alloc_plain(s, d, 1);
    d->used = alloc_plain(s, d, 3);
    d->header = alloc_plain(s, d, 1);
    d->status = alloc_plain(s, d, 1);
    set_word(s, d->avail, VRING_AVAIL_F_NO_INTERRUPT);
    if (d->index == VICTIM) {
        return;
    }
    v->heap = ROUND_UP(v->heap, PAGES * QVTD_PAGE);
    for (unsigned set = 0; set < SETS; set++) {
        d->data[set] = qvtd_alloc(v, PAGES);
    }
    for (unsigned tree = 0; tree < 2; tree++) {
        d->pte[tree] = qvtd_pte_addr(d->domain[tree], d->data[0], 1);
        point_tree(s, d, tree, 0, d->set);
    }
}

/* One for each disk and root table */
static uint16_t domain_id(Stress *s, Disk *d, unsigned root)
{
    return 1 + d->index + 16 * root;
}

/*
 * The half that names the tables is written at once; the other is the same
 * for all that an entry ever says.
 */
static uint64_t context_low(Disk *d, unsigned tree)
{
    return d->domain[tree]->pgd | QVTD_CTX_P |
           QVTD_CTX_TT(d->pass_through ? QVTD_TT_PASS_THROUGH
                                       : QVTD_TT_UNTRANSLATED);
}

static void put_context(Stress *s, Disk *d, unsigned root)
{
    uint64_t entry = s->context[root] + d->sid * 16;

    set_word(s, entry + 8, QVTD_CTX_DID(domain_id(s, d, root)) |
             QVTD_CTX_AW(3));
    set_word(s, entry, context_low(d, d->tree));
}

static void put_contexts(Stress *s, unsigned root)
{
    for (unsigned i = 0; i <= VICTIM; i++) {
        put_context(s, &s->disk[i], root);
    }
}

static void queue_put(Stress *s, uint64_t lo, uint64_t hi)
{
    QVtd *v = s->v;

    set_word(s, v->iq + v->iq_tail * 16, lo);
    set_word(s, v->iq + v->iq_tail * 16 + 8, hi);
    v->iq_tail = (v->iq_tail + 1) % v->iq_slots;
}

/*
 * The unit itself changes a table, so that nothing but the shortest time is
 * between that and the invalidation that comes next.
 */
static void queue_write(Stress *s, uint64_t addr, uint32_t val)
{
    queue_put(s, QVTD_DESC_WAIT | QVTD_DESC_WAIT_SW | QVTD_DESC_WAIT_DATA(val),
              addr);
}

/* The answer to a wait descriptor is what everything hangs on */
static void queue_finish(Stress *s)
{
    int64_t end = g_get_monotonic_time() + PATIENCE;

    queue_put(s, QVTD_DESC_WAIT | QVTD_DESC_WAIT_SW |
              QVTD_DESC_WAIT_DATA(++s->answers), s->answer);
    qvtd_iq_kick(s->v);
    while (le64_to_cpu(qatomic_load_acquire(word(s, s->answer))) !=
           s->answers) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        cpu_relax();
    }
}

static bool queued(Stress *s)
{
    return s->v->gcmd & QVTD_GCMD_QIE;
}

static void flush_iotlb(Stress *s, unsigned gran, uint16_t did, uint64_t iva)
{
    if (queued(s)) {
        queue_put(s, QVTD_DESC_IOTLB | QVTD_DESC_GRAN(gran) |
                  QVTD_DESC_DID(did) | QVTD_DESC_IOTLB_DR |
                  QVTD_DESC_IOTLB_DW, iva);
    } else {
        uint64_t done = qvtd_iotlb(s->v, QVTD_IOTLB_IIRG(gran) |
                                   QVTD_IOTLB_DID(did) | QVTD_IOTLB_DR |
                                   QVTD_IOTLB_DW, iva);

        g_assert_cmpuint(QVTD_IOTLB_IAIG(done), ==, gran);
    }
}

static void flush_context(Stress *s, unsigned gran, Disk *d)
{
    uint16_t did = domain_id(s, d, s->in_use);

    if (queued(s)) {
        queue_put(s, QVTD_DESC_CC | QVTD_DESC_GRAN(gran) |
                  QVTD_DESC_DID(did) | QVTD_DESC_CC_SID(d->sid), 0);
    } else {
        uint64_t done = qvtd_ccmd(s->v, QVTD_CCMD_CIRG(gran) |
                                  QVTD_CCMD_DID(did) | QVTD_CCMD_SID(d->sid));

        g_assert_cmpuint(QVTD_CCMD_CAIG(done), ==, gran);
    }
}

/* After the IOTLB, section 6.5.2.5: all addresses, by S and its run of ones */
static void flush_device_tlb(Stress *s, Disk *d)
{
    if (s->ats) {
        queue_put(s, QVTD_DESC_DEV_IOTLB | QVTD_DESC_DEV_SID(d->sid),
                  (INT64_MAX & ~(QVTD_PAGE - 1)) | 1);
    }
}

static void flush_finish(Stress *s)
{
    if (queued(s)) {
        queue_finish(s);
    }
}

static void flush_data(Stress *s, Disk *d)
{
    uint16_t did = domain_id(s, d, s->in_use);
    /* Each page, masks, one beyond what is carried out page by page */
    static const unsigned ams[] = { 0, 3, 5, 6, 7 };
    unsigned kind = below(s, ARRAY_SIZE(ams) + 2);

    if (kind < ARRAY_SIZE(ams)) {
        uint64_t size = QVTD_PAGE << ams[kind];

        for (uint64_t at = 0; at < PAGES * QVTD_PAGE; at += size) {
            flush_iotlb(s, QVTD_GRAN_PAGE, did,
                        (d->data[0] + at) | QVTD_IVA_AM(ams[kind]));
        }
    } else {
        flush_iotlb(s, kind == ARRAY_SIZE(ams) ? QVTD_GRAN_DOMAIN
                                               : QVTD_GRAN_GLOBAL, did, 0);
    }
    flush_device_tlb(s, d);
}

/* --- the ways in which what is behind an address changes --- */

static unsigned other_set(Stress *s, Disk *d)
{
    return (d->set + 1 + below(s, SETS - 1)) % SETS;
}

static void move_pages(Stress *s)
{
    for (unsigned i = 0; i < DISKS; i++) {
        Disk *d = &s->disk[i];

        d->set = other_set(s, d);
        point_tree(s, d, d->tree, 0, d->set);
        dawdle(s);
        flush_data(s, d);
    }
    flush_finish(s);
}

static void move_context_of(Stress *s, Disk *d)
{
    unsigned gran = 1 + below(s, 3);

    put_context(s, d, s->in_use);
    dawdle(s);
    flush_context(s, gran, d);
    flush_iotlb(s, QVTD_GRAN_DOMAIN, domain_id(s, d, s->in_use), 0);
    flush_device_tlb(s, d);
}

/* Tables that are not in use, nor cached */
static void change_tree(Stress *s, Disk *d)
{
    d->tree = !d->tree;
    d->set = other_set(s, d);
    point_tree(s, d, d->tree, 0, d->set);
}

static void move_context(Stress *s)
{
    for (unsigned i = 0; i < DISKS; i++) {
        change_tree(s, &s->disk[i]);
        move_context_of(s, &s->disk[i]);
    }
    flush_finish(s);
}

static void move_pass_through(Stress *s)
{
    for (unsigned i = 0; i < DISKS; i++) {
        if (below(s, 4)) {
            s->disk[i].pass_through = !s->disk[i].pass_through;
            move_context_of(s, &s->disk[i]);
        }
    }
    flush_finish(s);
}

static void move_root(Stress *s)
{
    for (unsigned i = 0; i < DISKS; i++) {
        change_tree(s, &s->disk[i]);
    }
    put_contexts(s, !s->in_use);
    s->in_use = !s->in_use;
    qvtd_writeq(s->v, QVTD_RTADDR, s->root[s->in_use]);
    qvtd_gcmd_set(s->v, QVTD_GCMD_SRTP);
    flush_context(s, QVTD_GRAN_GLOBAL, &s->disk[0]);
    flush_iotlb(s, QVTD_GRAN_GLOBAL, 0, 0);
    flush_finish(s);
}

static void move_enable(Stress *s)
{
    if (s->off) {
        qvtd_gcmd_set(s->v, QVTD_GCMD_TE);
    } else {
        qvtd_gcmd_clear(s->v, QVTD_GCMD_TE);
    }
    s->off = !s->off;
}

/* For a while, data goes to the pages of the same address */
static void move_restart(Stress *s)
{
    qvtd_gcmd_clear(s->v, QVTD_GCMD_TE);
    dawdle(s);
    qvtd_gcmd_set(s->v, QVTD_GCMD_TE);
    s->off = false;
    s->between = 1 << 0;
}

/* Odd, so that the last change leads to the new place */
static unsigned some_races(Stress *s)
{
    return below(s, RACES / 2) * 2 + 1;
}

/* The hot pages go to and fro; the others are moved before */
static void race_pages(Stress *s)
{
    static const unsigned grans[] = {
        QVTD_GRAN_PAGE, QVTD_GRAN_PAGE, QVTD_GRAN_DOMAIN, QVTD_GRAN_GLOBAL,
    };
    unsigned gran = grans[below(s, ARRAY_SIZE(grans))];
    unsigned races = some_races(s), set[DISKS][2];

    for (unsigned i = 0; i < DISKS; i++) {
        Disk *d = &s->disk[i];

        set[i][1] = d->set;
        set[i][0] = d->set = other_set(s, d);
        point_tree(s, d, d->tree, HOT, d->set);
        flush_iotlb(s, QVTD_GRAN_DOMAIN, domain_id(s, d, s->in_use), 0);
    }
    for (unsigned n = 0; n < races * DISKS * HOT; n++) {
        unsigned page = n % HOT, i = n / HOT % DISKS;
        Disk *d = &s->disk[i];
        uint64_t offset = page * QVTD_PAGE;

        queue_write(s, d->pte[d->tree] + page * 8, QVTD_PTE_RW |
                    (d->data[set[i][n / HOT / DISKS % 2]] + offset));
        flush_iotlb(s, gran, domain_id(s, d, s->in_use),
                    gran == QVTD_GRAN_PAGE ? d->data[0] + offset : 0);
    }
    flush_finish(s);
}

static void race_context(Stress *s)
{
    unsigned gran = 1 + below(s, 3), races = some_races(s);

    for (unsigned i = 0; i < DISKS; i++) {
        change_tree(s, &s->disk[i]);
    }
    for (unsigned n = 0; n < races * DISKS; n++) {
        Disk *d = &s->disk[n % DISKS];
        unsigned tree = n / DISKS % 2 ? !d->tree : d->tree;

        queue_write(s, s->context[s->in_use] + d->sid * 16,
                    context_low(d, tree));
        flush_context(s, gran, d);
        flush_iotlb(s, QVTD_GRAN_DOMAIN, domain_id(s, d, s->in_use), 0);
    }
    flush_finish(s);
}

typedef struct Move {
    void (*change)(Stress *s);
    bool queue;                 /* only with the queue */
} Move;

static const Move moves[] = {
    { race_pages, true }, { move_context }, { race_context, true },
    { move_root }, { race_pages, true }, { move_pass_through },
    { move_pages }, { race_context, true }, { race_pages, true },
    { move_pass_through }, { race_pages, true }, { move_enable },
    { move_pages }, { move_enable }, { move_pages }, { move_restart },
    { race_context, true }, { race_pages, true }, { move_pages },
};

/* --- rounds --- */

/* The only faults are the victim's, and they say what it did */
static void take_faults(Stress *s)
{
    QVtd *v = s->v;
    uint32_t fsts = qvtd_readl(v, QVTD_FSTS);

    if (fsts & QVTD_FSTS_PPF) {
        QVtdFault f = qvtd_fault(v, QVTD_FSTS_FRI(fsts));

        g_assert_true(f.f);
        g_assert_cmphex(f.sid, ==, s->disk[VICTIM].sid);
        g_assert_cmphex(f.reason, ==, QVTD_FR_WRITE);
        g_assert_false(f.read);
        g_assert_cmphex(f.info - QVTD_HOLE, <, VICTIM_SEGMENTS * QVTD_PAGE);
        s->faults++;
        qvtd_clear_faults(v);
    }
    g_assert_false(fsts & (QVTD_FSTS_PFO | QVTD_FSTS_IQE));
}

static bool all_completed(Stress *s)
{
    for (unsigned i = 0; i <= VICTIM; i++) {
        if (!completed(s, &s->disk[i])) {
            return false;
        }
    }
    return true;
}

static void wait_completed(Stress *s)
{
    int64_t end = g_get_monotonic_time() + PATIENCE;

    do {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        take_faults(s);
    } while (!all_completed(s));
    take_faults(s);
    for (unsigned i = 0; i < DISKS; i++) {
        for (unsigned r = 0; r < REQUESTS + HAMMERS; r++) {
            g_assert_cmphex(s->mem[s->disk[i].status + r], ==,
                            VIRTIO_BLK_S_OK);
        }
    }
}

static unsigned set_in_use(Stress *s, Disk *d)
{
    return s->off || d->pass_through ? 0 : d->set;
}

static void send_slots(Stress *s, Slot read, Slot write)
{
    for (unsigned i = 0; i < DISKS; i++) {
        submit(s, &s->disk[i], read * CHUNKS, CHUNKS);
        submit(s, &s->disk[i], write * CHUNKS, CHUNKS);
        kick(s, &s->disk[i]);
    }
}

static void do_round(Stress *s, void (*change)(Stress *s))
{
    bool translated = !s->off;

    for (unsigned i = 0; i < DISKS; i++) {
        prepare(s, &s->disk[i]);
        s->disk[i].before = set_in_use(s, &s->disk[i]);
    }
    /* What has to be looked up in the tables takes longer, and is a chance */
    if (below(s, 4)) {
        flush_iotlb(s, QVTD_GRAN_GLOBAL, 0, 0);
        flush_finish(s);
    }
    s->faults = 0;
    s->between = 0;
    submit(s, &s->disk[VICTIM], 0, 1);
    kick(s, &s->disk[VICTIM]);
    for (unsigned i = 0; i < DISKS; i++) {
        submit(s, &s->disk[i], REQUESTS, HAMMERS);
    }
    send_slots(s, READ_EARLY, WRITE_EARLY);
    dawdle(s);
    change(s);
    for (unsigned i = 0; i < DISKS; i++) {
        s->disk[i].after = set_in_use(s, &s->disk[i]);
    }
    send_slots(s, READ_LATE, WRITE_LATE);
    wait_completed(s);
    if (translated && !s->off && change != move_restart) {
        g_assert_cmpuint(s->faults, >, 0);
    }
    for (unsigned i = 0; i < DISKS; i++) {
        check(s, &s->disk[i]);
    }
    s->rounds++;
}

/* --- the machine --- */

static char *make_file(Stress *s, const char *name, unsigned n, off_t size,
                       int *fd)
{
    char *path = g_strdup_printf("%s/%s%u", s->dir, name, n);

    *fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    g_assert_cmpint(*fd, >=, 0);
    g_assert_cmpint(ftruncate(*fd, size), ==, 0);
    return path;
}

static void add_disk(Stress *s, GString *args, Disk *d)
{
    g_autofree char *path = make_file(s, "disk", d->index,
                                      (SLOTS * PAGES + CHUNK) * SECTOR,
                                      &d->fd);
    uint8_t sector[SECTOR];

    for (unsigned i = 0; i < SLOTS * PAGES + CHUNK; i++) {
        Slot slot = i / PAGES;

        make_sector(sector, disk_seed(d, slot == HAMMER ? i % HOT : i % PAGES,
                                      slot));
        g_assert_cmpint(pwrite(d->fd, sector, SECTOR, (off_t)i * SECTOR), ==,
                        SECTOR);
    }
    g_string_append_printf(args, " -object iothread,id=io%u"
                           " -blockdev driver=file,node-name=d%u,filename=%s"
                           " -device virtio-blk-pci,drive=d%u,iothread=io%u,"
                           "disable-legacy=on,iommu_platform=on,ats=%s,"
                           "queue-size=%u,num-queues=1,addr=%u",
                           d->index, d->index, path, d->index, d->index,
                           s->ats ? "on" : "off", QUEUE, d->sid >> 3);
}

#define RAM_SIZE        (256 * 1024 * 1024)

static void start_machine(Stress *s, const char *props)
{
    g_autoptr(GString) args = g_string_new("-machine memory-backend=ram");
    g_autofree char *path = NULL;
    int fd;

    s->dir = g_dir_make_tmp("vtd-stress-XXXXXX", NULL);
    g_assert_nonnull(s->dir);
    path = make_file(s, "ram", 0, RAM_SIZE, &fd);
    s->mem = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    g_assert_true(s->mem != MAP_FAILED);
    close(fd);
    g_string_append_printf(args, " -object memory-backend-file,id=ram,"
                           "share=on,size=%u,mem-path=%s", RAM_SIZE, path);
    for (unsigned i = 0; i <= VICTIM; i++) {
        s->disk[i].index = i;
        s->disk[i].sid = QVTD_SID(0, 4 + i, 0);
        add_disk(s, args, &s->disk[i]);
    }
    s->v = qvtd_start(props, args->str);
}

static void start_unit(Stress *s)
{
    QVtd *v = s->v;

    for (unsigned i = 0; i < 2; i++) {
        s->root[i] = qvtd_alloc(v, 1);
        s->context[i] = qvtd_alloc(v, 1);
        set_word(s, s->root[i], s->context[i] | QVTD_ROOT_P);
    }
    s->answer = qvtd_alloc(v, 1);
    put_contexts(s, 0);
    qvtd_set_root(v, s->root[0]);
    /* The fault event is sent from the main loop, while iothreads fault */
    qvtd_writel(v, QVTD_FEADDR, QVTD_MSI_BASE);
    qvtd_writel(v, QVTD_FEDATA, 0x50);
    qvtd_writel(v, QVTD_FECTL, 0);
    qvtd_gcmd_set(v, QVTD_GCMD_TE);
}

static void stop_machine(Stress *s)
{
    qvtd_quit(s->v);
    munmap(s->mem, RAM_SIZE);
    for (unsigned i = 0; i <= VICTIM; i++) {
        g_autofree char *path = g_strdup_printf("%s/disk%u", s->dir, i);

        close(s->disk[i].fd);
        unlink(path);
        for (unsigned tree = 0; tree < 2; tree++) {
            g_free(s->disk[i].domain[tree]);
        }
    }
}

static unsigned from_env(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);
    unsigned val;

    if (!text) {
        return otherwise;
    }
    if (qemu_strtoui(text, NULL, 0, &val) || !val) {
        g_error("%s=%s: give a number above 0", name, text);
    }
    return val;
}

static void run(const char *props, bool queue, bool ats)
{
    unsigned seed = from_env("VTD_STRESS_SEED", g_random_int() | 1);
    g_autofree Stress *s = g_new0(Stress, 1);
    g_autofree char *ram = NULL;
    int64_t end;

    g_test_message("VTD_STRESS_SEED=%u", seed);
    s->rand = g_rand_new_with_seed(seed);
    s->ats = ats;
    s->moves = ARRAY_SIZE(moves);
    memset(s->blank, SENTINEL, sizeof(s->blank));
    start_machine(s, props);
    ram = g_strdup_printf("%s/ram0", s->dir);
    unlink(ram);
    for (unsigned i = 0; i <= VICTIM; i++) {
        find_disk(s, &s->disk[i]);
        alloc_disk(s, &s->disk[i]);
        put_requests(s, &s->disk[i]);
    }
    if (queue) {
        qvtd_iq_init(s->v, 3);
    }
    start_unit(s);
    for (unsigned i = 0; i <= VICTIM; i++) {
        start_disk(s, &s->disk[i]);
    }
    end = g_get_monotonic_time() +
          from_env("VTD_STRESS_SECONDS", SECONDS) * G_USEC_PER_SEC;
    do {
        const Move *move = &moves[s->rounds % ARRAY_SIZE(moves)];

        do_round(s, move->queue && !queue ? move_pages : move->change);
    } while (g_get_monotonic_time() < end ||
             s->rounds < ARRAY_SIZE(moves));
    g_test_message("%u rounds; of the early segments %u met the old page, "
                   "%u the new", s->rounds, s->early[0], s->early[1]);
    stop_machine(s);
    rmdir(s->dir);
    g_free(s->dir);
    g_rand_free(s->rand);
}

static void test_queue(void)
{
    run(NULL, true, false);
}

static void test_registers(void)
{
    run(NULL, false, false);
}

static void test_device_tlb(void)
{
    run("caching-mode=on,device-iotlb=on", true, true);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/vtd/stress/queue", test_queue);
    qtest_add_func("/vtd/stress/registers", test_registers);
    qtest_add_func("/vtd/stress/device-tlb", test_device_tlb);
    return g_test_run();
}
