"""Kill a run at seeded moments, again and again,
and compare what it finishes with an undisturbed run.

``PYTHONPATH=tests python -m support.kills FOLDER KILLS SEED short|whole``: one process imports
everything once; every run is a fork of it, so that a kill costs a second, not a start of Python.
Each kill is aimed
at a place: a stage, the ledger or the run's folder. Half of them come from outside, a random time
after the first write there, and hit wherever the process is; the other half hit exactly before a
random write, rename or removal there.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ddoq.config.names import run_name
from ddoq.job import run_job
from ddoq.pipeline import care
from ddoq.pipeline.stages import STAGES
from ddoq.pipeline.survey import artefact_folders, strays, survey
from support.runs import TINY, artefacts, composed, run_here

SHORT = (
    *TINY,
    "protocol.num_seeds=1",
    "baselines=none",
    "ablation=none",
    "measure.curve=[]",
    "measure.num_folds=0",
)
#: Every stage of the corridor but ``fidelity``, which writes one file.
WHOLE = (
    *TINY,
    "encoder=vae",
    "encoder.fit.num_steps=10",
    "encoder.fit.block_out_channels=[8,16]",
    "protocol.labels=stored",
    "+protocol@teacher.protocol=smoke",
    "teacher.protocol.num_steps=200",  # after 60, the teacher is still near chance, and refused
    "protocol.num_seeds=1",
    "baselines=none",
    "+arm@baselines.dm=dm",
    "baselines.dm.method.num_steps=20",
    "ablation=none",
)
_RUNS = "runs"
_EVENTS = {
    "open",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.mkdir",
    "os.symlink",
    "shutil.rmtree",
}
_WRITING = os.O_WRONLY | os.O_RDWR


def warm_up(folder: Path) -> None:
    """Import and compile what runs need. No gradient: torch does not fork after one."""
    import diffusers.models  # noqa: F401
    from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel  # noqa: F401

    import ddoq.engine.fit
    import ddoq.engine.student
    import ddoq.report.run_page  # noqa: F401

    run_here(*TINY, "baselines=none", "ablation=none", f"paths.outputs={folder}", "run.until=curve")


@dataclass(frozen=True)
class Aim:
    """Where a run is to be killed: before its n-th event at a place,
    or so many seconds after its first one there.
    """

    place: str
    event: int | None = None
    seconds: float = 0.0


class Run:
    """A fork that does what the command ``ddoq`` does with a configuration.
    (Hydra composes it once for all: 0.6 s.)

    Args:
        config: resolved; ``paths.outputs`` is set here.
        outputs: of the run.
        aim: where it is to be killed, if at all.
    """

    def __init__(self, config: dict, outputs: Path, aim: Aim | None = None):
        outputs.mkdir(parents=True, exist_ok=True)
        self.aim = aim
        self.arrived, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.setpgid(0, 0)
            log = os.open(outputs / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            self._work(
                config | {"paths": config["paths"] | {"outputs": str(outputs)}}, outputs, writing
            )
        os.close(writing)

    def _work(self, config: dict, outputs: Path, writing: int) -> None:
        seen, here = Counter(), ""

        def watch(event: str, arguments: tuple) -> None:
            nonlocal here
            if event not in _EVENTS or (event == "open" and not (arguments[2] or 0) & _WRITING):
                return
            if place := _place(arguments, str(outputs)):
                here = place
            elif event not in ("os.remove", "os.rmdir") or arguments[1] in (-1, None):
                # Else: within a removed folder.
                return
            seen[here] += 1
            if self.aim and here == self.aim.place:
                if seen[here] == 1:
                    os.write(writing, b"x")
                if self.aim.event == seen[here]:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        code = 1
        try:
            run_job(config, outputs / "runs" / run_name(config))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            (outputs / "events").write_text(json.dumps(seen))
            os._exit(code)

    def ended(self) -> int:
        """Kill it where that is to be done from outside; wait for it;
        return its exit code, -9 if it was killed.
        """
        if self.aim and self.aim.event is None and os.read(self.arrived, 1):
            time.sleep(self.aim.seconds)
            os.kill(self.pid, signal.SIGKILL)
        os.close(self.arrived)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _place(arguments: tuple, outputs: str) -> str:
    """Return the stage, ``ledger.jsonl`` or ``runs``
    that an event of the file system belongs to, if any.
    """
    for argument in arguments:
        path = os.fspath(argument) if isinstance(argument, str | os.PathLike) else ""
        if isinstance(path, str) and path.startswith(outputs):
            top, _, rest = path.removeprefix(outputs).lstrip("/").partition("/")
            return rest.split("/")[0] if top == "store" else _RUNS if top == _RUNS else ""
    return ""


@dataclass(frozen=True)
class Outcome:
    """What a finished run left: files byte for byte, facts, rows of results without their cost."""

    files: dict[str, bytes]
    facts: dict[str, dict]
    rows: list[dict]


def outcome(outputs: Path) -> Outcome:
    """Return what is to be the same however often a run was killed."""
    (path,) = outputs.glob("runs/*/results.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    manifests = sorted((outputs / "store").glob("*/*/manifest.json"))
    return Outcome(
        artefacts(outputs, *STAGES),
        {
            f"{p.parent.parent.name}/{p.parent.name}": _timeless(json.loads(p.read_text())["facts"])
            for p in manifests
        },
        [_timeless(row) for row in rows],
    )


def _timeless(row: dict) -> dict:
    return {
        name: value for name, value in row.items() if "seconds" not in name and "mib" not in name
    }


def check_after_kill(outputs: Path) -> None:
    """Assert that whatever counts as a result is whole."""
    for finding in care.verify(artefact_folders(outputs / "store", [])):
        assert finding.state in ("intact", "unfinished"), finding


def check_finished(outputs: Path, reference: Outcome) -> None:
    """Assert that a run ended as the undisturbed one did, and left nothing else."""
    root, found = outputs / "store", outcome(outputs)
    assert found.files.keys() == reference.files.keys(), found.files.keys() ^ reference.files.keys()
    assert not [name for name in found.files if found.files[name] != reference.files[name]]
    assert found.facts == reference.facts and found.rows == reference.rows
    assert {finding.state for finding in care.verify(artefact_folders(root, []))} == {"intact"}
    assert not strays(root) and not list(outputs.rglob(".tmp*"))
    keys = Counter(
        json.loads(line)["key"] for line in (root / "ledger.jsonl").read_text().splitlines()
    )
    assert set(keys.values()) == {1}, keys  # nothing was finished twice


class Harness:
    """An undisturbed run, and others that are killed.

    Args:
        folder: for their outputs.
        overrides: of the command.
        seed: of all choices.
    """

    def __init__(self, folder: Path, overrides: tuple[str, ...], seed: int):
        self.config, self.choose = composed(*overrides), random.Random(seed)
        outputs = folder / "reference"
        code = Run(self.config, outputs).ended()
        assert code == 0, (outputs / "log").read_text()[-3000:]
        self.reference = outcome(outputs)
        check_finished(outputs, self.reference)
        self.events = json.loads((outputs / "events").read_text())
        self.artefacts = Counter(name.split("/")[0] for name in self.reference.facts)
        self.seconds: Counter = Counter()
        for line in (outputs / "store" / "ledger.jsonl").read_text().splitlines():
            self.seconds[json.loads(line)["stage"]] += json.loads(line)["seconds"]
        self.hits: Counter = Counter()

    def aim(self, outputs: Path) -> Aim:
        """Return where to kill next: mostly in a stage that is not finished,
        half of the time in the next one.
        """
        there = Counter(one.stage for one in survey(outputs / "store") if one.finished)
        stages = [stage for stage in self.artefacts if there[stage] < self.artefacts[stage]]
        stages.sort(key=STAGES.index)
        next_or_any = stages[:1] if self.choose.random() < 0.5 else stages
        place = self.choose.choice(
            next_or_any if stages and self.choose.random() < 0.9 else ["ledger.jsonl", _RUNS]
        )
        if self.choose.random() < 0.5:
            return Aim(place, seconds=self.choose.uniform(0, 0.05 + self.seconds[place]))
        return Aim(place, event=self.choose.randint(1, self.events[place] // 2 + 1))

    def disturb(self, outputs: Path) -> bool:
        """Run once, or two at once in a quarter of the cases, and kill each;
        tell whether one came to its end.
        """
        aims = [self.aim(outputs) for _ in range(2 if self.choose.random() < 0.25 else 1)]
        codes = [run.ended() for run in [Run(self.config, outputs, aim) for aim in aims]]
        assert set(codes) <= {0, -signal.SIGKILL}, (outputs / "log").read_text()[-3000:]
        for aim, code in zip(aims, codes, strict=True):
            if code:
                how = "at a time" if aim.event is None else "before an event"
                self.hits[aim.place, how, f"{len(aims)} at once"] += 1
        check_after_kill(outputs)
        return 0 in codes

    def chain(self, outputs: Path, num_kills: int) -> None:
        """Start a run and kill it until it comes to its end or ``num_kills`` are done;
        let it finish; compare.
        """
        while self.hits.total() < num_kills and not self.disturb(outputs):
            pass
        last = [Run(self.config, outputs) for _ in range(self.choose.choice((1, 1, 1, 2)))]
        assert {run.ended() for run in last} == {0}, (outputs / "log").read_text()[-3000:]
        check_finished(outputs, self.reference)
        shutil.rmtree(outputs)

    def summary(self) -> str:
        """Return how many kills hit where, and how."""
        by_part = [Counter() for _ in range(3)]
        for hit, number in self.hits.items():
            for counter, part in zip(by_part, hit, strict=True):
                counter[part] += number
        return f"{self.hits.total()} kills: " + "; ".join(
            ", ".join(f"{part} {number}" for part, number in sorted(counter.items()))
            for counter in by_part
        )


def main(folder: Path, num_kills: int, seed: int, overrides: tuple[str, ...]) -> None:
    """Kill ``num_kills`` times, in as many runs as that takes; print where they hit."""
    shutil.rmtree(folder, ignore_errors=True)
    start = time.perf_counter()
    warm_up(folder / "warm")
    print(f"warm in {time.perf_counter() - start:.1f} s")
    harness, number = Harness(folder, overrides, seed), 0
    print(
        f"undisturbed: {sum(harness.events.values())} events, {harness.artefacts.total()} artefacts"
    )
    while harness.hits.total() < num_kills:
        number += 1
        harness.chain(folder / f"chain-{number}", num_kills)
        print(
            f"run {number}: {harness.hits.total()} kills, {time.perf_counter() - start:.0f} s",
            flush=True,
        )
    print(harness.summary())


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        int(sys.argv[2]),
        int(sys.argv[3]),
        {"short": SHORT, "whole": WHOLE}[sys.argv[4]],
    )
