"""The tables of the study from its rows: `python tests/benchmarks/study.py [rows.csv ...]`.

Rows are the ``table.csv`` of sweeps (`ddoq +experiment=fashion_mnist +study=headline` and the like), kept in
``tests/benchmarks/study``. For each file: every arm with mean, standard deviation and Student's 95 % interval, and its
paired differences, over the same seeds, from random real images, from D4M, and from its twin with equal weights.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from ddoq.evaluation.statistics import compare_paired, summarize

ROWS = Path(__file__).with_name("study")
#: What tells arms of the same name apart, where it differs between them.
TOLD = ("ipc", "labels", "teacher", "student", "variant")
#: What arms have in common that may be compared, and what twins have besides.
SAME, TWIN = ("ipc", "labels", "teacher", "student"), ("quantizer", "generator", "strength", "space")
COLUMNS = (
    "top-1 %",
    "95 % interval",
    "n",
    "against random",
    "against d4m",
    "by weights",
    "W2² / variance",
    "masses: W2",
)


def read(file: Path) -> list[dict]:
    """Return the rows of a file on the test split, with the accuracy of each seed in percent under ``top1``."""
    with file.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["split"] == "test"]
    for row in rows:
        row["top1"] = dict(zip(row["seeds"].split(), (100 * float(one) for one in row["top1"].split()), strict=True))
    return rows


def difference(row: dict, other: dict | None) -> str:
    """Return ``mean ± std (p)`` of the paired differences, a dash where there is nothing to pair."""
    seeds = [seed for seed in row["top1"] if other and other is not row and seed in other["top1"]]
    if len(seeds) < 2:
        return "–"
    paired = compare_paired([row["top1"][seed] for seed in seeds], [other["top1"][seed] for seed in seeds])
    p = "< 0.001" if paired.p_value < 0.001 else f"= {paired.p_value:.2g}"
    return f"{paired.difference.mean:+.1f} ± {paired.difference.std:.1f} (p {p})"


def transport(row: dict) -> tuple[str, str]:
    """Return W2² with the masses of cells over the variance, and how W2 changes by them from equal masses."""
    if not row["w2_squared"]:
        return "–", "–"
    own, equal, variance = (float(row[name]) for name in ("w2_squared", "w2_squared_uniform", "variance"))
    return f"{own / variance:.3f}", f"{100 * ((own / equal) ** 0.5 - 1):+.1f} %"


def baselines(row: dict, rows: list[dict]) -> list[dict | None]:
    """Return what an arm is compared with: random, D4M, and its twin with equal weights; ``None`` for none."""
    alike = [one for one in rows if all(one[key] == row[key] for key in SAME)]
    plain = [one for one in alike if one["weighting"] == "uniform" != row["weighting"]]
    twins = [one for one in plain if all(one[key] == row[key] for key in TWIN)]
    named = [next((one for one in alike if one["arm"] == name), None) for name in ("random", "d4m")]
    parts = set(row["variant"].split(", "))  # of several twins, the one that differs least
    return [*named, max(twins, key=lambda one: len(parts & set(one["variant"].split(", "))), default=None)]


def table(rows: list[dict]) -> str:
    """Return the rows of one sweep as a Markdown table."""
    told = [part for part in TOLD if len({row[part] for row in rows if row["arm"] != "full"}) > 1]
    lines = [["arm", *told, *COLUMNS]]
    lines.append(["---"] * len(lines[0]))
    for row in rows:
        score = summarize(list(row["top1"].values()))
        low, high = score.interval(0, 100)
        own = [f"{score.mean:.1f} ± {score.std:.1f}", f"[{low:.1f}, {high:.1f}]", str(score.num)]
        differences = [difference(row, other) for other in baselines(row, rows)]
        lines.append([row["arm"], *(row[part] or "–" for part in told), *own, *differences, *transport(row)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    for path in [Path(name) for name in sys.argv[1:]] or sorted(ROWS.glob("*.csv")):
        print(f"\n**{path.stem}**\n\n{table(read(path))}")
