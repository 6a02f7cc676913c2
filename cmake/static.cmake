# The libraries that other builds find among Debian's packages, as static ones of the same names:
# built from the sources that tools/sources.sh has laid under build/sources.
set(SEACLIFF_SOURCES ${CMAKE_SOURCE_DIR}/build/sources CACHE PATH "Where tools/sources.sh put them")

foreach(option FMT_DOC FMT_TEST FMT_INSTALL BUILD_SHARED_LIBS SPDLOG_BUILD_EXAMPLE SPDLOG_INSTALL
               HWY_ENABLE_CONTRIB HWY_ENABLE_EXAMPLES HWY_ENABLE_INSTALL HWY_ENABLE_TESTS)
  set(${option} OFF CACHE INTERNAL "")
endforeach()
foreach(option SPDLOG_FMT_EXTERNAL HWY_FORCE_STATIC_LIBS)
  set(${option} ON CACHE INTERNAL "")
endforeach()
foreach(library fmtlib spdlog simdjson highway)
  if(NOT EXISTS ${SEACLIFF_SOURCES}/${library}/CMakeLists.txt)
    message(FATAL_ERROR "${SEACLIFF_SOURCES}/${library} is not there: sh tools/sources.sh ${SEACLIFF_SOURCES}")
  endif()
  add_subdirectory(${SEACLIFF_SOURCES}/${library} third_party/${library} EXCLUDE_FROM_ALL SYSTEM)
endforeach()
add_library(hwy::hwy ALIAS hwy)

# Makes a program need nothing but glibc: the C++ runtime within it, no symbols.
function(sc_self_contained target)
  target_sources(${target} PRIVATE ${CMAKE_SOURCE_DIR}/tools/static/arc4random.cc)
  target_link_options(${target} PRIVATE -static-libstdc++ -static-libgcc -s)
endfunction()
