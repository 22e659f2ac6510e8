/* SPDX-License-Identifier: MIT */
#ifndef BROKER_CTL_QUANTITY_H
#define BROKER_CTL_QUANTITY_H

/*
 * Sizes and times as people read and write them.  --json has the exact numbers.
 */

#include <stdint.h>

#define QUANTITY_SIZE 32

const char *quantity_bytes(char text[QUANTITY_SIZE],
			   uint64_t bytes); /* "512 B", "4 KiB", "1.5 MiB" */
const char *
quantity_time(char text[QUANTITY_SIZE],
	      uint64_t ns); /* "850 ns", "4.56 ms", "1.25 s", "3m05s", "2h07m", "3d04h" */

/* "5s", "1.5h", "250ms"; us, ns, m, d; a bare number is seconds.  0, or -1: it is not a time. */
int quantity_parse_time(const char *text, uint64_t *ret_ns);

/* "4096", "64KiB"; MiB, GiB, TiB.  0, or -1: it is not a size. */
int quantity_parse_bytes(const char *text, uint64_t *ret_bytes);

#endif
