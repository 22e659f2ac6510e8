/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_SHARED_STEPS_H
#define TESTS_SUPPORT_SHARED_STEPS_H

/*
 * The kind `shared`, killed at every instruction, with a live peer waiting: the same scenes for the
 * bare structure and for the public interface.
 *
 * A child (side A) does something and is killed; a peer (side B) waits for a predicate or for the
 * lock meanwhile; the test's own process (side B as well) looks afterwards whether the value is the
 * last committed one, and goes on.  Nobody may wait for a slice: a kill point at which the peer was
 * late is tried again, and fails if it is late again and again.
 */

#include <stdbool.h>
#include <stddef.h>

#define SHARED_STEPS_VALUE_SIZE 64

/* What a process does with the channel.  Results as of the public functions. */
struct shared_side {
	void (*open)(bool is_a,
		     bool in_place); /* in the process that calls the rest; aborts on failure */
	int (*lock)(const void **ret_value);
	int (*lock_when)(bool (*predicate)(const void *, size_t, void *), void *userdata,
			 const void **ret_value);
	int (*edit)(void **ret_value);
	int (*commit)(void);
	int (*unlock)(void);
	int (*mark_consistent)(void);
	void (*died)(void); /* after the child's death: whoever has to tell it without a broker; may
			       be NULL */
	void (*next)(void); /* before the next child; may be NULL */
};

enum shared_scene_name {
	SHARED_EDIT_COMMIT, /* lock, edit, commit; the peer sleeps for the value */
	SHARED_EDIT_UNLOCK, /* lock, edit, unlock; the peer sleeps for a value that never comes */
	SHARED_WHEN_HOLDS,  /* lock_when that need not sleep, unlock; the same peer */
	SHARED_WHEN_ASLEEP, /* lock_when that sleeps for ever; the same peer */
	SHARED_COMMIT_CONTENDED, /* edit, commit; the peer sleeps for the lock */
	SHARED_LOCK_CONTENDED, /* lock that sleeps, the test holds it; the peer sleeps for the lock
				  as well */
	SHARED_MARK_COMMIT, /* in place, after a death: mark, edit, commit; the peer sleeps for the
			       lock */
};

/* Returns the number of kill points; aborts when an invariant does not hold.  stride 1: every
 * instruction; more: every so-many-th, from another start in each process. */
long shared_steps_run(const struct shared_side *side, enum shared_scene_name name, bool in_place,
		      long stride);

#endif
