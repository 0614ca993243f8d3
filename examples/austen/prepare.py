"""Make the training text, the held-out text and the tokenizer of the Austen model.

The text is Jane Austen's six novels as the Debian package ``r-cran-janeaustenr``
ships them (R itself is not needed)::

    apt-get download r-cran-janeaustenr
    pip install numpy rdata tokenizers
    python prepare.py r-cran-janeaustenr_1.0.0-1_all.deb build

writes ``build/train.txt`` and ``build/{train,eval}.bin`` (token ids, little-endian
uint16), and beside this script ``eval.txt`` and the tokenizer in ``model/``.
"""

import argparse
import gzip
import json
import re
import subprocess
import zlib
from pathlib import Path

import numpy as np
import rdata
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).parent
NOVELS = [
    "sensesensibility",
    "prideprejudice",
    "mansfieldpark",
    "emma",
    "northangerabbey",
    "persuasion",
]
HELD_OUT = 25_000  # characters at the end of each novel, never trained on
VOCABULARY = 2048
END = "<|endoftext|>"


def read_novels(package: Path, work: Path) -> list[str]:
    """The novels in order of publication, unpacked from R's lazy-load database."""
    subprocess.run(["dpkg", "-x", package, work / "package"], check=True)
    data = work / "package/usr/lib/R/site-library/janeaustenr/data"
    index = _deserialize(gzip.decompress((data / "Rdata.rdx").read_bytes()))["variables"]
    blocks = (data / "Rdata.rdb").read_bytes()
    novels = []
    for name in NOVELS:
        offset, length = index[name]
        # Each block is its plain length in four bytes, then a zlib stream.
        lines = _deserialize(zlib.decompress(blocks[offset + 4 : offset + length]))
        novels.append(clean([str(line) for line in lines]))
    return novels


def _deserialize(data: bytes):
    return rdata.conversion.convert(rdata.parser.parse_data(data, extension=".rds"))


def clean(lines: list[str]) -> str:
    """Plain ASCII, one paragraph a line, without emphasis marks and notes of the edition."""
    paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", "\n".join(lines))]
    text = "\n".join(p for p in paragraphs if p)
    text = text.partition("A NOTE ON THE TEXT")[0]
    for mark, plain in {
        "_": "",
        "\N{LEFT DOUBLE QUOTATION MARK}": '"',
        "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
        "\N{LEFT SINGLE QUOTATION MARK}": "'",
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
        "\N{EM DASH}": "--",
        "\N{POUND SIGN}": "L",
    }.items():
        text = text.replace(mark, plain)
    return text.translate(str.maketrans("àâäæçèéêëîïôöùûü", "aaaaceeeeiioouuu")).strip() + "\n"


def split(novel: str) -> tuple[str, str]:
    """Training part and held-out end, cut where a paragraph starts."""
    cut = novel.index("\n", len(novel) - HELD_OUT) + 1
    return novel[:cut], novel[cut:]


def train_tokenizer(text: str) -> Tokenizer:
    """Byte-level byte-pair encoding: no unknown tokens, any text round-trips."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return tokenizer


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", type=Path, help="the Debian package r-cran-janeaustenr")
    parser.add_argument("work", type=Path, help="folder for the training files")
    arguments = parser.parse_args()
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)

    parts = [split(novel) for novel in read_novels(arguments.package, work)]
    train = END.join(train for train, _ in parts)
    held_out = "".join(end for _, end in parts)
    (work / "train.txt").write_text(train)
    (HERE / "eval.txt").write_text(held_out)

    tokenizer = train_tokenizer(train.replace(END, "\n"))
    model = HERE / "model"
    model.mkdir(exist_ok=True)
    tokenizer.save(str(model / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END}
    settings |= {"model_max_length": 512, "clean_up_tokenization_spaces": False}
    (model / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    for name, text in [("train", train), ("eval", held_out)]:
        ids = np.array(tokenizer.encode(text).ids, "<u2")
        ids.tofile(work / f"{name}.bin")
        print(f"{name}: {len(text):,} characters, {len(ids):,} tokens")


if __name__ == "__main__":
    main()
