/* SPDX-License-Identifier: MIT */
#include "libipc/platform/syserr.h"

/*
 * One list per call, in the order of its manual page, and what its address family or file system
 * adds.  The same errno may mean different things to different calls, so nothing is shared but the
 * last list: a sandbox can refuse any call in two ways.
 *
 * The rules behind the lists (M-12): what was refused by rights is EACCES; what the kernel cannot
 * or may not do ENOSYS; what only a wrong argument can cause EINVAL; a descriptor that is not what
 * we opened ESTALE, since somebody closed it under us; resources of the kernel ENOMEM.
 */

#include <assert.h>
#include <stddef.h>

#include <ipc/error.h>

#include "libipc/platform/compiler.h"

struct syserr_map {
	int error;
	int result;
};

static const struct syserr_map map_refused[] = {
	{EPERM, IPC_ENOSYS},
	{ENOSYS, IPC_ENOSYS},
	{0, 0},
};

static const struct syserr_map map_socket[] = {
	{EACCES, IPC_EACCES},
	{EPERM, IPC_EACCES},
	{EAFNOSUPPORT, IPC_ENOSYS},
	{EINVAL, IPC_EINVAL},
	{EMFILE, IPC_EMFILE},
	{ENFILE, IPC_ENFILE},
	{ENOBUFS, IPC_ENOMEM},
	{ENOMEM, IPC_ENOMEM},
	{EPROTONOSUPPORT, IPC_ENOSYS},
	{ESOCKTNOSUPPORT, IPC_ENOSYS},
	{EOPNOTSUPP, IPC_ENOSYS},
	{EFAULT, IPC_EINVAL},
	{0, 0},
};

/* A path that leads nowhere is a broker that does not listen; a socket of another type belongs to
 * somebody else. */
static const struct syserr_map map_connect[] = {
	{EACCES, IPC_EACCES},
	{EPERM, IPC_EACCES},
	{EADDRINUSE, IPC_EEXIST},
	{EADDRNOTAVAIL, IPC_EINVAL},
	{EAFNOSUPPORT, IPC_EINVAL},
	{EAGAIN, IPC_EAGAIN},
	{EALREADY, IPC_EAGAIN},
	{EBADF, IPC_ESTALE},
	{ECONNREFUSED, IPC_ECONNREFUSED},
	{EFAULT, IPC_EINVAL},
	{EINPROGRESS, IPC_EAGAIN},
	{EINTR, IPC_EINTR},
	{EISCONN, IPC_EINVAL},
	{ENETUNREACH, IPC_ECONNREFUSED},
	{ENOTSOCK, IPC_ESTALE},
	{EPROTOTYPE, IPC_EPROTOTYPE},
	{ETIMEDOUT, IPC_ETIMEDOUT},
	{ENOENT, IPC_ECONNREFUSED},
	{ENOTDIR, IPC_ECONNREFUSED},
	{ELOOP, IPC_EINVAL},
	{ENAMETOOLONG, IPC_EINVAL},
	{EINVAL, IPC_EINVAL},
	{ENOMEM, IPC_ENOMEM},
	{ENOBUFS, IPC_ENOMEM},
	{ECONNRESET, IPC_ECONNREFUSED},
	{EROFS, IPC_EACCES},
	{0, 0},
};

/* Too many descriptors of this user are under way in sockets: ETOOMANYREFS counts against the limit
 * of open ones. */
static const struct syserr_map map_send[] = {
	{EACCES, IPC_EACCES},
	{EPERM, IPC_EACCES},
	{EAGAIN, IPC_EAGAIN},
	{EALREADY, IPC_EAGAIN},
	{EBADF, IPC_ESTALE},
	{ECONNRESET, IPC_EPIPE},
	{ECONNREFUSED, IPC_ECONNREFUSED},
	{EDESTADDRREQ, IPC_ENOTCONN},
	{EFAULT, IPC_EINVAL},
	{EINTR, IPC_EINTR},
	{EINVAL, IPC_EINVAL},
	{EISCONN, IPC_EINVAL},
	{EMSGSIZE, IPC_EMSGSIZE},
	{ENOBUFS, IPC_ENOMEM},
	{ENOMEM, IPC_ENOMEM},
	{ENOTCONN, IPC_ENOTCONN},
	{ENOTSOCK, IPC_ESTALE},
	{EOPNOTSUPP, IPC_ENOSYS},
	{EPIPE, IPC_EPIPE},
	{ETOOMANYREFS, IPC_EMFILE},
	{EPROTOTYPE, IPC_EPROTOTYPE},
	{ENOENT, IPC_ECONNREFUSED},
	{ENOTDIR, IPC_ECONNREFUSED},
	{ELOOP, IPC_EINVAL},
	{ENAMETOOLONG, IPC_EINVAL},
	{ESRCH, IPC_EINVAL},
	{0, 0},
};

static const struct syserr_map map_receive[] = {
	{EAGAIN, IPC_EAGAIN},
	{EBADF, IPC_ESTALE},
	{ECONNREFUSED, IPC_ECONNREFUSED},
	{ECONNRESET, IPC_EPIPE},
	{EFAULT, IPC_EINVAL},
	{EINTR, IPC_EINTR},
	{EINVAL, IPC_EINVAL},
	{ENOMEM, IPC_ENOMEM},
	{ENOBUFS, IPC_ENOMEM},
	{ENOTCONN, IPC_ENOTCONN},
	{ENOTSOCK, IPC_ESTALE},
	{EOPNOTSUPP, IPC_ENOSYS},
	{0, 0},
};

static const struct syserr_map map_sockopt[] = {
	{EBADF, IPC_ESTALE},
	{EFAULT, IPC_EINVAL},
	{EINVAL, IPC_EINVAL},
	{ENOPROTOOPT, IPC_ENOSYS},
	{ENOTSOCK, IPC_ESTALE},
	{EOPNOTSUPP, IPC_ENOSYS},
	{ENOMEM, IPC_ENOMEM},
	{EMFILE, IPC_EMFILE},
	{ENFILE, IPC_ENFILE},
	{ESRCH, IPC_ESTALE},
	{ENODATA, IPC_ESTALE},
	{ERANGE, IPC_EMSGSIZE},
	{0, 0},
};

static const struct syserr_map map_bind[] = {
	{EACCES, IPC_EACCES},        {EPERM, IPC_EACCES},  {EADDRINUSE, IPC_EEXIST},
	{EBADF, IPC_ESTALE},         {EINVAL, IPC_EINVAL}, {ENOTSOCK, IPC_ESTALE},
	{EADDRNOTAVAIL, IPC_EINVAL}, {EFAULT, IPC_EINVAL}, {ELOOP, IPC_EINVAL},
	{ENAMETOOLONG, IPC_EINVAL},  {ENOENT, IPC_ENOENT}, {ENOMEM, IPC_ENOMEM},
	{ENOTDIR, IPC_ENOENT},       {EROFS, IPC_EACCES},  {ENOSPC, IPC_ENOSPC},
	{EDQUOT, IPC_EDQUOT},        {EIO, IPC_EPROTO},    {0, 0},
};

static const struct syserr_map map_listen[] = {
	{EADDRINUSE, IPC_EEXIST}, {EBADF, IPC_ESTALE},  {ENOTSOCK, IPC_ESTALE},
	{EOPNOTSUPP, IPC_ENOSYS}, {EINVAL, IPC_EINVAL}, {0, 0},
};

/* EPERM: a firewall rule. The one who connected may be gone before it was accepted. */
static const struct syserr_map map_accept[] = {
	{EAGAIN, IPC_EAGAIN},
	{EBADF, IPC_ESTALE},
	{ECONNABORTED, IPC_EPIPE},
	{EFAULT, IPC_EINVAL},
	{EINTR, IPC_EINTR},
	{EINVAL, IPC_EINVAL},
	{EMFILE, IPC_EMFILE},
	{ENFILE, IPC_ENFILE},
	{ENOBUFS, IPC_ENOMEM},
	{ENOMEM, IPC_ENOMEM},
	{ENOTSOCK, IPC_ESTALE},
	{EOPNOTSUPP, IPC_ENOSYS},
	{EPERM, IPC_EACCES},
	{EPROTO, IPC_EPROTO},
	{ENOSR, IPC_ENOMEM},
	{ESOCKTNOSUPPORT, IPC_ENOSYS},
	{EPROTONOSUPPORT, IPC_ENOSYS},
	{ETIMEDOUT, IPC_ETIMEDOUT},
	{EACCES, IPC_EACCES},
	{0, 0},
};

/* shm_open(), and openat() of a file that never gets a name.  EOVERFLOW: this uid is none there. */
static const struct syserr_map map_open_shm[] = {
	{EACCES, IPC_EACCES},       {EPERM, IPC_EACCES},  {EROFS, IPC_EACCES},
	{EEXIST, IPC_EEXIST},       {EINVAL, IPC_EINVAL}, {EMFILE, IPC_EMFILE},
	{ENAMETOOLONG, IPC_EINVAL}, {ENFILE, IPC_ENFILE}, {ENOENT, IPC_ENOENT},
	{ENOTDIR, IPC_ENOENT},      {ENOMEM, IPC_ENOMEM}, {ENOSPC, IPC_ENOSPC},
	{EDQUOT, IPC_EDQUOT},       {ELOOP, IPC_EINVAL},  {EBADF, IPC_ESTALE},
	{EOPNOTSUPP, IPC_ENOSYS},   {EISDIR, IPC_ENOSYS}, {EOVERFLOW, IPC_EACCES},
	{EINTR, IPC_EINTR},         {EIO, IPC_EPROTO},    {0, 0},
};

static const struct syserr_map map_open[] = {
	{EACCES, IPC_EACCES},      {EPERM, IPC_EACCES},
	{EBADF, IPC_ESTALE},       {EBUSY, IPC_EBUSY},
	{EDQUOT, IPC_EDQUOT},      {EEXIST, IPC_EEXIST},
	{EFAULT, IPC_EINVAL},      {EFBIG, IPC_EMSGSIZE},
	{EINTR, IPC_EINTR},        {EINVAL, IPC_EINVAL},
	{EISDIR, IPC_EINVAL},      {ELOOP, IPC_EINVAL},
	{EMFILE, IPC_EMFILE},      {ENAMETOOLONG, IPC_EINVAL},
	{ENFILE, IPC_ENFILE},      {ENODEV, IPC_ENOSYS},
	{ENOENT, IPC_ENOENT},      {ENOMEM, IPC_ENOMEM},
	{ENOSPC, IPC_ENOSPC},      {ENOTDIR, IPC_ENOENT},
	{ENXIO, IPC_ENOSYS},       {EOPNOTSUPP, IPC_ENOSYS},
	{EOVERFLOW, IPC_EMSGSIZE}, {EROFS, IPC_EACCES},
	{ETXTBSY, IPC_EBUSY},      {EAGAIN, IPC_EAGAIN},
	{EIO, IPC_EPROTO},         {0, 0},
};

/* EACCES: vm.memfd_noexec wants a flag that this kernel got without it. */
static const struct syserr_map map_memfd[] = {
	{EFAULT, IPC_EINVAL},
	{EINVAL, IPC_EINVAL},
	{EMFILE, IPC_EMFILE},
	{ENFILE, IPC_ENFILE},
	{ENOMEM, IPC_ENOMEM},
	{EACCES, IPC_EACCES},
	{0, 0},
};

/* ftruncate() and fchmod() of our own descriptor.  A size that no file may have is a lack of room.
 */
static const struct syserr_map map_truncate[] = {
	{EACCES, IPC_EACCES},       {EBADF, IPC_ESTALE},  {EFAULT, IPC_EINVAL},
	{EFBIG, IPC_ENOSPC},        {EINTR, IPC_EINTR},   {EINVAL, IPC_EINVAL},
	{EIO, IPC_EPROTO},          {EISDIR, IPC_EINVAL}, {ELOOP, IPC_EINVAL},
	{ENAMETOOLONG, IPC_EINVAL}, {ENOENT, IPC_ENOENT}, {ENOTDIR, IPC_ENOENT},
	{EROFS, IPC_EACCES},        {ETXTBSY, IPC_EBUSY}, {ENOMEM, IPC_ENOMEM},
	{ENOSPC, IPC_ENOSPC},       {EDQUOT, IPC_EDQUOT}, {0, 0},
};

/* All of fcntl(). */
static const struct syserr_map map_seal[] = {
	{EACCES, IPC_EACCES},   {EAGAIN, IPC_EAGAIN}, {EBADF, IPC_ESTALE},   {EBUSY, IPC_EBUSY},
	{EDEADLK, IPC_EDEADLK}, {EFAULT, IPC_EINVAL}, {EINTR, IPC_EINTR},    {EINVAL, IPC_EINVAL},
	{EMFILE, IPC_EMFILE},   {ENOLCK, IPC_ENOMEM}, {ENOTDIR, IPC_EINVAL}, {0, 0},
};

static const struct syserr_map map_fallocate[] = {
	{EBADF, IPC_ESTALE},      {EFBIG, IPC_ENOSPC},
	{EINTR, IPC_EINTR},       {EINVAL, IPC_EINVAL},
	{EIO, IPC_EPROTO},        {ENODEV, IPC_ENOSYS},
	{ENOSPC, IPC_ENOSPC},     {EDQUOT, IPC_EDQUOT},
	{EOPNOTSUPP, IPC_ENOSYS}, {ESPIPE, IPC_EINVAL},
	{ETXTBSY, IPC_EBUSY},     {ENOMEM, IPC_ENOMEM},
	{EROFS, IPC_EACCES},      {0, 0},
};

static const struct syserr_map map_stat[] = {
	{EACCES, IPC_EACCES},      {EBADF, IPC_ESTALE},  {EFAULT, IPC_EINVAL},
	{EINVAL, IPC_EINVAL},      {ELOOP, IPC_EINVAL},  {ENAMETOOLONG, IPC_EINVAL},
	{ENOENT, IPC_ENOENT},      {ENOMEM, IPC_ENOMEM}, {ENOTDIR, IPC_ENOENT},
	{EOVERFLOW, IPC_EMSGSIZE}, {EIO, IPC_EPROTO},    {0, 0},
};

/* EPERM: a seal refuses a writable map.  EOVERFLOW and EAGAIN: address space and locked memory are
 * used up. */
static const struct syserr_map map_mmap[] = {
	{EACCES, IPC_EACCES}, {EPERM, IPC_EACCES},     {EAGAIN, IPC_ENOMEM}, {EBADF, IPC_ESTALE},
	{EEXIST, IPC_EEXIST}, {EINVAL, IPC_EINVAL},    {ENFILE, IPC_ENFILE}, {ENODEV, IPC_ENOSYS},
	{ENOMEM, IPC_ENOMEM}, {EOVERFLOW, IPC_ENOMEM}, {ETXTBSY, IPC_EBUSY}, {0, 0},
};

/* EAGAIN is what the kernel makes of its ENOMEM when it cannot split a map. */
static const struct syserr_map map_madvise[] = {
	{EACCES, IPC_EACCES}, {EAGAIN, IPC_ENOMEM},
	{EBADF, IPC_ESTALE},  {EBUSY, IPC_EBUSY},
	{EFAULT, IPC_EINVAL}, {EHWPOISON, IPC_EPROTO},
	{EINVAL, IPC_EINVAL}, {EIO, IPC_EPROTO},
	{ENOMEM, IPC_ENOMEM}, {0, 0},
};

/* pidfd_open(), pidfd_send_signal(): no such process any more is a peer that has ended. */
static const struct syserr_map map_pidfd[] = {
	{EBADF, IPC_ESTALE},  {EINVAL, IPC_EINVAL}, {EMFILE, IPC_EMFILE}, {ENFILE, IPC_ENFILE},
	{ENODEV, IPC_ENOSYS}, {ENOMEM, IPC_ENOMEM}, {ESRCH, IPC_ESTALE},  {0, 0},
};

/* ENOSPC: this user's watches are used up, which is a quota and no lack of shared memory. */
static const struct syserr_map map_epoll[] = {
	{EBADF, IPC_ESTALE},  {EEXIST, IPC_EEXIST}, {EFAULT, IPC_EINVAL}, {EINTR, IPC_EINTR},
	{EINVAL, IPC_EINVAL}, {ELOOP, IPC_EINVAL},  {EMFILE, IPC_EMFILE}, {ENFILE, IPC_ENFILE},
	{ENOENT, IPC_ENOENT}, {ENOMEM, IPC_ENOMEM}, {ENOSPC, IPC_EDQUOT}, {0, 0},
};

/* eventfd(), and read() and write() of one. */
static const struct syserr_map map_eventfd[] = {
	{EINVAL, IPC_EINVAL}, {EMFILE, IPC_EMFILE},
	{ENFILE, IPC_ENFILE}, {ENODEV, IPC_ENOSYS},
	{ENOMEM, IPC_ENOMEM}, {EAGAIN, IPC_EAGAIN},
	{EBADF, IPC_ESTALE},  {EFAULT, IPC_EINVAL},
	{EINTR, IPC_EINTR},   {0, 0},
};

static const struct syserr_map map_poll[] = {
	{EFAULT, IPC_EINVAL},
	{EINTR, IPC_EINTR},
	{EINVAL, IPC_EINVAL},
	{ENOMEM, IPC_ENOMEM},
	{0, 0},
};

/* EAGAIN: no process left for this user or group, a resource like memory. */
static const struct syserr_map map_fork[] = {
	{EAGAIN, IPC_ENOMEM},
	{ENOMEM, IPC_ENOMEM},
	{0, 0},
};

static const struct syserr_map map_exec[] = {
	{E2BIG, IPC_E2BIG},    {EACCES, IPC_EACCES},
	{EPERM, IPC_EACCES},   {EAGAIN, IPC_ENOMEM},
	{EFAULT, IPC_EINVAL},  {EINVAL, IPC_EINVAL},
	{EIO, IPC_EPROTO},     {EISDIR, IPC_EINVAL},
	{ELIBBAD, IPC_ENOSYS}, {ELOOP, IPC_EINVAL},
	{EMFILE, IPC_EMFILE},  {ENAMETOOLONG, IPC_EINVAL},
	{ENFILE, IPC_ENFILE},  {ENOENT, IPC_ENOENT},
	{ENOEXEC, IPC_ENOSYS}, {ENOMEM, IPC_ENOMEM},
	{ENOTDIR, IPC_ENOENT}, {ETXTBSY, IPC_EBUSY},
	{EBADF, IPC_ESTALE},   {0, 0},
};

/* flock() and lockf(): EAGAIN and EACCES are how they say that somebody else has it. */
static const struct syserr_map map_lockf[] = {
	{EAGAIN, IPC_EBUSY}, {EACCES, IPC_EBUSY},  {EBADF, IPC_ESTALE},  {EDEADLK, IPC_EDEADLK},
	{EINTR, IPC_EINTR},  {EINVAL, IPC_EINVAL}, {ENOLCK, IPC_ENOMEM}, {0, 0},
};

static const struct syserr_map *const syserr_maps[SYSERR_N_CALLS] = {
	[SYSERR_SOCKET] = map_socket,     [SYSERR_CONNECT] = map_connect,
	[SYSERR_SEND] = map_send,         [SYSERR_RECEIVE] = map_receive,
	[SYSERR_SOCKOPT] = map_sockopt,   [SYSERR_BIND] = map_bind,
	[SYSERR_LISTEN] = map_listen,     [SYSERR_ACCEPT] = map_accept,
	[SYSERR_OPEN_SHM] = map_open_shm, [SYSERR_OPEN] = map_open,
	[SYSERR_MEMFD] = map_memfd,       [SYSERR_TRUNCATE] = map_truncate,
	[SYSERR_SEAL] = map_seal,         [SYSERR_FALLOCATE] = map_fallocate,
	[SYSERR_STAT] = map_stat,         [SYSERR_MMAP] = map_mmap,
	[SYSERR_MADVISE] = map_madvise,   [SYSERR_PIDFD] = map_pidfd,
	[SYSERR_EPOLL] = map_epoll,       [SYSERR_EVENTFD] = map_eventfd,
	[SYSERR_POLL] = map_poll,         [SYSERR_FORK] = map_fork,
	[SYSERR_EXEC] = map_exec,         [SYSERR_LOCKF] = map_lockf,
};

static int syserr_find(const struct syserr_map *map, int error)
{
	for (; map->error; ++map)
		if (map->error == error)
			return map->result;

	return 0;
}

int syserr(enum syserr_call call, int error)
{
	int result;

	assert(call >= 0 && call < SYSERR_N_CALLS);

	result = syserr_find(syserr_maps[call], error);
	if (result == 0)
		result = syserr_find(map_refused, error);
	if (result < 0)
		return result;

	/* A bug of ours or of the kernel; a library does not end its program for that. */
	return IPC_EPROTO;
}
