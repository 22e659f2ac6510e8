/* SPDX-License-Identifier: MIT */
#ifndef IPC_FLIGHT_H
#define IPC_FLIGHT_H

/*
 * flight: of all who ask for a key at the same time one runs the operation, the others get its bytes.
 * See ipc_flight(3).
 */

#include <ipc/client.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ipc_flight_table ipc_flight_table;             /* the table: a channel */
typedef struct ipc_flight ipc_flight;                         /* one caller's part in one flight */
typedef struct ipc_handler ipc_handler;                       /* takes the keys that were asked for */
enum ipc_failure {                                            /* closed; switch without default */
	IPC_FAILURE_NONE = 0, IPC_FAILURE_NOT_FOUND = 1, IPC_FAILURE_REFUSED = 2, IPC_FAILURE_UPSTREAM = 3, IPC_FAILURE_LOCAL = 4,
	IPC_FAILURE_TIMED_OUT = 5, IPC_FAILURE_TOO_BIG = 6,
	IPC_FAILURE_ABANDONED = 7                             /* said by the library: handler let go without an answer */
};
struct ipc_flight_result {                                    /* 64 bytes, fixed */
	const void *data;                                     /* landed bytes, or the reason of the failure; valid until leave. do_wait: the caller's buffer */
	size_t size;
	enum ipc_failure failure;                             /* NONE: landed */
	int32_t code;                                         /* the leader's own number, carried unchanged; 0 if landed */
	uint32_t epoch;                                       /* 1: first leader; +1 per promotion */
	uint32_t n_joined;                                    /* callers that shared this flight, leader included */
	uint64_t fence;                                       /* of the leader that completed it */
	uint64_t reserved[3];
};
IPC_FIXED(struct ipc_flight_result, 64);
#define IPC_FLIGHT_TABLE_NO_PROMOTE 0x2000000u                /* shapes the channel: a dead leader fails its flight */
struct ipc_flight_table_options {
	size_t size;
	uint64_t flags;
	uint32_t mode, gid;
	uint32_t keys_max;                                    /* flights at once, finished ones still held included; default 1024 */
	uint32_t attempts_max;                                /* default 3, first leader included */
	uint64_t key_size_max;                                /* default 256, at most 4096; keys have at least 1 byte */
	uint64_t result_size_max;                             /* default 64 KiB; also bounds a failure's reason */
};
#define IPC_FLIGHT_TABLE_OPTIONS(...) \
	(&(const struct ipc_flight_table_options){ .size = sizeof(struct ipc_flight_table_options), __VA_ARGS__ })
#define IPC_FLIGHT_TABLE_OPTIONS_INIT { .size = sizeof(struct ipc_flight_table_options) }
ipc_flight_table *ipc_flight_table_close(ipc_flight_table *handle);
int ipc_flight_table_cancel(ipc_flight_table *handle);
IPC_CHECKED int ipc_flight_table_get_id(const ipc_flight_table *handle, uint64_t *ret);
IPC_CHECKED int ipc_flight_table_peers(ipc_flight_table *handle);
IPC_CHECKED int ipc_flight_table_peers_wait(ipc_flight_table *handle, bool present, const struct timespec *deadline);

ipc_handler *ipc_handler_close(ipc_handler *handle);
int ipc_handler_cancel(ipc_handler *handle);
IPC_CHECKED int ipc_handler_get_id(const ipc_handler *handle, uint64_t *ret);
IPC_CHECKED int ipc_handler_peers(ipc_handler *handle);
IPC_CHECKED int ipc_handler_peers_wait(ipc_handler *handle, bool present, const struct timespec *deadline);

IPC_CHECKED int ipc_flight_table_open_wait(ipc_flight_table **ret, ipc_client *client, const char *name,
                                           const struct ipc_flight_table_options *options, const struct timespec *deadline);
IPC_CHECKED int ipc_flight_table_count(ipc_flight_table *table);     /* keys in flight, finished ones not included */
/* join: 1: you lead, 0: finished, 2: pending (join only) */
IPC_CHECKED int ipc_flight_join(ipc_flight **ret, ipc_flight_table *table, const void *key, size_t key_size);
IPC_CHECKED int ipc_flight_join_wait(ipc_flight **ret, ipc_flight_table *table, const void *key, size_t key_size,
                                     const struct timespec *deadline);
/* a pending part: 1: you lead now, 0: finished, IPC_EAGAIN: still pending; or how the wait ended */
IPC_CHECKED int ipc_flight_look(ipc_flight *flight);
IPC_CHECKED int ipc_flight_look_wait(ipc_flight *flight, const struct timespec *deadline);
IPC_CHECKED int ipc_flight_land(ipc_flight *flight, const void *data, size_t size);
IPC_CHECKED int ipc_flight_fail(ipc_flight *flight, enum ipc_failure failure, int32_t code, const void *reason, size_t size);
IPC_CHECKED int ipc_flight_get_key(const ipc_flight *flight, const void **ret_key, size_t *ret_size);   /* valid until leave */
IPC_CHECKED int ipc_flight_get_urgency(const ipc_flight *flight, uint32_t *ret);                        /* highest asked so far */
IPC_CHECKED int ipc_flight_get_fence(const ipc_flight *flight, uint64_t *ret);       /* put it into outside effects (file names) */
IPC_CHECKED int ipc_flight_get_result(const ipc_flight *flight, struct ipc_flight_result *ret);         /* IPC_EAGAIN: not finished */
int ipc_flight_cancel(ipc_flight *flight);                    /* waits on this part; the flight goes on */
ipc_flight *ipc_flight_leave(ipc_flight *flight);             /* a leader that has not landed hands the lead on; returns NULL */
/* the one-call form; fn runs in the calling thread, without any lock held */
typedef int (*ipc_flight_fn)(ipc_flight *flight, const void *key, size_t key_size, void *userdata);
IPC_CHECKED int ipc_flight_do_wait(ipc_flight_table *table, const void *key, size_t key_size, ipc_flight_fn fn, void *userdata,
                                   void *buffer, size_t size, struct ipc_flight_result *ret, const struct timespec *deadline);
/* handler form.  ask: 0: finished, 2: pending (ask only) */
IPC_CHECKED int ipc_flight_ask(ipc_flight **ret, ipc_flight_table *table, const void *key, size_t key_size, uint32_t urgency);
IPC_CHECKED int ipc_flight_ask_wait(ipc_flight **ret, ipc_flight_table *table, const void *key, size_t key_size, uint32_t urgency,
                                    const struct timespec *deadline);
IPC_CHECKED int ipc_handler_open_wait(ipc_handler **ret, ipc_client *client, const char *name,
                                      const struct ipc_flight_table_options *options, const struct timespec *deadline);
IPC_CHECKED int ipc_handler_take(ipc_flight **ret, ipc_handler *handler);            /* then land or fail, then leave */
IPC_CHECKED int ipc_handler_take_wait(ipc_flight **ret, ipc_handler *handler, const struct timespec *deadline);

#ifdef __cplusplus
}
#endif

#endif
