-- Version 1 of horn.db. Later versions are further steps in db.c; this text never changes once released.
--
-- Ids are never used again (AUTOINCREMENT), because folders are named by them. Times are milliseconds since 1970, UTC.

CREATE TABLE datasets (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT NOT NULL UNIQUE,
    created_ms INTEGER NOT NULL
) STRICT;

-- One complete file each. A PUT over an array makes a new row and sets current = 0 on the old one, which goes, with its file,
-- when no unfinished job holds it.
CREATE TABLE arrays (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    dataset     INTEGER NOT NULL REFERENCES datasets (id),
    name        TEXT NOT NULL,
    current     INTEGER NOT NULL CHECK (current IN (0, 1)),
    dtype       TEXT NOT NULL,              -- "float32", as numpy names it
    shape       TEXT NOT NULL,              -- "[60000,28,28]"
    bytes       INTEGER NOT NULL,
    file_offset INTEGER NOT NULL,           -- of the data in the file, read by pread
    path        TEXT NOT NULL,              -- datasets/<dataset>/<id>.h5
    min         REAL,                       -- NULL: no numbers in it
    max         REAL,
    mean        REAL,
    columns     TEXT,                       -- JSON array of a CSV header's names
    created_ms  INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX arrays_by_name ON arrays (dataset, name) WHERE current = 1;
CREATE INDEX arrays_replaced ON arrays (id) WHERE current = 0;
CREATE INDEX arrays_by_dataset ON arrays (dataset);

CREATE TABLE models (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT NOT NULL UNIQUE,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE model_versions (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    model        INTEGER NOT NULL REFERENCES models (id),
    version      INTEGER NOT NULL,
    path         TEXT NOT NULL,             -- models/<model>/<version>/model.h5
    architecture TEXT NOT NULL,
    compile      TEXT,
    prepare      TEXT,
    raw_shapes   TEXT,
    metrics      TEXT,
    job          INTEGER,                   -- that made it; NULL: imported
    created_ms   INTEGER NOT NULL,
    UNIQUE (model, version)
) STRICT;

--   queued -> running -> done
--     |  ^      |  |---> failed      running -> queued            a crash (db_open) or a stop (jobs_requeue); goes on from
--     |  |      |  '---> cancelled                                the checkpoint
--     |  '------'                    running -> failed at db_open  after 20 claims without a new checkpoint
--     '--> cancelled                 paused                        on request, later; counts as unfinished
--
-- Unfinished (queued, running, paused) jobs hold their arrays and their base version; finished ones hold nothing.
CREATE TABLE jobs (
    id                      INTEGER PRIMARY KEY AUTOINCREMENT,
    type                    TEXT NOT NULL,
    state                   TEXT NOT NULL CHECK (state IN ('queued', 'running', 'paused', 'done', 'failed', 'cancelled')),
    model                   TEXT NOT NULL,
    request                 TEXT NOT NULL,
    device                  TEXT NOT NULL,  -- as asked
    ran_on                  TEXT,
    seed                    INTEGER NOT NULL,
    priority                INTEGER NOT NULL,
    attempt                 INTEGER NOT NULL DEFAULT 0,
    claims_since_checkpoint INTEGER NOT NULL DEFAULT 0,
    checkpoint              TEXT,
    checkpoint_number       INTEGER NOT NULL DEFAULT 0,
    progress                TEXT,
    result                  TEXT,
    problem                 TEXT,
    warnings                TEXT,
    environment             TEXT,
    reproducible            INTEGER NOT NULL DEFAULT 1,
    idempotency_key         TEXT UNIQUE,
    base_version            INTEGER,        -- model_versions.id, NULL: none
    created_ms              INTEGER NOT NULL,
    started_ms              INTEGER,
    finished_ms             INTEGER
) STRICT;
CREATE INDEX jobs_queue ON jobs (priority DESC, id) WHERE state = 'queued';
CREATE INDEX jobs_by_state ON jobs (state, id);
CREATE INDEX jobs_by_model ON jobs (model, id);

CREATE TABLE job_arrays (
    job   INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    array INTEGER NOT NULL REFERENCES arrays (id) ON DELETE CASCADE,
    PRIMARY KEY (job, array)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_arrays_by_array ON job_arrays (array);

-- History: one row per epoch and metric, in the order in which the trainer told them.
CREATE TABLE job_epochs (
    job      INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    epoch    INTEGER NOT NULL,
    position INTEGER NOT NULL,
    name     TEXT NOT NULL,
    value    REAL,                          -- NULL: not a number
    PRIMARY KEY (job, epoch, position)
) STRICT, WITHOUT ROWID;

-- Files that callbacks asked for, by the name that the user gave; the path has the row's id.
CREATE TABLE job_files (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    job  INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    path TEXT NOT NULL,                     -- jobs/<job>/files/<id>
    UNIQUE (job, name)
) STRICT;
