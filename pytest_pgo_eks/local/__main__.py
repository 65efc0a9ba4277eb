"""``python -m pytest_pgo_eks.local``: see :mod:`pytest_pgo_eks.local.commands`."""

from __future__ import annotations

import os
import sys


def main() -> int:
    if not sys.platform.startswith("linux"):
        print(
            "the stand-in cluster needs Linux: use --cluster=kind, k3s, kubeconfig or eks here",
            file=sys.stderr,
        )
        return 4
    try:
        # Only Linux has the modules that these import.
        from pytest_pgo_eks.local import commands

        return commands.main()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output went away; the interpreter's own flush must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
