// EnCodec's decoder: from tokens to a waveform.
//
//   codebooks -> convolution -> LSTM -> [ELU, transposed convolution, residual blocks] ...
//   -> ELU, convolution
//
// Rows are moments and columns are channels, so a convolution is a product over rows that overlap,
// and the rows that a transposed one gives are already those of the moments. Every number is one sum
// in the order of product.c, or one formula of arithmetic.h.
//
// A song is computed in blocks of tokens. A block's samples decide which rows of each layer they
// need (`find_ranges`); neighbouring blocks compute a few rows twice. The LSTM is not repeated: it
// keeps its state. The order of no sum depends on blocks.
#include <stdlib.h>

#include "arithmetic.h"
#include "attention.h"
#include "engine.h"
#include "product.h"

#define CHUNK_BYTES (192 * 1024) // of the windows that a thread computes at a time: half a cache

// Rows from `first` on of a signal of `length` rows.
typedef struct {
  float *x;
  int64_t first, length;
} rows_of;
typedef struct {
  scratch window, product, hidden;
} workspace; // of a thread
typedef struct {
  pool *pool;
  const he_codec *codec;
  const int32_t *codes;
  int64_t tokens;
  int64_t *begin, *end, *length; // of the input of each layer; the last is of the samples
  scratch buffers[2], lstm[2], gates; // outputs of layers, of LSTM layers; products of an LSTM layer
  float *states;    // of each LSTM layer: output, then cell
  float *hidden;    // outputs of the LSTM: tokens hidden_first .. hidden_last - 1
  int64_t hidden_first, hidden_last;
  int failed;
  workspace workspaces[HE_MAX_THREADS];
  const volatile int32_t *stop;
} decoder;

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// The row of a signal that stands at row p of the padded one; -1 for zeros. A signal that is too
// short to be reflected is first extended by zeros.
INLINE int64_t source(const he_conv *conv, int reflect, int64_t length, int64_t p) {
  if (p >= 0 && p < length) return p;
  if (!reflect) return -1;
  int64_t longer = most(length, most(conv->before, conv->after) + 1);
  p = p < 0 ? -p : p >= longer ? 2 * (longer - 1) - p : p;
  return p < length ? p : -1;
}

// The input of a convolution: `count` padded rows from p on, after ELU unless `plain`. The rows of
// a dilated one are sorted by their place modulo the dilation, `share` each, so that those of a
// window are neighbours.
typedef struct {
  const he_conv *conv;
  const rows_of *x;
  int64_t p, count, share;
  int reflect, plain;
  float *to;
} window;
static void fill_window(void *context, int64_t first, int64_t last) {
  const window *w = context;
  int64_t in = w->conv->in;
  for (int64_t row = first; row < last; row++) {
    int64_t i = row % w->share * w->conv->dilation + row / w->share;
    int64_t s = i < w->count ? source(w->conv, w->reflect, w->x->length, w->p + i) : -1;
    float *to = w->to + row * in;
    if (s < 0) memset(to, 0, (size_t)in * sizeof *to);
    else memcpy(to, w->x->x + (s - w->x->first) * in, (size_t)in * sizeof *to);
  }
  if (!w->plain) elu_all(w->to + first * in, (last - first) * in);
}

// Rows first .. last - 1 of a convolution's output, `step` apart.
static int convolve(
    pool *pool, workspace *space, const he_conv *conv, int reflect, int plain, const rows_of *x,
    int64_t first, int64_t last, float *y, int64_t step) {
  int64_t in = conv->in, n = last - first, dilation = conv->dilation;
  window w = {conv, x, first - conv->before, n + conv->before + conv->after, 0, reflect, plain, 0};
  w.share = (w.count + dilation - 1) / dilation;
  w.to = scratch_get(&space->window, dilation * w.share * in * 4);
  if (!w.to) return HE_NO_MEMORY;
  share(pool, dilation * w.share, 1, fill_window, &w);
  he_matrix m = {conv->weights, NULL, conv->out, conv->kernel * in, HE_FLOAT32};
  for (int64_t k = 0; k < dilation && k < n; k++) {
    const float *from = w.to + k * w.share * in;
    product p = {&m, from, y + k * step, conv->bias, in, dilation * step};
    int64_t rows = (n - k + dilation - 1) / dilation;
    if (conv->out == 1) { // a tile would compute four outputs
      for (int64_t t = 0; t < rows; t++) {
        p.y[t * p.y_step] = dot(from + t * in, conv->weights, m.in) + *conv->bias;
      }
    } else if (multiply(pool, &space->product, &p, 1, rows)) {
      return HE_NO_MEMORY;
    }
  }
  return HE_OK;
}

// Rows first .. last - 1 of a layer's output, which threads share.
typedef struct {
  decoder *d;
  const he_codec_layer *layer;
  const rows_of *x;
  int64_t first, last;
  float *y;
} layer_rows;

// y = outer(ELU(inner(ELU(x)))) + x, or, if outer reads the channels of x too, without that sum.
static int residual(const layer_rows *l, workspace *space, int64_t first, int64_t last, float *y) {
  const he_conv *inner = &l->layer->conv, *outer = &l->layer->pointwise;
  int64_t n = last - first, in = inner->in, step = outer->in;
  const float *x = l->x->x + (first - l->x->first) * in;
  float *h = scratch_get(&space->hidden, n * step * 4);
  if (!h || convolve(NULL, space, inner, l->d->codec->reflect, 0, l->x, first, last, h, step)) {
    return HE_NO_MEMORY;
  }
  for (int64_t t = 0; t < n; t++) {
    elu_all(h + t * step, inner->out);
    memcpy(h + t * step + inner->out, x + t * in, (size_t)(step - inner->out) * sizeof *h);
  }
  he_matrix m = {outer->weights, NULL, outer->out, step, HE_FLOAT32};
  product p = {&m, h, y, outer->bias, step, outer->out};
  if (multiply(NULL, &space->product, &p, 1, n)) return HE_NO_MEMORY;
  if (step == inner->out) add_rows(y, x, n * in);
  return HE_OK;
}

// Part `first` .. `last` - 1 of as many parts as there are threads.
static void compute_parts(void *context, int64_t first, int64_t last) {
  const layer_rows *l = context;
  const he_conv *conv = &l->layer->conv;
  int64_t out = l->layer->kind == HE_RESIDUAL ? l->layer->pointwise.out : conv->out;
  int64_t parts = pool_threads(l->d->pool), n = l->last - l->first;
  int64_t chunk = most(CHUNK_BYTES / (conv->kernel * conv->in * 4) / 6 * 6, 24);
  int64_t end = l->first + n * last / parts;
  for (int64_t a = l->first + n * first / parts; a < end; a += chunk) {
    workspace *space = &l->d->workspaces[first];
    int64_t b = least(a + chunk, end);
    float *y = l->y + (a - l->first) * out;
    int failed = l->layer->kind == HE_RESIDUAL
        ? residual(l, space, a, b, y)
        : convolve(NULL, space, conv, l->d->codec->reflect, 0, l->x, a, b, y, out);
    if (failed) __atomic_store_n(&l->d->failed, 1, __ATOMIC_RELAXED);
  }
}

// Rows first .. last - 1 of a transposed convolution, and the others of the same windows. Window q
// has rows q - 1 and q of the input, and gives kernel / 2 rows.
static int transpose(
    decoder *d, const he_conv *conv, const rows_of *x, int64_t first, int64_t last,
    scratch *buffer, rows_of *y) {
  int64_t in = conv->in, stride = conv->kernel / 2;
  int64_t q = (first + conv->before) / stride, n = (last - 1 + conv->before) / stride + 1 - q;
  workspace *space = d->workspaces;
  window w = {conv, x, q - 1, n + 1, n + 1, 0, 0, scratch_get(&space->window, (n + 1) * in * 4)};
  y->x = scratch_get(buffer, n * stride * conv->out * 4);
  y->first = q * stride - conv->before;
  if (!w.to || !y->x) return HE_NO_MEMORY;
  share(d->pool, n + 1, 1, fill_window, &w);
  he_matrix m = {conv->weights, NULL, stride * conv->out, 2 * in, HE_FLOAT32};
  product p = {&m, w.to, y->x, conv->bias, in, stride * conv->out};
  return multiply(d->pool, &space->product, &p, 1, n);
}

// The cell and the output of one moment, from the gates' two products.
static void step_units(const float *a, const float *b, int64_t units, float *cell, float *y) {
  for (int64_t j = 0; j < units; j += 8) {
    int64_t n = least(8, units - j);
    f8 g[4], c = load_some(cell + j, n), h;
    UNROLL for (int k = 0; k < 4; k++) {
      g[k] = add8(load_some(a + k * units + j, n), load_some(b + k * units + j, n));
    }
    EACH_PART {
      vf in = sigmoidv(g[0].part[p]) * tanhv(g[2].part[p]);
      c.part[p] = fmav(sigmoidv(g[1].part[p]), c.part[p], in);
      h.part[p] = sigmoidv(g[3].part[p]) * tanhv(c.part[p]);
    }
    store_some(cell + j, c, n);
    store_some(y + j, h, n);
  }
}

// The next n outputs of LSTM layer `index`. The input's share of the gates is one product.
static int run_lstm(decoder *d, int64_t index, const float *x, int64_t n, float *y) {
  const he_lstm *layer = d->codec->lstm + index;
  int64_t units = d->codec->first.out, width = 4 * units;
  float *output = d->states + index * 2 * units;
  float *gates = scratch_get(&d->gates, (n + 1) * width * 4), *recurrent = gates + n * width;
  product p[] = {{&layer->input, x, gates, layer->input_bias, units, width},
                 {&layer->recurrent, output, recurrent, layer->recurrent_bias, units, width}};
  if (!gates || multiply(d->pool, &d->workspaces->product, &p[0], 1, n)) return HE_NO_MEMORY;
  for (int64_t t = 0; t < n; t++, y += units) {
    if (is_stopped(d->stop)) return HE_STOPPED;
    if (multiply(d->pool, &d->workspaces->product, &p[1], 1, 1)) return HE_NO_MEMORY;
    step_units(gates + t * width, recurrent, units, output + units, y);
    p[1].x = y;
  }
  memcpy(output, p[1].x, (size_t)units * sizeof *output);
  return HE_OK;
}

// Computes the LSTM's outputs up to those that a block needs, and drops those before.
static int advance(decoder *d) {
  const he_codec *codec = d->codec;
  const he_conv *conv = &codec->first;
  int64_t begin = d->begin[0], from = d->hidden_last, to = most(d->end[0], from);
  int64_t units = conv->out, n = to - from, keep = from - begin;
  if (keep) {
    memmove(d->hidden, d->hidden + (begin - d->hidden_first) * units, (size_t)(keep * units) * 4);
  }
  float *hidden = realloc(d->hidden, (size_t)((to - begin) * units) * 4);
  if (!hidden) return HE_NO_MEMORY;
  d->hidden = hidden;
  d->hidden_first = begin;
  d->hidden_last = to;
  if (n == 0) return HE_OK;
  // Rows of the sums of codebook entries that the convolution reads, also by reflection.
  int64_t a = most(from - conv->before - conv->after, 0);
  int64_t b = least(to + conv->before + conv->after, d->tokens);
  float *e = scratch_get(&d->buffers[0], (b - a) * conv->in * 4);
  float *x = scratch_get(&d->buffers[1], n * units * 4);
  if (!e || !x) return HE_NO_MEMORY;
  memset(e, 0, (size_t)((b - a) * conv->in) * 4);
  for (int64_t t = a; t < b; t++) {
    for (int64_t k = 0; k < codec->codebook_count; k++) {
      int64_t entry = d->codes[k * d->tokens + t];
      add_matrix_row(&codec->codebooks[k], entry, e + (t - a) * conv->in);
    }
  }
  rows_of embedded = {e, a, d->tokens};
  if (convolve(d->pool, d->workspaces, conv, codec->reflect, 1, &embedded, from, to, x, units)) {
    return HE_NO_MEMORY;
  }
  const float *input = x;
  for (int64_t i = 0; i < codec->lstm_count; i++) {
    float *y = scratch_get(&d->lstm[i % 2], n * units * 4);
    int result = y ? run_lstm(d, i, input, n, y) : HE_NO_MEMORY;
    if (result) return result;
    input = y;
  }
  hidden += keep * units;
  memcpy(hidden, input, (size_t)(n * units) * 4);
  add_rows(hidden, x, n * units);
  return HE_OK;
}

// Finds the rows of each layer's input that samples first .. last - 1 depend on.
static void find_ranges(decoder *d, int64_t first, int64_t last) {
  d->begin[d->codec->layer_count] = first;
  d->end[d->codec->layer_count] = last;
  for (int64_t i = d->codec->layer_count - 1; i >= 0; i--) {
    const he_conv *conv = &d->codec->layers[i].conv;
    int64_t a = d->begin[i + 1], b = d->end[i + 1], length = d->length[i], stride = conv->kernel / 2;
    int transposed = d->codec->layers[i].kind == HE_TRANSPOSED;
    int64_t from = transposed ? (a + conv->before) / stride - 1 : a - conv->before;
    int64_t to = transposed ? (b - 1 + conv->before) / stride + 1 : b + conv->after;
    d->begin[i] = most(from, 0);
    d->end[i] = least(to, length);
    if (transposed) continue;
    int64_t edges[2][2] = {{from, least(to, 0)}, {most(from, length), to}};
    for (int side = 0; side < 2; side++) { // what is reflected there
      for (int64_t p = edges[side][0]; p < edges[side][1]; p++) {
        int64_t s = source(conv, d->codec->reflect, length, p);
        if (s < 0) continue;
        d->begin[i] = least(d->begin[i], s);
        d->end[i] = most(d->end[i], s + 1);
      }
    }
  }
}

static int decode_block(decoder *d, float *samples) {
  const he_codec *codec = d->codec;
  int result = advance(d);
  rows_of x = {d->hidden, d->hidden_first, d->tokens};
  for (int64_t i = 0; i < codec->layer_count && !result; i++) {
    const he_codec_layer *layer = codec->layers + i;
    int64_t first = d->begin[i + 1], last = d->end[i + 1];
    rows_of y = {samples, first, d->length[i + 1]};
    if (is_stopped(d->stop)) return HE_STOPPED;
    if (layer->kind == HE_TRANSPOSED) {
      result = transpose(d, &layer->conv, &x, first, last, &d->buffers[i % 2], &y);
    } else {
      if (i + 1 < codec->layer_count) {
        y.x = scratch_get(&d->buffers[i % 2], (last - first) * layer->pointwise.out * 4);
      }
      layer_rows rows = {d, layer, &x, first, last, y.x};
      if (!y.x) return HE_NO_MEMORY;
      share(d->pool, pool_threads(d->pool), 1, compute_parts, &rows);
      result = d->failed ? HE_NO_MEMORY : HE_OK;
    }
    x = y;
  }
  return result;
}

static int decode(decoder *d, int64_t block, float *samples, volatile int64_t *done) {
  const he_codec *codec = d->codec;
  int64_t layers = codec->layer_count;
  d->begin = calloc((size_t)(layers + 1) * 3, sizeof *d->begin);
  d->states = calloc((size_t)(codec->lstm_count * 2 * codec->first.out), sizeof *d->states);
  if (!d->begin || !d->states) return HE_NO_MEMORY;
  d->end = d->begin + layers + 1;
  d->length = d->end + layers + 1;
  d->length[0] = d->tokens;
  for (int64_t i = 0; i < layers; i++) {
    int transposed = codec->layers[i].kind == HE_TRANSPOSED;
    d->length[i + 1] = d->length[i] * (transposed ? codec->layers[i].conv.kernel / 2 : 1);
  }
  int64_t hop = d->length[layers] / d->tokens;
  for (int64_t first = 0; first < d->tokens; first += block) {
    int64_t last = least(first + block, d->tokens);
    find_ranges(d, first * hop, last * hop);
    int result = decode_block(d, samples + first * hop);
    if (result) return result;
    set_done(done, last);
  }
  return HE_OK;
}

EXPORT int32_t he_encodec_decode(
    pool *pool, const he_codec *codec, const int32_t *codes, int64_t tokens, int64_t block,
    float *samples, const volatile int32_t *stop, volatile int64_t *done) {
  decoder *d = calloc(1, sizeof *d);
  if (!d) return HE_NO_MEMORY;
  *d = (decoder){.pool = pool, .codec = codec, .codes = codes, .tokens = tokens, .stop = stop};
  uint64_t state = enter_ieee();
  int result = decode(d, block, samples, done);
  leave_ieee(state);
  for (int i = 0; i < 2; i++) {
    scratch_free(&d->buffers[i]);
    scratch_free(&d->lstm[i]);
  }
  for (int i = 0; i < HE_MAX_THREADS; i++) {
    scratch_free(&d->workspaces[i].window);
    scratch_free(&d->workspaces[i].product);
    scratch_free(&d->workspaces[i].hidden);
  }
  scratch_free(&d->gates);
  free(d->begin);
  free(d->states);
  free(d->hidden);
  free(d);
  return result;
}

EXPORT void he_encodec_fold(
    const float *v, const float *g, const he_conv *conv, int32_t transposed, float *weights) {
  uint64_t state = enter_ieee();
  int64_t in = conv->in, out = conv->out, kernel = conv->kernel, stride = kernel / 2;
  int64_t rows = transposed ? in : out, columns = transposed ? out : in;
  for (int64_t row = 0; row < rows; row++) {
    const float *from = v + row * columns * kernel;
    float factor = g[row] / root(dot(from, from, columns * kernel));
    for (int64_t column = 0; column < columns; column++) {
      for (int64_t k = 0; k < kernel; k++) {
        // The first half of a transposed kernel meets the row q of a window, the second q - 1.
        int64_t to = transposed
            ? ((k % stride * out + column) * 2 + (k < stride)) * in + row
            : (row * kernel + k) * in + column;
        weights[to] = *from++ * factor;
      }
    }
  }
  leave_ieee(state);
}
