/*
 * Dirty bitmap file: intents, what tells after a crash where the disk may have
 * been written to
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_DIRTY_BITMAP_INTENT_H
#define BLOCK_DIRTY_BITMAP_INTENT_H

#include "dirty-bitmap-codec.h"
#include "dirty-bitmap-io.h"

typedef struct DBFIntent DBFIntent;

/**
 * dbf_intent_new: the intents of the file that has @header
 * @io: must stay valid
 * @header: its intent area, extents and disk size count
 * @mode: DBF_MODE_OFF writes nothing, DBF_MODE_PROCESS relies on the host,
 *        DBF_MODE_POWER on stable storage
 *
 * There are none until dbf_intent_load().
 */
DBFIntent *dbf_intent_new(const DBFIO *io, const DBFHeader *header,
                          DBFMode mode);
void dbf_intent_free(DBFIntent *t);

/**
 * dbf_intent_load: read the intent area
 * @keep: there are the intents that it says; else there are none
 *
 * What is there counts as written to, so that the next dbf_intent_snapshot()
 * reports it.  Nobody else may use @t meanwhile.  Returns 0, or the negative
 * errno of a request; what is damaged is no error, its extents have intents.
 */
int coroutine_mixed_fn dbf_intent_load(DBFIntent *t, bool keep);

/**
 * dbf_intent_heal: make the area say what there is
 *
 * To be called after dbf_intent_load(), before the first use, if the file is
 * going to be written to.  When it has returned 0, that is on stable storage.
 * After an error, the negative errno of a request, @t is of no use; a crash at
 * any point loses no intent that was kept.
 */
int coroutine_mixed_fn dbf_intent_heal(DBFIntent *t);

/**
 * dbf_intent_begin: before a write to the disk
 * @offset, @bytes: of the disk, not beyond its end
 *
 * When it has returned 0, the intent of each extent is in the file (in mode
 * power: on stable storage), and stays until a dbf_intent_retire() that
 * follows dbf_intent_end().  Several threads may call it; only what was not
 * written to lately takes a lock and waits.  Where it fails there is nothing
 * to end; the error is that of a request, and no state is lost: the next one
 * may succeed.
 */
int coroutine_fn dbf_intent_begin(DBFIntent *t, uint64_t offset,
                                  uint64_t bytes);

/**
 * dbf_intent_end: the bits of that write have been set in all bitmaps
 *
 * Whether it has succeeded or not.  From any thread, also outside of
 * coroutines.
 */
void dbf_intent_end(DBFIntent *t, uint64_t offset, uint64_t bytes);

/**
 * DBFTouched: @bytes of the disk at @offset may have been written to
 *
 * An extent, which may go beyond the end of the disk.
 */
typedef void DBFTouched(void *opaque, uint64_t offset, uint64_t bytes);

/*
 * Of what follows, one function at a time; writes begin and end meanwhile.
 */

/**
 * dbf_intent_snapshot: what was written to since the last one?
 *
 * Bits set before a dbf_intent_end() whose extent is reported now can be seen
 * when @touched is called; what ends later is reported the next time.
 */
void dbf_intent_snapshot(DBFIntent *t, DBFTouched *touched, void *opaque);

/**
 * dbf_intent_retire: remove what the last snapshot reported
 *
 * To be called when all of it is in the file.  Extents that were written to
 * since, or are being written to, stay.  Returns 0 or the negative errno of a
 * request; then some may stay in the file until the next time.
 */
int coroutine_fn dbf_intent_retire(DBFIntent *t);

/** dbf_intent_count: how many extents have an intent */
uint64_t dbf_intent_count(const DBFIntent *t);

/**
 * dbf_intent_suspend: record no more in the file
 *
 * Because that fails, and the file says that it is not to be trusted.
 */
void dbf_intent_suspend(DBFIntent *t);

/**
 * dbf_intent_resume: record again, and what was not recorded meanwhile too
 *
 * When it has returned 0, each intent is in the file.  Nothing changes in mode
 * off.  Fails for good after a flush has failed in mode power: the host may
 * have dropped what was written before.
 */
int coroutine_fn dbf_intent_resume(DBFIntent *t);

/** DBFCommit: make the file refer to another intent area or disk size */
typedef int coroutine_fn DBFCommit(void *opaque);

/**
 * dbf_intent_move: follow the disk to another size, or to another area
 * @header: what the file's header is going to be
 * @commit: writes it
 *
 * All intents are in the new area before @commit is called, and no others
 * come until it has returned.  If it fails, the file may refer to either
 * area: intents are suspended.
 */
int coroutine_fn dbf_intent_move(DBFIntent *t, const DBFHeader *header,
                                 DBFCommit *commit, void *opaque);

#endif
