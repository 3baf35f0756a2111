"""The database's shape, step by step. Each migration runs in one transaction with the record that it ran.

A database from a newer version is refused with both numbers: an older program could not keep promises that it does not
know. Nothing here touches the bytes of an op, so a change of the local schema sends nothing over the network.

What is replicated lives in `ops`; `heads`, `leaves`, `ahead`, `held`, `waiting` and `gaps` keep the books of it. From
`facts` to `links`, in `vectors`, and from `ballots` on, everything is derived and can be rebuilt from the ops at any
time (`Store.rebuild`); only on a hub are the tables of the ledger the first to know.
"""

import sqlite3
from collections.abc import Iterator

from node.errors import Problem

MIGRATIONS: tuple[tuple[str, str], ...] = (
    (
        "the set of ops, its books, and what is shown of it",
        """
        CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
        CREATE TABLE authors (
            id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE,  -- 16 bytes: crdt.version.author_id
            node_key BLOB NOT NULL, epoch INTEGER NOT NULL
        );
        CREATE TABLE projects (
            id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
            bits INTEGER NOT NULL,                              -- the Merkle tree has 2^bits leaves
            sum INTEGER NOT NULL DEFAULT 0, ops INTEGER NOT NULL DEFAULT 0
        );
        CREATE TABLE ops (
            id INTEGER PRIMARY KEY, project INTEGER NOT NULL, author INTEGER NOT NULL, seq INTEGER NOT NULL,
            hash BLOB NOT NULL, subject TEXT NOT NULL, timestamp INTEGER NOT NULL,
            waiting INTEGER NOT NULL DEFAULT 0,                 -- 1: its clock names ops that are not here
            raw BLOB NOT NULL
        );
        CREATE UNIQUE INDEX ops_by_chain ON ops (project, author, seq, hash);
        CREATE UNIQUE INDEX ops_by_hash ON ops (project, hash);  -- a Merkle leaf is a range of it
        CREATE INDEX ops_by_subject ON ops (subject, project);
        CREATE TABLE heads (
            project INTEGER NOT NULL, author INTEGER NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL,
            PRIMARY KEY (project, author)
        ) WITHOUT ROWID;
        CREATE TABLE leaves (
            project INTEGER NOT NULL, leaf INTEGER NOT NULL, sum INTEGER NOT NULL, ops INTEGER NOT NULL,
            PRIMARY KEY (project, leaf)
        ) WITHOUT ROWID;
        CREATE TABLE ahead (                                    -- ops beyond a gap in their author's chain
            project TEXT NOT NULL, author BLOB NOT NULL, prev_seq INTEGER NOT NULL, hash BLOB NOT NULL,
            raw BLOB NOT NULL,
            PRIMARY KEY (project, author, prev_seq, hash)
        ) WITHOUT ROWID;
        CREATE TABLE held (                                     -- subjects of ops from a clock too far ahead
            timestamp INTEGER NOT NULL, project INTEGER NOT NULL, subject TEXT NOT NULL,
            PRIMARY KEY (timestamp, project, subject)
        ) WITHOUT ROWID;
        CREATE TABLE waiting (                                  -- one missing cause of each waiting op
            project INTEGER NOT NULL, author BLOB NOT NULL, seq INTEGER NOT NULL, op INTEGER NOT NULL,
            PRIMARY KEY (project, author, seq, op)
        ) WITHOUT ROWID;

        CREATE TABLE facts (
            id INTEGER PRIMARY KEY, name TEXT NOT NULL,         -- the fact's id as users see it
            project INTEGER NOT NULL, fact_type TEXT NOT NULL, source TEXT,
            created INTEGER NOT NULL, updated INTEGER NOT NULL, -- timestamps (crdt.hlc)
            retracted INTEGER,                                  -- timestamp of the retraction, NULL while it stands
            valid_from INTEGER, valid_until INTEGER,            -- milliseconds since 1970 UTC
            shown BLOB NOT NULL,                                -- JSON of the API's Fact
            body TEXT
        );
        CREATE UNIQUE INDEX facts_by_name ON facts (name, project);  -- who runs one identity twice may use a name twice
        CREATE INDEX facts_by_time ON facts (created, id);
        CREATE INDEX facts_by_project ON facts (project, created, id);
        CREATE INDEX facts_by_source ON facts (project, source, created, id);
        CREATE TABLE texts (                                    -- each content a fact has or had: what search reads
            id INTEGER PRIMARY KEY, fact INTEGER NOT NULL, scope TEXT NOT NULL,  -- `p` + project, filters inside FTS
            known_from INTEGER NOT NULL, known_until INTEGER,   -- timestamps; until is NULL for what is shown now
            chars INTEGER GENERATED ALWAYS AS (length(content) + coalesce(length(body), 0)) STORED,
            content TEXT NOT NULL, body TEXT                    -- last: the columns before are read without them
        );
        CREATE INDEX texts_by_fact ON texts (fact);
        CREATE VIRTUAL TABLE texts_fts USING fts5 (
            content, body, scope, content='texts', content_rowid='id', tokenize='porter unicode61'
        );
        CREATE TABLE texts_counts (                             -- how many texts a scope has: what makes a word rare
            scope TEXT PRIMARY KEY, texts INTEGER NOT NULL
        ) WITHOUT ROWID;
        CREATE TRIGGER texts_insert AFTER INSERT ON texts BEGIN
            INSERT INTO texts_fts (rowid, content, body, scope) VALUES (new.id, new.content, new.body, new.scope);
            INSERT INTO texts_counts VALUES (new.scope, 1) ON CONFLICT (scope) DO UPDATE SET texts = texts + 1;
        END;
        CREATE TRIGGER texts_delete AFTER DELETE ON texts BEGIN
            INSERT INTO texts_fts (texts_fts, rowid, content, body, scope)
            VALUES ('delete', old.id, old.content, old.body, old.scope);
            UPDATE texts_counts SET texts = texts - 1 WHERE scope = old.scope;
        END;
        CREATE TRIGGER texts_update BEFORE UPDATE OF id, scope, content, body ON texts BEGIN
            SELECT raise(ABORT, 'a text is never edited: delete it and insert another');
        END;
        CREATE TABLE tags (
            project INTEGER NOT NULL, tag TEXT NOT NULL, fact INTEGER NOT NULL, PRIMARY KEY (project, tag, fact)
        ) WITHOUT ROWID;
        CREATE INDEX tags_by_fact ON tags (fact);
        CREATE TABLE links (
            origin TEXT NOT NULL, project INTEGER NOT NULL, relation TEXT NOT NULL, target TEXT NOT NULL,
            PRIMARY KEY (origin, project, relation, target)
        ) WITHOUT ROWID;
        CREATE INDEX links_by_target ON links (target);
        CREATE TABLE members (
            node TEXT PRIMARY KEY, name TEXT NOT NULL, certificate BLOB NOT NULL,
            timestamp INTEGER NOT NULL, hash BLOB NOT NULL      -- of the op that showed it
        ) WITHOUT ROWID;

        CREATE TABLE peers (
            address TEXT PRIMARY KEY, node TEXT, configured INTEGER NOT NULL, last_contact INTEGER
        ) WITHOUT ROWID;
        CREATE TABLE invitations (
            secret_hash BLOB PRIMARY KEY, grants TEXT NOT NULL, expires INTEGER NOT NULL, used_by TEXT
        ) WITHOUT ROWID;
        CREATE TABLE answers (                                  -- what an Idempotency-Key was answered
            key TEXT PRIMARY KEY, request BLOB NOT NULL, answer BLOB NOT NULL, at INTEGER NOT NULL
        ) WITHOUT ROWID;
        CREATE INDEX answers_by_time ON answers (at);
        """,
    ),
    (
        "how this node stands with each peer",
        """
        CREATE TABLE standings (                                -- node/lags.py
            node TEXT PRIMARY KEY, row INTEGER NOT NULL,        -- the last row of `ops` that is accounted for
            ahead_ops INTEGER NOT NULL, ahead_since INTEGER NOT NULL,
            behind_ops INTEGER NOT NULL, behind_since INTEGER NOT NULL,
            patterns TEXT NOT NULL                              -- JSON: what both carry
        ) WITHOUT ROWID;
        """,
    ),
    (
        "when a fact begins and ceases to be valid",
        """
        -- How long an answer about now stays true: shown.validity_changes_after. Few facts have either.
        CREATE INDEX facts_by_valid_from ON facts (valid_from) WHERE valid_from IS NOT NULL;
        CREATE INDEX facts_by_valid_until ON facts (valid_until) WHERE valid_until IS NOT NULL;
        """,
    ),
    (
        "a vector of each text",
        """
        CREATE TABLE vectors (                                  -- of texts.id: node/vectors.py
            text INTEGER PRIMARY KEY, project INTEGER NOT NULL,
            model INTEGER NOT NULL,                             -- who made it: vectors of two are never compared
            vector BLOB NOT NULL                                -- int8 each; empty when the model can't read the text
        );
        CREATE TABLE models (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
        CREATE TABLE vectors_due (text INTEGER PRIMARY KEY);    -- texts that lack a vector of the present model
        INSERT INTO vectors_due SELECT id FROM texts;
        CREATE TRIGGER vectors_due_insert AFTER INSERT ON texts BEGIN
            INSERT OR IGNORE INTO vectors_due VALUES (new.id);
        END;
        CREATE TRIGGER vectors_delete AFTER DELETE ON texts BEGIN
            DELETE FROM vectors WHERE text = old.id;
            DELETE FROM vectors_due WHERE text = old.id;
        END;
        CREATE INDEX facts_by_type ON facts (fact_type, project);  -- few facts of a type are compared one by one
        """,
    ),
    (
        "what was damaged, and what was repaired",
        """
        CREATE TABLE gaps (                                     -- ops that a chain claims and that are not here
            project INTEGER NOT NULL, author INTEGER NOT NULL, seq INTEGER NOT NULL,
            hash BLOB NOT NULL,                                 -- its first 16 bytes
            before INTEGER NOT NULL,                            -- the seq of the last op ahead of the gap
            told INTEGER NOT NULL DEFAULT 0,                    -- 1: our vector claims no more than `before`
            found INTEGER NOT NULL,                             -- ms since 1970 UTC
            raw BLOB,                                           -- the bytes that rotted; NULL when there are none
            PRIMARY KEY (project, author, seq, hash)
        ) WITHOUT ROWID;
        CREATE TABLE repairs (                                  -- node/repairs.py
            id INTEGER PRIMARY KEY, at INTEGER NOT NULL, peer TEXT, project TEXT NOT NULL, cause TEXT NOT NULL,
            ops INTEGER NOT NULL, author TEXT                   -- the node whose ops they were
        );
        """,
    ),
    (
        "votes, agents and the ledger",
        """
        ALTER TABLE facts ADD COLUMN legacy TEXT;               -- its id in an earlier system: node/legacy.py
        CREATE INDEX facts_by_legacy ON facts (legacy) WHERE legacy IS NOT NULL;
        UPDATE facts SET shown = CAST(substr(shown, 1, length(shown) - 1) || ',"legacy_id":null}' AS BLOB);

        -- Derived from the ops, like facts: node/voting.
        CREATE TABLE ballots (                                  -- votes in effect, by gossip: node/voting/ballots.py
            id BLOB PRIMARY KEY,                                -- SHA-256 of the signed vote
            subject TEXT NOT NULL, project TEXT NOT NULL, fact TEXT NOT NULL, version BLOB NOT NULL,
            agent BLOB NOT NULL, counter INTEGER NOT NULL, value INTEGER NOT NULL,
            time INTEGER NOT NULL, signed BLOB NOT NULL, reason TEXT NOT NULL,
            seen_size INTEGER NOT NULL, seen_root BLOB NOT NULL,  -- the newest checkpoint that its sender knew
            seen_signature BLOB NOT NULL,                       -- a hub's, of that: node/voting/claims.py
            entry INTEGER                                       -- its place in the ledger; NULL while it is pending
        ) WITHOUT ROWID;
        CREATE INDEX ballots_by_subject ON ballots (subject);
        CREATE INDEX ballots_by_fact ON ballots (fact, version);
        CREATE INDEX ballots_pending ON ballots (time, id) WHERE entry IS NULL;
        CREATE INDEX ballots_seen ON ballots (seen_size, seen_root, seen_signature) WHERE entry IS NULL;
        CREATE TABLE old_votes (                                -- of the earlier system: unsigned, they weigh nothing
            subject TEXT NOT NULL, project TEXT NOT NULL, fact TEXT NOT NULL,
            agent TEXT NOT NULL, value INTEGER NOT NULL, time INTEGER NOT NULL, PRIMARY KEY (subject, project)
        ) WITHOUT ROWID;
        CREATE INDEX old_votes_by_fact ON old_votes (fact);
        CREATE TABLE profiles (                                 -- what each node says of an agent: the voice's counts
            agent TEXT NOT NULL, writer BLOB NOT NULL, name TEXT NOT NULL, about TEXT NOT NULL,
            PRIMARY KEY (agent, writer)
        ) WITHOUT ROWID;
        CREATE TABLE project_keys (project TEXT PRIMARY KEY, key BLOB NOT NULL) WITHOUT ROWID;
        CREATE TABLE statements (                               -- signed statements that gossip brought
            hash BLOB PRIMARY KEY, kind INTEGER NOT NULL, text BLOB NOT NULL,
            entry INTEGER,                                      -- NULL while a hub has yet to take it in
            behind BLOB                                         -- the key of who answers for it, if gossip brought it
        ) WITHOUT ROWID;
        CREATE INDEX statements_pending ON statements (hash) WHERE entry IS NULL;
        CREATE INDEX statements_behind ON statements (behind) WHERE entry IS NULL;
        CREATE INDEX statements_grants ON statements (hash) WHERE kind = 4;
        CREATE TABLE ledger_inbox (                           -- ops still to be taken in: node/voting/inbox.py
            kind TEXT NOT NULL, at INTEGER NOT NULL, hash BLOB NOT NULL, project INTEGER NOT NULL,
            size INTEGER, since INTEGER,                        -- it waits for a root at either; NULL: for anything
            PRIMARY KEY (kind, at, hash)
        ) WITHOUT ROWID;

        CREATE TABLE ledger_entries (                           -- node/voting/table.py
            id INTEGER PRIMARY KEY, raw BLOB NOT NULL, name BLOB NOT NULL UNIQUE, tag BLOB NOT NULL,
            hash BLOB NOT NULL,                                 -- the chain's: what the next entry names
            text BLOB, project TEXT, fact TEXT, agent BLOB, value INTEGER, time INTEGER,  -- of a vote's text
            size INTEGER, proof BLOB                            -- inclusion under that checkpoint, if there are gaps
        ) STRICT;
        CREATE INDEX ledger_entries_by_tag ON ledger_entries (tag, id);
        CREATE INDEX ledger_entries_by_fact ON ledger_entries (fact, id) WHERE fact IS NOT NULL;
        CREATE TABLE ledger_hashes (
            level INTEGER NOT NULL, number INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (level, number)
        ) WITHOUT ROWID, STRICT;
        CREATE TABLE ledger_checkpoints (                       -- every root that was accepted; not every note is kept
            size INTEGER PRIMARY KEY, root BLOB NOT NULL, note BLOB, at INTEGER NOT NULL
        );
        CREATE TABLE ledger_forks (hash BLOB PRIMARY KEY, fork BLOB NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE ledger_cosignatures (
            node TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, line TEXT NOT NULL
        ) WITHOUT ROWID;
        CREATE TABLE ledger_state (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
        CREATE TABLE ledger_anchors (size INTEGER PRIMARY KEY, token BLOB NOT NULL, at INTEGER NOT NULL);  -- RFC 3161
        CREATE TABLE ledger_refused (                           -- texts that this hub will never take in, and why
            hash BLOB PRIMARY KEY, reason TEXT NOT NULL
        ) WITHOUT ROWID;

        -- The scores' fold: node/voting/scores.py.
        CREATE TABLE tallies (
            project TEXT NOT NULL, fact TEXT NOT NULL, version BLOB NOT NULL, tally BLOB NOT NULL,
            PRIMARY KEY (fact, version, project)
        ) WITHOUT ROWID;
        CREATE TABLE reputations (
            project TEXT NOT NULL, agent BLOB NOT NULL, reputation INTEGER NOT NULL, PRIMARY KEY (project, agent)
        ) WITHOUT ROWID;
        CREATE TABLE agents (                                   -- one row a key: ledger.agents.Agent
            key BLOB PRIMARY KEY, principal BLOB NOT NULL, name TEXT NOT NULL, voice BLOB NOT NULL,
            owner INTEGER NOT NULL, since INTEGER NOT NULL, until INTEGER
        ) WITHOUT ROWID;
        CREATE INDEX agents_by_principal ON agents (principal);
        CREATE INDEX agents_by_voice ON agents (voice);
        CREATE TABLE voided (principal BLOB PRIMARY KEY, since INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE scores_stopped (tag BLOB PRIMARY KEY, entry INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE scores_folded (                            -- the last entry of each tag, by place and chain hash
            tag BLOB PRIMARY KEY, entry INTEGER NOT NULL, hash BLOB NOT NULL
        ) WITHOUT ROWID;

        -- What programs of the earlier system read. A vote weighs what its agent weighs today (ledger.score).
        CREATE VIEW vote_ledger AS SELECT
            e.id, e.fact AS fact_id, lower(hex(e.agent)) AS agent_id, e.value AS vote,
            CASE WHEN a.owner THEN 1.0 WHEN a.key IS NULL OR substr(e.raw, 18, 1) = x'01' THEN 0.0
                ELSE max(0, 2 * coalesce(r.reputation, 700000) - 1000000) / 1000 / 1000.0 END AS vote_weight,
            lower(hex(substr(e.raw, 43, 32))) AS prev_hash, lower(hex(e.hash)) AS hash,
            strftime('%Y-%m-%dT%H:%M:%fZ', e.time / 1000.0, 'unixepoch') AS timestamp,
            lower(hex(substr(e.text, -64))) AS signature
        FROM ledger_entries e LEFT JOIN agents a ON a.key = e.agent
            LEFT JOIN reputations r ON r.project = e.project AND r.agent = a.principal
        WHERE substr(e.raw, 17, 1) = x'05';
        CREATE VIEW vote_merkle_roots AS                        -- the root after each thousandth vote, or soon after
        WITH votes AS (
            SELECT id, row_number() OVER (ORDER BY id) AS number FROM ledger_entries WHERE substr(raw, 17, 1) = x'05'
        ), sizes AS (
            SELECT DISTINCT (SELECT min(size) FROM ledger_checkpoints WHERE size > votes.id) AS size
            FROM votes WHERE number % 1000 = 0
        ), ends AS (
            SELECT size, max(number) AS number FROM sizes JOIN votes ON id < size GROUP BY size
        ), spans AS (
            SELECT size, number, lag(number, 1, 0) OVER (ORDER BY size) AS before FROM ends
        )
        SELECT
            row_number() OVER (ORDER BY s.size) AS id, lower(hex(c.root)) AS root_hash,
            first.id AS vote_start_id, last.id AS vote_end_id, s.number - s.before AS vote_count
        FROM spans s JOIN ledger_checkpoints c ON c.size = s.size
            JOIN votes first ON first.number = s.before + 1 JOIN votes last ON last.number = s.number;
        """,
    ),
)
NEWEST = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection, now_ms: int) -> int:
    """Bring the database up to NEWEST and return how many migrations ran. Raises Problem for one from the future.

    `connection` is in autocommit mode (isolation_level None).
    """
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, at INTEGER NOT NULL)"
    )
    (version,) = connection.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchone()
    if version > NEWEST:
        raise Problem(
            500,
            "database_newer",
            f"the database has version {version}, this program knows versions up to {NEWEST}",
            "install the newer cortex-node again, or restore a backup made by this version",
        )
    for number in range(version + 1, NEWEST + 1):
        name, script = MIGRATIONS[number - 1]
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in _statements(script):
                connection.execute(statement)
            connection.execute("INSERT INTO migrations VALUES (?, ?, ?)", (number, name, now_ms))
        except BaseException:
            if connection.in_transaction:  # a full disk has undone it already
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    return NEWEST - int(version)


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one: `executescript` would end the transaction around it."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    assert not statement.strip(), f"an unfinished statement: {statement}"
