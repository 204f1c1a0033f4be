"""Keys, store and runner: what makes rerun, resume and sharing the same operation."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ddoq.errors import ConfigError, StoreError
from ddoq.pipeline.graph import Node, unique
from ddoq.pipeline.keys import digest
from ddoq.pipeline.plans import plan
from ddoq.pipeline.runner import execute
from ddoq.pipeline.store import Store
from support.nodes import bare_node


def chain(ipc: int = 10, version: int = 1) -> tuple[Node, Node, Node]:
    encode = Node(stage="encode", version=version, identity={"encoder": "pixels"})
    quantize = bare_node("quantize", {"ipc": ipc}, {"encode": encode})
    return (
        encode,
        quantize,
        bare_node("generate", {"strength": 0.4}, {"quantize": quantize, "encode": encode}),
    )


def write(folder: Path, text: str = "x") -> dict:
    (folder / "data.txt").write_text(text)
    return {"letters": len(text)}


# --- keys -------------------------------------------------------------------------------------


def test_key_ignores_spelling_but_not_values():
    assert digest({"a": 1, "b": (1, 2)}) == digest({"b": [1, 2], "a": 1.0})
    values = [1, 2, "1", True, None, [1], {"a": 1}, 1.5, "", []]
    assert len({digest({"v": value}) for value in values}) == len(values)


def test_key_is_stable_across_versions_of_this_code():
    """If this fails, every user's store is recomputed: change it on purpose or not at all."""
    assert digest({"stage": "quantize", "ipc": 10, "x": [0.5, None, "ä"]}) == "ff0537ca429b0a0a"


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), Path("x"), {1, 2}])
def test_key_refuses_what_cannot_be_spelled_exactly(value):
    with pytest.raises(ConfigError):
        digest({"v": value})


def test_keys_are_merkle():
    encode, quantize, generate = chain()
    other_encode, other_quantize, other_generate = chain(version=2)
    assert (
        len(
            {
                encode.key,
                other_encode.key,
                quantize.key,
                other_quantize.key,
                generate.key,
                other_generate.key,
            }
        )
        == 6
    )
    same_encode, changed_quantize, changed_generate = chain(ipc=50)
    assert same_encode.key == encode.key
    assert changed_quantize.key != quantize.key and changed_generate.key != generate.key


def test_title_is_not_identity():
    assert bare_node("encode", {}, {}, "a").key == bare_node("encode", {}, {}, "b").key


def test_what_lacks_a_required_fact_is_computed_again_under_its_key(tmp_path):
    """Counter-examples: with all its facts it is a hit,
    and where nothing is stored nothing is asked for.
    """
    store, (encode, quantize, _) = Store(tmp_path), chain()
    verdict = replace(encode, required=("letters", "words"))
    last = bare_node("quantize", quantize.identity, {"encode": verdict})
    assert (verdict.key, last.key) == (encode.key, quantize.key)
    store.ensure(last, write)
    assert [step.state for step in plan([last], store)] == ["idle", "hit"]
    store.ensure(encode, write)
    assert [step.state for step in plan([quantize], store)] == ["hit", "hit"]
    assert store.is_outdated(verdict) and not store.has(verdict) and not store.is_outdated(encode)
    assert [step.state for step in plan([last], store)] == ["miss", "hit"]
    with pytest.raises(StoreError):  # refused: what is stored stays, and is asked again
        execute(
            [last], store, lambda node, inputs, folder: pytest.fail() if node is last else refuse()
        )
    assert store.is_outdated(verdict) and store.has(encode)
    computed = execute([last], store, lambda node, inputs, folder: write(folder) | {"words": 1})
    assert [node.key for node in computed] == [verdict.key] and store.manifest(verdict)["facts"][
        "words"
    ] == 1
    assert [step.state for step in plan([last], store)] == ["hit", "hit"]
    (store.path(verdict) / "data.txt").write_text("damaged")
    assert not store.is_outdated(verdict) and [step.state for step in plan([last], store)] == [
        "idle",
        "hit",
    ]


def refuse() -> dict:
    raise StoreError("no", "another")


def test_unique_lists_inputs_first_and_shared_nodes_once():
    a, b = chain(10), chain(50)
    assert [node.stage for node in unique([a[2], b[2]])] == [
        "encode",
        "quantize",
        "quantize",
        "generate",
        "generate",
    ]


# --- store ------------------------------------------------------------------------------------


def test_artefact_is_finished_only_with_its_manifest(tmp_path):
    store, node = Store(tmp_path), chain()[0]

    def killed(folder: Path) -> dict:
        write(folder, "half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.ensure(node, killed)
    assert (store.path(node) / "data.txt").exists() and not store.has(node)

    seen = []
    assert store.ensure(
        node,
        lambda folder: seen.append((folder / "data.txt").read_text()) or write(folder, "whole"),
    )
    assert seen == ["half"]  # the next attempt resumes in what was left
    assert store.has(node) and store.manifest(node)["facts"] == {"letters": 5}
    assert not store.ensure(node, lambda folder: pytest.fail("computed twice"))


#: Ours, and one of safetensors.
@pytest.mark.parametrize("name", [".tmp-host-123-image.png", ".tmpczUHYo"])
def test_temporary_files_of_a_killed_process_are_removed(tmp_path, name):
    store, node = Store(tmp_path), chain()[0]
    (store.path(node) / "sub").mkdir(parents=True)
    (store.path(node) / "sub" / name).write_text("half")
    store.ensure(node, write)
    assert set(store.manifest(node)["files"]) == {"data.txt"}


@pytest.mark.parametrize("damage", ["truncate", "remove", "garble"])
def test_damaged_artefact_is_not_a_hit_and_is_computed_again(tmp_path, damage):
    store, node = Store(tmp_path), chain()[0]
    store.ensure(node, lambda folder: write(folder, "whole"))
    path = store.path(node) / ("manifest.json" if damage == "garble" else "data.txt")
    path.unlink() if damage == "remove" else path.write_text("{")
    assert not store.has(node)

    def resuming(folder: Path) -> dict:  # like the stages, trusts what it finds
        return {} if (folder / "data.txt").exists() else write(folder, "whole")

    assert store.ensure(node, resuming) and store.has(node)
    assert (store.path(node) / "data.txt").read_text() == "whole"


def test_manifest_of_another_configuration_is_refused(tmp_path):
    store, node = Store(tmp_path), chain()[0]
    store.ensure(node, write)
    manifest = store.path(node) / "manifest.json"
    body = json.loads(manifest.read_text())
    body["body"]["identity"]["encoder"] = "other"
    manifest.write_text(json.dumps(body))
    with pytest.raises(StoreError, match="another configuration"):
        store.manifest(node)


def _slow_ensure(root: Path, marks: Path) -> None:
    def compute(folder: Path) -> dict:
        (marks / str(os.getpid())).touch()
        time.sleep(0.3)
        return write(folder)

    Store(root).ensure(chain()[0], compute)


def test_of_four_processes_one_computes(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=_slow_ensure, args=(tmp_path / "store", marks)) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(list(marks.iterdir())) == 1
    assert len((tmp_path / "store" / "ledger.jsonl").read_text().splitlines()) == 1


def test_lock_of_a_killed_process_needs_no_human(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    worker = multiprocessing.get_context("fork").Process(
        target=_slow_ensure, args=(tmp_path / "store", marks)
    )
    worker.start()
    while not list(marks.iterdir()):
        time.sleep(0.01)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    store = Store(tmp_path / "store")
    assert not store.has(chain()[0])
    assert store.ensure(chain()[0], write)


def test_full_disk_is_one_line_and_leaves_finished_work(tmp_path):
    store, (encode, quantize, _) = Store(tmp_path), chain()
    store.ensure(encode, write)

    def full(folder: Path) -> dict:
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="full"):
        store.ensure(quantize, full)
    assert store.has(encode) and not store.has(quantize)


# --- runner -----------------------------------------------------------------------------------


def run(targets: list[Node], store: Store) -> list[str]:
    """Execute and return the stages that were computed."""
    return [
        node.stage for node in execute(targets, store, lambda node, inputs, folder: write(folder))
    ]


def test_second_run_computes_nothing_and_a_change_only_what_depends_on_it(tmp_path):
    store = Store(tmp_path)
    assert run([chain()[2]], store) == ["encode", "quantize", "generate"]
    assert run([chain()[2]], store) == []
    assert run([chain(ipc=50)[2]], store) == ["quantize", "generate"]


def test_inputs_are_not_needed_once_the_target_is_finished(tmp_path):
    store, nodes = Store(tmp_path), chain()
    run([nodes[2]], store)
    store.discard(nodes[0])
    assert [step.state for step in plan([nodes[2]], store)] == ["idle", "hit", "hit"]
    assert run([nodes[2]], store) == []
    store.discard(nodes[2])
    assert run([nodes[2]], store) == ["encode", "generate"]


def test_stale_nodes_are_planned_as_misses(tmp_path):
    store, nodes = Store(tmp_path), chain()
    run([nodes[2]], store)
    assert [step.state for step in plan([nodes[2]], store, stale=[nodes[2]])] == [
        "hit",
        "hit",
        "miss",
    ]


def test_compute_gets_the_folders_of_its_inputs(tmp_path):
    store, nodes, seen = Store(tmp_path), chain(), {}
    execute(
        [nodes[2]],
        store,
        lambda node, inputs, folder: seen.update({node.stage: dict(inputs)}) or write(folder),
    )
    assert seen["generate"] == {"quantize": store.path(nodes[1]), "encode": store.path(nodes[0])}
