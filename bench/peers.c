/* SPDX-License-Identifier: MIT */
/*
 * What else a program could use that needs no library: eventfd, pipe, sockets, for the same round
 * trip of 64 bytes, measured in the same run.  The peers that are packages of their own are
 * measured elsewhere, beside the same limits.
 */
#include "bench/bench.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TRIPS = 2000 };

/* Two descriptors each way; for a socket pair both ways are one. */
struct link {
	int read_fd, write_fd;
	size_t size;
};

struct peer {
	const char *name;
	void (*open)(struct link ends[2]);
};

static void open_eventfd(struct link ends[2])
{
	int there = eventfd(0, EFD_CLOEXEC), back = eventfd(0, EFD_CLOEXEC);

	ends[0] = (struct link){.read_fd = back, .write_fd = there, .size = 8};
	ends[1] = (struct link){.read_fd = there, .write_fd = back, .size = 8};
}

static void open_pipe(struct link ends[2])
{
	int there[2], back[2];

	if (pipe(there) < 0 || pipe(back) < 0)
		bench_fail("pipe", -errno);
	ends[0] = (struct link){.read_fd = back[0], .write_fd = there[1], .size = BENCH_PAYLOAD};
	ends[1] = (struct link){.read_fd = there[0], .write_fd = back[1], .size = BENCH_PAYLOAD};
}

static void open_socket(struct link ends[2])
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		bench_fail("socketpair", -errno);
	ends[0] = (struct link){.read_fd = fds[0], .write_fd = fds[0], .size = BENCH_PAYLOAD};
	ends[1] = (struct link){.read_fd = fds[1], .write_fd = fds[1], .size = BENCH_PAYLOAD};
}

static const struct peer peers[] = {{"eventfd (no payload)", open_eventfd},
				    {"pipe", open_pipe},
				    {"unix seqpacket", open_socket}};

static int echo_cpu;

static void echo(void *arg)
{
	struct link *link = arg;
	uint64_t message[BENCH_PAYLOAD / 8];

	bench_pin(echo_cpu);
	for (;;) {
		if (read(link->read_fd, message, link->size) != (ssize_t)link->size ||
		    write(link->write_fd, message, link->size) != (ssize_t)link->size)
			return;
	}
}

static double trip_ns(void *arg)
{
	const struct peer *peer = arg;
	uint64_t message[BENCH_PAYLOAD / 8] = {1}, began;
	struct link ends[2];
	pid_t pid;

	peer->open(ends);
	bench_pin(0);
	pid = bench_spawn(echo, &ends[1]);
	began = bench_now_ns();
	for (int i = 0; i < TRIPS; ++i) {
		message[0] = 1;
		if (write(ends[0].write_fd, message, ends[0].size) < 0 ||
		    read(ends[0].read_fd, message, ends[0].size) < 0)
			bench_fail(peer->name, -errno);
	}
	began = bench_now_ns() - began;
	bench_reap(pid);
	for (int i = 0; i < 2; ++i) {
		close(ends[i].read_fd);
		close(ends[i].write_fd);
	}
	return (double)began / TRIPS;
}

void bench_peers(void)
{
	char workload[64];

	for (int two_cores = 0; two_cores < 2; ++two_cores) {
		echo_cpu = two_cores;
		for (size_t i = 0; i < sizeof(peers) / sizeof(peers[0]); ++i) {
			snprintf(workload, sizeof(workload), "%s round trip, %s", peers[i].name,
				 two_cores ? "two cores" : "one core");
			bench_compare("peer", workload, trip_ns, "bare futex round trip",
				      two_cores ? limit_futex_two_cores : limit_futex_one_core,
				      (void *)(uintptr_t)&peers[i], false, 0, "ns");
		}
	}
	bench_pin(-1);
}
