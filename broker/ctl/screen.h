/* SPDX-License-Identifier: MIT */
#ifndef BROKER_CTL_SCREEN_H
#define BROKER_CTL_SCREEN_H

/*
 * A view that is drawn again and again, and the waiting between: upon a terminal its other screen,
 * which is left however this process ends, short of SIGKILL; else page after page, as text.
 *
 * From screen_init() to screen_deinit() signals that end or stop a process wait for
 * screen_wait(): who draws must not sleep for long elsewhere.
 */

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <termios.h>

struct screen {
	bool is_live; /* a terminal */
	bool has_keys;
	bool is_entered;
	struct termios before; /* if it has keys */
	sigset_t mask_before;
	int signal_fd;
};

enum screen_event {
	SCREEN_TIME,  /* the time has passed */
	SCREEN_KEY,   /* *ret_key */
	SCREEN_AGAIN, /* what was drawn is not there any more, or does not fit */
	SCREEN_END    /* of the input, that is of the terminal */
};

/* 0 or an errno. */
int screen_init(struct screen *screen);
void screen_deinit(struct screen *screen);

/* The page: lines, which a terminal shows as far as they fit.  0 or an errno. */
int screen_show(struct screen *screen, const char *page);

/* At most that long.  Does not return if a signal ends the process. */
enum screen_event screen_wait(struct screen *screen, uint64_t until_ns, char *ret_key);

#endif
