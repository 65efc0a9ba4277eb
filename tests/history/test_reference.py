"""The checkers of writes against plain loops, on arbitrary small histories."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_pgo_eks.history.history import (
    FAIL,
    INFO,
    OK,
    READ,
    UNSAFE,
    WRITE,
    History,
    Table,
)
from pytest_pgo_eks.history.primaries import check_overlap, check_twin_values
from pytest_pgo_eks.history.reads import check_monotonic, staleness
from pytest_pgo_eks.history.writes import (
    check_counters,
    check_lost,
    check_present,
    commit_upper_bound,
    lost,
)

Row = dict[str, int]

_op = st.fixed_dictionaries(
    {
        "invoke": st.integers(0, 40),
        "took": st.integers(1, 15),
        "value": st.integers(1, 6),
        "lsn": st.integers(1, 60),
        "timeline": st.integers(1, 3),
        "key": st.integers(-1, 2),
        "outcome": st.sampled_from([OK, OK, OK, UNSAFE, FAIL, INFO]),
        "level": st.sampled_from([4, 4, 4, 1]),
    }
)


def _history(ops: list[Row], rows: list[Row]) -> History:
    told = [
        {"op": i + 1, "kind": WRITE, "path": 1, "done": o["invoke"] + o["took"], **o}
        for i, o in enumerate(ops)
    ]
    event = {"kind": "read-back", "at": 1, "source": 1, "in_recovery": False, "timeline": 3}
    counters = [{"op": 0, "key": 0, "value": sum(r["key"] == 0 for r in rows)}]
    return History(
        ops=Table.rows("ops", told),
        rows=Table.rows("rows", [{"source": 1} | r for r in rows + counters]),
        events=(event,),
        paths={1: "p"},
    )


@st.composite
def _runs(draw: st.DrawFn) -> tuple[list[Row], list[Row]]:
    """Draw operations, and rows of which most fit them and some do not."""
    ops = draw(st.lists(_op, max_size=14))
    rows: list[Row] = []
    for number, op in enumerate(ops, 1):
        for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2]))):
            wrong = draw(st.integers(0, 9)) == 0
            row = {name: op[name] for name in ("value", "lsn", "timeline", "key")}
            rows.append({"op": number, **row, "value": op["value"] + wrong})
    if draw(st.booleans()):
        rows.append({"op": 99, "key": 1, "value": 1, "lsn": 1, "timeline": 1})
    return ops, rows


def _promised(ops: list[Row]) -> list[int]:
    return [i for i, o in enumerate(ops) if o["outcome"] == OK and o["level"] not in {1, 2}]


@settings(max_examples=50, deadline=None)
@given(_runs())
def test_writes_are_judged_as_plain_loops_judge_them(run: tuple[list[Row], list[Row]]) -> None:
    ops, rows = run
    history = _history(ops, rows)
    (source,) = history.sources.values()
    present = {r["op"] for r in rows}
    gone = {i for i in _promised(ops) if i + 1 not in present}
    assert set(lost(history, source).tolist()) == gone
    findings = {f.rule: f for f in check_present(history) + check_lost(history, allowed=False)}
    count = [r["op"] for r in rows]
    expected = {
        "no-write-from-nowhere": sum(r["op"] > len(ops) for r in rows),
        "no-failed-write-present": sum(
            r["op"] <= len(ops) and ops[r["op"] - 1]["outcome"] == FAIL for r in rows
        ),
        "value-as-acknowledged": sum(
            r["op"] <= len(ops)
            and ops[r["op"] - 1]["outcome"] == OK
            and ops[r["op"] - 1]["value"] != r["value"]
            for r in rows
        ),
        "no-write-twice": sum(count.count(op) > 1 for op in count),
    }
    for rule, bad in expected.items():
        assert findings[rule].numbers["bad"] == bad, rule
        assert (findings[rule].outcome == "violated") == bool(bad)
    if gone:
        broken = 0
        for i in gone:
            later = [
                o["lsn"]
                for o in ops
                if o["timeline"] == ops[i]["timeline"]
                and o["outcome"] in {OK, UNSAFE}
                and o["invoke"] > ops[i]["invoke"] + ops[i]["took"]
            ]
            last = max((r["lsn"] for r in rows if r["timeline"] == ops[i]["timeline"]), default=0)
            broken += bool(later) and min(later) <= last
        assert findings["loss-is-a-suffix"].numbers["before_a_survivor"] == broken


@settings(max_examples=50, deadline=None)
@given(st.lists(_op, max_size=14))
def test_primaries_are_judged_as_plain_loops_judge_them(ops: list[Row]) -> None:
    history = _history(ops, [])
    twins: dict[tuple[int, int], int] = {}
    for i in _promised(ops):
        if ops[i]["key"] >= 0:
            pair = (ops[i]["key"], ops[i]["value"])
            twins[pair] = twins.get(pair, 0) + 1
    found = check_twin_values(history, allowed=False)
    assert found.numbers["twins"] == sum(n - 1 for n in twins.values())
    acknowledged = [o for o in ops if o["outcome"] == OK]
    late = 0
    for newer in sorted({o["timeline"] for o in acknowledged})[1:]:
        first = min(o["invoke"] + o["took"] for o in acknowledged if o["timeline"] == newer)
        late += sum(o["timeline"] < newer and o["invoke"] > first for o in acknowledged)
    assert check_overlap(history).numbers["acknowledged_on_old"] == late


@settings(max_examples=50, deadline=None)
@given(st.lists(_op, max_size=12))
def test_a_counter_steps_back_exactly_when_an_acknowledged_value_is_told_again(
    ops: list[Row],
) -> None:
    """One writer per counter: its operations do not overlap."""
    at = 0
    for op in ops:
        op["invoke"], at = at, at + op["took"] + 1
    history = _history(ops, [])
    steps = set()
    for key in {o["key"] for o in ops if o["key"] >= 0}:
        last: tuple[int, int] | None = None
        reported = None
        for i, op in enumerate(ops):
            if op["key"] != key or op["outcome"] not in {OK, UNSAFE}:
                continue
            if last is not None and op["value"] <= last[1] and reported != last[0]:
                steps.add((last[0], i))
                reported = last[0]
            if i in _promised(ops):
                last = (i, op["value"])
    assert check_counters(history, allowed=False).numbers["steps_back"] == len(steps)


@settings(max_examples=40, deadline=None)
@given(st.lists(_op, min_size=1, max_size=12))
def test_the_bound_of_a_commit_is_the_smallest_position_read_later(ops: list[Row]) -> None:
    history = _history(ops, [])
    everything = history.ops.op.astype(int) - 1
    bounds = commit_upper_bound(history, everything).tolist()
    for op, bound in zip(ops, bounds, strict=True):
        later = [
            o["lsn"]
            for o in ops
            if o["timeline"] == op["timeline"]
            and o["outcome"] in {OK, UNSAFE}
            and o["invoke"] > op["invoke"] + op["took"]
        ]
        assert bound == min(later, default=2**64 - 1)


_read = st.fixed_dictionaries(
    {
        "invoke": st.integers(0, 30),
        "took": st.integers(1, 12),
        "server": st.integers(1, 2),
        "one": st.integers(0, 5),
        "two": st.integers(0, 5),
    }
)


@settings(max_examples=50, deadline=None)
@given(st.lists(_read, max_size=12), st.lists(_op, max_size=8))
def test_reads_are_judged_as_plain_loops_judge_them(reads: list[Row], writes: list[Row]) -> None:
    ops = [
        {"op": i + 1, "kind": READ, "path": 1, "done": r["invoke"] + r["took"], **r}
        for i, r in enumerate(reads)
    ]
    ops += [
        {"op": 100 + i, "kind": WRITE, "path": 1, "done": w["invoke"] + w["took"], **w}
        for i, w in enumerate(writes)
    ]
    for op in ops:
        op.pop("took", None)
    cells = [
        {"op": i + 1, "key": key, "value": r[name]}
        for i, r in enumerate(reads)
        for key, name in ((0, "one"), (1, "two"))
    ]
    plain = [{k: v for k, v in op.items() if k not in {"one", "two"}} for op in ops]
    history = History(
        ops=Table.rows("ops", plain), cells=Table.rows("cells", cells), paths={1: "p"}
    )
    back = sum(
        any(
            other["server"] == r["server"]
            and other["invoke"] + other["took"] < r["invoke"]
            and other[name] > r[name]
            for other in reads
            for name in ("one", "two")
        )
        for r in reads
    )
    found = check_monotonic(history)
    assert found.outcome == ("unknown" if not reads else "violated" if back else "holds")
    assert found.numbers["steps_back"] == back
    stale = staleness(history)
    for position, index in enumerate(stale.index.tolist()):
        r = reads[int(history.ops.op[index]) - 1]
        missed, since = 0, 0
        for key, name in ((0, "one"), (1, "two")):
            before = [
                w
                for w in writes
                if w["key"] == key
                and w["outcome"] in {OK, UNSAFE}
                and w["invoke"] + w["took"] < r["invoke"]
            ]
            above = [w for w in before if w["value"] > r[name]]
            if above:
                missed = max(missed, max(w["value"] for w in above) - r[name])
                first = min(w["invoke"] + w["took"] for w in above)
                since = max(since, r["invoke"] - first)
        assert stale.versions[position] == missed
        assert round(stale.age_s[position] * 1e9) == since
