/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `inbox`, with either end killed at every instruction of each operation.
 * Whoever comes after it finds positions that fit together; the replica becomes what the primary
 * is.
 */
#include "libipc/channel/inbox.h"

#include <criterion/criterion.h>
#include <sys/mman.h>

#include "tests/support/inbox_cast.h"
#include "tests/support/step.h"

enum act {
	ACT_BEGIN,
	ACT_BEGIN_AGAIN,
	ACT_CHUNK,
	ACT_CHUNK_FD,
	ACT_END,
	ACT_ABORT,
	ACT_FRAME,
	ACT_CLAIM_AND_COMMIT,
	ACT_COLLAPSE,
	ACT_COLLAPSE_INSIDE,
	ACT_TAKE_SENDER,
	ACT_TAKE_SENDER_IN_COLLAPSE,
	ACT_CLOSE,
	/* from here on the receiver's */
	ACT_RECEIVE,
	ACT_RECEIVE_FD,
	ACT_RECEIVE_COLLAPSED,
	ACT_MARK_CHUNK,
	ACT_MARK_END,
	ACT_MARK_FRAME,
	ACT_REQUEST,
	ACT_TAKE_RECEIVER,
	ACT_TAKE_RECEIVER_IN_SNAPSHOT,
};

static enum act act;
static struct inbox_sender victim_sender;
static struct inbox_receiver victim_receiver;
static int chunk_fd = -1;

static bool is_senders(void)
{
	return act < ACT_RECEIVE;
}

static bool gives_up(void)
{
	return act == ACT_COLLAPSE || act == ACT_COLLAPSE_INSIDE || act == ACT_RECEIVE_COLLAPSED ||
	       act == ACT_TAKE_SENDER_IN_COLLAPSE;
}

/* ---- before it, in the parent ---- */

/* A snapshot of which the receiver has got BEGIN and a chunk. */
static void send_half(void)
{
	cast_must(inbox_begin_snapshot(&sender, 8, true), "begin");
	cast_must(cast_chunks(&sender, 2), "chunks");
}

static void scene_make(void)
{
	cast_make(gives_up() ? IPC_INBOX_FULL_COLLAPSE : IPC_INBOX_FULL_FAIL);
	switch ((unsigned)act) {
	case ACT_TAKE_SENDER:
		send_half();
		cast_must(inbox_replica_receive(&cast->replica, 1, 0), "receive");
		break;
	case ACT_TAKE_SENDER_IN_COLLAPSE:
		cast_fill(&sender);
		cast_must(inbox_replica_receive(&cast->replica, 2, 0), "receive");
		atomic_store(
			&inbox_scene_shared(&scene)->collapse,
			ring_word(ring_tag(sender.out.head), 1, ring_position(receiver.marked)));
		atomic_store(
			&inbox_scene_shared(&scene)->ring.received[ring_tag(receiver.marked) & 1],
			receiver.marked ^ (UINT64_C(9) << RING_STATE_SHIFT));
		break;
	case ACT_RECEIVE_FD:
		cast_must(inbox_begin_snapshot(&sender, 8, true), "begin");
		cast_must(inbox_send_chunk_fd(&sender, chunk_fd, 0, 8, true), "chunk");
		break;
	case ACT_RECEIVE_COLLAPSED:
		cast_fill(&sender);
		cast_must(inbox_replica_receive(&cast->replica, 1, 0), "receive");
		break;
	case ACT_RECEIVE:
	case ACT_MARK_CHUNK:
		cast_must(cast_frame(&sender, 4, true), "frame");
		send_half();
		break;
	case ACT_MARK_END:
	case ACT_MARK_FRAME:
		cast_must(cast_snapshot(&sender, 8, 2), "snapshot");
		cast_must(cast_frame(&sender, 5, true), "frame");
		break;
	case ACT_TAKE_RECEIVER:
		cast_must(cast_snapshot(&sender, 8, 2), "snapshot");
		cast_must(cast_frame(&sender, 5, true), "frame");
		cast_must(inbox_replica_receive(&cast->replica, 64, 0), "receive");
		break;
	case ACT_TAKE_RECEIVER_IN_SNAPSHOT:
		send_half();
		cast_must(inbox_replica_receive(&cast->replica, 2, 0), "receive");
		cast_must(inbox_replica_mark(&cast->replica, 1), "mark");
		break;
	default:
		cast_must(cast_frame(&sender, 4, true), "frame");
		cast_must(inbox_replica_receive(&cast->replica, 1, 0), "receive");
	}
	inbox_scene_end(&scene, is_senders() ? CAST_FIRST_SENDER : CAST_FIRST_RECEIVER);
}

/* ---- the victim ---- */

static void prepare_sender(void)
{
	if (act == ACT_TAKE_SENDER || act == ACT_TAKE_SENDER_IN_COLLAPSE)
		return;

	inbox_scene_send(&scene, &victim_sender, CAST_VICTIM);
	switch ((unsigned)act) {
	case ACT_COLLAPSE:
		cast_fill(&victim_sender);
		break;
	case ACT_BEGIN_AGAIN:
	case ACT_CHUNK:
	case ACT_CHUNK_FD:
	case ACT_END:
	case ACT_ABORT:
	case ACT_COLLAPSE_INSIDE:
	case ACT_CLOSE:
		cast_must(inbox_begin_snapshot(&victim_sender, 9, true), "begin");
		cast_must(cast_chunks(&victim_sender, 2), "chunks");
		while (act == ACT_COLLAPSE_INSIDE &&
		       inbox_send_chunk(&victim_sender, "", 0, true) == 0)
			;
		break;
	default:
		break;
	}
}

static void prepare(void *arg)
{
	(void)arg;
	if (is_senders()) {
		prepare_sender();
		return;
	}
	if (act == ACT_TAKE_RECEIVER || act == ACT_TAKE_RECEIVER_IN_SNAPSHOT)
		return;

	inbox_scene_receive(&scene, &victim_receiver, CAST_VICTIM);
	inbox_replica_begin(&cast->replica, &cast->lasting, &victim_receiver);
	if (act >= ACT_MARK_CHUNK && act <= ACT_MARK_FRAME) {
		cast_must(inbox_replica_receive(&cast->replica, 64, 0), "receive");
		inbox_replica_apply(&cast->replica, cast->replica.n_held);
	}
}

static int claim_and_commit(void)
{
	const uint64_t number = 77;
	void *data;
	int r = inbox_claim_frame(&victim_sender, CAST_SIZE, &data, true);

	cast->number = number;
	if (r == 0) {
		pattern_fill(data, CAST_SIZE / 2, number);
		r = inbox_commit_frame(&victim_sender, cast->primary.offset, data, CAST_SIZE / 2);
	}
	return r;
}

static int operate_sender(void)
{
	switch ((unsigned)act) {
	case ACT_BEGIN:
	case ACT_BEGIN_AGAIN:
		return inbox_begin_snapshot(&victim_sender, 10, true);
	case ACT_CHUNK:
		return inbox_send_chunk(&victim_sender, cast_bytes(5, 100), 100, true);
	case ACT_CHUNK_FD:
		return inbox_send_chunk_fd(&victim_sender, chunk_fd, 0, 8, true);
	case ACT_END:
		return inbox_end_snapshot(&victim_sender, cast->primary.offset, true);
	case ACT_ABORT:
		return inbox_abort_snapshot(&victim_sender);
	case ACT_FRAME:
		cast->number = 77;
		return inbox_send_frame(&victim_sender, cast->primary.offset,
					cast_bytes(77, CAST_SIZE), CAST_SIZE, true);
	case ACT_CLAIM_AND_COMMIT:
		return claim_and_commit();
	case ACT_COLLAPSE:
		return cast_frame(&victim_sender, 77, false) == IPC_EOVERFLOW ? 0 : -1;
	case ACT_COLLAPSE_INSIDE:
		return inbox_send_chunk(&victim_sender, "", 0, false) == IPC_EOVERFLOW ? 0 : -1;
	case ACT_TAKE_SENDER:
	case ACT_TAKE_SENDER_IN_COLLAPSE:
		return inbox_scene_try_sender(&scene, &victim_sender, CAST_VICTIM, 0);
	default:
		inbox_close_sender(&victim_sender);
		return 0;
	}
}

static int operate_receiver(void)
{
	struct ipc_inbox_event events[4];
	unsigned n = cast->replica.n_held;

	switch ((unsigned)act) {
	case ACT_RECEIVE:
	case ACT_RECEIVE_FD:
	case ACT_RECEIVE_COLLAPSED:
		return inbox_receive_many(&victim_receiver, events, 4, 0);
	case ACT_MARK_CHUNK:
	case ACT_MARK_END:
	case ACT_MARK_FRAME:
		if (act == ACT_MARK_END)
			--n;
		return inbox_mark_applied(&victim_receiver, &cast->replica.held[n - 1]);
	case ACT_REQUEST:
		return inbox_request_snapshot(&victim_receiver);
	default:
		return inbox_scene_try_receiver(&scene, &victim_receiver, CAST_VICTIM, 0);
	}
}

static void operate(void *arg)
{
	int r = is_senders() ? operate_sender() : operate_receiver();

	(void)arg;
	inbox_scene_must(r >= 0, "the operation");
}

/* ---- after it ---- */

static void check(void *arg, long n)
{
	struct inbox_sender *by = is_senders() ? &heir_sender : &sender;

	(void)arg;
	cast_reconcile(&sender.inbox);
	inbox_scene_end(&scene, CAST_VICTIM);
	if (is_senders()) {
		if (n % 2)
			cast_drain(n);
		cast_inherit_sender(n, 0);
	} else {
		cast->replica.n_held = 0;
		if (n % 2 && !by->is_inside)
			(void)!cast_frame(by, 88, false);
		cast_inherit_receiver(n);
	}
	cast_settle(n, by);
	scene_make();
}

static void run(enum act what)
{
	const struct step_case step = {.prepare = prepare, .operation = operate, .check = check};
	long n_points;

	act = what;
	chunk_fd = memfd_create("chunk", MFD_CLOEXEC);
	inbox_scene_must(write(chunk_fd, "12345678", 8) == 8, "write");
	scene_make();
	n_points = step_run(&step, NULL);
	cr_log_info("%ld kill points", n_points);
	cr_expect_gt(n_points, 30);
	chunk_fd = fd_close(chunk_fd);
}

#define KILLED(name, act)                                                                          \
	Test(inbox, name, .timeout = 700)                                                          \
	{                                                                                          \
		run(act);                                                                          \
	}

/* I-2, I-3 */
KILLED(killed_in_begin, ACT_BEGIN)
KILLED(killed_in_a_second_begin, ACT_BEGIN_AGAIN)
KILLED(killed_in_chunk, ACT_CHUNK)
KILLED(killed_in_chunk_by_descriptor, ACT_CHUNK_FD)
KILLED(killed_in_end, ACT_END)
KILLED(killed_in_abort, ACT_ABORT)
KILLED(killed_taking_over_inside_of_a_snapshot, ACT_TAKE_SENDER)
KILLED(killed_in_close, ACT_CLOSE)

/* I-1, I-3 */
KILLED(killed_in_frame, ACT_FRAME)
KILLED(killed_in_claim_and_commit, ACT_CLAIM_AND_COMMIT)

/* I-5 */
KILLED(killed_giving_up_the_backlog, ACT_COLLAPSE)
KILLED(killed_giving_up_a_snapshot, ACT_COLLAPSE_INSIDE)
KILLED(killed_taking_back_what_was_not_given_up, ACT_TAKE_SENDER_IN_COLLAPSE)

/* I-4, I-6 */
KILLED(killed_in_receive, ACT_RECEIVE)
KILLED(killed_receiving_a_descriptor, ACT_RECEIVE_FD)
KILLED(killed_in_receive_of_what_may_be_given_up, ACT_RECEIVE_COLLAPSED)
KILLED(killed_marking_a_chunk, ACT_MARK_CHUNK)
KILLED(killed_marking_an_end, ACT_MARK_END)
KILLED(killed_marking_a_frame, ACT_MARK_FRAME)
KILLED(killed_taking_over_what_was_lost, ACT_TAKE_RECEIVER)
KILLED(killed_taking_over_half_a_snapshot, ACT_TAKE_RECEIVER_IN_SNAPSHOT)

/* I-10 */
KILLED(killed_in_request, ACT_REQUEST)
