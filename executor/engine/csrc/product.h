// Products of matrices.
#ifndef HELIUM_PRODUCT_H
#define HELIUM_PRODUCT_H

#include <stdint.h>

#include "engine.h"

// One product: y = x times the transposed matrix, plus a bias if there is one. Row t of the input
// begins at x + t * x_step. Rows may overlap: a convolution reads windows that do.
typedef struct {
  const he_matrix *matrix;
  const float *x;
  float *y;
  const float *bias; // of each output, or NULL
  int64_t x_step, y_step;
} product;

// Memory that products reuse; all zero at first.
typedef struct scratch {
  void *memory;
  int64_t size;
} scratch;

// Computes products of the same input, `rows` rows each, in one loop of all threads. The matrices
// have one `in`; all are of kinds that hold floats, or of one kind. Returns 0, or -1 without memory.
int multiply(
    pool *pool, scratch *scratch, const product *products, int count, int64_t rows);
// Writes a row of a matrix of floats as float32, or adds it.
void widen_row(const he_matrix *matrix, int64_t row, float *x);
void add_matrix_row(const he_matrix *matrix, int64_t row, float *x);
// One product without a bias, of rows that lie one after another.
int multiply_one(
    pool *pool, scratch *scratch, const he_matrix *matrix, const float *x, float *y, int64_t rows);
void *scratch_get(scratch *scratch, int64_t size); // NULL without memory
void scratch_free(scratch *scratch);

// Memory of a call: blocks that are freed together; all zero at first.
#define ARENA_BLOCKS 32 // more than any arena takes: 18 (t5.c with pop2piano.c)
typedef struct {
  void *blocks[ARENA_BLOCKS];
  int count, failed;
} arena;
void *arena_get(arena *arena, int64_t size); // NULL without memory, and then it has `failed`
float *arena_floats(arena *arena, int64_t count);
void arena_free(arena *arena);

#endif
