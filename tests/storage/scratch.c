/* See scratch.h. */
#include "tests/storage/scratch.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "tests/test.h"

static __thread int n_files;

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static int count_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)path, (void)st, (void)ftw;
    n_files += type == FTW_F;
    return 0;
}

struct scratch scratch_make(void)
{
    struct scratch s = {.folder = "/tmp/horn-test-XXXXXX"};

    CHECK(mkdtemp(s.folder));
    return s;
}

bool scratch_mount(struct scratch *s, size_t bytes)
{
    char options[64];

    snprintf(options, sizeof options, "size=%zu", bytes);
    s->mounted = mount("tmpfs", s->folder, "tmpfs", MS_NOSUID | MS_NODEV, options) == 0;
    return s->mounted;
}

void scratch_done(struct scratch *s)
{
    if (s->mounted)
        (void)umount2(s->folder, MNT_DETACH);
    (void)nftw(s->folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

struct db *scratch_db(struct scratch *s)
{
    struct problem problem = {0};
    struct db *db = NULL;
    char path[300];

    snprintf(path, sizeof path, "%s/data", s->folder);
    CHECK_OK(db_open(path, &db, &problem));
    return db;
}

void scratch_upload(struct db *db, const void *bytes, size_t n, char path[512])
{
    struct problem problem = {0};
    int fd;

    CHECK_OK(db_temp(db, path, &fd, &problem));
    CHECK_INT(write(fd, bytes, n), n);
    CHECK_INT(close(fd), 0);
}

int scratch_files(struct scratch *s, const char *sub)
{
    char path[400];

    snprintf(path, sizeof path, "%s/data/%s", s->folder, sub);
    n_files = 0;
    (void)nftw(path, count_entry, 8, FTW_PHYS);
    return n_files;
}
