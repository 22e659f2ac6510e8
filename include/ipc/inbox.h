/* SPDX-License-Identifier: MIT */
#ifndef IPC_INBOX_H
#define IPC_INBOX_H

/*
 * inbox: a snapshot, then live frames by offset, from one sender to the one owner of a state; what was
 * not applied comes again after a death, and a snapshot is all or nothing.  See ipc_inbox(3).
 */

#include <ipc/client.h>
#include <ipc/limits.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ipc_inbox_sender ipc_inbox_sender;
typedef struct ipc_inbox_receiver ipc_inbox_receiver;
typedef struct ipc_inbox_observer ipc_inbox_observer;         /* not counted, read-only: positions and applied_wait, nothing else */
enum ipc_inbox_event_type {
	IPC_INBOX_BEGIN = 1, IPC_INBOX_CHUNK = 2, IPC_INBOX_END = 3, IPC_INBOX_FRAME = 4, IPC_INBOX_ABORT = 5, IPC_INBOX_GAP = 6
};
enum ipc_inbox_reason {
	IPC_INBOX_REASON_NONE = 0, IPC_INBOX_SENDER_DIED = 1, IPC_INBOX_SENDER_CLOSED = 2, IPC_INBOX_RESTARTED = 3,
	IPC_INBOX_COLLAPSED = 4, IPC_INBOX_RECEIVER_CHANGED = 5, IPC_INBOX_ABORTED = 6
};
enum ipc_inbox_full { IPC_INBOX_FULL_FAIL = 0, IPC_INBOX_FULL_COLLAPSE = 1 };   /* what a full ring does to a call without _wait */
struct ipc_inbox_event {                                      /* 64 bytes, fixed */
	enum ipc_inbox_event_type type;
	enum ipc_inbox_reason reason;                         /* ABORT, GAP */
	uint64_t offset;                                      /* FRAME: its own; END: next; GAP: the one got; CHUNK by descriptor: where its bytes begin */
	uint64_t expected;                                    /* GAP */
	uint64_t generation;                                  /* all */
	const void *data;                                     /* CHUNK, FRAME: in place, valid until mark_applied of it or a later one, or close */
	size_t size;
	int fd;                                               /* CHUNK sent by descriptor: close-on-exec, the receiver's to close; else -1 */
	uint32_t reserved;
	uint64_t token;                                       /* the library's; a copy of the struct is as good */
};
IPC_FIXED(struct ipc_inbox_event, 64);
struct ipc_inbox_positions {
	size_t size;                                          /* set by the caller */
	uint64_t written, received, applied;                  /* offset of the NEXT frame of each; received falls back to applied when the receiver changes */
	uint64_t generation;                                  /* of the last snapshot whose END was committed; 0: none ever */
	uint64_t applied_generation;                          /* the one that `applied` counts in; 0: none ever applied */
	uint64_t snapshot_wanted;                             /* grows by one per request; compare with the last one you served */
	uint64_t depth, depth_max;                            /* bytes now, high-water mark */
};
struct ipc_inbox_options {
	size_t size;
	uint64_t flags;
	uint32_t mode, gid;
	uint64_t capacity;                                    /* bytes; default 1 MiB; 4 KiB to 1 GiB */
	uint64_t frame_size_max;                              /* frames and chunks; default capacity / 4; at most that */
	enum ipc_inbox_full full;                             /* shapes the channel; default FAIL */
	uint32_t reserved;
};
#define IPC_INBOX_OPTIONS(...) (&(const struct ipc_inbox_options){ .size = sizeof(struct ipc_inbox_options), __VA_ARGS__ })
#define IPC_INBOX_OPTIONS_INIT { .size = sizeof(struct ipc_inbox_options) }
ipc_inbox_sender *ipc_inbox_sender_close(ipc_inbox_sender *handle);
int ipc_inbox_sender_cancel(ipc_inbox_sender *handle);
IPC_CHECKED int ipc_inbox_sender_get_id(const ipc_inbox_sender *handle, uint64_t *ret);
IPC_CHECKED int ipc_inbox_sender_peers(ipc_inbox_sender *handle);
IPC_CHECKED int ipc_inbox_sender_peers_wait(ipc_inbox_sender *handle, bool present, const struct timespec *deadline);
ipc_inbox_receiver *ipc_inbox_receiver_close(ipc_inbox_receiver *handle);
int ipc_inbox_receiver_cancel(ipc_inbox_receiver *handle);
IPC_CHECKED int ipc_inbox_receiver_get_id(const ipc_inbox_receiver *handle, uint64_t *ret);
IPC_CHECKED int ipc_inbox_receiver_peers(ipc_inbox_receiver *handle);
IPC_CHECKED int ipc_inbox_receiver_peers_wait(ipc_inbox_receiver *handle, bool present, const struct timespec *deadline);

IPC_CHECKED int ipc_inbox_sender_open_wait(ipc_inbox_sender **ret, ipc_client *client, const char *name,
                                           const struct ipc_inbox_options *options, const struct timespec *deadline);
IPC_CHECKED int ipc_inbox_begin_snapshot(ipc_inbox_sender *sender, uint64_t generation);
IPC_CHECKED int ipc_inbox_begin_snapshot_wait(ipc_inbox_sender *sender, uint64_t generation, const struct timespec *deadline);
IPC_CHECKED int ipc_inbox_send_chunk(ipc_inbox_sender *sender, const void *data, size_t size);
IPC_CHECKED int ipc_inbox_send_chunk_wait(ipc_inbox_sender *sender, const void *data, size_t size, const struct timespec *deadline);
IPC_CHECKED int ipc_inbox_send_chunk_fd(ipc_inbox_sender *sender, int fd, uint64_t fd_offset, size_t size);   /* fd stays the caller's */
IPC_CHECKED int ipc_inbox_send_chunk_fd_wait(ipc_inbox_sender *sender, int fd, uint64_t fd_offset, size_t size, const struct timespec *deadline);
IPC_CHECKED int ipc_inbox_end_snapshot(ipc_inbox_sender *sender, uint64_t next_offset);
IPC_CHECKED int ipc_inbox_end_snapshot_wait(ipc_inbox_sender *sender, uint64_t next_offset, const struct timespec *deadline);
IPC_CHECKED int ipc_inbox_abort_snapshot(ipc_inbox_sender *sender);
IPC_CHECKED int ipc_inbox_send_frame(ipc_inbox_sender *sender, uint64_t offset, const void *data, size_t size);
IPC_CHECKED int ipc_inbox_send_frame_wait(ipc_inbox_sender *sender, uint64_t offset, const void *data, size_t size, const struct timespec *deadline);
IPC_CHECKED int ipc_inbox_claim_frame(ipc_inbox_sender *sender, size_t size, void **ret_data);
IPC_CHECKED int ipc_inbox_claim_frame_wait(ipc_inbox_sender *sender, size_t size, void **ret_data, const struct timespec *deadline);
IPC_CHECKED int ipc_inbox_commit_frame(ipc_inbox_sender *sender, uint64_t offset, void *data, size_t size);   /* size <= claimed */
IPC_CHECKED int ipc_inbox_abort_frame(ipc_inbox_sender *sender, void *data);
IPC_CHECKED int ipc_inbox_wanted_wait(ipc_inbox_sender *sender, uint64_t *served, const struct timespec *deadline);   /* a request newer than *served */
IPC_CHECKED int ipc_inbox_get_positions(ipc_inbox_sender *sender, struct ipc_inbox_positions *ret);
IPC_CHECKED int ipc_inbox_applied_wait(ipc_inbox_sender *sender, uint64_t offset, const struct timespec *deadline);

IPC_CHECKED int ipc_inbox_receiver_open_wait(ipc_inbox_receiver **ret, ipc_client *client, const char *name,
                                             const struct ipc_inbox_options *options, const struct timespec *deadline);
IPC_CHECKED int ipc_inbox_receive(ipc_inbox_receiver *receiver, struct ipc_inbox_event *ret);
IPC_CHECKED int ipc_inbox_receive_wait(ipc_inbox_receiver *receiver, struct ipc_inbox_event *ret, const struct timespec *deadline);
IPC_CHECKED int ipc_inbox_receive_many(ipc_inbox_receiver *receiver, struct ipc_inbox_event *ret, unsigned n);   /* number received, >= 1 */
IPC_CHECKED int ipc_inbox_receive_many_wait(ipc_inbox_receiver *receiver, struct ipc_inbox_event *ret, unsigned n, const struct timespec *deadline);
IPC_CHECKED int ipc_inbox_mark_applied(ipc_inbox_receiver *receiver, const struct ipc_inbox_event *event);
IPC_CHECKED int ipc_inbox_request_snapshot(ipc_inbox_receiver *receiver);      /* "I cannot continue from here"; 1: one is on its way */
IPC_CHECKED int ipc_inbox_receiver_get_positions(ipc_inbox_receiver *receiver, struct ipc_inbox_positions *ret);

IPC_CHECKED int ipc_inbox_observer_open_wait(ipc_inbox_observer **ret, ipc_client *client, const char *name, const struct timespec *deadline);
IPC_CHECKED int ipc_inbox_observer_get_positions(ipc_inbox_observer *observer, struct ipc_inbox_positions *ret);
IPC_CHECKED int ipc_inbox_observer_applied_wait(ipc_inbox_observer *observer, uint64_t generation, uint64_t offset, const struct timespec *deadline);
ipc_inbox_observer *ipc_inbox_observer_close(ipc_inbox_observer *observer);

#ifdef __cplusplus
}
#endif

#endif
