/* A hiredis client with a pool that hands out more than it takes back. */
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "frame.h"

FRAME redisContext *acquire_connection(const char *host, int port)
{
	redisContext *c = redisConnect(host, port);
	if (!c || c->err) {
		fprintf(stderr, "failed to connect: %s\n", c ? c->errstr : "no memory");
		exit(1);
	}
	KEEP_FRAME;
	return c;
}

FRAME void fill_pool(redisContext **pool, int n, const char *host, int port)
{
	for (int i = 0; i < n; i++)
		pool[i] = acquire_connection(host, port);
	KEEP_FRAME;
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	int opened = atoi(argv[3]), closed = atoi(argv[4]);
	redisContext **pool = calloc(opened, sizeof *pool);
	fill_pool(pool, opened, argv[1], atoi(argv[2]));
	for (int i = 0; i < opened; i++)
		freeReplyObject(redisCommand(pool[i], "PING"));
	for (int i = 0; i < closed; i++)
		redisFree(pool[i]);
	puts("ready");
	fflush(stdout);
	char byte;
	while (read(0, &byte, 1) > 0)
		;
	return 0;
}
