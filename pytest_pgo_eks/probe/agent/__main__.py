"""Entry point of the package, and of the zip file that is made of it."""

import sys

from . import light


def start() -> int:
    """Run what the command line says; only what needs the whole agent imports it."""
    if (status := light.main(sys.argv[1:])) is not None:
        return status
    from .main import main

    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(start())
