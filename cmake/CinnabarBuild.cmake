# Compiler settings, dependencies and the one way a folder becomes a library.

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
include(GNUInstallDirs)

find_program(CINNABAR_CCACHE ccache)
if(CINNABAR_CCACHE)
  # Hits in any folder the project is cloned to, and with the tests' precompiled headers.
  set(launcher ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1
    CCACHE_SLOPPINESS=pch_defines,time_macros ${CINNABAR_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${launcher})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${launcher})
endif()

find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(FFTW3 REQUIRED)
find_package(OpenBLAS REQUIRED)
find_package(Eigen3 REQUIRED NO_MODULE)
find_package(nlohmann_json REQUIRED)

if(CINNABAR_CUDA AND CINNABAR_EMULATED)
  message(FATAL_ERROR "CINNABAR_CUDA and CINNABAR_EMULATED exclude each other")
endif()
if(CINNABAR_CUDA)
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    message(STATUS "No nvcc found: building without CUDA")
    set(CINNABAR_CUDA OFF)
  endif()
endif()
if(CINNABAR_CUDA)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES OFF)  # set below, once the toolkit's version is known
  endif()
  enable_language(CUDA)
  # CMake 3.25 does not know how nvcc 13 is asked for C++20.
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  endif()
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 75 86 89 90)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 13)
      list(PREPEND CMAKE_CUDA_ARCHITECTURES 61 70)
    endif()
  endif()
  message(STATUS "CUDA ${CMAKE_CUDA_COMPILER_VERSION} for sm_${CMAKE_CUDA_ARCHITECTURES}")
  find_package(CUDAToolkit REQUIRED)
endif()
if(CINNABAR_EMULATED)
  find_package(Boost REQUIRED COMPONENTS context)
endif()

# Settings every target of the project shares; consumers of the libraries do not inherit the warnings.
add_library(cinnabar_settings INTERFACE)
set(host_warnings -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror)
# Contraction stays off so that a result does not depend on where a compiler could fuse.
set(host_options ${host_warnings} -ffp-contract=off -fno-math-errno -fno-trapping-math)
if(CINNABAR_NATIVE)
  list(APPEND host_options -march=native)
endif()
if(CINNABAR_SANITIZE)
  list(APPEND host_options -fsanitize=${CINNABAR_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  # GCC's flow analysis takes the checks inserted by the sanitizers for reachable errors in correct code.
  list(APPEND host_options -Wno-stringop-overflow -Wno-array-bounds -Wno-maybe-uninitialized)
  target_link_options(cinnabar_settings INTERFACE -fsanitize=${CINNABAR_SANITIZE})
endif()
# For what is around the libraries, commands and tests: sanitized, they would take longer to compile than all else.
set(CINNABAR_LIGHT_OPTIONS "")
if(CINNABAR_SANITIZE MATCHES "address")
  set(CINNABAR_LIGHT_OPTIONS -O0 -fno-sanitize=undefined)
endif()
if(CINNABAR_COVERAGE)
  list(APPEND host_options --coverage)
  target_link_options(cinnabar_settings INTERFACE --coverage)
endif()
# The host compiler behind nvcc does not know nvcc's own pragmas, such as unroll.
set(host_warnings_for_nvcc -Wall,-Wextra,-Werror,-Wno-unknown-pragmas)
target_compile_options(cinnabar_settings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:${host_options}>
  "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:--expt-relaxed-constexpr -Xcompiler ${host_warnings_for_nvcc}>")
target_link_libraries(cinnabar_settings INTERFACE OpenMP::OpenMP_CXX)

# cinnabar_folder(NAME [DEPENDS folders...] [LIBRARIES targets...]): every .cpp of the folder as one library.
# DEPENDS is the include direction of the architecture: apps -> registration -> models -> layers -> autograd
# -> kernels -> engine, and data -> kernels beside autograd.
function(cinnabar_folder name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;LIBRARIES;PRIVATE_LIBRARIES;SOURCES" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  set(target cinnabar_${name})
  add_library(${target} STATIC ${PROJECT_SOURCE_DIR}/engine/tensor.hpp ${sources} ${ARG_SOURCES})
  add_library(Cinnabar::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name} LINKER_LANGUAGE CXX)
  target_include_directories(${target} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/cinnabar>)
  target_compile_features(${target} PUBLIC cxx_std_20)
  list(TRANSFORM ARG_DEPENDS PREPEND cinnabar_)
  target_link_libraries(${target} PUBLIC ${ARG_DEPENDS} ${ARG_LIBRARIES}
    PRIVATE $<BUILD_INTERFACE:cinnabar_settings> OpenMP::OpenMP_CXX ${ARG_PRIVATE_LIBRARIES})
  set_property(GLOBAL APPEND PROPERTY CINNABAR_TARGETS ${target})
endfunction()
