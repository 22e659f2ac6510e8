/* SPDX-License-Identifier: MIT */
#include "libipc/platform/bytes.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define SIZE_MAX_TESTED 10000
#define ROOM            (SIZE_MAX_TESTED + 64)

static unsigned char source[ROOM], target[ROOM];

static void fill(void)
{
	for (size_t i = 0; i < ROOM; ++i)
		source[i] = (unsigned char)(i * 7 + i / 256 + 1);
}

/* Exactly [at, at + size) of target was written, with what is in source. */
static _Bool is_copied(size_t to, size_t from, size_t size)
{
	for (size_t i = 0; i < ROOM; ++i) {
		unsigned char expected = i >= to && i < to + size ? source[from + (i - to)] : 0xaa;

		if (target[i] != expected)
			return 0;
	}
	return 1;
}

static void assert_copies(size_t to, size_t from, size_t size)
{
	memset(target, 0xaa, ROOM);
	bytes_read_shared(target + to, source + from, size);
	cr_assert(is_copied(to, from, size), "read of %zu bytes, %zu to %zu", size, from, to);

	memset(target, 0xaa, ROOM);
	bytes_write_shared(target + to, source + from, size);
	cr_assert(is_copied(to, from, size), "write of %zu bytes, %zu to %zu", size, from, to);
}

Test(bytes, every_alignment_and_size_is_copied_exactly, .timeout = 60)
{
	static const size_t sizes[] = {
		0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 63, 64, 65, 4095, 4096, 4097, SIZE_MAX_TESTED};

	fill();
	for (size_t to = 8; to < 16; ++to)
		for (size_t from = 8; from < 16; ++from)
			for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); ++i)
				assert_copies(to, from, sizes[i]);
}

/* M-72 */
Test(bytes, nothing_may_come_from_nowhere, .timeout = 60)
{
	bytes_read_shared(NULL, NULL, 0);
	bytes_write_shared(NULL, NULL, 0);
}

#define N_SHARED_WORDS 512

static _Alignas(64) uint64_t shared_words[N_SHARED_WORDS];
static _Atomic uint32_t is_over;

static void *flip(void *arg)
{
	static uint64_t zeros[N_SHARED_WORDS], ones[N_SHARED_WORDS];

	memset(ones, 0xff, sizeof(ones));
	while (!atomic_load(&is_over)) {
		bytes_write_shared(shared_words, ones, sizeof(ones));
		bytes_write_shared(shared_words, zeros, sizeof(zeros));
	}
	return arg;
}

/* Copies may be torn, but never within a word. */
Test(bytes, words_are_whole, .timeout = 60)
{
	uint64_t copy[N_SHARED_WORDS];
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, flip, NULL), 0);
	for (unsigned round = 0; round < 20000; ++round) {
		bytes_read_shared(copy, shared_words, sizeof(copy));
		for (unsigned i = 0; i < N_SHARED_WORDS; ++i)
			if (copy[i] != 0 && copy[i] != UINT64_MAX) {
				atomic_store(&is_over, 1);
				cr_assert_fail("word %u is 0x%llx", i, (unsigned long long)copy[i]);
			}
	}
	atomic_store(&is_over, 1);
	pthread_join(thread, NULL);
}

Test(bytes, arithmetic_tells_overflow, .timeout = 60)
{
	uint64_t r;

	cr_assert(bytes_add(UINT64_MAX - 1, 1, &r));
	cr_assert_eq(r, UINT64_MAX);
	cr_assert_not(bytes_add(UINT64_MAX, 1, &r));

	cr_assert(bytes_multiply(UINT64_C(1) << 32, UINT32_MAX, &r));
	cr_assert_eq(r, UINT64_C(0xffffffff00000000));
	cr_assert_not(bytes_multiply(UINT64_C(1) << 32, UINT64_C(1) << 32, &r));
}
