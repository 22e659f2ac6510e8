/* SPDX-License-Identifier: MIT */
#ifndef IPC_VERSION_H
#define IPC_VERSION_H

/*
 * The version of the interface, and what every header of it needs.
 */

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

#define IPC_VERSION_MAJOR 0
#define IPC_VERSION_MINOR 1
#define IPC_VERSION_PATCH 0
uint32_t ipc_version(void);                       /* of the library that runs: major << 16 | minor << 8 | patch */

#define IPC_CHECKED __attribute__((__warn_unused_result__))
#define IPC_FIXED(type, bytes) static_assert(sizeof(void *) != 8 || sizeof(type) == (bytes), #type)
static_assert(sizeof(time_t) == 8, "64-bit time_t only");

#ifdef __cplusplus
}
#endif

#endif
