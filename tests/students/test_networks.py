"""The students are the networks that their names stand for."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from ddoq.config.build import build
from ddoq.config.choices import files
from ddoq.errors import ConfigError
from ddoq.students import ConvNet, ResNetAP, TimmStudent
from support.runs import choice


def size_of(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def images(num: int, channels: int, side: int) -> torch.Tensor:
    return torch.randn(num, channels, side, side, generator=torch.Generator().manual_seed(1))


def outputs(
    network: nn.Module, kinds: tuple[type, ...], side: int, channels: int = 3
) -> list[tuple[int, ...]]:
    """Return the shapes of what the modules of some kinds put out,
    in the order in which they run.
    """
    shapes = []
    for module in network.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    network(torch.zeros(1, channels, side, side, device=next(network.parameters()).device))
    return shapes


@pytest.fixture
def meta():
    """Networks that take neither memory nor time: they have shapes only."""
    with torch.device("meta"):
        yield


#: torchvision's name of the same network.
PUBLISHED = {
    name: name
    for name in ("resnet18", "resnet50", "resnet101", "mobilenet_v2", "efficientnet_b0", "swin_t")
}
PUBLISHED |= {"vit_b": "vit_b_16", "convnext_t": "convnext_tiny"}


def test_every_shipped_student_is_named_like_its_file_and_has_the_published_number_of_parameters(
    meta,
):
    """Fails for a name copied from another file, an option that no constructor has,
    or another variant of a model.
    """
    assert set(files("student")) > set(PUBLISHED)
    for name in files("student"):
        conf = choice("student", name)
        assert conf["name"] == name
        network = build(conf, channels=3, num_classes=1000, image_size=224)
        if name in PUBLISHED:
            weights = torchvision.models.get_model_weights(PUBLISHED[name]).DEFAULT
            assert size_of(network) == weights.meta["num_params"]


# --- ConvNet ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_classes", "expected"), [(10, 320_010), (100, 504_420)])
def test_convnet_has_the_published_number_of_parameters(num_classes, expected):
    """Fails for a missing bias or norm weight, or a classifier on another map than 4×4."""
    assert size_of(ConvNet(3, num_classes, 32)) == expected


def test_convnet_is_its_formula():
    """Fails for another order of norm, activation and pooling, or a norm over other pixels."""
    network = ConvNet(3, 5, 8, depth=2, width=4)
    x = images(2, 3, 8)
    parameters = list(network.parameters())
    with torch.no_grad():
        for p in parameters:
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
        out = x
        for weight, bias, scale, shift in (parameters[:4], parameters[4:8]):
            out = F.conv2d(out, weight, bias, padding=1)
            mean = out.mean((2, 3), keepdim=True)
            var = out.var((2, 3), unbiased=False, keepdim=True)
            out = (out - mean) / (var + 1e-5).sqrt() * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
            out = out.clamp(min=0)
            out = (
                out[..., ::2, ::2]
                + out[..., 1::2, ::2]
                + out[..., ::2, 1::2]
                + out[..., 1::2, 1::2]
            ) / 4
        expected = out.flatten(1) @ parameters[8].T + parameters[9]
        assert torch.allclose(network(x), expected, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_28_pixels_end_in_maps_of_4(channels):
    """Fails where 28 pixels are not framed as 32:
    maps of 3×3, for grey images or for coloured ones.
    """
    network = ConvNet(channels, 10, 28)
    shapes = outputs(network, (nn.Conv2d, nn.AvgPool2d), 28, channels)
    assert shapes == [(128, side, side) for side in (32, 16, 16, 8, 8, 4)]


@pytest.mark.parametrize(
    ("channels", "side", "depth"), [(1, 28, 3), (3, 32, 3), (3, 64, 4), (3, 128, 5), (3, 36, 3)]
)
def test_convnet_fits_the_image_sizes_of_the_literature(channels, side, depth):
    """Fails where the classifier does not fit the last map,
    e.g. of an image whose side is no power of two.
    """
    assert ConvNet(channels, 7, side, depth, width=8)(images(2, channels, side)).shape == (2, 7)


VARIANTS = {
    "norm": ("instance", "batch", "layer", "group", "none"),
    "pooling": ("max", "none"),
    "activation": ("leaky_relu", "sigmoid", "swish"),
}


@pytest.mark.parametrize(
    "variant", [{key: name} for key, names in VARIANTS.items() for name in names], ids=str
)
def test_gradient_reaches_every_parameter_of_every_convnet(variant):
    """Fails where a variant leaves a layer out of the forward pass,
    or puts a layer of a wrong shape in.
    """
    torch.manual_seed(0)
    network = ConvNet(3, 10, 16, width=8, **variant)
    F.cross_entropy(network(images(8, 3, 16)), torch.arange(8)).backward()
    # a shift before a norm over each channel's pixels changes nothing:
    # rounding is all its gradient is
    cancelled = variant.get("norm", "instance") in {"instance", "batch"}
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not (cancelled and isinstance(module, nn.Conv2d) and name == "bias"):
                assert parameter.grad.abs().max() > 1e-6, (module, name)


def test_convnet_variants_are_the_layers_they_name():
    """Fails where a name stands for another layer:
    groups, maps of layer norm, slope, or kind of pooling.
    """
    # Any depth, for nothing is halved.
    unpooled = ConvNet(1, 2, 8, depth=5, width=8, pooling="none")
    assert outputs(unpooled, (nn.Conv2d,), 8, 1) == [(8, 8, 8)] * 5
    group = ConvNet(1, 2, 8, depth=1, width=8, norm="group").features[1]
    assert (type(group), group.num_groups) == (nn.GroupNorm, 4)
    layer = ConvNet(1, 2, 8, depth=2, width=8, norm="layer").features
    assert [m.normalized_shape for m in layer if isinstance(m, nn.LayerNorm)] == [
        (8, 8, 8),
        (8, 4, 4),
    ]
    assert isinstance(ConvNet(1, 2, 8, depth=1, pooling="max").features[3], nn.MaxPool2d)
    x = torch.linspace(-3, 3, 7)
    leaky, swish = (
        ConvNet(1, 2, 8, depth=1, activation=name).features[2] for name in ("leaky_relu", "swish")
    )
    assert torch.allclose(leaky(x), torch.where(x < 0, 0.01 * x, x))
    assert torch.allclose(swish(x), x / (1 + (-x).exp()))


# --- ResNetAP ---------------------------------------------------------------------------------


def test_resnet_ap_10_has_the_number_of_parameters_counted_by_hand():
    """Fails for a bias too many, a shortcut too few, another stem or other widths."""
    # weights, and scale and shift of the norm
    conv = lambda i, o, k: i * o * k * k + 2 * o  # noqa: E731
    stages = conv(64, 64, 3) * 2  # the first needs no shortcut
    for i, o in ((64, 128), (128, 256), (256, 512)):
        stages += conv(i, o, 3) + conv(o, o, 3) + conv(i, o, 1)
    for side, kernel in ((64, 3), (128, 3), (129, 7), (224, 7)):
        assert size_of(ResNetAP(3, 10, side)) == conv(3, 64, kernel) + stages + 512 * 10 + 10


@pytest.mark.parametrize(
    ("depth", "expected"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160)]
)
def test_resnet_ap_has_as_many_parameters_as_the_resnet_of_its_depth(meta, depth, expected):
    """Poolings have none, so the counts are torchvision's.

    Fails for a wrong number, width or kind of blocks.
    """
    network = ResNetAP(3, 1000, 224, depth, norm="batch")
    assert size_of(network) == expected
    assert network(torch.zeros(2, 3, 224, 224)).shape == (2, 1000)


@pytest.mark.parametrize(
    ("side", "stem"),
    [(16, 16), (32, 32), (64, 64), (65, 32), (128, 64), (129, 32), (224, 56), (256, 64)],
)
def test_maps_of_resnet_ap(meta, side, stem):
    """Fails where the stem changes at another size,
    or a stage halves once too often or too rarely.
    """
    network = ResNetAP(3, 10, side)
    blocks = tuple(type(block) for block in network.blocks)
    shapes = outputs(network, (*blocks, nn.Linear), side)
    assert shapes == [*((64 << i, stem >> i, stem >> i) for i in range(4)), (10,)]
    assert network.stem(torch.zeros(1, 3, side, side)).shape[-1] == stem


def test_resnet_ap_10_is_its_formula():
    """Fails where pooling comes before the first convolution or after the second,
    or misses the shortcut.
    """
    torch.manual_seed(0)
    network = ResNetAP(3, 5, 16)
    with torch.no_grad():
        weights = iter([p.normal_(0, 0.1) if p.ndim == 1 else p for p in network.parameters()])
        take = lambda num: [next(weights) for _ in range(num)]  # noqa: E731
        conv = lambda x, weight: F.conv2d(x, weight, padding=weight.shape[-1] // 2)  # noqa: E731
        norm = lambda x, scale, shift: F.instance_norm(x, weight=scale, bias=shift)  # noqa: E731
        weight, *affine = take(3)
        x = images(2, 3, 16)
        out = norm(conv(x, weight), *affine).relu()
        for stage in range(4):
            w1, s1, b1, w2, s2, b2 = take(6)
            inner = norm(conv(out, w1), s1, b1).relu()
            if stage:
                w3, s3, b3 = take(3)
                inner = F.avg_pool2d(inner, 2)
                out = norm(F.avg_pool2d(conv(out, w3), 2), s3, b3)
            out = (norm(conv(inner, w2), s2, b2) + out).relu()
        weight, bias = take(2)
        assert next(weights, None) is None
        assert torch.allclose(network(x), out.mean((2, 3)) @ weight.T + bias, atol=1e-5)


@pytest.mark.parametrize(
    ("student", "norm"),
    [(ResNetAP, "instance"), (ResNetAP, "batch"), (ResNetAP, "none"), (TimmStudent, "instance")],
)
def test_gradient_reaches_every_parameter_of_resnets(student, norm):
    """Fails where a norm, shortcut, bias or stem takes no part in the forward pass,
    or new norms start at zero.
    """
    torch.manual_seed(0)
    network = student(1, 4, 16, norm=norm)
    F.cross_entropy(network(images(4, 1, 16)), torch.arange(4)).backward()
    assert all(p.grad.abs().max() > 0 for p in network.parameters())
    assert any(m.bias is not None for m in network.modules() if isinstance(m, nn.Conv2d)) == (
        norm == "none"
    )


# --- timm -------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [None, "batch", "instance"])
def test_resnet18_for_cifar_has_the_published_number_of_parameters(meta, norm):
    """Fails where the small stem is not 3×3 of 64 channels, or instance norm has no weights."""
    assert size_of(TimmStudent(3, 10, 32, norm=norm)) == 11_173_962


@pytest.mark.parametrize(("side", "first"), [(32, 32), (64, 64), (65, 33), (224, 112)])
def test_small_stem_is_for_images_up_to_64_pixels(meta, side, first):
    """Fails where the stem is replaced at other sizes, or without being asked to be."""
    assert outputs(TimmStudent(3, 10, side).network.conv1, (nn.Conv2d,), side)[0][-1] == first
    assert TimmStudent(3, 10, side, small_stem=False).network.conv1.stride == (2, 2)


@pytest.mark.parametrize("model", ["convnext_atto", "resnet10t"])
def test_models_without_the_stem_of_resnets_stay_as_they_are(meta, model):
    """Fails where the small stem is refused for other models, or cuts into one of them."""
    assert size_of(TimmStudent(3, 10, 32, model)) == size_of(
        TimmStudent(3, 10, 32, model, small_stem=False)
    )


@pytest.mark.parametrize("model", ["resnet18", "mobilenetv2_035"])
def test_instance_norm_takes_the_place_of_every_batch_norm(meta, model):
    """Fails where a batch norm is left, or the activation that timm fuses with it is lost."""
    before, after = (TimmStudent(3, 10, 64, model, norm=norm) for norm in ("batch", "instance"))

    def count(network, kind):
        return sum(isinstance(m, kind) for m in network.modules())

    assert count(before, nn.BatchNorm2d) > 0
    assert count(after, nn.BatchNorm2d) == 0
    assert count(after, nn.GroupNorm) == count(before, nn.BatchNorm2d)
    assert all(
        m.num_groups == m.num_channels for m in after.modules() if isinstance(m, nn.GroupNorm)
    )
    activations = (nn.ReLU, nn.ReLU6, nn.SiLU)
    assert len(outputs(after, activations, 64)) == len(outputs(before, activations, 64)) > 10


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_models_without_batch_norm_keep_their_own(norm):
    """Fails where a protocol's norm is refused by, or changes, a transformer."""
    torch.manual_seed(0)
    plain = TimmStudent(3, 10, 32, "vit_tiny_patch16_224")
    torch.manual_seed(0)
    other = TimmStudent(3, 10, 32, "vit_tiny_patch16_224", norm=norm)
    assert all(
        torch.equal(a, b) for a, b in zip(plain.parameters(), other.parameters(), strict=True)
    )


@pytest.mark.parametrize(
    ("network", "side"),
    [
        (lambda: ConvNet(3, 10, 16, width=8), 16),
        (lambda: ResNetAP(3, 10, 16), 16),
        (lambda: TimmStudent(3, 10, 32, norm="instance"), 32),
        (lambda: TimmStudent(3, 10, 64, "mobilenetv2_035", norm="instance"), 64),
    ],
)
def test_instance_norm_sees_one_image_at_a_time(network, side):
    """Fails where a norm uses the other images of a batch, or running means in testing."""
    torch.manual_seed(0)
    network = network()
    x = images(3, 3, side)
    together = network(x)
    assert torch.allclose(network(x[:1]), together[:1], atol=1e-4)
    assert torch.allclose(network.eval()(x), together, atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
@pytest.mark.parametrize("side", [32, 64, 224])
def test_transformers_are_told_the_image_size(meta, model, side):
    """Fails where timm's own 224 pixels are taken whatever the images are."""
    network = TimmStudent(3, 10, side, model)
    assert network.network.patch_embed.img_size == (side, side)
    assert network(torch.zeros(2, 3, side, side)).shape == (2, 10)


def test_looking_for_the_size_leaves_a_student_fresh():
    """Fails where the trial image moves running means, draws random numbers,
    or leaves the student in testing mode.
    """
    torch.manual_seed(0)
    network = TimmStudent(3, 10, 32)
    state = torch.random.get_rng_state()
    assert all(m.training for m in network.modules())
    assert not any(m.running_mean.any() for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    torch.manual_seed(0)
    plain = timm.create_model("resnet18", num_classes=10)
    plain.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    assert torch.equal(torch.random.get_rng_state(), state)


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "cause", "remedy"),
    [
        (lambda: ConvNet(3, 10, 32, norm="instnce"), "student.norm", "did you mean 'instance'"),
        (lambda: ConvNet(3, 10, 32, pooling="sum"), "student.pooling", "average, max, none"),
        (
            lambda: ConvNet(3, 10, 32, activation="leakyrelu"),
            "student.activation",
            "did you mean 'leaky_relu'",
        ),
        (lambda: ConvNet(3, 10, 32, width=6, norm="group"), "student.width", "multiple of 4"),
        (lambda: ConvNet(3, 10, 32, depth=6), "student.depth", "at most 5"),
        (lambda: ConvNet(1, 10, 28, depth=6), "student.depth", "at most 5"),
        (lambda: ResNetAP(3, 10, 32, depth=11), "student.depth", "10"),
        (lambda: ResNetAP(3, 10, 32, norm="layer"), "student.norm", "batch, instance, none"),
        (lambda: ResNetAP(3, 10, 8), "protocol.image_size", "at least 16"),
        (lambda: TimmStudent(3, 10, 32, "resnet_18"), "student.model", "did you mean 'resnet18'"),
        (lambda: TimmStudent(3, 10, 32, norm="instanc"), "student.norm", "did you mean 'instance'"),
        (
            lambda: TimmStudent(3, 10, 40, "vit_tiny_patch16_224"),
            "student.model",
            "protocol.image_size",
        ),
        (
            lambda: TimmStudent(3, 10, 30, "swin_tiny_patch4_window7_224"),
            "student.model",
            "protocol.image_size",
        ),
        (lambda: TimmStudent(3, 10, 28, "gcvit_xxtiny"), "student.model", "protocol.image_size"),
        (lambda: TimmStudent(3, 10, 28, "levit_128s"), "student.model", "protocol.image_size"),
        (
            lambda: TimmStudent(3, 10, 32, "mobilenetv2_035", norm="instance"),
            "student.norm",
            "protocol.image_size",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_two_lines(build, cause, remedy):
    """Fails where torch or timm raise something else, or nobody does:
    a student that sees a corner, or nothing.
    """
    with pytest.raises(ConfigError) as error:
        build()
    assert error.value.cause.startswith(cause)
    assert remedy in error.value.remedy
