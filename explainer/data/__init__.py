"""Datasets: what they yield, the built-in ones, and how to load one."""

from explainer.data.base import (
    Batch,
    DataError,
    LabelledImages,
    Sample,
    collate,
    describe_data,
    labels_in,
)
from explainer.data.coco import COCO, COCO_CLASSES, COCO_PAPER_CLASSES
from explainer.data.photos import (
    LabelledPhotos,
    Photos,
    load_photo,
    size_within,
)
from explainer.data.registry import DATASETS, First, all_labels, load_data
from explainer.data.scenes import Scenes, Shortcut
from explainer.data.transforms import flip
from explainer.data.voc import ANIMALS, VOC, VOC_CLASSES
from explainer.metrics import VOID

__all__ = [
    "ANIMALS",
    "COCO",
    "COCO_CLASSES",
    "COCO_PAPER_CLASSES",
    "DATASETS",
    "VOC",
    "VOC_CLASSES",
    "VOID",
    "Batch",
    "DataError",
    "First",
    "LabelledImages",
    "LabelledPhotos",
    "Photos",
    "Sample",
    "Scenes",
    "Shortcut",
    "all_labels",
    "collate",
    "describe_data",
    "flip",
    "labels_in",
    "load_data",
    "load_photo",
    "size_within",
]
