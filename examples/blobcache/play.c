/* SPDX-License-Identifier: MIT */
/*
 * The demo: several blobcache processes ask an upstream that is slow and fails, and one of them is
 * killed in the middle of a download.
 */
#include "examples/blobcache/play.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "examples/blobcache/cache.h"
#include "examples/blobcache/stage.h"

enum { N_GETTERS = 6, PATIENCE_MS = 20000 };

/* ---- the players: this program, with arguments ---- */

struct getter {
	pid_t pid;
	int fd; /* what it says */
};

struct answer {
	int status;
	char text[512];
};

static struct getter getter_start(const char *digest, rlim_t file_limit)
{
	struct getter getter;
	pid_t parent = getpid();
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		fail("pipe");

	(void)fflush(NULL);
	getter.pid = fork();
	if (getter.pid < 0)
		fail("fork");
	if (getter.pid == 0) {
		const struct rlimit limit = {.rlim_cur = file_limit, .rlim_max = RLIM_INFINITY};

		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (file_limit != RLIM_INFINITY)
			(void)setrlimit(RLIMIT_FSIZE, &limit);
		if (getppid() == parent && dup2(fds[1], STDOUT_FILENO) >= 0 &&
		    dup2(fds[1], STDERR_FILENO) >= 0)
			(void)execl("/proc/self/exe", "blobcache", cache_path, upstream_path,
				    digest, (char *)NULL);
		_exit(STATUS_HERE);
	}

	(void)close(fds[1]);
	getter.fd = fds[0];
	return getter;
}

/* Its exit status and all that it printed. */
static struct answer getter_end(struct getter getter)
{
	struct answer answer = {.status = -1};
	size_t used = 0;
	int status;
	ssize_t n;

	while (used < sizeof(answer.text) - 1) {
		n = read(getter.fd, answer.text + used, sizeof(answer.text) - 1 - used);
		if (n <= 0)
			break;
		used += (size_t)n;
	}
	(void)close(getter.fd);
	if (waitpid(getter.pid, &status, 0) == getter.pid && WIFEXITED(status))
		answer.status = WEXITSTATUS(status);
	return answer;
}

static bool is_path_of(const struct answer *answer, const char *digest)
{
	char expected[192];

	(void)snprintf(expected, sizeof(expected), "%s/%s\n", cache_path, digest);
	return answer->status == STATUS_THERE && strcmp(answer->text, expected) == 0;
}

static bool gets(const char *digest)
{
	struct answer answer = getter_end(getter_start(digest, RLIM_INFINITY));

	return is_path_of(&answer, digest);
}

/* All of them end so, and say so; of all but one. */
static bool all_end(const struct getter *getters, pid_t killed, int status, const char *words)
{
	bool did_all = true;

	for (int i = 0; i < N_GETTERS; ++i) {
		struct answer answer = getter_end(getters[i]);

		if (getters[i].pid == killed)
			continue;
		did_all = did_all && answer.status == status && strstr(answer.text, words);
	}
	return did_all;
}

/* ---- who waits for whom ---- */

struct listing {
	struct ipc_handle_info handles[2 * N_GETTERS];
	unsigned n;
};

static int add(const struct ipc_handle_info *info, void *userdata)
{
	struct listing *listing = userdata;

	if (listing->n < 2 * N_GETTERS)
		listing->handles[listing->n++] = *info;
	return 0;
}

static pid_t find_leader(const struct listing *listing, unsigned n_followers)
{
	for (unsigned i = 0; i < listing->n; ++i) {
		const struct ipc_handle_info *leader = &listing->handles[i];
		unsigned n = 0;

		for (unsigned k = 0; k < listing->n; ++k)
			n += listing->handles[k].waiting_for == leader->handle_id;
		if (leader->holds == IPC_HOLDS_LEAD && n == n_followers)
			return (pid_t)leader->pid;
	}
	return 0;
}

/* Until one leads and so many wait for it. */
static pid_t await_leader(unsigned n_followers)
{
	struct timespec deadline;
	ipc_client *client;
	struct cache cache;
	pid_t leader = 0;
	int r;

	if (cache_open(&cache, cache_path, upstream_path) < 0)
		fail(cache_path);
	ipc_deadline_after(&deadline, PATIENCE_MS * UINT64_C(1000000));
	r = ipc_client_connect_wait(&client, NULL, &deadline);
	if (r < 0) {
		(void)fprintf(stderr, "connect: %s\n", ipc_error_text(r));
		exit(1);
	}

	for (int i = 0; i < PATIENCE_MS && leader == 0; ++i) {
		struct listing listing = {.n = 0};

		/* IPC_ENOENT: nobody has come yet. */
		r = ipc_client_list_handles_wait(client, cache.table_name, add, &listing,
						 &deadline);
		if (r == 0)
			leader = find_leader(&listing, n_followers);
		if (leader == 0)
			(void)poll(NULL, 0, 1);
	}

	(void)ipc_client_unref(client);
	cache_close(&cache);
	return leader;
}

/* ---- the scenes ---- */

/* Six ask, one of them leads, the upstream has sent the first half.  Who leads: 0: nobody. */
static pid_t six_ask(struct getter getters[N_GETTERS], const char *digest, rlim_t file_limit)
{
	for (int i = 0; i < N_GETTERS; ++i)
		getters[i] = getter_start(digest, file_limit);
	return await_leader(N_GETTERS - 1);
}

static void play_together(void)
{
	struct getter getters[N_GETTERS];
	char digest[SHA256_HEX_SIZE + 1];
	pid_t leader;

	scene("Six processes ask for the same blob");
	upstream_with(1, digest);
	leader = six_ask(getters, digest, RLIM_INFINITY);
	upstream_goes_on();
	check(leader > 0, "one leads, five wait for it");
	check(all_end(getters, 0, STATUS_THERE, digest), "all of them have it");
	check(upstream_n_runs() == 1, "it was downloaded once");
	check(gets(digest) && upstream_n_runs() == 1, "a seventh finds it in the cache");
}

/* Until the cache has one partial file, another one than before, and the upstream has sent what
 * it sends of it. */
static bool await_partial(const char *before)
{
	char name[256];

	for (int i = 0; i < PATIENCE_MS; ++i) {
		if (cache_n_partials(name) == 1 && strcmp(name, before) > 0 && cache_has_half(name))
			return true;
		(void)poll(NULL, 0, 1);
	}
	return false;
}

static void play_death(void)
{
	char digest[SHA256_HEX_SIZE + 1], old[256] = "";
	struct getter getters[N_GETTERS];
	pid_t leader, next;
	bool has_partial;

	scene("The one that downloads is killed in the middle");
	upstream_with(2, digest);
	leader = six_ask(getters, digest, RLIM_INFINITY);
	has_partial = await_partial("") && cache_n_partials(old) == 1;
	if (leader > 0)
		(void)kill(leader, SIGKILL);
	next = await_leader(N_GETTERS - 2);
	check(leader > 0 && next > 0 && next != leader, "one of the others leads");
	check(has_partial && await_partial(old),
	      "it took away the partial file, and writes its own, of a later fence");
	upstream_goes_on();
	check(all_end(getters, leader, STATUS_THERE, digest), "all that live have the blob");
	check(upstream_n_runs() == 2, "it was downloaded by the two, and nobody else");
}

static void play_death_alone(void)
{
	char digest[SHA256_HEX_SIZE + 1], name[256], later[256];
	struct getter getter;
	bool is_left;
	pid_t leader;

	scene("One that downloads alone is killed");
	upstream_with(3, digest);
	getter = getter_start(digest, RLIM_INFINITY);
	leader = await_leader(0);
	is_left = await_partial("");
	(void)kill(getter.pid, SIGKILL);
	(void)getter_end(getter);
	check(leader == getter.pid && is_left && cache_n_partials(name) == 1,
	      "its partial file is left");

	(void)snprintf(later, sizeof(later), "%s/%s.ffffffffffffffff.partial", cache_path, digest);
	file_write(later, "", 0, 0600);
	upstream_goes_on();
	check(gets(digest) && cache_n_partials(name) == 1 && strstr(later, name),
	      "whoever comes next takes it away, but not one of a later fence, and has the blob");
	(void)unlink(later);
}

static void play_failure(void)
{
	struct getter getters[N_GETTERS];
	char digest[SHA256_HEX_SIZE + 1];

	scene("The upstream breaks off");
	upstream_with(4, digest);
	upstream_write("broken", "", 0);
	(void)six_ask(getters, digest, RLIM_INFINITY);
	upstream_goes_on();
	check(all_end(getters, 0, STATUS_UPSTREAM, "status 7"),
	      "all are told that it is the upstream's fault, with its own status");
	check(upstream_n_runs() == 1, "it was asked once");
	upstream_remove("broken");
	check(gets(digest) && upstream_n_runs() == 2,
	      "the failure is not for later callers: the next one asks again");
}

static void play_no_such_blob(void)
{
	struct getter getters[N_GETTERS];
	char digest[SHA256_HEX_SIZE + 1];

	scene("The upstream has no such blob");
	upstream_with(5, digest);
	upstream_remove(digest);
	(void)six_ask(getters, digest, RLIM_INFINITY);
	upstream_goes_on();
	check(all_end(getters, 0, STATUS_NO_SUCH_BLOB, "no such blob"), "all are told so");
	check(upstream_n_runs() == 1, "it was asked once");
}

static void play_other_bytes(void)
{
	char digest[SHA256_HEX_SIZE + 1];
	struct answer answer;

	scene("The upstream sends something else");
	upstream_with(6, digest);
	upstream_write(digest, "other", 5);
	upstream_goes_on();
	answer = getter_end(getter_start(digest, RLIM_INFINITY));
	check(answer.status == STATUS_UPSTREAM && strstr(answer.text, "other bytes"),
	      "it is the upstream's fault, and the cache does not take it");
}

/* This process as one that asks, too. */
static void take_part(struct cache *ret, struct timespec *ret_deadline)
{
	ipc_client *client;
	int r;

	if (cache_open(ret, cache_path, upstream_path) < 0)
		fail(cache_path);
	ipc_deadline_after(ret_deadline, PATIENCE_MS * UINT64_C(1000000));
	r = ipc_client_connect_wait(&client, NULL, ret_deadline);
	if (r == 0) {
		r = cache_connect(ret, client, ret_deadline);
		(void)ipc_client_unref(client); /* the handle keeps it */
	}
	if (r < 0) {
		(void)fprintf(stderr, "take part: %s\n", ipc_error_text(r));
		exit(1);
	}
}

static void play_late(void)
{
	struct timespec deadline;
	struct trouble trouble;
	struct cache cache;
	struct blob blob;
	bool is_there;

	scene("One looks into the cache just before the blob comes, and asks just after");
	memset(&blob, 0, sizeof(blob));
	upstream_with(7, blob.name);
	upstream_goes_on();
	is_there = gets(blob.name);
	take_part(&cache, &deadline);
	check(is_there && cache_fill_wait(&cache, &blob, &trouble, &deadline) == 0,
	      "it has the blob, too");
	check(upstream_n_runs() == 1, "it was downloaded once: who leads looks again");
	cache_close(&cache);
}

static void play_limit(void)
{
	struct getter getters[N_GETTERS];
	char digest[SHA256_HEX_SIZE + 1], words[32];
	struct timespec deadline;
	struct cache cache;

	scene("There is no room for it here");
	upstream_with(8, digest);

	/* The limit is for their files; so the table, which is a file as well, is made by us. */
	take_part(&cache, &deadline);
	(void)six_ask(getters, digest, FILE_LIMIT);
	upstream_goes_on();
	(void)snprintf(words, sizeof(words), "(%d): write", EFBIG);
	check(all_end(getters, 0, STATUS_HERE, words),
	      "all are told that it is this machine's fault, with the errno");
	check(upstream_n_runs() == 1, "one tried");
	check(gets(digest), "one that has room gets it");
	cache_close(&cache);
}

static void play_end(void)
{
	char name[256];
	struct getter getter;
	struct answer answer;

	scene("The end");
	check(cache_n_partials(name) == 0, "no partial file is left");

	(void)snprintf(upstream_path, sizeof(upstream_path), "%s", "/nonexistent");
	getter = getter_start("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
			      RLIM_INFINITY);
	answer = getter_end(getter);
	check(answer.status == STATUS_HERE && strstr(answer.text, "no upstream program"),
	      "an upstream program that is not there is this machine's fault");
}

int play(void)
{
	char hex[SHA256_HEX_SIZE + 1];
	struct sha256 sha;

	stage_set();
	sha256_begin(&sha);
	sha256_add(&sha, "abc", 3);
	sha256_end(&sha, hex);
	scene("SHA-256");
	check(strcmp(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad") == 0,
	      "is computed as FIPS 180-4 has it");

	play_together();
	play_death();
	play_death_alone();
	play_failure();
	play_no_such_blob();
	play_other_bytes();
	play_late();
	play_limit();
	play_end();

	(void)printf("\n%s\n", all_held() ? "blobcache ok" : "blobcache FAILED");
	return all_held() ? 0 : 1;
}
