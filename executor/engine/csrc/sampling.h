// Random numbers as torch draws them, and the choice of a token.
#ifndef HELIUM_SAMPLING_H
#define HELIUM_SAMPLING_H

#include <stdint.h>

#include "engine.h"

#define TWISTER_WORDS 624

// mt19937, as `torch.manual_seed` starts it.
typedef struct {
  uint32_t word[TWISTER_WORDS];
  int next;
} generator;

void generator_seed(generator *generator, uint64_t seed);

// What `choose` needs for `vocabulary` logits; one allocation, freed by `free`.
typedef struct choice choice;
choice *choice_new(int32_t vocabulary);

// Returns the token that `rule` chooses by the logits. A rule that samples takes two words of the
// generator for each number of the vocabulary, whatever it leaves out. The logits are finite.
int32_t choose(
    choice *choice, const he_sampling *rule, generator *generator, const float *logits);
// Takes the words that `choose` would take.
void skip_choice(const choice *choice, const he_sampling *rule, generator *generator);

#endif
