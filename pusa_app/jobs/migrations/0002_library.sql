-- What the library searches and marks, and how long a step takes for what kind of run.
ALTER TABLE job ADD COLUMN task TEXT NOT NULL DEFAULT '';
ALTER TABLE job ADD COLUMN model TEXT NOT NULL DEFAULT '';
ALTER TABLE job ADD COLUMN prompt TEXT NOT NULL DEFAULT '';
ALTER TABLE job ADD COLUMN seed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN favourite INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN deleted REAL;

CREATE TABLE pace (
    kind    TEXT PRIMARY KEY,
    seconds REAL NOT NULL
);
