// Pop2Piano: tokens of all rows of a song, step by step, and their replay in passes of many steps.
//
// A row that has ended is not computed any more, but its random numbers are drawn, as transformers
// draws them. Nothing that is computed for a row depends on the others.
#include <stdlib.h>

#include "arithmetic.h"
#include "sampling.h"
#include "t5.h"

typedef struct {
  const he_pop2piano *model;
  const he_cover *cover;
  t5_pass pass;
  float *logits;    // (rows that had not ended, positions of the pass, vocabulary)
  int32_t *inputs;  // (rows that had not ended, positions of the pass)
  int32_t *drawn;   // of each row
  int64_t *lanes, *places; // rows that had not ended before the pass; the place of each among them
  char *ended;
  choice *choice;
  generator generator;
  int64_t kept; // for each row
} song;

static void song_free(song *s) {
  t5_end(&s->pass);
  free(s->choice);
}

// Returns HE_OK or HE_NO_MEMORY; `song_free` frees it in either case.
static int song_start(song *s, const he_pop2piano *model, pool *pool, const he_cover *cover,
                      int64_t steps, int64_t block) {
  *s = (song){.model = model, .cover = cover, .kept = he_kept_steps((int32_t)steps)};
  int64_t rows = cover->rows, vocabulary = model->head.out;
  s->choice = choice_new((int32_t)vocabulary);
  int failed = t5_begin(&s->pass, pool, &model->decoder, rows, block, steps, cover->source);
  arena *a = &s->pass.arena;
  s->logits = arena_floats(a, rows * block * vocabulary);
  s->inputs = arena_get(a, rows * block * (int64_t)sizeof *s->inputs);
  s->drawn = arena_get(a, rows * (int64_t)sizeof *s->drawn);
  s->lanes = arena_get(a, rows * (int64_t)sizeof *s->lanes);
  s->places = arena_get(a, rows * (int64_t)sizeof *s->places);
  s->ended = arena_get(a, rows);
  if (failed || a->failed || !s->choice) return HE_NO_MEMORY;
  memset(s->ended, 0, (size_t)rows);
  generator_seed(&s->generator, cover->seed);
  return t5_attend_to(&s->pass, cover->hidden);
}

// Computes the logits of positions first .. first + count - 1 of the rows that have not ended.
// `tokens` has `step` tokens in each row.
static int forward(song *s, int64_t first, int64_t count, const int32_t *tokens, int64_t step,
                   const volatile int32_t *stop) {
  t5_pass *p = &s->pass;
  p->first = first;
  p->count = count;
  p->rows = 0;
  p->lanes = s->lanes;
  int32_t *input = s->inputs;
  for (int64_t r = 0; r < s->cover->rows; r++) {
    if (s->ended[r]) continue;
    s->places[r] = p->rows;
    s->lanes[p->rows++] = r;
    for (int64_t i = first; i < first + count; i++) {
      *input++ = i ? tokens[r * step + i - 1] : s->model->start;
    }
  }
  int64_t n = p->rows * count;
  t5_embed(&p->stack->embedding, s->inputs, n, p->x);
  int status = t5_layers(p, stop);
  if (status) return status;
  for (int64_t i = 0; i < n * p->width; i++) p->y[i] = p->y[i] * s->model->scale;
  return multiply_one(p->pool, &p->scratch, &s->model->head, p->y, s->logits, n);
}

static int is_end(const he_pop2piano *model, int32_t token) {
  for (int32_t i = 0; i < model->end_count; i++) {
    if (model->ends[i] == token) return 1;
  }
  return 0;
}

// Draws the tokens of one step, to s->drawn. Returns HE_OK or HE_NOT_FINITE.
static int draw(song *s, int64_t step, float *kept) {
  const t5_pass *p = &s->pass;
  int64_t vocabulary = s->model->head.out;
  for (int64_t r = 0; r < s->cover->rows; r++) {
    s->drawn[r] = s->model->pad;
    if (s->ended[r]) {
      skip_choice(s->choice, &s->cover->sampling, &s->generator);
      continue;
    }
    const float *logits = s->logits + (s->places[r] * p->count + step - p->first) * vocabulary;
    if (!t5_finite(logits, vocabulary)) return HE_NOT_FINITE;
    int64_t slot = he_kept_steps((int32_t)step + 1) - 1; // later steps of the 64 overwrite it
    memcpy(kept + (r * s->kept + slot) * vocabulary, logits, (size_t)vocabulary * sizeof *kept);
    s->drawn[r] = choose(s->choice, &s->cover->sampling, &s->generator, logits);
    s->ended[r] = (char)is_end(s->model, s->drawn[r]);
  }
  return HE_OK;
}

// The first row that has not ended; -1 if there is none.
static int64_t first_open(const song *s) {
  for (int64_t r = 0; r < s->cover->rows; r++) {
    if (!s->ended[r]) return r;
  }
  return -1;
}

static int generate(song *s, int32_t *tokens, float *logits, const volatile int32_t *stop,
                    volatile int64_t *done) {
  const he_cover *cover = s->cover;
  for (int64_t step = 0; step < cover->steps && first_open(s) >= 0; step++) {
    if (is_stopped(stop)) return HE_STOPPED;
    int status = forward(s, step, 1, tokens, cover->steps, stop);
    if (!status) status = draw(s, step, logits);
    if (status) return status;
    for (int64_t r = 0; r < cover->rows; r++) tokens[r * cover->steps + step] = s->drawn[r];
    set_done(done, step + 1);
  }
  return HE_OK;
}

EXPORT int32_t he_pop2piano_generate(
    const he_pop2piano *model, pool *pool, const he_cover *cover, int32_t *tokens, float *logits,
    const volatile int32_t *stop, volatile int64_t *done) {
  song s;
  uint64_t state = enter_ieee();
  int status = song_start(&s, model, pool, cover, cover->steps, 1);
  if (!status) status = generate(&s, tokens, logits, stop, done);
  song_free(&s);
  leave_ieee(state);
  return status;
}

static int difference(int64_t first[2], int64_t row, int64_t step) {
  first[0] = row;
  first[1] = step;
  return HE_DIFFERENT;
}

static int replay(song *s, int64_t count, int64_t block, const int32_t *tokens, float *logits,
                  int64_t first[2], const volatile int32_t *stop, volatile int64_t *done) {
  for (int64_t step = 0; step < count; step += block) {
    if (is_stopped(stop)) return HE_STOPPED;
    if (first_open(s) < 0) return difference(first, 0, step);
    int64_t end = step + block < count ? step + block : count;
    int status = forward(s, step, end - step, tokens, count, stop);
    if (status) return status;
    for (int64_t i = step; i < end; i++) {
      if (first_open(s) < 0) return difference(first, 0, i);
      status = draw(s, i, logits);
      if (status) return status;
      for (int64_t r = 0; r < s->cover->rows; r++) {
        if (s->drawn[r] != tokens[r * count + i]) return difference(first, r, i);
      }
      set_done(done, i + 1);
    }
  }
  int64_t open = first_open(s);
  return open >= 0 && count < s->cover->steps ? difference(first, open, count) : HE_OK;
}

EXPORT int32_t he_pop2piano_replay(
    const he_pop2piano *model, pool *pool, const he_cover *cover, int64_t count, int64_t block,
    const int32_t *tokens, float *logits, int64_t first[2], const volatile int32_t *stop,
    volatile int64_t *done) {
  song s;
  uint64_t state = enter_ieee();
  int status = song_start(&s, model, pool, cover, count, block);
  if (!status) status = replay(&s, count, block, tokens, logits, first, stop, done);
  song_free(&s);
  leave_ieee(state);
  return status;
}
