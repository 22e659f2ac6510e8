/* SPDX-License-Identifier: MIT */
/*
 * Holders and waiters of permits killed at random, by the test's SIGKILL at any instruction and by
 * their own crash points, with a real broker.  That never more permits are held than there are is
 * seen by nothing of the library: each who holds p permits locks p bytes of a file, of which there
 * are as many as permits; the kernel takes the locks back with the process.
 *
 *	IPC_STRESS_KILLS   how many, default 1500; a third of it here
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ipc/ipc.h>

#include "tests/support/domain.h"
#include "tests/support/process.h"

enum { N_PERMITS = 3, N_WORKERS = 5, KILLS_DEFAULT = 1500, DEADLINE_MS = 30000 };

/* Between two kills, so that things get under way. */
enum { GRANTS_BETWEEN = 50 };

#define NAME  "stress/limiter"
#define UNITS (UINT64_C(1) << 40)
#define HOUR  (UINT64_C(3600) * 1000000000)

/* Exit statuses of workers; a worker never ends by itself otherwise. */
enum { TOO_MANY = 10, WRONG_RESULT = 11, STUCK = 12 };

/* In shared memory. */
struct progress {
	_Atomic uint64_t n_granted;
	_Atomic uint64_t n_waited;
};

static struct progress *progress;
static struct domain domain;
static int permits_fd; /* below every descriptor of a client, so that its locks go first */

static unsigned n_kills_wanted(void)
{
	const char *text = getenv("IPC_STRESS_KILLS");

	return (text ? (unsigned)strtoul(text, NULL, 10) : KILLS_DEFAULT) / 3 + 1;
}

/* ---- the detector ---- */

static bool byte_lock(int byte, short type)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

	return fcntl(permits_fd, F_SETLK, &lock) == 0;
}

/* A bit for each byte that was locked.  Others take and let go meanwhile: only who finds too few
 * again and again is one too many. */
static unsigned bytes_lock(unsigned n)
{
	unsigned mine = 0;

	for (unsigned i = 0; i < 1000; ++i) {
		for (int byte = 0; byte < N_PERMITS && n > 0; ++byte) {
			if (!(mine & 1u << byte) && byte_lock(byte, F_WRLCK)) {
				mine |= 1u << byte;
				--n;
			}
		}
		if (n == 0)
			return mine;
	}

	_exit(TOO_MANY);
}

static void bytes_unlock(unsigned mine)
{
	for (int byte = 0; byte < N_PERMITS; ++byte)
		if (mine & 1u << byte)
			(void)byte_lock(byte, F_UNLCK);
}

/* ---- workers ---- */

static void must(int r)
{
	if (r < 0)
		_exit(r == IPC_ETIMEDOUT ? STUCK : WRONG_RESULT);
}

static void hold(ipc_limiter *limiter, const struct ipc_limiter_grant *grant, unsigned *seed)
{
	unsigned mine = bytes_lock(grant->permits);

	atomic_fetch_add(&progress->n_granted, 1);
	for (unsigned spin = (unsigned)rand_r(seed) % 3000; spin > 0; --spin)
		__asm__ __volatile__("");
	bytes_unlock(mine);
	must(ipc_limiter_release(limiter, grant, rand_r(seed) % 2));
}

static void work_once(ipc_limiter *limiter, unsigned *seed)
{
	uint32_t permits = 1 + (uint32_t)rand_r(seed) % N_PERMITS;
	struct ipc_limiter_grant grant;
	struct timespec deadline;
	int r;

	switch (rand_r(seed) % 4) {
	case 0:
		r = ipc_limiter_acquire(limiter, permits, &grant);
		if (r == IPC_EAGAIN)
			return;
		break;
	case 1: /* many give up */
		ipc_deadline_after(&deadline, (uint64_t)rand_r(seed) % 300000);
		r = ipc_limiter_acquire_wait(limiter, permits, &grant, &deadline);
		if (r == IPC_ETIMEDOUT)
			return;
		break;
	default:
		deadline = domain_deadline(DEADLINE_MS);
		r = ipc_limiter_acquire_wait(limiter, permits, &grant, &deadline);
		atomic_fetch_add(&progress->n_waited, 1);
	}

	must(r);
	hold(limiter, &grant, seed);
}

static void work(void)
{
	unsigned seed = (unsigned)getpid();
	ipc_client *own = domain_connect(&domain);
	ipc_limiter *limiter;

	for (;;) {
		struct timespec deadline = domain_deadline(DEADLINE_MS);

		must(ipc_limiter_open_wait(&limiter, own, NAME, NULL, &deadline));
		for (unsigned i = (unsigned)rand_r(&seed) % 2000; i > 0; --i)
			work_once(limiter, &seed);
		limiter = ipc_limiter_close(limiter);
	}
}

static pid_t hire(unsigned i)
{
	pid_t pid = process_fork();

	if (pid == 0) {
		/* Half of them die at a crash point of the library, in time. */
		if (i % 2)
			setenv("IPC_CRASH", "random:5000", 1);
		else
			unsetenv("IPC_CRASH");
		work();
		_exit(1);
	}
	return pid;
}

/* ---- the killer ---- */

static void mourn(pid_t pids[N_WORKERS], unsigned i, int status, unsigned *n_kills)
{
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
		  "worker %u ended with status 0x%x after %u kills", i, (unsigned)status, *n_kills);
	++*n_kills;
	pids[i] = hire(i);
}

static void reap(pid_t pids[N_WORKERS], unsigned *n_kills)
{
	for (unsigned i = 0; i < N_WORKERS; ++i) {
		int status;

		if (waitpid(pids[i], &status, WNOHANG) == pids[i])
			mourn(pids, i, status, n_kills);
	}
}

static void kill_some(unsigned n_wanted)
{
	unsigned seed = (unsigned)getpid(), n_kills = 0;
	pid_t pids[N_WORKERS];
	uint64_t seen = 0;

	for (unsigned i = 0; i < N_WORKERS; ++i)
		pids[i] = hire(i);

	while (n_kills < n_wanted) {
		struct timespec limit = process_deadline(DEADLINE_MS);
		unsigned victim = (unsigned)rand_r(&seed) % N_WORKERS;
		int status;

		while (atomic_load(&progress->n_granted) < seen + GRANTS_BETWEEN) {
			cr_assert(!process_has_passed(&limit),
				  "nothing was granted for 30 s, after %u kills", n_kills);
			reap(pids, &n_kills);
			process_pause();
		}
		seen = atomic_load(&progress->n_granted);
		for (unsigned spin = (unsigned)rand_r(&seed) % 20000; spin > 0; --spin)
			__asm__ __volatile__("");

		(void)kill(pids[victim], SIGKILL);
		cr_assert_eq(waitpid(pids[victim], &status, 0), pids[victim]);
		mourn(pids, victim, status, &n_kills);
		reap(pids, &n_kills);
	}

	for (unsigned i = 0; i < N_WORKERS; ++i) {
		(void)kill(pids[i], SIGKILL);
		(void)waitpid(pids[i], NULL, 0);
	}
}

static void check_end(ipc_limiter *limiter)
{
	struct ipc_limiter_state state = {.size = sizeof(state)};
	struct timespec deadline = domain_deadline(DEADLINE_MS);
	struct ipc_limiter_grant grant;

	cr_assert_eq(ipc_limiter_acquire_wait(limiter, N_PERMITS, &grant, &deadline), 0,
		     "permits were lost");
	cr_assert_eq(ipc_limiter_get_state(limiter, &state), 0);
	cr_expect_eq(state.n_free, 0);
	cr_expect_eq(state.n_waiting, 0, "%u wait", state.n_waiting);
	cr_expect_leq(state.window_used, N_PERMITS * (atomic_load(&progress->n_granted) +
						      N_WORKERS + n_kills_wanted() * 2));
	cr_expect_gt(atomic_load(&progress->n_waited), 0);
}

/* L-2, L-3, M-25, M-26 */
Test(limiter, permits_are_neither_lost_nor_doubled_under_random_kills, .timeout = 280)
{
	struct timespec deadline;
	ipc_limiter *limiter;
	ipc_client *client;

	progress = mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	cr_assert_neq(progress, MAP_FAILED);
	permits_fd = (int)memfd_create("permits", MFD_CLOEXEC);
	cr_assert_geq(permits_fd, 0);
	domain_start(&domain, NULL);
	client = domain_connect(&domain);
	deadline = domain_deadline(DEADLINE_MS);
	cr_assert_eq(
		ipc_limiter_open_wait(&limiter, client, NAME,
				      IPC_LIMITER_OPTIONS(.flags = IPC_CREATE | IPC_KEEP,
							  .permits = N_PERMITS,
							  .window_units = UNITS, .window_ns = HOUR),
				      &deadline),
		0);

	kill_some(n_kills_wanted());
	cr_log_info("%lu grants", (unsigned long)atomic_load(&progress->n_granted));
	check_end(limiter);

	ipc_limiter_close(limiter);
	deadline = domain_deadline(DEADLINE_MS);
	cr_assert_eq(ipc_channel_remove_wait(client, NAME, 0, &deadline), 0);
	ipc_client_unref(client);
	domain_stop(&domain);
}
