#!/bin/sh
# Makes a Debian machine the target of the lab: Plexus from this working copy as a service, its configuration from
# lab.env, and the first volume, which is UP when it ends. Run as root; it may be run again at any time.
#   usage: target.sh [STEP ...]     all of them, or some: packages build config service volume
set -eu
repository=$(cd "$(dirname "$0")/../.." && pwd)
. "$repository/vagrant/lab.env"
file=/etc/plexus/plexus.yaml
secrets=/etc/plexus/secrets

fail() {
  echo "target: $*" >&2
  exit 1
}

# Debian 13 is the first release with a Node.js that Plexus runs on. On Debian 12 (18.20) one from elsewhere is needed,
# such as nodesource.com's; it is not done here, so that everything comes from Debian.
packages() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  apt-get install -y -q --no-install-recommends ca-certificates nodejs npm
  node -e 'const [major, minor] = process.versions.node.split(".").map(Number)
    process.exit(major > 20 || (major === 20 && minor >= 19) ? 0 : 1)' ||
    fail "Node.js 20.19 or newer is needed, this system has $(node --version); use Debian 13 or newer"
}

# As docs/install.md has it. The package is built in a copy: the working copy stays as it is.
build() {
  copy=$(mktemp -d)
  trap 'rm -rf "$copy"' EXIT
  tar -C "$repository" -cf - --exclude=./.git --exclude=./node_modules --exclude=./dist --exclude=./build \
    --exclude=./var --exclude=./.tap --exclude=./vagrant/.vagrant . | tar -C "$copy" -xf -
  (
    cd "$copy"
    npm ci --no-audit --no-fund
    npm pack --silent
    npm install --global --no-audit --no-fund ./plexus-*.tgz
  )
  rm -rf "$copy"
  trap - EXIT
  # Members of the group administer Plexus without being root; the daemon itself is root's.
  getent group plexus >/dev/null || groupadd --system plexus
  if id vagrant >/dev/null 2>&1; then usermod --append --groups plexus vagrant; fi
}

# The name of a disk that survives a reboot: its world-wide name, else another one of /dev/disk/by-id, else its own.
stable_name() {
  for link in /dev/disk/by-id/wwn-* /dev/disk/by-id/*; do
    if [ "$(readlink -f "$link")" = "$1" ]; then
      echo "$link"
      return
    fi
  done
  echo "$1"
}

# Does the disk carry nothing? Partition tables, file systems, members of RAID and LVM, and the labels of Plexus itself
# are in the first or the last MiB.
is_blank() {
  size=$(blockdev --getsize64 "$1")
  mib=1048576
  cmp --silent --bytes=$mib "$1" /dev/zero && cmp --silent --bytes=$mib --ignore-initial=$((size - mib)):0 "$1" /dev/zero
}

# The disks for Plexus, in the order of d1, d2 …: those of the configuration where there is one. Else the blank disks of
# the size that the lab's disks have, exactly as many as there must be: so never the root disk, and none with data.
find_disks() {
  if [ -e "$file" ]; then
    sed -n 's/^  d[0-9]*: //p' "$file"
    return
  fi
  lsblk --nodeps --noheadings --raw --bytes --output PATH,TYPE,SIZE | while read -r path type size; do
    if [ "$type" = disk ] && [ "$size" = $((DISK_MIB * 1048576)) ] && is_blank "$path"; then stable_name "$path"; fi
  done | sort -V
}

secret() {
  (umask 077 && printf '%s\n' "$2" >"$secrets/$1")
}

# Each network is a portal of its own, and so a SCSI target port of its own: initiators see two paths through two ports,
# and a login over one of them never replaces the session over the other.
config() {
  found=$(find_disks)
  count=$(printf '%s' "$found" | grep -c . || true)
  [ "$count" -eq "$DISKS" ] || fail "$DISKS blank disks of $DISK_MIB MiB are needed, found $count: ${found:-none}; see lsblk"
  install -d -m 750 "$(dirname "$file")" "$secrets"
  secret chap "$CHAP_SECRET"
  secret mutual "$MUTUAL_SECRET"
  {
    cat <<EOF
# Written by vagrant/provision/target.sh from vagrant/lab.env. The next run keeps the devices and writes the rest anew.
version: 1
portals:
  - { name: a, listen: ["$TARGET_ADDRESS_A:$ISCSI_PORT"] }
  - { name: b, listen: ["$TARGET_ADDRESS_B:$ISCSI_PORT"] }
auth:
  - name: linux
    chap: { user: $CHAP_USER, secretFile: $secrets/chap }
    mutual: { user: $MUTUAL_USER, secretFile: $secrets/mutual }
    initiators: ["$LINUX_NAME", "$SECOND_NAME"]
  - name: windows
    chap: { user: $CHAP_USER, secretFile: $secrets/chap }
    mutual: { user: $MUTUAL_USER, secretFile: $secrets/mutual }
    initiators: ["$WINDOWS_NAME"]
devices:
EOF
    printf '%s\n' "$found" | awk '{ printf "  d%d: %s\n", NR, $0 }'
    cat <<EOF
targets:
  - name: $TARGET_NAME
    portals: [a, b]
    auth: linux
    luns:
      - { lun: $LUN, volume: $VOLUME }
  - name: $WINDOWS_TARGET_NAME
    portals: [a, b]
    auth: windows
    luns:
      - { lun: 0, device: $WINDOWS_DEVICE }
EOF
  } >"$file.new"
  plexus config check "$file.new"
  mv "$file.new" "$file"
}

service() {
  unit=/etc/systemd/system/plexusd.service
  mkdir -p /usr/share/doc
  ln -sfn "$(npm root --global)/plexus" /usr/share/doc/plexus
  install -m 644 /usr/share/doc/plexus/systemd/plexusd.service "$unit"
  systemd-analyze verify "$unit"
  systemctl enable plexusd
  # Also when it runs: the code may be new. Initiators log in again by themselves.
  if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl restart plexusd
  else
    echo "target: systemd does not run here; start: plexusd --config $file"
  fi
}

volume() {
  status=0
  plexus volume show "$VOLUME" >/dev/null 2>&1 || status=$?
  # 4: there is no such volume (docs/cli-reference.md).
  if [ "$status" -eq 4 ]; then plexus volume create "$VOLUME" --raid5 d1 d2 d3; fi
  plexus wait "$VOLUME" --timeout 10m
  plexus status "$VOLUME" --check
}

[ "$(id -u)" -eq 0 ] || fail "run this as root"
[ $# -gt 0 ] || set -- packages build config service volume
for step in "$@"; do
  case $step in
    packages | build | config | service | volume)
      echo "target: == $step"
      "$step"
      ;;
    *) fail "no step $step; there are: packages build config service volume" ;;
  esac
done
