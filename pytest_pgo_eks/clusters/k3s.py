"""A throw-away cluster in one container: k3s, started by testcontainers."""

from __future__ import annotations

import importlib
import importlib.util
import secrets
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pytest_pgo_eks.clusters import demands, engine, programs
from pytest_pgo_eks.clusters.base import (
    ClusterHandle,
    LedgerEntry,
    Swept,
    note_intent,
    state_root,
)
from pytest_pgo_eks.clusters.engine import Engine
from pytest_pgo_eks.clusters.kind_nodes import mirrors
from pytest_pgo_eks.clusters.made import handle_of
from pytest_pgo_eks.errors import ClusterProblem, UsageProblem
from pytest_pgo_eks.kube import eventually
from pytest_pgo_eks.progress import Progress
from pytest_pgo_eks.settings import Settings
from pytest_pgo_eks.timeouts import Timeouts

_NAME = "k3s"
_ZONE = "zone-a"
_REMOVE_S = 60.0
_LOGS_S = 20.0
_DEFAULT = "1.34"
# Release tags of k3s are not pushed again; the digest holds that for this run.
_IMAGES: Mapping[str, str] = {
    "1.36.4": "edad48e12bf81c3a09ac1c05c0c0ffaaa22145980b989d6fae84543a76b83657",
    "1.35.8": "59fe491fd3b73204e499e40b325240d85c42c7189c3ae50150d37b78243f3b32",
    "1.34.1": "5e0707cfd1239b358ef73f3254bc3eadc027dd30cd5ec6ca41e29e47652a1b8c",
    "1.33.9": "f17e43023cce2b9c613e198f26e73637bf734b5156d37c9f44819d97bac4d655",
}


class K3sProvider:
    """One node, one container. It says honestly what one node cannot show."""

    name = _NAME
    never: Mapping[str, str] = {
        "real-eks": "--cluster=k3s runs on this machine",
        "zones": "--cluster=k3s has one node",
        "node-drain": "--cluster=k3s has one node: nothing is left to go to",
        "node-loss": "--cluster=k3s has one node",
        "zone-loss": "--cluster=k3s has one node",
    }

    def preflight(self, settings: Settings) -> None:
        self._tools(settings)

    def create(self, settings: Settings, progress: Progress, ledger: Path) -> ClusterHandle:
        used, image = self._tools(settings)
        name = f"pgo-k3s-{secrets.token_hex(4)}"
        folder = state_root(settings).absolute() / _NAME / name
        folder.mkdir(parents=True, mode=0o700)
        kubeconfig = folder / "kubeconfig"
        remove = _removal(used, name)
        note_intent(ledger, name=name, remove=shlex.join(remove), state_dir=folder)
        registries = _registries(folder, mirrors(settings.registry_mirror))
        with progress.phase(f"k3s comes up from {image}", expected_s=40):
            text = _start(name, image, registries, Timeouts.of(settings)["cluster-created"])
        kubeconfig.write_text(text, "utf-8")
        kubeconfig.chmod(0o600)
        return self._handle(settings, progress, name, kubeconfig, shlex.join(remove))

    def adopt(self, settings: Settings, progress: Progress) -> ClusterHandle:
        used, _ = self._tools(settings)
        name = settings.reuse or ""
        kubeconfig = state_root(settings).absolute() / _NAME / name / "kubeconfig"
        running = programs.run(
            [used.program, "ps", "--filter", f"name=^{name}$", "--format", "{{.Names}}"],
            within_s=_LOGS_S,
        )
        if not kubeconfig.exists() or name not in running.out.split():
            raise UsageProblem(
                f"--pgo-reuse: no container {name!r} of a run that was kept is running; "
                f"{used.name} ps shows those that are"
            )
        remove = shlex.join(_removal(used, name))
        return self._handle(settings, progress, name, kubeconfig, remove)

    def destroy(self, handle: ClusterHandle, progress: Progress) -> None:
        assert handle.state_dir is not None
        with progress.phase("k3s goes away", expected_s=5):
            _remove(shlex.split(handle.hints[-1]), handle.state_dir)

    def sweep(self, entry: LedgerEntry, progress: Progress) -> Swept:
        command = shlex.split(entry.remove)
        if not entry.state_dir or not command:
            return "absent"
        engine.find()
        there = programs.run(
            [command[0], "inspect", "--format", "{{.Id}}", entry.name], within_s=20
        )
        if not there.ok:
            shutil.rmtree(entry.state_dir, ignore_errors=True)
            return "absent"
        with progress.phase(f"removing container {entry.name}"):
            _remove(command, Path(entry.state_dir))
        return "removed"

    # -- inside ---------------------------------------------------------------------------------

    def _tools(self, settings: Settings) -> tuple[Engine, str]:
        """Return the engine and the image; create nothing.

        :raises UsageProblem: something is missing, or no image is known.
        """
        if importlib.util.find_spec("testcontainers") is None:
            raise UsageProblem(
                "--cluster=k3s needs testcontainers: pip install 'pytest-pgo-eks[k3s]'"
            )
        used = engine.find()
        mirrors(settings.registry_mirror)
        demands.demand_of(settings)
        return used, _image(settings)

    def _handle(
        self, settings: Settings, progress: Progress, name: str, kubeconfig: Path, remove: str
    ) -> ClusterHandle:
        return handle_of(
            settings,
            progress,
            provider=self.name,
            name=name,
            kubeconfig=kubeconfig,
            folder=kubeconfig.parent,
            remove=remove,
            zone=_ZONE,
        )


def _image(settings: Settings) -> str:
    if settings.k3s_image:
        return settings.k3s_image
    wanted = (settings.kubernetes_version or _DEFAULT).removeprefix("v")
    for version, digest in _IMAGES.items():
        if wanted in (version, version.rpartition(".")[0]):
            return f"docker.io/rancher/k3s:v{version}-k3s1@sha256:{digest}"
    raise UsageProblem(
        f"--pgo-kubernetes-version={settings.kubernetes_version}: no image of that version is known "
        f"({', '.join(_IMAGES)} are); name one with --pgo-k3s-image=rancher/k3s:v…@sha256:…"
    )


def _start(name: str, image: str, registries: Path | None, within_s: float) -> str:
    """Start the container and return its kubeconfig as seen from here.

    :raises UsageProblem: the image cannot be pulled.
    :raises ClusterProblem: the container ended, or k3s did not come up.
    """
    docker: Any = importlib.import_module("docker.errors")
    from testcontainers.community.k3s import K3SContainer
    from testcontainers.core.config import ConnectionMode, testcontainers_config

    # A container of its own that removes ours when we die would also remove what is to be kept; the
    # next run sweeps. The library reads its limits from here, not from the call.
    testcontainers_config.ryuk_disabled = True
    testcontainers_config.max_tries = max(int(within_s / testcontainers_config.sleep_time), 1)
    told = testcontainers_config.connection_mode_override
    # The constructor asks for the address of a container that is not there yet, which fails where we
    # run in a container ourselves; afterwards the address is right, whichever it is.
    testcontainers_config.connection_mode_override = told or ConnectionMode.docker_host
    try:
        container: Any = K3SContainer(image).with_name(name)
    finally:
        testcontainers_config.connection_mode_override = told
    # The library names a server to join on what is the only server.
    container.env.pop("K3S_URL", None)
    container.with_kwargs(privileged=True, labels={"pytest-pgo-eks/run": name})
    if registries:
        container.with_volume_mapping(str(registries), "/etc/rancher/k3s/registries.yaml", "ro")
    try:
        container.start()
        # It reads a file in the container, and has been seen to come back with nothing.
        text = eventually(
            lambda: str(container.config_yaml()),
            accept=lambda found: "clusters" in found,
            within_s=_LOGS_S,
            what="k3s to write its kubeconfig",
            show=lambda _: "none yet",
            successes=1,
        )
        return _named(text)
    except (docker.ImageNotFound, docker.APIError) as error:
        said = str(error.explanation or error)
        if isinstance(error, docker.ImageNotFound) or "pull" in said or "manifest" in said:
            raise UsageProblem(
                f"the image {image} cannot be pulled ({said}); load it into the engine, or name one "
                "that can with --pgo-k3s-image or --pgo-registry-mirror"
            ) from None
        raise ClusterProblem(f"k3s in container {name}: {said}") from None
    except (docker.DockerException, RuntimeError, TimeoutError, OSError) as error:
        last = str(error).strip().splitlines() or [type(error).__name__]
        raise ClusterProblem(f"k3s in container {name} did not come up: {last[0]}") from None


def _named(kubeconfig: str) -> str:
    """Have the certificate checked against a name that k3s always puts into it."""
    document = yaml.safe_load(kubeconfig)
    for one in document["clusters"]:
        one["cluster"]["tls-server-name"] = "localhost"
    return yaml.safe_dump(document)


def _registries(folder: Path, mirrored: Mapping[str, str]) -> Path | None:
    """Write k3s' own file about mirrors, if there are any."""
    if not mirrored:
        return None
    path = folder / "registries.yaml"
    document = {"mirrors": {name: {"endpoint": [url]} for name, url in mirrored.items()}}
    path.write_text(yaml.safe_dump(document), "utf-8")
    return path


def _removal(used: Engine, name: str) -> list[str]:
    return [used.program, "rm", "--force", "--volumes", name]


def _remove(command: list[str], folder: Path) -> None:
    done = programs.run(command, within_s=_REMOVE_S)
    if not done.ok and "No such container" not in done.err:
        raise ClusterProblem(
            f"the container of k3s was not removed: {done.told}; remove it: {shlex.join(command)}"
        )
    shutil.rmtree(folder, ignore_errors=True)
