/* The shortest decimal of a float, by Schubfach.
 *
 *   x = c 2^q;  every decimal between the midpoints to x's neighbours, (c - 1/2) 2^q and (c + 1/2) 2^q, reads back as x (both ends
 *   too where c is even, as reading rounds to even). With k = floor(log10 2^q) that interval is at least one and less than ten
 *   units of 10^k wide: it holds one or two of the neighbours of x among the multiples of 10^k, and at most one multiple of
 *   10^(k + 1), which is then shorter.
 *
 * All three numbers are compared as integers: 4 c 2^q / 10^k by one product with 64 bits of 10^-k, rounded to odd, which keeps
 * "exactly", "below" and "above" apart. Source: R. Giulietti, "The Schubfach way to render doubles" (2020), sections 8 and 9; the
 * 64 bits suffice for float by its table 5. */
#include "engine/base/shortest.h"

#include <string.h>

enum { FIRST_POWER = -31, LAST_POWER = 45, BIAS = 127 + 23 };

static const uint64_t powers[LAST_POWER - FIRST_POWER + 1];

/* floor(e log10 2), floor(log10(3/4 2^e)), floor(e log2 10), for all exponents that a float has. */
static inline int log10_of_2(int e)
{
    return (e * 1262611) >> 22;
}

static inline int log10_of_3_4_2(int e)
{
    return (e * 1262611 - 524031) >> 22;
}

static inline int log2_of_10(int e)
{
    return (e * 1741647) >> 19;
}

/* The upper 32 bits of the 96-bit product, their last one set if anything is behind them. (The power is rounded up: what that adds
 * stays below 2.) */
static inline uint32_t round_to_odd(uint64_t power, uint32_t c)
{
    uint64_t low = (power & 0xFFFFFFFFu) * c, high = (power >> 32) * c + (low >> 32);

    return (uint32_t)(high >> 32) | ((uint32_t)high > 1);
}

uint32_t shortest_digits(float x, int *exponent)
{
    uint32_t bits, fraction, c, low, mid, high, s;
    int q, k, h;
    bool odd, narrow;

    memcpy(&bits, &x, sizeof bits);
    fraction = bits & 0x7FFFFFu;
    q = (int)(bits >> 23 & 255);
    narrow = fraction == 0 && q > 1; /* the float below is half as far away */
    c = q ? fraction | 0x800000u : fraction;
    q = (q ? q : 1) - BIAS;
    odd = c & 1;
    k = narrow ? log10_of_3_4_2(q) : log10_of_2(q);
    h = q + log2_of_10(-k) + 1;
    low = round_to_odd(powers[-k - FIRST_POWER], (4 * c - 2 + narrow) << h) + odd;
    mid = round_to_odd(powers[-k - FIRST_POWER], (4 * c) << h);
    high = round_to_odd(powers[-k - FIRST_POWER], (4 * c + 2) << h) - odd;
    s = mid / 4;
    if (s >= 10) {
        uint32_t ten = s / 10;
        bool below = low <= 40 * ten, above = 40 * ten + 40 <= high;

        if (below != above) {
            *exponent = k + 1;
            return ten + above;
        }
    }
    *exponent = k;
    if ((low <= 4 * s) != (4 * s + 4 <= high))
        return s + (4 * s + 4 <= high);
    return s + (mid > 4 * s + 2 || (mid == 4 * s + 2 && (s & 1)));
}

/* The digits of m at the end of `digits`; how many. */
static int write_digits(uint32_t m, char digits[10])
{
    int n = 0;

    do
        digits[9 - n++] = (char)('0' + m % 10);
    while (m /= 10);
    return n;
}

static char *write_exponent(char *to, int e)
{
    *to++ = 'e';
    *to++ = e < 0 ? '-' : '+';
    e = e < 0 ? -e : e;
    *to++ = (char)('0' + e / 10); /* at most 45 */
    *to++ = (char)('0' + e % 10);
    return to;
}

int shortest_print(float x, char to[SHORTEST_ROOM])
{
    char digits[10], *first, *begin = to;
    uint32_t bits, m;
    int n, e = 0, point; /* digits, and those in front of the point */

    memcpy(&bits, &x, sizeof bits);
    if (bits >> 31) {
        *to++ = '-';
        x = -x;
    }
    if (x < 1e7f && x == (float)(uint32_t)x) {
        n = write_digits((uint32_t)x, digits);
        memcpy(to, digits + 10 - n, (size_t)n);
        return (int)(to - begin) + n;
    }
    m = shortest_digits(x, &e);
    while (m % 10 == 0) {
        m /= 10;
        e++;
    }
    n = write_digits(m, digits);
    first = digits + 10 - n;
    point = n + e;
    if (point > 0 && e <= 0) {
        memcpy(to, first, (size_t)point);
        to += point;
        if (e < 0)
            *to++ = '.';
        memcpy(to, first + point, (size_t)-e);
        to -= e;
    } else if (e < 0 && point > -4) {
        memcpy(to, "0.000", 5);
        to += 2 - point;
        memcpy(to, first, (size_t)n);
        to += n;
    } else {
        *to++ = *first;
        if (n > 1) {
            *to++ = '.';
            memcpy(to, first + 1, (size_t)n - 1);
            to += n - 1;
        }
        to = write_exponent(to, point - 1);
    }
    return (int)(to - begin);
}

/* 10^FIRST_POWER .. 10^LAST_POWER, each times a power of two so that it has 64 bits, rounded up. */
static const uint64_t powers[LAST_POWER - FIRST_POWER + 1] = {
    0x81ceb32c4b43fcf5, 0xa2425ff75e14fc32, 0xcad2f7f5359a3b3f, 0xfd87b5f28300ca0e, 0x9e74d1b791e07e49, 0xc612062576589ddb,
    0xf79687aed3eec552, 0x9abe14cd44753b53, 0xc16d9a0095928a28, 0xf1c90080baf72cb2, 0x971da05074da7bef, 0xbce5086492111aeb,
    0xec1e4a7db69561a6, 0x9392ee8e921d5d08, 0xb877aa3236a4b44a, 0xe69594bec44de15c, 0x901d7cf73ab0acda, 0xb424dc35095cd810,
    0xe12e13424bb40e14, 0x8cbccc096f5088cc, 0xafebff0bcb24aaff, 0xdbe6fecebdedd5bf, 0x89705f4136b4a598, 0xabcc77118461cefd,
    0xd6bf94d5e57a42bd, 0x8637bd05af6c69b6, 0xa7c5ac471b478424, 0xd1b71758e219652c, 0x83126e978d4fdf3c, 0xa3d70a3d70a3d70b,
    0xcccccccccccccccd, 0x8000000000000000, 0xa000000000000000, 0xc800000000000000, 0xfa00000000000000, 0x9c40000000000000,
    0xc350000000000000, 0xf424000000000000, 0x9896800000000000, 0xbebc200000000000, 0xee6b280000000000, 0x9502f90000000000,
    0xba43b74000000000, 0xe8d4a51000000000, 0x9184e72a00000000, 0xb5e620f480000000, 0xe35fa931a0000000, 0x8e1bc9bf04000000,
    0xb1a2bc2ec5000000, 0xde0b6b3a76400000, 0x8ac7230489e80000, 0xad78ebc5ac620000, 0xd8d726b7177a8000, 0x878678326eac9000,
    0xa968163f0a57b400, 0xd3c21bcecceda100, 0x84595161401484a0, 0xa56fa5b99019a5c8, 0xcecb8f27f4200f3a, 0x813f3978f8940985,
    0xa18f07d736b90be6, 0xc9f2c9cd04674edf, 0xfc6f7c4045812297, 0x9dc5ada82b70b59e, 0xc5371912364ce306, 0xf684df56c3e01bc7,
    0x9a130b963a6c115d, 0xc097ce7bc90715b4, 0xf0bdc21abb48db21, 0x96769950b50d88f5, 0xbc143fa4e250eb32, 0xeb194f8e1ae525fe,
    0x92efd1b8d0cf37bf, 0xb7abc627050305ae, 0xe596b7b0c643c71a, 0x8f7e32ce7bea5c70, 0xb35dbf821ae4f38c,
};
