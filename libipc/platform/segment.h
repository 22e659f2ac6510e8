/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_PLATFORM_SEGMENT_H
#define LIBIPC_PLATFORM_SEGMENT_H

/*
 * Memory that is shared: POSIX shared memory that never has a name, and sealed memfds for what
 * another uid may write. Sizes are rounded up to pages by the caller (segment_round).
 */

#include <stdbool.h>
#include <stdint.h>

/* Descriptors opened before the sandbox closes the door: openat() needs nothing else afterwards. */
struct segment_maker {
	int shm_fd;  /* directory /dev/shm; -1: none, memfds serve instead */
	int self_fd; /* directory /proc/self/fd */
};
#define SEGMENT_MAKER_NULL                                                                         \
	{                                                                                          \
		.shm_fd = -1, .self_fd = -1                                                        \
	}

int segment_maker_init(struct segment_maker *maker);
void segment_maker_deinit(struct segment_maker *maker);

uint64_t segment_round(uint64_t size); /* to pages; 0 on overflow */

/*
 * openat(shm_fd, ".", O_TMPFILE|O_EXCL|O_RDWR|O_CLOEXEC, 0600) + ftruncate: never a name, at no
 * instruction.  Where the directory or O_TMPFILE is missing, or refused to us: a sealed memfd.
 */
int segment_new_shm(int *ret_fd, const struct segment_maker *maker, uint64_t size);

/* memfd, mode 0600, sealed SHRINK|GROW|SEAL.  `label` shows in /proc/pid/maps. */
int segment_new_sealed(int *ret_fd, const char *label, uint64_t size);

/* A second descriptor of the same memory that can only be mapped for reading. */
int segment_reopen_readonly(int *ret_fd, const struct segment_maker *maker, int fd);

/*
 * Reserves the space in pieces of 4 MiB, EINTR repeated, the deadline looked at between pieces (at
 * least one piece is done): IPC_ENOSPC, IPC_ETIMEDOUT.  May be repeated by anybody: what is
 * reserved stays.
 */
int segment_reserve(int fd, uint64_t size, uint64_t deadline_ns);

/* 1 if st_blocks shows all of size reserved, 0 if not, negative as fstat. */
int segment_is_reserved(int fd, uint64_t size);

/* MAP_SHARED; not inherited by fork (MADV_DONTFORK), not in core dumps (MADV_DONTDUMP). */
int segment_map(void **ret_address, int fd, uint64_t offset, uint64_t size, bool writable);
void segment_unmap(void *address, uint64_t size);

/* Identity of an inode, to recognise stored descriptors after a restart. */
int segment_inode(int fd, uint64_t *ret_inode, uint64_t *ret_size);

#endif
