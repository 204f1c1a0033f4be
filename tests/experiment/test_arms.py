"""Arms as routes to images: their files, their names, what is refused,
and what joins keys later.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from ddoq.config.arms import arm_name, is_full, is_method, main_arm, parts_of
from ddoq.config.checks import check
from ddoq.config.complete import completed
from ddoq.config.completion import completions
from ddoq.config.explain import explain
from ddoq.config.names import run_name
from ddoq.config.overrides import check_overrides
from ddoq.errors import DdoqError
from ddoq.pipeline.keys import LATER, settled
from support.nodes import bare_node
from support.runs import ROOT, composed, composition

CONF = ROOT / "conf"
ARMS = sorted(file.stem for file in (CONF / "arm").glob("*.yaml"))
BASELINES = sorted(file.stem for file in (CONF / "baselines").glob("*.yaml"))


def refusal(*overrides: str) -> DdoqError:
    """Compose and check as a run does; return the two lines that a user reads."""
    with pytest.raises(Exception) as caught:
        check_overrides(overrides)
        check(completed(OmegaConf.to_container(composition(*overrides), resolve=True)))
    return caught.value if isinstance(caught.value, DdoqError) else explain(caught.value)


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_is_one_more_row(arm):
    config = composed("baselines=none", f"+arm@baselines.row={arm}")
    check(config)
    row = config["baselines"]["row"]
    assert is_full(row) == (arm == "full")
    assert set(parts_of(row)) <= set(row)


@pytest.mark.parametrize("baselines", BASELINES)
def test_baselines_are_lists_of_arms_that_are_there(baselines):
    content = yaml.safe_load((CONF / "baselines" / f"{baselines}.yaml").read_text())
    assert set(content) <= {"defaults"}
    for entry in content.get("defaults", []):
        name = entry if isinstance(entry, str) else next(iter(entry.values()))
        if isinstance(entry, str):
            assert name in (*BASELINES, "_self_")
        elif next(iter(entry)).startswith("/arm@"):
            assert name in ARMS
        else:
            assert next(iter(entry)).startswith("override ")


def test_every_arm_of_a_method_has_the_method():
    for file in (CONF / "method").glob("*.yaml"):
        row = composed("baselines=none", f"+arm@baselines.row={file.stem}")["baselines"]["row"]
        assert row.pop("method") == composed(f"method={file.stem}")["method"]
        # Real images that are chosen cost nothing to choose again for every student.
        assert row == ({"redraw": True} if file.stem.endswith("_real") else {})


# --- what an arm is made of -------------------------------------------------------------------


def test_a_method_takes_the_place_of_the_parts_of_the_main_arm():
    pushed, made = composed(), composed("method=dm")
    parts = {"quantizer", "space", "weighting", "generator", "guidance", "guidances", "selection"}
    assert set(main_arm(pushed)) == parts | {"allocation"}
    assert main_arm(made) == {"method": made["method"]}
    assert made["baselines"]["d4m"]["generator"] == made["generator"] == pushed["generator"]
    assert arm_name(made) == "dm" and run_name(made).startswith("digits-dm-ipc10-s0-")
    assert is_method(made) and not is_method(pushed)


def test_an_arm_may_say_that_it_is_drawn_anew_or_not_or_nothing():
    values = {"a": "true", "b": "false", "c": "null"}
    rows = [f"+arm@baselines.{name}=dm" for name in values]
    redraw = [f"+baselines.{name}.redraw={value}" for name, value in values.items()]
    config = composed("baselines=none", *rows, *redraw)
    check(config)
    assert [config["baselines"][name]["redraw"] for name in values] == [True, False, None]


@pytest.mark.parametrize(
    ("overrides", "cause", "remedy"),
    [
        (["method=dn"], "method: there is no 'dn'", "dm"),
        (["method=dm", "method.learning_rat=1"], "method.learning_rat:", "'method.learning_rate'"),
        (["method.learning_rate=1"], "the chosen method has no such key", "method=dm"),
        (["method=null"], "method: null is no choice", "~method"),
        (["method=3"], "method: 3 is no choice", "--help"),
        (["+method=dm"], "method: it is part of the defaults already", "write method=dm"),
        (["method=dm", "method._target_=os.system"], "'os.system' is not a known method", "ddoq."),
        (["method=dm", "allocation=error"], "method=dm has none", "allocation=equal"),
        (
            ["+arm@baselines.dm=dm", "+baselines.dm.allocation=error"],
            "baselines.dm.allocation: error",
            "set baselines.dm.allocation=equal",
        ),
        (
            ["+baselines.random.allocation=eror"],
            "baselines.random.allocation: 'eror' is not known",
            "'error'",
        ),
        (
            ["+method@baselines.random.method=dm"],
            "baselines.random: a method and quantizer, weighting, generator",
            "leave out baselines.random.method",
        ),
        (["+arm@baselines.x=randm"], "arm: there is no 'randm'", "'random'"),
        (["+arm@baselines.x=dm", "baselines.x.method=1"], "x.method: 1 is no method", "+method@"),
        (
            ["+arm@baselines.x=dm", "+baselines.x.y=1"],
            "baselines.x.y: there is no such key",
            "redraw",
        ),
        (["+arm@baseline.x=random"], "a row of baselines", "write +arm@baselines.x=random"),
        (["+arms@baselines.x=random"], "arms: there is no such group", "'arm'"),
        (["arm@baselines.x=random"], "not part of the defaults", "write +arm@baselines.x=random"),
        (["+arm@baselines.random=dm"], "part of the defaults", "write arm@baselines.random=dm"),
        (
            ["selection=s3", "generator=decode"],
            "selection: s3 chooses among draws of the same points, and generator=decode makes one",
            "selection=none",
        ),
        (["selection=s3", "method=dm"], "and method=dm makes one set", "selection=none"),
        (
            ["+selection@baselines.random.selection=s3"],
            "baselines.random.selection: s3 chooses",
            "baselines.random.generator that draws",
        ),
        (
            ["selection=s3", "+space@selection.space=pca"],
            "selection.space: pca is no space of an image's features",
            "+space@selection.space=features",
        ),
        (["selection=s3", "selection.num_draws=0"], "selection.num_draws: 0", "1 or more"),
        (["selection=s4"], "there is no 's4'", "s3"),
        (["arm=herding"], "needs its name", "write +arm@baselines.herding=herding"),
        (["+arm@baselines=herding"], "needs its name", "write +arm@baselines.herding=herding"),
        (["+arm=herding,dm"], "needs its name", "write +arm@baselines.herding=herding"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_what_is_no_arm_is_refused_with_what_would_be(overrides, cause, remedy):
    error = refusal(*overrides)
    assert cause in error.cause and remedy in error.remedy, str(error)


@pytest.mark.parametrize(
    "overrides",
    [
        ["method=dm", "allocation=equal"],
        ["method=dm", "~method"],
        ["selection=s3", "+space@selection.space=features"],
        ["+arm@baselines.s3=s3"],
        ["~method"],
        ["+arm@baselines.x=random"],
        ["arm@baselines.random=dm"],
        ["+arm@baselines.herding=herding"],
        ["+method@baselines.dm.method=dm"],
        ["+arm@baselines.dm=dm", "+baselines.dm.allocation=equal"],
    ],
    ids=" ".join,
)
def test_the_remedies_work(overrides):
    check_overrides(overrides)
    check(composed(*overrides))


def test_a_method_is_called_nowhere_but_in_its_places():
    config = composed("method=dm")
    config["measure"]["method"] = config["method"]
    with pytest.raises(DdoqError, match="measure.method._target_: .* where no component belongs"):
        check(config)


@pytest.mark.parametrize(
    ("line", "choices"),
    [
        ("ddoq +arm@baselines.x=herd", ["+arm@baselines.x=herding"]),
        ("ddoq ipc=5 arm@baselines.x=d4m", ["arm@baselines.x=d4m", "arm@baselines.x=d4m_dit"]),
        (
            "ddoq +method@baselines.x.method=d",
            [
                "+method@baselines.x.method=dc",
                "+method@baselines.x.method=dm",
                "+method@baselines.x.method=dsa",
            ],
        ),
        ("ddoq +arm@baselines.x=zz", []),
        ("ddoq +arm@baselines.x=random ", None),  # the next word
        ("ddoq method=", None),  # Hydra's
        ("", None),
    ],
)
def test_tab_completes_a_choice_in_a_place(line, choices):
    assert completions(line) == choices


# --- keys -------------------------------------------------------------------------------------


def with_option(config: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """Return a configuration as it would be if a later ddoq had one more option."""
    config = copy.deepcopy(config)
    *above, name = place.split(".")
    section = config
    for key in above:
        section = section[key]
    assert name not in section
    section[name] = value
    return config


def keys(config: dict[str, Any]) -> list[str]:
    """Return the name of a run and the keys of nodes that hash whole components."""
    components = {name: config[name] for name in ("dataset", "generator", "protocol")}
    return [
        run_name(config),
        *(bare_node("index", {name: conf}).key for name, conf in components.items()),
    ]


@pytest.fixture(scope="module")
def digits() -> dict[str, Any]:
    return composed()


@pytest.mark.parametrize(
    ("owner", "option", "place", "before", "other"),
    [
        ("ddoq.evaluation.protocol.Protocol", "set_rate", "protocol.set_rate", False, True),
        ("ddoq.evaluation.protocol.Protocol", "augmentation.x", "protocol.augmentation.x", 0.5, 1),
        ("ddoq.data.", "season", "dataset.season", None, "summer"),
        ("ddoq.generators.", "fit.depth", "generator.fit.depth", [], [1]),
        ("run", "audience", "audience", "all", "few"),
        ("run", "measure.depth", "measure.depth", 0, 1),
        ("run", "baselines.*.prune", "baselines.nearest.prune", 0.0, 0.5),
    ],
)
def test_an_option_that_joins_later_changes_no_key(
    monkeypatch, digits, owner, option, place, before, other
):
    assert keys(with_option(digits, place, before)) != keys(digits)  # or there is nothing to test
    monkeypatch.setitem(LATER, owner, LATER.get(owner, {}) | {option: before})
    assert keys(with_option(digits, place, before)) == keys(digits)
    assert keys(with_option(digits, place, other)) != keys(digits)


def test_later_options_are_looked_for_below_their_owner_alone(monkeypatch):
    monkeypatch.setitem(LATER, "label", {"prune": 0, "fit.depth": 1})
    identity = {"prune": 0, "fit": {"depth": 1, "width": 2}, "other": {"prune": 0}}
    assert settled(identity, "label") == {"fit": {"width": 2}, "other": {"prune": 0}}
    assert settled(identity, "relabel") == settled(identity) == identity
    component = {"_target_": "ddoq.quantizers.KMeans", "prune": 0}
    assert settled({"quantizer": component}, "label") == {"quantizer": component}


def test_later_options_are_looked_for_in_lists(monkeypatch):
    monkeypatch.setitem(LATER, "ddoq.evaluation.protocol.Protocol", {"rules.max_width": None})
    protocol = composed("protocol=dc")["protocol"]
    protocol["rules"] = [{"max_ipc": 1, "max_width": None}, {"max_ipc": None, "max_width": 3}]
    assert settled(protocol)["rules"] == [{"max_ipc": 1}, {"max_ipc": None, "max_width": 3}]
