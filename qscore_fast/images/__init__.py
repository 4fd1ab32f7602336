"""Images from disk to tensors: listing, decoding, preprocessing."""

from qscore_fast.images.decode import DEFAULT_MAX_PIXELS, decode_bytes, decode_image, quiet_pillow
from qscore_fast.images.decoders import (
    Decoder,
    DecoderName,
    NvJpegDecoder,
    PillowDecoder,
    TorchCodecDecoder,
    choose_decoder,
)
from qscore_fast.images.preprocess import IMAGENET, Preprocess
from qscore_fast.images.sample_id import path_of_sample_id, sample_id_of_path
from qscore_fast.images.sources import (
    FolderSource,
    Sample,
    Source,
    Subset,
    Unit,
    class_list,
    open_source,
)

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "IMAGENET",
    "Decoder",
    "DecoderName",
    "FolderSource",
    "NvJpegDecoder",
    "PillowDecoder",
    "Preprocess",
    "Sample",
    "Source",
    "Subset",
    "TorchCodecDecoder",
    "Unit",
    "choose_decoder",
    "class_list",
    "decode_bytes",
    "decode_image",
    "open_source",
    "path_of_sample_id",
    "quiet_pillow",
    "sample_id_of_path",
]
