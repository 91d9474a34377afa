// Reads memory once, as fast as a thread can: eight far streams at a time, which keep the hardware
// prefetchers busy (one stream is slower than the engine). `scripts/bench engine` compiles it.
#include <stdint.h>
#include <string.h>

enum { STREAMS = 8 };
typedef uint64_t lanes __attribute__((vector_size(32)));

// Reads `times` times; up to 33 KiB at the end are left out. Returns the sum, so that the compiler
// leaves out nothing.
uint64_t read_streams(const char *memory, int64_t bytes, int64_t times) {
    // An odd number of lines: streams at multiples of a large power of two from each other would
    // wait for the same bank of memory (2.4 times as long for musicgen-small's float32 weights).
    int64_t length = (bytes / (STREAMS * 4096) - 1) * 4096 + 17 * 64;
    lanes sums[STREAMS] = {0};
    for (; times > 0; times--)
        for (int64_t at = 0; at < length; at += 32)
            for (int stream = 0; stream < STREAMS; stream++) {
                lanes values;
                memcpy(&values, memory + stream * length + at, sizeof values);
                sums[stream] += values;
            }
    for (int stream = 1; stream < STREAMS; stream++) sums[0] += sums[stream];
    return sums[0][0] + sums[0][1] + sums[0][2] + sums[0][3];
}
