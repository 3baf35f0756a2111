"""What the commands on the ledger do: status, checkpoint, proof, verify, export, anchor, takeover.

`verify` without a path asks the node about its own ledger; with one it checks an export or a receipt by itself, on any
machine. Findings are an answer, with the exit code of integrity. An export is checked as soon as it is written.

Tests: tests/node/test_commands_ledger.py.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from node import render_ledger as render
from node.client import segment
from node.commands import Answer, Call, unreadable
from node.errors import EXIT_INTEGRITY, EXIT_OK, Problem

if TYPE_CHECKING:
    from ledger.checkpoint import Checkpoint
    from ledger.policy import Policy

LONG = 5_000
"""Entries from which on a verification takes long enough for a bar: half a second."""
MAX_FILE_BYTES = 1 << 20
"""Of a receipt, a policy, a checkpoint or a certificate."""

Tell = Callable[[int, int], None]


def status(call: Call) -> Answer:
    """How the ledger is."""
    return Answer(call.client.call("GET", "/v1/ledger/status", query=_read(call)), render.status)


def checkpoint(call: Call) -> Answer:
    """The newest checkpoint's note."""
    return Answer(call.client.call("GET", "/v1/ledger/checkpoint", query=_read(call)), render.checkpoint)


def entries(call: Call) -> Answer:
    """Entries from an index on."""
    query = {"start": call.args.start, "limit": call.args.limit} | _read(call)
    return Answer(call.client.call("GET", "/v1/ledger/entries", query=query), render.entries)


def proof(call: Call) -> Answer:
    """A receipt: that an entry is in the ledger."""
    document = call.client.call("GET", f"/v1/ledger/proof/{segment(str(call.args.index))}", query=_read(call))
    if not call.args.out:
        return Answer(document, render.receipt)
    path = Path(call.args.out).expanduser()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(document["receipt"], encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise unreadable(str(path), error) from error
    return Answer(document | {"file": str(path)}, render.receipt_written)


def verify(call: Call) -> Answer:
    """Everything checked: this node's ledger, or an export, or a receipt."""
    with _bar() as tell:
        if call.args.path is None:
            if call.args.tsa_cert:
                raise Problem(400, "usage", "--tsa-cert is for an export", "name the folder of an export")
            document = _verify_here(call, tell)
        elif (path := Path(call.args.path).expanduser()).is_dir():
            document = _verify_folder(call, path, tell)
        else:
            document = _verify_receipt(call, path)
    return Answer(document, render.verified, EXIT_OK if document["ok"] else EXIT_INTEGRITY)


def export(call: Call) -> Answer:
    """The ledger as a folder of files, checked as it was written."""
    from node.voting import folders

    folder = Path(call.args.folder).expanduser()
    try:
        count = folders.write(folder, call.client.pieces("/v1/ledger/export", {"project": call.args.project}))
        policy = folders.read_policy((folder / "policy").read_bytes())
        with _bar() as tell:
            found = folders.check_folder(folder, policy, None, None, tell)
    except OSError as error:
        raise unreadable(str(folder), error) from error
    document = found | {"folder": str(folder), "files": count}
    return Answer(document, render.exported, EXIT_OK if found["ok"] else EXIT_INTEGRITY)


def anchor(call: Call) -> Answer:
    """The newest checkpoint, stamped with a time by somebody else."""
    return Answer(call.client.call("POST", "/v1/ledger/anchor", {}), render.anchored)


def takeover(call: Call) -> Answer:
    """Make this node the ledger's hub."""
    wanted: dict[str, Any] = {"abandon": call.args.abandon}
    if call.args.ca_key:
        from node import identity

        path = Path(call.args.ca_key).expanduser()
        if not path.exists():  # what `read_seed` says then is about a home
            raise Problem(
                400, "no_ca_key", f"{path} is not there",
                "name the file ca.key from the home of the machine that founded the mesh, or from its backup", "ca_key",
            )  # fmt: skip
        wanted["ca_seed"] = identity.read_seed(path).hex()
    if not call.args.yes:
        _agree(call, call.client.call("GET", "/v1/ledger/status", query={"read": "local"}))
    return Answer(call.client.call("POST", "/v1/ledger/takeover", wanted), render.taken_over)


def _agree(call: Call, status: dict[str, Any]) -> None:
    """Asks on the terminal. Raises Problem unless the answer is yes."""
    if not sys.stdin.isatty() or call.args.json:
        raise Problem(400, "usage", "a takeover is for good, and nobody can be asked here", "say --yes")
    sys.stderr.write(render.before_takeover(status))
    sys.stderr.flush()
    if call.stdin.readline().strip().lower() != b"yes":
        raise Problem(409, "not_agreed", "nothing was changed")


# Verification


def _verify_here(call: Call, tell: Tell) -> Any:
    """This node's ledger, by the node: lines of progress, then the result."""
    wanted = {name: _text(path) for name, path in (("policy", call.args.policy), ("checkpoint", call.args.checkpoint))}
    asked = {name: text for name, text in wanted.items() if text is not None}
    lines = call.client.lines("/v1/ledger/verify", method="POST", body=asked, headers={"Accept": "application/jsonl"})
    for line in lines:
        document = json.loads(line)
        if "ok" in document:
            return document
        tell(document["checked"], document["size"])
    raise Problem(503, "answer_cut", "the node broke off the verification", "look at its log, and try again")


def _verify_folder(call: Call, folder: Path, tell: Tell) -> Any:
    from node.voting import folders

    certificate = _file(call.args.tsa_cert) if call.args.tsa_cert else None
    try:
        return folders.check_folder(folder, _policy(call), _kept(call), certificate, tell)
    except OSError as error:
        raise unreadable(str(folder), error) from error


def _verify_receipt(call: Call, path: Path) -> Any:
    from node.voting import folders

    raw = _file(str(path))
    if not folders.is_receipt(raw):
        raise Problem(
            400, "not_a_receipt", f"{path} is neither a receipt nor the folder of an export",
            "a receipt (.tlog-proof) is what `cortex-node ledger proof INDEX --out FILE` writes", "path",
        )  # fmt: skip
    policy = _policy(call) or _own_policy(call)
    if policy is None:
        raise Problem(
            400, "policy_needed", "a receipt is as good as the signatures under it, and nobody is trusted here yet",
            "name whom: --policy FILE, such as the file `policy` of an export that you got from somebody you trust",
            "policy",
        )  # fmt: skip
    return folders.check_receipt_file(raw, policy, _kept(call))


def _own_policy(call: Call) -> "Policy | None":
    """The policy of this machine's own node, also when it doesn't run."""
    from contextlib import closing

    from node import identity
    from node.database import connect
    from node.voting import reads

    if not call.home.founded or not call.home.database.exists():
        return None
    me = identity.load(call.home)
    place = reads.Place(me.mesh_id, identity.public_key_of(me.ca), me.node_key)
    with closing(connect(call.home.database, read_only=True)) as connection:
        return reads.policy(connection, place)


def _policy(call: Call) -> "Policy | None":
    from node.voting import folders

    return folders.read_policy(_file(call.args.policy)) if call.args.policy else None


def _kept(call: Call) -> "Checkpoint | None":
    from node.voting import folders

    return folders.read_checkpoint(_file(call.args.checkpoint)) if call.args.checkpoint else None


def _file(name: str) -> bytes:
    try:
        with Path(name).expanduser().open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise unreadable(name, error) from error
    if len(data) > MAX_FILE_BYTES:
        raise Problem(
            413, "input_too_long", f"{name} has more than {MAX_FILE_BYTES:,} bytes", "see that it is the file"
        )
    return data


def _text(name: str | None) -> str | None:
    try:
        return None if name is None else _file(name).decode()
    except UnicodeDecodeError as error:
        raise Problem(400, "not_utf8", f"{name} is not UTF-8: {error}", "see that it is the file") from error


def _read(call: Call) -> dict[str, Any]:
    return {"read": "local"} if call.args.local else {}


@contextmanager
def _bar() -> Iterator[Tell]:
    """Draws how far a verification is, on a terminal, when it takes long."""
    if not sys.stderr.isatty():
        yield lambda checked, size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("verifying", visible=False, total=None)
        yield lambda checked, size: progress.update(task, completed=checked, total=size, visible=size >= LONG)
