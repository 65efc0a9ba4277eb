"""List-append histories for the tests: from short descriptions, from a serial model, and at random."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from pytest_pgo_eks.history.history import OK, TXN, History, Table

MS = 1_000_000
Step = tuple[str, int, int | list[int]]
"""("a", key, value) or ("r", key, [elements])"""


@dataclass
class Txn:
    steps: list[Step]
    outcome: int = OK
    invoke: int = 0
    done: int = 0


@dataclass
class Lists:
    """Transactions in the order of their numbers."""

    txns: list[Txn] = field(default_factory=list)

    def add(self, *steps: Step, outcome: int = OK, invoke: int = 0, done: int = 0) -> Txn:
        """Add a transaction; without times it overlaps everything."""
        txn = Txn(list(steps), outcome, invoke or 1, done or 10**15 + len(self.txns))
        self.txns.append(txn)
        return txn

    def history(self) -> History:
        ops: list[dict[str, int]] = []
        micro: list[dict[str, int]] = []
        elements: list[dict[str, int]] = []
        for op, txn in enumerate(self.txns, 1):
            ops.append(
                {
                    "op": op,
                    "kind": TXN,
                    "outcome": txn.outcome,
                    "invoke": txn.invoke,
                    "done": txn.done,
                    "sent": txn.invoke,
                }
            )
            for at, (what, key, value) in enumerate(txn.steps):
                row = {"op": op, "at": at, "key": key}
                if what == "a":
                    assert isinstance(value, int)
                    micro.append(row | {"kind": 0, "value": value, "count": 0})
                else:
                    assert isinstance(value, list)
                    micro.append(row | {"kind": 1, "count": len(value)})
                    elements.extend({"value": v} for v in value)
        return History(
            ops=Table.rows("ops", ops),
            micro=Table.rows("micro", micro),
            elements=Table.rows("elements", elements),
        )


def serial(seed: int, *, length: int = 40, keys: int = 6) -> Lists:
    """Return a strictly serializable run: every transaction happens at one moment in its span."""
    chance = random.Random(seed)
    state: dict[int, list[int]] = {k: [] for k in range(keys)}
    fresh = itertools.count(1)
    out = Lists()
    for number in range(length):
        moment = (number + 1) * 10 * MS
        steps: list[Step] = []
        for key in chance.sample(range(keys), chance.randrange(1, 4)):
            for _ in range(chance.randrange(1, 3)):
                if chance.random() < 0.5:
                    value = next(fresh)
                    state[key].append(value)
                    steps.append(("a", key, value))
                else:
                    steps.append(("r", key, list(state[key])))
        out.add(
            *steps,
            invoke=moment - chance.randrange(1, 25) * MS,
            done=moment + chance.randrange(1, 25) * MS,
        )
    return out


def scrambled(chance: random.Random, *, txns: int = 5, keys: int = 3) -> Lists:
    """Return transactions that read arbitrary prefixes of arbitrary orders: any graph can come out."""
    out = Lists()
    fresh = itertools.count(1)
    plans: list[list[Step]] = [[] for _ in range(txns)]
    order: dict[int, list[int]] = {k: [] for k in range(keys)}
    for key in range(keys):
        for txn in chance.sample(range(txns), chance.randrange(1, txns + 1)):
            value = next(fresh)
            order[key].append(value)
            plans[txn].append(("a", key, value))
    for txn in range(txns):
        for key in range(keys):
            if chance.random() < 0.5 and not any(s[1] == key for s in plans[txn]):
                cut = chance.randrange(len(order[key]) + 1)
                plans[txn].append(("r", key, order[key][:cut]))
        chance.shuffle(plans[txn])
    for key in range(keys):  # somebody knows the whole order
        out.add(("r", key, list(order[key])))
    for steps in plans:
        out.add(*steps)
    return out


def reference(lists: Lists) -> list[set[str]]:
    """Return the names that each component deserves, by closure of relations: no search, no NumPy.

    Only for histories without broken reads. Components come in no particular order.
    """
    ww, wr, rw = _relations(lists)
    count = len(lists.txns)
    dep = _union(ww, wr)
    every = _closed(_union(dep, rw))
    seen: set[int] = set()
    out = []
    for i in range(count):
        if i in seen or not every[i][i]:
            continue
        members = {j for j in range(count) if every[i][j] and every[j][i]}
        seen |= members
        out.append(_names(members, ww, wr, rw))
    return out


Relation = list[list[bool]]


def _relations(lists: Lists) -> tuple[Relation, Relation, Relation]:
    order: dict[int, list[int]] = {}
    writer: dict[int, int] = {}
    reads: list[tuple[int, int, list[int]]] = []
    for number, txn in enumerate(lists.txns):
        for _, key, value in txn.steps:
            if isinstance(value, int):
                writer[value] = number
            else:
                reads.append((number, key, value))
                order[key] = max(order.get(key, []), value, key=len)
    count = len(lists.txns)
    ww, wr, rw = ([[False] * count for _ in range(count)] for _ in range(3))
    for versions in order.values():
        for one, two in itertools.pairwise(versions):
            ww[writer[one]][writer[two]] = True
    for number, key, value in reads:
        if value:
            wr[writer[value[-1]]][number] = True
        if len(value) < len(order[key]):
            rw[number][writer[order[key][len(value)]]] = True
    for relation in (ww, wr, rw):
        for i in range(count):
            relation[i][i] = False
    return ww, wr, rw


def _names(members: set[int], ww: Relation, wr: Relation, rw: Relation) -> set[str]:
    ww, wr, rw = (_within(r, members) for r in (ww, wr, rw))
    dep = _union(ww, wr)
    reach = _closed(dep)
    found = set()
    if any(_closed(ww)[i][i] for i in members):
        found.add("G0")
    if any(wr[i][j] and (reach[j][i] or i == j) for i in members for j in members):
        found.add("G1c")
    if any(rw[i][j] and reach[j][i] for i in members for j in members):
        found.add("G-single")
    if found:
        return found
    step = _union(dep, _after(dep, rw))
    if any(_closed(step)[i][i] for i in members):
        return {"G-nonadjacent"}
    return {"G2-item"}


def _within(relation: Relation, members: set[int]) -> Relation:
    span = range(len(relation))
    return [[relation[i][j] and i in members and j in members for j in span] for i in span]


def _union(one: Relation, two: Relation) -> Relation:
    return [[a or b for a, b in zip(x, y, strict=True)] for x, y in zip(one, two, strict=True)]


def _after(one: Relation, two: Relation) -> Relation:
    span = range(len(one))
    return [[any(one[i][k] and two[k][j] for k in span) for j in span] for i in span]


def _closed(relation: Relation) -> Relation:
    out = [row[:] for row in relation]
    span = range(len(out))
    for k in span:
        for i in span:
            if out[i][k]:
                for j in span:
                    if out[k][j]:
                        out[i][j] = True
    return out


# -- planted anomalies, on keys and values of their own

PLANTS: dict[str, Sequence[tuple[tuple[Step, ...], int]]] = {
    "G0": [
        ((("a", 90, 901), ("a", 91, 912)), OK),
        ((("a", 90, 902), ("a", 91, 911)), OK),
        ((("r", 90, [901, 902]), ("r", 91, [911, 912])), OK),
    ],
    "G1a": [((("a", 90, 901),), 2), ((("r", 90, [901]),), OK)],
    "G1b": [
        ((("a", 90, 901), ("a", 90, 902)), OK),
        ((("r", 90, [901]),), OK),
        ((("r", 90, [901, 902]),), OK),
    ],
    "G1c": [
        ((("a", 90, 901), ("r", 91, [911])), OK),
        ((("a", 91, 911), ("r", 90, [901])), OK),
    ],
    "G-single": [
        ((("r", 90, []), ("r", 91, [911])), OK),
        ((("a", 90, 901), ("a", 91, 911)), OK),
        ((("r", 90, [901]),), OK),
    ],
    "G-nonadjacent": [
        ((("a", 90, 901),), OK),
        ((("a", 91, 911),), OK),
        ((("r", 90, [901]), ("r", 91, [])), OK),
        ((("r", 90, []), ("r", 91, [911])), OK),
    ],
    "G2-item": [
        ((("r", 90, []), ("a", 91, 911)), OK),
        ((("r", 91, []), ("a", 90, 901)), OK),
        ((("r", 90, [901]), ("r", 91, [911])), OK),
    ],
    "garbage": [((("r", 90, [999]),), OK)],
    "duplicate": [((("a", 90, 901),), OK), ((("r", 90, [901, 901]),), OK)],
    "incompatible-order": [
        ((("a", 90, 901),), OK),
        ((("a", 90, 902),), OK),
        ((("r", 90, [901, 902]),), OK),
        ((("r", 90, [902]),), OK),
    ],
    "internal": [((("a", 90, 901), ("r", 90, [])), OK), ((("r", 90, [901]),), OK)],
}


def plant(lists: Lists, name: str, chance: random.Random) -> None:
    """Put the transactions of one anomaly at random places, all of them overlapping each other."""
    begin = chance.randrange(1, 300) * MS
    for steps, outcome in PLANTS[name]:
        txn = Txn(list(steps), outcome, begin, begin + 5 * MS + chance.randrange(100))
        lists.txns.insert(chance.randrange(len(lists.txns) + 1), txn)
