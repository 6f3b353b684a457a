"""A classifier and its Explainer as one ONNX file, for other programs.

Runtimes in many languages read ONNX. The book's page *Try it* runs these
files in a browser.
"""

import json
import warnings
from collections.abc import Container
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from explainer.checkpoints import Pair
from explainer.classifiers import probabilities
from explainer.errors import UserError
from explainer.masks import mean_colour

if TYPE_CHECKING:
    import onnx

OUTPUTS = ("probabilities", "masks")


class _Both(nn.Module):
    """A classifier and its Explainer as one network."""

    def __init__(self, pair: Pair) -> None:
        super().__init__()
        self.classifier, self.explainer = pair.classifier, pair.network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities ``(1, C)`` and masks ``(1, C, H, W)``."""
        logits = self.classifier(image)
        masks = self.explainer(image).sigmoid()
        return probabilities(self.classifier, logits), masks


def to_onnx(pair: Pair) -> bytes:
    """Return a pair as the content of an ONNX file.

    The input ``image`` is ``(1, 3, H, W)`` in [0, 1], at the size of the
    pair's training. The outputs are ``probabilities`` ``(1, C)`` and
    ``masks`` ``(1, C, H, W)`` of all classes, also of those that the
    classifier did not find. The file's metadata hold ``classes``, ``size``
    and ``fill``, the colour of hidden pixels, as JSON.

    Weights are stored as float16 to halve the size; the computation is in
    float32. Raises :class:`~explainer.errors.UserError` if the packages of
    the extra ``export`` are missing.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise UserError(
            f"the package {error.name} is missing, which writes ONNX files: "
            "pip install 'explainer-book[export]'"
        ) from error
    both = _Both(pair).eval()
    image = torch.zeros(
        (1, 3, pair.size, pair.size), device=pair.classifier.mean.device
    )
    with warnings.catch_warnings():
        # Deprecation warnings about the exporter's own calls.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            both,
            (image,),
            input_names=["image"],
            output_names=OUTPUTS,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _halve(model.graph, set(both.state_dict()))
    meta = {
        "classes": pair.classes,
        "size": pair.size,
        "fill": mean_colour(pair.classifier).flatten().tolist(),
    }
    onnx.helper.set_model_props(
        model, {name: json.dumps(value) for name, value in meta.items()}
    )
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _halve(graph: "onnx.GraphProto", weights: Container[str]) -> None:
    """Store kernels and matrices among ``weights`` as float16.

    A cast turns each into float32. Runtimes do this once, when they load the
    file.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        kernel = values.dtype == np.float32 and values.ndim > 1
        if kernel and tensor.name in weights:
            name, stored = tensor.name, f"{tensor.name}_float16"
            halved = values.astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(halved, stored))
            casts.append(
                helper.make_node(
                    "Cast", [stored], [name], to=TensorProto.FLOAT
                )
            )
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
