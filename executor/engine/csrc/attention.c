// Norms and attention. A step and a pass over all steps share this code, so their bits are equal.
#include "attention.h"

#include "arithmetic.h"
#include "engine.h"

#define INFINITE __builtin_inff()
#define GRAIN 4 // rows that one thread takes at least

static float sum_all(const float *x, int64_t n) {
  f8 sum = set8(0);
  for (int64_t i = 0; i < n; i += 8) sum = add8(sum, load_up_to8(x + i, n - i));
  return sum8(sum);
}

static void layer_norm(
    const float *x, int64_t n, const float *weight, const float *bias, float epsilon, float *y) {
  f8 mean = set8(sum_all(x, n) / (float)n), sum = set8(0);
  for (int64_t i = 0; i < n; i += 8) {
    float d[8];
    store8(d, sub8(load_up_to8(x + i, n - i), mean));
    f8 part = load_up_to8(d, n - i); // missing numbers add 0, not the square of the mean
    sum = fma8(part, part, sum);
  }
  f8 factor = set8(1.0f / root(sum8(sum) / (float)n + epsilon));
  for (int64_t i = 0; i < n; i += 8) {
    int64_t left = n - i;
    f8 d = mul8(sub8(load_up_to8(x + i, left), mean), factor);
    store_up_to8(y + i, fma8(d, load_up_to8(weight + i, left), load_up_to8(bias + i, left)), left);
  }
}

static void rms_norm(const float *x, int64_t n, const float *weight, float epsilon, float *y) {
  f8 factor = set8(1.0f / root(dot(x, x, n) / (float)n + epsilon));
  for (int64_t i = 0; i < n; i += 8) {
    f8 d = mul8(load_up_to8(x + i, n - i), factor);
    store_up_to8(y + i, mul8(d, load_up_to8(weight + i, n - i)), n - i);
  }
}

static void norm_some(void *context, int64_t first, int64_t last) {
  const norm *l = context;
  for (int64_t r = first; r < last; r++) {
    const float *x = l->x + r * l->step;
    float *y = l->y + r * l->n;
    if (l->bias) layer_norm(x, l->n, l->weight, l->bias, l->epsilon, y);
    else rms_norm(x, l->n, l->weight, l->epsilon, y);
  }
}
void norm_rows(pool *pool, const norm *norm, int64_t rows) {
  share(pool, rows, GRAIN, norm_some, (void *)norm);
}

void add_rows(float *x, const float *y, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] += y[i];
}

// The largest of n numbers that are not NaN; -infinity if there is none.
static float maximum(const float *x, int64_t n) {
  float largest = -INFINITE;
  for (int64_t i = 0; i < n; i++) {
    if (x[i] > largest) largest = x[i];
  }
  return largest;
}

void spread_heads(
    const float *from, int64_t step, int64_t count, int64_t heads, int64_t size, float *to,
    int64_t positions, int64_t first) {
  for (int64_t t = 0; t < count; t++) {
    for (int64_t h = 0; h < heads; h++) {
      float *place = to + (h * positions + first + t) * size;
      memcpy(place, from + t * step + h * size, (size_t)size * sizeof *to);
    }
  }
}

// What one query attends to: `count` keys and values of `size` numbers, row after row.
typedef struct {
  const float *keys, *values;
  const float *bias; // added to the score of each key, or NULL
  int64_t count, size;
  float scale;
} attended;

// scores[j] = query . keys[j] * scale + bias[j], four keys at a time
static void score(const attended *to, const float *query, float *scores) {
  int64_t size = to->size, j = 0;
  for (; size % 8 == 0 && j + 4 <= to->count; j += 4) {
    const float *k = to->keys + j * size;
    f8 a[4] = {set8(0), set8(0), set8(0), set8(0)};
    for (int64_t i = 0; i < size; i += 8) {
      f8 q = load8(query + i);
      UNROLL for (int n = 0; n < 4; n++) a[n] = fma8(load8(k + n * size + i), q, a[n]);
    }
    v4 s = sum4(a) * to->scale;
    if (to->bias) {
      v4 bias;
      memcpy(&bias, to->bias + j, sizeof bias);
      s += bias;
    }
    memcpy(scores + j, &s, sizeof s);
  }
  for (; j < to->count; j++) {
    float s = dot(query, to->keys + j * size, size) * to->scale;
    scores[j] = to->bias ? s + to->bias[j] : s;
  }
}

// Writes the numbers of one head for one query. `scores` has room for `count` + 7 numbers.
static void attend(const attended *to, const float *query, float *scores, float *y) {
  int64_t count = to->count, size = to->size, padded = (count + 7) & ~(int64_t)7;
  score(to, query, scores);
  vf largest = splat(maximum(scores, count));
  for (int64_t j = count; j < padded; j++) scores[j] = -INFINITE;
  f8 sum = set8(0);
  for (int64_t j = 0; j < padded; j += 8) {
    f8 s = load8(scores + j);
    EACH_PART {
      vf e = expv(s.part[p] - largest);
      // exp's argument is limited, so that of -infinity would not be 0.
      s.part[p] = (vf)((vi)e & (vi)(s.part[p] > -INFINITE));
    }
    store8(scores + j, s);
    sum = add8(sum, s);
  }
  f8 factor = set8(1.0f / sum8(sum));
  // Each output is one chain over the positions. Sixty-four chains fill the registers.
  int64_t d = 0;
  for (; d + 64 <= size; d += 64) {
    f8 a[8];
    UNROLL for (int k = 0; k < 8; k++) a[k] = set8(0);
    const float *v = to->values + d;
    for (int64_t j = 0; j < count; j++, v += size) {
      f8 e = set8(scores[j]);
      UNROLL for (int k = 0; k < 8; k++) a[k] = fma8(e, load8(v + 8 * k), a[k]);
    }
    UNROLL for (int k = 0; k < 8; k++) store8(y + d + 8 * k, mul8(a[k], factor));
  }
  for (; d < size; d += 8) {
    int64_t n = size - d < 8 ? size - d : 8;
    f8 a = set8(0);
    const float *v = to->values + d;
    for (int64_t j = 0; j < count; j++, v += size) {
      a = fma8(set8(scores[j]), n == 8 ? load8(v) : load_some(v, n), a);
    }
    store_some(y + d, mul8(a, factor), n);
  }
}

// Items are (lane, head, position): one head's keys stay in the cache.
static void attend_some(void *context, int64_t first, int64_t last) {
  const attention *a = context;
  float scores[HE_MAX_POSITIONS + 8];
  for (int64_t item = first; item < last; item++) {
    int64_t t = item % a->count, h = item / a->count % a->heads, lane = item / a->count / a->heads;
    int64_t place = a->places ? a->places[lane] : lane, position = a->first + t;
    int64_t cache = (place * a->heads + h) * a->capacity * a->size;
    attended to = {a->keys + cache, a->values + cache, NULL, a->capacity, a->size, a->scale};
    if (a->bias) to.bias = a->bias + h * a->bias_step - position;
    if (a->causal) to.count = position + 1;
    const float *query = a->query + lane * a->query_lane + t * a->query_step + h * a->size;
    attend(&to, query, scores, a->y + lane * a->y_lane + t * a->y_step + h * a->size);
  }
}
void attend_all(pool *pool, const attention *attention) {
  int64_t items = attention->lanes * attention->heads * attention->count;
  share(pool, items, 1, attend_some, (void *)attention);
}
