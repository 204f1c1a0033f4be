"""Where a run's results come from: its data, what it cost, how to make it again."""

from __future__ import annotations

import yaml

from ddoq.data.leaks import leak_words
from ddoq.experiment.teachers import seen_test_images
from ddoq.pipeline.provenance import provenance
from ddoq.report.evidence import Evidence, RunReport
from ddoq.report.formats import num_bytes, number
from ddoq.report.page import Section
from ddoq.report.view import table_of


def headline(run: Evidence) -> list[str]:
    """Return what the run was made on, and what is odd about it."""
    index = run.index
    counts = ", ".join(f"{sum(num):,} {split}" for split, num in index["counts"].items())
    lines = [
        index["provenance"],
        f"{counts} images in {len(index['class_names'])} classes",
        index["num_skipped"] and f"{index['num_skipped']} unreadable images left out",
        index["num_in_several_classes"]
        and f"pictures in more than one class: {index['num_in_several_classes']}",
        *map(leak_words, run.leaks),
        index["num_deep"]
        and f"{index['num_deep']} pictures of 16 bits or floats: "
        f"{' is black, '.join(map(str, index['pixel_range']))} white in all of them",
        index["unexpected_counts"],
        seen_test_images(run.config),
    ]
    return [line for line in lines if line]


def stages(report: RunReport) -> Section:
    """What every stage cost."""
    run = report.run
    view = table_of(
        (
            {
                "stage": cost["stage"],
                "artefacts": str(cost["artefacts"]),
                "hits": str(cost["hits"]),
                "seconds": number(cost["seconds"], 1),
                "peak MiB": number(cost["peak_mib"], 0),
                "on disk": num_bytes(cost["num_bytes"]),
            }
            for cost in run.stage_costs
        ),
        title="",
        name="stages",
    )
    total = sum(cost["seconds"] for cost in run.stage_costs)
    return Section(
        title="Cost by stage",
        text=[
            "Seconds of computing, peak memory of the process and bytes on disk of all artefacts "
            f"behind this page, whenever they were computed: {total:.0f} s in all on "
            f"{provenance()['machine']}. Hits were in the store before this run.",
            *run.models(),
        ],
        views=[view],
    )


def reproduce(report: RunReport) -> Section:
    """The command, the configuration, the plan, code and machine."""
    run = report.run
    steps = "\n".join(
        f"{step.state:5s} {step.node.stage:14s} {step.node.key}  {step.node.title}"
        for step in run.steps
    )
    code = "\n".join(f"{name}: {value}" for name, value in provenance().items())
    config = yaml.safe_dump(dict(run.config), sort_keys=False)
    return Section(
        title="Reproduce",
        text=_of_data(run),
        folded=[
            *([("Command", run.command)] if run.command else []),
            ("Configuration (config.yaml)", config),
            ("Plan at the start of this run", steps),
            ("Code and machine", code),
            *_lists_of_data(run),
        ],
        is_wide=True,
    )


def _of_data(run: Evidence) -> list[str]:
    index = run.index
    ignored = ", ".join(f"{num} × {what}" for what, num in index["ignored"].items())
    recognised = ". ".join(index["recognised"])
    return [
        *([f"What the data were taken for: {recognised}."] * bool(recognised)),
        *([f"Beside the images, and left aside: {ignored}."] * bool(ignored)),
    ]


def _lists_of_data(run: Evidence) -> list[tuple[str, str]]:
    """Return the pictures that something is odd about, by what that is."""
    index = run.index
    lists = [
        (index["num_skipped"], "unreadable images left out", index["skipped"]),
        (
            index["num_in_several_classes"],
            "pictures in more than one class, kept in each",
            index["in_several_classes"],
        ),
    ]
    lists = [(f"{num:,} {title}", num, lines) for num, title, lines in lists]
    lists += [
        (
            f"{leak_words(leak)} (= the same pixels, ~ nearly)",
            leak["equal"] + leak["alike"],
            leak["pictures"],
        )
        for leak in run.leaks
    ]
    return [
        (f"{title}{f', the first {len(lines)}' if num > len(lines) else ''}", "\n".join(lines))
        for title, num, lines in lists
        if lines
    ]
