"""The provider ``eks``: builds a cluster for the run and proves it gone, or adopts one."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pytest_pgo_eks.clusters import detecting
from pytest_pgo_eks.clusters.base import (
    AwsSide,
    ClusterHandle,
    LedgerEntry,
    Swept,
    note_intent,
)
from pytest_pgo_eks.clusters.eks import access, adoption, inside, planning, prices
from pytest_pgo_eks.clusters.eks.belongings import Thing, find
from pytest_pgo_eks.clusters.eks.building import Building
from pytest_pgo_eks.clusters.eks.calls import Aws, Clients, Time, boto_clients
from pytest_pgo_eks.clusters.eks.deviations import deviations
from pytest_pgo_eks.clusters.eks.names import PREFIX, Names
from pytest_pgo_eks.clusters.eks.preflight import Address, Preflight, own_address
from pytest_pgo_eks.clusters.eks.removal import Removal, refuse_leftovers
from pytest_pgo_eks.clusters.eks.state import StateFile, folder
from pytest_pgo_eks.clusters.eks.templates import Choice
from pytest_pgo_eks.clusters.eks.wanted import wanted
from pytest_pgo_eks.clusters.images import probe_image
from pytest_pgo_eks.clusters.record import ProviderRecord
from pytest_pgo_eks.errors import ClusterProblem, UsageProblem
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.progress import Progress, silent
from pytest_pgo_eks.settings import Settings
from pytest_pgo_eks.timeouts import Timeouts

_SIDE = "eks.json"
Connect = Callable[[str | None], Clients]


@dataclass(frozen=True)
class Side:
    """What has to be known of a cluster to come back to it: written beside its kubeconfig."""

    cluster: str
    region: str
    profile: str
    run: str | None
    aws_faults: bool = False

    def write(self, place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        (place / _SIDE).write_text(json.dumps(asdict(self), indent=1), "utf-8")

    @classmethod
    def read(cls, place: Path | None) -> Side:
        try:
            assert place is not None
            return cls(**json.loads((place / _SIDE).read_text("utf-8")))
        except (OSError, ValueError, TypeError, AssertionError) as error:
            raise ClusterProblem(
                f"nothing is known of an EKS cluster in {place}: {error}"
            ) from None


class EksProvider:
    """Makes, adopts and removes clusters on Amazon EKS.

    ``connect`` gives the clients of AWS for a region, ``clock`` the time; tests bring their own.
    """

    name = "eks"
    never: Mapping[str, str] = {}

    def __init__(
        self,
        connect: Connect = boto_clients,
        clock: Time | None = None,
        address: Address = own_address,
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._address = address
        self._aws: dict[str | None, Aws] = {}
        self._chosen: tuple[Settings, Names, Choice] | None = None
        self._left: dict[str, list[Thing]] = {}
        self._sides: dict[Path, Side] = {}
        self.notes: list[str] = []

    # -- the protocol ---------------------------------------------------------------------------

    def preflight(self, settings: Settings) -> None:
        if settings.eks.name:
            adoption.look(self._reach(settings), settings.eks.name)
            return
        self._choose(settings)

    def create(self, settings: Settings, progress: Progress, ledger: Path) -> ClusterHandle:
        aws = self._reach(settings)
        if settings.eks.name:
            handle = adoption.adopt(aws, settings, progress, ledger, folder(settings))
            side = Side(settings.eks.name, aws.region, "adopted", None, settings.eks.allow_faults)
            assert handle.state_dir is not None
            side.write(handle.state_dir)
            return self._able(handle, settings)
        names, choice = self._choose(settings)
        file, place = StateFile.of(settings, names.run), folder(settings) / names.run
        note_intent(
            ledger, name=names.cluster, remove=removal_line(names, aws.region), state_dir=place
        )
        profile = settings.eks.profile
        side = Side(names.cluster, aws.region, profile, names.run, settings.eks.allow_faults)
        side.write(place)
        progress.say(
            f"pgo: run {names.run} in {aws.region}, Kubernetes {choice.version}, "
            f"{', '.join(choice.zones)}; estimated {choice.estimate_usd:.2f} USD; "
            f"if this machine dies: {removal_line(names, aws.region)}"
        )
        Building(aws, names, file, progress).build(wanted(settings), choice)
        described = aws.call("eks", "describe_cluster", name=names.cluster)["cluster"]
        path = access.write(access.kubeconfig(described, aws.region), place / "kubeconfig")
        with progress.phase("the API server lets us in"):
            access.prove(path, names.cluster, choice.runner)
        inside.prepare(path, progress)
        return self._handle(settings, names, place, progress)

    def adopt(self, settings: Settings, progress: Progress) -> ClusterHandle:
        """Return the cluster of a run that was kept; ``--pgo-eks-name`` is another matter."""
        names = Names((settings.reuse or "").removeprefix(PREFIX))
        place = folder(settings) / names.run
        if not (place / _SIDE).exists():
            raise UsageProblem(
                f"--pgo-reuse: no run {names.run} is remembered below {folder(settings)}; "
                "a cluster of your own is adopted with --pgo-eks-name"
            )
        side = Side.read(place)
        aws = self._of(side.region)
        found = aws.find("eks", "describe_cluster", name=names.cluster)
        status = found["cluster"]["status"] if found else "gone"
        if found is None or status != "ACTIVE":
            raise UsageProblem(f"--pgo-reuse: the cluster {names.cluster} is {status}")
        described = access.kubeconfig(found["cluster"], side.region)
        access.write(described, place / "kubeconfig")
        return self._handle(settings, names, place, progress)

    def destroy(self, handle: ClusterHandle, progress: Progress) -> None:
        side = self._side(handle)
        if side.run is None:
            adoption.give_back(self._of(side.region), handle, side.cluster, progress)
            return
        assert handle.state_dir is not None
        self._remove(side, handle.state_dir, progress, handle.kubeconfig)

    def sweep(self, entry: LedgerEntry, progress: Progress) -> Swept:
        """Remove what this process failed to bring up; of a dead one's only say whether it is there.

        A removal takes twenty minutes, and the dead run may be meant to be gone on with.
        """
        place = Path(entry.state_dir) if entry.state_dir else None
        if place is None or not (place / _SIDE).exists():
            return adoption.sweep(entry, progress)
        side = Side.read(place)
        if side.run is None:
            return adoption.sweep(entry, progress)
        if entry.owner_pid == os.getpid() and not entry.keep:
            self._remove(side, place, progress, place / "kubeconfig")
            return "removed"
        return "left" if find(self._of(side.region), Names(side.run)) else "absent"

    # -- what others ask ------------------------------------------------------------------------

    def aws(self, handle: ClusterHandle) -> AwsSide:
        """Return the AWS side of a cluster, for the audit and for faults."""
        side = self._side(handle)
        aws = self._of(side.region)
        state = None
        if side.run is not None and handle.state_dir is not None:
            state = StateFile(handle.state_dir.with_suffix(".json")).read()
        return AwsSide(
            aws.clients, side.cluster, side.profile, tags=dict(state.tags) if state else {}
        )

    def record(self, handle: ClusterHandle) -> ProviderRecord | None:
        """Return what the run cost, what is left, and where it differs from the pattern's text."""
        side = self._side(handle)
        if side.run is None or handle.state_dir is None:
            return ProviderRecord(region=side.region)
        file = StateFile(handle.state_dir.with_suffix(".json"))
        state = file.read()
        if state is None:
            return ProviderRecord(region=side.region)
        choice = Choice.from_json(state.choice)
        known = prices.Rates(choice.prices, choice.price_factor, choice.price_source)
        now = self._of(side.region).clock.wall()
        nodes, gateways = state.shape["nodes"], state.shape["gateways"]
        cost = prices.spent(state.spans(nodes, gateways), now, known, state.estimate_usd)
        left = self._left.get(side.cluster, [])
        if state.removed:
            file.forget()
        return ProviderRecord(
            region=side.region,
            cost=cost,
            leftovers=tuple(f"{thing}: {thing.removal(side.region)}" for thing in left),
            deviations=deviations(side.profile),
        )

    def plan(self, settings: Settings, progress: Progress | None = None) -> str:
        """Return what would be made and what it costs; nothing is left of the looking.

        :raises UsageProblem: it cannot work.
        """
        aws = self._reach(settings)
        if settings.eks.name:
            return planning.of_adoption(adoption.look(aws, settings.eks.name), aws.region)
        names, choice = self._choose(settings)
        return planning.plan(
            aws, names, wanted(settings), choice, progress or silent(), notes=self.notes
        )

    # -- inside ---------------------------------------------------------------------------------

    def _side(self, handle: ClusterHandle) -> Side:
        """Return what is known of a cluster, also after its folder is gone."""
        place = handle.state_dir
        if place is None or place not in self._sides:
            self._sides[place or Path()] = Side.read(place)
        return self._sides[place or Path()]

    def _reach(self, settings: Settings) -> Aws:
        return self._of(settings.eks.region)

    def _of(self, region: str | None) -> Aws:
        if region not in self._aws:
            clients = self._connect(region)
            found = region or getattr(clients, "region", None)
            if not found:
                raise UsageProblem(
                    "no AWS region is configured; name one with --pgo-eks-region or AWS_REGION"
                )
            self._aws[region] = self._aws[found] = Aws(clients, found, self._clock)
        return self._aws[region]

    def _choose(self, settings: Settings) -> tuple[Names, Choice]:
        if self._chosen is None or self._chosen[0].eks != settings.eks:
            aws, wish = self._reach(settings), wanted(settings)
            names = Names(settings.eks.run or secrets.token_hex(4))
            before = StateFile.of(settings, names.run).read()
            preflight = Preflight(aws, wish, names, self._address)
            choice = preflight.choose()
            self.notes = preflight.notes
            if before is not None:
                # What was decided when the run began holds: its stacks are made of it.
                choice = Choice.from_json(before.choice)
            self._chosen = (settings, names, choice)
        return self._chosen[1], self._chosen[2]

    def _remove(self, side: Side, place: Path, progress: Progress, kubeconfig: Path) -> None:
        assert side.run is not None
        names, aws = Names(side.run), self._of(side.region)
        before = (lambda: inside.wind_down(kubeconfig, progress)) if kubeconfig.exists() else None
        file = StateFile(place.with_suffix(".json"))
        left = Removal(aws, names, progress, file=file, before=before).remove()
        self._left[side.cluster] = left
        refuse_leftovers(left, side.region)
        (place / "kubeconfig").unlink(missing_ok=True)

    def _handle(
        self, settings: Settings, names: Names, place: Path, progress: Progress
    ) -> ClusterHandle:
        side = Side.read(place)
        path = place / "kubeconfig"
        with Kube(path, request_s=30.0) as kube:
            facts = detecting.detect(
                kube,
                "kube-system",
                image=probe_image(settings, stand_in=detecting.is_stand_in(kube)),
                denied=(),
                progress=progress,
                within_s=Timeouts.of(settings)["pod-ready"],
            )
        kubectl = f"kubectl --kubeconfig {shlex.quote(str(path))}"
        handle = ClusterHandle(
            name=names.cluster,
            provider=self.name,
            kubeconfig=path,
            capabilities=facts.capabilities,
            kubernetes_version=facts.kubernetes,
            state_dir=place,
            hints=(
                f"{kubectl} -n {settings.namespace} get pods,services,postgresclusters",
                f"aws eks describe-cluster --name {names.cluster} --region {side.region}",
                removal_line(names, side.region),
            ),
            stand_in=facts.stand_in,
            lacks=facts.lacks,
        )
        return self._able(handle, settings)

    def _able(self, handle: ClusterHandle, settings: Settings) -> ClusterHandle:
        """Return the handle with what only a cluster on EKS can do."""
        able, lacks = set(handle.capabilities), dict(handle.lacks)
        able.add("real-eks")
        lacks.pop("real-eks", None)
        if settings.eks.allow_faults:
            able.add("aws-faults")
            lacks.pop("aws-faults", None)
        else:
            lacks["aws-faults"] = "--pgo-allow-aws-faults was not given"
        return replace(handle, provider=self.name, capabilities=frozenset(able), lacks=lacks)


def removal_line(names: Names, region: str) -> str:
    """Return the shell line that removes a run."""
    return shlex.join(
        [sys.executable, *access.PROGRAM, "sweep", "--region", region, "--run", names.run, "--yes"]
    )
