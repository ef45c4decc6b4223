"""What grade or sub-regions could tell the generator on this data: is a lesion's grade to be seen in it, and how many subjects have sub-regions?

    python benchmarks/quality_conditions.py --data slices.h5 [--windows 12] [--partitions train validation]

AUC of the trees that judge realism, asked for grade 3 against grade 2 on features of real lesions, folds by subject, intervals over subjects: of each subject
the mean over its windows is scored. A condition whose own truth leaves no trace in the lesions (.5) cannot be learned from them.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from pathosyn.cohort.scenes import chosen
from pathosyn.data.slices import Slices
from pathosyn.evaluate import realism
from pathosyn.evaluate.statistics import auc, bootstrap


def main() -> None:
    """Print the subjects by condition and the AUC by region of features."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=12)
    parser.add_argument("--partitions", nargs="+", default=["train", "validation"])
    parser.add_argument("--contrasts", nargs="+", default=["t1", "t1ce", "flair"])
    given = parser.parse_args()
    grades, counts = {}, Counter()
    with h5py.File(given.data, "r") as file:
        for name, group in file["subjects"].items():
            if group.attrs["partition"] not in given.partitions:
                continue
            grade = json.loads(group.attrs["attributes"]).get("grade") or "unknown"
            labels = len(np.unique(group["seg"][()])) - 1
            counts[group.attrs["partition"], f"grade {grade}"] += 1
            counts[group.attrs["partition"], "sub-regions" if labels > 1 else "one label"] += 1
            grades[name] = grade
    for (partition, what), count in sorted(counts.items()):
        print(f"{partition}: {count} subjects with {what}")
    slices = Slices(given.data, given.partitions, contrasts=given.contrasts)
    rows, subjects, third = [], [], []
    for row in chosen(slices, given.windows):
        scene, subject = realism.Scene.of(slices, int(row)), slices.subjects[int(slices.windows["subject"][row])]
        if grades[subject] not in ("2.0", "3.0") or scene.m.sum() < realism.SMALLEST:
            continue
        rows.append(realism.measured(scene, scene.x, scene.m, scene.S > 0))
        subjects.append(subject)
        third.append(grades[subject] == "3.0")
    found = realism.Pairs(pd.DataFrame(rows), np.array(subjects), np.ones(len(rows), bool), np.array(third))
    print("features of | grade 3 against 2, AUC over subjects")
    for region in ("lesion", "lesion, intensity", "lesion, texture", "lesion, rim", "background"):
        by_subject = pd.DataFrame({"subject": subjects, "score": realism.trees(found, region)[1], "third": third}).groupby("subject").mean()
        score, label = by_subject["score"].to_numpy(), by_subject["third"].to_numpy() > 0
        print(f"{region} | {bootstrap(lambda some, s=score, y=label: auc(s[some], y[some]), list(by_subject.index))}", flush=True)


if __name__ == "__main__":
    main()
