/* SPDX-License-Identifier: MIT */
#include "libipc/platform/peer.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ipc/error.h>

#include "tests/support/actor.h"
#include "tests/support/leaks.h"
#include "tests/support/process.h"

/* An abstract address that the kernel chose: nothing to clean up. */
static struct sockaddr_un address;
static socklen_t address_length;
static int listener, accepted;
static struct actor client;
static struct leaks leaks;

static void setup(void)
{
	leaks_begin(&leaks);
	address = (struct sockaddr_un){.sun_family = AF_UNIX};
	listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	cr_assert_eq(bind(listener, (struct sockaddr *)&address, sizeof(sa_family_t)), 0);
	address_length = sizeof(address);
	cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &address_length), 0);
	cr_assert_eq(listen(listener, 8), 0);
	accepted = -1;
}

static void teardown(void)
{
	close(listener);
	if (accepted >= 0)
		close(accepted);
	leaks_check(&leaks);
}

enum order { ORDER_SEND = 1, ORDER_SEND_FROM_CHILD, ORDER_NAME };

/* Connects, and does what it is told. */
static void client_run(struct actor *self, void *arg)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	(void)arg;
	actor_say(self, connect(fd, (struct sockaddr *)&address, address_length));

	for (;;) {
		pid_t child;

		switch ((enum order)actor_hear(self)) {
		case ORDER_SEND:
			actor_say(self, send(fd, "x", 1, 0));
			break;
		case ORDER_SEND_FROM_CHILD:
			child = process_fork();
			if (child == 0)
				process_end(send(fd, "x", 1, 0) == 1 ? 0 : 1);
			actor_say(self, process_reap(child, 30000));
			break;
		case ORDER_NAME:
			prctl(PR_SET_NAME, "na\nme\x1b");
			actor_say(self, 0);
			break;
		}
	}
}

static void client_connect(void)
{
	actor_start(&client, client_run, NULL);
	cr_assert_eq(actor_hear(&client), 0);
	accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	cr_assert_geq(accepted, 0);
}

static void client_obey(enum order order, int64_t expected)
{
	actor_say(&client, order);
	cr_assert_eq(actor_hear(&client), expected);
}

Test(peer, is_known_by_its_process, .init = setup, .fini = teardown, .timeout = 60)
{
	struct peer_identity identity;
	bool needs_confirmation;

	client_connect();
	cr_assert_eq(peer_identify(accepted, &identity, &needs_confirmation), 0);
	cr_assert_eq(identity.pid, client.pid);
	cr_assert_eq(identity.uid, getuid());
	cr_assert_eq(identity.gid, getgid());
	cr_assert_eq(fcntl(identity.pidfd, F_GETFD), FD_CLOEXEC);
	cr_assert_eq(peer_has_ended(identity.pidfd), 0);

	actor_kill(&client);
	cr_assert_eq(peer_has_ended(identity.pidfd), 1);
	close(identity.pidfd);
}

/* M-24: a zombie is dead, a stopped process is not */
Test(peer, zombie_has_ended_and_stopped_has_not, .timeout = 60)
{
	pid_t pid = process_fork();
	int pidfd, status;

	if (pid == 0)
		for (;;)
			pause();

	pidfd = process_open(pid);
	kill(pid, SIGSTOP);
	cr_assert_eq(waitpid(pid, &status, WUNTRACED), pid);
	cr_assert_eq(peer_has_ended(pidfd), 0);

	kill(pid, SIGKILL);
	process_until_ended(pidfd, 5000);
	cr_assert_eq(peer_has_ended(pidfd), 1);
	process_reap(pid, 30000);
	cr_assert_eq(peer_has_ended(pidfd), 1);
	close(pidfd);
}

/* M-24: only a plain yes is a death */
Test(peer, what_is_no_process_has_not_ended, .timeout = 60)
{
	cr_assert_eq(peer_has_ended(1000000), 0);
	cr_assert_eq(peer_has_ended(-1), 0);
}

Test(peer, dead_one_is_stale, .init = setup, .fini = teardown, .timeout = 60)
{
	struct peer_identity identity = {.pidfd = -77};
	bool needs_confirmation;

	client_connect();
	actor_kill(&client);
	cr_assert_eq(peer_identify(accepted, &identity, &needs_confirmation), IPC_ESTALE);
	cr_assert_eq(identity.pidfd, -77);

	peer_refuse_peerpidfd();
	cr_assert_eq(peer_identify(accepted, &identity, &needs_confirmation), IPC_ESTALE);
}

Test(peer, older_kernels_need_a_message, .init = setup, .fini = teardown, .timeout = 60)
{
	struct peer_identity identity;
	bool needs_confirmation = false;
	pid_t sender;

	peer_refuse_peerpidfd();
	client_connect();
	cr_assert_eq(peer_identify(accepted, &identity, &needs_confirmation), 0);
	cr_assert(needs_confirmation);
	cr_assert_eq(identity.pid, client.pid);

	cr_assert_eq(peer_sender(accepted, &sender), IPC_EAGAIN);
	client_obey(ORDER_SEND, 1);
	cr_assert_eq(peer_sender(accepted, &sender), 0);
	cr_assert_eq(sender, client.pid);
	cr_assert_eq(peer_identity_confirm(&identity, sender), 0);

	/* It came from there, but that one is gone, and the pid may be anybody's by now. */
	actor_kill(&client);
	cr_assert_eq(peer_identity_confirm(&identity, sender), IPC_ESTALE);
	close(identity.pidfd);
}

Test(peer, message_of_another_confirms_nothing, .init = setup, .fini = teardown, .timeout = 60)
{
	struct peer_identity identity;
	bool needs_confirmation;
	pid_t sender;

	peer_refuse_peerpidfd();
	client_connect();
	cr_assert_eq(peer_identify(accepted, &identity, &needs_confirmation), 0);

	client_obey(ORDER_SEND_FROM_CHILD, 0);
	cr_assert_eq(peer_sender(accepted, &sender), 0);
	cr_assert_neq(sender, client.pid);
	cr_assert_eq(peer_identity_confirm(&identity, sender), IPC_ESTALE);

	actor_kill(&client);
	close(identity.pidfd);
}

Test(peer, descriptors_of_a_peeked_message_stay_outside, .init = setup, .fini = teardown,
     .timeout = 60)
{
	union {
		struct cmsghdr align;
		unsigned char buffer[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec vector = {.iov_base = "x", .iov_len = 1};
	struct msghdr message = {
		.msg_iov = &vector,
		.msg_iovlen = 1,
		.msg_control = control.buffer,
		.msg_controllen = sizeof(control.buffer),
	};
	int pair[2], one = 1;
	struct leaks inner;
	pid_t sender;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &one, sizeof(one));
	control.align.cmsg_level = SOL_SOCKET;
	control.align.cmsg_type = SCM_RIGHTS;
	control.align.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.align), &listener, sizeof(int));
	cr_assert_eq(sendmsg(pair[0], &message, 0), 1);

	leaks_begin(&inner);
	cr_assert_eq(peer_sender(pair[1], &sender), 0);
	cr_assert_eq(sender, getpid());
	leaks_check(&inner);

	close(pair[0]);
	close(pair[1]);
}

static void in_groups(struct actor *self, void *arg)
{
	gid_t groups[300];
	int n = *(int *)arg;

	for (int i = 0; i < n; ++i)
		groups[i] = (gid_t)(1000 + 2 * i);
	if (setgroups((size_t)n, groups) < 0)
		process_end(1);
	client_run(self, NULL);
}

/* M-50 */
Test(peer, groups_are_those_of_its_connect, .init = setup, .fini = teardown, .timeout = 60)
{
	static const int sizes[] = {0, 3, 64, 65, 300};
	struct peer_identity identity;
	bool needs_confirmation;

	if (geteuid() != 0)
		cr_skip_test("needs root");

	for (unsigned i = 0; i < 5; ++i) {
		int n = sizes[i];

		actor_start(&client, in_groups, &n);
		cr_assert_eq(actor_hear(&client), 0);
		accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		cr_assert_eq(peer_identify(accepted, &identity, &needs_confirmation), 0);

		cr_assert(peer_in_group(accepted, &identity, getgid()));
		cr_assert_not(peer_in_group(accepted, &identity, 1001));
		for (int k = 0; k < n; ++k)
			cr_assert(peer_in_group(accepted, &identity, (gid_t)(1000 + 2 * k)));
		cr_assert_not(peer_in_group(accepted, &identity, (gid_t)(1000 + 2 * n)));

		actor_kill(&client);
		close(identity.pidfd);
		close(accepted);
		accepted = -1;
	}
}

Test(peer, name_can_be_printed, .init = setup, .fini = teardown, .timeout = 60)
{
	char name[16];

	client_connect();
	client_obey(ORDER_NAME, 0);
	peer_process_name(client.pid, name, sizeof(name));
	cr_assert_str_eq(name, "na?me?");
	peer_process_name(client.pid, name, 3);
	cr_assert_str_eq(name, "na");

	actor_kill(&client);
	peer_process_name(client.pid, name, sizeof(name));
	cr_assert_str_eq(name, "");
	peer_process_name(0, name, sizeof(name));
	cr_assert_str_eq(name, "");
	peer_process_name(-1, name, sizeof(name));
	cr_assert_str_eq(name, "");
}
