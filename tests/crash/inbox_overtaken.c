/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `inbox`, with one end that stands still before each of its
 * instructions.  Meanwhile the other end goes on: it gives the backlog up, or receives and marks.
 * Or the end is taken over by another one, who goes on for it.  Then the first one goes on: if it
 * was taken over it is told IPC_ESTALE, or what it did is in the stream from before; and the stream
 * is one that may come.
 */
#include "libipc/channel/inbox.h"

#include <criterion/criterion.h>
#include <sys/mman.h>

#include "tests/support/inbox_slow.h"
#include "tests/support/step.h"

enum { STRIDE = 1, STRIDE_TAKEN = 3 };

static bool found_frame; /* by the heir of a sender */
static uint64_t found_generation;

/* ---- meanwhile ---- */

static void give_up(long n, struct inbox_sender *with)
{
	int r;

	if (!with->is_inside)
		cast_fill(with);
	r = with->is_inside ? inbox_send_chunk(with, "", 0, false) : cast_frame(with, LATE, false);
	cr_assert_eq(r, IPC_EOVERFLOW, "instruction %ld: giving up: %d", n, r);
}

static void send_anew(long n, struct inbox_sender *with)
{
	int r = cast_snapshot(with, 10, 2);

	cr_assert_eq(r, 0, "instruction %ld: snapshot: %d", n, r);
	for (uint64_t i = 0; i < 3; ++i) {
		r = cast_frame(with, 30 + i, true);
		cr_assert(r == 0 || r == IPC_EAGAIN, "instruction %ld: frame: %d", n, r);
	}
}

static void sender_gives_up(long n)
{
	give_up(n, &sender);
}

static void sender_gives_up_and_goes_on(long n)
{
	give_up(n, &sender);
	send_anew(n, &sender);
}

static void sender_gives_up_twice(long n)
{
	sender_gives_up_and_goes_on(n);
	cast_fill(&sender);
	sender_gives_up_and_goes_on(n);
}

static void sender_gives_up_a_snapshot_again(long n)
{
	give_up(n, &sender);
	fill_snapshot(&sender);
	sender_gives_up_and_goes_on(n);
}

static void receive(long n, unsigned n_events, unsigned n_marked)
{
	int r = inbox_replica_receive(&cast->replica, n_events, 0);

	cr_assert(r > 0 || r == IPC_EAGAIN, "instruction %ld: receive: %d", n, r);
	if (n_marked > cast->replica.n_held)
		n_marked = cast->replica.n_held;
	r = inbox_replica_mark(&cast->replica, n_marked);
	cr_assert_eq(r, 0, "instruction %ld: mark: %d", n, r);
	cr_assert_null(cast->replica.wrong, "instruction %ld: %s", n, cast->replica.wrong);
}

static void receiver_receives(long n)
{
	receive(n, 1, 0);
}

static void receiver_marks(long n)
{
	receive(n, 0, 1);
}

static void receiver_receives_and_marks(long n)
{
	receive(n, 4, 5);
}

static void receiver_receives_all(long n)
{
	receive(n, 64, 0);
}

static void receiver_drains(long n)
{
	cast_drain(n);
}

/* ---- the heirs ---- */

/* Bytes that look like heads of records to who reads where no record begins any more. */
static void send_heads(long n, struct inbox_sender *with)
{
	static const uint64_t types[] = {INBOX_BEGIN, INBOX_CHUNK_FD, INBOX_FRAME, INBOX_ABORT, 99};

	for (unsigned i = 0; i < 300; ++i) {
		uint64_t number = types[i % 5] | (uint64_t)(i % 7) << 16, size = 8 + i % 3 * 8;
		int r = inbox_send_frame(with, cast->primary.offset, cast_bytes(number, size), size,
					 true);

		if (r == IPC_EAGAIN) {
			cast_drain(n);
			continue;
		}
		cr_assert_eq(r, 0, "instruction %ld: frame: %d", n, r);
		cast->primary.value =
			inbox_replica_change(cast->primary.value, number, cast->primary.offset);
		++cast->primary.offset;
	}
}

static void inherit_receiver(long n, unsigned n_heirs)
{
	inbox_scene_end(&scene, CAST_VICTIM);
	for (unsigned i = 0; i < n_heirs; ++i) {
		if (i > 0)
			inbox_scene_end(&scene, next_handle - 1);
		cast_inherit_receiver(n);
	}
}

/* What the slow one may write yet leaves no room, perhaps. */
static void sender_next(long n)
{
	int r = inbox_scene_try_sender(&scene, &heir_sender, next_handle, (uint32_t)getpid());

	if (r == IPC_EBUSY) {
		cast_drain(n);
		r = inbox_scene_try_sender(&scene, &heir_sender, next_handle, (uint32_t)getpid());
	}
	cr_assert_eq(r, 0, "instruction %ld: the next sender: %d", n, r);
	++next_handle;
}

static void inherit_sender(long n, unsigned n_heirs)
{
	inbox_scene_end(&scene, CAST_VICTIM);
	for (unsigned i = 0; i < n_heirs; ++i) {
		if (i > 0)
			inbox_scene_end(&scene, next_handle - 1);
		sender_next(n);
		if (i == 0) {
			found_frame = heir_sender.out.number == cast->primary.offset + 1;
			found_generation = heir_sender.now.generation;
			cast_reconcile(&heir_sender.inbox);
		}
	}
	by = &heir_sender;
}

static void receiver_is_taken_over(long n)
{
	inherit_receiver(n, 1);
}

static void new_receiver_goes_on(long n)
{
	inherit_receiver(n, 1);
	cast_settle(n, by);
	send_heads(n, by);
}

static void new_receivers_go_on(long n)
{
	inherit_receiver(n, N_HEIRS);
	cast_settle(n, by);
	cast_must(inbox_begin_snapshot(by, 11, true), "begin");
	receive(n, 1, 0);
}

static void new_receiver_finds_it_given_up(long n)
{
	inherit_receiver(n, 1);
	if (!by->is_inside && !inbox_is_requested(by))
		(void)!cast_frame(by, LATE, false);
	if (by->is_inside || inbox_is_requested(by))
		(void)!cast_snapshot(by, 11, 2);
	receive(n, 2, 1);
}

static void sender_is_taken_over(long n)
{
	inherit_sender(n, 1);
}

static void new_sender_goes_on(long n)
{
	inherit_sender(n, 1);
	cast_settle(n, by);
	send_heads(n, by);
}

static void new_senders_go_on(long n)
{
	inherit_sender(n, N_HEIRS);
	cast_settle(n, by);
	cast_must(inbox_begin_snapshot(by, 11, true), "begin");
	receive(n, 1, 0);
}

/* The receiver stands where it stood. */
static void new_sender_gives_up(long n)
{
	int r;

	inherit_sender(n, 1);
	r = inbox_begin_snapshot(by, 11, false);
	if (r == IPC_EOVERFLOW)
		r = inbox_begin_snapshot(by, 11, false);
	cr_assert(r == 0 || r == IPC_EAGAIN, "instruction %ld: begin: %d", n, r);
	if (r == 0)
		(void)!cast_chunks(by, 2);
}

static void new_sender_and_receiver_move(long n)
{
	new_sender_gives_up(n);
	receive(n, 2, 1);
}

static void meanwhile(void *arg, long n)
{
	(void)arg;
	plan->meanwhile(n);
	atomic_store(is_overtaken(), 1);
}

/* ---- after it ---- */

static void expect_told_if_taken_over(long n, int r, int then)
{
	cr_assert(then == GOES_ON || then == IPC_ESTALE, "instruction %ld: later %d", n, then);
	cr_assert(r >= 0 || r == IPC_ESTALE || (r == IPC_EOVERFLOW && !plan->receives),
		  "instruction %ld: it was told %d", n, r);
	if (plan->operate == do_frame || plan->operate == do_commit)
		cr_assert_eq(r == 0, found_frame, "instruction %ld: it was told %d", n, r);
	if (plan->operate == do_end)
		cr_assert_eq(r == 0, found_generation == 9, "instruction %ld: it was told %d", n,
			     r);
}

static void expect_told(long n, int r, int then)
{
	if (plan->receives) {
		cr_assert(r >= 0 || r == IPC_EAGAIN, "instruction %ld: it was told %d", n, r);
		cr_assert(then == GOES_ON || then == IPC_EAGAIN, "instruction %ld: later %d", n,
			  then);
		return;
	}

	cr_assert(r == 0 || r == IPC_EOVERFLOW, "instruction %ld: it was told %d", n, r);
	cr_assert(then == GOES_ON || then == 0 || then == IPC_EAGAIN, "instruction %ld: later %d",
		  n, then);
}

static void after(void *arg, long n)
{
	int r = (int)(int64_t)atomic_load(told()), then = (int)(int64_t)atomic_load(told_then());

	(void)arg;
	if (plan->is_taken_over)
		expect_told_if_taken_over(n, r, then);
	else
		expect_told(n, r, then);
	cr_assert_null(slow->replica.wrong, "instruction %ld: %s", n, slow->replica.wrong);
	cr_assert_eq(header_fault(scene.segment), 0, "instruction %ld: broken", n);

	/* With the slow one's process alive yet. */
	if (plan->is_taken_over) {
		cast_settle(n, by);
		if (n % 2)
			send_heads(n, by);
	} else if (!plan->receives) {
		cast_drain(n);
	} else if (then == IPC_EAGAIN && plan->operate == do_receive && !inbox_is_requested(by)) {
		cr_assert_eq(cast->lasting.value, cast->primary.value,
			     "instruction %ld: it is not what the primary is", n);
		cr_assert_eq(cast->lasting.offset, cast->primary.offset, "instruction %ld", n);
	}
}

/* The slow one is gone. */
static void check(void *arg, long n)
{
	(void)arg;
	if (!plan->is_taken_over) {
		inbox_scene_end(&scene, CAST_VICTIM);
		if (plan->receives)
			cast_inherit_receiver(n);
		else
			cast_inherit_sender(n, (uint32_t)getpid());
		by = plan->receives ? &sender : &heir_sender;
	}
	cast_settle(n, by);
	scene_make();
}

static void run(const struct plan *what)
{
	const struct step_case step = {.prepare = prepare,
				       .operation = operate,
				       .check = check,
				       .stride = what->is_taken_over ? STRIDE_TAKEN : STRIDE,
				       .meanwhile = meanwhile,
				       .after = after};
	long n_points;

	plan = what;
	pattern_fill(late_bytes, CAST_SIZE, LATE);
	chunk_fd = memfd_create("chunk", MFD_CLOEXEC);
	inbox_scene_must(write(chunk_fd, "12345678", 8) == 8, "write");
	scene_make();
	n_points = step_run(&step, NULL);
	cr_log_info("%ld points", n_points);
	cr_expect_gt(n_points, 30);
	chunk_fd = fd_close(chunk_fd);
}

#define OVERTAKEN(name, ...)                                                                       \
	Test(inbox_overtaken, name, .timeout = 700)                                                \
	{                                                                                          \
		run(&(const struct plan){__VA_ARGS__});                                            \
	}

#define COLLAPSES .full = IPC_INBOX_FULL_COLLAPSE

/* The receiver stands still, and the backlog is given up. */
#define RECEIVES COLLAPSES, .receives = true, .prepare = receive_two, .operate = do_receive
/* The same, and it is taken over. */
#define REPLACED                                                                                   \
	.receives = true, .is_taken_over = true, .prepare = receive_two, .operate = do_receive

/* I-5 */
OVERTAKEN(receiver_by_a_gap, RECEIVES, .before = fill, .meanwhile = sender_gives_up)
OVERTAKEN(receiver_by_a_new_snapshot, RECEIVES, .before = fill,
	  .meanwhile = sender_gives_up_and_goes_on)
OVERTAKEN(receiver_by_two_new_snapshots, RECEIVES, .before = fill,
	  .meanwhile = sender_gives_up_twice)
OVERTAKEN(receiver_by_half_a_snapshot, RECEIVES, .before = fill,
	  .meanwhile = sender_gives_up_a_snapshot_again)
OVERTAKEN(receiver_inside_by_a_gap, RECEIVES, .before = send_half_a_snapshot,
	  .meanwhile = sender_gives_up)
OVERTAKEN(receiver_inside_by_a_new_snapshot, RECEIVES, .before = send_half_a_snapshot,
	  .meanwhile = sender_gives_up_and_goes_on)
OVERTAKEN(receiver_inside_by_two_new_snapshots, RECEIVES, .before = send_half_a_snapshot,
	  .meanwhile = sender_gives_up_a_snapshot_again)
OVERTAKEN(receiver_marking_by_two_new_snapshots, COLLAPSES, .receives = true, .before = fill,
	  .prepare = receive_and_apply, .operate = do_mark, .meanwhile = sender_gives_up_twice)

#define GIVES_UP COLLAPSES, .prepare = slow_fills, .operate = do_frame

/* I-5 */
OVERTAKEN(sender_by_one_that_is_received, GIVES_UP, .meanwhile = receiver_receives)
OVERTAKEN(sender_by_one_that_is_applied, GIVES_UP, .before = send_some, .meanwhile = receiver_marks)
OVERTAKEN(sender_by_some_that_are_applied, GIVES_UP, .meanwhile = receiver_receives_and_marks)
OVERTAKEN(sender_by_all_that_are_received, GIVES_UP, .meanwhile = receiver_receives_all)
OVERTAKEN(sender_by_all_that_are_applied, GIVES_UP, .meanwhile = receiver_drains)
OVERTAKEN(sender_inside_by_some_that_are_applied, COLLAPSES, .prepare = slow_fills_snapshot,
	  .operate = do_chunk, .meanwhile = receiver_receives_and_marks)
OVERTAKEN(sender_inside_by_all_that_are_applied, COLLAPSES, .prepare = slow_fills_snapshot,
	  .operate = do_chunk, .meanwhile = receiver_drains)

/* I-4, I-5 */
OVERTAKEN(receiver_taken_over, COLLAPSES, REPLACED, .before = fill,
	  .meanwhile = receiver_is_taken_over)
OVERTAKEN(receiver_taken_over_and_gone_on, COLLAPSES, REPLACED, .before = fill,
	  .meanwhile = new_receiver_goes_on)
OVERTAKEN(receiver_taken_over_often, COLLAPSES, REPLACED, .before = fill,
	  .meanwhile = new_receivers_go_on)
OVERTAKEN(receiver_taken_over_and_given_up, COLLAPSES, REPLACED, .before = fill,
	  .meanwhile = new_receiver_finds_it_given_up)
OVERTAKEN(receiver_taken_over_inside, COLLAPSES, REPLACED, .before = send_half_a_snapshot,
	  .meanwhile = new_receiver_goes_on)
OVERTAKEN(receiver_taken_over_at_a_descriptor, COLLAPSES, REPLACED,
	  .before = send_snapshot_by_descriptor, .meanwhile = new_receiver_goes_on)
OVERTAKEN(receiver_taken_over_that_gives_nothing_up, REPLACED, .before = send_some,
	  .meanwhile = new_receiver_goes_on)
OVERTAKEN(receiver_taken_over_marking, COLLAPSES, .receives = true, .is_taken_over = true,
	  .before = fill, .prepare = receive_and_apply, .operate = do_mark,
	  .meanwhile = new_receiver_goes_on)
OVERTAKEN(receiver_taken_over_taking_over, COLLAPSES, .receives = true, .is_taken_over = true,
	  .settles = true, .before = send_half_a_snapshot, .operate = do_take_receiver,
	  .meanwhile = new_receiver_goes_on)

#define SUCCEEDED COLLAPSES, .is_taken_over = true, .prepare = slow_fills, .operate = do_frame
#define SUCCEEDED_INSIDE                                                                           \
	COLLAPSES, .is_taken_over = true, .prepare = slow_fills_snapshot, .operate = do_chunk

/* I-3, I-5 */
OVERTAKEN(sender_taken_over, SUCCEEDED, .meanwhile = sender_is_taken_over)
OVERTAKEN(sender_taken_over_and_gone_on, SUCCEEDED, .meanwhile = new_sender_goes_on)
OVERTAKEN(sender_taken_over_often, SUCCEEDED, .meanwhile = new_senders_go_on)
OVERTAKEN(sender_taken_over_by_one_that_gives_up, SUCCEEDED, .meanwhile = new_sender_gives_up)
OVERTAKEN(sender_taken_over_and_received, SUCCEEDED, .meanwhile = new_sender_and_receiver_move)
OVERTAKEN(sender_taken_over_inside, SUCCEEDED_INSIDE, .meanwhile = new_sender_goes_on)
OVERTAKEN(sender_taken_over_inside_by_one_that_gives_up, SUCCEEDED_INSIDE,
	  .meanwhile = new_sender_and_receiver_move)
OVERTAKEN(sender_taken_over_in_a_frame, COLLAPSES, .is_taken_over = true, .operate = do_frame,
	  .meanwhile = new_sender_goes_on)
OVERTAKEN(sender_taken_over_in_an_end, COLLAPSES, .is_taken_over = true, .prepare = slow_sends_half,
	  .operate = do_end, .meanwhile = new_senders_go_on)
OVERTAKEN(sender_taken_over_at_a_descriptor, COLLAPSES, .is_taken_over = true,
	  .prepare = slow_sends_half, .operate = do_chunk_fd, .meanwhile = new_sender_goes_on)
OVERTAKEN(sender_taken_over_taking_over, COLLAPSES, .is_taken_over = true, .settles = true,
	  .before = send_half_a_snapshot, .operate = do_take_sender,
	  .meanwhile = new_sender_goes_on)

/* What was claimed lies behind or before what was sent, and is written to until the end. */
#define CLAIMED    COLLAPSES, .is_taken_over = true, .prepare = slow_fills_and_claims
#define PASSED_BY  COLLAPSES, .is_taken_over = true, .prepare = slow_claims_and_fills
#define GIVES_MORE .operate = do_frame_beside_a_claim
#define BEGINS     .operate = do_begin_beside_a_claim

/* I-3, I-5, I-14 */
OVERTAKEN(sender_with_a_claim_taken_over, CLAIMED, GIVES_MORE, .meanwhile = new_sender_goes_on)
OVERTAKEN(sender_with_a_claim_taken_over_often, CLAIMED, GIVES_MORE, .meanwhile = new_senders_go_on)
OVERTAKEN(sender_with_a_claim_taken_over_by_one_that_gives_up, CLAIMED, GIVES_MORE,
	  .meanwhile = new_sender_and_receiver_move)
OVERTAKEN(sender_with_a_claim_taken_over_in_a_begin, CLAIMED, BEGINS,
	  .meanwhile = new_sender_goes_on)
OVERTAKEN(sender_with_a_claim_taken_over_in_its_commit, CLAIMED, .operate = do_commit,
	  .meanwhile = new_sender_goes_on)
OVERTAKEN(sender_with_a_stray_taken_over, PASSED_BY, GIVES_MORE, .meanwhile = new_sender_goes_on)
OVERTAKEN(sender_with_a_stray_taken_over_often, PASSED_BY, GIVES_MORE,
	  .meanwhile = new_senders_go_on)
OVERTAKEN(sender_with_a_stray_taken_over_by_one_that_gives_up, PASSED_BY, GIVES_MORE,
	  .meanwhile = new_sender_and_receiver_move)
OVERTAKEN(sender_with_a_stray_taken_over_in_a_begin, PASSED_BY, BEGINS,
	  .meanwhile = new_sender_goes_on)
OVERTAKEN(sender_with_a_stray_taken_over_in_its_commit, PASSED_BY, .operate = do_commit,
	  .meanwhile = new_sender_goes_on)
