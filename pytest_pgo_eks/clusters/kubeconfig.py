"""A cluster that exists already: a guest in it, in a namespace of its own."""

from __future__ import annotations

import secrets
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_pgo_eks import shipped
from pytest_pgo_eks.clusters import (
    demands,
    detecting,
    operators,
    premises,
    production,
    reach,
    rights,
)
from pytest_pgo_eks.clusters.base import (
    ClusterHandle,
    LedgerEntry,
    Swept,
    note_intent,
    state_root,
)
from pytest_pgo_eks.clusters.images import probe_image
from pytest_pgo_eks.clusters.premises import Lease
from pytest_pgo_eks.clusters.reach import Access
from pytest_pgo_eks.clusters.rights import Missing
from pytest_pgo_eks.errors import ApiProblem, ClusterProblem, PgoEksError, UsageProblem
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.progress import Progress
from pytest_pgo_eks.settings import Settings
from pytest_pgo_eks.timeouts import Timeouts

_NAME = "kubeconfig"


class KubeconfigProvider:
    """Makes no cluster: it takes a namespace in one, and gives it back as it was."""

    name = _NAME
    never: Mapping[str, str] = {}

    def preflight(self, settings: Settings) -> None:
        access = self._access(settings)
        with reach.connect(access) as kube:
            self._refuse(settings, access, kube)

    def create(self, settings: Settings, progress: Progress, ledger: Path) -> ClusterHandle:
        access = self._access(settings)
        run = f"{settings.namespace}-{secrets.token_hex(3)}"
        folder = _folder(settings, run)
        with progress.phase(f"looking at context {access.context}"), reach.connect(access) as kube:
            denied = self._refuse(settings, access, kube)
            exists = kube.find("Namespace", settings.namespace) is not None
            before = premises.inventory(kube, settings.namespace) if exists else ()
        lease = Lease(
            run, str(access.kubeconfig), access.context, settings.namespace, not exists, before
        )
        # First on disk, then in the cluster: a run that is killed in between can be cleaned up.
        lease.write(folder)
        note_intent(ledger, name=settings.namespace, remove=_removal(lease), state_dir=folder)
        with Kube(access.kubeconfig, access.context, labels=lease.labels) as kube:
            premises.take(kube, lease)
            return self._handle(
                settings, kube, lease, folder=folder, denied=denied, progress=progress
            )

    def adopt(self, settings: Settings, progress: Progress) -> ClusterHandle:
        access = self._access(settings)
        found = settings.reuse or ""
        if found != settings.namespace:
            raise UsageProblem(
                f"--pgo-reuse={found}: for --cluster=kubeconfig that is the namespace of the run that "
                f"was kept; say --pgo-namespace={found}, too"
            )
        with reach.connect(access) as kube:
            namespace = kube.find("Namespace", found) or {"metadata": {}}
            run = (namespace["metadata"].get("labels") or {}).get(premises.RUN)
            if run is None:
                raise UsageProblem(
                    f"--pgo-reuse: no kept run is in namespace {found!r} of context {access.context!r}"
                )
            lease = Lease(run, str(access.kubeconfig), access.context, found, made=True)
            folder = _folder(settings, run)
            denied = self._rights(settings, kube, make_namespace=False)
            lease.write(folder)
        with Kube(access.kubeconfig, access.context, labels=lease.labels) as kube:
            return self._handle(
                settings, kube, lease, folder=folder, denied=denied, progress=progress
            )

    def destroy(self, handle: ClusterHandle, progress: Progress) -> None:
        if handle.state_dir is None:
            raise ClusterProblem(f"nobody knows what was created in {handle.name}")
        _clear(handle.state_dir, progress)

    def sweep(self, entry: LedgerEntry, progress: Progress) -> Swept:
        if not entry.state_dir or not (Path(entry.state_dir) / "lease.json").exists():
            return "absent"
        folder = Path(entry.state_dir)
        lease = Lease.read(folder)
        try:
            with Kube(Path(lease.kubeconfig), lease.context) as kube:
                namespace = kube.find("Namespace", lease.namespace)
                labels = ((namespace or {}).get("metadata") or {}).get("labels") or {}
                if namespace is None or (lease.made and labels.get(premises.RUN) != lease.run):
                    shutil.rmtree(folder, ignore_errors=True)
                    return "absent"
            _clear(folder, progress)
        except PgoEksError:
            return "left"
        return "removed"

    # -- inside ---------------------------------------------------------------------------------

    def _access(self, settings: Settings) -> Access:
        return reach.find(settings, state_root(settings) / _NAME)

    def _refuse(self, settings: Settings, access: Access, kube: Kube) -> list[str]:
        """Refuse what cannot work; return the capabilities that are lost for want of rights."""
        try:
            exists = premises.refuse_taken(kube, settings.namespace, _cluster_name(settings))
            denied = self._rights(settings, kube, make_namespace=not exists)
            if not settings.allow_production:
                _refuse_production(access, kube)
            if settings.adopt is None:
                operators.refuse(
                    kube,
                    settings.namespace,
                    api_version=demands.api_version(settings),
                    installing=_installing(settings),
                )
                demands.refuse(kube, demands.demand_of(settings))
            else:
                _refuse_unknown(kube, settings.adopt)
        except ApiProblem as error:
            raise UsageProblem(
                f"context {access.context!r} of {access.kubeconfig}: {error}"
            ) from None
        return denied

    def _rights(self, settings: Settings, kube: Kube, *, make_namespace: bool) -> list[str]:
        adopted = settings.adopt.partition("/")[0] if settings.adopt else None
        wanted = rights.needed(
            own=settings.namespace,
            operator=operators.operator_namespace(kube, settings.namespace),
            adopted=adopted,
            make_namespace=make_namespace,
            disrupt=settings.allow_disruption,
            install=_installing(settings),
        )
        lacking = rights.missing(kube, wanted)
        if needed := [one for one in lacking if one.right.capability is None]:
            raise UsageProblem(_plea(needed, make_namespace=make_namespace))
        return sorted({one.right.capability or "" for one in lacking})

    def _handle(
        self,
        settings: Settings,
        kube: Kube,
        lease: Lease,
        *,
        folder: Path,
        denied: Sequence[str],
        progress: Progress,
    ) -> ClusterHandle:
        facts = detecting.detect(
            kube,
            lease.namespace,
            image=probe_image(settings, stand_in=detecting.is_stand_in(kube)),
            denied=denied,
            progress=progress,
            within_s=Timeouts.of(settings)["pod-ready"],
        )
        progress.say(f"pgo: context {lease.context}: {facts}")
        adopted = _adopted(settings)
        read_only = (adopted[0],) if adopted and not settings.allow_disruption else ()
        return ClusterHandle(
            name=lease.namespace,
            provider=self.name,
            kubeconfig=Path(lease.kubeconfig),
            context=lease.context,
            capabilities=facts.capabilities,
            kubernetes_version=facts.kubernetes,
            state_dir=folder,
            hints=_hints(lease),
            stand_in=facts.stand_in,
            lacks=facts.lacks,
            labels=lease.labels,
            read_only=read_only,
            adopted=adopted,
        )


def _folder(settings: Settings, run: str) -> Path:
    return state_root(settings).absolute() / _NAME / run


def _clear(folder: Path, progress: Progress) -> None:
    lease = Lease.read(folder)
    within_s = Timeouts(stand_in=False)["postgres-gone"]
    with Kube(Path(lease.kubeconfig), lease.context) as kube:
        premises.leave(kube, lease, progress, within_s=within_s)
    shutil.rmtree(folder, ignore_errors=True)


def _cluster_name(settings: Settings) -> str | None:
    return None if settings.adopt else demands.name_of(settings)


def _installing(settings: Settings) -> bool:
    return settings.install.source not in (None, "installed")


def _adopted(settings: Settings) -> tuple[str, str] | None:
    if settings.adopt is None:
        return None
    namespace, _, name = settings.adopt.partition("/")
    return namespace, name


def _refuse_unknown(kube: Kube, adopt: str) -> None:
    namespace, _, name = adopt.partition("/")
    if kube.find("PostgresCluster", name, namespace) is None:
        there = [
            f"{one['metadata']['namespace']}/{one['metadata']['name']}"
            for one in kube.list("PostgresCluster", namespace)
        ]
        raise UsageProblem(
            f"--pgo-adopt: there is no PostgresCluster {name} in namespace {namespace}; there are: "
            f"{', '.join(there) or 'none'}"
        )


def _refuse_production(access: Access, kube: Kube) -> None:
    host = access.server.partition("://")[2].rpartition(":")[0]
    names = {"the context": access.context, "the cluster": access.cluster, "the server": host}
    system = kube.find("Namespace", "kube-system")
    objects = [*([{"kind": "Namespace", **system}] if system else []), *kube.list("Node")]
    production.refuse(names, objects)


def _plea(lacking: Sequence[Missing], *, make_namespace: bool) -> str:
    file = "whole-cluster" if make_namespace else "one-namespace"
    path = shipped.fixtures() / "rbac" / f"{file}.yaml"
    return (
        f"{len(lacking)} rights are missing: {'; '.join(map(str, lacking))}; "
        f"an administrator grants them with kubectl apply -f {path} (bind them to your user)"
    )


def _kubectl(lease: Lease) -> str:
    return shlex.join(["kubectl", f"--kubeconfig={lease.kubeconfig}", f"--context={lease.context}"])


def _removal(lease: Lease) -> str:
    if lease.made:
        # The operator ends what it runs as long as the namespace takes new objects.
        clusters = f"{_kubectl(lease)} -n {lease.namespace} delete postgrescluster --all"
        return f"{clusters} && {_kubectl(lease)} delete namespace {lease.namespace}"
    return (
        f"{_kubectl(lease)} -n {lease.namespace} delete "
        f"postgrescluster,pod,networkpolicy,role,rolebinding,serviceaccount -l {premises.RUN}={lease.run}"
    )


def _hints(lease: Lease) -> tuple[str, ...]:
    kubectl = f"{_kubectl(lease)} -n {lease.namespace}"
    primary = "postgres-operator.crunchydata.com/role=master"
    return (
        f"{kubectl} get pods,services,postgresclusters",
        f"{kubectl} exec -it -c database $({kubectl} get pod -l {primary} -o name) -- psql",
        _removal(lease),
    )
