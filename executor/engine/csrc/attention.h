// Norms and attention.
#ifndef HELIUM_ATTENTION_H
#define HELIUM_ATTENTION_H

#include <stdint.h>

#include "threads.h"

// Rows to be normed: `n` numbers each, `step` apart. With a bias y = (x - mean) / sqrt(variance +
// epsilon) * weight + bias, without one y = x / sqrt(mean of squares + epsilon) * weight, as T5 has it.
typedef struct {
  const float *x;
  float *y;
  const float *weight, *bias;
  int64_t n, step;
  float epsilon;
} norm;
void norm_rows(pool *pool, const norm *norm, int64_t rows);
void add_rows(float *x, const float *y, int64_t n); // x += y

// Copies `count` rows of (heads, size) numbers, `step` apart, to where attention reads them: to
// positions first, first + 1, ... of `to` (heads, positions, size).
void spread_heads(
    const float *from, int64_t step, int64_t count, int64_t heads, int64_t size, float *to,
    int64_t positions, int64_t first);

// What queries attend to: `lanes` have keys and values of their own, (lane, head, capacity, size); each
// has `count` queries of all heads, for the positions from `first` on.
typedef struct {
  const float *query; // of a lane and a position at lane * query_lane + position * query_step
  float *y;           // likewise
  const float *keys, *values;
  const float *bias; // of the score of a head and a key: h * bias_step + key - position; or NULL
  const int64_t *places; // of each lane in the caches, or NULL if that is its number
  int64_t lanes, count, first, heads, size, capacity, bias_step;
  int64_t query_lane, query_step, y_lane, y_step;
  float scale; // of the scores
  int causal;  // a position attends to none that is later
} attention;
void attend_all(pool *pool, const attention *attention);

#endif
