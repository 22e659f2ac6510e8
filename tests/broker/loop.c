/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "broker/loop.h"
#include "libipc/platform/clock.h"

static struct loop loop;

static void setup(void)
{
	cr_assert_eq(loop_init(&loop), 0);
}

static void teardown(void)
{
	loop_deinit(&loop);
}

static bool is_ready(void)
{
	struct pollfd pollfd = {.fd = loop.epoll_fd, .events = POLLIN};

	return poll(&pollfd, 1, 0) == 1;
}

/* D12: a stale event is recognised by the generation */
Test(loop, events_say_whose_they_are, .init = setup, .fini = teardown, .timeout = 60)
{
	int first = eventfd(1, EFD_CLOEXEC), second = eventfd(0, EFD_CLOEXEC);
	struct loop_event events[8];

	cr_assert_eq(loop_add(&loop, first, LOOP_SOCKET, 0xffffffff, 0x12abcdef, EPOLLIN), 0);
	cr_assert_eq(loop_add(&loop, second, LOOP_PIDFD, 7, 8, EPOLLIN | EPOLLOUT), 0);

	cr_assert_eq(loop_wait(&loop, events, 8), 2);
	for (unsigned i = 0; i < 2; ++i) {
		if (events[i].source == LOOP_SOCKET) {
			cr_assert_eq(events[i].slot, 0xffffffff);
			cr_assert_eq(events[i].generation, 0xabcdef);
			cr_assert_eq(events[i].events, EPOLLIN);
		} else {
			cr_assert_eq(events[i].source, LOOP_PIDFD);
			cr_assert_eq(events[i].slot, 7);
			cr_assert_eq(events[i].generation, 8);
			cr_assert_eq(events[i].events, EPOLLOUT);
		}
	}
	cr_assert_eq(loop_wait(&loop, events, 1), 1, "no more than were asked for");

	cr_assert_eq(loop_remove(&loop, first), 0);
	cr_assert_lt(loop_remove(&loop, first), 0);
	cr_assert_eq(loop_wait(&loop, events, 8), 1);
	cr_assert_eq(events[0].source, LOOP_PIDFD);
	close(first);
	close(second);
}

Test(loop, timer_comes_once_and_can_be_taken_back, .init = setup, .fini = teardown, .timeout = 60)
{
	struct loop_event events[4];
	uint64_t at_ns = clock_after_ns(20 * NS_PER_MS);

	cr_assert_eq(loop_set_timer(&loop, at_ns), 0);
	cr_assert_eq(loop_wait(&loop, events, 4), 1);
	cr_assert_eq(events[0].source, LOOP_TIMER);
	cr_assert_geq(clock_now_ns(), at_ns);
	cr_assert(!is_ready());

	/* A moment that has passed. */
	cr_assert_eq(loop_set_timer(&loop, 1), 0);
	cr_assert_eq(loop_wait(&loop, events, 4), 1);

	cr_assert_eq(loop_set_timer(&loop, 1), 0);
	cr_assert(is_ready());
	cr_assert_eq(loop_set_timer(&loop, 0), 0);
	cr_assert(!is_ready());
}

static void on_signal(int number)
{
	(void)number;
}

Test(loop, signal_is_no_error, .init = setup, .fini = teardown, .timeout = 60)
{
	struct sigaction action = {.sa_handler = on_signal};
	struct loop_event events[4];
	sigset_t set;

	/* Sent by the alarm clock while we wait. */
	sigaction(SIGALRM, &action, NULL);
	sigemptyset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	ualarm(20000, 0);
	cr_assert_eq(loop_wait(&loop, events, 4), 0);
}
