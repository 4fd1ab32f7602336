"""Every way to run an encoder faster, against the same module in float64."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from small_networks import SMALL, TokenMean, resnet18, small_encoder
from torch import Tensor, nn

from qscore_fast.encoders import Encoder, fingerprint_of_module
from qscore_fast.encoders.inference import CompiledModule
from qscore_fast.errors import EncoderError, SettingsError
from qscore_fast.images import IMAGENET

# Largest error of a feature, as a share of the largest feature: a few roundings of 2^-24, 2^-9, 2^-12.
TOLERANCE = {
    "float32": 1e-5,
    "bfloat16": 3e-2,
    "bfloat16-autocast": 3e-2,
    "float16": 4e-3,
    "float16-autocast": 4e-3,
}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def expected(images: Tensor) -> Tensor:
    with torch.no_grad():
        return resnet18().double()(images.double())


def error_of(h: Tensor, expected: Tensor) -> float:
    return ((h.double() - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("together", [False, True], ids=["alone", "folded-channels-last"])
@pytest.mark.parametrize("precision", TOLERANCE)
def test_against_float64(precision: str, together: bool, images: Tensor, expected: Tensor) -> None:
    encoder = small_encoder()
    before = copy.deepcopy(encoder.module.state_dict())
    fast = encoder.optimised(precision, channels_last=together, fold_batch_norm=together)  # type: ignore[arg-type]
    h = fast(images)
    assert h.dtype == torch.float32
    error = error_of(h, expected)
    assert error < TOLERANCE[precision]
    if precision != "float32":
        assert error > TOLERANCE["float32"]  # it does compute at that precision
    assert fast.precision == precision + "+folded+channels-last" * together
    assert (fast.fingerprint, fast.num_features) == (encoder.fingerprint, 512)
    assert encoder.precision == "float32"
    for name, value in encoder.module.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.is_contiguous()


def test_folded_has_fewer_layers_and_equal_features(images: Tensor) -> None:
    encoder = small_encoder()
    folded = encoder.optimised(fold_batch_norm=True)
    h = encoder(images)
    torch.testing.assert_close(folded(images), h, rtol=1e-5, atol=1e-5)
    count = [
        sum(isinstance(layer, nn.BatchNorm2d) for layer in e.module.modules())
        for e in (encoder, folded)
    ]
    assert count == [20, 0]


def test_what_has_no_effect_is_said() -> None:
    encoder = small_encoder(TokenMean())
    fast = encoder.optimised(channels_last=True, fold_batch_norm=True)
    assert fast.precision == "float32"
    assert fast.notes == (
        "channels-last has no effect: there is no convolution",
        "there is no batch norm to fold",
    )
    assert encoder.notes == ()


def test_nothing_asked_is_the_same_module() -> None:
    encoder = small_encoder(TokenMean())
    assert encoder.optimised().module is encoder.module


def test_float16_overflow_is_not_finite_and_not_an_error() -> None:
    module = TokenMean()
    with torch.no_grad():
        module.out.weight.fill_(1e5)
    h = small_encoder(module).optimised("float16")(torch.randn(2, 3, 32, 32))
    assert not h.isfinite().any()


def test_errors() -> None:
    encoder = small_encoder(TokenMean())
    with pytest.raises(SettingsError, match="precision must be one of float32, .*got 'int8'"):
        encoder.optimised("int8")  # type: ignore[arg-type]
    with pytest.raises(EncoderError, match="already runs as bfloat16"):
        encoder.optimised("bfloat16").optimised()

    class Float32Inside(TokenMean):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images.float())

    with pytest.raises(
        EncoderError, match="small cannot run in bfloat16 on cpu: .*other precision"
    ):
        small_encoder(Float32Inside()).optimised("bfloat16")

    class Uncopyable(TokenMean):
        def __deepcopy__(self, memo: object) -> None:
            raise TypeError("no copies")

    with pytest.raises(EncoderError, match="small cannot be copied.*no copies"):
        small_encoder(Uncopyable()).optimised("bfloat16")
    assert small_encoder(Uncopyable()).optimised("bfloat16-autocast").num_features == 6


def test_other_preprocessing_is_tried_out() -> None:
    class Fixed(TokenMean):
        def forward(self, images: Tensor) -> Tensor:
            assert images.shape[2:] == (32, 32), "only 32 x 32"
            return super().forward(images)

    encoder = small_encoder(Fixed())
    with pytest.raises(EncoderError, match=r"small fails on one image .*224.*only 32 x 32"):
        encoder.with_preprocess(IMAGENET)
    changed = encoder.with_preprocess(SMALL.changed(mean=(0, 0, 0)))
    assert changed.preprocess.mean == (0, 0, 0)
    assert changed.fingerprint == encoder.fingerprint


class Compiler:
    """Stands in for torch.compile: counts its graphs by the shapes that dynamo lets pass."""

    def __init__(self, failure: str = "") -> None:
        self.graphs = 0
        self.failure = failure

    def __call__(self, graph: torch.fx.GraphModule, inputs: object) -> object:
        self.graphs += 1
        if self.failure:
            raise RuntimeError(self.failure)
        return graph.forward


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Compiler:
    """The backend of torch.compile, which needs no C++ compiler."""
    backend = Compiler(getattr(request, "param", ""))
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: real(module, backend=backend))
    return backend


def test_compiled_once_for_all_batch_sizes(
    compiler: Compiler, images: Tensor, expected: Tensor
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = small_encoder().optimised(compile=True, fold_batch_norm=True)
        assert fast.precision == "float32+folded+compiled"
        for batch in (5, 3, 1, 4):
            assert error_of(fast(images[:batch]), expected[:batch]) < 1e-5
    assert compiler.graphs == 1


@pytest.mark.parametrize("compiler", ["no compiler here\nmore"], indirect=True)
def test_a_compiler_that_fails_is_one_warning(
    compiler: Compiler, images: Tensor, expected: Tensor
) -> None:
    with pytest.warns(RuntimeWarning, match="small: torch.compile failed.*eagerly") as caught:
        fast = small_encoder().optimised(compile=True)
        for batch in (5, 2):
            assert error_of(fast(images[:batch]), expected[:batch]) < 1e-5
    assert len(caught) == 1
    assert fast.precision == "float32"
    assert "no compiler here" in fast.notes[0]


def test_a_later_failure_is_one_warning_too(monkeypatch: pytest.MonkeyPatch) -> None:
    module = TokenMean().eval()
    compiled = CompiledModule(module, "small")

    def breaks(images: Tensor) -> Tensor:
        raise RuntimeError("unsupported")

    monkeypatch.setattr(torch, "compile", lambda _: breaks)
    images = torch.randn(2, 3, 8, 8)
    with pytest.warns(RuntimeWarning, match="unsupported") as caught:
        assert torch.equal(compiled(images), module(images))
        assert torch.equal(compiled(images), module(images))
    assert len(caught) == 1


def test_the_modules_own_error_is_not_the_compilers() -> None:
    compiled = CompiledModule(TokenMean().eval(), "small")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            compiled(torch.randn(2, 5, 8, 8))
    assert compiled.failure is None


def test_the_fingerprint_is_of_the_original_weights() -> None:
    module = resnet18()
    encoder = Encoder(module, SMALL, fingerprint=fingerprint_of_module(module, "resnet18"))
    assert encoder.optimised("bfloat16").fingerprint == encoder.fingerprint
