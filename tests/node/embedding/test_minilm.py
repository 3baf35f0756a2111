"""MiniLM through onnxruntime, where the extra `hub` is installed."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from node.embedding import minilm
from node.embedding.minilm import MiniLM, MiniLMError
from node.embedding.table import Encoder, cosine

INSTALLED = all(importlib.util.find_spec(name) for name in ("onnxruntime", minilm.MODEL_PACKAGE))
needs_model = pytest.mark.skipif(not INSTALLED, reason="NOT TESTED: the extra `hub` is not installed")


@pytest.fixture(scope="module")
def encoder() -> MiniLM:
    return MiniLM()


@needs_model
def test_same_interface_other_model(encoder: MiniLM) -> None:
    as_encoder: Encoder = encoder
    assert (as_encoder.dims, len(as_encoder.embed("a fact"))) == (384, 384)
    assert as_encoder.model == "all-minilm-l6-v2-int8-384-1"
    assert as_encoder.embed("  ") == bytes(384)


@needs_model
def test_meaning(encoder: MiniLM) -> None:
    question = encoder.embed("Which pet did she adopt?")
    assert cosine(question, encoder.embed("Ana: we took in a kitten from the shelter")) > 0.25
    assert cosine(question, encoder.embed("The compiler reports a type error")) < 0.15


@needs_model
def test_a_batch_agrees_with_single_texts(encoder: MiniLM) -> None:
    texts = ["a", "The backup runs at three in the morning.", "word " * 300, ""]
    together = encoder.vectors(texts)
    assert together.shape == (4, 384)
    for row, text in zip(together[:3], texts, strict=False):
        alone = np.frombuffer(encoder.embed(text), np.int8).astype(np.float32)
        assert row @ alone / np.linalg.norm(alone) > 0.98


@needs_model
def test_pieces_alone(encoder: MiniLM) -> None:
    vectors = encoder.pieces(list(range(1000, 1400)))
    assert vectors.shape == (400, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "MODEL_PACKAGE", "no_such_package_here")
    with pytest.raises(MiniLMError, match=r"cortex-node\[hub\]"):
        minilm.model_path()


@needs_model
def test_another_model_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "MODEL_SHA256", "0" * 64)
    with pytest.raises(MiniLMError, match="reinstall"):
        minilm.model_path()
