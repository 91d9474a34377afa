// The decoder of MusicGen: generation of songs step by step, and replay of all steps in one pass.
//
// A row is one number vector of one position, sequence and side. Side 0 is with the prompt; side 1,
// if the song is guided, is without: its prompt is all zeros, so what attention to it adds is 0 and
// is not computed. A melody model has no such attention: the prompt of each side is what comes before
// the steps. Rows lie song after song, those of a song as (position, sequence, side).
//
// Both ways run `forward` over blocks of positions. No sum depends on the rows beside it, so
// generation (blocks of one), replay, and songs alone or together give equal bits.
#include <stdlib.h>

#include "arithmetic.h"
#include "attention.h"
#include "positions.h"
#include "product.h"
#include "sampling.h"

#define KEPT_EVERY 64
#define GRAIN 4 // rows that one thread takes at least in a loop over rows
#define PREFIX_BLOCK 96 // positions of a pass over what comes before the steps

// A song, and what stays from one of its passes to the next.
typedef struct {
  he_song *song;
  int64_t sides, lanes;             // rows of a position: a lane is a sequence and a side
  int64_t prefix, positions;        // before the steps, and with them
  int64_t row, asking;              // of a pass: its first row, and the first of those with prompt
  float *keys, *values;             // (layer, lane, head, position, size)
  float *cross_keys, *cross_values; // (layer, head, prompt, size)
  generator *generators;            // of each sequence
  arena arena;                      // holds these until the song leaves
} voice;

typedef struct he_generation {
  const he_musicgen *model;
  pool *pool;
  voice *voices;         // songs that go on
  int64_t count, step;   // of voices; the next step
  voice *from, *to;      // of a pass
  int64_t first, block;  // of a pass: its first step, below 0 before the song's, and how many
  int64_t rows, asking;  // of a pass
  int64_t logit_count;          // of a row
  float *x, *y, *wide, *logits; // of a pass: (rows, width) twice, (rows, wide), (rows, logits)
  choice *choice;
  scratch scratch;
  arena arena;
} decoder;
#define EACH_VOICE(d) for (voice *v = (d)->from; v < (d)->to; v++)

static int64_t head_size(const decoder *d) { return d->model->width / d->model->heads; }
static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

static void decoder_free(decoder *d) {
  for (int64_t i = 0; i < d->count; i++) arena_free(&d->voices[i].arena);
  arena_free(&d->arena);
  free(d->choice);
  scratch_free(&d->scratch);
}

// Makes a decoder of songs, in passes of `block` positions. Returns HE_OK or HE_NO_MEMORY;
// `decoder_free` frees it in either case.
static int decoder_start(
    decoder *d, const he_musicgen *m, pool *pool, he_song *songs, int64_t count, int64_t block) {
  *d = (decoder){.model = m, .pool = pool};
  d->logit_count = (int64_t)m->codebooks * m->vocabulary;
  int64_t width = m->width, rows = 0, prefix_rows = 0, prompt = 0;
  int failed = !(d->voices = arena_get(&d->arena, count * (int64_t)sizeof *d->voices));
  for (; d->count < count && !failed; d->count++) {
    he_song *song = &songs[d->count];
    voice *v = &d->voices[d->count];
    *v = (voice){.song = song, .sides = song->guided ? 2 : 1};
    arena *a = &v->arena;
    v->lanes = song->sequences * v->sides;
    v->prefix = m->prefixed ? song->prompt_length : 0;
    v->positions = v->prefix + song->steps;
    int64_t cache = m->layers * v->lanes * v->positions * width;
    int64_t cross = m->layers * (song->prompt_length - v->prefix) * width;
    v->keys = arena_floats(a, cache);
    v->values = arena_floats(a, cache);
    v->cross_keys = arena_floats(a, cross);
    v->cross_values = arena_floats(a, cross);
    v->generators = arena_get(a, song->sequences * (int64_t)sizeof *v->generators);
    failed = a->failed;
    rows += block * v->lanes;
    if (v->prefix) prefix_rows = max64(prefix_rows, PREFIX_BLOCK * v->lanes);
    prompt = max64(prompt, song->prompt_length);
  }
  rows = max64(rows, prefix_rows);
  arena *a = &d->arena;
  d->x = arena_floats(a, rows * width);
  d->y = arena_floats(a, rows * width);
  d->wide = arena_floats(a, max64(rows, prompt) * max64(m->inner, 3 * width));
  d->logits = arena_floats(a, rows * d->logit_count);
  d->choice = choice_new(m->vocabulary);
  return failed || a->failed || !d->choice ? HE_NO_MEMORY : HE_OK;
}

// Keys and values of a prompt for all layers.
static int read_cross(decoder *d, const voice *v) {
  const he_musicgen *m = d->model;
  int64_t width = m->width, length = v->song->prompt_length;
  for (int64_t l = 0; l < m->layers; l++) {
    const he_musicgen_layer *layer = &m->layer[l];
    float *k = d->wide, *values_ = d->wide + length * width;
    const product products[] = {
        {&layer->cross_k, v->song->prompt, k, NULL, width, width},
        {&layer->cross_v, v->song->prompt, values_, NULL, width, width}};
    if (multiply(d->pool, &d->scratch, products, 2, length)) return HE_NO_MEMORY;
    float *keys = v->cross_keys + l * length * width, *values = v->cross_values + l * length * width;
    spread_heads(k, width, length, m->heads, head_size(d), keys, length, 0);
    spread_heads(values_, width, length, m->heads, head_size(d), values, length, 0);
  }
  return HE_OK;
}

static void norm_block(decoder *d, const float *const weights[2]) {
  norm norm = {d->x, d->y, weights[0], weights[1], d->model->width, d->model->width, 1e-5f};
  norm_rows(d->pool, &norm, d->rows);
}

static void apply_gelu(void *context, int64_t first, int64_t last) {
  gelu_all((float *)context + first, last - first);
}

// A row of a step: the sum of its codebooks' embeddings.
static void embed_tokens(
    const he_musicgen *m, const voice *v, int64_t sequence, int64_t step, float *x) {
  int32_t column[HE_MAX_CODEBOOKS], steps = v->song->steps;
  const int32_t *tokens = v->song->tokens + sequence * steps * m->codebooks;
  he_musicgen_column(m, steps, (int32_t)step, tokens, column);
  widen_row(&m->embedding[0], column[0], x);
  for (int k = 1; k < m->codebooks; k++) add_matrix_row(&m->embedding[k], column[k], x);
}

// What the layers read: embeddings or, before the steps, the prompt; and positions.
static void embed(decoder *d) {
  int64_t width = d->model->width, written = -1;
  EACH_VOICE(d) {
    for (int64_t r = 0; r < d->block * v->lanes; r++) {
      float *x = d->x + (v->row + r) * width;
      int64_t side = r % v->sides, step = d->first + r / v->lanes, position = v->prefix + step;
      if (side && step >= 0) {
        memcpy(x, x - width, (size_t)width * 4);
        continue;
      }
      if (position != written) write_position(written = position, width, d->y);
      if (step >= 0) embed_tokens(d->model, v, r % v->lanes / v->sides, step, x);
      else memcpy(x, v->song->prompt + (side * v->prefix + position) * width, (size_t)width * 4);
      add_rows(x, d->y, width);
    }
  }
}

// Adds a layer's attention to the prompt, to the rows with it.
static int attend_to_prompt(decoder *d, int64_t l) {
  const he_musicgen *m = d->model;
  const he_musicgen_layer *layer = &m->layer[l];
  int64_t width = m->width, size = head_size(d);
  EACH_VOICE(d) {
    norm norm = {d->x + v->row * width, d->y + v->asking * width, layer->norm[1][0],
                 layer->norm[1][1], width, v->sides * width, 1e-5f};
    norm_rows(d->pool, &norm, d->block * v->lanes / v->sides);
  }
  if (multiply_one(d->pool, &d->scratch, &layer->cross_q, d->y, d->wide, d->asking)) {
    return HE_NO_MEMORY;
  }
  EACH_VOICE(d) {
    int64_t cross = v->song->prompt_length * width;
    // All rows attend to the same keys: they are the positions of one lane.
    attention a = {.query = d->wide + v->asking * width, .y = d->y + v->asking * width,
                   .keys = v->cross_keys + l * cross, .values = v->cross_values + l * cross,
                   .lanes = 1, .count = d->block * v->lanes / v->sides, .heads = m->heads,
                   .size = size, .capacity = v->song->prompt_length, .query_step = width,
                   .y_step = width, .scale = 1.0f / root((float)size)};
    attend_all(d->pool, &a);
  }
  if (multiply_one(d->pool, &d->scratch, &layer->cross_out, d->y, d->wide, d->asking)) {
    return HE_NO_MEMORY;
  }
  EACH_VOICE(d) {
    const float *from = d->wide + v->asking * width;
    float *x = d->x + v->row * width, *end = x + d->block * v->lanes * width;
    for (; x < end; x += v->sides * width, from += width) add_rows(x, from, width);
  }
  return HE_OK;
}

// Keeps the keys and values of a pass, and attends to them.
static void attend_to_steps(decoder *d, int64_t l) {
  const he_musicgen *m = d->model;
  int64_t width = m->width, size = head_size(d);
  EACH_VOICE(d) {
    int64_t step = v->lanes * 3 * width, cached = v->positions * width, first = v->prefix + d->first;
    float *keys = v->keys + l * v->lanes * cached, *values = v->values + l * v->lanes * cached;
    const float *query = d->wide + v->row * 3 * width;
    for (int64_t lane = 0; lane < v->lanes; lane++) {
      const float *k = query + (lane * 3 + 1) * width;
      float *to_keys = keys + lane * cached, *to_values = values + lane * cached;
      spread_heads(k, step, d->block, m->heads, size, to_keys, v->positions, first);
      spread_heads(k + width, step, d->block, m->heads, size, to_values, v->positions, first);
    }
    attention a = {.query = query, .y = d->y + v->row * width, .keys = keys, .values = values,
                   .lanes = v->lanes, .count = d->block, .first = first, .heads = m->heads,
                   .size = size, .capacity = v->positions, .query_lane = 3 * width,
                   .query_step = step, .y_lane = width, .y_step = v->lanes * width,
                   .scale = 1.0f / root((float)size), .causal = 1};
    attend_all(d->pool, &a);
  }
}

static int run_layer(decoder *d, int64_t l) {
  const he_musicgen *m = d->model;
  const he_musicgen_layer *layer = &m->layer[l];
  int64_t width = m->width, rows = d->rows;
  norm_block(d, layer->norm[0]);
  const product projections[] = {
      {&layer->q, d->y, d->wide, NULL, width, 3 * width},
      {&layer->k, d->y, d->wide + width, NULL, width, 3 * width},
      {&layer->v, d->y, d->wide + 2 * width, NULL, width, 3 * width}};
  if (multiply(d->pool, &d->scratch, projections, 3, rows)) return HE_NO_MEMORY;
  attend_to_steps(d, l);
  if (multiply_one(d->pool, &d->scratch, &layer->out, d->y, d->wide, rows)) return HE_NO_MEMORY;
  add_rows(d->x, d->wide, rows * width);
  if (!m->prefixed && attend_to_prompt(d, l)) return HE_NO_MEMORY;
  norm_block(d, layer->norm[2]);
  if (multiply_one(d->pool, &d->scratch, &layer->up, d->y, d->wide, rows)) return HE_NO_MEMORY;
  share(d->pool, rows * m->inner, GRAIN * 1024, apply_gelu, d->wide);
  if (multiply_one(d->pool, &d->scratch, &layer->down, d->wide, d->y, rows)) return HE_NO_MEMORY;
  add_rows(d->x, d->y, rows * width);
  return HE_OK;
}

// Runs all layers over `block` positions of some voices, from step `first` on.
static int run_layers(decoder *d, voice *from, voice *to, int64_t first, int64_t block) {
  d->from = from;
  d->to = to;
  d->first = first;
  d->block = block;
  d->rows = d->asking = 0;
  EACH_VOICE(d) {
    v->row = d->rows;
    v->asking = d->asking;
    d->rows += block * v->lanes;
    d->asking += block * v->lanes / v->sides;
  }
  embed(d);
  for (int64_t l = 0; l < d->model->layers; l++) {
    if (run_layer(d, l)) return HE_NO_MEMORY;
  }
  return HE_OK;
}

// Reads the prompts of all songs.
static int read_prompts(decoder *d) {
  for (voice *v = d->voices; v < d->voices + d->count; v++) {
    if (!d->model->prefixed && read_cross(d, v)) return HE_NO_MEMORY;
    for (int64_t step = -v->prefix; step < 0; step += PREFIX_BLOCK) {
      if (run_layers(d, v, v + 1, step, min64(-step, PREFIX_BLOCK))) return HE_NO_MEMORY;
    }
  }
  return HE_OK;
}

// Applies guidance to a voice's rows of logits. Returns HE_OK or HE_NOT_FINITE.
static int guide(float *to, int64_t n, int64_t rows, int64_t sides, float guidance) {
  int finite = 1;
  const float *with = to;
  for (int64_t r = 0; r < rows; r++, to += n, with += sides * n) { // `to` is at or before `with`
    for (int64_t i = 0; i < n; i++) {
      float x = with[i];
      if (sides == 2) x = with[n + i] + (with[i] - with[n + i]) * guidance;
      finite &= is_finite(x);
      to[i] = x;
    }
  }
  return finite ? HE_OK : HE_NOT_FINITE;
}

// Computes the logits of `block` positions of some voices, after guidance: for each voice
// (position, sequence, codebook, vocabulary). The songs get the status HE_NOT_FINITE or HE_NO_MEMORY.
static void forward(decoder *d, voice *from, voice *to, int64_t first, int64_t block) {
  const he_musicgen *m = d->model;
  int64_t logits = d->logit_count;
  int status = run_layers(d, from, to, first, block);
  norm_block(d, m->norm);
  product heads[HE_MAX_CODEBOOKS];
  for (int64_t k = 0; k < m->codebooks; k++) {
    heads[k] =
        (product){&m->head[k], d->y, d->logits + k * m->vocabulary, NULL, m->width, logits};
  }
  if (!status && multiply(d->pool, &d->scratch, heads, m->codebooks, d->rows)) {
    status = HE_NO_MEMORY;
  }
  EACH_VOICE(d) {
    int64_t rows = block * v->lanes / v->sides;
    float *row = d->logits + v->row * logits;
    int failed = status ? status : guide(row, logits, rows, v->sides, v->song->guidance);
    if (failed) v->song->status = failed;
  }
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

EXPORT int32_t he_kept_steps(int32_t steps) { return (steps + KEPT_EVERY - 1) / KEPT_EVERY; }

// Chooses the tokens of a step of a sequence by its row of logits, which may be one to keep.
static void choose_step(
    decoder *d, const voice *v, int64_t sequence, int64_t step, const float *row, int32_t *tokens) {
  const he_song *song = v->song;
  if (step % KEPT_EVERY == KEPT_EVERY - 1 || step == song->steps - 1) {
    int64_t place = sequence * he_kept_steps(song->steps) + step / KEPT_EVERY;
    memcpy(song->logits + place * d->logit_count, row, (size_t)d->logit_count * 4);
  }
  for (int32_t k = 0; k < d->model->codebooks; k++, row += d->model->vocabulary) {
    tokens[k] = choose(d->choice, &song->sampling, &v->generators[sequence], row);
  }
}

static void count_steps(const he_song *song, int64_t count) {
  set_done(song->done, *song->done + count);
}

// Computes the next step of all songs that go on.
static void generate_step(decoder *d) {
  int64_t codebooks = d->model->codebooks;
  forward(d, d->voices, d->voices + d->count, d->step, 1);
  EACH_VOICE(d) {
    he_song *song = v->song;
    if (song->status != HE_RUNNING) continue;
    for (int64_t s = 0; s < song->sequences; s++) {
      int32_t *tokens = song->tokens + (s * song->steps + d->step) * codebooks;
      choose_step(d, v, s, d->step, d->logits + (v->row + s) * d->logit_count, tokens);
    }
    count_steps(song, 1);
    if (d->step == song->steps - 1) song->status = HE_OK;
  }
  d->step++;
}

// Lets the songs leave that have ended or are to stop, and their memory; returns how many go on.
static int64_t let_leave(decoder *d) {
  int64_t kept = 0;
  for (int64_t i = 0; i < d->count; i++) {
    he_song *song = d->voices[i].song;
    if (song->status == HE_RUNNING && is_stopped(song->stop)) song->status = HE_STOPPED;
    if (song->status == HE_RUNNING) d->voices[kept++] = d->voices[i];
    else arena_free(&d->voices[i].arena);
  }
  return d->count = kept;
}

EXPORT he_generation *he_musicgen_begin(
    const he_musicgen *model, pool *pool, he_song *songs, int32_t count) {
  uint64_t state = enter_ieee();
  decoder *d = malloc(sizeof *d);
  if (d && (decoder_start(d, model, pool, songs, count, 1) || read_prompts(d))) {
    he_musicgen_end(d);
    d = NULL;
  }
  for (int32_t i = 0; d && i < count; i++) {
    songs[i].status = HE_RUNNING;
    for (int32_t s = 0; s < songs[i].sequences; s++) {
      generator_seed(&d->voices[i].generators[s], songs[i].seeds[s]);
    }
  }
  leave_ieee(state);
  return d;
}

EXPORT int32_t he_musicgen_continue(he_generation *d) {
  uint64_t state = enter_ieee();
  int64_t songs = d->count;
  while (let_leave(d) == songs && songs) generate_step(d);
  leave_ieee(state);
  return (int32_t)d->count;
}

EXPORT void he_musicgen_end(he_generation *d) {
  decoder_free(d);
  free(d);
}

// Chooses the tokens of a pass of a song of one sequence anew. Returns HE_OK or HE_DIFFERENT.
static int compare(decoder *d, int32_t first[3]) {
  const voice *v = d->from;
  int32_t chosen[HE_MAX_CODEBOOKS], codebooks = d->model->codebooks;
  for (int64_t t = 0; t < d->block; t++) {
    const int32_t *tokens = v->song->tokens + (d->first + t) * codebooks;
    choose_step(d, v, 0, d->first + t, d->logits + t * d->logit_count, chosen);
    for (int32_t k = 0; k < codebooks; k++) {
      if (chosen[k] == tokens[k]) continue;
      first[1] = (int32_t)(d->first + t);
      first[2] = k;
      return HE_DIFFERENT;
    }
  }
  return HE_OK;
}

EXPORT int32_t he_musicgen_replay(
    const he_musicgen *m, pool *pool, const he_song *song, int32_t block, int32_t first[3]) {
  uint64_t state = enter_ieee();
  decoder d;
  he_song one = *song; // one sequence after another
  one.sequences = 1;
  one.status = decoder_start(&d, m, pool, &one, 1, block);
  if (!one.status) one.status = read_prompts(&d);
  for (int32_t s = 0; s < song->sequences && !one.status; s++) {
    first[0] = s;
    generator_seed(d.voices->generators, song->seeds[s]);
    for (int64_t step = 0; step < song->steps && !one.status; step += block) {
      if ((one.status = is_stopped(song->stop) ? HE_STOPPED : HE_OK)) break;
      forward(&d, d.voices, d.voices + 1, step, min64(block, song->steps - step));
      if (!one.status) one.status = compare(&d, first);
      count_steps(song, d.block);
    }
    one.tokens += (int64_t)song->steps * m->codebooks;
    one.logits += he_kept_steps(song->steps) * d.logit_count;
  }
  decoder_free(&d);
  leave_ieee(state);
  return one.status;
}
