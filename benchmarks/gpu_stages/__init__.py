"""The stages of `first_gpu.py`, each a process: `python -m gpu_stages.NAME`.

say.py        how a stage says figures, what it was asked, and how it ends with the run
versions.py   versions, driver, GPU
trial.py      the trial of the Triton kernel, and how long its first build takes
tests.py      tests of tests/gpu, their outcomes and figures
rates.py      the kernel's rates, beside the limits of the chip
steps.py      where the time of a step goes, and who waits
stage_one.py  caching beside a bare forward pass
sanitizer.py  the kernel under compute-sanitizer
"""
