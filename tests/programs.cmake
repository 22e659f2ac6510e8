# SPDX-License-Identifier: MIT
#
# The tests proper.
pkg_check_modules(criterion REQUIRED IMPORTED_TARGET criterion)

# Library and broker once more, with crash points: what dies at random under stress.
ipc_add_objects(ipc_objects_points IPC_CRASH_POINTS)
internals_archive(internals_ipc_points ipc_objects_points)
if(TARGET ipcbroker)
	ipc_add_broker(ipcbroker_points broker_objects_points ipc_objects_points IPC_CRASH_POINTS)
endif()
if(TARGET broker_objects)
	internals_archive(internals_broker broker_objects internals_ipc PkgConfig::seccomp PkgConfig::inih)
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
add_library(leak_check OBJECT EXCLUDE_FROM_ALL leak_check.c)
target_link_libraries(leak_check PRIVATE flags_strict)
foreach(label IN LISTS folders)
	file(GLOB sources CONFIGURE_DEPENDS ${label}/*.c)
	list(FILTER sources EXCLUDE REGEX "/tsan_[^/]*$")
	set(libraries ${support} PkgConfig::criterion)
	if(label STREQUAL api)
		list(APPEND libraries ipc)
	elseif(label STREQUAL stress)
		list(APPEND libraries internals_ipc_points)
	elseif(label STREQUAL broker AND TARGET internals_broker)
		list(APPEND libraries internals_broker)
	else()
		list(APPEND libraries internals_ipc)
	endif()
	if(label STREQUAL client AND TARGET PkgConfig::jansson) # what ipcctl prints
		list(APPEND libraries PkgConfig::jansson)
	endif()
	foreach(source IN LISTS sources)
		cmake_path(GET source STEM name)
		set(its_libraries ${libraries})
		if("${label}/${name}" STREQUAL "channel/flight_stops") # which has crash_point() itself
			list(TRANSFORM its_libraries REPLACE "^internals_ipc$" internals_ipc_points)
		endif()
		ipc_test_program(${label} ${source} ${its_libraries})
		# Half of a build is assertions being optimized; what they are about is compiled as it is shipped.
		target_compile_options(test_${label}_${name} PRIVATE $<$<CONFIG:RelWithDebInfo>:-O1>)
		if(IPC_SANITIZE MATCHES address)
			target_link_libraries(test_${label}_${name} PRIVATE leak_check)
		endif()
		ipc_test(${label} ${name} $<TARGET_FILE:test_${label}_${name}>)
	endforeach()
endforeach()

# What costs every core of the machine for its whole life is not run beside others.
get_property(all DIRECTORY PROPERTY TESTS)
list(FILTER all INCLUDE REGEX "^stress\\.")
if(all)
	set_tests_properties(${all} PROPERTIES RUN_SERIAL ON)
endif()

# Protocols as threads upon one mapping: plain programs, in every build.
file(GLOB sources CONFIGURE_DEPENDS stress/tsan_*.c)
foreach(source IN LISTS sources)
	cmake_path(GET source STEM name)
	ipc_test_program(tsan ${source} internals_ipc)
	ipc_test(tsan ${name} $<TARGET_FILE:test_tsan_${name}>)
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

# Each example is run, in a domain of its own that must be gone afterwards.  They fail if what they show is not so; Q-11: actor, fanout, and with
# a descriptor poll and libuv.
add_executable(in_domain in_domain.c)
target_link_libraries(in_domain PRIVATE flags_strict)
set_target_properties(in_domain PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
if(TARGET ipcbroker)
	foreach(name IN LISTS examples)
		set(arguments "")
		if(name STREQUAL demo)
			set(arguments $<TARGET_FILE:ipcbroker>)
		elseif(name STREQUAL blobcache)
			set(arguments --demo)
		endif()
		ipc_test(examples ${name} $<TARGET_FILE:in_domain> $<TARGET_FILE:ipcbroker> $<TARGET_FILE:example_${name}> ${arguments})
	endforeach()
	if(TARGET example_demo) # which counts the names in /dev/shm
		set_tests_properties(examples.demo PROPERTIES RUN_SERIAL ON)
	endif()
endif()

# Protocols as models: no code of ours runs, so once is enough.  model_long is for hand: an hour.
find_program(IPC_SPIN spin REQUIRED)
if(NOT IPC_SANITIZE)
	foreach(name flight queue ring)
		ipc_test(model ${name} ${CMAKE_CURRENT_SOURCE_DIR}/model/run ${name})
		set_property(TEST model.${name} APPEND PROPERTY ENVIRONMENT "CC=${CMAKE_C_COMPILER}")
	endforeach()
endif()
add_custom_target(model_long
	COMMAND ${CMAKE_COMMAND} -E env CC=${CMAKE_C_COMPILER} ${CMAKE_CURRENT_SOURCE_DIR}/model/run flight long
	COMMAND ${CMAKE_COMMAND} -E env CC=${CMAKE_C_COMPILER} ${CMAKE_CURRENT_SOURCE_DIR}/model/run queue long USES_TERMINAL)

# What is exported is what the headers declare.
if(NOT IPC_SANITIZE)
	ipc_test(package symbols
		${CMAKE_CURRENT_SOURCE_DIR}/package/symbols ${CMAKE_C_COMPILER} $<TARGET_FILE:ipc> $<TARGET_FILE:ipc_static>)
endif()
