"""The tests of our API server ask a real one the same questions, where there is one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local_apiserver.real_api import RealApi, serving
from tools.real_kubernetes.binaries import NotHere, find


@pytest.fixture(scope="session")
def real_api() -> Iterator[RealApi]:
    try:
        binaries = find()
    except NotHere as problem:
        pytest.skip(f"no real API server: {problem}")
    with serving(binaries) as found:
        yield found
