/* SPDX-License-Identifier: MIT */
#ifndef BROKER_LOOP_H
#define BROKER_LOOP_H

/*
 * epoll, whose events carry {source, slot, generation}: a stale event of a slot's former tenant is
 * recognised and dropped (two events of one client come in one batch).
 */

#include <stdint.h>

enum loop_source { LOOP_LISTENER, LOOP_SOCKET, LOOP_PIDFD, LOOP_TIMER, LOOP_SIGNAL };

struct loop {
	int epoll_fd;
	int timer_fd; /* one-shot timer for idle ends and delayed work */
};

struct loop_event {
	enum loop_source source;
	uint32_t slot, generation; /* generation is cut to 24 bits */
	uint32_t events;           /* EPOLLIN and so on */
};

int loop_init(struct loop *loop);
void loop_deinit(struct loop *loop);
int loop_add(struct loop *loop, int fd, enum loop_source source, uint32_t slot, uint32_t generation,
	     uint32_t epoll_events);
/* Of one that was added: what to wait for from now on. */
int loop_change(struct loop *loop, int fd, enum loop_source source, uint32_t slot,
		uint32_t generation, uint32_t epoll_events);
int loop_remove(struct loop *loop, int fd);
/* Waits for up to n events (64 at most a call); their number, 0 on a signal.  LOOP_TIMER comes once
 * for each time that was set. */
int loop_wait(struct loop *loop, struct loop_event *events, int n);
int loop_set_timer(struct loop *loop,
		   uint64_t at_ns); /* CLOCK_MONOTONIC, 0: off; a time that has passed: at once */

#endif
