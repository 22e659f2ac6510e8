/* SPDX-License-Identifier: MIT */
#ifndef LIBIPC_PLATFORM_FUTEX_H
#define LIBIPC_PLATFORM_FUTEX_H

/*
 * Sleeping on 32-bit words, several at once, until an absolute moment.  A wake is a hint, never a
 * promise: every caller looks again, and no sleep is longer than FUTEX_SLICE_NS (a reader of the
 * memory can steal a wake).
 *
 * Where the kernel refuses futex_waitv (before 5.16, or a sandbox: ENOSYS, EPERM) only the first
 * word wakes at once and the sleep is cut to FUTEX_SLICE_FALLBACK_NS.  The sleep that finds this
 * out returns at once, so that the caller can take care of the other words (futex_has_waitv).
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define FUTEX_SLICE_NS          UINT64_C(100000000)
#define FUTEX_SLICE_FALLBACK_NS UINT64_C(10000000)
#define FUTEX_WORDS_MAX         128

struct futex_word {
	const _Atomic uint32_t *word;
	uint32_t expected;
	bool is_private; /* of this process alone: cheaper, and never woken from outside */
};

enum futex_result {
	FUTEX_WOKEN,       /* woken, or a word had changed before the sleep: look again */
	FUTEX_SLICE_OVER,  /* deadline_ns or the slice passed */
	FUTEX_INTERRUPTED, /* a signal handler without SA_RESTART ran (never said by the fallback,
			      which cannot tell) */
	FUTEX_BROKEN,      /* a word is not readable memory: EFAULT, EINVAL */
};

/* Sleeps until deadline_ns, one slice at most.  Up to FUTEX_WORDS_MAX words, at least one. */
enum futex_result futex_sleep(const struct futex_word *words, unsigned n_words,
			      uint64_t deadline_ns);

/* Wakes all (or n) sleepers of a word that is shared with other processes.  Async-signal-safe. */
void futex_wake_all(const _Atomic uint32_t *word);
void futex_wake_n(const _Atomic uint32_t *word, int n);

/* The same for a word of this process alone. */
void futex_wake_private(const _Atomic uint32_t *word);

bool futex_has_waitv(void);

/* For tests of the fallback: behave as if the kernel refused futex_waitv. */
void futex_refuse_waitv(void);

/* For tests of wakes: slices of either kind last FUTEX_SLICE_LONG_NS from now on, here and in what
 * is forked later.  What is over well before has been woken, however slow the machine is. */
#define FUTEX_SLICE_LONG_NS UINT64_C(10000000000)
void futex_lengthen_slices(void);

/* FUTEX_SLICE_NS, but for such tests: who sleeps elsewhere keeps to it, too. */
uint64_t futex_slice_ns(void);

#endif
