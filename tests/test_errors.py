from __future__ import annotations

import pytest

from k8snetlab.errors import (
    AddressInUse,
    BadOption,
    CannotDo,
    LabError,
    ManifestError,
    Overlap,
    PoolExhausted,
    Problem,
    UnknownName,
)

EVERY = (
    (ManifestError("x"), ValueError),
    (BadOption("x"), ValueError),
    (UnknownName("pod", "x"), KeyError),
    (AddressInUse("10.0.0.1", ("a", "b")), ValueError),
    (PoolExhausted("10.0.0.0/24", 253, "a"), ValueError),
    (Overlap("10.0.0.0/8", "10.1.0.0/16", "x"), ValueError),
    (CannotDo("x"), RuntimeError),
)
NAMES = [type(error).__name__ for error, _ in EVERY]


@pytest.mark.parametrize(
    ("error", "builtin"), EVERY, ids=lambda value: getattr(value, "__name__", type(value).__name__)
)
def test_an_error_is_ours_and_a_builtin(error: Exception, builtin: type[Exception]) -> None:
    """`except LabError` and the builtin that fits both catch it."""
    assert isinstance(error, LabError)
    assert isinstance(error, builtin)


@pytest.mark.parametrize(
    ("error", "builtin"), EVERY, ids=lambda value: getattr(value, "__name__", type(value).__name__)
)
def test_an_error_prints_its_problems(error: LabError, builtin: type[Exception]) -> None:
    """`str` is the message itself; a KeyError would print its repr."""
    assert str(error) == "\n".join(str(problem) for problem in error.problems)


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (Problem("is missing"), "is missing"),
        (Problem("is missing", file="a.yaml"), "a.yaml: is missing"),
        (Problem("is missing", file="a.yaml", line=3), "a.yaml:3: is missing"),
        (
            Problem("is missing", "a.yaml", 3, "Service shop/api", "spec.ports"),
            "a.yaml:3: Service shop/api: spec.ports: is missing",
        ),
        (Problem("is missing", line=3, field="spec"), "spec: is missing"),
    ],
)
def test_a_problem_reads_from_the_place_to_the_message(problem: Problem, line: str) -> None:
    """File, line, object, field, message, as far as they are known."""
    assert str(problem) == line


def test_a_problem_is_five_facts_for_programs() -> None:
    """What is not known is null."""
    assert Problem("is missing", field="spec").as_dict() == {
        "file": None,
        "line": None,
        "object": None,
        "field": "spec",
        "message": "is missing",
    }


def test_several_problems_are_said_together() -> None:
    """One line each, in their order."""
    error = ManifestError([Problem("one"), Problem("two")])
    assert str(error) == "one\ntwo" and len(error.problems) == 2


def test_an_error_takes_the_place_of_its_object() -> None:
    """Rooms that know no files raise; the one that does puts file and line in."""
    error = BadOption(Problem("is wrong", object="Pod shop/web-0"))
    placed = error.placed(lambda problem: Problem(problem.message, "a.yaml", 7, problem.object))
    assert placed is error and str(error) == "a.yaml:7: Pod shop/web-0: is wrong"


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("shop/wbe-0", ("shop/web-0", "ops/x"), "there is no pod 'shop/wbe-0'; did you mean shop/web-0?"),
        ("zzz", ("a", "b"), "there is no pod 'zzz'; there are a, b"),
        ("zzz", tuple("abcdefghij"), "there is no pod 'zzz'; there are a, b, c, d, e, f, g, h …"),
        ("zzz", (), "there is no pod 'zzz'"),
    ],
)
def test_an_unknown_name_says_what_comes_close(name: str, known: tuple[str, ...], hint: str) -> None:
    """Close names first, else what there is, as far as it can be read."""
    error = UnknownName("pod", name, known)
    assert str(error) == hint
    assert (error.name, error.known) == (name, tuple(sorted(known)))


def test_errors_carry_their_facts() -> None:
    """Programs need not read messages."""
    used = AddressInUse("10.0.0.1", ("Pod a/b", "Pod c/d"), field="status.podIP")
    assert (used.address, used.owners, used.problems[0].object) == ("10.0.0.1", ("Pod a/b", "Pod c/d"), "Pod c/d")
    full = PoolExhausted("10.0.0.0/24", 253, "Pod a/b")
    assert (full.pool, full.size, full.problems[0].object) == ("10.0.0.0/24", 253, "Pod a/b")
    both = Overlap("10.0.0.0/8", "10.1.0.0/16", "they share addresses")
    assert (both.first, both.second) == ("10.0.0.0/8", "10.1.0.0/16")
