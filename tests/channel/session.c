/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `session`: layout, messages, claims, releases, wakes.
 */
#include "libipc/channel/session.h"

#include <criterion/criterion.h>
#include <string.h>

#include <ipc/admin.h>
#include <ipc/error.h>
#include <ipc/limits.h>

#include "tests/support/session_scene.h"

enum { CAPACITY = 4096, LARGEST = 1024 };

static struct session_scene scene;
static struct session_member a, b;

static void setup(void)
{
	const uint64_t shape[4] = SESSION_SHAPE(CAPACITY, LARGEST);

	session_scene_init(&scene, shape);
	session_scene_enter(&scene, &a, 0, 1, 0);
	session_scene_enter(&scene, &b, 1, 2, 0);
}

static void teardown(void)
{
	session_scene_leave(&scene, &a);
	session_scene_leave(&scene, &b);
	session_scene_deinit(&scene);
}

#define Case(name) Test(session, name, .init = setup, .fini = teardown, .timeout = 60)

static void expect_receive(struct session_member *member, uint64_t number, uint64_t value,
			   struct ipc_session_message *ret)
{
	cr_assert_eq(session_scene_receive(member, ret), 1);
	cr_assert_eq(ret->sequence, number, "%lu is not %lu", (unsigned long)ret->sequence,
		     (unsigned long)number);
	cr_assert_eq(session_scene_number(ret->data, ret->size), value);
	cr_assert_eq(ret->flags, 0);
	cr_assert_eq(ret->fd, -1);
}

/* ---- layout ---- */

static uint64_t size_of(uint64_t capacity, uint64_t message_size_max, uint64_t window)
{
	const uint64_t shape[4] = {capacity, message_size_max, window, 0};

	return session_segment_size(shape);
}

/* M-76 */
Test(session, shapes_that_cannot_be_are_none)
{
	cr_expect_gt(size_of(4096, 1, 0), 2 * 4096);
	cr_expect_gt(size_of(4096, 1024, UINT64_MAX), 2 * 4096);
	cr_expect_gt(size_of(UINT64_C(1) << 30, UINT64_C(1) << 28, 1), UINT64_C(1) << 31);
	cr_expect_gt(size_of(5000, 1250, 1), 2 * 5000);
	cr_expect_eq(size_of(4095, 1, 0), 0);
	cr_expect_eq(size_of((UINT64_C(1) << 30) + 1, 1, 0), 0);
	cr_expect_eq(size_of(4096, 0, 0), 0);
	cr_expect_eq(size_of(4096, 1025, 0), 0);
	cr_expect_eq(size_of(UINT64_MAX, UINT64_MAX, 0), 0);
	cr_expect_eq(size_of(0, 0, 0), 0);
}

Test(session, rings_lie_beside_each_other)
{
	static const uint64_t capacities[] = {4096, 4097, 5000, 65536, 262144, 1000000};

	for (unsigned i = 0; i < 6; ++i) {
		const uint64_t shape[4] = {capacities[i], capacities[i] / 4, 0, 0};
		uint64_t size = session_segment_size(shape);
		unsigned char *segment = aligned_alloc(64, size);
		struct session view[2];

		cr_assert_eq(size % 64, 0);
		cr_assert(segment && session_make(segment, size, shape, 0) == 0);
		for (unsigned side = 0; side < 2; ++side) {
			cr_assert_eq(
				session_attach(&view[side], (void *)segment, size, shape, side), 0);
			cr_expect_eq(((uintptr_t)view[side].out.view.data) % 64, 0);
		}
		cr_expect_eq(view[0].out.view.data, view[1].in.view.data);
		cr_expect_eq(view[1].out.view.data, view[0].in.view.data);
		cr_expect_eq((void *)view[0].out.view.ring, (void *)&view[0].shared->ring[0]);
		cr_expect_geq(view[0].out.view.data,
			      segment + SESSION_SHARED_OFFSET + sizeof(struct session_shared));
		cr_expect_leq(view[0].out.view.data + ring_data_size(shape[0], shape[1]),
			      view[1].out.view.data);
		cr_expect_leq(view[1].out.view.data + ring_data_size(shape[0], shape[1]),
			      segment + size);
		free(segment);
	}
}

Test(session, making_needs_the_room)
{
	const uint64_t shape[4] = SESSION_SHAPE(CAPACITY, LARGEST), none[4] = SESSION_SHAPE(1, 1);
	uint64_t size = session_segment_size(shape);
	void *segment = aligned_alloc(64, size);

	cr_expect_eq(session_make(segment, size - 1, shape, 0), IPC_EINVAL);
	cr_expect_eq(session_make(segment, size, none, 0), IPC_EINVAL);
	cr_expect_eq(listener_make(segment, size, none, 0), IPC_EINVAL);
	cr_expect_eq(listener_make(segment, listener_segment_size() - 1, shape, 0), IPC_EINVAL);
	cr_expect_eq(listener_make(segment, listener_segment_size(), shape, 0), 0);
	cr_expect_eq(header_check(segment, IPC_KIND_SESSION, listener_segment_size(), shape), 0);
	free(segment);
}

/* M-60, M-62 */
Case(what_is_no_session_is_refused)
{
	const uint64_t other[4] = SESSION_SHAPE(CAPACITY, LARGEST - 1);
	struct session view;

	cr_expect_eq(session_attach(&view, scene.segment, 100, scene.shape, 0), IPC_EBADMSG);
	cr_expect_eq(session_attach(&view, scene.segment, scene.size - 64, scene.shape, 0),
		     IPC_EBADMSG);
	cr_expect_eq(session_attach(&view, scene.segment, scene.size, other, 0), IPC_EBADMSG);

	atomic_store(&a.view.shared->ring[1].tail, 5000);
	cr_expect_eq(session_attach(&view, scene.segment, scene.size, scene.shape, 0), IPC_EBADMSG);
	atomic_store(&a.view.shared->ring[1].tail, 0);

	scene.segment->version += 1;
	cr_expect_eq(session_attach(&view, scene.segment, scene.size, scene.shape, 0),
		     IPC_EPROTONOSUPPORT);
	scene.segment->version -= 1;
	scene.segment->kind = IPC_KIND_QUEUE;
	cr_expect_eq(session_attach(&view, scene.segment, scene.size, scene.shape, 0), IPC_EBADMSG);
}

/* ---- messages ---- */

/* C-1 */
Case(messages_come_in_order_with_their_numbers)
{
	struct ipc_session_message message;

	for (uint64_t i = 1; i <= 1000; ++i) {
		cr_assert_eq(session_scene_send(&a, i, 8 + i % 500), 0);
		cr_assert_eq(session_scene_send(&b, i + 7000, 8 + i % 300), 0);
		expect_receive(&b, i, i, &message);
		cr_assert_eq(session_release(&b.view, &message), 0);
		expect_receive(&a, i, i + 7000, &message);
		cr_assert_eq(session_release(&a.view, &message), 0);
	}
	cr_expect_eq(session_scene_receive(&a, &message), IPC_EAGAIN);
}

/* C-1 */
Case(nobody_receives_what_he_sent_himself)
{
	struct ipc_session_message message;

	cr_assert_eq(session_scene_send(&a, 1, 8), 0);
	cr_expect_eq(session_scene_receive(&a, &message), IPC_EAGAIN);
	cr_expect_eq(session_probe_message(&a.view), IPC_EAGAIN);
	cr_expect_eq(session_probe_message(&b.view), 0);
}

/* M-71, M-72 */
Case(any_size_is_a_message)
{
	struct ipc_session_message message;

	for (uint64_t size = 0; size <= LARGEST; ++size) {
		cr_assert_eq(session_scene_send(&a, size % 256, size), 0);
		cr_assert_eq(session_scene_receive(&b, &message), 1);
		cr_assert_eq(message.size, size);
		cr_assert((message.data == NULL) == (size == 0));
		cr_assert_eq((uintptr_t)message.data % 16, 0);
		cr_assert_eq(session_scene_number(message.data, size), size == 0 ? 0 : size % 256);
		cr_assert_eq(session_release(&b.view, &message), 0);
	}
	cr_assert_eq(session_send(&a.view, NULL, 0), 0);
	cr_assert_eq(session_scene_receive(&b, &message), 1);
	cr_assert_eq(message.size, 0);
}

/* C-6, M-76 */
Case(a_message_that_is_too_big_is_refused)
{
	static unsigned char bytes[LARGEST + 1];
	struct ipc_session_message message;
	void *data;

	cr_expect_eq(session_send(&a.view, bytes, LARGEST + 1), IPC_EMSGSIZE);
	cr_expect_eq(session_send(&a.view, bytes, SIZE_MAX), IPC_EMSGSIZE);
	cr_expect_eq(session_send_fd(&a.view, 0, bytes, LARGEST + 1), IPC_EMSGSIZE);
	cr_expect_eq(session_claim(&a.view, LARGEST + 1, &data), IPC_EMSGSIZE);
	cr_expect_eq(session_scene_receive(&b, &message), IPC_EAGAIN);
}

static unsigned fill_up(struct session_member *member, uint64_t size, uint64_t first)
{
	unsigned n = 0;

	while (session_scene_send(member, first + n, size) == 0)
		++n;
	cr_assert_eq(session_scene_send(member, 1, size), IPC_EAGAIN);
	return n;
}

/* C-6: a unit for each head, and one that stays free. */
Case(a_full_ring_takes_more_when_something_is_released)
{
	struct ipc_session_message message;
	unsigned n = fill_up(&a, 48, 1);
	void *data;

	cr_assert_eq(n, (CAPACITY / 16 - 1) / 4);
	cr_expect_eq(session_claim(&a.view, 48, &data), IPC_EAGAIN);
	while (session_send(&a.view, NULL, 0) == 0)
		;
	cr_expect_eq(session_probe_room(&a.view), IPC_EAGAIN);

	cr_assert_eq(session_scene_receive(&b, &message), 1);
	cr_expect_eq(session_probe_room(&a.view), IPC_EAGAIN);
	cr_assert_eq(session_release(&b.view, &message), 0);
	cr_expect_eq(session_probe_room(&a.view), 0);
	cr_expect_eq(session_scene_send(&a, 9, 48), 0);
}

/* C-1 */
Case(many_are_received_at_once)
{
	struct ipc_session_message messages[10];

	for (uint64_t i = 1; i <= 7; ++i)
		cr_assert_eq(session_scene_send(&a, i, 20), 0);
	cr_assert_eq(session_receive_many(&b.view, messages, 5), 5);
	for (unsigned i = 0; i < 5; ++i)
		cr_expect_eq(messages[i].sequence, i + 1);
	cr_assert_eq(session_receive_many(&b.view, messages, 10), 2);
	cr_expect_eq(session_scene_number(messages[1].data, messages[1].size), 7);
	cr_assert_eq(session_receive_many(&b.view, messages, 10), IPC_EAGAIN);
}

/* ---- claims ---- */

static void *claim(struct session_member *member, uint64_t size)
{
	void *data;

	cr_assert_eq(session_claim(&member->view, size, &data), 0);
	cr_assert_eq((uintptr_t)data % 16, 0);
	return data;
}

static void commit(struct session_member *member, void *data, uint64_t value, uint64_t size)
{
	pattern_fill(data, size, value);
	cr_assert_eq(session_commit(&member->view, data, size), 0);
}

/* C-14 */
Case(numbers_are_given_by_commit)
{
	struct ipc_session_message message;
	void *data[3];

	for (unsigned i = 0; i < 3; ++i)
		data[i] = claim(&a, 100 + i);
	commit(&a, data[2], 12, 102);
	cr_assert_eq(session_scene_send(&a, 20, 40), 0);
	commit(&a, data[0], 10, 50);
	cr_assert_eq(session_abort(&a.view, data[1]), 0);

	expect_receive(&b, 1, 12, &message);
	cr_expect_eq(message.size, 102);
	expect_receive(&b, 2, 20, &message);
	expect_receive(&b, 3, 10, &message);
	cr_expect_eq(message.size, 50);
	cr_expect_eq(session_scene_receive(&b, &message), IPC_EAGAIN);
	cr_expect_eq(session_scene_state(&a).sent, 3);
}

/* C-14 */
Case(a_pointer_that_is_no_open_claim_is_refused)
{
	struct ipc_session_message message;
	void *data = claim(&a, 100), *others = claim(&b, 100);

	cr_assert_eq(session_scene_send(&b, 1, 20), 0);
	cr_assert_eq(session_scene_receive(&a, &message), 1);

	cr_expect_eq(session_commit(&a.view, NULL, 0), IPC_EINVAL);
	cr_expect_eq(session_commit(&a.view, (char *)data + 16, 0), IPC_EINVAL);
	cr_expect_eq(session_commit(&a.view, others, 0), IPC_EINVAL);
	cr_expect_eq(session_abort(&a.view, others), IPC_EINVAL);
	cr_expect_eq(session_commit_release(&a.view, others, 0, &message), IPC_EINVAL);
	cr_expect_eq(session_commit(&a.view, data, 100), 0);
	cr_expect_eq(session_commit(&a.view, data, 100), IPC_EINVAL);
	cr_expect_eq(session_abort(&a.view, data), IPC_EINVAL);
	cr_expect_eq(session_scene_state(&a).released, 0);
}

/* C-14 */
Case(a_commit_above_what_was_claimed_leaves_the_claim_open)
{
	struct ipc_session_message request, message;
	void *data = claim(&a, 100);

	cr_assert_eq(session_scene_send(&b, 1, 20), 0);
	cr_assert_eq(session_scene_receive(&a, &request), 1);
	cr_expect_eq(session_commit(&a.view, data, 101), IPC_EMSGSIZE);
	cr_expect_eq(session_commit_release(&a.view, data, 101, &request), IPC_EMSGSIZE);
	cr_expect_eq(session_scene_state(&a).released, 0);
	commit(&a, data, 5, 100);
	expect_receive(&b, 1, 5, &message);
}

/* ---- release ---- */

/* C-10 */
Case(release_is_cumulative)
{
	struct ipc_session_message messages[3];

	for (uint64_t i = 1; i <= 3; ++i)
		cr_assert_eq(session_scene_send(&a, i, 20), 0);
	cr_assert_eq(session_receive_many(&b.view, messages, 3), 3);
	cr_assert_eq(session_release(&b.view, &messages[1]), 0);
	cr_expect_eq(session_scene_state(&a).acknowledged, 2);
	cr_expect_eq(session_scene_state(&b).released, 2);
	cr_expect_eq(session_release(&b.view, &messages[0]), 0);
	cr_expect_eq(session_release(&b.view, &messages[1]), 0);
	cr_expect_eq(session_scene_state(&a).acknowledged, 2);
	cr_assert_eq(session_release(&b.view, &messages[2]), 0);
	cr_expect_eq(session_scene_state(&a).acknowledged, 3);
}

/* C-10 */
Case(a_message_of_another_end_is_not_released)
{
	struct ipc_session_message message, other, forged;

	cr_assert_eq(session_scene_send(&a, 1, 20), 0);
	cr_assert_eq(session_scene_send(&b, 1, 20), 0);
	cr_assert_eq(session_scene_receive(&b, &message), 1);
	cr_assert_eq(session_scene_receive(&a, &other), 1);
	cr_expect_eq(session_release(&b.view, &other), IPC_EINVAL);
	cr_expect_eq(session_release(&a.view, &message), IPC_EINVAL);

	forged = message;
	forged.token += 1;
	cr_expect_eq(session_release(&b.view, &forged), IPC_EINVAL);
	forged = message;
	forged.sequence += 1;
	cr_expect_eq(session_release(&b.view, &forged), IPC_EINVAL);
	forged = message;
	forged.token ^= UINT64_C(1) << 50;
	cr_expect_eq(session_release(&b.view, &forged), IPC_EINVAL);
	forged = message;
	cr_expect_eq(session_release(&b.view, &forged), 0);
	cr_expect_eq(session_scene_state(&a).acknowledged, 1);
}

/* ---- commit_release ---- */

/* C-12 */
Case(commit_release_does_both)
{
	struct ipc_session_message request[2], reply;

	for (uint64_t i = 0; i < 2000; ++i) {
		void *data;

		cr_assert_eq(session_scene_send(&a, 2 * i, 100), 0);
		cr_assert_eq(session_scene_send(&a, 2 * i + 1, 30), 0);
		cr_assert_eq(session_receive_many(&b.view, request, 2), 2);
		data = claim(&b, 200);
		pattern_fill(data, 50 + i % 100, i);
		cr_assert_eq(session_commit_release(&b.view, data, 50 + i % 100, &request[1]), 0);
		expect_receive(&a, i + 1, i, &reply);
		cr_assert_eq(session_scene_state(&a).acknowledged, 2 * i + 2);
		cr_assert_eq(session_release(&a.view, &reply), 0);
	}
}

/* C-10, C-12 */
Case(commit_release_of_what_is_released_commits)
{
	struct ipc_session_message request, reply;

	cr_assert_eq(session_scene_send(&a, 1, 100), 0);
	cr_assert_eq(session_scene_receive(&b, &request), 1);
	cr_assert_eq(session_release(&b.view, &request), 0);
	cr_assert_eq(session_commit_release(&b.view, claim(&b, 20), 0, &request), 0);
	cr_assert_eq(session_scene_receive(&a, &reply), 1);
	cr_expect_eq(session_scene_state(&a).acknowledged, 1);
}

/* C-12 */
Case(commit_release_that_is_refused_does_neither)
{
	struct ipc_session_message request, forged, message;
	void *data = claim(&b, 20);

	cr_assert_eq(session_scene_send(&a, 1, 100), 0);
	cr_assert_eq(session_scene_receive(&b, &request), 1);
	forged = request;
	forged.sequence = 2;
	cr_expect_eq(session_commit_release(&b.view, data, 0, &forged), IPC_EINVAL);
	cr_expect_eq(session_scene_receive(&a, &message), IPC_EAGAIN);
	cr_expect_eq(session_scene_state(&a).acknowledged, 0);
	cr_expect_eq(session_commit_release(&b.view, data, 0, &request), 0);
	cr_expect_eq(session_scene_state(&a).acknowledged, 1);
}

/* ---- state ---- */

/* C-1 */
Case(state_tells_both_directions)
{
	struct ipc_session_message messages[3];
	struct ipc_session_state state;

	for (uint64_t i = 1; i <= 4; ++i)
		cr_assert_eq(session_scene_send(&a, i, 20), 0);
	cr_assert_eq(session_receive_many(&b.view, messages, 3), 3);
	cr_assert_eq(session_release(&b.view, &messages[1]), 0);

	state = session_scene_state(&a);
	cr_expect_eq(state.size, sizeof(state));
	cr_expect_eq(state.sent, 4);
	cr_expect_eq(state.acknowledged, 2);
	cr_expect_eq(state.received, 0);
	cr_expect_eq(state.released, 0);
	state = session_scene_state(&b);
	cr_expect_eq(state.sent, 0);
	cr_expect_eq(state.acknowledged, 0);
	cr_expect_eq(state.received, 3);
	cr_expect_eq(state.released, 2);
	cr_expect_eq(state.away_ns, 0);
}

/* C-15 */
Case(an_offer_is_taken_once)
{
	cr_expect_eq(session_is_taken(scene.segment), SESSION_OFFERED);
	cr_expect(session_take(scene.segment, SESSION_ABANDONED));
	cr_expect_not(session_take(scene.segment, SESSION_ACCEPTED));
	cr_expect_eq(session_is_taken(scene.segment), SESSION_ABANDONED);
}

/* ---- wakes ---- */

static unsigned n_rings;

static void count_ring(void *userdata)
{
	(void)userdata;
	++n_rings;
}

/* Somebody at this end is told, once. */
static bool is_told(struct session_member *member, struct session_member *other)
{
	struct eventcount *line = session_line(&member->view);
	uint32_t count = eventcount_armed(line);

	other->view.ring = count_ring;
	if (count != UINT32_MAX) {
		cr_expect_eq(n_rings, 0);
		return false;
	}
	cr_expect_eq(n_rings, 1);
	n_rings = 0;
	(void)eventcount_arm(line);
	return true;
}

/* M-27 */
Case(whoever_sleeps_is_told_of_what_concerns_him)
{
	struct ipc_session_message message;
	void *data;

	a.view.ring = b.view.ring = count_ring;
	(void)eventcount_arm(session_line(&a.view));
	(void)eventcount_arm(session_line(&b.view));

	cr_assert_eq(session_scene_send(&a, 1, 20), 0);
	cr_expect(is_told(&b, &a));
	data = claim(&a, 20);
	cr_expect_not(is_told(&b, &a));
	commit(&a, data, 2, 20);
	cr_expect(is_told(&b, &a));
	cr_expect_not(is_told(&a, &b));

	cr_assert_eq(session_scene_receive(&b, &message), 1);
	cr_expect_not(is_told(&a, &b));
	cr_assert_eq(session_release(&b.view, &message), 0);
	cr_expect(is_told(&a, &b));
	cr_assert_eq(session_scene_receive(&b, &message), 1);
	data = claim(&b, 20);
	cr_assert_eq(session_commit_release(&b.view, data, 20, &message), 0);
	cr_expect(is_told(&a, &b));
	cr_expect_not(is_told(&b, &a));
}

/* ---- what others wrote ---- */

/* M-60, M-61 */
Case(a_number_that_is_not_the_next_breaks_it)
{
	struct ipc_session_message message;

	cr_assert_eq(session_scene_send(&a, 1, 20), 0);
	atomic_store(&ring_at(&a.view.out.view, 0)->number, 2);
	cr_expect_eq(session_scene_receive(&b, &message), IPC_EBADMSG);
	cr_expect_eq(session_scene_receive(&b, &message), IPC_EBADMSG);
	cr_expect_eq(session_scene_send(&a, 1, 20), IPC_EBADMSG);
	cr_expect_eq(session_probe_room(&a.view), IPC_EBADMSG);
	cr_expect_eq(session_probe_message(&a.view), IPC_EBADMSG);
}

/* M-60 */
Case(a_record_that_is_no_message_breaks_it)
{
	struct ipc_session_message message;

	cr_assert_eq(session_scene_send(&a, 1, 20), 0);
	atomic_store(&ring_at(&a.view.out.view, 0)->what, 3 | 20 << 16);
	cr_expect_eq(session_scene_receive(&b, &message), IPC_EBADMSG);
	cr_expect_eq(header_fault(scene.segment), IPC_EBADMSG);
}

/* M-60: an impossible tail is no acknowledgement. */
Case(a_tail_that_cannot_be_breaks_it)
{
	struct ipc_session_state state = {.size = sizeof(state)};

	cr_assert_eq(session_scene_send(&a, 1, 20), 0);
	atomic_store(&ring_at(&a.view.out.view, 1)->number, 77777);
	atomic_store(&a.view.shared->ring[0].tail, ring_word(ring_tag(b.view.in.tail), 0, 1));
	cr_expect_eq(session_get_state(&a.view, &state), IPC_EBADMSG);
}
