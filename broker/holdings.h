/* SPDX-License-Identifier: MIT */
#ifndef BROKER_HOLDINGS_H
#define BROKER_HOLDINGS_H

/*
 * The descriptors that the keeper holds for its workers.
 *
 * Entry i of the table is descriptor 3 + i and not close-on-exec, always: so a worker inherits them
 * as they are, and a restart costs no call for each of them.  A received descriptor gets the lowest
 * free number, which is the right one already, as long as the keeper's own ones are out of the way:
 * holdings_raise().
 */

#include <sys/types.h>

#include "broker/fdstore.h"

#define HOLDINGS_FD_FIRST 3

/* As many descriptors as this process may have, root more than that; before the first of the
 * others.  How many that are. */
unsigned holdings_init_limit(void);

/* With less a broker has no room for a few clients and channels beside what it needs itself. */
#define HOLDINGS_LIMIT_MIN 256

/* Moves one of the keeper's own descriptors up, close-on-exec; its new number, or the old one if
 * there is no room.  -1 stays. */
int holdings_raise(int fd);

/* Becomes the owner of fd, also if it fails.  Its number now; -1: full, or no legal name (which is
 * logged).  A name that is there gets the new descriptor. */
int holdings_add(struct fdstore *table, const char *name, int fd);

/* Closes it.  Nothing happens if there is no such name. */
void holdings_remove(struct fdstore *table, const char *name);

/* Closes all. */
void holdings_clear(struct fdstore *table);

#endif
