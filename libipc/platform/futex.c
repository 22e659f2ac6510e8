/* SPDX-License-Identifier: MIT */
#include "libipc/platform/futex.h"

/*
 * Two system calls behind one function.  futex_waitv() watches all words and tells a handler that
 * wants to interrupt from one that does not. FUTEX_WAIT_BITSET watches one word; the others are
 * looked at before each of its short slices.
 */

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "libipc/platform/clock.h"
#include "libipc/platform/compiler.h"

/* Headers older than Linux 5.16 lack both; the number is the same on every architecture. */
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

/* struct futex_waitv of the kernel. */
struct waitv_word {
	uint64_t value;
	uint64_t address;
	uint32_t flags;
	uint32_t reserved;
};
ASSERT_SIZE(struct waitv_word, 24);

#define WAITV_SIZE_U32 0x02u

/* Set once, by whoever is refused first.  A stale 0 costs one more refused call. */
static _Atomic uint32_t waitv_refused;

bool futex_has_waitv(void)
{
	return !atomic_load_explicit(&waitv_refused, memory_order_relaxed);
}

void futex_refuse_waitv(void)
{
	atomic_store_explicit(&waitv_refused, 1, memory_order_relaxed);
}

static _Atomic uint32_t slices_are_long;

void futex_lengthen_slices(void)
{
	atomic_store_explicit(&slices_are_long, 1, memory_order_relaxed);
}

static uint64_t futex_slice_of(uint64_t usual_ns)
{
	return UNLIKELY(atomic_load_explicit(&slices_are_long, memory_order_relaxed))
		       ? FUTEX_SLICE_LONG_NS
		       : usual_ns;
}

uint64_t futex_slice_ns(void)
{
	return futex_slice_of(FUTEX_SLICE_NS);
}

static uint64_t futex_slice_end(uint64_t deadline_ns, uint64_t now_ns, uint64_t slice_ns)
{
	return deadline_ns - now_ns < slice_ns ? deadline_ns : now_ns + slice_ns;
}

/* 0 or the errno. */
static int futex_wait_all(const struct futex_word *words, unsigned n_words, uint64_t until_ns)
{
	struct timespec until = clock_to_timespec(until_ns);
	struct waitv_word vector[FUTEX_WORDS_MAX];

	for (unsigned i = 0; i < n_words; ++i)
		vector[i] = (struct waitv_word){
			.value = words[i].expected,
			.address = (uintptr_t)words[i].word,
			.flags = WAITV_SIZE_U32 | (words[i].is_private ? FUTEX_PRIVATE_FLAG : 0),
		};

	return syscall(SYS_futex_waitv, vector, n_words, 0, &until, CLOCK_MONOTONIC) < 0 ? errno
											 : 0;
}

/* 0 or the errno. */
static int futex_wait_one(const struct futex_word *word, uint64_t until_ns)
{
	struct timespec until = clock_to_timespec(until_ns);
	int op = FUTEX_WAIT_BITSET | (word->is_private ? FUTEX_PRIVATE_FLAG : 0);

	return syscall(SYS_futex, word->word, op, word->expected, &until, NULL,
		       FUTEX_BITSET_MATCH_ANY) < 0
		       ? errno
		       : 0;
}

/*
 * Wakes of the other words are not seen before the slice is over, which is why it is short.  EINTR
 * is no news here: with a timeout the kernel says it whatever the handler's SA_RESTART is, so it
 * counts as a wake and the caller looks again.
 */
static enum futex_result futex_sleep_fallback(const struct futex_word *words, unsigned n_words,
					      uint64_t deadline_ns, uint64_t now_ns)
{
	int error;

	for (unsigned i = 0; i < n_words; ++i)
		if (atomic_load_explicit(words[i].word, memory_order_relaxed) != words[i].expected)
			return FUTEX_WOKEN;

	error = futex_wait_one(&words[0], futex_slice_end(deadline_ns, now_ns,
							  futex_slice_of(FUTEX_SLICE_FALLBACK_NS)));
	switch (error) {
	case ETIMEDOUT:
		return FUTEX_SLICE_OVER;
	case EFAULT:
	case EINVAL:
		return FUTEX_BROKEN;
	default:
		/* 0, EAGAIN (changed meanwhile), EINTR. */
		return FUTEX_WOKEN;
	}
}

enum futex_result futex_sleep(const struct futex_word *words, unsigned n_words,
			      uint64_t deadline_ns)
{
	uint64_t now_ns = clock_now_ns();
	int error;

	assert(n_words >= 1 && n_words <= FUTEX_WORDS_MAX);

	if (deadline_ns <= now_ns)
		return FUTEX_SLICE_OVER;

	if (UNLIKELY(!futex_has_waitv()))
		return futex_sleep_fallback(words, n_words, deadline_ns, now_ns);

	error = futex_wait_all(words, n_words,
			       futex_slice_end(deadline_ns, now_ns, futex_slice_ns()));
	switch (error) {
	case 0:
	case EAGAIN:
		return FUTEX_WOKEN;
	case ETIMEDOUT:
		return FUTEX_SLICE_OVER;
	case EINTR:
		return FUTEX_INTERRUPTED;
	case EFAULT:
	case EINVAL:
		return FUTEX_BROKEN;
	case ENOSYS:
	case EPERM:
		futex_refuse_waitv();
		return FUTEX_WOKEN;
	default:
		/* ENOMEM: the kernel copies the vector.  One word needs no memory; the next sleep
		 * tries again. */
		return futex_sleep_fallback(words, n_words, deadline_ns, now_ns);
	}
}

/* The pointer is only a key to the kernel, so a read-only word is fine.  errno is kept for the sake
 * of signal handlers. */
static void futex_wake(const _Atomic uint32_t *word, int op, int n)
{
	int saved_errno = errno;

	/* Nothing to do about a failure: the memory is gone (EFAULT), so nobody sleeps there who is
	 * not cured by the slice. */
	(void)syscall(SYS_futex, word, op, n, NULL, NULL, 0);
	errno = saved_errno;
}

void futex_wake_all(const _Atomic uint32_t *word)
{
	futex_wake(word, FUTEX_WAKE, INT_MAX);
}

void futex_wake_n(const _Atomic uint32_t *word, int n)
{
	futex_wake(word, FUTEX_WAKE, n);
}

void futex_wake_private(const _Atomic uint32_t *word)
{
	futex_wake(word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT_MAX);
}
