"""The tables of the study from its rows: `python tests/benchmarks/study.py`, or with files:
`... rows.csv ...`.

Rows are the ``table.csv`` of sweeps (`ddoq +experiment=fashion_mnist +study=headline` and the
like), kept in ``tests/benchmarks/study``. Without arguments, prints the tables that the README and
``tests/benchmarks/README.md`` show (``tests/benchmarks/test_study.py`` compares them). Of a file,
prints every arm with mean, standard deviation and Student's 95 % interval, and its paired
differences, over the same seeds, from random real images, from D4M, and from its twin with equal
weights.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Sequence
from math import log
from pathlib import Path
from statistics import linear_regression

from ddoq.evaluation.statistics import Summary, compare_paired, summarize

ROWS = Path(__file__).with_name("study")
DATA = {"fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "imagenette_fastai": "ImageNette"}
#: Lines of the headline, and what the rows are that they show.
HEADLINE = {
    "full": {"arm": "full"},
    "random": {"arm": "random"},
    "nearest": {"arm": "nearest"},
    "d4m": {"arm": "d4m"},
    "DDOQ, cells of latents": {"space": "latents", "quantizer": "kmeans", "weighting": "mass"},
    "**DDOQ, cells of features, as real images**": {
        "space": "teacher",
        "weighting": "mass",
        "push": "real",
    },
    "**DDOQ, cells of features, decoded**": {
        "space": "teacher",
        "weighting": "mass",
        "push": "decode",
    },
    "DDOQ, cells of features, through the DiT": {
        "space": "teacher",
        "weighting": "mass",
        "push": "dit",
    },
}
#: Lines of the table of causes; each shows its row with equal weights and its row with masses.
CAUSES = {
    "full": {"arm": "full"},
    "random real": {"quantizer": "random", "push": "real"},
    "herding real": {"quantizer": "herding", "push": "real"},
    "nearest real, latents": {"quantizer": "nearest", "push": "real", "space": "latents"},
    "nearest real, features": {"quantizer": "nearest", "push": "real", "space": "teacher"},
    "the same, decoded": {"quantizer": "nearest", "push": "decode", "space": "teacher"},
    "k-means, decoded": {"quantizer": "kmeans", "push": "decode"},
    "D4M, decoded": {"quantizer": "d4m", "push": "decode"},
    "barycentre, decoded": {"quantizer": "barycenter", "push": "decode"},
    "k-means, DiT (the paper)": {"quantizer": "kmeans", "push": "dit"},
    "D4M, DiT": {"quantizer": "d4m", "push": "dit"},
    "barycentre, DiT": {"quantizer": "barycenter", "push": "dit"},
}
#: What tells arms of the same name apart, where it differs between them.
TOLD = ("ipc", "labels", "teacher", "student", "space", "variant")
#: What arms have in common that may be compared, and what twins have besides.
SAME = ("ipc", "labels", "teacher", "student")
TWIN = ("quantizer", "generator", "strength", "space")
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
    """Return the rows of a file on the test split,
    with the accuracy of each seed in percent under ``top1``.

    Files ``validation-*``, by which defaults were chosen, are of the validation split.
    """
    split = "validation" if file.name.startswith("validation-") else "test"
    with file.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["split"] == split]
    for row in rows:
        row["push"] = row["generator"].partition("_")[0]  # real, decode or dit
        row["top1"] = dict(
            zip(
                row["seeds"].split(), (100 * float(one) for one in row["top1"].split()), strict=True
            )
        )
    return rows


def difference(row: dict, other: dict | None) -> str:
    """Return ``mean ± std (p)`` of the paired differences,
    a dash where there is nothing to pair.
    """
    seeds = [seed for seed in row["top1"] if other and other is not row and seed in other["top1"]]
    if len(seeds) < 2:
        return "–"
    paired = compare_paired(
        [row["top1"][seed] for seed in seeds], [other["top1"][seed] for seed in seeds]
    )
    p = "< 0.001" if paired.p_value < 0.001 else f"= {paired.p_value:.2g}"
    return f"{paired.difference.mean:+.1f} ± {paired.difference.std:.1f} (p {p})"


def transport(row: dict) -> tuple[str, str]:
    """Return W2² with the masses of cells over the variance,
    and how W2 changes by them from equal masses.
    """
    if not row["w2_squared"]:
        return "–", "–"
    own, equal, variance = (
        float(row[name]) for name in ("w2_squared", "w2_squared_uniform", "variance")
    )
    return f"{own / variance:.3f}", f"{100 * ((own / equal) ** 0.5 - 1):+.1f} %"


def baselines(row: dict, rows: list[dict]) -> list[dict | None]:
    """Return what an arm is compared with: random, D4M, and its twin with equal weights;
    ``None`` for none.
    """
    alike = [one for one in rows if all(one[key] == row[key] for key in SAME)]
    plain = [one for one in alike if one["weighting"] == "uniform" != row["weighting"]]
    twins = [one for one in plain if all(one[key] == row[key] for key in TWIN)]
    named = [next((one for one in alike if one["arm"] == name), None) for name in ("random", "d4m")]
    parts = set(row["variant"].split(", "))  # of several twins, the one that differs least
    return [
        *named,
        max(twins, key=lambda one: len(parts & set(one["variant"].split(", "))), default=None),
    ]


def accuracy(row: dict) -> Summary:
    """Return mean and spread of the accuracies, in percent."""
    return summarize(list(row["top1"].values()))


def score(row: dict) -> str:
    """Return ``mean ± std`` of the accuracies."""
    found = accuracy(row)
    return f"{found.mean:.1f} ± {found.std:.1f}"


def interval(row: dict) -> str:
    """Return Student's 95 % interval of the mean accuracy."""
    low, high = accuracy(row).interval(0, 100)
    return f"[{low:.1f}, {high:.1f}]"


def find(rows: Iterable[dict], **wanted: str) -> dict | None:
    """Return the first row with these entries."""
    return next(
        (row for row in rows if all(row[key] == value for key, value in wanted.items())), None
    )


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return lines as a Markdown table; the first is its head."""
    lines = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def details(rows: list[dict]) -> str:
    """Return every row of one sweep, with its paired differences."""
    told = [part for part in TOLD if len({row[part] for row in rows if row["arm"] != "full"}) > 1]
    lines = [["arm", *told, *COLUMNS]]
    for row in rows:
        own = [score(row), interval(row), str(len(row["top1"]))]
        differences = [difference(row, other) for other in baselines(row, rows)]
        lines.append(
            [row["arm"], *(row[part] or "–" for part in told), *own, *differences, *transport(row)]
        )
    return markdown(lines)


def headline() -> str:
    """Return the table of the README: accuracy of the arms of each data set."""
    sets = {"digits": "digits", **DATA}
    rows = [read(ROWS / f"headline-{name}.csv") for name in sets]
    lines = [["arm", *sets.values()]]
    for title, wanted in HEADLINE.items():
        found = [find(of_set, **wanted) for of_set in rows]
        lines.append([title, *(f"{score(row)} {interval(row)}" if row else "–" for row in found)])
    return markdown([*lines, ["n", *(str(len(of_set[0]["top1"])) for of_set in rows)]])


def causes() -> str:
    """Return accuracies with equal weights and with masses by points and pushforward."""
    rows = [read(ROWS / f"causes-{name}.csv") for name in DATA]
    lines = [["points, pushforward: uniform / mass", *DATA.values()]]
    for title, wanted in CAUSES.items():
        cells = []
        for of_set in rows:
            plain, mass = (
                [row for row in of_set if row["weighting"] in kinds]
                for kinds in (("", "uniform"), ("mass",))
            )
            shown = [find(plain, **wanted), find(mass, **wanted)]
            cells.append(
                " / ".join(score(row) if row else "–" for row in (shown if shown[1] else shown[:1]))
            )
        lines.append([title, *cells])
    return markdown(lines)


def distances() -> str:
    """Return what masses change of W2, W2² itself, and its rate, by data set and quantizer."""
    with (ROWS / "curves.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["space"] == "latents"]
    lines = [
        [
            "",
            "quantizer",
            "masses, K = 10",
            "K = 50",
            "W2² / variance, 10",
            "50",
            "slope",
            "dimension",
        ]
    ]
    for name, title in DATA.items():
        for quantizer in ("random", "d4m", "kmeans", "barycenter"):
            ten, fifty = (
                find(rows, data=name, quantizer=quantizer, num_centroids=number)
                for number in ("10", "50")
            )
            own = [f"{float(row['masses']):+.1f}" for row in (ten, fifty)]
            own += [f"{float(row['w2_squared']):.3f}" for row in (ten, fifty)]
            lines.append(
                [
                    title,
                    quantizer,
                    *own,
                    f"{float(ten['slope']):.3f}",
                    f"{float(ten['dimension']):.1f}",
                ]
            )
    return markdown(lines)


def costs() -> str:
    """Return seconds, memory and bytes of each arm of the headline."""
    lines = [
        [
            "",
            "arm",
            "points and images, s",
            "fits and latents (shared), s",
            "one student, s",
            "memory, MiB",
            "images, kB",
        ]
    ]
    for name, title in DATA.items():
        for row in read(ROWS / f"headline-{name}.csv"):
            if row["ipc"]:
                seconds = [
                    f"{float(row[key]):.1f}"
                    for key in ("distil_seconds", "shared_seconds", "seconds")
                ]
                lines.append(
                    [
                        title,
                        row["arm"],
                        *seconds,
                        f"{float(row['peak_mib']):.0f}",
                        f"{float(row['num_bytes']) / 1000:.0f}",
                    ]
                )
    return markdown(lines)


def rates() -> str:
    """Return accuracy by images per class of every data set whose rate was measured,
    and the slope of the error.
    """
    found = {name: read(file) for name in DATA if (file := ROWS / f"rate-{name}.csv").exists()}
    numbers = sorted({int(row["ipc"]) for rows in found.values() for row in rows if row["ipc"]})
    lines = [["", "arm", *(str(number) for number in numbers), "slope of the error"]]
    for name, rows in found.items():
        for arm in dict.fromkeys(row["arm"] for row in rows if row["ipc"]):
            own = [row for row in rows if row["arm"] == arm]
            errors = [100 - accuracy(row).mean for row in own]
            slope = linear_regression(
                [log(int(row["ipc"])) for row in own], [log(error) for error in errors]
            ).slope
            cells = [find(own, ipc=str(number)) for number in numbers]
            lines.append(
                [DATA[name], arm, *(score(row) if row else "–" for row in cells), f"{slope:.2f}"]
            )
    return markdown(lines)


def crossed(name: str, *fields: str) -> str:
    """Return accuracy by arm and by fields; arms that were measured once only are left out."""
    by_arm: dict[str, dict[str, dict]] = {}
    for row in read(ROWS / f"{name}.csv"):
        if row["ipc"]:
            head = ", ".join(row[field] for field in fields if row[field])
            by_arm.setdefault(row["arm"], {})[head] = row
    heads = list(dict.fromkeys(head for own in by_arm.values() for head in own))
    lines = [["", *heads]]
    for arm, own in by_arm.items():
        if len(own) > 1:
            lines.append([arm, *(score(own[head]) if head in own else "–" for head in heads)])
    return markdown(lines)


#: The tables that are shown in Markdown files.
TABLES: dict[str, Callable[[], str]] = {
    "headline": headline,
    "causes": causes,
    "W2": distances,
    "rate": rates,
    "teachers": lambda: crossed("teachers-cifar10", "labels", "teacher"),
    "students": lambda: crossed("architectures-fashion_mnist", "student"),
    "cost": costs,
}

if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"\n**{Path(name).stem}**\n\n{details(read(Path(name)))}")
    if len(sys.argv) == 1:
        for title, make in TABLES.items():
            print(f"\n**{title}**\n\n{make()}")
