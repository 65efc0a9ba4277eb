"""The operator of a run: what is refused beforehand, what the cluster can do with it, what is forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_pgo_eks.clusters.base import ClusterHandle
from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.pgo.install import Installed
from pytest_pgo_eks.pgo.install.installing import Made
from pytest_pgo_eks.progress import silent
from pytest_pgo_eks.session import operators
from pytest_pgo_eks.settings import Settings
from pytest_pgo_eks.settings_install import InstallSettings


def settings(**given: Any) -> Settings:
    more = {name: given.pop(name) for name in ("adopt",) if name in given}
    return Settings("kubeconfig", install=InstallSettings(**given), **more)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"source": "stand-in:6.0", "adopt": "ns/name"}, "exclude each other"),
        ({"images": "operator=x"}, "--pgo-images changes an operator that is installed"),
        ({"annotations": "a=b"}, "--pgo-operator-annotations changes an operator"),
        ({"source": "/no/such/place"}, "there is no such file"),
        ({"upgrade_to": "/no/such/place"}, "there is no such file"),
        ({"source": "stand-in:6.0", "images": "odd=x"}, "knows no image 'odd'"),
    ],
)
def test_what_cannot_be_installed_is_refused_before_anything_is_made(
    given: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageProblem, match=said):
        operators.refuse(settings(**given))


def test_nothing_is_refused_where_nothing_is_asked_for() -> None:
    operators.refuse(settings())
    operators.refuse(settings(source="installed"))
    operators.refuse(settings(source="stand-in:5.8", upgrade_to="stand-in:6.0"))


def test_an_upgrade_is_possible_where_its_goal_is_named() -> None:
    handle = ClusterHandle("c", "kubeconfig", Path("k"))
    without = operators.with_chosen(handle, settings())
    assert "operator-upgrade" not in without.capabilities
    assert "--pgo-upgrade-to" in without.lacks["operator-upgrade"]
    given = operators.with_chosen(handle, settings(upgrade_to="stand-in:6.0"))
    assert "operator-upgrade" in given.capabilities


def test_a_cluster_that_goes_takes_its_operator_along(tmp_path: Path) -> None:
    record = operators.record_of(tmp_path / "run.json")
    made = Installed((Made("Namespace", "n", None, "u"),), "/no/such/kubeconfig")
    made.write(record)
    assert Installed.read(record) == made
    assert operators.remove(record, "kind", silent()) == []
    assert not record.exists()
    assert operators.remove(record, "kubeconfig", silent()) == []
