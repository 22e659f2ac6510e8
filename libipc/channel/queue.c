/* SPDX-License-Identifier: MIT */

/*
 * What both roles of a queue do: having a row, giving back, sweeping up after the dead.
 */

#include "libipc/channel/queue.h"

#include "libipc/channel/queue_block.h"
#include "libipc/platform/clock.h"

int queue_break(const struct queue *queue)
{
	return header_break(&queue->segment->header, HEADER_CORRUPT);
}

bool queue_is_live(void *subject, uint32_t block, uint32_t use)
{
	struct queue *queue = ((struct queue_live *)subject)->queue;
	const struct queue_class_view *class = ((struct queue_live *)subject)->class;

	return block < queue->layout.items_max && queue_word_waits(queue_load(class, block), use);
}

/* ---- what a row holds ---- */

typedef void (*seen_fn)(struct queue *queue, struct queue_seen *seen);

static void each_block(struct queue *queue, seen_fn fn)
{
	for (uint32_t i = 0; i < queue->layout.n_classes; ++i) {
		for (uint32_t block = 0; block < queue->layout.items_max; ++block) {
			struct queue_seen seen = {&queue->class[i], block,
						  queue_load(&queue->class[i], block)};

			if (queue_word_phase(seen.word) != QUEUE_FREE)
				fn(queue, &seen);
		}
	}
}

/* Of a push that nobody is at work at. */
static void drop_ready(struct queue *queue, struct queue_seen *seen)
{
	if (!queue_is_committed(queue, seen))
		(void)queue_room_give(queue, seen);
}

static void give_back_one(struct queue *queue, struct queue_seen *seen)
{
	if (queue_word_row(seen->word) != queue->row)
		return;

	switch (queue_word_phase(seen->word)) {
	case QUEUE_CLAIMED:
		(void)queue_room_give(queue, seen);
		break;
	case QUEUE_LEASED:
		(void)queue_return_own(queue, seen);
		break;
	case QUEUE_FREE:
	case QUEUE_READY:
	case QUEUE_RETURNED:
	case QUEUE_MOVING:
	case QUEUE_ENDED:
		break;
	}
}

void queue_give_back(struct queue *queue)
{
	each_block(queue, give_back_one);
}

/* Nobody is inside any more, or the row's last owner is gone. */
static void clear_one(struct queue *queue, struct queue_seen *seen)
{
	give_back_one(queue, seen);
	if (queue_word_row(seen->word) != queue->row)
		return;

	if (queue_word_phase(seen->word) == QUEUE_READY)
		drop_ready(queue, seen);
	else if (queue_word_phase(seen->word) == QUEUE_MOVING)
		queue_resolve(queue, seen);
}

void queue_end(struct queue *queue)
{
	each_block(queue, clear_one);
	CRASH_POINT();
	rows_give(&queue->segment->rows, queue->row, queue->handle_id);
}

/* The dead may have done one step of two, and told nobody. */
static void finish_halves(struct queue *queue)
{
	for (uint32_t i = 0; i < queue->layout.n_classes; ++i) {
		struct queue_class *shared = queue->class[i].shared;

		atomic_store_explicit(&shared->suspect, 1, memory_order_relaxed);
		for (uint32_t group = 0; group < queue->layout.n_groups; ++group)
			atomic_fetch_add_explicit(&shared->freed[group], 1, memory_order_relaxed);
		atomic_fetch_add_explicit(&shared->returned, 1, memory_order_seq_cst);
	}

	queue_notify(queue, QUEUE_SIDE_CONSUMERS);
	queue_notify(queue, QUEUE_SIDE_PRODUCERS);
}

static void sweep_next_time(struct queue *queue)
{
	uint32_t attention = atomic_load_explicit(queue->attention, memory_order_acquire);

	atomic_store_explicit(&queue->swept, attention - 1, memory_order_relaxed);
}

int queue_begin(struct queue *queue)
{
	bool is_inherited;

	if (!rows_take(&queue->segment->rows, queue->table, queue->handle_id, queue->process,
		       &queue->row, &is_inherited))
		return liveness_handle_is(queue->table, queue->handle_id) ? IPC_ENOSPC : IPC_ESTALE;

	/* Nobody will find a dead one's row any more: all that a sweep does is done here. */
	if (is_inherited) {
		each_block(queue, clear_one);
		finish_halves(queue);
	}

	/* Others died before: this client may never be told of them. */
	sweep_next_time(queue);
	return 0;
}

/* ---- sweeping ---- */

/* Rows of the dead that nobody may write by any more; more of them come another time. */
#define SWEPT_ROWS_MAX 64

struct swept_rows {
	uint32_t n;
	bool any_lingers; /* a dead one whose process is not gone */
	uint32_t row[SWEPT_ROWS_MAX];
	uint64_t owner[SWEPT_ROWS_MAX];
	bool is_all;
};

static bool rows_are_dead(struct queue *queue, struct swept_rows *ret)
{
	struct rows *rows = &queue->segment->rows;
	uint32_t top = rows_top(rows);
	bool any = false;

	ret->n = 0;
	ret->any_lingers = false;
	ret->is_all = true;
	for (uint32_t row = 0; row < top; ++row) {
		uint64_t owner = rows_owner(rows, row);

		if (owner == 0 || rows_is_alive(rows, queue->table, row))
			continue;

		any = true;
		if (!queue_row_is_free(queue, row)) {
			ret->any_lingers = true;
			continue;
		}
		if (ret->n == SWEPT_ROWS_MAX) {
			ret->is_all = false;
			break;
		}
		ret->row[ret->n] = row;
		ret->owner[ret->n] = owner;
		++ret->n;
	}

	return any;
}

static void sweep_one(struct queue *queue, struct queue_seen *seen)
{
	const struct rows *rows = &queue->segment->rows;
	uint32_t row = queue_word_row(seen->word);

	/* The word first: one that a new owner of the row wrote is seen after that owner. */
	switch (queue_word_phase(seen->word)) {
	case QUEUE_LEASED:
		if (!rows_is_alive(rows, queue->table, row))
			(void)queue_return(queue, seen);
		break;
	case QUEUE_MOVING:
		if (!rows_is_alive(rows, queue->table, row))
			queue_resolve(queue, seen);
		break;
	case QUEUE_CLAIMED:
		if (!rows_is_alive(rows, queue->table, row) && queue_row_is_free(queue, row))
			(void)queue_room_give(queue, seen);
		break;
	case QUEUE_READY:
		if (!rows_is_alive(rows, queue->table, row) && !queue_is_committed(queue, seen) &&
		    queue_row_is_free(queue, row))
			drop_ready(queue, seen);
		break;
	case QUEUE_ENDED:
		queue_finish(queue, seen);
		break;
	case QUEUE_FREE:
	case QUEUE_RETURNED:
		break;
	}
}

/* Soon at first, since a process that ends is gone in a moment; one that was only held dead may
 * live for ever. */
#define LINGER_MIN_NS (UINT64_C(50) * 1000)
#define LINGER_MAX_NS (UINT64_C(100) * NS_PER_MS)

static bool linger_is_due(const struct queue *queue)
{
	uint64_t until_ns = atomic_load_explicit(&queue->lingers_until, memory_order_relaxed);

	return UNLIKELY(until_ns) && clock_now_ns() >= until_ns;
}

static void linger_set(struct queue *queue, bool any, bool is_told)
{
	uint64_t since_ns = atomic_load_explicit(&queue->lingers_since, memory_order_relaxed);
	uint64_t now_ns, wait_ns;

	if (!any) {
		atomic_store_explicit(&queue->lingers_until, 0, memory_order_relaxed);
		return;
	}

	now_ns = clock_now_ns();
	if (is_told || now_ns < since_ns) {
		since_ns = now_ns;
		atomic_store_explicit(&queue->lingers_since, since_ns, memory_order_relaxed);
	}
	wait_ns = now_ns - since_ns;
	if (wait_ns < LINGER_MIN_NS)
		wait_ns = LINGER_MIN_NS;
	if (wait_ns > LINGER_MAX_NS)
		wait_ns = LINGER_MAX_NS;
	atomic_store_explicit(&queue->lingers_until, now_ns + wait_ns, memory_order_relaxed);
}

static void give_rows(struct queue *queue, const struct swept_rows *swept)
{
	CRASH_POINT();
	for (uint32_t i = 0; i < swept->n; ++i)
		rows_give(&queue->segment->rows, swept->row[i], swept->owner[i]);
}

void queue_sweep_now(struct queue *queue)
{
	/* The attention word before what the broker told. */
	uint32_t attention = atomic_load_explicit(queue->attention, memory_order_acquire);
	bool is_told = attention != atomic_load_explicit(&queue->swept, memory_order_relaxed);
	struct swept_rows swept;

	if (!is_told && !linger_is_due(queue))
		return;

	if (rows_are_dead(queue, &swept)) {
		each_block(queue, sweep_one);

		/* Who lingers may do halves of steps for long; it is not news each time. */
		if (is_told || swept.n > 0)
			finish_halves(queue);
		give_rows(queue, &swept);
	}
	linger_set(queue, swept.any_lingers, is_told);
	atomic_store_explicit(&queue->swept, swept.is_all ? attention : attention - 1,
			      memory_order_relaxed);
}

void queue_sweep_anyway(struct queue *queue)
{
	sweep_next_time(queue);
	queue_sweep(queue);
}
