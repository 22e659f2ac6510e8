/* SPDX-License-Identifier: MIT */
/*
 * The latest value on one mapping: what readers may see, whatever writers do, and what they say
 * about memory that no writer left so.
 */
#include "libipc/core/value.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "libipc/platform/bytes.h"

enum { SIZE_MAX_HERE = 4096, SLOTS = 3 };

static struct value value;
static void *memory;
static size_t memory_size;

static void start(uint64_t size_max, uint32_t n_slots)
{
	uint64_t slots_size = value_slots_size(size_max, n_slots);

	memory_size = sizeof(struct value_control) + slots_size;
	memory = mmap(NULL, memory_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(memory, MAP_FAILED);
	memset(memory, 0xa5, memory_size);
	value_view(&value, memory, (unsigned char *)memory + sizeof(struct value_control), size_max,
		   n_slots);
	value_init(&value);
}

static void setup(void)
{
	start(SIZE_MAX_HERE, SLOTS);
}

static void teardown(void)
{
	munmap(memory, memory_size);
}

static enum value_result put(const void *data, uint64_t size)
{
	struct value_edit edit;
	enum value_result r;

	r = value_begin(&value, &edit);
	if (r != VALUE_DONE)
		return r;

	bytes_write_shared(value_data(&value, &edit), data, size);
	return value_commit(&value, &edit, size);
}

static struct value_slot *slot_of(uint32_t slot)
{
	return (struct value_slot *)(void *)(value.slots + value.stride * slot);
}

static uint32_t latest_slot(void)
{
	return (uint32_t)(atomic_load(&value.control->latest) & 0x7f);
}

/* W-1 */
Test(value, nothing_is_newer_than_0_before_the_first_commit, .init = setup, .fini = teardown,
     .timeout = 60)
{
	char buffer[8] = "before";
	uint64_t size = 77, version = 78;

	cr_assert_eq(value_read(&value, 0, buffer, sizeof(buffer), &size, &version), VALUE_NONE);
	cr_assert_eq(value_version(&value), 0);
	cr_assert_str_eq(buffer, "before");
	cr_assert_eq(size, 77);
	cr_assert_eq(version, 78);
}

/* W-1 */
Test(value, versions_count_1_2_3_and_each_comes_with_its_bytes, .init = setup, .fini = teardown,
     .timeout = 60)
{
	for (uint64_t i = 1; i <= 20; ++i) {
		uint64_t data[4] = {i, i * 3, i * 5, i * 7}, copy[4] = {0}, size, version;

		cr_assert_eq(put(data, sizeof(data)), VALUE_DONE);
		cr_assert_eq(value_read(&value, i - 1, copy, sizeof(copy), &size, &version),
			     VALUE_DONE);

		cr_assert_eq(version, i);
		cr_assert_eq(size, sizeof(data));
		cr_assert_arr_eq(copy, data, sizeof(data));
		cr_assert_eq(value_read(&value, i, copy, sizeof(copy), &size, &version),
			     VALUE_NONE);
	}
}

/* M-72, W-1 */
Test(value, every_size_from_0_to_the_largest_comes_back, .init = setup, .fini = teardown,
     .timeout = 60)
{
	static unsigned char data[SIZE_MAX_HERE], copy[SIZE_MAX_HERE + 1];
	const uint64_t sizes[] = {
		0, 1, 7, 8, 9, 63, 64, 65, 1000, SIZE_MAX_HERE - 1, SIZE_MAX_HERE};

	for (unsigned i = 0; i < SIZE_MAX_HERE; ++i)
		data[i] = (unsigned char)(i * 7 + 1);

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); ++i) {
		uint64_t size, version;

		memset(copy, 0xee, sizeof(copy));
		cr_assert_eq(put(sizes[i] ? data : NULL, sizes[i]), VALUE_DONE);
		cr_assert_eq(
			value_read(&value, 0, sizes[i] ? copy : NULL, sizes[i], &size, &version),
			VALUE_DONE);

		cr_assert_eq(size, sizes[i]);
		cr_assert_eq(memcmp(copy, data, sizes[i]), 0);
		cr_assert_eq(copy[sizes[i]], 0xee, "wrote beyond the value");
	}
}

/* W-14 */
Test(value, small_buffer_gets_the_needed_size_and_nothing_else, .init = setup, .fini = teardown,
     .timeout = 60)
{
	unsigned char data[100] = {1}, buffer[99];
	uint64_t size = 0, version = 1234;

	memset(buffer, 0xee, sizeof(buffer));
	cr_assert_eq(put(data, sizeof(data)), VALUE_DONE);

	cr_assert_eq(value_read(&value, 0, buffer, sizeof(buffer), &size, &version),
		     VALUE_TOO_LARGE);

	cr_assert_eq(size, 100);
	cr_assert_eq(version, 1234);
	for (unsigned i = 0; i < sizeof(buffer); ++i)
		cr_assert_eq(buffer[i], 0xee);
}

/* W-3: what a writer leaves that dies before the flip, however far it came, is invisible, and the
 * next writer goes on. */
Test(value, unfinished_write_changes_nothing_and_stops_nobody, .init = setup, .fini = teardown,
     .timeout = 60)
{
	uint64_t old = 11, new = 22, copy, size, version;
	struct value_edit edit;

	cr_assert_eq(put(&old, sizeof(old)), VALUE_DONE);
	cr_assert_eq(value_begin(&value, &edit), VALUE_DONE);
	bytes_write_shared(value_data(&value, &edit), &new, sizeof(new));

	cr_assert_eq(value_read(&value, 0, &copy, sizeof(copy), &size, &version), VALUE_DONE);
	cr_assert_eq(copy, 11);
	cr_assert_eq(version, 1);

	cr_assert_eq(put(&new, sizeof(new)), VALUE_DONE);
	cr_assert_eq(value_read(&value, 1, &copy, sizeof(copy), &size, &version), VALUE_DONE);
	cr_assert_eq(copy, 22);
	cr_assert_eq(version, 2);
}

/* W-13 */
Test(value, edit_starts_from_the_latest_value, .init = setup, .fini = teardown, .timeout = 60)
{
	struct value_edit edit;
	unsigned char *data;
	uint64_t size = 9;

	cr_assert_eq(value_begin(&value, &edit), VALUE_DONE);
	cr_assert_eq(value_copy_latest(&value, &edit, &size), VALUE_DONE);
	data = value_data(&value, &edit);
	cr_assert_eq(size, 0);
	cr_assert_eq((uintptr_t)data & 63, 0);
	for (unsigned i = 0; i < SIZE_MAX_HERE; ++i)
		cr_assert_eq(data[i], 0, "byte %u of the first edit is not 0", i);

	cr_assert_eq(put("latest", 7), VALUE_DONE);
	cr_assert_eq(value_begin(&value, &edit), VALUE_DONE);
	cr_assert_eq(value_copy_latest(&value, &edit, &size), VALUE_DONE);
	data = value_data(&value, &edit);
	cr_assert_eq(size, 7);
	cr_assert_str_eq((char *)data, "latest");
	cr_assert_eq((uintptr_t)data & 63, 0);
}

/* W-16 */
Test(value, nothing_is_committed_after_the_close_and_the_last_value_stays, .init = setup,
     .fini = teardown, .timeout = 60)
{
	uint64_t data = 5, copy = 0, size, version;
	struct value_edit edit;

	cr_assert_eq(put(&data, sizeof(data)), VALUE_DONE);
	cr_assert_eq(value_begin(&value, &edit), VALUE_DONE);
	cr_assert(!value_is_closed(&value));

	value_close(&value);

	cr_assert(value_is_closed(&value));
	cr_assert_eq(value_commit(&value, &edit, 8), VALUE_CLOSED);
	cr_assert_eq(value_commit(&value, &edit, 8), VALUE_CLOSED);
	cr_assert_eq(value_begin(&value, &edit), VALUE_CLOSED);
	cr_assert_eq(value_read(&value, 0, &copy, sizeof(copy), &size, &version), VALUE_DONE);
	cr_assert_eq(copy, 5);
	cr_assert_eq(version, 1);
}

Test(value, close_before_the_first_value, .init = setup, .fini = teardown, .timeout = 60)
{
	struct value_edit edit;
	uint64_t size, version;

	value_close(&value);

	cr_assert_eq(value_begin(&value, &edit), VALUE_CLOSED);
	cr_assert_eq(value_read(&value, 0, NULL, 0, &size, &version), VALUE_NONE);
}

/* M-60: each kind of damage is told, at once, by readers and by the next writer, and costs no
 * access out of bounds. */
Test(value, damage_is_broken_to_readers_and_writers, .init = setup, .fini = teardown, .timeout = 60)
{
	struct value_edit edit;
	uint64_t data = 5, copy, size, version, good;

	cr_assert_eq(put(&data, sizeof(data)), VALUE_DONE);
	good = atomic_load(&value.control->latest);

	for (uint64_t slot = SLOTS; slot < 128; ++slot) {
		atomic_store(&value.control->latest, (good & ~UINT64_C(0x7f)) | slot);
		cr_assert_eq(value_read(&value, 0, &copy, sizeof(copy), &size, &version),
			     VALUE_BROKEN);
		cr_assert_eq(value_begin(&value, &edit), VALUE_BROKEN);
	}

	atomic_store(&value.control->latest, good + 256);
	cr_assert_eq(value_read(&value, 0, &copy, sizeof(copy), &size, &version), VALUE_BROKEN);
	cr_assert_eq(value_begin(&value, &edit), VALUE_BROKEN);

	atomic_store(&value.control->latest, VALUE_VERSION_MAX << 8);
	atomic_store(&slot_of(0)->sequence, 2 * VALUE_VERSION_MAX);
	cr_assert_eq(value_begin(&value, &edit), VALUE_BROKEN,
		     "the version would start again from 0");

	atomic_store(&value.control->latest, good);
	atomic_store(&slot_of(latest_slot())->size, SIZE_MAX_HERE + 1);
	cr_assert_eq(value_read(&value, 0, &copy, sizeof(copy), &size, &version), VALUE_BROKEN);
	cr_assert_eq(value_begin(&value, &edit), VALUE_BROKEN);
	atomic_store(&slot_of(latest_slot())->size, UINT64_MAX);
	cr_assert_eq(value_read(&value, 0, &copy, UINT64_MAX, &size, &version), VALUE_BROKEN);

	atomic_store(&slot_of(latest_slot())->size, 8);
	atomic_store(&slot_of(latest_slot())->sequence, 3);
	cr_assert_eq(value_read(&value, 0, &copy, sizeof(copy), &size, &version), VALUE_BROKEN);
	cr_assert_eq(value_begin(&value, &edit), VALUE_BROKEN);
}

/* M-60 */
Test(value, latest_word_that_changed_under_a_writer_is_broken, .init = setup, .fini = teardown,
     .timeout = 60)
{
	struct value_edit edit;

	cr_assert_eq(value_begin(&value, &edit), VALUE_DONE);
	atomic_store(&value.control->latest, UINT64_C(7) << 8 | 1);

	cr_assert_eq(value_commit(&value, &edit, 0), VALUE_BROKEN);
}

Test(value, sizes_that_cannot_be_are_refused, .timeout = 60)
{
	cr_assert_eq(value_slots_size(UINT64_MAX, 3), 0);
	cr_assert_eq(value_slots_size(UINT64_C(1) << 62, 16), 0);
	cr_assert_eq(value_slots_size(0, 3), 3 * 64);
	cr_assert_eq(value_slots_size(1, 3), 3 * 128);
	cr_assert_eq(value_slots_size(64, 8), 8 * 128);
	cr_assert_eq(value_slots_size(65, 8), 8 * 192);
}

static _Atomic uint32_t stop;

/* Every word of a value is its version: torn shows as two different words. */
static void *write_fast(void *arg)
{
	uint64_t n_words = *(uint64_t *)arg;
	uint64_t *data = calloc(n_words, 8);

	for (uint64_t version = 1; !atomic_load_explicit(&stop, memory_order_relaxed); ++version) {
		/* The size changes too, so that a torn size would show. */
		uint64_t n = n_words - version % 3;

		for (uint64_t i = 0; i < n; ++i)
			data[i] = version;
		if (put(data, n * 8) != VALUE_DONE)
			break;
	}
	free(data);
	return NULL;
}

static void read_against_a_fast_writer(uint64_t n_words, uint32_t n_slots, uint64_t n_reads)
{
	uint64_t *copy = calloc(n_words, 8);
	uint64_t last = 0, n_done = 0;
	pthread_t writer;

	start(n_words * 8, n_slots);
	cr_assert_eq(pthread_create(&writer, NULL, write_fast, &n_words), 0);

	while (n_done < n_reads) {
		uint64_t size = 0, version = 0;
		enum value_result r = value_read(&value, 0, copy, n_words * 8, &size, &version);

		if (r == VALUE_NONE && last == 0)
			continue;
		cr_assert_eq(r, VALUE_DONE, "read %lu said %d", n_done, r);
		cr_assert_geq(version, last, "version went back");
		cr_assert_eq(size, (n_words - version % 3) * 8, "size of another version");
		for (uint64_t i = 0; i < size / 8; ++i)
			cr_assert_eq(copy[i], version, "torn at word %lu", i);
		last = version;
		++n_done;
	}

	atomic_store(&stop, 1);
	pthread_join(writer, NULL);
	free(copy);
	teardown();
}

/* W-2 */
Test(value, read_of_a_small_value_is_whole_and_finishes_against_a_fast_writer, .timeout = 60)
{
	read_against_a_fast_writer(8, 8, 300000);
}

/* W-2 */
Test(value, read_of_a_large_value_is_whole_and_finishes_against_a_fast_writer, .timeout = 60)
{
	read_against_a_fast_writer(32768, 4, 2000);
}

/* W-2: three slots are the least that works; the reader's copy takes as long as a write. */
Test(value, read_is_whole_with_the_fewest_slots, .timeout = 60)
{
	read_against_a_fast_writer(512, VALUE_SLOTS_MIN, 20000);
}
