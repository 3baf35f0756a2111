"""What goes wrong, told so that somebody can act on it.

A `Problem` says what happened (`detail`) and what to do (`action`); `code` is for programs. It becomes a problem
document (RFC 9457) over REST, a line on stderr and an exit code on the command line, and a readable error over MCP.
"""

from typing import Any

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTEGRITY, EXIT_NOT_RUNNING, EXIT_BUSY = 0, 1, 2, 3, 4, 5
EXIT_INTERRUPTED = 130
INTEGRITY_CODES = frozenset({"database_damaged", "ledger_damaged"})
"""Something was tampered with or is damaged, whatever the HTTP status."""

_TITLES = {
    400: "bad request",
    401: "token missing or wrong",
    403: "not allowed",
    404: "not found",
    405: "method not allowed",
    409: "conflict",
    410: "gone",
    413: "too large",
    422: "not acceptable",
    429: "too many requests",
    500: "failed",
    503: "not available now",
    507: "no space left",
}


class Problem(Exception):
    """An expected failure. `status` is the HTTP status; `field` names the argument at fault, if one is."""

    def __init__(self, status: int, code: str, detail: str, action: str = "", field: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.action = action
        self.field = field

    def document(self) -> dict[str, Any]:
        """The problem document of RFC 9457, with `code`, `action` and `field`."""
        fields = {
            "type": "about:blank",
            "title": _TITLES.get(self.status, "failed"),
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "action": self.action,
        }
        return fields | ({"field": self.field} if self.field else {})

    @property
    def exit_code(self) -> int:
        """The exit code of a command that ends with this problem."""
        if self.code in INTEGRITY_CODES:
            return EXIT_INTEGRITY
        match self.status:
            case 400 | 413 | 422:
                return EXIT_USAGE
            case 429 | 503 | 507:
                return EXIT_BUSY
            case _:
                return EXIT_FAILED
