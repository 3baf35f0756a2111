"""What the commands on facts do: store, search, get, history, update, retract, tag, link, graph, list.

Each is a call or two over the node's socket (CONTRACT: REST under /v1). The text of a fact comes from the command line,
from stdin (`-`), from a file or from an editor; a field that isn't named is left as it is.

Tests: tests/node/test_commands_facts.py.
"""

import os
from pathlib import Path
from typing import Any

from node import render
from node.client import segment
from node.commands import Answer, Call
from node.errors import Problem

ALL_PROJECTS = "*"
MAX_TITLE_CHARS = 200
"""Of a content taken from the first line of a body."""

# Option of the command line -> field of the API, the same for `store` and `update`.
FIELDS = {
    "type": "fact_type",
    "source": "source",
    "confidence": "confidence",
    "valid_from": "valid_from",
    "valid_until": "valid_until",
    "meta": "meta",
}


def store(call: Call) -> Answer:
    """Store one fact."""
    args = call.args
    if args.text == "-" and args.body == "-":
        raise Problem(400, "stdin_twice", "stdin can't be both the text and the body", "put one of them into a file")
    body = call.text(args.body) if args.body is not None else None
    draft = _fields(call) | {
        "content": _given_text(call, args.text) if args.text is not None else _title(body),
        "tags": args.tag,
        "project": args.project,
        "body": body,
    }
    given = {name: value for name, value in draft.items() if value is not None}
    return Answer(call.client.call("POST", "/v1/facts", given), render.stored)


def search(call: Call) -> Answer:
    """Find facts."""
    args = call.args
    query = {
        "query": _given_text(call, args.query),
        "project": args.project,
        "fact_type": args.type,
        "tags": args.tag,
        "top_k": args.top_k,
        "as_of": args.as_of,
    }
    given = {name: value for name, value in query.items() if value is not None}
    return Answer(call.client.call("POST", "/v1/search", given), render.results)


def get(call: Call) -> Answer:
    """One fact."""
    return Answer(_get(call, call.args.include_retracted), render.fact)


def history(call: Call) -> Answer:
    """Every version that a fact had or has."""
    return Answer(call.client.call("GET", _path(call, "/history")), render.history)


def update(call: Call) -> Answer:
    """Change a fact: its content, its fields, its tags, its body."""
    args = call.args
    changes = _fields(call)
    if args.text is not None:
        changes["content"] = _given_text(call, args.text)
    if args.tag is not None:
        changes["tags"] = [tag for tag in args.tag if tag]
    if args.restore:
        changes["restore"] = True
    if args.append is not None:
        changes["append"] = call.text("-") if args.append == "-" else args.append
    if args.body is not None:
        changes["body"] = call.text(args.body)
    if args.edit:
        return _edit(call, changes)
    fact = None
    if changes:
        condition = {"if_version": args.if_version} if args.if_version else {}
        fact = call.client.call("PATCH", _path(call), changes | condition)
    if args.add_tag or args.remove_tag:
        fact = call.client.call("POST", _path(call, "/tags"), {"add": args.add_tag, "remove": args.remove_tag})
    if fact is None:
        action = "give a new text, or an option such as --type; see: cortex-node update --help"
        raise Problem(400, "nothing_to_change", "nothing to change was given", action)
    return Answer(fact, render.changed)


def retract(call: Call) -> Answer:
    """Withdraw a fact; its history stays."""
    return Answer(call.client.call("DELETE", _path(call), query={"reason": call.args.reason}), render.changed)


def tag(call: Call) -> Answer:
    """Add and remove tags."""
    change = {"add": call.args.add, "remove": call.args.remove}
    if not any(change.values()):
        raise Problem(400, "nothing_to_change", "no tag was given", "name tags with --add and --remove")
    return Answer(call.client.call("POST", _path(call, "/tags"), change), render.changed)


def link(call: Call) -> Answer:
    """Link one fact to another."""
    return _link(call, remove=False)


def unlink(call: Call) -> Answer:
    """Take a link away."""
    return _link(call, remove=True)


def graph(call: Call) -> Answer:
    """What is linked to a fact, up to some steps away."""
    query = {"depth": call.args.depth}
    return Answer(call.client.call("GET", f"/v1/graph/{segment(call.args.id)}", query=query), render.graph)


def list_facts(call: Call) -> Answer:
    """The facts of one project, or of all, newest first, a page at a time."""
    args = call.args
    query = {"limit": args.limit, "cursor": args.cursor, "include": _retracted(args.include_retracted)}
    path = f"/v1/projects/{segment(args.project or ALL_PROJECTS)}/facts"
    return Answer(call.client.call("GET", path, query=query), render.facts)


def _path(call: Call, below: str = "") -> str:
    return f"/v1/facts/{segment(call.args.id)}{below}"


def _get(call: Call, include_retracted: bool) -> Any:
    return call.client.call("GET", _path(call), query={"include": _retracted(include_retracted)})


def _retracted(include: bool) -> str | None:
    return "retracted" if include else None


def _link(call: Call, remove: bool) -> Answer:
    change = {"relation": call.args.relation, "to": call.args.to, "remove": remove}
    return Answer(call.client.call("POST", _path(call, "/links"), change), render.changed)


def _given_text(call: Call, text: str) -> str:
    """`text`, or what stdin holds without the line end that `echo` adds."""
    return call.text("-").rstrip("\r\n") if text == "-" else text


def _title(body: str | None) -> str:
    """The content of a fact that is given as a body only: the body's first line, without the marks of a heading."""
    if body is None:
        raise Problem(
            400, "no_text", "there is no text to store", "give a text, - for stdin, or --body FILE", "content"
        )
    first = next((line.strip() for line in body.splitlines() if line.strip()), "")
    return first.lstrip("# ")[:MAX_TITLE_CHARS]


def _fields(call: Call) -> dict[str, Any]:
    """The fields that were given. A source given as '' and a time given as `none` are taken back: null."""
    given = {field: getattr(call.args, option) for option, field in FIELDS.items() if hasattr(call.args, option)}
    if given.get("source") == "":
        given["source"] = None
    return given


def _edit(call: Call, changes: dict[str, Any]) -> Answer:
    """Let the user edit the body, and send it with the token of the body it was made from: edits of others are kept.

    The file is deleted only once the node has the text, so that no word is lost when the node refuses or is gone.
    """
    if {"body", "append"} & changes.keys():
        raise Problem(
            400, "edit_and_text", "--edit and another text for the body don't go together", "give one of them"
        )
    import tempfile

    fact = _get(call, include_retracted=False)
    before = fact.get("body") or ""
    handle, name = tempfile.mkstemp(prefix=f"cortex-{call.args.id}-", suffix=".md")
    path = Path(name)
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
        file.write(before)
    try:
        _run_editor(call, path)
    except Problem:
        path.unlink()
        raise
    try:
        body = call.text(str(path))
        if body != before:
            changes |= {"body": body} | ({"body_base": token} if (token := fact.get("body_token")) else {})
        if changes:
            condition = {"if_version": call.args.if_version} if call.args.if_version else {}
            fact = call.client.call("PATCH", _path(call), changes | condition)
    except Problem as problem:
        problem.action = f"{problem.action}; your text is kept in {path}".removeprefix("; ")
        raise
    path.unlink()
    return Answer(fact, render.changed if changes else render.unchanged)


def _run_editor(call: Call, path: Path) -> None:
    import shlex
    import subprocess

    editor = call.environ.get("VISUAL") or call.environ.get("EDITOR") or "vi"
    try:
        code = (call.start or subprocess.call)([*shlex.split(editor), str(path)])
    except (OSError, ValueError) as error:
        action = "set VISUAL or EDITOR to an editor that is installed"
        raise Problem(400, "no_editor", f"the editor {editor!r} can't be started: {error}", action) from error
    if code != 0:
        raise Problem(400, "editor_failed", f"{editor} ended with code {code}; nothing was changed", "edit again")
