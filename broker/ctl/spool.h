/* SPDX-License-Identifier: MIT */
#ifndef BROKER_CTL_SPOOL_H
#define BROKER_CTL_SPOOL_H

/*
 * Bytes that are collected, then handed to other processes: in memory up to a limit, beyond it all
 * of them in a file.
 *
 * The file has no name while it grows, so that nothing is left of it whoever is killed; it gets one
 * when it is published, in the folder for temporary files, and loses it when it is withdrawn.  What
 * was published and not withdrawn, since its process was killed, is swept by a later spool of the
 * same user.
 */

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct spool {
	unsigned char *data; /* its first `head` bytes are the owner's */
	size_t head, size, room, size_max;
	uint64_t n_bytes; /* that were put, in memory or file */
	int fd;           /* -1: all of it is in memory */
	bool has_name;
	char path[PATH_MAX];
};

/* size_max: of the head and what follows it in memory.  0 or an errno. */
int spool_init(struct spool *spool, size_t head, size_t size_max);
void spool_deinit(struct spool *spool);

/* 0 or an errno. */
int spool_put(struct spool *spool, const void *data, size_t size);

/* Names the file, with these rights: spool->path.  `number` makes the name.  0 or an errno. */
int spool_publish(struct spool *spool, uint64_t number, mode_t mode, gid_t gid);
void spool_withdraw(struct spool *spool);
/* The name stays. */
void spool_abandon(struct spool *spool);

/* Opens what another process published.  A descriptor, or a negative errno; EBADMSG: it is nothing
 * of this kind, or not of this size. */
int spool_open(const char *path, uint64_t n_bytes);

/* To a descriptor, all or an errno. */
int spool_write(const struct spool *spool, int fd);
int spool_copy(int from_fd, uint64_t n_bytes, int fd);
int spool_write_bytes(int fd, const void *data, size_t size);

#endif
