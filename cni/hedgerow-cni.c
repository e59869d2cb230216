// SPDX-License-Identifier: Apache-2.0
/* The CNI plug-in that engines start: hands environment and stdin to the agent's socket, and prints its answer.
 *
 * `POST /cni`, HTTP/1.0; the body is the CNI_* variables, each ended by NUL, an empty one, then stdin. Status 200 is
 * exit 0, any other exit 1; the answer's body is stdout. All checks are the agent's.
 *
 * The socket is held by somebody else, so with the agent away connecting works and the answer waits. A request that
 * breaks off is sent again, whole: the agent may be asked twice. VERSION is answered here, since engines ask it of every
 * network at every command. A DEL that nobody answers is queued in a file and succeeds, since engines forget a container
 * whose DEL failed. `Hedgerow-Deadline` (ms, CLOCK_MONOTONIC) tells the agent when this process has given up: an ADD
 * that it finds in its backlog after that belongs to a container that the engine has undone long since.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* Tests build with a directory and waits of their own. */
#ifndef RUN_DIRECTORY
#define RUN_DIRECTORY "/run/hedgerow"
#endif
#ifndef WAIT_MS
#define WAIT_MS 30000 /* ADD and CHECK: an agent's restart takes a second or two */
#endif
#ifndef DELETE_WAIT_MS
#define DELETE_WAIT_MS 5000
#endif

#define SOCKET RUN_DIRECTORY "/agent.sock"
#define QUEUE RUN_DIRECTORY "/cni-queue"
#define QUEUE_LIMIT 1024 /* files; a host runs fewer containers */
#define PAUSE_MS 50
#define LIMIT (1 << 20) /* bytes; a conflist with its previous result is a few kB */
#define ABOUT "Hedgerow's CNI plug-in; started by container engines, CNI versions 0.1.0 to 1.0.0\n"
#define VERSIONS "{\"cniVersion\":\"1.0.0\",\"supportedVersions\":" \
	"[\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\"]}"

enum { TRY_AGAIN = 11, IO_FAILURE = 5 }; /* CNI 1.0.0, error codes */

static char body[LIMIT], answer[LIMIT + 1];
static size_t body_length, answer_length;

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int fail(int code, const char *message)
{
	printf("{\"cniVersion\":\"1.0.0\",\"code\":%d,\"msg\":\"%s\"}\n", code, message);
	return 1;
}

static bool append(const char *data, size_t length)
{
	if (length > sizeof(body) - body_length)
		return false;
	memcpy(body + body_length, data, length);
	body_length += length;
	return true;
}

/* False: too long, or stdin cannot be read. */
static bool make_body(void)
{
	static const char *const names[] = { "CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS" };
	char buffer[4096];
	ssize_t got;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		const char *value = getenv(names[i]);

		if (value && !(append(names[i], strlen(names[i])) && append("=", 1) && append(value, strlen(value) + 1)))
			return false;
	}
	if (!append("", 1))
		return false;
	while ((got = read(STDIN_FILENO, buffer, sizeof(buffer))) != 0) {
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 || !append(buffer, got))
			return false;
	}
	return true;
}

static bool wait_for(int fd, short events, int64_t end)
{
	struct pollfd row = { .fd = fd, .events = events };
	int64_t left = end - now_ms();

	return left > 0 && poll(&row, 1, left) == 1;
}

static bool send_all(int fd, const char *data, size_t length, int64_t end)
{
	while (length) {
		ssize_t sent = send(fd, data, length, MSG_NOSIGNAL);

		if (sent < 0 && errno == EAGAIN && wait_for(fd, POLLOUT, end))
			continue;
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return false;
		data += sent;
		length -= sent;
	}
	return true;
}

/* Where the body begins, 0 while the head is not whole. `*length` is what the head promises, -1 if it does not say. */
static size_t read_head(long *length)
{
	char *end = memmem(answer, answer_length, "\r\n\r\n", 4), *line = answer, *next;

	*length = -1;
	if (!end)
		return 0;
	for (; line < end; line = next + 2) {
		next = memmem(line, end + 2 - line, "\r\n", 2);
		if (!strncasecmp(line, "content-length:", strlen("content-length:")))
			*length = strtol(line + strlen("content-length:"), NULL, 10);
	}
	return end + 4 - answer;
}

/* Reads an answer and returns where its body begins; 0: there is no whole answer, ask again. */
static size_t receive(int fd, int64_t end)
{
	size_t start;
	long length;

	for (answer_length = 0; answer_length < LIMIT;) {
		ssize_t got = read(fd, answer + answer_length, LIMIT - answer_length);

		if (got < 0 && errno == EAGAIN && wait_for(fd, POLLIN, end))
			continue;
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return 0;
		answer_length += got;
		answer[answer_length] = 0;
		start = read_head(&length);
		if (start && length >= 0 && answer_length - start >= (size_t)length) {
			answer_length = start + length;
			return start;
		}
		if (!got)
			return length < 0 ? start : 0;
	}
	return 0;
}

static size_t ask(int64_t end)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = SOCKET };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	char head[160];
	size_t start = 0;
	int length = snprintf(head, sizeof(head),
			      "POST /cni HTTP/1.0\r\nHost: hedgerow\r\nContent-Length: %zu\r\nHedgerow-Deadline: %lld\r\n\r\n",
			      body_length, (long long)end);

	if (fd < 0)
		return 0;
	if (!connect(fd, (struct sockaddr *)&address, sizeof(address)) && send_all(fd, head, length, end) &&
	    send_all(fd, body, body_length, end))
		start = receive(fd, end);
	close(fd);
	return start;
}

static bool queue_is_full(void)
{
	DIR *directory = opendir(QUEUE);
	int count = 0;

	if (!directory)
		return true;
	while (readdir(directory))
		count++;
	closedir(directory);
	return count >= QUEUE_LIMIT + 2;
}

/* The agent works the queue off when it starts and before any ADD. The name is made of the content, so one request
 * lies there once; a file without a name until it is whole leaves nothing behind if this process ends here.
 */
static bool queue_request(void)
{
	char nameless[40], name[sizeof(QUEUE) + 32];
	uint64_t hash = 14695981039346656037ull; /* FNV-1a */
	bool done = false;
	int fd;

	for (size_t i = 0; i < body_length; i++)
		hash = (hash ^ (unsigned char)body[i]) * 1099511628211ull;
	mkdir(RUN_DIRECTORY, 0700);
	mkdir(QUEUE, 0700);
	if (queue_is_full())
		return false;
	fd = open(QUEUE, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0)
		return false;
	snprintf(nameless, sizeof(nameless), "/proc/self/fd/%d", fd);
	snprintf(name, sizeof(name), QUEUE "/%016llx.delete", (unsigned long long)hash);
	if (write(fd, body, body_length) == (ssize_t)body_length)
		done = !linkat(AT_FDCWD, nameless, AT_FDCWD, name, AT_SYMLINK_FOLLOW) || errno == EEXIST;
	close(fd);
	return done;
}

int main(void)
{
	const char *command = getenv("CNI_COMMAND");
	bool is_delete = command && !strcmp(command, "DEL");
	int64_t end = now_ms() + (is_delete ? DELETE_WAIT_MS : WAIT_MS);
	size_t start;

	if (!command) {
		fputs(ABOUT, stderr);
		return 0;
	}
	if (!strcmp(command, "VERSION")) {
		puts(VERSIONS);
		return 0;
	}
	if (!make_body())
		return fail(IO_FAILURE, "the configuration on stdin cannot be read, or is over 1 MiB");
	do {
		start = ask(end);
		if (start) {
			fwrite(answer + start, 1, answer_length - start, stdout);
			return fflush(stdout) || strncmp(answer, "HTTP/1.", 7) || strncmp(answer + 8, " 200", 4);
		}
		poll(NULL, 0, PAUSE_MS);
	} while (now_ms() < end);
	if (is_delete && queue_request())
		return 0;
	return fail(TRY_AGAIN, "the Hedgerow agent does not answer on " SOCKET);
}
