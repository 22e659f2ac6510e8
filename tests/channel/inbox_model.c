/* SPDX-License-Identifier: MIT */
/*
 * The structure of the kind `inbox` beside a simple model of it: the ends do random things, die,
 * close and are followed by others; after each step what is told and what stands there is what the
 * model says, and in the end the replica is what the primary is.
 *
 *	IPC_MODEL_SEEDS   how many sequences, default 1500
 *	IPC_MODEL_SEED    the first, default 1
 */
#include "libipc/channel/inbox.h"

#include <criterion/criterion.h>
#include <sys/mman.h>

#include "tests/support/inbox_replica.h"
#include "tests/support/inbox_scene.h"
#include "tests/support/ring_scene.h"

enum { CAPACITY = 4096, LARGEST = 1024, N_STEPS = 300, SEEDS_DEFAULT = 1500 };

static struct inbox_scene scene;
static struct inbox_sender sender;
static struct inbox_receiver receiver;
static struct inbox observer;
static struct inbox_replica replica;
static struct inbox_state primary, lasting;
static bool collapses, has_sender, has_receiver;
static uint64_t seed, random_state;
static unsigned step, handle, sender_handle, receiver_handle;

/* What the model knows. */
static struct {
	bool is_inside, is_complete;
	uint64_t snapshot_generation; /* of the snapshot that the sender is in */
	uint64_t sum;                 /* of its chunks */
	uint64_t written, generation, applied, applied_generation, received, wanted, served;
	void *claim;
	uint64_t claim_size;
	int sender_end;
	unsigned n_ends; /* ENDs that were received, and are not applied */
	bool is_changed; /* a snapshot was lost with its receiver, and no END was applied since */
	uint64_t n_collapses, gap;
	unsigned held_dead[3], n_held_dead;
	bool lives_on; /* after its end */
	void *late;    /* what the first of those had claimed, and goes on filling */
	uint64_t late_size;
} model;

#define EXPECT(condition, what, value)                                                             \
	do {                                                                                       \
		if (!(condition))                                                                  \
			fail(#condition, __LINE__, what, value);                                   \
	} while (0)

static void fail(const char *condition, int line, const char *what, uint64_t value)
{
	cr_assert_fail("%s, IPC_MODEL_SEED=%lu IPC_MODEL_SEEDS=1, step %u, line %d: %s (%s %lu)",
		       collapses ? "COLLAPSE" : "FAIL", (unsigned long)seed, step, line, condition,
		       what, (unsigned long)value);
}

static uint64_t pick(uint64_t n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (random_state >> 33) % n;
}

/* ---- sender ---- */

static const void *bytes_of(uint64_t number, uint64_t size)
{
	static unsigned char bytes[LARGEST];

	pattern_fill(bytes, size, number);
	return bytes;
}

static uint64_t pick_size(void)
{
	switch (pick(4)) {
	case 0:
		return 8 + pick(LARGEST - 7);
	case 1:
		return LARGEST;
	default:
		return 8 + pick(60);
	}
}

static bool is_requested(void)
{
	struct ipc_inbox_positions at = inbox_scene_positions(&observer);

	return at.snapshot_wanted != model.wanted;
}

/* A call that is refused. */
static void refused(int r, bool waits)
{
	if (r == IPC_EAGAIN) {
		EXPECT(waits || !collapses || inbox_scene_positions(&observer).depth == 0, "result",
		       (uint64_t)r);
		return;
	}
	EXPECT(r == IPC_EOVERFLOW, "result", (uint64_t)r);
	EXPECT(collapses || inbox_is_requested(&sender), "result", (uint64_t)r);
	if (collapses)
		++model.n_collapses;
	model.gap = model.written;
	EXPECT(inbox_is_requested(&sender), "it is to begin", 1);
}

static void frame_is_sent(uint64_t number)
{
	primary.value = inbox_replica_change(primary.value, number, primary.offset);
	model.written = ++primary.offset;
}

static void do_frame(void)
{
	uint64_t number = pick(UINT64_C(1) << 31), size = pick_size();
	bool waits = pick(3) == 0;
	int r;

	if (pick(8) == 0) {
		r = inbox_send_frame(&sender, primary.offset + 1 + pick(3), "", 0, waits);
		EXPECT(r == IPC_EINVAL || r == IPC_EOVERFLOW, "result", (uint64_t)r);
	}
	r = inbox_send_frame(&sender, primary.offset, bytes_of(number, size), size, waits);
	if (r == 0) {
		EXPECT(model.generation != 0 && !model.is_inside, "frame", primary.offset);
		frame_is_sent(number);
	} else if (model.is_inside || model.generation == 0 || primary.offset != model.written) {
		EXPECT(r == IPC_EINVAL || r == IPC_EOVERFLOW, "result", (uint64_t)r);
	} else {
		refused(r, waits);
	}
}

static void do_claim(void)
{
	uint64_t size = pick_size();
	bool waits = pick(3) == 0;
	void *data;
	int r = inbox_claim_frame(&sender, size, &data, waits);

	if (model.claim) {
		EXPECT(r == IPC_EINVAL, "result", (uint64_t)r);
		return;
	}
	if (r == 0) {
		EXPECT((uintptr_t)data % 16 == 0, "claim", (uintptr_t)data);
		model.claim = data;
		model.claim_size = size;
	} else if (model.is_inside || model.generation == 0) {
		EXPECT(r == IPC_EINVAL || r == IPC_EOVERFLOW, "result", (uint64_t)r);
	} else {
		refused(r, waits);
	}
}

static void do_commit(void)
{
	uint64_t number = pick(UINT64_C(1) << 31), size;
	int r;

	if (!model.claim) {
		EXPECT(inbox_commit_frame(&sender, primary.offset, &primary, 0) < 0, "claim", 0);
		EXPECT(inbox_abort_frame(&sender, &primary) == IPC_EINVAL, "claim", 0);
		return;
	}
	if (pick(5) == 0) {
		EXPECT(inbox_abort_frame(&sender, model.claim) == 0, "claim", 0);
		EXPECT(inbox_abort_frame(&sender, model.claim) == IPC_EINVAL, "claim", 0);
		model.claim = NULL;
		return;
	}
	EXPECT(inbox_commit_frame(&sender, primary.offset, model.claim, model.claim_size + 1) ==
		       IPC_EMSGSIZE,
	       "size", model.claim_size);
	size = pick(2) ? model.claim_size : 8 + pick(model.claim_size - 7);
	pattern_fill(model.claim, size, number);
	r = inbox_commit_frame(&sender, primary.offset, model.claim, size);
	if (r == 0) {
		EXPECT(!model.is_inside, "frame", primary.offset);
		model.claim = NULL;
		frame_is_sent(number);
		return;
	}
	EXPECT(r == IPC_EINVAL || r == IPC_EOVERFLOW || (collapses && r == IPC_EAGAIN), "result",
	       (uint64_t)r);
}

static void do_begin(void)
{
	uint64_t generation = model.generation;
	bool waits = pick(3) == 0;
	int r;

	if (generation == 0 || pick(3))
		generation = 1 + pick(INBOX_GENERATION_MAX - 1);
	r = inbox_begin_snapshot(&sender, generation, waits);
	if (r < 0) {
		refused(r, waits);
		return;
	}
	model.is_inside = true;
	model.is_complete = false;
	model.sum = 0;
	model.snapshot_generation = generation;
	if (generation != model.generation && pick(4) == 0)
		primary.offset = pick(2) ? pick(1000) : UINT64_MAX - 100000 + pick(1000);
	else if (generation == model.generation && primary.offset < model.written)
		primary.offset = model.written;
}

static int send_chunk(uint64_t number, bool waits)
{
	uint64_t size = pick_size(), place = pick(3);
	int fd, r;

	if (pick(5))
		return inbox_send_chunk(&sender, bytes_of(number, size), size, waits);

	fd = memfd_create("chunk", MFD_CLOEXEC);
	EXPECT(fd >= 0 && pwrite(fd, bytes_of(number, 8), 8, (off_t)place) == 8, "fd", 0);
	r = inbox_send_chunk_fd(&sender, fd, place, 8, waits);
	(void)fd_close(fd);
	return r;
}

static void do_chunk(void)
{
	uint64_t number = pick(UINT64_C(1) << 31);
	bool waits = pick(3) == 0, is_last = pick(3) == 0;
	int r;

	if (is_last)
		number = model.sum ^ primary.value;
	r = send_chunk(number, waits);
	if (!model.is_inside) {
		EXPECT(r == IPC_EINVAL, "result", (uint64_t)r);
	} else if (r < 0) {
		refused(r, waits);
	} else {
		model.sum ^= number;
		model.is_complete = model.sum == primary.value;
	}
}

static void do_end(void)
{
	bool waits = pick(3) == 0;
	int r;

	if (model.is_inside && !model.is_complete)
		return;
	if (model.is_inside && model.snapshot_generation == model.generation && model.written > 0) {
		r = inbox_end_snapshot(&sender, model.written - 1, waits);
		EXPECT(r == IPC_EINVAL || r == IPC_EOVERFLOW, "result", (uint64_t)r);
	}
	r = inbox_end_snapshot(&sender, primary.offset, waits);
	if (!model.is_inside) {
		EXPECT(r == IPC_EINVAL, "result", (uint64_t)r);
	} else if (r < 0) {
		refused(r, waits);
	} else {
		model.is_inside = false;
		model.generation = model.snapshot_generation;
		model.written = primary.offset;
	}
}

static void do_abort(void)
{
	int r = inbox_abort_snapshot(&sender);

	EXPECT(r == (model.is_inside ? 0 : IPC_EINVAL), "result", (uint64_t)r);
	model.is_inside = false;
}

/* A new one goes on at `written`; what the upstream changed meanwhile comes with a snapshot. */
static void sender_comes(void)
{
	int r = inbox_scene_try_sender(&scene, &sender, ++handle, 0);

	/* Too much is banned, until the receiver has made room. */
	if (r == IPC_EBUSY && model.n_held_dead > 0) {
		inbox_scene_end(&scene, handle);
		return;
	}
	EXPECT(r == 0, "result", (uint64_t)r);
	sender_handle = handle;
	model.lives_on = pick(4) == 0 && model.n_held_dead < 3;
	has_sender = true;
	model.is_inside = false;
	model.claim = NULL;
	model.sender_end = 0;
	primary.generation = model.generation;
}

static void sender_goes(bool dies)
{
	if (!dies)
		inbox_close_sender(&sender);

	/* One that lives on is only followed by others, and what it had claimed is banned as long
	 * as it lives: in the end there may be no room beside that, and what more of them claimed
	 * is not banned, perhaps. */
	if (dies && model.lives_on && model.n_held_dead == 0) {
		model.late = model.claim;
		model.late_size = model.claim_size;
	}
	if (dies && model.lives_on)
		model.held_dead[model.n_held_dead++] = sender_handle;
	else
		inbox_scene_end(&scene, sender_handle);
	if (!dies)
		inbox_leave_sender(&sender);
	else
		ring_scene_forget(&sender.out);
	has_sender = false;
	model.sender_end = dies ? IPC_EOWNERDEAD : IPC_EPIPE;
}

static bool needs_snapshot(void)
{
	return inbox_is_requested(&sender) ||
	       (!model.is_inside && (model.generation == 0 || primary.offset != model.written));
}

static void sender_does(void)
{
	if (!has_sender) {
		if (pick(3) == 0)
			sender_comes();
		return;
	}

	switch (pick(16)) {
	case 0:
		if (pick(3) == 0)
			sender_goes(pick(2));
		break;
	case 1:
		do_begin();
		break;
	case 2:
		if (pick(4) == 0)
			do_abort();
		break;
	case 3:
	case 4:
		if (model.is_inside || pick(6) == 0)
			do_end();
		break;
	case 5:
	case 6:
	case 7:
		if (model.is_inside || pick(6) == 0)
			do_chunk();
		break;
	case 8:
		do_claim();
		break;
	case 9:
	case 10:
		do_commit();
		break;
	default:
		if (needs_snapshot())
			do_begin();
		else
			do_frame();
	}
}

/* ---- receiver ---- */

static void receiver_comes(void)
{
	bool is_lost = model.n_ends > 0 || replica.is_inside || model.is_changed;
	struct ipc_inbox_event event;
	uint64_t lost = replica.is_inside ? replica.begun : 0;

	int r = inbox_scene_try_receiver(&scene, &receiver, ++handle, 0);

	EXPECT(r == 0, "result", (uint64_t)r);
	receiver_handle = handle;
	has_receiver = true;
	inbox_replica_begin(&replica, &lasting, &receiver);
	model.n_ends = 0;
	model.received = model.applied;
	model.is_changed = is_lost;
	EXPECT(replica.expected == model.applied, "applied", replica.expected);
	EXPECT(replica.generation == model.applied_generation, "generation", replica.generation);

	if (is_lost) {
		EXPECT(inbox_replica_receive(&replica, 1, model.sender_end) == 1, "ABORT", 1);
		event = replica.held[0];
		EXPECT(event.type == IPC_INBOX_ABORT, "type", event.type);
		EXPECT(event.reason == IPC_INBOX_RECEIVER_CHANGED, "reason", event.reason);
		EXPECT(lost == 0 || event.generation == lost, "generation", event.generation);
	}
}

static void receiver_goes(void)
{
	inbox_replica_forget(&replica);
	inbox_scene_end(&scene, receiver_handle);
	inbox_leave_receiver(&receiver);
	has_receiver = false;
}

static void saw(const struct ipc_inbox_event *event)
{
	if (event->type == IPC_INBOX_FRAME)
		model.received = event->offset + 1;
	if (event->type == IPC_INBOX_END) {
		++model.n_ends;
		model.received = event->offset;
	}
	if (event->type == IPC_INBOX_GAP)
		EXPECT(event->offset == model.gap, "GAP", event->offset);
	EXPECT(event->reason != IPC_INBOX_COLLAPSED || model.n_collapses > 0, "reason",
	       event->reason);
}

static void do_receive(unsigned n)
{
	unsigned first = replica.n_held;
	int probed = inbox_probe_event(&receiver, model.sender_end);
	int r = inbox_replica_receive(&replica, n, model.sender_end);

	EXPECT(!replica.wrong, replica.wrong, 0);
	if (r < 0) {
		EXPECT(r == IPC_EAGAIN, "result", (uint64_t)r);
		EXPECT(probed == IPC_EAGAIN || first == INBOX_REPLICA_HELD_MAX, "probed",
		       (uint64_t)probed);
		return;
	}
	EXPECT(probed == 0, "probed", (uint64_t)probed);
	for (unsigned i = first; i < replica.n_held; ++i)
		saw(&replica.held[i]);
}

static void do_mark(unsigned n)
{
	struct ipc_inbox_event last = replica.held[n ? n - 1 : 0];
	unsigned n_ends = 0;

	if (n == 0)
		return;
	for (unsigned i = 0; i < n; ++i) {
		const struct ipc_inbox_event *event = &replica.held[i];

		if (event->type == IPC_INBOX_FRAME)
			model.applied = event->offset + 1;
		if (event->type == IPC_INBOX_END) {
			++n_ends;
			model.applied = event->offset;
			model.applied_generation = event->generation;
			model.is_changed = false;
		}
	}
	EXPECT(inbox_replica_mark(&replica, n) == 0, "mark", n);
	EXPECT(!replica.wrong, replica.wrong, 0);
	EXPECT(inbox_mark_applied(&receiver, &last) == 0, "mark", n);
	last.token ^= UINT64_C(1) << RING_TAG_SHIFT;
	EXPECT(inbox_mark_applied(&receiver, &last) == IPC_ESTALE, "mark", n);
	model.n_ends -= n_ends;
}

static void do_request(void)
{
	int r = inbox_request_snapshot(&receiver);

	EXPECT(r == 0 || r == 1, "result", (uint64_t)r);
	EXPECT(!replica.is_inside || r == 1, "result", (uint64_t)r);
	EXPECT(r == 1 || is_requested(), "wanted", model.wanted);
}

static void receiver_does(void)
{
	if (!has_receiver) {
		if (pick(3) == 0)
			receiver_comes();
		return;
	}

	switch (pick(12)) {
	case 0:
		if (pick(3) == 0)
			receiver_goes();
		break;
	case 1:
		if (pick(3) == 0)
			do_request();
		break;
	case 2:
		inbox_replica_apply(&replica, (unsigned)pick(replica.n_held + 1));
		break;
	case 3:
	case 4:
	case 5:
		do_mark((unsigned)pick(replica.n_held + 1));
		break;
	default:
		do_receive(1 + (unsigned)pick(4));
	}
}

/* ---- all ---- */

static void compare(void)
{
	struct ipc_inbox_positions at = inbox_scene_positions(&observer);

	EXPECT(header_fault(scene.segment) == 0, "broken", 1);
	EXPECT(at.written == model.written, "written", at.written);
	EXPECT(at.generation == model.generation, "generation", at.generation);
	EXPECT(at.applied == model.applied, "applied", at.applied);
	EXPECT(at.applied_generation == model.applied_generation, "generation",
	       at.applied_generation);
	EXPECT(!has_receiver || at.received == model.received, "received less than it is",
	       at.received - model.received);
	EXPECT(at.snapshot_wanted >= model.wanted, "wanted", at.snapshot_wanted);
	EXPECT(at.depth <= CAPACITY && at.depth_max <= CAPACITY, "depth", at.depth);
	model.wanted = at.snapshot_wanted;
}

static void settle(void)
{
	for (unsigned i = 0; i < model.n_held_dead; ++i)
		inbox_scene_end(&scene, model.held_dead[i]);
	if (has_sender && model.claim)
		EXPECT(inbox_abort_frame(&sender, model.claim) == 0, "claim", 0);
	model.claim = NULL;
	if (!has_receiver)
		receiver_comes();
	for (unsigned i = 0; i < 1000; ++i, ++step) {
		if (!has_sender)
			sender_comes();
		do_receive(64);
		compare();
		do_mark(replica.n_held);
		compare();
		if (!has_sender)
			continue;
		if (model.is_inside && model.is_complete)
			do_end();
		else if (model.is_inside)
			do_chunk();
		if (needs_snapshot())
			do_begin();
		else if (model.is_inside)
			continue;
		else if (model.applied == primary.offset &&
			 model.applied_generation == model.generation)
			break;
		compare();
	}
	EXPECT(lasting.value == primary.value, "value", lasting.value);
	EXPECT(lasting.offset == primary.offset, "offset", lasting.offset);
	EXPECT(lasting.generation == model.generation, "generation", lasting.generation);
	EXPECT(inbox_probe_applied(&observer, model.generation, primary.offset) == 0, "applied", 0);
}

static void run_seed(void)
{
	uint64_t pace;

	random_state = seed * UINT64_C(0x9e3779b97f4a7c15);
	inbox_scene_reset(&scene);
	if (pick(4) == 0)
		inbox_scene_move(&scene, RING_POSITION_MASK - pick(2000), RING_TAG_MASK - pick(4));
	memset(&model, 0, sizeof(model));
	primary = lasting = (struct inbox_state){0};
	memset(&replica, 0, sizeof(replica));
	has_sender = has_receiver = false;
	handle = 0;
	inbox_scene_attach(&scene, &observer, INBOX_SIDE_RECEIVER, ++handle);
	sender_comes();
	pace = 1 + pick(4);
	for (step = 0; step < N_STEPS; ++step) {
		if (pick(1 + pace))
			sender_does();
		else
			receiver_does();
		if (model.late)
			memset(model.late, (int)pick(256), model.late_size);
		compare();
		if (pick(50) == 0)
			pace = 1 + pick(4);
	}
	settle();
	receiver_goes();
	sender_goes(false);
}

static unsigned long number_from(const char *name, unsigned long otherwise)
{
	const char *text = getenv(name);

	return text ? strtoul(text, NULL, 10) : otherwise;
}

static void run(enum ipc_inbox_full full)
{
	const uint64_t shape[4] = INBOX_SHAPE(CAPACITY, LARGEST, full);
	uint64_t first = number_from("IPC_MODEL_SEED", 1);
	uint64_t n = number_from("IPC_MODEL_SEEDS", SEEDS_DEFAULT);

	collapses = full == IPC_INBOX_FULL_COLLAPSE;
	inbox_scene_init(&scene, shape);
	for (seed = first; seed < first + n; ++seed)
		run_seed();
	inbox_scene_deinit(&scene);
}

/* I-1, I-2, I-3, I-4, I-6, I-10, I-11, I-14 */
Test(inbox_model, does_what_the_model_says, .timeout = 600)
{
	run(IPC_INBOX_FULL_FAIL);
}

/* I-5 */
Test(inbox_model, does_so_where_the_backlog_is_given_up, .timeout = 600)
{
	run(IPC_INBOX_FULL_COLLAPSE);
}
