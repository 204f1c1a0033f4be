"""A run that can be watched: what it writes while it runs, and what is made of that,
on the terminal and as a page.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from ddoq.errors import ConfigError, DataError, StageError
from ddoq.job import run_job
from ddoq.pipeline.graph import Node
from ddoq.pipeline.plans import plan
from ddoq.pipeline.runner import execute
from ddoq.pipeline.status import current, followed
from ddoq.pipeline.store import Store
from ddoq.utils.console import progress_bar
from ddoq.watch.command import frame, main
from ddoq.watch.overview import RunState, find
from ddoq.watch.page import LivePage, write_page
from ddoq.watch.wording import duration, speed
from support.nodes import bare_node
from support.processes import ddoq
from support.runs import composed, run_here

REFRESH = '<meta http-equiv="refresh"'
#: Real images: nothing is fitted but a student.
SMALL = (
    *("quantizer=random", "weighting=uniform", "generator=real", "baselines=none", "ablation=none"),
    *(
        "protocol=smoke",
        "protocol.num_seeds=1",
        "student.width=8",
        "measure.curve=[]",
        "measure.num_folds=0",
    ),
    "trainer.accelerator=cpu",
)


def read(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


# --- the writer -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of one tiny run."""
    return run_here(*SMALL, f"paths.outputs={tmp_path_factory.mktemp('outputs')}")


def test_a_finished_run_says_so_and_counts_what_the_store_holds(finished):
    status = read(finished)
    assert status["state"] == "done" and status["error"] is None and status["pid"] == os.getpid()
    assert status["items"] is None and status["started"] <= status["updated"] <= time.time()
    store = finished.parents[1] / "store"
    made = {
        stage.name: len(list(stage.glob("*/manifest.json")))
        for stage in store.iterdir()
        if stage.is_dir()
    }
    assert {
        stage: count["total"] for stage, count in status["stages"].items()
    } == made and "evaluate" in made
    assert all(
        count["done"] == count["total"] and count["hit"] == 0 for count in status["stages"].values()
    )
    (top1,) = [
        json.loads(line)["top1"] for line in (finished / "results.jsonl").read_text().splitlines()
    ]
    (point,) = find(finished.parents[1], finished.name)().points
    assert (point.state, point.done, point.share) == ("done", sum(made.values()), 1)
    assert point.top1 == top1


def test_a_repeated_run_counts_hits_and_stages_that_nobody_asked_for_are_not_counted(finished):
    run_here(*SMALL, f"paths.outputs={finished.parents[1]}", "run.until=label")
    stages = read(finished)["stages"]
    assert (
        "evaluate" not in stages
        and stages["label"]["hit"] == stages["label"]["done"] == stages["label"]["total"]
    )


def test_a_failing_run_leaves_its_two_lines(tmp_path):
    config = composed(
        "dataset=fashion_mnist", f"paths.data={tmp_path}", f"paths.outputs={tmp_path}"
    )
    with pytest.raises(DataError) as error:
        run_job(config, tmp_path / "runs" / "x")
    status = read(tmp_path / "runs" / "x")
    assert status["state"] == "failed" and status["error"] == [
        error.value.cause,
        error.value.remedy,
    ]


def test_looking_at_a_plan_is_no_run(tmp_path):
    run_job(composed("run.plan_only=true", f"paths.outputs={tmp_path}"), tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "error, state, lines",
    [
        (StageError("a", "b"), "failed", ["a", "b"]),
        (OSError(28, "No space left on device"), "failed", r"the disk of .* is full"),
        (KeyError("x"), "failed", "KeyError: 'x'"),
        (KeyboardInterrupt(), "interrupted", None),
        (SystemExit(1), "interrupted", None),
    ],
)
def test_the_end_of_a_run_tells_failures_from_interruptions(tmp_path, error, state, lines):
    with pytest.raises(type(error)), followed(tmp_path):
        raise error
    status = read(tmp_path)
    assert status["state"] == state
    assert (
        status["error"] == lines
        if not isinstance(lines, str)
        else re.match(lines, status["error"][0])
    )


def test_a_status_that_cannot_be_written_is_in_nobodys_way(tmp_path):
    (tmp_path / "file").write_text("")
    with followed(tmp_path / "file"):  # no folder can be made there
        pass
    with pytest.raises(KeyError), followed(tmp_path / "file"):
        raise KeyError
    (tmp_path / "status.json").mkdir()
    with followed(tmp_path):
        pass


def chain() -> list[Node]:
    index = bare_node("index", {})
    return [bare_node("encode", {"n": n}, {"index": index}, f"encoder {n}") for n in range(3)]


def until(folder: Path, wanted) -> dict:
    """Wait until the status in a folder is as wanted."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if (folder / "status.json").exists() and wanted(read(folder)):
            return read(folder)
        time.sleep(0.02)
    raise AssertionError(read(folder))


def test_progress_is_that_of_the_innermost_bar_of_the_current_node(tmp_path):
    store, nodes, seen = Store(tmp_path / "store"), chain(), []
    store.ensure(nodes[0], lambda folder: {})

    def compute(node, inputs, folder) -> dict:
        if node is nodes[2]:
            with progress_bar("images", 40) as bar:
                bar.advance(10)
                time.sleep(0.05)
                bar.advance(10)
                seen.append(
                    until(
                        tmp_path, lambda status: status["items"] and status["items"]["done"] == 20
                    )
                )
        return {}

    with followed(tmp_path):
        current().planned(plan(nodes, store), "report")
        execute(nodes, store, compute)
    (status,) = seen
    assert status["state"] == "running" and (status["stage"], status["title"]) == (
        "encode",
        "encoder 2",
    )
    assert status["stages"]["encode"] == {"total": 3, "done": 2, "hit": 1}
    assert status["stages"]["index"] == {"total": 1, "done": 1, "hit": 0}
    assert status["nodes"]["total"] == 2 and status["nodes"]["done"] == 1
    assert status["items"]["what"] == "images" and status["items"]["total"] == 40
    # Ten items in a twentieth of a second, or more on a busy machine.
    assert 20 < status["items"]["rate"] < 250
    assert read(tmp_path)["stages"]["encode"]["done"] == 3 and read(tmp_path)["items"] is None


def test_nodes_that_other_processes_computed_are_counted_once(tmp_path):
    store, nodes = Store(tmp_path / "store"), chain()
    with followed(tmp_path):
        current().planned(plan(nodes, store), "report")
        store.ensure(nodes[0], lambda folder: {})
        execute(nodes[:2], store, lambda *arguments: {})
        assert current().snapshot()["stages"]["encode"] == {"total": 3, "done": 2, "hit": 0}
        current().finished(nodes)
        current().finished(nodes)
    assert read(tmp_path)["stages"] == {
        "index": {"total": 1, "done": 1, "hit": 0},
        "encode": {"total": 3, "done": 3, "hit": 0},
    }


def test_a_run_that_waits_for_another_process_says_for_what(tmp_path):
    store, node = Store(tmp_path / "store"), chain()[0]
    claimed, release = threading.Event(), threading.Event()

    def slow(folder: Path) -> dict:
        claimed.set()
        release.wait(10)
        return {}

    other = threading.Thread(target=store.ensure, args=(node, slow))
    other.start()
    claimed.wait(10)
    with followed(tmp_path):
        threading.Thread(
            target=lambda: (
                until(tmp_path, lambda status: status["waiting"] == f"encode/{node.key}")
                and release.set()
            )
        ).start()
        assert not store.ensure(node, slow)
    other.join()
    assert release.is_set() and read(tmp_path)["waiting"] is None


def _sleep_followed(folder: Path) -> None:
    with followed(folder):
        time.sleep(60)


def test_a_killed_run_is_shown_as_silent_and_a_slow_one_as_running(tmp_path):
    folder = tmp_path / "runs" / "killed"
    worker = multiprocessing.get_context("fork").Process(target=_sleep_followed, args=(folder,))
    worker.start()
    status = until(folder, lambda status: status["state"] == "running")
    # Though nothing has changed.
    beat = until(folder, lambda later: later["updated"] > status["updated"])
    assert beat["updated"] - status["updated"] < 7
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert find(tmp_path, "killed")().points[0].state == "running"  # nobody can know yet
    (folder / "status.json").write_text(json.dumps(beat | {"updated": time.time() - 61}))
    point = find(tmp_path, "killed")().points[0]
    assert (point.state, point.rate, point.left) == ("silent", None, None)


# --- the views --------------------------------------------------------------------------------


def say(outputs: Path, run: str, **changed) -> None:
    """Write a status by hand: a run in the middle of its students,
    unless something else is said.
    """
    now = time.time()
    status = {
        "state": "running",
        "stages": {
            "generate": {"total": 4, "done": 4, "hit": 1},
            "evaluate": {"total": 6, "done": 3, "hit": 0},
        },
        **{
            "stage": "evaluate",
            "title": "ddoq seed 3",
            "nodes": {"total": 6, "done": 3, "seconds": 300.0},
        },
        "items": {"what": "train student", "done": 340, "total": 1000, "rate": 11.0},
        **{
            "waiting": None,
            "started": now - 700,
            "updated": now - 2,
            "host": "node7",
            "pid": 1,
            "slurm_job": None,
        },
        "error": None,
    }
    (outputs / "runs" / run).mkdir(parents=True, exist_ok=True)
    (outputs / "runs" / run / "status.json").write_text(json.dumps(status | changed))


RUNS = {
    "done": {"state": "done", "stage": "report", "title": None, "items": None},
    "running": {},
    "slow": {
        "stage": "generate",
        "items": {"what": "generate ddoq", "done": 2, "total": 50, "rate": None},
    },
    "locked": {"items": None, "waiting": "quantize/0123456789abcdef"},
    "silent": {"updated": 1e9},
    "failed": {
        "state": "failed",
        "items": None,
        "error": ["image <i>3</i> cannot be read", "repair [it]"],
    },
    "interrupted": {"state": "interrupted", "items": None},
}


def write_sweep(
    outputs: Path, runs: list[str], name: str = "a-sweep", created: float = 1e9
) -> None:
    points = [{"run": run, "overrides": [f"ipc={run}", "x=<b>&y</b>"]} for run in runs]
    sweep = {"name": name, "command": "ddoq -m <x>", "created": created, "points": points}
    (outputs / "sweeps" / name).mkdir(parents=True, exist_ok=True)
    (outputs / "sweeps" / name / "sweep.json").write_text(json.dumps(sweep))


@pytest.fixture
def sweep(tmp_path) -> Path:
    """The outputs of a sweep whose points are in all states."""
    for run, changed in RUNS.items():
        say(tmp_path, run, **changed)
    rows = [
        ("full", 0.99, "main"),
        ("ddoq", 0.9, "main"),
        ("ddoq", 0.7, "main"),
        ("ddoq", 0.1, "labels"),
    ]
    lines = [
        json.dumps({"arm": arm, "top1": top1, "split": "test", "table": table})
        for arm, top1, table in rows
    ]
    (tmp_path / "runs" / "done" / "results.jsonl").write_text("\n".join(lines))
    (tmp_path / "runs" / "done" / "report.html").write_text("")
    write_sweep(tmp_path, [*RUNS, "new"])
    return tmp_path


def shown(text: str) -> dict[str, str]:
    """Return the lines of a frame by the first override of their run."""
    return {
        line.split()[0].removeprefix("ipc="): line
        for line in text.splitlines()
        if line.startswith("ipc=")
    }


def test_view_of_a_sweep_in_all_states(sweep, capsys):
    assert main(["--once", "--outputs", str(sweep)]) == 0
    text = capsys.readouterr().out
    head, *rest = text.splitlines()
    assert "a-sweep" in head and "on node7" in head and "ddoq -m <x>" in head
    table = shown("\n".join(rest[: len(RUNS) + 2]))
    for run, state in {
        **{run: run for run in RUNS},
        "slow": "running",
        "locked": "running",
        "new": "waiting",
    }.items():
        assert f" {state} " in table[run]
    assert "80.0" in table["done"] and "━" * 12 in table["done"]
    assert "evaluate 3/6 · ddoq seed 3 · train student 340/1000" in table["running"]
    # a minute for the rest of the student, and two more students of 100 s
    assert re.search(r" 7/10 .* 11/s +4 min +[2-9] s", table["running"])
    assert re.search(r"generate 4/4 · ddoq seed 3 · ddoq 2/50 +\? +5 min ", table["slow"])
    assert "evaluate 3/6 · ddoq seed 3 · another process computes it" in table["locked"]
    assert re.search(r"silent .* days", table["silent"]) and "11/s" not in table["silent"]
    assert "ipc=failed x=<b>&y</b>: image <i>3</i> cannot be read\n  -> repair [it]\n" in text
    assert rest[-1].startswith(
        "8 runs: 1 done, 1 waiting, 3 running, 1 interrupted, 1 silent, 1 failed · "
    ) and rest[-1].endswith(" elapsed")


def test_a_low_terminal_shows_what_is_urgent_and_a_narrow_one_what_matters(sweep):
    view = find(sweep)()

    def text(width: int, height: int | None = None) -> str:
        console = Console(width=width)
        with console.capture() as capture:
            console.print(frame(view, width, height))
        return capture.get()

    low = text(160, 12)
    assert (
        low.count("\n") <= 12 and "4 not shown" in low and {"failed", "silent"} <= shown(low).keys()
    )
    narrow = text(80)
    assert "speed" not in narrow and "4 min" in narrow and "80.0" in narrow
    assert all(len(line) <= 80 for line in narrow.splitlines())


def test_nothing_is_guessed_where_nothing_is_known(tmp_path):
    nodes = {"total": 6, "done": 0, "seconds": 0.0}
    # No student has been finished: who knows how long one takes?
    say(tmp_path, "first", nodes=nodes)
    say(tmp_path, "last", nodes=nodes | {"total": 1})
    assert find(tmp_path, "first")().points[0].left is None
    assert find(tmp_path, "last")().points[0].left == pytest.approx(60)
    assert (duration(None), speed(None)) == ("?", "?")
    assert [duration(s) for s in (3, 240, 7200, 400_000)] == ["3 s", "4 min", "2 h 00", "4.6 days"]
    assert [speed(r) for r in (123.4, 0.5, 0.02)] == ["123/s", "0.5/s", "1.2/min"]
    assert RunState(label="", folder=tmp_path).share == 0


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "{",
        "[1]",
        '"x"',
        "\x00",
        "{}",
        '{"state": "running"}',
        '{"state": "odd", "updated": 1}',
        "é",
        "null",
    ],
)
def test_garbage_is_no_status(tmp_path, garbage):
    say(tmp_path, "x")
    (tmp_path / "runs" / "x" / "status.json").write_bytes(garbage.encode("latin-1"))
    assert find(tmp_path, "x")().points == [RunState(label="x", folder=tmp_path / "runs" / "x")]


@pytest.mark.parametrize(
    "changed",
    [
        {"stages": [1]},
        {"stages": {"evaluate": 3}},
        {"items": "many"},
        {"items": {"what": "x", "done": 1, "total": None, "rate": 1}},
        {"updated": "yesterday"},
        {"updated": float("nan")},
        {"started": float("inf")},
        {"stages": {"evaluate": {"total": float("inf"), "done": 0}}},
        {"nodes": None},
    ],
)
def test_nonsense_in_a_status_is_no_status(tmp_path, changed):
    say(tmp_path, "x", **changed)
    assert find(tmp_path, "x")().points[0].state == "waiting"


@pytest.mark.parametrize(
    "garbage",
    ["", "[]", '{"points": 3}', '{"points": [3, {"run": 4}, {"x": "y"}], "created": "x"}'],
)
def test_garbage_is_a_sweep_without_points(tmp_path, garbage, capsys):
    write_sweep(tmp_path, [])
    (tmp_path / "sweeps" / "a-sweep" / "sweep.json").write_text(garbage)
    assert main(["a-sweep", "--outputs", str(tmp_path)]) == 0
    assert "0 runs" in capsys.readouterr().out
    assert REFRESH not in write_page(tmp_path, "a-sweep").read_text()


def test_without_a_name_the_newest_sweep_or_what_runs_is_shown(tmp_path):
    with pytest.raises(DataError, match="10 minutes"):
        find(tmp_path)
    say(tmp_path, "over", state="done")
    say(tmp_path, "long_over", state="done", updated=time.time() - 10_000)
    assert [point.label for point in find(tmp_path)().points] == ["over"]
    write_sweep(tmp_path, ["over"], "z-old", created=1.0)
    write_sweep(tmp_path, ["over"], "a-new", created=2.0)
    assert find(tmp_path)().name == "a-new"
    say(tmp_path, "alone")
    # The sweep is over, this is not.
    assert [point.label for point in find(tmp_path)().points] == ["alone", "over"]
    write_sweep(tmp_path, ["over", "to_come"], "b-newest", created=3.0)
    assert find(tmp_path)().name == "b-newest"


def test_names_and_folders_are_found_and_a_slip_is_answered(sweep, monkeypatch):
    by_name = find(sweep, "running")()
    by_folder = find(Path("nowhere"), str(sweep / "runs" / "running"))()
    assert (
        [p.title for p in by_name.points] == [p.title for p in by_folder.points] == ["ddoq seed 3"]
    )
    by_name = find(sweep, "a-sweep")()
    by_folder = find(Path("nowhere"), str(sweep / "sweeps" / "a-sweep"))()
    assert [p.state for p in by_name.points] == [p.state for p in by_folder.points]
    monkeypatch.chdir(sweep / "sweeps" / "a-sweep")
    assert [p.state for p in find(Path("nowhere"), ".")().points] == [
        p.state for p in by_name.points
    ]
    with pytest.raises(ConfigError, match="did you mean 'a-sweep'"):
        find(sweep, "a-sweeep")


def test_the_command_answers_without_torch_and_in_two_lines(sweep):
    done = ddoq("watch", "a-sweep", "--outputs", str(sweep))
    # No terminal: one frame, and it ends.
    assert done.returncode == 0 and "8 runs" in done.stdout and not done.stderr
    done = ddoq("watch", "nothing", "--outputs", str(sweep / "nowhere"))
    assert (
        done.returncode == 1 and len(done.stderr.splitlines()) == 2 and "--outputs" in done.stderr
    )
    code = (
        "import sys, ddoq.watch.command; "
        "sys.exit(bool({'torch', 'matplotlib', 'numpy'} & set(sys.modules)))"
    )
    assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", code) == 0


# --- the page ---------------------------------------------------------------------------------


def test_page_shows_the_sweep_and_escapes_what_it_shows(sweep):
    path = write_page(sweep, "a-sweep")
    page = path.read_text()
    assert path == sweep / "sweeps" / "a-sweep" / "live.html" and REFRESH in page
    assert not re.search(r'src=|href="(?!data:|\.\./\.\./runs/)', page)  # self-contained
    for text in ("<b>&y</b>", "<i>3</i>", "ddoq -m <x>"):
        assert text not in page
    assert "ipc=failed x=&lt;b&gt;&amp;y&lt;/b&gt;" in page and "image &lt;i&gt;3&lt;/i&gt;" in page
    assert (
        page.count("<tr><td>") == len(RUNS) + 1
        and ">80.0<" in page
        and "train student 340/1000" in page
    )
    (link,) = re.findall(r'<a href="(.*?)">ipc=done', page)
    assert (path.parent / link).resolve() == (sweep / "runs" / "done" / "report.html").resolve()


def test_page_stops_refreshing_when_all_is_over(sweep):
    write_sweep(sweep, ["done", "failed", "interrupted"])
    assert REFRESH not in write_page(sweep, "a-sweep").read_text()
    for waits in ("new", "running", "silent"):
        write_sweep(sweep, ["done", waits])
        assert REFRESH in write_page(sweep, "a-sweep").read_text()
        assert REFRESH not in write_page(sweep, "a-sweep", last=True).read_text()


def test_page_follows_in_the_background_and_survives_what_it_cannot_write(sweep):
    write_sweep(sweep, ["running"])
    page = sweep / "sweeps" / "a-sweep" / "live.html"
    with LivePage(sweep, "a-sweep", interval=0.05):
        while not (page.exists() and ">80.0<" not in page.read_text()):
            time.sleep(0.02)
        write_sweep(sweep, ["done"])
    assert ">80.0<" in page.read_text() and REFRESH not in page.read_text()
    with LivePage(sweep, "no such sweep", interval=0.05):
        pass
    page.unlink()
    page.mkdir()
    with LivePage(sweep, "a-sweep", interval=0.05):
        pass


def test_page_on_request_is_kept_until_all_runs_have_ended(sweep, capsys):
    write_sweep(sweep, ["running", "done"])
    watcher = threading.Thread(
        target=main, args=(["a-sweep", "--outputs", str(sweep), "--html", "--interval", "0.1"],)
    )
    watcher.start()
    page = sweep / "sweeps" / "a-sweep" / "live.html"
    while not (page.exists() and REFRESH in page.read_text()):
        time.sleep(0.02)
    say(sweep, "running", **RUNS["done"])
    watcher.join(10)
    assert not watcher.is_alive() and REFRESH not in page.read_text()
    assert capsys.readouterr().out == f"{page}\n"
