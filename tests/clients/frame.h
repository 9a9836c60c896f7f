/* noipa keeps each function a frame of its own under -O2; the barrier keeps calls from becoming
 * jumps, which would take the caller off the stack. */
#define FRAME __attribute__((noipa))
#define KEEP_FRAME __asm__ volatile("" ::: "memory")
