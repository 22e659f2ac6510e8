/* SPDX-License-Identifier: MIT */
#ifndef BROKER_POLICY_H
#define BROKER_POLICY_H

/*
 * Who may do what: legality of an OPEN, rights at creation, at opening, at looking and at removal
 * (M-43, M-50, M-53, M-54).  Pure decisions over records.
 */

#include <stdbool.h>
#include <stdint.h>

#include "broker/state.h"
#include "include/ipc/admin.h"
#include "include/ipc/error.h"

/* Who asks. */
struct policy_subject {
	uint32_t uid, gid;
	bool is_foreign;
	int socket_fd; /* of its supplementary groups the kernel knows; -1: it has none */
};

struct policy_role {
	enum ipc_kind kind;
	unsigned side;
	bool takes_lock;  /* writes the segment, in which a pthread lock stands */
	bool is_local;    /* leaves its threads' numbers there: for the broker's pid namespace */
	bool is_followed; /* its own side waits for what it holds: is told of its death, too */
	bool maps_readonly;
	bool is_uncounted; /* keeps nothing alive, and makes nothing */
	bool passes_fds;   /* has its side's end of the channel's socket pair */
};

/* NULL: a role that this broker does not serve. */
const struct policy_role *policy_role(uint32_t role);

/* Flags that shape a channel of this kind. */
uint64_t policy_shape_flags(uint32_t kind);

/* What needs no channel: 0, IPC_EPROTONOSUPPORT (kind), IPC_EINVAL. */
IPC_CHECKED int policy_check_request(const struct message_open *open);

/* Rights and sizes of a channel to be made. 0, IPC_EACCES, IPC_EINVAL, IPC_EPROTONOSUPPORT. */
IPC_CHECKED int policy_check_creation(const struct policy_subject *subject,
				      const struct message_open *open);

/* An existing channel: IPC_EEXIST, IPC_EACCES, IPC_EPROTONOSUPPORT, IPC_EPROTOTYPE; IPC_EINVAL: it
 * cannot be anybody's dead letters, since it has some. */
IPC_CHECKED int policy_check_open(const struct policy_subject *subject,
				  const struct channel_record *channel,
				  const struct message_open *open);

bool policy_may_read(const struct policy_subject *subject, const struct channel_record *channel);
bool policy_may_remove(const struct policy_subject *subject, const struct channel_record *channel);

/* Whether a mode lets anybody beside the owner open a channel of this kind. */
bool policy_is_public(uint32_t kind, uint32_t mode);

#endif
