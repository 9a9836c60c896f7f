/* The connect that a report is to show: in get_client, a frame of its own. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "frame.h"

static void must(int holds, const char *what)
{
	if (!holds) {
		perror(what);
		exit(1);
	}
}

FRAME void get_client(int fd, const char *address, int port)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
	must(inet_pton(AF_INET, address, &to.sin_addr) == 1, "inet_pton");
	must(connect(fd, (struct sockaddr *)&to, sizeof to) == 0, "connect");
	KEEP_FRAME;
}
