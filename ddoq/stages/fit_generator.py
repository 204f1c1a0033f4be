"""fit_generator: train a small class-conditional diffusion transformer on the train latents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel
from diffusers.models.embeddings import LabelEmbedding

from ddoq.data.indexed import labels_of
from ddoq.data.latents import StoredLatents
from ddoq.engine.fit import DenoiserModule
from ddoq.engine.trainer import even_ends, fit_steps
from ddoq.errors import StageError
from ddoq.pipeline.graph import Node
from ddoq.stages.runtime import Runtime, index_facts
from ddoq.utils.seeding import item_generator, item_seed
from ddoq.utils.state_dicts import require_finite

_NUM_EPOCHS = 20  # a checkpoint after each


def run(node: Node, inputs: Mapping[str, Path], folder: Path, runtime: Runtime) -> dict:
    """Write ``transformer/`` and ``scheduler/`` in diffusers' format;
    facts: parameters and the last loss.
    """
    fit = node.identity["fit"]
    stored = StoredLatents(inputs["encode"], labels_of(inputs["index"], "train"))
    latents, labels = stored.at(torch.arange(len(stored)).numpy()), torch.tensor(stored.labels)
    num_classes = index_facts(inputs["index"]).num_classes
    torch.manual_seed(item_seed(fit["seed"], "dit"))
    transformer = build_transformer(fit, stored.shape, num_classes)
    scheduler = DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule=fit["beta_schedule"],
        prediction_type=fit["prediction_type"],
        clip_sample=False,
        timestep_spacing="trailing",
    )

    def make_batch(step: int) -> tuple[torch.Tensor, ...]:
        random = item_generator(fit["seed"], "dit", step)
        chosen = torch.randint(len(latents), (fit["batch_size"],), generator=random)
        noise = torch.randn(len(chosen), *stored.shape, generator=random)
        times = torch.randint(1000, (len(chosen),), generator=random)
        dropped = torch.rand(len(chosen), generator=random) < fit["label_dropout"]
        return latents[chosen], labels[chosen].masked_fill(dropped, num_classes), noise, times

    checkpoint = folder / "last.ckpt"
    module = DenoiserModule(
        transformer, scheduler, fit["num_steps"], fit["learning_rate"], fit["ema_decay"]
    )
    fit_steps(
        module,
        make_batch,
        even_ends(fit["num_steps"], _NUM_EPOCHS),
        title="fit DiT",
        accelerator=runtime.accelerator,
        checkpoint=checkpoint,
        gradient_clip_val=1.0,
    )
    average = module.average.module.cpu().eval()
    with torch.inference_mode():
        loss = torch.stack(
            [module.cpu().training_step(make_batch(fit["num_steps"] + i), 0) for i in range(4)]
        ).mean()
    require_finite(average, "the DiT", node.stage, "lower generator.fit.learning_rate", StageError)
    average.save_pretrained(folder / "transformer")
    scheduler.save_pretrained(folder / "scheduler")
    checkpoint.unlink(missing_ok=True)
    return {
        "parameters": sum(p.numel() for p in average.parameters()),
        "loss": round(loss.item(), 5),
    }


def build_transformer(
    fit: Mapping, shape: tuple[int, ...], num_classes: int
) -> DiTTransformer2DModel:
    """Return an untrained DiT for latents of a shape ``[C, H, W]``;
    its null class is ``num_classes``.
    """
    transformer = DiTTransformer2DModel(
        num_attention_heads=fit["num_heads"],
        attention_head_dim=fit["head_dim"],
        num_layers=fit["num_layers"],
        in_channels=shape[0],
        out_channels=shape[0],
        sample_size=shape[1],
        patch_size=fit["patch_size"],
        num_embeds_ada_norm=num_classes,
    )
    # Labels are dropped in the batch, by its own seed.
    # The model would drop them per block, from the global one.
    for module in transformer.modules():
        if isinstance(module, LabelEmbedding):
            module.dropout_prob = 0.0
    return transformer
