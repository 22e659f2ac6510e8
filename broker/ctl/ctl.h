/* SPDX-License-Identifier: MIT */
#ifndef BROKER_CTL_CTL_H
#define BROKER_CTL_CTL_H

/*
 * ipcctl(1): what its commands have in common.  A command is a function that gets the connected
 * client and the words of the command line, and returns the exit status.
 */

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include <ipc/queue.h>

#define CTL_EXIT_FAILED   1
#define CTL_EXIT_USAGE    2
#define CTL_EXIT_TIMEDOUT 124
#define CTL_EXIT_OWN      125 /* what 1 is elsewhere, where the status is a program's */

struct ctl {
	ipc_client *client;
	const char *address;             /* as given; NULL: the library's own rules */
	const struct timespec *deadline; /* NULL: for ever */
	bool json;
	uint64_t over_ns;    /* --over */
	const char *table;   /* --table; NULL: not given */
	const char *args[2]; /* of the command; NULL: not given */
	uint32_t n_permits;  /* limit: its second word */
	char *const *run;    /* what follows "--", NULL-terminated */
	uint64_t count;      /* --count; 0: not given */
	bool waits;          /* --wait */
	bool has_null;       /* --null */
	unsigned priority;   /* --priority */
	int policy;          /* --policy, enum ipc_full_policy; -1: not given */
	bool creates;        /* --create, with the shape of what is made then */
	struct ipc_queue_options shape;
	uint64_t interval_ns; /* --interval; 0: not given */
	const char *sort;     /* --sort; NULL: not given */
};

/* One line to standard error, "ipcctl: what: text (IPC_NAME)", and the status that goes with the
 * result. */
int ctl_fail(const char *what, int result);

/* The same for a call of libc. */
int ctl_fail_errno(const char *what, int error);

/* The same in own words. */
int ctl_fail_text(const char *what, const char *text);

/* channel.c */
int ctl_list(const struct ctl *ctl);
int ctl_remove(const struct ctl *ctl);

/* stat.c */
int ctl_stat(const struct ctl *ctl);

/* watch.c */
int ctl_get(const struct ctl *ctl);
int ctl_set(const struct ctl *ctl);

/* handles.c */
int ctl_handles(const struct ctl *ctl);
int ctl_stalled(const struct ctl *ctl);

/* waits.c */
int ctl_waits(const struct ctl *ctl);

/* once.c */
int ctl_once(const struct ctl *ctl);

/* limit.c */
int ctl_limit(const struct ctl *ctl);

/* push.c */
int ctl_push(const struct ctl *ctl);

/* top.c */
int ctl_top(const struct ctl *ctl);
bool top_has_order(const char *name);

/* take.c */
int ctl_take(const struct ctl *ctl);

#endif
