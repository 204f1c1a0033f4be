"""Teachers: classifiers that label distilled images and lend their features."""

from ddoq.labelers.cifar_resnet import CIFARResNet
from ddoq.labelers.features import TeacherFeatures, TeacherLogits
from ddoq.labelers.pretrained import PretrainedTeacher
from ddoq.labelers.teacher import Ensemble, Teacher
from ddoq.labelers.trial import examine

__all__ = [
    "CIFARResNet",
    "Ensemble",
    "PretrainedTeacher",
    "Teacher",
    "TeacherFeatures",
    "TeacherLogits",
    "examine",
]
