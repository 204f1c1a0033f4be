"""Composition, checks, and what a user reads after a typo."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from importlib import import_module

import pytest

from ddoq.config.arms import SELECTIONS, arm_name
from ddoq.config.checks import check, check_counts
from ddoq.config.choices import COMPONENTS, targets
from ddoq.config.constructors import constructor
from ddoq.config.names import run_name
from ddoq.data.catalogue import CATALOGUE
from ddoq.errors import ConfigError, DataError, did_you_mean
from ddoq.experiment import Experiment, Models
from ddoq.options import choices_of
from support.processes import ddoq, new_python
from support.runs import ROOT, composed

CONF = ROOT / "conf"
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
CHOICES = [
    (group.name, file.stem)
    for group in sorted(CONF.iterdir())
    if group.is_dir()
    for file in sorted(group.glob("*.yaml"))
    if group.name not in ("arm", "experiment", "launcher", "search", "study")  # arms: test_arms.py
]
STUDIES = sorted(path.stem for path in (CONF / "study").glob("*.yaml"))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_passes_the_checks(experiment):
    check(composed(f"+experiment={experiment}"))


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_composes_on_real_data_and_pins_its_student(study):
    config = composed("+experiment=cifar10", f"+study={study}")
    check(config)
    assert (
        config["student"]["name"] == "convnet_d3_w16" and config["protocol"]["num_evaluations"] == 1
    )
    assert config["ablation"]["strengths"] == []


#: What a choice needs that the default data set, grey and of 8 pixels, does not give:
#: these are recipes for photographs.
_COLOURED = ("ddoq", "fkd1024", "fkd128", "igd", "minimax", "rd3", "rded")
_COMPANIONS = {("encoder", "taef2"): ["dataset.image_size=64"]} | {
    ("protocol", protocol): ["dataset.channels=3"] for protocol in _COLOURED
}
#: Guidances steer what begins with noise.
_OF_GROUPS = {"guidance": ["generator.start=noise", "generator.strength=1"]}


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_and_is_named_after_its_file(group, choice):
    companions = [*_COMPANIONS.get((group, choice), []), *_OF_GROUPS.get(group, [])]
    config = composed(f"{group}={choice}", *companions)
    name = config[group].get("name", choice)
    assert name.removesuffix("_reconstructed") == choice  # tables say what is a reconstruction
    check(config)


@pytest.mark.parametrize("launcher", ["submitit_local", "slurm"])
def test_launchers_set_hydra_and_multirun(launcher):
    done = ddoq(f"launcher={launcher}", "--cfg", "hydra")
    assert done.returncode == 0, done.stderr
    assert "mode: MULTIRUN" in done.stdout and "submitit" in done.stdout


def test_no_arguments_is_the_digits_experiment():
    assert composed() == composed("+experiment=digits")


def test_the_graph_knows_which_quantizers_select():
    """It names their codebooks without importing them."""
    selecting = {
        choice
        for choice, target in targets("quantizer").items()
        if getattr(import_module(target.rpartition(".")[0]), target.rpartition(".")[2]).selects
    }
    assert selecting == set(SELECTIONS)


def test_identity_of_a_run_ignores_how_it_is_computed():
    base = run_name(composed())
    same = ["paths.outputs=/elsewhere", "run.until=encode", "trainer.batch_size=3", "logger=csv"]
    other = [
        "seed=1",
        "ipc=5",
        "generator.strength=0.123",
        "protocol.num_steps=7",
        "dataset.image_size=16",
    ]
    assert all(run_name(composed(override)) == base for override in same)
    assert len({base, *(run_name(composed(override)) for override in other)}) == len(other) + 1


def test_arms_are_named_by_what_they_are_made_of():
    def name(quantizer: str, weighting: str, generator: str, **others) -> str:
        parts = {"quantizer": quantizer, "weighting": weighting, "generator": generator}
        return arm_name({part: {"name": value} for part, value in parts.items()} | others)

    assert (
        name("kmeans", "mass", "dit") == "ddoq"
        and name("kmeans", "uniform", "dit") == "ddoq_uniform"
    )
    assert name("d4m", "uniform", "dit") == "d4m" and name("d4m", "power", "dit") == "d4m_weighted"
    assert (
        name("random", "uniform", "real") == "random"
        and name("herding", "uniform", "dit") == "herding_dit"
    )
    assert name("kmeans", "uniform", "dit", space={"name": "pca"}) == "ddoq_pca_uniform"
    assert (
        name("kmeans", "mass", "dit", allocation="error", space={"name": "latents"})
        == "ddoq_by_error"
    )


def test_main_arm_never_takes_the_place_of_a_baseline():
    for main in (
        ["quantizer=random"],
        ["quantizer=d4m"],
        ["quantizer=nearest", "weighting=uniform"],
        ["generator=real"],
    ):
        arms = Experiment(composed(*main), "data", Models([])).arms()
        assert list(arms)[0] == "full" and {"random", "nearest", "d4m"} <= set(arms)
        assert arms["random"]["generator"]["name"] == arms["nearest"]["generator"]["name"] == "real"


@pytest.mark.parametrize(
    ("overrides", "cause"),
    [
        (["generator.strength=0"], "generator.strength"),
        (["generator.strength=1.01"], "generator.strength"),
        (["ipc=0"], "ipc"),
        (["dataset.channels=2"], "dataset.channels"),
        (["run.until=encod"], "did you mean 'encode'"),
        (["run.until=encode", "run.from=label"], "run.from"),
        (["+foo=1"], "foo"),
        (["+run.foo=1"], "run.foo"),
        (["generator.fit.patch_size=3"], "generator.fit.patch_size"),
        (["dataset.on_bad_image=skp"], "did you mean 'skip'"),
        (["weighting=clip", "weighting.low=3"], "weighting.low"),
        (["protocol.num_evaluations=1000"], "num_evaluations"),
        (["quantizer._target_=os.system"], "_target_"),
        (["generator.scheduler=DDIMSchedular"], "did you mean 'DDIMScheduler'"),
        (["generator=sd15", "generator.path=null"], "generator.path"),
        (["generator=sd15", "generator.prompt='a {nmae}'"], "generator.prompt: there is no {nmae}"),
        (["generator.classes=imagenet"], "generator.classes"),
        (["generator.start=noise"], "generator.strength"),
        (["generator.order=classes.json"], "generator.order"),
        (["dataset.on_leak=skp"], "did you mean 'skip'"),
        (["dataset.pixel_range=[9,3]"], "dataset.pixel_range"),
        (["generator.start=nois", "generator.strength=1"], "did you mean 'noise'"),
        (["generator.mode_stop=2"], "generator.mode_stop"),
        (["generator.mode_guidance=-1"], "generator.mode_guidance"),
        (["generator.precision=bf16"], "did you mean 'bfloat16'"),
        (["encoder=sd_vae_mse", "encoder.posterior=men"], "encoder.posterior"),
        (["encoder=taef2", "dataset.image_size=60"], "dataset.image_size"),
        (["dataset.resize=pad"], "dataset.resize"),
        (["dataset=imagenette", "dataset.classes=imagenete"], "did you mean 'imagenette'"),
        (["protocol.image_size=0"], "protocol.image_size"),
        (
            ["protocol.rules=[{max_ipc: 1, epochs: 0}]"],
            "protocol.rules.0.epochs: 0 is not positive",
        ),
        (["measure.num_folds=1"], "measure.num_folds"),
        (["encoder=vae", "encoder.fit.block_out_channels=[]"], "block_out_channels"),
        (
            ["encoder=vae", "dataset.image_size=9", "generator=real", "quantizer=random"],
            "block_out_channels",
        ),
    ],
)
def test_impossible_values_are_named_with_a_remedy(overrides, cause):
    with pytest.raises(ConfigError) as caught:
        check(composed(*overrides))
    assert cause in str(caught.value) and len(str(caught.value).splitlines()) == 2


def test_the_choices_of_imagenet_are_those_of_the_catalogue():
    # its constructor's choices are read without importing the catalogue
    options = constructor("ddoq.data.imagenet.ImageNet").options
    assert set(choices_of(options["classes"].annotation)) == set(CATALOGUE)
    assert set(choices_of(options["source"].annotation)) == {
        source for subset in CATALOGUE.values() for source in subset.counts
    }


def test_all_problems_are_reported_at_once():
    with pytest.raises(ConfigError, match="ipc.*strength"):
        check(composed("ipc=0", "generator.strength=2"))


def test_ipc_above_the_smallest_class_is_named():
    facts = {
        "class_names": ["a", "b"],
        "counts": {"train": [50, 7], "validation": [5, 1], "test": [5, 1]},
    }
    check_counts(composed("ipc=7"), facts)
    with pytest.raises(DataError, match="ipc: 10 .* 7 training images of class 'b'"):
        check_counts(composed(), facts)


@pytest.mark.parametrize(
    ("override", "cause", "remedy"),
    [
        ("quantizer.num_restart=3", "quantizer.num_restart", "quantizer.num_restarts"),
        ("quantizer=kmean", "'kmean'", "'kmeans'"),
        ("quantiser=kmeans", "quantiser", "'quantizer'"),
        ("+experiment=digit", "'digit'", "'digits'"),
        ("experiment=digits", "experiment", "+experiment"),
        ("quantizer.km_expand=3", "the chosen quantizer", "quantizer=d4m"),
        ("ipc=ten", "ipc", "set ipc to a whole number"),
        ("ipc=1,2", "several", "-m"),
        ("run.untill=encode", "run.untill", "run.until"),
        ("+arm@baselines.x=herdin", "arm: there is no 'herdin'", "'herding'"),
        ("ipc=[1", "ipc", "set ipc to a whole number"),
    ],
)
def test_a_typo_gives_two_lines_and_exit_code_one(override, cause, remedy, tmp_path):
    done = ddoq(override, f"paths.outputs={tmp_path}")
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1 and len(lines) == 2, done.stderr
    assert lines[0].startswith("ddoq: error: ") and cause in lines[0]
    assert lines[1].startswith("  -> ") and remedy in lines[1]


def test_one_bad_point_stops_a_sweep_before_its_first_job(tmp_path):
    done = ddoq("-m", "ipc=1,2", "quantizer=kmeans,kmean", f"paths.outputs={tmp_path}")
    assert done.returncode == 1 and "'kmeans'" in done.stderr
    assert not list(tmp_path.glob("store/*"))


def test_help_is_quick_and_names_what_users_type():
    start = time.perf_counter()
    done = new_python("--help")
    seconds = time.perf_counter() - start
    assert done.returncode == 0 and "schema" not in done.stdout
    for group in (*COMPONENTS, "logger", "launcher", "experiment"):
        assert re.search(rf"^ +{group} +\w", done.stdout, re.MULTILINE)
    # A fifth of a second on an idle machine; importing torch would not fit even on a busy one.
    assert seconds < 3


def test_a_shell_gets_the_choices_of_a_row():
    done = new_python("-sc", "query=bash", COMP_LINE="ddoq +arm@baselines.x=herd")
    assert done.stdout.split() == ["+arm@baselines.x=herding"], done.stderr
    done = new_python("-sc", "query=bash", COMP_LINE="ddoq method=")
    assert "method=dm" in done.stdout.split(), done.stderr


def test_a_shell_gets_commands_and_what_follows_them(tmp_path):
    (tmp_path / "runs" / "digits-a").mkdir(parents=True)
    (tmp_path / "sweeps" / "digits-b").mkdir(parents=True)
    both = ["digits-b", "digits-a"]
    for line, words in {
        "ddoq re": ["report"],
        "ddoq report be": ["best"],
        f"ddoq report --outputs {tmp_path} d": both,
        f"ddoq watch paths.outputs={tmp_path} digits": both,
        "ddoq store re": ["repair"],
        "ddoq help glo": ["glossary"],
        "ddoq help weigh": ["weighting"],
        "ddoq help trai": ["trainer"],
        "ddoq help nothing": [],
        "ddoq fetch +experiment=dig": ["+experiment=digits"],
    }.items():
        done = new_python("-sc", "query=bash", COMP_LINE=line)
        assert (done.returncode, done.stdout.split(), done.stderr) == (0, words, ""), line


def test_the_entry_imports_neither_torch_nor_lightning():
    modules = "ddoq.run, ddoq.job, ddoq.preflight, ddoq.experiment"
    code = (
        f"import sys, {modules}; "
        "print([m for m in ('torch', 'lightning', 'diffusers', 'wandb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_suggestions_are_the_nearest_choice():
    assert did_you_mean("kmeens", ["kmeans", "d4m"]) == "did you mean 'kmeans'?"
    assert did_you_mean("zzz", ["b", "a"]) == "choose one of: a, b"


def test_a_file_of_the_user_s_gets_the_options_it_leaves_out(tmp_path):
    (tmp_path / "quantizer").mkdir()
    (tmp_path / "quantizer" / "mine.yaml").write_text(
        "_target_: ddoq.quantizers.D4M\nname: mine\n", encoding="utf-8"
    )
    words = (f"hydra.searchpath=[file://{tmp_path}]", "quantizer=mine")
    mine, shipped = composed(*words)["quantizer"], composed("quantizer=d4m")["quantizer"]
    assert mine == shipped | {"name": "mine"}
    config = composed(*words, "+quantizer.leftover=flush")
    assert config["quantizer"]["leftover"] == "flush"
    check(config)


def test_numbers_become_of_the_type_of_their_option():
    config = composed("generator.strength=1", "generator.fit.learning_rate=1", "dataset.root=2024")
    assert isinstance(config["generator"]["strength"], float)
    assert isinstance(config["generator"]["fit"]["learning_rate"], float)
    assert config["dataset"]["root"] == "2024"
    rules = composed("protocol=minimax")["protocol"]["rules"]
    assert rules[1]["epochs"] == 2000 and rules[1]["batch_size"] is None


def test_choices_and_ranges_hold_for_every_arm():
    words = (
        *("baselines.d4m.quantizer.leftover=flus", "baselines.d4m.quantizer.km_expand=0"),
        *("ablation=standard", "ablation.weightings.clip.high=0", "ablation.strengths=[2]"),
    )
    with pytest.raises(ConfigError) as caught:
        check(composed(*words))
    cause, remedy = str(caught.value).splitlines()
    for part in (
        "baselines.d4m.quantizer.leftover: 'flus' is not known",
        "baselines.d4m.quantizer.km_expand: 0 is not positive",
        "ablation.weightings.clip.high: 0.0 is not positive",
        "ablation.strengths: 2.0 is outside [0, 1]",
    ):
        assert part in cause
    assert "did you mean 'flush'?" in remedy and "to a number in [0, 1]" in remedy
