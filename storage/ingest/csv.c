/* Numbers as text: comma, semicolon or tab between them, one row a line, an optional header (RFC 4180).
 *
 * A first row with a cell that is no number is a header. Lines end with LF or CRLF; cells may be quoted and have blanks around them;
 * empty lines are passed over; nan and inf are numbers. Every row has as many cells as the first one.
 *
 * PUT of one array: the matrix, float32 (rows, columns); a single column is (rows) and int32 if all of its cells are integers.
 * PUT of a data set: "data", the float32 matrix (rows, columns) of all; with a header each column once more as an array (rows) of its
 * own, int32 or float32 by the same rule, as far as its name can name an array and is not "data" (the first 64 columns).
 *
 * Read twice: the first pass finds errors, counts rows and judges the columns, so that the files can be laid out; the second writes. */
#include <ctype.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "storage/ingest/ingest.h"

#define MAX_COLUMNS      100000
#define MAX_NAMED        64   /* columns that become arrays of their own: one open file each */
#define MAX_CELL         1000 /* bytes */
#define COLUMN_BLOCK     4096 /* numbers gathered before a column is written */
#define MAX_HEADER_BYTES (1 << 20)

struct csv {
    struct input *in;
    struct problem *problem;
    char separator;
    unsigned char *block;
    size_t n, at; /* bytes in block, next one */
    int64_t line; /* 1-based, of the next byte */
    int64_t cell_line;
    char cell[MAX_CELL + 1];
    bool quoted, end_of_row, end; /* of the cell just read; end: there was no cell any more */
};

static enum status peek(struct csv *c, int *ret)
{
    if (c->at == c->n) {
        TRY(input_fill(c->in, c->block, INGEST_BLOCK, &c->n, c->problem));
        c->at = 0;
    }
    *ret = c->at < c->n ? c->block[c->at] : -1;
    return ST_OK;
}

static void take(struct csv *c)
{
    c->line += c->block[c->at] == '\n';
    c->at++;
}

static enum status too_long(const struct csv *c)
{
    return fail(c->problem, ST_INVALID, c->in->where, "line %" PRId64 " has a cell of more than %d bytes", c->cell_line,
                MAX_CELL);
}

/* The opening quote is taken. A doubled quote is one. */
static enum status quoted_cell(struct csv *c, size_t *length)
{
    int ch;

    for (;;) {
        TRY(peek(c, &ch));
        if (ch < 0)
            return fail(c->problem, ST_INVALID, c->in->where, "the quote opened in line %" PRId64 " is never closed",
                        c->cell_line);
        take(c);
        if (ch == '"') {
            TRY(peek(c, &ch));
            if (ch != '"')
                return ST_OK;
            take(c);
        }
        if (*length == MAX_CELL)
            return too_long(c);
        c->cell[(*length)++] = (char)ch;
    }
}

/* The next cell into c->cell, blanks around it removed. */
static enum status next_cell(struct csv *c)
{
    size_t length = 0;
    int ch;

    c->quoted = c->end_of_row = c->end = false;
    c->cell_line = c->line;
    TRY(peek(c, &ch));
    c->end = ch < 0;
    for (;; take(c)) {
        TRY(peek(c, &ch));
        if (ch < 0 || ch == '\n' || ch == c->separator)
            break;
        if (ch == '"' && length == 0 && !c->quoted) {
            take(c);
            c->quoted = true;
            TRY(quoted_cell(c, &length));
            TRY(peek(c, &ch));
            if (ch < 0 || ch == '\n' || ch == c->separator)
                break;
        }
        if ((ch == ' ' || ch == '\t' || ch == '\r') && (length == 0 || c->quoted))
            continue;
        if (c->quoted)
            return fail(c->problem, ST_INVALID, c->in->where, "line %" PRId64 " has text behind a closing quote", c->cell_line);
        if (length == MAX_CELL)
            return too_long(c);
        c->cell[length++] = (char)ch;
    }
    while (length > 0 && strchr(" \t\r", c->cell[length - 1]))
        length--;
    c->cell[length] = 0;
    c->end_of_row = ch < 0 || ch == '\n';
    if (ch >= 0)
        take(c);
    return ST_OK;
}

enum kind { NOT_A_NUMBER, INTEGER, REAL, OUT_OF_RANGE };

static enum kind parse_number(const char *s, float *ret)
{
    static const char *const words[] = {"nan", "inf", "-inf", "+inf", "infinity", "-infinity", "+infinity"};
    size_t n = strlen(s);
    char *end;

    if (n == 0)
        return NOT_A_NUMBER;
    if (strspn(s, "0123456789+-.eE") != n) { /* strtod alone would take hexadecimal numbers */
        for (size_t i = 0; i < COUNT(words); i++)
            if (strcasecmp(s, words[i]) == 0) {
                *ret = i == 0 ? NAN : *s == '-' ? -INFINITY : INFINITY;
                return REAL;
            }
        return NOT_A_NUMBER;
    }
    double x = strtod(s, &end);
    if (*end)
        return NOT_A_NUMBER;
    if (!(fabs(x) <= FLT_MAX))
        return OUT_OF_RANGE;
    *ret = (float)x;
    size_t sign = *s == '-' || *s == '+';
    return s[sign] && strspn(s + sign, "0123456789") == n - sign && x >= INT32_MIN && x <= INT32_MAX ? INTEGER : REAL;
}

/* What a file holds, as the first pass finds it; the second walks over it once more. */
struct table {
    bool header;
    int64_t rows;
    int n, room;
    const char **name; /* header cells, NULL without */
    bool *integer;     /* per column: so far all integers */
};

static void add_column(struct table *t, struct arena *mem)
{
    if (t->n == t->room) {
        int room = t->room ? t->room * 4 : 64;
        const char **name = ARENA_ARRAY(mem, const char *, room);
        bool *integer = ARENA_ARRAY(mem, bool, room);

        if (t->n) {
            memcpy(name, t->name, sizeof *name * (size_t)t->n);
            memcpy(integer, t->integer, sizeof *integer * (size_t)t->n);
        }
        t->name = name;
        t->integer = integer;
        t->room = room;
    }
    t->integer[t->n++] = true;
}

static enum status bad_cell(const struct csv *c, const struct table *t, int column, enum kind kind)
{
    char name[160] = "";

    if (t->header && t->name[column])
        snprintf(name, sizeof name, " (%.100s)", t->name[column]);
    if (!*c->cell && !c->quoted)
        return fail(c->problem, ST_INVALID, c->in->where, "line %" PRId64 ", column %d%s is empty; every cell must be a number",
                    c->cell_line, column + 1, name);
    return fail(c->problem, ST_INVALID, c->in->where, "line %" PRId64 ", column %d%s is \"%.60s\", %s", c->cell_line,
                column + 1, name, c->cell, kind == OUT_OF_RANGE ? "which is beyond float32" : "not a number");
}

static enum status begin(struct csv *c)
{
    static const unsigned char mark[] = {0xef, 0xbb, 0xbf}; /* of UTF-8 */
    int commas = 0, semicolons = 0, tabs = 0, ch;

    TRY(c->in->rewind(c->in, c->problem));
    c->n = c->at = 0;
    c->line = 1;
    TRY(peek(c, &ch));
    if (c->n >= 3 && memcmp(c->block, mark, 3) == 0)
        c->at = 3;
    for (size_t i = c->at; i < c->n && c->block[i] != '\n'; i++) {
        commas += c->block[i] == ',';
        semicolons += c->block[i] == ';';
        tabs += c->block[i] == '\t';
    }
    c->separator = commas ? ',' : semicolons ? ';' : tabs ? '\t' : ',';
    return ST_OK;
}

/* The first row with anything in it: names, or the first numbers. */
static enum status first_row(struct csv *c, struct table *t, struct arena *mem)
{
    size_t bytes = 0;
    bool numbers = true;
    float x;

    for (;;) {
        TRY(next_cell(c));
        if (c->end && t->n == 0)
            return fail(c->problem, ST_INVALID, c->in->where, "the file holds no rows");
        if (t->n == 0 && c->end_of_row && !*c->cell && !c->quoted)
            continue;
        if (t->n == MAX_COLUMNS)
            return fail(c->problem, ST_TOO_LARGE, c->in->where, "the first row has more than %d columns", MAX_COLUMNS);
        bytes += strlen(c->cell) + 4;
        if (bytes > MAX_HEADER_BYTES)
            return fail(c->problem, ST_TOO_LARGE, c->in->where, "the first row has more than %d bytes", MAX_HEADER_BYTES);
        add_column(t, mem);
        t->name[t->n - 1] = arena_text(mem, c->cell);
        numbers = numbers && parse_number(c->cell, &x) != NOT_A_NUMBER;
        if (c->end_of_row)
            break;
    }
    t->header = !numbers;
    return ST_OK;
}

/* Where the numbers of the second pass go. */
struct column_out {
    struct output_array a;
    int column;
    bool integer;
    size_t n;
    union {
        float real[COLUMN_BLOCK];
        int32_t whole[COLUMN_BLOCK];
    } block;
};

struct table_out {
    struct output_array all;
    float *block;
    size_t n;
    int n_columns;
    struct column_out *columns;
};

static void note(struct statistics *s, double x)
{
    if (isnan(x))
        return;
    s->min = x < s->min ? x : s->min;
    s->max = x > s->max ? x : s->max;
    s->sum += x;
    s->n++;
}

static enum status flush_all(struct table_out *o, const struct csv *c)
{
    size_t n = o->n;

    o->n = 0;
    return output_write(&o->all, o->block, n * sizeof *o->block, c->in->where, c->problem);
}

static enum status flush_column(struct column_out *o, const struct csv *c)
{
    size_t n = o->n;

    o->n = 0;
    return output_write(&o->a, &o->block, n * 4, c->in->where, c->problem); /* float and int32_t have 4 bytes */
}

static enum status put_column(struct column_out *o, const struct csv *c, float x)
{
    if (o->integer) {
        int32_t whole = (int32_t)strtol(c->cell, NULL, 10); /* from the text: float has 24 bits */

        o->block.whole[o->n++] = whole;
        note(&o->a.s, whole);
    } else {
        o->block.real[o->n++] = x;
        note(&o->a.s, x);
    }
    return o->n == COLUMN_BLOCK ? flush_column(o, c) : ST_OK;
}

/* All rows. out NULL: only looked at, into t. */
static enum status all_rows(struct csv *c, struct table *t, struct table_out *out)
{
    size_t room = INGEST_BLOCK / sizeof(float);
    int next_named = 0;
    float x = 0;

    for (int column = 0;;) {
        TRY(next_cell(c));
        if (c->end && column == 0)
            return ST_OK;
        if (column == 0 && c->end_of_row && !*c->cell && !c->quoted)
            continue;
        if (column == t->n)
            return fail(c->problem, ST_INVALID, c->in->where, "line %" PRId64 " has more than the %d columns of the first row",
                        c->cell_line, t->n);
        enum kind kind = parse_number(c->cell, &x);
        if (kind == NOT_A_NUMBER || kind == OUT_OF_RANGE)
            return bad_cell(c, t, column, kind);
        if (!out) {
            t->integer[column] = t->integer[column] && kind == INTEGER;
        } else {
            if (out->all.fd >= 0) {
                out->block[out->n++] = x;
                note(&out->all.s, x);
                if (out->n == room)
                    TRY(flush_all(out, c));
            }
            if (next_named < out->n_columns && out->columns[next_named].column == column)
                TRY(put_column(&out->columns[next_named++], c, x));
        }
        column++;
        if (!c->end_of_row)
            continue;
        if (column < t->n)
            return fail(c->problem, ST_INVALID, c->in->where, "line %" PRId64 " has %d columns, the first row has %d",
                        c->cell_line, column, t->n);
        column = next_named = 0;
        t->rows += !out;
    }
}

static enum status skip_header(struct csv *c, const struct table *t)
{
    int column = 0;

    if (!t->header)
        return ST_OK;
    do {
        TRY(next_cell(c));
        column += !(column == 0 && c->end_of_row && !*c->cell && !c->quoted);
    } while (column < t->n);
    return ST_OK;
}

static const char *header_json(const struct table *t, struct arena *mem)
{
    CLEAN(text_done) struct text json = text_make(8 * MAX_HEADER_BYTES);

    if (!t->header)
        return NULL;
    for (int i = 0; i < t->n; i++) {
        text_add(&json, i ? "," : "[");
        text_add_json(&json, t->name[i]);
    }
    text_add(&json, "]");
    return arena_text(mem, json.s);
}

static enum status choose_columns(const struct csv *c, const struct table *t, struct output *o, struct table_out *out)
{
    struct shape shape = SHAPE(t->rows);

    out->columns = must_alloc(sizeof *out->columns * MAX_NAMED);
    for (int i = 0; i < t->n && out->n_columns < MAX_NAMED; i++) {
        struct column_out *column = &out->columns[out->n_columns];

        if (!name_valid(t->name[i]) || strcmp(t->name[i], "data") == 0)
            continue;
        for (int k = 0; k < i; k++)
            if (strcmp(t->name[k], t->name[i]) == 0)
                return fail(c->problem, ST_INVALID, c->in->where, "columns %d and %d are both called \"%s\"", k + 1, i + 1,
                            t->name[i]);
        column->column = i;
        column->integer = t->integer[i];
        TRY(output_begin(o, t->name[i], column->integer ? I32 : F32, &shape, c->in->where, &column->a, c->problem));
        out->n_columns++;
    }
    return ST_OK;
}

static enum status write_table(struct csv *c, struct table *t, struct output *o, bool named, struct table_out *out)
{
    struct shape shape = SHAPE(t->rows, t->n);
    const char *where = c->in->where;

    if (!named && t->n == 1) {
        shape.rank = 1;
        out->columns = must_alloc(sizeof *out->columns);
        out->columns[0].integer = t->integer[0];
        TRY(output_begin(o, NULL, t->integer[0] ? I32 : F32, &shape, where, &out->columns[0].a, c->problem));
        out->n_columns = 1;
        out->columns[0].a.row->columns = header_json(t, o->mem);
    } else {
        TRY(output_begin(o, named ? "data" : NULL, F32, &shape, where, &out->all, c->problem));
        out->all.row->columns = header_json(t, o->mem);
    }
    if (named && t->header)
        TRY(choose_columns(c, t, o, out));

    TRY(begin(c));
    TRY(skip_header(c, t));
    TRY(all_rows(c, t, out));
    if (out->all.fd >= 0) {
        TRY(flush_all(out, c));
        TRY(output_end(&out->all, where, c->problem));
    }
    for (int i = 0; i < out->n_columns; i++) {
        TRY(flush_column(&out->columns[i], c));
        TRY(output_end(&out->columns[i].a, where, c->problem));
    }
    return ST_OK;
}

static enum status read_both_passes(struct csv *c, struct output *o, bool named, struct table_out *out)
{
    struct table t = {0};

    TRY(begin(c));
    TRY(first_row(c, &t, o->mem));
    if (!t.header) {
        TRY(begin(c));
        memset(t.name, 0, sizeof *t.name * (size_t)t.n);
    }
    TRY(all_rows(c, &t, NULL));
    if (t.rows == 0)
        return fail(c->problem, ST_INVALID, c->in->where, "the file has a header of %d columns and no rows", t.n);
    return write_table(c, &t, o, named, out);
}

enum status read_csv(struct input *in, struct output *o, bool named, struct problem *problem)
{
    struct csv c = {.in = in, .problem = problem, .block = must_alloc(INGEST_BLOCK)};
    struct table_out out = {.all.fd = -1, .block = must_alloc(INGEST_BLOCK)};
    enum status status = read_both_passes(&c, o, named, &out);

    output_drop(&out.all);
    for (int i = 0; i < out.n_columns; i++)
        output_drop(&out.columns[i].a);
    free(out.columns);
    free(out.block);
    free(c.block);
    return status;
}
