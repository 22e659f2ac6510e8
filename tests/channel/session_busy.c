/* SPDX-License-Identifier: MIT */
/*
 * What the broker says of an end that nobody may take over now, against what the taker finds.
 */
#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

#include <ipc/error.h>

#include "libipc/core/ring_ban.h"
#include "libipc/platform/peer.h"
#include "tests/support/ring_scene.h"
#include "tests/support/session_scene.h"

enum { CAPACITY = 4096, LARGEST = 200, SIZE = 8, N_SEEDS = 300, N_STEPS = 300, N_OWNERS = 9 };

struct owner {
	struct session_member member;
	void *claim[4];
	bool is_there;      /* lives, and has not left */
	bool is_unfinished; /* has the end's name alone */
};

static struct session_scene scene;
static struct session_member other;
static struct owner owners[N_OWNERS], *now;
static unsigned char before[1 << 15];
static unsigned n_handles, n_torn, n_busy, seed, step;
static uint64_t random_state;

static uint64_t pick(uint64_t n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (random_state >> 33) % n;
}

/* ---- as the broker does ---- */

static bool read_segment(void *userdata, uint64_t offset, void *ret, size_t size)
{
	unsigned char *copy = ret;
	uint64_t head;

	(void)userdata;
	memcpy(copy, (unsigned char *)scene.segment + offset, size);
	if (size == sizeof(struct ring) && n_torn > 0) {
		--n_torn;
		memcpy(&head, copy + offsetof(struct ring, head), sizeof(head));
		head = ring_position(head) + 1;
		memcpy(copy + offsetof(struct ring, tail), &head, sizeof(head));
	}
	return true;
}

static bool lives(void *userdata, uint64_t owner)
{
	uint32_t process = ring_owner_process(owner);

	(void)userdata;
	return process != 0 && !peer_is_gone((pid_t)process);
}

static bool is_busy(void)
{
	const struct session_read read = {.read = read_segment, .shape = scene.shape};

	return session_read_is_busy(&read, 0, lives);
}

/* ---- owners ---- */

static void owner_forget(struct owner *owner)
{
	ring_scene_forget(&owner->member.view.out);
	memset(owner->claim, 0, sizeof(owner->claim));
	owner->is_there = owner->is_unfinished = false;
}

static void owner_leave(struct owner *owner)
{
	if (!owner->is_there || owner == now)
		return;
	session_scene_leave(&scene, &owner->member);
	owner_forget(owner);
}

/* One that is not there any more; the oldest leaves. */
static struct owner *owner_new(void)
{
	struct owner *oldest = NULL;

	for (unsigned i = 0; i < N_OWNERS; ++i) {
		if (!owners[i].is_there && &owners[i] != now)
			return &owners[i];
		if (&owners[i] != now && (!oldest || owners[i].member.id < oldest->member.id))
			oldest = &owners[i];
	}
	owner_leave(oldest);
	return oldest;
}

static uint32_t a_process(bool is_alive)
{
	return is_alive ? (uint32_t)getpid() : SESSION_SCENE_NO_PROCESS;
}

static void owner_first(bool is_alive)
{
	now = &owners[0];
	session_scene_enter(&scene, &now->member, 0, ++n_handles, a_process(is_alive));
	now->is_there = is_alive;
}

static bool strays_are_too_long(void)
{
	uint64_t units = atomic_load(&now->member.view.out.view.ring->strays) & RING_STRAYS_MASK;
	const struct ring_view *view = &now->member.view.out.view;

	return units + view->units_max + 1 > view->capacity;
}

static void put_back(struct owner *next)
{
	memcpy((void *)scene.segment, before, scene.size);
	session_scene_end(&scene, next->member.id);
	session_scene_open(&scene, now->member.id);
	owner_forget(next);
}

static void hand_over(struct owner *next, bool is_alive)
{
	if (!now->is_there)
		owner_forget(now);
	now = next;
	now->is_there = is_alive;
}

static void attach(struct owner *next)
{
	memcpy(before, scene.segment, scene.size);
	session_scene_end(&scene, now->member.id);
	session_scene_attach(&scene, &next->member, 0, ++n_handles);
}

/* What the taker says is what the broker has said; after a refusal all is as before. */
static void take_over(bool is_alive)
{
	struct owner *next = owner_new();
	bool busy = is_busy(), are_long = strays_are_too_long();
	int r;

	attach(next);
	r = session_begin(&next->member.view, next->member.id, a_process(is_alive));

	cr_assert(busy ? r == IPC_EBUSY : r == 0 || (r == IPC_EBUSY && are_long),
		  "seed %u, step %u: %s, but %s", seed, step, busy ? "busy" : "not busy",
		  ipc_error_name(r));
	n_busy += busy;
	if (r == 0)
		hand_over(next, is_alive);
	else
		put_back(next);
}

/* By one that is killed, or taken over, in the middle of it. */
static void begin_to_take_over(bool is_alive)
{
	struct owner *next = owner_new();
	int r;

	if (is_busy())
		return;

	attach(next);
	r = ring_take_head(&next->member.view.out, scene.table, next->member.id,
			   a_process(is_alive));
	cr_assert_eq(r, 0, "seed %u, step %u: %s", seed, step, ipc_error_name(r));
	hand_over(next, is_alive);
	now->is_unfinished = true;
	take_over(true);
}

static void receive_all(void)
{
	struct ipc_session_message message;

	while (session_scene_receive(&other, &message) == 1)
		cr_assert_eq(session_release(&other.view, &message), 0);
}

static void do_something(void)
{
	void **claim = &now->claim[pick(4)];
	uint64_t size = pick(SIZE * 4);

	switch (pick(now->is_unfinished ? 4 : 9)) {
	case 0:
	case 1:
		take_over(pick(4) > 0);
		break;
	case 2:
		owner_leave(&owners[pick(N_OWNERS)]);
		break;
	case 3:
		receive_all();
		break;
	case 4:
	case 5:
		(void)session_scene_send(&now->member, 1, size);
		break;
	default:
		if (*claim)
			cr_assert(session_commit(&now->member.view, *claim, 0) <= 0);
		if (*claim || session_claim(&now->member.view, size, claim) < 0)
			*claim = NULL;
		break;
	}
}

static void setup(void)
{
	const uint64_t shape[4] = SESSION_SHAPE(CAPACITY, LARGEST);

	session_scene_init(&scene, shape);
	cr_assert_leq(scene.size, sizeof(before));
	session_scene_enter(&scene, &other, 1, ++n_handles, SESSION_SCENE_NO_PROCESS);
}

static void teardown(void)
{
	for (unsigned i = 0; i < N_OWNERS; ++i)
		owner_forget(&owners[i]);
	ring_scene_forget(&other.view.out);
	session_scene_deinit(&scene);
}

#define Case(name) Test(session_busy, name, .init = setup, .fini = teardown, .timeout = 120)

static void run_seed(bool with_unfinished)
{
	session_scene_reset(&scene);
	n_handles = 0;
	session_scene_enter(&scene, &other, 1, ++n_handles, SESSION_SCENE_NO_PROCESS);
	owner_first(true);
	random_state = seed * 77u + with_unfinished;
	for (step = 0; step < N_STEPS; ++step) {
		if (with_unfinished && pick(40) == 0)
			begin_to_take_over(pick(2));
		do_something();
	}
	for (unsigned i = 0; i < N_OWNERS; ++i)
		owner_forget(&owners[i]);
	ring_scene_forget(&other.view.out);
}

/* M-10 */
Case(the_broker_refuses_what_the_taker_would_refuse)
{
	for (seed = 0; seed < N_SEEDS; ++seed)
		run_seed(false);
	cr_expect_gt(n_busy, N_SEEDS);
}

/* M-10, C-3 */
Case(the_broker_refuses_the_same_after_takers_that_did_not_finish)
{
	for (seed = 0; seed < N_SEEDS; ++seed)
		run_seed(true);
	cr_expect_gt(n_busy, 0);
}

/* C-3: by a taker who died he has a place. */
Case(who_has_a_place_needs_no_other)
{
	struct ring_producer *out;

	owner_first(true);
	for (unsigned i = 0; i < RING_BANS_MAX; ++i) {
		cr_assert_eq(session_claim(&now->member.view, SIZE, &now->claim[0]), 0);
		if (i < RING_BANS_MAX - 1)
			take_over(true);
	}
	out = &now->member.view.out;
	cr_assert_eq(ring_ban(&out->view, scene.table, out->owner), 0);

	cr_expect_not(is_busy());
	take_over(true);
	cr_expect(is_busy());
}

/* Four have left, and the stream is past where they stood. */
static void four_have_been_there(void)
{
	owner_first(true);
	for (unsigned i = 0; i < RING_BANS_MAX; ++i) {
		cr_assert_eq(session_claim(&now->member.view, SIZE, &now->claim[0]), 0);
		take_over(true);
	}
	cr_assert(is_busy());
	for (unsigned i = 0; i < N_OWNERS; ++i)
		owner_leave(&owners[i]);
	cr_assert_eq(session_scene_send(&now->member, 1, SIZE), 0);
	receive_all();
}

/* C-3: what is copied while the stream moves on refuses nobody. */
Case(a_copy_of_different_times_is_looked_at_again)
{
	four_have_been_there();
	for (unsigned i = 0; i < RING_BANS_MAX; ++i)
		cr_assert_neq(atomic_load(&now->member.view.out.view.ring->ban[i].who), 0);
	n_torn = 3;
	cr_expect_not(is_busy());
	cr_expect_eq(n_torn, 0);

	n_torn = UINT32_MAX;
	cr_expect_not(is_busy());
}
