/* SPDX-License-Identifier: MIT */
#ifndef BROKER_CONFIG_H
#define BROKER_CONFIG_H

/*
 * The broker's configuration: "key = value" lines under [sections]; every error names file, line, key and what would be legal.
 * The keeper reads and checks the file, keeps its text in a memfd ("cf0.1") and hands that to each worker: a sandboxed worker opens no files, and a bad file changes nothing.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct config_limits {
	uint64_t bytes;       /* of reserved memory */
	uint64_t channels, handles, connections, pendings;
};

struct config_user {
	uid_t uid;
	struct config_limits limits;
};

enum log_level { LOG_LEVEL_ERROR = 3, LOG_LEVEL_WARNING = 4, LOG_LEVEL_NOTICE = 5, LOG_LEVEL_INFO = 6, LOG_LEVEL_DEBUG = 7 };

#define CONFIG_USERS_MAX 256

struct config {
	struct config_limits limits; /* by default, for each uid */
	uint64_t idle_ns;            /* 0: never ends by itself */
	enum log_level log_level;
	unsigned n_users;
	struct config_user users[CONFIG_USERS_MAX];
};

void config_init(struct config *config); /* defaults */

/* Parses NUL-terminated text.  On error: -1, *config unchanged, and one line in error[error_size]: "file:line: key: what is wrong; legal: ..." */
int config_parse(struct config *config, const char *file, const char *text, char *error, unsigned error_size);

const struct config_limits *config_limits_of(const struct config *config, uid_t uid);

#endif
