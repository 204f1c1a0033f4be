"""`ddoq store`, damage, locks and disks that fail."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import multiprocessing
import os
import platform
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from ddoq.errors import StoreError
from ddoq.pipeline import care, lock
from ddoq.pipeline.command import main, rough_time
from ddoq.pipeline.graph import Node
from ddoq.pipeline.lock import hold, is_held, lock_path
from ddoq.pipeline.plans import keys_by_run, plan, write_plan
from ddoq.pipeline.runner import execute
from ddoq.pipeline.store import Store, remove
from ddoq.utils.io import remove_leftovers, temporary_path
from support.nodes import bare_node
from support.runs import ROOT

DAYS = 86_400


def chain(ipc: int = 10) -> tuple[Node, Node, Node]:
    encode = bare_node("encode", {"encoder": "pixels"})
    quantize = bare_node("quantize", {"ipc": ipc}, {"encode": encode}, f"K = {ipc}")
    return encode, quantize, bare_node("label", {"ipc": ipc}, {"quantize": quantize}, f"ipc {ipc}")


def write(node: Node, inputs: dict, folder: Path) -> dict:
    (folder / "sub").mkdir(exist_ok=True)
    (folder / "sub" / "data.txt").write_text(f"{node.title} of {len(inputs)}")
    return {"top1": 0.5}


def run(outputs: Path, name: str, node: Node) -> list[str]:
    """Do what a run does with the store; return the stages that it computed."""
    store = Store(outputs / "store")
    write_plan(outputs / "runs" / name, plan([node], store), add=True)
    return [done.stage for done in execute([node], store, write)]


def age(outputs: Path, days: float = 3) -> None:
    """Make everything in a store old."""
    then = time.time() - days * DAYS
    for path in [outputs / "store", *(outputs / "store").rglob("*")]:
        os.utime(path, (then, then))


def stored(outputs: Path) -> set[str]:
    return {path.name for path in (outputs / "store").glob("*/*") if path.is_dir()}


@pytest.fixture
def outputs(tmp_path) -> Path:
    """Two finished runs, of IPC 10 and 50; they share the encode artefact."""
    run(tmp_path, "ten", chain(10)[2])
    run(tmp_path, "fifty", chain(50)[2])
    return tmp_path


def ask(outputs: Path, *arguments: str) -> int:
    return main([*arguments, "--outputs", str(outputs)])


# --- damage -----------------------------------------------------------------------------------


def flip(folder: Path) -> None:
    path = folder / "sub" / "data.txt"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


def edit_result(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace("0.5", "0.6"))


def edit_body(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"ipc": 10', '"ipc": 11'))


DAMAGE = {
    "a bit": (flip, "sub/data.txt: its content has changed (sha256)"),
    "cut": (
        lambda folder: (folder / "sub" / "data.txt").write_text("K"),
        "sub/data.txt: 1 bytes instead of 11",
    ),
    "gone": (lambda folder: (folder / "sub" / "data.txt").unlink(), "sub/data.txt: missing"),
    "manifest cut": (
        lambda folder: (folder / "manifest.json").write_text("{"),
        "manifest.json: it cannot be read",
    ),
    "manifest empty": (
        lambda folder: (folder / "manifest.json").write_text("[]"),
        "it is not a manifest",
    ),
    "result": (edit_result, "manifest.json: its content has changed"),
    "body": (edit_body, "manifest.json: it describes quantize/"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_named_and_repaired_and_computed_again(outputs, capsys, damage):
    node = chain()[1]
    folder = outputs / "store" / "quantize" / node.key
    do, line = DAMAGE[damage]
    do(folder)
    assert ask(outputs, "verify") == 1
    said = capsys.readouterr().out
    assert (
        f"damaged     quantize/{node.key}\n" in said
        and line in said
        and "4 intact, 1 damaged" in said
    )
    before = {path: path.read_bytes() for path in outputs.rglob("*") if path.is_file()}
    assert ask(outputs, "repair", "--dry-run") == 0
    assert {path: path.read_bytes() for path in outputs.rglob("*") if path.is_file()} == before
    assert (
        ask(outputs, "repair") == 0
        and f"removed     quantize/{node.key}" in capsys.readouterr().out
    )
    assert not folder.exists()
    assert run(outputs, "ten", node) == ["quantize"]
    assert ask(outputs, "verify") == 0
    assert (folder / "sub" / "data.txt").read_text() == "K = 10 of 1"


def test_verify_of_a_key_or_a_stage_reads_only_that(outputs, capsys):
    flip(outputs / "store" / "quantize" / chain()[1].key)
    assert ask(outputs, "verify", "encode", chain()[2].key[:6]) == 0
    assert capsys.readouterr().out.startswith("2 intact")
    assert ask(outputs, "verify", chain()[1].key[:6]) == 1
    with pytest.raises(StoreError, match="no stage and no key 'encod'\n.*'encode'"):
        ask(outputs, "verify", "encod")


def test_stray_files_are_wrong_and_repair_takes_only_them(outputs, capsys):
    folder = outputs / "store" / "label" / chain()[2].key
    mine = outputs / "store" / "notes: mine.txt"
    (folder / "shard: 1.png").touch()
    mine.touch()
    assert ask(outputs, "verify") == 1
    said = capsys.readouterr().out
    assert "shard: 1.png: not of this artefact" in said and "notes: mine.txt" in said
    ask(outputs, "repair")
    assert not (folder / "shard: 1.png").exists() and mine.exists()
    assert run(outputs, "ten", chain()[2]) == []
    assert ask(outputs, "verify", "label") == 0


def test_unfinished_work_is_said_but_not_wrong(outputs, capsys):
    folder = outputs / "store" / "label" / chain(5)[2].key
    folder.mkdir()
    (folder / "half.txt").write_text("half")
    assert ask(outputs, "verify") == 0
    assert f"unfinished  label/{folder.name}" in capsys.readouterr().out
    ask(outputs, "repair")
    assert folder.exists()
    with hold(lock_path(folder)):
        assert ask(outputs, "verify") == 0
    assert f"computing   label/{folder.name}" in capsys.readouterr().out


def test_repair_leaves_alone_what_a_process_works_on(outputs, capsys):
    folder = outputs / "store" / "quantize" / chain()[1].key
    flip(folder)
    with hold(lock_path(folder)):
        ask(outputs, "repair")
    assert folder.exists() and "left alone" in capsys.readouterr().out
    findings = care.verify([folder])
    remove(folder)
    run(outputs, "ten", chain()[1])  # somebody was faster
    assert [done for _, done in care.repair(findings)] == ["found in order now"] and folder.exists()


@pytest.mark.parametrize("damage", ["a bit", "result"])
def test_damaged_input_stops_what_would_be_computed_from_it(outputs, damage):
    encode, quantize, label = chain()
    DAMAGE[damage][0](outputs / "store" / "quantize" / quantize.key)
    assert run(outputs, "ten", label) == []  # finished: it needs no inputs
    Store(outputs / "store").discard(label)
    with pytest.raises(
        StoreError, match=f"quantize/{quantize.key} is damaged: .*changed.*\n.*`ddoq store repair`"
    ):
        run(outputs, "ten", label)
    ask(outputs, "repair")
    assert run(outputs, "ten", label) == ["quantize", "label"]


def test_killed_while_removing_leaves_nothing_to_resume_in(outputs):
    """A half-removed folder without its manifest would look like work to be continued,
    damaged files and all.
    """
    folder, done = outputs / "store" / "quantize" / chain()[1].key, []
    flip(folder)
    if (child := os.fork()) == 0:

        def killer(event: str, arguments: tuple) -> None:
            if event == "os.remove":
                done.append(event)
                if len(done) == 2:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(killer)
        remove(folder)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert not folder.exists() and len(care.half_removed(outputs / "store")) == 0  # too young
    (trash,) = (outputs / "store" / "quantize").glob(".tmp-*")
    assert any(trash.rglob("*"))
    assert run(outputs, "ten", chain()[1]) == ["quantize"]


def test_leftovers_of_killed_processes_go_and_those_of_live_ones_stay(tmp_path):
    """A run's folder has no lock: a report that another process is writing there now must stay."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    other = tmp_path / f".tmp-{platform.node()}-{os.getppid()}-a.html"
    old = tmp_path / ".tmp-elsewhere-1-b.html"
    for path in (other, old, tmp_path / ".tmp-elsewhere-2-c.html", tmp_path / "report.html"):
        path.touch()
    os.utime(old, (0, 0))
    (tmp_path / f".tmp-{platform.node()}-{gone.pid}-d.html").touch()
    (tmp_path / f".tmp-{platform.node()}-{gone.pid}-distilled").symlink_to(tmp_path)
    # By this number, but not by this process.
    (temporary_path(tmp_path / "e") / "sub").mkdir(parents=True)
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        other.name,
        ".tmp-elsewhere-2-c.html",
        "report.html",
    }


# --- gc ---------------------------------------------------------------------------------------


def test_gc_removes_what_no_run_lists_and_nothing_else(outputs, capsys):
    shutil.rmtree(outputs / "runs" / "fifty")
    leftover = outputs / "store" / "label" / chain(5)[2].key
    leftover.mkdir()
    (leftover / "half.txt").write_text("half")
    # All too young.
    assert ask(outputs, "gc") == 0 and "removed 0 artefacts" in capsys.readouterr().out
    age(outputs)
    before = stored(outputs)
    assert ask(outputs, "gc", "--dry-run") == 0 and stored(outputs) == before
    assert "would remove 2 artefacts and 1 leftovers" in capsys.readouterr().out
    assert ask(outputs, "gc", "--keep", "4") == 0 and stored(outputs) == before
    assert ask(outputs, "gc") == 0
    assert stored(outputs) == {node.key for node in chain(10)}
    assert run(outputs, "ten", chain()[2]) == [] and run(outputs, "fifty", chain(50)[2]) == [
        "quantize",
        "label",
    ]


def test_gc_keeps_ancestors_that_the_plan_lists_as_idle(outputs):
    encode, _, label = chain()
    shutil.rmtree(outputs / "runs" / "fifty")
    Store(outputs / "store").discard(encode)
    Store(outputs / "store").ensure(encode, lambda folder: write(encode, {}, folder))
    steps = plan([label], Store(outputs / "store"))
    assert steps[0].state == "hit" and steps[1].state == "hit"
    Store(outputs / "store").discard(chain()[1])
    write_plan(outputs / "runs" / "ten", plan([label], Store(outputs / "store")))
    run(outputs, "other", chain()[1])
    shutil.rmtree(outputs / "runs" / "other")
    age(outputs)
    ask(outputs, "gc")
    assert stored(outputs) == {node.key for node in chain()}


def test_gc_keeps_what_is_locked_or_planned_meanwhile(outputs):
    encode, quantize, label = chain(50)
    shutil.rmtree(outputs / "runs" / "fifty")
    age(outputs)
    found = care.unneeded(outputs, 1)
    assert {artefact.key for artefact in found} == {quantize.key, label.key}
    with hold(lock_path(outputs / "store" / "label" / label.key)):
        assert {artefact.key for artefact in care.unneeded(outputs, 1)} == {quantize.key}
        write_plan(outputs / "runs" / "late", plan([quantize], Store(outputs / "store")))
        assert list(care.collect(outputs, found)) == []
    shutil.rmtree(outputs / "runs" / "late")
    # Computed again since it was found.
    os.utime(outputs / "store" / "label" / label.key / "manifest.json")
    (removed,) = care.collect(outputs, found)
    assert removed.key == quantize.key and not lock_path(removed.folder).exists()


@pytest.mark.parametrize("text", ["", "{", '{"key": 1}', "[1]", '[{"stage": "label"}]', "null"])
def test_gc_refuses_where_a_plan_cannot_be_read(outputs, text):
    path = outputs / "runs" / "ten" / "plan.json"
    path.write_text(text)
    age(outputs)
    before = stored(outputs)
    for arguments in (("gc",), ("gc", "--dry-run"), ("du",), ("ls", "--runs")):
        with pytest.raises(StoreError, match=r"ten/plan.json cannot be read.*\n  -> .*again"):
            ask(outputs, *arguments)
    assert stored(outputs) == before
    write_plan(outputs / "runs" / "ten", plan([chain()[0]], Store(outputs / "store")), add=True)
    assert path.read_text() == text  # a part of a run does not speak for the whole run
    write_plan(outputs / "runs" / "ten", plan([chain()[2]], Store(outputs / "store")))
    assert ask(outputs, "gc") == 0 and stored(outputs) == before


def test_gc_refuses_without_runs_and_without_a_store(outputs, tmp_path):
    shutil.rmtree(outputs / "runs")
    age(outputs)
    with pytest.raises(StoreError, match=r"runs cannot be read .*\n.*--outputs"):
        ask(outputs, "gc")
    assert len(stored(outputs)) == 5
    with pytest.raises(StoreError, match=r"no store in .*elsewhere\n.*--outputs"):
        ask(tmp_path / "elsewhere", "gc")


def test_a_part_of_a_run_does_not_disown_what_the_whole_run_needs(outputs):
    before = keys_by_run(outputs)
    assert before == {"ten": {n.key for n in chain(10)}, "fifty": {n.key for n in chain(50)}}
    run(outputs, "ten", chain()[0])
    assert keys_by_run(outputs) == before


# --- ls, du -----------------------------------------------------------------------------------


def test_ls_opens_no_manifest_that_the_ledger_knows(outputs, capsys):
    for path in (outputs / "store").glob("*/*/manifest.json"):
        path.write_text("not JSON")
    assert ask(outputs, "ls") == 0
    said = capsys.readouterr().out
    assert [line.split()[:2] for line in said.splitlines()[1:]] == [
        ["encode", "1"],
        ["quantize", "2"],
        ["label", "2"],
        ["all", "5"],
    ]
    ask(outputs, "ls", "quantize", "--runs")
    said = capsys.readouterr().out
    for ipc, name in ((10, "ten"), (50, "fifty")):
        (line,) = (line for line in said.splitlines() if chain(ipc)[1].key in line)
        assert f"K = {ipc}" in line and "11 bytes" in line and line.split()[-1] == name


def test_ls_needs_no_ledger_and_survives_a_torn_one(outputs, capsys):
    age(outputs)
    ask(outputs, "ls", "label")
    whole = capsys.readouterr().out
    ledger = outputs / "store" / "ledger.jsonl"
    ledger.write_text(ledger.read_text()[:-20] + '{"key": 3}\n[]\n')
    ask(outputs, "ls", "label")
    assert capsys.readouterr().out == whole
    ledger.unlink()
    ask(outputs, "ls", "label")
    assert capsys.readouterr().out == whole


def test_ls_marks_what_is_unfinished_and_what_is_being_computed(outputs, capsys):
    folder = outputs / "store" / "label" / chain(5)[2].key
    folder.mkdir()
    (folder / "half.txt").write_text("half")
    ask(outputs, "ls", "label")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if folder.name in line)
    assert "unfinished" in line and "4 bytes" in line
    with hold(lock_path(folder)):
        ask(outputs, "ls", "label")
    assert "computing" in capsys.readouterr().out
    ask(outputs, "ls")
    assert "label 2 1" in " ".join(capsys.readouterr().out.split())


def test_du_counts_shared_artefacts_once(outputs, capsys):
    ask(outputs, "du")
    said = capsys.readouterr().out
    sizes = {
        node.key: len(f"{node.title} of {len(node.inputs)}") for node in (*chain(10), *chain(50))
    }
    own = sum(sizes[node.key] for node in chain(50)[1:])
    row = next(line for line in said.splitlines() if line.startswith("fifty"))
    assert row.split() == [
        "fifty",
        "3",
        str(own + sizes[chain()[0].key]),
        "bytes",
        str(own),
        "bytes",
    ]
    assert (
        f"{sum(sizes.values())} bytes in all" in said
        and f"{sizes[chain()[0].key]} bytes belong to several" in said
    )


def test_a_stage_that_does_not_exist_is_told(outputs):
    with pytest.raises(StoreError, match="no stage 'labl'\n.*'label'"):
        ask(outputs, "ls", "labl")


def test_durations_are_for_people():
    seconds = (0.04, 3.2, 720, 18_000, 4 * DAYS)
    assert [rough_time(value) for value in seconds] == ["0.0 s", "3.2 s", "12 min", "5.0 h", "4 d"]


def test_the_command_needs_no_torch(outputs):
    code = (
        "import sys; from ddoq.run import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    )
    for arguments in (["--help"], ["verify", "--outputs", str(outputs)]):
        done = subprocess.run(
            [sys.executable, "-c", code, "store", *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == "False"


# --- locks ------------------------------------------------------------------------------------


@pytest.fixture
def no_flock(monkeypatch):
    """A file system without locks. The kernel here has them, so the call is replaced."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def _compute_slowly(root: Path, marks: Path) -> None:
    def compute(folder: Path) -> dict:
        (marks / str(os.getpid())).touch()
        (folder / ".tmp-half").write_text("half")
        time.sleep(0.3)
        (folder / ".tmp-half").rename(folder / "whole")
        return {}

    Store(root).ensure(chain()[0], compute)


def _start(*arguments) -> multiprocessing.Process:
    worker = multiprocessing.get_context("fork").Process(target=_compute_slowly, args=arguments)
    worker.start()
    return worker


def test_without_flock_one_of_several_computes_too(no_flock, tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    workers = [_start(tmp_path / "store", marks) for _ in range(4)]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(list(marks.iterdir())) == 1
    assert not is_held(lock_path(Store(tmp_path / "store").path(chain()[0])))
    assert sorted(path.suffix for path in (tmp_path / "store" / "encode").iterdir()) == [
        "",
        ".lock",
    ]


def test_without_flock_the_lock_of_a_killed_process_needs_no_human(no_flock, tmp_path):
    marks, store = tmp_path / "marks", Store(tmp_path / "store")
    marks.mkdir()
    worker, path = _start(store.root, marks), lock_path(store.path(chain()[0]))
    while not list(marks.iterdir()):
        time.sleep(0.01)
    assert is_held(path)
    with hold(path, wait=False) as held:
        assert not held
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert not is_held(path)
    assert store.ensure(chain()[0], lambda folder: {})
    assert set(store.manifest(chain()[0])["files"]) == set()  # and its temporary file is gone


def test_a_lock_of_another_machine_is_void_when_nobody_renews_it(no_flock, tmp_path, monkeypatch):
    path = tmp_path / ".key.lock"
    path.with_suffix(".held").write_text(
        json.dumps({"host": "elsewhere", "pid": os.getpid(), "started": 1.0})
    )
    with hold(path, wait=False) as held:
        assert not held
    monkeypatch.setattr(lock, "PATIENCE", 0.3)
    start = time.monotonic()
    with hold(path):
        assert 0.3 <= time.monotonic() - start < 5
        assert json.loads(path.with_suffix(".held").read_text())["pid"] == os.getpid()
    assert not path.with_suffix(".held").exists()


def test_a_held_lock_of_this_machine_is_renewed(no_flock, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_BEAT", 0.02)
    with hold(tmp_path / ".key.lock"):
        before = (tmp_path / ".key.held").stat().st_mtime_ns
        time.sleep(0.2)
        assert (tmp_path / ".key.held").stat().st_mtime_ns > before


def test_waiting_for_a_lock_that_is_removed_means_waiting_for_the_next(tmp_path):
    """gc removes locks with their artefacts.

    Whoever waited for the old file must not overlap with the new one.
    """
    path = tmp_path / ".key.lock"
    code = (
        "import sys; from pathlib import Path; from ddoq.pipeline.lock import hold\n"
        "with hold(Path(sys.argv[1])): pass"
    )
    with contextlib.ExitStack() as new:
        with hold(path):
            other = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT)
            time.sleep(1)
            path.unlink()
            new.enter_context(hold(path))
        time.sleep(0.5)
        assert other.poll() is None
    assert other.wait(10) == 0


# --- disks ------------------------------------------------------------------------------------

#: Where anybody may mount, and nobody else sees it.
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]


def on_a_small_disk(place: Path, code: str) -> str:
    """Run Python code with a disk of 1 MB mounted at ``place``; return what it printed."""
    if (
        not shutil.which("unshare")
        or subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode
    ):
        pytest.skip("needs user namespaces to mount a disk of its own (unshare --user --mount)")
    place.mkdir()
    before = f"mount -t tmpfs -o size=1m tmpfs {place} && exec {sys.executable} -c "
    head = """
        import subprocess, sys
        from pathlib import Path
        sys.path[:0] = ["tests", "tests/pipeline"]
        from ddoq.errors import StoreError
        from ddoq.pipeline.store import Store
        from test_store import Store, ask, chain, run, write
        place = Path(sys.argv[1])
    """
    script = textwrap.dedent(head) + textwrap.dedent(code)
    done = subprocess.run(
        [*NAMESPACE, "sh", "-c", before + '"$0" "$@"', script, str(place)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return "".join(
        line for line in done.stdout.splitlines(keepends=True) if " computed in " not in line
    )


def test_full_disk_is_two_lines_and_costs_nothing_that_is_finished(tmp_path):
    said = on_a_small_disk(
        tmp_path / "disk",
        """
        from ddoq.utils.io import atomic_path
        encode, quantize, _ = chain()
        run(place, "ten", encode)
        def large(folder):
            for i in range(4):
                with atomic_path(folder / f"{i}.bin") as temporary:
                    temporary.write_bytes(bytes(300_000))
            return {}
        for attempt in range(2):
            try:
                Store(place / "store").ensure(quantize, large)
            except StoreError as error:
                print(error)
        left = sorted(path.name for path in (place / "store" / "quantize" / quantize.key).iterdir())
        print(left, Store(place / "store").has(encode), Store(place / "store").has(quantize))
        subprocess.run(["mount", "-o", "remount,size=4m", str(place)], check=True)
        print(Store(place / "store").ensure(quantize, large), ask(place, "verify"))
        """,
    )
    lines = said.splitlines()
    assert lines[0] == lines[2] == f"the disk of {tmp_path / 'disk' / 'store'} is full"
    assert lines[1] == lines[3] and "free some space" in lines[1]
    # Whole files stay for the next attempt, halves do not.
    assert lines[4] == "['0.bin', '1.bin', '2.bin'] True False"
    assert lines[-1] == "True 0"


def test_full_disk_at_the_ledger_keeps_the_artefact_and_the_listing(tmp_path, capsys):
    store, encode = Store(tmp_path / "store"), chain()[0]
    store.root.mkdir()
    (store.root / "ledger.jsonl").symlink_to("/dev/full")
    with pytest.raises(StoreError, match="is full"):
        store.ensure(encode, lambda folder: write(encode, {}, folder))
    (store.root / "ledger.jsonl").unlink()
    assert not store.ensure(encode, lambda folder: pytest.fail("computed twice"))
    ask(tmp_path, "ls", "encode")
    assert encode.key in capsys.readouterr().out


def test_read_only_store_can_be_read_and_says_why_it_cannot_be_written(tmp_path):
    said = on_a_small_disk(
        tmp_path / "disk",
        """
        run(place, "ten", chain()[2])
        run(place, "gone", chain(50)[2])
        subprocess.run(["rm", "-r", str(place / "runs" / "gone")], check=True)
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        store = Store(place / "store")
        print(store.ensure(chain()[2], None), store.intact(chain()[2]).name == chain()[2].key)
        looks = (["verify"], ["ls"], ["du"], ["gc", "--dry-run", "--keep", "0"])
        print(*(ask(place, *words) for words in looks))
        compute = lambda: store.ensure(chain(5)[1], None)
        for attempt in (compute, lambda: ask(place, "gc", "--keep", "0")):
            try:
                attempt()
            except StoreError as error:
                print(error)
        """,
    )
    assert said.startswith("False True\n") and "\n0 0 0 0\n" in said
    assert said.count("Read-only file system\n  -> ") == 2


def test_forbidden_store_says_so(tmp_path):
    (tmp_path / "store" / "encode").mkdir(parents=True)
    (tmp_path / "store" / "encode").chmod(0o555)
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        with contextlib.suppress(BaseException):
            if os.getuid() == 0:  # to whom nothing is forbidden
                os.setuid(65534)
            try:
                Store(tmp_path / "store").ensure(chain()[0], None)
            except StoreError as error:
                os.write(writing, str(error).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    assert (
        "Permission denied\n  -> set paths.outputs to a folder" in os.read(reading, 10_000).decode()
    )
