/* SPDX-License-Identifier: MIT */
#ifndef BROKER_LOG_H
#define BROKER_LOG_H

/*
 * One line to standard error per event, formatted into a buffer and written with write(2) (no
 * stdio: the sandbox kills what stdio probes with).
 * "<N>" in front when standard error is the journal ($JOURNAL_STREAM).
 *
 * A reader of our standard error that sleeps must not stop the broker: a line for which a pipe has
 * no room is dropped and counted, and the next line tells how many were.
 */

#include "broker/config.h"

void log_init(enum log_level level);
void log_set_level(enum log_level level);

/* Control characters in what is formatted become '?': one event is one line, whatever a client
 * called itself.  Cut at 1,000 bytes. */
void log_line(enum log_level level, const char *format, ...)
	__attribute__((__format__(__printf__, 2, 3)));

#endif
