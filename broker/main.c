/* SPDX-License-Identifier: MIT */
/*
 * ipcbroker: the daemon of one domain.  What is started is the keeper; it starts the same
 * executable again as its worker.
 */

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ipc/version.h>

#include "broker/config.h"
#include "broker/keeper.h"
#include "broker/launch.h"
#include "broker/log.h"
#include "broker/worker.h"

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)

const char *argp_program_version = "ipcbroker " TEXT(IPC_VERSION_MAJOR) "." TEXT(
	IPC_VERSION_MINOR) "." TEXT(IPC_VERSION_PATCH);

enum {
	KEY_ADDRESS = 'a',
	KEY_CONFIG = 'c',
	KEY_AUTOSTART = 256,
	KEY_IDLE,
	KEY_NO_SANDBOX,
	KEY_LEVEL
};

static const struct argp_option option_list[] = {
	{"address", KEY_ADDRESS, "PATH", 0,
	 "Serve the domain of this socket, instead of $IPC_BROKER, $XDG_RUNTIME_DIR/ipc/broker or "
	 "/run/ipc/broker",
	 0},
	{"config", KEY_CONFIG, "FILE", 0,
	 "Read limits, idle time, grace time and log level from FILE; see ipcbroker.conf(5)", 0},
	{"autostart", KEY_AUTOSTART, NULL, 0,
	 "Started by a program that needs a broker: end when idle for 10 seconds; end at once, "
	 "successfully, if there is a broker",
	 0},
	{"idle", KEY_IDLE, "SECONDS", 0, "End after SECONDS without a client; 0: never", 0},
	{"no-sandbox", KEY_NO_SANDBOX, NULL, 0, "Run without seccomp filter and Landlock", 0},
	{"log-level", KEY_LEVEL, "LEVEL", 0, "One of " CONFIG_LEGAL_LEVELS, 0},
	{0},
};

static error_t option_parse(int key, char *value, struct argp_state *state)
{
	struct keeper_options *options = state->input;

	switch (key) {
	case KEY_ADDRESS:
		if (value[0] == '\0')
			argp_error(state, "--address: empty; legal: the path of a socket");
		options->address = value;
		return 0;
	case KEY_CONFIG:
		options->config = value;
		return 0;
	case KEY_AUTOSTART:
		options->autostart = true;
		return 0;
	case KEY_IDLE:
		options->has_idle = true;
		if (config_parse_seconds(value, &options->idle_ns) < 0)
			argp_error(state, "--idle: not \"%s\"; legal: " CONFIG_LEGAL_SECONDS,
				   value);
		return 0;
	case KEY_NO_SANDBOX:
		options->no_sandbox = true;
		return 0;
	case KEY_LEVEL:
		options->has_level = true;
		if (config_parse_level(value, &options->level) < 0)
			argp_error(state, "--log-level: not \"%s\"; legal: " CONFIG_LEGAL_LEVELS,
				   value);
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "%s: no arguments are taken", value);
		return EINVAL;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* A closed one would be the number of the first file that is opened. */
static void standard_open(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		(void)close(fd);
}

/*
 * The program that started us may end, be interrupted from its terminal, have its directory
 * unmounted, or have somebody read its output to the end: none of it shall wait for us, or end us.
 */
static void leave_starter(const struct keeper_options *options)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (fd >= 0) {
		(void)dup2(fd, STDIN_FILENO);
		(void)dup2(fd, STDOUT_FILENO);
		(void)close(fd);
	}
	(void)setsid();
	if ((!options->address || options->address[0] == '/') &&
	    (!options->config || options->config[0] == '/'))
		(void)!chdir("/");
}

static int worker_main(const struct keeper_options *options)
{
	struct worker_options worker = {.no_sandbox = options->no_sandbox,
					.autostarted = options->autostart};
	sigset_t set;
	int status;

	/* As the keeper blocked them, without SIGCHLD. */
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGHUP);
	(void)sigaddset(&set, SIGUSR2);
	(void)sigprocmask(SIG_SETMASK, &set, NULL);

	/* Its comm is the last part of what was executed, "exe". */
	launch_set_title(NULL, "ipcbroker");
	status = worker_run(&worker);

	/* What runs at exit (of sanitizers, of coverage) is not allowed in the sandbox. */
	if (!options->no_sandbox)
		_exit(status);
	return status;
}

int main(int argc, char **argv)
{
	struct keeper_options options = {.level = LOG_LEVEL_NOTICE, .argv = argv};
	static const struct argp argp = {
		option_list,
		option_parse,
		NULL,
		"Serves shared-memory channels to the processes of this machine.\vSee "
		"ipcbroker(8).",
		NULL,
		NULL,
		NULL,
	};

	standard_open();
	(void)signal(SIGPIPE, SIG_IGN);

	argp_err_exit_status = KEEPER_EXIT_USAGE;
	if (argp_parse(&argp, argc, argv, 0, NULL, &options) != 0)
		return KEEPER_EXIT_USAGE;
	log_init(options.level);

	if (keeper_is_parent())
		return worker_main(&options);

	if (options.autostart)
		leave_starter(&options);
	return keeper_run(&options);
}
