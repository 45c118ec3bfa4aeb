"""Prepare a corpus: tokenize text and write it as shards that any number of ranks can read.

python tools/prepare_data.py --source my/texts --tokenizer gpt2 --length 1024 --output data/mine
python tools/prepare_data.py --source openwebtext --tokenizer gpt2 --output data/owt --workers 32
python tools/prepare_data.py --source tinygsm --tokenizer llada --pack pad --output data/gsm
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from idlm_ds.cli import Parser, launch

if TYPE_CHECKING:
    from idlm_ds.data.index import Index
    from idlm_ds.data.prepare.plan import PreparationPlan

TOKENIZERS = {
    "gpt2": "hf:openai-community/gpt2",
    "bert": "hf:google-bert/bert-base-uncased",
    "llada": "hf:GSAI-ML/LLaDA-8B-Instruct",
}

SOURCE_HELP = (
    "files, folders, hf:OWNER/NAME[:CONFIG][@REVISION], openwebtext, lm1b, text8, wikitext, tinygsm"
)
TOKENIZER_HELP = "gpt2, bert, llada, a folder, a sentencepiece .model, hf:OWNER/NAME, assets:NAME"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--source", nargs="+", required=True, metavar="SOURCE", help=SOURCE_HELP)
    add("--tokenizer", required=True, help=TOKENIZER_HELP)
    add("--output", type=Path, required=True, help="folder of the prepared data")
    add("--length", type=int, default=1024, help="tokens per row")
    add("--pack", choices=("wrap", "pad"), help="concatenate documents (default), or one per row")
    add("--workers", type=int, default=len(os.sched_getaffinity(0)), help="default: every core")
    add("--text-field", help="where the text is in a record (default: text)")
    add("--prompt-field", help="where the prompt is; the loss then covers the answer only")
    add("--answer-field", help="where the answer is")
    add("--separator", default="\n", help="between prompt and answer (default: a newline)")
    add("--detokenizer", choices=("lm1b", "none"), help="default: lm1b for lm1b, else none")
    add("--lines", action="store_true", help="each line of a .txt file is a document")
    add("--heldout-every", type=int, help="hold out one document in N (default: 20)", metavar="N")
    add("--heldout-last", type=int, help="hold out the last N documents", metavar="N")
    add("--no-frame", action="store_true", help="rows without begin-of-text and end-of-text tokens")
    add("--no-eos", action="store_true", help="documents without end-of-text tokens")
    add("--shard-mb", type=float, default=64, help="size of a shard, the unit of resuming")
    add("--max-document-mb", type=float, default=4, help="longer documents are dropped")
    add("--fresh", action="store_true", help="delete what an earlier run left in --output")
    return parser.parse_args(argv)


def plan_preparation(args: argparse.Namespace) -> "PreparationPlan":
    """Open the corpus and the tokenizer."""
    from idlm_ds.build.locate import locate
    from idlm_ds.data.prepare.plan import PrepareOptions, make_plan
    from idlm_ds.data.tokenizer import Tokenizer

    values = {k: v for k, v in vars(args).items() if k not in ("tokenizer", "output", "fresh")}
    is_asset = args.source[0].startswith("assets:")
    values["source"] = [str(locate(args.source[0], "--source"))] if is_asset else args.source
    options = PrepareOptions(**values)
    spec = TOKENIZERS.get(args.tokenizer, args.tokenizer)
    tokenizer = Tokenizer(locate(spec, "--tokenizer", wants_weights=False), "--tokenizer")
    return make_plan(options, tokenizer, lambda: print("counting documents"))


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    args = parse(argv)
    from idlm_ds.data.prepare.preparation import prepare

    plan = plan_preparation(args)
    # In a log file, a line every half minute is enough.
    interval = 0.1 if sys.stderr.isatty() else 30
    with tqdm(total=plan.corpus.size, unit="", unit_scale=True, mininterval=interval) as bar:
        tokens = 0

        def show_tokens(count: int) -> None:
            nonlocal tokens
            tokens += count
            bar.set_postfix_str(f"{tokens / 1e6:,.1f}M tokens", refresh=False)

        index = prepare(
            plan,
            args.output,
            fresh=args.fresh,
            on_position=lambda position: bar.update(position - bar.n),
            on_tokens=show_tokens,
        )
    report(index, args.output)


def report(index: "Index", folder: Path) -> None:
    """Print the numbers of rows and documents."""
    counts = index.documents
    rows = f"{index.rows('train'):,} training and {index.rows('heldout'):,} held-out rows"
    print(f"{folder}: {rows} of {index.length} tokens, fingerprint {index.fingerprint}")
    read, kept, repaired = (counts[name] for name in ("read", "kept", "repaired"))
    print(f"documents: {read:,} read, {kept:,} kept, {repaired:,} repaired")
    for reason, count in counts["dropped"].items():
        print(f"  dropped  {count:>12,}  {reason}")
    for file, reason in index.damaged.items():
        print(f"  damaged  {file}: {reason}")


if __name__ == "__main__":
    launch(main, is_alone=True)
