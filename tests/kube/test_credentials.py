"""Every version of the client has to send the token, whichever name it reads it under."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes import client

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.kube.credentials import NAMES, prove_header, set_both_names


class OneName:
    """A client that knows one name: ``authorization`` up to 35, ``BearerToken`` in 36.0.0."""

    def __init__(self, reads: str) -> None:
        self.api_key: dict[str, str] = {}
        self.refresh_api_key_hook: Callable[[Any], None] | None = None
        self._reads = reads

    def auth_settings(self) -> dict[str, dict[str, str | None]]:
        if self.refresh_api_key_hook is not None:
            self.refresh_api_key_hook(self)
        if self._reads not in self.api_key:
            return {}
        found: dict[str, str | None] = {
            "in": "header",
            "key": "authorization",
            "value": self.api_key[self._reads],
        }
        return {"BearerToken": found}


@pytest.mark.parametrize("written", NAMES)
@pytest.mark.parametrize("reads", NAMES)
def test_whatever_the_loader_writes_the_client_sends(written: str, reads: str) -> None:
    found = OneName(reads)
    found.api_key[written] = "Bearer one"
    tokens = iter(["Bearer two", "Bearer three"])
    found.refresh_api_key_hook = lambda each: each.api_key.update({written: next(tokens)})
    set_both_names(found)
    assert found.auth_settings()["BearerToken"]["value"] == "Bearer three"


@pytest.mark.parametrize("written", NAMES)
def test_the_installed_client_sends_it_also_from_a_copy(written: str) -> None:
    found: Any = client.Configuration()
    found.api_key[written] = "Bearer one"
    found.refresh_api_key_hook = lambda each: each.api_key.update({written: "Bearer two"})
    set_both_names(found)
    prove_header(found, "37")
    copied = copy.deepcopy(found)
    assert copied.auth_settings()["BearerToken"]["value"] == "Bearer two"


def test_a_token_that_would_not_leave_is_refused() -> None:
    found = OneName("SomethingElse")
    found.api_key["authorization"] = "Bearer one"
    set_both_names(found)
    with pytest.raises(UsageProblem, match=r"kubernetes 38\.0\.0 has a token and sends no"):
        prove_header(found, "38.0.0")


def test_a_client_with_a_certificate_needs_no_header() -> None:
    found = OneName("BearerToken")
    set_both_names(found)
    prove_header(found, "37")
    assert found.refresh_api_key_hook is None
