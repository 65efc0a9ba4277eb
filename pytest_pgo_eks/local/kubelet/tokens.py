"""Service account tokens for a pod's projected volumes: requested, and renewed in time."""

from __future__ import annotations

import datetime as dt
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_pgo_eks.local.apiclient import ApiClient, ApiError
from pytest_pgo_eks.local.kubelet.payload import NotYet, token_key, token_sources
from pytest_pgo_eks.local.objects import Obj

# The kubelet renews after 80 % of a token's life, or after a day.
_RENEW_AFTER = 0.8
_DAY_S = 86400.0


@dataclass(frozen=True)
class Token:
    """A bound token; ``renew_at`` in epoch seconds."""

    text: str
    renew_at: float


class Tokens:
    """The tokens of one pod by what was asked for."""

    def __init__(self, client: ApiClient, pod: Obj) -> None:
        self._client = client
        self._pod = pod
        self._sources = {token_key(source): source for source in token_sources(pod)}
        self._held: dict[tuple[str, int], Token] = {}

    def current(self) -> Mapping[tuple[str, int], str]:
        return {key: token.text for key, token in self._held.items()}

    def renew_in_s(self) -> float | None:
        """Return the seconds until the first token is due, or None without tokens."""
        due = [token.renew_at for token in self._held.values()]
        return max(0.0, min(due) - time.time()) if due else None

    async def ensure(self) -> None:
        """Request what is missing or due.

        :raises NotYet: the API server does not give one (yet).
        """
        now = time.time()
        for key, source in self._sources.items():
            held = self._held.get(key)
            if held is None or held.renew_at <= now:
                self._held[key] = await self._request(source)

    async def _request(self, source: Mapping[str, Any]) -> Token:
        metadata = self._pod["metadata"]
        account = self._pod["spec"].get("serviceAccountName") or "default"
        audience, seconds = token_key(source)
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"name": account, "namespace": metadata["namespace"]},
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": seconds,
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                },
            },
        }
        path = f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token"
        try:
            answer = await self._client.request("POST", path, body=body)
        except ApiError as error:
            raise NotYet(f"failed to fetch token: {error.message}") from error
        status = answer["status"]
        expires = dt.datetime.fromisoformat(status["expirationTimestamp"]).timestamp()
        now = time.time()
        life = min(_DAY_S, (expires - now) * _RENEW_AFTER) - random.uniform(0, 10)  # noqa: S311
        return Token(status["token"], now + max(1.0, life))
