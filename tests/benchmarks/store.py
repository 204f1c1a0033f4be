"""Time `ddoq store` on a synthetic store:
`python tests/benchmarks/store.py [50000]`, and the hashing of inputs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ddoq.pipeline.integrity import damage, describe
from ddoq.pipeline.keys import digest
from ddoq.utils.io import write_json

STAGES = ("quantize", "generate", "label", "evaluate")


def fill(outputs: Path, num: int) -> None:
    """Write ``num`` small artefacts, 100 to a run."""
    lines, runs = [], {}
    for i in range(num):
        stage = STAGES[i % len(STAGES)]
        body = {"stage": stage, "identity": {"i": i}}
        key = digest(body)
        folder = outputs / "store" / stage / key
        folder.mkdir(parents=True)
        cost = {"seconds": 1.5, "peak_mib": 100, "bytes": 0}
        manifest = {
            "key": key,
            "title": "ddoq",
            "body": body,
            "facts": {"top1": 0.5},
            "cost": cost,
            "files": {},
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
        (folder.parent / f".{key}.lock").touch()
        lines.append(
            json.dumps({"time": 1.0, "stage": stage, "key": key, "title": "ddoq", "pid": 1, **cost})
        )
        runs.setdefault(i // 100, []).append(
            {"stage": stage, "title": "ddoq", "key": key, "state": "hit"}
        )
    (outputs / "store" / "ledger.jsonl").write_text("\n".join(lines) + "\n")
    for run, plan in runs.items():
        write_json(outputs / "runs" / f"run-{run}" / "plan.json", plan)


def main(num: int) -> None:
    """Print seconds of each command, start of Python included, and megabytes hashed per second."""
    with tempfile.TemporaryDirectory() as place:
        outputs = Path(place)
        fill(outputs, num)
        for command in (
            "ls",
            "ls --runs",
            "ls evaluate",
            "ls evaluate --runs",
            "du",
            "gc --dry-run",
            "verify",
        ):
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "ddoq.run", "store", *command.split(), "--outputs", place],
                capture_output=True,
                check=True,
            )
            print(
                f"{num:,} artefacts: "
                f"{command:<20} {time.perf_counter() - start:5.2f} s {len(done.stdout):,} bytes"
            )
        for name, files, size in (("one file", 1, 2**30), ("PNG-like", 20_000, 2_000)):
            folder = outputs / name
            folder.mkdir()
            for i in range(files):
                (folder / f"{i:05d}").write_bytes(os.urandom(size))
            start = time.perf_counter()
            known = describe(folder)
            written = time.perf_counter() - start
            assert not damage(folder, known)
            seconds = time.perf_counter() - start - written
            rates = f"{files * size / 1e6 / seconds:,.0f} MB/s, {files / seconds:,.0f} files/s"
            print(
                f"{name}: {files} x {size:,} bytes described in {written:.2f} s, "
                f"checked in {seconds:.2f} s: {rates}"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
