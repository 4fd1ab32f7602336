"""Which system and source a checkpoint has, what each of its tensors is, and what is left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from qscore_fast.encoders.containers import Container
from qscore_fast.encoders.layouts import lightly, official, openmmlab, plain, solo_learn, vissl
from qscore_fast.encoders.layouts.head_names import mlp_names, prototype_names
from qscore_fast.encoders.layouts.layout import Fit, Layout, fit
from qscore_fast.encoders.layouts.readings import Reading, readings
from qscore_fast.encoders.layouts.systems import SYSTEMS, members
from qscore_fast.encoders.layouts.unwrap import Unwrapped, unwrap
from qscore_fast.encoders.weights import few
from qscore_fast.errors import EncoderError
from qscore_fast.images import Preprocess
from qscore_fast.images.recipes import CIFAR10

# Specific layouts come before those that a bare backbone has.
LAYOUTS: tuple[Layout, ...] = (
    *official.LAYOUTS,
    *vissl.LAYOUTS,
    *openmmlab.LAYOUTS,
    *solo_learn.LAYOUTS,
    *lightly.LAYOUTS,
    *plain.LAYOUTS,
)
# solo-learn's evaluation, by its name of the data set.
_STL10 = Preprocess(
    resize=(96, 96), crop=None, mean=(0.4914, 0.4823, 0.4466), std=(0.247, 0.243, 0.261)
)
_DATASETS = {"cifar10": CIFAR10, "cifar100": CIFAR10, "stl10": _STL10}
_LIGHTLY_ZOO = {
    "0": "input_norm", "1": "conv1", "2": "bn1", "3": "layer1", "4": "layer2", "5": "layer3",
    "6": "layer4", "7": "reduce",
}  # fmt: skip
_OPENMMLAB_VIT = (
    (re.compile(r"^layers\.(\d+)\.ln(\d)\."), r"blocks.\1.norm\2."),
    (re.compile(r"^layers\.(\d+)\.ffn\.layers\.0\.0\."), r"blocks.\1.mlp.fc1."),
    (re.compile(r"^layers\.(\d+)\.ffn\.layers\.1\."), r"blocks.\1.mlp.fc2."),
    (re.compile(r"^layers\."), "blocks."),
    (re.compile(r"^ln1\."), "norm."),
    (re.compile(r"^patch_embed\.projection\."), "patch_embed.proj."),
)


@dataclass(frozen=True)
class Recognised:
    """A checkpoint, understood.

    Attributes:
        layout: with the preprocessing, padding and so on that hold for this file.
        system: None where the file does not tell and it makes no difference.
        fits: the systems that it may be, where ``system`` is None.
        towers: "online" and "ema" -> the backbone's tensors.
        tensors: everything else, under the names of TrainingState.
        ignored: what was left out, and why.
    """

    layout: Layout
    system: str | None
    fits: tuple[str, ...]
    towers: dict[str, dict[str, Tensor]] = field(repr=False)
    tensors: dict[str, Tensor] = field(repr=False)
    ignored: dict[str, str] = field(repr=False)
    notes: tuple[str, ...] = ()


def recognise(container: Container, system: str | None = None) -> Recognised:
    """Find the layout of a checkpoint.

    Args:
        container: see ``read_container``.
        system: what the user says it is, or None.

    Raises:
        EncoderError: no layout fits (the nearest and what does not fit are named), the user's system
            contradicts the file, the file cannot tell what has to be known, or it holds no encoder.
    """
    wanted = members(system) if system is not None else None
    unwrapped = unwrap(container)
    near: list[Fit] = []
    for reading in readings(unwrapped):
        fits = [
            fit(layout, reading.tensors)
            for layout in LAYOUTS
            if not set(layout.wrappers).isdisjoint(reading.wrappers)
        ]
        near += [found for found in fits if not found.whole]
        whole = [found for found in fits if found.whole and _condition(found, reading)]
        # A published file name decides only where more than one layout fits, or it is the condition.
        name = container.path.name
        named = [f for f in whole if re.fullmatch(f.layout.file_names or "$.", name)]
        by_content = [f for f in whole if not f.layout.file_names]
        chosen = next(iter(named), None) or next(iter(by_content), None)
        agreeing = [f for f in whole if set(_systems(f.layout)) & set(wanted or ())]
        if chosen or agreeing:
            break
    if wanted is not None and (agreeing or chosen is None or not chosen.layout.refuse):
        sure = chosen is not None and chosen.layout.system is not None and chosen in by_content
        if sure and chosen is not None and chosen.layout.system not in wanted:
            raise EncoderError(
                f"it is a checkpoint of {chosen.layout.system} ({chosen.layout.source}), not of {system}: "
                "leave system (--system) out"
            )
        if whole and not agreeing:
            raise EncoderError(
                f"it can be a checkpoint of {', '.join(_systems(whole[0].layout))}, not of {system}"
            )
        # A layout of exactly this system says more than one of several.
        chosen = next((f for f in agreeing if f.layout.system), None) or next(iter(agreeing), None)
    if chosen is None:
        raise EncoderError(_nearest(near, unwrapped))
    if chosen.layout.refuse:
        raise EncoderError(chosen.layout.refuse)
    return _understood(chosen, unwrapped, reading.notes, wanted)


def _condition(found: Fit, reading: Reading) -> bool:
    return found.layout.when is None or found.layout.when(reading.tensors)


def _systems(layout: Layout) -> tuple[str, ...]:
    return (layout.system,) if layout.system else layout.fits


def _understood(
    found: Fit, unwrapped: Unwrapped, notes: tuple[str, ...], wanted: tuple[str, ...] | None
) -> Recognised:
    layout, system = found.layout, found.layout.system
    notes = (*notes, *layout.notes)
    hinted = unwrapped.hints.get("system")
    if layout.source != "solo-learn" and hinted not in SYSTEMS:
        hinted = None
    if hinted is not None and hinted not in _systems(layout):
        raise EncoderError(
            f"its tensors are those of {' or '.join(_systems(layout))}, but its settings say {hinted}"
            + ("" if hinted in SYSTEMS else ", which is not among the systems here")
        )
    if system is None:
        candidates = [s for s in layout.fits if wanted is None or s in wanted]
        # MoCo's versions, for example, differ in nothing that matters to a ResNet.
        same = len({(SYSTEMS[name].preprocess, SYSTEMS[name].padding) for name in candidates}) == 1
        if hinted in candidates:
            system = hinted
        elif len(candidates) == 1:
            system = candidates[0]
        if same and layout.source == "unknown":
            official_ = SYSTEMS[candidates[0]]
            layout = replace(
                layout,
                preprocess=official_.preprocess,
                padding=official_.padding,
                num_heads=official_.num_heads,
            )
            notes = notes[: len(notes) - len(layout.notes)]
        elif system is None and layout.ask:
            raise EncoderError(
                f"it can be of {' or '.join(layout.fits)}, whose networks or images differ, and nothing in "
                f"the file tells which: say it with system= (--system), for example {layout.fits[0]}"
            )
    if layout.source == "solo-learn":
        layout = _solo_learn(layout, found, unwrapped)
    towers = {
        tower: _known_names(found.parts[f"{tower}.backbone"])
        for tower in ("online", "ema")
        if f"{tower}.backbone" in found.parts
    }
    if not towers:
        raise EncoderError("it holds no encoder, only heads")
    return Recognised(
        layout=layout,
        system=system,
        fits=() if system else layout.fits,
        towers=towers,
        tensors=_named(found.parts, system),
        ignored={**found.ignored, **unwrapped.ignored},
        notes=notes,
    )


def _solo_learn(layout: Layout, found: Fit, unwrapped: Unwrapped) -> Layout:
    stem = found.parts["online.backbone"].get("conv1.weight")
    dataset = unwrapped.hints.get("dataset", "")
    if stem is not None and stem.ndim == 4 and stem.shape[-1] == 3:
        return replace(layout, preprocess=_DATASETS.get(dataset, CIFAR10))
    return replace(layout, preprocess=_DATASETS.get(dataset, layout.preprocess))


def _known_names(backbone: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenMMLab's ViT under timm's names, lightly's numbered layers under names; all else as it is."""
    if "1.weight" in backbone:
        numbered = (name.partition(".")[::2] for name in backbone)
        return {
            f"{_LIGHTLY_ZOO.get(number, number)}.{rest.replace('shortcut', 'downsample')}": tensor
            for (number, rest), tensor in zip(numbered, backbone.values(), strict=True)
        }
    if not any(name.startswith("layers.") for name in backbone):
        return dict(backbone)
    renamed = {}
    for name, tensor in backbone.items():
        for pattern, replacement in _OPENMMLAB_VIT:
            name, count = pattern.subn(replacement, name)
            if count:
                break
        renamed[name] = tensor
    return renamed


def _named(parts: Mapping[str, Mapping[str, Tensor]], system: str | None) -> dict[str, Tensor]:
    """Heads and buffers under the names of TrainingState."""
    tensors: dict[str, Tensor] = {}
    for part, state in parts.items():
        kind = part.rpartition(".")[2]
        if kind == "backbone":
            continue
        named: Mapping[str, Tensor] = state
        if kind in ("projector", "predictor"):
            named = mlp_names(state, part)
        elif kind == "prototypes":
            named = prototype_names(state, part)
        elif kind == "buffers":
            tensors |= _buffers(state, system)
            continue
        tensors |= {f"{part}.{name}": tensor for name, tensor in named.items()}
    return tensors


def _buffers(state: Mapping[str, Tensor], system: str | None) -> dict[str, Tensor]:
    """Queue as (views, K, d), pointer as (1,), centre as (K,)."""
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if name == "queue":
            queue = value[None] if value.ndim == 2 else value
            # SwAV keeps embeddings as rows; MoCo and all who follow it, as columns.
            tensors[name] = queue if system == "swav" else queue.transpose(-1, -2)
        else:
            tensors[name] = value.reshape(-1)
    return tensors


def _nearest(fits: list[Fit], unwrapped: Unwrapped) -> str:
    """Why no layout fits."""
    text = f"its layout is not known: its tensors are {few(unwrapped.tensors)}"
    nearest: dict[str, Fit] = {}
    for found in sorted(fits, key=lambda f: f.distance):
        nearest.setdefault(found.layout.key, found)
    for candidate in list(nearest.values())[:2]:
        problems = []
        if candidate.unknown:
            problems.append(f"does not expect {few(candidate.unknown)}")
        if candidate.missing:
            problems.append(f"misses {few(map(_readable, candidate.missing))}")
        if candidate.unwanted:
            problems.append(f"must not have {few(candidate.unwanted)}")
        text += f"; nearest: {candidate.layout.key} ({candidate.layout.source}), which {', '.join(problems)}"
    return (
        f"{text}. Remedy: save the encoder's state dict alone, or build the network and give it as a module: "
        "qf.load_encoder(module)"
    )


def _readable(pattern: str) -> str:
    """A pattern of a layout as a name."""
    text = re.sub(r"\(\?:([^)|]*)(?:\|[^)]*)?\)\??", r"\1", pattern)
    return text.replace("\\.", ".").replace("\\d+", "0").replace("\\", "").rstrip("$")
