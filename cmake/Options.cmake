# What every unit of ours is compiled with.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_LINK_DEPENDS_NO_SHARED ON)

option(PREDELLA_WERROR "Warnings are errors" ON)
option(PREDELLA_PCH "Precompile the heaviest third-party headers" ON)
option(PREDELLA_COVERAGE "Build with gcov" OFF)
option(PREDELLA_BENCH "Build tests/bench" OFF)
option(PREDELLA_FAULTFS "Build tests/faultfs, the fault file system"
  ${BUILD_TESTING})
set(PREDELLA_SANITIZE "" CACHE STRING "Sanitizers, as for -fsanitize=")

add_library(predella_options INTERFACE)
target_compile_options(predella_options INTERFACE
  -fPIC -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor
  -Woverloaded-virtual -Wold-style-cast -Wextra-semi -Wcast-align
  -Wnull-dereference $<$<BOOL:${PREDELLA_WERROR}>:-Werror>
  -fstack-protector-strong -fcf-protection)
target_compile_definitions(predella_options INTERFACE
  PREDELLA_VERSION="${PROJECT_VERSION}")
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(predella_options INTERFACE
    -Wthread-safety -Werror=thread-safety)
else()
  # gcc 12 reports null dereferences inside its own headers when optimising.
  if(PREDELLA_SANITIZE OR NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
    target_compile_options(predella_options INTERFACE -Wno-null-dereference)
  endif()
endif()
if(PREDELLA_SANITIZE)
  target_compile_options(predella_options INTERFACE
    -fsanitize=${PREDELLA_SANITIZE} -fno-omit-frame-pointer -g1)
  target_link_options(predella_options INTERFACE -fsanitize=${PREDELLA_SANITIZE})
endif()
if(PREDELLA_COVERAGE)
  target_compile_options(predella_options INTERFACE --coverage)
  target_link_options(predella_options INTERFACE --coverage)
endif()

find_program(CCACHE ccache)
if(CCACHE)
  # Precompiled headers are cached only with these two relaxations. Clones of
  # one user share what they compiled: paths of this one are hashed as relative,
  # and the directory that debug information names may be another's.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros
      CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
  add_compile_options($<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fpch-preprocess>
    "$<$<COMPILE_LANG_AND_ID:CXX,Clang>:SHELL:-Xclang -fno-pch-timestamp>")
endif()
find_program(LLD ld.lld)
if(LLD)
  add_link_options(-fuse-ld=lld)
endif()
