"""An embedding table of packed rows."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from flexq.torch.layout import Scheme
from flexq.torch.module import PackedWeight


class FlexQEmbedding(PackedWeight):
    """Rows of a 6-bit table `[num_embeddings, embedding_dim]`, dequantized on lookup.

    Args:
        num_embeddings: rows.
        embedding_dim: columns.
        padding_idx: kept for information; its row is stored like any other.
        scheme: how the table is quantized.
        device: where to make the parameters.
        dtype: type of the rows that a lookup gives.
    """

    weight_packed: nn.Parameter
    weight_scale: nn.Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        scheme: Scheme | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        scheme = scheme or Scheme()
        super().__init__(scheme.group_size)
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        # Empty, and first: whoever asks a model or an embedding for its floating-point type
        # looks at this parameter. It is no part of a state dict.
        self.weight = nn.Parameter(torch.empty(0, dtype=dtype, device=device), requires_grad=False)
        self.declare("weight", (num_embeddings, embedding_dim), scheme.scale_dtype, device)

    @classmethod
    def from_embedding(cls, embedding: nn.Embedding, *, scheme: Scheme | None = None) -> Self:
        """The quantized counterpart of `embedding`, on the same device."""
        scheme = scheme or Scheme()
        module = cls(
            embedding.num_embeddings,
            embedding.embedding_dim,
            embedding.padding_idx,
            scheme=scheme,
            device="meta",
            dtype=embedding.weight.dtype,
        )
        module.assign_quantized("weight", embedding.weight, scheme)
        return module.train(embedding.training)

    def assign(self, name: str, packed: Tensor, scale: Tensor, columns: int) -> None:
        """Sets the table; see `PackedWeight.assign`."""
        dtype = self.weight.dtype
        super().assign(name, packed, scale, columns)
        self.weight = nn.Parameter(
            torch.empty(0, dtype=dtype, device=packed.device), requires_grad=False
        )

    def forward(self, indices: Tensor) -> Tensor:
        """Indices `[...]`, integers; the result `[..., embedding_dim]`."""
        if indices.is_floating_point():
            raise TypeError(f"indices: expected integers, found {indices.dtype}")
        (rows,) = self.rows("weight")
        out: Tensor = torch.ops.flexq.embedding(
            indices,
            self.weight_packed,
            self.weight_scale,
            rows,
            self.embedding_dim,
            self.group("weight"),
            self.weight.dtype,
        )
        return out

    def to_dense(self, dtype: torch.dtype) -> nn.Embedding:
        """The `nn.Embedding` with the dequantized rows."""
        table = nn.Embedding(
            self.num_embeddings, self.embedding_dim, self.padding_idx, device="meta", dtype=dtype
        )
        table.weight = nn.Parameter(self.dequantize("weight", dtype), requires_grad=False)
        return table.train(self.training)

    def extra_repr(self) -> str:
        """Sizes and settings, as `print(model)` shows them."""
        return f"{self.num_embeddings}, {self.embedding_dim}, group_size={self.group_size or 'row'}"

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.pop(f"{prefix}weight")

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        *args: Any,
    ) -> None:
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, *args
        )
        if f"{prefix}weight" in missing_keys:
            missing_keys.remove(f"{prefix}weight")
