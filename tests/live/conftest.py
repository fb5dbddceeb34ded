from __future__ import annotations

import pytest

from k8snetlab import live


@pytest.fixture(scope="session")
def kernel() -> None:
    """A machine that can hold a lab; the test skips, saying what is missing, where it cannot."""
    why = live.missing()
    if why:
        pytest.skip(why)
