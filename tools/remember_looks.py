"""Measure what the training lesions look like anew, into weights that were trained before the project measured all of it; the networks stay.

    python tools/remember_looks.py WEIGHTS --data slices.h5 --out NEW.safetensors

What `pathosyn train` does when the stage `structure` begins (`looks.remember`), on the same training subjects: refuses other ones.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from pathosyn.checkpoint import load, save_weights
from pathosyn.training import feed
from pathosyn.training.start import beginning
from pathosyn.weights import find


def main() -> int:
    """Write the new file; 2 where the data is not what the weights learned from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    old = load(find(given.weights))
    asked = replace(old.config.method, attune=True, tails=True, borders=True, fisher_z=True, log_spreads=True)
    train = replace(old.config.train, structure_share=0.0, distil_share=0.0)  # no network of forms learns, and so the one that learned from it stays
    method = beginning(replace(old.config, method=asked, train=train), old.path).eval()
    method.config = replace(method.config, train=old.config.train)
    slices = feed.training_slices(given.data, method.config)
    learned = set(old.provenance.subjects["train"])
    if differing := sorted(learned ^ set(slices.subjects)):
        print(f"{given.data}: found other training subjects ({differing[0]} …); expected the {len(learned)} of {old.path}; give that data", file=sys.stderr)
        return 2
    with torch.inference_mode():
        method.begin("structure", feed.Windows(slices, torch.device("cpu")))
    save_weights(given.out, method, replace(old.provenance, parent=old.provenance.parent or old.sha256))
    print(f"{given.out}: {int((method.looks_of[:, 1] > 0).sum())} windows of {len(slices.subjects)} subjects measured")
    return 0


if __name__ == "__main__":
    sys.exit(main())
