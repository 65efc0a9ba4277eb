"""What the probe recorded, as NumPy columns, and the pure functions that judge it.

``History.load(file)`` or ``History.of(lines)``; then :mod:`.outage`, :mod:`.writes`,
:mod:`.primaries`, :mod:`.reads`, :mod:`.isolation` turn it into findings. ``python -m
pytest_pgo_eks.history FILE`` judges and draws a recorded history again.
"""

from pytest_pgo_eks.history.history import History

__all__ = ["History"]
