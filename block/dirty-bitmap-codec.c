/*
 * Dirty bitmap file: what its blocks look like
 *
 * All integers are little-endian.  A block ends in a checksum that its own
 * offset goes into first: one that was written to a wrong place, or left
 * there by another file, is no valid block.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/crc32c.h"
#include "dirty-bitmap-codec.h"

/* "QDBM", and what a transfer as text would change */
static const uint8_t dbf_magic[8] = "QDBM\r\n\x1a\n";

/* Of a header */
enum { H_MAGIC = 0, H_VERSION = 8, H_LENGTH = 12, H_END = 136 };

#define DBF_FIELD(_at, _field) \
    { _at, sizeof_field(DBFHeader, _field), offsetof(DBFHeader, _field) }

/* What follows those three */
static const struct {
    uint8_t at;
    uint8_t size;
    uint8_t field;
} dbf_header_fields[] = {
    DBF_FIELD(16, incompatible),
    DBF_FIELD(24, compatible),
    DBF_FIELD(32, autoclear),
    DBF_FIELD(40, generation),
    DBF_FIELD(48, disk_size),
    DBF_FIELD(56, uuid),
    DBF_FIELD(72, flags),
    DBF_FIELD(76, mode),
    DBF_FIELD(80, boot_id),
    DBF_FIELD(96, directory),
    DBF_FIELD(104, directory_length),
    DBF_FIELD(108, directory_crc),
    DBF_FIELD(112, intent),
    DBF_FIELD(120, intent_pairs),
    DBF_FIELD(124, extent_bits),
    DBF_FIELD(128, disk_time_ns),
};

/* Of a block with payload, and of a sector in the intent area */
enum { B_MAGIC = 0, B_INDEX = 4, B_GENERATION = 8, B_PAYLOAD = 16 };
#define B_CRC                   (DBF_BLOCK - 4)
#define S_CRC                   (DBF_SECTOR - 4)

/* Of the directory, and of an entry in it */
enum { D_MAGIC = 0, D_COUNT = 4, D_END = 8 };
enum {
    E_LENGTH = 0, E_NAME_LENGTH = 4, E_GRANULARITY = 6, E_FLAGS = 7,
    E_TABLES = 8, E_END = 16,
};

#define DBF_DIRECTORY_MAGIC     0x44424451      /* "QDBD" */
#define DBF_ENTRY_ENABLED       (1U << 0)
#define DBF_ENTRY_INCONSISTENT  (1U << 1)
#define DBF_ENTRY_FLAGS         (DBF_ENTRY_ENABLED | DBF_ENTRY_INCONSISTENT)
#define DBF_REF_SIZE            16U

static const uint32_t dbf_kind_magic[] = {
    [DBF_PAGE] = 0x50424451,                    /* "QDBP" */
    [DBF_TABLE] = 0x54424451,                   /* "QDBT" */
};
#define DBF_INTENT_MAGIC        0x49424451      /* "QDBI" */

/* Of what is before the checksum, in what goes to @offset */
static uint32_t dbf_crc(const uint8_t *p, size_t length, uint64_t offset)
{
    uint64_t le = cpu_to_le64(offset);
    struct iovec iov[] = {
        { .iov_base = &le, .iov_len = sizeof(le) },
        { .iov_base = (void *)p, .iov_len = length },
    };

    return iov_crc32c(0xffffffff, iov, ARRAY_SIZE(iov));
}

static uint32_t dbf_block_crc(const uint8_t *block, uint64_t offset)
{
    return dbf_crc(block, B_CRC, offset);
}

/*
 * From the host's byte order to that of the file, or back: it is the same
 * swap.  What has 16 bytes is a UUID.
 */
static void dbf_number_copy(void *to, const void *from, unsigned size)
{
    switch (size) {
    case 4:
        stl_he_p(to, cpu_to_le32(ldl_he_p(from)));
        break;
    case 8:
        stq_he_p(to, cpu_to_le64(ldq_he_p(from)));
        break;
    default:
        memcpy(to, from, size);
    }
}

void dbf_header_encode(const DBFHeader *header, uint64_t offset,
                       uint8_t *block)
{
    memset(block, 0, DBF_BLOCK);
    memcpy(block + H_MAGIC, dbf_magic, sizeof(dbf_magic));
    stl_le_p(block + H_VERSION, DBF_VERSION);
    stl_le_p(block + H_LENGTH, H_END);
    for (unsigned i = 0; i < ARRAY_SIZE(dbf_header_fields); i++) {
        dbf_number_copy(block + dbf_header_fields[i].at,
                        (const uint8_t *)header + dbf_header_fields[i].field,
                        dbf_header_fields[i].size);
    }
    stl_le_p(block + B_CRC, dbf_block_crc(block, offset));
}

static void dbf_header_take(const uint8_t *block, DBFHeader *header)
{
    for (unsigned i = 0; i < ARRAY_SIZE(dbf_header_fields); i++) {
        dbf_number_copy((uint8_t *)header + dbf_header_fields[i].field,
                        block + dbf_header_fields[i].at,
                        dbf_header_fields[i].size);
    }
}

/* Is [@offset, @offset + @blocks) behind the headers, in whole blocks? */
static bool dbf_area_valid(uint64_t offset, uint64_t blocks)
{
    return offset >= DBF_FIRST_BLOCK && offset % DBF_BLOCK == 0 &&
           offset <= DBF_MAX_FILE - blocks * DBF_BLOCK;
}

bool dbf_disk_check(uint64_t disk_size, unsigned extent_bits, Error **errp)
{
    if (disk_size > DBF_MAX_DISK || disk_size % DBF_SECTOR) {
        error_setg(errp, "disk size %" PRIu64 " is not a multiple of %u up to "
                   "%" PRIu64, disk_size, DBF_SECTOR, (uint64_t)DBF_MAX_DISK);
        return false;
    }
    if (extent_bits < DBF_MIN_EXTENT || extent_bits > DBF_MAX_EXTENT) {
        error_setg(errp, "extents of 2^%u bytes: 2^%u to 2^%u are possible",
                   extent_bits, DBF_MIN_EXTENT, DBF_MAX_EXTENT);
        return false;
    }
    if (dbf_extents(disk_size, extent_bits) > DBF_MAX_EXTENTS) {
        error_setg(errp, "disk of %" PRIu64 " bytes with extents of 2^%u: at "
                   "most %llu extents are possible", disk_size, extent_bits,
                   DBF_MAX_EXTENTS);
        return false;
    }
    return true;
}

static bool dbf_header_check_intents(const DBFHeader *h, Error **errp)
{
    if (h->intent_pairs < dbf_intent_pairs(h->disk_size, h->extent_bits) ||
        h->intent_pairs > DBF_MAX_PAIRS ||
        !dbf_area_valid(h->intent, 2ULL * h->intent_pairs)) {
        error_setg(errp, "intent area of %u pairs at 0x%" PRIx64 " is not for "
                   "a disk of %" PRIu64 " bytes", h->intent_pairs, h->intent,
                   h->disk_size);
        return false;
    }
    return true;
}

static bool dbf_header_check_directory(const DBFHeader *h, Error **errp)
{
    if (h->directory == 0 && h->directory_length == 0) {
        return true;
    }
    if (h->directory_length < D_END ||
        h->directory_length > DBF_MAX_DIRECTORY ||
        !dbf_area_valid(h->directory,
                        DIV_ROUND_UP(h->directory_length, DBF_BLOCK))) {
        error_setg(errp, "directory of %u bytes at 0x%" PRIx64 ": at most %u "
                   "bytes in whole blocks are possible", h->directory_length,
                   h->directory, DBF_MAX_DIRECTORY);
        return false;
    }
    if (h->directory < h->intent + 2ULL * h->intent_pairs * DBF_BLOCK &&
        h->intent < h->directory + h->directory_length) {
        error_setg(errp, "directory at 0x%" PRIx64 ": intents are there",
                   h->directory);
        return false;
    }
    return true;
}

bool dbf_header_decode(const uint8_t *block, uint64_t offset,
                       DBFHeader *header, Error **errp)
{
    uint32_t version = ldl_le_p(block + H_VERSION);
    uint32_t length = ldl_le_p(block + H_LENGTH);

    if (memcmp(block + H_MAGIC, dbf_magic, sizeof(dbf_magic)) != 0) {
        error_setg(errp, "not a dirty bitmap file");
        return false;
    }
    if (ldl_le_p(block + B_CRC) != dbf_block_crc(block, offset)) {
        error_setg(errp, "the header's checksum is wrong");
        return false;
    }
    if (version != DBF_VERSION) {
        error_setg(errp, "version %u: %u is what is known", version,
                   DBF_VERSION);
        return false;
    }
    dbf_header_take(block, header);
    if (length < H_END || length > B_CRC || header->generation == 0 ||
        header->generation > DBF_MAX_GENERATION ||
        header->mode >= DBF_MODE__MAX || (header->flags & ~DBF_FLAGS)) {
        error_setg(errp, "the header has an impossible value");
        return false;
    }
    return dbf_disk_check(header->disk_size, header->extent_bits, errp) &&
           dbf_header_check_intents(header, errp) &&
           dbf_header_check_directory(header, errp);
}

DBFTrust dbf_header_trust(const DBFHeader *header, const QemuUUID *boot_id)
{
    if (header->flags & DBF_UNTRUSTED) {
        return DBF_TRUST_NONE_FLAG;
    }
    if (header->flags & DBF_CLEAN) {
        return DBF_TRUST_CLEAN;
    }
    switch ((DBFMode)header->mode) {
    case DBF_MODE_POWER:
        return DBF_TRUST_INTENTS;
    case DBF_MODE_PROCESS:
        return qemu_uuid_is_null(boot_id) ||
               !qemu_uuid_is_equal(boot_id, &header->boot_id)
               ? DBF_TRUST_NONE_HOST : DBF_TRUST_INTENTS;
    default:
        return DBF_TRUST_NONE_OFF;
    }
}

void dbf_block_seal(uint8_t *block, DBFKind kind, uint32_t index,
                    uint64_t generation, uint64_t offset)
{
    stl_le_p(block + B_MAGIC, dbf_kind_magic[kind]);
    stl_le_p(block + B_INDEX, index);
    stq_le_p(block + B_GENERATION, generation);
    stl_le_p(block + B_CRC - 4, 0);
    stl_le_p(block + B_CRC, dbf_block_crc(block, offset));
}

bool dbf_block_check(const uint8_t *block, DBFKind kind, uint32_t index,
                     uint64_t offset, uint64_t *generation)
{
    *generation = ldq_le_p(block + B_GENERATION);
    return ldl_le_p(block + B_MAGIC) == dbf_kind_magic[kind] &&
           ldl_le_p(block + B_INDEX) == index &&
           ldl_le_p(block + B_CRC) == dbf_block_crc(block, offset);
}

void dbf_intent_encode(const uint8_t *bits, uint32_t pair, uint64_t sequence,
                       uint64_t offset, uint8_t *block)
{
    for (unsigned i = 0; i < DBF_SECTORS; i++) {
        uint8_t *s = block + i * DBF_SECTOR;

        stl_le_p(s + B_MAGIC, DBF_INTENT_MAGIC);
        stl_le_p(s + B_INDEX, pair * DBF_SECTORS + i);
        stq_le_p(s + B_GENERATION, sequence);
        memcpy(s + B_PAYLOAD, bits + i * DBF_SECTOR_PAYLOAD,
               DBF_SECTOR_PAYLOAD);
        stl_le_p(s + S_CRC - 4, 0);
        stl_le_p(s + S_CRC, dbf_crc(s, S_CRC, offset + i * DBF_SECTOR));
    }
}

DBFSlot dbf_intent_decode(const uint8_t *block, uint32_t pair,
                          uint64_t offset, uint8_t *bits, uint64_t *sequence)
{
    DBFSlot slot = DBF_SLOT_WHOLE;
    uint64_t first = ldq_le_p(block + B_GENERATION);

    *sequence = 0;
    for (unsigned i = 0; i < DBF_SECTORS; i++) {
        const uint8_t *s = block + i * DBF_SECTOR;
        uint64_t sector_sequence = ldq_le_p(s + B_GENERATION);

        if (ldl_le_p(s + B_MAGIC) != DBF_INTENT_MAGIC ||
            ldl_le_p(s + B_INDEX) != pair * DBF_SECTORS + i ||
            ldl_le_p(s + S_CRC) != dbf_crc(s, S_CRC, offset + i * DBF_SECTOR)) {
            slot = DBF_SLOT_DAMAGED;
            continue;
        }
        if (sector_sequence != first && slot == DBF_SLOT_WHOLE) {
            slot = DBF_SLOT_TORN;
        }
        *sequence = MAX(*sequence, sector_sequence);
        memcpy(bits + i * DBF_SECTOR_PAYLOAD, s + B_PAYLOAD,
               DBF_SECTOR_PAYLOAD);
    }
    return slot;
}

int dbf_intent_choose(const DBFSlot slot[2], const uint64_t sequence[2])
{
    bool whole[2] = { slot[0] == DBF_SLOT_WHOLE, slot[1] == DBF_SLOT_WHOLE };

    /* What is damaged may have been the one that counts */
    if (slot[0] == DBF_SLOT_DAMAGED || slot[1] == DBF_SLOT_DAMAGED ||
        (!whole[0] && !whole[1]) || (whole[0] && whole[1] &&
                                     sequence[0] == sequence[1])) {
        return -1;
    }
    return whole[1] && (!whole[0] || sequence[1] > sequence[0]);
}

void dbf_ref_put(uint8_t *payload, unsigned i, DBFRef ref)
{
    stq_le_p(payload + i * DBF_REF_SIZE, ref.offset);
    stq_le_p(payload + i * DBF_REF_SIZE + 8, ref.generation);
}

DBFRef dbf_ref_get(const uint8_t *payload, unsigned i)
{
    return (DBFRef) {
        .offset = ldq_le_p(payload + i * DBF_REF_SIZE),
        .generation = ldq_le_p(payload + i * DBF_REF_SIZE + 8),
    };
}

bool dbf_ref_valid(DBFRef ref, uint64_t file_length)
{
    if (ref.offset == DBF_REF_ZEROES || ref.offset == DBF_REF_ONES) {
        return ref.generation == 0;
    }
    return ref.generation != 0 && dbf_area_valid(ref.offset, 1) &&
           ref.offset + DBF_BLOCK <= file_length;
}

static uint64_t dbf_entry_length(unsigned n_tables, unsigned name_length)
{
    return E_END + (uint64_t)n_tables * DBF_REF_SIZE +
           ROUND_UP(name_length, 8);
}

uint64_t dbf_directory_length(const DBFEntry *entries, unsigned n)
{
    uint64_t length = D_END;

    for (unsigned i = 0; i < n; i++) {
        length += dbf_entry_length(entries[i].n_tables,
                                   strlen(entries[i].name));
    }
    return length;
}

/* Returns the length of what was put at @buf */
static uint32_t dbf_entry_encode(const DBFEntry *e, uint8_t *buf)
{
    size_t name_length = strlen(e->name);
    uint32_t length = dbf_entry_length(e->n_tables, name_length);

    memset(buf, 0, length);
    stl_le_p(buf + E_LENGTH, length);
    stw_le_p(buf + E_NAME_LENGTH, name_length);
    buf[E_GRANULARITY] = e->granularity_bits;
    buf[E_FLAGS] = (e->enabled ? DBF_ENTRY_ENABLED : 0) |
                   (e->inconsistent ? DBF_ENTRY_INCONSISTENT : 0);
    stl_le_p(buf + E_TABLES, e->n_tables);
    for (unsigned i = 0; i < e->n_tables; i++) {
        dbf_ref_put(buf + E_END, i, e->tables[i]);
    }
    memcpy(buf + E_END + e->n_tables * DBF_REF_SIZE, e->name, name_length);
    return length;
}

void dbf_directory_encode(const DBFEntry *entries, unsigned n,
                          uint8_t *buf, uint32_t *crc)
{
    uint8_t *p = buf + D_END;

    stl_le_p(buf + D_MAGIC, DBF_DIRECTORY_MAGIC);
    stl_le_p(buf + D_COUNT, n);
    for (unsigned i = 0; i < n; i++) {
        p += dbf_entry_encode(&entries[i], p);
    }
    *crc = crc32c(0xffffffff, buf, p - buf);
}

bool dbf_bitmap_check(const char *name, size_t length,
                      unsigned granularity_bits, uint64_t disk_size,
                      Error **errp)
{
    if (length == 0 || length > DBF_MAX_NAME) {
        error_setg(errp, "the name of a bitmap has 1 to %u bytes",
                   DBF_MAX_NAME);
        return false;
    }
    if (!g_utf8_validate(name, length, NULL)) {
        error_setg(errp, "the name of a bitmap is not in UTF-8");
        return false;
    }
    if (granularity_bits < DBF_MIN_GRANULARITY ||
        granularity_bits > DBF_MAX_GRANULARITY) {
        error_setg(errp, "bitmap '%.*s' has a granularity of 2^%u bytes: 2^%u "
                   "to 2^%u are possible", (int)length, name, granularity_bits,
                   DBF_MIN_GRANULARITY, DBF_MAX_GRANULARITY);
        return false;
    }
    if (dbf_bits(disk_size, granularity_bits) > DBF_MAX_BITS) {
        error_setg(errp, "bitmap '%.*s' has %" PRIu64 " bits: at most %llu are "
                   "possible", (int)length, name,
                   dbf_bits(disk_size, granularity_bits), DBF_MAX_BITS);
        return false;
    }
    return true;
}

static bool dbf_entry_take_tables(DBFEntry *e, const uint8_t *refs,
                                  uint64_t file_length, Error **errp)
{
    e->tables = g_new(DBFRef, e->n_tables);
    for (unsigned i = 0; i < e->n_tables; i++) {
        e->tables[i] = dbf_ref_get(refs, i);
        if (!dbf_ref_valid(e->tables[i], file_length)) {
            error_setg(errp, "table %u of bitmap '%s' cannot be at 0x%" PRIx64,
                       i, e->name, e->tables[i].offset);
            return false;
        }
    }
    return true;
}

/*
 * The entry at @buf, of which @left bytes are left; its length is in @length.
 * What was taken when it fails is in @e, to be freed.
 */
static bool dbf_entry_decode(const uint8_t *buf, uint64_t left,
                             const DBFHeader *header, uint64_t file_length,
                             DBFEntry *e, uint32_t *length, Error **errp)
{
    unsigned name_length;
    const char *name;

    if (left < E_END) {
        error_setg(errp, "the directory ends inside an entry");
        return false;
    }
    *length = ldl_le_p(buf + E_LENGTH);
    name_length = lduw_le_p(buf + E_NAME_LENGTH);
    e->n_tables = ldl_le_p(buf + E_TABLES);
    if (*length != dbf_entry_length(e->n_tables, name_length) ||
        *length > left || (buf[E_FLAGS] & ~DBF_ENTRY_FLAGS)) {
        error_setg(errp, "an entry of the directory has an impossible value");
        return false;
    }
    name = (const char *)buf + E_END + e->n_tables * DBF_REF_SIZE;
    e->granularity_bits = buf[E_GRANULARITY];
    if (!dbf_bitmap_check(name, name_length, e->granularity_bits,
                          header->disk_size, errp)) {
        return false;
    }
    e->name = g_strndup(name, name_length);
    e->enabled = buf[E_FLAGS] & DBF_ENTRY_ENABLED;
    e->inconsistent = buf[E_FLAGS] & DBF_ENTRY_INCONSISTENT;
    if (e->n_tables != dbf_tables(header->disk_size, e->granularity_bits)) {
        error_setg(errp, "bitmap '%s' has %u tables: %" PRIu64 " are needed",
                   e->name, e->n_tables,
                   dbf_tables(header->disk_size, e->granularity_bits));
        return false;
    }
    return dbf_entry_take_tables(e, buf + E_END, file_length, errp);
}

static bool dbf_name_is_new(const DBFEntry *entries, unsigned n, Error **errp)
{
    for (unsigned i = 0; i < n; i++) {
        if (strcmp(entries[i].name, entries[n].name) == 0) {
            error_setg(errp, "two bitmaps are named '%s'", entries[n].name);
            return false;
        }
    }
    return true;
}

static bool dbf_entries_decode(const uint8_t *buf, const DBFHeader *header,
                               uint64_t file_length, DBFEntry *entries,
                               unsigned n, Error **errp)
{
    uint64_t at = D_END;
    uint64_t bits = 0;

    for (unsigned i = 0; i < n; i++) {
        uint32_t length;

        if (!dbf_entry_decode(buf + at, header->directory_length - at, header,
                              file_length, &entries[i], &length, errp) ||
            !dbf_name_is_new(entries, i, errp)) {
            return false;
        }
        at += length;
        bits += dbf_bits(header->disk_size, entries[i].granularity_bits);
        if (bits > DBF_MAX_BITS) {
            error_setg(errp, "the bitmaps have more than %llu bits together",
                       DBF_MAX_BITS);
            return false;
        }
    }
    if (at != header->directory_length) {
        error_setg(errp, "the directory goes on behind its last entry");
        return false;
    }
    return true;
}

bool dbf_directory_decode(const uint8_t *buf, const DBFHeader *header,
                          uint64_t file_length, DBFEntry **entries,
                          unsigned *n, Error **errp)
{
    *entries = NULL;
    *n = 0;
    if (crc32c(0xffffffff, buf, header->directory_length) !=
        header->directory_crc ||
        ldl_le_p(buf + D_MAGIC) != DBF_DIRECTORY_MAGIC) {
        error_setg(errp, "the directory's checksum is wrong");
        return false;
    }
    *n = ldl_le_p(buf + D_COUNT);
    if (*n > DBF_MAX_BITMAPS) {
        error_setg(errp, "%u bitmaps: at most %u are possible", *n,
                   DBF_MAX_BITMAPS);
        *n = 0;
        return false;
    }
    *entries = g_new0(DBFEntry, *n);
    if (!dbf_entries_decode(buf, header, file_length, *entries, *n, errp)) {
        dbf_entries_free(*entries, *n);
        *entries = NULL;
        *n = 0;
        return false;
    }
    return true;
}

void dbf_entries_free(DBFEntry *entries, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        g_free(entries[i].name);
        g_free(entries[i].tables);
    }
    g_free(entries);
}
