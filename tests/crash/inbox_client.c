/* SPDX-License-Identifier: MIT */
/*
 * inbox through the public interface, with a broker, at every so-many-th instruction: a sender and
 * a receiver are killed in the middle of open, close, sending and receiving, or stand still there
 * while the other side ends.  Others are there the whole time, and hear each event once.
 */
#include <poll.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "tests/client/inbox_scene.h"
#include "tests/support/step.h"
#include "tests/support/wakes.h"

/* An open is some ten thousand instructions. */
enum { STRIDE = 3, STRIDE_OF_OPEN = 7, NOTHING_YET = 1000000 };

/* What the child found. */
static _Atomic int64_t *result;

/* The parent's. */
static ipc_inbox_sender *sender;
static ipc_inbox_receiver *receiver;
static struct actor other;
static uint32_t next_offset;

/* The child's. */
static ipc_client *child_client;
static ipc_inbox_sender *child_sender;
static ipc_inbox_receiver *child_receiver;

static void setup(void)
{
	fixture_setup();

	/* The steps are counted by a clock that interrupts. */
	ipc_client_unref(fixture_client);
	cr_assert_eq(ipc_client_connect_wait(&fixture_client,
					     IPC_CLIENT_OPTIONS(.flags = IPC_CLIENT_NO_EINTR,
								.address = fixture_domain.address),
					     NULL),
		     0);
	result = mmap(NULL, sizeof(*result), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	cr_assert_neq(result, MAP_FAILED);
	*result = NOTHING_YET;
	next_offset = 0;
}

static void teardown(void)
{
	munmap((void *)result, sizeof(*result));
	fixture_teardown();
}

TestSuite(inbox_client, .init = setup, .fini = teardown, .timeout = 700);

static void prepare(void *arg)
{
	(void)arg;
	child_client = domain_connect(&fixture_domain);
}

static void open_sender(void *arg)
{
	(void)arg;
	*result = sender_open(&child_sender, child_client,
			      (struct ipc_inbox_options){.flags = IPC_AWAIT});
}

static void open_receiver(void *arg)
{
	(void)arg;
	*result = receiver_open(&child_receiver, child_client,
				(struct ipc_inbox_options){.flags = IPC_AWAIT});
}

/* The place is free when the death of the one before is told. */
static void sender_next(void)
{
	sender = SENDER_NEW(.flags = IPC_AWAIT | IPC_STAY);
}

static void receiver_next(void)
{
	receiver = RECEIVER_NEW(.flags = IPC_AWAIT | IPC_STAY);
}

/* ---- open of a sender ---- */

/* Some other sender dies inside of a snapshot that the receiver has seen the begin of. */
static void leave_open_snapshot(void)
{
	SENDER_START(&other, .flags = IPC_AWAIT | IPC_STAY);
	ASSERT(order_do(&other, ORDER_BEGIN, G2), 0);
	ASSERT(order_do(&other, ORDER_CHUNK, 1), 0);
	ASSERT(eat(receiver), BEGIN(G2));
	member_end(&other, true);
}

static void check_sender_opened(void *arg, long n)
{
	int64_t event;

	(void)arg;
	sender_next();
	ASSERT(frame(sender, next_offset), 0);
	ASSERT(eat(receiver), CHUNK(1));
	ASSERT(eat(receiver), ABORT(SENDER_DIED));
	event = eat(receiver);
	cr_assert_eq(event, FRAME(next_offset), "%lx, killed at %ld", (long)event, n);
	ASSERT(eat(receiver), IPC_EAGAIN);
	cr_assert_eq(positions_at(receiver).applied, ++next_offset);
	sender = ipc_inbox_sender_close(sender);
	leave_open_snapshot();
}

static void begin_stream(uint64_t flags)
{
	receiver = RECEIVER_NEW(.flags = flags | IPC_STAY);
	sender_next();
	ASSERT(snapshot(sender, G1, next_offset), 0);
	for (unsigned i = 0; i < 3; ++i)
		cr_assert_gt(eat(receiver), 0);
}

/* I-2, I-3, M-25 */
Test(inbox_client, sender_killed_in_its_open_leaves_the_stream_as_it_was)
{
	const struct step_case step = {.prepare = prepare,
				       .operation = open_sender,
				       .check = check_sender_opened,
				       .stride = STRIDE_OF_OPEN};
	long n_points;

	begin_stream(0);
	sender = ipc_inbox_sender_close(sender);
	leave_open_snapshot();
	n_points = step_run(&step, NULL);
	cr_expect_gt(n_points, 20);
	receiver = ipc_inbox_receiver_close(receiver);
}

/* A receiver that looks meanwhile is told once, whoever finds out first. */
static void look_meanwhile(void *arg, long n)
{
	int64_t *seen = arg;

	*seen = eat(receiver);
	cr_assert(*seen == ABORT(SENDER_DIED) || *seen == IPC_EAGAIN, "%lx, stopped at %ld",
		  (long)*seen, n);
}

static void check_told_once(void *arg, long n)
{
	const int64_t *seen = arg;

	(void)n;
	sender_next();
	ASSERT(frame(sender, next_offset), 0);
	if (*seen == IPC_EAGAIN)
		ASSERT(eat(receiver), ABORT(SENDER_DIED));
	ASSERT(eat(receiver), FRAME(next_offset));
	ASSERT(eat(receiver), IPC_EAGAIN);
	++next_offset;
	sender = ipc_inbox_sender_close(sender);
	leave_open_snapshot();
	ASSERT(eat(receiver), CHUNK(1));
}

/* I-2, I-3 */
Test(inbox_client, abort_is_told_once_while_the_next_sender_opens)
{
	const struct step_case step = {.prepare = prepare,
				       .operation = open_sender,
				       .check = check_told_once,
				       .meanwhile = look_meanwhile,
				       .stride = STRIDE_OF_OPEN};
	int64_t seen = IPC_EAGAIN;
	long n_points;

	begin_stream(0);
	sender = ipc_inbox_sender_close(sender);
	leave_open_snapshot();
	ASSERT(eat(receiver), CHUNK(1));
	n_points = step_run(&step, &seen);
	cr_expect_gt(n_points, 20);
	receiver = ipc_inbox_receiver_close(receiver);
}

/* ---- open of a receiver ---- */

/* Some other receiver dies inside of a snapshot. */
static void lose_snapshot(void)
{
	RECEIVER_START(&other, .flags = IPC_AWAIT | IPC_STAY);
	ASSERT(ipc_inbox_begin_snapshot(sender, G2), 0);
	ASSERT(order_do(&other, ORDER_RECEIVE, 0), BEGIN(G2));
	ASSERT(chunk(sender, 1), 0);
	member_end(&other, true);
}

static void check_receiver_opened(void *arg, long n)
{
	uint64_t served = *(uint64_t *)arg;

	receiver_next();
	cr_assert_gt(positions_of(sender).snapshot_wanted, served, "killed at %ld", n);
	ASSERT(chunk(sender, 2), IPC_EOVERFLOW);
	ASSERT(eat(receiver), ABORT(RECEIVER_CHANGED));
	ASSERT(eat(receiver), IPC_EAGAIN);
	ASSERT(positions_of(sender).applied, next_offset);
	*(uint64_t *)arg = positions_of(sender).snapshot_wanted;
	ASSERT(snapshot(sender, G1, ++next_offset), 0);
	ASSERT(eat(receiver), BEGIN(G1));
	ASSERT(eat(receiver), CHUNK(next_offset));
	ASSERT(eat(receiver), END(next_offset));
	ASSERT(positions_of(sender).depth, 0);
	receiver = ipc_inbox_receiver_close(receiver);
	lose_snapshot();
}

/* I-4, M-25 */
Test(inbox_client, receiver_killed_in_its_open_leaves_the_request)
{
	const struct step_case step = {.prepare = prepare,
				       .operation = open_receiver,
				       .check = check_receiver_opened,
				       .stride = STRIDE_OF_OPEN};
	uint64_t served = 0;
	long n_points;

	begin_stream(0);
	receiver = ipc_inbox_receiver_close(receiver);
	lose_snapshot();
	n_points = step_run(&step, &served);
	cr_expect_gt(n_points, 20);
	sender = ipc_inbox_sender_close(sender);
}

/* ---- close ---- */

static void prepare_snapshot(void *arg)
{
	prepare(arg);
	open_sender(arg);
	if (ipc_inbox_begin_snapshot(child_sender, G2) < 0)
		process_end(1);
}

static void close_sender(void *arg)
{
	(void)arg;
	child_sender = ipc_inbox_sender_close(child_sender);
}

static void check_sender_closed(void *arg, long n)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	int64_t event;

	(void)arg;
	ASSERT(eat_in(receiver, WAIT_MS), BEGIN(G2));
	event = eat_in(receiver, WAIT_MS);
	cr_assert(event == ABORT(SENDER_DIED) || event == ABORT(SENDER_CLOSED),
		  "%lx, killed at %ld", (long)event, n);
	ASSERT(ipc_inbox_receiver_peers_wait(receiver, false, &deadline), 0);
	ASSERT(eat(receiver), IPC_EAGAIN);
	sender_next();
	ASSERT(frame(sender, next_offset), 0);
	ASSERT(eat(receiver), FRAME(next_offset++));
	ASSERT(eat(receiver), IPC_EAGAIN);
	sender = ipc_inbox_sender_close(sender);
}

/* I-2, I-3, M-44 */
Test(inbox_client, sender_killed_in_its_close_has_aborted_or_died)
{
	const struct step_case step = {.prepare = prepare_snapshot,
				       .operation = close_sender,
				       .check = check_sender_closed,
				       .stride = 4 * STRIDE};
	long n_points;

	begin_stream(0);
	sender = ipc_inbox_sender_close(sender);
	n_points = step_run(&step, NULL);
	cr_expect_gt(n_points, 20);
	receiver = ipc_inbox_receiver_close(receiver);
}

static void prepare_receiver(void *arg)
{
	struct ipc_inbox_event event;

	prepare(arg);
	open_receiver(arg);
	if (ipc_inbox_receive(child_receiver, &event) < 0)
		process_end(1);
}

static void close_receiver(void *arg)
{
	(void)arg;
	child_receiver = ipc_inbox_receiver_close(child_receiver);
}

static void check_receiver_closed(void *arg, long n)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	int r = ipc_inbox_applied_wait(sender, next_offset + 1, &deadline);

	(void)arg;
	cr_assert(r == IPC_EPIPE || r == IPC_EOWNERDEAD, "%s, killed at %ld", ipc_error_name(r), n);

	/* What it held comes again. */
	receiver = RECEIVER_NEW(.flags = IPC_AWAIT | IPC_STAY);
	ASSERT(eat(receiver), FRAME(next_offset++));
	ASSERT(frame(sender, next_offset), 0);
	receiver = ipc_inbox_receiver_close(receiver);
}

/* I-4, M-22, M-44 */
Test(inbox_client, receiver_killed_in_its_close_ends_the_waits_for_it)
{
	const struct step_case step = {.prepare = prepare_receiver,
				       .operation = close_receiver,
				       .check = check_receiver_closed,
				       .stride = 4 * STRIDE};
	long n_points;

	receiver_next();
	sender = SENDER_NEW(0);
	ASSERT(snapshot(sender, G1, 0), 0);
	for (unsigned i = 0; i < 3; ++i)
		cr_assert_gt(eat(receiver), 0);
	ASSERT(frame(sender, 0), 0);
	receiver = ipc_inbox_receiver_close(receiver);
	n_points = step_run(&step, NULL);
	cr_expect_gt(n_points, 20);
	sender = ipc_inbox_sender_close(sender);
}

/* ---- sending and receiving ---- */

struct sending {
	ipc_inbox_observer *observer;
	unsigned n_sent;
};

static uint64_t written_by(ipc_inbox_observer *observer)
{
	struct ipc_inbox_positions positions = {.size = sizeof(positions)};

	ASSERT(ipc_inbox_observer_get_positions(observer, &positions), 0);
	return positions.written;
}

static void prepare_sender(void *arg)
{
	uint64_t id = 0;

	prepare(arg);
	open_sender(arg);
	if (*result < 0 || ipc_inbox_sender_get_id(child_sender, &id) < 0)
		process_end(1);
	*result = (int64_t)id;
}

static void send_one(void *arg)
{
	(void)arg;
	(void)!frame(child_sender, next_offset);
}

/* The receiver says something without anybody's doing. */
static bool is_told(void)
{
	struct pollfd pollfd = {.fd = other.fd, .events = POLLIN};

	return poll(&pollfd, 1, WAIT_MS / 2) == 1;
}

static void check_sent(void *arg, long n)
{
	struct sending *sending = arg;

	until_not_alive((uint64_t)*result);
	if (written_by(sending->observer) > next_offset) {
		++sending->n_sent;
		cr_assert(is_told(), "killed at %ld: nobody wakes the receiver", n);
	}
	sender_next();
	if (positions_of(sender).written == next_offset)
		ASSERT(frame(sender, next_offset), 0);
	cr_assert_eq(actor_hear(&other), FRAME(next_offset), "killed at %ld", n);
	ASSERT(order_do(&other, ORDER_MARK, 0), 0);
	ASSERT(order_do(&other, ORDER_RECEIVE, 0), IPC_EAGAIN);
	++next_offset;
	sender = ipc_inbox_sender_close(sender);
	order_sleep(&other, ORDER_RECEIVE_WAIT, 0);
}

static void prepare_looking(void *arg)
{
	int64_t event = 0, last = 0;

	prepare(arg);
	open_receiver(arg);
	if (*result < 0)
		process_end(1);

	/* What came of the child before it. */
	while ((event = eat(child_receiver)) >= 0)
		last = event;
	if (event != IPC_EAGAIN || last != BEGIN(G2))
		process_end(1);
}

static void look_once(void *arg)
{
	struct ipc_inbox_event event;
	int r = ipc_inbox_receive_wait(child_receiver, &event, &past);

	(void)arg;
	*result = r < 0 ? r : event_number(&event);
}

static bool standby;

/* The sender dies inside of the snapshot; perhaps another one is there at once. */
static void end_of_the_sender(void *arg, long n)
{
	(void)arg;
	(void)n;
	member_end(&other, true);
	if (standby)
		sender_next();
}

static void check_looked(void *arg, long n)
{
	(void)arg;
	cr_assert(*result == ABORT(SENDER_DIED) || *result == IPC_ETIMEDOUT,
		  "%lx (%s), stopped at %ld", (long)*result, ipc_error_name((int)*result), n);
	sender = ipc_inbox_sender_close(sender);
	SENDER_START(&other, .flags = IPC_AWAIT | IPC_STAY);
	ASSERT(order_do(&other, ORDER_BEGIN, G2), 0);
}

static void expect_abort_at_each_instruction(bool another)
{
	const struct step_case step = {.prepare = prepare_looking,
				       .operation = look_once,
				       .check = check_looked,
				       .stride = 2 * STRIDE,
				       .meanwhile = end_of_the_sender};
	long n_points;

	standby = another;
	SENDER_START(&other, .flags = IPC_CREATE | IPC_KEEP | IPC_STAY);
	ASSERT(order_do(&other, ORDER_BEGIN, G2), 0);
	n_points = step_run(&step, NULL);
	cr_expect_gt(n_points, 20);
	actor_kill(&other);
	ASSERT(take_away(NAME, 0), 0);
}

/* I-2, I-3, M-21: before the end, wherever the look is. */
Test(inbox_client, abort_comes_before_the_end_of_the_sender)
{
	expect_abort_at_each_instruction(false);
}

/* I-3, M-22: also where the end is over. */
Test(inbox_client, abort_comes_before_an_end_that_is_over)
{
	expect_abort_at_each_instruction(true);
}

/* ---- the receiver's last act ---- */

static void prepare_sent(void *arg)
{
	prepare(arg);
	open_sender(arg);
	if (*result < 0 || frame(child_sender, next_offset) < 0)
		process_end(1);
}

static void look_at_applied(void *arg)
{
	(void)arg;
	*result = ipc_inbox_applied_wait(child_sender, next_offset + 1, &past);
}

static void apply_and_leave(void *arg, long n)
{
	(void)arg;
	(void)n;
	ASSERT(eat(receiver), FRAME(next_offset));
	receiver = ipc_inbox_receiver_close(receiver);
	(void)exists(NAME); /* it comes after the close */
}

/* As the next one finds it. */
static void check_applied(void *arg, long n)
{
	(void)arg;
	cr_assert(*result == 0 || *result == IPC_ETIMEDOUT, "%s, stopped at %ld",
		  ipc_error_name((int)*result), n);
	++next_offset;
	receiver_next();
}

/* I-12, M-21 */
Test(inbox_client, what_is_applied_comes_before_the_receivers_end)
{
	const struct step_case step = {.prepare = prepare_sent,
				       .operation = look_at_applied,
				       .check = check_applied,
				       .stride = 2 * STRIDE,
				       .meanwhile = apply_and_leave};

	begin_stream(IPC_KEEP);
	sender = ipc_inbox_sender_close(sender);
	cr_expect_gt(step_run(&step, NULL), 20);
	receiver = ipc_inbox_receiver_close(receiver);
	ASSERT(take_away(NAME, 0), 0);
}

static void look_at_requests(void *arg)
{
	uint64_t served = *(const uint64_t *)arg;

	*result = ipc_inbox_wanted_wait(child_sender, &served, &past);
}

static void request_and_leave(void *arg, long n)
{
	(void)arg;
	(void)n;
	ASSERT(ipc_inbox_request_snapshot(receiver), 0);
	receiver = ipc_inbox_receiver_close(receiver);
	(void)exists(NAME); /* it comes after the close */
}

static void check_request(void *arg, long n)
{
	uint64_t *served = arg;

	cr_assert(*result == 0 || *result == IPC_ETIMEDOUT, "%s, stopped at %ld",
		  ipc_error_name((int)*result), n);
	receiver_next();
	cr_assert_eq(positions_at(receiver).snapshot_wanted, ++*served);
}

/* I-10, M-21 */
Test(inbox_client, request_comes_before_the_receivers_end)
{
	const struct step_case step = {.prepare = prepare_sender,
				       .operation = look_at_requests,
				       .check = check_request,
				       .stride = STRIDE,
				       .meanwhile = request_and_leave};
	uint64_t served = 0;

	begin_stream(IPC_KEEP);
	sender = ipc_inbox_sender_close(sender);
	cr_expect_gt(step_run(&step, &served), 10);
	receiver = ipc_inbox_receiver_close(receiver);
	ASSERT(take_away(NAME, 0), 0);
}

/* I-3, I-7, M-26 */
Test(inbox_client, frame_of_a_dead_sender_is_there_or_not)
{
	const struct step_case step = {.prepare = prepare_sender,
				       .operation = send_one,
				       .check = check_sent,
				       .stride = STRIDE};
	struct sending sending = {.n_sent = 0};
	long n_points;

	WAKES_TELL();
	RECEIVER_START(&other, .flags = IPC_CREATE | IPC_STAY);
	sender_next();
	ASSERT(snapshot(sender, G1, next_offset), 0);
	for (unsigned i = 0; i < 3; ++i)
		cr_assert_gt(order_do(&other, ORDER_RECEIVE, 0), 0);
	ASSERT(order_do(&other, ORDER_MARK, 0), 0);
	sender = ipc_inbox_sender_close(sender);
	ASSERT(observer_open(&sending.observer, fixture_client), 0);
	order_sleep(&other, ORDER_RECEIVE_WAIT, 0);
	n_points = step_run(&step, &sending);
	cr_log_info("%ld kill points, %u sent", n_points, sending.n_sent);
	cr_expect_gt(n_points, 20);
	cr_expect_gt(sending.n_sent, 5);
	actor_kill(&other);
	ipc_inbox_observer_close(sending.observer);
}
