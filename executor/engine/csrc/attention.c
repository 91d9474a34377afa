// Norms and attention. A step and a pass over all steps share this code, so their bits are equal.
#include "attention.h"

#include "arithmetic.h"

#define INFINITE __builtin_inff()

static float sum_all(const float *x, int64_t n) {
  f8 sum = set8(0);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) sum = add8(sum, load8(x + i));
  if (i < n) sum = add8(sum, load_some(x + i, n - i));
  return sum8(sum);
}

void layer_norm(
    const float *x, int64_t n, const float *weight, const float *bias, float epsilon, float *y) {
  f8 mean = set8(sum_all(x, n) / (float)n), sum = set8(0);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    f8 d = sub8(load8(x + i), mean);
    sum = fma8(d, d, sum);
  }
  if (i < n) { // missing numbers add 0, not the square of the mean
    float d[8] = {0};
    for (int64_t k = 0; k < n - i; k++) d[k] = x[i + k] - mean.part[0][0];
    sum = fma8(load8(d), load8(d), sum);
  }
  f8 factor = set8(1.0f / root(sum8(sum) / (float)n + epsilon));
  for (i = 0; i + 8 <= n; i += 8) {
    f8 d = mul8(sub8(load8(x + i), mean), factor);
    store8(y + i, fma8(d, load8(weight + i), load8(bias + i)));
  }
  if (i < n) {
    f8 d = mul8(sub8(load_some(x + i, n - i), mean), factor);
    f8 z = fma8(d, load_some(weight + i, n - i), load_some(bias + i, n - i));
    store_some(y + i, z, n - i);
  }
}

void rms_norm(const float *x, int64_t n, const float *weight, float epsilon, float *y) {
  f8 factor = set8(1.0f / root(dot(x, x, n) / (float)n + epsilon));
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    store8(y + i, mul8(mul8(load8(x + i), factor), load8(weight + i)));
  }
  if (i < n) {
    f8 d = mul8(load_some(x + i, n - i), factor);
    store_some(y + i, mul8(d, load_some(weight + i, n - i)), n - i);
  }
}

void add_rows(float *x, const float *y, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] += y[i];
}

float maximum(const float *x, int64_t n) {
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

void attend(const attended *to, const float *query, float *scores, float *y) {
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
