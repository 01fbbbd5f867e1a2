/* Shortest decimals of floats: fewest digits that read back as the same float, and of those the nearest to it. */
#ifndef HORN_BASE_SHORTEST_H
#define HORN_BASE_SHORTEST_H

#include <stdbool.h>
#include <stdint.h>

enum { SHORTEST_ROOM = 24 };

/* x finite and above 0: x reads back from the result times 10^*exponent. The result may end in zeros. */
uint32_t shortest_digits(float x, int *exponent);
/* x finite, as JSON has it: "3", "-0.0125", "1.5e-07", "1e+08". Returns the length; no terminator. */
int shortest_print(float x, char to[SHORTEST_ROOM]);

#endif
