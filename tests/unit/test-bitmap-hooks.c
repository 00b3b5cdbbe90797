/*
 * Drivers that store bitmaps when they are changed: what they are told, when
 * they are asked, and what follows from their errors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block.h"
#include "block/block_int.h"
#include "block/dirty-bitmap.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-block-core.h"
#include "qemu/main-loop.h"
#include "system/block-backend.h"

#define SIZE            (1 << 20)
#define GRANULARITY     65536

typedef struct Hooks {
    unsigned told, gone, stored;
    /* The one that the last call was for */
    BdrvDirtyBitmap *bitmap;
    uint64_t epoch;
    /* What the next store returns */
    int ret;
} Hooks;

static void hooks_changed(BlockDriverState *bs, BdrvDirtyBitmap *bitmap,
                          bool gone)
{
    Hooks *h = bs->opaque;

    h->told++;
    h->gone += gone;
    h->bitmap = bitmap;
    h->epoch = bdrv_dirty_bitmap_epoch(bitmap);
}

static int coroutine_fn GRAPH_RDLOCK hooks_store(BlockDriverState *bs,
                                                 Error **errp)
{
    Hooks *h = bs->opaque;

    h->stored++;
    if (h->ret < 0) {
        error_setg_errno(errp, -h->ret, "not stored");
    }
    return h->ret;
}

static bool coroutine_fn GRAPH_RDLOCK hooks_can_store(BlockDriverState *bs,
                                                      const char *name,
                                                      uint32_t granularity,
                                                      Error **errp)
{
    return true;
}

static int coroutine_fn GRAPH_RDLOCK hooks_truncate(BlockDriverState *bs,
                                                    int64_t offset, bool exact,
                                                    PreallocMode prealloc,
                                                    BdrvRequestFlags flags,
                                                    Error **errp)
{
    bs->total_sectors = offset / BDRV_SECTOR_SIZE;
    return 0;
}

static int coroutine_fn GRAPH_RDLOCK hooks_pwritev(BlockDriverState *bs,
                                                   int64_t offset,
                                                   int64_t bytes,
                                                   QEMUIOVector *qiov,
                                                   BdrvRequestFlags flags)
{
    return 0;
}

static BlockDriver bdrv_hooks = {
    .format_name                        = "bitmap-hooks",
    .instance_size                      = sizeof(Hooks),
    .bdrv_co_pwritev                    = hooks_pwritev,
    .bdrv_co_truncate                   = hooks_truncate,
    .bdrv_co_can_store_new_dirty_bitmap = hooks_can_store,
    .bdrv_dirty_bitmap_changed          = hooks_changed,
    .bdrv_co_store_dirty_bitmaps        = hooks_store,
};

typedef struct Fixture {
    BlockBackend *blk;
    BlockDriverState *bs;
    Hooks *h;
    BdrvDirtyBitmap *bitmap, *other;
} Fixture;

static BdrvDirtyBitmap *add(Fixture *f, const char *name)
{
    return bdrv_create_dirty_bitmap(f->bs, GRANULARITY, name, &error_abort);
}

static void setup(Fixture *f, const void *opaque)
{
    f->bs = bdrv_new_open_driver(&bdrv_hooks, "node", BDRV_O_RDWR,
                                 &error_abort);
    f->bs->total_sectors = SIZE / BDRV_SECTOR_SIZE;
    f->h = f->bs->opaque;
    f->blk = blk_new(qemu_get_aio_context(), BLK_PERM_ALL, BLK_PERM_ALL);
    blk_insert_bs(f->blk, f->bs, &error_abort);
    f->bitmap = add(f, "bitmap");
    f->other = add(f, "other");
}

static void teardown(Fixture *f, const void *opaque)
{
    bdrv_release_named_dirty_bitmaps(f->bs);
    bdrv_unref(f->bs);
    blk_unref(f->blk);
}

/* --- what a driver is told --- */

static void change_clear(Fixture *f)
{
    bdrv_clear_dirty_bitmap(f->bitmap, NULL);
}

static void change_restore(Fixture *f)
{
    HBitmap *backup;

    bdrv_clear_dirty_bitmap(f->bitmap, &backup);
    f->h->told = 0;
    bdrv_restore_dirty_bitmap(f->bitmap, backup);
}

static void change_set(Fixture *f)
{
    bdrv_set_dirty_bitmap(f->bitmap, 0, 1);
}

static void change_reset(Fixture *f)
{
    bdrv_reset_dirty_bitmap(f->bitmap, 0, GRANULARITY);
}

static void change_merge(Fixture *f)
{
    g_assert_true(bdrv_merge_dirty_bitmap(f->bitmap, f->other, NULL,
                                          &error_abort));
}

static void change_disable(Fixture *f)
{
    bdrv_disable_dirty_bitmap(f->bitmap);
}

static void change_enable(Fixture *f)
{
    bdrv_enable_dirty_bitmap(f->bitmap);
}

static void change_persistence(Fixture *f)
{
    bdrv_dirty_bitmap_set_persistence(f->bitmap, true);
}

static void change_skip_store(Fixture *f)
{
    bdrv_dirty_bitmap_skip_store(f->bitmap, true);
}

static void change_inconsistent(Fixture *f)
{
    bdrv_dirty_bitmap_set_persistence(f->bitmap, true);
    f->h->told = 0;
    bdrv_dirty_bitmap_set_inconsistent(f->bitmap);
}

static void change_load(Fixture *f)
{
    bdrv_dirty_bitmap_deserialize_ones(f->bitmap, 0, SIZE, false);
    bdrv_dirty_bitmap_deserialize_finish(f->bitmap);
}

static void change_successor(Fixture *f)
{
    bdrv_dirty_bitmap_create_successor(f->bitmap, &error_abort);
    g_assert_nonnull(bdrv_dirty_bitmap_successor(f->bitmap));
}

static void change_enable_successor(Fixture *f)
{
    change_disable(f);
    change_successor(f);
    g_assert_false(bdrv_dirty_bitmap_recording(f->bitmap));
    f->h->told = 0;
    bdrv_dirty_bitmap_enable_successor(f->bitmap);
    g_assert_true(bdrv_dirty_bitmap_recording(f->bitmap));
}

static void change_reclaim(Fixture *f)
{
    change_successor(f);
    f->h->told = 0;
    bdrv_reclaim_dirty_bitmap(f->bitmap, &error_abort);
    g_assert_null(bdrv_dirty_bitmap_successor(f->bitmap));
}

typedef struct Change {
    const char *path;
    void (*make)(Fixture *f);
} Change;

/* Whatever changes a bitmap, but for writes, gives it a new epoch */
static void test_change(Fixture *f, const void *opaque)
{
    const Change *change = opaque;
    uint64_t epoch = bdrv_dirty_bitmap_epoch(f->bitmap);
    uint64_t other = bdrv_dirty_bitmap_epoch(f->other);

    g_assert_cmpuint(epoch, !=, 0);
    g_assert_cmpuint(epoch, !=, other);
    f->h->told = 0;
    change->make(f);
    g_assert_cmpuint(f->h->told, >, 0);
    g_assert_true(f->h->bitmap == f->bitmap);
    g_assert_cmpuint(bdrv_dirty_bitmap_epoch(f->bitmap), !=, epoch);
    g_assert_cmpuint(bdrv_dirty_bitmap_epoch(f->bitmap), ==, f->h->epoch);
    g_assert_cmpuint(bdrv_dirty_bitmap_epoch(f->bitmap), !=, other);
    g_assert_cmpuint(bdrv_dirty_bitmap_epoch(f->other), ==, other);
    if (bdrv_dirty_bitmap_has_successor(f->bitmap)) {
        bdrv_reclaim_dirty_bitmap(f->bitmap, &error_abort);
    }
}

static void test_write(Fixture *f, const void *opaque)
{
    uint64_t epoch = bdrv_dirty_bitmap_epoch(f->bitmap);
    uint8_t data[512] = {};

    f->h->told = 0;
    g_assert_cmpint(blk_pwrite(f->blk, 0, sizeof(data), data, 0), ==, 0);
    g_assert_cmpint(bdrv_get_dirty_count(f->bitmap), ==, GRANULARITY);
    g_assert_cmpuint(f->h->told, ==, 0);
    g_assert_cmpuint(bdrv_dirty_bitmap_epoch(f->bitmap), ==, epoch);
}

static void test_gone(Fixture *f, const void *opaque)
{
    BdrvDirtyBitmap *successor;
    uint64_t epoch;

    bdrv_release_dirty_bitmap(f->other);
    g_assert_cmpuint(f->h->gone, ==, 1);
    g_assert_true(f->h->bitmap == f->other);

    change_successor(f);
    successor = bdrv_dirty_bitmap_successor(f->bitmap);
    epoch = bdrv_dirty_bitmap_epoch(successor);
    bdrv_dirty_bitmap_abdicate(f->bitmap, &error_abort);
    g_assert_cmpuint(f->h->gone, ==, 2);
    g_assert_true(f->h->bitmap == f->bitmap);
    g_assert_cmpstr(bdrv_dirty_bitmap_name(successor), ==, "bitmap");
    g_assert_cmpuint(bdrv_dirty_bitmap_epoch(successor), !=, epoch);
}

/* --- what it is asked --- */

static Error *command(Fixture *f, const char *what)
{
    BlockDirtyBitmapOrStr source = {
        .type = QTYPE_QSTRING, .u.local = (char *)"other",
    };
    BlockDirtyBitmapOrStrList sources = { .value = &source };
    Error *err = NULL;

    f->h->stored = 0;
    if (strcmp(what, "add") == 0) {
        qmp_block_dirty_bitmap_add("node", "new", false, 0, true, true, false,
                                   false, &err);
    } else if (strcmp(what, "remove") == 0) {
        qmp_block_dirty_bitmap_remove("node", "bitmap", &err);
    } else if (strcmp(what, "clear") == 0) {
        qmp_block_dirty_bitmap_clear("node", "bitmap", &err);
    } else if (strcmp(what, "enable") == 0) {
        qmp_block_dirty_bitmap_enable("node", "bitmap", &err);
    } else if (strcmp(what, "disable") == 0) {
        qmp_block_dirty_bitmap_disable("node", "bitmap", &err);
    } else {
        qmp_block_dirty_bitmap_merge("node", "bitmap", &sources, &err);
    }
    return err;
}

/* Each command asks once, and fails if that does */
static void test_command(Fixture *f, const void *opaque)
{
    const char *what = opaque;
    bool adds = strcmp(what, "add") == 0;
    Error *err;

    bdrv_dirty_bitmap_set_persistence(f->bitmap, true);
    f->h->ret = -EIO;
    err = command(f, what);
    g_assert_cmpuint(f->h->stored, ==, 1);
    error_free_or_abort(&err);
    g_assert_null(bdrv_find_dirty_bitmap(f->bs, "new"));

    /* What is not persistent is nothing to store */
    if (!adds && bdrv_find_dirty_bitmap(f->bs, "bitmap")) {
        bdrv_dirty_bitmap_set_persistence(f->bitmap, false);
        g_assert_null(command(f, what));
        g_assert_cmpuint(f->h->stored, ==, 0);
    }

    f->h->ret = 0;
    f->bitmap = bdrv_find_dirty_bitmap(f->bs, "bitmap") ?:
        add(f, "bitmap");
    bdrv_dirty_bitmap_set_persistence(f->bitmap, true);
    g_assert_null(command(f, what));
    g_assert_cmpuint(f->h->stored, ==, 1);
    g_assert_true(!bdrv_find_dirty_bitmap(f->bs, "new") == !adds);
}

/* What is not persistent is added, whatever the driver would say */
static void test_not_persistent(Fixture *f, const void *opaque)
{
    f->h->ret = -EIO;
    qmp_block_dirty_bitmap_add("node", "new", false, 0, true, false, false,
                               false, &error_abort);
    g_assert_cmpuint(f->h->stored, ==, 0);
    g_assert_nonnull(bdrv_find_dirty_bitmap(f->bs, "new"));
}

static void test_hold(Fixture *f, const void *opaque)
{
    g_assert_false(bdrv_dirty_bitmap_held(f->bitmap));
    bdrv_dirty_bitmap_hold(f->bitmap, true);
    bdrv_dirty_bitmap_hold(f->bitmap, true);
    bdrv_dirty_bitmap_hold(f->bitmap, false);
    g_assert_true(bdrv_dirty_bitmap_held(f->bitmap));
    g_assert_false(bdrv_dirty_bitmap_held(f->other));
    bdrv_dirty_bitmap_hold(f->bitmap, false);
    g_assert_false(bdrv_dirty_bitmap_held(f->bitmap));
}

/* What is new is dirty, if the driver says so and the bitmap records */
static void test_growth(Fixture *f, const void *opaque)
{
    uint64_t epoch = bdrv_dirty_bitmap_epoch(f->bitmap);

    bdrv_disable_dirty_bitmap(f->other);
    g_assert_cmpint(blk_truncate(f->blk, 2 * SIZE, false, PREALLOC_MODE_OFF, 0,
                                 &error_abort), ==, 0);
    g_assert_cmpint(bdrv_get_dirty_count(f->bitmap), ==, 0);
    g_assert_cmpuint(bdrv_dirty_bitmap_epoch(f->bitmap), !=, epoch);

    bdrv_hooks.dirty_bitmaps_record_growth = true;
    blk_truncate(f->blk, 3 * SIZE, false, PREALLOC_MODE_OFF, 0, &error_abort);
    g_assert_cmpint(bdrv_get_dirty_count(f->bitmap), ==, SIZE);
    g_assert_cmpint(bdrv_dirty_bitmap_next_dirty(f->bitmap, 0, 3 * SIZE), ==,
                    2 * SIZE);
    g_assert_cmpint(bdrv_get_dirty_count(f->other), ==, 0);

    blk_truncate(f->blk, SIZE, false, PREALLOC_MODE_OFF, 0, &error_abort);
    g_assert_cmpint(bdrv_get_dirty_count(f->bitmap), ==, 0);
    bdrv_hooks.dirty_bitmaps_record_growth = false;
}

int main(int argc, char **argv)
{
    static const Change changes[] = {
        { "clear", change_clear }, { "restore", change_restore },
        { "set", change_set }, { "reset", change_reset },
        { "merge", change_merge }, { "disable", change_disable },
        { "enable", change_enable }, { "persistence", change_persistence },
        { "skip-store", change_skip_store },
        { "inconsistent", change_inconsistent }, { "load", change_load },
        { "successor", change_successor },
        { "enable-successor", change_enable_successor },
        { "reclaim", change_reclaim },
    };
    static const char *const commands[] = {
        "add", "remove", "clear", "enable", "disable", "merge",
    };

    bdrv_init();
    qemu_init_main_loop(&error_abort);
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(changes); i++) {
        g_autofree char *path = g_strdup_printf("/bitmap-hooks/change/%s",
                                                changes[i].path);

        g_test_add(path, Fixture, &changes[i], setup, test_change, teardown);
    }
    g_test_add("/bitmap-hooks/write", Fixture, NULL, setup, test_write,
               teardown);
    g_test_add("/bitmap-hooks/gone", Fixture, NULL, setup, test_gone,
               teardown);
    for (unsigned i = 0; i < ARRAY_SIZE(commands); i++) {
        g_autofree char *path = g_strdup_printf("/bitmap-hooks/command/%s",
                                                commands[i]);

        g_test_add(path, Fixture, commands[i], setup, test_command, teardown);
    }
    g_test_add("/bitmap-hooks/not-persistent", Fixture, NULL, setup,
               test_not_persistent, teardown);
    g_test_add("/bitmap-hooks/hold", Fixture, NULL, setup, test_hold,
               teardown);
    g_test_add("/bitmap-hooks/growth", Fixture, NULL, setup, test_growth,
               teardown);
    return g_test_run();
}
