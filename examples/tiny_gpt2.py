"""Makes a tiny GPT-2 with a tokenizer of bytes: a folder such as save_pretrained makes, untrained.

python tiny_gpt2.py FOLDER
"""

import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

folder = sys.argv[1]
bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE({byte: number for number, byte in enumerate(bytes_)}, merges=[]))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)

torch.manual_seed(0)
configuration = GPT2Config(
    vocab_size=len(bytes_),
    n_positions=64,
    n_embd=64,
    n_layer=2,
    n_head=4,
    bos_token_id=None,
    eos_token_id=None,
)
GPT2LMHeadModel(configuration).save_pretrained(folder)
