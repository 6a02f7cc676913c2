# xgrammar's C++ core as the static library `xgrammar`: no Python, no GPU, its warnings its own. Its
# source package is fetched once (tools/xgrammar.sh), into the folder that all presets share.
set(SEACLIFF_XGRAMMAR ${CMAKE_SOURCE_DIR}/build/sources/xgrammar CACHE PATH "xgrammar's sources")

set(fetch ${CMAKE_SOURCE_DIR}/tools/xgrammar.sh)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${fetch})
execute_process(COMMAND sh ${fetch} ${SEACLIFF_XGRAMMAR} COMMAND_ERROR_IS_FATAL ANY)

file(GLOB sources CONFIGURE_DEPENDS ${SEACLIFF_XGRAMMAR}/cpp/*.cc
     ${SEACLIFF_XGRAMMAR}/cpp/support/*.cc ${SEACLIFF_XGRAMMAR}/cpp/converter_ext/*.cc)
add_library(xgrammar STATIC EXCLUDE_FROM_ALL ${sources})
target_include_directories(xgrammar SYSTEM PUBLIC ${SEACLIFF_XGRAMMAR}/include
                           ${SEACLIFF_XGRAMMAR}/3rdparty/dlpack/include)
target_include_directories(xgrammar SYSTEM PRIVATE ${SEACLIFF_XGRAMMAR}/3rdparty/picojson)
# Its code is not ours to mend: the sanitizers that see memory and threads stay.
target_compile_options(xgrammar PRIVATE -w -fno-sanitize=undefined)
target_compile_definitions(xgrammar PRIVATE XGRAMMAR_ENABLE_CPPTRACE=0 XGRAMMAR_ENABLE_INTERNAL_CHECK=0
                           XGRAMMAR_LOG_CUSTOMIZE=1)
target_link_libraries(xgrammar PUBLIC Threads::Threads)
