/* SPDX-License-Identifier: MIT */

/*
 * The command once: single-flight from the shell.
 *
 * Each caller joins the key.  Who leads runs the program and lands its status and output: the bytes
 * themselves, or the path of a file if they are more than the table takes (spool.h).  A leader that
 * is killed takes its program with it, and one of those who wait leads.
 *
 * The file outlives a leader that is killed after it landed.  A leader that lives takes the name
 * away again when nobody can be about to open the file: each caller opens it, or finds that its
 * result needs none, before it closes its handle of the table; so the leader looks at the handles
 * that were there when it landed, until each has closed, leads, or waits for another leader.  What
 * the broker tells about handles is death-proof, which a count kept by the callers would not be.
 * For one that is stopped meanwhile nobody waits long: the file stays, and is swept later.  Who
 * finds no file (it was stopped for longer than that) starts over.
 */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ipc/error.h>
#include <ipc/flight.h>
#include <ipc/time.h>

#include "broker/ctl/handles.h"
#include "broker/ctl/run.h"
#include "broker/ctl/spool.h"

/* The table, where there is none of its name. */
#define KEYS_MAX        256
#define KEY_SIZE_MAX    1024
#define RESULT_SIZE_MAX 4096
#define ATTEMPTS_MAX    1000 /* leaders that die, one after the other */

#define READERS_LOOKS   400 /* each after READERS_LOOK_MS */
#define READERS_LOOK_MS 5
#define READERS_LAST    380 /* where it goes on when it is told to end */
#define ROUNDS_MAX      3   /* of one that finds no file */

/* What is landed begins with this; the output, or the path of its file, follows. */
struct head {
	char magic[8]; /* the last byte is the version */
	uint32_t status;
	uint32_t is_path;
	uint64_t n_bytes; /* of the output */
};
_Static_assert(sizeof(struct head) == 24, "of one size in every process");

static const char head_magic[8] = {'i', 'p', 'c', 'o', 'n', 'c', 'e', 1};

struct once {
	const struct ctl *ctl;
	const char *key;
	char name[64]; /* of the table, by default */
	const char *table_name;
	ipc_flight_table *table;
	struct ipc_channel_info info;

	/* What is to be printed in the end. */
	struct spool spool;
	int fd; /* -1: the spool has it */
	uint64_t n_bytes;
};

static int once_open(struct once *once)
{
	const struct ctl *ctl = once->ctl;
	int r;

	do {
		r = ipc_flight_table_open_wait(
			&once->table, ctl->client, once->table_name,
			IPC_FLIGHT_TABLE_OPTIONS(.flags = IPC_CREATE, .keys_max = KEYS_MAX,
						 .key_size_max = KEY_SIZE_MAX,
						 .result_size_max = RESULT_SIZE_MAX,
						 .attempts_max = ATTEMPTS_MAX),
			ctl->deadline);

		/* One that is there is taken as it is; it may have gone meanwhile. */
		if (r == IPC_EPROTOTYPE)
			r = ipc_flight_table_open_wait(&once->table, ctl->client, once->table_name,
						       NULL, ctl->deadline);
	} while (r == IPC_ENOENT);

	return r;
}

/* What everybody prints: all of it or a failure. */
static int once_print(const struct once *once, int status)
{
	int error;

	/* A reader that went away is told as a full disk is. */
	signal(SIGPIPE, SIG_IGN);
	error = once->fd >= 0 ? spool_copy(once->fd, once->n_bytes, STDOUT_FILENO)
			      : spool_write(&once->spool, STDOUT_FILENO);
	return error ? ctl_fail_errno("standard output", error) : status;
}

/* ---- the leader ---- */

static int output_put(void *userdata, const void *data, size_t size)
{
	return spool_put(userdata, data, size);
}

/* The file is for those who may join. */
static mode_t file_mode(const struct ipc_channel_info *info)
{
	return 0600 | ((info->mode & 0060) == 0060 ? 0040 : 0) |
	       ((info->mode & 0006) == 0006 ? 0004 : 0);
}

/* For all who joined: *text says why. */
static int flight_fail_text(const struct once *once, ipc_flight *flight, enum ipc_failure failure,
			    int code, const char *text)
{
	if (ipc_flight_fail(flight, failure, code, text, strlen(text)) == IPC_EMSGSIZE)
		(void)!ipc_flight_fail(flight, failure, code, NULL, 0);
	return ctl_fail_text(once->key, text);
}

/* 0, with the file published if there is one, or the exit status. */
static int output_land(struct once *once, ipc_flight *flight, uint64_t fence, int status)
{
	struct spool *spool = &once->spool;
	struct head head = {.status = (uint32_t)status, .n_bytes = spool->n_bytes};
	unsigned char with_path[sizeof(head) + PATH_MAX];
	unsigned char *data = spool->data;
	size_t size = spool->size;
	int error, r;

	if (spool->fd >= 0) {
		error = spool_publish(spool, fence, file_mode(&once->info), once->info.gid);
		if (error)
			return flight_fail_text(once, flight, IPC_FAILURE_LOCAL, error,
						strerror(error));
		data = with_path;
		size = sizeof(head) + strlen(spool->path);
		memcpy(with_path + sizeof(head), spool->path, strlen(spool->path));
		head.is_path = 1;
	}

	memcpy(head.magic, head_magic, sizeof(head.magic));
	memcpy(data, &head, sizeof(head));
	r = ipc_flight_land(flight, data, size);
	if (r == IPC_EMSGSIZE)
		return flight_fail_text(once, flight, IPC_FAILURE_TOO_BIG, 0,
					"the table takes no path of a file");

	return r < 0 ? ctl_fail(once->key, r) : 0;
}

/* ---- those who may be about to open the leader's file ---- */

struct readers {
	struct ctl ctl;
	const char *table_name;
	uint64_t own_id;
	uint64_t *ids; /* NULL: not looked yet */
	size_t n;
};

static bool is_reader(const struct ipc_handle_info *info, const struct ipc_handle_info *own)
{
	bool waits_for_another =
		info->waiting_ns && info->waiting_for && info->waiting_for != own->handle_id;

	return info->handle_id != own->handle_id && info->role == own->role &&
	       info->holds != IPC_HOLDS_LEAD && !waits_for_another &&
	       strcmp(info->process_name, own->process_name) == 0;
}

static bool readers_have(const struct readers *readers, uint64_t id)
{
	for (size_t i = 0; i < readers->n; ++i) {
		if (readers->ids[i] == id)
			return true;
	}
	return false;
}

/* Keeps those of before that still may be; the first look keeps all. */
static int readers_keep(struct readers *readers, const struct handles *handles)
{
	const struct ipc_handle_info *own = NULL;
	uint64_t *ids = calloc(handles->n + 1, sizeof(*ids));
	size_t n = 0;

	for (size_t i = 0; i < handles->n; ++i) {
		if (handles->handles[i].info.handle_id == readers->own_id)
			own = &handles->handles[i].info;
	}

	/* Not our table any more: it was removed, and another one has its name. */
	if (!ids || !own) {
		free(ids);
		return -1;
	}

	for (size_t i = 0; i < handles->n; ++i) {
		const struct ipc_handle_info *info = &handles->handles[i].info;

		if (is_reader(info, own) &&
		    (!readers->ids || readers_have(readers, info->handle_id)))
			ids[n++] = info->handle_id;
	}

	free(readers->ids);
	readers->ids = ids;
	readers->n = n;
	return 0;
}

static int readers_look(struct readers *readers)
{
	struct handles handles;
	int r;

	r = handles_of(&handles, &readers->ctl, readers->table_name);
	if (r == 0)
		r = readers_keep(readers, &handles);
	handles_deinit(&handles);
	return r;
}

/* True: there are none left. */
static bool readers_wait(const struct once *once, const struct run *run)
{
	struct readers readers = {.ctl = *once->ctl, .table_name = once->table_name};
	struct timespec deadline;
	bool is_told = false;
	int r;

	ipc_deadline_after(&deadline, UINT64_C(2000000) * READERS_LOOKS * READERS_LOOK_MS);
	readers.ctl.deadline = &deadline;

	r = ipc_flight_table_get_id(once->table, &readers.own_id);
	if (r == 0)
		r = readers_look(&readers);
	for (unsigned i = 0; i < READERS_LOOKS && r == 0 && readers.n; ++i) {
		if (!is_told && run_is_told_to_end(run, READERS_LOOK_MS)) {
			is_told = true;
			i = i < READERS_LAST ? READERS_LAST : i;
		} else if (is_told) {
			(void)poll(NULL, 0, READERS_LOOK_MS);
		}
		r = readers_look(&readers);
	}

	free(readers.ids);
	return r == 0 && readers.n == 0;
}

/* ---- one caller ---- */

/* The program's status or one of ours; *ret_print: there is output. */
static int lead_run(struct once *once, ipc_flight *flight, struct run *run, bool *ret_print)
{
	char *const *argv = once->ctl->run;
	uint64_t fence;
	int error, r, status;

	r = ipc_flight_get_fence(flight, &fence);
	if (r < 0)
		return ctl_fail(once->key, r);

	switch (run_program(run, argv, fence, output_put, &once->spool, &status)) {
	case RUN_ENDED:
		break;
	case RUN_NOT_STARTED: /* another one may be able to: the lead is handed on */
		return ctl_fail_errno(argv[0], status);
	case RUN_NOT_TAKEN:
		return flight_fail_text(once, flight, IPC_FAILURE_LOCAL, status, strerror(status));
	case RUN_TOLD_TO_END:
		return CTL_EXIT_OWN;
	}

	error = output_land(once, flight, fence, status);
	if (error)
		return error;

	if (once->spool.fd >= 0 && !readers_wait(once, run))
		spool_abandon(&once->spool);
	spool_withdraw(&once->spool);
	*ret_print = true;
	return status;
}

static int lead(struct once *once, ipc_flight *flight)
{
	size_t size_max =
		once->info.item_size_max < 1 << 20 ? (size_t)once->info.item_size_max : 1 << 20;
	bool is_to_print = false;
	struct run run;
	int error, status;

	error = spool_init(&once->spool, sizeof(struct head), size_max);
	if (error == 0)
		error = run_begin(&run);
	if (error)
		return ctl_fail_errno(once->key, error);

	status = lead_run(once, flight, &run, &is_to_print);
	ipc_flight_leave(flight);
	once->table = ipc_flight_table_close(once->table);
	run_end(&run);

	return is_to_print ? once_print(once, status) : status;
}

#define AGAIN -1

static int follow_failed(const struct once *once, const struct ipc_flight_result *result)
{
	const char *reason = result->data;
	char text[256];
	size_t n = 0;

	while (n < result->size && n < sizeof(text) - 1) {
		text[n] = reason[n] >= ' ' && reason[n] <= '~' ? reason[n] : '?';
		++n;
	}
	text[n] = '\0';
	return ctl_fail_text(once->key, n ? text : "the run failed");
}

/* The output into the spool or a descriptor, while the result is there.  0, AGAIN or a status. */
static int follow_take(struct once *once, const struct head *head, const void *data, size_t size)
{
	char path[PATH_MAX];
	int error;

	once->n_bytes = head->n_bytes;
	if (!head->is_path) {
		error = spool_put(&once->spool, data, size);
		return error ? ctl_fail_errno(once->key, error) : 0;
	}

	if (size >= sizeof(path))
		return ctl_fail(once->key, IPC_EBADMSG);
	memcpy(path, data, size);
	path[size] = '\0';
	once->fd = spool_open(path, head->n_bytes);
	if (once->fd == -ENOENT)
		return AGAIN;
	return once->fd < 0 ? ctl_fail_errno(path, -once->fd) : 0;
}

static int follow(struct once *once, ipc_flight *flight)
{
	struct ipc_flight_result result;
	struct head head;
	int error, r;

	error = spool_init(&once->spool, 0, SIZE_MAX);
	if (error)
		return ctl_fail_errno(once->key, error);

	r = ipc_flight_get_result(flight, &result);
	if (r < 0)
		return ctl_fail(once->key, r);
	if (result.failure != IPC_FAILURE_NONE)
		return follow_failed(once, &result);

	if (result.size >= sizeof(head))
		memcpy(&head, result.data, sizeof(head));
	if (result.size < sizeof(head) || memcmp(head.magic, head_magic, sizeof(head_magic)) != 0 ||
	    head.status > 255 || (!head.is_path && head.n_bytes != result.size - sizeof(head)))
		return ctl_fail(once->key, IPC_EBADMSG);

	r = follow_take(once, &head, (const char *)result.data + sizeof(head),
			result.size - sizeof(head));
	if (r)
		return r;

	/* The leader looks at whether the handle is there; the flight's memory is not needed. */
	ipc_flight_leave(flight);
	once->table = ipc_flight_table_close(once->table);
	return once_print(once, (int)head.status);
}

/* The exit status, or AGAIN. */
static int once_join(struct once *once)
{
	ipc_flight *flight;
	int r;

	once->fd = -1;
	r = ipc_flight_join_wait(&flight, once->table, once->key, strlen(once->key),
				 once->ctl->deadline);
	if (r < 0)
		r = ctl_fail(once->key, r);
	else
		r = r == 1 ? lead(once, flight) : follow(once, flight);

	/* Closing the table leaves the flight. */
	once->table = ipc_flight_table_close(once->table);
	spool_deinit(&once->spool);
	if (once->fd >= 0)
		close(once->fd);
	return r;
}

int ctl_once(const struct ctl *ctl)
{
	struct once once = {
		.ctl = ctl,
		.key = ctl->args[0],
		.info.size = sizeof(once.info),
		.spool.fd = -1,
	};
	int r = AGAIN;

	snprintf(once.name, sizeof(once.name), "ipcctl.once.%u", (unsigned)geteuid());
	once.table_name = ctl->table ? ctl->table : once.name;

	for (unsigned i = 0; i < ROUNDS_MAX && r == AGAIN; ++i) {
		r = once_open(&once);
		if (r == 0)
			r = ipc_channel_info_wait(ctl->client, once.table_name, &once.info,
						  ctl->deadline);
		if (r < 0) {
			ipc_flight_table_close(once.table);
			return ctl_fail(once.table_name, r);
		}
		r = once_join(&once);
	}

	return r == AGAIN ? ctl_fail_text(once.key, "the file of the output is not there") : r;
}
