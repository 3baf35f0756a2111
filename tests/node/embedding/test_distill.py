"""Distillation's mathematics on small made data: no packages, no teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

scipy = pytest.importorskip("scipy", reason="NOT TESTED: the extra `distill` is not installed")

from node.embedding import distill  # noqa: E402  (needs scipy)
from node.embedding.wordpiece import WordPiece  # noqa: E402


def random_rows(count: int, dims: int, seed: int) -> distill.Floats:
    return np.random.default_rng(seed).standard_normal((count, dims)).astype(np.float32)


def test_bags_hold_shares() -> None:
    bag = distill.bags(["a b a", "", "b"], WordPiece({"[UNK]": 0, "a": 1, "b": 2}), 3)
    assert np.allclose(bag.toarray(), [[0, 2 / 3, 1 / 3], [0, 0, 0], [0, 0, 1]])


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    sums, teacher = random_rows(6, 5, 1).astype(np.float64), distill.normalised(random_rows(6, 5, 2))
    _, gradient = distill.loss(sums, teacher)  # type: ignore[arg-type]  # float64, so that differences can be taken
    for row, column in ((0, 0), (3, 2), (5, 4)):
        step = np.zeros_like(sums)
        step[row, column] = 1e-3
        up, down = distill.loss(sums + step, teacher)[0], distill.loss(sums - step, teacher)[0]  # type: ignore[arg-type]
        assert gradient[row, column] == pytest.approx((up - down) / 2e-3, rel=0.02, abs=1e-3)


def test_a_student_equal_to_its_teacher_has_no_slope() -> None:
    teacher = distill.normalised(random_rows(8, 16, 3))
    _, gradient = distill.loss(teacher * 3, teacher)
    assert np.abs(gradient).max() < 1e-5


def test_training_finds_rows_that_explain_the_teacher() -> None:
    chance = np.random.default_rng(5)
    truth = random_rows(40, 16, 4) * np.float32(0.1)
    texts = [" ".join(f"w{number}" for number in chance.integers(0, 40, 6)) for _ in range(1024)]
    bag = distill.bags(texts, WordPiece({"[UNK]": 40} | {f"w{number}": number for number in range(40)}), 41)
    wanted = distill.normalised(bag[:, :40] @ truth)
    start = random_rows(41, 16, 6) * np.float32(0.1)
    start[:40] += truth  # the pieces alone point the right way, as a teacher's do
    assert float((distill.normalised(bag @ start) * wanted).sum(axis=1).mean()) < 0.8
    rows = distill.train(bag, wanted, start, seed=7, epochs=40, batch=128)
    assert float((distill.normalised(bag @ rows) * wanted).sum(axis=1).mean()) > 0.95
    assert np.array_equal(rows, distill.train(bag, wanted, start, seed=7, epochs=40, batch=128))


def test_projection_keeps_the_widest_directions() -> None:
    vectors = random_rows(500, 8, 1) * np.array([9, 8, 7, 1, 1, 1, 1, 1], np.float32)
    projection = distill.Projection.fit(vectors, dims=3)
    kept = projection(vectors)
    assert kept.shape == (500, 3)
    assert kept.var() * 3 > 0.9 * vectors.var(axis=0).sum()


def test_bit_rotation_turns_and_brings_signs_nearer() -> None:
    vectors = distill.normalised(random_rows(2000, 16, 1) * np.linspace(3, 0.2, 16, dtype=np.float32))
    rotation = distill.bit_rotation(vectors, seed=7)
    assert np.allclose(rotation @ rotation.T, np.eye(16), atol=1e-4)
    assert np.abs(vectors @ rotation).mean() > np.abs(vectors).mean()


def test_the_teacher_is_asked_once(tmp_path: Path) -> None:
    asked: list[int] = []

    def vectors(part: object) -> distill.Floats:
        asked.append(1)
        return random_rows(len(part), 4, 1)  # type: ignore[arg-type]

    first = distill.teach("t", ["a", "b"], vectors, tmp_path)
    assert np.array_equal(first, distill.teach("t", ["a", "b"], vectors, tmp_path))
    assert (len(asked), first.shape) == (1, (2, 4))
    distill.teach("t", ["a", "c"], vectors, tmp_path)
    assert len(asked) == 2


def test_vocabulary_is_in_the_order_of_ids(tmp_path: Path) -> None:
    path = tmp_path / distill.TOKENIZER_PACKAGE / distill.TOKENIZER_FILE
    path.parent.mkdir(parents=True)
    path.write_text('{"model": {"vocab": {"b": 1, "[UNK]": 0}}}')
    assert distill.vocabulary(tmp_path) == ["[UNK]", "b"]
    path.write_text('{"model": {"vocab": {"b": 2, "[UNK]": 0}}}')
    with pytest.raises(ValueError, match="ids"):
        distill.vocabulary(tmp_path)
