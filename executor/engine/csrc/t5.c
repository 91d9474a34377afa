// T5: relative position biases, layers, and the encoder. pop2piano.c generates with a decoder.
//
// A layer is computed for a range of positions of some rows at once: all positions for an encoder and
// for replay, one position for a step. Nothing but the range differs, so the bits are equal.
#include "t5.h"

#include "arithmetic.h"
#include "attention.h"

#define GRAIN 8 // positions that one thread takes at least in a loop of little work

// The bucket of a key's position relative to its query (negative: before it). Half of the buckets
// are one position each, the others grow with the logarithm of the distance.
static int32_t bucket_of(int64_t position, int64_t buckets, int64_t max_distance, int decoder) {
  int64_t base = 0, distance = -position;
  if (!decoder) {
    buckets /= 2;
    if (position > 0) base = buckets;
    if (position > 0) distance = position;
  }
  if (distance < 0) distance = 0; // a decoder attends to no later position
  int64_t exact = buckets / 2;
  if (distance < exact) return (int32_t)(base + distance);
  float ratio = log_((float)distance / (float)exact);
  ratio = ratio / log_((float)max_distance / (float)exact) * (float)(buckets - exact);
  int64_t last = buckets - 1 - exact;
  int64_t step = ratio < (float)last ? (int64_t)ratio : last;
  return (int32_t)(base + exact + step);
}
EXPORT void he_t5_buckets(
    int64_t buckets, int64_t max_distance, int32_t decoder, int64_t length, int32_t *bucket) {
  uint64_t state = enter_ieee();
  for (int64_t position = 1 - length; position < length; position++) {
    bucket[position + length - 1] = bucket_of(position, buckets, max_distance, decoder);
  }
  leave_ieee(state);
}

int t5_begin(t5_pass *p, pool *pool, const he_t5_stack *stack, int64_t rows, int64_t count,
             int64_t capacity, int64_t source) {
  const he_t5_layer *l = stack->layers;
  int64_t heads = stack->heads, inner = l->self.query.out, n = rows * count;
  *p = (t5_pass){.pool = pool, .stack = stack, .rows = rows, .count = count, .capacity = capacity};
  p->cached = rows;
  p->source = source;
  p->width = l->self.query.in;
  p->inner = inner;
  p->size = inner / heads;
  p->bias_step = 2 * capacity - 1;
  arena *a = &p->arena;
  p->x = arena_floats(a, n * p->width);
  p->y = arena_floats(a, n * p->width);
  p->query = arena_floats(a, n * inner);
  p->key = arena_floats(a, n * inner);
  p->value = arena_floats(a, n * inner);
  p->up = arena_floats(a, n * l->up.out);
  if (l->gate.out) p->gate = arena_floats(a, n * l->up.out);
  p->bias = arena_floats(a, heads * p->bias_step);
  int64_t layers = stack->decoder ? stack->layer_count : 1; // an encoder's layers share a cache
  p->keys = arena_floats(a, layers * rows * capacity * inner);
  p->values = arena_floats(a, layers * rows * capacity * inner);
  p->cross_keys = arena_floats(a, layers * rows * source * inner);
  p->cross_values = arena_floats(a, layers * rows * source * inner);
  if (a->failed) return HE_NO_MEMORY;
  for (int64_t position = 1 - capacity; position < capacity; position++) {
    int32_t b = bucket_of(position, stack->buckets, stack->max_distance, stack->decoder);
    for (int64_t h = 0; h < heads; h++) {
      p->bias[h * p->bias_step + position + capacity - 1] = stack->bias[b * heads + h];
    }
  }
  return 0;
}

void t5_end(t5_pass *p) {
  arena_free(&p->arena);
  scratch_free(&p->scratch);
}

void t5_embed(const he_matrix *table, const int32_t *tokens, int64_t count, float *x) {
  for (int64_t i = 0; i < count; i++) widen_row(table, tokens[i], x + i * table->in);
}

void t5_norm(t5_pass *p, const float *weight) {
  norm norm = {p->x, p->y, weight, NULL, p->width, p->width, p->stack->epsilon};
  norm_rows(p->pool, &norm, p->rows * p->count);
}
static void add_positions(void *context, int64_t first, int64_t last) {
  const t5_pass *p = context;
  add_rows(p->x + first * p->width, p->y + first * p->width, (last - first) * p->width);
}
static void activate_positions(void *context, int64_t first, int64_t last) {
  const t5_pass *p = context;
  int64_t out = p->stack->layers->up.out, n = (last - first) * out;
  float *up = p->up + first * out, *x = p->gate ? p->gate + first * out : up;
  switch (p->stack->activation) {
  case HE_RELU: relu_all(x, n); break;
  case HE_GELU: gelu_all(x, n); break;
  default: gelu_tanh_all(x, n);
  }
  if (p->gate) {
    for (int64_t i = 0; i < n; i++) up[i] = x[i] * up[i];
  }
}

static int64_t lane_of(const t5_pass *p, int64_t row) { return p->lanes ? p->lanes[row] : row; }

// Keys and values of `count` positions of each row, to the cache (rows, heads, capacity, size).
static void store_heads(const t5_pass *p, const float *from, int64_t count, int64_t first,
                        int64_t capacity, float *cache) {
  for (int64_t r = 0; r < p->rows; r++) {
    float *to = cache + lane_of(p, r) * capacity * p->inner;
    spread_heads(from + r * count * p->inner, p->inner, count, p->stack->heads, p->size, to,
                 capacity, first);
  }
}

// Attends with p->query, and adds the result's product with `output` to x. The result is where the
// keys were that are in the cache by now. `self`: to positions up to its own, or of an encoder to all.
static int attend_and_add(t5_pass *p, const float *keys, const float *values, int self,
                          const he_matrix *output) {
  int64_t n = p->rows * p->count, step = p->inner;
  attention a = {.query = p->query, .y = p->key, .keys = keys, .values = values, .places = p->lanes,
                 .lanes = p->rows, .count = p->count, .first = p->first, .heads = p->stack->heads,
                 .size = p->size, .capacity = self ? p->capacity : p->source, .scale = 1,
                 .query_lane = p->count * step, .query_step = step, .y_lane = p->count * step,
                 .y_step = step, .bias_step = p->bias_step, .causal = self && p->stack->decoder};
  if (self) a.bias = p->bias + p->capacity - 1;
  attend_all(p->pool, &a);
  if (multiply_one(p->pool, &p->scratch, output, p->key, p->y, n)) return HE_NO_MEMORY;
  share(p->pool, n, GRAIN, add_positions, p);
  return 0;
}

static int self_attention(t5_pass *p, const he_t5_attention *l, int64_t index) {
  int64_t n = p->rows * p->count, cached = index * p->cached * p->capacity * p->inner;
  t5_norm(p, l->norm);
  product products[] = {{&l->query, p->y, p->query, NULL, p->width, p->inner},
                        {&l->key, p->y, p->key, NULL, p->width, p->inner},
                        {&l->value, p->y, p->value, NULL, p->width, p->inner}};
  if (multiply(p->pool, &p->scratch, products, 3, n)) return HE_NO_MEMORY;
  float *keys = p->keys + cached, *values = p->values + cached;
  store_heads(p, p->key, p->count, p->first, p->capacity, keys);
  store_heads(p, p->value, p->count, p->first, p->capacity, values);
  return attend_and_add(p, keys, values, 1, &l->output);
}
static int cross_attention(t5_pass *p, const he_t5_attention *l, int64_t index) {
  int64_t cached = index * p->cached * p->source * p->inner;
  t5_norm(p, l->norm);
  int64_t n = p->rows * p->count;
  if (multiply_one(p->pool, &p->scratch, &l->query, p->y, p->query, n)) return HE_NO_MEMORY;
  return attend_and_add(p, p->cross_keys + cached, p->cross_values + cached, 0, &l->output);
}
static int feed_forward(t5_pass *p, const he_t5_layer *l) {
  int64_t n = p->rows * p->count;
  t5_norm(p, l->norm);
  product products[] = {{&l->up, p->y, p->up, NULL, p->width, l->up.out},
                        {&l->gate, p->y, p->gate, NULL, p->width, l->up.out}};
  if (multiply(p->pool, &p->scratch, products, p->gate ? 2 : 1, n)) return HE_NO_MEMORY;
  share(p->pool, n, GRAIN, activate_positions, p);
  if (multiply_one(p->pool, &p->scratch, &l->down, p->up, p->y, n)) return HE_NO_MEMORY;
  share(p->pool, n, GRAIN, add_positions, p);
  return 0;
}

int t5_layers(t5_pass *p, const volatile int32_t *stop) {
  const he_t5_stack *s = p->stack;
  for (int64_t i = 0; i < s->layer_count; i++) {
    if (is_stopped(stop)) return HE_STOPPED;
    const he_t5_layer *l = &s->layers[i];
    if (self_attention(p, &l->self, s->decoder ? i : 0)) return HE_NO_MEMORY;
    if (s->decoder && cross_attention(p, &l->cross, i)) return HE_NO_MEMORY;
    if (feed_forward(p, l)) return HE_NO_MEMORY;
  }
  t5_norm(p, s->norm);
  return HE_OK;
}

// Keys and values of the encoder's output, for all layers and steps of a decoder.
int t5_attend_to(t5_pass *p, const float *hidden) {
  int64_t n = p->rows * p->source, cached = n * p->inner;
  arena arena = {0};
  float *key = arena_floats(&arena, cached), *value = arena_floats(&arena, cached);
  int failed = arena.failed;
  for (int64_t i = 0; i < p->stack->layer_count && !failed; i++) {
    const he_t5_attention *l = &p->stack->layers[i].cross;
    product products[] = {{&l->key, hidden, key, NULL, l->key.in, p->inner},
                          {&l->value, hidden, value, NULL, l->key.in, p->inner}};
    failed = multiply(p->pool, &p->scratch, products, 2, n);
    if (failed) break;
    store_heads(p, key, p->source, 0, p->source, p->cross_keys + i * cached);
    store_heads(p, value, p->source, 0, p->source, p->cross_values + i * cached);
  }
  arena_free(&arena);
  return failed ? HE_NO_MEMORY : HE_OK;
}

int t5_finite(const float *x, int64_t n) {
  int finite = 1;
  for (int64_t i = 0; i < n; i++) finite &= is_finite(x[i]);
  return finite;
}

EXPORT int32_t he_t5_encode(
    const he_t5_stack *encoder, pool *pool, const int32_t *tokens, const float *inputs, int64_t rows,
    int64_t length, float *hidden, const volatile int32_t *stop) {
  t5_pass p;
  uint64_t state = enter_ieee();
  int status = t5_begin(&p, pool, encoder, rows, length, length, 0);
  if (!status) {
    int64_t n = rows * length;
    if (tokens) t5_embed(&encoder->embedding, tokens, n, p.x);
    else memcpy(p.x, inputs, (size_t)(n * p.width) * sizeof *inputs);
    status = t5_layers(&p, stop);
    if (!status) memcpy(hidden, p.y, (size_t)(n * p.width) * sizeof *hidden);
    if (!status && !t5_finite(hidden, n * p.width)) status = HE_NOT_FINITE;
  }
  t5_end(&p);
  leave_ieee(state);
  return status;
}
