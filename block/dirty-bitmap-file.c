/*
 * Dirty bitmap file: a handle for a file without its disk
 *
 * What 'qemu-img create', 'info', 'check' and 'bitmap' open.  The node has the
 * size of the disk and its bitmaps; of the data it has nothing, so it neither
 * reads nor writes.  Never probed: whoever can write to a raw disk could make
 * it look like one.
 *
 * The disk is not written to meanwhile, so there are no intents, and each
 * change goes into a file that is clean before and after it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/qdict.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-block-core.h"
#include "qapi/qobject-input-visitor.h"
#include "qemu/error-report.h"
#include "qemu/module.h"
#include "qemu/option.h"
#include "qobject/qdict.h"
#include "system/block-backend.h"
#include "dirty-bitmap-node.h"

#define DBF_OPT_GRANULARITY     "granularity"
#define DBF_OPT_BITMAP          "bitmap"
#define DBF_OPT_EXTENT_SIZE     "extent-size"

/*
 * @n: the bitmaps
 * @loaded: the node has them
 * @changed: and they were changed since; guarded by the node's
 *           dirty_bitmap_mutex
 */
typedef struct BDRVDirtyBitmapFileState {
    DBFNode n;
    bool loaded;
    bool changed;
} BDRVDirtyBitmapFileState;

/* --- opening and closing --- */

static bool dbf_file_writable(BlockDriverState *bs)
{
    return !bdrv_is_read_only(bs) && !(bs->open_flags & BDRV_O_INACTIVE);
}

static void dbf_file_set_changed(BlockDriverState *bs, bool changed)
{
    BDRVDirtyBitmapFileState *s = bs->opaque;

    QEMU_LOCK_GUARD(&bs->dirty_bitmap_mutex);
    s->changed = changed;
}

static int coroutine_mixed_fn dbf_file_load(BlockDriverState *bs, Error **errp)
{
    BDRVDirtyBitmapFileState *s = bs->opaque;
    const DBFHeader *h = dbf_store_header(s->n.store);
    bool trusted = !dbf_node_distrust(&s->n, h->disk_size);
    bool clean = h->flags & DBF_CLEAN;
    DBFIntent *intents = dbf_intent_new(&s->n.io, h, h->mode);
    int ret = dbf_intent_load(intents, trusted && !clean);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "could not read the intents");
    } else {
        ret = dbf_node_load(&s->n, intents, trusted, errp);
    }
    dbf_intent_free(intents);
    if (ret == 0) {
        dbf_node_set_readonly(&s->n, !dbf_file_writable(bs));
        dbf_file_set_changed(bs, false);
        s->loaded = true;
    }
    return ret;
}

static int coroutine_mixed_fn dbf_file_reload(BlockDriverState *bs, bool load,
                                              bool repair, Error **errp)
{
    BDRVDirtyBitmapFileState *s = bs->opaque;
    int ret = 0;

    if (!dbf_node_open(&s->n, bs, bs->file, repair, errp)) {
        return -EINVAL;
    }
    bs->total_sectors = dbf_store_header(s->n.store)->disk_size /
                        BDRV_SECTOR_SIZE;
    if (load) {
        ret = dbf_file_load(bs, errp);
    }
    if (ret < 0) {
        dbf_node_close(&s->n);
    }
    return ret;
}

static int dbf_file_open(BlockDriverState *bs, QDict *options, int flags,
                         Error **errp)
{
    int ret = bdrv_open_file_child(NULL, options, "file", bs, errp);

    if (ret < 0) {
        return ret;
    }

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    return dbf_file_reload(bs, !(flags & (BDRV_O_INACTIVE | BDRV_O_NO_IO |
                                          BDRV_O_CHECK)), false, errp);
}

/* The disk is as it was: so is the hint, if it told anything */
static int coroutine_mixed_fn dbf_file_store(BlockDriverState *bs,
                                             Error **errp)
{
    BDRVDirtyBitmapFileState *s = bs->opaque;
    const DBFHeader *h = dbf_store_header(s->n.store);
    int64_t disk_time = h->flags & DBF_CLEAN ? h->disk_time_ns : 0;
    int ret;

    dbf_file_set_changed(bs, false);
    ret = dbf_node_sync(&s->n, errp);
    if (ret == 0) {
        ret = dbf_store_finish(s->n.store, dbf_node_source, disk_time);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "could not write the bitmap file");
        }
    }
    if (ret < 0 || s->n.behind) {
        dbf_file_set_changed(bs, true);
    }
    return ret;
}

static int coroutine_mixed_fn dbf_file_store_rest(BlockDriverState *bs,
                                                  Error **errp)
{
    BDRVDirtyBitmapFileState *s = bs->opaque;

    return s->loaded && s->changed && dbf_file_writable(bs) ?
        dbf_file_store(bs, errp) : 0;
}

static void dbf_file_close(BlockDriverState *bs)
{
    BDRVDirtyBitmapFileState *s = bs->opaque;
    Error *err = NULL;

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    if (dbf_file_store_rest(bs, &err) < 0) {
        error_reportf_err(err, "node '%s': ", bdrv_get_node_name(bs));
    }
    dbf_node_close(&s->n);
}

static int GRAPH_RDLOCK dbf_file_inactivate(BlockDriverState *bs)
{
    BDRVDirtyBitmapFileState *s = bs->opaque;
    const char *busy = dbf_node_busy(&s->n);
    Error *err = NULL;
    int ret;

    if (busy) {
        error_report("node '%s': bitmap '%s' is in use",
                     bdrv_get_node_name(bs), busy);
        return -EBUSY;
    }
    ret = dbf_file_store_rest(bs, &err);
    if (ret < 0) {
        error_reportf_err(err, "node '%s': ", bdrv_get_node_name(bs));
        return ret;
    }
    if (s->loaded) {
        s->loaded = false;
        dbf_node_release(&s->n);
    }
    dbf_node_close(&s->n);
    return 0;
}

static void coroutine_fn GRAPH_RDLOCK
dbf_file_co_invalidate_cache(BlockDriverState *bs, Error **errp)
{
    BDRVDirtyBitmapFileState *s = bs->opaque;

    dbf_node_close(&s->n);
    dbf_file_reload(bs, !(bs->open_flags & BDRV_O_NO_IO), false, errp);
}

/* --- bitmaps --- */

static void dbf_file_changed(BlockDriverState *bs, BdrvDirtyBitmap *bitmap,
                             bool gone)
{
    BDRVDirtyBitmapFileState *s = bs->opaque;

    s->changed = true;
}

static int coroutine_fn GRAPH_RDLOCK
dbf_file_co_store_dirty_bitmaps(BlockDriverState *bs, Error **errp)
{
    return dbf_file_store_rest(bs, errp);
}

static bool dbf_file_supports_persistent(BlockDriverState *bs)
{
    return true;
}

static bool coroutine_fn GRAPH_RDLOCK
dbf_file_co_can_store_new(BlockDriverState *bs, const char *name,
                          uint32_t granularity, Error **errp)
{
    BDRVDirtyBitmapFileState *s = bs->opaque;

    if (!s->loaded || !dbf_file_writable(bs)) {
        error_setg(errp, "Can't store bitmap '%s' in '%s': it is read-only",
                   name, bdrv_get_device_or_node_name(bs));
        return false;
    }
    return dbf_node_can_store(&s->n, name, granularity, errp);
}

/* It leaves the file when it has left the node */
static int coroutine_fn GRAPH_RDLOCK
dbf_file_co_remove_persistent(BlockDriverState *bs, const char *name,
                              Error **errp)
{
    return 0;
}

/* --- reopening --- */

static int dbf_file_reopen_prepare(BDRVReopenState *state,
                                   BlockReopenQueue *queue, Error **errp)
{
    BDRVDirtyBitmapFileState *s = state->bs->opaque;
    int ret;

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    if (state->flags & BDRV_O_RDWR) {
        return 0;
    }
    ret = dbf_file_store_rest(state->bs, errp);
    if (ret == 0 && s->loaded) {
        dbf_node_set_readonly(&s->n, true);
        dbf_file_set_changed(state->bs, false);
    }
    return ret;
}

static void dbf_file_reopen_done(BDRVReopenState *state)
{
    BDRVDirtyBitmapFileState *s = state->bs->opaque;

    if (s->loaded) {
        dbf_node_set_readonly(&s->n, !dbf_file_writable(state->bs));
    }
}

/* --- reports --- */

/* Take what can be read, store it, and look at the file anew */
static int coroutine_mixed_fn dbf_file_repair(BlockDriverState *bs)
{
    BDRVDirtyBitmapFileState *s = bs->opaque;
    Error *err = NULL;
    int ret;

    dbf_node_close(&s->n);
    ret = dbf_file_reload(bs, true, true, &err);
    if (ret == 0) {
        ret = dbf_file_store(bs, &err);
        s->loaded = false;
        dbf_node_release(&s->n);
        dbf_node_close(&s->n);
    }
    if (ret == 0) {
        ret = dbf_file_reload(bs, false, false, &err);
    }
    if (ret < 0) {
        error_reportf_err(err, "node '%s': ", bdrv_get_node_name(bs));
    }
    return ret;
}

/*
 * What cannot be read becomes dirty, and a bitmap that leads to another one's
 * blocks inconsistent; no other bitmap is touched.
 */
static int coroutine_fn GRAPH_RDLOCK
dbf_file_co_check(BlockDriverState *bs, BdrvCheckResult *result,
                  BdrvCheckMode fix)
{
    BDRVDirtyBitmapFileState *s = bs->opaque;
    int corruptions = result->corruptions, leaks = result->leaks;
    int ret = dbf_node_check(&s->n, result);

    if (ret < 0) {
        result->check_errors++;
        return ret;
    }
    corruptions = result->corruptions - corruptions;
    leaks = result->leaks - leaks;
    if ((corruptions && (fix & BDRV_FIX_ERRORS)) ||
        (leaks && !corruptions && (fix & BDRV_FIX_LEAKS))) {
        ret = dbf_file_repair(bs);
        if (ret < 0) {
            result->check_errors++;
            return ret;
        }
        result->corruptions_fixed += corruptions;
        result->leaks_fixed += leaks;
    }
    return 0;
}

static ImageInfoSpecific *dbf_file_get_specific_info(BlockDriverState *bs,
                                                     Error **errp)
{
    BDRVDirtyBitmapFileState *s = bs->opaque;
    ImageInfoSpecific *info;

    if (!s->n.store) {
        return NULL;
    }
    info = g_new0(ImageInfoSpecific, 1);
    info->type = IMAGE_INFO_SPECIFIC_KIND_DIRTY_BITMAP_FILE;
    info->u.dirty_bitmap_file.data = dbf_node_info(&s->n);
    return info;
}

/* --- what it does not have --- */

static int coroutine_fn GRAPH_RDLOCK
dbf_file_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                   QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    return -ENOTSUP;
}

static int coroutine_fn GRAPH_RDLOCK
dbf_file_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                    QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    return -ENOTSUP;
}

/* --- making one --- */

static int coroutine_mixed_fn dbf_blk_pread(void *opaque, uint64_t offset,
                                            void *buf, size_t bytes)
{
    return blk_pread(opaque, offset, bytes, buf, 0);
}

static int coroutine_mixed_fn dbf_blk_pwrite(void *opaque, uint64_t offset,
                                             const void *buf, size_t bytes)
{
    return blk_pwrite(opaque, offset, bytes, buf, 0);
}

static int coroutine_mixed_fn dbf_blk_flush(void *opaque)
{
    return blk_flush(opaque);
}

static int64_t coroutine_mixed_fn dbf_blk_length(void *opaque)
{
    return blk_getlength(opaque);
}

static int coroutine_mixed_fn dbf_blk_truncate(void *opaque, uint64_t length)
{
    return blk_truncate(opaque, length, false, PREALLOC_MODE_OFF, 0, NULL);
}

/* A DBFSource: a new bitmap has no bits */
static void dbf_source_nothing(void *opaque, uint64_t first, uint64_t n,
                               uint8_t *payload)
{
}

static bool coroutine_fn dbf_create_bitmap(const DBFIO *io, const char *name,
                                           uint64_t granularity, Error **errp)
{
    DBFStore *store = dbf_store_open(io, false, errp);
    int ret = -EINVAL;

    if (store && dbf_store_add(store, name, ctz64(granularity), errp)) {
        ret = dbf_store_finish(store, dbf_source_nothing, 0);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "could not write the bitmap");
        }
    }
    dbf_store_free(store);
    return ret == 0;
}

static bool dbf_create_power_of_2(const char *name, bool given,
                                  uint64_t value, Error **errp)
{
    if (given && !is_power_of_2(value)) {
        error_setg(errp, "%s %" PRIu64 " is not a power of 2", name, value);
        return false;
    }
    return true;
}

/* Fill in what was not given, before anything is overwritten */
static bool dbf_create_check(BlockdevCreateOptionsDirtyBitmapFile *opts,
                             Error **errp)
{
    if (!dbf_create_power_of_2(DBF_OPT_GRANULARITY, opts->has_granularity,
                               opts->granularity, errp) ||
        !dbf_create_power_of_2(DBF_OPT_EXTENT_SIZE, opts->has_extent_size,
                               opts->extent_size, errp)) {
        return false;
    }
    if (!dbf_disk_check(opts->size, opts->has_extent_size ?
                        ctz64(opts->extent_size) : DBF_MAX_EXTENT, errp)) {
        return false;
    }
    if (opts->has_granularity && !opts->bitmap) {
        opts->bitmap = g_strdup("bitmap0");
    }
    if (!opts->has_granularity) {
        opts->granularity = 65536;
    }
    return !opts->bitmap ||
        dbf_bitmap_check(opts->bitmap, strlen(opts->bitmap),
                         ctz64(opts->granularity), opts->size, errp);
}

static bool coroutine_fn
dbf_create(BlockBackend *blk, const BlockdevCreateOptionsDirtyBitmapFile *opts,
           Error **errp)
{
    DBFIO io = {
        dbf_blk_pread, dbf_blk_pwrite, dbf_blk_flush, dbf_blk_length,
        dbf_blk_truncate, blk,
    };
    unsigned extent_bits = opts->has_extent_size ? ctz64(opts->extent_size)
                                                 : 0;

    blk_set_allow_write_beyond_eof(blk, true);
    return dbf_store_create(&io, opts->size, extent_bits, errp) &&
        (!opts->bitmap ||
         dbf_create_bitmap(&io, opts->bitmap, opts->granularity, errp));
}

static int coroutine_fn GRAPH_UNLOCKED
dbf_file_co_create(BlockdevCreateOptions *options, Error **errp)
{
    BlockdevCreateOptionsDirtyBitmapFile *opts = &options->u.dirty_bitmap_file;
    BlockDriverState *bs;
    BlockBackend *blk;
    int ret = -EINVAL;

    if (!dbf_create_check(opts, errp)) {
        return -EINVAL;
    }
    bs = bdrv_co_open_blockdev_ref(opts->file, errp);
    if (!bs) {
        return -EIO;
    }
    blk = blk_co_new_with_bs(bs, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE |
                             BLK_PERM_RESIZE, BLK_PERM_ALL, errp);
    if (blk) {
        ret = dbf_create(blk, opts, errp) ? 0 : -EINVAL;
        blk_co_unref(blk);
    }
    bdrv_co_unref(bs);
    return ret;
}

static QemuOptsList dbf_file_create_opts = {
    .name = "dirty-bitmap-file-create-opts",
    .head = QTAILQ_HEAD_INITIALIZER(dbf_file_create_opts.head),
    .desc = {
        {
            .name = BLOCK_OPT_SIZE,
            .type = QEMU_OPT_SIZE,
            .help = "Size of the disk that the bitmaps are for",
        },
        {
            .name = DBF_OPT_GRANULARITY,
            .type = QEMU_OPT_SIZE,
            .help = "Granularity of a first bitmap: a power of 2 from 512 to "
                    "2 GiB",
        },
        {
            .name = DBF_OPT_BITMAP,
            .type = QEMU_OPT_STRING,
            .help = "Name of a first bitmap; bitmap0 if a granularity is "
                    "given, else there is none",
        },
        {
            .name = DBF_OPT_EXTENT_SIZE,
            .type = QEMU_OPT_SIZE,
            .help = "How much of the disk is dirty at least after a crash "
                    "during a write: a power of 2 from 1 MiB to 1 TiB",
        },
        { /* end of list */ }
    }
};

/*
 * What was given to 'qemu-img create', with the size rounded up to sectors.
 * The file is not there yet.  Returns NULL with @errp set.
 */
static BlockdevCreateOptions *dbf_create_options(QemuOpts *opts, Error **errp)
{
    QDict *qdict = qemu_opts_to_qdict_filtered(opts, NULL,
                                               &dbf_file_create_opts, true);
    BlockdevCreateOptions *options = NULL;
    BlockdevCreateOptionsDirtyBitmapFile *ours;
    Visitor *v;

    qdict_put_str(qdict, "driver", "dirty-bitmap-file");
    qdict_put_str(qdict, "file", "");
    v = qobject_input_visitor_new_flat_confused(qdict, errp);
    if (v) {
        visit_type_BlockdevCreateOptions(v, NULL, &options, errp);
        visit_free(v);
    }
    qobject_unref(qdict);
    if (!options) {
        return NULL;
    }
    ours = &options->u.dirty_bitmap_file;
    ours->size = ROUND_UP(ours->size, BDRV_SECTOR_SIZE);
    if (!dbf_create_check(ours, errp)) {
        qapi_free_BlockdevCreateOptions(options);
        return NULL;
    }
    return options;
}

static int coroutine_fn GRAPH_UNLOCKED
dbf_create_file(const char *filename, QemuOpts *opts,
                BlockdevCreateOptions *options, Error **errp)
{
    char **node = &options->u.dirty_bitmap_file.file->u.reference;
    int ret = bdrv_co_create_file(filename, opts, errp);
    BlockDriverState *bs;

    if (ret < 0) {
        return ret;
    }
    bs = bdrv_co_open(filename, NULL, NULL, BDRV_O_RDWR | BDRV_O_RESIZE |
                      BDRV_O_PROTOCOL, errp);
    if (!bs) {
        return -EIO;
    }
    g_free(*node);
    *node = g_strdup(bs->node_name);
    ret = dbf_file_co_create(options, errp);
    if (ret < 0) {
        bdrv_graph_co_rdlock();
        bdrv_co_delete_file_noerr(bs);
        bdrv_graph_co_rdunlock();
    }
    bdrv_co_unref(bs);
    return ret;
}

static int coroutine_fn GRAPH_UNLOCKED
dbf_file_co_create_opts(BlockDriver *drv, const char *filename,
                        QemuOpts *opts, Error **errp)
{
    BlockdevCreateOptions *options = dbf_create_options(opts, errp);
    int ret = options ? dbf_create_file(filename, opts, options, errp)
                      : -EINVAL;

    qapi_free_BlockdevCreateOptions(options);
    return ret;
}

static BlockDriver bdrv_dirty_bitmap_file = {
    .format_name                    = "dirty-bitmap-file",
    .instance_size                  = sizeof(BDRVDirtyBitmapFileState),
    .is_format                      = true,

    .bdrv_open                      = dbf_file_open,
    .bdrv_close                     = dbf_file_close,
    .bdrv_child_perm                = bdrv_default_perms,
    .bdrv_reopen_prepare            = dbf_file_reopen_prepare,
    .bdrv_reopen_commit_post        = dbf_file_reopen_done,
    .bdrv_reopen_abort              = dbf_file_reopen_done,
    .bdrv_inactivate                = dbf_file_inactivate,
    .bdrv_co_invalidate_cache       = dbf_file_co_invalidate_cache,

    .bdrv_co_create                 = dbf_file_co_create,
    .bdrv_co_create_opts            = dbf_file_co_create_opts,
    .create_opts                    = &dbf_file_create_opts,

    .bdrv_co_check                  = dbf_file_co_check,
    .bdrv_get_specific_info         = dbf_file_get_specific_info,

    .bdrv_co_preadv                 = dbf_file_co_preadv,
    .bdrv_co_pwritev                = dbf_file_co_pwritev,

    .bdrv_supports_persistent_dirty_bitmap = dbf_file_supports_persistent,
    .bdrv_co_can_store_new_dirty_bitmap = dbf_file_co_can_store_new,
    .bdrv_co_remove_persistent_dirty_bitmap = dbf_file_co_remove_persistent,
    .bdrv_dirty_bitmap_changed      = dbf_file_changed,
    .bdrv_co_store_dirty_bitmaps    = dbf_file_co_store_dirty_bitmaps,
};

static void bdrv_dirty_bitmap_file_init(void)
{
    bdrv_register(&bdrv_dirty_bitmap_file);
}

block_init(bdrv_dirty_bitmap_file_init);
