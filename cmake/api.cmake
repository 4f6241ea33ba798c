# libdiffusion-api.json: functions, parameters, struct offsets and constants, read from the public headers and
# measured by a program that the compiler in use made. For authors of bindings.
find_program(DM_AWK awk)
if(NOT DM_AWK OR (CMAKE_CROSSCOMPILING AND NOT CMAKE_CROSSCOMPILING_EMULATOR))
  return()
endif()
file(GLOB DM_PUBLIC_HEADERS CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/include/diffusion/*.h)
set(DM_API_PROGRAM ${PROJECT_BINARY_DIR}/describe-api.c)
set(DM_API_JSON ${PROJECT_BINARY_DIR}/libdiffusion-api.json)
add_custom_command(OUTPUT ${DM_API_PROGRAM}
                   COMMAND ${CMAKE_COMMAND} -E env LC_ALL=C ${DM_AWK} -v mode=program
                           -f ${PROJECT_SOURCE_DIR}/cmake/api.awk ${DM_PUBLIC_HEADERS} > ${DM_API_PROGRAM}
                   DEPENDS ${PROJECT_SOURCE_DIR}/cmake/api.awk ${DM_PUBLIC_HEADERS} VERBATIM)
add_executable(describe-api ${DM_API_PROGRAM})
target_include_directories(describe-api PRIVATE ${PROJECT_SOURCE_DIR}/include)
add_custom_command(OUTPUT ${DM_API_JSON} COMMAND describe-api json > ${DM_API_JSON} DEPENDS describe-api VERBATIM)
add_custom_target(api-json ALL DEPENDS ${DM_API_JSON})
if(DM_INSTALL)
  install(FILES ${DM_API_JSON} DESTINATION ${CMAKE_INSTALL_DATADIR}/diffusion)
endif()
