"""Device and number format, the child's environment, memory figures: measured on this machine, not mocked."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lib_vitface import device
from lib_vitface.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="speaks to glibc's allocator")


@pytest.fixture
def speed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty place for measurements."""
    monkeypatch.setenv("VITFACE_CACHE", str(tmp_path / "cache"))
    device._measured.cache_clear()
    yield tmp_path / "cache" / "speed.json"
    device._measured.cache_clear()


def run(code: str, environment: dict[str, str] | None = None, *flags: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, *flags, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_auto_takes_what_is_there() -> None:
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert device.pick_device().type == expected
    assert device.pick_device("cpu") == CPU


@pytest.mark.parametrize("name", ["nonsense", "cuda:99", "meta", "", "cpu:x"])
def test_unusable_device(name: str) -> None:
    with pytest.raises(InputError) as caught:
        device.pick_device(name)
    assert repr(name) in str(caught.value) and "auto" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_measurement_is_kept_and_followed(speed_file: Path) -> None:
    chosen = device.fast_dtype(CPU)
    kept = json.loads(speed_file.read_text())
    assert len(kept) == 1
    (key, speed), *_ = kept.items()
    assert key == device._measurement_key("cpu") and torch.__version__ in key and device.cpu_name() in key
    assert speed == device.measured_gflops(CPU)
    # A 3x3 convolution runs at 0.1 to 20000 GFLOPS on anything from a small board to a large server.
    assert 0.1 < speed["float32"] < 20000
    clearly_faster = speed.get("bfloat16", 0) > 1.15 * speed["float32"]
    assert chosen == (torch.bfloat16 if clearly_faster else torch.float32)


@pytest.mark.parametrize(
    ("speed", "expected"),
    [
        ({"float32": 50.0, "bfloat16": 200.0}, torch.bfloat16),
        ({"float32": 50.0, "bfloat16": 55.0}, torch.float32),
        ({"float32": 50.0, "bfloat16": 20.0}, torch.float32),
        ({"float32": 50.0}, torch.float32),
    ],
)
def test_format_by_speed(speed_file: Path, speed: dict[str, float], expected: torch.dtype) -> None:
    speed_file.parent.mkdir()
    speed_file.write_text(json.dumps({device._measurement_key("cpu"): speed}))
    assert device.measured_gflops(CPU) == speed
    assert device.fast_dtype(CPU) == expected


@pytest.mark.parametrize("text", ["[1, 2]", '{"a": {"float32": "x"}}', "\x00"])
def test_damaged_measurements_are_made_anew(speed_file: Path, text: str) -> None:
    speed_file.parent.mkdir()
    speed_file.write_text(text)
    assert device.measured_gflops(CPU)["float32"] > 0
    assert json.loads(speed_file.read_text())


def test_unwritable_cache_costs_only_the_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VITFACE_CACHE", str(tmp_path / "file" / "below"))
    device._measured.cache_clear()
    assert device.fast_dtype(CPU) in {torch.float32, torch.bfloat16}
    device._measured.cache_clear()


def test_measuring_leaves_the_random_state_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    device._measure(CPU)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast(dtype: torch.dtype) -> None:
    weight, value = torch.ones(4, 4), torch.ones(4, 4)
    with device.autocast(CPU, dtype):
        assert (weight @ value).dtype == dtype
    assert (weight @ value).dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_format_on_cuda() -> None:
    major = torch.cuda.get_device_capability()[0]
    assert device.fast_dtype(torch.device("cuda")) == (torch.bfloat16 if major >= 8 else torch.float16)


def test_child_finds_the_package_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "own"))
    said = run(
        "import lib_vitface, sys; print(lib_vitface.__file__, sys.path, sys.dont_write_bytecode)",
        device.child_environment(),
        cwd=tmp_path,
    )
    assert said.startswith(str(ROOT / "lib_vitface")) and str(tmp_path / "own") in said and said.endswith("False")


def test_child_keeps_what_the_person_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("MALLOC_TOP_PAD_", "4096")
    child = device.child_environment()
    assert child["OMP_NUM_THREADS"] == "3" and child["MALLOC_TOP_PAD_"] == "4096"
    assert "MALLOC_MMAP_MAX_" not in os.environ, "the own process's environment is not touched"


@GLIBC
def test_child_allocates_large_tensors_without_page_faults() -> None:
    """Twenty times 64 MiB taken, filled and freed: by default every page is faulted in again each time."""
    code = (
        "import numpy as np, resource\n"
        "for _ in range(20): np.ones(1 << 23)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt * resource.getpagesize())"
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    # numpy asks for huge pages itself, which hides the cost that torch's allocations have
    plain["NUMPY_MADVISE_HUGEPAGE"] = "0"
    tuned = {**plain, **{k: v for k, v in device.child_environment().items() if k.startswith("MALLOC_")}}
    assert int(run(code, plain)) > 20 * (1 << 26) * 0.9
    assert int(run(code, tuned)) < 5 * (1 << 26)


@LINUX
def test_cores_follow_affinity() -> None:
    code = (
        "import os; from lib_vitface import device; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "print(device.usable_cores(), device.child_environment().get('OMP_NUM_THREADS'))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    cores, threads = run(code, environment).split()
    assert cores == "1"
    assert threads == ("1" if (os.cpu_count() or 1) > 1 else "None")
    assert 1 <= device.usable_cores() <= (os.cpu_count() or 1)


@LINUX
def test_memory_total_agrees_with_the_system() -> None:
    total, available = device.memory_bytes()
    assert total is not None and available is not None
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < available <= total <= whole * 1.01


@LINUX
def test_peak_memory_sees_what_was_freed() -> None:
    large = 200_000_000
    with device.PeakMemory() as idle:
        start = device.rss_bytes()
    with device.PeakMemory() as busy:
        block = np.ones(large, np.uint8)
        assert device.rss_bytes() - start > 0.95 * large
        del block
    assert device.rss_bytes() - start < 0.5 * large
    assert busy.peak_bytes - start > 0.95 * large
    with device.PeakMemory() as after:
        pass
    assert after.peak_bytes - idle.peak_bytes < 0.5 * large, "an earlier peak is not counted"


@GLIBC
def test_release_memory_gives_pages_back() -> None:
    """Blocks below the mapping threshold stay in the heap while one above them is in use."""
    code = (
        "import torch; from lib_vitface import device\n"
        "blocks = [bytes(60_000) for _ in range(3000)]; last = bytes(60_000); del blocks\n"
        "before = device.rss_bytes(); device.release_memory(torch.device('cpu')); print(before - device.rss_bytes())"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    assert int(run(code, environment)) > 100_000_000


def test_describe_is_json_and_true(speed_file: Path) -> None:
    facts = device.describe(CPU)
    read = json.loads(json.dumps(dataclasses.asdict(facts)))
    assert read["python"] == ".".join(map(str, sys.version_info[:3]))
    assert read["torch"] == torch.__version__
    assert read["device"] == "cpu" and read["dtype"] == str(device.fast_dtype(CPU)).removeprefix("torch.")
    assert read["gflops"]["float32"] > 0 and read["cpu"] and read["cores"] == device.usable_cores()
    assert len(read["accelerators"]) == torch.cuda.device_count() + int(torch.backends.mps.is_available())


@pytest.mark.parametrize(("free_gib", "expected"), [(24, "plenty"), (5, "tight"), (4, "parts")])
def test_a_pipeline_is_placed_by_what_is_free(monkeypatch: pytest.MonkeyPatch, free_gib: int, expected: str) -> None:
    """Weights of 4 GiB. A processor has nowhere else to put them."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free_gib << 30, 24 << 30))
    assert device.room_for(torch.device("cuda"), 4 << 30) == expected
    monkeypatch.setattr(device, "memory_bytes", lambda: (64 << 30, free_gib << 30))
    assert device.room_for(CPU, 4 << 30) == ("plenty" if expected == "plenty" else "tight")


@LINUX
def test_processor_flags_agree_with_torch() -> None:
    """Torch asks the processor, this project the kernel's list."""
    if not hasattr(torch.cpu, "_is_avx512_bf16_supported"):
        pytest.skip("this torch does not tell")
    assert device.has_avx512_bf16() == torch.cpu._is_avx512_bf16_supported()


def test_describe_without_torch() -> None:
    """`-S` leaves site-packages out: what a person has who did not install anything yet."""
    said = run(
        "import json, dataclasses; from lib_vitface import device; "
        "print(json.dumps(dataclasses.asdict(device.describe())))",
        {"PATH": os.environ["PATH"]},
        "-S",
    )
    facts = json.loads(said)
    assert facts["torch"] is None and facts["device"] is None and facts["gflops"] == {}
    assert facts["cpu"] == device.cpu_name()


def test_importing_is_light() -> None:
    said = run(
        "import sys; from lib_vitface import device, assets; print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    assert said == "False False"


def test_providers_of_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best first, the processor last; what the installed build lacks is said."""
    from types import SimpleNamespace

    ready = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(get_available_providers=lambda: ready))
    assert device.onnx_providers("auto") == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert device.onnx_providers("cpu") == ["CPUExecutionProvider"]
    assert device.onnx_providers("cuda:1") == [("CUDAExecutionProvider", {"device_id": 1}), "CPUExecutionProvider"]
    with pytest.raises(InputError, match="'mps' cannot be used"):
        device.onnx_providers("mps")


@pytest.mark.parametrize(("amx", "number_format"), [(True, "bf16"), (False, "f32")])
def test_openvino_inside_of_onnx_runtime(monkeypatch: pytest.MonkeyPatch, amx: bool, number_format: str) -> None:
    """It goes first where exactness was not asked for, in the processor's quick number format."""
    from types import SimpleNamespace

    ready = ["OpenVINOExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(get_available_providers=lambda: ready))
    monkeypatch.setattr(device, "has_amx", lambda: amx)
    monkeypatch.setattr(device, "has_avx512_bf16", lambda: False)
    assert device.onnx_providers("cpu") == ["CPUExecutionProvider"]
    (name, settings), last = device.onnx_providers("cpu", exact=False)
    assert (name, last) == ("OpenVINOExecutionProvider", "CPUExecutionProvider")
    assert json.loads(settings["load_config"])["CPU"]["INFERENCE_PRECISION_HINT"] == number_format


def test_threads_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert device.threads() == 3
    for odd in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", odd)
        assert device.threads() == device.usable_cores()


def test_packages_made_for_cuda_get_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, wanted in (("cuda", "cuda"), ("mps", "cpu"), ("cpu", "cpu")):
        monkeypatch.setattr(
            device, "pick_device", lambda name="auto", best=found: torch.device(name.replace("auto", best))
        )
        assert str(device.nvidia_or_cpu()) == wanted
