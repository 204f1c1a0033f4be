"""Randomness that belongs to the item: every image, step and student has a seed of its own."""

from __future__ import annotations

import hashlib

import torch


def item_seed(*parts: object) -> int:
    """Return a 63-bit seed that depends on every part, e.g.
    ``item_seed(seed, "noise", label, index)``.
    """
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def item_generator(*parts: object) -> torch.Generator:
    """Return a CPU generator seeded from ``parts``;
    numbers drawn from it do not depend on the device.
    """
    return torch.Generator().manual_seed(item_seed(*parts))
