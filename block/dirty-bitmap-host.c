/*
 * Dirty bitmap file: what the host knows
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#ifdef CONFIG_LINUX
#include <sys/vfs.h>
#include <linux/magic.h>
#endif
#include "dirty-bitmap-host.h"

/* Not in linux/magic.h of all hosts */
#define DBF_CIFS_MAGIC          0xff534d42U
#define DBF_SMB2_MAGIC          0xfe534d42U
#define DBF_CEPH_MAGIC          0x00c36400U
#define DBF_FUSE_MAGIC          0x65735546U
#define DBF_9P_MAGIC            0x01021997U

/*
 * The node with the bytes of @bs as they are in a file or a device, or NULL:
 * formats have them elsewhere, and preallocate cuts its file when it is closed.
 */
static BlockDriverState * GRAPH_RDLOCK dbf_host_node(BlockDriverState *bs)
{
    while (bs && bs->drv && strcmp(bs->drv->format_name, "preallocate") &&
           (bs->drv->is_filter || !strcmp(bs->drv->format_name, "raw"))) {
        bs = bdrv_primary_bs(bs);
    }
    return bs && bs->drv ? bs : NULL;
}

static bool dbf_is_driver(const BlockDriverState *bs, const char *name)
{
    return bs && !strcmp(bs->drv->format_name, name);
}

bool dbf_host_is_device(BlockDriverState *bs)
{
    return dbf_is_driver(dbf_host_node(bs), "host_device");
}

static bool dbf_is_remote(const char *filename)
{
#ifdef CONFIG_LINUX
    struct statfs st;

    if (statfs(filename, &st) == 0) {
        switch ((uint32_t)st.f_type) {
        case NFS_SUPER_MAGIC:
        case SMB_SUPER_MAGIC:
        case AFS_SUPER_MAGIC:
        case CODA_SUPER_MAGIC:
        case DBF_CIFS_MAGIC:
        case DBF_SMB2_MAGIC:
        case DBF_CEPH_MAGIC:
        case DBF_FUSE_MAGIC:
        case DBF_9P_MAGIC:
            return true;
        default:
            return false;
        }
    }
#endif
    return true;
}

static QemuUUID dbf_read_boot_id(void)
{
    g_autofree char *text = NULL;
    QemuUUID id = {};

    if (g_file_get_contents("/proc/sys/kernel/random/boot_id", &text, NULL,
                            NULL) &&
        qemu_uuid_parse(g_strchomp(text), &id) == 0) {
        return id;
    }
    return (QemuUUID) {};
}

QemuUUID dbf_host_boot_id(BlockDriverState *bs)
{
    BlockDriverState *host = dbf_host_node(bs);

    if (dbf_host_is_device(bs) ||
        (dbf_is_driver(host, "file") && !dbf_is_remote(host->filename))) {
        return dbf_read_boot_id();
    }
    return (QemuUUID) {};
}

int64_t dbf_host_disk_time(BlockDriverState *bs)
{
    struct stat st;

    bs = dbf_host_node(bs);
    if (!dbf_is_driver(bs, "file") || stat(bs->filename, &st) < 0 ||
        !S_ISREG(st.st_mode)) {
        return 0;
    }
#ifdef CONFIG_LINUX
    return st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
#else
    return st.st_mtime * INT64_C(1000000000);
#endif
}
