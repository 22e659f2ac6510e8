/* SPDX-License-Identifier: MIT */

/*
 * The command waits: who waits for whom, over all channels.
 *
 * Each handle that waits is an edge from its process to the process of the handle that it waits
 * for.  An edge is marked when it lies on a cycle: when both its ends belong to one strongly
 * connected component with more than one process.  A process that waits for itself is no cycle: one
 * of its threads waits for another.
 */

#include <inttypes.h>
#include <stdlib.h>

#include <ipc/error.h>

#include "broker/ctl/handles.h"
#include "broker/ctl/json.h"
#include "broker/ctl/quantity.h"
#include "broker/ctl/table.h"

struct edge {
	const struct handle *waiter;
	const struct handle *holder; /* NULL: it waits for nobody in particular */
	size_t from, to;             /* processes; the same if there is no holder */
	bool is_in_cycle;
};

/* A process.  Its edges are edges[first] to edges[first + n_edges - 1]. */
struct node {
	int64_t pid;
	size_t first, n_edges;
	size_t next;          /* the search: the edge to look at next */
	size_t order, lowest; /* the search: 0 is not seen yet */
	size_t component;     /* 0: not known yet */
};

struct graph {
	struct handles handles; /* sorted by id */
	struct edge *edges;     /* sorted by waiter's process */
	struct node *nodes;     /* sorted by pid */
	size_t n_edges, n_nodes;
};

static int compare_ids(const void *a, const void *b)
{
	uint64_t id_a = ((const struct handle *)a)->info.handle_id;
	uint64_t id_b = ((const struct handle *)b)->info.handle_id;

	return (id_a > id_b) - (id_a < id_b);
}

static int compare_pids(const void *a, const void *b)
{
	int64_t pid_a = ((const struct node *)a)->pid, pid_b = ((const struct node *)b)->pid;

	return (pid_a > pid_b) - (pid_a < pid_b);
}

static int compare_edges(const void *a, const void *b)
{
	const struct edge *edge_a = a, *edge_b = b;
	int64_t pid_a = edge_a->waiter->info.pid, pid_b = edge_b->waiter->info.pid;
	uint64_t ns_a = edge_a->waiter->info.waiting_ns, ns_b = edge_b->waiter->info.waiting_ns;

	if (pid_a != pid_b)
		return (pid_a > pid_b) - (pid_a < pid_b);
	return (ns_a < ns_b) - (ns_a > ns_b);
}

static size_t node_of(const struct graph *graph, int64_t pid)
{
	const struct node key = {.pid = pid};
	const struct node *node =
		bsearch(&key, graph->nodes, graph->n_nodes, sizeof(*graph->nodes), compare_pids);

	return (size_t)(node - graph->nodes);
}

static void nodes_make(struct graph *graph)
{
	size_t n = 0;

	for (size_t i = 0; i < graph->handles.n; ++i)
		graph->nodes[i] = (struct node){.pid = graph->handles.handles[i].info.pid};
	qsort(graph->nodes, graph->handles.n, sizeof(*graph->nodes), compare_pids);

	for (size_t i = 0; i < graph->handles.n; ++i) {
		if (n == 0 || graph->nodes[n - 1].pid != graph->nodes[i].pid)
			graph->nodes[n++] = graph->nodes[i];
	}
	graph->n_nodes = n;
}

static void edges_make(struct graph *graph)
{
	const struct handles *handles = &graph->handles;

	for (size_t i = 0; i < handles->n; ++i) {
		const struct handle *waiter = &handles->handles[i];
		const struct handle key = {.info.handle_id = waiter->info.waiting_for};

		if (waiter->info.waiting_ns == 0)
			continue;
		graph->edges[graph->n_edges++] = (struct edge){
			.waiter = waiter,
			.holder = bsearch(&key, handles->handles, handles->n,
					  sizeof(*handles->handles), compare_ids),
		};
	}
	qsort(graph->edges, graph->n_edges, sizeof(*graph->edges), compare_edges);

	for (size_t i = 0; i < graph->n_edges; ++i) {
		struct edge *edge = &graph->edges[i];
		const struct handle *to = edge->holder ? edge->holder : edge->waiter;
		struct node *node;

		edge->from = node_of(graph, edge->waiter->info.pid);
		edge->to = node_of(graph, to->info.pid);
		node = &graph->nodes[edge->from];
		if (node->n_edges++ == 0)
			node->first = i;
	}
}

/*
 * Strongly connected components by Tarjan's algorithm, with stacks of its own: a chain of waits may
 * be as long as there are processes.  `path` is where the search stands, `open` what it has seen
 * without knowing the component yet.
 */
struct search {
	size_t *path, *open;
	size_t n_path, n_open, n_seen, n_components;
};

static void search_enter(struct graph *graph, struct search *search, size_t index)
{
	struct node *node = &graph->nodes[index];

	node->order = node->lowest = ++search->n_seen;
	search->path[search->n_path++] = index;
	search->open[search->n_open++] = index;
}

static void search_leave(struct graph *graph, struct search *search)
{
	struct node *node = &graph->nodes[search->path[--search->n_path]];
	size_t index;

	if (node->lowest == node->order) {
		++search->n_components;
		do {
			index = search->open[--search->n_open];
			graph->nodes[index].component = search->n_components;
		} while (&graph->nodes[index] != node);
	}

	if (search->n_path) {
		struct node *parent = &graph->nodes[search->path[search->n_path - 1]];

		if (node->lowest < parent->lowest)
			parent->lowest = node->lowest;
	}
}

static void search_from(struct graph *graph, struct search *search, size_t start)
{
	search_enter(graph, search, start);
	while (search->n_path) {
		struct node *node = &graph->nodes[search->path[search->n_path - 1]];
		const struct node *target;
		size_t to;

		if (node->next == node->n_edges) {
			search_leave(graph, search);
			continue;
		}

		to = graph->edges[node->first + node->next++].to;
		target = &graph->nodes[to];
		if (target->order == 0)
			search_enter(graph, search, to);
		else if (target->component == 0 && target->order < node->lowest)
			node->lowest = target->order;
	}
}

static int cycles_mark(struct graph *graph)
{
	struct search search = {
		.path = calloc(graph->n_nodes + 1, sizeof(size_t)),
		.open = calloc(graph->n_nodes + 1, sizeof(size_t)),
	};
	int r = search.path && search.open ? 0 : IPC_ENOMEM;

	for (size_t i = 0; i < graph->n_nodes && r == 0; ++i) {
		if (graph->nodes[i].order == 0)
			search_from(graph, &search, i);
	}

	for (size_t i = 0; i < graph->n_edges && r == 0; ++i) {
		struct edge *edge = &graph->edges[i];
		size_t component = graph->nodes[edge->from].component;

		edge->is_in_cycle = edge->holder && edge->from != edge->to &&
				    component == graph->nodes[edge->to].component;
	}

	free(search.path);
	free(search.open);
	return r;
}

static int graph_make(struct graph *graph, const struct ctl *ctl, const char *pattern)
{
	int r;

	*graph = (struct graph){0};
	r = handles_collect(&graph->handles, ctl, pattern);
	if (r < 0)
		return r;

	graph->edges = calloc(graph->handles.n + 1, sizeof(*graph->edges));
	graph->nodes = calloc(graph->handles.n + 1, sizeof(*graph->nodes));
	if (!graph->edges || !graph->nodes)
		return IPC_ENOMEM;
	if (graph->handles.n == 0)
		return 0;

	qsort(graph->handles.handles, graph->handles.n, sizeof(*graph->handles.handles),
	      compare_ids);
	nodes_make(graph);
	edges_make(graph);
	return cycles_mark(graph);
}

static void graph_deinit(struct graph *graph)
{
	handles_deinit(&graph->handles);
	free(graph->edges);
	free(graph->nodes);
}

static void table_add_edge(struct table *table, const struct edge *edge)
{
	const struct ipc_handle_info *waiter = &edge->waiter->info;
	char text[QUANTITY_SIZE];

	table_add(table, "%" PRId64, waiter->pid);
	table_add(table, "%s", waiter->process_name);
	table_add(table, "%" PRIu64, waiter->handle_id);
	table_add(table, "%s", edge->waiter->channel->name);
	table_add(table, "%s", quantity_time(text, waiter->waiting_ns));
	if (edge->holder) {
		const struct ipc_handle_info *holder = &edge->holder->info;

		table_add(table, "%" PRId64, holder->pid);
		table_add(table, "%s", holder->process_name);
		table_add(table, "%" PRIu64, holder->handle_id);
		if (holder->holds != IPC_HOLDS_NOTHING) {
			table_add(table, "%s", handle_holding_name(holder->holds));
			table_add(table, "%s", quantity_time(text, holder->held_ns));
		} else {
			table_add(table, "-"); /* it has let go meanwhile */
			table_add(table, "-");
		}
	} else {
		for (unsigned i = 0; i < 5; ++i)
			table_add(table, "-");
	}
	table_add(table, "%s", edge->is_in_cycle ? "yes" : "-");
}

static int graph_print(const struct graph *graph)
{
	static const char *const heads[] = {"WAITER", "PROCESS", "HANDLE",  "CHANNEL",
					    "FOR",    "HOLDER",  "PROCESS", "HANDLE",
					    "HOLDS",  "HELD",    "CYCLE"};
	struct table table;
	int r;

	table_init(&table, 11, 0x2b5);
	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); ++i)
		table_add(&table, "%s", heads[i]);
	for (size_t i = 0; i < graph->n_edges; ++i)
		table_add_edge(&table, &graph->edges[i]);

	r = table_print(&table);
	table_deinit(&table);
	return r;
}

/* The waiter's fields, and those of the holder under "holder". */
static json_t *json_edge(const struct edge *edge)
{
	const struct ipc_channel_info *channel = edge->waiter->channel;
	json_t *object = json_handle(&edge->waiter->info);
	int r = 0;

	r |= json_object_set_new(object, "channel", json_string(channel->name));
	r |= json_object_set_new(object, "kind", json_string(channel_kind_name(channel->kind)));
	r |= json_object_set_new(object, "holder",
				 edge->holder ? json_handle(&edge->holder->info) : json_null());
	r |= json_object_set_new(object, "cycle", json_boolean(edge->is_in_cycle));
	if (r == 0)
		return object;

	json_decref(object);
	return NULL;
}

static int graph_print_json(const struct graph *graph)
{
	json_t *array = json_array();
	int r = array ? 0 : -1;

	for (size_t i = 0; i < graph->n_edges && r == 0; ++i)
		r = json_array_append_new(array, json_edge(&graph->edges[i]));
	if (r == 0)
		r = json_print(array);

	json_decref(array);
	return r;
}

int ctl_waits(const struct ctl *ctl)
{
	const char *pattern = ctl->args[0] ? ctl->args[0] : "*";
	struct graph graph;
	int r;

	r = graph_make(&graph, ctl, pattern);
	if (r == 0 && (ctl->json ? graph_print_json(&graph) : graph_print(&graph)) < 0)
		r = IPC_ENOMEM;

	graph_deinit(&graph);
	return r < 0 ? ctl_fail(ctl->args[0] ? pattern : "waits", r) : 0;
}
