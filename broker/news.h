/* SPDX-License-Identifier: MIT */
#ifndef BROKER_NEWS_H
#define BROKER_NEWS_H

/*
 * What has happened before an OPEN was sent, and the broker has not heard yet: clients are served
 * in turns, and what one has closed, detached or left by its death may stand in its desk, in its
 * queue or with the kernel when the next one asks for that very end or place.
 */

#include <stdbool.h>

struct message_open;
struct worker;

/* What this OPEN depends on is heard.  False: clients were doomed on whom it depends; it is to be
 * decided once they are ended (reaper_run). */
bool news_hear(struct worker *worker, const struct message_open *open);

#endif
