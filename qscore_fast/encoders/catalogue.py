"""Every published kind of checkpoint, what it is recognised as, and the test that shows it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from qscore_fast.encoders.layouts import LAYOUTS, SYSTEMS
from qscore_fast.encoders.layouts.layout import Layout

BEGIN, END = "<!-- encoders: begin -->", "<!-- encoders: end -->"


@dataclass(frozen=True)
class Kind:
    """One kind of published file.

    Attributes:
        system: the systems whose checkpoints are so written, as in ``SYSTEMS``.
        source: the repository or library that writes it.
        file: names under which it is published, or how it is written.
        layout: the key of the layout that it is recognised as; "" if it cannot be loaded.
        test: the rows of the test that write such files.
        remark: what a user should know; for what cannot be loaded, why.
    """

    system: tuple[str, ...]
    source: str
    file: str
    layout: str
    test: tuple[str, ...]
    remark: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)

    @property
    def titles(self) -> str:
        """The systems as their authors write them."""
        return ", ".join(SYSTEMS[name].title for name in self.system)

    @property
    def recognised(self) -> Layout | None:
        """The layout."""
        return next((layout for layout in LAYOUTS if layout.key == self.layout), None)


_VISSL = ("simclr", "swav", "moco_v2", "barlow_twins")
ROWS: tuple[Kind, ...] = (
    Kind(("simclr",), "google-research/simclr", "v1: `ResNet50_1x/model.ckpt-225206`", "simclr-tensorflow",
         ("simclr-v1-official",), "TensorFlow checkpoint, no projector in it"),
    Kind(("simclr",), "google-research/simclr", "v2: `r50_1x_sk0/model.ckpt-250228`", "simclr-tensorflow",
         ("simclr-v2-sk0-official",), "with the moving average and the projector"),
    Kind(("simclr",), "google-research/simclr", "v2: `r152_3x_sk1/model.ckpt-250228`", "simclr-tensorflow",
         ("simclr-v2-sk1-official",), "selective kernels"),
    Kind(("simclr",), "tonylins/simclr-converter", "`resnet50-1x.pth`, `-2x`, `-4x`", "simclr-converter",
         ("simclr-v1-converted", "simclr-v1-converted-2x")),
    Kind(("simclr",), "Separius/SimCLRv2-Pytorch", "`r50_1x_sk0.pth`, `r152_3x_sk1_ema.pth`",
         "simclr-v2-pytorch",
         ("simclr-v2-sk0-converted", "simclr-v2-sk1-converted")),
    Kind(("simclr",), "Spijkervet/SimCLR", "`checkpoint_100.tar`", "spijkervet", ("simclr-spijkervet",)),
    Kind(("swav",), "facebookresearch/swav", "`swav_800ep_pretrain.pth.tar`, w2 to w5", "swav",
         ("swav-official", "swav-official-w2")),
    Kind(("swav",), "facebookresearch/swav", "`checkpoint.pth.tar` of the training", "swav",
         ("swav-official-training",)),
    Kind(("swav",), "facebookresearch/swav", "`swav_800ep_eval_linear.pth.tar`", "swav-linear",
         ("swav-official-linear",), "a linear classifier alone, no encoder"),
    Kind(("moco",), "facebookresearch/moco", "`moco_v1_200ep_pretrain.pth.tar`", "moco-v1",
         ("moco-v1-official",)),
    Kind(("moco_v2",), "facebookresearch/moco", "`moco_v2_800ep_pretrain.pth.tar`", "moco-v2",
         ("moco-v2-official",)),
    Kind(("moco_v3",), "facebookresearch/moco-v3", "`r-50-1000ep.pth.tar`", "moco-v3",
         ("moco-v3-r50-official",)),
    Kind(("moco_v3",), "facebookresearch/moco-v3", "`vit-s-300ep.pth.tar`, `vit-b-300ep.pth.tar`", "moco-v3",
         ("moco-v3-vit-s-official", "moco-v3-vit-b-official"), "12 heads at both widths"),
    Kind(("byol",), "deepmind/byol", "`pretrain_res50x1.pkl`, `pretrain_res200x2.pkl`", "byol",
         ("byol-official", "byol-official-200x2"), "pickle of Haiku parameters"),
    Kind(("byol",), "ajtejankar/byol-convert", "`pretrain_res50x1.pth.tar`", "byol-convert",
         ("byol-converted",), "known by the order of its tensors"),
    Kind(("byol",), "linusericsson/ssl-transfer", "`byol.pth`", "byol-ssl-transfer", ("byol-ssl-transfer",),
         "known by its file name, otherwise say `system=\"byol\"`"),
    Kind(("dino",), "facebookresearch/dino", "`dino_deitsmall16_pretrain.pth`, S/8, B/16, B/8", "dino",
         ("dino-vit-s16-official", "dino-vit-s8-official", "dino-vit-b16-official")),
    Kind(("dino",), "facebookresearch/dino", "`dino_xcit_small_12_p16_pretrain.pth` and the other XCiTs",
         "dino-xcit", ("dino-xcit-p16-official", "dino-xcit-p8-official")),
    Kind(("dino",), "facebookresearch/dino", "`dino_resnet50_pretrain.pth`", "dino-resnet50",
         ("dino-r50-official",), "known by its file name"),
    Kind(("dino",), "facebookresearch/dino", "`*_full_checkpoint.pth`", "dino-full",
         ("dino-vit-s16-official-full", "dino-r50-official-full")),
    Kind(("simsiam",), "facebookresearch/simsiam", "`checkpoint_0099.pth.tar`", "simsiam",
         ("simsiam-official",)),
    Kind(("vicreg", "barlow_twins"), "facebookresearch/vicreg, facebookresearch/barlowtwins",
         "`resnet50.pth`", "vicreg-or-barlow-twins", ("vicreg-official-backbone", "barlow-official-backbone"),
         "the two files look the same: `system` is None unless given"),
    Kind(("vicreg",), "facebookresearch/vicreg", "`resnet50x2.pth`, `resnet200x2.pth`", "vicreg-wide",
         ("vicreg-official-200x2",), "known by its file name"),
    Kind(("vicreg",), "facebookresearch/vicreg", "`resnet50_fullckpt.pth`", "vicreg-full",
         ("vicreg-official-full",)),
    Kind(("barlow_twins",), "facebookresearch/barlowtwins", "`checkpoint.pth`", "barlow-twins-full",
         ("barlow-official-full", "barlow-official-full-old")),
    Kind(("dinov2",), "facebookresearch/dinov2", "`dinov2_vits14_pretrain.pth`, also `_reg4`", "dinov2",
         ("dinov2-official", "dinov2-registers-official")),
    Kind(("dinov3",), "facebookresearch/dinov3", "`dinov3_vits16_pretrain_lvd1689m-*.pth`", "dinov3",
         ("dinov3-official",)),
    Kind(("simclr",), "vissl", "`model_final_checkpoint_phase799.torch`", "vissl-simclr", ("simclr-vissl",)),
    Kind(("moco_v2",), "vissl", "`model_final_checkpoint_phase199.torch`", "vissl-moco-v2",
         ("moco-v2-vissl",)),
    Kind(("swav",), "vissl", "`model_final_checkpoint_phase799.torch`", "vissl-swav", ("swav-vissl",)),
    Kind(("barlow_twins",), "vissl", "`model_final_checkpoint_phase999.torch`", "vissl-barlow-twins",
         ("barlow-vissl",)),
    Kind(("dino",), "vissl", "`model_final_checkpoint_phase299.torch`", "vissl-dino", ("dino-vissl",),
         "the teacher is in the state of the loss"),
    Kind(_VISSL, "vissl", "flat and legacy files (`model_state_dict`)", "vissl-trunk",
         ("vissl-flat", "vissl-legacy")),
    Kind(_VISSL, "vissl", "what `convert_vissl_to_torchvision.py` writes", "bare-resnet",
         ("vissl-converted",)),
    Kind(_VISSL, "vissl", "evaluation of a frozen trunk", "vissl-evaluation", ("vissl-frozen-evaluation",)),
    Kind(_VISSL, "vissl", "sharded and sliced files", "", ("vissl-sharded",),
         "flattened pieces of parameters; VISSL's own script puts them together"),
    *(
        Kind((system,), "mmpretrain, mmselfsup 1.x", f"`{file}_*.pth`", f"mmpretrain-{layout}", (test,))
        for system, file, layout, test in (
            ("simclr", "simclr_resnet50", "simclr", "simclr-mmpretrain"),
            ("moco_v2", "mocov2_resnet50", "moco-v2", "moco-v2-mmpretrain"),
            ("moco_v3", "mocov3_resnet50", "moco-v3", "moco-v3-mmpretrain"),
            ("byol", "byol_resnet50", "byol", "byol-mmpretrain"),
            ("simsiam", "simsiam_resnet50", "simsiam", "simsiam-mmpretrain"),
            ("swav", "swav_resnet50", "swav", "swav-mmpretrain"),
            ("barlow_twins", "barlowtwins_resnet50", "barlow-twins", "barlow-twins-mmpretrain"),
        )
    ),
    Kind(("moco_v2",), "mmselfsup 0.x", "`state_dict` with `encoder_q.0.`", "mmselfsup-moco-v2",
         ("moco-v2-mmselfsup-0x",)),
    Kind(("byol",), "mmselfsup 0.x", "`state_dict` with `online_net.0.`", "mmselfsup-byol",
         ("byol-mmselfsup-0x",)),
    Kind(("simclr", "moco_v2", "moco_v3", "byol", "simsiam", "swav", "barlow_twins"), "mmselfsup 0.x",
         "backbones taken out by its script", "bare-resnet", ("mmselfsup-extracted",)),
    *(
        Kind((system,), "solo-learn", f"`{method}-*.ckpt`", f"solo-learn-{layout}", tests)
        for system, method, layout, tests in (
            ("simclr", "simclr", "simclr", ("simclr-solo-learn", "simclr-solo-learn-old")),
            ("moco_v2", "mocov2plus", "moco-v2", ("moco-v2-solo-learn",)),
            ("moco_v3", "mocov3", "moco-v3", ("moco-v3-solo-learn",)),
            ("byol", "byol", "byol", ("byol-solo-learn", "byol-solo-learn-cifar")),
            ("dino", "dino", "dino", ("dino-solo-learn",)),
            ("simsiam", "simsiam", "simsiam", ("simsiam-solo-learn",)),
            ("swav", "swav", "swav", ("swav-solo-learn",)),
            ("vicreg", "vicreg", "vicreg-or-barlow-twins", ("vicreg-solo-learn",)),
            ("barlow_twins", "barlow_twins", "vicreg-or-barlow-twins",
             ("barlow-twins-solo-learn", "barlow-twins-solo-learn-cifar")),
        )
    ),
    *(
        Kind((system,), "lightly", "`epoch=99-step=*.ckpt`", f"lightly-{layout}", (f"{layout}-lightly",))
        for system, layout in (
            ("simclr", "simclr"), ("moco_v2", "moco-v2"), ("byol", "byol"), ("dino", "dino"),
            ("swav", "swav"), ("vicreg", "vicreg"), ("barlow_twins", "barlow-twins"),
        )
    ),
    Kind(("simclr",), "lightly", "`whattolabel-resnet9-simclr-*.pth` (ZOO)", "lightly-zoo",
         ("simclr-lightly-zoo",), "16 or 32 features of both signs"),
)  # fmt: skip


def catalogue_lines() -> list[str]:
    """The catalogue for a terminal: under each source the layouts, their systems and their files."""
    lines: list[str] = []
    source = ""
    for row in ROWS:
        if row.source != source:
            source = row.source
            lines.append(source)
        what = row.layout if row.recognised and not row.recognised.refuse else "not loaded"
        lines.append(f"  {what:<30}{row.titles}")
        remark = f" ({row.remark})" if row.remark else ""
        lines.append(f"  {'':<30}{row.file}{remark}".replace("`", ""))
    return lines


def catalogue_markdown() -> str:
    """The catalogue as the table of docs/encoders.md."""
    lines = [
        "| system | source | file | recognised as | tower | images | test |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in ROWS:
        layout = row.recognised
        if layout is None or layout.refuse:
            what, tower, images = "not loaded", "", ""
        else:
            what, tower = f"`{layout.key}`", layout.tower
            images = layout.preprocess.describe()
        remark = f"; {row.remark}" if row.remark else ""
        tests = ", ".join(f"`{test}`" for test in row.test)
        lines.append(
            f"| {row.titles} | {row.source} | {row.file} | {what}{remark} | {tower} | {images} | {tests} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(catalogue_markdown())
