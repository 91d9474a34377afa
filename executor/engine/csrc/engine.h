// What the engine offers to Python, and the structures that both know.
//
// Every pointer and size is checked in Python before a call (executor/engine); the C code trusts
// them. Rows lie one after another, the last index is the fastest. All weights are read-only.
#ifndef HELIUM_ENGINE_H
#define HELIUM_ENGINE_H

#include <stdint.h>

#include "threads.h"

#define EXPORT __attribute__((visibility("default")))

// Raised whenever bits change; part of a compute class.
#define HE_ARITHMETIC 1
#define HE_MAX_THREADS 64
#define HE_MAX_POSITIONS 16384 // that one query attends to
#define HE_MAX_CODEBOOKS 16

// How a call ended.
enum {
  HE_RUNNING = 1, HE_OK = 0, HE_NO_MEMORY = -1, HE_STOPPED = -2, HE_NOT_FINITE = -3,
  HE_DIFFERENT = -4
};

enum { HE_FLOAT32, HE_BFLOAT16, HE_INT8, HE_INT4, HE_FLOAT16 }; // kinds of weights

// A matrix of weights: `out` rows of `in` numbers.
typedef struct {
  const void *rows;
  const float *scales; // HE_INT8: one for each row; HE_INT4: one for each group of 32 in each row
  int64_t out, in;
  int32_t kind;
} he_matrix;

EXPORT int32_t he_arithmetic_version(void);
EXPORT const char *he_instruction_set(void);
EXPORT const char *he_sources(void);

EXPORT pool *he_pool_new(int32_t threads);
EXPORT void he_pool_free(pool *pool);

// y (rows, out) = x (rows, in) times the transposed matrix, plus a bias (out) unless it is NULL.
// Returns HE_OK or HE_NO_MEMORY.
EXPORT int32_t he_product(
    pool *pool, const he_matrix *matrix, const float *bias, const float *x, float *y,
    int64_t rows);
// Writes a float32 matrix as another kind of weights. `rows` has room for all rows of that kind.
EXPORT void he_convert(
    const float *x, int64_t out, int64_t in, int32_t kind, void *rows, float *scales);

// How a token is chosen. top_k 0 and top_p 1 leave nothing out. The temperature is above 0.
typedef struct {
  int32_t sample; // 0: the largest logit
  int32_t top_k;
  float temperature, top_p;
} he_sampling;

// The tokens that `rule` chooses by `count` rows of `vocabulary` logits, one after another.
EXPORT int32_t he_choose(
    const he_sampling *rule, uint64_t seed, const float *logits, int32_t vocabulary,
    int32_t count, int32_t *tokens);
// `count` exponentially distributed numbers, as torch draws them.
EXPORT void he_exponentials(uint64_t seed, float *x, int64_t count);

// The decoder of MusicGen. Each matrix is as it lies in the file.
typedef struct {
  he_matrix q, k, v, out;                         // self attention
  he_matrix cross_q, cross_k, cross_v, cross_out; // attention to the prompt
  he_matrix up, down;                             // feed forward, with gelu between
  const float *norm[3][2]; // weight and bias before self attention, cross attention, feed forward
} he_musicgen_layer;

typedef struct {
  int32_t layers, width, heads, inner, vocabulary, codebooks;
  int32_t delays; // codebooks with a delay of their own: two share one if the sound is stereo
  int32_t prefixed; // a melody model: without attention to the prompt, which comes before the steps
  const he_musicgen_layer *layer;
  const he_matrix *head;             // of each codebook: (vocabulary, width)
  const he_matrix *embedding;        // of each codebook: (vocabulary + 1, width), of floats
  const float *norm[2];              // weight and bias of the last one
} he_musicgen;

// What is generated, or replayed: `sequences` of one prompt, each from a seed.
typedef struct {
  int32_t sequences, steps;
  int32_t guided;     // each step is computed with the prompt and without
  float guidance;     // logits are without + (with - without) * guidance
  he_sampling sampling;
  const uint64_t *seeds;
  const float *prompt; // (prompt_length, width); (side, prompt_length, width) if it is prefixed
  int32_t prompt_length;
  int32_t status;  // HE_RUNNING, then HE_OK, HE_NO_MEMORY, HE_STOPPED or HE_NOT_FINITE
  int32_t *tokens; // (sequences, steps, codebooks), as drawn, before the delay mask
  float *logits;   // gets those of the kept steps, (sequences, kept, codebooks, vocabulary)
  const volatile int32_t *stop; // not 0: the song ends before its next step
  volatile int64_t *done;       // counts steps
} he_song;

// Logits of step 63, 127, ... and of the last one, once each: as many as this for `steps` steps.
EXPORT int32_t he_kept_steps(int32_t steps);

// Generates the tokens of songs together. Each step of all songs that go on is one pass; what is
// computed for one does not depend on the others.
typedef struct he_generation he_generation;
// Reads the prompts. Returns NULL without memory. The songs stay where they are until the end.
EXPORT he_generation *he_musicgen_begin(
    const he_musicgen *model, pool *pool, he_song *songs, int32_t count);
// Goes on until a song leaves: its status is no more HE_RUNNING. Returns how many songs go on.
EXPORT int32_t he_musicgen_continue(he_generation *generation);
EXPORT void he_musicgen_end(he_generation *generation);
// Computes all steps from `tokens` in passes of `block` steps, and draws each token anew. Returns
// HE_DIFFERENT at the first one that differs, and its sequence, step and codebook in `first`; else
// as the status of a song. `done` counts the steps of one sequence after another.
EXPORT int32_t he_musicgen_replay(
    const he_musicgen *model, pool *pool, const he_song *song, int32_t block, int32_t first[3]);
// The tokens that the decoder reads at `step` (codebooks): delayed, masked at both ends.
EXPORT void he_musicgen_column(
    const he_musicgen *model, int32_t steps, int32_t step, const int32_t *tokens, int32_t *column);
// A convolution over time. Signals are rows of channels, one for each moment.
typedef struct {
  const float *weights; // (out, kernel, in); of a transposed one (kernel / 2, out, 2, in)
  const float *bias;    // of each output; of a transposed one kernel / 2 times over
  int64_t in, out, kernel, dilation;
  int64_t before, after; // rows of padding; of a transposed one the rows that are cut off
} he_conv;
typedef struct { // one layer; gates are in the order input, forget, cell, output
  he_matrix input, recurrent;               // (4 units, units), of floats
  const float *input_bias, *recurrent_bias; // (4 units)
} he_lstm;
enum { HE_CONVOLUTION, HE_TRANSPOSED, HE_RESIDUAL }; // kinds of layers; ELU is before each
typedef struct {
  he_conv conv;
  he_conv pointwise; // of HE_RESIDUAL: reads the outputs of conv, and with a shortcut its inputs
  int32_t kind;
} he_codec_layer;
// EnCodec's decoder. The last layer is a convolution to one channel.
typedef struct {
  const he_matrix *codebooks; // each (entries, first.in), of floats
  const he_lstm *lstm;
  const he_codec_layer *layers;
  he_conv first;
  int64_t codebook_count, lstm_count, layer_count;
  int32_t reflect; // padding by reflection, not by zeros
} he_codec;

// Writes the weights of a convolution as `he_conv` has them, from a file's: direction `v` and length
// `g` of each of its first index. v is (out, in, kernel), of a transposed one (in, out, kernel).
EXPORT void he_encodec_fold(
    const float *v, const float *g, const he_conv *conv, int32_t transposed, float *weights);
// Writes tokens' samples, computed `block` tokens at a time. codes is (codebook_count, tokens). `done`
// counts tokens; a `stop` that is not 0 ends it. Returns HE_OK, HE_NO_MEMORY or HE_STOPPED.
EXPORT int32_t he_encodec_decode(
    pool *pool, const he_codec *codec, const int32_t *codes, int64_t tokens, int64_t block,
    float *samples, const volatile int32_t *stop, volatile int64_t *done);

// T5: an encoder, or a decoder that attends to an encoder's output too.
enum { HE_RELU, HE_GELU, HE_GELU_TANH }; // activations
typedef struct {
  const float *norm; // weights of the norm before it
  he_matrix query, key, value, output;
} he_t5_attention;
typedef struct {
  he_t5_attention self, cross; // cross: of a decoder
  const float *norm;           // of the feed forward part
  he_matrix gate, up, down;    // gate: without rows if nothing is gated
} he_t5_layer;
typedef struct {
  const he_t5_layer *layers;
  const float *bias; // (buckets, heads), added to the scores of self attention
  const float *norm; // after the last layer
  he_matrix embedding; // of floats
  int64_t layer_count, heads, buckets, max_distance;
  float epsilon;
  int32_t activation, decoder;
} he_t5_stack;

// The hidden states (rows, length, width) of an encoder, of tokens (rows, length) or, if they are
// NULL, of inputs (rows, length, width). A `stop` that is not 0 ends it before the next layer. Returns
// HE_OK, HE_NO_MEMORY, HE_STOPPED or HE_NOT_FINITE.
EXPORT int32_t he_t5_encode(
    const he_t5_stack *encoder, pool *pool, const int32_t *tokens, const float *inputs, int64_t rows,
    int64_t length, float *hidden, const volatile int32_t *stop);
// The bucket of each relative position -(length - 1) .. length - 1 of a key to its query.
EXPORT void he_t5_buckets(
    int64_t buckets, int64_t max_distance, int32_t decoder, int64_t length, int32_t *bucket);

// Pop2Piano's decoder. Its encoder is a he_t5_stack of its own.
typedef struct {
  he_t5_stack decoder;
  he_matrix head; // (vocabulary, width)
  float scale;    // of the last hidden states
  int32_t start, pad, end_count;
  const int32_t *ends; // tokens that end a row
} he_pop2piano;

// What is generated: rows that the generator of one seed draws for, in turn, at each step.
typedef struct {
  int64_t rows, source, steps; // at most `steps` tokens each, as long as not all rows have ended
  const float *hidden;         // (rows, source, width), from the encoder
  he_sampling sampling;
  uint64_t seed;
} he_cover;

// Generates tokens (rows, steps); a row that has ended has `pad` tokens. `done` becomes the number
// of steps. `logits` (rows, he_kept_steps(steps), vocabulary) gets those of the last step of every 64
// that a row has not ended before. A `stop` that is not 0 ends it. Returns HE_OK, HE_NO_MEMORY,
// HE_STOPPED or HE_NOT_FINITE.
EXPORT int32_t he_pop2piano_generate(
    const he_pop2piano *model, pool *pool, const he_cover *cover, int32_t *tokens, float *logits,
    const volatile int32_t *stop, volatile int64_t *done);
// Computes all steps from `tokens` (rows, count) in passes of `block` steps, and draws each token
// anew. Returns HE_DIFFERENT at the first one that differs, or where generation would have ended or
// gone on, and its row and step in `first`. `logits` is as for `count` steps.
EXPORT int32_t he_pop2piano_replay(
    const he_pop2piano *model, pool *pool, const he_cover *cover, int64_t count, int64_t block,
    const int32_t *tokens, float *logits, int64_t first[2], const volatile int32_t *stop,
    volatile int64_t *done);

#endif
