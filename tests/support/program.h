/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_PROGRAM_H
#define TESTS_SUPPORT_PROGRAM_H

/*
 * One run of a program: what it is given, what it prints, how it ends.  It dies with the thread
 * that started it.
 */

#include <stddef.h>
#include <sys/types.h>

struct program {
	pid_t pid; /* 0: it has ended */
	int out_fd, err_fd;
	int status; /* once it has ended: its exit status, or 128 + signal */
	char *out, *err;
	size_t out_size, err_size; /* a 0 follows */
};

/* $IPC_TEST_CTL, else the one of this build. */
const char *program_ctl(void);

/* path is searched in PATH if it has no slash; argv: NULL-terminated. */
void program_start(struct program *program, const char *path, const char *const *argv,
		   const void *input, size_t input_size);

/* ipcctl with --address (NULL: without) and these arguments, NULL-terminated. */
void program_start_ctl(struct program *program, const char *address, const char *const *args,
		       const void *input, size_t input_size);

/* Waits for its end, at most ms; aborts then. */
void program_end(struct program *program, unsigned ms);

/* What it has printed to standard error so far. */
size_t program_err_size(const struct program *program);

/* Gives back what program_end() made. */
void program_forget(struct program *program);

#endif
