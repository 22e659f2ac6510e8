/* SPDX-License-Identifier: MIT */
#include <ipc/error.h>

/*
 * The closed table in words.  A result is looked up by its number; what is not in the table is a
 * number that the library never returns, and gets an answer all the same, because programs print
 * first and think later.
 */

#include <ipc/version.h>

#include "libipc/platform/compiler.h"

struct error_entry {
	int result;
	enum ipc_class class;
	const char *name;
	const char *text;
};

static const struct error_entry error_table[] = {
	{IPC_EAGAIN, IPC_CLASS_RETRY, "IPC_EAGAIN", "nothing to take, or no room, right now"},
	{IPC_ETIMEDOUT, IPC_CLASS_RETRY, "IPC_ETIMEDOUT", "the deadline passed first"},
	{IPC_EINTR, IPC_CLASS_RETRY, "IPC_EINTR", "a signal handler ran during the wait"},
	{IPC_EBUSY, IPC_CLASS_RETRY, "IPC_EBUSY",
	 "the role, the lock or the last place is held by others"},
	{IPC_ENOTCONN, IPC_CLASS_PEER, "IPC_ENOTCONN", "nobody is on the other side now"},
	{IPC_EPIPE, IPC_CLASS_PEER, "IPC_EPIPE",
	 "the other side is gone: it closed, or the channel was shut down"},
	{IPC_EOWNERDEAD, IPC_CLASS_PEER, "IPC_EOWNERDEAD", "the other side is gone: it died"},
	{IPC_ECONNREFUSED, IPC_CLASS_PEER, "IPC_ECONNREFUSED", "no broker listens there"},
	{IPC_ECONNRESET, IPC_CLASS_PEER, "IPC_ECONNRESET",
	 "the broker ended and did not come back in time"},
	{IPC_ESTALE, IPC_CLASS_PEER, "IPC_ESTALE", "fenced: it has been taken over or is used up"},
	{IPC_EMSGSIZE, IPC_CLASS_LIMIT, "IPC_EMSGSIZE",
	 "larger than this channel was made for, or than the buffer given"},
	{IPC_ENOSPC, IPC_CLASS_LIMIT, "IPC_ENOSPC",
	 "no shared memory left, or the key table is full"},
	{IPC_EDQUOT, IPC_CLASS_LIMIT, "IPC_EDQUOT", "the quota or the window is used up"},
	{IPC_ENOENT, IPC_CLASS_NAME, "IPC_ENOENT", "no such name"},
	{IPC_EEXIST, IPC_CLASS_NAME, "IPC_EEXIST", "the name exists"},
	{IPC_EPROTOTYPE, IPC_CLASS_NAME, "IPC_EPROTOTYPE",
	 "the name belongs to another kind or has other options"},
	{IPC_EACCES, IPC_CLASS_ACCESS, "IPC_EACCES", "the rights refuse it"},
	{IPC_EOVERFLOW, IPC_CLASS_LOSS, "IPC_EOVERFLOW", "fell too far behind: resynchronise"},
	{IPC_EINVAL, IPC_CLASS_USAGE, "IPC_EINVAL", "an argument breaks the documented rule"},
	{IPC_E2BIG, IPC_CLASS_USAGE, "IPC_E2BIG",
	 "the options set a field that this library lacks"},
	{IPC_ECHILD, IPC_CLASS_USAGE, "IPC_ECHILD",
	 "used in a forked child of the process that opened it"},
	{IPC_EDEADLK, IPC_CLASS_USAGE, "IPC_EDEADLK",
	 "this thread would wait for itself, or calls from a callback that must not"},
	{IPC_ECANCELED, IPC_CLASS_USAGE, "IPC_ECANCELED", "the handle or the client was cancelled"},
	{IPC_ENOMEM, IPC_CLASS_SYSTEM, "IPC_ENOMEM", "out of memory"},
	{IPC_EMFILE, IPC_CLASS_SYSTEM, "IPC_EMFILE", "out of descriptors in this process"},
	{IPC_ENFILE, IPC_CLASS_SYSTEM, "IPC_ENFILE", "out of descriptors in the system"},
	{IPC_ENOSYS, IPC_CLASS_SYSTEM, "IPC_ENOSYS", "a needed system call is refused"},
	{IPC_EPROTONOSUPPORT, IPC_CLASS_FAULT, "IPC_EPROTONOSUPPORT",
	 "no common version, layout or pid namespace"},
	{IPC_EPROTO, IPC_CLASS_FAULT, "IPC_EPROTO", "the peer broke the protocol"},
	{IPC_EBADMSG, IPC_CLASS_FAULT, "IPC_EBADMSG", "the shared data failed its checks"},
	{IPC_ENOTRECOVERABLE, IPC_CLASS_FAULT, "IPC_ENOTRECOVERABLE", "the value was given up"},
};

static const struct error_entry *error_find(int result)
{
	for (size_t i = 0; i < N_ELEMENTS(error_table); ++i)
		if (error_table[i].result == result)
			return &error_table[i];

	return NULL;
}

enum ipc_class ipc_error_class(int result)
{
	const struct error_entry *entry = error_find(result);

	return entry ? entry->class : IPC_CLASS_NONE;
}

const char *ipc_error_name(int result)
{
	const struct error_entry *entry = error_find(result);

	if (entry)
		return entry->name;

	return result >= 0 ? "done" : "unknown";
}

const char *ipc_error_text(int result)
{
	const struct error_entry *entry = error_find(result);

	if (entry)
		return entry->text;

	return result >= 0 ? "done" : "unknown";
}

uint32_t ipc_version(void)
{
	return (uint32_t)IPC_VERSION_MAJOR << 16 | (uint32_t)IPC_VERSION_MINOR << 8 |
	       (uint32_t)IPC_VERSION_PATCH;
}
