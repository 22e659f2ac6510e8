/* SPDX-License-Identifier: MIT */
#ifndef IPC_POLL_H
#define IPC_POLL_H

/*
 * One descriptor per client for poll(2), epoll(7) and event loops: readable while a handle of the
 * client's poll set is ready.  See ipc_poll(3).
 */

#include <ipc/client.h>
#include <ipc/wait.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ipc_poll_event {                           /* 24 bytes, fixed */
	void *handle;
	uint32_t ready;
	uint32_t reserved;
	void *userdata;
};
IPC_FIXED(struct ipc_poll_event, 24);
IPC_CHECKED int ipc_client_get_fd(ipc_client *client);        /* >= 0 */
IPC_CHECKED int ipc_poll_add(ipc_client *client, void *handle, uint32_t events, void *userdata);
IPC_CHECKED int ipc_poll_change(ipc_client *client, void *handle, uint32_t events, void *userdata);
IPC_CHECKED int ipc_poll_remove(ipc_client *client, void *handle);
IPC_CHECKED int ipc_poll_next(ipc_client *client, struct ipc_poll_event *ret);   /* IPC_EAGAIN: none ready, and armed */

#ifdef __cplusplus
}
#endif

#endif
