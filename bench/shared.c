/* SPDX-License-Identifier: MIT */
/*
 * shared: P11 (lock, edit 64 B, commit beside a robust mutex pair).
 */
#include "bench/bench.h"

#include <string.h>

enum { LOCAL_ROUNDS = 100000 };

static ipc_shared *ledger;

static double transaction_ns(void *arg)
{
	uint64_t began = bench_now_ns();
	const void *value;
	void *copy;

	(void)arg;
	for (int i = 0; i < LOCAL_ROUNDS; ++i) {
		if (ipc_shared_lock_wait(ledger, &value, NULL) < 0 ||
		    ipc_shared_edit(ledger, &copy) < 0)
			bench_fail("lock, edit", IPC_EINVAL);
		memset(copy, i, BENCH_PAYLOAD);
		if (ipc_shared_commit(ledger) < 0)
			bench_fail("commit", IPC_EINVAL);
	}
	return (double)(bench_now_ns() - began) / LOCAL_ROUNDS;
}

void bench_shared_rows(void)
{
	ipc_client *client = bench_connect();

	ledger = bench_ledger(client, "bench/p11", IPC_SIDE_A, BENCH_PAYLOAD);
	bench_pin(0);
	bench_compare("P11", "shared: lock, edit 64 B, commit", transaction_ns, "robust mutex pair",
		      limit_robust_pair, NULL, true, 2.5, "ns");
	bench_pin(-1);
	(void)ipc_shared_close(ledger);
	(void)ipc_client_unref(client);
}
