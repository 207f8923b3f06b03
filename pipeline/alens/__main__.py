"""`python -m alens`: what torchrun, deepspeed and srun start."""

from alens.cli import main

main()
