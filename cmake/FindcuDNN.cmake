# cuDNN::cuDNN, version 9 (with cudnn.h). Optional: the rival of the convolutions. -DcuDNN_ROOT=FOLDER points to an
# unpacked archive or to the nvidia/cudnn folder of a Python environment.
find_path(cuDNN_INCLUDE_DIR cudnn.h PATH_SUFFIXES include HINTS ${CUDAToolkit_INCLUDE_DIRS})
find_library(cuDNN_LIBRARY NAMES cudnn libcudnn.so.9 PATH_SUFFIXES lib lib64 HINTS ${CUDAToolkit_LIBRARY_DIR})
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(cuDNN REQUIRED_VARS cuDNN_INCLUDE_DIR cuDNN_LIBRARY)
if(cuDNN_FOUND AND NOT TARGET cuDNN::cuDNN)
  add_library(cuDNN::cuDNN INTERFACE IMPORTED)
  set_target_properties(cuDNN::cuDNN PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES ${cuDNN_INCLUDE_DIR} INTERFACE_LINK_LIBRARIES ${cuDNN_LIBRARY})
endif()
mark_as_advanced(cuDNN_INCLUDE_DIR cuDNN_LIBRARY)
