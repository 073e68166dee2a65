include(GNUInstallDirs)
find_package(Threads REQUIRED)
find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(absl CONFIG REQUIRED)
find_package(Boost 1.74 REQUIRED COMPONENTS system)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(CLI11 REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED)
find_package(GTest REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(MNL REQUIRED IMPORTED_TARGET libmnl)

include(GoogleTest)

# kedge_library(name sources... [LINK libraries...]): a static library of ours, included by its path from the root.
function(kedge_library name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  foreach(f ${ARG_UNPARSED_ARGUMENTS})  # TEMPORARY-PARALLEL
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${f})  # TEMPORARY-PARALLEL
      message(WARNING "${name} skipped: ${f} missing")  # TEMPORARY-PARALLEL
      return()  # TEMPORARY-PARALLEL
    endif()  # TEMPORARY-PARALLEL
  endforeach()  # TEMPORARY-PARALLEL
  add_library(${name} STATIC ${ARG_UNPARSED_ARGUMENTS})
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PUBLIC ${ARG_LINK} PRIVATE kedge_warnings)
endfunction()

# kedge_executable(name sources... [LINK libraries...])
function(kedge_executable name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  foreach(f ${ARG_UNPARSED_ARGUMENTS})  # TEMPORARY-PARALLEL
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${f})  # TEMPORARY-PARALLEL
      message(WARNING "${name} skipped: ${f} missing")  # TEMPORARY-PARALLEL
      return()  # TEMPORARY-PARALLEL
    endif()  # TEMPORARY-PARALLEL
  endforeach()  # TEMPORARY-PARALLEL
  add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} kedge_warnings)
endfunction()

# kedge_test(name sources... [LINK libraries...]): GoogleTest cases, each known to CTest by itself.
function(kedge_test name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  kedge_executable(${name} ${ARG_UNPARSED_ARGUMENTS} LINK ${ARG_LINK} GTest::gmock GTest::gtest_main)
  if(NOT TARGET ${name})  # TEMPORARY-PARALLEL
    return()  # TEMPORARY-PARALLEL
  endif()  # TEMPORARY-PARALLEL
  gtest_discover_tests(${name} TEST_PREFIX "${name}." DISCOVERY_TIMEOUT 60)
endfunction()
