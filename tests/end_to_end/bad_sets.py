"""Bad asks of generate and evaluate."""

from __future__ import annotations

from bad_world import Case, Place


def _generate(place: Place, *extra: object) -> list[str]:
    return place.argv("generate", "--data", place.world.slices, "--weights", place.world.weights, "--out", place.out, "--threads", 1, *extra)


def _evaluate(place: Place, *extra: object, real: object = None) -> list[str]:
    return place.argv("evaluate", "realism", "--real", real or place.world.slices, "--out", place.out, "--threads", 1, *extra)


def _foreign_set(place: Place, content: str) -> str:
    place.text("set/set.json", content)
    place.text("set/rows.csv", "row,subject,donor\n")
    return f"ours={place.root / 'set'}"


def _export(place: Place, *extra: object) -> list[str]:
    return place.argv("export", place.root / "set", "--data", place.world.slices, "--to", "png", "--out", place.out, *extra)


CASES = [
    Case("generate by an unknown method", lambda p: _generate(p, "--method", "magic"), ("--method", "magic", "copy-paste")),
    Case("generate to train from test subjects", lambda p: _generate(p, "--purpose", "train", "--partition", "test"), ("--purpose", "training subjects only")),
    Case("generate to evaluate from training subjects", lambda p: _generate(p, "--partition", "train"), ("--purpose", "validation or test subjects only")),
    Case("generate no lesion", lambda p: _generate(p, "--per-lesion", 0), ("--per-lesion", "1…1000")),
    Case("generate without data", lambda p: [*_generate(p), "--data", str(p.root / "no.h5")], ("no.h5", "pathosyn prepare")),
    Case("generate with weights of no name", lambda p: [*_generate(p), "--weights", "magic"], ("--weights", "magic", "glioma")),
    Case(
        "generate into a folder of other files",
        lambda p: [*_generate(p, "--purpose", "train"), "--out", str(p.text("mine/notes.txt", "x").parent)],
        ("mine", "give another --out"),
    ),
    Case("evaluate nothing that is named", lambda p: _evaluate(p, "--synthetic", "sets/a"), ("--synthetic", "NAME=DIR")),
    Case("evaluate a folder that is no set", lambda p: _evaluate(p, "--synthetic", f"a={p.root}"), ("no synthetic set", "pathosyn generate")),
    Case("evaluate a set of another version", lambda p: _evaluate(p, "--synthetic", _foreign_set(p, '{"format": "x"}')), ("another kind or version",)),
    Case("export a folder that is no set", _export, ("no synthetic set", "pathosyn generate")),
    Case("export less than no healthy slice", lambda p: _export(p, "--healthy", -1), ("--healthy", "at least 0")),
    Case("export without data", lambda p: [*_export(p)[:-6], "--to", "png", "--out", str(p.out)], ("--data",), parser=True),
    Case("export for another tool", lambda p: _export(p, "--to", "dicom"), ("--to", "nnunet"), parser=True),
    Case("evaluate a set without its header", lambda p: _evaluate(p, "--synthetic", _foreign_set(p, "[1]")), ("no synthetic set",)),
]
