"""The same networks with forms on other cells, as a beginning for a training: what they know of 4 mm is a better start at 2 mm than nothing.

    python tools/finer_cells.py WEIGHTS.safetensors|NAME --coarse 2 --out FINER.safetensors
    pathosyn train --from FINER.safetensors --train.structure-share 1 …, then --train.sharpen-share 1 …

A form at 2 mm looks to the network like one at 4 mm of a lesion twice as large, so it draws forms from the first step on; they are not right before the
stage `structure` has measured roughness and looks anew and learned. The network that draws in one call is left out: it learned from the old one.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from pathosyn.checkpoint import load, save_weights
from pathosyn.methods import build
from pathosyn.weights import find


def main() -> int:
    """Write the file; 2 where the weights have no forms, or the cells do not fit the windows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("--coarse", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    loaded = load(find(given.weights))
    method = loaded.method.config.method
    if method.coarse < 2 or given.coarse not in (2, 4, 8):
        print(f"found cells of {method.coarse} pixels and --coarse {given.coarse}; expected weights with forms, and 2, 4 or 8; give such", file=sys.stderr)
        return 2
    made = build(replace(loaded.config, method=replace(method, coarse=given.coarse, distilled=False)))
    made.critic = None
    made.load_state_dict({name: value for name, value in loaded.method.state_dict().items() if not name.startswith(("student.", "taught"))})
    save_weights(given.out, made, replace(loaded.provenance, parent=loaded.sha256))
    print(f"{given.out}: cells of {given.coarse} instead of {method.coarse} pixels, from {loaded.sha256[:12]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
