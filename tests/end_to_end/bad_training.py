"""Bad input to prepare and train, bad weights, and bad command lines as such."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
from bad_world import CONTRASTS, SHAPE, Case, Place, call, make_slices, make_subject, make_weights, save, small_disk


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


PREPARE = [
    Case("prepare: missing folder", lambda p: p.prepare(roots=[p.root / "data"]), ("no such folder", "check the name")),
    Case("prepare: empty folder", lambda p: p.prepare(roots=[p.root]), ("no scan", "give the folder")),
    Case("prepare: folder without subjects", lambda p: p.prepare(roots=[p.text("a/b/c.txt", "x").parents[1]]), ("folders but no scan", "just above")),
    Case("prepare: a file", lambda p: p.prepare(roots=[p.text("a.txt", "x")]), ("found a file", "folder")),
    Case("prepare: nothing given", lambda p: p.argv("prepare", "--out", p.out), ("DIR", "no folder", "give the folder")),
    Case("prepare: no --out", lambda p: p.argv("prepare", p.world.cohort), ("--out",), parser=True),
    Case("prepare: unknown flag", lambda p: p.prepare("--speed", 9), ("--speed",), parser=True),
    Case("prepare: a name in two folders", lambda p: p.prepare(roots=_twin_roots(p)), ("2 subjects of this name", "rename")),
    Case("prepare: one subject at fault", lambda p: p.prepare(roots=_spoilt_cohort(p)), ("s1_t1.nii.gz", "same value 7", "leave this contrast out"), keeps=("out.part",)),
    Case("prepare: split lacks a subject", lambda p: _split(p, "subject,partition\ns1,train\n"), ("split.csv", "no line for s2", "add 's2,train'")),
    Case("prepare: split with other columns", lambda p: _split(p, "name,fold\ns1,1\n"), ("split.csv", "name,fold", "name the columns")),
    Case("prepare: split with an unknown partition", lambda p: _split(p, "subject,partition\ns1,train\ns2,holdout\n"), ("line 3", "holdout", "mend")),
    Case("prepare: split with a subject in two", lambda p: _split(p, "subject,partition\ns1,train\ns1,test\ns2,train\n"), ("s1 in test and train", "remove")),
    Case("prepare: split is empty", lambda p: _split(p, ""), ("split.csv", "empty file", "columns")),
    Case("prepare: split is not a CSV", lambda p: _split(p, b"\x89PNG\r\n\xff\xfe\x00"), ("split.csv", "no readable text", "subject, partition")),
    Case("prepare: split is text", lambda p: _split(p, "Dear all,\nthe split is attached.\n"), ("split.csv", "Dear all", "columns")),
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


def _t1_slices(place: Place) -> Path:
    folder = place.subject()
    for contrast in CONTRASTS[1:]:
        place.scan(contrast).unlink()
    return make_slices(place.root / "data.h5", [folder])


def _t2_slices(place: Place) -> Path:
    folder = place.subject()
    for contrast in CONTRASTS:
        place.scan(contrast).rename(folder / f"s1_{contrast}x.nii.gz")
    save(folder / "s1_t2.nii.gz", np.random.default_rng(0).normal(300, 30, SHAPE).astype(np.float32))
    return make_slices(place.root / "data.h5", [folder])


def _run_folder(place: Place, **files: str | bytes) -> Path:
    """A run folder of the very settings, spoilt."""
    with mock.patch("pathosyn.train._run_stages"), mock.patch("pathosyn.train._export"):  # only the folder's opening matters here
        code, _, errors = call(place.train())
    if code:
        raise RuntimeError(errors)
    for name, content in files.items():
        place.text(f"out/{name.replace('__', '.')}", content)
    return place.out


RUN = tuple(f"disk/run{name}" for name in ("", "/config.json", "/environment.json", "/metrics.csv", "/previews"))

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
    Case("train: several numbers at once", lambda p: p.train("--train.lr", 0, "--train.ema", 2, "--train.seed", -1), ("--train.lr", "--train.ema", "--train.seed")),
    Case("train: a rate that is no number", lambda p: p.train("--train.lr", "nan"), ("--train.lr", "nan")),
    Case("train: share above 1", lambda p: p.train("--train.substrate-share", 1.5), ("--train.substrate-share", "0…1")),
    Case("train: unknown method", lambda p: p.train("--method", "gan"), ("--method", "'gan'", "one of pathosyn", "choose")),
    Case("train: unknown preset", lambda p: p.train("--preset", "papper"), ("--preset",), parser=True),
    Case("train: unknown flag", lambda p: p.train("--epochs", 5), ("--epochs",), parser=True),
    Case("train: no --run", lambda p: p.argv("train", "--data", p.world.slices), ("--run",), parser=True),
    Case("train: a contrast that the data lacks", lambda p: p.train("--contrasts", "t2"), ("no t2", "ask for fewer")),
    Case("train: a contrast twice", lambda p: p.train("--contrasts", "t1", "t1"), ("--contrasts", "t1", "once")),
    Case("train: ε at zero signal", lambda p: p.train("--m.prediction", "eps"), ("--m.prediction", "--m.no-zero-terminal-snr")),
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
    Case("train: a GPU that is not there", lambda p: p.argv("train", "--data", p.world.slices, "--run", p.out, "--device", "cuda"), ("--device", "no GPU")),
    Case("train: run is a file", lambda p: p.train(run=p.text("out", "mine")), ("out", "a file", "another --run")),
    Case("train: run where nothing can be made", lambda p: p.train(run=Path("/proc/run")), ("/proc", "another --run")),
    Case("train: run of other files", lambda p: p.train() if p.text("out/thesis.txt", "mine") else [], ("other files", "another --run")),
    Case("train: run of another tool", lambda p: p.train() if p.text("out/config.json", '{"lr": 1}') else [], ("out", "--run")),
    Case("train: run with a broken config", lambda p: p.train() if p.text("out/config.json", "{") else [], ("config.json", "--run")),
    Case("train: run of other settings", lambda p: p.train("--train.lr", 0.5, run=_run_folder(p)), ("train.lr = 0.001", "train.lr = 0.5", "new --run")),
    Case("train: checkpoint cut short", lambda p: p.train(run=_run_folder(p, state__pt=b"PK\x03\x04xxxx")), ("state.pt", "delete")),
    Case("train: disk full", lambda p: p.train(run=p.root / "disk" / "run"), ("disk/run", "no space", "same command again"), small_disk, keeps=RUN),
]


def _with_header(change: Callable[[dict], object]) -> Callable[[Place], list[str]]:
    """insert with weights whose header was changed."""

    def build(place: Place) -> list[str]:
        from safetensors import safe_open
        from safetensors.torch import save_file

        with safe_open(place.world.weights, framework="pt") as file:
            header = json.loads(file.metadata()["pathosyn-weights"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        changed = change(header)
        path = place.root / "weights.safetensors"
        save_file(tensors, path, {"pathosyn-weights": changed if isinstance(changed, str) else json.dumps(header)})
        return _weights(place, path)

    return build


def _weights(place: Place, path: Path | str) -> list[str]:
    argv = place.insert()
    argv[argv.index("--weights") + 1] = str(path)
    return argv


def _foreign(place: Place) -> list[str]:
    import torch
    from safetensors.torch import save_file

    save_file({"layer.weight": torch.zeros(3)}, place.root / "sd.safetensors")
    return _weights(place, place.root / "sd.safetensors")


def _not_finite(place: Place) -> list[str]:
    import torch

    from pathosyn.checkpoint import Provenance, load, save_weights

    method = load(place.world.weights).method
    with torch.no_grad():
        next(method.parameters()).fill_(torch.nan)
    save_weights(place.root / "nan.safetensors", method, Provenance())
    return _weights(place, place.root / "nan.safetensors")


def _checkpoint(place: Place) -> list[str]:
    import torch

    torch.save({"step": 1}, place.root / "state.pt")
    return _weights(place, place.root / "state.pt")


WEIGHTS = [
    Case("weights are missing", lambda p: _weights(p, p.root / "w.safetensors"), ("w.safetensors", "no such file", "pathosyn train")),
    Case("weights are a folder", lambda p: _weights(p, p.world.cohort), ("a folder", "weights.safetensors")),
    Case("weights cut short", lambda p: _weights(p, p.text("w.safetensors", p.world.weights.read_bytes()[:-999])), ("w.safetensors", "copy it again")),
    Case("weights are empty", lambda p: _weights(p, p.text("w.safetensors", b"")), ("w.safetensors", "copy it again")),
    Case("weights of another program", _foreign, ("without pathosyn's header", "the run's weights.safetensors")),
    Case("weights are a pickle", lambda p: _weights(p, p.text("w.pt", pickle.dumps({"a": 1}))), ("w.pt", "safetensors")),
    Case("weights are a checkpoint", _checkpoint, ("state.pt", "weights.safetensors")),
    Case("weights of another version", _with_header(lambda h: h.update(version="7")), ("format 7", "the pathosyn version that wrote them")),
    Case("weights with an unknown setting", _with_header(lambda h: h["config"]["method"].update(magic=1)), ("magic", "version that wrote them")),
    Case("weights with another size", _with_header(lambda h: h["config"]["networks"].update(eps=[16, 16])), ("do not fit", "version that wrote them")),
    Case("weights without a version", _with_header(lambda h: h.clear()), ("weights.safetensors", "version that wrote them")),
    Case("weights without a config", _with_header(lambda h: h.pop("config")), ("weights.safetensors", "version that wrote them")),
    Case("weights with a foreign provenance", _with_header(lambda h: h.update(provenance={"who": "me"})), ("weights.safetensors", "version that wrote them")),
    Case("weights with a broken header", _with_header(lambda h: "{"), ("weights.safetensors", "version that wrote them")),
    Case("weights that diverged", _not_finite, ("nan.safetensors", "NaN", "train")),
    Case("fine-tuning from nothing", lambda p: p.train("--from", p.root / "w.safetensors"), ("w.safetensors", "no such file", "pathosyn train")),
    Case("fine-tuning without its contrasts", lambda p: p.train("--from", p.world.weights, data=_t2_slices(p)), ("no t1, t1ce, flair", "data that has them")),
    Case(
        "fine-tuning with another Inp",
        lambda p: p.train("--from", make_weights(p.root / "w.safetensors", inpaint="biharmonic")),
        ("harmonic Inp", "--inpaint biharmonic"),
    ),
]

LINES = [
    Case("no arguments", lambda p: [], ("pathosyn --help",)),
    Case("unknown verb", lambda p: ["isnert", "s1"], ("'isnert'", "expected one of", "insert", "pathosyn --help")),
    Case("flag before the verb", lambda p: ["--out", "x", "insert"], ("'--out'", "pathosyn --help")),
]

CASES = [*PREPARE, *TRAIN, *WEIGHTS, *LINES]
