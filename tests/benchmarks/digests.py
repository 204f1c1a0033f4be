"""What it costs to know images by contents: `python tests/benchmarks/digests.py [files] [runs]`.

Writes 200,000 small images into 100 class folders of a temporary folder. Then seconds of the
fingerprint in a process of its own: the first time, when every file is read, and the second time,
when none has changed. With `runs` also those of `ddoq` up to the index: the first decodes every
image, the second finds the index in the store.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES, SIDE = 100, 8
FINGERPRINT = """
import sys, time
from pathlib import Path
from ddoq.data.folder import ImageFolder
from ddoq.utils.digests import Digests
wall, cpu = time.perf_counter(), time.process_time()
data = ImageFolder("f", 8, 3, root=sys.argv[1], digests=Digests(Path(sys.argv[2])))
print(data.fingerprint()[:12], end=": ")
print(f"{time.perf_counter() - wall:.2f} s, {time.process_time() - cpu:.2f} s of CPU")
"""
RUN = ("dataset=image_folder", "dataset.image_size=8", "run.until=index", "trainer.accelerator=cpu")


def fill(root: Path, num: int) -> None:
    """Write images of noise, a different one each."""
    random = np.random.default_rng(0)
    for label in range(CLASSES):
        folder = root / f"class-{label:03d}"
        folder.mkdir(parents=True)
        for i in range(label, num, CLASSES):
            content = io.BytesIO()
            pixels = random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            Image.fromarray(pixels).save(content, "PNG")
            (folder / f"{i:06d}.png").write_bytes(content.getvalue())


def main(num: int, runs: bool) -> None:
    """Print the first and the second time of the fingerprint and, where asked, of runs."""
    with tempfile.TemporaryDirectory() as place:
        root, tables = Path(place) / "images", Path(place) / "digests"
        fill(root, num)
        time.sleep(4)  # what has just been written is not remembered
        for which in ("first", "second"):
            command = [sys.executable, "-c", FINGERPRINT, str(root), str(tables)]
            done = subprocess.run(command, capture_output=True, check=True, text=True)
            print(f"{num:,} files, {which} fingerprint {done.stdout.splitlines()[-1]}", flush=True)
        for which in ("first", "second") if runs else ():
            where = f"dataset.root={root}", f"paths.outputs={place}/outputs"
            start = time.perf_counter()
            command = [sys.executable, "-m", "ddoq.run", *RUN, *where]
            subprocess.run(command, capture_output=True, check=True)
            seconds = time.perf_counter() - start
            print(f"{num:,} files, {which} run up to the index: {seconds:.2f} s", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000, runs=len(sys.argv) > 2)
