# SPDX-License-Identifier: MIT
#
# examples/*.c: programs upon the public interface and the shared library, nothing else; examples/*/*.c: one for each folder, of which `demo` is
# what `demo` runs.
file(GLOB example_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/examples/*.c)
file(GLOB example_folder_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/examples/*/*.c)
find_package(PkgConfig)
if(PkgConfig_FOUND)
	pkg_check_modules(libuv QUIET IMPORTED_TARGET libuv) # for one example; without it that one is not built
endif()
if(NOT TARGET PkgConfig::libuv)
	list(FILTER example_folder_sources EXCLUDE REGEX "/examples/libuv/")
endif()
set(examples "")
if(TARGET ipc)
	foreach(source IN LISTS example_sources)
		cmake_path(GET source STEM name)
		set(example_sources_${name} ${source})
		list(APPEND examples ${name})
	endforeach()
	foreach(source IN LISTS example_folder_sources)
		cmake_path(GET source PARENT_PATH folder)
		cmake_path(GET folder FILENAME name)
		list(APPEND example_sources_${name} ${source})
		list(APPEND examples ${name})
	endforeach()
	list(REMOVE_DUPLICATES examples)
	foreach(name IN LISTS examples)
		add_executable(example_${name} ${example_sources_${name}})
		target_include_directories(example_${name} PRIVATE ${PROJECT_SOURCE_DIR})
		target_link_libraries(example_${name} PRIVATE ipc flags_strict Threads::Threads)
		if(name STREQUAL libuv)
			target_link_libraries(example_libuv PRIVATE PkgConfig::libuv)
		endif()
		set_target_properties(example_${name} PROPERTIES
			OUTPUT_NAME ${name} RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/examples)
		if(TARGET ipcbroker)
			add_dependencies(example_${name} ipcbroker)
		endif()
	endforeach()
endif()

if(TARGET example_demo AND TARGET ipcbroker)
	add_custom_target(demo
		COMMAND example_demo $<TARGET_FILE:ipcbroker>
		DEPENDS example_demo ipcbroker
		USES_TERMINAL VERBATIM)
else()
	add_custom_target(demo
		COMMAND ${CMAKE_COMMAND} -E echo "The demo needs examples/demo/ and the broker"
		COMMAND ${CMAKE_COMMAND} -E false)
endif()
