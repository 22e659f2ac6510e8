/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_FAILURE_H
#define TESTS_SUPPORT_FAILURE_H

/*
 * What the support code does when it cannot go on: one line, what was registered, abort().  It
 * knows no test framework, so that forked children and plain programs can use it as well.
 */

void failure(const char *format, ...) __attribute__((__noreturn__, __format__(__printf__, 1, 2)));

/*
 * fn runs once, in the registering process alone: in failure(), or when the process exits; a failed
 * assertion skips everything between.  One function; a forked child may register anew.
 */
void failure_register(void (*fn)(void));

#endif
