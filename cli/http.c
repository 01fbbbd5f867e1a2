/* The only includer of curl in the client. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <curl/curl.h>

#define MAX_ANSWER ((size_t)1 << 30)

static const char *base_url = "http://127.0.0.1:8501";

void http_url(const char *url)
{
    base_url = url;
}

static size_t take(char *data, size_t size, size_t n, void *text)
{
    text_add_bytes(text, data, size * n);
    return ((struct text *)text)->cut ? 0 : size * n;
}

static void send_file(CURL *curl, FILE *f)
{
    struct stat s;

    if (fstat(fileno(f), &s) == 0)
        curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)s.st_size);
    curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(curl, CURLOPT_READDATA, f);
}

struct answer http_send(const char *method, const char *path, const char *type, const char *body, size_t bytes,
                        const char *file)
{
    static CURL *curl; /* kept, so that watching reuses one connection */
    struct answer a = {.text = text_make(MAX_ANSWER)};
    CLEAN(text_done) struct text url = text_make(4096), header = text_make(256);
    struct curl_slist *headers = NULL;
    FILE *f = file ? fopen(file, "rb") : NULL;
    long code = 0;

    if (file && !f) {
        text_printf(&a.text, "%s cannot be opened", file);
        return a;
    }
    curl = curl ? curl : curl_easy_init();
    curl_easy_reset(curl);
    text_printf(&url, "%s%s", base_url, path);
    text_printf(&header, "Content-Type: %s", type ? type : "application/octet-stream");
    headers = curl_slist_append(headers, header.s);
    headers = curl_slist_append(headers, "Expect:");
    curl_easy_setopt(curl, CURLOPT_URL, url.s);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &a.text);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    if (f)
        send_file(curl, f);
    if (body) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)bytes);
    }
    if (!body && !f && strcmp(method, "POST") == 0) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, "");
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)0);
    }
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
    CURLcode result = curl_easy_perform(curl);

    if (result == CURLE_OK)
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &code);
    else {
        text_clear(&a.text);
        text_printf(&a.text, "no answer from %s: %s", base_url, curl_easy_strerror(result));
    }
    a.code = (int)code;
    curl_slist_free_all(headers);
    if (f)
        fclose(f);
    return a;
}

/* A problem document in a line or two; anything else as it came. */
static void print_problem(const struct answer *a)
{
    struct problem ignored;
    OWNED(json_free) struct json *j = NULL;

    if (!a->code || json_parse(a->text.s, a->text.length, NULL, 0, &j, &ignored) != ST_OK || !json_text(json_get(j, "title"))) {
        fprintf(stderr, "horn: %s\n", a->text.s);
        return;
    }
    const char *pointer = json_text(json_get(j, "pointer")), *where = json_text(json_get(j, "where"));
    const char *detail = json_text(json_get(j, "detail")), *place = pointer ? pointer : where;

    fprintf(stderr, "horn: %d %s\n  %s%s%s\n", a->code, json_text(json_get(j, "title")), place ? place : "", place ? ": " : "",
            detail ? detail : "");
}

struct json *answer_json(struct answer *a)
{
    struct problem problem;
    struct json *j = NULL;

    if (a->code < 200 || a->code > 299) {
        print_problem(a);
        exit(1);
    }
    if (json_parse(a->text.s, a->text.length, NULL, 0, &j, &problem) != ST_OK) {
        fprintf(stderr, "horn: the answer is no JSON: %s\n", problem.detail);
        exit(1);
    }
    text_done(&a->text);
    return j;
}
