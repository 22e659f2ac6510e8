/* SPDX-License-Identifier: MIT */
#include "tests/support/shared_steps.h"

#include <limits.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <ipc/error.h>

#include "tests/support/actor.h"
#include "tests/support/failure.h"
#include "tests/support/process.h"
#include "tests/support/step.h"

enum { N_WORDS = SHARED_STEPS_VALUE_SIZE / sizeof(uint32_t), LATE_MAX = 64, TRIES = 5 };

/* The value is N_WORDS times one of these.  NEVER is never written. */
enum { OLD = 1, NEW = 2, NEVER = 99 };

/* What the peer is told: a word to wait for, or the lock. */
enum { PEER_LOCK = -1 };

/* A slice is 100 ms.  A peer that waits for it is later than this three times of four. */
#define LATE_NS INT64_C(25000000)

struct scene {
	const struct shared_side *side;
	enum shared_scene_name name;
	bool in_place;
	struct actor peer;
	long late[LATE_MAX];
	unsigned n_late;
};

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static bool is_word(const void *value, size_t size, void *userdata)
{
	uint32_t word;

	(void)size;
	memcpy(&word, value, sizeof(word));
	return word == *(const uint32_t *)userdata;
}

static void fill(void *value, uint32_t word)
{
	volatile uint32_t *words = value;

	for (unsigned i = 0; i < N_WORDS; ++i)
		words[i] = word;
}

/* The word of the value; 0 if it is torn. */
static uint32_t word_of(const void *value)
{
	uint32_t words[N_WORDS];

	memcpy(words, value, sizeof(words));
	for (unsigned i = 1; i < N_WORDS; ++i) {
		if (words[i] != words[0])
			return 0;
	}
	return words[0];
}

static void must(int r, const char *what)
{
	if (r < 0)
		failure("%s: %s", what, ipc_error_name(r));
}

static void write_word(const struct shared_side *side, uint32_t word)
{
	void *copy;

	must(side->edit(&copy), "edit");
	fill(copy, word);
	must(side->commit(), "commit");
}

/*
 * With the lock held by result r: the value's word.  In place a death is made good first: the value
 * is OLD then.
 */
static uint32_t look(const struct scene *scene, int r, const void *value)
{
	void *memory;

	if (scene->in_place && r == 1) {
		must(scene->side->edit(&memory), "edit to repair");
		fill(memory, OLD);
		must(scene->side->mark_consistent(), "mark_consistent");
	}
	return word_of(value);
}

/* ---- the peer ---- */

static void peer_run(struct actor *self, void *arg)
{
	const struct scene *scene = arg;
	const void *value;

	scene->side->open(false, scene->in_place);
	actor_say(self, 0);

	for (;;) {
		int64_t told = actor_hear(self);
		uint32_t wanted = (uint32_t)told;
		int r;

		if (told == 0)
			return;

		r = told == PEER_LOCK ? scene->side->lock(&value)
				      : scene->side->lock_when(is_word, &wanted, &value);
		if (r >= 0) {
			if (look(scene, r, value) == 0)
				failure("the peer sees a torn value, result %d", r);
			must(scene->side->unlock(), "the peer's unlock");
		}
		actor_say(self, r);
	}
}

/* ---- the child ---- */

static void child_prepare(void *arg)
{
	struct scene *scene = arg;
	const struct shared_side *side = scene->side;
	const void *value;
	void *copy;
	int r;

	side->open(true, scene->in_place);

	if (scene->name == SHARED_COMMIT_CONTENDED || scene->name == SHARED_MARK_COMMIT) {
		r = side->lock(&value);
		if (r != (scene->name == SHARED_MARK_COMMIT))
			failure("the child's lock says %d", r);
		must(side->edit(&copy), "the child's edit");
		actor_say(&scene->peer, PEER_LOCK);
	} else if (scene->name == SHARED_LOCK_CONTENDED) {
		actor_say(&scene->peer, PEER_LOCK);
	} else {
		actor_say(&scene->peer, scene->name == SHARED_EDIT_COMMIT ? NEW : NEVER);
	}
	process_until_asleep(scene->peer.pid, 1);
}

/* Results are not looked at: they are for the check after the death. */
static void child_operation(void *arg)
{
	const struct scene *scene = arg;
	const struct shared_side *side = scene->side;
	uint32_t word = scene->name == SHARED_WHEN_HOLDS ? OLD : NEVER;
	const void *value;
	void *copy;
	int r = -1;

	switch (scene->name) {
	case SHARED_EDIT_COMMIT:
	case SHARED_EDIT_UNLOCK:
		r = side->lock(&value);
		r = r < 0 ? r : side->edit(&copy);
		if (r < 0)
			_exit(1);
		fill(copy, NEW);
		r = scene->name == SHARED_EDIT_COMMIT ? side->commit() : side->unlock();
		break;
	case SHARED_WHEN_HOLDS:
	case SHARED_WHEN_ASLEEP:
		r = side->lock_when(is_word, &word, &value);
		r = r < 0 ? r : side->unlock();
		break;
	case SHARED_LOCK_CONTENDED:
		r = side->lock(&value);
		break;
	case SHARED_MARK_COMMIT:
		r = side->mark_consistent();
		if (r < 0)
			_exit(1);
		/* fall through */
	case SHARED_COMMIT_CONTENDED:
		r = side->edit(&copy);
		if (r < 0)
			_exit(1);
		fill(copy, NEW);
		r = side->commit();
		break;
	}
	if (r < 0)
		_exit(1);
}

/* ---- the survivor ---- */

/* In place: leaves the value half-made, under a lock whose holder is dead. */
static void leave_dead_holder(const struct scene *scene)
{
	const struct shared_side *side = scene->side;
	const void *value;
	void *memory;
	pid_t pid;

	pid = process_fork();
	if (pid == 0) {
		side->open(true, scene->in_place);
		if (side->lock(&value) != 0 || side->edit(&memory) < 0)
			_exit(1);
		memcpy(memory, "torn", 4);
		_exit(0);
	}
	if (process_reap(pid, 20000) != 0)
		failure("the dead holder could not hold");
}

static void prepare_next(const struct scene *scene)
{
	const void *value;

	if (scene->side->next)
		scene->side->next();
	if (scene->name == SHARED_LOCK_CONTENDED)
		must(scene->side->lock(&value), "the test's lock");
	if (scene->name == SHARED_MARK_COMMIT)
		leave_dead_holder(scene);
}

static void check_peer(const struct scene *scene, long n, int r, uint32_t word)
{
	bool waits_for_lock = scene->name == SHARED_COMMIT_CONTENDED ||
			      scene->name == SHARED_LOCK_CONTENDED ||
			      scene->name == SHARED_MARK_COMMIT;

	if (scene->name == SHARED_LOCK_CONTENDED && r != 0)
		failure("%ld: the death of one that waited is told: %d", n, r);
	if (waits_for_lock && r < 0)
		failure("%ld: the peer's lock says %s", n, ipc_error_name(r));
	if (r < 0 && r != IPC_EOWNERDEAD)
		failure("%ld: the peer's wait ended with %s", n, ipc_error_name(r));

	if (scene->in_place || waits_for_lock)
		return;
	if (r >= 0 && word != NEW)
		failure("%ld: the peer's predicate held, and the value is %u", n, word);
	if (r < 0 && word != OLD)
		failure("%ld: a committed value was not delivered before the death", n);
}

static void check_value(const struct scene *scene, long n, uint32_t word)
{
	bool commits = scene->name == SHARED_EDIT_COMMIT ||
		       scene->name == SHARED_COMMIT_CONTENDED ||
		       scene->name == SHARED_MARK_COMMIT ||
		       (scene->in_place && scene->name == SHARED_EDIT_UNLOCK);

	if (word != OLD && !(commits && word == NEW))
		failure("%ld: the value is %u", n, word);
}

static void check(void *arg, long n)
{
	struct scene *scene = arg;
	const struct shared_side *side = scene->side;
	int64_t since = now_ns();
	const void *value;
	uint32_t word;
	int r, peer_r;

	if (side->died)
		side->died();
	if (scene->name == SHARED_LOCK_CONTENDED)
		must(side->unlock(), "the test's unlock");

	peer_r = (int)actor_hear(&scene->peer);
	if (now_ns() - since > LATE_NS && scene->n_late < LATE_MAX)
		scene->late[scene->n_late++] = n;

	r = side->lock(&value);
	must(r, "the survivor's lock");
	if (r == 1 && peer_r == 1)
		failure("%ld: a death was told twice", n);
	word = look(scene, r, value);
	if (word == 0)
		failure("%ld: the value is torn, result %d", n, r);
	check_value(scene, n, word);
	check_peer(scene, n, peer_r, word);

	write_word(side, NEW);
	r = side->lock(&value);
	if (r != 0 || word_of(value) != NEW)
		failure("%ld: the survivor cannot go on: %d, %u", n, r, word_of(value));
	write_word(side, OLD);
	prepare_next(scene);
}

/* A busy machine is late now and then, a lost wake at the same instruction nearly always. */
static void check_late(struct scene *scene, struct step_case *step)
{
	long late[LATE_MAX];
	unsigned n_late = scene->n_late;

	memcpy(late, scene->late, sizeof(late));
	step->stride = LONG_MAX / 2;

	for (unsigned i = 0; i < n_late; ++i) {
		unsigned tries = 0;

		step->first = late[i];
		do {
			if (tries++ == TRIES)
				failure("killed before instruction %ld of scene %d: the peer waits "
					"for its slice",
					late[i], (int)scene->name);
			scene->n_late = 0;
			step_run(step, scene);
		} while (scene->n_late && scene->late[0] == late[i]);
	}
}

long shared_steps_run(const struct shared_side *side, enum shared_scene_name name, bool in_place,
		      long stride)
{
	struct scene scene = {.side = side, .name = name, .in_place = in_place};
	struct step_case step = {
		.prepare = child_prepare,
		.operation = child_operation,
		.check = check,
		.first = stride > 1 ? getpid() % stride : 0,
		.stride = stride,
	};
	const void *value;
	long n_points;

	side->open(false, in_place);
	must(side->lock(&value), "the first lock");
	write_word(side, OLD);

	actor_start(&scene.peer, peer_run, &scene);
	if (actor_hear(&scene.peer) != 0)
		failure("the peer does not start");

	prepare_next(&scene);
	n_points = step_run(&step, &scene);
	check_late(&scene, &step);

	/* The lock that the last point prepared. */
	if (name == SHARED_LOCK_CONTENDED)
		must(side->unlock(), "the last unlock");
	actor_say(&scene.peer, 0);
	if (actor_join(&scene.peer) != 0)
		failure("the peer did not end well");
	return n_points;
}
