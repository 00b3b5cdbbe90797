/*
 * Unit tests for CRC-32C
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/crc32c.h"

#define SIZE 100

/* RFC 3720, B.4 */
static void test_vectors(void)
{
    uint8_t data[32];

    memset(data, 0, sizeof(data));
    g_assert_cmphex(crc32c(~0U, data, sizeof(data)), ==, 0x8a9136aa);
    memset(data, 0xff, sizeof(data));
    g_assert_cmphex(crc32c(~0U, data, sizeof(data)), ==, 0x62a8ab43);
    for (int i = 0; i < sizeof(data); i++) {
        data[i] = i;
    }
    g_assert_cmphex(crc32c(~0U, data, sizeof(data)), ==, 0x46dd794e);
    for (int i = 0; i < sizeof(data); i++) {
        data[i] = 31 - i;
    }
    g_assert_cmphex(crc32c(~0U, data, sizeof(data)), ==, 0x113fdb5c);
    g_assert_cmphex(crc32c(~0U, (const uint8_t *)"123456789", 9), ==,
                    0xe3069283);
    g_assert_cmphex(crc32c(~0U, data, 0), ==, 0);
}

/* As the polynomial says, bit by bit */
static uint32_t slow_crc32c(uint32_t crc, const uint8_t *data, size_t length)
{
    while (length--) {
        crc ^= *data++;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
        }
    }
    return ~crc;
}

/* Of any length, from anywhere, beginning with anything */
static void test_lengths(void)
{
    uint8_t data[SIZE];

    for (int i = 0; i < SIZE; i++) {
        data[i] = g_test_rand_int();
    }
    for (int from = 0; from < 16; from++) {
        for (int length = 0; length < SIZE - from; length++) {
            uint32_t crc = g_test_rand_int();

            g_assert_cmphex(crc32c(crc, data + from, length), ==,
                            slow_crc32c(crc, data + from, length));
        }
    }
}

static void test_iov(void)
{
    uint8_t data[SIZE];
    struct iovec iov[3];

    for (int i = 0; i < SIZE; i++) {
        data[i] = g_test_rand_int();
    }
    for (int split = 0; split < SIZE; split++) {
        iov[0] = (struct iovec) { data, split };
        iov[1] = (struct iovec) { data, 0 };
        iov[2] = (struct iovec) { data + split, SIZE - split };
        g_assert_cmphex(iov_crc32c(~0U, iov, 3), ==,
                        slow_crc32c(~0U, data, SIZE));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/crc32c/vectors", test_vectors);
    g_test_add_func("/crc32c/lengths", test_lengths);
    g_test_add_func("/crc32c/iov", test_iov);
    return g_test_run();
}
