/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_CORE_KEYTABLE_H
#define LIBIPC_CORE_KEYTABLE_H

/*
 * Chains of nodes by hash, without locks: nodes are inserted at the head of their bucket's chain
 * and removed from anywhere, and whoever is stopped or killed in between is helped along by the
 * next one who passes.  What a node means, and whether its key is still in use, is the owner's
 * matter; a chain only says which nodes there are.
 *
 * A link is {changes, mark, node + 1}; each store of a link counts its changes up, so that a link
 * that was read and compared later is the same link.
 *
 * field     written by          rule
 * bucket[]  anybody             link to the first node.  An insertion is one exchange of it, which
 *                               fails if anything was inserted since it was read: so a search that
 *                               found nothing, and an insertion that began from the same link, make
 *                               sure that a key is there once
 * next      the inserter        before the node is in a chain
 *           anybody             to pass over the next node, which is marked
 *           who removes it      sets the mark: the link is frozen, the node is on its way out.  The
 *                               node is out when the link that leads to it passes over it
 * hash      the inserter        before the node is in a chain; the bucket is in its low bits
 *
 * Deaths: between mark and exchange the node is still in the chain, and the next search that meets
 * it takes it out.  A node that was never inserted, or is out already, is removed by finding that
 * it is not there.
 *
 * Nodes are of a fixed array and never unmapped, so a search that stands on a node that has moved
 * to another chain reads a wrong link and not wrong memory; it notices by the link that led it
 * there, and starts again.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "libipc/platform/compiler.h"

#define KEYTABLE_NODES_MAX ((UINT32_C(1) << 23) - 1)

struct keynode {
	_Atomic uint64_t next;
	_Atomic uint64_t hash;
};
ASSERT_SIZE(struct keynode, 16);

/* A process's view; everything in it is private and trusted. */
struct keytable {
	_Atomic uint64_t *bucket;
	uint64_t mask;       /* number of buckets - 1 */
	unsigned char *node; /* the first struct keynode */
	uint64_t stride;     /* bytes from one to the next */
	uint32_t n_nodes;
};

/* Buckets for so many nodes: a power of two. */
uint64_t keytable_n_buckets(uint32_t n_nodes);

/* By the creator alone. */
void keytable_init(const struct keytable *table);

enum keytable_step {
	KEYTABLE_NODE, /* search->node is one of the chain, and its hash is the one that is searched
			*/
	KEYTABLE_END,
	KEYTABLE_MOVED, /* the chain changed underfoot: begin again */
	KEYTABLE_BROKEN,
};

struct keytable_search {
	uint64_t hash;
	uint64_t head;          /* the bucket's link, as it was at the beginning */
	_Atomic uint64_t *link; /* the link that led to `node` */
	uint64_t value;         /* and what it was */
	uint32_t node;
	uint32_t n_left; /* steps */
};

void keytable_begin(const struct keytable *table, struct keytable_search *ret, uint64_t hash);
enum keytable_step keytable_next(const struct keytable *table, struct keytable_search *search);

/*
 * The caller's own node, not in any chain, becomes the first of the searched chain.  False: the
 * chain has a new first node, search again.
 */
bool keytable_insert(const struct keytable *table, const struct keytable_search *search,
		     uint32_t node);

/* Whether the node that the last step gave has been in the chain until now: what was read of it
 * since then was of that time. */
bool keytable_is_there(const struct keytable_search *search);

/* Whether the searched chain has another first node than when the search began. */
bool keytable_has_changed(const struct keytable *table, const struct keytable_search *search);

/* The caller's own node is in no chain afterwards.  False: broken. */
bool keytable_remove(const struct keytable *table, uint32_t node);

#endif
