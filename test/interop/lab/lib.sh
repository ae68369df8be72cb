# Shared by the lab's guest scripts; sourced as /share/lib.sh in the guest (sh is dash there).
# A script that reaches its end has passed; the first assertion that fails ends it with status 1.
set -u
PORTAL=10.77.0.1:3260
TARGET=iqn.2026-11.lab.plexus:disk
CHAP_TARGET=iqn.2026-11.lab.plexus:chap
MUTUAL_TARGET=iqn.2026-11.lab.plexus:mutual
SECOND_TARGET=iqn.2026-11.lab.plexus:second

say() { echo "--- $*"; }
fail() {
  echo "FAILED: $*"
  dmesg | tail -15
  exit 1
}
# check WHAT COMMAND...: the command must succeed.
check() {
  what=$1
  shift
  "$@" >/tmp/check.log 2>&1 || {
    tail -20 /tmp/check.log
    fail "$what: $*"
  }
  echo "ok: $what"
}
# refused WHAT STATUS COMMAND...: the command must fail with this exit status.
refused() {
  what=$1
  want=$2
  shift 2
  "$@" >/tmp/check.log 2>&1
  got=$?
  [ "$got" = "$want" ] || {
    tail -20 /tmp/check.log
    fail "$what: exit status $got, not $want"
  }
  echo "ok: $what"
}
# equal WHAT ACTUAL EXPECTED
equal() {
  [ "$2" = "$3" ] || fail "$1: '$2', not '$3'"
  echo "ok: $1"
}
# ask NAME: the host does it (lab-host.ts) and its answer is printed; waits at most 40 s.
ask() {
  rm -f "/share/done/$1"
  : >"/share/ask/$1"
  n=0
  while ! ls /share/done | grep -qx "$1"; do
    n=$((n + 1))
    [ $n -lt 200 ] || fail "the host did not answer '$1'"
    sleep 0.2
  done
  cat "/share/done/$1"
}
# wait_host: the target listens.
wait_host() {
  n=0
  while ! ls /share/done | grep -qx ready; do
    n=$((n + 1))
    [ $n -lt 150 ] || fail "the host never became ready: $(tail -5 /share/host.log)"
    sleep 0.2
  done
}
discover() { iscsiadm -m discovery -t sendtargets -p $PORTAL; }
# set_node TARGET KEY VALUE
set_node() { iscsiadm -m node -T "$1" -p $PORTAL -o update -n "$2" -v "$3" >/dev/null; }
login() { iscsiadm -m node -T "$1" -p $PORTAL --login; }
logout() { iscsiadm -m node -T "$1" -p $PORTAL --logout; }
# disk_of TARGET: prints the disk's /dev node once it is there.
disk_of() {
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do
    for session in /sys/class/iscsi_session/session*; do
      [ "$(cat "$session/targetname" 2>/dev/null)" = "$1" ] || continue
      for block in "$session"/device/target*/*/block/sd*; do
        [ -e "/dev/${block##*/}" ] && echo "/dev/${block##*/}" && return 0
      done
    done
    sleep 0.2
  done
  return 1
}
# attach TARGET: discovers, logs in and sets DISK.
attach() {
  wait_host
  check "discovery" discover
  check "login to $1" login "$1"
  DISK=$(disk_of "$1") || fail "no disk of $1 came up: $(lsscsi)"
  echo "ok: $1 is $DISK"
}
# clean_log [ALLOWED]: the kernel saw no error of the disk or the session, but for lines that match ALLOWED.
clean_log() {
  bad=$(dmesg | grep -Ei 'i/o error|medium error|critical|conn error|timing out|ping timeout|abort|reset|blk_update|Sense Key|corrupt|XFS.*error|EXT4-fs error' |
    grep -Ev 'Unit Attention|Power-on or device reset occurred|cursory|gpio' | grep -Ev "${1:-no-such-line}")
  n=$(printf '%s' "$bad" | grep -c .)
  [ "$n" = 0 ] || fail "$n errors in the kernel log: $bad"
  echo "ok: no error in the kernel log"
}
