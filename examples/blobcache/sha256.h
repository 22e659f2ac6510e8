/* SPDX-License-Identifier: MIT */
#ifndef EXAMPLES_BLOBCACHE_SHA256_H
#define EXAMPLES_BLOBCACHE_SHA256_H

/*
 * SHA-256 (FIPS 180-4), as `sha256sum` prints it.
 */

#include <stddef.h>
#include <stdint.h>

enum { SHA256_HEX_SIZE = 64, SHA256_BLOCK = 64 };

struct sha256 {
	uint32_t state[8];
	uint64_t size;
	unsigned char block[SHA256_BLOCK];
};

void sha256_begin(struct sha256 *sha);
void sha256_add(struct sha256 *sha, const void *data, size_t size);
void sha256_end(struct sha256 *sha, char ret_hex[SHA256_HEX_SIZE + 1]);

#endif
