"""The plan: what would be made, as CloudFormation itself lists it, what it costs, and what is odd.

A change set costs nothing, but AWS keeps an empty stack for each until it is deleted: their names and
tags are the run's, so a plan that is cut off is swept as a run is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pytest_pgo_eks.clusters.eks import prices, templates
from pytest_pgo_eks.clusters.eks.calls import Aws
from pytest_pgo_eks.clusters.eks.deadman import SCHEDULES
from pytest_pgo_eks.clusters.eks.deviations import deviations
from pytest_pgo_eks.clusters.eks.names import LAYERS, Names, tag_list
from pytest_pgo_eks.clusters.eks.templates import Choice
from pytest_pgo_eks.clusters.eks.wanted import Wanted
from pytest_pgo_eks.clusters.record import Cost
from pytest_pgo_eks.errors import ClusterProblem, UsageProblem
from pytest_pgo_eks.progress import Progress

_CHANGES = "plan"
_WITHIN_S = 300.0
_POLL_S = 3.0


def plan(
    aws: Aws,
    names: Names,
    wanted: Wanted,
    choice: Choice,
    progress: Progress,
    *,
    notes: list[str],
) -> str:
    """Return the plan as text; the change sets it was read from are deleted again.

    :raises ClusterProblem: CloudFormation does not accept a template.
    """
    now = aws.clock.wall()
    tags = names.tags(
        owner=choice.owner, created=now, expires=now + timedelta(hours=wanted.hours), commit=None
    )
    parameters = {
        "base": templates.base(names, wanted, choice, tags),
        "nodes": templates.nodes(
            names,
            wanted,
            choice,
            tags,
            outputs=templates.PLANNED_OUTPUTS,
            type_=choice.types[0],
        ),
        "addons": templates.addons(names, wanted, templates.PLANNED_OUTPUTS),
    }
    changes: dict[str, Counter[str]] = {}
    for layer in LAYERS:
        with progress.phase(f"change set of the {layer}"):
            changes[layer] = _changes(aws, names, layer, parameters[layer], tags)
    known = prices.Rates(choice.prices, choice.price_factor, choice.price_source)
    cost = prices.estimate(wanted, choice.types[0], known, extended=choice.extended)
    lines = [
        (
            f"plan of {names.cluster} in {choice.region} of account {choice.account}, "
            f"as {choice.runner}"
        ),
        "",
        f"  profile      {wanted.shape.name}",
        f"  Kubernetes   {choice.version}{' (extended support)' if choice.extended else ''}",
        f"  zones        {', '.join(choice.zones)}",
        (
            f"  nodes        {wanted.nodes} × {choice.types[0]} ({choice.architecture}), "
            f"{wanted.per_zone} in each zone, private"
        ),
        f"  fallback     {', '.join(choice.types[1:]) or 'none'}",
        (
            f"  network      {wanted.cidr}, {wanted.gateways} NAT "
            f"gateway{'s' if wanted.gateways > 1 else ''}"
        ),
        f"  API server   {_reach(wanted, choice)}",
        f"  CSI driver   {wanted.identity}",
        f"  pod logs     {'CloudWatch' if wanted.observability else 'in the cluster only'}",
        f"  removed by   AWS itself after {wanted.hours:g} hours, by {len(SCHEDULES)} schedules",
    ]
    for layer in LAYERS:
        lines += ["", f"  stack {names.stack(layer)}: {changes[layer].total()} resources"]
        lines += [f"    {count:>3} {kind}" for kind, count in sorted(changes[layer].items())]
    lines += ["", *_money(cost, wanted, choice, known)]
    lines += ["", "  deviations from the pattern's text:"]
    lines += [f"    {each.id:<4} {each.did}" for each in deviations(wanted.shape.name)]
    if notes:
        lines += ["", "  not known:", *(f"    {note}" for note in notes)]
    return "\n".join([*lines, "", "  nothing was created"])


def _reach(wanted: Wanted, choice: Choice) -> str:
    if wanted.private:
        return "private"
    return f"private, and public for {', '.join(choice.reached_by)}"


def _money(cost: Cost, wanted: Wanted, choice: Choice, known: prices.Rates) -> list[str]:
    lines = [f"  estimate of one night ({known.source}):"]
    lines += [f"    {line.usd:>7.2f} USD  {line.what}, {line.hours:g} h" for line in cost.lines]
    hourly = prices.hourly(wanted, choice.types[0], known)
    return [
        *lines,
        f"    {cost.usd:>7.2f} USD  together (at most {wanted.max_usd:g} is allowed)",
        f"    {hourly:>7.2f} USD  for each hour that it is forgotten",
    ]


def _changes(
    aws: Aws, names: Names, layer: str, parameters: Mapping[str, str], tags: Mapping[str, str]
) -> Counter[str]:
    """Return what CloudFormation would make of one template: how many of which type."""
    given = [{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()]
    made = aws.call(
        "cloudformation",
        "create_change_set",
        StackName=names.stack(layer),
        ChangeSetName=_CHANGES,
        ChangeSetType="CREATE",
        TemplateBody=templates.body(layer),
        Parameters=given,
        Capabilities=["CAPABILITY_IAM"],
        Tags=tag_list(tags),
    )
    try:
        return Counter(
            change["ResourceChange"]["ResourceType"] for change in _ready(aws, made["Id"])
        )
    finally:
        aws.call("cloudformation", "delete_change_set", ChangeSetName=made["Id"])
        aws.call("cloudformation", "delete_stack", StackName=made["StackId"])


def _ready(aws: Aws, arn: str) -> list[dict[str, Any]]:
    ends = aws.clock.now() + _WITHIN_S
    while True:
        found = aws.call("cloudformation", "describe_change_set", ChangeSetName=arn)
        if found["Status"] == "CREATE_COMPLETE":
            return list(
                aws.every("cloudformation", "describe_change_set", "Changes", ChangeSetName=arn)
            )
        if found["Status"] == "FAILED":
            raise UsageProblem(f"CloudFormation refuses the plan: {found.get('StatusReason')}")
        if aws.clock.now() >= ends:
            raise ClusterProblem(f"the change set is {found['Status']} after {_WITHIN_S:.0f} s")
        aws.clock.pause(_POLL_S)


def of_adoption(cluster: Mapping[str, Any], region: str) -> str:
    """Return the plan of a run on a cluster that exists."""
    return (
        f"plan: adopt {cluster['name']} in {region}, Kubernetes {cluster['version']}, "
        f"{cluster['status']}\n\n  nothing is created in AWS"
    )
