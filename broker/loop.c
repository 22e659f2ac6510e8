/* SPDX-License-Identifier: MIT */
#include "broker/loop.h"

#include <errno.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "libipc/platform/clock.h"
#include "libipc/platform/fdpass.h"
#include "libipc/platform/syserr.h"

#define GENERATION_MASK 0xffffffu
#define EVENTS_MAX      64

/* source in bits 63..56, generation in 55..32, slot below. */
static uint64_t key_make(enum loop_source source, uint32_t slot, uint32_t generation)
{
	return (uint64_t)source << 56 | (uint64_t)(generation & GENERATION_MASK) << 32 | slot;
}

int loop_init(struct loop *loop)
{
	int r;

	loop->timer_fd = -1;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0)
		return syserr(SYSERR_EPOLL, errno);

	loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	r = loop->timer_fd < 0 ? syserr(SYSERR_EVENTFD, errno)
			       : loop_add(loop, loop->timer_fd, LOOP_TIMER, 0, 0, EPOLLIN);
	if (r < 0)
		loop_deinit(loop);

	return r;
}

void loop_deinit(struct loop *loop)
{
	loop->timer_fd = fd_close(loop->timer_fd);
	loop->epoll_fd = fd_close(loop->epoll_fd);
}

static int loop_control(struct loop *loop, int op, int fd, uint64_t key, uint32_t epoll_events)
{
	struct epoll_event event = {.events = epoll_events, .data.u64 = key};

	return epoll_ctl(loop->epoll_fd, op, fd, &event) < 0 ? syserr(SYSERR_EPOLL, errno) : 0;
}

int loop_add(struct loop *loop, int fd, enum loop_source source, uint32_t slot, uint32_t generation,
	     uint32_t epoll_events)
{
	return loop_control(loop, EPOLL_CTL_ADD, fd, key_make(source, slot, generation),
			    epoll_events);
}

int loop_change(struct loop *loop, int fd, enum loop_source source, uint32_t slot,
		uint32_t generation, uint32_t epoll_events)
{
	return loop_control(loop, EPOLL_CTL_MOD, fd, key_make(source, slot, generation),
			    epoll_events);
}

int loop_remove(struct loop *loop, int fd)
{
	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL) < 0 ? syserr(SYSERR_EPOLL, errno)
								      : 0;
}

int loop_wait(struct loop *loop, struct loop_event *events, int n)
{
	struct epoll_event ready[EVENTS_MAX];
	uint64_t n_expired;
	int n_ready;

	n_ready = epoll_wait(loop->epoll_fd, ready, n < EVENTS_MAX ? n : EVENTS_MAX, -1);
	if (n_ready < 0)
		return errno == EINTR ? 0 : syserr(SYSERR_EPOLL, errno);

	for (int i = 0; i < n_ready; ++i) {
		uint64_t key = ready[i].data.u64;

		events[i] = (struct loop_event){
			.source = (enum loop_source)(key >> 56),
			.slot = (uint32_t)key,
			.generation = (uint32_t)(key >> 32) & GENERATION_MASK,
			.events = ready[i].events,
		};
		/* EAGAIN: the timer was set anew after it had expired; told all the same, who gets
		 * it looks at the clock. */
		if (events[i].source == LOOP_TIMER)
			(void)!read(loop->timer_fd, &n_expired, sizeof(n_expired));
	}

	return n_ready;
}

int loop_set_timer(struct loop *loop, uint64_t at_ns)
{
	struct itimerspec setting = {.it_value = {.tv_sec = (time_t)(at_ns / NS_PER_S),
						  .tv_nsec = (long)(at_ns % NS_PER_S)}};

	return timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &setting, NULL) < 0
		       ? syserr(SYSERR_EVENTFD, errno)
		       : 0;
}
