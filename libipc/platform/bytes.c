/* SPDX-License-Identifier: MIT */
#include "libipc/platform/bytes.h"

/*
 * One loop per direction.  The shared side decides the alignment: single bytes up to the next
 * 8-byte boundary, words, then the rest. The private side is any memory; an 8-byte memcpy is one
 * move there.
 */

#include <stdatomic.h>
#include <string.h>

#define BYTES_IN_WORDS_MAX 4096

#if defined(__SANITIZE_THREAD__)
#define BYTES_ALWAYS_IN_WORDS true
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define BYTES_ALWAYS_IN_WORDS true
#endif
#endif
#ifndef BYTES_ALWAYS_IN_WORDS
#define BYTES_ALWAYS_IN_WORDS false
#endif

/* Whatever type the memory has for others, here it is words. */
typedef uint64_t __attribute__((__may_alias__)) shared_word;

static size_t bytes_to_boundary(const void *shared, size_t size)
{
	size_t n = -(uintptr_t)shared & 7;

	return n < size ? n : size;
}

static const unsigned char *bytes_read_single(unsigned char *to, const unsigned char *shared,
					      size_t size)
{
	for (size_t i = 0; i < size; ++i)
		to[i] = __atomic_load_n(shared + i, __ATOMIC_RELAXED);

	return shared + size;
}

static unsigned char *bytes_write_single(unsigned char *shared, const unsigned char *from,
					 size_t size)
{
	for (size_t i = 0; i < size; ++i)
		__atomic_store_n(shared + i, from[i], __ATOMIC_RELAXED);

	return shared + size;
}

void bytes_read_shared(void *to, const void *shared, size_t size)
{
	const unsigned char *source = shared;
	unsigned char *target = to;
	size_t head;

	if (size == 0)
		return;

	if (size > BYTES_IN_WORDS_MAX && !BYTES_ALWAYS_IN_WORDS) {
		atomic_signal_fence(memory_order_seq_cst);
		memcpy(to, shared, size);
		atomic_signal_fence(memory_order_seq_cst);
		return;
	}

	head = bytes_to_boundary(shared, size);
	source = bytes_read_single(target, source, head);
	target += head;
	size -= head;

	for (; size >= 8; size -= 8, source += 8, target += 8) {
		uint64_t word = __atomic_load_n((const shared_word *)(const void *)source,
						__ATOMIC_RELAXED);

		memcpy(target, &word, 8);
	}

	(void)bytes_read_single(target, source, size);
}

void bytes_write_shared(void *shared, const void *from, size_t size)
{
	const unsigned char *source = from;
	unsigned char *target = shared;
	size_t head;

	if (size == 0)
		return;

	if (size > BYTES_IN_WORDS_MAX && !BYTES_ALWAYS_IN_WORDS) {
		atomic_signal_fence(memory_order_seq_cst);
		memcpy(shared, from, size);
		atomic_signal_fence(memory_order_seq_cst);
		return;
	}

	head = bytes_to_boundary(shared, size);
	target = bytes_write_single(target, source, head);
	source += head;
	size -= head;

	for (; size >= 8; size -= 8, source += 8, target += 8) {
		uint64_t word;

		memcpy(&word, source, 8);
		__atomic_store_n((shared_word *)(void *)target, word, __ATOMIC_RELAXED);
	}

	(void)bytes_write_single(target, source, size);
}
