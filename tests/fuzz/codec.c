/* SPDX-License-Identifier: MIT */

/*
 * The wire decoder: whatever a packet holds, the check looks at no byte beyond its size, and what
 * passes has the promised form.
 */

#include <stdlib.h>
#include <string.h>

#include "libipc/wire/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int holds)
{
	if (!holds)
		abort();
}

static void check_names(const union message *message)
{
	switch ((enum message_type)message->head.type) {
	case MESSAGE_OPEN:
		require(memchr(message->open.name, '\0', sizeof(message->open.name)) != NULL);
		break;
	case MESSAGE_INFO:
		require(name_check(message->info.name) == 0);
		break;
	case MESSAGE_STATE:
		require(name_check(message->state.name) == 0);
		break;
	case MESSAGE_REMOVE:
		require(name_check(message->remove.name) == 0);
		break;
	case MESSAGE_LIST:
		require(memchr(message->list.pattern, '\0', sizeof(message->list.pattern)) != NULL);
		break;
	case MESSAGE_INFO_REPLY:
		require(name_check(message->info_reply.channel.name) == 0);
		break;
	case MESSAGE_LISTED:
		require(message->listed.n <= PROTOCOL_LIST_MAX);
		for (unsigned i = 0; i < message->listed.n; ++i)
			require(name_check(message->listed.channel[i].name) == 0);
		break;
	case MESSAGE_HELLO:
		require(memchr(message->hello.process_name, '\0', PROTOCOL_PROCESS_NAME_SIZE) !=
			NULL);
		break;
	case MESSAGE_HANDLES:
		require(name_check(message->handles.name) == 0);
		break;
	case MESSAGE_HANDLED:
		require(message->handled.n <= PROTOCOL_HANDLE_MAX);
		for (unsigned i = 0; i < message->handled.n; ++i)
			require(memchr(message->handled.handle[i].process_name, '\0',
				       PROTOCOL_PROCESS_NAME_SIZE) != NULL);
		break;
	case MESSAGE_SESSIONS:
		require(name_check(message->sessions.name) == 0);
		break;
	case MESSAGE_SESSIONED:
		require(message->sessioned.n <= PROTOCOL_SESSION_MAX);
		break;
	case MESSAGE_TAKEN:
	case MESSAGE_OFFER:
	case MESSAGE_CONFIRM:
	case MESSAGE_CLOSE:
	case MESSAGE_CANCEL:
	case MESSAGE_RING:
	case MESSAGE_GROUP:
	case MESSAGE_STATED:
	case MESSAGE_BELLS:
	case MESSAGE_JOINED:
	case MESSAGE_WELCOME:
	case MESSAGE_DONE:
	case MESSAGE_RESERVE:
	case MESSAGE_OPENED:
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* As large as the packet and no larger: the sanitizer sees each byte read beyond it. */
	union message *message = calloc(1, size ? size : 1);
	int is_request, is_reply;

	if (!message)
		return 0;

	if (size)
		memcpy(message, data, size);
	is_request = message_check_request(message, size) == 0;
	is_reply = message_check_reply(message, size) == 0;

	require(!(is_request && is_reply));
	if (is_request || is_reply) {
		require(size <= PROTOCOL_SIZE_MAX && message->head.size == size);
		check_names(message);
	}

	free(message);
	return 0;
}
