/* SPDX-License-Identifier: MIT */
#ifndef BROKER_CONFIG_H
#define BROKER_CONFIG_H

/*
 * The broker's configuration: "key = value" lines under [sections]; every error names file,
 * line, key and what would be legal.  The keeper reads and checks the file, keeps what it means in
 * a memfd ("cf0.1") and hands that to each worker: a sandboxed worker opens no files, and a bad
 * file changes nothing.
 *
 * section        key          value; default
 * [limits]       bytes        memory that a uid's channels may reserve; 8G
 *                channels     how many a uid may own; 12000
 *                handles      how many a uid may have open; 40000
 *                connections  clients of a uid; 4096
 *                pendings     requests of a uid that wait; 4096
 * [user "NAME"]  the same     for this user (name or uid); as in [limits]
 * [broker]       idle         seconds without a client until the broker ends by itself, 0: never;
 *                             0, with --autostart 10
 *                grace        seconds for an orderly end before the keeper kills the worker; 5
 *                log_level    error, warning, notice, info, debug; notice
 *
 * Numbers take the suffixes K, M, G, T (powers of 1024); seconds take up to 9 decimals.  '#' begins
 * a comment.  A line has at most CONFIG_LINE_MAX bytes.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct config_limits {
	uint64_t bytes; /* of reserved memory */
	uint64_t channels, handles, connections, pendings;
};

struct config_user {
	uid_t uid;
	struct config_limits limits;
};

enum log_level {
	LOG_LEVEL_ERROR = 3,
	LOG_LEVEL_WARNING = 4,
	LOG_LEVEL_NOTICE = 5,
	LOG_LEVEL_INFO = 6,
	LOG_LEVEL_DEBUG = 7
};

#define CONFIG_USERS_MAX 256
#define CONFIG_LINE_MAX  190
#define CONFIG_TEXT_MAX  (UINT32_C(1) << 20)

struct config {
	struct config_limits limits; /* by default, for each uid */
	uint64_t idle_ns;            /* 0: never ends by itself */
	uint64_t grace_ns;           /* the keeper's: from SIGTERM to SIGKILL */
	enum log_level log_level;
	unsigned n_users;
	struct config_user users[CONFIG_USERS_MAX];
};

void config_init(struct config *config); /* defaults */

/*
 * Parses NUL-terminated text.  What it does not name stays as it is in *config.  On error: -1,
 * *config unchanged, and one line in error[error_size]: "file:line: key: what is wrong; legal: ..."
 * for the first error.
 */
int config_parse(struct config *config, const char *file, const char *text, char *error,
		 unsigned error_size);

/* The same for a file that is opened here, and for a descriptor ("cf0.1"), read from its start by
 * pread(). */
int config_parse_file(struct config *config, const char *file, char *error, unsigned error_size);
int config_parse_fd(struct config *config, const char *file, int fd, char *error,
		    unsigned error_size);

/* Writes everything as text that config_parse() reads back, users as uids: a worker looks up no
 * names.  A sealed memfd, or -1 and errno. */
int config_to_memfd(const struct config *config);

/* What a command line or a file may say; 0 or -1. */
int config_parse_seconds(const char *text, uint64_t *ret_ns);
int config_parse_level(const char *text, enum log_level *ret);

#define CONFIG_LEGAL_SECONDS "0 to 1000000 seconds, with up to 9 decimals"
#define CONFIG_LEGAL_LEVELS  "error, warning, notice, info, debug"

const struct config_limits *config_limits_of(const struct config *config, uid_t uid);

#endif
