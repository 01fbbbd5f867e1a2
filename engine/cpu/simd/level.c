/* The name of the level that this copy of the folder was compiled for. */
#include "engine/cpu/simd/simd.h"

const char *SIMD(level_name)(void) { return SIMD_NAME; }
