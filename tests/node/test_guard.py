"""Token, Host and Origin: who passes, and what everybody else is told. Over real requests: test_http.py."""

import pytest
from multidict import CIMultiDict

from node.errors import Problem
from node.guard import Guard

GUARD = Guard("secret", frozenset({"127.0.0.1", "[::1]"}))
GOOD = {"host": "127.0.0.1:7401", "authorization": "Bearer secret"}


def refused(path: str = "/mcp", **headers: str) -> str:
    with pytest.raises(Problem) as problem:
        GUARD.check(CIMultiDict({name: value for name, value in (GOOD | headers).items() if value}), path)
    return problem.value.code


@pytest.mark.parametrize("more", [{}, {"origin": "http://127.0.0.1:7401"}, {"host": "[::1]:7401"}, {"host": "[::1]"}])
def test_who_has_the_token_and_calls_us_by_our_name_passes(more: dict[str, str]) -> None:
    GUARD.check(CIMultiDict(GOOD | more), "/mcp")


@pytest.mark.parametrize("token", ["", "Bearer", "Bearer wrong", "Basic secret", "Bearer secret2", "Bearer \udcff"])
def test_without_the_token_nobody_passes(token: str) -> None:
    assert refused(authorization=token) == "no_token"


@pytest.mark.parametrize("host", ["", "evil.example", "evil.example:7401", "127.0.0.1.evil.example"])
def test_a_name_that_is_not_ours_is_refused_even_with_the_token(host: str) -> None:
    assert refused(host=host) == "wrong_host"
    assert refused("/healthz", host=host) == "wrong_host"


@pytest.mark.parametrize("origin", ["null", "http://evil.example", "http://127.0.0.1:80", "file://"])
def test_a_page_that_is_not_ours_is_refused_even_with_the_token(origin: str) -> None:
    assert refused(origin=origin) == "wrong_origin"


def test_health_needs_no_token() -> None:
    GUARD.check(CIMultiDict({"Host": "127.0.0.1"}), "/healthz")
