#!/usr/bin/env python3
"""cut.py SOURCE_DIR: makes this directory's files from the full set of reference files.

A file is reduced by dropping whole cases; what is kept is copied bit for bit. A case goes with its tensors
(CASE/...) and its metadata entry (CASE)."""
import json
import os
import re
import shutil
import struct
import sys

# name: regular expression that kept cases match; the rest of the file's tensors and metadata is dropped
CUT = {
    "layers": r"(conv2d|conv_transpose2d|linear|embedding|mse)(/|$)|act/(relu|silu|sigmoid|tanh)(/|$)"
              r"|group_norm/(?!C32G8eps1e-06)|time_embedding(/t|/.*dim3[23].*)?$",
    "schedules": r"lecture_cosine/T(10|50)(/|$)|diffusers/[a-z0-9_]+/T200(/|$)"
                 r"|set_timesteps/DD(PM|IM)Scheduler/.*",
    "samplers_ddpm": r"ddpm/(epsilon-fixed_large-noclip|sample-fixed_large-clip|v_prediction-fixed_small-noclip"
                     r"|epsilon-fixed_small_log-clip|cos-clip|cliprange2|zsnr-v-trailing|custom-timesteps)(/|$)",
    "samplers_ddim": r"ddim/(epsilon-eta0|sample-eta0\.5|clip-eta1|clip-useclipped-eta0\.5|v_prediction-eta1"
                     r"|linspace|sd|zsnr-v-trailing)(/|$)",
    "gaussian_diffusion": r"q/linear-T100(/|$)|diffusers/|minimal/|model$"
                          r"|p/(x|noise|t|betas|[A-Z_]+-LEARNED_RANGE-)|loss/.*-(EPSILON|PREVIOUS_X)-|nll|kl|bpd|resample"
                          r"|sd3|flow",
    "edm": r"edm/loss",
    "torchsde": r"(?!adjoint/|.*/(grad_\w+|cotangent)$)",
    "train_lecture_unet": r"(x0|eps|t|xt|setup)$|init/|(adamw_clip|sgd_momentum)(/|$)",
}
WHOLE = ["optim.safetensors", "net_lecture_unet.weights.safetensors"] + [
    name + end
    for name in ("net_lecture_unet_add_28", "net_lecture_unet_plain_28", "net_lecture_mlp_none",
                 "net_lecture_mlp_sigmoid", "net_lecture_unet_fullwidth", "net_lecture_mlp_fullwidth")
    for end in (".io.safetensors", ".config.json", ".weights.safetensors")]


def read(path):
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(size))
        return header.pop("__metadata__", {}), header, file.read()


def write(path, metadata, tensors):
    header, data = {"__metadata__": metadata}, b""
    for name, (entry, values) in tensors.items():
        header[name] = dict(entry, data_offsets=[len(data), len(data) + len(values)])
        data += values
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def cut(source, name, pattern):
    metadata, header, data = read(os.path.join(source, name + ".safetensors"))
    keep = re.compile(pattern)
    tensors = {key: (entry, data[entry["data_offsets"][0]:entry["data_offsets"][1]])
               for key, entry in header.items() if keep.match(key)}
    metadata = {key: value for key, value in metadata.items() if keep.match(key)}
    if "setup" in metadata:  # lists its cases itself
        setup = json.loads(metadata["setup"])
        setup["optim"] = {key: value for key, value in setup["optim"].items() if keep.match(key)}
        metadata["setup"] = json.dumps(setup, sort_keys=True)
    write(name + ".safetensors", metadata, tensors)


def main():
    source = os.path.abspath(sys.argv[1])
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    for name, pattern in CUT.items():
        cut(source, name, pattern)
    for name in WHOLE:
        if os.path.exists(os.path.join(source, name)):
            shutil.copyfile(os.path.join(source, name), name)


main()
