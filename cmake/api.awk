# Reads the public headers and writes what they declare.
#
#   awk -v mode=functions -f cmake/api.awk include/diffusion/*.h    names of the DM_API functions, one a line
#   awk -v mode=map       ...                                       a version script that exports exactly these
#   awk -v mode=docs      ...                                       what their comments lack; exit status 1 if anything
#   awk -v mode=rules     ...                                       types that the ABI does not allow; likewise
#   awk -v mode=program   ...                                       a C program; run it with "json" for the API as
#                                                                   JSON, with "layout" for tests/abi/layout.c
#
# It knows the C that these headers use, not all of C: object-like macros, typedefs of plain types, of structs
# with a body and of function pointers, and functions marked DM_API.

FNR == 1 { file[++files] = FILENAME }
{ text[files] = text[files] $0 "\n" }

END {
    for (f = 1; f <= files; f++) {
        header = file[f]
        sub(/.*include\//, "", header)
        scan(text[f])
    }
    if (mode == "functions") for (i = 1; i <= functions; i++) print fn_name[i]
    else if (mode == "map") write_map()
    else if (mode == "docs") check_docs()
    else if (mode == "rules") check_types()
    else if (mode == "program") write_program()
    else { print "api.awk: unknown mode" > "/dev/stderr"; exit 2 }
    exit failed
}

# ---- parsing ----

# Splits one header into directives, comments and declarations that end in ';' outside braces.
function scan(s,    i, n, c, two, end, body, decl, doc, depth, word) {
    n = length(s); decl = ""; doc = ""; depth = 0
    for (i = 1; i <= n; i++) {
        c = substr(s, i, 1); two = substr(s, i, 2)
        if (two == "/*") {
            end = index(substr(s, i + 2), "*/")
            body = substr(s, i + 2, end - 1)
            i += end + 2
            if (body ~ /^\*[^<]/ && blank(decl)) doc = body
        } else if (two == "//") {
            i += index(substr(s, i), "\n") - 2
        } else if (c == "#" && blank(decl)) {
            body = ""
            for (; i <= n && (c = substr(s, i, 1)) != "\n"; i++) {
                if (substr(s, i, 2) == "/*") i += index(substr(s, i + 2), "*/") + 2
                else if (substr(s, i, 2) == "\\\n") i++
                else body = body c
            }
            directive(body); doc = ""
        } else if (c == ";" && depth == 0) {
            declaration(squeeze(decl), doc); decl = ""; doc = ""
        } else {
            if (c == "{") depth++
            if (c == "}") depth--
            decl = decl (c == "\n" ? " " : c)
            word = squeeze(decl)
            if (c == "\n" && (word == "DM_BEGIN_DECLS" || word == "DM_END_DECLS")) decl = ""
        }
    }
}

function blank(s) { return s !~ /[^ \t\n]/ }
function squeeze(s) { gsub(/[ \t\n]+/, " ", s); sub(/^ /, "", s); sub(/ $/, "", s); return s }

function directive(s,    name) {
    if (s !~ /^# *define +DM_[A-Z0-9_]+ +[^ ]/) return
    sub(/^# *define +/, "", s)
    name = s; sub(/ .*/, "", name)
    sub(/^[^ ]+ +/, "", s)
    if (name ~ /^DM_(API|BEGIN_DECLS|END_DECLS)$/) return
    c_name[++constants] = name; c_header[constants] = header; c_value[constants] = squeeze(s)
}

function declaration(d, doc,    name, body) {
    if (d ~ /^DM_API /) {
        sub(/^DM_API /, "", d)
        name = d; sub(/ ?\(.*/, "", name)
        fn_returns[++functions] = type_of(name); fn_name[functions] = name_of(name); fn_header[functions] = header
        sub(/^[^(]*\(/, "", d); sub(/\)[^)]*$/, "", d)
        fn_params[functions] = squeeze(d); fn_doc[functions] = doc
    } else if (d ~ /^typedef struct [a-z0-9_]+ \{/) {
        body = d; sub(/^[^{]*\{/, "", body); sub(/\}[^}]*$/, "", body)
        st_name[++structs] = name_of(d); st_header[structs] = header
        fields_of(structs, body)
    } else if (d ~ /^typedef .*\( ?\* ?[a-z0-9_]+ ?\)/) {
        body = d; sub(/^typedef /, "", body); sub(/ ?\( ?\*.*/, "", body)
        cb_returns[++callbacks] = body; cb_header[callbacks] = header
        body = d; sub(/^[^*]*\( ?\* ?/, "", body)
        if (d ~ /^typedef [^(]*\*/) { body = d; sub(/^[^(]*\( ?\* ?/, "", body) }
        cb_name[callbacks] = body; sub(/ ?\).*/, "", cb_name[callbacks])
        sub(/^[^(]*\(/, "", body); sub(/\)[^)]*$/, "", body)
        cb_params[callbacks] = squeeze(body)
    } else if (d ~ /^typedef /) {
        sub(/^typedef /, "", d)
        ty_type[++types] = type_of(d); ty_name[types] = name_of(d); ty_header[types] = header
    } else if (d != "" && d !~ /^(DM_END_DECLS|DM_BEGIN_DECLS)$/) {
        print header ": a declaration that cmake/api.awk does not know: " d > "/dev/stderr"
        failed = 1
    }
}

# "const int32_t *dims" -> "dims" and "const int32_t *"; "uint32_t key[2]" -> "key" and "uint32_t[2]".
function name_of(d) { sub(/ ?\[[^]]*\]$/, "", d); sub(/.*[^A-Za-z0-9_]/, "", d); return d }
function type_of(d,    array) {
    if (match(d, / ?\[[^]]*\]$/)) { array = squeeze(substr(d, RSTART)); d = substr(d, 1, RSTART - 1) }
    sub(/[A-Za-z0-9_]+$/, "", d)
    return squeeze(d) array
}

function fields_of(s, body,    part, n, i, piece, m, j, type) {
    n = split(body, part, ";")
    for (i = 1; i <= n; i++) {
        if (blank(part[i])) continue
        m = split(part[i], piece, ",")
        type = type_of(squeeze(piece[1]))
        for (j = 1; j <= m; j++) {
            fd_struct[++fields] = s
            fd_type[fields] = type; fd_name[fields] = name_of(squeeze(piece[j]))
        }
    }
}

# ---- writing ----

function write_map(    i) {
    print "DIFFUSION_0.1 {\n  global:"
    for (i = 1; i <= functions; i++) print "    " fn_name[i] ";"
    print "  local:\n    *;\n};"
}

function check_docs(    i, t, n, tag) {
    n = split("Errors: Threads: Cost: Since:", tag, " ")
    for (i = 1; i <= functions; i++) {
        if (fn_doc[i] == "") { complain(i, "no /** */ comment of its own"); continue }
        for (t = 1; t <= n; t++) if (index(fn_doc[i], tag[t]) == 0) complain(i, "no \"" tag[t] "\" in its comment")
        if (since_of(fn_doc[i]) == "") complain(i, "\"Since:\" without a version")
    }
    print functions " functions checked"
    if (functions == 0) failed = 1
}
function complain(i, what) { print fn_header[i] ": " fn_name[i] ": " what; failed = 1 }

# In the ABI only pointers, fixed-width integers, float, double and char *; names for int32_t; callbacks by name.
function check_types(    i, j, n, part) {
    n = split("int32_t int64_t uint32_t uint64_t uint8_t float double", part, " ")
    for (i = 1; i <= n; i++) value_type[part[i]] = pointed_type[part[i]] = 1
    for (i = 1; i <= types; i++) {
        if (ty_type[i] in value_type) value_type[ty_name[i]] = 1
        pointed_type[ty_name[i]] = 1
        if (!(ty_type[i] in value_type) && !(ty_type[i] in pointed_type) && ty_type[i] !~ /^struct dm_[a-z0-9_]+$/)
            bad(ty_header[i], ty_name[i], ty_type[i])
    }
    for (i = 1; i <= structs; i++) pointed_type[st_name[i]] = 1
    for (i = 1; i <= callbacks; i++) value_type[cb_name[i]] = 1
    pointed_type["void"] = pointed_type["char"] = 1
    for (i = 1; i <= functions; i++) check_signature(fn_header[i], fn_name[i], fn_returns[i], fn_params[i])
    for (i = 1; i <= callbacks; i++) check_signature(cb_header[i], cb_name[i], cb_returns[i], cb_params[i])
    for (i = 1; i <= fields; i++)
        if (!allowed(fd_type[i])) bad(st_header[fd_struct[i]], st_name[fd_struct[i]] "." fd_name[i], fd_type[i])
    for (i = 1; i <= functions; i++)
        if (fn_name[i] !~ /^dm_[a-z0-9_]+$/) bad(fn_header[i], fn_name[i], "not a dm_ name")
}
function check_signature(where, name, returns, params,    part, n, i) {
    if (returns != "void" && !allowed(returns)) bad(where, name, returns)
    if (params == "") bad(where, name, "empty parameter list, expected (void)")
    if (params == "void") return
    n = split(params, part, ",")
    for (i = 1; i <= n; i++)
        if (!allowed(type_of(squeeze(part[i])))) bad(where, name, type_of(squeeze(part[i])))
}
function allowed(type,    pointer) {
    pointer = type ~ /[*\[]/
    gsub(/const |\*|\[[^]]*\]/, "", type)
    type = squeeze(type)
    return pointer ? (type in pointed_type) : (type in value_type)
}
function bad(where, name, what) { print where ": " name ": " what; failed = 1 }

function since_of(doc) {
    gsub(/[ \t\n*]+/, " ", doc) # the version may stand on the next line
    if (!match(doc, /Since: [0-9]+\.[0-9]+/)) return ""
    doc = substr(doc, RSTART, RLENGTH); sub(/Since: /, "", doc)
    return doc
}

# A C string literal.
function c_string(s) { gsub(/\\/, "\\\\", s); gsub(/"/, "\\\"", s); return "\"" s "\"" }
function json(s) { return "\"" s "\"" }
function put(s) { print "    fputs(" c_string(s) ", stdout);" }
function line(s) { print "    puts(" c_string(s) ");" }

function params_json(list,    part, n, i, out) {
    if (list == "void" || list == "") return "[]"
    n = split(list, part, ",")
    for (i = 1; i <= n; i++) {
        part[i] = squeeze(part[i])
        out = out (i > 1 ? ", " : "") "{\"name\": " json(name_of(part[i])) ", \"type\": " json(type_of(part[i])) "}"
    }
    return "[" out "]"
}

function write_program(    i) {
    print "/* Made by cmake/api.awk. */"
    print "#include <stddef.h>\n#include <stdio.h>\n#include <string.h>"
    for (i = 1; i <= files; i++) {
        header = file[i]; sub(/.*include\//, "", header)
        print "#include \"" header "\""
    }
    write_json_function()
    write_layout_function()
    print "\nint main(int argc, char **argv)\n{"
    print "    if (argc == 2 && strcmp(argv[1], \"json\") == 0) print_json();"
    print "    else if (argc == 2 && strcmp(argv[1], \"layout\") == 0) print_layout();"
    print "    else return 2;"
    print "    return fflush(stdout) == 0 ? 0 : 1;\n}"
}

function is_text(i) { return c_value[i] ~ /^"/ }
function is_real(i) { return c_value[i] ~ /[0-9]\.|\.[0-9]|[0-9][eE]-?[0-9]/ && c_value[i] !~ /0x/ }

function write_json_function(    i, j, first) {
    print "\nstatic void print_json(void)\n{"
    line("{"); line("\"library\": \"diffusion\",")
    print "    printf(\"\\\"version\\\": \\\"%d.%d.%d\\\",\\n\", DM_VERSION_MAJOR, DM_VERSION_MINOR, DM_VERSION_PATCH);"
    print "    printf(\"\\\"pointer_size\\\": %d,\\n\", (int)sizeof(void *));"
    line("\"constants\": [")
    for (i = 1; i <= constants; i++) {
        put("  {\"name\": " json(c_name[i]) ", \"header\": " json(c_header[i]) ", \"value\": ")
        if (is_text(i)) print "    printf(\"\\\"%s\\\"\", " c_name[i] ");"
        else if (is_real(i)) print "    printf(\"%.17g\", (double)(" c_name[i] "));"
        else print "    printf(\"%lld\", (long long)(" c_name[i] "));"
        line("}" (i < constants ? "," : ""))
    }
    line("],"); line("\"types\": [")
    for (i = 1; i <= types; i++)
        line("  {\"name\": " json(ty_name[i]) ", \"header\": " json(ty_header[i]) ", \"type\": " json(ty_type[i]) "}" \
             (i < types ? "," : ""))
    line("],"); line("\"callbacks\": [")
    for (i = 1; i <= callbacks; i++)
        line("  {\"name\": " json(cb_name[i]) ", \"header\": " json(cb_header[i]) ", \"returns\": " \
             json(cb_returns[i]) ", \"params\": " params_json(cb_params[i]) "}" (i < callbacks ? "," : ""))
    line("],"); line("\"structs\": [")
    for (i = 1; i <= structs; i++) {
        put("  {\"name\": " json(st_name[i]) ", \"header\": " json(st_header[i]) ", \"size\": ")
        print "    printf(\"%d\", (int)sizeof(" st_name[i] "));"
        line(", \"fields\": [")
        first = 1
        for (j = 1; j <= fields; j++) if (fd_struct[j] == i) {
            if (!first) line(",")
            first = 0
            put("    {\"name\": " json(fd_name[j]) ", \"type\": " json(fd_type[j]) ", \"offset\": ")
            print "    printf(\"%d, \\\"size\\\": %d}\", (int)offsetof(" st_name[i] ", " fd_name[j] \
                  "), (int)sizeof(((" st_name[i] " *)0)->" fd_name[j] "));"
        }
        line("]}" (i < structs ? "," : ""))
    }
    line("],"); line("\"functions\": [")
    for (i = 1; i <= functions; i++)
        line("  {\"name\": " json(fn_name[i]) ", \"header\": " json(fn_header[i]) ", \"returns\": " \
             json(fn_returns[i]) ", \"since\": " json(since_of(fn_doc[i])) ", \"params\": " params_json(fn_params[i]) \
             "}" (i < functions ? "," : ""))
    line("]"); line("}")
    print "}"
}

# The text of a program that compiles only while sizes, offsets, values and signatures are what they are today.
function write_layout_function(    i, j) {
    print "\nstatic void print_layout(void)\n{"
    line("/* What has been released and may never change on 64-bit systems. Made by tests/abi/make-layout.sh; lines are")
    line(" * added when the API grows, never altered once released. */")
    line("#include \"diffusion.h\""); line(""); line("#include <stddef.h>"); line("")
    line("#if UINTPTR_MAX == 0xffffffffffffffffu")
    for (i = 1; i <= structs; i++) {
        line("")
        print "    printf(\"_Static_assert(sizeof(" st_name[i] ") >= %d, \\\"" st_name[i] "\\\");\\n\", (int)sizeof(" \
              st_name[i] "));"
        for (j = 1; j <= fields; j++) if (fd_struct[j] == i)
            print "    printf(\"_Static_assert(offsetof(" st_name[i] ", " fd_name[j] ") == %d, \\\"" fd_name[j] \
                  "\\\");\\n\", (int)offsetof(" st_name[i] ", " fd_name[j] "));"
    }
    line(""); line("#endif"); line("")
    for (i = 1; i <= constants; i++) if (c_name[i] !~ /^DM_VERSION/ && !is_text(i) && !is_real(i))
        print "    printf(\"_Static_assert(" c_name[i] " == %lld, \\\"value\\\");\\n\", (long long)(" c_name[i] "));"
    line(""); line("/* A second declaration: a changed signature does not compile. */")
    for (i = 1; i <= functions; i++)
        line(fn_returns[i] (fn_returns[i] ~ /\*$/ ? "" : " ") fn_name[i] "(" fn_params[i] ");")
    line("")
    line("int main(void) { return 0; }")
    print "}"
}
