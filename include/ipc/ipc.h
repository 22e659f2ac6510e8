/* SPDX-License-Identifier: MIT */
#ifndef IPC_IPC_H
#define IPC_IPC_H

/*
 * Everything of libipc: processes of one machine share state through POSIX shared memory.
 * Start with libipc(7).
 */

#include <ipc/admin.h>
#include <ipc/client.h>
#include <ipc/error.h>
#include <ipc/flight.h>
#include <ipc/inbox.h>
#include <ipc/limiter.h>
#include <ipc/limits.h>
#include <ipc/poll.h>
#include <ipc/queue.h>
#include <ipc/session.h>
#include <ipc/shared.h>
#include <ipc/time.h>
#include <ipc/version.h>
#include <ipc/wait.h>
#include <ipc/watch.h>

#endif
