/* SPDX-License-Identifier: MIT */
/*
 * Each attempt is made by a forked child of its own, inside the sandbox: a filter in the test's
 * process would end its reports.
 */

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/log.h"
#include "broker/sandbox.h"
#include "libipc/platform/clock.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

#define NOT_ENTERED 99
#define KILLED      (128 + SIGSYS)

struct inside {
	struct segment_maker maker;
	int sockets[2], epoll_fd, timer_fd, pipe_fds[2], tmp_fd;
	struct segment_maker other; /* the same directories under other numbers */
};

/* What fn returns, 128 + signal, or NOT_ENTERED. */
static int inside(int (*fn)(struct inside *inside))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		struct inside self = {.tmp_fd = open("/tmp", O_PATH | O_DIRECTORY | O_CLOEXEC)};
		char error[256];

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (segment_maker_init(&self.maker) < 0 || segment_maker_init(&self.other) < 0 ||
		    self.maker.shm_fd < 0 ||
		    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, self.sockets) < 0 ||
		    pipe2(self.pipe_fds, O_CLOEXEC) < 0)
			_exit(NOT_ENTERED);
		self.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
		self.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
		if (sandbox_enter(&self.maker, error, sizeof(error)) < 0)
			_exit(NOT_ENTERED);
		_exit(fn(&self));
	}
	cr_assert_gt(pid, 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- what works ---- */

#define NEED(condition)                                                                            \
	do {                                                                                       \
		if (!(condition))                                                                  \
			return __LINE__ % 90 + 1;                                                  \
	} while (0)

static int do_segments(struct inside *self)
{
	int fd, readonly;
	void *address;

	NEED(segment_new_shm(&fd, &self->maker, 65536) == 0);
	NEED(segment_map(&address, fd, 0, 65536, true) == 0);
	memset(address, 1, 65536);
	NEED(segment_is_reserved(fd, 65536) == 1);
	NEED(segment_reopen_readonly(&readonly, &self->maker, fd) == 0);
	segment_unmap(address, 65536);
	NEED(segment_map(&address, readonly, 0, 65536, true) < 0);
	NEED(segment_map(&address, readonly, 0, 65536, false) == 0);
	NEED(((char *)address)[65535] == 1);

	NEED(segment_new_sealed(&fd, "test", 8192) == 0);
	NEED(segment_reopen_readonly(&readonly, &self->maker, fd) == 0);
	NEED(segment_map(&address, fd, 0, 8192, true) == 0);
	return 0;
}

static int do_loop(struct inside *self)
{
	struct epoll_event event = {.events = EPOLLIN};
	struct itimerspec at_once = {.it_value = {.tv_nsec = 1}};
	uint64_t n;
	int error, pidfd, pair[2];
	socklen_t length = sizeof(error);

	NEED(epoll_ctl(self->epoll_fd, EPOLL_CTL_ADD, self->sockets[0], &event) == 0);
	NEED(epoll_ctl(self->epoll_fd, EPOLL_CTL_ADD, self->timer_fd, &event) == 0);
	NEED(timerfd_settime(self->timer_fd, 0, &at_once, NULL) == 0);
	NEED(epoll_wait(self->epoll_fd, &event, 1, 1000) == 1);
	NEED(read(self->timer_fd, &n, sizeof(n)) == sizeof(n));
	NEED(send(self->sockets[1], "x", 1, MSG_NOSIGNAL) == 1);
	NEED(recv(self->sockets[0], &n, sizeof(n), MSG_PEEK) == 1);
	NEED(getsockopt(self->sockets[0], SOL_SOCKET, SO_ERROR, &error, &length) == 0);
	pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	NEED(pidfd >= 0);
	NEED(close(pidfd) == 0);
	NEED(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
	NEED(clock_now_ns() > 0);
	return 0;
}

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, 64);
}

/* What libc asks the kernel for behind our back. */
static int do_libc(struct inside *self)
{
	static unsigned char many[4096][64];
	struct stat status;
	char *memory;

	memory = malloc(64 << 20);
	NEED(memory);
	memset(memory, 1, 64 << 20);
	memory = realloc(memory, 128 << 20);
	NEED(memory);
	free(memory);
	for (unsigned i = 0; i < 4096; ++i)
		many[i][0] = (unsigned char)(i * 7);
	qsort(many, 4096, 64, compare);
	NEED(fstat(self->sockets[0], &status) == 0);
	log_init(LOG_LEVEL_ERROR);
	log_line(LOG_LEVEL_DEBUG, "not shown");
	NEED(strerror(ENOENT)[0] != '\0');
	return 0;
}

static int do_log(struct inside *self)
{
	(void)self;
	log_set_level(LOG_LEVEL_DEBUG);
	log_line(LOG_LEVEL_DEBUG, "from inside: %d %s", 1, "two");
	return 0;
}

/* D12, D13 */
Test(sandbox, what_the_worker_needs_works, .timeout = 60)
{
	cr_assert_eq(inside(do_segments), 0);
	cr_assert_eq(inside(do_loop), 0);
	cr_assert_eq(inside(do_libc), 0);
	cr_assert_eq(inside(do_log), 0);
}

/* ---- what does not ---- */

static int do_open(struct inside *self)
{
	(void)self;
	return open("/etc/passwd", O_RDONLY) < 0 ? 1 : 0;
}

static int do_openat_elsewhere(struct inside *self)
{
	return openat(self->tmp_fd, ".", O_TMPFILE | O_RDWR, 0600) < 0 ? 1 : 0;
}

static int do_openat_same_directory_other_number(struct inside *self)
{
	return openat(self->other.shm_fd, ".", O_TMPFILE | O_RDWR, 0600) < 0 ? 1 : 0;
}

static int do_name_in_shm(struct inside *self)
{
	return openat(self->maker.shm_fd, "ipc-sandbox-test", O_CREAT | O_RDWR, 0600) < 0 ? 1 : 0;
}

static int do_write_through_self(struct inside *self)
{
	int fd;

	if (segment_new_shm(&fd, &self->maker, 4096) < 0)
		return 2;
	return openat(self->maker.self_fd, "0", O_RDWR) < 0 ? 1 : 0;
}

static int do_socket(struct inside *self)
{
	(void)self;
	return socket(AF_UNIX, SOCK_STREAM, 0) < 0 ? 1 : 0;
}

static int do_socketpair_of_the_internet(struct inside *self)
{
	int sockets[2];

	(void)self;
	return socketpair(AF_INET, SOCK_STREAM, 0, sockets) < 0 ? 1 : 0;
}

static int do_connect(struct inside *self)
{
	struct sockaddr sockaddr = {.sa_family = AF_UNIX};

	return connect(self->sockets[0], &sockaddr, sizeof(sockaddr)) < 0 ? 1 : 0;
}

static int do_execve(struct inside *self)
{
	char *const none[] = {NULL};

	(void)self;
	return execve("/bin/true", none, none) < 0 ? 1 : 0;
}

static int do_execveat(struct inside *self)
{
	char *const none[] = {NULL};

	return (int)syscall(SYS_execveat, self->tmp_fd, "true", none, none, 0) < 0 ? 1 : 0;
}

static int do_fork(struct inside *self)
{
	(void)self;
	return (int)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) < 0 ? 1 : 0;
}

static int do_ptrace(struct inside *self)
{
	(void)self;
	return ptrace(PTRACE_ATTACH, getppid(), NULL, NULL) < 0 ? 1 : 0;
}

static int do_io_uring(struct inside *self)
{
	(void)self;
	return (int)syscall(SYS_io_uring_setup, 1, NULL) < 0 ? 1 : 0;
}

static int do_kill(struct inside *self)
{
	(void)self;
	return kill(getppid(), 0) < 0 ? 1 : 0;
}

static int do_tgkill_other(struct inside *self)
{
	(void)self;
	return (int)syscall(SYS_tgkill, getppid(), getppid(), SIGABRT) < 0 ? 1 : 0;
}

static int do_mmap_exec(struct inside *self)
{
	(void)self;
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
			       MAP_FAILED
		       ? 1
		       : 0;
}

static int do_mprotect_exec(struct inside *self)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)self;
	return mprotect(page, 4096, PROT_READ | PROT_EXEC) < 0 ? 1 : 0;
}

/* The kernel looks at the lower half of an int, and so must the filter. */
static int do_mmap_exec_high_bits(struct inside *self)
{
	(void)self;
	return (int)syscall(SYS_mmap, NULL, 4096, (long)PROT_READ | PROT_EXEC | 1L << 40,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) < 0
		       ? 1
		       : 0;
}

static int do_fcntl_setown(struct inside *self)
{
	return fcntl(self->sockets[0], F_SETOWN, getppid()) < 0 ? 1 : 0;
}

static int do_unlink(struct inside *self)
{
	(void)self;
	return unlink("/tmp/ipc-sandbox-nothing") < 0 ? 1 : 0;
}

static int do_process_vm_readv(struct inside *self)
{
	(void)self;
	return (int)syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0) < 0 ? 1 : 0;
}

#ifdef __x86_64__
/* getpid() by the numbers of another ABI. */
static int do_other_abi(struct inside *self)
{
	long r;

	(void)self;
	__asm__ volatile("int $0x80" : "=a"(r) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
	return r < 0 ? 1 : 0;
}

static int do_x32(struct inside *self)
{
	(void)self;
	return (int)syscall(0x40000000L | SYS_getpid) < 0 ? 1 : 0;
}
#endif

/* D13 */
Test(sandbox, what_it_does_not_need_kills_it, .timeout = 120)
{
	static const struct {
		const char *name;
		int (*fn)(struct inside *inside);
		bool is_wide; /* let through for the sanitizers' own sake */
	} attempts[] = {
		{"open", do_open, true},
		{"openat of another directory", do_openat_elsewhere, true},
		{"openat of /dev/shm by another number", do_openat_same_directory_other_number,
		 true},
		{"a name in /dev/shm", do_name_in_shm, true},
		{"writing through /proc/self/fd", do_write_through_self, true},
		{"socket", do_socket, false},
		{"socketpair of another family", do_socketpair_of_the_internet, false},
		{"connect", do_connect, false},
		{"execve", do_execve, false},
		{"execveat", do_execveat, false},
		{"fork", do_fork, false},
		{"ptrace", do_ptrace, false},
		{"io_uring_setup", do_io_uring, false},
		{"kill", do_kill, false},
		{"tgkill of another", do_tgkill_other, false},
		{"mmap PROT_EXEC", do_mmap_exec, true},
		{"mmap PROT_EXEC with high bits", do_mmap_exec_high_bits, true},
		{"mprotect PROT_EXEC", do_mprotect_exec, true},
		{"fcntl F_SETOWN", do_fcntl_setown, false},
		{"unlink", do_unlink, false},
		{"process_vm_readv", do_process_vm_readv, false},
#ifdef __x86_64__
		{"int 0x80", do_other_abi, false},
		{"x32", do_x32, false},
#endif
	};

	for (unsigned i = 0; i < sizeof(attempts) / sizeof(attempts[0]); ++i) {
#ifdef SANITIZED
		if (attempts[i].is_wide)
			continue;
#endif
		int r = inside(attempts[i].fn);

		cr_expect_eq(r, KILLED, "%s: %d", attempts[i].name, r);
	}
}

static int do_clone3(struct inside *self)
{
	(void)self;
	return syscall(SYS_clone3, NULL, 0) < 0 && errno == ENOSYS ? 0 : 1;
}

/* libc falls back on that, and on nothing else */
Test(sandbox, clone3_is_not_there, .timeout = 60)
{
	cr_assert_eq(inside(do_clone3), 0);
}

static int do_abort(struct inside *self)
{
	(void)self;
	abort();
}

Test(sandbox, abort_ends_it_by_sigabrt, .timeout = 60)
{
	cr_assert_eq(inside(do_abort), 128 + SIGABRT);
}

/* The calls that seccomp cannot judge: a path beside a legal directory.  Landlock does; where the
 * kernel has none, there is nothing to test. */
static int do_absolute_path(struct inside *self)
{
	int fd = openat(self->maker.self_fd, "/etc/passwd", O_RDONLY | O_CLOEXEC);

	if (fd >= 0)
		return 1;
	return errno == EACCES ? 0 : 2;
}

static int do_absolute_tmpfile(struct inside *self)
{
	int fd = openat(self->maker.shm_fd, "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0)
		return 1;
	return errno == EACCES ? 0 : 2;
}

Test(sandbox, landlock_looks_at_the_path, .timeout = 60)
{
	if (syscall(SYS_landlock_create_ruleset, NULL, 0, 1) < 1)
		return;

	cr_assert_eq(inside(do_absolute_path), 0);
	cr_assert_eq(inside(do_absolute_tmpfile), 0);
}

/* Looked at from outside: inside nobody may ask. */
Test(sandbox, process_has_given_up_its_rights, .timeout = 60)
{
	int fds[2], status;
	char byte, path[64], text[4096];
	ssize_t n;
	pid_t pid;
	int fd;

	cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		struct segment_maker maker;
		char error[256];

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (segment_maker_init(&maker) < 0 ||
		    sandbox_enter(&maker, error, sizeof(error)) < 0)
			_exit(NOT_ENTERED);
		(void)!write(fds[1], "x", 1);
		for (;;)
			(void)poll(NULL, 0, 10000);
	}
	close(fds[1]);
	cr_assert_eq(read(fds[0], &byte, 1), 1);
	close(fds[0]);

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	cr_expect(strstr(text, "NoNewPrivs:\t1\n"));
	cr_expect(strstr(text, "Seccomp:\t2\n"));
	cr_expect(strstr(text, "CapPrm:\t0000000000000000\n"));
	cr_expect(strstr(text, "CapEff:\t0000000000000000\n"));

	snprintf(path, sizeof(path), "/proc/%d/limits", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	if (n > 0)
		cr_expect(strstr(text, "Max core file size        0                    0"));

	kill(pid, SIGKILL);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
}
