"""Student networks."""

from ddoq.students.convnet import ConvNet
from ddoq.students.resnet_ap import ResNetAP
from ddoq.students.timm_student import TimmStudent

__all__ = ["ConvNet", "ResNetAP", "TimmStudent"]
