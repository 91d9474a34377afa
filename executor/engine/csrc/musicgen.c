// The decoder of MusicGen: generation step by step, and replay of all steps in one pass.
//
// A row is one number vector of one position, sequence and side: rows of a step lie as
// (sequence, side). Side 0 is with the prompt; side 1, if the song is guided, is without: its
// prompt is all zeros, so what attention to it adds is 0 and is not computed. A melody model has no
// such attention: the prompt of each side is what comes before the steps.
//
// Both ways run `forward` over blocks of positions. No sum depends on the rows beside it, so
// generation (blocks of one) and replay give equal bits.
#include <stdlib.h>

#include "arithmetic.h"
#include "attention.h"
#include "positions.h"
#include "product.h"
#include "sampling.h"

#define KEPT_EVERY 64
#define GRAIN 4 // rows that one thread takes at least in a loop over rows
#define PREFIX_BLOCK 96 // positions of a pass over what comes before the steps

typedef struct {
  const he_musicgen *model;
  pool *pool;
  const he_song *song;
  int64_t sequences, sides, block;  // of one pass
  int64_t prefix, positions;        // before the steps, and with them
  float *keys, *values;             // (layer, sequence, side, head, position, size)
  float *cross_keys, *cross_values; // (layer, head, prompt, size)
  float *x, *y, *wide, *logits;     // of a block: (rows, width) twice, (rows, wide), (rows, logits)
  int32_t *column;                  // what is read: (block, sequence, codebook)
  choice *choice;
  generator *generators; // of each sequence
  scratch scratch;
  arena arena;
} decoder;

static int64_t head_size(const decoder *d) { return d->model->width / d->model->heads; }
static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

static void decoder_free(decoder *d) {
  arena_free(&d->arena);
  free(d->choice);
  scratch_free(&d->scratch);
}

// Returns HE_OK or HE_NO_MEMORY; `decoder_free` frees it in either case.
static int decoder_start(
    decoder *d, const he_musicgen *model, pool *pool, const he_song *song, int64_t sequences,
    int64_t block) {
  *d = (decoder){.model = model, .pool = pool, .song = song, .block = block};
  d->sequences = sequences;
  d->sides = song->guided ? 2 : 1;
  d->prefix = model->prefixed ? song->prompt_length : 0;
  d->positions = d->prefix + song->steps;
  if (d->prefix && block < PREFIX_BLOCK) d->block = PREFIX_BLOCK;
  int64_t width = model->width, rows = d->block * sequences * d->sides;
  int64_t cache = sequences * d->sides * model->layers * d->positions * width;
  int64_t cross = (int64_t)model->layers * (song->prompt_length - d->prefix) * width;
  arena *a = &d->arena;
  d->keys = arena_floats(a, cache);
  d->values = arena_floats(a, cache);
  d->cross_keys = arena_floats(a, cross);
  d->cross_values = arena_floats(a, cross);
  d->x = arena_floats(a, rows * width);
  d->y = arena_floats(a, rows * width);
  d->wide = arena_floats(a, max64(rows, song->prompt_length) * max64(model->inner, 3 * width));
  d->logits = arena_floats(a, rows * model->codebooks * model->vocabulary);
  d->column = arena_get(a, d->block * sequences * model->codebooks * (int64_t)sizeof *d->column);
  d->generators = arena_get(a, sequences * (int64_t)sizeof *d->generators);
  d->choice = choice_new(model->vocabulary);
  return a->failed || !d->choice ? HE_NO_MEMORY : HE_OK;
}

// Keys and values of the prompt for all layers.
static int read_prompt(decoder *d) {
  const he_musicgen *m = d->model;
  int64_t width = m->width, length = d->song->prompt_length;
  for (int64_t l = 0; l < m->layers; l++) {
    const he_musicgen_layer *layer = &m->layer[l];
    float *k = d->wide, *v = d->wide + length * width;
    const product products[] = {
        {&layer->cross_k, d->song->prompt, k, NULL, width, width},
        {&layer->cross_v, d->song->prompt, v, NULL, width, width}};
    if (multiply(d->pool, &d->scratch, products, 2, length)) return HE_NO_MEMORY;
    float *keys = d->cross_keys + l * length * width, *values = d->cross_values + l * length * width;
    spread_heads(k, width, length, m->heads, head_size(d), keys, length, 0);
    spread_heads(v, width, length, m->heads, head_size(d), values, length, 0);
  }
  return HE_OK;
}

static void norm_block(decoder *d, const float *const weights[2], int64_t step, int64_t rows) {
  norm norm = {d->x, d->y, weights[0], weights[1], d->model->width, step, 1e-5f};
  norm_rows(d->pool, &norm, rows);
}

static void apply_gelu(void *context, int64_t first, int64_t last) {
  gelu_all((float *)context + first, last - first);
}

// The sums of embeddings and positions of a block.
static void embed(decoder *d, int64_t first, int64_t count) {
  const he_musicgen *m = d->model;
  int64_t width = m->width;
  for (int64_t t = 0; t < count; t++) {
    write_position(d->prefix + first + t, width, d->y);
    for (int64_t s = 0; s < d->sequences; s++) {
      float *x = d->x + (t * d->sequences + s) * d->sides * width;
      const int32_t *column = d->column + (t * d->sequences + s) * m->codebooks;
      widen_row(&m->embedding[0], column[0], x);
      for (int k = 1; k < m->codebooks; k++) add_matrix_row(&m->embedding[k], column[k], x);
      add_rows(x, d->y, width);
      if (d->sides == 2) memcpy(x + width, x, (size_t)width * 4);
    }
  }
}

// Adds a layer's attention to the prompt, to the rows with it.
static int attend_to_prompt(decoder *d, int64_t l, int64_t count) {
  const he_musicgen *m = d->model;
  const he_musicgen_layer *layer = &m->layer[l];
  int64_t width = m->width, rows = count * d->sequences, step = d->sides * width;
  int64_t size = head_size(d), cross = d->song->prompt_length * width;
  norm_block(d, layer->norm[1], step, rows);
  if (multiply_one(d->pool, &d->scratch, &layer->cross_q, d->y, d->wide, rows)) return HE_NO_MEMORY;
  // All rows attend to the same keys: they are the positions of one lane.
  attention a = {.query = d->wide, .y = d->y, .keys = d->cross_keys + l * cross,
                 .values = d->cross_values + l * cross, .lanes = 1, .count = rows,
                 .heads = m->heads, .size = size, .capacity = d->song->prompt_length,
                 .query_step = width, .y_step = width, .scale = 1.0f / root((float)size)};
  attend_all(d->pool, &a);
  if (multiply_one(d->pool, &d->scratch, &layer->cross_out, d->y, d->wide, rows)) {
    return HE_NO_MEMORY;
  }
  for (int64_t r = 0; r < rows; r++) add_rows(d->x + r * step, d->wide + r * width, width);
  return HE_OK;
}

// Positions first .. first + count - 1, counted with those before the steps.
static int run_layer(decoder *d, int64_t l, int64_t first, int64_t count) {
  const he_musicgen *m = d->model;
  const he_musicgen_layer *layer = &m->layer[l];
  int64_t width = m->width, lanes = d->sequences * d->sides, rows = count * lanes;
  int64_t cached = d->positions * width;
  norm_block(d, layer->norm[0], width, rows);
  const product projections[] = {
      {&layer->q, d->y, d->wide, NULL, width, 3 * width},
      {&layer->k, d->y, d->wide + width, NULL, width, 3 * width},
      {&layer->v, d->y, d->wide + 2 * width, NULL, width, 3 * width}};
  if (multiply(d->pool, &d->scratch, projections, 3, rows)) return HE_NO_MEMORY;
  float *keys = d->keys + l * lanes * cached, *values = d->values + l * lanes * cached;
  int64_t size = head_size(d), step = lanes * 3 * width;
  for (int64_t lane = 0; lane < lanes; lane++) {
    const float *k = d->wide + lane * 3 * width + width;
    float *to_keys = keys + lane * cached, *to_values = values + lane * cached;
    spread_heads(k, step, count, m->heads, size, to_keys, d->positions, first);
    spread_heads(k + width, step, count, m->heads, size, to_values, d->positions, first);
  }
  attention a = {.query = d->wide, .y = d->y, .keys = keys, .values = values, .lanes = lanes,
                 .count = count, .first = first, .heads = m->heads, .size = size,
                 .capacity = d->positions, .query_lane = 3 * width, .query_step = step,
                 .y_lane = width, .y_step = lanes * width, .scale = 1.0f / root((float)size),
                 .causal = 1};
  attend_all(d->pool, &a);
  if (multiply_one(d->pool, &d->scratch, &layer->out, d->y, d->wide, rows)) return HE_NO_MEMORY;
  add_rows(d->x, d->wide, rows * width);
  if (!m->prefixed && attend_to_prompt(d, l, count)) return HE_NO_MEMORY;
  norm_block(d, layer->norm[2], width, rows);
  if (multiply_one(d->pool, &d->scratch, &layer->up, d->y, d->wide, rows)) return HE_NO_MEMORY;
  share(d->pool, rows * m->inner, GRAIN * 1024, apply_gelu, d->wide);
  if (multiply_one(d->pool, &d->scratch, &layer->down, d->wide, d->y, rows)) return HE_NO_MEMORY;
  add_rows(d->x, d->y, rows * width);
  return HE_OK;
}

// Keys and values of what comes before the steps.
static int read_prefix(decoder *d) {
  const he_musicgen *m = d->model;
  int64_t width = m->width, lanes = d->sequences * d->sides;
  for (int64_t first = 0; first < d->prefix; first += d->block) {
    int64_t count = d->prefix - first < d->block ? d->prefix - first : d->block;
    for (int64_t t = 0; t < count; t++) {
      write_position(first + t, width, d->y);
      for (int64_t lane = 0; lane < lanes; lane++) {
        float *x = d->x + (t * lanes + lane) * width;
        int64_t row = lane % d->sides * d->prefix + first + t;
        memcpy(x, d->song->prompt + row * width, (size_t)width * 4);
        add_rows(x, d->y, width);
      }
    }
    for (int64_t l = 0; l < m->layers; l++) {
      if (run_layer(d, l, first, count)) return HE_NO_MEMORY;
    }
  }
  return HE_OK;
}

// Computes the logits of `count` positions from `first` on: (position, sequence, codebook,
// vocabulary), after guidance. Returns HE_OK, HE_NO_MEMORY or HE_NOT_FINITE.
static int forward(decoder *d, int64_t first, int64_t count) {
  const he_musicgen *m = d->model;
  int64_t width = m->width, rows = count * d->sequences * d->sides;
  int64_t logits = (int64_t)m->codebooks * m->vocabulary;
  embed(d, first, count);
  for (int64_t l = 0; l < m->layers; l++) {
    if (run_layer(d, l, d->prefix + first, count)) return HE_NO_MEMORY;
  }
  norm_block(d, m->norm, width, rows);
  product heads[HE_MAX_CODEBOOKS];
  for (int64_t k = 0; k < m->codebooks; k++) {
    heads[k] =
        (product){&m->head[k], d->y, d->logits + k * m->vocabulary, NULL, width, logits};
  }
  if (multiply(d->pool, &d->scratch, heads, m->codebooks, rows)) return HE_NO_MEMORY;
  int finite = 1;
  for (int64_t r = 0; r < count * d->sequences; r++) {
    const float *with = d->logits + r * d->sides * logits, *without = with + logits;
    float *to = d->logits + r * logits; // at or before what is read
    for (int64_t i = 0; i < logits; i++) {
      float x = with[i];
      if (d->sides == 2) x = without[i] + (with[i] - without[i]) * d->song->guidance;
      finite &= is_finite(x);
      to[i] = x;
    }
  }
  return finite ? HE_OK : HE_NOT_FINITE;
}

EXPORT void he_musicgen_column(
    const he_musicgen *model, int32_t steps, int32_t step, const int32_t *tokens, int32_t *column) {
  int32_t delays = model->delays, start = model->vocabulary;
  int32_t masked = steps + 1 >= 2 * delays - 1; // transformers delays nothing in shorter ones
  for (int32_t k = 0; k < model->codebooks; k++) {
    int32_t delay = k / (model->codebooks / delays);
    int32_t outside = masked ? step <= delay || step >= steps + 2 - delays + delay : step == 0;
    column[k] = outside ? start : tokens[(int64_t)(step - 1) * model->codebooks + k];
  }
}

static int32_t kept_index(int32_t steps, int32_t step) { // -1: not kept
  if (step % KEPT_EVERY == KEPT_EVERY - 1) return step / KEPT_EVERY;
  return step == steps - 1 ? step / KEPT_EVERY : -1;
}
EXPORT int32_t he_kept_steps(int32_t steps) { return (steps + KEPT_EVERY - 1) / KEPT_EVERY; }

static void keep(const decoder *d, int32_t sequence, int32_t step, const float *from, float *to) {
  int64_t logits = (int64_t)d->model->codebooks * d->model->vocabulary;
  int32_t index = kept_index(d->song->steps, step);
  if (index < 0) return;
  int64_t row = (int64_t)sequence * he_kept_steps(d->song->steps) + index;
  memcpy(to + row * logits, from, (size_t)logits * 4);
}

static int generate(
    decoder *d, int32_t *tokens, float *kept, const volatile int32_t *stop,
    volatile int64_t *done) {
  const he_musicgen *m = d->model;
  const he_song *song = d->song;
  int64_t logits = (int64_t)m->codebooks * m->vocabulary;
  int status = d->model->prefixed ? read_prefix(d) : read_prompt(d);
  for (int32_t step = 0; step < song->steps && !status; step++) {
    if (is_stopped(stop)) return HE_STOPPED;
    for (int32_t s = 0; s < song->sequences; s++) {
      const int32_t *sequence = tokens + (int64_t)s * song->steps * m->codebooks;
      he_musicgen_column(m, song->steps, step, sequence, d->column + s * m->codebooks);
    }
    if ((status = forward(d, step, 1))) break;
    for (int32_t s = 0; s < song->sequences; s++) {
      int32_t *to = tokens + ((int64_t)s * song->steps + step) * m->codebooks;
      for (int32_t k = 0; k < m->codebooks; k++) {
        const float *row = d->logits + s * logits + (int64_t)k * m->vocabulary;
        to[k] = choose(d->choice, &song->sampling, &d->generators[s], row);
      }
      keep(d, s, step, d->logits + s * logits, kept);
    }
    set_done(done, *done + 1);
  }
  return status;
}

EXPORT int32_t he_musicgen_generate(
    const he_musicgen *model, pool *pool, const he_song *song, int32_t *tokens, float *logits,
    const volatile int32_t *stop, volatile int64_t *done) {
  uint64_t state = enter_ieee();
  decoder d;
  int status = decoder_start(&d, model, pool, song, song->sequences, 1);
  if (!status) {
    for (int32_t s = 0; s < song->sequences; s++) generator_seed(&d.generators[s], song->seeds[s]);
    status = generate(&d, tokens, logits, stop, done);
  }
  decoder_free(&d);
  leave_ieee(state);
  return status;
}

// Draws the tokens of a block, and compares. Returns HE_OK or HE_DIFFERENT.
static int compare(
    decoder *d, int32_t sequence, int32_t step, int32_t count, const int32_t *tokens, float *kept,
    int32_t first[3]) {
  const he_musicgen *m = d->model;
  for (int32_t t = 0; t < count; t++) {
    const float *row = d->logits + (int64_t)t * m->codebooks * m->vocabulary;
    keep(d, sequence, step + t, row, kept);
    for (int32_t k = 0; k < m->codebooks; k++, row += m->vocabulary) {
      int32_t token = choose(d->choice, &d->song->sampling, d->generators, row);
      if (token != tokens[(int64_t)(step + t) * m->codebooks + k]) {
        first[0] = sequence;
        first[1] = step + t;
        first[2] = k;
        return HE_DIFFERENT;
      }
    }
  }
  return HE_OK;
}

EXPORT int32_t he_musicgen_replay(
    const he_musicgen *model, pool *pool, const he_song *song, int32_t block,
    const int32_t *tokens, float *logits, int32_t first[3], const volatile int32_t *stop,
    volatile int64_t *done) {
  uint64_t state = enter_ieee();
  decoder d;
  int status = decoder_start(&d, model, pool, song, 1, block);
  if (!status) status = model->prefixed ? read_prefix(&d) : read_prompt(&d);
  for (int32_t s = 0; s < song->sequences && !status; s++) {
    const int32_t *sequence = tokens + (int64_t)s * song->steps * model->codebooks;
    generator_seed(d.generators, song->seeds[s]);
    for (int32_t step = 0; step < song->steps && !status; step += block) {
      int32_t count = song->steps - step < block ? song->steps - step : block;
      if (is_stopped(stop)) {
        status = HE_STOPPED;
        break;
      }
      for (int32_t t = 0; t < count; t++) {
        int32_t *column = d.column + (int64_t)t * model->codebooks;
        he_musicgen_column(model, song->steps, step + t, sequence, column);
      }
      status = forward(&d, step, count);
      if (!status) status = compare(&d, s, step, count, sequence, logits, first);
      set_done(done, *done + count);
    }
  }
  decoder_free(&d);
  leave_ieee(state);
  return status;
}
