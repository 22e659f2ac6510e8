/* SPDX-License-Identifier: MIT */
#ifndef BROKER_SPARE_H
#define BROKER_SPARE_H

/*
 * The spare keeper: a forked copy of the keeper that sleeps until the keeper is dead (M-6: killing
 * either keeper or worker is unnoticed).
 *
 * A sandboxed worker cannot start processes, so the process that follows a dead keeper must be
 * there before.  It holds the lock of the domain and one end of a socket pair (the handover) whose
 * other end the keeper and each worker have; nothing else, above all no descriptor of a client.
 *
 * who dies     what happens
 * worker       nothing here: the keeper starts the next one
 * keeper       the worker sends all its descriptors over the handover, and ends (store.c); the
 *              spare starts a worker and a spare: it is the keeper now
 * spare        the keeper starts another
 * worker and   the handover ends without "that was everything": the domain has ended; the spare
 * keeper       removes the socket and ends
 *
 * The spare is no child of the keeper, so nobody takes it for the worker; the keeper holds it by a
 * leash (a socket pair): a byte sends it away, the end of the stream tells its death.  ps shows it
 * as "ipc-spare": what is sent to the keeper by name does not reach it.
 */

#include <stdbool.h>

#include "broker/fdstore.h"

/* Like fork(): 1 in the keeper, 0 in the spare, each with its end of the leash; -1 and errno. */
int spare_start(int *ret_leash_fd);

/*
 * In the spare: sleeps until keeper and worker are gone.  True: the worker gave everything, it is
 * in *store (empty before).  False: it did not.  Does not return when the keeper sends the spare
 * away.
 */
bool spare_wait(int leash_fd, int handover_fd, struct fdstore *store);

/* Sends the spare away and waits, a second at most, until it has ended.  Returns -1. */
int spare_end(int leash_fd);

#endif
