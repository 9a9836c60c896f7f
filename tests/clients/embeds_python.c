/* A program that runs Python from a shared library, as web servers and editors do.
 *
 * environment: EMBEDDED_LIBRARY, a libpython. Arguments: as for the interpreter.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	const char *path = getenv("EMBEDDED_LIBRARY");
	void *library = dlopen(path ? path : "", RTLD_NOW | RTLD_GLOBAL);
	int (*run)(int, char **) = library ? (int (*)(int, char **))dlsym(library, "Py_BytesMain") : NULL;

	if (!run) {
		fprintf(stderr, "failed to load a libpython: %s\n", dlerror());
		return 1;
	}
	return run(argc, argv);
}
