"""Each problem says what happened and what to do, and ends a command as the documentation says."""

import pytest

from node.errors import INTEGRITY_CODES, Problem

EXITS = {
    400: 2, 401: 1, 403: 1, 404: 1, 409: 1, 410: 1, 413: 2, 422: 2, 429: 5, 500: 1, 503: 5, 507: 5,
}  # fmt: skip


@pytest.mark.parametrize(("status", "exit_code"), EXITS.items())
def test_exit_codes(status: int, exit_code: int) -> None:
    problem = Problem(status, "code", "what happened", "what to do")
    assert problem.exit_code == exit_code
    assert problem.document()["title"] not in ("", "what happened")


def test_the_problem_document() -> None:
    assert Problem(422, "invalid_tags", "65 tags", "use fewer", "tags").document() == {
        "type": "about:blank",
        "title": "not acceptable",
        "status": 422,
        "code": "invalid_tags",
        "detail": "65 tags",
        "action": "use fewer",
        "field": "tags",
    }


def test_a_problem_that_is_about_no_field_names_none() -> None:
    assert "field" not in Problem(404, "unknown_fact", "no such fact").document()


def test_it_prints_what_happened() -> None:
    assert str(Problem(500, "code", "the disk is gone")) == "the disk is gone"


@pytest.mark.parametrize("code", sorted(INTEGRITY_CODES))
def test_what_is_damaged_has_an_exit_code_of_its_own(code: str) -> None:
    assert Problem(500, code, "damaged").exit_code == 3
