/** @file rng.h
 *  dm_rng: counter-based random numbers, Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random
 * numbers: as easy as 1, 2, 3", SC 2011). A value is a function of (seed, stream, index) alone, so the same
 * seed gives the same numbers for any batch split, thread count, instruction set and machine.
 *
 *  Block b of a stream is Philox of counter (b mod 2^32, b / 2^32, stream mod 2^32, stream / 2^32) and key
 *  (seed mod 2^32, seed / 2^32); it holds the 32-bit words 4b..4b+3. What a call takes from its position
 * `index` on:
 *  - n normals: index rises to a multiple of 4, then value k comes from block index / 4 + k / 4 (words 0 and
 * 1 give values 0 and 1 of the block, words 2 and 3 give 2 and 3); index grows by n rounded up to a multiple
 * of 4;
 *  - n uniform numbers: 1 word each;
 *  - n integers: 2 words each, the lower half first;
 *  - a permutation of n: 2 words for each of its n - 1 swaps, the last element first.
 *  A call that writes no element or fails leaves index as it was. */
#ifndef DIFFUSION_RNG_H
#define DIFFUSION_RNG_H

#include "diffusion/types.h"

DM_BEGIN_DECLS

/** Position of a generator; plain numbers, so that it can be written to a file and read back. */
typedef struct dm_rng_state {
    uint64_t seed;   /**< Philox key */
    uint64_t stream; /**< upper half of the Philox counter */
    uint64_t index;  /**< next 32-bit-word position within the stream: 4 words a block */
} dm_rng_state;

/** Creates a generator at index 0.
 *  @param context allocator, NULL: default
 *  @param seed any number: the key
 *  @param stream any number; different streams of one seed are independent
 *  @param out [out] the generator; free with dm_rng_destroy()
 *  Errors: INVALID_ARGUMENT, OUT_OF_MEMORY. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_rng_create(dm_context *context, uint64_t seed, uint64_t stream, dm_rng **out);
/** Destroys a generator. @param rng may be NULL. Errors: none. Threads: exclusive. Cost: O(1). Since: 0.1 */
DM_API void dm_rng_destroy(dm_rng *rng);
/** Reads the position. @param rng not NULL. @param state [out] filled. Errors: INVALID_ARGUMENT. Threads:
 * any. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_rng_get_state(const dm_rng *rng, dm_rng_state *state);
/** Moves to a position that dm_rng_get_state() gave, or any other. @param rng not NULL. @param state not
 * NULL. Errors: INVALID_ARGUMENT. Threads: exclusive. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_rng_set_state(dm_rng *rng, const dm_rng_state *state);

/** Fills a tensor with standard normal numbers; advances to a multiple of 4 words, then by 4 words per 4
 * values begun. Box-Muller on Philox words with the library's own logarithm and sine, exactly rounded
 * operations in a fixed order (Box and Muller, "A note on the generation of random normal deviates", Ann.
 * Math. Stat. 29, 1958): z0 = sqrt(-2 log u1) cos(2 pi u2), z1 = sqrt(-2 log u1) sin(2 pi u2), u1 in [2^-33,
 * 1], so |z| < 6.8. Value k is written to element k in row-major order.
 *  @param rng generator
 *  @param out [out] f32 or f64 (an f64 is the f32 value widened), any layout
 *  Errors: INVALID_ARGUMENT, DTYPE. Threads: rng exclusive. Cost: O(n), spread over the context's threads.
 * Since: 0.1 */
DM_API dm_status dm_rng_normal(dm_rng *rng, dm_tensor *out);
/** Fills a tensor with uniform numbers: low + (high - low) * u, u in [0,1) with 24 bits; advances by 1 word a
 * value. Computed in double and rounded to the tensor's type, which can round up to `high` when low is not 0.
 *  @param rng generator
 *  @param low,high finite in the tensor's type, low <= high, high - low finite
 *  @param out [out] f32 or f64, any layout
 *  Errors: INVALID_ARGUMENT, DTYPE. Threads: rng exclusive. Cost: O(n). Since: 0.1 */
DM_API dm_status dm_rng_uniform(dm_rng *rng, double low, double high, dm_tensor *out);
/** Fills a tensor with integers from [low, high), each exactly equally likely up to 2^-64 bias (64-bit
 * multiply-shift). Advances by 2 words a value.
 *  @param rng generator
 *  @param low,high low < high, high - low <= 2^32; the integers must fit the tensor's type
 *  @param out [out] i32 or i64, any layout
 *  Errors: INVALID_ARGUMENT, DTYPE. Threads: rng exclusive. Cost: O(n). Since: 0.1 */
DM_API dm_status dm_rng_integers(dm_rng *rng, int64_t low, int64_t high, dm_tensor *out);
/** Fills a tensor with a random order of 0..n-1 (Fisher-Yates); advances by 2 words a swap.
 *  @param rng generator
 *  @param out [out] i32 or i64 [n], contiguous, n < 2^31
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE. Threads: rng exclusive. Cost: O(n). Since: 0.1 */
DM_API dm_status dm_rng_permutation(dm_rng *rng, dm_tensor *out);

/** One Philox4x32-10 block, for checking against other implementations.
 *  @param counter [4] in, @param key [2] in, @param out [4] out
 *  Errors: INVALID_ARGUMENT (NULL). Threads: any. Cost: ten rounds. Since: 0.1 */
DM_API dm_status dm_philox4x32(const uint32_t *counter, const uint32_t *key, uint32_t *out);

DM_END_DECLS

#endif
