/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_ACTOR_H
#define TESTS_SUPPORT_ACTOR_H

/*
 * A forked process that the test talks to over a socket pair, one number at a time.  It never
 * touches the test framework: what it finds it says, and the test asserts.  It dies with the thread
 * that started it.
 */

#include <stdint.h>
#include <sys/types.h>

struct actor {
	pid_t pid;
	int fd; /* -1 once it was reaped */
};

/* fn runs in the child, with the child's end in *self; _exit(0) after. */
void actor_start(struct actor *actor, void (*fn)(struct actor *self, void *arg), void *arg);

/* The same as the first process of a pid namespace of its own, for which root alone has the right;
 * its number here.  actor->pid is that of the process that waits for it, and ends with it. */
pid_t actor_start_in_namespace(struct actor *actor, void (*fn)(struct actor *self, void *arg),
			       void *arg);

/* Either direction.  A child whose parent is gone ends. */
void actor_say(struct actor *actor, int64_t value);
int64_t
actor_hear(struct actor *actor); /* waits up to 60 s, aborts then, and when the other end is gone */

/* Which of n of them, up to 8, says something first; waits as actor_hear() does. */
unsigned actor_first(const struct actor *actors, unsigned n);

void actor_kill(struct actor *actor); /* SIGKILL and reap */
int actor_join(struct actor *actor);  /* exit status, or 128 + signal; waits up to 60 s */

/*
 * Until the actor's main thread sleeps in a futex wait, at most 5 s, aborts then: to know that it
 * is really asleep.
 */
void actor_until_asleep(const struct actor *actor);

/* The same for any process; n_threads of its threads have to sleep in a futex wait. */
void process_until_asleep(pid_t pid, unsigned n_threads);

#endif
