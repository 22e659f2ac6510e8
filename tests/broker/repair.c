/* SPDX-License-Identifier: MIT */

/*
 * A worker that dies at random crash points, under clients that open, close, remove, wait and die:
 * after each step the liveness table says exactly what a model of it says, no client ever sees an
 * error that the model does not know, and at the end nothing is left.
 */

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ipc/admin.h>
#include <ipc/client.h>

#include "libipc/platform/clock.h"
#include "libipc/wire/codec.h"
#include "tests/support/leaks.h"
#include "tests/support/mortal.h"
#include "tests/support/rawpeer.h"

#define PEERS   6
#define HANDLES 64
#define NAMES   9

/* What stands under the names: others are watches and shared values. */
enum { NAME_QUEUE = 5, NAME_QUEUE_KEPT, NAME_INBOX, NAME_INBOX_KEPT };

/* The side of a handle that is not counted. */
#define SIDE_NONE 2

struct model_handle {
	uint64_t id; /* 0: none */
	unsigned peer, side;
	uint32_t slot;
	uint64_t generation;
};

struct model_name {
	uint64_t generation; /* 0: no channel */
	uint32_t slot;
};

/* What the table should say of a side: kept while slots change tenants. */
struct model_side {
	uint32_t ends, count;
	uint64_t flags;
};

struct model_slot {
	uint64_t generation;
	unsigned name;
	bool is_removed;
	struct model_side side[2];
};

#define SLOTS 256

static struct model_slot slots[SLOTS];
static struct domain domain;
static struct rawpeer watcher, peers[PEERS];
static struct model_handle handles[HANDLES];
static struct model_name names[NAMES];
static unsigned seed = 1;

static bool is_kept(unsigned name)
{
	return name == NAME_QUEUE_KEPT || name == NAME_INBOX_KEPT;
}

static bool is_inbox(unsigned name)
{
	return name == NAME_INBOX || name == NAME_INBOX_KEPT;
}

/* With the name all is over for those who are left. */
static bool ends_for_good(unsigned name)
{
	return name == NAME_QUEUE || name == NAME_INBOX;
}

static unsigned dice(unsigned n)
{
	return (unsigned)rand_r(&seed) % n;
}

static void setup(void)
{
	const char *wish = getenv("IPC_TEST_CRASH"); /* for a longer hunt: "random:20 4711" */
	char crash[32] = "random:40";

	seed = (unsigned)clock_now_ns();
	if (wish)
		(void)sscanf(wish, "%31s %u", crash, &seed);
	cr_log_info("crash points %s, seed %u", crash, seed);

	domain_start_mortal(&domain, crash);
	rawpeer_join(&watcher, domain.address);
	for (unsigned i = 0; i < PEERS; ++i)
		rawpeer_join(&peers[i], domain.address);
}

/* The orderly end of a broker that keeps dying may itself be died over: it is asked for until it
 * comes. */
static void teardown(void)
{
	domain_kill(&domain);
}

static void model_begin(uint32_t slot, uint64_t generation, unsigned name, unsigned side)
{
	struct model_slot *model = &slots[slot];

	cr_assert_lt(slot, SLOTS);
	if (model->generation != generation) {
		model->generation = generation;
		model->name = name;
		model->is_removed = false;
		for (unsigned i = 0; i < 2; ++i)
			model->side[i] = (struct model_side){.ends = model->side[i].ends};
	}

	if (side == SIDE_NONE)
		return;
	++model->side[side].count;
	model->side[side].flags |= SIDE_EVER;
}

static void model_remove(uint32_t slot)
{
	slots[slot].is_removed = true;
	for (unsigned i = 0; i < 2; ++i) {
		struct model_side *side = &slots[slot].side[i];

		if (side->count == 0 && !(side->flags & SIDE_FINAL)) {
			++side->ends;
			side->flags |= SIDE_FINAL;
		}
	}
}

/* Whether the channel gives its name up: a queue with its last consumer, every one that is not
 * kept with its last handle. */
static bool model_is_over(const struct model_slot *model)
{
	const struct model_side *consumers = &model->side[1];

	if (is_kept(model->name))
		return false;
	if (model->name == NAME_QUEUE && consumers->count == 0 && (consumers->flags & SIDE_EVER))
		return true;
	return model->side[0].count + model->side[1].count == 0;
}

static void model_end(uint32_t slot, unsigned side, bool died)
{
	struct model_slot *model = &slots[slot];
	struct model_side *gone = &model->side[side];
	bool is_over;

	if (side == SIDE_NONE)
		return;

	--gone->count;
	is_over = model_is_over(model);
	if (gone->count == 0) {
		bool is_final = model->is_removed || (is_over && ends_for_good(model->name));

		++gone->ends;
		gone->flags = SIDE_EVER | (died ? SIDE_DIED : 0) | (is_final ? SIDE_FINAL : 0);
	}

	if (is_over && ends_for_good(model->name))
		model_remove(slot);
	for (unsigned i = 0; is_over && i < NAMES; ++i) {
		if (names[i].generation == model->generation)
			names[i].generation = 0;
	}
}

/* Until the words of this channel say what the model says; what was sent has been done, so only
 * deaths take a while. */
static void check_slot(uint32_t slot)
{
	uint64_t deadline_ns = clock_after_ns(30 * NS_PER_S);

	for (unsigned side = 0; side < 2; ++side) {
		const struct model_side *model = &slots[slot].side[side];
		uint64_t want = side_make(model->ends, model->count, model->flags);
		bool is_over = slots[slot].side[0].count + slots[slot].side[1].count == 0 &&
			       (!is_kept(slots[slot].name) || slots[slot].is_removed);

		/* The slot of a channel that is over may have been prepared for the next one. */
		while (liveness_side(watcher.table, slot, side) != want &&
		       !(is_over && liveness_side(watcher.table, slot, side) ==
					    side_make(model->ends, 0, 0))) {
			cr_assert_lt(clock_now_ns(), deadline_ns,
				     "channel %u, side %u: %lx, should be %lx", slot, side,
				     (unsigned long)liveness_side(watcher.table, slot, side),
				     (unsigned long)want);
			rawpeer_sync(&watcher);
		}
	}
}

/* A silent close is seen after the answer to what was asked before it. */
static void until_ended(uint64_t id)
{
	uint64_t deadline_ns = clock_after_ns(30 * NS_PER_S);

	while (liveness_handle_is(watcher.table, id)) {
		cr_assert_lt(clock_now_ns(), deadline_ns);
		rawpeer_sync(&watcher);
	}
}

static void check_handles(void)
{
	for (unsigned i = 0; i < HANDLES; ++i) {
		if (handles[i].id)
			cr_assert(liveness_handle_is(watcher.table, handles[i].id));
	}
}

static struct model_handle *model_free(void)
{
	for (unsigned i = 0; i < HANDLES; ++i) {
		if (!handles[i].id)
			return &handles[i];
	}
	return NULL;
}

static void name_of(unsigned name, char *ret)
{
	sprintf(ret, "name/%u", name);
}

static uint32_t role_of(unsigned name, unsigned side)
{
	if (is_inbox(name))
		return side == SIDE_NONE ? IPC_ROLE_INBOX_OBSERVER
		       : side == 1       ? IPC_ROLE_INBOX_RECEIVER
					 : IPC_ROLE_INBOX_SENDER;
	if (name >= NAME_QUEUE)
		return side == 1 ? IPC_ROLE_QUEUE_CONSUMER : IPC_ROLE_QUEUE_PRODUCER;
	if (name % 2)
		return side ? IPC_ROLE_SHARED_B : IPC_ROLE_SHARED_A;
	return side ? IPC_ROLE_WATCH_CONSUMER : IPC_ROLE_WATCH_PRODUCER;
}

/* A client has one side of queues and inboxes: of one that dies with both, either may end first. */
static unsigned side_of(unsigned name, unsigned p)
{
	if (name < NAME_QUEUE)
		return dice(2);
	return dice(3) == 0 ? SIDE_NONE : p % 2;
}

static uint64_t flags_of(unsigned name, unsigned side)
{
	if (side == SIDE_NONE)
		return is_inbox(name) ? 0 : OPEN_UNCOUNTED;
	if (dice(3) == 0)
		return 0;
	return IPC_CREATE | (is_kept(name) ? IPC_KEEP : 0);
}

/* I-13 */
static bool is_taken(unsigned n, unsigned side)
{
	return is_inbox(n) && side != SIDE_NONE && names[n].generation &&
	       slots[names[n].slot].side[side].count > 0;
}

static void step_open(unsigned p, unsigned n)
{
	struct model_handle *handle = model_free();
	unsigned side = side_of(n, p);
	uint64_t flags = flags_of(n, side);
	const struct message_opened *opened = &peers[p].reply.opened;
	char name[32];
	uint64_t id;
	int r;

	if (!handle)
		return;

	name_of(n, name);
	r = rawpeer_open_role(&peers[p], role_of(n, side), name, flags, &id);
	if (!(flags & IPC_CREATE) && !names[n].generation) {
		cr_assert_eq(r, IPC_ENOENT, "%s", ipc_error_name(r));
		return;
	}

	if (is_taken(n, side)) {
		cr_assert_eq(r, IPC_EBUSY, "%s", ipc_error_name(r));
		return;
	}

	cr_assert_eq(r, 0, "%s: %s", name, ipc_error_name(r));
	if (names[n].generation) {
		cr_assert_eq(opened->generation, names[n].generation);
		cr_assert_eq(opened->channel_slot, names[n].slot);
	}
	names[n] = (struct model_name){opened->generation, opened->channel_slot};
	*handle = (struct model_handle){id, p, side, opened->channel_slot, opened->generation};
	model_begin(handle->slot, handle->generation, n, side);
	check_slot(handle->slot);
}

static void step_close(unsigned h)
{
	struct model_handle handle = handles[h];

	if (!handle.id)
		return;

	handles[h].id = 0;
	if (dice(2))
		rawpeer_close(&peers[handle.peer], handle.id);
	else
		rawpeer_close_silently(&peers[handle.peer], handle.id);
	rawpeer_sync(&peers[handle.peer]);
	model_end(handle.slot, handle.side, false);
	check_slot(handle.slot);
	until_ended(handle.id);
}

static void step_die(unsigned p)
{
	rawpeer_disconnect(&peers[p]);
	for (unsigned i = 0; i < HANDLES; ++i) {
		struct model_handle handle = handles[i];

		if (!handle.id || handle.peer != p)
			continue;
		handles[i].id = 0;
		model_end(handle.slot, handle.side, true);
	}
	for (uint32_t slot = 0; slot < SLOTS; ++slot) {
		if (slots[slot].generation)
			check_slot(slot);
	}
	rawpeer_join(&peers[p], domain.address);
}

static void step_remove(unsigned p, unsigned n)
{
	char name[32];
	int r;

	name_of(n, name);
	r = rawpeer_remove(&peers[p], name, 0);
	cr_assert_eq(r, names[n].generation ? 0 : IPC_ENOENT, "%s: %s", name, ipc_error_name(r));
	if (r < 0)
		return;

	names[n].generation = 0;
	model_remove(names[n].slot);
	check_slot(names[n].slot);
}

/* Waits for a name that nobody makes; then it is granted by another's open, or withdrawn. */
static void step_await(unsigned p, unsigned q)
{
	union message open = rawpeer_open_message(IPC_ROLE_SHARED_A, "awaited", IPC_AWAIT);
	struct message_opened opened;
	union message cancel;
	uint64_t request_id, id;

	if (p == q)
		return;

	rawpeer_send(&peers[p], &open);
	request_id = peers[p].last_id;
	if (dice(2)) {
		message_init(&cancel, MESSAGE_CANCEL, 0);
		cancel.cancel.cancelled_id = request_id;
		rawpeer_send(&peers[p], &cancel);
		rawpeer_sync(&peers[p]);
		cr_assert_eq(rawpeer_info(&watcher, "awaited"), IPC_ENOENT);
		return;
	}

	rawpeer_sync(&peers[p]);
	cr_assert_eq(rawpeer_open_role(&peers[q], IPC_ROLE_SHARED_B, "awaited", IPC_CREATE, &id),
		     0);
	opened = peers[q].reply.opened;
	cr_assert_eq(rawpeer_answer(&peers[p], request_id), MESSAGE_OPENED);
	model_begin(opened.channel_slot, opened.generation, NAMES, 1);
	model_begin(opened.channel_slot, opened.generation, NAMES, 0);
	check_slot(opened.channel_slot);
	rawpeer_close(&peers[q], id);
	rawpeer_close(&peers[p], peers[p].reply.opened.handle_id);
	rawpeer_sync(&peers[p]);
	rawpeer_sync(&peers[q]);
	model_end(opened.channel_slot, 1, false);
	model_end(opened.channel_slot, 0, false);
	check_slot(opened.channel_slot);
	cr_assert_eq(rawpeer_info(&watcher, "awaited"), IPC_ENOENT);
}

/* Of the inbox that stays; NULL: none is taken. */
static struct model_handle *any_place(void)
{
	unsigned first = dice(HANDLES);

	for (unsigned i = 0; i < HANDLES; ++i) {
		struct model_handle *handle = &handles[(first + i) % HANDLES];

		if (handle->id && handle->side != SIDE_NONE &&
		    handle->generation == names[NAME_INBOX_KEPT].generation)
			return handle;
	}
	return NULL;
}

/* Waits for somebody's place, and gets it when that one closes. */
static void step_await_place(void)
{
	struct model_handle *place = any_place(), old;
	unsigned p;
	char name[32];
	union message open;
	uint64_t request_id;

	if (!place)
		return;

	old = *place;
	p = (old.peer + 2) % PEERS;
	name_of(NAME_INBOX_KEPT, name);
	open = rawpeer_open_message(role_of(NAME_INBOX_KEPT, old.side), name, IPC_AWAIT);
	rawpeer_send(&peers[p], &open);
	request_id = peers[p].last_id;
	rawpeer_sync(&watcher);

	rawpeer_close(&peers[old.peer], old.id);
	rawpeer_sync(&peers[old.peer]);
	model_end(old.slot, old.side, false);
	cr_assert_eq(rawpeer_answer(&peers[p], request_id), MESSAGE_OPENED);
	place->id = peers[p].reply.opened.handle_id;
	place->peer = p;
	cr_assert_eq(peers[p].reply.opened.generation, old.generation);
	model_begin(old.slot, old.generation, NAME_INBOX_KEPT, old.side);
	check_slot(old.slot);
	until_ended(old.id);
}

/* A reserver dies or gives up; the next one gets its segment. */
static void step_reserver_dies(unsigned p, unsigned q)
{
	union message open = rawpeer_open_message(IPC_ROLE_WATCH_PRODUCER, "inherited", IPC_CREATE);
	uint64_t id, request_id;
	uint32_t slot;

	if (p == q)
		return;

	rawpeer_send(&peers[p], &open);
	cr_assert_eq(rawpeer_answer(&peers[p], peers[p].last_id), MESSAGE_RESERVE);
	id = peers[p].reply.reserve.handle_id;
	rawpeer_send(&peers[q], &open);
	request_id = peers[q].last_id;
	rawpeer_sync(&peers[q]);

	if (dice(2))
		step_die(p);
	else
		rawpeer_close(&peers[p], id);

	cr_assert_eq(rawpeer_answer(&peers[q], request_id), MESSAGE_RESERVE);
	cr_assert_eq(rawpeer_reserve(&peers[q], request_id, &id), 0);
	slot = peers[q].reply.opened.channel_slot;
	model_begin(slot, peers[q].reply.opened.generation, NAMES, 0);
	check_slot(slot);
	rawpeer_close(&peers[q], id);
	rawpeer_sync(&peers[q]);
	model_end(slot, 0, false);
	check_slot(slot);
}

static void step(void)
{
	switch (dice(14)) {
	case 0:
		step_die(dice(PEERS));
		break;
	case 1:
		step_remove(dice(PEERS), dice(NAMES));
		break;
	case 2:
		step_await(dice(PEERS), dice(PEERS));
		break;
	case 3:
		step_await_place();
		break;
	case 4:
		step_reserver_dies(dice(PEERS), dice(PEERS));
		break;
	case 5:
	case 6:
	case 7:
	case 8:
	case 9:
		step_close(dice(HANDLES));
		break;
	default:
		step_open(dice(PEERS), dice(NAMES));
		break;
	}
	check_handles();
}

/* M-6, M-31, D12, I-13 */
Test(repair, workers_that_die_anywhere_are_not_noticed, .init = setup, .fini = teardown,
     .timeout = 120)
{
	uint64_t deadline_ns;
	unsigned n_fds;

	rawpeer_sync(&watcher);
	n_fds = domain_fds_before(&domain);

	for (unsigned i = 0; i < 2000; ++i)
		step();

	for (unsigned h = 0; h < HANDLES; ++h)
		step_close(h);
	for (unsigned n = 0; n < NAMES; ++n) {
		char name[32];

		name_of(n, name);
		if (names[n].generation)
			cr_assert_eq(rawpeer_remove(&watcher, name, names[n].generation), 0);
		cr_assert_eq(rawpeer_info(&watcher, name), IPC_ENOENT);
	}

	deadline_ns = clock_after_ns(30 * NS_PER_S);
	do
		rawpeer_sync(&watcher);
	while (leaks_fds_of(domain.keeper) > n_fds && clock_now_ns() < deadline_ns);
	cr_assert_leq(leaks_fds_of(domain.keeper), n_fds,
		      "the keeper has %u descriptors, before %u", leaks_fds_of(domain.keeper),
		      n_fds);
}
