/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_PLATFORM_SYSERR_H
#define LIBIPC_PLATFORM_SYSERR_H

/*
 * From errno to the closed table, one map for each system call that is made: every errno that the
 * call documents is named, and keeps its class (M-11, M-12).  An errno that no map names is a bug
 * of ours or of the kernel: IPC_EPROTO.
 */

enum syserr_call {
	SYSERR_SOCKET,
	SYSERR_CONNECT,
	SYSERR_SEND,
	SYSERR_RECEIVE,
	SYSERR_SOCKOPT,
	SYSERR_BIND,
	SYSERR_LISTEN,
	SYSERR_ACCEPT,
	SYSERR_OPEN_SHM,
	SYSERR_OPEN,
	SYSERR_MEMFD,
	SYSERR_TRUNCATE,
	SYSERR_SEAL,
	SYSERR_FALLOCATE,
	SYSERR_STAT,
	SYSERR_MMAP,
	SYSERR_MADVISE,
	SYSERR_PIDFD,
	SYSERR_EPOLL,
	SYSERR_EVENTFD,
	SYSERR_POLL,
	SYSERR_FORK,
	SYSERR_EXEC,
	SYSERR_LOCKF,
	SYSERR_N_CALLS
};

/* error: positive errno; returns a negative entry of the table. */
int syserr(enum syserr_call call, int error);

#endif
