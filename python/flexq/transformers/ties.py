"""Weights that two modules share, once they are packed."""

from typing import Any

from transformers import PreTrainedModel

from flexq.transformers.checkpoint import PACKED, SCALE


def settle(model: Any, chosen: set[str]) -> None:
    """Keeps ties whose two weights are both chosen to be packed, and parts the others.

    Args:
        model: still dense where it is tied.
        chosen: names of the weights to be packed.
    """
    for target, source in list(model.all_tied_weights_keys.items()):
        if {target, source} <= chosen:
            retie(model, target)
        elif {target, source} & chosen:
            untie(model, target)


def retie(model: Any, target: str) -> None:
    """Ties the packed forms of a weight that was tied to another, `target` to its source."""
    source = model.all_tied_weights_keys.pop(target)
    for suffix in (PACKED, SCALE):
        model.all_tied_weights_keys[target + suffix] = source + suffix
    for prefix, owner, keys in _owners(model, target):
        shared = keys.pop(target.removeprefix(prefix))
        for suffix in (PACKED, SCALE):
            keys[target.removeprefix(prefix) + suffix] = shared + suffix
        owner._tied_weights_keys = keys


def retie_dense(model: Any) -> None:
    """Ties dense weights again whose packed forms were tied; the inverse of `retie`."""
    for target in [name for name in model.all_tied_weights_keys if name.endswith(PACKED)]:
        source = model.all_tied_weights_keys[target]
        dense = target.removesuffix(PACKED), source.removesuffix(PACKED)
        for suffix in (PACKED, SCALE):
            model.all_tied_weights_keys.pop(dense[0] + suffix)
        model.all_tied_weights_keys[dense[0]] = dense[1]
        for prefix, owner, keys in _owners(model, target):
            shared = keys.pop(target.removeprefix(prefix)).removesuffix(PACKED)
            keys.pop(dense[0].removeprefix(prefix) + SCALE)
            keys[dense[0].removeprefix(prefix)] = shared
            owner._tied_weights_keys = keys


def untie(model: Any, target: str) -> None:
    """Gives a weight that was tied to another a life of its own, also in the configuration."""
    model.all_tied_weights_keys.pop(target)
    for prefix, owner, keys in _owners(model, target):
        keys.pop(target.removeprefix(prefix))
        owner._tied_weights_keys = keys
        owner.config.tie_word_embeddings = False
    model.config.tie_word_embeddings = False


def _owners(model: Any, target: str) -> list[tuple[str, Any, dict[str, str]]]:
    """The models inside `model` that declare the tie: name prefix, model, copy of its ties."""
    found = []
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        keys = getattr(module, "_tied_weights_keys", None)
        if (
            isinstance(module, PreTrainedModel)
            and isinstance(keys, dict)
            and target.startswith(prefix)
            and target.removeprefix(prefix) in keys
        ):
            found.append((prefix, module, dict(keys)))
    return found
