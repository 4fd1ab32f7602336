"""Which pickled names are known. A name is looked up here and nowhere else: nothing is imported.

A name is either built (``builders.py`` makes plain data of it), a value that is only referred to
(a dtype, a storage type), or inert: it becomes a Stub. Any other name is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from qscore_fast.encoders.containers.limits import MAX_NAME_CHARACTERS
from qscore_fast.errors import EncoderError

_IDENTIFIERS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_DUNDER = re.compile(r"__\w*__", re.ASCII)

# One module under its names of different versions.
_RENAMED = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "dill.dill": "dill._dill",
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
    "torch.nn.parameter": "torch.nn",
}

# Whose objects published files hold beside the tensors: hyper-parameters, logs, optimiser states.
_INERT_PACKAGES = {
    *("omegaconf", "hydra", "yacs", "addict", "easydict", "fvcore", "iopath", "ml_collections"),
    *("pytorch_lightning", "lightning", "lightning_fabric", "lightning_utilities", "torchmetrics"),
    *("mmengine", "mmcv", "mmselfsup", "mmcls", "mmpretrain"),
    *("vissl", "classy_vision", "apex", "timm", "solo", "lightly"),
    *("haiku", "jax", "jaxlib", "optax", "byol", "chex", "acme", "flax"),
    *("datetime", "typing"),
}
_INERT_MODULES = (
    "torch.optim",
    "torch.amp",
    "torch.cuda.amp",
    "torchvision.transforms",
    "numpy.random",
)
_INERT_NAMES = {
    *("argparse.Namespace", "types.SimpleNamespace", "torch.device"),
    *(
        f"{module}.{name}"
        for module in ("pathlib", "pathlib._local")
        for name in (
            *("Path", "PosixPath", "WindowsPath"),
            *("PurePath", "PurePosixPath", "PureWindowsPath"),
        )
    ),
    *(f"dill._dill.{name}" for name in ("_create_function", "_create_code", "_create_cell")),
}
# Functions that a training script of its own defines and whose optimiser groups refer to.
_INERT_ANYWHERE = {"exclude_bias_and_norm"}

STORAGES = {
    f"{module}.{name}Storage": dtype
    for module in ("torch", "torch.cuda")
    for name, dtype in {
        "Float": torch.float32,
        "Double": torch.float64,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexFloat": torch.complex64,
        "ComplexDouble": torch.complex128,
        "Untyped": torch.uint8,
    }.items()
} | {"torch.storage.UntypedStorage": torch.uint8}
DTYPES = {f"torch.{name}": d for name, d in vars(torch).items() if isinstance(d, torch.dtype)}
_NUMPY_TYPES = (
    *("bool", "bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128", "longlong", "ulonglong", "str_"),
)
_VALUES = {
    *(STORAGES.keys() | DTYPES.keys()),
    *("numpy.ndarray", *(f"numpy.{name}" for name in _NUMPY_TYPES)),
    *(f"builtins.{name}" for name in ("object", "type", "int", "float", "bool", "str")),
    *("torch.Tensor", "torch.nn.Parameter", "torch.strided", "torch.contiguous_format"),
    *(f"torch.{name}Tensor" for name in ("Float", "Double", "Half", "Long", "Int", "Byte", "Bool")),
    *("ml_dtypes.bfloat16", "builtins.NoneType"),
}
_QUANTISED = re.compile(r"torch\.(cuda\.)?Q\w+Storage", re.ASCII)
_NUMPY_DTYPE_CLASS = re.compile(r"numpy\.dtypes\.\w+DType", re.ASCII)


@dataclass(frozen=True)
class Global:
    """A known name. ``kind`` is "built", "value" or "inert"; ``fields`` as in Stub."""

    name: str
    kind: str
    fields: tuple[str, ...] = ()


def find_global(module: object, qualname: object, built: frozenset[str]) -> Global:
    """What the pickled name ``module.qualname`` may be used for; ``built`` are the builders' names.

    Raises:
        EncoderError: the name is not on any list.
    """
    if not isinstance(module, str) or not isinstance(qualname, str):
        raise EncoderError("its pickle names a global by something that is no text")
    name = f"{_RENAMED.get(module, module)}.{qualname}"
    if len(name) > MAX_NAME_CHARACTERS or not _IDENTIFIERS.fullmatch(name):
        raise _refusal(name)
    if name in built:
        return Global(name, "built")
    if name in _VALUES or _NUMPY_DTYPE_CLASS.fullmatch(name):
        return Global(name, "value")
    if _is_inert(name, qualname):
        return Global(name, "inert")
    if _QUANTISED.fullmatch(name):
        raise EncoderError("it holds a quantised tensor; only dense tensors of numbers are read")
    raise _refusal(name)


def _is_inert(name: str, qualname: str) -> bool:
    if any(_DUNDER.fullmatch(part) for part in qualname.split(".")):
        return False
    return (
        name in _INERT_NAMES
        or qualname in _INERT_ANYWHERE
        or name.partition(".")[0] in _INERT_PACKAGES
        or any(name.startswith(module + ".") for module in _INERT_MODULES)
    )


def _refusal(name: str) -> EncoderError:
    return EncoderError(
        f"its pickle refers to {name[:MAX_NAME_CHARACTERS]!r}, which is not on the list of harmless "
        "names; refused, nothing was executed. Save the weights alone (a state_dict) and try again"
    )
