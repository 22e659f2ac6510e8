/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_PLATFORM_PEER_H
#define LIBIPC_PLATFORM_PEER_H

/*
 * Who is at the other end of a Unix socket: credentials and a descriptor of the process (pidfd),
 * safe against pid reuse.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct peer_identity {
	pid_t pid; /* as seen from here; 0: of a pid namespace that is not visible from here */
	uid_t uid;
	gid_t gid;
	int pidfd; /* owned by the caller; readable when the process has ended */
};

/*
 * SO_PEERCRED + SO_PEERPIDFD (Linux 6.5).  Where that is missing: pidfd_open() of the SO_PEERCRED
 * pid, which the caller has to confirm after the first message that carries SCM_CREDENTIALS with
 * the same pid (peer_identity_confirm). IPC_ESTALE: the peer has already ended.
 */
int peer_identify(int socket_fd, struct peer_identity *ret, bool *ret_needs_confirmation);

/*
 * The sender of the message at the head of the socket's queue, which stays there.  IPC_EAGAIN:
 * none, or one that was sent before peer_identify() asked for credentials.  Only sensible where a
 * confirmation is needed.
 */
int peer_sender(int socket_fd, pid_t *ret_pid);

/* sender_pid from SCM_CREDENTIALS of a later message; 0 if the pidfd's process is that one and
 * lives, IPC_ESTALE if not. */
int peer_identity_confirm(const struct peer_identity *identity, pid_t sender_pid);

/* 1 if the process behind a pidfd has ended, 0 if not. */
int peer_has_ended(int pidfd);

/*
 * No thread and no process of this id in this pid namespace, or a dead process that nobody has
 * reaped yet.  Needs no right, keeps errno.  A thread that is not its process's first is gone once
 * its id is.
 */
bool peer_is_gone(pid_t tid);

/* Whether the peer's supplementary groups (SO_PEERGROUPS) or its gid contain gid. */
bool peer_in_group(int socket_fd, const struct peer_identity *identity, gid_t gid);

/* /proc/<pid>/comm into name[size]; "" where it cannot be read. */
void peer_process_name(pid_t pid, char *name, unsigned size);

/* For tests of the fallback: behave as if the kernel had no SO_PEERPIDFD. */
void peer_refuse_peerpidfd(void);

#endif
