import pytest
import torch
from torch import nn

from explainer.attribution import grad_cam, rise
from explainer.classifiers import small_cnn
from explainer.cost import counted_passes


def test_images_are_counted_by_hand() -> None:
    network = nn.Linear(2, 1)
    x = torch.ones(3, 2)
    with counted_passes(network) as passes:
        network(x).sum().backward()  # 3 forth, 3 back
        network(x[:1])  # 1 forth, nobody asks back
        with torch.no_grad():
            network(x)  # 3 forth
    assert (passes.forward, passes.backward) == (7, 3)
    network(x)
    assert passes.forward == 7


def test_methods_cost_what_they_say() -> None:
    torch.manual_seed(0)
    classifier = small_cnn(("ant", "bee")).eval()
    images, targets = torch.rand(2, 3, 16, 16), torch.ones(2, 2)
    with counted_passes(classifier) as passes:
        rise(classifier, images, targets, n_masks=10)
    assert (passes.forward, passes.backward) == (2 * 10, 0)
    with counted_passes(classifier) as passes:
        grad_cam(classifier, images, targets)
    # One pass a class, there and back.
    assert passes.forward == passes.backward == 2 * 2


def test_no_hook_is_left_behind() -> None:
    network = nn.Identity()
    stopped = pytest.raises(RuntimeError, match="on the way")
    with stopped, counted_passes(network):
        raise RuntimeError("on the way")
    assert not network._forward_hooks
