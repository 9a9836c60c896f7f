/* A process that lies about what it runs: connects from get_client, then keeps the connection.
 *
 * arguments: address port FILE way
 *   garbage  FILE is mapped, whatever is in it
 *   loop     FILE, a libpython3.12, is loaded and its runtime filled with frames that go in circles
 *   exit     a child connects and ends at once; the parent keeps the connection
 *   jit      connects from code of its own making, with FILE moved to where its perf map belongs
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "get_client.h"

static void map_garbage(const char *path)
{
	struct stat of;
	int fd = open(path, O_RDONLY);
	must(fd >= 0 && fstat(fd, &of) == 0, path);
	must(mmap(NULL, of.st_size, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) != MAP_FAILED, "mmap");
}

/* Offsets of CPython 3.12: what a hostile process can write, too. */
static void go_in_circles(const char *path)
{
	static uint64_t interpreter[64], state[64], frames[8][16];
	void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
	uint64_t *runtime = library ? dlsym(library, "_PyRuntime") : NULL;
	pthread_key_t key;

	must(runtime != NULL, path);
	for (int i = 0; i < 8; i++) {
		/* A code object that is one by its type, and nothing else. */
		static uint64_t code[8][64];
		memset(code[i], 0x41 + i, sizeof code[i]);
		code[i][1] = (uint64_t)dlsym(library, "PyCode_Type");
		frames[i][0] = (uint64_t)code[i];
		frames[i][1] = (uint64_t)frames[(i + 1) % 8];
	}
	static uint64_t cframe[1];
	cframe[0] = (uint64_t)frames[0];
	state[1] = (uint64_t)state; /* next: itself */
	state[56 / 8] = (uint64_t)cframe;
	state[136 / 8] = (uint64_t)pthread_self();
	interpreter[72 / 8] = (uint64_t)state;
	runtime[40 / 8] = (uint64_t)interpreter;
	must(pthread_key_create(&key, NULL) == 0, "pthread_key_create");
	must(pthread_setspecific(key, state) == 0, "pthread_setspecific");
}

/* A call of get_client as a compiler at run time would write it. */
static void connect_from_own_code(int fd, const char *address, int port)
{
	/* push rbp; mov rbp, rsp; call rcx; pop rbp; ret */
	static const unsigned char code[] = { 0x55, 0x48, 0x89, 0xe5, 0xff, 0xd1, 0x5d, 0xc3 };
	void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(memory != MAP_FAILED, "mmap");
	memcpy(memory, code, sizeof code);
	must(mprotect(memory, 4096, PROT_READ | PROT_EXEC) == 0, "mprotect");
	void (*call)(int, const char *, int, void *) = memory;
	call(fd, address, port, get_client);
}

static void take_for_perf_map(const char *path, char *place, size_t size)
{
	snprintf(place, size, "/tmp/perf-%d.map", getpid());
	must(rename(path, place) == 0, place);
}

int main(int argc, char **argv)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	must(argc == 5 && fd >= 0, "arguments");
	const char *way = argv[4];
	char perf_map[64] = "";
	if (strcmp(way, "garbage") == 0)
		map_garbage(argv[3]);
	if (strcmp(way, "loop") == 0)
		go_in_circles(argv[3]);
	if (strcmp(way, "jit") == 0)
		take_for_perf_map(argv[3], perf_map, sizeof perf_map);
	/* Until it is traced and was looked at. */
	puts("up");
	fflush(stdout);
	getchar();
	if (strcmp(way, "exit") == 0) {
		if (fork() == 0) {
			get_client(fd, argv[1], atoi(argv[2]));
			_exit(0);
		}
		wait(NULL);
	} else if (strcmp(way, "jit") == 0) {
		connect_from_own_code(fd, argv[1], atoi(argv[2]));
	} else {
		get_client(fd, argv[1], atoi(argv[2]));
	}
	puts("ready");
	fflush(stdout);
	while (getchar() != EOF)
		;
	if (perf_map[0])
		unlink(perf_map);
	return 0;
}
