"""Nodes, and what a crew of processes computes for them, as other processes can import it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from ddoq.errors import StageError
from ddoq.pipeline.graph import Node
from ddoq.pipeline.here import Compute
from ddoq.utils.console import console, progress_bar
from ddoq.utils.ranks import Alone
from support.nodes import bare_node

INDEX = bare_node("index", {})


def students(num: int, **identity) -> list[Node]:
    """Return nodes that one process computes each."""
    return [
        bare_node("evaluate", {"n": n, **identity}, {"index": INDEX}, f"student {n}")
        for n in range(num)
    ]


def working(ranks: Alone) -> Compute:
    """Return a computation that does what a node's identity asks for."""

    def compute(node: Node, inputs: dict[str, Path], folder: Path) -> dict:
        identity = node.identity
        time.sleep(identity.get("seconds", 0))
        if (n := identity.get("n")) in identity.get("fails", ()):
            raise StageError(f"number {n} fails", "take another")
        if n in identity.get("breaks", ()):
            raise KeyError(n)
        if n in identity.get("ends", ()):
            raise EOFError("a file is cut short")
        if n in identity.get("dies", ()):
            os.kill(os.getpid(), signal.SIGKILL)
        if identity.get("speaks"):
            console.print(f"number {n} [bold]speaks[/]")
            with progress_bar("images", 40) as bar:
                time.sleep(0.2)  # it says how far it is ten times a second
                bar.advance(20)
                time.sleep(identity["speaks"])
        for item in ranks.mine(list(range(identity.get("items", 0)))):
            (folder / f"{item}.json").write_text(json.dumps(ranks.rank))
        together = ranks.gather(os.getpid())
        return {"pids": together, "inputs": sorted(inputs)}

    return compute
