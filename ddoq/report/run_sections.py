"""What the store says about one run: sections, as those of ``ddoq.report.sections``."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from ddoq.experiment.teachers import seen_test_images
from ddoq.report import figures, pairs, tables
from ddoq.report.evidence import Evidence, RunReport
from ddoq.report.formats import DASH, decimal, number, relative, training
from ddoq.report.groups import by_arm
from ddoq.report.page import Section
from ddoq.report.view import View, table_of


def pictures(report: RunReport) -> Section:
    """The distilled images."""
    run = report.run
    num, shown = len(run.index["class_names"]), len(run.pictures)
    rest = f" The first {shown} of {num} classes." if num > shown else ""
    return Section(
        title="The distilled images",
        text=[
            f"Arm {run.main_arm}; within a class the heaviest first. The number is the weight in "
            "the loss (mean 1 per class), hover for the file and the size of the Voronoi cell."
            + rest
        ],
        strips=run.pictures,
        is_wide=True,
    )


def protocol(report: RunReport) -> Section:
    """How students were trained and measured."""
    run = report.run
    config = run.config
    own, group = config["protocol"], by_arm(report.groups, "main")[run.main_arm]
    length = (
        "of the distilled set (longer or shorter for other sizes, by the protocol's rules)"
        if own["epochs"]
        else f"of {own['batch_size']} images for every arm, the full data included"
    )
    hard = " (hard ones for the full data)" if own["labels"] != "hard" else ""
    source = f" Source: {own['source']}; it reports the {own['selection']} epoch."
    return Section(
        title="How it was measured",
        text=[
            f"Student {config['student']['name']}, protocol {own['name']}: {training(group)} "
            f"{length}, {own['labels']} labels{hard}, weights: {own['weights']['use']}."
            f"{source if own.get('source') else ''} Accuracy of the last epoch on the "
            f"{config['split']} split, over {group['accuracy'].num} students."
        ],
        views=[pairs.main_pairs(report.shown)],
        is_wide=True,
    )


def scores(report: RunReport) -> Section | None:
    """DD-Ranking's scores."""
    run = report.run
    view = pairs.scores(report.groups, run.main_arm)
    return view and Section(title=view.title, views=[view])


def per_class(report: RunReport) -> Section:
    """Accuracy of every class."""
    run = report.run
    arms = run.per_class()
    rows = [
        {"class": name}
        | {arm: _mean_top1([seed[label] for seed in seeds]) for arm, seeds in arms.items()}
        for label, name in enumerate(run.index["class_names"])
    ]
    view = table_of(rows, title="", name="per-class")
    return Section(title="Accuracy per class", views=[view], is_folded=True)


def _mean_top1(accuracies: list[float | None]) -> str:
    return DASH if None in accuracies else number(fmean(accuracies), 1, scale=100)


def gallery(report: RunReport) -> Section:
    """The same classes in every arm."""
    run = report.run
    return Section(
        title="The same classes in every arm",
        text=["The heaviest image of each class."],
        strips=run.gallery(),
        is_wide=True,
    )


def contributions(report: RunReport) -> Section | None:
    """What each part of the main arm adds."""
    run = report.run
    view = pairs.contributions(report.groups, run.config["generator"].get("strength"))
    drawn = (
        "and the draw of codebook and noise, which are new for every student"
        if run.config["protocol"]["redraw"]
        else "(and, where “random” takes part, the draw of its images)"
    )
    return view and Section(
        title=view.title,
        text=[
            "Differences over the same student seeds, one ingredient at a time. The interval "
            f"covers the students' training {drawn}; the encoder and the generator are fitted once."
        ],
        views=[view],
        is_wide=True,
    )


def choices(report: RunReport) -> Section | None:
    """Strengths and weightings on the validation split."""
    run = report.run
    strengths, weightings = (
        [group for group in report.groups if group["table"] == table]
        for table in ("strength", "weighting")
    )
    if not strengths and not weightings:
        return None
    figure = strengths and figures.strength_figure(strengths, run.config["generator"]["strength"])
    view = table_of(
        (
            {"weighting": group["value"]}
            | {name: tables.accuracy_cells(group)[name] for name in tables.ALWAYS}
            for group in weightings
        ),
        title="",
        name="weightings",
        bold=frozenset(
            n for n, g in enumerate(weightings) if g["value"] == run.config["weighting"]["name"]
        ),
    )
    return Section(
        title="On the validation split",
        text=[
            "Strength and weighting are chosen here, never on the test split. "
            "Same images, students and protocol otherwise."
        ],
        views=[view],
        figures=[("", figure)] if figure else [],
    )


# --- codebooks and images ---------------------------------------------------------------------


def quantization(report: RunReport) -> Section | None:
    """How well points stand for latents."""
    run = report.run
    groups = list(by_arm(report.groups, "main").values())
    codebooks = tables.codebook_view(groups, run.main_arm)
    if codebooks is None and not run.curves:
        return None
    folds = run.config["measure"]["num_folds"]
    held_out = (
        f"{folds} folds, each held out once"
        if folds
        else "here nothing is held out: measure.num_folds=0"
    )
    series = [s for curve in run.curves[:-1] for s in figures.curve_series(curve, ("w2_squared",))]
    series += [s for curve in run.curves[-1:] for s in figures.curve_series(curve)]
    figure = figures.w2_figure(series)
    return Section(
        title="Quantization",
        text=[
            "How well the points stand for the latents of their class, before anything is "
            "generated or trained, as shares of the variance within the classes: 1 is what the "
            "class mean alone achieves. Own masses are those of the Voronoi cells (of a "
            "barycenter, 1/K each). With Voronoi masses W2² is the distortion, the mean squared "
            "distance of a latent to its nearest point, and no other masses on the same points "
            "do better.",
            "In high dimension the distance to the latents that the points were fitted to falls "
            "with K even for noise. The held-out distortion is measured on latents that they "
            f"were not fitted to ({held_out}): where it stops falling, more points no longer "
            "summarise.",
            *_rate(run.curves),
            "Effective points: how many of equal mass would be spread as evenly. "
            "Dispersion: the masses' standard deviation over their mean.",
        ],
        views=[_curve_view(run), codebooks],
        figures=[("", figure)] if figure else [],
        is_wide=True,
    )


def _rate(curves: list[dict[str, Any]]) -> list[str]:
    curve = curves[-1] if curves else {"slope": None}
    if curve["slope"] is None:
        return []
    dimension = (
        ""
        if curve["dimension"] is None
        else f", as for data of dimension {curve['dimension']:.1f}: Zador's K^(−1/d) read "
        "backwards, d = −1/slope; too low where K comes near the number of latents, since W2 "
        "falls to zero there"
    )
    slope = f"{curve['slope']:.3f}".replace("-", "−")
    return [f"W2 of {curve['name']} with its own masses goes as K^({slope}){dimension}."]


def _curve_view(run: Evidence) -> View | None:
    points = run.curves[-1]["points"] if run.curves else []
    return table_of(
        ({"K": str(point["num_centroids"])} | tables.quality_cells(point) for point in points),
        title="Points per class",
        name="curve",
        bold=frozenset(
            n for n, point in enumerate(points) if point["num_centroids"] == run.config["ipc"]
        ),
    )


def class_codebooks(report: RunReport) -> Section | None:
    """The main arm's codebook, class by class."""
    run = report.run
    view = table_of(
        (
            {
                "class": own["name"],
                "slope": number(own["slope"], 3),
                "dimension": number(own["dimension"], 1),
                "points": str(own["num_centroids"]),
                "W2² own masses": relative(own, "w2_squared"),
                "W2² equal masses": relative(own, "w2_squared_uniform"),
                "effective points": number(own["effective_size"], 1),
            }
            for own in run.class_codebooks()
        ),
        title="",
        name="classes",
        note="Shares of the variance of each class; slope and dimension of W2 against K.",
    )
    title = f"Quantization per class, arm {run.main_arm}"
    return view and Section(title=title, views=[view], is_folded=True)


def optimisation(report: RunReport) -> Section | None:
    """The methods that optimise images: their images before and after, losses, time, memory."""
    run = report.run
    optimisations = run.optimisations()
    if not optimisations:
        return None
    courses = {arm: manifest["facts"] for arm, manifest in optimisations.items()}
    return Section(
        title="Optimisation",
        text=[
            "Of each arm whose images a method optimised, its first set: the first image of each "
            "class before the first step and after the last, and the losses over the mean of "
            "their first steps. Methods minimise different things: compare the courses, not the "
            "heights."
        ],
        strips=run.starts_and_ends(),
        figures=[("", figures.losses_figure(courses))],
        views=[
            table_of(
                ({"arm": arm} | _spent(**manifest) for arm, manifest in optimisations.items()),
                title="Time and memory of a set",
                name="optimisation",
                note=(
                    "Seconds and memory include the networks that a method makes and trains. "
                    "Memory: on a GPU the most that was allocated; on a CPU, where libraries hide "
                    "it, the estimate of before the first step: training images, networks, and "
                    "what is held of a pass for the way back."
                ),
            )
        ],
        is_wide=True,
    )


def choices_among_draws(report: RunReport) -> Section | None:
    """What selections chose among several draws of the same points."""
    view = table_of(
        [
            {
                "arm": arm,
                "candidates": str(facts["num_candidates"]),
                "images": str(facts["num_images"]),
                "of each draw": ", ".join(map(str, facts["of_draws"])),
                "masses": {"points": "of the points", "cells": "counted anew"}[facts["masses"]],
                "objective": " → ".join(number(v, 3) for v in facts.get("objectives", ())) or "–",
            }
            for arm, facts in report.run.choices_among_draws().items()
        ],
        title="",
        name="select",
    )
    text = [
        "Images were chosen among several draws of the same points, here of each arm's first set. "
        "Where each point has one image, masses stay those of the points; else an image has those "
        "training images of its class to which it is the nearest in the features. The objective "
        "(S³) is that of the start and after each round."
    ]
    return view and Section(title="Choice among draws", text=text, views=[view])


def redundancy(report: RunReport) -> Section | None:
    """What the next draw would still tell a student of the first."""
    view = table_of(
        [
            {
                "arm": arm,
                "top-1 on the next draw %": number(facts["top1"], 1, scale=100),
                "images": str(facts["num_images"]),
            }
            for arm, facts in report.run.redundancies().items()
        ],
        title="",
        name="redundancy",
    )
    text = [
        "A student of each arm's first images, tested on its next draw of as many: what it knows "
        "already, further images would not tell it (the diagnostic of LGD, whose increments know "
        "of those before; here draws are independent). An arm that draws nothing makes the same "
        "images again."
    ]
    return view and Section(title="Redundancy of further images", text=text, views=[view])


def _features_of(run: Evidence) -> str:
    """Return the words for the features that ``measure.fidelity`` looks at."""
    teacher, space = run.config["teacher"]["name"], run.config["measure"].get("space")
    if space is None:
        return f"the penultimate features of teacher {teacher}"
    return f"the features of {space.get('model', teacher)}"


def _spent(facts: dict[str, Any], cost: dict[str, Any], **_: Any) -> dict[str, str]:
    """Return what a set took to be optimised, given what its manifest says."""
    steps, measured = facts["loss_steps"][-1], cost.get("gpu_peak_mib")
    estimate = facts.get("step_bytes")
    memory = number(estimate, 1, scale=2**-20) if measured is None else number(measured, 1)
    return {
        "steps": str(steps),
        "seconds": number(cost["seconds"], 1),
        "ms per step": number(1000 * cost["seconds"] / steps, 1),
        "networks, MiB": number(facts.get("network_bytes"), 1, scale=2**-20),
        "memory, MiB": memory,
        "by": "estimate" if measured is None else "allocated",
    }


def fidelity(report: RunReport) -> Section | None:
    """Images in the teacher's features."""
    run = report.run
    fidelities = run.fidelities()
    measures = ("precision", "recall", "density", "coverage")
    rows = [
        {
            "arm": arm,
            "Fréchet": number(facts["frechet_distance"], 2),
            **{name: number(facts[name], 3) for name in measures},
            "teacher's top-1 %": number(facts["teacher_top1"], 1, scale=100),
            "entropy": number(facts["entropy"], 3),
            "entropy ~ weight": decimal(facts["entropy_weight_correlation"]),
        }
        for arm, facts in fidelities.items()
    ]
    view = table_of(
        rows,
        title="",
        name="fidelity",
        bold=frozenset(n for n, arm in enumerate(fidelities) if arm == run.main_arm),
    )
    if view is None:
        return None
    images = run.entropies()
    figure = images and figures.entropy_figure(run.main_arm, images["weight"], images["entropy"])
    return Section(
        title="Images in features",
        text=[
            f"Distilled and training images in {_features_of(run)}, "
            "images with their weights. Fréchet distance between "
            "Gaussians (biased upwards for few images: compare arms of one size only); precision: "
            "share of images within reach of training images, recall: share of training images "
            "within reach of images (Kynkäänniemi 2019); density and coverage (Naeem 2020), 5 "
            "neighbours. Entropy of the teacher's labels over that of knowing nothing, and its "
            "rank correlation with the weights.",
            *filter(None, [seen_test_images(run.config)]),
        ],
        views=[view],
        figures=[("", figure)] if figure else [],
        is_wide=True,
    )
