/* SPDX-License-Identifier: MIT */
#include "broker/ctl/screen.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "broker/ctl/spool.h"

/* The other screen, without a cursor, empty; and back. */
#define ENTER "\033[?1049h\033[?25l\033[H\033[2J"
#define LEAVE "\033[?25h\033[?1049l"

/* Each of them ends the process unless it is named in screen_signal(). */
static const int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGCONT, SIGWINCH};

/* ---- to the other screen and back ---- */

static int screen_enter(struct screen *screen)
{
	struct termios keys = screen->before;

	/* Keys come at once and are not shown; those that send signals still do. */
	keys.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	keys.c_cc[VMIN] = 1;
	keys.c_cc[VTIME] = 0;
	if (screen->has_keys && tcsetattr(STDIN_FILENO, TCSADRAIN, &keys) < 0)
		return errno;

	screen->is_entered = true;
	return spool_write_bytes(STDOUT_FILENO, ENTER, strlen(ENTER));
}

static void screen_leave(struct screen *screen)
{
	if (!screen->is_entered)
		return;

	screen->is_entered = false;
	(void)!spool_write_bytes(STDOUT_FILENO, LEAVE, strlen(LEAVE));
	if (screen->has_keys)
		(void)tcsetattr(STDIN_FILENO, TCSADRAIN, &screen->before);
}

int screen_init(struct screen *screen)
{
	const char *term = getenv("TERM");
	bool is_dumb = !term || strcmp(term, "dumb") == 0;
	sigset_t set;
	int error;

	*screen = (struct screen){.signal_fd = -1};
	screen->is_live = isatty(STDOUT_FILENO) && !is_dumb;
	if (!screen->is_live)
		return 0;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); ++i)
		sigaddset(&set, signals[i]);
	screen->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (screen->signal_fd < 0)
		return errno;

	/* One that is ignored, as after nohup(1), is taken all the same, and then passed to
	 * nothing. */
	sigprocmask(SIG_BLOCK, &set, &screen->mask_before);
	screen->has_keys = tcgetattr(STDIN_FILENO, &screen->before) == 0;
	error = screen_enter(screen);
	if (error)
		screen_deinit(screen);
	return error;
}

void screen_deinit(struct screen *screen)
{
	screen_leave(screen);
	if (screen->signal_fd < 0)
		return;

	close(screen->signal_fd);
	screen->signal_fd = -1;
	sigprocmask(SIG_SETMASK, &screen->mask_before, NULL);
}

/* ---- drawing ---- */

static void screen_size(unsigned *ret_width, unsigned *ret_height)
{
	struct winsize size;
	bool is_known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col && size.ws_row;

	*ret_width = is_known ? size.ws_col : 80;
	*ret_height = is_known ? size.ws_row : 24;
}

/* In one piece, so that nothing flickers: each line is followed by what clears the rest of it. */
static int screen_draw(const char *page)
{
	unsigned width, height, row = 0;
	size_t size;
	char *text;
	FILE *file;
	int error;

	file = open_memstream(&text, &size);
	if (!file)
		return errno;

	screen_size(&width, &height);
	fputs("\033[H", file);
	while (*page && row < height) {
		size_t length = strcspn(page, "\n");

		/* The cursor stays in the last line: a new one would push the first one out. */
		fprintf(file, "%s%.*s\033[K", row ? "\r\n" : "",
			(int)(length < width ? length : width), page);
		page += length + (page[length] == '\n');
		++row;
	}
	fputs("\033[J", file);

	error = fclose(file) == 0 ? 0 : errno;
	if (!error)
		error = spool_write_bytes(STDOUT_FILENO, text, size);
	free(text);
	return error;
}

int screen_show(struct screen *screen, const char *page)
{
	return screen->is_live ? screen_draw(page)
			       : spool_write_bytes(STDOUT_FILENO, page, strlen(page));
}

/* ---- waiting ---- */

/* What the signal does by default, which may be to end this process. */
static void signal_pass(int number)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, number);
	(void)raise(number);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

static enum screen_event screen_signal(struct screen *screen, int number)
{
	if (number == SIGWINCH)
		return SCREEN_AGAIN;

	/* After SIGCONT the terminal is as whoever had it meanwhile has left it. */
	if (number != SIGCONT) {
		screen_leave(screen);
		signal_pass(number);
	}
	return screen_enter(screen) == 0 ? SCREEN_AGAIN : SCREEN_END;
}

/* -1: for ever is not asked for; what poll() can take. */
static int milliseconds_until(uint64_t until_ns)
{
	struct timespec now;
	uint64_t now_ns, ms;

	clock_gettime(CLOCK_MONOTONIC, &now);
	now_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	if (now_ns >= until_ns)
		return 0;

	ms = (until_ns - now_ns + 999999) / 1000000;
	return ms < 60000 ? (int)ms : 60000;
}

enum screen_event screen_wait(struct screen *screen, uint64_t until_ns, char *ret_key)
{
	struct signalfd_siginfo info;
	struct pollfd fds[2] = {
		{.fd = screen->signal_fd, .events = POLLIN},
		{.fd = screen->has_keys ? STDIN_FILENO : -1, .events = POLLIN},
	};
	int ms;

	do {
		ms = milliseconds_until(until_ns);
		if (poll(fds, 2, ms) <= 0)
			continue;

		if (fds[0].revents && read(screen->signal_fd, &info, sizeof(info)) == sizeof(info))
			return screen_signal(screen, (int)info.ssi_signo);
		if (fds[1].revents)
			return read(STDIN_FILENO, ret_key, 1) == 1 ? SCREEN_KEY : SCREEN_END;
	} while (ms > 0);

	return SCREEN_TIME;
}
