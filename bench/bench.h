/* SPDX-License-Identifier: MIT */
#ifndef BENCH_H
#define BENCH_H

/*
 * What the rows share.  A figure is worth nothing alone: each row measures ours and its physical
 * limit in turns within one run and prints the ratio.  Everything goes through the public
 * interface, between processes, with the broker running.
 */

#include <ipc/ipc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { BENCH_ROUNDS = 9, BENCH_PAYLOAD = 64, BENCH_PRODUCERS = 4 };

/* ---- time, processes ---- */
uint64_t bench_now_ns(void);
void bench_pin(int cpu); /* -1: wherever the scheduler likes */
bool bench_has_two_cpus(void);
void *bench_shared(size_t size); /* zero bytes, shared with children */
pid_t bench_spawn(void (*fn)(void *arg), void *arg);
void bench_reap(pid_t pid); /* SIGKILL and wait */
void bench_sleep_until(const _Atomic uint32_t *word,
		       uint32_t value); /* yields until *word is value */
void bench_fail(const char *what, int result) __attribute__((__noreturn__));

/* ---- the domain under test ---- */
extern const char *bench_address;
extern pid_t bench_keeper;
void bench_domain_start(const char *program);
void bench_domain_stop(void);
pid_t bench_worker(void);
void bench_kill_worker(void);
ipc_client *bench_connect(void);
ipc_watch_producer *bench_producer(ipc_client *client, const char *name);
ipc_watch_consumer *bench_consumer(ipc_client *client, const char *name);
ipc_shared *bench_ledger(ipc_client *client, const char *name, enum ipc_side side, size_t size);
ipc_flight_table *bench_table(ipc_client *client, const char *name);
ipc_handler *bench_handler(ipc_client *client, const char *name);
ipc_queue_producer *bench_queue_producer(ipc_client *client, const char *name);
ipc_queue_consumer *bench_queue_consumer(ipc_client *client, const char *name);

static inline void bench_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#endif
}

/* What is done with the bytes of a message where both ends work in place. */
void bench_fill(void *data, size_t size);
void bench_sum(const void *data, size_t size);

/* ---- figures ---- */
double bench_median(double *values, int n);
double bench_best(const double *values, int n);

/* One line of the report.  goal 0: no goal, only a figure. unit is of ours and limit. */
void bench_row(const char *row, const char *workload, double ours, const char *limit_name,
	       double limit, double goal, const char *unit);
void bench_figure(const char *row, const char *workload, double value, const char *unit);

/* Runs both in turns for BENCH_ROUNDS rounds and prints the row; best of the rounds, or their
 * median. */
typedef double (*bench_fn)(void *arg);
void bench_compare(const char *row, const char *workload, bench_fn ours, const char *limit_name,
		   bench_fn limit, void *arg, bool use_best, double goal, const char *unit);

/* ---- limits ---- */
double limit_line_ns(void *arg);        /* cache-line ping-pong, round trip */
double limit_futex_one_core(void *arg); /* bare futex round trip, ns */
double limit_futex_two_cores(void *arg);
double
limit_futex_wake_one_core(void *arg); /* from the store to the return of a real sleeper, ns */
double limit_futex_wake_two_cores(void *arg);
double limit_seqlock_publish(void *arg);        /* 64 B, ns */
double limit_seqlock_publish_polled(void *arg); /* with a reader polling on the other core */
double limit_seqlock_read(void *arg);
double limit_ring_alone_ns(void *arg);  /* ns an item: one producer, one consumer */
double limit_ring_shared_ns(void *arg); /* BENCH_PRODUCERS producers on one core, one consumer */
double limit_ring_in_place_ns(size_t size); /* ns an item of so many bytes, filled and read there */
double limit_read_ns(size_t size);          /* reading bytes that the other core has written */
double limit_robust_pair(void *arg);        /* uncontended robust mutex lock and unlock, ns */
double limit_socket_eof(void *arg); /* SIGKILL to the return of epoll_wait in another process, ns */
double limit_map_round_trip(void *arg); /* memfd + 2 mmap + one seqpacket round trip, ns */

/* ---- rows ---- */
void bench_watch(void);
void bench_shared_rows(void);
void bench_flight(void);
void bench_limiter(void);
void bench_queue(void);
void bench_session(void);
void bench_inbox(void);
void bench_death(void);
void bench_open(void);
void bench_broker(void);
void bench_syscalls(void);
void bench_peers(void);

#endif
