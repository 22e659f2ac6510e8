/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_PATTERN_H
#define TESTS_SUPPORT_PATTERN_H

/*
 * Bytes that tell themselves: a word, then words that follow from it, so that what was torn or came
 * from elsewhere shows.  By words, since a test that kills at every instruction takes a time that
 * goes with the square of a loop's length.
 */

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Added to the number once more, this changes each byte of what follows. */
#define PATTERN_OF_ONE UINT64_C(0x1f1f1f1f1f1f1f1f)
#define PATTERN_NEXT   UINT64_C(0x3b1d0b5347711f07)

static inline void pattern_fill(void *data, uint64_t size, uint64_t number)
{
	unsigned char *bytes = data;
	uint64_t word = htole64(number), after = number * PATTERN_OF_ONE;

	for (; size > 8; size -= 8, bytes += 8) {
		memcpy(bytes, &word, 8);
		after += PATTERN_NEXT;
		word = htole64(after);
	}
	if (size > 0)
		memcpy(bytes, &word, size);
}

static inline bool pattern_is(const void *data, uint64_t size, uint64_t number)
{
	const unsigned char *bytes = data;
	uint64_t word = htole64(number), after = number * PATTERN_OF_ONE;

	for (; size > 8; size -= 8, bytes += 8) {
		if (memcmp(bytes, &word, 8) != 0)
			return false;
		after += PATTERN_NEXT;
		word = htole64(after);
	}
	return size == 0 || memcmp(bytes, &word, size) == 0;
}

/* The number with which it was filled, of 8 bytes or more; of fewer what they hold of it. */
static inline uint64_t pattern_number(const void *data, uint64_t size)
{
	uint64_t word = 0;

	if (size > 0)
		memcpy(&word, data, size < 8 ? size : 8);
	return le64toh(word);
}

#endif
