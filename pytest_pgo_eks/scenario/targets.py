"""Where an application connects: from its Secret, from Services, or to one instance by name."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pytest_pgo_eks.errors import Inconclusive, Violation
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.probe.plan import Login
from pytest_pgo_eks.secrets import Secret

NEEDED_KEYS = ("host", "port", "dbname", "user", "password")


@dataclass(frozen=True)
class User:
    """A user as the PostgresCluster declares it."""

    name: str
    databases: tuple[str, ...]
    options: str

    @property
    def replicates(self) -> bool:
        """Whether its options ask for REPLICATION."""
        words = self.options.upper().split()
        return "REPLICATION" in words


def declared_users(manifest: Mapping[str, Any]) -> tuple[User, ...]:
    """Return the users of a PostgresCluster; without ``spec.users`` PGO makes one of its name."""
    name = manifest["metadata"]["name"]
    listed = manifest["spec"].get("users")
    if listed is None:
        return (User(name, (name,), ""),)
    return tuple(
        User(user["name"], tuple(user.get("databases") or ()), user.get("options") or "")
        for user in listed
    )


class Targets:
    """The ways into one PostgresCluster, seen from inside its Kubernetes cluster."""

    def __init__(self, kube: Kube, manifest: Mapping[str, Any]) -> None:
        self.namespace: str = manifest["metadata"]["namespace"]
        self.cluster: str = manifest["metadata"]["name"]
        self.has_pgbouncer = "pgBouncer" in (manifest["spec"].get("proxy") or {})
        self.users = declared_users(manifest)
        self._kube = kube

    @property
    def application(self) -> User:
        """The user an application would have: with a database, without REPLICATION if possible.

        :raises Inconclusive: no declared user has a database.
        """
        able = [user for user in self.users if user.databases and user.name != "postgres"]
        able.sort(key=lambda user: user.replicates)
        if not able:
            raise Inconclusive(
                "no user with a database is declared, so no application can connect; add one to "
                "spec.users of the PostgresCluster"
            )
        return able[0]

    def secret(self, user: str) -> dict[str, str]:
        """Return the connection Secret of a user; its values are masked wherever they show up.

        :raises NotFound: PGO made none.
        """
        return self._kube.secret_values(self.namespace, f"{self.cluster}-pguser-{user}")

    def authority(self) -> str:
        """Return the certificate authority (PEM) that signed the servers' certificates."""
        name = f"{self.cluster}-cluster-cert"
        found = self._kube.get("Secret", name, self.namespace)
        return base64.b64decode(found["data"]["ca.crt"]).decode()

    def from_secret(self, user: str | None = None, *, pooled: bool = False, **rest: Any) -> Login:
        """Return the login that the Secret alone describes, verifying the server by default.

        :raises Violation: the Secret lacks what an application needs.
        """
        name = user or self.application.name
        values = self.secret(name)
        missing = [key for key in NEEDED_KEYS if not values.get(key)]
        prefix = "pgbouncer-" if pooled else ""
        missing += [key for key in (f"{prefix}host", f"{prefix}port") if not values.get(key)]
        if missing:
            raise Violation(
                f"Secret {self.cluster}-pguser-{name} has no {', '.join(dict.fromkeys(missing))}; "
                f"it has {', '.join(sorted(values))}"
            )
        told: dict[str, Any] = {
            "user": values["user"],
            "database": values["dbname"],
            "password": Secret(values["password"]),
            "tls": "verify-full",
            **rest,
        }
        if told["tls"].startswith("verify") and "ca_pem" not in told:
            told["ca_pem"] = self.pooler_authority() if pooled else self.authority()
        return Login.at(values[f"{prefix}host"], int(values[f"{prefix}port"]), **told)

    def pooler_authority(self) -> str:
        """Return the certificate authority (PEM) that signed PgBouncer's certificate."""
        found = self._kube.get("Secret", f"{self.cluster}-pgbouncer", self.namespace)
        return base64.b64decode(found["data"]["pgbouncer-frontend.ca-roots"]).decode()

    def service(self, name: str, **rest: Any) -> Login:
        """Return the application's login through the Service ``CLUSTER-name``."""
        return self._elsewhere(f"{self.cluster}-{name}.{self.namespace}.svc", **rest)

    def instance(self, pod: str, **rest: Any) -> Login:
        """Return the application's login at one instance, by the pod's own name."""
        # An instance's certificate names the Services only, so no host name can be verified here.
        told = {"tls": "verify-ca", **rest}
        return self._elsewhere(f"{pod}.{self.cluster}-pods.{self.namespace}.svc", **told)

    def instances(self, pods: Sequence[str], **rest: Any) -> Login:
        """Return the application's login that names several instances, as libpq's ``host=a,b,c``.

        ``rest`` goes to the login, ``attributes`` being libpq's ``target_session_attrs``.
        """
        logins = [self.instance(pod) for pod in pods]
        return replace(logins[0], hosts=tuple(host for one in logins for host in one.hosts), **rest)

    def _elsewhere(self, host: str, **rest: Any) -> Login:
        login = self.from_secret(**rest)
        ((_, port),) = login.hosts
        told = {key: getattr(login, key) for key in ("user", "database", "password", "tls")}
        return Login.at(host, port, ca_pem=login.ca_pem, options=login.options, **told)
