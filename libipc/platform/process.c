/* SPDX-License-Identifier: MIT */
#include "libipc/platform/process.h"

/*
 * What is true of this process as a whole.  The state here is written once and read by every call,
 * hence the atomics; a forked child inherits all of it except the marked page, which the kernel
 * hands to it zeroed.
 */

#include <errno.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <ipc/error.h>

#include "libipc/platform/compiler.h"
#include "libipc/platform/syserr.h"

/* As many as the kernel can be built for. */
#define PROCESS_CPUS_MAX 8192

/* The marked page: 1 here, 0 in every forked copy.  NULL until process_mark_init(). */
static _Atomic uint32_t *_Atomic process_mark;

_Atomic uint32_t process_has_membarrier;
_Atomic uint32_t process_is_reached;

static _Atomic uint32_t process_cpus;

bool process_is_forked_child(void)
{
	/* [M2] The page is read through this pointer only.  Pairs with [M1]. */
	_Atomic uint32_t *mark = atomic_load_explicit(&process_mark, memory_order_acquire);

	return LIKELY(mark) ? atomic_load_explicit(mark, memory_order_relaxed) == 0 : false;
}

static int process_map_mark(_Atomic uint32_t **ret, size_t size)
{
	void *page;
	int r;

	page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return syserr(SYSERR_MMAP, errno);

	if (madvise(page, size, MADV_WIPEONFORK) < 0) {
		/* The arguments are right, so EINVAL means a kernel that does not know the advice
		 * (before 4.14). */
		r = errno == EINVAL ? IPC_ENOSYS : syserr(SYSERR_MADVISE, errno);
		(void)munmap(page, size);
		return r;
	}

	*ret = page;
	return 0;
}

/*
 * A kernel before 4.14 or a sandbox refuses: both sides fence then.  The flag is set after the
 * registration, so a light side that sees it set is reached by every later heavy side, which does
 * not ask the flag at all.
 */
static void process_register_membarrier(void)
{
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0)
		atomic_store_explicit(&process_has_membarrier, 1, memory_order_relaxed);
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0)
		atomic_store_explicit(&process_is_reached, 1, memory_order_relaxed);
}

int process_mark_init(void)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	_Atomic uint32_t *mark, *other = NULL;
	int r;

	/* A forked child stays one: a new mark would make the handles of its parent look like its
	 * own. */
	if (atomic_load_explicit(&process_mark, memory_order_acquire))
		return 0;

	r = process_map_mark(&mark, size);
	if (r < 0)
		return r;

	process_register_membarrier();
	atomic_store_explicit(mark, 1, memory_order_relaxed);

	/* [M1] The 1 is there before the page can be found.  Pairs with [M2]. */
	if (!atomic_compare_exchange_strong_explicit(&process_mark, &other, mark,
						     memory_order_acq_rel, memory_order_acquire))
		(void)munmap((void *)mark, size);

	return 0;
}

uint32_t process_cpu(void)
{
	int cpu = sched_getcpu();

	return cpu < 0 ? UINT32_MAX : (uint32_t)cpu;
}

static unsigned process_count_cpus(void)
{
	unsigned long set[PROCESS_CPUS_MAX / (8 * sizeof(unsigned long))] = {0};
	unsigned n = 0;
	long size;

	/* The system call, since the library's function wants a cpu_set_t of the caller's own
	 * length. */
	size = syscall(SYS_sched_getaffinity, 0, sizeof(set), set);
	if (size <= 0)
		return 1;

	for (size_t i = 0; i < N_ELEMENTS(set); ++i)
		n += (unsigned)__builtin_popcountl(set[i]);

	return n > 0 ? n : 1;
}

unsigned process_n_cpus(void)
{
	uint32_t n = atomic_load_explicit(&process_cpus, memory_order_relaxed);

	if (UNLIKELY(n == 0)) {
		n = process_count_cpus();
		atomic_store_explicit(&process_cpus, n, memory_order_relaxed);
	}

	return n;
}

void process_fence_heavy(void)
{
	int saved_errno = errno;

	/* [F1] What this thread stored is visible, and then every other thread passes a fence.
	 * Pairs with [F2]. */
	atomic_thread_fence(memory_order_seq_cst);

	if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) < 0 &&
	    atomic_load_explicit(&process_has_membarrier, memory_order_relaxed)) {
		/*
		 * A filter was installed after the registration.  From now on both sides fence; a
		 * thread that is between its compiler barrier and its load at this moment has
		 * emptied its store buffer before we are back on the CPU.
		 */
		atomic_store_explicit(&process_has_membarrier, 0, memory_order_relaxed);
		(void)sched_yield();
		atomic_thread_fence(memory_order_seq_cst);
	}

	errno = saved_errno;
}

int process_fence_everywhere(void)
{
	int saved_errno = errno, r = 0;

	/* [F3] What this thread stored is visible, and then every thread of all registered
	 * processes passes a fence.  Pairs with [F4]. */
	atomic_thread_fence(memory_order_seq_cst);
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) < 0 &&
	    syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) < 0)
		r = IPC_ENOSYS;

	errno = saved_errno;
	return r;
}
