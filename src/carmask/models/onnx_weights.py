"""Weights of an exported network for further training.

Export multiplies BatchNorm into the convolution before it. Its parts cannot be known any more, but a BatchNorm that
changes nothing gives the same results, and `fit_batch_norm` makes of it one that can be trained.
"""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

# Of the weights of one output channel as PyTorch initializes a convolution: uniform, with a variance of 1/3 per input
# (`nn.init.kaiming_uniform_` with a = sqrt(5)).
INITIAL_NORM = 3**-0.5


def read_onnx_weights(path: Path, network: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of a network from its `.onnx` file: the weights, and BatchNorm that adds a bias alone.

    Raises:
        KeyError: the file holds another network, or an int8 one.
    """
    graph = onnx.load(path).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    # Weights stored as float16 pass through a cast.
    casts = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    values |= {cast: values[stored] for cast, stored in casts.items() if stored in values}
    convolutions = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose")]
    # A bias of zeros is left out.
    bias_of = {node.input[1]: values[node.input[2]] for node in convolutions if len(node.input) > 2}
    state = {}
    for (name, module), (norm_name, norm) in pairwise(network.named_modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            key = f"{name}.weight"
            state[key] = torch.tensor(values[key]).float()
            bias = torch.tensor(bias_of.get(key, np.zeros(module.out_channels, np.float32)))
            if module.bias is None:
                assert isinstance(norm, nn.BatchNorm2d)
                assert norm.running_var is not None
                state |= {f"{norm_name}.{part}": tensor for part, tensor in norm.state_dict().items()}
                state |= {f"{norm_name}.bias": bias, f"{norm_name}.running_var": norm.running_var - norm.eps}
            else:
                state[f"{name}.bias"] = bias
    return state


@torch.no_grad()
def fit_batch_norm(network: nn.Module, inputs_BCHW: Iterable[Tensor]) -> None:
    """Give each BatchNorm the statistics of what it gets, and the scale and shift that keep its results.

    Then the network computes about the same in training mode as in evaluation mode, in which it must be.
    """
    _raise_weights(network)
    sums: dict[nn.BatchNorm2d, Tensor] = {}

    def add(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        x_CN = inputs[0].double().transpose(0, 1).flatten(1)
        moments = torch.stack([torch.full_like(x_CN[:, 0], x_CN.shape[1]), x_CN.sum(1), x_CN.square().sum(1)])
        sums[norm] = sums.get(norm, 0) + moments

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(add) for norm in norms]
    for x_BCHW in inputs_BCHW:
        network(x_BCHW)
    for hook in hooks:
        hook.remove()
    for norm, (count_C, sum_C, squares_C) in sums.items():
        mean_C, variance_C = sum_C / count_C, squares_C / count_C - (sum_C / count_C) ** 2
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale_C = norm.weight / (norm.running_var + norm.eps).sqrt()
        norm.bias.copy_(norm.bias + (mean_C - norm.running_mean) * scale_C)
        norm.weight.copy_(scale_C * (variance_C + norm.eps).sqrt())
        norm.running_mean.copy_(mean_C)
        norm.running_var.copy_(variance_C)


def _raise_weights(network: nn.Module) -> None:
    """Raise the weights before each BatchNorm to the norm of initial ones where they are smaller, and keep its results.

    Adam moves every weight by about the learning rate, so it soon overwrites the small weights that export leaves.
    """
    for convolution, norm in pairwise(network.modules()):
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm_C = convolution.weight.flatten(1).norm(dim=1)
            # A channel of zeros stays one.
            factor_C = torch.where(norm_C > 0, INITIAL_NORM / norm_C, 1).clamp(min=1)
            convolution.weight.mul_(factor_C[:, None, None, None])
            norm.running_mean.mul_(factor_C)
            norm.running_var.copy_((norm.running_var + norm.eps) * factor_C**2 - norm.eps)
