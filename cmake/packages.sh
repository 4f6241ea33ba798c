# The Debian packages that the project needs, and a function that installs those that are missing. Sourced by
# tests/run.sh and examples/quickstart.sh:   . cmake/packages.sh; dm_install $dm_packages_build
dm_packages_build="gcc libc6-dev cmake ninja-build pkg-config libopenblas-dev libpng-dev zlib1g-dev"
dm_packages_data="dataset-fashion-mnist"
dm_packages_test="g++ clang binutils libblis-dev libcmocka-dev libcjson-dev valgrind abigail-tools"
# Beside the machine's own, for the cross compiler; on AArch64 itself there is nothing to cross.
dm_packages_aarch64="gcc-aarch64-linux-gnu qemu-user libc6-dev:arm64 libopenblas-dev:arm64 libpng-dev:arm64
    zlib1g-dev:arm64 libcmocka-dev:arm64 libcjson-dev:arm64"

dm_missing() { # prints those of its arguments that are not installed; a name alone is the machine's architecture
    dm_native=$(dpkg --print-architecture)
    for dm_package in "$@"; do
        case $dm_package in
        *:*) dm_architecture=${dm_package#*:} ;;
        *) dm_architecture=$dm_native ;;
        esac
        dpkg-query -W -f '${Architecture} ${db:Status-Status}\n' "$dm_package" 2> /dev/null |
            grep -qxE "($dm_architecture|all) installed" || printf '%s ' "$dm_package"
    done
}

dm_install() {
    if ! command -v dpkg-query > /dev/null || ! command -v apt-get > /dev/null; then
        echo "This is not a Debian system; expected to be there already: $*" >&2
        return 0
    fi
    dm_wanted=$(dm_missing "$@")
    [ -n "$dm_wanted" ] || return 0
    echo "Installing: $dm_wanted"
    dm_sudo=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo > /dev/null || { echo "root or sudo is needed to install: $dm_wanted" >&2; return 1; }
        dm_sudo=sudo
    fi
    case " $dm_wanted" in
    *:arm64*) $dm_sudo dpkg --add-architecture arm64 ;;
    esac
    # Package lists may be absent or old on a fresh machine.
    $dm_sudo env DEBIAN_FRONTEND=noninteractive sh -c "
        apt-get install -y -q --no-install-recommends $dm_wanted > /dev/null 2>&1 ||
            { apt-get update -q > /dev/null && apt-get install -y -q --no-install-recommends $dm_wanted > /dev/null; }"
}
