/* SPDX-License-Identifier: Apache-2.0 */
/* Small network measurements between two namespaces.
 *
 *   netbench server NETNS CPU PORT                  says "ready" when it listens, serves until it is killed
 *   netbench rr|crr|stream|udprr NETNS CPU ADDRESS PORT SECONDS
 *
 * Steps into the network namespace NETNS (a path) and stays on one CPU, before anything else; goes before other
 * processes where it may (nice -15).
 *
 * rr      1-byte TCP round trips on one connection
 * crr     connect, 1-byte round trip, close (with RST, so that no port is left in TIME_WAIT)
 * stream  TCP throughput of one connection, 128 KiB writes
 * udprr   1-byte UDP round trips
 *
 * Prints one JSON object: rate (a second; of stream Gbit/s) in the median slice of 5 ms, which others at work on this
 * machine for a moment do not spoil; mean, the rate of the whole time, of stream by what the receiver has read; p50 and
 * p99 (microseconds; of stream: a write); busy (cores, of the whole machine, so what others do counts), steal (cores)
 * and retransmits (segments, of stream).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (128 * 1024)
#define BUCKETS 20000 /* of 0.1 microseconds; the last takes the rest */
#define SLICE_NS 5000000
#define SLICES 12000

static uint64_t received;

static _Noreturn void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void settle(const char *netns, int cpu)
{
	cpu_set_t one;
	int fd = open(netns, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || setns(fd, CLONE_NEWNET))
		fail(netns);
	close(fd);
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		fail("sched_setaffinity");
	setpriority(PRIO_PROCESS, 0, -15); /* a user without the right measures all the same */
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* ---- server */

static void *serve_tcp(void *argument)
{
	int fd = (long)argument, one = 1;
	char *buffer = malloc(CHUNK), mode;
	uint64_t count;
	ssize_t n;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (buffer && read(fd, &mode, 1) == 1) {
		if (mode == 'R') {
			do
				n = write(fd, &mode, 1);
			while (n == 1 && read(fd, &mode, 1) == 1);
		} else if (mode == 'S') {
			while ((n = read(fd, buffer, CHUNK)) > 0)
				__atomic_add_fetch(&received, n, __ATOMIC_RELAXED);
		} else { /* 'Q': how much has arrived; begins anew */
			count = __atomic_exchange_n(&received, 0, __ATOMIC_RELAXED);
			if (write(fd, &count, sizeof(count)) < 0)
				perror("write");
		}
	}
	close(fd);
	free(buffer);
	return NULL;
}

static void *serve_udp(void *argument)
{
	int fd = (long)argument;
	struct sockaddr_in6 from;
	char byte;

	for (;;) {
		socklen_t length = sizeof(from);

		if (recvfrom(fd, &byte, 1, 0, (void *)&from, &length) == 1)
			sendto(fd, &byte, 1, 0, (void *)&from, length);
	}
	return NULL;
}

static _Noreturn void serve(int port)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int tcp = socket(AF_INET6, SOCK_STREAM, 0), udp = socket(AF_INET6, SOCK_DGRAM, 0), one = 1, zero = 0;
	pthread_t thread;

	setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(tcp, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	setsockopt(udp, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (bind(tcp, (void *)&any, sizeof(any)) || bind(udp, (void *)&any, sizeof(any)) || listen(tcp, 512))
		fail("bind");
	if (pthread_create(&thread, NULL, serve_udp, (void *)(long)udp))
		fail("pthread_create");
	puts("ready");
	fflush(stdout);
	for (;;) {
		int fd = accept(tcp, NULL, NULL);
		char mode;

		if (fd < 0)
			continue;
		if (recv(fd, &mode, 1, MSG_PEEK) == 1 && mode == 'C') { /* no thread for one round trip */
			if (read(fd, &mode, 1) != 1 || write(fd, &mode, 1) != 1)
				perror("connection");
			close(fd);
		} else if (pthread_create(&thread, NULL, serve_tcp, (void *)(long)fd)) {
			close(fd);
		} else {
			pthread_detach(thread);
		}
	}
}

/* ---- client */

static struct addrinfo *target;

static int dial(int type)
{
	int fd = socket(target->ai_family, type, 0), one = 1;
	struct timeval second = { .tv_sec = 1 };

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
	if (connect(fd, target->ai_addr, target->ai_addrlen))
		fail("connect");
	return fd;
}

static uint64_t query(void)
{
	int fd = dial(SOCK_STREAM);
	uint64_t count = 0;

	if (write(fd, "Q", 1) != 1 || read(fd, &count, sizeof(count)) != sizeof(count))
		fail("query");
	close(fd);
	return count;
}

static void read_cpu(double *busy, double *steal)
{
	unsigned long long v[8];
	FILE *f = fopen("/proc/stat", "r");

	if (!f || fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", v, v + 1, v + 2, v + 3, v + 4, v + 5, v + 6,
			 v + 7) != 8)
		fail("/proc/stat");
	fclose(f);
	*busy = (double)(v[0] + v[1] + v[2] + v[5] + v[6]) / sysconf(_SC_CLK_TCK);
	*steal = (double)v[7] / sysconf(_SC_CLK_TCK);
}

static double percentile(const uint32_t *histogram, uint64_t total, double part)
{
	uint64_t seen = 0;

	for (int i = 0; i < BUCKETS; i++)
		if ((seen += histogram[i]) >= total * part)
			return i / 10.0;
	return 0;
}

static unsigned int retransmits(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t length = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length))
		fail("TCP_INFO");
	return info.tcpi_total_retrans;
}

/* One unit of the measurement. */
static void once(const char *mode, int fd, char byte)
{
	static char chunk[CHUNK];
	struct linger hard = { .l_onoff = 1 };

	if (!strcmp(mode, "stream")) {
		if (write(fd, chunk, CHUNK) < 0)
			fail("write");
		return;
	}
	if (!strcmp(mode, "crr"))
		fd = dial(SOCK_STREAM);
	if (write(fd, &byte, 1) != 1 || (read(fd, &byte, 1) != 1 && mode[0] != 'u')) /* a datagram may be lost */
		fail("round trip");
	if (!strcmp(mode, "crr")) {
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
		close(fd);
	}
}

static int compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return (left > right) - (left < right);
}

static double median(double *values, int count)
{
	qsort(values, count, sizeof(*values), compare);
	return count ? values[count / 2] : 0;
}

static void measure(const char *mode, double wanted_s)
{
	static uint32_t histogram[BUCKETS];
	static double slices[SLICES];
	double busy[2], steal[2], seconds, mean, unit = 1;
	uint64_t start, end, last, slice, total = 0, in_slice = 0;
	int stream = !strcmp(mode, "stream"), fd = -1, count = 0;

	query();
	if (!strcmp(mode, "udprr"))
		fd = dial(SOCK_DGRAM);
	else if (strcmp(mode, "crr"))
		fd = dial(SOCK_STREAM);
	if (stream && write(fd, "S", 1) != 1)
		fail("write");
	if (stream)
		unit = CHUNK * 8 / 1e9;
	read_cpu(&busy[0], &steal[0]);
	start = last = slice = now_ns();
	end = start + (uint64_t)(wanted_s * 1e9);
	while (last < end) {
		uint64_t now, bucket;

		once(mode, fd, !strcmp(mode, "crr") ? 'C' : 'R');
		total++;
		in_slice++;
		now = now_ns();
		bucket = (now - last) / 100;
		histogram[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
		if (now - slice >= SLICE_NS && count < SLICES) {
			slices[count++] = in_slice * unit / ((now - slice) / 1e9);
			slice = now;
			in_slice = 0;
		}
		last = now;
	}
	read_cpu(&busy[1], &steal[1]);
	seconds = (last - start) / 1e9;
	mean = stream ? query() * 8 / seconds / 1e9 : total / seconds;
	printf("{\"rate\": %.3f, \"mean\": %.3f, \"p50\": %.1f, \"p99\": %.1f, \"busy\": %.2f, \"steal\": %.2f, "
	       "\"retransmits\": %u}\n",
	       median(slices, count), mean, percentile(histogram, total, 0.5), percentile(histogram, total, 0.99),
	       (busy[1] - busy[0]) / seconds, (steal[1] - steal[0]) / seconds, stream ? retransmits(fd) : 0);
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "server")) {
		settle(argv[2], atoi(argv[3]));
		serve(atoi(argv[4]));
	}
	if (argc != 7) {
		fprintf(stderr, "usage: netbench server NETNS CPU PORT\n"
				"       netbench rr|crr|stream|udprr NETNS CPU ADDRESS PORT SECONDS\n");
		return 2;
	}
	settle(argv[2], atoi(argv[3]));
	if (getaddrinfo(argv[4], argv[5], &(struct addrinfo){ .ai_socktype = SOCK_STREAM }, &target)) {
		fprintf(stderr, "%s is no address\n", argv[4]);
		return 2;
	}
	measure(argv[1], atof(argv[6]));
	return 0;
}
