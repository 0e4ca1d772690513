# The op tests (tests/ops) once more with the CUDA backend over the emulated GPU: its table, its products, its kernels
# against the same double references. ../cuda has those that a real GPU runs.
add_library(tests_harness_sim STATIC EXCLUDE_FROM_ALL ../ops/harness.c ../ops/trial.c)
target_include_directories(tests_harness_sim PUBLIC ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include
                           ${PROJECT_SOURCE_DIR}/tests)
target_compile_definitions(tests_harness_sim PUBLIC _GNU_SOURCE)
target_link_libraries(tests_harness_sim PUBLIC elbo_sim_backend PkgConfig::CMOCKA m)

file(GLOB op_tests CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR}/../ops ../ops/test_*.c)
foreach(source ${op_tests})
  get_filename_component(stem ${source} NAME_WE)
  string(REPLACE "test_" "ops_" stem ${stem})
  add_executable(sim_${stem} ../ops/${source})
  target_link_libraries(sim_${stem} PRIVATE tests_harness_sim)
  set_target_properties(sim_${stem} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests LINKER_LANGUAGE CXX)
  add_test(NAME sim/${stem} COMMAND sim_${stem})
  elbo_test_properties(sim/${stem})
  set_property(TEST sim/${stem} APPEND PROPERTY ENVIRONMENT ELBO_TEST_DEVICE=cuda)
  add_dependencies(sim_tests sim_${stem})
endforeach()
