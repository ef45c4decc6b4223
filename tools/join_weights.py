"""Join two trainings that went on from the same weights: the coarse network of one, the last call (eps_theta) of the other.

    python tools/join_weights.py STRUCTURE.safetensors SHARPENED.safetensors --out JOINED.safetensors [--substrate SUBSTRATE.safetensors]

The stages `structure` and `sharpen` do not depend on each other once f_sub and the scale of r stand, so they can be trained side by side. Refuses weights
whose f_sub or scale differ. With `--substrate` f_sub is that of a third training from the same weights: forms hold the scan's own intensities
(`cells` = intensity), so they hardly change with it; the last call must have learned with it, which is checked.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from pathosyn.checkpoint import load, save_weights

LAST_CALL = ("context", "grain", "level", "adversary", "low", "patches", "anchor")
"""The decisions that belong to eps_theta; the others are the structure's."""


def main() -> int:
    """Write the joined file; 2 where the two do not belong together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structure", type=Path)
    parser.add_argument("sharpened", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--substrate", type=Path)
    given = parser.parse_args()
    structure, sharpened = load(given.structure), load(given.sharpened)
    parents = [structure, sharpened]
    if given.substrate:
        parents.append(load(given.substrate))
        structure.method.sub.load_state_dict(parents[-1].method.sub.state_dict())
    ours, theirs = structure.method.state_dict(), sharpened.method.state_dict()
    # What lesions look like is the structure's alone; the other training may never have asked.
    statistics = {name for name, _ in structure.method.named_buffers()}
    shared = [name for name in ours if name.startswith("sub.") or (name in statistics and not name.startswith(("look", "taught")))]
    if differing := [name for name in shared if name not in theirs or not torch.equal(ours[name], theirs[name])]:
        print(f"found weights whose {differing[0]} differs; expected two trainings from the same weights; give such a pair", file=sys.stderr)
        return 2
    joined = structure.method
    joined.eps.load_state_dict(sharpened.method.eps.state_dict())
    last = {name: getattr(sharpened.config.method, name) for name in LAST_CALL}
    joined.config = replace(structure.config, method=replace(structure.config.method, **last))
    steps = structure.provenance.steps + sharpened.provenance.steps
    parent = " ".join(each.sha256 for each in parents)
    save_weights(given.out, joined, replace(structure.provenance, steps=max(steps, joined.config.train.steps), parent=parent))
    print(f"{given.out}: coarse network of {structure.sha256[:12]}, eps_theta of {sharpened.sha256[:12]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
