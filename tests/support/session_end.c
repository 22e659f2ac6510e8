/* SPDX-License-Identifier: MIT */
#include "tests/support/session_end.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/support/process.h"

enum { MANY = 8, SHORT_MAX = 200, OLD_CALLS = 50 };

/* Stands at the beginning of each message; the other bytes follow from it. */
struct message {
	uint32_t life, stream, count, size;
	uint32_t is_request, has_fd;
	uint64_t answers; /* a reply: number of the request, */
	uint64_t index;   /* which is the so many-th of them */
};

static struct talk *talk;
static struct talk_end *end, *other;
static unsigned side;
static uint32_t life;
static ipc_session *session;
static uint64_t received_before, checked_before; /* this life heard anything */

static void wrong(int line, int64_t value)
{
	uint32_t none = 0;

	if (atomic_compare_exchange_strong(&talk->wrong_line, &none, (uint32_t)line))
		atomic_store(&talk->wrong_value, value);
	_exit(1);
}

/* value: what is shown if it does not hold. */
#define HOLDS(condition, value)                                                                    \
	do {                                                                                       \
		if (!(condition))                                                                  \
			wrong(__LINE__, (int64_t)(value));                                         \
	} while (0)
#define MUST(call)                                                                                 \
	do {                                                                                       \
		int result_ = (call);                                                              \
		HOLDS(result_ >= 0, result_);                                                      \
	} while (0)

/* Whoever is overtaken may be late: nothing goes back. */
static void raise_to(_Atomic uint64_t *word, uint64_t value)
{
	uint64_t now = atomic_load(word);

	while (now < value && !atomic_compare_exchange_weak(word, &now, value))
		;
}

/* Whether the call is over because the end has been taken over: only ever by a newer process. */
static bool is_overtaken(int result)
{
	if (result != IPC_ESTALE)
		return false;
	HOLDS(atomic_load(&end->life) > life, life);
	return true;
}

/* ---- sending ---- */

struct sender {
	unsigned stream;
	unsigned seed;
	unsigned char bytes[TALK_SIZE_MAX];
};

static void message_fill(void *data, const struct message *message)
{
	unsigned char *bytes = data;

	memcpy(bytes, message, sizeof(*message));
	memset(bytes + sizeof(*message), (int)(message->count + message->life),
	       message->size - sizeof(*message));
}

/* The next one of the stream: begun, before it can be heard. */
static struct message message_next(const struct sender *sender, size_t size)
{
	struct talk_life *of_life = &end->lives[life];
	uint32_t count = atomic_load(&of_life->done[sender->stream]) + 1;

	atomic_store(&of_life->begun[sender->stream], count);
	return (struct message){
		.life = life, .stream = sender->stream, .count = count, .size = (uint32_t)size};
}

static void message_done(const struct message *message)
{
	atomic_store(&end->lives[life].done[message->stream], message->count);
}

static size_t any_size(struct sender *sender)
{
	size_t limit = rand_r(&sender->seed) % 16 ? SHORT_MAX : TALK_SIZE_MAX;

	return sizeof(struct message) +
	       (size_t)rand_r(&sender->seed) % (limit - sizeof(struct message) + 1);
}

static struct timespec any_deadline(struct sender *sender)
{
	return domain_deadline(rand_r(&sender->seed) % 4 ? TALK_WAIT_MS
							 : (unsigned)rand_r(&sender->seed) % 2);
}

/* Its content says whose it is. */
static int fd_of(const struct message *message)
{
	int fd = (int)syscall(SYS_memfd_create, "talk", 1 /* MFD_CLOEXEC */);

	HOLDS(fd >= 0 && pwrite(fd, message, sizeof(*message), 0) == (ssize_t)sizeof(*message), fd);
	return fd;
}

static int send_copy(struct sender *sender)
{
	struct timespec deadline = any_deadline(sender);
	struct message message = message_next(sender, any_size(sender));
	int fd, r;

	message.is_request = side == talk->asker && rand_r(&sender->seed) % 4 == 0;
	message.has_fd = rand_r(&sender->seed) % 32 == 0;
	message_fill(sender->bytes, &message);
	if (message.has_fd) {
		fd = fd_of(&message);
		r = ipc_session_send_fd_wait(session, fd, sender->bytes, message.size, &deadline);
		close(fd);
	} else if (rand_r(&sender->seed) % 2) {
		r = ipc_session_send(session, sender->bytes, message.size);
	} else {
		r = ipc_session_send_wait(session, sender->bytes, message.size, &deadline);
	}
	if (r == 0)
		message_done(&message);
	return r;
}

static int commit(struct sender *sender, void *data, size_t size)
{
	struct message message = message_next(sender, size);
	int r;

	message_fill(data, &message);
	r = ipc_session_commit(session, data, message.size);
	if (r == 0)
		message_done(&message);
	return r;
}

/* Up to two claims at a time, of which the second is committed first, or one given back (C-14). */
static int send_claims(struct sender *sender)
{
	struct timespec deadline = any_deadline(sender);
	size_t sizes[2] = {any_size(sender), any_size(sender)};
	void *data[2];
	int r, second;

	r = ipc_session_claim_wait(session, sizes[0], &data[0], &deadline);
	if (r < 0)
		return r;
	second = rand_r(&sender->seed) % 2 ? ipc_session_claim(session, sizes[1], &data[1])
					   : IPC_EAGAIN;
	if (second == 0)
		r = commit(sender, data[1], sizes[1]);
	else if (second != IPC_EAGAIN)
		r = second;
	if (r < 0)
		return r;
	if (rand_r(&sender->seed) % 8 == 0)
		return ipc_session_abort(session, data[0]);

	/* Less than was claimed. */
	return commit(sender, data[0], (sizes[0] + sizeof(struct message)) / 2);
}

static void *sender_run(void *arg)
{
	struct sender *sender = arg;
	int r = 0;

	while (!atomic_load(&talk->is_quiet) && !is_overtaken(r)) {
		r = rand_r(&sender->seed) % 3 ? send_copy(sender) : send_claims(sender);
		HOLDS(r == 0 || r == IPC_EAGAIN || r == IPC_ETIMEDOUT || r == IPC_ESTALE, r);
		if (r == IPC_EAGAIN)
			(void)sched_yield();
	}
	return NULL;
}

/* ---- replying ---- */

/* C-12: done with the request and replied to in one step.  IPC_ESTALE: neither. */
static int reply(struct sender *sender, const struct ipc_session_message *request, uint64_t index)
{
	struct timespec deadline = domain_deadline(TALK_WAIT_MS);
	struct message message;
	size_t size = any_size(sender);
	void *data;
	int r;

	HOLDS(atomic_load(&end->replied) < request->sequence || atomic_load(&end->life) > life,
	      request->sequence);
	r = ipc_session_claim_wait(session, size, &data, &deadline);
	if (r < 0)
		return r;

	/* Refused: nothing has happened. */
	if (rand_r(&sender->seed) % 16 == 0) {
		r = ipc_session_commit_release(session, data, size + TALK_SIZE_MAX, request);
		if (r != IPC_EMSGSIZE)
			return r < 0 ? r : IPC_EBADMSG;
	}
	message = message_next(sender, size);
	message.answers = request->sequence;
	message.index = index;
	message_fill(data, &message);
	r = ipc_session_commit_release(session, data, size, request);
	if (r < 0)
		return r;
	message_done(&message);
	raise_to(&end->replied, request->sequence);
	atomic_fetch_add(&end->n_replies, 1);
	return 0;
}

/* ---- hearing ---- */

/* Whether this process has the end. */
static bool is_mine(void)
{
	struct ipc_session_state state = {.size = sizeof(state)};
	int r = ipc_session_get_state(session, &state);

	if (is_overtaken(r))
		return false;
	MUST(r);
	return true;
}

/* False: the end was taken over: the next process may have released the message meanwhile, and
 * another one may stand in its place. */
static bool message_read(const struct ipc_session_message *got, struct message *ret)
{
	static unsigned char bytes[TALK_SIZE_MAX];

	HOLDS(got->size >= sizeof(*ret) && got->size <= TALK_SIZE_MAX, got->size);
	memcpy(bytes, got->data, got->size);
	if (!is_mine())
		return false;

	memcpy(ret, bytes, sizeof(*ret));
	HOLDS(ret->size == got->size && ret->stream < TALK_STREAMS, ret->size);
	HOLDS(ret->life > 0 && ret->life < TALK_LIVES_MAX, ret->life);
	for (size_t i = sizeof(*ret); i < got->size; ++i)
		HOLDS(bytes[i] == (unsigned char)(ret->count + ret->life), i);
	return true;
}

/* Whether an earlier life may have received it: who dies before it has noted that is one call
 * ahead. */
static bool may_be_again(const struct ipc_session_message *got)
{
	return got->sequence <= received_before + MANY;
}

/* C-11 */
static void check_fd(const struct ipc_session_message *got, const struct message *message)
{
	bool is_lost = got->flags & IPC_MESSAGE_FD_LOST;
	struct message content;

	HOLDS(!!(got->flags & IPC_MESSAGE_FD) == message->has_fd, got->flags);

	/* By an earlier life that received it; or by one that was overtaken while it lived, between
	 * its look at the socket and the taking. */
	HOLDS(!is_lost || message->has_fd, got->sequence);
	HOLDS((got->fd >= 0) == (message->has_fd && !is_lost), got->fd);
	if (is_lost)
		atomic_fetch_add(&end->n_fds_lost, 1);
	if (got->fd < 0)
		return;
	HOLDS(pread(got->fd, &content, sizeof(content), 0) == (ssize_t)sizeof(content) &&
		      memcmp(&content, message, sizeof(content)) == 0,
	      got->sequence);
	close(got->fd);
	atomic_fetch_add(&end->n_fds, 1);
}

static uint64_t message_mix(const struct message *message)
{
	uint64_t words[sizeof(*message) / sizeof(uint64_t)], mix = 0;

	memcpy(words, message, sizeof(words));
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); ++i)
		mix = (mix ^ words[i]) * UINT64_C(0x9e3779b97f4a7c15) + 1;
	return mix;
}

/* The next life of a stream begins: of the last one, all that was done has come. */
static void check_last_life(const struct talk_step *step, unsigned stream)
{
	const struct talk_life *last = &other->lives[step->life[stream]];

	HOLDS(atomic_load(&last->done[stream]) <= step->count[stream], step->life[stream]);
}

/* What is known after this message, from what was known before. */
static struct talk_step step_on(const struct talk_step *before, uint64_t number,
				const struct message *message)
{
	struct talk_step step = *before;
	unsigned stream = message->stream;

	HOLDS(before->number == number - 1, number);
	step.number = number;
	step.is = message_mix(message);

	/* C-3: nothing of an older life comes any more. */
	for (unsigned i = 0; i < TALK_STREAMS; ++i)
		HOLDS(message->life >= step.life[i], message->life);
	if (message->life != step.life[stream]) {
		check_last_life(&step, stream);
		step.life[stream] = message->life;
		step.count[stream] = 0;
	}
	HOLDS(message->count == step.count[stream] + 1, message->count);
	HOLDS(message->count <= atomic_load(&other->lives[message->life].begun[stream]),
	      message->count);
	++step.count[stream];

	step.n_asked += message->is_request;
	if (stream == TALK_REPLIES) {
		HOLDS(message->answers > step.last_answered, message->answers);
		HOLDS(message->index == step.n_answered + 1, message->index);
		step.last_answered = message->answers;
		++step.n_answered;
	}
	return step;
}

/* C-1, C-4: the number is the next one; what comes again says so, and is what it was. */
static struct talk_step check_message(const struct ipc_session_message *got,
				      const struct message *message, uint64_t *last)
{
	bool is_again = got->flags & IPC_MESSAGE_REDELIVERED;
	struct talk_step *step = &end->steps[got->sequence % TALK_STEPS];

	HOLDS(got->sequence == *last + 1, got->sequence);
	*last = got->sequence;
	check_fd(got, message);
	if (is_again) {
		atomic_fetch_add(&end->n_again, 1);
		HOLDS(may_be_again(got), got->sequence);
	}
	if (got->sequence <= atomic_load(&end->checked)) {
		/* Else the next process has it too, and this one was overtaken with it. */
		HOLDS(is_again || got->sequence > checked_before, got->sequence);
		HOLDS(step->number == got->sequence && step->is == message_mix(message),
		      got->sequence);
		return *step;
	}

	*step = step_on(&end->steps[(got->sequence - 1) % TALK_STEPS], got->sequence, message);
	raise_to(&other->lives[message->life].heard[message->stream], message->count);
	raise_to(&end->checked, got->sequence);
	return *step;
}

/* One that came: true: it still holds the end. */
static bool hear(struct sender *sender, const struct ipc_session_message *got, uint64_t *last)
{
	struct talk_step step;
	struct message message;
	int r = 0;

	if (!message_read(got, &message))
		return false;
	step = check_message(got, &message, last);
	if (message.is_request)
		r = reply(sender, got, step.n_asked);
	else if (rand_r(&sender->seed) % 2)
		r = ipc_session_release(session, got);
	HOLDS(r == 0 || r == IPC_ESTALE, r);
	return !is_overtaken(r);
}

/* Nothing came for some time: true: it still holds the end. */
static bool idle(const struct ipc_session_message *last)
{
	struct ipc_session_state state = {.size = sizeof(state)};
	int r = last->sequence > 0 ? ipc_session_release(session, last) : 0;

	if (r == 0)
		r = ipc_session_get_state(session, &state);
	if (is_overtaken(r))
		return false;
	MUST(r);
	HOLDS(state.released <= state.received && state.acknowledged <= state.sent, state.released);
	atomic_store(&end->sent, state.sent);
	atomic_store(&end->acknowledged, state.acknowledged);
	atomic_fetch_add(&end->n_idle, 1);
	return true;
}

/* C-14: the other one has closed. */
static void expect_closed(void)
{
	struct timespec deadline = domain_deadline(TALK_WAIT_MS);
	int r;

	HOLDS(atomic_load(&talk->is_over), 0);
	r = ipc_session_send_wait(session, "", 1, &deadline);
	HOLDS(r == IPC_EPIPE, r);
	r = ipc_session_peers_wait(session, true, &deadline);
	HOLDS(r == IPC_EPIPE, r);
}

/* Until the end is overtaken, or the talk is over. */
static void hear_all(struct sender *sender)
{
	struct ipc_session_message got[MANY], released = {.sequence = 0};
	struct ipc_session_state state = {.size = sizeof(state)};
	uint64_t last;
	int n = ipc_session_get_state(session, &state);

	if (is_overtaken(n))
		return;
	MUST(n);
	received_before = atomic_load(&end->received);
	checked_before = atomic_load(&end->checked);
	HOLDS(state.released <= checked_before, state.released);
	last = state.released;
	while (side == 0 || !atomic_load(&talk->is_over)) {
		struct timespec deadline = domain_deadline(5);

		n = ipc_session_receive_many_wait(
			session, got, 1 + (unsigned)rand_r(&sender->seed) % MANY, &deadline);
		if (is_overtaken(n))
			return;
		if (n == IPC_ETIMEDOUT) {
			if (!idle(&released))
				return;
			continue;
		}
		if (n == IPC_EPIPE) {
			expect_closed();
			return;
		}
		HOLDS(n >= 1 && n <= MANY, n);
		raise_to(&end->received, got[n - 1].sequence);
		for (int i = 0; i < n; ++i) {
			if (!hear(sender, &got[i], &last))
				return;
			released = got[i];
		}
	}
}

/* ---- a life ---- */

static ipc_session *accept_as_listener(ipc_client *client, int wanted)
{
	struct timespec deadline = domain_deadline(TALK_WAIT_MS);
	ipc_listener *listener;
	ipc_session *ret;
	int r;

	MUST(ipc_listener_open_wait(&listener, client, talk->name, &talk->options, &deadline));
	r = ipc_listener_accept_wait(listener, &ret, &deadline);
	HOLDS(r == wanted, r);
	ipc_listener_close(listener);
	return ret;
}

static ipc_session *talk_open(ipc_client *client, enum talk_way way)
{
	struct timespec deadline = domain_deadline(TALK_WAIT_MS);
	ipc_session *ret;
	int r;

	if (way == TALK_AS_LISTENER || (way == TALK_FIRST && side == 0))
		return accept_as_listener(client, way == TALK_AS_LISTENER);
	if (way == TALK_FIRST)
		r = ipc_session_connect_wait(&ret, client, talk->name,
					     IPC_SESSION_OPTIONS(.flags = IPC_AWAIT), &deadline);
	else
		r = ipc_session_resume_wait(&ret, client, &end->keys[atomic_load(&end->key) % 2],
					    &deadline);
	MUST(r);
	return ret;
}

/* C-3: the new key is stored; from then on the one before it may become void. */
static void talk_keep_key(ipc_client *client, unsigned *seed)
{
	uint32_t next = atomic_load(&end->key) + 1;
	struct timespec deadline = domain_deadline(TALK_WAIT_MS);
	ipc_session *none;
	int r;

	MUST(ipc_session_get_key(session, &end->keys[next % 2]));
	atomic_store(&end->key, next);
	if (rand_r(seed) % 4 > 0) {
		MUST(ipc_session_confirm_key(session));
		atomic_store(&end->confirmed, life);
		if (life > 1 && rand_r(seed) % 4 == 0) {
			r = ipc_session_resume_wait(&none, client, &end->keys[(next + 1) % 2],
						    &deadline);
			HOLDS(r == IPC_ESTALE, r);
			atomic_fetch_add(&end->n_voids, 1);
		}
	}
	atomic_store(&end->ready, life);
}

/* C-3: every call says it, again and again. */
static void expect_overtaken(void)
{
	struct ipc_session_state state = {.size = sizeof(state)};
	struct ipc_session_message got;
	struct ipc_session_key key;
	struct ipc_wait_item item = {.handle = session, .events = IPC_READY_READABLE};
	void *data;

	HOLDS(atomic_load(&end->life) > life, life);
	for (int i = 0; i < OLD_CALLS; ++i) {
		HOLDS(ipc_session_send(session, "", 1) == IPC_ESTALE, i);
		HOLDS(ipc_session_send_wait(session, "", 1, NULL) == IPC_ESTALE, i);
		HOLDS(ipc_session_claim(session, 1, &data) == IPC_ESTALE, i);
		HOLDS(ipc_session_receive(session, &got) == IPC_ESTALE, i);
		HOLDS(ipc_session_receive_wait(session, &got, NULL) == IPC_ESTALE, i);
		HOLDS(ipc_session_get_key(session, &key) == IPC_ESTALE, i);
		HOLDS(ipc_session_get_state(session, &state) == IPC_ESTALE, i);
		HOLDS(ipc_wait_any(&item, 1, NULL) == 0 && (item.ready & IPC_READY_END),
		      item.ready);
	}
	atomic_fetch_add(&end->n_overtaken, 1);
}

void talk_run(const struct domain *domain, struct talk *of_talk, unsigned of_side, uint32_t of_life,
	      enum talk_way way)
{
	static struct sender senders[TALK_STREAMS];
	pthread_t threads[TALK_SENDERS];
	ipc_client *client;

	talk = of_talk;
	side = of_side;
	life = of_life;
	end = &talk->ends[side];
	other = &talk->ends[!side];
	client = domain_connect(domain);
	for (unsigned i = 0; i < TALK_STREAMS; ++i) {
		senders[i].stream = i;
		senders[i].seed = (unsigned)getpid() * TALK_STREAMS + i;
	}
	session = talk_open(client, way);
	talk_keep_key(client, &senders[TALK_REPLIES].seed);

	for (unsigned i = 0; i < TALK_SENDERS; ++i)
		HOLDS(pthread_create(&threads[i], NULL, sender_run, &senders[i]) == 0, i);
	hear_all(&senders[TALK_REPLIES]);
	for (unsigned i = 0; i < TALK_SENDERS; ++i)
		(void)pthread_join(threads[i], NULL);
	if (!atomic_load(&talk->is_over))
		expect_overtaken();

	session = ipc_session_close(session);
	ipc_client_unref(client);
	process_end(0);
}
