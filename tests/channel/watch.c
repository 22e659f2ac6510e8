/* SPDX-License-Identifier: MIT */
/*
 * The structure of `watch` on one mapping, without a broker: threads and forked processes play
 * producers and consumers.
 */
#include "libipc/channel/watch.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ipc/admin.h>
#include <ipc/limits.h>

#include "libipc/platform/clock.h"

/* What all processes of a test share besides the segment. */
struct scene {
	struct eventcount lines[2];
	_Alignas(64) _Atomic uint32_t attention;
	_Alignas(64) _Atomic uint32_t n_ready;
	_Atomic uint64_t n_published;
};

static const uint64_t shape[4] = {256, 4};
static struct scene *scene;
static void *segment;
static uint64_t segment_size;
static struct watch watch;
static _Atomic uint32_t cancel_word, handle_cancelled, client_cancelled;

static void *shared_memory(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(memory, MAP_FAILED);
	return memory;
}

static void setup(void)
{
	segment_size = (watch_size(shape) + 4095) & ~UINT64_C(4095);
	scene = shared_memory(sizeof(*scene));
	segment = shared_memory(segment_size);
	eventcount_init(&scene->lines[0]);
	eventcount_init(&scene->lines[1]);
	memset(segment, 0x5a, segment_size); /* a dead creator's leftovers */
	cr_assert_eq(watch_make(segment, segment_size, shape, 0), 0);
	cr_assert_eq(watch_attach(&watch, segment, segment_size, shape, scene->lines), 0);
}

static void teardown(void)
{
	munmap(segment, segment_size);
	munmap(scene, sizeof(*scene));
}

static struct waiter waiter_until(uint64_t deadline_ns)
{
	return (struct waiter){
		.event = &scene->lines[WATCH_CONSUMERS],
		.attention = &scene->attention,
		.cancel_word = &cancel_word,
		.handle_cancelled = &handle_cancelled,
		.client_cancelled = &client_cancelled,
		.deadline_ns = deadline_ns,
	};
}

static int edit_until(uint64_t deadline_ns, uint64_t holder_id, struct value_edit *edit,
		      uint64_t *size)
{
	struct waiter waiter = waiter_until(deadline_ns);

	return watch_edit_wait(&watch, &waiter, holder_id, edit, size);
}

static int publish_until(uint64_t deadline_ns, const void *data, size_t size)
{
	struct waiter waiter = waiter_until(deadline_ns);

	return watch_publish_wait(&watch, &waiter, data, size);
}

static uint64_t read_number(uint64_t *ret_version)
{
	uint64_t number = 0, size = 0;

	cr_assert_eq(watch_read(&watch, 0, &number, sizeof(number), &size, ret_version), 0);
	cr_assert_eq(size, sizeof(number));
	return number;
}

static pid_t spawn(void (*fn)(void))
{
	pid_t pid = fork();

	cr_assert_geq(pid, 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fn();
		_exit(0);
	}
	return pid;
}

static int join(pid_t pid)
{
	int status;

	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void ready(void)
{
	atomic_fetch_add(&scene->n_ready, 1);
	futex_wake_all(&scene->n_ready);
}

static void until_ready(uint32_t n)
{
	uint64_t limit = clock_after_ns(30 * NS_PER_S);

	for (uint32_t now = atomic_load(&scene->n_ready); now < n;
	     now = atomic_load(&scene->n_ready)) {
		struct futex_word word = {.word = &scene->n_ready, .expected = now};

		cr_assert_lt(clock_now_ns(), limit, "only %u of %u became ready", now, n);
		futex_sleep(&word, 1, limit);
	}
}

/* ---- size, make, attach ---- */

/* M-76 */
Test(watch, shapes_that_cannot_be_have_no_size, .timeout = 60)
{
	const uint64_t largest[4] = {IPC_VALUE_SIZE_MAX, 1},
		       larger[4] = {IPC_VALUE_SIZE_MAX + 1, 1};
	const uint64_t none[4] = {0, 1}, nobody[4] = {1, 0}, absurd[4] = {UINT64_MAX, 1};

	cr_assert_geq(watch_size(largest), 3 * IPC_VALUE_SIZE_MAX);
	cr_assert_eq(watch_size(larger), 0);
	cr_assert_eq(watch_size(none), 0);
	cr_assert_eq(watch_size(nobody), 0);
	cr_assert_eq(watch_size(absurd), 0);
	cr_assert_eq(watch_make(NULL, 4096, larger, 0), IPC_EINVAL);
}

/* M-71 */
Test(watch, values_are_aligned_to_64, .init = setup, .fini = teardown, .timeout = 60)
{
	struct value_edit edit;
	uint64_t size;

	for (unsigned i = 0; i < 2 * watch_n_slots(shape[0]); ++i) {
		cr_assert_eq(edit_until(CLOCK_FOREVER, 7, &edit, &size), 0);
		cr_assert_eq((uintptr_t)value_data(&watch.value, &edit) & 63, 0);
		cr_assert_eq(watch_commit(&watch, &edit, shape[0]), 0);
	}
}

/* M-62, M-60 */
Test(watch, attach_refuses_what_is_not_such_a_segment, .init = setup, .fini = teardown,
     .timeout = 60)
{
	const uint64_t other[4] = {257, 4};
	struct channel_header *header = segment;
	struct watch view;

	cr_assert_eq(watch_attach(&view, segment, segment_size, other, scene->lines), IPC_EBADMSG);
	cr_assert_eq(watch_attach(&view, segment, watch_size(shape) - 1, shape, scene->lines),
		     IPC_EBADMSG);
	cr_assert_eq(watch_attach(&view, segment, 8, shape, scene->lines), IPC_EBADMSG);

	header->kind = IPC_KIND_SHARED;
	cr_assert_eq(watch_attach(&view, segment, segment_size, shape, scene->lines), IPC_EBADMSG);
	header->kind = IPC_KIND_WATCH;
	header->version++;
	cr_assert_eq(watch_attach(&view, segment, segment_size, shape, scene->lines),
		     IPC_EPROTONOSUPPORT);
	header->version--;
	header->lock_stamp ^= 1;
	cr_assert_eq(watch_attach(&view, segment, segment_size, shape, scene->lines),
		     IPC_EPROTONOSUPPORT);
	header->lock_stamp ^= 1;
	header->magic = 0;
	cr_assert_eq(watch_attach(&view, segment, segment_size, shape, scene->lines), IPC_EBADMSG);
}

/* W-9: a consumer stores nothing, so it works on memory that it cannot write. */
Test(watch, reading_needs_no_right_to_write, .init = setup, .fini = teardown, .timeout = 60)
{
	uint64_t number = 42, version = 0;

	cr_assert_eq(watch_publish(&watch, &number, sizeof(number)), 0);
	cr_assert_eq(mprotect(segment, segment_size, PROT_READ), 0);

	cr_assert_eq(watch_attach(&watch, segment, segment_size, shape, scene->lines), 0);
	cr_assert_eq(read_number(&version), 42);
	cr_assert_eq(version, 1);
	cr_assert_eq(watch_end(&watch), 0);
}

/* ---- publish ---- */

/* W-1, M-76 */
Test(watch, value_of_the_largest_size_and_one_more, .init = setup, .fini = teardown, .timeout = 60)
{
	unsigned char data[257], copy[257];
	uint64_t size, version;

	memset(data, 0x77, sizeof(data));
	cr_assert_eq(watch_publish(&watch, data, 256), 0);
	cr_assert_eq(watch_read(&watch, 0, copy, sizeof(copy), &size, &version), 0);
	cr_assert_eq(size, 256);
	cr_assert_arr_eq(copy, data, 256);

	cr_assert_eq(watch_publish(&watch, data, 257), IPC_EMSGSIZE);
	cr_assert_eq(publish_until(CLOCK_FOREVER, data, 257), IPC_EMSGSIZE);
	cr_assert_eq(value_version(&watch.value), 1);
}

/* W-11, W-12 */
Test(watch, the_editing_thread_cannot_publish_or_edit_beside_its_edit, .init = setup,
     .fini = teardown, .timeout = 60)
{
	struct value_edit edit, second;
	uint64_t number = 1, size;

	cr_assert_eq(edit_until(CLOCK_FOREVER, 7, &edit, &size), 0);

	cr_assert_eq(watch_publish(&watch, &number, 8), IPC_EBUSY);
	cr_assert_eq(publish_until(CLOCK_FOREVER, &number, 8), IPC_EDEADLK);
	cr_assert_eq(edit_until(CLOCK_FOREVER, 7, &second, &size), IPC_EDEADLK);
	cr_assert_eq(edit_until(CLOCK_FOREVER, 8, &second, &size), IPC_EDEADLK);

	cr_assert_eq(watch_commit(&watch, &edit, 257), IPC_EMSGSIZE);
	cr_assert(watch_is_editing(&watch, 7));
	cr_assert(!watch_is_editing(&watch, 8));
	cr_assert_eq(watch_commit(&watch, &edit, 8), 0);
	cr_assert(!watch_is_editing(&watch, 7));
	cr_assert_eq(watch_publish(&watch, &number, 8), 0);
}

static void *publish_beside(void *arg)
{
	uint64_t number = 2;
	intptr_t r;

	(void)arg;
	r = watch_publish(&watch, &number, sizeof(number));
	if (r == IPC_EBUSY)
		r = publish_until(clock_after_ns(NS_PER_MS), &number, sizeof(number));
	return (void *)r;
}

/* W-11 */
Test(watch, open_edit_of_another_thread_keeps_publishers_out, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct value_edit edit;
	pthread_t thread;
	uint64_t size;
	void *r;

	cr_assert_eq(edit_until(CLOCK_FOREVER, 7, &edit, &size), 0);
	cr_assert_eq(pthread_create(&thread, NULL, publish_beside, NULL), 0);
	pthread_join(thread, &r);
	cr_assert_eq((intptr_t)r, IPC_ETIMEDOUT);

	watch_abort(&watch);
	cr_assert_eq(pthread_create(&thread, NULL, publish_beside, NULL), 0);
	pthread_join(thread, &r);
	cr_assert_eq((intptr_t)r, 0);
}

/* W-13: the copy is of the latest value, and nobody sees it change before the commit. */
Test(watch, edit_is_invisible_until_the_commit_and_gone_after_the_abort, .init = setup,
     .fini = teardown, .timeout = 60)
{
	uint64_t number = 5, size = 0, version, *copy;
	struct value_edit edit;

	cr_assert_eq(watch_publish(&watch, &number, sizeof(number)), 0);

	cr_assert_eq(edit_until(CLOCK_FOREVER, 7, &edit, &size), 0);
	copy = value_data(&watch.value, &edit);
	cr_assert_eq(size, 8);
	cr_assert_eq(*copy, 5);
	*copy = 6;
	cr_assert_eq(read_number(&version), 5);
	watch_abort(&watch);
	cr_assert_eq(read_number(&version), 5);
	cr_assert_eq(version, 1);

	cr_assert_eq(edit_until(CLOCK_FOREVER, 7, &edit, &size), 0);
	copy = value_data(&watch.value, &edit);
	cr_assert_eq(*copy, 5, "an aborted edit came back");
	*copy = 7;
	cr_assert_eq(watch_commit(&watch, &edit, size), 0);
	cr_assert_eq(read_number(&version), 7);
	cr_assert_eq(version, 2);
}

/* W-4 */
Test(watch, only_publish_and_commit_wake, .init = setup, .fini = teardown, .timeout = 60)
{
	uint64_t number = 5, size, version;
	struct value_edit edit;
	uint32_t word, producers_word;

	word = eventcount_announce(&scene->lines[WATCH_CONSUMERS]);
	cr_assert_eq(edit_until(CLOCK_FOREVER, 7, &edit, &size), 0);
	watch_abort(&watch);
	(void)watch_read(&watch, 0, &number, sizeof(number), &size, &version);
	cr_assert_eq(atomic_load(&scene->lines[WATCH_CONSUMERS].word), word,
		     "edit, abort or read woke");

	cr_assert_eq(watch_publish(&watch, &number, sizeof(number)), 0);
	cr_assert_neq(atomic_load(&scene->lines[WATCH_CONSUMERS].word), word,
		      "publish did not wake");

	word = eventcount_announce(&scene->lines[WATCH_CONSUMERS]);
	cr_assert_eq(edit_until(CLOCK_FOREVER, 7, &edit, &size), 0);
	cr_assert_eq(atomic_load(&scene->lines[WATCH_CONSUMERS].word), word);
	cr_assert_eq(watch_commit(&watch, &edit, size), 0);
	cr_assert_neq(atomic_load(&scene->lines[WATCH_CONSUMERS].word), word,
		      "commit did not wake");

	word = eventcount_announce(&scene->lines[WATCH_CONSUMERS]);
	producers_word = eventcount_announce(&scene->lines[WATCH_PRODUCERS]);
	watch_shutdown(&watch);
	cr_assert_neq(atomic_load(&scene->lines[WATCH_CONSUMERS].word), word,
		      "shutdown did not wake");
	cr_assert_neq(atomic_load(&scene->lines[WATCH_PRODUCERS].word), producers_word,
		      "shutdown did not wake producers");
}

/* W-10: with nobody asleep the event word is not even written. */
Test(watch, publish_without_sleepers_leaves_the_event_alone, .init = setup, .fini = teardown,
     .timeout = 60)
{
	uint64_t number = 5;

	cr_assert_eq(watch_publish(&watch, &number, sizeof(number)), 0);
	cr_assert_eq(atomic_load(&scene->lines[WATCH_CONSUMERS].word), 0);
	cr_assert_eq(atomic_load(&scene->lines[WATCH_CONSUMERS].notifier_cpu),
		     (uint32_t)sched_getcpu());
}

/* ---- deaths ---- */

static void die_in_edit(void)
{
	struct value_edit edit;
	uint64_t size;

	if (edit_until(CLOCK_FOREVER, 7, &edit, &size) < 0)
		_exit(1);
	memset(value_data(&watch.value, &edit), 0xdd, shape[0]);
	ready();
	for (;;)
		pause();
}

/* W-3 */
Test(watch, edit_of_a_killed_producer_is_dropped_and_the_next_publishes_at_once, .init = setup,
     .fini = teardown, .timeout = 60)
{
	uint64_t number = 5, version;
	pid_t pid;

	cr_assert_eq(watch_publish(&watch, &number, sizeof(number)), 0);
	pid = spawn(die_in_edit);
	until_ready(1);
	cr_assert_eq(watch.segment->header.holder_id, 7);
	cr_assert_eq(watch_publish(&watch, &number, sizeof(number)), IPC_EBUSY);

	kill(pid, SIGKILL);
	join(pid);

	cr_assert_eq(read_number(&version), 5);
	number = 6;
	cr_assert_eq(watch_publish(&watch, &number, sizeof(number)), 0);
	cr_assert_eq(read_number(&version), 6);
	cr_assert_eq(version, 2);
	cr_assert_eq(watch.segment->header.holder_id, 0, "the dead edit is still shown");
}

static void edit_and_commit(void)
{
	uint64_t number = 9, size;
	struct value_edit edit;

	ready();
	if (edit_until(clock_after_ns(15 * NS_PER_S), 8, &edit, &size) < 0)
		_exit(1);
	memcpy(value_data(&watch.value, &edit), &number, sizeof(number));
	if (watch_commit(&watch, &edit, sizeof(number)) < 0)
		_exit(2);
}

/* W-3, M-25 */
Test(watch, waiting_editor_gets_the_lock_of_a_killed_one, .init = setup, .fini = teardown,
     .timeout = 60)
{
	pid_t holder, next;
	uint64_t version;

	holder = spawn(die_in_edit);
	until_ready(1);
	next = spawn(edit_and_commit);
	until_ready(2);

	kill(holder, SIGKILL);
	join(holder);

	cr_assert_eq(join(next), 0);
	cr_assert_eq(read_number(&version), 9);
	cr_assert_eq(version, 1);
}

static void *end_in_edit(void *arg)
{
	struct value_edit edit;
	uint64_t size;

	(void)arg;
	return (void *)(intptr_t)edit_until(CLOCK_FOREVER, 7, &edit, &size);
}

/* M-42: a thread that ends holding a lock counts as dead for it. */
Test(watch, edit_of_a_thread_that_ended_is_dropped, .init = setup, .fini = teardown, .timeout = 60)
{
	uint64_t number = 5;
	pthread_t thread;
	void *r;

	cr_assert_eq(pthread_create(&thread, NULL, end_in_edit, NULL), 0);
	pthread_join(thread, &r);
	cr_assert_eq((intptr_t)r, 0);

	cr_assert_eq(publish_until(clock_after_ns(30 * NS_PER_S), &number, sizeof(number)), 0);
	cr_assert(!watch_is_editing(&watch, 7));
}

/* ---- shutdown ---- */

/* W-16 */
Test(watch, after_a_shutdown_nothing_is_published_and_the_value_stays, .init = setup,
     .fini = teardown, .timeout = 60)
{
	uint64_t number = 5, size, version;
	struct value_edit edit;

	cr_assert_eq(watch_publish(&watch, &number, sizeof(number)), 0);
	cr_assert_eq(edit_until(CLOCK_FOREVER, 7, &edit, &size), 0);

	watch_shutdown(&watch);

	cr_assert_eq(watch_end(&watch), IPC_EPIPE);
	cr_assert_eq(watch_commit(&watch, &edit, 8), IPC_EPIPE);
	cr_assert(watch_is_editing(&watch, 7), "a refused commit dropped the edit");
	watch_abort(&watch);
	cr_assert_eq(watch_publish(&watch, &number, 8), IPC_EPIPE);
	cr_assert_eq(publish_until(CLOCK_FOREVER, &number, 8), IPC_EPIPE);
	cr_assert_eq(edit_until(CLOCK_FOREVER, 7, &edit, &size), IPC_EPIPE);
	cr_assert_eq(read_number(&version), 5);
	cr_assert_eq(atomic_load(&watch.segment->header.is_shut_down), 1);
}

static void edit_until_shutdown(void)
{
	struct value_edit edit;
	uint64_t size;

	ready();
	_exit(edit_until(clock_after_ns(15 * NS_PER_S), 8, &edit, &size) == IPC_EPIPE ? 0 : 1);
}

/* M-33 */
Test(watch, shutdown_ends_every_wait_for_the_lock, .init = setup, .fini = teardown, .timeout = 60)
{
	struct value_edit edit;
	pid_t waiting[4];
	uint64_t size;

	cr_assert_eq(edit_until(CLOCK_FOREVER, 7, &edit, &size), 0);
	for (unsigned i = 0; i < 4; ++i)
		waiting[i] = spawn(edit_until_shutdown);
	until_ready(4);

	watch_shutdown(&watch);

	for (unsigned i = 0; i < 4; ++i)
		cr_assert_eq(join(waiting[i]), 0);
	watch_abort(&watch);
}

/* ---- damage ---- */

/* M-61 */
Test(watch, overwritten_lock_breaks_the_channel_for_everybody, .init = setup, .fini = teardown,
     .timeout = 60)
{
	uint64_t number = 5, size, version;
	struct value_edit edit;
	struct lock saved;
	uint32_t word;

	cr_assert_eq(watch_publish(&watch, &number, sizeof(number)), 0);
	saved = watch.segment->lock;
	memset(&watch.segment->lock, 0xff, sizeof(struct lock));
	word = eventcount_announce(&scene->lines[WATCH_CONSUMERS]);

	cr_assert_eq(edit_until(CLOCK_FOREVER, 7, &edit, &size), IPC_EBADMSG);

	cr_assert_neq(atomic_load(&scene->lines[WATCH_CONSUMERS].word), word,
		      "waiting consumers were not told");
	watch.segment->lock = saved;
	cr_assert_eq(watch_publish(&watch, &number, sizeof(number)), IPC_EBADMSG,
		     "a broken channel was whole again");
	cr_assert_eq(publish_until(CLOCK_FOREVER, &number, sizeof(number)), IPC_EBADMSG);
	cr_assert_eq(edit_until(CLOCK_FOREVER, 7, &edit, &size), IPC_EBADMSG);
	cr_assert_eq(watch_read(&watch, 0, &number, sizeof(number), &size, &version), IPC_EBADMSG);
	cr_assert_eq(watch_end(&watch), IPC_EBADMSG);
	cr_assert_eq(lock_is_mine(&watch.segment->lock), 0, "a refused call kept the lock");
}

/* M-60, M-61: what consumers call broken is not covered up by the next publish. */
Test(watch, overwritten_value_breaks_the_channel_for_everybody, .init = setup, .fini = teardown,
     .timeout = 60)
{
	uint64_t number = 5, size, version;

	cr_assert_eq(watch_publish(&watch, &number, sizeof(number)), 0);
	atomic_store(&watch.segment->control.latest, UINT64_C(99) << 8 | 2);

	cr_assert_eq(watch_read(&watch, 0, &number, sizeof(number), &size, &version), IPC_EBADMSG);
	cr_assert_eq(watch_publish(&watch, &number, sizeof(number)), IPC_EBADMSG);
	cr_assert_eq(watch_publish(&watch, &number, sizeof(number)), IPC_EBADMSG);
	cr_assert_eq(watch_read(&watch, 0, &number, sizeof(number), &size, &version), IPC_EBADMSG);
}

/* ---- several producers ---- */

enum { PRODUCERS = 3, PUBLISHES = 20000 };

static void publish_many(void)
{
	uint64_t words[4], n_done = 0;

	for (uint64_t i = 1; i <= PUBLISHES; ++i) {
		int r;

		for (unsigned k = 0; k < 4; ++k)
			words[k] = i * 1000 + (uint64_t)getpid() % 1000;
		r = i % 2 ? watch_publish(&watch, words, sizeof(words))
			  : publish_until(CLOCK_FOREVER, words, sizeof(words));
		if (r == 0)
			++n_done;
		else if (r != IPC_EBUSY)
			_exit(1);
	}
	atomic_fetch_add(&scene->n_published, n_done);
}

/* W-3: each accepted publish is one version, and none is torn by another. */
Test(watch, producers_exclude_each_other, .init = setup, .fini = teardown, .timeout = 60)
{
	uint64_t words[4], size, version = 0, last = 0;
	pid_t pids[PRODUCERS];

	for (unsigned i = 0; i < PRODUCERS; ++i)
		pids[i] = spawn(publish_many);

	while (version < PRODUCERS * PUBLISHES / 2) {
		int r = watch_read(&watch, last, words, sizeof(words), &size, &version);

		if (r == IPC_EAGAIN)
			continue;
		cr_assert_eq(r, 0);
		cr_assert_gt(version, last);
		last = version;
		for (unsigned k = 1; k < 4; ++k)
			cr_assert_eq(words[k], words[0], "torn between producers");
	}

	for (unsigned i = 0; i < PRODUCERS; ++i)
		cr_assert_eq(join(pids[i]), 0);
	cr_assert_eq(value_version(&watch.value), atomic_load(&scene->n_published));
}
