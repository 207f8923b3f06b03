"""What the uses of lenses that the paper names find on a model, how often chance would find it, and what ablation says.

    python benchmarks/three_uses.py [LENSES] [--effect-lenses LENSES] [--parts bias,instructions] [--layers 2,5,8]
        [--first 5] [--draws 10]

LENSES hold all heads of a model and E[z] of each; without them lenses of the demo are fitted here. `bias`: which heads
carry that a person of an occupation is a man, found on 15 pairs of sentences, judged on 15 others (`uses/bias.py`).
`instructions`: do the heads of `--layers` tell an instruction that overrides the task from one that keeps it, in prompts of
a family that no detector was fitted on (`uses/instructions.py`). The third, steering, is `injection.py`. Prompts are those
of docs/tutorials/examples. Each reading of the heads is tried: `lens`, `written`, `unembedding`, and `effect` where effect
lenses are given. Prints Markdown. Source of the uses: "Attention Lens" (arXiv 2310.16270), section 3.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from injection import demo_lenses
from uses.bias import bias
from uses.heads_at_end import READINGS
from uses.instructions import instructions

from alens import load_lenses
from alens.lens.effect_lenses import load_effect_lenses
from alens.machine.allotment import follow_allotment
from alens.reading.head_says import EFFECT
from alens.reading.lensed_model import LensedModel

PARTS = ("bias", "instructions")


def main() -> None:
    """Print the parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lenses", type=Path, nargs="?", help="lenses of all heads of a model")
    parser.add_argument("--effect-lenses", type=Path)
    parser.add_argument("--parts", default=",".join(PARTS), help="which parts to run")
    parser.add_argument(
        "--layers", default="2,5,8,11,14,17,20,23,26,29", help="layers of the part `instructions`"
    )
    parser.add_argument("--first", type=int, default=5, help="heads that are taken away")
    parser.add_argument("--draws", type=int, default=10, help="sets of other heads")
    args = parser.parse_args()
    follow_allotment()
    effect = None if args.effect_lenses is None else load_effect_lenses(args.effect_lenses)
    with tempfile.TemporaryDirectory() as work:
        lenses = load_lenses(args.lenses) if args.lenses else demo_lenses(Path(work))
        reader = LensedModel(lenses, effect=effect, device="cpu")
        print(f"# {reader.lenses.record.model.id}\n", flush=True)
        for line in _lines(reader, args):
            print(line, flush=True)


def _lines(reader: LensedModel, args: argparse.Namespace) -> Iterator[str]:
    readings = [reading for reading in READINGS if reading != EFFECT or reader.effect is not None]
    parts = args.parts.split(",")
    if "bias" in parts:
        yield from bias(reader, readings, args.first, args.draws)
    if "instructions" in parts:
        layers = [int(layer) for layer in args.layers.split(",")]
        yield from instructions(reader, readings, layers, args.first, args.draws)


if __name__ == "__main__":
    main()
