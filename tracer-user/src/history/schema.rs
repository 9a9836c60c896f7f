//! The schema: every text and every stack is stored once, a sample's row is a few small numbers.

/// What `PRAGMA user_version` says of these tables; a change adds a step to [`MIGRATIONS`].
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// From each version to the next; the first from an empty file.
pub(super) const MIGRATIONS: [&str; 1] = [
    "
CREATE TABLE text (
    id INTEGER PRIMARY KEY,
    value TEXT NOT NULL UNIQUE
);
-- A run of the daemon: the head of its reports, as JSON.
CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    head TEXT NOT NULL UNIQUE
);
-- A process, by what it runs: after an exec it is another row. pid is NULL for unattributed sockets.
CREATE TABLE opener (
    id INTEGER PRIMARY KEY,
    boot INTEGER NOT NULL REFERENCES text,
    pid INTEGER,
    start_ms INTEGER,
    name INTEGER REFERENCES text,
    cmdline INTEGER REFERENCES text,
    unit INTEGER REFERENCES text,
    container INTEGER REFERENCES text,
    user INTEGER REFERENCES text,
    netns INTEGER,
    last_at_s INTEGER NOT NULL
);
CREATE INDEX opener_pid ON opener (pid);
CREATE TABLE stack (
    id INTEGER PRIMARY KEY,
    digest INTEGER NOT NULL,
    frames TEXT NOT NULL,
    note INTEGER REFERENCES text,
    site_function INTEGER REFERENCES text,
    site_file INTEGER REFERENCES text,
    site_line INTEGER,
    last_at_s INTEGER NOT NULL
);
CREATE INDEX stack_digest ON stack (digest);

CREATE TABLE sample (
    at_s INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES run,
    established_both_ends INTEGER NOT NULL,
    established_client_ends INTEGER NOT NULL,
    close_wait INTEGER NOT NULL,
    unattributed INTEGER NOT NULL,
    drift INTEGER NOT NULL,
    outstanding INTEGER NOT NULL
);
-- opened and closed: since the sample before. facts: JSON, only of what leaks.
CREATE TABLE opener_sample (
    at_s INTEGER NOT NULL,
    opener INTEGER NOT NULL REFERENCES opener,
    outstanding INTEGER NOT NULL,
    established INTEGER NOT NULL,
    close_wait INTEGER NOT NULL,
    opened INTEGER,
    closed INTEGER,
    oldest_age_s INTEGER,
    verdict INTEGER REFERENCES text,
    facts TEXT,
    PRIMARY KEY (at_s, opener)
) WITHOUT ROWID;
CREATE TABLE stack_sample (
    at_s INTEGER NOT NULL,
    opener INTEGER NOT NULL REFERENCES opener,
    stack INTEGER NOT NULL REFERENCES stack,
    outstanding INTEGER NOT NULL,
    oldest_age_s INTEGER,
    youngest_age_s INTEGER,
    PRIMARY KEY (at_s, opener, stack)
) WITHOUT ROWID;

CREATE TABLE level_change (
    id INTEGER PRIMARY KEY,
    at_s INTEGER NOT NULL,
    subject TEXT NOT NULL,
    level_from TEXT NOT NULL,
    level_to TEXT NOT NULL,
    count INTEGER NOT NULL
);
CREATE INDEX level_change_at ON level_change (at_s);
-- act, outcome, verdict and openers are JSON.
CREATE TABLE action (
    id INTEGER PRIMARY KEY,
    at_s INTEGER NOT NULL,
    action_id INTEGER NOT NULL,
    unit TEXT NOT NULL,
    act TEXT NOT NULL,
    outcome TEXT,
    verdict TEXT,
    evidence_file TEXT,
    openers TEXT NOT NULL
);
CREATE INDEX action_at ON action (at_s);

-- For people with sqlite3.
CREATE VIEW unit_sample AS
    SELECT at_s, text.value AS unit, sum(outstanding) AS outstanding, sum(opened) AS opened,
           sum(closed) AS closed
    FROM opener_sample JOIN opener ON opener.id = opener LEFT JOIN text ON text.id = opener.unit
    GROUP BY at_s, opener.unit;
CREATE VIEW site_sample AS
    SELECT at_s, f.value AS function, p.value AS file, site_line AS line,
           sum(outstanding) AS outstanding
    FROM stack_sample JOIN stack ON stack.id = stack
    LEFT JOIN text f ON f.id = site_function LEFT JOIN text p ON p.id = site_file
    GROUP BY at_s, site_function, site_file, site_line;
",
];
