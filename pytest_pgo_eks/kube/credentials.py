"""A token that really leaves: the client library has two names for it, and versions that know one.

Which of them a version reads differs: up to 35 ``authorization``, in 36.0.0 ``BearerToken`` while its
loader still wrote the other, from 36.0.2 on both. So both are set, again at each refresh, and a
configuration that would send nothing all the same is refused before the first request: to the API
server it would be nobody, and everything would look like missing rights.
"""

from __future__ import annotations

from typing import Any

from pytest_pgo_eks.errors import UsageProblem

NAMES = ("BearerToken", "authorization")


def set_both_names(configuration: Any) -> None:
    """Keep a token under both names; a refresh that writes one of them writes the other, too."""
    loaded = [name for name in NAMES if configuration.api_key.get(name)]
    if not loaded:
        return  # a certificate, or nobody
    source, others = loaded[0], [name for name in NAMES if name != loaded[0]]
    refresh = configuration.refresh_api_key_hook

    # A plain function: configurations are copied deeply, and a method's object may not be.
    def refreshed(each: Any) -> None:
        if refresh is not None:
            refresh(each)
        for name in others:
            each.api_key[name] = each.api_key[source]

    refreshed(configuration)
    configuration.refresh_api_key_hook = refreshed


def prove_header(configuration: Any, version: str) -> None:
    """Prove that a request of this configuration carries its token.

    :raises UsageProblem: there is a token, and no header for it.
    """
    if not any(configuration.api_key.get(name) for name in NAMES):
        return
    for auth in configuration.auth_settings().values():
        if auth.get("in") == "header" and auth.get("value"):
            return
    raise UsageProblem(
        f"kubernetes {version} has a token and sends no Authorization header; "
        "install another: pip install 'kubernetes>=36.0.2'"
    )
