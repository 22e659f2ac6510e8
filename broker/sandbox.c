/* SPDX-License-Identifier: MIT */
#include "broker/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sockios.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "broker/log.h"
#include "libipc/platform/compiler.h"
#include "libipc/platform/fdpass.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

static int fail(char *error, unsigned error_size, const char *step, int number)
{
	(void)snprintf(error, error_size, "%s: %s (--no-sandbox runs without)", step,
		       strerror(number));
	return -1;
}

/* ---- what a process can give up by itself ---- */

static int capabilities_drop(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	memset(data, 0, sizeof(data));
	return (int)syscall(SYS_capset, &header, data);
}

static int self_restrict(char *error, unsigned error_size)
{
	const struct rlimit none = {0, 0};

	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return fail(error, error_size, "PR_SET_DUMPABLE", errno);
	if (setrlimit(RLIMIT_CORE, &none) < 0)
		return fail(error, error_size, "RLIMIT_CORE", errno);
	if (setrlimit(RLIMIT_NPROC, &none) < 0)
		return fail(error, error_size, "RLIMIT_NPROC", errno);
	if (capabilities_drop() < 0)
		return fail(error, error_size, "capset", errno);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return fail(error, error_size, "PR_SET_NO_NEW_PRIVS", errno);
	return 0;
}

/* ---- Landlock ---- */

/* Of linux/landlock.h, which may be older than the kernel. */
#define LL_WRITE_FILE (UINT64_C(1) << 1)
#define LL_READ_FILE  (UINT64_C(1) << 2)
#define LL_TRUNCATE   (UINT64_C(1) << 14)

#define LL_CREATE_RULESET_VERSION 1u
#define LL_RULE_PATH_BENEATH      1

struct ll_ruleset {
	uint64_t handled_access_fs;
};

struct ll_path_beneath {
	uint64_t allowed_access;
	int32_t parent_fd;
} __attribute__((__packed__));

/* All rights on files that this version knows: 13 in the first, then REFER, TRUNCATE, IOCTL_DEV. */
static uint64_t landlock_rights(long version)
{
	unsigned n = version == 1 ? 13 : version == 2 ? 14 : version < 5 ? 15 : 16;

	return (UINT64_C(1) << n) - 1;
}

static int landlock_enter(int shm_fd, char *error, unsigned error_size)
{
	long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LL_CREATE_RULESET_VERSION);
	struct ll_ruleset ruleset;
	struct ll_path_beneath beneath = {.parent_fd = shm_fd};
	int fd, number = 0;

	if (version < 1) {
		log_line(LOG_LEVEL_NOTICE,
			 "sandbox: no Landlock in this kernel (%s); seccomp alone guards files",
			 strerror(errno));
		return 0;
	}

	ruleset.handled_access_fs = landlock_rights(version);
	beneath.allowed_access =
		ruleset.handled_access_fs & (LL_READ_FILE | LL_WRITE_FILE | LL_TRUNCATE);

	fd = (int)syscall(SYS_landlock_create_ruleset, &ruleset, sizeof(ruleset), 0);
	if (fd < 0)
		return fail(error, error_size, "landlock_create_ruleset", errno);
	if ((shm_fd >= 0 &&
	     syscall(SYS_landlock_add_rule, fd, LL_RULE_PATH_BENEATH, &beneath, 0) < 0) ||
	    syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		number = errno;
	(void)fd_close(fd);

	return number != 0 ? fail(error, error_size, "landlock_restrict_self", number) : 0;
}

/* ---- seccomp ---- */

/* Allowed whatever the arguments are. */
static const int calls_allowed[] = {
	/* the loop */
	SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_pwait2),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(timerfd_settime),
	SCMP_SYS(eventfd2),
	/* sockets that are there already */
	SCMP_SYS(accept4),
	SCMP_SYS(recvmsg),
	SCMP_SYS(recvfrom),
	SCMP_SYS(sendmsg),
	SCMP_SYS(sendto),
	SCMP_SYS(getsockopt),
	SCMP_SYS(shutdown),
	SCMP_SYS(close),
	SCMP_SYS(read),
	SCMP_SYS(write),
	SCMP_SYS(writev),
	SCMP_SYS(pread64),
	/* memory */
	SCMP_SYS(memfd_create),
	SCMP_SYS(fchmod),
	SCMP_SYS(ftruncate),
	SCMP_SYS(fstat),
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(brk),
	SCMP_SYS(madvise),
	SCMP_SYS(futex),
	/* who and when */
	SCMP_SYS(pidfd_open),
	SCMP_SYS(getpid),
	SCMP_SYS(getppid),
	SCMP_SYS(gettid),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(getrandom),
	/* qsort() asks how much memory there is */
	SCMP_SYS(sysinfo),
	/* signals and the end */
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(sched_yield),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
#ifdef SANITIZED
	/* what the runtime does by itself, and to write its report; Landlock still guards the files
	 */
	SCMP_SYS(sigaltstack),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(prctl),
	SCMP_SYS(ioctl),
	SCMP_SYS(lseek),
	SCMP_SYS(readlink),
	SCMP_SYS(readlinkat),
	SCMP_SYS(openat),
	SCMP_SYS(prlimit64),
	SCMP_SYS(getrlimit),
	SCMP_SYS(uname),
	SCMP_SYS(getuid),
	SCMP_SYS(geteuid),
	SCMP_SYS(sched_getaffinity),
	SCMP_SYS(mmap),
	SCMP_SYS(mprotect),
	SCMP_SYS(access),
	SCMP_SYS(faccessat),
	SCMP_SYS(stat),
	SCMP_SYS(lstat),
	SCMP_SYS(getcwd),
#endif
};

static const int fcntl_allowed[] = {F_ADD_SEALS, F_GET_SEALS, F_GETFL, F_GETFD, F_SETFD};

/*
 * Arguments of type int are compared as 32 bits, like the kernel does: the upper half of the
 * register may hold anything.
 */
static struct scmp_arg_cmp masked(unsigned argument, uint32_t mask, uint32_t value)
{
	return (struct scmp_arg_cmp){
		.arg = argument, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value};
}

static struct scmp_arg_cmp equal(unsigned argument, uint32_t value)
{
	return masked(argument, UINT32_MAX, value);
}

static int allow(scmp_filter_ctx filter, int call, unsigned n, const struct scmp_arg_cmp *arguments)
{
	return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, n, arguments);
}

static int allow_memory(scmp_filter_ctx filter)
{
	const struct scmp_arg_cmp not_executable[] = {masked(2, PROT_EXEC, 0)};
	int r;

	r = allow(filter, SCMP_SYS(mmap), 1, not_executable);
	if (r == 0)
		r = allow(filter, SCMP_SYS(mprotect), 1, not_executable);
	return r;
}

static int allow_files(scmp_filter_ctx filter, const struct segment_maker *maker)
{
	const uint32_t tmpfile_mask = O_TMPFILE | O_CREAT | O_TRUNC;
	const struct scmp_arg_cmp in_shm[] = {equal(0, (uint32_t)maker->shm_fd),
					      masked(2, tmpfile_mask, O_TMPFILE)};
	const struct scmp_arg_cmp in_self[] = {equal(0, (uint32_t)maker->self_fd),
					       masked(2, (uint32_t)~O_CLOEXEC, O_RDONLY)};
	const struct scmp_arg_cmp empty_path[] = {masked(3, AT_EMPTY_PATH, AT_EMPTY_PATH)};
	const struct scmp_arg_cmp socket_level[] = {equal(1, SOL_SOCKET)};
	const struct scmp_arg_cmp unread[] = {equal(1, SIOCOUTQ)};
	const struct scmp_arg_cmp local_pair[] = {equal(0, AF_UNIX)};
	int r = 0;

	if (maker->shm_fd >= 0)
		r = allow(filter, SCMP_SYS(openat), N_ELEMENTS(in_shm), in_shm);
	if (r == 0 && maker->self_fd >= 0)
		r = allow(filter, SCMP_SYS(openat), N_ELEMENTS(in_self), in_self);

	/* glibc's fstat() */
	if (r == 0)
		r = allow(filter, SCMP_SYS(newfstatat), 1, empty_path);
	if (r == 0)
		r = allow(filter, SCMP_SYS(setsockopt), 1, socket_level);
	if (r == 0)
		r = allow(filter, SCMP_SYS(ioctl), 1, unread);
	if (r == 0)
		r = allow(filter, SCMP_SYS(socketpair), 1, local_pair);
	for (unsigned i = 0; r == 0 && i < N_ELEMENTS(fcntl_allowed); ++i) {
		const struct scmp_arg_cmp command[] = {equal(1, (uint32_t)fcntl_allowed[i])};

		r = allow(filter, SCMP_SYS(fcntl), 1, command);
	}
	return r;
}

/* abort() has to end it, and a test's crash point; nobody else can be meant. */
static int allow_own_end(scmp_filter_ctx filter)
{
	const struct scmp_arg_cmp abort_self[] = {equal(0, (uint32_t)getpid()), equal(2, SIGABRT)};
	int r = allow(filter, SCMP_SYS(tgkill), N_ELEMENTS(abort_self), abort_self);

#ifdef IPC_CRASH_POINTS
	const struct scmp_arg_cmp kill_self[] = {equal(0, (uint32_t)getpid()), equal(1, SIGKILL)};

	if (r == 0)
		r = allow(filter, SCMP_SYS(kill), N_ELEMENTS(kill_self), kill_self);
#endif
	return r;
}

static int filter_fill(scmp_filter_ctx filter, const struct segment_maker *maker)
{
	int r;

	/* All threads, known system calls only, and as a tree: a list would cost the last call a
	 * hundred comparisons. */
	r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	if (r == 0)
		r = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (r == 0)
		(void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);

	for (unsigned i = 0; r == 0 && i < N_ELEMENTS(calls_allowed); ++i)
		r = allow(filter, calls_allowed[i], 0, NULL);
#ifndef SANITIZED
	if (r == 0)
		r = allow_memory(filter);
#else
	(void)allow_memory;
#endif
	if (r == 0)
		r = allow_files(filter, maker);
	if (r == 0)
		r = allow_own_end(filter);
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	return r;
}

static int seccomp_enter(const struct segment_maker *maker, char *error, unsigned error_size)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r;

	if (!filter)
		return fail(error, error_size, "seccomp_init", ENOMEM);

	r = filter_fill(filter, maker);
	if (r == 0)
		r = seccomp_load(filter);
	seccomp_release(filter);

	return r < 0 ? fail(error, error_size, "seccomp", -r) : 0;
}

/* ---- is it there ---- */

/* Asked of the kernel's own table: valgrind and some containers let the calls succeed and do
 * nothing. */
static int verify(int status_fd, char *error, unsigned error_size)
{
	char text[8192];
	ssize_t n = pread(status_fd, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	if (!strstr(text, "\nNoNewPrivs:\t1\n") || !strstr(text, "\nSeccomp:\t2\n"))
		return fail(error, error_size, "/proc/self/status shows no filter", ENOSYS);
	return 0;
}

int sandbox_enter(const struct segment_maker *maker, char *error, unsigned error_size)
{
	CLEANUP(fd_closep) int status_fd = -1;
	int r;

	status_fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	if (status_fd < 0)
		return fail(error, error_size, "open /proc/self/status", errno);

	r = self_restrict(error, error_size);
	if (r == 0)
		r = landlock_enter(maker->shm_fd, error, error_size);
	if (r == 0)
		r = seccomp_enter(maker, error, error_size);
	if (r == 0)
		r = verify(status_fd, error, error_size);
	return r;
}
