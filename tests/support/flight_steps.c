/* SPDX-License-Identifier: MIT */
#include "tests/support/flight_steps.h"

#include <string.h>
#include <unistd.h>

#include "libipc/channel/flight_cell.h"
#include "libipc/platform/peer.h"
#include "tests/support/failure.h"
#include "tests/support/flight_scene.h"
#include "tests/support/step.h"

#define KEY "the key"

enum { N_KEYS = 4, RESULT_SIZE = 64, CHILD_SIZE = 40, SURVIVOR_SIZE = 50, ROUNDS = 16 };
enum { ID_S = 11, ID_T = 12, ID_OLD = 31, ID_CHILD = 21, ID_NEXT = 22 };

/* Seats of a survivor: it follows, leads from the beginning, handles, joins later, uses the rest
 * of the table. */
enum { SEAT_FOLLOW = 0, SEAT_LEAD = 1, SEAT_HANDLE = 2, SEAT_LATER = 3, SEAT_FILL = 4 };

/* One who takes part in a flight of the key. */
struct party {
	struct flight_member *member; /* in the test's own process */
	struct flight_part *part;
	bool is_there;
};

/* In shared memory: the child's preparation lets survivors join. */
struct stage {
	struct flight_part part[5];
	_Atomic uint32_t is_there[5];
	_Atomic int32_t child_result;
};

/* Places in it. */
enum { LEADER, FOLLOWER_S, FOLLOWER_T, LATER, CHILD, PARTIES };

static struct flight_scene scene;
static struct stage *stage;
static struct flight_member s, t, old, child, next; /* child: the test's own view of it */
static enum flight_act act;
static enum flight_fate fate;
static long now; /* instruction, for messages */
static bool survivor_landed;
static char chained[N_KEYS][8];
static uint32_t key_cell; /* where the key has flown */

#define FAIL(text, ...)                                                                            \
	failure("act %d, fate %d, stopped before instruction %ld: " text, (int)act, (int)fate,     \
		now __VA_OPT__(, ) __VA_ARGS__)

static struct flight_part *part_at(unsigned place)
{
	return &stage->part[place];
}

static struct flight_segment *segment(void)
{
	return scene.segment;
}

static void must_be(int r, int wanted, const char *what)
{
	if (r != wanted)
		FAIL("%s: %d, not %d", what, r, wanted);
}

/* ---- what is there before the child comes ---- */

static void survivor_joins(struct flight_member *member, unsigned place, unsigned seat, int wanted)
{
	must_be(flight_scene_join(member, part_at(place), seat, KEY), wanted, "a survivor's join");
	flight_scene_as_another_thread(&scene, part_at(place));
	atomic_store(&stage->is_there[place], 1);
}

static void survivor_asks(struct flight_member *member, unsigned place)
{
	must_be(flight_scene_ask(member, part_at(place), SEAT_FOLLOW, KEY, 1), 2,
		"a survivor's ask");
	atomic_store(&stage->is_there[place], 1);
}

static void fly(struct flight_member *member, const char *key)
{
	struct flight_part part;

	must_be(flight_scene_join(member, &part, SEAT_FILL, key), 1, "a flight before");
	must_be(flight_scene_land(member, &part, "x", 1), 0, "a landing before");
	flight_leave(&member->view, &part);
	key_cell = part.cell;
}

static void old_leads(unsigned seat)
{
	struct flight_part part;

	must_be(flight_scene_join(&old, &part, seat, KEY), 1, "the dead leader's join");
	flight_scene_as_another_thread(&scene, &part);
}

/* Keys whose cells stand in one chain with that of the key. */
static void chained_find(void)
{
	struct flight_part part;
	uint64_t bucket;
	unsigned n = 0;

	must_be(flight_scene_join(&s, &part, SEAT_FILL, KEY), 1, "join");
	bucket = s.view.cell[part.cell].node.hash & s.view.keys.mask;
	flight_leave(&s.view, &part);
	for (unsigned i = 0; n < N_KEYS; ++i) {
		(void)snprintf(chained[n], sizeof(chained[n]), "k%u", i);
		must_be(flight_scene_join(&s, &part, SEAT_FILL, chained[n]), 1, "join");
		n += (s.view.cell[part.cell].node.hash & s.view.keys.mask) == bucket;
		flight_leave(&s.view, &part);
	}
}

static void fill_with_followed(void)
{
	for (unsigned i = 0; i < N_KEYS; ++i) {
		char key[] = {'f', (char)('a' + i), 0};
		struct flight_part led, followed;

		must_be(flight_scene_join(&s, &led, i, key), 1, "a leader before");
		flight_scene_as_another_thread(&scene, &led);
		must_be(flight_scene_join(&t, &followed, i, key), 2, "a follower before");
		must_be(flight_scene_land(&s, &led, "x", 1), 0, "a landing before");
		flight_leave(&s.view, &led);
		flight_leave(&t.view, &followed);
	}
}

static void arrange_nothing(void)
{
}

static void arrange_chain(void)
{
	for (unsigned i = 0; i < N_KEYS; ++i)
		fly(&s, chained[i]);
}

static void arrange_finished(void)
{
	fly(&s, KEY);
}

static void arrange_held(void)
{
	struct flight_part part;

	must_be(flight_scene_join(&s, &part, SEAT_HANDLE, KEY), 1, "a flight before");
	must_be(flight_scene_land(&s, &part, "x", 1), 0, "a landing before");
}

static void arrange_led(void)
{
	survivor_joins(&s, LEADER, SEAT_LEAD, 1);
}

static void arrange_followed(void)
{
	old_leads(0);
	survivor_joins(&t, FOLLOWER_T, SEAT_FOLLOW, 2);
}

static void arrange_leader_dead(void)
{
	arrange_followed();
	flight_scene_die(&scene, &old);
}

static void arrange_all_dead(void)
{
	struct flight_part part;

	old_leads(0);
	must_be(flight_scene_join(&old, &part, 1, KEY), 2, "the dead follower's join");
	flight_scene_die(&scene, &old);
}

static void arrange_row(void)
{
	arrange_followed();
	survivor_joins(&s, FOLLOWER_S, SEAT_FOLLOW, 2);
	flight_scene_die(&scene, &old);
}

static void arrange_claimed(void)
{
	struct flight_part part;

	flight_scene_part(&old, &part, 0, FLIGHT_JOIN);
	must_be(flight_claim(&old.view, &part), 0, "the dead one's claim");
	flight_scene_die(&scene, &old);
}

static void arrange_asked(void)
{
	survivor_asks(&t, FOLLOWER_T);
}

static void arrange_asked_twice(void)
{
	survivor_asks(&t, FOLLOWER_T);
	survivor_asks(&s, FOLLOWER_S);
}

static void arrange_handler_dead(void)
{
	struct flight_part part;

	survivor_asks(&t, FOLLOWER_T);
	must_be(flight_scene_take(&old, &part, 0), 0, "the dead handler's take");
	flight_scene_die(&scene, &old);
}

static void arrange_asker_dead(void)
{
	struct flight_part part;

	must_be(flight_scene_ask(&old, &part, 0, KEY, 1), 2, "the dead asker's ask");
	flight_scene_die(&scene, &old);
}

/* ---- the child ---- */

static struct flight_member self;

static void prepare_nothing(void)
{
}

static void prepare_lead(void)
{
	must_be(flight_scene_join(&self, part_at(CHILD), 0, KEY), 1, "the child's join");
}

static void prepare_lead_followed(void)
{
	prepare_lead();
	flight_scene_as_another_thread(&scene, part_at(CHILD));
	survivor_joins(&s, FOLLOWER_S, SEAT_FOLLOW, 2);
	survivor_joins(&t, FOLLOWER_T, SEAT_FOLLOW, 2);
}

static void prepare_follow(void)
{
	must_be(flight_scene_join(&self, part_at(CHILD), 0, KEY), 2, "the child's join");
}

static void prepare_follow_dead(void)
{
	prepare_follow();
	flight_scene_die(&scene, &old);
}

static void prepare_follow_written(void)
{
	prepare_follow();

	/* By a thread that lives. */
	atomic_store(&segment()->seats.seat[old.row * SEATS_PER_ROW].writer.word,
		     (uint32_t)getppid());
	flight_scene_end(&scene, ID_OLD);
}

static void prepare_take(void)
{
	must_be(flight_scene_take(&self, part_at(CHILD), 0), 0, "the child's take");
}

static int act_join(void)
{
	return flight_scene_join(&self, part_at(CHILD), 0, KEY);
}

static int act_look(void)
{
	return flight_look(&self.view, part_at(CHILD));
}

static int finish(enum ipc_failure failure, int32_t code)
{
	char text[CHILD_SIZE];

	memset(text, 'c', sizeof(text));
	return flight_finish(&self.view, part_at(CHILD), 0, failure, code, text, sizeof(text));
}

static int act_land(void)
{
	return finish(IPC_FAILURE_NONE, 0);
}

static int act_fail(void)
{
	return finish(IPC_FAILURE_UPSTREAM, 7);
}

static int act_leave(void)
{
	flight_leave(&self.view, part_at(CHILD));
	return 0;
}

static int act_ask(void)
{
	return flight_scene_ask(&self, part_at(CHILD), 0, KEY, 1);
}

static int act_take(void)
{
	return flight_scene_take(&self, part_at(CHILD), 0) == 0 ? 1 : IPC_EAGAIN;
}

static int act_row_take(void)
{
	if (!flight_row_take(&self.view, &self.row))
		return IPC_ESTALE;

	return act_join();
}

/* What the child does to the flight. */
enum { PLAIN = 0, ENDS = 1, LEAVES = 2, ASKED = 4, ROW = 8, FAILS = 16, WRITTEN = 32 };

static const struct {
	void (*arrange)(void); /* in the test's own process */
	void (*prepare)(void); /* in the child */
	int (*act)(void);      /* in the child, stopped */
	unsigned kind;
} acts[FLIGHT_ACTS] = {
	[FLIGHT_ACT_JOIN_FRESH] = {arrange_nothing, prepare_nothing, act_join, PLAIN},
	[FLIGHT_ACT_JOIN_CLAIM] = {arrange_chain, prepare_nothing, act_join, PLAIN},
	[FLIGHT_ACT_JOIN_REVIVE] = {arrange_finished, prepare_nothing, act_join, PLAIN},
	[FLIGHT_ACT_JOIN_DOOM] = {arrange_held, prepare_nothing, act_join, PLAIN},
	[FLIGHT_ACT_JOIN_SWEEP] = {fill_with_followed, prepare_nothing, act_join, PLAIN},
	[FLIGHT_ACT_FOLLOW] = {arrange_led, prepare_nothing, act_join, PLAIN},
	[FLIGHT_ACT_FOLLOW_DEAD] = {arrange_leader_dead, prepare_nothing, act_join, PLAIN},
	[FLIGHT_ACT_FOLLOW_NOBODY] = {arrange_all_dead, prepare_nothing, act_join, PLAIN},
	[FLIGHT_ACT_PROMOTE] = {arrange_followed, prepare_follow_dead, act_look, PLAIN},
	[FLIGHT_ACT_PROMOTE_WRITTEN] = {arrange_followed, prepare_follow_written, act_look,
					WRITTEN},
	[FLIGHT_ACT_LAND_ALONE] = {arrange_nothing, prepare_lead, act_land, ENDS},
	[FLIGHT_ACT_LAND] = {arrange_nothing, prepare_lead_followed, act_land, ENDS},
	[FLIGHT_ACT_FAIL] = {arrange_nothing, prepare_lead_followed, act_fail, ENDS | FAILS},
	[FLIGHT_ACT_LEAVE_ALONE] = {arrange_nothing, prepare_lead, act_leave, LEAVES},
	[FLIGHT_ACT_LEAVE] = {arrange_nothing, prepare_lead_followed, act_leave, LEAVES},
	[FLIGHT_ACT_LEAVE_FOLLOWER] = {arrange_led, prepare_follow, act_leave, LEAVES},
	[FLIGHT_ACT_ROW_TAKE] = {arrange_row, prepare_nothing, act_row_take, ROW},
	[FLIGHT_ACT_ROW_CLAIMED] = {arrange_claimed, prepare_nothing, act_row_take, ROW},
	[FLIGHT_ACT_ASK_FRESH] = {arrange_nothing, prepare_nothing, act_ask, ASKED},
	[FLIGHT_ACT_ASK_JOINED] = {arrange_led, prepare_nothing, act_ask, ASKED},
	[FLIGHT_ACT_ASK_FINISHED] = {arrange_finished, prepare_nothing, act_ask, ASKED},
	[FLIGHT_ACT_ASK_NOBODY] = {arrange_asker_dead, prepare_nothing, act_ask, ASKED},
	[FLIGHT_ACT_TAKE] = {arrange_asked_twice, prepare_nothing, act_take, ASKED},
	[FLIGHT_ACT_TAKE_DEAD] = {arrange_handler_dead, prepare_nothing, act_take, ASKED},
	[FLIGHT_ACT_TAKE_NOBODY] = {arrange_asker_dead, prepare_nothing, act_take, ASKED},
	[FLIGHT_ACT_ANSWER] = {arrange_asked, prepare_take, act_land, ENDS | ASKED},
	[FLIGHT_ACT_ABANDON] = {arrange_asked, prepare_take, act_leave, LEAVES | ASKED},
};

static void child_prepare(void *arg)
{
	(void)arg;
	if (acts[act].kind & ROW)
		flight_scene_attach(&scene, &self, ID_CHILD);
	else
		flight_scene_enter(&scene, &self, ID_CHILD);
	flight_scene_part(&self, part_at(CHILD), 0, FLIGHT_JOIN);
	acts[act].prepare();
}

static void child_operation(void *arg)
{
	(void)arg;
	atomic_store(&stage->child_result, acts[act].act());
}

static void arrange(void)
{
	flight_scene_reset(&scene);
	memset(stage, 0, sizeof(*stage));
	survivor_landed = false;
	flight_scene_enter(&scene, &s, ID_S);
	flight_scene_enter(&scene, &t, ID_T);
	flight_scene_enter(&scene, &old, ID_OLD);
	if (!chained[0][0]) {
		chained_find();
		arrange();
		return;
	}

	flight_scene_open(&scene, ID_CHILD);
	if (acts[act].kind & ASKED)
		flight_scene_handlers(&scene, 3, 0, SIDE_EVER);
	acts[act].arrange();
}

/* ---- what everybody has to find ---- */

static struct flight_member *member_at(unsigned place)
{
	struct flight_member *const members[PARTIES] = {&s, &s, &t, &s, &child};

	return members[place];
}

/* Bytes of one who may have landed, all of them. */
static void result_check(unsigned place)
{
	struct ipc_flight_result result;
	const char *bytes;

	must_be(flight_get_result(&member_at(place)->view, part_at(place), &result), 0, "result");
	if (result.epoch == 0 || result.n_joined == 0 || result.fence == 0)
		FAIL("epoch %u, %u joined, fence %ju", result.epoch, result.n_joined,
		     (uintmax_t)result.fence);
	if (act == FLIGHT_ACT_ABANDON && result.failure == IPC_FAILURE_ABANDONED)
		return;
	if (result.failure != IPC_FAILURE_NONE &&
	    (!(acts[act].kind & FAILS) || result.failure != IPC_FAILURE_UPSTREAM ||
	     result.code != 7))
		FAIL("failure %d, code %d", (int)result.failure, result.code);

	bytes = result.data;
	if (!bytes || (bytes[0] != 'c' && bytes[0] != 's') ||
	    result.size != (bytes[0] == 'c' ? CHILD_SIZE : SURVIVOR_SIZE))
		FAIL("a result of %zu bytes", result.size);
	for (size_t i = 1; i < result.size; ++i) {
		if (bytes[i] != bytes[0])
			FAIL("a torn result");
	}

	/* F-3: who is held dead and was passed over. */
	if (fate == FLIGHT_HELD_DEAD && survivor_landed && bytes[0] == 'c')
		FAIL("the bytes of one whose lead was lost");
}

static void survivor_lands(struct flight_member *member, struct flight_part *part)
{
	char text[SURVIVOR_SIZE];
	uint64_t fence = 0;

	memset(text, 's', sizeof(text));
	must_be(flight_get_fence(&member->view, part, &fence), 0, "the fence of who leads");
	if (fence == 0)
		FAIL("leads without a fence");
	must_be(flight_scene_land(member, part, text, sizeof(text)), 0, "a survivor's landing");
	survivor_landed = true;
}

static bool may_end(void)
{
	if (acts[act].kind & WRITTEN)
		return true;

	/* Ended because it may still be written. */
	return fate == FLIGHT_HELD_DEAD && ((acts[act].kind & ENDS) || act == FLIGHT_ACT_ABANDON);
}

/* One look of everybody who is there.  Returns who leads, PARTIES: nobody. */
static unsigned look_all(unsigned *ret_n_pending)
{
	unsigned leads = PARTIES, cell = UINT32_MAX;

	*ret_n_pending = 0;
	for (unsigned place = 0; place < PARTIES; ++place) {
		struct flight_part *part = part_at(place);
		int r;

		if (!atomic_load(&stage->is_there[place]))
			continue;

		r = flight_look(&member_at(place)->view, part);
		if (r == 0)
			result_check(place);
		else if (r == IPC_EOWNERDEAD && may_end())
			continue;
		else if (r != 1 && r != IPC_EAGAIN)
			FAIL("a look of party %u says %d", place, r);
		if (r == 0)
			continue;

		if (cell != UINT32_MAX && cell != part->cell)
			FAIL("two flights of the key at a time");
		cell = part->cell;
		if (r == 1 && leads != PARTIES)
			FAIL("two lead");
		if (r == 1 && (acts[act].kind & WRITTEN))
			FAIL("leads where somebody else writes");
		if (r == 1)
			leads = place;
		else
			++*ret_n_pending;
	}
	return leads;
}

/* Who got a result took part in that very flight.  A handler does not count as one who joined. */
static void joined_check(void)
{
	unsigned n_parties = acts[act].act == act_take ? CHILD : PARTIES;

	for (unsigned place = 0; place < PARTIES; ++place) {
		struct ipc_flight_result result;
		unsigned n = 0;

		if (!atomic_load(&stage->is_there[place]) ||
		    flight_get_result(&member_at(place)->view, part_at(place), &result) < 0)
			continue;

		for (unsigned other = 0; other < n_parties; ++other)
			n += atomic_load(&stage->is_there[other]) &&
			     part_at(other)->cell == part_at(place)->cell;
		if (result.n_joined < n)
			FAIL("%u got the result of a flight that %u joined", n, result.n_joined);
	}
}

/* Whoever takes part comes to an end: leads and lands, or gets what somebody landed. */
static void settle(void)
{
	for (unsigned i = 0; i < ROUNDS; ++i) {
		struct flight_part taken;
		unsigned n_pending, leads = look_all(&n_pending);
		bool is_taken = leads == PARTIES && flight_scene_take(&t, &taken, SEAT_HANDLE) == 0;

		if (is_taken && !(acts[act].kind & ASKED) && fate != FLIGHT_OVERTAKEN_ASK)
			FAIL("a handler took what nobody asked for");
		if (is_taken) {
			survivor_lands(&t, &taken);
			flight_leave(&t.view, &taken);
		} else if (leads != PARTIES) {
			survivor_lands(member_at(leads), part_at(leads));
		} else if (n_pending == 0) {
			break;
		}
		if (i + 1 == ROUNDS)
			FAIL("%u wait, and nobody leads", n_pending);
	}

	joined_check();
	for (unsigned place = 0; place < PARTIES; ++place) {
		if (atomic_exchange(&stage->is_there[place], 0))
			flight_leave(&member_at(place)->view, part_at(place));
	}
}

static void whole_check(void)
{
	if (header_fault(&segment()->header) != 0)
		FAIL("the table is broken");
}

/* The key flies anew, once. */
static void anew_check(void)
{
	struct flight_part led, followed;

	must_be(flight_scene_join(&s, &led, SEAT_LATER, KEY), 1, "the key anew");
	flight_scene_as_another_thread(&scene, &led);
	must_be(flight_scene_join(&t, &followed, SEAT_LATER, KEY), 2, "a follower anew");
	if (followed.cell != led.cell)
		FAIL("two cells of the key");
	survivor_lands(&s, &led);
	must_be(flight_look(&t.view, &followed), 0, "the result anew");
	flight_leave(&s.view, &led);
	flight_leave(&t.view, &followed);
}

/* Other keys led by a survivor until the table is full.  Returns how many. */
static unsigned fill_rest(struct flight_part *parts)
{
	unsigned n = 0;

	for (;; ++n) {
		char key[] = {'u', (char)('a' + n), 0};
		int r;

		r = n < N_KEYS ? flight_scene_join(&s, &parts[n], SEAT_FILL + n, key)
			       : flight_scene_join(&t, &parts[n], SEAT_FILL, key);
		if (r == IPC_ENOSPC)
			return n;
		must_be(r, 1, "the join of another key");
		if (n == N_KEYS)
			FAIL("more cells than there are");
	}
}

static void usable_check(unsigned n_wanted)
{
	struct flight_part parts[N_KEYS + 1];
	unsigned n = fill_rest(parts);

	if (n < n_wanted)
		FAIL("%u cells are lost", n_wanted - n);
	for (unsigned i = 0; i < n; ++i)
		flight_leave(&s.view, &parts[i]);
	if (flight_count(&s.view) != 0)
		FAIL("%u keys are in flight", flight_count(&s.view));
}

/* By the very seat that the child had. */
static void successor_check(void)
{
	struct flight_part part;

	must_be(flight_scene_join(&next, &part, 0, KEY), 1, "the successor's join");
	survivor_lands(&next, &part);
	flight_leave(&next.view, &part);
}

/* What is not the child's doing ends: a result that was held, a writer's last word. */
static void hold_let_go(void)
{
	if (act == FLIGHT_ACT_JOIN_DOOM)
		seats_drop(&segment()->seats, s.row * SEATS_PER_ROW + SEAT_HANDLE);
	if (acts[act].kind & WRITTEN) {
		anew_check();
		atomic_store(&segment()->seats.seat[old.row * SEATS_PER_ROW].writer.word, 0);
		flight_scene_die(&scene, &old);
	}
}

/* ---- the child is killed ---- */

static void killed_check(void *arg, long n)
{
	bool successor_first = n % 2;

	(void)arg;
	now = n;
	flight_scene_end(&scene, ID_CHILD);
	if (successor_first)
		flight_scene_enter(&scene, &next, ID_NEXT);
	settle();
	hold_let_go();
	whole_check();
	if (!successor_first)
		flight_scene_enter(&scene, &next, ID_NEXT);
	if (next.row > old.row + 1)
		FAIL("the dead one's row is not used again");
	if (n % 4 < 2)
		successor_check();
	anew_check();
	usable_check(N_KEYS);
	successor_check();
	flight_detach(&next.view);
	arrange();
}

/* ---- the child goes on ---- */

static struct flight_part filled[N_KEYS + 1], held_led, held_followed;
static unsigned n_filled;
static bool is_passed_over; /* another landed what the child led */

/* Everything that can be used is in use when the dead one goes on: in flight, or landed. */
static void held_dead_meanwhile(void)
{
	flight_scene_end(&scene, ID_CHILD);
	settle();
	is_passed_over = survivor_landed;
	hold_let_go();
	must_be(flight_scene_join(&s, &held_led, SEAT_LATER, KEY), 1, "the key anew");
	flight_scene_as_another_thread(&scene, &held_led);
	must_be(flight_scene_join(&t, &held_followed, SEAT_LATER, KEY), 2, "a follower anew");
	n_filled = fill_rest(filled);
	if (n_filled + 2 < N_KEYS)
		FAIL("one that is held dead costs %u cells", N_KEYS - 1 - n_filled);
	if (now / 2 % 2)
		return;

	survivor_lands(&s, &held_led);
	for (unsigned i = 0; i < n_filled; ++i)
		survivor_lands(&s, &filled[i]);
}

/* Landed by its first leader: nobody took the lead from it meanwhile, or wrote over it. */
static void first_check(struct flight_member *member, struct flight_part *part)
{
	struct ipc_flight_result result;
	const char *bytes;

	must_be(flight_look(&member->view, part), 0, "a look at the result");
	must_be(flight_get_result(&member->view, part, &result), 0, "the result");
	if (result.epoch != 1 || result.size != SURVIVOR_SIZE)
		FAIL("epoch %u, %zu bytes", result.epoch, result.size);
	bytes = result.data;
	for (size_t i = 0; i < result.size; ++i) {
		if (bytes[i] != 's')
			FAIL("the bytes of another");
	}
}

static void held_dead_after(void)
{
	bool has_landed = now / 2 % 2 == 0;

	whole_check();
	must_be(flight_look(&t.view, &held_followed), has_landed ? 0 : IPC_EAGAIN,
		"beside one that is held dead");
	must_be(flight_look(&s.view, &held_led), !has_landed, "beside one that is held dead");
	if ((acts[act].kind & ENDS) && is_passed_over && atomic_load(&stage->child_result) == 0)
		FAIL("one whose lead was lost has landed");
	if (!has_landed)
		survivor_lands(&s, &held_led);
	first_check(&t, &held_followed);
	flight_leave(&s.view, &held_led);
	flight_leave(&t.view, &held_followed);
	for (unsigned i = 0; i < n_filled; ++i) {
		must_be(flight_look(&s.view, &filled[i]), !has_landed, "the lead of another key");
		if (!has_landed)
			survivor_lands(&s, &filled[i]);
		first_check(&s, &filled[i]);
		flight_leave(&s.view, &filled[i]);
	}
}

static void overtaken_meanwhile(void)
{
	struct flight_part *later = part_at(LATER);
	int r;

	if (fate == FLIGHT_OVERTAKEN_ASK) {
		flight_scene_handlers(&scene, 3, 0, SIDE_EVER);
		r = flight_scene_ask(&s, later, SEAT_LATER, KEY, 1);
		n_filled = fill_rest(filled);
	} else {
		r = flight_scene_join(&s, later, SEAT_LATER, KEY);
	}
	if (r < 0)
		FAIL("the survivor's join: %d", r);
	if (r == 1)
		flight_scene_as_another_thread(&scene, later);
	if (r == 1 && fate == FLIGHT_OVERTAKEN_LAND) {
		survivor_lands(&s, later);
		flight_leave(&s.view, later);
		return;
	}
	atomic_store(&stage->is_there[LATER], 1);
}

static void overtaken_after(void)
{
	int r = atomic_load(&stage->child_result);
	bool is_join = !(acts[act].kind & (ENDS | LEAVES));

	whole_check();
	flight_scene_attach(&scene, &child, ID_CHILD);
	if (r < 0 && r != IPC_EAGAIN)
		FAIL("the child's result is %d", r);
	if (is_join && (r != IPC_EAGAIN || act == FLIGHT_ACT_PROMOTE))
		atomic_store(&stage->is_there[CHILD], 1);
	if (r == 1)
		flight_scene_as_another_thread(&scene, part_at(CHILD));
	settle();
	for (unsigned i = 0; i < n_filled; ++i)
		flight_leave(&s.view, &filled[i]);
	n_filled = 0;
	if (!is_join)
		seats_drop(&segment()->seats, part_at(CHILD)->seat);
	hold_let_go();
	anew_check();
	usable_check(N_KEYS);
	flight_detach(&child.view);
}

/* Every cell that can be had flies another key. */
static void reused_meanwhile(void)
{
	if (atomic_exchange(&stage->is_there[LEADER], 0)) {
		survivor_lands(&s, part_at(LEADER));
		flight_leave(&s.view, part_at(LEADER));
	}
	n_filled = fill_rest(filled);
}

/* The child takes part in a flight of its key, or in none. */
static void reused_after(void)
{
	int r = atomic_load(&stage->child_result);

	whole_check();
	flight_scene_attach(&scene, &child, ID_CHILD);
	if (r < 0 && r != IPC_ENOSPC)
		FAIL("the child's result is %d", r);
	for (unsigned i = 0; i < n_filled; ++i) {
		struct ipc_flight_result result;

		must_be(flight_look(&s.view, &filled[i]), 1, "the lead of another key");
		survivor_lands(&s, &filled[i]);
		first_check(&s, &filled[i]);
		must_be(flight_get_result(&s.view, &filled[i], &result), 0, "the result");
		if (result.n_joined != 1)
			FAIL("%u joined the flight of another key", result.n_joined);
		flight_leave(&s.view, &filled[i]);
	}
	n_filled = 0;
	if (r >= 0) {
		atomic_store(&stage->is_there[CHILD], 1);
		settle();
	}
	hold_let_go();
	anew_check();
	usable_check(N_KEYS);
	flight_detach(&child.view);
}

static struct flight_part prepared;
static bool is_prepared;

/* As one who joins does before it inserts. */
static void claimed_meanwhile(void)
{
	uint64_t turn;

	atomic_store(&s.view.hint, key_cell);
	flight_scene_part(&s, &prepared, SEAT_LATER, FLIGHT_JOIN);
	must_be(flight_claim(&s.view, &prepared), 0, "the survivor's claim");
	is_prepared = prepared.cell == key_cell;
	if (!is_prepared)
		return;

	turn = flight_state_turn(flight_load(&s.view, key_cell));
	flight_run_set(&s.view.cell[key_cell].run[0], turn - 1);
	atomic_store(&s.view.state[key_cell],
		     flight_state_make(turn, prepared.seat, FLIGHT_LINKED, FLIGHT_LED));
}

/* Somebody else was first: the cell is given back. */
static void claimed_after(void)
{
	int r = atomic_load(&stage->child_result);

	whole_check();
	if (r == 2)
		FAIL("follows in a cell that nobody has inserted");
	must_be(r, 1, "the child's join");
	if (is_prepared && flight_load(&s.view, key_cell) & FLIGHT_FOLLOWED)
		FAIL("a cell in no chain was followed");
	flight_unclaim(&s.view, prepared.cell);
	seats_drop(&segment()->seats, prepared.seat);
	flight_scene_attach(&scene, &child, ID_CHILD);
	atomic_store(&stage->is_there[CHILD], 1);
	settle();
	anew_check();
	usable_check(N_KEYS);
	flight_detach(&child.view);
}

static void meanwhile(void *arg, long n)
{
	(void)arg;
	now = n;
	if (fate == FLIGHT_HELD_DEAD)
		held_dead_meanwhile();
	else if (fate == FLIGHT_OVERTAKEN_CLAIM)
		claimed_meanwhile();
	else if (fate == FLIGHT_OVERTAKEN_CELL)
		reused_meanwhile();
	else
		overtaken_meanwhile();
}

static void after(void *arg, long n)
{
	(void)arg;
	(void)n;
	if (fate == FLIGHT_HELD_DEAD)
		held_dead_after();
	else if (fate == FLIGHT_OVERTAKEN_CLAIM)
		claimed_after();
	else if (fate == FLIGHT_OVERTAKEN_CELL)
		reused_after();
	else
		overtaken_after();
}

static void lived_check(void *arg, long n)
{
	(void)arg;
	(void)n;
	flight_scene_end(&scene, ID_CHILD);
	whole_check();
	anew_check();
	usable_check(N_KEYS);
	arrange();
}

long flight_steps_run(enum flight_act the_act, enum flight_fate the_fate, long stride)
{
	const uint64_t shape[4] = {RESULT_SIZE, N_KEYS, 16, 8};
	struct step_case step = {
		.prepare = child_prepare,
		.operation = child_operation,
		.check = the_fate == FLIGHT_KILLED ? killed_check : lived_check,
		.meanwhile = the_fate == FLIGHT_KILLED ? NULL : meanwhile,
		.after = the_fate == FLIGHT_KILLED ? NULL : after,
		.first = stride > 1 ? getpid() % stride : 0,
		.stride = stride,
	};
	pthread_mutex_t linked = PTHREAD_MUTEX_INITIALIZER;
	long n_points;

	/* What the dynamic linker has to find is found before the children's paths are compared. */
	(void)peer_is_gone(getpid());
	(void)pthread_mutex_lock(&linked);
	(void)pthread_mutex_unlock(&linked);

	act = the_act;
	fate = the_fate;
	flight_scene_init(&scene, shape, 0);
	stage = flight_scene_map(sizeof(*stage));
	arrange();
	n_points = step_run(&step, NULL);
	munmap(stage, sizeof(*stage));
	flight_scene_deinit(&scene);
	return n_points;
}
