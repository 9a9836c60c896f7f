/* A program that says it is a JVM: connects from code of its own making, which it says was compiled
 * from a method, then keeps the connection.
 *
 * arguments: libjvm way address port count
 *   endless  the tables in which the library describes itself have no end
 *   late     the first connect is made before the tables are there, the others after
 *   version  the library says that it is of another version
 *   lies     the code is where a JVM's would be, and what it says of it is no method
 *
 * Says `up`, waits for a line, connects; then `ready`.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "get_client.h"

#define ENTRIES (1 << 20)
#define LOOKED_AT_WITHIN_US 1000000

/* VMStructEntry, runtime/vmStructs.hpp. */
struct entry {
	const char *type, *field, *of;
	int32_t is_static;
	uint64_t offset;
	void *address;
};

/* An address range of a heap, as its VirtualSpace has it. */
struct space {
	char *low_boundary, *high_boundary, *low, *high;
	uint64_t rest[10];
};

/* CodeHeap of JDK 17. */
struct heap {
	uint64_t first;
	struct space memory, segments;
	uint64_t committed, reserved, segment_bytes;
	int32_t log2_segment_bytes;
};

/* GrowableArray of JDK 17. */
struct array {
	int32_t length, capacity;
	void *elements;
};

static void *library;

static struct entry **entries(void)
{
	struct entry **entries = dlsym(library, "gHotSpotVMStructs");
	must(entries != NULL, "gHotSpotVMStructs");
	return entries;
}

static void *variable(const char *type, const char *field)
{
	for (struct entry *entry = *entries(); entry->type; entry++)
		if (!strcmp(entry->type, type) && entry->field && !strcmp(entry->field, field))
			return entry->address;
	must(0, field);
	return NULL;
}

static void describe_without_end(void)
{
	struct entry *fields = calloc(ENTRIES, sizeof *fields);
	must(fields != NULL, "calloc");
	for (int i = 0; i < ENTRIES; i++)
		fields[i].type = fields[i].field = "CodeBlob";
	*entries() = fields;
}

/* A block that is used, a blob that is named nmethod; all else leads back into it. */
static void lie_about(char *page)
{
	static char segments[64];
	static struct heap heap;
	static struct heap *heaps[] = { &heap };
	static struct array array = { 1, 1, heaps };
	uint64_t *blob = (uint64_t *)(page + 16);

	heap.memory = (struct space){ page, page + 4096, page, page + 4096, { 0 } };
	heap.segments = (struct space){ segments, segments + 64, segments, segments + 64, { 0 } };
	heap.log2_segment_bytes = 12;
	for (int word = 0; word < 44; word++)
		blob[word] = (uintptr_t)blob;
	*(uint64_t *)page = 1;
	page[8] = 1;
	blob[96 / 8] = (uintptr_t)"nmethod";
	blob[32 / 8] = (uintptr_t)page + 2048;
	blob[40 / 8] = (uintptr_t)page + 4096;
	((int32_t *)blob)[28 / 4] = 2;
	/* Debug information as large as can be told. */
	((int32_t *)blob)[260 / 4] = INT_MIN;
	((int32_t *)blob)[268 / 4] = INT_MAX;
	((int32_t *)blob)[272 / 4] = INT_MAX;
	((char *)blob)[315] = 0;
	*(struct array **)variable("CodeCache", "_heaps") = &array;
}

int main(int argc, char **argv)
{
	/* push rbp; mov rbp, rsp; call rcx; pop rbp; ret */
	static const unsigned char code[] = { 0x55, 0x48, 0x89, 0xe5, 0xff, 0xd1, 0x5d, 0xc3 };
	must(argc == 6, "libjvm way address port count");
	library = dlopen(argv[1], RTLD_NOW);
	must(library != NULL, argv[1]);
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(page != MAP_FAILED, "mmap");
	memcpy(page + 2048, code, sizeof code);
	*(int32_t *)variable("Abstract_VM_Version", "_vm_major_version") = 17;
	if (strcmp(argv[2], "endless") == 0)
		describe_without_end();
	if (strcmp(argv[2], "version") == 0)
		*(int32_t *)variable("Abstract_VM_Version", "_vm_major_version") = 99;
	if (strcmp(argv[2], "lies") == 0)
		lie_about(page);
	int is_late = strcmp(argv[2], "late") == 0;
	struct entry *fields = *entries();
	if (is_late) {
		lie_about(page);
		*entries() = NULL;
	}
	puts("up");
	fflush(stdout);
	must(getchar() != EOF, "stdin");
	void (*call)(int, const char *, int, void *) = (void *)(page + 2048);
	for (int i = 0; i < atoi(argv[5]); i++) {
		call(socket(AF_INET, SOCK_STREAM, 0), argv[3], atoi(argv[4]), get_client);
		if (is_late) {
			usleep(LOOKED_AT_WITHIN_US);
			*entries() = fields;
		}
	}
	puts("ready");
	fflush(stdout);
	while (getchar() != EOF)
		;
	return 0;
}
