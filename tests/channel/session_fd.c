/* SPDX-License-Identifier: MIT */
/*
 * Descriptors in a session: each comes with its message, once, or is told to be lost.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <ipc/error.h>

#include "tests/support/leaks.h"
#include "tests/support/session_scene.h"

enum { CAPACITY = 65536, LARGEST = 1024, N_FILES = 6 };

static struct session_scene scene;
static struct session_member a, b, heir;
static unsigned n_handles;
static int files[N_FILES];
static struct leaks leaks;

static void enter(struct session_member *member, unsigned side)
{
	session_scene_enter(&scene, member, side, ++n_handles, 0);
}

static void setup(void)
{
	const uint64_t shape[4] = SESSION_SHAPE(CAPACITY, LARGEST);

	session_scene_init(&scene, shape);
	enter(&a, 0);
	enter(&b, 1);
	for (unsigned i = 0; i < N_FILES; ++i)
		files[i] = memfd_create("file", MFD_CLOEXEC);
	leaks_begin(&leaks);
}

static void teardown(void)
{
	leaks_check(&leaks);
	for (unsigned i = 0; i < N_FILES; ++i)
		(void)fd_close(files[i]);
	session_scene_deinit(&scene);
}

#define Case(name) Test(session_fd, name, .init = setup, .fini = teardown, .timeout = 60)

static void send_file(struct session_member *member, unsigned i)
{
	cr_assert_eq(session_scene_send_fd(member, files[i], i, i * 10), 0);
}

static bool is_file(int fd, unsigned i)
{
	struct stat one, other;

	return fstat(fd, &one) == 0 && fstat(files[i], &other) == 0 && one.st_ino == other.st_ino;
}

/* lost: it says that it was taken before. */
static void receive(struct session_member *member, uint64_t number, int file, bool lost)
{
	struct ipc_session_message message;
	uint32_t flags;

	cr_assert_eq(session_scene_receive(member, &message), 1);
	cr_assert_eq(message.sequence, number);
	flags = message.flags & ~IPC_MESSAGE_REDELIVERED;
	if (file < 0) {
		cr_assert_eq(flags, lost ? IPC_MESSAGE_FD | IPC_MESSAGE_FD_LOST : 0, "message %lu",
			     (unsigned long)number);
		cr_assert_eq(message.fd, -1);
		return;
	}
	cr_assert_eq(flags, IPC_MESSAGE_FD, "message %lu", (unsigned long)number);
	cr_assert(is_file(message.fd, (unsigned)file));
	cr_assert(fcntl(message.fd, F_GETFD) & FD_CLOEXEC);
	(void)fd_close(message.fd);
}

/* C-11 */
Case(a_descriptor_comes_with_its_message)
{
	for (unsigned i = 0; i < N_FILES; ++i) {
		send_file(&a, i);
		cr_assert_eq(session_scene_send(&a, 1, 30), 0);
		send_file(&b, N_FILES - 1 - i);
	}
	for (unsigned i = 0; i < N_FILES; ++i) {
		receive(&b, 2 * i + 1, (int)i, false);
		receive(&b, 2 * i + 2, -1, false);
		receive(&a, i + 1, (int)(N_FILES - 1 - i), false);
	}
}

/* M-12 */
Case(what_is_no_descriptor_is_refused)
{
	struct ipc_session_message message;
	int closed = fcntl(files[0], F_DUPFD_CLOEXEC, 700);

	cr_assert_eq(close(closed), 0);
	cr_expect_eq(session_scene_send_fd(&a, -1, 1, 8), IPC_EINVAL);
	cr_expect_eq(session_scene_send_fd(&a, closed, 1, 8), IPC_EINVAL);
	cr_expect_eq(session_scene_receive(&b, &message), IPC_EAGAIN);
	send_file(&a, 2);
	receive(&b, 1, 2, false);
}

/* C-11 */
Case(a_descriptor_that_was_not_taken_outlives_both)
{
	send_file(&a, 1);
	send_file(&a, 2);
	session_scene_end(&scene, a.id);
	session_scene_end(&scene, b.id);
	enter(&heir, 1);
	receive(&heir, 1, 1, false);
	receive(&heir, 2, 2, false);
}

/* C-11 */
Case(a_descriptor_that_was_taken_is_lost_to_the_next_one)
{
	for (unsigned i = 0; i < 4; ++i)
		send_file(&a, i);
	receive(&b, 1, 0, false);
	receive(&b, 2, 1, false);
	session_scene_end(&scene, b.id);
	enter(&heir, 1);
	receive(&heir, 1, -1, true);
	receive(&heir, 2, -1, true);
	receive(&heir, 3, 2, false);
	session_scene_end(&scene, heir.id);
	enter(&b, 1);
	receive(&b, 1, -1, true);
	receive(&b, 2, -1, true);
	receive(&b, 3, -1, true);
	receive(&b, 4, 3, false);
}

/* As who died between sending the descriptor and its message. */
static void send_packet(uint64_t number, uint64_t tag, int fd)
{
	const uint64_t packet[2] = {number, tag};

	cr_assert_eq(fdpass_send(scene.pair[0], packet, sizeof(packet), &fd, fd >= 0), 0);
}

/* C-11 */
Case(a_descriptor_without_a_message_is_dropped)
{
	send_packet(1, ring_tag(a.view.out.head), files[0]);
	session_scene_end(&scene, a.id);
	enter(&heir, 0);
	send_file(&heir, 1);
	send_packet(1, ring_tag(a.view.out.head), files[0]); /* late, by one that lives */
	send_file(&heir, 2);
	receive(&b, 1, 1, false);
	receive(&b, 2, 2, false);
}

/* C-11, M-60 */
Case(what_a_stranger_puts_into_the_socket_harms_nobody)
{
	int two[2] = {files[3], files[4]};
	const uint64_t long_packet[4] = {1, 2, 3, 4};
	const uint64_t packet[2] = {2, ring_tag(a.view.out.head)};

	send_packet(7, 1, files[0]); /* of one that comes later: its own fault */
	send_file(&a, 1);
	receive(&b, 1, -1, true);

	session_scene_end(&scene, b.id);
	while (fdpass_receive(scene.pair[1], (uint64_t[2]){0}, 16, &(size_t){0}, NULL, NULL) == 0)
		;
	cr_assert_eq(fdpass_send(scene.pair[0], long_packet, sizeof(long_packet), files, 1), 0);
	cr_assert_eq(fdpass_send(scene.pair[0], packet, 7, files, 1), 0);
	send_packet(1, ring_tag(a.view.out.head), -1);
	cr_assert_eq(fdpass_send(scene.pair[0], packet, sizeof(packet), two, 2), 0);
	cr_assert_eq(session_scene_send(&a, 5, 8), 0);
	enter(&b, 1);
	receive(&b, 1, -1, true);
	receive(&b, 2, -1, false);
}

/* C-11 */
Case(a_full_socket_takes_more_when_one_was_taken)
{
	unsigned n = 0;
	int r;

	while ((r = session_scene_send_fd(&a, files[0], 1, 0)) == 0)
		++n;
	cr_assert_eq(r, IPC_EAGAIN);
	cr_assert_gt(n, 5);
	cr_expect_eq(session_scene_state(&a).sent, n);
	cr_expect_eq(session_scene_send_fd(&a, files[0], 1, 0), IPC_EAGAIN);
	(void)eventcount_arm(session_line(&a.view));
	receive(&b, 1, 0, false);
	cr_expect_eq(eventcount_armed(session_line(&a.view)), UINT32_MAX, "nobody was told");
	cr_expect_eq(session_scene_send_fd(&a, files[0], 1, 0), 0);
	for (unsigned i = 2; i <= n + 1; ++i)
		receive(&b, i, 0, false);
}

/* C-6, C-11: nothing is in the socket of what found no room in the ring. */
Case(a_full_ring_keeps_the_descriptor_out)
{
	struct ipc_session_message message;

	while (session_send(&a.view, NULL, 0) == 0)
		;
	cr_expect_eq(session_scene_send_fd(&a, files[0], 1, 0), IPC_EAGAIN);
	cr_expect_eq(fdpass_peek(scene.pair[1], (uint64_t[2]){0}, 16, &(size_t){0}), IPC_EAGAIN);
	cr_assert_eq(session_scene_receive(&b, &message), 1);
	cr_assert_eq(session_release(&b.view, &message), 0);
	cr_expect_eq(session_scene_send_fd(&a, files[0], 1, 0), 0);
}

/* No number is free but those that are taken. */
static void limit_files(struct rlimit *before, unsigned n_free)
{
	struct rlimit limit;
	int fd = fcntl(files[0], F_DUPFD, 0);

	cr_assert_eq(close(fd), 0);
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, before), 0);
	limit = *before;
	limit.rlim_cur = (rlim_t)fd + n_free;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* C-11 */
Case(a_message_stays_while_no_descriptor_is_free_for_its_own)
{
	struct ipc_session_message messages[4];
	struct rlimit before;
	int r[2];

	cr_assert_eq(session_scene_send(&a, 1, 30), 0);
	send_file(&a, 1);
	send_file(&a, 2);
	limit_files(&before, 1);
	r[0] = session_receive_many(&b.view, messages, 4);
	r[1] = session_receive_many(&b.view, &messages[2], 1);
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &before), 0);

	cr_assert_eq(r[0], 2, "%d", r[0]);
	cr_assert_eq(r[1], IPC_EMFILE, "%d", r[1]);
	cr_assert(is_file(messages[1].fd, 1));
	(void)fd_close(messages[1].fd);
	cr_expect_eq(session_scene_state(&b).received, 2);
	receive(&b, 3, 2, false);
}

/* C-11, C-3: what an old one has taken out is closed. */
Case(who_was_taken_over_takes_no_descriptor)
{
	struct ipc_session_message message;

	send_file(&a, 1);
	session_scene_end(&scene, b.id);
	enter(&heir, 1);
	cr_expect_eq(session_scene_receive(&b, &message), IPC_ESTALE);
	receive(&heir, 1, 1, false);
}
