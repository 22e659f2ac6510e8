/* SPDX-License-Identifier: MIT */
#ifndef BROKER_CTL_INBOX_H
#define BROKER_CTL_INBOX_H

/*
 * How far an inbox is, and who has it open.  Seen by an observer, which nobody counts.
 */

#include <ipc/admin.h>
#include <ipc/inbox.h>

#include "broker/ctl/ctl.h"

struct inbox {
	struct ipc_handle_info end[2]; /* sender, receiver; handle_id 0: nobody */
	int refused;                   /* why there are no positions; 0: there are */
	struct ipc_inbox_positions positions;
};

/* 0 or the library's result. */
int inbox_look(struct inbox *inbox, const struct ctl *ctl, const char *name);

/* To standard output.  0, or -1: out of memory. */
int inbox_print(const struct inbox *inbox);

#endif
