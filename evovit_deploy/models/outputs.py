"""What a model can give, by name: class scores, kept patches, and features for whoever needs no classes.

``blocks=3,6`` stands for ``block_3`` and ``block_6``, which are the names of the outputs; everything else is its own name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..classes.output_names import FEATURES, PLACES, TOKENS, block_of, is_feature
from ..errors import InputError
from ..suggest import did_you_mean

if TYPE_CHECKING:
    from ..recipes import Recipe

__all__ = [
    "KINDS",
    "VIT_FEATURES",
    "check_outputs",
    "compared_outputs",
    "kind_of",
    "read_outputs",
    "refuse_norm_blocks",
    "settle_outputs",
    "worded",
]

BLOCKS = {"blocks": "block_", "norm_blocks": "norm_block_"}  # kind -> start of its names
VIT_FEATURES = (*FEATURES, *BLOCKS)
KINDS = ("logits", "probabilities", *TOKENS, *VIT_FEATURES)


def kind_of(name: str) -> str:
    """Return the kind of an output: ``blocks`` of ``block_3``; all others are their own."""
    return name if block_of(name) is None else next(kind for kind, start in BLOCKS.items() if name.startswith(start))


def worded(kinds: Sequence[str]) -> str:
    """Return kinds as they are typed: ``logits, kept, blocks=N``."""
    return ", ".join(f"{kind}=N" if kind in BLOCKS else kind for kind in kinds)


def read_outputs(text: str) -> tuple[str, ...]:
    """Read ``embedding,blocks=3,6,9`` as names of outputs; numbers go on with the blocks before them.

    Raises:
        InputError: Blocks without a number, or a number without blocks.
    """
    names: list[str] = []
    blocks = ""  # the kind that numbers stand for
    for word in (part.strip() for part in text.split(",")):
        kind, given, value = word.partition("=")
        if given and kind in BLOCKS:
            blocks, number = kind, value.strip()
        elif blocks and not word[:1].isalpha():
            number = word
        else:
            names.append(word)
            blocks = ""
            continue
        if not (number.isascii() and number.isdigit()):
            raise InputError(
                f"--outputs {text!r}: {number!r} is not the number of a block; for example: --outputs {blocks}=3,6,9, "
                "counted from 0."
            )
        names.append(f"{BLOCKS[blocks]}{int(number)}")
    return tuple(names)


def check_outputs(names: Sequence[str]) -> None:
    """Raise InputError for names that no model has, or that are given twice."""
    unknown = [name for name in names if kind_of(name) not in KINDS or name in BLOCKS]
    if unknown:
        blocks = unknown[0] in BLOCKS
        hint = f" For example: {unknown[0]}=3,6,9." if blocks else did_you_mean(unknown[0], KINDS)
        raise InputError(f"outputs {', '.join(filter(None, unknown)) or 'missing'}; valid: {worded(KINDS)}.{hint}")
    if twice := list(dict.fromkeys(name for name in names if names.count(name) > 1)):
        raise InputError(f"outputs name {', '.join(twice)} twice; once is enough.")


def numbered(outputs: Sequence[str], **counts: int) -> tuple[str, ...]:
    """Return ONNX output names: those of ``counts`` stand for that many, ``kept`` for ``kept_1``, ``kept_2``, ..."""
    each = ([f"{name}_{i + 1}" for i in range(counts[name])] if name in counts else [name] for name in outputs)
    return tuple(name for names in each for name in names)


def settle_outputs(
    names: Sequence[str],
    recipe: Recipe,
    valid: Sequence[str],
    label: str,
    depth: int,
    refused: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Return the outputs that a model is built with: those given, or, where none are, what the model is for.

    Args:
        names: Of outputs; empty for ``logits``, or ``embedding`` of a model without a head.
        recipe: Of the model.
        valid: Kinds that its family has.
        label: Of that family, for people.
        depth: Number of its blocks.
        refused: Kind -> why the family cannot give it, after "NAME ".

    Raises:
        InputError: An output that this model does not have.
    """
    head = recipe.structure.head
    names = tuple(names) or (("logits",) if head else ("embedding",))
    here = [kind for kind in valid if head or kind not in ("logits", "probabilities")]
    for name in names:
        kind = kind_of(name)
        if kind in valid and kind not in here:
            raise InputError(
                f"{recipe.name} has no classification head, so there are no {kind}. Its feature is called embedding: --outputs "
                f"embedding. Valid: {worded(here)}."
            )
        if kind not in here:
            why = (refused or {}).get(kind)
            said = f"{name} {why}" if why else f"outputs {name} is not for {label}"
            raise InputError(f"{said}; valid: {worded(here)}.")
        block = block_of(name)
        if block is not None and block >= depth:
            raise InputError(f"{name}: {recipe.name} has {depth} blocks, from 0 to {depth - 1}.")
    return names


def compared_outputs(names: Sequence[str], recipe: Recipe, valid: Sequence[str]) -> tuple[str, ...]:
    """Return the outputs by which two builds of a model are held against each other: class scores, features, kept patches.

    Args:
        names: Of the outputs that are asked for, or that another file of the model has; others than this model's are left out.
        recipe: Of the model.
        valid: Kinds that its family has.
    """
    there = [name for name in names if kind_of(name) in valid]
    features = [name for name in there if is_feature(name)]
    main = "logits" if recipe.structure.head else "embedding"
    if features and (main == "embedding" or not set(there) & {"logits", "probabilities"}):
        main = ""
    return tuple(dict.fromkeys(name for name in (main, *features, *PLACES) if kind_of(name) in valid))


def refuse_norm_blocks(names: Sequence[str]) -> None:
    """Raise InputError for normed blocks of a model that has no norm for tokens."""
    name = next((name for name in names if kind_of(name) == "norm_blocks"), None)
    if name is not None:
        raise InputError(
            f"{name}: this model norms the mean of its patches and no token, so there is no norm for a block. Take its tokens as "
            f"they are: --outputs blocks={block_of(name)}."
        )
