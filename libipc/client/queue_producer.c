/* SPDX-License-Identifier: MIT */

/*
 * Producers of a queue: push, claim and commit, their waits, and how they end.
 */

#include "libipc/client/queue.h"

#include <ipc/error.h>

#include "libipc/client/options.h"
#include "libipc/platform/clock.h"

static int producer_enter(ipc_queue_producer *producer)
{
	return endpoint_enter((struct endpoint *)producer, IPC_ROLE_QUEUE_PRODUCER);
}

/* ---- ends ---- */

int queue_producer_final(struct queue_handle *producer)
{
	uint64_t now = endpoint_opposite(&producer->endpoint);
	int end;

	if (LIKELY(!(now & SIDE_FINAL) || side_count(now) > 0))
		return 0;

	end = endpoint_opposite_end(&producer->endpoint, now);
	if (end < 0)
		queue_abandon(&producer->view);
	return end;
}

int queue_producer_end(const struct queue_handle *producer, uint64_t began, uint64_t due_ns)
{
	/* There is room, and the token comes by itself, whoever is there: only a step to gone ends
	 * that wait. */
	if (due_ns != CLOCK_FOREVER &&
	    side_ends(endpoint_opposite(&producer->endpoint)) == side_ends(began))
		return 0;

	return endpoint_opposite_end(&producer->endpoint, began);
}

/* ---- what is tried ---- */

/* One call of push_wait, claim_wait or commit_wait. */
struct producing {
	struct queue_handle *producer;

	/* IPC_EAGAIN: not now; *ret_due_ns says when there will be a token, if that is missing. */
	int (*attempt)(struct producing *producing, uint64_t *ret_due_ns);
	unsigned priority;
	uint64_t size;
	const void *data; /* push */
	void *claim;      /* claim: the result; commit */

	uint64_t began;       /* the consumers' side word */
	uint64_t deadline_ns; /* the caller's; the waiter's may be earlier: of a token, of a
				 room that comes with nobody's word */
	struct waiter waiter;
};

static int attempt_push(struct producing *producing, uint64_t *ret_due_ns)
{
	return queue_push(&producing->producer->view, producing->priority, producing->data,
			  producing->size, ret_due_ns);
}

static int attempt_claim(struct producing *producing, uint64_t *ret_due_ns)
{
	int r;

	(void)ret_due_ns;
	r = queue_claim(&producing->producer->view, producing->priority, producing->size,
			&producing->claim);
	return r < 0 ? r : queue_handle_keep(producing->producer);
}

static int attempt_commit(struct producing *producing, uint64_t *ret_due_ns)
{
	int r;

	r = queue_commit(&producing->producer->view, producing->claim, producing->size, ret_due_ns);

	/* The claim went when another thread closed the handle. */
	if (r == IPC_EINVAL &&
	    atomic_load_explicit(&producing->producer->endpoint.closing, memory_order_relaxed))
		return IPC_ECANCELED;

	return r;
}

/* ---- without a wait ---- */

/* 0 or the end or fault; IPC_EAGAIN. */
static int producing_try(struct producing *producing, uint64_t *ret_due_ns)
{
	int r;

	r = queue_producer_final(producing->producer);
	if (r < 0)
		return r;

	*ret_due_ns = CLOCK_FOREVER;
	return producing->attempt(producing, ret_due_ns);
}

static int push(struct queue_handle *producer, unsigned priority, const void *data, size_t size,
		enum ipc_full_policy policy)
{
	struct queue *view = &producer->view;
	uint64_t due_ns = CLOCK_FOREVER;
	int r;

	r = queue_check(view, priority, size);
	if (r < 0)
		return r;
	if (policy == IPC_FULL_DEAD_LETTER && !view->dead)
		return IPC_EINVAL;

	r = queue_producer_final(producer);
	if (r < 0)
		return r;

	r = queue_push(view, priority, data, size, &due_ns);
	if (LIKELY(r != IPC_EAGAIN))
		return r;

	/* What has room and no token stays the caller's, whatever the policy. */
	if (due_ns != CLOCK_FOREVER || policy == IPC_FULL_FAIL)
		return IPC_EAGAIN;

	return queue_push_refused(view, priority, data, size, policy);
}

static bool policy_is_known(enum ipc_full_policy policy)
{
	return policy == IPC_FULL_FAIL || policy == IPC_FULL_DROP || policy == IPC_FULL_DEAD_LETTER;
}

int ipc_queue_push(ipc_queue_producer *producer, unsigned priority, const void *data, size_t size,
		   enum ipc_full_policy policy)
{
	int r;

	if ((!data && size > 0) || !policy_is_known(policy))
		return IPC_EINVAL;

	r = producer_enter(producer);
	if (r < 0)
		return r;

	r = push(&producer->handle, priority, data, size, policy);

	endpoint_leave(&producer->handle.endpoint);
	return r;
}

int ipc_queue_claim(ipc_queue_producer *producer, unsigned priority, size_t size, void **ret_data)
{
	struct producing producing;
	uint64_t due_ns;
	int r;

	if (!ret_data)
		return IPC_EINVAL;

	r = producer_enter(producer);
	if (r < 0)
		return r;

	producing.producer = &producer->handle;
	producing.attempt = attempt_claim;
	producing.priority = priority;
	producing.size = size;
	r = queue_check(&producer->handle.view, priority, size);
	if (r == 0)
		r = producing_try(&producing, &due_ns);
	if (r == 0)
		*ret_data = producing.claim;

	endpoint_leave(&producer->handle.endpoint);
	return r;
}

int ipc_queue_commit(ipc_queue_producer *producer, void *data, size_t size)
{
	struct producing producing;
	uint64_t due_ns;
	int r;

	r = producer_enter(producer);
	if (r < 0)
		return r;

	producing.producer = &producer->handle;
	producing.attempt = attempt_commit;
	producing.claim = data;
	producing.size = size;
	r = producing_try(&producing, &due_ns);

	endpoint_leave(&producer->handle.endpoint);
	return r;
}

int ipc_queue_abort(ipc_queue_producer *producer, void *data)
{
	int r;

	r = producer_enter(producer);
	if (r < 0)
		return r;

	r = header_fault(producer->handle.endpoint.header);
	if (r == 0)
		r = queue_abort(&producer->handle.view, data);

	endpoint_leave(&producer->handle.endpoint);
	return r;
}

/* ---- waits ---- */

static uint64_t earlier(uint64_t one_ns, uint64_t other_ns)
{
	return one_ns < other_ns ? one_ns : other_ns;
}

static int producing_look(void *subject)
{
	struct producing *producing = subject;
	uint64_t due_ns;
	int r, end;

	r = producing_try(producing, &due_ns);
	if (LIKELY(r != IPC_EAGAIN))
		return r;

	end = queue_producer_end(producing->producer, producing->began, due_ns);
	if (end < 0) {
		/* The last one who took may have made room between the two looks. */
		r = producing_try(producing, &due_ns);
		return r != IPC_EAGAIN ? r : end;
	}

	producing->waiter.deadline_ns =
		earlier(producing->deadline_ns,
			earlier(due_ns, queue_linger_due_ns(&producing->producer->view)));
	return WAITER_NOT_YET;
}

static bool producing_has_time(const struct producing *producing)
{
	return producing->deadline_ns == CLOCK_FOREVER ||
	       (producing->deadline_ns > 0 && clock_now_ns() < producing->deadline_ns);
}

/* Inside of the handle; `attempt` and what it needs are filled in. */
static int producing_wait(struct producing *producing, uint64_t deadline_ns)
{
	struct queue_handle *producer = producing->producer;
	int r;

	producing->deadline_ns = deadline_ns;
	producing->began = endpoint_opposite(&producer->endpoint);
	r = producing_look(producing);
	if (r != WAITER_NOT_YET)
		return r;

	do {
		endpoint_waiter(&producer->endpoint, &producing->waiter,
				queue_line(&producer->view, QUEUE_SIDE_PRODUCERS), deadline_ns);
		r = waiter_wait(&producing->waiter, producing_look, producing);
	} while (r == IPC_ETIMEDOUT && producing_has_time(producing));

	return r;
}

/* `attempt` and what it needs are filled in. */
static int producer_wait(ipc_queue_producer *producer, struct producing *producing,
			 const struct timespec *deadline)
{
	uint64_t deadline_ns;
	int r;

	r = clock_deadline(&deadline_ns, deadline);
	if (r < 0)
		return r;

	r = producer_enter(producer);
	if (r < 0)
		return r;

	/* A claim that is open was looked at when it was made. */
	producing->producer = &producer->handle;
	if (producing->attempt != attempt_commit)
		r = queue_check(&producer->handle.view, producing->priority, producing->size);
	if (r == 0)
		r = producing_wait(producing, deadline_ns);

	endpoint_leave(&producer->handle.endpoint);
	return r;
}

int ipc_queue_push_wait(ipc_queue_producer *producer, unsigned priority, const void *data,
			size_t size, const struct timespec *deadline)
{
	struct producing producing;

	if (!data && size > 0)
		return IPC_EINVAL;

	producing.attempt = attempt_push;
	producing.priority = priority;
	producing.data = data;
	producing.size = size;
	return producer_wait(producer, &producing, deadline);
}

int ipc_queue_claim_wait(ipc_queue_producer *producer, unsigned priority, size_t size,
			 void **ret_data, const struct timespec *deadline)
{
	struct producing producing;
	int r;

	if (!ret_data)
		return IPC_EINVAL;

	producing.attempt = attempt_claim;
	producing.priority = priority;
	producing.size = size;
	r = producer_wait(producer, &producing, deadline);
	if (r == 0)
		*ret_data = producing.claim;

	return r;
}

int ipc_queue_commit_wait(ipc_queue_producer *producer, void *data, size_t size,
			  const struct timespec *deadline)
{
	struct producing producing;

	producing.attempt = attempt_commit;
	producing.claim = data;
	producing.size = size;
	return producer_wait(producer, &producing, deadline);
}

/* ---- state ---- */

int ipc_queue_producer_get_state(ipc_queue_producer *producer, struct ipc_queue_state *ret)
{
	struct ipc_queue_state state = {.size = sizeof(state)};
	int r;

	if (!ret || ret->size < sizeof(size_t))
		return IPC_EINVAL;

	r = producer_enter(producer);
	if (r < 0)
		return r;

	/* The state has no end; but what nobody will take is counted where it goes. */
	(void)queue_producer_final(&producer->handle);
	r = queue_get_state(&producer->handle.view, &state);
	if (r == 0)
		r = options_write_info(ret, &state, sizeof(state));

	endpoint_leave(&producer->handle.endpoint);
	return r;
}
