"""Stands in for ``kind`` and ``docker``: notes every call, and refuses what the real ones have not.

Behind ``kind create cluster`` the stand-in cluster comes up, so that a run goes end to end. Where it
keeps its notes, and how it is to misbehave, is in the environment: FAKE_HOME, FAKE_KIND_VERSION,
FAKE_DOCKER_VERSION, FAKE_CREATE_ERROR, FAKE_CREATE_KILLS, FAKE_IMAGES.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

HOME = Path(os.environ["FAKE_HOME"])
LOCAL = (sys.executable, "-m", "pytest_pgo_eks.local")


class Strict(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        with (HOME / "refused").open("a", encoding="utf-8") as file:
            file.write(f"{sys.argv}: {message}\n")
        self.exit(97, f"unknown call: {message}\n")


def kind(arguments: list[str]) -> int:
    parser = Strict("kind", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("version")
    commands.add_parser("get").add_argument("what", choices=["clusters"])
    create = commands.add_parser("create", allow_abbrev=False)
    create.add_argument("what", choices=["cluster"])
    for flag in ("--name", "--config", "--kubeconfig", "--wait"):
        create.add_argument(flag, required=True)
    create.add_argument("--retain", action="store_true")
    create.add_argument("--image")
    load = commands.add_parser("load", allow_abbrev=False)
    load.add_argument("what", choices=["docker-image"])
    load.add_argument("image")
    load.add_argument("--name", required=True)
    export = commands.add_parser("export", allow_abbrev=False)
    export.add_argument("what", choices=["logs"])
    export.add_argument("folder")
    export.add_argument("--name", required=True)
    delete = commands.add_parser("delete", allow_abbrev=False)
    delete.add_argument("what", choices=["cluster"])
    delete.add_argument("--name", required=True)
    delete.add_argument("--kubeconfig", required=True)
    given = parser.parse_args(arguments)
    places = HOME / "clusters"
    match given.command:
        case "version":
            print(f"kind v{os.environ.get('FAKE_KIND_VERSION', '0.33.0')} go1.26.1 linux/amd64")
        case "get":
            for place in sorted(places.glob("*")):
                print(place.name)
        case "create":
            return made(given, places)
        case "export":
            folder = Path(given.folder)
            folder.mkdir(parents=True)
            (folder / "kubelet.log").write_text("what the node said\n", "utf-8")
        case "delete" if (places / given.name).exists():
            down = [*LOCAL, "down", "--state-dir", str(places / given.name / "state")]
            if (places / given.name / "state").exists():
                subprocess.run(down, check=True, stdout=subprocess.DEVNULL)
            shutil.rmtree(places / given.name)
            print(f'Deleted nodes: ["{given.name}-control-plane"]', file=sys.stderr)
    return 0


def made(given: argparse.Namespace, places: Path) -> int:
    shutil.copy(given.config, HOME / "kind.yaml")
    if error := os.environ.get("FAKE_CREATE_ERROR"):
        print(f"ERROR: failed to create cluster: {error}", file=sys.stderr)
        return 1
    place = places / given.name
    place.mkdir(parents=True)
    if os.environ.get("FAKE_CREATE_KILLS"):
        # Whoever waits for kind dies while kind is at work.
        os.kill(os.getppid(), signal.SIGKILL)
        return 0
    up = [*LOCAL, "up", "--name", given.name, "--state-dir", str(place / "state")]
    done = subprocess.run(up, check=False, capture_output=True, text=True)
    if done.returncode:
        print(f"ERROR: {done.stderr}", file=sys.stderr)
        return 1
    shutil.copy(place / "state" / "kubeconfig", given.kubeconfig)
    return 0


def docker(arguments: list[str]) -> int:
    parser = Strict("docker", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    version = commands.add_parser("version", allow_abbrev=False)
    formats = {"docker": "{{.Server.Version}}", "podman": "{{.Client.Version}}"}
    version.add_argument("--format", required=True, choices=[formats[Path(sys.argv[1]).name]])
    info = commands.add_parser("info", allow_abbrev=False)
    info.add_argument("--format", required=True, choices=["{{.Version.Version}}"])
    image = commands.add_parser("image", allow_abbrev=False)
    image.add_argument("what", choices=["inspect"])
    image.add_argument("--format", required=True)
    image.add_argument("name")
    remove = commands.add_parser("rm", allow_abbrev=False)
    remove.add_argument("--force", action="store_true", required=True)
    remove.add_argument("--volumes", action="store_true", required=True)
    remove.add_argument("name")
    inspect = commands.add_parser("inspect", allow_abbrev=False)
    inspect.add_argument("--format", required=True)
    inspect.add_argument("name")
    given = parser.parse_args(arguments)
    if given.command in ("rm", "inspect"):
        return container(given)
    if given.command in ("version", "info"):
        found = os.environ.get("FAKE_DOCKER_VERSION", "29.0.1")
        if found == "down":
            print("Cannot connect to the Docker daemon: no such file", file=sys.stderr)
            return 1
        print(found)
        return 0
    if given.name in os.environ.get("FAKE_IMAGES", "").split(","):
        print("sha256:" + "0" * 64)
        return 0
    print(f"Error response from daemon: No such image: {given.name}", file=sys.stderr)
    return 1


def container(given: argparse.Namespace) -> int:
    """Remove or look at a container that the fake engine's API made."""
    place = HOME / "containers" / given.name
    if not place.exists():
        print(f"Error response from daemon: No such container: {given.name}", file=sys.stderr)
        return 1
    if given.command == "rm":
        down = [*LOCAL, "down", "--state-dir", str(place / "state")]
        subprocess.run(down, check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(place)
    print(given.name)
    return 0


def main() -> int:
    program, arguments = Path(sys.argv[1]).name, sys.argv[2:]
    with (HOME / "calls").open("a", encoding="utf-8") as file:
        file.write(json.dumps([program, *arguments]) + "\n")
    return {"kind": kind, "docker": docker, "podman": docker}[program](arguments)


if __name__ == "__main__":
    sys.exit(main())
