"""The protocol between two nodes: what differs, and only that, is exchanged.

    PROTOCOL.md   the wire, message by message, with a transcript that a test replays
    messages      what two peers can say, and the bounds of each
    codec         frames: the bytes of a message, bounded before anything reads them
    overlap       which projects two peers both carry, and nothing about the others
    digest        equal digests, equal knowledge
    merkle        the maths of the tree that audits what the vectors claim
    replica       what the core asks of the store (a Protocol; node/store.py satisfies it)
    transfer      batches, the window, and what may be sent unasked: nothing
    walk          what differs between two sets of ops, found level by level
    audit         which projects to walk, what to audit with the peer, and how often
    session       one peer's session, a state machine
    push          fresh ops, outside of rounds
    trickle       when to have a round though nothing is known to differ
    view          whom to be connected to, of all who are known
    dialling      which addresses to try when
    rate          how fast to send
    gossip        the core: all sessions, one deadline
    ready         what the core wants done, and in which order
    errors        why a session ends
    driver        the edge: connections and the clock (the only aiohttp)
    discovery     the edge: hints at addresses (the only zeroconf)

A core without I/O takes what arrived and the time, and returns what to persist, what to send and whom to notify, in
that order. Everything but the two edges is that core; tests/sim drives it in virtual time.

It may import `crdt` and `ledger`, never `node` or `mcp_edge`.
"""
