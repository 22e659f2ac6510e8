/* SPDX-License-Identifier: MIT */
#ifndef IPC_QUEUE_H
#define IPC_QUEUE_H

/*
 * queue: work or frames for whoever owns a connection, a device or a loop, in priorities, with leases
 * and dead letters; what a dead consumer held comes back.  group: every queue whose name matches.
 * See ipc_queue(3), ipc_group(3).
 */

#include <ipc/client.h>
#include <ipc/limits.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ipc_queue_consumer ipc_queue_consumer;         /* the actor's end */
typedef struct ipc_queue_producer ipc_queue_producer;         /* the push handle */
typedef struct ipc_group ipc_group;                           /* every queue whose name matches a pattern */
enum ipc_full_policy { IPC_FULL_FAIL = 0, IPC_FULL_DROP = 1, IPC_FULL_DEAD_LETTER = 2 };
#define IPC_QUEUED        0                                   /* what push returns */
#define IPC_DEAD_LETTERED 1
#define IPC_DROPPED       2
enum ipc_dead_reason {
	IPC_DEAD_NONE = 0, IPC_DEAD_FULL = 1, IPC_DEAD_REJECTED = 2, IPC_DEAD_ATTEMPTS = 3, IPC_DEAD_CONSUMER_GONE = 4
};
#define IPC_DEAD_REASONS_MAX 8
struct ipc_queue_item {                                       /* 96 bytes, fixed */
	const void *data;                                     /* valid until ack, requeue, reject of it, or close */
	size_t size;
	uint64_t origin;                                      /* handle id of the producer */
	uint64_t enqueued_ns;                                 /* CLOCK_MONOTONIC */
	uint32_t priority;
	uint32_t attempt;                                     /* 1 the first time */
	enum ipc_dead_reason reason;                          /* dead letters; else NONE */
	uint32_t reserved32;
	const char *source;                                   /* dead letters: name of the queue it came from, valid as data; else NULL */
	uint64_t lease;                                       /* the library's; a copy of the struct is as good */
	uint64_t reserved[4];
};
IPC_FIXED(struct ipc_queue_item, 96);
#define IPC_FAIRNESS_STRICT UINT32_MAX
struct ipc_queue_fairness {
	size_t size;
	uint32_t run_max;                                     /* 0: 8; IPC_FAIRNESS_STRICT: no bound */
	uint32_t reserved;
	uint64_t slice_ns;                                    /* 0: off */
};
struct ipc_queue_options {
	size_t size;
	uint64_t flags;
	uint32_t mode, gid;
	uint32_t priorities;                                  /* default 2 (0 = high, 1 = low), 1 to 8 */
	uint32_t items_max;                                   /* per priority, default 1024 */
	uint64_t bytes_max;                                   /* per priority, default 1 MiB */
	uint64_t item_size_max;                               /* default 64 KiB or bytes_max if that is less; at most bytes_max */
	uint32_t rate;                                        /* items per second, default unlimited */
	uint32_t burst;                                       /* default rate */
	uint32_t attempts_max;                                /* default 3 */
	uint32_t reserved;
	const char *dead_letters;                             /* name of another queue; NULL: none */
};
#define IPC_QUEUE_OPTIONS(...) (&(const struct ipc_queue_options){ .size = sizeof(struct ipc_queue_options), __VA_ARGS__ })
#define IPC_QUEUE_OPTIONS_INIT { .size = sizeof(struct ipc_queue_options) }
struct ipc_queue_state {
	size_t size;                                          /* set by the caller */
	uint32_t priorities, n_leased;
	uint64_t items[IPC_PRIORITIES_MAX];                   /* waiting now; leased ones and claims not included */
	uint64_t bytes[IPC_PRIORITIES_MAX];
	uint64_t leased[IPC_PRIORITIES_MAX];                  /* items; n_leased is their sum */
	uint64_t queued[IPC_PRIORITIES_MAX];                  /* totals since the queue was made */
	uint64_t acknowledged[IPC_PRIORITIES_MAX];
	uint64_t dead_lettered[IPC_PRIORITIES_MAX][IPC_DEAD_REASONS_MAX];
	uint64_t dropped[IPC_PRIORITIES_MAX][IPC_DEAD_REASONS_MAX];
};
struct ipc_group_result {
	size_t size;                                          /* set by the caller */
	uint32_t queued, dead_lettered, dropped;
	uint32_t full;                                        /* no room or no rate token, policy FAIL */
	uint32_t gone;                                        /* their consumer side is gone */
	uint32_t too_big;                                     /* larger than their item_size_max */
};
ipc_queue_consumer *ipc_queue_consumer_close(ipc_queue_consumer *handle);
int ipc_queue_consumer_cancel(ipc_queue_consumer *handle);
IPC_CHECKED int ipc_queue_consumer_get_id(const ipc_queue_consumer *handle, uint64_t *ret);
IPC_CHECKED int ipc_queue_consumer_peers(ipc_queue_consumer *handle);
IPC_CHECKED int ipc_queue_consumer_peers_wait(ipc_queue_consumer *handle, bool present, const struct timespec *deadline);
ipc_queue_producer *ipc_queue_producer_close(ipc_queue_producer *handle);
int ipc_queue_producer_cancel(ipc_queue_producer *handle);
IPC_CHECKED int ipc_queue_producer_get_id(const ipc_queue_producer *handle, uint64_t *ret);
IPC_CHECKED int ipc_queue_producer_peers(ipc_queue_producer *handle);
IPC_CHECKED int ipc_queue_producer_peers_wait(ipc_queue_producer *handle, bool present, const struct timespec *deadline);

IPC_CHECKED int ipc_queue_consumer_open_wait(ipc_queue_consumer **ret, ipc_client *client, const char *name,
                                             const struct ipc_queue_options *options, const struct timespec *deadline);
IPC_CHECKED int ipc_queue_producer_open_wait(ipc_queue_producer **ret, ipc_client *client, const char *name,
                                             const struct ipc_queue_options *options, const struct timespec *deadline);
IPC_CHECKED int ipc_queue_push(ipc_queue_producer *producer, unsigned priority, const void *data, size_t size, enum ipc_full_policy policy);
IPC_CHECKED int ipc_queue_push_wait(ipc_queue_producer *producer, unsigned priority, const void *data, size_t size,
                                    const struct timespec *deadline);
IPC_CHECKED int ipc_queue_claim(ipc_queue_producer *producer, unsigned priority, size_t size, void **ret_data);   /* fill in place */
IPC_CHECKED int ipc_queue_claim_wait(ipc_queue_producer *producer, unsigned priority, size_t size, void **ret_data,
                                     const struct timespec *deadline);
IPC_CHECKED int ipc_queue_commit(ipc_queue_producer *producer, void *data, size_t size);      /* size <= claimed */
IPC_CHECKED int ipc_queue_commit_wait(ipc_queue_producer *producer, void *data, size_t size, const struct timespec *deadline);
IPC_CHECKED int ipc_queue_abort(ipc_queue_producer *producer, void *data);
IPC_CHECKED int ipc_queue_producer_get_state(ipc_queue_producer *producer, struct ipc_queue_state *ret);
IPC_CHECKED int ipc_queue_take(ipc_queue_consumer *consumer, struct ipc_queue_item *ret);
IPC_CHECKED int ipc_queue_take_wait(ipc_queue_consumer *consumer, struct ipc_queue_item *ret, const struct timespec *deadline);
IPC_CHECKED int ipc_queue_take_many(ipc_queue_consumer *consumer, struct ipc_queue_item *ret, unsigned n);   /* number taken, >= 1 */
IPC_CHECKED int ipc_queue_take_many_wait(ipc_queue_consumer *consumer, struct ipc_queue_item *ret, unsigned n,
                                         const struct timespec *deadline);
IPC_CHECKED int ipc_queue_ack(ipc_queue_consumer *consumer, const struct ipc_queue_item *item);
IPC_CHECKED int ipc_queue_ack_many(ipc_queue_consumer *consumer, const struct ipc_queue_item *items, unsigned n);   /* number acknowledged */
IPC_CHECKED int ipc_queue_requeue(ipc_queue_consumer *consumer, const struct ipc_queue_item *item);
IPC_CHECKED int ipc_queue_reject(ipc_queue_consumer *consumer, const struct ipc_queue_item *item);
IPC_CHECKED int ipc_queue_shutdown(ipc_queue_consumer *consumer);   /* refuse new items; what is queued is drained */
IPC_CHECKED int ipc_queue_set_fairness(ipc_queue_consumer *consumer, const struct ipc_queue_fairness *fairness);
IPC_CHECKED int ipc_queue_consumer_get_state(ipc_queue_consumer *consumer, struct ipc_queue_state *ret);
IPC_CHECKED int ipc_queue_state_wait(ipc_client *client, const char *name, struct ipc_queue_state *ret,
                                     const struct timespec *deadline);   /* without a handle; 1: in part */
/* fan-out over every queue whose name matches, kept up to date by the broker */
IPC_CHECKED int ipc_group_open_wait(ipc_group **ret, ipc_client *client, const char *pattern, const struct timespec *deadline);
IPC_CHECKED int ipc_group_push(ipc_group *group, unsigned priority, const void *data, size_t size, enum ipc_full_policy policy,
                               struct ipc_group_result *ret);
IPC_CHECKED int ipc_group_count(ipc_group *group);
ipc_group *ipc_group_close(ipc_group *group);

#ifdef __cplusplus
}
#endif

#endif
