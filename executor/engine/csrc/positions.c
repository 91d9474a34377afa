// Sines and cosines of positions, computed in double and rounded once.
#include "positions.h"

#include "arithmetic.h"

#define LOG_10000 9.210340371976184
#define INVERSE_LOG2 1.4426950408889634
#define LOG2_HIGH 0.6931471803691238 // its last 21 bits are 0, so that k * LOG2_HIGH is exact
#define LOG2_LOW 1.9082149292705877e-10
#define INVERSE_HALF_PI 0.6366197723675814
#define HALF_PI_HIGH 1.5707963267341256 // its last 20 bits are 0
#define HALF_PI_LOW 6.077100506506192e-11
#define BIAS 6755399441055744.0 // 1.5 * 2^52: adding it rounds to an integer

// exp(x) for x in -700 .. 0, by the series of the exponential function.
static double exp_double(double x) {
  double biased = x * INVERSE_LOG2 + BIAS, k = biased - BIAS;
  double r = x - k * LOG2_HIGH;
  r = r - k * LOG2_LOW;
  double q = 1.0;
  for (int n = 14; n >= 1; n--) q = q * r / n + 1.0;
  uint64_t u = (uint64_t)(1023 + (int64_t)k) << 52;
  double power;
  memcpy(&power, &u, 8);
  return q * power;
}

// The sine and cosine of x in 0 .. 1e5, by their series on -pi/4 .. pi/4.
static void sine_cosine(double x, double *sine, double *cosine) {
  double biased = x * INVERSE_HALF_PI + BIAS, k = biased - BIAS;
  double r = x - k * HALF_PI_HIGH;
  r = r - k * HALF_PI_LOW;
  double z = r * r, s = 1.0, c = 1.0;
  for (int n = 16; n >= 2; n -= 2) {
    s = 1.0 - s * z / (n * (n + 1));
    c = 1.0 - c * z / (n * (n - 1));
  }
  s = s * r;
  int64_t quarter = (int64_t)k & 3;
  *sine = quarter == 0 ? s : quarter == 1 ? c : quarter == 2 ? -s : -c;
  *cosine = quarter == 0 ? c : quarter == 1 ? -s : quarter == 2 ? -c : s;
}

void write_position(int64_t position, int64_t width, float *y) {
  int64_t half = width / 2;
  float step = (float)(-LOG_10000 / (double)(half - 1)); // transformers rounds each of these
  for (int64_t i = 0; i < half; i++) {
    float frequency = (float)exp_double((double)((float)i * step));
    double sine, cosine;
    sine_cosine((double)((float)position * frequency), &sine, &cosine);
    y[i] = (float)cosine;
    y[half + i] = (float)sine;
  }
  if (width % 2) y[width - 1] = 0;
}
