/* SPDX-License-Identifier: MIT */
#ifndef EXAMPLES_DEMO_DEMO_H
#define EXAMPLES_DEMO_DEMO_H

/*
 * The demo is a play in acts: each starts processes ("members"), kills some of them, and says what
 * became of the waits of the others.
 */

#include <ipc/ipc.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- the stage: demo/stage.c ---- */

void act(const char *title);
void check(bool holds, const char *claim);
bool all_held(void);

/* Ends this process: the demo, or a member of it. */
void __attribute__((__noreturn__)) fail(const char *what, int result);
const char *result_name(int64_t result);

int64_t now_ns(void);
struct timespec in_seconds(unsigned seconds);
void pause_ms(int ms);

/* ---- the broker: demo/broker.c ---- */

/* On a private socket in a new directory.  NULL: the program beside this one, else that of PATH. */
void broker_start(const char *program);
pid_t broker_keeper(void);
pid_t broker_worker(void);
bool broker_is_whole(void);  /* keeper, worker and spare are there, and it accepts */
int broker_n_segments(void); /* of the keeper; negative: one of them has a name */
ipc_client *broker_connect(void);

/* Told to stop, with all the claims about it. */
void broker_stop(void);

/* ---- members: demo/member.c ---- */

/* A process of ours, and the socket that it reports through. */
struct member {
	pid_t pid;
	int fd;
};

/* What a member tells. */
struct report {
	int64_t at_ns;
	int64_t result;
	uint64_t number, other;
};

struct member member_start(void (*fn)(int fd));
struct report member_hear(struct member member);
void member_tell(struct member member);

/* Until it sleeps in the kernel: only then does a death have to wake it. */
void member_until_asleep(struct member member);

/* Returns the moment before. */
int64_t member_kill(struct member member);
void member_end(struct member member);

/* In the member: */
void report(int fd, int64_t result, uint64_t number, uint64_t other);
void await_word(int fd);

/* ---- who waits for whom: demo/waits.c ---- */

/* Until n handles of the channel wait for another one of it, in the broker's list; false: they
 * never do. */
bool waits_are_listed(const char *channel, unsigned n);

/* ---- pages: demo/page.c ---- */

enum { PAGE_WORDS = 512 };

/* What flights are about: bytes that follow from the key, so that whoever gets them can tell that
 * they are right. */
struct page {
	uint64_t words[PAGE_WORDS];
};

void page_make(struct page *page, const void *key, size_t size);
bool page_is_right(const struct ipc_flight_result *result, const void *key, size_t size);

/* ---- the acts ---- */

void act_configuration(void);
void act_ledger(void);
void act_flights(void);
void act_handlers(void);
void act_queue(void);
void act_inbox(void);
void act_session(void);
void act_broker(void);

#endif
