"""A throw-away cluster in containers, made by the program ``kind``."""

from __future__ import annotations

import secrets
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

from pytest_pgo_eks.clusters import demands, engine, kind_nodes, programs
from pytest_pgo_eks.clusters.base import (
    ClusterHandle,
    LedgerEntry,
    Swept,
    note_intent,
    state_root,
)
from pytest_pgo_eks.clusters.engine import Engine
from pytest_pgo_eks.clusters.made import handle_of
from pytest_pgo_eks.errors import ClusterProblem, UsageProblem
from pytest_pgo_eks.progress import Progress
from pytest_pgo_eks.settings import Settings
from pytest_pgo_eks.timeouts import Timeouts

_NAME = "kind"
# containerd 2 and the way mirrors are told to it came with 0.27.
_LEAST = (0, 27)
_LOOK_S = 30.0
_DELETE_S = 300.0
_LOGS_S = 120.0
_INSTALL = (
    "take it from https://kind.sigs.k8s.io (and check its sum), or name it: --pgo-kind-binary"
)


class KindProvider:
    """Runs ``kind``, with a kubeconfig of its own: the user's default file is never touched."""

    name = _NAME
    never: Mapping[str, str] = {
        "real-eks": "--cluster=kind runs on this machine",
        "zone-loss": "kind's nodes share one network: no zone of it can be lost",
    }

    def preflight(self, settings: Settings) -> None:
        self._tools(settings)

    def create(self, settings: Settings, progress: Progress, ledger: Path) -> ClusterHandle:
        kind, used, image = self._tools(settings)
        name = f"pgo-{secrets.token_hex(4)}"
        folder = state_root(settings).absolute() / _NAME / name
        kubeconfig = folder / "kubeconfig"
        folder.mkdir(parents=True, mode=0o700)
        config = kind_nodes.configuration(folder, kind_nodes.mirrors(settings.registry_mirror))
        remove = _removal(kind, name, kubeconfig)
        note_intent(ledger, name=name, remove=shlex.join(remove), state_dir=folder)
        within_s = Timeouts.of(settings)["cluster-created"]
        command = [kind, "create", "cluster", "--name", name, "--config", str(config)]
        # Retained, so that its logs can say what went wrong; it is removed all the same.
        command += ["--kubeconfig", str(kubeconfig), "--wait", f"{within_s / 2:.0f}s", "--retain"]
        command += ["--image", image] if image else []
        environment = _environment(used, kubeconfig)
        with progress.phase("kind makes a cluster", expected_s=90):
            made = programs.run(command, within_s=within_s, environment=environment)
        if not made.ok:
            raise self._failed(kind, name, folder, made, environment)
        for one in _images(settings):
            with progress.phase(f"copying image {one} into the nodes", expected_s=30):
                load = [kind, "load", "docker-image", one, "--name", name]
                loaded = programs.run(load, within_s=within_s, environment=environment)
            if not loaded.ok:
                raise ClusterProblem(f"kind load docker-image {one}: {loaded.told}")
        return handle_of(
            settings,
            progress,
            provider=self.name,
            name=name,
            kubeconfig=kubeconfig,
            folder=folder,
            remove=shlex.join(remove),
        )

    def adopt(self, settings: Settings, progress: Progress) -> ClusterHandle:
        kind, used, _ = self._tools(settings)
        name = settings.reuse or ""
        folder = state_root(settings).absolute() / _NAME / name
        there = self._clusters(kind, used)
        if name not in there or not (folder / "kubeconfig").exists():
            kept = [one for one in there if (folder.parent / one / "kubeconfig").exists()]
            raise UsageProblem(
                f"--pgo-reuse: kind has no cluster {name!r} that a run kept; there are: "
                f"{', '.join(kept) or 'none'}"
            )
        remove = shlex.join(_removal(kind, name, folder / "kubeconfig"))
        return handle_of(
            settings,
            progress,
            provider=self.name,
            name=name,
            kubeconfig=folder / "kubeconfig",
            folder=folder,
            remove=remove,
        )

    def destroy(self, handle: ClusterHandle, progress: Progress) -> None:
        assert handle.state_dir is not None
        with progress.phase("kind removes its cluster", expected_s=10):
            self._delete(shlex.split(handle.hints[-1]), handle.state_dir)

    def sweep(self, entry: LedgerEntry, progress: Progress) -> Swept:
        command = shlex.split(entry.remove)
        if not entry.state_dir or not command:
            return "absent"
        folder = Path(entry.state_dir)
        # An engine that does not run would answer that there is no cluster.
        used = engine.find()
        if entry.name not in self._clusters(command[0], used):
            shutil.rmtree(folder, ignore_errors=True)
            return "absent"
        with progress.phase(f"removing kind's cluster {entry.name}"):
            self._delete(command, folder)
        return "removed"

    # -- inside ---------------------------------------------------------------------------------

    def _tools(self, settings: Settings) -> tuple[str, Engine, str | None]:
        """Return kind, the engine and the node image; create nothing.

        :raises UsageProblem: one of them is missing, too old, or does not run.
        """
        kind = programs.found(settings.kind_binary or "kind", _INSTALL)
        told = programs.run([kind, "version"], within_s=_LOOK_S)
        version = programs.version_in(told.out)
        if not told.ok or version is None:
            raise UsageProblem(f"{kind} version: {told.told}; is that kind? {_INSTALL}")
        if version < _LEAST:
            raise UsageProblem(
                f"kind {programs.dotted(version)} is too old; {programs.dotted(_LEAST)} or newer is "
                f"needed: {_INSTALL}"
            )
        used = engine.find()
        kind_nodes.mirrors(settings.registry_mirror)
        image = kind_nodes.node_image(version, settings.kubernetes_version, settings.kind_image)
        for one in _images(settings):
            if not used.has_image(one):
                raise UsageProblem(
                    f"--pgo-load-images: {used.name} has no image {one}; pull or build it first"
                )
        demands.demand_of(settings)
        return kind, used, image

    def _clusters(self, kind: str, used: Engine) -> list[str]:
        listed = programs.run(
            [kind, "get", "clusters"], within_s=_LOOK_S, environment=used.environment
        )
        if not listed.ok:
            raise ClusterProblem(f"kind get clusters: {listed.told}")
        return listed.out.split()

    def _failed(
        self, kind: str, name: str, folder: Path, made: programs.Done, env: Mapping[str, str]
    ) -> ClusterProblem | UsageProblem:
        if "failed to pull image" in made.err:
            return UsageProblem(
                f"kind cannot pull its node image ({made.told}); load it into the engine, or name one "
                "that can be pulled with --pgo-kind-image or --pgo-registry-mirror"
            )
        logs = folder / "logs"
        command = [kind, "export", "logs", str(logs), "--name", name]
        kept = programs.run(command, within_s=_LOGS_S, environment=env).ok
        where = f"; logs of its nodes: {logs}" if kept else ""
        return ClusterProblem(f"kind create cluster: {made.told}{where}")

    def _delete(self, command: list[str], folder: Path) -> None:
        done = programs.run(
            command, within_s=_DELETE_S, environment=_environment(engine.find(), folder / "no")
        )
        if not done.ok:
            raise ClusterProblem(
                f"kind did not remove its cluster: {done.told}; remove it: {shlex.join(command)}"
            )
        logs = folder / "logs"
        if not logs.exists():
            shutil.rmtree(folder, ignore_errors=True)


def export_logs(handle: ClusterHandle, folder: Path) -> None:
    """Have kind write what its nodes logged, for a person who looks for the reason of a failure.

    :raises ClusterProblem: kind could not.
    """
    kind = shlex.split(handle.hints[-1])[0]
    command = [kind, "export", "logs", str(folder), "--name", handle.name]
    done = programs.run(command, within_s=_LOGS_S, environment=engine.find().environment)
    if not done.ok:
        raise ClusterProblem(f"kind export logs: {done.told}")


def _removal(kind: str, name: str, kubeconfig: Path) -> list[str]:
    return [kind, "delete", "cluster", "--name", name, "--kubeconfig", str(kubeconfig)]


def _environment(used: Engine, kubeconfig: Path) -> dict[str, str]:
    # Should kind ever forget its option, the user's own file is still out of reach.
    return {**used.environment, "KUBECONFIG": str(kubeconfig)}


def _images(settings: Settings) -> list[str]:
    return [one.strip() for one in (settings.load_images or "").split(",") if one.strip()]
