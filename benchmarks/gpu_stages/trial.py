"""The trial of the Triton kernel, as a fit makes it: whether it succeeds, and how long building takes for each width."""

import time

import torch

from alens.fit.objectives import cross_entropy_triton
from gpu_stages.say import DEVICE, end_with_run, interpret, say

WIDTHS = (64, 128, 32, 16)


def main() -> None:
    """Each width once, then the first again, which is built."""
    end_with_run()
    interpret()
    device = torch.device(DEVICE, 0) if DEVICE == "cuda" else torch.device("cpu")
    for number, width in enumerate((*WIDTHS, WIDTHS[0])):
        since = time.perf_counter()
        reason = cross_entropy_triton._trial.__wrapped__(width, device)
        what = f"{width} features" + (", again" if number == len(WIDTHS) else "")
        say(what, {"seconds": round(time.perf_counter() - since, 2), "refused": reason})
        if reason is not None:
            raise SystemExit(f"the trial of {what} failed: {reason}")


if __name__ == "__main__":
    main()
