"""The container engine of this machine: Docker or Podman, there, running, new enough."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_pgo_eks.clusters import programs
from pytest_pgo_eks.errors import UsageProblem

_LOOK_S = 20.0
# Private cgroup namespaces came with 20.10; kind's and k3s' nodes need them on cgroup v2.
_LEAST: Mapping[str, tuple[int, ...]] = {"docker": (20, 10), "podman": (4, 0)}
_CHOICE = "KIND_EXPERIMENTAL_PROVIDER"
_START = {
    "docker": "start it (systemctl start docker) and be allowed to use it (group docker)",
    "podman": "start it (podman machine start, or systemctl --user start podman.socket)",
}


@dataclass(frozen=True)
class Engine:
    """One engine. ``environment`` makes kind use the same."""

    name: str
    program: str
    version: str

    @property
    def environment(self) -> dict[str, str]:
        return {_CHOICE: self.name} if self.name != "docker" else {}

    def has_image(self, image: str) -> bool:
        """Whether an image is on this machine."""
        command = [self.program, "image", "inspect", "--format", "{{.Id}}", image]
        return programs.run(command, within_s=_LOOK_S).ok


def find(environment: Mapping[str, str] | None = None) -> Engine:
    """Return the engine that kind's own variable names, or else the first that is installed.

    :raises UsageProblem: none is there, it does not run, or it is too old.
    """
    env = os.environ if environment is None else environment
    chosen = env.get(_CHOICE)
    if chosen and chosen not in _LEAST:
        raise UsageProblem(f"{_CHOICE}={chosen}: only docker and podman are supported here")
    names = (chosen,) if chosen else tuple(_LEAST)
    name = next((one for one in names if shutil.which(one)), None)
    if name is None:
        raise UsageProblem(
            f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} not on PATH: install one; "
            "--cluster=local needs neither"
        )
    told = _version(name)
    version = programs.version_in(told.out)
    if not told.ok or version is None:
        raise UsageProblem(f"{name} is installed but does not answer ({told.told}); {_START[name]}")
    least = _LEAST[name]
    if version < least:
        raise UsageProblem(
            f"{name} {programs.dotted(version)} is too old; {programs.dotted(least)} or newer is needed"
        )
    return Engine(name, str(shutil.which(name)), programs.dotted(version))


def _version(name: str) -> programs.Done:
    """Ask the engine itself, not its client alone."""
    what = "{{.Server.Version}}" if name == "docker" else "{{.Client.Version}}"
    done = programs.run([name, "version", "--format", what], within_s=_LOOK_S)
    if name == "podman" and done.ok:
        # Without a machine the client prints its version and fails only when asked to do something.
        return programs.run([name, "info", "--format", "{{.Version.Version}}"], within_s=_LOOK_S)
    return done
