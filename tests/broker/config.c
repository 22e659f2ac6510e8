/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/config.h"
#include "libipc/platform/clock.h"

static struct config config;
static char error[512];

static void setup(void)
{
	config_init(&config);
	error[0] = '\0';
}

/* The line that is told; "" if the text is legal.  An error leaves no trace. */
static const char *error_of(const char *text)
{
	static struct config before;

	config_init(&config);
	before = config;
	error[0] = '\0';
	if (config_parse(&config, "conf", text, error, sizeof(error)) == 0)
		return "";

	cr_assert_eq(memcmp(&config, &before, sizeof(config)), 0, "\"%s\" changed something", text);
	cr_assert_neq(error[0], '\0');
	cr_assert_null(strchr(error, '\n'), "one line");
	return error;
}

/* */
Test(config, defaults_hold_for_everybody, .init = setup, .timeout = 60)
{
	const struct config_limits *limits = config_limits_of(&config, 4711);

	cr_assert_eq(limits->bytes, UINT64_C(8) << 30);
	cr_assert_eq(limits->channels, 12000);
	cr_assert_eq(limits->handles, 40000);
	cr_assert_eq(limits->connections, 4096);
	cr_assert_eq(limits->pendings, 4096);
	cr_assert_eq(config.idle_ns, 0);
	cr_assert_eq(config.grace_ns, 5 * NS_PER_S);
	cr_assert_eq(config.log_level, LOG_LEVEL_NOTICE);
	cr_assert_str_eq(error_of(""), "");
	cr_assert_str_eq(error_of("\n# nothing\n\n   # indented\n[limits]\n"), "");
}

/* X-4, M-51 */
Test(config, limits_are_by_default_and_by_user, .init = setup, .timeout = 60)
{
	static const char text[] = "# limits\n"
				   "[user \"root\"]\n"
				   "\tbytes = 2G   # for the machine\n"
				   "    channels = 5\n"
				   "[limits]\r\n"
				   "bytes=512M\r\n"
				   "handles = 3K\n"
				   "[user \"1234\"]\n"
				   "connections = 0\n"
				   "[user \"0\"]\n"
				   "pendings = 7\n"
				   "[broker]\n"
				   "idle = 0.25\n"
				   "grace=3\n"
				   "log_level = debug";

	cr_assert_eq(config_parse(&config, "conf", text, error, sizeof(error)), 0, "%s", error);

	cr_assert_eq(config.limits.bytes, UINT64_C(512) << 20);
	cr_assert_eq(config.limits.handles, 3072);
	cr_assert_eq(config.n_users, 2, "a name and its uid are one user");
	cr_assert_eq(config_limits_of(&config, 0)->bytes, UINT64_C(2) << 30);
	cr_assert_eq(config_limits_of(&config, 0)->channels, 5);
	cr_assert_eq(config_limits_of(&config, 0)->pendings, 7);
	cr_assert_eq(config_limits_of(&config, 0)->handles, 3072,
		     "what is not said is as in [limits], wherever that stands");
	cr_assert_eq(config_limits_of(&config, 1234)->connections, 0);
	cr_assert_eq(config_limits_of(&config, 1234)->bytes, UINT64_C(512) << 20);
	cr_assert_eq(config_limits_of(&config, 1235), &config.limits);
	cr_assert_eq(config.idle_ns, NS_PER_S / 4);
	cr_assert_eq(config.grace_ns, 3 * NS_PER_S);
	cr_assert_eq(config.log_level, LOG_LEVEL_DEBUG);
}

/* file, line, key, what would be legal */
Test(config, each_error_names_line_key_and_what_is_legal, .init = setup, .timeout = 60)
{
	static const struct {
		const char *text, *line;
	} cases[] = {
		{"[limits]\nbites = 1\n", "conf:2: bites: no such key; legal: bytes, channels, "
					  "handles, connections, pendings"},
		{"[limits]\nidle = 1\n", "conf:2: idle: no such key; legal: bytes, channels"},
		{"[user \"0\"]\nidle = 1\n", "conf:2: idle: no such key; legal: bytes, channels"},
		{"[broker]\nbytes = 1\n",
		 "conf:2: bytes: no such key; legal: idle, grace, log_level"},
		{"\n\n[limits]\n\nbytes = 1.5G\n",
		 "conf:5: bytes: not \"1.5G\"; legal: 0 to 1024T; K, M, G, T are powers of 1024"},
		{"[limits]\nbytes = 2P\n", "conf:2: bytes: not \"2P\""},
		{"[limits]\nbytes = 1GG\n", "conf:2: bytes: not \"1GG\""},
		{"[limits]\nbytes = -1\n", "conf:2: bytes: not \"-1\""},
		{"[limits]\nbytes = 0x10\n", "conf:2: bytes: not \"0x10\""},
		{"[limits]\nbytes =\n", "conf:2: bytes: not \"\""},
		{"[limits]\nbytes = 1025T\n", "conf:2: bytes: not \"1025T\""},
		{"[limits]\nbytes = 18446744073709551616\n", "conf:2: bytes: not"},
		{"[limits]\nbytes = 99999999999999999T\n", "conf:2: bytes: not"},
		{"[limits]\nchannels = 16385\n",
		 "conf:2: channels: not \"16385\"; legal: 0 to 16384"},
		{"[limits]\nhandles = 65537\n",
		 "conf:2: handles: not \"65537\"; legal: 0 to 65536"},
		{"[limits]\nconnections = 8193\n",
		 "conf:2: connections: not \"8193\"; legal: 0 to 8192"},
		{"[limits]\npendings = 8193\n", "conf:2: pendings: not \"8193\"; legal: 0 to 8192"},
		{"[limits]\nbytes = 1\nhandles = 1\nbytes = 1\n", "conf:4: bytes: said twice"},
		{"[limits]\nbytes = 1\n[limits]\nbytes = 1\n", "conf:4: bytes: said twice"},
		{"[user \"root\"]\nbytes = 1\n[user \"0\"]\nbytes = 1\n",
		 "conf:4: bytes: said twice"},
		{"[broker]\nidle = 1\nidle = 1\n", "conf:3: idle: said twice"},
		{"[broker]\nlog_level = info\nlog_level = info\n", "conf:3: log_level: said twice"},
		{"[broker]\nidle = soon\n",
		 "conf:2: idle: not \"soon\"; legal: 0 to 1000000 seconds"},
		{"[broker]\nidle = 1.0000000001\n", "conf:2: idle: not"},
		{"[broker]\ngrace = 1000001\n", "conf:2: grace: not \"1000001\""},
		{"[broker]\nlog_level = loud\n",
		 "conf:2: log_level: not \"loud\"; legal: error, warning, notice, info, debug"},
		{"bytes = 1\n",
		 "conf:1: bytes: before any section; legal: [limits], [user \"NAME\"], [broker]"},
		{"[limit]\n", "conf:1: [limit]: no such section; legal: [limits]"},
		{"[limits]\n[]\n", "conf:2: []: no such section"},
		{"[limits\nbytes = 1\n", "conf:1: [limits: not a section"},
		{"[user root]\nbytes = 1\n", "conf:1: [user root]: no such section"},
		{"[user \"\"]\n", "conf:1: [user \"\"]: no such section"},
		{"[user \"nobody-of-that-name\"]\n",
		 "conf:1: [user \"nobody-of-that-name\"]: no such user; legal: a user's name, or a "
		 "uid from 0 to 4294967294"},
		{"[user \"4294967295\"]\n", "conf:1: [user \"4294967295\"]: no such user"},
		{"[limits]\nbytes\n", "conf:2: bytes: not a setting; legal: key = value"},
		{"[limits]\n[limits]x\n", "conf:2: [limits]x: not a section"},
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); ++i) {
		const char *told = error_of(cases[i].text);

		cr_assert_eq(strncmp(told, cases[i].line, strlen(cases[i].line)), 0,
			     "\"%s\" says \"%s\"", cases[i].text, told);
		cr_assert(strstr(told, "; legal: "), "%s", told);
	}
}

/* Only the first error is told, whatever comes after it. */
Test(config, first_error_is_told, .init = setup, .timeout = 60)
{
	const char *told = error_of("[limits]\nbytes = x\nbites = 1\n[nonsense]\n");

	cr_assert_eq(strncmp(told, "conf:2: bytes:", 14), 0, "%s", told);
}

Test(config, long_lines_are_refused_and_never_cut, .init = setup, .timeout = 60)
{
	char text[600];

	(void)snprintf(text, sizeof(text), "[limits]\nbytes = 1 #%0*d\n", CONFIG_LINE_MAX - 11, 0);
	cr_assert_str_eq(error_of(text), "");
	(void)snprintf(text, sizeof(text), "[limits]\nbytes = 1 #%0*d\n", CONFIG_LINE_MAX - 10, 0);
	cr_assert(strstr(error_of(text), "conf:2: ") && strstr(error, "line too long"), "%s",
		  error);
	(void)snprintf(text, sizeof(text), "[user \"%0100d\"]\nbytes = 1\n", 0);
	cr_assert(strstr(error_of(text), "conf:1: "), "%s", error);
}

Test(config, as_many_users_as_the_table_holds, .init = setup, .timeout = 60)
{
	char text[16384];
	int n = 0;

	for (unsigned i = 0; i < CONFIG_USERS_MAX; ++i)
		n += sprintf(text + n, "[user \"%u\"]\nbytes = %u\n", 5000 + i, i);
	cr_assert_str_eq(error_of(text), "");
	cr_assert_eq(config_limits_of(&config, 5000 + CONFIG_USERS_MAX - 1)->bytes,
		     CONFIG_USERS_MAX - 1);

	sprintf(text + n, "[user \"4999\"]\n");
	cr_assert(strstr(error_of(text),
			 "conf:513: [user \"4999\"]: too many users; legal: up to 256"),
		  "%s", error);
}

/* What the worker reads is what the keeper read. */
Test(config, text_for_the_worker_says_the_same, .init = setup, .timeout = 60)
{
	static struct config read;
	int fd;

	cr_assert_str_eq(
		error_of("[limits]\nbytes = 3M\npendings = 0\n[user \"root\"]\nbytes = 1\n[user "
			 "\"4294967294\"]\nhandles = 65536\n"
			 "[broker]\nidle = 0.000000001\ngrace = 1000000\nlog_level = error\n"),
		"");
	fd = config_to_memfd(&config);
	cr_assert_geq(fd, 0);
	cr_assert_eq(fcntl(fd, F_GET_SEALS) & F_SEAL_WRITE, F_SEAL_WRITE);

	config_init(&read);
	cr_assert_eq(config_parse_fd(&read, "cf0.1", fd, error, sizeof(error)), 0, "%s", error);
	cr_assert_eq(memcmp(&read, &config, sizeof(config)), 0);
	close(fd);
}

Test(config, file_that_cannot_be_read_is_named, .init = setup, .timeout = 60)
{
	char path[] = "/tmp/ipc-config-XXXXXX";
	int fd = mkstemp(path);

	cr_assert_eq(config_parse_file(&config, "/nowhere/conf", error, sizeof(error)), -1);
	cr_assert(strstr(error, "/nowhere/conf: No such file"), "%s", error);
	cr_assert_eq(config_parse_file(&config, "/tmp", error, sizeof(error)), -1);
	cr_assert(strstr(error, "/tmp: "), "%s", error);

	/* A byte 0 would hide what follows it. */
	cr_assert_eq(write(fd, "[limits]\n\0bytes = 1\n", 20), 20);
	cr_assert_eq(config_parse_file(&config, path, error, sizeof(error)), -1);
	cr_assert_eq(ftruncate(fd, CONFIG_TEXT_MAX + 1), 0);
	cr_assert_eq(config_parse_file(&config, path, error, sizeof(error)), -1);
	cr_assert(strstr(error, "up to 1048576 bytes"), "%s", error);
	close(fd);
	unlink(path);
}

Test(config, seconds_have_up_to_nine_decimals, .timeout = 60)
{
	static const char *const wrong[] = {"",   ".",  ".5",        "-1",           "1,5",
					    "1s", " 1", "1000000.1", "1.0123456789", "1e3"};
	uint64_t ns = 1;

	cr_assert_eq(config_parse_seconds("0", &ns), 0);
	cr_assert_eq(ns, 0);
	cr_assert_eq(config_parse_seconds("12.000000034", &ns), 0);
	cr_assert_eq(ns, UINT64_C(12000000034));
	cr_assert_eq(config_parse_seconds("1000000", &ns), 0);
	cr_assert_eq(ns, 1000000 * NS_PER_S);
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); ++i)
		cr_assert_eq(config_parse_seconds(wrong[i], &ns), -1, "%s", wrong[i]);
}
