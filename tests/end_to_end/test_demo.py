"""The demo as a user runs it, only much smaller: every part, the page, and a second call that keeps what is there."""

from __future__ import annotations

import re
import shlex
from html import unescape
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pathosyn.cli import main
from pathosyn.cli.heal import parse as parse_heal
from pathosyn.cli.insert import parse as parse_insert
from pathosyn.cli.prepare import parse as parse_prepare
from pathosyn.cli.train import parse as parse_train
from pathosyn.config import Geometry
from pathosyn.demo import showcase
from pathosyn.demo.run import Folder, Sizes, demo, demo_config
from pathosyn.errors import InputError

SMALL = Sizes(subjects=5, healthy=2, slices=6, size_px=(48, 56), steps=4)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished small demo."""
    return demo(tmp_path_factory.mktemp("demo") / "out", device="cpu", sizes=SMALL).parent


def written(root: Path) -> dict[str, int]:
    """When each file was last written; the report is made anew at each call."""
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file() and path.parent != root}


def test_the_page_stands_alone_and_says_what_changed(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert len(re.findall(r'<img [^>]*src="data:image/png;base64,', page)) >= 30
    assert not re.search(r"https?:|<script|<link|src=\"(?!data:)", page)
    assert "<strong>0 voxels outside" in page and "Not for diagnosis" in page
    # The row below it that a lesion did change something, in each of the eight results.
    counts = re.findall(r"<td>t1 ([\d,]+), t1ce ([\d,]+), flair ([\d,]+)</td><td>0</td>", page)
    assert len(counts) == 8 and all(int(count.replace(",", "")) > 0 for row in counts for count in row)


def test_the_count_of_changed_voxels_sees_a_single_one(finished: Path) -> None:
    subject = next((finished / "healed").iterdir()).name.removesuffix("-healed")
    shown = showcase.Shown("healed", 0.0, finished / "phantoms" / subject, finished / "healed" / f"{subject}-healed")
    inside, outside, _ = showcase.changes(shown, "flair", Geometry())
    assert inside > 0 and outside == 0
    image = nib.load(shown.file("flair"))
    kept = shown.file("flair").read_bytes()
    values = np.asarray(image.dataobj).copy()
    values[0, 0, 0] += 1
    try:
        nib.save(nib.Nifti1Image(values, image.affine, image.header), shown.file("flair"))
        assert showcase.changes(shown, "flair", Geometry())[:2] == (inside, 1)
    finally:
        shown.file("flair").write_bytes(kept)


def test_a_second_call_keeps_what_is_finished(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = {"run/weights.safetensors", "run/metrics.csv"}  # written anew with the same content
    before, content = written(finished), [(finished / name).read_bytes() for name in sorted(again)]
    report = demo(finished, device="cpu", sizes=SMALL)
    after = written(finished)
    assert {name for name in before if after.get(name) != before[name]} <= again
    assert [(finished / name).read_bytes() for name in sorted(again)] == content
    assert after.keys() == before.keys() and "run/state.pt" in before
    output = capsys.readouterr().out
    assert output.splitlines()[-1] == f"report: {report}" and output.count("kept from an earlier call") == 5


def test_the_printed_commands_ask_for_what_was_run(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    lines = unescape(page.split("<pre><code>")[1].split("</code>")[0]).splitlines()
    root = shlex.split(lines[0])[0].removeprefix("DEMO=")
    assert root == str(finished)
    words = [shlex.split(line.replace('"$DEMO"', shlex.quote(root))) for line in lines[1:]]
    assert [line[1] for line in words] == ["prepare", "train", *["insert"] * 6, "heal"]
    assert parse_prepare(words[0][2:]).roots == (finished / "phantoms",)
    train, config = parse_train(words[1][2:]), demo_config(SMALL.steps, 0)
    assert (train.train, train.m, train.networks) == (config.train, config.method, config.networks)
    assert {parse_insert(line[2:]).severity for line in words[2:-1]} == {0.0, 0.5, 1.0, 1.5}
    assert parse_heal(words[-1][2:]).out == finished / "healed"
    for line in words[2:]:  # results of other settings than these would be refused
        assert main([*line[1:], "--device", "cpu"]) == 0


def test_a_folder_with_other_files_is_refused(tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "thesis.tex" in capsys.readouterr().err and [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match="a demo with"):
        Folder(finished, {"seed": 1}).open()
    (finished / "notes.txt").write_text("mine")
    try:
        with pytest.raises(InputError, match=r"notes\.txt"):
            demo(finished, device="cpu", sizes=SMALL)
    finally:
        (finished / "notes.txt").unlink()
