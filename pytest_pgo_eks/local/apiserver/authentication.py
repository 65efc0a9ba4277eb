"""Who asks: static bearer tokens, and the tokens of service accounts."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_pgo_eks.local.apiserver.problems import unauthorized
from pytest_pgo_eks.local.apiserver.store import Store
from pytest_pgo_eks.local.objects import Obj

ISSUER = "https://kubernetes.default.svc.cluster.local"
AUDIENCES = (ISSUER, "https://kubernetes.default.svc")
_BOUND = {"Pod": ("", "pods"), "Secret": ("", "secrets"), "Node": ("", "nodes")}


@dataclass(frozen=True)
class Identity:
    """A user: the name, the groups, and for service accounts the UID of the account."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def info(self) -> Obj:
        """Return the ``UserInfo`` of reviews."""
        found: Obj = {"username": self.name, "groups": list(self.groups)}
        if self.uid:
            found["uid"] = self.uid
        if self.extra:
            found["extra"] = {name: list(values) for name, values in self.extra}
        return found


ANONYMOUS = Identity("system:anonymous", ("system:unauthenticated",))


def _part(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def _opened(part: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


class Authenticator:
    """Turns an ``Authorization`` header into an ``Identity``.

    Service account tokens are JSON Web Tokens signed with a key of this process. They end with
    their time, with the service account, and with the pod or secret that they are bound to.
    """

    def __init__(self, store: Store, tokens: Mapping[str, Identity]) -> None:
        self._store = store
        self._key = secrets.token_bytes(32)
        self._static = {
            hashlib.sha256(token.encode()).digest(): Identity(
                one.name, tuple(dict.fromkeys((*one.groups, "system:authenticated"))), one.uid
            )
            for token, one in tokens.items()
        }
        self._claims: dict[str, Obj] = {}

    def identify(self, authorization: str | None) -> Identity:
        """Return who sends this header; without one it is the anonymous user.

        :raises Problem: 401 for a token that is unknown, ended or not signed here.
        """
        if not authorization:
            return ANONYMOUS
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return ANONYMOUS
        found = self.check(token.strip())
        if found is None:
            raise unauthorized()
        return found

    def check(self, token: str, audiences: Sequence[str] = ()) -> Identity | None:
        """Return the identity of a token, or None. ``audiences`` empty means this server's."""
        known = self._static.get(hashlib.sha256(token.encode()).digest())
        if known is not None:
            return known
        claims = self._claims.get(token) or self._verified(token)
        if claims is None or claims["exp"] < time.time():
            return None
        if not set(claims["aud"]) & set(audiences or AUDIENCES):
            return None
        return self._of_account(claims["kubernetes.io"])

    def _verified(self, token: str) -> Obj | None:
        try:
            head, body, signature = token.split(".")
            wanted = self._sign(f"{head}.{body}")
            if not hmac.compare_digest(wanted.encode(), signature.encode()):
                return None
            claims: Obj = _opened(body)
        except ValueError:
            return None
        if len(self._claims) > 1000:
            self._claims.clear()
        self._claims[token] = claims
        return claims

    def _of_account(self, bound: Obj) -> Identity | None:
        namespace, account = bound["namespace"], bound["serviceaccount"]
        found = self._store.get(("", "serviceaccounts"), namespace, account["name"])
        if found is None or found["metadata"]["uid"] != account["uid"]:
            return None
        extra: list[tuple[str, tuple[str, ...]]] = []
        for kind, storage in _BOUND.items():
            ref = bound.get(kind.lower())
            if ref is None:
                continue
            other = self._store.get(storage, "" if kind == "Node" else namespace, ref["name"])
            if kind != "Node" and (other is None or other["metadata"]["uid"] != ref["uid"]):
                return None
            where = f"authentication.kubernetes.io/{kind.lower()}"
            extra += [(f"{where}-name", (ref["name"],)), (f"{where}-uid", (ref["uid"],))]
        groups = (
            "system:serviceaccounts",
            f"system:serviceaccounts:{namespace}",
            "system:authenticated",
        )
        name = f"system:serviceaccount:{namespace}:{account['name']}"
        return Identity(name, groups, account["uid"], tuple(extra))

    def _sign(self, text: str) -> str:
        mac = hmac.new(self._key, text.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()

    def issue(
        self,
        account: Obj,
        *,
        seconds: int,
        audiences: Sequence[str] = (),
        bound: Mapping[str, Obj] | None = None,
    ) -> tuple[str, float]:
        """Make a token for a service account; return it and the time at which it ends."""
        issued = int(time.time())
        metadata = account["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        inside: Obj = {
            "namespace": namespace,
            "serviceaccount": {"name": name, "uid": metadata["uid"]},
        }
        for kind, ref in (bound or {}).items():
            inside[kind.lower()] = {"name": ref["name"], "uid": ref["uid"]}
        claims = {
            "aud": list(audiences) or [ISSUER],
            "exp": issued + seconds,
            "iat": issued,
            "iss": ISSUER,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": inside,
            "nbf": issued,
            "sub": f"system:serviceaccount:{namespace}:{name}",
        }
        signed = f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part(claims)}"
        return f"{signed}.{self._sign(signed)}", float(issued + seconds)
