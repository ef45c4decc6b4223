"""Everything once, with no data at hand: phantoms, prepare, train, insert, heal, and a page that shows it.

The parts are the ordinary verbs on ordinary folders, so each can be repeated by the command that the page prints, and a second call keeps what is
finished. The training goes on from the shipped weights and is as short as a demo has to be: it shows what the tool does, not how well.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import count
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from pathosyn.config import Config, Train, scaled
from pathosyn.data.split import PARTITIONS, draw_split
from pathosyn.demo.showcase import Run, Shown, readme_picture, report
from pathosyn.errors import refuse

FRACTIONS = (0.65, 0.1, 0.25)
PARTS = ("phantoms", "prepare", "train", "insert", "heal", "report")
PLACES = ("redrawn", "severity-0", "severity-0.5", "severity-1.5", "borrowed", "ball", "healed")
OURS = {"demo.json", "phantoms", "slices.h5", "slices.h5.part", "run", "report.html", "readme.png", *PLACES}


@dataclass(frozen=True)
class Sizes:
    """How much of everything. At least 5 `subjects` with a lesion and 2 `healthy` ones, so that the test subjects have one of each."""

    subjects: int = 20
    healthy: int = 4
    slices: int = 24
    size_px: tuple[int, int] = (128, 156)
    steps: int = 120


@dataclass(frozen=True)
class Insertion:
    """One call of `insert` with its results in the sub-folder `place`; the command on the page is made from the same fields."""

    place: str
    subject: Path
    severity: float = 1.0
    replicates: int = 1
    from_mask_of: Path | None = None
    at: tuple[float, float, float] | None = None
    size_mm: float | None = None

    def flags(self) -> dict[str, Any]:
        """What differs from the flags' defaults."""
        return {f.name: getattr(self, f.name) for f in fields(self)[2:] if getattr(self, f.name) != f.default}


@dataclass
class Folder:
    """The demo's folder, and `demo.json` in it, which says what was asked for and how many seconds each part took."""

    root: Path
    settings: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)

    def open(self) -> None:
        """Start or continue. InputError if the folder holds anything that is not this demo's."""
        record = self.root / "demo.json"
        if self.root.exists() and not self.root.is_dir():
            raise refuse(self.root, found="a file", expected="a folder", remedy="give another --out")
        there = sorted(path.name for path in self.root.iterdir() if not path.name.startswith(".")) if self.root.exists() else []
        if foreign := [name for name in there if name not in OURS or not record.is_file()]:
            some = ", ".join(foreign[:3]) + (", …" if len(foreign) > 3 else "")
            expected = "a new or empty folder, or an earlier demo"
            raise refuse(self.root, found=f"files that are not the demo's ({some})", expected=expected, remedy="give another --out")
        if record.is_file():
            try:
                before = json.loads(record.read_text())
                settings, self.seconds = before["settings"], before["seconds"]
            except (ValueError, KeyError, TypeError):
                raise refuse(record, found="a file that the demo did not write", expected="the demo's own record", remedy="give another --out") from None
            if settings != json.loads(json.dumps(self.settings)):
                raise refuse(self.root, found=f"a demo with {settings}", expected=str(self.settings), remedy="give another --out, or the same --seed")
        self.root.mkdir(parents=True, exist_ok=True)
        self.save()

    def save(self) -> None:
        """Beside, then rename."""
        beside = self.root / ".demo.json.part"
        beside.write_text(json.dumps({"settings": self.settings, "seconds": self.seconds}, indent=2) + "\n")
        beside.replace(self.root / "demo.json")

    @contextmanager
    def part(self, name: str, what: str, *products: str) -> Iterator[None]:
        """Say that a part begins, and how long it took. The time of a part that was interrupted is added up over the calls."""
        finished = name in self.seconds and bool(products) and all((self.root / product).exists() for product in products)
        print(f"{PARTS.index(name) + 1}/{len(PARTS)} {name}: {what}", flush=True)
        start = time.monotonic()
        try:
            yield
        finally:
            if not finished:
                self.seconds[name] = (self.seconds.get(name, 0.0) if products else 0.0) + time.monotonic() - start
                self.save()
        print(f"    {name}: " + ("kept from an earlier call" if finished else f"{self.seconds[name]:.1f} s"), flush=True)


def demo(out: str | Path, *, seed: int = 0, device: str = "auto", sizes: Sizes | None = None) -> Path:
    """Run all parts in the folder `out` and return the path of its `report.html`. Finished parts of an earlier call are kept.

    InputError: `out` holds other files or a demo of other settings; sizes too small for three partitions; `device="cuda"` without a GPU."""
    sizes = sizes or Sizes()
    if sizes.subjects < 5 or sizes.healthy < 2:
        found = f"{sizes.subjects} subjects with a lesion and {sizes.healthy} without"
        raise refuse("demo", found=found, expected="at least 5 and 2", remedy="ask for more: each partition needs its own")
    if device == "cuda":
        _device(device)
    folder = Folder(Path(out).resolve(), {"seed": seed, **asdict(sizes)})
    folder.open()
    config = demo_config(sizes.steps, seed)
    _phantoms(folder, seed, sizes, config)
    names = sorted(path.name for path in (folder.root / "phantoms").iterdir())
    split_seed = _split_seed(names, seed)
    weights = _prepare_and_train(folder, config, split_seed, device)
    diseased, healthy = _chosen(folder.root / "phantoms", names, split_seed)
    calls = _insertions(diseased, healthy)
    shown = _insert_and_heal(folder, calls, weights, seed, _device(device))
    with folder.part("report", "pictures and page"):
        partitions = draw_split(names, FRACTIONS, split_seed)
        counts = {partition: list(partitions.values()).count(partition) for partition in PARTITIONS}
        lines = _commands(folder.root, config, split_seed, calls, seed)
        readme_picture(shown, folder.root / "readme.png")
        path = report(shown, Run(folder.root, config, counts, folder.seconds, lines), folder.root / "report.html")
    print(f"report: {path}", flush=True)
    return path


def demo_config(steps: int, seed: int) -> Config:
    """The shipped weights' own config with a training of `steps`: a little of each stage, in small batches at a small rate."""
    from pathosyn.checkpoint import read_config
    from pathosyn.weights import find

    quick = Train(
        steps=steps,
        substrate_share=0.2,
        structure_share=0.5,
        sharpen_share=0.3,
        batch_pixels=16384,
        lr=1e-4,
        lr_warmup=10,
        ema=0.99,
        validate_every=steps,
        seed=seed,
    )
    return replace(read_config(find()), train=quick)


# -- the parts -----------------------------------------------------------------------------------------------------------------------------


def _phantoms(folder: Folder, seed: int, sizes: Sizes, config: Config) -> None:
    from pathosyn.data.phantom import make_phantoms

    whole = folder.root / "phantoms"
    with folder.part("phantoms", f"{sizes.subjects} with a lesion and {sizes.healthy} without, drawn into a real anatomical template", "phantoms"):
        if not whole.exists():
            part = folder.root / ".phantoms.part"
            counts = {"subjects": sizes.subjects, "healthy": sizes.healthy}
            make_phantoms(part, **counts, seed=seed, slices=sizes.slices, size_px=sizes.size_px, contrasts=config.contrasts)
            part.rename(whole)


def _split_seed(names: Sequence[str], seed: int) -> int:
    """The first seed from `seed` on by which the test subjects have one with and one without a lesion, and the other two partitions one with."""

    def suits(candidate: int) -> bool:
        drawn = {(partition, name.split("_")[0]) for name, partition in draw_split(names, FRACTIONS, candidate).items()}
        return {("test", "healthy"), *((partition, "phantom") for partition in PARTITIONS)} <= drawn

    return next(candidate for candidate in count(seed) if suits(candidate))


def _prepare_and_train(folder: Folder, config: Config, split_seed: int, device: str) -> Path:
    from pathosyn.data.prepare import prepare

    slices = folder.root / "slices.h5"
    with folder.part("prepare", "scans → slices.h5", "slices.h5"):
        prepare([folder.root / "phantoms"], slices, fractions=FRACTIONS, seed=split_seed)
    steps = config.train.steps
    with folder.part("train", f"the shipped weights, {steps} more steps on the phantoms", "run/weights.safetensors"):
        # torch from here on: beside its threads, `prepare` could not fork.
        from pathosyn.train import fit
        from pathosyn.weights import find

        return fit(slices, folder.root / "run", config, start_from=find(), device=device)


def _chosen(phantoms: Path, names: Sequence[str], split_seed: int) -> tuple[Path, Path]:
    """The test subject with the largest enhancing rim, and the first healthy one: neither has been trained on."""
    test = [name for name, partition in draw_split(names, FRACTIONS, split_seed).items() if partition == "test"]

    def enhancing(name: str) -> int:
        seg = nib.load(phantoms / name / f"{name}_seg.nii.gz")  # type: ignore[attr-defined]
        return int((np.asarray(seg.dataobj) == 4).sum())  # type: ignore[attr-defined]

    diseased = max((name for name in test if name.startswith("phantom")), key=enhancing)
    return phantoms / diseased, phantoms / next(name for name in test if name.startswith("healthy"))


def _insertions(diseased: Path, healthy: Path) -> list[Insertion]:
    """The subject's own lesion twice and at three more severities; on the healthy scan its shape in its place, and a ball on the other side."""
    seg = nib.load(diseased / f"{diseased.name}_seg.nii.gz")  # type: ignore[attr-defined]
    labels = np.asarray(seg.dataobj) > 0  # type: ignore[attr-defined]
    centroid = seg.affine[:3, :3] @ np.argwhere(labels).mean(axis=0) + seg.affine[:3, 3]  # type: ignore[attr-defined]
    at = (round(-float(centroid[0]), 1), round(float(centroid[1]), 1), round(float(centroid[2]), 1))
    # The slab is centred on 0: a ball may reach its last slice's centre.
    room = (labels.shape[2] - 1) / 2 - abs(at[2])
    size = round(min(14.0, 2 * room), 1)
    own = [Insertion(f"severity-{s:g}", diseased, severity=s) for s in (0.0, 0.5, 1.5)]
    return [
        Insertion("redrawn", diseased, replicates=2),
        *own,
        Insertion("borrowed", healthy, from_mask_of=diseased),
        Insertion("ball", healthy, at=at, size_mm=size),
    ]


def _insert_and_heal(folder: Folder, calls: Sequence[Insertion], weights: Path, seed: int, device: str) -> list[Shown]:
    from pathosyn.checkpoint import load
    from pathosyn.insert import heal, insert
    from pathosyn.types import Controls

    loaded, shown = load(weights, device=device), []
    with folder.part("insert", f"{sum(call.replicates for call in calls)} lesions into two test subjects", *(call.place for call in calls)):
        for call in calls:
            flags = call.flags()
            controls = Controls(severity=flags.pop("severity", 1.0), seed=seed)
            results = insert(call.subject, folder.root / call.place, loaded, controls=controls, device=device, **flags)
            shown += [Shown(call.place, call.severity, call.subject, result) for result in results]
    with folder.part("heal", "one lesion out", "healed"):
        subject = calls[0].subject
        shown.append(Shown("healed", 0.0, subject, heal(subject, folder.root / "healed", loaded, device=device)))
    return shown


def _device(device: str) -> str:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise refuse("--device", found="cuda, but torch sees no GPU", expected="a CUDA device", remedy="use --device cpu or auto")
    return "cuda" if torch.cuda.is_available() and device != "cpu" else "cpu"


# -- the commands ----------------------------------------------------------------------------------------------------------------------------


def _commands(root: Path, config: Config, split_seed: int, calls: Sequence[Insertion], seed: int) -> list[str]:
    """What was run, for a shell, in order: the same work, so that on this folder each keeps what is there."""
    from pathosyn.weights import shipped

    weights = "--weights $DEMO/run/weights.safetensors"
    lines = [
        f"DEMO={shlex.quote(str(root))}",
        f"pathosyn prepare $DEMO/phantoms --out $DEMO/slices.h5 --fractions {_words(FRACTIONS)} --seed {split_seed}",
        f"pathosyn train --data $DEMO/slices.h5 --run $DEMO/run --from {next(iter(shipped()))} {_train_flags(config)}",
    ]
    for call in calls:
        flags = " ".join(f"--{name.replace('_', '-')} {_words(value, root)}" for name, value in call.flags().items())
        lines.append(f"pathosyn insert {_words(call.subject, root)} --out $DEMO/{call.place} {weights} --seed {seed} {flags}".rstrip())
    lines.append(f"pathosyn heal {_words(calls[0].subject, root)} --out $DEMO/healed {weights}")
    return [line.replace("$DEMO/", '"$DEMO"/') for line in lines]


def _train_flags(config: Config) -> str:
    """The flags by which this training differs from one at the scale `small`."""
    usual = scaled("small")[1]
    changed = [f.name for f in fields(usual) if getattr(config.train, f.name) != getattr(usual, f.name)]
    return " ".join(f"--train.{name.replace('_', '-')} {_words(getattr(config.train, name))}" for name in changed)


def _words(value: Any, root: Path | None = None) -> str:
    if isinstance(value, Path) and root:
        return f"$DEMO/{value.relative_to(root)}"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
