/* SPDX-License-Identifier: MIT */
/*
 * What identity and liveness rest on: marks that fork wipes, barriers for all threads, descriptors
 * of processes.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/membarrier.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/process.h"

#define PAGE 4096

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* M-42 */
Test(kernel_process, marked_page_is_zero_after_every_fork, .timeout = 60)
{
	volatile int *page =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pid_t pid;
	int status;

	cr_assert_neq(page, MAP_FAILED);
	cr_assert_eq(madvise((void *)page, PAGE, MADV_WIPEONFORK), 0);
	*page = 1;

	pid = process_fork();
	if (pid == 0)
		process_end(*page);
	cr_assert_eq(process_reap(pid, 30000), 0);

	pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (pid == 0)
		_exit(*page);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);

	/* It shares the memory, and needs nothing. */
	pid = vfork();
	if (pid == 0)
		_exit(*page);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(WEXITSTATUS(status), 1);
	cr_assert_eq(*page, 1);
	munmap((void *)page, PAGE);
}

Test(kernel_process, barrier_has_to_be_registered, .timeout = 60)
{
	cr_assert_eq(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0), -1);
	cr_assert_eq(errno, EPERM);
	cr_assert_eq(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0), 0);
	cr_assert_eq(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0), 0);
}

/* Why a lock of somebody who is not found is a lock of the dead. */
Test(kernel_process, scheduler_of_nobody_is_not_found, .timeout = 60)
{
	pid_t pid = process_fork();

	if (pid == 0)
		process_end(0);
	cr_assert_eq(process_reap(pid, 30000), 0);
	cr_assert_eq(sched_getscheduler(pid), -1);
	cr_assert_eq(errno, ESRCH);
	cr_assert_geq(sched_getscheduler(getpid()), 0);
	cr_assert_geq(sched_getscheduler(getppid()), 0);
}

static _Bool is_readable(int fd)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

	return poll(&poll_fd, 1, 0) == 1;
}

/* M-24 */
Test(kernel_process, descriptor_of_a_process_becomes_readable_at_its_end, .timeout = 60)
{
	pid_t pid = process_fork();
	int pidfd, status;

	if (pid == 0)
		for (;;)
			pause();

	pidfd = process_open(pid);
	cr_assert_not(is_readable(pidfd));
	kill(pid, SIGSTOP);
	cr_assert_eq(waitpid(pid, &status, WUNTRACED), pid);
	cr_assert_not(is_readable(pidfd));
	kill(pid, SIGKILL);
	process_until_ended(pidfd, 5000);
	cr_assert_eq(kill(pid, 0), 0, "a zombie");
	process_reap(pid, 30000);
	cr_assert(is_readable(pidfd));
	cr_assert_eq(process_open(pid), -1);
	close(pidfd);
}

static void *open_own_id(void *arg)
{
	*(long *)arg = syscall(SYS_pidfd_open, gettid(), 0);
	return arg;
}

/* Why only the first thread of a process can be asked whether it is a zombie. */
Test(kernel_process, ids_of_threads_have_no_process_descriptor, .timeout = 60)
{
	pthread_t thread;
	long fd = 0;

	cr_assert_eq(pthread_create(&thread, NULL, open_own_id, &fd), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(fd, -1);
	cr_assert_eq(syscall(SYS_pidfd_open, 0x3ffffff0, 0), -1);
	cr_assert_eq(errno, ESRCH);
}

/* Linux 6.5; without it peer.c guesses and confirms. */
Test(kernel_process, socket_names_the_process_behind_it, .timeout = 60)
{
	int pair[2], pidfd = -1;
	socklen_t length = sizeof(pidfd);

	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	if (getsockopt(pair[0], SOL_SOCKET, SO_PEERPIDFD, &pidfd, &length) < 0) {
		cr_assert_eq(errno, ENOPROTOOPT);
		close(pair[0]);
		close(pair[1]);
		cr_skip_test("this kernel has no SO_PEERPIDFD");
	}
	cr_assert_not(is_readable(pidfd));
	close(pidfd);
	close(pair[0]);
	close(pair[1]);
}

/* M-24: an inherited descriptor hides the end of a connection, so the end of the process counts too
 */
Test(kernel_process, forked_copy_hides_the_end_of_a_connection, .timeout = 60)
{
	int pair[2], tell[2];
	pid_t pid, copy = 0;
	char byte;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	cr_assert_eq(pipe(tell), 0);
	pid = process_fork();
	if (pid == 0) {
		pid_t child = fork();

		if (child == 0)
			for (;;)
				pause();
		(void)!write(tell[1], &child, sizeof(child));
		process_end(0);
	}
	cr_assert_eq(read(tell[0], &copy, sizeof(copy)), (ssize_t)sizeof(copy));
	cr_assert_eq(process_reap(pid, 30000), 0);
	close(pair[1]);
	cr_assert_eq(recv(pair[0], &byte, 1, MSG_DONTWAIT), -1);
	cr_assert_eq(errno, EAGAIN);

	kill(copy, SIGKILL);
	cr_assert_eq(recv(pair[0], &byte, 1, 0), 0);
	close(pair[0]);
	close(tell[0]);
	close(tell[1]);
}
