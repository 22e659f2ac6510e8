/* SPDX-License-Identifier: MIT */
#include "broker/ctl/table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void table_init(struct table *table, unsigned n_columns, unsigned right)
{
	*table = (struct table){.n_columns = n_columns, .right = right};
}

void table_deinit(struct table *table)
{
	for (unsigned i = 0; i < table->n_cells; ++i)
		free(table->cells[i]);
	free(table->cells);
	*table = (struct table){0};
}

static int table_grow(struct table *table)
{
	unsigned n = table->n_cells_max ? 2 * table->n_cells_max : 128;
	char **cells = reallocarray(table->cells, n, sizeof(*cells));

	if (!cells)
		return -1;

	table->cells = cells;
	table->n_cells_max = n;
	return 0;
}

void table_add(struct table *table, const char *format, ...)
{
	va_list arguments;
	int r;

	if (table->is_broken || (table->n_cells == table->n_cells_max && table_grow(table) < 0)) {
		table->is_broken = 1;
		return;
	}

	va_start(arguments, format);
	r = vasprintf(&table->cells[table->n_cells], format, arguments);
	va_end(arguments);
	if (r < 0)
		table->is_broken = 1;
	else
		++table->n_cells;
}

int table_write(const struct table *table, FILE *file)
{
	int widths[TABLE_COLUMNS_MAX] = {0};

	if (table->is_broken)
		return -1;

	for (unsigned i = 0; i < table->n_cells; ++i) {
		int width = (int)strlen(table->cells[i]);

		if (width > widths[i % table->n_columns])
			widths[i % table->n_columns] = width;
	}

	for (unsigned i = 0; i < table->n_cells; ++i) {
		unsigned column = i % table->n_columns;

		if (table->right & 1u << column)
			fprintf(file, "%*s", widths[column], table->cells[i]);
		else if (column < table->n_columns - 1)
			fprintf(file, "%-*s", widths[column], table->cells[i]);
		else
			fputs(table->cells[i], file); /* no blanks at the end of a line */
		fputs(column == table->n_columns - 1 ? "\n" : "  ", file);
	}
	return 0;
}

int table_print(const struct table *table)
{
	return table_write(table, stdout);
}
