/*
 * Dirty bitmap file: how its bytes are reached
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_DIRTY_BITMAP_IO_H
#define BLOCK_DIRTY_BITMAP_IO_H

#include "qemu/coroutine.h"

/**
 * DBFIO: the file
 * @pread, @pwrite: all of @bytes bytes at @offset, in multiples of 4096 both
 * @flush: what was written before it began is on stable storage when it
 *         returns
 * @length: of the file in bytes
 * @truncate: to @length bytes; what is new reads as zeroes
 * @opaque: for all of them
 *
 * They return 0 (or the length), or a negative errno.  They are called in
 * coroutines, several at a time and from several threads; while a file is
 * made, opened, closed or checked, outside of coroutines as well, one at a
 * time.
 */
typedef struct DBFIO {
    int coroutine_mixed_fn (*pread)(void *opaque, uint64_t offset,
                                    void *buf, size_t bytes);
    int coroutine_mixed_fn (*pwrite)(void *opaque, uint64_t offset,
                                     const void *buf, size_t bytes);
    int coroutine_mixed_fn (*flush)(void *opaque);
    int64_t coroutine_mixed_fn (*length)(void *opaque);
    int coroutine_mixed_fn (*truncate)(void *opaque, uint64_t length);
    void *opaque;
} DBFIO;

#endif
