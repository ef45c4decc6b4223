"""Put a run's weights into the package: 16-bit, named, versioned, with their checksum in index.json.

    python tools/ship_weights.py glioma runs/x/weights.safetensors --version 1 --what "T1, T1ce, FLAIR …" [--draw gather=True,steps=20]

`--draw`: how it is to be drawn with them (fields of `pathosyn.reuse.FREE`), where that is not how they were trained to be.
The first entry of index.json is the default; a name that is there already is replaced in its place.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from pathosyn.checkpoint import load, save_weights
from pathosyn.data.nifti import file_sha256
from pathosyn.reuse import chosen

FOLDER = Path(__file__).parent.parent / "src" / "pathosyn" / "weights"


def main() -> None:
    """Write the file and the index; prints size and checksum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("weights", type=Path)
    parser.add_argument("--version", required=True)
    parser.add_argument("--what", required=True)
    parser.add_argument("--draw", default="")
    given = parser.parse_args()
    loaded = load(given.weights)
    if given.draw:
        method = loaded.method
        method.config = replace(loaded.config, method=chosen(loaded.config.method, given.draw))
        if method.config.method.distilled and method.student is None:
            parser.error(f"{given.weights} holds no network that draws in one call; leave distilled=True out")
        if method.student is not None and not method.config.method.distilled:
            method.student = None
            del method.taught
    path = FOLDER / f"{given.name}-{given.version}.safetensors"
    save_weights(path, loaded.method, loaded.provenance, half=True)
    index = FOLDER / "index.json"
    rows = json.loads(index.read_text()) if index.is_file() else []
    row = {"name": given.name, "file": path.name, "version": given.version, "sha256": file_sha256(path), "what": given.what}
    old = [r for r in rows if r["name"] == given.name]
    for each in old:
        if each["file"] != path.name:
            (FOLDER / each["file"]).unlink(missing_ok=True)
    rows = [row if r["name"] == given.name else r for r in rows] if old else [*rows, row]
    index.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, sha256 {row['sha256']}")


if __name__ == "__main__":
    main()
