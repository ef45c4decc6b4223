"""pathosyn generate."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from pathosyn.cli.limits import outside
from pathosyn.cli.sources import use_threads
from pathosyn.errors import InputError


@dataclasses.dataclass(frozen=True)
class GenerateVerb:
    """Draw a set of lesions, by a method or one of the controls, on the lesion windows of prepared data."""

    data: Path
    """File that `pathosyn prepare` wrote."""
    out: Path
    """Folder for the set: a new one, or an older set, which is replaced."""
    weights: Path | None = None
    """Weight file or name; the shipped weights if not given."""
    method: str = "pathosyn"
    """Whose weights these are: pathosyn, vaegan, brain-ldm, maskdiff-inpaint, meta-auto or difference-gan; or a control: real, substrate, blurred, gaussian,
    permuted, copy-paste; or conventional (flips, turns, brightness …), or none, an empty set."""
    purpose: Literal["train", "evaluate"] = "evaluate"
    """train: from training subjects only. evaluate: from validation or test subjects only."""
    partition: Literal["train", "validation", "test"] | None = None
    """Whose scans and masks; validation for evaluate, train for train if not given."""
    per_lesion: int = 1
    """Draws on each lesion window."""
    per_subject: int = 0
    """At most this many windows of a subject, evenly spread; 0: all."""
    seed: int = 0
    steps: int | None = None
    """Network calls; the weights' own number if not given."""
    masks: Literal["own", "sampled"] = "own"
    """own: each lesion's own. sampled: shapes of training lesions, changed and placed where lesions lie."""
    anatomy: Literal["own", "other", "healthy"] = "own"
    """With sampled masks. own: slices of the same subject, its lesion taken out. other: of another subject. healthy: slices without a lesion."""
    shift_mm: tuple[float, float] = (0.0, 0.0)
    """Move own masks, mm to the right and to the front of the slice as it is stored."""
    extent_mm: float = 0.0
    """Grow (or shrink, below 0) own masks by so much all around."""
    severity: float = 1.0
    """0: no lesion, 1: as trained, 2: twice the deviation."""
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    devices: int = 1
    """Processes, or GPUs, that share the work on each node; the set is the same."""
    nodes: int = 1
    """Machines that share it."""
    backend: Literal["torch", "onnxruntime"] = "torch"
    """What runs the networks. onnxruntime: faster on a CPU, after a few seconds for translating them; pip install 'pathosyn[onnxruntime]'"""
    reconstruct: bool = False
    """The given scans through the method's own code and back, instead of a draw: what its code can hold. Not of methods without a code."""
    export: Literal["nnunet", "bids", "png"] | None = None
    """Write the set in this layout, too, beside it (`pathosyn export` has more flags)."""
    threads: int = 0
    """CPU threads; 0: as many as torch sees fit."""

    def run(self) -> int:
        """Prints what was written."""
        from pathosyn.cohort.placing import Wish
        from pathosyn.generate import generate
        from pathosyn.optim import first_process
        from pathosyn.weights import find

        if faults := [f for name in ("seed", "per_lesion", "per_subject", "severity", "devices", "nodes") for f in outside(name, getattr(self, name))]:
            raise InputError(faults)
        use_threads(self.threads)
        partition = self.partition or ("train" if self.purpose == "train" else "validation")
        folder = generate(
            self.data,
            self.out,
            find(self.weights),
            method=self.method,
            purpose=self.purpose,
            partition=partition,
            per_lesion=self.per_lesion,
            per_subject=self.per_subject,
            seed=self.seed,
            steps=self.steps,
            severity=self.severity,
            reconstruct=self.reconstruct,
            wish=Wish(self.masks, self.anatomy, self.extent_mm, self.shift_mm),
            device=self.device,
            devices=self.devices,
            nodes=self.nodes,
            backend=self.backend,
        )
        if not first_process():
            return 0
        print(f"set: {folder}")
        if self.export:
            from pathosyn.export import export

            made = export([folder], self.data, self.export, folder.with_name(f"{folder.name}-{self.export}"))
            print(f"{self.export}: {made}")
        elif self.method == "none":
            print("an empty set: what is compared with it trains on real lesions alone")
        elif self.purpose == "train":
            print(f"next: pathosyn export {folder} --data {self.data} --to nnunet --out DIR")
        else:
            print(f"next: pathosyn evaluate realism --real {self.data} --synthetic NAME={folder} --out DIR")
        return 0


def parse(arguments: list[str]) -> GenerateVerb:
    """From the command line."""
    return tyro.cli(GenerateVerb, args=arguments, prog="pathosyn generate")
