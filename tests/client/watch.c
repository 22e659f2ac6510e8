/* SPDX-License-Identifier: MIT */
/*
 * watch through the public interface, with a broker: values, versions, edits, weak producers.  How
 * waits end is in watch_ends.c.
 */
#include <errno.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/client/watch_scene.h"

#include "libipc/channel/watch.h"
#include "libipc/client/endpoint.h"

/* ---- values and versions ---- */

/* W-1, W-15: no producer was there yet, so nobody is missing */
Test(watch, nothing_published_yet_is_eagain, SCENE)
{
	ipc_watch_consumer *consumer = open_consumer(client, IPC_CREATE);
	struct payload value = value_of(7);
	uint64_t version = 0;
	size_t size = 99;

	cr_assert_eq(ipc_watch_read(consumer, &value, sizeof(value), &size, &version), IPC_EAGAIN);
	cr_assert_eq(ipc_watch_read_next(consumer, &value, sizeof(value), &size, &version),
		     IPC_EAGAIN);

	cr_assert_eq(size, 99);
	cr_assert_eq(version, 0);
	cr_assert_eq(number_of(&value), 7);
	ipc_watch_consumer_close(consumer);
}

/* W-1 */
Test(watch, versions_count_from_1_and_come_with_their_values, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
	ipc_watch_consumer *consumer = open_consumer(client, 0);
	uint64_t version = 0;

	for (uint64_t i = 1; i <= 20; ++i) {
		struct payload value;

		cr_assert_eq(publish(producer, i * 100), 0);
		cr_assert_eq(number_now(consumer, &version), (int64_t)i * 100);
		cr_assert_eq(version, i);
		version = i - 1;
		cr_assert_eq(ipc_watch_read_next(consumer, &value, sizeof(value), NULL, &version),
			     0);
		cr_assert_eq(version, i);
		cr_assert_eq(ipc_watch_read_next(consumer, &value, sizeof(value), NULL, &version),
			     IPC_EAGAIN);
	}

	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

/* W-5: who comes late gets the last value, and only that */
Test(watch, late_consumer_gets_the_last_value, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
	ipc_watch_consumer *consumer;
	struct payload value;
	uint64_t version = 0;

	for (uint64_t i = 1; i <= 50; ++i)
		cr_assert_eq(publish(producer, i), 0);
	consumer = open_consumer(client, 0);

	cr_assert_eq(ipc_watch_read_wait(consumer, &value, sizeof(value), NULL, &version, NULL), 0);
	cr_assert_eq(number_of(&value), 50);
	cr_assert_eq(version, 50);

	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

static void publish_for_ever(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&domain);
	ipc_watch_producer *producer = NULL;

	(void)arg;
	if (ipc_watch_producer_open_wait(&producer, own, NAME, NULL, NULL) < 0)
		_exit(1);
	actor_say(self, 0);
	for (uint64_t i = 1;; ++i)
		if (publish(producer, i) < 0)
			_exit(2);
}

/* W-2 */
Test(watch, reads_against_a_fast_producer_are_whole_and_never_go_back, SCENE)
{
	ipc_watch_consumer *consumer = open_consumer(client, IPC_CREATE);
	uint64_t version = 0, last = 0;
	struct actor producer;

	actor_start(&producer, publish_for_ever, NULL);
	cr_assert_eq(actor_hear(&producer), 0);

	while (last < 200000) {
		int64_t number = number_now(consumer, &version);

		if (number == IPC_EAGAIN && last == 0)
			continue;
		cr_assert_eq(number, (int64_t)version, "value %ld with version %lu", number,
			     version);
		cr_assert_geq(version, last);
		last = version;
	}

	actor_kill(&producer);
	ipc_watch_consumer_close(consumer);
}

/* W-14 */
Test(watch, too_small_a_buffer_gets_the_size_and_keeps_the_version, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
	ipc_watch_consumer *consumer = open_consumer(client, 0);
	struct payload value = value_of(3);
	uint64_t version = 0, other = 55;
	size_t size;

	cr_assert_eq(publish(producer, 9), 0);

	size = 0;
	cr_assert_eq(ipc_watch_read(consumer, &value, sizeof(value) - 1, &size, &other),
		     IPC_EMSGSIZE);
	cr_assert_eq(size, sizeof(value));
	cr_assert_eq(other, 55);
	for (int i = 0; i < 2; ++i) {
		size = 0;
		cr_assert_eq(ipc_watch_read_wait(consumer, &value, 8, &size, &version, NULL),
			     IPC_EMSGSIZE);
		cr_assert_eq(size, sizeof(value));
		size = 0;
		cr_assert_eq(ipc_watch_read_next(consumer, NULL, 0, &size, &version), IPC_EMSGSIZE);
		cr_assert_eq(size, sizeof(value));
		cr_assert_eq(version, 0);
	}
	cr_assert_eq(number_of(&value), 3, "the buffer was written");
	cr_assert_eq(ipc_watch_read(consumer, &value, 8, NULL, NULL), IPC_EMSGSIZE);

	cr_assert_eq(ipc_watch_read_wait(consumer, &value, sizeof(value), NULL, &version, NULL), 0);
	cr_assert_eq(number_of(&value), 9);
	cr_assert_eq(version, 1);

	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

/* M-72 */
Test(watch, empty_value_is_a_value, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
	ipc_watch_consumer *consumer = open_consumer(client, 0);
	uint64_t version = 0;
	size_t size = 99;

	cr_assert_eq(ipc_watch_publish(producer, NULL, 0), 0);

	cr_assert_eq(ipc_watch_read_wait(consumer, NULL, 0, &size, &version, NULL), 0);
	cr_assert_eq(size, 0);
	cr_assert_eq(version, 1);

	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

/* M-74, M-10, M-20: what cannot be said in an argument */
Test(watch, arguments_that_break_the_rules_are_einval, SCENE)
{
	const struct timespec wrong[] = {{0, 1000000000}, {5, -1}};
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE), *no_producer = NULL;
	ipc_watch_consumer *consumer = open_consumer(client, 0), *no_consumer = NULL;
	uint64_t version = 0, junk[8] = {0};
	ipc_watch_weak *weak = NULL;
	struct payload value;
	size_t size, size_max;
	void *edited;

	cr_assert_eq(ipc_watch_publish(producer, NULL, 1), IPC_EINVAL);
	cr_assert_eq(ipc_watch_publish_wait(producer, NULL, 1, NULL), IPC_EINVAL);
	cr_assert_eq(ipc_watch_read(consumer, NULL, 1, NULL, NULL), IPC_EINVAL);
	cr_assert_eq(ipc_watch_read_next(consumer, &value, sizeof(value), NULL, NULL), IPC_EINVAL);
	cr_assert_eq(ipc_watch_read_wait(consumer, &value, sizeof(value), NULL, NULL, NULL),
		     IPC_EINVAL);
	cr_assert_eq(ipc_watch_edit_wait(producer, NULL, &size, &size_max, NULL), IPC_EINVAL);
	cr_assert_eq(ipc_watch_edit_wait(producer, &edited, NULL, &size_max, NULL), IPC_EINVAL);
	cr_assert_eq(ipc_watch_edit_wait(producer, &edited, &size, NULL, NULL), IPC_EINVAL);
	cr_assert_eq(ipc_watch_weaken(NULL, producer), IPC_EINVAL);
	for (int i = 0; i < 2; ++i) {
		cr_assert_eq(ipc_watch_publish_wait(producer, &value, 8, &wrong[i]), IPC_EINVAL);
		cr_assert_eq(ipc_watch_edit_wait(producer, &edited, &size, &size_max, &wrong[i]),
			     IPC_EINVAL);
		cr_assert_eq(ipc_watch_read_wait(consumer, &value, 8, NULL, &version, &wrong[i]),
			     IPC_EINVAL);
		cr_assert_eq(ipc_watch_producer_peers_wait(producer, true, &wrong[i]), IPC_EINVAL);
	}

	/* A handle is known by its first word. */
	cr_assert_eq(ipc_watch_publish(NULL, &value, 8), IPC_EINVAL);
	cr_assert_eq(ipc_watch_publish((ipc_watch_producer *)(void *)consumer, &value, 8),
		     IPC_EINVAL);
	cr_assert_eq(ipc_watch_read((ipc_watch_consumer *)(void *)producer, &value, 8, NULL, NULL),
		     IPC_EINVAL);
	cr_assert_eq(ipc_watch_read((ipc_watch_consumer *)(void *)junk, &value, 8, NULL, NULL),
		     IPC_EINVAL);
	cr_assert_eq(ipc_watch_upgrade_wait(&no_producer, (ipc_watch_weak *)(void *)producer, NULL),
		     IPC_EINVAL);
	cr_assert_eq(ipc_watch_upgrade_wait(&no_producer, NULL, NULL), IPC_EINVAL);
	cr_assert_eq(ipc_watch_weaken(&weak, (ipc_watch_producer *)(void *)consumer), IPC_EINVAL);
	cr_assert_eq(ipc_watch_producer_open_wait(NULL, client, NAME, NULL, NULL), IPC_EINVAL);
	cr_assert_eq(ipc_watch_consumer_open_wait(&no_consumer, NULL, NAME, NULL, NULL),
		     IPC_EINVAL);
	cr_assert_eq(ipc_watch_consumer_open_wait(&no_consumer, client, NULL, NULL, NULL),
		     IPC_EINVAL);
	cr_assert_null(weak);
	cr_assert_null(no_producer);
	cr_assert_null(no_consumer);
	cr_assert_null(ipc_watch_weak_close(NULL));
	cr_assert_null(ipc_watch_producer_close(NULL));
	cr_assert_null(ipc_watch_consumer_close(NULL));

	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

/* M-76, M-43, M-41 */
Test(watch, options_say_how_large_and_how_many, SCENE)
{
	ipc_watch_producer *producer = NULL;
	ipc_watch_consumer *consumer = NULL, *second = NULL, *third = NULL;
	struct timespec past = {0, 0};
	unsigned char data[101] = {1};

	cr_assert_eq(ipc_watch_producer_open_wait(
			     &producer, client, NAME,
			     IPC_WATCH_OPTIONS(.flags = IPC_CREATE,
					       .value_size_max = IPC_VALUE_SIZE_MAX + 1),
			     NULL),
		     IPC_EINVAL);
	cr_assert_eq(ipc_watch_producer_open_wait(&producer, client, NAME,
						  IPC_WATCH_OPTIONS(.flags = IPC_CREATE | IPC_KEEP),
						  NULL),
		     IPC_EINVAL);
	cr_assert_eq(ipc_watch_producer_open_wait(
			     &producer, client, NAME,
			     IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .reserved = 1), NULL),
		     IPC_E2BIG);
	cr_assert_eq(ipc_watch_producer_open_wait(&producer, client, NAME,
						  IPC_WATCH_OPTIONS(.flags = IPC_CREATE,
								    .value_size_max = 100,
								    .consumers_max = 2),
						  NULL),
		     0);

	cr_assert_eq(ipc_watch_publish(producer, data, 100), 0);
	cr_assert_eq(ipc_watch_publish(producer, data, 101), IPC_EMSGSIZE);
	cr_assert_eq(ipc_watch_publish_wait(producer, data, 101, NULL), IPC_EMSGSIZE);

	cr_assert_eq(ipc_watch_consumer_open_wait(&consumer, client, NAME,
						  IPC_WATCH_OPTIONS(.value_size_max = 99), NULL),
		     IPC_EPROTOTYPE);
	cr_assert_eq(ipc_watch_consumer_open_wait(&consumer, client, NAME,
						  IPC_WATCH_OPTIONS(.value_size_max = 100), NULL),
		     0);
	cr_assert_eq(ipc_watch_consumer_open_wait(&second, client, NAME, NULL, NULL), 0);
	cr_assert_eq(ipc_watch_consumer_open_wait(&third, client, NAME, NULL, NULL), IPC_EBUSY);
	cr_assert_eq(ipc_watch_consumer_open_wait(&third, client, NAME,
						  IPC_WATCH_OPTIONS(.flags = IPC_AWAIT), &past),
		     IPC_ETIMEDOUT);
	cr_assert_null(third);
	ipc_watch_consumer_close(second);
	cr_assert_eq(ipc_watch_consumer_open_wait(&third, client, NAME,
						  IPC_WATCH_OPTIONS(.flags = IPC_AWAIT), NULL),
		     0);

	ipc_watch_consumer_close(third);
	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

/* M-76: the largest value works, or there is no memory for it; 3 GiB and more are reserved for it.
 */
Test(watch, largest_value_works_or_is_refused_for_lack_of_memory, SCENE)
{
	ipc_watch_producer *producer = NULL;
	struct timespec deadline = domain_deadline(15000);
	int r;

	r = ipc_watch_producer_open_wait(
		&producer, client, NAME,
		IPC_WATCH_OPTIONS(.flags = IPC_CREATE, .value_size_max = IPC_VALUE_SIZE_MAX),
		&deadline);

	cr_assert(r == 0 || r == IPC_ENOSPC || r == IPC_ENOMEM || r == IPC_EDQUOT ||
			  r == IPC_ETIMEDOUT,
		  "%s", ipc_error_name(r));
	if (r == 0) {
		cr_assert_eq(ipc_watch_publish(producer, "x", 1), 0);
		ipc_watch_producer_close(producer);
	}
}

/* ---- what a consumer may not ---- */

static sigjmp_buf jump;

static void on_segv(int signal)
{
	(void)signal;
	siglongjmp(jump, 1);
}

static bool store_faults(unsigned char *address)
{
	struct sigaction action = {.sa_handler = on_segv}, before;
	bool volatile faulted = true;

	sigaction(SIGSEGV, &action, &before);
	if (sigsetjmp(jump, 1) == 0) {
		*(volatile unsigned char *)address = 1;
		faulted = false;
	}
	sigaction(SIGSEGV, &before, NULL);
	return faulted;
}

static void check_is_readonly(ipc_watch_consumer *consumer)
{
	const struct endpoint *endpoint = (const struct endpoint *)(void *)consumer;

	for (uint64_t offset = 0; offset < endpoint->segment_size; offset += 4096)
		cr_assert(store_faults((unsigned char *)endpoint->header + offset),
			  "offset %lu can be written", offset);

	cr_assert_lt(mprotect(endpoint->header, endpoint->segment_size, PROT_READ | PROT_WRITE), 0);
	cr_assert_eq(errno, EACCES);
}

/* W-9, M-50: also for the consumer that made the channel */
Test(watch, consumer_cannot_write_the_value, SCENE)
{
	ipc_watch_consumer *maker = open_consumer(client, IPC_CREATE);
	ipc_watch_producer *producer = open_producer(client, 0);
	ipc_watch_consumer *other = open_consumer(client, 0);

	cr_assert_eq(publish(producer, 5), 0);

	check_is_readonly(maker);
	check_is_readonly(other);

	ipc_watch_consumer_close(maker);
	ipc_watch_consumer_close(other);
	ipc_watch_producer_close(producer);
}

static void work_without_system_calls(struct actor *self, void *arg)
{
	ipc_client *own = domain_connect(&domain);
	ipc_watch_producer *producer;
	ipc_watch_consumer *consumer;
	struct payload value;
	uint64_t version = 0;

	(void)self;
	(void)arg;
	if (ipc_watch_producer_open_wait(&producer, own, NAME,
					 IPC_WATCH_OPTIONS(.flags = IPC_CREATE), NULL) < 0 ||
	    ipc_watch_consumer_open_wait(&consumer, own, NAME, NULL, NULL) < 0)
		_exit(1);

	/* The first of each looks things up. */
	if (publish(producer, 1) < 0 ||
	    ipc_watch_read(consumer, &value, sizeof(value), NULL, NULL) < 0)
		_exit(2);

	/* From here on any system call but read, write and exit is death. */
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) < 0)
		_exit(3);
	for (uint64_t i = 2; i < 1000; ++i) {
		if (publish(producer, i) < 0 ||
		    ipc_watch_read(consumer, &value, sizeof(value), NULL, NULL) < 0 ||
		    ipc_watch_read_wait(consumer, &value, sizeof(value), NULL, &version, NULL) <
			    0 ||
		    version != i)
			syscall(SYS_exit, 4);
	}
	syscall(SYS_exit, 0);
}

/* W-10, M-4: nobody sleeps, so nothing needs the kernel, or the broker */
Test(watch, publish_and_read_make_no_system_call, SCENE)
{
	struct actor actor;

	actor_start(&actor, work_without_system_calls, NULL);

	cr_assert_eq(actor_join(&actor), 0, "128 + 9: killed at a system call");
}

/* ---- edits ---- */

/* W-13, M-71 */
Test(watch, edit_gives_a_copy_of_the_latest_value_and_commit_publishes_it, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
	ipc_watch_consumer *consumer = open_consumer(client, 0);
	size_t size = 1, size_max = 0;
	unsigned char *bytes;
	uint64_t version;
	void *edited;

	cr_assert_eq(ipc_watch_edit_wait(producer, &edited, &size, &size_max, NULL), 0);
	bytes = edited;
	cr_assert_eq(size, 0);
	cr_assert_eq(size_max, 4096);
	cr_assert_eq((uintptr_t)edited & 63, 0);
	for (size_t i = 0; i < size_max; ++i)
		cr_assert_eq(bytes[i], 0);
	memset(edited, 0xff, size_max);
	cr_assert_eq(ipc_watch_abort(producer), 0);
	cr_assert_eq(number_now(consumer, &version), IPC_EAGAIN);

	cr_assert_eq(publish(producer, 41), 0);
	cr_assert_eq(ipc_watch_edit_wait(producer, &edited, &size, &size_max, NULL), 0);
	cr_assert_eq(size, sizeof(struct payload));
	cr_assert_eq(number_of(edited), 41);
	*(struct payload *)edited = value_of(42);
	cr_assert_eq(number_now(consumer, &version), 41);
	cr_assert_eq(ipc_watch_commit(producer, sizeof(struct payload)), 0);
	cr_assert_eq(number_now(consumer, &version), 42);
	cr_assert_eq(version, 2);

	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

static void *commit_elsewhere(void *producer)
{
	return (void *)(intptr_t)ipc_watch_commit(producer, 8);
}

static void *abort_elsewhere(void *producer)
{
	return (void *)(intptr_t)ipc_watch_abort(producer);
}

static void *publish_elsewhere(void *producer)
{
	return (void *)(intptr_t)publish(producer, 1);
}

static intptr_t in_thread(void *(*fn)(void *), void *arg)
{
	pthread_t thread;
	void *result;

	cr_assert_eq(pthread_create(&thread, NULL, fn, arg), 0);
	pthread_join(thread, &result);
	return (intptr_t)result;
}

/* W-12, M-42 */
Test(watch, edit_belongs_to_its_thread_and_its_handle, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE),
			   *other = open_producer(client, 0);
	size_t size, size_max;
	void *edited;

	cr_assert_eq(ipc_watch_commit(producer, 0), IPC_EINVAL);
	cr_assert_eq(ipc_watch_abort(producer), IPC_EINVAL);

	cr_assert_eq(ipc_watch_edit_wait(producer, &edited, &size, &size_max, NULL), 0);
	cr_assert_eq(in_thread(commit_elsewhere, producer), IPC_EINVAL);
	cr_assert_eq(in_thread(abort_elsewhere, producer), IPC_EINVAL);
	cr_assert_eq(ipc_watch_commit(other, 8), IPC_EINVAL);
	cr_assert_eq(ipc_watch_abort(other), IPC_EINVAL);
	cr_assert_eq(ipc_watch_commit(producer, size_max + 1), IPC_EMSGSIZE);
	cr_assert_eq(ipc_watch_commit(producer, size_max), 0);
	cr_assert_eq(ipc_watch_commit(producer, 8), IPC_EINVAL);

	ipc_watch_producer_close(other);
	ipc_watch_producer_close(producer);
}

/* W-11 */
Test(watch, open_edit_keeps_every_other_publish_and_edit_out, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
	struct payload value = value_of(1);
	size_t size, size_max;
	struct actor remote;
	void *edited;

	part_start(&remote, IPC_ROLE_WATCH_PRODUCER, 0);
	cr_assert_eq(ipc_watch_edit_wait(producer, &edited, &size, &size_max, NULL), 0);

	cr_assert_eq(publish(producer, 1), IPC_EBUSY);
	cr_assert_eq(in_thread(publish_elsewhere, producer), IPC_EBUSY);
	cr_assert_eq(part_do(&remote, PUBLISH, 1), IPC_EBUSY);
	cr_assert_eq(ipc_watch_publish_wait(producer, &value, sizeof(value), NULL), IPC_EDEADLK);
	cr_assert_eq(ipc_watch_edit_wait(producer, &edited, &size, &size_max, NULL), IPC_EDEADLK);

	cr_assert_eq(ipc_watch_commit(producer, 0), 0);
	cr_assert_eq(part_do(&remote, PUBLISH, 1), 0);

	part_begin(&remote, QUIT, 0);
	cr_assert_eq(actor_join(&remote), 0);
	ipc_watch_producer_close(producer);
}

/* W-11: the thread's own edit, whichever handle it came from */
Test(watch, edit_of_another_handle_of_this_thread_is_its_own, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
	ipc_watch_producer *other = open_producer(client, 0);
	ipc_watch_consumer *consumer = open_consumer(client, 0);
	struct timespec past = {0, 0};
	struct payload value = value_of(1);
	size_t size, size_max;
	uint64_t version;
	void *edited;

	cr_assert_eq(ipc_watch_edit_wait(producer, &edited, &size, &size_max, NULL), 0);

	cr_assert_eq(publish(other, 1), IPC_EBUSY);
	cr_assert_eq(ipc_watch_publish_wait(other, &value, sizeof(value), &past), IPC_EDEADLK);
	cr_assert_eq(ipc_watch_edit_wait(other, &edited, &size, &size_max, NULL), IPC_EDEADLK);

	*(struct payload *)edited = value_of(4);
	cr_assert_eq(ipc_watch_commit(producer, sizeof(value)), 0);
	cr_assert_eq(number_now(consumer, &version), 4);
	cr_assert_eq(publish(other, 5), 0);

	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(other);
	ipc_watch_producer_close(producer);
}

/* W-11, M-33: waits for the lock are ended by it, not by who comes and goes on the other side */
Test(watch, publish_wait_gets_its_turn_after_the_commit, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
	ipc_watch_consumer *consumer = open_consumer(client, 0);
	struct actor publisher, editor;
	size_t size, size_max;
	uint64_t version;
	void *edited;

	part_start(&publisher, IPC_ROLE_WATCH_PRODUCER, 0);
	part_start(&editor, IPC_ROLE_WATCH_PRODUCER, 0);
	cr_assert_eq(ipc_watch_edit_wait(producer, &edited, &size, &size_max, NULL), 0);
	part_begin_to_sleep(&publisher, PUBLISH_WAIT, 77);
	part_begin_to_sleep(&editor, EDIT, 0);
	ipc_watch_consumer_close(consumer); /* the last one */

	*(struct payload *)edited = value_of(76);
	cr_assert_eq(ipc_watch_commit(producer, sizeof(struct payload)), 0);
	cr_assert_eq(part_answer(&editor).result, 0);
	cr_assert_eq(part_do(&editor, ABORT, 0), 0);
	cr_assert_eq(part_answer(&publisher).result, 0);

	consumer = open_consumer(client, 0);
	cr_assert_eq(number_now(consumer, &version), 77);
	cr_assert_eq(version, 2);

	actor_kill(&publisher);
	actor_kill(&editor);
	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

/* M-20 */
Test(watch, waits_for_the_lock_end_with_their_deadline, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
	struct timespec past = {0, 0}, soon;
	struct payload value = value_of(1);
	size_t size, size_max;
	struct actor editor;
	void *edited;

	part_start(&editor, IPC_ROLE_WATCH_PRODUCER, 0);
	cr_assert_eq(part_do(&editor, EDIT, 0), 0);

	cr_assert_eq(ipc_watch_edit_wait(producer, &edited, &size, &size_max, &past),
		     IPC_ETIMEDOUT);
	cr_assert_eq(ipc_watch_publish_wait(producer, &value, sizeof(value), &past), IPC_ETIMEDOUT);
	soon = domain_deadline(20);
	cr_assert_eq(ipc_watch_edit_wait(producer, &edited, &size, &size_max, &soon),
		     IPC_ETIMEDOUT);
	soon = domain_deadline(20);
	cr_assert_eq(ipc_watch_publish_wait(producer, &value, sizeof(value), &soon), IPC_ETIMEDOUT);

	cr_assert_eq(part_do(&editor, ABORT, 0), 0);
	cr_assert_eq(ipc_watch_edit_wait(producer, &edited, &size, &size_max, &past), 0);
	cr_assert_eq(ipc_watch_abort(producer), 0);

	actor_kill(&editor);
	ipc_watch_producer_close(producer);
}

/* W-3, M-25 */
Test(watch, edit_of_a_killed_producer_leaves_the_value_and_frees_the_lock, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
	ipc_watch_consumer *consumer = open_consumer(client, 0);
	struct actor editor, waiting;
	uint64_t version;

	cr_assert_eq(publish(producer, 10), 0);
	part_start(&editor, IPC_ROLE_WATCH_PRODUCER, 0);
	part_start(&waiting, IPC_ROLE_WATCH_PRODUCER, 0);
	cr_assert_eq(part_do(&editor, EDIT, 0), 0);
	cr_assert_eq(part_do(&editor, EDIT_TO, 11), 0);
	part_begin_to_sleep(&waiting, PUBLISH_WAIT, 12);

	actor_kill(&editor);

	cr_assert_eq(part_answer(&waiting).result, 0);
	cr_assert_eq(number_now(consumer, &version), 12);
	cr_assert_eq(version, 2);
	cr_assert_eq(publish(producer, 13), 0);
	cr_assert_eq(number_now(consumer, &version), 13);

	actor_kill(&waiting);
	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

static void *edit_and_end(void *producer)
{
	size_t size, size_max;
	void *edited;

	return (void *)(intptr_t)ipc_watch_edit_wait(producer, &edited, &size, &size_max, NULL);
}

/* M-42: a thread that ends holding a lock counts as dead for that lock */
Test(watch, edit_of_a_thread_that_ended_is_dropped, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
	struct timespec deadline = domain_deadline(30000);
	size_t size, size_max;
	void *edited;

	cr_assert_eq(in_thread(edit_and_end, producer), 0);

	cr_assert_eq(ipc_watch_edit_wait(producer, &edited, &size, &size_max, &deadline), 0);
	cr_assert_eq(ipc_watch_commit(producer, 0), 0);
	cr_assert_eq(publish(producer, 1), 0);

	ipc_watch_producer_close(producer);
}

/* M-44: an open edit is dropped */
Test(watch, close_drops_the_open_edit, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE),
			   *other = open_producer(client, 0);
	ipc_watch_consumer *consumer = open_consumer(client, 0);
	size_t size, size_max;
	uint64_t version;
	void *edited;

	cr_assert_eq(publish(other, 5), 0);
	cr_assert_eq(ipc_watch_edit_wait(producer, &edited, &size, &size_max, NULL), 0);
	*(struct payload *)edited = value_of(6);

	ipc_watch_producer_close(producer);

	cr_assert_eq(number_now(consumer, &version), 5);
	cr_assert_eq(publish(other, 7), 0);
	cr_assert_eq(number_now(consumer, &version), 7);

	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(other);
}

struct held {
	ipc_watch_producer *producer, *other;
	_Atomic int has_edit, is_closed;
};

static void *edit_while_closed(void *arg)
{
	struct held *held = arg;
	size_t size, size_max;
	int r;
	void *edited;

	r = ipc_watch_edit_wait(held->producer, &edited, &size, &size_max, NULL);
	atomic_store(&held->has_edit, 1);
	while (!atomic_load(&held->is_closed))
		sched_yield();

	/* The C library touches the lock's neighbours in its list: the memory has to be there. */
	if (r == 0)
		r = publish(held->other, 1) == 0 ? 0 : IPC_EBUSY;
	return (void *)(intptr_t)r;
}

/* M-44, M-42: another thread holds the lock; it comes free when that thread ends, and nobody
 * crashes */
Test(watch, close_under_an_edit_of_another_thread_is_safe, SCENE)
{
	struct held held = {.producer = open_producer(client, IPC_CREATE)};
	struct timespec deadline = domain_deadline(30000);
	struct payload value = value_of(3);
	ipc_watch_producer *next;
	pthread_t thread;
	void *result;

	next = open_producer(client, 0);
	cr_assert_eq(ipc_watch_producer_open_wait(&held.other, client, "watch/other",
						  IPC_WATCH_OPTIONS(.flags = IPC_CREATE), NULL),
		     0);
	cr_assert_eq(pthread_create(&thread, NULL, edit_while_closed, &held), 0);
	while (!atomic_load(&held.has_edit))
		sched_yield();
	ipc_watch_producer_close(held.producer);
	cr_assert_eq(publish(next, 2), IPC_EBUSY);
	atomic_store(&held.is_closed, 1);
	pthread_join(thread, &result);

	cr_assert_eq((intptr_t)result, 0);
	cr_assert_eq(ipc_watch_publish_wait(next, &value, sizeof(value), &deadline), 0);

	ipc_watch_producer_close(next);
	ipc_watch_producer_close(held.other);
	leaks.n_segments++; /* kept mapped: see producer_closing() */
}

/* ---- many handles ---- */

/* M-3, M-42, M-74 */
Test(watch, forked_child_is_refused_and_disturbs_nobody, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
	ipc_watch_consumer *consumer = open_consumer(client, 0);
	ipc_watch_weak *weak = NULL;
	size_t size, size_max;
	uint64_t version = 0;
	struct payload value;
	void *edited;
	int status;
	pid_t pid;

	cr_assert_eq(ipc_watch_weaken(&weak, producer), 0);
	cr_assert_eq(publish(producer, 1), 0);
	cr_assert_eq(ipc_watch_edit_wait(producer, &edited, &size, &size_max, NULL), 0);

	pid = fork();
	if (pid == 0) {
		ipc_watch_producer *copy = NULL;
		int bad = 0;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		bad += publish(producer, 9) != IPC_ECHILD;
		bad += ipc_watch_publish_wait(producer, &value, 8, NULL) != IPC_ECHILD;
		bad += ipc_watch_edit_wait(producer, &edited, &size, &size_max, NULL) != IPC_ECHILD;
		bad += ipc_watch_commit(producer, 0) != IPC_ECHILD;
		bad += ipc_watch_abort(producer) != IPC_ECHILD;
		bad += ipc_watch_shutdown(producer) != IPC_ECHILD;
		bad += ipc_watch_read(consumer, &value, sizeof(value), NULL, NULL) != IPC_ECHILD;
		bad += ipc_watch_read_next(consumer, &value, sizeof(value), NULL, &version) !=
		       IPC_ECHILD;
		bad += ipc_watch_read_wait(consumer, &value, sizeof(value), NULL, &version, NULL) !=
		       IPC_ECHILD;
		bad += ipc_watch_producer_peers(producer) != IPC_ECHILD;
		bad += ipc_watch_consumer_cancel(consumer) != IPC_ECHILD;
		bad += ipc_watch_upgrade_wait(&copy, weak, NULL) != IPC_ECHILD;
		bad += ipc_watch_weaken(&weak, producer) != IPC_ECHILD;
		ipc_watch_weak_close(weak);
		ipc_watch_producer_close(producer);
		ipc_watch_consumer_close(consumer);
		_exit(bad);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%x", status);

	*(struct payload *)edited = value_of(2);
	cr_assert_eq(ipc_watch_commit(producer, sizeof(value)), 0,
		     "the child's end dropped the parent's edit");
	cr_assert_eq(number_now(consumer, &version), 2);

	ipc_watch_weak_close(weak);
	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

/* W-7, M-32 */
Test(watch, producer_sees_its_consumers_come_and_go, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
	struct timespec past = {0, 0};
	ipc_watch_consumer *consumer;
	struct actor watching;

	cr_assert_eq(ipc_watch_producer_peers(producer), 0);
	cr_assert_eq(ipc_watch_producer_peers_wait(producer, false, NULL), 0);
	cr_assert_eq(ipc_watch_producer_peers_wait(producer, true, &past), IPC_ETIMEDOUT);

	part_start(&watching, IPC_ROLE_WATCH_PRODUCER, 0);
	part_begin_to_sleep(&watching, PEERS_WAIT, true);
	consumer = open_consumer(client, 0);
	cr_assert_eq(part_answer(&watching).result, 0);
	cr_assert_eq(ipc_watch_producer_peers(producer), 1);
	cr_assert_eq(ipc_watch_consumer_peers(consumer), 2);
	cr_assert_eq(ipc_watch_producer_peers_wait(producer, false, &past), IPC_ETIMEDOUT);

	part_begin_to_sleep(&watching, PEERS_WAIT, false);
	for (int i = 0; i < 100; ++i)
		cr_assert_eq(publish(producer, 1), 0);
	ipc_watch_consumer_close(consumer);
	cr_assert_eq(part_answer(&watching).result, 0);
	cr_assert_eq(ipc_watch_producer_peers(producer), 0);

	actor_kill(&watching);
	ipc_watch_producer_close(producer);
}

/* W-7: the sleep of peers_wait is not on a word that a publish touches */
Test(watch, publish_does_not_wake_who_waits_for_consumers_to_go, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
	ipc_watch_consumer *consumer = open_consumer(client, 0);
	const struct endpoint *endpoint = (const struct endpoint *)(void *)producer;
	struct actor watching;

	part_start(&watching, IPC_ROLE_WATCH_PRODUCER, 0);
	part_begin_to_sleep(&watching, PEERS_WAIT, false);

	for (int i = 0; i < 100; ++i)
		cr_assert_eq(publish(producer, 1), 0);

	cr_assert_eq(atomic_load(&endpoint->lines[WATCH_CONSUMERS].word) & EVENTCOUNT_COUNT, 0,
		     "a publish found a sleeper");
	cr_assert_eq(atomic_load(&endpoint->lines[WATCH_PRODUCERS].word) & EVENTCOUNT_COUNT, 0,
		     "a publish woke producers");

	ipc_watch_consumer_close(consumer);
	cr_assert_eq(part_answer(&watching).result, 0);
	actor_kill(&watching);
	ipc_watch_producer_close(producer);
}

/* ---- weak producers ---- */

/* W-8, M-3 */
Test(watch, weak_producer_upgrades_while_there_is_a_producer, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE), *again = NULL;
	ipc_watch_consumer *consumer = open_consumer(client, 0);
	ipc_watch_weak *weak = NULL;
	uint64_t version, id, first_id;

	cr_assert_eq(ipc_watch_weaken(&weak, producer), 0);
	cr_assert_eq(ipc_watch_consumer_peers(consumer), 1, "a weak producer is counted");
	cr_assert_eq(publish(producer, 1), 0);

	cr_assert_eq(ipc_watch_upgrade_wait(&again, weak, NULL), 0);
	cr_assert_eq(ipc_watch_consumer_peers(consumer), 2);
	cr_assert_eq(ipc_watch_producer_get_id(again, &id), 0);
	cr_assert_eq(ipc_watch_producer_get_id(producer, &first_id), 0);
	cr_assert_neq(id, first_id);
	ipc_watch_producer_close(producer);
	cr_assert_eq(publish(again, 2), 0);
	cr_assert_eq(number_now(consumer, &version), 2);
	cr_assert_eq(version, 2);

	ipc_watch_producer_close(again);
	again = NULL;
	cr_assert_eq(ipc_watch_upgrade_wait(&again, weak, NULL), IPC_EPIPE);
	cr_assert_null(again);

	/* A new producer comes by the name: weak works again, for the channel never ended. */
	producer = open_producer(client, 0);
	cr_assert_eq(ipc_watch_upgrade_wait(&again, weak, NULL), 0);
	ipc_watch_producer_close(again);
	ipc_watch_producer_close(producer);
	ipc_watch_consumer_close(consumer);

	/* The channel ended; one of the same name is another one. */
	producer = open_producer(client, IPC_CREATE);
	cr_assert_eq(ipc_watch_upgrade_wait(&again, weak, NULL), IPC_EPIPE);
	ipc_watch_producer_close(producer);
	ipc_watch_weak_close(weak);
}

/* W-8 */
Test(watch, weak_producer_of_a_channel_that_was_shut_down_is_epipe_for_ever, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE), *again = NULL;
	ipc_watch_consumer *consumer = open_consumer(client, 0);
	ipc_watch_weak *weak = NULL;

	cr_assert_eq(ipc_watch_weaken(&weak, producer), 0);
	cr_assert_eq(ipc_watch_shutdown(producer), 0);

	cr_assert_eq(ipc_watch_upgrade_wait(&again, weak, NULL), IPC_EPIPE);
	cr_assert_eq(ipc_watch_upgrade_wait(&again, weak, NULL), IPC_EPIPE);
	/* What the refused upgrades had opened is closed: the broker learns of it in a moment. */
	while (ipc_watch_consumer_peers(consumer) != 1)
		sched_yield();
	cr_assert_null(again);

	ipc_watch_weak_close(weak);
	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}

struct upgrading {
	ipc_watch_weak *weak;
	ipc_watch_producer *producer;
	int result;
};

static _Atomic int n_at_start;

static void *upgrade_elsewhere(void *arg)
{
	struct upgrading *upgrading = arg;

	atomic_fetch_add(&n_at_start, 1);
	while (atomic_load(&n_at_start) % 2)
		;
	upgrading->result = ipc_watch_upgrade_wait(&upgrading->producer, upgrading->weak, NULL);
	return NULL;
}

/* W-8: a live producer on a live channel, or IPC_EPIPE */
Test(watch, upgrade_racing_the_last_close_gives_a_live_producer_or_epipe, SCENE)
{
	unsigned n_won = 0;

	for (unsigned i = 0; i < 300; ++i) {
		ipc_watch_producer *producer = open_producer(client, IPC_CREATE);
		struct upgrading upgrading = {0};
		ipc_watch_consumer *consumer;
		uint64_t version;
		pthread_t thread;

		cr_assert_eq(ipc_watch_weaken(&upgrading.weak, producer), 0);
		cr_assert_eq(pthread_create(&thread, NULL, upgrade_elsewhere, &upgrading), 0);
		atomic_fetch_add(&n_at_start, 1);
		while (atomic_load(&n_at_start) % 2)
			;
		for (unsigned k = 0; k < (i % 8) * 500; ++k)
			__asm__ __volatile__("");
		ipc_watch_producer_close(producer);
		pthread_join(thread, NULL);

		if (upgrading.result == 0) {
			/* The name still leads to the channel that the upgraded producer writes. */
			cr_assert_eq(publish(upgrading.producer, i), 0);
			consumer = open_consumer(client, 0);
			cr_assert_eq(number_now(consumer, &version), i);
			cr_assert_eq(version, 1);
			ipc_watch_consumer_close(consumer);
			ipc_watch_producer_close(upgrading.producer);
			++n_won;
		} else {
			cr_assert_eq(upgrading.result, IPC_EPIPE);
			cr_assert_null(upgrading.producer);
		}
		ipc_watch_weak_close(upgrading.weak);
	}

	cr_log_info("%u of 300 upgraded", n_won);
}

/* M-74 */
Test(watch, handles_keep_their_client, SCENE)
{
	ipc_client *own = domain_connect(&domain);
	ipc_watch_producer *producer = open_producer(own, IPC_CREATE), *again = NULL;
	ipc_watch_weak *weak = NULL;

	cr_assert_eq(ipc_watch_weaken(&weak, producer), 0);
	ipc_client_unref(own);

	cr_assert_eq(publish(producer, 1), 0);
	cr_assert_eq(ipc_watch_upgrade_wait(&again, weak, NULL), 0);
	ipc_watch_producer_close(producer);
	ipc_watch_producer_close(again);
	cr_assert_eq(ipc_watch_upgrade_wait(&again, weak, NULL), IPC_EPIPE);
	ipc_watch_weak_close(weak);
}

/* M-61, M-60 */
Test(watch, broken_channel_says_so_to_everybody_and_can_be_removed, SCENE)
{
	ipc_watch_producer *producer = open_producer(client, IPC_CREATE), *other;
	ipc_watch_consumer *consumer = open_consumer(client, 0), *late = NULL;
	struct endpoint *endpoint = (struct endpoint *)(void *)producer;
	struct watch_segment *segment = (struct watch_segment *)(void *)endpoint->header;
	uint64_t version = 0;
	struct payload value;
	size_t size, size_max;
	struct actor waiting;
	void *edited;

	cr_assert_eq(publish(producer, 1), 0);
	part_start(&waiting, IPC_ROLE_WATCH_CONSUMER, 0);
	cr_assert_eq(part_do(&waiting, READ_WAIT, 0), 0);
	part_begin_to_sleep(&waiting, READ_WAIT, 0);
	atomic_store(&segment->control.latest, UINT64_MAX);

	cr_assert_eq(publish(producer, 2), IPC_EBADMSG);
	cr_assert_eq(part_answer(&waiting).result, IPC_EBADMSG);
	cr_assert_eq(ipc_watch_edit_wait(producer, &edited, &size, &size_max, NULL), IPC_EBADMSG);
	cr_assert_eq(ipc_watch_publish_wait(producer, &value, 8, NULL), IPC_EBADMSG);
	cr_assert_eq(ipc_watch_read(consumer, &value, sizeof(value), NULL, NULL), IPC_EBADMSG);
	cr_assert_eq(ipc_watch_read_next(consumer, &value, sizeof(value), NULL, &version),
		     IPC_EBADMSG);
	cr_assert_eq(ipc_watch_read_wait(consumer, &value, sizeof(value), NULL, &version, NULL),
		     IPC_EBADMSG);
	cr_assert_eq(ipc_watch_consumer_open_wait(&late, client, NAME, NULL, NULL), IPC_EBADMSG);

	cr_assert_eq(ipc_channel_remove_wait(client, NAME, 0, NULL), 0);
	other = open_producer(client, IPC_CREATE);
	cr_assert_eq(publish(other, 3), 0);

	actor_kill(&waiting);
	ipc_watch_producer_close(other);
	ipc_watch_consumer_close(consumer);
	ipc_watch_producer_close(producer);
}
