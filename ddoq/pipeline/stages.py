"""The table of stages: everything that the rest of the house has to know of one
without importing it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a stage is. Its work is ``run`` in ``ddoq/stages/<name>.py``.

    Attributes:
        name: of the stage, of its file and of its folder in the store.
        wave: the last stage of the wave of a sweep that it belongs to:
            waves differ in the resources they ask for.
        version: part of every key; raised whenever the same configuration would
            give another result.
        per_arm: made for one arm of the tables alone, which pays for it; what is not is shared.
        together: its items are shared out among processes;
            of other stages, one process computes a node.
        tries: only tries models. Nothing is made of what it says.
        required: facts that a manifest has to have. Without them it is the verdict of an older ddoq
            that did not look, and the artefact is computed again under its key.
        remedy: what to do where it measures something that is no number.
    """

    name: str
    wave: str
    version: int = 1
    per_arm: bool = False
    together: bool = False
    tries: bool = False
    required: tuple[str, ...] = ()
    remedy: str = "take another quantizer, e.g. quantizer=kmeans, or another encoder"


#: The corridor, in the order in which the data walk through it.
#: ``run.until`` and ``run.from`` take these names.
TABLE = {
    stage.name: stage
    for stage in (
        # An index without its range scaled every 16-bit picture by itself and split copies up.
        Stage(name="index", wave="encode", version=2, required=("pixel_range",)),
        Stage(name="audit", wave="encode", required=("leaks",)),
        Stage(name="fit_encoder", wave="encode", remedy="lower encoder.fit.learning_rate"),
        Stage(name="probe", wave="encode", tries=True),
        # 2: protocols with rules and views
        Stage(
            name="fit_teacher", wave="encode", version=2, remedy="lower its protocol.learning_rate"
        ),
        Stage(name="check_teacher", wave="encode", required=("order",)),
        # 2: shards of 1,024 in the encoder's storage type
        Stage(name="encode", wave="encode", version=2, together=True),
        # 2: k-means by exchanges, measures with held-out distortion
        Stage(name="quantize", wave="curve", version=2, per_arm=True, together=True),
        Stage(name="curve", wave="curve", together=True),
        Stage(name="fit_generator", wave="generate", remedy="lower generator.fit.learning_rate"),
        Stage(
            name="fit_surrogates",
            wave="generate",
            remedy="lower fit.learning_rate of the guidance that they are for",
        ),
        Stage(name="check_generator", wave="generate", tries=True, required=("p_value",)),
        Stage(
            name="invert",
            wave="generate",
            per_arm=True,
            together=True,
            remedy="set generator.precision=float32, or generator.inversion_scale=1",
        ),
        Stage(name="distill", wave="generate", per_arm=True, remedy="lower method.learning_rate"),
        Stage(name="generate", wave="generate", per_arm=True, together=True),
        Stage(
            name="select",
            wave="report",
            per_arm=True,
            together=True,
            remedy="take another teacher or selection.space, or selection=none",
        ),
        Stage(name="label", wave="report", per_arm=True, together=True),
        Stage(name="relabel", wave="report", per_arm=True, together=True),
        Stage(
            name="fidelity",
            wave="report",
            remedy="take another teacher, or set measure.fidelity=false",
        ),
        Stage(name="redundancy", wave="report", remedy="lower protocol.learning_rate"),
        # 2: protocols with rules, teachers and views; more measures
        Stage(name="evaluate", wave="report", version=2, remedy="lower protocol.learning_rate"),
        Stage(name="report", wave="report"),
    )
}
STAGES = tuple(TABLE)


def reaches(until: str, stage: str) -> bool:
    """Tell whether a run up to ``until`` includes a stage."""
    return STAGES.index(stage) <= STAGES.index(until)
