/** @file error.h
 *  Status names and the last error message. */
#ifndef DIFFUSION_ERROR_H
#define DIFFUSION_ERROR_H

#include "diffusion/types.h"

DM_BEGIN_DECLS

/** Message of the last failed call on the calling thread.
 *
 *  Names the argument, what was expected and what came, for example
 *  "x0: expected f32 [4,1,28,28], got f32 [4,28,28]". Successful calls leave it as it was.
 *  @return NUL-terminated UTF-8 in a fixed per-thread buffer (works when memory is exhausted), "" when no
 * call has failed yet; valid until the next failure on this thread. Never NULL. Ownership: the library's.
 * Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_last_error(void);

/** Status of the last failed call on the calling thread.
 *  @return a DM_ERROR_* value, or DM_OK when no call has failed yet on this thread.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_last_status(void);

/** Name of a status, "DM_ERROR_SHAPE" for example.
 *  @param status any value
 *  @return static string; "unknown status" for a value that is none. Never NULL.
 *  Ownership: static. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_status_name(dm_status status);

DM_END_DECLS

#endif
