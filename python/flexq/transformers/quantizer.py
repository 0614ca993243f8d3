"""flexq as one of transformers' quantization methods."""

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.quantizers.base import HfQuantizer
from transformers.utils import logging

from flexq.torch import FlexQEmbedding, PackedWeight, coverage, dequantize_model_, prepare
from flexq.torch.convert import empty_like, replace_
from flexq.torch.report import WARN_ABOVE
from flexq.torch.select import Choice, Target, candidates, choose
from flexq.transformers.checkpoint import PACKED, SCALE, packed_weights, read_headers
from flexq.transformers.config import FlexQConfig
from flexq.transformers.conversions import Quantize, for_loading, for_saving
from flexq.transformers.parallel import adjust_plan, check_alignment, is_shared
from flexq.transformers.saving import install, uninstall
from flexq.transformers.ties import retie, retie_dense, settle, untie

logger = logging.get_logger("transformers.flexq")


class FlexQQuantizer(HfQuantizer):
    """Loads packed checkpoints, quantizes dense ones while they load, and saves either.

    A packed checkpoint decides itself what becomes a flexq module: exactly the
    weights that it holds packed. The patterns of the configuration count when a
    dense checkpoint is quantized.
    """

    requires_calibration = False
    quantization_config: FlexQConfig

    def __init__(self, quantization_config: FlexQConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self.choice = Choice()
        self.dtypes: dict[str, torch.dtype] = {}

    @property
    def quantized_element_size(self) -> float:
        """Bytes of a weight that is quantized on load, which device maps are planned with."""
        return 6.125 / 8

    def is_serializable(self) -> bool:
        """Saving writes the packed bytes."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Packed weights have no gradient."""
        return False

    @property
    def is_compileable(self) -> bool:
        """`generate` may compile the model with a static cache."""
        return True

    def validate_environment(self, *_: Any, device_map: Any = None, **__: Any) -> None:
        """Refuses device maps that leave packed weights on the disk.

        Raises:
            ValueError: naming the module.
        """
        places = device_map.items() if isinstance(device_map, dict) else [("", device_map)]
        for module, place in places:
            if str(place) in ("disk", "meta"):
                raise ValueError(
                    f"device_map puts {module or 'the model'} on {str(place)!r}: packed weights "
                    "live in memory, on the CPU or on GPUs"
                )

    def param_needs_quantization(self, model: Any, param_name: str, **_: Any) -> bool:
        """Whether a tensor of a dense checkpoint is packed as it is loaded."""
        path, _dot, leaf = param_name.rpartition(".")
        module = model.get_submodule(path)
        return (
            not self.pre_quantized and isinstance(module, PackedWeight) and leaf in module.names()
        )

    def _process_model_before_weight_loading(
        self, model: Any, checkpoint_files: list[str] | None = None, **_: Any
    ) -> None:
        if self.pre_quantized:
            self._expect_packed(model, checkpoint_files)
        elif is_shared(model):
            raise ValueError(
                "quantizing while loading works in one process: pack the model with flexq-pack, "
                "then load the result in several"
            )
        else:
            self._expect_dense(model)
        adjust_plan(model)
        self.dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}

    def _expect_packed(self, model: Any, files: list[str] | None) -> None:
        """Replaces the modules whose weights the checkpoint holds packed."""
        if not files or not all(file.endswith(".safetensors") for file in files):
            raise ValueError("a flexq model is loaded from safetensors files")
        packed, dense = packed_weights(model, read_headers(files))
        if not packed:
            raise ValueError(
                "config.json says flexq, but the checkpoint holds no packed weight: "
                "pack it again with flexq-pack"
            )
        ties = [t for t, s in model.all_tied_weights_keys.items() if t in packed or s in packed]
        for target in ties:
            source = model.all_tied_weights_keys[target]
            if (target in dense or source in dense) or (target in packed and source in packed):
                untie(model, target)
            else:
                entry = packed.get(target) or packed[source]
                packed.setdefault(target, entry)
                packed.setdefault(source, entry)
                retie(model, target)
        found, _ = candidates(model)
        known = {target.parameter: target for target in found}
        if strange := sorted(packed.keys() - known.keys()):
            raise ValueError(
                f"{packed[strange[0]].name} is packed, but {type(model).__name__} has no linear "
                f"layer, embedding or stack of experts at {strange[0]} that could hold it"
            )
        self.choice.targets = [known[name] for name in packed]
        names = {"U16": "PAIR"}
        dtypes = {names.get(e.scale.dtype, e.scale.dtype) for e in packed.values()}
        if len(dtypes) > 1:
            raise ValueError(f"scales of several types in one checkpoint: {sorted(dtypes)}")
        self.quantization_config.scale_dtype = dtypes.pop()
        self._replace(model, self.choice.targets)
        for name, entry in packed.items():
            path, _dot, leaf = name.rpartition(".")
            for suffix, stored in ((PACKED, entry.packed), (SCALE, entry.scale)):
                expected = tuple(getattr(model.get_submodule(path), leaf + suffix).shape)
                if known[name].kind != "experts" and stored.shape != expected:
                    raise ValueError(
                        f"{entry.name}{suffix}: expected shape {expected} for groups of "
                        f"{self.quantization_config.group_size}, found {stored.shape}"
                    )

    def _expect_dense(self, model: Any) -> None:
        """Replaces the modules to quantize; tables wait until ties are known to be right."""
        config = self.quantization_config
        self.choice = choose(model, config.preset, config.include, config.modules_to_not_convert)
        if not self.choice.targets:
            raise ValueError(f"{type(model).__name__} has no weight to quantize")
        config.activations().check_matched(self.choice.products())
        targets = [target for target in self.choice.targets if not self._is_table(model, target)]
        shapes = {target: model.get_parameter(target.parameter) for target in targets}
        self._replace(model, targets)
        for target, placeholder in shapes.items():
            # transformers loads only what the model seems to have
            leaf = target.parameter.rpartition(".")[2]
            model.get_submodule(target.module).await_dense(leaf, placeholder)

    def _is_table(self, model: Any, target: Target) -> bool:
        head = model.get_output_embeddings()
        return target.kind == "embedding" or model.get_submodule(target.module) is head

    def _replace(self, model: Any, targets: list[Target]) -> None:
        config = self.quantization_config
        for name in Choice(targets).modules():
            packed = empty_like(
                name,
                model.get_submodule(name),
                config.scheme(),
                config.activations(),
            )
            model.set_submodule(name, packed)

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
        config = self.quantization_config
        if not self.pre_quantized:
            self._quantize_tables(model)
        for name, parameter in model.named_parameters():
            # transformers 5.17 leaves tensors that it renames in the type of the file
            if parameter.dtype != self.dtypes.get(name, parameter.dtype):
                parameter.data = parameter.data.to(self.dtypes[name])
        self.remember_conversions(model)
        offloaded = {"cpu", "disk"} & set(map(str, getattr(model, "hf_device_map", {}).values()))
        for name, module in model.named_modules():
            if not isinstance(module, PackedWeight):
                continue
            for weight in module.names():
                for parameter in module.packed(weight):
                    parameter.requires_grad_(False)
                    if parameter.is_meta and not offloaded:
                        raise ValueError(f"{name}.{weight}: the checkpoint gave it no value")
            if isinstance(module, FlexQEmbedding):
                if module.weight_packed.is_meta:
                    raise ValueError(
                        f"device_map puts {name} on the CPU beside GPUs: a packed embedding is "
                        "used where it is, so give it to a GPU"
                    )
                # the type of its rows is no part of the checkpoint
                module.assign("weight", *module.packed("weight"), module.embedding_dim)
            check_alignment(name, module)
        if config.dequantize:
            return self._dequantize(model)
        install(model)
        report = coverage(prepare(model), self.choice.kept)
        logger.info(str(report))
        if report.share_dense > WARN_ABOVE:
            logger.warning(str(report))
        return model

    def own(self, model: Any) -> None:
        """Marks a model that was quantized in memory as one of this quantizer."""
        model.hf_quantizer = self
        model.config.quantization_config = self.quantization_config
        model.quantization_method = self.quantization_config.quant_method
        model.is_quantized = True
        for module in model.modules():
            if isinstance(module, PreTrainedModel):
                module.config._is_quantized = True
        self.remember_conversions(model)
        install(model)

    def remember_conversions(self, model: Any) -> None:
        """Lets saving undo what loading did to names and experts, packed ones too."""
        conversions = getattr(model, "_weight_conversions", None)
        if conversions is None:
            conversions = get_model_conversion_mapping(model)
        model._weight_conversions = for_saving(conversions)

    def _quantize_tables(self, model: Any) -> None:
        tables = [t for t in self.choice.targets if self._is_table(model, t)]
        settle(model, {target.parameter for target in tables})
        config = self.quantization_config
        modules = Choice(tables).modules()
        replace_(model, modules, config.scheme(), config.activations())

    def dequantize(self, model: Any, dtype: torch.dtype | None = None) -> Any:
        """Makes a packed model dense, in the type of its other weights unless told otherwise."""
        uninstall(self._dequantize(model, dtype))
        self.remove_quantization_config(model)
        return model

    def _dequantize(self, model: Any, dtype: torch.dtype | None = None) -> Any:
        retie_dense(model)
        return dequantize_model_(model, dtype or model.dtype)

    def get_quantize_ops(self) -> Quantize:
        """The step that packs a tensor of a dense checkpoint."""
        return Quantize(self.quantization_config.scheme())

    def update_weight_conversions(self, weight_conversions: list[Any], model: Any = None) -> Any:
        """Lets experts stored apart be merged when they are packed (5.17 passes no model)."""
        return for_loading(weight_conversions)
