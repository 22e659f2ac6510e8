/* SPDX-License-Identifier: MIT */
#include "libipc/client/thread.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ipc/error.h>

#include "libipc/platform/syserr.h"

/*
 * A record of nobody: never ready, always nested, so that both fast paths pass it on.  It is never
 * written.
 */
static struct thread_record thread_nobody = {.nested = 1};

_Thread_local struct thread_record *thread_self = &thread_nobody;
_Atomic uint32_t thread_n_retired;

/* Callbacks that this thread is in; and calls that found no place in a record. */
static _Thread_local unsigned n_callbacks;
static _Thread_local unsigned n_anonymous_mine;

/*
 * The handles of a call on many: the thread's own from its first such call to its end.  Read by
 * others under the mutex, if a record names it.
 */
struct thread_crowd {
	_Atomic(const void *) member[THREAD_CROWD_MAX];
	unsigned n; /* the thread's own: the others are NULL */
};

static _Thread_local struct thread_crowd *thread_crowd;

/*
 * Calls without a place in a record: no memory for one, nested too deeply, or a signal handler.
 * While there are any, everything that was closed stays.
 */
static _Atomic uint32_t n_anonymous;

/* The list of records, the list of the retired, and the initialisation.  Held for a few dozen
 * instructions; made anew in a forked child. */
static pthread_mutex_t thread_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct thread_record *thread_records;
static struct thread_object *thread_retired;

static pthread_key_t thread_key;
static bool thread_is_initialised;
static void (*thread_forked_fn)(void);

/*
 * Which process this is: 1, in its forked child 2, and so on.  The mark is a word in a wiped page
 * that says the same; where it does not, the fork went past our handler.
 */
static _Atomic uint32_t thread_epoch = 1;
static _Atomic uint32_t *_Atomic thread_mark;

/* ---- fork ---- */

/*
 * In the child, which has one thread.  Its copy of the other threads' records is wiped, and
 * whatever they were in the middle of stays so for ever: lists and mutex begin anew.  What was
 * retired belongs to the parent's handles, whose memory the child keeps.
 */
static void thread_forked(void)
{
	static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;

	thread_mutex = fresh;
	thread_records = NULL;
	thread_retired = NULL;
	atomic_store_explicit(&thread_n_retired, 0, memory_order_relaxed);
	atomic_store_explicit(&n_anonymous, 0, memory_order_relaxed);
	n_anonymous_mine = 0;
	thread_self = &thread_nobody;
	atomic_store_explicit(&thread_mark, NULL, memory_order_relaxed);
	atomic_fetch_add_explicit(&thread_epoch, 1, memory_order_relaxed);

	thread_forked_fn();
}

bool thread_is_foreign(uint32_t epoch)
{
	/* [T5] Pairs with [T6]. */
	_Atomic uint32_t *mark = atomic_load_explicit(&thread_mark, memory_order_acquire);

	if (epoch != atomic_load_explicit(&thread_epoch, memory_order_relaxed))
		return true;

	return !mark || atomic_load_explicit(mark, memory_order_relaxed) != epoch;
}

/* ---- records ---- */

static int thread_map_records(struct thread_record **ret, size_t size)
{
	void *page;
	int r;

	page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return syserr(SYSERR_MMAP, errno);

	if (madvise(page, size, MADV_WIPEONFORK) < 0) {
		/* EINVAL is a kernel that does not know the advice (before 4.14). */
		r = errno == EINVAL ? IPC_ENOSYS : syserr(SYSERR_MADVISE, errno);
		(void)munmap(page, size);
		return r;
	}

	*ret = page;
	return 0;
}

/* Under the mutex.  Records are never unmapped: a page for 64 threads that live at one time. */
static int thread_add_records(void)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	struct thread_record *records = NULL;
	int r;

	r = thread_map_records(&records, size);
	if (r < 0)
		return r;

	for (size_t i = 0; i < size / sizeof(*records); ++i) {
		records[i].next = thread_records;
		thread_records = &records[i];
	}
	return 0;
}

static struct thread_record *thread_find_unused(void)
{
	struct thread_record *record = thread_records;

	while (record && record->is_used)
		record = record->next;

	return record;
}

/* This thread's own record from now on; thread_self stays as it is where there is no memory for
 * one. */
static void thread_take_record(void)
{
	struct thread_record *record;

	pthread_mutex_lock(&thread_mutex);
	record = thread_find_unused();
	if (!record && thread_add_records() == 0)
		record = thread_find_unused();

	/* Without the destructor the record would stay taken for ever. */
	if (record && pthread_setspecific(thread_key, record) == 0) {
		record->is_used = 1;
		record->epoch = atomic_load_explicit(&thread_epoch, memory_order_relaxed);
		record->ready = n_callbacks ? 0 : record->epoch;
		thread_self = record;
	}
	pthread_mutex_unlock(&thread_mutex);
}

/* At the end of the thread.  It may have ended inside of calls (pthread_exit in a callback): it is
 * inside of nothing now. */
static void thread_drop_record(void *value)
{
	struct thread_record *record = value;

	/* A forked child has the thread's value, but not the record. */
	if (record != thread_self || thread_is_foreign(record->epoch))
		return;

	thread_self = &thread_nobody;
	pthread_mutex_lock(&thread_mutex);
	for (unsigned i = 0; i < THREAD_DEPTH_MAX; ++i)
		atomic_store_explicit(&record->inside[i], NULL, memory_order_release);
	record->ready = 0;
	record->nested = 0;
	record->is_used = 0;

	/* Under the mutex nobody reads it. */
	free(thread_crowd);
	thread_crowd = NULL;
	pthread_mutex_unlock(&thread_mutex);

	thread_collect();
}

/* ---- the process ---- */

/* Under the mutex.  The mark is a record that no thread ever takes. */
static int thread_set_mark(void)
{
	struct thread_record *record;
	uint32_t epoch = atomic_load_explicit(&thread_epoch, memory_order_relaxed);
	int r;

	if (atomic_load_explicit(&thread_mark, memory_order_relaxed))
		return 0;

	r = thread_add_records();
	if (r < 0)
		return r;

	record = thread_find_unused();
	record->is_used = 1;

	atomic_store_explicit(&record->mark, epoch, memory_order_relaxed);

	/* [T6] The epoch is there before the mark can be found.  Pairs with [T5]. */
	atomic_store_explicit(&thread_mark, &record->mark, memory_order_release);
	return 0;
}

/* Under the mutex. */
static int thread_init_once(void (*forked_fn)(void))
{
	if (thread_is_initialised)
		return 0;

	thread_forked_fn = forked_fn;
	if (pthread_key_create(&thread_key, thread_drop_record) != 0)
		return IPC_ENOMEM;
	if (pthread_atfork(NULL, NULL, thread_forked) != 0) {
		(void)pthread_key_delete(thread_key);
		return IPC_ENOMEM;
	}

	thread_is_initialised = true;
	return 0;
}

int thread_process_init(uint32_t *ret_epoch, void (*forked_fn)(void))
{
	uint32_t epoch = atomic_load_explicit(&thread_epoch, memory_order_relaxed);
	int r;

	/* Past our handler: the mutex may be held by a thread that is not here. */
	if (atomic_load_explicit(&thread_mark, memory_order_acquire) && thread_is_foreign(epoch))
		return IPC_ECHILD;

	r = process_mark_init();
	if (r < 0)
		return r;

	pthread_mutex_lock(&thread_mutex);
	r = thread_init_once(forked_fn);
	if (r == 0)
		r = thread_set_mark();
	pthread_mutex_unlock(&thread_mutex);

	if (r == 0)
		*ret_epoch = epoch;
	return r;
}

/* ---- calls ---- */

static int thread_enter_anonymously(void)
{
	if (n_callbacks)
		return IPC_EDEADLK;

	++n_anonymous_mine;
	thread_visit();
	return 0;
}

int thread_enter_slow(const void *address, uint32_t epoch)
{
	struct thread_record *self;

	if (thread_is_foreign(epoch))
		return IPC_ECHILD;
	if (n_callbacks)
		return IPC_EDEADLK;

	if (thread_self == &thread_nobody && n_anonymous_mine == 0)
		thread_take_record();

	self = thread_self;
	if (self == &thread_nobody || n_anonymous_mine > 0)
		return thread_enter_anonymously();

	if (self->ready) {
		self->ready = 0;
		atomic_store_explicit(&self->inside[0], address, memory_order_relaxed);
	} else if (self->nested + 1 < THREAD_DEPTH_MAX) {
		atomic_store_explicit(&self->inside[++self->nested], address, memory_order_relaxed);
	} else {
		return thread_enter_anonymously();
	}

	process_fence_light(); /* as [T1] */
	return 0;
}

/* NULL: no memory, or no record at whose end it would be given back. */
static struct thread_crowd *thread_get_crowd(void)
{
	if (thread_self == &thread_nobody && n_anonymous_mine == 0)
		thread_take_record();
	if (!thread_crowd && thread_self != &thread_nobody)
		thread_crowd = calloc(1, sizeof(*thread_crowd));

	return thread_crowd;
}

static const void *thread_crowd_entry(const struct thread_crowd *crowd)
{
	return (const char *)crowd + 1;
}

static const struct thread_crowd *thread_entry_crowd(const void *entry)
{
	return (uintptr_t)entry & 1 ? (const void *)((const char *)entry - 1) : NULL;
}

int thread_enter_crowd(const void *const *addresses, unsigned n, uint32_t epoch)
{
	struct thread_crowd *crowd;

	assert(n >= 1 && n <= THREAD_CROWD_MAX);

	if (n == 1)
		return thread_enter(addresses[0], epoch);
	if (thread_is_foreign(epoch))
		return IPC_ECHILD;

	crowd = thread_get_crowd();
	if (!crowd)
		return thread_enter_anonymously();

	for (unsigned i = 0; i < n; ++i)
		atomic_store_explicit(&crowd->member[i], addresses[i], memory_order_relaxed);
	for (unsigned i = n; i < crowd->n; ++i)
		atomic_store_explicit(&crowd->member[i], NULL, memory_order_relaxed);
	crowd->n = n;

	/* [T7] The members stand there before the entry does.  Pairs with the acquire loads in
	 * thread_is_anybody_inside(). */
	atomic_thread_fence(memory_order_release);
	return thread_enter(thread_crowd_entry(crowd), epoch);
}

void thread_leave_slow(void)
{
	struct thread_record *self = thread_self;

	if (n_anonymous_mine > 0) {
		--n_anonymous_mine;
		thread_visit_end();
	} else if (self != &thread_nobody) {
		atomic_store_explicit(&self->inside[self->nested--], NULL, memory_order_release);
	}

	process_fence_light(); /* as [T2] */
	if (atomic_load_explicit(&thread_n_retired, memory_order_relaxed))
		thread_collect();
}

void thread_visit(void)
{
	/* [T4] As [T1], but without a record: the counter holds back everything.  Pairs with [T3].
	 */
	atomic_fetch_add_explicit(&n_anonymous, 1, memory_order_seq_cst);
}

void thread_visit_end(void)
{
	uint32_t n = atomic_load_explicit(&n_anonymous, memory_order_relaxed);

	/* A forked child leaves what its parent entered: the counter began anew. */
	while (n > 0 &&
	       !atomic_compare_exchange_weak_explicit(&n_anonymous, &n, n - 1, memory_order_seq_cst,
						      memory_order_relaxed))
		;
}

bool thread_in_callback(void)
{
	return n_callbacks > 0;
}

void thread_callback_begin(void)
{
	++n_callbacks;
	if (thread_self != &thread_nobody)
		thread_self->ready = 0;
}

void thread_callback_end(void)
{
	struct thread_record *self = thread_self;

	--n_callbacks;

	/* Inside of a call the outermost leave makes the thread ready. */
	if (n_callbacks == 0 && self != &thread_nobody &&
	    !atomic_load_explicit(&self->inside[0], memory_order_relaxed))
		self->ready = self->epoch;
}

/* ---- ends ---- */

/*
 * Whether an entry of a record is the address, or a list with it.
 *
 * The list may be its thread's old one, or be written anew while it is read: then the thread has
 * left what it was inside of, and comes to thread_collect() and its mutex before it gives the list
 * back.
 */
static bool thread_entry_is(const void *entry, const void *address)
{
	const struct thread_crowd *crowd = thread_entry_crowd(entry);

	if (!crowd)
		return entry == address;

	for (unsigned i = 0; i < THREAD_CROWD_MAX; ++i)
		if (atomic_load_explicit(&crowd->member[i], memory_order_acquire) == address)
			return true;

	return false;
}

static bool thread_is_anybody_inside(const void *address)
{
	for (struct thread_record *record = thread_records; record; record = record->next)
		for (unsigned i = 0; i < THREAD_DEPTH_MAX; ++i)
			if (thread_entry_is(
				    atomic_load_explicit(&record->inside[i], memory_order_acquire),
				    address))
				return true;

	return false;
}

/* Under the mutex: takes those out of the list that nobody is inside of. */
static struct thread_object *thread_take_free(void)
{
	struct thread_object *object, **link = &thread_retired, *done = NULL;

	/*
	 * [T3] The counter of the retired is up, and every thread has passed a barrier: one that is
	 * inside of an object either shows in its record below, or reads the counter after it has
	 * left and comes here.  Pairs with [T1], [T2], [T4].
	 */
	process_fence_heavy();

	if (atomic_load_explicit(&n_anonymous, memory_order_seq_cst))
		return NULL;

	while ((object = *link)) {
		if (thread_is_anybody_inside(object->address)) {
			link = &object->next;
			continue;
		}
		*link = object->next;
		object->next = done;
		done = object;
		atomic_fetch_sub_explicit(&thread_n_retired, 1, memory_order_relaxed);
	}
	return done;
}

void thread_collect(void)
{
	struct thread_object *done, *object;

	/* In a child that was forked past our handler the mutex may be held for ever. */
	if (thread_is_foreign(atomic_load_explicit(&thread_epoch, memory_order_relaxed)))
		return;

	pthread_mutex_lock(&thread_mutex);
	done = thread_take_free();
	pthread_mutex_unlock(&thread_mutex);

	while ((object = done)) {
		done = object->next;
		object->free(object);
	}
}

/* How often to give way to visitors, which are gone after a few instructions unless they were
 * interrupted. */
enum { THREAD_VISITOR_YIELDS = 32 };

void thread_retire(struct thread_object *object)
{
	pthread_mutex_lock(&thread_mutex);
	object->next = thread_retired;
	thread_retired = object;
	atomic_fetch_add_explicit(&thread_n_retired, 1, memory_order_relaxed);
	pthread_mutex_unlock(&thread_mutex);

	thread_collect();

	/* A visitor (cancel in a signal handler) frees nothing when it goes: look again, or the
	 * next call of anybody does. */
	for (unsigned i = 0; i < THREAD_VISITOR_YIELDS; ++i) {
		if (!atomic_load_explicit(&n_anonymous, memory_order_relaxed) ||
		    !atomic_load_explicit(&thread_n_retired, memory_order_relaxed))
			break;
		(void)sched_yield();
		thread_collect();
	}
}
