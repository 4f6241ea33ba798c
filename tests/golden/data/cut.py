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
                 r"|set_timesteps/DD(PM|IM)Scheduler/.*|set_timesteps/(KDPM2|UniPC|FlowMatchHeun|LCM|TCD|IPNDM).*-N10(/|$)"
                 r"|set_timesteps/(EulerDiscrete|DPMSolverMultistep)Scheduler/(beta|log_linear|continuous|lu|flow3|zsnr)-N10(/|$)"
                 r"|guided/(respace|\w+/T200)",
    "samplers_ddpm": r"ddpm/(epsilon-fixed_large-noclip|sample-fixed_large-clip|v_prediction-fixed_small-noclip"
                     r"|epsilon-fixed_small_log-clip|cos-clip|cliprange2|zsnr-v-trailing|custom-timesteps)(/|$)",
    "samplers_ddim": r"ddim/(epsilon-eta0|sample-eta0\.5|clip-eta1|clip-useclipped-eta0\.5|v_prediction-eta1"
                     r"|linspace|sd|zsnr-v-trailing)(/|$)|ddim_inverse/v(/|$)",
    "samplers_dpmsolver": r"dpmpp/(order3-gauss|lu|cos-clippedlambda|thresholding)(/|$)|sde-dpmpp/order2-heun(/|$)"
                          r"|sde-dpm/order2-midpoint(/|$)|dpm/order3(/|$)|dpmpp_single/heun-N20(/|$)|dpm_single/order3(/|$)",
    "samplers_edm_flow_lcm": r"edm_euler/churn(/|$)|edm_dpmpp/(order3-gauss|sde)(/|$)|flow_heun/shift3-gauss(/|$)"
                             r"|flow_euler/(dyn|stochastic)(/|$)|flow_unipc/|(lcm|tcd|cm)/N4(/|$)",
    "samplers_euler": r"euler/(karras|churn|leading)(/|$)|euler_a/(v_prediction|zsnr-v-trailing)(/|$)",
    "samplers_heun_kdpm2": r"heun/(karras|clip)(/|$)|kdpm2/gauss(/|$)|kdpm2_a/v(/|$)",
    "samplers_pndm_lms": r"pndm/(prk-tanh|plms-gauss|v)(/|$)|ipndm/tanh(/|$)|lms/(order3-gauss|leading)(/|$)",
    "samplers_unipc_deis": r"unipc/(order3-bh2|order3-bh1-sigma_min|order2-epsform|nocorr01)(/|$)|deis/order3(/|$)"
                           r"|sasolver/",
    "guidance": r"cfg(/|$)|cfg_loop/Euler.*-s7|cfg_loop/DPM.*-s3|img2img/(image|noise)$|img2img/(Euler|DPM).*-0\.75"
                r"|repaint/(image|mask|eta1)",
    "gaussian_diffusion": r"q/linear-T100(/|$)|diffusers/|minimal/|model$"
                          r"|step|loop|p/(x|noise|t|betas|[A-Z_]+-LEARNED_RANGE-)|loss/.*-(EPSILON|PREVIOUS_X)-|nll|kl|bpd|resample"
                          r"|sd3|flow",
    "edm": r"edm/loss",
    "kdiffusion": r"x_init$|external(/|$)|sigmas/(vp|karras|exponential|polyexponential-rho0\.7)-N10$|euler-s_churn.*-karras-tanh(/|$)"
                  r"|(euler_ancestral-eta0\.5|heun|dpm_2_ancestral.*|dpmpp_2s_ancestral.*|dpmpp_sde.*)-karras-gauss(/|$)"
                  r"|(dpmpp_2m_sde.*heun|dpmpp_3m_sde-eta0\.4)-karras-tanh(/|$)|dpm_(fast|adaptive)-eta0\.7-tanh(/|$)",
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
