/* SPDX-License-Identifier: MIT */
#include "libipc/client/options.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>

#include <ipc/ipc.h>

#include "libipc/client/location.h"

struct known {
	size_t size;
	uint64_t flags;
	uint64_t number;
};

struct longer {
	struct known known;
	uint64_t more;
};

/* M-41 */
Test(options, null_means_defaults, .timeout = 60)
{
	struct known known = {1, 2, 3};

	cr_assert_eq(options_copy(&known, sizeof(known), NULL), 0);
	cr_assert_eq(known.size, sizeof(known));
	cr_assert_eq(known.flags, 0);
	cr_assert_eq(known.number, 0);
}

/* M-41 */
Test(options, shorter_struct_is_filled_up_with_zeros, .timeout = 60)
{
	struct known given = {offsetof(struct known, number), 2, 3}, known = {9, 9, 9};

	cr_assert_eq(options_copy(&known, sizeof(known), &given), 0);
	cr_assert_eq(known.flags, 2);
	cr_assert_eq(known.number, 0);
	cr_assert_eq(known.size, sizeof(known));
}

/* M-41: not even the size field alone is too short; less than that is. */
Test(options, smallest_size_is_the_size_field, .timeout = 60)
{
	struct known given = {sizeof(size_t), 2, 3}, known;

	cr_assert_eq(options_copy(&known, sizeof(known), &given), 0);
	cr_assert_eq(known.flags, 0);

	given.size = sizeof(size_t) - 1;
	cr_assert_eq(options_copy(&known, sizeof(known), &given), IPC_EINVAL);
	given.size = 0;
	cr_assert_eq(options_copy(&known, sizeof(known), &given), IPC_EINVAL);
}

/* M-41 */
Test(options, longer_struct_must_be_zero_beyond_what_is_known, .timeout = 60)
{
	struct longer given = {{sizeof(given), 2, 3}, 0};
	struct known known;

	cr_assert_eq(options_copy(&known, sizeof(known), &given), 0);
	cr_assert_eq(known.number, 3);
	cr_assert_eq(known.size, sizeof(known));

	((unsigned char *)&given)[sizeof(given) - 1] = 1;
	cr_assert_eq(options_copy(&known, sizeof(known), &given), IPC_E2BIG);
}

/* M-41: a size that was never set is not followed into the woods. */
Test(options, absurd_size_is_too_big, .timeout = 60)
{
	struct known given = {SIZE_MAX, 0, 0}, known;

	cr_assert_eq(options_copy(&known, sizeof(known), &given), IPC_E2BIG);
}

/* M-41, M-43, M-47, M-50 */
Test(options, flags_and_mode_are_checked, .timeout = 60)
{
	const uint64_t allowed = IPC_CREATE | IPC_EXCLUSIVE;
	uint32_t mode = 0;

	cr_assert_eq(options_check(IPC_CREATE | IPC_EXCLUSIVE, allowed, &mode), 0);
	cr_assert_eq(mode, 0600);

	mode = 0666;
	cr_assert_eq(options_check(0, allowed, &mode), 0);
	cr_assert_eq(mode, 0666);

	cr_assert_eq(options_check(IPC_EXCLUSIVE, allowed, &mode), IPC_EINVAL);
	cr_assert_eq(options_check(IPC_KEEP, allowed, &mode), IPC_EINVAL);
	cr_assert_eq(options_check(IPC_CREAT, allowed, &mode), IPC_EINVAL);
	cr_assert_eq(options_check(IPC_EXCL, allowed, &mode), IPC_EINVAL);
	cr_assert_eq(options_check(UINT64_C(1) << 63, allowed, &mode), IPC_EINVAL);

	mode = 0700;
	cr_assert_eq(options_check(0, allowed, &mode), IPC_EINVAL);
	mode = 04600;
	cr_assert_eq(options_check(0, allowed, &mode), IPC_EINVAL);
}

/* M-46 */
Test(options, info_is_written_up_to_the_smaller_size, .timeout = 60)
{
	struct known known = {sizeof(known), 5, 6};
	struct longer given = {{sizeof(given), 1, 1}, 1};

	cr_assert_eq(options_write_info(&given, &known, sizeof(known)), 0);
	cr_assert_eq(given.known.size, sizeof(given));
	cr_assert_eq(given.known.number, 6);
	cr_assert_eq(given.more, 1);

	given.known = (struct known){offsetof(struct known, number), 1, 1};
	cr_assert_eq(options_write_info(&given, &known, sizeof(known)), 0);
	cr_assert_eq(given.known.flags, 5);
	cr_assert_eq(given.known.number, 1);

	given.known.size = sizeof(size_t) - 1;
	cr_assert_eq(options_write_info(&given, &known, sizeof(known)), IPC_EINVAL);
}

/* M-41 */
Test(options, of_a_client_are_checked_before_anything_is_done, .timeout = 60)
{
	struct ipc_client_options options = IPC_CLIENT_OPTIONS_INIT;
	const struct timespec wrong = {0, 1000000000};
	ipc_client *client = NULL;

	cr_assert_eq(ipc_client_connect_wait(NULL, NULL, NULL), IPC_EINVAL);

	options.flags = 1;
	cr_assert_eq(ipc_client_connect_wait(&client, &options, NULL), IPC_EINVAL);
	options.flags = IPC_CREATE;
	cr_assert_eq(ipc_client_connect_wait(&client, &options, NULL), IPC_EINVAL);
	options.flags = 0;
	options.size = 3;
	cr_assert_eq(ipc_client_connect_wait(&client, &options, NULL), IPC_EINVAL);
	options.size = sizeof(options);
	options.address = "";
	cr_assert_eq(ipc_client_connect_wait(&client, &options, NULL), IPC_EINVAL);
	options.address = "/tmp/ipc-test-none/broker";
	cr_assert_eq(ipc_client_connect_wait(&client, &options, &wrong), IPC_EINVAL);
	cr_assert_null(client);
}

/* M-40 */
Test(location, is_found_in_this_order, .timeout = 60)
{
	struct location location;

	setenv("IPC_BROKER", "/b/from-ipc-broker", 1);
	setenv("XDG_RUNTIME_DIR", "/x", 1);
	cr_assert_eq(location_find(&location, "/a/given"), 0);
	cr_assert_str_eq(location.path, "/a/given");
	cr_assert(location.is_given && !location.is_runtime);

	cr_assert_eq(location_find(&location, NULL), 0);
	cr_assert_str_eq(location.path, "/b/from-ipc-broker");
	cr_assert(!location.is_given && !location.is_runtime);

	setenv("IPC_BROKER", "", 1);
	cr_assert_eq(location_find(&location, NULL), 0);
	cr_assert_str_eq(location.path, "/x/ipc/broker");
	cr_assert(!location.is_given && location.is_runtime);

	setenv("XDG_RUNTIME_DIR", "relative", 1);
	cr_assert_eq(location_find(&location, NULL), 0);
	cr_assert_str_eq(location.path, "/run/ipc/broker");

	unsetenv("XDG_RUNTIME_DIR");
	unsetenv("IPC_BROKER");
	cr_assert_eq(location_find(&location, NULL), 0);
	cr_assert_str_eq(location.path, "/run/ipc/broker");
	cr_assert(!location.is_given && !location.is_runtime);
}

/* M-40 */
Test(location, that_no_socket_can_have_is_refused, .timeout = 60)
{
	struct location location;
	char path[200];

	memset(path, 'a', sizeof(path));
	path[0] = '/';
	path[107] = '\0';
	cr_assert_eq(location_find(&location, path), 0);

	path[107] = 'a';
	path[108] = '\0';
	cr_assert_eq(location_find(&location, path), IPC_EINVAL);
	cr_assert_eq(location_find(&location, ""), IPC_EINVAL);
}
