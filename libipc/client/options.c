/* SPDX-License-Identifier: MIT */
#include "libipc/client/options.h"

#include <stdbool.h>
#include <string.h>

#include <ipc/client.h>
#include <ipc/error.h>

#define MODE_ALL     0666u
#define MODE_DEFAULT 0600u

/* A size beyond this is no struct of options of any version to come, and would make the look at its
 * bytes a long one. */
#define OPTIONS_SIZE_MAX 65536

static bool options_is_zero(const unsigned char *bytes, size_t size)
{
	for (size_t i = 0; i < size; ++i)
		if (bytes[i] != 0)
			return false;

	return true;
}

int options_copy(void *known, size_t known_size, const void *given)
{
	size_t size;

	if (!given) {
		memset(known, 0, known_size);
		memcpy(known, &known_size, sizeof(known_size));
		return 0;
	}

	memcpy(&size, given, sizeof(size));
	if (size < sizeof(size))
		return IPC_EINVAL;
	if (size > OPTIONS_SIZE_MAX)
		return IPC_E2BIG;
	if (size > known_size &&
	    !options_is_zero((const unsigned char *)given + known_size, size - known_size))
		return IPC_E2BIG;

	memset(known, 0, known_size);
	memcpy(known, given, size < known_size ? size : known_size);
	memcpy(known, &known_size, sizeof(known_size));
	return 0;
}

int options_check(uint64_t flags, uint64_t allowed, uint32_t *mode)
{
	if (flags & ~allowed)
		return IPC_EINVAL;
	if ((flags & IPC_EXCLUSIVE) && !(flags & IPC_CREATE))
		return IPC_EINVAL;
	if (*mode & ~MODE_ALL)
		return IPC_EINVAL;

	if (*mode == 0)
		*mode = MODE_DEFAULT;
	return 0;
}

int options_write_info(void *given, const void *known, size_t known_size)
{
	size_t size;

	memcpy(&size, given, sizeof(size));
	if (size < sizeof(size))
		return IPC_EINVAL;

	if (size > known_size)
		size = known_size;

	memcpy((char *)given + sizeof(size), (const char *)known + sizeof(size),
	       size - sizeof(size));
	return 0;
}
