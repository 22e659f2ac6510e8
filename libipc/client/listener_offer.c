/* SPDX-License-Identifier: MIT */

/*
 * What is offered to listeners: how it comes and where it lies until it is accepted.
 */

#include "libipc/client/listener.h"

#include <stdlib.h>

#include <ipc/error.h>

#include "libipc/client/opened.h"

/* ---- one offer ---- */

void listener_offer_free(struct listener_offer *offer)
{
	for (unsigned i = 0; offer && i < offer->n_fds; ++i)
		(void)fd_close(offer->fds[i]);
	free(offer);
}

void listener_offer_refuse(ipc_client *client, const struct listener_offer *offer)
{
	opened_refuse(&offer->message.session, client);
}

/* Takes the descriptors.  NULL: no memory, and the broker has been told. */
static struct listener_offer *offer_new(ipc_client *client, const struct message_offer *message,
					int *fds, unsigned n_fds)
{
	struct listener_offer *offer;

	offer = malloc(sizeof(*offer));
	if (!offer) {
		opened_refuse(&message->session, client);
		return NULL;
	}

	offer->next = NULL;
	offer->message = *message;
	offer->n_fds = n_fds;
	for (unsigned i = 0; i < n_fds; ++i) {
		offer->fds[i] = fds[i];
		fds[i] = -1;
	}
	return offer;
}

static void offer_drop(ipc_client *client, struct listener_offer *offer)
{
	if (offer)
		listener_offer_refuse(client, offer);
	listener_offer_free(offer);
}

/* ---- those that come ---- */

static ipc_listener *listener_find(const ipc_client *client, uint64_t id)
{
	ipc_listener *listener = client->listeners;

	while (listener && listener->endpoint.id != id)
		listener = listener->next;
	return listener;
}

/*
 * The broker has one offer out at a time, so the one before is void: who wanted to connect has
 * given up, or a worker died in between.  Ids grow: one that is not newer was said twice.
 */
static void listener_take(ipc_listener *listener, struct listener_offer *offer)
{
	struct listener_offer *old = listener->offer;
	uint64_t id = offer->message.session.handle_id;

	if (id <= listener->newest_id) {
		listener_offer_free(offer);
		return;
	}

	listener->newest_id = id;
	listener->offer = offer;
	offer_drop(listener->endpoint.client, old);
}

static bool is_early(const ipc_client *client, uint64_t handle_id)
{
	const struct listener_offer *offer = client->early_offers;

	while (offer && offer->message.session.handle_id != handle_id)
		offer = offer->next;
	return offer;
}

static void client_take_early(ipc_client *client, const struct message_offer *message, int *fds,
			      unsigned n_fds)
{
	struct listener_offer *offer;

	if (is_early(client, message->session.handle_id))
		return;

	offer = offer_new(client, message, fds, n_fds);
	if (offer) {
		offer->next = client->early_offers;
		client->early_offers = offer;
	}
}

static void listener_hear_offer(ipc_client *client, const struct message_offer *message, int *fds,
				unsigned n_fds)
{
	ipc_listener *listener = listener_find(client, message->listener_id);
	struct listener_offer *offer;

	if (listener) {
		offer = offer_new(client, message, fds, n_fds);
		if (offer)
			listener_take(listener, offer);
	} else if (client->n_listeners_opening > 0) {
		client_take_early(client, message, fds, n_fds);
	} else {
		opened_refuse(&message->session, client);
	}
}

void listener_hear(ipc_client *client, const struct message_offer *message, int *fds,
		   unsigned n_fds)
{
	pthread_mutex_lock(&client->listeners_mutex);
	listener_hear_offer(client, message, fds, n_fds);
	pthread_mutex_unlock(&client->listeners_mutex);

	for (unsigned i = 0; i < n_fds; ++i)
		fds[i] = fd_close(fds[i]);
}

/* ---- open and close ---- */

void listener_open_begin(ipc_client *client)
{
	pthread_mutex_lock(&client->listeners_mutex);
	++client->n_listeners_opening;
	pthread_mutex_unlock(&client->listeners_mutex);
}

/* Those of this listener, or all that are nobody's. */
static void client_sort_early(ipc_client *client, ipc_listener *listener)
{
	struct listener_offer **link = &client->early_offers, *offer;

	while ((offer = *link)) {
		bool is_its = listener && offer->message.listener_id == listener->endpoint.id;

		if (!is_its && client->n_listeners_opening > 0) {
			link = &offer->next;
			continue;
		}

		*link = offer->next;
		if (is_its)
			listener_take(listener, offer);
		else
			offer_drop(client, offer);
	}
}

void listener_open_end(ipc_client *client, ipc_listener *listener)
{
	pthread_mutex_lock(&client->listeners_mutex);
	--client->n_listeners_opening;
	if (listener) {
		listener->next = client->listeners;
		client->listeners = listener;
	}
	client_sort_early(client, listener);
	pthread_mutex_unlock(&client->listeners_mutex);
}

void listener_forget(struct endpoint *endpoint)
{
	ipc_listener *listener = (ipc_listener *)endpoint, **link;
	ipc_client *client = endpoint->client;

	pthread_mutex_lock(&client->listeners_mutex);
	for (link = &client->listeners; *link != listener; link = &(*link)->next)
		;
	*link = listener->next;

	listener->is_closing = true;
	offer_drop(client, listener->offer);
	listener->offer = NULL;

	/* A thread is accepting: the last one tells (listener_offer_end()). */
	endpoint->tells_later = listener->n_accepting > 0;
	pthread_mutex_unlock(&client->listeners_mutex);
}

/* ---- those that are accepted ---- */

void listener_catch_up(ipc_listener *listener)
{
	ipc_client *client = listener->endpoint.client;

	connection_catch_up(&client->connection, &client->table->attention[client->slot].n_joined);
}

/* One whose handle has ended meanwhile is not worth a look, if that can be seen here. */
static bool offer_is_void(const ipc_client *client, const struct listener_offer *offer)
{
	return offer->message.session.owner_uid == client->uid &&
	       !liveness_handle_is(client->table, offer->message.session.handle_id);
}

bool listener_has_offer(ipc_listener *listener)
{
	ipc_client *client = listener->endpoint.client;
	bool has_offer;

	pthread_mutex_lock(&client->listeners_mutex);
	has_offer = listener->offer && !offer_is_void(client, listener->offer);
	pthread_mutex_unlock(&client->listeners_mutex);
	return has_offer;
}

struct listener_offer *listener_offer_begin(ipc_listener *listener)
{
	ipc_client *client = listener->endpoint.client;
	struct listener_offer *offer;

	pthread_mutex_lock(&client->listeners_mutex);
	offer = listener->offer;
	listener->offer = NULL;
	listener->n_accepting += offer != NULL;
	pthread_mutex_unlock(&client->listeners_mutex);
	return offer;
}

void listener_offer_end(ipc_listener *listener, struct listener_offer *offer)
{
	ipc_client *client = listener->endpoint.client;
	bool tells;

	listener_offer_free(offer);

	pthread_mutex_lock(&client->listeners_mutex);
	tells = --listener->n_accepting == 0 && listener->is_closing;
	pthread_mutex_unlock(&client->listeners_mutex);

	if (tells)
		endpoint_tell_closed(&listener->endpoint);
}
