"""What masses go with: `python tests/benchmarks/weights.py outputs/runs/<run>/distilled ...`.

For distilled sets with fixed soft labels (`protocol.labels=fixed`): how the masses are dispersed,
and their rank correlation, within classes, with the entropy of the label and with the difficulty of
the image: 1 minus the teacher's probability of its class.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import torch
from safetensors.numpy import load_file, safe_open
from scipy.stats import spearmanr

from ddoq.data.distilled import METADATA, TARGETS
from ddoq.quantizers.measures import dispersion, effective_size


def measure(folder: Path) -> dict[str, object]:
    """Return the measures of a distilled set;
    correlations are means over classes, ± standard deviation.
    """
    table = pyarrow.parquet.read_table(folder / METADATA)
    labels, weights = table["label"].to_numpy(), table["mass"].to_numpy()
    targets = load_file(folder / TARGETS)["targets"].astype(np.float64)
    with safe_open(folder / TARGETS, "numpy") as file:
        targets = at_temperature_one(targets, float(file.metadata()["temperature"]))
    entropy = -(targets * np.log(targets.clip(1e-12))).sum(1)
    difficulty = 1 - targets[np.arange(len(labels)), labels]
    rows = [labels == label for label in np.unique(labels)]
    by_class = [weights[row] for row in rows]
    effective = [effective_size(torch.from_numpy(one)) / len(one) for one in by_class]
    correlations = {
        name: np.array([spearmanr(weights[row], values[row]).statistic for row in rows])
        for name, values in (("entropy", entropy), ("difficulty", difficulty))
    }
    return {
        "run": folder.parent.name,
        "images": len(labels),
        "dispersion": f"{np.mean([dispersion(torch.from_numpy(one)) for one in by_class]):.3f}",
        "effective share": f"{np.mean(effective):.3f}",
        "mean entropy": f"{entropy.mean():.3f}",
        "teacher right": f"{np.mean(targets.argmax(1) == labels):.3f}",
        **{
            f"rho {name}": f"{np.nanmean(rho):.2f} ± {np.nanstd(rho, ddof=1):.2f}"
            for name, rho in correlations.items()
        },
    }


def at_temperature_one(targets: np.ndarray, temperature: float) -> np.ndarray:
    """Return what softmax would have given at temperature 1,
    from probabilities ``[n, C]`` at another.
    """
    logits = temperature * np.log(targets.clip(1e-30))
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


if __name__ == "__main__":
    if not sys.argv[1:]:
        raise SystemExit(__doc__)
    found = [measure(Path(folder)) for folder in sys.argv[1:]]
    writer = csv.DictWriter(sys.stdout, found[0])
    writer.writeheader()
    writer.writerows(found)
