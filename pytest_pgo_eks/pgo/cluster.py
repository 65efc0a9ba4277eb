"""The PostgresCluster under test: apply it, wait until it is up, look at it, change it."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from pytest_pgo_eks.errors import ApiProblem, ExecProblem, Inconclusive, NotFound, WaitTimeout
from pytest_pgo_eks.kube import Kube, Wakeup, Watcher, eventually
from pytest_pgo_eks.pgo import manifest as manifests
from pytest_pgo_eks.pgo import names
from pytest_pgo_eks.pgo.manifest import Declared
from pytest_pgo_eks.pgo.observation import Observation
from pytest_pgo_eks.pgo.patroni import Patroni
from pytest_pgo_eks.pgo.readiness import missing
from pytest_pgo_eks.pgo.reading import observation_of
from pytest_pgo_eks.pgo.trouble import Patience, Trouble, explain, silent_trouble, troubles
from pytest_pgo_eks.postgres import ServerState, ServerView
from pytest_pgo_eks.progress import Progress, silent

Object = dict[str, Any]

_ZONE = "topology.kubernetes.io/zone"
# A look at all servers starts a process in each. Patroni changes something every few hundred
# milliseconds while a cluster recovers, and looking that often would slow the recovery down.
_SQL_CALM_S = 0.3
_WATCHED = ("Pod", "Endpoints", "PersistentVolumeClaim", "PostgresCluster")


class PostgresCluster:
    """One PostgresCluster in one namespace. Safe for use by many threads.

    What it declares (``declared``, ``lease_s`` …) is read from the object itself, so an adopted
    cluster needs no file. Close it, or its watches go on. ``operator_namespace`` is where the operator
    runs, if elsewhere.
    """

    def __init__(
        self, kube: Kube, namespace: str, name: str, *, operator_namespace: str | None = None
    ) -> None:
        self.kube = kube
        self.namespace = namespace
        self.name = name
        self.operator_namespace = operator_namespace or namespace
        self.watcher = Watcher(kube)
        # Up to when (UTC) logs were judged by :mod:`~pytest_pgo_eks.pgo.health`.
        self.judged_until: datetime | None = None
        self._zones: dict[str, str] = {}

    def close(self) -> None:
        """End the watches; the cluster itself stays."""
        self.watcher.close()

    # -- what is declared -----------------------------------------------------------------------

    def object(self) -> Object:
        """Return the PostgresCluster as stored.

        :raises NotFound: it does not exist.
        """
        return self.kube.get(names.KIND, self.name, self.namespace)

    def declared(self) -> int:
        """Return how many instances are declared."""
        return manifests.replicas(self.object())

    @property
    def lease_s(self) -> int:
        """The leader lease in force, in seconds."""
        return manifests.lease_s(self.object())

    @property
    def sync_period_s(self) -> int:
        """The sync period in force, in seconds."""
        return manifests.sync_period_s(self.object())

    def service(self, which: str) -> str:
        """Return a Service's name: ``primary``, ``replicas``, ``ha``, ``pgbouncer`` or ``pods``."""
        return f"{self.name}-{which}"

    def host(self, which: str) -> str:
        """Return a Service's name in the cluster's DNS, as certificates have it."""
        return f"{self.service(which)}.{self.namespace}.svc"

    def user_secret(self, user: str) -> dict[str, str]:
        """Return what PGO generated for ``user``; passwords and URIs stay masked in ``repr``."""
        return self.kube.secret_values(self.namespace, f"{self.name}-pguser-{user}")

    def certificate_authority(self) -> str:
        """Return the certificate that signed the servers', as PEM."""
        return self.kube.secret_values(self.namespace, f"{self.name}-cluster-cert")["ca.crt"]

    # -- doing ----------------------------------------------------------------------------------

    def apply(self, manifest: Mapping[str, Any]) -> Object:
        """Apply a manifest of this cluster by server-side apply.

        :raises Conflict: somebody else owns a field; the message names both.
        """
        return self.kube.apply(manifest)

    def change(self, patch: Mapping[str, Any]) -> Object:
        """Merge ``patch`` into the PostgresCluster (``{"spec": {…}}``); None removes a key."""
        return self.kube.patch(names.KIND, self.name, self.namespace, dict(patch))

    def request_switchover(self, target: str | None = None) -> str:
        """Ask PGO for a switchover, to the instance ``target`` if given; return the trigger.

        ``target`` is an instance's name, which its pod's name only begins with: PGO finds no
        instance under the name of a pod. It has carried the switchover out when
        ``status.patroni.switchover`` is the trigger.
        """
        trigger = f"pytest-{time.time_ns()}"
        wanted: Object = {"enabled": True, "type": "Switchover", "targetInstance": target}
        self.change(
            {
                "metadata": {"annotations": {names.SWITCHOVER: trigger}},
                "spec": {"patroni": {"switchover": wanted}},
            }
        )
        return trigger

    # -- looking --------------------------------------------------------------------------------

    def server(self, pod: str) -> ServerView:
        """Return the SQL view of the server in ``pod``."""
        return ServerView(self.kube, self.namespace, pod)

    def patroni(self, pod: str | None = None) -> Patroni:
        """Return ``patronictl`` in ``pod``, or in any instance that runs.

        :raises ApiProblem: no instance runs.
        """
        if pod is None:
            running = [one.pod for one in self.observe().instances if one.is_running]
            if not running:
                raise ApiProblem(f"no instance of {self.name} is ready")
            pod = running[0]
        return Patroni(self.kube, self.namespace, pod)

    def observe(self, *, sql: bool = False) -> Observation:
        """Ask the API, and with ``sql`` every instance's server, and return what they say now."""
        return self._observation(
            self.kube.find(names.KIND, self.name, self.namespace),
            self.kube.list("Pod", self.namespace, labels={names.CLUSTER: self.name}),
            self.kube.list("Endpoints", self.namespace),
            sql=sql,
        )

    def watched(self, *, sql: bool = False) -> Observation:
        """Return the same from watches: no request of its own, and as old as the last event.

        :raises ApiProblem: a watch is out of sight.
        """
        feed = self.watcher.feed
        return self._observation(
            feed(names.KIND, self.namespace).get(self.name),
            feed("Pod", self.namespace).objects({names.CLUSTER: self.name}),
            feed("Endpoints", self.namespace).objects(),
            sql=sql,
        )

    def wake(self) -> Wakeup:
        """Return what wakes a wait when anything that :meth:`watched` shows has changed."""
        feeds = [self.watcher.feed(kind, self.namespace) for kind in _WATCHED]
        return self.watcher.any_of(*feeds)

    def wait(
        self,
        accept: Callable[[Observation], bool],
        *,
        within_s: float,
        what: str,
        sql: bool = False,
        fail: Callable[[Observation], str | None] | None = None,
    ) -> Observation:
        """Wait until ``accept`` is true of what is published (and, with ``sql``, what servers say).

        Watches wake it and are looked at; the API itself is asked once at the end, because a
        stream that died without a word shows an old truth until that is noticed.

        :raises WaitTimeout: its message has the last observation.
        """
        confirmed: list[Observation] = []

        def look() -> Observation:
            confirmed.clear()
            seen = self.watched(sql=sql)
            if accept(seen):
                confirmed.append(self.observe(sql=sql))
            return confirmed[0] if confirmed else seen

        return eventually(
            look,
            accept=lambda seen: bool(confirmed) and accept(seen),
            within_s=within_s,
            what=what,
            fail=fail,
            successes=1,
            wake=self.wake(),
            calm_s=_SQL_CALM_S if sql else 0.0,
            show=str,
        )

    def wait_ready(
        self,
        *,
        within_s: float,
        progress: Progress | None = None,
        grace_scale: float = 1.0,
    ) -> Observation:
        """Wait until the cluster is up (:func:`~pytest_pgo_eks.pgo.readiness.missing` finds nothing); return what was seen.

        Stops early on what no waiting cures. ``grace_scale`` multiplies the time that a trouble may
        last: 1 for the stand-in, more where images are pulled and nodes are made.

        :raises Inconclusive: it did not come up, with the reason.
        """
        patience = Patience(time.monotonic, grace_scale)
        expected = manifests.declared(self.object())
        current: list[Trouble] = []

        def hopeless(seen: Observation) -> str | None:
            current[:] = self._troubles()
            found = patience.hopeless(current)
            if found is None:
                phase.say(missing(seen, expected)[0])
            return found.sentence if found else None

        with (progress or silent()).phase(
            f"waiting for PostgresCluster {self.namespace}/{self.name}"
        ) as phase:
            try:
                return eventually(
                    self.watched,
                    accept=lambda seen: not missing(seen, expected),
                    fail=hopeless,
                    within_s=within_s,
                    what=f"PostgresCluster {self.name} to be up",
                    wake=self.wake(),
                    show=str,
                )
            except WaitTimeout as late:
                raise Inconclusive(self._why(expected, current, late)) from late

    def delete(self, *, within_s: float) -> None:
        """Delete the PostgresCluster and wait until it and its pods and volumes are gone.

        :raises WaitTimeout: something is left; the message names it.
        """
        with contextlib.suppress(NotFound):
            self.kube.delete(names.KIND, self.name, self.namespace)

        def left() -> list[str]:
            here = [self.name] if self.kube.find(names.KIND, self.name, self.namespace) else []
            for kind in ("Pod", "PersistentVolumeClaim"):
                found = self.kube.list(kind, self.namespace, labels={names.CLUSTER: self.name})
                here += [f"{kind} {one['metadata']['name']}" for one in found]
            return here

        eventually(
            left,
            accept=lambda here: not here,
            within_s=within_s,
            what=f"PostgresCluster {self.name} to be gone",
            show=", ".join,
            successes=1,
        )

    # -- inside ---------------------------------------------------------------------------------

    def _observation(
        self,
        cluster: Object | None,
        pods: Sequence[Object],
        endpoints: Sequence[Object],
        *,
        sql: bool,
    ) -> Observation:
        servers, unheard = self._ask(pods) if sql else ({}, {})
        return observation_of(
            self.name,
            self.namespace,
            cluster=cluster,
            pods=pods,
            endpoints=endpoints,
            zones=self._zones_of(pods),
            servers=servers,
            silent=unheard,
        )

    def _ask(self, pods: Sequence[Object]) -> tuple[dict[str, ServerState], dict[str, str]]:
        """Ask all servers at once: one after the other would mix moments further apart."""
        mine = [
            one["metadata"]["name"]
            for one in pods
            if names.is_instance_pod(one, self.name)
            and (one.get("status") or {}).get("phase") == "Running"
        ]
        states: dict[str, ServerState] = {}
        unheard: dict[str, str] = {}

        def ask(pod: str) -> None:
            try:
                states[pod] = self.server(pod).state()
            except (ApiProblem, ExecProblem) as problem:
                unheard[pod] = str(problem)

        if mine:
            with ThreadPoolExecutor(len(mine), thread_name_prefix="sql") as pool:
                list(pool.map(ask, mine))
        return dict(sorted(states.items())), unheard

    def _zones_of(self, pods: Sequence[Object]) -> Mapping[str, str]:
        nodes = {one["spec"].get("nodeName") for one in pods} - {None}
        if nodes - self._zones.keys():
            for node in self.kube.list("Node"):
                zone = names.labels(node).get(_ZONE)
                self._zones[node["metadata"]["name"]] = zone or ""
        return self._zones

    def _troubles(self) -> list[Trouble]:
        mine = {names.CLUSTER: self.name}
        feed = self.watcher.feed
        return troubles(
            feed("Pod", self.namespace).objects(mine),
            feed("PersistentVolumeClaim", self.namespace).objects(mine),
        )

    def _why(self, expected: Declared, current: list[Trouble], late: WaitTimeout) -> str:
        troubled = list(current)
        try:
            seen = self.observe()
            lacking = missing(seen, expected)
            troubled += [
                silent_trouble(one.pod)
                for one in seen.instances
                if not one.ready and not any(known.key.startswith(one.pod) for known in current)
            ]
        except ApiProblem as problem:
            lacking = [f"it cannot be looked at: {problem}"]
        reasons = explain(self.kube, self.namespace, self.name, troubled)
        first = str(late).partition("; last seen:")[0]
        return "\n  ".join(
            [
                f"PostgresCluster {self.namespace}/{self.name} did not come up: {first}",
                *[f"reason: {line}" for line in reasons],
                *[f"missing: {line}" for line in lacking],
            ]
        )


def available_postgres(kube: Kube) -> tuple[int, ...]:
    """Return the major versions that the stand-in's nodes say they have; empty on real clusters."""
    found = {
        int(match[1])
        for node in kube.list("Node")
        for image in (node.get("status") or {}).get("images") or []
        for name in image.get("names") or []
        if (match := re.fullmatch(r"stand-in/postgres:(\d+)", name))
    }
    return tuple(sorted(found))
