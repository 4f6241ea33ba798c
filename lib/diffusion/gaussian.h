/* Divergence and likelihood of normal distributions, number by number, in nats; with derivatives. */
#ifndef DMI_GAUSSIAN_H
#define DMI_GAUSSIAN_H

#define DMI_LN2 0.69314718055994530942

/* KL(N(mean1, exp(log_variance1)) || N(mean2, exp(log_variance2))); d[4]: with respect to the four arguments
 * in this order, NULL: not wanted. */
double dmi_normal_kl(double mean1, double log_variance1, double mean2, double log_variance2, double *d);

/* Logarithm of the probability of the level x, one of 256 in [-1, 1], of a normal distribution that is
 * rounded to the levels, the outer two reaching to infinity: Ho et al. 2020, eq. 13. d[2]: with respect to
 * mean and log_scale (of the standard deviation), NULL: not wanted.
 *
 * The distribution function is 1/2 (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))) and a probability is at least
 * 1e-12, where the derivatives are 0: so does guided-diffusion, and so the numbers compare. */
double dmi_discretized_normal(double x, double mean, double log_scale, double *d);

#endif
