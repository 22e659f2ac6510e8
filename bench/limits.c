/* SPDX-License-Identifier: MIT */
/*
 * What the machine itself costs: the least that any library could take for the same job.
 */
#include "bench/bench.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LINE_ROUNDS = 20000, FUTEX_ROUNDS = 2000, WAKE_ROUNDS = 60, LOCAL_ROUNDS = 200000 };

struct pair {
	_Alignas(64) _Atomic uint32_t ping;
	_Alignas(64) _Atomic uint32_t pong;
	_Alignas(64) _Atomic uint64_t stamp;
	_Alignas(64) _Atomic uint64_t sum;
	_Atomic uint32_t asleep;
	int cpu;
};

static struct pair *pair_new(int cpu)
{
	struct pair *pair = bench_shared(sizeof(*pair));

	pair->cpu = cpu;
	return pair;
}

static void futex_wait_for(_Atomic uint32_t *word, uint32_t value)
{
	uint32_t seen;

	while ((seen = atomic_load(word)) != value)
		syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
}

static void futex_set(_Atomic uint32_t *word, uint32_t value)
{
	atomic_store(word, value);
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void line_echo(void *arg)
{
	struct pair *pair = arg;

	bench_pin(pair->cpu);
	for (uint32_t i = 1; i <= LINE_ROUNDS; ++i) {
		while (atomic_load_explicit(&pair->ping, memory_order_acquire) != i)
			bench_pause();
		atomic_store_explicit(&pair->pong, i, memory_order_release);
	}
}

double limit_line_ns(void *arg)
{
	struct pair *pair = pair_new(1);
	pid_t pid;
	uint64_t began;

	(void)arg;
	if (!bench_has_two_cpus())
		return 0;
	bench_pin(0);
	pid = bench_spawn(line_echo, pair);
	began = bench_now_ns();
	for (uint32_t i = 1; i <= LINE_ROUNDS; ++i) {
		atomic_store_explicit(&pair->ping, i, memory_order_release);
		while (atomic_load_explicit(&pair->pong, memory_order_acquire) != i)
			bench_pause();
	}
	began = bench_now_ns() - began;
	bench_reap(pid);
	munmap(pair, sizeof(*pair));
	return (double)began / LINE_ROUNDS;
}

static void futex_echo(void *arg)
{
	struct pair *pair = arg;

	bench_pin(pair->cpu);
	for (uint32_t i = 1; i <= FUTEX_ROUNDS; ++i) {
		futex_wait_for(&pair->ping, i);
		futex_set(&pair->pong, i);
	}
}

static double futex_round_trip(int cpu)
{
	struct pair *pair = pair_new(cpu);
	pid_t pid;
	uint64_t began;

	bench_pin(0);
	pid = bench_spawn(futex_echo, pair);
	began = bench_now_ns();
	for (uint32_t i = 1; i <= FUTEX_ROUNDS; ++i) {
		futex_set(&pair->ping, i);
		futex_wait_for(&pair->pong, i);
	}
	began = bench_now_ns() - began;
	bench_reap(pid);
	munmap(pair, sizeof(*pair));
	return (double)began / FUTEX_ROUNDS;
}

double limit_futex_one_core(void *arg)
{
	(void)arg;
	return futex_round_trip(0);
}

double limit_futex_two_cores(void *arg)
{
	(void)arg;
	return futex_round_trip(1);
}

/* Sleeps for real each time; the waker waits long enough for that. */
static void wake_sleeper(void *arg)
{
	struct pair *pair = arg;

	bench_pin(pair->cpu);
	for (uint32_t i = 1; i <= WAKE_ROUNDS; ++i) {
		futex_wait_for(&pair->ping, i);
		atomic_fetch_add(&pair->sum, bench_now_ns() - atomic_load(&pair->stamp));
		futex_set(&pair->pong, i);
	}
}

static double futex_wake_latency(int cpu)
{
	struct pair *pair = pair_new(cpu);
	double latency;
	pid_t pid;

	bench_pin(0);
	pid = bench_spawn(wake_sleeper, pair);
	for (uint32_t i = 1; i <= WAKE_ROUNDS; ++i) {
		usleep(300);
		atomic_store(&pair->stamp, bench_now_ns());
		futex_set(&pair->ping, i);
		futex_wait_for(&pair->pong, i);
	}
	latency = (double)atomic_load(&pair->sum) / WAKE_ROUNDS;
	bench_reap(pid);
	munmap(pair, sizeof(*pair));
	return latency;
}

double limit_futex_wake_one_core(void *arg)
{
	(void)arg;
	return futex_wake_latency(0);
}

double limit_futex_wake_two_cores(void *arg)
{
	(void)arg;
	return futex_wake_latency(1);
}

/* ---- a bare sequence lock ---- */

struct seqlock {
	_Alignas(64) _Atomic uint32_t sequence;
	_Alignas(64) _Atomic uint64_t words[BENCH_PAYLOAD / 8];
};

static void seqlock_publish(struct seqlock *lock, const uint64_t *from)
{
	uint32_t sequence = atomic_load_explicit(&lock->sequence, memory_order_relaxed);

	atomic_store_explicit(&lock->sequence, sequence + 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	for (int i = 0; i < BENCH_PAYLOAD / 8; ++i)
		atomic_store_explicit(&lock->words[i], from[i], memory_order_relaxed);
	atomic_store_explicit(&lock->sequence, sequence + 2, memory_order_release);
}

static bool seqlock_read(struct seqlock *lock, uint64_t *to)
{
	uint32_t sequence = atomic_load_explicit(&lock->sequence, memory_order_acquire);

	for (int i = 0; i < BENCH_PAYLOAD / 8; ++i)
		to[i] = atomic_load_explicit(&lock->words[i], memory_order_relaxed);
	atomic_thread_fence(memory_order_acquire);
	return !(sequence & 1) &&
	       atomic_load_explicit(&lock->sequence, memory_order_relaxed) == sequence;
}

static double seqlock_publish_all(struct seqlock *lock)
{
	uint64_t value[BENCH_PAYLOAD / 8] = {1}, began = bench_now_ns();

	for (int i = 0; i < LOCAL_ROUNDS; ++i) {
		value[0] = (uint64_t)i;
		seqlock_publish(lock, value);
	}
	return (double)(bench_now_ns() - began) / LOCAL_ROUNDS;
}

double limit_seqlock_publish(void *arg)
{
	struct seqlock *lock = bench_shared(sizeof(*lock));
	double each;

	(void)arg;
	each = seqlock_publish_all(lock);
	munmap(lock, sizeof(*lock));
	return each;
}

static void seqlock_poll(void *arg)
{
	uint64_t value[BENCH_PAYLOAD / 8];

	bench_pin(1);
	for (;;) {
		(void)seqlock_read(arg, value);
		__asm__ __volatile__("" : : "r"(value) : "memory");
	}
}

double limit_seqlock_publish_polled(void *arg)
{
	struct seqlock *lock = bench_shared(sizeof(*lock));
	double each;
	pid_t pid;

	(void)arg;
	bench_pin(0);
	pid = bench_spawn(seqlock_poll, lock);
	usleep(2000);
	each = seqlock_publish_all(lock);
	bench_reap(pid);
	munmap(lock, sizeof(*lock));
	return each;
}

double limit_seqlock_read(void *arg)
{
	struct seqlock *lock = bench_shared(sizeof(*lock));
	uint64_t value[BENCH_PAYLOAD / 8] = {1}, began = bench_now_ns();

	(void)arg;
	for (int i = 0; i < LOCAL_ROUNDS; ++i) {
		if (!seqlock_read(lock, value))
			bench_fail("seqlock", IPC_EBADMSG);
		__asm__ __volatile__("" : : "r"(value) : "memory");
	}
	began = bench_now_ns() - began;
	munmap(lock, sizeof(*lock));
	return (double)began / LOCAL_ROUNDS;
}

double limit_robust_pair(void *arg)
{
	pthread_mutex_t *mutex = bench_shared(sizeof(*mutex));
	pthread_mutexattr_t attributes;
	uint64_t began;

	(void)arg;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(mutex, &attributes);
	began = bench_now_ns();
	for (int i = 0; i < LOCAL_ROUNDS; ++i) {
		pthread_mutex_lock(mutex);
		pthread_mutex_unlock(mutex);
	}
	began = bench_now_ns() - began;
	munmap(mutex, sizeof(*mutex));
	return (double)began / LOCAL_ROUNDS;
}

/* ---- the kernel's own notice of a death ---- */

struct eof {
	int fds[2];
	_Atomic uint32_t ready;
	_Atomic uint64_t seen_ns;
};

static void eof_victim(void *arg)
{
	struct eof *eof = arg;

	bench_pin(1);
	close(eof->fds[0]);
	atomic_fetch_add(&eof->ready, 1);
	for (;;)
		pause();
}

static void eof_waiter(void *arg)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP};
	struct eof *eof = arg;
	int epoll_fd;

	bench_pin(0);
	close(eof->fds[1]);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, eof->fds[0], &event);
	atomic_fetch_add(&eof->ready, 1);
	epoll_wait(epoll_fd, &event, 1, 10000);
	atomic_store(&eof->seen_ns, bench_now_ns());
}

double limit_socket_eof(void *arg)
{
	struct eof *eof = bench_shared(sizeof(*eof));
	pid_t victim, waiter;
	uint64_t killed;
	double latency;

	(void)arg;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, eof->fds) < 0)
		bench_fail("socketpair", -errno);
	victim = bench_spawn(eof_victim, eof);
	waiter = bench_spawn(eof_waiter, eof);
	close(eof->fds[0]);
	close(eof->fds[1]);
	bench_sleep_until(&eof->ready, 2);
	usleep(3000);

	killed = bench_now_ns();
	kill(victim, SIGKILL);
	waitpid(waiter, NULL, 0);
	waitpid(victim, NULL, 0);
	latency = (double)(atomic_load(&eof->seen_ns) - killed);
	munmap(eof, sizeof(*eof));
	return latency;
}

/* ---- the least that making and sharing a segment takes ---- */

static void echo_server(void *arg)
{
	int fd = *(int *)arg;
	char byte;

	while (recv(fd, &byte, 1, 0) == 1)
		(void)!send(fd, &byte, 1, MSG_NOSIGNAL);
}

double limit_map_round_trip(void *arg)
{
	enum { N = 300, SIZE = 65536 };
	int fds[2];
	uint64_t began;
	char byte = 0;
	pid_t pid;

	(void)arg;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		bench_fail("socketpair", -errno);
	pid = bench_spawn(echo_server, &fds[1]);
	began = bench_now_ns();
	for (int i = 0; i < N; ++i) {
		int fd = memfd_create("limit", MFD_CLOEXEC);
		void *one, *two;

		if (fd < 0 || ftruncate(fd, SIZE) < 0)
			bench_fail("memfd", -errno);
		one = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		two = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0);
		(void)!send(fds[0], &byte, 1, 0);
		(void)!recv(fds[0], &byte, 1, 0);
		munmap(one, SIZE);
		munmap(two, SIZE);
		close(fd);
	}
	began = bench_now_ns() - began;
	close(fds[0]);
	close(fds[1]);
	bench_reap(pid);
	return (double)began / N;
}
