/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Drives QEMU's "edu" PCI device from user space: vfio-edu ADDRESS GROUP
 *
 * Prints one line "step=NAME ok" or "step=NAME FAILED: why" per step.  The
 * last steps make the device access what it may not: their accesses must
 * change nothing, and Linux must report one fault each.
 */

#include <fcntl.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE        4096
#define PAGES       8
#define IOVA        0x400000ull         /* edu can address 28 bits */
#define IOVA_RO     0x800000ull
#define EDU_BUFFER  0x40000             /* docs/specs/edu.rst */
#define EDU_SRC     (0x80 / 4)
#define EDU_DST     (0x88 / 4)
#define EDU_COUNT   (0x90 / 4)
#define EDU_CMD     (0x98 / 4)
#define EDU_IRQ_ACK (0x64 / 4)
#define CMD_RUN     1
#define CMD_TO_RAM  2
#define CMD_IRQ     4
#define PCI_COMMAND 4
/* For as long as a busy host may take to let the other CPU run */
#define PATIENCE_MS 30000

static int container, group, device, irq_fd;
static volatile uint32_t *regs;     /* volatile: device registers */
static uint8_t *memory;

static void step(const char *name, int good, const char *why)
{
    printf("step=%s %s%s\n", name, good ? "ok" : "FAILED: ", good ? "" : why);
    fflush(stdout);
    if (!good) {
        exit(1);
    }
}

static void open_all(const char *address, const char *group_number)
{
    struct vfio_group_status status = { .argsz = sizeof(status) };
    char path[64];

    container = open("/dev/vfio/vfio", O_RDWR);
    snprintf(path, sizeof(path), "/dev/vfio/%s", group_number);
    group = open(path, O_RDWR);
    step("open", container >= 0 && group >= 0, path);
    ioctl(group, VFIO_GROUP_GET_STATUS, &status);
    step("viable", status.flags & VFIO_GROUP_FLAGS_VIABLE, "group");
    step("container", !ioctl(group, VFIO_GROUP_SET_CONTAINER, &container),
         "VFIO_GROUP_SET_CONTAINER");
    step("iommu", !ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU),
         "VFIO_SET_IOMMU");
    device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, address);
    step("device", device >= 0, "VFIO_GROUP_GET_DEVICE_FD");
}

static void open_registers(void)
{
    struct vfio_region_info bar = { .argsz = sizeof(bar),
                                    .index = VFIO_PCI_BAR0_REGION_INDEX };
    struct vfio_region_info config = { .argsz = sizeof(config),
                                       .index = VFIO_PCI_CONFIG_REGION_INDEX };
    uint16_t command = 6;       /* memory, bus master */

    step("regions", !ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &bar) &&
         !ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &config), "info");
    step("enable", pwrite(device, &command, 2, config.offset + PCI_COMMAND)
         == 2, "command register");
    regs = mmap(NULL, bar.size, PROT_READ | PROT_WRITE, MAP_SHARED, device,
                bar.offset);
    step("registers", regs != MAP_FAILED && regs[0] == 0x010000ed,
         "identification register");
}

static void open_interrupt(void)
{
    char buffer[sizeof(struct vfio_irq_set) + sizeof(int)];
    struct vfio_irq_set *set = (struct vfio_irq_set *)buffer;

    irq_fd = eventfd(0, 0);
    set->argsz = sizeof(buffer);
    set->flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    set->index = VFIO_PCI_MSI_IRQ_INDEX;
    set->start = 0;
    set->count = 1;
    memcpy(set->data, &irq_fd, sizeof(int));
    step("msi", !ioctl(device, VFIO_DEVICE_SET_IRQS, set), "SET_IRQS");
}

static int map(uint64_t iova, void *where, uint64_t size, uint32_t flags)
{
    struct vfio_iommu_type1_dma_map arg = {
        .argsz = sizeof(arg), .flags = flags, .vaddr = (uintptr_t)where,
        .iova = iova, .size = size,
    };

    return ioctl(container, VFIO_IOMMU_MAP_DMA, &arg);
}

static int unmap(uint64_t iova, uint64_t size)
{
    struct vfio_iommu_type1_dma_unmap arg = {
        .argsz = sizeof(arg), .iova = iova, .size = size,
    };

    return ioctl(container, VFIO_IOMMU_UNMAP_DMA, &arg) || arg.size != size;
}

/* One DMA; the device says by interrupt that it is done */
static void dma(uint64_t iova, int to_ram, unsigned count)
{
    struct pollfd event = { .fd = irq_fd, .events = POLLIN };
    uint64_t n;

    regs[to_ram ? EDU_DST : EDU_SRC] = iova;
    regs[to_ram ? EDU_SRC : EDU_DST] = EDU_BUFFER;
    regs[EDU_COUNT] = count;
    regs[EDU_CMD] = CMD_RUN | CMD_IRQ | (to_ram ? CMD_TO_RAM : 0);
    if (poll(&event, 1, PATIENCE_MS) != 1 || read(irq_fd, &n, 8) != 8) {
        step("interrupt", 0, "none within 30 s");
    }
    regs[EDU_IRQ_ACK] = ~0u;
}

/* Whether the next messages of the kernel's log, as far as it is, have @text */
static int log_says(int log, const char *text)
{
    char message[8192];
    ssize_t size;

    while ((size = read(log, message, sizeof(message) - 1)) > 0) {
        message[size] = 0;
        if (strstr(message, text)) {
            return 1;
        }
    }
    return 0;
}

/*
 * A DMA that must be stopped.  A fault may be merged with a pending one of the
 * same device: let Linux deal with this one before the next.
 */
static void stopped_dma(uint64_t iova, int to_ram)
{
    int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
    int said = 0;

    lseek(log, 0, SEEK_END);
    dma(iova, to_ram, 64);
    for (int ms = 0; !said && ms < PATIENCE_MS; ms += 10) {
        usleep(10000);
        said = log_says(log, " fault addr ");
    }
    close(log);
    step("reported", said, "Linux reports no fault within 30 s");
}

static void fill(uint8_t *where, unsigned size, unsigned seed)
{
    for (unsigned i = 0; i < size; i++) {
        seed = seed * 1103515245u + 12345;
        where[i] = seed >> 16;
    }
}

static int all_bytes(const uint8_t *where, unsigned size, uint8_t value)
{
    for (unsigned i = 0; i < size; i++) {
        if (where[i] != value) {
            return 0;
        }
    }
    return 1;
}

static void use(void)
{
    uint8_t *from = memory + 0x800;     /* a transfer that crosses pages */
    uint8_t *to = memory + 4 * PAGE + 0x123;

    step("map", !map(IOVA, memory, PAGES * PAGE,
                     VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE),
         "VFIO_IOMMU_MAP_DMA");
    fill(from, PAGE, 42);
    dma(IOVA + 0x800, 0, PAGE);
    step("interrupt", 1, "");
    dma(IOVA + 4 * PAGE + 0x123, 1, PAGE);
    step("copy", !memcmp(from, to, PAGE), "data differ");
    step("bounds", all_bytes(memory + 4 * PAGE, 0x123, 0) &&
         all_bytes(to + PAGE, 0x100, 0), "bytes around it changed");
}

static void write_to_read_only(void)
{
    uint8_t *page = memory + PAGES * PAGE;

    memset(page, 0x5a, PAGE);
    step("map-read-only", !map(IOVA_RO, page, PAGE, VFIO_DMA_MAP_FLAG_READ),
         "VFIO_IOMMU_MAP_DMA");
    /* Fill the translation cache with the right to read, then write */
    dma(IOVA_RO, 0, 64);
    stopped_dma(IOVA_RO, 1);
    step("read-only-kept", all_bytes(page, PAGE, 0x5a), "page was written");
    step("unmap-read-only", !unmap(IOVA_RO, PAGE), "VFIO_IOMMU_UNMAP_DMA");
}

static void use_unmapped(void)
{
    dma(IOVA, 0, 64);
    step("unmap", !unmap(IOVA, PAGES * PAGE), "VFIO_IOMMU_UNMAP_DMA");
    memset(memory, 0xa5, PAGE);
    stopped_dma(IOVA, 1);
    step("unmapped-kept", all_bytes(memory, PAGE, 0xa5), "page was written");
    stopped_dma(IOVA, 0);
}

static void use_again(void)
{
    step("map-again", !map(IOVA, memory + PAGE, PAGE,
                           VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE),
         "VFIO_IOMMU_MAP_DMA");
    fill(memory + PAGE, 256, 7);
    dma(IOVA, 0, 256);
    dma(IOVA + 512, 1, 256);
    step("copy-again", !memcmp(memory + PAGE, memory + PAGE + 512, 256),
         "data differ");
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        return 2;
    }
    memory = mmap(NULL, (PAGES + 1) * PAGE, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    step("memory", memory != MAP_FAILED, "mmap");
    open_all(argv[1], argv[2]);
    open_registers();
    open_interrupt();
    use();
    write_to_read_only();
    use_unmapped();
    use_again();
    printf("expected_faults=3\n");
    return 0;
}
