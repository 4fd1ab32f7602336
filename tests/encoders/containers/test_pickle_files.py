"""Plain and dill pickles of NumPy arrays, Haiku mappings and named tuples, as BYOL published them."""

from __future__ import annotations

import pickle
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pickle_code import args, call, name, value, write_pickle

from qscore_fast.encoders.containers import Stub, read_container
from qscore_fast.errors import EncoderError

HAIKU = "haiku._src.data_structures"


@pytest.fixture
def fake_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Classes of the modules that BYOL's files name; they exist only while a file is written."""

    class FlatMapping:
        def __init__(self, mapping: Mapping[str, Any]) -> None:
            self.mapping = mapping

        def __reduce__(self) -> tuple[Any, ...]:
            return FlatMapping, (self.mapping,)

    fields = [(f, Any) for f in ("online_params", "target_params", "opt_state")]
    state = typing.NamedTuple("_ByolExperimentState", fields)  # type: ignore[misc]
    made = {HAIKU: FlatMapping, "byol.byol_experiment": state}
    for module, cls in made.items():
        cls.__module__, cls.__qualname__ = module, cls.__name__
        fake = types.ModuleType(module)
        setattr(fake, cls.__name__, cls)
        for parent in (module.split(".")[0], module.rpartition(".")[0]):
            monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
        monkeypatch.setitem(sys.modules, module, fake)
    yield {cls.__name__: cls for cls in made.values()}


@pytest.mark.parametrize("protocol", [2, 4])
def test_byol(
    protocol: int, fake_modules: dict[str, Any], tmp_path: Path, monkeypatch: Any
) -> None:
    generator = np.random.default_rng(0)
    kernel = generator.standard_normal((3, 3, 2, 4)).astype("float32")
    mapping, state = fake_modules["FlatMapping"], fake_modules["_ByolExperimentState"]
    params = mapping({"res_net50/~/initial_conv": {"w": kernel}, "empty": {}})
    experiment = state(params, {"x": {"b": kernel[0, 0]}}, (1, [np.float32(0.5)]))
    path = tmp_path / "pretrain_res50x1.pkl"
    path.write_bytes(
        pickle.dumps({"experiment_state": experiment, "step": np.int64(9)}, protocol=protocol)
    )
    for module in (HAIKU, "byol.byol_experiment"):
        monkeypatch.delitem(sys.modules, module)

    container = read_container(path)
    assert container.format == "pickle"
    assert container.stubs == ("byol.byol_experiment._ByolExperimentState",)
    assert container.content["step"] == 9
    stub = container.content["experiment_state"]
    assert isinstance(stub, Stub) and len(stub.args) == 3
    weights = stub.args[0]["res_net50/~/initial_conv"]["w"]
    assert type(stub.args[0]) is dict and stub.args[0]["empty"] == {}
    assert weights.dtype == torch.float32 and np.array_equal(weights.numpy(), kernel)
    assert np.array_equal(stub.args[1]["x"]["b"].numpy(), kernel[0, 0])
    assert stub.args[2] == (1, [0.5])
    assert not {HAIKU, "byol.byol_experiment"} & sys.modules.keys()


def test_a_named_tuple_that_dill_pickled_by_value(tmp_path: Path) -> None:
    made = call(
        name("dill._dill", "_create_namedtuple"),
        value("_ByolExperimentState"),
        value(("online_params", "step")),
        value("__main__"),
    )
    code = made + args(value({"w": 1}), value(3)) + b"\x81"
    container = read_container(write_pickle(tmp_path / "file", "pickle", code))
    assert container.content.name == "__main__._ByolExperimentState"
    assert container.content.args == ({"w": 1}, 3)
    assert container.content.fields == ("online_params", "step")


def test_a_class_that_dill_pickled_by_value(tmp_path: Path) -> None:
    kind = call(name("dill._dill", "_load_type"), value("type"))
    base = call(name("dill._dill", "_load_type"), value("object"))
    function = call(name("dill._dill", "_create_function"), value("code"), value({}))
    members = b"}" + value("__module__") + value("__main__") + b"s" + value("f") + function + b"s"
    made = call(name("dill._dill", "_create_type"), kind, value("State"), args(base), members)
    code = made + args() + b"\x81" + value({"a": 1}) + b"b"
    content = read_container(write_pickle(tmp_path / "file", "pickle", code)).content
    assert content.name == "__main__.State" and content.state == {"a": 1}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "array",
    [
        np.arange(200, 260, dtype="uint8"),
        np.linspace(-1, 1, 12).reshape(3, 4).astype(">f4"),
        np.asfortranarray(np.arange(24).reshape(2, 3, 4)),
        np.array([True, False]),
        np.zeros((0, 3), "float16"),
        np.array(3.5),
        np.array([1 + 2j]),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_arrays(array: np.ndarray, protocol: int, tmp_path: Path) -> None:
    (tmp_path / "file.pkl").write_bytes(pickle.dumps([array, array], protocol=protocol))
    first, second = read_container(tmp_path / "file.pkl").content
    assert first is second and first.is_contiguous()
    assert first.numpy().dtype == array.dtype.newbyteorder("=")
    assert np.array_equal(first.numpy(), array)


def test_an_array_of_python_2(tmp_path: Path) -> None:
    """Protocol 2 of Python 2 holds the numbers in a byte string (BINSTRING)."""
    numbers = np.array([1.5, -2.25, 1e30], "<f4")
    for raw in (numbers.tobytes(), "é€".encode()[:4] + bytes(8)):
        dtype = call(name("numpy", "dtype"), value("f4"), value(0), value(1))
        dtype += value((3, "<", None, None, None, -1, -1, 0)) + b"b"
        string = b"T" + len(raw).to_bytes(4, "little") + raw
        made = call(
            name("numpy.core.multiarray", "_reconstruct"),
            name("numpy", "ndarray"),
            value((0,)),
            b"U\1b",
        )
        code = made + args(value(1), value((3,)), dtype, value(False), string) + b"b"
        content = read_container(write_pickle(tmp_path / "file", "pickle", code)).content
        assert content.numpy().tobytes() == raw


def test_an_array_larger_than_its_data_is_refused(tmp_path: Path) -> None:
    dtype = call(name("numpy", "dtype"), value("f4"))
    made = call(
        name("numpy.core.multiarray", "_reconstruct"),
        name("numpy", "ndarray"),
        value((0,)),
        value("b"),
    )
    code = made + args(value(1), value((10,)), dtype, value(False), value("abcd")) + b"b"
    with pytest.raises(EncoderError, match="has not the data"):
        read_container(write_pickle(tmp_path / "file", "pickle", code))


def test_a_configuration_that_knows_its_parent(tmp_path: Path) -> None:
    """OmegaConf nodes refer to their parents; the cycle is cut, what else they hold is kept."""
    code = (
        name("omegaconf.dictconfig", "DictConfig") + b")\x81q\x63"
        b"}"
        + value("_content")
        + (name("omegaconf.nodes", "AnyNode") + b")\x81}" + value("_parent") + b"h\x63s")
        + value("_val")
        + value(3)
        + b"sbsb"
    )
    content = read_container(write_pickle(tmp_path / "file", "pickle", code)).content
    node = content.state["_content"]
    assert node.state["_val"] == 3
    assert node.state["_parent"].name == "omegaconf.dictconfig.DictConfig"
    assert node.state["_parent"].state is None


def test_a_mapping_and_a_list_of_unknown_class(tmp_path: Path) -> None:
    code = name("vissl.utils", "AttrDict") + b")\x81" + value("a") + value(1) + b"s"
    code += name("fvcore.x", "List") + b")\x81(K\1K\2e\x86"
    first, second = read_container(write_pickle(tmp_path / "file", "pickle", code)).content
    assert first.items_ == [("a", 1)] and second.entries == [1, 2]


def test_a_method_in_a_log(tmp_path: Path) -> None:
    """mmengine's HistoryBuffer keeps its own methods, which protocol 2 spells with getattr."""
    code = call(
        name("builtins", "getattr"),
        name("mmengine.logging.history_buffer", "HistoryBuffer"),
        value("mean"),
    )
    content = read_container(write_pickle(tmp_path / "file", "pickle", code)).content
    assert content.name == "mmengine.logging.history_buffer.HistoryBuffer.mean"
