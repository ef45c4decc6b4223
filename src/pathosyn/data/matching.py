"""A SyntheticSet and the slices file that it was drawn on."""

from __future__ import annotations

from pathlib import Path

from pathosyn.data.population import fingerprint
from pathosyn.data.slices import Slices
from pathosyn.data.synthetic import SyntheticSet
from pathosyn.errors import refuse


def matching(data: str | Path, drawn: SyntheticSet) -> Slices:
    """The slices that a set was drawn on. InputError where the data is another."""
    slices = Slices(data, drawn.origin.partition, contrasts=drawn.origin.contrasts, every=False)
    if fingerprint(slices) != drawn.origin.data:
        raise refuse(drawn.folder, found="a set drawn on other data", expected=f"one drawn on {data}", remedy="give the slices file that it was drawn on")
    return slices


def beside_real(data: str | Path, drawn: SyntheticSet) -> Slices:
    """As `matching`, for sets whose lesions each stand beside a real one. InputError where some do not."""
    if (drawn.rows["row"] < 0).any():
        found, expected = "lesions on slices that have none", "drawn lesions that stand beside a real one"
        raise refuse(drawn.folder, found=found, expected=expected, remedy="draw the set that is to be judged with --anatomy own or other")
    return matching(data, drawn)
