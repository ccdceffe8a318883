"""Hidden patches and guided regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lib_vitface.models.config import EncoderConfig
from lib_vitface.models.encoder import ViTEncoder
from lib_vitface.options import build
from lib_vitface.training.masking import apply_guided, guide, guided_regions, patch_mask
from lib_vitface.training.settings import TrainOptions
from lib_vitface.types import Batch

SIDE = 8


def attention_at(row: int, column: int, count: int) -> np.ndarray:
    values = np.full((count, SIDE, SIDE), 1e-4)
    values[:, row : row + 2, column : column + 2] = 0.2
    return values


@pytest.mark.parametrize("pattern", ["random", "block", "attention"])
def test_the_asked_share_is_hidden_in_half_of_the_pictures(pattern: str) -> None:
    masks = patch_mask(np.random.default_rng(0), 400, SIDE, 0.25, pattern, attention_at(2, 3, 400))
    hidden = masks.sum(axis=1)
    assert set(hidden.tolist()) == {0, 16} and 150 < (hidden > 0).sum() < 250
    again = patch_mask(np.random.default_rng(0), 400, SIDE, 0.25, pattern, attention_at(2, 3, 400))
    np.testing.assert_array_equal(masks, again)


def test_patterns_are_what_they_are_called() -> None:
    def beside(masks: np.ndarray) -> float:
        """Share of the hidden patches whose right neighbour is hidden, too."""
        grid = masks.reshape(-1, SIDE, SIDE)
        return float((grid[:, :, :-1] & grid[:, :, 1:]).sum() / grid[:, :, :-1].sum())

    masks = {p: patch_mask(np.random.default_rng(1), 300, SIDE, 0.25, p, attention_at(5, 1, 300)) for p in
             ("random", "block", "attention")}  # fmt: skip
    assert beside(masks["block"]) > 1.6 * beside(masks["random"])
    chosen = masks["attention"][masks["attention"].any(axis=1)].reshape(-1, SIDE, SIDE)
    assert chosen[:, 5:7, 1:3].mean() > 0.95 and chosen.mean() == 0.25


def test_regions_are_drawn_by_attention_eyes_and_mouth_first() -> None:
    torch.manual_seed(0)
    attention = torch.from_numpy(attention_at(2, 2, 200)).float()
    attention += torch.from_numpy(attention_at(6, 6, 200)).float()
    points = torch.full((200, 4, 2), 24.0)  # at the first of the two places
    hide, emphasise = guided_regions(np.random.default_rng(0), attention, points, 64, 0.8)
    assert not (hide * emphasise).any()
    chosen = (hide + emphasise).flatten(1).amax(dim=1) > 0.5
    assert 130 < int(chosen.sum()) < 185 and 40 < int((emphasise.flatten(1).amax(dim=1) > 0.5).sum()) < 110
    middle = (hide + emphasise)[chosen].flatten(1).argmax(dim=1)
    near_first = ((middle % 64 - 24).abs() < 12) & ((middle // 64 - 24).abs() < 12)
    near_second = ((middle % 64 - 56).abs() < 12) & ((middle // 64 - 56).abs() < 12)
    assert near_first.float().mean() > 0.6 > near_second.float().mean()


def test_hidden_regions_are_blurred_and_emphasised_ones_count_more() -> None:
    image = torch.rand(2, 3, 64, 64)
    hide, emphasise = torch.zeros(2, 1, 64, 64), torch.zeros(2, 1, 64, 64)
    hide[0, :, 10:30, 10:30] = emphasise[1, :, 5:9] = 1
    changed, counts = apply_guided(image, hide, emphasise)
    assert torch.equal(changed[1], image[1]) and torch.equal(changed[0, :, 31:], image[0, :, 31:])
    assert changed[0, :, 12:28, 12:28].std() < 0.5 * image[0, :, 12:28, 12:28].std()
    assert (counts[0] == 1).all() and set(counts[1].unique().tolist()) == {1.0, 3.0}


def test_all_frames_of_a_clip_are_guided_alike(tmp_path: Path) -> None:
    options = build(
        TrainOptions,
        {"source": tmp_path, "target": tmp_path, "model": tmp_path, "attention_guided": 1.0, "mask_patches": 0.25,
         "mask_pattern": "attention"},
    )  # fmt: skip
    encoder = ViTEncoder(EncoderConfig(32, 8, 32, 1, 2))
    still = torch.rand(6, 1, 3, 32, 32).expand(-1, 3, -1, -1, -1)
    batch = Batch(still, still, still[:, :, :1], still, still[:, :, :2], torch.zeros(6, dtype=torch.int64))
    points = torch.full((18, 4, 2), 16.0)
    guided, emphasis = guide(batch, points, encoder, options, np.random.default_rng(0))
    assert emphasis is not None and emphasis.shape == (18, 1, 32, 32) and guided.masked is not None
    assert torch.equal(guided.image, guided.image[:, :1].expand_as(guided.image))
    assert torch.equal(guided.masked, guided.masked[:, :1].expand_as(guided.masked)) and guided.masked.any()
    assert not torch.equal(guided.image, batch.image) or (emphasis > 1).any()
    assert torch.equal(guided.reference, batch.reference)
