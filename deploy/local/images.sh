#!/usr/bin/env bash
# Builds the images that deploy/compose.yaml reads from its environment, on a machine that can pull none:
#   Kafka   the jars of integration/kafka/pom.xml, a Java runtime cut to size, a static busybox for a shell
#   etcd    built from its Go module
#   HAProxy, Prometheus   Debian's programs with the libraries they are linked with (Prometheus only where it is installed)
#   router, wsnode   bin/router and bin/wsnode (run `make build` first; `make images` does)
# Each tag is a hash of what the image is made of, so nothing is built twice and a stand-in never sits in a cache
# under a public name. Writes the variables to .cache/images.env and prints them.
# Needs Docker, Java 17 (JDK), Maven, Go, busybox (static), haproxy.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=deploy/local
work=$PWD/.cache/images
mkdir -p "$work"

need() {
  command -v "$1" >/dev/null || { echo "images: $1 is missing (Debian: apt-get install $2)" >&2; exit 1; }
}
hash_of() { cat "$@" | sha256sum | cut -c1-12; }
has_image() { docker image inspect "$1" >/dev/null 2>&1; }
retry() {
  local n
  for n in 1 2 3; do
    if "$@"; then return 0; fi
    echo "images: try $n of 3 failed: $*" >&2
  done
  return 1
}

# The C libraries that the programs named are linked with, loader included.
libraries() { ldd "$@" 2>/dev/null | grep -o '/[^ ]*\.so[^ ]*' | sort -u; }

kafka_image() {
  need java openjdk-17-jdk-headless
  need jlink openjdk-17-jdk-headless
  need mvn maven
  need busybox busybox-static
  local jdk root=$work/kafka
  jdk=$(dirname "$(dirname "$(readlink -f "$(command -v java)")")")
  image=pointsman-local/kafka:$( { java --version; cat integration/kafka/pom.xml "$here"/kafka/*; declare -f kafka_image; } 2>/dev/null | sha256sum | cut -c1-12)
  if has_image "$image"; then return; fi
  echo "images: building $image" >&2
  rm -rf "$root"
  mkdir -p "$root"/{bin,etc/kafka/docker,mnt/shared/config,opt/kafka/bin,opt/kafka/config,opt/kafka/libs,var/lib/kafka/data,tmp}
  retry mvn -q -B -Dstyle.color=never -f integration/kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$root/opt/kafka/libs" >&2
  jlink --module-path "$jdk/jmods" --output "$root/opt/java" --strip-debug --no-header-files --no-man-pages \
    --add-modules java.base,java.desktop,java.management,java.naming,java.security.jgss,java.security.sasl,java.sql,jdk.crypto.ec,jdk.management,jdk.unsupported
  local lib
  for lib in $(libraries "$root/opt/java/bin/java" "$root/opt/java/lib/server/libjvm.so" "$root"/opt/java/lib/*.so); do
    case $lib in "$root"/*) continue ;; esac
    install -D "$lib" "$root$lib"
  done
  install "$(command -v busybox)" "$root/bin/busybox"
  local applet
  for applet in sh cat ls nc grep sed ps env sleep kill mkdir rm; do ln -s busybox "$root/bin/$applet"; done
  printf 'root:x:0:0::/:/bin/sh\nappuser:x:1000:1000::/tmp:/bin/sh\n' >"$root/etc/passwd"
  printf 'root:x:0:\nappuser:x:1000:\n' >"$root/etc/group"
  install "$here/kafka/run" "$root/etc/kafka/docker/run"
  cp "$here/kafka/server.properties" "$here/kafka/log4j2.yaml" "$root/etc/kafka/docker/"
  cp "$here/kafka/log4j2.yaml" "$root/etc/kafka/docker/tools-log4j2.yaml"
  install "$here/kafka/tool" "$root/opt/kafka/bin/kafka-topics.sh"
  install "$here/kafka/tool" "$root/opt/kafka/bin/kafka-consumer-groups.sh"
  chown -R 1000:1000 "$root/opt/kafka/config" "$root/var/lib/kafka" "$root/mnt/shared"
  chmod 1777 "$root/tmp"
  # import keeps owners, which COPY does not.
  tar -C "$root" -c . | docker import -c 'USER 1000:1000' -c 'ENV PATH=/opt/java/bin:/opt/kafka/bin:/bin' \
    -c 'CMD ["/etc/kafka/docker/run"]' -c 'VOLUME ["/var/lib/kafka/data"]' -c 'EXPOSE 9092' - "$image" >/dev/null
  rm -rf "$root"
}

etcd_image() {
  local root=$work/etcd
  image=pointsman-local/etcd:$( { go version; cat "$here/etcd/go.mod"; declare -f etcd_image; } | sha256sum | cut -c1-12)
  if has_image "$image"; then return; fi
  echo "images: building $image" >&2
  rm -rf "$root"
  mkdir -p "$root/usr/local/bin" "$root/var/lib/etcd" "$root/tmp"
  (
    cd "$here/etcd"
    export CGO_ENABLED=0 GOWORK=off
    retry go mod download
    go build -trimpath -ldflags '-s -w' -o "$root/usr/local/bin/etcd" go.etcd.io/etcd/server/v3
    go build -trimpath -ldflags '-s -w' -o "$root/usr/local/bin/etcdctl" go.etcd.io/etcd/etcdctl/v3
  )
  chmod 1777 "$root/tmp"
  tar -C "$root" -c . | docker import -c 'ENV PATH=/usr/local/bin' -c 'CMD ["/usr/local/bin/etcd"]' -c 'EXPOSE 2379' - "$image" >/dev/null
  rm -rf "$root"
}

# debian_image NAME SETTING...: an installed program with the libraries that it is linked with.
debian_image() {
  local name=$1 program root=$work/$1 lib
  shift
  program=$(readlink -f "$(command -v "$name")")
  image=pointsman-local/$name:$( { cat "$program"; declare -f debian_image; echo "$@"; } | sha256sum | cut -c1-12)
  if has_image "$image"; then return; fi
  echo "images: building $image" >&2
  rm -rf "$root"
  install -D "$program" "$root/bin/$name"
  for lib in $(libraries "$program"); do install -D "$lib" "$root$lib"; done
  install -d -o 65532 -g 65532 "$root/prometheus"
  tar -C "$root" -c . | docker import -c 'USER 65532:65532' -c 'ENV PATH=/bin' "$@" - "$image" >/dev/null
  rm -rf "$root"
}

# program_image NAME: packs bin/NAME by its Dockerfile's first stage.
program_image() {
  local name=$1 certs=/etc/ssl/certs/ca-certificates.crt
  [ -x "bin/$name" ] || { echo "images: bin/$name is missing: make build" >&2; exit 1; }
  if [ -e "$certs" ]; then install -m 644 "$certs" bin/ca-certificates.crt; else : >bin/ca-certificates.crt; fi
  image=pointsman-local/$name:$(hash_of "bin/$name" bin/ca-certificates.crt "deploy/$name.Dockerfile")
  if has_image "$image"; then return; fi
  echo "images: building $image" >&2
  local said # also that the classic builder is deprecated; the only one without buildx
  if ! said=$(tar -c "bin/$name" bin/ca-certificates.crt "deploy/$name.Dockerfile" |
    DOCKER_BUILDKIT=0 docker build -q --target prebuilt -f "deploy/$name.Dockerfile" -t "$image" - 2>&1); then
    echo "$said" >&2
    return 1
  fi
}

# Stand-ins of other contents are of no use to anybody.
forget_older() {
  local repository=${1%:*} other
  for other in $(docker images --format '{{.Repository}}:{{.Tag}}' "$repository"); do
    if [ "$other" != "$1" ]; then docker rmi "$other" >/dev/null 2>&1 || true; fi # in use: stays
  done
}

# offer VARIABLE: what compose is to read.
offer() {
  forget_older "$image"
  echo "export $1=$image" >>"$work/env"
}

"$here/engine.sh" >&2
: >"$work/env"
kafka_image
offer KAFKA_IMAGE
etcd_image
offer ETCD_IMAGE
need haproxy haproxy
debian_image haproxy
offer HAPROXY_IMAGE
if command -v prometheus >/dev/null; then
  debian_image prometheus -c 'ENTRYPOINT ["/bin/prometheus"]' -c 'VOLUME ["/prometheus"]'
  offer PROMETHEUS_IMAGE
fi
program_image router
offer ROUTER_IMAGE
program_image wsnode
offer WSNODE_IMAGE
mv "$work/env" .cache/images.env
cat .cache/images.env
