# SPDX-License-Identifier: MIT
#
# What goes where, relative to the prefix unless it was given otherwise.  Components: runtime (library), dev, broker, tools.
include(CMakePackageConfigHelpers)

set(IPC_SYSTEMD_DIR lib/systemd CACHE STRING "Folder of the service manager's unit folders; empty: no units")
set(IPC_SYSUSERS_DIR lib/sysusers.d CACHE STRING "Folder of sysusers.d(5) files")
set(IPC_TMPFILES_DIR lib/tmpfiles.d CACHE STRING "Folder of tmpfiles.d(5) files")

if(NOT TARGET ipc)
	return()
endif()

# A library that starts the broker of a build folder is of no use without that folder.
if(IPC_IN_PLACE)
	install(CODE "message(FATAL_ERROR \"This build starts the broker of its own folder: install from the preset 'release' instead\")")
endif()

install(TARGETS ipc ipc_static EXPORT libipc
	LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime NAMELINK_COMPONENT dev
	ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT dev)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/ipc DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT dev
	FILES_MATCHING PATTERN "*.h")
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/README.md ${PROJECT_SOURCE_DIR}/NEWS.md
	DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT dev)

# CMake package
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/libipc)
install(EXPORT libipc NAMESPACE libipc:: FILE libipcTargets.cmake DESTINATION ${package_dir} COMPONENT dev)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/libipcConfig.cmake.in
	${PROJECT_BINARY_DIR}/libipcConfig.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/libipcConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${PROJECT_BINARY_DIR}/libipcConfig.cmake ${PROJECT_BINARY_DIR}/libipcConfigVersion.cmake
	DESTINATION ${package_dir} COMPONENT dev)

# pkg-config: relative to the prefix where the folder is, absolute where it was given so.
foreach(dir IN ITEMS LIBDIR INCLUDEDIR)
	if(IS_ABSOLUTE "${CMAKE_INSTALL_${dir}}")
		set(pc_${dir} "${CMAKE_INSTALL_${dir}}")
	else()
		set(pc_${dir} "\${prefix}/${CMAKE_INSTALL_${dir}}")
	endif()
endforeach()
set(pc_libs_private "-pthread")
if(ipc_librt)
	string(APPEND pc_libs_private " -lrt")
endif()
configure_file(${PROJECT_SOURCE_DIR}/cmake/libipc.pc.in ${PROJECT_BINARY_DIR}/libipc.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/libipc.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT dev)

# Manual pages, each with its program or with the headers.
foreach(section RANGE 1 8)
	file(GLOB pages CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/man/*.${section})
	set(component dev)
	if(section EQUAL 1)
		set(component tools)
	elseif(section EQUAL 5 OR section EQUAL 8)
		set(component broker)
	endif()
	if(pages)
		install(FILES ${pages} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section} COMPONENT ${component})
	endif()
endforeach()

if(TARGET ipcctl)
	install(TARGETS ipcctl RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT tools)
endif()
if(NOT TARGET ipcbroker)
	return()
endif()
install(TARGETS ipcbroker RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT broker)

# Units: the machine's broker, and a user's own.
if(IPC_SYSTEMD_DIR)
	set(units ${PROJECT_SOURCE_DIR}/packaging/systemd)
	foreach(instance IN ITEMS system user)
		configure_file(${units}/${instance}/ipcbroker.service.in ${PROJECT_BINARY_DIR}/${instance}/ipcbroker.service @ONLY)
		install(FILES ${PROJECT_BINARY_DIR}/${instance}/ipcbroker.service ${units}/${instance}/ipcbroker.socket
			DESTINATION ${IPC_SYSTEMD_DIR}/${instance} COMPONENT broker)
	endforeach()
	install(FILES ${units}/ipcbroker.sysusers DESTINATION ${IPC_SYSUSERS_DIR} RENAME ipcbroker.conf COMPONENT broker)
	install(FILES ${units}/ipcbroker.tmpfiles DESTINATION ${IPC_TMPFILES_DIR} RENAME ipcbroker.conf COMPONENT broker)
endif()
