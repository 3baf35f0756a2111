"""The protocol between two nodes: what differs, and only that, is exchanged.

A core without I/O takes what arrived and the time, and returns what to persist, what to send and whom to notify, in
that order. The driver around it (`sync.driver`) owns the connections; discovery (`sync.discovery`) only hints at
addresses.

What this package needs of the store it declares as a `typing.Protocol` in its own words, and `node` supplies it. It may
import `crdt` and `ledger`, never `node` or `mcp_edge`. tests/sim drives the same core in virtual time.
"""
