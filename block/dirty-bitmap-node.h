/*
 * Dirty bitmap file: its bitmaps as those of a node
 *
 * What the driver of bitmap files and the filter share: one store, its file as
 * a child of a node, and the dirty bitmaps of that node.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_DIRTY_BITMAP_NODE_H
#define BLOCK_DIRTY_BITMAP_NODE_H

#include "block/block_int.h"
#include "block/dirty-bitmap.h"
#include "dirty-bitmap-intent.h"
#include "dirty-bitmap-store.h"

/**
 * DBFNode: the persistent bitmaps of a node, and their file
 * @bs: the node; its size is that of the bitmaps
 * @child: of it, where the file is
 * @io: reaches the file
 * @store: NULL while there is none
 * @boot_id: of the running host; null if it is of no use for the file, which
 *           may be on another host
 * @behind: a bitmap that is held has changed, and the store has not
 *
 * There are no locks: one function at a time but for dbf_node_source(), which
 * may run while the bitmaps of the node change.
 */
typedef struct DBFNode {
    BlockDriverState *bs;
    BdrvChild *child;
    DBFIO io;
    DBFStore *store;
    QemuUUID boot_id;
    bool behind;
} DBFNode;

/**
 * dbf_io_init: reach the file that is @child
 *
 * @io is of use as long as @child is there.
 */
void dbf_io_init(DBFIO *io, BdrvChild *child);

/**
 * dbf_node_open: read what is in @child, but not the bits of bitmaps
 * @n: filled
 * @repair: as in dbf_store_open()
 *
 * Returns false with @errp set, and without a store, where there is nothing
 * that could be used.
 */
bool coroutine_mixed_fn dbf_node_open(DBFNode *n, BlockDriverState *bs,
                                      BdrvChild *child, bool repair,
                                      Error **errp);

/** dbf_node_close: forget the store; bitmaps of the node stay */
void dbf_node_close(DBFNode *n);

/**
 * dbf_node_distrust: why can bitmaps not be used as the file leaves them?
 * @disk_size: of the disk
 *
 * Returns NULL if they can be.
 */
const char *dbf_node_distrust(const DBFNode *n, uint64_t disk_size);

/**
 * dbf_node_load: make the bitmaps of the file those of the node
 * @intents: loaded: where there is one, bitmaps that record are dirty
 * @trusted: else all of them are inconsistent
 *
 * A bitmap that the node has already stays, and takes the place of the one in
 * the file.  Returns 0, or a negative errno with @errp set and bitmaps of the
 * node as before.
 */
int coroutine_mixed_fn dbf_node_load(DBFNode *n, DBFIntent *intents,
                                     bool trusted, Error **errp);

/**
 * dbf_node_damaged: is there anything in the file that could not be read?
 *
 * As far as it was read.
 */
bool dbf_node_damaged(const DBFNode *n);

/**
 * dbf_node_held: is there a bitmap whose change may be taken back?
 *
 * See bdrv_dirty_bitmap_hold().
 */
bool dbf_node_held(const DBFNode *n);

/**
 * dbf_node_touched: bitmaps that record have changed there
 * @opaque: a DBFNode
 *
 * A DBFTouched, to be called before dbf_node_sync().
 */
void dbf_node_touched(void *opaque, uint64_t offset, uint64_t bytes);

/**
 * dbf_node_sync: make the store that of the node's persistent bitmaps
 *
 * So that the next commit writes what was changed.  Returns 0, or a negative
 * errno with @errp set if the store cannot have one of them; it has the others
 * then.
 */
int dbf_node_sync(DBFNode *n, Error **errp);

/** dbf_node_source: for the commits of @store; @opaque is the bitmap's */
void dbf_node_source(void *opaque, uint64_t first, uint64_t n,
                     uint8_t *payload);

/**
 * dbf_node_can_store: as BlockDriver.bdrv_co_can_store_new_dirty_bitmap
 */
bool dbf_node_can_store(const DBFNode *n, const char *name,
                        uint32_t granularity, Error **errp);

/**
 * dbf_node_busy: the name of a bitmap that somebody uses, or NULL
 */
const char *dbf_node_busy(const DBFNode *n);

/** dbf_node_release: the node's persistent bitmaps, none of which is busy */
void dbf_node_release(DBFNode *n);

/** dbf_node_set_readonly: for the node's persistent bitmaps */
void dbf_node_set_readonly(DBFNode *n, bool readonly);

/** dbf_node_set_inconsistent: for the node's persistent bitmaps */
void dbf_node_set_inconsistent(DBFNode *n);

/**
 * dbf_node_check: read all that is in the file, and count what is wrong
 * @result: what is found is added
 *
 * Returns 0 or the negative errno of a request.  To be called between
 * dbf_node_open() and dbf_node_load().
 */
int coroutine_mixed_fn dbf_node_check(DBFNode *n, BdrvCheckResult *result);

/** dbf_node_info: for query-named-block-nodes and 'qemu-img info' */
DirtyBitmapFileInfo *dbf_node_info(const DBFNode *n);

#endif
