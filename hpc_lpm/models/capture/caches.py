"""Models of the package transformers that return a cache of keys and values beside their logits."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def caches_left_out(module: nn.Module) -> Iterator[None]:
    """Have a module return no cache, of which training has no use and torch.export knows nothing.

    Configurations ask for one by default, as `use_cache`; they are as they were at the end.
    """
    found: list[Any] = [getattr(part, "config", None) for part in module.modules()]
    asking = [config for config in found if getattr(config, "use_cache", None) is True]
    try:
        for config in asking:
            config.use_cache = False
        yield
    finally:
        for config in asking:
            config.use_cache = True
