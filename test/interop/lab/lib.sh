# Shared by the lab's guest scripts; sourced as /share/lib.sh in the guest (sh is dash there).
# A script that reaches its end has passed; the first assertion that fails ends it with status 1.
set -u
. "$LAB_ENV"
PORTAL=$TARGET_ADDRESS_A:$ISCSI_PORT
PREFIX=${TARGET_NAME%:*}
TARGET=$PREFIX:disk
CHAP_TARGET=$PREFIX:chap
MUTUAL_TARGET=$PREFIX:mutual
SECOND_TARGET=$PREFIX:second
VOLUMES_TARGET=$PREFIX:volumes

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
# ask NAME [WORD...]: the host does it (lab-host.ts) and its answer is printed; waits at most 40 s. What fails there ends
# the script here.
ask() {
  rm -f "/share/done/$1"
  echo "$*" | cut -d ' ' -f 2- -s >/share/asking
  mv /share/asking "/share/ask/$1"
  n=0
  while ! ls /share/done | grep -qx "$1"; do
    n=$((n + 1))
    [ $n -lt 200 ] || fail "the host did not answer '$1'"
    sleep 0.2
  done
  cat "/share/done/$1"
  ! grep -q '^failed: ' "/share/done/$1" || fail "the host could not '$*'"
}
# told NAME: lets the other guest know. await NAME: waits for it, at most 40 s.
told() { : >"/share/told-$1"; }
await() {
  n=0
  while ! ls /share | grep -qx "told-$1"; do
    n=$((n + 1))
    [ $n -lt 200 ] || fail "the other guest never told '$1'"
    sleep 0.2
  done
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
# start_initiator: iscsid, with times that suit a crash of the target.
start_initiator() {
  modprobe -a iscsi_tcp sd_mod sg
  echo "InitiatorName=$LINUX_NAME" >/etc/iscsi/initiatorname.iscsi
  cat >/etc/iscsi/iscsid.conf <<EOT
node.startup = manual
node.session.timeo.replacement_timeout = 15
node.conn[0].timeo.login_timeout = 15
node.conn[0].timeo.noop_out_interval = 5
node.conn[0].timeo.noop_out_timeout = 5
EOT
  mkdir -p /run/lock/iscsi
  iscsid -f >/run/iscsid.log 2>&1 &
}
discover() { iscsiadm -m discovery -t sendtargets -p $PORTAL; }
# set_node TARGET KEY VALUE
set_node() { iscsiadm -m node -T "$1" -p $PORTAL -o update -n "$2" -v "$3" >/dev/null; }
login() { iscsiadm -m node -T "$1" -p $PORTAL --login; }
# logout TARGET: when udev has looked at all that was written; else it reads from a disk that is gone.
logout() { udevadm settle && iscsiadm -m node -T "$1" -p $PORTAL --logout; }
# is_up BLOCK: the kernel and udev have looked at the disk; BLOCK is its directory in sysfs.
is_up() { [ -e "/run/udev/data/b$(cat "$1/dev" 2>/dev/null)" ]; }
# disk_of TARGET [LUN]: prints the /dev node of LUN 0, or of another one, once it is there.
disk_of() {
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do
    for session in /sys/class/iscsi_session/session*; do
      [ "$(cat "$session/targetname" 2>/dev/null)" = "$1" ] || continue
      for block in "$session"/device/target*/*:"${2:-0}"/block/sd*; do
        is_up "$block" && echo "/dev/${block##*/}" && return 0
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
# plexus WORD...: the command line on the host. Prints what it says, returns what it ends with.
plexus() {
  ask plexus "$@" >/tmp/plexus.answer
  sed 1d /tmp/plexus.answer
  return "$(sed -n 1p /tmp/plexus.answer)"
}
# shows WHAT PATTERN COMMAND...: repeats the command until it prints the pattern, for at most 20 s.
shows() {
  what=$1
  pattern=$2
  shift 2
  give_up=$(($(date +%s) + 20))
  until "$@" >/tmp/shows.log 2>&1 && grep -Eq "$pattern" /tmp/shows.log; do
    [ "$(date +%s)" -lt $give_up ] || {
      cat /tmp/shows.log
      fail "$what: '$*' never showed '$pattern'"
    }
    sleep 0.1
  done
  echo "ok: $what"
}
# attach_lun LUN: of the target of the volumes, which is logged in; sets DISK.
attach_lun() {
  DISK=$(disk_of $VOLUMES_TARGET "$1") || fail "no disk for LUN $1 came up: $(lsscsi)"
  echo "ok: LUN $1 is $DISK"
}
# rescan DISK: its capacity is asked for again.
rescan() { echo 1 >"/sys/block/${1#/dev/}/device/rescan"; }
# start_load DISK: writes and verifies 32 MiB at 8 MiB, again and again until stop_load.
start_load() {
  rm -f /tmp/load.stop
  (
    while [ ! -e /tmp/load.stop ]; do
      fio --name=load --filename="$1" --offset=8m --size=32m --direct=1 --ioengine=libaio \
        --rw=randwrite --bsrange=4k-64k --iodepth=8 --rate=16m --fsync=64 --randrepeat=0 \
        --verify=crc32c --verify_fatal=1 --do_verify=1 >/tmp/load.log 2>&1 || exit 1
    done
  ) &
  LOAD=$!
}
# loaded WHAT: the load goes on, without an error so far.
loaded() {
  kill -0 $LOAD 2>/dev/null || {
    head -20 /tmp/load.log
    fail "$1: the load has ended"
  }
  echo "ok: $1"
}
stop_load() {
  : >/tmp/load.stop
  wait $LOAD || {
    head -20 /tmp/load.log
    fail "the load failed"
  }
  echo "ok: the load wrote and verified without an error"
}
# fill DISK SIZE: from 40 MiB on, behind what the load writes. filled WHAT DISK SIZE verifies it.
fill_fio() {
  fio --name=fill --filename="$1" --direct=1 --ioengine=libaio --rw=write --bs=256k --iodepth=8 \
    --offset=40m --size="$2" --verify=crc32c --verify_fatal=1 --randrepeat=1 "$3"
}
fill() { check "fill $2" fill_fio "$1" "$2" --do_verify=0; }
filled() { check "$1" fill_fio "$2" "$3" --verify_only=1; }
# job KIND: sets JOB, STATE, DONE and TOTAL (bytes) of the job of this kind that is at work, or of the last one.
job() {
  ask plexus job list --no-headings -p -o kind,id,state,done,total >/tmp/jobs
  line=$(grep -E "^$1.(\S+.)(running|paused)" /tmp/jobs || grep "^$1" /tmp/jobs)
  line=$(echo "$line" | tail -1)
  [ -n "$line" ] || fail "no job $1: $(cat /tmp/jobs)"
  read -r _ JOB STATE DONE TOTAL <<EOT
$line
EOT
}
# caught KIND RATE: such a job is at work, limited to this rate, and has got somewhere, durably.
caught() {
  job "$1"
  check "the $1 is limited to $2" plexus job limit "$JOB" "$2"
  before=$DONE
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    sleep 0.2
    job "$1"
    [ "$DONE" -le "$before" ] || break
  done
  [ "$STATE" = running ] && [ "$DONE" -gt "$before" ] || fail "the $1 $JOB is $STATE at $DONE, from $before"
  echo "ok: the $1 $JOB is at $DONE of $TOTAL"
}
# crash KIND: SIGKILL during the job that was caught; it goes on where it was.
crash() {
  caught_job=$JOB
  equal "SIGKILL and restart" "$(ask kill9)" "started again"
  job "$1"
  equal "the $1 has its id" "$JOB" "$caught_job"
  [ "$STATE" = running ] || fail "the $1 is $STATE"
  plexus events >/tmp/events
  # Events are kept over the restart: what it said first after it.
  goes_on=$(grep "$JOB" /tmp/events | grep -Eo 'goes on at [0-9]+ %' | tail -1)
  [ -n "$goes_on" ] && [ "$goes_on" != "goes on at 0 %" ] || fail "the $1 began anew: $(cat /tmp/events)"
  echo "ok: the $1 $goes_on, and is at $DONE of $TOTAL"
  # A read waits until it is. All that follows is under load, and the size is asked for by a session that is there.
  check "the session is back" timeout 20 dd if="$DISK" of=/dev/null bs=4k count=1 iflag=direct
  grep -q LOGGED_IN /sys/class/iscsi_session/session*/state || fail "the session is not back"
}
# A script that tries how a machine becomes an initiator sets BARE before it comes here.
[ -n "${BARE:-}" ] || start_initiator
