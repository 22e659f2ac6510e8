/* SPDX-License-Identifier: MIT */
#ifndef CMAKE_VISIBILITY_H
#define CMAKE_VISIBILITY_H

/*
 * What leaves the library: exactly what the public headers declare.
 *
 * The library is compiled with -fvisibility=hidden and with this file in front of every source. The
 * first declaration of a function settles its visibility, so the public ones get it here, and the
 * public headers stay free of attributes.  The system headers come first: theirs is none of our
 * business.
 */

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#pragma GCC visibility push(default)
#include <ipc/ipc.h>
#pragma GCC visibility pop

#endif
