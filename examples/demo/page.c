/* SPDX-License-Identifier: MIT */
#include "examples/demo/demo.h"

#include <string.h>

void page_make(struct page *page, const void *key, size_t size)
{
	const unsigned char *bytes = key;
	uint64_t word = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < size; ++i)
		word = (word ^ bytes[i]) * UINT64_C(0x100000001b3);

	for (int i = 0; i < PAGE_WORDS; ++i) {
		word ^= word << 13;
		word ^= word >> 7;
		word ^= word << 17;
		page->words[i] = word;
	}
}

bool page_is_right(const struct ipc_flight_result *result, const void *key, size_t size)
{
	struct page page;

	page_make(&page, key, size);
	return result->failure == IPC_FAILURE_NONE && result->size == sizeof(page) &&
	       memcmp(result->data, &page, sizeof(page)) == 0;
}
