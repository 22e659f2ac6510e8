/* SPDX-License-Identifier: MIT */
/*
 * A program of somebody else: finds the library, uses it where there is no broker, prints the
 * library's version.
 */

#include <ipc/ipc.h>
#include <stdio.h>

int main(void)
{
	ipc_client *client = NULL;
	struct timespec deadline;
	uint32_t version = ipc_version();
	int r;

	ipc_deadline_after(&deadline, UINT64_C(50000000));
	r = ipc_client_connect_wait(&client,
				    IPC_CLIENT_OPTIONS(.address = "/nonexistent/broker",
						       .flags = IPC_CLIENT_NO_AUTOSTART),
				    &deadline);
	if (r >= 0 || ipc_error_class(r) == IPC_CLASS_NONE) {
		fprintf(stderr, "connected to nothing: %s\n", ipc_error_name(r));
		return 1;
	}

	printf("%u.%u.%u\n", version >> 16, version >> 8 & 0xff, version & 0xff);
	return 0;
}
