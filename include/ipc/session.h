/* SPDX-License-Identifier: MIT */
#ifndef IPC_SESSION_H
#define IPC_SESSION_H

/*
 * session: numbered messages in both directions between two processes; either end may be killed and
 * goes on, by its key, where it had stopped.  See ipc_session(3).
 */

#include <ipc/client.h>
#include <ipc/limits.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ipc_listener ipc_listener;
typedef struct ipc_session ipc_session;
struct ipc_session_key {                                      /* opaque; store all of it */
	unsigned char bytes[32];
};
IPC_FIXED(struct ipc_session_key, 32);
#define IPC_MESSAGE_REDELIVERED 0x1u                          /* it had been received before */
#define IPC_MESSAGE_FD          0x2u                          /* sent with a descriptor */
#define IPC_MESSAGE_FD_LOST     0x4u                          /* ... which a dead receiver had taken */
struct ipc_session_message {                                  /* 64 bytes, fixed */
	const void *data;                                     /* in place; valid until released or the handle is closed */
	size_t size;
	uint64_t sequence;                                    /* 1, 2, 3, ... */
	uint32_t flags;
	int fd;                                               /* -1 if none; close-on-exec; the receiver owns it from now on, and closes it */
	uint64_t token;                                       /* the library's; a copy of the struct is as good */
	uint64_t reserved[3];
};
IPC_FIXED(struct ipc_session_message, 64);
struct ipc_session_state {
	size_t size;                                          /* set by the caller */
	uint64_t sent, acknowledged;                          /* last number committed by me; last one that the peer released */
	uint64_t received, released;                          /* last number I took; last one I released */
	uint64_t generation;                                  /* grows with each resume of either end */
	uint64_t away_ns;                                     /* 0: peer present, or session ended; else time left for it to come back, UINT64_MAX: for ever */
};
struct ipc_session_options {
	size_t size;
	uint64_t flags;
	uint32_t mode, gid;
	uint64_t capacity;                                    /* bytes per direction; default 256 KiB; 4 KiB to 1 GiB */
	uint64_t message_size_max;                            /* default capacity / 4; at most that */
	uint64_t resume_window_ns;                            /* how long an absent end is waited for; default 30 s; UINT64_MAX: for ever */
};
#define IPC_SESSION_OPTIONS(...) (&(const struct ipc_session_options){ .size = sizeof(struct ipc_session_options), __VA_ARGS__ })
#define IPC_SESSION_OPTIONS_INIT { .size = sizeof(struct ipc_session_options) }
ipc_listener *ipc_listener_close(ipc_listener *handle);
int ipc_listener_cancel(ipc_listener *handle);
IPC_CHECKED int ipc_listener_get_id(const ipc_listener *handle, uint64_t *ret);
ipc_session *ipc_session_close(ipc_session *handle);
int ipc_session_cancel(ipc_session *handle);
IPC_CHECKED int ipc_session_get_id(const ipc_session *handle, uint64_t *ret);
IPC_CHECKED int ipc_session_peers(ipc_session *handle);
IPC_CHECKED int ipc_session_peers_wait(ipc_session *handle, bool present, const struct timespec *deadline);

IPC_CHECKED int ipc_listener_open_wait(ipc_listener **ret, ipc_client *client, const char *name,
                                       const struct ipc_session_options *options, const struct timespec *deadline);
IPC_CHECKED int ipc_listener_accept(ipc_listener *listener, ipc_session **ret);            /* 0: new; 1: taken back */
IPC_CHECKED int ipc_listener_accept_wait(ipc_listener *listener, ipc_session **ret, const struct timespec *deadline);
IPC_CHECKED int ipc_session_connect_wait(ipc_session **ret, ipc_client *client, const char *name,
                                         const struct ipc_session_options *options, const struct timespec *deadline);
IPC_CHECKED int ipc_session_resume_wait(ipc_session **ret, ipc_client *client, const struct ipc_session_key *key,
                                        const struct timespec *deadline);
IPC_CHECKED int ipc_session_get_key(ipc_session *session, struct ipc_session_key *ret);
IPC_CHECKED int ipc_session_confirm_key(ipc_session *session);        /* the key is stored: the one before it is void now */
ipc_session *ipc_session_detach(ipc_session *session);                /* leave it away: same as dying, on purpose; returns NULL */
IPC_CHECKED int ipc_session_get_state(ipc_session *session, struct ipc_session_state *ret);
IPC_CHECKED int ipc_session_send(ipc_session *session, const void *data, size_t size);
IPC_CHECKED int ipc_session_send_wait(ipc_session *session, const void *data, size_t size, const struct timespec *deadline);
IPC_CHECKED int ipc_session_send_fd(ipc_session *session, int fd, const void *data, size_t size);   /* fd stays the caller's */
IPC_CHECKED int ipc_session_send_fd_wait(ipc_session *session, int fd, const void *data, size_t size, const struct timespec *deadline);
IPC_CHECKED int ipc_session_claim(ipc_session *session, size_t size, void **ret_data);
IPC_CHECKED int ipc_session_claim_wait(ipc_session *session, size_t size, void **ret_data, const struct timespec *deadline);
IPC_CHECKED int ipc_session_commit(ipc_session *session, void *data, size_t size);                  /* size <= claimed */
IPC_CHECKED int ipc_session_commit_release(ipc_session *session, void *data, size_t size, const struct ipc_session_message *request);
IPC_CHECKED int ipc_session_abort(ipc_session *session, void *data);
IPC_CHECKED int ipc_session_receive(ipc_session *session, struct ipc_session_message *ret);
IPC_CHECKED int ipc_session_receive_wait(ipc_session *session, struct ipc_session_message *ret, const struct timespec *deadline);
IPC_CHECKED int ipc_session_receive_many(ipc_session *session, struct ipc_session_message *ret, unsigned n);   /* number received, >= 1 */
IPC_CHECKED int ipc_session_receive_many_wait(ipc_session *session, struct ipc_session_message *ret, unsigned n,
                                              const struct timespec *deadline);
IPC_CHECKED int ipc_session_release(ipc_session *session, const struct ipc_session_message *message);   /* processed: this is the acknowledgement */

struct ipc_session_info {                                     /* for people who look on; ends: [0] accepted, [1] connected */
	size_t size;                                          /* set by the library */
	uint64_t generation;                                  /* of the session's channel: names it */
	uint64_t resumes;                                     /* of either end */
	uint64_t capacity;                                    /* bytes per direction */
	uint64_t sent[2], acknowledged[2];                    /* of what the end sends: last number committed, released by the other */
	uint64_t depth[2], depth_max[2];                      /* bytes of it now, most ever */
	uint64_t away_ns[2];                                  /* time left to come back; UINT64_MAX: for ever; 0: not away */
	int64_t pid[2];                                       /* as the broker sees it; 0: nobody's now */
	uint32_t uid[2];
};
typedef int (*ipc_session_fn)(const struct ipc_session_info *info, void *userdata);
/* Those that came by the listener's name and are not ended; rights and callback as of ipc_client_list_wait(). */
IPC_CHECKED int ipc_session_list_wait(ipc_client *client, const char *name, ipc_session_fn fn, void *userdata,
                                      const struct timespec *deadline);

#ifdef __cplusplus
}
#endif

#endif
