# FFTW3::fftw3 (double) and FFTW3::fftw3f (single), each with its OpenMP layer. Debian: libfftw3-dev.
find_path(FFTW3_INCLUDE_DIR fftw3.h)
set(FFTW3_REQUIRED_LIBRARIES)
foreach(name fftw3 fftw3f fftw3_omp fftw3f_omp)
  find_library(FFTW3_${name}_LIBRARY ${name})
  list(APPEND FFTW3_REQUIRED_LIBRARIES FFTW3_${name}_LIBRARY)
  mark_as_advanced(FFTW3_${name}_LIBRARY)
endforeach()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(FFTW3 REQUIRED_VARS FFTW3_INCLUDE_DIR ${FFTW3_REQUIRED_LIBRARIES}
  REASON_FAILURE_MESSAGE "install Debian's libfftw3-dev")
foreach(name fftw3 fftw3f)
  if(FFTW3_FOUND AND NOT TARGET FFTW3::${name})
    add_library(FFTW3::${name} INTERFACE IMPORTED)
    set_target_properties(FFTW3::${name} PROPERTIES
      INTERFACE_INCLUDE_DIRECTORIES ${FFTW3_INCLUDE_DIR}
      INTERFACE_LINK_LIBRARIES "${FFTW3_${name}_omp_LIBRARY};${FFTW3_${name}_LIBRARY}")
  endif()
endforeach()
mark_as_advanced(FFTW3_INCLUDE_DIR)
