// Norms and attention.
#ifndef HELIUM_ATTENTION_H
#define HELIUM_ATTENTION_H

#include <stdint.h>

// y = (x - mean) / sqrt(variance + epsilon) * weight + bias
void layer_norm(
    const float *x, int64_t n, const float *weight, const float *bias, float epsilon, float *y);
// y = x / sqrt(mean of squares + epsilon) * weight, as T5 has it
void rms_norm(const float *x, int64_t n, const float *weight, float epsilon, float *y);
void add_rows(float *x, const float *y, int64_t n); // x += y
// The largest of n numbers that are not NaN; -infinity if there is none.
float maximum(const float *x, int64_t n);

// Copies `count` rows of (heads, size) numbers, `step` apart, to where attention reads them: to
// positions first, first + 1, ... of `to` (heads, positions, size).
void spread_heads(
    const float *from, int64_t step, int64_t count, int64_t heads, int64_t size, float *to,
    int64_t positions, int64_t first);

// What one query attends to: `count` keys and values of `size` numbers, row after row.
typedef struct {
  const float *keys, *values;
  const float *bias; // added to the score of each key, or NULL
  int64_t count, size;
  float scale; // of the scores
} attended;
// Writes the `size` numbers of one head for one query. `scores` has room for `count` + 7 numbers.
void attend(const attended *to, const float *query, float *scores, float *y);

#endif
