#!/usr/bin/env bash
# Makes sure that a container engine and compose answer. Where an engine runs already this does nothing; where
# one is installed and not running (a CI machine without a service manager) it starts one, as root.
set -euo pipefail

log=${DOCKERD_LOG:-/var/log/dockerd.log}

if ! docker compose version >/dev/null 2>&1 && ! docker-compose version >/dev/null 2>&1; then
  echo "no compose: install the docker compose plugin or docker-compose (Debian: apt-get install docker-compose)" >&2
  exit 1
fi
if docker info >/dev/null 2>&1; then
  exit 0
fi
if ! command -v dockerd >/dev/null; then
  echo "no container engine answers and none is installed (Debian: apt-get install docker.io iptables cgroupfs-mount)" >&2
  exit 1
fi
if [ "$(id -u)" != 0 ]; then
  echo "no container engine answers; start it (starting dockerd here needs root)" >&2
  exit 1
fi
# A second engine in the same network namespace deletes the first one's bridge and rules.
if pgrep -x dockerd >/dev/null; then
  echo "dockerd runs and does not answer" >&2
  exit 1
fi
if ! mountpoint -q /sys/fs/cgroup/devices && [ ! -e /sys/fs/cgroup/cgroup.controllers ] && command -v cgroupfs-mount >/dev/null; then
  cgroupfs-mount
fi
rm -f /var/run/docker.pid # of an engine that was killed
echo "starting dockerd, its log is $log"
setsid dockerd >"$log" 2>&1 </dev/null &
pid=$!
for _ in $(seq 150); do
  if docker info >/dev/null 2>&1; then
    if [ -n "${DOCKERD_PIDFILE:-}" ]; then echo "$pid" >"$DOCKERD_PIDFILE"; fi # for who wants to stop it
    exit 0
  fi
  if ! kill -0 "$pid" 2>/dev/null; then
    break
  fi
  sleep 0.2
done
echo "dockerd does not come up; its log ends with:" >&2
tail -n 20 "$log" >&2
exit 1
