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

#endif
