/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUPPORT_MORTAL_H
#define TESTS_SUPPORT_MORTAL_H

/*
 * A domain whose broker dies by itself, at crash points (libipc/platform/crash.h).  Its orderly end
 * may itself be died over: domain_kill().
 */

#include <stdlib.h>

#include "tests/support/domain.h"

#ifndef IPC_TEST_BROKER_POINTS
#define IPC_TEST_BROKER_POINTS "ipcbroker"
#endif

/* crash: as in IPC_CRASH.  Brokers that are started later have these points as well. */
static inline void domain_start_mortal(struct domain *domain, const char *crash)
{
	setenv("IPC_TEST_BROKER", IPC_TEST_BROKER_POINTS, 1);
	setenv("IPC_CRASH", crash, 1);
	domain_start(domain, NULL);
	unsetenv("IPC_CRASH");
}

#endif
