/* SPDX-License-Identifier: MIT */
#ifndef IPC_TIME_H
#define IPC_TIME_H

/*
 * Deadlines: absolute moments on CLOCK_MONOTONIC.
 */

#include <stdint.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

void ipc_deadline_after(struct timespec *ret, uint64_t ns);   /* now + ns on CLOCK_MONOTONIC; saturates */

#ifdef __cplusplus
}
#endif

#endif
