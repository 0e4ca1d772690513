# The library with the CUDA backend over the emulated GPU, and elbo-sim: the whole program with it (`--device=cuda`).
# Neither ever ships. The file that opens cuBLASLt at run time is replaced, because cuBLASLt is linked here.
file(GLOB sim_backend_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/cuda/*.c)
list(FILTER sim_backend_sources EXCLUDE REGEX "/(absent|libraries|nccl_absent|nccl_library)\\.c$")
add_library(elbo_sim_host STATIC EXCLUDE_FROM_ALL ${sim_backend_sources} libraries.c ${HOST_OBJECTS} ${CPU_OBJECTS})
target_include_directories(elbo_sim_host BEFORE PRIVATE include ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include
                           ${PROJECT_SOURCE_DIR}/src)
target_compile_definitions(elbo_sim_host PRIVATE _GNU_SOURCE)
add_library(elbo_sim_backend INTERFACE)
target_link_libraries(elbo_sim_backend INTERFACE elbo_sim_host elbo_kernels_sim ${LIB_LINKS})

file(GLOB sim_program_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/cli/*.c)
add_executable(elbo-sim ${sim_program_sources})
target_include_directories(elbo-sim PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
target_compile_definitions(elbo-sim PRIVATE _GNU_SOURCE ELBO_VERSION="${PROJECT_VERSION}")
target_link_libraries(elbo-sim PRIVATE elbo_sim_backend)
set_target_properties(elbo-sim PROPERTIES LINKER_LANGUAGE CXX)

# ---- tests of the backend's host code alone ----
add_executable(sim_algorithms algorithms.c)
target_include_directories(sim_algorithms PRIVATE include ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/src
                           ${PROJECT_SOURCE_DIR}/include)
target_compile_definitions(sim_algorithms PRIVATE _GNU_SOURCE)
target_link_libraries(sim_algorithms PRIVATE elbo_sim_backend PkgConfig::CMOCKA)
set_target_properties(sim_algorithms PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests LINKER_LANGUAGE CXX)
add_test(NAME sim/algorithms COMMAND sim_algorithms)
elbo_test_properties(sim/algorithms)
