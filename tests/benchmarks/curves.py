"""W2 against the number of points, of the curves in a store:
`python tests/benchmarks/curves.py outputs/store` (CSV).

Names of folders in ``outputs/store/encode`` after it leave out the curves of other latents.

W2² is a share of the variance of a class; `masses` is what the masses of the cells change of W2
against equal masses, in percent; `slope` and `dimension` are those of `W2 ∝ K^slope` and of
`K^(-1/dimension)`, over K up to 50: beyond, the classes of ImageNette have less than seven
latents per centroid.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from ddoq.quantizers.measures import rate
from ddoq.utils.io import read_json

FITTED = 50  # the most centroids behind a slope


def manifest(store: Path, stage: str, key: str) -> dict:
    """Return what the store says of an artefact."""
    return read_json(store / stage / key / "manifest.json")


def curves(store: Path, wanted: Collection[str]) -> Iterator[tuple[dict[str, str], dict]]:
    """Yield what each curve is of, and its facts;
    of the wanted latents, or with no names of all.
    """
    for finished in sorted((store / "curve").glob("*/manifest.json")):
        curve = read_json(finished)
        latents, identity = curve["body"]["inputs"]["encode"], curve["body"]["identity"]
        if not wanted or latents in wanted:
            index = manifest(store, "encode", latents)["body"]["inputs"]["index"]
            yield (
                {
                    "data": manifest(store, "index", index)["body"]["identity"]["dataset"]["name"],
                    "latents": latents,
                    "space": identity["space"]["name"],
                    "quantizer": identity["quantizer"]["name"],
                },
                curve["facts"],
            )


def rows(store: Path, wanted: Collection[str]) -> list[dict[str, object]]:
    """Return a row for every curve and K; of curves of the same, that with the most K."""
    longest: dict[tuple[str, ...], dict] = {}
    for of, facts in curves(store, wanted):
        known = longest.get(tuple(of.values()))
        if known is None or len(facts["points"]) > len(known["facts"]["points"]):
            longest[tuple(of.values())] = {"of": of, "facts": facts}
    return [
        row
        for _, found in sorted(longest.items())
        for row in _points(found["of"], found["facts"]["points"])
    ]


def _points(of: dict[str, str], points: list[dict]) -> Iterator[dict[str, object]]:
    near = [point for point in points if point["num_centroids"] <= FITTED]
    fitted = rate(
        [point["num_centroids"] for point in near], [point["w2_squared"] for point in near]
    )
    for point in points:
        by_masses = (point["w2_squared"] / point["w2_squared_uniform"]) ** 0.5 - 1
        yield {
            **of,
            "num_centroids": point["num_centroids"],
            "w2_squared": f"{point['w2_squared'] / point['variance']:.4f}",
            "masses": f"{100 * by_masses:+.2f}",
            "slope": f"{fitted.slope:.4f}",
            "dimension": f"{fitted.dimension or float('nan'):.2f}",
        }


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    found = rows(Path(sys.argv[1]), sys.argv[2:])
    writer = csv.DictWriter(sys.stdout, found[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
