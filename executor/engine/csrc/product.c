// Products of matrices: the time of an engine.
//
// A tile is four outputs by some rows of input, whose sums fill the registers: three rows where there
// are sixteen of eight numbers; twelve where there are thirty-two of sixteen, each for two rows. Tiles,
// threads and chunks split outputs and rows, never a sum, so they do not change bits.
//
// With few rows the time is that of reading the weights from memory. The four outputs of a tile are
// then a quarter of the matrix apart: four streams keep the processor's prefetching busy, and reach
// a fifth more than four neighbouring rows. Each is prefetched some lines ahead, which takes 5 to
// 9 % off a step; twice as far ahead adds 10 %. Weights are read as they lie in the file.
//
// With many rows the time is that of the arithmetic. The inputs are packed in the order in which
// tiles read them, in chunks that stay in the second-level cache, and a part of the next tile's
// weights is prefetched at each step.
#include "product.h"

#include <stdlib.h>

#include "arithmetic.h"

#define TILE_ROWS 3
#ifdef __AVX512VNNI__
#define PACKED_ROWS 12 // of packed floats
#define INTEGER_ROWS 6
#else
#define PACKED_ROWS TILE_ROWS
#define INTEGER_ROWS TILE_ROWS
#endif
#define CHUNK_BYTES (384 * 1024)
#define AHEAD 384 // bytes of each stream of weights
#define GROUP 32 // numbers that share a scale in HE_INT4

typedef int16_t vs __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t u4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));

// Bytes of a row of weights.
INLINE int64_t row_bytes(int kind, int64_t in) {
  return kind == HE_FLOAT32 ? 4 * in : kind == HE_INT8 ? in : kind == HE_INT4 ? in / 2 : 2 * in;
}

// Widening: WIDTH bfloat16 or float16 to float32, which is exact; 2 * WIDTH int8 to int16.
#if defined(__AVX2__) && defined(__FMA__)
INLINE vf widen_bfloat16(const char *p) {
  __m256i u = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
  return (vf)_mm256_slli_epi32(u, 16);
}
INLINE vf widen_float16(const char *p) {
  return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
INLINE vs widen_int8(__m128i b) { return (vs)_mm256_cvtepi8_epi16(b); }
typedef __m128i bytes;
#elif defined(__SSE2__)
#include <emmintrin.h>
INLINE vf widen_bfloat16(const char *p) {
  __m128i h = _mm_loadl_epi64((const __m128i *)p);
  return (vf)_mm_unpacklo_epi16(_mm_setzero_si128(), h);
}
// The exponent is moved in the bits, by more if it is infinity's. A subnormal number gets the least
// normal exponent instead, which is then subtracted.
INLINE vf widen_float16(const char *p) {
  vu h = (vu)_mm_unpacklo_epi16(_mm_loadl_epi64((const __m128i *)p), _mm_setzero_si128());
  vu sign = (h & 0x8000u) << 16, u = (h & 0x7fffu) << 13;
  vu infinite = (vu)((vi)u >= 0x0f800000), subnormal = (vu)((vi)u < 0x00800000);
  u += (112u << 23) + (infinite & 112u << 23) + (subnormal & 1u << 23);
  return (vf)((vu)((vf)u - (vf)(subnormal & 113u << 23)) | sign);
}
typedef __m128i bytes; // its lower half
INLINE vs widen_int8(bytes b) {
  return (vs)_mm_srai_epi16(_mm_unpacklo_epi8(_mm_setzero_si128(), b), 8);
}
#else
INLINE vf widen_bfloat16(const char *p) {
  uint16x4_t h;
  memcpy(&h, p, sizeof h);
  return (vf)vshll_n_u16(h, 16);
}
INLINE vf widen_float16(const char *p) {
  float16x4_t h;
  memcpy(&h, p, sizeof h);
  return (vf)vcvt_f32_f16(h);
}
typedef int8x8_t bytes;
INLINE vs widen_int8(bytes b) { return (vs)vmovl_s8(b); }
#endif
INLINE bytes load_bytes(const char *p) {
  bytes b = {0};
  memcpy(&b, p, 2 * WIDTH);
  return b;
}

// Weights i .. i + WIDTH - 1 of a row, as float32.
INLINE vf load_weights(int kind, const char *row, int64_t i) {
  if (kind == HE_FLOAT32) return loadv((const float *)row + i);
  return kind == HE_FLOAT16 ? widen_float16(row + 2 * i) : widen_bfloat16(row + 2 * i);
}
// The last `n` < 8 weights of a row from i on, and +0.
INLINE f8 load_last_weights(int kind, const char *row, int64_t i, int64_t n) {
  char a[32] = {0};
  f8 u;
  int64_t size = kind == HE_FLOAT32 ? 4 : 2;
  memcpy(a, row + i * size, (size_t)(n * size));
  EACH_PART u.part[p] = load_weights(kind, a, p * WIDTH);
  return u;
}

INLINE void read_row(const he_matrix *m, int64_t row, float *x, const int add) {
  const char *w = (const char *)m->rows + row * row_bytes(m->kind, m->in);
  int64_t i = 0;
  for (; i + 8 <= m->in; i += 8) {
    f8 u;
    EACH_PART u.part[p] = load_weights(m->kind, w, i + p * WIDTH);
    store8(x + i, add ? add8(load8(x + i), u) : u);
  }
  if (i < m->in) {
    int64_t n = m->in - i;
    f8 u = load_last_weights(m->kind, w, i, n);
    store_some(x + i, add ? add8(load_some(x + i, n), u) : u, n);
  }
}
void widen_row(const he_matrix *m, int64_t row, float *x) { read_row(m, row, x, 0); }
void add_matrix_row(const he_matrix *m, int64_t row, float *x) { read_row(m, row, x, 1); }

// The sums of a tile of float weights: of `NR` rows of input by the four rows `w`. Eight columns of
// the rows are `row_step` apart, the next eight `column_step`. `x` has +0 beyond column n.
INLINE void float_tile(
    const int kind, const int NR, const int ahead, const char *const w[4], const char *next,
    int64_t n, const float *x, int64_t row_step, int64_t column_step, v4 sums[NR]) {
  f8 a[TILE_ROWS][4];
  UNROLL for (int r = 0; r < NR; r++) UNROLL for (int j = 0; j < 4; j++) a[r][j] = set8(0);
  const char *w0 = w[0], *w1 = w[1], *w2 = w[2], *w3 = w[3];
  int64_t i = 0;
  for (; i + 8 <= n; i += 8, x += column_step) {
    if (ahead) {
      __builtin_prefetch(next);
      next += 64;
    }
    if (NR < TILE_ROWS) {
      const int64_t to = (kind == HE_FLOAT32 ? 4 : 2) * i + AHEAD;
      __builtin_prefetch(w0 + to);
      __builtin_prefetch(w1 + to);
      __builtin_prefetch(w2 + to);
      __builtin_prefetch(w3 + to);
    }
    EACH_PART {
      vf v[TILE_ROWS], u;
      int64_t c = i + p * WIDTH;
      UNROLL for (int r = 0; r < NR; r++) v[r] = loadv(x + r * row_step + p * WIDTH);
      u = load_weights(kind, w0, c);
      UNROLL for (int r = 0; r < NR; r++) a[r][0].part[p] = fmav(u, v[r], a[r][0].part[p]);
      u = load_weights(kind, w1, c);
      UNROLL for (int r = 0; r < NR; r++) a[r][1].part[p] = fmav(u, v[r], a[r][1].part[p]);
      u = load_weights(kind, w2, c);
      UNROLL for (int r = 0; r < NR; r++) a[r][2].part[p] = fmav(u, v[r], a[r][2].part[p]);
      u = load_weights(kind, w3, c);
      UNROLL for (int r = 0; r < NR; r++) a[r][3].part[p] = fmav(u, v[r], a[r][3].part[p]);
    }
  }
  if (i < n) {
    UNROLL for (int j = 0; j < 4; j++) {
      f8 u = load_last_weights(kind, w[j], i, n - i);
      UNROLL for (int r = 0; r < NR; r++) a[r][j] = fma8(u, load8(x + r * row_step), a[r][j]);
    }
  }
  UNROLL for (int r = 0; r < NR; r++) sums[r] = sum4(a[r]);
}

#ifdef __AVX512VNNI__
INLINE __m512 twice(vf u) { return _mm512_broadcast_f32x8((__m256)u); }
// As `float_tile`, for `NP` pairs of packed rows: a register holds the eight lanes of two rows.
INLINE void pair_tile(
    const int kind, const int NP, const char *const w[4], const char *next, int64_t n,
    const float *x, v4 sums[2 * NP]) {
  __m512 a[6][4];
  UNROLL for (int r = 0; r < NP; r++) {
    UNROLL for (int j = 0; j < 4; j++) a[r][j] = _mm512_setzero_ps();
  }
  const char *w0 = w[0], *w1 = w[1], *w2 = w[2], *w3 = w[3];
  int64_t i = 0;
  for (; i + 8 <= n; i += 8, x += 16 * NP, next += 64) {
    __builtin_prefetch(next);
    __m512 v[6], u;
    UNROLL for (int r = 0; r < NP; r++) v[r] = _mm512_loadu_ps(x + 16 * r);
    u = twice(load_weights(kind, w0, i));
    UNROLL for (int r = 0; r < NP; r++) a[r][0] = _mm512_fmadd_ps(u, v[r], a[r][0]);
    u = twice(load_weights(kind, w1, i));
    UNROLL for (int r = 0; r < NP; r++) a[r][1] = _mm512_fmadd_ps(u, v[r], a[r][1]);
    u = twice(load_weights(kind, w2, i));
    UNROLL for (int r = 0; r < NP; r++) a[r][2] = _mm512_fmadd_ps(u, v[r], a[r][2]);
    u = twice(load_weights(kind, w3, i));
    UNROLL for (int r = 0; r < NP; r++) a[r][3] = _mm512_fmadd_ps(u, v[r], a[r][3]);
  }
  if (i < n) {
    UNROLL for (int j = 0; j < 4; j++) {
      __m512 u = twice(load_last_weights(kind, w[j], i, n - i).part[0]);
      UNROLL for (int r = 0; r < NP; r++) {
        a[r][j] = _mm512_fmadd_ps(u, _mm512_loadu_ps(x + 16 * r), a[r][j]);
      }
    }
  }
  UNROLL for (int r = 0; r < NP; r++) {
    f8 low[4], high[4];
    UNROLL for (int j = 0; j < 4; j++) {
      low[j].part[0] = (vf)_mm512_castps512_ps256(a[r][j]);
      high[j].part[0] = (vf)_mm512_extractf32x8_ps(a[r][j], 1);
    }
    sums[2 * r] = sum4(low);
    sums[2 * r + 1] = sum4(high);
  }
}
#endif

// Sums of two products of int16 in each lane of 32 bits, added to c.
#ifdef __AVX512VNNI__
INLINE vi add_pairs(vs a, vs b, vi c) {
  return (vi)_mm256_dpwssd_epi32((__m256i)c, (__m256i)a, (__m256i)b);
}
#elif defined(__AVX2__) && defined(__FMA__)
INLINE vi add_pairs(vs a, vs b, vi c) {
  return (vi)((vu)c + (vu)_mm256_madd_epi16((__m256i)a, (__m256i)b));
}
#elif defined(__SSE2__)
INLINE vi add_pairs(vs a, vs b, vi c) {
  return (vi)((vu)c + (vu)_mm_madd_epi16((__m128i)a, (__m128i)b));
}
#else
INLINE vi add_pairs(vs a, vs b, vi c) {
  int32x4_t low = vmull_s16(vget_low_s16((int16x8_t)a), vget_low_s16((int16x8_t)b));
  int32x4_t high = vmull_high_s16((int16x8_t)a, (int16x8_t)b);
  return (vi)((vu)c + (vu)vpaddq_s32(low, high));
}
#endif

// Weights i .. i + 2 * WIDTH - 1 of a row of HE_INT4, as int16. Byte b of a group's sixteen holds
// weight b in its lower half and weight b + 16 in its upper half, each plus 8.
INLINE vs load_int4(const char *row, int64_t i) {
  vs v = widen_int8(load_bytes(row + i / GROUP * (GROUP / 2) + i % 16));
  return (i % GROUP < 16 ? v & 15 : (v & 255) >> 4) - 8;
}

// Registers of an exact sum, whose lanes are free: the widest ones.
#ifdef __AVX512VNNI__
typedef int16_t vs_wide __attribute__((vector_size(64)));
typedef uint32_t vu_wide __attribute__((vector_size(64)));
INLINE vs_wide load_int8_wide(const char *p) {
  return (vs_wide)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
}
INLINE vu_wide add_pairs_wide(vs_wide a, vs_wide b, vu_wide c) {
  return (vu_wide)_mm512_dpwssd_epi32((__m512i)c, (__m512i)a, (__m512i)b);
}
INLINE vu narrow(vu_wide a) {
  return (vu)_mm512_castsi512_si256((__m512i)a) + (vu)_mm512_extracti64x4_epi64((__m512i)a, 1);
}
#else
typedef vs vs_wide;
typedef vu vu_wide;
INLINE vs_wide load_int8_wide(const char *p) { return widen_int8(load_bytes(p)); }
INLINE vu_wide add_pairs_wide(vs a, vs b, vu c) { return (vu)add_pairs(a, b, (vi)c); }
INLINE vu narrow(vu_wide a) { return a; }
#endif
#define WIDE ((int64_t)sizeof(vs_wide) / 2)
// The sums of the lanes of four accumulators.
INLINE u4 sum4_integers(const vu_wide a[4]) {
  u4 h[4];
  UNROLL for (int j = 0; j < 4; j++) {
    vu v = narrow(a[j]);
#if WIDTH == 8
    h[j] = __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
#else
    h[j] = v;
#endif
  }
  u4 sum01 = __builtin_shufflevector(h[0], h[1], 0, 4, 2, 6) +
             __builtin_shufflevector(h[0], h[1], 1, 5, 3, 7);
  u4 sum23 = __builtin_shufflevector(h[2], h[3], 0, 4, 2, 6) +
             __builtin_shufflevector(h[2], h[3], 1, 5, 3, 7);
  return __builtin_shufflevector(sum01, sum23, 0, 1, 4, 5) +
         __builtin_shufflevector(sum01, sum23, 2, 3, 6, 7);
}

// As `float_tile`, for int8 weights and quantised inputs: exact sums, in any order. Rows of input
// are padded with 0 to a multiple of 16.
INLINE void int8_tile(
    const int NR, const char *const w[4], const float *const scales[4], int64_t n,
    const int16_t *x, const float *x_scales, int64_t row_step, v4 sums[NR]) {
  vu_wide a[INTEGER_ROWS][4] = {0};
  int64_t i = 0;
  for (; i + WIDE <= n; i += WIDE) {
    vs_wide v[INTEGER_ROWS];
    UNROLL for (int r = 0; r < NR; r++) memcpy(&v[r], x + r * row_step + i, sizeof v[r]);
    UNROLL for (int j = 0; j < 4; j++) {
      if (NR < TILE_ROWS) __builtin_prefetch(w[j] + i + AHEAD);
      vs_wide u = load_int8_wide(w[j] + i);
      UNROLL for (int r = 0; r < NR; r++) a[r][j] = add_pairs_wide(u, v[r], a[r][j]);
    }
  }
  v4 scale = {*scales[0], *scales[1], *scales[2], *scales[3]};
  UNROLL for (int r = 0; r < NR; r++) {
    u4 sum = sum4_integers(a[r]);
    for (int64_t k = i; k < n; k++) {
      const int32_t v = x[r * row_step + k];
      UNROLL for (int j = 0; j < 4; j++) sum[j] += (uint32_t)(((const int8_t *)w[j])[k] * v);
    }
    sums[r] = __builtin_convertvector((i4)sum, v4) * (scale * x_scales[r]);
  }
}
// As `int8_tile`, for int4 weights. The eight lanes of integers of a group are exact: lane l has
// the products of numbers i with i / 2 mod 8 = l. Their chains over the groups are of floats.
INLINE void int4_tile(
    const int NR, const char *const w[4], const float *const scales[4], int64_t n,
    const int16_t *x, const float *x_scales, int64_t row_step, v4 sums[NR]) {
  f8 a[INTEGER_ROWS][4];
  UNROLL for (int r = 0; r < NR; r++) UNROLL for (int j = 0; j < 4; j++) a[r][j] = set8(0);
  for (int64_t i = 0; i < n; i += GROUP) {
    UNROLL for (int j = 0; j < 4; j++) {
      vf scale = splat(scales[j][i / GROUP]);
      EACH_PART {
        vs low = load_int4(w[j], i + p * 2 * WIDTH), high = load_int4(w[j], i + 16 + p * 2 * WIDTH);
        UNROLL for (int r = 0; r < NR; r++) {
          vs v[2];
          memcpy(&v[0], x + r * row_step + i + p * 2 * WIDTH, sizeof(vs));
          memcpy(&v[1], x + r * row_step + i + 16 + p * 2 * WIDTH, sizeof(vs));
          vi sum = add_pairs(high, v[1], add_pairs(low, v[0], (vi){0}));
          a[r][j].part[p] = fmav(__builtin_convertvector(sum, vf), scale, a[r][j].part[p]);
        }
      }
    }
  }
  UNROLL for (int r = 0; r < NR; r++) {
    sums[r] = sum4(a[r]) * x_scales[r];
  }
}

// Largest absolute value of a quantised input: 14 bits, or as many as keep an exact sum of `in`
// products with int8 weights within 32 bits.
static int32_t input_limit(int64_t in) {
  int64_t limit = INT32_MAX / (127 * in);
  return limit > 8191 ? 8191 : (int32_t)limit;
}
// The largest absolute value of n numbers, by their bits: a NaN counts as larger than infinity. 0 if
// it is below 1e-30, because its reciprocal would be infinite.
static float largest_of(const float *x, int64_t n) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < n; i++) {
    uint32_t u = bits_of(load1(x + i)) & 0x7fffffffu;
    largest = u > largest ? u : largest;
  }
  return largest < bits_of(1e-30f) ? 0 : float_of(largest);
}
// Quantises one row: to nearest, ties to even.
static void quantise(const float *x, int64_t n, int32_t limit, int16_t *q, float *scale) {
  float top = largest_of(x, n);
  *scale = top / (float)limit;
  float inverse = top > 0 ? (float)limit / top : 0;
  for (int64_t i = 0; i < n; i++) {
    float biased = x[i] * inverse + ROUND_BIAS;
    q[i] = (int16_t)(bits_of(biased) - ROUND_BITS);
  }
}

// What a loop over outputs needs. Packed inputs are groups of rows, in blocks of eight columns
// (integers: row after row).
typedef struct {
  const product *products;
  int count;
  int64_t rows, in, padded; // padded: `in` as a multiple of the columns of a block
  int few;
  int tile_rows; // of a tile at most
  const float *packed; // floats, or NULL if the input is read where it is
  const int16_t *quantised;
  const float *x_scales;
  float *pack_to;
  int16_t *quantise_to;
  float *scales_to;
} loop;

// Rows of the group that begins at row r: of three at most, but four rows make two groups of two.
INLINE int group_rows(const loop *l, int64_t r) {
  int64_t left = l->rows - r;
  if (l->tile_rows > TILE_ROWS) return (int)(left < l->tile_rows ? left : l->tile_rows);
  return left >= 5 || left == 3 ? 3 : left >= 2 ? 2 : 1;
}

// Items are groups. Four rows at the end are two groups of two; an odd row is half of a pair.
static void pack_groups(void *context, int64_t first, int64_t last) {
  const loop *l = context;
  const product *q = l->products;
  for (int64_t g = first; g < last; g++) {
    int last_four = l->rows % PACKED_ROWS == 1 && l->rows > 1 && (g + 1) * PACKED_ROWS > l->rows;
    int64_t r = g * PACKED_ROWS - (PACKED_ROWS == TILE_ROWS && last_four);
    int count = group_rows(l, r), odd = PACKED_ROWS > TILE_ROWS && count % 2;
    float *to = l->pack_to + r * l->padded;
    for (int64_t i = 0; i < l->padded; i += 8) {
      int64_t n = l->in - i < 8 ? l->in - i : 8;
      for (int k = 0; k < count; k++, to += 8) {
        store8(to, load_some(q->x + (r + k) * q->x_step + i, n));
      }
      if (odd) store8(to, set8(0)), to += 8;
    }
  }
}
static void quantise_rows(void *context, int64_t first, int64_t last) {
  const loop *l = context;
  const product *q = l->products;
  for (int64_t r = first; r < last; r++) {
    int16_t *to = l->quantise_to + r * l->padded;
    quantise(q->x + r * q->x_step, l->in, input_limit(l->in), to, l->scales_to + r);
    memset(to + l->in, 0, (size_t)(l->padded - l->in) * sizeof *to);
  }
}

// The tile of `count` rows from row r on, and of the outputs j[0] .. j[3]. `next` is what to
// prefetch if the input is packed, or NULL.
typedef void tile_function(
    const loop *l, const product *q, const int64_t j[4], const char *next, int64_t r, int count,
    v4 *sums);

INLINE void tile(
    const int kind, const int packed, const int NR, const loop *l, const product *q,
    const int64_t j[4], const char *next, int64_t r, v4 *sums) {
  const he_matrix *m = q->matrix;
  const char *w[4];
  for (int k = 0; k < 4; k++) w[k] = (const char *)m->rows + j[k] * row_bytes(kind, m->in);
  if (kind == HE_INT8 || kind == HE_INT4) {
    const int64_t groups = kind == HE_INT8 ? 1 : m->in / GROUP;
    const float *scales[4];
    for (int k = 0; k < 4; k++) scales[k] = m->scales + j[k] * groups;
    const int16_t *x = l->quantised + r * l->padded;
    if (kind == HE_INT8) int8_tile(NR, w, scales, m->in, x, l->x_scales + r, l->padded, sums);
    else int4_tile(NR, w, scales, m->in, x, l->x_scales + r, l->padded, sums);
  } else if (packed) {
#ifdef __AVX512VNNI__
    pair_tile(kind, NR, w, next ? next : w[0], m->in, l->packed + r * l->padded, sums);
#else
    const float *x = l->packed + r * l->padded;
    if (next) float_tile(kind, NR, 1, w, next, m->in, x, 8, 8 * NR, sums);
    else float_tile(kind, NR, 0, w, next, m->in, x, 8, 8 * NR, sums);
#endif
  } else {
    float_tile(kind, NR, 0, w, next, m->in, q->x + r * q->x_step, q->x_step, 8, sums);
  }
}
#define CASE(NR)                                                                         \
  case NR: tile(kind, packed, NR, l, q, j, next, r, sums); break;
#define CASES_3 CASE(1) CASE(2) CASE(3)
#define TILES(name, KIND, PACKED, COUNT, CASES)                                          \
  static void name(                                                                      \
      const loop *l, const product *q, const int64_t j[4], const char *next, int64_t r,  \
      int count, v4 *sums) {                                                             \
    const int kind = KIND, packed = PACKED;                                              \
    switch (COUNT) { CASES }                                                             \
    for (int i = 0; q->bias && i < count; i++) {                                         \
      for (int k = 0; k < 4; k++) sums[i][k] += q->bias[j[k]];                           \
    }                                                                                    \
  }
#ifdef __AVX512VNNI__
#define PACKED_CASE (count + 1) / 2
#define CASES_MORE CASES_3 CASE(4) CASE(5) CASE(6)
#else
#define PACKED_CASE count
#define CASES_MORE CASES_3
#endif
#define FLOAT_TILES(name, kind)                                                          \
  TILES(name, kind, 0, count, CASES_3) TILES(name##_packed, kind, 1, PACKED_CASE, CASES_MORE)
FLOAT_TILES(float32, HE_FLOAT32)
FLOAT_TILES(bfloat16, HE_BFLOAT16)
FLOAT_TILES(float16, HE_FLOAT16)
TILES(int8, HE_INT8, 0, count, CASES_MORE)
TILES(int4, HE_INT4, 0, count, CASES_MORE)
// By kind, and whether the input is packed.
static tile_function *const TILE_FUNCTIONS[5][2] = {
    {float32, float32_packed}, {bfloat16, bfloat16_packed}, {int8}, {int4},
    {float16, float16_packed}};

// Outputs first .. last - 1 of a matrix for many rows, four neighbouring ones at a time.
static void near_outputs(const loop *l, const product *q, int64_t first, int64_t last) {
  int64_t chunk = CHUNK_BYTES / (l->padded * 4) / 12 * 12;
  if (chunk < 12) chunk = 12;
  int64_t bytes = row_bytes(q->matrix->kind, q->matrix->in);
  tile_function *tile_at = TILE_FUNCTIONS[q->matrix->kind][l->packed != NULL];
  for (int64_t begin = 0; begin < l->rows; begin += chunk) {
    int64_t end = begin + chunk;
    if (end > l->rows || l->rows - end < 3) end = l->rows; // groups as `group_rows` makes them
    for (int64_t j = first; j < last; j += 4) {
      int64_t outputs[4], n = last - j < 4 ? last - j : 4;
      UNROLL for (int k = 0; k < 4; k++) outputs[k] = k < n ? j + k : j;
      const char *next = (const char *)q->matrix->rows + (j + 4) * bytes;
      for (int64_t r = begin; r < end;) {
        float *y = q->y + r * q->y_step + j;
        v4 sums[PACKED_ROWS];
        int count = group_rows(l, r);
        // The next four rows of weights are n / 4 lines, two rounds of one line at each step.
        int ahead = j + 8 <= last && r < begin + 2 * l->tile_rows;
        tile_at(l, q, outputs, ahead ? next : NULL, r, count, sums);
        next += l->padded * 8;
        for (int k = 0; k < count; k++) memcpy(y + k * q->y_step, &sums[k], (size_t)n * 4);
        r += count;
      }
    }
    if (end == l->rows) break;
  }
}

// Outputs first, first + 1, ... last - 1 of the first quarter of a matrix, and those as far into
// the other quarters, for few rows.
static void far_outputs(const loop *l, const product *q, int64_t first, int64_t last) {
  int64_t quarter = q->matrix->out / 4;
  tile_function *tile_at = TILE_FUNCTIONS[q->matrix->kind][l->packed != NULL];
  for (int64_t j = first; j < last; j++) {
    int64_t outputs[4];
    UNROLL for (int k = 0; k < 4; k++) outputs[k] = j + k * quarter;
    for (int64_t r = 0; r < l->rows;) {
      v4 sums[PACKED_ROWS];
      int count = group_rows(l, r);
      tile_at(l, q, outputs, NULL, r, count, sums);
      for (int k = 0; k < count; k++) {
        UNROLL for (int o = 0; o < 4; o++) q->y[(r + k) * q->y_step + outputs[o]] = sums[k][o];
      }
      r += count;
    }
  }
}

// Fours of outputs, counted over all products.
static void multiply_outputs(void *context, int64_t first, int64_t last) {
  const loop *l = context;
  for (int i = 0; i < l->count; i++) {
    const product *q = &l->products[i];
    int64_t out = q->matrix->out, fours = (out + 3) / 4;
    int64_t a = first > 0 ? first : 0, b = last < fours ? last : fours;
    if (a < b && l->few) {
      int64_t whole = out / 4;
      far_outputs(l, q, a, b < whole ? b : whole);
      if (b > whole) near_outputs(l, q, whole * 4, out);
    } else if (a < b) {
      near_outputs(l, q, a * 4, b * 4 < out ? b * 4 : out);
    }
    first -= fours;
    last -= fours;
  }
}
int multiply(pool *pool, scratch *scratch, const product *products, int count, int64_t rows) {
  const he_matrix *m = products->matrix;
  loop l = {.products = products, .count = count, .rows = rows, .in = m->in};
  l.few = rows <= 2 * TILE_ROWS;
  l.tile_rows = TILE_ROWS;
  int integers = m->kind == HE_INT8 || m->kind == HE_INT4;
  int64_t block = integers ? 16 : 8;
  l.padded = (m->in + block - 1) / block * block;
  if (integers) {
    int64_t size = rows * (l.padded * 2 + 4) + 64;
    char *memory = scratch_get(scratch, size);
    if (!memory) return -1;
    l.x_scales = l.scales_to = (float *)memory;
    l.tile_rows = INTEGER_ROWS;
    l.quantised = l.quantise_to = (int16_t *)(memory + (rows * 4 + 63) / 64 * 64);
    share(rows > 8 ? pool : NULL, rows, 1, quantise_rows, &l);
  } else if (!l.few || m->in % 8) {
    l.packed = l.pack_to = scratch_get(scratch, (rows + 1) * l.padded * 4);
    if (!l.packed) return -1;
    l.tile_rows = PACKED_ROWS;
    share(rows > 8 ? pool : NULL, (rows + PACKED_ROWS - 1) / PACKED_ROWS, 1, pack_groups, &l);
  }
  int64_t fours = 0;
  for (int i = 0; i < count; i++) fours += (products[i].matrix->out + 3) / 4;
  share(pool, fours, 1, multiply_outputs, &l);
  return 0;
}

int multiply_one(
    pool *pool, scratch *scratch, const he_matrix *matrix, const float *x, float *y, int64_t rows) {
  product one = {matrix, x, y, NULL, matrix->in, matrix->out};
  return multiply(pool, scratch, &one, 1, rows);
}

void *scratch_get(scratch *scratch, int64_t size) {
  if (scratch->size < size) {
    free(scratch->memory);
    scratch->memory = aligned_alloc(64, (size_t)(size + 63) / 64 * 64);
    scratch->size = scratch->memory ? size : 0;
  }
  return scratch->memory;
}
void scratch_free(scratch *scratch) {
  free(scratch->memory);
  *scratch = (struct scratch){0};
}

void *arena_get(arena *arena, int64_t size) {
  void *block = aligned_alloc(64, (size_t)(size / 64 + 1) * 64);
  if (block) arena->blocks[arena->count++] = block;
  else arena->failed = 1;
  return block;
}
float *arena_floats(arena *arena, int64_t count) { return arena_get(arena, count * 4); }
void arena_free(arena *arena) {
  while (arena->count) free(arena->blocks[--arena->count]);
}

EXPORT int32_t he_product(
    pool *pool, const he_matrix *matrix, const float *bias, const float *x, float *y,
    int64_t rows) {
  scratch scratch = {0};
  uint64_t state = enter_ieee();
  product one = {matrix, x, y, bias, matrix->in, matrix->out};
  int failed = multiply(pool, &scratch, &one, 1, rows);
  leave_ieee(state);
  scratch_free(&scratch);
  return failed ? HE_NO_MEMORY : HE_OK;
}

// `x` need not be aligned: it may lie in a file.
static void convert_row(const float *x, int64_t in, int kind, char *row, float *scales) {
  if (kind == HE_BFLOAT16) {
    for (int64_t i = 0; i < in; i++) { // to nearest, ties to even; a NaN stays one
      uint32_t u = bits_of(load1(x + i));
      int nan = (u & 0x7fffffffu) > 0x7f800000u;
      uint16_t h = nan ? (uint16_t)(u >> 16 | 64) : (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
      memcpy(row + 2 * i, &h, 2);
    }
    return;
  }
  int64_t group = kind == HE_INT8 ? in : GROUP;
  int32_t limit = kind == HE_INT8 ? 127 : 7;
  for (int64_t g = 0; g < in; g += group) {
    float scale = largest_of(x + g, group) / (float)limit, inverse = scale > 0 ? 1.0f / scale : 0;
    scales[g / group] = scale;
    for (int64_t i = g; i < g + group; i++) {
      float biased = load1(x + i) * inverse + ROUND_BIAS;
      int32_t q = (int32_t)(bits_of(biased) - ROUND_BITS);
      q = q > limit ? limit : q < -limit ? -limit : q;
      if (!is_finite(scale)) q = 0; // processors differ in the sign of infinity * 0
      if (kind == HE_INT8) {
        row[i] = (char)q;
      } else {
        char *byte = row + g / 2 + (i - g) % 16;
        *byte = (char)((i - g < 16 ? 0 : (uint8_t)*byte) | (uint8_t)(q + 8) << (i - g < 16 ? 0 : 4));
      }
    }
  }
}
EXPORT void he_convert(
    const float *x, int64_t out, int64_t in, int32_t kind, void *rows, float *scales) {
  uint64_t state = enter_ieee();
  int64_t groups = kind == HE_INT8 ? 1 : kind == HE_INT4 ? in / GROUP : 0;
  for (int64_t j = 0; j < out; j++) {
    convert_row(x + j * in, in, kind, (char *)rows + j * row_bytes(kind, in), scales + j * groups);
  }
  leave_ieee(state);
}
