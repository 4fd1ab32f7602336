"""A layout: which names a published file has, and what each of them is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from qscore_fast.images import Preprocess
from qscore_fast.images.recipes import IMAGENET

RESNET = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
OPENMMLAB_VIT = ("cls_token", "pos_embed", "patch_embed", "layers", "ln1")
VIT = ("cls_token", "pos_embed", "patch_embed", "blocks", "norm")
XCIT = (*VIT, "pos_embeder", "cls_attn_blocks")
BACKBONE = tuple(dict.fromkeys((*RESNET, *XCIT)))

Padding = Literal["torch", "same", "same_pool"]


@dataclass(frozen=True)
class Rule:
    """Names that begin with ``prefix`` (a regular expression) are ``target``.

    Attributes:
        prefix: matched at the start of the name and removed.
        target: "online.backbone", "ema.projector", "queue" and so on (see TrainingState); "" for
            what is left out, with the reason in ``why``.
        first: what the first word of the rest may be; any, if empty.
        why: of what is left out.
    """

    prefix: str
    target: str
    first: tuple[str, ...] = ()
    why: str = ""

    def rest(self, name: str) -> str | None:
        """The name within the target, or None if the rule does not apply."""
        found = re.match(self.prefix, name)
        if found is None:
            return None
        rest = name[found.end() :]
        return rest if not self.first or rest.split(".")[0] in self.first else None


@dataclass(frozen=True)
class Layout:
    """How one source writes the checkpoints of one system.

    A file has the layout if it came in one of ``wrappers``, each of its names is covered by a rule, every
    pattern of ``needs`` is found among its names and none of ``lacks`` is.

    Attributes:
        key: short name, unique.
        system: the system; None where the file cannot tell, then ``fits`` names those it may be.
        source: the repository or library that writes it.
        wrappers: how the container was unwrapped, see ``unwrap``.
        rules: tried in order.
        needs, lacks: regular expressions, searched from the start of the names.
        preprocess: the transform of the source's own evaluation.
        padding: of the convolutions; see the network "resnet".
        tower: which one the source evaluates.
        num_heads: attention heads of a ViT as a function of its width.
        activation: of the heads.
        when: a further condition on names and tensors in the file's order.
        file_names: a regular expression for the names under which it was published; it decides between
            layouts that the content cannot tell apart.
        fits: see ``system``.
        ask: what the file cannot tell changes the features, so the user has to say the system.
        stem_padding: of a 3x3 first convolution.
        notes: what a user should know.
        refuse: the file is recognised, and this is why it cannot be used.
    """

    key: str
    system: str | None
    source: str
    wrappers: tuple[str, ...]
    rules: tuple[Rule, ...]
    needs: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    preprocess: Preprocess = IMAGENET
    padding: Padding = "torch"
    tower: Literal["online", "ema"] = "online"
    num_heads: Callable[[int], int] | None = None
    activation: Literal["relu", "gelu"] = "relu"
    when: Callable[[Mapping[str, Tensor]], bool] | None = None
    file_names: str = ""
    fits: tuple[str, ...] = ()
    ask: bool = False
    stem_padding: int = 1
    notes: tuple[str, ...] = ()
    refuse: str = ""


@dataclass(frozen=True, eq=False)
class Fit:
    """A file read by a layout.

    Attributes:
        parts: target -> name within it -> tensor.
        ignored: name -> why it is left out.
        unknown: names that no rule covers.
        missing: patterns that nothing matched.
        unwanted: names that the layout must not have.
        total: how many names the file has.
    """

    layout: Layout
    parts: dict[str, dict[str, Tensor]] = field(repr=False)
    ignored: dict[str, str] = field(repr=False)
    unknown: tuple[str, ...]
    missing: tuple[str, ...]
    unwanted: tuple[str, ...]
    total: int

    @property
    def whole(self) -> bool:
        """Whether the file has this layout."""
        return not (self.unknown or self.missing or self.unwanted)

    @property
    def distance(self) -> float:
        """0 for a fit, growing with what does not."""
        return len(self.unknown) / max(self.total, 1) + len(self.missing) + len(self.unwanted) / 8


def fit(layout: Layout, tensors: Mapping[str, Tensor]) -> Fit:
    """Read ``tensors`` by ``layout``."""
    parts: dict[str, dict[str, Tensor]] = {}
    ignored: dict[str, str] = {}
    unknown = []
    for name, tensor in tensors.items():
        for rule in layout.rules:
            rest = rule.rest(name)
            if rest is None:
                continue
            if rule.target:
                parts.setdefault(rule.target, {})[rest] = tensor
            else:
                ignored[name] = rule.why
            break
        else:
            unknown.append(name)
    missing = [need for need in layout.needs if not any(re.match(need, name) for name in tensors)]
    unwanted = [
        name for name in tensors if any(re.match(pattern, name) for pattern in layout.lacks)
    ]
    return Fit(
        layout, parts, ignored, tuple(unknown), tuple(missing), tuple(unwanted), len(tensors)
    )
