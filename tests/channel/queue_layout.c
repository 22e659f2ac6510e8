/* SPDX-License-Identifier: MIT */
/*
 * The rooms of a queue: whatever items the two bounds allow find a block each.
 */
#include "libipc/channel/queue.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include <ipc/error.h>

#include "tests/support/queue_scene.h"

static struct queue_scene scene;
static struct queue_member a;

static void begin(uint64_t items, uint64_t bytes, uint64_t item_size)
{
	const uint64_t shape[4] = QUEUE_SHAPE(1, items, bytes, item_size, 3);

	queue_scene_init(&scene, shape, NULL);
	queue_scene_enter(&scene, &a, 11);
}

static void end(void)
{
	queue_scene_deinit(&scene);
}

static uint64_t least(uint64_t one, uint64_t other)
{
	return one < other ? one : other;
}

/* ---- shapes ---- */

static void expect_shape(bool is_good, uint64_t items, uint64_t priorities, uint64_t bytes,
			 uint64_t item_size, uint32_t rate, uint32_t burst)
{
	const uint64_t shape[4] = {items | priorities << 32, bytes, item_size | UINT64_C(3) << 32,
				   (uint64_t)rate | (uint64_t)burst << 32};
	struct queue_layout layout;

	cr_expect_eq(queue_layout(&layout, shape), is_good,
		     "%lu items, %lu priorities, %lu bytes, %lu an item, rate %u, burst %u",
		     (unsigned long)items, (unsigned long)priorities, (unsigned long)bytes,
		     (unsigned long)item_size, rate, burst);
	cr_expect_eq(queue_segment_size(shape) != 0, is_good);
}

Test(queue_layout, shapes_that_cannot_be_are_none)
{
	expect_shape(true, 1, 1, 1, 1, 0, 0);
	expect_shape(true, 1024, 8, 1 << 20, 1 << 16, 100, 100);
	expect_shape(true, QUEUE_ITEMS_MAX, 1, QUEUE_BYTES_MAX, 1 << 16, 0, 0);
	expect_shape(false, 0, 1, 1, 1, 0, 0);
	expect_shape(false, 1, 0, 1, 1, 0, 0);
	expect_shape(false, 1, 9, 1, 1, 0, 0);
	expect_shape(false, 1, 1, 0, 0, 0, 0);
	expect_shape(false, 1, 1, 10, 11, 0, 0);
	expect_shape(false, 1, 1, 10, 0, 0, 0);
	expect_shape(false, (uint64_t)QUEUE_ITEMS_MAX + 1, 1, 10, 10, 0, 0);
	expect_shape(false, 1, 1, QUEUE_BYTES_MAX + 1, 10, 0, 0);
	expect_shape(false, 1, 1, 10, 10, 0, 5);
	expect_shape(false, 1, 1, 10, 10, 5, 0);
}

/* What lies where. */
static void expect_layout(uint64_t items, uint64_t bytes, uint64_t item_size)
{
	const uint64_t shape[4] = QUEUE_SHAPE(3, items, bytes, item_size, 3);
	struct queue_layout layout;
	uint64_t n = 0, end_of_last = 0;

	cr_assert(queue_layout(&layout, shape));
	cr_expect_eq(layout.n_classes, 3);
	cr_expect_leq(layout.n_groups, QUEUE_GROUPS_MAX);
	cr_expect_gt(layout.ring_size, items);
	for (uint32_t i = 0; i < layout.n_groups; ++i) {
		const struct queue_group *group = &layout.group[i];
		uint64_t wanted = least(bytes / (n + 1), item_size);

		cr_expect_eq(group->first, n);
		cr_expect_gt(group->n, 0);
		cr_expect_geq(group->room, wanted,
			      "%lu items, %lu bytes: block %lu has room for %lu",
			      (unsigned long)items, (unsigned long)bytes, (unsigned long)n,
			      (unsigned long)group->room);
		cr_expect_geq(group->stride,
			      sizeof(struct queue_block) + group->room + QUEUE_NAME_SIZE);
		cr_expect_eq(group->stride % 64, 0);
		cr_expect_eq(group->distance % 64, 0);
		cr_expect_geq(group->distance, end_of_last);
		if (i > 0)
			cr_expect_lt(group->room, layout.group[i - 1].room);
		end_of_last = group->distance + group->n * group->stride;
		n += group->n;
	}
	cr_expect_eq(n, items);
	cr_expect_leq(layout.words + items * 8, layout.entries);
	cr_expect_leq(layout.entries + layout.ring_size * 8, layout.blocks);
	cr_expect_eq(layout.blocks % 64, 0);
	cr_expect_leq(layout.blocks + end_of_last, layout.class_size);
	cr_expect_geq(layout.first_class, sizeof(struct queue_segment));
	cr_expect_leq(layout.first_class + 3 * layout.class_size, layout.size);
	cr_expect_eq(queue_segment_size(shape), layout.size);
}

Test(queue_layout, blocks_lie_beside_each_other_and_fall_in_size, .timeout = 60)
{
	static const uint64_t items[] = {1, 2, 3, 7, 64, 100, 1000, 4095, 100000, QUEUE_ITEMS_MAX};
	static const uint64_t bytes[] = {1,    63,      64,        1000,
					 4096, 1 << 20, 123456789, QUEUE_BYTES_MAX};

	for (unsigned i = 0; i < 10; ++i) {
		for (unsigned k = 0; k < 8; ++k) {
			expect_layout(items[i], bytes[k],
				      bytes[k] < UINT32_MAX ? bytes[k] : 1 << 30);
			expect_layout(items[i], bytes[k], bytes[k] < 64 ? 1 : 64);
		}
	}
}

/* ---- so many fit ---- */

static void fill(uint64_t size, uint64_t n, uint64_t number)
{
	for (uint64_t i = 0; i < n; ++i)
		cr_assert_eq(queue_scene_push(&a, 0, number + i, size), 0,
			     "%lu items, %lu bytes: item %lu of %lu of size %lu is refused",
			     (unsigned long)a.view.layout.items_max,
			     (unsigned long)a.view.layout.bytes_max, (unsigned long)i,
			     (unsigned long)n, (unsigned long)size);
	cr_assert_eq(queue_scene_push(&a, 0, 0, size), IPC_EAGAIN,
		     "%lu items, %lu bytes: %lu of size %lu are too many",
		     (unsigned long)a.view.layout.items_max, (unsigned long)a.view.layout.bytes_max,
		     (unsigned long)n + 1, (unsigned long)size);
}

/* Some are given back in an order of their own, and the rest requeued first: leases of all. */
static void free_some(uint64_t n, uint64_t *random)
{
	uint64_t *lease = calloc(n + 1, sizeof(*lease));
	struct ipc_queue_item item;

	for (uint64_t i = 0; i < n; ++i) {
		cr_assert_eq(queue_take(&a.view, &item), 0);
		lease[i] = item.lease;
	}
	for (uint64_t i = n; i > 1; --i) {
		uint64_t k =
			(*random = *random * 6364136223846793005u + 1442695040888963407u) >> 33;
		uint64_t swapped = lease[k % i];

		lease[k % i] = lease[i - 1];
		lease[i - 1] = swapped;
	}
	for (uint64_t i = 0; i < n; ++i)
		cr_assert_eq(queue_ack(&a.view, lease[i]), 0);
	free(lease);
}

static void drain(void)
{
	struct ipc_queue_item item;
	int r;

	while ((r = queue_take(&a.view, &item)) == 0)
		cr_assert_eq(queue_ack(&a.view, item.lease), 0);
	cr_assert_eq(r, IPC_EAGAIN);
	cr_assert_eq(queue_scene_count(&a.view, 0, QUEUE_FREE), a.view.layout.items_max);
}

/* Exactly as many of one size as both bounds allow, and again after some have gone. */
static void expect_so_many(uint64_t items, uint64_t bytes, uint64_t item_size)
{
	uint64_t sizes[] = {0,
			    1,
			    7,
			    bytes / 2,
			    bytes / 3,
			    bytes / 5,
			    bytes / 2 + 1,
			    bytes / items,
			    bytes / items + 1,
			    item_size,
			    bytes / 7,
			    64,
			    100};
	uint64_t random = items * 31 + bytes;

	begin(items, bytes, item_size);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); ++i) {
		uint64_t size = least(sizes[i], item_size);
		uint64_t n = size == 0 ? items : least(items, bytes / size);

		fill(size, n, 1);
		free_some(n / 2, &random);
		fill(size, n / 2, 1);
		free_some(n, &random);
		fill(size, n, 1);
		drain();
	}
	end();
}

/* both bounds are exact. */
Test(queue_layout, as_many_items_of_one_size_fit_as_the_bounds_allow, .timeout = 50)
{
	expect_so_many(1, 1, 1);
	expect_so_many(1, 4096, 4096);
	expect_so_many(4, 4096, 4096);
	expect_so_many(5, 999, 999);
	expect_so_many(16, 100000, 30000);
	expect_so_many(63, 8191, 8191);
	expect_so_many(64, 8192, 1000);
	expect_so_many(100, 65537, 65537);
	expect_so_many(300, 1 << 20, 1 << 16);
}

/* Whatever comes, without others going. */
static void expect_mixed(uint64_t seed, uint64_t items, uint64_t bytes)
{
	uint64_t n = 0, n_bytes = 0, random = seed * 977 + 1;

	begin(items, bytes, bytes);
	for (unsigned tries = 0; tries < 400; ++tries) {
		uint64_t size, most;
		bool fits;

		random = random * 6364136223846793005u + 1442695040888963407u;
		most = tries % 3 == 0 ? bytes : tries % 3 == 1 ? bytes / items * 2 : 20;
		size = least((random >> 33) % (most + 1), bytes);
		fits = n < items && n_bytes + size <= bytes;
		cr_assert_eq(queue_scene_push(&a, 0, 1, size), fits ? 0 : IPC_EAGAIN,
			     "seed %lu: %lu bytes beside %lu items of %lu, of %lu and %lu",
			     (unsigned long)seed, (unsigned long)size, (unsigned long)n,
			     (unsigned long)n_bytes, (unsigned long)items, (unsigned long)bytes);
		n += fits;
		n_bytes += fits ? size : 0;
	}
	drain();
	end();
}

/* */
Test(queue_layout, arrivals_of_mixed_sizes_always_fit_within_the_bounds, .timeout = 50)
{
	for (uint64_t seed = 1; seed <= 30; ++seed) {
		expect_mixed(seed, 40, 10000);
		expect_mixed(seed, 7, 4096);
		expect_mixed(seed, 200, 5000);
	}
}

/* */
Test(queue_layout, bytes_are_counted_exactly)
{
	begin(1024, 4096, 4096);
	cr_expect_eq(queue_scene_push(&a, 0, 1, 3000), 0);
	cr_expect_eq(queue_scene_push(&a, 0, 2, 2000), IPC_EAGAIN);
	cr_expect_eq(queue_scene_push(&a, 0, 3, 1000), 0);
	cr_expect_eq(queue_scene_push(&a, 0, 4, 97), IPC_EAGAIN);
	cr_expect_eq(queue_scene_push(&a, 0, 5, 96), 0);
	cr_expect_eq(queue_scene_push(&a, 0, 6, 1), IPC_EAGAIN);
	cr_expect_eq(queue_scene_push(&a, 0, 7, 0), 0, "nothing needs no bytes");
	end();
}

/* ---- attach ---- */

static void expect_attach(int expected, const char *what)
{
	static struct queue view;

	cr_expect_eq(queue_attach(&view, scene.segment, scene.size, scene.shape, 12), expected,
		     "%s", what);
}

Test(queue_layout, segment_that_is_none_is_not_attached)
{
	struct queue_segment *segment;
	static struct queue view;
	uint64_t other[4];

	begin(4, 4096, 4096);
	segment = scene.segment;
	expect_attach(0, "as it was made");

	memcpy(other, scene.shape, sizeof(other));
	other[0] = 5 | UINT64_C(1) << 32;
	cr_expect_eq(queue_attach(&view, segment, scene.size, other, 12), IPC_EBADMSG);
	cr_expect_eq(queue_attach(&view, segment, scene.size / 2, scene.shape, 12), IPC_EBADMSG);
	other[0] = 0;
	cr_expect_eq(queue_attach(&view, segment, scene.size, other, 12), IPC_EBADMSG);

	segment->header.kind++;
	expect_attach(IPC_EBADMSG, "of another kind");
	segment->header.kind--;
	segment->header.magic++;
	expect_attach(IPC_EBADMSG, "not ours");
	segment->header.magic--;
	segment->header.version++;
	expect_attach(IPC_EPROTONOSUPPORT, "of another version");
	segment->header.version--;
	expect_attach(0, "as it was made");
	end();
}
