/* SPDX-License-Identifier: MIT */
#include "libipc/client/thread.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ipc/error.h>

#include "tests/support/process.h"

/* What is entered: freed memory would show under the address sanitizer. */
struct object {
	struct thread_object object;
	_Atomic unsigned *n_freed;
};

static _Atomic unsigned n_freed;
static uint32_t epoch;

static void nothing(void)
{
}

static void init(void)
{
	cr_assert_eq(thread_process_init(&epoch, nothing), 0);
}

static void object_free(struct thread_object *object)
{
	atomic_fetch_add(((struct object *)object)->n_freed, 1);
	free(object);
}

static struct object *object_new(void)
{
	struct object *object = calloc(1, sizeof(*object));

	cr_assert_not_null(object);
	object->object.address = object;
	object->object.free = object_free;
	object->n_freed = &n_freed;
	return object;
}

/* A pair of steps between two threads. */
static pthread_barrier_t barrier;

Test(thread, object_without_visitors_is_freed_at_once, .init = init, .timeout = 60)
{
	thread_retire(&object_new()->object);

	cr_assert_eq(atomic_load(&n_freed), 1);
	cr_assert_eq(atomic_load(&thread_n_retired), 0);
}

static void *stay_inside(void *arg)
{
	if (thread_enter(arg, epoch) != 0)
		return arg;
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	thread_leave();
	return NULL;
}

/* M-44 */
Test(thread, object_is_freed_by_the_thread_that_leaves_last, .init = init, .timeout = 60)
{
	struct object *object = object_new();
	pthread_t threads[2];
	void *result;

	pthread_barrier_init(&barrier, NULL, 3);
	for (unsigned i = 0; i < 2; ++i)
		pthread_create(&threads[i], NULL, stay_inside, object);
	pthread_barrier_wait(&barrier);

	thread_retire(&object->object);
	cr_assert_eq(atomic_load(&n_freed), 0);

	pthread_barrier_wait(&barrier);
	for (unsigned i = 0; i < 2; ++i) {
		pthread_join(threads[i], &result);
		cr_assert_null(result);
	}
	cr_assert_eq(atomic_load(&n_freed), 1);
}

/* ---- of many at once ---- */

struct crowd {
	const void *objects[THREAD_CROWD_MAX];
	unsigned n;
};

static void *stay_inside_crowd(void *arg)
{
	const struct crowd *crowd = arg;

	if (thread_enter_crowd(crowd->objects, crowd->n, epoch) != 0)
		return arg;
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	thread_leave();
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	return NULL;
}

/* Those it is inside of are freed when it leaves, others at once; its list is of use again. */
static void assert_crowd_keeps_its_objects(unsigned n)
{
	struct crowd crowd = {.n = n};
	unsigned n_before = atomic_load(&n_freed);
	pthread_t thread;
	void *result;

	for (unsigned i = 0; i < n; ++i)
		crowd.objects[i] = object_new();
	pthread_barrier_init(&barrier, NULL, 2);
	pthread_create(&thread, NULL, stay_inside_crowd, &crowd);
	pthread_barrier_wait(&barrier);

	thread_retire(&object_new()->object);
	cr_assert_eq(atomic_load(&n_freed), n_before + 1);
	for (unsigned i = 0; i < n; ++i)
		thread_retire(&((struct object *)(uintptr_t)crowd.objects[i])->object);
	cr_assert_eq(atomic_load(&n_freed), n_before + 1, "%u", n);

	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	cr_assert_eq(atomic_load(&n_freed), n_before + 1 + n, "by the thread that left");
	pthread_barrier_wait(&barrier);
	pthread_join(thread, &result);
	cr_assert_null(result);
}

/* M-44 */
Test(thread, crowd_keeps_each_of_its_objects, .init = init, .timeout = 60)
{
	assert_crowd_keeps_its_objects(1);
	assert_crowd_keeps_its_objects(2);
	assert_crowd_keeps_its_objects(THREAD_CROWD_MAX);
}

Test(thread, crowd_that_was_left_keeps_nothing, .init = init, .timeout = 60)
{
	struct object *objects[4] = {object_new(), object_new(), object_new(), object_new()};

	cr_assert_eq(thread_enter_crowd((const void *const *)objects, 4, epoch), 0);
	thread_leave();
	thread_retire(&objects[3]->object);
	cr_assert_eq(atomic_load(&n_freed), 1);

	/* A smaller one, by the same list. */
	cr_assert_eq(thread_enter_crowd((const void *const *)objects, 2, epoch), 0);
	for (unsigned i = 0; i < 3; ++i)
		thread_retire(&objects[i]->object);
	cr_assert_eq(atomic_load(&n_freed), 2, "it is inside of the first two");
	thread_leave();
	cr_assert_eq(atomic_load(&n_freed), 4);
}

/* Inside of others, and where no place in the record is left. */
Test(thread, crowd_may_be_entered_inside_of_other_calls, .init = init, .timeout = 60)
{
	struct object *outer[THREAD_DEPTH_MAX], *inner[2];

	for (unsigned n_outer = 1; n_outer <= THREAD_DEPTH_MAX; ++n_outer) {
		unsigned n_before = atomic_load(&n_freed);

		for (unsigned i = 0; i < n_outer; ++i) {
			outer[i] = object_new();
			cr_assert_eq(thread_enter(outer[i], epoch), 0);
		}
		inner[0] = object_new();
		inner[1] = object_new();
		cr_assert_eq(thread_enter_crowd((const void *const *)inner, 2, epoch), 0);
		for (unsigned i = 0; i < n_outer; ++i)
			thread_retire(&outer[i]->object);
		thread_retire(&inner[0]->object);
		thread_retire(&inner[1]->object);
		cr_assert_eq(atomic_load(&n_freed), n_before);

		thread_leave();
		for (unsigned i = 0; i < n_outer; ++i)
			thread_leave();
		cr_assert_eq(atomic_load(&n_freed), n_before + n_outer + 2);
	}
}

Test(thread, crowd_is_refused_in_a_callback_and_to_strangers, .init = init, .timeout = 60)
{
	struct object *objects[2] = {object_new(), object_new()};

	thread_callback_begin();
	cr_assert_eq(thread_enter_crowd((const void *const *)objects, 2, epoch), IPC_EDEADLK);
	thread_callback_end();
	cr_assert_eq(thread_enter_crowd((const void *const *)objects, 2, epoch + 1), IPC_ECHILD);

	thread_retire(&objects[0]->object);
	thread_retire(&objects[1]->object);
	cr_assert_eq(atomic_load(&n_freed), 2, "a refusal enters nothing");
}

static void *end_inside(void *arg)
{
	(void)!thread_enter(arg, epoch);
	return NULL;
}

Test(thread, thread_that_ended_is_inside_of_nothing, .init = init, .timeout = 60)
{
	struct object *object = object_new();
	pthread_t thread;

	pthread_create(&thread, NULL, end_inside, object);
	pthread_join(thread, NULL);

	thread_retire(&object->object);

	cr_assert_eq(atomic_load(&n_freed), 1);
}

/* Deeper than a record has places. */
Test(thread, nested_calls_keep_each_of_their_objects, .init = init, .timeout = 60)
{
	enum { DEPTH = THREAD_DEPTH_MAX + 3 };
	struct object *objects[DEPTH];

	for (unsigned i = 0; i < DEPTH; ++i) {
		objects[i] = object_new();
		cr_assert_eq(thread_enter(objects[i], epoch), 0);
	}
	for (unsigned i = 0; i < DEPTH; ++i)
		thread_retire(&objects[i]->object);
	cr_assert_eq(atomic_load(&n_freed), 0);

	for (unsigned i = 0; i < DEPTH; ++i) {
		cr_assert_leq(atomic_load(&n_freed), i);
		thread_leave();
	}
	cr_assert_eq(atomic_load(&n_freed), DEPTH);

	/* And the thread is as it was before. */
	cr_assert_eq(thread_self->ready, epoch);
}

/* M-42 */
Test(thread, callback_may_not_enter, .init = init, .timeout = 60)
{
	int object = 0;

	thread_callback_begin();
	cr_assert_eq(thread_enter(&object, epoch), IPC_EDEADLK);
	thread_callback_end();
	cr_assert_eq(thread_enter(&object, epoch), 0);

	thread_callback_begin();
	cr_assert(thread_in_callback());
	cr_assert_eq(thread_enter(&object, epoch), IPC_EDEADLK);
	thread_callback_end();
	thread_leave();
	cr_assert_eq(thread_enter(&object, epoch), 0);
	thread_leave();
}

Test(thread, visitor_without_a_record_holds_everything_back, .init = init, .timeout = 60)
{
	thread_visit();
	thread_retire(&object_new()->object);
	cr_assert_eq(atomic_load(&n_freed), 0);
	thread_visit_end();

	/* The next call of anybody frees it. */
	cr_assert_eq(thread_enter(&epoch, epoch), 0);
	thread_leave();
	cr_assert_eq(atomic_load(&n_freed), 1);
}

/* M-42 */
Test(thread, forked_child_is_another_process_and_may_begin_anew, .init = init, .timeout = 60)
{
	struct object *object = object_new();
	uint32_t child_epoch = epoch;
	pid_t pid;

	/* A record of its own, and one that is inside. */
	cr_assert_eq(thread_enter(object, epoch), 0);
	pid = process_fork();
	if (pid == 0) {
		bool good = thread_is_foreign(epoch) && thread_enter(object, epoch) == IPC_ECHILD;

		thread_leave();
		good = good && thread_enter(object, epoch) == IPC_ECHILD;
		good = good && thread_process_init(&child_epoch, nothing) == 0 &&
		       child_epoch != epoch;
		good = good && thread_enter(object, epoch) == IPC_ECHILD &&
		       thread_enter(object, child_epoch) == 0;
		thread_retire(&object->object);
		good = good && atomic_load(&n_freed) == 0;
		thread_leave();
		good = good && atomic_load(&n_freed) == 1;
		process_end(good ? 0 : 1);
	}

	cr_assert_eq(process_reap(pid, 30000), 0);
	cr_assert_not(thread_is_foreign(epoch));
	thread_leave();
	free(object);
}

/* M-42 */
Test(thread, child_forked_past_the_c_library_gets_nothing, .init = init, .timeout = 60)
{
	uint32_t child_epoch;
	int object = 0, status;
	pid_t pid;

	cr_assert_eq(thread_enter(&object, epoch), 0);
	pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (pid == 0) {
		bool good = thread_is_foreign(epoch) && thread_enter(&object, epoch) == IPC_ECHILD;

		thread_leave();
		good = good && thread_enter(&object, epoch) == IPC_ECHILD;
		good = good && thread_process_init(&child_epoch, nothing) == IPC_ECHILD;
		_exit(good ? 0 : 1);
	}

	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
	thread_leave();
}

/* ---- close while others are inside, many times ---- */

enum { ROUNDS = 20000 };

static _Atomic(struct object *) shared_object;
static _Atomic unsigned n_errors;

/* Enters whatever is there; the pointer is read again inside, so that entering one that was just
 * closed is noticed and not done. */
static void *visit_often(void *arg)
{
	(void)arg;
	for (;;) {
		struct object *object = atomic_load(&shared_object);

		if (!object)
			return NULL;
		if (thread_enter(object, epoch) != 0)
			atomic_fetch_add(&n_errors, 1);
		atomic_thread_fence(memory_order_seq_cst);
		if (atomic_load(&shared_object) == object && object->n_freed != &n_freed)
			atomic_fetch_add(&n_errors, 1);
		thread_leave();
	}
}

/* M-44 */
Test(thread, objects_change_under_two_readers, .init = init, .timeout = 60)
{
	pthread_t threads[2];

	atomic_store(&shared_object, object_new());
	for (unsigned i = 0; i < 2; ++i)
		pthread_create(&threads[i], NULL, visit_often, NULL);

	for (unsigned i = 0; i < ROUNDS; ++i) {
		struct object *next = i + 1 < ROUNDS ? object_new() : NULL;

		thread_retire(&atomic_exchange(&shared_object, next)->object);
	}
	for (unsigned i = 0; i < 2; ++i)
		pthread_join(threads[i], NULL);

	cr_assert_eq(atomic_load(&n_errors), 0);
	cr_assert_eq(atomic_load(&n_freed), ROUNDS);
	cr_assert_eq(atomic_load(&thread_n_retired), 0);
}
