/** @file diffusion.h
 *  libdiffusion: simulate, train and sample diffusion models. This header includes the whole stable API. */
#ifndef DIFFUSION_H
#define DIFFUSION_H

#include "diffusion/adm.h"
#include "diffusion/classifier.h"
#include "diffusion/context.h"
#include "diffusion/edm.h"
#include "diffusion/edm_net.h"
#include "diffusion/error.h"
#include "diffusion/evaluate.h"
#include "diffusion/flow.h"
#include "diffusion/io.h"
#include "diffusion/loss.h"
#include "diffusion/net.h"
#include "diffusion/precondition.h"
#include "diffusion/pretrained.h"
#include "diffusion/rng.h"
#include "diffusion/sampler.h"
#include "diffusion/scheduler.h"
#include "diffusion/score_sde.h"
#include "diffusion/sde.h"
#include "diffusion/sde_gradient.h"
#include "diffusion/tensor.h"
#include "diffusion/trainer.h"
#include "diffusion/types.h"
#include "diffusion/unet.h"
#include "diffusion/unet2d.h"
#include "diffusion/version.h"

#endif
