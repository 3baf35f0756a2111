"""The ledger: votes and what they depend on, ordered, hash-chained, and provable to an outsider.

    FORMAT.md    every byte that is signed or hashed, with vectors for an agent that signs outside
    ed25519      sign and check
    tlog         the Merkle tree of RFC 6962 and 9162: roots, inclusion and consistency proofs
    tiles        its hashes and the entries as files (C2SP tlog-tiles)
    note         signed notes (C2SP signed-note), with several signers and witnesses
    checkpoint   origin, size, root; older, unproven, or a fork with its evidence
    policy       which hubs and how many witnesses make a checkpoint count (C2SP tlog-policy)
    receipt      that an entry is in the ledger, in one file (C2SP tlog-proof)
    vote         the signed vote
    statement    signed genesis, enrolment, revocation, grant
    entry        146 bytes an entry: sequencing data, and the hash of a vote or a statement
    log          drafts become entries at one commit point; recovery is the same code
    quorum       who makes a commit durable, and who may ask for it
    agents       who may vote, entry by entry
    score        reputation and scores: a pure fold in integers
    texts        what the texts of entries say, one after the other
    verify       everything read again, and what is wrong with it
    export       a folder of files that other programs check, and the way back

What the parts above do with it:

* A node lets an agent sign (`vote.sign`, or `vote.attach` for one that signs elsewhere), checks every vote that arrives
  (`vote.verify`), and shows `Fold.provisional` beside `Fold.verdict`.
* A hub checks what it is asked to append: the member, `vote.verify` or `statement.verify`, `Agents.objection` and
  `Agents.voter`, the counter (`Fold.next_counter`), that it has the version. Then `quorum.check_may_append` and
  `log.append`; with a quorum elsewhere `log.plan`, its commit, `log.publish`. `log.receipt` goes back to who asked.
* A node that is sent a checkpoint opens it under its policy, compares it with the last one that it accepted
  (`checkpoint.compare`), persists it, and only then cosigns. A ForkError carries the evidence to keep.
* `verify.verify` reads a node's store and an export alike.

Values and pure functions: no clock, no I/O, no chance of its own, and no import of another package of this project.
What is on disk is behind `log.Storage`, a Protocol that `node` supplies; no log and no tree is held in memory.
"""
