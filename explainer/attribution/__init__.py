"""Attribution: which pixels explain the classifier's answer?

One file per method. All methods are called in the same way::

    masks = method(classifier, images, targets, generator=g, **options)

``classifier`` is any module that maps images ``(B, 3, H, W)`` in [0, 1] to
logits ``(B, C)``; ``targets`` ``(B, C)`` is 1 for the classes to explain and
0 elsewhere; the masks are ``(B, C, H, W)`` in [0, 1], zero for the other
classes. If the classifier does not name its classes, targets may have fewer
columns than there are logits. Then targets and masks cover the first classes
only. (:func:`explainer.explain` puts the target classes first, so that no
memory is spent on the others.)

A method does not change the classifier (parameters, gradients, buffers,
mode, hooks) or the global random state. Random numbers come from
``generator``, or from a fixed seed if there is none. All images of a batch
share these numbers, so an image's mask does not depend on its batch.
``progress`` shows a progress bar in slow methods.

``explainer`` and ``rtis`` need the option ``network``, the trained network;
``ground_truth`` needs ``truth``, masks ``(B, C, H, W)``.
"""

from collections.abc import Mapping

from explainer.attribution.common import Method as Method
from explainer.attribution.common import guarded as guarded
from explainer.attribution.controls import (
    ellipse,
    ground_truth,
    half,
    one,
    zero,
)
from explainer.attribution.explainer import explainer
from explainer.attribution.extremal_perturbation import extremal_perturbation
from explainer.attribution.grad_cam import grad_cam
from explainer.attribution.gradients import (
    input_gradient,
    integrated_gradients,
)
from explainer.attribution.igos import igos
from explainer.attribution.rise import rise
from explainer.attribution.rtis import rtis
from explainer.errors import Registry

_METHODS: dict[str, Method] = {
    "explainer": explainer,
    "grad_cam": grad_cam,
    "rise": rise,
    "extremal_perturbation": extremal_perturbation,
    "igos": igos,
    "rtis": rtis,
    "zero": zero,
    "half": half,
    "one": one,
    "ellipse": ellipse,
    "ground_truth": ground_truth,
    "input_gradient": input_gradient,
    "integrated_gradients": integrated_gradients,
}
METHODS: Registry[Method] = Registry(
    "attribution method",
    {name: guarded(method) for name, method in _METHODS.items()},
)
"""Every method by name: the paper's six, the controls, two gradient methods.

All are wrapped by :func:`~explainer.attribution.common.guarded`.
"""

PAPER_TITLES: Mapping[str, str] = {
    "explainer": "Explainer",
    "grad_cam": "Grad-CAM",
    "rise": "RISE",
    "extremal_perturbation": "EP",
    "igos": "iGOS++",
    "rtis": "RTIS",
}
"""The paper's names for the methods it compares, in its tables' order."""

PAPER_METHODS = tuple(PAPER_TITLES)
"""The methods that the paper compares, in the order of its tables."""

METHOD_TITLES: Mapping[str, str] = {
    **PAPER_TITLES,
    "extremal_perturbation": "EP (ours)",
    "extremal_perturbation_torchray": "EP (TorchRay)",
    "igos": "iGOS++ (ours)",
    "igos_khorram": "iGOS++ (Khorram)",
    "zero": "0 everywhere",
    "half": "½ everywhere",
    "one": "1 everywhere",
    "ellipse": "ellipse",
    "ground_truth": "truth",
    "input_gradient": "gradient",
    "integrated_gradients": "integrated grad.",
}
"""The names of the methods in figures and tables.

Where our method departs from public code, the title says whose version it
is. The rows named after TorchRay and Khorram follow that public code
(:data:`explainer.evaluation.methods.PUBLIC_VARIANTS`).
"""
