# host: disks=2 diskMiB=96 volumes=db
# A mirror of two loses a disk while the machine is off: it starts by itself, without a verb, and the initiator goes on. The
# disk comes back with what it had, and is filled.
. /share/lib.sh
wait_host
check "volume create" plexus volume create db --mirror d1 d2
check "it is synchronised" plexus wait db --timeout 20s
attach $VOLUMES_TARGET
fill "$DISK" 24m
check "a synced write" dd if=/dev/urandom of=/tmp/last bs=1M count=4
check "it is written" dd if=/tmp/last of="$DISK" bs=1M oflag=direct conv=fsync
equal "reboot" "$(ask reboot-without d1)" "started without it"
began=$(date +%s)
check "a write is served" timeout 20 dd if=/tmp/last of="$DISK" bs=1M seek=4 oflag=direct conv=fsync
took=$(($(date +%s) - began))
[ $took -le 10 ] || fail "it took $took s, not 10"
echo "ok: it took $took s"
shows "status: degraded" 'state: DEGRADED' plexus status db
filled "what was written before" "$DISK" 24m
check "the last write" cmp -n 4194304 /tmp/last "$DISK"
equal "d1 returns" "$(ask plug d1)" plugged
shows "status: up" 'state: UP ' plexus status db
check "scrub" plexus volume scrub db --wait
equal "no mismatch" "$(plexus job list --no-headings -p -o kind,mismatches | grep ^check | cut -f 2)" 0
check "logout" logout $VOLUMES_TARGET
clean_log 'conn error|connection[0-9]+:0'
