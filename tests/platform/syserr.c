/* SPDX-License-Identifier: MIT */
#include "libipc/platform/syserr.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

#include <ipc/error.h>

#include "tests/support/process.h"

#define N_ERRORS_MAX 40
#define CALL(call, ...)                                                                            \
	{                                                                                          \
#call, SYSERR_##call,                                                              \
		{                                                                                  \
			__VA_ARGS__                                                                \
		}                                                                                  \
	}

/*
 * What the manual pages list under ERRORS (Linux man-pages 6.03), with unix(7) for sockets and
 * tmpfs for files.  All calls that share a map stand together.
 */
static const struct documented {
	const char *name;
	enum syserr_call call;
	int errors[N_ERRORS_MAX];
} documented[] = {
	CALL(SOCKET, EACCES, EAFNOSUPPORT, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPROTONOSUPPORT,
	     ESOCKTNOSUPPORT, EOPNOTSUPP, EFAULT, EPERM),
	CALL(CONNECT, EACCES, EPERM, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN, EALREADY,
	     EBADF, ECONNREFUSED, EFAULT, EINPROGRESS, EINTR, EISCONN, ENETUNREACH, ENOTSOCK,
	     EPROTOTYPE, ETIMEDOUT, ENOENT, ENOTDIR, ELOOP, EINVAL, ENOMEM),
	CALL(SEND, EACCES, EAGAIN, EALREADY, EBADF, ECONNRESET, EDESTADDRREQ, EFAULT, EINTR, EINVAL,
	     EISCONN, EMSGSIZE, ENOBUFS, ENOMEM, ENOTCONN, ENOTSOCK, EOPNOTSUPP, EPIPE,
	     ETOOMANYREFS, EPERM, ESRCH, ENOENT, ECONNREFUSED, EPROTOTYPE),
	CALL(RECEIVE, EAGAIN, EBADF, ECONNREFUSED, ECONNRESET, EFAULT, EINTR, EINVAL, ENOMEM,
	     ENOTCONN, ENOTSOCK),
	CALL(SOCKOPT, EBADF, EFAULT, EINVAL, ENOPROTOOPT, ENOTSOCK, ESRCH, ENODATA, ERANGE, EMFILE),
	CALL(BIND, EACCES, EADDRINUSE, EADDRNOTAVAIL, EBADF, EFAULT, EINVAL, ELOOP, ENAMETOOLONG,
	     ENOENT, ENOMEM, ENOTDIR, ENOTSOCK, EROFS, EPERM),
	CALL(LISTEN, EADDRINUSE, EBADF, ENOTSOCK, EOPNOTSUPP),
	CALL(ACCEPT, EAGAIN, EBADF, ECONNABORTED, EFAULT, EINTR, EINVAL, EMFILE, ENFILE, ENOBUFS,
	     ENOMEM, ENOSR, ENOTSOCK, EOPNOTSUPP, EPERM, EPROTO, EPROTONOSUPPORT, ESOCKTNOSUPPORT,
	     ETIMEDOUT),
	CALL(OPEN_SHM, EACCES, EEXIST, EINVAL, EMFILE, ENAMETOOLONG, ENFILE, ENOENT, ENOSPC, ENOMEM,
	     EOPNOTSUPP, EISDIR, EROFS, EPERM, EOVERFLOW),
	CALL(OPEN, EACCES, EBADF, EBUSY, EDQUOT, EEXIST, EFAULT, EFBIG, EINTR, EINVAL, EISDIR,
	     ELOOP, EMFILE, ENAMETOOLONG, ENFILE, ENODEV, ENOENT, ENOMEM, ENOSPC, ENOTDIR, ENXIO,
	     EOPNOTSUPP, EOVERFLOW, EPERM, EROFS, ETXTBSY, EWOULDBLOCK),
	CALL(MEMFD, EFAULT, EINVAL, EMFILE, ENFILE, ENOMEM, EACCES, EPERM),
	CALL(TRUNCATE, EACCES, EBADF, EFAULT, EFBIG, EINTR, EINVAL, EIO, EISDIR, ELOOP,
	     ENAMETOOLONG, ENOENT, ENOTDIR, EPERM, EROFS, ETXTBSY, ENOMEM),
	CALL(SEAL, EACCES, EAGAIN, EBADF, EBUSY, EDEADLK, EFAULT, EINTR, EINVAL, EMFILE, ENOLCK,
	     ENOTDIR, EPERM),
	CALL(FALLOCATE, EBADF, EFBIG, EINTR, EINVAL, EIO, ENODEV, ENOSPC, ENOSYS, EOPNOTSUPP, EPERM,
	     ESPIPE, ETXTBSY, ENOMEM),
	CALL(STAT, EACCES, EBADF, EFAULT, EINVAL, ELOOP, ENAMETOOLONG, ENOENT, ENOMEM, ENOTDIR,
	     EOVERFLOW),
	CALL(MMAP, EACCES, EAGAIN, EBADF, EEXIST, EINVAL, ENFILE, ENODEV, ENOMEM, EOVERFLOW, EPERM,
	     ETXTBSY),
	CALL(MADVISE, EACCES, EAGAIN, EBADF, EBUSY, EFAULT, EHWPOISON, EINVAL, EIO, ENOMEM, EPERM),
	CALL(PIDFD, EINVAL, EMFILE, ENFILE, ENODEV, ENOMEM, ESRCH, EBADF, EPERM),
	CALL(EPOLL, EINVAL, EMFILE, ENFILE, ENOMEM, EBADF, EEXIST, ELOOP, ENOENT, ENOSPC, EPERM,
	     EFAULT, EINTR),
	CALL(EVENTFD, EINVAL, EMFILE, ENFILE, ENODEV, ENOMEM, EAGAIN, EBADF, EFAULT, EINTR),
	CALL(POLL, EFAULT, EINTR, EINVAL, ENOMEM),
	CALL(FORK, EAGAIN, ENOMEM, ENOSYS),
	CALL(EXEC, E2BIG, EACCES, EAGAIN, EFAULT, EINVAL, EIO, EISDIR, ELIBBAD, ELOOP, EMFILE,
	     ENAMETOOLONG, ENFILE, ENOENT, ENOEXEC, ENOMEM, ENOTDIR, EPERM, ETXTBSY),
	CALL(LOCKF, EBADF, EINTR, EINVAL, ENOLCK, EWOULDBLOCK, EACCES, EDEADLK),
};

#define N_DOCUMENTED (sizeof(documented) / sizeof(documented[0]))

/* The kind of thing that an errno is, where the table has no entry of its name. */
static enum ipc_class class_of_others(int error)
{
	switch (error) {
	case EALREADY:
	case EINPROGRESS:
	case ETXTBSY:
		return IPC_CLASS_RETRY;
	case ENETUNREACH:
	case ECONNABORTED:
	case EDESTADDRREQ:
	case ENOTSOCK: /* like EBADF: somebody closed our descriptor, and its number is another's
			  now */
	case ESRCH:
	case ENODATA:
		return IPC_CLASS_PEER;
	case EFBIG:
	case ERANGE:
		return IPC_CLASS_LIMIT;
	case EADDRINUSE:
	case ENOTDIR:
		return IPC_CLASS_NAME;
	case EADDRNOTAVAIL:
	case EISCONN:
	case EISDIR:
	case ELOOP:
	case ESPIPE:
		return IPC_CLASS_USAGE;
	case EAFNOSUPPORT:
	case ESOCKTNOSUPPORT:
	case EOPNOTSUPP:
	case ENOPROTOOPT:
	case ENOEXEC:
	case ELIBBAD:
	case ENOBUFS:
	case ENOSR:
	case ENOLCK:
	case ETOOMANYREFS:
		return IPC_CLASS_SYSTEM;
	case EHWPOISON:
		return IPC_CLASS_FAULT;
	default:
		return IPC_CLASS_NONE;
	}
}

/* What a call means by an errno that has another meaning elsewhere. */
static const struct {
	enum syserr_call call;
	int error;
	int result;
} special[] = {
	{SYSERR_CONNECT, ENOENT, IPC_ECONNREFUSED}, /* no broker listens there */
	{SYSERR_CONNECT, ENOTDIR, IPC_ECONNREFUSED},
	{SYSERR_CONNECT, EAFNOSUPPORT, IPC_EINVAL}, /* of the address that was given */
	{SYSERR_SEND, ENOENT, IPC_ECONNREFUSED},
	{SYSERR_SEND, ECONNRESET, IPC_EPIPE},
	{SYSERR_SEND, ESRCH, IPC_EINVAL}, /* of the credentials that were given */
	{SYSERR_SEND, EPERM, IPC_EACCES},
	{SYSERR_RECEIVE, ECONNRESET, IPC_EPIPE},
	{SYSERR_ACCEPT, EPROTONOSUPPORT, IPC_ENOSYS},
	{SYSERR_SOCKET, EPROTONOSUPPORT, IPC_ENOSYS},
	{SYSERR_OPEN_SHM, EISDIR, IPC_ENOSYS},    /* O_TMPFILE is not known */
	{SYSERR_OPEN_SHM, EOVERFLOW, IPC_EACCES}, /* the uid has no meaning there */
	{SYSERR_OPEN, EOVERFLOW, IPC_EMSGSIZE},
	{SYSERR_STAT, EOVERFLOW, IPC_EMSGSIZE},
	{SYSERR_MMAP, EOVERFLOW, IPC_ENOMEM}, /* of address space */
	{SYSERR_MMAP, EAGAIN, IPC_ENOMEM},
	{SYSERR_MMAP, EPERM, IPC_EACCES}, /* a seal */
	{SYSERR_MADVISE, EAGAIN, IPC_ENOMEM},
	{SYSERR_FORK, EAGAIN, IPC_ENOMEM},
	{SYSERR_EXEC, EAGAIN, IPC_ENOMEM},
	{SYSERR_SEAL, ENOTDIR, IPC_EINVAL},
	{SYSERR_LOCKF, EACCES, IPC_EBUSY},
};

static int special_of(enum syserr_call call, int error)
{
	for (size_t i = 0; i < sizeof(special) / sizeof(special[0]); ++i)
		if (special[i].call == call && special[i].error == error)
			return special[i].result;

	return 0;
}

/* Calls that open a file or a socket. */
static _Bool opens(enum syserr_call call)
{
	return call == SYSERR_SOCKET || call == SYSERR_CONNECT || call == SYSERR_BIND ||
	       call == SYSERR_ACCEPT || call == SYSERR_OPEN || call == SYSERR_OPEN_SHM ||
	       call == SYSERR_EXEC;
}

/* M-12; 0: not named there */
static int named_result(enum syserr_call call, int error)
{
	switch (error) {
	case EPERM:
		return opens(call) ? IPC_EACCES : IPC_ENOSYS;
	case EROFS:
		return IPC_EACCES;
	case ENXIO:
	case ENODEV:
		return IPC_ENOSYS;
	case EFAULT:
	case ENAMETOOLONG:
		return IPC_EINVAL;
	case EBADF:
		return IPC_ESTALE;
	case EIO:
		return IPC_EPROTO;
	default:
		return 0;
	}
}

static void assert_mapped(const struct documented *d, int error)
{
	int result = syserr(d->call, error);
	int expected = special_of(d->call, error);
	enum ipc_class class = ipc_error_class(-error);

	cr_assert_neq(ipc_error_class(result), IPC_CLASS_NONE, "%s: %s", d->name,
		      strerrorname_np(error));

	if (expected == 0)
		expected = named_result(d->call, error);
	if (expected != 0) {
		cr_assert_eq(result, expected, "%s: %s is %s", d->name, strerrorname_np(error),
			     ipc_error_name(result));
		return;
	}

	if (class == IPC_CLASS_NONE)
		class = class_of_others(error);
	cr_assert_eq(ipc_error_class(result), class, "%s: %s is %s", d->name,
		     strerrorname_np(error), ipc_error_name(result));
}

/* M-11, M-12 */
Test(syserr, every_documented_errno_keeps_its_class, .timeout = 60)
{
	for (size_t i = 0; i < N_DOCUMENTED; ++i)
		for (size_t k = 0; k < N_ERRORS_MAX && documented[i].errors[k]; ++k)
			assert_mapped(&documented[i], documented[i].errors[k]);
}

Test(syserr, every_call_has_a_list, .timeout = 60)
{
	unsigned seen[SYSERR_N_CALLS] = {0};

	for (size_t i = 0; i < N_DOCUMENTED; ++i)
		++seen[documented[i].call];
	for (int call = 0; call < SYSERR_N_CALLS; ++call)
		cr_assert_eq(seen[call], 1, "call %d", call);
}

/* M-12: a sandbox can refuse every call */
Test(syserr, refused_calls_are_refused, .timeout = 60)
{
	for (int call = 0; call < SYSERR_N_CALLS; ++call) {
		int result = syserr((enum syserr_call)call, EPERM);

		cr_assert_eq(syserr((enum syserr_call)call, ENOSYS), IPC_ENOSYS);
		cr_assert(result == IPC_ENOSYS || result == IPC_EACCES);
	}
}

/* M-5, M-11: a bug of ours or of the kernel ends no program */
Test(syserr, what_no_page_names_is_a_fault, .timeout = 60)
{
	cr_assert_eq(syserr(SYSERR_POLL, EDOM), IPC_EPROTO);
}
