/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_LEAKS_H
#define TESTS_SUPPORT_LEAKS_H

/*
 * For fixtures: what this process has now, and whether it still has exactly that at the end.
 */

#include <sys/types.h>

struct leaks {
	unsigned n_fds;
	unsigned n_segments; /* mappings of shared memory */
	unsigned n_children;
};

void leaks_begin(struct leaks *leaks);
void leaks_check(const struct leaks *leaks); /* aborts, with a list of what there is, if there is
						more or less than before */

/* How many descriptors another process has. */
unsigned leaks_fds_of(pid_t pid);

#endif
