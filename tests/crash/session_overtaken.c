/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `session`, with one end that stands still before each of its
 * instructions while another process takes the end over and goes on for several laps; then the
 * first one goes on.  It is told IPC_ESTALE, or what it did is in the stream, once, from before;
 * nobody else's bytes are damaged.
 */
#include "libipc/channel/session.h"

#include <criterion/criterion.h>
#include <string.h>

#include <ipc/error.h>

#include "tests/support/session_scene.h"
#include "tests/support/step.h"

enum { CAPACITY = 4096, LARGEST = 1024, SIZE = 100, N_REQUESTS = 3, N_LAPS = 150 };
enum { PEER = 1, SLOW = 2, HEIR = 3, SECOND = 4, THIRD = 5 };
enum { REQUEST = 1, REPLY = 100, LATE = 150, MORE = 1000 };

struct plan {
	void (*prepare)(void); /* in the child */
	int (*operate)(void);  /* in the child; what it was told */
	unsigned n_sent_first;
	uint64_t reply;      /* what the operation publishes; 0: nothing */
	uint64_t n_released; /* what it releases */
	bool receives, has_fds, settles;
};

static struct session_scene scene;
static struct session_member peer, slow, heirs[3];
static struct ipc_session_message request[N_REQUESTS];
static void *claimed[3];
static const struct plan *plan;
static int file = -1;

static struct {
	struct session_member *heir;
	uint64_t sent, released; /* as the heir found it */
	bool has_reply;
	uint32_t flags[N_REQUESTS]; /* of requests, as the heir received them */
	uint64_t next;              /* number of the next message of the heir's */
} found;

/* In shared memory: what the slow one was told; that somebody else has its end. */
static _Atomic uint64_t *told(void)
{
	return &scene.board->word[0];
}

static _Atomic uint64_t *is_overtaken(void)
{
	return &scene.board->word[1];
}

static void must(bool holds, const char *what)
{
	session_scene_must(holds, what);
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
	session_scene_enter(&scene, &peer, 1, PEER, 0);
	for (unsigned i = 0; i < N_REQUESTS; ++i)
		must((plan->has_fds ? session_scene_send_fd(&peer, file, REQUEST + i, SIZE)
				    : session_scene_send(&peer, REQUEST + i, SIZE)) == 0,
		     "send");
}

static void receive_all(void)
{
	must(session_receive_many(&slow.view, request, N_REQUESTS) == N_REQUESTS, "receive");
}

static void claim_all(void)
{
	for (unsigned i = 0; i < 3; ++i) {
		must(session_claim(&slow.view, 3 * SIZE, &claimed[i]) == 0, "claim");
		pattern_fill(claimed[i], SIZE, LATE);
	}
}

static void receive_all_and_claim(void)
{
	receive_all();
	claim_all();
}

static void claim_all_and_stray(void)
{
	claim_all();
	pattern_fill(claimed[2], SIZE, REPLY);
	must(session_commit(&slow.view, claimed[2], SIZE) == 0, "commit");
	claimed[2] = NULL;
}

static void prepare(void *arg)
{
	(void)arg;
	session_scene_attach(&scene, &slow, 0, SLOW);
	if (plan->settles)
		return;
	must(session_begin(&slow.view, slow.id, (uint32_t)getpid()) == 0, "begin");
	for (unsigned i = 0; i < plan->n_sent_first && plan->prepare != claim_all_and_stray; ++i)
		must(session_scene_send(&slow, REPLY + i, SIZE) == 0, "send");
	if (plan->prepare)
		plan->prepare();
}

/* ---- the slow one ---- */

static int do_send(void)
{
	static unsigned char bytes[SIZE];

	pattern_fill(bytes, SIZE, LATE);
	return session_send(&slow.view, bytes, SIZE);
}

static int do_send_fd(void)
{
	static unsigned char bytes[SIZE];

	pattern_fill(bytes, SIZE, LATE);
	return session_send_fd(&slow.view, file, bytes, SIZE);
}

/* What was committed is not its own any more. */
static int committed(unsigned i, int r)
{
	if (r == 0)
		claimed[i] = NULL;
	return r;
}

static int do_claim_and_commit(void)
{
	int r = session_claim(&slow.view, LARGEST, &claimed[0]);

	if (r < 0)
		return r;
	memset(claimed[0], 0xee, LARGEST);
	pattern_fill(claimed[0], SIZE, LATE);
	return committed(0, session_commit(&slow.view, claimed[0], SIZE));
}

static int do_commit(void)
{
	return committed(0, session_commit(&slow.view, claimed[0], SIZE));
}

static int do_commit_of_a_stray(void)
{
	return committed(1, session_commit(&slow.view, claimed[1], SIZE));
}

static int do_commit_release(void)
{
	return committed(0, session_commit_release(&slow.view, claimed[0], SIZE, &request[1]));
}

static int do_receive(void)
{
	return session_receive_many(&slow.view, request, N_REQUESTS);
}

static int do_release(void)
{
	return session_release(&slow.view, &request[1]);
}

static int do_begin(void)
{
	return session_begin(&slow.view, slow.id, (uint32_t)getpid());
}

/* Its claims are its own for as long as it lives. */
static void operate(void *arg)
{
	int r;

	(void)arg;
	r = plan->operate();
	if (atomic_load(is_overtaken())) {
		for (unsigned i = 0; i < 3; ++i) {
			if (claimed[i])
				memset(claimed[i], 0xdd, 3 * SIZE);
		}
		/* Who did not get the end has nothing to send with. */
		if (!(plan->settles && r < 0) && session_scene_send(&slow, 66, SIZE) == 0)
			r = 99;
	}
	atomic_store(told(), (uint64_t)(int64_t)r);
}

/* ---- the heir ---- */

static void take_over(long n)
{
	unsigned n_heirs = n % 3 == 2 ? 3 : 1;

	session_scene_end(&scene, SESSION_SCENE_ID(SLOW));
	for (unsigned i = 0; i < n_heirs; ++i) {
		found.heir = &heirs[i];
		session_scene_enter(&scene, found.heir, 0, HEIR + i, SESSION_SCENE_NO_PROCESS);
		if (i < n_heirs - 1)
			session_scene_end(&scene, found.heir->id);
	}
	found.sent = session_scene_state(found.heir).sent;
	found.released = session_scene_state(found.heir).released;
	found.next = found.sent + 1;
}

static void expect_replies(long n)
{
	struct ipc_session_message message;

	found.has_reply = plan->reply && found.sent == plan->n_sent_first + 1;
	cr_assert(found.has_reply || found.sent == plan->n_sent_first, "instruction %ld: %lu sent",
		  n, (unsigned long)found.sent);
	for (uint64_t i = 1; i <= found.sent; ++i) {
		uint64_t value = i <= plan->n_sent_first ? REPLY + i - 1 : plan->reply;

		cr_assert_eq(session_scene_receive(&peer, &message), 1, "instruction %ld", n);
		cr_assert_eq(message.sequence, i, "instruction %ld", n);
		cr_assert_eq(session_scene_number(message.data, message.size), value,
			     "instruction %ld: reply %lu", n, (unsigned long)i);
		cr_assert_not(message.flags & IPC_MESSAGE_FD_LOST, "instruction %ld", n);
		(void)fd_close(message.fd);
		cr_assert_eq(session_release(&peer.view, &message), 0);
	}
}

static void expect_requests(long n)
{
	struct ipc_session_message message;

	for (uint64_t i = found.released + 1; i <= N_REQUESTS; ++i) {
		cr_assert_eq(session_scene_receive(found.heir, &message), 1, "instruction %ld", n);
		cr_assert_eq(message.sequence, i, "instruction %ld", n);
		cr_assert_eq(session_scene_number(message.data, message.size), REQUEST + i - 1,
			     "instruction %ld", n);
		found.flags[i - 1] = message.flags;
		(void)fd_close(message.fd);
		cr_assert_eq(session_release(&found.heir->view, &message), 0);
	}
}

/* One lap and another: the memory of both rings is used again and again. */
static void go_on(long n, unsigned n_messages)
{
	struct ipc_session_message message;

	for (unsigned i = 0; i < n_messages; ++i) {
		bool with_fd = i % 16 == 5;
		uint64_t number = found.next++;

		cr_assert_eq(with_fd ? session_scene_send_fd(found.heir, file, MORE + i, SIZE)
				     : session_scene_send(found.heir, MORE + i, SIZE + i),
			     0, "instruction %ld: message %u", n, i);
		cr_assert_eq(session_scene_receive(&peer, &message), 1, "instruction %ld", n);
		cr_assert_eq(message.sequence, number, "instruction %ld", n);
		cr_assert_eq(session_scene_number(message.data, message.size), MORE + i,
			     "instruction %ld: message %u is damaged", n, i);
		cr_assert_eq(message.flags, with_fd ? IPC_MESSAGE_FD : 0, "instruction %ld: %u", n,
			     message.flags);
		(void)fd_close(message.fd);
		cr_assert_eq(session_release(&peer.view, &message), 0);
		cr_assert_eq(session_scene_send(&peer, MORE + i, SIZE), 0, "instruction %ld", n);
		cr_assert_eq(session_scene_receive(found.heir, &message), 1, "instruction %ld", n);
		cr_assert_eq(session_release(&found.heir->view, &message), 0);
	}
}

static struct ipc_session_message held[4];

/* Some of what was sent stays where it is while the slow one goes on. */
static void hold_some(long n)
{
	for (unsigned i = 0; i < 4; ++i) {
		cr_assert_eq(session_scene_send(found.heir, MORE + i, LARGEST / 2), 0,
			     "instruction %ld", n);
		cr_assert_eq(session_scene_receive(&peer, &held[i]), 1, "instruction %ld", n);
		++found.next;
	}
}

static void expect_held(long n)
{
	for (unsigned i = 0; i < 4; ++i) {
		cr_assert_eq(session_scene_number(held[i].data, held[i].size), MORE + i,
			     "instruction %ld: message %u was damaged", n, i);
		cr_assert_eq(session_release(&peer.view, &held[i]), 0, "instruction %ld", n);
	}
}

static void meanwhile(void *arg, long n)
{
	(void)arg;
	found = (__typeof__(found)){0};
	take_over(n);
	atomic_store(is_overtaken(), 1);
	expect_replies(n);
	expect_requests(n);
	if (n % 2)
		go_on(n, N_LAPS);
	hold_some(n);
}

/* Told the truth. */
static void expect_told(long n)
{
	int r = (int)(int64_t)atomic_load(told());

	cr_assert_neq(r, 99, "instruction %ld: it went on to send", n);
	if (plan->receives) {
		cr_assert(r == IPC_ESTALE || r == N_REQUESTS, "instruction %ld: %d", n, r);
		for (unsigned i = 0; r > 0 && i < N_REQUESTS; ++i)
			cr_assert(found.flags[i] & IPC_MESSAGE_REDELIVERED,
				  "instruction %ld: request %u, flags %u", n, i + 1,
				  found.flags[i]);
		return;
	}

	cr_assert(r == 0 || r == IPC_ESTALE, "instruction %ld: %d", n, r);
	if (plan->settles)
		return;
	if (plan->reply)
		cr_assert_eq(r == 0, found.has_reply, "instruction %ld: it was told %d", n, r);
	if (plan->n_released) {
		cr_assert_eq(r == 0, found.released == plan->n_released,
			     "instruction %ld: it was told %d", n, r);
		cr_assert(found.released == 0 || found.released == plan->n_released,
			  "instruction %ld", n);
	}
}

static void after(void *arg, long n)
{
	(void)arg;
	expect_told(n);
	expect_held(n);
	go_on(n, N_LAPS);
}

/* The slow one is gone. */
static void check(void *arg, long n)
{
	(void)arg;
	go_on(n, N_LAPS / 3);
	cr_assert_eq(header_fault(scene.segment), 0, "instruction %ld", n);
	session_leave(&peer.view);
	session_leave(&found.heir->view);
	scene_make();
}

static void run(const struct plan *what)
{
	const struct step_case step = {.prepare = prepare,
				       .operation = operate,
				       .check = check,
				       .meanwhile = meanwhile,
				       .after = after};
	long n_points;

	plan = what;
	scene_make();
	n_points = step_run(&step, NULL);
	cr_log_info("%ld points", n_points);
	cr_expect_gt(n_points, 30);
}

#define OVERTAKEN(name, ...)                                                                       \
	Test(session_overtaken, name, .timeout = 700)                                              \
	{                                                                                          \
		run(&(const struct plan){__VA_ARGS__});                                            \
	}

/* C-1, C-3 */
OVERTAKEN(in_send, .operate = do_send, .n_sent_first = 1, .reply = LATE)

/* C-3, C-11 */
OVERTAKEN(in_send_of_a_descriptor, .operate = do_send_fd, .n_sent_first = 1, .reply = LATE)

/* C-3, C-5 */
OVERTAKEN(in_claim_and_commit, .operate = do_claim_and_commit, .n_sent_first = 1, .reply = LATE)

/* C-3, C-5 */
OVERTAKEN(in_commit, .prepare = claim_all, .operate = do_commit, .n_sent_first = 1, .reply = LATE)

/* C-3, C-14 */
OVERTAKEN(in_commit_of_a_stray, .prepare = claim_all_and_stray, .operate = do_commit_of_a_stray,
	  .n_sent_first = 1, .reply = LATE)

/* C-3, C-12 */
OVERTAKEN(in_commit_release, .prepare = receive_all_and_claim, .operate = do_commit_release,
	  .n_sent_first = 1, .reply = LATE, .n_released = 2)

/* C-3, C-4 */
OVERTAKEN(in_receive, .operate = do_receive, .receives = true)

/* C-3, C-11 */
OVERTAKEN(in_receive_of_descriptors, .operate = do_receive, .receives = true, .has_fds = true)

/* C-3, C-10 */
OVERTAKEN(in_release, .prepare = receive_all, .operate = do_release, .n_released = 2)

/* C-3 */
OVERTAKEN(in_taking_over, .operate = do_begin, .settles = true)
