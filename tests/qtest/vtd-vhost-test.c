/*
 * VT-d: vhost-user through the device-TLB (VT-d specification, section 4.1;
 * docs/interop/vhost-user.rst, "IOMMU support")
 *
 * The back-end of a vhost-user device runs in a thread of this test.  It
 * knows addresses as the guest gave them to the device, asks QEMU for
 * translations, keeps them until it is told to drop them, and copies the
 * readable buffer of each request to the writable one.  (That the device is
 * an entropy source is of no interest: it is the simplest that QEMU has.)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <poll.h>
#include <sys/un.h>
#include "qemu/bswap.h"
#include "qemu/sockets.h"
#include "hw/pci/pci_regs.h"
#include "libqtest.h"
#include "libqos/intel-iommu.h"
#include "standard-headers/linux/vhost_types.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_pci.h"
#include "standard-headers/linux/virtio_ring.h"

#define PORT            QVTD_SID(0, 3, 0)
#define SID             QVTD_SID(5, 0, 0)
#define DID             7
#define RW              QVTD_PTE_RW
#define R               QVTD_PTE_R

/* What the guest calls its pages */
#define RING            0x10000000ULL
#define SOURCE          0x20000000ULL
#define TARGET          0x30000000ULL
#define LARGE           0x40000000ULL
#define MiB2            0x200000ULL

/* In the page of the ring */
#define RING_SIZE       4
#define RING_AVAIL      0x400
#define RING_USED       0x800

/* Where virtio-pci of QEMU has its structures in BAR 4 */
#define VIRTIO_NOTIFY   0x3000
#define VIRTIO_BAR_SIZE 0x4000

#define ECAM            0xb0000000u
#define Q35_PCIEXBAR    0x60

/* --- the back-end --- */

#define PROTOCOL_FEATURES   30
#define F_REPLY_ACK         3
#define F_BACKEND_REQ       5
#define FLAG_VERSION        1
#define FLAG_REPLY          BIT(2)
#define FLAG_NEED_REPLY     BIT(3)

enum {
    GET_FEATURES = 1, SET_FEATURES = 2, SET_MEM_TABLE = 5, SET_VRING_NUM = 8,
    SET_VRING_ADDR = 9, SET_VRING_BASE = 10, GET_VRING_BASE = 11,
    SET_VRING_KICK = 12, GET_PROTOCOL_FEATURES = 15, SET_BACKEND_REQ_FD = 21,
    IOTLB_MSG = 22,
};

#define BACKEND_IOTLB_MSG   1

typedef struct QEMU_PACKED Message {
    uint32_t request;
    uint32_t flags;
    uint32_t size;
    union {
        uint64_t u64;
        struct vhost_vring_state state;
        struct vhost_vring_addr addr;
        struct vhost_iotlb_msg iotlb;
        struct {
            uint32_t n;
            uint32_t padding;
            struct {
                uint64_t guest, size, user, offset;
            } region[8];
        } memory;
        uint8_t bytes[1024];
    };
} Message;

#define HEADER_SIZE     offsetof(Message, u64)

typedef struct Region {
    uint64_t user;
    uint64_t size;
    uint64_t offset;
    uint8_t *host;
} Region;

/**
 * Backend: the thread's, but for what @lock guards
 * @wake: the write end of a pipe that tells the thread to end
 * @channel: for requests of the back-end
 * @cache: translations
 * @misses, @refused: translations that were asked for, and not given
 * @drops: how often it was told to drop something
 * @reply_delay: microseconds before it says that it has done so
 */
typedef struct Backend {
    GThread *thread;
    int socket;
    int wake[2];
    int fd;
    int channel;
    int kick;
    Region regions[8];
    unsigned n_regions;
    struct vhost_vring_addr ring;
    uint16_t next;
    GMutex lock;
    GArray *cache;
    unsigned misses;
    unsigned refused;
    unsigned drops;
    unsigned reply_delay;
} Backend;

static void write_all(int fd, const void *data, size_t len)
{
    /* QEMU may be gone already */
    if (send(fd, data, len, MSG_NOSIGNAL) != len) {
        g_assert_true(errno == EPIPE || errno == ECONNRESET);
    }
}

/* One message with at most 8 descriptors; false at the end */
static bool read_message(int fd, Message *m, int *fds)
{
    char control[CMSG_SPACE(8 * sizeof(int))];
    struct iovec iov = { .iov_base = m, .iov_len = HEADER_SIZE };
    struct msghdr hdr = {
        .msg_iov = &iov, .msg_iovlen = 1,
        .msg_control = control, .msg_controllen = sizeof(control),
    };
    struct cmsghdr *c;

    memset(fds, -1, 8 * sizeof(*fds));
    if (recvmsg(fd, &hdr, MSG_WAITALL) != HEADER_SIZE) {
        return false;
    }
    for (c = CMSG_FIRSTHDR(&hdr); c; c = CMSG_NXTHDR(&hdr, c)) {
        if (c->cmsg_type == SCM_RIGHTS) {
            memcpy(fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
        }
    }
    g_assert_cmpuint(m->size, <=, sizeof(m->bytes));
    return !m->size || recv(fd, m->bytes, m->size, MSG_WAITALL) == m->size;
}

static void reply(Backend *b, Message *m, uint64_t value)
{
    m->flags = FLAG_VERSION | FLAG_REPLY;
    m->size = sizeof(m->u64);
    m->u64 = value;
    write_all(b->fd, m, HEADER_SIZE + m->size);
}

static void set_memory(Backend *b, const Message *m, const int *fds)
{
    g_assert_cmpuint(m->memory.n, <=, ARRAY_SIZE(b->regions));
    for (unsigned i = 0; i < b->n_regions; i++) {
        munmap(b->regions[i].host, b->regions[i].size + b->regions[i].offset);
    }
    b->n_regions = m->memory.n;
    for (unsigned i = 0; i < b->n_regions; i++) {
        Region *r = &b->regions[i];

        r->user = m->memory.region[i].user;
        r->size = m->memory.region[i].size;
        r->offset = m->memory.region[i].offset;
        r->host = mmap(NULL, r->size + r->offset, PROT_READ | PROT_WRITE,
                       MAP_SHARED, fds[i], 0);
        g_assert_true(r->host != MAP_FAILED);
        close(fds[i]);
    }
}

/* Drop what overlaps; a size of 0 is all that there are */
static void cache_drop(Backend *b, uint64_t iova, uint64_t size)
{
    for (unsigned i = b->cache->len; i-- > 0; ) {
        struct vhost_iotlb_msg *e =
            &g_array_index(b->cache, struct vhost_iotlb_msg, i);

        if (e->iova <= iova + size - 1 && e->iova + e->size - 1 >= iova) {
            g_array_remove_index_fast(b->cache, i);
        }
    }
}

static void iotlb_message(Backend *b, struct vhost_iotlb_msg e)
{
    if (e.type == VHOST_IOTLB_INVALIDATE) {
        g_usleep(b->reply_delay);
    }
    g_mutex_lock(&b->lock);
    cache_drop(b, e.iova, e.size);
    if (e.type == VHOST_IOTLB_UPDATE) {
        g_array_append_val(b->cache, e);
    } else {
        b->drops++;
    }
    g_mutex_unlock(&b->lock);
}

/* Those that want an answer; the others are acknowledged, see below */
static bool answer(Backend *b, Message *m)
{
    switch (m->request) {
    case GET_FEATURES:
        reply(b, m, BIT_ULL(VIRTIO_F_VERSION_1) | BIT_ULL(PROTOCOL_FEATURES) |
              BIT_ULL(VIRTIO_F_ACCESS_PLATFORM));
        return true;
    case GET_PROTOCOL_FEATURES:
        reply(b, m, BIT_ULL(F_REPLY_ACK) | BIT_ULL(F_BACKEND_REQ));
        return true;
    case GET_VRING_BASE:
        close(b->kick);
        b->kick = -1;
        reply(b, m, (uint64_t)b->next << 32);
        return true;
    default:
        return false;
    }
}

static void carry_out(Backend *b, const Message *m, int *fds)
{
    switch (m->request) {
    case SET_MEM_TABLE:
        set_memory(b, m, fds);
        break;
    case SET_BACKEND_REQ_FD:
        b->channel = fds[0];
        break;
    case SET_VRING_ADDR:
        b->ring = m->addr;
        break;
    case SET_VRING_BASE:
        b->next = m->state.num;
        break;
    case SET_VRING_KICK:
        b->kick = fds[0];
        break;
    case IOTLB_MSG:
        iotlb_message(b, m->iotlb);
        break;
    default:
        /* The call and error eventfds, and what is of no interest here */
        if (fds[0] >= 0) {
            close(fds[0]);
        }
    }
}

static bool handle_message(Backend *b)
{
    Message m;
    int fds[8];

    if (!read_message(b->fd, &m, fds)) {
        return false;
    }
    if (!answer(b, &m)) {
        carry_out(b, &m, fds);
        if (m.flags & FLAG_NEED_REPLY) {
            reply(b, &m, 0);
        }
    }
    return true;
}

static uint8_t *host_address(Backend *b, uint64_t user)
{
    for (unsigned i = 0; i < b->n_regions; i++) {
        Region *r = &b->regions[i];

        if (user - r->user < r->size) {
            return r->host + r->offset + (user - r->user);
        }
    }
    g_assert_not_reached();
}

static uint8_t *cache_find(Backend *b, uint64_t iova, uint8_t perm)
{
    uint8_t *host = NULL;

    g_mutex_lock(&b->lock);
    for (unsigned i = 0; i < b->cache->len; i++) {
        struct vhost_iotlb_msg *e =
            &g_array_index(b->cache, struct vhost_iotlb_msg, i);

        if (iova - e->iova < e->size && !(perm & ~e->perm)) {
            host = host_address(b, e->uaddr + (iova - e->iova));
        }
    }
    g_mutex_unlock(&b->lock);
    return host;
}

/*
 * Ask for a translation and see to what comes meanwhile.  QEMU sends the
 * translation first and then, on the other channel, whether there is one.
 */
static bool ask(Backend *b, uint64_t iova, uint8_t perm)
{
    Message m = {
        .request = BACKEND_IOTLB_MSG,
        .flags = FLAG_VERSION | FLAG_NEED_REPLY,
        .size = sizeof(m.iotlb),
        .iotlb = { .iova = iova, .perm = perm, .type = VHOST_IOTLB_MISS },
    };
    int fds[8];

    g_mutex_lock(&b->lock);
    b->misses++;
    g_mutex_unlock(&b->lock);
    write_all(b->channel, &m, HEADER_SIZE + m.size);
    while (true) {
        struct pollfd p[] = {
            { .fd = b->fd, .events = POLLIN },
            { .fd = b->channel, .events = POLLIN },
            { .fd = b->wake[0], .events = POLLIN },
        };

        g_assert_cmpint(poll(p, ARRAY_SIZE(p), -1), >, 0);
        if (p[2].revents || (p[0].revents && !handle_message(b))) {
            return false;
        }
        if (!p[0].revents && p[1].revents) {
            return read_message(b->channel, &m, fds) && m.u64 == 0;
        }
    }
}

/* Where @iova is, or NULL; what is used does not cross a page */
static void *translate(Backend *b, uint64_t iova, uint8_t perm)
{
    uint8_t *host;

    /* It may be invalidated before it can be used */
    for (unsigned i = 0; i < 100; i++) {
        host = cache_find(b, iova, perm);
        if (host) {
            return host;
        }
        if (!ask(b, iova, perm)) {
            break;
        }
    }
    g_mutex_lock(&b->lock);
    b->refused++;
    g_mutex_unlock(&b->lock);
    return NULL;
}

/* The readable buffer to the writable one after it; returns how much */
static uint32_t copy(Backend *b, const struct vring_desc *d)
{
    uint32_t len = MIN(le32_to_cpu(d[0].len), le32_to_cpu(d[1].len));
    void *from = translate(b, le64_to_cpu(d[0].addr), VHOST_ACCESS_RO);
    void *to = from ? translate(b, le64_to_cpu(d[1].addr), VHOST_ACCESS_WO)
                    : NULL;

    if (!to) {
        return 0;
    }
    memcpy(to, from, len);
    return len;
}

/* All requests that there are; each uses the ring's translations anew */
static void serve(Backend *b)
{
    while (true) {
        struct vring_avail *avail = translate(b, b->ring.avail_user_addr,
                                              VHOST_ACCESS_RO);
        struct vring_desc *desc = translate(b, b->ring.desc_user_addr,
                                            VHOST_ACCESS_RO);
        struct vring_used *used;
        struct vring_used_elem elem;
        uint16_t head;

        if (!avail || !desc ||
            qatomic_load_acquire(&avail->idx) == cpu_to_le16(b->next)) {
            return;
        }
        head = le16_to_cpu(avail->ring[b->next % RING_SIZE]);
        g_assert_cmpuint(head, <, RING_SIZE - 1);
        elem.id = cpu_to_le32(head);
        elem.len = cpu_to_le32(copy(b, &desc[head]));
        used = translate(b, b->ring.used_user_addr, VHOST_ACCESS_WO);
        if (!used) {
            return;
        }
        used->ring[b->next % RING_SIZE] = elem;
        b->next++;
        qatomic_store_release(&used->idx, cpu_to_le16(b->next));
    }
}

static gpointer backend_thread(gpointer opaque)
{
    Backend *b = opaque;

    b->fd = accept(b->socket, NULL, NULL);
    g_assert_cmpint(b->fd, >=, 0);
    while (true) {
        struct pollfd p[] = {
            { .fd = b->fd, .events = POLLIN },
            { .fd = b->wake[0], .events = POLLIN },
            { .fd = b->kick, .events = POLLIN },
        };
        uint64_t kicks;

        g_assert_cmpint(poll(p, ARRAY_SIZE(p), -1), >, 0);
        if (p[1].revents || (p[0].revents && !handle_message(b))) {
            return NULL;
        }
        if (!p[0].revents && p[2].revents &&
            read(b->kick, &kicks, sizeof(kicks)) == sizeof(kicks)) {
            serve(b);
        }
    }
}

static Backend *backend_new(const char *path)
{
    Backend *b = g_new0(Backend, 1);
    struct sockaddr_un addr = { .sun_family = AF_UNIX };

    g_assert_cmpuint(strlen(path), <, sizeof(addr.sun_path));
    strcpy(addr.sun_path, path);
    g_mutex_init(&b->lock);
    b->cache = g_array_new(false, false, sizeof(struct vhost_iotlb_msg));
    b->kick = b->channel = -1;
    b->socket = socket(AF_UNIX, SOCK_STREAM, 0);
    g_assert_cmpint(bind(b->socket, (struct sockaddr *)&addr, sizeof(addr)),
                    ==, 0);
    g_assert_cmpint(listen(b->socket, 1), ==, 0);
    g_assert_cmpint(pipe(b->wake), ==, 0);
    b->thread = g_thread_new("backend", backend_thread, b);
    return b;
}

/* QEMU has ended */
static void backend_free(Backend *b)
{
    Message none = {};

    close(b->wake[1]);
    g_thread_join(b->thread);
    set_memory(b, &none, NULL);
    close(b->wake[0]);
    close(b->socket);
    close(b->fd);
    if (b->channel >= 0) {
        close(b->channel);
    }
    if (b->kick >= 0) {
        close(b->kick);
    }
    g_array_unref(b->cache);
    g_mutex_clear(&b->lock);
    g_free(b);
}

static unsigned counted(Backend *b, unsigned *counter)
{
    unsigned value;

    g_mutex_lock(&b->lock);
    value = *counter;
    g_mutex_unlock(&b->lock);
    return value;
}

/* How many translations it has for [@first, @last] */
static unsigned cached(Backend *b, uint64_t first, uint64_t last)
{
    unsigned n = 0;

    g_mutex_lock(&b->lock);
    for (unsigned i = 0; i < b->cache->len; i++) {
        struct vhost_iotlb_msg *e =
            &g_array_index(b->cache, struct vhost_iotlb_msg, i);

        n += e->iova <= last && e->iova + e->size - 1 >= first;
    }
    g_mutex_unlock(&b->lock);
    return n;
}

/* --- the guest --- */

typedef struct Guest {
    QVtd *v;
    QVtdDomain *d;
    Backend *b;
    bool ats;
    char *dir;
    char *path;
    uint32_t bar;
    uint64_t ring;
    uint64_t status;
    uint32_t stamp;
    uint16_t sent;
} Guest;

/* 7.5.1 of the PCIe specification's chapter on ATS: the enable bit */
static void enable_ats(QVtd *v)
{
    uint32_t space = ECAM + (SID << 12), pos = PCI_CFG_SPACE_SIZE, header;

    qvtd_cfg_writel(v, 0, Q35_PCIEXBAR + 4, 0);
    qvtd_cfg_writel(v, 0, Q35_PCIEXBAR, ECAM | 1);
    do {
        header = qtest_readl(v->qts, space + pos);
        if (PCI_EXT_CAP_ID(header) == PCI_EXT_CAP_ID_ATS) {
            qtest_writew(v->qts, space + pos + PCI_ATS_CTRL,
                         PCI_ATS_CTRL_ENABLE);
            return;
        }
        pos = PCI_EXT_CAP_NEXT(header);
    } while (pos);
    g_assert_not_reached();
}

static void virtio_status(Guest *g, uint8_t status)
{
    uint64_t reg = g->bar + VIRTIO_PCI_COMMON_STATUS;

    qtest_writeb(g->v->qts, reg, status);
    g_assert_cmphex(qtest_readb(g->v->qts, reg), ==, status);
}

/* Virtio specification, section 3.1.1, with one queue */
static void virtio_start(Guest *g)
{
    QTestState *qts = g->v->qts;
    uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

    g->sent = 0;
    qtest_memset(qts, g->ring, 0, QVTD_PAGE);
    virtio_status(g, 0);
    virtio_status(g, status);
    qtest_writel(qts, g->bar + VIRTIO_PCI_COMMON_GFSELECT, 1);
    qtest_writel(qts, g->bar + VIRTIO_PCI_COMMON_GF,
                 BIT(VIRTIO_F_VERSION_1 - 32) |
                 BIT(VIRTIO_F_ACCESS_PLATFORM - 32));
    status |= VIRTIO_CONFIG_S_FEATURES_OK;
    virtio_status(g, status);
    qtest_writew(qts, g->bar + VIRTIO_PCI_COMMON_Q_SELECT, 0);
    qtest_writew(qts, g->bar + VIRTIO_PCI_COMMON_Q_SIZE, RING_SIZE);
    qtest_writel(qts, g->bar + VIRTIO_PCI_COMMON_Q_DESCLO, RING);
    qtest_writel(qts, g->bar + VIRTIO_PCI_COMMON_Q_AVAILLO,
                 RING + RING_AVAIL);
    qtest_writel(qts, g->bar + VIRTIO_PCI_COMMON_Q_USEDLO, RING + RING_USED);
    qtest_writew(qts, g->bar + VIRTIO_PCI_COMMON_Q_ENABLE, 1);
    virtio_status(g, status | VIRTIO_CONFIG_S_DRIVER_OK);
}

static void pci_start(Guest *g)
{
    QVtd *v = g->v;

    qvtd_bridge(v, PORT, 5, 5, 8);
    g->bar = v->bar;
    v->bar += VIRTIO_BAR_SIZE;
    qvtd_cfg_writel(v, SID, PCI_BASE_ADDRESS_4, g->bar);
    qvtd_cfg_writel(v, SID, PCI_BASE_ADDRESS_5, 0);
    qvtd_cfg_writew(v, SID, PCI_COMMAND,
                    PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    if (g->ats) {
        enable_ats(v);
    }
}

static uint64_t map_new(Guest *g, uint64_t iova, uint32_t seed, uint64_t perm)
{
    uint64_t page = qvtd_alloc_pattern(g->v, seed);

    qvtd_map(g->d, iova, page, perm);
    return page;
}

static Guest guest_new(const char *props)
{
    Guest g = { .ats = strstr(props, "device-iotlb=on") };
    g_autofree char *args = NULL;

    g.dir = g_dir_make_tmp("vtd-vhost-XXXXXX", NULL);
    g.path = g_build_filename(g.dir, "socket", NULL);
    g.b = backend_new(g.path);
    args = g_strdup_printf(
        "-object memory-backend-memfd,id=mem,size=256M,share=on "
        "-machine memory-backend=mem -chardev socket,id=c,path=%s "
        "-device pcie-root-port,id=rp,addr=3,chassis=1 "
        "-device vhost-user-rng-pci,chardev=c,bus=rp,addr=0,"
        "iommu_platform=on,ats=%s", g.path,
        g.ats ? "on" : "off");
    g.v = qvtd_start(props, args);
    qvtd_tables_init(g.v);
    g.status = qvtd_alloc(g.v, 1);
    qvtd_iq_init(g.v, 0);
    g.d = qvtd_domain_new(g.v, DID, 4);
    g.ring = qvtd_alloc(g.v, 1);
    qvtd_map(g.d, RING, g.ring, RW);
    pci_start(&g);
    qvtd_write_context(g.v, SID, g.d->pgd | QVTD_CTX_P |
                       QVTD_CTX_TT(g.ats ? QVTD_TT_ALL :
                                   QVTD_TT_UNTRANSLATED),
                       QVTD_CTX_DID(DID) | QVTD_CTX_AW(4));
    qvtd_gcmd_set(g.v, QVTD_GCMD_TE);
    virtio_start(&g);
    return g;
}

static void guest_quit(Guest *g)
{
    qvtd_quit(g->v);
    backend_free(g->b);
    g_assert_cmpint(unlink(g->path), ==, 0);
    g_assert_cmpint(rmdir(g->dir), ==, 0);
    g_free(g->path);
    g_free(g->dir);
    g_free(g->d);
}

static void write_desc(Guest *g, unsigned n, uint64_t addr, uint16_t flags)
{
    uint64_t desc = g->ring + n * sizeof(struct vring_desc);

    qtest_writeq(g->v->qts, desc, addr);
    qtest_writel(g->v->qts, desc + 8, QVTD_PAGE);
    qtest_writew(g->v->qts, desc + 12, flags);
    qtest_writew(g->v->qts, desc + 14, n + 1);
}

/* One page from @from to @to; returns how many bytes the device has copied */
static uint32_t transfer(Guest *g, uint64_t from, uint64_t to)
{
    QTestState *qts = g->v->qts;
    int64_t end = g_get_monotonic_time() + 60 * G_USEC_PER_SEC;
    unsigned slot = g->sent % RING_SIZE;

    write_desc(g, 0, from, VRING_DESC_F_NEXT);
    write_desc(g, 1, to, VRING_DESC_F_WRITE);
    qtest_writew(qts, g->ring + RING_AVAIL + 4 + 2 * slot, 0);
    qtest_writew(qts, g->ring + RING_AVAIL + 2, ++g->sent);
    qtest_writew(qts, g->bar + VIRTIO_NOTIFY, 0);
    while (qtest_readw(qts, g->ring + RING_USED + 2) != g->sent) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(200);
    }
    return qtest_readl(qts, g->ring + RING_USED + 4 + 8 * slot + 4);
}

/* A descriptor and a wait; it is answered when this returns */
static void flush(Guest *g, uint64_t lo, uint64_t hi)
{
    int64_t end = g_get_monotonic_time() + 60 * G_USEC_PER_SEC;

    qvtd_iq_put(g->v, lo, hi);
    qvtd_iq_put(g->v, QVTD_DESC_WAIT | QVTD_DESC_WAIT_SW |
                QVTD_DESC_WAIT_DATA(++g->stamp), g->status);
    qvtd_iq_kick(g->v);
    while (qtest_readl(g->v->qts, g->status) != g->stamp) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
}

static void flush_device(Guest *g, uint16_t sid, uint64_t hi)
{
    flush(g, QVTD_DESC_DEV_IOTLB | QVTD_DESC_DEV_SID(sid), hi);
}

static void flush_iotlb(Guest *g, unsigned granularity, uint16_t did,
                        uint64_t hi)
{
    flush(g, QVTD_DESC_IOTLB | QVTD_DESC_GRAN(granularity) |
          QVTD_DESC_DID(did), hi);
}

/*
 * Section 4.1 and 6.5.2.5, as software does it: first the IOTLB, then the
 * device-TLB, which asks for what it needs again.
 */
static void flush_page(Guest *g, uint64_t iova)
{
    flush_iotlb(g, QVTD_GRAN_PAGE, DID, iova);
    if (g->ats) {
        flush_device(g, SID, iova);
    }
}

/* --- tests --- */

/* What was asked for once is not asked for again */
static void test_copy(const void *props)
{
    Guest g = guest_new(props);
    uint64_t target = map_new(&g, TARGET, 2, RW);
    unsigned misses;

    map_new(&g, SOURCE, 1, R);
    g_assert_cmpuint(transfer(&g, SOURCE, TARGET), ==, QVTD_PAGE);
    g_assert_true(qvtd_holds(g.v, target, 1));
    misses = counted(g.b, &g.b->misses);
    g_assert_cmpuint(misses, >=, 2);
    for (unsigned i = 0; i < 10; i++) {
        qvtd_fill(g.v, target, 3);
        g_assert_cmpuint(transfer(&g, SOURCE, TARGET), ==, QVTD_PAGE);
        g_assert_true(qvtd_holds(g.v, target, 1));
    }
    g_assert_cmpuint(counted(g.b, &g.b->misses), ==, misses);
    g_assert_cmpuint(counted(g.b, &g.b->refused), ==, 0);
    qvtd_assert_no_fault(g.v);
    guest_quit(&g);
}

/* The page is another one when the answer has come, however late that is */
static void test_remap(const void *props)
{
    Guest g = guest_new(props);
    uint64_t target = map_new(&g, TARGET, 0, RW), old = target;

    map_new(&g, SOURCE, 1, R);
    for (unsigned i = 0; i < 30; i++) {
        unsigned drops = counted(g.b, &g.b->drops);

        g_assert_cmpuint(transfer(&g, SOURCE, TARGET), ==, QVTD_PAGE);
        g_assert_true(qvtd_holds(g.v, target, 1 + i));
        g_assert_cmpuint(cached(g.b, TARGET, TARGET), ==, 1);
        g.b->reply_delay = i == 10 ? 200 * 1000 : 0;
        old = target;
        target = map_new(&g, TARGET, 0, RW);
        map_new(&g, SOURCE, 2 + i, R);
        flush_page(&g, TARGET);
        g_assert_cmpuint(cached(g.b, TARGET, TARGET), ==, 0);
        g_assert_cmpuint(cached(g.b, SOURCE, SOURCE), ==, 1);
        g_assert_cmpuint(counted(g.b, &g.b->drops), >, drops);
        flush_page(&g, SOURCE);
        g_assert_cmpuint(cached(g.b, SOURCE, SOURCE), ==, 0);
        qvtd_fill(g.v, old, 0x01d);
    }
    g_assert_true(qvtd_holds(g.v, old, 0x01d));
    qvtd_assert_no_fault(g.v);
    guest_quit(&g);
}

/* 4.1: without an invalidation the device goes on with what it has */
static void test_stale(const void *props)
{
    Guest g = guest_new(props);
    uint64_t old = map_new(&g, TARGET, 0, RW), target;

    map_new(&g, SOURCE, 1, R);
    g_assert_cmpuint(transfer(&g, SOURCE, TARGET), ==, QVTD_PAGE);
    target = map_new(&g, TARGET, 0, RW);
    /* Of another device, of another page; and of the IOTLB alone */
    flush_device(&g, SID + 1, TARGET);
    flush_device(&g, SID, TARGET + QVTD_PAGE);
    flush_iotlb(&g, QVTD_GRAN_PAGE, DID, TARGET);
    flush_iotlb(&g, QVTD_GRAN_GLOBAL, 0, 0);
    g_assert_cmpuint(cached(g.b, TARGET, TARGET), ==, 1);
    qvtd_fill(g.v, old, 0);
    g_assert_cmpuint(transfer(&g, SOURCE, TARGET), ==, QVTD_PAGE);
    g_assert_true(qvtd_holds(g.v, old, 1));
    g_assert_true(qvtd_holds(g.v, target, 0));
    flush_device(&g, SID, TARGET);
    g_assert_cmpuint(transfer(&g, SOURCE, TARGET), ==, QVTD_PAGE);
    g_assert_true(qvtd_holds(g.v, target, 1));
    guest_quit(&g);
}

/* 6.5.2.5: as many pages as the descriptor says, and no others */
static void test_sizes(const void *props)
{
    Guest g = guest_new(props);

    map_new(&g, SOURCE, 1, R);
    for (unsigned i = 0; i < 32; i++) {
        map_new(&g, TARGET + i * QVTD_PAGE, 0, RW);
    }
    for (unsigned order = 0; order <= 5; order++) {
        uint64_t first = TARGET + 2 * (QVTD_PAGE << order);
        uint64_t ones = (QVTD_PAGE << order >> 1) - QVTD_PAGE;

        first = order < 4 ? first : TARGET;
        for (unsigned i = 0; i < 32; i++) {
            transfer(&g, SOURCE, TARGET + i * QVTD_PAGE);
        }
        g_assert_cmpuint(cached(g.b, TARGET, TARGET + 32 * QVTD_PAGE - 1), ==,
                         32);
        flush_device(&g, SID, order ? first | ones | 1 : first);
        g_assert_cmpuint(cached(g.b, first,
                                first + (QVTD_PAGE << order) - 1), ==, 0);
        g_assert_cmpuint(cached(g.b, TARGET, TARGET + 32 * QVTD_PAGE - 1), ==,
                         32 - (1 << order));
    }
    g_assert_cmpuint(cached(g.b, SOURCE, SOURCE), ==, 1);
    flush_device(&g, SID, (INT64_MAX & -QVTD_PAGE) | 1);
    g_assert_cmpuint(cached(g.b, 0, UINT64_MAX), ==, 0);
    g_assert_cmpuint(transfer(&g, SOURCE, TARGET), ==, QVTD_PAGE);
    guest_quit(&g);
}

/* A page of 2 MiB is one translation, and goes as one */
static void test_large(const void *props)
{
    Guest g = guest_new(props);
    uint64_t base = 12 * MiB2 * 2;
    unsigned misses;

    map_new(&g, SOURCE, 1, R);
    qvtd_map_level(g.d, LARGE, base, RW, 2);
    transfer(&g, SOURCE, LARGE);
    misses = counted(g.b, &g.b->misses);
    for (unsigned i = 1; i < 8; i++) {
        qvtd_fill(g.v, base + i * 61 * QVTD_PAGE, 0);
        g_assert_cmpuint(transfer(&g, SOURCE, LARGE + i * 61 * QVTD_PAGE), ==,
                         QVTD_PAGE);
        g_assert_true(qvtd_holds(g.v, base + i * 61 * QVTD_PAGE, 1));
    }
    g_assert_cmpuint(counted(g.b, &g.b->misses), ==, misses);
    qvtd_map_level(g.d, LARGE, base + MiB2, RW, 2);
    flush_page(&g, LARGE + 100 * QVTD_PAGE);
    g_assert_cmpuint(cached(g.b, LARGE, LARGE + MiB2 - 1), ==, 0);
    qvtd_fill(g.v, base + MiB2, 0);
    g_assert_cmpuint(transfer(&g, SOURCE, LARGE), ==, QVTD_PAGE);
    g_assert_true(qvtd_holds(g.v, base + MiB2, 1));
    guest_quit(&g);
}

/* What is not mapped, or not for that, is refused and on record */
static void test_faults(const void *props)
{
    Guest g = guest_new(props);
    uint64_t target = map_new(&g, TARGET, 2, RW);

    map_new(&g, SOURCE, 1, R);
    g_assert_cmpuint(transfer(&g, SOURCE, TARGET), ==, QVTD_PAGE);
    qvtd_assert_no_fault(g.v);
    g_assert_cmpuint(transfer(&g, LARGE, TARGET), ==, 0);
    qvtd_assert_fault(g.v, QVTD_FR_READ, SID, LARGE, true);
    g_assert_cmpuint(transfer(&g, SOURCE, LARGE), ==, 0);
    qvtd_assert_fault(g.v, QVTD_FR_WRITE, SID, LARGE, false);
    /* QEMU's memory API hands on a page that was asked for as writable */
    flush_page(&g, SOURCE);
    g_assert_cmpuint(transfer(&g, TARGET, SOURCE), ==, 0);
    qvtd_assert_fault(g.v, QVTD_FR_WRITE, SID, SOURCE, false);
    g_assert_cmpuint(counted(g.b, &g.b->refused), ==, 3);
    /* Mapped now: what was refused was not kept */
    qvtd_map(g.d, LARGE, target, RW);
    flush_page(&g, LARGE);
    g_assert_cmpuint(transfer(&g, SOURCE, LARGE), ==, QVTD_PAGE);
    g_assert_true(qvtd_holds(g.v, target, 1));
    /* And unmapped */
    qvtd_map(g.d, LARGE, 0, 0);
    flush_page(&g, LARGE);
    g_assert_cmpuint(transfer(&g, SOURCE, LARGE), ==, 0);
    qvtd_assert_fault(g.v, QVTD_FR_WRITE, SID, LARGE, false);
    guest_quit(&g);
}

/* Without a device-TLB vhost hears of the IOTLB, and of the context cache */
static void test_no_device_tlb(const void *props)
{
    Guest g = guest_new(props);
    static const struct {
        unsigned granularity;
        uint16_t did;
        unsigned left;
    } rows[] = {
        { QVTD_GRAN_PAGE, DID, 0 }, { QVTD_GRAN_PAGE, DID + 1, 1 },
        { QVTD_GRAN_DOMAIN, DID, 0 }, { QVTD_GRAN_DOMAIN, DID + 1, 1 },
        { QVTD_GRAN_GLOBAL, 0, 0 },
    };

    map_new(&g, SOURCE, 1, R);
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        map_new(&g, TARGET, 0, RW);
        flush_page(&g, TARGET);
        g_assert_cmpuint(transfer(&g, SOURCE, TARGET), ==, QVTD_PAGE);
        flush_iotlb(&g, rows[i].granularity, rows[i].did,
                    rows[i].granularity == QVTD_GRAN_PAGE ? TARGET : 0);
        g_assert_cmpuint(cached(g.b, TARGET, TARGET), ==, rows[i].left);
    }
    g_assert_cmpuint(transfer(&g, SOURCE, TARGET), ==, QVTD_PAGE);
    flush(&g, QVTD_DESC_CC | QVTD_DESC_GRAN(QVTD_GRAN_DEVICE) |
          QVTD_DESC_DID(DID) | QVTD_DESC_CC_SID(SID), 0);
    g_assert_cmpuint(cached(g.b, 0, UINT64_MAX), ==, 0);
    g_assert_cmpuint(transfer(&g, SOURCE, TARGET), ==, QVTD_PAGE);
    qvtd_assert_no_fault(g.v);
    guest_quit(&g);
}

/* The driver begins again; the device's tables are others meanwhile */
static void test_restart(const void *props)
{
    Guest g = guest_new(props);

    for (unsigned i = 0; i < 4; i++) {
        uint64_t target = map_new(&g, TARGET, 0, RW);

        map_new(&g, SOURCE, i, R);
        flush_page(&g, TARGET);
        flush_page(&g, SOURCE);
        g_assert_cmpuint(transfer(&g, SOURCE, TARGET), ==, QVTD_PAGE);
        g_assert_true(qvtd_holds(g.v, target, i));
        virtio_status(&g, 0);
        g.ring = qvtd_alloc(g.v, 1);
        qvtd_map(g.d, RING, g.ring, RW);
        flush_page(&g, RING);
        /* Nobody was told: the device did not use the bus */
        g_mutex_lock(&g.b->lock);
        g_array_set_size(g.b->cache, 0);
        g_mutex_unlock(&g.b->lock);
        virtio_start(&g);
    }
    qvtd_assert_no_fault(g.v);
    guest_quit(&g);
}

static void add(const char *name, void (*func)(const void *), bool ats)
{
    static const char *const with[] = {
        "device-iotlb=on", "device-iotlb=on,caching-mode=on",
        "", "caching-mode=on",
    };

    for (unsigned i = ats ? 0 : 2; i < ARRAY_SIZE(with); i++) {
        g_autofree char *path = g_strdup_printf("/vtd/vhost/%s/%s", name,
                                                *with[i] ? with[i] : "plain");

        qtest_add_data_func(path, with[i], func);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add("copy", test_copy, true);
    add("remap", test_remap, true);
    add("large", test_large, true);
    add("faults", test_faults, true);
    add("restart", test_restart, true);
    add("no-device-tlb", test_no_device_tlb, false);
    qtest_add_data_func("/vtd/vhost/stale", "device-iotlb=on", test_stale);
    qtest_add_data_func("/vtd/vhost/sizes", "device-iotlb=on", test_sizes);
    return g_test_run();
}
