/* SPDX-License-Identifier: MIT */
/*
 * listener: close while another thread accepts, and stands still in the middle of it.
 */
#include <stdarg.h>
#include <sys/syscall.h>

#include "libipc/client/listener.h"
#include "tests/client/session_scene.h"

TestSuite(listener_close, .init = scene_setup, .fini = scene_teardown, .timeout = 60);

/* ---- a thread that stands still where it takes the session's socket ---- */

enum stand { STAND_OFF, STAND_WANTED, STAND_STANDS, STAND_GOES_ON };

static _Atomic int stand;
static _Thread_local bool stands_here;

static void stand_until(int wanted)
{
	struct timespec deadline = process_deadline(WAIT_MS);

	while (atomic_load(&stand) != wanted && !process_has_passed(&deadline))
		process_pause();
}

/* In place of the C library's. */
int fcntl(int fd, int command, ...)
{
	int wanted = STAND_WANTED;
	va_list arguments;
	long argument;

	va_start(arguments, command);
	argument = va_arg(arguments, long);
	va_end(arguments);

	if (stands_here && command == F_DUPFD_CLOEXEC &&
	    atomic_compare_exchange_strong(&stand, &wanted, STAND_STANDS))
		stand_until(STAND_GOES_ON);

	return (int)syscall(SYS_fcntl, fd, command, argument);
}

struct accepting {
	ipc_listener *listener;
	pthread_t thread;
	ipc_session *session;
	int result;
};

static void *accepting_run(void *arg)
{
	struct accepting *accepting = arg;

	stands_here = true;
	accepting->result = accept_in(accepting->listener, &accepting->session, WAIT_MS);
	return NULL;
}

/* C-15, M-44: who connects is not offered to another one meanwhile. */
Test(listener_close, beside_accept_is_told_after_it)
{
	ipc_listener *listener = LISTENER_NEW(0), *other = LISTENER_NEW(0);
	struct accepting accepting = {.listener = listener};
	struct connecting connecting = {0};
	const struct desk_cell *cell = listener->endpoint.cell;
	ipc_session *none = NULL;
	uint64_t id;

	/* The first one is offered the first. */
	ASSERT(ipc_listener_get_id(listener, &id), 0);
	connecting_start(&connecting);
	while (look(listener, IPC_READY_READABLE) != IPC_READY_READABLE &&
	       look(other, IPC_READY_READABLE) != IPC_READY_READABLE)
		process_pause();
	if (look(listener, IPC_READY_READABLE) != IPC_READY_READABLE) {
		ipc_listener *swap = listener;

		accepting.listener = listener = other;
		other = swap;
		cell = listener->endpoint.cell;
		ASSERT(ipc_listener_get_id(listener, &id), 0);
	}

	atomic_store(&stand, STAND_WANTED);
	ASSERT(pthread_create(&accepting.thread, NULL, accepting_run, &accepting), 0);
	stand_until(STAND_STANDS);
	ASSERT(atomic_load(&stand), STAND_STANDS);
	ipc_listener_close(listener);
	cr_expect_neq(atomic_load(&cell->closed_id), id, "it still accepts");
	EXPECT(accept_in(other, &none, 20), IPC_ETIMEDOUT);

	atomic_store(&stand, STAND_GOES_ON);
	pthread_join(accepting.thread, NULL);
	EXPECT(accepting.result, 0);
	EXPECT(atomic_load(&cell->closed_id), id);
	EXPECT(connecting_end(&connecting), 0);
	EXPECT(put(connecting.session, 1), 0);
	EXPECT(eat(accepting.session), 1);
	until_not_alive(id);
	ipc_session_close(accepting.session);
	ipc_session_close(connecting.session);
	ipc_listener_close(other);
}
