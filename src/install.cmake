# `cmake --install` brings the program, the runtime of a model's file, libelbo (shared and static), headers, a
# pkg-config file and a CMake package. Both libraries export the functions that include/elbo marks with ELBO_API.
option(ELBO_LIBRARY "build the libraries that are installed" ON)
if(NOT ELBO_LIBRARY OR ELBO_SANITIZE OR ELBO_PORTABLE OR ELBO_FUZZ)
  return()
endif()
add_library(elbo_shared SHARED ${LIB_OBJECTS})
set_target_properties(elbo_shared PROPERTIES OUTPUT_NAME elbo EXPORT_NAME elbo LINKER_LANGUAGE C
                      VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
target_include_directories(elbo_shared INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(elbo_shared PRIVATE ${LIB_LINKS} ${CUDA_LINKS})
target_link_options(elbo_shared PRIVATE -Wl,--exclude-libs,ALL -Wl,--no-undefined)
if(TARGET elbo_mpi)
  add_dependencies(elbo_shared elbo_mpi)
endif()

# The static library is one object whose inner names are local, because a program may have a pool_create of its own.
set(whole ${CMAKE_BINARY_DIR}/static/libelbo.a)
add_custom_command(OUTPUT ${whole} DEPENDS elbo_lib VERBATIM
  COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/static
  COMMAND ${CMAKE_LINKER} -r -o ${CMAKE_BINARY_DIR}/static/elbo.o --whole-archive $<TARGET_FILE:elbo_lib>
  COMMAND ${CMAKE_OBJCOPY} --localize-hidden ${CMAKE_BINARY_DIR}/static/elbo.o
  COMMAND ${CMAKE_COMMAND} -E rm -f ${whole}
  COMMAND ${CMAKE_AR} crs ${whole} ${CMAKE_BINARY_DIR}/static/elbo.o)
add_custom_target(elbo_static ALL DEPENDS ${whole})

install(TARGETS elbo elbo-infer)
install(TARGETS elbo_infer elbo_shared EXPORT elbo)
install(FILES ${whole} DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET elbo_mpi)
  install(TARGETS elbo_mpi DESTINATION ${CMAKE_INSTALL_LIBDIR}/elbo)
endif()
install(DIRECTORY include/elbo DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

# ---- manual pages and completions, made by the program itself ----
if(NOT CMAKE_CROSSCOMPILING)
  set(made ${CMAKE_BINARY_DIR}/manual)
  add_custom_command(OUTPUT ${made}/done DEPENDS elbo scripts/manual VERBATIM
    COMMAND ${CMAKE_SOURCE_DIR}/scripts/manual $<TARGET_FILE:elbo> ${made}
    COMMAND ${CMAKE_COMMAND} -E touch ${made}/done)
  add_custom_target(elbo_manual ALL DEPENDS ${made}/done)
  install(DIRECTORY ${made}/man1 DESTINATION ${CMAKE_INSTALL_MANDIR})
  install(FILES ${made}/bash/elbo DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
  install(FILES ${made}/zsh/_elbo DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
  install(FILES ${made}/fish/elbo.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
endif()

# ---- pkg-config: `pkg-config --cflags --libs elbo`, `pkg-config --static --libs elbo` ----
set(static_libs -lpthread -lm -ldl)
if(TARGET elbo_kernels)
  get_target_property(cudart CUDA::cudart_static IMPORTED_LOCATION)
  list(APPEND static_libs ${cudart} -lrt -lstdc++)
endif()
list(JOIN static_libs " " static_libs)
# from the folder of the files to the prefix, so that an installed tree can be moved
file(RELATIVE_PATH up ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/elbo.pc @ONLY CONTENT "prefix=\${pcfiledir}/@up@
libdir=\${prefix}/@CMAKE_INSTALL_LIBDIR@
includedir=\${prefix}/@CMAKE_INSTALL_INCLUDEDIR@

Name: elbo
Description: Text variational autoencoders: prepare text, train, encode, decode
Version: @PROJECT_VERSION@
Libs: -L\${libdir} -lelbo
Libs.private: @static_libs@
Requires.private: jansson, yaml-0.1, libpcre2-8, libxxhash, libsodium
Cflags: -I\${includedir}
")
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/elbo-infer.pc @ONLY CONTENT "prefix=\${pcfiledir}/@up@
libdir=\${prefix}/@CMAKE_INSTALL_LIBDIR@
includedir=\${prefix}/@CMAKE_INSTALL_INCLUDEDIR@

Name: elbo-infer
Description: The runtime of one exported text variational autoencoder: encode, write, sample, score
Version: @PROJECT_VERSION@
Libs: -L\${libdir} -lelbo-infer -lpthread -lm
Cflags: -I\${includedir}
")
install(FILES ${CMAKE_BINARY_DIR}/elbo.pc ${CMAKE_BINARY_DIR}/elbo-infer.pc
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# ---- CMake: find_package(elbo), elbo::elbo and elbo::elbo_infer ----
include(CMakePackageConfigHelpers)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/elbo-config-version.cmake COMPATIBILITY SameMinorVersion)
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/elbo-config.cmake @ONLY CONTENT "include(CMakeFindDependencyMacro)
find_dependency(Threads)
include(\${CMAKE_CURRENT_LIST_DIR}/elbo-targets.cmake)
")
install(EXPORT elbo NAMESPACE elbo:: FILE elbo-targets.cmake DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/elbo)
install(FILES ${CMAKE_BINARY_DIR}/elbo-config.cmake ${CMAKE_BINARY_DIR}/elbo-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/elbo)
