"""The grammar and help of ``qscore encoders``."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser

from qscore_fast.cli.encoder_options import (
    SPEC_HELP,
    add_loading,
    add_preprocessing,
    add_recognition,
)
from qscore_fast.cli.new_parser import add_json, new_parser


def add_encoders_command(to: Any) -> None:
    """Add ``encoders`` and its three commands to what ``add_subcommands`` returned."""
    parser = new_parser(
        "Which checkpoints can be read, what a file is, and how fast an encoder runs here.",
        """\
examples:
  qscore encoders list
  qscore encoders inspect moco_v2_800ep_pretrain.pth.tar
  qscore encoders bench moco_v2_800ep_pretrain.pth.tar --batch-size 128""",
    )
    # jsonargparse wants a parser in its place before it has subcommands of its own.
    to.add_subcommand(
        "encoders", parser, help="which checkpoints can be read, what one is, its speed"
    )
    commands = parser.add_subcommands(required=True, metavar="COMMAND", title="commands")
    commands.add_subcommand("inspect", _inspect(), help="say what a checkpoint is")
    commands.add_subcommand("list", _list(), help="show the checkpoints that can be read")
    commands.add_subcommand("bench", _bench(), help="measure an encoder on this machine")


def _inspect() -> ArgumentParser:
    parser = new_parser(
        """\
Say what a checkpoint is: system, source, backbone, width, number of features, towers and heads that it
holds, preprocessing, and what is ignored. Nothing in the file is executed, and no image is needed.""",
        """\
examples:
  qscore encoders inspect swav_800ep_pretrain.pth.tar
  qscore encoders inspect checkpoint.pth --system dino --tower online --json""",
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        type=str,
        help="the checkpoint; of TensorFlow's, the prefix, the .index file or the folder",
    )
    add_recognition(parser)
    return add_json(parser)


def _list() -> ArgumentParser:
    return add_json(
        new_parser(
            "The checkpoints that can be read: system, source, and what is recognised in them.",
            "example:\n  qscore encoders list --json",
        )
    )


def _bench() -> ArgumentParser:
    parser = new_parser(
        """\
Measure images a second of an encoder in float32, in lower precision, with other memory order, folded
batch norm and torch.compile, and how similar the features stay to float32's.

The images are made up and lie on the device already: decoding is not part of it.""",
        """\
examples:
  qscore encoders bench timm:resnet50 --no-pretrained
  qscore encoders bench swav_800ep_pretrain.pth.tar --device cuda --batch-size 256 --seconds 5
  qscore encoders bench dino_vits16.pth --json""",
    )
    add = parser.add_argument
    add("encoder", metavar="ENCODER", type=str, help=SPEC_HELP)
    add("--batch-size", type=int, default=64, help="images a call")
    add("--seconds", type=float, default=2.0, help="for each variant; at least three calls")
    add_loading(parser)
    add_preprocessing(parser)
    return add_json(parser)
