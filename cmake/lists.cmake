# Writes build/gen/NAME.inc from definition lines: every line `const struct TYPE IDENTIFIER = {` in FOLDER/*.c becomes
# X(IDENTIFIER). Adding a file (or such a line) is all that a new layer, op, optimizer ... needs.
function(horn_list name type folder)
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/${folder}/*.c")
  set(text "/* Generated from the lines `const struct ${type} ... = {` of ${folder}. */\n")
  foreach(source IN LISTS sources)
    set_property(DIRECTORY "${CMAKE_SOURCE_DIR}" APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${source}")
    file(STRINGS "${source}" lines REGEX "^const struct ${type} [a-z0-9_]+ = {")
    foreach(line IN LISTS lines)
      string(REGEX REPLACE "^const struct ${type} ([a-z0-9_]+) = .*" "\\1" id "${line}")
      string(APPEND text "X(${id})\n")
    endforeach()
  endforeach()
  file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/gen/${name}.inc" CONTENT "${text}" @ONLY)
endfunction()

# A text file as C string literals in build/gen/NAME.inc, for: static const char NAME[] =
# #include "NAME.inc"
# ;
function(horn_embed file name)
  set_property(DIRECTORY "${CMAKE_SOURCE_DIR}" APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/${file}")
  file(READ "${CMAKE_SOURCE_DIR}/${file}" text)
  string(REPLACE "\\" "\\\\" text "${text}")
  string(REPLACE "\"" "\\\"" text "${text}")
  string(REPLACE "\n" "\\n\"\n\"" text "${text}")
  file(WRITE "${CMAKE_BINARY_DIR}/gen/${name}.inc.new" "\"${text}\"\n")
  file(COPY_FILE "${CMAKE_BINARY_DIR}/gen/${name}.inc.new" "${CMAKE_BINARY_DIR}/gen/${name}.inc" ONLY_IF_DIFFERENT)
endfunction()
