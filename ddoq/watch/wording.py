"""How the views of running work say what a point does and how long it takes."""

from __future__ import annotations

from ddoq.utils.console import duration
from ddoq.watch.overview import Overview, RunState


def speed(rate: float | None) -> str:
    """Return items per second, or per minute where those are few;
    a question mark for what is not known.
    """
    if rate is None:
        return "?"
    if rate < 0.1:
        return f"{60 * rate:.2g}/min"
    return f"{rate:.0f}/s" if rate >= 10 else f"{rate:.2g}/s"


def doing(point: RunState) -> str:
    """Return what a run is at, or what ended it."""
    if point.state == "waiting" or point.state == "done":
        return ""
    if point.state == "failed" and point.error:
        return point.error[0]
    if not point.stage:
        return "starting"
    stage = (
        f"{point.stage} {point.stage_done}/{point.stage_total}"
        if point.stage_total
        else point.stage
    )
    details = (point.title, point.what.removeprefix(f"{point.stage} "))
    parts = [stage, *dict.fromkeys(part for part in details if part not in ("", point.stage))]
    if point.lock:
        return " · ".join([*parts, "another process computes it"])
    return " · ".join(parts) + (f" {point.items[0]}/{point.items[1]}" if point.items else "")


def accuracy(top1: float | None) -> str:
    """Return a fraction in percent, or nothing."""
    return "" if top1 is None else f"{100 * top1:.1f}"


def totals(view: Overview) -> str:
    """Return how many runs are in which state, and the time since the beginning."""
    num = len(view.points)
    parts = [f"{count} {state}" for state, count in view.counts.items()]
    time = [] if view.elapsed is None else [f"{duration(view.elapsed)} elapsed"]
    return f"{num} {'run' if num == 1 else 'runs'}: " + " · ".join([", ".join(parts), *time])


def common_host(view: Overview) -> str | None:
    """Return the host that all runs are on that have said one; ``None`` if there are several."""
    hosts = {point.host for point in view.points if point.host}
    return hosts.pop() if len(hosts) == 1 else None
