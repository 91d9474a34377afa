// Threads that share loops.
#ifndef HELIUM_THREADS_H
#define HELIUM_THREADS_H

#include <stdint.h>

typedef struct pool pool;

// Items first .. last - 1 of a loop.
typedef void loop_body(void *context, int64_t first, int64_t last);

// Runs `body` over `items`, split into one range for each thread, of multiples of `grain` items.
// Returns when all are done. A pool that is NULL runs all in the calling thread.
void share(pool *pool, int64_t items, int64_t grain, loop_body *body, void *context);
int pool_threads(const pool *pool);

// What another thread writes and reads during a call: whether to stop, and how much is done.
static inline int is_stopped(const volatile int32_t *stop) {
  return __atomic_load_n(stop, __ATOMIC_RELAXED) != 0;
}
static inline void set_done(volatile int64_t *done, int64_t value) {
  __atomic_store_n(done, value, __ATOMIC_RELAXED);
}

#endif
