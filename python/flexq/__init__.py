"""Language models in 6 bits: quantize, pack, store and multiply."""

from flexq._flexq import FormatError, NonFiniteError, QTensor

__all__ = ["FormatError", "NonFiniteError", "QTensor"]
