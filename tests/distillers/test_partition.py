"""Stored images that hold several: cut and enlarged, in bytes, on their way to students."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import interpolate

from ddoq.data.distilled import load_distilled, write_metadata
from ddoq.data.floats import FLOATS, joined, parts_of
from ddoq.data.image_set import ImageSet, write_image_set
from ddoq.distillers import DM
from ddoq.errors import StoreError
from ddoq.utils.seeding import item_generator
from support.distilling import digits_task, fitted, slope_of

METHOD = DM(num_steps=20, learning_rate=1.0, dsa="scale", batch_size=16, partition=2)


def images(side: int = 8) -> torch.Tensor:
    return torch.rand(4, 3, side, side, generator=item_generator("parts"))


def test_parts_are_the_quarters_enlarged_by_bilinear_interpolation():
    whole = images()
    parts = parts_of(whole, 2).view(4, 4, 3, 8, 8)
    corners = [(0, 0), (0, 4), (4, 0), (4, 4)]
    for number, (top, left) in enumerate(corners):
        tile = whole[..., top : top + 4, left : left + 4]
        expected = interpolate(tile, (8, 8), mode="bilinear", align_corners=False)
        assert torch.equal(parts[:, number], expected)
    assert torch.equal(parts_of(whole, 1), whole)


@pytest.mark.parametrize(("side", "partition"), [(8, 2), (9, 2), (9, 3), (7, 3)])
def test_what_was_joined_is_taken_apart_but_for_detail(side, partition):
    flat = torch.arange(2 * partition**2, dtype=torch.float)[:, None, None, None]
    flat = flat.expand(-1, 1, side, side)
    whole = joined(flat, partition)
    assert whole.shape == (2, 1, side, side)
    assert torch.allclose(parts_of(whole, partition), flat, atol=1e-5)


def test_a_set_stores_few_images_and_shows_many():
    task = digits_task(METHOD, ipc=3)
    assert task.pixels().shape == (30, 1, 8, 8) and task.synthetic().shape == (10, 12, 1, 8, 8)
    assert len(task.synthetic) == 30 and (task.synthetic.sources == -1).all()
    by_gradient, by_differences = slope_of(METHOD, task)
    assert by_differences == pytest.approx(by_gradient, rel=1e-5)
    module = fitted(METHOD, digits_task(METHOD, ipc=3))
    losses = module.history(4)[1]
    assert losses[-1] < 0.8 * losses[0]
    counts = replace(METHOD, masses=True).counts(module.task)
    assert counts.shape == (30,) and counts.sum() == len(module.task.images)


def written(folder, partition: int):
    """Write two classes of two stored images each; return them."""
    stored, labels = images(), torch.arange(2).repeat_interleave(2)
    columns = {"index": torch.arange(2).repeat(2), "counts": torch.tensor([3, 5, 4, 4])}
    columns |= {"labels": labels, "sources": torch.full((4,), -1)}
    write_image_set(folder, stored, ["a", "b"], partition=partition, **columns)
    return stored, labels


def test_students_get_the_parts_with_labels_and_weights_of_their_image(tmp_path):
    stored, labels = written(tmp_path, 2)
    found = ImageSet.load(tmp_path)
    assert len(found) == 4 and found.partition == 2
    assert torch.equal(found.pixels(), parts_of(stored, 2))
    assert len(found.items()) == 16 == len(found.labels_of_pixels)
    weights = [0.75, 1.25, 1.0, 1.0]
    rows = {"file_name": list(found.names), "label": labels.tolist(), "weight": weights}
    write_metadata(tmp_path, rows | {"count": [3, 5, 4, 4]}, ["a", "b"], None, 1.0)
    data = load_distilled(tmp_path)
    assert len(data) == 4 and data.partition == 2 and torch.equal(data[1][0], stored[1])
    training = data.training_set()
    assert torch.equal(training.images, parts_of(stored, 2))
    assert torch.equal(training.labels, labels.repeat_interleave(4))
    assert training.targets.shape == (16, 2) and training.counts.sum() == 16
    assert training.weights.tolist() == [w for w in weights for _ in range(4)]
    assert data.training_set(16).images.shape == (16, 3, 16, 16)


def test_a_damaged_partition_is_refused(tmp_path):
    written(tmp_path, 2)
    (tmp_path / FLOATS).write_bytes(b"no")
    with pytest.raises(StoreError, match="cannot be read"):
        ImageSet.load(tmp_path)
