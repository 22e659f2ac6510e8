/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `session`, with a kill at every instruction of each operation of one
 * end.  The other end looks at what was left, then a survivor takes the end over: what was
 * committed is in the stream once, with its number, what was released is released, and nothing
 * else.
 */
#include "libipc/channel/session.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/stat.h>

#include <ipc/error.h>

#include "tests/support/session_scene.h"
#include "tests/support/step.h"

enum { CAPACITY = 4096, LARGEST = 1024, SIZE = 100, N_REQUESTS = 3, N_REPLIES_MAX = 8 };
enum { PEER = 1, OLD = 2, VICTIM = 3, HEIR = 4 };

/* Numbers of what is sent: requests from 1 on, replies from 100 on, what the survivors add. */
enum { REQUEST = 1, REPLY = 100, MORE = 200 };

struct plan {
	void (*before)(void);  /* in the parent, at the end that dies */
	void (*prepare)(void); /* in the child, at full speed */
	void (*operate)(void); /* in the child */
	void (*expect)(long n);
	unsigned n_sent_first;           /* replies before the operation */
	uint64_t replies[N_REPLIES_MAX]; /* then, in this order, as far as it came */
	uint64_t n_acknowledged_before;  /* requests */
	uint64_t n_acknowledged_after;   /* with the last reply, or in the end */
	bool has_fds, begins, lives, comes_with_the_reply;
};

static struct session_scene scene;
static struct session_member peer, old, victim, heir;
static struct ipc_session_message request[N_REQUESTS];
static void *claimed[3];
static const struct plan *plan;
static int file = -1;

/* What the other end and the survivor found. */
static struct {
	uint64_t sent, acknowledged;
	uint32_t flags[N_REQUESTS];
} found;

/* How many steps of the operation are done. */
static _Atomic uint64_t *progress(void)
{
	return &scene.board->word[0];
}

static void must(bool holds, const char *what)
{
	session_scene_must(holds, what);
}

static void step_done(void)
{
	atomic_fetch_add(progress(), 1);
}

static void send_one(struct session_member *member, uint64_t value, bool with_fd)
{
	must((with_fd ? session_scene_send_fd(member, file, value, SIZE)
		      : session_scene_send(member, value, SIZE)) == 0,
	     "send");
}

/* ---- before ---- */

static void scene_make(void)
{
	const uint64_t shape[4] = SESSION_SHAPE(CAPACITY, LARGEST);

	if (!scene.segment)
		session_scene_init(&scene, shape);
	else
		session_scene_reset(&scene);
	if (file < 0)
		file = memfd_create("file", MFD_CLOEXEC);
	must(file >= 0, "memfd_create");

	session_scene_enter(&scene, &peer, 1, PEER, 0);
	for (unsigned i = 0; i < N_REQUESTS; ++i)
		send_one(&peer, REQUEST + i, plan->has_fds);
	if (plan->begins) {
		session_scene_enter(&scene, &old, 0, OLD,
				    plan->lives ? (uint32_t)getpid() : SESSION_SCENE_NO_PROCESS);
		if (plan->before)
			plan->before();
		session_scene_end(&scene, old.id);
	}
}

static void prepare(void *arg)
{
	(void)arg;
	session_scene_attach(&scene, &victim, 0, VICTIM);
	if (plan->begins)
		return;
	must(session_begin(&victim.view, victim.id, (uint32_t)getpid()) == 0, "begin");
	for (unsigned i = 0; i < plan->n_sent_first; ++i)
		send_one(&victim, REPLY + i, false);
	if (plan->prepare)
		plan->prepare();
}

static void operate(void *arg)
{
	(void)arg;
	plan->operate();
}

static void receive_all(void)
{
	must(session_receive_many(&victim.view, request, N_REQUESTS) == N_REQUESTS, "receive");
}

static void claim_all(void)
{
	for (unsigned i = 0; i < 3; ++i) {
		must(session_claim(&victim.view, SIZE, &claimed[i]) == 0, "claim");
		pattern_fill(claimed[i], SIZE, REPLY + 10 + i);
	}
}

static void receive_all_and_claim(void)
{
	receive_all();
	claim_all();
}

/* ---- operations ---- */

static void do_send(void)
{
	static unsigned char bytes[SIZE];

	pattern_fill(bytes, SIZE, REPLY + 1);
	must(session_send(&victim.view, bytes, SIZE) == 0, "send");
	step_done();
}

static void do_send_fd(void)
{
	static unsigned char bytes[SIZE];

	pattern_fill(bytes, SIZE, REPLY + 1);
	must(session_send_fd(&victim.view, file, bytes, SIZE) == 0, "send_fd");
	step_done();
}

static void do_claim_and_commit(void)
{
	void *data;

	must(session_claim(&victim.view, LARGEST, &data) == 0, "claim");
	pattern_fill(data, SIZE, REPLY + 1);
	must(session_commit(&victim.view, data, SIZE) == 0, "commit");
	step_done();
}

static void do_commits_in_another_order(void)
{
	must(session_commit(&victim.view, claimed[2], SIZE) == 0, "commit");
	step_done();
	must(session_commit(&victim.view, claimed[0], SIZE) == 0, "commit");
	step_done();
	must(session_abort(&victim.view, claimed[1]) == 0, "abort");
	must(session_send(&victim.view, NULL, 0) == 0, "send");
	step_done();
}

static void do_commit_release(void)
{
	must(session_commit_release(&victim.view, claimed[0], SIZE, &request[1]) == 0,
	     "commit_release");
	step_done();
}

/* The note of the first is written over by the second. */
static void do_commit_release_twice(void)
{
	must(session_commit_release(&victim.view, claimed[0], SIZE, &request[0]) == 0,
	     "commit_release");
	step_done();
	must(session_commit_release(&victim.view, claimed[1], SIZE, &request[2]) == 0,
	     "commit_release");
	step_done();
}

static void do_commit_release_of_a_stray(void)
{
	must(session_commit_release(&victim.view, claimed[2], SIZE, &request[0]) == 0,
	     "commit_release");
	step_done();
	must(session_commit_release(&victim.view, claimed[0], SIZE, &request[1]) == 0,
	     "commit_release");
	step_done();
}

static void do_receive(void)
{
	must(session_receive_many(&victim.view, request, N_REQUESTS) == N_REQUESTS, "receive");
	step_done();
}

static void do_release(void)
{
	must(session_release(&victim.view, &request[1]) == 0, "release");
	step_done();
}

static void do_begin(void)
{
	must(session_begin(&victim.view, victim.id, (uint32_t)getpid()) == 0, "begin");
	step_done();
}

static void do_leave(void)
{
	session_leave(&victim.view);
	step_done();
}

/* ---- after ---- */

/* What the other end receives as number `sequence`. */
static void expect_reply(long n, uint64_t sequence, uint64_t value)
{
	struct ipc_session_message message;
	struct stat one, other;

	cr_assert_eq(session_scene_receive(&peer, &message), 1, "instruction %ld: no reply %lu", n,
		     (unsigned long)sequence);
	cr_assert_eq(message.sequence, sequence, "instruction %ld: %lu, not %lu", n,
		     (unsigned long)message.sequence, (unsigned long)sequence);
	cr_assert_eq(message.size == 0 ? 0 : session_scene_number(message.data, message.size),
		     value, "instruction %ld: reply %lu", n, (unsigned long)sequence);
	if (message.flags) {
		cr_assert_eq(message.flags, IPC_MESSAGE_FD, "instruction %ld: flags %u", n,
			     message.flags);
		cr_assert(fstat(message.fd, &one) == 0 && fstat(file, &other) == 0 &&
				  one.st_ino == other.st_ino,
			  "instruction %ld", n);
		(void)fd_close(message.fd);
	}
	cr_assert_eq(session_release(&peer.view, &message), 0);
}

/* Those before, then those of the operation as far as they are there. */
static void expect_replies(long n)
{
	struct ipc_session_message message;
	uint64_t n_new = found.sent - plan->n_sent_first;

	cr_assert_geq(n_new, plan->replies[0] ? atomic_load(progress()) : 0, "instruction %ld", n);
	for (uint64_t i = 1; i <= found.sent; ++i)
		expect_reply(n, i,
			     i <= plan->n_sent_first ? REPLY + i - 1
			     : plan->replies[i - plan->n_sent_first - 1] == MORE
				     ? 0
				     : plan->replies[i - plan->n_sent_first - 1]);
	cr_assert_eq(session_scene_receive(&peer, &message), IPC_EAGAIN,
		     "instruction %ld: reply %lu of %lu", n, (unsigned long)message.sequence,
		     (unsigned long)found.sent);
}

static void expect_requests(long n, uint64_t n_released)
{
	struct ipc_session_message message;

	for (uint64_t i = n_released + 1; i <= N_REQUESTS; ++i) {
		cr_assert_eq(session_scene_receive(&heir, &message), 1, "instruction %ld", n);
		cr_assert_eq(message.sequence, i, "instruction %ld: %lu, not %lu", n,
			     (unsigned long)message.sequence, (unsigned long)i);
		cr_assert_eq(session_scene_number(message.data, message.size), REQUEST + i - 1,
			     "instruction %ld", n);
		found.flags[i - 1] = message.flags;
		(void)fd_close(message.fd);
		cr_assert_eq(session_release(&heir.view, &message), 0);
	}
	cr_assert_eq(session_scene_receive(&heir, &message), IPC_EAGAIN, "instruction %ld", n);
}

/* All of it, in both directions, and numbers without a gap. */
static void expect_room(long n, struct session_member *from, struct session_member *to)
{
	uint64_t number = session_scene_state(from).sent;
	unsigned n_sent = 0;

	send_one(from, MORE, true);
	while (session_scene_send(from, MORE, 48) == 0)
		++n_sent;
	if (!plan->lives)
		cr_assert_geq(n_sent, (CAPACITY / 16 - 1 - 1 - (SIZE + 15) / 16) / 4,
			      "instruction %ld: room for %u", n, n_sent);
	for (unsigned i = 0; i <= n_sent; ++i) {
		struct ipc_session_message message;

		cr_assert_eq(session_scene_receive(to, &message), 1, "instruction %ld", n);
		cr_assert_eq(message.sequence, ++number, "instruction %ld", n);
		cr_assert_eq(message.flags, i == 0 ? IPC_MESSAGE_FD : 0, "instruction %ld", n);
		cr_assert_eq(session_scene_number(message.data, message.size), MORE,
			     "instruction %ld", n);
		(void)fd_close(message.fd);
		cr_assert_eq(session_release(&to->view, &message), 0);
	}
}

/* By the other end, which may look before anybody has taken this one over, and by the survivor: the
 * same. */
static void expect_acknowledged(long n)
{
	bool looks_first = n % 4 < 2;
	uint64_t before = looks_first ? session_scene_state(&peer).acknowledged : 0, n_new;

	session_scene_end(&scene, SESSION_SCENE_ID(VICTIM));
	session_scene_enter(&scene, &heir, 0, HEIR, SESSION_SCENE_NO_PROCESS);
	found.sent = session_scene_state(&heir).sent;
	found.acknowledged = session_scene_state(&peer).acknowledged;

	cr_assert(!looks_first || before == found.acknowledged, "instruction %ld: %lu, then %lu", n,
		  (unsigned long)before, (unsigned long)found.acknowledged);
	cr_assert_eq(session_scene_state(&heir).released, found.acknowledged, "instruction %ld", n);
	n_new = found.sent - plan->n_sent_first;
	if (plan->comes_with_the_reply) {
		uint64_t expected = plan->n_acknowledged_before;

		if (n_new == 1 && plan->replies[1])
			expected = 1;
		else if (n_new > 0)
			expected = plan->n_acknowledged_after;
		cr_assert_eq(found.acknowledged, expected,
			     "instruction %ld: %lu released with %lu replies", n,
			     (unsigned long)found.acknowledged, (unsigned long)n_new);
		return;
	}
	cr_assert(found.acknowledged == plan->n_acknowledged_after ||
			  (found.acknowledged == plan->n_acknowledged_before &&
			   !atomic_load(progress())),
		  "instruction %ld: %lu", n, (unsigned long)found.acknowledged);
}

static void check(void *arg, long n)
{
	(void)arg;
	expect_acknowledged(n);
	if (n % 2 == 0) {
		expect_replies(n);
		expect_requests(n, found.acknowledged);
	} else {
		/* The survivor is quicker. */
		expect_requests(n, found.acknowledged);
		expect_replies(n);
	}
	if (plan->expect)
		plan->expect(n);
	expect_room(n, &heir, &peer);
	expect_room(n, &peer, &heir);
	cr_assert_eq(header_fault(scene.segment), 0, "instruction %ld", n);
	session_leave(&peer.view);
	session_leave(&heir.view);
	if (plan->begins)
		session_leave(&old.view);
	scene_make();
}

static void run(const struct plan *what)
{
	const struct step_case step = {.prepare = prepare, .operation = operate, .check = check};
	long n_points;

	plan = what;
	scene_make();
	n_points = step_run(&step, NULL);
	cr_log_info("%ld kill points", n_points);
	cr_expect_gt(n_points, 30);
}

#define KILLED(name, ...)                                                                          \
	Test(session, name, .timeout = 700)                                                        \
	{                                                                                          \
		run(&(const struct plan){__VA_ARGS__});                                            \
	}

/* ---- sending ---- */

/* C-1, C-5 */
KILLED(killed_in_send, .operate = do_send, .n_sent_first = 1, .replies = {REPLY + 1})

/* C-5, C-11 */
KILLED(killed_in_send_of_a_descriptor, .operate = do_send_fd, .n_sent_first = 1,
       .replies = {REPLY + 1})

/* C-5 */
KILLED(killed_in_claim_and_commit, .operate = do_claim_and_commit, .n_sent_first = 1,
       .replies = {REPLY + 1})

/* C-5, C-14 */
KILLED(killed_in_commits_in_another_order, .prepare = claim_all,
       .operate = do_commits_in_another_order, .n_sent_first = 2,
       .replies = {REPLY + 12, REPLY + 10, MORE})

/* ---- both ---- */

/* C-12 */
KILLED(killed_in_commit_release, .prepare = receive_all_and_claim, .operate = do_commit_release,
       .n_sent_first = 1, .replies = {REPLY + 10}, .n_acknowledged_after = 2,
       .comes_with_the_reply = true)

/* C-12 */
KILLED(killed_in_one_commit_release_after_another, .prepare = receive_all_and_claim,
       .operate = do_commit_release_twice, .n_sent_first = 1, .replies = {REPLY + 10, REPLY + 11},
       .n_acknowledged_after = 3, .comes_with_the_reply = true)

/* C-12, C-14 */
KILLED(killed_in_commit_release_of_a_stray, .prepare = receive_all_and_claim,
       .operate = do_commit_release_of_a_stray, .n_sent_first = 0,
       .replies = {REPLY + 12, REPLY + 10}, .n_acknowledged_after = 2, .comes_with_the_reply = true)

/* ---- receiving ---- */

/* Before it is handed out it is known to be received. */
static void expect_redelivered(long n)
{
	for (unsigned i = 0; i < N_REQUESTS; ++i)
		cr_assert(found.flags[i] == IPC_MESSAGE_REDELIVERED ||
				  (found.flags[i] == 0 && !atomic_load(progress())),
			  "instruction %ld: request %u, flags %u", n, i + 1, found.flags[i]);
}

/* C-4 */
KILLED(killed_in_receive, .operate = do_receive, .expect = expect_redelivered)

static void expect_fds(long n)
{
	for (unsigned i = 0; i < N_REQUESTS; ++i) {
		uint32_t flags = found.flags[i];

		cr_assert(flags & IPC_MESSAGE_FD, "instruction %ld", n);
		if (atomic_load(progress()))
			cr_assert_eq(flags, IPC_MESSAGE_FD | IPC_MESSAGE_FD_LOST |
						    IPC_MESSAGE_REDELIVERED);
		if (i > 0)
			cr_assert((flags & IPC_MESSAGE_FD_LOST) == 0 ||
					  (found.flags[i - 1] & IPC_MESSAGE_FD_LOST),
				  "instruction %ld: one after it was taken", n);
	}
}

/* C-11 */
KILLED(killed_in_receive_of_descriptors, .operate = do_receive, .expect = expect_fds,
       .has_fds = true)

/* C-1, C-10 */
KILLED(killed_in_release, .prepare = receive_all, .operate = do_release, .n_acknowledged_after = 2)

/* M-44 */
KILLED(killed_in_leave, .prepare = claim_all, .operate = do_leave, .n_sent_first = 1)

/* ---- taking over ---- */

/* Some was sent, something is claimed, and a note was not followed. */
static void leave_a_note(void)
{
	struct ring_consumer *in = &old.view.in;
	uint64_t tail = in->tail;
	void *data, *other;

	send_one(&old, REPLY, false);
	must(session_receive_many(&old.view, request, N_REQUESTS) == N_REQUESTS, "receive");
	must(session_claim(&old.view, SIZE, &data) == 0, "claim");
	pattern_fill(data, SIZE, REPLY + 1);
	must(session_commit_release(&old.view, data, SIZE, &request[1]) == 0, "commit_release");
	atomic_store(&in->view.ring->tail, tail);
	must(session_claim(&old.view, LARGEST / 2, &other) == 0, "claim");
}

static void expect_marks(long n)
{
	cr_assert_eq(found.flags[2], IPC_MESSAGE_REDELIVERED, "instruction %ld", n);
}

/* C-5, C-4, C-12 */
KILLED(killed_taking_an_end_over_from_the_dead, .before = leave_a_note, .operate = do_begin,
       .expect = expect_marks, .n_sent_first = 2, .n_acknowledged_before = 2,
       .n_acknowledged_after = 2, .begins = true)

/* C-3, C-4, C-12 */
KILLED(killed_taking_an_end_over_from_the_living, .before = leave_a_note, .operate = do_begin,
       .expect = expect_marks, .n_sent_first = 2, .n_acknowledged_before = 2,
       .n_acknowledged_after = 2, .begins = true, .lives = true)

/* ---- full ---- */

static unsigned n_filled[2];

static unsigned fill_up(struct session_member *member)
{
	unsigned n = 0;

	while (session_scene_send(member, MORE, SIZE) == 0)
		++n;
	return n;
}

static void fill_both(void)
{
	n_filled[0] = fill_up(&old);
	n_filled[1] = N_REQUESTS + fill_up(&peer);
}

static void expect_all(long n, struct session_member *from, struct session_member *to,
		       unsigned n_sent)
{
	struct ipc_session_message message;

	cr_assert_eq(session_scene_send(from, MORE, SIZE), IPC_EAGAIN, "instruction %ld", n);
	for (unsigned i = 1; i <= n_sent; ++i) {
		cr_assert_eq(session_scene_receive(to, &message), 1, "instruction %ld", n);
		cr_assert_eq(message.sequence, i, "instruction %ld", n);
		cr_assert_eq(session_release(&to->view, &message), 0);
	}
	cr_assert_eq(session_scene_receive(to, &message), IPC_EAGAIN, "instruction %ld", n);
}

static void check_full(void *arg, long n)
{
	(void)arg;
	session_scene_end(&scene, SESSION_SCENE_ID(VICTIM));
	session_scene_enter(&scene, &heir, 0, HEIR, SESSION_SCENE_NO_PROCESS);
	expect_all(n, &heir, &peer, n_filled[0]);
	expect_all(n, &peer, &heir, n_filled[1]);
	expect_room(n, &heir, &peer);
	expect_room(n, &peer, &heir);
	session_leave(&peer.view);
	session_leave(&heir.view);
	session_leave(&old.view);
	scene_make();
}

/* C-6 */
Test(session, killed_taking_an_end_over_with_both_full, .timeout = 700)
{
	static const struct plan full = {.before = fill_both, .operate = do_begin, .begins = true};
	const struct step_case step = {
		.prepare = prepare, .operation = operate, .check = check_full};

	plan = &full;
	scene_make();
	cr_expect_gt(step_run(&step, NULL), 30);
}
