"""What became of a model's weights: quantized, kept, and how much of it stays in 16 bits."""

from dataclasses import dataclass

from torch import nn

from flexq.torch.embedding import FlexQEmbedding
from flexq.torch.experts import FlexQExperts
from flexq.torch.linear import FlexQLinear
from flexq.torch.module import PackedWeight

WARN_ABOVE = 0.10
"""Share of linear and expert weights left in 16 bits above which loading warns."""


@dataclass(frozen=True)
class Coverage:
    """Weights of a model, counted.

    Attributes:
        quantized: weights in linear layers and experts that are packed.
        dense: the others of that kind.
        tables_quantized: packed weights of embeddings and of lm_head.
        tables_dense: the others of that kind; a shared table counts once.
        packed_bytes: bytes of codes and scales.
        kept: names of dense linear and expert weights, each with the reason.
    """

    quantized: int
    dense: int
    tables_quantized: int
    tables_dense: int
    packed_bytes: int
    kept: dict[str, str]

    @property
    def share_dense(self) -> float:
        """Share of linear and expert weights that are not packed."""
        total = self.quantized + self.dense
        return self.dense / total if total else 0.0

    def __str__(self) -> str:
        bits = (
            self.packed_bytes * 8 / (self.quantized + self.tables_quantized)
            if self.packed_bytes
            else 0.0
        )
        lines = [
            f"flexq: {self.quantized:,} weights of linear layers and experts packed at "
            f"{bits:.3f} bits, {self.dense:,} ({self.share_dense:.1%}) kept",
            f"       embeddings and lm_head: {self.tables_quantized:,} packed, "
            f"{self.tables_dense:,} kept",
        ]
        reasons: dict[str, list[str]] = {}
        for name, reason in self.kept.items():
            reasons.setdefault(reason, []).append(name)
        for reason, names in sorted(reasons.items()):
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            lines.append(f"       kept, {reason}: {', '.join(names[:3])}{more}")
        return "\n".join(lines)


def coverage(model: nn.Module, reasons: dict[str, str] | None = None) -> Coverage:
    """Counts the weights of a model.

    Args:
        model: with or without flexq modules.
        reasons: why weights were kept, by name, as `flexq.torch.select.choose` gives them.
    """
    reasons = reasons or {}
    counts = {"quantized": 0, "dense": 0, "tables_quantized": 0, "tables_dense": 0}
    packed_bytes = 0
    kept: dict[str, str] = {}
    seen: set[int] = set()
    heads = _heads(model)
    for name, module in model.named_modules():
        table = isinstance(module, FlexQEmbedding | nn.Embedding) or module in heads
        if isinstance(module, PackedWeight):
            for weight in module.names():
                packed, scale = module.packed(weight)
                if id(packed) in seen:
                    continue
                seen.add(id(packed))
                counts["tables_quantized" if table else "quantized"] += module.count(weight)
                packed_bytes += packed.nbytes + scale.nbytes
        elif isinstance(module, nn.Linear | nn.Embedding) or _rank3(module):
            for leaf, parameter in module.named_parameters(recurse=False):
                if parameter.dim() < 2 or id(parameter) in seen:
                    continue
                seen.add(id(parameter))
                counts["tables_dense" if table else "dense"] += parameter.numel()
                full = f"{name}.{leaf}" if name else leaf
                if not table:
                    kept[full] = reasons.get(full, "not chosen")
    return Coverage(packed_bytes=packed_bytes, kept=kept, **counts)


def _heads(model: nn.Module) -> set[nn.Module]:
    """The modules that project onto the vocabulary."""
    get = getattr(model, "get_output_embeddings", None)
    named = {m for name, m in model.named_modules() if name.rpartition(".")[2] == "lm_head"}
    head = get() if get else None
    return named | ({head} if isinstance(head, nn.Linear | FlexQLinear) else set())


def _rank3(module: nn.Module) -> bool:
    return any(
        p is not None and p.dim() == 3
        for name, p in module._parameters.items()
        if name in FlexQExperts.WEIGHTS
    )
