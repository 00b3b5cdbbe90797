/*
 * Dirty bitmap file: what its blocks look like
 *
 * The structures of docs/interop/dirty-bitmap-file.rst, taken apart and put
 * together.  Decoding believes nothing: what it returns is within the bounds
 * below and agrees with its checksum.  Where blocks are, whether two of them
 * are the same, and what they mean together is for the caller to judge.
 *
 * A leaf: no I/O, no locks.  Nothing here allocates but
 * dbf_directory_decode().
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_DIRTY_BITMAP_CODEC_H
#define BLOCK_DIRTY_BITMAP_CODEC_H

#include "qemu/uuid.h"

/* Everything in the file is in blocks of this size */
#define DBF_BLOCK               4096U
/* Two copies of the header, the greater generation counts */
#define DBF_HEADERS             2U
#define DBF_FIRST_BLOCK         (DBF_HEADERS * DBF_BLOCK)
/* Nothing in the file is at or beyond this offset */
#define DBF_MAX_FILE            (1ULL << 32)
#define DBF_VERSION             1U
/* No writer gets there */
#define DBF_MAX_GENERATION      INT64_MAX

/* What a page or a table holds */
#define DBF_PAYLOAD             4072U
#define DBF_BITS                (8U * DBF_PAYLOAD)
#define DBF_REFS                (DBF_PAYLOAD / 16)

/* Disk sizes are multiples of a sector, up to what off_t can hold */
#define DBF_SECTOR              512U
#define DBF_MAX_DISK            (INT64_MAX & ~(uint64_t)(DBF_SECTOR - 1))
/* Granularities: log2 of bytes for each bit */
#define DBF_MIN_GRANULARITY     9U
#define DBF_MAX_GRANULARITY     31U
/* Extents that an intent bit is for: log2 of bytes, and how many there are */
#define DBF_MIN_EXTENT          20U
#define DBF_MAX_EXTENT          40U
#define DBF_MAX_EXTENTS         (1ULL << 24)
/*
 * An intent block has sectors that a disk writes whole or not at all.  Each of
 * them carries a part of the bits.
 */
#define DBF_SECTORS             (DBF_BLOCK / DBF_SECTOR)
#define DBF_SECTOR_PAYLOAD      488U
#define DBF_INTENT_BYTES        (DBF_SECTORS * DBF_SECTOR_PAYLOAD)
#define DBF_INTENT_BITS         (8U * DBF_INTENT_BYTES)
#define DBF_MAX_PAIRS           DIV_ROUND_UP(DBF_MAX_EXTENTS, DBF_INTENT_BITS)
/* In memory, bitmaps of this many bits take 1 GiB: all of a disk together */
#define DBF_MAX_BITS            (1ULL << 33)
#define DBF_MAX_BITMAPS         64U
/* As BDRV_BITMAP_MAX_NAME_SIZE; without the 0 at its end */
#define DBF_MAX_NAME            1023U
#define DBF_MAX_DIRECTORY       (1U << 20)

/** DBFMode: what the file survives while it is open for writing */
typedef enum DBFMode {
    DBF_MODE_OFF,       /* a clean close */
    DBF_MODE_PROCESS,   /* the end of the process, at any point */
    DBF_MODE_POWER,     /* the end of the host, at any point */
    DBF_MODE__MAX,
} DBFMode;

/* DBFHeader.flags */
#define DBF_CLEAN               (1U << 0)   /* closed, nothing to recover */
#define DBF_UNTRUSTED           (1U << 1)   /* changes were not recorded */
#define DBF_FLAGS               (DBF_CLEAN | DBF_UNTRUSTED)

/**
 * DBFHeader: the header
 * @incompatible: features a reader must know; none are defined
 * @compatible: features a reader may ignore
 * @autoclear: features a writer that does not know them clears
 * @generation: of this header: 1 to DBF_MAX_GENERATION
 * @disk_size: of the disk that the bitmaps are for, in bytes
 * @uuid: of the file
 * @flags: DBF_CLEAN, DBF_UNTRUSTED
 * @mode: a DBFMode, with which it was last opened for writing
 * @boot_id: of the host where that was; null if not known
 * @directory: offset of the directory; 0 if there are no bitmaps
 * @directory_length: in bytes
 * @directory_crc: CRC32C of these bytes
 * @extent_bits: log2 of the bytes that one intent bit is for
 * @intent: offset of the intent area
 * @intent_pairs: how many pairs of blocks it has
 * @disk_time_ns: when the disk's file was last changed, as of the last clean
 *                close, in ns since 1970; 0: not known.  A hint.
 */
typedef struct DBFHeader {
    uint64_t incompatible;
    uint64_t compatible;
    uint64_t autoclear;
    uint64_t generation;
    uint64_t disk_size;
    QemuUUID uuid;
    uint32_t flags;
    uint32_t mode;
    QemuUUID boot_id;
    uint64_t directory;
    uint32_t directory_length;
    uint32_t directory_crc;
    uint32_t extent_bits;
    uint32_t intent_pairs;
    uint64_t intent;
    int64_t disk_time_ns;
} DBFHeader;

/** DBFKind: the blocks that have a payload */
typedef enum DBFKind {
    DBF_PAGE,           /* bits of a bitmap */
    DBF_TABLE,          /* references to pages */
} DBFKind;

/* DBFRef.offset of what is not stored because all of its bits are the same */
#define DBF_REF_ZEROES          0U
#define DBF_REF_ONES            1U

/**
 * DBFRef: where a table or a page is
 * @offset: in the file, or DBF_REF_ZEROES or DBF_REF_ONES
 * @generation: that the block has; 0 if none is stored
 */
typedef struct DBFRef {
    uint64_t offset;
    uint64_t generation;
} DBFRef;

/**
 * DBFEntry: one bitmap in the directory
 * @name: 1 to DBF_MAX_NAME bytes
 * @granularity_bits: log2 of the bytes for each bit
 * @enabled: it records; after a crash, intents go into it
 * @inconsistent: its content is not to be believed
 * @tables: one for each DBF_REFS pages; the caller frees it
 * @n_tables: dbf_tables(disk_size, granularity_bits)
 */
typedef struct DBFEntry {
    char *name;
    unsigned granularity_bits;
    bool enabled;
    bool inconsistent;
    unsigned n_tables;
    DBFRef *tables;
} DBFEntry;

/** dbf_bits: bits that a bitmap of this granularity has */
static inline uint64_t dbf_bits(uint64_t disk_size, unsigned granularity_bits)
{
    return DIV_ROUND_UP(disk_size, 1ULL << granularity_bits);
}

/** dbf_pages, dbf_tables: pages and tables that it takes */
static inline uint64_t dbf_pages(uint64_t disk_size, unsigned granularity_bits)
{
    return DIV_ROUND_UP(dbf_bits(disk_size, granularity_bits), DBF_BITS);
}

static inline uint64_t dbf_tables(uint64_t disk_size,
                                  unsigned granularity_bits)
{
    return DIV_ROUND_UP(dbf_pages(disk_size, granularity_bits), DBF_REFS);
}

/** dbf_extents: extents of a disk of @disk_size */
static inline uint64_t dbf_extents(uint64_t disk_size, unsigned extent_bits)
{
    return DIV_ROUND_UP(disk_size, 1ULL << extent_bits);
}

/** dbf_intent_pairs: pairs of intent blocks for a disk of @disk_size */
static inline uint64_t dbf_intent_pairs(uint64_t disk_size,
                                        unsigned extent_bits)
{
    return MAX(1, DIV_ROUND_UP(dbf_extents(disk_size, extent_bits),
                               DBF_INTENT_BITS));
}

/**
 * dbf_disk_check: can there be a file for a disk of this size?
 * @extent_bits: log2 of the bytes that one intent bit is for
 *
 * Returns false with @errp set if not.
 */
bool dbf_disk_check(uint64_t disk_size, unsigned extent_bits, Error **errp);

/**
 * dbf_bitmap_check: can a disk of @disk_size have such a bitmap?
 * @name: @length bytes, without a 0 at their end
 * @granularity_bits: log2 of the bytes for each bit
 *
 * Returns false with @errp set if not.
 */
bool dbf_bitmap_check(const char *name, size_t length,
                      unsigned granularity_bits, uint64_t disk_size,
                      Error **errp);

/** dbf_header_encode: fill @block, which goes to @offset */
void dbf_header_encode(const DBFHeader *header, uint64_t offset,
                       uint8_t *block);

/**
 * dbf_header_decode: read the header copy that was at @offset
 *
 * Returns false, with @errp set, if it is none, is damaged or beyond a
 * bound.  Features that are not known are no error here.
 */
bool dbf_header_decode(const uint8_t *block, uint64_t offset,
                       DBFHeader *header, Error **errp);

/**
 * DBFTrust: what a file says of its bitmaps when nobody has it open
 * @DBF_TRUST_CLEAN: they are what the directory says
 * @DBF_TRUST_INTENTS: and where there are intents, they are dirty
 * @DBF_TRUST_NONE_FLAG: nothing, for it is marked as untrusted
 * @DBF_TRUST_NONE_OFF: nothing, for it was not closed, in mode off
 * @DBF_TRUST_NONE_HOST: nothing, for it was not closed, in mode process, and
 *                       the host was started since, or may have been
 */
typedef enum DBFTrust {
    DBF_TRUST_CLEAN,
    DBF_TRUST_INTENTS,
    DBF_TRUST_NONE_FLAG,
    DBF_TRUST_NONE_OFF,
    DBF_TRUST_NONE_HOST,
} DBFTrust;

/**
 * dbf_header_trust: can bitmaps be used as @header leaves them?
 * @boot_id: of the running host; null if not known
 */
DBFTrust dbf_header_trust(const DBFHeader *header, const QemuUUID *boot_id);

/**
 * dbf_block_seal: complete a block of @kind
 * @block: DBF_BLOCK bytes, whose payload is filled
 * @kind: of the block
 * @index: which one of its bitmap
 * @generation: of the block
 * @offset: where it goes
 */
void dbf_block_seal(uint8_t *block, DBFKind kind, uint32_t index,
                    uint64_t generation, uint64_t offset);

/**
 * dbf_block_check: is this the block that was looked for?
 * @generation: filled
 *
 * The other arguments are as in dbf_block_seal().
 */
bool dbf_block_check(const uint8_t *block, DBFKind kind, uint32_t index,
                     uint64_t offset, uint64_t *generation);

/** dbf_payload: the payload of a block */
static inline uint8_t *dbf_payload(uint8_t *block)
{
    return block + 16;
}

/** DBFSlot: what one of the two blocks of a pair in the intent area is */
typedef enum DBFSlot {
    DBF_SLOT_WHOLE,     /* all its sectors are of the same writing */
    DBF_SLOT_TORN,      /* its last writing was not finished */
    DBF_SLOT_DAMAGED,   /* a sector is none of what a writer leaves behind */
} DBFSlot;

/**
 * dbf_intent_encode: fill a block of the intent area
 * @bits: DBF_INTENT_BYTES of them; bit i is bit i % 8 of byte i / 8
 * @pair: of the intent area
 * @sequence: of the writings of this pair
 * @offset: where it goes
 * @block: DBF_BLOCK bytes, filled
 */
void dbf_intent_encode(const uint8_t *bits, uint32_t pair, uint64_t sequence,
                       uint64_t offset, uint8_t *block);

/**
 * dbf_intent_decode: read a block of the intent area
 * @bits: filled if the slot is whole
 * @sequence: filled with the greatest that a valid sector has; 0 if none is
 */
DBFSlot dbf_intent_decode(const uint8_t *block, uint32_t pair,
                          uint64_t offset, uint8_t *bits, uint64_t *sequence);

/**
 * dbf_intent_choose: which one of a pair counts?
 *
 * Returns 0 or 1, or -1 if each extent of the pair has an intent.
 */
int dbf_intent_choose(const DBFSlot slot[2], const uint64_t sequence[2]);

/** dbf_ref_put, dbf_ref_get: reference @i in a payload of a table */
void dbf_ref_put(uint8_t *payload, unsigned i, DBFRef ref);
DBFRef dbf_ref_get(const uint8_t *payload, unsigned i);

/**
 * dbf_ref_valid: can @ref be in a file of @file_length bytes?
 *
 * Not if it is no block, in the headers, beyond the end, or if it has no
 * generation though it names a block, or one though it does not.
 */
bool dbf_ref_valid(DBFRef ref, uint64_t file_length);

/** dbf_directory_length: bytes that dbf_directory_encode() will fill */
uint64_t dbf_directory_length(const DBFEntry *entries, unsigned n);

/**
 * dbf_directory_encode: fill @buf
 * @buf: dbf_directory_length() bytes
 * @crc: filled, for the header
 */
void dbf_directory_encode(const DBFEntry *entries, unsigned n,
                          uint8_t *buf, uint32_t *crc);

/**
 * dbf_directory_decode: read a directory
 * @buf: its bytes
 * @header: that named it
 * @file_length: for dbf_ref_valid()
 * @entries: filled; to be freed with dbf_entries_free()
 * @n: filled
 *
 * Returns false, with @errp set, if it is damaged, an entry is beyond a
 * bound, all together are, or two have the same name.
 */
bool dbf_directory_decode(const uint8_t *buf, const DBFHeader *header,
                          uint64_t file_length, DBFEntry **entries,
                          unsigned *n, Error **errp);

/** dbf_entries_free: free @entries and what they own */
void dbf_entries_free(DBFEntry *entries, unsigned n);

#endif
