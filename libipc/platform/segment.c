/* SPDX-License-Identifier: MIT */
#include "libipc/platform/segment.h"

/*
 * Making, reserving and mapping.  A segment is a descriptor until it is mapped, and has no name at
 * any instruction; so a death in here leaves nothing behind.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ipc/error.h>

#include "libipc/platform/clock.h"
#include "libipc/platform/compiler.h"
#include "libipc/platform/fdpass.h"
#include "libipc/platform/syserr.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3 */
#endif

#define SEGMENT_MODE           0600
#define SEGMENT_SEALS          (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define SEGMENT_PIECE          (UINT64_C(4) << 20)
#define SEGMENT_PIECE_SMALLEST (UINT64_C(64) << 10)

int segment_maker_init(struct segment_maker *maker)
{
	*maker = (struct segment_maker)SEGMENT_MAKER_NULL;

	/* /proc/self is this process at the moment of opening: a forked copy needs a maker of its
	 * own. */
	maker->self_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (maker->self_fd < 0)
		return syserr(SYSERR_OPEN, errno);

	maker->shm_fd = open("/dev/shm", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (maker->shm_fd < 0 && errno != ENOENT && errno != ENOTDIR && errno != EACCES) {
		int r = syserr(SYSERR_OPEN, errno);

		segment_maker_deinit(maker);
		return r;
	}

	return 0;
}

void segment_maker_deinit(struct segment_maker *maker)
{
	fd_closep(&maker->shm_fd);
	fd_closep(&maker->self_fd);
}

uint64_t segment_round(uint64_t size)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	return size > UINT64_MAX - (page - 1) ? 0 : (size + page - 1) & ~(page - 1);
}

/* Mode and size of a new file.  The mode is set again because the umask may have taken away what we
 * need. */
static int segment_shape(int fd, uint64_t size)
{
	if (size > INT64_MAX)
		return IPC_EINVAL;

	if (fchmod(fd, SEGMENT_MODE) < 0)
		return syserr(SYSERR_TRUNCATE, errno);

	while (ftruncate(fd, (off_t)size) < 0)
		if (errno != EINTR)
			return syserr(SYSERR_TRUNCATE, errno);

	return 0;
}

/*
 * There, but not for us (EOVERFLOW: not for our uid), or a file system without O_TMPFILE (EISDIR
 * and ENOENT are what kernels say that do not know it): as good as missing.  shm_open() would serve
 * as well, but for two system calls there would be a name, and a death between them would leave it.
 */
static bool segment_is_no_place(int error)
{
	return error == EACCES || error == EROFS || error == EPERM || error == EOVERFLOW ||
	       error == EOPNOTSUPP || error == EISDIR || error == ENOENT;
}

int segment_new_shm(int *ret_fd, const struct segment_maker *maker, uint64_t size)
{
	CLEANUP(fd_closep) int fd = -1;
	int r;

	if (maker->shm_fd < 0)
		return segment_new_sealed(ret_fd, "ipc", size);

	fd = openat(maker->shm_fd, ".", O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, SEGMENT_MODE);
	if (fd < 0)
		return segment_is_no_place(errno) ? segment_new_sealed(ret_fd, "ipc", size)
						  : syserr(SYSERR_OPEN_SHM, errno);

	r = segment_shape(fd, size);
	if (r < 0)
		return r;

	*ret_fd = fd;
	fd = -1;
	return 0;
}

int segment_new_sealed(int *ret_fd, const char *label, uint64_t size)
{
	CLEANUP(fd_closep) int fd = -1;
	int r;

	fd = memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return syserr(SYSERR_MEMFD, errno);

	/* memfds are born 0777: whoever has it read-only could open it again for writing. */
	r = segment_shape(fd, size);
	if (r < 0)
		return r;

	if (fcntl(fd, F_ADD_SEALS, SEGMENT_SEALS) < 0)
		return syserr(SYSERR_SEAL, errno);

	*ret_fd = fd;
	fd = -1;
	return 0;
}

int segment_reopen_readonly(int *ret_fd, const struct segment_maker *maker, int fd)
{
	char number[16];
	int readonly_fd;

	(void)snprintf(number, sizeof(number), "%d", fd);

	do
		readonly_fd = openat(maker->self_fd, number, O_RDONLY | O_CLOEXEC);
	while (readonly_fd < 0 && errno == EINTR);

	if (readonly_fd < 0)
		return syserr(SYSERR_OPEN, errno);

	*ret_fd = readonly_fd;
	return 0;
}

int segment_reserve(int fd, uint64_t size, uint64_t deadline_ns)
{
	uint64_t piece = SEGMENT_PIECE;
	uint64_t done = 0;

	if (size > INT64_MAX)
		return IPC_EINVAL;

	while (done < size) {
		uint64_t n = size - done < piece ? size - done : piece;

		if (done > 0 && clock_now_ns() >= deadline_ns)
			return IPC_ETIMEDOUT;

		if (fallocate(fd, 0, (off_t)done, (off_t)n) < 0) {
			if (errno != EINTR)
				return syserr(SYSERR_FALLOCATE, errno);

			/* An interrupted piece is given back by the kernel; under a fast timer only
			 * a smaller one gets through. */
			if (piece > SEGMENT_PIECE_SMALLEST)
				piece /= 2;
			continue;
		}

		done += n;
	}

	return 0;
}

int segment_is_reserved(int fd, uint64_t size)
{
	struct stat status;

	if (fstat(fd, &status) < 0)
		return syserr(SYSERR_STAT, errno);

	return (uint64_t)status.st_size >= size &&
	       (uint64_t)status.st_blocks >= size / 512 + (size % 512 > 0);
}

int segment_map(void **ret_address, int fd, uint64_t offset, uint64_t size, bool writable)
{
	void *address;
	int r;

	if (size > SIZE_MAX || offset > INT64_MAX)
		return IPC_EINVAL;

	address = mmap(NULL, size, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd,
		       (off_t)offset);
	if (address == MAP_FAILED)
		return syserr(SYSERR_MMAP, errno);

	if (madvise(address, size, MADV_DONTFORK) < 0 ||
	    madvise(address, size, MADV_DONTDUMP) < 0) {
		r = syserr(SYSERR_MADVISE, errno);
		segment_unmap(address, size);
		return r;
	}

	*ret_address = address;
	return 0;
}

void segment_unmap(void *address, uint64_t size)
{
	if (address)
		(void)munmap(address, size);
}

int segment_inode(int fd, uint64_t *ret_inode, uint64_t *ret_size)
{
	struct stat status;

	if (fstat(fd, &status) < 0)
		return syserr(SYSERR_STAT, errno);

	*ret_inode = (uint64_t)status.st_ino;
	*ret_size = (uint64_t)status.st_size;
	return 0;
}
