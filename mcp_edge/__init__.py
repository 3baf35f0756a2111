"""The face that AI agents see: tools, resources and prompts over the Model Context Protocol.

    shim -> lines            `cortex-node mcp`: a pipe of the standard library between a client and the node
    server -> tools, prompts -> render -> memory
                             what a node answers; `server` alone knows the SDK, and is imported at the first attach
    files -> memory          Anthropic's memory tool over the same facts

What it needs of the node it declares in its own words (`memory.Memory`), and `node` supplies it (node/mcp_memory.py).
Nothing is imported here: `cortex-node mcp` pays for every import with memory and time.
"""
