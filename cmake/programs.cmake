# SPDX-License-Identifier: MIT
#
# ipcbroker: broker/*.c.  Everything but main.c is an object library too, for the tests.
# ipcctl: broker/ctl/*.c, upon the public interface alone.
file(GLOB broker_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/broker/*.c)
file(GLOB ctl_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/broker/ctl/*.c)

# The broker's objects and program; the second set, for tests, has crash points.
function(ipc_add_broker program objects ipc)
	set(main ${broker_sources})
	list(FILTER main INCLUDE REGEX "/main\\.c$")
	set(rest ${broker_sources})
	list(FILTER rest EXCLUDE REGEX "/main\\.c$")
	if(rest)
		add_library(${objects} OBJECT ${rest})
		target_compile_definitions(${objects} PRIVATE IPC_VERSION_TEXT="${PROJECT_VERSION}" ${ARGN})
		target_link_libraries(${objects} PUBLIC ${ipc} PkgConfig::seccomp PkgConfig::inih)
	endif()
	if(main AND rest)
		add_executable(${program} ${main})
		target_compile_definitions(${program} PRIVATE IPC_VERSION_TEXT="${PROJECT_VERSION}" ${ARGN})
		target_link_libraries(${program} PRIVATE ${objects} ${ipc})
		target_link_options(${program} PRIVATE -Wl,--as-needed)
	endif()
endfunction()

if(TARGET ipc_objects AND broker_sources)
	pkg_check_modules(seccomp REQUIRED IMPORTED_TARGET libseccomp)
	pkg_check_modules(inih REQUIRED IMPORTED_TARGET inih)
	ipc_add_broker(ipcbroker broker_objects ipc_objects)
endif()

if(TARGET ipc AND ctl_sources)
	pkg_check_modules(jansson REQUIRED IMPORTED_TARGET jansson)
	add_executable(ipcctl ${ctl_sources})
	target_compile_definitions(ipcctl PRIVATE IPC_VERSION_TEXT="${PROJECT_VERSION}")
	target_include_directories(ipcctl PRIVATE ${PROJECT_SOURCE_DIR})
	target_link_libraries(ipcctl PRIVATE ipc flags_strict PkgConfig::jansson)
endif()

# Installed where the loader does not look by itself, the tool still finds its library.
if(TARGET ipcctl AND NOT CMAKE_INSTALL_PREFIX STREQUAL "/usr" AND NOT IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
	file(RELATIVE_PATH way "${CMAKE_INSTALL_FULL_BINDIR}" "${CMAKE_INSTALL_FULL_LIBDIR}")
	set_property(TARGET ipcctl PROPERTY INSTALL_RPATH "$ORIGIN/${way}")
endif()
