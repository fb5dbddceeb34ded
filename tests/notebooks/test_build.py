"""The build of the notebooks: one source, two editions, the same bytes every time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.build_notebooks import ROOT, Edition, SourceError, Target, build, edition_of, exercise_text

SOURCE = '''# %% [markdown]
# # A question
# Some *words*.

# %%
port = 8080
port

# %% tags=["exercise"]
# solution:
# learner: # Which port does the pod listen on?
# learner: answer = ...
answer = port
# end
print("answered" if answer is not ... else "not yet")

# %% [markdown] tags=["solution"]
# It listens on 8080.

# %% [markdown] tags=["learner"]
# Stuck? Look at the pod.
'''


def texts(edition: Edition) -> list[str]:
    """The cells of an edition of SOURCE."""
    return [cell.source for cell in edition_of(SOURCE, edition).cells]


def test_learner_finds_a_placeholder() -> None:
    """The learner's edition has the learner lines in place of the solution."""
    assert texts(Edition.LEARNER) == [
        "# A question\nSome *words*.",
        "port = 8080\nport",
        '# Which port does the pod listen on?\nanswer = ...\nprint("answered" if answer is not ... else "not yet")',
        "Stuck? Look at the pod.",
    ]


def test_solutions_have_no_marker() -> None:
    """The solutions edition reads as if the learner had written it."""
    assert texts(Edition.SOLUTIONS) == [
        "# A question\nSome *words*.",
        "port = 8080\nport",
        'answer = port\nprint("answered" if answer is not ... else "not yet")',
        "It listens on 8080.",
    ]


def test_learner_lines_take_the_indentation_of_their_block() -> None:
    """A block inside a loop is replaced by lines of the same indentation."""
    cell = "for pod in pods:\n    # solution:\n    # learner: ...\n    print(pod)\n    # end"
    assert exercise_text(cell, Edition.LEARNER) == "for pod in pods:\n    ..."


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("answer = 1", "has no '# solution:' block"),
        ("# solution:\n# learner: a = ...\na = 1", "'# end' is missing"),
        ("# solution:\na = 1\n# end", "has no '# learner:' line"),
        ("# solution:\na = 1\n# learner: a = ...\n# end", "stand first"),
        ("# solution:\n# learner: a = ...\n# solution:\n# end", "inside a block"),
        ("a = 1\n# end", "stands outside"),
    ],
)
def test_a_malformed_exercise_is_refused(cell: str, words: str) -> None:
    """A slip in the markers is named, rather than published as a solution."""
    with pytest.raises(SourceError, match=words):
        exercise_text(cell, Edition.LEARNER)


def test_a_solution_outside_of_an_exercise_is_refused() -> None:
    """A block in an untagged cell would show its solution to the learner."""
    with pytest.raises(SourceError, match="not tagged 'exercise'"):
        edition_of("# %%\n# solution:\n# learner: a = ...\na = 1\n# end\n", Edition.LEARNER)


def test_equal_cells_have_ids_of_their_own() -> None:
    """Ids are digests of the text, and still unique where a text comes twice."""
    first, second = edition_of("# %%\nprint(1)\n\n# %%\nprint(1)\n", Edition.LEARNER).cells
    assert second.id == f"{first.id}-2"


def written(folder: Path, source: str, edition: Edition = Edition.LEARNER) -> Target:
    """A source in a folder of its own."""
    path = folder / "notebooks" / "src" / "9_9_try.py"
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")
    return Target(path, edition)


@pytest.mark.notebooks
def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two builds differ in nothing, though widgets and kernels have new ids each time."""
    widget = '\n# %%\nimport ipywidgets\n\nipywidgets.IntSlider(description="MTU")\n'
    target = written(tmp_path, SOURCE + widget)
    assert build(target) == build(target)


@pytest.mark.notebooks
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import warnings\n\nwarnings.warn('old')", "writes to stderr"),
        (f"print({str(ROOT)!r})", "shows a path of this machine"),
    ],
)
def test_a_notebook_that_would_embarrass_is_refused(tmp_path: Path, code: str, words: str) -> None:
    """Errors, warnings and paths of the builder's machine are not published."""
    with pytest.raises(SourceError, match=words):
        build(written(tmp_path, f"# %%\n{code}\n"))
