/* SPDX-License-Identifier: MIT */
#include "libipc/wire/codec.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "include/ipc/admin.h"
#include "include/ipc/client.h"
#include "include/ipc/limits.h"
#include "libipc/core/liveness.h"

/*
 * Each type has its size and one function that looks at the fields.  What is checked here needs no
 * knowledge of the receiver: whether a version is common, a handle is open or a size is affordable
 * is answered, not refused as a broken message.
 */

/* No errno is larger: what the kernel reserves for errors. */
#define RESULT_MIN (-4095)

#define OPEN_FLAGS_LOW UINT64_C(0xffff) /* <sys/ipc.h> has IPC_CREAT and IPC_EXCL there */
#define OPEN_FLAGS_KNOWN                                                                           \
	(UINT64_C(0xffff0000) | OPEN_LOOK_ONCE | OPEN_UPGRADE | OPEN_UNCOUNTED | OPEN_RESUME)

#define FDS_OF_GRANT 3 /* of a queue: OPENED_FD_... but PAIR */

#define LISTED_SIZE(n)                                                                             \
	(offsetof(struct message_listed, channel) + (size_t)(n) * sizeof(struct message_channel))
#define HANDLED_SIZE(n)                                                                            \
	(offsetof(struct message_handled, handle) + (size_t)(n) * sizeof(struct message_handle))
#define SESSIONED_SIZE(n)                                                                          \
	(offsetof(struct message_sessioned, session) + (size_t)(n) * sizeof(struct message_session))

int name_check(const char *name)
{
	size_t i;

	if (!name || name[0] == '\0' || name[0] == '/')
		return IPC_EINVAL;

	for (i = 0; name[i] != '\0'; ++i) {
		char c = name[i];
		bool is_legal = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
				(c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-' ||
				c == '/';

		if (i == IPC_NAME_SIZE_MAX || !is_legal)
			return IPC_EINVAL;
	}

	return 0;
}

static bool text_is_terminated(const char text[256])
{
	return memchr(text, '\0', 256) != NULL;
}

static bool process_name_is_terminated(const char name[PROTOCOL_PROCESS_NAME_SIZE])
{
	return memchr(name, '\0', PROTOCOL_PROCESS_NAME_SIZE) != NULL;
}

static bool name_is_good(const char name[256])
{
	return text_is_terminated(name) && name_check(name) == 0;
}

/* "" is none. */
static bool name_or_none_is_good(const char name[256])
{
	return name[0] == '\0' || name_is_good(name);
}

static bool region_is_good(const struct message_region *region)
{
	uint64_t end;

	return region->segment_id != 0 && region->size != 0 &&
	       !__builtin_add_overflow(region->offset, region->size, &end) && end <= INT64_MAX;
}

/* 0: a number that is no role. */
static unsigned role_kind(uint32_t role)
{
	switch ((enum ipc_role)role) {
	case IPC_ROLE_WATCH_PRODUCER:
	case IPC_ROLE_WATCH_CONSUMER:
	case IPC_ROLE_WATCH_WEAK:
		return IPC_KIND_WATCH;
	case IPC_ROLE_SHARED_A:
	case IPC_ROLE_SHARED_B:
		return IPC_KIND_SHARED;
	case IPC_ROLE_QUEUE_PRODUCER:
	case IPC_ROLE_QUEUE_CONSUMER:
	case IPC_ROLE_GROUP:
		return IPC_KIND_QUEUE;
	case IPC_ROLE_FLIGHT_TABLE:
	case IPC_ROLE_HANDLER:
		return IPC_KIND_FLIGHT;
	case IPC_ROLE_INBOX_SENDER:
	case IPC_ROLE_INBOX_RECEIVER:
	case IPC_ROLE_INBOX_OBSERVER:
		return IPC_KIND_INBOX;
	case IPC_ROLE_LISTENER:
	case IPC_ROLE_SESSION:
		return IPC_KIND_SESSION;
	case IPC_ROLE_LIMITER:
		return IPC_KIND_LIMITER;
	}
	return 0;
}

static bool hello_is_good(const union message *message)
{
	const struct message_hello *hello = &message->hello;

	return hello->version_min != 0 && hello->version_min <= hello->version_max &&
	       hello->pid > 0 && process_name_is_terminated(hello->process_name);
}

static bool open_is_good(const union message *message)
{
	const struct message_open *open = &message->open;

	if (open->kind == 0 || role_kind(open->role) != open->kind)
		return false;

	if (open->flags & (OPEN_FLAGS_LOW | ~OPEN_FLAGS_KNOWN))
		return false;

	if ((open->flags & IPC_EXCLUSIVE) && !(open->flags & IPC_CREATE))
		return false;

	if ((open->mode & ~0666u) || open->reserved != 0)
		return false;

	if (!name_or_none_is_good(open->dead_letters) ||
	    (open->dead_letters[0] != '\0' && open->kind != IPC_KIND_QUEUE))
		return false;

	if ((open->flags & OPEN_UNCOUNTED) && open->role != IPC_ROLE_QUEUE_PRODUCER)
		return false;

	if (open->flags & OPEN_UPGRADE)
		return !(open->flags & IPC_CREATE) && open->name[0] == '\0' &&
		       open->generation != 0 && open->channel_slot < LIVENESS_CHANNELS_MAX;

	if (open->flags & OPEN_RESUME)
		return !(open->flags & IPC_CREATE) && open->name[0] == '\0' &&
		       open->role == IPC_ROLE_SESSION;

	if ((open->flags & IPC_CREATE) && (open->size_new == 0 || open->size_new > INT64_MAX))
		return false;

	return name_is_good(open->name);
}

static bool confirm_is_good(const union message *message)
{
	const struct message_confirm *confirm = &message->confirm;

	return confirm->handle_id != 0 && confirm->status <= 0 && confirm->status >= RESULT_MIN &&
	       confirm->reserved == 0;
}

static bool close_is_good(const union message *message)
{
	return message->close.handle_id != 0 && message->close.is_detached <= 1 &&
	       message->close.reserved == 0;
}

static bool cancel_is_good(const union message *message)
{
	(void)message; /* An id that nobody waits for is no fault: the answer may be on its way. */
	return true;
}

static bool info_is_good(const union message *message)
{
	return name_is_good(message->info.name);
}

static bool list_is_good(const union message *message)
{
	const struct message_list *list = &message->list;

	return list->cursor != PROTOCOL_CURSOR_END && list->reserved == 0 &&
	       text_is_terminated(list->pattern);
}

static bool remove_is_good(const union message *message)
{
	return name_is_good(message->remove.name);
}

static bool handles_is_good(const union message *message)
{
	const struct message_handles *handles = &message->handles;

	/* Whoever goes on says of which channel. */
	if (handles->cursor >= PROTOCOL_CURSOR_END ||
	    (handles->cursor != 0 && handles->generation == 0))
		return false;

	return name_is_good(handles->name);
}

static bool state_is_good(const union message *message)
{
	return name_is_good(message->state.name);
}

static bool ring_is_good(const union message *message)
{
	return message->ring.handle_id != 0;
}

static bool group_is_good(const union message *message)
{
	return message->group.group_id != 0 && text_is_terminated(message->group.pattern);
}

static bool welcome_is_good(const union message *message)
{
	const struct message_welcome *welcome = &message->welcome;

	return welcome->version != 0 && welcome->client_slot < LIVENESS_CLIENTS_MAX &&
	       welcome->is_foreign <= 1 && region_is_good(&welcome->table) &&
	       region_is_good(&welcome->desk);
}

static bool done_is_good(const union message *message)
{
	(void)message; /* The head is all of it. */
	return true;
}

static bool reserve_is_good(const union message *message)
{
	return message->reserve.handle_id != 0 && region_is_good(&message->reserve.segment);
}

static bool grant_is_good(const struct message_opened *opened)
{
	return opened->handle_id != 0 && opened->generation != 0 &&
	       opened->channel_slot < LIVENESS_CHANNELS_MAX &&
	       (opened->fds &
		~(OPENED_FD_VALUE | OPENED_FD_LINES | OPENED_FD_TABLE | OPENED_FD_PAIR)) == 0 &&
	       opened->is_writable <= 1 && opened->side <= 1 && opened->reserved == 0 &&
	       region_is_good(&opened->value) && region_is_good(&opened->lines) &&
	       region_is_good(&opened->table) && name_or_none_is_good(opened->dead_letters);
}

static bool opened_is_good(const union message *message)
{
	return grant_is_good(&message->opened);
}

static bool bells_is_good(const union message *message)
{
	const struct message_bells *bells = &message->bells;

	if (bells->handle_id == 0 || bells->n > PROTOCOL_BELLS_MAX)
		return false;

	for (uint32_t i = 0; i < bells->n; ++i) {
		if (bells->slot[i] >= LIVENESS_CLIENTS_MAX)
			return false;
	}

	return true;
}

static bool joined_is_good(const union message *message)
{
	const struct message_joined *joined = &message->joined;

	return joined->group_id != 0 && joined->n_fds_queue <= FDS_OF_GRANT &&
	       joined->has_dead <= 1 && name_is_good(joined->name) &&
	       grant_is_good(&joined->queue) && (!joined->has_dead || grant_is_good(&joined->dead));
}

static bool taken_is_good(const union message *message)
{
	const struct message_taken *taken = &message->taken;

	return taken->handle_id != 0 && taken->is_accepted <= 1 && taken->reserved == 0;
}

static bool offer_is_good(const union message *message)
{
	const struct message_offer *offer = &message->offer;

	return offer->listener_id != 0 && offer->is_taken_back <= 1 && offer->reserved == 0 &&
	       grant_is_good(&offer->session);
}

static bool sessions_is_good(const union message *message)
{
	return message->sessions.cursor < PROTOCOL_CURSOR_END &&
	       name_is_good(message->sessions.name);
}

static bool sessioned_is_good(const union message *message)
{
	const struct message_sessioned *sessioned = &message->sessioned;

	/* n first: it decides how much of the array was received at all. */
	return sessioned->n <= PROTOCOL_SESSION_MAX &&
	       sessioned->head.size == SESSIONED_SIZE(sessioned->n) &&
	       sessioned->cursor <= PROTOCOL_CURSOR_END && sessioned->reserved == 0;
}

static bool channel_is_good(const struct message_channel *channel)
{
	return name_is_good(channel->name) && channel->kind >= IPC_KIND_WATCH &&
	       channel->kind <= IPC_KIND_LIMITER && channel->reserved == 0;
}

static bool info_reply_is_good(const union message *message)
{
	return channel_is_good(&message->info_reply.channel);
}

static bool listed_is_good(const union message *message)
{
	const struct message_listed *listed = &message->listed;

	/* n first: it decides how much of the array was received at all. */
	if (listed->n > PROTOCOL_LIST_MAX || listed->head.size != LISTED_SIZE(listed->n))
		return false;

	for (uint32_t i = 0; i < listed->n; ++i) {
		if (!channel_is_good(&listed->channel[i]))
			return false;
	}

	return true;
}

static bool handle_is_good(const struct message_handle *handle)
{
	return handle->handle_id != 0 && process_name_is_terminated(handle->process_name) &&
	       role_kind(handle->role) != 0 && handle->weak <= 1 &&
	       handle->holds <= IPC_HOLDS_CLAIMS;
}

static bool handled_is_good(const union message *message)
{
	const struct message_handled *handled = &message->handled;

	/* n first, as above. */
	if (handled->n > PROTOCOL_HANDLE_MAX || handled->head.size != HANDLED_SIZE(handled->n))
		return false;

	if (handled->cursor > PROTOCOL_CURSOR_END || handled->generation == 0 ||
	    handled->reserved != 0)
		return false;

	for (uint32_t i = 0; i < handled->n; ++i) {
		if (!handle_is_good(&handled->handle[i]))
			return false;
	}

	return true;
}

static bool stated_is_good(const union message *message)
{
	const struct message_stated *stated = &message->stated;

	return stated->priorities != 0 && stated->priorities <= PROTOCOL_PRIORITIES_MAX &&
	       stated->is_partial <= 1;
}

struct format {
	uint32_t size; /* exact; of LISTED and HANDLED the smallest */
	bool is_request;
	bool is_variable; /* the check compares the size */
	bool may_fail;    /* result may be negative */
	bool (*is_good)(const union message *message);
};

static const struct format *format_of(unsigned type)
{
	static const struct format requests[] = {
		[MESSAGE_HELLO] = {sizeof(struct message_hello), true, false, false, hello_is_good},
		[MESSAGE_OPEN] = {sizeof(struct message_open), true, false, false, open_is_good},
		[MESSAGE_CONFIRM] = {sizeof(struct message_confirm), true, false, false,
				     confirm_is_good},
		[MESSAGE_CLOSE] = {sizeof(struct message_close), true, false, false, close_is_good},
		[MESSAGE_CANCEL] = {sizeof(struct message_cancel), true, false, false,
				    cancel_is_good},
		[MESSAGE_INFO] = {sizeof(struct message_info), true, false, false, info_is_good},
		[MESSAGE_LIST] = {sizeof(struct message_list), true, false, false, list_is_good},
		[MESSAGE_REMOVE] = {sizeof(struct message_remove), true, false, false,
				    remove_is_good},
		[MESSAGE_HANDLES] = {sizeof(struct message_handles), true, false, false,
				     handles_is_good},
		[MESSAGE_RING] = {sizeof(struct message_ring), true, false, false, ring_is_good},
		[MESSAGE_GROUP] = {sizeof(struct message_group), true, false, false, group_is_good},
		[MESSAGE_STATE] = {sizeof(struct message_state), true, false, false, state_is_good},
		[MESSAGE_TAKEN] = {sizeof(struct message_taken), true, false, false, taken_is_good},
		[MESSAGE_SESSIONS] = {sizeof(struct message_sessions), true, false, false,
				      sessions_is_good},
	};
	static const struct format replies[] = {
		[MESSAGE_WELCOME - MESSAGE_WELCOME] = {sizeof(struct message_welcome), false, false,
						       false, welcome_is_good},
		[MESSAGE_DONE - MESSAGE_WELCOME] = {sizeof(struct message_head), false, false, true,
						    done_is_good},
		[MESSAGE_RESERVE - MESSAGE_WELCOME] = {sizeof(struct message_reserve), false, false,
						       false, reserve_is_good},
		[MESSAGE_OPENED - MESSAGE_WELCOME] = {sizeof(struct message_opened), false, false,
						      false, opened_is_good},
		[MESSAGE_INFO_REPLY - MESSAGE_WELCOME] = {sizeof(struct message_info_reply), false,
							  false, false, info_reply_is_good},
		[MESSAGE_LISTED -
			MESSAGE_WELCOME] = {LISTED_SIZE(0), false, true, false, listed_is_good},
		[MESSAGE_HANDLED -
			MESSAGE_WELCOME] = {HANDLED_SIZE(0), false, true, false, handled_is_good},
		[MESSAGE_BELLS - MESSAGE_WELCOME] = {sizeof(struct message_bells), false, false,
						     false, bells_is_good},
		[MESSAGE_JOINED - MESSAGE_WELCOME] = {sizeof(struct message_joined), false, false,
						      false, joined_is_good},
		[MESSAGE_STATED - MESSAGE_WELCOME] = {sizeof(struct message_stated), false, false,
						      false, stated_is_good},
		[MESSAGE_OFFER - MESSAGE_WELCOME] = {sizeof(struct message_offer), false, false,
						     false, offer_is_good},
		[MESSAGE_SESSIONED - MESSAGE_WELCOME] = {SESSIONED_SIZE(0), false, true, false,
							 sessioned_is_good},
	};

	if (type >= MESSAGE_HELLO && type < N_ELEMENTS(requests))
		return &requests[type];

	if (type >= MESSAGE_WELCOME && type - MESSAGE_WELCOME < N_ELEMENTS(replies))
		return &replies[type - MESSAGE_WELCOME];

	return NULL;
}

void message_init(union message *message, enum message_type type, uint64_t request_id)
{
	const struct format *format = format_of(type);

	assert(format);

	memset(message, 0, format->size);
	message->head.magic = PROTOCOL_MAGIC;
	message->head.type = (uint16_t)type;
	message->head.size = format->size;
	message->head.request_id = request_id;
}

static int message_check(const union message *message, size_t size, bool is_request)
{
	const struct message_head *head = &message->head;
	const struct format *format;

	if (size < sizeof(*head) || size > PROTOCOL_SIZE_MAX || head->size != size)
		return IPC_EPROTO;

	if (head->magic != PROTOCOL_MAGIC || head->reserved != 0)
		return IPC_EPROTO;

	format = format_of(head->type);
	if (!format || format->is_request != is_request)
		return IPC_EPROTO;

	if (format->is_variable ? size < format->size : size != format->size)
		return IPC_EPROTO;

	if (head->result > 0 || head->result < RESULT_MIN ||
	    (head->result < 0 && !format->may_fail))
		return IPC_EPROTO;

	return format->is_good(message) ? 0 : IPC_EPROTO;
}

int message_check_request(const union message *message, size_t size)
{
	return message_check(message, size, true);
}

int message_check_reply(const union message *message, size_t size)
{
	return message_check(message, size, false);
}
