"""The client is killed before and after every call it makes: nothing may be left, ever."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from fakes.aws import FakeAws, World, ec2

from eks.lives import Life, remains
from pytest_pgo_eks.clusters.eks import removal, stacks
from pytest_pgo_eks.clusters.eks.names import moment
from pytest_pgo_eks.clusters.eks.sweeping import sweep


@dataclass(frozen=True)
class Point:
    """What AWS and the disk were when the client died at a call."""

    when: str
    call: tuple[str, str]
    world: World
    disk: bytes | None


class Reference:
    """One whole life, with the state of everything before and after each of its calls."""

    def __init__(self, place: Path) -> None:
        self.fake = FakeAws(check=False)
        self.life = Life(self.fake, place)
        self.fake.world.late_logs = True
        self.fake.world.leak_eni = True
        self.building: list[Point] = []
        self.removing: list[Point] = []
        self._points = self.building

    def live(self) -> None:
        self.fake.before = lambda *call: self._note("before", call)
        self.fake.after = lambda *call: self._note("after", call)
        self.life.build()
        self.grow_volumes(self.fake.world)
        self._points = self.removing
        assert self.life.remove() == []
        self.fake.before = self.fake.after = lambda *_call: None

    def grow_volumes(self, world: World) -> None:
        """What a claim leaves whose class retains it, and one that was snapshotted."""
        cluster = self.life.names.cluster
        owned = {f"kubernetes.io/cluster/{cluster}": "owned"}
        ec2.make_volume(world, owned, "us-east-1a", 10)
        csi = {"ebs.csi.aws.com/cluster-name": cluster}
        volume = ec2.make_volume(world, csi, "us-east-1b", 10)
        ec2.make(world, "snapshot", csi, VolumeId=volume["VolumeId"], State="completed")

    def _note(self, when: str, call: tuple[str, ...]) -> None:
        path = self.life.file.path
        disk = path.read_bytes() if path.exists() else None
        service, operation = call
        point = Point(when, (service, operation), self.fake.world.copy(), disk)
        self._points.append(point)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    with pytest.MonkeyPatch.context() as patch:
        # Fewer looks at the same stacks: the states they pass through are the same.
        patch.setattr(stacks, "POLL_S", 100.0)
        patch.setattr(removal, "_POLL_S", 30.0)
        found = Reference(tmp_path_factory.mktemp("reference"))
        found.live()
    return found


@pytest.fixture(autouse=True)
def long_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "POLL_S", 100.0)
    monkeypatch.setattr(removal, "_POLL_S", 30.0)


def distinct(points: list[Point]) -> list[Point]:
    """Return one point of each state: right after a call and right before the next the world, its
    clock and the disk are the same more often than not, and then so is what comes of it."""
    found: dict[tuple[int, float, bytes | None], Point] = {}
    for point in points:
        found.setdefault((point.world.changes, point.world.clock.passed_s, point.disk), point)
    return list(found.values())


def revive(reference: Reference, point: Point, place: Path) -> Life:
    """Return a new client in the world, and with the disk, of the moment when the old one died."""
    reference.fake.world = point.world.copy()
    life = Life(reference.fake, place)
    if point.disk is None:
        life.file.forget()
    else:
        life.file.path.parent.mkdir(parents=True, exist_ok=True)
        life.file.path.write_bytes(point.disk)
    return life


def test_the_matrix_is_what_it_says(reference: Reference) -> None:
    """Both paths in full: no call without a point before and after it."""
    for points in (reference.building, reference.removing):
        assert len(points) == 2 * sum(point.when == "before" for point in points)
    changing = {call for point in reference.building for call in [point.call]}
    assert ("cloudformation", "CreateStack") in changing
    assert ("scheduler", "CreateSchedule") in changing
    assert len(reference.building) >= 100
    assert len(reference.removing) >= 150
    print(
        f"{len(reference.building)} points of building ({len(distinct(reference.building))} states), "
        f"{len(reference.removing)} of removing ({len(distinct(reference.removing))} states)"
    )


def test_killed_while_building_it_goes_on_and_leaves_nothing(
    reference: Reference, tmp_path: Path
) -> None:
    for number, point in enumerate(distinct(reference.building)):
        life = revive(reference, point, tmp_path)
        life.build()
        states = [stack["status"] for stack in life.world.kind("stack").values()]
        assert states == ["CREATE_COMPLETE"] * 3, (number, point.when, point.call)
        assert len(life.world.kind("cluster")) == 1
        reference.grow_volumes(life.world)
        assert life.remove() == [], (number, point.when, point.call)
        assert remains(life.world) == [], (number, point.when, point.call)


def test_killed_while_building_it_is_removed_from_what_the_disk_says(
    reference: Reference, tmp_path: Path
) -> None:
    for number, point in enumerate(distinct(reference.building)):
        life = revive(reference, point, tmp_path)
        assert life.remove() == []
        assert remains(life.world) == [], (number, point.when, point.call)


def test_killed_while_removing_it_is_removed_again(reference: Reference, tmp_path: Path) -> None:
    for number, point in enumerate(distinct(reference.removing)):
        life = revive(reference, point, tmp_path)
        assert life.remove() == []
        assert remains(life.world) == [], (number, point.when, point.call)


@pytest.mark.parametrize("path", ["building", "removing"])
def test_killed_anywhere_another_machine_sweeps_it(
    reference: Reference, tmp_path: Path, path: str
) -> None:
    """Without the disk, by tags alone, once the run has expired."""
    for number, point in enumerate(distinct(getattr(reference, path))):
        life = revive(reference, point, tmp_path)
        life.file.forget()
        clock = life.world.clock
        clock.pause(timedelta(hours=6, minutes=1).total_seconds())
        outcome = sweep(life.aws(), life.told, really=True)
        assert all(left == [] for _, left in outcome)
        # What is made anew without a tag when all that had one is gone, nobody can know to be ours.
        rest = [each for each in remains(life.world) if not each.startswith("log-group ")]
        assert rest == [], (number, point.when, point.call)


def test_the_expiry_that_the_sweep_goes_by_is_that_of_the_tags(reference: Reference) -> None:
    tags = [
        stack["tags"]["pgo-eks/expires-at"]
        for point in reference.building
        for stack in point.world.kind("stack").values()
    ]
    assert tags
    assert all(moment(tag) is not None for tag in tags)
