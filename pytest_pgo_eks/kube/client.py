"""The client itself: objects as plain dicts, kinds by name, a deadline on every call."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

from pytest_pgo_eks.errors import ApiProblem, NotFound
from pytest_pgo_eks.kube import exec as execution
from pytest_pgo_eks.kube.exec import ExecResult, ExecSession
from pytest_pgo_eks.kube.forward import Forward
from pytest_pgo_eks.kube.kinds import Kinds, Resource
from pytest_pgo_eks.kube.listing import Labels, Object, event_time, pages, selectors_of
from pytest_pgo_eks.kube.problems import Owned
from pytest_pgo_eks.kube.restraint import labelled, permit
from pytest_pgo_eks.kube.transport import CONTENT_TYPES, Transport
from pytest_pgo_eks.kube.watching import IDLE_S, WatchEvent, WatchLoop
from pytest_pgo_eks.secrets import Secret

T = TypeVar("T")
Objects = list[Object]
PatchType = Literal["merge", "json", "strategic"]
Propagation = Literal["Foreground", "Background", "Orphan"]

# Keys of Secrets that are no secrets: addresses, names, certificates. Registering "5432" or the
# cluster's name with the filter would mask half of every report.
_PUBLIC_KEYS = frozenset(
    {"host", "port", "dbname", "user", "namespace", "pgbouncer-host", "pgbouncer-port"}
)
_PUBLIC_SUFFIXES = (".crt", ".ca-roots")


class Kube:
    """One cluster, one identity. Safe for use by many threads at once.

    ``kind`` is ``"Pod"``, ``"apps/v1/Deployment"`` or any kind that a CRD serves, also one that is
    established later. Every call ends within its deadline (``request_s`` unless it takes one), and
    raises :class:`~pytest_pgo_eks.errors.NotFound`, :class:`~pytest_pgo_eks.errors.Conflict` or
    :class:`~pytest_pgo_eks.errors.ApiProblem`. ``labels`` are put on every object that is created or
    applied. Writing into a namespace of ``read_only`` is refused; its pods still take commands.
    """

    def __init__(
        self,
        kubeconfig: Path,
        context: str | None = None,
        *,
        field_manager: str = "pytest-pgo-eks",
        request_s: float = 10.0,
        labels: Mapping[str, str] | None = None,
        read_only: Collection[str] = (),
    ) -> None:
        self._labels = dict(labels or {})
        self._read_only = frozenset(read_only)
        self.field_manager = field_manager
        self.request_s = request_s
        self._transport = Transport(Path(kubeconfig), context)
        self._kinds = Kinds(
            lambda path: self._transport.request("GET", path, deadline_s=self.request_s)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all connections; running watches end."""
        self._transport.close()

    @property
    def requests(self) -> int:
        """How many requests were sent so far, retries, watches and exec included."""
        return self._transport.requests

    # -- objects --------------------------------------------------------------------------------

    def resolve(self, kind: str) -> Resource:
        """Return what serves ``kind``.

        :raises NotFound: nothing does, at the moment.
        """
        return self._kinds.resolve(kind)

    def apply(self, manifest: Mapping[str, Any], *, force: bool = False) -> Object:
        """Create or change an object by server-side apply; return it as stored.

        What we changed ourselves by :meth:`patch` is taken back without ``force``: the API counts
        a manager's patches and its applies as two owners.

        :raises Conflict: another field manager owns a field; the message names it.
        """
        resource, namespace, name = self._target(manifest)

        def send(forced: str) -> Object:
            return self._send(
                "PATCH",
                resource.path(namespace, name),
                query=[("fieldManager", self.field_manager), ("force", forced)],
                body=labelled(manifest, self._labels),
                content_type=CONTENT_TYPES["apply"],
                repeatable=True,
            )

        try:
            return send("true" if force else "false")
        except Owned as owned:
            if owned.managers != {self.field_manager}:
                raise
            return send("true")

    def create(self, manifest: Mapping[str, Any]) -> Object:
        """Create an object that must not exist yet; ``generateName`` works."""
        resource, namespace, _ = self._target(manifest, named=False)
        return self._send(
            "POST",
            resource.path(namespace),
            query=[("fieldManager", self.field_manager)],
            body=labelled(manifest, self._labels),
        )

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object:
        """Return one object.

        :raises NotFound: it does not exist.
        """
        return self._at(kind, lambda one: self._send("GET", self._path(one, namespace, name)))

    def find(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """Return one object, or None when it, or its kind, does not exist."""
        try:
            return self.get(kind, name, namespace)
        except NotFound:
            return None

    def list(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        labels: Labels = None,
        fields: Labels = None,
    ) -> Objects:
        """Return all objects of a kind, in one namespace or in all.

        Items carry ``apiVersion`` and ``kind``, which the API leaves out of lists.
        """
        return self._at(
            kind,
            lambda one: pages(
                self._transport, one, namespace, selectors_of(labels, fields), self.request_s
            )[0],
        )

    def patch(
        self,
        kind: str,
        name: str,
        namespace: str | None,
        patch: Any,
        *,
        type: PatchType = "merge",  # noqa: A002
        subresource: str | None = None,
    ) -> Object:
        """Change an object; ``patch`` is a list of operations for ``json``, else a mapping."""
        resource = self._kinds.resolve(kind)
        return self._send(
            "PATCH",
            self._path(resource, namespace, name, subresource or ""),
            query=[("fieldManager", self.field_manager)],
            body=patch,
            content_type=CONTENT_TYPES[type],
            # Merging the same values twice changes nothing; operations may (an index, a test).
            repeatable=type != "json",
        )

    def delete(
        self,
        kind: str,
        name: str,
        namespace: str | None = None,
        *,
        grace_s: int | None = None,
        uid: str | None = None,
        propagation: Propagation | None = None,
    ) -> None:
        """Ask for an object's deletion, and do not wait for it.

        ``uid`` makes sure that it is this object and not its successor of the same name: a
        different one is a Conflict. ``grace_s=0`` is force deletion.

        :raises NotFound: there was nothing to delete.
        """
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if propagation is not None:
            options["propagationPolicy"] = propagation
        resource = self._kinds.resolve(kind)
        self._send("DELETE", self._path(resource, namespace, name), body=options)

    def watch(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        labels: Labels = None,
        fields: Labels = None,
        deadline_s: float,
    ) -> Iterator[WatchEvent]:
        """Yield changes until the deadline, what exists already as ``ADDED`` first.

        Survives disconnects, silence, 410 and token expiry without losing an object's last state.

        :raises ApiProblem: refused for good, or out of sight when the deadline came.
        """
        loop = self.watch_loop(kind, namespace, labels=labels, fields=fields)
        return loop.events(deadline_s)

    def watch_loop(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        labels: Labels = None,
        fields: Labels = None,
        idle_s: float = IDLE_S,
    ) -> WatchLoop:
        """Return the loop under :meth:`watch`, for those who must stop it from outside.

        A stream that is silent for ``idle_s`` is opened again where it stood.
        """
        resource = self._kinds.resolve(kind)
        selectors = selectors_of(labels, fields)
        return WatchLoop(
            self._transport,
            resource.path(namespace),
            lambda limit_s: pages(self._transport, resource, namespace, selectors, limit_s),
            selectors=selectors,
            what=f"watch of {kind}" + (f" in {namespace}" if namespace else ""),
            idle_s=idle_s,
        )

    # -- containers -----------------------------------------------------------------------------

    def exec(
        self,
        namespace: str,
        pod: str,
        command: Sequence[str],
        *,
        container: str | None = None,
        stdin: bytes | str | None = None,
        deadline_s: float = 30.0,
    ) -> ExecResult:
        """Run ``command`` in a container and return its exit status and output.

        A status other than 0 is a result, no error. The pod need not be ready.

        :raises NotFound: no such pod.
        :raises ExecProblem: not started, not ended in time, or ended without an exit status.
        """
        what = f"exec {_short(command)} in {namespace}/{pod}"
        given = stdin.encode() if isinstance(stdin, str) else stdin
        session = self.open_exec(
            namespace,
            pod,
            command,
            container=container,
            stdin=given is not None,
            connect_s=min(deadline_s, 15.0),
        )
        return execution.run(session, given, deadline_s, what)

    def open_exec(
        self,
        namespace: str,
        pod: str,
        command: Sequence[str],
        *,
        container: str | None = None,
        stdin: bool = False,
        connect_s: float = 15.0,
    ) -> ExecSession:
        """Start ``command`` and return a session to read from and write to as it runs."""
        resource = self._kinds.resolve("Pod")
        return execution.open_session(
            self._transport,
            resource.path(namespace, pod, "exec"),
            command,
            container=container,
            stdin=stdin,
            deadline_s=connect_s,
            what=f"exec {_short(command)} in {namespace}/{pod}",
        )

    def logs(
        self,
        namespace: str,
        pod: str,
        *,
        container: str | None = None,
        previous: bool = False,
        tail: int | None = None,
        since_s: int | None = None,
        limit_bytes: int | None = None,
        deadline_s: float | None = None,
    ) -> str:
        """Return a container's log; ``tail`` lines of it, of its previous life with ``previous``."""
        query = [("container", container)] if container else []
        if previous:
            query.append(("previous", "true"))
        if tail is not None:
            query.append(("tailLines", str(tail)))
        if since_s is not None:
            query.append(("sinceSeconds", str(since_s)))
        if limit_bytes is not None:
            query.append(("limitBytes", str(limit_bytes)))
        resource = self._kinds.resolve("Pod")
        raw = self._transport.raw(
            "GET",
            resource.path(namespace, pod, "log"),
            query=query,
            deadline_s=deadline_s or self.request_s,
            repeatable=True,
        )
        return raw.decode("utf-8", "replace")

    def forward(self, namespace: str, pod: str, port: int) -> Forward:
        """Return a context manager with ``.host`` and ``.port`` that lead to the pod's port."""
        resource = self._kinds.resolve("Pod")
        return Forward(
            self._transport,
            resource.path(namespace, pod, "portforward"),
            port,
            f"port {port} of {namespace}/{pod}",
        )

    def events(
        self,
        namespace: str,
        *,
        kind: str | None = None,
        name: str | None = None,
        uid: str | None = None,
    ) -> Objects:
        """Return the Events about an object (or all of a namespace), oldest first."""
        wanted = {"involvedObject.kind": kind, "involvedObject.name": name}
        fields = {key: value for key, value in wanted.items() if value}
        found = self.list("Event", namespace, fields=fields or None)
        if uid is not None:
            found = [one for one in found if one.get("involvedObject", {}).get("uid") == uid]
        return sorted(found, key=event_time)

    def secret_values(self, namespace: str, name: str) -> dict[str, str]:
        """Return a Secret's values, decoded; credentials as :class:`Secret`, so they stay masked.

        Addresses, names and certificates come as plain strings: masking "5432" everywhere would
        make reports unreadable.
        """
        data = self.get("Secret", name, namespace).get("data") or {}
        values: dict[str, str] = {}
        for key, encoded in data.items():
            value = base64.b64decode(encoded).decode("utf-8", "surrogateescape")
            public = key in _PUBLIC_KEYS or key.endswith(_PUBLIC_SUFFIXES)
            values[key] = value if public else Secret(value)
        return values

    def server_version(self) -> str:
        """Return the server's version, such as ``v1.34.0``."""
        said = self._transport.request("GET", "/version", deadline_s=self.request_s)
        return str(said.get("gitVersion") or "unknown")

    def raw(self, method: str, path: str, body: Any = None) -> Any:
        """Send one request to any path of the API server and return its decoded answer."""
        permit(method, path, self._read_only)
        return self._transport.request(method, path, body=body, deadline_s=self.request_s)

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Any = None,
        content_type: str = "application/json",
        repeatable: bool | None = None,
    ) -> Object:
        permit(method, path, self._read_only)
        answer = self._transport.request(
            method,
            path,
            query=query,
            body=body,
            content_type=content_type,
            deadline_s=self.request_s,
            repeatable=repeatable,
        )
        if not isinstance(answer, dict):
            raise ApiProblem(f"{method} {path}: the answer is no object: {str(answer)[:200]}")
        return answer

    def _at(self, kind: str, call: Callable[[Resource], T]) -> T:
        """Call with the resource of ``kind``; once more if what was discovered is outdated."""
        resource = self._kinds.resolve(kind)
        try:
            return call(resource)
        except NotFound:
            if not self._kinds.forget(kind) or self._kinds.resolve(kind) == resource:
                raise
            return call(self._kinds.resolve(kind))

    def _target(
        self, manifest: Mapping[str, Any], *, named: bool = True
    ) -> tuple[Resource, str | None, str]:
        meta = manifest.get("metadata") or {}
        try:
            resource = self._kinds.resolve(f"{manifest['apiVersion']}/{manifest['kind']}")
            name = str(meta["name"]) if named else str(meta.get("name", ""))
        except KeyError as missing:
            raise ValueError(f"a manifest needs {missing.args[0]}") from missing
        namespace = meta.get("namespace")
        if resource.namespaced and not namespace:
            raise ValueError(f"{resource.kind} {name} needs metadata.namespace")
        return resource, namespace, name

    def _path(self, resource: Resource, namespace: str | None, name: str, sub: str = "") -> str:
        if resource.namespaced and not namespace:
            raise ValueError(f"{resource.kind} {name} lives in a namespace; which one?")
        if not name:
            raise ValueError(f"{resource.kind} needs a name")
        return resource.path(namespace, name, quote(sub))


def _short(command: Sequence[str]) -> str:
    words = " ".join(command)
    return repr(words if len(words) <= 60 else words[:57] + "...")
