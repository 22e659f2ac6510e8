/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_PLATFORM_BYTES_H
#define LIBIPC_PLATFORM_BYTES_H

/*
 * Copies to and from memory that another process may be writing or reading at the same time.  What
 * is read may be torn: the caller finds that out afterwards (sequence words) and drops it.  Sizes
 * up to 4 KiB go in 8-byte words, each a relaxed atomic access; larger ones through memcpy between
 * compiler barriers, which no supported compiler splits into anything that matters here.  Under
 * ThreadSanitizer always in words.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void bytes_read_shared(void *to, const void *shared, size_t size);
void bytes_write_shared(void *shared, const void *from, size_t size);

/* *ret = a + b, a * b; false on overflow. */
static inline bool bytes_add(uint64_t a, uint64_t b, uint64_t *ret)
{
	return !__builtin_add_overflow(a, b, ret);
}

static inline bool bytes_multiply(uint64_t a, uint64_t b, uint64_t *ret)
{
	return !__builtin_mul_overflow(a, b, ret);
}

#endif
