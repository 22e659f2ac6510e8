/* SPDX-License-Identifier: MIT */
#ifndef IPC_WAIT_H
#define IPC_WAIT_H

/*
 * Waiting for one of several handles.  See ipc_wait(3).
 */

#include <ipc/client.h>

#ifdef __cplusplus
extern "C" {
#endif

#define IPC_READY_READABLE     0x01u
#define IPC_READY_WRITABLE     0x02u
#define IPC_READY_PEER_PRESENT 0x04u
#define IPC_READY_PEER_GONE    0x08u
#define IPC_READY_REQUEST      0x10u              /* inbox sender: a snapshot is wanted */
#define IPC_READY_END          0x80u              /* in ready only: nothing will come any more; the next call says why */
struct ipc_wait_item {                            /* 24 bytes, fixed */
	void *handle;                             /* any role below, or an ipc_flight; NULL: skipped */
	uint32_t events;                          /* what to wait for */
	uint32_t ready;                           /* written: what holds; 0 in the other items */
	uint64_t version;                         /* watch consumer: readable when newer than this; others 0 */
};
IPC_FIXED(struct ipc_wait_item, 24);
IPC_CHECKED int ipc_wait_any(struct ipc_wait_item *items, unsigned n, const struct timespec *deadline);   /* index */

#ifdef __cplusplus
}
#endif

#endif
