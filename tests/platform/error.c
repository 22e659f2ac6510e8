/* SPDX-License-Identifier: MIT */
#include <ipc/error.h>

#include <criterion/criterion.h>
#include <limits.h>
#include <string.h>

#include <ipc/version.h>

#define N_ELEMENTS(array) (sizeof(array) / sizeof((array)[0]))

/* The table of M-11, as the specification has it. */
#define ENTRY(name, number, class)                                                                 \
	{                                                                                          \
		"IPC_" #name, IPC_##name, number, IPC_CLASS_##class                                \
	}
static const struct {
	const char *name;
	int result;
	int number;
	enum ipc_class class;
} table[] = {
	ENTRY(EAGAIN, 11, RETRY),
	ENTRY(ETIMEDOUT, 110, RETRY),
	ENTRY(EINTR, 4, RETRY),
	ENTRY(EBUSY, 16, RETRY),
	ENTRY(ENOTCONN, 107, PEER),
	ENTRY(EPIPE, 32, PEER),
	ENTRY(EOWNERDEAD, 130, PEER),
	ENTRY(ECONNREFUSED, 111, PEER),
	ENTRY(ECONNRESET, 104, PEER),
	ENTRY(ESTALE, 116, PEER),
	ENTRY(EMSGSIZE, 90, LIMIT),
	ENTRY(ENOSPC, 28, LIMIT),
	ENTRY(EDQUOT, 122, LIMIT),
	ENTRY(ENOENT, 2, NAME),
	ENTRY(EEXIST, 17, NAME),
	ENTRY(EPROTOTYPE, 91, NAME),
	ENTRY(EACCES, 13, ACCESS),
	ENTRY(EOVERFLOW, 75, LOSS),
	ENTRY(EINVAL, 22, USAGE),
	ENTRY(E2BIG, 7, USAGE),
	ENTRY(ECHILD, 10, USAGE),
	ENTRY(EDEADLK, 35, USAGE),
	ENTRY(ECANCELED, 125, USAGE),
	ENTRY(ENOMEM, 12, SYSTEM),
	ENTRY(EMFILE, 24, SYSTEM),
	ENTRY(ENFILE, 23, SYSTEM),
	ENTRY(ENOSYS, 38, SYSTEM),
	ENTRY(EPROTONOSUPPORT, 93, FAULT),
	ENTRY(EPROTO, 71, FAULT),
	ENTRY(EBADMSG, 74, FAULT),
	ENTRY(ENOTRECOVERABLE, 131, FAULT),
};

static _Bool is_entry(int result)
{
	for (size_t i = 0; i < N_ELEMENTS(table); ++i)
		if (table[i].result == result)
			return 1;
	return 0;
}

/* M-10, M-11 */
Test(error, every_entry_has_its_number_name_and_class, .timeout = 60)
{
	for (size_t i = 0; i < N_ELEMENTS(table); ++i) {
		cr_assert_eq(table[i].result, -table[i].number, "%s", table[i].name);
		cr_assert_str_eq(ipc_error_name(table[i].result), table[i].name);
		cr_assert_eq(ipc_error_class(table[i].result), table[i].class, "%s", table[i].name);
	}
}

/* M-10 */
Test(error, no_two_entries_share_a_number_or_a_text, .timeout = 60)
{
	for (size_t i = 0; i < N_ELEMENTS(table); ++i)
		for (size_t k = 0; k < i; ++k) {
			cr_assert_neq(table[i].result, table[k].result);
			cr_assert_str_neq(ipc_error_text(table[i].result),
					  ipc_error_text(table[k].result));
		}
}

/* M-11, M-75: no catch-all entry, and an answer for every number */
Test(error, other_numbers_are_unknown, .timeout = 60)
{
	for (int result = -5000; result < 0; ++result) {
		if (is_entry(result)) {
			cr_assert_str_neq(ipc_error_text(result), "unknown");
			continue;
		}
		cr_assert_eq(ipc_error_class(result), IPC_CLASS_NONE, "%d", result);
		cr_assert_str_eq(ipc_error_name(result), "unknown");
		cr_assert_str_eq(ipc_error_text(result), "unknown");
	}
	cr_assert_eq(ipc_error_class(INT_MIN), IPC_CLASS_NONE);
	cr_assert_str_eq(ipc_error_name(INT_MIN), "unknown");
	cr_assert_str_eq(ipc_error_text(INT_MIN), "unknown");
}

/* M-75 */
Test(error, nothing_went_wrong_is_done, .timeout = 60)
{
	static const int results[] = {0, 1, 2, 11, 4096, INT_MAX};

	for (size_t i = 0; i < N_ELEMENTS(results); ++i) {
		cr_assert_eq(ipc_error_class(results[i]), IPC_CLASS_NONE);
		cr_assert_str_eq(ipc_error_name(results[i]), "done");
		cr_assert_str_eq(ipc_error_text(results[i]), "done");
	}
}

/* M-75 */
Test(error, texts_are_what_people_read, .timeout = 60)
{
	cr_assert_str_eq(ipc_error_text(IPC_EOWNERDEAD), "the other side is gone: it died");

	for (size_t i = 0; i < N_ELEMENTS(table); ++i) {
		const char *text = ipc_error_text(table[i].result);

		cr_assert_gt(strlen(text), 8);
		cr_assert_eq(text, ipc_error_text(table[i].result), "static");
		cr_assert(strchr("abcdefghijklmnopqrstuvwxyz", text[0]), "%s", text);
		cr_assert_neq(text[strlen(text) - 1], '.', "%s", text);
	}
}

Test(error, version_is_that_of_the_headers, .timeout = 60)
{
	cr_assert_eq(ipc_version(), (uint32_t)(IPC_VERSION_MAJOR << 16 | IPC_VERSION_MINOR << 8 |
					       IPC_VERSION_PATCH));
}
