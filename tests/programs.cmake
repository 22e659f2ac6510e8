# SPDX-License-Identifier: MIT
#
# The tests proper.
pkg_check_modules(criterion REQUIRED IMPORTED_TARGET criterion)

# Library and broker once more, with crash points: what dies at random under stress.
ipc_add_objects(ipc_objects_points IPC_CRASH_POINTS)
if(TARGET ipcbroker)
	ipc_add_broker(ipcbroker_points broker_objects_points ipc_objects_points IPC_CRASH_POINTS)
endif()

file(GLOB support_sources CONFIGURE_DEPENDS support/*.c)
if(support_sources)
	add_library(support STATIC ${support_sources})
	target_include_directories(support PUBLIC ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include)
	target_link_libraries(support PUBLIC PkgConfig::criterion PRIVATE flags_strict Threads::Threads)
	if(TARGET ipcbroker)
		target_compile_definitions(support PRIVATE
			IPC_TEST_BROKER="$<TARGET_FILE:ipcbroker>" IPC_TEST_BROKER_POINTS="$<TARGET_FILE:ipcbroker_points>")
	endif()
	if(TARGET ipcctl)
		target_compile_definitions(support PRIVATE IPC_TEST_CTL="$<TARGET_FILE:ipcctl>")
	endif()
	set(support support)
endif()

if(IPC_SANITIZE STREQUAL thread)
	set(folders "")
else()
	set(folders kernel platform core wire channel client broker crash stress api)
endif()
foreach(label IN LISTS folders)
	file(GLOB sources CONFIGURE_DEPENDS ${label}/*.c)
	list(FILTER sources EXCLUDE REGEX "/(tsan|soak)_[^/]*$")
	set(libraries ${support} PkgConfig::criterion)
	if(label STREQUAL api)
		list(APPEND libraries ipc)
	elseif(label STREQUAL stress)
		list(APPEND libraries ipc_objects_points)
	else()
		list(APPEND libraries ipc_objects)
	endif()
	if(label STREQUAL broker AND TARGET broker_objects)
		list(APPEND libraries broker_objects)
	endif()
	foreach(source IN LISTS sources)
		cmake_path(GET source STEM name)
		ipc_test_program(${label} ${source} ${libraries})
		ipc_test(${label} ${name} $<TARGET_FILE:test_${label}_${name}>)
	endforeach()
endforeach()

# What costs every core of the machine for its whole life is not run beside others.
foreach(label IN ITEMS crash stress)
	get_property(all DIRECTORY PROPERTY TESTS)
	list(FILTER all INCLUDE REGEX "^${label}\\.")
	if(all)
		set_tests_properties(${all} PROPERTIES RUN_SERIAL ON)
	endif()
endforeach()

# Protocols as threads upon one mapping: plain programs, in every build.  soak_*.c run long, and only for the preset `soak`.
file(GLOB sources CONFIGURE_DEPENDS stress/tsan_*.c stress/soak_*.c)
foreach(source IN LISTS sources)
	cmake_path(GET source STEM name)
	string(REGEX REPLACE "_.*" "" label ${name})
	ipc_test_program(${label} ${source} ipc_objects)
	ipc_test(${label} ${name} $<TARGET_FILE:test_${label}_${name}>)
endforeach()

if(IPC_SANITIZE STREQUAL thread)
	return()
endif()

# The programs from the shell.
file(GLOB sources CONFIGURE_DEPENDS */*.bats)
if(sources)
	find_program(IPC_BATS bats REQUIRED)
endif()
if(TARGET ipcbroker AND TARGET ipcctl)
	foreach(source IN LISTS sources)
		cmake_path(GET source STEM name)
		cmake_path(GET source PARENT_PATH folder)
		cmake_path(GET folder FILENAME label)
		ipc_test(${label} ${name}.bats ${IPC_BATS} ${source})
		set_property(TEST ${label}.${name}.bats APPEND PROPERTY ENVIRONMENT
			"IPC_TEST_BROKER=$<TARGET_FILE:ipcbroker>" "IPC_TEST_CTL=$<TARGET_FILE:ipcctl>")
	endforeach()
endif()

# Each example is run, in a domain of its own that must be gone afterwards.
add_executable(in_domain in_domain.c)
target_link_libraries(in_domain PRIVATE flags_strict)
set_target_properties(in_domain PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
if(TARGET ipcbroker)
	foreach(name IN LISTS examples)
		set(arguments "")
		if(name STREQUAL demo)
			set(arguments $<TARGET_FILE:ipcbroker>)
		endif()
		ipc_test(examples ${name} $<TARGET_FILE:in_domain> $<TARGET_FILE:ipcbroker> $<TARGET_FILE:example_${name}> ${arguments})
	endforeach()
	if(TARGET example_demo) # which counts the names in /dev/shm
		set_tests_properties(examples.demo PROPERTIES RUN_SERIAL ON)
	endif()
endif()

# What is exported is what the headers declare.
if(NOT IPC_SANITIZE)
	ipc_test(package symbols
		${CMAKE_CURRENT_SOURCE_DIR}/package/symbols ${CMAKE_C_COMPILER} $<TARGET_FILE:ipc> $<TARGET_FILE:ipc_static>)
endif()
