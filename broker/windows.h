/* SPDX-License-Identifier: MIT */
#ifndef BROKER_WINDOWS_H
#define BROKER_WINDOWS_H

/*
 * When the resume windows of sessions pass: a heap, the earliest at the top.  Private memory, made
 * anew from the records.
 */

#include "broker/registry.h"

/* 0 or UINT64_MAX: never. */
void windows_set(struct registry *registry, struct channel *channel, uint64_t at_ns);

/* The session whose window passes first; NULL: none. */
struct channel *windows_first(const struct registry *registry);

#endif
