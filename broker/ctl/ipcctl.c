/* SPDX-License-Identifier: MIT */

/*
 * The command line of ipcctl(1).  It reaches a domain through the public interface alone.  A
 * command that looks never starts a broker: it must not change what it looks at.
 */

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ipc/error.h>
#include <ipc/time.h>

#include "broker/ctl/ctl.h"
#include "broker/ctl/quantity.h"

/* What a command has. */
#define HAS_JSON  1u
#define HAS_OVER  2u /* --over, which must be given */
#define HAS_TABLE 4u
#define HAS_RUN   8u  /* -- COMMAND, which must be given; the status is that of COMMAND */
#define HAS_COUNT 16u /* the second word is a number */

struct command {
	const char *name;
	unsigned n_args_min, n_args_max;
	unsigned has;
	const char *missing; /* what the least argument is */
	int (*run)(const struct ctl *ctl);
};

static const struct command commands[] = {
	{"list", 0, 1, HAS_JSON, "", ctl_list},
	{"stat", 1, 1, HAS_JSON, "a name", ctl_stat},
	{"handles", 1, 1, HAS_JSON, "a name", ctl_handles},
	{"waits", 0, 1, HAS_JSON, "", ctl_waits},
	{"stalled", 0, 1, HAS_JSON | HAS_OVER, "", ctl_stalled},
	{"get", 1, 1, 0, "a name", ctl_get},
	{"set", 1, 1, 0, "a name", ctl_set},
	{"remove", 1, 1, 0, "a name", ctl_remove},
	{"once", 1, 1, HAS_TABLE | HAS_RUN, "a key", ctl_once},
	{"limit", 2, 2, HAS_RUN | HAS_COUNT, "a name or a number", ctl_limit},
};

struct line {
	struct ctl ctl;
	const struct command *command;
	unsigned n_args;
	bool has_over;
	struct timespec deadline;
};

/* What a failure ends with. */
static int status_failed = CTL_EXIT_FAILED;

int ctl_fail(const char *what, int result)
{
	fflush(stdout);
	fprintf(stderr, "ipcctl: %s: %s (%s)\n", what, ipc_error_text(result),
		ipc_error_name(result));
	return result == IPC_ETIMEDOUT ? CTL_EXIT_TIMEDOUT : status_failed;
}

int ctl_fail_errno(const char *what, int error)
{
	return ctl_fail_text(what, strerror(error));
}

int ctl_fail_text(const char *what, const char *text)
{
	fflush(stdout);
	fprintf(stderr, "ipcctl: %s: %s\n", what, text);
	return status_failed;
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

static void parse_over(struct line *line, const char *text, struct argp_state *state)
{
	if (quantity_parse_time(text, &line->ctl.over_ns) < 0)
		argp_error(state, "--over: '%s' is not a time as 5s, 250ms, 1.5h", text);
	line->has_over = true;
}

static void parse_count(struct line *line, const char *text, struct argp_state *state)
{
	unsigned long long count;
	char *end;

	errno = 0;
	count = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno || count < 1 ||
	    count > UINT32_MAX)
		argp_error(state, "%s: '%s' is not a number from 1 to %u", line->command->name,
			   text, UINT32_MAX);
	line->ctl.count = (uint32_t)count;
}

static void parse_word(struct line *line, const char *word, struct argp_state *state)
{
	if (line->command) {
		if (line->n_args == line->command->n_args_max)
			argp_error(state, "%s: too many arguments: '%s'", line->command->name,
				   word);
		if (line->n_args == 1 && line->command->has & HAS_COUNT)
			parse_count(line, word, state);
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

/* A word of the command line.  What follows "--" is not ours, if the command runs another one. */
static void parse_argument(struct line *line, const char *word, struct argp_state *state)
{
	if (state->quoted && line->command && line->command->has & HAS_RUN) {
		line->ctl.run = state->argv + state->next - 1;
		state->next = state->argc;
		return;
	}
	parse_word(line, word, state);
}

static void parse_end(const struct line *line, struct argp_state *state)
{
	const struct command *command = line->command;

	if (!command) {
		argp_error(state, "a command is missing");
		return;
	}

	if (line->n_args < command->n_args_min)
		argp_error(state, "%s: %s is missing", command->name, command->missing);
	if (line->ctl.json && !(command->has & HAS_JSON))
		argp_error(state, "%s: has no --json", command->name);
	if (line->has_over != !!(command->has & HAS_OVER))
		argp_error(state, "%s: %s --over", command->name,
			   line->has_over ? "has no" : "needs");
	if (line->ctl.table && !(command->has & HAS_TABLE))
		argp_error(state, "%s: has no --table", command->name);
	if (!line->ctl.run && command->has & HAS_RUN)
		argp_error(state, "%s: '-- COMMAND' is missing", command->name);
	if (line->n_args && line->ctl.args[0][0] == '\0' && command->has & HAS_RUN)
		argp_error(state, "%s: %s is missing: it is empty", command->name,
			   command->missing);
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
	case 'o':
		parse_over(line, arg, state);
		return 0;
	case 't':
		parse_timeout(line, arg, state);
		return 0;
	case 'T':
		line->ctl.table = arg;
		return 0;
	case ARGP_KEY_ARG:
		parse_argument(line, arg, state);
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
	{"json", 'j', NULL, 0, "Print one JSON document (list, stat, handles, waits, stalled)", 0},
	{"over", 'o', "TIME", 0, "stalled: longer than that: 5s, 250ms, 1.5h", 0},
	{"table", 'T', "NAME", 0, "once: the table of keys (ipcctl.once.UID)", 0},
	{"timeout", 't', "SECONDS", 0, "Give up after that time, with status 124", 0},
	{NULL, 0, NULL, 0, NULL, 0},
};

static const struct argp argp = {
	.options = options,
	.parser = parse,
	.args_doc = "COMMAND [ARG]\nonce KEY -- PROGRAM [ARG...]\nlimit NAME N -- PROGRAM [ARG...]",
	.doc = "Look at the channels of a domain, change them, and use them from the shell.\v"
	       "Commands:\n"
	       "  list [PATTERN]   all channels, or those whose names match\n"
	       "  stat NAME        one channel, in full\n"
	       "  handles NAME     who has a channel open, holds it, waits for it\n"
	       "  waits [PATTERN]  who waits for whom, over all channels; cycles are marked\n"
	       "  stalled --over TIME [PATTERN]\n"
	       "                   who holds a lock, a lead or permits for longer than that\n"
	       "  get NAME         the latest value of a watch, to standard output\n"
	       "  set NAME         publish standard input as the value of a watch\n"
	       "  remove NAME      take the name away from a channel\n"
	       "  once KEY -- PROGRAM [ARG...]\n"
	       "                   of all who call this at a time one runs the program; all\n"
	       "                   print its output and end with its status\n"
	       "  limit NAME N -- PROGRAM [ARG...]\n"
	       "                   run the program while holding one of N permits\n"
	       "\n"
	       "Status: 0 done, 1 failed, 2 wrong usage, 124 timed out; once, limit: that of the "
	       "program, 125 own failure.  See ipcctl(1).",
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
	uint64_t flags = line->command->has & HAS_RUN ? 0 : IPC_CLIENT_NO_AUTOSTART;
	struct ctl *ctl = &line->ctl;
	char shown[PATH_MAX];
	int r;

	r = ipc_client_connect_wait(&ctl->client,
				    IPC_CLIENT_OPTIONS(.flags = flags, .address = ctl->address),
				    ctl->deadline);
	if (r < 0) {
		address_show(shown, ctl->address);
		return ctl_fail(shown, r);
	}

	r = line->command->run(ctl);
	ipc_client_unref(ctl->client);
	return r;
}

/* What is opened later must not become standard output because that was closed.  Writing to what
 * is put in its place fails as writing to the closed one. */
static void standard_fds_occupy(void)
{
	for (int fd = 0; fd <= STDERR_FILENO; ++fd) {
		if (fcntl(fd, F_GETFD) < 0)
			(void)open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
	}
}

int main(int argc, char **argv)
{
	struct line line = {0};
	int status;

	standard_fds_occupy();
	argp_err_exit_status = CTL_EXIT_USAGE;
	argp_program_version_hook = print_version;
	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &line) != 0)
		return CTL_EXIT_USAGE;
	if (line.command->has & HAS_RUN)
		status_failed = CTL_EXIT_OWN;

	status = connect_and_run(&line);

	/* What did not get out was not done: a full disk, a closed pipe. */
	if (fclose(stdout) != 0 && status == 0)
		return ctl_fail_errno("standard output", errno);
	return status;
}
