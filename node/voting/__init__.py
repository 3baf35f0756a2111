"""Agents, their votes, and the ledger, on a node. What is signed, hashed and computed is in `ledger`; this is the rest:
ops that carry it from node to node, tables that keep it, and the one task on a hub that gives votes their place.

What travels, and what is kept
    records       the ops: votes, statements, checkpoints, entries, cosignatures, forks
    table         the ledger on disk: `ledger.log.Storage` in SQLite, whole on hubs, with gaps on nodes that carry less
    ballots       the votes that gossip has brought, until the ledger has them
    claims        what a vote tells of the ledger, and whether that is evidence

Agents, votes, scores
    keys          private keys of agents in HOME/agents, 0600
    machine       this node as it signs about agents
    roster        who the agents are, with what is still on its way
    agents        the verbs about them: list, show, add, rotate, revoke
    verbs         vote, and tell of votes; `requests` and `shapes` are what comes in and goes out
    voters        who signed a vote
    scores        `ledger.score.Fold` over tables, which `mappings` makes into what it works on
    verdicts      what a fact shows of its votes, and the votes one by one

A hub commits
    founding      a mesh and its ledger, made whole or not at all
    grants        who may append: the founding, the grant that holds, a takeover
    permission    whether this node may append and sign now, and if not, why
    mark          what this node has signed, beside the database
    selection     what of all that is pending goes into the next batch, waits, or never can
    commits       batches put to the quorum, until it is known what became of each
    announce      what is committed, as ops for everybody
    hub           the queue: all of that in turns

Everybody follows
    signers       whose signature makes a checkpoint count, by the grants in a row
    inbox         the ops of the ledger as they come: taken in at once, or noted
    intake        one checkpoint, record of entries or fork at a time: whether it is to be believed
    accepted      what was accepted, and how a grant makes it be given up
    follow        the task that checks, persists, then cosigns
    witness       cosignatures: this node's, and those of others

The ledger is asked for
    reads         status, checkpoint, entries, proofs, tiles
    forward       a question that only a hub may answer, put to a hub
    verification  all of it that is here, checked
    exports       as files, and `folders` of them, checked without a node
    anchor        stamped with a time by somebody else (RFC 3161)

`voting` puts all of it together.

One way there and one way back, and both are sync. A vote is an op of its project, so it reaches a hub by whichever
peers there are. What the hub commits comes back as ops: *checkpoints* and entries without a project in the reserved
project, which every node has; entries of votes, with the votes' texts and inclusion proofs, in the project that they
are about. So whoever carries a project has every receipt of it, also when the hub is gone, and nodes need no other
protocol. Anybody may write these ops again, and it proves nothing who did; the signatures in them do. Only which
checkpoint is the first must be said by a hub.

* Nothing here makes an op count or not count for sync; a record that cannot be believed is kept, and has no effect.
* A vote op tells the newest checkpoint that its sender has accepted, with a hub's signature. A hub that is behind it
  appends nothing until it has caught up: so a hub that was restored from a backup goes on where it had been.
* Whatever is derived - ballots, scores, the ledger's tables on a node that is no hub - is made again from the ops.
"""
