// The arithmetic of the engine: every number has one order of IEEE-754 binary32 operations.
//
// A sum has eight lanes, whatever the processor's registers: lane l takes the terms l, l + 8, ... in
// order, and the lanes are added as ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)). Exponentials and
// their kind are the polynomials below. Nothing comes from libm but the square root, which
// IEEE-754 defines exactly. So the bits do not depend on the processor, the compiler, the number of
// threads, or the rows that are computed beside each other. docs/engine.md states the same in words.
//
// A fused multiply-add is written `fma_`; the compiler must make none of its own
// (-ffp-contract=off). Conversions from float to integer go through the addition of 1.5 * 2^23,
// because a cast of a value that is out of range differs between processors.
#ifndef HELIUM_ARITHMETIC_H
#define HELIUM_ARITHMETIC_H

#include <stdint.h>
#include <string.h>

#if defined(__FAST_MATH__) || defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#error "fast math reorders operations: compile without it"
#endif
#if defined(__i386__) || defined(__arm__)
#error "x87 and 32-bit NEON do not compute IEEE-754 binary32"
#endif

#define INLINE static inline __attribute__((always_inline, unused))

// Lanes in a register. With eight fixed lanes, wider registers would add nothing.
#if defined(__AVX2__) && defined(__FMA__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
#define PARTS (8 / WIDTH)

typedef float vf __attribute__((vector_size(4 * WIDTH)));
typedef int32_t vi __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t vu __attribute__((vector_size(4 * WIDTH)));
typedef struct { vf part[PARTS]; } f8;
typedef float v4 __attribute__((vector_size(16)));

// Loops over constant numbers of registers, unrolled: otherwise the sums would live in memory.
#define UNROLL _Pragma("GCC unroll 8")
#define EACH_PART UNROLL for (int p = 0; p < PARTS; p++)

INLINE vf splat(float x) { return x - (vf){0}; } // x - 0 is x, also for -0
INLINE float load1(const float *x) { float a; memcpy(&a, x, sizeof a); return a; }
INLINE vf loadv(const float *x) { vf v; memcpy(&v, x, sizeof v); return v; }
INLINE vf selectv(vi mask, vf yes, vf no) { return (vf)(((vi)yes & mask) | ((vi)no & ~mask)); }

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
INLINE vf fmav(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
#elif defined(__aarch64__)
#include <arm_neon.h>
INLINE vf fmav(vf a, vf b, vf c) {
  return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
#else
// Without the instruction: the product is exact in double, the sum is rounded to odd there, and
// then once to float, which gives the correctly rounded result (Boldo and Melquiond, 2008).
typedef double vd __attribute__((vector_size(32)));
typedef int64_t vl __attribute__((vector_size(32)));
INLINE vf fmav(vf a, vf b, vf c) {
  vd x = __builtin_convertvector(a, vd) * __builtin_convertvector(b, vd);
  vd y = __builtin_convertvector(c, vd);
  vd sum = x + y, big = sum - x, error = (x - (sum - big)) + (y - big);
  vl bits = (vl)sum;
  vl even = (bits & 1) == 0, finite = (bits & 0x7ff0000000000000) != 0x7ff0000000000000;
  // Towards the error: one unit up if it has the sign of the sum, else one down.
  vl same = ((vl)error ^ bits) >= 0, step = (same & 1) | (~same & -1);
  bits += step & even & finite & (error != 0);
  return __builtin_convertvector((vd)bits, vf);
}
#endif

INLINE f8 set8(float x) { f8 a; EACH_PART a.part[p] = splat(x); return a; }
INLINE f8 load8(const float *x) {
  f8 a;
  EACH_PART a.part[p] = loadv(x + p * WIDTH);
  return a;
}
INLINE void store8(float *y, f8 a) { memcpy(y, &a, sizeof a); }
// The first n of eight numbers; the others are +0.
INLINE f8 load_some(const float *x, int64_t n) {
  float a[8] = {0};
  memcpy(a, x, (size_t)n * sizeof *x);
  return load8(a);
}
INLINE void store_some(float *y, f8 a, int64_t n) { memcpy(y, &a, (size_t)n * sizeof *y); }
// The same where n may be eight or more.
INLINE f8 load_up_to8(const float *x, int64_t n) { return n >= 8 ? load8(x) : load_some(x, n); }
INLINE void store_up_to8(float *y, f8 a, int64_t n) {
  if (n >= 8) store8(y, a);
  else store_some(y, a, n);
}
INLINE f8 add8(f8 a, f8 b) { EACH_PART a.part[p] += b.part[p]; return a; }
INLINE f8 sub8(f8 a, f8 b) { EACH_PART a.part[p] -= b.part[p]; return a; }
INLINE f8 mul8(f8 a, f8 b) { EACH_PART a.part[p] *= b.part[p]; return a; }
INLINE f8 div8(f8 a, f8 b) { EACH_PART a.part[p] /= b.part[p]; return a; }
INLINE f8 fma8(f8 a, f8 b, f8 c) {
  EACH_PART a.part[p] = fmav(a.part[p], b.part[p], c.part[p]);
  return a;
}
// The sum of eight lanes.
INLINE float sum8(f8 a) {
  float t[8];
  store8(t, a);
  return ((t[0] + t[4]) + (t[2] + t[6])) + ((t[1] + t[5]) + (t[3] + t[7]));
}
// The sums of the lanes of four accumulators, each in the order of `sum8`.
INLINE v4 sum4(const f8 a[4]) {
  v4 h[4];
  UNROLL for (int j = 0; j < 4; j++) {
#if WIDTH == 8
    vf v = a[j].part[0];
    h[j] = __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
#else
    h[j] = a[j].part[0] + a[j].part[1];
#endif
  }
  v4 even01 = __builtin_shufflevector(h[0], h[1], 0, 4, 2, 6); // 0 0' 2 2'
  v4 odd01 = __builtin_shufflevector(h[0], h[1], 1, 5, 3, 7);
  v4 even23 = __builtin_shufflevector(h[2], h[3], 0, 4, 2, 6);
  v4 odd23 = __builtin_shufflevector(h[2], h[3], 1, 5, 3, 7);
  v4 even = __builtin_shufflevector(even01, even23, 0, 1, 4, 5) +
            __builtin_shufflevector(even01, even23, 2, 3, 6, 7);
  v4 odd = __builtin_shufflevector(odd01, odd23, 0, 1, 4, 5) +
           __builtin_shufflevector(odd01, odd23, 2, 3, 6, 7);
  return even + odd;
}

INLINE float root(float x) { return __builtin_sqrtf(x); } // one instruction with -fno-math-errno
INLINE float fma_(float a, float b, float c) { return fmav(splat(a), splat(b), splat(c))[0]; }

// A float's bits, and back.
INLINE uint32_t bits_of(float x) { uint32_t u; memcpy(&u, &x, 4); return u; }
INLINE float float_of(uint32_t u) { float x; memcpy(&x, &u, 4); return x; }
INLINE int is_finite(float x) { return (bits_of(x) & 0x7f800000u) != 0x7f800000u; }

// Limits x to low .. high by comparing integers, which are in the order of the floats of one sign.
// A NaN becomes `high`: comparisons of floats would be compiled to instructions that differ in
// what they make of it. low < 0 < high.
INLINE vf clampv(vf x, float low, float high) {
  vu bits = (vu)x;
  vi below = (vi)(bits > (vu)splat(low)) & (vi)(bits <= 0xff800000u); // negative and larger
  vi above = (vi)((vi)x > (vi)splat(high)) | (vi)(bits > 0xff800000u);
  return selectv(below, splat(low), selectv(above, splat(high), x));
}

#define ROUND_BIAS 12582912.0f // 1.5 * 2^23: adding it rounds to an integer, to nearest, ties to even
#define ROUND_BITS 0x4b400000u

// exp(x) for x in -87 .. 88, which it is limited to; at most 1 unit in the last place off (Cephes).
INLINE vf expv(vf x) {
  x = clampv(x, -87.0f, 88.0f);
  vf biased = x * 1.44269504f + ROUND_BIAS, k = biased - ROUND_BIAS;
  vf r = fmav(k, splat(-0.693359375f), x);
  r = fmav(k, splat(2.12194440e-4f), r);
  vf q = splat(1.9875691500e-4f);
  q = fmav(q, r, splat(1.3981999507e-3f));
  q = fmav(q, r, splat(8.3334519073e-3f));
  q = fmav(q, r, splat(4.1665795894e-2f));
  q = fmav(q, r, splat(1.6666665459e-1f));
  q = fmav(q, r, splat(5.0000001201e-1f));
  q = fmav(q, r * r, r + 1.0f);
  return q * (vf)(((vu)biased - ROUND_BITS + 127u) << 23);
}
INLINE float exp_(float x) { return expv(splat(x))[0]; }

// erf by a rational function on -3.83 .. 3.83, beyond which it is 1 in binary32.
INLINE vf erfv(vf x) {
  vf t = clampv(x, -3.832506856900711f, 3.832506856900711f), z = t * t;
  vf a = splat(0.00022905065861350646f);
  a = fmav(a, z, splat(0.0034082910107109506f));
  a = fmav(a, z, splat(0.050955695062380861f));
  a = fmav(a, z, splat(0.18520832239976145f));
  a = fmav(a, z, splat(1.128379143519084f));
  vf b = splat(-1.1791602954361697e-7f);
  b = fmav(b, z, splat(0.000023547966471313185f));
  b = fmav(b, z, splat(0.0010179625278914885f));
  b = fmav(b, z, splat(0.014070470171167667f));
  b = fmav(b, z, splat(0.11098505178285362f));
  b = fmav(b, z, splat(0.49746925110067538f));
  b = fmav(b, z, splat(1.0f));
  return t * a / b;
}
// x/2 * (1 + erf(x / sqrt 2))
INLINE vf geluv(vf x) {
  vf half = x * 0.5f;
  return fmav(half, erfv(x * 0.70710678118654752f), half);
}
INLINE vi is_nan(vf x) { return ((vi)x & 0x7fffffff) > 0x7f800000; }
// tanh: an odd polynomial near 0 (Cephes), else 1 - 2 / (exp(2 |x|) + 1) with the sign of x.
INLINE vf tanhv(vf x) {
  vi sign = (vi)x & (vi)splat(-0.0f);
  vf a = (vf)((vi)x & ~(vi)splat(-0.0f)), z = x * x;
  vf q = splat(-5.70498872745e-3f);
  q = fmav(q, z, splat(2.06390887954e-2f));
  q = fmav(q, z, splat(-5.37397155531e-2f));
  q = fmav(q, z, splat(1.33314422036e-1f));
  q = fmav(q, z, splat(-3.33332819422e-1f));
  vf near = fmav(q * z, x, x);
  vf far = 1.0f - 2.0f / (expv(a + a) + 1.0f);
  far = (vf)((vi)far | sign);
  return selectv(((vi)a < (vi)splat(0.625f)) | is_nan(x), near, far);
}
// gelu by its approximation with tanh, as the first GPT has it
INLINE vf gelu_tanhv(vf x) {
  vf half = x * 0.5f, inner = fmav(x * x * x, splat(0.044715f), x) * 0.79788456080286536f;
  return fmav(half, tanhv(inner), half);
}
INLINE vf reluv(vf x) { return selectv(((vi)x >= 0) | is_nan(x), x, splat(0.0f)); }
INLINE vf sigmoidv(vf x) { return selectv(is_nan(x), x, 1.0f / (1.0f + expv(-x))); }
// x, or exp(x) - 1 if it is negative (ELU). Near 0 by exp's polynomial without its 1.
INLINE vf eluv(vf x) {
  vf r = x, q = splat(1.9875691500e-4f);
  q = fmav(q, r, splat(1.3981999507e-3f));
  q = fmav(q, r, splat(8.3334519073e-3f));
  q = fmav(q, r, splat(4.1665795894e-2f));
  q = fmav(q, r, splat(1.6666665459e-1f));
  q = fmav(q, r, splat(5.0000001201e-1f));
  vf near = fmav(q, r * r, r), far = expv(x) - 1.0f;
  vi close = (vu)x < (vu)splat(-0.34657359f); // negative, and nearer to 0
  return selectv(((vi)x >= 0) | is_nan(x), x, selectv(close, near, far));
}
// log(x) for finite x > 0, at most 1 unit in the last place off (Cephes).
INLINE float log_(float x) {
  uint32_t u = bits_of(x);
  int32_t exponent = 0;
  if (u < 0x00800000u) { // a subnormal number
    u = bits_of(x * 16777216.0f);
    exponent = -24;
  }
  // The mantissa in sqrt(1/2) .. sqrt(2).
  exponent += (int32_t)(u >> 23) - 126;
  float m = float_of((u & 0x007fffffu) | 0x3f000000u);
  if (m < 0.70710678f) {
    m = m + m;
    exponent -= 1;
  }
  float r = m - 1.0f, z = r * r, q = 7.0376836292e-2f;
  q = fma_(q, r, -1.1514610310e-1f);
  q = fma_(q, r, 1.1676998740e-1f);
  q = fma_(q, r, -1.2420140846e-1f);
  q = fma_(q, r, 1.4249322787e-1f);
  q = fma_(q, r, -1.6668057665e-1f);
  q = fma_(q, r, 2.0000714765e-1f);
  q = fma_(q, r, -2.4999993993e-1f);
  q = fma_(q, r, 3.3333331174e-1f);
  q = q * r * z;
  float e = (float)exponent;
  q = fma_(e, -2.12194440e-4f, q);
  q = fma_(-0.5f, z, q);
  return fma_(e, 0.693359375f, r + q);
}

// A function of each number. n need not be a multiple of eight.
#define MAP(name, function)                                                              \
  INLINE void name(float *x, int64_t n) {                                                \
    for (int64_t i = 0; i < n; i += 8) {                                                 \
      f8 a = load_up_to8(x + i, n - i);                                                  \
      EACH_PART a.part[p] = function(a.part[p]);                                         \
      store_up_to8(x + i, a, n - i);                                                     \
    }                                                                                    \
  }
MAP(gelu_all, geluv)
MAP(gelu_tanh_all, gelu_tanhv)
MAP(relu_all, reluv)
MAP(elu_all, eluv)
MAP(tanh_all, tanhv)
MAP(sigmoid_all, sigmoidv)

// The sum of products of two rows.
INLINE float dot(const float *a, const float *b, int64_t n) {
  f8 sum = set8(0);
  for (int64_t i = 0; i < n; i += 8) {
    sum = fma8(load_up_to8(a + i, n - i), load_up_to8(b + i, n - i), sum);
  }
  return sum8(sum);
}

// The state of the floating-point unit: rounding to nearest, subnormal numbers kept. Another library
// may have left another state in this thread, so every entry from outside sets and restores it.
#if defined(__SSE2__)
#include <xmmintrin.h>
INLINE uint64_t enter_ieee(void) {
  uint64_t state = _mm_getcsr();
  _mm_setcsr(0x1f80);
  return state;
}
INLINE void leave_ieee(uint64_t state) { _mm_setcsr((unsigned)state); }
#elif defined(__aarch64__)
INLINE uint64_t enter_ieee(void) {
  uint64_t state, ieee = 0;
  __asm__ volatile("mrs %0, fpcr\n\tmsr fpcr, %1" : "=&r"(state) : "r"(ieee) : "memory");
  return state;
}
INLINE void leave_ieee(uint64_t state) {
  __asm__ volatile("msr fpcr, %0" : : "r"(state) : "memory");
}
#else
#error "the state of this processor's floating-point unit cannot be set"
#endif

#endif
