"""The command line itself: what it prints, how it ends, what it costs to start, and the same verbs from Python."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pathosyn import cli as command_line
from pathosyn.config import default, paper, scaled

Cli = Callable[..., int]

FLAGS = {
    "check": ["--workers"],
    "prepare": ["--out", "--split", "--fractions", "--seed"],
    "train": ["--data", "--run", "--method", "--preset", "--scale", "--from", "--train.steps", "--train.devices", "--device"],
    "insert": [
        *("--out", "--image", "--mask", "--from-mask-of", "--at", "--size-mm", "--weights", "--severity"),
        *("--extent-mm", "--shift-mm", "--replicates", "--seed", "--steps", "--device"),
    ],
    "heal": ["--out", "--image", "--mask", "--weights", "--device"],
}


def ended(*words: str) -> int | str | None:
    """The exit code, whether it is returned or raised."""
    try:
        return command_line.main(list(words))
    except SystemExit as end:
        return end.code


# -- the first screen -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_names_every_verb(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert ended(word) == 0
    told = capsys.readouterr().out
    assert all(f"  {verb} " in told for verb in command_line.VERBS) and "not for diagnosis" in told


def test_no_verb_is_bad_input_and_shows_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended() == 2
    captured = capsys.readouterr()
    assert "insert" in captured.out + captured.err


def test_an_unknown_verb_is_named_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("inset", "x") == 2
    told = capsys.readouterr().err
    assert "'inset'" in told and "insert" in told and len(told.splitlines()) == 1


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    from pathosyn.data.nifti import file_sha256
    from pathosyn.weights import find

    number = find().stem.rpartition("-")[2]
    assert ended("--version") == 0
    first, weights, *terms = capsys.readouterr().out.strip().splitlines()
    assert first == f"pathosyn {version('pathosyn')} (Apache-2.0)" and weights.startswith(f"weights glioma {number}, sha256 {file_sha256(find())[:12]}")
    assert "non-commercial" in " ".join(terms), "the terms of the data travel with the weights"


@pytest.mark.parametrize("verb", FLAGS)
def test_each_verbs_help_lists_its_flags(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert ended(verb, "--help") == 0
    told = capsys.readouterr().out
    assert [flag for flag in FLAGS[verb] if flag not in told] == []
    assert "MISSING" not in told


@pytest.mark.parametrize(
    "words",
    [("train",), ("prepare", "x"), ("train", "--data", "x", "--run", "y", "--train.stepz", "3"), ("prepare", "x", "--out", "y", "--seed", "a")],
)
def test_a_command_line_that_cannot_be_read_ends_with_2(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    assert ended(*words) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err and captured.err + captured.out


# -- how work ends ----------------------------------------------------------------------------------------------------------------------


def test_interruption_ends_with_130_and_says_how_to_go_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pathosyn.data import check

    monkeypatch.setattr(check, "check", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert ended("check", str(tmp_path)) == 130
    assert "same command" in capsys.readouterr().err


def test_our_own_failure_is_not_dressed_up_as_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pathosyn.data import check

    monkeypatch.setattr(check, "check", lambda *_, **__: (_ for _ in ()).throw(ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        command_line.main(["check", str(tmp_path)])


def test_a_full_disk_is_told_without_a_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pathosyn.data import check

    monkeypatch.setattr(check, "check", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device", "out/x.nii.gz")))
    assert ended("check", str(tmp_path)) == 2
    told = capsys.readouterr().err
    assert "out/x.nii.gz" in told and "no space" in told.lower() and "Traceback" not in told


def test_check_passes_a_sound_cohort_and_names_what_is_wrong_in_another(
    capsys: pytest.CaptureFixture[str], tiny_cohort: Path, subject: Path, tmp_path: Path
) -> None:
    assert ended("check", str(tiny_cohort), "--workers", "1") == 0
    assert "7 subjects can be read, 0 faults" in capsys.readouterr().out
    path = subject / "phantom_000_t2.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:-1], image.affine), path)
    assert ended("check", str(subject.parent), "--workers", "1") == 2
    assert "phantom_000_t2.nii.gz" in capsys.readouterr().err


def test_each_command_names_the_next_and_the_next_can_be_typed(
    capsys: pytest.CaptureFixture[str], tiny_cohort: Path, straight: Path, prepared: Path, train: Cli, tmp_path: Path
) -> None:
    """check → prepare → train → insert, each by the line that the one before it printed."""
    from pathosyn.cli import insert, prepare
    from pathosyn.cli import train as train_verb

    def printed() -> list[str]:
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next: ")]
        words = shlex.split(line.removeprefix("next: "))
        assert words[0] == "pathosyn"
        return words[1:]

    ended("check", str(tiny_cohort), "--workers", "1")
    verb, *words = printed()
    assert verb == "prepare" and prepare.parse(words).roots == (tiny_cohort,)
    assert ended("prepare", str(tiny_cohort), "--out", str(tmp_path / "slices.h5"), "--workers", "1") == 0
    verb, *words = printed()
    assert verb == "train" and train_verb.parse(words).data == tmp_path / "slices.h5"
    assert train(straight) == 0
    verb, *words = printed()
    parsed = insert.parse(words)
    assert verb == "insert" and parsed.weights == straight / "weights.safetensors" and parsed.weights.is_file()


# -- presets and scales -----------------------------------------------------------------------------------------------------------------


def test_preset_and_scale_set_what_is_not_given() -> None:
    from pathosyn.cli.train import parse

    base = ["--data", "x", "--run", "y"]
    plain = parse(base)
    assert (plain.m, (plain.networks, plain.train)) == (default(), scaled("small"))
    for words in (["--preset", "paper", "--scale", "tiny"], ["--preset=paper", "--scale=tiny"]):
        printed = parse([*words, *base])
        assert (printed.m, (printed.networks, printed.train)) == (paper(), scaled("tiny"))
    mixed = parse([*base, "--preset", "paper", "--m.steps", "7", "--train.lr", "0.5", "--m.weights.dev", "3"])
    assert (mixed.m.steps, mixed.m.composition, mixed.m.tanh_delta, mixed.train.lr, mixed.train.steps) == (7, "paper", 3.0, 0.5, scaled("small")[1].steps)
    assert mixed.m.weights.dev == 3.0 and mixed.m.weights.syn == paper().weights.syn


def test_flags_of_insert_reach_the_request() -> None:
    from pathosyn.cli.insert import parse

    verb = parse(["a", "b", "--out", "o", "--weights", "w", "--at", "-1", "2", "-3.5", "--size-mm", "8", "--shift-mm", "0", "-4", "1", "--extent-mm", "-1"])
    assert verb.subjects == (Path("a"), Path("b")) and verb.at == (-1.0, 2.0, -3.5) and verb.size_mm == 8.0
    assert verb.shift_mm == (0.0, -4.0, 1.0) and verb.extent_mm == -1.0 and verb.severity == 1.0 and verb.seed == 0


# -- which scans ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, told",
    [
        ((), "no scan"),
        (("SUBJECT", "--image", "t1=x.nii"), "together"),
        (("SUBJECT", "SUBJECT"), "several subjects of this name"),
        (("nowhere",), "no such folder"),
    ],
)
@pytest.mark.parametrize("verb", ["insert", "heal"])
def test_which_scans_is_settled_before_weights_are_read(
    capsys: pytest.CaptureFixture[str], subject: Path, tmp_path: Path, verb: str, words: tuple[str, ...], told: str
) -> None:
    named = [str(subject) if word == "SUBJECT" else word for word in words]
    assert ended(verb, *named, "--out", str(tmp_path / "out"), "--weights", str(tmp_path / "none")) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and told in lines[0] and lines[0].startswith(f"pathosyn {verb}: ")
    assert not (tmp_path / "out").exists()


# -- starting, and Python ---------------------------------------------------------------------------------------------------------------


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_help_and_parsing_do_not_pay_for_torch() -> None:
    code = (
        "import sys, contextlib, io\n"
        "from pathosyn.cli import main\n"
        "import pathosyn\n"
        "for words in (['--help'], ['insert', '--help'], ['train', '--help'], ['check', '--help']):\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "        main(words)\n"
        "print([name for name in ('torch', 'monai', 'lightning_fabric', 'matplotlib', 'pandas') if name in sys.modules])"
    )
    assert python(code).strip() == "[]"


def test_the_verbs_are_functions_whatever_was_imported_before() -> None:
    """`pathosyn.insert` is also the name of a module, which Python would put in the function's place."""
    code = (
        "from pathosyn import heal, insert, load, prepare, fit\n"
        "import pathosyn.insert, pathosyn\n"
        "print(all(map(callable, (heal, insert, load, prepare, fit, pathosyn.insert))))"
    )
    assert python(code).strip() == "True"


def test_python_and_command_line_give_the_same_bytes(
    insert: Cli, subject: Path, weights: Path, tmp_path: Path, contents: Callable[[Path], dict[str, str]]
) -> None:
    import pathosyn

    assert insert(subject, tmp_path / "cli", "--severity", 0.5, "--seed", 4, "--replicates", 2) == 0
    controls = pathosyn.Controls(severity=0.5, seed=4)
    folders = pathosyn.insert(subject, tmp_path / "python", weights, controls=controls, replicates=2, steps=2)
    assert folders == [tmp_path / "python" / f"phantom_000-r0{k}" for k in (0, 1)]
    assert contents(tmp_path / "cli") == contents(tmp_path / "python")
    assert pathosyn.heal(subject, tmp_path / "healed", pathosyn.load(weights)) == tmp_path / "healed" / "phantom_000-healed"


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_a_reader_that_has_seen_enough_gets_no_traceback(flag: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "from pathosyn.cli import main; raise SystemExit(main())", flag], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        told = process.stderr.read()
    assert (process.returncode, told) == (1, "")
