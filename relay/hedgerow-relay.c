// SPDX-License-Identifier: Apache-2.0
/* Stands between dockerd and the agent, so that a call survives an agent that dies at any moment.
 *
 * dockerd repeats a call that broke off without its body, and what a dead agent had accepted but not read is gone with
 * its sockets. So this process, which does nothing else and keeps nothing on disk, takes each call whole, names it
 * (`Hedgerow-Call`, a draw of this process and a number: a repeated call is known for the same), and sends it until an
 * agent answers. The listener is file descriptor 3 (sd_listen_fds(3)); the agent's socket is held by somebody else too.
 *
 * One connection of dockerd's carries one call at a time: READING it, SENDING it, WAITING for the answer (whole, before
 * dockerd sees any of it), ANSWERING, and READING again. RESTING is the pause before the call is sent once more. A call
 * whose connection dockerd has closed is dropped: the agent compares its endpoints with Docker's later.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef AGENT_SOCKET /* tests build with one of their own */
#define AGENT_SOCKET "/run/hedgerow/calls.sock"
#endif

#define LISTENER 3
#define CONNECTIONS 400 /* two descriptors each: below the usual limit of 1024; more wait in the listener's backlog */
#define HEAD_LIMIT (16 << 10)
#define BODY_LIMIT (1 << 20)
#define NAME_ROOM 64
#define PAUSE_MS 50

enum state { READING, SENDING, WAITING, ANSWERING, RESTING };

struct buffer {
	char *at;
	size_t length, room;
};

struct connection {
	enum state state;
	int client, agent;	/* descriptors; agent is -1 but when SENDING or WAITING */
	struct buffer call;	/* what dockerd sent; when it is whole, with its name in it */
	struct buffer answer;
	size_t sent;		/* of the call, or of the answer */
	int64_t rest_until;
	bool last;		/* close when answered: what dockerd sent was no call */
};

static struct connection connections[CONNECTIONS];
static size_t count;
static uint64_t draw, number;

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static bool make_room(struct buffer *buffer, size_t more)
{
	size_t room = buffer->room ? buffer->room : 4096;
	char *at;

	while (room < buffer->length + more)
		room *= 2;
	if (room == buffer->room)
		return true;
	at = realloc(buffer->at, room);
	if (!at)
		return false;
	buffer->at = at;
	buffer->room = room;
	return true;
}

static void forget(struct buffer *buffer)
{
	free(buffer->at);
	*buffer = (struct buffer){ 0 };
}

/* The size of an HTTP message's head with its blank line; 0 while that has not come. `*body` is what it says of the
 * body's length: -1 nothing, -2 nonsense or chunks.
 */
static size_t read_head(const struct buffer *message, long *body)
{
	static const char name[] = "content-length:";
	const char *end = message->length ? memmem(message->at, message->length, "\r\n\r\n", 4) : NULL;
	const char *line, *next;

	*body = -1;
	if (!end)
		return 0;
	for (line = message->at; line < end; line = next + 2) {
		size_t digits;

		next = memmem(line, end + 2 - line, "\r\n", 2);
		if (!strncasecmp(line, "transfer-encoding:", 18))
			*body = -2;
		if (*body == -2 || strncasecmp(line, name, sizeof(name) - 1))
			continue;
		line += sizeof(name) - 1;
		line += strspn(line, " \t");
		digits = strspn(line, "0123456789");
		*body = digits && digits < 10 && line + digits + strspn(line + digits, " \t") == next ? atol(line) : -2;
	}
	return end + 4 - message->at;
}

static void answer_with(struct connection *c, const char *status, const char *text)
{
	int length;

	c->answer.length = c->sent = 0;
	c->state = ANSWERING;
	c->last = true;
	if (!make_room(&c->answer, 512))
		return; /* nothing to send: the connection ends */
	length = snprintf(c->answer.at, c->answer.room,
			  "HTTP/1.1 %s\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n"
			  "{\"Err\":\"%s\",\"Error\":\"%s\"}", status, 2 * strlen(text) + strlen("{\"Err\":\"\",\"Error\":\"\"}"),
			  text, text);
	c->answer.length = length;
}

static void rest(struct connection *c)
{
	if (c->agent >= 0)
		close(c->agent);
	c->agent = -1;
	c->answer.length = 0;
	c->state = RESTING;
	c->rest_until = now_ms() + PAUSE_MS;
}

static void send_to_agent(struct connection *c)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = AGENT_SOCKET };

	c->agent = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->agent < 0 || connect(c->agent, (struct sockaddr *)&address, sizeof(address))) {
		rest(c);
		return;
	}
	c->sent = 0;
	c->state = SENDING;
}

/* With the blank line that ends the head moved behind the call's name. */
static bool name_call(struct connection *c, size_t head)
{
	char name[NAME_ROOM];
	size_t length = snprintf(name, sizeof(name), "Hedgerow-Call: %016llx-%llu\r\n", (unsigned long long)draw,
				 (unsigned long long)++number);

	if (!make_room(&c->call, length))
		return false;
	memmove(c->call.at + head - 2 + length, c->call.at + head - 2, c->call.length - (head - 2));
	memcpy(c->call.at + head - 2, name, length);
	c->call.length += length;
	return true;
}

static void take_call(struct connection *c)
{
	long body;
	size_t head = read_head(&c->call, &body), whole = head + (body > 0 ? body : 0);

	if (!head && c->call.length <= HEAD_LIMIT)
		return;
	if (!head || head > HEAD_LIMIT)
		answer_with(c, "431 Request Header Fields Too Large", "a call's head is over 16 KiB");
	else if (body == -2)
		answer_with(c, "411 Length Required", "a call without a Content-Length");
	else if (body > BODY_LIMIT)
		answer_with(c, "413 Content Too Large", "a call's body is over 1 MiB");
	else if (c->call.length > whole)
		answer_with(c, "400 Bad Request", "more than one call at a time");
	else if (c->call.length < whole)
		return;
	else if (name_call(c, head))
		send_to_agent(c);
	else
		answer_with(c, "503 Service Unavailable", "hedgerow-relay is out of memory");
}

/* Returns what read() returns; -1 with EAGAIN: nothing there yet. */
static ssize_t read_into(int fd, struct buffer *buffer)
{
	ssize_t got;

	if (!make_room(buffer, 4096)) {
		errno = ENOMEM;
		return -1;
	}
	got = read(fd, buffer->at + buffer->length, buffer->room - buffer->length);
	if (got > 0)
		buffer->length += got;
	if (got < 0 && errno == EINTR)
		errno = EAGAIN;
	return got;
}

/* Sends what is left of `from`, from `c->sent` on; false: the other side is gone. */
static bool send_more(int fd, const struct buffer *from, struct connection *c)
{
	while (c->sent < from->length) {
		ssize_t sent = send(fd, from->at + c->sent, from->length - c->sent, MSG_NOSIGNAL);

		if (sent < 0)
			return errno == EAGAIN || errno == EINTR;
		c->sent += sent;
	}
	return true;
}

static void take_answer(struct connection *c)
{
	ssize_t got = read_into(c->agent, &c->answer);
	long body;
	size_t head, whole;

	if (got < 0 && errno == EAGAIN)
		return;
	head = read_head(&c->answer, &body);
	whole = head + (body > 0 ? body : 0);
	if (head ? body < 0 || body > BODY_LIMIT || c->answer.length > whole : c->answer.length > HEAD_LIMIT) {
		answer_with(c, "502 Bad Gateway", "the agent's answer cannot be read");
	} else if (head && c->answer.length == whole) {
		c->state = ANSWERING;
		c->sent = 0;
	} else if (got <= 0) { /* the agent died over it */
		rest(c);
	}
	if (c->state == ANSWERING) {
		close(c->agent);
		c->agent = -1;
	}
}

/* Does what can be done without waiting; false: the connection is over. */
static bool advance(struct connection *c, short client_events, short agent_events)
{
	if (client_events & (POLLHUP | POLLERR))
		return false;
	if (c->state == READING && client_events) {
		ssize_t got = read_into(c->client, &c->call);

		if (got == 0 || (got < 0 && errno != EAGAIN))
			return false;
		take_call(c);
	}
	if (c->state == RESTING && now_ms() >= c->rest_until)
		send_to_agent(c);
	/* An agent that stops reading may have answered all the same: WAITING finds out. */
	if (c->state == SENDING && (!send_more(c->agent, &c->call, c) || c->sent == c->call.length))
		c->state = WAITING;
	else if (c->state == WAITING && agent_events)
		take_answer(c);
	if (c->state == ANSWERING) {
		if (!send_more(c->client, &c->answer, c))
			return false;
		if (c->sent == c->answer.length) {
			forget(&c->call);
			forget(&c->answer);
			c->state = READING;
			return !c->last;
		}
	}
	return true;
}

static void drop(struct connection *c)
{
	if (c->agent >= 0)
		close(c->agent);
	close(c->client);
	forget(&c->call);
	forget(&c->answer);
	*c = connections[--count];
}

/* False: none can be had now, for a reason that polling does not tell. */
static bool accept_all(void)
{
	while (count < CONNECTIONS) {
		int fd = accept4(LISTENER, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0)
			return errno == EAGAIN || errno == EINTR || errno == ECONNABORTED;
		connections[count++] = (struct connection){ .client = fd, .agent = -1 };
	}
	return true;
}

/* Fills in what to wait for: the listener, then client and agent of each connection. Returns the wait in ms. */
static int events_wanted(struct pollfd rows[], bool deaf)
{
	static const short of_client[] = { [READING] = POLLIN, [ANSWERING] = POLLOUT, [RESTING] = 0 };
	static const short of_agent[] = { [SENDING] = POLLOUT, [WAITING] = POLLIN, [RESTING] = 0 };
	int wait = deaf ? PAUSE_MS : -1;

	rows[0] = (struct pollfd){ .fd = deaf || count == CONNECTIONS ? -1 : LISTENER, .events = POLLIN };
	for (size_t i = 0; i < count; i++) {
		struct connection *c = &connections[i];

		rows[1 + 2 * i] = (struct pollfd){ .fd = c->client, .events = of_client[c->state] };
		rows[2 + 2 * i] = (struct pollfd){ .fd = c->agent, .events = of_agent[c->state] };
		if (c->state == RESTING)
			wait = PAUSE_MS;
	}
	return wait;
}

int main(void)
{
	static struct pollfd rows[1 + 2 * CONNECTIONS];
	int listens = 0, flags = fcntl(LISTENER, F_GETFL);
	socklen_t length = sizeof(listens);
	bool deaf = false;

	if (getsockopt(LISTENER, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) || !listens) {
		fputs("hedgerow-relay: descriptor 3 is no listening socket: start it by hedgerow-relay.socket\n", stderr);
		return 2;
	}
	fcntl(LISTENER, F_SETFL, flags | O_NONBLOCK);
	if (getrandom(&draw, sizeof(draw), 0) != sizeof(draw))
		return 1;
	for (;;) {
		int wait = events_wanted(rows, deaf);

		if (poll(rows, 1 + 2 * count, wait) < 0 && errno != EINTR && errno != ENOMEM)
			return 1;
		/* From the last: the place of one that ends is taken by one that has been looked at. */
		for (size_t i = count; i-- > 0;)
			if (!advance(&connections[i], rows[1 + 2 * i].revents, rows[2 + 2 * i].revents))
				drop(&connections[i]);
		deaf = !accept_all();
	}
}
