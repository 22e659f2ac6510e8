/* SPDX-License-Identifier: MIT */
#include "libipc/client/location.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ipc/error.h>

static int location_set(struct location *location, const char *directory, const char *name)
{
	int n = snprintf(location->path, sizeof(location->path), "%s%s", directory, name);

	return n > 0 && (size_t)n < sizeof(location->path) ? 0 : IPC_EINVAL;
}

/* An empty variable counts as none. */
static const char *location_variable(const char *name)
{
	const char *value = secure_getenv(name);

	return value && value[0] != '\0' ? value : NULL;
}

int location_find(struct location *ret, const char *given)
{
	struct location location = {.is_given = given != NULL};
	const char *value;
	int r;

	if (given) {
		r = location_set(&location, given, "");
	} else if ((value = location_variable("IPC_BROKER"))) {
		r = location_set(&location, value, "");
	} else if ((value = location_variable("XDG_RUNTIME_DIR")) && value[0] == '/') {
		/* A relative directory is to be ignored, says the specification of the variable. */
		location.is_runtime = true;
		r = location_set(&location, value, "/ipc/broker");
	} else {
		r = location_set(&location, "/run/ipc/broker", "");
	}

	if (r == 0)
		*ret = location;
	return r;
}
