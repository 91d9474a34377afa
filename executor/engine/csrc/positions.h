// Sines and cosines of positions.
#ifndef HELIUM_POSITIONS_H
#define HELIUM_POSITIONS_H

#include <stdint.h>

// Writes the `width` numbers of a position: cosines, then sines, of position * 10000^(-i / (h - 1))
// for i < h = width / 2; a last +0 if the width is odd. The width is at least 4.
void write_position(int64_t position, int64_t width, float *y);

#endif
