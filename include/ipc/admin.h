/* SPDX-License-Identifier: MIT */
#ifndef IPC_ADMIN_H
#define IPC_ADMIN_H

/*
 * Listing, looking at and removing channels.  See ipc_client(3).
 */

#include <ipc/client.h>

#ifdef __cplusplus
extern "C" {
#endif

enum ipc_kind {
	IPC_KIND_WATCH = 1, IPC_KIND_SHARED, IPC_KIND_QUEUE, IPC_KIND_FLIGHT, IPC_KIND_INBOX, IPC_KIND_SESSION, IPC_KIND_LIMITER
};
enum ipc_role {
	IPC_ROLE_WATCH_PRODUCER = 1, IPC_ROLE_WATCH_CONSUMER, IPC_ROLE_WATCH_WEAK, IPC_ROLE_SHARED_A, IPC_ROLE_SHARED_B,
	IPC_ROLE_QUEUE_PRODUCER, IPC_ROLE_QUEUE_CONSUMER, IPC_ROLE_GROUP, IPC_ROLE_FLIGHT_TABLE, IPC_ROLE_HANDLER,
	IPC_ROLE_INBOX_SENDER, IPC_ROLE_INBOX_RECEIVER, IPC_ROLE_INBOX_OBSERVER, IPC_ROLE_LISTENER, IPC_ROLE_SESSION, IPC_ROLE_LIMITER
};
enum ipc_holding {
	IPC_HOLDS_NOTHING = 0, IPC_HOLDS_LOCK, IPC_HOLDS_LEAD, IPC_HOLDS_LEASES, IPC_HOLDS_PERMITS, IPC_HOLDS_CLAIMS
};
struct ipc_channel_info {
	size_t size;                              /* set by the library in a list callback, by the caller elsewhere */
	char name[256];
	enum ipc_kind kind;
	uint32_t mode, uid, gid;
	uint64_t flags;                           /* IPC_KEEP and the kind's own */
	uint64_t generation;                      /* of this name: a new channel under an old name has another */
	uint64_t bytes;                           /* of memory, reserved */
	uint64_t item_size_max;                   /* by kind: value, item, frame, message, result */
	uint64_t capacity;                        /* by kind: bytes of ring or class, keys, permits; 0 for watch and shared */
	uint32_t handles[2];                      /* counted, per side: producer, sender, handler, listener or A first */
	uint32_t waiters, reserved;
	uint64_t depth, depth_max;                /* now and most ever: bytes, for flights keys, for limiters permits */
	int64_t holder_pid;                       /* of the lock or the oldest lead, as the broker sees it; 0: none */
	uint64_t holder_id;                       /* handle id of the same; 0: none */
	uint64_t held_ns;                         /* how long: what shows a stalled peer */
};
struct ipc_handle_info {
	size_t size;                              /* set by the library */
	uint64_t handle_id;
	int64_t pid;                              /* as the broker sees it */
	char process_name[64];
	enum ipc_role role;
	uint32_t weak;                            /* 1: not counted */
	enum ipc_holding holds;
	uint32_t n_held;                          /* permits, leases, leads, claims */
	uint64_t held_ns;                         /* the oldest of them */
	uint64_t waiting_for;                     /* handle id of the holder of what this one waits for; 0: of nobody's */
	uint64_t waiting_ns;                      /* 0: it does not wait */
};
typedef int (*ipc_channel_fn)(const struct ipc_channel_info *info, void *userdata);
typedef int (*ipc_handle_fn)(const struct ipc_handle_info *info, void *userdata);
IPC_CHECKED int ipc_client_list_wait(ipc_client *client, const char *pattern, ipc_channel_fn fn, void *userdata, const struct timespec *deadline);
IPC_CHECKED int ipc_client_list_handles_wait(ipc_client *client, const char *name, ipc_handle_fn fn, void *userdata, const struct timespec *deadline);
IPC_CHECKED int ipc_channel_info_wait(ipc_client *client, const char *name, struct ipc_channel_info *ret, const struct timespec *deadline);
IPC_CHECKED int ipc_channel_remove_wait(ipc_client *client, const char *name, uint64_t generation, const struct timespec *deadline);

#ifdef __cplusplus
}
#endif

#endif
