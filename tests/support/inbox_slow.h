/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_INBOX_SLOW_H
#define TESTS_SUPPORT_INBOX_SLOW_H

/*
 * An end of an inbox whose process stands still in the middle of an operation: what was sent before
 * it, the operation, and what it does when it goes on.
 */

#include "tests/support/inbox_cast.h"

enum { LATE = 77, N_HEIRS = 3, GOES_ON = 99 };
enum { N_RECEIVED = 4 };

struct plan {
	void (*before)(void);  /* in the parent: what is sent before */
	void (*prepare)(void); /* in the child, which has its end; may be NULL */
	int (*operate)(void);  /* in the child: what it was told */
	void (*meanwhile)(long n);
	enum ipc_inbox_full full;
	bool receives; /* the child is the receiver */
	bool is_taken_over;
	bool settles; /* the operation takes the end */
};

/* What the child's receiver knows; in shared memory. */
struct slow {
	struct inbox_replica replica;
	struct inbox_state lasting;
};

static const struct plan *plan;
static struct slow *slow;
static struct inbox_sender slow_sender;
static struct inbox_receiver slow_receiver;
static struct inbox_sender *by; /* who sends in the end */
static unsigned char late_bytes[CAST_SIZE];
static int chunk_fd = -1;
static void *slow_claim; /* open, and filled by who was taken over */
static uint64_t slow_claim_size;

/* In shared memory: what the slow one was told, and when it went on. */
static _Atomic uint64_t *told(void)
{
	return &scene.board->word[0];
}

static _Atomic uint64_t *told_then(void)
{
	return &scene.board->word[1];
}

static _Atomic uint64_t *is_overtaken(void)
{
	return &scene.board->word[2];
}

static uint32_t process(void)
{
	return (uint32_t)getpid();
}

/* ---- before ---- */

static void send_some(void)
{
	for (uint64_t i = 0; i < 6; ++i)
		cast_must(cast_frame(&sender, 20 + i, true), "frame");
}

static void fill(void)
{
	cast_fill(&sender);
}

static void fill_snapshot(struct inbox_sender *with)
{
	int r = inbox_begin_snapshot(with, 8, true);

	cast_must(r, "begin");
	while (r == 0)
		r = inbox_send_chunk(with, cast_bytes(9, CAST_SIZE), CAST_SIZE, true);
	do
		r = inbox_send_chunk(with, "", 0, true);
	while (r == 0);
}

static void send_half_a_snapshot(void)
{
	fill_snapshot(&sender);
}

static void send_snapshot_by_descriptor(void)
{
	cast_must(inbox_begin_snapshot(&sender, 8, true), "begin");
	cast_must(inbox_send_chunk_fd(&sender, chunk_fd, 0, 8, true), "chunk");
	cast_must(cast_chunks(&sender, 2), "chunks");
}

static void scene_make(void)
{
	cast_make(plan->full);
	if (!slow)
		slow = inbox_scene_map(sizeof(*slow));
	inbox_replica_forget(&slow->replica);
	by = &sender;
	if (plan->before)
		plan->before();
	if (!plan->receives && plan->before)
		cast_must(inbox_replica_receive(&cast->replica, 2, 0), "receive");
	inbox_scene_end(&scene, plan->receives ? CAST_FIRST_RECEIVER : CAST_FIRST_SENDER);
}

/* ---- the slow one ---- */

static int do_receive(void);

static void slow_begin(void)
{
	cast_must(inbox_scene_try_receiver(&scene, &slow_receiver, CAST_VICTIM, process()),
		  "begin");
	slow->lasting = cast->lasting;
	inbox_replica_begin(&slow->replica,
			    plan->is_taken_over && plan->operate == do_receive ? &slow->lasting
									       : &cast->lasting,
			    &slow_receiver);
}

static void prepare(void *arg)
{
	(void)arg;
	if (plan->settles)
		return;
	if (plan->receives)
		slow_begin();
	else
		cast_must(inbox_scene_try_sender(&scene, &slow_sender, CAST_VICTIM, process()),
			  "begin");
	if (plan->prepare)
		plan->prepare();
}

static void receive_two(void)
{
	cast_must(inbox_replica_receive(&slow->replica, 2, 0), "receive");
}

static void receive_and_apply(void)
{
	cast_must(inbox_replica_receive(&slow->replica, N_RECEIVED, 0), "receive");
	inbox_replica_apply(&slow->replica, slow->replica.n_held);
}

static void slow_fills(void)
{
	cast_fill(&slow_sender);
}

static void slow_fills_snapshot(void)
{
	fill_snapshot(&slow_sender);
}

static void slow_sends_half(void)
{
	cast_must(inbox_begin_snapshot(&slow_sender, 9, true), "begin");
	cast_must(cast_chunks(&slow_sender, 2), "chunks");
}

static void claim(uint64_t size)
{
	slow_claim_size = size;
	cast_must(inbox_claim_frame(&slow_sender, size, &slow_claim, true), "claim");
	pattern_fill(slow_claim, size, LATE);
}

/* Frames have passed it by. */
static void slow_claims_and_fills(void)
{
	claim(CAST_SIZE);
	slow_fills();
}

/* It is the last there is. */
static void slow_fills_and_claims(void)
{
	slow_fills();
	claim(8);
}

static int do_receive(void)
{
	return inbox_replica_receive(&slow->replica, N_RECEIVED, 0);
}

static int do_mark(void)
{
	return inbox_mark_applied(&slow_receiver, &slow->replica.held[1]);
}

static int do_take_receiver(void)
{
	return inbox_scene_try_receiver(&scene, &slow_receiver, CAST_VICTIM, process());
}

static int do_take_sender(void)
{
	return inbox_scene_try_sender(&scene, &slow_sender, CAST_VICTIM, process());
}

/* Of one that is taken over: whether it was sent is found by the positions. */
static int do_frame(void)
{
	int r;

	cast->number = LATE;
	r = inbox_send_frame(&slow_sender, cast->primary.offset, late_bytes, CAST_SIZE, false);
	if (r == 0 && !plan->is_taken_over) {
		cast->primary.value =
			inbox_replica_change(cast->primary.value, LATE, cast->primary.offset);
		++cast->primary.offset;
	}
	return r;
}

/* A claim is written to until it is known that the end is another's. */
static int write_on(int r)
{
	memset(slow_claim, 0x63, slow_claim_size);
	if (atomic_load(is_overtaken()) &&
	    inbox_commit_frame(&slow_sender, slow_sender.out.number, slow_claim, 8) != IPC_ESTALE)
		return IPC_EBADMSG;

	return r;
}

static int do_frame_beside_a_claim(void)
{
	return write_on(do_frame());
}

static int do_begin_beside_a_claim(void)
{
	return write_on(inbox_begin_snapshot(&slow_sender, 9, false));
}

static int do_commit(void)
{
	int r;

	cast->number = LATE;
	r = inbox_commit_frame(&slow_sender, cast->primary.offset, slow_claim, slow_claim_size);
	return r < 0 ? write_on(r) : r;
}

static int do_chunk(void)
{
	return inbox_send_chunk(&slow_sender, "", 0, false);
}

static int do_chunk_fd(void)
{
	return inbox_send_chunk_fd(&slow_sender, chunk_fd, 0, 8, false);
}

static int do_end(void)
{
	return inbox_end_snapshot(&slow_sender, cast->primary.offset, false);
}

/* All that there is. */
static int slow_drains(void)
{
	int r;

	do {
		r = inbox_replica_mark(&slow->replica, slow->replica.n_held);
		if (r == 0)
			r = inbox_replica_receive(&slow->replica, 64, 0);
	} while (r > 0 && !slow->replica.wrong);
	return r;
}

/* Who was taken over has nothing to do anything with. */
static int slow_tries(void)
{
	struct ipc_inbox_event event;
	int r;

	if (plan->settles)
		return IPC_ESTALE;
	if (!plan->receives)
		return inbox_send_frame(&slow_sender, slow_sender.out.number, "", 0, false);

	r = slow->replica.n_held > 0
		    ? inbox_mark_applied(&slow_receiver,
					 &slow->replica.held[slow->replica.n_held - 1])
		    : IPC_ESTALE;
	if (r == IPC_ESTALE)
		r = inbox_request_snapshot(&slow_receiver);
	return r == IPC_ESTALE ? inbox_receive_many(&slow_receiver, &event, 1, 0) : r;
}

static void operate(void *arg)
{
	int r = plan->operate(), then = GOES_ON;

	(void)arg;
	if (atomic_load(is_overtaken())) {
		if (plan->is_taken_over)
			then = slow_tries();
		else if (plan->receives)
			then = r == 0 && plan->operate == do_mark ? IPC_EAGAIN : slow_drains();
		else if (slow_sender.is_inside || inbox_is_requested(&slow_sender))
			then = cast_snapshot(&slow_sender, 10, 2);
		else
			then = cast_frame(&slow_sender, LATE + 1, true);
	}
	atomic_store(told_then(), (uint64_t)(int64_t)then);
	atomic_store(told(), (uint64_t)(int64_t)r);
}

#endif
