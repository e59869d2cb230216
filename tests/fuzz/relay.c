// SPDX-License-Identifier: Apache-2.0
/* The relay's connections, driven step by step in one process: dockerd on one side and an agent on the other say what
 * the input says.
 *
 * An input is a script. Its bytes go to the relay, from dockerd or (between 0xfb and 0xfc) from the agent; 0xfd lets the
 * relay look, 0xfe ends the agent's connection, 0xff dockerd's. Whatever they do, the relay's state stays sound.
 */
#include "evolve.h"

#include <sys/socket.h>

#define main relay_main
#define connect connected
static int connected(int fd, const struct sockaddr *address, socklen_t length);
#include "../../relay/hedgerow-relay.c"
#undef connect
#undef main

static const char *const words[] = { "POST /a HTTP/1.1\r\n", "HTTP/1.1 200 OK\r\n", "\r\n", "\r\n\r\n", "Content-Length: 2",
				     "content-length:", "transfer-encoding: chunked\r\n", "0", "-1", "999999999", "1048577",
				     " \t", "{}", "\xfb", "\xfc", "\xfd", "\xfe", "\xff", "\xfd\xfd\xfd" };
static const size_t word_count = sizeof(words) / sizeof(*words);

#define TEXT(text) { sizeof(text) - 1, (uint8_t *)(text) }
static const struct input seeds[] = {
	TEXT("POST /NetworkDriver.Join HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}\xfd\xfd"
	     "\xfbHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}\xfc\xfd\xfd"),
	TEXT("POST /a HTTP/1.1\r\nContent-Length: 0\r\n\r\n\xfd\xfd\xfe\xfd\xfd\xfd\xfbHTTP/1.1 200 OK\r\n\r\n\xfc\xfd"),
	TEXT("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\xfd"),
};
static const size_t seed_count = sizeof(seeds) / sizeof(*seeds);

static int agent_side = -1;

static void hang_up(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static int connected(int fd, const struct sockaddr *address, socklen_t length)
{
	int pair[2];

	(void)address, (void)length;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) || dup2(pair[0], fd) < 0)
		abort();
	fcntl(fd, F_SETFL, O_NONBLOCK);
	close(pair[0]);
	hang_up(&agent_side);
	agent_side = pair[1];
	return 0;
}

static void check(const struct connection *c)
{
	bool talks = c->state == SENDING || c->state == WAITING;

	if (talks != (c->agent >= 0) || c->call.length > c->call.room || c->answer.length > c->answer.room)
		abort();
	if (c->call.length > HEAD_LIMIT + BODY_LIMIT + 8192 || c->answer.length > HEAD_LIMIT + BODY_LIMIT + 8192)
		abort();
	if ((c->state == SENDING && c->sent > c->call.length) || (c->state == ANSWERING && c->sent > c->answer.length))
		abort();
}

/* As main() does it: what poll() tells, one look at the connection. False: it is over. */
static bool look(int dockerd)
{
	struct pollfd rows[1 + 2 * CONNECTIONS];
	char sink[4096];
	bool goes_on;

	events_wanted(rows, false);
	poll(rows + 1, 2, 0);
	connections[0].rest_until = 0; /* no clock here */
	goes_on = advance(&connections[0], rows[1].revents, rows[2].revents);
	check(&connections[0]);
	while (recv(dockerd, sink, sizeof(sink), MSG_DONTWAIT) > 0)
		;
	while (agent_side >= 0 && recv(agent_side, sink, sizeof(sink), MSG_DONTWAIT) > 0)
		;
	return goes_on;
}

static void try(const uint8_t *data, size_t length)
{
	int pair[2], *to;
	bool goes_on = true;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair))
		abort();
	to = &pair[1];
	count = 1;
	connections[0] = (struct connection){ .client = pair[0], .agent = -1 };
	for (size_t i = 0; i < length && goes_on; i++) {
		size_t piece = 0;

		while (i + piece < length && data[i + piece] < 0xfb)
			piece++;
		if (piece) {
			if (*to >= 0)
				send(*to, data + i, piece, MSG_NOSIGNAL);
			i += piece - 1;
			continue;
		}
		switch (data[i]) {
		case 0xfb:
			to = &agent_side;
			break;
		case 0xfc:
			to = &pair[1];
			break;
		case 0xfe:
			hang_up(&agent_side);
			goes_on = look(pair[1]);
			break;
		case 0xff:
			hang_up(&pair[1]);
			goes_on = look(pair[1]);
			break;
		default:
			goes_on = look(pair[1]);
		}
	}
	drop(&connections[0]);
	hang_up(&agent_side);
	hang_up(&pair[1]);
}
