// What a library is, and which of them this processor can run.

#include <stdint.h>

#include "engine.h"

#ifdef __x86_64__
#include <cpuid.h>
#endif

EXPORT int32_t he_arithmetic_version(void) { return HE_ARITHMETIC; }

// The instruction set that this library was compiled for.
EXPORT const char *he_instruction_set(void) { return HELIUM_INSTRUCTION_SET; }

// The SHA-256 of the SHA-256 (hex) of all C files, by name; "" if it was compiled by hand.
#ifndef HELIUM_SOURCES
#define HELIUM_SOURCES ""
#endif
EXPORT const char *he_sources(void) { return HELIUM_SOURCES; }

#ifdef __x86_64__
// The highest level of x86-64 whose library the processor and the system can run: 4 (which is with
// VNNI here), 3 or 1. Ask the library for plain x86-64.
EXPORT int32_t he_x86_64_level(void) {
    unsigned a, b, basic, extended, d;
    __builtin_cpu_init();
    // Each of these asks too whether the system saves the wide registers.
    if (!__builtin_cpu_supports("avx") || !__builtin_cpu_supports("avx2") ||
        !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi") ||
        !__builtin_cpu_supports("bmi2"))
        return 1;
    // clang 14 knows no names for the others.
    if (!__get_cpuid(1, &a, &b, &basic, &d) || !__get_cpuid(0x80000001, &a, &b, &extended, &d))
        return 1;
    if (!(basic & bit_F16C) || !(basic & bit_MOVBE) || !(extended & bit_LZCNT)) return 1;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni")
               ? 4
               : 3;
}
#endif
