/* SPDX-License-Identifier: MIT */
#include "libipc/core/value.h"

#include <sched.h>
#include <string.h>

#include "libipc/platform/bytes.h"
#include "libipc/platform/crash.h"

#define LATEST_CLOSED        UINT64_C(0x80)
#define LATEST_SLOT(word)    ((uint32_t)((word)&0x7f))
#define LATEST_VERSION(word) ((word) >> 8)

/*
 * How often a reader lets writers outrun it.  Each time they made n_slots - 1 values during one
 * copy, so for a small value the reader must have lost its CPU inside a few nanoseconds: twice in a
 * row is rare.  The bound exists for memory in hostile hands, where versions can be made to grow
 * for ever; it is lower where each try costs a large copy.
 */
enum { TRIES_BEFORE_YIELD = 4, TRIES_MAX = 10000, TRIES_MIN = 100 };

static unsigned value_tries(const struct value *value)
{
	uint64_t n = (UINT64_C(1) << 36) / (value->size_max + 1);

	return n > TRIES_MAX ? TRIES_MAX : n < TRIES_MIN ? TRIES_MIN : (unsigned)n;
}

static struct value_slot *value_slot(const struct value *value, uint32_t slot)
{
	return (struct value_slot *)(void *)(value->slots + value->stride * slot);
}

static uint64_t value_stride(uint64_t size_max)
{
	return sizeof(struct value_slot) + ((size_max + 63) & ~UINT64_C(63));
}

uint64_t value_slots_size(uint64_t size_max, uint32_t n_slots)
{
	uint64_t size;

	if (size_max > UINT64_C(1) << 62 || !bytes_multiply(value_stride(size_max), n_slots, &size))
		return 0;

	return size;
}

void value_view(struct value *ret, struct value_control *control, void *slots, uint64_t size_max,
		uint32_t n_slots)
{
	assert(n_slots >= VALUE_SLOTS_MIN && n_slots <= VALUE_SLOTS_MAX);
	assert(((uintptr_t)slots & 63) == 0);

	*ret = (struct value){
		.control = control,
		.slots = slots,
		.stride = value_stride(size_max),
		.size_max = size_max,
		.n_slots = n_slots,
	};
}

void value_init(const struct value *value)
{
	atomic_store_explicit(&value->control->latest, 0, memory_order_relaxed);

	for (uint32_t i = 0; i < value->n_slots; ++i) {
		struct value_slot *slot = value_slot(value, i);

		atomic_store_explicit(&slot->sequence, 0, memory_order_relaxed);
		atomic_store_explicit(&slot->size, 0, memory_order_relaxed);
	}
}

uint64_t value_version(const struct value *value)
{
	return LATEST_VERSION(atomic_load_explicit(&value->control->latest, memory_order_acquire));
}

bool value_is_closed(const struct value *value)
{
	return atomic_load_explicit(&value->control->latest, memory_order_acquire) & LATEST_CLOSED;
}

/* One copy.  COLLIDED: the slot does not hold that version, or not any more. */
static enum value_result value_copy(const struct value *value, uint64_t latest, void *buffer,
				    uint64_t size, uint64_t *ret_size)
{
	const struct value_slot *slot = value_slot(value, LATEST_SLOT(latest));
	uint64_t sequence = 2 * LATEST_VERSION(latest);
	uint64_t n;

	/* [V1] What the slot held when it got this sequence is read, or something newer, which [V2]
	 * finds.  Pairs with [V4]. */
	if (atomic_load_explicit(&slot->sequence, memory_order_acquire) != sequence)
		return VALUE_COLLIDED;

	n = atomic_load_explicit(&slot->size, memory_order_relaxed);
	if (n <= size && n <= value->size_max)
		bytes_read_shared(buffer, slot->data, n);

	/* [V2] If any byte was of a later filling, its odd sequence is seen here.  Pairs with [V3].
	 */
	atomic_thread_fence(memory_order_acquire);
	if (atomic_load_explicit(&slot->sequence, memory_order_relaxed) != sequence)
		return VALUE_COLLIDED;

	if (n > value->size_max)
		return VALUE_BROKEN;

	*ret_size = n;
	return n > size ? VALUE_TOO_LARGE : VALUE_DONE;
}

enum value_result value_read(const struct value *value, uint64_t newer_than, void *buffer,
			     uint64_t size, uint64_t *ret_size, uint64_t *ret_version)
{
	/* [V5] The slot is seen as it was when `latest` named it.  Pairs with [V6]. */
	uint64_t latest = atomic_load_explicit(&value->control->latest, memory_order_acquire);

	for (unsigned n_tries = 1;; ++n_tries) {
		enum value_result r;
		uint64_t next;

		if (LATEST_VERSION(latest) <= newer_than)
			return VALUE_NONE;
		if (LATEST_SLOT(latest) >= value->n_slots)
			return VALUE_BROKEN;

		r = value_copy(value, latest, buffer, size, ret_size);
		if (LIKELY(r == VALUE_DONE))
			*ret_version = LATEST_VERSION(latest);
		if (LIKELY(r != VALUE_COLLIDED))
			return r;

		if (n_tries >= TRIES_BEFORE_YIELD) {
			if (n_tries >= value_tries(value))
				return VALUE_COLLIDED;
			(void)sched_yield();
		}

		/* The slot was filled again, so `latest` has moved on: the proof is in value.h.
		 * [V7] Pairs with [V3], [V4]. */
		atomic_thread_fence(memory_order_acquire);
		next = atomic_load_explicit(&value->control->latest, memory_order_acquire);
		if (LATEST_VERSION(next) <= LATEST_VERSION(latest))
			return VALUE_BROKEN;

		latest = next;
	}
}

/* Whether what the last writer left is what a writer leaves: else this writer says so, instead of
 * covering it up. */
static bool value_is_sound(const struct value *value, uint64_t latest)
{
	const struct value_slot *slot;

	if (LATEST_VERSION(latest) == 0)
		return LATEST_SLOT(latest) == 0;
	if (LATEST_SLOT(latest) >= value->n_slots || LATEST_VERSION(latest) == VALUE_VERSION_MAX)
		return false;

	slot = value_slot(value, LATEST_SLOT(latest));
	return atomic_load_explicit(&slot->sequence, memory_order_relaxed) ==
		       2 * LATEST_VERSION(latest) &&
	       atomic_load_explicit(&slot->size, memory_order_relaxed) <= value->size_max;
}

enum value_result value_begin(const struct value *value, struct value_edit *ret)
{
	uint64_t latest = atomic_load_explicit(&value->control->latest, memory_order_relaxed);
	struct value_edit edit = {.latest = latest, .version = LATEST_VERSION(latest) + 1};

	if (!value_is_sound(value, latest))
		return VALUE_BROKEN;
	if (latest & LATEST_CLOSED)
		return VALUE_CLOSED;

	/* In turn, so that a slot lives as long as it can after `latest` has left it. */
	edit.slot = LATEST_SLOT(latest) + 1 < value->n_slots ? LATEST_SLOT(latest) + 1 : 0;

	/* [V3] The odd sequence comes after `latest` named another slot, and before any byte of the
	 * new filling.  Pairs with [V2], [V7]. */
	atomic_store_explicit(&value_slot(value, edit.slot)->sequence, 2 * edit.version + 1,
			      memory_order_release);
	atomic_thread_fence(memory_order_release);

	CRASH_POINT();
	*ret = edit;
	return VALUE_DONE;
}

void *value_data(const struct value *value, const struct value_edit *edit)
{
	return value_slot(value, edit->slot)->data;
}

enum value_result value_copy_latest(const struct value *value, const struct value_edit *edit,
				    uint64_t *ret_size)
{
	const struct value_slot *from;
	uint64_t size;

	if (LATEST_VERSION(edit->latest) == 0) {
		memset(value_data(value, edit), 0, value->size_max);
		*ret_size = 0;
		return VALUE_DONE;
	}

	from = value_slot(value, LATEST_SLOT(edit->latest));
	size = atomic_load_explicit(&from->size, memory_order_relaxed);
	if (size > value->size_max)
		return VALUE_BROKEN;

	/* Nobody writes the latest slot, and whoever still reads the other one finds its sequence
	 * odd. */
	bytes_write_shared(value_data(value, edit), from->data, size);
	*ret_size = size;
	return VALUE_DONE;
}

enum value_result value_commit(const struct value *value, const struct value_edit *edit,
			       uint64_t size)
{
	struct value_slot *slot = value_slot(value, edit->slot);
	uint64_t latest = edit->latest;

	assert(size <= value->size_max);

	atomic_store_explicit(&slot->size, size, memory_order_relaxed);

	/* [V4] Size and bytes are there before the even sequence.  Pairs with [V1]. */
	atomic_store_explicit(&slot->sequence, 2 * edit->version, memory_order_release);

	CRASH_POINT();

	/*
	 * [V6] The whole slot is there before `latest` names it.  Pairs with [V5].  A
	 * compare-and-swap rather than a store, since CLOSED comes without the lock: what was
	 * closed stays as it is.
	 */
	if (atomic_compare_exchange_strong_explicit(&value->control->latest, &latest,
						    edit->version << 8 | edit->slot,
						    memory_order_release, memory_order_relaxed))
		return VALUE_DONE;

	return latest == (edit->latest | LATEST_CLOSED) ? VALUE_CLOSED : VALUE_BROKEN;
}

void value_close(const struct value *value)
{
	/* [V8] Release: what the closer did before is seen by whoever sees it closed. */
	atomic_fetch_or_explicit(&value->control->latest, LATEST_CLOSED, memory_order_release);
}
