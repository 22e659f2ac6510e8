/* SPDX-License-Identifier: MIT */

/*
 * Orders of events that take three: one stands still at a crash point in the middle of a call,
 * another one dies in the middle of its own, others go on; and then the first one goes on, too.
 * Each test goes through all crash points of the call, so it does not depend on where they are.
 *
 * The library that this is linked with has crash points; what happens at them stands here.
 */

#include "tests/channel/flight_cast.h"

#include <setjmp.h>

#include "libipc/channel/flight_cell.h"
#include "libipc/core/header.h"

static unsigned n_passed;
static unsigned stop_at;        /* 0: nowhere */
static void (*meanwhile)(void); /* what happens there */
static bool has_stopped;
static jmp_buf death;
static bool dies_there;

void crash_point(void);

void crash_point(void)
{
	if (stop_at == 0 || ++n_passed != stop_at)
		return;

	stop_at = 0;
	has_stopped = true;
	if (dies_there)
		longjmp(death, 1);
	meanwhile();
}

/* The next call stops at its n-th crash point. */
static void stop(unsigned n, void (*what)(void))
{
	n_passed = 0;
	stop_at = n;
	has_stopped = false;
	dies_there = false;
	meanwhile = what;
}

/* Whether the call came so far. */
static bool stopped(void)
{
	stop_at = 0;
	return has_stopped;
}

enum { POINTS_MAX = 100 };

static const uint64_t one_cell[4] = {RESULT_SIZE, 1, KEY_SIZE, 200};

static struct flight_member d, h;
static struct flight_part fourth, taken;

static void begin(const uint64_t shape[4])
{
	setup_shape(shape, 0);
	flight_scene_enter(&scene, &d, 14);
	flight_scene_enter(&scene, &h, 15);
	flight_scene_handlers(&scene, 1, 0, SIDE_EVER);
}

static void end(void)
{
	cr_expect_eq(header_fault(&d.view.segment->header), 0);
	flight_detach(&h.view);
	flight_detach(&d.view);
	teardown();
}

static int ask(struct flight_member *member, struct flight_part *part, const char *key)
{
	return flight_scene_ask(member, part, 0, key, 0);
}

/* ---- two look if all are gone, and one comes ---- */

static unsigned handler_dies_at;
static bool handler_has_died;
static uint64_t turn_asked;

static uint64_t turn_of(const struct flight_part *part)
{
	return flight_state_turn(flight_load(&d.view, part->cell));
}

static void joined_and_looked_at(void)
{
	cr_assert_eq(ask(&c, &third, "key"), 2);

	n_passed = 0;
	stop_at = handler_dies_at;
	has_stopped = false;
	dies_there = true;
	if (setjmp(death) == 0)
		(void)flight_scene_take(&h, &taken, 0);
	handler_has_died = stopped();
	flight_scene_die(&scene, &h);
	turn_asked = turn_of(&third);
	has_stopped = true;
}

static void expect_answered(void)
{
	cr_expect_eq(turn_of(&third), turn_asked, "its cell was claimed");
	cr_expect_eq(look(&c, &third), IPC_EAGAIN, "it ended under the hands of who had asked");
	cr_assert_eq(flight_scene_take(&d, &fourth, 0), 0);
	cr_assert_eq(land(&d, &fourth, "answer"), 0);
	cr_assert_eq(look(&c, &third), 0);
	cr_expect_eq(memcmp(result_of(&c, &third).data, "answer", 6), 0);
}

/* F-9, M-25: a flight of which all seem to be gone, to two at a time. */
Test(flight_stops, who_asks_while_others_look_if_all_are_gone_is_answered, .timeout = 60)
{
	unsigned n_stops = 0, n_deaths = 0;

	handler_has_died = true;
	for (handler_dies_at = 1; handler_has_died; ++handler_dies_at) {
		bool goes_on = true;

		handler_has_died = false;
		for (unsigned n = 1; goes_on; ++n) {
			begin(usual_shape);
			cr_assert_eq(ask(&a, &first, "key"), 2);
			leave(&a, &first);

			stop(n, joined_and_looked_at);
			(void)ask(&b, &second, "key");
			goes_on = stopped();
			if (goes_on) {
				expect_answered();
				++n_stops;
				n_deaths += handler_has_died;
			}
			end();
			cr_assert_lt(n, POINTS_MAX);
		}
		cr_assert_lt(handler_dies_at, POINTS_MAX);
	}
	cr_expect_geq(n_stops, 6, "%u stops", n_stops);
	cr_expect_geq(n_deaths, 6, "%u deaths", n_deaths);
}

/* ---- one dies as it takes over from a writer ---- */

struct writing {
	struct quicklock *lock;
	pthread_barrier_t both;
};

static void *write_on(void *arg)
{
	struct writing *writing = arg;
	bool held = quicklock_try(writing->lock) == QUICKLOCK_HELD;

	(void)pthread_barrier_wait(&writing->both); /* it writes */
	(void)pthread_barrier_wait(&writing->both); /* it is through */
	if (held)
		quicklock_unlock(writing->lock);
	return (void *)(uintptr_t)held;
}

static void next_one_looks(void)
{
	flight_scene_die(&scene, &b);
	cr_expect_eq(look(&c, &third), IPC_EOWNERDEAD, "two may write");
}

/* F-3: whoever died in between, who leads knows that the old leader does not write. */
Test(flight_stops, death_of_who_takes_over_hides_no_writer, .timeout = 60)
{
	bool goes_on = true;
	unsigned n;

	for (n = 1; goes_on; ++n) {
		struct flight_segment *segment;
		struct writing writing;
		pthread_t thread;
		void *held;

		begin(usual_shape);
		segment = scene.segment;
		cr_assert_eq(join(&a, &first, "key"), 1);
		cr_assert_eq(join(&b, &second, "key"), 2);
		cr_assert_eq(join(&c, &third, "key"), 2);
		writing.lock = &segment->seats.seat[first.seat].writer;
		cr_assert_eq(pthread_barrier_init(&writing.both, NULL, 2), 0);
		cr_assert_eq(pthread_create(&thread, NULL, write_on, &writing), 0);
		(void)pthread_barrier_wait(&writing.both);
		flight_scene_end(&scene, a.id);

		stop(n, next_one_looks);
		(void)look(&b, &second);
		goes_on = stopped();

		(void)pthread_barrier_wait(&writing.both);
		cr_assert_eq(pthread_join(thread, &held), 0);
		cr_assert(held);
		cr_assert_eq(pthread_barrier_destroy(&writing.both), 0);
		end();
		cr_assert_lt(n, POINTS_MAX);
	}
	cr_expect_gt(n, 2);
}

/* ---- one that is held dead goes on ---- */

static int other_joined;

static void key_and_cell_are_used(void)
{
	flight_scene_end(&scene, a.id);
	if (ask(&b, &second, "key") >= 0)
		leave(&b, &second);
	other_joined = flight_scene_join(&c, &third, 0, "other");
}

/* F-1, M-24: an asker that the broker ended before its key was queued. */
Test(flight_stops, asker_that_is_held_dead_does_not_touch_the_cells_next_flight, .timeout = 60)
{
	unsigned n_reused = 0;
	bool goes_on = true;

	for (unsigned n = 1; goes_on; ++n) {
		begin(one_cell);
		other_joined = 0;
		stop(n, key_and_cell_are_used);
		(void)ask(&a, &first, "key");
		goes_on = stopped();

		if (other_joined == 1) {
			++n_reused;
			cr_expect_eq(land(&c, &third, "other"), 0, "point %u", n);
			expect_landed(&c, &third, "other", 1, 1);
		}
		end();
		cr_assert_lt(n, POINTS_MAX);
	}
	cr_expect_gt(n_reused, 0, "nobody ever had its cell");
}

static void follower_looks(void)
{
	int r = look(&b, &second);

	cr_expect(r == IPC_ESTALE || r == IPC_EAGAIN || r == IPC_EOWNERDEAD, "%d", r);
	cr_expect_eq(header_fault(&d.view.segment->header), 0, "broken by one who is held dead");
}

/* F-5, M-24: its cell may be anybody's, in whatever state. */
Test(flight_stops, follower_that_is_held_dead_sees_nothing_and_breaks_nothing, .timeout = 60)
{
	bool goes_on = true;
	unsigned n;

	for (n = 1; goes_on; ++n) {
		begin(one_cell);
		cr_assert_eq(join(&a, &first, "key"), 1);
		cr_assert_eq(join(&b, &second, "key"), 2);
		flight_scene_end(&scene, b.id);
		cr_assert_eq(land(&a, &first, "bytes"), 0);
		follower_looks();
		leave(&a, &first);

		stop(n, follower_looks);
		cr_expect_eq(flight_scene_join(&c, &third, 0, "other"), 1);
		goes_on = stopped();

		cr_expect_eq(land(&c, &third, "other"), 0);
		follower_looks();
		end();
		cr_assert_lt(n, POINTS_MAX);
	}
	cr_expect_gt(n, 4);
}

/* ---- a death that nobody has asked about ---- */

static void count_ring(void *userdata)
{
	++*(unsigned *)userdata;
}

/* F-18: handlers that heard of the death when there was nothing to take hear of the ask. */
Test(flight_stops, ask_after_the_leaders_death_wakes_a_handler, .timeout = 60)
{
	unsigned n_rings = 0;

	begin(usual_shape);
	cr_assert_eq(join(&a, &first, "key"), 1);
	cr_assert_eq(join(&b, &second, "key"), 2);
	flight_scene_die(&scene, &a);
	cr_assert_eq(flight_scene_take(&h, &taken, 0), IPC_EAGAIN);

	c.view.ring = count_ring;
	c.view.ring_userdata = &n_rings;
	eventcount_arm(flight_handlers_event(&h.view));
	cr_assert_eq(ask(&c, &third, "key"), 2);
	cr_expect_eq(n_rings, 1);
	cr_expect_eq(flight_scene_take(&h, &taken, 0), 0);
	end();
}
