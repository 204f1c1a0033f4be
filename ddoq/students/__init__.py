"""Student networks."""

from ddoq.students.convnet import ConvNet
from ddoq.students.timm_student import TimmStudent

__all__ = ["ConvNet", "TimmStudent"]
