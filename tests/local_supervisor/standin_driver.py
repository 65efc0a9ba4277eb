"""``up`` with an assembly of the tests: the same code as the command line from the request on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pytest_pgo_eks.local import commands, launch


def main() -> int:
    start = launch.start

    def with_assembly(request: launch.Request, say: Callable[[str], None]) -> dict[str, Any]:
        return start(replace(request, assembly=sys.argv[1]), say)

    launch.start = with_assembly
    return commands.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
