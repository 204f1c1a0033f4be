"""What students share is what torch has, only faster."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import avg_pool2d

from ddoq.students.parts import HalvingPool
from ddoq.utils.seeding import item_generator

POOL = HalvingPool()


def maps(*shape: int, layout: torch.memory_format = torch.contiguous_format) -> torch.Tensor:
    drawn = torch.randn(shape, generator=item_generator("maps"))
    return drawn.to(memory_format=layout).requires_grad_()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(3, 4, 8, 8), (2, 3, 6, 10), (2, 3, 7, 9)])
def test_pooling_and_its_derivatives_are_torch_s_to_the_last_digit(shape, layout):
    images, results = maps(*shape, layout=layout), []
    for pool in (POOL, lambda images: avg_pool2d(images, 2)):
        pooled = pool(images)
        (first,) = torch.autograd.grad(pooled.pow(3).sum(), images, create_graph=True)
        (second,) = torch.autograd.grad(first.pow(2).sum(), images)
        results.append((pooled, first, second))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
