/* SPDX-License-Identifier: MIT */
#include "libipc/platform/segment.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <ipc/error.h>

#include "libipc/platform/clock.h"
#include "tests/platform/refuse.h"
#include "tests/support/leaks.h"
#include "tests/support/process.h"
#include "tests/support/step.h"

#define MIB (UINT64_C(1) << 20)

static struct segment_maker maker;
static struct leaks leaks;

static void setup(void)
{
	leaks_begin(&leaks);
	cr_assert_eq(segment_maker_init(&maker), 0);
}

static void teardown(void)
{
	segment_maker_deinit(&maker);
	leaks_check(&leaks);
}

/* What we name ourselves; others use the directory too. */
static unsigned n_names(void)
{
	DIR *directory = opendir("/dev/shm");
	unsigned n = 0;

	if (!directory)
		return 0;
	for (struct dirent *e; (e = readdir(directory));)
		n += strncmp(e->d_name, "ipc-", 4) == 0;
	closedir(directory);
	return n;
}

static void assert_segment(int fd, uint64_t size)
{
	struct stat status;

	cr_assert_eq(fstat(fd, &status), 0);
	cr_assert_eq((uint64_t)status.st_size, size);
	cr_assert_eq(status.st_mode, (mode_t)(S_IFREG | 0600), "%o", status.st_mode);
	cr_assert_eq(status.st_nlink, 0);
	cr_assert_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	cr_assert_eq(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
}

static _Bool is_tmpfile(int fd)
{
	char path[64], target[256] = "";

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (readlink(path, target, sizeof(target) - 1) < 0)
		return 0;
	return strncmp(target, "/dev/shm/", 9) == 0;
}

/* M-2 */
Test(segment, has_no_name, .init = setup, .fini = teardown, .timeout = 60)
{
	int fd;

	cr_assert_eq(segment_new_shm(&fd, &maker, 8192), 0);
	assert_segment(fd, 8192);
	cr_assert(is_tmpfile(fd));
	close(fd);
}

Test(segment, mode_does_not_depend_on_the_umask, .init = setup, .fini = teardown, .timeout = 60)
{
	int shm_fd, memory_fd;

	umask(0777);
	cr_assert_eq(segment_new_shm(&shm_fd, &maker, 4096), 0);
	cr_assert_eq(segment_new_sealed(&memory_fd, "test", 4096), 0);
	umask(022);

	assert_segment(shm_fd, 4096);
	assert_segment(memory_fd, 4096);
	close(shm_fd);
	close(memory_fd);
}

static void make(void *arg)
{
	int fd = -1;

	(void)arg;
	(void)!segment_new_shm(&fd, &maker, 4096);
}

static void check_no_name(void *arg, long n)
{
	cr_assert_eq(n_names(), *(unsigned *)arg, "killed before instruction %ld", n);
}

/* M-2: whoever is killed, at whichever instruction */
Test(segment, never_has_a_name, .init = setup, .fini = teardown, .timeout = 60)
{
	struct step_case step = {.operation = make, .check = check_no_name, .stride = 1};
	unsigned before = n_names();

	cr_assert_gt(step_run(&step, &before), 50);
}

Test(segment, file_system_without_unnamed_files_serves_too, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct segment_maker other = maker;
	unsigned before = n_names();
	int fd;

	/* openat() with O_TMPFILE says EOPNOTSUPP there. */
	other.shm_fd = open("/sys", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (other.shm_fd < 0 || openat(other.shm_fd, ".", O_TMPFILE | O_RDWR, 0600) >= 0 ||
	    errno != EOPNOTSUPP)
		cr_skip_test("no such file system here");

	cr_assert_eq(segment_new_shm(&fd, &other, 8192), 0);

	assert_segment(fd, 8192);
	cr_assert_not(is_tmpfile(fd));
	cr_assert_eq(n_names(), before);
	close(fd);
	close(other.shm_fd);
}

Test(segment, memfd_serves_where_there_is_no_directory, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct segment_maker other = {.shm_fd = -1, .self_fd = maker.self_fd};
	int fd;

	cr_assert_eq(segment_new_shm(&fd, &other, 8192), 0);
	assert_segment(fd, 8192);
	cr_assert_not(is_tmpfile(fd));
	close(fd);
}

/* M-54 */
Test(segment, sealed_one_keeps_its_size, .init = setup, .fini = teardown, .timeout = 60)
{
	int fd;

	cr_assert_eq(segment_new_sealed(&fd, "test", 8192), 0);
	assert_segment(fd, 8192);

	cr_assert_eq(fcntl(fd, F_GET_SEALS) &
			     (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | F_SEAL_WRITE),
		     F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	cr_assert_eq(ftruncate(fd, 4096), -1);
	cr_assert_eq(ftruncate(fd, 16384), -1);
	cr_assert_eq(pwrite(fd, "x", 1, 8191), 1);
	cr_assert_eq(pwrite(fd, "x", 1, 8192), -1);
	close(fd);
}

/* MFD_NOEXEC_SEAL is not known before Linux 6.3: nobody may depend on it. */
Test(segment, sealed_one_needs_no_new_kernel, .timeout = 60)
{
	pid_t pid = process_fork();

	if (pid == 0) {
		struct sock_filter filter[] = {
			BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_memfd_create, 0, 3),
			BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
			BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x8, 0, 1),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		};
		struct sock_fprog program = {.len = 6, .filter = filter};
		int fd = -1;

		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
		    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
			process_end(99);
		if (segment_new_sealed(&fd, "test", 4096) != 0)
			process_end(1);
		process_end((fcntl(fd, F_GET_SEALS) & F_SEAL_SHRINK) && ftruncate(fd, 0) < 0 ? 0
											     : 2);
	}
	cr_assert_eq(process_reap(pid, 30000), 0);
}

/* M-54: without its seals it may not be handed out */
Test(segment, sealed_one_without_seals_is_refused, .timeout = 60)
{
	pid_t pid = process_fork();

	if (pid == 0) {
		int fd = -1;

		refuse_call(SYS_fcntl, EPERM);
		process_end(segment_new_sealed(&fd, "test", 4096) == IPC_ENOSYS && fd == -1 ? 0
											    : 1);
	}
	cr_assert_eq(process_reap(pid, 30000), 0);
}

static void assert_readonly(int fd)
{
	void *address;
	int readonly_fd;

	cr_assert_eq(segment_reopen_readonly(&readonly_fd, &maker, fd), 0);
	cr_assert_eq(fcntl(readonly_fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	cr_assert_eq(fcntl(readonly_fd, F_GETFD), FD_CLOEXEC);
	cr_assert_eq(pwrite(readonly_fd, "x", 1, 0), -1);
	cr_assert_eq(ftruncate(readonly_fd, 0), -1);
	cr_assert_eq(segment_map(&address, readonly_fd, 0, 4096, true), IPC_EACCES);

	cr_assert_eq(segment_map(&address, readonly_fd, 0, 4096, false), 0);
	cr_assert_eq(mprotect(address, 4096, PROT_READ | PROT_WRITE), -1);
	cr_assert_eq(pwrite(fd, "x", 1, 100), 1);
	cr_assert_eq(((volatile char *)address)[100], 'x', "not the same memory");
	segment_unmap(address, 4096);
	close(readonly_fd);
}

/* M-50 */
Test(segment, reopened_one_cannot_be_written, .init = setup, .fini = teardown, .timeout = 60)
{
	int shm_fd, memory_fd;

	cr_assert_eq(segment_new_shm(&shm_fd, &maker, 4096), 0);
	cr_assert_eq(segment_new_sealed(&memory_fd, "test", 4096), 0);
	assert_readonly(shm_fd);
	assert_readonly(memory_fd);
	close(shm_fd);
	close(memory_fd);
}

/* M-50: another uid cannot open it again for writing through /proc */
Test(segment, stranger_cannot_reopen_it_for_writing, .init = setup, .fini = teardown, .timeout = 60)
{
	int fd, readonly_fd;
	pid_t pid;

	if (geteuid() != 0)
		cr_skip_test("needs root");

	cr_assert_eq(segment_new_sealed(&fd, "test", 4096), 0);
	cr_assert_eq(segment_reopen_readonly(&readonly_fd, &maker, fd), 0);

	pid = process_fork();
	if (pid == 0) {
		char path[32];

		if (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0)
			process_end(1);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", readonly_fd);
		process_end(open(path, O_RDWR) < 0 && fchmod(readonly_fd, 0666) < 0 ? 0 : 2);
	}
	cr_assert_eq(process_reap(pid, 30000), 0);
	close(fd);
	close(readonly_fd);
}

/* M-52 */
Test(segment, reserved_space_shows, .init = setup, .fini = teardown, .timeout = 60)
{
	uint64_t size = 9 * MIB + 4096;
	struct stat status;
	int fd;

	cr_assert_eq(segment_new_shm(&fd, &maker, size), 0);
	cr_assert_eq(segment_is_reserved(fd, size), 0);
	cr_assert_eq(segment_reserve(fd, size - 4096, CLOCK_FOREVER), 0);
	cr_assert_eq(segment_is_reserved(fd, size), 0);
	cr_assert_eq(segment_reserve(fd, size, CLOCK_FOREVER), 0);
	cr_assert_eq(segment_is_reserved(fd, size), 1);

	cr_assert_eq(fstat(fd, &status), 0);
	cr_assert_eq((uint64_t)status.st_size, size);
	close(fd);
}

Test(segment, truncated_one_is_not_reserved, .init = setup, .fini = teardown, .timeout = 60)
{
	int fd;

	cr_assert_eq(segment_new_shm(&fd, &maker, 8192), 0);
	cr_assert_eq(segment_reserve(fd, 8192, CLOCK_FOREVER), 0);
	cr_assert_eq(ftruncate(fd, 4096), 0);
	cr_assert_eq(segment_is_reserved(fd, 8192), 0);
	close(fd);
}

Test(segment, reservation_looks_at_the_deadline_between_pieces, .init = setup, .fini = teardown,
     .timeout = 60)
{
	uint64_t size = 12 * MIB;
	unsigned n = 0;
	int fd, r;

	cr_assert_eq(segment_new_shm(&fd, &maker, size), 0);
	cr_assert_eq(segment_reserve(fd, size, 0), IPC_ETIMEDOUT);
	cr_assert_eq(segment_is_reserved(fd, 4 * MIB), 1);
	cr_assert_eq(segment_is_reserved(fd, 4 * MIB + 4096), 0);

	/* What was done stays: the next one goes on. */
	do
		r = segment_reserve(fd, 4 * MIB * ++n, 0);
	while (r == 0 && n < 3);
	cr_assert_neq(r, 0);
	cr_assert_eq(segment_reserve(fd, size, CLOCK_FOREVER), 0);
	cr_assert_eq(segment_is_reserved(fd, size), 1);
	close(fd);
}

static void on_tick(int signal)
{
	(void)signal;
}

Test(segment, reservation_goes_on_under_signals, .init = setup, .fini = teardown, .timeout = 60)
{
	struct sigaction action = {.sa_handler = on_tick};
	struct itimerval tick = {{0, 300}, {0, 300}};
	int fd;

	cr_assert_eq(segment_new_shm(&fd, &maker, 32 * MIB), 0);
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &tick, NULL);
	cr_assert_eq(segment_reserve(fd, 32 * MIB, CLOCK_FOREVER), 0);
	memset(&tick, 0, sizeof(tick));
	setitimer(ITIMER_REAL, &tick, NULL);

	cr_assert_eq(segment_is_reserved(fd, 32 * MIB), 1);
	close(fd);
}

static _Bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	_Bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	close(fd);
	return done;
}

/* In a user namespace uid and gid have to have a meaning before a file can be made. */
static _Bool enter_user_namespace(void)
{
	char uid_map[32], gid_map[32];

	snprintf(uid_map, sizeof(uid_map), "0 %u 1", (unsigned)geteuid());
	snprintf(gid_map, sizeof(gid_map), "0 %u 1", (unsigned)getegid());
	return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 &&
	       write_text("/proc/self/uid_map", uid_map) &&
	       write_text("/proc/self/setgroups", "deny") &&
	       write_text("/proc/self/gid_map", gid_map);
}

/* 0, 77: not possible here */
static int fill_small_directory(void)
{
	struct segment_maker small;
	int fd = -1;

	if (unshare(CLONE_NEWNS) < 0 && !enter_user_namespace())
		return 77;
	(void)mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
	if (mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=1m") < 0)
		return 77;
	if (segment_maker_init(&small) != 0)
		return 1;
	if (segment_new_shm(&fd, &small, 4 * MIB) != 0)
		return 2;
	if (segment_reserve(fd, 4 * MIB, CLOCK_FOREVER) != IPC_ENOSPC)
		return 3;
	return segment_reserve(fd, MIB / 2, CLOCK_FOREVER) == 0 ? 0 : 4;
}

/* M-52 */
Test(segment, full_directory_says_so, .timeout = 60)
{
	pid_t pid = process_fork();
	int status;

	if (pid == 0)
		process_end(fill_small_directory());

	status = process_reap(pid, 30000);
	if (status == 77)
		cr_skip_test("no mount namespaces here");
	cr_assert_eq(status, 0);
}

static _Bool has_flag(const void *address, const char *flag)
{
	FILE *file = fopen("/proc/self/smaps", "re");
	_Bool is_here = 0, has = 0;
	unsigned long begin, end;
	char line[512];

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &begin, &end) == 2)
			is_here = (uintptr_t)address >= begin && (uintptr_t)address < end;
		if (is_here && strncmp(line, "VmFlags:", 8) == 0)
			has = strstr(line, flag) != NULL;
	}
	if (file)
		fclose(file);
	return has;
}

/* M-70 */
Test(segment, map_is_neither_forked_nor_dumped, .init = setup, .fini = teardown, .timeout = 60)
{
	void *address;
	pid_t pid;
	int fd;

	cr_assert_eq(segment_new_shm(&fd, &maker, 8192), 0);
	cr_assert_eq(segment_map(&address, fd, 4096, 4096, true), 0);
	cr_assert(has_flag(address, " dc"));
	cr_assert(has_flag(address, " dd"));
	*(volatile char *)address = 'x';

	pid = process_fork();
	if (pid == 0) {
		unsigned char vector;

		process_end(mincore(address, 4096, &vector) < 0 && errno == ENOMEM ? 0 : 1);
	}
	cr_assert_eq(process_reap(pid, 30000), 0);

	segment_unmap(address, 4096);
	segment_unmap(NULL, 4096);
	close(fd);
}

Test(segment, impossible_maps_are_refused, .init = setup, .fini = teardown, .timeout = 60)
{
	void *address = &address;
	int fd;

	cr_assert_eq(segment_new_shm(&fd, &maker, 4096), 0);
	cr_assert_eq(segment_map(&address, fd, 0, 0, true), IPC_EINVAL);
	cr_assert_eq(segment_map(&address, fd, 100, 4096, true), IPC_EINVAL);
	cr_assert_eq(segment_map(&address, fd, UINT64_MAX, 4096, true), IPC_EINVAL);
	cr_assert_eq(segment_map(&address, fd, 0, UINT64_C(1) << 60, true), IPC_ENOMEM);
	cr_assert_eq(segment_map(&address, -1, 0, 4096, true), IPC_ESTALE);
	cr_assert_eq(address, &address);
	close(fd);
}

Test(segment, sizes_are_rounded_to_pages, .timeout = 60)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	cr_assert_eq(segment_round(0), 0);
	cr_assert_eq(segment_round(1), page);
	cr_assert_eq(segment_round(page), page);
	cr_assert_eq(segment_round(page + 1), 2 * page);
	cr_assert_eq(segment_round(UINT64_MAX - page + 1), UINT64_MAX - page + 1);
	cr_assert_eq(segment_round(UINT64_MAX - page + 2), 0);
	cr_assert_eq(segment_round(UINT64_MAX), 0);
}

Test(segment, impossible_sizes_are_refused, .init = setup, .fini = teardown, .timeout = 60)
{
	int fd = -1;

	cr_assert_eq(segment_new_shm(&fd, &maker, UINT64_MAX - 4095), IPC_EINVAL);
	cr_assert_eq(segment_new_sealed(&fd, "test", UINT64_MAX - 4095), IPC_EINVAL);
	cr_assert_eq(fd, -1);
}

Test(segment, inode_is_what_two_descriptors_share, .init = setup, .fini = teardown, .timeout = 60)
{
	uint64_t inode, again, other, size;
	int fd, readonly_fd, other_fd;

	cr_assert_eq(segment_new_shm(&fd, &maker, 8192), 0);
	cr_assert_eq(segment_new_shm(&other_fd, &maker, 8192), 0);
	cr_assert_eq(segment_reopen_readonly(&readonly_fd, &maker, fd), 0);

	cr_assert_eq(segment_inode(fd, &inode, &size), 0);
	cr_assert_eq(size, 8192);
	cr_assert_eq(segment_inode(readonly_fd, &again, &size), 0);
	cr_assert_eq(segment_inode(other_fd, &other, &size), 0);
	cr_assert_eq(inode, again);
	cr_assert_neq(inode, other);
	cr_assert_eq(segment_inode(-1, &inode, &size), IPC_ESTALE);

	close(fd);
	close(readonly_fd);
	close(other_fd);
}
