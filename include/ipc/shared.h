/* SPDX-License-Identifier: MIT */
#ifndef IPC_SHARED_H
#define IPC_SHARED_H

/*
 * shared: one value that both sides change under a robust lock.  See ipc_shared(3).
 */

#include <ipc/client.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ipc_shared ipc_shared;
enum ipc_side { IPC_SIDE_A = 1, IPC_SIDE_B = 2 };
#define IPC_SHARED_IN_PLACE 0x1000000u            /* shapes the channel: see S-3 */
struct ipc_shared_options {
	size_t size;
	uint64_t flags;
	uint32_t mode, gid;
	uint64_t value_size;                      /* default 4096; at most 1 GiB; every value has exactly this size */
};
#define IPC_SHARED_OPTIONS(...) (&(const struct ipc_shared_options){ .size = sizeof(struct ipc_shared_options), __VA_ARGS__ })
#define IPC_SHARED_OPTIONS_INIT { .size = sizeof(struct ipc_shared_options) }
ipc_shared *ipc_shared_close(ipc_shared *handle);
int ipc_shared_cancel(ipc_shared *handle);
IPC_CHECKED int ipc_shared_get_id(const ipc_shared *handle, uint64_t *ret);
IPC_CHECKED int ipc_shared_peers(ipc_shared *handle);
IPC_CHECKED int ipc_shared_peers_wait(ipc_shared *handle, bool present, const struct timespec *deadline);

typedef bool (*ipc_predicate_fn)(const void *value, size_t size, void *userdata);
IPC_CHECKED int ipc_shared_open_wait(ipc_shared **ret, ipc_client *client, const char *name, enum ipc_side side,
                                     const struct ipc_shared_options *options, const struct timespec *deadline);
IPC_CHECKED int ipc_shared_lock_wait(ipc_shared *shared, const void **ret_value, const struct timespec *deadline);
IPC_CHECKED int ipc_shared_lock_when_wait(ipc_shared *shared, ipc_predicate_fn predicate, void *userdata,
                                          const void **ret_value, const struct timespec *deadline);
IPC_CHECKED int ipc_shared_edit(ipc_shared *shared, void **ret_value);   /* the writable copy; twice: the same one */
IPC_CHECKED int ipc_shared_commit(ipc_shared *shared);                   /* edited copy becomes the value; unlock; wake */
IPC_CHECKED int ipc_shared_unlock(ipc_shared *shared);                   /* edits dropped; unlock; nobody is woken */
IPC_CHECKED int ipc_shared_mark_consistent(ipc_shared *shared);          /* in place only, after result 1 */
IPC_CHECKED int ipc_shared_shutdown(ipc_shared *shared);

#ifdef __cplusplus
}
#endif

#endif
