/* SPDX-License-Identifier: MIT */
#ifndef IPC_WATCH_H
#define IPC_WATCH_H

/*
 * watch: the latest value, written by producers, read by any number of consumers.
 * See ipc_watch(3).
 */

#include <ipc/client.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ipc_watch_producer ipc_watch_producer;
typedef struct ipc_watch_consumer ipc_watch_consumer;
typedef struct ipc_watch_weak ipc_watch_weak;
struct ipc_watch_options {
	size_t size;
	uint64_t flags;
	uint32_t mode, gid;
	uint64_t value_size_max;                  /* default 4096; at most 1 GiB */
	uint32_t consumers_max;                   /* default 64; more: IPC_EBUSY at open */
	uint32_t reserved;
};
#define IPC_WATCH_OPTIONS(...) (&(const struct ipc_watch_options){ .size = sizeof(struct ipc_watch_options), __VA_ARGS__ })
#define IPC_WATCH_OPTIONS_INIT { .size = sizeof(struct ipc_watch_options) }
ipc_watch_producer *ipc_watch_producer_close(ipc_watch_producer *handle);
int ipc_watch_producer_cancel(ipc_watch_producer *handle);
IPC_CHECKED int ipc_watch_producer_get_id(const ipc_watch_producer *handle, uint64_t *ret);
IPC_CHECKED int ipc_watch_producer_peers(ipc_watch_producer *handle);
IPC_CHECKED int ipc_watch_producer_peers_wait(ipc_watch_producer *handle, bool present, const struct timespec *deadline);

ipc_watch_consumer *ipc_watch_consumer_close(ipc_watch_consumer *handle);
int ipc_watch_consumer_cancel(ipc_watch_consumer *handle);
IPC_CHECKED int ipc_watch_consumer_get_id(const ipc_watch_consumer *handle, uint64_t *ret);
IPC_CHECKED int ipc_watch_consumer_peers(ipc_watch_consumer *handle);
IPC_CHECKED int ipc_watch_consumer_peers_wait(ipc_watch_consumer *handle, bool present, const struct timespec *deadline);

IPC_CHECKED int ipc_watch_producer_open_wait(ipc_watch_producer **ret, ipc_client *client, const char *name,
                                             const struct ipc_watch_options *options, const struct timespec *deadline);
IPC_CHECKED int ipc_watch_consumer_open_wait(ipc_watch_consumer **ret, ipc_client *client, const char *name,
                                             const struct ipc_watch_options *options, const struct timespec *deadline);
IPC_CHECKED int ipc_watch_publish(ipc_watch_producer *producer, const void *data, size_t size);
IPC_CHECKED int ipc_watch_publish_wait(ipc_watch_producer *producer, const void *data, size_t size, const struct timespec *deadline);
IPC_CHECKED int ipc_watch_edit_wait(ipc_watch_producer *producer, void **ret_value, size_t *ret_size, size_t *ret_size_max,
                                    const struct timespec *deadline);
IPC_CHECKED int ipc_watch_commit(ipc_watch_producer *producer, size_t size);   /* makes the edited value the latest, wakes */
IPC_CHECKED int ipc_watch_abort(ipc_watch_producer *producer);                 /* nothing changed, nobody is woken */
IPC_CHECKED int ipc_watch_shutdown(ipc_watch_producer *producer);              /* terminal; the last value stays readable */
IPC_CHECKED int ipc_watch_read(ipc_watch_consumer *consumer, void *buffer, size_t size, size_t *ret_size, uint64_t *ret_version);
/* Newer than *version, which becomes the version read; start with 0. */
IPC_CHECKED int ipc_watch_read_next(ipc_watch_consumer *consumer, void *buffer, size_t size, size_t *ret_size, uint64_t *version);
IPC_CHECKED int ipc_watch_read_wait(ipc_watch_consumer *consumer, void *buffer, size_t size, size_t *ret_size, uint64_t *version,
                                    const struct timespec *deadline);
IPC_CHECKED int ipc_watch_weaken(ipc_watch_weak **ret, ipc_watch_producer *producer);   /* not counted; producer stays open */
IPC_CHECKED int ipc_watch_upgrade_wait(ipc_watch_producer **ret, ipc_watch_weak *weak, const struct timespec *deadline);
ipc_watch_weak *ipc_watch_weak_close(ipc_watch_weak *weak);

#ifdef __cplusplus
}
#endif

#endif
