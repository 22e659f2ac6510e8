/* SPDX-License-Identifier: MIT */
#ifndef IPC_LIMITS_H
#define IPC_LIMITS_H

/*
 * Largest legal values.
 */

#include <stdint.h>

#define IPC_NAME_SIZE_MAX     255
#define IPC_PATTERN_SIZE_MAX  255
#define IPC_VALUE_SIZE_MAX    (UINT64_C(1) << 30)
#define IPC_ITEM_SIZE_MAX     (UINT64_C(1) << 30) /* item, frame, chunk, message, result */
#define IPC_KEY_SIZE_MAX      4096
#define IPC_WAIT_ITEMS_MAX    64
#define IPC_PRIORITIES_MAX    8
#define IPC_MANY_MAX          1024                /* take_many, receive_many */

#endif
