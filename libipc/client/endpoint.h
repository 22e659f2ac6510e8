/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CLIENT_ENDPOINT_H
#define LIBIPC_CLIENT_ENDPOINT_H

/*
 * One open handle, in private memory: what all roles have in common.  It is the first member of
 * every public handle, so that a handle is recognised by its first word.
 *
 * A call begins with endpoint_enter() and ends with endpoint_leave(); both cost a few loads and
 * stores.  Between them close by another thread cannot take the memory away (M-44): entering leaves
 * the endpoint's address in a record of the thread, closing runs a heavy barrier over all threads
 * and looks at the records; the last thread that leaves frees.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "include/ipc/admin.h"
#include "include/ipc/client.h"
#include "libipc/client/bell.h"
#include "libipc/client/thread.h"
#include "libipc/core/eventcount.h"
#include "libipc/core/header.h"
#include "libipc/core/liveness.h"
#include "libipc/core/waiter.h"
#include "libipc/wire/protocol.h"

/* What one item of ipc_wait_any() wants of its handle. */
struct endpoint_wanted {
	uint32_t events;  /* IPC_READY_... */
	uint64_t version; /* of the item */
	uint64_t began;   /* the opposite side's word when the wait began */
	bool is_polled;   /* by the poll set: version counts from what the handle has read */
};

/*
 * How a handle takes part in ipc_wait_any(), one per role.  `handle` is the public handle.  The
 * endpoint is entered and its client alive during begin, look and waits_for; none of them sleeps.
 */
struct endpoint_readiness {
	/* What the role has.  PEER_PRESENT and PEER_GONE are looked at by the caller. */
	uint32_t events;

	/* Where to sleep: what makes it ready or ends it bumps this count.  NULL, or it returns
	 * NULL: the broker alone tells it.  Does not change during a wait. */
	struct eventcount *(*event)(void *handle);

	/*
	 * What holds now: those of wanted->events, and IPC_READY_END when the role's own call would
	 * say an end or a fault (M-34; its absence by endpoint_opposite_end(wanted->began)).  May
	 * do what the role's own look does (take a lead): not asked again once it said anything but
	 * 0.
	 */
	uint32_t (*look)(void *handle, const struct endpoint_wanted *wanted);

	/* CLOCK_MONOTONIC ns when it may become ready by time alone; CLOCK_FOREVER: not.  NULL:
	 * never. */
	uint64_t (*due_ns)(void *handle);

	/* The final end of the opposite side where the kind itself knows it, maybe before the
	 * broker has told it: IPC_EPIPE, IPC_EOWNERDEAD; 0: not so.  NULL: the broker alone tells
	 * it. */
	int (*peer_end)(const struct endpoint *endpoint);

	/* Handle id of the holder of what it waits for; 0: of nobody's.  NULL: always 0. */
	uint64_t (*waits_for)(void *handle);

	/*
	 * NULL where entering the endpoint is enough (every endpoint itself).  Of parts: between a
	 * begin that said 0 and its end the part is not made anew for somebody else; leave by
	 * another thread sets part->cancelled and bumps (endpoint_bump).  0; IPC_EINVAL: not in
	 * use.
	 */
	int (*begin)(void *handle);
	void (*end)(void *handle);
};

/*
 * What every handle begins with that is no endpoint but a part of one (ipc_flight).  Part and
 * endpoint live until the endpoint is released.
 */
struct endpoint_part {
	_Atomic uint64_t magic; /* ENDPOINT_PART_MAGIC; 0 once left */
	struct endpoint *endpoint;
	const struct endpoint_readiness *readiness;
	_Atomic uint32_t cancelled; /* its waits say IPC_ECANCELED */
	uint32_t reserved;
	struct poll_entry *_Atomic polled; /* as in struct endpoint */
};

struct endpoint {
	uint64_t magic;     /* ENDPOINT_MAGIC | role; 0 once closed */
	ipc_client *client; /* a reference */
	uint64_t id;
	uint64_t generation;    /* of the channel */
	uint64_t channel_flags; /* IPC_KEEP and the kind's own */
	uint64_t shape[4];
	uint32_t channel_slot;
	enum ipc_kind kind;
	enum ipc_role role;
	uint32_t side;    /* 0 or 1: producer/A is 0 */
	bool stays;       /* IPC_STAY */
	bool is_writable; /* how the segment is mapped */
	uint32_t epoch;   /* the client's: which process opened it */

	const struct liveness_table *table;  /* of the channel's owner */
	const _Atomic uint32_t *attention;   /* of this client in that table */
	const _Atomic uint64_t *handle_word; /* of this handle there; not id: held dead */
	struct desk_cell *cell;              /* own line in the own uid's desk */
	struct channel_header *header;       /* start of the segment */
	uint64_t segment_size;
	struct waiter_patience patience;
	_Atomic uint32_t cancelled;
	_Atomic uint32_t closing;

	/* Two, writable by every role: [side] is where that side sleeps. */
	struct eventcount *lines;

	/* Of an inbox or a session, else -1: own end of the pair that passes descriptors. */
	int pair_fd;

	/* Of an end of a session. */
	unsigned char key[PROTOCOL_KEY_SIZE];

	/* Set before close, of a session: its end is away, as by a death. */
	bool is_detached;

	/* Where they are mapped; NULL: in the client's desk. */
	void *lines_map;
	uint64_t lines_map_size;

	/* ---- Of the kind ---- */

	/* Frees the whole handle after the maps are gone; runs in the last thread that leaves.
	 * NULL: free() is enough. */
	void (*release)(struct endpoint *endpoint);

	/* May be NULL: in close, maps still there, before the broker is told (drop an own lock). */
	void (*closing_fn)(struct endpoint *endpoint);

	/* May be NULL: in the last thread that leaves after close, maps still there; not in a
	 * forked child. */
	void (*last_fn)(struct endpoint *endpoint);

	/* Of the role; NULL: no handle for ipc_wait_any(). Set by the opener, after success. */
	const struct endpoint_readiness *readiness;

	/* Set by last_fn: another thread still holds a robust lock in there; never unmap. */
	bool keep_mapped;

	/* Set by closing_fn: what the handle held is given back later, and the kind calls
	 * endpoint_tell_closed() after that. */
	bool tells_later;

	/* In the client's poll set, or NULL; written under its mutex. */
	struct poll_entry *_Atomic polled;

	/* Whom its notifications ring. */
	struct bell_ringer ringer;
	_Atomic uint32_t owes_ring; /* a RING found the socket full: before CLOSE */

	/* Of endpoint_close(). */
	struct thread_object object;
};

#define ENDPOINT_MAGIC      UINT64_C(0x6970635f68610000)
#define ENDPOINT_PART_MAGIC UINT64_C(0x6970635f68620000)

/* How a kind opens. All pointers are used during the call only. */
struct endpoint_request {
	enum ipc_kind kind;
	enum ipc_role role;
	uint32_t side;
	const char *name;
	uint64_t flags; /* public flags, checked already (options_check) */
	uint32_t mode, gid;
	uint64_t shape[4];     /* wanted, 0: any */
	uint64_t shape_new[4]; /* with the defaults filled in */
	uint64_t size_new;     /* bytes of the segment; the endpoint rounds it to pages */

	/* Of a queue: name of its dead letters as wanted, NULL: any.  What they are, "" for none,
	 * goes to ret_dead_letters[256] if that is not NULL. */
	const char *dead_letters;
	char *ret_dead_letters;
	bool is_uncounted; /* OPEN_UNCOUNTED */

	const unsigned char *key; /* resume of a session: name is NULL; else NULL */

	/* Upgrade of a weak handle: name is NULL. */
	bool is_upgrade;
	uint32_t channel_slot;
	uint64_t generation;

	/* Writes a new segment (all of it reserved, writable, zero bytes or a dead creator's
	 * leftovers).  0 or negative. */
	int (*make)(void *segment, uint64_t size, const uint64_t shape[4], uint64_t flags);
	/* Attach check after mapping; endpoint is filled in except for release, closing_fn. */
	int (*attach)(struct endpoint *endpoint);

	/* May be NULL: the handle cannot be had, though its segment is mapped; the broker is not
	 * told yet.  is_unfit: that check, or the one before it of the header, has failed. */
	void (*failed)(struct endpoint *endpoint, bool is_unfit);

	/* May be NULL: asked of the segment that was made before an open that may still be granted
	 * is given up.  False: others hold it granted, and its answer is awaited whatever comes. */
	bool (*give_up)(void *segment);
};

/*
 * Makes a handle of `size` bytes, which begins with its endpoint (what is the kind's is zero), and
 * opens it.  After success endpoint_close() frees it, through release() if the caller sets that.
 */
IPC_CHECKED int endpoint_new_wait(struct endpoint **ret, size_t size, ipc_client *client,
				  const struct endpoint_request *request,
				  const struct timespec *deadline);

/* Never sleeps.  In a forked child it only frees.  NULL is fine. */
void endpoint_close(struct endpoint *endpoint);

/* The same of one that threads use inside of something else, and not of itself: it is freed when
 * nobody is inside of `address`, where nobody begins anything any more. */
void endpoint_close_inside(struct endpoint *endpoint, const void *address);

/* By its first word: a handle of this role (0: any).  NULL is none. */
static inline bool endpoint_is(const struct endpoint *endpoint, enum ipc_role role)
{
	if (!endpoint)
		return false;

	return role ? endpoint->magic == (ENDPOINT_MAGIC | role)
		    : (endpoint->magic & ~UINT64_C(0xff)) == ENDPOINT_MAGIC;
}

/*
 * 0; IPC_EINVAL: not a handle of this role (role 0: any); IPC_ECHILD: forked child; IPC_EDEADLK:
 * inside a callback; IPC_ESTALE: the broker holds this client dead. Calls may nest (a flight's fn):
 * each enter has its leave.
 */
static inline int endpoint_enter(struct endpoint *endpoint, enum ipc_role role)
{
	int r;

	if (UNLIKELY(!endpoint_is(endpoint, role)))
		return IPC_EINVAL;

	r = thread_enter(endpoint, endpoint->epoch);
	if (UNLIKELY(r < 0))
		return r;

	if (UNLIKELY(atomic_load_explicit(endpoint->handle_word, memory_order_relaxed) !=
		     endpoint->id)) {
		thread_leave();
		return IPC_ESTALE;
	}
	return 0;
}

static inline void endpoint_leave(struct endpoint *endpoint)
{
	(void)endpoint;
	thread_leave();
}

/* By its first word.  NULL is none. */
static inline bool endpoint_is_part(const struct endpoint_part *part)
{
	return part &&
	       atomic_load_explicit(&part->magic, memory_order_relaxed) == ENDPOINT_PART_MAGIC;
}

/* Around user callbacks: library calls in between say IPC_EDEADLK. */
static inline void endpoint_callback_begin(void)
{
	thread_callback_begin();
}

static inline void endpoint_callback_end(void)
{
	thread_callback_end();
}

/* Its process, for words that others read; 0: of another pid namespace than theirs. */
uint32_t endpoint_process(const struct endpoint *endpoint);

/* Side words. */
static inline uint64_t endpoint_opposite(const struct endpoint *endpoint)
{
	return liveness_side(endpoint->table, endpoint->channel_slot, !endpoint->side);
}

/*
 * What the opposite side's end means for a call that began when its word was `began` (M-22): 0:
 * nothing ended; IPC_EPIPE, IPC_EOWNERDEAD. Takes IPC_STAY and final ends into account.  For a call
 * without wait, or one that begins while the side is gone, pass the current word: gone is told.
 */
int endpoint_opposite_end_slow(const struct endpoint *endpoint, uint64_t began);
static inline int endpoint_opposite_end(const struct endpoint *endpoint, uint64_t began)
{
	uint64_t now = endpoint_opposite(endpoint);

	/* Somebody is there, and was there all the time. */
	return LIKELY(side_count(now) > 0 && side_ends(now) == side_ends(began))
		       ? 0
		       : endpoint_opposite_end_slow(endpoint, began);
}

/* A waiter for this endpoint: deadline, attention, cancel, cell, patience, slice check.  event:
 * where to sleep, or NULL. */
void endpoint_waiter(struct endpoint *endpoint, struct waiter *ret, struct eventcount *event,
		     uint64_t deadline_ns);

/* Waits of this client look again: after a `cancelled` was set.  Async-signal-safe. */
void endpoint_bump(struct endpoint *endpoint);

/* 0; IPC_ESTALE: the broker holds this client dead, or has ended the handle. */
int endpoint_check(const struct endpoint *endpoint);

/* Of a sided role: IPC_READY_PEER_..., and IPC_READY_END if PEER_PRESENT is wanted and cannot come.
 */
uint32_t endpoint_peers_ready(const struct endpoint *endpoint,
			      const struct endpoint_wanted *wanted);

/*
 * The `ring` of a view: somebody who does not sleep on this event count (but on its client's
 * descriptor; or has no futex_waitv) is told by its bell or by the broker (bell.h).  userdata is
 * the endpoint.  Called with no lock held; never sleeps.
 */
void endpoint_ring(void *userdata);
void endpoint_send_ring(struct endpoint *endpoint); /* by the broker */

/* Of open.c and close: gives back what is mapped (not in a forked child, where nothing is); says to
 * the broker that the handle is closed, without sleeping. */
void endpoint_unmap(struct endpoint *endpoint);
void endpoint_tell_closed(struct endpoint *endpoint);

/* What every role has. */
int endpoint_cancel(struct endpoint *endpoint); /* async-signal-safe */
int endpoint_get_id(const struct endpoint *endpoint, enum ipc_role role, uint64_t *ret);
int endpoint_peers(struct endpoint *endpoint, enum ipc_role role);
int endpoint_peers_wait(struct endpoint *endpoint, enum ipc_role role, bool present,
			const struct timespec *deadline);

#endif
