/*
 * Dirty bitmap file: what the parts of the store share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_DIRTY_BITMAP_STORE_INT_H
#define BLOCK_DIRTY_BITMAP_STORE_INT_H

#include "dirty-bitmap-store.h"

#define DBF_MAX_BLOCKS          (DBF_MAX_FILE / DBF_BLOCK)
/* So many neighbouring blocks are read or written by one request */
#define DBF_BATCH               64U

struct DBFStore {
    const DBFIO *io;
    /* What is damaged counts as all ones */
    bool repair;
    /* What counts in the file; and what shall be there */
    DBFHeader header;
    DBFHeader want;
    /* Which copy of the header counts */
    unsigned newest;
    /* No header or block was ever written with a greater one */
    uint64_t generation;
    /* The directory that @header leads to; NULL: not known, or none */
    uint8_t *directory;
    /* The two copies of the header may differ */
    bool half;
    bool untrusted;
    /* A flush has failed that stable storage depended on */
    bool lost;

    QTAILQ_HEAD(, DBFBitmap) bitmaps;
    unsigned n_bitmaps;
    /* Blocks that a header in the file leads to, or may */
    unsigned long *committed;
    DBFDamage damage;
};

/* Whether bits of a page are all the same */
static inline bool dbf_ref_stored(DBFRef ref)
{
    return ref.offset != DBF_REF_ZEROES && ref.offset != DBF_REF_ONES;
}

/* How many bits page @page of @b has */
static inline unsigned dbf_page_bits(const DBFBitmap *b, uint64_t page)
{
    return MIN(b->bits - page * DBF_BITS, DBF_BITS);
}

/* How many references table @table of @b has */
static inline unsigned dbf_table_pages(const DBFBitmap *b, unsigned table)
{
    return MIN(b->n_pages - (uint64_t)table * DBF_REFS, DBF_REFS);
}

/* Mark the blocks of [@offset, @offset + @bytes) in @map */
static inline void dbf_map_area(unsigned long *map, uint64_t offset,
                                uint64_t bytes)
{
    bitmap_set(map, offset / DBF_BLOCK, DIV_ROUND_UP(bytes, DBF_BLOCK));
}

/* Take the bitmaps of @s as entries of a directory; free the array alone */
DBFEntry *dbf_store_entries(const DBFStore *s);

/*
 * Find @n free neighbouring blocks and mark them in @used, from block @*from
 * on, which is moved behind them; returns an offset, 0 if there are none.
 */
uint64_t dbf_alloc(unsigned long *used, unsigned n, unsigned long *from);

/* Mark in @map what the bitmaps lead to; returns references met twice */
uint64_t dbf_map_bitmaps(const DBFStore *s, unsigned long *map);

/* Mark in @map what @h leads to itself */
void dbf_map_header(unsigned long *map, const DBFHeader *h);

/* What a header in the file or the store's memory leads to; to be freed */
unsigned long *dbf_store_used(const DBFStore *s);

#endif
