"""The node: one process with an identity, which owns one database and serves its agents and its peers.

This package is the composition root, the only one that knows all the others: configuration, identity, the mesh's
certificate authority, the store (the only SQL), the clock (the only reader of time), search, the command line, HTTP. It
supplies the protocols that the packages below declare.
"""

__version__: str


def __getattr__(name: str) -> str:
    """`__version__`, read on first use: importlib.metadata takes longer to import than most commands take to run."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("cortex-node")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"
