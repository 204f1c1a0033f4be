"""ImageNet-1K, its subsets of the literature, and CIFAR:
classes in their published order, and numbers of images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ddoq.data.download import Archive
from ddoq.data.label_space import imagenet_wnids

#: Numbers of training and test images; ``None`` where nobody states it.
Counts = tuple[int | None, int | None]


@dataclass(frozen=True)
class Subset:
    """A set of classes of ImageNet-1K.

    Attributes:
        title: as papers write it.
        counts: numbers of images, by source: ``original`` (ILSVRC2012) or ``fastai``
            (another split of fewer images).
        wnid_list: WordNet ids in label order; empty for all 1,000 classes in ImageNet's.
        archive: the fastai split.
    """

    title: str
    counts: Mapping[str, Counts]
    wnid_list: str = field(default="", repr=False)
    archive: Archive | None = None

    @property
    def wnids(self) -> list[str]:
        """WordNet ids in label order."""
        return self.wnid_list.split() or imagenet_wnids()


_FASTAI = "https://s3.amazonaws.com/fast-ai-imageclas"

# The lists are those of MinimaxDiffusion (class_nette, class_woof and class100), which later
# methods took over; the label is the line. ImageIDC is the first ten of ImageNet-100.
_NETTE = (
    "n01440764 n02102040 n02979186 n03000684 n03028079 "
    "n03394916 n03417042 n03425413 n03445777 n03888257"
)
_WOOF = (
    "n02096294 n02093754 n02111889 n02088364 n02086240 "
    "n02089973 n02087394 n02115641 n02099601 n02105641"
)
_IDC = (
    "n02869837 n01749939 n02488291 n02107142 n13037406 "
    "n02091831 n04517823 n04589890 n03062245 n01773797"
)
_HUNDRED = f"""{_IDC}
    n01735189 n07831146 n07753275 n03085013 n04485082 n02105505 n01983481 n02788148 n03530642
    n04435653 n02086910 n02859443 n13040303 n03594734 n02085620 n02099849 n01558993 n04493381
    n02109047 n04111531 n02877765 n04429376 n02009229 n01978455 n02106550 n01820546 n01692333
    n07714571 n02974003 n02114855 n03785016 n03764736 n03775546 n02087046 n07836838 n04099969
    n04592741 n03891251 n02701002 n03379051 n02259212 n07715103 n03947888 n04026417 n02326432
    n03637318 n01980166 n02113799 n02086240 n03903868 n02483362 n04127249 n02089973 n03017168
    n02093428 n02804414 n02396427 n04418357 n02172182 n01729322 n02113978 n03787032 n02089867
    n02119022 n03777754 n04238763 n02231487 n03032252 n02138441 n02104029 n03837869 n03494278
    n04136333 n03794056 n03492542 n02018207 n04067472 n03930630 n03584829 n02123045 n04229816
    n02100583 n03642806 n04336792 n03259280 n02116738 n02108089 n03424325 n01855672 n02090622
"""

_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
    crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
    keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
    mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain
    plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
    television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CIFAR10, CIFAR100 = _CIFAR10.split(), _CIFAR100.split()

CATALOGUE = {
    "imagenet1k": Subset("ImageNet-1K", {"original": (1_281_167, 50_000)}),
    "imagenette": Subset(
        "ImageNette",
        {"original": (12_894, 500), "fastai": (9_469, 3_925)},
        _NETTE,
        Archive(
            f"{_FASTAI}/imagenette2.tgz",
            "imagenette2",
            "1.5 GB",
            "fe2fc210e6bb7c5664d602c3cd71e612",
        ),
    ),
    "imagewoof": Subset(
        "ImageWoof",
        {"original": (12_454, 500), "fastai": (9_025, 3_929)},
        _WOOF,
        Archive(f"{_FASTAI}/imagewoof2.tgz", "imagewoof2", "1.3 GB"),
    ),
    "imagenet100": Subset("ImageNet-100", {"original": (None, 5_000)}, _HUNDRED),
    "imageidc": Subset("ImageIDC", {"original": (None, 500)}, _IDC),
}
