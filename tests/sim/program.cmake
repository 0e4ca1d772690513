# elbo-sim: the whole program with the CUDA backend over the emulated GPU (`--device=cuda`). It never ships.
file(GLOB sim_program_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/cli/*.c)
foreach(stem backend product table)
  list(APPEND sim_program_sources ${PROJECT_SOURCE_DIR}/src/cuda/${stem}.c)
endforeach()
add_executable(elbo-sim ${sim_program_sources} libraries.c $<TARGET_OBJECTS:elbo_host> ${CPU_OBJECTS})
target_include_directories(elbo-sim BEFORE PRIVATE include ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include
                           ${PROJECT_SOURCE_DIR}/src)
target_compile_definitions(elbo-sim PRIVATE _GNU_SOURCE ELBO_VERSION="${PROJECT_VERSION}")
target_link_libraries(elbo-sim PRIVATE elbo_kernels_sim ${LIB_LINKS})
set_target_properties(elbo-sim PROPERTIES LINKER_LANGUAGE CXX)
