"""pathosyn demo."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import tyro


@dataclasses.dataclass(frozen=True)
class DemoVerb:
    """Everything on built-in data: phantoms, prepare, train, insert, heal, and a page with pictures. Minutes on two cores.

    The same command again keeps what is finished. For research only, not for diagnosis: what it writes is synthetic.
    """

    out: Path = Path("demo")
    """Folder for everything; new, empty, or of an earlier demo."""
    seed: int = 0
    """Of the phantoms, the split, the training and the lesions."""
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def run(self) -> int:
        """The last line is the report's path."""
        from pathosyn.demo.run import demo

        demo(self.out, seed=self.seed, device=self.device)
        return 0


def parse(arguments: list[str]) -> DemoVerb:
    """From the command line."""
    return tyro.cli(DemoVerb, args=arguments, prog="pathosyn demo")
