/* SPDX-License-Identifier: MIT */
#ifndef IPC_ERROR_H
#define IPC_ERROR_H

/*
 * The closed table of results.  Negative is one entry of it, 0 is done, positive is done and tells something.
 */

#include <errno.h>
#include <ipc/version.h>

#define IPC_EAGAIN          (-EAGAIN)
#define IPC_ETIMEDOUT       (-ETIMEDOUT)
#define IPC_EINTR           (-EINTR)
#define IPC_EBUSY           (-EBUSY)
#define IPC_ENOTCONN        (-ENOTCONN)
#define IPC_EPIPE           (-EPIPE)
#define IPC_EOWNERDEAD      (-EOWNERDEAD)
#define IPC_ECONNREFUSED    (-ECONNREFUSED)
#define IPC_ECONNRESET      (-ECONNRESET)
#define IPC_ESTALE          (-ESTALE)
#define IPC_EMSGSIZE        (-EMSGSIZE)
#define IPC_ENOSPC          (-ENOSPC)
#define IPC_EDQUOT          (-EDQUOT)
#define IPC_ENOENT          (-ENOENT)
#define IPC_EEXIST          (-EEXIST)
#define IPC_EPROTOTYPE      (-EPROTOTYPE)
#define IPC_EACCES          (-EACCES)
#define IPC_EOVERFLOW       (-EOVERFLOW)
#define IPC_EINVAL          (-EINVAL)
#define IPC_E2BIG           (-E2BIG)
#define IPC_ECHILD          (-ECHILD)
#define IPC_EDEADLK         (-EDEADLK)
#define IPC_ECANCELED       (-ECANCELED)
#define IPC_ENOMEM          (-ENOMEM)
#define IPC_EMFILE          (-EMFILE)
#define IPC_ENFILE          (-ENFILE)
#define IPC_ENOSYS          (-ENOSYS)
#define IPC_EPROTONOSUPPORT (-EPROTONOSUPPORT)
#define IPC_EPROTO          (-EPROTO)
#define IPC_EBADMSG         (-EBADMSG)
#define IPC_ENOTRECOVERABLE (-ENOTRECOVERABLE)


#ifdef __cplusplus
extern "C" {
#endif

enum ipc_class {
	IPC_CLASS_NONE = 0, IPC_CLASS_RETRY, IPC_CLASS_PEER, IPC_CLASS_LIMIT, IPC_CLASS_NAME, IPC_CLASS_ACCESS,
	IPC_CLASS_LOSS, IPC_CLASS_USAGE, IPC_CLASS_SYSTEM, IPC_CLASS_FAULT
};
enum ipc_class ipc_error_class(int result);
const char *ipc_error_text(int result);           /* "the other side is gone: it died" */
const char *ipc_error_name(int result);           /* "IPC_EOWNERDEAD" */

#ifdef __cplusplus
}
#endif

#endif
