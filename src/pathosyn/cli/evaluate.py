"""pathosyn evaluate."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from pathosyn.cli.sources import use_threads
from pathosyn.errors import refuse

if TYPE_CHECKING:
    import pandas as pd

    from pathosyn.data.synthetic import SyntheticSet


@dataclasses.dataclass(frozen=True)
class EvaluateVerb:
    """Measure sets that `pathosyn generate` wrote, on the subjects they were drawn on. Prints the table and writes it, and the rows behind it, as CSV."""

    question: tyro.conf.Positional[Literal["realism", "appearance", "diversity", "gallery", "comparison"]]
    """realism: can a judge tell them from real ones. appearance: statistics beside real ones. diversity: spread and memory.
    gallery: sheets to score blind, and once they are scored the AUC. comparison: one picture of all sets side by side, and of the last one its substrate and
    deviation."""
    real: Path
    """The slices file with the real scans."""
    synthetic: tuple[str, ...]
    """NAME=DIR each; NAME=DIR,DIR where a set with purpose train helps the judge to learn."""
    out: Path
    """Folder for the tables."""
    judges: tuple[Literal["trees", "cnn"], ...] = ("trees", "cnn")
    """realism: which judges."""
    contrasts: tuple[str, ...] = ()
    """comparison: which, one a row; all if not given."""
    threads: int = 0
    """CPU threads; 0: as many as torch sees fit."""

    def run(self) -> int:
        """The tables, on standard output too."""
        from pathosyn.writing import refuse_unwritable

        refuse_unwritable(self.out, "--out")
        use_threads(self.threads)
        sets = _sets(self.synthetic)
        self.out.mkdir(parents=True, exist_ok=True)
        if self.question == "gallery":
            return self._gallery(sets)
        if self.question == "comparison":
            from pathosyn.evaluate.comparison import sheet

            print(sheet(self.real, {name: _judged(some)[0] for name, some in sets.items()}, self.out / "comparison.png", contrasts=self.contrasts))
            return 0
        rows, table = {"realism": self._realism, "appearance": self._appearance, "diversity": self._diversity}[self.question](sets)
        _write(rows, self.out / f"{self.question}-rows.csv")
        _write(table, self.out / f"{self.question}.csv")
        print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
        print(f"tables: {self.out}")
        return 0

    def _realism(self, sets: dict[str, list[SyntheticSet]]) -> tuple[pd.DataFrame, pd.DataFrame]:
        from pathosyn.evaluate import realism

        found = realism.measure(self.real, sets, judges=self.judges)
        return found, found

    def _appearance(self, sets: dict[str, list[SyntheticSet]]) -> tuple[pd.DataFrame, pd.DataFrame]:
        import pandas as pd

        from pathosyn.evaluate import appearance

        found = pd.concat([appearance.measure(self.real, name, each) for name, some in sets.items() for each in _judged(some)])
        return found, appearance.table(found)

    def _diversity(self, sets: dict[str, list[SyntheticSet]]) -> tuple[pd.DataFrame, pd.DataFrame]:
        import pandas as pd

        from pathosyn.evaluate import diversity

        found = pd.concat([diversity.measure(self.real, name, each) for name, some in sets.items() for each in _judged(some)])
        return found, diversity.table(found)

    def _gallery(self, sets: dict[str, list[SyntheticSet]]) -> int:
        from pathosyn.evaluate import gallery

        shown = False
        for name, some in sets.items():
            # What was scored is not drawn anew: its key would be lost.
            if (eye := gallery.result(self.out / name)) is not None:
                print(f"{name}: AUC of your scores {eye} over {eye.subjects} subjects")
                continue
            shown = True
            for each in _judged(some):
                for sheet in gallery.blind(self.real, each, self.out / name):
                    print(sheet)
        if shown:
            print("next: look at the sheets, fill in scores.csv, give this command again for the AUC, then open key.csv")
        return 0


def _sets(given: tuple[str, ...]) -> dict[str, list[SyntheticSet]]:
    from pathosyn.data.synthetic import SyntheticSet

    sets: dict[str, list[SyntheticSet]] = {}
    for text in given:
        name, separator, folders = text.partition("=")
        if not separator or not name or name in sets:
            raise refuse("--synthetic", found=f"'{text}'", expected="NAME=DIR, each name once", remedy="write default=sets/default, say")
        sets[name] = [SyntheticSet(Path(folder)) for folder in folders.split(",")]
        if not _judged(sets[name]):
            remedy = "add one that `pathosyn generate --purpose evaluate` wrote"
            raise refuse("--synthetic", found=f"{name}: only sets with purpose train", expected="one with purpose evaluate", remedy=remedy)
    return sets


def _judged(sets: list[SyntheticSet]) -> list[SyntheticSet]:
    return [each for each in sets if each.origin.purpose == "evaluate"]


def _write(table: pd.DataFrame, path: Path) -> None:
    from pathosyn.writing import beside

    with beside(path) as file:
        file.write(table.to_csv(index=False).encode())


def parse(arguments: list[str]) -> EvaluateVerb:
    """From the command line."""
    return tyro.cli(EvaluateVerb, args=arguments, prog="pathosyn evaluate")
