"""Versions, driver and GPU; what is there to build with. `no_gpu` says why there is none, and is absent where there is."""

import importlib.metadata
import os
import platform
import shutil
import subprocess

from gpu_stages.say import DEVICE, end_with_run, say

PACKAGES = ("alens", "torch", "triton", "deepspeed", "transformer-lens", "transformers", "numpy", "zarr")
PROGRAMS = ("nvidia-smi", "cc", "gcc", "nvcc", "ninja", "compute-sanitizer")
VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_HOME", "TORCH_EXTENSIONS_DIR", "DS_ACCELERATOR", "NCCL_SOCKET_IFNAME", "CC")  # fmt: skip
DRIVER = ("nvidia-smi", "--query-gpu=name,driver_version,mig.mode.current,memory.total,clocks.max.sm", "--format=csv,noheader")  # fmt: skip


def version(package: str) -> str:
    """What pip installed, or that it did not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def driver() -> str:
    """What nvidia-smi says."""
    try:
        done = subprocess.run(DRIVER, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi does not answer: {error}"
    return (done.stdout or done.stderr).strip()


def main() -> None:
    """Say the cheap ones first: to ask CUDA may hang."""
    end_with_run()
    say("python", f"{platform.python_version()} on {platform.platform()}, {os.cpu_count()} CPUs")
    say("packages", {package: version(package) for package in PACKAGES})
    say("programs", {program: shutil.which(program) for program in PROGRAMS})
    say("variables", {name: os.environ[name] for name in VARIABLES if name in os.environ})
    say("nvidia_smi", driver())
    import torch

    from alens.machine.device import cuda_devices

    say("torch_cuda", torch.version.cuda)
    if not torch.cuda.is_available():
        if DEVICE == "cuda":
            say("no_gpu", f"no GPU: {cuda_devices()}")
        return
    say("gpus", [_gpu(index) for index in range(torch.cuda.device_count())])
    say("nccl", torch.cuda.nccl.version())


def _gpu(index: int) -> dict[str, object]:
    import torch

    about = torch.cuda.get_device_properties(index)
    return {
        "name": about.name,
        "capability": f"{about.major}.{about.minor}",
        "memory_gb": round(about.total_memory / 1e9, 1),
        "multiprocessors": about.multi_processor_count,
    }


if __name__ == "__main__":
    main()
