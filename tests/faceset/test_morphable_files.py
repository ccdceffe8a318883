"""Small files of the true formats: the canonical mesh, finer, elsewhere and in the format's unit, with known axes."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from scipy.io import savemat

from lib_vitface.errors import InputError, MissingDependencyError
from lib_vitface.faces import mesh
from lib_vitface.faceset.morphable import EXPRESSIONS, SHAPES, Morphable
from lib_vitface.faceset.morphable_files import read_basis, read_model, with_file
from lib_vitface.faceset.texture import Expression

SHIFT_CM = np.array([1.0, 2.0, -3.0])


def finer(field: np.ndarray) -> np.ndarray:
    """Values of the mesh's points, then of the middles of its edges."""
    edges = np.unique(
        np.sort(np.concatenate([mesh.triangles()[:, p] for p in ([0, 1], [1, 2], [2, 0])]), axis=1), axis=0
    )
    return np.concatenate([field, field[edges].mean(axis=1)])


def known() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean in cm and smooth axes, three for shape and two for expression, over the finer mesh."""
    points = mesh.vertices().astype(np.float64)
    fields = [
        np.stack([np.sin(points[:, k % 3] * 0.3 + k), np.cos(points[:, 1] * 0.2 * k), 0.1 * points[:, 0]], axis=1)
        for k in range(5)
    ]
    axes = np.stack([finer(f) for f in fields]) * 0.2
    return finer(points) + SHIFT_CM, axes[:3], axes[3:]


def basel_2009(path: Path) -> None:
    mean, shape, _ = known()
    deviations = np.array([3.0, 2.0, 0.5])
    flat = shape.reshape(3, -1).T * 1e4 / deviations
    savemat(
        path,
        {
            "shapeMU": (mean * 1e4).reshape(-1, 1),
            "shapePC": flat,
            "shapeEV": deviations[:, None],
            "tl": mesh.triangles() + 1,
        },
    )


def basel_2017(path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    mean, shape, expression = known()
    with h5py.File(path, "w") as file:
        for name, axes, centre in (("shape", shape, mean * 10), ("expression", expression, np.zeros_like(mean))):
            deviations = np.arange(1, len(axes) + 1) * 1.5
            file[f"{name}/model/mean"] = centre.ravel()
            file[f"{name}/model/pcaBasis"] = axes.reshape(len(axes), -1).T * 10 / deviations
            file[f"{name}/model/pcaVariance"] = deviations**2


def flame_values() -> dict[str, object]:
    mean, shape, expression = known()
    axes = np.zeros((len(mean), 3, 302))
    axes[..., :3], axes[..., 300:] = shape.transpose(1, 2, 0) / 100, expression.transpose(1, 2, 0) / 100
    return {"v_template": mean / 100, "shapedirs": axes, "f": mesh.triangles()}


class Ch:
    """As chumpy's: an array in its state."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x


def flame_pickle(path: Path) -> None:
    """As the published ones: chumpy around the axes, a sparse joint regressor, protocol 2."""
    values = flame_values()
    values |= {"shapedirs": Ch(values["shapedirs"]), "J_regressor": sparse.csc_matrix(np.eye(3))}  # type: ignore[arg-type]
    file = io.BytesIO()
    pickle.Pickler(file, protocol=2).dump(values)
    path.write_bytes(file.getvalue())


WRITERS = {
    "a.mat": basel_2009, "a.h5": basel_2017, "a.pkl": flame_pickle,
    "a.npz": lambda path: np.savez(path, **flame_values()),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_a_model_comes_onto_the_mesh_in_cm(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    basis = read_basis(tmp_path / name)
    _, wanted_shape, wanted_expression = known()
    np.testing.assert_allclose(basis.shape[:3] * basis.to_cm, wanted_shape, atol=1e-5)
    mean, shape, expression = read_model(tmp_path / name)
    np.testing.assert_allclose(mean, mesh.vertices(), atol=1e-3)
    assert shape.shape == (SHAPES, 468, 3) and (shape[3:] == 0).all()
    np.testing.assert_allclose(shape[:3], wanted_shape[:, :468], atol=1e-3)
    if name == "a.mat":
        assert expression is None
    else:
        assert expression is not None and expression.shape == (EXPRESSIONS, 468, 3)
        np.testing.assert_allclose(expression[:2], wanted_expression[:, :468], atol=1e-3)


def test_what_a_file_lacks_is_built(tmp_path: Path) -> None:
    basel_2009(tmp_path / "a.mat")
    frames = [Expression(mesh.vertices() + k * 0.1, np.zeros(2, np.float32)) for k in range(4)]
    built = Morphable.build([(frames, mesh.vertices())])
    mixed = with_file(built, tmp_path / "a.mat")
    np.testing.assert_array_equal(mixed.expression, built.expression)
    assert not np.array_equal(mixed.shape, built.shape)


def test_what_is_no_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.mat", "b.pkl", "b.npz"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            read_model(tmp_path / name)
    with pytest.raises(InputError, match="no morphable model"):
        read_model(tmp_path / "b.obj")
    savemat(
        tmp_path / "far.mat",
        {"shapeMU": np.random.default_rng(0).normal(0, 1e6, (900, 1)), "shapePC": np.zeros((900, 1)), "shapeEV": [[1]]},
    )
    with pytest.raises(InputError, match="does not lie on the mesh"):
        read_model(tmp_path / "far.mat")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match="pip install h5py"):
        read_model(tmp_path / "b.h5")
