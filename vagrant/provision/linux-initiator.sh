#!/bin/sh
# Makes this machine an initiator of the lab's target: CHAP in both directions, two paths joined by multipath, a file system
# mounted at $MOUNT. For Debian as root: the Vagrant box and the guests of uml/ run it alike, with or without systemd.
#   usage: linux-initiator.sh     names, addresses and secrets: lab.env, or the file that LAB_ENV names
# A second run changes nothing; a disk with data on it is mounted or refused, never formatted.
set -eu
. "${LAB_ENV:-$(dirname "$0")/../lab.env}"
PORTAL_A=$TARGET_ADDRESS_A:$ISCSI_PORT
PORTAL_B=$TARGET_ADDRESS_B:$ISCSI_PORT
# Seconds until the disk and its paths have come up.
PATIENCE_S=30

say() { echo "linux-initiator: $*"; }
fail() {
  echo "linux-initiator: $*" >&2
  exit 1
}
has_systemd() { [ -d /run/systemd/system ]; }
is_installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }

install_packages() {
  missing=
  for package in "$@"; do is_installed "$package" || missing="$missing $package"; done
  [ -n "$missing" ] || return 0
  say "installing$missing"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  # shellcheck disable=SC2086 # a list of words
  apt-get install -y -q --no-install-recommends $missing
}

# put FILE MODE: standard input becomes the content of FILE. True if it was another one before.
put() {
  temporary=$(mktemp)
  cat >"$temporary"
  if cmp -s "$temporary" "$1"; then
    rm "$temporary"
    return 1
  fi
  install -D -m "$2" "$temporary" "$1"
  rm "$temporary"
  say "wrote $1"
}

# start NAME: the daemon runs, now and after a reboot. It has no need of systemd.
start() {
  if has_systemd; then
    systemctl enable --now --quiet "$1"
  elif ! pidof "$1" >/dev/null; then
    "$1"
  fi
}
# restart NAME: if it runs; start starts it otherwise.
restart() {
  if has_systemd; then
    systemctl try-restart "$1"
  elif pid=$(pidof -s "$1"); then
    kill "$pid"
    until_true "the end of $1" not pidof "$1"
  fi
}
not() { ! "$@"; }
# until_true WHAT COMMAND...: waits until the command succeeds, at most PATIENCE_S.
until_true() {
  awaited=$1
  shift
  patience=$((PATIENCE_S * 5))
  until "$@" >/dev/null 2>&1; do
    patience=$((patience - 1))
    [ $patience -gt 0 ] || fail "waited $PATIENCE_S s for $awaited"
    sleep 0.2
  done
}

name_initiator() {
  if echo "InitiatorName=$LINUX_NAME" | put /etc/iscsi/initiatorname.iscsi 600; then restart iscsid; fi
  start iscsid
}

# The disks of the target, and no others, become multipath devices: both paths are used at once, a path is taken out of use
# when it has answered nothing for about ten seconds (the node's settings below). Without any path, requests wait for
# five minutes (60 checks, 5 s apart) before programs see errors: a restart of the target is nothing to them.
configure_multipath() {
  if put /etc/multipath/conf.d/plexus.conf 644 <<'END'; then restart multipathd; fi
defaults {
    find_multipaths greedy
    user_friendly_names no
    polling_interval 5
}
blacklist {
    device {
        vendor ".*"
        product ".*"
    }
}
blacklist_exceptions {
    device {
        vendor "PLEXUS"
        product "iSCSI Disk"
    }
}
devices {
    device {
        vendor "PLEXUS"
        product "iSCSI Disk"
        path_grouping_policy multibus
        path_selector "service-time 0"
        path_checker tur
        prio const
        fast_io_fail_tmo 5
        no_path_retry 60
    }
}
END
  modprobe -a dm-multipath dm-service-time
  start multipathd
}

# setting PORTAL KEY VALUE: of the node record, where it has another value. Values are not shown: some are secrets.
setting() {
  iscsiadm -m node -T "$TARGET_NAME" -p "$1" -S | grep -qxF "$2 = $3" && return 0
  iscsiadm -m node -T "$TARGET_NAME" -p "$1" -o update -n "$2" -v "$3" >/dev/null
  say "set $2 for $1"
}
has_record() { iscsiadm -m node 2>/dev/null | grep -q "^$1,[0-9]* $TARGET_NAME\$"; }
has_session() { iscsiadm -m session 2>/dev/null | grep -q " $1,[0-9]* $TARGET_NAME "; }

# Records that are there keep what they say: discovery would set them back to iscsid.conf.
discover() {
  has_record "$PORTAL_A" && has_record "$PORTAL_B" && return 0
  for portal in "$PORTAL_A" "$PORTAL_B"; do
    iscsiadm -m discovery -t sendtargets -p "$portal" -o new && break
  done
  for portal in "$PORTAL_A" "$PORTAL_B"; do
    has_record "$portal" || fail "discovery did not find $TARGET_NAME at $portal. Does plexusd run there, and admit $LINUX_NAME?"
  done
}

log_in() {
  for portal in "$PORTAL_A" "$PORTAL_B"; do
    setting "$portal" node.session.auth.authmethod CHAP
    setting "$portal" node.session.auth.username "$CHAP_USER"
    setting "$portal" node.session.auth.password "$CHAP_SECRET"
    setting "$portal" node.session.auth.username_in "$MUTUAL_USER"
    setting "$portal" node.session.auth.password_in "$MUTUAL_SECRET"
    setting "$portal" 'node.conn[0].timeo.noop_out_interval' 5
    setting "$portal" 'node.conn[0].timeo.noop_out_timeout' 5
    setting "$portal" node.session.timeo.replacement_timeout 5
    setting "$portal" node.startup automatic
    has_session "$portal" || iscsiadm -m node -T "$TARGET_NAME" -p "$portal" --login
  done
  if has_systemd; then systemctl enable --quiet open-iscsi; fi
}

# paths_of LUN: the kernel's names of the disks that lead there, one a line.
paths_of() {
  for session in /sys/class/iscsi_session/session*; do
    [ "$(cat "$session/targetname" 2>/dev/null)" = "$TARGET_NAME" ] || continue
    for block in "$session"/device/target*/*:"$1"/block/sd*; do
      [ ! -e "$block" ] || echo "${block##*/}"
    done
  done
}
count_paths() { [ "$(paths_of "$LUN" | wc -l)" = 2 ]; }
joined() { [ -b "$DEVICE" ] && [ "$(multipathd show paths format '%w %t' | grep -c "^$WWID *active")" = 2 ]; }

# Sets DEVICE, the multipath device.
join_paths() {
  until_true "two paths to LUN $LUN" count_paths
  first=$(paths_of "$LUN" | sed -n 1p)
  WWID=3$(sed -n 's/^naa\.//p' "/sys/block/$first/device/wwid")
  DEVICE=/dev/mapper/$WWID
  until_true "multipath to join both paths in $DEVICE" joined
}

# Is there nothing on the device? A failure to read it is no yes.
is_blank() {
  signatures=$(wipefs --noheadings "$DEVICE") || fail "$DEVICE cannot be read"
  [ -z "$signatures" ] && cmp -s -n 1048576 "$DEVICE" /dev/zero
}

mount_it() {
  if is_blank; then
    say "making a file system on $DEVICE"
    mkfs.ext4 -q "$DEVICE"
  fi
  type=$(blkid -p -s TYPE -o value "$DEVICE") || type=unknown
  [ "$type" = ext4 ] || fail "$DEVICE has other data on it ($type). If nobody needs it: wipefs --all $DEVICE," \
    "dd if=/dev/zero of=$DEVICE bs=1M count=1, and run this again"
  line="$DEVICE $MOUNT ext4 _netdev,nofail 0 0"
  if ! grep -qxF "$line" /etc/fstab 2>/dev/null; then
    echo "$line" >>/etc/fstab
    say "added $MOUNT to /etc/fstab"
    if has_systemd; then systemctl daemon-reload; fi
  fi
  mkdir -p "$MOUNT"
  mountpoint -q "$MOUNT" || mount "$MOUNT"
}

[ "$(id -u)" = 0 ] || fail "needs root"
install_packages open-iscsi multipath-tools e2fsprogs fio kmod
name_initiator
configure_multipath
discover
log_in
join_paths
mount_it
say "$DEVICE is mounted at $MOUNT"
