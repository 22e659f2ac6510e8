/* SPDX-License-Identifier: MIT */

/*
 * The command line of ipcctl(1).  It reaches a domain through the public interface alone.  A
 * command that looks never starts a broker: it must not change what it looks at.
 */

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
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
#define HAS_JSON     1u
#define HAS_OVER     2u
#define NEEDS_OVER   4u /* with HAS_OVER: it must be given */
#define HAS_TABLE    8u
#define HAS_RUN      16u /* -- COMMAND, which must be given; the status is that of COMMAND */
#define HAS_PERMITS  32u /* the second word is a number */
#define HAS_ITEMS    64u /* --null, --create and the shape of what is made then */
#define HAS_PRIORITY 128u
#define HAS_COUNT    256u
#define HAS_WAIT     512u
#define HAS_VIEW     1024u /* --interval, --sort */
#define OVER_DEFAULT UINT64_C(5000000000)

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
	{"top", 0, 1, HAS_OVER | HAS_COUNT | HAS_VIEW, "", ctl_top},
	{"stalled", 0, 1, HAS_JSON | HAS_OVER | NEEDS_OVER, "", ctl_stalled},
	{"get", 1, 1, 0, "a name", ctl_get},
	{"set", 1, 1, 0, "a name", ctl_set},
	{"push", 1, 1, HAS_ITEMS | HAS_PRIORITY, "a name", ctl_push},
	{"take", 1, 1, HAS_JSON | HAS_ITEMS | HAS_COUNT | HAS_WAIT, "a name", ctl_take},
	{"remove", 1, 1, 0, "a name", ctl_remove},
	{"once", 1, 1, HAS_TABLE | HAS_RUN, "a key", ctl_once},
	{"limit", 2, 2, HAS_RUN | HAS_PERMITS, "a name or a number", ctl_limit},
};

/* Options without a letter. */
enum { KEY_ITEMS = 256, KEY_BYTES, KEY_PRIORITIES, KEY_DEAD_LETTERS };

static const struct argp_option options[] = {
	{"address", 'a', "PATH", 0, "Socket of the broker", 0},
	{"bytes", KEY_BYTES, "SIZE", 0, "with --create: bytes of each priority (1MiB)", 0},
	{"count", 'n', "N", 0, "take: at most so many items (1); top: so many pages", 0},
	{"create", 'c', NULL, 0, "push, take: make the queue if there is none, to be kept", 0},
	{"dead-letters", KEY_DEAD_LETTERS, "NAME", 0, "with --create: its queue of dead letters",
	 0},
	{"interval", 'i', "TIME", 0, "top: between two pages (2s)", 0},
	{"items", KEY_ITEMS, "N", 0, "with --create: items of each priority (1024)", 0},
	{"json", 'j', NULL, 0,
	 "Print one JSON document (list, stat, handles, waits, stalled, take)", 0},
	{"null", '0', NULL, 0, "push, take: items end with a null byte, not a new line", 0},
	{"over", 'o', "TIME", 0, "stalled, top: longer than that: 5s, 250ms, 1.5h", 0},
	{"policy", 'P', "POLICY", 0,
	 "push: do not wait for room: fail, drop or dead-letter what has none", 0},
	{"priorities", KEY_PRIORITIES, "N", 0, "with --create: how many there are (2)", 0},
	{"priority", 'p', "N", 0, "push: of the items; 0 is the highest (0)", 0},
	{"sort", 's', "ORDER", 0, "top: by name, depth, change, in, out, waiters or held (name)",
	 0},
	{"table", 'T', "NAME", 0, "once: the table of keys (ipcctl.once.UID)", 0},
	{"timeout", 't', "SECONDS", 0, "Give up after that time, with status 124", 0},
	{"wait", 'w', NULL, 0, "take: wait for items", 0},
	{NULL, 0, NULL, 0, NULL, 0},
};

/* Whose they are; the others are everybody's. */
static const struct option_use {
	int key;
	unsigned has;
} option_uses[] = {
	{'j', HAS_JSON},
	{'o', HAS_OVER},
	{'T', HAS_TABLE},
	{'n', HAS_COUNT},
	{'w', HAS_WAIT},
	{'i', HAS_VIEW},
	{'s', HAS_VIEW},
	{'0', HAS_ITEMS},
	{'p', HAS_PRIORITY},
	{'P', HAS_PRIORITY},
	{'c', HAS_ITEMS},
	{KEY_ITEMS, HAS_ITEMS},
	{KEY_BYTES, HAS_ITEMS},
	{KEY_PRIORITIES, HAS_ITEMS},
	{KEY_DEAD_LETTERS, HAS_ITEMS},
};
#define N_OPTION_USES (sizeof(option_uses) / sizeof(option_uses[0]))

struct line {
	struct ctl ctl;
	const struct command *command;
	unsigned n_args;
	unsigned given; /* bit i: option_uses[i] */
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
}

static uint64_t parse_number(const char *what, const char *text, uint64_t min, uint64_t max,
			     struct argp_state *state)
{
	unsigned long long number;
	char *end;

	errno = 0;
	number = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno || number < min || number > max)
		argp_error(state, "%s: '%s' is not a number from %" PRIu64 " to %" PRIu64, what,
			   text, min, max);
	return number;
}

static void parse_bytes(struct line *line, const char *text, struct argp_state *state)
{
	if (quantity_parse_bytes(text, &line->ctl.shape.bytes_max) < 0 ||
	    line->ctl.shape.bytes_max == 0)
		argp_error(state, "--bytes: '%s' is not a size as 4096, 64KiB, 1MiB", text);
}

static void parse_interval(struct line *line, const char *text, struct argp_state *state)
{
	if (quantity_parse_time(text, &line->ctl.interval_ns) < 0 ||
	    line->ctl.interval_ns < 10000000)
		argp_error(state, "--interval: '%s' is not a time of at least 10ms", text);
}

static void parse_policy(struct line *line, const char *text, struct argp_state *state)
{
	static const char *const names[] = {
		[IPC_FULL_FAIL] = "fail",
		[IPC_FULL_DROP] = "drop",
		[IPC_FULL_DEAD_LETTER] = "dead-letter",
	};

	for (int i = 0; i < 3; ++i) {
		if (strcmp(names[i], text) == 0) {
			line->ctl.policy = i;
			return;
		}
	}
	argp_error(state, "--policy: '%s' is not one of fail, drop, dead-letter", text);
}

static void parse_word(struct line *line, const char *word, struct argp_state *state)
{
	if (line->command) {
		if (line->n_args == line->command->n_args_max)
			argp_error(state, "%s: too many arguments: '%s'", line->command->name,
				   word);
		if (line->n_args == 1 && line->command->has & HAS_PERMITS)
			line->ctl.n_permits =
				(uint32_t)parse_number("limit", word, 1, UINT32_MAX, state);
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

static bool is_given(const struct line *line, int key)
{
	for (size_t i = 0; i < N_OPTION_USES; ++i) {
		if (option_uses[i].key == key)
			return line->given & 1u << i;
	}
	return false;
}

static void note_given(struct line *line, int key)
{
	for (size_t i = 0; i < N_OPTION_USES; ++i) {
		if (option_uses[i].key == key)
			line->given |= 1u << i;
	}
}

static const char *option_name(int key)
{
	const struct argp_option *option = options;

	while (option->key != key)
		++option;
	return option->name;
}

static void parse_end_options(const struct line *line, struct argp_state *state)
{
	const struct command *command = line->command;

	for (size_t i = 0; i < N_OPTION_USES; ++i) {
		const struct option_use *use = &option_uses[i];

		if (!(line->given & 1u << i))
			continue;
		if (!(command->has & use->has))
			argp_error(state, "%s: has no --%s", command->name, option_name(use->key));
		if (use->key >= KEY_ITEMS && !line->ctl.creates)
			argp_error(state, "--%s: is for what --create makes",
				   option_name(use->key));
	}

	if (command->has & NEEDS_OVER && !is_given(line, 'o'))
		argp_error(state, "%s: needs --over", command->name);
	if (line->ctl.has_null && line->ctl.json)
		argp_error(state, "%s: --null and --json exclude each other", command->name);
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
	parse_end_options(line, state);
	if (!line->ctl.run && command->has & HAS_RUN)
		argp_error(state, "%s: '-- COMMAND' is missing", command->name);
	if (line->n_args && line->ctl.args[0][0] == '\0' && command->has & HAS_RUN)
		argp_error(state, "%s: %s is missing: it is empty", command->name,
			   command->missing);
}

/* One of the options that only some commands have. */
static error_t parse_option(int key, char *arg, struct line *line, struct argp_state *state)
{
	struct ctl *ctl = &line->ctl;

	switch (key) {
	case 'j':
		ctl->json = true;
		return 0;
	case 'o':
		parse_over(line, arg, state);
		return 0;
	case 'T':
		ctl->table = arg;
		return 0;
	case 'n':
		ctl->count = parse_number("--count", arg, 1, UINT32_MAX, state);
		return 0;
	case 'w':
		ctl->waits = true;
		return 0;
	case 'i':
		parse_interval(line, arg, state);
		return 0;
	case 's':
		if (!top_has_order(arg))
			argp_error(state, "--sort: there is no order '%s'", arg);
		ctl->sort = arg;
		return 0;
	case '0':
		ctl->has_null = true;
		return 0;
	case 'p':
		ctl->priority =
			(unsigned)parse_number("--priority", arg, 0, IPC_PRIORITIES_MAX - 1, state);
		return 0;
	case 'P':
		parse_policy(line, arg, state);
		return 0;
	case 'c':
		ctl->creates = true;
		return 0;
	case KEY_ITEMS:
		ctl->shape.items_max = (uint32_t)parse_number("--items", arg, 1, UINT32_MAX, state);
		return 0;
	case KEY_BYTES:
		parse_bytes(line, arg, state);
		return 0;
	case KEY_PRIORITIES:
		ctl->shape.priorities =
			(uint32_t)parse_number("--priorities", arg, 1, IPC_PRIORITIES_MAX, state);
		return 0;
	case KEY_DEAD_LETTERS:
		ctl->shape.dead_letters = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
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
	case 't':
		parse_timeout(line, arg, state);
		return 0;
	case ARGP_KEY_ARG:
		parse_argument(line, arg, state);
		return 0;
	case ARGP_KEY_END:
		parse_end(line, state);
		return 0;
	default:
		note_given(line, key);
		return parse_option(key, arg, line, state);
	}
}

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
	       "  top [PATTERN]    all of this as it changes: q ends it\n"
	       "  stalled --over TIME [PATTERN]\n"
	       "                   who holds a lock, a lead or permits for longer than that\n"
	       "  get NAME         the latest value of a watch, to standard output\n"
	       "  set NAME         publish standard input as the value of a watch\n"
	       "  push NAME        push standard input to a queue, an item a line\n"
	       "  take NAME        take items from a queue to standard output\n"
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
	struct line line = {
		.ctl = {.over_ns = OVER_DEFAULT, .policy = -1, .shape = IPC_QUEUE_OPTIONS_INIT},
	};
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
