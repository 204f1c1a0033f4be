"""W2 against the number of points, of every curve in a store: `python tests/benchmarks/curves.py outputs/store` (CSV).

W2² is a share of the variance of a class; `masses` is what the masses of the cells change of W2 against equal masses,
in percent; `slope` and `dimension` are those of `W2 ∝ K^slope` and of `K^(-1/dimension)`, over all K of a curve.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

from ddoq.utils.io import read_json


def manifest(store: Path, stage: str, key: str) -> dict:
    """Return what the store says of an artefact."""
    return read_json(store / stage / key / "manifest.json")


def rows(store: Path) -> Iterator[dict[str, object]]:
    """Yield a row for every curve and K."""
    for finished in sorted((store / "curve").glob("*/manifest.json")):
        curve = read_json(finished)
        latents = curve["body"]["inputs"]["encode"]
        index = manifest(store, "encode", latents)["body"]["inputs"]["index"]
        facts, identity = curve["facts"], curve["body"]["identity"]
        for point in facts["points"]:
            own, equal = point["w2_squared"], point["w2_squared_uniform"]
            yield {
                "data": manifest(store, "index", index)["facts"]["provenance"],
                "latents": latents,
                "space": identity["space"]["name"],
                "quantizer": identity["quantizer"]["name"],
                "num_centroids": point["num_centroids"],
                "w2_squared": f"{own / point['variance']:.4f}",
                "masses": f"{100 * ((own / equal) ** 0.5 - 1):+.2f}",
                "slope": f"{facts['slope']:.4f}",
                "dimension": f"{facts['dimension'] or float('nan'):.2f}",
            }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    found = list(rows(Path(sys.argv[1])))
    writer = csv.DictWriter(sys.stdout, found[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        sorted(found, key=lambda row: [str(row[key]) for key in ("data", "latents", "space", "quantizer")])
    )
