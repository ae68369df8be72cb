# host: disks=4 diskMiB=96 fuseMiB=96 timeout=5s volumes=db,fs
# A disk of a mirror stops to answer, for ever, under load: it is called down within its timeout, replaced, and the
# initiator notices nothing. Then one whose file system stalls, and comes back: it is taken back by itself.
. /share/lib.sh
# within SECONDS WHAT COMMAND...: the command succeeds, and takes no longer.
within() {
  limit=$1
  shift
  began=$(date +%s)
  check "$@"
  took=$(($(date +%s) - began))
  [ $took -le "$limit" ] || fail "it took $took s, not $limit"
  echo "ok: it took $took s"
}
write_synced() { dd if=/dev/zero of="$DISK" bs=4k count=1 oflag=direct,sync; }
wait_host
check "nop create" plexus nop create d1 --name n1
check "volume create" plexus volume create db --mirror n1 d2
check "volume create" plexus volume create fs --mirror f1 d4
check "they are synchronised" plexus wait db --timeout 20s
check "they are synchronised" plexus wait fs --timeout 20s
attach $VOLUMES_TARGET

say "a disk hangs for ever"
attach_lun 0
fill "$DISK" 40m
start_load "$DISK"
sleep 2
check "nop hang" plexus nop hang n1
within 8 "a write goes on within the timeout and two seconds" write_synced
shows "status: degraded" 'state: DEGRADED' plexus status db
shows "events: why" 'n1: no answer for 5 s' plexus events
loaded "the load goes on"
within 10 "volume replace" plexus volume replace db n1 d3
check "the rebuild ends" plexus wait db --timeout 30s
shows "status: up" 'state: UP ' plexus status db
stop_load
filled "what was written before" "$DISK" 40m
check "nop clear" plexus nop clear n1
check "scrub" plexus volume scrub db --wait
equal "no mismatch" "$(plexus job list --no-headings -p -o kind,mismatches | grep ^check | cut -f 2)" 0

say "a file system stalls, and goes on"
attach_lun 1
fill "$DISK" 40m
start_load "$DISK"
sleep 2
equal "f1 stalls" "$(ask stall)" stalled
within 8 "a write goes on within the timeout and two seconds" write_synced
shows "status: degraded" 'state: DEGRADED' plexus status fs
shows "device list: why" 'no answer for 5 s.*has not returned [0-9]+ request' plexus device list
loaded "the load goes on"
equal "f1 goes on" "$(ask go)" "goes on"
shows "f1 is taken back" 'state: (SYNCING|UP) ' plexus status fs
check "it is synchronised" plexus wait fs --timeout 30s
shows "status: up" 'state: UP ' plexus status fs
stop_load
filled "what was written before" "$DISK" 40m
check "scrub" plexus volume scrub fs --wait
equal "no mismatch" "$(plexus job list --no-headings -p -o kind,mismatches | grep ^check | cut -f 2 | sort -u)" 0
check "logout" logout $VOLUMES_TARGET
clean_log
