/* SPDX-License-Identifier: MIT */
#include "libipc/core/keytable.h"

#include "libipc/platform/crash.h"

/* {changes 40 bits, mark, node + 1 in 23 bits} */
#define LINK_NODE    UINT64_C(0x7fffff)
#define LINK_MARK    UINT64_C(0x800000)
#define LINK_CHANGES 24

/* How often something is tried again because somebody else got on.  Others cannot get on so often
 * while one of us stands still, unless the links are not ours. */
#define TRIES_MAX (1u << 20)

static uint64_t link_change(uint64_t old, uint64_t to)
{
	return ((old >> LINK_CHANGES) + 1) << LINK_CHANGES | to;
}

static struct keynode *keytable_node(const struct keytable *table, uint32_t node)
{
	return (struct keynode *)(void *)(table->node + node * table->stride);
}

uint64_t keytable_n_buckets(uint32_t n_nodes)
{
	uint64_t n = 1;

	while (n < n_nodes)
		n *= 2;

	return n;
}

void keytable_init(const struct keytable *table)
{
	for (uint64_t i = 0; i <= table->mask; ++i)
		atomic_store_explicit(&table->bucket[i], 0, memory_order_relaxed);
	for (uint32_t i = 0; i < table->n_nodes; ++i) {
		atomic_store_explicit(&keytable_node(table, i)->next, 0, memory_order_relaxed);
		atomic_store_explicit(&keytable_node(table, i)->hash, 0, memory_order_relaxed);
	}
}

/* ---- search ---- */

void keytable_begin(const struct keytable *table, struct keytable_search *ret, uint64_t hash)
{
	_Atomic uint64_t *bucket = &table->bucket[hash & table->mask];

	/* [C1] What the node held when it was inserted is seen.  Pairs with [C2]. */
	uint64_t head = atomic_load_explicit(bucket, memory_order_acquire);

	*ret = (struct keytable_search){
		.hash = hash,
		.head = head,
		.link = bucket,
		.value = head,
		.n_left = table->n_nodes,
	};
}

/* Takes the marked node that search->link leads to out of the chain. */
static bool search_pass_over(const struct keytable *table, struct keytable_search *search,
			     uint64_t next)
{
	uint64_t value = search->value;
	uint64_t passed = link_change(value, next & LINK_NODE);

	if (!atomic_compare_exchange_strong_explicit(search->link, &value, passed,
						     memory_order_acq_rel, memory_order_relaxed))
		return false;

	search->value = passed;
	if (search->link == &table->bucket[search->hash & table->mask])
		search->head = passed;
	return true;
}

enum keytable_step keytable_next(const struct keytable *table, struct keytable_search *search)
{
	while (search->value & LINK_NODE) {
		uint32_t n = (uint32_t)(search->value & LINK_NODE);
		struct keynode *node;
		uint64_t next, hash;

		if (n > table->n_nodes)
			return KEYTABLE_BROKEN;

		/* Nothing comes into the chain behind us, so there are no more steps than nodes,
		 * unless it runs in a circle. */
		if (search->n_left-- == 0)
			return KEYTABLE_BROKEN;

		node = keytable_node(table, n - 1);
		/* [C3] Both are read before the link is looked at again: as long as that leads
		 * here, they are of a node of this chain. */
		next = atomic_load_explicit(&node->next, memory_order_acquire);
		hash = atomic_load_explicit(&node->hash, memory_order_acquire);
		if (atomic_load_explicit(search->link, memory_order_acquire) != search->value)
			return KEYTABLE_MOVED;

		if (next & LINK_MARK) {
			if (!search_pass_over(table, search, next))
				return KEYTABLE_MOVED;
			continue;
		}

		search->link = &node->next;
		search->value = next;
		if (hash == search->hash) {
			search->node = n - 1;
			return KEYTABLE_NODE;
		}
	}

	return KEYTABLE_END;
}

/* ---- change ---- */

bool keytable_insert(const struct keytable *table, const struct keytable_search *search,
		     uint32_t node)
{
	struct keynode *mine = keytable_node(table, node);
	uint64_t head = search->head;

	/* Relaxed: nobody else stores to it while it is in no chain. */
	atomic_store_explicit(&mine->hash, search->hash, memory_order_relaxed);
	atomic_store_explicit(&mine->next,
			      link_change(atomic_load_explicit(&mine->next, memory_order_relaxed),
					  head & LINK_NODE),
			      memory_order_relaxed);
	CRASH_POINT();

	/* [C2] The node is whole before it is found.  Pairs with [C1], [C3]. */
	return atomic_compare_exchange_strong_explicit(&table->bucket[search->hash & table->mask],
						       &head, link_change(head, node + 1),
						       memory_order_acq_rel, memory_order_relaxed);
}

bool keytable_is_there(const struct keytable_search *search)
{
	/* Its own link: frozen by a mark before it becomes another node.  What the caller read was
	 * read by an acquire. */
	return atomic_load_explicit(search->link, memory_order_acquire) == search->value;
}

bool keytable_has_changed(const struct keytable *table, const struct keytable_search *search)
{
	return atomic_load_explicit(&table->bucket[search->hash & table->mask],
				    memory_order_acquire) != search->head;
}

static void keytable_mark(struct keynode *node)
{
	uint64_t next = atomic_load_explicit(&node->next, memory_order_relaxed);

	/* Others change it while they pass over the next node. */
	while (!(next & LINK_MARK) &&
	       !atomic_compare_exchange_weak_explicit(
		       &node->next, &next, link_change(next, (next & LINK_NODE) | LINK_MARK),
		       memory_order_acq_rel, memory_order_relaxed))
		;
}

bool keytable_remove(const struct keytable *table, uint32_t node)
{
	struct keynode *mine = keytable_node(table, node);
	uint64_t hash = atomic_load_explicit(&mine->hash, memory_order_relaxed);

	keytable_mark(mine);
	CRASH_POINT();

	/* Whoever goes through the whole chain has passed over all that was marked before. */
	for (unsigned i = 0; i < TRIES_MAX; ++i) {
		struct keytable_search search;
		enum keytable_step step;

		keytable_begin(table, &search, hash);
		do
			step = keytable_next(table, &search);
		while (step == KEYTABLE_NODE);

		if (step != KEYTABLE_MOVED)
			return step == KEYTABLE_END;
	}

	return false;
}
