"""The commands for MCP clients: be the pipe between one and this node, and put this node into a client's settings.

`cortex-node mcp` as clients call it never comes here: node/entry.py goes straight to the pipe, past the command line.
Tests: tests/node/test_commands_mcp.py.
"""

import sys
from pathlib import Path
from typing import Any

from node import entry, mcp_install
from node.commands import Answer, Call
from node.page import Page

STYLES = {"+": "green", "-": "red", "@": "cyan"}


def serve(call: Call) -> Answer:
    """Be the pipe, until the client ends."""
    return Answer(None, None, entry.pipe(str(call.home.path)))


def install(call: Call) -> Answer:
    """Write a client's settings, or put them back."""
    client = mcp_install.CLIENTS[call.args.client]
    given = call.args.file
    path = Path(given).expanduser().absolute() if given else client.path(Path("~").expanduser(), sys.platform)
    if call.args.undo:
        change = mcp_install.removing(client, path)
    else:
        change = mcp_install.adding(client, path, mcp_install.entry(call.home, call.environ))
    if not call.args.dry_run:
        if not call.args.undo:
            mcp_install.keep(change)
        if change.before != change.after:
            mcp_install.make(change)
        if call.args.undo:
            mcp_install.forget(change)
    document = {
        "client": call.args.client,
        "file": str(path),
        "changed": change.before != change.after and not call.args.dry_run,
        "diff": change.diff,
    }
    return Answer(document, _shown(client.name, dry=call.args.dry_run))


def _shown(name: str, *, dry: bool) -> Any:
    def show(page: Page, document: Any) -> None:
        for line in document["diff"]:
            page.line(line, STYLES.get(line[:1], ""))
        if dry:
            page.line("nothing was written")
        elif document["changed"]:
            page.line(f"wrote {document['file']}; restart {name} to see it")
        else:
            page.line(f"{document['file']} is as it should be")

    return show
