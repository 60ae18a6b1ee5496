"""Fine-tunes a GPT-2 from a folder of weights on a text, in two stages.

mpirun -n 2 python gpt2.py FOLDER TEXT OUT
"""

import math
import sys
from pathlib import Path

import hpc_lpm
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from transformers import AutoModelForCausalLM, AutoTokenizer, get_linear_schedule_with_warmup

folder, text, out = sys.argv[1:]
LENGTH, EPOCHS = 64, 1


def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    return cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
tokens = tokenizer(Path(text).read_text(encoding="utf-8"), return_tensors="pt").input_ids[0]
windows = tokens[: len(tokens) // LENGTH * LENGTH].view(-1, LENGTH)
windows, held_out = windows[:-50], windows[-50:]
loader = DataLoader(TensorDataset(windows, windows), batch_size=32, shuffle=True)

profile = hpc_lpm.profile(model, (windows[:8], windows[:8]), loss=next_token_loss)
plan = hpc_lpm.plan(profile, stages=2, micro_batches=4, optimizer="adamw")
engine = hpc_lpm.initialize(
    model,
    plan,
    loss=next_token_loss,
    optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
    clip_norm=1.0,
)
steps = EPOCHS * len(loader)
rates = get_linear_schedule_with_warmup(engine.optimizer, steps // 10, steps)


def perplexity() -> float:
    return math.exp(engine.evaluate([(held_out, held_out)]))


def say(what: str) -> None:
    if engine.stage == 0:
        print(what, flush=True)


say(f"before: perplexity {perplexity():.2f}")
for _ in range(EPOCHS):
    for inputs, targets in loader:
        engine.train_batch(inputs, targets)
        rates.step()
        if engine.step % 10 == 0:
            say(f"step {engine.step}: loss {engine.last_loss:.3f}")
say(f"after: perplexity {perplexity():.2f}")

if weights := engine.state_dict():
    model.load_state_dict(weights)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
