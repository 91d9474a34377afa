// A pass of T5's layers over some positions of some rows.
#ifndef HELIUM_T5_H
#define HELIUM_T5_H

#include "engine.h"
#include "product.h"

typedef struct {
  pool *pool;
  const he_t5_stack *stack;
  int64_t rows, count, first; // `count` positions of each row, from position `first` on
  const int64_t *lanes;       // each row's place in the caches, or NULL if that is its number
  int64_t cached, capacity;   // rows and positions that the caches have
  int64_t source;             // positions of the encoder's output, for a decoder
  int64_t width, inner, size; // of hidden states, of all heads, of a head
  int64_t bias_step;
  float *x, *y; // hidden states (rows, count, width), and what is computed from them
  float *query, *key, *value, *up, *gate;
  float *bias; // (heads, relative positions)
  float *keys, *values, *cross_keys, *cross_values; // (layers, rows, heads, positions, size)
  scratch scratch;
  arena arena;
} t5_pass;

// Allocates a pass. Returns HE_OK or HE_NO_MEMORY; t5_end frees it in either case.
int t5_begin(t5_pass *p, pool *pool, const he_t5_stack *stack, int64_t rows, int64_t count,
             int64_t capacity, int64_t source);
void t5_end(t5_pass *p);
int t5_attend_to(t5_pass *p, const float *hidden); // (rows, source, width)
void t5_embed(const he_matrix *table, const int32_t *tokens, int64_t count, float *x);
void t5_norm(t5_pass *p, const float *weight); // of x, to y
// All layers over x, and the last norm, to y. Returns HE_OK, HE_NO_MEMORY or HE_STOPPED.
int t5_layers(t5_pass *p, const volatile int32_t *stop);
int t5_finite(const float *x, int64_t n); // 1 if all numbers are

#endif
