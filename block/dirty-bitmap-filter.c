/*
 * Dirty bitmap filter: persistent bitmaps for any disk
 *
 *   write --> intent --> data --> bits --> intent may go
 *                 \                          ^
 *                  (file)    checkpoint: bits --> file
 *
 * Bitmaps of this node are kept in a file of their own, beside the disk.  What
 * a crash leaves behind is the file as of the last checkpoint, and an intent
 * for each extent of the disk that was written to since: that is dirty when
 * the file is opened again.  So a write waits for the file only if its extent
 * has no intent yet.
 *
 * The core sets its bits when a request is over; that is too late for an
 * intent, so they are set here, before it may go.
 *
 * Changes of bitmaps that are no writes are stored before they are
 * acknowledged, see bdrv_store_dirty_bitmaps().
 *
 * Where an intent cannot be recorded, the file says first that it is not to be
 * trusted, then writes go on.  Bitmaps in memory are right all the time, and
 * checkpoints try to make the file so again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/qdict.h"
#include "block/snapshot.h"
#include "qapi/error.h"
#include "qapi/qapi-events-block-core.h"
#include "qemu/coroutine.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/module.h"
#include "qemu/option.h"
#include "qobject/qdict.h"
#include "dirty-bitmap-host.h"
#include "dirty-bitmap-node.h"
#include "trace.h"

#define DBF_OPT_CRASH_SAFE      "crash-safe"
#define DBF_OPT_ON_CORRUPT      "on-corrupt"
#define DBF_OPT_ON_ERROR        "on-bitmap-error"

/* A checkpoint begins when so many extents have intents, or so much later */
#define DBF_MAX_UNCLEAN         1024U
#define DBF_CHECKPOINT_MS       10000

typedef struct DBFOptions {
    DBFMode mode;
    OnCorruptDirtyBitmap on_corrupt;
    OnDirtyBitmapError on_error;
} DBFOptions;

typedef struct BDRVDirtyBitmapState {
    /* Changed in the main thread, while there are no requests */
    DBFOptions options;
    BdrvChild *bitmap;
    /*
     * Without a store, there is nothing to record: the node is read-only or
     * inactive, or the file is of no use, and @error says why.
     */
    DBFNode n;
    bool active;
    char *error;
    /* A crash has left it behind, and the bitmaps are better than the file */
    bool recovered;

    /* Whose use, but for begin and end, is guarded by @lock */
    DBFIntent *intents;
    /* Guards what follows, and the store */
    CoMutex lock;
    /* The file says that it is in use; read by writes without the lock */
    bool begun;
    /* Heal has failed, or more: @intents are to be read again */
    bool stale;
    /* Nothing is recorded in the file, which says so unless that failed, too */
    bool lost;
    /* It should be lost, but the file could not be told; read without @lock */
    bool broken;
    /* The user was told that the file is not trusted */
    bool told;
    /* Of the disk, as the file has it; read without @lock */
    uint64_t size;

    unsigned drained;
    /* There is a checkpoint: in the main thread alone */
    bool checkpoint;
    /* One is wanted; set by any thread */
    bool wanted;
    /* The last one has failed: the next one has time */
    bool failed;
    /* A bitmap was changed, the file does not know; set by any thread */
    bool changed;
    QEMUBH *kick;
    QEMUTimer *timer;
    uint64_t checkpoints;

    /*
     * There is a user above, so nobody else may write, see dbf_child_perm().
     * Else what others write is seen by the generations of the nodes below.
     */
    bool exclusive;
    unsigned disk_gen;
} BDRVDirtyBitmapState;

/* --- events --- */

static void dbf_report(BlockDriverState *bs, bool trusted, const char *error)
{
    BDRVDirtyBitmapState *s = bs->opaque;

    s->told = !trusted;
    if (trusted) {
        info_report("node '%s': the bitmap file is trusted again",
                    bdrv_get_node_name(bs));
    } else {
        warn_report("node '%s': changes are not recorded in the bitmap file: "
                    "%s", bdrv_get_node_name(bs), error);
    }
    qapi_event_send_dirty_bitmap_file_state(bdrv_get_node_name(bs), trusted,
                                            error);
}

/* --- starting to record, and ceasing to --- */

static bool dbf_is_writable(BlockDriverState *bs)
{
    return !bdrv_is_read_only(bs) && !(bs->open_flags & BDRV_O_INACTIVE);
}

static uint64_t dbf_disk_size(BlockDriverState *bs)
{
    return (uint64_t)bs->total_sectors * BDRV_SECTOR_SIZE;
}

static void dbf_timer_mod(BDRVDirtyBitmapState *s)
{
    timer_mod(s->timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
              DBF_CHECKPOINT_MS);
}

/*
 * Read the intents; they count if @keep.  There are no writes on their way:
 * they would have the old ones.
 */
static int coroutine_mixed_fn dbf_read_intents(BDRVDirtyBitmapState *s,
                                               bool keep)
{
    dbf_intent_free(s->intents);
    s->intents = dbf_intent_new(&s->n.io, dbf_store_header(s->n.store),
                                s->options.mode);
    s->stale = false;
    return dbf_intent_load(s->intents, keep);
}

/* A DBFCommit */
static int coroutine_fn dbf_begin_commit(void *opaque)
{
    BDRVDirtyBitmapState *s = opaque;

    return dbf_store_begin(s->n.store, dbf_node_source, s->options.mode,
                           &s->n.boot_id);
}

/* Called with @lock held */
static int coroutine_fn dbf_start_locked(BDRVDirtyBitmapState *s)
{
    int ret = 0;

    if (s->stale) {
        ret = dbf_read_intents(s, s->recovered);
    }
    s->stale = true;
    if (ret == 0) {
        ret = dbf_intent_heal(s->intents);
    }
    if (ret == 0) {
        ret = dbf_node_sync(&s->n, NULL);
    }
    if (ret == 0) {
        /* To another area, if the disk has another size than the file knew */
        ret = dbf_intent_move(s->intents, dbf_store_wanted(s->n.store),
                              dbf_begin_commit, s);
    }
    if (ret == 0) {
        s->stale = false;
        qatomic_set(&s->size, dbf_store_wanted(s->n.store)->disk_size);
        qatomic_store_release(&s->begun, true);
        dbf_timer_mod(s);
    }
    trace_dbf_start(s->n.bs, ret);
    return ret;
}

static int coroutine_fn dbf_start(BDRVDirtyBitmapState *s)
{
    int ret;

    qemu_co_mutex_lock(&s->lock);
    ret = s->begun ? 0 : dbf_start_locked(s);
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}

/*
 * Called with @lock held.  @why something cannot be recorded: record no more.
 * Returns 0 if writes may go on, because the file says that it is not to be
 * trusted, or because that is what the user has chosen.
 */
static int coroutine_fn dbf_lose_locked(BlockDriverState *bs, int why)
{
    BDRVDirtyBitmapState *s = bs->opaque;
    int ret;

    if (s->lost) {
        return 0;
    }
    ret = dbf_store_untrust(s->n.store);
    trace_dbf_lose(bs, why, ret);
    if (ret < 0 && s->options.on_error == ON_DIRTY_BITMAP_ERROR_FAIL) {
        return ret;
    }
    dbf_intent_suspend(s->intents);
    s->lost = true;
    qatomic_set(&s->broken, false);
    qatomic_set(&s->size, dbf_store_wanted(s->n.store)->disk_size);
    qatomic_store_release(&s->begun, true);
    dbf_timer_mod(s);
    dbf_report(bs, false, strerror(-why));
    return 0;
}

static int coroutine_fn dbf_lose(BlockDriverState *bs, int why)
{
    BDRVDirtyBitmapState *s = bs->opaque;
    int ret;

    qemu_co_mutex_lock(&s->lock);
    ret = dbf_lose_locked(bs, why);
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}

/*
 * Called with @lock held: intents are recorded again, though not trusted yet.
 * Those that could not be read or healed never are, until the file is closed.
 */
static int coroutine_fn dbf_regain_locked(BDRVDirtyBitmapState *s)
{
    int ret = s->stale ? -EIO : dbf_intent_resume(s->intents);

    if (ret == 0) {
        dbf_store_trust(s->n.store);
    }
    return ret;
}

/* --- checkpoints --- */

/*
 * What a bitmap has lost because it is in a backup must not come back on the
 * disk as it was before, when the power goes: the disk comes first.
 */
static int coroutine_fn GRAPH_RDLOCK dbf_commit(BDRVDirtyBitmapState *s)
{
    int ret = s->options.mode == DBF_MODE_POWER ?
        bdrv_co_flush(s->n.bs->file->bs) : 0;

    return ret < 0 ? ret : dbf_store_commit(s->n.store, dbf_node_source);
}

/*
 * Called with @lock held.  The bitmaps get into the file as they are, and what
 * had an intent for that needs none any more.
 */
static int coroutine_fn GRAPH_RDLOCK
dbf_store_locked(BDRVDirtyBitmapState *s, Error **errp)
{
    /* What the file has of a bitmap that is held is not all that it has */
    bool held = dbf_node_held(&s->n);
    int ret, sync;

    qatomic_set(&s->changed, held);
    if (!held) {
        dbf_intent_snapshot(s->intents, dbf_node_touched, &s->n);
    }
    sync = dbf_node_sync(&s->n, errp);
    ret = dbf_commit(s);
    if (ret < 0) {
        qatomic_set(&s->changed, true);
        error_setg_errno(sync < 0 ? NULL : errp, -ret,
                         "could not write the bitmap file");
    } else if (!held && !s->lost) {
        /* What cannot be removed stays, and does no harm */
        dbf_intent_retire(s->intents);
    }
    trace_dbf_checkpoint(s->n.bs, dbf_intent_count(s->intents), ret);
    return ret < 0 ? ret : sync;
}

/* Called with @lock held */
static int coroutine_fn GRAPH_RDLOCK
dbf_checkpoint_locked(BlockDriverState *bs, Error **errp)
{
    BDRVDirtyBitmapState *s = bs->opaque;
    bool lost = s->lost || s->broken;
    int ret = lost ? dbf_regain_locked(s) : 0;

    if (ret < 0) {
        error_setg_errno(errp, -ret, "could not record intents");
        return ret;
    }
    s->lost = false;
    qatomic_set(&s->broken, false);
    ret = dbf_store_locked(s, errp);
    if (ret == 0 && s->told) {
        dbf_report(bs, true, NULL);
    } else if (ret < 0 && lost && dbf_store_untrust(s->n.store) == 0) {
        dbf_intent_suspend(s->intents);
        s->lost = true;
    }
    s->checkpoints++;
    return ret;
}

static void coroutine_fn dbf_checkpoint_entry(void *opaque)
{
    BlockDriverState *bs = opaque;
    BDRVDirtyBitmapState *s = bs->opaque;
    int ret;

    WITH_GRAPH_RDLOCK_GUARD() {
        qemu_co_mutex_lock(&s->lock);
        ret = s->begun ? 0 : dbf_start_locked(s);
        if (ret == 0) {
            ret = dbf_checkpoint_locked(bs, NULL);
        }
        qatomic_set(&s->failed, ret < 0);
        qemu_co_mutex_unlock(&s->lock);
    }
    dbf_timer_mod(s);
    s->checkpoint = false;
    if (qatomic_read(&s->wanted)) {
        qemu_bh_schedule(s->kick);
    }
    bdrv_dec_in_flight(bs);
}

/* In the main thread */
static void dbf_checkpoint_bh(void *opaque)
{
    BlockDriverState *bs = opaque;
    BDRVDirtyBitmapState *s = bs->opaque;

    if (s->checkpoint || qatomic_read(&s->drained) || !s->active ||
        !qatomic_xchg(&s->wanted, false)) {
        return;
    }
    s->checkpoint = true;
    bdrv_inc_in_flight(bs);
    qemu_coroutine_enter(qemu_coroutine_create(dbf_checkpoint_entry, bs));
}

/* From any thread */
static void dbf_want_checkpoint(BDRVDirtyBitmapState *s)
{
    qatomic_set(&s->wanted, true);
    qemu_bh_schedule(s->kick);
}

static void dbf_timer(void *opaque)
{
    BlockDriverState *bs = opaque;
    BDRVDirtyBitmapState *s = bs->opaque;

    if (!s->active) {
        return;
    }
    if (s->lost || s->broken || qatomic_read(&s->changed) ||
        (s->begun && dbf_intent_count(s->intents) > 0)) {
        dbf_want_checkpoint(s);
    } else {
        dbf_timer_mod(s);
    }
}

static void dbf_drain_begin(BlockDriverState *bs)
{
    BDRVDirtyBitmapState *s = bs->opaque;

    qatomic_inc(&s->drained);
}

static void dbf_drain_end(BlockDriverState *bs)
{
    BDRVDirtyBitmapState *s = bs->opaque;

    if (qatomic_dec_fetch(&s->drained) == 0 && qatomic_read(&s->wanted)) {
        qemu_bh_schedule(s->kick);
    }
}

/* --- the size that the file knows --- */

/* A DBFCommit */
static int coroutine_fn dbf_size_commit(void *opaque)
{
    BDRVDirtyBitmapState *s = opaque;

    return dbf_store_commit(s->n.store, dbf_node_source);
}

/* Called with @lock held: the file is for a disk of @size */
static int coroutine_fn dbf_set_size_locked(BDRVDirtyBitmapState *s,
                                            uint64_t size, Error **errp)
{
    int ret;

    if (!dbf_store_resize(s->n.store, size, errp)) {
        return -EFBIG;
    }
    ret = dbf_intent_move(s->intents, dbf_store_wanted(s->n.store),
                          dbf_size_commit, s);
    if (ret == 0 && !s->lost) {
        /* Where an attempt has failed before, they are suspended */
        ret = dbf_intent_resume(s->intents);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "could not resize the bitmap file");
        qatomic_set(&s->broken, !s->lost);
    } else {
        qatomic_set(&s->size, size);
        qatomic_set(&s->broken, false);
    }
    return ret;
}

/* For a user that writes behind the end: @end is going to be there */
static int coroutine_fn dbf_grow(BlockDriverState *bs, uint64_t end)
{
    BDRVDirtyBitmapState *s = bs->opaque;
    int ret = 0;

    if (dbf_node_busy(&s->n)) {
        return -EBUSY;
    }
    qemu_co_mutex_lock(&s->lock);
    if (end > s->size) {
        ret = dbf_set_size_locked(s, ROUND_UP(end, BDRV_SECTOR_SIZE), NULL);
    }
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}


/* --- writes --- */

/* The file is to know the disk up to @end, and to have intents for it */
static int coroutine_fn GRAPH_RDLOCK
dbf_write_prepare(BlockDriverState *bs, uint64_t end)
{
    BDRVDirtyBitmapState *s = bs->opaque;
    int ret = 0;

    if (!qatomic_load_acquire(&s->begun)) {
        ret = dbf_start(s);
        if (ret < 0) {
            ret = dbf_lose(bs, ret);
        }
    }
    if (ret == 0 && end > qatomic_read(&s->size)) {
        ret = dbf_grow(bs, end);
    }
    if (ret == 0 && qatomic_read(&s->broken)) {
        ret = dbf_lose(bs, -EIO);
    }
    return ret;
}

/*
 * When it has returned 0, the disk may be written to there, and however it
 * ends, dbf_write_end() follows: a crash in between leaves it dirty.
 */
static int coroutine_fn GRAPH_RDLOCK
dbf_write_begin(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BDRVDirtyBitmapState *s = bs->opaque;
    int ret;

    if (!s->active) {
        return 0;
    }
    ret = dbf_write_prepare(bs, offset + bytes);
    if (ret == 0) {
        ret = dbf_intent_begin(s->intents, offset, bytes);
        if (ret < 0 && dbf_lose(bs, ret) == 0) {
            /* Nothing is recorded any more, so nothing fails */
            ret = dbf_intent_begin(s->intents, offset, bytes);
        }
    }
    return ret;
}

/* How much of @bytes at @offset is not behind the end of the disk */
static int64_t dbf_known(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int64_t end = MIN(offset + bytes, (int64_t)dbf_disk_size(bs));

    return MAX(end - offset, 0);
}

static void coroutine_fn GRAPH_RDLOCK
dbf_write_end(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BDRVDirtyBitmapState *s = bs->opaque;

    if (!s->active) {
        return;
    }
    /* What is behind the end is going to be dirty because the disk grows */
    bdrv_set_dirty(bs, offset, dbf_known(bs, offset, bytes));
    dbf_intent_end(s->intents, offset, bytes);
    if (dbf_intent_count(s->intents) > DBF_MAX_UNCLEAN &&
        !qatomic_read(&s->wanted) && !qatomic_read(&s->failed)) {
        dbf_want_checkpoint(s);
    }
}

static int coroutine_fn GRAPH_RDLOCK
dbf_co_preadv_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                   QEMUIOVector *qiov, size_t qiov_offset,
                   BdrvRequestFlags flags)
{
    return bdrv_co_preadv_part(bs->file, offset, bytes, qiov, qiov_offset,
                               flags);
}

static int coroutine_fn GRAPH_RDLOCK
dbf_co_pwritev_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                    QEMUIOVector *qiov, size_t qiov_offset,
                    BdrvRequestFlags flags)
{
    int ret = dbf_write_begin(bs, offset, bytes);

    if (ret == 0) {
        ret = bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset,
                                   flags);
        dbf_write_end(bs, offset, bytes);
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK
dbf_co_pwritev_compressed_part(BlockDriverState *bs, int64_t offset,
                               int64_t bytes, QEMUIOVector *qiov,
                               size_t qiov_offset)
{
    return dbf_co_pwritev_part(bs, offset, bytes, qiov, qiov_offset,
                               BDRV_REQ_WRITE_COMPRESSED);
}

static int coroutine_fn GRAPH_RDLOCK
dbf_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                     BdrvRequestFlags flags)
{
    int ret = dbf_write_begin(bs, offset, bytes);

    if (ret == 0) {
        ret = bdrv_co_pwrite_zeroes(bs->file, offset, bytes, flags);
        dbf_write_end(bs, offset, bytes);
    }
    return ret;
}

/* What is behind the end of the disk has no bits */
static int coroutine_fn GRAPH_RDLOCK
dbf_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int64_t known = dbf_known(bs, offset, bytes);
    int ret = dbf_write_begin(bs, offset, known);

    if (ret == 0) {
        ret = bdrv_co_pdiscard(bs->file, offset, bytes);
        dbf_write_end(bs, offset, known);
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK
dbf_co_copy_range_from(BlockDriverState *bs, BdrvChild *src, int64_t offset,
                       BdrvChild *dst, int64_t dst_offset, int64_t bytes,
                       BdrvRequestFlags read_flags,
                       BdrvRequestFlags write_flags)
{
    return bdrv_co_copy_range_from(bs->file, offset, dst, dst_offset, bytes,
                                   read_flags, write_flags);
}

static int coroutine_fn GRAPH_RDLOCK
dbf_co_copy_range_to(BlockDriverState *bs, BdrvChild *src, int64_t src_offset,
                     BdrvChild *dst, int64_t offset, int64_t bytes,
                     BdrvRequestFlags read_flags,
                     BdrvRequestFlags write_flags)
{
    int ret = dbf_write_begin(bs, offset, bytes);

    if (ret == 0) {
        ret = bdrv_co_copy_range_to(src, src_offset, bs->file, offset, bytes,
                                    read_flags, write_flags);
        dbf_write_end(bs, offset, bytes);
    }
    return ret;
}

/* What the guest flushes is the disk; the bitmap file has its own order */
static int coroutine_fn GRAPH_RDLOCK dbf_co_flush(BlockDriverState *bs)
{
    return bdrv_co_flush(bs->file->bs);
}

/* --- size --- */

static int64_t coroutine_fn GRAPH_RDLOCK dbf_co_getlength(BlockDriverState *bs)
{
    return bdrv_co_getlength(bs->file->bs);
}

/* Called with @lock held.  The file knows first, then the disk follows */
static int coroutine_fn GRAPH_RDLOCK
dbf_truncate_locked(BlockDriverState *bs, int64_t offset, bool exact,
                    PreallocMode prealloc, BdrvRequestFlags flags,
                    Error **errp)
{
    BDRVDirtyBitmapState *s = bs->opaque;
    uint64_t size = ROUND_UP(offset, BDRV_SECTOR_SIZE);
    int ret = dbf_set_size_locked(s, size, errp);

    if (ret == 0) {
        ret = bdrv_co_truncate(bs->file, offset, exact, prealloc, flags, errp);
    }
    if (ret < 0) {
        /* If that fails, writes do until the file says that it is not right */
        dbf_set_size_locked(s, dbf_disk_size(bs), NULL);
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK
dbf_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                PreallocMode prealloc, BdrvRequestFlags flags, Error **errp)
{
    BDRVDirtyBitmapState *s = bs->opaque;
    const char *busy;
    int ret;

    if (!s->active) {
        return bdrv_co_truncate(bs->file, offset, exact, prealloc, flags,
                                errp);
    }
    busy = dbf_node_busy(&s->n);
    if (busy) {
        error_setg(errp, "bitmap '%s' is in use, the disk cannot be resized",
                   busy);
        return -EBUSY;
    }
    qemu_co_mutex_lock(&s->lock);
    ret = s->begun ? 0 : dbf_start_locked(s);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "could not write the bitmap file");
    } else {
        ret = dbf_truncate_locked(bs, offset, exact, prealloc, flags, errp);
    }
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}

/* --- loading --- */

/*
 * Another one when the disk was written to.  The same when filters come or go,
 * or when it gets an overlay.
 */
static unsigned GRAPH_RDLOCK dbf_disk_gen(BlockDriverState *bs)
{
    unsigned gen = 0;

    for (BlockDriverState *disk = bdrv_skip_filters(bs->file->bs); disk;
         disk = bdrv_backing_chain_next(disk)) {
        gen += qatomic_read(&disk->write_gen);
    }
    return gen;
}

/* Why the bitmaps cannot be used as the file has them, or NULL */
static const char * GRAPH_RDLOCK dbf_distrust(BlockDriverState *bs)
{
    BDRVDirtyBitmapState *s = bs->opaque;
    const DBFHeader *h = dbf_store_header(s->n.store);
    const char *why = dbf_node_distrust(&s->n, dbf_disk_size(bs));
    int64_t then = h->flags & DBF_CLEAN ? h->disk_time_ns : 0;
    int64_t now = dbf_host_disk_time(bs->file->bs);

    if (!why && then && now && then != now) {
        why = "the disk was changed since they were stored";
    }
    return why;
}

static int coroutine_mixed_fn GRAPH_RDLOCK
dbf_load_bitmaps(BlockDriverState *bs, Error **errp)
{
    BDRVDirtyBitmapState *s = bs->opaque;
    bool clean = dbf_store_header(s->n.store)->flags & DBF_CLEAN;
    const char *why = dbf_distrust(bs);
    int ret = dbf_read_intents(s, !why && !clean);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "could not read the intents");
        return ret;
    }
    ret = dbf_node_load(&s->n, s->intents, !why, errp);
    if (ret < 0) {
        return ret;
    }
    if (dbf_store_header(s->n.store)->disk_size != dbf_disk_size(bs) &&
        !dbf_store_resize(s->n.store, dbf_disk_size(bs), errp)) {
        dbf_node_release(&s->n);
        return -EFBIG;
    }
    if (why && dbf_store_next(s->n.store, NULL)) {
        warn_report("node '%s': the bitmaps cannot be used: %s",
                    bdrv_get_node_name(bs), why);
    }
    s->recovered = !why && !clean;
    return 0;
}

static bool coroutine_mixed_fn GRAPH_RDLOCK
dbf_load_file(BlockDriverState *bs, Error **errp)
{
    BDRVDirtyBitmapState *s = bs->opaque;
    const char *damage;

    if (!dbf_node_open(&s->n, bs, s->bitmap, false, errp)) {
        return false;
    }
    damage = dbf_store_damage(s->n.store)->directory;
    if (dbf_load_bitmaps(bs, errp) < 0) {
        dbf_node_close(&s->n);
        return false;
    }
    if (!dbf_node_damaged(&s->n)) {
        return true;
    }
    if (s->options.on_corrupt == ON_CORRUPT_DIRTY_BITMAP_REFUSE) {
        error_setg(errp, "%s", damage ?: "some of it cannot be read, see "
                   "'qemu-img check'");
        dbf_node_release(&s->n);
        dbf_node_close(&s->n);
        return false;
    }
    warn_report("node '%s': the bitmap file is damaged: %s",
                bdrv_get_node_name(bs), damage ?: "see 'qemu-img check'");
    return true;
}

/*
 * Make the bitmaps of the file those of the node.  Only if the user wants that
 * does it fail where the file is of no use: then the file stays as it is, and
 * there are no bitmaps.
 */
static int coroutine_mixed_fn GRAPH_RDLOCK
dbf_load(BlockDriverState *bs, Error **errp)
{
    BDRVDirtyBitmapState *s = bs->opaque;
    Error *err = NULL;

    s->disk_gen = dbf_disk_gen(bs);
    if (dbf_load_file(bs, &err)) {
        dbf_node_set_readonly(&s->n, !dbf_is_writable(bs));
        s->active = dbf_is_writable(bs);
        if (s->active && s->options.mode == DBF_MODE_PROCESS &&
            qemu_uuid_is_null(&s->n.boot_id)) {
            warn_report("node '%s': the bitmap file is not on a local file "
                        "system or device: after a crash, bitmaps can be used "
                        "only if crash-safe is power", bdrv_get_node_name(bs));
        }
        return 0;
    }
    error_prepend(&err, "node '%s': the bitmap file cannot be used: ",
                  bdrv_get_node_name(bs));
    if (s->options.on_corrupt == ON_CORRUPT_DIRTY_BITMAP_REFUSE) {
        error_propagate(errp, err);
        return -EINVAL;
    }
    s->error = g_strdup(error_get_pretty(err));
    warn_report_err(err);
    return 0;
}

/*
 * Nothing is going to be written any more: all of the bitmaps goes into the
 * file, which is clean then.  There are no requests.
 */
static int coroutine_mixed_fn GRAPH_RDLOCK
dbf_finish(BlockDriverState *bs, Error **errp)
{
    BDRVDirtyBitmapState *s = bs->opaque;
    int ret;

    if (!s->active || (!s->begun && !s->recovered && !s->changed)) {
        return 0;
    }
    timer_del(s->timer);
    dbf_intent_snapshot(s->intents, dbf_node_touched, &s->n);
    ret = dbf_node_sync(&s->n, errp);
    if (ret < 0) {
        return ret;
    }
    dbf_store_trust(s->n.store);
    /* What is clean is so after the host has ended, too */
    ret = bdrv_flush(bs->file->bs);
    if (ret == 0) {
        ret = dbf_store_finish(s->n.store, dbf_node_source,
                               dbf_host_disk_time(bs->file->bs));
    }
    trace_dbf_finish(bs, ret);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "could not write the bitmap file");
        return ret;
    }
    /* What had intents is in the file: before the next write, there are none */
    s->begun = false;
    s->lost = false;
    s->broken = false;
    s->told = false;
    s->changed = false;
    s->recovered = false;
    s->stale = true;
    return 0;
}

/* Forget the file, and all that is known of it; bitmaps of the node stay */
static void dbf_unload(BlockDriverState *bs)
{
    BDRVDirtyBitmapState *s = bs->opaque;

    timer_del(s->timer);
    dbf_intent_free(s->intents);
    dbf_node_close(&s->n);
    g_free(s->error);
    s->intents = NULL;
    s->error = NULL;
    s->active = false;
    s->begun = false;
    s->stale = false;
    s->lost = false;
    s->broken = false;
    s->told = false;
    s->failed = false;
    s->changed = false;
    s->wanted = false;
    s->recovered = false;
}

/* --- options, opening and closing --- */

static QemuOptsList dbf_runtime_opts = {
    .name = "dirty-bitmap",
    .head = QTAILQ_HEAD_INITIALIZER(dbf_runtime_opts.head),
    .desc = {
        {
            .name = DBF_OPT_CRASH_SAFE,
            .type = QEMU_OPT_STRING,
            .help = "What bitmaps survive: off, process, power",
        },
        {
            .name = DBF_OPT_ON_CORRUPT,
            .type = QEMU_OPT_STRING,
            .help = "If the bitmap file is damaged: untrusted, refuse",
        },
        {
            .name = DBF_OPT_ON_ERROR,
            .type = QEMU_OPT_STRING,
            .help = "If the bitmap file cannot be written: fail, untrusted",
        },
        { /* end of list */ }
    }
};

static bool dbf_parse_enum(QemuOpts *opts, const char *name,
                           const QEnumLookup *lookup, int def, int *value,
                           Error **errp)
{
    ERRP_GUARD();

    *value = qapi_enum_parse(lookup, qemu_opt_get(opts, name), def, errp);
    if (*errp) {
        error_prepend(errp, "%s: ", name);
    }
    return !*errp;
}

static bool dbf_parse_options(QDict *options, DBFOptions *parsed, Error **errp)
{
    QemuOpts *opts = qemu_opts_create(&dbf_runtime_opts, NULL, 0, &error_abort);
    int mode, on_corrupt, on_error;
    bool ok;

    ok = qemu_opts_absorb_qdict(opts, options, errp) &&
        dbf_parse_enum(opts, DBF_OPT_CRASH_SAFE, &DirtyBitmapCrashSafe_lookup,
                       DIRTY_BITMAP_CRASH_SAFE_PROCESS, &mode, errp) &&
        dbf_parse_enum(opts, DBF_OPT_ON_CORRUPT, &OnCorruptDirtyBitmap_lookup,
                       ON_CORRUPT_DIRTY_BITMAP_UNTRUSTED, &on_corrupt, errp) &&
        dbf_parse_enum(opts, DBF_OPT_ON_ERROR, &OnDirtyBitmapError_lookup,
                       ON_DIRTY_BITMAP_ERROR_FAIL, &on_error, errp);
    if (ok) {
        *parsed = (DBFOptions) {
            .mode = (DBFMode)mode, .on_corrupt = on_corrupt,
            .on_error = on_error,
        };
    }
    qemu_opts_del(opts);
    return ok;
}

QEMU_BUILD_BUG_ON((int)DIRTY_BITMAP_CRASH_SAFE_OFF != (int)DBF_MODE_OFF ||
                  (int)DIRTY_BITMAP_CRASH_SAFE_POWER != (int)DBF_MODE_POWER);

static int dbf_open(BlockDriverState *bs, QDict *options, int flags,
                    Error **errp)
{
    BDRVDirtyBitmapState *s = bs->opaque;
    AioContext *main = qemu_get_aio_context();
    int ret;

    qemu_co_mutex_init(&s->lock);
    if (!dbf_parse_options(options, &s->options, errp)) {
        return -EINVAL;
    }
    ret = bdrv_open_file_child(NULL, options, "file", bs, errp);
    if (ret < 0) {
        return ret;
    }
    s->bitmap = bdrv_open_child(NULL, options, "bitmap", bs, &child_of_bds,
                                BDRV_CHILD_METADATA, false, errp);
    if (!s->bitmap) {
        return -EINVAL;
    }

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    bs->total_sectors = bs->file->bs->total_sectors;
    bs->supported_write_flags = bs->file->bs->supported_write_flags |
                                BDRV_REQ_WRITE_UNCHANGED;
    bs->supported_zero_flags = bs->file->bs->supported_zero_flags |
                               BDRV_REQ_WRITE_UNCHANGED;
    s->kick = aio_bh_new(main, dbf_checkpoint_bh, bs);
    s->timer = aio_timer_new(main, QEMU_CLOCK_REALTIME, SCALE_MS, dbf_timer,
                             bs);
    if (flags & BDRV_O_NO_IO) {
        /* For 'qemu-img info' */
        dbf_node_open(&s->n, bs, s->bitmap, false, NULL);
    } else if (!(flags & BDRV_O_INACTIVE)) {
        ret = dbf_load(bs, errp);
    }
    if (ret < 0) {
        dbf_unload(bs);
        qemu_bh_delete(s->kick);
        timer_free(s->timer);
    }
    return ret;
}

static void dbf_close(BlockDriverState *bs)
{
    BDRVDirtyBitmapState *s = bs->opaque;
    Error *err = NULL;

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    if (dbf_finish(bs, &err) < 0) {
        error_reportf_err(err, "node '%s': ", bdrv_get_node_name(bs));
    }
    dbf_unload(bs);
    qemu_bh_delete(s->kick);
    timer_free(s->timer);
}

static int GRAPH_RDLOCK dbf_inactivate(BlockDriverState *bs)
{
    BDRVDirtyBitmapState *s = bs->opaque;
    const char *busy = dbf_node_busy(&s->n);
    Error *err = NULL;
    int ret;

    if (!s->n.store) {
        return 0;
    }
    if (busy) {
        error_report("node '%s': bitmap '%s' is in use",
                     bdrv_get_node_name(bs), busy);
        return -EBUSY;
    }
    bdrv_drained_begin(bs);
    ret = dbf_finish(bs, &err);
    if (ret < 0) {
        error_reportf_err(err, "node '%s': ", bdrv_get_node_name(bs));
    } else {
        dbf_node_release(&s->n);
        dbf_unload(bs);
    }
    bdrv_drained_end(bs);
    return ret;
}

static void coroutine_fn GRAPH_RDLOCK
dbf_co_invalidate_cache(BlockDriverState *bs, Error **errp)
{
    dbf_unload(bs);
    if (bdrv_co_refresh_total_sectors(bs, bs->total_sectors) < 0) {
        error_setg(errp, "could not get the size of the disk");
        return;
    }
    dbf_load(bs, errp);
}

static int dbf_reopen_prepare(BDRVReopenState *state, BlockReopenQueue *queue,
                              Error **errp)
{
    BlockDriverState *bs = state->bs;
    BDRVDirtyBitmapState *s = bs->opaque;
    DBFOptions options;
    int ret = 0;

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    if (!dbf_parse_options(state->options, &options, errp)) {
        return -EINVAL;
    }
    if (!(state->flags & BDRV_O_RDWR) || options.mode != s->options.mode) {
        ret = dbf_finish(bs, errp);
    }
    if (ret == 0) {
        state->opaque = g_memdup2(&options, sizeof(options));
    }
    return ret;
}

/* There are no requests until all nodes are reopened */
static void dbf_reopen_commit_post(BDRVReopenState *state)
{
    BlockDriverState *bs = state->bs;
    BDRVDirtyBitmapState *s = bs->opaque;

    s->options = *(DBFOptions *)state->opaque;
    s->stale |= !s->begun;
    if (s->n.store) {
        s->active = dbf_is_writable(bs);
        dbf_node_set_readonly(&s->n, !s->active);
    }
    g_free(state->opaque);
    state->opaque = NULL;
}

static void dbf_reopen_abort(BDRVReopenState *state)
{
    g_free(state->opaque);
    state->opaque = NULL;
}

/* --- permissions --- */

static void GRAPH_RDLOCK
dbf_child_perm(BlockDriverState *bs, BdrvChild *c, BdrvChildRole role,
               BlockReopenQueue *queue, uint64_t perm, uint64_t shared,
               uint64_t *nperm, uint64_t *nshared)
{
    bdrv_default_perms(bs, c, role, queue, perm, shared, nperm, nshared);
    /*
     * What others write to the disk is not recorded.  Without a user above,
     * they may, so that a filter can be put between a disk and its user.
     */
    if ((role & BDRV_CHILD_FILTERED) && !QLIST_EMPTY(&bs->parents) &&
        !(bs->open_flags & BDRV_O_INACTIVE)) {
        *nshared &= ~(BLK_PERM_WRITE | BLK_PERM_RESIZE);
    }
}

static void GRAPH_RDLOCK dbf_set_perm(BlockDriverState *bs, uint64_t perm,
                                      uint64_t shared)
{
    BDRVDirtyBitmapState *s = bs->opaque;
    unsigned gen = s->disk_gen;

    if (!bs->file) {
        return;
    }
    s->disk_gen = dbf_disk_gen(bs);
    if (s->n.store && !s->exclusive && s->disk_gen != gen) {
        dbf_node_set_inconsistent(&s->n);
        warn_report("node '%s': the bitmaps cannot be used: the disk was "
                    "written to below them", bdrv_get_node_name(bs));
    }
    s->exclusive = !QLIST_EMPTY(&bs->parents);
}

/* --- bitmaps --- */

static void dbf_changed(BlockDriverState *bs, BdrvDirtyBitmap *bitmap,
                        bool gone)
{
    BDRVDirtyBitmapState *s = bs->opaque;

    if (s->active && bdrv_dirty_bitmap_get_persistence(bitmap)) {
        qatomic_set(&s->changed, true);
        dbf_want_checkpoint(s);
    }
}

static int coroutine_fn GRAPH_RDLOCK
dbf_co_store_dirty_bitmaps(BlockDriverState *bs, Error **errp)
{
    BDRVDirtyBitmapState *s = bs->opaque;
    int ret;

    if (!s->active) {
        return 0;
    }
    qemu_co_mutex_lock(&s->lock);
    ret = s->begun ? 0 : dbf_start_locked(s);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "could not write the bitmap file");
    } else {
        bool behind = s->n.behind;

        ret = dbf_checkpoint_locked(bs, errp);
        if (ret < 0 && behind && dbf_lose_locked(bs, ret) < 0) {
            /* What a transaction has done, and cannot take back any more */
            qatomic_set(&s->broken, true);
        }
    }
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}

static bool dbf_supports_persistent(BlockDriverState *bs)
{
    BDRVDirtyBitmapState *s = bs->opaque;

    return s->n.store;
}

static bool coroutine_fn GRAPH_RDLOCK
dbf_co_can_store_new(BlockDriverState *bs, const char *name,
                     uint32_t granularity, Error **errp)
{
    BDRVDirtyBitmapState *s = bs->opaque;

    if (!s->active) {
        error_setg(errp, "Can't make bitmap '%s' persistent: %s", name,
                   s->error ?: "the node is read-only or inactive");
        return false;
    }
    return dbf_node_can_store(&s->n, name, granularity, errp);
}

/* It leaves the file when it has left the node */
static int coroutine_fn GRAPH_RDLOCK
dbf_co_remove_persistent(BlockDriverState *bs, const char *name, Error **errp)
{
    return 0;
}

/* --- internal snapshots of the disk --- */

static int GRAPH_RDLOCK dbf_snapshot_create(BlockDriverState *bs,
                                            QEMUSnapshotInfo *info)
{
    return bdrv_snapshot_create(bs->file->bs, info);
}

static int GRAPH_RDLOCK dbf_snapshot_delete(BlockDriverState *bs,
                                            const char *id, const char *name,
                                            Error **errp)
{
    return bdrv_snapshot_delete(bs->file->bs, id, name, errp);
}

static int GRAPH_RDLOCK dbf_snapshot_list(BlockDriverState *bs,
                                          QEMUSnapshotInfo **info)
{
    return bdrv_snapshot_list(bs->file->bs, info);
}

static int GRAPH_RDLOCK dbf_snapshot_load_tmp(BlockDriverState *bs,
                                              const char *id,
                                              const char *name, Error **errp)
{
    return bdrv_snapshot_load_tmp(bs->file->bs, id, name, errp);
}

/* --- reports --- */

/* The bitmap file, and what is in order in a disk whose format can tell */
static int coroutine_fn GRAPH_RDLOCK
dbf_co_check(BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckMode fix)
{
    BDRVDirtyBitmapState *s = bs->opaque;
    BdrvCheckResult ours = {};
    Error *err = NULL;
    DBFNode n;
    int ret;

    if (!dbf_node_open(&n, bs, s->bitmap, false, &err)) {
        error_report_err(err);
        result->check_errors++;
        return 0;
    }
    ret = dbf_node_check(&n, &ours);
    dbf_node_close(&n);
    if (ret < 0) {
        result->check_errors++;
        return ret;
    }
    ret = bdrv_check(bs->file->bs, result, fix);
    result->corruptions += ours.corruptions;
    result->leaks += ours.leaks;
    return ret == -ENOTSUP ? 0 : ret;
}

static ImageInfoSpecific *dbf_get_specific_info(BlockDriverState *bs,
                                                Error **errp)
{
    BDRVDirtyBitmapState *s = bs->opaque;
    ImageInfoSpecificDirtyBitmap *data =
        g_new0(ImageInfoSpecificDirtyBitmap, 1);
    ImageInfoSpecific *info = g_new0(ImageInfoSpecific, 1);

    data->crash_safe = (DirtyBitmapCrashSafe)s->options.mode;
    data->recording = s->active && s->begun && !s->lost;
    data->trusted = s->n.store && !s->lost;
    data->error = g_strdup(s->error);
    data->unclean_extents = s->intents ? dbf_intent_count(s->intents) : 0;
    data->checkpoints = s->checkpoints;
    if (s->n.store) {
        data->bitmap_file = dbf_node_info(&s->n);
    }
    info->type = IMAGE_INFO_SPECIFIC_KIND_DIRTY_BITMAP;
    info->u.dirty_bitmap.data = data;
    return info;
}

static BlockDriver bdrv_dirty_bitmap = {
    .format_name                    = "dirty-bitmap",
    .instance_size                  = sizeof(BDRVDirtyBitmapState),
    .is_filter                      = true,
    .dirty_bitmaps_record_growth    = true,

    .bdrv_open                      = dbf_open,
    .bdrv_close                     = dbf_close,
    .bdrv_inactivate                = dbf_inactivate,
    .bdrv_co_invalidate_cache       = dbf_co_invalidate_cache,
    .bdrv_reopen_prepare            = dbf_reopen_prepare,
    .bdrv_reopen_commit_post        = dbf_reopen_commit_post,
    .bdrv_reopen_abort              = dbf_reopen_abort,
    .bdrv_child_perm                = dbf_child_perm,
    .bdrv_set_perm                  = dbf_set_perm,
    .bdrv_drain_begin               = dbf_drain_begin,
    .bdrv_drain_end                 = dbf_drain_end,

    .bdrv_co_preadv_part            = dbf_co_preadv_part,
    .bdrv_co_pwritev_part           = dbf_co_pwritev_part,
    .bdrv_co_pwritev_compressed_part = dbf_co_pwritev_compressed_part,
    .bdrv_co_pwrite_zeroes          = dbf_co_pwrite_zeroes,
    .bdrv_co_pdiscard               = dbf_co_pdiscard,
    .bdrv_co_copy_range_from        = dbf_co_copy_range_from,
    .bdrv_co_copy_range_to          = dbf_co_copy_range_to,
    .bdrv_co_flush                  = dbf_co_flush,
    .bdrv_co_getlength              = dbf_co_getlength,
    .bdrv_co_truncate               = dbf_co_truncate,

    .bdrv_snapshot_create           = dbf_snapshot_create,
    .bdrv_snapshot_delete           = dbf_snapshot_delete,
    .bdrv_snapshot_list             = dbf_snapshot_list,
    .bdrv_snapshot_load_tmp         = dbf_snapshot_load_tmp,

    .bdrv_supports_persistent_dirty_bitmap = dbf_supports_persistent,
    .bdrv_co_can_store_new_dirty_bitmap = dbf_co_can_store_new,
    .bdrv_co_remove_persistent_dirty_bitmap = dbf_co_remove_persistent,
    .bdrv_dirty_bitmap_changed      = dbf_changed,
    .bdrv_co_store_dirty_bitmaps    = dbf_co_store_dirty_bitmaps,

    .bdrv_co_check                  = dbf_co_check,
    .bdrv_get_specific_info         = dbf_get_specific_info,
};

static void bdrv_dirty_bitmap_init(void)
{
    bdrv_register(&bdrv_dirty_bitmap);
}

block_init(bdrv_dirty_bitmap_init);
