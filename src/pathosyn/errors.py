"""What a user did that we cannot work with, said in one line a fault."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with the input.

    `where` is a file, a subject or a flag; `found` and `expected` finish the sentence
    "found …, expected …"; `remedy` is an instruction ("give …", "run …").
    """

    where: str
    found: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        line = f"{self.where}: found {self.found}; expected {self.expected}; {self.remedy}"
        return " ".join(line.split())  # a name with a newline must not break "one line a fault"


class InputError(Exception):
    """Bad input. Carries every fault found, so that a user mends all of them in one go; the command line exits with 2."""

    def __init__(self, faults: Fault | Iterable[Fault]) -> None:
        self.faults: Sequence[Fault] = (faults,) if isinstance(faults, Fault) else tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


def refuse(where: object, *, found: str, expected: str, remedy: str) -> InputError:
    """The common case, one fault: `raise refuse(path, found=…, expected=…, remedy=…)`."""
    return InputError(Fault(str(where), found, expected, remedy))
