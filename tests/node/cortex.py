"""Databases as the earlier system made them."""

import sqlite3
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE facts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, project TEXT NOT NULL, content TEXT NOT NULL,
    fact_type TEXT NOT NULL DEFAULT 'knowledge', tags TEXT NOT NULL DEFAULT '[]',
    confidence TEXT NOT NULL DEFAULT 'stated', valid_from TEXT NOT NULL, valid_until TEXT, source TEXT,
    meta TEXT DEFAULT '{}', consensus_score REAL DEFAULT 1.0, created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
    tx_id INTEGER
);
CREATE TABLE agents (id TEXT PRIMARY KEY, public_key TEXT NOT NULL, name TEXT NOT NULL);
CREATE TABLE consensus_votes (
    id INTEGER PRIMARY KEY AUTOINCREMENT, fact_id INTEGER NOT NULL, agent TEXT NOT NULL, vote INTEGER NOT NULL,
    timestamp TEXT NOT NULL, UNIQUE (fact_id, agent)
);
CREATE TABLE consensus_votes_v2 (
    id INTEGER PRIMARY KEY AUTOINCREMENT, fact_id INTEGER NOT NULL, agent_id TEXT NOT NULL, vote INTEGER NOT NULL,
    vote_weight REAL NOT NULL, agent_rep_at_vote REAL NOT NULL, created_at TEXT NOT NULL, UNIQUE (fact_id, agent_id)
);
"""
THEN = "2026-01-10 10:00:00"


class Cortex:
    """One such database, open."""

    def __init__(self, path: Path, schema: str = SCHEMA) -> None:
        self.path = path
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.executescript(schema)

    def fact(self, content: Any = "a fact", **more: Any) -> int:
        given = {"project": "home", "content": content, "valid_from": THEN, "created_at": THEN, "updated_at": THEN}
        return self.insert("facts", **given | more)

    def deprecate(self, fact: int, reason: str) -> None:
        self.connection.execute(
            "UPDATE facts SET valid_until = '2026-02-01T00:00:00+00:00',"
            " meta = json_set(meta, '$.deprecation_reason', ?) WHERE id = ?",
            (reason, fact),
        )

    def vote(self, fact: int, agent: str, value: Any) -> None:
        self.insert("consensus_votes", fact_id=fact, agent=agent, vote=value, timestamp=THEN)

    def agent(self, id_: str, name: str) -> str:
        self.insert("agents", id=id_, public_key="", name=name)
        return id_

    def weighted_vote(self, fact: int, agent: str, value: Any) -> None:
        weights = {"vote_weight": 0.5, "agent_rep_at_vote": 0.5}
        self.insert("consensus_votes_v2", fact_id=fact, agent_id=agent, vote=value, created_at=THEN, **weights)

    def insert(self, table: str, **columns: Any) -> int:
        places = ", ".join("?" * len(columns))
        query = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"
        return int(self.connection.execute(query, list(columns.values())).lastrowid or 0)
