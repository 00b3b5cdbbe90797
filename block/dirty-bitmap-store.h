/*
 * Dirty bitmap file: the store, bitmaps in a file and how they get there
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_DIRTY_BITMAP_STORE_H
#define BLOCK_DIRTY_BITMAP_STORE_H

#include "qemu/queue.h"
#include "dirty-bitmap-codec.h"
#include "dirty-bitmap-io.h"

/*
 * What the owner changes in memory gets into the file with the next commit,
 * all of it or nothing.  There are no locks: one function at a time, and none
 * of the fields changes while one is under way.
 */
typedef struct DBFStore DBFStore;

/**
 * DBFBitmap: one bitmap of the file
 *
 * For the owner to read and to change:
 * @name: allocated; 1 to DBF_MAX_NAME bytes, and no other one's
 * @enabled: it records; after a crash, intents go into it
 * @inconsistent: its content is not to be believed, and will not be stored;
 *                to be set, and never to be taken back
 * @frozen: what the file has of its content stays as it is; what is to be
 *          written still is when it is not frozen any more
 * @opaque: the owner's
 *
 * To read:
 * @granularity_bits: log2 of the bytes of the disk for each bit
 * @bits, @n_pages, @n_tables: as the disk's size demands
 * @damaged: pages of it that could not be read by dbf_store_open() and
 *           dbf_store_load()
 *
 * The store's own:
 * @pages: where each page is, as far as the file has it
 * @changed: pages that are to be written by the next commit
 * @tables: where each table is
 * @changed_tables: whose pages moved
 */
typedef struct DBFBitmap {
    char *name;
    bool enabled;
    bool inconsistent;
    bool frozen;
    void *opaque;

    unsigned granularity_bits;
    uint64_t bits;
    uint64_t n_pages;
    unsigned n_tables;
    uint64_t damaged;

    DBFRef *pages;
    unsigned long *changed;
    DBFRef *tables;
    unsigned long *changed_tables;
    QTAILQ_ENTRY(DBFBitmap) next;
} DBFBitmap;

/**
 * dbf_store_create: make a file without bitmaps for a disk of @disk_size
 * @extent_bits: log2 of the bytes for each intent, DBF_MIN_EXTENT to
 *               DBF_MAX_EXTENT; 0: 22, or more where the disk needs it
 *
 * What the file had is gone.  Returns false with @errp set.
 */
bool coroutine_mixed_fn dbf_store_create(const DBFIO *io, uint64_t disk_size,
                                         unsigned extent_bits, Error **errp);

/**
 * dbf_store_open: read the header, the directory and the tables
 * @io: must stay valid
 * @repair: pages that cannot be read shall count as all ones; else they make
 *          their bitmap inconsistent
 *
 * Returns NULL with @errp set where there is nothing that could be used: no
 * valid header, a feature that is not known, or an error of @io.  A damaged
 * directory leaves a store without bitmaps, see dbf_store_damage().
 */
DBFStore *coroutine_mixed_fn dbf_store_open(const DBFIO *io, bool repair,
                                            Error **errp);
void dbf_store_free(DBFStore *s);

/** dbf_store_header: the one that counts in the file */
const DBFHeader *dbf_store_header(const DBFStore *s);

/**
 * dbf_store_wanted: the header that the next commit will write
 *
 * But for the directory and the generation.
 */
const DBFHeader *dbf_store_wanted(const DBFStore *s);

/**
 * DBFDamage: what is wrong with a file, as far as it has been read
 * @headers: copies that are no valid header, 0 or 1
 * @directory: why it could not be read; NULL if it could
 * @shared: references to a block that has another one; with any of them, all
 *          bitmaps are inconsistent
 * @tables: that could not be read
 */
typedef struct DBFDamage {
    unsigned headers;
    char *directory;
    uint64_t shared;
    uint64_t tables;
} DBFDamage;

/** dbf_store_damage: found by dbf_store_open() */
const DBFDamage *dbf_store_damage(const DBFStore *s);

/**
 * dbf_store_blocks: blocks of the file
 * @used: that are in use; others may be, some day
 * @end: up to the last one in use
 * @all: that it has
 */
void dbf_store_blocks(const DBFStore *s, uint64_t *used, uint64_t *end,
                      uint64_t *all);

/** dbf_store_next: the bitmap behind @b, the first one for NULL, or NULL */
DBFBitmap *dbf_store_next(const DBFStore *s, const DBFBitmap *b);

/** dbf_store_find: the bitmap of that name, or NULL */
DBFBitmap *dbf_store_find(const DBFStore *s, const char *name);

/**
 * dbf_store_can_add: would dbf_store_add() succeed?
 *
 * Returns false with @errp set if there is one of that name, or if a bound of
 * the format would be exceeded.
 */
bool dbf_store_can_add(const DBFStore *s, const char *name,
                       unsigned granularity_bits, Error **errp);

/**
 * dbf_store_add: a new bitmap, enabled, and all of it to be written
 *
 * Returns NULL with @errp set if dbf_store_can_add() does.
 */
DBFBitmap *dbf_store_add(DBFStore *s, const char *name,
                         unsigned granularity_bits, Error **errp);

/** dbf_store_remove: free @b; it leaves the file with the next commit */
void dbf_store_remove(DBFStore *s, DBFBitmap *b);

/** dbf_bitmap_changed: bits for @bytes of the disk at @offset may differ */
void dbf_bitmap_changed(DBFBitmap *b, uint64_t offset, uint64_t bytes);

/**
 * dbf_store_resize: the disk is going to have another size
 *
 * Bitmaps keep what they have; what is new, and the page where they ended, is
 * to be written by the next commit.  dbf_store_wanted() may have another
 * intent area afterwards, see dbf_intent_move().  Returns false with @errp
 * set, and nothing changed, if a bound of the format would be exceeded.
 */
bool dbf_store_resize(DBFStore *s, uint64_t disk_size, Error **errp);

/**
 * DBFSink: takes what a bitmap has
 * @first, @n: bits; @first is a multiple of DBF_BITS
 * @payload: of a page; bits behind the end are 0
 */
typedef void DBFSink(void *opaque, uint64_t first, uint64_t n,
                     const uint8_t *payload);

/**
 * dbf_store_load: read a bitmap as the file has it
 *
 * To be called once, before anything is changed.  @sink is called for each
 * page that has a bit.  Returns 0 or the negative errno of a request.
 */
int coroutine_mixed_fn dbf_store_load(DBFStore *s, DBFBitmap *b,
                                      DBFSink *sink, void *opaque);

/**
 * DBFSource: give what a bitmap has now
 * @opaque: of the bitmap
 * @first, @n: bits; @first is a multiple of DBF_BITS
 * @payload: ROUND_UP(@n, 64) bits of zeroes, to be filled
 */
typedef void DBFSource(void *opaque, uint64_t first, uint64_t n,
                       uint8_t *payload);

/**
 * dbf_store_commit: make the file say what there is in memory
 * @source: called for each page that has changed
 *
 * When it has returned 0, that is in the file (in mode power: on stable
 * storage).  When it returns the negative errno of a request, the file has
 * what it had before or, if its last step failed, this; what was to be
 * written still is.
 */
int coroutine_mixed_fn dbf_store_commit(DBFStore *s, DBFSource *source);

/**
 * dbf_store_begin: the disk is going to be written to
 * @boot_id: of the running host; null if not known
 *
 * A commit after which, on stable storage in each mode, the file is not clean.
 * Comes before any other one.
 */
int coroutine_mixed_fn dbf_store_begin(DBFStore *s, DBFSource *source,
                                       DBFMode mode, const QemuUUID *boot_id);

/**
 * dbf_store_finish: the disk is not going to be written to any more
 * @disk_time_ns: of the last change of the disk's file; 0 if not known
 *
 * A commit after which, on stable storage in each mode, the file is clean.
 * Where the disk is not written to, it needs no dbf_store_begin().  Free blocks
 * at its end go away.  Also after it has failed, the disk must not
 * be written to before dbf_store_begin().
 */
int coroutine_mixed_fn dbf_store_finish(DBFStore *s, DBFSource *source,
                                        int64_t disk_time_ns);

/**
 * dbf_store_untrust: say in the file that changes are not recorded
 *
 * At once, and in each commit until dbf_store_trust().  When it has returned 0,
 * the header that counts says so (in mode power: on stable storage).
 */
int coroutine_mixed_fn dbf_store_untrust(DBFStore *s);

/**
 * dbf_store_trust: take that back
 *
 * All changes are recorded again by the next commit; or after opening a file
 * that is not to be trusted, no bitmap claims to have them: those that had been
 * in it are inconsistent.
 */
void dbf_store_trust(DBFStore *s);

#endif
