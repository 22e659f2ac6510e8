/* SPDX-License-Identifier: MIT */
#include "libipc/core/ring_ban.h"

#include "libipc/platform/crash.h"
#include "libipc/platform/peer.h"

/* Of a slot that others keep changing, which only broken ones do. */
#define TRIES_MAX 1000

static struct ring_ban *ban_at(const struct ring_view *view, uint32_t i)
{
	return &view->ring->ban[i];
}

static uint32_t n_bans(const struct ring_view *view)
{
	uint32_t n = atomic_load_explicit(&view->ring->n_bans, memory_order_acquire);

	return n < RING_BANS_MAX ? n : RING_BANS_MAX;
}

static uint64_t ban_who(const struct ring_ban *ban)
{
	return atomic_load_explicit(&ban->who, memory_order_acquire);
}

static uint64_t ban_from(const struct ring_ban *ban)
{
	return ring_position(atomic_load_explicit(&ban->from, memory_order_relaxed));
}

static bool ban_is_known(const struct ring_ban *ban, uint64_t who)
{
	uint64_t to = atomic_load_explicit(&ban->to, memory_order_acquire);

	return ring_ban_is_known(who, to);
}

bool ring_owner_is_open(const struct liveness_table *table, uint64_t who)
{
	uint64_t id =
		atomic_load_explicit(&table->handle[ring_owner_slot(who)], memory_order_acquire);

	return id != 0 && !(id & LIVENESS_OVERTAKEN) &&
	       ring_owner(id, ring_owner_process(who)) == who;
}

/*
 * Whether this one had the end before.  Of who is far off the word tells, which is looked at after
 * the ban: as long as `me` stands there nobody was banned who has followed.  Not whether `me` is
 * open: who has the end while the next one is on his way has to complete what he began.
 */
static bool ban_is_before(const struct ring_view *view, const struct liveness_table *table,
			  uint64_t who, uint64_t me)
{
	if (ring_owner_is_newer(me, who))
		return true;

	return me != who && !ring_owner_is_open(table, who) &&
	       atomic_load_explicit(&view->ring->producer, memory_order_acquire) == me;
}

bool ring_owner_is_gone(const struct ring_view *view, const struct liveness_table *table,
			uint64_t who)
{
	uint64_t id =
		atomic_load_explicit(&table->handle[ring_owner_slot(who)], memory_order_acquire);
	uint32_t process = ring_owner_process(who);
	bool can_ask = process != 0 && !view->is_stranger;

	/* That it was overtaken is all that a stranger knows; the others need not wait for the
	 * broker to hear of its death. */
	if (id != 0 && ring_owner(id, process) == who && !(can_ask && (id & LIVENESS_OVERTAKEN)))
		return false;

	return !can_ask || peer_is_gone((pid_t)process);
}

/* Somewhere between tail and head the stream jumps over it. */
static bool ban_is_ahead(const struct ring_view *view, const struct ring_ban *ban)
{
	uint64_t tail =
		ring_position(atomic_load_explicit(&view->ring->tail, memory_order_acquire));
	uint64_t head =
		ring_position(atomic_load_explicit(&view->ring->head, memory_order_acquire));
	uint64_t from = ban_from(ban);

	/* At the head the jump may be about to be made. */
	return ring_distance(tail, from) <= ring_distance(tail, head);
}

/* Whether he may still write there. */
static bool ban_holds(const struct ring_view *view, const struct liveness_table *table,
		      const struct ring_ban *ban, uint64_t who)
{
	return atomic_load_explicit(&ban->left, memory_order_acquire) != who &&
	       !ring_owner_is_gone(view, table, who);
}

/* Unless it is another's. */
static void ban_free(struct ring_ban *ban, uint64_t who)
{
	(void)atomic_compare_exchange_strong_explicit(&ban->who, &who, 0, memory_order_acq_rel,
						      memory_order_relaxed);
}

/* Known for nobody, and not what stood there. */
static uint64_t ban_to_nobody(uint64_t to)
{
	return ((to >> RING_POSITION_BITS) + 2) << RING_POSITION_BITS &
	       ~(UINT64_C(1) << RING_POSITION_BITS);
}

/*
 * One that has no range, unless it gets one now, or the slot is another's.  `to` first: a taker
 * that is late with a range must not give it to who is banned here after this, where others may
 * have sent by then.
 */
static void ban_give_back(struct ring_ban *ban, uint64_t who)
{
	uint64_t to = atomic_load_explicit(&ban->to, memory_order_acquire);

	if (ban_who(ban) == who && !ring_ban_is_known(who, to) &&
	    atomic_compare_exchange_strong_explicit(&ban->to, &to, ban_to_nobody(to),
						    memory_order_acq_rel, memory_order_relaxed))
		ban_free(ban, who);
}

/* False: it is not needed any more, and free if that could be done. */
static bool ban_is_needed(const struct ring_view *view, const struct liveness_table *table,
			  struct ring_ban *ban, uint64_t who)
{
	if (ban_holds(view, table, ban, who))
		return true;

	if (!ban_is_known(ban, who))
		ban_give_back(ban, who);
	else if (!ban_is_ahead(view, ban))
		ban_free(ban, who);
	return false;
}

uint64_t ring_past_bans(const struct ring_view *view, const struct liveness_table *table,
			uint64_t at, uint64_t units)
{
	uint32_t n = n_bans(view);

	for (uint32_t i = 0; i < n; ++i) {
		struct ring_ban *ban = ban_at(view, i);
		uint64_t who = ban_who(ban);
		uint64_t from, to, past;

		if (who == 0 || !ban_is_known(ban, who))
			continue;

		from = ban_from(ban);
		to = atomic_load_explicit(&ban->to, memory_order_relaxed);
		past = ring_past(view, at, units, from, ring_distance(from, ring_position(to)));
		if (past != at && ban_is_needed(view, table, ban, who))
			at = past;
	}

	return at;
}

uint64_t ring_banned_within(const struct ring_view *view, uint64_t at, uint64_t units,
			    uint64_t more)
{
	uint32_t n = n_bans(view);
	uint64_t sum = 0;

	for (uint32_t i = 0; i < n; ++i) {
		const struct ring_ban *ban = ban_at(view, i);
		uint64_t who = ban_who(ban), from, to;

		if (who == 0 || !ban_is_known(ban, who))
			continue;

		from = ban_from(ban);
		to = atomic_load_explicit(&ban->to, memory_order_relaxed);
		if (((from - at) & view->mask) < units)
			sum += (ring_distance(from, ring_position(to)) & view->mask) + more;
	}
	return sum;
}

uint64_t ring_jump(const struct ring_view *view, uint64_t position)
{
	uint32_t n = n_bans(view);
	uint64_t furthest = 0;

	/* There are several of one place if takers died, or were taken over, before they jumped. */
	for (uint32_t i = 0; i < n; ++i) {
		const struct ring_ban *ban = ban_at(view, i);
		uint64_t who = ban_who(ban), distance;

		if (who == 0 || !ban_is_known(ban, who) || ban_from(ban) != position)
			continue;
		distance = ring_distance(position,
					 atomic_load_explicit(&ban->to, memory_order_relaxed));
		if (distance > furthest)
			furthest = distance;
	}

	return (position + furthest) & RING_POSITION_MASK;
}

/* Before its range is used: who looks for bans looks at slots below n_bans alone. */
static void raise_n_bans(const struct ring_view *view, uint32_t n)
{
	uint32_t seen = atomic_load_explicit(&view->ring->n_bans, memory_order_relaxed);

	while (seen < n &&
	       !atomic_compare_exchange_weak_explicit(&view->ring->n_bans, &seen, n,
						      memory_order_acq_rel, memory_order_relaxed))
		;
}

/* One more slot for `who`.  0; IPC_EBUSY. */
static int ban_take(const struct ring_view *view, const struct liveness_table *table, uint64_t who,
		    struct ring_ban **ret)
{
	for (uint32_t i = 0; i < RING_BANS_MAX; ++i) {
		struct ring_ban *ban = ban_at(view, i);
		uint64_t seen = ban_who(ban);

		/* One without a range is left to the next who has the end: whoever is late would
		 * tell the range of a slot that is somebody's again. */
		if (seen != 0) {
			if (ban_is_known(ban, seen))
				(void)ban_is_needed(view, table, ban, seen);
			seen = 0;
		}

		raise_n_bans(view, i + 1);
		if (atomic_compare_exchange_strong_explicit(
			    &ban->who, &seen, who, memory_order_acq_rel, memory_order_relaxed)) {
			*ret = ban;
			return 0;
		}
	}

	return IPC_EBUSY;
}

int ring_ban(const struct ring_view *view, const struct liveness_table *table, uint64_t who)
{
	struct ring_ban *ban;

	for (uint32_t i = 0; i < RING_BANS_MAX; ++i) {
		if (ban_who(ban_at(view, i)) == who)
			return 0;
	}

	return ban_take(view, table, who, &ban);
}

bool ring_has_pending_bans(const struct ring_view *view, const struct liveness_table *table,
			   uint64_t me)
{
	uint32_t n = n_bans(view);
	bool has = false;

	for (uint32_t i = 0; i < n; ++i) {
		struct ring_ban *ban = ban_at(view, i);
		uint64_t who = ban_who(ban);

		/* Given back at once if he is gone meanwhile. */
		if (who != 0 && ban_is_before(view, table, who, me) && !ban_is_known(ban, who) &&
		    ban_is_needed(view, table, ban, who))
			has = true;
	}

	return has;
}

static bool teller_stays(const struct ring_taker *taker)
{
	return atomic_load_explicit(&taker->view->ring->teller, memory_order_acquire) ==
	       taker->teller;
}

static bool taker_has_tag(const struct ring_taker *taker)
{
	return ring_tag(atomic_load_explicit(&taker->view->ring->head, memory_order_acquire)) ==
	       taker->tag;
}

/*
 * A taker that is late, whose slot has got a new owner or a range since, must not undo that: so by
 * exchanges, of words that hold bits of `who`; nor give a range to one who was banned again, when
 * others have sent there: so what it has found still holds after the look at those words.
 *
 * 0: it has one, or he has left; IPC_ESTALE: that is the next taker's now; IPC_EAGAIN: the slot was
 * given back, by one who is late.
 */
static int ban_complete(const struct ring_taker *taker, struct ring_ban *ban, uint64_t from,
			uint64_t to)
{
	uint64_t who = taker->who;

	for (int i = 0; i < TRIES_MAX; ++i) {
		uint64_t seen_from = atomic_load_explicit(&ban->from, memory_order_acquire);
		uint64_t seen_to = atomic_load_explicit(&ban->to, memory_order_acquire);

		if (ban_who(ban) != who)
			return IPC_EAGAIN;
		if (ring_ban_is_known(who, seen_to))
			return 0;

		/* [R11] He may have left before this slot was his.  Pairs with [R10]. */
		atomic_thread_fence(memory_order_seq_cst);
		if (!teller_stays(taker)) {
			ban_give_back(ban, who);
			return 0;
		}
		if (!taker_has_tag(taker))
			return IPC_ESTALE;
		if (!atomic_compare_exchange_strong_explicit(
			    &ban->from, &seen_from, ring_ban_to(who, from), memory_order_acq_rel,
			    memory_order_relaxed))
			continue;
		CRASH_POINT();
		if (atomic_compare_exchange_strong_explicit(
			    &ban->to, &seen_to, ring_ban_to(who, to), memory_order_acq_rel,
			    memory_order_relaxed))
			return 0;
	}

	return IPC_EBADMSG;
}

uint64_t ring_give_back_bans(const struct ring_view *view, const struct liveness_table *table,
			     uint64_t me, uint64_t teller)
{
	uint32_t n = n_bans(view);
	uint64_t left = 0;

	for (uint32_t i = 0; i < n; ++i) {
		struct ring_ban *ban = ban_at(view, i);
		uint64_t who = ban_who(ban);

		if (who == 0 || !ban_is_before(view, table, who, me) || ban_is_known(ban, who))
			continue;

		if (ring_teller_is(teller, who))
			left = who;
		else
			ban_give_back(ban, who);
	}

	return left;
}

int ring_complete_bans(const struct ring_taker *taker, uint64_t from, uint64_t to)
{
	uint32_t n = n_bans(taker->view);

	for (uint32_t i = 0; i < n; ++i) {
		struct ring_ban *ban = ban_at(taker->view, i);
		int r;

		if (ban_who(ban) != taker->who || ban_is_known(ban, taker->who))
			continue;

		/* Among those may be what the next taker wants for strays. */
		if (!taker_has_tag(taker))
			return IPC_ESTALE;
		if (from == to) {
			ban_give_back(ban, taker->who);
			continue;
		}
		r = ban_complete(taker, ban, from, to);
		if (r < 0 && r != IPC_EAGAIN)
			return r;
	}

	return 0;
}

static bool has_ban(const struct ring_taker *taker, uint64_t from, uint64_t to)
{
	uint32_t n = n_bans(taker->view);

	for (uint32_t i = 0; i < n; ++i) {
		const struct ring_ban *ban = ban_at(taker->view, i);

		if (ban_who(ban) == taker->who && ban_is_known(ban, taker->who) &&
		    ban_from(ban) == from &&
		    ring_position(atomic_load_explicit(&ban->to, memory_order_relaxed)) == to)
			return true;
	}

	return false;
}

int ring_ban_strays(const struct ring_taker *taker, const struct liveness_table *table,
		    uint64_t from, uint64_t to)
{
	struct ring_ban *ban;
	int r = IPC_EAGAIN;

	/* By one who died, or is about to do the same. */
	if (has_ban(taker, from, to))
		return 0;

	/* One that is late gives back each slot once. */
	for (int i = 0; i < TRIES_MAX && r == IPC_EAGAIN; ++i) {
		r = ban_take(taker->view, table, taker->who, &ban);
		if (r < 0)
			return r;

		CRASH_POINT();
		r = ban_complete(taker, ban, from, to);
	}

	return r == IPC_EAGAIN ? IPC_EBADMSG : r;
}

/* By exchange, of what stood there before the look at whose it is: another one may leave there. */
void ring_lift_bans(const struct ring_view *view, uint64_t who)
{
	uint32_t n = n_bans(view);

	for (uint32_t i = 0; i < n; ++i) {
		struct ring_ban *ban = ban_at(view, i);
		uint64_t left = atomic_load_explicit(&ban->left, memory_order_acquire);

		for (int k = 0; k < TRIES_MAX && ban_who(ban) == who; ++k) {
			if (atomic_compare_exchange_strong_explicit(&ban->left, &left, who,
								    memory_order_acq_rel,
								    memory_order_acquire))
				break;
		}
	}
}
