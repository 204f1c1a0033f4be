"""Several processes that compute the nodes of one run: who does what, and how it ends."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddoq.errors import StageError
from ddoq.pipeline.crew import Crew
from ddoq.pipeline.graph import Node
from ddoq.pipeline.plans import plan
from ddoq.pipeline.runner import execute
from ddoq.pipeline.status import current, followed
from ddoq.pipeline.store import Store
from ddoq.utils.cores import allow_fork, forbid_fork
from support.crews import INDEX, students, working
from support.nodes import bare_node


@pytest.fixture(autouse=True)
def forked() -> Iterator[None]:
    """The processes have nothing to import; none of them is left."""
    allow_fork()
    yield
    forbid_fork()
    assert not multiprocessing.active_children()


def run(targets: list[Node], store: Store, size: int = 2) -> list[Node]:
    """Execute in several processes; return what was computed."""
    with Crew(size, store, working) as crew:
        return execute(targets, store, working, crew)


def pids(nodes: list[Node], store: Store) -> list[int]:
    return [pid for node in nodes for pid in store.manifest(node)["facts"]["pids"]]


def test_nodes_are_shared_out_and_inputs_come_first(tmp_path):
    store, nodes = Store(tmp_path), students(6, seconds=0.2)
    computed = run(nodes, store)
    assert computed[0] is INDEX and {node.key for node in computed[1:]} == {n.key for n in nodes}
    assert len(set(pids(nodes, store))) == 2 and os.getpid() not in pids(nodes, store)
    assert all(store.manifest(node)["facts"]["inputs"] == ["index"] for node in nodes)
    assert all(store.manifest(node)["cost"]["seconds"] >= 0.2 for node in nodes)
    assert run(nodes, store) == []


def test_idle_processes_help_with_a_stage_that_shares_out_its_items(tmp_path):
    store = Store(tmp_path)
    node = bare_node("encode", {"items": 8}, {"index": INDEX})
    run([node], store, size=3)
    assert len(set(pids([node], store))) == 3
    files = sorted(store.path(node).glob("[0-9].json"))
    assert [file.read_text() for file in files] == ["0", "1", "2", "0", "1", "2", "0", "1"]


@pytest.mark.parametrize(
    ("what", "said"),
    [("fails", "number 1 fails"), ("breaks", "KeyError: 1"), ("ends", "EOFError: a file is cut")],
)
def test_the_first_failure_is_raised_and_what_is_finished_stays(what, said, tmp_path):
    store, nodes = Store(tmp_path), students(20, seconds=0.1, **{what: [1]})
    with pytest.raises((StageError, RuntimeError), match=said) as error:
        run(nodes, store)
    assert "in compute" in str(error.value.__cause__)  # where it happened, for the log
    finished = [node for node in nodes if store.has(node)]
    assert store.has(INDEX) and len(finished) < 10  # nothing was handed out after it
    if what == "fails":
        assert error.value.remedy == "take another"


def test_a_process_that_is_killed_is_named_with_what_to_do(tmp_path):
    store, nodes = Store(tmp_path), students(4, dies=[2])
    with pytest.raises(StageError) as error:
        run(nodes, store)
    assert error.value.cause.startswith("evaluate student 2: its process was killed (SIGKILL")
    assert "memory" in error.value.cause and "trainer.processes" in error.value.remedy
    again = students(4)
    run(again, store)
    assert all(map(store.has, again))


def test_what_another_run_computes_is_left_to_it_and_waited_for(tmp_path):
    store, nodes = Store(tmp_path), students(3)
    claimed, release = threading.Event(), threading.Event()

    def slow(folder: Path) -> dict:
        claimed.set()
        release.wait(20)
        return {}

    def let_go() -> None:
        end = time.monotonic() + 10
        while not all(map(store.has, nodes[1:])) and time.monotonic() < end:
            time.sleep(0.02)
        release.set()

    store.ensure(INDEX, lambda folder: {})
    with Crew(2, store, working) as crew:  # before the lock is taken, which a fork would share
        other = threading.Thread(target=store.ensure, args=(nodes[0], slow))
        other.start()
        claimed.wait(10)
        threading.Thread(target=let_go).start()
        computed = execute(nodes, store, working, crew)
    other.join()
    assert {node.key for node in computed} == {node.key for node in nodes[1:]}
    assert store.manifest(nodes[0])["facts"] == {}


def test_what_processes_say_and_how_far_they_are_is_seen(tmp_path, capsys):
    store, nodes, seen = Store(tmp_path / "store"), students(2, speaks=2.0), []

    def look() -> None:
        end = time.monotonic() + 10
        while time.monotonic() < end and not seen:
            snapshot = status.snapshot()
            if snapshot["items"] and snapshot["items"]["done"] == 20:
                seen.append(snapshot)
            time.sleep(0.02)

    with followed(tmp_path):
        status = current()
        status.planned(plan(nodes, store), "evaluate")
        watcher = threading.Thread(target=look)
        watcher.start()
        run(nodes, store)
        watcher.join()
        end = status.snapshot()
    assert seen[0]["stage"] == "evaluate" and seen[0]["title"].startswith("student")
    assert (seen[0]["items"]["what"], seen[0]["items"]["total"]) == ("images", 40)
    assert end["stages"]["evaluate"] == {"total": 2, "done": 2, "hit": 0} and end["items"] is None
    said = capsys.readouterr().out
    assert "number 0 speaks" in said and "number 1 speaks" in said


def test_processes_end_with_the_block_whatever_they_do(tmp_path):
    store, start = Store(tmp_path), time.monotonic()
    nodes = [*students(1), *students(1, seconds=60)]
    with pytest.raises(ZeroDivisionError), Crew(2, store, working) as crew:
        store.ensure(INDEX, lambda folder: {})
        assert crew.run(nodes, wait=False) == [(nodes[0], True)]
        assert crew.running == {nodes[1].key}
        raise ZeroDivisionError
    assert time.monotonic() - start < 10
