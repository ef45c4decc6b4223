"""Bad input to prepare and train, and bad command lines as such."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import h5py
import numpy as np
from bad_world import SHAPE, Case, Place, call, make_slices, make_subject, no_gpu, small_disk


def _split(place: Place, text: str | bytes, *extra: object) -> list[str]:
    return place.prepare("--split", place.text("split.csv", text), *extra)


def _finished(place: Place) -> list[str]:
    make_slices(place.out, [place.world.cohort])
    return place.prepare("--inpaint", "biharmonic")


def _other_subjects(place: Place) -> list[str]:
    make_slices(place.out, [place.world.healthy], (1, 0, 0))
    return place.prepare("--fractions", 1, 0, 0)


def _twin_roots(place: Place) -> list[Path]:
    return [make_subject(place.root / name / "s1").parent for name in ("a", "b")]


def _spoilt_cohort(place: Place) -> list[Path]:
    """One sound subject, one with a constant image."""
    place.subject("s2")
    place.spoil("t1", np.full(SHAPE, 7, np.int16))
    return [place.root]


def _busy(place: Place) -> list[str]:
    with h5py.File(place.root / "out.part", "w") as file:
        file.attrs["mine"] = 1
    return place.prepare()


def _latin_table(place: Place) -> list[str]:
    place.subject()
    place.text("subjects.csv", b"subject,site\ns1,Caf\xe9\n")
    return place.prepare("--fractions", 1, 0, 0, roots=[place.root])


def _corner(place: Place) -> Path:
    mask = np.zeros(SHAPE, np.uint8)
    mask[:4, :4, :2] = 1
    return place.spoil("seg", mask)


PREPARE = [
    Case("prepare: missing folder", lambda p: p.prepare(roots=[p.root / "data"]), ("no such folder", "check the name")),
    Case("prepare: empty folder", lambda p: p.prepare(roots=[p.root]), ("no scan", "give the folder")),
    Case("prepare: folder without subjects", lambda p: p.prepare(roots=[p.text("a/b/c.txt", "x").parents[1]]), ("folders but no scan", "just above")),
    Case("prepare: a file", lambda p: p.prepare(roots=[p.text("a.txt", "x")]), ("found a file", "folder")),
    Case("prepare: nothing given", lambda p: p.argv("prepare", "--out", p.out), ("DIR", "no folder", "give the folder")),
    Case("prepare: no --out", lambda p: p.argv("prepare", p.world.cohort), ("--out",), parser=True),
    Case("prepare: unknown flag", lambda p: p.prepare("--speed", 9), ("--speed",), parser=True),
    Case("prepare: a name in two folders", lambda p: p.prepare(roots=_twin_roots(p)), ("2 subjects of this name", "rename")),
    Case("prepare: one subject at fault", lambda p: p.prepare(roots=_spoilt_cohort(p)), ("s1_t1.nii.gz", "same value 7", "leave this"), keeps=("out.part",)),
    Case("prepare: split lacks a subject", lambda p: _split(p, "subject,partition\ns1,train\n"), ("split.csv", "no line for s2", "add 's2,train'")),
    Case("prepare: split with other columns", lambda p: _split(p, "name,fold\ns1,1\n"), ("split.csv", "name,fold", "name the columns")),
    Case("prepare: split with an unknown partition", lambda p: _split(p, "subject,partition\ns1,train\ns2,holdout\n"), ("line 3", "holdout", "mend")),
    Case("prepare: split with a subject in two", lambda p: _split(p, "subject,partition\ns1,train\ns1,test\ns2,train\n"), ("s1 in test and train", "remove")),
    Case("prepare: split is empty", lambda p: _split(p, ""), ("split.csv", "empty file", "columns")),
    Case("prepare: split is not a CSV", lambda p: _split(p, b"\x89PNG\r\n\xff\xfe\x00"), ("split.csv", "no readable text", "subject, partition")),
    Case("prepare: split is text", lambda p: _split(p, "Dear all,\nthe split is attached.\n"), ("split.csv", "Dear all", "columns")),
    Case("prepare: split without lines", lambda p: _split(p, "subject,partition\n"), ("no line below", "add a line")),
    Case("prepare: split with an endless cell", lambda p: _split(p, "subject,partition\n" + "x" * 200_000), ("split.csv", "field larger", "CSV again")),
    Case("prepare: a table of another encoding", _latin_table, ("subjects.csv", "UTF-8", "export it again"), keeps=("out.part",)),
    Case("prepare: a mask outside the brain", lambda p: p.prepare(roots=[_corner(p)]), ("s1_seg", "on the head", "belong together"), keeps=("out.part",)),
    Case("prepare: split is a folder", lambda p: p.prepare("--split", p.root), ("no readable text", "split")),
    Case("prepare: split is missing", lambda p: p.prepare("--split", p.root / "split.csv"), ("split.csv", "split's path")),
    Case("prepare: fractions that sum to 1.1", lambda p: p.prepare("--fractions", 0.8, 0.2, 0.1), ("--fractions", "sum to 1", ".8 .1 .1")),
    Case("prepare: a negative fraction", lambda p: p.prepare("--fractions", 1.2, -0.1, -0.1), ("--fractions", "from 0 to 1", ".8 .1 .1")),
    Case("prepare: a fraction that is no number", lambda p: p.prepare("--fractions", "nan", 0, 1), ("--fractions", "from 0 to 1", ".8 .1 .1")),
    Case("prepare: two fractions", lambda p: p.prepare("--fractions", 0.5, 0.5), ("--fractions",), parser=True),
    Case("prepare: a negative seed", lambda p: p.prepare("--seed", -1), ("--seed", "-1", "at least 0")),
    Case("prepare: negative workers", lambda p: p.argv("prepare", p.world.cohort, "--out", p.out, "--workers", -3), ("--workers", "-3", "0…1024")),
    Case("prepare: no pixels", lambda p: p.prepare("--geometry.grid-mm", 0), ("--geometry.grid-mm", "0.1…10", "1 is the default")),
    Case("prepare: a lesion that grows inwards", lambda p: p.prepare("--geometry.feather-mm", -3), ("--geometry.feather-mm", "-3", "0.1…100")),
    Case("prepare: window sides that do not divide", lambda p: p.prepare("--geometry.buckets", 50, 70), ("--geometry.buckets", "multiples of 32")),
    Case("prepare: no window sides", lambda p: p.prepare("--geometry.buckets"), ("--geometry.buckets", "no side", "multiples of 32")),
    Case("prepare: output is a folder", lambda p: p.prepare() if not p.out.mkdir() else [], ("out", "a folder", "--out")),
    Case("prepare: output is something else", lambda p: p.prepare() if p.text("out", "mine") else [], ("out", "--out")),
    Case("prepare: output of other settings", _finished, ("other settings (inpaint)", "another --out")),
    Case("prepare: output of other subjects", _other_subjects, ("other subjects", "another --out")),
    Case("prepare: output below a file", lambda p: _to(p, p.text("out", "mine") / "slices.h5"), ("out", "--out")),
    Case("prepare: output where nothing can be made", lambda p: _to(p, Path("/proc/slices.h5")), ("/proc", "--out")),
    Case("prepare: a foreign work file", _busy, ("out.part", "another --out")),
    Case("prepare: disk full", lambda p: _to(p, p.root / "disk" / "out"), ("full disk", "it resumes"), around=small_disk),
]


def _to(place: Place, out: Path) -> list[str]:
    argv = place.prepare()
    argv[argv.index("--out") + 1] = str(out)
    return argv


def _unfinished(place: Place, name: str) -> Path:
    path = place.root / name
    path.write_bytes(place.world.slices.read_bytes())
    with h5py.File(path, "r+") as file:
        del file.attrs["complete"]
    return path


def _other_hdf5(place: Place) -> Path:
    with h5py.File(place.root / "other.h5", "w") as file:
        file["x"] = np.zeros(3)
    return place.root / "other.h5"


def _attribute(place: Place, name: str, value: object) -> Path:
    path = place.root / "data.h5"
    path.write_bytes(place.world.slices.read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    return path


def _healthy_slices(place: Place) -> Path:
    return make_slices(place.root / "data.h5", [place.world.healthy])


def _no_training(place: Place) -> Path:
    return make_slices(place.root / "data.h5", [place.world.cohort], (0, 1, 0))


def _run_folder(place: Place, **files: str | bytes) -> Path:
    """A run folder of the very settings, spoilt."""
    with mock.patch("pathosyn.train._run_stages"), mock.patch("pathosyn.train._export"):  # only the folder's opening matters here
        code, _, errors = call(place.train())
    if code:
        raise RuntimeError(errors)
    for name, content in files.items():
        place.text(f"out/{name.replace('__', '.')}", content)
    return place.out


QUICK = ("--m.steps", 1, "--train.precision", "32-true")
RUN = tuple(f"disk/run{name}" for name in ("", "/config.json", "/environment.json", "/metrics.csv", "/previews"))


def _three_numbers(place: Place) -> list[str]:
    return place.train("--train.lr", 0, "--train.ema", 2, "--train.seed", -1)


TRAIN = [
    Case("train: data is missing", lambda p: p.train(data=p.root / "data.h5"), ("data.h5", "no such file", "pathosyn prepare")),
    Case("train: data is a folder", lambda p: p.train(data=p.world.cohort), ("a folder", "pathosyn prepare")),
    Case("train: data is not HDF5", lambda p: p.train(data=p.text("data.h5", "subject,partition\n")), ("data.h5", "HDF5", "pathosyn prepare")),
    Case("train: data is another HDF5", lambda p: p.train(data=_other_hdf5(p)), ("other.h5", "another kind", "pathosyn prepare")),
    Case("train: data cut short", lambda p: p.train(data=p.text("data.h5", p.world.slices.read_bytes()[:3000])), ("data.h5", "HDF5", "pathosyn prepare")),
    Case("train: preparation has not ended", lambda p: p.train(data=_unfinished(p, "data.h5")), ("not ended", "it resumes")),
    Case("train: only the work file is there", lambda p: p.train(data=_unfinished(p, "data.h5.part").with_suffix("")), ("data.h5.part", "it resumes")),
    Case("train: data of another version", lambda p: p.train(data=_attribute(p, "version", 9)), ("version 9", "prepare the data again")),
    Case("train: data with foreign settings", lambda p: p.train(data=_attribute(p, "geometry", '{"cube_mm": 1}')), ("data.h5", "prepare the data again")),
    Case("train: no training subject", lambda p: p.train(data=_no_training(p)), ("no subject in train", "another split")),
    Case("train: no lesion to learn from", lambda p: p.train(data=_healthy_slices(p)), ("no lesion", "with masks")),
    Case("train: no steps", lambda p: p.train("--train.steps", 0), ("--train.steps", "at least 1", "give a number")),
    Case("train: several numbers at once", _three_numbers, ("--train.lr", "--train.ema", "--train.seed")),
    Case("train: a seed beyond 64 bits", lambda p: p.train("--train.seed", 10**30), ("--train.seed", "1e+30")),
    Case("train: a rate that is no number", lambda p: p.train("--train.lr", "nan"), ("--train.lr", "nan")),
    Case("train: share above 1", lambda p: p.train("--train.substrate-share", 1.5), ("--train.substrate-share", "0…1")),
    Case("train: a student without steps", lambda p: p.train("--m.distilled"), ("--m.distilled", "--train.distil-share")),
    Case("train: unknown method", lambda p: p.train("--method", "gan"), ("--method", "'gan'", "one of pathosyn", "choose")),
    Case("train: unknown preset", lambda p: p.train("--preset", "papper"), ("--preset",), parser=True),
    Case("train: unknown flag", lambda p: p.train("--epochs", 5), ("--epochs",), parser=True),
    Case("train: no --run", lambda p: p.argv("train", "--data", p.world.slices), ("--run",), parser=True),
    Case("train: a contrast that the data lacks", lambda p: p.train("--contrasts", "t2"), ("no t2", "ask for fewer")),
    Case("train: a contrast twice", lambda p: p.train("--contrasts", "t1", "t1"), ("--contrasts", "t1", "once")),
    Case("train: ε at zero signal", lambda p: p.train("--m.prediction", "eps"), ("--m.prediction", "--m.no-zero-terminal-snr")),
    Case("train: ε at zero signal, forms", lambda p: p.train("--m.coarse-prediction", "eps"), ("--m.coarse-prediction", "--m.no-zero-terminal-snr")),
    Case("train: widths that do not divide", lambda p: p.train("--networks.sub", 12, 8, 8, 8, 8), ("--networks.sub", "multiple of 8")),
    Case("train: four widths", lambda p: p.train("--networks.sub", 8, 8, 8, 8), ("--networks.sub", "5 widths")),
    Case("train: one width", lambda p: p.train("--networks.eps", 8), ("--networks.eps", "2")),
    Case("train: width 0", lambda p: p.train("--networks.eps", 0, 8), ("--networks.eps", "multiple of 8")),
    Case("train: more levels than pixels", lambda p: p.train("--networks.eps", *[8] * 9), ("--networks.eps", "2…6 widths")),
    Case("train: no blocks", lambda p: p.train("--networks.blocks", 0), ("--networks.blocks", "1…16")),
    Case("train: another Inp than prepared", lambda p: p.train("--m.inpaint", "biharmonic"), ("harmonic Inp", "--m.inpaint harmonic")),
    Case("train: no times", lambda p: p.train("--m.timesteps", 0), ("--m.timesteps", "2…100000")),
    Case("train: more steps than times", lambda p: p.train("--m.steps", 2000), ("--m.steps", "1…1000")),
    Case("train: a negative σ", lambda p: p.train("--m.sigma-px", -2), ("--m.sigma-px", "-2", "0.1…100")),
    Case("train: β above 1", lambda p: p.train("--m.beta-end", 2), ("--m.beta-end", "2", "0.999")),
    Case("train: a negative weight", lambda p: p.train("--m.weights.out", -1), ("--m.weights.out", "-1", "at least 0")),
    Case("train: negative threads", lambda p: p.train("--threads", -2), ("--threads", "-2", "0…1024")),
    Case("train: a GPU that is not there", lambda p: p.train("--device", "cuda"), ("--device", "no GPU", "cpu or auto"), no_gpu),
    Case("train: run is a file", lambda p: p.train(run=p.text("out", "mine")), ("out", "a file", "another --run")),
    Case("train: run where nothing can be made", lambda p: p.train(run=Path("/proc/run")), ("/proc", "another --run")),
    Case("train: run of other files", lambda p: p.train() if p.text("out/thesis.txt", "mine") else [], ("other files", "another --run")),
    Case("train: run of another tool", lambda p: p.train() if p.text("out/config.json", '{"lr": 1}') else [], ("config.json", "run of ours", "another --run")),
    Case("train: run with a broken config", lambda p: p.train() if p.text("out/config.json", "{") else [], ("config.json", "--run")),
    Case("train: run of other settings", lambda p: p.train("--train.lr", 0.5, run=_run_folder(p)), ("train.lr = 0.001", "train.lr = 0.5", "new --run")),
    Case("train: checkpoint cut short", lambda p: p.train(run=_run_folder(p, state__pt=b"PK\x03\x04xxxx")), ("state.pt", "delete")),
    Case("train: disk full", lambda p: p.train(*QUICK, run=p.root / "disk" / "run"), ("disk/run", "no space", "same command again"), small_disk, keeps=RUN),
]


LINES = [
    Case("no arguments", lambda p: [], ("pathosyn --help",)),
    Case("unknown verb", lambda p: ["isnert", "s1"], ("'isnert'", "expected one of", "insert", "pathosyn --help")),
    Case("flag before the verb", lambda p: ["--out", "x", "insert"], ("'--out'", "pathosyn --help")),
]
