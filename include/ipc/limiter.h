/* SPDX-License-Identifier: MIT */
#ifndef IPC_LIMITER_H
#define IPC_LIMITER_H

/*
 * limiter: at most N at a time, or N per day, over all processes; what a dead one held is given back.
 * See ipc_limiter(3).
 */

#include <ipc/client.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ipc_limiter ipc_limiter;
struct ipc_limiter_grant {                                    /* 16 bytes, fixed; copyable; good in this process only */
	uint64_t id;
	uint32_t permits;
	uint32_t reserved;
};
IPC_FIXED(struct ipc_limiter_grant, 16);
struct ipc_limiter_state {
	size_t size;                                          /* set by the caller */
	uint32_t n_free, n_held, n_waiting, reserved;         /* permits, permits, requests */
	uint64_t window_used, window_left_ns;                 /* left: 0 if no window is running */
};
struct ipc_limiter_options {
	size_t size;
	uint64_t flags;
	uint32_t mode, gid;
	uint32_t permits;                                     /* concurrency; default 1 */
	uint32_t per_user_max;                                /* permits; default: no bound of its own */
	uint64_t window_units, window_ns;                     /* both 0: none; one of them 0: IPC_EINVAL */
};
#define IPC_LIMITER_OPTIONS(...) (&(const struct ipc_limiter_options){ .size = sizeof(struct ipc_limiter_options), __VA_ARGS__ })
#define IPC_LIMITER_OPTIONS_INIT { .size = sizeof(struct ipc_limiter_options) }
ipc_limiter *ipc_limiter_close(ipc_limiter *handle);
int ipc_limiter_cancel(ipc_limiter *handle);
IPC_CHECKED int ipc_limiter_get_id(const ipc_limiter *handle, uint64_t *ret);

IPC_CHECKED int ipc_limiter_open_wait(ipc_limiter **ret, ipc_client *client, const char *name,
                                      const struct ipc_limiter_options *options, const struct timespec *deadline);
IPC_CHECKED int ipc_limiter_acquire(ipc_limiter *limiter, uint32_t permits, struct ipc_limiter_grant *ret);
IPC_CHECKED int ipc_limiter_acquire_wait(ipc_limiter *limiter, uint32_t permits, struct ipc_limiter_grant *ret,
                                         const struct timespec *deadline);
IPC_CHECKED int ipc_limiter_release(ipc_limiter *limiter, const struct ipc_limiter_grant *grant, bool refund);
IPC_CHECKED int ipc_limiter_get_state(ipc_limiter *limiter, struct ipc_limiter_state *ret);

#ifdef __cplusplus
}
#endif

#endif
