/* IDX, the format of MNIST: two zero bytes, type, number of dimensions, the dimensions as 32-bit big-endian numbers, the data big-endian.
 * Source: http://yann.lecun.com/exdb/mnist/ ("The IDX file format"). */
#include <string.h>

#include "storage/ingest/ingest.h"

struct idx_type {
    unsigned char code;
    char kind;
    size_t bytes;
};
static const struct idx_type types[]; /* at the end */

enum status read_idx(struct input *in, struct output *o, const char *name, struct problem *problem)
{
    unsigned char head[4], dims[4 * MAX_RANK];
    struct shape shape = SCALAR;
    const struct element *e = NULL;
    size_t got = 0;

    TRY(input_fill(in, head, sizeof head, &got, problem));
    if (got < sizeof head || head[0] || head[1])
        return fail(problem, ST_INVALID, in->where, "is no IDX file: it does not begin with two zero bytes, a type and a rank");
    for (int i = 0; types[i].code; i++)
        if (types[i].code == head[2])
            e = element_find(types[i].kind, types[i].bytes);
    if (!e)
        return fail(problem, ST_INVALID, in->where, "the IDX type 0x%02x is not known; there are 08, 09, 0b, 0c, 0d, 0e",
                    head[2]);
    if (head[3] < 1 || head[3] > MAX_RANK)
        return fail(problem, ST_INVALID, in->where, "the IDX file has %d dimensions; 1 to %d are read", head[3], MAX_RANK);
    TRY(input_fill(in, dims, (size_t)4 * head[3], &got, problem));
    if (got < (size_t)4 * head[3])
        return fail(problem, ST_INVALID, in->where, "the IDX file ends within its %d dimensions", head[3]);
    for (shape.rank = 0; shape.rank < head[3]; shape.rank++) {
        const unsigned char *d = dims + 4 * shape.rank;

        shape.dim[shape.rank] = (int64_t)d[0] << 24 | d[1] << 16 | d[2] << 8 | d[3];
    }
    TRY(shape_checked(&shape, in->where, problem));
    return copy_elements(in, o, name, e, e->bytes > 1 && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, false, &shape, problem);
}

static const struct idx_type types[] = {
    {0x08, 'u', 1}, {0x09, 'i', 1}, {0x0b, 'i', 2}, {0x0c, 'i', 4}, {0x0d, 'f', 4}, {0x0e, 'f', 8}, {0}};
