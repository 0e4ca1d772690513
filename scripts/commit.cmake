# Writes the commit of the source tree into OUT, a C header, when it has changed: "+" behind it if tracked files differ.
#     cmake -DSOURCE=FOLDER -DOUT=FILE -P scripts/commit.cmake
execute_process(COMMAND git -C ${SOURCE} rev-parse --short=12 HEAD OUTPUT_VARIABLE commit ERROR_QUIET
                OUTPUT_STRIP_TRAILING_WHITESPACE)
if(commit)
  execute_process(COMMAND git -C ${SOURCE} diff --quiet HEAD RESULT_VARIABLE changed ERROR_QUIET)
  if(changed)
    string(APPEND commit "+")
  endif()
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "#define ELBO_COMMIT \"${commit}\"\n")
