/* SPDX-License-Identifier: MIT */
#ifndef BROKER_CTL_TABLE_H
#define BROKER_CTL_TABLE_H

/*
 * Text in aligned columns.  Nothing is ever cut: a line that is too long for a terminal is broken
 * by the terminal, and a program that reads it finds everything.
 */

#include <stdio.h>

#define TABLE_COLUMNS_MAX 12

struct table {
	unsigned n_columns;
	unsigned right; /* bit i: column i is aligned to the right */
	unsigned n_cells, n_cells_max;
	char **cells;
	int is_broken; /* out of memory */
};

void table_init(struct table *table, unsigned n_columns, unsigned right);
void table_deinit(struct table *table);
void table_add(struct table *table, const char *format, ...)
	__attribute__((__format__(__printf__, 2, 3)));

/* 0, or -1: out of memory. */
int table_write(const struct table *table, FILE *file);
int table_print(const struct table *table); /* to standard output */

#endif
