"""The replicated values: signed ops, and the pure functions that say what a set of them shows.

hlc        timestamps that order writes without agreeing on the time
version    dots, version vectors over `prev` chains, and how two vectors compare
op         the signed op: one immutable envelope, its bytes, its checks
register   last write wins, and the concurrent loser stays visible
orset      add and remove; a concurrent add survives
text       long text that several agents edit at once (pycrdt, only here)
yjs        which of the updates that arrive for a text are let in
survive    who dominates whom: from a set of ops to those that take effect

Nothing here does I/O: no clock, no socket, no database, no chance of its own. Time and randomness are arguments. It
imports no other package of this project. The laws that every type keeps: tests/crdt.
"""
