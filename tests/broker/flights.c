/* SPDX-License-Identifier: MIT */

/*
 * What is told of a flight: its memory is written by hand, and INFO, LIST and HANDLES say what
 * stands there, as far as it can be believed.
 */

#include "libipc/channel/flight.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <ipc/admin.h>
#include <ipc/client.h>

#include "libipc/platform/clock.h"
#include "libipc/platform/segment.h"
#include "libipc/wire/codec.h"
#include "tests/support/domain.h"
#include "tests/support/rawpeer.h"

static struct domain domain;
static struct rawpeer a, b;

static void setup(void)
{
	domain_start(&domain, NULL);
	rawpeer_join(&a, domain.address);
	rawpeer_join(&b, domain.address);
}

static void teardown(void)
{
	rawpeer_disconnect(&a);
	rawpeer_disconnect(&b);
	domain_stop(&domain);
}

TestSuite(flights, .init = setup, .fini = teardown, .timeout = 60);

struct flight_memory {
	int fd;
	uint64_t id; /* of the creator's handle */
	struct flight_layout layout;
};

static struct flight_memory create(const char *name, uint64_t keys_max)
{
	union message open = rawpeer_open_message(IPC_ROLE_FLIGHT_TABLE, name, IPC_CREATE);
	struct flight_memory memory;

	open.open.shape_new[0] = 64;
	open.open.shape_new[1] = keys_max;
	open.open.shape_new[2] = 16;
	open.open.size_new = segment_round(flight_segment_size(open.open.shape_new));
	cr_assert(flight_layout(&memory.layout, open.open.shape_new));

	rawpeer_send(&a, &open);
	cr_assert_eq(rawpeer_answer(&a, a.last_id), MESSAGE_RESERVE);
	memory.fd = fcntl(a.fds[0], F_DUPFD_CLOEXEC, 0);
	cr_assert_eq(rawpeer_reserve(&a, a.last_id, &memory.id), 0);
	return memory;
}

static void store(const struct flight_memory *memory, uint64_t offset, uint64_t value)
{
	cr_assert_eq(pwrite(memory->fd, &value, sizeof(value), (off_t)offset),
		     (ssize_t)sizeof(value));
}

static void set_state(const struct flight_memory *memory, uint32_t cell, uint64_t turn,
		      uint64_t flags, enum flight_phase phase)
{
	store(memory, memory->layout.state + cell * sizeof(uint64_t),
	      turn << 27 | flags | (uint64_t)phase);
}

static void set_leader(const struct flight_memory *memory, uint32_t cell, uint64_t handle_id,
		       uint64_t ago_ns)
{
	uint64_t offset = memory->layout.cell + cell * sizeof(struct flight_cell);

	store(memory, offset + offsetof(struct flight_cell, leader_id), handle_id);
	store(memory, offset + offsetof(struct flight_cell, led_since), clock_now_ns() - ago_ns);
}

/* M-45 */
Test(flights, info_tells_keys_in_flight_and_cells_ever_used)
{
	struct flight_memory memory = create("f", 8);
	const struct message_channel *channel = &b.reply.info_reply.channel;

	set_state(&memory, 0, 1, 0, FLIGHT_UNLED);
	set_state(&memory, 1, 1, 0, FLIGHT_LANDED);
	set_state(&memory, 2, 9, 0, FLIGHT_FAILED);
	set_state(&memory, 3, 1, 0, FLIGHT_ENDED);
	set_state(&memory, 7, 1, 0, FLIGHT_LED);
	set_leader(&memory, 7, memory.id, 0);

	cr_assert_eq(rawpeer_info(&b, "f"), 0);
	cr_assert_eq(channel->kind, IPC_KIND_FLIGHT);
	cr_assert_eq(channel->item_size_max, 64);
	cr_assert_eq(channel->capacity, 8);
	cr_assert_eq(channel->depth, 2);
	cr_assert_eq(channel->depth_max, 5);
	close(memory.fd);
}

/* M-45 */
Test(flights, the_oldest_lead_is_the_holder)
{
	struct flight_memory memory = create("f", 8);
	const struct message_channel *channel = &b.reply.info_reply.channel;
	uint64_t id;

	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_HANDLER, "f", 0, &id), 0);
	set_state(&memory, 1, 1, 0, FLIGHT_LED);
	set_leader(&memory, 1, memory.id, NS_PER_S);
	set_state(&memory, 4, 1, 0, FLIGHT_LED);
	set_leader(&memory, 4, id, 5 * NS_PER_S);
	set_state(&memory, 5, 1, 0, FLIGHT_LANDED);
	set_leader(&memory, 5, memory.id, 9 * NS_PER_S);

	cr_assert_eq(rawpeer_info(&b, "f"), 0);
	cr_assert_eq(channel->holder_id, id);
	cr_assert_eq(channel->holder_pid, getpid());
	cr_assert_geq(channel->held_ns, 5 * NS_PER_S);
	cr_assert_lt(channel->held_ns, 9 * NS_PER_S);
	close(memory.fd);
}

/* M-60: anybody may have written that. */
Test(flights, a_leader_who_is_not_there_is_not_told)
{
	struct flight_memory memory = create("f", 8), other = create("g", 8);
	const struct message_channel *channel = &b.reply.info_reply.channel;

	set_state(&memory, 0, 1, 0, FLIGHT_LED);
	set_leader(&memory, 0, memory.id + 65536, NS_PER_S);
	set_state(&memory, 1, 1, FLIGHT_FOLLOWED, FLIGHT_LED);
	set_leader(&memory, 1, other.id, NS_PER_S);
	set_state(&memory, 2, 1, FLIGHT_FOLLOWED, FLIGHT_LED);
	set_leader(&memory, 2, UINT64_MAX, NS_PER_S);

	cr_assert_eq(rawpeer_info(&b, "f"), 0);
	cr_assert_eq(channel->holder_id, 0);
	cr_assert_eq(channel->holder_pid, 0);
	cr_assert_eq(channel->depth, 2, "without a leader and without followers it is over");
	close(memory.fd);
	close(other.fd);
}

/* M-45 */
Test(flights, each_handle_has_its_leads)
{
	struct flight_memory memory = create("f", 8);
	const struct message_handled *handled = &b.reply.handled;
	const struct message_handle *table, *handler, *idle;
	uint64_t ids[2];

	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_HANDLER, "f", 0, &ids[0]), 0);
	cr_assert_eq(rawpeer_open_role(&b, IPC_ROLE_FLIGHT_TABLE, "f", 0, &ids[1]), 0);
	for (uint32_t cell = 0; cell < 3; ++cell) {
		set_state(&memory, cell, 1, 0, FLIGHT_LED);
		set_leader(&memory, cell, memory.id, (cell == 1 ? 7 : 1) * NS_PER_S);
	}
	set_state(&memory, 5, 1, 0, FLIGHT_LED);
	set_leader(&memory, 5, ids[0], 3 * NS_PER_S);

	cr_assert_eq(rawpeer_handles(&b, "f", 0, 0), 0);
	cr_assert_eq(handled->n, 3);
	cr_assert_eq(handled->cursor, PROTOCOL_CURSOR_END);
	table = &handled->handle[0];
	handler = &handled->handle[1];
	idle = &handled->handle[2];

	cr_assert_eq(table->handle_id, memory.id);
	cr_assert_eq(table->role, IPC_ROLE_FLIGHT_TABLE);
	cr_assert_eq(table->holds, IPC_HOLDS_LEAD);
	cr_assert_eq(table->n_held, 3);
	cr_assert_geq(table->held_ns, 7 * NS_PER_S);

	cr_assert_eq(handler->handle_id, ids[0]);
	cr_assert_eq(handler->role, IPC_ROLE_HANDLER);
	cr_assert_eq(handler->holds, IPC_HOLDS_LEAD);
	cr_assert_eq(handler->n_held, 1);
	cr_assert_geq(handler->held_ns, 3 * NS_PER_S);
	cr_assert_lt(handler->held_ns, 7 * NS_PER_S);

	cr_assert_eq(idle->handle_id, ids[1]);
	cr_assert_eq(idle->holds, IPC_HOLDS_NOTHING);
	cr_assert_eq(idle->n_held, 0);
	close(memory.fd);
}

/* The bound on what one request may look at: cells beyond it are not counted, and what comes after
 * such a table in a list is on the next page. */
Test(flights, a_huge_table_is_looked_at_in_part)
{
	const uint32_t n_looked_at = 1 << 18;
	struct flight_memory memory = create("huge", n_looked_at + 1), small = create("small", 8);
	const struct message_listed *listed = &b.reply.listed;
	union message list;

	set_state(&memory, 0, 1, 0, FLIGHT_UNLED);
	set_state(&memory, n_looked_at - 1, 1, 0, FLIGHT_UNLED);
	set_state(&memory, n_looked_at, 1, 0, FLIGHT_UNLED);
	set_state(&small, 0, 1, 0, FLIGHT_UNLED);

	message_init(&list, MESSAGE_LIST, 0);
	strcpy(list.list.pattern, "*");
	rawpeer_send(&b, &list);
	cr_assert_eq(rawpeer_answer(&b, b.last_id), MESSAGE_LISTED);
	cr_assert_eq(listed->n, 1);
	cr_assert_eq(listed->channel[0].depth, 2);
	cr_assert_neq(listed->cursor, PROTOCOL_CURSOR_END);

	list.list.cursor = listed->cursor;
	rawpeer_send(&b, &list);
	cr_assert_eq(rawpeer_answer(&b, b.last_id), MESSAGE_LISTED);
	cr_assert_eq(listed->n, 1);
	cr_assert_str_eq(listed->channel[0].name, "small");
	cr_assert_eq(listed->channel[0].depth, 1);
	close(memory.fd);
	close(small.fd);
}
