/* SPDX-License-Identifier: MIT */

/*
 * The queue of a limiter: who comes next, and what the dead leave.
 */

#include <string.h>

#include "libipc/channel/limiter_head.h"

/* ---- seats ---- */

bool limiter_seats_next(const struct limiter *limiter, const struct limiter_snap *snap,
			unsigned phases, struct limiter_request *request)
{
	uint32_t n_seats = limiter_n_seats(limiter);

	for (uint32_t seat = request->seat + 1; seat < n_seats; ++seat) {
		uint64_t state = limiter_load(limiter, seat);

		if (limiter_state_phase(state) == LIMITER_FREE)
			continue;
		if (snap->granted && snap->granted[seat / 64] >> seat % 64 & 1)
			state = limiter_state_next(state, snap->window_number, LIMITER_HELD);
		if (phases & 1u << limiter_state_phase(state) && !limiter_is_dead(limiter, seat)) {
			*request = limiter_request(limiter, seat, state);
			return true;
		}
	}

	return false;
}

/* ---- judging ---- */

/* What the living of this user hold. */
static uint64_t user_held(const struct limiter *limiter, const struct limiter_snap *snap,
			  uint32_t uid)
{
	struct limiter_request request = {.seat = UINT32_MAX};
	uint64_t sum = 0;

	while (limiter_seats_next(limiter, snap, 1u << LIMITER_HELD, &request))
		if (request.uid == uid)
			sum += request.permits;

	return sum;
}

static bool has_units(const struct limiter *limiter, const struct limiter_window *window,
		      uint32_t permits)
{
	return limiter->window_units == 0 || permits <= limiter->window_units - window->used;
}

/* An older request of the same user lacks its bound, and nothing else. */
static bool is_behind_own(const struct limiter *limiter, const struct limiter_snap *snap,
			  const struct limiter_window *window,
			  const struct limiter_request *request, uint64_t held)
{
	struct limiter_request other = {.seat = UINT32_MAX};

	while (limiter_seats_next(limiter, snap, 1u << LIMITER_WAITING, &other))
		if (other.uid == request->uid && other.ticket < request->ticket &&
		    has_units(limiter, window, other.permits) &&
		    held + other.permits > limiter->per_user_max)
			return true;

	return false;
}

enum limiter_verdict limiter_judge_all(const struct limiter *limiter,
				       const struct limiter_snap *snap,
				       const struct limiter_request *request)
{
	struct limiter_window window = limiter_window(limiter, snap);

	if (!has_units(limiter, &window, request->permits))
		return LIMITER_LACKS_UNITS;

	if (limiter->per_user_max != UINT32_MAX) {
		uint64_t held = user_held(limiter, snap, request->uid);

		if (held + request->permits > limiter->per_user_max)
			return LIMITER_LACKS_BOUND;
		if (snap->n_waiting > 0 && is_behind_own(limiter, snap, &window, request, held))
			return LIMITER_BEHIND_OWN;
	}

	return request->permits > snap->n_free ? LIMITER_LACKS_PERMITS : LIMITER_RUNS;
}

/* ---- the queue ---- */

/*
 * Who comes next is told by one pass over the seats, without sorting the queue.  Requests that the
 * window lacks units for are passed over by everybody.  Of the others of one user the oldest alone
 * counts: if it lacks the bound, so do the younger ones, or they stand behind it; if not, it comes
 * before them anyway.  So the one that decides is the oldest of those oldest ones that fit into
 * their users' bounds: it runs, or lacks permits and stops the queue.
 *
 * The sums of USERS_MAX users stand on the stack.  Where there are more, each pass is about those
 * that have the least uids from `begin` on; the next begins where it ended.
 */
enum { USERS_MAX = 32 };

struct user {
	uint32_t uid;
	bool waits;
	uint64_t held;
	struct limiter_request first; /* where it waits: its oldest request that has its units */
};

struct users {
	uint64_t begin, end; /* uids of this pass */
	unsigned n;
	struct user user[USERS_MAX]; /* by uid */
};

/* NULL: not of this pass. */
static struct user *users_get(struct users *users, uint32_t uid)
{
	unsigned i = 0;

	if (uid < users->begin || uid >= users->end)
		return NULL;
	while (i < users->n && users->user[i].uid < uid)
		++i;
	if (i < users->n && users->user[i].uid == uid)
		return &users->user[i];

	if (users->n == USERS_MAX) {
		users->end = i < USERS_MAX ? users->user[USERS_MAX - 1].uid : uid;
		if (i == USERS_MAX)
			return NULL;
		--users->n;
	}
	memmove(&users->user[i + 1], &users->user[i], (users->n - i) * sizeof(struct user));
	++users->n;
	users->user[i] = (struct user){.uid = uid};
	return &users->user[i];
}

static void users_collect(const struct limiter *limiter, const struct limiter_snap *snap,
			  struct users *users)
{
	struct limiter_window window = limiter_window(limiter, snap);
	struct limiter_request request = {.seat = UINT32_MAX};
	bool has_bound = limiter->per_user_max != UINT32_MAX;
	unsigned phases = 1u << LIMITER_WAITING | (has_bound ? 1u << LIMITER_HELD : 0);

	while (limiter_seats_next(limiter, snap, phases, &request)) {
		/* Without a bound all are one. */
		struct user *user = users_get(users, has_bound ? request.uid : 0);

		if (!user)
			continue;
		if (limiter_state_phase(request.state) == LIMITER_HELD) {
			user->held += request.permits;
		} else if (has_units(limiter, &window, request.permits) &&
			   (!user->waits || request.ticket < user->first.ticket)) {
			user->waits = true;
			user->first = request;
		}
	}
}

/* The oldest that neither the window nor a bound holds up. */
static bool queue_first(const struct limiter *limiter, const struct limiter_snap *snap,
			struct limiter_request *ret)
{
	uint64_t begin = 0;
	bool is_found = false;
	struct users users;

	do {
		users.begin = begin;
		users.end = UINT64_C(1) << 32;
		users.n = 0;
		users_collect(limiter, snap, &users);
		for (unsigned i = 0; i < users.n; ++i) {
			const struct user *user = &users.user[i];

			if (user->waits && (!is_found || user->first.ticket < ret->ticket) &&
			    (limiter->per_user_max == UINT32_MAX ||
			     user->held + user->first.permits <= limiter->per_user_max)) {
				*ret = user->first;
				is_found = true;
			}
		}
		begin = users.end;
	} while (begin <= UINT32_MAX);

	return is_found;
}

bool limiter_queue_find(const struct limiter *limiter, const struct limiter_snap *snap,
			struct limiter_request *ret, bool *ret_is_stopped)
{
	*ret_is_stopped = false;
	if (snap->n_waiting == 0 || !queue_first(limiter, snap, ret))
		return false;

	*ret_is_stopped = ret->permits > snap->n_free;
	return !*ret_is_stopped;
}

void limiter_tell_window(const struct limiter *limiter, const struct limiter_snap *snap)
{
	struct limiter_window window = limiter_window(limiter, snap);
	struct limiter_request request = {.seat = UINT32_MAX};

	if (limiter->window_units == 0)
		return;

	/* [N6] Either it is seen here that it does not know, or its look sees the grant.  Pairs
	 * with [N7]. */
	atomic_thread_fence(memory_order_seq_cst);
	while (limiter_seats_next(limiter, snap, 1u << LIMITER_WAITING, &request)) {
		struct limiter_cell *cell = &limiter->segment->cell[request.seat];

		if (!has_units(limiter, &window, request.permits) &&
		    atomic_load_explicit(&cell->lacks_window, memory_order_relaxed) !=
			    snap->window_number)
			limiter_notify(limiter, &cell->event);
	}
}

/* ---- settling ---- */

/* The first cell of a dead one, from this seat on; false: none, and from is past all of them. */
static bool find_dead(const struct limiter *limiter, uint32_t *from, struct limiter_request *ret)
{
	uint32_t n_seats = limiter_n_seats(limiter);

	for (; *from < n_seats; ++*from) {
		uint64_t state = limiter_load(limiter, *from);

		if (limiter_state_phase(state) != LIMITER_FREE && limiter_is_dead(limiter, *from)) {
			*ret = limiter_request(limiter, *from, state);
			return true;
		}
	}

	return false;
}

/*
 * Those that come first where neither a window nor bounds are: then the queue is served in the
 * order of the tickets alone, and many can be granted after one pass.  Twice as many each time.
 */
enum { BATCH_MAX = 32 };

struct batch {
	unsigned max, n;
	struct limiter_request request[BATCH_MAX]; /* by ticket */
};

static void batch_insert(struct batch *batch, const struct limiter_request *request)
{
	unsigned i = batch->n;

	if (batch->n == batch->max && request->ticket > batch->request[batch->n - 1].ticket)
		return;
	if (batch->n < batch->max)
		++batch->n;
	else
		--i;
	for (; i > 0 && batch->request[i - 1].ticket > request->ticket; --i)
		batch->request[i] = batch->request[i - 1];
	batch->request[i] = *request;
}

static void batch_collect(const struct limiter *limiter, const struct limiter_snap *snap,
			  struct batch *batch)
{
	struct limiter_request request = {.seat = UINT32_MAX};

	batch->n = 0;
	while (limiter_seats_next(limiter, snap, 1u << LIMITER_WAITING, &request))
		batch_insert(batch, &request);
}

/* What there is to be done.  A seat can be dead once and granted once; more is no limiter's. */
#define CHANGES_MAX (4 * LIMITER_SEATS)

struct settling {
	unsigned n_changes;
	struct batch batch;
	uint32_t dead_from; /* below it those who died before this began are gone; who died since is
			       told to whoever waits */
};

/* False: something else was decided meanwhile. */
static bool settle_grant(struct limiter *limiter, uint32_t seat, struct limiter_snap *snap,
			 const struct limiter_request *request)
{
	if (!limiter_grant(limiter, seat, snap, request))
		return false;

	/* Killed here: the broker wakes everybody. */
	CRASH_POINT();
	limiter_notify(limiter, &limiter->segment->cell[request->seat].event);
	limiter_notify(limiter, &limiter->segment->ready);
	return true;
}

/* More of them, each upon what was decided by the one before. */
static void settle_batch(struct limiter *limiter, uint32_t seat, struct limiter_snap *snap,
			 struct settling *settling)
{
	struct batch *batch = &settling->batch;

	/* The cell's word is brought up to date before anything else is decided. */
	limiter_complete(limiter, snap);
	batch_collect(limiter, snap, batch);
	for (unsigned i = 0; i < batch->n && batch->request[i].permits <= snap->n_free; ++i) {
		if (!settle_grant(limiter, seat, snap, &batch->request[i]))
			return;
		limiter_complete(limiter, snap);
		++settling->n_changes;
	}

	if (batch->max < BATCH_MAX)
		batch->max *= 2;
}

/* Whether there was something to be done; it is looked again then, whoever did it. */
static bool settle_once(struct limiter *limiter, uint32_t seat, struct limiter_snap *snap,
			bool *ret_is_stopped, struct settling *settling)
{
	struct limiter_request request;

	*ret_is_stopped = false;
	if (find_dead(limiter, &settling->dead_from, &request)) {
		if (limiter_remove(limiter, seat, snap, &request, false)) {
			limiter_notify(limiter, &limiter->segment->ready);
			++settling->n_changes;
		}
		return true;
	}

	if (!limiter_queue_find(limiter, snap, &request, ret_is_stopped))
		return false;

	if (settle_grant(limiter, seat, snap, &request)) {
		++settling->n_changes;
		if (snap->n_waiting > 0 && snap->n_free > 0 && limiter->window_units == 0 &&
		    limiter->per_user_max == UINT32_MAX)
			settle_batch(limiter, seat, snap, settling);
	}
	return true;
}

int limiter_settle(struct limiter *limiter, uint32_t seat, struct limiter_snap *ret,
		   bool *ret_is_stopped)
{
	struct settling settling;

	settling.n_changes = 0;
	settling.dead_from = 0;
	settling.batch.max = 2;
	for (unsigned i = 0; i < LIMITER_TRIES_MAX && settling.n_changes < CHANGES_MAX; ++i) {
		int r = limiter_snap(limiter, ret);

		if (r < 0)
			return r;

		/* Whoever has moved the head since has only taken permits, or settles by itself. */
		if (!settle_once(limiter, seat, ret, ret_is_stopped, &settling))
			return 0;
	}

	/* Others come and go faster than they can be served one by one: they settle as well. */
	return 0;
}
