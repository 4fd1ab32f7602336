"""Frozen batch norm, folded into the convolution before it."""

from __future__ import annotations

import copy
from collections import Counter

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from qscore_fast.encoders.networks.same_padding import SameConv2d


def fold_batch_norm(module: nn.Module) -> tuple[int, str | None]:
    """Fold, in place, every BatchNorm2d that a Conv2d alone feeds, in evaluation mode.

    In exact arithmetic nothing changes: batch norm with fixed statistics is an affine map of each
    channel. Pairs are found in the graph that torch.fx records, never by name. Left alone are a
    convolution whose result is read elsewhere too, layers that are called more than once, have hooks
    or parametrisations, or whose tensors are read directly, and unknown subclasses.

    Args:
        module: changed; batch norms become nn.Identity. It must be in evaluation mode.

    Returns:
        How many were folded, and the reason if that is none.
    """
    if not any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()):
        return 0, "there is no batch norm to fold"
    try:
        graph = _Tracer().trace(module)
    except Exception as error:
        reason = str(error).strip().split("\n")[0].split(". ")[0]
        return 0, f"batch norm was not folded: torch.fx cannot trace the module ({reason})"
    pairs = _pairs(graph, module)
    for conv_path, norm_path in pairs:
        conv, norm = module.get_submodule(conv_path), module.get_submodule(norm_path)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        dtype = conv.weight.dtype
        # In float64: the product is rounded once.
        folded = fuse_conv_bn_eval(copy.deepcopy(conv).double(), copy.deepcopy(norm).double())
        module.set_submodule(conv_path, folded.to(dtype))
        module.set_submodule(norm_path, nn.Identity())
    if pairs:
        return len(pairs), None
    return 0, "batch norm was not folded: none directly follows a convolution of its own"


class _Tracer(fx.Tracer):
    """Looks only into modules that hold batch norm: what others do inside need not be traceable."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, nn.BatchNorm2d | nn.Conv2d) or _has_hooks(m):
            return True
        return not any(isinstance(layer, nn.BatchNorm2d) for layer in m.modules())


def _pairs(graph: fx.Graph, module: nn.Module) -> list[tuple[str, str]]:
    """Paths of the convolutions and batch norms that may become one."""
    paths = Counter(id(layer) for _, layer in module.named_modules(remove_duplicate=False))
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    read = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}

    def own(node: fx.Node) -> bool:
        """Called once, under its only name, with its tensors out of anyone else's sight."""
        path = str(node.target)
        layer = module.get_submodule(path)
        return (
            calls[path] == 1
            and paths[id(layer)] == 1
            and path not in read
            and not _has_hooks(layer)
        )

    found = []
    for node in graph.nodes:
        source = node.args[0] if node.op == "call_module" and len(node.args) == 1 else None
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) > 1:
            continue
        conv = module.get_submodule(str(source.target))
        norm = module.get_submodule(str(node.target))
        if type(conv) not in (nn.Conv2d, SameConv2d) or type(norm) is not nn.BatchNorm2d:
            continue
        frozen = not norm.training and norm.running_mean is not None
        if frozen and own(source) and own(node):
            found.append((str(source.target), str(node.target)))
    shared = _shared_tensors(module)
    return [
        pair
        for pair in found
        if not any(
            id(tensor) in shared
            for path in pair
            for tensor in module.get_submodule(path).parameters()
        )
    ]


def _shared_tensors(module: nn.Module) -> set[int]:
    """Parameters that more than one layer holds."""
    counts = Counter(
        id(tensor)
        for layer in module.modules()
        for tensor in layer._parameters.values()
        if tensor is not None
    )
    return {tensor for tensor, count in counts.items() if count > 1}


def _has_hooks(layer: nn.Module) -> bool:
    return bool(
        layer._forward_hooks or layer._forward_pre_hooks or getattr(layer, "parametrizations", None)
    )
