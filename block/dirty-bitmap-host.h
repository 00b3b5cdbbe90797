/*
 * Dirty bitmap file: what the host knows
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_DIRTY_BITMAP_HOST_H
#define BLOCK_DIRTY_BITMAP_HOST_H

#include "block/block_int.h"
#include "qemu/uuid.h"

/**
 * dbf_host_boot_id: tells one start of this host from all others
 * @bs: the node of a bitmap file
 *
 * Null where that is not known, or of no use, for the file is not on a file
 * system or a device of this host: what was written to it may be lost without
 * this host being started anew.
 */
QemuUUID GRAPH_RDLOCK dbf_host_boot_id(BlockDriverState *bs);

/** dbf_host_is_device: does @bs have the size of a device? */
bool GRAPH_RDLOCK dbf_host_is_device(BlockDriverState *bs);

/**
 * dbf_host_disk_time: when the file of a disk was last changed
 * @bs: the node of the disk
 *
 * In ns since 1970, or 0 where that is not known or says nothing: the disk is
 * no regular file, or has a format whose driver writes to it when it is closed.
 */
int64_t GRAPH_RDLOCK dbf_host_disk_time(BlockDriverState *bs);

#endif
