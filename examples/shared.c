/* SPDX-License-Identifier: MIT */
/*
 * shared: a small value that two sides change under one lock.
 *
 * Two processes and a ledger of two accounts.  The teller (side B) sleeps until there is money on
 * the second account and books it out; the payer (side A) books money in, and then dies with
 * SIGKILL in the middle of an edit.  The teller is told, finds the ledger as it was committed last,
 * and goes on.
 *
 * Needs no broker: the library starts one where none runs.
 */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ipc/ipc.h>

/* The value is any bytes; here a struct.  Both sides have to agree on it.  A new one holds zero
 * bytes. */
struct ledger {
	int64_t account[2]; /* together always 0 */
	uint64_t n_bookings;
};

static const char *const name = "example/ledger";

static void must(const char *what, int result)
{
	if (result >= 0)
		return;

	fprintf(stderr, "%s: %s (%s)\n", what, ipc_error_text(result), ipc_error_name(result));
	exit(1);
}

/* A client is one process's connection.  Connect after fork: a forked child cannot use what its
 * parent opened. */
static ipc_client *connect_client(void)
{
	struct timespec deadline;
	ipc_client *client;

	ipc_deadline_after(&deadline, UINT64_C(10000000000));
	must("connect", ipc_client_connect_wait(&client, NULL, &deadline));
	return client;
}

static ipc_shared *open_ledger(ipc_client *client, enum ipc_side side)
{
	const struct ipc_shared_options *options =
		IPC_SHARED_OPTIONS(.flags = IPC_CREATE, .value_size = sizeof(struct ledger));
	ipc_shared *shared;

	must("open", ipc_shared_open_wait(&shared, client, name, side, options, NULL));
	return shared;
}

/* Called with the lock held, as often as somebody commits. */
static bool is_settled(const void *value, size_t size, void *userdata)
{
	const struct ledger *ledger = value;

	(void)size;
	(void)userdata;
	return ledger->account[1] == 0;
}

static bool has_money(const void *value, size_t size, void *userdata)
{
	return !is_settled(value, size, userdata);
}

/*
 * Between lock and commit nobody else looks or writes.  edit gives a copy, commit makes it the
 * value in one step: whoever is killed in between has changed nothing.
 */
static struct ledger *lock_and_edit(ipc_shared *shared)
{
	const void *value;
	void *copy;

	must("lock", ipc_shared_lock_when_wait(shared, is_settled, NULL, &value, NULL));
	must("edit", ipc_shared_edit(shared, &copy));
	return copy;
}

static void run_payer(void)
{
	ipc_shared *shared = open_ledger(connect_client(), IPC_SIDE_A);
	struct ledger *ledger;

	must("wait for a teller", ipc_shared_peers_wait(shared, true, NULL));
	for (int64_t amount = 10; amount <= 30; amount += 10) {
		ledger = lock_and_edit(shared);
		printf("payer: pays %d\n", (int)amount);
		ledger->account[0] -= amount;
		ledger->account[1] += amount;
		ledger->n_bookings += 1;
		must("commit", ipc_shared_commit(shared));
	}

	/* Half a booking, and the end. */
	ledger = lock_and_edit(shared);
	ledger->account[0] -= 1000000;
	printf("payer: dies in the middle of a booking\n");
	raise(SIGKILL);
}

static int run_teller(void)
{
	ipc_client *client = connect_client();
	ipc_shared *shared = open_ledger(client, IPC_SIDE_B);
	const struct ledger *ledger;
	struct ledger *edited;
	const void *value;
	int64_t sum;
	void *copy;
	int r;

	/*
	 * Sleeps until the predicate holds; then the lock is held.  No deadline: if the payers go,
	 * the wait ends all the same.  0: held; 1: held, and somebody died holding the lock since
	 * the last commit, which is no harm here.
	 */
	while ((r = ipc_shared_lock_when_wait(shared, has_money, NULL, &value, NULL)) >= 0) {
		must("edit", ipc_shared_edit(shared, &copy));
		edited = copy;
		printf("teller: books out %d\n", (int)edited->account[1]);
		edited->account[0] += edited->account[1];
		edited->account[1] = 0;
		must("commit", ipc_shared_commit(shared));
	}
	printf("teller: the end: %s\n", ipc_error_text(r));

	r = r == IPC_EOWNERDEAD ? ipc_shared_lock_wait(shared, &value, NULL) : r;
	must("lock", r);
	ledger = value;
	sum = ledger->account[0] + ledger->account[1];
	printf("teller: %sthe ledger says %d bookings, and its sum is %d\n",
	       r == 1 ? "a holder of the lock died; " : "", (int)ledger->n_bookings, (int)sum);
	must("unlock", ipc_shared_unlock(shared));

	ipc_shared_close(shared);
	ipc_client_unref(client);
	return sum == 0 ? 0 : 1;
}

int main(void)
{
	int status, r;
	pid_t pid;

	setvbuf(stdout, NULL, _IOLBF, 0);
	pid = fork();
	if (pid < 0) {
		perror("fork");
		return 1;
	}
	if (pid == 0) {
		run_payer();
		return 1;
	}

	r = run_teller();
	if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status))
		return 1;
	return r;
}
