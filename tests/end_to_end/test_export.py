"""`pathosyn export` of sets that a generator may have drawn, into each layout; read back as another tool reads them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import Cli
from PIL import Image

from pathosyn.data.population import fingerprint
from pathosyn.data.slices import Slices
from pathosyn.data.synthetic import Group, Origin, Writer
from pathosyn.errors import InputError

CONTRASTS = ("t1", "t1ce", "flair")
TRAIN = ("phantom_000", "phantom_001", "phantom_002", "phantom_004")
BRIGHTER = 2.0
"""What a drawn lesion is here: the real one, this much brighter on its mask."""

MakeSet = Callable[..., Path]


@pytest.fixture(scope="module")
def make_set(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeSet:
    """`make_set(name, …)`: a set on the first two windows of each subject that show lesion, of two replicates, without a network."""

    def of(name: str, *, method: str = "pathosyn", purpose: str = "train", donor: str = "", contrasts: tuple[str, ...] = CONTRASTS) -> Path:
        partition = "train" if purpose == "train" else "validation"
        slices = Slices(prepared, partition, contrasts=contrasts)
        folder = tmp_path_factory.mktemp("sets") / name
        writer, count = Writer(folder, Origin(contrasts, fingerprint(slices), method, purpose, partition, "f" * 64, 7)), 0
        writer.open()
        ill = np.flatnonzero(slices.windows["lesion_pixels"] > 0)
        for row in [row for row in ill.tolist() if (slices.windows["subject"][ill[ill < row]] == slices.windows["subject"][row]).sum() < 2]:
            number, z, y, x = (int(slices.windows[name][row]) for name in ("subject", "z", "y", "x"))
            batch, subject = slices.lesion([row]), slices.subjects[number]
            known = slices.present[number][:, None, None]
            x_hat = batch.x.numpy() + BRIGHTER * batch.m.numpy() * known
            arrays = {"x_hat": x_hat, "x_sub": x_hat, "m": batch.m.numpy()[:, 0], "S": batch.S.numpy()[:, 0]}
            for replicate in (0, 1):
                made = {"row": row, "subject": subject, "z": z, "y": y, "x": x, "replicate": replicate, "seed": 7 + replicate}
                writer.add(count, Group(arrays, [{**made, "donor": donor if subject != donor else ""}]))
                count += 1
        return writer.finish(count)

    return of


@pytest.fixture(scope="module")
def drawn(make_set: MakeSet) -> Path:
    return make_set("drawn")


@pytest.fixture(scope="module")
def pasted(make_set: MakeSet) -> Path:
    return make_set("pasted", method="copy-paste", donor="phantom_001")


@pytest.fixture(scope="module")
def raw(cli: Cli, prepared: Path, drawn: Path, pasted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nnU-Net's data set of both."""
    out = tmp_path_factory.mktemp("raw")
    assert cli("export", drawn, pasted, "--data", prepared, "--to", "nnunet", "--out", out, "--folds", 3, "--healthy", 1, "--dataset-id", 7) == 0
    return out / "Dataset007_Pathosyn"


def test_nnunet_has_the_files_that_its_description_tells_of(raw: Path) -> None:
    about = json.loads((raw / "dataset.json").read_text())
    assert about["channel_names"] == {"0": "t1", "1": "t1ce", "2": "flair"} and about["labels"] == {"background": 0, "lesion": 1}
    labels = {path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir()}
    assert {path.name for path in (raw / "imagesTr").iterdir()} == {f"{case}_{c:04d}.nii.gz" for case in labels for c in range(3)}
    table = pd.read_csv(raw / "provenance.csv", keep_default_na=False)
    assert about["numTraining"] == len(labels) == len(table) and set(table["case"]) == labels
    assert not table["subject"].isin(["phantom_003", "phantom_004", "phantom_005"]).any(), "others' subjects, and one without t1ce"
    assert table.groupby("kind").size()["synthetic"] == 3 * 2 * 2 * 2, "three subjects, two slices, two replicates, two sets"
    some = table[table["method"] == "copy-paste"].iloc[0]
    assert (some["partition"], some["weights"], some["mask_source"], some["seed"]) == ("train", "f" * 64, "phantom_001", "7")


def test_a_real_slice_is_the_scans_own_voxel_by_voxel(raw: Path, tiny_cohort: Path) -> None:
    table = pd.read_csv(raw / "provenance.csv")
    for _, row in table[table["kind"] == "real"].iterrows():
        for channel, contrast in enumerate(CONTRASTS):
            file = nib.load(raw / "imagesTr" / f"{row['case']}_{channel:04d}.nii.gz")
            scan = nib.as_closest_canonical(nib.load(next((tiny_cohort / row["subject"]).glob(f"*_{contrast}.nii.gz"))))
            step = scan.header.get_zooms()[0]
            assert len(file.shape) == 2 and np.allclose(file.header.get_zooms(), step), "a 2-D file: nnU-Net plans 2d"
            (x, y), (width, height) = np.rint(file.affine[:2, 3] / step).astype(int), file.shape
            assert np.array_equal(np.asarray(file.dataobj), np.asarray(scan.dataobj)[x : x + width, y : y + height, row["slice"]])


def test_a_drawn_slice_is_the_scan_but_for_the_lesion_that_its_label_marks(raw: Path) -> None:
    table = pd.read_csv(raw / "provenance.csv", keep_default_na=False)
    real = {(row["subject"], row["slice"]): row["case"] for _, row in table[table["kind"] == "real"].iterrows()}
    for _, row in table[table["kind"] == "synthetic"].iterrows():
        images = [np.asarray(nib.load(raw / "imagesTr" / f"{case}_0002.nii.gz").dataobj) for case in (row["case"], real[row["subject"], row["slice"]])]
        label = np.asarray(nib.load(raw / "labelsTr" / f"{row['case']}.nii.gz").dataobj)
        assert label.any() and np.array_equal(images[0] > images[1], label > 0) and not (images[0] < images[1]).any()


def test_no_fold_trains_on_a_source_of_its_validation(raw: Path) -> None:
    table = pd.read_csv(raw / "provenance.csv", keep_default_na=False).set_index("case")
    splits = json.loads((raw / "splits_final.json").read_text())
    assert len(splits) == 3 and sorted(case for fold in splits for case in fold["val"]) == sorted(table.index[table["kind"] == "real"])
    for fold in splits:
        held = set(table.loc[fold["val"], "subject"])
        assert not set(fold["train"]) & set(fold["val"]) and (table.loc[fold["val"], "kind"] == "real").all()
        rest = table[~table["subject"].isin(held) & ~table["donor"].isin(held)]
        assert sorted(fold["train"]) == sorted(rest.index), "and on all else"
    assert any((table["donor"].isin(set(table.loc[fold["val"], "subject"]))).any() for fold in splits), "some donor validates"


def test_nnunets_own_check_takes_it(raw: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed: pip install nnunetv2")
    monkeypatch.setenv("nnUNet_raw", str(raw.parent))
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    verify_dataset_integrity(str(raw), 1)
    assert "most likely OK" in capfd.readouterr().out


@pytest.fixture(scope="module")
def derivatives(cli: Cli, prepared: Path, make_set: MakeSet, pasted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BIDS of a training set and one of a validation subject."""
    out = tmp_path_factory.mktemp("bids") / "derivatives"
    assert cli("export", make_set("judged", purpose="evaluate"), pasted, "--data", prepared, "--to", "bids", "--out", out) == 0
    return out


def test_bids_names_and_sidecars(derivatives: Path) -> None:
    names = sorted(path.name for path in derivatives.rglob("sub-*.nii.gz"))
    pattern = r"sub-phantom00\d(_ce-gadolinium)?_chunk-\d{3}(_label-lesion)?_desc-(pathosyn|copypaste)r[01]_(T1w|FLAIR|mask)\.nii\.gz"
    assert names and all(re.fullmatch(pattern, name) for name in names)
    assert {"sub-phantom004", "sub-phantom003"} <= {path.name for path in derivatives.glob("sub-*")}, "a missing contrast is a missing file"
    assert not list((derivatives / "sub-phantom004").rglob("*_ce-gadolinium_*"))
    for name in names:
        about = json.loads(next(derivatives.rglob(name.replace(".nii.gz", ".json"))).read_text())
        assert about["Synthetic"] is True and about["WeightsSHA256"] == "f" * 64 and about["Seed"] in (7, 8)
        assert about["SourcePartition"] == ("validation" if "phantom003" in name else "train") and about["Description"]
        for source in about.get("Sources", []):
            assert (derivatives / source.removeprefix("bids::")).is_file()
    description = json.loads((derivatives / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative" and "License" not in description
    assert description["GeneratedBy"][0]["Description"] == f"weights sha256 {'f' * 64}", "none of ours, so without a name"
    for table in ("participants", "descriptions"):
        columns, about = (derivatives / f"{table}.tsv").read_text().split("\n")[0].split("\t"), json.loads((derivatives / f"{table}.json").read_text())
        assert about["Description"] and set(about) - {"Description"} <= set(columns)
    volume = nib.load(next(derivatives.rglob("*_mask.nii.gz")))
    assert volume.ndim == 3 and volume.shape[2] == 1 and set(np.unique(np.asarray(volume.dataobj))) == {0, 1}


def test_the_bids_validator_takes_it(derivatives: Path) -> None:
    validator = os.environ.get("BIDS_VALIDATOR") or shutil.which("bids-validator-deno")
    if validator is None:
        pytest.skip("bids-validator-deno is not installed: pip install bids-validator-deno")
    found = json.loads(subprocess.run([validator, "--json", str(derivatives)], capture_output=True, check=False).stdout)
    assert [issue for issue in found["issues"]["issues"] if issue["severity"] == "error"] == []


def test_png_pairs_can_be_turned_back_into_units(cli: Cli, prepared: Path, drawn: Path, tmp_path: Path) -> None:
    assert cli("export", drawn, "--data", prepared, "--to", "png", "--out", tmp_path / "png", "--contrasts", "flair", "t1") == 0
    about, table = json.loads((tmp_path / "png" / "export.json").read_text()), pd.read_csv(tmp_path / "png" / "pairs.csv")
    assert len(table) == 4 * 2 * 2 and len(list((tmp_path / "png" / "images").iterdir())) == 2 * len(table)
    slices, scale = Slices(prepared, "train", contrasts=("flair",)), about["images"]
    for _, row in table.iterrows():
        pixels = np.asarray(Image.open(tmp_path / "png" / "images" / f"{row['case']}_flair.png"))
        mask = np.asarray(Image.open(tmp_path / "png" / "masks" / f"{row['case']}.png"))
        assert pixels.dtype == np.uint16 and mask.dtype == bool and mask.any()
        number = slices.subjects.index(row["subject"])
        plane, _ = slices.plane(number, row["slice"] - slices.origin_of(number)[0])
        values = (scale["black"] + pixels / 65535 * (scale["white"] - scale["black"]))[::-1]
        wanted = np.minimum(plane[0] + BRIGHTER * mask[::-1], scale["white"])
        assert np.abs(values - wanted).max() < 0.01, "half precision of the set, and no more"


def test_an_older_export_is_replaced_and_nothing_else_is(cli: Cli, prepared: Path, drawn: Path, pasted: Path, tmp_path: Path) -> None:
    out = tmp_path / "png"
    assert cli("export", drawn, "--data", prepared, "--to", "png", "--out", out) == 0
    assert cli("export", pasted, "--data", prepared, "--to", "png", "--out", out) == 0
    assert set(pd.read_csv(out / "pairs.csv")["method"]) == {"copy-paste"} and len(list((out / "masks").iterdir())) == 16
    (out / "export.json").unlink()
    assert cli("export", drawn, "--data", prepared, "--to", "png", "--out", out) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["png"]


@pytest.mark.parametrize(
    "flags, told",
    [
        (("--dataset-id", 0), "--dataset-id: found 0; expected 1…999"),
        (("--dataset-id", 1000), "expected 1…999"),
        (("--dataset-name", "my set"), "--dataset-name: found 'my set'"),
        (("--folds", 4), "--folds: found 4 folds of 3 subjects"),
        (("--folds", 1), "--folds: found 1 folds"),
        (("--contrasts", "t2"), "--contrasts: found t2; expected contrasts that every set has: t1, t1ce, flair"),
    ],
)
def test_what_nnunet_would_not_take_is_told_in_a_line(
    cli: Cli, prepared: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[object, ...], told: str
) -> None:
    assert cli("export", drawn, "--data", prepared, "--to", "nnunet", "--out", tmp_path / "raw", *flags) == 2
    faults = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pathosyn export: ")]
    assert len(faults) == 1 and told in faults[0] and not list(tmp_path.iterdir())


def test_sets_that_do_not_belong_are_refused(
    cli: Cli, prepared: Path, make_set: MakeSet, drawn: Path, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--data", prepared, "--out", tmp_path / "out")
    other = Path(shutil.copytree(drawn, tmp_path / "foreign"))
    about = json.loads((other / "set.json").read_text())
    (other / "set.json").write_text(json.dumps({**about, "data": "0" * 64}))
    for words, told in (
        ((make_set("judged", purpose="evaluate"), *common, "--to", "nnunet"), "a set with purpose evaluate, of validation subjects"),
        ((other, *common, "--to", "png"), "a set drawn on other data"),
        ((drawn, drawn, *common, "--to", "png"), "the same set twice"),
        ((drawn, make_set("less", contrasts=("t2",)), *common, "--to", "png"), "--contrasts: found none"),
        ((drawn, "--data", prepared, "--to", "nnunet", "--out", raw.parent, "--dataset-id", 7, "--dataset-name", "Other"), "which Dataset007_Pathosyn has"),
    ):
        assert cli("export", *words) == 2
        (fault,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pathosyn export: ")]
        assert told in fault
    assert [path.name for path in tmp_path.iterdir()] == ["foreign"] and [path.name for path in raw.parent.iterdir()] == [raw.name]


def test_a_failure_half_way_leaves_nothing(prepared: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathosyn import export
    from pathosyn.export import png

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(png, "as_grey", full)
    with pytest.raises(InputError, match="no space left"):
        export([drawn], prepared, "png", tmp_path / "deep" / "png", progress=False)
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_is_told_before_anything_is_written(prepared: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathosyn import export

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1000))  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="a full disk"):
        export([drawn], prepared, "png", tmp_path / "png", progress=False)
    assert not list(tmp_path.iterdir())
