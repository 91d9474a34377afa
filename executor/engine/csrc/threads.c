// A pool of threads that waits actively between the loops that it shares.
//
// A step of a model is some two hundred short loops. A thread that slept after each would be woken
// later than the loop takes, so threads spin for some 100 microseconds before they sleep.
//
//   thread      waits for                  wakes when
//   spinning    `epoch` to change          it changes
//   sleeping    `epoch` to change          `share` broadcasts, because `sleepers` is not 0
#include "threads.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "arithmetic.h"
#include "engine.h"

#define SPINS 20000 // some 100 microseconds of pauses

struct pool {
  int threads; // the caller's included
  pthread_t *ids;
  atomic_uint epoch; // of the current loop
  atomic_int pending; // threads that have not ended it
  atomic_int sleepers, stopping;
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  loop_body *body;
  void *context;
  int64_t items, grain;
};
typedef struct { pool *pool; int number; } member;

INLINE void relax(void) {
#if defined(__SSE2__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void run(const pool *pool, int number) {
  int64_t grains = (pool->items + pool->grain - 1) / pool->grain;
  int64_t first = grains * number / pool->threads * pool->grain;
  int64_t last = grains * (number + 1) / pool->threads * pool->grain;
  if (last > pool->items) last = pool->items;
  if (first < last) {
    uint64_t state = enter_ieee();
    pool->body(pool->context, first, last);
    leave_ieee(state);
  }
}

static void *work(void *argument) {
  member self = *(member *)argument;
  free(argument);
  pool *pool = self.pool;
  unsigned seen = 0;
  for (;;) {
    for (int i = 0; i < SPINS && atomic_load(&pool->epoch) == seen; i++) relax();
    if (atomic_load(&pool->epoch) == seen) {
      pthread_mutex_lock(&pool->mutex);
      atomic_fetch_add(&pool->sleepers, 1);
      while (atomic_load(&pool->epoch) == seen) pthread_cond_wait(&pool->changed, &pool->mutex);
      atomic_fetch_sub(&pool->sleepers, 1);
      pthread_mutex_unlock(&pool->mutex);
    }
    seen = atomic_load(&pool->epoch);
    if (atomic_load(&pool->stopping)) return NULL;
    run(pool, self.number);
    atomic_fetch_sub(&pool->pending, 1);
  }
}

static void wake(pool *pool) {
  atomic_fetch_add(&pool->epoch, 1);
  if (atomic_load(&pool->sleepers)) {
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->mutex);
  }
}

void share(pool *pool, int64_t items, int64_t grain, loop_body *body, void *context) {
  if (!pool || pool->threads == 1 || items <= grain) {
    if (items > 0) body(context, 0, items);
    return;
  }
  pool->body = body;
  pool->context = context;
  pool->items = items;
  pool->grain = grain;
  atomic_store(&pool->pending, pool->threads - 1);
  wake(pool);
  run(pool, 0);
  while (atomic_load(&pool->pending)) relax();
}

int pool_threads(const pool *pool) { return pool ? pool->threads : 1; }

// Returns NULL if there is too little memory, or no thread can be started.
EXPORT pool *he_pool_new(int32_t threads) {
  if (threads < 1 || threads > HE_MAX_THREADS) return NULL;
  pool *pool = calloc(1, sizeof *pool);
  if (!pool) return NULL;
  pool->threads = 1;
  pthread_mutex_init(&pool->mutex, NULL);
  pthread_cond_init(&pool->changed, NULL);
  pool->ids = calloc((size_t)threads, sizeof *pool->ids);
  for (int number = 1; pool->ids && number < threads; number++) {
    member *self = malloc(sizeof *self);
    if (self) *self = (member){pool, number};
    if (!self || pthread_create(&pool->ids[number], NULL, work, self)) {
      free(self);
      he_pool_free(pool);
      return NULL;
    }
    pool->threads = number + 1;
  }
  if (!pool->ids) {
    he_pool_free(pool);
    return NULL;
  }
  return pool;
}

EXPORT void he_pool_free(pool *pool) {
  if (!pool) return;
  atomic_store(&pool->stopping, 1);
  wake(pool);
  for (int number = 1; number < pool->threads; number++) pthread_join(pool->ids[number], NULL);
  pthread_mutex_destroy(&pool->mutex);
  pthread_cond_destroy(&pool->changed);
  free(pool->ids);
  free(pool);
}
