/* SPDX-License-Identifier: MIT */
#include "libipc/core/keytable.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum { N_NODES = 64, STRIDE = 48 };

/* In a link: see keytable.c. */
#define MARK UINT64_C(0x800000)

static struct keytable table;
static void *nodes;

static void setup_nodes(uint32_t n_nodes)
{
	uint64_t n_buckets = keytable_n_buckets(n_nodes);

	nodes = malloc((size_t)n_nodes * STRIDE);
	table = (struct keytable){
		.bucket = malloc(n_buckets * sizeof(uint64_t)),
		.mask = n_buckets - 1,
		.node = nodes,
		.stride = STRIDE,
		.n_nodes = n_nodes,
	};
	cr_assert(nodes && table.bucket);
	memset(nodes, 0x5a, (size_t)n_nodes * STRIDE);
	memset((void *)table.bucket, 0x5a, n_buckets * sizeof(uint64_t));
	keytable_init(&table);
}

static void setup(void)
{
	setup_nodes(N_NODES);
}

static void teardown(void)
{
	free(nodes);
	free((void *)table.bucket);
}

static struct keynode *node_at(uint32_t i)
{
	return (struct keynode *)((char *)nodes + (size_t)i * STRIDE);
}

/* Nodes of this hash as bits; moved searches begin again. */
static uint64_t find(uint64_t hash)
{
	for (;;) {
		struct keytable_search search;
		enum keytable_step step;
		uint64_t found = 0;

		keytable_begin(&table, &search, hash);
		while ((step = keytable_next(&table, &search)) == KEYTABLE_NODE) {
			cr_assert_eq(found >> search.node & 1, 0, "a node is there twice");
			found |= UINT64_C(1) << search.node;
		}
		cr_assert_neq(step, KEYTABLE_BROKEN);
		if (step == KEYTABLE_END)
			return found;
	}
}

static enum keytable_step search_to_end(struct keytable_search *search, uint64_t hash)
{
	enum keytable_step step;

	keytable_begin(&table, search, hash);
	do
		step = keytable_next(&table, search);
	while (step == KEYTABLE_NODE);
	return step;
}

static void insert(uint32_t node, uint64_t hash)
{
	struct keytable_search search;

	cr_assert_eq(search_to_end(&search, hash), KEYTABLE_END);
	cr_assert(keytable_insert(&table, &search, node));
}

Test(keytable, buckets_are_a_power_of_two_and_enough, .timeout = 60)
{
	cr_expect_eq(keytable_n_buckets(1), 1);
	cr_expect_eq(keytable_n_buckets(2), 2);
	cr_expect_eq(keytable_n_buckets(3), 4);
	cr_expect_eq(keytable_n_buckets(1024), 1024);
	cr_expect_eq(keytable_n_buckets(KEYTABLE_NODES_MAX), 1 << 23);
}

Test(keytable, node_is_found_by_its_whole_hash, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_expect_eq(find(5), 0);
	insert(0, 5);
	insert(N_NODES - 1, 5 + N_NODES); /* the same bucket */
	insert(7, 6);

	cr_expect_eq(find(5), UINT64_C(1) << 0);
	cr_expect_eq(find(5 + N_NODES), UINT64_C(1) << (N_NODES - 1));
	cr_expect_eq(find(6), UINT64_C(1) << 7);
	cr_expect_eq(find(5 + 2 * N_NODES), 0);
	cr_expect_eq(find(UINT64_MAX), 0);
}

Test(keytable, nodes_of_one_hash_are_all_found, .init = setup, .fini = teardown, .timeout = 60)
{
	for (uint32_t i = 0; i < N_NODES; ++i)
		insert(i, 9);

	cr_expect_eq(find(9), UINT64_MAX);
}

Test(keytable, removed_from_anywhere_the_others_stay, .init = setup, .fini = teardown,
     .timeout = 60)
{
	for (uint32_t i = 0; i < 5; ++i)
		insert(i, 9);

	cr_expect(keytable_remove(&table, 4)); /* the first */
	cr_expect_eq(find(9), 0x0f);
	cr_expect(keytable_remove(&table, 2));
	cr_expect_eq(find(9), 0x0b);
	cr_expect(keytable_remove(&table, 0)); /* the last */
	cr_expect_eq(find(9), 0x0a);
	cr_expect(keytable_remove(&table, 3));
	cr_expect(keytable_remove(&table, 1));
	cr_expect_eq(find(9), 0);

	insert(2, 9);
	cr_expect_eq(find(9), 0x04, "a node that was removed does not come back");
}

Test(keytable, removing_what_is_not_there_is_no_fault, .init = setup, .fini = teardown,
     .timeout = 60)
{
	insert(1, 9);
	cr_expect(keytable_remove(&table, 0), "of one that never was");
	insert(0, 9);
	cr_expect(keytable_remove(&table, 0));
	cr_expect(keytable_remove(&table, 0), "of one that is out");
	cr_expect_eq(find(9), 0x02);
}

Test(keytable, insertion_fails_once_the_chain_has_another_first_node, .init = setup,
     .fini = teardown, .timeout = 60)
{
	struct keytable_search before, other;

	insert(0, 9);
	cr_assert_eq(search_to_end(&before, 9), KEYTABLE_END);
	cr_assert_eq(search_to_end(&other, 6), KEYTABLE_END);
	insert(1, 9);
	cr_expect(!keytable_insert(&table, &before, 2), "a second one of the key got in");
	cr_expect_eq(find(9), 0x03);
	cr_expect(keytable_insert(&table, &other, 2), "another chain is not ours");

	/* The same first node as before, but it has been out. */
	cr_assert_eq(search_to_end(&before, 9), KEYTABLE_END);
	cr_assert(keytable_remove(&table, 1));
	insert(1, 9);
	cr_expect(!keytable_insert(&table, &before, 3));
	cr_expect_eq(find(9), 0x03);
}

Test(keytable, search_takes_out_what_a_dead_remover_marked, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct keytable_search search;

	for (uint32_t i = 0; i < 4; ++i)
		insert(i, 9);
	atomic_fetch_or(&node_at(3)->next, MARK);
	atomic_fetch_or(&node_at(1)->next, MARK);

	cr_expect_eq(find(9), 0x05);
	cr_expect_eq(atomic_load(&table.bucket[9]) & (MARK - 1), 2 + 1, "it is still in the chain");

	/* Who took it out itself may insert after that. */
	atomic_fetch_or(&node_at(2)->next, MARK);
	cr_assert_eq(search_to_end(&search, 9), KEYTABLE_END);
	cr_expect(keytable_insert(&table, &search, 1));
	cr_expect_eq(find(9), 0x03);
}

Test(keytable, search_notices_that_its_place_has_moved, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct keytable_search search;

	insert(0, 9);
	insert(1, 9);
	insert(2, 9);
	keytable_begin(&table, &search, 9);
	cr_assert_eq(keytable_next(&table, &search), KEYTABLE_NODE);
	cr_assert_eq(search.node, 2);
	cr_assert_eq(keytable_next(&table, &search), KEYTABLE_NODE);
	cr_assert_eq(search.node, 1);

	/* The node that the search stands on goes to another chain. */
	cr_assert(keytable_remove(&table, 1));
	insert(3, 10);
	insert(1, 10);
	cr_expect_eq(keytable_next(&table, &search), KEYTABLE_MOVED);
}

/* M-60 */
Test(keytable, link_out_of_range_is_broken, .init = setup, .fini = teardown, .timeout = 60)
{
	struct keytable_search search;

	insert(0, 9);
	atomic_store(&node_at(0)->next, N_NODES + 1);
	cr_expect_eq(search_to_end(&search, 9), KEYTABLE_BROKEN);
	cr_expect(!keytable_remove(&table, 0));
	atomic_store(&table.bucket[9], MARK - 1);
	cr_expect_eq(search_to_end(&search, 9), KEYTABLE_BROKEN);
}

/* M-60: however it is entangled, a search ends, and so does a removal. */
Test(keytable, chain_in_a_circle_ends, .init = setup, .fini = teardown, .timeout = 60)
{
	struct keytable_search search;

	for (uint32_t i = 0; i < 4; ++i)
		insert(i, 9);
	atomic_store(&node_at(0)->next, 3 + 1);
	cr_expect_eq(search_to_end(&search, 9), KEYTABLE_BROKEN);
	atomic_store(&node_at(5)->hash, 9);
	cr_expect(!keytable_remove(&table, 5), "found to be in no chain, in a circle");

	/* A circle of marked ones. */
	for (uint32_t i = 0; i < 4; ++i)
		atomic_fetch_or(&node_at(i)->next, MARK);
	cr_expect_neq(search_to_end(&search, 9), KEYTABLE_NODE);
	atomic_store(&node_at(6)->next, 6 + 1);
	atomic_store(&table.bucket[8], 6 + 1);
	cr_expect_eq(search_to_end(&search, 8), KEYTABLE_BROKEN);
}

/* ---- threads ---- */

/*
 * Each thread has nodes of its own and inserts keys that all want; a key may be there once.  The
 * hashes of all of them fall into two chains.  Beside them stand nodes that are never removed, and
 * that every search has to meet.
 */
enum {
	N_THREADS = 4,
	NODES_EACH = 8,
	N_KEYS = 12,
	N_STABLE = 6,
	N_TURNS = 300000,
	N_ALL = N_THREADS * NODES_EACH + N_STABLE
};

static _Atomic uint32_t n_there[N_KEYS];
static _Atomic uint32_t n_ready;
static _Atomic uint32_t n_twice, n_missed, n_broken, n_inserted, n_refused;

static uint64_t hash_of(uint32_t key)
{
	return (uint64_t)key / 2 * 64 + key % 2;
}

struct worker {
	uint32_t first; /* node */
	uint32_t key[NODES_EACH];
	unsigned seed;
};

/* END: it is not there. */
static enum keytable_step look_for(struct keytable_search *search, uint64_t hash)
{
	enum keytable_step step;

	do {
		keytable_begin(&table, search, hash);
		step = keytable_next(&table, search);
	} while (step == KEYTABLE_MOVED);
	if (step == KEYTABLE_BROKEN)
		atomic_fetch_add(&n_broken, 1);
	return step;
}

static void worker_insert(struct worker *worker, uint32_t i, uint32_t key)
{
	struct keytable_search search;

	if (look_for(&search, hash_of(key)) != KEYTABLE_END)
		return;
	if (!keytable_insert(&table, &search, worker->first + i)) {
		atomic_fetch_add(&n_refused, 1);
		return;
	}

	/* Nobody else gets one in before this one is marked, and that is after the count. */
	worker->key[i] = key;
	atomic_fetch_add(&n_inserted, 1);
	if (atomic_fetch_add(&n_there[key], 1) != 0)
		atomic_fetch_add(&n_twice, 1);
}

static void worker_remove(struct worker *worker, uint32_t i)
{
	uint32_t key = worker->key[i];

	atomic_fetch_sub(&n_there[key], 1);
	worker->key[i] = UINT32_MAX;
	if (!keytable_remove(&table, worker->first + i))
		atomic_fetch_add(&n_broken, 1);
}

static void *work(void *arg)
{
	struct worker *worker = arg;

	atomic_fetch_add(&n_ready, 1);
	while (atomic_load(&n_ready) < N_THREADS)
		(void)sched_yield();

	for (unsigned turn = 0; turn < N_TURNS; ++turn) {
		uint32_t i = (uint32_t)rand_r(&worker->seed) % NODES_EACH;
		struct keytable_search search;

		if (worker->key[i] != UINT32_MAX)
			worker_remove(worker, i);
		else
			worker_insert(worker, i, (uint32_t)rand_r(&worker->seed) % N_KEYS);

		if (turn % 4 == 0 &&
		    look_for(&search, hash_of(N_KEYS + turn / 4 % N_STABLE)) != KEYTABLE_NODE)
			atomic_fetch_add(&n_missed, 1);
	}
	return NULL;
}

Test(keytable, key_is_there_once_whoever_inserts_and_removes, .fini = teardown, .timeout = 60)
{
	struct worker workers[N_THREADS];
	pthread_t threads[N_THREADS];

	setup_nodes(N_ALL);
	for (uint32_t i = 0; i < N_STABLE; ++i)
		insert(N_THREADS * NODES_EACH + i, hash_of(N_KEYS + i));
	for (uint32_t i = 0; i < N_THREADS; ++i) {
		workers[i] = (struct worker){.first = i * NODES_EACH, .seed = i};
		memset(workers[i].key, 0xff, sizeof(workers[i].key));
		cr_assert_eq(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < N_THREADS; ++i)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);

	cr_expect_eq(n_twice, 0, "%u keys were there twice", n_twice);
	cr_expect_eq(n_missed, 0, "%u searches missed a node that was there", n_missed);
	cr_expect_eq(n_broken, 0);
	cr_expect_gt(n_inserted, N_TURNS / 10);

	for (uint32_t i = 0; i < N_THREADS; ++i) {
		for (uint32_t k = 0; k < NODES_EACH; ++k) {
			if (workers[i].key[k] != UINT32_MAX)
				worker_remove(&workers[i], k);
		}
	}
	for (uint32_t key = 0; key < N_KEYS; ++key)
		cr_expect_eq(find(hash_of(key)), 0, "key %u is still there", key);
	for (uint32_t i = 0; i < N_STABLE; ++i)
		cr_expect_eq(find(hash_of(N_KEYS + i)), UINT64_C(1)
								<< (N_THREADS * NODES_EACH + i));
	cr_log_info("%u inserted, %u refused", n_inserted, n_refused);
}
