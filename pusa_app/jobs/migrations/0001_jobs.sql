-- The queue. Times are seconds since the epoch.
CREATE TABLE job (
    id       TEXT PRIMARY KEY,
    number   INTEGER NOT NULL UNIQUE,
    position REAL NOT NULL,
    owner    TEXT NOT NULL,
    state    TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled', 'interrupted')),
    recipe   TEXT NOT NULL,
    out      TEXT NOT NULL,
    folder   TEXT NOT NULL,
    message  TEXT NOT NULL DEFAULT '',
    created  REAL NOT NULL,
    started  REAL,
    finished REAL,
    attempt  INTEGER NOT NULL DEFAULT 1,
    lean     INTEGER NOT NULL DEFAULT 0,
    source   TEXT NOT NULL DEFAULT '',
    embed    INTEGER NOT NULL DEFAULT 1,
    held     INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX job_in_order ON job (state, position);
CREATE INDEX job_of_owner ON job (owner, number);

-- Whatever the program above does wrong, how a job ended stays how it ended.
CREATE TRIGGER job_ended BEFORE UPDATE OF state ON job
WHEN OLD.state NOT IN ('queued', 'running') AND NEW.state <> OLD.state
BEGIN
    SELECT RAISE(ABORT, 'the job has ended');
END;

-- Whose waiting jobs are not started, and why: 'user' or 'restart'.
CREATE TABLE paused (
    owner  TEXT PRIMARY KEY,
    reason TEXT NOT NULL
);
