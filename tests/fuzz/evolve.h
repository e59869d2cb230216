/* SPDX-License-Identifier: Apache-2.0 */
/* A fuzz loop led by coverage, for a C program whose source is included beside it: gcc -fsanitize-coverage=trace-pc
 * calls in at every branch, and what reaches a new one is kept and changed further. A seed and a count say everything.
 *
 * The including file gives seeds[], words[] and try(), which ends the process (abort, or a sanitizer) at a fault. An
 * input of a fault stands in the file that the third argument names.
 */
#ifndef EVOLVE_H
#define EVOLVE_H
#define _GNU_SOURCE

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LONGEST (64 << 10)
#define MOST_KEPT 4096
#define PLACES (1 << 16)
#define UNSEEN __attribute__((no_sanitize_coverage))

struct input {
	size_t length;
	uint8_t *data;
};

static void try(const uint8_t *data, size_t length);
static const char *const words[];
static const struct input seeds[];
static const size_t word_count, seed_count;

static uint8_t reached[PLACES];
static size_t new_places;
static uint64_t state;

/* Two branches after one another are a place. */
UNSEEN void __sanitizer_cov_trace_pc(void)
{
	static uintptr_t last;
	uintptr_t place = (uintptr_t)__builtin_return_address(0);
	uint8_t *at = &reached[(place ^ place >> 16 ^ last << 3) % PLACES];

	last = place;
	new_places += !*at;
	*at = 1;
}

/* xorshift64* */
UNSEEN static uint32_t drawn(uint32_t below)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (uint32_t)((state * 2685821657736338717ull) >> 32) % below;
}

/* Puts `piece` in place of `old` bytes at `at`. */
UNSEEN static void put_in(struct input *to, size_t at, size_t old, const uint8_t *piece, size_t length)
{
	uint8_t copy[LONGEST];

	if (to->length - old + length > LONGEST)
		return;
	memcpy(copy, piece, length); /* it may be a part of `to` */
	memmove(to->data + at + length, to->data + at + old, to->length - at - old);
	memcpy(to->data + at, copy, length);
	to->length += length - old;
}

UNSEEN static void change(struct input *to, const struct input *other)
{
	size_t at = drawn(to->length + 1), most = to->length - at, old = drawn(4) ? drawn(5) : drawn(200);
	const char *word = words[drawn(word_count)];
	uint8_t bytes[4] = { drawn(256), drawn(256), drawn(256), drawn(256) };
	size_t from = drawn(other->length + 1);

	if (old > most)
		old = most;
	switch (drawn(7)) {
	case 0:
		put_in(to, at, old, bytes, 0);
		break;
	case 1:
		put_in(to, at, old, bytes, 1 + drawn(4));
		break;
	case 2:
	case 3:
		put_in(to, at, drawn(2) ? old : 0, (const uint8_t *)word, strlen(word));
		break;
	case 4:
		put_in(to, at, old, other->data + from, drawn(other->length - from + 1));
		break;
	case 5:
		if (at < to->length)
			to->data[at] ^= 1 << drawn(8);
		break;
	default:
		for (int times = drawn(3) ? 1 + drawn(4) : 600; times-- > 0;)
			put_in(to, at, 0, to->data + at, old);
	}
}

UNSEEN static struct input kept_copy(const uint8_t *data, size_t length)
{
	struct input copy = { length, malloc(length + 1) };

	if (!copy.data)
		abort();
	memcpy(copy.data, data, length);
	return copy;
}

/* Arguments: count, seed, and a file for the input that is tried. Prints how many inputs reached something new. */
UNSEEN int main(int argc, char **argv)
{
	static struct input kept[MOST_KEPT];
	static uint8_t buffer[LONGEST];
	size_t count = argc > 1 ? strtoul(argv[1], NULL, 10) : 0, known = 0;
	int file = argc > 3 ? open(argv[3], O_RDWR | O_CREAT | O_TRUNC, 0600) : -1;
	uint8_t *shown;

	if (file < 0 || ftruncate(file, LONGEST + sizeof(size_t)))
		return 2;
	shown = mmap(NULL, LONGEST + sizeof(size_t), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	state = strtoull(argv[2], NULL, 10) + 1;
	for (size_t i = 0; i < seed_count; i++)
		kept[known++] = kept_copy(seeds[i].data, seeds[i].length);
	for (size_t number = 0; number < count; number++) {
		const struct input *from = &kept[number < seed_count ? number : drawn(known)];
		struct input next = { from->length, buffer };
		size_t before = new_places;

		memcpy(buffer, from->data, from->length);
		for (int changes = number < seed_count ? 0 : 1 + drawn(4); changes-- > 0;)
			change(&next, &kept[drawn(known)]);
		memcpy(shown, &next.length, sizeof(size_t));
		memcpy(shown + sizeof(size_t), next.data, next.length);
		try(next.data, next.length);
		if (new_places > before && known < MOST_KEPT && number >= seed_count)
			kept[known++] = kept_copy(next.data, next.length);
	}
	printf("%zu of %zu kept, %zu places reached\n", known - seed_count, count, new_places);
	for (size_t i = 0; i < known; i++)
		free(kept[i].data);
	return 0;
}

#endif
