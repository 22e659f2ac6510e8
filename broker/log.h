/* SPDX-License-Identifier: MIT */
#ifndef BROKER_LOG_H
#define BROKER_LOG_H

/*
 * One line to standard error per event, formatted into a buffer and written with write(2) (no stdio: the sandbox kills what stdio probes with).
 * "<N>" in front when standard error is the journal ($JOURNAL_STREAM).
 */

#include "broker/config.h"

void log_init(enum log_level level);
void log_set_level(enum log_level level);
void log_line(enum log_level level, const char *format, ...) __attribute__((__format__(__printf__, 2, 3)));

#endif
