/* Leaks connections through main -> handle_order -> get_client -> hiredis. */
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>

/* noipa keeps each function a frame of its own under -O2; the barrier keeps calls from becoming
 * jumps, which would take the caller off the stack. */
#define FRAME __attribute__((noipa))
#define KEEP_FRAME __asm__ volatile("" ::: "memory")

FRAME redisContext *get_client(const char *host, int port)
{
	redisContext *client = redisConnect(host, port);
	if (!client || client->err) {
		fprintf(stderr, "failed to connect: %s\n", client ? client->errstr : "no memory");
		exit(1);
	}
	KEEP_FRAME;
	return client;
}

FRAME void handle_order(const char *host, int port)
{
	redisContext *client = get_client(host, port);
	freeReplyObject(redisCommand(client, "PING"));
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	int port = atoi(argv[2]), orders = atoi(argv[3]);
	puts("up");
	fflush(stdout);
	getchar();
	while (orders-- > 0)
		handle_order(argv[1], port);
	puts("ready");
	fflush(stdout);
	while (getchar() != EOF)
		;
	return 0;
}
