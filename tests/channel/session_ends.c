/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `session` when its ends change hands: from the dead and from the
 * living, with claims open, rings full, notes half followed, numbers and positions near their
 * limits.
 */
#include "libipc/channel/session.h"

#include <criterion/criterion.h>
#include <string.h>

#include <ipc/error.h>

#include "libipc/channel/session_inside.h"
#include "tests/support/ring_scene.h"
#include "tests/support/session_scene.h"

enum { CAPACITY = 4096, LARGEST = 1024 };

static struct session_scene scene;
static struct session_member a, b, heir, second;
static unsigned n_handles;

/* The next handle of an end. */
static void enter(struct session_member *member, unsigned side, uint32_t process)
{
	ring_scene_forget(&member->view.out);
	session_scene_enter(&scene, member, side, ++n_handles, process);
}

static void setup(void)
{
	const uint64_t shape[4] = SESSION_SHAPE(CAPACITY, LARGEST);

	session_scene_init(&scene, shape);
	enter(&a, 0, SESSION_SCENE_NO_PROCESS);
	enter(&b, 1, SESSION_SCENE_NO_PROCESS);
}

static void teardown(void)
{
	struct session_member *members[] = {&a, &b, &heir, &second};

	for (unsigned i = 0; i < N_ELEMENTS(members); ++i)
		ring_scene_forget(&members[i]->view.out);
	session_scene_deinit(&scene);
}

#define Case(name) Test(session_ends, name, .init = setup, .fini = teardown, .timeout = 60)

static void die(struct session_member *member)
{
	session_scene_end(&scene, member->id);
}

static void send_some(struct session_member *member, uint64_t first, unsigned n)
{
	for (unsigned i = 0; i < n; ++i)
		cr_assert_eq(session_scene_send(member, first + i, 40), 0);
}

static struct ipc_session_message receive(struct session_member *member, uint64_t number,
					  uint32_t flags)
{
	struct ipc_session_message message = {.size = 0};

	cr_assert_eq(session_scene_receive(member, &message), 1);
	cr_assert_eq(message.sequence, number, "%lu, not %lu", (unsigned long)message.sequence,
		     (unsigned long)number);
	cr_assert_eq(message.flags, flags, "message %lu: %u", (unsigned long)number, message.flags);
	return message;
}

static void release(struct session_member *member, struct ipc_session_message message)
{
	cr_assert_eq(session_release(&member->view, &message), 0);
}

static void *claim(struct session_member *member, uint64_t size)
{
	void *data;

	cr_assert_eq(session_claim(&member->view, size, &data), 0);
	return data;
}

/* ---- what comes again ---- */

/* C-4 */
Case(what_was_not_released_comes_again_with_its_number)
{
	struct ipc_session_message messages[4];

	send_some(&a, 1, 4);
	cr_assert_eq(session_receive_many(&b.view, messages, 3), 3);
	release(&b, messages[0]);
	die(&b);

	enter(&heir, 1, 0);
	cr_expect_eq(session_scene_state(&heir).released, 1);
	cr_expect_eq(session_scene_state(&heir).received, 1);
	(void)receive(&heir, 2, IPC_MESSAGE_REDELIVERED);
	(void)receive(&heir, 3, IPC_MESSAGE_REDELIVERED);
	release(&heir, receive(&heir, 4, 0));
	cr_expect_eq(session_scene_state(&a).acknowledged, 4);
}

/* C-4: how far anybody had come is not forgotten by those who came less far. */
Case(redelivered_is_told_through_a_chain_of_owners)
{
	struct ipc_session_message messages[6];
	unsigned far[] = {5, 2, 0, 1, 3, 0, 0, 4};

	send_some(&a, 1, 6);
	cr_assert_eq(session_receive_many(&b.view, messages, 5), 5);
	for (unsigned i = 0; i < 8; ++i) {
		enter(&heir, 1, 0);
		for (unsigned k = 1; k <= far[i]; ++k)
			(void)receive(&heir, k, IPC_MESSAGE_REDELIVERED);
		die(&heir);
	}
	enter(&heir, 1, 0);
	release(&heir, receive(&heir, 1, IPC_MESSAGE_REDELIVERED));
	die(&heir);
	enter(&heir, 1, 0);
	for (unsigned k = 2; k <= 5; ++k)
		(void)receive(&heir, k, IPC_MESSAGE_REDELIVERED);
	(void)receive(&heir, 6, 0);
	die(&heir);
	enter(&heir, 1, 0);
	for (unsigned k = 2; k <= 6; ++k)
		(void)receive(&heir, k, IPC_MESSAGE_REDELIVERED);
}

/* C-4, C-10 */
Case(a_message_of_the_owner_before_is_not_released)
{
	struct ipc_session_message message, again;

	send_some(&a, 1, 1);
	message = receive(&b, 1, 0);
	die(&b);
	enter(&heir, 1, 0);
	again = receive(&heir, 1, IPC_MESSAGE_REDELIVERED);
	cr_expect_eq(session_release(&heir.view, &message), IPC_EINVAL);
	cr_expect_eq(session_scene_state(&a).acknowledged, 0);
	release(&heir, again);
}

/* C-5, C-1 */
Case(committed_messages_survive_their_sender_and_claims_do_not)
{
	void *data;

	send_some(&a, 1, 2);
	data = claim(&a, 100);
	pattern_fill(data, 100, 77);
	(void)claim(&a, 200);
	send_some(&a, 3, 1);
	die(&a);

	enter(&heir, 0, 0);
	cr_expect_eq(session_scene_state(&heir).sent, 3);
	send_some(&heir, 4, 1);
	for (unsigned i = 1; i <= 4; ++i) {
		struct ipc_session_message message = receive(&b, i, 0);

		cr_expect_eq(session_scene_number(message.data, message.size), i);
		release(&b, message);
	}
}

/* ---- from the living ---- */

static void expect_stale(struct session_member *old, struct ipc_session_message *message,
			 void *claimed)
{
	struct ipc_session_state state = {.size = sizeof(state)};
	struct session *view = &old->view;
	void *data;

	cr_expect_eq(session_send(view, NULL, 0), IPC_ESTALE);
	cr_expect_eq(session_send_fd(view, 0, NULL, 0), IPC_ESTALE);
	cr_expect_eq(session_claim(view, 8, &data), IPC_ESTALE);
	cr_expect_eq(session_commit_release(view, claimed, 8, message), IPC_ESTALE);
	cr_expect_eq(session_commit(view, claimed, 8), IPC_ESTALE);
	cr_expect_eq(session_abort(view, claimed), IPC_ESTALE);
	cr_expect_eq(session_receive_many(view, message, 1), IPC_ESTALE);
	cr_expect_eq(session_probe_message(view), IPC_ESTALE);
	cr_expect_eq(session_release(view, message), IPC_ESTALE);
	cr_expect_eq(session_get_state(view, &state), IPC_ESTALE);
	ring_scene_forget(&view->out);
	cr_expect_eq(session_begin(view, old->id, 0), IPC_ESTALE);
}

/* C-3 */
Case(the_old_one_gets_nothing_but_that_it_is_old)
{
	struct ipc_session_message message;
	void *claimed;

	enter(&second, 1, (uint32_t)getpid());
	send_some(&a, 1, 2);
	message = receive(&second, 1, 0);
	claimed = claim(&second, 8);
	session_scene_end(&scene, second.id);
	enter(&heir, 1, 0);

	expect_stale(&second, &message, claimed);
	(void)receive(&heir, 1, IPC_MESSAGE_REDELIVERED);
	(void)receive(&heir, 2, 0);
	cr_expect_eq(session_scene_state(&heir).sent, 0);
	cr_expect_eq(session_scene_state(&a).acknowledged, 0);
}

/* C-3, C-6 */
Case(an_old_one_of_a_full_session_is_told_so)
{
	struct ipc_session_message message;
	void *data;

	enter(&second, 1, (uint32_t)getpid());
	while (session_send(&second.view, NULL, 0) == 0)
		;
	session_scene_end(&scene, second.id);
	enter(&heir, 1, 0);
	cr_expect_eq(session_send(&second.view, NULL, 0), IPC_ESTALE);
	cr_expect_eq(session_claim(&second.view, 0, &data), IPC_ESTALE);
	cr_expect_eq(session_probe_room(&second.view), IPC_ESTALE);
	cr_expect_eq(session_scene_receive(&second, &message), IPC_ESTALE);
	cr_expect_eq(session_probe_room(&heir.view), IPC_EAGAIN);
}

/* C-3, C-5: he may write what he had claimed for as long as he lives. */
Case(what_the_old_one_goes_on_to_write_harms_nobody)
{
	void *claimed[2];

	enter(&second, 0, (uint32_t)getpid());
	send_some(&second, 1, 2);
	claimed[0] = claim(&second, 300);
	claimed[1] = claim(&second, 500);
	session_scene_end(&scene, second.id);
	enter(&heir, 0, (uint32_t)getpid());

	for (uint64_t i = 3; i <= 500; ++i) {
		struct ipc_session_message message;

		cr_assert_eq(session_scene_send(&heir, i, 8 + i % 300), 0);
		memset(claimed[0], 0xee, 300);
		memset(claimed[1], 0xee, 500);
		cr_assert_eq(session_scene_receive(&b, &message), 1);
		cr_assert_eq(message.sequence, i - 2);
		cr_assert_eq(session_scene_number(message.data, message.size), i - 2);
		release(&b, message);
	}
}

/* C-3 */
Case(an_older_handle_does_not_take_the_end)
{
	session_scene_attach(&scene, &heir, 0, 100);
	cr_assert_eq(session_begin(&heir.view, heir.id, 0), 0);
	session_scene_attach(&scene, &second, 0, 99);
	cr_expect_eq(session_begin(&second.view, second.id, 0), IPC_ESTALE);
	cr_expect_eq(session_scene_send(&heir, 1, 8), 0);
}

/* C-1 */
Case(the_generation_grows_with_each_beginning_of_either_end)
{
	uint64_t generation = session_scene_state(&b).generation;

	die(&a);
	enter(&heir, 0, 0);
	cr_expect_gt(session_scene_state(&b).generation, generation);
	generation = session_scene_state(&b).generation;
	die(&b);
	enter(&second, 1, 0);
	cr_expect_gt(session_scene_state(&heir).generation, generation);
}

/* ---- full ---- */

static unsigned fill_up(struct session_member *member)
{
	unsigned n = 0;

	while (session_scene_send(member, n + 1, 100) == 0)
		++n;
	return n;
}

/* C-6 */
Case(both_full_at_a_take_over_is_no_deadlock)
{
	unsigned n = fill_up(&a), n_back = fill_up(&b);

	die(&a);
	enter(&heir, 0, 0);
	die(&b);
	enter(&second, 1, 0);
	cr_expect_eq(session_scene_send(&heir, 1, 100), IPC_EAGAIN);
	for (unsigned i = 1; i <= n; ++i)
		release(&second, receive(&second, i, 0));
	for (unsigned i = 1; i <= n_back; ++i)
		release(&heir, receive(&heir, i, 0));
	cr_expect_eq(fill_up(&heir), n);
	cr_expect_eq(fill_up(&second), n_back);
}

/* ---- notes ---- */

/* As if it had died between the two exchanges of commit_release. */
static void commit_with_a_note_alone(struct session_member *member,
				     struct ipc_session_message request)
{
	struct ring_consumer *in = &member->view.in;
	uint64_t tail = in->tail;
	void *data = claim(member, 40);

	pattern_fill(data, 40, 9);
	cr_assert_eq(session_commit_release(&member->view, data, 40, &request), 0);
	atomic_store(&in->view.ring->tail, tail);
}

/* C-12: as the other end sees it. */
Case(what_a_note_releases_counts_before_anybody_follows_it)
{
	unsigned n = fill_up(&a);
	struct ipc_session_message message;

	message = receive(&b, 1, 0);
	commit_with_a_note_alone(&b, message);
	die(&b);
	cr_expect_eq(session_probe_room(&a.view), 0);
	cr_expect_eq(session_scene_state(&a).acknowledged, 1);
	cr_expect_eq(session_scene_send(&a, n + 1, 100), 0);
	cr_expect_eq(session_scene_send(&a, n + 2, 100), IPC_EAGAIN);

	enter(&heir, 1, 0);
	cr_expect_eq(session_scene_state(&heir).released, 1);
	for (unsigned i = 2; i <= n + 1; ++i)
		release(&heir, receive(&heir, i, 0));
}

/* C-12 */
Case(who_sends_finds_the_room_that_a_note_gives)
{
	unsigned n = fill_up(&a);
	void *data;

	commit_with_a_note_alone(&b, receive(&b, 1, 0));
	cr_expect_eq(session_claim(&a.view, 100, &data), 0);
	cr_expect_eq(session_commit(&a.view, data, 100), 0);
	cr_expect_eq(session_scene_state(&a).sent, n + 1);
}

/* C-12 */
Case(who_takes_the_end_follows_the_note)
{
	send_some(&a, 1, 3);
	(void)receive(&b, 1, 0);
	commit_with_a_note_alone(&b, receive(&b, 2, 0));
	die(&b);
	enter(&heir, 1, 0);
	cr_expect_eq(session_scene_state(&heir).released, 2);
	cr_expect_eq(ring_position(atomic_load(&heir.view.in.view.ring->tail)), 8);
	(void)receive(&heir, 3, 0);
}

/* C-12: also if the taker dies at once, and the next one. */
Case(a_note_outlives_those_who_did_not_come_to_follow_it)
{
	send_some(&a, 1, 3);
	commit_with_a_note_alone(&b, receive(&b, 1, 0));
	for (unsigned i = 0; i < 4; ++i) {
		session_scene_attach(&scene, &heir, 1, ++n_handles);
		cr_assert_eq(ring_take_producer(&heir.view.out, scene.table, heir.id, 0), 0);
		die(&heir);
	}
	enter(&heir, 1, 0);
	(void)receive(&heir, 2, 0);
}

/* C-12: with claims of a living one behind the note, which the stream jumps over. */
Case(a_note_outlives_a_jump)
{
	enter(&second, 1, (uint32_t)getpid());
	send_some(&a, 1, 3);
	commit_with_a_note_alone(&second, receive(&second, 1, 0));
	(void)claim(&second, 400);
	session_scene_end(&scene, second.id);
	enter(&heir, 1, 0);
	cr_expect_eq(session_scene_state(&heir).released, 1);
	(void)receive(&heir, 2, 0);
	send_some(&heir, 5, 1);
	(void)receive(&a, 1, 0);
	(void)receive(&a, 2, 0);
}

/* C-12, C-1: the other end is quicker than the one that noted. */
Case(a_note_that_the_other_end_followed_is_followed)
{
	struct ipc_session_message message;

	send_some(&a, 1, 3);
	message = receive(&b, 1, 0);
	commit_with_a_note_alone(&b, message);
	b.view.in.tail = atomic_load(&b.view.in.view.ring->tail);
	b.view.released = 0;
	cr_expect_eq(session_scene_state(&a).acknowledged, 1);
	cr_expect_eq(session_follow(&b.view, ring_position(message.token)), 0);
	release(&b, receive(&b, 2, 0));
	cr_expect_eq(session_scene_state(&a).acknowledged, 2);
}

/* C-12: a note that was followed means nothing, wherever the tail stands. */
Case(an_old_note_is_not_followed_again)
{
	struct ipc_session_message message;
	uint64_t position;

	send_some(&a, 1, 1);
	message = receive(&b, 1, 0);
	position = ring_position(message.token);
	cr_assert_eq(session_commit_release(&b.view, claim(&b, 8), 8, &message), 0);

	/* As after so many messages that positions have wrapped. */
	send_some(&a, 2, 1);
	atomic_store(&a.view.out.view.ring->tail,
		     ring_word(ring_tag(b.view.in.tail), ring_state(b.view.in.tail), position - 2));
	atomic_store(&ring_at(&a.view.out.view, position - 2)->number, 2);
	cr_expect_not(session_settle(&a.view));
	die(&b);
	enter(&heir, 1, 0);
	cr_expect_eq(ring_position(heir.view.in.tail), position - 2);
}

/* ---- limits ---- */

/* As after so much traffic. */
static void begin_at(uint64_t position, uint64_t number)
{
	session_scene_reset(&scene);
	for (unsigned s = 0; s < 2; ++s) {
		struct ring *ring = &a.view.shared->ring[s];
		const struct ring_view *view = s == 0 ? &a.view.out.view : &b.view.out.view;

		atomic_store(&ring->head, ring_word(RING_TAG_MASK - 1, 0, position));
		atomic_store(&ring->tail, ring_word(RING_TAG_MASK - 1, 0, position));
		atomic_store(&ring->limit[0], ring_word(RING_TAG_MASK - 1, 0, position + 1));
		atomic_store(&ring->teller, RING_TAG_MASK - 1);
		for (unsigned i = 0; i < 2; ++i)
			atomic_store(&ring->received[i], atomic_load(&ring->tail));
		atomic_store(&ring_at(view, position)->number, number);
		atomic_store(&ring_at(view, position)->what, RING_NOTHING);
	}
	enter(&a, 0, SESSION_SCENE_NO_PROCESS);
	enter(&b, 1, SESSION_SCENE_NO_PROCESS);
}

/* C-8, C-1, C-12 */
Case(numbers_and_positions_wrap)
{
	uint64_t number = UINT64_MAX - 300;

	begin_at(RING_POSITION_MASK - 1000, number);
	cr_expect_eq(session_scene_state(&a).sent, number - 1);
	cr_expect_eq(session_scene_state(&a).acknowledged, number - 1);
	cr_expect_eq(session_scene_state(&b).received, number - 1);
	for (uint64_t i = 0; i < 600; ++i) {
		struct ipc_session_message one, two;
		void *data = claim(&b, 50);

		send_some(&a, i, 2);
		one = receive(&b, number + 2 * i, 0);
		two = receive(&b, number + 2 * i + 1, 0);
		if (i % 7 == 3) {
			die(&b);
			enter(&heir, 1, SESSION_SCENE_NO_PROCESS);
			b = heir;
			one = receive(&b, number + 2 * i, IPC_MESSAGE_REDELIVERED);
			two = receive(&b, number + 2 * i + 1, IPC_MESSAGE_REDELIVERED);
			data = claim(&b, 50);
		}
		release(&b, one);
		cr_assert_eq(session_commit_release(&b.view, data, 50, &two), 0);
		release(&b, one);
		cr_assert_eq(session_scene_state(&a).acknowledged, number + 2 * i + 1);
		release(&a, receive(&a, number + i, 0));
	}
	cr_expect_eq(header_fault(scene.segment), 0);
}
