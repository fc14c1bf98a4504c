# predella_library(NAME SRCS... DEPS... [GRPC])
#   A static library predella_NAME with the alias predella::NAME. DEPS are
#   public. GRPC marks the units that include gRPC: they share a precompiled
#   header, and everything that links them is outside of the tsan set.
# predella_binary(NAME SRCS... DEPS... [TOOL])
#   TOOL: for tests, not installed.
# predella_test(NAME SRCS... DEPS... LABEL core|rpc|integration|crash|house)

# Headers that cost the most and never change. A source still includes what
# it uses: the clang lane of scripts/test builds without them.
set(_pch_core <chrono> <functional> <map> <memory> <optional> <string>
  <string_view> <utility> <vector> <absl/status/status.h>
  <absl/status/statusor.h> <absl/strings/str_cat.h> <absl/types/span.h>
  <absl/container/flat_hash_map.h>)
function(_predella_pch target kind)
  if(NOT PREDELLA_PCH)
    return()
  endif()
  if(NOT TARGET predella_pch_${kind})
    file(WRITE ${CMAKE_BINARY_DIR}/pch/${kind}.cc "")
    add_library(predella_pch_${kind} OBJECT ${CMAKE_BINARY_DIR}/pch/${kind}.cc)
    target_link_libraries(predella_pch_${kind} PRIVATE
      predella_options protobuf::libprotobuf absl::statusor absl::flat_hash_map
      absl::strings absl::span)
    set(headers ${_pch_core})
    if(kind MATCHES "rpc")
      target_link_libraries(predella_pch_${kind} PRIVATE gRPC::grpc++)
      list(APPEND headers <grpcpp/grpcpp.h>)
    endif()
    if(kind MATCHES "test")
      target_link_libraries(predella_pch_${kind} PRIVATE GTest::gtest GTest::gmock)
      list(APPEND headers <gmock/gmock.h> <gtest/gtest.h>)
    endif()
    target_precompile_headers(predella_pch_${kind} PRIVATE ${headers})
  endif()
  target_precompile_headers(${target} REUSE_FROM predella_pch_${kind})
endfunction()

function(predella_library name)
  cmake_parse_arguments(ARG "GRPC" "" "SRCS;DEPS" ${ARGN})
  add_library(predella_${name} STATIC ${ARG_SRCS})
  add_library(predella::${name} ALIAS predella_${name})
  target_include_directories(predella_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
  target_link_libraries(predella_${name} PUBLIC ${ARG_DEPS}
    PRIVATE $<BUILD_INTERFACE:predella_options>)
  if(ARG_GRPC)
    _predella_pch(predella_${name} rpc)
  else()
    _predella_pch(predella_${name} core)
  endif()
endfunction()

function(predella_binary name)
  cmake_parse_arguments(ARG "TOOL" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} predella_options)
  set_target_properties(${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
  if(NOT ARG_TOOL)
    install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
endfunction()

# Everything with the label core: what the sanitizer presets of the gate build.
add_custom_target(core_tests)
function(predella_test name)
  cmake_parse_arguments(ARG "GRPC;SERIAL" "LABEL;TIMEOUT" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} predella::testing_main
    GTest::gmock predella_options)
  # What a test takes by `using` hides names from the next one.
  set_target_properties(${name} PROPERTIES UNITY_BUILD OFF)
  if(ARG_GRPC)
    _predella_pch(${name} test_rpc)
  else()
    _predella_pch(${name} test)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 60)
  endif()
  set(environment PREDELLA_LOG_LEVEL=error)
  if(PREDELLA_SANITIZE)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 10")
    list(APPEND environment
      "TSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/tsan.supp:halt_on_error=0"
      UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1)
  endif()
  if("${ARG_LABEL}" STREQUAL "core")
    add_dependencies(core_tests ${name})
  endif()
  # One ctest entry a binary: starting a process costs more than most tests.
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABEL}"
    TIMEOUT ${ARG_TIMEOUT} RUN_SERIAL ${ARG_SERIAL}
    ENVIRONMENT "${environment}")
endfunction()
