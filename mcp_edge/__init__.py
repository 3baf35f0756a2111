"""The face that AI agents see: tools, resources and prompts over the Model Context Protocol.

Not built yet: nothing in this package works, and no other package imports it. Until then agents reach a node by its
REST API and the command line.

Its place: under `node` and beside `sync`, which it does not know. What it needs of the node it will declare as a
`typing.Protocol` (`mcp_edge.Memory`), and `node` supplies it.
"""
