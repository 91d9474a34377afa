// What the engine offers to Python, and the structures that both know.
//
// Every pointer and size is checked in Python before a call (executor/engine); the C code trusts
// them. Rows lie one after another, the last index is the fastest. All weights are read-only.
#ifndef HELIUM_ENGINE_H
#define HELIUM_ENGINE_H

#include <stdint.h>

#include "threads.h"

#define EXPORT __attribute__((visibility("default")))

// Raised whenever bits change; part of a compute class.
#define HE_ARITHMETIC 1
#define HE_MAX_THREADS 64

enum { HE_FLOAT32, HE_BFLOAT16, HE_INT8, HE_INT4 }; // kinds of weights

// A matrix of weights: `out` rows of `in` numbers.
typedef struct {
  const void *rows;
  const float *scales; // HE_INT8: one for each row; HE_INT4: one for each group of 32 in each row
  int64_t out, in;
  int32_t kind;
} he_matrix;

EXPORT int32_t he_arithmetic_version(void);
EXPORT const char *he_instruction_set(void);

EXPORT pool *he_pool_new(int32_t threads);
EXPORT void he_pool_free(pool *pool);

// y (rows, out) = x (rows, in) times the transposed matrix. Returns 0, or -1 without memory.
EXPORT int32_t he_product(
    pool *pool, const he_matrix *matrix, const float *x, float *y, int64_t rows);
// Writes a float32 matrix as another kind of weights. `rows` has room for all rows of that kind.
EXPORT void he_convert(
    const float *x, int64_t out, int64_t in, int32_t kind, void *rows, float *scales);

#endif
