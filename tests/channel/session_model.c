/* SPDX-License-Identifier: MIT */
/*
 * The kind `session` against a model: two ends do random things, die in between, and are taken over
 * from the dead and from the living; after each step everything that can be seen is compared.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include <ipc/error.h>

#include "tests/support/session_scene.h"

enum { CAPACITY = 4096, LARGEST = 1000, N_STEPS = 400, SEEDS_DEFAULT = 400 };
enum { N_MESSAGES = 2048, N_CLAIMS = 4, N_HELD = 64 };

struct claim {
	void *data;
	uint64_t size;
};

/* One end: what it sends, and how far it is with what the other one sends. */
struct end {
	struct session_member *member;
	struct claim claim[N_CLAIMS];
	struct ipc_session_message held[N_HELD]; /* received, not released */
	unsigned n_held;

	uint64_t sent;
	uint64_t value[N_MESSAGES], size[N_MESSAGES];
	bool has_fd[N_MESSAGES];

	uint64_t received, released, received_most; /* the last over all owners */
	uint64_t fds_taken;                         /* up to this number */
};

static struct session_scene scene;
static struct session_member members[2][3];
static struct end ends[2];
static uint64_t seed, random_state, next_value;
static unsigned step, n_handles;

#define EXPECT(condition, ...)                                                                     \
	do {                                                                                       \
		if (!(condition))                                                                  \
			fail(#condition, __LINE__, __VA_ARGS__);                                   \
	} while (0)

static void fail(const char *condition, int line, const char *what, uint64_t value)
{
	cr_assert_fail("IPC_MODEL_SEED=%lu IPC_MODEL_SEEDS=1, step %u, line %d: %s (%s %ld)",
		       (unsigned long)seed, step, line, condition, what, (long)value);
}

static uint64_t pick(uint64_t n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (random_state >> 33) % n;
}

static uint64_t pick_size(void)
{
	return pick(4) ? 8 + pick(120) : pick(3) ? 8 + pick(LARGEST - 8) : 0;
}

/* ---- sending ---- */

static void committed(struct end *end, uint64_t value, uint64_t size, bool has_fd)
{
	++end->sent;
	EXPECT(end->sent < N_MESSAGES, "too many", end->sent);
	end->value[end->sent] = size < 8 ? 0 : value;
	end->size[end->sent] = size;
	end->has_fd[end->sent] = has_fd;
}

/* Units that are in use if holes and strays took none: more room than that there is never. */
static uint64_t units_at_least(const struct end *end, const struct end *other)
{
	uint64_t units = 0;

	for (uint64_t i = other->released + 1; i <= end->sent; ++i)
		units += 1 + (end->size[i] + 15) / 16;
	return units;
}

static bool has_claims(const struct end *end)
{
	for (unsigned i = 0; i < N_CLAIMS; ++i)
		if (end->claim[i].data)
			return true;
	return false;
}

static void do_send(struct end *end, struct end *other)
{
	uint64_t value = ++next_value, size = pick_size();
	bool with_fd = pick(6) == 0;
	int r = with_fd ? session_scene_send_fd(end->member, scene.pair[0], value, size)
			: session_scene_send(end->member, value, size);

	EXPECT(r == 0 || r == IPC_EAGAIN, "send", (uint64_t)r);
	if (r == 0)
		committed(end, value, size, with_fd);
	EXPECT(units_at_least(end, other) < CAPACITY / 16, "units", units_at_least(end, other));
	if (end->sent == other->released && !has_claims(end))
		EXPECT(r == 0, "an empty one is full", (uint64_t)r);
}

static void do_claim(struct end *end)
{
	struct claim *claim = &end->claim[pick(N_CLAIMS)];
	int r;

	if (claim->data)
		return;
	claim->size = pick_size();
	r = session_claim(&end->member->view, claim->size, &claim->data);
	EXPECT(r == 0 || r == IPC_EAGAIN, "claim", (uint64_t)r);
	if (r < 0)
		claim->data = NULL;
	else
		memset(claim->data, 0xcc, claim->size);
}

static struct ipc_session_message *request_of(struct end *end)
{
	return end->n_held ? &end->held[pick(end->n_held)] : NULL;
}

static void released(struct end *end, uint64_t number)
{
	unsigned n = 0;

	if (number <= end->released)
		return;
	end->released = number;
	for (unsigned i = 0; i < end->n_held; ++i)
		if (end->held[i].sequence > number)
			end->held[n++] = end->held[i];
	end->n_held = n;
}

static void do_commit(struct end *end)
{
	struct claim *claim = &end->claim[pick(N_CLAIMS)];
	struct ipc_session_message *request = pick(2) ? request_of(end) : NULL;
	uint64_t value = ++next_value, size;
	struct session *view = &end->member->view;
	int r;

	if (!claim->data)
		return;
	if (pick(6) == 0) {
		EXPECT(session_abort(view, claim->data) == 0, "abort", value);
		claim->data = NULL;
		return;
	}
	EXPECT(session_commit(view, claim->data, claim->size + 1) == IPC_EMSGSIZE, "size", value);
	size = pick(3) ? claim->size : pick(claim->size + 1);
	pattern_fill(claim->data, size, value);
	r = request ? session_commit_release(view, claim->data, size, request)
		    : session_commit(view, claim->data, size);
	EXPECT(r == 0, "commit", (uint64_t)r);
	claim->data = NULL;
	committed(end, value, size, false);
	if (request)
		released(end, request->sequence);
}

/* ---- receiving ---- */

static void expect_message(struct end *end, const struct end *other,
			   const struct ipc_session_message *message)
{
	uint64_t number = ++end->received;
	uint32_t flags = number <= end->received_most ? IPC_MESSAGE_REDELIVERED : 0;

	EXPECT(number <= other->sent, "nobody sent", number);
	EXPECT(message->sequence == number, "number", message->sequence);
	EXPECT(message->size == other->size[number], "size of", number);
	EXPECT((message->size < 8 ? 0 : session_scene_number(message->data, message->size)) ==
		       other->value[number],
	       "bytes of", number);
	if (other->has_fd[number])
		flags |= number <= end->fds_taken ? IPC_MESSAGE_FD | IPC_MESSAGE_FD_LOST
						  : IPC_MESSAGE_FD;
	EXPECT(message->flags == flags, "flags", message->flags);
	EXPECT((message->fd >= 0) == (flags & IPC_MESSAGE_FD && !(flags & IPC_MESSAGE_FD_LOST)),
	       "descriptor of", number);
	(void)fd_close(message->fd);
	if (number > end->fds_taken)
		end->fds_taken = number;
	if (number > end->received_most)
		end->received_most = number;
}

static void do_receive(struct end *end, const struct end *other)
{
	struct ipc_session_message messages[4];
	unsigned n = 1 + (unsigned)pick(4);
	int r;

	if (end->n_held + n > N_HELD)
		return;
	r = session_receive_many(&end->member->view, messages, n);
	EXPECT(r > 0 || r == IPC_EAGAIN, "receive", (uint64_t)r);
	if (r < 0) {
		EXPECT(end->received == other->sent, "received", end->received);
		return;
	}
	EXPECT((uint64_t)r == n || end->received + (uint64_t)r == other->sent, "received",
	       (uint64_t)r);
	for (int i = 0; i < r; ++i) {
		expect_message(end, other, &messages[i]);
		end->held[end->n_held++] = messages[i];
	}
}

static void do_release(struct end *end)
{
	struct ipc_session_message *message = request_of(end), copy;

	if (!message)
		return;
	copy = *message;
	EXPECT(session_release(&end->member->view, &copy) == 0, "release", copy.sequence);
	released(end, copy.sequence);
	EXPECT(session_release(&end->member->view, &copy) == 0, "again", copy.sequence);
}

/* ---- ends ---- */

static int begin(struct end *end, unsigned side)
{
	session_scene_attach(&scene, end->member, side, ++n_handles);
	return session_begin(&end->member->view, end->member->id, pick(2) ? (uint32_t)getpid() : 0);
}

/* Whoever had it lives on, or not. */
static void do_take_over(unsigned side, bool lives)
{
	struct end *end = &ends[side];
	struct session_member *before = end->member;
	struct ipc_session_message message;
	void *data;
	int r;

	if (before)
		session_scene_end(&scene, before->id);
	end->member = before == &members[side][0] ? &members[side][1] : &members[side][0];
	r = begin(end, side);
	if (r == IPC_EBUSY) {
		/* There is no place beside what those who live may write: until they have left. */
		EXPECT(before != NULL, "begin", (uint64_t)r);
		session_scene_end(&scene, end->member->id);
		session_leave(&end->member->view);
		session_leave(&before->view);
		before = NULL;
		r = begin(end, side);
	}
	EXPECT(r == 0, "begin", (uint64_t)r);

	if (before && lives) {
		EXPECT(session_scene_receive(before, &message) == IPC_ESTALE, "side", side);
		EXPECT(session_claim(&before->view, 8, &data) == IPC_ESTALE, "side", side);
		EXPECT(session_scene_send(before, 8, 8) == IPC_ESTALE, "side", side);
		if (end->n_held)
			EXPECT(session_release(&end->member->view, &end->held[0]) == IPC_EINVAL,
			       "side", side);
	}
	if (before)
		session_leave(&before->view);
	memset(end->claim, 0, sizeof(end->claim));
	end->n_held = 0;
	end->received = end->released;
}

static void compare(unsigned side)
{
	struct end *end = &ends[side];
	struct ipc_session_state state = session_scene_state(end->member);

	EXPECT(state.sent == end->sent, "sent", state.sent);
	EXPECT(state.acknowledged == ends[!side].released, "acknowledged", state.acknowledged);
	EXPECT(state.received == end->received, "received", state.received);
	EXPECT(state.released == end->released, "released", state.released);
}

static bool read_segment(void *userdata, uint64_t offset, void *ret, size_t size)
{
	(void)userdata;
	memcpy(ret, (unsigned char *)scene.segment + offset, size);
	return true;
}

/* As the broker reads it. */
static void compare_read(unsigned side)
{
	const struct session_read read = {.read = read_segment, .shape = scene.shape};
	uint64_t sent, acknowledged, depth, depth_max;

	EXPECT(session_read_direction(&read, side, &sent, &acknowledged, &depth, &depth_max),
	       "side", side);
	EXPECT(sent == ends[side].sent, "sent", sent);
	EXPECT(acknowledged == ends[!side].released, "acknowledged", acknowledged);
	EXPECT(depth >= 16 * units_at_least(&ends[side], &ends[!side]), "depth", depth);
	EXPECT(depth_max >= depth && depth_max <= CAPACITY, "depth_max", depth_max);
}

static void do_something(unsigned side)
{
	struct end *end = &ends[side];
	unsigned n = (unsigned)pick(20);

	if (n == 0)
		do_take_over(side, pick(2));
	else if (n < 6)
		do_send(end, &ends[!side]);
	else if (n < 9)
		do_claim(end);
	else if (n < 12)
		do_commit(end);
	else if (n < 17)
		do_receive(end, &ends[!side]);
	else
		do_release(end);
}

static void run_seed(void)
{
	random_state = seed * UINT64_C(0x9e3779b97f4a7c15);
	session_scene_reset(&scene);
	memset(ends, 0, sizeof(ends));
	n_handles = 0;
	for (unsigned s = 0; s < 2; ++s)
		do_take_over(s, false);
	for (step = 0; step < N_STEPS; ++step) {
		do_something((unsigned)pick(2));
		for (unsigned s = 0; s < 2; ++s) {
			compare(s);
			compare_read(s);
		}
	}

	/* In the end all is received and released. */
	for (unsigned s = 0; s < 2; ++s) {
		while (ends[s].received < ends[!s].sent) {
			do_receive(&ends[s], &ends[!s]);
			while (ends[s].n_held)
				do_release(&ends[s]);
		}
		compare(s);
	}
	for (unsigned s = 0; s < 2; ++s)
		session_leave(&ends[s].member->view);
}

static unsigned long number_from(const char *name, unsigned long otherwise)
{
	const char *text = getenv(name);

	return text ? strtoul(text, NULL, 10) : otherwise;
}

/* C-1, C-4, C-5, C-6, C-10, C-11, C-12, C-14 */
Test(session_model, does_what_the_model_says, .timeout = 600)
{
	const uint64_t shape[4] = SESSION_SHAPE(CAPACITY, LARGEST);
	uint64_t first = number_from("IPC_MODEL_SEED", 1);
	uint64_t n = number_from("IPC_MODEL_SEEDS", SEEDS_DEFAULT);

	session_scene_init(&scene, shape);
	for (seed = first; seed < first + n; ++seed)
		run_seed();
	session_scene_deinit(&scene);
}
