/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_PLATFORM_COMPILER_H
#define LIBIPC_PLATFORM_COMPILER_H

/*
 * What the compiler can do for us: clean-up by scope, branch hints, layout assertions.
 */

#include <assert.h>
#include <stddef.h>

#define CLEANUP(fn)       __attribute__((__cleanup__(fn)))
#define LIKELY(x)         __builtin_expect(!!(x), 1)
#define UNLIKELY(x)       __builtin_expect(!!(x), 0)
#define N_ELEMENTS(array) (sizeof(array) / sizeof((array)[0]))

/* Gives what *p holds to the caller and leaves NULL behind: the owner on the way out changes. */
#define steal(p)                                                                                   \
	({                                                                                         \
		__typeof__(*(p)) stolen_ = *(p);                                                   \
		*(p) = NULL;                                                                       \
		stolen_;                                                                           \
	})

/* A shared structure's layout is part of the protocol: each size and offset is stated where it is
 * declared. */
#define ASSERT_SIZE(type, bytes) static_assert(sizeof(type) == (bytes), "size of " #type)
#define ASSERT_OFFSET(type, field, bytes)                                                          \
	static_assert(offsetof(type, field) == (bytes), "offset of " #type "." #field)

#endif
