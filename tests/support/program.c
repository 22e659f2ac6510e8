/* SPDX-License-Identifier: MIT */
#include "tests/support/program.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/failure.h"
#include "tests/support/process.h"

#ifndef IPC_TEST_CTL
#define IPC_TEST_CTL "ipcctl"
#endif

#define ARGS_MAX 16

const char *program_ctl(void)
{
	const char *program = getenv("IPC_TEST_CTL");

	return program && program[0] != '\0' ? program : IPC_TEST_CTL;
}

static int stream_new(const char *name, const void *data, size_t size)
{
	int fd = memfd_create(name, MFD_CLOEXEC);

	if (fd < 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
		failure("%s: %s", name, strerror(errno));
	return fd;
}

static char *stream_take(int fd, size_t *ret_size)
{
	struct stat stat;
	char *text;

	if (fstat(fd, &stat) < 0)
		failure("fstat: %s", strerror(errno));
	text = calloc(1, (size_t)stat.st_size + 1);
	if (!text || pread(fd, text, (size_t)stat.st_size, 0) != stat.st_size)
		failure("what a program printed cannot be read");

	close(fd);
	*ret_size = (size_t)stat.st_size;
	return text;
}

void program_start(struct program *program, const char *path, const char *const *argv,
		   const void *input, size_t input_size)
{
	int in = stream_new("in", input, input_size);

	*program = (struct program){.out_fd = stream_new("out", "", 0),
				    .err_fd = stream_new("err", "", 0)};

	program->pid = process_fork();
	if (program->pid == 0) {
		if (dup2(in, 0) < 0 || dup2(program->out_fd, 1) < 0 || dup2(program->err_fd, 2) < 0)
			_exit(126);
		execvp(path, (char *const *)argv);
		_exit(127);
	}
	close(in);
}

void program_start_ctl(struct program *program, const char *address, const char *const *args,
		       const void *input, size_t input_size)
{
	const char *argv[ARGS_MAX + 4] = {"ipcctl"};
	unsigned n = 1;

	if (address) {
		argv[n++] = "--address";
		argv[n++] = address;
	}
	for (unsigned i = 0; i < ARGS_MAX && args[i]; ++i)
		argv[n++] = args[i];

	program_start(program, program_ctl(), argv, input, input_size);
}

void program_end(struct program *program, unsigned ms)
{
	program->status = process_reap(program->pid, ms);
	program->pid = 0;
	program->out = stream_take(program->out_fd, &program->out_size);
	program->err = stream_take(program->err_fd, &program->err_size);
}

size_t program_err_size(const struct program *program)
{
	struct stat stat;

	if (fstat(program->err_fd, &stat) < 0)
		failure("fstat: %s", strerror(errno));
	return (size_t)stat.st_size;
}

void program_forget(struct program *program)
{
	free(program->out);
	free(program->err);
	*program = (struct program){0};
}
