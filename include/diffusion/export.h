/** @file export.h
 *  Visibility of the public symbols. Define DM_STATIC when linking the static library on Windows-like
 *  platforms; elsewhere it changes nothing. */
#ifndef DIFFUSION_EXPORT_H
#define DIFFUSION_EXPORT_H

#if defined(__GNUC__) && !defined(DM_STATIC)
#define DM_API __attribute__((visibility("default")))
#else
#define DM_API
#endif

#ifdef __cplusplus
#define DM_BEGIN_DECLS extern "C" {
#define DM_END_DECLS   }
#else
#define DM_BEGIN_DECLS
#define DM_END_DECLS
#endif

#endif
