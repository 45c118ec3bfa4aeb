"""Tokenizers by path or name."""

from idlm_ds.build.locate import locate
from idlm_ds.data.tokenizer import Tokenizer


def load_tokenizer(spec: str, key: str = "data.tokenizer") -> Tokenizer:
    """Load a tokenizer by path or name.

    Raises:
        UserError: It is missing or unusable.
    """
    return Tokenizer(locate(spec, key, wants_weights=False), key)
