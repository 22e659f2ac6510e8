/* SPDX-License-Identifier: MIT */
#include "libipc/core/liveness.h"

#include <criterion/criterion.h>
#include <sys/mman.h>

#include <ipc/error.h>

#include "libipc/core/header.h"

static struct liveness_table *table;

static void setup(void)
{
	table = mmap(NULL, sizeof(*table), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	cr_assert_neq(table, MAP_FAILED);
	liveness_table_init(table, 1000);
}

static void teardown(void)
{
	munmap(table, sizeof(*table));
}

/* M-22 */
Test(liveness, a_side_is_awaited_present_then_gone, .init = setup, .fini = teardown, .timeout = 60)
{
	uint64_t awaited = liveness_side(table, 3, 1);
	uint64_t present = side_make(0, 2, SIDE_EVER);
	uint64_t gone = side_make(1, 0, SIDE_EVER | SIDE_DIED);

	cr_assert(!side_is_gone(awaited) && side_count(awaited) == 0);
	cr_assert(!side_is_gone(present) && side_count(present) == 2);
	cr_assert(side_is_gone(gone) && side_ends(gone) == 1 && (gone & SIDE_DIED));
	cr_assert(side_is_gone(side_make(0, 0, SIDE_FINAL)),
		  "nobody will come: gone, also if nobody ever was there");
}

/* M-22 */
Test(liveness, counts_and_ends_do_not_run_into_each_other, .timeout = 60)
{
	uint64_t word = side_make(UINT32_MAX, 0xffffff, SIDE_FLAGS);

	cr_assert_eq(side_ends(word), UINT32_MAX);
	cr_assert_eq(side_count(word), 0xffffff);
	cr_assert_eq(word & SIDE_FLAGS, SIDE_FLAGS);
	cr_assert_eq(side_count(side_make(1, 0x1000000, 0)), 0,
		     "a count too large is cut, not carried");
}

/* M-3 */
Test(liveness, a_handle_is_known_by_its_whole_id, .init = setup, .fini = teardown, .timeout = 60)
{
	uint64_t id = (UINT64_C(77) << 16) | 5;

	cr_assert(!liveness_handle_is(table, id));
	liveness_handle_set(table, LIVENESS_SLOT(id), id);
	cr_assert(liveness_handle_is(table, id));
	cr_assert(!liveness_handle_is(table, (UINT64_C(78) << 16) | 5),
		  "the slot's next tenant is somebody else");
	liveness_handle_set(table, LIVENESS_SLOT(id), 0);
	cr_assert(!liveness_handle_is(table, id));
	cr_assert(!liveness_handle_is(table, 0), "0 is nobody, also where nobody is");
}

Test(liveness, slots_out_of_range_touch_nothing, .init = setup, .fini = teardown, .timeout = 60)
{
	liveness_handle_set(table, LIVENESS_HANDLES_MAX, 1);
	liveness_side_set(table, LIVENESS_CHANNELS_MAX, 0, 1);
	liveness_side_set(table, 0, 2, 1);
	liveness_attend(table, LIVENESS_CLIENTS_MAX);

	cr_assert_eq(liveness_side(table, 0, 0), 0);
}

Test(liveness, a_foreign_or_short_table_is_refused, .init = setup, .fini = teardown, .timeout = 60)
{
	cr_assert_eq(liveness_table_check(table, sizeof(*table), 1000), 0);
	cr_assert_eq(liveness_table_check(table, sizeof(*table), 1001), IPC_EBADMSG);
	cr_assert_eq(liveness_table_check(table, sizeof(*table) - 1, 1000), IPC_EBADMSG);
	table->magic = 0;
	cr_assert_eq(liveness_table_check(table, sizeof(*table), 1000), IPC_EBADMSG);
}

static const uint64_t shape[4] = {4096, 64, 0, 0};

/* M-62 */
Test(header, another_layout_is_refused_by_its_own_name, .timeout = 60)
{
	static struct channel_header header;

	header_init(&header, 1, 65536, shape);
	cr_assert_eq(header_check(&header, 1, 65536, shape), 0);

	header.version += 1;
	cr_assert_eq(header_check(&header, 1, 65536, shape), IPC_EPROTONOSUPPORT);
	header_init(&header, 1, 65536, shape);
	header.word_size = 4;
	cr_assert_eq(header_check(&header, 1, 65536, shape), IPC_EPROTONOSUPPORT);
	header_init(&header, 1, 65536, shape);
	header.lock_stamp ^= 1;
	cr_assert_eq(header_check(&header, 1, 65536, shape), IPC_EPROTONOSUPPORT);
}

/* M-60 */
Test(header, what_is_no_such_segment_is_a_bad_message, .timeout = 60)
{
	static const uint64_t other[4] = {8192, 64, 0, 0};
	static struct channel_header header;

	header_init(&header, 1, 65536, shape);
	cr_assert_eq(header_check(&header, 2, 65536, shape), IPC_EBADMSG, "another kind");
	cr_assert_eq(header_check(&header, 1, 4096, shape), IPC_EBADMSG, "shorter than it says");
	cr_assert_eq(header_check(&header, 1, 255, shape), IPC_EBADMSG, "shorter than a header");
	cr_assert_eq(header_check(&header, 1, 65536, other), IPC_EBADMSG, "another shape");
	header.magic = 0;
	cr_assert_eq(header_check(&header, 1, 65536, shape), IPC_EBADMSG);
}

/* M-61 */
Test(header, the_first_reason_of_a_break_stays, .timeout = 60)
{
	static struct channel_header header;

	header_init(&header, 1, 65536, shape);
	cr_assert_eq(header_fault(&header), 0);
	cr_assert_eq(header_break(&header, HEADER_GIVEN_UP), IPC_ENOTRECOVERABLE);
	cr_assert_eq(header_break(&header, HEADER_CORRUPT), IPC_ENOTRECOVERABLE);
	cr_assert_eq(header_fault(&header), IPC_ENOTRECOVERABLE);

	header_init(&header, 1, 65536, shape);
	atomic_store(&header.broken, 77);
	cr_assert_eq(header_fault(&header), IPC_EBADMSG, "scribbled: broken, whatever the number");
}
