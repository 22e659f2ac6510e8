/* SPDX-License-Identifier: MIT */
/*
 * The promise, live: real processes share a configuration value, a ledger, expensive work, queues,
 * a replica and a conversation, get killed with SIGKILL, and nobody hangs and nothing committed is
 * lost.
 *
 *	demo [PATH-OF-IPCBROKER]
 *
 * The broker runs on a private socket in a temporary directory.  Every act prints how long the
 * waits took to end and how they ended; the exit status is 0 if all of it held.
 */
#include "examples/demo/demo.h"

#include <stdio.h>

int main(int argc, char **argv)
{
	int64_t started = now_ns();

	broker_start(argc > 1 ? argv[1] : NULL);
	printf("libipc demo: the broker runs, keeper %d, worker %d\n", (int)broker_keeper(),
	       (int)broker_worker());

	act_configuration();
	act_ledger();
	act_flights();
	act_handlers();
	act_queue();
	act_inbox();
	act_session();
	act_broker();

	act("The end: the broker is told to stop");
	broker_stop();

	printf("\n%s, %.1f s\n", all_held() ? "demo ok: everything held" : "demo FAILED",
	       (double)(now_ns() - started) / 1e9);
	return all_held() ? 0 : 1;
}
