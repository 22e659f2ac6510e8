/* SPDX-License-Identifier: MIT */
#ifndef EXAMPLES_BLOBCACHE_STAGE_H
#define EXAMPLES_BLOBCACHE_STAGE_H

/*
 * The demo's stage: a temporary directory with a cache, and a script as its upstream, which is as
 * slow as the demo wants: it stops half way while there is a file `closed` beside it.
 */

#include <stdbool.h>

#include "examples/blobcache/sha256.h"

enum { BLOB_SIZE = 200000, HALF = 100000, FILE_LIMIT = 150000 };

extern char cache_path[64], upstream_path[64];

void scene(const char *title);
void check(bool holds, const char *claim);
bool all_held(void);
void __attribute__((__noreturn__)) fail(const char *what);

/* It is gone when the process ends. */
void stage_set(void);

/* A new scene's upstream: stops half way, has this blob and no other of that seed, was not asked
 * yet. */
void upstream_with(uint64_t seed, char ret_name[SHA256_HEX_SIZE + 1]);
void upstream_goes_on(void);
int upstream_n_runs(void);

/* A file of it: a blob, or `broken`, with which it fails half way. */
void upstream_write(const char *name, const void *data, size_t size);
void upstream_remove(const char *name);

void file_write(const char *path, const void *data, size_t size, unsigned mode);

/* How many partial files there are; the name of one of them. */
int cache_n_partials(char ret_name[256]);

/* Whether this one has all that the upstream sends before it stops half way. */
bool cache_has_half(const char *name);

#endif
