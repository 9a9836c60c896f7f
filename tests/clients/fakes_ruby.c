/* A program that says it is a Ruby: connects from get_client, then keeps the connection.
 *
 * arguments: address port way count major minor
 *   version  it has the version's number, and no more
 *   lies     as of 3.1, its machine, thread and frames are there, and what they ran is none
 *
 * Says `up`, waits for a line, connects; then `pid N` and `ready`.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "get_client.h"

#define FRAMES 100
#define FRAME_WORDS 8
#define LIES 6

/* The names that Ruby's library has. */
volatile int ruby_api_version[3];
uint64_t *volatile ruby_current_vm_ptr;
__thread uint64_t *volatile ruby_current_ec;

static uint64_t machine[16], thread[16], execution[16], stack[FRAMES * FRAME_WORDS];
static uint64_t lies[LIES][64];

/* Offsets of Ruby 3.1. */
static void lie(void)
{
	for (int i = 0; i < LIES; i++) {
		uint64_t *code = lies[i];
		/* An instruction sequence by its type, whose body is itself: so are its texts. */
		for (int word = 0; word < 64; word++)
			code[word] = (uintptr_t)code;
		code[0] = 0x701a;
	}
	/* A label without end, and tables as large as they can be told. */
	lies[1][0] = 0x701a | 5;
	lies[2][10] = (uintptr_t)lies[3];
	lies[2][17] = UINT64_MAX;
	lies[3][0] = 0x2005;
	lies[3][2] = UINT64_MAX;
	lies[4][10] = 4;
	for (int i = 0; i < FRAMES; i++) {
		uint64_t *frame = stack + i * FRAME_WORDS;
		frame[0] = (uintptr_t)(lies[i % LIES] + i % 3);
		frame[2] = i % 7 ? (uintptr_t)lies[i % LIES] : (uint64_t)i * 0x123456789;
	}
	execution[0] = (uintptr_t)stack;
	execution[1] = FRAMES * FRAME_WORDS;
	execution[2] = (uintptr_t)stack;
	execution[6] = (uintptr_t)thread;
	thread[0] = (uintptr_t)thread;
	thread[4] = (uintptr_t)machine;
	thread[5] = (uintptr_t)execution;
	thread[10] = (uintptr_t)pthread_self();
	machine[5] = (uintptr_t)thread;
	ruby_current_vm_ptr = machine;
	ruby_current_ec = execution;
}

int main(int argc, char **argv)
{
	must(argc == 7, "address port way count major minor");
	ruby_api_version[0] = atoi(argv[5]);
	ruby_api_version[1] = atoi(argv[6]);
	if (strcmp(argv[3], "lies") == 0)
		lie();
	puts("up");
	fflush(stdout);
	must(getchar() != EOF, "stdin");
	for (int i = 0; i < atoi(argv[4]); i++)
		get_client(socket(AF_INET, SOCK_STREAM, 0), argv[1], atoi(argv[2]));
	printf("pid %d\nready\n", getpid());
	fflush(stdout);
	while (getchar() != EOF)
		;
	return 0;
}
