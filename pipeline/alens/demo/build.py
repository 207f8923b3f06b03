"""Make the bundled demo: train a small GPT-2 on novels, then sample the demo's text from it.

In: a directory of parquet files with the columns `text` (one sentence a row) and `book`, in reading
order, with the splits `train` and `valid`. Out, in this package: `model/` (Hugging Face layout:
config, float16 safetensors, tokenizer.json), `corpus.parquet` (text sampled from that model, columns
`text` and `document`) and `card.json` (what was trained, for how long, and the loss it reached).

    python -m alens.demo.build train BOOKS        # hours of CPU; writes model/ and card.json
    python -m alens.demo.build sample             # minutes; writes corpus.parquet

No sentence of the novels is shipped: the text is sampled from the model, with a fixed seed.
Shapes: B sequences, T tokens, V vocabulary.
"""

import argparse
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

HERE = Path(__file__).parent
END_OF_TEXT = "<|endoftext|>"
VOCABULARY = 4096
CONTEXT = 256
SEQUENCES_A_STEP = 32
PEAK_LEARNING_RATE = 3e-3
WARM_UP_STEPS = 100
SEED = 0


def books(folder: Path, split: str) -> Iterator[str]:
    """Whole books of one split, in file order, sentences joined by spaces."""
    for path in sorted(folder.glob(f"{split}*.parquet")):
        table = pq.read_table(path, columns=["text", "book"])
        names = table["book"].to_pylist()
        sentences = table["text"].to_pylist()
        start = 0
        for end in range(1, len(names) + 1):
            if end == len(names) or names[end] != names[start]:
                yield " ".join(sentences[start:end])
                start = end


def train_tokenizer(folder: Path) -> Tokenizer:
    """A byte-level BPE tokenizer, the kind that GPT-2 has, with `VOCABULARY` tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(books(folder, "train"), trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, folder: Path, split: str) -> npt.NDArray[np.uint16]:
    """All books of a split as one stream of tokens, end-of-text before each book."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    parts = [[end, *tokenizer.encode(text).ids] for text in books(folder, split)]
    return np.concatenate([np.array(part, dtype=np.uint16) for part in parts])


def batches(stream: npt.NDArray[np.uint16], steps: int) -> Iterator[torch.Tensor]:
    """Batches of tokens, (B, T + 1) int64. Each epoch cuts the stream at a different offset and shuffles the parts."""
    generator = np.random.default_rng(SEED)
    done = 0
    while done < steps:
        offset = int(generator.integers(CONTEXT))
        starts = np.arange(offset, len(stream) - CONTEXT - 1, CONTEXT)
        generator.shuffle(starts)
        for first in range(0, len(starts) - SEQUENCES_A_STEP + 1, SEQUENCES_A_STEP):
            if done == steps:
                return
            chosen = starts[first : first + SEQUENCES_A_STEP]
            rows = np.stack([stream[start : start + CONTEXT + 1] for start in chosen])
            yield torch.from_numpy(rows.astype(np.int64))
            done += 1


def next_token_loss(model: GPT2LMHeadModel, tokens_BT: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the next token, in nats."""
    logits_BTV = model(input_ids=tokens_BT[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1).float(), tokens_BT[:, 1:].flatten())


@torch.inference_mode()
def validation_loss(model: GPT2LMHeadModel, stream: npt.NDArray[np.uint16], sequences: int) -> float:
    """Mean next-token cross-entropy in nats over evenly spaced sequences."""
    starts = np.linspace(0, len(stream) - CONTEXT - 2, sequences).astype(int)
    rows = np.stack([stream[start : start + CONTEXT + 1] for start in starts]).astype(np.int64)
    losses = [float(next_token_loss(model, part)) for part in torch.from_numpy(rows).split(SEQUENCES_A_STEP)]
    return float(np.mean(losses))


def parameter_groups(model: GPT2LMHeadModel) -> list[dict[str, Any]]:
    """Weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    return [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then linear decay to zero."""
    return PEAK_LEARNING_RATE * min((step + 1) / WARM_UP_STEPS, (steps - step) / (steps - WARM_UP_STEPS))


def train(folder: Path, out: Path, steps: int) -> None:
    """Train tokenizer and model on the novels in `folder`; write the model directory and the card."""
    torch.manual_seed(SEED)
    tokenizer = train_tokenizer(folder)
    stream, held_out = encode(tokenizer, folder, "train"), encode(tokenizer, folder, "valid")
    end = tokenizer.token_to_id(END_OF_TEXT)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=192,
        n_layer=4,
        n_head=6,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
    )
    model = GPT2LMHeadModel(config)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters:,} parameters, {len(stream):,} training tokens, {steps:,} steps", flush=True)
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.95))
    started = time.monotonic()
    for step, tokens_BT in enumerate(batches(stream, steps)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = next_token_loss(model, tokens_BT)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step} loss {loss.item():.3f} {time.monotonic() - started:.0f} s", flush=True)
    model.half().float()  # the demo is the float16 model: measure and ship the same numbers
    final = validation_loss(model, held_out, sequences=512)
    save_model(model, tokenizer, out / "model")
    card = {
        "parameters": parameters,
        "steps": steps,
        "tokens_seen": steps * SEQUENCES_A_STEP * CONTEXT,
        "training_minutes": round((time.monotonic() - started) / 60, 1),
        "threads": torch.get_num_threads(),
        "validation_loss_nats_per_token": round(final, 4),
        "validation_bits_per_byte": round(bits_per_byte(final, tokenizer, folder), 4),
        "seed": SEED,
    }
    (out / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card), flush=True)


def bits_per_byte(loss: float, tokenizer: Tokenizer, folder: Path) -> float:
    """Bits a byte on the held-out books, from a loss in nats a token."""
    num_bytes = sum(len(text.encode()) for text in books(folder, "valid"))
    return loss * len(encode(tokenizer, folder, "valid")) / num_bytes / float(np.log(2))


def save_model(model: GPT2LMHeadModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the model in Hugging Face's layout, weights as float16; the tied unembedding is stored once."""
    folder.mkdir(parents=True, exist_ok=True)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, model_max_length=CONTEXT
    )
    fast.save_pretrained(folder)
    model.config.architectures = ["GPT2LMHeadModel"]
    model.config.save_pretrained(folder)
    weights = {name: p.detach().half().contiguous() for name, p in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@torch.inference_mode()
def sample(out: Path, documents: int, temperature: float) -> None:
    """Write `corpus.parquet`: documents drawn from the model at `temperature`, a sentence a row."""
    torch.manual_seed(SEED)
    model = GPT2LMHeadModel.from_pretrained(out / "model", dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(out / "model" / "tokenizer.json"))
    end = tokenizer.token_to_id(END_OF_TEXT)
    assert end is not None
    texts: list[str] = []
    for first in range(0, documents, 128):
        prompt_B1 = torch.full((min(128, documents - first), 1), end)
        tokens_BT = model.generate(
            prompt_B1,
            attention_mask=torch.ones_like(prompt_B1),
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            max_new_tokens=CONTEXT - 1,
            suppress_tokens=[end],
            pad_token_id=end,
        )
        texts += tokenizer.decode_batch(tokens_BT[:, 1:].tolist())
        print(f"{len(texts)} of {documents} documents", flush=True)
    rows = [(s, d) for d, text in enumerate(texts) for s in sentences(text)]
    table = pa.table({"text": [s for s, _ in rows], "document": pa.array([d for _, d in rows], pa.int32())})
    pq.write_table(table, out / "corpus.parquet", compression="zstd", compression_level=19)


def sentences(text: str) -> list[str]:
    """`text` cut at the ends of sentences, without white space at the cuts."""
    return [part for part in re.split(r"(?<=[.!?][\"'])\s+|(?<=[.!?])\s+", text.strip()) if part]


def main() -> None:
    """The two commands of the docstring above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("books", type=Path)
    training.add_argument("--steps", type=int, default=4200)
    sampling = commands.add_parser("sample")
    sampling.add_argument("--documents", type=int, default=1280)
    sampling.add_argument("--temperature", type=float, default=0.9)
    for command in (training, sampling):
        command.add_argument("--out", type=Path, default=HERE)
    asked = parser.parse_args()
    if asked.command == "train":
        train(asked.books, asked.out, asked.steps)
    else:
        sample(asked.out, asked.documents, asked.temperature)


if __name__ == "__main__":
    main()
