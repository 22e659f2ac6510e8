/* SPDX-License-Identifier: MIT */
#include "broker/ctl/quantity.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *quantity_bytes(char text[QUANTITY_SIZE], uint64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	unsigned unit = 0;
	double size;

	while (unit < 6 && bytes >> 10 * (unit + 1) != 0)
		++unit;

	size = (double)bytes / (double)(UINT64_C(1) << 10 * unit);
	if ((bytes & ((UINT64_C(1) << 10 * unit) - 1)) == 0)
		snprintf(text, QUANTITY_SIZE, "%.0f %s", size, units[unit]);
	else
		snprintf(text, QUANTITY_SIZE, "%.1f %s", size, units[unit]);
	return text;
}

const char *quantity_time(char text[QUANTITY_SIZE], uint64_t ns)
{
	uint64_t s = ns / 1000000000;

	if (ns < 1000)
		snprintf(text, QUANTITY_SIZE, "%" PRIu64 " ns", ns);
	else if (ns < 1000000)
		snprintf(text, QUANTITY_SIZE, "%.3g us", (double)ns / 1e3);
	else if (ns < 1000000000)
		snprintf(text, QUANTITY_SIZE, "%.3g ms", (double)ns / 1e6);
	else if (s < 60)
		snprintf(text, QUANTITY_SIZE, "%.3g s", (double)ns / 1e9);
	else if (s < 3600)
		snprintf(text, QUANTITY_SIZE, "%" PRIu64 "m%02us", s / 60, (unsigned)(s % 60));
	else if (s < 86400)
		snprintf(text, QUANTITY_SIZE, "%" PRIu64 "h%02um", s / 3600,
			 (unsigned)(s / 60 % 60));
	else
		snprintf(text, QUANTITY_SIZE, "%" PRIu64 "d%02uh", s / 86400,
			 (unsigned)(s / 3600 % 24));
	return text;
}

int quantity_parse_time(const char *text, uint64_t *ret_ns)
{
	static const struct {
		const char *name;
		double ns;
	} units[] = {
		{"", 1e9},  {"ns", 1},   {"us", 1e3},   {"ms", 1e6},
		{"s", 1e9}, {"m", 60e9}, {"h", 3600e9}, {"d", 86400e9},
	};
	double value;
	char *end;

	errno = 0;
	value = strtod(text, &end);

	/* Digits and a point: not what strtod() takes besides, as "-1", "inf", "0x1". */
	if (end == text || end != text + strspn(text, "0123456789.") || errno)
		return -1;

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); ++i) {
		if (strcmp(end, units[i].name) == 0 && value * units[i].ns <= 1e18) {
			*ret_ns = (uint64_t)(value * units[i].ns);
			return 0;
		}
	}
	return -1;
}

int quantity_parse_bytes(const char *text, uint64_t *ret_bytes)
{
	static const char *const units[] = {"", "KiB", "MiB", "GiB", "TiB"};
	unsigned long long bytes;
	char *end;

	/* Not what strtoull() takes besides, as " 1", "-1". */
	if (text[0] < '0' || text[0] > '9')
		return -1;

	errno = 0;
	bytes = strtoull(text, &end, 10);
	if (errno)
		return -1;

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); ++i) {
		if (strcmp(end, units[i]) == 0 && bytes <= UINT64_MAX >> 10 * i) {
			*ret_bytes = (uint64_t)bytes << 10 * i;
			return 0;
		}
	}
	return -1;
}
