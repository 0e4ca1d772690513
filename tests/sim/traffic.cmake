# A training step on the emulated GPU, every launch and every byte of device memory counted: the kernels compiled once
# more with the checks of -fsanitize=kernel-address, which traffic.cpp turns into counters. g++ only, and no sanitizer
# beside it.
if(ELBO_SANITIZE OR NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  return()
endif()
add_library(elbo_kernels_traced STATIC EXCLUDE_FROM_ALL ${KERNEL_WRAPPERS})
target_compile_options(elbo_kernels_traced PRIVATE -fno-strict-aliasing -Wno-maybe-uninitialized
                       -fsanitize=kernel-address
                       "SHELL:--param asan-instrumentation-with-call-threshold=0" "SHELL:--param asan-stack=0"
                       "SHELL:--param asan-globals=0")
target_link_libraries(elbo_kernels_traced PUBLIC elbo_sim_runtime)
add_executable(sim_step step.c)
target_include_directories(sim_step PRIVATE include ${PROJECT_SOURCE_DIR}/tests ${PROJECT_SOURCE_DIR}/src
                           ${PROJECT_SOURCE_DIR}/include)
target_compile_definitions(sim_step PRIVATE _GNU_SOURCE)
target_link_libraries(sim_step PRIVATE elbo_sim_host elbo_kernels_traced PkgConfig::CMOCKA ${LIB_LINKS})
set_target_properties(sim_step PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests LINKER_LANGUAGE CXX)
add_test(NAME sim/step COMMAND sim_step)
elbo_test_properties(sim/step)
