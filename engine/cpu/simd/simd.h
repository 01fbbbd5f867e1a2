/* Every .c file of this folder is compiled once per SIMD level (x86-64-v2, v3, v4; elsewhere "base") with SIMD_LEVEL defined.
 *
 * SIMD(name) is name_v3 and so on: every function with external linkage in this folder is called so. The tables in
 * engine/cpu/cpu.c choose one level at start, by what the CPU has or by HORN_SIMD. */
#ifndef HORN_CPU_SIMD_SIMD_H
#define HORN_CPU_SIMD_SIMD_H

#define SIMD_JOIN_(name, level) name##_##level
#define SIMD_JOIN(name, level) SIMD_JOIN_(name, level)
#define SIMD_TEXT_(level) #level
#define SIMD_TEXT(level) SIMD_TEXT_(level)

#ifdef SIMD_LEVEL
#define SIMD(name) SIMD_JOIN(name, SIMD_LEVEL)
#define SIMD_NAME SIMD_TEXT(SIMD_LEVEL)
const char *SIMD(level_name)(void);
#endif

#endif
