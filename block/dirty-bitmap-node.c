/*
 * Dirty bitmap file: its bitmaps as those of a node
 *
 *   file --load--> bitmaps of the node --sync, source--> store --> file
 *
 * The bits are in the node's bitmaps alone; the store knows which of its pages
 * differ from them.  There are two ways to learn that: intents say where writes
 * were, and an epoch that is another one says that all of a bitmap may have
 * changed, see bdrv_dirty_bitmap_epoch().
 *
 * Bitmaps are found by their name each time, so nothing here points to one
 * that may be gone.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/lockable.h"
#include "dirty-bitmap-host.h"
#include "dirty-bitmap-node.h"

/*
 * DBFBitmap.opaque
 * @loaded: the node's bitmap was loaded from @b
 * @epoch: of the node's bitmap when the store was last made like it; 0: never
 */
typedef struct DBFShadow {
    const DBFNode *n;
    const DBFBitmap *b;
    bool loaded;
    uint64_t epoch;
} DBFShadow;

/* --- the file --- */

static int coroutine_mixed_fn dbf_io_pread(void *opaque, uint64_t offset,
                                           void *buf, size_t bytes)
{
    return bdrv_pread(opaque, offset, bytes, buf, 0);
}

static int coroutine_mixed_fn dbf_io_pwrite(void *opaque, uint64_t offset,
                                            const void *buf, size_t bytes)
{
    return bdrv_pwrite(opaque, offset, bytes, buf, 0);
}

static int coroutine_mixed_fn dbf_io_flush(void *opaque)
{
    BdrvChild *child = opaque;

    return bdrv_flush(child->bs);
}

static int64_t coroutine_mixed_fn dbf_io_length(void *opaque)
{
    BdrvChild *child = opaque;

    return bdrv_getlength(child->bs);
}

/* A device has the size that it has */
static int coroutine_mixed_fn dbf_io_truncate(void *opaque, uint64_t length)
{
    return bdrv_truncate(opaque, length, false, PREALLOC_MODE_OFF, 0, NULL);
}

void dbf_io_init(DBFIO *io, BdrvChild *child)
{
    *io = (DBFIO) {
        .pread = dbf_io_pread,
        .pwrite = dbf_io_pwrite,
        .flush = dbf_io_flush,
        .length = dbf_io_length,
        .truncate = dbf_io_truncate,
        .opaque = child,
    };
}

/* --- shadows --- */

static DBFShadow *dbf_shadow(const DBFBitmap *b)
{
    return b->opaque;
}

static void dbf_shadow_add(DBFNode *n, DBFBitmap *b)
{
    DBFShadow *shadow = g_new0(DBFShadow, 1);

    shadow->n = n;
    shadow->b = b;
    b->opaque = shadow;
}

static void dbf_node_forget(DBFNode *n, DBFBitmap *b)
{
    g_free(b->opaque);
    dbf_store_remove(n->store, b);
}

bool coroutine_mixed_fn dbf_node_open(DBFNode *n, BlockDriverState *bs,
                                      BdrvChild *child, bool repair,
                                      Error **errp)
{
    *n = (DBFNode) { .bs = bs, .child = child };
    dbf_io_init(&n->io, child);
    n->boot_id = dbf_host_boot_id(child->bs);
    n->store = dbf_store_open(&n->io, repair, errp);
    if (!n->store) {
        return false;
    }
    for (DBFBitmap *b = dbf_store_next(n->store, NULL); b;
         b = dbf_store_next(n->store, b)) {
        dbf_shadow_add(n, b);
    }
    return true;
}

void dbf_node_close(DBFNode *n)
{
    DBFBitmap *b;

    if (!n->store) {
        return;
    }
    while ((b = dbf_store_next(n->store, NULL))) {
        dbf_node_forget(n, b);
    }
    dbf_store_free(n->store);
    n->store = NULL;
}

/* --- loading --- */

const char *dbf_node_distrust(const DBFNode *n, uint64_t disk_size)
{
    const DBFHeader *h = dbf_store_header(n->store);

    if (h->disk_size != disk_size) {
        return "the disk has another size than when they were stored";
    }
    switch (dbf_header_trust(h, &n->boot_id)) {
    case DBF_TRUST_CLEAN:
    case DBF_TRUST_INTENTS:
        return NULL;
    case DBF_TRUST_NONE_FLAG:
        return "changes of the disk could not be recorded";
    case DBF_TRUST_NONE_OFF:
        return "the file was not closed, and crash-safe was off";
    case DBF_TRUST_NONE_HOST:
        return "the file was not closed, and the host may have been started "
               "since";
    default:
        g_assert_not_reached();
    }
}

typedef struct DBFLoading {
    BdrvDirtyBitmap *bitmap;
    bool any;
} DBFLoading;

/* A DBFSink */
static void dbf_load_bits(void *opaque, uint64_t first, uint64_t n,
                          const uint8_t *payload)
{
    DBFLoading *l = opaque;
    uint64_t granularity = bdrv_dirty_bitmap_granularity(l->bitmap);
    uint64_t offset = first * granularity;
    uint64_t size = bdrv_dirty_bitmap_size(l->bitmap);

    bdrv_dirty_bitmap_deserialize_part(l->bitmap, (uint8_t *)payload, offset,
                                       MIN(n * granularity, size - offset),
                                       false);
    l->any = true;
}

static int coroutine_mixed_fn dbf_load_content(DBFNode *n, DBFBitmap *b,
                                               BdrvDirtyBitmap *bitmap)
{
    DBFLoading l = { bitmap };
    int ret = dbf_store_load(n->store, b, dbf_load_bits, &l);

    if (l.any) {
        bdrv_dirty_bitmap_deserialize_finish(bitmap);
    }
    return ret;
}

static int coroutine_mixed_fn dbf_load_bitmap(DBFNode *n, DBFBitmap *b,
                                              bool trusted, Error **errp)
{
    BdrvDirtyBitmap *bitmap;
    int ret = 0;

    bitmap = bdrv_create_dirty_bitmap(n->bs, 1U << b->granularity_bits,
                                      b->name, errp);
    if (!bitmap) {
        return -EINVAL;
    }
    b->inconsistent |= !trusted;
    if (!b->inconsistent) {
        ret = dbf_load_content(n, b, bitmap);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "could not read bitmap '%s'", b->name);
        bdrv_release_dirty_bitmap(bitmap);
        return ret;
    }
    bdrv_dirty_bitmap_set_persistence(bitmap, true);
    if (b->inconsistent) {
        bdrv_dirty_bitmap_set_inconsistent(bitmap);
    } else if (!b->enabled) {
        bdrv_disable_dirty_bitmap(bitmap);
    }
    return 0;
}

/* The bitmap of the node that is @b in the store, or NULL */
static BdrvDirtyBitmap *dbf_node_bitmap(const DBFNode *n, const DBFBitmap *b)
{
    return bdrv_find_dirty_bitmap(n->bs, b->name);
}

/* A DBFTouched: what was written to before a crash is dirty */
static void dbf_recover(void *opaque, uint64_t offset, uint64_t bytes)
{
    DBFNode *n = opaque;
    uint64_t disk_size = dbf_store_wanted(n->store)->disk_size;

    for (DBFBitmap *b = dbf_store_next(n->store, NULL); b;
         b = dbf_store_next(n->store, b)) {
        BdrvDirtyBitmap *bitmap = dbf_node_bitmap(n, b);

        if (dbf_shadow(b)->loaded && bdrv_dirty_bitmap_enabled(bitmap)) {
            bdrv_set_dirty_bitmap(bitmap, offset,
                                  MIN(bytes, disk_size - offset));
            dbf_bitmap_changed(b, offset, bytes);
        }
    }
}

/* Called with the node's dirty_bitmap_mutex held */
static void dbf_shadow_is_like(DBFBitmap *b, const BdrvDirtyBitmap *bitmap)
{
    dbf_shadow(b)->epoch = bdrv_dirty_bitmap_epoch(bitmap);
}

/* Nothing has changed since, or what has is noted in the store */
static void dbf_load_done(DBFNode *n)
{
    QEMU_LOCK_GUARD(&n->bs->dirty_bitmap_mutex);
    for (DBFBitmap *b = dbf_store_next(n->store, NULL); b;
         b = dbf_store_next(n->store, b)) {
        if (dbf_shadow(b)->loaded) {
            dbf_shadow_is_like(b, dbf_node_bitmap(n, b));
        }
    }
}

/* Release bitmaps that were loaded, as all others could not be */
static void dbf_load_undo(DBFNode *n)
{
    for (DBFBitmap *b = dbf_store_next(n->store, NULL); b;
         b = dbf_store_next(n->store, b)) {
        if (dbf_shadow(b)->loaded) {
            bdrv_release_dirty_bitmap(dbf_node_bitmap(n, b));
            dbf_shadow(b)->loaded = false;
        }
    }
}

int coroutine_mixed_fn dbf_node_load(DBFNode *n, DBFIntent *intents,
                                     bool trusted, Error **errp)
{
    DBFBitmap *b, *next;

    for (b = dbf_store_next(n->store, NULL); b; b = next) {
        BdrvDirtyBitmap *bitmap = dbf_node_bitmap(n, b);
        int ret;

        next = dbf_store_next(n->store, b);
        if (bitmap) {
            if (!bdrv_dirty_bitmap_get_persistence(bitmap)) {
                dbf_node_forget(n, b);
            }
            continue;
        }
        ret = dbf_load_bitmap(n, b, trusted, errp);
        if (ret < 0) {
            dbf_load_undo(n);
            return ret;
        }
        dbf_shadow(b)->loaded = true;
    }
    if (!trusted) {
        dbf_store_trust(n->store);
    }
    dbf_intent_snapshot(intents, dbf_recover, n);
    dbf_load_done(n);
    return 0;
}

bool dbf_node_damaged(const DBFNode *n)
{
    const DBFDamage *damage = dbf_store_damage(n->store);
    bool pages = false;

    for (DBFBitmap *b = dbf_store_next(n->store, NULL); b;
         b = dbf_store_next(n->store, b)) {
        pages |= b->damaged > 0;
    }
    return damage->directory || damage->shared || damage->tables || pages;
}

/* --- from the node to the store --- */

bool dbf_node_held(const DBFNode *n)
{
    BdrvDirtyBitmap *bitmap;
    bool held = false;

    QEMU_LOCK_GUARD(&n->bs->dirty_bitmap_mutex);
    FOR_EACH_DIRTY_BITMAP(n->bs, bitmap) {
        held |= bdrv_dirty_bitmap_held(bitmap);
    }
    return held;
}

void dbf_node_touched(void *opaque, uint64_t offset, uint64_t bytes)
{
    DBFNode *n = opaque;

    for (DBFBitmap *b = dbf_store_next(n->store, NULL); b;
         b = dbf_store_next(n->store, b)) {
        if (b->enabled) {
            dbf_bitmap_changed(b, offset, bytes);
        }
    }
}

/* Could @bitmap be what @b has been before? */
static bool dbf_shadow_fits(const DBFBitmap *b, const BdrvDirtyBitmap *bitmap)
{
    return bitmap &&
        bdrv_dirty_bitmap_granularity(bitmap) == 1U << b->granularity_bits &&
        (!b->inconsistent || bdrv_dirty_bitmap_inconsistent(bitmap));
}

/* Called with the node's dirty_bitmap_mutex held */
static void dbf_sync_gone(DBFNode *n)
{
    DBFBitmap *b, *next;

    for (b = dbf_store_next(n->store, NULL); b; b = next) {
        next = dbf_store_next(n->store, b);
        if (!dbf_shadow_fits(b, dbf_node_bitmap(n, b))) {
            dbf_node_forget(n, b);
        }
    }
}

/*
 * Called with the node's dirty_bitmap_mutex held.  What a bitmap that is held
 * has lost stays in the file.  What it has gained should be there, too: that
 * it records is; its content follows when it is not held any more.
 */
static void dbf_sync_held(DBFNode *n, DBFBitmap *b,
                          const BdrvDirtyBitmap *bitmap)
{
    b->frozen = true;
    b->enabled |= bdrv_dirty_bitmap_recording(bitmap);
    n->behind |= dbf_shadow(b)->epoch != bdrv_dirty_bitmap_epoch(bitmap);
}

/* Called with the node's dirty_bitmap_mutex held */
static void dbf_sync_bitmap(DBFNode *n, DBFBitmap *b,
                            const BdrvDirtyBitmap *bitmap)
{
    b->frozen = false;
    if (dbf_shadow(b)->epoch == bdrv_dirty_bitmap_epoch(bitmap)) {
        return;
    }
    b->enabled = bdrv_dirty_bitmap_recording(bitmap);
    b->inconsistent |= bdrv_dirty_bitmap_inconsistent(bitmap);
    dbf_bitmap_changed(b, 0, dbf_store_wanted(n->store)->disk_size);
    dbf_shadow_is_like(b, bitmap);
}

/* Called with the node's dirty_bitmap_mutex held */
static int dbf_sync_new(DBFNode *n, BdrvDirtyBitmap *bitmap, Error **errp)
{
    DBFBitmap *b;

    if (!bdrv_dirty_bitmap_get_persistence(bitmap)) {
        return 0;
    }
    b = dbf_store_add(n->store, bdrv_dirty_bitmap_name(bitmap),
                      ctz32(bdrv_dirty_bitmap_granularity(bitmap)), errp);
    if (!b) {
        return -EINVAL;
    }
    dbf_shadow_add(n, b);
    dbf_sync_bitmap(n, b, bitmap);
    return 0;
}

int dbf_node_sync(DBFNode *n, Error **errp)
{
    BdrvDirtyBitmap *bitmap;
    int ret = 0;

    QEMU_LOCK_GUARD(&n->bs->dirty_bitmap_mutex);
    n->behind = false;
    dbf_sync_gone(n);
    FOR_EACH_DIRTY_BITMAP(n->bs, bitmap) {
        const char *name = bdrv_dirty_bitmap_name(bitmap);
        DBFBitmap *b = name ? dbf_store_find(n->store, name) : NULL;

        if (b && bdrv_dirty_bitmap_held(bitmap)) {
            dbf_sync_held(n, b, bitmap);
        } else if (b) {
            dbf_sync_bitmap(n, b, bitmap);
        } else if (name && dbf_sync_new(n, bitmap, ret ? NULL : errp) < 0) {
            ret = -EINVAL;
        }
    }
    return ret;
}

/* Set bits @from to @to of @payload */
static void dbf_payload_set(uint8_t *payload, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++) {
        payload[i / 8] |= 1U << (i % 8);
    }
}

static void dbf_payload_clear(uint8_t *payload, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++) {
        payload[i / 8] &= ~(1U << (i % 8));
    }
}

/*
 * OR bits of @bitmap into @payload.  While a disk is being resized, the store
 * is ahead of its bitmaps: of what the disk will have, they have what they
 * would get.
 */
static void dbf_source_bits(const DBFNode *n, BdrvDirtyBitmap *bitmap,
                            uint64_t first, uint64_t count, uint8_t *payload)
{
    uint64_t granularity = bdrv_dirty_bitmap_granularity(bitmap);
    uint64_t size = bdrv_dirty_bitmap_size(bitmap);
    uint64_t offset = first * granularity;
    unsigned long bits[BITS_TO_LONGS(DBF_BITS)];
    unsigned long *to = (unsigned long *)payload;
    uint64_t end = DIV_ROUND_UP(count, 64) * 64;

    if (offset < size) {
        memset(bits, 0, sizeof(bits));
        bdrv_dirty_bitmap_serialize_part(bitmap, (uint8_t *)bits, offset,
                                         MIN(end * granularity, size - offset));
        bitmap_or(to, to, bits, end);
    }
    if (dbf_store_wanted(n->store)->disk_size > size &&
        bdrv_dirty_bitmap_enabled(bitmap)) {
        uint64_t grown = size / granularity;

        dbf_payload_set(payload, MAX(grown, first) - first, count);
    }
    dbf_payload_clear(payload, count, end);
}

void dbf_node_source(void *opaque, uint64_t first, uint64_t count,
                     uint8_t *payload)
{
    const DBFShadow *shadow = opaque;
    const DBFNode *n = shadow->n;
    BdrvDirtyBitmap *bitmap, *successor;

    QEMU_LOCK_GUARD(&n->bs->dirty_bitmap_mutex);
    bitmap = dbf_node_bitmap(n, shadow->b);
    if (!bitmap || bdrv_dirty_bitmap_epoch(bitmap) != shadow->epoch) {
        /* What is to be stored is not there any more, and never missed */
        dbf_payload_set(payload, 0, count);
        return;
    }
    dbf_source_bits(n, bitmap, first, count, payload);
    successor = bdrv_dirty_bitmap_successor(bitmap);
    if (successor) {
        dbf_source_bits(n, successor, first, count, payload);
    }
}

bool dbf_node_can_store(const DBFNode *n, const char *name,
                        uint32_t granularity, Error **errp)
{
    if (bdrv_find_dirty_bitmap(n->bs, name)) {
        error_setg(errp, "Bitmap already exists: %s", name);
        return false;
    }
    return dbf_store_can_add(n->store, name, ctz32(granularity), errp);
}

/* --- the node's persistent bitmaps --- */

/* The first persistent one from @bitmap on, or NULL */
static BdrvDirtyBitmap *dbf_persistent(BdrvDirtyBitmap *bitmap)
{
    while (bitmap && !bdrv_dirty_bitmap_get_persistence(bitmap)) {
        bitmap = bdrv_dirty_bitmap_next(bitmap);
    }
    return bitmap;
}

static BdrvDirtyBitmap *dbf_persistent_first(const DBFNode *n)
{
    return dbf_persistent(bdrv_dirty_bitmap_first(n->bs));
}

static BdrvDirtyBitmap *dbf_persistent_next(BdrvDirtyBitmap *bitmap)
{
    return dbf_persistent(bdrv_dirty_bitmap_next(bitmap));
}

const char *dbf_node_busy(const DBFNode *n)
{
    for (BdrvDirtyBitmap *bitmap = dbf_persistent_first(n); bitmap;
         bitmap = dbf_persistent_next(bitmap)) {
        if (bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_BUSY, NULL) < 0) {
            return bdrv_dirty_bitmap_name(bitmap);
        }
    }
    return NULL;
}

void dbf_node_release(DBFNode *n)
{
    BdrvDirtyBitmap *bitmap, *next;

    for (bitmap = dbf_persistent_first(n); bitmap; bitmap = next) {
        next = dbf_persistent_next(bitmap);
        bdrv_release_dirty_bitmap(bitmap);
    }
}

void dbf_node_set_readonly(DBFNode *n, bool readonly)
{
    for (BdrvDirtyBitmap *bitmap = dbf_persistent_first(n); bitmap;
         bitmap = dbf_persistent_next(bitmap)) {
        bdrv_dirty_bitmap_set_readonly(bitmap, readonly);
    }
}

void dbf_node_set_inconsistent(DBFNode *n)
{
    for (BdrvDirtyBitmap *bitmap = dbf_persistent_first(n); bitmap;
         bitmap = dbf_persistent_next(bitmap)) {
        bdrv_dirty_bitmap_set_inconsistent(bitmap);
    }
}

/* --- reports --- */

/* A DBFSink that only wants to know whether pages can be read */
static void dbf_check_page(void *opaque, uint64_t first, uint64_t n,
                           const uint8_t *payload)
{
}

int coroutine_mixed_fn dbf_node_check(DBFNode *n, BdrvCheckResult *result)
{
    const DBFDamage *damage = dbf_store_damage(n->store);
    uint64_t used, end, all;

    result->corruptions += damage->headers + (damage->directory != NULL) +
                           damage->shared;
    for (DBFBitmap *b = dbf_store_next(n->store, NULL); b;
         b = dbf_store_next(n->store, b)) {
        int ret = b->inconsistent ? 0 :
            dbf_store_load(n->store, b, dbf_check_page, NULL);

        if (ret < 0) {
            return ret;
        }
        result->corruptions += b->damaged;
    }
    dbf_store_blocks(n->store, &used, &end, &all);
    result->bfi.total_clusters = all;
    result->bfi.allocated_clusters = used;
    result->leaks += dbf_host_is_device(n->child->bs) ? 0 : all - end;
    result->image_end_offset = end * DBF_BLOCK;
    return 0;
}

static DirtyBitmapFileEntry *dbf_entry_info(const DBFBitmap *b, bool trusted)
{
    DirtyBitmapFileEntry *info = g_new0(DirtyBitmapFileEntry, 1);

    info->name = g_strdup(b->name);
    info->granularity = 1U << b->granularity_bits;
    info->enabled = b->enabled;
    info->inconsistent = b->inconsistent || !trusted;
    return info;
}

DirtyBitmapFileInfo *dbf_node_info(const DBFNode *n)
{
    const DBFHeader *h = dbf_store_header(n->store);
    DirtyBitmapFileInfo *info = g_new0(DirtyBitmapFileInfo, 1);
    DirtyBitmapFileEntryList **tail = &info->bitmaps;
    bool trusted = dbf_header_trust(h, &n->boot_id) <= DBF_TRUST_INTENTS;

    info->disk_size = h->disk_size;
    info->uuid = qemu_uuid_unparse_strdup(&h->uuid);
    info->clean = h->flags & DBF_CLEAN;
    info->untrusted = h->flags & DBF_UNTRUSTED;
    info->crash_safe = (DirtyBitmapCrashSafe)h->mode;
    info->extent_size = 1ULL << h->extent_bits;
    info->damage = g_strdup(dbf_store_damage(n->store)->directory);
    for (DBFBitmap *b = dbf_store_next(n->store, NULL); b;
         b = dbf_store_next(n->store, b)) {
        QAPI_LIST_APPEND(tail, dbf_entry_info(b, trusted));
    }
    return info;
}
