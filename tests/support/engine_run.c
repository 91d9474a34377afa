// Computes a song with the engine, from an image of a model, without Python: for other processors.
//
//   engine_run IMAGE THREADS
//
// Prints a hash of each result. The image (engine_image.py) has the text encoder, the projection,
// its bias, the decoder, the song, the codec, the sizes below and the prompt's tokens.
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine.h"

// What a worker does beside a call: it reads how far the call is.
typedef struct {
  volatile int64_t done;
  volatile int32_t stop, ended;
} control;
static void *watch(void *argument) {
  control *c = argument;
  int64_t largest = 0;
  while (!__atomic_load_n(&c->ended, __ATOMIC_RELAXED)) {
    int64_t done = __atomic_load_n(&c->done, __ATOMIC_RELAXED);
    if (done > largest) largest = done;
    usleep(1000);
  }
  return NULL;
}

typedef struct {
  int64_t ids, width, encoder_width, samples;
} sizes;

static uint64_t hash(const void *bytes, size_t size) { // FNV-1a
  uint64_t h = 0xcbf29ce484222325u;
  for (size_t i = 0; i < size; i++) h = (h ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3u;
  return h;
}
static void must(int status, const char *what) {
  if (status == HE_OK) return;
  printf("%s ended with %d\n", what, status);
  exit(1);
}

// Generates a song beside two others: a shorter one with guidance changed, and one that is stopped.
static void generate_beside(
    const he_musicgen *decoder, pool *pool, const he_song *song, size_t token_bytes,
    size_t logit_bytes) {
  int32_t stop = 1;
  he_song songs[3] = {*song, *song, *song};
  for (int i = 1; i < 3; i++) {
    songs[i].tokens = calloc(1, token_bytes);
    songs[i].logits = calloc(1, logit_bytes);
  }
  songs[1].steps = song->steps / 2;
  songs[1].guided = !song->guided;
  songs[2].stop = &stop;
  he_generation *generation = he_musicgen_begin(decoder, pool, songs, 3);
  must(generation ? HE_OK : HE_NO_MEMORY, "the beginning");
  int left = 0;
  while (he_musicgen_continue(generation)) left++;
  he_musicgen_end(generation);
  must(songs[0].status, "generation");
  must(songs[1].status, "generation of the shorter song");
  if (left != 2 || songs[2].status != HE_STOPPED) must(HE_STOPPED, "leaving one by one");
  for (int i = 1; i < 3; i++) {
    free(songs[i].tokens);
    free(songs[i].logits);
  }
}

int main(int count, char **arguments) {
  if (count != 3) return 2;
  int file = open(arguments[1], O_RDONLY);
  struct stat info;
  if (file < 0 || fstat(file, &info)) return 2;
  char *image =
      mmap(NULL, (size_t)info.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
  if (image == MAP_FAILED || memcmp(image, "heimage1", 8)) return 2;
  uint64_t fixes, roots, *word = (uint64_t *)image;
  fixes = word[1];
  roots = word[2];
  uint64_t size = 24 + 16 * fixes + 8 * roots;
  char *content = image + (size + 63) / 64 * 64;
  for (uint64_t i = 0; i < fixes; i++) {
    uint64_t target = (uint64_t)(content + word[4 + 2 * i]);
    memcpy(content + word[3 + 2 * i], &target, 8);
  }
  void *root[8];
  for (uint64_t i = 0; i < roots && i < 8; i++) root[i] = content + word[3 + 2 * fixes + i];
  const he_t5_stack *encoder = root[0];
  const he_matrix *projection = root[1];
  const float *bias = root[2];
  const he_musicgen *decoder = root[3];
  he_song *song = root[4];
  const he_codec *codec = root[5];
  const sizes *n = root[6];
  const int32_t *ids = root[7];

  pool *pool = he_pool_new(atoi(arguments[2]));
  control control = {0};
  pthread_t watcher;
  if (pthread_create(&watcher, NULL, watch, &control)) return 2;
  int32_t first[3];
  float *hidden = malloc((size_t)(n->ids * n->encoder_width) * 4);
  volatile int32_t *stop = &control.stop;
  volatile int64_t *done = &control.done;
  must(he_t5_encode(encoder, pool, ids, NULL, 1, n->ids, hidden, stop), "the encoder");
  float *prompt = hidden;
  if (projection->out) {
    prompt = malloc((size_t)(n->ids * n->width) * 4);
    must(he_product(pool, projection, bias, hidden, prompt, n->ids), "the projection");
  }
  song->prompt = prompt;
  song->prompt_length = (int32_t)n->ids;
  int64_t k = decoder->codebooks, steps = song->steps, kept = he_kept_steps(song->steps);
  size_t token_bytes = (size_t)(song->sequences * steps * k) * 4;
  size_t logit_bytes = (size_t)(song->sequences * kept * k * decoder->vocabulary) * 4;
  int32_t *tokens = calloc(1, token_bytes);
  float *logits = calloc(1, logit_bytes), *again = calloc(1, logit_bytes);
  song->tokens = tokens;
  song->logits = logits;
  song->stop = stop;
  song->done = done;
  generate_beside(decoder, pool, song, token_bytes, logit_bytes);
  song->logits = again;
  must(he_musicgen_replay(decoder, pool, song, 16, first), "replay");
  int64_t frames = steps - decoder->delays + 1;
  int32_t *codes = malloc((size_t)(frames * k) * 4);
  for (int64_t c = 0; c < k; c++) {
    for (int64_t t = 0; t < frames; t++) codes[c * frames + t] = tokens[(t + c) * k + c];
  }
  size_t sample_bytes = (size_t)(frames * n->samples) * 4;
  float *samples = malloc(sample_bytes);
  must(he_encodec_decode(pool, codec, codes, frames, frames, samples, stop, done), "the codec");
  printf("prompt %016llx\n", (unsigned long long)hash(prompt, (size_t)(n->ids * n->width) * 4));
  printf("tokens %016llx\n", (unsigned long long)hash(tokens, token_bytes));
  printf("logits %016llx\n", (unsigned long long)hash(logits, logit_bytes));
  printf("replayed logits %016llx\n", (unsigned long long)hash(again, logit_bytes));
  printf("waveform %016llx\n", (unsigned long long)hash(samples, sample_bytes));
  __atomic_store_n(&control.ended, 1, __ATOMIC_RELAXED);
  pthread_join(watcher, NULL);
  he_pool_free(pool);
  void *allocated[] = {samples, codes, again, logits, tokens, hidden,
                       prompt == hidden ? NULL : prompt};
  for (size_t i = 0; i < sizeof allocated / sizeof *allocated; i++) free(allocated[i]);
  munmap(image, (size_t)info.st_size);
  close(file);
  return 0;
}
