/* SPDX-License-Identifier: MIT */

/*
 * The heap of windows against a scan of all.
 */

#include <criterion/criterion.h>
#include <stdlib.h>

#include "broker/windows.h"

enum { CHANNELS = 50, STEPS = 20000 };

static struct channel channels[CHANNELS];

static const struct channel *earliest(void)
{
	const struct channel *found = NULL;

	for (unsigned i = 0; i < CHANNELS; ++i) {
		const struct channel *channel = &channels[i];

		if (channel->window_ns != 0 && (!found || channel->window_ns < found->window_ns))
			found = channel;
	}
	return found;
}

/* C-16 */
Test(windows, the_first_is_the_earliest, .timeout = 60)
{
	struct registry *registry = calloc(1, sizeof(*registry));

	cr_assert_not_null(registry);
	srand(7);
	for (unsigned i = 0; i < STEPS; ++i) {
		struct channel *channel = &channels[rand() % CHANNELS];
		uint64_t at_ns = rand() % 3 == 0 ? 0 : 1 + (uint64_t)rand() % 1000;
		const struct channel *first, *expected;

		windows_set(registry, channel, at_ns);
		first = windows_first(registry);
		expected = earliest();
		cr_assert_eq(first != NULL, expected != NULL);
		if (first)
			cr_assert_eq(first->window_ns, expected->window_ns, "step %u", i);
	}
	free(registry);
}

/* C-2 */
Test(windows, for_ever_is_no_window, .timeout = 60)
{
	struct registry *registry = calloc(1, sizeof(*registry));

	cr_assert_not_null(registry);
	windows_set(registry, &channels[0], UINT64_MAX);
	cr_assert_null(windows_first(registry));
	windows_set(registry, &channels[0], 5);
	cr_assert_eq(windows_first(registry), &channels[0]);
	windows_set(registry, &channels[0], UINT64_MAX);
	cr_assert_null(windows_first(registry));
	free(registry);
}
