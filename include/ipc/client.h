/* SPDX-License-Identifier: MIT */
#ifndef IPC_CLIENT_H
#define IPC_CLIENT_H

/*
 * A client: one process's connection to the broker of a domain.  See ipc_client(3).
 */

#include <ipc/error.h>
#include <ipc/limits.h>
#include <ipc/time.h>
#include <ipc/version.h>

/* Flags of every channel's options.  The low 16 bits stay unused: <sys/ipc.h> has IPC_CREAT and IPC_EXCL there. */
#define IPC_CREATE    0x010000u                   /* make the channel if there is none of that name */
#define IPC_EXCLUSIVE 0x020000u                   /* with IPC_CREATE: IPC_EEXIST if there is one */
#define IPC_KEEP      0x040000u                   /* made so: outlives its last handle */
#define IPC_AWAIT     0x080000u                   /* no such channel yet, or the role is taken: sleep until it is there */
#define IPC_STAY      0x100000u                   /* absence of the other side never ends anything on this handle */

#ifdef __cplusplus
extern "C" {
#endif

#define IPC_CLIENT_NO_AUTOSTART 0x10000000u
#define IPC_CLIENT_NO_EINTR     0x20000000u
typedef struct ipc_client ipc_client;
struct ipc_client_options {
	size_t size;
	uint64_t flags;                           /* IPC_CLIENT_... */
	const char *address;                      /* path of the broker's socket; NULL: see ipc_client(3) */
	uint64_t grace_ns;                        /* default 2 s: how long waits bear the absence of any broker */
};
#define IPC_CLIENT_OPTIONS(...) (&(const struct ipc_client_options){ .size = sizeof(struct ipc_client_options), __VA_ARGS__ })
#define IPC_CLIENT_OPTIONS_INIT { .size = sizeof(struct ipc_client_options) }
IPC_CHECKED int ipc_client_connect_wait(ipc_client **ret, const struct ipc_client_options *options, const struct timespec *deadline);
ipc_client *ipc_client_ref(ipc_client *client);
ipc_client *ipc_client_unref(ipc_client *client); /* NULL is fine; returns NULL */
int ipc_client_cancel(ipc_client *client);        /* every handle, open and future; opens in progress too */
IPC_CHECKED int ipc_client_is_alive(ipc_client *client, uint64_t handle_id);   /* 1; 0: closed, dead or never was */

#ifdef __cplusplus
}
#endif

#endif
