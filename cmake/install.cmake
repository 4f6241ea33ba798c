# Install rules: headers, both libraries, pkg-config file, CMake package, API description. The result can be moved.
include(CMakePackageConfigHelpers)
set(DM_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/diffusion)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(TARGETS diffusion EXPORT diffusionTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
                                                  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS diffusion_static EXPORT diffusionTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT diffusionTargets NAMESPACE diffusion:: DESTINATION ${DM_CMAKE_DIR})
if(EXISTS ${PROJECT_SOURCE_DIR}/LICENSE)
  install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
endif()

configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/diffusionConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/diffusionConfig.cmake INSTALL_DESTINATION ${DM_CMAKE_DIR})
# A program that asks for 0.1 gets 0.1.x: behaviour, not the ABI, may change in a new minor version before 1.0.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/diffusionConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/diffusionConfig.cmake ${PROJECT_BINARY_DIR}/diffusionConfigVersion.cmake
        DESTINATION ${DM_CMAKE_DIR})

# pkg-config: the prefix is found from the .pc file's own place unless the directories were given as absolute paths.
# The static library's needs are Libs.private and not Requires.private, so that a program that links the shared
# library needs no development package of zlib, libpng or BLAS.
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}" OR IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
  set(DM_PC_PREFIX ${CMAKE_INSTALL_PREFIX})
  set(DM_PC_LIBDIR ${CMAKE_INSTALL_FULL_LIBDIR})
  set(DM_PC_INCLUDEDIR ${CMAKE_INSTALL_FULL_INCLUDEDIR})
else()
  file(RELATIVE_PATH up /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
  string(REGEX REPLACE "/$" "" up "${up}")
  set(DM_PC_PREFIX "\${pcfiledir}/${up}")
  set(DM_PC_LIBDIR "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
  set(DM_PC_INCLUDEDIR "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
endif()
string(REPLACE ";" " -l" DM_PC_PRIVATE "-l${DM_LINK_NAMES}")
configure_file(${PROJECT_SOURCE_DIR}/cmake/libdiffusion.pc.in ${PROJECT_BINARY_DIR}/libdiffusion.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/libdiffusion.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
