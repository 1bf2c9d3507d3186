# NIFTI2::nifti2 with nifti2_io.h. Debian: libnifti2-dev.
find_path(NIFTI2_INCLUDE_DIR nifti2_io.h PATH_SUFFIXES nifti)
find_library(NIFTI2_LIBRARY nifti2)
find_library(NIFTI2_znz_LIBRARY znz)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(NIFTI2 REQUIRED_VARS NIFTI2_INCLUDE_DIR NIFTI2_LIBRARY NIFTI2_znz_LIBRARY
  REASON_FAILURE_MESSAGE "install Debian's libnifti2-dev")
if(NIFTI2_FOUND AND NOT TARGET NIFTI2::nifti2)
  add_library(NIFTI2::nifti2 INTERFACE IMPORTED)
  set_target_properties(NIFTI2::nifti2 PROPERTIES INTERFACE_INCLUDE_DIRECTORIES ${NIFTI2_INCLUDE_DIR}
    INTERFACE_LINK_LIBRARIES "${NIFTI2_LIBRARY};${NIFTI2_znz_LIBRARY}")
endif()
mark_as_advanced(NIFTI2_INCLUDE_DIR NIFTI2_LIBRARY NIFTI2_znz_LIBRARY)
