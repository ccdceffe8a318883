"""Morphable models that the user has as a file: Basel Face Model (2009 .mat; 2017 and 2019 .h5) and FLAME (.pkl or .npz).

None of them may be shipped. Their vertices are brought onto the 468 points of the face mesh: a similarity that is refined with the
nearest vertices in turn (iterative closest points, Besl and McKay 1992), beginning at the tip of the nose; all these models look
along +z with y up, as the canonical mesh does, and their units are known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from scipy.spatial import cKDTree

from lib_vitface.errors import InputError, MissingDependencyError
from lib_vitface.faces import align, mesh
from lib_vitface.faceset import pickle_values
from lib_vitface.faceset.morphable import EXPRESSIONS, SHAPES, Morphable

_FLAME_SHAPES = 300  # of FLAME's axes; what follows are expressions
_ROUNDS = 40
_SCALES = (0.7, 1.4)  # heads differ, but not more
_FAR_CM = 1.5  # mean distance of the mesh's points to a model from which it is no face, or lies otherwise


class Basis(NamedTuple):
    """A model as its file has it: `mean` [V, 3], axes [K, V, 3] for one standard deviation; `to_cm` turns its unit into cm."""

    mean: NDArray[np.float64]
    shape: NDArray[np.float64]
    expression: NDArray[np.float64]
    to_cm: float


def read_model(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None]:
    """Mean `[468, 3]`, shape axes `[SHAPES, 468, 3]` and expression axes `[EXPRESSIONS, 468, 3]` (None where the file has none), in cm
    and canonical axes. Raises `InputError` where the file is none of these models, `MissingDependencyError` for .h5 without h5py."""
    basis = read_basis(path)
    mean = basis.mean * basis.to_cm
    index, scale, rotation, shift = _register(mean, path)
    turn = rotation.T * (basis.to_cm / scale)
    placed = (mean[index] - shift) @ rotation / scale
    shape, expression = (
        _padded(axes[:, index] @ turn.T, count)
        for axes, count in ((basis.shape, SHAPES), (basis.expression, EXPRESSIONS))
    )
    return placed.astype(np.float32), shape, expression if len(basis.expression) else None


def with_file(built: Morphable, path: Path) -> Morphable:
    """The built face with mean and axes of a file, as far as that has them."""
    mean, shape, expression = read_model(path)
    return Morphable(mean, shape, built.expression if expression is None else expression)


def read_basis(path: Path) -> Basis:
    """The model of a file, by its suffix."""
    readers = {".mat": _basel_2009, ".h5": _basel_2017, ".hdf5": _basel_2017, ".pkl": _flame, ".npz": _flame}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{path}: is no morphable model this version reads; give BFM as .mat or .h5, FLAME as .pkl or .npz."
        )
    try:
        return reader(path)
    except (KeyError, OSError, ValueError, TypeError, MatReadError) as error:
        raise InputError(
            f"{path}: is no {path.suffix} of the Basel Face Model or FLAME ({error}); get it anew."
        ) from None


def _axes(flat: Any, deviations: Any) -> NDArray[np.float64]:
    """Axes `[K, V, 3]` of columns `[3 V, K]` and their standard deviations `[K]`."""
    scaled = np.asarray(flat, np.float64) * np.asarray(deviations, np.float64).reshape(1, -1)
    return scaled.T.reshape(scaled.shape[1], -1, 3)


def _basel_2009(path: Path) -> Basis:
    """Paysan et al. 2009: micrometres; `shapeEV` are standard deviations. There are no expressions."""
    values = loadmat(path, variable_names=("shapeMU", "shapePC", "shapeEV"))
    mean = np.asarray(values["shapeMU"], np.float64).reshape(-1, 3)
    return Basis(mean, _axes(values["shapePC"], values["shapeEV"]), np.zeros((0, len(mean), 3)), 1e-4)


def _basel_2017(path: Path) -> Basis:
    """Gerig et al. 2018 (2017, 2019), as statismo writes it: millimetres, variances; the mean is that of shape and expression."""
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError(f"{path}: reading .h5 needs the package h5py: pip install h5py") from error
    with h5py.File(path, "r") as file:
        parts = {name: file[name]["model"] for name in ("shape", "expression")}
        mean = sum(np.asarray(part["mean"], np.float64).reshape(-1, 3) for part in parts.values())
        shape, expression = (_axes(p["pcaBasis"], np.sqrt(np.asarray(p["pcaVariance"]))) for p in parts.values())
    return Basis(np.asarray(mean), shape, expression, 0.1)


def _flame(path: Path) -> Basis:
    """Li et al. 2017: metres; axes for one standard deviation, shapes first. A .pkl is read without running what is in it."""
    if path.suffix.lower() == ".npz":
        with np.load(path, allow_pickle=False) as file:
            values: Any = {name: file[name] for name in ("v_template", "shapedirs")}
    else:
        values = pickle_values.read(path.read_bytes(), str(path), foreign=True)
    mean, axes = (np.asarray(_plain(values[name]), np.float64) for name in ("v_template", "shapedirs"))
    axes = axes.transpose(2, 0, 1)
    return Basis(mean.reshape(-1, 3), axes[:_FLAME_SHAPES], axes[_FLAME_SHAPES:], 100.0)


def _plain(value: Any) -> Any:
    """An array, also where chumpy was wrapped around it."""
    if isinstance(value, pickle_values.Foreign):
        if not isinstance(value.state, dict) or "x" not in value.state:
            raise ValueError(f"an object of {value.path}")
        return value.state["x"]
    return value


def _register(
    vertices: NDArray[np.float64], path: Path
) -> tuple[NDArray[np.intp], float, NDArray[np.float64], NDArray[np.float64]]:
    """The vertices `[468]` nearest to the mesh's points, and the similarity from the canonical mesh to the model."""
    points = mesh.vertices().astype(np.float64)
    tree = cKDTree(vertices)
    scale, rotation = 1.0, np.eye(3)
    shift = vertices[vertices[:, 2].argmax()] - points[points[:, 2].argmax()]
    index = np.zeros(len(points), np.intp)
    for _ in range(_ROUNDS):
        distance, found = tree.query(scale * points @ rotation.T + shift)
        if np.array_equal(found, index):
            break
        index = np.asarray(found)
        scale, rotation, shift = align.similarity(points, vertices[index])
    if float(np.mean(distance)) > _FAR_CM or not _SCALES[0] < scale < _SCALES[1]:
        raise InputError(
            f"{path}: its face does not lie on the mesh ({np.mean(distance):.1f} cm off at {scale:.2f} times its size); it is of "
            "another kind."
        )
    return index, scale, rotation, shift


def _padded(axes: NDArray[np.float64], count: int) -> NDArray[np.float32]:
    """The first `count` axes; where there are fewer, the rest is zero and does nothing."""
    found = np.zeros((count, *axes.shape[1:]), np.float32)
    found[: min(count, len(axes))] = axes[:count]
    return found
