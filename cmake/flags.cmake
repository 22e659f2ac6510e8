# SPDX-License-Identifier: MIT
#
# Flags of everything that is compiled here, carried by one interface library:
#   flags_strict    language, warnings, hardening, sanitizers, reproducible paths
include(CheckCCompilerFlag)

add_library(flags_strict INTERFACE)

target_compile_definitions(flags_strict INTERFACE _GNU_SOURCE)

# Two builds in two folders are the same bytes.  The last one that fits is taken: the build folder may lie in the source folder.
target_compile_options(flags_strict INTERFACE
	-ffile-prefix-map=${PROJECT_SOURCE_DIR}=.
	-ffile-prefix-map=${PROJECT_BINARY_DIR}=.)

target_compile_options(flags_strict INTERFACE
	-Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wswitch-enum -Wvla -Wundef -Wformat=2 -Wno-format-nonliteral
	$<$<C_COMPILER_ID:Clang>:-Wthread-safety>
	$<$<BOOL:${IPC_WERROR}>:-Werror>)

# Adds the flags that this compiler knows: what protects one architecture is unknown to another.
function(flags_add_known)
	foreach(flag IN LISTS ARGN)
		string(MAKE_C_IDENTIFIER "HAVE${flag}" variable)
		check_c_compiler_flag("-Werror ${flag}" ${variable})
		if(${variable})
			target_compile_options(flags_strict INTERFACE ${flag})
		endif()
	endforeach()
endfunction()

if(IPC_HARDENING)
	flags_add_known(-fstack-protector-strong -fstack-clash-protection -fcf-protection -mbranch-protection=standard)

	# Fortification needs the optimizer, and hides from the address sanitizer what that would report better.
	if(NOT IPC_SANITIZE AND NOT CMAKE_BUILD_TYPE STREQUAL Debug)
		target_compile_options(flags_strict INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
	endif()
	target_link_options(flags_strict INTERFACE -Wl,-z,relro,-z,now -Wl,-z,noexecstack)
endif()

# Position-independent executables, also where the compiler does not make them by default.
include(CheckPIESupported)
check_pie_supported(LANGUAGES C)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

if(IPC_SANITIZE)
	target_compile_options(flags_strict INTERFACE
		-fsanitize=${IPC_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
	if(NOT IPC_FUZZ) # where speed counts; reports need the lines only
		target_compile_options(flags_strict INTERFACE -O1 -g1)
	endif()
	target_link_options(flags_strict INTERFACE -fsanitize=${IPC_SANITIZE})
endif()
if(IPC_FUZZ)
	# Coverage for the fuzzer in the code under test; the targets themselves link its driver.
	target_compile_options(flags_strict INTERFACE -fsanitize=fuzzer-no-link)
	target_link_options(flags_strict INTERFACE -fsanitize=fuzzer-no-link)
endif()
