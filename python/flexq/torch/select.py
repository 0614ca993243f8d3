"""Which weights of a model are quantized, and why the others are not."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import nn

from flexq import _flexq
from flexq.torch.experts import FlexQExperts


@dataclass(frozen=True)
class Target:
    """A weight that can be quantized.

    Attributes:
        parameter: its full name in the model, as in a state dict.
        module: the full name of the module that a flexq module replaces.
        kind: `linear`, `embedding` or `experts`.
    """

    parameter: str
    module: str
    kind: str


@dataclass
class Choice:
    """What was chosen of a model.

    Attributes:
        targets: weights to quantize.
        kept: the others that are matrices, by name, each with the reason.
    """

    targets: list[Target] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)

    def modules(self) -> list[str]:
        """The modules to replace."""
        return list(dict.fromkeys(target.module for target in self.targets))

    def products(self) -> list[str]:
        """The names that settings of activations go by: layers, and each weight of experts."""
        return [target.parameter.removesuffix(".weight") for target in self.targets]


def candidates(model: nn.Module) -> tuple[list[Target], dict[str, str]]:
    """Every weight of `model` that a flexq module can hold, and every matrix that none can.

    Returns:
        The weights, and the names of the other parameters of two or three dimensions
        with the reason.
    """
    found: list[Target] = []
    refused: dict[str, str] = {}
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        fused = [w for w in FlexQExperts.WEIGHTS if _rank(module, w) == 3]
        if type(module) is nn.Linear:
            found.append(Target(f"{prefix}weight", name, "linear"))
        elif type(module) is nn.Embedding:
            found.append(Target(f"{prefix}weight", name, "embedding"))
        elif fused and (reason := _unsupported(module)) is None:
            found.extend(Target(prefix + w, name, "experts") for w in fused)
        else:
            for parameter, value in module.named_parameters(recurse=False):
                if value.dim() in (2, 3):
                    unknown = f"{type(module).__name__} has no flexq counterpart"
                    refused[prefix + parameter] = (reason if fused else None) or unknown
    return found, refused


def choose(
    model: nn.Module,
    preset: str = "linear",
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
) -> Choice:
    """Applies a preset and patterns, with the meaning they have in `flexq-pack`.

    Args:
        model: any module; of a transformers model, the configuration helps to tell
            weights that are stored transposed.
        preset: `linear` (linear layers and experts) or `full` (also embeddings and lm_head).
        include: patterns of weights to quantize although the preset leaves them alone.
        exclude: patterns of weights to keep although the preset takes them.

    Raises:
        ValueError: a pattern that matches nothing.
    """
    found, refused = candidates(model)
    shapes = {name: list(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    config = getattr(model, "config", None)
    reasons = _flexq.select(
        [(target.parameter, shapes[target.parameter]) for target in found],
        preset,
        list(include),
        list(exclude),
        getattr(config, "model_type", None),
        getattr(config, "hidden_size", None),
    )
    choice = Choice(kept=dict(refused))
    half = _halves(found, reasons)
    for target, reason in zip(found, reasons, strict=True):
        if reason is None and target.module not in half:
            choice.targets.append(target)
        else:
            choice.kept[target.parameter] = reason or "the other weight of these experts is kept"
    return choice


def _halves(found: list[Target], reasons: list[str | None]) -> set[str]:
    """Stacks of experts of which only one weight was chosen; a module holds both or none."""
    pairs = [(t.module, r) for t, r in zip(found, reasons, strict=True) if t.kind == "experts"]
    return {m for m, r in pairs if r is None} & {m for m, r in pairs if r is not None}


def _rank(module: nn.Module, name: str) -> int:
    parameter = module._parameters.get(name)
    return 0 if parameter is None else parameter.dim()


def _unsupported(experts: nn.Module) -> str | None:
    """Why fused experts cannot be replaced, if so."""
    gate_up, down = (experts._parameters.get(name) for name in FlexQExperts.WEIGHTS)
    if gate_up is None or down is None:
        return "experts without gate_up_proj and down_proj"
    if any(p.dim() < 3 for p in experts.parameters(recurse=False)):
        return "experts with biases"
    if getattr(experts, "is_transposed", False):
        return "experts stored transposed, as [K, N]"
    if not getattr(experts, "is_concatenated", True) or not getattr(experts, "has_gate", True):
        return "experts with another arrangement of gates"
    gate = getattr(type(experts), "_apply_gate", None)
    if gate is not None and "default" not in gate.__name__:
        return "experts with a gate of their own"
    if gate_up.shape[1] != 2 * down.shape[2] or gate_up.shape[2] != down.shape[1]:
        return "experts of unexpected shapes"
    return None
