/* SPDX-License-Identifier: MIT */

/*
 * The command line of ipcctl(1).  It reaches a domain through the public interface alone, and never
 * starts one: a tool that looks must not change what it looks at.
 */

#include <argp.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ipc/error.h>
#include <ipc/time.h>

#include "broker/ctl/ctl.h"

struct command {
	const char *name;
	unsigned n_args_min, n_args_max;
	bool has_json;
	int (*run)(const struct ctl *ctl);
};

static const struct command commands[] = {
	{"list", 0, 1, true, ctl_list},      {"stat", 1, 1, true, ctl_stat},
	{"get", 1, 1, false, ctl_get},       {"set", 1, 1, false, ctl_set},
	{"remove", 1, 1, false, ctl_remove},
};

struct line {
	struct ctl ctl;
	const struct command *command;
	unsigned n_args;
	struct timespec deadline;
};

int ctl_fail(const char *what, int result)
{
	fflush(stdout);
	fprintf(stderr, "ipcctl: %s: %s (%s)\n", what, ipc_error_text(result),
		ipc_error_name(result));
	return result == IPC_ETIMEDOUT ? CTL_EXIT_TIMEDOUT : CTL_EXIT_FAILED;
}

int ctl_fail_errno(const char *what, int error)
{
	fflush(stdout);
	fprintf(stderr, "ipcctl: %s: %s\n", what, strerror(error));
	return CTL_EXIT_FAILED;
}

static void print_version(FILE *file, struct argp_state *state)
{
	uint32_t version = ipc_version();

	(void)state;
	fprintf(file, "ipcctl %u.%u.%u\n", version >> 16, version >> 8 & 0xff, version & 0xff);
}

static void parse_timeout(struct line *line, const char *text, struct argp_state *state)
{
	double seconds;
	char *end;

	errno = 0;
	seconds = strtod(text, &end);
	if (end == text || *end != '\0' || errno || !isfinite(seconds) || seconds < 0 ||
	    seconds > 1e9)
		argp_error(state, "--timeout: '%s' is not a number of seconds from 0 to 1000000000",
			   text);

	ipc_deadline_after(&line->deadline, (uint64_t)(seconds * 1e9));
	line->ctl.deadline = &line->deadline;
}

static void parse_word(struct line *line, const char *word, struct argp_state *state)
{
	if (line->command) {
		if (line->n_args == line->command->n_args_max)
			argp_error(state, "%s: too many arguments: '%s'", line->command->name,
				   word);
		line->ctl.args[line->n_args++] = word;
		return;
	}

	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); ++i) {
		if (strcmp(commands[i].name, word) == 0)
			line->command = &commands[i];
	}
	if (!line->command)
		argp_error(state, "there is no command '%s'", word);
}

static void parse_end(const struct line *line, struct argp_state *state)
{
	if (!line->command)
		argp_error(state, "a command is missing");
	if (line->n_args < line->command->n_args_min)
		argp_error(state, "%s: a name is missing", line->command->name);
	if (line->ctl.json && !line->command->has_json)
		argp_error(state, "%s: has no --json", line->command->name);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct line *line = state->input;

	switch (key) {
	case 'a':
		if (arg[0] == '\0')
			argp_error(state, "--address: the path is empty");
		line->ctl.address = arg;
		return 0;
	case 'j':
		line->ctl.json = true;
		return 0;
	case 't':
		parse_timeout(line, arg, state);
		return 0;
	case ARGP_KEY_ARG:
		parse_word(line, arg, state);
		return 0;
	case ARGP_KEY_END:
		parse_end(line, state);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_option options[] = {
	{"address", 'a', "PATH", 0, "Socket of the broker", 0},
	{"json", 'j', NULL, 0, "Print one JSON document (list, stat)", 0},
	{"timeout", 't', "SECONDS", 0, "Give up after that time, with status 124", 0},
	{NULL, 0, NULL, 0, NULL, 0},
};

static const struct argp argp = {
	.options = options,
	.parser = parse,
	.args_doc = "COMMAND [ARG]",
	.doc = "Look at the channels of a domain, and change them.\v"
	       "Commands:\n"
	       "  list [PATTERN]   all channels, or those whose names match\n"
	       "  stat NAME        one channel, in full\n"
	       "  get NAME         the latest value of a watch, to standard output\n"
	       "  set NAME         publish standard input as the value of a watch\n"
	       "  remove NAME      take the name away from a channel\n"
	       "\n"
	       "Status: 0 done, 1 failed, 2 wrong usage, 124 timed out.  See ipcctl(1).",
};

/* Where the library looked (ipc_client(3)), for people who wonder. */
static void address_show(char shown[PATH_MAX], const char *given)
{
	const char *broker = secure_getenv("IPC_BROKER");
	const char *runtime = secure_getenv("XDG_RUNTIME_DIR");

	if (given)
		snprintf(shown, PATH_MAX, "%s", given);
	else if (broker && broker[0] != '\0')
		snprintf(shown, PATH_MAX, "%s", broker);
	else if (runtime && runtime[0] == '/')
		snprintf(shown, PATH_MAX, "%s/ipc/broker", runtime);
	else
		snprintf(shown, PATH_MAX, "/run/ipc/broker");
}

static int connect_and_run(struct line *line)
{
	struct ctl *ctl = &line->ctl;
	char shown[PATH_MAX];
	int r;

	r = ipc_client_connect_wait(
		&ctl->client,
		IPC_CLIENT_OPTIONS(.flags = IPC_CLIENT_NO_AUTOSTART, .address = ctl->address),
		ctl->deadline);
	if (r < 0) {
		address_show(shown, ctl->address);
		return ctl_fail(shown, r);
	}

	r = line->command->run(ctl);
	ipc_client_unref(ctl->client);
	return r;
}

int main(int argc, char **argv)
{
	struct line line = {0};
	int status;

	argp_err_exit_status = CTL_EXIT_USAGE;
	argp_program_version_hook = print_version;
	if (argp_parse(&argp, argc, argv, 0, NULL, &line) != 0)
		return CTL_EXIT_USAGE;

	status = connect_and_run(&line);

	/* What did not get out was not done: a full disk, a closed pipe. */
	if (fclose(stdout) != 0 && status == 0)
		return ctl_fail_errno("standard output", errno);
	return status;
}
