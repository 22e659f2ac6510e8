/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_FAILURE_H
#define TESTS_SUPPORT_FAILURE_H

/*
 * What the support code does when it cannot go on: one line, the logs of the running brokers,
 * abort().  It knows no test framework, so that forked children and plain programs can use it as
 * well.
 */

void failure(const char *format, ...) __attribute__((__noreturn__, __format__(__printf__, 1, 2)));

/* A file that is shown when something fails: by failure(), and when the process exits with the file
 * still here (a failed assertion skips the tidy end). */
void failure_log_add(const char *path);
void failure_log_remove(const char *path);

#endif
