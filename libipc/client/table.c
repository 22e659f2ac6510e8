/* SPDX-License-Identifier: MIT */
#include "libipc/client/table.h"

#include <stdlib.h>

#include <ipc/error.h>

#include "libipc/platform/compiler.h"
#include "libipc/platform/segment.h"

int table_list_init(struct table_list *list)
{
	atomic_init(&list->first, NULL);
	return pthread_mutex_init(&list->mutex, NULL) == 0 ? 0 : IPC_ENOMEM;
}

void table_list_deinit(struct table_list *list, bool is_foreign)
{
	struct table *table = atomic_load_explicit(&list->first, memory_order_acquire), *next;

	for (; table; table = next) {
		next = table->next;

		/* In a child these addresses may be something else by now. */
		if (!is_foreign)
			segment_unmap((void *)table->liveness, table->size);
		free(table);
	}
	atomic_store_explicit(&list->first, NULL, memory_order_relaxed);
	if (!is_foreign)
		(void)pthread_mutex_destroy(&list->mutex);
}

static const struct liveness_table *table_find(struct table_list *list, uint64_t segment_id)
{
	struct table *table = atomic_load_explicit(&list->first, memory_order_acquire);

	for (; table; table = table->next)
		if (table->segment_id == segment_id)
			return table->liveness;

	return NULL;
}

/* Under the mutex. */
static int table_map(struct table_list *list, const struct message_region *region, int fd,
		     uint32_t owner_uid, const struct liveness_table **ret)
{
	struct table *table;
	void *address;
	int r;

	if (fd < 0 || region->size < sizeof(struct liveness_table))
		return IPC_EPROTO;

	table = calloc(1, sizeof(*table));
	if (!table)
		return IPC_ENOMEM;

	r = segment_map(&address, fd, region->offset, region->size, false);
	if (r < 0)
		goto free_table;

	r = liveness_table_check(address, region->size, owner_uid);
	if (r < 0)
		goto unmap;

	table->segment_id = region->segment_id;
	table->liveness = address;
	table->size = region->size;
	table->next = atomic_load_explicit(&list->first, memory_order_relaxed);

	/* [T1] The entry is whole before it can be found.  Pairs with the acquire loads of first.
	 */
	atomic_store_explicit(&list->first, table, memory_order_release);
	*ret = address;
	return 0;

unmap:
	segment_unmap(address, region->size);
free_table:
	free(table);
	return r;
}

int table_get(struct table_list *list, const struct message_region *region, int fd,
	      uint32_t owner_uid, const struct liveness_table **ret)
{
	const struct liveness_table *found;
	int r;

	pthread_mutex_lock(&list->mutex);
	found = table_find(list, region->segment_id);
	if (found)
		r = liveness_table_check(found, sizeof(*found), owner_uid);
	else
		r = table_map(list, region, fd, owner_uid, &found);
	pthread_mutex_unlock(&list->mutex);

	if (r == 0)
		*ret = found;
	return r;
}

bool table_list_has_handle(struct table_list *list, uint64_t handle_id)
{
	struct table *table = atomic_load_explicit(&list->first, memory_order_acquire);

	for (; table; table = table->next)
		if (liveness_handle_is(table->liveness, handle_id))
			return true;

	return false;
}
