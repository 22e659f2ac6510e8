# SPDX-License-Identifier: MIT
#
# The library: compiled once, then
#   ipc_objects     for the broker and the tests, which reach the internals
#   ipc             libipc.so.0: only what the public headers declare
#   ipc_static      libipc.a: one object whose internal names are local and so cannot meet a user's
file(GLOB ipc_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/libipc/*/*.c)
if(NOT ipc_sources)
	message(WARNING "libipc has no sources: nothing to build")
	return()
endif()

if(IPC_IN_PLACE)
	set(ipc_broker_program ${PROJECT_BINARY_DIR}/ipcbroker)
else()
	set(ipc_broker_program ${CMAKE_INSTALL_FULL_BINDIR}/ipcbroker)
endif()

# Old C libraries have shm_open in librt; on newer ones it is an empty archive and costs nothing.
find_library(IPC_LIBRT rt)
mark_as_advanced(IPC_LIBRT)
if(IPC_LIBRT)
	set(ipc_librt rt)
endif()

# Objects of the library, made with further definitions where given.
function(ipc_add_objects target)
	add_library(${target} OBJECT ${ipc_sources})
	target_compile_definitions(${target} PRIVATE IPC_BROKER_PROGRAM="${ipc_broker_program}" ${ARGN})
	target_compile_options(${target} PRIVATE -fvisibility=hidden
		"SHELL:-include \"${PROJECT_SOURCE_DIR}/cmake/visibility.h\"")
	target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include)
	target_link_libraries(${target} PUBLIC flags_strict Threads::Threads ${ipc_librt})
	set_property(TARGET ${target} PROPERTY OBJECT_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/visibility.h)
endfunction()

ipc_add_objects(ipc_objects)

add_library(ipc SHARED $<TARGET_OBJECTS:ipc_objects>)
add_library(libipc::ipc ALIAS ipc)
target_include_directories(ipc INTERFACE
	$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(ipc PRIVATE $<BUILD_INTERFACE:flags_strict> Threads::Threads ${ipc_librt})
target_link_options(ipc PRIVATE
	-Wl,--version-script=${PROJECT_SOURCE_DIR}/libipc/libipc.map -Wl,--as-needed)
if(NOT IPC_SANITIZE AND NOT IPC_FUZZ) # whose symbols only the executable has
	target_link_options(ipc PRIVATE -Wl,-z,defs)
endif()
set_target_properties(ipc PROPERTIES
	LINKER_LANGUAGE C VERSION 0.${PROJECT_VERSION_MINOR}.${PROJECT_VERSION_PATCH} SOVERSION 0
	LINK_DEPENDS ${PROJECT_SOURCE_DIR}/libipc/libipc.map)

set(ipc_whole ${PROJECT_BINARY_DIR}/libipc.whole.o)
add_custom_command(OUTPUT ${ipc_whole}
	COMMAND ${CMAKE_LINKER} -r -o ${ipc_whole} $<TARGET_OBJECTS:ipc_objects>
	COMMAND ${CMAKE_OBJCOPY} --localize-hidden ${ipc_whole}
	DEPENDS ipc_objects $<TARGET_OBJECTS:ipc_objects>
	COMMENT "Joining libipc into one object with local internals"
	COMMAND_EXPAND_LISTS VERBATIM)
add_library(ipc_static STATIC ${ipc_whole})
add_library(libipc::ipc_static ALIAS ipc_static)
target_include_directories(ipc_static INTERFACE
	$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(ipc_static INTERFACE Threads::Threads ${ipc_librt})
set_target_properties(ipc_static PROPERTIES OUTPUT_NAME ipc LINKER_LANGUAGE C)
set_source_files_properties(${ipc_whole} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
