# SPDX-License-Identifier: MIT
#
# tests/fuzz/*.c: LLVMFuzzerTestOneInput.  With IPC_FUZZ each is a libFuzzer target whose test is a short run; else a program that replays
# tests/fuzz/corpus/<name>/ and a few inputs made of its own.
file(GLOB sources CONFIGURE_DEPENDS fuzz/*.c)
set(IPC_FUZZ_SECONDS 5 CACHE STRING "Seconds that each fuzz target runs as a test")

if(NOT IPC_FUZZ AND NOT IPC_TESTS)
	return()
endif()
if(IPC_SANITIZE STREQUAL thread)
	return()
endif()

add_library(replay STATIC replay.c)
target_link_libraries(replay PRIVATE flags_strict)

foreach(source IN LISTS sources)
	cmake_path(GET source STEM name)
	ipc_test_program(fuzz ${source} internals_ipc)
	set(corpus ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/corpus/${name})
	if(IPC_FUZZ)
		target_link_options(test_fuzz_${name} PRIVATE -fsanitize=fuzzer)
		# What it finds goes to the build folder; the corpus of the repository is read only.
		set(found ${PROJECT_BINARY_DIR}/tests/fuzz/corpus/${name})
		file(MAKE_DIRECTORY ${found} ${PROJECT_BINARY_DIR}/tests/fuzz/artifacts)
		set(folders ${found})
		if(IS_DIRECTORY ${corpus})
			list(APPEND folders ${corpus})
		endif()
		ipc_test(fuzz ${name} $<TARGET_FILE:test_fuzz_${name}>
			-max_total_time=${IPC_FUZZ_SECONDS} -timeout=2 -rss_limit_mb=2048 -print_final_stats=1
			-artifact_prefix=${PROJECT_BINARY_DIR}/tests/fuzz/artifacts/${name}- ${folders})
		math(EXPR seconds "${IPC_FUZZ_SECONDS} + 120")
		set_tests_properties(fuzz.${name} PROPERTIES TIMEOUT ${seconds})
	else()
		target_link_libraries(test_fuzz_${name} PRIVATE replay)
		ipc_test(fuzz ${name} $<TARGET_FILE:test_fuzz_${name}> ${corpus})
	endif()
endforeach()
