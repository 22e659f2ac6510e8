/* SPDX-License-Identifier: MIT */
#include "broker/config.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <pwd.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/state.h"
#include "libipc/core/liveness.h"
#include "libipc/platform/clock.h"
#include "libipc/platform/compiler.h"

#define SECONDS_MAX   1000000
#define USER_NAME_MAX 40 /* inih cuts sections at 49 bytes: [user "..."] stays below */

/* ---- the keys ---- */

enum {
	KEY_BYTES,
	KEY_CHANNELS,
	KEY_HANDLES,
	KEY_CONNECTIONS,
	KEY_PENDINGS,
	N_LIMITS,
	KEY_IDLE = N_LIMITS,
	KEY_GRACE,
	KEY_LOG_LEVEL,
	N_KEYS
};

static const struct limit_key {
	const char *name;
	size_t offset;
	uint64_t max;
	const char *legal;
} limit_keys[N_LIMITS] = {
	[KEY_BYTES] = {"bytes", offsetof(struct config_limits, bytes), UINT64_C(1) << 50,
		       "0 to 1024T; K, M, G, T are powers of 1024"},
	[KEY_CHANNELS] = {"channels", offsetof(struct config_limits, channels),
			  LIVENESS_CHANNELS_MAX, "0 to 16384"},
	[KEY_HANDLES] = {"handles", offsetof(struct config_limits, handles), LIVENESS_HANDLES_MAX,
			 "0 to 65536"},
	[KEY_CONNECTIONS] = {"connections", offsetof(struct config_limits, connections),
			     LIVENESS_CLIENTS_MAX, "0 to 8192"},
	[KEY_PENDINGS] = {"pendings", offsetof(struct config_limits, pendings), STATE_PENDINGS_MAX,
			  "0 to 8192"},
};
static_assert(LIVENESS_CHANNELS_MAX == 16384 && LIVENESS_HANDLES_MAX == 65536, "the texts above");
static_assert(LIVENESS_CLIENTS_MAX == 8192 && STATE_PENDINGS_MAX == 8192, "the texts above");

#define LEGAL_LIMITS   "bytes, channels, handles, connections, pendings"
#define LEGAL_BROKER   "idle, grace, log_level"
#define LEGAL_SECTIONS "[limits], [user \"NAME\"], [broker]"

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "error", [LOG_LEVEL_WARNING] = "warning", [LOG_LEVEL_NOTICE] = "notice",
	[LOG_LEVEL_INFO] = "info",   [LOG_LEVEL_DEBUG] = "debug",
};

static uint64_t *limit_of(struct config_limits *limits, unsigned key)
{
	return (uint64_t *)(void *)((char *)limits + limit_keys[key].offset);
}

void config_init(struct config *config)
{
	memset(config, 0, sizeof(*config));
	config->limits = (struct config_limits){
		.bytes = UINT64_C(8) << 30,
		.channels = 12000,
		.handles = 40000,
		.connections = 4096,
		.pendings = 4096,
	};
	config->grace_ns = 5 * NS_PER_S;
	config->log_level = LOG_LEVEL_NOTICE;
}

const struct config_limits *config_limits_of(const struct config *config, uid_t uid)
{
	for (unsigned i = 0; i < config->n_users; ++i) {
		if (config->users[i].uid == uid)
			return &config->users[i].limits;
	}
	return &config->limits;
}

/* ---- values ---- */

/* Digits and nothing else before the end or the suffix; -1: not a number, or too large for 64 bits.
 */
static int number_parse(const char *text, uint64_t *ret, const char **ret_end)
{
	uint64_t value = 0;
	const char *at = text;

	for (; *at >= '0' && *at <= '9'; ++at) {
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value))
			return -1;
	}
	if (at == text)
		return -1;

	*ret = value;
	*ret_end = at;
	return 0;
}

static int size_parse(const char *text, uint64_t max, uint64_t *ret)
{
	static const char suffixes[] = "KMGT";
	const char *end, *suffix;
	uint64_t value;

	if (number_parse(text, &value, &end) < 0)
		return -1;

	if (*end != '\0') {
		suffix = strchr(suffixes, *end);
		if (!suffix || end[1] != '\0' ||
		    __builtin_mul_overflow(value, UINT64_C(1) << (10 * (suffix - suffixes + 1)),
					   &value))
			return -1;
	}
	if (value > max)
		return -1;

	*ret = value;
	return 0;
}

int config_parse_seconds(const char *text, uint64_t *ret_ns)
{
	uint64_t seconds, ns = 0, unit = NS_PER_S;
	const char *end;

	if (number_parse(text, &seconds, &end) < 0)
		return -1;

	if (*end == '.') {
		for (++end; *end >= '0' && *end <= '9' && unit > 1; ++end) {
			unit /= 10;
			ns += unit * (uint64_t)(*end - '0');
		}
	}
	if (*end != '\0' || seconds > SECONDS_MAX || (seconds == SECONDS_MAX && ns > 0))
		return -1;

	*ret_ns = seconds * NS_PER_S + ns;
	return 0;
}

int config_parse_level(const char *text, enum log_level *ret)
{
	for (unsigned i = LOG_LEVEL_ERROR; i < N_ELEMENTS(level_names); ++i) {
		if (strcmp(text, level_names[i]) == 0) {
			*ret = (enum log_level)i;
			return 0;
		}
	}
	return -1;
}

/* ---- the parser ---- */

/* seen, user_seen: one bit for each key that was said, so that a second line is recognised whatever
 * is between. */
struct parse {
	struct config config;
	const char *file;
	const char *text; /* what is left */
	unsigned line;
	uint32_t seen; /* of [limits] and [broker] */
	uint32_t user_seen[CONFIG_USERS_MAX];
	int user; /* index of the present [user] section */
	bool is_failed;
	char *error;
	unsigned error_size;
};

/* Only the first error is told. */
static int __attribute__((__format__(__printf__, 2, 3)))
parse_fail(struct parse *parse, const char *format, ...)
{
	va_list arguments;
	int n;

	if (parse->is_failed)
		return 0;

	parse->is_failed = true;
	n = snprintf(parse->error, parse->error_size, "%s:%u: ", parse->file, parse->line);
	if (n >= 0 && (unsigned)n < parse->error_size) {
		va_start(arguments, format);
		(void)vsnprintf(parse->error + n, parse->error_size - (unsigned)n, format,
				arguments);
		va_end(arguments);
	}
	return 0;
}

static int user_lookup(const char *name, uid_t *ret)
{
	const struct passwd *entry;
	const char *end;
	uint64_t number;

	if (number_parse(name, &number, &end) == 0 && *end == '\0') {
		if (number >= UINT32_MAX)
			return -1;
		*ret = (uid_t)number;
		return 0;
	}

	entry = getpwnam(name);
	if (!entry)
		return -1;
	*ret = entry->pw_uid;
	return 0;
}

/* Two sections of one user, by name and by uid, are one. */
static void parse_user_section(struct parse *parse, const char *section)
{
	char name[USER_NAME_MAX + 1] = "";
	struct config *config = &parse->config;
	int end = 0;
	uid_t uid;

	if (sscanf(section, "user \"%40[^\"]\"%n", name, &end) != 1 || section[end] != '\0' ||
	    end == 0) {
		(void)parse_fail(parse, "[%s]: no such section; legal: " LEGAL_SECTIONS, section);
		return;
	}
	if (user_lookup(name, &uid) < 0) {
		(void)parse_fail(
			parse,
			"[%s]: no such user; legal: a user's name, or a uid from 0 to 4294967294",
			section);
		return;
	}

	for (parse->user = 0; (unsigned)parse->user < config->n_users; ++parse->user) {
		if (config->users[parse->user].uid == uid)
			return;
	}
	if (config->n_users == CONFIG_USERS_MAX) {
		(void)parse_fail(parse, "[%s]: too many users; legal: up to %d", section,
				 CONFIG_USERS_MAX);
		return;
	}
	config->users[config->n_users++] = (struct config_user){.uid = uid};
}

/* A section is looked at when its line is read: inih tells only those that have keys. */
static void parse_section(struct parse *parse, const char *line)
{
	char section[CONFIG_LINE_MAX + 1];
	const char *end = strrchr(line, ']');

	parse->user = -1;
	if (!end || end[1] != '\0') {
		(void)parse_fail(parse, "%s: not a section; legal: " LEGAL_SECTIONS, line);
		return;
	}

	(void)snprintf(section, sizeof(section), "%.*s", (int)(end - line - 1), line + 1);
	if (strcmp(section, "limits") != 0 && strcmp(section, "broker") != 0)
		parse_user_section(parse, section);
}

/* Without blanks around it (inih would take an indented line for the continuation of the last one)
 * and without comment. */
static void line_trim(char *line)
{
	size_t start, length;

	for (char *at = line; (at = strchr(at, '#')); ++at) {
		if (at == line || at[-1] == ' ' || at[-1] == '\t') {
			*at = '\0';
			break;
		}
	}

	start = strspn(line, " \t\r");
	length = strlen(line + start);
	memmove(line, line + start, length + 1);
	while (length > 0 && strchr(" \t\r", line[length - 1]))
		line[--length] = '\0';
}

/* inih's reader: like fgets(), one line a call, so that we know its number. */
static char *parse_line(char *to, int size, void *stream)
{
	struct parse *parse = stream;
	const char *start = parse->text;
	size_t length = strcspn(start, "\n");

	if (*start == '\0' || parse->is_failed)
		return NULL;

	parse->text += length + (start[length] == '\n');
	++parse->line;

	if (length > CONFIG_LINE_MAX || length + 2 > (size_t)size) {
		(void)parse_fail(parse, "%.20s...: line too long; legal: up to %d bytes", start,
				 CONFIG_LINE_MAX);
		return NULL;
	}

	memcpy(to, start, length);
	to[length] = '\0';
	line_trim(to);
	if (to[0] == '[')
		parse_section(parse, to);
	else if (to[0] != '\0' && to[0] != ';' && !strpbrk(to, "=:"))
		(void)parse_fail(parse, "%s: not a setting; legal: key = value", to);
	return to;
}

static int parse_limit(struct parse *parse, struct config_limits *limits, uint32_t *seen,
		       const char *name, const char *value)
{
	for (unsigned key = 0; key < N_LIMITS; ++key) {
		if (strcmp(name, limit_keys[key].name) != 0)
			continue;
		if (*seen & 1u << key)
			return parse_fail(parse, "%s: said twice; legal: once a section", name);
		if (size_parse(value, limit_keys[key].max, limit_of(limits, key)) < 0)
			return parse_fail(parse, "%s: not \"%s\"; legal: %s", name, value,
					  limit_keys[key].legal);
		*seen |= 1u << key;
		return 1;
	}
	return parse_fail(parse, "%s: no such key; legal: " LEGAL_LIMITS, name);
}

static int parse_broker(struct parse *parse, const char *name, const char *value)
{
	bool is_level = strcmp(name, "log_level") == 0;
	unsigned key;

	if (strcmp(name, "idle") == 0)
		key = KEY_IDLE;
	else if (strcmp(name, "grace") == 0)
		key = KEY_GRACE;
	else if (is_level)
		key = KEY_LOG_LEVEL;
	else
		return parse_fail(parse, "%s: no such key; legal: " LEGAL_BROKER, name);

	if (parse->seen & 1u << key)
		return parse_fail(parse, "%s: said twice; legal: once a section", name);
	parse->seen |= 1u << key;

	if (is_level) {
		if (config_parse_level(value, &parse->config.log_level) < 0)
			return parse_fail(parse, "%s: not \"%s\"; legal: " CONFIG_LEGAL_LEVELS,
					  name, value);
	} else if (config_parse_seconds(value, key == KEY_IDLE ? &parse->config.idle_ns
							       : &parse->config.grace_ns) < 0) {
		return parse_fail(parse, "%s: not \"%s\"; legal: " CONFIG_LEGAL_SECONDS, name,
				  value);
	}
	return 1;
}

/* inih's handler: 0 is an error. */
static int parse_setting(void *userdata, const char *section, const char *name, const char *value)
{
	struct parse *parse = userdata;

	if (parse->is_failed)
		return 0;
	if (section[0] == '\0')
		return parse_fail(parse, "%s: before any section; legal: " LEGAL_SECTIONS, name);
	if (strcmp(section, "broker") == 0)
		return parse_broker(parse, name, value);
	if (parse->user >= 0)
		return parse_limit(parse, &parse->config.users[parse->user].limits,
				   &parse->user_seen[parse->user], name, value);
	return parse_limit(parse, &parse->config.limits, &parse->seen, name, value);
}

int config_parse(struct config *config, const char *file, const char *text, char *error,
		 unsigned error_size)
{
	struct parse *parse;
	int r;

	parse = calloc(1, sizeof(*parse));
	if (!parse) {
		(void)snprintf(error, error_size, "%s: no memory", file);
		return -1;
	}
	*parse = (struct parse){.config = *config,
				.file = file,
				.text = text,
				.user = -1,
				.error = error,
				.error_size = error_size};
	parse->config.n_users = 0;

	r = ini_parse_stream(parse_line, parse, parse_setting, parse);
	if (r != 0) /* what inih alone found; the line is the last that it read, or r */
		(void)parse_fail(parse, "not a setting; legal: key = value");

	r = parse->is_failed ? -1 : 0;
	if (r == 0) {
		for (unsigned i = 0; i < parse->config.n_users; ++i) {
			for (unsigned key = 0; key < N_LIMITS; ++key) {
				if (!(parse->user_seen[i] & 1u << key))
					*limit_of(&parse->config.users[i].limits, key) =
						*limit_of(&parse->config.limits, key);
			}
		}
		*config = parse->config;
	}

	free(parse);
	return r;
}

/* ---- files ---- */

/* NUL-terminated, from the start; NULL and errno. */
static char *fd_read_all(int fd)
{
	size_t size = 0;
	ssize_t n = 1;
	char *text;

	text = malloc(CONFIG_TEXT_MAX + 1);
	if (!text)
		return NULL;

	while (n > 0 && size <= CONFIG_TEXT_MAX) {
		n = pread(fd, text + size, CONFIG_TEXT_MAX + 1 - size, (off_t)size);
		if (n < 0 && errno == EINTR)
			n = 1;
		else if (n > 0)
			size += (size_t)n;
	}
	if (n < 0 || size > CONFIG_TEXT_MAX) {
		free(text);
		errno = n < 0 ? errno : EFBIG;
		return NULL;
	}
	if (memchr(text, '\0', size)) {
		free(text);
		errno = EILSEQ;
		return NULL;
	}

	text[size] = '\0';
	return text;
}

int config_parse_fd(struct config *config, const char *file, int fd, char *error,
		    unsigned error_size)
{
	char *text = fd_read_all(fd);
	int r;

	if (!text) {
		(void)snprintf(error, error_size, "%s: %s; legal: a text file of up to %u bytes",
			       file, strerror(errno), CONFIG_TEXT_MAX);
		return -1;
	}

	r = config_parse(config, file, text, error, error_size);
	free(text);
	return r;
}

int config_parse_file(struct config *config, const char *file, char *error, unsigned error_size)
{
	int fd, r;

	/* NONBLOCK: a FIFO must not stop us. */
	fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0) {
		(void)snprintf(error, error_size, "%s: %s; legal: a text file that can be read",
			       file, strerror(errno));
		return -1;
	}

	r = config_parse_fd(config, file, fd, error, error_size);
	(void)close(fd);
	return r;
}

static void limits_print(FILE *file, const struct config_limits *limits)
{
	for (unsigned key = 0; key < N_LIMITS; ++key) {
		uint64_t value;

		memcpy(&value, (const char *)limits + limit_keys[key].offset, sizeof(value));
		(void)fprintf(file, "%s = %llu\n", limit_keys[key].name, (unsigned long long)value);
	}
}

static void seconds_print(FILE *file, const char *name, uint64_t ns)
{
	(void)fprintf(file, "%s = %llu.%09llu\n", name, (unsigned long long)(ns / NS_PER_S),
		      (unsigned long long)(ns % NS_PER_S));
}

/* Allocated; NULL and errno. */
static char *config_print(const struct config *config, size_t *ret_size)
{
	char *text = NULL;
	FILE *file;

	file = open_memstream(&text, ret_size);
	if (!file)
		return NULL;

	(void)fprintf(file, "[limits]\n");
	limits_print(file, &config->limits);
	for (unsigned i = 0; i < config->n_users; ++i) {
		(void)fprintf(file, "[user \"%u\"]\n", (unsigned)config->users[i].uid);
		limits_print(file, &config->users[i].limits);
	}
	(void)fprintf(file, "[broker]\n");
	seconds_print(file, "idle", config->idle_ns);
	seconds_print(file, "grace", config->grace_ns);
	(void)fprintf(file, "log_level = %s\n", level_names[config->log_level]);

	/* A stream in memory fails for want of memory only, and tells it here. */
	if (fclose(file) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

int config_to_memfd(const struct config *config)
{
	char *text;
	size_t size;
	int fd;

	text = config_print(config, &size);
	if (!text)
		return -1;

	/* Sealed: the next worker reads what this one read. */
	fd = memfd_create("ipc-config", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd >= 0 && (write(fd, text, size) != (ssize_t)size ||
			fcntl(fd, F_ADD_SEALS,
			      F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)) {
		(void)close(fd);
		fd = -1;
	}

	free(text);
	return fd;
}
