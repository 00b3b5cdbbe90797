/*
 * A guest's memory for the tests of the VT-d leaves: frames of 512 words
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_VTD_MEMORY_H
#define TEST_VTD_MEMORY_H

#include "hw/i386/intel_iommu_walk.h"

#define TEST_FRAMES 64
#define TEST_WORDS 512

/**
 * TestMemory: guest memory from address 0 on; nothing is beyond it
 * @word: contents
 * @used: frames given out; frame 0 never is, so that address 0 means nothing
 * @broken: address of a word that cannot be read; 0 for none
 * @reads: words that were read
 * @read_only: address of a word that cannot be written; 0 for none
 * @writes: words that were written
 * @meddle: called before each write, as another thread would come in between
 * @dev: what the leaves are given
 */
typedef struct TestMemory {
    uint64_t word[TEST_FRAMES][TEST_WORDS];
    unsigned used;
    uint64_t broken;
    uint64_t reads;
    uint64_t read_only;
    uint64_t writes;
    void (*meddle)(uint64_t *word);
    VTDMemory dev;
} TestMemory;

static inline bool test_memory_read(void *opaque, uint64_t addr,
                                    uint64_t *words, unsigned n)
{
    TestMemory *m = opaque;

    g_assert_cmphex(addr % sizeof(*words), ==, 0);
    for (unsigned i = 0; i < n; i++, addr += sizeof(*words)) {
        m->reads++;
        if (addr >= sizeof(m->word) || (m->broken && addr == m->broken)) {
            return false;
        }
        words[i] = m->word[addr / VTD_PAGE_SIZE][addr % VTD_PAGE_SIZE / 8];
    }
    return true;
}

static inline VTDUpdate test_memory_update(void *opaque, uint64_t addr,
                                           uint64_t old, uint64_t new)
{
    TestMemory *m = opaque;
    uint64_t *word = &m->word[addr / VTD_PAGE_SIZE][addr % VTD_PAGE_SIZE / 8];

    g_assert_cmphex(addr, <, sizeof(m->word));
    g_assert_cmphex(old, !=, new);
    if (addr == m->read_only) {
        return VTD_UPDATE_FAILED;
    }
    if (m->meddle) {
        m->meddle(word);
    }
    if (*word != old) {
        return VTD_UPDATE_CHANGED;
    }
    m->writes++;
    *word = new;
    return VTD_UPDATE_DONE;
}

static inline TestMemory *test_memory_new(void)
{
    TestMemory *m = g_new0(TestMemory, 1);

    m->used = 1;
    m->dev = (VTDMemory) { .read = test_memory_read,
                           .update = test_memory_update, .opaque = m };
    return m;
}

/* The address of an empty frame */
static inline uint64_t test_memory_frame(TestMemory *m)
{
    g_assert_cmpuint(m->used, <, TEST_FRAMES);
    return m->used++ * VTD_PAGE_SIZE;
}

static inline uint64_t *test_memory_word(TestMemory *m, uint64_t addr)
{
    g_assert_cmphex(addr, <, sizeof(m->word));
    return &m->word[addr / VTD_PAGE_SIZE][addr % VTD_PAGE_SIZE / 8];
}

#endif
