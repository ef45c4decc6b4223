"""Steps against quality: how real drawn lesions look with 1 to 50 calls of the diffusion, for each solver, and what they cost.

    python benchmarks/quality_steps.py --data slices.h5 [--weights glioma] [--calls 1 2 4 6 8 10 20 50] [--solvers ddim …] [--seeds 0 1] --out DIR

On the validation subjects `--judge` windows each are drawn anew on their own masks, with the calls that the row names on the coarse grid and one more at full
resolution (weights without a coarse grid: all calls at full resolution). `gap` is `judging.gap`, 0 is real; `lesion` and `texture` are the trees' AUC by
folds of these subjects, .5 is real. Every draw of a seed starts from the same noise, so rows of a seed differ by the solver alone. `taught` is the network
that learned to draw in one call (`distilled`), of weights that hold one. `seconds` are the processor's a window, drawing alone.

Written to --out: steps.csv, and steps.png, which it can make again from the CSV (--figure-only).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import judging
import matplotlib.pyplot as plt
import pandas as pd

from pathosyn.data.synthetic import SyntheticSet
from pathosyn.evaluate import realism
from pathosyn.generate import generate
from pathosyn.reuse import chosen

SOLVERS = {
    "ddim": "solver=ddim,spacing=trailing,eta=0.0",
    "ddim, quadratic": "solver=ddim,spacing=quadratic,eta=0.0",
    "ancestral": "solver=ancestral,spacing=trailing,eta=0.0",
    "dpm2m": "solver=dpm2m,spacing=quadratic,eta=0.0",
    "sde-dpm2m": "solver=sde-dpm2m,spacing=quadratic,eta=0.0",
    "taught": "distilled=True",
}
MEASURES = {"gap": "distance of features (0 is real)", "lesion": "AUC of trees (.5 is real)", "seconds": "processor seconds a window"}


def main() -> None:
    """A row a solver, number of calls and seed."""
    parser = judging.arguments(__doc__, learn=0, judge=12)
    parser.add_argument("--calls", type=int, nargs="+", default=[1, 2, 4, 6, 8, 10, 20, 50])
    parser.add_argument("--solvers", nargs="+", choices=tuple(SOLVERS), default=list(SOLVERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure-only", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if not given.figure_only:
        measure(given)
    figure(pd.read_csv(given.out / "steps.csv"), given.out / "steps.png")
    print(given.out / "steps.png")


def measure(given: argparse.Namespace) -> None:
    """Rows into steps.csv, each when it is known."""
    loaded = judging.ready(given)
    config, rows = loaded.method.config, []
    print("solver | calls | seed | gap | lesion | texture | seconds a window")
    for seed in given.seeds:
        for solver in given.solvers:
            for calls in [1] if solver == "taught" else given.calls:
                loaded.method.config = replace(config, method=chosen(config.method, f"{SOLVERS[solver]},steps={calls}"))
                with tempfile.TemporaryDirectory() as folder:
                    begun = time.process_time()
                    generate(given.data, Path(folder) / "s", loaded, per_subject=given.judge, seed=seed, progress=False)
                    spent = time.process_time() - begun
                    found = realism.pairs(given.data, [SyntheticSet(Path(folder) / "s")], show=False)
                told = {name: realism.trees(found, region)[0].value for name, region in (("lesion", "lesion"), ("texture", "lesion, texture"))}
                row = {"solver": solver, "calls": calls, "seed": seed, "gap": judging.gap(found), **told, "seconds": spent / (found.judged.sum() // 2)}
                rows.append(row)
                print(" | ".join(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()), flush=True)
                pd.DataFrame(rows).to_csv(given.out / "steps.csv", index=False)


def figure(rows: pd.DataFrame, out: Path) -> None:
    """A panel a measure, a line a solver: the mean over seeds, and their range."""
    panels, axes = plt.subplots(1, len(MEASURES), figsize=(4 * len(MEASURES), 3.2), layout="constrained")
    for ax, (name, label) in zip(axes, MEASURES.items(), strict=True):
        for solver, some in rows.groupby("solver", sort=False):
            by = some.groupby("calls")[name]
            ax.plot(by.mean().index, by.mean(), marker="o", markersize=3, label=solver)
            ax.fill_between(by.mean().index, by.min(), by.max(), alpha=0.15)
        ax.set(xscale="log", xlabel="calls of the diffusion", ylabel=label)
        ax.set_xticks(sorted(rows["calls"].unique()), [str(n) for n in sorted(rows["calls"].unique())])
        ax.minorticks_off()
    axes[0].legend(fontsize=7)
    panels.savefig(out, dpi=150)
    plt.close(panels)


if __name__ == "__main__":
    main()
