/* Ancestral steps in sigma (k-diffusion): a deterministic step from `from` to sigma_down < to, then noise of
 * standard deviation sigma_up with sigma_down^2 + sigma_up^2 = to^2. With ancestral_eta 1 the noise has the
 * variance of q(x_to | x_from, x0), as in DDPM. */
#include <math.h>

#include "samplers/algorithm.h"

double dmi_ancestral_eta(const dm_scheduler_options *options) {
    return options->ancestral_eta > 0 ? options->ancestral_eta : 1.0;
}

double dmi_ancestral_up(double eta, double from, double to) {
    return fmin(to, eta * sqrt(fmax(0.0, to * to * (from * from - to * to))) / from);
}

double dmi_ancestral_down(double eta, double from, double to) {
    const double up = dmi_ancestral_up(eta, from, to);
    return sqrt(fmax(0.0, to * to - up * up));
}
