"""What the few pickled functions and classes that matter would have made, as plain data.

None of them is imported or called: each has a builder here that checks the arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from qscore_fast.encoders.containers.allowlist import DTYPES, Global, find_global
from qscore_fast.encoders.containers.stub import Stub
from qscore_fast.encoders.containers.values import (
    Array,
    CopyBudget,
    DType,
    Latin1,
    StridedTensor,
    brief,
)
from qscore_fast.errors import EncoderError

Builder = Callable[..., Any]
_ITEM_BYTES = 64  # what one entry of a copied collection costs


def build(function: Global, args: tuple[Any, ...], budget: CopyBudget) -> Any:
    """The value of ``function(*args)`` for a name of ``BUILDERS``.

    Raises:
        EncoderError: the arguments are not those that the name is pickled with.
    """
    return BUILDERS[function.name](budget, *args)


def hashable(value: Any) -> Any:
    """``value`` as a key or an element of a set.

    Raises EncoderError for other than scalars, names and tuples of them.
    """
    if value is None or isinstance(value, str | bytes | bool | float | Global | Stub):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return value
    if isinstance(value, tuple) and len(value) <= 16:
        for entry in value:
            if isinstance(entry, tuple):
                raise EncoderError("a dict in its pickle has nested tuples for keys")
            hashable(entry)
        return value
    raise EncoderError(f"a dict or set in its pickle has a key of type {type(value).__name__}")


def _collection(budget: CopyBudget, values: Any) -> Any:
    if not isinstance(values, list | tuple | set | frozenset | dict):
        raise EncoderError("its pickle makes a collection of something that is none")
    budget.spend(_ITEM_BYTES * len(values))
    return values


def _list(budget: CopyBudget, values: Any = (), *_: Any) -> list[Any]:
    return list(_collection(budget, values))


def _tuple(budget: CopyBudget, values: Any = ()) -> tuple[Any, ...]:
    return tuple(_collection(budget, values))


def _set(budget: CopyBudget, values: Any = ()) -> set[Any]:
    return {hashable(value) for value in _collection(budget, values)}


def _frozenset(budget: CopyBudget, values: Any = ()) -> frozenset[Any]:
    return frozenset(_set(budget, values))


def _dict(budget: CopyBudget, values: Any = ()) -> dict[Any, Any]:
    pairs: Iterable[Any] = _collection(budget, values)
    if isinstance(pairs, dict):
        return dict(pairs)
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        raise EncoderError("its pickle makes a dict of something other than pairs")
    return {hashable(key): value for key, value in pairs}


def _defaultdict(budget: CopyBudget, _factory: Any = None, values: Any = ()) -> dict[Any, Any]:
    return _dict(budget, values)


def _haiku_mapping(_budget: CopyBudget, values: Any) -> dict[Any, Any]:
    if not isinstance(values, dict):
        raise EncoderError("a Haiku mapping in its pickle is not made of a dict")
    return values


def _complex(_budget: CopyBudget, real: Any, imag: Any = 0.0) -> complex:
    if not isinstance(real, int | float) or not isinstance(imag, int | float):
        raise EncoderError("its pickle makes a complex number of something that is no number")
    return complex(real, imag)


def _bytes(budget: CopyBudget, value: Any = b"", encoding: Any = "latin-1") -> Any:
    if isinstance(value, str):
        return _encode(budget, value, encoding)
    if not isinstance(value, bytes | Latin1):
        raise EncoderError("its pickle makes bytes of something that is neither bytes nor text")
    return value


def _encode(_budget: CopyBudget, text: Any, encoding: Any = "latin-1") -> Latin1:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise EncoderError(f"its pickle encodes text as {brief(encoding)}; only latin-1 is known")
    return Latin1(text)


def _slice(_budget: CopyBudget, *args: Any) -> Stub:
    return Stub("builtins.slice", args)


def _getattr(_budget: CopyBudget, owner: Any, name: Any) -> Global:
    """A name within an inert class (how protocol 2 spells ``Class.method``); looked up as a name."""
    if not isinstance(owner, Global) or owner.kind != "inert" or not isinstance(name, str):
        raise EncoderError("its pickle calls builtins.getattr; refused, nothing was executed")
    module, _, qualname = owner.name.rpartition(".")
    return find_global(module, f"{qualname}.{name}", frozenset())


def _getitem(_budget: CopyBudget, owner: Any, index: Any) -> Stub:
    """A parametrised annotation, such as ``typing.Dict[str, int]``."""
    if not isinstance(owner, Global) or not owner.name.startswith("typing."):
        raise EncoderError("its pickle calls operator.getitem; refused, nothing was executed")
    return Stub(owner.name, (index,))


def _reconstructor(_budget: CopyBudget, cls: Any, base: Any, state: Any) -> Stub:
    """An object as protocols 0 and 1 spell it."""
    if not isinstance(cls, Global) or cls.kind != "inert" or not isinstance(base, Global):
        raise EncoderError("its pickle rebuilds an object of a class that is not known as harmless")
    return Stub(cls.name, () if state is None else (state,))


def _tensor(
    _budget: CopyBudget, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any
) -> StridedTensor:
    if len(rest) > 2 and rest[2]:
        raise EncoderError(
            f"it holds a tensor with the metadata {brief(rest[2])}, which is not read"
        )
    return StridedTensor.checked(storage, offset, size, stride)


def _tensor_v3(
    _budget: CopyBudget,
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    _requires_grad: Any,
    _hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> StridedTensor:
    if not isinstance(dtype, Global) or dtype.name not in DTYPES or metadata:
        raise EncoderError("it holds a tensor of an unknown type")
    return StridedTensor.checked(storage, offset, size, stride, DTYPES[dtype.name])


def _parameter(_budget: CopyBudget, data: Any, *_: Any) -> StridedTensor:
    if not isinstance(data, StridedTensor):
        raise EncoderError("it holds a parameter that is no tensor")
    return data


def _from_type(budget: CopyBudget, function: Any, _cls: Any, args: Any, _state: Any) -> Any:
    names = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3")
    if not isinstance(function, Global) or function.name not in names or type(args) is not tuple:
        raise EncoderError("it holds a tensor of a class of its own, which is not read")
    return build(function, args, budget)


def _unread(what: str) -> Builder:
    def refuse(_budget: CopyBudget, *_: Any) -> Any:
        raise EncoderError(f"it holds {what}; only dense tensors of numbers are read")

    return refuse


def _dtype(_budget: CopyBudget, code: Any, *_: Any) -> DType:
    name = code.name if isinstance(code, Global) else code
    if name == "ml_dtypes.bfloat16":
        return DType("bfloat16")
    if not isinstance(name, str):
        raise EncoderError(f"it holds an array of the type {brief(name)}")
    return DType(name)


def _array(_budget: CopyBudget, _cls: Any, _shape: Any, _code: Any) -> Array:
    return Array()


def _array_from_buffer(
    _budget: CopyBudget, data: Any, dtype: Any, shape: Any, order: Any = "C"
) -> Array:
    array = Array()
    array.set_state(shape, dtype, order == "F", data)
    return array


def _jax_array(_budget: CopyBudget, _function: Any, _args: Any, state: Any, *_: Any) -> Array:
    array = Array()
    array.set_state(*state[1:])
    return array


def _scalar(budget: CopyBudget, dtype: Any, data: Any = b"") -> Any:
    array = Array()
    array.set_state((), dtype, False, data)
    number = array.tensor(budget)
    if number is None:
        raise EncoderError("it holds a NumPy scalar that is no number")
    return number.item()


def _text(part: Any) -> str:
    if not isinstance(part, str):
        raise EncoderError("its pickle defines a class without a name")
    return part[:100]


def _dill_type(_budget: CopyBudget, name: Any) -> Global:
    return Global(f"dill._dill._load_type({brief(name)})", "value")


def _dill_class(
    _budget: CopyBudget, _kind: Any, name: Any, _bases: Any, members: Any, *_: Any
) -> Global:
    module = members.get("__module__") if isinstance(members, dict) else None
    return Global(f"{_text(module)}.{_text(name)}", "inert")


def _dill_named_tuple(
    _budget: CopyBudget, name: Any, fields: Any, module: Any = None, *_: Any
) -> Global:
    if not isinstance(fields, tuple | list) or not all(isinstance(f, str) for f in fields):
        raise EncoderError("its pickle defines a named tuple without names")
    return Global(f"{_text(module)}.{_text(name)}", "inert", tuple(fields))


_HAIKU = "haiku._src.data_structures"
BUILDERS: dict[str, Builder] = {
    "collections.OrderedDict": _dict,
    "collections.Counter": _dict,
    "collections.defaultdict": _defaultdict,
    "collections.deque": _list,
    "builtins.dict": _dict,
    "builtins.list": _list,
    "builtins.tuple": _tuple,
    "torch.Size": _tuple,
    "builtins.set": _set,
    "builtins.frozenset": _frozenset,
    "builtins.complex": _complex,
    "builtins.slice": _slice,
    "builtins.bytearray": _bytes,
    "builtins.bytes": _bytes,
    "builtins.getattr": _getattr,
    "operator.getitem": _getitem,
    "_operator.getitem": _getitem,
    "copyreg._reconstructor": _reconstructor,
    "_codecs.encode": _encode,
    **{f"{_HAIKU}.{name}": _haiku_mapping for name in ("FlatMapping", "FlatMap", "frozendict")},
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch._utils._rebuild_qtensor": _unread("a quantised tensor"),
    "torch._utils._rebuild_sparse_tensor": _unread("a sparse tensor"),
    "torch._utils._rebuild_sparse_csr_tensor": _unread("a sparse tensor"),
    "torch.serialization._get_layout": _unread("a sparse tensor"),
    "torch._utils._rebuild_nested_tensor": _unread("a nested tensor"),
    "torch._utils._rebuild_meta_tensor_no_storage": _unread("a meta tensor, which has no numbers"),
    "torch._utils._rebuild_wrapper_subclass": _unread("a tensor of a class of its own"),
    "torch._utils._rebuild_device_tensor_from_numpy": _unread("a tensor of another device"),
    "torch.storage._load_from_bytes": _unread("a tensor that was pickled without torch.save"),
    "numpy.dtype": _dtype,
    "numpy.core.multiarray._reconstruct": _array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _array_from_buffer,
    "jax._src.array._reconstruct_array": _jax_array,
    "jax._src.device_array.reconstruct_device_array": _jax_array,
    "jax.interpreters.xla._reconstruct_device_array": _jax_array,
    "dill._dill._load_type": _dill_type,
    "dill._dill._create_type": _dill_class,
    "dill._dill._create_namedtuple": _dill_named_tuple,
}
BUILT = frozenset(BUILDERS)
