"""One adapter for each engine in the race: load a network, then run it again and again.

All of them compute in float32, are told the batch beforehand and use the settings that their makers
recommend for latency. To add an engine is to add a function and a row of `ENGINES`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from striate.layers.arguments import Array
from striate.race.cases import Case, UnavailableError
from striate.race.files import Files

if TYPE_CHECKING:
    from striate.layers import Module

# Computes the same images again and gives the logits.
Runner = Callable[[], Array]


@dataclass(frozen=True, slots=True)
class Engine:
    """How to bring a network to run: `prepare` makes its files, `load` reads them.

    `load` gets a folder in which the engine may keep what it compiles, or None; `keep` is called
    after the first run to keep more there. `packages` are the distributions it needs.
    """

    prepare: Callable[[Files, Case], object]
    load: Callable[[Files, Case, Path | None], Runner]
    packages: tuple[str, ...]
    keep: Callable[[Files, Case, Path], object] = lambda files, case, kept: None

    def missing(self) -> tuple[str, ...]:
        """The packages that are not installed."""
        return tuple(package for package in self.packages if find_spec(package) is None)


def striate(algorithm: str) -> Engine:
    """This package; `algorithm` is what `compile` takes."""

    def network(files: Files, case: Case) -> "Module":
        from striate.models import create
        from striate.weights import read

        model = create(case.network)
        model.load_state_dict(read(files.weights(case.network)))
        return model

    def load(files: Files, case: Case, kept: Path | None) -> Runner:
        given = np.ascontiguousarray(case.images().transpose(0, 2, 3, 1))
        path = _artifact(kept, case)
        if path is not None and path.exists():
            from striate.weights.artifact import load

            compiled = load(path, threads=case.threads)
            return lambda: compiled(given)
        model = network(files, case)
        return lambda: model(given, threads=case.threads, algorithm=algorithm)

    def keep(files: Files, case: Case, kept: Path) -> None:
        path = _artifact(kept, case)
        if path is not None and not path.exists():
            from striate.weights.artifact import save

            batch, features, *size = case.images().shape
            save(network(files, case), path, (batch, *size, features), algorithm=algorithm)

    return Engine(lambda files, case: files.weights(case.network), load, (), keep)


def _artifact(kept: Path | None, case: Case) -> Path | None:
    return kept and kept / f"{case.network}-{case.batch}.striate"


def onnxruntime(files: Files, case: Case, _: Path | None) -> Runner:
    """ONNX Runtime: all graph optimisations; its pool spins on after a call, by default."""
    ort = import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = case.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_free_dimension_override_by_name("b", case.batch)
    options.log_severity_level = 3
    session = ort.InferenceSession(
        str(files.onnx(case.network)), options, providers=["CPUExecutionProvider"]
    )
    feed = {"x": case.images()}

    def run() -> Array:
        logits: Array = session.run(["y"], feed)[0]
        return logits

    return run


def openvino(files: Files, case: Case, kept: Path | None) -> Runner:
    """OpenVINO: latency hint, one stream, float32 (its default would allow bfloat16)."""
    module = import_module("openvino")
    core = module.Core()
    images = case.images()
    model = core.read_model(str(files.onnx(case.network)))
    model.reshape(list(images.shape))
    settings = {
        "INFERENCE_NUM_THREADS": case.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    if kept is not None:
        settings["CACHE_DIR"] = str(kept)
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    tensor = module.Tensor(images, shared_memory=True)

    def run() -> Array:
        # Said here so that the closure keeps the shared memory alive.
        request.set_input_tensor(tensor)
        request.infer()
        logits: Array = request.get_output_tensor().data
        return logits

    return run


def ncnn(files: Files, case: Case, _: Path | None) -> Runner:
    """ncnn: converted by pnnx; Winograd and packed layouts by default, but nothing in 16 bits."""
    module = import_module("ncnn")
    param, weights = files.ncnn(case)
    net = module.Net()
    halves = ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage")
    for option in (*halves, "vulkan_compute"):
        setattr(net.opt, f"use_{option}", False)
    net.opt.num_threads = case.threads
    if net.load_param(str(param)) or net.load_model(str(weights)):
        raise UnavailableError(f"ncnn cannot load {param}")
    images, several = case.images(), case.batch > 1
    shared = module.Mat(images, batch_index=0) if several else module.Mat(images[0])
    given = shared.clone()  # a Mat made of an array does not keep the array alive

    def run() -> Array:
        with net.create_extractor() as extractor:
            extractor.input("in0", given)
            status, output = extractor.extract("out0")
        if status:
            raise UnavailableError(f"ncnn cannot run {case}: it returned {status}")
        logits: Array = output.numpy(batch_index=0) if several else np.array(output)[None]
        return logits

    return run


def torch(files: Files, case: Case, _: Path | None) -> Runner:
    """PyTorch: torchvision's network, features last, traced and frozen for inference."""
    module = import_module("torch")
    module.set_num_threads(case.threads)
    build = import_module("torchvision").models.get_model
    takes_heads = case.network in ("googlenet", "inception_v3")
    heads = {"aux_logits": True, "init_weights": False} if takes_heads else {}
    model = build(case.network, weights=None, **heads)
    read = import_module("safetensors.torch").load_file
    model.load_state_dict(read(files.weights(case.network)), strict=False)
    model = model.eval().to(memory_format=module.channels_last)
    given = module.from_numpy(case.images()).to(memory_format=module.channels_last)
    with module.inference_mode():
        frozen = module.jit.optimize_for_inference(module.jit.trace(model, given))

    def run() -> Array:
        with module.inference_mode():
            logits: Array = frozen(given).numpy()
        return logits

    return run


def _onnx(files: Files, case: Case) -> object:
    return files.onnx(case.network)


OURS = "striate"
PEERS: Mapping[str, Engine] = {
    "onnxruntime": Engine(_onnx, onnxruntime, ("onnxruntime", "onnx")),
    "openvino": Engine(_onnx, openvino, ("openvino", "onnx")),
    "ncnn": Engine(lambda files, case: files.ncnn(case), ncnn, ("ncnn", "pnnx", "onnx")),
    "torch": Engine(
        lambda files, case: files.weights(case.network), torch, ("torch", "torchvision")
    ),
}


def find(name: str, algorithm: str = "auto") -> Engine:
    """The engine `name`; ValueError, which names those there are, if there is none."""
    if name == OURS:
        return striate(algorithm)
    if name not in PEERS:
        raise ValueError(f"no peer {name!r}; there are {', '.join(PEERS)}")
    return PEERS[name]


def version(name: str) -> str:
    """The installed version of `name`."""
    return metadata.version(name)
