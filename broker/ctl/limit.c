/* SPDX-License-Identifier: MIT */

/*
 * The command limit: a program runs while this process holds a permit.  Whoever kills this process
 * kills the program as well, and the permit is free at once.
 */

#include <ipc/error.h>
#include <ipc/limiter.h>

#include "broker/ctl/ctl.h"
#include "broker/ctl/run.h"

static int limit_run(const struct ctl *ctl)
{
	enum run_end end;
	struct run run;
	int error, status;

	error = run_begin(&run);
	if (error)
		return ctl_fail_errno(ctl->args[0], error);

	end = run_program(&run, ctl->run, 0, NULL, NULL, &status);
	run_end(&run);
	return end == RUN_ENDED ? status : ctl_fail_errno(ctl->run[0], status);
}

int ctl_limit(const struct ctl *ctl)
{
	struct ipc_limiter_grant grant;
	ipc_limiter *limiter;
	int r, status;

	r = ipc_limiter_open_wait(
		&limiter, ctl->client, ctl->args[0],
		IPC_LIMITER_OPTIONS(.flags = IPC_CREATE, .permits = ctl->n_permits), ctl->deadline);
	if (r < 0)
		return ctl_fail(ctl->args[0], r);

	r = ipc_limiter_acquire_wait(limiter, 1, &grant, ctl->deadline);
	status = r < 0 ? ctl_fail(ctl->args[0], r) : limit_run(ctl);

	/* Closing releases what is held. */
	ipc_limiter_close(limiter);
	return status;
}
