"""Which device to compute on, in which number format, and what this machine is. torch is imported late."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_vitface.errors import InputError

if TYPE_CHECKING:
    import torch

# bfloat16 keeps 8 bits of precision; it has to be clearly faster to be worth that.
WORTH_IT = 1.15
_MEASURE_S = 1.0


@dataclass(frozen=True)
class Accelerator:
    """A graphics processor. Memory in bytes; `free` is what it says now; None where it does not tell."""

    name: str
    total: int | None
    free: int | None


@dataclass(frozen=True)
class DeviceFacts:
    """What `doctor` shows of a machine; `dataclasses.asdict` of it is JSON-ready.

    Versions are None where a package is missing. Memory in bytes, None where unknown. `gflops` is the measured speed
    of a convolution, forward and backward, by number format, in 1e9 operations a second; empty without torch.
    """

    python: str
    system: str
    torch: str | None
    transformers: str | None
    cpu: str
    cores: int
    memory_total: int | None
    memory_available: int | None
    amx: bool
    avx512_bf16: bool
    device: str | None
    dtype: str | None
    accelerators: tuple[Accelerator, ...] = ()
    gflops: dict[str, float] = field(default_factory=dict)


def pick_device(name: str = "auto") -> torch.device:
    """The torch device of a name such as `cpu`, `cuda`, `cuda:1` or `mps`; `auto` takes the best that works.

    Raises `InputError` for a name torch does not know or a device that is not there.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split("\n")[0].split(". ")[0] or type(error).__name__
        raise InputError(f"Device {name!r} cannot be used ({reason}); use 'auto' or 'cpu'.") from None
    return device


def device_of_process(name: str = "auto") -> torch.device:
    """As `pick_device`; of several processes on one machine (`LOCAL_RANK` says which one this is) each takes a graphics card of its
    own. Raises `InputError` where there are too few."""
    import torch

    device, own = pick_device(name), int(os.environ.get("LOCAL_RANK", "0"))
    if device.type != "cuda" or device.index is not None or own == 0:
        return device
    if own >= torch.cuda.device_count():
        raise InputError(
            f"There are {torch.cuda.device_count()} graphics cards here; start no more processes than that."
        )
    return torch.device("cuda", own)


def nvidia_or_cpu() -> torch.device:
    """For outside packages that were made for CUDA and the processor only."""
    best = pick_device()
    return best if best.type == "cuda" else pick_device("cpu")


def fast_dtype(device: torch.device) -> torch.dtype:
    """The number format for training and running on a device: the fastest that does no harm.

    CUDA: bfloat16 where the hardware has it (older cards only emulate it), else float16, which needs a
    `torch.amp.GradScaler` in training. Elsewhere bfloat16 against float32 is measured, about a second, once per
    machine and torch version, because it depends on the processor which one is faster, and by a large factor.
    """
    import torch

    if device.type == "cuda":
        # `is_bf16_supported` says yes to emulation too, which is slower than float32.
        real = torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8
        return torch.bfloat16 if real else torch.float16
    speed = measured_gflops(device)
    faster = speed.get("bfloat16", 0.0) > WORTH_IT * speed["float32"]
    return torch.bfloat16 if faster else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Mixed precision in `dtype`; does nothing for float32."""
    import torch

    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Float32 within mixed precision."""
    import torch

    try:
        return torch.autocast(device.type, enabled=False)
    except RuntimeError:  # a device this torch has no autocast for (mps before 2.5): nothing to switch off
        return nullcontext()


def product_dtype(tensor: torch.Tensor) -> torch.dtype:
    """The number format that matrix products of a tensor are worked out in here: autocast's where that is on."""
    import torch

    one = tensor.new_empty(1, 1)
    return torch.mm(one, one).dtype  # how to ask autocast has another name in each torch; what it does has not


def gradient_scaler(device: torch.device, dtype: torch.dtype) -> torch.cuda.amp.GradScaler:
    """Loss scaling that float16 gradients need (Micikevicius et al. 2018, arXiv:1710.03740); does nothing for other formats."""
    import torch

    needed = dtype == torch.float16 and device.type == "cuda"
    if hasattr(torch.amp, "GradScaler"):  # from torch 2.3 on
        return torch.amp.GradScaler(device.type, enabled=needed)  # type: ignore[return-value,unused-ignore]
    return torch.cuda.amp.GradScaler(enabled=needed)


def measured_gflops(device: torch.device) -> dict[str, float]:
    """Speed by number format (`float32`, and `bfloat16` where it runs), in GFLOPS; from the cache where known."""
    return dict(_measured(str(device)))


@functools.lru_cache(maxsize=8)
def _measured(device_name: str) -> dict[str, float]:
    import torch

    file = _measurements_file()
    key = _measurement_key(device_name)
    known = _read_measurements(file)
    if key not in known:
        known[key] = _measure(torch.device(device_name))
        _write_measurements(file, known)
    return known[key]


def _measurement_key(device_name: str) -> str:
    """What a measurement depends on. Cloud machines of one processor name differ in what they are allowed to use."""
    import torch

    flags = f"amx={has_amx()} avx512_bf16={has_avx512_bf16()}"
    return " | ".join([device_name, cpu_name(), flags, f"torch {torch.__version__}"])


def _measurements_file() -> Path:
    """Beside the person's other caches: these are facts of the machine, and a checkout may be shared by several."""
    folder = os.environ.get("VITFACE_CACHE")
    return (Path(folder).expanduser() if folder else Path.home() / ".cache" / "vitface") / "speed.json"


def _read_measurements(file: Path) -> dict[str, dict[str, float]]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {str(k): {str(d): float(v) for d, v in e.items()} for k, e in found.items() if e.get("float32")}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write_measurements(file: Path, known: dict[str, dict[str, float]]) -> None:
    """Keeps the figures; where the folder cannot be written they are measured again next time."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".speed.", dir=file.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump(known, out, indent=1)
        Path(name).replace(file)
    except OSError:
        return


def _measure(device: torch.device) -> dict[str, float]:
    """Speed of a 3x3 convolution with gradients, channels last: the best of many short runs.

    The formats take turns and the best run counts, because a neighbour's load only ever adds time. Draws nothing
    from torch's global random state: a resumed run must not depend on whether the measurement was cached.
    """
    import torch
    from torch.nn import functional

    batch, channels, side = 2, 64, 64
    operations = 3 * 2 * 9 * batch * channels * channels * side * side
    random = torch.Generator().manual_seed(0)
    image = torch.randn(batch, channels, side, side, generator=random).to(device, memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3, generator=random).to(device, memory_format=torch.channels_last)
    slope = torch.ones_like(image)
    image.requires_grad_()
    weight.requires_grad_()

    def once(dtype: torch.dtype) -> float:
        start = time.perf_counter()
        with autocast(device, dtype):
            result = functional.conv2d(image, weight, padding=1)
        gradient = torch.autograd.grad(result, (image, weight), slope.to(result.dtype))[1]
        gradient.sum().item()  # waits for a device that computes on its own time
        return time.perf_counter() - start

    formats = [torch.float32]
    once(torch.float32)
    try:
        once(torch.bfloat16)
        # Without instructions for it, bfloat16 can be slower by orders; one more run is enough to see that.
        if once(torch.bfloat16) < 5 * once(torch.float32):
            formats.append(torch.bfloat16)
    except (RuntimeError, TypeError, NotImplementedError):
        pass
    times: dict[torch.dtype, list[float]] = {dtype: [] for dtype in formats}
    end = time.perf_counter() + _MEASURE_S
    while len(times[torch.float32]) < 3 or (time.perf_counter() < end and len(times[torch.float32]) < 20):
        for dtype in formats:
            times[dtype].append(once(dtype))
    return {
        str(dtype).removeprefix("torch."): round(operations / min(taken) / 1e9, 1) for dtype, taken in times.items()
    }


def release_memory(device: torch.device | None = None) -> None:
    """Gives memory that is no longer used back to the driver (of a torch `device`, where one was used) and to the system."""
    gc.collect()
    if device is not None and device.type in ("cuda", "mps"):
        import torch

        getattr(torch, device.type).empty_cache()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return  # not glibc: its allocator has no such call


def room_for(device: torch.device, size: int) -> str:
    """How a pipeline with `size` bytes of weights fits: "plenty" (whole, with room to work), "tight" (whole, but its large
    pictures in tiles), or "parts" (one part at a time on the graphics card, the rest in main memory)."""
    if device.type == "cuda":
        import torch

        free = torch.cuda.mem_get_info(device)[0]
        return _room(free, size)
    free = memory_bytes()[1] or 0
    return "tight" if _room(free, size) == "parts" else _room(free, size)


def _room(free: int, size: int) -> str:
    # a pass at 512 px takes about 2 GiB beside the weights, in tiles about half of one
    if free < size + (1 << 29):
        return "parts"
    return "plenty" if free >= size + (2 << 30) else "tight"


def child_environment() -> dict[str, str]:
    """The whole environment for `python -m lib_vitface …` as a child process; what the person set stays.

    glibc returns every large tensor to the system when it is freed and has it zeroed page by page at the next step.
    Kept in the heap instead, a training step with 16 x 32 x 160 x 160 activations took 1.6 s of processor time
    instead of 2.4 s here. `MALLOC_MMAP_MAX_=0` rather than a high `MALLOC_MMAP_THRESHOLD_`: older glibc refuses one
    above 32 MiB. These variables are read when a process starts, hence for a child only.
    """
    environment = dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    checkout = str(Path(__file__).resolve().parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [checkout, environment.get("PYTHONPATH")]))
    for name, value in (("MMAP_MAX", 0), ("TRIM_THRESHOLD", 1 << 32), ("TOP_PAD", 1 << 26)):
        environment.setdefault(f"MALLOC_{name}_", str(value))
    cores = usable_cores()
    if cores < (os.cpu_count() or 1):  # torch counts the machine's cores, not those a container may use
        environment.setdefault("OMP_NUM_THREADS", str(cores))
    return environment


def threads() -> int:
    """Threads for engines that do not read it themselves: `OMP_NUM_THREADS`, else the usable cores."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    return int(named) if named.isdecimal() and int(named) > 0 else usable_cores()


def openvino_settings(*, exact: bool = False) -> dict[str, Any]:
    """OpenVINO's settings for a network on the processor: threads, and bfloat16 where hardware multiplies it; if `exact`, float32."""
    fast = not exact and (has_amx() or has_avx512_bf16())
    return {"INFERENCE_NUM_THREADS": str(threads()), "INFERENCE_PRECISION_HINT": "bf16" if fast else "f32"}


def onnx_providers(name: str, *, exact: bool = True) -> list[Any]:
    """ONNX Runtime's execution providers for a device name as of `pick_device`, the best first; the processor is always last.

    Unless `exact`, the processor's work goes to OpenVINO, in bfloat16, where Intel's build (onnxruntime-openvino) is installed: ONNX
    Runtime's own kernels know float32 only. Raises `InputError` where the installed build cannot use the device.
    """
    ready = importlib.import_module("onnxruntime").get_available_providers()
    kind, _, number = name.partition(":")
    known = {"cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider"}
    processor: list[Any] = ["CPUExecutionProvider"]
    if not exact and "OpenVINOExecutionProvider" in ready:
        how = {"device_type": "CPU", "load_config": json.dumps({"CPU": openvino_settings()})}
        processor.insert(0, ("OpenVINOExecutionProvider", how))
    if kind == "auto":
        return [*(p for p in known.values() if p in ready), *processor]
    if kind == "cpu":
        return processor
    if known.get(kind) not in ready:
        raise InputError(
            f"Device {name!r} cannot be used by the installed ONNX Runtime ({', '.join(ready)}); use 'auto' or 'cpu'."
        )
    settings = {"device_id": int(number)} if number.isdecimal() else {}
    return [(known[kind], settings), "CPUExecutionProvider"]


def usable_cores() -> int:
    """Processor cores this process may use: affinity and the container's quota are taken into account."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return cores


def memory_bytes() -> tuple[int | None, int | None]:
    """`(total, available)` main memory in bytes; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        known = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        total, available = known["MemTotal"], known["MemAvailable"]
    except (OSError, ValueError, KeyError, IndexError):
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None
        except (AttributeError, ValueError, OSError):
            return None, None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return total, available
    return min(total, limit), min(available, max(0, limit - used))


def rss_bytes() -> int:
    """Main memory this process holds now (Linux); elsewhere the most it ever held."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return _most_ever()


def _most_ever() -> int:
    try:
        import resource
    except ImportError:
        return 0  # Windows
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


class PeakMemory:
    """Context manager; afterwards `peak_bytes` is the most this process held inside (Linux), else ever."""

    peak_bytes = 0

    def __enter__(self) -> PeakMemory:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # starts the kernel's high-water mark anew
        return self

    def __exit__(self, *_: object) -> None:
        try:
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
            self.peak_bytes = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
        except (OSError, ValueError, StopIteration):
            self.peak_bytes = _most_ever()


@functools.lru_cache(maxsize=1)
def _cpu_info() -> dict[str, str]:
    """The first processor's entries of `/proc/cpuinfo`; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def cpu_name() -> str:
    return _cpu_info().get("model name") or platform.processor() or platform.machine() or "unknown"


def has_amx() -> bool:
    """Whether the processor multiplies bfloat16 matrices in hardware tiles (Intel AMX)."""
    return "amx_bf16" in _cpu_info().get("flags", "").split()


def has_avx512_bf16() -> bool:
    return "avx512_bf16" in _cpu_info().get("flags", "").split()


def describe(device: torch.device | None = None) -> DeviceFacts:
    """Facts of this machine and of `device` (default: what `pick_device` takes); works without torch as well."""
    total, available = memory_bytes()
    torch_version = _version("torch")
    chosen: torch.device | None = None
    if torch_version is not None:
        import torch

        torch_version = str(torch.__version__)  # the package's metadata lack the build, as “+cu130”
        chosen = device or pick_device()
    return DeviceFacts(
        python=platform.python_version(),
        system=platform.platform(),
        torch=torch_version,
        transformers=_version("transformers"),
        cpu=cpu_name(),
        cores=usable_cores(),
        memory_total=total,
        memory_available=available,
        amx=has_amx(),
        avx512_bf16=has_avx512_bf16(),
        device=None if chosen is None else str(chosen),
        dtype=None if chosen is None else str(fast_dtype(chosen)).removeprefix("torch."),
        accelerators=() if chosen is None else _accelerators(),
        gflops={} if chosen is None else measured_gflops(chosen),
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _accelerators() -> tuple[Accelerator, ...]:
    import torch

    found = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found.append(Accelerator(torch.cuda.get_device_name(index), total, free))
    if torch.backends.mps.is_available():
        found.append(Accelerator("Apple GPU (memory shared with the processor)", None, None))
    return tuple(found)
