/* SPDX-License-Identifier: MIT */
/*
 * The protocol of `watch` as threads upon one mapping: two that publish, one that edits, two that
 * read and wait.  For the thread sanitizer; worth running without it too, since it asserts that no
 * value is torn or goes back, and that everybody comes to the end.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "libipc/channel/watch.h"
#include "libipc/platform/bytes.h"
#include "libipc/platform/clock.h"

enum { WORDS = 8, PUBLISHES = 100000, EDITS = 20000 };

static const uint64_t shape[4] = {WORDS * 8, 4};
static struct eventcount lines[2];
static struct watch watch;
static _Atomic uint32_t attention, cancel_word, handle_cancelled, client_cancelled;
static _Atomic uint64_t n_published;
static struct waiter_patience patience;

static void require(bool holds, const char *what)
{
	if (holds)
		return;

	fprintf(stderr, "tsan_watch: %s\n", what);
	_Exit(1);
}

static struct waiter waiter_for_ever(void)
{
	return (struct waiter){
		.event = &lines[WATCH_CONSUMERS],
		.attention = &attention,
		.cancel_word = &cancel_word,
		.handle_cancelled = &handle_cancelled,
		.client_cancelled = &client_cancelled,
		.patience = &patience,
		.deadline_ns = clock_after_ns(60 * NS_PER_S),
	};
}

static void fill(uint64_t *words, uint64_t number)
{
	for (unsigned i = 0; i < WORDS; ++i)
		words[i] = number;
}

static void *producer(void *arg)
{
	uint64_t words[WORDS], n_done = 0;

	for (uint64_t i = 0; i < PUBLISHES; ++i) {
		struct waiter waiter = waiter_for_ever();
		int r;

		fill(words, i);
		r = i % 3 ? watch_publish(&watch, words, sizeof(words))
			  : watch_publish_wait(&watch, &waiter, words, sizeof(words));
		require(r == 0 || (r == IPC_EBUSY && i % 3), "publish failed");
		n_done += r == 0;
	}

	atomic_fetch_add(&n_published, n_done);
	return arg;
}

static void *editor(void *arg)
{
	uint64_t words[WORDS], n_done = 0;

	for (uint64_t i = 0; i < EDITS; ++i) {
		struct waiter waiter = waiter_for_ever();
		struct value_edit edit;
		uint64_t size;

		require(watch_edit_wait(&watch, &waiter, 7, &edit, &size) == 0, "edit failed");
		require(size == 0 || size == sizeof(words), "an edit of a strange size");
		fill(words, i);
		bytes_write_shared(value_data(&watch.value, &edit), words, sizeof(words));
		if (i % 4 == 0) {
			watch_abort(&watch);
			continue;
		}
		require(watch_commit(&watch, &edit, sizeof(words)) == 0, "commit failed");
		++n_done;
	}

	atomic_fetch_add(&n_published, n_done);
	return arg;
}

struct reader {
	uint64_t version;
	uint64_t words[WORDS];
};

/* 0: something newer; IPC_EPIPE: the end. */
static int reader_look(void *subject)
{
	struct reader *reader = subject;
	uint64_t size, version;
	int r, end;

	end = watch_end(&watch);
	r = watch_read(&watch, reader->version, reader->words, sizeof(reader->words), &size,
		       &version);
	if (r == IPC_EAGAIN)
		return end < 0 ? end : WAITER_NOT_YET;
	if (r < 0)
		return r;

	require(version > reader->version, "a version went back");
	require(size == sizeof(reader->words), "a value of a strange size");
	for (unsigned i = 1; i < WORDS; ++i)
		require(reader->words[i] == reader->words[0], "a value is torn");
	reader->version = version;
	return 0;
}

static void *consumer(void *arg)
{
	struct reader reader = {.version = 0};
	int r;

	do {
		struct waiter waiter = waiter_for_ever();

		r = waiter_wait(&waiter, reader_look, &reader);
	} while (r == 0);

	require(r == IPC_EPIPE, "a wait ended otherwise than by the shutdown");
	require(reader.version == value_version(&watch.value), "the last value was not seen");
	return arg;
}

int main(void)
{
	uint64_t size = watch_size(shape);
	pthread_t producers[3], consumers[2];
	void *segment = aligned_alloc(64, size);

	require(segment, "no memory");
	eventcount_init(&lines[0]);
	eventcount_init(&lines[1]);
	require(watch_make(segment, size, shape, 0) == 0, "make");
	require(watch_attach(&watch, segment, size, shape, lines) == 0, "attach");

	for (unsigned i = 0; i < 2; ++i)
		require(pthread_create(&consumers[i], NULL, consumer, NULL) == 0, "thread");
	for (unsigned i = 0; i < 3; ++i)
		require(pthread_create(&producers[i], NULL, i < 2 ? producer : editor, NULL) == 0,
			"thread");
	for (unsigned i = 0; i < 3; ++i)
		pthread_join(producers[i], NULL);

	require(value_version(&watch.value) == atomic_load(&n_published), "a publish was lost");
	watch_shutdown(&watch);
	for (unsigned i = 0; i < 2; ++i)
		pthread_join(consumers[i], NULL);

	free(segment);
	return 0;
}
