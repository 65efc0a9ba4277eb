"""Make the environment that runs this see the checkout's package, plugin entry point included.

An editable install needs a build backend and network; what it leaves behind is a path file and the
distribution's metadata, and those two are written here. So features/ and fixtures/ are live.
"""

from __future__ import annotations

import sysconfig
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Write the path file and the metadata into this interpreter's site-packages."""
    site = Path(sysconfig.get_path("purelib"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    version = _version()
    (site / "pytest_pgo_eks_checkout.pth").write_text(f"{ROOT}\n", "utf-8")
    for old in site.glob("pytest_pgo_eks-*.dist-info"):
        for file in old.iterdir():
            file.unlink()
        old.rmdir()
    info = site / f"pytest_pgo_eks-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {version}\n", "utf-8"
    )
    points = project["entry-points"]["pytest11"]
    (info / "entry_points.txt").write_text(
        "[pytest11]\n" + "".join(f"{name} = {module}\n" for name, module in points.items()), "utf-8"
    )
    (info / "INSTALLER").write_text("checkout\n", "utf-8")
    (info / "RECORD").write_text("", "utf-8")


def _version() -> str:
    found: dict[str, str] = {}
    exec((ROOT / "pytest_pgo_eks/__init__.py").read_text("utf-8"), found)  # noqa: S102 - our own file
    return found["__version__"]


if __name__ == "__main__":
    main()
