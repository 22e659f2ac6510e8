# SPDX-License-Identifier: MIT
#
# examples/*.c: programs upon the public interface and the shared library, nothing else; examples/demo/*.c: one more, which `demo` runs.
file(GLOB example_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/examples/*.c)
file(GLOB demo_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/examples/demo/*.c)
set(examples "")
if(TARGET ipc)
	foreach(source IN LISTS example_sources)
		cmake_path(GET source STEM name)
		set(example_sources_${name} ${source})
		list(APPEND examples ${name})
	endforeach()
	if(demo_sources)
		set(example_sources_demo ${demo_sources})
		list(APPEND examples demo)
	endif()
	foreach(name IN LISTS examples)
		add_executable(example_${name} ${example_sources_${name}})
		target_include_directories(example_${name} PRIVATE ${PROJECT_SOURCE_DIR})
		target_link_libraries(example_${name} PRIVATE ipc flags_strict Threads::Threads)
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
