"""Where HTML pages come from: the templates of a room, and the style that all pages share."""

from __future__ import annotations

from pathlib import Path

import jinja2


def templates(room: Path) -> jinja2.Environment:
    """Return the environment of the templates in a folder:
    everything is escaped that is not marked safe.
    """
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([room, Path(__file__).parent]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
