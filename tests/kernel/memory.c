/* SPDX-License-Identifier: MIT */
/*
 * What segments rest on: files of shared memory, their seals, their reservation, and what read-only
 * means.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/process.h"

#define PAGE 4096

static int new_memfd(unsigned seals)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	cr_assert_geq(fd, 0);
	cr_assert_eq(ftruncate(fd, PAGE), 0);
	cr_assert_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static int new_unnamed(void)
{
	int fd = open("/dev/shm", O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600);

	cr_assert_geq(fd, 0);
	cr_assert_eq(ftruncate(fd, PAGE), 0);
	return fd;
}

/* Why channels that another uid may write are memfds. */
Test(kernel_memory, truncated_file_is_sigbus, .timeout = 60)
{
	int fd = new_unnamed();
	volatile char *memory = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	pid_t pid;

	cr_assert_neq(memory, MAP_FAILED);
	cr_assert_eq(ftruncate(fd, 0), 0);
	pid = process_fork();
	if (pid == 0) {
		signal(SIGBUS, SIG_DFL);
		process_end(memory[0] ? 1 : 2);
	}
	cr_assert_eq(process_reap(pid, 30000), 128 + SIGBUS);
	close(fd);
}

Test(kernel_memory, files_without_a_name_cannot_be_sealed, .timeout = 60)
{
	int fd = new_unnamed();

	cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), -1);
	close(fd);
}

/* M-54 */
Test(kernel_memory, seals_keep_the_size, .timeout = 60)
{
	int fd = new_memfd(F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);

	cr_assert_eq(ftruncate(fd, 0), -1);
	cr_assert_eq(errno, EPERM);
	cr_assert_eq(ftruncate(fd, 2 * PAGE), -1);
	cr_assert_eq(fallocate(fd, 0, 0, 2 * PAGE), -1);
	cr_assert_eq(fallocate(fd, 0, 0, PAGE), 0, "reserving is no growing");
	cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	cr_assert_eq(errno, EPERM);
	close(fd);
}

/* M-52: reserving shows in st_blocks; touching alone would be SIGBUS on a full file system */
Test(kernel_memory, reserved_pages_are_counted, .timeout = 60)
{
	int fds[2] = {new_unnamed(), new_memfd(0)};
	struct stat status;

	for (unsigned i = 0; i < 2; ++i) {
		cr_assert_eq(ftruncate(fds[i], 16 * PAGE), 0);
		cr_assert_eq(fstat(fds[i], &status), 0);
		cr_assert_eq(status.st_blocks, 0);
		cr_assert_eq(fallocate(fds[i], 0, 0, 15 * PAGE + 1), 0);
		cr_assert_eq(fstat(fds[i], &status), 0);
		cr_assert_eq(status.st_blocks, 16 * PAGE / 512);
		close(fds[i]);
	}
}

/* M-50 */
Test(kernel_memory, read_only_descriptor_gives_no_writable_map, .timeout = 60)
{
	int fd = new_unnamed(), readonly_fd;
	char path[32];
	void *memory;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	readonly_fd = open(path, O_RDONLY | O_CLOEXEC);
	cr_assert_geq(readonly_fd, 0);

	cr_assert_eq(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, readonly_fd, 0),
		     MAP_FAILED);
	cr_assert_eq(errno, EACCES);
	memory = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, readonly_fd, 0);
	cr_assert_neq(memory, MAP_FAILED);
	cr_assert_eq(mprotect(memory, PAGE, PROT_READ | PROT_WRITE), -1);
	cr_assert_eq(errno, EACCES);

	munmap(memory, PAGE);
	close(fd);
	close(readonly_fd);
}

/* M-50: a memfd is born 0777, and whoever has it read-only could open it again */
Test(kernel_memory, mode_keeps_strangers_from_reopening, .timeout = 60)
{
	int fd = new_memfd(0), readonly_fd;
	char path[32];

	if (geteuid() != 0)
		cr_skip_test("needs root");

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	readonly_fd = open(path, O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", readonly_fd);

	for (int is_closed = 0; is_closed < 2; ++is_closed) {
		pid_t pid = process_fork();

		if (pid == 0) {
			if (setresgid(65534, 65534, 65534) < 0 ||
			    setresuid(65534, 65534, 65534) < 0)
				process_end(99);
			process_end(open(path, O_RDWR) >= 0 ? 1 : 0);
		}
		cr_assert_eq(process_reap(pid, 30000), is_closed ? 0 : 1);
		cr_assert_eq(fchmod(fd, 0600), 0);
	}
	close(fd);
	close(readonly_fd);
}

/* M-70: what is not inherited is not there, whatever the child does */
Test(kernel_memory, map_that_is_not_inherited_is_a_fault, .timeout = 60)
{
	int fd = new_unnamed();
	volatile char *memory = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	pid_t pid;

	cr_assert_eq(madvise((void *)memory, PAGE, MADV_DONTFORK), 0);
	pid = process_fork();
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);
		process_end(memory[0] ? 1 : 2);
	}
	cr_assert_eq(process_reap(pid, 30000), 128 + SIGSEGV);
	munmap((void *)memory, PAGE);
	close(fd);
}
