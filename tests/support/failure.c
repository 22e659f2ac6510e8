/* SPDX-License-Identifier: MIT */
#include "tests/support/failure.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void (*registered)(void);
static pid_t registered_pid;

static void run_registered(void)
{
	void (*fn)(void) = registered;

	if (!fn || registered_pid != getpid())
		return;

	registered = NULL; /* it may fail itself */
	fn();
}

void failure_register(void (*fn)(void))
{
	if (!registered_pid)
		atexit(run_registered);

	registered = fn;
	registered_pid = getpid();
}

void failure(const char *format, ...)
{
	va_list arguments;

	fprintf(stderr, "support (pid %d): ", (int)getpid());
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);

	run_registered();
	abort();
}
