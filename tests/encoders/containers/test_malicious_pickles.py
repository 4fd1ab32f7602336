"""No pickle, in whatever file, makes the reader run, import or change anything."""

from __future__ import annotations

import encodings.cp437  # noqa: F401  (zipfile decodes names with it)
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pickle_code import FORMATS, args, call, name, program, stack_name, value, write_pickle

from qscore_fast.encoders.containers import Container, read_container
from qscore_fast.errors import EncoderError

ORDERED = name("collections", "OrderedDict")
NAMESPACE = call(name("argparse", "Namespace"))


def touch(marker: str) -> bytes:
    return value(f"touch {marker}")


def python(marker: str) -> bytes:
    return value(f"open({marker!r}, 'w')")


def open_it(marker: str) -> bytes:
    return value(marker) + value("w")


# Each makes a pickle that would create the file `marker` (or would give a way to do so).
ATTACKS: dict[str, Callable[[str], bytes]] = {
    "os.system": lambda m: call(name("os", "system"), touch(m)),
    "posix.system": lambda m: call(name("posix", "system"), touch(m)),
    "os.popen": lambda m: call(name("os", "popen"), touch(m)),
    "subprocess": lambda m: call(name("subprocess", "call"), value(["touch", m])),
    "subprocess.Popen by OBJ": lambda m: (
        b"(" + name("subprocess", "Popen") + value(["touch", m]) + b"o"
    ),
    "os.system by INST": lambda m: b"(" + touch(m) + b"ios\nsystem\n",
    "subprocess.Popen by NEWOBJ": lambda m: (
        name("subprocess", "Popen") + args(value(["touch", m])) + b"\x81"
    ),
    "subprocess.Popen by NEWOBJ_EX": lambda m: (
        name("subprocess", "Popen") + args() + value({"args": ["touch", m]}) + b"\x92"
    ),
    "eval": lambda m: call(name("builtins", "eval"), python(m)),
    "exec": lambda m: call(name("builtins", "exec"), python(m)),
    "python 2's eval": lambda m: call(name("__builtin__", "eval"), python(m)),
    "open": lambda m: call(name("builtins", "open"), open_it(m)),
    "io.open": lambda m: call(name("io", "open"), open_it(m)),
    "__import__": lambda m: call(name("builtins", "__import__"), value("tattling_module")),
    "importlib": lambda m: call(name("importlib", "import_module"), value("tattling_module")),
    "a global of a module": lambda m: name("tattling_module", "anything"),
    "a known last name": lambda m: name("os", "exclude_bias_and_norm.system"),
    "getattr of os": lambda m: call(
        call(name("builtins", "getattr"), name("os", "path"), value("os")), touch(m)
    ),
    "getattr of an allowed class": lambda m: call(
        name("builtins", "getattr"), ORDERED, value("__init__")
    ),
    "getattr of an inert class": lambda m: call(
        name("builtins", "getattr"), name("argparse", "Namespace"), value("__init__")
    ),
    "getattr of an object": lambda m: call(name("builtins", "getattr"), NAMESPACE, value("x")),
    "a dotted name": lambda m: stack_name("collections", "OrderedDict.__init__.__globals__"),
    "a dotted name of an inert class": lambda m: stack_name(
        "argparse", "Namespace.__init__.__globals__"
    ),
    "a dotted name of a package": lambda m: stack_name("jax", "x.__globals__"),
    "a dotted name of torch": lambda m: stack_name("torch", "serialization.os.system"),
    "functools.partial": lambda m: call(
        call(name("functools", "partial"), name("os", "system"), touch(m))
    ),
    "operator.attrgetter": lambda m: call(
        call(name("operator", "attrgetter"), value("system")), name("os", "path")
    ),
    "operator.methodcaller": lambda m: call(name("operator", "methodcaller"), touch(m)),
    "operator.getitem": lambda m: call(name("operator", "getitem"), value({"a": 1}), value("a")),
    "copyreg": lambda m: call(
        name("copyreg", "__newobj__"), name("subprocess", "Popen"), value(["touch", m])
    ),
    "copyreg's extensions": lambda m: call(
        name("copyreg", "add_extension"), value("os"), value("system"), value(240)
    ),
    "copyreg._reconstructor of Popen": lambda m: call(
        name("copyreg", "_reconstructor"),
        name("subprocess", "Popen"),
        name("builtins", "object"),
        b"N",
    ),
    "an extension code": lambda m: b"\x82\xf0",
    "a long extension code": lambda m: b"\x84\xf0\0\0\0",
    "torch.load inside": lambda m: call(name("torch", "load"), value(m)),
    "torch.serialization.load": lambda m: call(name("torch.serialization", "load"), value(m)),
    "a nested torch archive": lambda m: call(
        name("torch.storage", "_load_from_bytes"), value(program(call(name("os", "system"))))
    ),
    "a nested pickle": lambda m: call(
        name("pickle", "loads"), value(program(call(name("os", "system"), touch(m))))
    ),
    "torch.hub": lambda m: call(name("torch.hub", "load"), value(m), value("x")),
    "torch.jit": lambda m: call(name("torch.jit", "load"), value(m)),
    "torch's C++ compiler": lambda m: call(
        name("torch.utils.cpp_extension", "load_inline"), value("x"), value("")
    ),
    "runpy": lambda m: call(name("runpy", "run_path"), value(m)),
    "runpy._run_code": lambda m: call(name("runpy", "_run_code"), python(m), value({})),
    "pty": lambda m: call(name("pty", "spawn"), value(["touch", m])),
    "ctypes": lambda m: call(name("ctypes", "CDLL"), value("libc.so.6")),
    "numpy.load": lambda m: call(name("numpy", "load"), value(m)),
    "numpy.testing": lambda m: call(
        name("numpy.testing._private.utils", "runstring"), python(m), value({})
    ),
    "numpy.f2py": lambda m: call(name("numpy.f2py", "compile"), value("end")),
    "dill evaluates": lambda m: call(name("dill._dill", "_eval_repr"), python(m)),
    "dill imports": lambda m: call(name("dill._dill", "_import_module"), value("tattling_module")),
    "dill gets": lambda m: call(name("dill._dill", "_get_attr"), name("os", "path"), value("os")),
    "dill makes code": lambda m: call(
        call(name("dill._dill", "_create_function"), value("code"), value({}))
    ),
    "code": lambda m: call(name("types", "CodeType"), value(0)),
    "a function": lambda m: call(name("types", "FunctionType"), value(0), value({})),
    "marshal": lambda m: call(name("marshal", "loads"), value(b"x")),
    "codecs": lambda m: call(name("_codecs", "encode"), value("x"), value("tattling_module")),
    "codecs.lookup": lambda m: call(name("codecs", "lookup"), value("tattling_module")),
    "a cycle through a collection": lambda m: b"]\x94h\x00a",
    "an object that is called": lambda m: NAMESPACE + args(touch(m)) + b"R",
    "a result that is called": lambda m: call(call(name("jax", "make")), touch(m)),
    "a value that is called": lambda m: call(name("builtins", "type"), value("X"), args(), b"}"),
    "state of a dict": lambda m: call(ORDERED) + b"}" + value("__class__") + value(1) + b"sb",
    "__setstate__ of a dict": lambda m: (
        call(ORDERED) + b"}" + value("__setstate__") + NAMESPACE + b"sb"
    ),
    "state of a list": lambda m: b"]" + value({"__class__": 1}) + b"b",
    "state of a name": lambda m: ORDERED + value({"update": 1}) + b"b",
    "state of an object, twice": lambda m: NAMESPACE + value({"a": 1}) + b"b" + value({}) + b"b",
    "items of a name": lambda m: ORDERED + value("a") + value(1) + b"s",
    "data from outside": lambda m: value(("os", "system")) + b"Q",
    "a web browser": lambda m: call(name("webbrowser", "open"), value(m)),
    "logging": lambda m: call(name("logging.config", "listen"), value(1)),
    "pydoc": lambda m: call(name("pydoc", "pipepager"), value("x"), touch(m)),
    "timeit": lambda m: call(name("timeit", "timeit"), python(m)),
    "code.interact": lambda m: call(name("code", "InteractiveInterpreter")),
    "shutil": lambda m: call(name("shutil", "rmtree"), value(m)),
}


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    marker = tmp_path / "it_ran"
    (tmp_path / "tattling_module.py").write_text(f"open({str(marker)!r}, 'w')\nanything = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    return marker


def test_there_are_enough() -> None:
    assert len(ATTACKS) >= 25


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_runs(attack: str, kind: str, marker: Path, tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "file", kind, ATTACKS[attack](str(marker)))
    modules = set(sys.modules)
    with pytest.raises(EncoderError, match="cannot read"):
        read_container(path)
    assert not marker.exists()
    assert set(sys.modules) == modules


@pytest.mark.parametrize(
    "attack", ["os.system", "os.system by INST", "eval", "subprocess", "__import__", "io.open"]
)
def test_they_would_run(attack: str, marker: Path) -> None:
    pickle.loads(program(ATTACKS[attack](str(marker))))
    assert marker.exists()
    sys.modules.pop("tattling_module", None)


def test_an_inert_name_is_not_imported(marker: Path, tmp_path: Path) -> None:
    code = call(name("tattling_module", "exclude_bias_and_norm"), value(1))
    container = read_container(write_pickle(tmp_path / "file", "pickle", code))
    assert container.stubs == ("tattling_module.exclude_bias_and_norm",)
    assert container.content.args == (1,)
    assert not marker.exists() and "tattling_module" not in sys.modules


@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    with pytest.raises(EncoderError, match="TorchScript"):
        read_container(path)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_harmless_pickle_is_read(kind: str, tmp_path: Path) -> None:
    code = value({"epoch": 3, "names": ["a", None]})
    container = read_container(write_pickle(tmp_path / "file", kind, code))
    assert container == Container(
        tmp_path / "file", kind, {"epoch": 3, "names": ["a", None]}, (), {}
    )
