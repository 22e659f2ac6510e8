/* SPDX-License-Identifier: MIT */
#ifndef BROKER_SEGMENTS_H
#define BROKER_SEGMENTS_H

/*
 * The memory that the broker makes, and every descriptor that it keeps at the keeper: made, stored,
 * dropped.
 */

#include <stdbool.h>
#include <stdint.h>

#include "broker/registry.h"

struct worker;

#define SEGMENTS_LINES_SIZE (2 * sizeof(struct eventcount))

/* Whether n more descriptors can be kept: IPC_ENFILE if not. */
IPC_CHECKED int segments_check_room(const struct worker *worker, unsigned n);

/* Stores one descriptor of a record; IPC_ENFILE, IPC_EPIPE. */
IPC_CHECKED int segments_store(struct worker *worker, char kind, uint32_t slot, uint32_t generation,
			       int fd);
void segments_unstore(struct worker *worker, char kind, uint32_t slot, uint32_t generation);

/* The table and the desk of a uid, made, stored and mapped as far as the broker maps them; the
 * record's generation, uid and ids are written. */
IPC_CHECKED int segments_make_user(struct worker *worker, struct user *user);
/* Maps the table of an adopted user. */
IPC_CHECKED int segments_map_user(struct user *user);
void segments_drop_user(struct worker *worker, struct user *user);

/* The table's descriptor for handing out. */
IPC_CHECKED int segments_reader(struct worker *worker, struct user *user, int *ret_fd);

/* The segment of a channel whose record is filled in but for segment_id and lines_id; and lines of
 * its own where others may open it. */
IPC_CHECKED int segments_make_channel(struct worker *worker, struct channel *channel);
void segments_drop_channel(struct worker *worker, struct channel *channel);

/* Where the two event counts of a channel are, and the descriptor that a client of `uid` needs for
 * them (-1: it has it). */
struct message_region segments_lines(const struct channel *channel, uint32_t uid, int *ret_fd);

/* Looked at before each time the segment is handed out: IPC_EBADMSG if somebody cut it or took its
 * space away. */
IPC_CHECKED int segments_check_channel(const struct channel *channel);

/* Of a client-writable segment, never mapped: all of the bytes, or false. */
bool segments_read(int fd, uint64_t offset, void *ret, size_t size);

/* One value of it: 0 where there is none. */
uint64_t segments_peek(int fd, uint64_t offset);

#endif
