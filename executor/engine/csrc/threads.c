// A pool of threads that waits actively between the loops that it shares.
//
// A step of a model is some two hundred short loops. A thread that slept after each would be woken
// later than the loop takes, so threads spin for some 100 microseconds before they sleep.
//
// A loop is cut into chunks, which threads take one by one. So a thread that gets no processor holds
// up one chunk at most, and the loop has ended once all chunks have: nobody waits for threads.
//
//   thread      waits for             wakes when
//   spinning    a chunk to take       there is one
//   sleeping    a chunk to take       `share` broadcasts, because `sleepers` is not 0
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "arithmetic.h"
#include "engine.h"

#define SPINS 20000 // some 100 microseconds of pauses
#define CHUNKS 8    // for each thread: enough to even out threads, few enough to read in streams

// What can be taken: the number of the loop, its chunks and the next chunk. All are in one word, so
// that a late thread cannot take a chunk of a loop that has ended.
#define NEXT_BITS 16
#define LOOP_BITS 32
typedef uint64_t offer;
INLINE offer make_offer(uint64_t loop, uint64_t chunks) { return loop << LOOP_BITS | chunks << NEXT_BITS; }
INLINE int64_t next_chunk(offer offer) { return offer & 0xffff; }
INLINE int is_empty(offer offer) { return next_chunk(offer) >= (int64_t)(offer >> NEXT_BITS & 0xffff); }

struct pool {
  int threads; // the caller's included
  pthread_t *ids;
  _Atomic offer offer;
  atomic_int unfinished; // chunks of the current loop
  atomic_int sleepers, stopping;
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  // The current loop. They change only while no chunk is taken and unfinished.
  loop_body *body;
  void *context;
  int64_t items, chunk;
};

INLINE void relax(void) {
#if defined(__SSE2__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Takes chunks of the current loop and runs them, until none is left.
static void run_chunks(pool *pool) {
  uint64_t state = enter_ieee();
  offer offer = atomic_load(&pool->offer);
  while (!is_empty(offer)) {
    if (!atomic_compare_exchange_weak(&pool->offer, &offer, offer + 1)) continue;
    int64_t first = next_chunk(offer) * pool->chunk, last = first + pool->chunk;
    pool->body(pool->context, first, last < pool->items ? last : pool->items);
    atomic_fetch_sub(&pool->unfinished, 1);
    offer = atomic_load(&pool->offer);
  }
  leave_ieee(state);
}

static int is_idle(pool *pool) {
  return is_empty(atomic_load(&pool->offer)) && !atomic_load(&pool->stopping);
}

static void *work(void *argument) {
  pool *pool = argument;
  for (;;) {
    for (int i = 0; i < SPINS && is_idle(pool); i++) relax();
    if (is_idle(pool)) {
      pthread_mutex_lock(&pool->mutex);
      atomic_fetch_add(&pool->sleepers, 1);
      while (is_idle(pool)) pthread_cond_wait(&pool->changed, &pool->mutex);
      atomic_fetch_sub(&pool->sleepers, 1);
      pthread_mutex_unlock(&pool->mutex);
    }
    if (atomic_load(&pool->stopping)) return NULL;
    run_chunks(pool);
  }
}

static void wake(pool *pool) {
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
  int64_t most = (int64_t)pool->threads * CHUNKS, chunk = (items + most - 1) / most;
  pool->body = body;
  pool->context = context;
  pool->items = items;
  pool->chunk = chunk = (chunk + grain - 1) / grain * grain;
  int64_t chunks = (items + chunk - 1) / chunk;
  atomic_store(&pool->unfinished, (int)chunks);
  uint64_t loop = atomic_load(&pool->offer) >> LOOP_BITS;
  atomic_store(&pool->offer, make_offer(loop + 1, (uint64_t)chunks));
  wake(pool);
  run_chunks(pool);
  for (int i = 0; atomic_load(&pool->unfinished); i++) {
    relax();
    if (i % SPINS == SPINS - 1) sched_yield(); // its thread may want this processor
  }
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
    if (pthread_create(&pool->ids[number], NULL, work, pool)) {
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
