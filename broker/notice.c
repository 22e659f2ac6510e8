/* SPDX-License-Identifier: MIT */
#include "broker/notice.h"

#include <string.h>

#include <ipc/error.h>

#include "broker/log.h"
#include "broker/store.h"
#include "libipc/platform/fdpass.h"

static bool line_is(const char *line, size_t length, const char *wanted)
{
	return strlen(wanted) == length && memcmp(line, wanted, length) == 0;
}

static void line_parse(struct notice *notice, const char *line, size_t length)
{
	if (length > 7 && length - 7 <= STORE_NAME_MAX && memcmp(line, "FDNAME=", 7) == 0)
		memcpy(notice->name, line + 7, length - 7);

	notice->is_store |= line_is(line, length, "FDSTORE=1");
	notice->is_remove |= line_is(line, length, "FDSTOREREMOVE=1");
	notice->is_ready |= line_is(line, length, "READY=1");
	notice->is_status |= line_is(line, length, "STOPPING=1") ||
			     (length >= 7 && memcmp(line, "STATUS=", 7) == 0);
	notice->is_hide |= line_is(line, length, STORE_TEXT_HIDE);
	notice->is_show |= line_is(line, length, STORE_TEXT_SHOW);
	notice->is_complete |= line_is(line, length, STORE_TEXT_COMPLETE);
}

enum notice_result notice_read(int socket_fd, struct notice *ret)
{
	int fds[FDPASS_FDS_MAX];
	unsigned n_fds = 0;
	size_t size = 0;
	int r;

	*ret = (struct notice){.fd = -1};
	r = fdpass_receive(socket_fd, ret->text, sizeof(ret->text) - 1, &size, fds, &n_fds);

	/* A worker that died with our answer unread: told once as an error, before what it had
	 * sent. */
	if (r == IPC_EPIPE)
		r = fdpass_receive(socket_fd, ret->text, sizeof(ret->text) - 1, &size, fds, &n_fds);
	if (r == IPC_EAGAIN)
		return NOTICE_NONE;
	if (r == IPC_EPIPE)
		return NOTICE_END;
	if (r < 0) {
		log_line(LOG_LEVEL_ERROR, "a message of the worker was lost: error %d", -r);
		size = 0;
	}

	ret->text[size] = '\0';
	for (const char *at = ret->text; *at != '\0';) {
		size_t length = strcspn(at, "\n");

		line_parse(ret, at, length);
		at += length + (at[length] == '\n');
	}

	if (r == 0 && n_fds > 0)
		ret->fd = fds[0];
	for (unsigned i = 1; r == 0 && i < n_fds; ++i)
		(void)fd_close(fds[i]);
	return NOTICE_READ;
}
