"""Groups of parameters: what each system's official code exempts from decay, adaptation and schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from qscore_fast.errors import SettingsError


@dataclass(frozen=True)
class GroupRule:
    """How the parameters of a system are told apart.

    Attributes:
        vectors_decay: whether biases and the parameters of norms, that is all of at most one dimension, have
            weight decay.
        vectors_adapt: whether LARS adapts their rates.
        vector_share: their rate over that of the weights.
        fixed: the submodule whose rate keeps its first value, by its attribute's name.
    """

    vectors_decay: bool = True
    vectors_adapt: bool = True
    vector_share: float = 1.0
    fixed: str | None = None


_EXEMPT = GroupRule(vectors_decay=False, vectors_adapt=False)
_ALL_ALIKE = GroupRule()

GROUP_RULES: Mapping[str, GroupRule] = {
    "simclr": _EXEMPT,
    "swav": _ALL_ALIKE,
    "moco": _ALL_ALIKE,
    "moco_v2": _ALL_ALIKE,
    "moco_v3": _EXEMPT,
    "moco_v3_vit": _ALL_ALIKE,
    "byol": _EXEMPT,
    "dino": _EXEMPT,
    "simsiam": GroupRule(fixed="predictor"),
    "vicreg": _EXEMPT,
    "barlow_twins": GroupRule(False, False, vector_share=0.0048 / 0.2),
    "solo_learn": _EXEMPT,
}
"""By system; "moco_v3_vit" is what it does under AdamW, and "solo_learn" the paper's further training."""


def parameter_groups(module: nn.Module, rule: GroupRule | str) -> list[dict[str, Any]]:
    """The trained parameters of ``module`` as groups for an optimiser; no group is empty.

    Args:
        module: whose parameters with ``requires_grad`` are taken, each once.
        rule: a ``GroupRule``, or a key of ``GROUP_RULES``.

    Returns:
        Groups with ``params`` and, for the optimiser or whoever sets its rates, ``name`` ("weights",
        "vectors", or these with "fixed " before), ``share`` (the group's rate over the peak), ``decays``,
        ``adapts`` and ``fixed`` (whether the rate keeps its first value). ``weight_decay`` is set to 0 where
        ``decays`` is False and left to the optimiser elsewhere.

    Raises:
        SettingsError: no such rule; a submodule that ``module`` lacks; nothing to train.
    """
    if isinstance(rule, str):
        if rule not in GROUP_RULES:
            raise SettingsError(
                f"no rule for parameter groups {rule!r}; choose one of {', '.join(GROUP_RULES)}"
            )
        rule = GROUP_RULES[rule]
    fixed = set()
    if rule.fixed is not None:
        submodule = getattr(module, rule.fixed, None)
        if not isinstance(submodule, nn.Module):
            raise SettingsError(
                f"{type(module).__name__} has no submodule {rule.fixed!r}, whose rate the rule keeps fixed"
            )
        fixed = set(submodule.parameters())
    groups: dict[str, dict[str, Any]] = {}
    for parameter in module.parameters():
        if not parameter.requires_grad:
            continue
        vector = parameter.ndim <= 1
        name = ("fixed " if parameter in fixed else "") + ("vectors" if vector else "weights")
        if name not in groups:
            groups[name] = {
                "params": [],
                "name": name,
                "share": rule.vector_share if vector else 1.0,
                "decays": rule.vectors_decay or not vector,
                "adapts": rule.vectors_adapt or not vector,
                "fixed": parameter in fixed,
            }
            if not groups[name]["decays"]:
                groups[name]["weight_decay"] = 0.0
        groups[name]["params"].append(parameter)
    if not groups:
        raise SettingsError(f"{type(module).__name__} has no parameter that is trained")
    return list(groups.values())


def set_rates(
    groups: list[dict[str, Any]], lr: float, weight_decay: float, fixed_lr: float
) -> None:
    """Give the groups of an optimiser their rates and weight decay for a step.

    Args:
        groups: ``optimizer.param_groups`` made from ``parameter_groups``.
        lr: the scheduled rate of a group with share 1. weight_decay: of the groups that decay.
        fixed_lr: the rate in place of ``lr`` where a group's is fixed.
    """
    for group in groups:
        group["lr"] = group["share"] * (fixed_lr if group["fixed"] else lr)
        group["weight_decay"] = weight_decay if group["decays"] else 0.0
