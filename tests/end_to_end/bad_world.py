"""A small sound world that bad input is made from, and the referee: what a command did with it.

`World` is shared and never changed; a case gets a `Place`, a folder of its own in which it spoils copies.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel as nib
import numpy as np

from pathosyn.cli import main

SHAPE = (40, 44, 8)
CONTRASTS = ("t1", "t1ce", "flair")
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
FAULT_LINE = re.compile(r"(?:pathosyn \w+|fault): .+: found .+; expected .+; .+|pathosyn: found .+; expected .+; .+")
TINY = ("--scale", "tiny", "--networks.sub", "8", "8", "8", "8", "8", "--networks.eps", "8", "8", "--train.steps", "2", "--device", "cpu")


def brain() -> np.ndarray:
    """An ellipse in every slice."""
    x, y = np.ogrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    return np.broadcast_to((x**2 + y**2 < 0.7)[..., None], SHAPE)


def box_mask() -> np.ndarray:
    """A lesion of 6·6·2 voxels in the brain, away from every edge."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[16:22, 20:26, 3:5] = 1
    return mask


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """A NIfTI file, folders made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine, dtype=values.dtype), path)
    return path


def make_subject(folder: Path, seed: int = 0, *, seg: bool = True) -> Path:
    """Three contrasts and, if asked, a mask."""
    rng = np.random.default_rng(seed)
    for name in CONTRASTS:
        save(folder / f"{folder.name}_{name}.nii.gz", np.where(brain(), rng.normal(300, 30, SHAPE), 0).astype(np.int16))
    if seg:
        save(folder / f"{folder.name}_seg.nii.gz", box_mask())
    return folder


def make_weights(path: Path, contrasts: Sequence[str] = CONTRASTS, **method: Any) -> Path:
    """Untrained, as small as it gets."""
    from pathosyn.checkpoint import Provenance, save_weights
    from pathosyn.config import Config, Method, Networks
    from pathosyn.methods import build

    config = Config(tuple(contrasts), method=Method(timesteps=50, level=12, steps=2, **method), networks=Networks((8, 8, 8, 8, 8), (8, 8)))
    save_weights(path, build(config), Provenance(steps=config.train.steps))
    return path


def make_slices(out: Path, subjects: Sequence[Path], fractions: Sequence[float] = (1, 0, 0)) -> Path:
    """A prepared file."""
    from pathosyn.data.prepare import prepare

    prepare(subjects, out, fractions=fractions, workers=0, progress=False)
    return out


@dataclass(frozen=True)
class World:
    """Sound things to spoil: two subjects (s1, s2) in `cohort`, a healthy one, weights, prepared data."""

    root: Path
    cohort: Path
    healthy: Path
    weights: Path
    slices: Path

    @staticmethod
    def make(root: Path) -> World:
        """About a second."""
        cohort = root / "cohort"
        subjects = [make_subject(cohort / f"s{number}", number) for number in (1, 2)]
        healthy = make_subject(root / "healthy", 3, seg=False)
        return World(root, cohort, healthy, make_weights(root / "weights.safetensors"), make_slices(root / "slices.h5", subjects))


@dataclass(frozen=True)
class Place:
    """Where one case does its damage."""

    world: World
    root: Path

    @property
    def out(self) -> Path:
        """A folder or file that does not exist yet."""
        return self.root / "out"

    def subject(self, name: str = "s1") -> Path:
        """A copy of a subject, to spoil."""
        return Path(shutil.copytree(self.world.cohort / name, self.root / name))

    def scan(self, contrast: str = "t1") -> Path:
        """That file of subject s1's copy, which is made if needed."""
        folder = self.root / "s1"
        return (folder if folder.exists() else self.subject()) / f"s1_{contrast}.nii.gz"

    def spoil(self, contrast: str, values: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
        """Subject s1 with one file replaced; returns its folder."""
        return save(self.scan(contrast), values, affine).parent

    def mask(self, values: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
        """A mask file."""
        return save(self.root / "mask.nii.gz", values, affine)

    def text(self, name: str, content: str | bytes) -> Path:
        """A file of any content."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def insert(self, *extra: object, subject: Path | list[Path] | None = None) -> list[str]:
        """`pathosyn insert` of a sound subject into `out`, with more flags."""
        subjects = subject if isinstance(subject, list) else [subject or self.world.cohort / "s1"]
        return self.argv("insert", *subjects, "--out", self.out, "--weights", self.world.weights, "--device", "cpu", *extra)

    def heal(self, *extra: object, subject: Path | None = None) -> list[str]:
        """The same of `pathosyn heal`."""
        return self.argv("heal", subject or self.world.cohort / "s1", "--out", self.out, "--weights", self.world.weights, "--device", "cpu", *extra)

    def prepare(self, *extra: object, roots: Sequence[Path] = ()) -> list[str]:
        """`pathosyn prepare` of the sound cohort into `out`, in this process."""
        return self.argv("prepare", *(roots or [self.world.cohort]), "--out", self.out, "--workers", 0, *extra)

    def train(self, *extra: object, data: Path | None = None, run: Path | None = None) -> list[str]:
        """`pathosyn train` of the smallest networks for two steps."""
        return self.argv("train", "--data", data or self.world.slices, "--run", run or self.out, *TINY, *extra)

    @staticmethod
    def argv(*parts: object) -> list[str]:
        """Everything as text."""
        return [str(part) for part in parts]

    def plain(self, text: str) -> str:
        """Without this machine's paths."""
        for folder in (self.root, self.world.cohort, self.world.root):
            text = text.replace(str(folder), "…")
        return re.sub("x{50,}", "xx…xx", text)

    def shown(self, argv: Sequence[str]) -> str:
        """The command line as a reader sees it, without the flags that only make it small."""
        kept = [part for part in argv if part not in TINY] if argv and argv[0] == "train" else list(argv)
        text = self.plain(shlex.join(["pathosyn", *kept]).replace("'", ""))
        return text.replace(" --device cpu", "").replace(" --workers 0", "")


@dataclass(frozen=True)
class Case:
    """build  makes the bad files in a place and returns the command line
    words    must stand in the message: what is at fault, and what to do
    around   a state of the world during the command (a full disk)
    parser   True where the flag parser itself refuses, with a box in place of a line
    keeps    what may stay in the place because the same command goes on from it, and says so
    """

    name: str
    build: Callable[[Place], list[str]]
    words: tuple[str, ...]
    around: Callable[[Place], contextlib.AbstractContextManager[Any]] | None = None
    parser: bool = False
    keeps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What came of a case: exit code (None: a traceback, in `errors`), both streams, and every complaint against it."""

    argv: list[str]
    code: int | None
    output: str
    errors: str
    complaints: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """One a fault; of a parser's box the words, on one line."""
        lines = [line for line in self.errors.splitlines() if not line.startswith("warning")]
        if all(line.startswith(("pathosyn", "fault: ")) for line in lines):
            return lines
        return [" ".join(word for word in self.errors.split() if re.search(r"\w", word))]


def judge(case: Case, world: World, root: Path) -> Outcome:
    """Run one case in the empty folder `root` and hold it against the bar: exit 2, a line a fault that names place and remedy, nothing left behind."""
    root.mkdir(parents=True, exist_ok=True)
    place = Place(world, root)
    argv = case.build(place)
    with case.around(place) if case.around else contextlib.nullcontext():
        before = contents(root) | contents(world.root)
        code, output, errors = call(argv)
        after = contents(root) | contents(world.root)
    complaints = []
    if code != 2:
        complaints.append(f"exit code {code}")
    if "Traceback" in errors:
        complaints.append("a traceback")
    if missing := [word for word in case.words if word not in " ".join(errors.split())]:
        complaints.append(f"the message lacks {missing}")
    if not case.parser:
        others = [line for line in errors.splitlines() if not FAULT_LINE.fullmatch(line) and not line.startswith("warning:")]
        complaints += [f"not a fault's line: {line}" for line in others[:3]]
    left = sorted(name for name in after.keys() - before.keys() if os.path.relpath(name, root) not in case.keeps)
    changed = sorted(name for name in before if after.get(name) != before[name])
    complaints += [f"left behind: {place.plain(name)}" for name in left] + [f"changed: {place.plain(name)}" for name in changed]
    return Outcome(argv, code, output, errors, tuple(complaints))


def call(argv: Sequence[str]) -> tuple[int | None, str, str]:
    """In this process: exit code, standard output, standard error."""
    output, errors = io.StringIO(), io.StringIO()
    code: int | None = None
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", RuntimeWarning)  # NumPy's: a number that went wrong on the way
        try:
            code = main(argv)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except Exception:
            errors.write(traceback.format_exc())
    errors.writelines(f"{each.category.__name__}: {each.message}\n" for each in caught)
    return code, output.getvalue(), errors.getvalue()


def contents(folder: Path) -> dict[str, tuple[int, int] | None]:
    """Every entry below `folder`: size and time of a file, None for a folder."""
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) if path.is_symlink() or not path.is_dir() else None for path in sorted(folder.rglob("*"))
    }


@contextlib.contextmanager
def small_disk(place: Place, kilobytes: int = 24) -> Iterator[None]:
    """A real file system of a few kilobytes at `place.root/disk`; where this user may not mount one, writing there fails as if it were full."""
    folder = place.root / "disk"
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if not sys.platform.startswith("linux") or subprocess.run(command, capture_output=True, check=False).returncode:
        with _as_if_full(folder):
            yield
        return
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=True)


@contextlib.contextmanager
def _as_if_full(folder: Path) -> Iterator[None]:
    opened, usage = Path.open, shutil.disk_usage

    def open_there(self: Path, mode: str = "r", *given: Any, **named: Any) -> Any:
        if mode[0] in "wxa" and folder in self.parents:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return opened(self, mode, *given, **named)

    def usage_there(path: Path) -> Any:
        there = usage(path)
        return there._replace(free=0) if folder in (path, *path.parents) else there

    with mock.patch.object(Path, "open", open_there), mock.patch("shutil.disk_usage", usage_there):
        yield


@contextlib.contextmanager
def no_extra(place: Place) -> Iterator[None]:
    """An installation without extras, whatever this one has."""
    with mock.patch("pathosyn.backends.find_spec", return_value=None):
        yield


@contextlib.contextmanager
def no_gpu(place: Place) -> Iterator[None]:
    """A machine without a GPU, whatever this one has."""
    with mock.patch("torch.cuda.is_available", return_value=False):
        yield
