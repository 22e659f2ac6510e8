/* SPDX-License-Identifier: MIT */
#include "broker/fdstore.h"

#include <assert.h>
#include <string.h>

void fdstore_clear(struct fdstore *table)
{
	atomic_store_explicit(&table->n, 0, memory_order_relaxed);
	memset(table->bucket, 0, sizeof(table->bucket));
}

/* FNV-1a: names are short and of our own making. */
static uint32_t *bucket_of(struct fdstore *table, const char *name)
{
	uint32_t hash = 2166136261u;

	for (; *name != '\0'; ++name)
		hash = (hash ^ (unsigned char)*name) * 16777619u;

	return &table->bucket[(hash ^ hash >> 14) % FDSTORE_BUCKETS];
}

int fdstore_find(const struct fdstore *table, const char *name)
{
	uint32_t at = *bucket_of((struct fdstore *)table, name);

	while (at != 0 && strcmp(table->entry[at - 1].name, name) != 0)
		at = table->entry[at - 1].next;

	return (int)at - 1;
}

static void entry_link(struct fdstore *table, uint32_t index)
{
	uint32_t *bucket = bucket_of(table, table->entry[index].name);

	table->entry[index].next = *bucket;
	*bucket = index + 1;
}

static void entry_unlink(struct fdstore *table, uint32_t index)
{
	uint32_t *at = bucket_of(table, table->entry[index].name);

	while (*at != index + 1)
		at = &table->entry[*at - 1].next;

	*at = table->entry[index].next;
}

int fdstore_append(struct fdstore *table, const char *name, int fd)
{
	uint32_t n = atomic_load_explicit(&table->n, memory_order_relaxed);
	size_t length = strlen(name);

	if (n == STORE_FDS_MAX || length == 0 || length > STORE_NAME_MAX)
		return -1;

	memset(table->entry[n].name, 0, STORE_NAME_SIZE);
	memcpy(table->entry[n].name, name, length);
	table->entry[n].fd = fd;
	entry_link(table, n);

	/* The handler reads n in this thread: the entry is whole before it counts. */
	atomic_signal_fence(memory_order_seq_cst);
	atomic_store_explicit(&table->n, n + 1, memory_order_relaxed);
	return (int)n;
}

void fdstore_take(struct fdstore *table, unsigned index)
{
	uint32_t last = atomic_load_explicit(&table->n, memory_order_relaxed) - 1;

	assert(index <= last);

	entry_unlink(table, index);
	if (index != last) {
		entry_unlink(table, last);
		table->entry[index] = table->entry[last];
		entry_link(table, index);
	}

	atomic_signal_fence(memory_order_seq_cst);
	atomic_store_explicit(&table->n, last, memory_order_relaxed);
}
