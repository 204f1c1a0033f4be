"""`ddoq help`: the topics that GitHub shows, on a terminal of 80 columns."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping

import pytest
from omegaconf import OmegaConf

from ddoq.config.choices import COMPONENTS, files, sections
from ddoq.errors import ConfigError
from ddoq.help import FOLDER, main, topics
from support.processes import new_python
from support.runs import ROOT

TOPICS = topics()
WIDTH = 80


def test_the_list_has_a_line_for_every_topic():
    done = new_python("help")
    assert done.returncode == 0, done.stderr
    assert len(TOPICS) >= 9
    for name, about in TOPICS.items():
        assert about and re.search(rf"^  {name} +{re.escape(about)}$", done.stdout, re.MULTILINE)
    assert max(map(len, done.stdout.splitlines())) <= WIDTH


@pytest.mark.parametrize("name", TOPICS)
def test_a_topic_is_shown_whole_in_80_columns(name, capsys):
    assert main([name]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= WIDTH
    text = (FOLDER / f"{name}.md").read_text()
    assert shown.count("…") == text.count("…"), "a cell of a table is cut"
    assert "```" not in shown and "](" not in shown
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            assert f" {line}" in shown, "a line of code is longer than the terminal"


def test_a_misspelt_topic_gets_the_nearest():
    done = new_python("help", "sweps")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "ddoq: error: help: there is no topic 'sweps'",
        "  -> did you mean 'sweeps'?",
    ]
    with pytest.raises(ConfigError, match="choose one of: ablation, allocation, arm, "):
        main(["qqq"])


def test_readme_and_the_general_help_name_every_topic_and_links_lead_somewhere():
    readme, general = (ROOT / "README.md").read_text(), (ROOT / "ddoq" / "help.txt").read_text()
    assert readme.count("\n") <= 150
    assert set(re.findall(r"\(ddoq/help/(\w+)\.md\)", readme)) == set(TOPICS)
    assert all(re.search(rf"\b{name}\b", general) for name in TOPICS)
    for document in (
        ROOT / "README.md",
        *FOLDER.glob("*.md"),
        ROOT / "tests" / "benchmarks" / "README.md",
    ):
        text = document.read_text()
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", text) + re.findall(
            r'src="([^"]+)"', text
        ):
            assert (document.parent / link).exists(), f"{document}: {link}"


def test_help_loads_neither_torch_nor_hydra():
    code = (
        "import sys, ddoq.help; "
        "print([m for m in ('torch', 'hydra', 'omegaconf', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("group", ["quantizer", "dataset", "compare", "launcher"])
def test_a_group_lists_its_choices_with_the_first_line_of_their_files(group, capsys):
    assert main([group]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= WIDTH
    assert all(re.search(rf"^{choice} +\w", shown, re.MULTILINE) for choice in files(group))


def test_a_choice_shows_every_option_with_its_value_words_and_file(capsys):
    assert main(["generator=dit_small"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= WIDTH
    words = " ".join(shown.split())
    assert "generator.fit.head_dim 24 width of a head. (positive)" in words, "its own value"
    assert "generator.fit.ema_decay 0.998" in words, "taken over from dit"
    assert "generator.strength 0.8 share of the sampling steps that are run. (in (0, 1])" in words
    assert "DDIMScheduler, DDPMScheduler" in words and "Peebles & Xie 2023" in words
    assert shown.replace("\n", "").endswith("conf/generator/dit_small.yaml")


@pytest.mark.parametrize(
    "choice", [f"{group}={choice}" for group in COMPONENTS for choice in files(group)]
)
def test_every_choice_of_every_component_fits_into_80_columns(choice, capsys):
    assert main([choice]) == 0
    *lines, _ = capsys.readouterr().out.splitlines()  # the last is the file's path
    assert max(map(len, lines)) <= WIDTH and any(line.startswith(choice) for line in lines)


@pytest.mark.parametrize("section", sorted(set(sections()) - set(TOPICS)))
def test_a_section_of_the_root_shows_its_keys_with_their_comments(section, capsys):
    assert main([section]) == 0
    *lines, file = capsys.readouterr().out.splitlines()
    shown = " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= WIDTH and file.endswith("conf/config.yaml")
    value = OmegaConf.load(ROOT / "conf" / "config.yaml")[section]
    keys = value if isinstance(value, Mapping) else [section]
    assert all(f"{key}:" in shown for key in keys)
    assert section != "trainer" or "never changes what is computed" in shown


def test_a_misspelt_group_or_choice_gets_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'quantizer'"):
        main(["quantiser"])
    with pytest.raises(ConfigError, match="quantizer: there is no 'kmean'\n.*'kmeans'"):
        main(["quantizer=kmean"])
