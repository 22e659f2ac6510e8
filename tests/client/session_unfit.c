/* SPDX-License-Identifier: MIT */
/*
 * session: accepting where who connects has made up that another one has the end to be accepted.
 */
#include <inttypes.h>

#include "libipc/channel/session.h"
#include "tests/client/session_scene.h"

TestSuite(session_unfit, .init = scene_setup, .fini = scene_teardown, .timeout = 60);

enum { SIZE_AT_LEAST = 256 << 10 };

/* The segment of the only session, as who connects has it here; NULL: not yet. */
static struct session_shared *find_session(void)
{
	FILE *file = fopen("/proc/self/maps", "re");
	uintptr_t from, to, found = 0;
	char line[500];

	ASSERT(!file, 0);
	while (fgets(line, sizeof(line), file)) {
		if (strstr(line, "ipc-channel") &&
		    sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &from, &to) == 2 &&
		    to - from >= SIZE_AT_LEAST)
			found = from + SESSION_SHARED_OFFSET;
	}
	(void)fclose(file);
	return (struct session_shared *)found;
}

/* Once it has begun on its own end. */
static struct session_shared *until_session(void)
{
	struct timespec deadline = domain_deadline(WAIT_MS);
	struct session_shared *shared;

	while (!(shared = find_session()) || atomic_load(&shared->resumes) == 0) {
		cr_assert(!process_has_passed(&deadline), "nobody connects");
		process_pause();
	}
	return shared;
}

/* M-60: he is refused, and who comes after him is accepted. */
static void expect_refused(ipc_listener *listener, struct connecting *liar)
{
	struct connecting honest = {0};
	ipc_session *accepted = NULL;

	connecting_start(&honest);
	EXPECT(accept_in(listener, &accepted, WAIT_MS), 0);
	EXPECT(connecting_end(liar), IPC_EPIPE);
	EXPECT(connecting_end(&honest), 0);
	EXPECT(put(honest.session, 1), 0);
	EXPECT(eat(accepted), 1);
	ipc_session_close(honest.session);
	ipc_session_close(accepted);
	ipc_listener_close(listener);
}

Test(session_unfit, an_end_that_is_told_to_be_closed_keeps_nobody_out)
{
	ipc_listener *listener = LISTENER_NEW(0);
	struct connecting liar = {0};

	connecting_start(&liar);
	atomic_store(&until_session()->ring[0].head, ring_word(0, SESSION_CLOSED, 0));

	expect_refused(listener, &liar);
}

/* A handle that is open, and newer than that of who accepts. */
Test(session_unfit, an_end_that_is_told_to_be_anothers_keeps_nobody_out)
{
	struct ipc_wait_item offer = {.events = IPC_READY_READABLE};
	ipc_listener *listener = LISTENER_NEW(0);
	struct connecting liar = {0};
	ipc_watch_producer *other;
	uint64_t id;

	connecting_start(&liar);
	offer.handle = listener;
	ASSERT(ipc_wait_any(&offer, 1, NULL), 0);
	other = producer_new("other");
	ASSERT(ipc_watch_producer_get_id(other, &id), 0);
	atomic_store(&until_session()->ring[0].producer, ring_owner(id, (uint32_t)getpid()));

	expect_refused(listener, &liar);
	ipc_watch_producer_close(other);
}

/* One that is made up. */
Test(session_unfit, an_end_that_is_told_to_be_nobodys_is_accepted)
{
	ipc_listener *listener = LISTENER_NEW(0);
	struct connecting liar = {0};
	ipc_session *accepted = NULL;
	struct session_shared *shared;
	uint64_t own;

	connecting_start(&liar);
	shared = until_session();
	own = atomic_load(&shared->ring[1].producer);
	atomic_store(&shared->ring[0].producer, own + (UINT64_C(1) << 60));

	EXPECT(accept_in(listener, &accepted, WAIT_MS), 0);
	EXPECT(connecting_end(&liar), 0);
	EXPECT(put(accepted, 1), 0);
	EXPECT(eat(liar.session), 1);
	ipc_session_close(liar.session);
	ipc_session_close(accepted);
	ipc_listener_close(listener);
}
