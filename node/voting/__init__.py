"""Agents, their votes, and the ledger, on a node. What is signed, hashed and computed is in `ledger`; this is the rest:
ops that carry it from node to node, tables that keep it, and the one task on a hub that gives votes their place.

    records    the ops: votes, statements, checkpoints, entries, cosignatures, forks
    table      the ledger on disk: `ledger.log.Storage` in SQLite, whole on hubs, with gaps on nodes that carry less
    ballots    the votes that gossip has brought, until the ledger has them
    claims     what a vote tells of the ledger, and whether that is evidence
    scores     `ledger.score.Fold` over tables: what of the ledger has been taken in, and what follows
    mappings   those tables as the mappings that it works on
    verdicts   what a fact shows of its votes, and the votes one by one
    voters     who signed a vote
    keys       private keys of agents in HOME/agents, 0600
    agents     who they are: create, rotate, revoke
    verbs      vote, and tell of votes
    founding   a mesh and its ledger, made whole or not at all
    grants     who may append: the founding, the grant that holds, a takeover
    permission whether this node may append and sign now, and if not, why
    mark       what this node has signed, beside the database
    selection  what of all that is pending goes into the next batch, waits, or never can
    commits    batches put to the quorum, until it is known what became of each
    announce   what is committed, as ops for everybody
    hub        the queue: all of that in turns
    signers    whose signature makes a checkpoint count, by the grants in a row
    inbox      the ops of the ledger as they come: taken in at once, or noted
    accepted   what was accepted, and how a grant makes it be given up
    intake     one checkpoint, record of entries or fork at a time: whether it is to be believed
    follow     what everybody does with what a hub tells: the task that checks, persists, then cosigns
    witness    cosignatures: this node's, and those of others
    reads      the ledger as it is asked for: status, entries, proofs, exports, verification
    forward    a question that only a hub may answer, put to a hub

One way there and one way back, and both are sync. A vote is an op of its project, so it reaches a hub by whichever
peers there are. What the hub commits comes back as ops: *checkpoints* and entries without a project in the reserved
project, which every node has; entries of votes, with the votes' texts and inclusion proofs, in the project that they
are about. So whoever carries a project has every receipt of it, also when the hub is gone, and nodes need no other
protocol. Anybody may forward these ops; who wrote them proves nothing, the signatures in them do.

* Nothing here makes an op count or not count for sync; a record that cannot be believed is kept, and has no effect.
* A vote op tells the newest checkpoint that its sender has accepted, with a hub's signature. A hub that is behind it
  appends nothing until it has caught up: so a hub that was restored from a backup goes on where it had been.
* Whatever is derived - ballots, scores, the ledger's tables on a node that is no hub - is made again from the ops.
"""
