"""What etcd holds, asked through its own HTTP gateway: to put a control plane back as it was."""

from __future__ import annotations

import base64
import http.client
import json
from typing import Any

_ROOT = "/registry/"
# Kept by the API server itself, all the time.
_ITS_OWN = ("/registry/masterleases/", "/registry/leases/kube-system/", "/registry/ranges/")


class Keys:
    """The keys of one etcd. ``forget_new`` deletes whatever was not there at the beginning."""

    def __init__(self, url: str) -> None:
        self._address = url.removeprefix("http://")
        self._known = self._names()

    def forget_new(self) -> None:
        """Delete every object that was created since, without asking its finalizers."""
        for name in self._names() - self._known:
            if not name.startswith(_ITS_OWN):
                self._ask("/v3/kv/deleterange", {"key": _coded(name)})

    def _names(self) -> set[str]:
        # The end of a range is the first name that is not in it: "/" + 1 is "0".
        asked = {"key": _coded(_ROOT), "range_end": _coded(_ROOT[:-1] + "0"), "keys_only": True}
        found = self._ask("/v3/kv/range", asked).get("kvs") or []
        return {base64.b64decode(one["key"]).decode() for one in found}

    def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self._address, timeout=10)
        try:
            connection.request("POST", path, json.dumps(body))
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
            if answer.status != 200:
                raise OSError(f"etcd answers {answer.status}: {text[:200]}")
            found: dict[str, Any] = json.loads(text)
            return found
        finally:
            connection.close()


def _coded(name: str) -> str:
    return base64.b64encode(name.encode()).decode()
