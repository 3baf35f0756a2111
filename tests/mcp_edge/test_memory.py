"""The port: the small memory of the tests is one, and a problem carries what a model needs."""

from mcp_edge.memory import Memory, MemoryProblem
from tests.mcp_edge.small_memory import SmallMemory


def test_the_memory_of_the_tests_has_every_call() -> None:
    memory: Memory = SmallMemory()  # mypy compares the signatures
    wanted = {name for name in vars(Memory) if not name.startswith("_")}
    assert wanted <= set(dir(memory))


def test_a_problem_says_what_happened_and_what_to_do() -> None:
    problem = MemoryProblem("code", "detail", "action", "field")
    assert (str(problem), problem.action, problem.field) == ("detail", "action", "field")
