/* SPDX-License-Identifier: MIT */
/*
 * The main program of a fuzz target where there is no libFuzzer: runs it over the files of the
 * folders given, and over inputs of a fixed pseudo-random sequence, so that also a target without a
 * corpus is worth running.
 */

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUTS_MADE = 2000, INPUT_SIZE_MAX = 8192 };

/* An input in memory of exactly its size: one byte beyond it is seen by the sanitizer. */
static void replay_bytes(const uint8_t *bytes, size_t size)
{
	uint8_t *data = malloc(size ? size : 1);

	if (!data) {
		perror("replay");
		exit(2);
	}

	if (size)
		memcpy(data, bytes, size);
	(void)LLVMFuzzerTestOneInput(data, size);
	free(data);
}

static void replay_file(const char *path)
{
	static uint8_t bytes[1 << 20];
	FILE *file = fopen(path, "re");

	if (!file) {
		perror(path);
		exit(2);
	}

	replay_bytes(bytes, fread(bytes, 1, sizeof(bytes), file));
	(void)fclose(file);
}

/* The number of files replayed; a folder that is not there is an empty one. */
static unsigned replay_folder(const char *folder)
{
	DIR *directory = opendir(folder);
	unsigned n = 0;

	if (!directory)
		return 0;

	for (struct dirent *entry = readdir(directory); entry; entry = readdir(directory)) {
		char path[4096];

		if (entry->d_name[0] == '.')
			continue;

		(void)snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		replay_file(path);
		++n;
	}

	(void)closedir(directory);
	return n;
}

/* xorshift: the same inputs on every run. */
static uint64_t replay_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Sizes of all magnitudes; bytes mostly small, since lengths and types are. */
static void replay_made(void)
{
	static uint8_t bytes[INPUT_SIZE_MAX];
	uint64_t state = UINT64_C(0x9e3779b97f4a7c15);

	for (unsigned n = 0; n < INPUTS_MADE; ++n) {
		size_t size = replay_random(&state) % ((size_t)1 << (n % 14));
		uint64_t mask = n % 3 == 0 ? 0xff : 0x0f;

		for (size_t i = 0; i < size; ++i) {
			uint64_t r = replay_random(&state);

			bytes[i] = r % 4 == 0 ? (uint8_t)((r >> 8) & mask) : 0;
		}

		replay_bytes(bytes, size);
	}
}

int main(int argc, char **argv)
{
	unsigned n = 0;

	for (int i = 1; i < argc; ++i)
		n += replay_folder(argv[i]);
	replay_made();

	printf("%u inputs of the corpus, %d made\n", n, INPUTS_MADE);
	return 0;
}
