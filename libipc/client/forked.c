/* SPDX-License-Identifier: MIT */
#include "libipc/client/forked.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libipc/platform/fdpass.h"

static _Atomic(struct forked_fds *) forked_list;

bool forked_fd_is(int fd, dev_t device, ino_t inode)
{
	struct stat status;

	return fstat(fd, &status) == 0 && status.st_dev == device && status.st_ino == inode;
}

static struct forked_fds *forked_find_unused(void)
{
	/* [F2] Entries are whole when they are found.  Pairs with [F1]. */
	struct forked_fds *fds = atomic_load_explicit(&forked_list, memory_order_acquire);

	for (; fds; fds = fds->next) {
		uint32_t unused = 0;

		/* [F4] The former user has finished with it.  Pairs with [F3]. */
		if (atomic_compare_exchange_strong_explicit(
			    &fds->is_used, &unused, 1, memory_order_acquire, memory_order_relaxed))
			break;
	}
	return fds;
}

struct forked_fds *forked_fds_new(void)
{
	struct forked_fds *fds = forked_find_unused();

	if (fds)
		return fds;

	fds = calloc(1, sizeof(*fds));
	if (!fds)
		return NULL;

	atomic_init(&fds->is_used, 1);
	atomic_init(&fds->fd, -1);
	fds->next = atomic_load_explicit(&forked_list, memory_order_relaxed);

	/* [F1] Pairs with [F2]. */
	while (!atomic_compare_exchange_weak_explicit(&forked_list, &fds->next, fds,
						      memory_order_release, memory_order_relaxed))
		;
	return fds;
}

void forked_fds_set(struct forked_fds *fds, int fd, dev_t device, ino_t inode, int other_fd)
{
	fds->device = device;
	fds->inode = inode;
	fds->other_fd = other_fd;
	for (unsigned i = 0; i < FORKED_MORE_MAX; ++i)
		atomic_store_explicit(&fds->more_fds[i], -1, memory_order_relaxed);

	/* [F5] Whoever sees the number sees what it should be.  Pairs with [F6]. */
	atomic_store_explicit(&fds->fd, fd, memory_order_release);
}

void forked_fds_add(struct forked_fds *fds, int other_fd)
{
	for (unsigned i = 0; i < FORKED_MORE_MAX; ++i) {
		if (atomic_load_explicit(&fds->more_fds[i], memory_order_relaxed) >= 0)
			continue;

		atomic_store_explicit(&fds->more_fds[i], other_fd, memory_order_relaxed);
		return;
	}
}

struct forked_fds *forked_fds_free(struct forked_fds *fds)
{
	if (!fds)
		return NULL;

	/* A fork between the close and this finds a number that is not our file, and passes it
	 * over. */
	atomic_store_explicit(&fds->fd, -1, memory_order_relaxed);

	/* [F3] Pairs with [F4]. */
	atomic_store_explicit(&fds->is_used, 0, memory_order_release);
	return NULL;
}

void forked_close_all(void)
{
	struct forked_fds *fds = atomic_load_explicit(&forked_list, memory_order_acquire);

	for (; fds; fds = fds->next) {
		/* [F6] Pairs with [F5]. */
		int fd = atomic_load_explicit(&fds->fd, memory_order_acquire);

		if (fd >= 0 && forked_fd_is(fd, fds->device, fds->inode)) {
			(void)close(fd);
			(void)close(fds->other_fd);
			for (unsigned i = 0; i < FORKED_MORE_MAX; ++i)
				(void)fd_close(atomic_load_explicit(&fds->more_fds[i],
								    memory_order_relaxed));
		}
		(void)forked_fds_free(fds);
	}
}
