"""The verdict on single connections, sentence by sentence of the API."""

from __future__ import annotations

import pytest

from k8snetlab.policies import engine, plan
from tests.policies import table
from tests.policies.table import CASES, Case


@pytest.mark.parametrize("case", CASES, ids=[case.says.replace(" ", "-") for case in CASES])
def test_the_verdict_is_what_the_api_says(case: Case) -> None:
    """Each flow of the table passes, or does not, as written there."""
    assert list(table.wrong(case, plan, engine)) == []


def test_the_table_is_long_enough() -> None:
    """So many flows stand in it."""
    assert sum(len(table.flows(case.flows)) for case in CASES) >= 300
