"""One request to one resource, taken apart: what the verbs need to know about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_pgo_eks.local.apiserver import problems
from pytest_pgo_eks.local.apiserver.authentication import ANONYMOUS, Identity
from pytest_pgo_eks.local.apiserver.ownership import Writer
from pytest_pgo_eks.local.apiserver.resources import Resource


@dataclass
class Call:
    """A request about ``resource``. ``warnings`` go back in ``Warning`` headers."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    who: Identity = ANONYMOUS
    agent: str = ""
    warnings: list[str] = field(default_factory=list)

    @property
    def dry_run(self) -> bool:
        """:raises Problem: 400 for anything but ``All``."""
        found = self.query.get("dryRun")
        if found not in (None, "All"):
            raise problems.bad_request(f'invalid dryRun: Unsupported value: "{found}"')
        return found == "All"

    @property
    def manager(self) -> str:
        """Return the field manager: the one given, else the first word of the user agent."""
        return self.query.get("fieldManager") or self.agent.split("/", 1)[0][:128] or "unknown"

    @property
    def writer(self) -> Writer:
        door = self.subresource if self.subresource in {"status", "scale"} else ""
        return Writer(self.manager, self.resource.api_version, door)

    @property
    def strict(self) -> bool:
        return self.query.get("fieldValidation") == "Strict"

    @property
    def silent(self) -> bool:
        return self.query.get("fieldValidation") == "Ignore"

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() in {"true", "1"}

    def number(self, name: str) -> int | None:
        """Return a query parameter that must be an integer.

        :raises Problem: 400 when it is none.
        """
        found: Any = self.query.get(name)
        if found in (None, ""):
            return None
        try:
            return int(found)
        except ValueError:
            raise problems.bad_request(
                f'strconv.ParseInt: parsing "{found}": invalid syntax'
            ) from None

    def not_found(self, name: str = "") -> problems.Problem:
        return problems.not_found(self.resource.group, self.resource.plural, name or self.name)
