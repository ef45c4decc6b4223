"""Bad input to check, insert and heal: scans, masks, places, flags, output folders."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np
from bad_world import AFFINE, CONTRASTS, SHAPE, Case, Place, box_mask, brain, call, make_subject, no_extra, no_gpu, save, small_disk

ONNX = ("--backend", "onnxruntime")
NOISE = np.random.default_rng(0).normal(300, 30, SHAPE).astype(np.float32)


def _with_voxel(value: float) -> np.ndarray:
    values = NOISE.copy()
    values[5, 5, 5] = value
    return values


def _corner_mask() -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[0:4, 0:4, 0:2] = 1
    return mask


def _truncated(place: Place) -> Path:
    path = place.scan("t1")
    path.write_bytes(path.read_bytes()[:2000])
    return path.parent


def _content(place: Place, contrast: str, content: bytes) -> Path:
    place.scan(contrast).write_bytes(content)
    return place.root / "s1"


def _colour(place: Place) -> Path:
    values = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    return place.spoil("t1", values)


def _flat_affine(place: Place) -> Path:
    """The sform's third row is 0; nibabel would not write such a file."""
    path = place.scan("t1")
    whole = bytearray(gzip.decompress(path.read_bytes()))
    whole[312:328] = bytes(16)
    path.write_bytes(gzip.compress(bytes(whole)))
    return path.parent


def _without(place: Place, *contrasts: str) -> Path:
    folder = place.subject()
    for contrast in contrasts:
        place.scan(contrast).unlink()
    return folder


def _second_file(place: Place) -> Path:
    folder = place.subject()
    (folder / "scan-t1n.nii.gz").write_bytes(place.scan("t1").read_bytes())
    return folder


def _folder_named_scan(place: Place) -> Path:
    path = place.scan("t1")
    path.unlink()
    path.mkdir()
    return path.parent


def _dead_link(place: Place) -> Path:
    path = place.scan("t1")
    path.unlink()
    path.symlink_to(place.root / "gone.nii.gz")
    return path.parent


def _shifted(values: np.ndarray) -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 3] = 3.0
    return affine


def _only_t2(place: Place) -> Path:
    return save(place.root / "q1" / "q1_t2.nii.gz", NOISE).parent


def _earlier_result(place: Place) -> None:
    place.text("out/s1-r00/s1-r00.json", '{"verb": "insert", "request": {"seed": 99}}')


def _twins(place: Place) -> list[Path]:
    return [make_subject(place.root / "a" / "s1"), make_subject(place.root / "b" / "s1")]


def _deep(place: Place) -> Path:
    return make_subject(place.root / "a" / "b" / "c" / "s1").parents[2]


def _far_subject(place: Place) -> Path:
    folder, affine = make_subject(place.root / "far"), AFFINE.copy()
    affine[0, 3] = 200
    for contrast in (*CONTRASTS, "seg"):
        values = nib.load(folder / f"far_{contrast}.nii.gz").get_fdata().astype(np.uint8)
        save(folder / f"far_{contrast}.nii.gz", values, affine)
    return folder


FILES = [
    Case("shape of a contrast differs", lambda p: p.insert(subject=p.spoil("flair", NOISE[:-2])), ("flair", "grid of 38 x 44 x 8", "resample")),
    Case("affine of a contrast differs", lambda p: p.insert(subject=p.spoil("t1ce", NOISE, _shifted(NOISE))), ("t1ce", "3 mm", "resample")),
    Case("two files for one contrast", lambda p: p.insert(subject=_second_file(p)), ("2 files for t1", "keep one")),
    Case("constant image", lambda p: p.insert(subject=p.spoil("t1", np.full(SHAPE, 7, np.int16))), ("_t1.nii.gz", "same value 7", "leave this contrast out")),
    Case("fractions in the mask", lambda p: p.insert(subject=p.spoil("seg", box_mask() * np.float32(0.5))), ("_seg", "fractions", "nearest neighbour")),
    Case("unknown labels", lambda p: p.insert(subject=p.spoil("seg", box_mask() * 7)), ("_seg", "labels 0, 7", "relabel")),
    Case("labels of BraTS 2024", lambda p: p.insert(subject=p.spoil("seg", box_mask() * 3 + np.roll(box_mask(), 9, 1) * 4)), ("3, 4", "resection cavity")),
    Case("negative labels", lambda p: p.insert(subject=p.spoil("seg", -box_mask().astype(np.int16))), ("-1", "relabel")),
    Case("complex voxels", lambda p: p.insert(subject=p.spoil("t1", NOISE.astype(np.complex64))), ("complex", "magnitude")),
    Case("RGB voxels", lambda p: p.insert(subject=_colour(p)), ("RGB", "grey-scale")),
    Case("singular affine", lambda p: p.insert(subject=_flat_affine(p)), ("affine without an inverse", "sform")),
    Case("voxel sizes in another unit", lambda p: p.insert(subject=p.spoil("t1", NOISE, np.diag([900.0, 900, 900, 1]))), ("mm of scan", "in mm")),
    Case("NaN", lambda p: p.insert(subject=p.spoil("t1", _with_voxel(np.nan))), ("1 voxels that are NaN", "nan_to_num")),
    Case("infinity", lambda p: p.insert(subject=p.spoil("t1", _with_voxel(np.inf))), ("infinite", "nan_to_num")),
    Case("truncated gzip", lambda p: p.insert(subject=_truncated(p)), ("_t1.nii.gz", "cut short", "copy the file again")),
    Case("garbage in the header", lambda p: p.insert(subject=_content(p, "t1", bytes(range(256)) * 4)), ("not NIfTI", "dcm2niix")),
    Case("empty file", lambda p: p.insert(subject=_content(p, "t1", b"")), ("0 bytes", "copy the scan again")),
    Case("text named .nii.gz", lambda p: p.insert(subject=_content(p, "t1", b"hello\n")), ("not NIfTI", "convert")),
    Case("gzipped text named .nii.gz", lambda p: p.insert(subject=_content(p, "t1", gzip.compress(b"hello"))), ("not NIfTI", "convert")),
    Case("time series", lambda p: p.insert(subject=p.spoil("t1", np.stack([NOISE, NOISE], -1))), ("40 x 44 x 8 x 2", "time series", "slicer")),
    Case("single slice without a third axis", lambda p: p.insert(subject=p.spoil("t1", NOISE[..., 0])), ("single image", "stack")),
    Case("folder named as a scan", lambda p: p.insert(subject=_folder_named_scan(p)), ("a folder", "give the file inside it")),
    Case("link to nowhere", lambda p: p.insert(subject=_dead_link(p)), ("does not exist", "check the name")),
    Case("only a contrast that the weights do not know", lambda p: p.insert(subject=_only_t2(p)), ("only t2", "one of t1, t1ce, flair", "use weights")),
    Case("mask but no scan", lambda p: p.insert(subject=_without(p, *CONTRASTS)), ("a mask but no scan", "add at least one contrast")),
    Case("missing folder", lambda p: p.insert(subject=p.root / "nowhere"), ("no such folder", "check the name")),
    Case("file instead of a folder", lambda p: p.insert(subject=p.scan("t1")), ("found a file", "--image")),
    Case("folder of a folder of subjects", lambda p: p.insert(subject=_deep(p)), ("folders but no scan", "just above")),
    Case("one name twice", lambda p: p.insert(subject=_twins(p)), ("several subjects", "two calls")),
    Case("no scan named", lambda p: p.argv("insert", "--out", p.out, "--weights", p.world.weights), ("SUBJECT_DIR", "name at least one")),
    Case("every contrast at fault", lambda p: p.heal(subject=_content(p, "t1", b"") if _content(p, "flair", b"x" * 400) else p.root), ("_t1", "_flair")),
]

MASKS = [
    Case("mask of another shape", lambda p: p.insert("--mask", p.mask(box_mask()[:, :-1])), ("mask.nii.gz", "40 x 43 x 8", "resample")),
    Case("mask of another affine", lambda p: p.insert("--mask", p.mask(box_mask(), _shifted(NOISE))), ("mask.nii.gz", "3 mm", "resample")),
    Case("empty mask", lambda p: p.insert("--mask", p.mask(np.zeros(SHAPE, np.uint8))), ("mask.nii.gz", "empty mask", "marks the lesion with 1")),
    Case("own mask empty", lambda p: p.insert(subject=p.spoil("seg", np.zeros(SHAPE, np.uint8))), ("empty mask", "--mask")),
    Case("no mask at all", lambda p: p.insert(subject=p.world.healthy), ("no mask", "--from-mask-of")),
    Case("mask outside the brain", lambda p: p.insert("--mask", p.mask(_corner_mask())), ("mask.nii.gz", "0 % lies on the head", "--shift-mm")),
    Case("mask with fractions", lambda p: p.insert("--mask", p.mask(box_mask() * np.float32(0.3))), ("mask.nii.gz", "fractions", "threshold")),
    Case("mask is the scan", lambda p: p.insert("--mask", p.world.cohort / "s1" / "s1_t1.nii.gz"), ("labels", "binarise")),
    Case("mask of the brain", lambda p: p.insert("--mask", p.mask(brain().astype(np.uint8))), ("mask.nii.gz", "100 % of the head", "the lesion's mask")),
    Case("mask file is missing", lambda p: p.insert("--mask", p.root / "mask.nii"), ("mask.nii", "no such file", "check the name")),
    Case("mask is a folder", lambda p: p.insert("--mask", p.root), ("a folder", "give the file inside")),
    Case("mask clipped by the shift", lambda p: p.insert("--shift-mm", 30, 0, 0), ("--shift-mm", "out of the scan", "smaller shift")),
    Case("mask shifted by light years", lambda p: p.insert("--shift-mm", 1e300, 0, 0), ("--shift-mm", "up to 10000", "in mm")),
    Case("mask shifted off the brain", lambda p: p.insert("--shift-mm", -16, -20, 0), ("on the head", "--shift-mm")),
    Case("mask clipped by the extent", lambda p: p.insert("--extent-mm", 9), ("--extent-mm 9", "edge of the scan", "grow it by less")),
    Case("mask grown beyond memory", lambda p: p.insert("--extent-mm", 9000), ("--extent-mm 9000", "edge of the scan", "grow it by less")),
    Case("mask shrunk away", lambda p: p.insert("--extent-mm", -4), ("--extent-mm -4", "shrinks to nothing", "shrink it by less")),
    Case("two sources of the mask", lambda p: p.insert("--mask", p.mask(box_mask()), "--from-mask-of", p.world.cohort / "s2"), ("--mask and --from-mask-of",)),
    Case("three sources", lambda p: p.insert("--mask", "m.nii", "--from-mask-of", "d", "--at", 0, 0, 0, "--size-mm", 3), ("and --size-mm", "leave")),
    Case("mask of a healthy subject", lambda p: p.insert("--from-mask-of", p.world.healthy), ("no mask", "another subject")),
    Case("mask of a subject that is not there", lambda p: p.insert("--from-mask-of", p.root / "s9"), ("s9", "no such folder", "check the name")),
    Case("mask of a file", lambda p: p.insert("--from-mask-of", p.mask(box_mask())), ("mask.nii.gz", "found a file", "folder")),
    Case("mask of an empty mask", lambda p: p.insert("--from-mask-of", p.spoil("seg", box_mask() * 0)), ("empty mask", "another subject")),
    Case("mask of a subject elsewhere", lambda p: p.insert("--from-mask-of", _far_subject(p)), ("--from-mask-of", "100 %", "--at X Y Z")),
    Case("heal without a mask", lambda p: p.heal(subject=p.world.healthy), ("no mask", "--mask")),
    Case("heal with an empty mask", lambda p: p.heal("--mask", p.mask(box_mask() * 0)), ("mask.nii.gz", "empty mask", "--mask")),
    Case("heal with a mask elsewhere", lambda p: p.heal("--mask", p.mask(_corner_mask())), ("on the head", "belong together")),
    Case("heal with another grid", lambda p: p.heal("--mask", p.mask(box_mask()[1:])), ("39 x 44 x 8", "resample")),
]

FLAGS = [
    Case("point outside the scan", lambda p: p.insert("--at", 500, 0, 0, "--size-mm", 4), ("--at", "outside the scan", "world coordinates")),
    Case("point beyond all numbers", lambda p: p.insert("--at", 1e300, 0, 0, "--size-mm", 4), ("--at", "up to 10000", "in mm")),
    Case("point without a size", lambda p: p.insert("--at", 20, 22, 8), ("--at", "--size-mm D", "give the diameter")),
    Case("size without a point", lambda p: p.insert("--size-mm", 5), ("--size-mm", "--at X Y Z", "give the point")),
    Case("ball cut by the edge", lambda p: p.insert("--at", 20, 22, 2, "--size-mm", 9), ("--size-mm 9", "edge of the scan", "smaller")),
    Case("ball larger than the world", lambda p: p.insert("--at", 20, 22, 8, "--size-mm", 1e300), ("--size-mm", "up to 10000", "in mm")),
    Case("size 0", lambda p: p.insert("--at", 20, 22, 8, "--size-mm", 0), ("--size-mm", "above 0", "diameter")),
    Case("negative size", lambda p: p.insert("--at", 20, 22, 8, "--size-mm", -3), ("--size-mm", "above 0", "diameter")),
    Case("size is not a number", lambda p: p.insert("--at", 20, 22, 8, "--size-mm", "nan"), ("--size-mm", "finite", "in mm")),
    Case("negative severity", lambda p: p.insert("--severity", -1), ("--severity", "-1", "0 takes the lesion out")),
    Case("severity is not a number", lambda p: p.insert("--severity", "nan"), ("--severity", "nan", "1 is as trained")),
    Case("severity beyond the scan's numbers", lambda p: p.insert("--severity", 1e38), ("--severity", "1 is as trained")),
    Case("no replicates", lambda p: p.insert("--replicates", 0), ("--replicates", "0", "number of lesions")),
    Case("no steps", lambda p: p.insert("--steps", 0), ("--steps", "1…50", "leave it out")),
    Case("more steps than times", lambda p: p.insert("--steps", 51), ("--steps", "1…50", "leave it out")),
    Case("negative threads", lambda p: p.insert("--threads", -1), ("--threads", "-1", "0…1024")),
    Case("negative workers", lambda p: p.insert("--workers", -1), ("--workers", "-1", "0…1024")),
    Case("a GPU that is not there", lambda p: p.insert("--device", "cuda"), ("--device", "no GPU", "cpu or auto"), no_gpu),
    Case("a backend for a GPU that it has none for", lambda p: p.insert(*ONNX, "--device", "cuda"), ("--backend", "with --device cuda", "--device cpu")),
    Case("a backend that is not installed", lambda p: p.heal(*ONNX), ("--backend", "onnxruntime", "pip install 'pathosyn[onnxruntime]'"), no_extra),
    Case("folders and files", lambda p: p.insert("--image", "t1=a.nii.gz"), ("--image", "together", "leave one")),
    Case("file without a contrast", lambda p: _image(p, "scan.nii.gz"), ("--image scan.nii.gz", "CONTRAST=FILE", "--image flair=scan.nii.gz")),
    Case("unknown contrast", lambda p: _image(p, "dwi=scan.nii.gz"), ("“dwi”", "one of t1, t1ce, t2, flair", "nearest contrast")),
    Case("seg as a contrast", lambda p: _image(p, "seg=m.nii.gz"), ("“seg”", "--mask m.nii.gz")),
    Case("contrast twice", lambda p: _image(p, "t1=a.nii.gz", "t1n=b.nii.gz"), ("a second time", "leave one of them out")),
    Case("contrast without a file", lambda p: _image(p, "t1="), ("no file after", "path")),
    Case("named file is missing", lambda p: _image(p, f"t1={p.root / 'a.nii.gz'}"), ("a.nii.gz", "no such file", "check the name")),
    Case("unknown flag", lambda p: p.insert("--sevarity", 2), ("--sevarity",), parser=True),
    Case("flag without its value", lambda p: p.insert("--seed"), ("--seed",), parser=True),
    Case("two numbers for a point", lambda p: p.insert("--at", 1, 2, "--size-mm", 4), ("--at",), parser=True),
    Case("word for a number", lambda p: p.insert("--replicates", "two"), ("--replicates",), parser=True),
    Case("no --out", lambda p: p.argv("insert", p.world.cohort, "--weights", p.world.weights), ("--out",), parser=True),
]


def _image(place: Place, *files: str) -> list[str]:
    return place.argv("insert", "--out", place.out, "--weights", place.world.weights, "--device", "cpu", "--at", 20, 22, 8, "--size-mm", 4, "--image", *files)


def _out(place: Place, out: Path | str, *, verb: str = "insert") -> list[str]:
    argv = getattr(place, verb)()
    argv[argv.index("--out") + 1] = str(out)
    return argv


OUTPUT = [
    Case("output is a file", lambda p: _out(p, p.text("out", "mine")), ("out", "a file", "another --out")),
    Case("output below a file", lambda p: _out(p, p.text("out", "mine") / "results"), ("out", "a file", "another --out")),
    Case("heal into a file", lambda p: _out(p, p.text("out", "mine"), verb="heal"), ("out", "a file", "another --out")),
    Case("output where nothing can be made", lambda p: _out(p, "/proc/results"), ("/proc", "another --out")),
    Case("output with a name too long", lambda p: _out(p, p.root / ("x" * 300)), ("xxx", "another --out")),
    Case("foreign files in the result's folder", lambda p: p.insert() if p.text("out/s1-r00/thesis.txt", "mine") else [], ("s1-r00", "another --out")),
    Case("another result in its folder", lambda p: p.insert() if _earlier_result(p) is None else [], ("s1-r00", "earlier result", "another --out")),
    Case("foreign files, healed", lambda p: p.heal() if p.text("out/s1-healed/a.txt", "mine") else [], ("s1-healed", "another --out")),
    Case("a result that lost a file", lambda p: _again(p), ("s1-r00", "without its s1-r00_t1.nii.gz", "delete this folder")),
    Case("folder name that is not UTF-8", lambda p: p.insert(subject=_latin(p)), ("caf\\udce9", "in UTF-8", "rename")),
    Case("disk full (insert)", lambda p: _out(p, p.root / "disk" / "out"), ("disk/out", "no space", "free some space"), around=small_disk),
    Case("disk full (heal)", lambda p: _out(p, p.root / "disk" / "out", verb="heal"), ("disk/out", "no space", "free some space"), around=small_disk),
]


def _again(place: Place) -> list[str]:
    if call(place.insert())[0]:
        raise RuntimeError("the sound command failed")
    (place.out / "s1-r00" / "s1-r00_t1.nii.gz").unlink()
    return place.insert()


def _latin(place: Place) -> Path:
    folder = Path(os.fsdecode(os.fsencode(place.root) + b"/caf\xe9"))
    return place.subject().rename(folder)


def _check(place: Place, *roots: object) -> list[str]:
    return place.argv("check", *roots, "--workers", 1)


CHECK = [
    Case("check: missing folder", lambda p: _check(p, p.root / "data"), ("no such folder", "check the name")),
    Case("check: a file", lambda p: _check(p, p.text("data.txt", "x")), ("found a file", "folder")),
    Case("check: empty folder", lambda p: _check(p, p.root), ("no scan", "give the folder")),
    Case("check: folders without scans", lambda p: _check(p, p.text("a/b/c.txt", "x").parents[1]), ("folders but no scan", "just above")),
    Case("check: a truncated scan", lambda p: _check(p, _truncated(p)), ("cut short", "copy the file again")),
    Case("check: a mask elsewhere", lambda p: _check(p, p.spoil("seg", _corner_mask())), ("100% of the lesion outside", "flipped")),
    Case("check: the brain as a lesion", lambda p: _check(p, p.spoil("seg", brain().astype(np.uint8))), ("of the head", "the lesion's mask")),
    Case("check: a name twice", lambda p: _check(p, *(f.parent for f in _twins(p))), ("name again", "rename")),
    Case("check: half a processor", lambda p: p.argv("check", p.world.cohort, "--workers", -1), ("--workers", "-1", "0…1024")),
    Case("check: nothing given", lambda p: ["check"], ("DIR", "no folder", "give the folder")),
]

CASES = [*FILES, *MASKS, *FLAGS, *OUTPUT, *CHECK]
