# SPDX-License-Identifier: MIT
#
# bench/*.c: one program, `bench`, upon the public interface.
file(GLOB bench_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/bench/*.c)
if(NOT TARGET ipc OR NOT bench_sources)
	return()
endif()
add_executable(bench ${bench_sources})
target_compile_definitions(bench PRIVATE IPC_BENCH_BROKER="$<TARGET_FILE:ipcbroker>")
target_include_directories(bench PRIVATE ${PROJECT_SOURCE_DIR})
target_link_libraries(bench PRIVATE ipc flags_strict Threads::Threads ${ipc_librt} m)
