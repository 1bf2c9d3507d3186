# Install rules and the package that find_package(Cinnabar) finds: Cinnabar::engine, ::kernels, ::autograd and so
# on, one target a folder. Headers are reached as <cinnabar/engine/tensor.hpp>.
if(CINNABAR_EMULATED OR CINNABAR_SANITIZE OR CINNABAR_COVERAGE)
  return()  # builds for testing, not for use
endif()
include(CMakePackageConfigHelpers)

get_property(targets GLOBAL PROPERTY CINNABAR_TARGETS)
install(TARGETS ${targets} EXPORT CinnabarTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET cinnabar)
  install(TARGETS cinnabar RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/networks/ DESTINATION ${CMAKE_INSTALL_DATADIR}/cinnabar
    FILES_MATCHING PATTERN *.safetensors)
endif()
foreach(target IN LISTS targets)
  string(REPLACE cinnabar_ "" folder ${target})
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${folder}/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/cinnabar/${folder}
    FILES_MATCHING PATTERN *.hpp PATTERN cpu EXCLUDE PATTERN cuda EXCLUDE PATTERN emulation EXCLUDE)
endforeach()

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/Cinnabar)
install(EXPORT CinnabarTargets NAMESPACE Cinnabar:: DESTINATION ${package_dir})
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/CinnabarConfig.cmake.in
  ${PROJECT_BINARY_DIR}/CinnabarConfig.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/CinnabarConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES
  ${PROJECT_BINARY_DIR}/CinnabarConfig.cmake ${PROJECT_BINARY_DIR}/CinnabarConfigVersion.cmake
  ${CMAKE_CURRENT_LIST_DIR}/FindFFTW3.cmake ${CMAKE_CURRENT_LIST_DIR}/FindNIFTI2.cmake
  ${CMAKE_CURRENT_LIST_DIR}/FindOpenBLAS.cmake
  DESTINATION ${package_dir})
