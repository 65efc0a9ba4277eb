"""The built-in answers to the hooks: the operator, the PostgresCluster under test, what explains it.

Users' implementations come first; these are the last word.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_pgo_eks.clusters.base import ClusterHandle
from pytest_pgo_eks.errors import PgoEksError
from pytest_pgo_eks.gherkin import tags
from pytest_pgo_eks.gherkin.collector import all_tags
from pytest_pgo_eks.gherkin.selection import uses_cluster
from pytest_pgo_eks.pgo.manifest import is_shipped, render
from pytest_pgo_eks.pgo.served import refuse_unserved
from pytest_pgo_eks.progress import Progress
from pytest_pgo_eks.session import operators
from pytest_pgo_eks.session.shared import Shared
from pytest_pgo_eks.settings import Settings
from pytest_pgo_eks.timeouts import Timeouts

if TYPE_CHECKING:
    from pytest_pgo_eks.diagnostics.recorder import Begin, Recorder
    from pytest_pgo_eks.kube import Kube
    from pytest_pgo_eks.pgo import Operator, PostgresCluster

# Pulling images and making nodes may take this much longer than starting processes.
_REAL_GRACE = 6.0
_SICK_S = 15.0
STAND_IN_NAMESPACE = "postgres-operator"


def refuse_manifest(settings: Settings, items: Iterable[pytest.Item]) -> None:
    """Refuse a manifest that the selected scenarios cannot work with.

    :raises UsageProblem: one line that names the file, the field and what to do.
    """
    needing = (tags.NEED_REPLICAS & all_tags(item) for item in items if uses_cluster(item))
    render(settings, needs_failover=any(needing))


def declared_version(settings: Settings) -> int | None:
    """Return the PostgreSQL that has to be there: asked for, or declared by a user's own manifest."""
    if settings.manifest is None or is_shipped(settings.manifest):
        return settings.postgres_version
    return int(render(settings, needs_failover=False)["spec"]["postgresVersion"])


def images(kube: Kube, namespaces: Iterable[str]) -> list[dict[str, str | None]]:
    """Return which images the containers in these namespaces run, each once, with its digest."""
    seen: dict[tuple[str, str], str | None] = {}
    for namespace in sorted(namespaces):
        for pod in kube.list("Pod", namespace):
            for status in pod.get("status", {}).get("containerStatuses", ()):
                _, _, digest = str(status.get("imageID", "")).rpartition("@")
                found = digest if digest.startswith("sha256:") else None
                seen.setdefault((status["name"], status["image"]), found)
    return [
        {"container": name, "image": image, "digest": digest}
        for (name, image), digest in sorted(seen.items())
    ]


class Subject:
    """Answers ``pytest_pgo_…`` with PGO and its PostgresCluster, through one client a process."""

    def __init__(self, shared: Shared, record: Path) -> None:
        self._shared = shared
        self._record = record
        self._clients: dict[Path, Kube] = {}
        self._postgres: list[PostgresCluster] = []
        self._recorder: Recorder | None = None
        self._begin: Begin | None = None

    def _kube(self, cluster: ClusterHandle) -> Kube:
        from pytest_pgo_eks.kube import Kube

        if cluster.kubeconfig not in self._clients:
            self._clients[cluster.kubeconfig] = Kube(
                cluster.kubeconfig,
                cluster.context,
                labels=cluster.labels,
                read_only=cluster.read_only,
            )
        return self._clients[cluster.kubeconfig]

    @pytest.hookimpl(trylast=True)
    def pytest_pgo_operator(
        self, cluster: ClusterHandle, settings: Settings, progress: Progress, first: bool
    ) -> Operator:
        from pytest_pgo_eks.pgo import verify

        self._begin_recording(cluster, settings, start=first)
        if first:
            operators.ensure(self._kube(cluster), cluster, settings, self._record, progress)
        within_s = Timeouts.of(settings)["operator-ready"]
        from pytest_pgo_eks.clusters.operators import operator_namespace

        subject = cluster.adopted[0] if cluster.adopted else settings.namespace
        namespace = operator_namespace(self._kube(cluster), subject)
        operator = verify(self._kube(cluster), namespace, within_s=within_s, progress=progress)
        self._note(pgo=operator.version)
        return operator

    @pytest.hookimpl(trylast=True)
    def pytest_pgo_postgres(
        self,
        cluster: ClusterHandle,
        operator: object,
        settings: Settings,
        progress: Progress,
        first: bool,
    ) -> PostgresCluster:
        from pytest_pgo_eks.pgo import Operator, PostgresCluster, available_postgres

        kube = self._kube(cluster)
        timeouts = Timeouts.of(settings)
        if cluster.adopted:
            namespace, name = cluster.adopted
            manifest, within_s = {}, timeouts["healthy-again"]
        else:
            manifest = render(settings, needs_failover=False, available=available_postgres(kube))
            namespace, name = settings.namespace, manifest["metadata"]["name"]
            within_s = timeouts["postgres-ready"]
        postgres = PostgresCluster(
            kube,
            namespace,
            name,
            operator_namespace=operator.namespace if isinstance(operator, Operator) else namespace,
        )
        self._postgres.append(postgres)
        if first and manifest:
            if isinstance(operator, Operator):
                where = str(settings.manifest or "the suite's own PostgresCluster")
                refuse_unserved(manifest, where, operator.release, operator.api_versions)
            if kube.find("Namespace", namespace) is None:
                kube.create(
                    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
                )
            postgres.apply(manifest)
        if first:
            seen = postgres.wait_ready(
                within_s=within_s,
                progress=progress,
                grace_scale=(1.0 if cluster.stand_in else _REAL_GRACE) * settings.timeout_scale,
            )
            running = next(one for one in seen.instances if one.is_running)
            server = postgres.server(running.pod).state()
            patroni = running.patroni.version if running.patroni else None
            judged = manifest or {"spec": postgres.object()["spec"]}
            digest = hashlib.sha256(json.dumps(judged, sort_keys=True).encode()).hexdigest()
            self._note(postgresql=server.version, patroni=patroni, manifest_sha256=digest)
            self._note(images=images(kube, {namespace, postgres.operator_namespace}))
            progress.say(
                f"pgo: PostgreSQL {server.version}, Patroni {patroni}, "
                f"PGO {self._facts().get('pgo')}, Kubernetes {cluster.kubernetes_version}"
            )
        return postgres

    @pytest.hookimpl(trylast=True)
    def pytest_pgo_prove_healthy(
        self, postgres: object, settings: Settings, before: object | None
    ) -> object:
        from pytest_pgo_eks.pgo import Identity, PostgresCluster, prove_healthy

        if not isinstance(postgres, PostgresCluster):
            return None
        known = before if isinstance(before, Identity) else None
        within_s = Timeouts.of(settings)["healthy-again"]
        # A cluster that did not recover in its full time once is given it once: every further
        # scenario would wait as long to learn the same.
        if (self._shared.found("health") or {}).get("sick"):
            within_s = min(within_s, _SICK_S)
        try:
            identity = prove_healthy(postgres, known, within_s=within_s)
        except PgoEksError:
            self._shared.note("health", {"sick": True})
            raise
        self._shared.note("health", {"sick": False})
        return identity

    @pytest.hookimpl(trylast=True)
    def pytest_pgo_diagnostics(
        self, cluster: ClusterHandle, settings: Settings, folder: Path, error: BaseException
    ) -> None:
        from pytest_pgo_eks.diagnostics.collect import collect
        from pytest_pgo_eks.diagnostics.describing import describers

        headline = str(error).splitlines()[0] if str(error) else type(error).__name__
        namespaces = [settings.namespace, *([STAND_IN_NAMESPACE] if cluster.stand_in else [])]
        namespaces += [cluster.adopted[0]] if cluster.adopted else []
        namespaces += [one.operator_namespace for one in self._postgres]
        kube = self._kube(cluster)
        more = list(describers(kube, namespaces))
        if self._recorder is not None:
            begin = self._begin or self._recorder.first
            more.append(("what was recorded", partial(self._recorder.extract, begin)))
        collect(kube, namespaces, folder, headline=headline, more=more)
        if cluster.provider == "kind" and self._shared.first("kind-logs"):
            from pytest_pgo_eks.clusters.kind import export_logs

            export_logs(cluster, folder / "kind")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Know from where on a scenario's part of the recording begins."""
        self._begin = self._recorder.begin() if self._recorder is not None else None

    def pytest_sessionfinish(self) -> None:
        if self._recorder is not None:
            self._recorder.stop()
        for postgres in self._postgres:
            postgres.close()
        for kube in self._clients.values():
            kube.close()

    def _begin_recording(self, cluster: ClusterHandle, settings: Settings, *, start: bool) -> None:
        from pytest_pgo_eks.clusters.operators import operator_namespace
        from pytest_pgo_eks.diagnostics.recorder import Recorder
        from pytest_pgo_eks.kube import Kube

        # A client of its own: its streams would take the connections of everybody else.
        kube = self._clients.setdefault(Path("recorder"), Kube(cluster.kubeconfig, cluster.context))
        subject = cluster.adopted[0] if cluster.adopted else settings.namespace
        namespaces = [subject, operator_namespace(self._kube(cluster), subject)]
        self._recorder = Recorder(kube, namespaces, self._shared.folder / "stream")
        if start:
            self._recorder.start()

    def _facts(self) -> dict[str, Any]:
        return self._shared.found("facts") or {}

    def _note(self, **facts: object) -> None:
        self._shared.note("facts", {**self._facts(), **facts})
