# SPDX-License-Identifier: MIT
#
# bench/*.c: one program, `bench`, upon the public interface; the target `figures` runs it.
file(GLOB bench_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/bench/*.c)
if(NOT TARGET ipc OR NOT TARGET ipcbroker OR NOT bench_sources)
	return()
endif()
add_executable(bench ${bench_sources})
target_include_directories(bench PRIVATE ${PROJECT_SOURCE_DIR})
target_link_libraries(bench PRIVATE ipc flags_strict Threads::Threads ${ipc_librt} m)

add_custom_target(figures
	COMMAND bench --broker $<TARGET_FILE:ipcbroker>
	DEPENDS bench ipcbroker
	USES_TERMINAL VERBATIM)
