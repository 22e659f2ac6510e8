/* SPDX-License-Identifier: MIT */
#ifndef BROKER_NOTICE_H
#define BROKER_NOTICE_H

/*
 * One message from a worker, as the keeper and its spare read it: lines of NAME=VALUE, and at most
 * one descriptor.
 */

#include <stdbool.h>

#include "broker/fdstore.h"

#define NOTICE_TEXT_SIZE 1024

struct notice {
	bool is_store;                      /* FDSTORE=1, with fd */
	bool is_remove;                     /* FDSTOREREMOVE=1 */
	bool is_ready;                      /* READY=1 */
	bool is_status;                     /* STATUS=, STOPPING=1 */
	bool is_hide, is_show, is_complete; /* STORE_TEXT_... */
	char name[STORE_NAME_SIZE];         /* FDNAME=; "": none, or not a legal one */
	int fd;                             /* the reader's now; -1: none */
	char text[NOTICE_TEXT_SIZE];        /* the message as it came */
};

enum notice_result { NOTICE_NONE, NOTICE_READ, NOTICE_END };

/* NOTICE_NONE: nothing there now.  NOTICE_END: nobody will send any more, and everything that was
 * sent has been read. */
enum notice_result notice_read(int socket_fd, struct notice *ret);

#endif
