/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checked network traffic between two interfaces of one guest that the host
 * has joined: net-loop IF-A IF-B ROUNDS [STATUS-FILE]
 *
 * Each round sends a burst of frames from A to B and one from B to A, past
 * the IP stack (which would short-cut them), and compares every byte.  A frame
 * may get lost; it is sent again.  ROUNDS 0: never end.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define ETHERTYPE   0x88b5      /* IEEE 802: for local experiments */
#define BURST       16
#define TRIES       50
#define HEADER      14
#define MAX_FRAME   1514

struct port {
    int fd;
    unsigned char mac[6];
};

static int status_fd = -1;
static unsigned long lost;

static void status(unsigned long round, const char *what)
{
    char line[128];
    int len = snprintf(line, sizeof(line), "%-12lu %-80s\n", round, what);

    if (status_fd >= 0 && pwrite(status_fd, line, len, 0) != len) {
        perror("status file");
        exit(1);
    }
}

static void fail(unsigned long round, const char *what)
{
    char text[80];

    snprintf(text, sizeof(text), "FAILED %s", what);
    status(round, text);
    printf("%s in round %lu\n", text, round);
    exit(1);
}

static void open_port(struct port *port, const char *name)
{
    struct sockaddr_ll addr = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(ETHERTYPE),
        .sll_ifindex = if_nametoindex(name),
    };
    struct ifreq req = { 0 };

    port->fd = socket(AF_PACKET, SOCK_RAW, htons(ETHERTYPE));
    strncpy(req.ifr_name, name, IFNAMSIZ - 1);
    if (port->fd < 0 || ioctl(port->fd, SIOCGIFHWADDR, &req) ||
        bind(port->fd, (struct sockaddr *)&addr, sizeof(addr))) {
        perror(name);
        exit(1);
    }
    memcpy(port->mac, req.ifr_hwaddr.sa_data, 6);
}

static int make_frame(unsigned char *frame, const struct port *from,
                      const struct port *to, unsigned long round, unsigned n)
{
    int len = n % 4 == 3 ? 64 + n * 7 : MAX_FRAME;
    uint32_t seed = round * 2654435761u + n * 40503u + from->mac[5];

    memcpy(frame, to->mac, 6);
    memcpy(frame + 6, from->mac, 6);
    frame[12] = ETHERTYPE >> 8;
    frame[13] = ETHERTYPE & 0xff;
    for (int i = HEADER; i < len; i++) {
        seed = seed * 1664525u + 1013904223u;
        frame[i] = seed >> 24;
    }
    return len;
}

/* True if the very frame arrives; one of an earlier try is passed over */
static int receive(const struct port *port, const unsigned char *want, int len)
{
    unsigned char got[2048];
    struct pollfd event = { .fd = port->fd, .events = POLLIN };

    while (poll(&event, 1, 200) > 0) {
        if (recv(port->fd, got, sizeof(got), 0) == len &&
            !memcmp(got, want, len)) {
            return 1;
        }
    }
    return 0;
}

static void burst(const struct port *from, const struct port *to,
                  unsigned long round)
{
    static unsigned char frames[BURST][MAX_FRAME];
    int len[BURST];

    for (unsigned n = 0; n < BURST; n++) {
        len[n] = make_frame(frames[n], from, to, round, n);
        if (send(from->fd, frames[n], len[n], 0) != len[n] &&
            errno != ENOBUFS && errno != ENETDOWN) {
            fail(round, "send");
        }
    }
    for (unsigned n = 0; n < BURST; n++) {
        int tries = 0;

        while (!receive(to, frames[n], len[n])) {
            if (++tries == TRIES) {
                fail(round, "receive: no frame as it was sent");
            }
            lost++;
            if (send(from->fd, frames[n], len[n], 0) < 0 && tries > 10) {
                usleep(100000);
            }
        }
    }
}

int main(int argc, char **argv)
{
    struct port a, b;
    unsigned long rounds, round;

    if (argc < 4) {
        return 2;
    }
    open_port(&a, argv[1]);
    open_port(&b, argv[2]);
    rounds = atol(argv[3]);
    if (argc > 4) {
        status_fd = open(argv[4], O_RDWR | O_CREAT | O_TRUNC, 0600);
    }
    for (round = 1; !rounds || round <= rounds; round++) {
        burst(&a, &b, round);
        burst(&b, &a, round);
        status(round, "ok");
    }
    printf("frames=%lu\nlost=%lu\n", rounds * 2 * BURST, lost);
    return lost > rounds * BURST;
}
