/* The four numbers that make a denoiser of a network, D(x; sigma) = c_skip x + c_out F(c_in x; c_noise):
 * Karras et al. 2022, equation 7 and table 1. The one place where they are written. */
#ifndef DMI_PRECONDITION_H
#define DMI_PRECONDITION_H

#include <math.h>
#include <stdint.h>

/* Equal to the public DM_PRECONDITIONING_*. */
enum {
    DMI_PRECONDITION_NONE = 1,
    DMI_PRECONDITION_VP = 2,
    DMI_PRECONDITION_VE = 3,
    DMI_PRECONDITION_EDM = 4
};

typedef enum dmi_coefficient { DMI_C_SKIP, DMI_C_OUT, DMI_C_IN, DMI_C_NOISE } dmi_coefficient;

typedef struct dmi_precondition {
    int32_t type;            /* DMI_PRECONDITION_* */
    double sigma_data;       /* EDM */
    double beta_d, beta_min; /* VP: beta(t) = beta_min + beta_d t */
    double steps;            /* VP: c_noise is a timestep of that many, not necessarily whole */
} dmi_precondition;

/* t(sigma) of the VP process. */
static inline double dmi_vp_time(const dmi_precondition *p, double sigma) {
    const double b = p->beta_min;
    return (sqrt(b * b + 2 * p->beta_d * log1p(sigma * sigma)) - b) / p->beta_d;
}

static inline double dmi_precondition_coefficient(const dmi_precondition *p, dmi_coefficient which,
                                                  double sigma) {
    const double data = p->sigma_data, total = sigma * sigma + data * data;
    switch (p->type) {
    case DMI_PRECONDITION_VP: {
        const double c[] = {1, -sigma, 1 / sqrt(sigma * sigma + 1), (p->steps - 1) * dmi_vp_time(p, sigma)};
        return c[which];
    }
    case DMI_PRECONDITION_VE: {
        const double c[] = {1, sigma, 1, log(0.5 * sigma)};
        return c[which];
    }
    case DMI_PRECONDITION_EDM: {
        const double c[] = {data * data / total, sigma * data / sqrt(total), 1 / sqrt(total), log(sigma) / 4};
        return c[which];
    }
    default: {
        const double c[] = {0, 1, 1, sigma};
        return c[which];
    }
    }
}

#endif
