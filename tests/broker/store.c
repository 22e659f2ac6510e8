/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ipc/error.h>

#include "broker/fdstore.h"
#include "broker/notice.h"
#include "broker/store.h"

/* ---- names ---- */

Test(store, names_are_short_and_come_back, .timeout = 60)
{
	static const uint32_t slots[] = {0, 9, 10, 15, 16, 0xf0, 8191, 65535},
			      generations[] = {0, 1, 0xa, 0xffff, 0x10000, 0xdeadbeef};
	static const char kinds[] = "spcltd";

	for (unsigned k = 0; k < sizeof(kinds) - 1; ++k) {
		for (unsigned s = 0; s < 8; ++s) {
			for (unsigned g = 0; g < 6; ++g) {
				char name[STORE_NAME_SIZE], kind;
				uint32_t slot, generation;

				store_name(name, kinds[k], slots[s], generations[g]);
				cr_assert_leq(strlen(name), STORE_NAME_MAX, "%s", name);
				cr_assert_eq(store_parse_name(name, &kind, &slot, &generation), 0,
					     "%s", name);
				cr_assert_eq(kind, kinds[k]);
				cr_assert_eq(slot, slots[s]);
				cr_assert_eq(generation, generations[g] & 0xffff);
			}
		}
	}
}

/* "cf0.1" would be channel 240 otherwise. */
Test(store, no_slot_has_the_name_of_listener_state_or_configuration, .timeout = 60)
{
	char name[STORE_NAME_SIZE], kind;
	uint32_t slot, generation;

	store_name(name, 'c', 0xf0, 1);
	cr_assert_str_neq(name, STORE_NAME_CONFIG);
	cr_assert_eq(store_parse_name(STORE_NAME_CONFIG, &kind, &slot, &generation), -1);
	cr_assert_eq(store_parse_name(STORE_NAME_STATE, &kind, &slot, &generation), -1);
	cr_assert_eq(store_parse_name(STORE_NAME_LISTENER, &kind, &slot, &generation), -1);
}

Test(store, only_what_store_name_writes_is_a_name, .timeout = 60)
{
	static const char *const wrong[] = {
		"",       "c",     "c5",         "c5.",      "c.1",          ".1",
		"5.1",    "C5.1",  "c5.1x",      "c5.1 ",    " c5.1",        "cf.1",
		"c5.A",   "c05.1", "c5.01",      "c5.10000", "c123456789.1", "c-5.1",
		"c5.1.1", "c5:1",  "connection", "unknown"};
	char kind;
	uint32_t slot, generation;

	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); ++i)
		cr_assert_eq(store_parse_name(wrong[i], &kind, &slot, &generation), -1, "\"%s\"",
			     wrong[i]);
}

/* ---- the table ---- */

static struct fdstore table;

static void table_check(unsigned n, unsigned removed_every)
{
	char name[STORE_NAME_SIZE];

	for (uint32_t i = 0; i < n; ++i) {
		int index;

		store_name(name, 'c', i, i);
		index = fdstore_find(&table, name);
		if (removed_every && i % removed_every == 0) {
			cr_assert_eq(index, -1, "%s", name);
		} else {
			cr_assert_geq(index, 0, "%s", name);
			cr_assert_eq(table.entry[index].fd, (int)i);
		}
	}
}

Test(fdstore, every_name_is_found_until_it_is_taken_out, .timeout = 60)
{
	char name[STORE_NAME_SIZE];

	for (uint32_t i = 0; i < STORE_FDS_MAX; ++i) {
		store_name(name, 'c', i, i);
		cr_assert_eq(fdstore_append(&table, name, (int)i), (int)i);
	}
	cr_assert_eq(fdstore_append(&table, "s1.1", 1), -1, "full");
	table_check(STORE_FDS_MAX, 0);

	for (uint32_t i = 0; i < STORE_FDS_MAX; i += 3) {
		store_name(name, 'c', i, i);
		fdstore_take(&table, (unsigned)fdstore_find(&table, name));
	}
	table_check(STORE_FDS_MAX, 3);

	while (atomic_load(&table.n) > 0)
		fdstore_take(&table, 0);
	table_check(STORE_FDS_MAX, 1);
	cr_assert_eq(fdstore_append(&table, "", 1), -1);
	cr_assert_eq(fdstore_append(&table, "c12345678.12", 1), -1, "too long");
}

/* ---- talking to a keeper ---- */

static void environment_set(const char *name, const char *prefix, int value)
{
	char text[32];

	(void)snprintf(text, sizeof(text), "%s%d", prefix, value);
	setenv(name, text, 1);
}

/* This process as a worker: its keeper is its parent. */
static int worker_begin(struct store *store, int notify_fd, int spare_fd)
{
	environment_set("LISTEN_PID", "", getpid());
	setenv("LISTEN_FDS", "0", 1);
	environment_set("NOTIFY_SOCKET", "fd:", notify_fd);
	environment_set(STORE_ENV_KEEPER, "", getppid());
	if (spare_fd >= 0)
		environment_set(STORE_ENV_SPARE, "fd:", spare_fd);
	else
		unsetenv(STORE_ENV_SPARE);
	return store_init(store);
}

Test(store, what_is_stored_is_named_and_what_is_removed_is_told_once, .timeout = 60)
{
	struct notice notice;
	struct store store;
	int sockets[2], fd = memfd_create("x", MFD_CLOEXEC);

	socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets);
	cr_assert_eq(worker_begin(&store, sockets[1], -1), 0);

	cr_assert_eq(store_add(&store, "c5.17", fd), 0);
	cr_assert_eq(notice_read(sockets[0], &notice), NOTICE_READ);
	cr_assert(notice.is_store && !notice.is_remove);
	cr_assert_str_eq(notice.name, "c5.17");
	cr_assert_str_eq(notice.text, "FDSTORE=1\nFDPOLL=0\nFDNAME=c5.17");
	cr_assert_geq(notice.fd, 0);
	close(notice.fd);

	cr_assert_eq(store_remove(&store, "c5.17"), 0);
	cr_assert_eq(store_remove(&store, "c5.17"), 0);
	cr_assert_eq(notice_read(sockets[0], &notice), NOTICE_READ);
	cr_assert(notice.is_remove && !notice.is_store);
	cr_assert_str_eq(notice.name, "c5.17");
	cr_assert_eq(notice.fd, -1);
	cr_assert_eq(notice_read(sockets[0], &notice), NOTICE_NONE);

	cr_assert_eq(store_notify(&store, "READY=1"), 0);
	cr_assert_eq(notice_read(sockets[0], &notice), NOTICE_READ);
	cr_assert(notice.is_ready);

	store_deinit(&store);
	cr_assert_eq(notice_read(sockets[0], &notice), NOTICE_END);
	close(sockets[0]);
	close(fd);
}

/* D12: counted and refused in time; a full store can still replace and remove */
Test(store, no_more_than_the_keeper_holds, .timeout = 60)
{
	struct notice notice;
	struct store store;
	int sockets[2], fd = memfd_create("x", MFD_CLOEXEC);

	socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets);
	cr_assert_eq(worker_begin(&store, sockets[1], -1), 0);
	store.n_max = 2;

	cr_assert_eq(store_add(&store, "c1.1", fd), 0);
	cr_assert_eq(store_add(&store, "c2.1", fd), 0);
	cr_assert_eq(store_add(&store, "c3.1", fd), IPC_ENFILE);
	cr_assert_eq(store_add(&store, "c2.1", fd), 0);
	for (unsigned i = 0; i < 3; ++i) {
		cr_assert_eq(notice_read(sockets[0], &notice), NOTICE_READ);
		close(notice.fd);
	}
	cr_assert_eq(notice_read(sockets[0], &notice), NOTICE_NONE, "a refused one is not sent");

	cr_assert_eq(store_remove(&store, "c1.1"), 0);
	cr_assert_eq(store_add(&store, "c3.1", fd), 0);
	store_deinit(&store);
	close(sockets[0]);
	close(fd);
}

Test(store, keeper_that_is_gone_is_told, .timeout = 60)
{
	struct store store;
	int sockets[2];

	socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets);
	cr_assert_eq(worker_begin(&store, sockets[1], -1), 0);
	close(sockets[0]);

	cr_assert_eq(store_add(&store, "c1.1", 0), IPC_EPIPE);
	cr_assert_eq(store_notify(&store, "READY=1"), IPC_EPIPE);
	cr_assert_eq(store_end_accepting(&store), IPC_EPIPE);
	store_deinit(&store);
}

Test(store, environment_that_is_no_keepers_is_refused, .timeout = 60)
{
	struct store store;

	unsetenv("NOTIFY_SOCKET");
	cr_assert_eq(store_init(&store), IPC_EPROTO);
	setenv("NOTIFY_SOCKET", "/run/systemd/notify", 1);
	cr_assert_eq(store_init(&store), IPC_EPROTO);
	cr_assert_eq(worker_begin(&store, 1000000, -1), IPC_EPROTO, "no such descriptor");
	setenv("LISTEN_PID", "1", 1);
	cr_assert_eq(store_adopt(NULL, NULL), IPC_EPROTO, "for another process");
	environment_set("LISTEN_PID", "", getpid());
	setenv("LISTEN_FDS", "20000", 1);
	cr_assert_eq(store_adopt(NULL, NULL), IPC_EPROTO, "more than there can be");
}

/* ---- the keeper's death ---- */

static void signal_block(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

#define N_STORED 500

/* Parent of the worker: dies when it is told to. */
static void keeper_child(int notify_fds[2], int handover_fds[2], int tell_fd)
{
	struct store store;
	char name[STORE_NAME_SIZE];
	pid_t worker;

	signal_block();
	worker = fork();
	if (worker != 0) {
		int status;

		close(notify_fds[1]);
		for (;;) {
			struct notice notice;

			while (notice_read(notify_fds[0], &notice) == NOTICE_READ)
				close(notice.fd);
			if (waitpid(worker, &status, WNOHANG) != 0)
				_exit(1);
		}
	}

	prctl(PR_SET_PDEATHSIG, SIGUSR2);
	if (worker_begin(&store, notify_fds[1], handover_fds[1]) < 0)
		_exit(2);
	for (uint32_t i = 0; i < N_STORED; ++i) {
		int fd = memfd_create("x", MFD_CLOEXEC);

		store_name(name, 'c', i, i);
		if (ftruncate(fd, i) < 0 || store_add(&store, name, fd) < 0)
			_exit(3);
	}

	/* A stranger's signal is ignored while the keeper lives. */
	raise(SIGUSR2);

	/* Changes all the time: the signal comes at any instruction of them. */
	(void)!write(tell_fd, "x", 1);
	for (;;) {
		int fd = memfd_create("y", MFD_CLOEXEC);

		if (store_add(&store, "s1.1", fd) < 0 || store_remove(&store, "s1.1") < 0)
			pause();
		close(fd);
	}
}

/* M-6: whenever the keeper dies, everything stored goes to the spare, whole */
Test(store, everything_is_handed_over_when_the_keeper_dies, .timeout = 60)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);

	for (unsigned round = 0; round < 20; ++round) {
		int notify_fds[2], handover_fds[2], tell_fds[2], status;
		bool is_complete = false, seen[N_STORED] = {false};
		unsigned n_seen = 0;
		struct notice notice;
		pid_t keeper;
		char byte;

		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, notify_fds);
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, handover_fds);
		cr_assert_eq(pipe2(tell_fds, O_CLOEXEC), 0);
		keeper = fork();
		if (keeper == 0)
			keeper_child(notify_fds, handover_fds, tell_fds[1]);
		close(tell_fds[1]);
		close(notify_fds[0]);
		close(notify_fds[1]);
		close(handover_fds[1]);
		cr_assert_eq(read(tell_fds[0], &byte, 1), 1);
		close(tell_fds[0]);
		for (volatile unsigned i = 0; i < round * 3000; ++i)
			;
		kill(keeper, SIGKILL);

		for (;;) {
			enum notice_result result = notice_read(handover_fds[0], &notice);
			uint32_t slot, generation;
			char kind;

			if (result == NOTICE_END)
				break;
			if (result == NOTICE_NONE)
				continue;
			is_complete |= notice.is_complete;
			if (notice.fd >= 0 &&
			    store_parse_name(notice.name, &kind, &slot, &generation) == 0 &&
			    kind == 'c') {
				cr_assert_eq(lseek(notice.fd, 0, SEEK_END), slot,
					     "another one under its name");
				n_seen += !seen[slot];
				seen[slot] = true;
			}
			if (notice.fd >= 0)
				close(notice.fd);
		}
		cr_assert(is_complete);
		cr_assert_eq(n_seen, N_STORED);
		close(handover_fds[0]);
		while (waitpid(-1, &status, 0) > 0)
			;
	}
}
