// SPDX-License-Identifier: Apache-2.0
/* The CNI shim's reading of what an agent answers, and its taking of environment and stdin, in one process.
 *
 * An input is an answer; a byte 0xfe cuts it into the pieces in which it comes. The same bytes are its stdin, too.
 */
#include "evolve.h"

#define main shim_main
#define WAIT_MS 1000
#include "../../cni/hedgerow-cni.c"
#undef main

static const char *const words[] = { "HTTP/1.1 ", "200 OK", "\r\n", "\r\n\r\n", "content-length:", "Content-Length: 7",
				     "0", "-1", "99999999999999999999", " \t", "\xfe", "x", "\r", "\n", "+5", "0x10" };
static const size_t word_count = sizeof(words) / sizeof(*words);

#define TEXT(text) { sizeof(text) - 1, (uint8_t *)(text) }
static const struct input seeds[] = {
	TEXT("HTTP/1.1 200 OK\r\ncontent-length: 8\r\ncontent-type: application/json\r\n\r\n{\"ips\":0}"),
	TEXT("HTTP/1.1 500 Internal\r\ncontent-\xfelength: 2\r\n\r\n{\xfe}"),
	TEXT("HTTP/1.0 200 OK\r\n\r\nto the end"),
};
static const size_t seed_count = sizeof(seeds) / sizeof(*seeds);

/* One piece of the answer waits in the socket at each read, as when it comes slowly. */
static size_t answered(const uint8_t *data, size_t length)
{
	int pair[2];
	size_t start;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair))
		abort();
	while (length) {
		const uint8_t *cut = memchr(data, 0xfe, length);
		size_t piece = cut ? (size_t)(cut - data) : length;

		if (piece && send(pair[1], data, piece, MSG_NOSIGNAL) < 0)
			break;
		piece += cut != NULL;
		data += piece;
		length -= piece;
	}
	close(pair[1]);
	start = receive(pair[0], now_ms() + WAIT_MS);
	close(pair[0]);
	return start;
}

static void try(const uint8_t *data, size_t length)
{
	int pipes[2];
	size_t start = answered(data, length);

	if (start > answer_length || answer_length > LIMIT)
		abort();
	if (pipe(pipes) || dup2(pipes[0], STDIN_FILENO) < 0)
		abort();
	if (length > 4096)
		length = 4096; /* less than a pipe holds */
	if (write(pipes[1], data, length) != (ssize_t)length)
		abort();
	close(pipes[0]);
	close(pipes[1]);
	body_length = 0;
	if (!make_body() || body_length > LIMIT || memcmp(body + body_length - length, data, length))
		abort();
	body_length = LIMIT - length / 2; /* as after a long environment */
	if (length && make_body() && body_length > LIMIT)
		abort();
}
