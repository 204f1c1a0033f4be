"""Tasks of distilling digits, and loops around methods that optimise images."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn

from ddoq.distillers import Task
from ddoq.engine.distill import DistillModule
from ddoq.engine.trainer import even_ends, fit_steps
from ddoq.students import ConvNet
from ddoq.utils.seeding import item_generator, item_seed


def named(method) -> str:
    return type(method).__name__


def small_net(channels: int, size: int, norm: str = "instance"):
    """Return what makes a small student from a seed."""

    def make(*parts: object) -> nn.Module:
        torch.manual_seed(item_seed("student", *parts))
        return ConvNet(channels, 10, size, depth=2, width=8, norm=norm)

    return make


def digits_task(method=None, *, ipc: int = 2, seed: int = 0, norm: str = "instance") -> Task:
    """Return the task of distilling digits, its images at their start."""
    digits = load_digits()
    images = torch.from_numpy(digits.images * 255 / 16).round().to(torch.uint8)[:, None]
    task = Task(
        images,
        torch.from_numpy(digits.target),
        num_classes=10,
        ipc=ipc,
        mean=torch.tensor([0.3]),
        std=torch.tensor([0.4]),
        make_network=small_net(1, 8, norm),
        seed=seed,
    )
    if method is not None:
        method.begin(task)
    return task


def photographs_task(method, size: int) -> Task:
    """Return the task of distilling two classes of three coloured images."""
    images = torch.randint(256, (6, 3, size, size), dtype=torch.uint8)
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
    labels, make = torch.arange(6) % 2, small_net(3, size)
    options = {"num_classes": 2, "ipc": 2, "mean": mean, "std": std, "make_network": make}
    task = Task(images, labels, seed=0, **options)
    method.begin(task)
    return task


def fitted(method, task: Task, checkpoint=None, dies_at: int | None = None) -> DistillModule:
    """Optimise the images of a task in five parts; the machine may fail before a step."""

    def make_batch(step: int):
        if step == dies_at:
            raise KeyError("the machine failed")
        return method.batch(task, step)

    module = DistillModule(method, task)
    ends = even_ends(method.num_steps, 5)
    fit_steps(module, make_batch, ends, title="test", accelerator="cpu", checkpoint=checkpoint)
    return module


class Recorded:
    """Stands where a loop would be: keeps the losses that a step hands over."""

    def __init__(self):
        self.closures = []

    def __call__(self, *closures) -> None:
        self.closures += closures


def loss_of(method, task: Task, step: int):
    """Return the loss of a step as a function."""
    seen = Recorded()
    method.step(task, method.batch(task, step), seen)
    return lambda: sum(closure() for closure in seen.closures)


def in_double(task: Task) -> Task:
    """Return a task, its images and networks with 64 bits from now on."""
    make = task._make_network
    task._make_network = lambda *parts: make(*parts).double()
    return task.double()


def slope_of(method, task: Task, nudge: float = 1e-6) -> tuple[float, float]:
    """Return the slope of the first step's loss along a direction: by gradient, by differences."""
    in_double(task)
    loss = loss_of(method, task, 0)
    images = task.synthetic.images
    (gradient,) = torch.autograd.grad(loss(), images)
    direction = torch.randn(images.shape, generator=item_generator("direction")).double()
    images.requires_grad_(False)
    above = (images.add_(nudge * direction), loss())[1].item()
    below = (images.sub_(2 * nudge * direction), loss())[1].item()
    return (gradient * direction).sum().item(), (above - below) / (2 * nudge)
