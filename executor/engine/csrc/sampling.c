// Random numbers as torch draws them, and the choice of a token.
//
// `torch.multinomial` chooses the largest of p / e, where each e is exponentially distributed: e is
// -log(1 - u), and u has 53 of the 64 bits of two words of mt19937. This code draws the same words.
// It computes the logarithm by its own polynomial, in double, and leaves out the sum by which
// probabilities are divided, because that changes no order.
#include "sampling.h"

#include <stdlib.h>

#include "arithmetic.h"

#define SHIFT 397

void generator_seed(generator *generator, uint64_t seed) {
  uint32_t *word = generator->word;
  word[0] = (uint32_t)seed;
  for (uint32_t i = 1; i < TWISTER_WORDS; i++) {
    word[i] = 1812433253u * (word[i - 1] ^ word[i - 1] >> 30) + i;
  }
  generator->next = TWISTER_WORDS;
}

static void twist(uint32_t *word) {
  for (int i = 0; i < TWISTER_WORDS; i++) {
    uint32_t next = word[(i + 1) % TWISTER_WORDS];
    uint32_t mixed = (word[i] & 0x80000000u) | (next & 0x7fffffffu);
    word[i] = word[(i + SHIFT) % TWISTER_WORDS] ^ mixed >> 1 ^ (next & 1 ? 0x9908b0dfu : 0);
  }
}

static uint32_t draw_word(generator *generator) {
  if (generator->next == TWISTER_WORDS) {
    twist(generator->word);
    generator->next = 0;
  }
  uint32_t y = generator->word[generator->next++];
  y ^= y >> 11;
  y ^= y << 7 & 0x9d2c5680u;
  y ^= y << 15 & 0xefc60000u;
  return y ^ y >> 18;
}

// 53 random bits; the first word is the upper one.
static uint64_t draw_bits(generator *generator) {
  uint64_t high = draw_word(generator);
  return (high << 32 | draw_word(generator)) & ((UINT64_C(1) << 53) - 1);
}

// -log(y) for y in 0 .. 1 that is not 0, in double, to some 1e-16: log((1 + f) * 2^k) with
// s = f / (2 + f) is k * log 2 + 2 * (s + s^3 / 3 + s^5 / 5 + ...), by a polynomial in s^2.
static double minus_log(double y) {
  uint64_t u;
  memcpy(&u, &y, 8);
  int k = (int)(u >> 52) - 1023;
  u = (u & 0x000fffffffffffffu) | 0x3ff0000000000000u;
  double m;
  memcpy(&m, &u, 8);
  if (m > 1.4142135623730951) {
    m = m * 0.5;
    k += 1;
  }
  double f = m - 1.0, s = f / (2.0 + f), z = s * s;
  double q = 1.0 / 19;
  for (int n = 17; n >= 3; n -= 2) q = q * z + 1.0 / n;
  double log1 = 2.0 * s + 2.0 * s * z * q;
  return -((double)k * 0.6931471805599453 + log1);
}

// The exponentially distributed number of 53 random bits. Bits that are all 0 give 0.
static float exponential(uint64_t bits) {
  if (!bits) return 0;
  double rest = (double)((UINT64_C(1) << 53) - bits) * 0x1p-53; // 1 - u, exactly
  return (float)minus_log(rest);
}

struct choice {
  int32_t vocabulary;
  float *sorted; // largest first
  uint64_t *bits;
};

choice *choice_new(int32_t vocabulary) {
  choice *choice = malloc(sizeof *choice + (size_t)vocabulary * 12);
  if (!choice) return NULL;
  choice->vocabulary = vocabulary;
  choice->bits = (uint64_t *)(choice + 1);
  choice->sorted = (float *)(choice->bits + vocabulary);
  return choice;
}

static void sift(float *heap, int32_t at, int32_t n) {
  float x = heap[at];
  for (int32_t child; (child = 2 * at + 1) < n; at = child) {
    if (child + 1 < n && heap[child + 1] < heap[child]) child++;
    if (heap[child] >= x) break;
    heap[at] = heap[child];
  }
  heap[at] = x;
}
// Sorts n numbers, the largest first.
static void sort(float *x, int32_t n) {
  for (int32_t i = n / 2 - 1; i >= 0; i--) sift(x, i, n);
  for (int32_t end = n - 1; end > 0; end--) {
    float smallest = x[0];
    x[0] = x[end];
    x[end] = smallest;
    sift(x, 0, end);
  }
}
// The k-th largest of n numbers.
static float nth_largest(float *heap, const float *x, int32_t n, int32_t k) {
  memcpy(heap, x, (size_t)k * sizeof *x);
  for (int32_t i = k / 2 - 1; i >= 0; i--) sift(heap, i, k);
  for (int32_t i = k; i < n; i++) {
    if (x[i] > heap[0]) {
      heap[0] = x[i];
      sift(heap, 0, k);
    }
  }
  return heap[0];
}

// What a logit weighs, relative to the largest one.
static float weigh(const he_sampling *rule, float logit, float largest) {
  return exp_((logit - largest) / rule->temperature);
}

// The smallest logit that top_p keeps: the most probable ones until their sum reaches top_p, and at
// least one. Probabilities are those of logits of at least `bound`.
static float nucleus(
    choice *choice, const he_sampling *rule, const float *logits, float largest, float bound) {
  float *x = choice->sorted;
  int32_t n = 0;
  for (int32_t i = 0; i < choice->vocabulary; i++) {
    if (logits[i] >= bound) x[n++] = logits[i];
  }
  sort(x, n);
  float sum = 0;
  for (int32_t i = 0; i < n; i++) sum += weigh(rule, x[i], largest);
  // From the smallest on, as transformers sums: out while the sum is at most 1 - top_p.
  float tail = 0, limit = 1.0f - rule->top_p;
  int32_t kept = n;
  for (; kept > 1; kept--) {
    tail += weigh(rule, x[kept - 1], largest) / sum;
    if (tail > limit) break;
  }
  return x[kept - 1];
}

int32_t choose(
    choice *choice, const he_sampling *rule, generator *generator, const float *logits) {
  int32_t n = choice->vocabulary, best = 0;
  float largest = logits[0];
  for (int32_t i = 1; i < n; i++) {
    if (logits[i] > largest) {
      largest = logits[i];
      best = i;
    }
  }
  if (!rule->sample) return best;
  for (int32_t i = 0; i < n; i++) choice->bits[i] = draw_bits(generator);
  float bound = -__builtin_inff();
  if (rule->top_k > 0 && rule->top_k < n) {
    bound = nth_largest(choice->sorted, logits, n, rule->top_k);
  }
  if (rule->top_p < 1.0f) bound = nucleus(choice, rule, logits, largest, bound);
  float highest = -1;
  for (int32_t i = 0; i < n; i++) {
    if (logits[i] < bound) continue;
    // Divided by 0 it is infinite, and higher than all others.
    float x = weigh(rule, logits[i], largest) / exponential(choice->bits[i]);
    if (x > highest) {
      highest = x;
      best = i;
    }
  }
  return best;
}

void skip_choice(const choice *choice, const he_sampling *rule, generator *generator) {
  for (int32_t i = 0; rule->sample && i < choice->vocabulary; i++) draw_bits(generator);
}

// Writes `count` exponentially distributed numbers as torch draws them from `seed`; for tests.
EXPORT void he_exponentials(uint64_t seed, float *x, int64_t count) {
  generator generator;
  uint64_t state = enter_ieee();
  generator_seed(&generator, seed);
  for (int64_t i = 0; i < count; i++) x[i] = exponential(draw_bits(&generator));
  leave_ieee(state);
}
EXPORT int32_t he_choose(
    const he_sampling *rule, uint64_t seed, const float *logits, int32_t vocabulary,
    int32_t count, int32_t *tokens) {
  choice *choice = choice_new(vocabulary);
  if (!choice) return HE_NO_MEMORY;
  generator generator;
  uint64_t state = enter_ieee();
  generator_seed(&generator, seed);
  for (int32_t i = 0; i < count; i++) {
    tokens[i] = choose(choice, rule, &generator, logits + (int64_t)i * vocabulary);
  }
  leave_ieee(state);
  free(choice);
  return HE_OK;
}
