/* The public face of kernels/precondition.h. */
#include "diffusion/precondition.h"

#include <math.h>
#include <string.h>

#include "core/core.h"
#include "kernels/precondition.h"

static const dm_preconditioning_options defaults = {.type = DM_PRECONDITIONING_EDM,
                                                    .sigma_data = 0.5,
                                                    .beta_d = 19.9,
                                                    .beta_min = 0.1,
                                                    .num_timesteps = 1000};

_Static_assert(DM_PRECONDITIONING_NONE == (int)DMI_PRECONDITION_NONE &&
                   DM_PRECONDITIONING_VP == (int)DMI_PRECONDITION_VP &&
                   DM_PRECONDITIONING_VE == (int)DMI_PRECONDITION_VE &&
                   DM_PRECONDITIONING_EDM == (int)DMI_PRECONDITION_EDM,
               "public and internal preconditionings have the same numbers");

static const char *const names[] = {[DM_PRECONDITIONING_NONE] = "none",
                                    [DM_PRECONDITIONING_VP] = "vp",
                                    [DM_PRECONDITIONING_VE] = "ve",
                                    [DM_PRECONDITIONING_EDM] = "edm"};

const char *dm_preconditioning_name(dm_preconditioning value) {
    return value >= DM_PRECONDITIONING_NONE && value <= DM_PRECONDITIONING_EDM ? names[value] : NULL;
}

dm_preconditioning dm_preconditioning_from_name(const char *name) {
    for (int32_t i = DM_PRECONDITIONING_NONE; name && i <= DM_PRECONDITIONING_EDM; i++)
        if (strcmp(names[i], name) == 0) return i;
    return 0;
}

void dm_preconditioning_options_init(dm_preconditioning_options *options, uint32_t struct_size) {
    dmi_options_init(options, struct_size, &defaults, sizeof defaults);
}

static dm_status check_positive(const char *field, double value) {
    if (value > 0 && isfinite(value)) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "%s: expected a finite number > 0, got %g", field, value);
}

static dm_status check(const dm_preconditioning_options *o) {
    dm_status status = DM_OK;
    if (!dm_preconditioning_name(o->type))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.type: expected DM_PRECONDITIONING_*, got %d",
                        o->type);
    DM_TRY(check_positive("options.sigma_data", o->sigma_data));
    DM_TRY(check_positive("options.beta_d", o->beta_d));
    DM_TRY(check_positive("options.beta_min", o->beta_min));
    if (o->num_timesteps < 1)
        status = dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.num_timesteps: expected 1 or more, got %d",
                          o->num_timesteps);
done:
    return status;
}

dm_status dm_preconditioning_coefficients(const dm_preconditioning_options *options, double sigma,
                                          double *c_skip, double *c_out, double *c_in, double *c_noise) {
    dm_preconditioning_options o = defaults;
    dm_status status = DM_OK;
    if (options) DM_TRY(dmi_options_read(&o, sizeof o, options, "dm_preconditioning_options"));
    DM_TRY(check(&o));
    DM_TRY(check_positive("sigma", sigma));
    const dmi_precondition p = {o.type, o.sigma_data, o.beta_d, o.beta_min, o.num_timesteps};
    if (c_skip) *c_skip = dmi_precondition_coefficient(&p, DMI_C_SKIP, sigma);
    if (c_out) *c_out = dmi_precondition_coefficient(&p, DMI_C_OUT, sigma);
    if (c_in) *c_in = dmi_precondition_coefficient(&p, DMI_C_IN, sigma);
    if (c_noise) *c_noise = dmi_precondition_coefficient(&p, DMI_C_NOISE, sigma);
done:
    return status;
}
